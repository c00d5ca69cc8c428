//! The configuration was read again while it plays: what of it counts at once, and what is told of it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::exchange::{Output, Settings};
use crate::jukebox::{Jukebox, Notice};
use crate::time::Span;

/// A wrong file stands on the panel for so long.
const SHOWN: Span = Span::s(10);
/// The sound comes down to a new ceiling in this time, in milliseconds.
const RAMP_MS: u32 = 500;

/// What came of reading the configuration again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reload {
    /// It is right. Id, site, board and serial number are those of before.
    Right {
        /// What counts from now on.
        settings: Box<Settings>,
        /// Keys that changed and count after a restart only.
        after_restart: Vec<String>,
    },
    /// It is wrong: nothing of it counts.
    Wrong {
        /// Where in the file (or which file), for the panel.
        place: String,
        /// File, line and what to write instead, in one line.
        error: String,
    },
}

impl Jukebox {
    pub(crate) fn reloaded(&mut self, reload: Reload) {
        match reload {
            Reload::Right { settings, after_restart } => {
                let old = core::mem::replace(&mut self.settings, *settings);
                self.adopt(&old);
                let digest = self.settings.config.clone();
                self.event("config", json!({"digest": digest, "after_restart": after_restart, "error": null}));
            }
            Reload::Wrong { place, error } => {
                let digest = self.settings.config.clone();
                self.event("config", json!({"digest": digest, "after_restart": [], "error": error}));
                let detail = "The old one counts: jukebox config check";
                let word = Notice::Word { headline: "Configuration is wrong", title: place, detail };
                self.notice = Some((word, self.now + SHOWN));
            }
        }
    }

    /// What was copied or said of the settings is made anew; all else reads them when it needs them.
    fn adopt(&mut self, old: &Settings) {
        let new = &self.settings;
        self.planner.only_originals(new.original_only);
        let (broker, described) = (new.broker, new.home_assistant);
        let other_list =
            (&new.fallback.playlist, new.fallback.shuffle) != (&old.fallback.playlist, old.fallback.shuffle);
        if self.volume > new.volume_max {
            self.volume = new.volume_max;
            self.event("volume", json!({"percent": self.volume, "muted": self.muted, "by": "config"}));
            self.order_volume(RAMP_MS);
            self.save_meta(false);
        }
        if other_list {
            self.fallback.forget();
        }
        if !self.settings.fallback.when_waiting && self.fallback.on.is_some_and(|w| w.entry.is_some()) {
            self.end_fallback();
        }
        self.ask_for_fallback();
        self.expire_history();
        if !broker {
            (self.bots, self.name_taken) = (false, false);
        }
        self.told.again();
        if old.home_assistant && !described {
            // An empty retained message takes the device away.
            self.push(Output::Describe { payload: String::new() });
        }
    }
}
