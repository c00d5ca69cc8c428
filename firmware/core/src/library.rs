//! Root, catalogue pages, records, renditions, index: sizes, first frames, digests. Parse, don't validate.
//!
//! The root is JSON, the one object that changes. All else is immutable and named by the SHA-256 of its stored bytes;
//! catalogue pages (inside zstd), records and index pages are CBOR maps with integer keys (`firmware/docs/library.cddl`).
//! Readers ignore keys that they do not know: a library can grow.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE, Encoding, HEXLOWER};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// The `format` that this version writes and reads.
pub const FORMAT: u32 = 1;
/// Name of the root within the library.
pub const ROOT: &str = "library.json";
/// Segments in a full index page.
pub const SEGMENTS_PER_PAGE: usize = 128;
/// Longest root, page, record or index page that a reader accepts, in bytes (pages: before and after zstd).
pub const MAX_OBJECT: usize = 4 << 20;
/// Longest segment that a reader accepts, in bytes (4 s of 192 kHz 24-bit stereo that does not compress, and some).
pub const MAX_SEGMENT: usize = 16 << 20;

/// SHA-256 of an object's stored bytes: its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Digest(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl Digest {
    /// Digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
    /// Where the object lies within the library: `o/ab/ab12...`.
    pub fn path(&self) -> String {
        let hex = HEXLOWER.encode(&self.0);
        alloc::format!("o/{}/{hex}", &hex[..2])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NotAnId;
    fn from_str(s: &str) -> Result<Self, NotAnId> {
        fixed(&HEXLOWER, s).map(Self).ok_or(NotAnId("a digest is 64 lower-case hex digits"))
    }
}

/// What a track is called for ever: the first 80 bits of SHA-256 over its sound, 16 characters of lower-case base32
/// (RFC 4648, section 6; 80 bits need no padding).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct TrackId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 10]);

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TrackId {
    type Err = NotAnId;
    fn from_str(s: &str) -> Result<Self, NotAnId> {
        fixed(&BASE32_NOPAD_NOCASE, s).map(Self).ok_or(NotAnId("a track id is 16 characters of a to z and 2 to 7"))
    }
}

/// Not a digest or a track id; says what one looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAnId(pub &'static str);

fn fixed<const N: usize>(encoding: &Encoding, s: &str) -> Option<[u8; N]> {
    encoding.decode(s.as_bytes()).ok()?.try_into().ok()
}

macro_rules! as_text {
    ($($t:ty),*) => {$(
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
as_text!(Digest, TrackId);

/// Why bytes are not what they should be. The text names the field and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not JSON, not CBOR, or not of this shape.
    #[error("{0}")]
    Shape(String),
    /// Written by a later version of publish.
    #[error("format {found}; this version reads format {FORMAT}: update the player")]
    Newer {
        /// The `format` that was found.
        found: u32,
    },
    /// A value that cannot be.
    #[error("{field}: {why}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The root, `library.json`: the one object that changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// [`FORMAT`].
    pub format: u32,
    /// Which library this is: 128 random bits, 32 hex digits.
    pub library: String,
    /// Counts up with every publish that changed something. A player refuses a lower one.
    pub revision: u64,
    /// When it was written, RFC 3339.
    pub written: String,
    /// The root before this one, as an object.
    pub previous: Option<Digest>,
    /// Catalogue pages in order; with `depth` 1 each names an object that is a [`PageList`].
    pub pages: Vec<PageRef>,
    /// 0: `pages` are catalogue pages. 1: they are lists of catalogue pages (above 2,000 pages).
    #[serde(default)]
    pub depth: u32,
    /// Saved lists of tracks.
    pub playlists: Vec<PlaylistRef>,
    /// Signatures of the root; none yet.
    #[serde(default)]
    pub signatures: Vec<serde_json::Value>,
}

/// A catalogue page as the root names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct PageRef {
    /// The page.
    #[n(0)]
    pub object: Digest,
    /// Its stored size, in bytes.
    #[n(1)]
    pub size: u32,
    /// Its rows.
    #[n(2)]
    pub rows: u32,
}

/// Pages of pages, CBOR.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct PageList {
    /// Catalogue pages in order.
    #[n(0)]
    pub pages: Vec<PageRef>,
}

/// A playlist as the root names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaylistRef {
    /// What commands and configurations call it, at most [`MAX_PLAYLIST_ID`] bytes: see [`playlist_id`]. No two are equal.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// A [`Playlist`].
    pub object: Digest,
    /// Its stored size, in bytes.
    pub size: u32,
    /// Its tracks.
    pub tracks: u32,
}

/// Longest [`playlist_id`], in bytes.
pub const MAX_PLAYLIST_ID: usize = 64;

/// The id of the playlist that lies at `path` within the music folder, which is without its ending: `Bars/Friday night!` is
/// `bars-friday-night`. Letters and digits of any script stay, in lower case; a run of all else is a hyphen. It hangs on
/// the path alone, so that no other playlist changes it.
pub fn playlist_id(path: &str) -> String {
    let mut id = String::new();
    for c in path.chars().flat_map(char::to_lowercase) {
        if id.len() + c.len_utf8() > MAX_PLAYLIST_ID {
            break;
        }
        if c.is_alphanumeric() {
            id.push(c);
        } else if !id.is_empty() && !id.ends_with('-') {
            id.push('-');
        }
    }
    id.truncate(id.trim_end_matches('-').len());
    id
}

/// A saved list of tracks, CBOR.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Playlist {
    /// Tracks in order, with the records they had when it was published.
    #[n(0)]
    pub tracks: Vec<PlaylistTrack>,
}

/// A line of a playlist.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct PlaylistTrack {
    /// Which track.
    #[n(0)]
    pub id: TrackId,
    /// Its record.
    #[n(1)]
    pub record: Digest,
}

/// A catalogue page, CBOR within zstd: rows sorted by artist, album, disc, number, id.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct CataloguePage {
    /// The rows.
    #[n(0)]
    pub rows: Vec<Row>,
}

/// What search needs of a track.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Row {
    /// Which track.
    #[n(0)]
    pub id: TrackId,
    /// Title; the file's name where there is no tag.
    #[n(1)]
    pub title: String,
    /// Artist; may be empty.
    #[n(2)]
    pub artist: String,
    /// Album; may be empty.
    #[n(3)]
    pub album: String,
    /// Year of the recording; 0 if not known.
    #[n(4)]
    pub year: u16,
    /// Length in milliseconds.
    #[n(5)]
    pub duration_ms: u64,
    /// Greater is more popular; 0 if not known.
    #[n(6)]
    pub popularity: u32,
    /// Its record.
    #[n(7)]
    pub record: Digest,
}

/// What is known of a track, CBOR.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Record {
    /// [`FORMAT`].
    #[n(0)]
    pub format: u32,
    /// Which track.
    #[n(1)]
    pub id: TrackId,
    /// Title; the file's name where there is no tag.
    #[n(2)]
    pub title: String,
    /// Artist; may be empty.
    #[n(3)]
    pub artist: String,
    /// Album; may be empty.
    #[n(4)]
    pub album: String,
    /// Artist of the album; may be empty.
    #[n(5)]
    pub album_artist: String,
    /// Year of the recording; 0 if not known.
    #[n(6)]
    pub year: u16,
    /// Disc number; 0 if not known.
    #[n(7)]
    pub disc: u16,
    /// Number on the disc; 0 if not known.
    #[n(8)]
    pub number: u16,
    /// Length of the original in milliseconds.
    #[n(9)]
    pub duration_ms: u64,
    /// Integrated loudness, LUFS (EBU R 128; ITU-R BS.1770). Negative infinity never: silence is -70.
    #[n(10)]
    pub loudness: f32,
    /// What neighbours of one album share; none for a lone track.
    #[n(11)]
    pub album_gain: Option<AlbumGain>,
    /// The cover: a JPEG of at most 240 by 240 pixels and 20 kB.
    #[n(12)]
    pub cover: Option<Digest>,
    /// The encodings, `original` first.
    #[n(13)]
    pub renditions: Vec<Rendition>,
}

/// Loudness of a whole album.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct AlbumGain {
    /// Which album: digest of album artist, album and folder, cut to 64 bits.
    #[n(0)]
    pub album: u64,
    /// Integrated loudness of all its tracks, LUFS.
    #[n(1)]
    pub loudness: f32,
    /// Highest true peak of any rendition of its tracks, dBTP.
    #[n(2)]
    pub true_peak: f32,
}

/// Which encoding of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum RenditionName {
    /// The file's own packets, or FLAC.
    #[n(0)]
    #[serde(rename = "original")]
    Original,
    /// Opus at 96 kbit/s.
    #[n(1)]
    #[serde(rename = "opus-96")]
    Opus96,
    /// Opus at 32 kbit/s.
    #[n(2)]
    #[serde(rename = "opus-32")]
    Opus32,
}

impl RenditionName {
    /// As it is written in configurations and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Opus96 => "opus-96",
            Self::Opus32 => "opus-32",
        }
    }
}

/// One encoding of a recording: one object, its segments one after the other.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Rendition {
    /// Which.
    #[n(0)]
    pub name: RenditionName,
    /// Its decoder's parameters.
    #[n(1)]
    pub init: Init,
    /// Decoded frames before the first that is heard (encoder delay, pre-skip).
    #[n(2)]
    pub delay: u64,
    /// Frames that are heard, at the init's rate.
    #[n(3)]
    pub frames: u64,
    /// True peak, dBTP (ITU-R BS.1770-4, annex 2).
    #[n(4)]
    pub true_peak: f32,
    /// Size of the object, in bytes.
    #[n(5)]
    pub size: u64,
    /// The object.
    #[n(6)]
    pub object: Digest,
    /// Its index pages in order: all but the last hold [`SEGMENTS_PER_PAGE`] segments.
    #[n(7)]
    pub index: Vec<IndexRef>,
}

/// An index page as the record names it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct IndexRef {
    /// The page.
    #[n(0)]
    pub object: Digest,
    /// Where its first segment begins in the rendition's object, in bytes.
    #[n(1)]
    pub offset: u64,
    /// First decoded frame of its first segment's body.
    #[n(2)]
    pub first_frame: u64,
}

/// A codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Free Lossless Audio Codec (RFC 9639).
    #[n(1)]
    Flac,
    /// MPEG-1/2 layer III.
    #[n(2)]
    Mp3,
    /// Vorbis I.
    #[n(3)]
    Vorbis,
    /// Opus (RFC 6716).
    #[n(4)]
    Opus,
    /// AAC low complexity.
    #[n(5)]
    Aac,
}

/// A decoder's parameters, everything that a container would have told it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Init {
    /// The codec.
    #[n(0)]
    pub codec: Codec,
    /// Frames a second.
    #[n(1)]
    pub rate: u32,
    /// 1 or 2.
    #[n(2)]
    pub channels: u8,
    /// Bits of a decoded sample if it is an integer, else 0 (the decoder's output is float).
    #[n(3)]
    pub bits: u8,
    /// Bits of a coded sample, 0 if the codec does not say.
    #[n(4)]
    pub coded_bits: u8,
    /// Longest packet, in frames.
    #[n(5)]
    pub longest_packet: u32,
    /// The codec's own header (FLAC: STREAMINFO; Opus: OpusHead with pre-skip 0).
    #[cbor(n(6), with = "minicbor::bytes")]
    #[serde(serialize_with = "as_hex")]
    pub extra: Vec<u8>,
}

impl Init {
    /// Gain in decibels that an OpusHead asks for, beyond what the decoder gives (RFC 7845, section 5.1: Q7.8); else 0.
    pub fn output_gain_db(&self) -> f32 {
        match (self.codec, self.extra.get(16..18)) {
            (Codec::Opus, Some(&[low, high])) => f32::from(i16::from_le_bytes([low, high])) / 256.0,
            _ => 0.0,
        }
    }
}

fn as_hex<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&HEXLOWER.encode(bytes))
}

/// The segments of a part of a rendition, CBOR.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IndexPage {
    /// `44 * n` bytes: stored length (u32), first decoded frame of the body (u64), both big-endian, SHA-256 of the
    /// stored bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    packed: Vec<u8>,
}

/// A segment as the index names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentRef {
    /// Stored length, in bytes.
    pub length: u32,
    /// First decoded frame of the body.
    pub first_frame: u64,
    /// SHA-256 of the stored bytes.
    pub digest: Digest,
}

const PACKED: usize = 44;

impl SegmentRef {
    fn unpack(packed: &[u8; PACKED]) -> Self {
        let (length, rest) = packed.split_at(4);
        let (first_frame, digest) = rest.split_at(8);
        Self {
            length: length.try_into().map_or(0, u32::from_be_bytes),
            first_frame: first_frame.try_into().map_or(0, u64::from_be_bytes),
            digest: Digest(digest.try_into().unwrap_or_default()),
        }
    }
}

impl IndexPage {
    /// Packs up to [`SEGMENTS_PER_PAGE`] segments.
    pub fn new(segments: &[SegmentRef]) -> Self {
        let mut packed = Vec::with_capacity(segments.len() * PACKED);
        for s in segments.iter().take(SEGMENTS_PER_PAGE) {
            packed.extend_from_slice(&s.length.to_be_bytes());
            packed.extend_from_slice(&s.first_frame.to_be_bytes());
            packed.extend_from_slice(&s.digest.0);
        }
        Self { packed }
    }

    /// How many segments it names.
    pub fn len(&self) -> usize {
        self.packed.len() / PACKED
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The segments in order.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = SegmentRef> + '_ {
        self.packed.as_chunks::<PACKED>().0.iter().map(SegmentRef::unpack)
    }

    /// Segment `k` of the page.
    pub fn segment(&self, k: usize) -> Option<SegmentRef> {
        self.packed.as_chunks::<PACKED>().0.get(k).map(SegmentRef::unpack)
    }
}

/// CBOR of an object.
pub fn encode<T: Encode<()>>(object: &T) -> Vec<u8> {
    // Writing to a vector cannot fail.
    minicbor::to_vec(object).unwrap_or_default()
}

fn cbor<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, FormatError> {
    if bytes.len() > MAX_OBJECT {
        return Err(FormatError::Value { field: "object", why: "longer than 4 MiB" });
    }
    minicbor::decode(bytes).map_err(|e| FormatError::Shape(alloc::format!("{e}")))
}

fn check(ok: bool, field: &'static str, why: &'static str) -> Result<(), FormatError> {
    if ok { Ok(()) } else { Err(FormatError::Value { field, why }) }
}

impl Root {
    /// Reads a root.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        /// Read first, so that a newer root is told from a broken one.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let shape = |e: serde_json::Error| FormatError::Shape(alloc::format!("{e}"));
        check(bytes.len() <= MAX_OBJECT, "library.json", "longer than 4 MiB")?;
        let Version { format } = serde_json::from_slice(bytes).map_err(shape)?;
        if format > FORMAT {
            return Err(FormatError::Newer { found: format });
        }
        let root: Self = serde_json::from_slice(bytes).map_err(shape)?;
        check(root.library.len() == 32, "library", "should be 32 hex digits")?;
        check(root.depth <= 1, "depth", "should be 0 or 1")?;
        let named = |p: &PlaylistRef| (1..=MAX_PLAYLIST_ID).contains(&p.id.len());
        check(root.playlists.iter().all(named), "playlists", "an id should be 1 to 64 bytes long")?;
        Ok(root)
    }

    /// As it is stored: indented JSON with a final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

impl PageList {
    /// Reads a list of pages.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        cbor(bytes)
    }
}

impl Playlist {
    /// Reads a playlist.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        cbor(bytes)
    }
}

impl CataloguePage {
    /// Reads a page, already out of zstd.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        cbor(bytes)
    }
}

impl IndexPage {
    /// Reads an index page. Lengths and first frames are checked, so that readers need not.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let page: Self = cbor(bytes)?;
        check(page.packed.len().is_multiple_of(PACKED), "index", "not a whole number of segments")?;
        check((1..=SEGMENTS_PER_PAGE).contains(&page.len()), "index", "should hold 1 to 128 segments")?;
        let mut last = None;
        for s in page.segments() {
            check(
                (1..=MAX_SEGMENT as u32).contains(&s.length),
                "index",
                "a segment of 0 bytes or of more than 16 MiB",
            )?;
            check(last.is_none_or(|f| f < s.first_frame), "index", "first frames do not rise")?;
            last = Some(s.first_frame);
        }
        Ok(page)
    }
}

impl Record {
    /// Reads a record.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let record: Self = cbor(bytes)?;
        if record.format > FORMAT {
            return Err(FormatError::Newer { found: record.format });
        }
        check(!record.renditions.is_empty(), "renditions", "none")?;
        check(record.loudness.is_finite(), "loudness", "not a number")?;
        let album = record.album_gain.as_ref();
        check(album.is_none_or(|a| a.loudness.is_finite() && a.true_peak.is_finite()), "album_gain", "not a number")?;
        for r in &record.renditions {
            let i = &r.init;
            check((8_000..=384_000).contains(&i.rate), "rate", "should be 8,000 to 384,000")?;
            check((1..=2).contains(&i.channels), "channels", "should be 1 or 2")?;
            check((1..=1 << 16).contains(&i.longest_packet), "longest_packet", "should be 1 to 65,536 frames")?;
            check(r.true_peak.is_finite(), "true_peak", "not a number")?;
            check(r.frames > 0 && r.frames < 1 << 40 && r.delay < 1 << 20, "frames", "impossible")?;
            check(!r.index.is_empty() && r.index.len() <= 1 << 16, "index", "should name 1 to 65,536 pages")?;
            let rising = r.index.windows(2).all(|w| w[0].first_frame < w[1].first_frame && w[0].offset < w[1].offset);
            check(rising && r.index[0].offset == 0, "index", "pages out of order")?;
        }
        Ok(record)
    }

    /// The rendition of that name, if the track has it.
    pub fn rendition(&self, name: RenditionName) -> Option<&Rendition> {
        self.renditions.iter().find(|r| r.name == name)
    }

    /// Gain for this track as a factor: to `target` LUFS, but no true peak of any rendition above -1 dBTP. As part of its
    /// album if `album`.
    pub fn gain(&self, target_lufs: f32, album: bool) -> Gain {
        let own_peak = self.renditions.iter().map(|r| r.true_peak).fold(f32::MIN, f32::max);
        let (loudness, peak) = match &self.album_gain {
            Some(a) if album => (a.loudness, a.true_peak),
            _ => (self.loudness, own_peak),
        };
        Gain((target_lufs - loudness).min(-1.0 - peak).clamp(-60.0, 20.0))
    }
}

/// A gain in decibels, as R128 gives it.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Gain(pub f32);

impl Rendition {
    /// Length of what is heard.
    pub const fn length(&self) -> crate::time::Frames {
        crate::time::Frames::new(self.frames, self.init.rate)
    }
}

#[cfg(test)]
mod tests;
