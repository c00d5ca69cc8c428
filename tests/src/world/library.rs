//! A library that exists in memory: real records and index pages over segments that are only numbers.

use std::collections::HashMap;

use jukebox_core::library::{
    Codec, Digest, FORMAT, IndexPage, IndexRef, Init, Record, Rendition, RenditionName, Row, SEGMENTS_PER_PAGE,
    SegmentRef, TrackId, encode,
};

/// Frames a second of every track here.
pub const RATE: u32 = 44_100;

/// Tracks, objects, and how long each segment is.
#[derive(Clone, Default)]
pub struct Library {
    /// Rows of the catalogue.
    pub rows: Vec<Row>,
    /// Records and index pages by digest.
    pub objects: HashMap<Digest, Vec<u8>>,
    /// Audible frames of each segment: first and count.
    pub segments: HashMap<Digest, (u64, u64)>,
}

impl Library {
    /// `lengths_s`: a track for each, so many seconds long.
    pub fn new(lengths_s: &[u64]) -> Self {
        let mut library = Self::default();
        for (n, &length_s) in lengths_s.iter().enumerate() {
            library.add(n as u64, length_s * u64::from(RATE) + 17 * n as u64);
        }
        library
    }

    fn add(&mut self, n: u64, frames: u64) {
        let delay = (n % 3) * 1105;
        let borders = [1, 2].into_iter().chain((1..).map(|k| 4 * k)).map(|s| s * u64::from(RATE) / 1152 * 1152);
        let mut starts = vec![0];
        starts.extend(borders.take_while(|&b| b < frames + delay));
        let mut refs = Vec::new();
        for (k, &first) in starts.iter().enumerate() {
            let end = starts.get(k + 1).copied().unwrap_or(frames + delay);
            let digest = Digest::of(format!("segment {k} of {n}").as_bytes());
            let (from, to) = (first.saturating_sub(delay), end.saturating_sub(delay));
            self.segments.insert(digest, (from, to - from));
            refs.push(SegmentRef { length: ((end - first) / 2 + 100) as u32, first_frame: first, digest });
        }
        let (mut index, mut offset) = (Vec::new(), 0);
        for chunk in refs.chunks(SEGMENTS_PER_PAGE) {
            let object = self.put(encode(&IndexPage::new(chunk)));
            index.push(IndexRef { object, offset, first_frame: chunk[0].first_frame });
            offset += chunk.iter().map(|s| u64::from(s.length)).sum::<u64>();
        }
        let init = Init {
            codec: Codec::Flac,
            rate: RATE,
            channels: 2,
            bits: 16,
            coded_bits: 16,
            longest_packet: 4096,
            extra: vec![0; 34],
        };
        let rendition = Rendition {
            name: RenditionName::Original,
            init,
            delay,
            frames,
            true_peak: -1.0,
            size: offset,
            object: Digest::of(format!("object of {n}").as_bytes()),
            index,
        };
        let mut id = [0; 10];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let duration_ms = frames * 1_000 / u64::from(RATE);
        let record = Record {
            format: FORMAT,
            id: TrackId(id),
            title: format!("Track {n}"),
            artist: "Artist".into(),
            album: String::new(),
            album_artist: String::new(),
            year: 2_000,
            disc: 0,
            number: 0,
            duration_ms,
            loudness: -18.0,
            album_gain: None,
            cover: None,
            renditions: vec![rendition],
        };
        let digest = self.put(encode(&record));
        let (title, artist) = (record.title, record.artist);
        self.rows.push(Row {
            id: TrackId(id),
            title,
            artist,
            album: String::new(),
            year: 2_000,
            duration_ms,
            popularity: 0,
            record: digest,
        });
    }

    fn put(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.objects.insert(digest, bytes);
        digest
    }
}
