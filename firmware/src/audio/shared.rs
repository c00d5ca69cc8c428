//! What callers, decoder and callback share: atomics, and two bells that the callback of a real device never touches.
//!
//! *Controls*: wishes for the callback, which looks at them once a call. *Snapshot*: what the callback knows, written once a
//! call, read by anybody; a reader that meets a write tries again, the writer never waits (a sequence lock).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jukebox_core::sound::{EntryId, Heard};
use jukebox_core::time::Frames;

/// Wishes for the callback, and what it tells.
pub(crate) struct Controls {
    /// Factor (upper half, bits of a float) and length of the ramp to it in milliseconds.
    volume: AtomicU64,
    pub(crate) paused: AtomicBool,
    /// Fade out and stay silent: the end is near.
    pub(crate) stopping: AtomicBool,
    /// Of the last flush that was ordered: older music may sound on until it is dropped, but never begin again.
    pub(crate) generation: AtomicU32,
    /// Ring frames before this one are to be dropped.
    pub(crate) flush: AtomicU64,
    /// How long the old sound of a flush fades, in milliseconds.
    pub(crate) fade_ms: AtomicU32,
    /// Frames ever put into the ring.
    pub(crate) pushed: AtomicU64,
    /// Errors of devices that are closed by now.
    pub(crate) xruns: AtomicU32,
    pub(crate) snapshot: Snapshot,
}

impl Controls {
    pub(crate) fn new() -> Self {
        Self {
            volume: AtomicU64::new(pack(1.0, 0)),
            paused: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            flush: AtomicU64::new(0),
            fade_ms: AtomicU32::new(0),
            pushed: AtomicU64::new(0),
            xruns: AtomicU32::new(0),
            snapshot: Snapshot::new(),
        }
    }

    pub(crate) fn set_volume(&self, factor: f32, ramp_ms: u32) {
        self.volume.store(pack(factor, ramp_ms), Relaxed);
    }

    /// Factor, and length of the ramp in milliseconds.
    pub(crate) fn volume(&self) -> (f32, u32) {
        let packed = self.volume.load(Relaxed);
        (f32::from_bits((packed >> 32) as u32), packed as u32)
    }

    /// Frames in the ring that have not left the DAC and are not to be dropped.
    pub(crate) fn unheard(&self) -> u64 {
        let gone = self.snapshot.read().released.max(self.flush.load(Acquire));
        self.pushed.load(Acquire).saturating_sub(gone)
    }

    pub(crate) fn heard(&self) -> Heard {
        let told = self.snapshot.read();
        let mut heard = told.heard;
        let since = Instant::now().saturating_duration_since(told.at).as_nanos();
        let ahead = (since * u128::from(told.rate) / 1_000_000_000) as u64;
        let ahead = ahead.min(told.ahead);
        if told.rate != 0 {
            heard.at.n += ahead * u64::from(heard.at.rate) / u64::from(told.rate);
            let unheard = self.unheard().saturating_sub(ahead);
            heard.ring_ms = (unheard * 1_000 / u64::from(told.rate)) as u32;
        }
        heard.music_frames += ahead;
        heard.xruns += self.xruns.load(Relaxed);
        heard
    }
}

fn pack(factor: f32, ramp_ms: u32) -> u64 {
    u64::from(factor.to_bits()) << 32 | u64::from(ramp_ms)
}

/// What the callback knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// As of `at`; `ring_ms` is not filled in.
    pub(crate) heard: Heard,
    /// Frames of music that will leave next without a break, at most one period.
    pub(crate) ahead: u64,
    /// Rate of the output.
    pub(crate) rate: u32,
    /// Ring frames that are gone for good.
    pub(crate) released: u64,
    pub(crate) at: Instant,
}

const WORDS: usize = 10;

/// A [`Told`] that one thread writes and others read.
pub(crate) struct Snapshot {
    turn: AtomicU32,
    words: [AtomicU64; WORDS],
    born: Instant,
}

impl Snapshot {
    fn new() -> Self {
        Self { turn: AtomicU32::new(0), words: [const { AtomicU64::new(0) }; WORDS], born: Instant::now() }
    }

    /// Called by whoever has the renderer, so by one thread at a time.
    pub(crate) fn write(&self, told: &Told) {
        let h = &told.heard;
        let words: [u64; WORDS] = [
            u64::from(h.generation) << 32 | u64::from(h.entry.0),
            h.at.n,
            u64::from(h.at.rate) << 1 | u64::from(h.ended),
            h.music_frames,
            h.underrun_frames,
            h.xruns.into(),
            told.ahead,
            told.rate.into(),
            told.released,
            told.at.saturating_duration_since(self.born).as_nanos() as u64,
        ];
        let turn = self.turn.load(Relaxed);
        self.turn.store(turn.wrapping_add(1), Relaxed);
        fence(Release);
        words.iter().zip(&self.words).for_each(|(w, a)| a.store(*w, Relaxed));
        self.turn.store(turn.wrapping_add(2), Release);
    }

    pub(crate) fn read(&self) -> Told {
        loop {
            let turn = self.turn.load(Acquire);
            let w: [u64; WORDS] = std::array::from_fn(|i| self.words[i].load(Relaxed));
            fence(Acquire);
            if turn.is_multiple_of(2) && self.turn.load(Relaxed) == turn {
                let heard = Heard {
                    generation: (w[0] >> 32) as u32,
                    entry: EntryId(w[0] as u32),
                    at: Frames::new(w[1], (w[2] >> 1) as u32),
                    ended: w[2] & 1 == 1,
                    music_frames: w[3],
                    underrun_frames: w[4],
                    xruns: w[5] as u32,
                    ring_ms: 0,
                    live_ms: 0,
                };
                let at = self.born + Duration::from_nanos(w[9]);
                return Told { heard, ahead: w[6], rate: w[7] as u32, released: w[8], at };
            }
            std::hint::spin_loop();
        }
    }
}

/// Wakes a thread that waits; a ring between two waits is not lost.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Default)]
struct Rung {
    times: u64,
    /// Threads that wait: without one nobody has to be woken.
    waiting: u32,
}

impl Bell {
    pub(crate) fn ring(&self) {
        let mut rung = self.lock();
        rung.times += 1;
        if rung.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// How often it was rung. To be asked *before* looking whether there is something to do.
    pub(crate) fn rung(&self) -> u64 {
        self.lock().times
    }

    /// Waits until it is rung more often than `seen`; whether it was.
    pub(crate) fn wait(&self, seen: u64, at_most: Duration) -> bool {
        let mut rung = self.lock();
        rung.waiting += 1;
        let waited = self.changed.wait_timeout_while(rung, at_most, |r| r.times == seen);
        let (mut rung, result) = waited.unwrap_or_else(PoisonError::into_inner);
        rung.waiting -= 1;
        !result.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_never_torn() {
        let controls = std::sync::Arc::new(Controls::new());
        let writer = controls.clone();
        let thread = std::thread::spawn(move || {
            for n in 0..200_000u64 {
                let heard = Heard { at: Frames::new(n, 48_000), music_frames: n, ..Heard::default() };
                writer.snapshot.write(&Told { heard, ahead: n, rate: 1, released: n, at: Instant::now() });
            }
        });
        while !thread.is_finished() {
            let t = controls.snapshot.read();
            assert!(t.heard.at.n == t.released && t.released == t.heard.music_frames && t.ahead == t.released);
        }
        thread.join().unwrap();
    }

    #[test]
    fn a_ring_before_the_wait_counts() {
        let bell = Bell::default();
        let seen = bell.rung();
        bell.ring();
        assert!(bell.wait(seen, Duration::from_secs(60)));
        assert!(!bell.wait(bell.rung(), Duration::ZERO));
    }
}
