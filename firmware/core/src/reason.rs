//! The one table: a fault goes in; code, plain sentences, wait, skip or heal, and who can fix it come out.
//!
//! Law: link trouble *waits*, a bad track is *skipped*, our own trouble is *healed*. Panel, reply, event, command line and
//! health all render from this table; there is never a bare "error".

use serde::{Deserialize, Serialize};

/// What is in the way of sound, or of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No route, or the network is unreachable.
    NoRoute,
    /// The office's name is not resolved.
    Dns,
    /// The office refuses or resets the connection.
    Refused,
    /// No answer within the deadline.
    Timeout,
    /// The office's certificate is not accepted.
    Tls,
    /// The proxy cannot be reached.
    Proxy,
    /// The proxy refuses user or password (407).
    ProxyLogin,
    /// The proxy does not let us through, or does not get through itself.
    ProxyNoWay,
    /// A login page of somebody else's answers (HTML, a redirect, 511).
    Portal,
    /// The office answers with an error (5xx, 401, 403, 429, 451).
    Office,
    /// What the office sends is not what was asked for (a wrong range or digest).
    Lying,
    /// 404 or 410 from every origin.
    Missing,
    /// The digest is wrong from every origin while other objects verify.
    Damaged,
    /// The decoder cannot read it although the digest is right.
    Undecodable,
    /// The record is of a form that this version does not read.
    Newer,
    /// A station cannot be reached, or has fallen silent.
    StationAway,
    /// A station's server answers that it is off the air.
    StationOff,
    /// A station leads to an address or a host that the configuration does not allow.
    StationElsewhere,
    /// A station sends HE-AAC, which is not played.
    HeAac,
    /// A URL that leads to no stream of a known kind.
    NoStream,
    /// None of the configured outputs is there.
    NoOutput,
    /// The card is full.
    DiskFull,
    /// The card or its driver reports an error.
    DiskFault,
}

/// What the player does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait and play on from what is on board.
    Wait,
    /// Skip the track, with the reason.
    Skip,
    /// Mend it ourselves.
    Heal,
}

/// Who can fix it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody needs to: it passes.
    Time,
    /// Whoever looks after the network.
    Network,
    /// Whoever runs the office end.
    Office,
    /// Whoever stands at the player.
    Player,
}

impl Reason {
    /// Every reason, for the documentation and its test.
    pub const ALL: [Self; 23] = [
        Self::NoRoute,
        Self::Dns,
        Self::Refused,
        Self::Timeout,
        Self::Tls,
        Self::Proxy,
        Self::ProxyLogin,
        Self::ProxyNoWay,
        Self::Portal,
        Self::Office,
        Self::Lying,
        Self::Missing,
        Self::Damaged,
        Self::Undecodable,
        Self::Newer,
        Self::StationAway,
        Self::StationOff,
        Self::StationElsewhere,
        Self::HeAac,
        Self::NoStream,
        Self::NoOutput,
        Self::DiskFull,
        Self::DiskFault,
    ];

    /// The row of the table: code, sentence of at most 42 characters, full sentence, action, who.
    const fn row(self) -> (&'static str, &'static str, &'static str, Action, Who) {
        use Action::{Heal, Skip, Wait};
        use Who::{Network, Office, Player, Time};
        match self {
            Self::NoRoute => ("no_route", "No network", "The player has no network.", Wait, Network),
            Self::Dns => {
                ("dns", "The office's name is not found", "The network does not know the office's name.", Wait, Network)
            }
            Self::Refused => {
                ("refused", "The office refuses connections", "The office refuses the connection.", Wait, Office)
            }
            Self::Timeout => ("timeout", "The office does not answer", "The office does not answer.", Wait, Network),
            Self::Tls => (
                "tls",
                "The office's certificate is refused",
                "The office's certificate is not accepted.",
                Wait,
                Office,
            ),
            Self::Proxy => {
                ("proxy", "The proxy cannot be reached", "The network's proxy cannot be reached.", Wait, Network)
            }
            Self::ProxyLogin => (
                "proxy_login",
                "The proxy refuses user or password",
                "The network's proxy refuses user or password: see `proxy` in the configuration.",
                Wait,
                Player,
            ),
            Self::ProxyNoWay => (
                "proxy_no_way",
                "The proxy gives no way to the office",
                "The network's proxy is there, but does not connect to the office.",
                Wait,
                Network,
            ),
            Self::Portal => (
                "portal",
                "A login page is in the way",
                "The network answers with a login page of its own.",
                Wait,
                Network,
            ),
            Self::Office => {
                ("office", "The office answers with an error", "The office answers with an error.", Wait, Office)
            }
            Self::Lying => (
                "lying",
                "The office sends wrong data",
                "What the office sends is not what was asked for.",
                Wait,
                Office,
            ),
            Self::Missing => {
                ("missing", "Not in the library any more", "The library does not hold it any more.", Skip, Office)
            }
            Self::Damaged => {
                ("damaged", "Damaged in the library", "The library's copy is damaged; run verify.", Skip, Office)
            }
            Self::Undecodable => (
                "undecodable",
                "The file cannot be decoded",
                "The file cannot be decoded, although it arrived whole.",
                Skip,
                Office,
            ),
            Self::Newer => {
                ("newer", "Made for a newer player", "It was made for a newer player: update this one.", Skip, Player)
            }
            Self::StationAway => {
                ("station_away", "The station does not come", "Nothing comes from the station.", Wait, Network)
            }
            Self::StationOff => (
                "station_off",
                "The station is off the air",
                "The station's server answers, but the station is off the air.",
                Wait,
                Time,
            ),
            Self::StationElsewhere => (
                "station_elsewhere",
                "The station leads where none may",
                "The station leads to a place that `[streams]` in the configuration does not allow.",
                Wait,
                Player,
            ),
            Self::HeAac => (
                "he_aac",
                "HE-AAC radio is not played",
                "The station sends HE-AAC, which is not played; most have an MP3 or AAC-LC stream too.",
                Skip,
                Player,
            ),
            Self::NoStream => (
                "no_stream",
                "No stream that can be played",
                "The URL leads to no stream of MP3, Ogg Vorbis, Ogg Opus or AAC-LC.",
                Skip,
                Player,
            ),
            Self::NoOutput => {
                ("no_output", "No sound device", "None of the configured sound devices is there.", Heal, Player)
            }
            Self::DiskFull => ("disk_full", "The card is full", "The player's card is full.", Heal, Time),
            Self::DiskFault => (
                "disk_fault",
                "The card cannot be written",
                "The player's card cannot be written: it may be worn out.",
                Heal,
                Player,
            ),
        }
    }

    /// As events and replies carry it.
    pub fn told(self) -> serde_json::Value {
        serde_json::json!({"code": self.code(), "text": self.text()})
    }

    /// Its public code.
    pub const fn code(self) -> &'static str {
        self.row().0
    }
    /// A sentence for the small panel.
    pub const fn short(self) -> &'static str {
        self.row().1
    }
    /// A full sentence.
    pub const fn text(self) -> &'static str {
        self.row().2
    }
    /// Wait, skip or heal.
    pub const fn action(self) -> Action {
        self.row().3
    }
    /// Who can fix it.
    pub const fn who(self) -> Who {
        self.row().4
    }
}

/// Why a command is refused: public codes of the MQTT contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Payload not understood; `field` names where.
    BadPayload,
    /// No such verb.
    UnknownVerb,
    /// No track of that id.
    UnknownTrack,
    /// Nothing matches the search.
    NotFound,
    /// `strict`, and several tracks match.
    Ambiguous,
    /// Already among the next 20.
    Duplicate,
    /// 200 entries.
    QueueFull,
    /// No entry of that number.
    UnknownEntry,
    /// The queue has changed since `if_rev`.
    RevMismatch,
    /// The id was used for another command.
    IdReused,
    /// Waited at the broker while the player was away.
    Late,
    /// Its expiry passed.
    Expired,
    /// A retained command.
    Retained,
    /// Above 8 KiB.
    TooLarge,
    /// More than 20 commands a second.
    Busy,
    /// The URL is on no allow-list.
    UrlNotAllowed,
    /// No playlist of that name.
    UnknownPlaylist,
    /// The catalogue is not here yet.
    NoCatalogue,
    /// Nothing plays or is paused in which one could go elsewhere.
    NotSeekable,
    /// Not allowed for all players at once, or to the entry that plays.
    NotAllowed,
    /// The response topic is not under the site's reply topic.
    BadResponseTopic,
    /// Our fault.
    Internal,
}

impl Code {
    /// Every code, for the documentation and its test.
    pub const ALL: [Self; 22] = [
        Self::BadPayload,
        Self::UnknownVerb,
        Self::UnknownTrack,
        Self::NotFound,
        Self::Ambiguous,
        Self::Duplicate,
        Self::QueueFull,
        Self::UnknownEntry,
        Self::RevMismatch,
        Self::IdReused,
        Self::Late,
        Self::Expired,
        Self::Retained,
        Self::TooLarge,
        Self::Busy,
        Self::UrlNotAllowed,
        Self::UnknownPlaylist,
        Self::NoCatalogue,
        Self::NotSeekable,
        Self::NotAllowed,
        Self::BadResponseTopic,
        Self::Internal,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_sentences() {
        for (i, r) in Reason::ALL.into_iter().enumerate() {
            assert!(!r.short().is_empty() && r.short().chars().count() <= 42, "{r:?}");
            assert!(r.text().ends_with('.') && r.text().len() > r.short().len() / 2, "{r:?}");
            assert!(Reason::ALL[..i].iter().all(|o| o.code() != r.code()), "{r:?}");
            assert_eq!(serde_json::to_value(r).unwrap(), r.code(), "the code is the name");
        }
    }
}
