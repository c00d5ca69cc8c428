//! The callback's body: ring in, stereo out. Allocates, locks, logs nothing and makes no system call.
//!
//! *Ring frame*: counts frames put into the ring since it was made; [`Marker`]s tell what lies where. *Run*: frames handed
//! to the device in one stretch, kept until they have left the DAC; the playhead is read off the run that is leaving. A
//! frame stays in the ring until it has left: a device that goes away takes nothing with it. *Gate*: 0 to 1, closed by
//! pause, flush and stop, moved in ramps only; volume is a second ramp beside it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use jukebox_board::output::{Content, Timing};
use jukebox_core::sound::{EntryId, Heard};
use jukebox_core::time::Frames;
use rtrb::Consumer;
use rtrb::chunks::ReadChunk;

use super::shared::{Controls, Told};

/// Skip, seek, and coming back after silence.
pub(crate) const FLUSH_MS: u32 = 5;
const PAUSE_MS: u32 = 10;
pub(crate) const STOP_MS: u32 = 50;
/// Runs that may wait for the DAC: two periods hold far fewer.
const RUNS: usize = 64;

/// Says what begins at a frame of the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marker {
    pub(crate) ring: u64,
    pub(crate) kind: Kind,
    pub(crate) generation: u32,
    pub(crate) entry: EntryId,
    /// Audible frame of the track, by its original's clock.
    pub(crate) at: u64,
    /// The original's rate.
    pub(crate) rate: u32,
    pub(crate) content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing is due.
    Nothing,
    /// Music, until the next marker.
    Music,
    /// The rendition's last frame lies before.
    End,
}

impl Marker {
    pub(crate) const fn nothing(ring: u64, generation: u32) -> Self {
        let (kind, entry, content) = (Kind::Nothing, EntryId(0), Content::Integer(1));
        Self { ring, kind, generation, entry, at: 0, rate: 0, content }
    }

    /// Whether it is the same one. A track without a frame ends where the one before did.
    fn is(&self, other: &Self) -> bool {
        (self.ring, self.kind, self.generation, self.entry) == (other.ring, other.kind, other.generation, other.entry)
    }
}

#[derive(Clone, Copy)]
struct Run {
    /// First frame, counted over what the device was given since it was opened.
    out: u64,
    frames: u64,
    ring: u64,
    marker: Marker,
    /// Whether these are ring frames, or silence beside them.
    music: bool,
}

/// What callers and decoder wish, as of one call.
#[derive(Clone, Copy)]
struct Wishes {
    paused: bool,
    stopping: bool,
    generation: u32,
    flush: u64,
    fade_ms: u32,
}

pub(crate) struct Renderer {
    frames: Consumer<f32>,
    markers: Consumer<Marker>,
    controls: Arc<Controls>,
    rate: u32,
    /// Next ring frame to be handed over.
    read: u64,
    /// Ring frames that are gone for good; at most `read`.
    released: u64,
    /// What `read` lies in.
    now: Marker,
    /// Markers that come before those in the queue: a device went away, and `read` back.
    again: VecDeque<Marker>,
    runs: VecDeque<Run>,
    written: u64,
    last: u64,
    epoch: u32,
    gate: f32,
    /// Milliseconds in which the gate opens.
    rise_ms: u32,
    /// Volume now, where it goes, and how much a frame. `None` before the first call.
    volume: Option<(f32, f32, f32)>,
    wish: (f32, u32),
    heard: Heard,
}

impl Renderer {
    /// `rise_ms`: ramp of the very first sound.
    pub(crate) fn new(
        frames: Consumer<f32>,
        markers: Consumer<Marker>,
        controls: Arc<Controls>,
        rate: u32,
        rise_ms: u32,
    ) -> Self {
        let (again, runs) = (VecDeque::with_capacity(RUNS), VecDeque::with_capacity(RUNS));
        let now = Marker::nothing(0, 0);
        let heard = controls.snapshot.read().heard;
        let (read, released, written, last, epoch, wish) = (0, 0, 0, 0, 0, (1.0, 0));
        let (gate, volume) = (0.0, None);
        let new = Self {
            frames,
            markers,
            controls,
            rate,
            read,
            released,
            now,
            again,
            runs,
            written,
            last,
            epoch,
            gate,
            rise_ms,
            volume,
            wish,
            heard,
        };
        new.publish(Timing { left: 0, epoch: 0, at: std::time::Instant::now() }, 0);
        new
    }

    /// Fills `out` with interleaved stereo; says what is in it.
    pub(crate) fn fill(&mut self, out: &mut [f32], timing: Timing) -> Content {
        self.account(timing);
        // Pause comes first: who sees it ended sees the flushes that were ordered before.
        let paused = self.controls.paused.load(Acquire);
        let generation = self.controls.generation.load(Relaxed);
        let (stopping, flush) = (self.controls.stopping.load(Relaxed), self.controls.flush.load(Acquire));
        let fade_ms = self.controls.fade_ms.load(Relaxed).max(FLUSH_MS);
        let wishes = Wishes { paused, stopping, generation, flush, fade_ms };
        self.wish_volume();
        let mut content = Content::Integer(1); // silence
        let mut rest = &mut *out;
        while !rest.is_empty() {
            let done = self.stretch(rest, wishes, &mut content);
            rest = &mut rest[done * 2..];
        }
        self.last = (out.len() / 2) as u64;
        self.publish(timing, self.last);
        content
    }

    /// Whether a device without a clock should be given `frames` now. `patient`: not if more may still come.
    pub(crate) fn is_due(&mut self, frames: u64, patient: bool) -> bool {
        let paused = self.controls.paused.load(Acquire) || self.controls.stopping.load(Relaxed);
        let void = self.is_void(self.controls.generation.load(Relaxed)) && self.gate == 0.0;
        if self.controls.flush.load(Acquire) > self.read || (paused && self.gate > 0.0) {
            return true;
        }
        let there = self.there();
        let queued = self.markers.read_chunk(self.markers.slots());
        let queued = queued.as_ref().ok().and_then(|c| c.as_slices().1.last().or(c.as_slices().0.last()));
        let last = queued.or(self.again.back()).unwrap_or(&self.now).kind;
        // The end of a track wants one call more, in which the DAC is told to have played it.
        let unsettled = self.next_marker().is_some() || self.runs.iter().any(|r| r.music);
        let (now, heard) = (&self.now, &self.heard);
        let told = heard.ended && (heard.generation, heard.entry) == (now.generation, now.entry);
        let ends = last != Kind::Music && (there > 0 || unsettled || (now.kind == Kind::End && !told));
        !paused && !void && (there >= frames || (!patient && ends))
    }

    /// The device is gone: go back to the first frame that did not leave it.
    pub(crate) fn rewind(&mut self) {
        if let Some(front) = self.runs.front() {
            let mut last = front.marker;
            let passed = std::mem::replace(&mut self.now, front.marker);
            self.read = front.ring;
            let mut again = VecDeque::with_capacity(RUNS);
            for m in self.runs.iter().map(|r| r.marker).chain([passed]) {
                if !m.is(&last) {
                    again.push_back(m);
                    last = m;
                }
            }
            again.extend(self.again.drain(..));
            self.again = again;
        }
        self.runs.clear();
        (self.written, self.last, self.epoch) = (0, 0, 0);
        (self.gate, self.rise_ms) = (0.0, FLUSH_MS);
        self.heard.xruns = 0;
        let at = std::time::Instant::now();
        self.publish(Timing { left: 0, epoch: 0, at }, 0);
    }

    /// Drops what a flush wants dropped, while no device asks.
    pub(crate) fn drop_flushed(&mut self) {
        let flush = self.controls.flush.load(Acquire);
        if flush > self.read {
            self.jump(flush);
            self.release(flush);
            let at = std::time::Instant::now();
            self.publish(Timing { left: 0, epoch: 0, at }, 0);
        }
    }

    /// All that was not heard: frames, their first ring frame, and markers, the first of which is the first frame's.
    pub(crate) fn into_unheard(mut self) -> (Vec<f32>, u64, Vec<Marker>) {
        let mut frames = vec![0.0; self.there() as usize * 2];
        self.copy(&mut frames);
        let into = if self.now.kind == Kind::Music { self.read - self.now.ring } else { 0 };
        let at = self.now.at + into * u64::from(self.now.rate) / u64::from(self.rate);
        let mut markers = vec![Marker { ring: self.read, at, ..self.now }];
        while let Some(marker) = self.next_marker() {
            self.pass(marker);
            markers.push(marker);
        }
        (frames, self.read, markers)
    }

    /// Music in a stretch of one kind; returns its frames.
    fn stretch(&mut self, out: &mut [f32], wishes: Wishes, content: &mut Content) -> usize {
        let Wishes { paused, stopping, generation, flush, fade_ms } = wishes;
        let wanted = (out.len() / 2) as u64;
        // Music begins with its first frame, not with its marker: that comes a moment earlier.
        while let Some(marker) = self.next_marker()
            && marker.ring <= self.read
            && (marker.kind != Kind::Music || self.there() > 0)
        {
            self.pass(marker);
        }
        let flushing = flush > self.read;
        let void = self.is_void(generation);
        let close = flushing || void || paused || stopping;
        let there = self.there();
        // A flush fades the old sound only: not one frame of the new.
        let reach = if flushing { there.min(flush - self.read) } else { there };
        if close && (self.gate == 0.0 || reach == 0) {
            self.gate = 0.0;
            if flushing {
                self.rise_ms = FLUSH_MS;
                self.jump(flush);
                return 0;
            }
            self.rise_ms = if paused {
                PAUSE_MS
            } else if void {
                FLUSH_MS
            } else {
                STOP_MS
            };
            return self.silence(out);
        }
        let next = self.next_marker();
        let reach = next.map_or(reach, |m| reach.min(m.ring - self.read));
        if reach == 0 {
            if self.now.kind == Kind::Music {
                self.heard.underrun_frames += wanted;
                (self.gate, self.rise_ms) = (0.0, FLUSH_MS);
            }
            return self.silence(out);
        }
        // About to run dry in mid-track: fade out rather than break off.
        let fade = u64::from(self.rate) * u64::from(FLUSH_MS) / 1_000;
        let dry = !close && next.is_none() && self.now.kind == Kind::Music && there < wanted;
        let (frames, step) = if dry && reach > fade {
            (reach - fade, self.opening())
        } else if dry {
            (reach, -self.gate / reach as f32)
        } else if close {
            let ms = if flushing {
                fade_ms
            } else if void {
                FLUSH_MS
            } else if stopping {
                STOP_MS
            } else {
                PAUSE_MS
            };
            let step = -1_000.0 / (ms * self.rate) as f32;
            // A long fade ends where the old sound does.
            let step = if flushing { step.min(-self.gate / (flush - self.read) as f32) } else { step };
            (reach.min((self.gate / -step).ceil().max(1.0) as u64), step)
        } else {
            (reach, self.opening())
        };
        let frames = frames.min(wanted) as usize;
        let out = &mut out[..frames * 2];
        self.copy(out);
        let exact = self.scale(out, step, close || dry);
        *content = (*content).max(if exact { self.now.content } else { Content::Float });
        self.push_run(Run { out: self.written, frames: frames as u64, ring: self.read, marker: self.now, music: true });
        self.read += frames as u64;
        frames
    }

    /// Whether what lies here was flushed, and is not sounding: it must not begin again before it is dropped.
    fn is_void(&self, generation: u32) -> bool {
        self.now.kind == Kind::Music && self.now.generation < generation && self.gate < 1.0
    }

    /// Step of the gate while it opens.
    fn opening(&mut self) -> f32 {
        if self.rise_ms == 0 {
            self.gate = 1.0;
        }
        if self.gate >= 1.0 { 0.0 } else { 1_000.0 / (self.rise_ms * self.rate) as f32 }
    }

    /// Gate and volume; whether nothing was changed.
    fn scale(&mut self, out: &mut [f32], step: f32, closing: bool) -> bool {
        let (mut volume, target, slope) = self.volume.unwrap_or((1.0, 1.0, 0.0));
        let exact = volume == 1.0 && target == 1.0 && self.gate == 1.0 && step == 0.0;
        if exact {
            return true;
        }
        if step == 0.0 && volume == target {
            let factor = self.gate * volume;
            out.iter_mut().for_each(|x| *x *= factor);
            return false;
        }
        for frame in out.as_chunks_mut::<2>().0 {
            self.gate = (self.gate + step).clamp(0.0, 1.0);
            volume = if slope < 0.0 { (volume + slope).max(target) } else { (volume + slope).min(target) };
            let factor = self.gate * volume;
            *frame = [frame[0] * factor, frame[1] * factor];
        }
        if closing && self.gate < 1e-6 {
            self.gate = 0.0;
        }
        self.volume = Some((volume, target, slope));
        false
    }

    fn wish_volume(&mut self) {
        let wish = self.controls.volume();
        match self.volume {
            None => self.volume = Some((wish.0, wish.0, 0.0)), // nothing has sounded yet: no ramp
            Some((now, ..)) if wish != self.wish => {
                let slope = (wish.0 - now) * 1_000.0 / (wish.1.max(PAUSE_MS) * self.rate) as f32;
                self.volume = Some((now, wish.0, slope));
            }
            Some(_) => {}
        }
        self.wish = wish;
    }

    /// Ring frames from `read` on.
    fn there(&self) -> u64 {
        (self.frames.slots() / 2) as u64 - (self.read - self.released)
    }

    fn next_marker(&self) -> Option<Marker> {
        self.again.front().or_else(|| self.markers.peek().ok()).copied()
    }

    fn pass(&mut self, marker: Marker) {
        if self.again.pop_front().is_none() {
            let _ = self.markers.pop();
        }
        if marker.kind == Kind::Nothing && self.now.kind == Kind::Music {
            (self.gate, self.rise_ms) = (0.0, FLUSH_MS); // the old sound ran out before the flush came
        }
        self.now = marker;
    }

    /// Leaves out everything before ring frame `to`.
    fn jump(&mut self, to: u64) {
        while let Some(marker) = self.next_marker()
            && (marker.ring < to || (marker.ring == to && marker.kind != Kind::Music))
        {
            self.pass(marker);
        }
        self.read = to;
    }

    fn copy(&mut self, out: &mut [f32]) {
        let skip = (self.read - self.released) as usize * 2;
        let chunk = self.frames.read_chunk(skip + out.len());
        let (a, b) = chunk.as_ref().map_or((&[][..], &[][..]), ReadChunk::as_slices);
        let (from_a, from_b) = (a.get(skip..).unwrap_or_default(), &b[skip.saturating_sub(a.len())..]);
        let n = from_a.len().min(out.len());
        out[..n].copy_from_slice(&from_a[..n]);
        let rest = out.len() - n;
        out[n..].copy_from_slice(&from_b[..rest]);
    }

    fn silence(&mut self, out: &mut [f32]) -> usize {
        out.fill(0.0);
        let frames = out.len() / 2;
        let (out, ring, marker) = (self.written, self.read, self.now);
        self.push_run(Run { out, frames: frames as u64, ring, marker, music: false });
        frames
    }

    fn push_run(&mut self, run: Run) {
        self.written += run.frames;
        if let Some(last) = self.runs.back_mut() {
            let same = last.marker.is(&run.marker);
            let follows = run.ring == last.ring + if last.music { last.frames } else { 0 };
            if same && follows && last.music == run.music {
                last.frames += run.frames;
                return;
            }
        }
        if self.runs.len() == RUNS {
            self.settle(self.runs[0].out + self.runs[0].frames, true);
        }
        self.runs.push_back(run);
    }

    /// Takes note of what has left the DAC.
    fn account(&mut self, timing: Timing) {
        let left = timing.left.min(self.written);
        if timing.epoch != self.epoch {
            // The library may have swallowed what it got last: that counts as silence.
            self.epoch = timing.epoch;
            self.settle(left.min(self.written - self.last), true);
            self.settle(left, false);
        } else {
            self.settle(left, true);
        }
        self.heard.xruns = timing.epoch;
    }

    fn settle(&mut self, left: u64, sounded: bool) {
        while let Some(run) = self.runs.front_mut()
            && run.out < left
        {
            let done = run.frames.min(left - run.out);
            let m = run.marker;
            let gone = run.ring + if run.music { done } else { 0 };
            match m.kind {
                Kind::Nothing => {}
                Kind::Music => {
                    let frames = (gone - m.ring) * u64::from(m.rate) / u64::from(self.rate);
                    self.heard.at = Frames::new(m.at + frames, m.rate);
                    (self.heard.generation, self.heard.entry, self.heard.ended) = (m.generation, m.entry, false);
                }
                Kind::End => {
                    self.heard.at = Frames::new(m.at, m.rate);
                    (self.heard.generation, self.heard.entry, self.heard.ended) = (m.generation, m.entry, true);
                }
            }
            if run.music && sounded {
                self.heard.music_frames += done;
            }
            run.out += done;
            run.frames -= done;
            run.ring = gone;
            if run.frames == 0 {
                self.runs.pop_front();
            }
            self.release(gone);
        }
    }

    fn release(&mut self, to: u64) {
        if to > self.released {
            let samples = (to - self.released) as usize * 2;
            if let Ok(chunk) = self.frames.read_chunk(samples) {
                chunk.commit_all();
                self.released = to;
            }
        }
    }

    fn publish(&self, timing: Timing, period: u64) {
        let ahead = self.runs.front().filter(|r| r.music).map_or(0, |r| r.frames.min(period));
        let (heard, rate, released) = (self.heard, self.rate, self.released);
        self.controls.snapshot.write(&Told { heard, ahead, rate, released, at: timing.at });
    }
}

#[cfg(test)]
mod tests;
