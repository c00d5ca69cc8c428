//! Button edges in; `Press`, `Long`, `Repeat`, `Turn` out.
//!
//! Debounce 15 ms, hold 600 ms, repeat 150 ms on the volume keys. No double press: it would delay every single one by
//! 350 ms. A button that is down for 30 s is stuck: told once, then ignored until it comes up.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::time::{Instant, Span};

/// A button of the player. A rotary encoder is turned, and its knob is `Knob`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Button {
    /// Play and pause.
    Play,
    /// Next entry.
    Next,
    /// Previous entry.
    Previous,
    /// Volume down.
    VolumeDown,
    /// Volume up.
    VolumeUp,
    /// The rotary encoder's knob.
    Knob,
}

impl Button {
    /// As it is written in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Next => "next",
            Self::Previous => "previous",
            Self::VolumeDown => "volume_down",
            Self::VolumeUp => "volume_up",
            Self::Knob => "knob",
        }
    }
    const fn repeats(self) -> bool {
        matches!(self, Self::VolumeDown | Self::VolumeUp)
    }
}

/// What happened at the pins, not debounced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// Went down.
    Down(Button),
    /// Came up.
    Up(Button),
    /// The rotary encoder moved so many detents, clockwise positive.
    Turn(i8),
}

/// What somebody meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gesture {
    /// Down and up; told at the release. A volume key is told at the edge.
    Press(Button),
    /// Held for 600 ms; told while it is held.
    Long(Button),
    /// A volume key that is still held, every 150 ms.
    Repeat(Button),
    /// The encoder, so many detents.
    Turn(i8),
    /// Down for 30 s.
    Stuck(Button),
}

const DEBOUNCE: Span = Span::ms(15);
const HOLD: Span = Span::ms(600);
const REPEAT: Span = Span::ms(150);
const STUCK: Span = Span::s(30);

#[derive(Clone, Copy, Debug)]
struct Key {
    button: Button,
    /// What the pin says.
    raw_down: bool,
    /// What we take it for.
    down: bool,
    /// When the pin last changed.
    raw_at: Instant,
    /// When it was taken for down.
    since: Instant,
    /// When the next long, repeat or stuck is due.
    next: Option<Instant>,
    /// A long press was told: the release means nothing.
    told: bool,
    stuck: bool,
}

/// Debouncer of all buttons. After every input: drain [`Gestures::poll`] at `now`.
#[derive(Clone, Debug, Default)]
pub struct Gestures {
    keys: Vec<Key, 6>,
    turned: i8,
}

impl Gestures {
    /// Takes an edge.
    pub fn edge(&mut self, now: Instant, edge: Edge) {
        let (button, down) = match edge {
            Edge::Turn(n) => return self.turned = self.turned.saturating_add(n),
            Edge::Down(b) => (b, true),
            Edge::Up(b) => (b, false),
        };
        if !self.keys.iter().any(|k| k.button == button) {
            // Six buttons, six places: the push cannot fail.
            let _ = self.keys.push(Key {
                button,
                raw_down: false,
                down: false,
                raw_at: Instant(0),
                since: Instant(0),
                next: None,
                told: false,
                stuck: false,
            });
        }
        if let Some(k) = self.keys.iter_mut().find(|k| k.button == button)
            && k.raw_down != down
        {
            (k.raw_down, k.raw_at) = (down, now);
        }
    }

    /// The next gesture that is due.
    pub fn poll(&mut self, now: Instant) -> Option<Gesture> {
        if self.turned != 0 {
            return Some(Gesture::Turn(core::mem::take(&mut self.turned)));
        }
        self.keys.iter_mut().find_map(|k| k.poll(now))
    }

    /// When something will be due by itself.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.keys.iter().filter_map(Key::timeout).min()
    }
}

impl Key {
    /// A change of the pin counts at once if the last settled state is older than the debounce time, else when it has
    /// lasted that long: the first edge of a press is felt without delay, its bouncing is not.
    fn settles_at(&self) -> Option<Instant> {
        (self.raw_down != self.down).then(|| self.raw_at.max(self.since + DEBOUNCE))
    }

    fn timeout(&self) -> Option<Instant> {
        [self.settles_at(), self.next].into_iter().flatten().min()
    }

    fn poll(&mut self, now: Instant) -> Option<Gesture> {
        if self.settles_at().is_some_and(|t| t <= now) {
            self.down = self.raw_down;
            self.since = now;
            if self.down {
                (self.told, self.stuck) = (false, false);
                self.next = Some(now + HOLD);
                if self.button.repeats() {
                    self.told = true;
                    return Some(Gesture::Press(self.button));
                }
            } else {
                self.next = None;
                if !self.told {
                    return Some(Gesture::Press(self.button));
                }
            }
        }
        if self.next.is_none_or(|t| t > now) {
            return None;
        }
        if now.since(self.since) >= STUCK {
            (self.next, self.stuck) = (None, true);
            return Some(Gesture::Stuck(self.button));
        }
        if self.button.repeats() {
            self.next = Some(now + REPEAT);
            return Some(Gesture::Repeat(self.button));
        }
        self.next = Some(self.since + STUCK);
        if core::mem::replace(&mut self.told, true) { None } else { Some(Gesture::Long(self.button)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(edges: &[(u64, Edge)], until_ms: u64) -> alloc::vec::Vec<(u64, Gesture)> {
        let (mut g, mut out) = (Gestures::default(), alloc::vec::Vec::new());
        let mut edges = edges.iter().peekable();
        loop {
            let next = [edges.peek().map(|e| e.0 * 1_000), g.poll_timeout().map(|t| t.0)].into_iter().flatten().min();
            let Some(now) = next.filter(|&n| n <= until_ms * 1_000) else { return out };
            if let Some((_, e)) = edges.next_if(|e| e.0 * 1_000 == now) {
                g.edge(Instant(now), *e);
            }
            while let Some(x) = g.poll(Instant(now)) {
                out.push((now / 1_000, x));
            }
        }
    }
    use Edge::{Down, Turn, Up};

    #[test]
    fn a_bouncing_press_is_one_press_at_the_release() {
        let b = Button::Play;
        let edges = [(100, Down(b)), (102, Up(b)), (104, Down(b)), (300, Up(b)), (303, Down(b)), (306, Up(b))];
        assert_eq!(run(&edges, 60_000), [(300, Gesture::Press(b))]);
    }

    #[test]
    fn long_is_told_while_held_and_the_release_is_silent() {
        let b = Button::Next;
        assert_eq!(run(&[(100, Down(b)), (2_000, Up(b))], 60_000), [(700, Gesture::Long(b))]);
    }

    #[test]
    fn volume_acts_at_once_and_repeats() {
        let b = Button::VolumeUp;
        let r = Gesture::Repeat(b);
        let want = [(100, Gesture::Press(b)), (700, r), (850, r), (1_000, r)];
        assert_eq!(run(&[(100, Down(b)), (1_100, Up(b))], 9_000), want);
    }

    #[test]
    fn a_stuck_button_is_told_once() {
        let b = Button::Play;
        // The pin counts as down 15 ms after the start of time, where every key is up.
        let want = [(615, Gesture::Long(b)), (30_015, Gesture::Stuck(b))];
        assert_eq!(run(&[(0, Down(b))], 90_000), want);
    }

    #[test]
    fn the_encoder_turns() {
        assert_eq!(run(&[(5, Turn(1)), (6, Turn(-2))], 10), [(5, Gesture::Turn(1)), (6, Gesture::Turn(-2))]);
    }
}
