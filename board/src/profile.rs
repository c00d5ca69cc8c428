//! What a board has, as data: one TOML file each in `board/profiles`, compiled in.
//!
//! A *simulated* board has no pins: its panel is a PNG file or the terminal, its buttons are the keyboard.

use serde::Deserialize;

/// A board's description.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in the configuration.
    pub name: String,
    /// The same for people.
    pub about: String,
    /// The kind of panel.
    pub screen: Screen,
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

/// Why there is no such profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No file of that name.
    #[error("there is no board '{name}'; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names of all boards.
        known: String,
    },
    /// A compiled-in file is wrong (a test reads them all).
    #[error("board/profiles/{name}.toml: {fault}")]
    Faulty {
        /// The file.
        name: String,
        /// What is wrong, with the line.
        fault: toml::de::Error,
    },
}

/// Name and text of each file.
const FILES: [(&str, &str); 2] =
    [("sim-oled", include_str!("../profiles/sim-oled.toml")), ("sim-lcd", include_str!("../profiles/sim-lcd.toml"))];

/// Names of all boards.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

impl Profile {
    /// The board called `name`.
    ///
    /// # Errors
    /// There is none, and which there are.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(ProfileError::Unknown { name: name.to_owned(), known });
        };
        toml::from_str(text).map_err(|fault| ProfileError::Faulty { name: name.to_owned(), fault })
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
        assert_eq!(error, "there is no board 'sim-olde'; there are: sim-oled, sim-lcd");
    }
}
