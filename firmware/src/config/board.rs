//! `[board]`: what the board has beside the DAC.

use std::fmt;
use std::path::{Path, PathBuf};

use jukebox_board::profile::{Profile, ProfileError};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// `[board]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Board {
    /// Name of the board's profile, or a file of one's own (with a `/`). `None`: what the EEPROM of the board tells. Use
    /// [`Board::profile`].
    pub profile: Option<String>,
    /// The small display.
    pub panel: Panel,
    /// The buttons.
    pub buttons: Buttons,
    /// The character device of panel and buttons. `None`: that of the 40-pin header; buttons on a Raspberry Pi by its registers.
    pub gpiochip: Option<PathBuf>,
    /// When the panel is dim.
    pub night: Option<Night>,
}

impl Board {
    /// The profile that was named, or the one of the board that this machine says it has.
    ///
    /// # Errors
    /// There is none of that name, or one's own file is wrong.
    pub fn profile(&self) -> Result<Option<Profile>, ProfileError> {
        match &self.profile {
            Some(name) => Profile::named(name).map(Some),
            None => Ok(hat().and_then(|product| Profile::of_hat(&product))),
        }
    }
}

/// What the EEPROM of the board on the header says it is.
pub fn hat() -> Option<String> {
    device_tree("hat/product")
}

/// A text of the device tree; it ends with a zero byte.
pub fn device_tree(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/device-tree").join(name)).ok()?;
    Some(text.trim_end_matches('\0').trim().into())
}

/// `panel`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Panel {
    /// What the profile has.
    #[default]
    Board,
    /// No display.
    None,
    /// The terminal that the player runs in.
    Terminal,
    /// A PNG file, replaced when the picture changes.
    Png(PathBuf),
}

/// `buttons`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Buttons {
    /// What the profile has.
    #[default]
    Board,
    /// No buttons.
    None,
    /// The keyboard of the terminal that the player runs in.
    Keyboard,
}

/// `night`: from one time of the day to another, each in minutes since midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Night {
    from: u16,
    to: u16,
}

impl Night {
    /// Whether `minute` of the day, counted from midnight, is in it.
    pub fn has(self, minute: u16) -> bool {
        let Self { from, to } = self;
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

impl std::str::FromStr for Night {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let digits = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
            let fits = digits(hours) && digits(minutes);
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            (fits && hours < 24 && minutes < 60).then_some(60 * hours + minutes)
        };
        let parts = text.split_once('-').and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
        match parts {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            _ => Err("must be two times of the day, for example \"20:00-07:00\""),
        }
    }
}

impl fmt::Display for Night {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl Serialize for Night {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Night {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Panel {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Ok(match (text.as_str(), text.strip_prefix("png:")) {
            ("board", _) => Self::Board,
            ("none", _) => Self::None,
            ("terminal", _) => Self::Terminal,
            (_, Some(file)) if !file.is_empty() => Self::Png(file.into()),
            _ => return Err(D::Error::custom("must be \"board\", \"none\", \"terminal\" or \"png:FILE\"")),
        })
    }
}

impl Serialize for Panel {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Board => s.serialize_str("board"),
            Self::None => s.serialize_str("none"),
            Self::Terminal => s.serialize_str("terminal"),
            Self::Png(file) => s.collect_str(&format_args!("png:{}", file.display())),
        }
    }
}

impl<'de> Deserialize<'de> for Buttons {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match String::deserialize(d)?.as_str() {
            "board" => Ok(Self::Board),
            "none" => Ok(Self::None),
            "keyboard" => Ok(Self::Keyboard),
            _ => Err(D::Error::custom("must be \"board\", \"none\" or \"keyboard\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_may_go_past_midnight() {
        let night: Night = "20:00-07:30".parse().unwrap();
        assert_eq!([0, 449, 450, 1199, 1200].map(|m| night.has(m)), [true, true, false, false, true]);
        assert!(!"01:00-05:00".parse::<Night>().unwrap().has(0));
        assert_eq!(night.to_string(), "20:00-07:30");
        for wrong in ["", "20-7", "24:00-07:00", "20:00-20:00", "20:60-07:00", "+8:00-07:00"] {
            assert!(wrong.parse::<Night>().is_err(), "{wrong}");
        }
    }
}
