//! Button edges in; `Press`, `Double`, `Long`, `Turn` out.

use serde::{Deserialize, Serialize};

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
