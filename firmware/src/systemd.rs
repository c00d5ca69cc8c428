//! Readiness, watchdog, reload, signals.
//!
//! The watchdog is fed with evidence only: the driver turned, and while music should sound the count of frames moved.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{self, SignalKind, signal};

/// A frame count that does not move for this long while it should is no evidence of life. A device that is missing or
/// an empty store are told otherwise; this is for a pipeline that hangs.
const STUCK: Duration = Duration::from_secs(20);

/// Lines that may wait for a service manager that does not listen just now; more are left out.
const LINES: usize = 8;

/// What systemd wants to hear. It is told from a thread of its own: its socket blocks when it does not read.
pub struct Systemd {
    lines: Option<SyncSender<Line>>,
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
        let lines = std::env::var_os("NOTIFY_SOCKET").and_then(|_| listener());
        Self { lines, every, fed: now, frames: 0, moved: now, said: String::new() }
    }

    fn tell(&self, line: Line) {
        if let Some(lines) = &self.lines {
            // Full: it does not listen, and would hear old news.
            let _ = lines.try_send(line);
        }
    }

    /// The player answers to commands now.
    pub fn ready(&self) {
        self.tell(Line::Ready);
    }

    /// The configuration is being read again; [`Systemd::ready`] follows, whatever comes of it.
    pub fn reloading(&self) {
        self.tell(Line::Reloading);
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.tell(Line::Stopping);
    }

    /// The sentence that `systemctl status` shows.
    pub fn status(&mut self, sentence: &str) {
        if self.said != sentence {
            self.said = sentence.into();
            self.tell(Line::Status(sentence.into()));
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
            self.tell(Line::Watchdog);
        }
    }
}

impl Default for Systemd {
    fn default() -> Self {
        Self::new()
    }
}

enum Line {
    Ready,
    Reloading,
    Stopping,
    Watchdog,
    Status(String),
}

fn listener() -> Option<SyncSender<Line>> {
    let (lines, come) = sync_channel::<Line>(LINES);
    let thread = std::thread::Builder::new().name("systemd".into()).stack_size(64 << 10);
    let run = move || {
        for line in come {
            let states = match &line {
                Line::Ready => vec![NotifyState::Ready],
                // sd_notify(3): the time goes with it, so that systemd can tell this reload from an earlier one.
                Line::Reloading => {
                    [Ok(NotifyState::Reloading), NotifyState::monotonic_usec_now()].into_iter().flatten().collect()
                }
                Line::Stopping => vec![NotifyState::Stopping],
                Line::Watchdog => vec![NotifyState::Watchdog],
                Line::Status(text) => vec![NotifyState::Status(text)],
            };
            // A manager that went away is no reason to stop.
            let _ = sd_notify::notify(&states);
        }
    };
    thread.spawn(run).ok().map(|_| lines)
}

/// What a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: the player ends.
    End,
    /// SIGHUP: the configuration is read again.
    Reload,
}

/// The signals that the player obeys.
pub struct Signals {
    term: unix::Signal,
    int: unix::Signal,
    hup: unix::Signal,
}

impl Signals {
    /// Takes the signals over. Needs a runtime.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn new() -> io::Result<Self> {
        let [term, int, hup] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { term: term?, int: int?, hup: hup? })
    }

    /// The next one.
    pub async fn come(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::End,
            _ = self.int.recv() => Signal::End,
            _ = self.hup.recv() => Signal::Reload,
        }
    }
}
