//! The keyboard of a terminal as buttons.
//!
//! A terminal tells that a key was struck, not when it came up. So each stroke is a press of a fixed length, `Down` and then `Up`;
//! keys of their own stand for holding a button. Nothing is debounced here: what an edge means is core's.
//!
//! | key | button |
//! |---|---|
//! | space | Play |
//! | `n`, right | Next |
//! | `p`, left | Previous |
//! | `+` or `=`, `-` | Volume up, down |
//! | up, down | rotary encoder, one detent |
//! | `m` | knob |
//! | `s`, `i` | Play, held: stop; when stopped, the info page |
//! | `N`, `P` | Next, Previous, held |
//! | `q`, Ctrl-C, end of input | quit |

use std::io::{self, PipeReader, PipeWriter};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jukebox_core::gesture::{Button, Edge};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::tty::{Keys, allow_signals};

/// What the keyboard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A button moved.
    Edge(Edge),
    /// The user wants to leave.
    Quit,
}

/// The keys, to be shown to people: lines of at most 62 columns.
pub const HELP: [&str; 2] = [
    "space play/pause    n next    p previous    + - volume",
    "m mute    s stop    i about this player (when stopped)    q quit",
];

/// A stroke lasts longer than core's debouncing (15 ms).
const STROKE: Duration = Duration::from_millis(20);
/// A held key lasts longer than core's border of holding (600 ms).
const HOLD: Duration = Duration::from_millis(700);

/// The keyboard as buttons, until this is dropped.
pub struct Keyboard {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
    _keys: Keys,
}

impl Keyboard {
    /// Listens to standard input. None, and nothing is read, if it is not a terminal (or we are its background job).
    /// `tell` is called on a thread of its own. After [`Key::Quit`] no more keys are read, and another Ctrl-C is the usual signal.
    ///
    /// # Errors
    /// The terminal refuses, or no thread can be started.
    pub fn start(tell: impl Fn(Key) + Send + 'static) -> io::Result<Option<Self>> {
        let Some(keys) = Keys::take()? else { return Ok(None) };
        let (stopped, stop) = io::pipe()?;
        let thread = thread::Builder::new().name("keyboard".into()).stack_size(128 << 10);
        let thread = thread.spawn(move || listen(&stopped, &tell))?;
        Ok(Some(Self { stop: Some(stop), thread: Some(thread), _keys: keys }))
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // The closed pipe wakes the thread.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(stopped: &PipeReader, tell: &dyn Fn(Key)) {
    let input = rustix::stdio::stdin();
    loop {
        let mut fds = [PollFd::new(&input, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return tell(Key::Quit),
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        let mut bytes = [0; 64];
        let read = match rustix::io::read(input, &mut bytes) {
            Ok(0) | Err(_) => return tell(Key::Quit),
            Ok(read) => read,
        };
        for stroke in strokes(&bytes[..read]) {
            match stroke {
                Stroke::Quit => {
                    allow_signals();
                    return tell(Key::Quit);
                }
                Stroke::Turn(detents) => tell(Key::Edge(Edge::Turn(detents))),
                Stroke::Press(button, length) => {
                    tell(Key::Edge(Edge::Down(button)));
                    let ended = is_stopped_within(stopped, length);
                    tell(Key::Edge(Edge::Up(button)));
                    if ended {
                        return;
                    }
                }
            }
        }
    }
}

/// Waits for `pause`, or until the keyboard is dropped: true then.
fn is_stopped_within(stopped: &PipeReader, pause: Duration) -> bool {
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else { return false };
        match poll(&mut [PollFd::new(stopped, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stroke {
    Press(Button, Duration),
    Turn(i8),
    Quit,
}

/// What was typed. Keys without a meaning are passed over, escape sequences as a whole.
fn strokes(mut bytes: &[u8]) -> Vec<Stroke> {
    let mut found = Vec::new();
    while let Some((&key, rest)) = bytes.split_first() {
        let (stroke, rest) = match (key, rest) {
            (0x1b, [b'[' | b'O', sequence @ ..]) => {
                let end = sequence.iter().position(|b| (0x40..=0x7e).contains(b)).unwrap_or(sequence.len());
                let last = sequence.get(end).copied().unwrap_or_default();
                (arrow(last), sequence.get(end + 1..).unwrap_or_default())
            }
            _ => (plain(key), rest),
        };
        found.extend(stroke);
        bytes = rest;
    }
    found
}

fn arrow(last: u8) -> Option<Stroke> {
    Some(match last {
        b'A' => Stroke::Turn(1),
        b'B' => Stroke::Turn(-1),
        b'C' => Stroke::Press(Button::Next, STROKE),
        b'D' => Stroke::Press(Button::Previous, STROKE),
        _ => return None,
    })
}

fn plain(key: u8) -> Option<Stroke> {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    Some(match key {
        b' ' => Stroke::Press(Button::Play, STROKE),
        b's' | b'S' | b'i' | b'I' => Stroke::Press(Button::Play, HOLD),
        b'n' => Stroke::Press(Button::Next, STROKE),
        b'N' => Stroke::Press(Button::Next, HOLD),
        b'p' => Stroke::Press(Button::Previous, STROKE),
        b'P' => Stroke::Press(Button::Previous, HOLD),
        b'+' | b'=' => Stroke::Press(Button::VolumeUp, STROKE),
        b'-' | b'_' => Stroke::Press(Button::VolumeDown, STROKE),
        b'm' | b'M' => Stroke::Press(Button::Knob, STROKE),
        b'q' | b'Q' | CTRL_C | CTRL_D => Stroke::Quit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_buttons() {
        use Button::{Knob, Next, Play, Previous, VolumeDown, VolumeUp};
        let pressed = |b| Stroke::Press(b, STROKE);
        let all = [Play, Next, Previous, VolumeUp, VolumeDown, Knob].map(pressed);
        assert_eq!(strokes(b" np+-m"), all);
        assert_eq!(strokes(b"sNx"), [Stroke::Press(Play, HOLD), Stroke::Press(Next, HOLD)]);
        assert_eq!(strokes(b"q\x03"), [Stroke::Quit, Stroke::Quit]);
    }

    #[test]
    fn a_stop_does_not_wait_for_a_key_to_come_up() {
        let (stopped, stop) = io::pipe().unwrap();
        assert!(!is_stopped_within(&stopped, Duration::from_millis(1)));
        let began = Instant::now();
        drop(stop);
        assert!(is_stopped_within(&stopped, Duration::from_secs(60)));
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn escape_sequences_are_one_key() {
        assert_eq!(
            strokes(b"\x1b[A\x1b[B\x1bOC"),
            [Stroke::Turn(1), Stroke::Turn(-1), Stroke::Press(Button::Next, STROKE)]
        );
        // Page down, F5, a mouse report and a sequence cut short do nothing, though letters and digits stand in them.
        assert_eq!(strokes(b"\x1b[6~\x1b[15~\x1b[<0;1;1M\x1b[1;"), []);
    }
}
