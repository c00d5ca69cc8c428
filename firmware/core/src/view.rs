//! What the panel should show, as data. No pixels.
//!
//! One shape serves every screen: an icon and a headline say the state in a picture and in words (never by colour alone),
//! two lines name the music, one line of detail says why, what is next or what to do, and a strip at the bottom says how
//! the player is. The panel decides sizes, wraps and scrolls.

use core::fmt::{self, Write};

use crate::library::Digest;

/// Text for the panel: at most 160 bytes of UTF-8, cut at a character.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(heapless::String<160>);

impl Text {
    /// `text`, cut where it does not fit.
    pub fn new(text: &str) -> Self {
        let mut t = Self::default();
        let _ = t.write_str(text);
        t
    }
    /// As a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            self.0.push(c).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The picture beside the headline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Icon {
    /// A note: splash, nothing queued.
    #[default]
    Note,
    /// Playing.
    Play,
    /// Paused.
    Pause,
    /// Stopped.
    Stop,
    /// Waiting for data.
    Wait,
    /// Skipped.
    Skip,
    /// Link lost.
    NoLink,
    /// No sound device.
    NoSound,
    /// Something is wrong that the player cannot mend.
    Warning,
    /// The information page.
    Info,
}

/// How far a track has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Playhead, in whole seconds: the panel redraws no more often than it shows.
    pub at_s: u32,
    /// Length, in whole seconds.
    pub of_s: u32,
}

/// Shown large over the rest for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeOverlay {
    /// 0 to 100.
    pub percent: u8,
    /// Whether the sound is muted.
    pub muted: bool,
}

/// The grade of the link, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Nothing passes.
    #[default]
    Down,
    /// Too slow for the smallest rendition.
    Poor,
    /// Enough for Opus.
    Fair,
    /// Enough for the original.
    Good,
}

/// The strip at the bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Strip {
    /// The link to the office.
    pub link: Grade,
    /// Whether the broker is connected: bots and phones reach the player.
    pub bots: bool,
    /// Volume, 0 to 100.
    pub volume: u8,
    /// Whether the sound is muted.
    pub muted: bool,
    /// Entries after the current one.
    pub up_next: u8,
}

/// A whole screen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct View {
    /// The state as a picture.
    pub icon: Icon,
    /// The state in words, at most 42 characters: "Playing", "Link lost, 34 min on board".
    pub headline: Text,
    /// Title of what plays, or the first line of a page.
    pub title: Text,
    /// Artist of what plays, or the second line of a page.
    pub artist: Text,
    /// What is next, why it waits, or what to do about it.
    pub detail: Text,
    /// How far the track has come, if one is on.
    pub progress: Option<Progress>,
    /// The cover of what plays: a JPEG of the library.
    pub cover: Option<Digest>,
    /// The volume, for a moment after a change.
    pub overlay: Option<VolumeOverlay>,
    /// The strip at the bottom; none on the splash and on full-page errors.
    pub strip: Option<Strip>,
}
