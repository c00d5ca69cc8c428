//! Where button edges come from: pins of a Raspberry Pi, lines of the GPIO character device, or the keyboard of a terminal.
//!
//! Nothing is debounced here: what an edge means is core's. A rotary encoder is the exception that needs no time: see [`rotary`].

mod keyboard;
mod lines;
mod pi;
pub mod rotary;

use std::path::Path;

use jukebox_core::gesture::{Button, Edge};

pub use keyboard::{HELP, Key, Keyboard};
use rotary::Rotary;

use crate::profile::Pins;

/// The buttons of a board, until this is dropped.
pub struct Buttons {
    how: &'static str,
    _source: Source,
}

/// Held for its drop, which ends the threads.
enum Source {
    Pi { _pins: pi::Pi },
    Lines { _lines: lines::Lines },
}

/// Why there are no buttons.
#[derive(Debug, thiserror::Error)]
pub enum ButtonError {
    /// The pins cannot be used.
    #[error("the buttons cannot be used: {0}; is the user in the group gpio, and does no other program use the pins?")]
    Refused(String),
}

impl Buttons {
    /// Listens to `pins`, each pulled up, and calls `tell` on threads of its own. Through rppal on a Raspberry Pi, else through
    /// the character device; through `chip`, a character device, if it is given.
    ///
    /// # Errors
    /// The pins cannot be used.
    pub fn start(
        pins: &Pins,
        chip: Option<&Path>,
        tell: impl Fn(Edge) + Send + Sync + 'static,
    ) -> Result<Self, ButtonError> {
        let wiring = Wiring::new(pins);
        let (how, source) = match chip {
            None if pi::is_here() => ("rppal", Source::Pi { _pins: pi::Pi::start(wiring, tell)? }),
            _ => {
                let chip = chip.map_or_else(crate::gpio::chip, |c| Ok(c.into()));
                let chip = chip.map_err(|e| ButtonError::Refused(e.to_string()))?;
                ("character device", Source::Lines { _lines: lines::Lines::start(wiring, &chip, tell)? })
            }
        };
        Ok(Self { how, _source: source })
    }

    /// By which way they are read.
    pub fn how(&self) -> &'static str {
        self.how
    }
}

/// What each pin is, and where the encoder stands.
struct Wiring {
    buttons: Vec<(u8, Button)>,
    encoder: Option<([u8; 2], Rotary)>,
}

impl Wiring {
    fn new(pins: &Pins) -> Self {
        let all = [
            (pins.play, Button::Play),
            (pins.next, Button::Next),
            (pins.previous, Button::Previous),
            (pins.volume_down, Button::VolumeDown),
            (pins.volume_up, Button::VolumeUp),
            (pins.knob, Button::Knob),
        ];
        let buttons = all.into_iter().filter_map(|(pin, button)| Some((pin?, button))).collect();
        Self { buttons, encoder: pins.encoder.map(|pins| (pins, Rotary::default())) }
    }

    fn pins(&self) -> impl Iterator<Item = u8> + '_ {
        let encoder = self.encoder.iter().flat_map(|(pins, _)| *pins);
        self.buttons.iter().map(|(pin, _)| *pin).chain(encoder)
    }

    /// What it means that `pin` went to ground (`low`) or came back.
    fn edge(&mut self, pin: u8, low: bool) -> Option<Edge> {
        if let Some((_, button)) = self.buttons.iter().find(|(p, _)| *p == pin) {
            return Some(if low { Edge::Down(*button) } else { Edge::Up(*button) });
        }
        let (pins, rotary) = self.encoder.as_mut()?;
        let which = pins.iter().position(|p| *p == pin)?;
        rotary.edge(which, low).map(Edge::Turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_become_edges_by_the_profile() {
        let profile = crate::profile::Profile::named("hifiberry-oled").unwrap();
        let mut wiring = Wiring::new(profile.buttons.as_ref().unwrap());
        assert_eq!(wiring.pins().collect::<Vec<_>>(), [17, 27, 23, 24, 13, 5, 6]);
        assert_eq!(wiring.edge(17, true), Some(Edge::Down(Button::Play)));
        assert_eq!(wiring.edge(24, false), Some(Edge::Up(Button::VolumeUp)));
        assert_eq!(wiring.edge(40, true), None);
        let clockwise = [(5, true), (6, true), (5, false), (6, false)];
        let told: Vec<_> = clockwise.iter().filter_map(|(pin, low)| wiring.edge(*pin, *low)).collect();
        assert_eq!(told, [Edge::Turn(1)]);
    }
}
