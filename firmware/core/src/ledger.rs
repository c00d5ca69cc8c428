//! What is saved, and what is told of it: the small state, the playhead, events, answers.

use alloc::format;
use alloc::string::{String, ToString};

use serde_json::{Value, json};

use crate::budget::Carried;
use crate::checkpoint::{Meta, Position};
use crate::command::Refusal;
use crate::event::{self, Event};
use crate::exchange::Output;
use crate::jukebox::{Ask, Jukebox};
use crate::reason::Code;
use crate::time::{Instant, Span, UnixMs};

/// Changes that nobody waits for are saved together after so long.
pub(crate) const SAVE_AFTER: Span = Span::s(2);
/// The playhead is saved so often while it moves. A page of the card each time: 4 kB every 10 s are 15 MB in ten hours.
const POSITION_EVERY: Span = Span::s(10);
/// The time is saved so often where nothing else is: certificates live for months.
const TIME_EVERY: Span = Span::s(6 * 3_600);
/// What metered interfaces carried is saved so often; a power cut forgets no more.
const TRAFFIC_EVERY: Span = Span::s(600);

impl Jukebox {
    pub(crate) fn meta(&self) -> Meta {
        Meta {
            intent: self.playback.intent(),
            volume: self.volume,
            muted: self.muted,
            revision: self.queue.revision(),
            last_id: self.queue.last_id(),
            clean_end: false,
            library: self.catalogue.library.clone(),
            stop_after: self.stop_after.clone(),
            fallback_next: self.fallback_next,
            hours_open: self.hours_open,
            time: self.unix(self.now).max(self.time_saved),
            written: self.card.today,
            period_ms: self.period.ms,
        }
    }

    pub(crate) fn save_meta(&mut self, clean_end: bool) {
        let meta = Meta { clean_end, ..self.meta() };
        self.time_saved = meta.time;
        self.changes.meta(&meta);
    }

    /// What time it is. It is saved now and again, because a clock without a battery starts anywhere.
    pub(crate) fn clock(&mut self, unix: UnixMs, synced: bool) {
        self.clock = synced.then_some((self.now, unix));
        self.expire_history();
        if synced && self.time_saved.is_none_or(|t| unix.0 >= t.0 + TIME_EVERY.as_ms()) {
            self.save_meta(false);
        }
    }

    /// What metered interfaces have carried.
    pub(crate) fn traffic(&mut self, carried: &[Carried], by: Option<String>) {
        let unix = self.unix(self.now);
        let before = self.budget.thrift(unix);
        self.budget.look(self.now, unix, carried, by);
        if self.budget.thrift(unix) != before {
            self.planner.hurry(self.now);
        }
        if !carried.is_empty() && self.now.since(self.traffic_saved) >= TRAFFIC_EVERY {
            self.traffic_saved = self.now;
            self.changes.traffic(self.budget.months());
        }
    }

    pub(crate) fn save_seen(&mut self, seen: crate::command::Seen) {
        let (number, _) = self.window.push(seen.clone());
        // The row of the one that fell out is the row of the new one: numbers are taken modulo the window.
        self.changes.seen(number, &seen);
    }

    /// Hands changes to the store: at once if somebody waits for it, else together after a while.
    pub(crate) fn flush(&mut self, at_once: bool) {
        if self.changes.is_empty() {
            return;
        }
        let since = *self.dirty_since.get_or_insert(self.now);
        if at_once || self.now.since(since) >= SAVE_AFTER {
            self.dirty_since = None;
            self.kept = self.outbox.last_key();
            self.out.push_back(Output::Save(self.changes.take()));
        }
    }

    pub(crate) fn save_position_when_due(&mut self) {
        if self.now.since(self.position_saved.1) >= POSITION_EVERY {
            self.save_position();
        }
    }

    pub(crate) fn save_position(&mut self) {
        let Some(e) = self.queue.current() else { return };
        let at = self.playback.position(&self.queue);
        // The start of a track has no rate yet.
        let p = Position { entry: e.id, n: at.n, rate: at.rate.max(1) };
        if self.position_saved.0 != Some(p) {
            self.out.push_back(Output::SavePosition(p.to_bytes()));
            self.position_saved = (Some(p), self.now);
        }
    }

    // What is told.

    /// RFC 3339 of an instant, once the clock is known to be right.
    pub(crate) fn at(&self, t: Instant) -> Option<String> {
        self.unix(t).map(|u| u.to_string())
    }

    pub(crate) fn unix(&self, t: Instant) -> Option<UnixMs> {
        let (then, unix) = self.clock?;
        Some(UnixMs((unix.0 + t.since(then).as_ms()).saturating_sub(then.since(t).as_ms())))
    }

    pub(crate) fn event(&mut self, kind: &str, facts: Value) {
        self.event_seq += 1;
        let (at, up) = (self.at(self.now), self.now.since(self.began).as_ms());
        let payload = event::payload(&self.boot, self.event_seq, at, up, facts);
        self.out.push_back(Output::Event { kind: kind.into(), payload: payload.clone() });
        if self.settings.broker {
            let event = Event { kind: kind.into(), payload };
            let (key, gone) = self.outbox.push(event.clone());
            self.changes.event(key, &event);
            gone.into_iter().for_each(|k| self.changes.forget_event(k));
        }
    }

    /// Tells how many events had to go, once there is room to say it.
    pub(crate) fn tell_dropped(&mut self) {
        if self.outbox.len() < event::MAX_OUTBOX / 2 {
            let dropped = self.outbox.take_dropped();
            if dropped > 0 {
                self.event("dropped", json!({"count": dropped}));
            }
        }
    }

    /// Offers the oldest event to the broker: one at a time, so that they arrive in order, and only what the store has: a
    /// power cut must not undo what was told.
    pub(crate) fn offer(&mut self) {
        if !self.bots || self.offered != 0 {
            return;
        }
        if let Some((key, e)) = self.outbox.after(0).filter(|e| e.0 <= self.kept) {
            self.offered = key;
            self.out.push_back(Output::Offer { key, kind: e.kind.clone(), payload: e.payload.clone() });
        }
    }

    /// Answers a command, and remembers the answer if it carried an id and changed something.
    pub(crate) fn answer(&mut self, ask: &Ask, outcome: Result<Value, Refusal>) {
        if let Err(r) = &outcome
            && r.code != Code::Busy
        {
            // A flood must not wash the trail away.
            let verb: String = ask.verb.chars().take(32).collect();
            self.event("refused", json!({"verb": verb, "code": r.code}));
        }
        let rev = self.queue.revision();
        let payload = crate::wire::reply(ask.id.as_deref(), &self.settings.player, &ask.verb, rev, &outcome);
        if let Some(id) = &ask.id
            && !ask.asks
        {
            self.save_seen(crate::command::Seen { id: id.clone(), print: ask.print, reply: payload.clone() });
        }
        let durable = !ask.asks;
        if durable {
            self.flush(true);
        }
        for &token in &ask.tokens {
            self.out.push_back(Output::Reply { token, payload: payload.clone(), durable });
        }
    }

    pub(crate) fn reply_now(&mut self, token: u64, payload: String, durable: bool) {
        self.out.push_back(Output::Reply { token, payload, durable });
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.out.push_back(output);
    }

    /// A sentence with a duration that people read: "3 minutes".
    pub(crate) fn in_words(seconds: u64) -> String {
        match seconds {
            0..=89 => format!("{seconds} seconds"),
            90..=5_399 => format!("{} minutes", (seconds + 30) / 60),
            _ => format!("{} hours", (seconds + 1_800) / 3_600),
        }
    }
}
