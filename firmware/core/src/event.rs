//! Facts for the audit trail and for analytics.
//!
//! An event is numbered at birth, kept in the outbox until it is acknowledged, and identified for ever by player, boot and
//! number. The outbox is bounded: when it is full the oldest go, and the next event tells how many.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};
use serde_json::{Map, Value};

/// Most events in the outbox.
pub const MAX_OUTBOX: usize = 1_000;

/// A fact that waits to be told.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Event {
    /// The last part of the topic: `started`, `skipped`, ...
    #[n(0)]
    pub kind: String,
    /// JSON.
    #[n(1)]
    pub payload: String,
}

/// Events not yet acknowledged, oldest first, by a key that counts on across restarts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outbox {
    events: BTreeMap<u64, Event>,
    last_key: u64,
    dropped: u64,
}

impl Outbox {
    /// The outbox as it was saved.
    pub fn restore(events: BTreeMap<u64, Event>) -> Self {
        let last_key = events.keys().next_back().copied().unwrap_or(0);
        Self { events, last_key, dropped: 0 }
    }
    /// Takes an event in; returns its key and the keys of those that had to go.
    pub fn push(&mut self, event: Event) -> (u64, Vec<u64>) {
        let mut gone = Vec::new();
        while self.events.len() >= MAX_OUTBOX
            && let Some((k, _)) = self.events.pop_first()
        {
            gone.push(k);
            self.dropped += 1;
        }
        self.last_key += 1;
        self.events.insert(self.last_key, event);
        (self.last_key, gone)
    }
    /// How many were dropped since this was asked last.
    pub fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.dropped)
    }
    /// The key of the newest event, or of the last one there was.
    pub fn last_key(&self) -> u64 {
        self.last_key
    }
    /// The event after `key`.
    pub fn after(&self, key: u64) -> Option<(u64, &Event)> {
        self.events.range(key + 1..).next().map(|(k, e)| (*k, e))
    }
    /// An event was acknowledged; whether it was there.
    pub fn done(&mut self, key: u64) -> bool {
        self.events.remove(&key).is_some()
    }
    /// Count of events that wait.
    pub fn len(&self) -> usize {
        self.events.len()
    }
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// The payload of an event: `boot` and `seq` identify it, `at` and `up_ms` date it, the rest is what happened.
pub fn payload(boot: &str, seq: u64, at: Option<String>, up_ms: u64, rest: Value) -> String {
    let mut all = Map::new();
    if let Value::Object(rest) = rest {
        all.extend(rest);
    }
    all.insert("boot".into(), boot.into());
    all.insert("seq".into(), seq.into());
    all.insert("at".into(), at.into());
    all.insert("up_ms".into(), up_ms.into());
    crate::wire::json(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_are_counted() {
        let mut o = Outbox::default();
        let e = |n: usize| Event { kind: "k".into(), payload: alloc::format!("{n}") };
        for n in 0..MAX_OUTBOX + 3 {
            let (key, gone) = o.push(e(n));
            assert_eq!(key, n as u64 + 1);
            assert_eq!(gone.len(), usize::from(n >= MAX_OUTBOX));
        }
        assert_eq!((o.len(), o.take_dropped(), o.take_dropped()), (MAX_OUTBOX, 3, 0));
        assert_eq!(o.after(0).map(|(k, _)| k), Some(4));
        assert!(o.done(4) && !o.done(4));
        assert_eq!(o.after(4).map(|(k, _)| k), Some(5));
    }
}
