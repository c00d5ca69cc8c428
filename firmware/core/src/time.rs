//! `Instant`, durations and positions as numbers, serialisable.
//!
//! *Instant*: microseconds of a clock that never steps (the boot clock). *Frames*: a position in sound, one sample per
//! channel each; decisions that touch samples are made in frames at a named rate, never in microseconds (a frame at
//! 44.1 kHz is 22.68 us).

use core::fmt;
use core::ops::{Add, Sub};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Microseconds of a clock that never steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instant(pub u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span(pub u64);

impl Span {
    /// Whole milliseconds.
    pub const fn ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000))
    }
    /// Whole seconds.
    pub const fn s(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000))
    }
    /// In milliseconds, cut.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000
    }
    /// In seconds, cut.
    pub const fn as_s(self) -> u64 {
        self.0 / 1_000_000
    }
    /// In frames, cut.
    pub const fn at_rate(self, rate: u32) -> u64 {
        mul_div(self.0, rate as u64, 1_000_000)
    }
}

impl Instant {
    /// Time passed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Instant {
    type Output = Instant;
    fn add(self, s: Span) -> Instant {
        Instant(self.0.saturating_add(s.0))
    }
}

impl Sub<Span> for Instant {
    type Output = Instant;
    fn sub(self, s: Span) -> Instant {
        Instant(self.0.saturating_sub(s.0))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[cbor(transparent)]
pub struct UnixMs(#[n(0)] pub u64);

/// Year, month (1 to 12) and day of a day since 1970.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days; eras of 400 years from 0000-03-01.
const fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    (yoe + era * 400 + if m <= 2 { 1 } else { 0 }, m, d)
}

impl UnixMs {
    /// Months since January 1970, in UTC.
    pub const fn month(self) -> u32 {
        let (y, m, _) = civil(self.0 / 86_400_000);
        ((y - 1970) * 12 + m - 1) as u32
    }

    /// Until the month ends, in UTC.
    pub const fn left_of_month(self) -> Span {
        let today = self.0 / 86_400_000;
        let (y, m, d) = civil(today);
        let leap = y.is_multiple_of(4) && !y.is_multiple_of(100) || y.is_multiple_of(400);
        let length = match m {
            2 => 28 + leap as u64,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        Span::ms((today + length + 1 - d) * 86_400_000 - self.0)
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-20T10:15:02.120Z`.
impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (y, m, d) = civil(days);
        let (h, min, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
        write!(f, "{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}.{:03}Z", ms % 1_000)
    }
}

/// A position or a length in sound: `n` frames at `rate` frames a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// Count of frames.
    pub n: u64,
    /// Frames a second; 0 only in the default value, which stands for "nothing yet".
    pub rate: u32,
}

impl Frames {
    /// `n` frames at `rate`.
    pub const fn new(n: u64, rate: u32) -> Self {
        Self { n, rate }
    }
    /// The frame that holds the instant `ms` milliseconds in, at `rate`.
    pub const fn from_ms(ms: u64, rate: u32) -> Self {
        Self { n: (ms as u128 * rate as u128 / 1_000) as u64, rate }
    }
    /// In milliseconds, cut.
    pub const fn as_ms(self) -> u64 {
        if self.rate == 0 { 0 } else { (self.n as u128 * 1_000 / self.rate as u128) as u64 }
    }
    /// The same instant at another rate, cut to whole frames.
    pub const fn at_rate(self, rate: u32) -> Self {
        if self.rate == rate || self.rate == 0 {
            return Self { n: self.n, rate };
        }
        Self { n: mul_div(self.n, rate as u64, self.rate as u64), rate }
    }
    /// As a span, cut to microseconds.
    pub const fn span(self) -> Span {
        if self.rate == 0 { Span(0) } else { Span(mul_div(self.n, 1_000_000, self.rate as u64)) }
    }
}

/// `n * by / per`, cut; in 64 bits where they do, which is always but after years of music.
const fn mul_div(n: u64, by: u64, per: u64) -> u64 {
    match n.checked_mul(by) {
        Some(all) => all / per,
        None => (n as u128 * by as u128 / per as u128) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn dates() {
        assert_eq!(UnixMs(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMs(951_782_400_001).to_string(), "2000-02-29T00:00:00.001Z");
        assert_eq!(UnixMs(1_795_169_702_120).to_string(), "2026-11-20T10:15:02.120Z");
    }

    #[test]
    fn months() {
        assert_eq!((UnixMs(0).month(), UnixMs(0).left_of_month()), (0, Span::s(31 * 86_400)));
        assert_eq!(UnixMs(1_795_169_702_120).month(), 56 * 12 + 10);
        let leap = UnixMs(951_782_400_000); // 2000-02-29
        assert_eq!((leap.month(), leap.left_of_month()), (30 * 12 + 1, Span::s(86_400)));
        assert_eq!(UnixMs(leap.0 + 86_400_000).month(), 30 * 12 + 2);
    }

    #[test]
    fn frames_keep_their_instant() {
        assert_eq!(Frames::from_ms(1_000, 44_100), Frames::new(44_100, 44_100));
        assert_eq!(Frames::new(44_100, 44_100).at_rate(48_000), Frames::new(48_000, 48_000));
        assert_eq!(Frames::new(u64::MAX / 2, 192_000).at_rate(48_000).rate, 48_000);
    }
}
