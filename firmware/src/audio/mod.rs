//! Decoder thread, ring, the callback's body: orders in, sound out.
//!
//! ```text
//! order ─> decoder thread: read, verify, deck (packets), gain, converter ─> ring ─> renderer (callback) ─> device
//!      └── pause, volume: controls ─────────────────────────────────────────────────────┘
//! ```
//! *Line*: ring, renderer and device together. Nothing here decides what plays; it plays what it is told, in order, and
//! says what was heard, from frames that left the DAC.

mod convert;
mod cross;
mod deck;
mod decoder;
pub mod drift;
mod feed;
mod inbox;
mod line;
mod live;
mod player;
mod render;
mod shared;
pub mod stream;
pub mod tape;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use jukebox_board::output::Device;
use jukebox_core::library::Digest;
use jukebox_core::sound::{Heard, Order, Report};

pub use deck::{Block, Deck, Undecodable};
pub use jukebox_board::virt::{Dac, Form};
pub use player::{NoOutput, Player};

use decoder::Decoder;
use inbox::{Inbox, Job};
use line::Shared;
use tape::Tape;

/// Stack of the decoder thread: codecs keep their tables on the heap.
const STACK: usize = 512 << 10;
/// Exit status of the process after a panic of the decoder thread (EX_SOFTWARE).
const PANICKED: i32 = 70;

/// How the sound path is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Devices in order: the first that opens is used.
    pub outputs: Vec<Device>,
    /// The device's rate.
    pub rate: RateRule,
    /// Period in milliseconds; `None`: 20 with SCHED_FIFO, else 50.
    pub period_ms: Option<u32>,
    /// Ramp of the first sound, in milliseconds.
    pub start_ramp_ms: u32,
}

impl Settings {
    /// The period is to be at least so long, in milliseconds; it is more than without.
    pub fn lengthen_period(&mut self, ms: u32) {
        self.period_ms = Some(self.period_ms.unwrap_or(0).max(ms));
    }
}

/// At which rate a device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateRule {
    /// The nearest to the track's original; reopened between tracks where that changes.
    Follow,
    /// Always this one: gapless across rates.
    Fixed(u32),
}

/// The sound path. Dropped, it fades out and ends its threads.
pub struct Audio {
    inbox: Arc<Inbox>,
    shared: Shared,
    thread: Option<JoinHandle<()>>,
    /// Given up: what it reports is nobody's.
    void: Arc<AtomicBool>,
}

impl Audio {
    /// Starts the decoder thread. No device is opened before there is something to play.
    ///
    /// `read` gives a segment's bytes and may block for as long as a disk does; `tell` must not block. Both are called on the
    /// decoder thread. A panic there ends the process with status 70, for without that thread it would be silent for ever:
    /// whoever watches over it starts it anew. (Panics of a codec are caught, and cost the track.)
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(
        settings: Settings,
        read: impl Fn(&Digest) -> io::Result<Vec<u8>> + Send + 'static,
        tell: impl Fn(Report) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (inbox, shared) = (Arc::new(Inbox::default()), Shared::new());
        let (jobs, both) = (inbox.clone(), shared.clone());
        let void = Arc::new(AtomicBool::new(false));
        let is_void = void.clone();
        let tell = move |report| {
            if !is_void.load(Relaxed) {
                tell(report);
            }
        };
        let thread = std::thread::Builder::new().name("decoder".into()).stack_size(STACK).spawn(move || {
            let run = AssertUnwindSafe(|| Decoder::new(settings, jobs, both, read, tell).run());
            if catch_unwind(run).is_err() {
                tracing::error!("the decoder thread panicked: the process ends, to be started anew");
                std::process::exit(PANICKED);
            }
        })?;
        Ok(Self { inbox, shared, thread: Some(thread), void })
    }

    /// Gives an order. Never blocks; pause and volume act within a period.
    pub fn order(&self, order: Order) {
        let job = match order {
            Order::Play(piece) => Job::Play(piece),
            Order::Live(live) => Job::Live(live),
            Order::Flush { generation, more, fade_ms } => {
                self.shared.controls.fade_ms.store(fade_ms, Relaxed);
                // At once, so that a pause that ends right after it lets out nothing of what is void.
                self.shared.controls.generation.store(generation, Relaxed);
                Job::Flush { generation, more }
            }
            Order::Forget { seq } => Job::Forget { seq },
            Order::Close => Job::Close,
            Order::Pause(pause) => {
                self.shared.controls.paused.store(pause, Release);
                self.shared.fed.ring();
                if pause {
                    return;
                }
                Job::Resume
            }
            Order::Volume { factor, ramp_ms } => {
                self.shared.controls.set_volume(factor, ramp_ms);
                return;
            }
        };
        self.inbox.put(job);
        self.shared.wake.ring();
    }

    /// Closes the device and opens it again; what was not heard plays on.
    pub fn reopen(&self) {
        self.inbox.put(Job::Reopen);
        self.shared.wake.ring();
    }

    /// Makes the period at least so long, in milliseconds: a device that is open is opened anew; what was not heard plays on.
    pub fn lengthen_period(&self, ms: u32) {
        self.inbox.put(Job::Period { ms });
        self.shared.wake.ring();
    }

    /// Lets go of a sound path that may hang, without waiting for it. It reports nothing more, and when it comes to itself
    /// it ends.
    pub fn abandon(mut self) {
        self.void.store(true, Relaxed);
        self.thread = None;
    }

    /// Plays live pieces from this tape from now on.
    pub fn listen_to(&self, tape: Option<Arc<Tape>>) {
        if let Some(tape) = &tape {
            tape.wakes(&self.shared.wake);
        }
        *self.shared.tape.lock().unwrap_or_else(PoisonError::into_inner) = tape;
        self.shared.wake.ring();
    }

    /// Where the sound is. Cheap: reads a few atomics, and how much is on the tape.
    pub fn heard(&self) -> Heard {
        let live_ms = self.shared.tape().map_or(0, |tape| tape.level().as_millis() as u32);
        Heard { live_ms, ..self.shared.controls.heard() }
    }
}

impl Drop for Audio {
    fn drop(&mut self) {
        self.inbox.put(Job::End);
        self.shared.wake.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic has ended the process
        }
    }
}
