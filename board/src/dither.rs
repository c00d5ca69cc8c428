//! Floats to integers: exact where the source is an integer that fits or the output has 32 bits, with dither everywhere else.
//!
//! TPDF: noise of triangular density, two steps wide, added before rounding; it makes the error independent of the signal
//! (Lipshitz, Wannamaker, Vanderkooy, "Quantization and Dither", JAES 40/5, 1992).

use crate::output::Content;

/// Samples that are worked on side by side.
const LANES: usize = 8;
/// From here on a float has no fraction: what is added to it is rounded, and stands in its lower bits.
const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;

/// Makes integers of floats.
pub(crate) struct Quantizer {
    /// A generator for each lane, so that none waits for another.
    random: [u32; LANES],
}

impl Quantizer {
    pub(crate) fn new() -> Self {
        Self { random: std::array::from_fn(|lane| 0x9e37_79b9u32.wrapping_mul(2 * lane as u32 + 1)) }
    }

    /// Writes `from`, full scale at 1, into `to` as integers of `bits`; dithers unless `content` fits. In 32 bits all
    /// fits: a float has 24, and its own steps are the larger ones.
    pub(crate) fn run<T>(&mut self, from: &[f32], bits: u8, content: Content, to: &mut [T], make: impl Fn(i32) -> T) {
        let steps = f64::from(1u32 << (bits - 1));
        if bits == 32 || content <= Content::Integer(bits) {
            from.iter().zip(to).for_each(|(x, y)| *y = make(rounded(*x, steps, 0.0)));
            return;
        }
        let mut some = |from: &[f32], to: &mut [T]| {
            for ((x, y), random) in from.iter().zip(to).zip(&mut self.random) {
                *y = make(rounded(*x, steps, noise(random)));
            }
        };
        let ((from, rest), (to, end)) = (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
        from.iter().zip(to).for_each(|(from, to)| some(from, to));
        some(rest, end);
    }
}

/// Makes integers of 32 bits of the floats whose bits lie in `samples`, as [`Quantizer::run`] does, but where they lie.
pub(crate) fn widen(samples: &mut [i32]) {
    samples.iter_mut().for_each(|x| *x = rounded(f32::from_bits(*x as u32), f64::from(1u32 << 31), 0.0));
}

/// The whole number of steps nearest to `x`, within full scale; 0 of what is no number. (A cast from float to integer is a
/// chain of cases, which cannot be done for several samples at once.)
fn rounded(x: f32, steps: f64, noise: f64) -> i32 {
    let x = if x.is_nan() { 0.0 } else { f64::from(x) };
    ((x * steps + noise).max(-steps).min(steps - 1.0) + WHOLE).to_bits() as i32
}

/// Triangular between -1 and 1: the halves of a random number (Marsaglia's xorshift, 32 bits), one less the other.
fn noise(random: &mut u32) -> f64 {
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    f64::from((*random >> 16) as i32 - (*random & 0xffff) as i32) / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(from: &[f32], bits: u8, content: Content) -> Vec<i32> {
        let mut to = vec![0; from.len()];
        Quantizer::new().run(from, bits, content, &mut to, |x| x);
        to
    }

    #[test]
    fn integers_that_fit_pass_unchanged() {
        let wide: Vec<f32> = (-32_768..32_768).map(|i| i as f32 / 32_768.0).collect();
        let expected: Vec<i32> = (-32_768..32_768).collect();
        assert_eq!(run(&wide, 16, Content::Integer(16)), expected);
        let shifted: Vec<i32> = expected.iter().map(|x| x << 16).collect();
        assert_eq!(run(&wide, 32, Content::Integer(24)), shifted);
        let edges = [-1.0, -1.0 / 8_388_608.0, 0.0, 8_388_607.0 / 8_388_608.0];
        assert_eq!(run(&edges, 24, Content::Integer(24)), [-8_388_608, -1, 0, 8_388_607]);
        assert_eq!(run(&[2.0, -2.0, f32::NAN], 16, Content::Integer(16)), [32_767, -32_768, 0]);
    }

    #[test]
    fn made_in_place_they_are_the_same() {
        let from: Vec<f32> =
            (-70_000..70_000).map(|i| i as f32 / 65_536.0).chain([f32::NAN, 1e-9, f32::INFINITY]).collect();
        let mut samples: Vec<i32> = from.iter().map(|x| x.to_bits() as i32).collect();
        widen(&mut samples);
        assert_eq!(samples, run(&from, 32, Content::Float));
    }

    #[test]
    fn dither_keeps_what_is_smaller_than_a_step() {
        // A constant of 0.3 steps: rounding alone would lose it, dithered it is there on average, with TPDF's variance.
        let n = 200_000;
        let got = run(&vec![0.3 / 32_768.0; n], 16, Content::Float);
        let mean = got.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        let var = got.iter().map(|&x| (f64::from(x) - 0.3).powi(2)).sum::<f64>() / n as f64;
        assert!((mean - 0.3).abs() < 0.01, "mean {mean}");
        assert!((var - 0.25).abs() < 0.01, "variance {var}: 1/6 of the dither and 1/12 of the rounding");
        assert!(got.iter().all(|x| x.abs() <= 2));
        assert_ne!(run(&[0.25; 100], 16, Content::Integer(24)), vec![8_192; 100], "24 bits do not fit in 16");
    }
}
