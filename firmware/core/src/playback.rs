//! The state machine `Stopped, Buffering, Playing, Paused, NoOutput`: the only place that starts, stalls, goes on, ends.
//!
//! What people want is the *intent*; what is so is derived from frames that left the DAC. The *line* is what was given to
//! the decoder in this generation: entries in order, the current one first, so that tracks follow each other without a gap.
//! A skip, a seek or a stop starts a new generation; nothing else does.
//!
//! *Overlap*: how long before an entry's end the next one begins, cross-faded. It is decided when the decoder is about to be
//! given the first piece that it touches, and only if all of it is on board; until it is over both keep to their renditions.
//! Half of it belongs to each: in the middle, where the next one becomes the louder, it is the one that plays.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::checkpoint::Intent;
use crate::exchange::Settings;
use crate::fallback::is_fallback;
use crate::library::{Gain, RenditionName};
use crate::planner::{Planner, RESUME_LEVEL, Ready};
use crate::queue::{Entry, Queue};
use crate::sound::{EntryId, Heard, LivePiece, Order, OutputState, PIECES_AHEAD, Piece};
use crate::time::{Frames, Instant, Span};
use crate::wire::State;

/// Fade of a skip and a seek.
const FADE_MS: u32 = 5;
/// Frames are asked for so often while music plays,
const LISTEN: Span = Span::ms(500);
/// so often while it waits,
const LISTEN_WAITING: Span = Span::ms(250);
/// and so often while a first frame is due.
const LISTEN_CLOSELY: Span = Span::ms(20);
/// Without a moved frame for so long it is not playing.
const STILL: Span = Span::ms(700);
/// A shorter cross-fade is none.
const SHORTEST: Span = Span::ms(500);
/// What is given of a track before a cross-fade begins in it, at least.
const ALONE: Span = Span::s(1);
/// Periods of the device make the count of frames jump: up to this much is no silence.
const SLACK: Span = Span::ms(150);

/// What follows the entry that the decoder has last, whatever stands behind that in its list.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// The entry.
    pub entry: Entry,
    /// From where on.
    pub start: Frames,
}

/// A piece that is with the decoder and not yet in the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Given {
    seq: u64,
    entry: EntryId,
    slot: usize,
    /// The one given before it for this entry; 0: none.
    before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Fed {
    entry: EntryId,
    /// First frame wanted of it.
    start: Frames,
    gain: Gain,
    /// Its last segment was given.
    complete: bool,
    /// The segment that is given next.
    next: usize,
    /// So long before the end of the entry before it begins.
    overlap: Span,
    /// The last piece given for it; 0: none.
    last_seq: u64,
    /// The rendition of that piece.
    rendition: RenditionName,
    /// A live stream: one piece, and never complete.
    live: bool,
}

/// Playback of the queue's head.
#[derive(Clone, Debug)]
pub struct Playback {
    intent: Intent,
    generation: u32,
    seq: u64,
    given: VecDeque<Given>,
    line: VecDeque<Fed>,
    /// Where another rendition begins in what was given: entry, time, which.
    changes: VecDeque<(EntryId, Span, RenditionName)>,
    start: Frames,
    /// Where the queue's head goes on, while the fallback plays.
    aside: Option<Frames>,
    follow: Option<Next>,
    heard: Heard,
    heard_at: Option<Instant>,
    moved_at: Option<Instant>,
    output: OutputState,
    /// The audio threads were told to hold.
    held: bool,
    announced: Option<EntryId>,
    /// Nothing is to follow this entry.
    last: Option<EntryId>,
    /// The live stream of which enough has come.
    on_air: Option<EntryId>,
    /// Ran dry in mid-track, since when.
    starving: Option<Instant>,
    /// Should sound and does not: time that is not yet counted.
    due: Span,
    silence: Span,
    orders: Vec<Order>,
}

/// What was heard to have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The first frame of an entry left the DAC.
    Started(EntryId),
    /// The last frame of an entry left the DAC, after so much of it; or, so long before its last frame, that one at which a
    /// cross-fade makes the next one the louder.
    Finished(EntryId, Frames, Span),
    /// It ran dry.
    Stalled,
    /// It goes on after this long.
    Resumed(Span),
}

impl Playback {
    /// Playback at `start` of the queue's head.
    pub fn new(intent: Intent, start: Frames) -> Self {
        let held = intent == Intent::Paused;
        Self {
            intent,
            generation: 0,
            seq: 0,
            given: VecDeque::new(),
            line: VecDeque::new(),
            changes: VecDeque::new(),
            start,
            aside: None,
            follow: None,
            heard: Heard::default(),
            heard_at: None,
            moved_at: None,
            output: OutputState::Closed,
            held,
            announced: None,
            last: None,
            on_air: None,
            starving: None,
            due: Span(0),
            silence: Span(0),
            orders: if held { vec![Order::Pause(true)] } else { Vec::new() },
        }
    }

    /// What people want.
    pub fn intent(&self) -> Intent {
        self.intent
    }
    /// Unplanned silence since the process started.
    pub fn silence(&self) -> Span {
        self.silence
    }
    /// What was heard last.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }
    /// Orders for the audio threads.
    pub fn take_orders(&mut self) -> impl Iterator<Item = Order> {
        core::mem::take(&mut self.orders).into_iter()
    }

    /// What is so.
    pub fn state(&self, now: Instant, queue: &Queue) -> State {
        match self.intent {
            _ if queue.is_empty() => State::Stopped,
            Intent::Stopped => State::Stopped,
            Intent::Paused => State::Paused,
            Intent::Playing if matches!(self.output, OutputState::Missing { .. }) => State::NoOutput,
            Intent::Playing if self.moved_at.is_some_and(|t| now.since(t) < STILL) => State::Playing,
            Intent::Playing => State::Buffering,
        }
    }

    /// The playhead.
    pub fn position(&self, queue: &Queue) -> Frames {
        let h = &self.heard;
        let current = queue.current().map(|e| e.id);
        match self.aside {
            _ if h.generation == self.generation && Some(h.entry) == current && h.at.rate > 0 => h.at,
            Some(at) if current.is_some_and(|id| !is_fallback(id)) => at,
            _ => self.start,
        }
    }

    /// The queue's head waits there while the fallback plays.
    pub(crate) fn set_aside(&mut self, at: Frames) {
        self.aside = Some(at);
    }
    /// The fallback does not play any more: where the queue's head goes on.
    pub(crate) fn take_aside(&mut self) -> Frames {
        self.aside.take().unwrap_or_default()
    }
    /// What is to follow instead of what stands next; none: what stands next.
    pub(crate) fn follow(&mut self, next: Option<Next>) {
        self.follow = next;
    }
    /// What is to follow instead of what stands next, and is not with the decoder yet.
    pub(crate) fn next(&self) -> Option<&Next> {
        self.follow.as_ref()
    }
    /// Whether anything of this generation was heard.
    pub(crate) fn has_sounded(&self) -> bool {
        self.announced.is_some()
    }
    /// The entry that the decoder began with, of those not yet heard to their end.
    pub(crate) fn front(&self) -> Option<EntryId> {
        self.line.front().map(|f| f.entry)
    }
    /// The entry whose next piece the decoder would take, and which is not on board.
    pub(crate) fn missing(&self, queue: &Queue, planner: &Planner) -> Option<EntryId> {
        if self.given.len() >= PIECES_AHEAD {
            return None;
        }
        if self.plays_live() {
            // More of it is always to come; what has, is in what is heard.
            return self.line.back().map(|f| f.entry);
        }
        match (self.goes_on(planner), self.line.back()) {
            (Some(i), _) => {
                let entry = self.line[i].entry;
                let too_little = self.starving.is_some() && !planner.may_resume(entry, self.position(queue));
                (too_little || self.on(i, planner).is_none()).then_some(entry)
            }
            (None, Some(f)) if self.last == Some(f.entry) => None,
            (None, back) => {
                let next = back.map_or_else(|| queue.current(), |f| queue.after(f.entry))?;
                let start = if back.is_none() { self.start } else { Frames::default() };
                if next.stream.is_some() {
                    return (self.on_air != Some(next.id)).then_some(next.id);
                }
                let here = planner.locate(next.id, start).and_then(|n| planner.ready(next.id, n, None));
                (here.is_none() || (back.is_none() && !planner.may_start(next.id, start))).then_some(next.id)
            }
        }
    }

    /// The live stream that may begin.
    pub(crate) fn on_air(&mut self, entry: Option<EntryId>) {
        self.on_air = entry;
    }
    /// Another station, or none: what is known of the last one counts for nothing.
    pub(crate) fn nothing_on_air(&mut self) {
        self.heard.live_ms = 0;
    }
    /// Whether a live stream is with the decoder.
    pub(crate) fn plays_live(&self) -> bool {
        self.line.iter().any(|f| f.live)
    }
    /// The live stream at the queue's head goes on here when it comes.
    pub(crate) fn live_from(&mut self, at: Frames) {
        match &mut self.aside {
            Some(aside) => *aside = at,
            None if self.line.is_empty() => self.start = at,
            None => {}
        }
    }

    /// Plays or pauses. Whether that changed anything.
    pub fn want(&mut self, intent: Intent) -> bool {
        if intent == self.intent {
            return false;
        }
        let was = core::mem::replace(&mut self.intent, intent);
        (self.due, self.moved_at) = (Span(0), None);
        if was == Intent::Stopped || intent == Intent::Stopped {
            // Planned silence is not looked at, and must not be counted by the next look.
            self.heard_at = None;
        }
        match intent {
            Intent::Stopped => self.rewind(Frames::default(), false),
            Intent::Paused => self.hold(true),
            Intent::Playing => self.hold(false),
        }
        true
    }

    /// Until now nothing was due: what passed since the last look is no silence.
    pub(crate) fn due_from_now(&mut self) {
        (self.due, self.heard_at) = (Span(0), None);
    }

    fn hold(&mut self, hold: bool) {
        if core::mem::replace(&mut self.held, hold) != hold {
            self.orders.push(Order::Pause(hold));
        }
    }

    /// Starts a new generation at `start` of the queue's head. `more`: its first segment is on board, so that what plays
    /// now may sound until it comes.
    pub fn rewind(&mut self, start: Frames, more: bool) {
        self.rewind_over(start, more, FADE_MS);
    }

    /// The same, with a fade of the old sound that takes so long.
    pub(crate) fn rewind_over(&mut self, start: Frames, more: bool, fade_ms: u32) {
        self.generation += 1;
        self.follow = None;
        self.given.clear();
        self.line.clear();
        self.changes.clear();
        (self.start, self.announced, self.moved_at, self.starving) = (start, None, None, None);
        let more = more && self.intent == Intent::Playing;
        self.orders.push(Order::Flush { generation: self.generation, more, fade_ms });
    }

    /// Nothing follows this entry, whatever is behind it in the queue; none: all do.
    pub fn end_after(&mut self, entry: Option<EntryId>) {
        self.last = entry;
    }

    /// The audio threads are new: what was given, and what they were told, is given again, from `at` on.
    pub fn give_again(&mut self, at: Frames) {
        self.output = OutputState::Closed;
        self.rewind(at, false);
        self.orders.push(Order::Pause(self.held));
    }

    /// Whether the audio threads have something that they should play.
    pub fn has_given(&self) -> bool {
        !self.given.is_empty() || self.heard.ring_ms > 0
    }

    /// Takes back what was given beyond the entry `keep`, because the queue behind it changed. False: it is in the ring
    /// already, and only a new generation helps.
    pub fn take_back(&mut self, keep: EntryId) -> bool {
        let Some(i) = self.line.iter().position(|f| f.entry == keep) else { return true };
        let Some(next) = self.line.get(i + 1) else { return true };
        let last = self.line[i].last_seq;
        // While the decoder is still at the entry that stays, nothing of the next one is in the ring, unless they overlap.
        if next.overlap > Span(0) || !self.given.iter().any(|g| g.seq == last) {
            return false;
        }
        self.forget_after(i, last);
        true
    }

    /// Piece `seq` could not be played: it is given anew once it is on board again, or another rendition of it is. What was
    /// given after it was dropped. False: two entries overlap there, and only a new generation helps.
    pub fn give_anew(&mut self, seq: u64) -> bool {
        let Some(piece) = self.given.iter().find(|g| g.seq == seq).copied() else { return true };
        let Some(i) = self.line.iter().position(|f| f.entry == piece.entry) else { return true };
        if self.line.iter().skip(i.max(1)).any(|f| f.overlap > Span(0)) {
            return false;
        }
        self.forget_after(i, seq - 1);
        if let Some(fed) = self.line.back_mut() {
            (fed.complete, fed.last_seq, fed.next) = (false, piece.before, piece.slot);
        }
        true
    }

    /// Nothing is with the decoder behind piece `seq`, of the `i`th entry of the line.
    fn forget_after(&mut self, i: usize, seq: u64) {
        self.line.truncate(i + 1);
        let line = &self.line;
        self.changes.retain(|c| line.iter().any(|f| f.entry == c.0));
        self.given.retain(|g| g.seq <= seq);
        self.orders.push(Order::Forget { seq });
    }

    /// Counts flushes: what is reported of another generation is void.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How many slots of an entry, from its first, are with the decoder.
    pub fn slots_fed(&self, entry: EntryId) -> usize {
        match self.line.iter().position(|f| f.entry == entry) {
            Some(i) if !self.line[i].complete => self.line[i].next,
            Some(_) => usize::MAX,
            None => 0,
        }
    }

    /// The rendition that is heard, or will be.
    pub fn rendition(&self) -> Option<RenditionName> {
        self.changes.front().map(|c| c.2)
    }

    /// Entries that are (partly) with the decoder, in order.
    pub fn fed(&self) -> impl Iterator<Item = EntryId> {
        self.line.iter().map(|f| f.entry)
    }

    /// Whether an entry is (partly) with the decoder.
    pub fn is_fed(&self, entry: EntryId) -> bool {
        self.line.iter().any(|f| f.entry == entry)
    }

    /// The entry that the decoder will need next, for which nothing was given yet.
    pub fn next_to_feed<'q>(&'q self, queue: &'q Queue) -> Option<&'q Entry> {
        match self.line.back() {
            None => queue.current(),
            Some(_) if self.line.iter().any(|f| !f.complete) => None,
            Some(f) => self.follower(f.entry, queue),
        }
    }

    /// What comes behind an entry.
    fn follower<'q>(&'q self, entry: EntryId, queue: &'q Queue) -> Option<&'q Entry> {
        match &self.follow {
            _ if self.last == Some(entry) => None,
            Some(next) => Some(&next.entry),
            None => queue.after(entry),
        }
    }

    /// Which of what was begun goes on next, as a place in the line: of two that overlap, the one that sounds first.
    fn goes_on(&self, planner: &Planner) -> Option<usize> {
        let i = self.line.len().checked_sub(1)?;
        let b = &self.line[i];
        match i.checked_sub(1).map(|k| &self.line[k]).filter(|a| !a.complete) {
            Some(a) => {
                let length = planner.length(a.entry).map_or(Span(0), Frames::span);
                let next_b = planner.begins(b.entry, b.next).0 + length.0.saturating_sub(b.overlap.0);
                Some(if b.complete || planner.begins(a.entry, a.next).0 <= next_b { i - 1 } else { i })
            }
            None => (!b.complete).then_some(i),
        }
    }

    /// The next piece of a place in the line, if it is on board.
    fn on(&self, i: usize, planner: &Planner) -> Option<Ready> {
        let f = &self.line[i];
        if i + 1 < self.line.len() || planner.begins(f.entry, f.next) < f.overlap {
            return planner.ready_in(f.entry, f.next, f.rendition);
        }
        planner.ready(f.entry, f.next, Some(f.rendition))
    }

    /// How long what follows the last of the line should overlap with it, if it should begin before that one's next piece.
    fn overlap(&self, queue: &Queue, planner: &Planner, settings: &Settings) -> Option<(EntryId, Span)> {
        let a = self.line.back().filter(|a| settings.crossfade > Span(0) && !a.complete)?;
        let b = self.follower(a.entry, queue)?.id;
        let alone = self.line.iter().rev().nth(1).is_none_or(|before| before.complete);
        let resumes = self.follow.as_ref().is_some_and(|n| n.start.n > 0);
        let [length, next] = [planner.length(a.entry)?, planner.length(b)?].map(Frames::span);
        let begins = planner.begins(a.entry, a.next);
        // What the decoder has is not taken back.
        let most = longest_overlap((a.entry, length), (b, next), planner, settings);
        let overlap = most.min(Span(length.0.saturating_sub(begins.0 + ALONE.0)));
        let touched = planner.begins(a.entry, a.next + 1).0 + overlap.0 > length.0;
        if !touched || !alone || overlap < SHORTEST || resumes || planner.bad(b).is_some() {
            return None;
        }
        let first = planner.ready(b, planner.locate(b, Frames::default())?, None)?.rendition.name;
        let enough = planner.held_until(b, 0, first) >= next.min(Span(overlap.0 + RESUME_LEVEL.0));
        let whole = planner.held_until(a.entry, a.next, a.rendition) >= length;
        (enough && whole).then_some((b, overlap))
    }

    /// Gives the decoder what it can take.
    pub fn feed(&mut self, now: Instant, queue: &Queue, planner: &Planner, settings: &Settings) -> Option<Happened> {
        if self.intent == Intent::Stopped {
            return None;
        }
        let mut happened = None;
        while self.given.len() < PIECES_AHEAD {
            let next = self.next_to_feed(queue);
            if next.is_some_and(|e| e.stream.is_some()) || self.plays_live() {
                let live = next.map(|e| e.id).filter(|id| self.on_air == Some(*id));
                live.into_iter().for_each(|entry| self.feed_live(entry));
                break;
            }
            let early = self.overlap(queue, planner, settings);
            let fresh = early.map(|o| o.0).or_else(|| self.next_to_feed(queue).map(|e| e.id));
            let on = if fresh.is_none() { self.goes_on(planner) } else { None };
            let (entry, n, from, ready) = match (fresh, on) {
                (Some(e), _) => {
                    let follows = self.follow.as_ref().map_or(Frames::default(), |n| n.start);
                    let start = if self.line.is_empty() { self.start } else { follows };
                    let Some(n) = planner.locate(e, start) else { break };
                    (e, n, start, planner.ready(e, n, None))
                }
                (None, Some(i)) => {
                    let fed = &self.line[i];
                    let from = if fed.last_seq == 0 { fed.start } else { Frames::default() };
                    (fed.entry, fed.next, from, self.on(i, planner))
                }
                (None, None) => break,
            };
            let last = on.map(|i| self.line[i].rendition);
            let Some(ready) = ready else { break };
            if self.line.is_empty() && !planner.may_start(entry, from) {
                break;
            }
            if let Some(since) = self.starving {
                if !planner.may_resume(entry, self.position(queue)) {
                    break;
                }
                self.starving = None;
                happened = Some(Happened::Resumed(now.since(since)));
            }
            let overlap = early.map_or(Span(0), |o| o.1);
            if fresh.is_some() {
                let gain = gain(entry, queue, planner, settings.loudness_lufs);
                let (rendition, complete, last_seq) = (ready.rendition.name, false, 0);
                let (next, start, live) = (n, from, false);
                self.line.push_back(Fed { entry, start, gain, complete, next, overlap, last_seq, rendition, live });
                self.follow.take_if(|n| n.entry.id == entry);
            }
            self.seq += 1;
            let Some(fed) = self.line.iter_mut().rfind(|f| f.entry == entry) else { break };
            let before = core::mem::replace(&mut fed.last_seq, self.seq);
            (fed.complete, fed.rendition) = (ready.last, ready.rendition.name);
            fed.next = n + 1;
            if last != Some(ready.rendition.name) {
                let (r, body) = (&ready.rendition, ready.segment.first_frame);
                let begin = Frames::new(body.saturating_sub(r.delay), r.init.rate).span().max(from.span());
                self.changes.push_back((entry, begin, r.name));
            }
            self.given.push_back(Given { seq: self.seq, entry, slot: n, before });
            self.orders.push(Order::Play(Piece {
                seq: self.seq,
                generation: self.generation,
                entry,
                original_rate: planner.rate(entry).unwrap_or(0),
                from: from.at_rate(ready.rendition.init.rate).n,
                rendition: ready.rendition,
                segment: ready.segment,
                gain: fed.gain,
                last: ready.last,
                overlap,
            }));
        }
        happened
    }

    /// Gives the decoder the station that is tuned in.
    fn feed_live(&mut self, entry: EntryId) {
        let start = if self.line.is_empty() { self.start } else { Frames::default() };
        self.seq += 1;
        let (seq, generation) = (self.seq, self.generation);
        let (gain, complete, next, overlap, last_seq) = (Gain(0.0), false, 0, Span(0), seq);
        let (rendition, live) = (RenditionName::Original, true);
        self.line.push_back(Fed { entry, start, gain, complete, next, overlap, last_seq, rendition, live });
        self.follow.take_if(|n| n.entry.id == entry);
        self.given.push_back(Given { seq, entry, slot: 0, before: 0 });
        self.starving = None;
        self.orders.push(Order::Live(LivePiece { seq, generation, entry, at: start.span() }));
    }

    /// A piece is in the ring.
    pub fn decoded(&mut self, seq: u64) {
        // Pieces of two entries that overlap are not decoded in the order in which they were given.
        let Some(entry) = self.given.iter().find(|g| g.seq == seq).map(|g| g.entry) else { return };
        self.given.retain(|g| g.seq > seq || g.entry != entry);
    }

    /// The sound device changed.
    pub fn output(&mut self, state: OutputState) {
        self.output = state;
    }
    /// The sound device.
    pub fn output_state(&self) -> &OutputState {
        &self.output
    }

    /// What has left the DAC by now.
    pub fn hear(&mut self, now: Instant, heard: Heard, queue: &Queue) -> Vec<Happened> {
        let mut happened = Vec::new();
        let moved = heard.music_frames.saturating_sub(self.heard.music_frames);
        let passed = self.heard_at.map_or(Span(0), |t| now.since(t));
        let last_at = self.heard.at;
        (self.heard, self.heard_at) = (heard, Some(now));
        self.count_silence(passed, moved, queue);
        if heard.generation != self.generation {
            return happened;
        }
        if moved > 0 {
            self.moved_at = Some(now);
        }
        if self.line.iter().any(|f| f.entry == heard.entry) {
            while let Some(f) = self.line.front().copied()
                && f.entry != heard.entry
            {
                self.line.pop_front();
                self.start = self.line.front().map_or(Frames::default(), |f| f.start);
                let early = self.line.front().map_or(Span(0), |f| Span(f.overlap.0 / 2));
                happened.push(Happened::Finished(f.entry, last_at, early));
            }
            if moved > 0 && self.announced != Some(heard.entry) {
                self.announced = Some(heard.entry);
                happened.push(Happened::Started(heard.entry));
            }
            if heard.ended && self.line.len() == 1 && self.line.iter().all(|f| f.complete) && self.given.is_empty() {
                self.line.clear();
                self.start = Frames::default();
                happened.push(Happened::Finished(heard.entry, heard.at, Span(0)));
            }
        }
        let here = heard.at.span();
        while self.changes.get(1).is_some_and(|c| c.0 == heard.entry && c.1 <= here) {
            self.changes.pop_front();
        }
        let dry = self.given.is_empty() && self.line.iter().any(|f| !f.complete) && heard.ring_ms == 0;
        if self.intent == Intent::Playing && dry && moved == 0 && self.starving.is_none() {
            self.starving = Some(now);
            happened.push(Happened::Stalled);
        }
        happened
    }

    /// Time in which music was due, less the music that left the DAC. It counts once it is more than the device's periods.
    fn count_silence(&mut self, passed: Span, moved: u64, queue: &Queue) {
        if self.intent != Intent::Playing || queue.is_empty() {
            self.due = Span(0);
            return;
        }
        let rate = match &self.output {
            OutputState::Open { rate, .. } if *rate > 0 => *rate,
            _ => self.heard.at.rate.max(8_000),
        };
        self.due = Span((self.due.0 + passed.0).saturating_sub(Frames::new(moved, rate).span().0));
        if moved > 0 {
            // The DAC's crystal is not the system's: 1,000 ppm between them are no silence.
            self.due = Span(self.due.0.saturating_sub(passed.0 / 1_000));
        }
        if self.due > Span(2 * SLACK.0) {
            self.silence.0 += self.due.0 - SLACK.0;
            self.due = SLACK;
        }
    }

    /// When the frames should be looked at again.
    pub fn poll_timeout(&self, now: Instant, queue: &Queue) -> Option<Instant> {
        let last = self.heard_at.unwrap_or(now);
        match self.state(now, queue) {
            State::Stopped | State::NoOutput => None,
            State::Paused => (self.heard.ring_ms > 0 && self.moved_at.is_some()).then_some(last + LISTEN_WAITING),
            // When the ring runs dry is worth knowing at once: it may be the end.
            State::Playing => Some(last + Span::ms(self.heard.ring_ms.into()).clamp(LISTEN_CLOSELY, LISTEN)),
            State::Buffering if self.line.is_empty() || self.starving.is_some() => Some(last + LISTEN_WAITING),
            State::Buffering => Some(last + LISTEN_CLOSELY),
        }
    }

    /// Whether it should sound and there is nothing to give.
    pub fn is_silent(&self, now: Instant, queue: &Queue) -> bool {
        self.state(now, queue) == State::Buffering
    }
}

/// How long two neighbours, each with its length, overlap where both are on board; as far as their records are here.
pub(crate) fn longest_overlap(
    (a, length): (EntryId, Span),
    (b, next): (EntryId, Span),
    planner: &Planner,
    settings: &Settings,
) -> Span {
    if settings.crossfade < SHORTEST {
        return Span(0);
    }
    let together = album(a, planner).is_some_and(|mine| album(b, planner) == Some(mine));
    let rates = planner.rate(a).zip(planner.rate(b)).is_some_and(|(a, b)| a != b);
    // A third of a short track sounds alone.
    let most = settings.crossfade.min(Span(length.0.min(next.0) / 3));
    if together || (rates && !settings.fixed_rate) || most < SHORTEST { Span(0) } else { most }
}

/// The album of an entry.
fn album(entry: EntryId, planner: &Planner) -> Option<u64> {
    planner.record(entry)?.album_gain.as_ref().map(|a| a.album)
}

/// The gain of an entry: the album's if a neighbour in the queue is of the same album, else the track's own.
fn gain(entry: EntryId, queue: &Queue, planner: &Planner, target_lufs: f32) -> Gain {
    let album = |id| album(id, planner);
    let mine = album(entry);
    let neighbours = queue.iter().zip(queue.iter().skip(1));
    let together = mine.is_some()
        && neighbours
            .filter(|(a, b)| a.id == entry || b.id == entry)
            .any(|(a, b)| album(if a.id == entry { b.id } else { a.id }) == mine);
    planner.record(entry).map_or(Gain(0.0), |r| r.gain(target_lufs, together))
}
