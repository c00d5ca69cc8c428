//! The estimate of the link (a fast and a slow average, the lower counts) and its grade: `down, poor, fair, good`.
//!
//! The averages are those of adaptive streaming players (exponential, weighted by transfer time, half-lives of 3 and 9 s;
//! the design of Shaka Player's and hls.js' estimators): quick to believe bad news, slow to believe good.

use serde::{Deserialize, Serialize};

use crate::time::{Instant, Span};
use crate::view::Grade;

/// What is small and takes so long takes it because the link is slow.
const SLOW: Span = Span::ms(20);

/// A finished transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Bytes of the body.
    pub bytes: u32,
    /// From the first to the last byte of the answer, at least 1 us.
    pub took: Span,
}

/// An average that forgets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Average {
    pub(crate) value: f32,
    pub(crate) weight: f32,
}

impl Average {
    pub(crate) fn push(&mut self, kbps: f32, seconds: f32, half_life_s: f32) {
        let keep = exp2(-seconds / half_life_s);
        self.value = self.value * keep + kbps * (1.0 - keep);
        self.weight = self.weight * keep + (1.0 - keep);
    }
    pub(crate) fn kbps(self) -> Option<f32> {
        (self.weight > 0.0).then(|| self.value / self.weight)
    }
}

/// 2^x for x <= 0 without the standard library: whole part by halving, rest by the series of e^(x ln 2) to the fourth power
/// (error below 1e-4, which an estimate does not feel).
fn exp2(x: f32) -> f32 {
    if x < -40.0 {
        return 0.0;
    }
    let whole = x as i32;
    let r = (x - whole as f32) * core::f32::consts::LN_2;
    let rest = 1.0 + r * (1.0 + r / 2.0 * (1.0 + r / 3.0 * (1.0 + r / 4.0)));
    rest / (1u64 << -whole) as f32
}

/// What is known of the link to the office.
#[derive(Clone, Debug, Default)]
pub struct Link {
    fast: Average,
    slow: Average,
    /// Rate of the last transfer that tells anything, in kbit/s.
    last: Option<u32>,
    /// Since when nothing passes; none while something does.
    down_since: Option<Instant>,
    proven: bool,
}

impl Link {
    /// A transfer went through.
    pub fn sample(&mut self, s: Sample) {
        let seconds = (s.took.0.max(1_000) as f32 / 1e6).min(30.0);
        let kbps = s.bytes as f32 * 8.0 / 1_000.0 / seconds;
        // Below 4 kB it is the round trip, or the first packet, that was measured: it can tell of a slow link, not of a fast one.
        if s.bytes < 4_096 {
            if s.took >= SLOW {
                self.last = self.last.map(|last| last.min(kbps as u32));
            }
        } else {
            self.fast.push(kbps, seconds.max(0.1), 3.0);
            self.slow.push(kbps, seconds.max(0.1), 9.0);
            self.last = Some(kbps as u32);
        }
        (self.down_since, self.proven) = (None, true);
    }
    /// The office answered, whatever it said.
    pub fn reached(&mut self) {
        (self.down_since, self.proven) = (None, true);
    }
    /// A request failed for the link's sake.
    pub fn failed(&mut self, now: Instant) {
        self.down_since.get_or_insert(now);
    }
    /// Since when nothing passes.
    pub fn down_since(&self) -> Option<Instant> {
        self.down_since
    }
    /// The lower of the two averages, in kbit/s.
    pub fn kbps(&self) -> Option<u32> {
        Some(self.fast.kbps()?.min(self.slow.kbps()?) as u32)
    }
    /// What is known a moment after the link has become better: half of what the last transfer had, if that is more.
    pub fn hopeful_kbps(&self) -> Option<u32> {
        Some(self.kbps()?.max(self.last? / 2))
    }
    /// What a start may count on, in kbit/s: the estimate may be old, and the last transfer slower.
    pub fn sure_kbps(&self) -> Option<u32> {
        Some(self.kbps()?.min(self.last?))
    }
    /// `down` until something passed, then by what the estimate carries: opus-32 with its overhead needs 40 kbit/s,
    /// opus-96 with the queries beside it 250, the original of a CD 1,500.
    pub fn grade(&self) -> Grade {
        match self.kbps() {
            _ if !self.proven || self.down_since.is_some() => Grade::Down,
            None | Some(1_500..) => Grade::Good,
            Some(250..) => Grade::Fair,
            Some(_) => Grade::Poor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        for (x, want) in
            [(0.0, 1.0), (-1.0, 0.5), (-0.5, core::f32::consts::FRAC_1_SQRT_2), (-3.25, 0.105_112_1), (-50.0, 0.0)]
        {
            assert!((exp2(x) - want).abs() < 1e-4, "{x}");
        }
    }

    #[test]
    fn a_start_counts_on_the_last_transfer() {
        let mut l = Link::default();
        l.sample(Sample { bytes: 250_000, took: Span::s(1) });
        l.sample(Sample { bytes: 500, took: Span(90) });
        assert_eq!(l.sure_kbps(), Some(2_000), "a packet says nothing");
        l.sample(Sample { bytes: 2_500, took: Span::ms(200) });
        assert_eq!((l.sure_kbps(), l.kbps()), (Some(100), Some(2_000)));
    }

    #[test]
    fn bad_news_is_believed_first() {
        let mut l = Link::default();
        assert_eq!(l.grade(), Grade::Down);
        for _ in 0..20 {
            l.sample(Sample { bytes: 250_000, took: Span::s(1) });
        }
        assert!(l.kbps().is_some_and(|k| (1_900..=2_100).contains(&k)), "{:?}", l.kbps());
        assert_eq!(l.grade(), Grade::Good);
        l.sample(Sample { bytes: 50_000, took: Span::s(8) });
        assert!(l.kbps().unwrap() < 500, "{:?}", l.kbps());
        l.failed(Instant(5));
        l.failed(Instant(9));
        assert_eq!((l.grade(), l.down_since()), (Grade::Down, Some(Instant(5))));
        l.reached();
        assert_ne!(l.grade(), Grade::Down);
    }
}
