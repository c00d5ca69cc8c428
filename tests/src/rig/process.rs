//! A child process: its lines are kept, can be waited for, and it ends with the value.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::SOON;

/// A running child. Drop kills it and waits for its end.
pub struct Process {
    name: String,
    child: Child,
    said: Arc<Said>,
}

/// What it has printed so far, both streams in the order of arrival.
#[derive(Default)]
struct Said {
    lines: Mutex<Lines>,
    news: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    open_streams: usize,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("{name}: {command:?}: {e}"));
        let said = Arc::new(Said::default());
        said.lock().open_streams = 2;
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            listen(out, Arc::clone(&said));
            listen(err, Arc::clone(&said));
        }
        Self { name: name.to_owned(), child, said }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.said.lock().all.clone()
    }

    /// How many lines there are so far: a place to wait [`from`](Self::line_from).
    pub fn mark(&self) -> usize {
        self.said.lock().all.len()
    }

    /// The first line, of those printed already or to come, that holds `part`.
    ///
    /// # Panics
    /// When none comes in [`SOON`], or the process ends without one.
    pub fn line(&self, part: &str) -> String {
        self.line_from(0, SOON, part, |line| line.contains(part))
    }

    /// The first line from number `mark` on that `fits`; `what` names it in messages.
    ///
    /// # Panics
    /// When none comes within `limit`, or the process ends without one.
    pub fn line_from(&self, mark: usize, limit: Duration, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + limit;
        let mut lines = self.said.lock();
        let mut next = mark;
        loop {
            while next < lines.all.len() {
                if fits(&lines.all[next]) {
                    return lines.all[next].clone();
                }
                next += 1;
            }
            let left = end.saturating_duration_since(Instant::now());
            if lines.open_streams == 0 || left.is_zero() {
                let why = if left.is_zero() { format!("in {limit:?}") } else { "before it ended".to_owned() };
                panic!("{} did not say `{what}` {why}. It said:\n{}", self.name, tail(&lines.all));
            }
            lines = self.said.news.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal by name (`TERM`, `KILL`, `HUP`, `STOP`, `CONT`).
    ///
    /// # Panics
    /// When there is no such process any more.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "{} is not there to be sent {name}", self.name);
    }

    /// Sends TERM and waits: how it ended and how long that took.
    ///
    /// # Panics
    /// When it does not end in [`SOON`].
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal("TERM");
        (self.wait(), start.elapsed())
    }

    /// Kills it (-9) and waits for its end.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come in [`SOON`].
    pub fn wait(&mut self) -> ExitStatus {
        let name = format!("{} ends", self.name);
        super::until(&name, SOON, || self.child.try_wait().ok().flatten())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("-- {} said last:\n{}", self.name, tail(&self.said.lock().all));
        }
    }
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that reads one stream to its end.
fn listen(stream: impl Read + Send + 'static, said: Arc<Said>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            said.lock().all.push(String::from_utf8_lossy(&line).into_owned());
            said.news.notify_all();
        }
        said.lock().open_streams -= 1;
        said.news.notify_all();
    });
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_waited_for_and_a_signal_ends_it() {
        let script = "trap 'echo bye; exit 3' TERM; echo one; echo two >&2; while :; do sleep 0.05; done";
        let mut child = Process::start("shell", Command::new("sh").args(["-c", script]));
        child.line("one");
        child.line("two");
        let (status, _) = child.terminate();
        assert_eq!(status.code(), Some(3));
        child.line("bye");
    }

    #[test]
    #[should_panic(expected = "did not say `never` before it ended")]
    fn an_end_without_the_line_is_told_at_once() {
        Process::start("echo", Command::new("echo").arg("something")).line("never");
    }

    #[test]
    fn drop_leaves_no_process() {
        let child = Process::start("sleep", Command::new("sleep").arg("1000"));
        let folder = std::path::PathBuf::from(format!("/proc/{}", child.id()));
        assert!(folder.exists());
        drop(child);
        assert!(!folder.exists());
    }
}
