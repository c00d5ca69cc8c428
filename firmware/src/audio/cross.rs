//! The cross-fade between two tracks: the rest of the one under the beginning of the next, frame by frame.
//!
//! Both come as they are decoded, and neither waits longer than for a block of the other: nothing is held beyond that.
//! Equal power: the two weights are cosine and sine of one angle, so that unlike music keeps its loudness.

use std::f32::consts::FRAC_PI_2;

use super::convert::Converter;
use super::render::Marker;

pub(super) struct Cross {
    /// Ring frame at which it begins.
    from: u64,
    /// In frames of the ring.
    length: u64,
    /// Frames that are mixed.
    done: u64,
    /// Of the track that ends: not yet mixed, interleaved.
    old: Vec<f32>,
    /// To the output's rate, for the track that ends.
    converter: Option<Converter>,
    /// That track has given all.
    ended: bool,
    /// The next track has begun.
    pub(super) begun: bool,
    /// What says that it plays, from the middle on, until it was said.
    pub(super) next: Option<Marker>,
}

impl Cross {
    pub(super) const fn new(from: u64, length: u64, converter: Option<Converter>) -> Self {
        Self { from, length, done: 0, old: vec![], converter, ended: false, begun: false, next: None }
    }

    /// Ring frame in the middle of it.
    pub(super) const fn middle(&self) -> u64 {
        self.from + self.length / 2
    }

    /// Ring frame up to which it is mixed.
    pub(super) const fn mixed(&self) -> u64 {
        self.from + self.done
    }

    pub(super) const fn is_over(&self) -> bool {
        self.done >= self.length
    }

    /// Whether the track that ends has to give more before frames up to `there` can be mixed.
    pub(super) const fn wants(&self, there: u64) -> bool {
        !self.ended && self.old.is_empty() && there > self.mixed() && !self.is_over()
    }

    /// Takes frames of the track that ends.
    pub(super) fn put(&mut self, frames: &[f32]) {
        match &mut self.converter {
            Some(converter) => converter.put(frames, &mut self.old),
            None => self.old.extend_from_slice(frames),
        }
    }

    /// The track that ends has given all: what is missing of it is silence.
    pub(super) fn end(&mut self) {
        if let Some(converter) = self.converter.take() {
            converter.finish(&mut self.old);
        }
        self.ended = true;
    }

    /// Mixes into frames of the next track, the first of which is the first that is not mixed.
    pub(super) fn mix(&mut self, new: &mut [f32]) {
        let have = if self.ended { usize::MAX } else { self.old.len() / 2 };
        let frames = (new.len() / 2).min(have).min((self.length - self.done) as usize);
        let silence = std::iter::repeat(&[0.0; 2]);
        for (new, old) in
            new.as_chunks_mut::<2>().0[..frames].iter_mut().zip(self.old.as_chunks::<2>().0.iter().chain(silence))
        {
            let (up, down) = ((self.done as f32 + 0.5) / self.length as f32 * FRAC_PI_2).sin_cos();
            *new = [new[0] * up + old[0] * down, new[1] * up + old[1] * down];
            self.done += 1;
        }
        self.old.drain(..self.old.len().min(frames * 2));
    }
}
