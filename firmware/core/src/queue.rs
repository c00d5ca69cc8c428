//! Entries, current first; every change bumps `revision`.
//!
//! Law: an outage never changes the queue. Only people, the end of a track and a track's own fault do.

use alloc::collections::VecDeque;
use alloc::string::String;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::library::{Digest, Row, TrackId};
use crate::sound::EntryId;

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
        if self.entries.len() >= MAX_ENTRIES {
            return Err(NotAdded::Full);
        }
        if !twice && let Some(e) = self.entries.iter().take(DUPLICATE_WINDOW + 1).find(|e| e.track == row.id) {
            return Err(NotAdded::Duplicate(e.id));
        }
        self.last_id += 1;
        // Every reader of the queue pays for a tag that is a novel.
        let cut = |t: &str| -> String { t.chars().take(MAX_TEXT).collect() };
        let entry = Entry {
            id: EntryId(self.last_id),
            track: row.id,
            record: row.record,
            title: cut(&row.title),
            artist: cut(&row.artist),
            album: cut(&row.album),
            duration_ms: row.duration_ms,
            by: by.into(),
        };
        let id = entry.id;
        match place {
            Where::End => self.entries.push_back(entry),
            Where::Next => self.entries.insert(1.min(self.entries.len()), entry),
        }
        self.revision += 1;
        Ok(id)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let (i, _) = self.find(id)?;
        self.revision += 1;
        self.entries.remove(i)
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

    #[test]
    fn it_is_full_at_200() {
        let mut q = Queue::default();
        for n in 0..200 {
            q.add(&row(n), "", Where::End, false).unwrap();
        }
        assert_eq!(q.add(&row(201), "", Where::End, false), Err(NotAdded::Full));
    }
}
