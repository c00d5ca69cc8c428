//! What a board has, as data: one TOML file each in `board/profiles`, compiled in, or a file of one's own.
//!
//! A *simulated* board has no wires: its panel is a PNG file or the terminal, its buttons are the keyboard. Pins are counted as
//! the Broadcom chip counts them (BCM), which are the lines of its character device too.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A board's description.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in the configuration.
    pub name: String,
    /// The same for people.
    pub about: String,
    /// The kind of panel of a board without one on wires.
    pub screen: Option<Screen>,
    /// Products that are this board, as their EEPROM tells in the device tree (`hat/product`).
    #[serde(default)]
    pub hats: Vec<String>,
    /// Its DAC: PCMs to try where the configuration names none.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// What `config.txt` of the boot partition must say.
    #[serde(default)]
    pub config_txt: Vec<String>,
    /// The panel.
    pub panel: Option<Wiring>,
    /// The buttons.
    pub buttons: Option<Pins>,
}

/// The kinds of panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Screen {
    /// 128 by 64, one bit a pixel.
    Oled,
    /// 240 by 240, 16 bits a pixel.
    Lcd,
}

/// How a panel is connected.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "driver", rename_all = "lowercase", deny_unknown_fields)]
pub enum Wiring {
    /// OLED on I2C.
    Ssd1306 {
        /// The bus.
        bus: PathBuf,
        /// Its address there, 7 bits.
        address: u8,
        /// How it is turned.
        #[serde(default)]
        rotation: Rotation,
    },
    /// LCD on SPI.
    St7789 {
        /// The bus and chip select.
        bus: PathBuf,
        /// Clock in Hz.
        hz: u32,
        /// Pin that tells data from commands.
        dc: u8,
        /// Pin of the backlight.
        backlight: Option<u8>,
        /// Pin of the reset, low-active.
        reset: Option<u8>,
        /// How it is turned.
        #[serde(default)]
        rotation: Rotation,
    },
}

/// A panel's turn, clockwise in degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub enum Rotation {
    /// As it is built.
    #[default]
    None,
    /// 90 degrees: square panels only.
    Quarter,
    /// Upside down.
    Half,
    /// 270 degrees: square panels only.
    ThreeQuarters,
}

impl TryFrom<u16> for Rotation {
    type Error = &'static str;

    fn try_from(degrees: u16) -> Result<Self, Self::Error> {
        Ok(match degrees {
            0 => Self::None,
            90 => Self::Quarter,
            180 => Self::Half,
            270 => Self::ThreeQuarters,
            _ => return Err("a rotation is 0, 90, 180 or 270"),
        })
    }
}

/// Pins of buttons, each to ground, and of a rotary encoder, its middle to ground.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Play and pause.
    pub play: Option<u8>,
    /// Next entry.
    pub next: Option<u8>,
    /// Previous entry.
    pub previous: Option<u8>,
    /// Volume down.
    pub volume_down: Option<u8>,
    /// Volume up.
    pub volume_up: Option<u8>,
    /// The encoder's knob.
    pub knob: Option<u8>,
    /// The encoder's A and B: A changes first when it is turned clockwise.
    pub encoder: Option<[u8; 2]>,
}

/// Why there is no such profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No file of that name.
    #[error("there is no board '{name}'; there are: {known}; or name a file of your own, with a `/` in its path")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names of all boards.
        known: String,
    },
    /// One's own file cannot be read.
    #[error("{}: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// The file is wrong.
    #[error("{name}: {fault}")]
    Faulty {
        /// The file.
        name: String,
        /// What is wrong, with the line.
        fault: String,
    },
}

/// Name and text of each file.
const FILES: [(&str, &str); 5] = [
    ("hifiberry-oled", include_str!("../profiles/hifiberry-oled.toml")),
    ("pirate-audio", include_str!("../profiles/pirate-audio.toml")),
    ("pirate-audio-2019", include_str!("../profiles/pirate-audio-2019.toml")),
    ("sim-oled", include_str!("../profiles/sim-oled.toml")),
    ("sim-lcd", include_str!("../profiles/sim-lcd.toml")),
];

/// Names of all boards.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// All boards that are compiled in.
pub fn all() -> impl Iterator<Item = Profile> {
    // A test reads them all.
    names().filter_map(|name| Profile::named(name).ok())
}

impl Profile {
    /// The board called `name`, or described in the file of that name if a `/` is in it.
    ///
    /// # Errors
    /// There is none, and which there are; or what is wrong with the file.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        if name.contains('/') {
            let path = Path::new(name);
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|why| ProfileError::Unreadable { path: path.into(), why })?;
            return Self::parse(name, &text);
        }
        let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(ProfileError::Unknown { name: name.to_owned(), known });
        };
        Self::parse(&format!("board/profiles/{name}.toml"), text)
    }

    /// The board whose EEPROM names itself `product`.
    pub fn of_hat(product: &str) -> Option<Self> {
        all().find(|profile| profile.hats.iter().any(|hat| hat == product))
    }

    /// The kind of its panel; the small one where there is none.
    pub fn screen(&self) -> Screen {
        match &self.panel {
            Some(Wiring::Ssd1306 { .. }) => Screen::Oled,
            Some(Wiring::St7789 { .. }) => Screen::Lcd,
            None => self.screen.unwrap_or(Screen::Oled),
        }
    }

    fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let faulty = |fault: String| ProfileError::Faulty { name: name.to_owned(), fault };
        let profile: Self = toml::from_str(text).map_err(|fault| faulty(fault.to_string()))?;
        if let Some(Wiring::Ssd1306 { rotation: Rotation::Quarter | Rotation::ThreeQuarters, .. }) = profile.panel {
            return Err(faulty("panel.rotation: an SSD1306 is turned by 0 or 180".into()));
        }
        let mut pins = profile.pins();
        pins.sort_unstable();
        match pins.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(faulty(format!("pin {} is used twice", pair[0]))),
            None => Ok(profile),
        }
    }

    /// All pins in use.
    pub fn pins(&self) -> Vec<u8> {
        let mut pins = Vec::new();
        if let Some(Wiring::St7789 { dc, backlight, reset, .. }) = &self.panel {
            pins.extend([Some(*dc), *backlight, *reset].into_iter().flatten());
        }
        if let Some(b) = &self.buttons {
            pins.extend([b.play, b.next, b.previous, b.volume_down, b.volume_up, b.knob].into_iter().flatten());
            pins.extend(b.encoder.into_iter().flatten());
        }
        pins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_right_and_knows_its_name() {
        for name in names() {
            assert_eq!(Profile::named(name).unwrap().name, name);
        }
        let error = Profile::named("sim-olde").unwrap_err().to_string();
        assert!(error.starts_with("there is no board 'sim-olde'; there are: hifiberry-oled, "), "{error}");
    }

    #[test]
    fn a_board_is_known_by_its_eeprom() {
        assert_eq!(Profile::of_hat("HiFiBerry DAC+").unwrap().name, "hifiberry-oled");
        assert_eq!(Profile::of_hat("Toaster"), None);
        assert_eq!(all().count(), FILES.len());
    }

    #[test]
    fn a_file_of_ones_own_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Profile::named(path.to_str().unwrap())
        };
        let text = "name = \"own\"\nabout = \"mine\"\n[buttons]\nplay = 5\nencoder = [6, 7]\n";
        assert_eq!(read(text).unwrap().pins(), [5, 6, 7]);
        assert!(read(&text.replace('7', "5")).unwrap_err().to_string().ends_with("pin 5 is used twice"));
        assert!(read("name = \"own\"\nabout = 3\n").unwrap_err().to_string().contains("line 2"));
        let panel = "name = \"o\"\nabout = \"\"\n[panel]\ndriver = \"ssd1306\"\nbus = \"/dev/i2c-1\"\naddress = 60\n";
        assert!(read(&format!("{panel}rotation = 45\n")).unwrap_err().to_string().contains("0, 90, 180 or 270"));
        assert!(read(&format!("{panel}rotation = 90\n")).unwrap_err().to_string().contains("0 or 180"));
        assert_eq!(read(panel).unwrap().screen(), Screen::Oled);
    }
}
