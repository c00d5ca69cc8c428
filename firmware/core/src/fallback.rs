//! What plays while the queue waits, or is empty: a list that goes round.
//!
//! *Hole*: the first frame of the queue that is not on board when its turn comes. There the queue freezes, untouched, and
//! the fallback plays: in mid-track after a fade at the last stored sample, between tracks without a seam. When enough is on
//! board behind the hole, the fallback plays to its track's end if that is near, else it fades, and the entry goes on
//! a little before the hole.
//!
//! Law: people's wishes are for both. Pause, stop and volume hold whatever plays; the queue's order and playhead are as if
//! the fallback had never been.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::checkpoint::Intent;
use crate::exchange::{List, Listed, Output};
use crate::jukebox::Jukebox;
use crate::playback::Next;
use crate::queue::{MAX_ENTRIES, Queue, Where};
use crate::reason::{Action, Reason};
use crate::sound::EntryId;
use crate::time::{Frames, Instant, Span};

/// Ids of the fallback's entries begin here: the queue never comes so far.
const FIRST_ID: u32 = 1 << 31;
/// With so little left to play and the link in trouble, the queue freezes,
const FREEZE: Span = Span::ms(1_150);
/// and with so little when what is missing may still come.
const LAST_CHANCE: Span = Span::ms(450);
/// A start that the link seems to carry is waited for so long.
const PATIENCE: Span = Span::ms(1_500);
/// The fade at the hole.
const HOLE_FADE_MS: u32 = 1_000;
/// The fade of the fallback when the queue goes on.
const RETURN_FADE_MS: u32 = 2_000;
/// The same for a live stream: whoever waits for it has waited long enough.
const LIVE_FADE_MS: u32 = 300;
/// The entry goes on so much before its hole.
const BEFORE_HOLE: Span = Span::s(2);
/// The fallback's track plays to its end if that is no further away.
const NEAR_END: Span = Span::s(60);
/// On board behind the hole before the entry goes on.
const RESUME_LEVEL: Span = Span::s(10);

/// Whether and when the fallback plays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackSettings {
    /// The playlist; none: the most popular tracks.
    pub playlist: Option<String>,
    /// In an order that is this player's own, and kept.
    pub shuffle: bool,
    /// While the queue waits for the link.
    pub when_waiting: bool,
    /// While nothing is queued, in the hours.
    pub when_empty: bool,
}

/// Why the fallback plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Waiting {
    /// The entry that is waited for, and why; none: nothing is queued.
    pub(crate) entry: Option<(EntryId, Reason)>,
    pub(crate) since: Instant,
}

/// The fallback.
#[derive(Clone, Debug)]
pub(crate) struct Fallback {
    /// Its tracks; the current one first, one that has played goes to the end.
    pub(crate) list: Queue,
    /// It plays.
    pub(crate) on: Option<Waiting>,
    /// The question to the catalogue that is open.
    question: Option<u64>,
    /// The library whose tracks are in the list.
    library: Option<(String, u64)>,
    /// Since when the next piece of the queue is missing.
    pub(crate) missing_since: Option<Instant>,
}

impl Default for Fallback {
    fn default() -> Self {
        let list = Queue::restore(Default::default(), 0, FIRST_ID);
        Self { list, on: None, question: None, library: None, missing_since: None }
    }
}

impl Fallback {
    /// The catalogue is to be asked for another list.
    pub(crate) fn forget(&mut self) {
        (self.question, self.library) = (None, None);
    }
}

/// Whether an entry is the fallback's.
pub(crate) const fn is_fallback(id: EntryId) -> bool {
    id.0 >= FIRST_ID
}

impl Jukebox {
    /// What plays: the queue, or the fallback.
    pub(crate) fn line(&self) -> &Queue {
        if self.fallback.on.is_some() { &self.fallback.list } else { &self.queue }
    }

    /// Whether the fallback would play where nothing is queued.
    pub(crate) fn stands_in_for_silence(&self) -> bool {
        self.settings.fallback.when_empty && !self.fallback.list.is_empty()
    }

    /// Asks the catalogue for the list when there is another library, or none was there.
    pub(crate) fn ask_for_fallback(&mut self) {
        let known = self.catalogue.library.as_ref().map(|l| (l.id.clone(), l.revision)).unwrap_or_default();
        let wanted = self.settings.fallback.when_waiting || self.settings.fallback.when_empty;
        if !wanted || self.catalogue.tracks.is_none() || self.fallback.library.as_ref() == Some(&known) {
            return;
        }
        self.questions += 1;
        (self.fallback.question, self.fallback.library) = (Some(self.questions), Some(known));
        let settings = &self.settings.fallback;
        let list = settings.playlist.clone().map_or(List::Popular, List::Playlist);
        // The player's own order: the same after every start, another than its neighbour's.
        let own = self
            .settings
            .player
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let seed = settings.shuffle.then_some(own);
        self.push(Output::List { token: self.questions, list, seed, offset: 0, limit: MAX_ENTRIES as u32 });
    }

    /// The catalogue has answered; whether the answer was for the fallback.
    pub(crate) fn fallback_listed(&mut self, token: u64, listed: Option<&Listed>) -> bool {
        if self.fallback.question != Some(token) {
            return false;
        }
        self.fallback.question = None;
        let Some(listed) = listed else { return true };
        let list = &mut self.fallback.list;
        let current = list.current().cloned();
        // What plays, plays on; all else is as the library has it now.
        let keep = current.as_ref().map(|e| e.id).filter(|_| self.fallback.on.is_some());
        let old: alloc::vec::Vec<_> = list.iter().map(|e| e.id).filter(|id| Some(*id) != keep).collect();
        old.into_iter().for_each(|id| drop(list.remove(id)));
        // It goes on where it was, also after a restart.
        let after = self.fallback_next.or(current.as_ref().map(|e| e.track));
        let begin = listed.rows.iter().position(|r| Some(r.id) == after).unwrap_or(0);
        for row in listed.rows[begin..].iter().chain(&listed.rows[..begin]) {
            if keep.is_none() || current.as_ref().is_none_or(|c| c.track != row.id) {
                // More than the list holds are left out.
                let _ = list.add(row, "", Where::End, false);
            }
        }
        self.queue_changed();
        true
    }

    /// Changes between queue and fallback when it is time.
    pub(crate) fn choose_source(&mut self) {
        if self.playback.intent() != Intent::Playing {
            self.fallback.missing_since = None;
            return;
        }
        if self.fallback.on.is_some() {
            self.maybe_return();
            self.hop();
        } else {
            self.maybe_fall_back();
        }
    }

    fn maybe_fall_back(&mut self) {
        if self.playback.fed().any(is_fallback) {
            return; // it follows, and will be heard
        }
        let settings = &self.settings.fallback;
        let Some(entry) = self.queue.current().map(|e| e.id) else {
            let due = settings.when_empty && self.hours_open && !self.fallback.list.is_empty();
            if due && self.playback.next().is_none() {
                self.begin_fallback(None, 0);
            }
            return;
        };
        if !settings.when_waiting {
            return;
        }
        let Some(missing) = self.playback.missing(&self.queue, &self.planner) else {
            self.fallback.missing_since = None;
            // A fallback that was to follow is not needed after all.
            if self.playback.next().is_some_and(|n| is_fallback(n.entry.id)) {
                self.playback.follow(None);
            }
            return;
        };
        let since = *self.fallback.missing_since.get_or_insert(self.now);
        let trouble = self.trouble_of(Some(missing)).filter(|t| t.0.action() == Action::Wait);
        let stream = self.stream(Some(missing)).is_some();
        let heard = self.playback.heard();
        let plays_live = stream && self.playback.plays_live();
        let live_ms = if plays_live { heard.live_ms } else { 0 };
        let left = Span::ms(u64::from(heard.ring_ms) + u64::from(live_ms));
        let begun = self.playback.has_sounded();
        let due = match trouble {
            // What has come of a station plays, whatever has become of it.
            _ if plays_live => left <= LAST_CHANCE,
            Some(_) => !begun || left <= FREEZE,
            None if begun => left <= LAST_CHANCE,
            None => self.now.since(since) >= PATIENCE,
        };
        if !due || self.playback.next().is_some() || !self.bring_forward_what_is_on_board() {
            return;
        }
        let reason = trouble.map_or(if stream { Reason::StationAway } else { Reason::Timeout }, |t| t.0);
        if stream && missing == entry && begun {
            self.stream_broke();
        }
        if missing != entry {
            // Between tracks: it follows without a seam.
            let next = self.fallback.list.current().cloned();
            return self.playback.follow(next.map(|entry| Next { entry, start: Frames::default() }));
        }
        self.begin_fallback(Some((entry, reason)), if begun { HOLE_FADE_MS.min(left.as_ms() as u32) } else { 0 });
    }

    /// Puts the first track of the list that has something on board to the front; false if none has.
    fn bring_forward_what_is_on_board(&mut self) -> bool {
        let playable = |id| self.planner.bad(id).is_none() && self.planner.level(id, Frames::default()).0 >= Span::s(4);
        let Some(n) = self.fallback.list.iter().position(|e| playable(e.id)) else { return false };
        (0..n).for_each(|_| self.turn_list());
        true
    }

    fn turn_list(&mut self) {
        if let Some((from, to)) = self.fallback.list.turn() {
            self.planner.rename(from, to);
        }
    }

    fn begin_fallback(&mut self, entry: Option<(EntryId, Reason)>, fade_ms: u32) {
        let at = self.playback.position(&self.queue);
        // In mid-track it goes on a little before the hole.
        let level = entry.map_or(Span(0), |(id, _)| self.planner.level(id, at).0);
        let hole = at.span().as_ms() + level.as_ms();
        let resume = Frames::from_ms(hole.saturating_sub(BEFORE_HOLE.as_ms()), at.rate);
        let stream = self.stream(entry.map(|e| e.0)).is_some();
        let mid_track = self.playback.has_sounded() && at.rate > 0 && !stream;
        self.playback.set_aside(if mid_track { resume } else { at });
        self.fallback.on = Some(Waiting { entry, since: self.now });
        self.fallback.missing_since = None;
        self.playback.rewind_over(Frames::default(), fade_ms > 0, fade_ms.max(5));
        self.fallback_event(true);
    }

    /// A fallback's track that followed the queue without a seam is heard.
    pub(crate) fn fallback_followed(&mut self) {
        let head = self.queue.current().map(|e| e.id);
        let reason = self.trouble_of(head).map_or(Reason::Timeout, |t| t.0);
        let entry = head.map(|id| (id, reason));
        self.playback.set_aside(Frames::default());
        self.fallback.on = Some(Waiting { entry, since: self.now });
        self.fallback.missing_since = None;
        self.fallback_event(true);
    }

    /// The queue's entry that followed the fallback without a seam is heard.
    pub(crate) fn queue_followed(&mut self) {
        self.playback.take_aside();
        self.fallback.on = None;
        self.fallback_event(false);
    }

    fn maybe_return(&mut self) {
        let Some(waiting) = self.fallback.on else { return };
        let Some(current) = self.queue.current().cloned() else {
            if !(self.settings.fallback.when_empty && self.hours_open) {
                self.end_fallback();
            } else if waiting.entry.is_some() {
                self.fallback.on = Some(Waiting { entry: None, ..waiting });
            }
            return;
        };
        if current.stream.is_some() {
            // What is live is not waited for any longer than it has to be.
            if self.on_air() == Some(current.id) {
                self.end_fallback();
            }
            return;
        }
        let at = self.playback.position(&self.queue);
        let (level, whole) = self.planner.level(current.id, at);
        // What is known to be whole may have been put away: it cannot begin before its index is read again.
        let slot = self.planner.locate(current.id, at);
        let here = slot.is_some_and(|n| self.planner.ready(current.id, n, None).is_some());
        let ready = here && self.planner.may_start(current.id, at) && (whole || level >= RESUME_LEVEL);
        let told = self.playback.is_fed(current.id) || self.playback.next().is_some_and(|n| n.entry.id == current.id);
        if !ready || told {
            return;
        }
        let playing = self.fallback.list.current().map(|e| e.duration_ms);
        let left = playing.map_or(0, |ms| ms.saturating_sub(self.playback.position(&self.fallback.list).as_ms()));
        // Whoever adds to silence's stand-in wants to hear it now.
        if waiting.entry.is_some() && left > 0 && Span::ms(left) <= NEAR_END {
            self.playback.follow(Some(Next { entry: current, start: at }));
            // Another track of the fallback may be with the decoder already.
            self.behind_current_changed();
        } else {
            self.end_fallback();
        }
    }

    /// A hole in the fallback itself: another of its tracks plays, or this one again.
    fn hop(&mut self) {
        let list = &self.fallback.list;
        let Some(current) = list.current().map(|e| e.id).filter(|_| self.fallback.on.is_some()) else { return };
        let left = Span::ms(u64::from(self.playback.heard().ring_ms));
        let missing = self.playback.missing(list, &self.planner);
        if missing.is_none() || !self.playback.has_sounded() || left > LAST_CHANCE || self.playback.next().is_some() {
            return;
        }
        self.turn_list();
        if !self.bring_forward_what_is_on_board() {
            return;
        }
        if missing == Some(current) {
            self.playback.rewind_over(Frames::default(), true, (left.as_ms() as u32).max(5));
        } else {
            // Between tracks: what was to follow is another one now.
            let next = self.fallback.list.current().cloned();
            self.playback.follow(next.map(|entry| Next { entry, start: Frames::default() }));
        }
    }

    /// The queue goes on, or silence: over a fade.
    pub(crate) fn end_fallback(&mut self) {
        if self.fallback.on.take().is_none() {
            return;
        }
        let at = self.playback.take_aside();
        let sounds = self.playback.intent() == Intent::Playing && !self.queue.is_empty();
        let live = self.queue.current().is_some_and(|e| e.stream.is_some());
        let fade = if live { LIVE_FADE_MS } else { RETURN_FADE_MS };
        self.playback.rewind_over(at, sounds, if sounds { fade } else { 50 });
        self.fallback_event(false);
        self.stop_if_empty();
    }

    fn fallback_event(&mut self, on: bool) {
        let waiting = self.fallback.on.and_then(|w| w.entry);
        let facts = json!({"on": on, "entry": waiting.map(|w| w.0), "reason": waiting.map(|w| w.1.told())});
        self.event("fallback", facts);
    }

    /// The head of the queue is another one while the fallback plays.
    pub(crate) fn waits_for_another(&mut self) {
        self.playback.set_aside(Frames::default());
        if let Some(waiting) = &mut self.fallback.on {
            let reason = waiting.entry.map_or(Reason::Timeout, |e| e.1);
            waiting.entry = self.queue.current().map(|e| (e.id, reason));
        }
        self.playback.follow(None);
        if self.playback.fed().any(|id| !is_fallback(id)) {
            self.behind_current_changed();
        }
    }

    /// A track of the fallback has ended; `gone`: it is of no use at all.
    pub(crate) fn fallback_turns(&mut self, id: EntryId, gone: bool) {
        if gone {
            self.fallback.list.remove(id);
            self.queue_changed();
        } else if self.fallback.list.current().is_some_and(|e| e.id == id) {
            self.turn_list();
        }
        self.fallback_next = self.fallback.list.current().map(|e| e.track);
        self.save_meta(false);
    }

    /// Somebody, or its own fault, skips a track of the fallback.
    pub(crate) fn skip_fallback(&mut self, id: EntryId, by: &str, reason: Option<Reason>) {
        let current = self.fallback.list.current().is_some_and(|e| e.id == id) && self.fallback.on.is_some();
        let track = self.fallback.list.find(id).map(|(_, e)| e.track);
        let fed = self.playback.is_fed(id);
        let why = reason.map(Reason::told);
        self.event("skipped", json!({"entry": null, "source": "fallback", "track": track, "by": by, "reason": why}));
        self.fallback_turns(id, reason.is_some());
        if self.fallback.list.is_empty() {
            self.end_fallback();
        } else if current {
            let on_board = self.bring_forward_what_is_on_board();
            self.playback.rewind(Frames::default(), on_board);
        } else if fed {
            self.behind_current_changed();
        }
    }

    /// Somebody says stop: the fallback is over, and the queue begins anew.
    pub(crate) fn leave_fallback(&mut self) {
        if self.fallback.on.take().is_some() {
            self.playback.take_aside();
            self.fallback_event(false);
        }
    }
}
