//! A segment: whole codec packets, nothing else. Pre-roll, body, tail: encode and decode, bounded.
//!
//! ```text
//! version 1 | first packet | first frame | 3 counts | lengths | packets        all numbers LEB128, no padding
//! ```
//! *Body*: the segment's own share; the bodies of all segments, joined, are the rendition's packets in order. *Pre-roll*:
//! copies of the packets before the body that a fresh decoder must chew to be right at the body's first frame. *Tail*:
//! copies of the packets after it that a cross-fade into another rendition needs. Continuous play decodes bodies only; one
//! segment alone is enough to start, to seek to, or to change the rendition.
//!
//! Law: positions are those of a decoder to which an undecodable packet is silence of `Init::longest_packet` frames.

use alloc::vec::Vec;

const VERSION: u8 = 1;
/// Longest packet, in bytes. FLAC's largest block (65,535 stereo frames of 24 bits) is below.
const MAX_PACKET: u64 = 1 << 20;
/// Most packets in one run.
const MAX_PACKETS: u64 = 1 << 14;

/// The packets of a segment, borrowed from its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Index of the body's first packet in the rendition.
    pub first_packet: u64,
    /// Decoded frames (encoder delay included) of a continuous decode before the body.
    pub first_frame: u64,
    /// Packets that a fresh decoder must chew; what they decode to is thrown away.
    pub preroll: Vec<&'a [u8]>,
    /// The segment's own packets.
    pub body: Vec<&'a [u8]>,
    /// Packets for a cross-fade after the body.
    pub tail: Vec<&'a [u8]>,
}

/// Why bytes are no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Ends before it should.
    #[error("segment is cut short")]
    Short,
    /// Of another version.
    #[error("segment version {0}, expected {VERSION}")]
    Version(u8),
    /// A count or a length beyond what any codec has.
    #[error("segment has an impossible length or count")]
    Bounds,
    /// Bytes are left after the last packet.
    #[error("segment has {0} bytes too many")]
    Trailing(usize),
}

impl<'a> Segment<'a> {
    /// The segment as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let runs = [&self.preroll, &self.body, &self.tail];
        let size: usize = runs.iter().flat_map(|r| r.iter()).map(|p| p.len() + 3).sum();
        let mut out = Vec::with_capacity(size + 32);
        out.push(VERSION);
        put(&mut out, self.first_packet);
        put(&mut out, self.first_frame);
        runs.iter().for_each(|r| put(&mut out, r.len() as u64));
        runs.iter().flat_map(|r| r.iter()).for_each(|p| put(&mut out, p.len() as u64));
        runs.iter().flat_map(|r| r.iter()).for_each(|p| out.extend_from_slice(p));
        out
    }

    /// Reads a segment. Never allocates more than a small multiple of `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SegmentError> {
        let (&version, mut b) = bytes.split_first().ok_or(SegmentError::Short)?;
        if version != VERSION {
            return Err(SegmentError::Version(version));
        }
        let (first_packet, first_frame) = (take(&mut b)?, take(&mut b)?);
        let counts = [take(&mut b)?, take(&mut b)?, take(&mut b)?];
        if counts.iter().any(|&n| n > MAX_PACKETS) {
            return Err(SegmentError::Bounds);
        }
        // A length is at least one byte: more packets than bytes is a lie, found before anything is allocated.
        let total = counts.iter().sum::<u64>() as usize;
        if total > b.len() {
            return Err(SegmentError::Short);
        }
        let mut lengths = Vec::with_capacity(total);
        for _ in 0..total {
            let n = take(&mut b)?;
            if n > MAX_PACKET {
                return Err(SegmentError::Bounds);
            }
            lengths.push(n as usize);
        }
        let mut lengths = lengths.into_iter();
        let mut run = |count: u64| {
            let packets = lengths.by_ref().take(count as usize).map(|n| b.split_off(..n).ok_or(SegmentError::Short));
            packets.collect::<Result<Vec<_>, _>>()
        };
        let segment =
            Self { first_packet, first_frame, preroll: run(counts[0])?, body: run(counts[1])?, tail: run(counts[2])? };
        if b.is_empty() { Ok(segment) } else { Err(SegmentError::Trailing(b.len())) }
    }
}

fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take(b: &mut &[u8]) -> Result<u64, SegmentError> {
    let mut n = 0u64;
    for shift in (0..63).step_by(7) {
        let &byte = b.split_off_first().ok_or(SegmentError::Short)?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(n);
        }
    }
    Err(SegmentError::Bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40), a in 0usize..40, b in 0usize..40) {
            let (a, b) = (a.min(b).min(packets.len()), a.max(b).min(packets.len()));
            let all: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
            let s = Segment { first_packet: 7, first_frame: u64::MAX >> 1, preroll: all[..a].to_vec(), body: all[a..b].to_vec(), tail: all[b..].to_vec() };
            let bytes = s.encode();
            prop_assert_eq!(&Segment::decode(&bytes).unwrap(), &s);
        }

        #[test]
        fn hostile_bytes_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            bytes.insert(0, VERSION);
            let _ = Segment::decode(&bytes);
        }
    }

    #[test]
    fn the_form_is_frozen() {
        let s =
            Segment { first_packet: 1, first_frame: 300, preroll: vec![b"a"], body: vec![b"bc", b""], tail: vec![] };
        assert_eq!(s.encode(), [1, 1, 0xac, 2, 1, 2, 0, 1, 2, 0, b'a', b'b', b'c']);
        assert_eq!(Segment::decode(&s.encode()[..12]), Err(SegmentError::Short));
        assert_eq!(Segment::decode(&[1, 0, 0, 0xff, 0xff, 0x7f, 0, 0]), Err(SegmentError::Bounds));
    }
}
