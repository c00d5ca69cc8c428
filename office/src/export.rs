//! Export: a rendition as an ordinary file that any player opens. Nothing is locked in.
//!
//! Packets stay as they are; only what a file needs around them is made: FLAC (RFC 9639), MP3 (packets, and LAME's tag for the
//! length), Ogg (RFC 3533) for Vorbis and Opus, ADTS (ISO/IEC 13818-7, 6.2) for AAC.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use jukebox_core::library::{Codec, FormatError, IndexPage, Record, Rendition, RenditionName, TrackId};
use jukebox_core::segment::Segment;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use crate::publish::decoder;
use crate::show::{ShowError, track};
use crate::verify::{ObjectError, read};

/// Write a track of a library as an ordinary file (FLAC, MP3, Ogg or ADTS).
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  jukebox-office export /srv/library mfrggzdfmztwq2lk prelude.flac")]
pub struct Args {
    /// Folder of the library
    pub library: PathBuf,
    /// Track id (16 characters)
    pub track: TrackId,
    /// File to write; one that is there is not replaced
    pub file: PathBuf,
    /// Which encoding of it
    #[arg(long, value_name = "R", value_enum, default_value = "original")]
    pub rendition: Which,
}

/// A rendition, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The file's own packets, or FLAC
    Original,
    /// Opus at 96 kbit/s
    #[value(name = "opus-96")]
    Opus96,
    /// Opus at 32 kbit/s
    #[value(name = "opus-32")]
    Opus32,
}

impl From<Which> for RenditionName {
    fn from(which: Which) -> Self {
        match which {
            Which::Original => Self::Original,
            Which::Opus96 => Self::Opus96,
            Which::Opus32 => Self::Opus32,
        }
    }
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The library has no such track.
    #[error(transparent)]
    Track(#[from] ShowError),
    /// The track has no such encoding.
    #[error("the track has no rendition {0}; `jukebox-office show` says what it has")]
    Rendition(&'static str),
    /// The library is broken.
    #[error("{0}: {1}: `jukebox-office verify` says what is wrong with the library")]
    Library(String, ObjectError),
    /// The file cannot be written.
    #[error("{0}: {1}: give another path, or remove that file")]
    File(PathBuf, io::Error),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<ExitCode, ExportError> {
    let kind = export(&args.library, args.track, args.rendition.into(), &args.file)?;
    println!("{}: {kind}", args.file.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes a rendition; returns what kind of file it is.
pub fn export(library: &Path, id: TrackId, name: RenditionName, file: &Path) -> Result<&'static str, ExportError> {
    let (_, record) = track(library, id)?;
    let rendition = record.rendition(name).ok_or(ExportError::Rendition(name.as_str()))?;
    let broken = |e| ExportError::Library(rendition.object.path(), e);
    let packets = packets(library, rendition).map_err(broken)?;
    let fault = |e| ExportError::File(file.to_owned(), e);
    let mut out = BufWriter::new(File::create_new(file).map_err(fault)?);
    let kind = match rendition.init.codec {
        Codec::Flac => flac(&mut out, rendition, &packets, &record).map(|()| "FLAC"),
        Codec::Mp3 => mp3(&mut out, rendition, &packets).map(|()| "MP3"),
        Codec::Vorbis => ogg(&mut out, rendition, &packets, &record).map(|()| "Ogg Vorbis"),
        Codec::Opus => ogg(&mut out, rendition, &packets, &record).map(|()| "Ogg Opus"),
        Codec::Aac => adts(&mut out, rendition, &packets).map(|()| "AAC (ADTS)"),
    };
    let done = kind.and_then(|kind| out.flush().map(|()| kind));
    if done.is_err() {
        // Half a file is of no use; the first error is the one that counts.
        let _ = fs::remove_file(file);
    }
    done.map_err(fault)
}

/// All packets of a rendition, in order, checked against its index.
fn packets(library: &Path, r: &Rendition) -> Result<Vec<Vec<u8>>, ObjectError> {
    let mut object = File::open(library.join(r.object.path()))?;
    let mut packets = Vec::new();
    for index in &r.index {
        for s in IndexPage::parse(&read(library, &index.object)?)?.segments() {
            let mut bytes = vec![0; s.length as usize];
            object.read_exact(&mut bytes)?;
            if jukebox_core::library::Digest::of(&bytes) != s.digest {
                return Err(
                    FormatError::Value { field: "segment", why: "has another digest than its index says" }.into()
                );
            }
            let segment = Segment::decode(&bytes).map_err(|e| FormatError::Shape(e.to_string()))?;
            packets.extend(segment.body.iter().map(|p| p.to_vec()));
        }
    }
    Ok(packets)
}

/// Vorbis comments (RFC 9639, section 8.6).
fn comments(record: &Record) -> Vec<u8> {
    let number = |n: u16| if n == 0 { String::new() } else { n.to_string() };
    let all = [
        ("TITLE", record.title.clone()),
        ("ARTIST", record.artist.clone()),
        ("ALBUM", record.album.clone()),
        ("ALBUMARTIST", record.album_artist.clone()),
        ("DATE", number(record.year)),
        ("DISCNUMBER", number(record.disc)),
        ("TRACKNUMBER", number(record.number)),
    ];
    let told: Vec<String> = all.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={v}")).collect();
    let text = |t: &str| [&(t.len() as u32).to_le_bytes(), t.as_bytes()].concat();
    let mut out = text("jukebox-office");
    out.extend((told.len() as u32).to_le_bytes());
    told.iter().for_each(|t| out.extend(text(t)));
    out
}

fn flac(out: &mut impl Write, r: &Rendition, packets: &[Vec<u8>], record: &Record) -> io::Result<()> {
    let mut info = r.init.extra.clone();
    // What publish made itself has no length in its header: the low 36 bits of these bytes (RFC 9639, section 8.2).
    if let Some(packed) = info.get_mut(10..18)
        && let Ok(old) = <[u8; 8]>::try_from(&*packed).map(u64::from_be_bytes)
        && old << 28 == 0
    {
        packed.copy_from_slice(&(old | (r.delay + r.frames) & ((1 << 36) - 1)).to_be_bytes());
    }
    let comments = comments(record);
    out.write_all(b"fLaC")?;
    for (kind, body) in [(0u32, &info), (0x84, &comments)] {
        out.write_all(&(kind << 24 | body.len() as u32).to_be_bytes())?;
        out.write_all(body)?;
    }
    packets.iter().try_for_each(|p| out.write_all(p))
}

/// Without the first packet that said delay and padding an MP3 is longer than its music: it is made again, as LAME's.
fn mp3(out: &mut impl Write, r: &Rendition, packets: &[Vec<u8>]) -> io::Result<()> {
    if let Some(tag) = packets.first().and_then(|p| lame_tag(p, r, packets)) {
        out.write_all(&tag)?;
    }
    packets.iter().try_for_each(|p| out.write_all(p))
}

/// A silent packet with the tags `Info` and LAME (gabriel.mp3-tech.org, "Mp3 Info Tag rev 1").
fn lame_tag(first: &[u8], r: &Rendition, packets: &[Vec<u8>]) -> Option<Vec<u8>> {
    if r.delay < 529 {
        return None; // nobody told the length
    }
    let head: [u8; 4] = *first.first_chunk()?;
    let (mpeg1, mono) = (head[1] & 0x08 != 0, head[3] >> 6 == 3);
    let kbps: [u32; 14] = match mpeg1 {
        true => [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        false => [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    };
    let at = 4 + match (mpeg1, mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    // The smallest packet that the tag fits in.
    let size = |k: u32| (if mpeg1 { 144_000 } else { 72_000 } * k / r.init.rate) as usize;
    let index = kbps.iter().position(|&k| size(k) >= at + 156)?;
    let mut tag = vec![0; size(kbps[index])];
    // Without CRC and padding.
    tag[..4].copy_from_slice(&[head[0], head[1] | 1, (index as u8 + 1) << 4 | head[2] & 0x0c, head[3]]);
    let put = |tag: &mut [u8], at: usize, bytes: &[u8]| tag[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut tag, at, b"Info");
    put(&mut tag, at + 4, &3u32.to_be_bytes());
    put(&mut tag, at + 8, &(packets.len() as u32).to_be_bytes());
    let bytes = packets.iter().map(Vec::len).sum::<usize>() + tag.len();
    put(&mut tag, at + 12, &(bytes as u32).to_be_bytes());
    // LAME's part follows the fields that the flags name; delay and padding are at 21 of it, 12 bits each.
    put(&mut tag, at + 16, b"LAME3.100");
    let all = packets.len() as u64 * u64::from(r.init.longest_packet);
    let delay = r.delay - 529;
    let padding = (all - r.delay.min(all)).saturating_sub(r.frames) + 529;
    let both = (delay.min(4_095) << 12 | padding.min(4_095)) as u32;
    put(&mut tag, at + 16 + 21, &both.to_be_bytes()[1..]);
    let music = bytes as u32;
    put(&mut tag, at + 16 + 28, &music.to_be_bytes());
    let crc = crc16(&tag[..at + 16 + 34]);
    put(&mut tag, at + 16 + 34, &crc.to_be_bytes());
    Some(tag)
}

/// CRC-16 with the polynomial 0x8005, bits reversed, from 0: LAME's own.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, b| (0..8).fold(crc ^ u16::from(*b), |c, _| c >> 1 ^ if c & 1 == 1 { 0xa001 } else { 0 }))
}

fn adts(out: &mut impl Write, r: &Rendition, packets: &[Vec<u8>]) -> io::Result<()> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    let rate =
        RATES.iter().position(|&x| x == r.init.rate).ok_or_else(|| io::Error::other("ADTS has no such rate"))? as u8;
    for p in packets {
        let n = p.len() + 7;
        if n >= 1 << 13 {
            return Err(io::Error::other("a packet is too long for ADTS"));
        }
        // AAC-LC, one raw data block, no CRC, variable rate.
        let head = [0xff, 0xf1, 0x40 | rate << 2 | r.init.channels >> 2, (r.init.channels & 3) << 6 | (n >> 11) as u8];
        out.write_all(&head)?;
        out.write_all(&[(n >> 3) as u8, (n as u8 & 7) << 5 | 0x1f, 0xfc])?;
        out.write_all(p)?;
    }
    Ok(())
}

/// Vorbis and Opus in Ogg: header packets on pages of their own, then about a page a second.
fn ogg(out: &mut impl Write, r: &Rendition, packets: &[Vec<u8>], record: &Record) -> io::Result<()> {
    let mut pages = Pages { out, number: 0, packets: vec![], fresh: true };
    let opus = r.init.codec == Codec::Opus;
    if opus {
        let mut head = r.init.extra.clone();
        if let Some(pre_skip) = head.get_mut(10..12) {
            pre_skip.copy_from_slice(&(r.delay as u16).to_le_bytes());
        }
        pages.page(vec![head], 0, false)?;
        pages.page(vec![[&b"OpusTags"[..], &comments(record)].concat()], 0, false)?;
    } else {
        // The first header has 30 bytes (Vorbis I, section 4.2.2); what follows is the third.
        let (first, third) = r.init.extra.split_at_checked(30).ok_or_else(|| io::Error::other("no Vorbis header"))?;
        pages.page(vec![first.to_vec()], 0, false)?;
        let second = [&b"\x03vorbis"[..], &comments(record), &[1]].concat();
        pages.page(vec![second, third.to_vec()], 0, false)?;
    }
    let mut decoder = decoder(&r.init).map_err(io::Error::other)?;
    let (mut frame, mut due) = (0u64, 0u64);
    // Granules of Vorbis count what is heard; those of Opus the delay too.
    let skip = if opus { 0 } else { r.delay };
    let end = if opus { r.delay + r.frames } else { r.frames };
    for (k, data) in packets.iter().enumerate() {
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::ZERO, data);
        frame += decoder.decode_ref(&packet).map_or(u64::from(r.init.longest_packet), |sound| sound.frames() as u64);
        let last = k + 1 == packets.len();
        pages.packets.push(data.clone());
        let granule = frame.saturating_sub(skip);
        let lacing: usize = pages.packets.iter().map(|p| p.len() / 255 + 1).sum();
        let next = packets.get(k + 1).map_or(0, |p| p.len() / 255 + 1);
        if last || frame >= due + u64::from(r.init.rate) || lacing + next > 255 {
            let whole = std::mem::take(&mut pages.packets);
            pages.page(whole, if last { granule.min(end) } else { granule }, last)?;
            due = frame;
        }
    }
    Ok(())
}

struct Pages<'a, W> {
    out: &'a mut W,
    number: u32,
    packets: Vec<Vec<u8>>,
    fresh: bool,
}

impl<W: Write> Pages<'_, W> {
    /// Writes packets as one page, or as several if they are long.
    fn page(&mut self, packets: Vec<Vec<u8>>, granule: u64, last: bool) -> io::Result<()> {
        let lacing: Vec<u8> = packets
            .iter()
            .flat_map(|p| std::iter::repeat_n(255, p.len() / 255).chain([(p.len() % 255) as u8]))
            .collect();
        let bytes = packets.concat();
        let (mut at, count) = (0, lacing.len().div_ceil(255));
        let mut continued = false;
        for (k, part) in lacing.chunks(255).enumerate() {
            let size: usize = part.iter().map(|&n| usize::from(n)).sum();
            let body = &bytes[at..at + size];
            at += size;
            let ends = k + 1 == count;
            // No packet ends on a page that is all 255.
            let granule = if ends {
                granule
            } else if part.iter().all(|&n| n == 255) {
                u64::MAX
            } else {
                0
            };
            let flags = u8::from(continued) | u8::from(self.fresh) << 1 | u8::from(last && ends) << 2;
            let mut page =
                [&b"OggS\0"[..], &[flags], &granule.to_le_bytes(), b"juke", &self.number.to_le_bytes()].concat();
            page.extend([0; 4]);
            page.push(part.len() as u8);
            page.extend(part);
            page.extend(body);
            let crc = crc32(&page);
            page[22..26].copy_from_slice(&crc.to_le_bytes());
            self.out.write_all(&page)?;
            self.number += 1;
            self.fresh = false;
            continued = part.last() == Some(&255);
        }
        Ok(())
    }
}

/// Ogg's own CRC (RFC 3533, section 6): 0x04c11db7, from 0, nothing reversed.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b) << 24, |c, _| c << 1 ^ if c >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    })
}
