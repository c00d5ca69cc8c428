//! `[streams]`: which live streams may be added, and what is kept of them.

use std::net::IpAddr;
use std::path::PathBuf;

use jukebox_core::station::{Network, Rule, is_public};
use serde::{Deserialize, Serialize};

use super::within;

/// `[streams]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// What may be added: `https://HOST/PATH` and all below it, `HOST`, `*.HOST`. Empty: nothing.
    pub allow: Vec<String>,
    /// Addresses and networks that are not of the public Internet and may be reached all the same.
    pub private: Vec<String>,
    /// How much is kept ahead of the playhead, in seconds: a pause that is longer goes on at the station's edge, 5 to 3600.
    #[serde(deserialize_with = "within::<_, u32, 5, 3600>")]
    pub buffer_s: u32,
    /// Most memory for it, in MB, 1 to 256.
    #[serde(deserialize_with = "within::<_, u32, 1, 256>")]
    pub buffer_mb: u32,
    /// PEM file with the roots that stations are checked against.
    pub ca: PathBuf,
}

impl Default for Streams {
    fn default() -> Self {
        let ca = "/etc/ssl/certs/ca-certificates.crt".into();
        Self { allow: Vec::new(), private: Vec::new(), buffer_s: 60, buffer_mb: 2, ca }
    }
}

impl Streams {
    /// What is wrong, and at which key.
    pub(super) fn check(&self) -> Result<(), (&'static [&'static str], String)> {
        for rule in &self.allow {
            rule.parse::<Rule>().map_err(|e| (&["streams", "allow"] as &[_], format!("`{rule}`: {e}")))?;
        }
        for network in &self.private {
            network.parse::<Network>().map_err(|e| (&["streams", "private"] as &[_], format!("`{network}`: {e}")))?;
        }
        Ok(())
    }

    /// Whether a name may lead to this address: it is public, or listed under `private`.
    pub fn may_reach(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.private.iter().filter_map(|n| n.parse::<Network>().ok()).any(|n| n.holds(address))
    }
}
