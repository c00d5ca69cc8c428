//! The whole player as one function of its inputs.
//!
//! Law: after every input, drain [`Jukebox::poll_output`]; when [`Jukebox::poll_timeout`] comes, send [`Input::Tick`].
//! While it asks to listen, a fresh [`Input::Heard`] goes before every other input, so that decisions see where the sound
//! is. Nothing else moves it: a recorded script of `(Instant, Input)` replays bit for bit.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::json;

use crate::budget::Budget;
use crate::card::{Card, Written};
use crate::checkpoint::{Changes, Intent, Meta, Position, Saved, StopAfter};
use crate::command::{Request, Window};
use crate::event::Outbox;
use crate::exchange::{Catalogue, Input, Output, Settings, Source, Vitals};
use crate::fallback::{Fallback, is_fallback};
use crate::gesture::Gestures;
use crate::heal::Healer;
use crate::history::{History, Play};
use crate::ledger::SAVE_AFTER;
use crate::library::TrackId;
use crate::link::Link;
use crate::live::Live;
use crate::period::Period;
use crate::planner::{Ahead, Planner};
use crate::playback::{Happened, Playback};
use crate::queue::Queue;
use crate::reason::Reason;
use crate::sound::{EntryId, Order, OutputState, Report};
use crate::time::{Frames, Instant, Span, UnixMs};
use crate::wire::State;

/// A command that waits for the catalogue.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) question: u64,
    pub(crate) since: Instant,
    pub(crate) ask: Ask,
    pub(crate) request: Request,
}

/// Whom to answer.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The same command may have come twice while it waits.
    pub(crate) tokens: Vec<u64>,
    pub(crate) verb: String,
    pub(crate) id: Option<String>,
    pub(crate) print: u64,
    pub(crate) asks: bool,
    pub(crate) source: Source,
}

/// A word for the panel that goes away by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Notice {
    Word { headline: &'static str, title: String, detail: &'static str },
    Page,
}

/// The player's mind.
pub struct Jukebox {
    pub(crate) settings: Settings,
    pub(crate) boot: String,
    pub(crate) began: Instant,
    pub(crate) now: Instant,
    pub(crate) clock: Option<(Instant, UnixMs)>,
    pub(crate) queue: Queue,
    pub(crate) fallback: Fallback,
    /// The track that the fallback goes on with after a restart.
    pub(crate) fallback_next: Option<TrackId>,
    /// It is a time at which an empty queue should not be silent.
    pub(crate) hours_open: bool,
    /// The latest known time that was saved.
    pub(crate) time_saved: Option<UnixMs>,
    pub(crate) playback: Playback,
    pub(crate) planner: Planner,
    pub(crate) link: Link,
    pub(crate) budget: Budget,
    pub(crate) traffic_saved: Instant,
    pub(crate) live: Live,
    pub(crate) window: Window,
    pub(crate) history: History,
    /// The last entry of which a frame left the DAC.
    pub(crate) sounded: Option<EntryId>,
    pub(crate) stop_after: Option<StopAfter>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) questions: u64,
    /// Seed of the next shuffle.
    pub(crate) dice: u64,
    pub(crate) gestures: Gestures,
    pub(crate) volume: u8,
    pub(crate) muted: bool,
    pub(crate) catalogue: Catalogue,
    pub(crate) vitals: Vitals,
    pub(crate) card: Card,
    pub(crate) period: Period,
    /// Revisions of queue and fallback that the store was told of.
    pub(crate) pinned: Option<(u64, u64)>,
    /// Room for queue and fallback as the planner walks them.
    pub(crate) walked: (Vec<Ahead>, Vec<Ahead>),
    pub(crate) bots: bool,
    pub(crate) name_taken: bool,
    pub(crate) overlay_until: Option<Instant>,
    pub(crate) notice: Option<(Notice, Instant)>,
    pub(crate) allowance: Allowance,
    pub(crate) told: crate::tell::Told,
    pub(crate) healer: Healer,
    /// Bytes that came over the link for nothing.
    pub(crate) wasted: u64,
    pub(crate) outbox: Outbox,
    pub(crate) event_seq: u64,
    pub(crate) offered: u64,
    /// The last event that was handed to the store.
    pub(crate) kept: u64,
    pub(crate) changes: Changes,
    pub(crate) dirty_since: Option<Instant>,
    pub(crate) stopped_since: Option<Instant>,
    pub(crate) position_saved: (Option<Position>, Instant),
    pub(crate) rebuffer_since: Option<Instant>,
    /// Unplanned silence that was told, and why there is more, if there is.
    pub(crate) silence_told: Span,
    pub(crate) silent_for: Option<Option<Reason>>,
    pub(crate) was_link: crate::view::Grade,
    /// Frames were looked at in the last turn.
    pub(crate) listened: bool,
    pub(crate) probing: bool,
    pub(crate) probed_at: Instant,
    /// The last probe did not reach the office.
    pub(crate) unreached: bool,
    pub(crate) ending: bool,
    pub(crate) out: VecDeque<Output>,
}

/// Commands that may come now: 20 a second, 50 at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Thousandths of a command.
    left: u64,
    at: Instant,
}

impl Allowance {
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.left = (self.left + now.since(self.at).0 * 20 / 1_000).min(50_000);
        self.at = now;
        let ok = self.left >= 1_000;
        self.left -= if ok { 1_000 } else { 0 };
        ok
    }
}

/// The catalogue answers within this, or the command is refused.
const PATIENCE: Span = Span::s(10);

impl Jukebox {
    /// A player as it was saved. `seed` is random; `boot` is 16 random hex digits, new at each start.
    pub fn new(
        now: Instant,
        seed: u64,
        boot: String,
        settings: Settings,
        saved: Saved,
        position: Option<&[u8]>,
    ) -> Self {
        let first = saved.meta.is_none();
        let meta = saved.meta.unwrap_or(Meta {
            intent: Intent::Stopped,
            volume: settings.first_volume.min(settings.volume_max),
            muted: false,
            revision: 0,
            last_id: 0,
            clean_end: true,
            library: None,
            stop_after: None,
            fallback_next: None,
            hours_open: false,
            time: None,
            written: Written::default(),
            period_ms: None,
        });
        let current = saved.queue.current().map(|e| e.id);
        let start = current.and_then(|id| Position::read(position?, id)).unwrap_or_default();
        let live = saved.queue.current().filter(|e| e.stream.is_some()).map(|e| e.id);
        let mut it = Self {
            boot,
            began: now,
            now,
            clock: None,
            queue: saved.queue,
            fallback: Fallback::default(),
            fallback_next: meta.fallback_next,
            hours_open: meta.hours_open,
            time_saved: meta.time,
            playback: Playback::new(meta.intent, start),
            planner: Planner::new(seed, settings.original_only),
            link: Link::default(),
            budget: Budget::restore(saved.traffic),
            traffic_saved: now,
            live: Live::new(now, live, start.span()),
            window: saved.window,
            history: saved.history,
            sounded: current.filter(|_| start.n > 0),
            stop_after: meta.stop_after,
            pending: Vec::new(),
            questions: 0,
            dice: seed,
            gestures: Gestures::default(),
            volume: meta.volume.min(settings.volume_max),
            muted: meta.muted,
            catalogue: Catalogue { library: meta.library, ..Catalogue::default() },
            vitals: Vitals::default(),
            card: Card::new(meta.written),
            period: Period::new(meta.period_ms),
            pinned: None,
            walked: (Vec::new(), Vec::new()),
            bots: false,
            name_taken: false,
            overlay_until: None,
            notice: None,
            allowance: Allowance { left: 50_000, at: now },
            told: crate::tell::Told::default(),
            healer: Healer::default(),
            wasted: 0,
            outbox: saved.outbox,
            event_seq: 0,
            offered: 0,
            kept: 0,
            changes: Changes::default(),
            dirty_since: None,
            stopped_since: Some(now),
            position_saved: (None, now),
            rebuffer_since: None,
            silence_told: Span(0),
            silent_for: None,
            was_link: crate::view::Grade::Down,
            listened: false,
            probing: false,
            probed_at: now,
            unreached: false,
            ending: false,
            out: VecDeque::new(),
            settings,
        };
        it.kept = it.outbox.last_key();
        it.playback.end_after(it.stop_after.as_ref().map(|s| s.entry));
        it.order_volume(20);
        it.out.extend(meta.period_ms.map(|ms| Output::Period { ms }));
        let end = if first {
            "none"
        } else if meta.clean_end {
            "stopped"
        } else {
            "crashed"
        };
        it.event("started_up", json!({"previous_end": end, "rejected": saved.rejected.len()}));
        it.save_meta(false);
        it.flush(true);
        it.after(true);
        it
    }

    /// Something happened at `now`.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        self.now = now.max(self.now);
        self.pass_on_air();
        let mut stirred = !matches!(input, Input::Tick);
        match input {
            Input::Tick => {}
            Input::Command(c) => self.obey(c),
            Input::Edge(e) => self.gestures.edge(self.now, e),
            Input::Found { token, hits, on_board } => self.found(token, hits, &on_board),
            Input::Listed { token, list } => {
                if !self.fallback_listed(token, list.as_ref()) {
                    self.listed(token, list);
                }
            }
            Input::Fetched { id, arrival, sample, received } => {
                self.wasted += received - sample.map_or(0, |s| u64::from(s.bytes)).min(received);
                self.fetched(id, arrival, sample);
            }
            Input::Wasted { bytes } => self.wasted += bytes,
            Input::Heard(h) => {
                let line = if self.fallback.on.is_some() { &self.fallback.list } else { &self.queue };
                let happened = self.playback.hear(self.now, h, line);
                happened.into_iter().for_each(|h| self.happened(h));
                self.lengthen_period(h.xruns);
                // What follows from it follows in the turn of the input behind it.
                return self.heal(h.music_frames);
            }
            Input::Report(r) => self.report(r),
            Input::Link { up } => self.probed(up),
            Input::Network { up } => self.network(up),
            Input::Traffic { carried, by } => self.traffic(&carried, by),
            Input::Air { entry, air } => self.air(entry, air),
            Input::Bots { up, name_taken } => {
                (self.bots, self.name_taken) = (up, name_taken);
                if up {
                    self.offered = 0;
                }
            }
            Input::Delivered { key } => {
                if self.outbox.done(key) {
                    self.changes.forget_event(key);
                }
                self.offered = 0;
                self.tell_dropped();
            }
            Input::Clock { unix, synced } => self.clock(unix, synced),
            Input::Hours { open } => {
                if core::mem::replace(&mut self.hours_open, open) != open {
                    self.save_meta(false);
                }
            }
            Input::Catalogue(c) => self.catalogue_changed(c),
            Input::Vitals(v) => self.look_at(v),
            Input::Reloaded(r) => self.reloaded(r),
            Input::Shutdown => self.shutdown(),
        }
        while let Some(g) = self.gestures.poll(self.now) {
            self.gesture(g);
            stirred = true;
        }
        self.after(stirred);
    }

    /// The next wish; call until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to send [`Input::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let idle = self.stopped_since.map(|t| t + self.settings.idle_close);
        let notice = self.notice.as_ref().map(|n| n.1);
        let all = [
            self.pending.first().map(|p| p.since + PATIENCE),
            self.playback.poll_timeout(self.now, self.line()),
            self.planner.poll_timeout(),
            self.gestures.poll_timeout(),
            self.dirty_since.map(|t| t + SAVE_AFTER),
            self.stream_ends_at(),
            self.overlay_until,
            notice,
            idle,
            self.told.poll_timeout(self.state(), self.budget.is_metered()),
        ];
        let first = all.into_iter().flatten().min();
        let probe = self.probe_at(first.unwrap_or(Instant(u64::MAX)));
        // What is due already was looked at in this turn: only the future wakes.
        [first, probe].into_iter().flatten().min().map(|t| t.max(self.now + Span::ms(1)))
    }

    /// Whether a fresh [`Input::Heard`] is wanted before every other input.
    pub fn listens(&self) -> bool {
        self.playback.intent() != Intent::Stopped && !self.line().is_empty()
    }

    /// What the player does.
    pub fn state(&self) -> State {
        self.playback.state(self.now, self.line())
    }

    /// Everything that follows from what is so now. `stirred`: more than time has passed.
    fn after(&mut self, stirred: bool) {
        self.drop_bad();
        self.end_stream();
        self.keep_stop_after();
        self.give_up_waiting();
        self.tune();
        self.choose_source();
        let listens = self.listens();
        if !core::mem::replace(&mut self.listened, listens) && listens {
            self.playback.due_from_now();
        }
        let line = if self.fallback.on.is_some() { &self.fallback.list } else { &self.queue };
        let happened = self.playback.feed(self.now, line, &self.planner, &self.settings);
        happened.into_iter().for_each(|h| self.happened(h));
        self.wish();
        let orders: Vec<_> = self.playback.take_orders().collect();
        self.out.extend(orders.into_iter().map(Output::Order));
        self.close_when_idle();
        self.link_event();
        self.silence_event();
        let stirred = self.expire() || stirred || !self.out.is_empty();
        self.tell(stirred);
        self.flush(false);
        self.offer();
        self.save_position_when_due();
    }

    /// The catalogue's thread may hang with the card: whoever asked is told.
    fn give_up_waiting(&mut self) {
        while let Some(p) = self.pending.first().filter(|p| self.now.since(p.since) >= PATIENCE) {
            self.found(p.question, None, &[]);
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Decoded { seq } => self.playback.decoded(seq),
            Report::Torn { seq, entry, digest, .. } => {
                self.planner.torn(entry, digest);
                self.give_anew(seq);
            }
            Report::Undecodable { entry, .. } if self.stream(Some(entry)).is_some() => self.spoil_stream(entry),
            Report::Undecodable { seq, entry, digest, .. } => {
                digest.into_iter().for_each(|d| self.planner.undecodable(entry, d));
                self.give_anew(seq);
            }
            Report::Output(state) => {
                let name = |s: &OutputState| match s {
                    OutputState::Open { name, .. } => Some(name.to_string()),
                    OutputState::Closed => None,
                    OutputState::Missing { .. } => Some("none".into()),
                };
                let (from, to) = (name(self.playback.output_state()), name(&state));
                self.playback.output(state);
                if from != to && (from.as_deref() == Some("none") || to.as_deref() == Some("none")) {
                    self.event("output", json!({"from": from, "to": to}));
                }
            }
        }
    }

    /// A piece could not be played.
    fn give_anew(&mut self, seq: u64) {
        if !self.playback.give_anew(seq) {
            let at = self.playback.position(self.line());
            self.playback.rewind(at, false);
        }
    }

    /// Takes entries out whose own fault it is that they cannot play, when their turn has come.
    fn drop_bad(&mut self) {
        loop {
            let line = self.line();
            let due = [line.current(), self.playback.next_to_feed(line)].map(|e| e.map(|e| e.id));
            let due = due.into_iter().flatten().chain(self.queue.current().map(|e| e.id)).chain(self.playback.fed());
            let bad = due.filter_map(|id| Some((id, self.bad(id)?))).next();
            let Some((id, reason)) = bad else { return };
            if is_fallback(id) {
                self.skip_fallback(id, "player", Some(reason));
                continue;
            }
            let (current, fed) = (self.queue.current().is_some_and(|e| e.id == id), self.playback.is_fed(id));
            self.skip_entry(id, "player", Some(reason));
            if current {
                self.restart_head();
            } else if fed {
                self.behind_current_changed();
            }
        }
    }

    /// The wish to stop after a track ends with the track, however that ends.
    fn keep_stop_after(&mut self) {
        let current = self.queue.current().map(|e| e.id);
        if self.stop_after.as_ref().is_some_and(|s| Some(s.entry) != current) {
            self.set_stop_after(None);
        }
    }

    pub(crate) fn set_stop_after(&mut self, stop_after: Option<StopAfter>) {
        self.playback.end_after(stop_after.as_ref().map(|s| s.entry));
        self.stop_after = stop_after;
        self.save_meta(false);
    }

    /// The current entry leaves the head of the queue. If it sounded, it was played.
    pub(crate) fn remember_current(&mut self, played: Frames, skipped: bool) {
        let Some(entry) = self.queue.current().filter(|e| self.sounded == Some(e.id)).cloned() else { return };
        let at_ms = self.unix(self.now).map(|u| u.0);
        let play = Play { entry, at_ms, played_ms: played.as_ms(), skipped };
        let number = self.history.push(play.clone());
        self.changes.play(number, &play);
        self.expire_history();
    }

    /// Takes the last play back out of the history.
    pub(crate) fn forget_last_play(&mut self) {
        if let Some((number, _)) = self.history.pop() {
            self.changes.forget_play(number);
        }
    }

    pub(crate) fn expire_history(&mut self) {
        if let Some(now) = self.unix(self.now) {
            let gone = self.history.expire(now, self.settings.history_keep);
            gone.into_iter().for_each(|n| self.changes.forget_play(n));
        }
    }

    /// Takes an entry out for somebody (`by`) or for its own fault; what follows plays on from its start.
    pub(crate) fn skip_entry(&mut self, id: EntryId, by: &str, reason: Option<Reason>) {
        if reason.is_none() && self.queue.current().is_some_and(|e| e.id == id) {
            self.remember_current(self.playback.position(&self.queue), true);
        }
        let Some(entry) = self.queue.remove(id) else { return };
        self.changes.forget_entry(id);
        let why = reason.map(Reason::told);
        self.event("skipped", json!({"entry": id, "track": entry.track, "by": by, "reason": why}));
        if let Some(reason) = reason {
            let word = Notice::Word { headline: "Skipped", title: entry.title, detail: reason.short() };
            self.notice = Some((word, self.now + Span::s(5)));
        }
        self.queue_changed();
    }

    /// The head of the queue is another one: start it from its beginning.
    pub(crate) fn restart_head(&mut self) {
        if self.fallback.on.is_some() {
            self.waits_for_another();
            return self.stop_if_empty();
        }
        let more = self.queue.current().is_some_and(|e| self.planner.level(e.id, Frames::default()).0 > Span(0));
        self.playback.rewind(Frames::default(), more);
        self.stop_if_empty();
    }

    pub(crate) fn stop_if_empty(&mut self) {
        if self.queue.is_empty() && self.playback.intent() != Intent::Stopped && !self.settings.fallback.when_empty {
            self.end_fallback();
            self.playback.want(Intent::Stopped);
            self.save_meta(false);
        }
    }

    pub(crate) fn queue_changed(&mut self) {
        self.changes.order(&self.queue);
        self.save_meta(false);
        let (queue, list) = (&self.queue, &self.fallback.list);
        let void = self.planner.keep_only(self.now, |id| queue.find(id).or_else(|| list.find(id)).is_some());
        self.out.extend(void.into_iter().map(|id| Output::Cancel { id }));
    }

    pub(crate) fn entry_added(&mut self, id: EntryId) {
        if let Some((_, e)) = self.queue.find(id) {
            self.changes.entry(e);
        }
        self.queue_changed();
    }

    pub(crate) fn entry_forgotten(&mut self, id: EntryId) {
        self.changes.forget_entry(id);
    }

    fn happened(&mut self, h: Happened) {
        match h {
            Happened::Started(id) if is_fallback(id) => {
                let track = self.fallback.list.find(id).map(|(_, e)| e.track);
                self.event("started", json!({"entry": null, "source": "fallback", "track": track}));
            }
            Happened::Finished(id, played, _) if is_fallback(id) => {
                let track = self.fallback.list.find(id).map(|(_, e)| e.track);
                let facts = json!({"entry": null, "source": "fallback", "track": track, "played_ms": played.as_ms()});
                self.event("finished", facts);
                self.fallback_turns(id, false);
                if self.playback.front().is_some_and(|id| !is_fallback(id)) {
                    self.queue_followed();
                }
            }
            // The same stream again, after an outage.
            Happened::Started(id) if self.sounded == Some(id) && self.stream(Some(id)).is_some() => {
                self.stream_sounds();
                if let Some(since) = self.rebuffer_since.take() {
                    self.event("rebuffer", json!({"entry": id, "ms": self.now.since(since).as_ms()}));
                }
            }
            Happened::Started(id) => {
                self.stream_sounds();
                self.sounded = Some(id);
                if let Some((_, e)) = self.queue.find(id) {
                    let facts = json!({"entry": id, "track": e.track, "by": e.by});
                    self.event("started", facts);
                    self.save_position();
                }
            }
            Happened::Finished(id, last_seen, early) => {
                // Frames are looked at now and then: the last look was before the end.
                let end = |all: Frames| Frames::new(all.n.saturating_sub(early.at_rate(all.rate)), all.rate);
                let played = self.planner.length(id).map_or(last_seen, end);
                if self.finish_entry(id, played) {
                    if self.playback.front().is_some_and(is_fallback) {
                        self.fallback_followed();
                    }
                    self.after_finish(id);
                }
            }
            Happened::Stalled => {
                self.rebuffer_since = Some(self.now);
                if self.playback.plays_live() {
                    // It begins anew once enough has come.
                    self.stream_broke();
                    self.playback.rewind(self.playback.position(&self.queue), false);
                }
            }
            Happened::Resumed(after) => {
                if self.rebuffer_since.take().is_some() {
                    let entry = self.line().current().map(|e| e.id).filter(|id| !is_fallback(*id));
                    self.event("rebuffer", json!({"entry": entry, "ms": after.as_ms()}));
                }
            }
        }
    }

    /// An entry has ended by itself, after so much of it; whether it was in the queue.
    pub(crate) fn finish_entry(&mut self, id: EntryId, played: Frames) -> bool {
        if self.queue.current().is_some_and(|e| e.id == id) {
            self.remember_current(played, false);
        }
        let Some(e) = self.queue.remove(id) else { return false };
        self.changes.forget_entry(id);
        let facts = json!({"entry": id, "track": e.track, "by": e.by, "played_ms": played.as_ms()});
        self.event("finished", facts);
        self.queue_changed();
        // A power cut must not bring back what was heard to its end.
        self.flush(true);
        true
    }

    /// What people wanted for after it.
    pub(crate) fn after_finish(&mut self, id: EntryId) {
        if let Some(stop) = self.stop_after.take_if(|s| s.entry == id) {
            self.playback.end_after(None);
            self.set_intent(Intent::Stopped, &stop.by);
        }
        self.stop_if_empty();
    }

    fn close_when_idle(&mut self) {
        if self.state() != State::Stopped {
            self.stopped_since = None;
        } else if self.stopped_since.is_some_and(|t| self.now.since(t) >= self.settings.idle_close) {
            self.out.push_back(Output::Order(Order::Close));
            // Closed once; the next piece opens it again.
            self.stopped_since = None;
        }
        if self.state() == State::Stopped
            && self.stopped_since.is_none()
            && matches!(self.playback.output_state(), OutputState::Open { .. })
            && !matches!(self.out.back(), Some(Output::Order(Order::Close)))
        {
            self.stopped_since = Some(self.now);
        }
    }

    /// Tells of unplanned silence once it is over.
    fn silence_event(&mut self) {
        let silence = self.playback.silence();
        if self.silent_for.is_none() && silence > self.silence_told {
            self.silent_for = Some(None);
        }
        // Why is known once a request has failed: that may be long after it fell silent.
        if let Some(before) = self.silent_for {
            self.silent_for = Some(self.reason().map(|r| r.0).or(before));
        }
        if !matches!(self.state(), State::Buffering | State::NoOutput)
            && let Some(reason) = self.silent_for.take()
        {
            let ms = silence.as_ms() - self.silence_told.as_ms();
            self.silence_told = silence;
            self.event("silence", json!({"ms": ms, "reason": reason.map(Reason::told)}));
        }
    }

    fn link_event(&mut self) {
        let grade = self.link.grade();
        if grade != self.was_link {
            let from = core::mem::replace(&mut self.was_link, grade);
            self.event("link", json!({"from": from, "to": grade}));
        }
    }

    /// Takes from the panel what has been there long enough; whether anything was.
    fn expire(&mut self) -> bool {
        let overlay = self.overlay_until.take_if(|t| *t <= self.now).is_some();
        let notice = self.notice.take_if(|n| n.1 <= self.now).is_some();
        overlay || notice
    }

    fn catalogue_changed(&mut self, c: Catalogue) {
        match c.reason {
            None => self.link.reached(),
            Some(r) if r.action() == crate::reason::Action::Wait => self.link.failed(self.now),
            Some(_) => {}
        }
        if let Some(why) = c.refused.as_ref().filter(|_| c.refused != self.catalogue.refused) {
            self.event("library", json!({"refused": why}));
        }
        let library = c.library.clone().or(self.catalogue.library.take());
        let news = library != self.catalogue.library;
        self.catalogue = Catalogue { library, ..c };
        self.ask_for_fallback();
        if news {
            self.save_meta(false);
        }
    }

    fn shutdown(&mut self) {
        self.ending = true;
        self.save_position();
        self.changes.traffic(self.budget.months());
        self.save_meta(true);
        self.flush(true);
    }

    /// Chance: a number that the next one does not tell, and that a replay throws again.
    pub(crate) fn throw_dice(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice
    }

    // What is set.

    pub(crate) fn set_volume(&mut self, percent: i32, by: &str) {
        let percent = percent.clamp(0, self.settings.volume_max.into()) as u8;
        let unmuted = core::mem::replace(&mut self.muted, false);
        if percent != self.volume || unmuted {
            self.volume = percent;
            self.event("volume", json!({"percent": percent, "muted": false, "by": by}));
            self.order_volume(20);
            self.save_meta(false);
        }
    }

    pub(crate) fn set_mute(&mut self, on: bool, by: &str) {
        if on != self.muted {
            self.muted = on;
            self.event("volume", json!({"percent": self.volume, "muted": on, "by": by}));
            self.order_volume(20);
            self.save_meta(false);
        }
    }

    pub(crate) fn order_volume(&mut self, ramp_ms: u32) {
        let share = f32::from(self.volume) / 100.0;
        let factor = if self.muted { 0.0 } else { share * share * share };
        self.out.push_back(Output::Order(Order::Volume { factor, ramp_ms }));
    }

    /// Plays, pauses or stops, and says so. Whether that changed anything.
    pub(crate) fn set_intent(&mut self, intent: Intent, by: &str) -> bool {
        let was = self.playback.intent();
        if !self.playback.want(intent) {
            return false;
        }
        if intent == Intent::Stopped {
            self.leave_fallback();
            self.stream_stopped();
        }
        match (was, intent) {
            (Intent::Paused, Intent::Playing) => self.event("resumed", json!({"by": by})),
            (_, Intent::Paused) => self.event("paused", json!({"by": by})),
            (_, Intent::Stopped) => self.event("stopped", json!({"by": by})),
            _ => {}
        }
        self.planner.hurry(self.now);
        self.save_meta(false);
        self.save_position();
        true
    }
}
