//! What leaves the virtual DAC, while it leaves: its recording, read as it grows.
//!
//! The paced DAC writes a period when it has been played to its end, and asks for the next at once, with one more waiting:
//! so what is written now began to leave one period ago and was handed over two periods ago, up to the writing's own delay,
//! which counts as the player's.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::house::RATE;
use crate::rig::{SOON, until};

/// Period of a virtual DAC: that of FIFO scheduling.
pub(super) const PERIOD_MS: f64 = 20.0;
/// How often the file is looked at. Too seldom counts against the player.
const LOOK: Duration = Duration::from_micros(500);
/// Steps of 16 bits above which it is music: dither is ±1 beside silence.
const SOUND: u16 = 8;

/// Frames that came at once.
struct Part {
    seen: Instant,
    frames: Vec<[i16; 2]>,
}

/// A recording that grows.
pub(super) struct Tape {
    parts: mpsc::Receiver<Part>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// When a frame was handed to the DAC, and when it left it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sounded {
    pub(super) handed: Instant,
    pub(super) left: Instant,
}

impl Tape {
    /// Reads `file` from where it stands now.
    pub(super) fn new(file: &Path) -> Self {
        let mut file = until("the DAC records", SOON, || {
            let file = File::open(file).ok()?;
            (file.metadata().ok()?.len() >= HEADER as u64).then_some(file)
        });
        let mut before = Vec::new();
        file.read_to_end(&mut before).unwrap_or_else(|e| panic!("the recording: {e}"));
        let rest = before.split_off(before.len() - (before.len() - HEADER) % 4);
        let (tell, parts) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut bytes = rest;
            while !stopped.load(Ordering::Relaxed) {
                if file.read_to_end(&mut bytes).is_err() {
                    return;
                }
                let seen = Instant::now();
                let whole = bytes.len() / 4 * 4;
                if whole > 0 {
                    let frames = bytes.drain(..whole).collect::<Vec<_>>();
                    let sample = |b: &[u8]| i16::from_le_bytes([b[0], b[1]]);
                    let frames = frames.chunks_exact(4).map(|f| [sample(f), sample(&f[2..])]).collect();
                    if tell.send(Part { seen, frames }).is_err() {
                        return;
                    }
                }
                std::thread::sleep(LOOK);
            }
        });
        Self { parts, stop, thread: Some(thread) }
    }

    /// Forgets what came so far.
    pub(super) fn rewind(&self) {
        while self.parts.try_recv().is_ok() {}
    }

    /// The first frame from now on (or since [`rewind`](Self::rewind)) that sounds on one of the `sides`; none within `limit`.
    pub(super) fn sound(&self, sides: &[usize], limit: Duration) -> Option<Sounded> {
        let end = Instant::now() + limit;
        loop {
            let part = self.parts.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?;
            let loud = |f: &[i16; 2]| sides.iter().any(|&s| f[s].unsigned_abs() > SOUND);
            if let Some(at) = part.frames.iter().position(loud) {
                let ms = |ms: f64| Duration::from_secs_f64(ms / 1_000.0);
                let period = (PERIOD_MS * f64::from(RATE) / 1_000.0) as usize;
                // Several periods may have come between two looks.
                let behind = part.frames.len() - at;
                let periods_behind = ((behind - 1) / period) as f64 * PERIOD_MS;
                return Some(Sounded {
                    handed: part.seen - ms(periods_behind + 2.0 * PERIOD_MS),
                    left: part.seen - ms(behind as f64 * 1_000.0 / f64::from(RATE)),
                });
            }
        }
    }

    /// Waits until nothing has sounded for `span`.
    pub(super) fn silence(&self, span: Duration) {
        let begun = Instant::now();
        while self.sound(&[0, 1], span).is_some() {
            assert!(begun.elapsed() < SOON, "it does not fall silent");
        }
    }
}

/// Bytes before the first frame.
const HEADER: usize = 44;

impl Drop for Tape {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
