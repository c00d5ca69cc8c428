//! Decoded frames into the ring: gain, conversion to the output's rate, markers, and never more than the ring holds.
//!
//! *Staged*: frames made and not yet in the ring; more is decoded only when nothing is staged, so that it stays small.
//! *Headroom*: the part of the ring that ordinary decoding leaves free; a flush prepares the first new frames there while
//! the old ones still play.
//!
//! *Seam*: what is kept back from the ring until it is known what follows: the last 10 ms of a track so far, or, where a
//! piece has a tail, what that decodes to. *Splice*: another rendition follows. Both lie on one grid, the output's frames
//! counted from the track's first; a converter begins at a frame where its two clocks meet, so that what it gives lies on
//! the grid; and the two are cross-faded over what was kept back. Exact to the grid; a track that was converted in one go
//! with the one before begins within half a frame of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::Instant;

use jukebox_board::output::Content;
use jukebox_core::sound::EntryId;
use rtrb::{Consumer, Producer, RingBuffer};

use super::convert::Converter;
use super::cross::Cross;
use super::render::{Kind, Marker};
use super::shared::Controls;

/// What the ring is filled to, in milliseconds.
pub(crate) const RING_MS: u32 = 2_000;
/// What a flush prepares before the old sound is dropped: two of the longest usual periods.
const READY_MS: u32 = 100;
/// Beyond [`RING_MS`]: two flushes in a row, and what the device holds.
const HEADROOM_MS: u32 = 500;
/// Length of a cross-fade between renditions.
const FADE_MS: u32 = 10;
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
    /// Rate at which positions are told: the original's.
    pub(crate) clock: u32,
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
    /// Ring frame of the track's first frame; before the ring's first if the track was begun further in.
    origin: i64,
    seam: Option<Seam>,
    fade: Fade,
    /// Ring frame at which the track ends that was ended last: what a converter gives beyond is nobody's.
    edge: u64,
    /// Where the piece began that was begun last.
    piece: u64,
    /// The track before is mixed in, which ends later than this one begins.
    cross: Option<Cross>,
    /// A flush whose old frames still play. It dies with the ring that it is about.
    flushing: Option<(Instant, u64)>,
}

/// Where a piece ended that may be followed by another rendition, in frames of the ring.
#[derive(Clone, Copy)]
struct Seam {
    /// Nothing from here on goes into the ring.
    kept: u64,
    /// End of the piece's body.
    end: u64,
}

/// A cross-fade on its way.
#[derive(Default)]
struct Fade {
    /// Frames still to be left out of what the converter gives: they lie before the fade.
    skip: u64,
    /// The old rendition, interleaved, and how many of its samples were used.
    old: Vec<f32>,
    used: usize,
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
        let (pushed, gone, piece, origin, seam, fade, edge) = (0, 0, 0, 0, None, Fade::default(), u64::MAX);
        let cross = None;
        let feed = Self {
            frames,
            markers,
            controls,
            rate,
            pushed,
            staged,
            gone,
            waiting,
            converter,
            start,
            origin,
            seam,
            fade,
            edge,
            piece,
            cross,
            flushing,
        };
        (feed, (out, marks))
    }

    pub(crate) const fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes over what was not heard at another rate, if anything: the device that came is not the one that went.
    pub(crate) fn carry(&mut self, mut old: Feed, unheard: (Vec<f32>, u64, Vec<Marker>)) -> bool {
        old.end_cross();
        old.flush_converter();
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
        let scale = |frame: u64| frame.saturating_sub(first) * to / from;
        self.piece = scale(old.piece);
        self.seam = old.seam.map(|s| Seam { kept: scale(s.kept), end: scale(s.end) });
        self.fade.skip = old.fade.skip * to / from;
        self.origin = (old.origin - first as i64) * to as i64 / from as i64;
        self.start = old.start;
        let rate = self.start.map(|(s, _)| s.rate).filter(|&rate| rate != self.rate);
        self.converter = rate.and_then(|rate| Converter::new(rate, self.rate));
        true
    }

    /// Frames ever put into the ring.
    pub(crate) const fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Whether everything made is in the ring, but for what a seam keeps back.
    pub(crate) fn is_clear(&self) -> bool {
        self.free() == 0 && self.waiting.is_empty()
    }

    /// Frames are left in the converter, and the track is at its end.
    pub(crate) const fn owes(&self) -> bool {
        self.converter.is_some() && self.start.is_none()
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
        self.edge = u64::MAX;
        let mut left_out = 0;
        if start.rate != self.rate && self.converter.is_none() {
            left_out = self.convert(start);
        }
        let start = Start { at: start.at + left_out, ..start };
        let late = self.converter.as_ref().map_or(0, Converter::late);
        self.origin = self.here() as i64 - late as i64 - self.grid(start.at, start.rate) as i64;
        let begins = self.cross.as_ref().filter(|c| !c.begun).map(Cross::middle);
        self.start = Some((start, begins.is_some()));
        if let Some(middle) = begins {
            // Until the middle it is the one before that plays.
            let next = self.marker(Kind::Music, middle, Start { content: Content::Float, ..start });
            self.cross.iter_mut().for_each(|c| (c.next, c.begun) = (Some(next), true));
        }
        left_out
    }

    /// The track that goes on ends after `total` frames of the original. Its rest is put with [`Feed::put_under`], and the
    /// one that is begun next is cross-faded with it: equal power, from here to its end.
    pub(crate) fn cross(&mut self, total: u64) {
        let Some((start, _)) = self.start.take() else { return };
        self.seam = None;
        self.drop_fade();
        self.edge = u64::MAX;
        let from = self.pushed + self.pending();
        let frames = (u128::from(total) * u128::from(self.rate)).div_ceil(start.clock.max(1).into());
        let end = (self.origin + frames as i64).max(0) as u64;
        // What is mixed are no integers any more.
        self.mark(Kind::Music, from, Start { content: Content::Float, ..start });
        self.cross = Some(Cross::new(from, end.saturating_sub(from), self.converter.take()));
    }

    /// Whether two tracks overlap here.
    pub(crate) const fn is_crossing(&self) -> bool {
        self.cross.is_some()
    }

    /// Whether the track that ends has to give more before what is staged can be mixed.
    pub(crate) fn wants_under(&self) -> bool {
        let there = self.pushed + self.pending();
        self.cross.as_ref().is_some_and(|c| c.wants(there))
    }

    /// Takes frames of the track that ends.
    pub(crate) fn put_under(&mut self, frames: &[f32]) {
        if let Some(cross) = &mut self.cross {
            cross.put(frames);
            self.mix();
        }
    }

    /// The track that ends has given all.
    pub(crate) fn end_under(&mut self) {
        if let Some(cross) = &mut self.cross {
            cross.end();
            self.mix();
        }
    }

    /// The track that ends is heard no longer; the next one goes on by itself.
    pub(crate) fn end_cross(&mut self) {
        if let Some(cross) = self.cross.take() {
            self.waiting.extend(cross.next);
        }
    }

    /// Mixes what both tracks have given. A marker comes when it is sure that its frame is not taken back.
    fn mix(&mut self) {
        let Some(cross) = &mut self.cross else { return };
        let from = self.gone + cross.mixed().saturating_sub(self.pushed) as usize * 2;
        cross.mix(self.staged.get_mut(from..).unwrap_or_default());
        let (mixed, over) = (cross.mixed(), cross.is_over());
        if let Some(next) = cross.next.take_if(|m| m.ring < mixed || over) {
            self.waiting.push_back(next);
        }
        if over {
            self.cross = None;
            if let Some((start, true)) = self.start {
                self.mark(Kind::Music, mixed, start);
            }
        }
    }

    /// The track goes on in another rendition, whose first frame, `start.at`, lies at the seam, or before it if the seam's
    /// segment had no tail. Returns how many of the frames that come are to be left out.
    pub(crate) fn splice(&mut self, start: Start) -> u64 {
        let Some(Seam { kept, .. }) = self.seam.take() else { return self.begin(start) };
        let spoilt = self.settling();
        self.flush_converter();
        self.drop_fade();
        let left_out = self.convert(start);
        let start = Start { at: start.at + left_out, ..start };
        let end = self.pushed + self.pending();
        let begins = self.origin + self.grid(start.at, start.rate) as i64;
        // What filters give first and last leans on what is not there: the fade keeps off, as far as there is room.
        let fade = self.frames_of(FADE_MS);
        let latest = (end.saturating_sub(fade + spoilt) as i64).max(begins);
        let at = (begins + self.settling() as i64).min(latest).max(kept as i64).max(self.pushed as i64) as u64;
        let from = self.gone + at.saturating_sub(self.pushed) as usize * 2;
        // A hole is silence of its length.
        self.staged.resize(self.staged.len().max(from), 0.0);
        let mut old = self.staged.split_off(from);
        old.truncate(fade as usize * 2);
        let length = (old.len() / 2) as u64;
        self.fade = Fade { skip: (at as i64 - begins).max(0) as u64, old, used: 0 };
        self.piece = at;
        self.start = Some((start, true));
        self.mark(Kind::Music, at, Start { content: Content::Float, ..start });
        if length > 0 {
            self.mark(Kind::Music, at + length, start);
        }
        left_out
    }

    /// Whether a piece that is spliced on should begin before its body.
    pub(crate) fn wants_lead(&self) -> bool {
        self.seam.is_some_and(|s| s.kept < s.end)
    }

    /// Stages interleaved stereo.
    pub(crate) fn put(&mut self, frames: &[f32]) {
        self.tidy();
        if let Some((start, marked @ false)) = &mut self.start
            && !frames.is_empty()
        {
            *marked = true;
            let start = *start;
            self.mark(Kind::Music, self.here(), start);
        }
        self.stage(frames);
        if self.start.is_some() {
            let end = self.here();
            let kept = end.saturating_sub(self.frames_of(FADE_MS) + self.settling()).max(self.pushed);
            self.seam = Some(Seam { kept, end });
        }
    }

    /// Stages what comes after the piece's body, to be heard only if the next piece is faded in over it.
    pub(crate) fn put_tail(&mut self, frames: &[f32]) {
        if let Some(seam) = &mut self.seam {
            seam.kept = seam.end;
            self.stage(frames);
        }
    }

    fn stage(&mut self, frames: &[f32]) {
        let before = self.staged.len();
        match &mut self.converter {
            Some(converter) => converter.put(frames, &mut self.staged),
            None => self.staged.extend_from_slice(frames),
        }
        self.fade_in(before);
        self.mix();
    }

    /// The track that was begun ends here, with audible frame `total` of the original.
    pub(crate) fn end(&mut self, total: u64) {
        let Some((start, _)) = self.start.take() else { return };
        self.seam = None;
        self.drop_fade();
        if start.rate != start.clock {
            let frames = (u128::from(total) * u128::from(self.rate)).div_ceil(start.clock.max(1).into());
            self.edge = (self.origin + frames as i64).max(0) as u64;
        }
        let end = Start { at: total, rate: start.clock, ..start };
        self.mark(Kind::End, self.here().min(self.edge), end);
    }

    /// The music breaks off here: what is missing is nobody's underrun.
    pub(crate) fn break_off(&mut self, generation: u32) {
        if let Some(cross) = self.cross.take() {
            self.staged.truncate(self.gone + cross.mixed().saturating_sub(self.pushed) as usize * 2);
        }
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
        self.flush_converter();
        self.drop_fade();
        let end = self.seam.take().map_or(self.edge, |s| s.end).max(self.pushed);
        let keep = self.pending().min(end - self.pushed) as usize;
        self.staged.truncate(self.gone + keep * 2);
    }

    /// Forgets what is not in the ring. A new generation begins here; until [`Feed::end_flush`] the old plays on.
    pub(crate) fn cut(&mut self, generation: u32) {
        self.staged.clear();
        self.gone = 0;
        self.waiting.clear();
        self.converter = None;
        self.start = None;
        self.seam = None;
        self.cross = None;
        self.drop_fade();
        self.edge = u64::MAX;
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
            let frames = self.free().min(room).min(limit) as usize;
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

    fn mark(&mut self, kind: Kind, ring: u64, s: Start) {
        let marker = self.marker(kind, ring, s);
        self.waiting.push_back(marker);
    }

    fn marker(&self, kind: Kind, ring: u64, s: Start) -> Marker {
        let content = if s.rate == self.rate { s.content } else { Content::Float };
        let (generation, entry, rate) = (s.generation, s.entry, s.clock);
        let at = if kind == Kind::End { s.at } else { self.told(ring, s) };
        Marker { ring, kind, generation, entry, at, rate, content }
    }

    /// The original's frame at a frame of the ring.
    fn told(&self, ring: u64, s: Start) -> u64 {
        let grid = (ring as i64 - self.origin).max(0) as u64;
        (u128::from(grid) * u128::from(s.clock) / u128::from(self.rate)) as u64
    }

    /// A frame of a rendition as a frame of the grid.
    fn grid(&self, at: u64, rate: u32) -> u64 {
        (u128::from(at) * u128::from(self.rate) / u128::from(rate.max(1))) as u64
    }

    /// Begins a conversion if one is needed; how many frames of `start` on come before both clocks meet.
    fn convert(&mut self, start: Start) -> u64 {
        if start.rate == self.rate {
            return 0;
        }
        self.converter = Converter::new(start.rate, self.rate);
        start.at.next_multiple_of(Converter::step(start.rate, self.rate)) - start.at
    }

    /// Frames at either end of what the converter makes that its filter has not heard enough for.
    fn settling(&self) -> u64 {
        self.converter.as_ref().map_or(0, |c| c.delay() as u64)
    }

    /// All that the converter holds comes out, beyond a seam too.
    fn flush_converter(&mut self) {
        self.tidy();
        if let Some(converter) = self.converter.take() {
            let before = self.staged.len();
            converter.finish(&mut self.staged);
            self.fade_in(before);
        }
    }

    /// Blends what was staged from sample `from` on with the old rendition.
    fn fade_in(&mut self, from: usize) {
        let skip = (self.fade.skip as usize * 2).min(self.staged.len() - from);
        self.fade.skip -= (skip / 2) as u64;
        self.staged.drain(from..from + skip);
        let Fade { old, used, .. } = &mut self.fade;
        let length = old.len() as f32 / 2.0;
        let first = *used / 2;
        let new = self.staged[from..].as_chunks_mut::<2>().0;
        for (i, (new, old)) in new.iter_mut().zip(old[*used..].as_chunks::<2>().0).enumerate() {
            let weight = ((first + i) as f32 + 0.5) / length;
            *new = [new[0] * weight + old[0] * (1.0 - weight), new[1] * weight + old[1] * (1.0 - weight)];
            *used += 2;
        }
        if *used == old.len() {
            (self.fade.old, self.fade.used) = (vec![], 0);
        }
    }

    fn drop_fade(&mut self) {
        self.fade = Fade::default();
    }

    /// Ring frame of what is put next.
    fn here(&self) -> u64 {
        let coming = self.converter.as_ref().map_or(0, Converter::owed);
        self.pushed + self.pending() + coming.saturating_sub(self.fade.skip)
    }

    /// Staged frames that no seam keeps back, and no cross-fade.
    fn free(&self) -> u64 {
        let mixed = self.cross.as_ref().map_or(u64::MAX, |c| c.mixed().saturating_sub(self.pushed));
        self.pending().min(self.seam.map_or(u64::MAX, |s| s.kept.saturating_sub(self.pushed))).min(mixed)
    }

    fn pending(&self) -> u64 {
        ((self.staged.len() - self.gone) / 2) as u64
    }

    fn frames_of(&self, ms: u32) -> u64 {
        u64::from(self.rate) * u64::from(ms) / 1_000
    }

    fn tidy(&mut self) {
        self.staged.drain(..self.gone);
        self.gone = 0;
    }
}
