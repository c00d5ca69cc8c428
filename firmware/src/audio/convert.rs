//! From the rendition's rate to the output's, across tracks of one rate without a seam.
//!
//! Input is gathered into blocks of a fixed size, so that what comes out depends on the frames alone and not on where
//! packets or tracks end: two tracks in a row give, bit for bit, what the joined file gives. The filter's delay is dropped
//! at the start and flushed out at the end.

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

/// Frames taken at once, about.
const BLOCK: usize = 1024;
/// Frames of the input that the filter spans, at least: -136 dB at a delay of 160 frames (44.1 to 48 kHz).
const SPAN: usize = 256;

pub(crate) struct Converter {
    fft: Fft<f32>,
    from: u32,
    to: u32,
    /// Interleaved stereo, less than a block.
    gathered: Vec<f32>,
    made: Vec<f32>,
    /// Frames of the filter's delay still to be dropped.
    drop: usize,
    taken: u64,
    given: u64,
}

impl Converter {
    /// `None` if the rates have no common ground (neither does a DAC take such a rate).
    pub(crate) fn new(from: u32, to: u32) -> Option<Self> {
        let (step, made) = (Self::step(from, to) as usize, Self::step(to, from) as usize);
        // The delay is half of what a turn gives: of an odd number it would be half a frame off.
        let steps = SPAN.div_ceil(step);
        let span = (steps + steps * made % 2) * step;
        let turns = (BLOCK / span).max(1);
        let window = WindowFunction::BlackmanHarris2;
        let sync = FixedSync::Input;
        let fft = Fft::new_custom(from as usize, to as usize, turns * span, turns, 2, window, sync).ok()?;
        let (drop, made) = (fft.output_delay(), vec![0.0; fft.output_frames_max() * 2]);
        Some(Self { fft, from, to, gathered: Vec::with_capacity(BLOCK * 2), made, drop, taken: 0, given: 0 })
    }

    pub(crate) const fn from(&self) -> u32 {
        self.from
    }

    /// Frames between two instants at which both clocks have a frame, counted by the input's clock.
    pub(crate) const fn step(from: u32, to: u32) -> u64 {
        let (mut a, mut b) = (from, to);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        (from / a) as u64
    }

    /// Frames of the output that lean on what is not there, at either end.
    pub(crate) fn delay(&self) -> usize {
        self.fft.output_delay()
    }

    /// 1 if the next frame taken lies nearer to the output frame before [`Converter::owed`] than to that one, else 0.
    pub(crate) fn late(&self) -> u64 {
        let past = self.taken * u64::from(self.to) % u64::from(self.from);
        u64::from(past != 0 && past * 2 < u64::from(self.from))
    }

    /// Output frames still to come for what was taken.
    pub(crate) fn owed(&self) -> u64 {
        (self.taken * u64::from(self.to)).div_ceil(self.from.into()) - self.given
    }

    /// Takes interleaved stereo, appends what is ready.
    pub(crate) fn put(&mut self, mut frames: &[f32], out: &mut Vec<f32>) {
        self.taken += (frames.len() / 2) as u64;
        while !frames.is_empty() {
            let block = self.fft.input_frames_next() * 2;
            let n = frames.len().min(block - self.gathered.len());
            self.gathered.extend_from_slice(&frames[..n]);
            frames = &frames[n..];
            if self.gathered.len() == block {
                self.turn(out, u64::MAX);
            }
        }
    }

    /// Appends what is still inside. Whatever comes next starts afresh.
    pub(crate) fn finish(mut self, out: &mut Vec<f32>) {
        while self.owed() > 0 {
            self.gathered.resize(self.fft.input_frames_next() * 2, 0.0);
            let owed = self.owed();
            self.turn(out, owed);
        }
    }

    /// Converts the gathered block; at most `limit` frames are given.
    fn turn(&mut self, out: &mut Vec<f32>, limit: u64) {
        let room = self.made.len() / 2;
        let frames = self.gathered.len() / 2;
        let source = InterleavedSlice::new(&self.gathered, 2, frames);
        let target = InterleavedSlice::new_mut(&mut self.made, 2, room);
        // Both are of the size that it asked for, so that it cannot fail; if it ever did, silence keeps the positions.
        let made = match (source, target) {
            (Ok(source), Ok(mut target)) => {
                self.fft.process_into_buffer(&source, &mut target, None).map(|(_, n)| n).ok()
            }
            _ => None,
        };
        let made = made.unwrap_or_else(|| {
            self.made.fill(0.0);
            self.fft.output_frames_next()
        });
        self.gathered.clear();
        let dropped = self.drop.min(made);
        self.drop -= dropped;
        let given = ((made - dropped) as u64).min(limit);
        self.given += given;
        out.extend_from_slice(&self.made[dropped * 2..dropped * 2 + given as usize * 2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frames: usize, rate: f64, hz: f64) -> Vec<f32> {
        (0..frames).flat_map(|i| [((i as f64 / rate * hz * std::f64::consts::TAU).sin() * 0.5) as f32; 2]).collect()
    }

    #[test]
    fn length_and_phase_are_right_and_packets_do_not_matter() {
        let input = tone(44_100, 44_100.0, 1_000.0);
        let (mut whole, mut pieces) = (vec![], vec![]);
        let mut c = Converter::new(44_100, 48_000).unwrap();
        c.put(&input, &mut whole);
        c.finish(&mut whole);
        let mut c = Converter::new(44_100, 48_000).unwrap();
        for (i, part) in input.chunks(2 * 1_153).enumerate() {
            c.put(part, &mut pieces);
            assert_eq!(
                pieces.len() as u64 / 2 + c.owed(),
                ((i as u64 + 1) * 1_153).min(44_100).saturating_mul(160).div_ceil(147)
            );
        }
        c.finish(&mut pieces);
        assert_eq!(whole.len(), 96_000);
        assert_eq!(whole, pieces);
        let expected = tone(48_000, 48_000.0, 1_000.0);
        let worst = whole[4_000..92_000].iter().zip(&expected[4_000..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst}");
    }

    #[test]
    fn clocks_meet() {
        assert_eq!([Converter::step(44_100, 48_000), Converter::step(48_000, 44_100)], [147, 160]);
        assert_eq!(Converter::step(96_000, 48_000), 2);
    }

    #[test]
    fn no_two_rates_are_half_a_frame_apart() {
        for (from, to) in [(96_000, 44_100), (192_000, 44_100), (88_200, 48_000), (22_050, 48_000), (32_000, 44_100)] {
            let (input, mut found) = (tone(from as usize, from.into(), 1_000.0), vec![]);
            let mut c = Converter::new(from, to).unwrap();
            c.put(&input, &mut found);
            c.finish(&mut found);
            let expected = tone(to as usize, to.into(), 1_000.0);
            let off = found.iter().zip(&expected).skip(4_000).take(60_000).map(|(a, b)| (a - b).abs());
            let worst = off.fold(0.0, f32::max);
            assert!(worst < 1e-4, "{from} to {to}: {worst}");
        }
    }
}
