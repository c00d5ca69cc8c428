//! A library that exists in memory: real records and index pages over segments that are only numbers.
//!
//! Every track has three renditions on one grid, cut as `firmware/docs/library.md` says: the original (FLAC of about
//! 900 kbit/s) sets the borders, the bodies of `opus-96` and `opus-32` begin with the packet that holds a border.

use std::collections::HashMap;

use jukebox_core::exchange::{List, Listed};
use jukebox_core::library::{
    AlbumGain, Codec, Digest, FORMAT, IndexPage, IndexRef, Init, Record, Rendition, RenditionName, Row,
    SEGMENTS_PER_PAGE, SegmentRef, TrackId, encode, playlist_id,
};
use jukebox_core::queue::shuffle;

/// Frames a second of the original of every track here, and of the DAC.
pub const RATE: u32 = 44_100;
/// Frames a second of Opus.
const OPUS_RATE: u32 = 48_000;
/// Frames of an Opus packet of 20 ms.
const PACKET: u64 = 960;
/// Decoded frames before the first audible one of Opus (libopus' look-ahead at 48 kHz).
const OPUS_DELAY: u64 = 312;
/// Packets of pre-roll (2) and for the fade in (1) and out (2) that every segment of Opus carries.
const OVERHEAD_PACKETS: u64 = 5;

/// What one segment is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the track.
    pub track: u32,
    /// Which rendition.
    pub rendition: RenditionName,
    /// Its place in the track.
    pub number: u32,
    /// First audible frame, at the rendition's rate.
    pub first: u64,
    /// Audible frames, at the rendition's rate.
    pub frames: u64,
    /// The rendition's rate.
    pub rate: u32,
    /// Stored bytes.
    pub bytes: u32,
    /// Of these, copies for pre-roll and fades.
    pub overhead: u32,
}

impl Part {
    /// The frame of the original nearest to frame `n` of this rendition.
    pub fn to_original(&self, n: u64) -> u64 {
        scale(n, self.rate, RATE)
    }
}

/// `n` frames at one rate as the nearest number at another.
fn scale(n: u64, from: u32, to: u32) -> u64 {
    if from == to { n } else { (n * u64::from(to) + u64::from(from) / 2) / u64::from(from) }
}

/// Tracks, objects, and what each segment is.
#[derive(Clone, Default)]
pub struct Library {
    /// Rows of the catalogue.
    pub rows: Vec<Row>,
    /// The album that tracks are of which are added from here on.
    album: Option<u64>,
    /// Playlists by name; a track may be missing.
    pub playlists: Vec<(String, Vec<TrackId>)>,
    /// Audible frames of each track, at [`RATE`].
    pub frames: Vec<u64>,
    /// Records and index pages by digest.
    pub objects: HashMap<Digest, Vec<u8>>,
    /// The segments of all renditions.
    pub segments: HashMap<Digest, Part>,
}

/// The id of track `n`.
fn track_id(n: u64) -> TrackId {
    let mut id = [0; 10];
    id[..8].copy_from_slice(&n.to_be_bytes());
    TrackId(id)
}

impl Library {
    /// A playlist of these tracks, by number; a number without a track is a track that is gone.
    #[must_use]
    pub fn with_playlist(mut self, name: &str, tracks: &[u64]) -> Self {
        self.playlists.push((name.into(), tracks.iter().map(|&n| track_id(n)).collect()));
        self
    }

    /// What the catalogue answers.
    pub fn list(&self, list: &List, seed: Option<u64>, offset: u32, limit: u32) -> Option<Listed> {
        let mut ids: Vec<TrackId> = match list {
            List::Playlist(id) => self.playlists.iter().find(|p| playlist_id(&p.0) == *id)?.1.clone(),
            List::Popular => self.rows.iter().map(|r| r.id).collect(),
        };
        let total = ids.len() as u32;
        if let Some(seed) = seed {
            shuffle(&mut ids, seed);
        }
        let asked: Vec<_> = ids.into_iter().skip(offset as usize).take(limit as usize).collect();
        let find = |id: &TrackId| self.rows.iter().find(|r| r.id == *id).cloned();
        let rows: Vec<_> = asked.iter().filter_map(find).collect();
        let missing = (asked.len() - rows.len()) as u32;
        Some(Listed { rows, missing, total })
    }

    /// `lengths_s`: a track for each, so many seconds long.
    pub fn new(lengths_s: &[u64]) -> Self {
        let mut library = Self::default();
        for (n, &length_s) in lengths_s.iter().enumerate() {
            library.add(n as u64, length_s * u64::from(RATE) + 17 * n as u64);
        }
        library
    }

    /// The same, all of one album.
    pub fn album(lengths_s: &[u64]) -> Self {
        let mut library = Self { album: Some(1), ..Self::default() };
        (0..).zip(lengths_s).for_each(|(n, length_s)| library.add(n, length_s * u64::from(RATE)));
        library
    }

    /// The name of a segment.
    pub fn segment(track: u64, rendition: RenditionName, number: usize) -> Digest {
        Digest::of(format!("segment {number} of {track} as {}", rendition.as_str()).as_bytes())
    }

    fn add(&mut self, n: u64, frames: u64) {
        let delay = (n % 3) * 1105;
        let borders = [1, 2].into_iter().chain((1..).map(|k| 4 * k)).map(|s| s * u64::from(RATE) / 1152 * 1152);
        let mut starts = vec![0];
        starts.extend(borders.take_while(|&b| b < frames + delay));
        // Loud and dense music compresses less: between 650 and 1,150 kbit/s a track.
        let kbps = 650 + mixed(n, 0, 0) % 501;
        let original = self.rendition(n, RenditionName::Original, kbps, delay, frames, &starts);
        let opus_frames = scale(frames, RATE, OPUS_RATE);
        let packets: Vec<_> = starts
            .iter()
            .map(|&b| match b {
                0 => 0,
                b => (b.saturating_sub(delay) * u64::from(OPUS_RATE) / u64::from(RATE) + OPUS_DELAY) / PACKET * PACKET,
            })
            .collect();
        let opus = |l: &mut Self, name, kbps| l.rendition(n, name, kbps, OPUS_DELAY, opus_frames, &packets);
        let renditions = vec![original, opus(self, RenditionName::Opus96, 96), opus(self, RenditionName::Opus32, 32)];
        let id = track_id(n);
        let duration_ms = frames * 1_000 / u64::from(RATE);
        let record = Record {
            format: FORMAT,
            id,
            title: format!("Track {n}"),
            artist: "Artist".into(),
            album: String::new(),
            album_artist: String::new(),
            year: 2_000,
            disc: 0,
            number: 0,
            duration_ms,
            loudness: -18.0,
            album_gain: self.album.map(|album| AlbumGain { album, loudness: -18.0, true_peak: -1.0 }),
            cover: None,
            renditions,
        };
        let digest = self.put(encode(&record));
        let (title, artist) = (record.title, record.artist);
        self.frames.push(frames);
        self.rows.push(Row {
            id,
            title,
            artist,
            album: String::new(),
            year: 2_000,
            duration_ms,
            popularity: 0,
            record: digest,
        });
    }

    /// A rendition of track `n` whose bodies begin at `starts` (decoded frames).
    fn rendition(
        &mut self,
        n: u64,
        name: RenditionName,
        kbps: u64,
        delay: u64,
        frames: u64,
        starts: &[u64],
    ) -> Rendition {
        let rate = if name == RenditionName::Original { RATE } else { OPUS_RATE };
        let mut refs = Vec::new();
        for (k, &start) in starts.iter().enumerate() {
            let end = starts.get(k + 1).copied().unwrap_or(frames + delay);
            let digest = Self::segment(n, name, k);
            let (first, until) = (start.saturating_sub(delay), end.saturating_sub(delay));
            // Variable bit rate: 75 to 125 % of the mean, the same passages dense in every rendition.
            let share = 750 + mixed(n, k as u64, 1) % 501;
            let bytes = |frames: u64| frames * kbps * share / 8 / u64::from(rate);
            let (body, overhead) = match name {
                RenditionName::Original => (bytes(end - start) + 12 + 2 * (end - start) / 1152, 0),
                // Packets at both ends of a track have fewer neighbours; two bytes of length each.
                _ => {
                    let copies = if k == 0 { 2 } else { OVERHEAD_PACKETS };
                    (bytes(end - start) + 12 + 2 * (end - start) / PACKET, bytes(copies * PACKET) + 2 * copies)
                }
            };
            let (length, overhead) = ((body + overhead) as u32, overhead as u32);
            self.segments.insert(
                digest,
                Part {
                    track: n as u32,
                    rendition: name,
                    number: k as u32,
                    first,
                    frames: until - first,
                    rate,
                    bytes: length,
                    overhead,
                },
            );
            refs.push(SegmentRef { length, first_frame: start, digest });
        }
        let (mut index, mut offset) = (Vec::new(), 0);
        for chunk in refs.chunks(SEGMENTS_PER_PAGE) {
            let object = self.put(encode(&IndexPage::new(chunk)));
            index.push(IndexRef { object, offset, first_frame: chunk[0].first_frame });
            offset += chunk.iter().map(|s| u64::from(s.length)).sum::<u64>();
        }
        let (codec, bits, longest_packet, extra) = match name {
            RenditionName::Original => (Codec::Flac, 16, 4096, vec![0; 34]),
            _ => (Codec::Opus, 0, PACKET as u32, vec![0; 19]),
        };
        Rendition {
            name,
            init: Init { codec, rate, channels: 2, bits, coded_bits: bits, longest_packet, extra },
            delay,
            frames,
            true_peak: -1.0,
            size: offset,
            object: Digest::of(format!("object of {n} as {}", name.as_str()).as_bytes()),
            index,
        }
    }

    fn put(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.objects.insert(digest, bytes);
        digest
    }
}

/// A number that looks random and is a function of three (the finaliser of `SplitMix64`, Steele et al., OOPSLA 2014).
fn mixed(a: u64, b: u64, c: u64) -> u64 {
    let mut z = (a << 32 ^ b << 8 ^ c).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renditions_share_one_grid() {
        let library = Library::new(&[1, 3, 61, 700]);
        for (n, row) in library.rows.iter().enumerate() {
            let record = Record::parse(&library.objects[&row.record]).unwrap();
            let names: Vec<_> = record.renditions.iter().map(|r| r.name).collect();
            assert_eq!(names, [RenditionName::Original, RenditionName::Opus96, RenditionName::Opus32]);
            let parts = |name| {
                let part = |k| library.segments.get(&Library::segment(n as u64, name, k)).copied();
                (0..).map_while(part).collect::<Vec<_>>()
            };
            let originals = parts(RenditionName::Original);
            for r in &record.renditions {
                let of_it = parts(r.name);
                assert_eq!(of_it.len(), originals.len());
                assert_eq!(of_it.iter().map(|p| p.frames).sum::<u64>(), r.frames, "nothing is missing or there twice");
                assert_eq!(r.size, of_it.iter().map(|p| u64::from(p.bytes)).sum::<u64>());
                for (p, o) in of_it.iter().zip(&originals) {
                    let early = o.first.saturating_sub(p.to_original(p.first));
                    assert!(early <= RATE as u64 / 50 && p.to_original(p.first) <= o.first + 1, "within the packet");
                }
                let end = of_it.last().map(|p| p.to_original(p.first + p.frames));
                assert_eq!(end, Some(library.frames[n]));
            }
        }
        let bytes =
            |name| library.segments.values().filter(|p| p.rendition == name).map(|p| u64::from(p.bytes)).sum::<u64>();
        let kbps = |name| bytes(name) * 8 / 765 / 1_000;
        assert!((700..1_100).contains(&kbps(RenditionName::Original)), "{}", kbps(RenditionName::Original));
        assert!((93..105).contains(&kbps(RenditionName::Opus96)), "{}", kbps(RenditionName::Opus96));
        assert!((31..37).contains(&kbps(RenditionName::Opus32)), "{}", kbps(RenditionName::Opus32));
    }
}
