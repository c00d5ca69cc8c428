//! What left a DAC: read from WAV, measured in frames.
//!
//! A *gap* is a run of frames whose samples are all zero, between the first and the last frame that sound. The rig's music
//! has no such frame of its own, so a gap is silence that somebody made.

use std::ops::Range;
use std::path::Path;

/// Sound, two channels, 32-bit samples (16- and 24-bit ones in the upper bits).
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Frames a second.
    pub rate: u32,
    /// The frames.
    pub frames: Vec<[i32; 2]>,
}

impl Recording {
    /// Reads a WAV file (16, 24, 32 bit, or float), also one that is still being written. A file that is not there yet is empty.
    ///
    /// # Panics
    /// When it is something else.
    pub fn read(file: &Path) -> Self {
        let bytes = match std::fs::read(file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::default(),
            other => other.unwrap_or_else(|e| panic!("{}: {e}", file.display())),
        };
        Self::parse(&bytes)
            .unwrap_or_else(|| panic!("{}: not a WAV file of ours ({} bytes)", file.display(), bytes.len()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let small = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        if bytes.get(..4)? != b"RIFF" || bytes.get(8..12)? != b"WAVE" {
            return None;
        }
        let (mut at, mut form) = (12, None);
        loop {
            let (name, length, body) = (bytes.get(at..at + 4)?, number(at + 4)? as usize, at + 8);
            match name {
                b"fmt " => {
                    // WAVE_FORMAT_EXTENSIBLE (0xfffe) says the same in its first two bytes of the sub-format.
                    let tag = small(body)?;
                    let float = tag == 3 || (tag == 0xfffe && small(body + 24)? == 3);
                    form = Some((small(body + 2)? as usize, number(body + 4)?, small(body + 14)? as usize / 8, float));
                }
                b"data" => {
                    let (channels, rate, width, float) = form?;
                    // The header of a file that grows tells less than there is; that of a stream tells too much.
                    let data = &bytes[body.min(bytes.len())..];
                    let _ = length;
                    let frame = |f: &[u8]| {
                        let first = sample(&f[..width], float);
                        [first, if channels > 1 { sample(&f[width..2 * width], float) } else { first }]
                    };
                    return Some(Self { rate, frames: data.chunks_exact(width * channels).map(frame).collect() });
                }
                _ => {}
            }
            at = body + length + length % 2;
        }
    }

    /// The frames from the first to the last that is not zero.
    pub fn sounding(&self) -> Range<usize> {
        let sounds = |f: &[i32; 2]| *f != [0, 0];
        let first = self.frames.iter().position(sounds).unwrap_or(0);
        first..self.frames.iter().rposition(sounds).map_or(0, |last| last + 1)
    }

    /// Gaps of more than `ms` milliseconds: where, in frames.
    pub fn gaps(&self, ms: f64) -> Vec<Range<usize>> {
        let least = (ms / 1000.0 * f64::from(self.rate)).ceil() as usize;
        let (mut gaps, mut since) = (Vec::new(), None);
        for at in self.sounding() {
            match (self.frames[at] == [0, 0], since) {
                (true, None) => since = Some(at),
                (false, Some(from)) => {
                    if at - from > least.max(1) {
                        gaps.push(from..at);
                    }
                    since = None;
                }
                _ => {}
            }
        }
        gaps
    }

    /// Where `part` stands in this recording, sample for sample, searched from frame `from` on.
    pub fn find(&self, part: &[[i32; 2]], from: usize) -> Option<usize> {
        let first = part.first()?;
        let last = self.frames.len().checked_sub(part.len())?;
        (from..=last).find(|&at| self.frames[at] == *first && self.frames[at..at + part.len()] == *part)
    }

    /// Mean level of the sounding part, in dB below full scale.
    pub fn rms_db(&self) -> f64 {
        let frames = &self.frames[self.sounding()];
        let sum: f64 = frames.iter().flatten().map(|s| (f64::from(*s) / 2f64.powi(31)).powi(2)).sum();
        10.0 * (sum / (2 * frames.len().max(1)) as f64).log10()
    }

    /// How strong `hertz` is in the `seconds` from `from` on (Goertzel's algorithm under a Hann window; no unit, to be compared).
    pub fn level_at(&self, from: f64, seconds: f64, hertz: f64) -> f64 {
        let rate = f64::from(self.rate);
        let start = ((from * rate) as usize).min(self.frames.len());
        let end = (((from + seconds) * rate) as usize).min(self.frames.len());
        let part = &self.frames[start..end];
        let turn = std::f64::consts::TAU / part.len().max(1) as f64;
        let factor = 2.0 * (std::f64::consts::TAU * hertz / rate).cos();
        let (mut one, mut two) = (0.0, 0.0);
        for (i, frame) in part.iter().enumerate() {
            let window = 0.5 - 0.5 * (turn * i as f64).cos();
            let next = window * (f64::from(frame[0]) + f64::from(frame[1])) + factor * one - two;
            (two, one) = (one, next);
        }
        (one * one + two * two - factor * one * two).max(0.0).sqrt()
    }
}

fn sample(bytes: &[u8], float: bool) -> i32 {
    match *bytes {
        [a, b] => i32::from_le_bytes([0, 0, a, b]),
        [a, b, c] => i32::from_le_bytes([0, a, b, c]),
        [a, b, c, d] if float => (f64::from(f32::from_le_bytes([a, b, c, d])) * 2f64.powi(31)) as i32,
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::run;
    use std::process::Command;

    #[test]
    fn gaps_are_counted_inside_only() {
        let mut sound = Recording { rate: 1000, frames: vec![[0, 0]; 100] };
        for at in (10..40).chain(45..60).chain(61..90) {
            sound.frames[at] = [7, -7];
        }
        assert_eq!(sound.sounding(), 10..90);
        assert_eq!(sound.gaps(2.0), vec![40..45]);
        assert!(sound.gaps(10.0).is_empty());
        let part = vec![[7, -7], [0, 0], [7, -7]];
        assert_eq!(sound.find(&part, 0), Some(59));
        assert_eq!(sound.find(&part, 60), None);
    }

    #[test]
    fn every_form_of_sample_reads_the_same() {
        let folder = crate::rig::folder();
        let file = |codec: &str| folder.path().join(format!("{codec}.wav"));
        let ffmpeg = |input: &[&str], codec: &str| {
            let mut ffmpeg = Command::new("ffmpeg");
            ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "error"]).args(input).args(["-c:a", codec]);
            run(ffmpeg.arg(file(codec)));
        };
        let tone = "sine=frequency=1000:sample_rate=48000:duration=0.5";
        ffmpeg(&["-f", "lavfi", "-i", tone, "-ac", "2"], "pcm_s16le");
        let base = Recording::read(&file("pcm_s16le"));
        assert_eq!((base.rate, base.frames.len()), (48_000, 24_000));
        assert!(base.level_at(0.1, 0.3, 1000.0) > 100.0 * base.level_at(0.1, 0.3, 1500.0));
        for codec in ["pcm_s24le", "pcm_s32le", "pcm_f32le"] {
            ffmpeg(&["-i", file("pcm_s16le").to_str().unwrap()], codec);
            assert!(Recording::read(&file(codec)).frames == base.frames, "{codec}");
        }
    }
}
