//! Readiness, watchdog, signals.
//!
//! The watchdog is fed with evidence only: the driver turned, and while music should sound the count of frames moved.

use std::io;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A frame count that does not move for this long while it should is no evidence of life. A device that is missing or
/// an empty store are told otherwise; this is for a pipeline that hangs.
const STUCK: Duration = Duration::from_secs(20);

/// What systemd wants to hear.
pub struct Systemd {
    every: Option<Duration>,
    fed: Instant,
    frames: u64,
    moved: Instant,
    said: String,
}

impl Systemd {
    /// What the environment asks for; without systemd nothing is said.
    pub fn new() -> Self {
        // Half the time that systemd waits, as its manual advises.
        let every = sd_notify::watchdog_enabled().map(|t| t / 2);
        let now = Instant::now();
        Self { every, fed: now, frames: 0, moved: now, said: String::new() }
    }

    /// The player answers to commands now.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// It is about to end.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// The sentence that `systemctl status` shows.
    pub fn status(&mut self, sentence: &str) {
        if self.said != sentence {
            self.said = sentence.into();
            tell(&[NotifyState::Status(sentence)]);
        }
    }

    /// How long the driver may sleep at most so that the watchdog is fed in time.
    pub fn every(&self) -> Option<Duration> {
        self.every
    }

    /// The driver turned. `frames`: music that has left the DAC; `due`: whether it should move just now.
    pub fn turned(&mut self, frames: u64, due: bool) {
        let now = Instant::now();
        if frames != self.frames || !due {
            (self.frames, self.moved) = (frames, now);
        }
        let Some(every) = self.every else { return };
        if now - self.fed >= every / 2 && now - self.moved < STUCK {
            self.fed = now;
            tell(&[NotifyState::Watchdog]);
        }
    }
}

impl Default for Systemd {
    fn default() -> Self {
        Self::new()
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}

/// The signals that end the player: SIGTERM, SIGINT.
pub struct End {
    term: Signal,
    int: Signal,
}

impl End {
    /// Takes the signals over. Needs a runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }
    /// Comes when one of them does.
    pub async fn come(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
