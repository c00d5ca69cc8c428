//! The card: how much it has taken today, whether that is enough, and why it takes nothing.

use minicbor::{Decode, Encode};
use serde_json::json;

use crate::exchange::Vitals;
use crate::jukebox::Jukebox;
use crate::reason::Reason;
use crate::time::Instant;

/// Growth of what was written that is worth saving, in bytes: a power cut forgets no more.
const SAVE_EVERY: u64 = 16_000_000;

/// What was written to the card in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Written {
    /// The day, counted from 1970 in local time; 0: not known yet.
    #[n(0)]
    pub day: u32,
    /// Bytes.
    #[n(1)]
    pub bytes: u64,
}

/// What is known of the card.
#[derive(Clone, Debug, Default)]
pub(crate) struct Card {
    pub(crate) today: Written,
    /// What the process had written at the last look.
    seen: u64,
    saved: Written,
    /// The day was known at the last look.
    known: bool,
    /// Since when it is in trouble.
    since: Instant,
}

impl Card {
    /// A run of the process that begins with what was saved.
    pub(crate) fn new(saved: Written) -> Self {
        Self { today: saved, saved, ..Self::default() }
    }

    /// The process has written so much, and it is this day, as far as anybody knows. Whether that should be saved.
    fn look(&mut self, written: u64, day: Option<u32>) -> bool {
        let more = written.saturating_sub(self.seen);
        self.seen = written;
        match day {
            // Of a run whose day was not known before, all was written today.
            Some(day) if day != self.today.day => {
                self.today = Written { day, bytes: if self.known { more } else { written } };
            }
            _ => self.today.bytes += more,
        }
        self.known |= day.is_some();
        let worth = self.today.day != self.saved.day || self.today.bytes >= self.saved.bytes + SAVE_EVERY;
        if worth {
            self.saved = self.today;
        }
        worth
    }
}

impl Jukebox {
    /// A look at the machine.
    pub(crate) fn look_at(&mut self, vitals: Vitals) {
        if vitals.written.is_some_and(|written| self.card.look(written, vitals.day)) {
            self.save_meta(false);
        }
        let (was, is) = (self.vitals.disk, vitals.disk);
        self.vitals = vitals;
        if was != is {
            self.card.since = self.now;
            self.event("disk", json!({"reason": is.map(Reason::told)}));
            self.planner.hurry(self.now);
        }
    }

    /// Why the card takes nothing, and since when.
    pub(crate) fn card_trouble(&self) -> Option<(Reason, Instant)> {
        Some((self.vitals.disk?, self.card.since))
    }

    /// Whether only what will be needed is worth a write.
    pub(crate) fn spares_card(&self) -> bool {
        self.vitals.disk.is_some() || self.card.today.bytes >= self.settings.write_budget
    }

    /// Written to the card today, in MB; none where nobody counts.
    pub(crate) fn written_mb_today(&self) -> Option<u64> {
        self.vitals.written.map(|_| self.card.today.bytes / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn a_day_is_counted_over_restarts() {
        let mut card = Card::new(Written::default());
        assert!(!card.look(5 * MB, None), "not worth it yet, and no day");
        assert!(card.look(7 * MB, Some(20_000)), "a day");
        assert_eq!(card.today, Written { day: 20_000, bytes: 7 * MB }, "all of this run");
        assert!(!card.look(20 * MB, Some(20_000)));
        assert!(card.look(30 * MB, None), "a clock that is lost again does not end the day");
        let mut card = Card::new(card.saved);
        card.look(10 * MB, None);
        assert_eq!(card.today, Written { day: 20_000, bytes: 40 * MB }, "until it is known, it is the day of before");
        card.look(11 * MB, Some(20_001));
        assert_eq!(card.today, Written { day: 20_001, bytes: 11 * MB });
        card.look(15 * MB, Some(20_002));
        assert_eq!(card.today, Written { day: 20_002, bytes: 4 * MB }, "midnight in a run");
    }
}
