//! Entries, current first; every change bumps `revision`.
//!
//! Law: an outage never changes the queue. Only people, the end of a track and a track's own fault do.

use alloc::collections::VecDeque;
use alloc::string::String;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::library::{Digest, Row, TrackId};
use crate::sound::EntryId;
use crate::station;

/// Most entries.
pub const MAX_ENTRIES: usize = 200;
/// Longest title, artist or album of an entry, in characters.
pub const MAX_TEXT: usize = 160;
/// The same track among so many coming entries is a duplicate.
pub const DUPLICATE_WINDOW: usize = 20;

/// A place in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Entry {
    /// Its name for life.
    #[n(0)]
    pub id: EntryId,
    /// Which track.
    #[n(1)]
    pub track: TrackId,
    /// The record it had when it was added, so that it plays on across a republish.
    #[n(2)]
    pub record: Digest,
    /// Title.
    #[n(3)]
    pub title: String,
    /// Artist.
    #[n(4)]
    pub artist: String,
    /// Album.
    #[n(5)]
    pub album: String,
    /// Length in milliseconds.
    #[n(6)]
    pub duration_ms: u64,
    /// Who asked; hearsay.
    #[n(7)]
    pub by: String,
    /// The live stream that it is, if it is no track: the title is the station's name then, and the record means nothing.
    #[n(8)]
    #[serde(default)]
    pub stream: Option<Stream>,
}

impl Entry {
    /// It goes on until somebody ends it.
    pub fn is_endless(&self) -> bool {
        self.stream.as_ref().is_some_and(|s| s.for_s.is_none())
    }
}

/// A live stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Stream {
    /// Where it comes from.
    #[n(0)]
    pub url: String,
    /// It ends after so many seconds; none: when somebody ends it.
    #[n(1)]
    pub for_s: Option<u32>,
}

/// Where a new entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Where {
    /// Behind all others.
    #[default]
    End,
    /// Right after the current one.
    Next,
}

/// Where an entry is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Right after the current one.
    Next,
    /// Behind all others.
    End,
    /// Before this one.
    Before(EntryId),
}

/// Why an entry was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMoved {
    /// There is no such entry.
    Unknown(EntryId),
    /// The current entry stays where it is, and nothing goes before it.
    Current(EntryId),
}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// [`MAX_ENTRIES`].
    Full,
    /// This entry is the same track.
    Duplicate(EntryId),
}

/// The queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    entries: VecDeque<Entry>,
    revision: u64,
    last_id: u32,
}

impl Queue {
    /// A queue as it was saved.
    pub fn restore(entries: VecDeque<Entry>, revision: u64, last_id: u32) -> Self {
        let last_id = entries.iter().map(|e| e.id.0).fold(last_id, u32::max);
        Self { entries, revision, last_id }
    }

    /// The entry that plays or would.
    pub fn current(&self) -> Option<&Entry> {
        self.entries.front()
    }
    /// Entries in order, current first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> + DoubleEndedIterator {
        self.entries.iter()
    }
    /// Count of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Counts every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// Last id given.
    pub fn last_id(&self) -> u32 {
        self.last_id
    }
    /// The entry of that id and its place, 0 for the current one.
    pub fn find(&self, id: EntryId) -> Option<(usize, &Entry)> {
        self.entries.iter().enumerate().find(|(_, e)| e.id == id)
    }
    /// The entry after `id`.
    pub fn after(&self, id: EntryId) -> Option<&Entry> {
        self.find(id).and_then(|(i, _)| self.entries.get(i + 1))
    }
    /// Length of all, in milliseconds.
    pub fn total_ms(&self) -> u64 {
        self.entries.iter().map(|e| e.duration_ms).sum()
    }

    /// Adds a track; `twice` allows a duplicate.
    pub fn add(&mut self, row: &Row, by: &str, place: Where, twice: bool) -> Result<EntryId, NotAdded> {
        let entry = Entry {
            id: EntryId(0),
            track: row.id,
            record: row.record,
            title: cut(&row.title),
            artist: cut(&row.artist),
            album: cut(&row.album),
            duration_ms: row.duration_ms,
            by: by.into(),
            stream: None,
        };
        self.insert(entry, place, twice)
    }

    /// Adds a live stream, which goes by `name` until it says its own.
    pub fn add_stream(
        &mut self,
        stream: Stream,
        name: &str,
        by: &str,
        place: Where,
        twice: bool,
    ) -> Result<EntryId, NotAdded> {
        let entry = Entry {
            id: EntryId(0),
            track: station::track(&stream.url),
            record: Digest([0; 32]),
            title: cut(name),
            artist: String::new(),
            album: String::new(),
            duration_ms: u64::from(stream.for_s.unwrap_or(0)) * 1_000,
            by: by.into(),
            stream: Some(stream),
        };
        self.insert(entry, place, twice)
    }

    /// A stream has said its name; the entry, if that is news.
    pub fn name(&mut self, id: EntryId, name: &str) -> Option<&Entry> {
        let name = cut(name);
        let entry = self.entries.iter_mut().find(|e| e.id == id && e.title != name)?;
        entry.title = name;
        self.revision += 1;
        Some(entry)
    }

    fn insert(&mut self, entry: Entry, place: Where, twice: bool) -> Result<EntryId, NotAdded> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err(NotAdded::Full);
        }
        if !twice && let Some(e) = self.entries.iter().take(DUPLICATE_WINDOW + 1).find(|e| e.track == entry.track) {
            return Err(NotAdded::Duplicate(e.id));
        }
        self.last_id += 1;
        let id = EntryId(self.last_id);
        let entry = Entry { id, ..entry };
        match place {
            Where::End => self.entries.push_back(entry),
            Where::Next => self.entries.insert(1.min(self.entries.len()), entry),
        }
        self.revision += 1;
        Ok(id)
    }

    /// Gives an entry another place, and says which: 1 is right after the current one.
    pub fn shift(&mut self, id: EntryId, place: Place) -> Result<usize, NotMoved> {
        let at = |id| match self.find(id) {
            Some((0, _)) => Err(NotMoved::Current(id)),
            Some((i, _)) => Ok(i),
            None => Err(NotMoved::Unknown(id)),
        };
        let from = at(id)?;
        let to = match place {
            Place::Next => 1,
            Place::End => self.entries.len() - 1,
            // It has left its own place when the other is counted.
            Place::Before(other) => at(other).map(|i| if i > from { i - 1 } else { i })?,
        };
        if to != from
            && let Some(entry) = self.entries.remove(from)
        {
            self.entries.insert(to, entry);
            self.revision += 1;
        }
        Ok(to)
    }

    /// Puts an entry before all others, under a new id.
    pub fn put_first(&mut self, entry: Entry) -> Result<EntryId, NotAdded> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err(NotAdded::Full);
        }
        self.last_id += 1;
        let id = EntryId(self.last_id);
        self.entries.push_front(Entry { id, ..entry });
        self.revision += 1;
        Ok(id)
    }

    /// Puts the current entry behind all others, under a new id: the old one and the new.
    pub fn turn(&mut self) -> Option<(EntryId, EntryId)> {
        let mut entry = self.entries.pop_front()?;
        self.last_id += 1;
        let ids = (entry.id, EntryId(self.last_id));
        entry.id = ids.1;
        self.entries.push_back(entry);
        self.revision += 1;
        Some(ids)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let (i, _) = self.find(id)?;
        self.revision += 1;
        self.entries.remove(i)
    }
}

/// Every reader of the queue pays for a tag that is a novel.
fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// Puts things into an order that only the seed decides (Fisher and Yates; numbers by splitmix64 of Steele and others,
/// "Fast splittable pseudorandom number generators", 2014).
pub fn shuffle<T>(things: &mut [T], seed: u64) {
    let mut state = seed;
    for n in (1..things.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // Of 64 bits: what the remainder prefers cannot be heard.
        things.swap(n, (z % (n as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u8) -> Row {
        let (id, record) = (TrackId([n; 10]), Digest([n; 32]));
        let (title, artist, album) = ("t".into(), "a".into(), String::new());
        Row { id, title, artist, album, year: 0, duration_ms: 1_000, popularity: 0, record }
    }

    #[test]
    fn order_ids_and_revision() {
        let mut q = Queue::default();
        let a = q.add(&row(1), "x", Where::End, false).unwrap();
        let b = q.add(&row(2), "x", Where::End, false).unwrap();
        let c = q.add(&row(3), "x", Where::Next, false).unwrap();
        assert!(q.iter().map(|e| e.id).eq([a, c, b]));
        assert_eq!(q.add(&row(3), "x", Where::End, false), Err(NotAdded::Duplicate(c)));
        assert!(q.add(&row(3), "x", Where::End, true).is_ok());
        assert_eq!(q.revision(), 4);
        assert_eq!(q.remove(a).map(|e| e.id), Some(a));
        assert_eq!(q.current().map(|e| e.id), Some(c));
        assert!(q.remove(a).is_none());
        assert_eq!(q.revision(), 5, "what changes nothing bumps nothing");
        let d = Queue::restore(q.entries.clone(), q.revision(), 0).add(&row(9), "x", Where::End, false).unwrap();
        assert!(d.0 > c.0 && d.0 > b.0, "an id is never used again");
    }

    /// A checkpoint of this version is read by the next, and one of the last by this.
    #[test]
    fn the_form_of_a_saved_entry_is_frozen() {
        let mut q = Queue::default();
        let stream = Stream { url: "http://h/x".into(), for_s: Some(60) };
        let id = q.add_stream(stream, "h/x", "me", Where::End, false).unwrap();
        let entry = q.find(id).unwrap().1.clone();
        let bytes = crate::library::encode(&entry);
        let tail = b"\x06\x19\xea\x60\x07\x62me\x08\xa2\x00\x6ahttp://h/x\x01\x18\x3c";
        assert!(bytes[0] == 0xa9 && bytes.ends_with(tail), "{bytes:02x?}");
        assert_eq!(minicbor::decode::<Entry>(&bytes).unwrap(), entry);
        let track = Entry { stream: None, record: Digest([1; 32]), ..entry };
        let bytes = crate::library::encode(&track);
        assert_eq!(bytes[0], 0xa8, "a track is saved as it always was");
        assert_eq!(minicbor::decode::<Entry>(&bytes).unwrap(), track);
    }

    #[test]
    fn entries_move_and_the_current_one_stays() {
        let mut q = Queue::default();
        let id: alloc::vec::Vec<_> = (0..5).map(|n| q.add(&row(n), "x", Where::End, false).unwrap()).collect();
        let order = |q: &Queue| q.iter().map(|e| e.id.0).collect::<alloc::vec::Vec<_>>();
        assert_eq!(q.shift(id[3], Place::Next), Ok(1));
        assert_eq!(order(&q), [1, 4, 2, 3, 5]);
        assert_eq!(q.shift(id[3], Place::Before(id[4])), Ok(3));
        assert_eq!(order(&q), [1, 2, 3, 4, 5]);
        assert_eq!(q.shift(id[4], Place::Before(id[1])), Ok(1));
        assert_eq!(q.shift(id[4], Place::End), Ok(4));
        assert_eq!(order(&q), [1, 2, 3, 4, 5]);
        let rev = q.revision();
        assert_eq!(q.shift(id[4], Place::End), Ok(4));
        assert_eq!(q.shift(id[2], Place::Before(id[2])), Ok(2));
        assert_eq!(q.shift(id[0], Place::End), Err(NotMoved::Current(id[0])));
        assert_eq!(q.shift(id[2], Place::Before(id[0])), Err(NotMoved::Current(id[0])));
        assert_eq!(q.shift(EntryId(9), Place::Next), Err(NotMoved::Unknown(EntryId(9))));
        assert_eq!((order(&q), q.revision()), (alloc::vec![1, 2, 3, 4, 5], rev), "what changes nothing bumps nothing");
        let back = q.remove(id[0]).unwrap();
        assert_eq!(q.put_first(back), Ok(EntryId(6)), "an id is never used again");
        assert_eq!(order(&q), [6, 2, 3, 4, 5]);
    }

    #[test]
    fn a_seed_is_an_order() {
        let order = |seed| {
            let mut all: alloc::vec::Vec<u8> = (0..40).collect();
            shuffle(&mut all, seed);
            all
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        let mut sorted = order(7);
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..40) && sorted != order(7));
        // Every place is taken by everybody, about equally often.
        let first = (0..4_000).filter(|&seed| order(seed)[0] == 0).count();
        assert!((60..=140).contains(&first), "{first} of 4,000 by 40");
    }

    #[test]
    fn it_is_full_at_200() {
        let mut q = Queue::default();
        for n in 0..200 {
            q.add(&row(n), "", Where::End, false).unwrap();
        }
        assert_eq!(q.add(&row(201), "", Where::End, false), Err(NotAdded::Full));
    }
}
