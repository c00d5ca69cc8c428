//! What came of one request so far, shared with whoever watches it; and what is kept of requests that broke.
//!
//! A part that came before the link broke is not paid for twice: the next request goes on behind it. A digest over the whole
//! is wrong if any part is, so that a part is given up when what was made with it does not verify.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jukebox_core::library::Digest;

use super::{Meter, lock};

/// Parts that are kept, and their bytes together: a segment of the best rendition has about half a megabyte.
const PARTS: usize = 4;
const PARTS_BYTES: usize = 4 << 20;

/// The body of one answer, as it comes; a cheap clone.
#[derive(Clone)]
pub(super) struct Flow {
    state: Arc<Mutex<State>>,
    meter: Meter,
    began: Instant,
}

struct State {
    /// Begins with the part that was there before.
    bytes: Vec<u8>,
    before: usize,
    /// Of this answer.
    came: usize,
    restarted: bool,
    first_byte: Option<Duration>,
    last: Instant,
}

impl Flow {
    /// A request that goes on behind `part`.
    pub(super) fn new(part: Vec<u8>, meter: &Meter) -> Self {
        let began = Instant::now();
        let state = State { before: part.len(), bytes: part, came: 0, restarted: false, first_byte: None, last: began };
        Self { state: Arc::new(Mutex::new(state)), meter: meter.clone(), began }
    }

    /// The head of the answer is here.
    pub(super) fn head(&self) {
        let mut state = lock(&self.state);
        (state.first_byte, state.last) = (Some(self.began.elapsed()), Instant::now());
    }

    pub(super) fn push(&self, data: &[u8]) {
        self.meter.come(data.len());
        let mut state = lock(&self.state);
        state.bytes.extend_from_slice(data);
        state.came += data.len();
        state.last = Instant::now();
    }

    /// From the request to the head of the answer.
    pub(super) fn first_byte(&self) -> Option<Duration> {
        lock(&self.state).first_byte
    }

    /// How long the request is under way, and for how long nothing has come of it.
    pub(super) fn times(&self) -> (Duration, Duration) {
        (self.began.elapsed(), lock(&self.state).last.elapsed())
    }

    /// Bytes of the body that came, without the part that was there before.
    pub(super) fn came(&self) -> usize {
        lock(&self.state).came
    }

    /// What was there before did not fit: from the start again.
    pub(super) fn restart(&self) {
        let mut state = lock(&self.state);
        (state.before, state.came, state.restarted) = (0, 0, true);
        state.bytes.clear();
    }

    pub(super) fn restarted(&self) -> bool {
        lock(&self.state).restarted
    }

    /// Length of what there is, the part of before included.
    pub(super) fn len(&self) -> usize {
        lock(&self.state).bytes.len()
    }

    /// Length of the part of before.
    pub(super) fn before(&self) -> usize {
        lock(&self.state).before
    }

    /// What there is, the part of before included.
    pub(super) fn part(&self) -> Vec<u8> {
        lock(&self.state).bytes.clone()
    }

    /// The same, for good.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.state).bytes)
    }
}

/// Parts of segments whose requests broke; the oldest goes.
#[derive(Default)]
pub(super) struct Parts(Mutex<Vec<(Digest, Vec<u8>)>>);

impl Parts {
    /// Keeps a part; its bytes count when they are used, or dropped.
    pub(super) fn keep(&self, digest: Digest, part: Vec<u8>, meter: &Meter) {
        if part.is_empty() || part.len() > PARTS_BYTES {
            return;
        }
        meter.sub(part.len());
        let parts = &mut *lock(&self.0);
        parts.push((digest, part));
        let all = |parts: &[(Digest, Vec<u8>)]| parts.iter().map(|p| p.1.len()).sum::<usize>();
        while parts.len() > PARTS || all(parts) > PARTS_BYTES {
            meter.add(parts.remove(0).1.len());
        }
    }

    /// Takes what there is of it.
    pub(super) fn take(&self, digest: &Digest, meter: &Meter) -> Vec<u8> {
        let parts = &mut *lock(&self.0);
        let Some(i) = parts.iter().position(|p| p.0 == *digest) else { return Vec::new() };
        let part = parts.remove(i).1;
        meter.add(part.len());
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_counts_once_and_the_oldest_goes() {
        let (parts, meter) = (Parts::default(), Meter::default());
        let name = |n: u8| Digest::of(&[n]);
        meter.add(2);
        let flow = Flow::new(vec![1, 2], &meter);
        flow.push(&[3; 98]);
        assert_eq!((flow.came(), meter.bytes(), flow.part().len()), (98, 100, 100));
        parts.keep(name(0), flow.take(), &meter);
        assert!(parts.take(&name(1), &meter).is_empty());
        let part = parts.take(&name(0), &meter);
        assert_eq!((part.len(), meter.bytes(), &part[..3]), (100, 100, &[1, 2, 3][..]));
        for n in 0..=PARTS as u8 {
            meter.add(10);
            parts.keep(name(n), vec![n; 10], &meter);
        }
        assert_eq!(meter.bytes(), 100 + 10, "the one that was dropped");
        assert!(parts.take(&name(0), &meter).is_empty() && parts.take(&name(1), &meter) == [1; 10]);
    }
}
