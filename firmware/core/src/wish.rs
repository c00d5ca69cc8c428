//! What the planner is asked: the lines that it walks, how things stand; and what it wants brought on board.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::budget::Thrift;
use crate::library::{Digest, Rendition, SegmentRef};
use crate::reason::Reason;
use crate::sound::EntryId;
use crate::time::{Frames, Span};

/// Something to be brought on board: `length` bytes at `offset` of `object` whose digest is `digest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Names the wish in the answer.
    pub id: u64,
    /// Object of the library.
    pub object: Digest,
    /// Part of it: offset and length in bytes; none is the whole object.
    pub range: Option<(u64, u32)>,
    /// Digest of the bytes.
    pub digest: Digest,
    /// After this it is given up.
    pub deadline: Span,
    /// Whether the answer should hold the bytes (records and index pages), or they just go into the store (segments).
    pub read: bool,
    /// What it is for: that decides what goes where there is no room for it.
    pub keep: Keep,
}

/// What an object in the store is for, and so how long it stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Keep {
    /// The record of the track that it belongs to.
    pub track: Option<Digest>,
    /// Which of the track's objects go first.
    pub tier: Tier,
}

/// Of two objects of a track the one of the later tier goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Tier {
    /// What is missing for the sound of this moment.
    Now,
    /// Record, index, and the smallest rendition: without these nothing sounds.
    Small,
    /// A rendition between the smallest and the original; what is no track's.
    #[default]
    Middle,
    /// The original, where there is a smaller one beside it.
    Original,
}

/// The answer to a wish: the bytes if it was to be read.
pub type Arrival = Result<Option<Vec<u8>>, Reason>;

/// An entry of the line that the planner walks: which, its record, and from where it is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// The entry.
    pub entry: EntryId,
    /// Its record.
    pub record: Digest,
    /// First frame wanted.
    pub from: Frames,
    /// Length, as the catalogue has it.
    pub length: Span,
    /// Slots that are with the decoder already: another rendition of them comes too late.
    pub fed: usize,
}

impl Ahead {
    /// What is left to play of it.
    pub(crate) fn left(&self) -> Span {
        Span(self.length.0.saturating_sub(self.from.span().0))
    }
}

/// A segment that is on board.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The segment.
    pub segment: SegmentRef,
    /// Its rendition.
    pub rendition: Arc<Rendition>,
    /// Whether it is the last.
    pub last: bool,
}

/// How things stand around the planner when it is asked for a wish.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// How much music should be on board.
    pub ahead: Span,
    /// Nothing sounds although it should: hurry, and one thing at a time.
    pub silent: bool,
    /// Transfer rate to count on, in kbit/s.
    pub kbps: Option<u32>,
    /// Transfer rate to hope for when sound is waited for, in kbit/s.
    pub hopeful_kbps: Option<u32>,
    /// Transfer rate that a start may count on, in kbit/s.
    pub sure_kbps: Option<u32>,
    /// How far the link is to be spared.
    pub thrift: Thrift,
    /// The card is full, or has taken enough today: only what will be needed.
    pub spare_card: bool,
    /// Nothing passes the link.
    pub down: bool,
    /// Nothing stands in for what waits: begin with what is here.
    pub eager: bool,
    /// The fallback sounds, or should.
    pub standing_in: bool,
    /// Another number when the playhead has moved on.
    pub pace: u64,
    /// Another number when the line is another one.
    pub revision: u64,
}

/// What may be taken on beside what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    /// Anything.
    Free,
    /// What is small and needed before long.
    Few,
    /// What is to sound now.
    Full,
}
