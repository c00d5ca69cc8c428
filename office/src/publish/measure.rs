//! Measure: loudness (EBU R 128, ITU-R BS.1770-4) and true peak (its annex 2).
//!
//! *Block*: 400 ms, one every 100 ms; what gating works on. An album's loudness needs the blocks of all its tracks, so each
//! track keeps a histogram of them, in steps of 0.1 LU.

use ebur128::{Channel, EbuR128, Mode};
use minicbor::{Decode, Encode};

/// What silence is said to be, LUFS: the absolute gate.
pub const SILENCE: f32 = -70.0;
const BIN_LU: f64 = 0.1;
const BINS: usize = 1_000;

/// Loudness of one piece of music, and its blocks.
#[derive(Debug)]
pub struct Loudness {
    meter: EbuR128,
    channels: usize,
    /// Samples until 100 ms are full.
    due: usize,
    step: usize,
    /// Steps of 100 ms that are full.
    steps: u64,
    blocks: Blocks,
}

impl Loudness {
    /// A meter. Mono counts as it will be heard: from two loudspeakers.
    pub fn new(channels: u8, rate: u32) -> Result<Self, ebur128::Error> {
        let mut meter = EbuR128::new(channels.into(), rate, Mode::I)?;
        if channels == 1 {
            meter.set_channel(0, Channel::DualMono)?;
        }
        let step = (rate as usize + 5) / 10 * usize::from(channels);
        Ok(Self { meter, channels: channels.into(), due: step, step, steps: 0, blocks: Blocks::default() })
    }

    /// Takes interleaved samples.
    pub fn add(&mut self, mut pcm: &[f32]) -> Result<(), ebur128::Error> {
        while !pcm.is_empty() {
            let (now, rest) = pcm.split_at(self.due.min(pcm.len()));
            self.meter.add_frames_f32(now)?;
            self.due -= now.len();
            pcm = rest;
            if self.due < self.channels {
                self.due = self.step;
                self.steps += 1;
                if self.steps >= 4 {
                    self.blocks.add(self.meter.loudness_momentary()?);
                }
            }
        }
        Ok(())
    }

    /// Integrated loudness in LUFS, at least [`SILENCE`], and the blocks.
    pub fn finish(self) -> Result<(f32, Blocks), ebur128::Error> {
        let loudness = self.meter.loudness_global()? as f32;
        Ok((if loudness.is_finite() { loudness.max(SILENCE) } else { SILENCE }, self.blocks))
    }
}

/// How many blocks there are of each loudness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Blocks(#[n(0)] Vec<u32>);

impl Blocks {
    fn add(&mut self, lufs: f64) {
        // The absolute gate; also false for what is not a number.
        if lufs >= f64::from(SILENCE) {
            let bin = (((lufs - f64::from(SILENCE)) / BIN_LU) as usize).min(BINS - 1);
            if self.0.len() <= bin {
                self.0.resize(bin + 1, 0);
            }
            self.0[bin] += 1;
        }
    }

    /// Loudness of all of it together, LUFS: the mean of the blocks that are at most 10 LU below the mean.
    pub fn loudness<'a>(all: impl IntoIterator<Item = &'a Blocks>) -> f32 {
        let mut sum = [0u64; BINS];
        for blocks in all {
            sum.iter_mut().zip(&blocks.0).for_each(|(s, n)| *s += u64::from(*n));
        }
        let level = |bin: usize| f64::from(SILENCE) + (bin as f64 + 0.5) * BIN_LU;
        let mean = |from: f64| {
            let (mut energy, mut count) = (0.0, 0);
            for (bin, &n) in sum.iter().enumerate().filter(|&(b, _)| level(b) >= from) {
                energy += n as f64 * 10f64.powf(level(bin) / 10.0);
                count += n;
            }
            if count == 0 { f64::from(SILENCE) } else { 10.0 * (energy / count as f64).log10() }
        };
        mean(mean(f64::NEG_INFINITY) - 10.0) as f32
    }
}

/// Taps of the interpolation filter before it is split into phases: a sinc under a Hann window, as in libebur128.
const TAPS: usize = 49;
/// Frames looked at together.
const BLOCK: usize = 64;

/// True peak. A block whose samples are so small that no filter output could beat the peak so far is not interpolated:
/// the result is the same, the cost a fraction.
#[derive(Debug)]
pub struct TruePeak {
    /// Filters between two samples: 3 of them below 96 kHz, 1 below 192 kHz, none above.
    phases: Vec<Vec<f32>>,
    /// Taps of a phase: the frames that it looks at.
    reach: usize,
    /// Most that a filter can make of samples of at most 1.
    bound: f32,
    /// Per channel: the last frames, then those not yet looked at.
    planes: Vec<Vec<f32>>,
    peak: f32,
}

impl TruePeak {
    /// A meter.
    pub fn new(channels: u8, rate: u32) -> Self {
        let factor = if rate < 96_000 { 4 } else { 2 };
        let reach = TAPS.div_ceil(factor);
        let mut phases = vec![vec![0.0; reach]; if rate < 192_000 { factor - 1 } else { 0 }];
        for tap in 0..TAPS {
            let m = tap as f64 - (TAPS - 1) as f64 / 2.0;
            let x = m * std::f64::consts::PI / factor as f64;
            let sinc = if m == 0.0 { 1.0 } else { x.sin() / x };
            let hann = 0.5 * (1.0 - (std::f64::consts::TAU * tap as f64 / (TAPS - 1) as f64).cos());
            // Phase 0 is the sample itself.
            if let Some(phase) = (tap % factor).checked_sub(1).and_then(|p| phases.get_mut(p))
                && let Some(c) = phase.get_mut(tap / factor)
            {
                *c = (sinc * hann) as f32;
            }
        }
        let bound = phases.iter().map(|p| p.iter().map(|c| c.abs()).sum()).fold(1.0, f32::max);
        Self { phases, reach, bound, planes: vec![vec![0.0; reach - 1]; channels.into()], peak: 0.0 }
    }

    /// Takes interleaved samples.
    pub fn add(&mut self, pcm: &[f32]) {
        let channels = self.planes.len();
        for (c, plane) in self.planes.iter_mut().enumerate() {
            plane.extend(pcm.iter().skip(c).step_by(channels));
            let blocks = (plane.len() + 1 - self.reach) / BLOCK;
            for k in 0..blocks {
                let block = &plane[k * BLOCK..][..BLOCK + self.reach - 1];
                self.peak = self.peak.max(peak_of(block, &self.phases, self.bound, self.peak));
            }
            plane.drain(..blocks * BLOCK);
        }
    }

    /// The peak in dBTP, at least -120.
    pub fn finish(mut self) -> f32 {
        let rest = vec![0.0; (BLOCK + self.reach) * self.planes.len()];
        self.add(&rest);
        20.0 * self.peak.max(1e-6).log10()
    }
}

fn peak_of(block: &[f32], phases: &[Vec<f32>], bound: f32, so_far: f32) -> f32 {
    // Four lanes, so that it is vectorised: a plain fold over floats keeps its order and is not.
    let mut lanes = [0f32; 4];
    let (fours, rest) = block.as_chunks::<4>();
    for four in fours {
        lanes.iter_mut().zip(four).for_each(|(l, x)| *l = if x.abs() > *l { x.abs() } else { *l });
    }
    let sample = rest.iter().map(|x| x.abs()).chain(lanes).fold(0.0, f32::max);
    if !sample.is_finite() || sample * bound <= so_far.max(sample) {
        return if sample.is_finite() { sample } else { 0.0 };
    }
    let mut peak = sample;
    for phase in phases {
        let mut out = [0f32; BLOCK];
        for (k, c) in phase.iter().enumerate() {
            let from = phase.len() - 1 - k;
            out.iter_mut().zip(&block[from..from + BLOCK]).for_each(|(o, x)| *o += c * x);
        }
        peak = out.iter().fold(peak, |p, o| p.max(o.abs()));
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decaying notes over noise, swelling and fading.
    fn music(frames: usize, channels: usize, level: f32) -> Vec<f32> {
        let mut seed = 7u32;
        let mut out = Vec::new();
        for i in 0..frames {
            let (note, t) = (i / 9_000, (i % 9_000) as f32 / 9_000.0);
            let hz = [220.0, 1_000.0, 9_000.0, 11_025.0][note % 4];
            // Levels drift, as in music: with a few levels only, a histogram would depend on which side of the gate they fall.
            let loud = 0.1 + 0.9 * (i as f32 / 61_000.0).sin().powi(2);
            for c in 0..channels {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let hiss = seed as f32 / u32::MAX as f32 * 0.02;
                let tone = (i as f32 * hz / 44_100.0 * std::f32::consts::TAU + c as f32).sin() * (1.0 - t);
                out.push(level * loud * (0.9 * tone + hiss));
            }
        }
        out
    }

    #[test]
    fn true_peak_is_that_of_libebur128() {
        for (rate, channels) in [(44_100, 2u8), (48_000, 1), (96_000, 2), (192_000, 2)] {
            let pcm = music(200_000, channels.into(), 0.8);
            let mut theirs = EbuR128::new(channels.into(), rate, Mode::TRUE_PEAK).unwrap();
            theirs.add_frames_f32(&pcm).unwrap();
            let theirs = (0..u32::from(channels)).map(|c| theirs.true_peak(c).unwrap()).fold(0.0, f64::max);
            let mut ours = TruePeak::new(channels, rate);
            // In uneven portions.
            pcm.chunks(1_234).for_each(|c| ours.add(c));
            let ours = ours.finish();
            assert!(
                (f64::from(ours) - 20.0 * theirs.log10()).abs() < 0.001,
                "{rate}: {ours} {}",
                20.0 * theirs.log10()
            );
        }
    }

    #[test]
    fn a_track_alone_is_its_own_album() {
        let mut both = vec![];
        for (channels, level) in [(2u8, 0.8), (2, 0.05), (1, 0.3)] {
            let mut meter = Loudness::new(channels, 44_100).unwrap();
            music(44_100 * 20, channels.into(), level)
                .chunks(777 * usize::from(channels))
                .for_each(|c| meter.add(c).unwrap());
            let (loudness, blocks) = meter.finish().unwrap();
            let album = Blocks::loudness([&blocks]);
            assert!((loudness - album).abs() < 0.06, "{loudness} {album}");
            both.push((loudness, blocks));
        }
        // The soft track, 24 LU below, is gated away; the gate itself lies 3 LU lower.
        let together = Blocks::loudness([&both[0].1, &both[1].1]);
        assert!((0.0..1.0).contains(&(both[0].0 - together)), "{together} {}", both[0].0);
        assert_eq!(Blocks::loudness([]), SILENCE);
        let silent = Loudness::new(2, 44_100).unwrap();
        assert_eq!(silent.finish().unwrap().0, SILENCE);
    }
}
