//! A live stream in the queue: tuned in when its turn comes, played from the station's edge, waited for while it is gone.
//!
//! *Air*: what the radio reports of the station that is tuned in. *Edge*: the newest that has come of it. *On for*: the time
//! since the entry's first sound in which it was wanted, outages counted and pauses not; it is the entry's playhead, and
//! what `for_s` is measured by.
//!
//! Law: a station that is gone never costs its entry the place; the fallback plays meanwhile, and the stream comes back at
//! its edge. What cannot be played however often one asks is skipped, with the reason.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::checkpoint::Intent;
use crate::exchange::Output;
use crate::fallback::is_fallback;
use crate::jukebox::Jukebox;
use crate::queue::Entry;
use crate::reason::{Action, Reason};
use crate::sound::EntryId;
use crate::time::{Frames, Instant, Span};

/// So much has come before a stream begins to sound,
const START: Span = Span::s(1);
/// doubled up to this much when it runs dry
const START_MOST: Span = Span::s(8);
/// within so long.
const SOON: Span = Span::s(60);
/// Fade of a stream whose time is over, in milliseconds.
const END_FADE_MS: u32 = 1_000;
/// Longest title that is shown, in characters.
const MAX_TITLE: usize = 160;

/// A station to tune in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// What it is played for.
    pub entry: EntryId,
    /// Where it is.
    pub url: String,
}

/// What the radio reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Air {
    /// The station's name.
    Name(String),
    /// What it says it plays: `ARTIST - TITLE`, as a rule.
    Title(String),
    /// Something of it has come that can be played; how much is in [`Heard`](crate::sound::Heard).
    Comes,
    /// It does not come, or not any more; it is tried again if the reason says wait.
    Lost(Reason),
}

/// What the station says it plays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) title: String,
    pub(crate) artist: String,
}

/// The live stream that is on, or comes next.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    tuned: Option<EntryId>,
    said: Option<Said>,
    /// Counts titles.
    pub(crate) titles: u32,
    trouble: Option<(Reason, Instant)>,
    bad: Option<(EntryId, Reason)>,
    /// The entry at the head that is a stream, and for how long it has been on.
    head: Option<EntryId>,
    on_for: Span,
    looked: Instant,
    /// What has to have come before it sounds.
    need: Span,
    began: Option<Instant>,
}

impl Live {
    /// Nothing is tuned in; the stream at the head, if it is one, has been on for so long.
    pub(crate) fn new(now: Instant, head: Option<EntryId>, on_for: Span) -> Self {
        let (tuned, said, trouble, bad, began) = (None, None, None, None, None);
        Self { tuned, said, titles: 0, trouble, bad, head, on_for, looked: now, need: START, began }
    }
}

impl Jukebox {
    /// Time passes for the stream at the head.
    pub(crate) fn pass_on_air(&mut self) {
        let passed = self.now.since(core::mem::replace(&mut self.live.looked, self.now));
        let head = self.queue.current().filter(|e| e.stream.is_some()).map(|e| e.id);
        if head != self.live.head || self.playback.intent() == Intent::Stopped {
            (self.live.head, self.live.on_for) =
                (head, if head == self.live.head { self.live.on_for } else { Span(0) });
        }
        if head.is_none() {
            return;
        }
        if self.counts() {
            self.live.on_for.0 += passed.0;
        }
        self.playback.live_from(Frames::from_ms(self.live.on_for.as_ms(), 1_000));
    }

    /// Whether the time of the stream at the head counts.
    fn counts(&self) -> bool {
        self.playback.intent() == Intent::Playing && self.sounded.is_some() && self.sounded == self.live.head
    }

    /// When the time of the stream at the head is over.
    pub(crate) fn stream_ends_at(&self) -> Option<Instant> {
        let for_s = self.queue.current()?.stream.as_ref()?.for_s.filter(|_| self.counts())?;
        Some(self.now + Span(Span::s(for_s.into()).0.saturating_sub(self.live.on_for.0)))
    }

    /// Somebody says stop: it begins anew.
    pub(crate) fn stream_stopped(&mut self) {
        self.live.on_for = Span(0);
    }

    /// Ends the stream at the head when its time is over.
    pub(crate) fn end_stream(&mut self) {
        if self.stream_ends_at().is_none_or(|t| t > self.now) {
            return;
        }
        let Some(id) = self.live.head else { return };
        let played = Frames::from_ms(self.live.on_for.as_ms(), 1_000);
        self.finish_entry(id, played);
        if self.fallback.on.is_some() {
            self.waits_for_another();
        } else {
            let next = self.queue.current().map(|e| e.id);
            let more = next.is_some_and(|id| self.planner.level(id, Frames::default()).0 > Span(0));
            self.playback.rewind_over(Frames::default(), more, END_FADE_MS);
        }
        self.after_finish(id);
    }

    /// Tunes in to the stream at the head, or to the one that follows what the decoder has.
    pub(crate) fn tune(&mut self) {
        let station = |e: &Entry| Some(Station { entry: e.id, url: e.stream.as_ref()?.url.clone() });
        let head = self.queue.current().and_then(station);
        let next = || self.playback.next_to_feed(&self.queue).filter(|e| !is_fallback(e.id)).and_then(station);
        let wanted = head.or_else(next).filter(|_| self.playback.intent() != Intent::Stopped && !self.ending);
        let entry = wanted.as_ref().map(|s| s.entry);
        if entry != self.live.tuned {
            (self.live.tuned, self.live.said, self.live.trouble) = (entry, None, None);
            (self.live.need, self.live.began) = (START, None);
            self.playback.nothing_on_air();
            self.push(Output::Tune(wanted));
        }
        self.playback.on_air(self.on_air());
    }

    /// The entry whose station has sent enough to begin with.
    pub(crate) fn on_air(&self) -> Option<EntryId> {
        let level = Span::ms(self.playback.heard().live_ms.into());
        self.live.tuned.filter(|_| level >= self.live.need)
    }

    /// The radio reports.
    pub(crate) fn air(&mut self, entry: EntryId, air: Air) {
        if self.live.tuned != Some(entry) {
            return;
        }
        match air {
            Air::Name(name) => {
                let name: String = plain(&name);
                if !name.is_empty()
                    && let Some(e) = self.queue.name(entry, &name)
                {
                    self.changes.entry(e);
                    self.queue_changed();
                }
            }
            Air::Title(text) => {
                let said = said(&plain(&text));
                if said != self.live.said {
                    self.live.said = said;
                    self.live.titles += 1;
                    let track = self.queue.find(entry).map(|(_, e)| e.track);
                    let Said { title, artist } = self.live.said.clone().unwrap_or_default();
                    self.event("title", json!({"entry": entry, "track": track, "title": title, "artist": artist}));
                }
            }
            Air::Comes => {
                if self.live.trouble.take().is_some() {
                    self.event("station", json!({"entry": entry, "on": true, "reason": null}));
                }
            }
            Air::Lost(reason) if reason.action() == Action::Skip => self.live.bad = Some((entry, reason)),
            Air::Lost(reason) => {
                let news = self.live.trouble.is_none_or(|t| t.0 != reason);
                let since = self.live.trouble.map_or(self.now, |t| t.1);
                self.live.trouble = Some((reason, since));
                if news {
                    self.event("station", json!({"entry": entry, "on": false, "reason": reason.told()}));
                }
            }
        }
    }

    /// What comes of it cannot be decoded.
    pub(crate) fn spoil_stream(&mut self, entry: EntryId) {
        if self.live.tuned == Some(entry) {
            self.live.bad = Some((entry, Reason::NoStream));
        }
    }

    /// Why an entry cannot be played at all.
    pub(crate) fn bad(&self, entry: EntryId) -> Option<Reason> {
        let stream = self.live.bad.filter(|b| b.0 == entry).map(|b| b.1);
        stream.or_else(|| self.planner.bad(entry))
    }

    /// What an entry of the queue, or what plays, is kept waiting by, and since when.
    pub(crate) fn trouble_of(&self, entry: Option<EntryId>) -> Option<(Reason, Instant)> {
        if entry.is_some() && entry == self.stream(entry) { self.live.trouble } else { self.planner.trouble() }
    }

    /// What the current entry is kept waiting by, and since when.
    pub(crate) fn trouble(&self) -> Option<(Reason, Instant)> {
        self.trouble_of(self.line().current().map(|e| e.id))
    }

    /// The entry, if it is a stream.
    pub(crate) fn stream(&self, entry: Option<EntryId>) -> Option<EntryId> {
        self.queue.find(entry?).filter(|(_, e)| e.stream.is_some()).map(|(_, e)| e.id)
    }

    /// It ran dry, or the fallback took over. If nobody knows why, it comes too unsteadily: next time more has to have come.
    pub(crate) fn stream_broke(&mut self) {
        let soon = self.live.began.take().is_some_and(|t| self.now.since(t) < SOON);
        let soon = soon && self.live.trouble.is_none();
        self.live.need = if soon { Span(self.live.need.0 * 2).min(START_MOST) } else { START };
    }

    /// The first sound of it, or the first after an outage.
    pub(crate) fn stream_sounds(&mut self) {
        self.live.began = Some(self.now);
    }

    /// Title, artist and album as they are shown: of a stream what it says it plays, and its name.
    pub(crate) fn names<'a>(&'a self, e: &'a Entry) -> (&'a str, &'a str, &'a str) {
        match &self.live.said {
            Some(said) if self.live.tuned == Some(e.id) => (&said.title, &said.artist, &e.title),
            _ => (&e.title, &e.artist, &e.album),
        }
    }
}

/// `ARTIST - TITLE` taken apart; none for nothing.
fn said(text: &str) -> Option<Said> {
    let (artist, title) = text.split_once(" - ").unwrap_or(("", text));
    let (artist, title) = (artist.trim(), title.trim());
    let title = if title.is_empty() { artist } else { title };
    (!title.is_empty()).then(|| Said { title: title.into(), artist: if title == artist { "" } else { artist }.into() })
}

/// Without control characters, and no novel.
fn plain(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(MAX_TITLE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_taken_apart() {
        let is = |text: &str| said(&plain(text)).map(|s| (s.artist, s.title));
        let both = |a: &str, t: &str| Some((String::from(a), String::from(t)));
        assert_eq!(is("ABBA - Waterloo"), both("ABBA", "Waterloo"));
        assert_eq!(is(" ABBA - Waterloo - live\n"), both("ABBA", "Waterloo - live"));
        assert_eq!(is("News at nine"), both("", "News at nine"));
        assert_eq!(is("ABBA - "), both("", "ABBA -"));
        assert_eq!((is(""), is(" \u{7} ")), (None, None));
    }
}
