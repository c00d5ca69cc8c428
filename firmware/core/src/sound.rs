//! What playback asks of the audio threads, and what they report: plain data.
//!
//! *Piece*: one segment to be decoded after the piece before it. *Generation*: a number that every flush raises; pieces and
//! reports of an older generation are void. *Heard*: what has left the DAC, counted from frames, never from intentions.

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::library::{Digest, Gain, Rendition, SegmentRef};
use crate::time::{Frames, Span};

/// Names an entry of the queue for its whole life; never used again.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    minicbor::Encode,
    minicbor::Decode,
)]
#[cbor(transparent)]
pub struct EntryId(#[n(0)] pub u32);

/// One segment to be decoded after the piece before it. Of one entry, the next piece may be of another rendition: its
/// segment is the one of the same number, and the two are cross-faded at that border.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Counts up over the life of the process.
    pub seq: u64,
    /// Which flush it comes after.
    pub generation: u32,
    /// What it is played for.
    pub entry: EntryId,
    /// Decoder parameters, delay and length.
    pub rendition: Arc<Rendition>,
    /// The segment; its bytes are in the store under `segment.digest`.
    pub segment: SegmentRef,
    /// First audible frame wanted, at the rendition's rate: frames before it are decoded and thrown away. At or before the
    /// body's first frame it changes nothing.
    pub from: u64,
    /// Gain of the track.
    pub gain: Gain,
    /// Rate of the track's original: for `rate = "follow"`, and at which positions are told.
    pub original_rate: u32,
    /// The rendition ends with this piece.
    pub last: bool,
    /// Of an entry's first piece: its first frame sounds so long before the last one of the entry before, cross-faded. That
    /// entry's own pieces follow it, mixed with this entry's in the order in which they sound, and keep to their renditions.
    pub overlap: Span,
}

/// A live stream to be played: an entry that has no end of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LivePiece {
    /// Counts with those of the pieces. Reported as decoded once it plays.
    pub seq: u64,
    /// Which flush it comes after.
    pub generation: u32,
    /// What it is played for: the entry whose station is tuned in.
    pub entry: EntryId,
    /// How long it has been on, at which positions go on counting.
    pub at: Span,
}

/// What playback asks of the audio threads.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Decode this after all pieces before it, but for [`Piece::overlap`]. At most [`PIECES_AHEAD`] are given that are not yet decoded.
    Play(Piece),
    /// Play the station that is tuned in, after all pieces before it, from its edge on until a flush.
    Live(LivePiece),
    /// Forget every piece and every frame not yet heard: fade out, drop the ring, fade in what comes next over 5 ms.
    /// The drop waits (at most 200 ms) for the first frames of the new generation if `more` comes, so that nothing is lost.
    Flush {
        /// The generation of what comes next.
        generation: u32,
        /// Whether pieces follow at once.
        more: bool,
        /// How long the fade of the old sound takes, in milliseconds: at least 5, and no longer than what is in the ring.
        fade_ms: u32,
    },
    /// Forget pieces that were given after `seq` and are not yet in the ring.
    Forget {
        /// Last piece to keep.
        seq: u64,
    },
    /// Ramp down over 10 ms and hold the playhead, or go on.
    Pause(bool),
    /// Volume as a factor, reached over a ramp.
    Volume {
        /// 0 (silence) to 1.
        factor: f32,
        /// At least 10.
        ramp_ms: u32,
    },
    /// Close the PCM once what is in the ring was heard; the next piece opens it again.
    Close,
}

/// Pieces that may be at the decoder and not yet in the ring.
pub const PIECES_AHEAD: usize = 4;

/// Where the sound is, from frames that left the DAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heard {
    /// Generation of what is heard; of the last thing heard if the ring is empty.
    pub generation: u32,
    /// Entry that is heard.
    pub entry: EntryId,
    /// Playhead: audible frames that have left the DAC, counted by the clock of the track's original, whatever rendition plays.
    pub at: Frames,
    /// Whether the rendition's last frame has left the DAC and nothing followed.
    pub ended: bool,
    /// Frames of music that have left the DAC since the process started, at any rate: what "playing" is made of.
    pub music_frames: u64,
    /// Frames that were due and not in the ring (our fault), since the process started.
    pub underrun_frames: u64,
    /// Errors of the device, since the process started.
    pub xruns: u32,
    /// Music in the ring and the device, in milliseconds.
    pub ring_ms: u32,
    /// What has come of the station that is tuned in and is not decoded yet, in milliseconds.
    #[serde(default)]
    pub live_ms: u32,
}

/// What the audio threads report by themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// A piece is in the ring, to its last frame.
    Decoded {
        /// Which.
        seq: u64,
    },
    /// A segment in the store is missing or has another digest (torn by a power cut): fetch it again. The piece was dropped,
    /// and so is all that follows it in its generation, until that is forgotten ([`Order::Forget`]) or flushed.
    Torn {
        /// Which.
        seq: u64,
        /// Its generation.
        generation: u32,
        /// Its entry.
        entry: EntryId,
        /// Its segment.
        digest: Digest,
    },
    /// The digest is right and yet nothing of it can be decoded: the rendition's fault. The piece was dropped likewise.
    Undecodable {
        /// Which.
        seq: u64,
        /// Its generation.
        generation: u32,
        /// Its entry.
        entry: EntryId,
        /// Its segment; none for a station.
        digest: Option<Digest>,
        /// What the decoder said.
        why: Arc<str>,
    },
    /// The sound device.
    Output(OutputState),
}

/// The sound device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputState {
    /// Open and asking for frames.
    Open {
        /// Its name, as configured.
        name: Arc<str>,
        /// Frames a second.
        rate: u32,
        /// How often it asks for frames, in milliseconds.
        period_ms: u32,
    },
    /// Closed on purpose.
    Closed,
    /// None of the configured outputs is there, or it stopped asking for frames. It is tried again every second.
    Missing {
        /// What the system said, for the log.
        why: Arc<str>,
    },
}
