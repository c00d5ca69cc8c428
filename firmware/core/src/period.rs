//! Errors of the sound device (xruns) make its period longer: a machine that is late now and then is given more time.

use serde_json::json;

use crate::exchange::Output;
use crate::jukebox::Jukebox;
use crate::sound::OutputState;
use crate::time::{Instant, Span};

/// So many errors
const ERRORS: usize = 3;
/// within this time double the period,
const WITHIN: Span = Span::s(3_600);
/// up to this, in milliseconds.
const LONGEST_MS: u32 = 100;

/// Counts errors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Period {
    seen: u32,
    /// The last ones, the oldest first.
    last: [Option<Instant>; ERRORS],
    /// What the period was made, in milliseconds; kept over restarts.
    pub(crate) ms: Option<u32>,
}

impl Period {
    /// With what was kept.
    pub(crate) fn new(ms: Option<u32>) -> Self {
        Self { ms, ..Self::default() }
    }

    /// So many errors since the process started, with a period of so many ms: how long it should be instead.
    fn look(&mut self, now: Instant, xruns: u32, period_ms: u32) -> Option<u32> {
        let new = xruns.saturating_sub(self.seen).min(ERRORS as u32);
        self.seen = self.seen.max(xruns);
        for _ in 0..new {
            self.last.rotate_left(1);
            self.last[ERRORS - 1] = Some(now);
        }
        let often = new > 0 && self.last[0].is_some_and(|first| now.since(first) <= WITHIN);
        if !often || period_ms >= LONGEST_MS {
            return None;
        }
        self.last = [None; ERRORS];
        self.ms = Some((period_ms * 2).min(LONGEST_MS));
        self.ms
    }
}

impl Jukebox {
    /// Looks at the errors of the device that is open.
    pub(crate) fn lengthen_period(&mut self, xruns: u32) {
        let OutputState::Open { period_ms, .. } = *self.playback.output_state() else { return };
        if let Some(ms) = self.period.look(self.now, xruns, period_ms) {
            self.event("period", json!({"from_ms": period_ms, "to_ms": ms}));
            self.push(Output::Period { ms });
            self.save_meta(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_errors_in_an_hour_double_it_up_to_a_tenth_of_a_second() {
        let at = |minutes: u64| Instant(0) + Span::s(minutes * 60);
        let mut period = Period::default();
        assert_eq!([(0, 1), (31, 2), (62, 3)].map(|(m, n)| period.look(at(m), n, 20)), [None; 3], "two in an hour");
        assert_eq!(period.look(at(70), 3, 20), None, "no new one");
        assert_eq!(period.look(at(80), 4, 20), Some(40));
        assert_eq!(period.look(at(81), 5, 40), None, "it begins anew");
        assert_eq!(period.look(at(82), 9, 40), Some(80), "a burst");
        assert_eq!(period.look(at(83), 12, 80), Some(100));
        assert_eq!((period.look(at(84), 20, 100), period.ms), (None, Some(100)));
    }
}
