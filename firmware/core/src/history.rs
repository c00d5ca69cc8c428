//! What was played: the last 200 plays that sounded, for so many days.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use crate::queue::Entry;
use crate::time::{Span, UnixMs};

/// Most plays.
pub const MAX_PLAYS: usize = 200;

/// An entry that sounded and left the head of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Play {
    /// As it was in the queue.
    #[n(0)]
    pub entry: Entry,
    /// When it left, in milliseconds since 1970; none if the clock was not known to be right.
    #[n(1)]
    pub at_ms: Option<u64>,
    /// Where the playhead was then, in milliseconds.
    #[n(2)]
    pub played_ms: u64,
    /// Somebody skipped it.
    #[n(3)]
    pub skipped: bool,
}

/// Plays, oldest first, each with its number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    plays: VecDeque<(u64, Play)>,
    count: u64,
}

impl History {
    /// The history as it was saved: each play with its number.
    pub fn restore(mut plays: Vec<(u64, Play)>) -> Self {
        plays.sort_by_key(|p| p.0);
        let count = plays.last().map_or(0, |p| p.0 + 1);
        plays.drain(..plays.len().saturating_sub(MAX_PLAYS));
        Self { plays: plays.into(), count }
    }
    /// Remembers a play; returns its number. The oldest one beyond [`MAX_PLAYS`] falls out, whose number is the same modulo
    /// that.
    pub fn push(&mut self, play: Play) -> u64 {
        let number = self.count;
        self.count += 1;
        self.plays.push_back((number, play));
        if self.plays.len() > MAX_PLAYS {
            self.plays.pop_front();
        }
        number
    }
    /// The last play, with its number.
    pub fn last(&self) -> Option<&(u64, Play)> {
        self.plays.back()
    }
    /// Takes the last play back.
    pub fn pop(&mut self) -> Option<(u64, Play)> {
        let last = self.plays.pop_back()?;
        self.count = last.0;
        Some(last)
    }
    /// Forgets what is older than `keep`, and all before it; the numbers of what went.
    pub fn expire(&mut self, now: UnixMs, keep: Span) -> Vec<u64> {
        let old = |p: &Play| p.at_ms.is_some_and(|at| now.0.saturating_sub(at) > keep.as_ms());
        let gone = self.plays.iter().rposition(|(_, p)| old(p)).map_or(0, |n| n + 1);
        self.plays.drain(..gone).map(|p| p.0).collect()
    }
    /// Plays, newest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Play> {
        self.plays.iter().rev().map(|(_, p)| p)
    }
    /// Count of plays.
    pub fn len(&self) -> usize {
        self.plays.len()
    }
    /// Whether nothing was played.
    pub fn is_empty(&self) -> bool {
        self.plays.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::{Digest, TrackId};
    use crate::sound::EntryId;
    use alloc::string::String;

    fn play(id: u32, at_ms: Option<u64>) -> Play {
        let (title, artist, album, by) = (String::new(), String::new(), String::new(), String::new());
        let (track, record, duration_ms) = (TrackId([0; 10]), Digest([0; 32]), 0);
        let entry = Entry { id: EntryId(id), track, record, title, artist, album, duration_ms, by, stream: None };
        Play { entry, at_ms, played_ms: 0, skipped: false }
    }

    #[test]
    fn the_oldest_go_by_count_and_by_age() {
        let mut h = History::default();
        for n in 0..MAX_PLAYS as u64 + 5 {
            assert_eq!(h.push(play(n as u32, (n % 2 == 0).then_some(n * 1_000))), n);
        }
        assert_eq!((h.len(), h.iter().next().map(|p| p.entry.id.0)), (MAX_PLAYS, Some(204)));
        assert_eq!(h.pop().map(|p| p.0), Some(204));
        assert_eq!(h.push(play(7, None)), 204, "what was taken back leaves no hole");
        // 100 s old at 150 s: all up to the one at 48 s, those without a date too.
        let gone = h.expire(UnixMs(150_000), Span::s(100));
        assert_eq!(gone, (5..=48).collect::<Vec<_>>());
        assert!(h.expire(UnixMs(150_000), Span::s(100)).is_empty());
        let saved: Vec<_> = h.plays.iter().cloned().rev().collect();
        assert_eq!(History::restore(saved), h);
    }
}
