//! Floats to integers: exact where the source is an integer that fits, with dither everywhere else.
//!
//! TPDF: noise of triangular density, two steps wide, added before rounding; it makes the error independent of the signal
//! (Lipshitz, Wannamaker, Vanderkooy, "Quantization and Dither", JAES 40/5, 1992).

use crate::output::Content;

/// Makes integers of floats.
pub(crate) struct Quantizer {
    random: u32,
}

impl Quantizer {
    pub(crate) const fn new() -> Self {
        Self { random: 0x9e37_79b9 }
    }

    /// Writes `from`, full scale at 1, into `to` as integers of `bits`; dithers unless `content` fits.
    pub(crate) fn run<T>(&mut self, from: &[f32], bits: u8, content: Content, to: &mut [T], make: impl Fn(i32) -> T) {
        let steps = (1u32 << (bits - 1)) as f32;
        if content <= Content::Integer(bits) {
            // A whole number of steps. `as` stays within 32 bits, and makes 0 of a NaN.
            let (least, most) = (-1 << (bits - 1), i32::MAX >> (32 - bits));
            from.iter().zip(to).for_each(|(x, y)| *y = make(((x * steps) as i32).clamp(least, most)));
            return;
        }
        let steps = f64::from(steps);
        for (x, y) in from.iter().zip(to) {
            // Above 0 cutting is rounding down, and cheap; `round` is a call where the processor has no instruction for it.
            let level = (f64::from(*x) * steps + self.noise()).clamp(-steps, steps - 1.0) + (steps + 0.5);
            *y = make(if x.is_nan() { 0 } else { (level as i64 - steps as i64) as i32 });
        }
    }

    /// Triangular between -1 and 1: the halves of a random number (Marsaglia's xorshift, 32 bits), one less the other.
    fn noise(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        f64::from((self.random >> 16) as i32 - (self.random & 0xffff) as i32) / 65_536.0
    }
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
