//! What the planner wants brought on board, and what it is for.

use alloc::vec::Vec;

use crate::library::Digest;
use crate::reason::Reason;
use crate::time::Span;

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
