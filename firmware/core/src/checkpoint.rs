//! What must survive a power cut, and how it is merged back.
//!
//! The store keeps keys and values without knowing what they mean; the core decides both. Keys: `format`, `meta`, `order`
//! (the queue's entry ids), `q` + id (an entry), `c` + number modulo 256 (a command of the window), `h` + number modulo 200
//! (a play of the history), `traffic` (what metered interfaces carried), `e` + key (an event of the outbox); numbers big-endian, values CBOR. Changes are collected and coalesced, and go out together with what
//! depends on them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::budget::Month;
use crate::card::Written;
use crate::command::{Seen, WINDOW, Window};
use crate::event::{Event, Outbox};
use crate::history::{History, MAX_PLAYS, Play};
use crate::library::{TrackId, encode};
use crate::queue::{Entry, Queue};
use crate::sound::EntryId;
use crate::time::{Frames, UnixMs};

/// The form that this version writes and reads.
pub const FORMAT: u32 = 1;

/// One change of the saved state: a key and its new value, or none to delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Vec<u8>,
    /// The new value; none deletes the key.
    pub value: Option<Vec<u8>>,
}

/// What people want of the player.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum Intent {
    /// Planned silence.
    #[n(0)]
    #[default]
    Stopped,
    /// It should sound.
    #[n(1)]
    Playing,
    /// Hold the playhead.
    #[n(2)]
    Paused,
}

/// The small things.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Meta {
    /// What people want.
    #[n(0)]
    pub intent: Intent,
    /// 0 to 100.
    #[n(1)]
    pub volume: u8,
    /// Whether the sound is muted.
    #[n(2)]
    pub muted: bool,
    /// Revision of the queue.
    #[n(3)]
    pub revision: u64,
    /// Last entry id given.
    #[n(4)]
    pub last_id: u32,
    /// The last run ended by itself, in order.
    #[n(5)]
    pub clean_end: bool,
    /// The library that this player knows, and the highest revision of it that was seen.
    #[n(6)]
    pub library: Option<KnownLibrary>,
    /// The entry after which people want it to stop, and who.
    #[n(7)]
    pub stop_after: Option<StopAfter>,
    /// The track that the fallback goes on with.
    #[n(8)]
    pub fallback_next: Option<TrackId>,
    /// Whether it was a time at which an empty queue should not be silent.
    #[n(9)]
    #[cbor(default)]
    pub hours_open: bool,
    /// The latest time that was known: no time before it is believed after a restart.
    #[n(10)]
    pub time: Option<UnixMs>,
    /// What was written to the card.
    #[n(11)]
    #[cbor(default)]
    pub written: Written,
    /// What errors of the sound device have made its period, in milliseconds.
    #[n(12)]
    pub period_ms: Option<u32>,
}

/// Planned silence once an entry has ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StopAfter {
    /// Which.
    #[n(0)]
    pub entry: EntryId,
    /// Who wants it; hearsay.
    #[n(1)]
    pub by: String,
}

/// Which library, and how far it has come: an older root, or another library's, is refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct KnownLibrary {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// Its revision.
    #[n(1)]
    pub revision: u64,
}

/// Where the playhead was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Position {
    /// In which entry.
    #[n(0)]
    pub entry: EntryId,
    /// Frames.
    #[n(1)]
    pub n: u64,
    /// At this rate.
    #[n(2)]
    pub rate: u32,
}

impl Position {
    /// As bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        encode(&self)
    }
    /// The playhead, if it was in this entry.
    pub fn read(bytes: &[u8], current: EntryId) -> Option<Frames> {
        let p: Self = minicbor::decode(bytes).ok()?;
        (p.entry == current && p.rate > 0).then(|| Frames::new(p.n, p.rate))
    }
}

/// What was saved, read back.
#[derive(Debug, Default)]
pub struct Saved {
    /// The small things; none at the first start.
    pub meta: Option<Meta>,
    /// The queue.
    pub queue: Queue,
    /// Commands with an id.
    pub window: Window,
    /// What was played.
    pub history: History,
    /// Events not yet acknowledged.
    pub outbox: Outbox,
    /// What metered interfaces carried.
    pub traffic: Vec<Month>,
    /// Rows that could not be read, by key: told, and left alone.
    pub rejected: Vec<String>,
}

impl Saved {
    /// Reads the rows of the store. A row that cannot be read costs itself, nothing else.
    pub fn load(rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let (mut saved, mut entries, mut order) = (Self::default(), BTreeMap::new(), Vec::new());
        let (mut seen, mut plays, mut events) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (key, value) in rows {
            let ok = match (key.first(), key.as_slice()) {
                (_, b"format") => minicbor::decode::<u32>(&value).is_ok_and(|f| f <= FORMAT),
                (_, b"meta") => minicbor::decode(&value).map(|m| saved.meta = Some(m)).is_ok(),
                (_, b"traffic") => minicbor::decode(&value).map(|t| saved.traffic = t).is_ok(),
                (_, b"order") => minicbor::decode::<Vec<EntryId>>(&value).map(|o| order = o).is_ok(),
                (Some(b'q'), _) => minicbor::decode::<Entry>(&value).map(|e| entries.insert(e.id, e)).is_ok(),
                (Some(b'c'), _) => minicbor::decode(&value).map(|n: Numbered| seen.push((n.number, n.seen))).is_ok(),
                (Some(b'h'), _) => minicbor::decode(&value).map(|p: Played| plays.push((p.number, p.play))).is_ok(),
                (Some(b'e'), _) => match (number(&key), minicbor::decode::<Event>(&value)) {
                    (Some(n), Ok(e)) => events.insert(n, e).is_none(),
                    _ => false,
                },
                _ => false,
            };
            if !ok {
                saved.rejected.push(String::from_utf8_lossy(&key).into_owned());
            }
        }
        let mut line: VecDeque<Entry> = order.iter().filter_map(|id| entries.remove(id)).collect();
        line.extend(entries.into_values());
        let (revision, last_id) = saved.meta.as_ref().map_or((0, 0), |m| (m.revision, m.last_id));
        saved.queue = Queue::restore(line, revision, last_id);
        saved.window = Window::restore(seen);
        saved.history = History::restore(plays);
        saved.outbox = Outbox::restore(events);
        saved
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Numbered {
    #[n(0)]
    number: u64,
    #[n(1)]
    seen: Seen,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Played {
    #[n(0)]
    number: u64,
    #[n(1)]
    play: Play,
}

fn key(kind: u8, n: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(kind);
    key.extend_from_slice(&n.to_be_bytes());
    key
}

fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

/// Changes that are not yet handed to the store. A later change of a key replaces an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Changes(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Changes {
    /// The small things.
    pub fn meta(&mut self, meta: &Meta) {
        self.0.insert(b"format".to_vec(), Some(encode(&FORMAT)));
        self.0.insert(b"meta".to_vec(), Some(encode(meta)));
    }
    /// What metered interfaces carried.
    pub fn traffic(&mut self, months: &[Month]) {
        self.0.insert(b"traffic".to_vec(), Some(encode(&months)));
    }
    /// A new entry.
    pub fn entry(&mut self, entry: &Entry) {
        self.0.insert(key(b'q', entry.id.0.into()), Some(encode(entry)));
    }
    /// An entry that is gone.
    pub fn forget_entry(&mut self, id: EntryId) {
        self.0.insert(key(b'q', id.0.into()), None);
    }
    /// The order of the queue.
    pub fn order(&mut self, queue: &Queue) {
        self.0.insert(b"order".to_vec(), Some(encode(&queue.iter().map(|e| e.id).collect::<Vec<_>>())));
    }
    /// A command of the window.
    pub fn seen(&mut self, number: u64, seen: &Seen) {
        let row = Numbered { number, seen: seen.clone() };
        self.0.insert(key(b'c', number % WINDOW as u64), Some(encode(&row)));
    }
    /// A play of the history.
    pub fn play(&mut self, number: u64, play: &Play) {
        let row = Played { number, play: play.clone() };
        self.0.insert(key(b'h', number % MAX_PLAYS as u64), Some(encode(&row)));
    }
    /// A play that is gone.
    pub fn forget_play(&mut self, number: u64) {
        self.0.insert(key(b'h', number % MAX_PLAYS as u64), None);
    }
    /// An event for the outbox.
    pub fn event(&mut self, n: u64, event: &Event) {
        self.0.insert(key(b'e', n), Some(encode(event)));
    }
    /// An event that was acknowledged, or dropped.
    pub fn forget_event(&mut self, n: u64) {
        self.0.insert(key(b'e', n), None);
    }
    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// All changes, for one transaction.
    pub fn take(&mut self) -> Vec<Change> {
        core::mem::take(&mut self.0).into_iter().map(|(key, value)| Change { key, value }).collect()
    }
}
