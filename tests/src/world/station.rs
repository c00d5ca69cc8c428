//! A station of live radio that is arithmetic: a burst at once, then a second a second, while it sends.

use jukebox_core::exchange::Input;
use jukebox_core::live::{Air, Station as Wanted};
use jukebox_core::sound::EntryId;
use jukebox_core::time::Span;

/// The one station of the world, whatever its URL.
#[derive(Clone, Debug)]
pub struct Station {
    /// It sends.
    sends: bool,
    /// What comes at once whenever it is tuned in to, or sends again.
    pub burst: Span,
    tuned: Option<EntryId>,
    /// What has come and was not played.
    level: Span,
}

impl Default for Station {
    fn default() -> Self {
        Self { sends: true, burst: Span::s(4), tuned: None, level: Span(0) }
    }
}

impl Station {
    /// It sends, or falls silent without a word.
    pub fn sends(&mut self, sends: bool) {
        if sends && !self.sends && self.tuned.is_some() {
            self.level = self.burst;
        }
        self.sends = sends;
    }

    /// Tunes in or out; what the player hears of it.
    pub fn tune(&mut self, wanted: Option<Wanted>) -> Option<Input> {
        self.tuned = wanted.map(|w| w.entry);
        self.level = if self.sends && self.tuned.is_some() { self.burst } else { Span(0) };
        let entry = self.tuned.filter(|_| self.sends)?;
        Some(Input::Air { entry, air: Air::Name("Radio Test".into()) })
    }

    pub(super) fn pass(&mut self, passed: Span) {
        if self.sends && self.tuned.is_some() {
            self.level.0 += passed.0;
        }
    }

    pub(super) fn take(&mut self, most: Span) -> Span {
        let taken = self.level.min(most);
        self.level.0 -= taken.0;
        taken
    }

    pub(super) fn level(&self) -> Span {
        self.level
    }
}
