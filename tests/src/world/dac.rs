//! A decoder, a ring and a DAC that are arithmetic: pieces in, frames out as time passes.
//!
//! All positions are at the rate of the original. A piece of another rendition is as long as the instants of its borders
//! say; where the rendition changes, what follows begins where the sound before it ended, because the packets for the fade
//! reach as far as the body of the other begins early.

use std::collections::{BTreeMap, HashSet, VecDeque};

use jukebox_core::library::{Digest, RenditionName};
use jukebox_core::sound::{EntryId, Heard, LivePiece, Order, OutputState, Piece, Report};
use jukebox_core::time::{Frames, Instant, Span};

use super::library::{Library, RATE};
use super::station::Station;

/// What the ring holds.
const RING_FRAMES: u64 = 2 * RATE as u64;

#[derive(Clone, Debug)]
struct Chunk {
    generation: u32,
    entry: EntryId,
    from: u64,
    frames: u64,
    last: bool,
    rendition: RenditionName,
    /// Stored bits of a second of it.
    bps: u64,
    digest: Digest,
    /// It is in [`Dac::heard_of`].
    noted: bool,
}

/// Which renditions sounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sounded {
    /// Frames of each, at the rate of the original.
    pub frames: BTreeMap<RenditionName, u64>,
    /// Stored bits of what sounded, times [`RATE`].
    bits: u128,
    /// How often the rendition changed within an entry.
    pub changes: u64,
    last: Option<(EntryId, RenditionName)>,
}

impl Sounded {
    fn count(&mut self, c: &Chunk, frames: u64) {
        *self.frames.entry(c.rendition).or_default() += frames;
        self.bits += u128::from(c.bps) * u128::from(frames);
        let now = (c.entry, c.rendition);
        self.changes += u64::from(self.last.replace(now).is_some_and(|l| l.0 == now.0 && l.1 != now.1));
    }

    /// All frames that sounded.
    pub fn total(&self) -> u64 {
        self.frames.values().sum()
    }

    /// Mean bit rate of what sounded, in kbit/s.
    pub fn kbps(&self) -> u64 {
        self.bits.checked_div(u128::from(self.total()) * 1_000).unwrap_or(0) as u64
    }
}

/// A change of rendition is bridged by the packets for the fade: two of 20 ms.
const BRIDGE: u64 = RATE as u64 / 25;

/// The sound end of the simulated world.
#[derive(Default)]
pub struct Dac {
    now: Instant,
    /// Microseconds of music that were due and not yet turned into frames.
    rest: u64,
    open: bool,
    /// Live radio.
    pub station: Station,
    /// What is played of it, and how many frames of that are in the ring or heard.
    live: Option<(LivePiece, u64)>,
    /// Segments that verify and cannot be decoded.
    pub spoiled: HashSet<Digest>,
    /// A piece that could not be played: nothing after it is decoded until it is forgotten or flushed.
    failed: Option<u64>,
    /// What its period was made at least, in milliseconds.
    least_period_ms: u32,
    /// No device: nothing is consumed.
    pub missing: bool,
    paused: bool,
    generation: u32,
    pieces: VecDeque<Piece>,
    ring: VecDeque<Chunk>,
    heard: Heard,
    moved_at: Instant,
    /// Every run of frames that was heard: entry, first frame, count; neighbours that join are one.
    pub sounded: Vec<(EntryId, u64, u64)>,
    /// Which renditions sounded.
    pub renditions: Sounded,
    /// Segments of which something sounded.
    pub heard_of: HashSet<Digest>,
    /// The last two entries that overlap, and where the second becomes the louder: so long before the end of the one and
    /// after the start of the other.
    crossing: Option<(EntryId, EntryId, u64)>,
    /// Rendition and end of what was put into the ring last, in this generation.
    put: Option<(EntryId, RenditionName, u64)>,
}

impl Dac {
    /// The sound end of a process that starts again: the same device, what was heard stays heard.
    pub fn restarted(&mut self) -> Self {
        let (spoiled, sounded) = (std::mem::take(&mut self.spoiled), std::mem::take(&mut self.sounded));
        let (renditions, heard_of) = (std::mem::take(&mut self.renditions), std::mem::take(&mut self.heard_of));
        Self { missing: self.missing, spoiled, sounded, renditions, heard_of, ..Self::default() }
    }

    /// When the next order or report could change anything: the ring has room for the next piece.
    pub fn next(&self) -> Option<Instant> {
        let playing = self.open && !self.missing && !self.paused && !self.ring.is_empty();
        (playing && !self.pieces.is_empty()).then(|| {
            let over = self.ring_frames().saturating_sub(RING_FRAMES) + 1;
            Instant(self.now.0 + over * 1_000_000 / u64::from(RATE) + 1)
        })
    }

    fn ring_frames(&self) -> u64 {
        self.ring.iter().map(|c| c.frames).sum()
    }

    /// Lets time pass and decodes what fits.
    pub fn advance(&mut self, now: Instant, library: &Library, disk: &HashSet<Digest>) -> Vec<Report> {
        let passed = now.since(self.now).0;
        self.now = now;
        let mut reports = Vec::new();
        self.station.pass(Span(passed));
        if self.open && !self.missing && !self.paused {
            let due = passed * u64::from(RATE) + self.rest;
            self.rest = due % 1_000_000;
            self.consume(due / 1_000_000);
        }
        while self.ring_frames() <= RING_FRAMES
            && let Some(p) = self.pieces.pop_front()
        {
            if p.generation != self.generation || self.failed.is_some() {
                continue;
            }
            let (seq, generation, entry, digest) = (p.seq, p.generation, p.entry, p.segment.digest);
            if !disk.contains(&digest) {
                self.failed = Some(seq);
                reports.push(Report::Torn { seq, generation, entry, digest });
                continue;
            }
            if self.spoiled.contains(&digest) {
                self.failed = Some(seq);
                reports.push(Report::Undecodable { seq, generation, entry, digest: Some(digest), why: "noise".into() });
                continue;
            }
            self.decode(&p, library);
            self.open(&mut reports);
            reports.push(Report::Decoded { seq: p.seq });
        }
        if let Some((piece, given)) = self.live.filter(|_| self.pieces.is_empty()) {
            self.open(&mut reports);
            if given == 0 {
                reports.push(Report::Decoded { seq: piece.seq });
            }
            let room = RING_FRAMES.saturating_sub(self.ring_frames());
            let came = self.station.take(Frames::new(room, RATE).span());
            let frames = came.0 * u64::from(RATE) / 1_000_000;
            let from = piece.at.0 * u64::from(RATE) / 1_000_000 + given;
            let (generation, entry, rendition) = (piece.generation, piece.entry, RenditionName::Original);
            if frames > 0 {
                self.ring.push_back(Chunk {
                    generation,
                    entry,
                    from,
                    frames,
                    last: false,
                    rendition,
                    bps: 0,
                    digest: Digest([0; 32]),
                    noted: true,
                });
            }
            self.live = Some((piece, given + frames));
        }
        reports
    }

    fn open(&mut self, reports: &mut Vec<Report>) {
        if !std::mem::replace(&mut self.open, true) {
            let state = if self.missing {
                OutputState::Missing { why: "unplugged".into() }
            } else {
                OutputState::Open { name: "dac".into(), rate: RATE, period_ms: self.period_ms() }
            };
            reports.push(Report::Output(state));
        }
    }

    fn decode(&mut self, p: &Piece, library: &Library) {
        let part = library.segments[&p.segment.digest];
        assert_eq!(
            (part.rate, part.rendition),
            (p.rendition.init.rate, p.rendition.name),
            "a piece names its rendition"
        );
        let (first, end) = (part.first, part.first + part.frames);
        let (mut from, mut until) = (part.to_original(p.from.clamp(first, end)), part.to_original(end));
        if let Some((entry, rendition, at)) = self.put
            && entry == p.entry
            && rendition != part.rendition
            && from.abs_diff(at) <= BRIDGE
        {
            from = at.min(until);
        }
        let before = self.put.replace((p.entry, part.rendition, until));
        if let Some((before, ..)) = before.filter(|_| p.overlap > Span(0)) {
            self.crossing = Some((before, p.entry, p.overlap.at_rate(RATE) / 2));
        }
        // What is the softer in a cross-fade is not told, and nothing here has a sound.
        let mut place = self.ring.len();
        match self.crossing {
            Some((_, second, half)) if second == p.entry => (from, until) = (from.max(half), until.max(half)),
            Some((first, second, half)) if first == p.entry => {
                until = until.min(part.to_original(p.rendition.frames).saturating_sub(half)).max(from);
                place = self.ring.iter().position(|c| c.entry == second).unwrap_or(place);
            }
            _ => {}
        }
        if until == from && self.crossing.is_some() {
            return;
        }
        self.ring.insert(
            place,
            Chunk {
                generation: p.generation,
                entry: p.entry,
                from,
                frames: until - from,
                last: p.last,
                rendition: part.rendition,
                bps: u64::from(part.bytes) * 8 * u64::from(part.rate) / part.frames.max(1),
                digest: p.segment.digest,
                noted: false,
            },
        );
    }

    fn consume(&mut self, mut frames: u64) {
        while frames > 0 {
            let only = self.ring.len() == 1;
            let Some(c) = self.ring.front_mut() else { return };
            let n = c.frames.min(frames);
            self.renditions.count(c, n);
            if !std::mem::replace(&mut c.noted, true) {
                self.heard_of.insert(c.digest);
            }
            match self.sounded.last_mut() {
                Some((e, first, count)) if *e == c.entry && *first + *count == c.from => *count += n,
                _ => self.sounded.push((c.entry, c.from, n)),
            }
            (c.from, c.frames, frames) = (c.from + n, c.frames - n, frames - n);
            (self.heard.music_frames, self.moved_at) = (self.heard.music_frames + n, self.now);
            (self.heard.generation, self.heard.entry) = (c.generation, c.entry);
            self.heard.at = Frames::new(c.from, RATE);
            self.heard.ended = c.last && c.frames == 0 && only;
            if c.frames == 0 {
                self.ring.pop_front();
            }
        }
    }

    /// Whether it would play what it gets.
    pub fn wants(&self) -> bool {
        !self.paused && !self.missing
    }

    /// When a frame of music left it last.
    pub fn moved_at(&self) -> Instant {
        self.moved_at
    }

    /// How often the device asks for frames, in milliseconds.
    pub fn period_ms(&self) -> u32 {
        self.least_period_ms.max(20)
    }

    /// The device reports an error.
    pub fn xrun(&mut self) {
        self.heard.xruns += 1;
    }

    /// Makes the period longer: the device is opened anew.
    pub fn lengthen_period(&mut self, ms: u32) -> Option<Report> {
        self.least_period_ms = ms;
        let state = OutputState::Open { name: "dac".into(), rate: RATE, period_ms: self.period_ms() };
        (self.open && !self.missing).then_some(Report::Output(state))
    }

    /// Plugs the device out or in.
    pub fn plug(&mut self, present: bool) -> Option<Report> {
        if !self.open || self.missing != present {
            self.missing = !present;
            return None;
        }
        self.missing = !present;
        Some(Report::Output(if present {
            OutputState::Open { name: "dac".into(), rate: RATE, period_ms: self.period_ms() }
        } else {
            OutputState::Missing { why: "unplugged".into() }
        }))
    }

    /// Takes an order.
    pub fn order(&mut self, order: Order) {
        match order {
            Order::Play(p) => self.pieces.push_back(p),
            Order::Live(p) => self.live = Some((p, 0)),
            Order::Flush { generation, more, fade_ms } => {
                self.generation = generation;
                self.crossing = None;
                self.failed = None;
                self.pieces.clear();
                self.live = None;
                // The old sound fades; without a successor it is gone.
                let mut left = if more { u64::from(fade_ms) * u64::from(RATE) / 1_000 } else { 0 };
                self.ring.retain_mut(|c| {
                    c.frames = c.frames.min(left);
                    left -= c.frames;
                    c.frames > 0
                });
            }
            Order::Forget { seq } => {
                self.pieces.retain(|p| p.seq <= seq);
                self.failed = self.failed.filter(|&failed| failed <= seq);
            }
            Order::Pause(on) => self.paused = on,
            Order::Volume { .. } => {}
            Order::Close => self.open = false,
        }
    }

    /// Where the sound is.
    pub fn heard(&self) -> Heard {
        let ring_ms = (self.ring_frames() * 1_000).div_ceil(u64::from(RATE)) as u32;
        Heard { ring_ms, live_ms: self.station.level().as_ms() as u32, ..self.heard }
    }
}
