//! The service manager's end of `sd_notify(3)`: a datagram socket that hears READY=1, WATCHDOG=1, STOPPING=1.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A socket that one service is given.
pub struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notify {
    /// Makes the socket at `path`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(path: &Path) -> Self {
        // Left by a service that was killed: its successor gets a new one.
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { socket, path: path.to_owned() }
    }

    /// Tells `command` of it, and to feed a watchdog of `watchdog`, if given.
    pub fn tell(&self, command: &mut Command, watchdog: Option<Duration>) {
        command.env("NOTIFY_SOCKET", &self.path);
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
    }

    /// Waits for a line (`READY=1`). True when it came within `limit`.
    pub fn wait(&self, line: &str, limit: Duration) -> bool {
        self.message(line, limit).is_some()
    }

    /// The first message with this line, whole, if it came within `limit`; those before it are gone.
    pub fn message(&self, line: &str, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return None;
            }
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]);
            if text.lines().any(|l| l == line) {
                return Some(text.into_owned());
            }
        }
    }
}
