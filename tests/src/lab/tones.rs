//! Music in which each second of each track is known by ear, and what was heard of it.
//!
//! Each second is a pair of tones of its own. A recording of the lab's sound card is laid on the clock of the run, tenth by
//! tenth asked which pair it holds, and told as seconds: silent, lost, heard twice.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::rig::{run, write};

/// The playlist: title, seconds.
pub const TRACKS: [(&str, usize); 4] = [("Amber", 90), ("Basalt", 210), ("Cedar", 150), ("Dune", 180)];
/// Pairs of so many tones are enough for all seconds of all tracks.
const TONES: usize = 40;
/// Shorter silence is none: encoders pad the ends of a track by less.
const GAP: f64 = 0.3;
/// Frames a second of the sound that is looked at.
const RATE: usize = 8_000;
/// A slot is sound or silence.
const SLOT: usize = RATE / 50;
const TENTH: usize = RATE / 10;

fn hertz(tone: usize) -> f64 {
    400.0 + 45.0 * tone as f64
}

fn seconds() -> usize {
    TRACKS.iter().map(|t| t.1).sum()
}

/// The two tones of a second, counted over all tracks.
fn pair(second: usize) -> (usize, usize) {
    let mut all = (0..TONES).flat_map(|low| (low + 1..TONES).map(move |high| (low, high)));
    all.nth(second).unwrap_or_default()
}

/// Writes the playlist to `folder` as `0.mp3`, `1.mp3`, ...: 320 kbit/s.
///
/// # Panics
/// When ffmpeg fails.
pub fn make(folder: &Path) {
    let mut from = 0;
    for (n, (title, length)) in TRACKS.into_iter().enumerate() {
        let raw = folder.join("raw");
        let samples = (from..from + length).flat_map(|second| tone(second, 44_100));
        write(&raw, samples.flat_map(|s| ((s * 32_767.0) as i16).to_le_bytes()).collect::<Vec<_>>());
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args([
            "-hide_banner",
            "-nostdin",
            "-loglevel",
            "error",
            "-y",
            "-f",
            "s16le",
            "-ar",
            "44100",
            "-ac",
            "1",
        ]);
        ffmpeg.arg("-i").arg(&raw).args(["-ac", "2", "-c:a", "libmp3lame", "-b:a", "320k"]);
        ffmpeg.args(["-metadata", &format!("title={title}"), "-metadata", "artist=The Lab"]);
        run(ffmpeg.arg(folder.join(format!("{n}.mp3"))));
        // A file that is in the way tells the next run that this one did not finish.
        std::fs::remove_file(raw).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        from += length;
    }
}

fn tone(second: usize, rate: usize) -> impl Iterator<Item = f64> {
    let (low, high) = pair(second);
    (0..rate).map(move |i| {
        let turn = std::f64::consts::TAU * i as f64 / rate as f64;
        0.2 * ((turn * hertz(low)).sin() + (turn * hertz(high)).sin())
    })
}

/// What a sound card played, on the clock of a run.
pub struct Heard(Vec<f32>);

/// What a listener would say of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// First sound, in seconds; none: there was none.
    pub start: Option<f64>,
    /// Seconds without sound between that and the end of the run.
    pub silence: f64,
    /// How often it fell silent.
    pub stalls: usize,
    /// Seconds from the end of the last trouble to sound; none: no trouble, or it was never heard again.
    pub recovery: Option<f64>,
    /// Silent for the last ten seconds of the run.
    pub ended_silent: bool,
    /// Seconds of music before the last one heard that were never heard.
    pub lost: usize,
    /// Entries before the last one heard of which more than a tenth was never heard.
    pub lost_entries: usize,
    /// Seconds of music heard more than once.
    pub again: f64,
}

impl Heard {
    /// Reads the sound card's blocks (see `tests/lab/sink.c`); the run began at `start_ns` of the monotonic clock.
    ///
    /// # Errors
    /// When the file is there and cannot be read. A player that never opened the card leaves none: silence.
    pub fn read(file: &Path, start_ns: u64, seconds: f64) -> Result<Self> {
        let bytes = match std::fs::read(file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.with_context(|| file.display().to_string())?,
        };
        let length = (seconds * RATE as f64) as usize;
        let (mut sums, mut rest) = (vec![(0.0f32, 0u16); length], bytes.as_slice());
        while let Some((head, body)) = rest.split_first_chunk::<16>() {
            let [a, b, c, d, e, f, g, h, rate @ .., _, _, _, _] = *head;
            let ns = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
            let rate = f64::from(u32::from_ne_bytes(rate));
            let frames = u32::from_ne_bytes([head[12], head[13], head[14], head[15]]) as usize;
            // The last block may be torn: the player was killed.
            let (sound, next) = body.split_at_checked(frames * 4).unwrap_or((body, &[][..]));
            let first = (ns as f64 - start_ns as f64) / 1e9;
            for (i, frame) in sound.chunks_exact(4).enumerate() {
                let at = ((first + i as f64 / rate) * RATE as f64).floor();
                if at >= 0.0
                    && let Some((sum, count)) = sums.get_mut(at as usize)
                {
                    *sum += f32::from(i16::from_ne_bytes([frame[0], frame[1]])) / 32_768.0;
                    *count += 1;
                }
            }
            rest = next;
        }
        Ok(Self(sums.into_iter().map(|(sum, count)| sum / f32::from(count.max(1))).collect()))
    }

    /// Tells what was heard; `recovers_at` is when the last trouble was over.
    pub fn report(&self, recovers_at: Option<f64>) -> Report {
        let slots: Vec<bool> = self.0.chunks(SLOT).map(|s| s.iter().any(|x| x.abs() > 0.002)).collect();
        let time = |slot: usize| (slot * SLOT) as f64 / RATE as f64;
        let Some(first) = slots.iter().position(|s| *s) else {
            return Report { ended_silent: true, ..Report::default() };
        };
        let mut report = Report { start: Some(time(first)), ..Report::default() };
        let (mut at, end) = (first, slots.len());
        while at < end {
            let next = slots[at..].iter().position(|s| *s).map_or(end, |n| at + n);
            let silent = time(next - at);
            if silent >= GAP {
                report.silence += silent;
                report.stalls += 1;
                report.ended_silent = next == end && silent >= 10.0;
            }
            at = next + slots[next..].iter().position(|s| !*s).unwrap_or(end - next);
        }
        if let Some(t) = recovers_at {
            let from = (t * RATE as f64) as usize / SLOT;
            // A moment's silence at that instant is none.
            let over = (from.max(first)..end).find(|s| slots[*s]);
            report.recovery = over.map(|slot| time(slot.saturating_sub(from))).map(|s| if s < GAP { 0.0 } else { s });
        }
        self.music(&mut report);
        report
    }

    fn music(&self, report: &mut Report) {
        let codes = (0..seconds()).map(|second| (pair(second), second)).collect::<std::collections::HashMap<_, _>>();
        let mut tenths = vec![0u32; seconds()];
        for second in self.0.chunks_exact(TENTH).filter_map(|part| codes.get(&loudest(part)?)) {
            tenths[*second] += 1;
        }
        let heard: Vec<bool> = tenths.iter().map(|n| *n >= 3).collect();
        let last = heard.iter().rposition(|h| *h).unwrap_or(0);
        report.lost = heard[..last].iter().filter(|h| !**h).count();
        // Eleven tenths touch a second.
        report.again = f64::from(tenths.iter().map(|n| n.saturating_sub(11)).sum::<u32>()) / 10.0;
        let mut from = 0;
        for (_, length) in TRACKS {
            let missing = heard[from..from + length].iter().filter(|h| !**h).count();
            report.lost_entries += usize::from(from + length <= last && missing * 10 > length);
            from += length;
        }
    }
}

/// The two tones that stand out of a tenth of a second; none: there are not two.
fn loudest(part: &[f32]) -> Option<(usize, usize)> {
    let mut levels: Vec<(f64, usize)> = (0..TONES).map(|tone| (level(part, hertz(tone)), tone)).collect();
    levels.sort_by(|a, b| b.0.total_cmp(&a.0));
    let [(first, a), (second, b), (third, _), ..] = levels[..] else { return None };
    (second > 1.0 && first < 3.0 * second && second > 3.0 * third).then_some((a.min(b), a.max(b)))
}

/// How strong `hertz` is in `part` (Goertzel 1958).
fn level(part: &[f32], hertz: f64) -> f64 {
    let factor = 2.0 * (std::f64::consts::TAU * hertz / RATE as f64).cos();
    let (one, two) = part.iter().fold((0.0, 0.0), |(one, two), x| (f64::from(*x) + factor * one - two, one));
    (one * one + two * two - factor * one * two).max(0.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recording: seconds of music, or none for a second of silence, in blocks as the sound card writes them.
    fn recorded(played: &[Option<usize>]) -> Heard {
        let folder = crate::rig::folder();
        let (file, mut bytes) = (folder.path().join("recording"), Vec::new());
        for (n, second) in played.iter().enumerate() {
            let Some(second) = second else { continue };
            let samples: Vec<i16> = tone(*second, 44_100).map(|s| (s * 32_767.0) as i16).collect();
            for (i, block) in samples.chunks(441).enumerate() {
                let ns = 5_000_000_000 + n as u64 * 1_000_000_000 + i as u64 * 10_000_000;
                bytes.extend(ns.to_ne_bytes());
                bytes.extend([44_100u32, block.len() as u32].into_iter().flat_map(u32::to_ne_bytes));
                bytes.extend(block.iter().flat_map(|s| [*s, *s]).flat_map(i16::to_ne_bytes));
            }
        }
        write(&file, bytes);
        Heard::read(&file, 5_000_000_000, played.len() as f64).unwrap()
    }

    #[test]
    fn planted_flaws_are_found() {
        // Two seconds late; seven seconds silent at 22 s; five seconds skipped, three heard again.
        let mut played = vec![None; 2];
        played.extend((0..20).map(Some));
        played.extend([None; 7]);
        played.extend((25..40).map(Some));
        played.extend((37..50).map(Some));
        let report = recorded(&played).report(Some(25.0));
        assert!((2.0..2.1).contains(&report.start.unwrap()), "{report:?}");
        assert!((6.9..7.1).contains(&report.silence), "{report:?}");
        assert!((3.9..4.1).contains(&report.recovery.unwrap()), "{report:?}");
        assert_eq!((report.stalls, report.lost, report.lost_entries, report.ended_silent), (1, 5, 0, false));
        assert!((2.3..3.1).contains(&report.again), "{report:?}");
    }

    #[test]
    fn a_skipped_entry_and_an_end_are_told() {
        let (second, third) = (TRACKS[0].1, TRACKS[0].1 + TRACKS[1].1);
        let mut played: Vec<_> = (0..second).chain(second..second + 20).chain(third..third + 30).map(Some).collect();
        played.extend([None; 15]);
        let report = recorded(&played).report(None);
        assert_eq!((report.lost, report.lost_entries, report.stalls), (TRACKS[1].1 - 20, 1, 1));
        assert!(report.ended_silent && report.recovery.is_none());
        assert_eq!(recorded(&[None; 20]).report(Some(5.0)), Report { ended_silent: true, ..Report::default() });
    }
}
