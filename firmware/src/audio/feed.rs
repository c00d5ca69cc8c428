//! Decoded frames into the ring: gain, conversion to the output's rate, markers, and never more than the ring holds.
//!
//! *Staged*: frames made and not yet in the ring; more is decoded only when nothing is staged, so that it stays small.
//! *Headroom*: the part of the ring that ordinary decoding leaves free; a flush prepares the first new frames there while
//! the old ones still play.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::Instant;

use jukebox_board::output::Content;
use jukebox_core::sound::EntryId;
use rtrb::{Consumer, Producer, RingBuffer};

use super::convert::Converter;
use super::render::{Kind, Marker};
use super::shared::Controls;

/// What the ring is filled to, in milliseconds.
pub(crate) const RING_MS: u32 = 2_000;
/// What a flush prepares before the old sound is dropped: two of the longest usual periods.
const READY_MS: u32 = 100;
/// Beyond [`RING_MS`]: two flushes in a row, and what the device holds.
const HEADROOM_MS: u32 = 500;
/// Markers in the ring's queue; those beyond wait, and with them the frames that they stand before.
const MARKERS: usize = 64;

/// What begins with the next frame put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) generation: u32,
    pub(crate) entry: EntryId,
    /// Audible frame.
    pub(crate) at: u64,
    /// Frames a second.
    pub(crate) rate: u32,
    pub(crate) content: Content,
    /// Frames before may be converted in one go with these.
    pub(crate) joined: bool,
}

pub(crate) struct Feed {
    frames: Producer<f32>,
    markers: Producer<Marker>,
    controls: Arc<Controls>,
    rate: u32,
    pushed: u64,
    staged: Vec<f32>,
    /// Samples of `staged` that are in the ring.
    gone: usize,
    waiting: VecDeque<Marker>,
    converter: Option<Converter>,
    /// The track that goes on; whether its marker is set, which comes with its first frame.
    start: Option<(Start, bool)>,
    /// Where the piece began that was begun last.
    piece: u64,
    /// A flush whose old frames still play. It dies with the ring that it is about.
    flushing: Option<(Instant, u64)>,
}

/// The far ends of a feed.
pub(crate) type Ends = (Consumer<f32>, Consumer<Marker>);

impl Feed {
    pub(crate) fn new(rate: u32, controls: Arc<Controls>) -> (Self, Ends) {
        let samples = u64::from(rate) * u64::from(RING_MS + HEADROOM_MS) / 1_000 * 2;
        let (frames, out) = RingBuffer::new(samples as usize);
        let (markers, marks) = RingBuffer::new(MARKERS);
        controls.pushed.store(0, Release);
        controls.flush.store(0, Release);
        let (staged, waiting, converter, start, flushing) = (vec![], VecDeque::new(), None, None, None);
        let (pushed, gone, piece) = (0, 0, 0);
        let feed =
            Self { frames, markers, controls, rate, pushed, staged, gone, waiting, converter, start, piece, flushing };
        (feed, (out, marks))
    }

    pub(crate) const fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes over what was not heard at another rate, if anything: the device that came is not the one that went.
    pub(crate) fn carry(&mut self, mut old: Feed, unheard: (Vec<f32>, u64, Vec<Marker>)) -> bool {
        old.finish();
        let (mut frames, first, mut markers) = unheard;
        frames.extend_from_slice(&old.staged[old.gone..]);
        markers.append(&mut old.waiting.into());
        if frames.is_empty() {
            return false;
        }
        if let Some(mut converter) = Converter::new(old.rate, self.rate) {
            converter.put(&frames, &mut self.staged);
            converter.finish(&mut self.staged);
        }
        let (from, to) = (u64::from(old.rate), u64::from(self.rate));
        let moved = |m: Marker| Marker { ring: (m.ring - first) * to / from, content: Content::Float, ..m };
        self.waiting.extend(markers.into_iter().map(moved));
        self.piece = old.piece.saturating_sub(first) * to / from;
        self.start = old.start;
        let rate = self.start.map(|(s, _)| s.rate).filter(|&rate| rate != self.rate);
        self.converter = rate.and_then(|rate| Converter::new(rate, self.rate));
        true
    }

    /// Frames ever put into the ring.
    pub(crate) const fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Whether everything made is in the ring.
    pub(crate) fn is_clear(&self) -> bool {
        self.gone == self.staged.len() && self.waiting.is_empty()
    }

    /// Frames are left in the converter.
    pub(crate) const fn owes(&self) -> bool {
        self.converter.is_some()
    }

    /// Frames that were prepared for a flush at `point`; whether they are enough.
    pub(crate) fn is_ready(&self, point: u64) -> bool {
        self.pushed.saturating_sub(point) >= self.frames_of(READY_MS)
    }

    /// A flush whose old frames still play: since when, and the ring frame at which the new ones begin.
    pub(crate) const fn flushing(&self) -> Option<(Instant, u64)> {
        self.flushing
    }

    /// The flush is to wait no longer: the ring frame at which the new frames begin.
    pub(crate) fn end_flush(&mut self) -> Option<u64> {
        self.flushing.take().map(|(_, point)| point)
    }

    /// What is put from here on is another piece.
    pub(crate) fn begin_piece(&mut self) {
        self.piece = self.here();
    }

    /// Begins a track, or goes on elsewhere in one. Returns how many of the frames that come are to be left out: a
    /// conversion begins at a frame where both clocks meet.
    pub(crate) fn begin(&mut self, start: Start) -> u64 {
        let fits = self.converter.as_ref().is_some_and(|c| start.joined && c.from() == start.rate);
        if !fits {
            self.finish();
        }
        let mut left_out = 0;
        if start.rate != self.rate && self.converter.is_none() {
            self.converter = Converter::new(start.rate, self.rate);
            left_out = start.at.next_multiple_of(Converter::step(start.rate, self.rate)) - start.at;
        }
        self.start = Some((Start { at: start.at + left_out, ..start }, false));
        left_out
    }

    /// Stages interleaved stereo.
    pub(crate) fn put(&mut self, frames: &[f32]) {
        self.tidy();
        if let Some((start, marked @ false)) = &mut self.start
            && !frames.is_empty()
        {
            *marked = true;
            let start = *start;
            self.mark(Kind::Music, start);
        }
        match &mut self.converter {
            Some(converter) => converter.put(frames, &mut self.staged),
            None => self.staged.extend_from_slice(frames),
        }
    }

    /// The track that was begun ends here, with audible frame `total`.
    pub(crate) fn end(&mut self, total: u64) {
        if let Some((start, _)) = self.start.take() {
            self.mark(Kind::End, Start { at: total, ..start });
        }
    }

    /// The music breaks off here: what is missing is nobody's underrun.
    pub(crate) fn break_off(&mut self, generation: u32) {
        self.finish();
        self.start = None;
        self.waiting.push_back(Marker::nothing(self.pushed + self.pending(), generation));
    }

    /// Takes back the piece that was begun last, as far as it is not in the ring; what is in it plays, and breaks off.
    pub(crate) fn take_back(&mut self, generation: u32) {
        self.finish();
        let keep = self.piece.saturating_sub(self.pushed).min(self.pending()) as usize;
        self.staged.truncate(self.gone + keep * 2);
        let piece = self.piece;
        self.waiting.retain(|m| m.ring < piece || (m.ring == piece && m.kind == Kind::End));
        self.break_off(generation);
    }

    /// Nothing follows without a seam: what the converter holds comes out.
    pub(crate) fn finish(&mut self) {
        self.tidy();
        if let Some(converter) = self.converter.take() {
            converter.finish(&mut self.staged);
        }
    }

    /// Forgets what is not in the ring. A new generation begins here; until [`Feed::end_flush`] the old plays on.
    pub(crate) fn cut(&mut self, generation: u32) {
        self.staged.clear();
        self.gone = 0;
        self.waiting.clear();
        self.converter = None;
        self.start = None;
        self.waiting.push_back(Marker::nothing(self.pushed, generation));
        let since = self.flushing.map_or_else(Instant::now, |(since, _)| since);
        self.flushing = Some((since, self.pushed));
    }

    /// Moves what is staged into the ring, up to its level, or up to its brim; whether anything moved.
    pub(crate) fn pump(&mut self, brim: bool) -> bool {
        let mut moved = false;
        loop {
            // A marker goes before its first frame; an end, whose frame may never come, as soon as its last is staged.
            let mut limit = u64::MAX;
            while let Some(&marker) = self.waiting.front() {
                if self.markers.push(marker).is_err() {
                    limit = marker.ring - self.pushed;
                    break;
                }
                self.waiting.pop_front();
                moved = true;
            }
            let room = (self.frames.slots() / 2) as u64;
            let level = self.controls.unheard();
            let room = if brim { room } else { room.min(self.frames_of(RING_MS).saturating_sub(level)) };
            let frames = self.pending().min(room).min(limit) as usize;
            if frames == 0 {
                return moved;
            }
            let from = &self.staged[self.gone..self.gone + frames * 2];
            let (written, _) = self.frames.push_partial_slice(from);
            self.gone += written.len();
            self.pushed += (written.len() / 2) as u64;
            self.controls.pushed.store(self.pushed, Release);
            moved = true;
        }
    }

    fn mark(&mut self, kind: Kind, s: Start) {
        let ring = self.here();
        let content = if s.rate == self.rate { s.content } else { Content::Float };
        let (generation, entry) = (s.generation, s.entry);
        self.waiting.push_back(Marker { ring, kind, generation, entry, at: s.at, rate: s.rate, content });
    }

    /// Ring frame of what is put next.
    fn here(&self) -> u64 {
        self.pushed + self.pending() + self.converter.as_ref().map_or(0, Converter::owed)
    }

    fn pending(&self) -> u64 {
        ((self.staged.len() - self.gone) / 2) as u64
    }

    fn frames_of(&self, ms: u32) -> u64 {
        u64::from(self.rate) * u64::from(ms) / 1_000
    }

    fn tidy(&mut self) {
        if self.gone == self.staged.len() {
            self.staged.clear();
            self.gone = 0;
        }
    }
}
