//! Container: what files say of themselves and symphonia does not pass on.
//!
//! *Edit*: the stretch of an MP4's media that is to be heard. *SBR*: the half of HE-AAC that a decoder of AAC-LC passes over,
//! leaving music at half its rate without treble; most files do not say in their header that it is there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Most bytes of an MP4's `moov` that are read.
const MAX_MOOV: u64 = 64 << 20;

/// Bytes of tags and covers before the sound, from their headers (ID3v2.4, section 3.1; RFC 9639, section 8.1).
pub fn tag_bytes(file: &mut File) -> io::Result<u64> {
    let mut total = 0;
    let mut head = [0; 10];
    while file.read_exact(&mut head).is_ok() && head.starts_with(b"ID3") {
        let size = head[6..].iter().fold(0, |n, b| n << 7 | u64::from(b & 0x7f)) + 10;
        total += size;
        file.seek(SeekFrom::Start(total))?;
    }
    if head.starts_with(b"fLaC") {
        let mut at = total + 4;
        let mut block = [0; 4];
        loop {
            file.seek(SeekFrom::Start(at))?;
            if total > super::source::MAX_TAGS || file.read_exact(&mut block).is_err() {
                break;
            }
            let length = u64::from(u32::from_be_bytes(block) & 0xff_ffff) + 4;
            (at, total) = (at + length, total + length);
            if block[0] & 0x80 != 0 {
                break;
            }
        }
    }
    Ok(total)
}

/// The ID3v2 tag of a WAV file, if it has one; symphonia reads that of AIFF alone. RIFF: name, length and body of a chunk,
/// filled up to an even length. A tag beyond all bounds is left out.
pub fn wav_id3(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    file.rewind()?;
    let mut head = [0; 12];
    if file.read_exact(&mut head).is_err() || !head.starts_with(b"RIFF") || !head.ends_with(b"WAVE") {
        return Ok(None);
    }
    let (mut at, mut chunk) = (12, [0; 8]);
    for _ in 0..1_000 {
        file.seek(SeekFrom::Start(at))?;
        if file.read_exact(&mut chunk).is_err() {
            break;
        }
        let (name, length) = chunk.split_at(4);
        let length = u64::from(length.try_into().map_or(0, u32::from_le_bytes));
        if name.eq_ignore_ascii_case(b"id3 ") && length <= super::source::MAX_TAGS {
            let mut tag = Vec::new();
            file.take(length).read_to_end(&mut tag)?;
            return Ok(Some(tag));
        }
        at += 8 + length + length % 2;
    }
    Ok(None)
}

/// What an MP4 says of its first sound track (ISO/IEC 14496-12), in frames of the media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mp4 {
    /// Size of `moov`: tags and covers are in it.
    pub moov: u64,
    /// Packets (8.7.3), 0 if it is in fragments.
    pub packets: u64,
    /// Length of all packets together, as far as they are meant (8.6.1).
    pub length: u64,
    /// Where the music begins (8.6.6, or iTunes' own tag), and its length if that is told.
    pub edit: Option<(u64, Option<u64>)>,
    /// It is encrypted.
    pub protected: bool,
}

/// Reads the boxes of an MP4; none if the file is none, or broken: symphonia says so better.
pub fn mp4(file: &mut File) -> Option<Mp4> {
    file.rewind().ok()?;
    let mut head = [0; 8];
    let mut at = 0;
    for n in 0..1_000 {
        file.read_exact(&mut head).ok()?;
        let mut size = u64::from(be32(&head, 0)?);
        if n == 0 && &head[4..] != b"ftyp" {
            return None;
        }
        let mut header = 8;
        if size == 1 {
            let mut wide = [0; 8];
            file.read_exact(&mut wide).ok()?;
            (size, header) = (u64::from_be_bytes(wide), 16);
        }
        if size < header {
            return None;
        }
        if &head[4..] == b"moov" {
            if size > MAX_MOOV {
                return Some(Mp4 { moov: size, ..Mp4::default() });
            }
            let mut moov = Vec::new();
            file.take(size - header).read_to_end(&mut moov).ok()?;
            return Some(Mp4 { moov: size, ..sound_track(&moov).unwrap_or_default() });
        }
        at += size;
        file.seek(SeekFrom::Start(at)).ok()?;
    }
    None
}

fn sound_track(moov: &[u8]) -> Option<Mp4> {
    let (mvhd, scale_at) = full(first(moov, b"mvhd")?, 12, 20)?;
    let movie_scale = u64::from(be32(mvhd, scale_at)?).max(1);
    let trak = children(moov)
        .filter(|(name, _)| name == b"trak")
        .map(|(_, trak)| trak)
        .find(|trak| path(trak, &[b"mdia", b"hdlr"]).and_then(|h| h.get(8..12)) == Some(b"soun"))?;
    let (mdhd, scale_at) = full(path(trak, &[b"mdia", b"mdhd"])?, 12, 20)?;
    let scale = u64::from(be32(mdhd, scale_at)?);
    let table = path(trak, &[b"mdia", b"minf", b"stbl"])?;
    let entry = first(table, b"stsd").and_then(|s| s.get(12..16));
    let stts = first(table, b"stts").unwrap_or_default();
    let runs = stts.get(8..).unwrap_or_default().as_chunks::<8>().0;
    let (packets, length) = runs.iter().fold((0u64, 0u64), |(n, length), run| {
        let (count, each) = (be32(run, 0).unwrap_or(0), be32(run, 4).unwrap_or(0));
        (n + u64::from(count), length.saturating_add(u64::from(count) * u64::from(each)))
    });
    // An edit with time -1 is a pause before the music, which is of no use here.
    let edit = path(trak, &[b"edts", b"elst"]).and_then(|elst| {
        let wide = *elst.first()? == 1;
        let entries = elst.get(8..)?.chunks_exact(if wide { 20 } else { 12 });
        let mut entries = entries.filter_map(|e| match wide {
            true => Some((be64(e, 0)?, be64(e, 8)?.cast_signed())),
            false => Some((be32(e, 0)?.into(), be32(e, 4)?.cast_signed().into())),
        });
        let (ticks, at) = entries.find(|&(_, at)| at >= 0)?;
        let meant = (u128::from(ticks) * u128::from(scale)).div_ceil(movie_scale.into());
        let tick = scale.div_ceil(movie_scale);
        // The movie's clock is coarser than the media's: what is missing by less than a tick of it is not missing.
        let at = at.unsigned_abs();
        let meant = u64::try_from(meant).ok().filter(|&m| m > 0);
        let rest = length.saturating_sub(at);
        Some((at, meant.map(|m| if m.abs_diff(rest) <= tick { rest } else { m.min(rest) })))
    });
    let edit = itunes(moov).map(|(at, length)| (at, Some(length))).or(edit);
    Some(Mp4 { moov: 0, packets, length, edit, protected: matches!(entry, Some(b"drms" | b"enca")) })
}

/// `iTunSMPB`: hexadecimal words, of which the second is the delay and the fourth the length, in frames.
fn itunes(moov: &[u8]) -> Option<(u64, u64)> {
    let list = path(moov, &[b"udta", b"meta"])?.get(4..).and_then(|m| first(m, b"ilst"))?;
    let named = |item: &&[u8]| first(item, b"name").is_some_and(|n| n.ends_with(b"iTunSMPB"));
    let item = children(list).filter(|(name, _)| name == b"----").map(|(_, item)| item).find(named)?;
    let text = str::from_utf8(first(item, b"data")?.get(8..)?).ok()?;
    let mut words = text.split_whitespace().map(|w| u64::from_str_radix(w, 16).ok());
    let delay = words.nth(1)??;
    let length = words.nth(1)??;
    (delay < 1 << 16 && length > 0).then_some((delay, length))
}

/// A box that has two versions: where the field lies that is at `short` or `wide`.
fn full(body: &[u8], short: usize, wide: usize) -> Option<(&[u8], usize)> {
    Some((body, if *body.first()? == 1 { wide } else { short }))
}

fn path<'a>(within: &'a [u8], names: &[&[u8; 4]]) -> Option<&'a [u8]> {
    names.iter().try_fold(within, |b, name| first(b, name))
}

fn first<'a>(within: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    children(within).find(|(n, _)| n == name).map(|(_, body)| body)
}

/// Boxes side by side: name and body.
fn children(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let size = be32(rest, 0)? as usize;
        let name = *rest.get(4..8)?.first_chunk()?;
        let size = if size == 0 { rest.len() } else { size };
        let body = rest.get(8..size)?;
        rest = &rest[size..];
        Some((name, body))
    })
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn be64(b: &[u8], at: usize) -> Option<u64> {
    b.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

/// Whether an AAC packet ends as one with SBR does: a fill element whose payload is of type SBR, at most one other fill
/// element, the end (ISO/IEC 14496-3, 4.4.2.1 and 4.4.2.7). The elements before are not parsed, so one packet alone may
/// look so by chance (a few in a hundred do); a track of them does not.
pub fn ends_with_sbr(packet: &[u8]) -> bool {
    let bits = packet.len() * 8;
    let bit = |at: usize| packet[at / 8] >> (7 - at % 8) & 1;
    let read = |at: usize, n: usize| (at..at + n).fold(0u32, |v, i| v << 1 | u32::from(bit(i)));
    // Behind the end, 111, there is nothing but zeros.
    let Some(last) = (0..bits).rev().find(|&at| bit(at) == 1) else { return false };
    if last < 2 || read(last - 2, 3) != 7 {
        return false;
    }
    // Fill elements that end at `end`: where each begins, and its type.
    let fills = |end: usize| {
        (0..270usize).filter_map(move |count| {
            let head = if count < 15 { 7 } else { 15 };
            let at = end.checked_sub(head + 8 * count)?;
            let told = match count {
                0..15 => read(at, 7) == 6 << 4 | count as u32,
                _ => read(at, 15) == (6 << 4 | 15) << 8 | (count as u32 - 14),
            };
            told.then(|| (at, if count > 0 { read(at + head, 4) } else { 0 }))
        })
    };
    let is_sbr = |kind: u32| kind == 13 || kind == 14;
    fills(last - 2).any(|(at, kind)| is_sbr(kind) || fills(at).any(|(_, kind)| is_sbr(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes(), &name[..], body].concat()
    }

    #[test]
    fn itunes_tag_is_read() {
        let text = b"\0\0\0\x01\0\0\0\0 00000000 00000840 000001C0 0000000000046E00 00000000";
        let name = boxed(b"name", b"\0\0\0\0iTunSMPB");
        let item = boxed(b"----", &[boxed(b"mean", b"\0\0\0\0com.apple.iTunes"), name, boxed(b"data", text)].concat());
        let meta = boxed(b"meta", &[&[0; 4][..], &boxed(b"ilst", &item)].concat());
        assert_eq!(itunes(&boxed(b"udta", &meta)), Some((0x840, 0x46e00)));
    }

    #[test]
    fn boxes_that_lie_end_the_search() {
        for lie in [&b"\0\0\0\x07abcd"[..], b"\xff\xff\xff\xffabcd", b"\0\0", b"\0\0\0\x08abc"] {
            assert_eq!(children(lie).count(), 0, "{lie:?}");
        }
        assert_eq!(children(b"\0\0\0\0abcdxy").count(), 1);
        assert_eq!(sound_track(&boxed(b"mvhd", &[1; 5])), None);
    }
}
