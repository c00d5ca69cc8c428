//! Cut: packets into segments along a grid, segments into one object and its index.
//!
//! *Grid*: the instants where segments of all renditions begin: the original's packet borders nearest to 1, 2, 4, 8, 12,
//! 16, ... s, as audible frames at its rate. *Pre-roll* is searched per border where a codec leans on what came before.

use std::collections::VecDeque;
use std::io;

use jukebox_core::library::{Digest, IndexPage, IndexRef, Init, MAX_SEGMENT, SEGMENTS_PER_PAGE, SegmentRef, encode};
use jukebox_core::segment::Segment;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::source::{Unusable, decoder};
use super::write::{ObjectWriter, Store};

/// Where every segment's bytes pass on their way into the library: what is returned is stored, named and served. Sealing
/// (encryption) goes here.
fn stored(segment: Vec<u8>) -> Vec<u8> {
    segment
}

/// The borders of a track, found while its packets go by.
#[derive(Debug)]
pub struct Grid {
    delay: u64,
    rate: u64,
    wished_s: u64,
    /// The border that lies at the end of the last packet seen.
    next: Option<u64>,
    last: u64,
}

impl Grid {
    /// For a rendition with `delay` decoded frames before the first audible one.
    pub fn new(delay: u64, rate: u32) -> Self {
        Self { delay, rate: rate.into(), wished_s: 1, next: None, last: delay }
    }

    /// A packet that decodes to the frames from `start` to `end`: whether a segment begins with it.
    pub fn packet(&mut self, start: u64, end: u64) -> bool {
        let mut here = self.next.take() == Some(start);
        let wish = |s: u64| self.delay + s * self.rate;
        while wish(self.wished_s) < end {
            let at = wish(self.wished_s);
            self.wished_s = if self.wished_s < 4 { self.wished_s * 2 } else { self.wished_s + 4 };
            // A wish before `start` is one that lay in a packet after which the grid was not asked.
            if at.saturating_sub(start) > end - at {
                self.next = Some(end);
            } else if start > self.last {
                here = true;
            }
        }
        if here {
            self.last = start;
        }
        here
    }
}

/// What a fresh decoder must chew before a segment's body.
#[derive(Debug)]
pub enum Preroll {
    /// Always so many packets.
    Packets(usize),
    /// As few as make the body bit-exact.
    Search(Search),
}

/// How the least pre-roll is searched.
#[derive(Debug)]
pub struct Search {
    /// The decoder to try it with.
    pub init: Init,
    /// So many are tried first.
    pub least: usize,
    /// If not even so many are enough, they are taken all the same.
    pub most: usize,
    /// Taken beyond what is enough: packets that are to sound, about right, before the body.
    pub spare: usize,
}

impl Preroll {
    const fn most(&self) -> usize {
        match self {
            Self::Packets(n) => *n,
            Self::Search(s) => s.most + s.spare,
        }
    }
}

/// Packets at the start of a body that must be right for a pre-roll to be enough: what a decoder remembers beyond the bit
/// reservoir is one packet (MP3: overlap and synthesis memory), so an error would show in the first two.
const COMPARED: usize = 4;

#[derive(Debug)]
struct Packet {
    data: Vec<u8>,
    frames: u32,
    print: u64,
}

/// Cuts one rendition.
#[derive(Debug)]
pub struct Cutter<'a> {
    store: &'a Store,
    object: ObjectWriter<'a>,
    preroll: Preroll,
    tail: usize,
    /// Packets that are still needed; the first is packet number `base`.
    window: VecDeque<Packet>,
    base: u64,
    /// Where the segment that is not yet written begins: packet and frame.
    from: (u64, u64),
    /// Packets that begin later segments.
    borders: VecDeque<u64>,
    segments: Vec<SegmentRef>,
}

/// A rendition that was cut.
#[derive(Debug)]
pub struct Cut {
    /// The object.
    pub object: Digest,
    /// Its size, in bytes.
    pub size: u64,
    /// Its index pages.
    pub index: Vec<IndexRef>,
}

impl<'a> Cutter<'a> {
    /// A cutter whose segments end with copies of the `tail` packets that follow.
    pub fn new(store: &'a Store, preroll: Preroll, tail: usize) -> io::Result<Self> {
        let object = store.writer()?;
        let (window, borders) = (VecDeque::new(), VecDeque::new());
        Ok(Self { store, object, preroll, tail, window, base: 0, from: (0, 0), borders, segments: vec![] })
    }

    /// Whether fingerprints of decoded packets are of use to [`Cutter::push`].
    pub const fn wants_prints(&self) -> bool {
        matches!(self.preroll, Preroll::Search(..))
    }

    /// The next packet; `begins` if a segment begins with it. `print` is a fingerprint of what it decodes to.
    pub fn push(&mut self, data: Vec<u8>, frames: u32, print: u64, begins: bool) -> Result<(), Unusable> {
        let number = self.base + self.window.len() as u64;
        if begins && number > self.from.0 {
            self.borders.push_back(number);
        }
        self.window.push_back(Packet { data, frames, print });
        if self.borders.front().is_some_and(|&to| to + self.tail as u64 <= number + 1) {
            self.write()?;
        }
        Ok(())
    }

    /// Writes the rest.
    pub fn finish(mut self) -> Result<Cut, Unusable> {
        while !self.borders.is_empty() {
            self.write()?;
        }
        self.borders.push_back(self.base + self.window.len() as u64);
        self.write()?;
        let mut index = Vec::new();
        let mut offset = 0;
        for page in self.segments.chunks(SEGMENTS_PER_PAGE) {
            let object = self.store.put(&encode(&IndexPage::new(page))).map_err(Unusable::Store)?;
            index.push(IndexRef { object, offset, first_frame: page[0].first_frame });
            offset += page.iter().map(|s| u64::from(s.length)).sum::<u64>();
        }
        let (object, size) = self.object.finish().map_err(Unusable::Store)?;
        Ok(Cut { object, size, index })
    }

    /// Writes the segment that ends at the first border.
    fn write(&mut self) -> Result<(), Unusable> {
        let Some(to) = self.borders.pop_front() else { return Ok(()) };
        let (start, end) = ((self.from.0 - self.base) as usize, (to - self.base) as usize);
        let preroll = self.preroll_of(start, end)?;
        let data = |from: usize, to: usize| self.window.range(from..to).map(|p| p.data.as_slice()).collect();
        let segment = Segment {
            first_packet: self.from.0,
            first_frame: self.from.1,
            preroll: data(start - preroll, start),
            body: data(start, end),
            tail: data(end, (end + self.tail).min(self.window.len())),
        };
        let bytes = segment.encode();
        // What a reader would refuse is refused here.
        Segment::decode(&bytes).map_err(|e| Unusable::Cut(e.to_string()))?;
        let bytes = stored(bytes);
        if bytes.len() > MAX_SEGMENT {
            return Err(Unusable::Cut("a segment of more than 16 MiB".into()));
        }
        let (length, digest) = (bytes.len() as u32, Digest::of(&bytes));
        self.segments.push(SegmentRef { length, first_frame: self.from.1, digest });
        self.object.write(&bytes).map_err(Unusable::Store)?;
        let frames: u64 = self.window.range(start..end).map(|p| u64::from(p.frames)).sum();
        self.from = (to, self.from.1 + frames);
        // What later pre-rolls need stays.
        let spent = end.saturating_sub(self.preroll.most());
        self.window.drain(..spent);
        self.base += spent as u64;
        Ok(())
    }

    /// How many packets before `start` of the window the body needs.
    fn preroll_of(&self, start: usize, end: usize) -> Result<usize, Unusable> {
        let most = self.preroll.most().min(start);
        let Preroll::Search(search) = &self.preroll else { return Ok(most) };
        for n in search.least..search.most.min(start) {
            let mut decoder = decoder(&search.init).map_err(|e| Unusable::Cut(e.to_string()))?;
            let mut pcm = Vec::new();
            let mut exact = true;
            for (i, packet) in self.window.range(start - n..end.min(start + COMPARED)).enumerate() {
                let packet_ref = PacketRef::new(0, Timestamp::new(0), Duration::ZERO, &packet.data);
                match decoder.decode_ref(&packet_ref) {
                    Ok(sound) if i >= n => {
                        sound.copy_to_vec_interleaved(&mut pcm);
                        exact = fingerprint(&pcm) == packet.print;
                    }
                    Ok(_) => {}
                    Err(_) if i >= n => exact = false,
                    Err(_) => {}
                }
                if !exact {
                    break;
                }
            }
            if exact {
                return Ok((n + search.spare).min(most));
            }
        }
        Ok(most)
    }
}

/// A number that differs when a single bit of a single sample does (FxHash; not against an adversary).
pub fn fingerprint(pcm: &[f32]) -> u64 {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let (pairs, rest) = pcm.as_chunks::<2>();
    let mix = |h: u64, x: u64| (h.rotate_left(5) ^ x).wrapping_mul(K);
    let h = pairs.iter().fold(1, |h, [a, b]| mix(h, u64::from(a.to_bits()) << 32 | u64::from(b.to_bits())));
    rest.iter().fold(h, |h, a| mix(h, u64::from(a.to_bits())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(delay: u64, rate: u32, packet: u64, packets: u64) -> Vec<u64> {
        let mut grid = Grid::new(delay, rate);
        (0..packets).map(|i| i * packet).filter(|&s| grid.packet(s, s + packet)).collect()
    }

    #[test]
    fn borders_are_the_nearest_packet_borders() {
        // 1, 2, 4, 8, 12 s of packets of 0.3 s.
        assert_eq!(grid(0, 1_000, 300, 45), [900, 2_100, 3_900, 8_100, 12_000]);
        // Delay counts; half-way goes to the earlier border.
        assert_eq!(grid(100, 1_000, 200, 10), [1_000]);
        assert_eq!(grid(0, 1_000, 200, 11), [1_000, 2_000]);
        // Packets longer than the wishes are apart: each border once, never the first packet.
        assert_eq!(grid(0, 1_000, 8_000, 4), [8_000, 16_000, 24_000]);
        assert_eq!(grid(0, 1_000, 3_000, 3), [3_000]);
    }

    #[test]
    fn every_bit_counts() {
        let a = [0.1f32, -0.5, 0.25];
        for i in 0..3 {
            let mut b = a;
            b[i] = f32::from_bits(b[i].to_bits() ^ 1);
            assert_ne!(fingerprint(&a), fingerprint(&b));
        }
        assert_eq!(fingerprint(&a), fingerprint(&a.clone()));
    }
}
