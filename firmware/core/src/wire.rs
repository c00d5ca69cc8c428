//! Every message between player and office, versioned; frozen by byte tests.
//!
//! JSON of the MQTT contract, `jukebox/1/...`: adding a field keeps `/1/`, removing one or changing its meaning is `/2/`.
//! The fields are in the order in which people read them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::Metered;
use crate::command::Refusal;
use crate::exchange::Throttle;
use crate::history::Play;
use crate::library::TrackId;
use crate::queue::Entry;
use crate::reason::Code;
use crate::sound::EntryId;
use crate::time::UnixMs;
use crate::view::Grade;

/// What a message is made of: an object as JSON.
pub fn json<T: Serialize>(message: &T) -> String {
    // Our own types serialise; only a map with a key that is no string could fail.
    serde_json::to_string(message).unwrap_or_default()
}

/// State of the player as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Planned silence.
    Stopped,
    /// It should sound and waits for data.
    Buffering,
    /// Frames leave the DAC.
    Playing,
    /// The playhead is held.
    Paused,
    /// It should sound and there is no sound device.
    NoOutput,
}

/// A track, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Track<'a> {
    /// Its id.
    pub id: TrackId,
    /// `track`, or `stream`.
    pub kind: &'static str,
    /// Title; of a stream what the station says it plays, or the station's name.
    pub title: &'a str,
    /// Artist.
    pub artist: &'a str,
    /// Album; of a stream that says what it plays the station's name.
    pub album: &'a str,
    /// Length in milliseconds; 0 for a stream without an end.
    pub duration_ms: u64,
    /// Where a stream comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<&'a str>,
}

impl<'a> From<&'a Entry> for Track<'a> {
    fn from(e: &'a Entry) -> Self {
        let (title, artist, album, url) = (&e.title, &e.artist, &e.album, url(e));
        Self { id: e.track, kind: kind(e), title, artist, album, duration_ms: e.duration_ms, url }
    }
}

/// `track`, or `stream`.
pub fn kind(e: &Entry) -> &'static str {
    if e.stream.is_some() { "stream" } else { "track" }
}

/// Where a stream comes from.
pub fn url(e: &Entry) -> Option<&str> {
    e.stream.as_ref().map(|s| s.url.as_str())
}

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Because {
    /// Public code.
    pub code: &'static str,
    /// A plain sentence.
    pub text: &'static str,
    /// Since when, RFC 3339; null until the clock is known to be right.
    pub since: Option<String>,
}

/// `P/now`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Now<'a> {
    /// Revision of the queue.
    pub rev: u64,
    /// What it does.
    pub state: State,
    /// `queue` or `fallback`.
    pub source: &'static str,
    /// The current entry; null while the fallback plays.
    pub entry: Option<EntryId>,
    /// The track that plays.
    pub track: Option<Track<'a>>,
    /// Who asked for it.
    pub by: Option<&'a str>,
    /// Playhead in milliseconds.
    pub position_ms: u64,
    /// When that was, RFC 3339; null until the clock is known to be right.
    pub at: Option<String>,
    /// `synced` or `unknown`.
    pub clock: &'static str,
    /// Which encoding plays.
    pub rendition: Option<&'static str>,
    /// The entry that the queue waits for while the fallback plays.
    pub waiting: Option<Waiting>,
    /// Whether people want it to stop when this track has ended.
    pub stops_after: bool,
    /// Why it does not sound, if it should.
    pub reason: Option<Because>,
}

/// The entry that is waited for, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Which.
    pub entry: EntryId,
    /// Why.
    pub reason: Because,
}

/// An entry in `P/queue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueEntry<'a> {
    /// Its number.
    pub entry: EntryId,
    /// Its track.
    pub track: TrackId,
    /// Title.
    pub title: &'a str,
    /// Artist.
    pub artist: &'a str,
    /// Length in milliseconds.
    pub duration_ms: u64,
    /// Who asked for it.
    pub by: &'a str,
    /// How much of it is on the player's disk.
    pub on_board_pct: u8,
    /// `track`, or `stream`.
    pub kind: &'static str,
    /// Where a stream comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<&'a str>,
}

/// `P/queue`, and the data of the verb `queue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueState<'a> {
    /// Revision of the queue.
    pub rev: u64,
    /// Count of all entries.
    pub total: usize,
    /// Length of all in milliseconds.
    pub total_ms: u64,
    /// The first 20, or what was asked for.
    pub entries: Vec<QueueEntry<'a>>,
}

/// A play in the data of the verb `history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryPlay<'a> {
    /// The number that its entry had.
    pub entry: EntryId,
    /// Its track.
    pub track: TrackId,
    /// Title.
    pub title: &'a str,
    /// Artist.
    pub artist: &'a str,
    /// Album.
    pub album: &'a str,
    /// Length in milliseconds.
    pub duration_ms: u64,
    /// Who asked for it.
    pub by: &'a str,
    /// When it left the queue, RFC 3339; null if the clock was not known to be right.
    pub at: Option<String>,
    /// How far it was played, in milliseconds.
    pub played_ms: u64,
    /// Whether somebody skipped it.
    pub skipped: bool,
    /// `track`, or `stream`.
    pub kind: &'static str,
    /// Where a stream comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<&'a str>,
}

impl<'a> From<&'a Play> for HistoryPlay<'a> {
    fn from(p: &'a Play) -> Self {
        let e = &p.entry;
        let (title, artist, album, by) = (&e.title, &e.artist, &e.album, &e.by);
        let at = p.at_ms.map(|at| UnixMs(at).to_string());
        let (duration_ms, played_ms, skipped) = (e.duration_ms, p.played_ms, p.skipped);
        let (entry, track, kind, url) = (e.id, e.track, kind(e), url(e));
        Self { entry, track, title, artist, album, duration_ms, by, at, played_ms, skipped, kind, url }
    }
}

/// Seconds of unplanned silence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Silence {
    /// Since midnight UTC, or since the process started.
    pub today: f64,
    /// Since the process started.
    pub since_boot: f64,
}

/// An origin in `P/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Where.
    pub url: String,
    /// `ok`, `slow`, `failing` or `lying`.
    pub state: String,
}

/// `P/health`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health<'a> {
    /// Grade of the link.
    pub link: Grade,
    /// Playable time of the queue without any link, in seconds.
    pub on_board_queue_s: u64,
    /// The same with the fallback, in seconds.
    pub on_board_total_s: u64,
    /// Seconds of unplanned silence.
    pub unplanned_silence_s: Silence,
    /// Frames that were due and not in the ring.
    pub underruns: u64,
    /// Errors of the sound device.
    pub xruns: u32,
    /// Free on the card, in MB.
    pub disk_free_mb: Option<u64>,
    /// Why the card takes nothing, if so.
    pub disk: Option<Because>,
    /// Written to the card since midnight, in MB.
    pub written_mb_today: Option<u64>,
    /// Came over the link for nothing since the process started (failed, given up, or second), in kB.
    pub wasted_kb: u64,
    /// Tracks in the catalogue.
    pub catalogue_tracks: Option<u64>,
    /// Temperature of the processor, in degrees Celsius.
    pub cpu_c: Option<i16>,
    /// What holds it back just now; null where nobody tells.
    pub throttled: Option<&'a [Throttle]>,
    /// What metered interfaces carried in this month (UTC), in bytes; null where there is none.
    pub bytes_month: Option<u64>,
    /// What they will have carried at its end, in MB; null until the time and a rate are known.
    pub forecast_mb_month: Option<u64>,
    /// Each of them.
    pub metered: Vec<Metered<'a>>,
    /// The origins.
    pub origins: &'a [Origin],
}

/// `P/info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info<'a> {
    /// What people call it.
    pub name: &'a str,
    /// The board.
    pub model: &'a str,
    /// The board's serial number.
    pub serial: &'a str,
    /// Version that runs.
    pub version: &'a str,
    /// This run of the process: 16 random hex digits.
    pub boot: &'a str,
    /// When it started, RFC 3339; null until the clock is known to be right.
    pub since: Option<String>,
    /// Digest of the configuration.
    pub config: &'a str,
    /// Whether plain connections are allowed.
    pub insecure: bool,
    /// What it can be asked.
    pub verbs: Vec<&'static str>,
}

/// A hit of a search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hit<'a> {
    /// Its track.
    pub track: TrackId,
    /// Title.
    pub title: &'a str,
    /// Artist.
    pub artist: &'a str,
    /// Album.
    pub album: &'a str,
    /// Length in milliseconds.
    pub duration_ms: u64,
    /// Whether it is known to play without any link.
    pub on_board: bool,
}

/// The answer to a command.
#[derive(Serialize)]
struct Reply<'a> {
    id: Option<&'a str>,
    player: &'a str,
    verb: &'a str,
    status: &'static str,
    rev: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

/// The reply to a command: its data, or its refusal.
pub fn reply(id: Option<&str>, player: &str, verb: &str, rev: u64, outcome: &Result<Value, Refusal>) -> String {
    let blank = Reply {
        id,
        player,
        verb,
        status: "ok",
        rev,
        data: None,
        code: None,
        reason: None,
        retry_after_s: None,
        field: None,
    };
    json(&match outcome {
        Ok(data) => Reply { data: Some(data.clone()), ..blank },
        Err(r) => Reply {
            status: "refused",
            code: Some(r.code),
            reason: Some(&r.reason),
            retry_after_s: r.retry_after_s,
            field: r.field.as_deref(),
            ..blank
        },
    })
}

/// The reply to a command that is in effect while the card does not take it: a power cut would undo it.
pub fn unsaved(reply: &str) -> String {
    match reply.strip_suffix('}') {
        Some(head) => alloc::format!("{head},\"saved\":false}}"),
        None => String::from(reply),
    }
}

/// The reply that was given, given again.
pub fn replayed(reply: &str) -> String {
    match reply.strip_suffix('}') {
        Some(head) => alloc::format!("{head},\"replayed\":true}}"),
        None => String::from(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn replies_are_frozen() {
        assert_eq!(
            reply(Some("12345678"), "lobby", "skip", 42, &Ok(json!({"entry": 8}))),
            r#"{"id":"12345678","player":"lobby","verb":"skip","status":"ok","rev":42,"data":{"entry":8}}"#
        );
        let refusal = Refusal {
            retry_after_s: Some(180),
            ..Refusal::new(Code::QueueFull, "The queue is full (200). Try again in about 3 minutes.")
        };
        let r = reply(None, "lobby", "add", 42, &Err(refusal));
        assert_eq!(
            r,
            r#"{"id":null,"player":"lobby","verb":"add","status":"refused","rev":42,"code":"queue_full","reason":"The queue is full (200). Try again in about 3 minutes.","retry_after_s":180}"#
        );
        assert!(replayed(&r).ends_with(r#""retry_after_s":180,"replayed":true}"#));
        assert!(serde_json::from_str::<Value>(&replayed(&r)).is_ok());
    }
}
