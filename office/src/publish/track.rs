//! Track: one music file, in one pass, becomes the objects of its renditions and all that the catalogue needs to know.
//!
//! Law: memory does not grow with the length of the file; a bad file costs itself and nothing else.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use jukebox_core::library::{Codec, Digest, Init, Rendition, RenditionName, TrackId};
use minicbor::{Decode, Encode};

use super::cut::{Cutter, Grid, Preroll, Search, fingerprint};
use super::encode::Ladder;
use super::measure::{Blocks, Loudness, TruePeak};
use super::source::{Source, Unusable};
use super::tags::Covers;
use super::write::Store;

/// A bit reservoir of 511 bytes spans at most so many MP3 packets, overlap and synthesis memory included.
const MP3_PREROLL: usize = 12;
/// Packets before and after a segment of an Opus file that somebody else made, which is never bit-exact.
const OPUS_PREROLL: usize = 5;
const OPUS_TAIL: usize = 2;

/// What publish keeps of a file; its objects are in the library.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Analysed {
    /// Digest of its sound.
    #[n(0)]
    pub id: TrackId,
    /// Title; may be empty.
    #[n(1)]
    pub title: String,
    /// Artist; may be empty.
    #[n(2)]
    pub artist: String,
    /// Album; may be empty.
    #[n(3)]
    pub album: String,
    /// Artist of the album; may be empty.
    #[n(4)]
    pub album_artist: String,
    /// Year, or 0.
    #[n(5)]
    pub year: u16,
    /// Disc number, or 0.
    #[n(6)]
    pub disc: u16,
    /// Number on the disc, or 0.
    #[n(7)]
    pub number: u16,
    /// Integrated loudness, LUFS.
    #[n(8)]
    pub loudness: f32,
    /// For the loudness of its album.
    #[n(9)]
    pub blocks: Blocks,
    /// The cover, if there is one.
    #[n(10)]
    pub cover: Option<Digest>,
    /// All encodings, `original` first.
    #[n(11)]
    pub renditions: Vec<Rendition>,
    /// What people should know of it, in a line.
    #[n(12)]
    pub note: Option<String>,
}

impl Analysed {
    /// Length of the original in milliseconds.
    pub fn duration_ms(&self) -> u64 {
        self.renditions.first().map_or(0, |r| r.frames * 1_000 / u64::from(r.init.rate.max(1)))
    }

    /// Highest true peak of any rendition, dBTP.
    pub fn true_peak(&self) -> f32 {
        self.renditions.iter().map(|r| r.true_peak).fold(f32::MIN, f32::max)
    }

    /// Whether all its objects are in the library.
    pub fn is_stored(&self, store: &Store) -> bool {
        let whole =
            |r: &Rendition| store.has(&r.object, Some(r.size)) && r.index.iter().all(|i| store.has(&i.object, None));
        self.renditions.iter().all(whole) && self.cover.is_none_or(|c| store.has(&c, None))
    }
}

/// Works on one file. A panic of a decoder is one more reason not to use it.
pub fn analyse(path: &Path, store: &Store, covers: &Covers) -> Result<Analysed, Unusable> {
    quietly(|| work(path, store, covers)).unwrap_or_else(|panic| Err(Unusable::Panic(panic)))
}

fn work(path: &Path, store: &Store, covers: &Covers) -> Result<Analysed, Unusable> {
    let meter_fault = |e: ebur128::Error| Unusable::Encode(e.to_string());
    let mut source = Source::open(path)?;
    let init = source.init.clone();
    let (rate, delay) = (init.rate, source.delay);
    let (preroll, tail) = match init.codec {
        Codec::Flac => (Preroll::Packets(0), 0),
        Codec::Mp3 => (search(&init, MP3_PREROLL), 0),
        // Both look back one packet. AAC with noise substitution is never bit-exact: its noise goes on and on.
        Codec::Vorbis | Codec::Aac => (search(&init, 2), 0),
        // RFC 7845, section 4.6: 80 ms; one more for the fade in.
        Codec::Opus => (Preroll::Packets(OPUS_PREROLL), OPUS_TAIL),
    };
    let mut original = Cutter::new(store, preroll, tail)?;
    let mut ladder = Ladder::new(store, init.channels, rate)?;
    let mut loudness = Loudness::new(init.channels, rate).map_err(meter_fault)?;
    let mut peak = TruePeak::new(init.channels, rate);
    let mut grid = Grid::new(delay, rate);
    let mut trim =
        Trim { skip: delay as usize, hold: source.padding as usize, channels: init.channels.into(), held: vec![] };

    // Packets wait until it is certain that they can be heard: a border in the padding would make a silent segment.
    let mut waiting = VecDeque::new();
    let (mut decoded, mut passed) = (0, 0);
    let padding = source.padding;
    while let Some(packet) = source.next_packet()? {
        let print = if original.wants_prints() { fingerprint(packet.pcm) } else { 0 };
        let heard = trim.add(packet.pcm);
        loudness.add(heard).map_err(meter_fault)?;
        peak.add(heard);
        decoded += u64::from(packet.frames);
        waiting.push_back((packet.data, packet.frames, print));
        while waiting.front().is_some_and(|(_, n, _)| passed + u64::from(*n) + padding < decoded) {
            let Some((data, frames, print)) = waiting.pop_front() else { break };
            let end = passed + u64::from(frames);
            let begins = grid.packet(passed, end);
            if begins {
                ladder.border(passed - delay);
            }
            ladder.settle(end.saturating_sub(delay));
            original.push(data, frames, print, begins)?;
            passed = end;
        }
        ladder.add(heard)?;
        trim.drop_heard();
    }

    let promised = source.promised.unwrap_or(0);
    // What is missing at the end is missing of the padding first.
    let padding = padding.saturating_sub(promised.saturating_sub(decoded));
    let have = decoded.saturating_sub(source.lost);
    if have * 10 < promised.max(decoded) * 9 {
        let seconds = |frames: u64| frames / u64::from(rate);
        return Err(Unusable::Damaged { have: seconds(have), promised: seconds(promised.max(decoded)) });
    }
    let frames = decoded.saturating_sub(delay + padding);
    if frames == 0 {
        return Err(Unusable::Silent);
    }
    let rest = trim.finish(padding);
    loudness.add(rest).map_err(meter_fault)?;
    peak.add(rest);
    for (data, packet_frames, print) in waiting {
        let end = passed + u64::from(packet_frames);
        let begins = grid.packet(passed, end) && passed < delay + frames;
        if begins {
            ladder.border(passed - delay);
        }
        original.push(data, packet_frames, print, begins)?;
        passed = end;
    }
    ladder.add(rest)?;

    let cut = original.finish()?;
    let mut renditions = vec![Rendition {
        name: RenditionName::Original,
        init,
        delay,
        frames,
        true_peak: peak.finish(),
        size: cut.size,
        object: cut.object,
        index: cut.index,
    }];
    renditions.extend(ladder.finish(frames)?);
    let (loudness, blocks) = loudness.finish().map_err(meter_fault)?;
    let tags = std::mem::take(&mut source.tags);
    let cover = match &tags.picture {
        Some(picture) => covers.store(picture, store)?,
        None => None,
    };
    let missing_ms = (promised.max(decoded) - have) * 1_000 / u64::from(rate);
    // An MP3 that was cut out of a stream begins with packets that lean on what is not there: nobody hears that.
    let damaged = if missing_ms > if source.init.codec == Codec::Mp3 { 100 } else { 0 } {
        Some(format!("is damaged: {missing_ms} ms cannot be played; copy or rip it again"))
    } else {
        None
    };
    let no_cover = if tags.picture.is_some() && cover.is_none() {
        Some("has a cover that cannot be read: put in a JPEG or PNG of less than 5,000 by 5,000 pixels".into())
    } else {
        None
    };
    let notes: Vec<String> = [damaged, source.note.take(), no_cover].into_iter().flatten().collect();
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(Analysed {
        id: source.id(),
        title: tags.title,
        artist: tags.artist,
        album: tags.album,
        album_artist: tags.album_artist,
        year: tags.year,
        disc: tags.disc,
        number: tags.number,
        loudness,
        blocks,
        cover,
        renditions,
        note,
    })
}

impl From<std::io::Error> for Unusable {
    /// Only the library's disk is written to, or asked, without an error of its own.
    fn from(e: std::io::Error) -> Self {
        Self::Store(e)
    }
}

fn search(init: &Init, most: usize) -> Preroll {
    Preroll::Search(Search { init: init.clone(), least: 0, most, spare: 0 })
}

/// Cuts delay and padding off: the one place that does.
struct Trim {
    /// Frames still to be skipped.
    skip: usize,
    /// Frames at the end that may be padding.
    hold: usize,
    channels: usize,
    held: Vec<f32>,
}

impl Trim {
    /// Takes decoded samples, returns those that are certain to be heard. They stay until [`Trim::drop_heard`].
    fn add(&mut self, pcm: &[f32]) -> &[f32] {
        let skipped = self.skip.min(pcm.len() / self.channels);
        self.skip -= skipped;
        self.held.extend_from_slice(&pcm[skipped * self.channels..]);
        &self.held[..self.certain()]
    }

    fn certain(&self) -> usize {
        self.held.len().saturating_sub(self.hold * self.channels)
    }

    fn drop_heard(&mut self) {
        self.held.drain(..self.certain());
    }

    /// What was held back and is no padding.
    fn finish(&self, padding: u64) -> &[f32] {
        &self.held[..self.held.len().saturating_sub(padding as usize * self.channels)]
    }
}

/// Catches a panic of `f` and keeps it from the terminal; returns what it said.
fn quietly<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(f));
    QUIET.set(false);
    done.map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        text.unwrap_or("no reason given").lines().next().unwrap_or_default().chars().take(120).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_both_ends_whatever_the_packets() {
        let pcm: Vec<f32> = (0..200).map(|i| i as f32).collect();
        for portion in [2, 6, 50, 200] {
            let mut trim = Trim { skip: 5, hold: 7, channels: 2, held: vec![] };
            let mut heard = vec![];
            for p in pcm.chunks(portion) {
                heard.extend_from_slice(trim.add(p));
                trim.drop_heard();
            }
            heard.extend_from_slice(trim.finish(7));
            assert_eq!(heard, pcm[10..186]);
            heard.truncate(0);
            assert_eq!(trim.finish(0), &pcm[186..]);
        }
    }

    #[test]
    fn panics_become_text() {
        assert_eq!(quietly(|| 1), Ok(1));
        assert_eq!(quietly(|| -> u32 { panic!("over {}", "there") }), Err("over there".into()));
    }
}
