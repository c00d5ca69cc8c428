//! A command is parsed, admitted once by its id, and always answered.
//!
//! The payload is JSON if its first non-blank byte is `{`, else the plain text that people type. Every refusal names a
//! public [`Code`], a plain sentence, and the field where there is one.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};

use minicbor::{Decode, Encode};
use serde_json::{Map, Value};

use crate::library::{Digest, TrackId};
use crate::queue::{Place, Where};
use crate::reason::Code;
use crate::sound::EntryId;

/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 8 << 10;
/// Longest seek in one go: a day.
const MAX_SEEK_MS: u64 = 86_400_000;
const SEEK_BY: i64 = MAX_SEEK_MS as i64;
/// How many of the last commands with an id are remembered.
pub const WINDOW: usize = 256;

/// What can be asked of a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Put a track into the queue.
    Add,
    /// Look into the catalogue.
    Search,
    /// Let it sound.
    Play,
    /// Hold the playhead.
    Pause,
    /// Play or pause.
    Toggle,
    /// Planned silence, kept across a reboot.
    Stop,
    /// On to the next entry.
    Skip,
    /// Back to the start of the track, or to the one before it.
    Previous,
    /// Elsewhere in the track.
    Seek,
    /// Louder or quieter.
    Volume,
    /// Silence without stopping.
    Mute,
    /// Take an entry out.
    Remove,
    /// Give an entry another place.
    Move,
    /// Take all entries out but the current one.
    Clear,
    /// Put a playlist into the queue.
    Playlist,
    /// The playlists.
    Playlists,
    /// The whole queue.
    Queue,
    /// What was played.
    History,
    /// What plays.
    Now,
    /// How the player is.
    Health,
    /// Whether it listens.
    Ping,
}

impl Verb {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 21] = [
        Self::Add,
        Self::Search,
        Self::Play,
        Self::Pause,
        Self::Toggle,
        Self::Stop,
        Self::Skip,
        Self::Previous,
        Self::Seek,
        Self::Volume,
        Self::Mute,
        Self::Remove,
        Self::Move,
        Self::Clear,
        Self::Playlist,
        Self::Playlists,
        Self::Queue,
        Self::History,
        Self::Now,
        Self::Health,
        Self::Ping,
    ];
    /// As it is written in topics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Search => "search",
            Self::Play => "play",
            Self::Pause => "pause",
            Self::Toggle => "toggle",
            Self::Stop => "stop",
            Self::Skip => "skip",
            Self::Previous => "previous",
            Self::Seek => "seek",
            Self::Volume => "volume",
            Self::Mute => "mute",
            Self::Remove => "remove",
            Self::Move => "move",
            Self::Clear => "clear",
            Self::Playlist => "playlist",
            Self::Playlists => "playlists",
            Self::Queue => "queue",
            Self::History => "history",
            Self::Now => "now",
            Self::Health => "health",
            Self::Ping => "ping",
        }
    }
    /// The verb of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == name)
    }
    /// Whether it only asks: such commands change nothing and are never saved.
    pub const fn asks(self) -> bool {
        use Verb::{Health, History, Now, Ping, Playlists, Queue, Search};
        matches!(self, Search | Playlists | Queue | History | Now | Health | Ping)
    }
    /// Whether all players of a site may be told at once.
    pub const fn for_all(self) -> bool {
        matches!(self, Self::Play | Self::Pause | Self::Stop | Self::Skip | Self::Volume | Self::Mute)
    }
}

/// What to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The best hit of a search.
    Text(String),
    /// A track by its id.
    Track(TrackId),
    /// A live stream.
    Url(String),
}

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From this place on.
    pub offset: usize,
    /// At most so many, 1 to 200.
    pub limit: usize,
}

impl Default for Part {
    fn default() -> Self {
        Self { offset: 0, limit: crate::queue::MAX_ENTRIES }
    }
}

/// Where a playlist goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Behind all others.
    End,
    /// Right after the current entry.
    Next,
    /// In the place of the whole queue, the current entry too.
    Replace,
}

/// A parsed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `add`.
    Add {
        /// What.
        what: What,
        /// Where to.
        place: Where,
        /// Even if it is among the next 20 already.
        twice: bool,
        /// Refuse if several tracks match.
        strict: bool,
        /// A stream ends after so many seconds.
        for_s: Option<u32>,
    },
    /// `search`.
    Search {
        /// Words.
        text: String,
        /// At most so many results, 1 to 50.
        limit: usize,
        /// From this result on.
        offset: usize,
    },
    /// `play`.
    Play,
    /// `pause`.
    Pause,
    /// `toggle`.
    Toggle,
    /// `stop`: now, or after the track that plays.
    Stop {
        /// Not now, but when the track has ended.
        after_track: bool,
    },
    /// `skip`: only if the entry is current, when one is named.
    Skip(Option<EntryId>),
    /// `previous`.
    Previous,
    /// `seek`, in milliseconds from the start.
    SeekTo(u64),
    /// `seek`, relative, in milliseconds.
    SeekBy(i64),
    /// `volume`, 0 to 100.
    VolumeTo(u8),
    /// `volume`, relative.
    VolumeBy(i16),
    /// `mute`; none toggles.
    Mute(Option<bool>),
    /// `remove`.
    Remove(EntryId),
    /// `move`.
    Move(EntryId, Place),
    /// `clear`.
    Clear {
        /// Only what this person asked for.
        only_by: Option<String>,
    },
    /// `playlist`.
    Playlist {
        /// Its name.
        name: String,
        /// Where to.
        mode: Mode,
        /// In an order of chance.
        shuffle: bool,
    },
    /// `playlists`.
    Playlists(Part),
    /// `queue`.
    Queue(Part),
    /// `history`.
    History(Part),
    /// `now`.
    Now,
    /// `health`.
    Health,
    /// `ping`.
    Ping(String),
}

/// A command with what every command may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The verb.
    pub verb: Verb,
    /// What it says.
    pub command: Command,
    /// Unique over all senders; makes it count once.
    pub id: Option<String>,
    /// Who asks; shown, hearsay.
    pub by: Option<String>,
    /// Act only if the queue still has this revision.
    pub if_rev: Option<u64>,
}

/// Why a command has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Public code.
    pub code: Code,
    /// A plain sentence.
    pub reason: String,
    /// Where in the payload.
    pub field: Option<String>,
    /// When it may be worth another try.
    pub retry_after_s: Option<u64>,
}

impl Refusal {
    /// A refusal without field.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), field: None, retry_after_s: None }
    }
    fn field(field: &str, reason: impl Into<String>) -> Self {
        Self { code: Code::BadPayload, reason: reason.into(), field: Some(field.into()), retry_after_s: None }
    }
}

/// Reads a command. `id` is given back even where the rest is refused, so that the reply can carry it.
pub fn parse(verb: &str, payload: &[u8]) -> Result<Request, (Option<String>, Refusal)> {
    let Some(verb) = Verb::parse(verb) else {
        let known = Verb::ALL.map(Verb::as_str).join(" ");
        let verb: String = verb.chars().take(32).collect();
        return Err((None, Refusal::new(Code::UnknownVerb, format!("There is no verb '{verb}'. There are: {known}."))));
    };
    if payload.len() > MAX_PAYLOAD {
        let reason = format!("The payload has {} bytes; at most {MAX_PAYLOAD} are read.", payload.len());
        return Err((None, Refusal::new(Code::TooLarge, reason)));
    }
    let Ok(text) = core::str::from_utf8(payload) else {
        return Err((None, Refusal::new(Code::BadPayload, "The payload is not UTF-8 text.")));
    };
    let text = text.trim();
    if !text.starts_with('{') {
        let command = by_hand(verb, text).map_err(|r| (None, r))?;
        return Ok(Request { verb, command, id: None, by: None, if_rev: None });
    }
    let map: Map<String, Value> = serde_json::from_str(text)
        .map_err(|e| (None, Refusal::new(Code::BadPayload, format!("The payload is not a JSON object: {e}."))))?;
    let mut fields = Fields(map);
    let id = fields.id().map_err(|r| (None, r))?;
    let mut read = || {
        // Hearsay, shown on the panel: a name, not a letter.
        let by = fields.text("by")?.map(|by| by.chars().take(64).collect());
        let if_rev = fields.number("if_rev", 0, u64::MAX)?;
        let command = by_fields(verb, &mut fields)?;
        fields.nothing_else(verb)?;
        Ok(Request { verb, command, id: None, by, if_rev })
    };
    match read() {
        Ok(request) => Ok(Request { id, ..request }),
        Err(refusal) => Err((id, refusal)),
    }
}

/// The plain text that people type.
fn by_hand(verb: Verb, text: &str) -> Result<Command, Refusal> {
    let bad = |what: &str| Err(Refusal::new(Code::BadPayload, what.to_string()));
    let entry = |t: &str| {
        let n = t.parse().map(EntryId);
        n.map_err(|_| Refusal::new(Code::BadPayload, format!("'{t}' is no entry; say its number, for example 7.")))
    };
    Ok(match verb {
        Verb::Add if text.is_empty() => return bad("Say what to add: a title, an artist, or track:ID."),
        Verb::Add => Command::Add { what: what(text)?, place: Where::End, twice: false, strict: false, for_s: None },
        Verb::Search if text.is_empty() => return bad("Say what to look for."),
        Verb::Search => Command::Search { text: text.into(), limit: 10, offset: 0 },
        Verb::Skip if text.is_empty() => Command::Skip(None),
        Verb::Skip => Command::Skip(Some(entry(text)?)),
        Verb::Remove => Command::Remove(entry(text)?),
        Verb::Volume => match (text.as_bytes().first(), text.parse::<i16>()) {
            (Some(b'+' | b'-'), Ok(by @ -100..=100)) => Command::VolumeBy(by),
            (_, Ok(to @ 0..=100)) => Command::VolumeTo(to as u8),
            _ => return bad("Say a volume from 0 to 100, or +5 or -5."),
        },
        Verb::Mute => match text {
            "true" => Command::Mute(Some(true)),
            "false" => Command::Mute(Some(false)),
            "toggle" => Command::Mute(None),
            _ => return bad("Say true, false or toggle."),
        },
        Verb::Stop if text == "after" => Command::Stop { after_track: true },
        Verb::Stop if !text.is_empty() => return bad("Say nothing to stop now, or after: when the track has ended."),
        Verb::Seek => match (text.as_bytes().first(), clock_ms(text.strip_prefix(['+', '-']).unwrap_or(text))) {
            (Some(b'+'), Some(ms)) => Command::SeekBy(ms as i64),
            (Some(b'-'), Some(ms)) => Command::SeekBy(-(ms as i64)),
            (_, Some(ms)) => Command::SeekTo(ms),
            _ => return bad("Say a place such as 1:30, or +10 or -10 seconds."),
        },
        Verb::Move => match text.split_ascii_whitespace().collect::<alloc::vec::Vec<_>>()[..] {
            [id, "next"] => Command::Move(entry(id)?, Place::Next),
            [id, "end"] => Command::Move(entry(id)?, Place::End),
            [id, before] => Command::Move(entry(id)?, Place::Before(entry(before)?)),
            _ => return bad("Say which entry and where: 7 next, 7 end, or 7 3 (entry 7 before entry 3)."),
        },
        Verb::Playlist if text.is_empty() => return bad("Say which playlist; the verb playlists names them."),
        Verb::Playlist => Command::Playlist { name: text.into(), mode: Mode::End, shuffle: false },
        Verb::Ping => Command::Ping(text.into()),
        _ if !text.is_empty() => return bad("This verb takes no text."),
        Verb::Play => Command::Play,
        Verb::Pause => Command::Pause,
        Verb::Toggle => Command::Toggle,
        Verb::Stop => Command::Stop { after_track: false },
        Verb::Previous => Command::Previous,
        Verb::Clear => Command::Clear { only_by: None },
        Verb::Playlists => Command::Playlists(Part::default()),
        Verb::Queue => Command::Queue(Part::default()),
        Verb::History => Command::History(Part::default()),
        Verb::Now => Command::Now,
        Verb::Health => Command::Health,
    })
}

/// Milliseconds of `1:02:03`, `1:30` or `90`.
fn clock_ms(text: &str) -> Option<u64> {
    let mut s = 0;
    for (n, part) in text.split(':').enumerate() {
        let digits = part.bytes().all(|b| b.is_ascii_digit()) && (1..=5).contains(&part.len());
        let value: u64 = part.parse().ok().filter(|v| digits && (n == 0 || *v < 60) && n < 3)?;
        s = s * 60 + value;
    }
    Some(s * 1_000)
}

fn what(text: &str) -> Result<What, Refusal> {
    if let Some(id) = text.strip_prefix("track:") {
        let id = id.parse().map_err(|e| Refusal::new(Code::UnknownTrack, format!("'{id}' is no track: {e}.")))?;
        return Ok(What::Track(id));
    }
    Ok(if text.contains("://") { What::Url(text.into()) } else { What::Text(text.into()) })
}

/// The fields of a JSON command.
fn by_fields(verb: Verb, f: &mut Fields) -> Result<Command, Refusal> {
    let entry = |n: u64| EntryId(n as u32);
    Ok(match verb {
        Verb::Add => {
            let (text, track, url) = (f.text("text")?, f.text("track")?, f.text("url")?);
            let what = match (text, track, url) {
                (Some(t), None, None) if t.trim().contains("://") => What::Url(t.trim().into()),
                (Some(t), None, None) if !t.trim().is_empty() => What::Text(t),
                (None, Some(t), None) => {
                    let id = t.strip_prefix("track:").unwrap_or(&t);
                    What::Track(id.parse().map_err(|e| Refusal {
                        field: Some("track".into()),
                        ..Refusal::new(Code::UnknownTrack, format!("'{id}' is no track: {e}."))
                    })?)
                }
                (None, None, Some(url)) => What::Url(url.trim().into()),
                _ => return Err(Refusal::field("text", "Give one of text, track and url.")),
            };
            let place = match f.text("where")?.as_deref() {
                None | Some("end") => Where::End,
                Some("next") => Where::Next,
                Some(_) => return Err(Refusal::field("where", "where is \"end\" or \"next\".")),
            };
            let (twice, strict) = (f.truth("twice")?.unwrap_or(false), f.truth("strict")?.unwrap_or(false));
            let for_s = f.number("for_s", 1, MAX_SEEK_MS / 1_000)?.map(|n| n as u32);
            if for_s.is_some() && !matches!(what, What::Url(_)) {
                return Err(Refusal::field("for_s", "for_s is for streams: give a url."));
            }
            Command::Add { what, place, twice, strict, for_s }
        }
        Verb::Search => {
            let text = f.text("text")?.filter(|t| !t.trim().is_empty());
            let text = text.ok_or_else(|| Refusal::field("text", "Say what to look for in text."))?;
            let limit = f.number("limit", 1, 50)?.unwrap_or(10) as usize;
            Command::Search { text, limit, offset: f.number("offset", 0, 1_000_000)?.unwrap_or(0) as usize }
        }
        Verb::Play => Command::Play,
        Verb::Pause => Command::Pause,
        Verb::Toggle => Command::Toggle,
        Verb::Stop => match f.text("after")?.as_deref() {
            None => Command::Stop { after_track: false },
            Some("track") => Command::Stop { after_track: true },
            Some(_) => return Err(Refusal::field("after", "after is \"track\".")),
        },
        Verb::Previous => Command::Previous,
        Verb::Seek => match (f.number("position_ms", 0, MAX_SEEK_MS)?, f.signed("by_ms", -SEEK_BY, SEEK_BY)?) {
            (Some(to), None) => Command::SeekTo(to),
            (None, Some(by)) => Command::SeekBy(by),
            _ => return Err(Refusal::field("position_ms", "Give one of position_ms and by_ms.")),
        },
        Verb::Skip => Command::Skip(f.number("entry", 1, u32::MAX.into())?.map(entry)),
        Verb::Volume => match (f.number("percent", 0, 100)?, f.signed("by_percent", -100, 100)?) {
            (Some(to), None) => Command::VolumeTo(to as u8),
            (None, Some(by)) => Command::VolumeBy(by as i16),
            _ => return Err(Refusal::field("percent", "Give one of percent and by_percent.")),
        },
        Verb::Mute => match f.truth("on")? {
            Some(on) => Command::Mute(Some(on)),
            None => return Err(Refusal::field("on", "Give on: true or false.")),
        },
        Verb::Remove => match f.number("entry", 1, u32::MAX.into())? {
            Some(n) => Command::Remove(entry(n)),
            None => return Err(Refusal::field("entry", "Give the entry's number.")),
        },
        Verb::Move => {
            let Some(id) = f.number("entry", 1, u32::MAX.into())?.map(entry) else {
                return Err(Refusal::field("entry", "Give the entry's number."));
            };
            let before = f.number("before", 1, u32::MAX.into())?.map(entry);
            Command::Move(
                id,
                match (f.text("where")?.as_deref(), before) {
                    (Some("next"), None) => Place::Next,
                    (Some("end"), None) => Place::End,
                    (None, Some(before)) => Place::Before(before),
                    _ => return Err(Refusal::field("where", "Give where (\"next\" or \"end\") or before (an entry).")),
                },
            )
        }
        Verb::Clear => Command::Clear { only_by: f.text("only_by")? },
        Verb::Playlist => {
            let name = f.text("name")?.filter(|t| !t.trim().is_empty());
            let name = name.ok_or_else(|| Refusal::field("name", "Give the playlist's name."))?;
            let mode = match f.text("mode")?.as_deref() {
                None | Some("end") => Mode::End,
                Some("next") => Mode::Next,
                Some("replace") => Mode::Replace,
                Some(_) => return Err(Refusal::field("mode", "mode is \"end\", \"next\" or \"replace\".")),
            };
            Command::Playlist { name, mode, shuffle: f.truth("shuffle")?.unwrap_or(false) }
        }
        Verb::Playlists => Command::Playlists(f.part()?),
        Verb::Queue => Command::Queue(f.part()?),
        Verb::History => Command::History(f.part()?),
        Verb::Now => Command::Now,
        Verb::Health => Command::Health,
        Verb::Ping => Command::Ping(f.text("nonce")?.unwrap_or_default()),
    })
}

/// Fields not yet taken.
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => Err(Refusal::field(name, format!("{name} is a text."))),
        }
    }
    fn id(&mut self) -> Result<Option<String>, Refusal> {
        match self.text("id")? {
            Some(id) if !(8..=64).contains(&id.chars().count()) || id.len() > 64 => {
                Err(Refusal::field("id", "id has 8 to 64 characters."))
            }
            id => Ok(id),
        }
    }
    fn truth(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(b)),
            Some(_) => Err(Refusal::field(name, format!("{name} is true or false."))),
        }
    }
    fn number(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64().filter(|n| (min..=max).contains(n)) {
                Some(n) => Ok(Some(n)),
                None if max > u32::MAX.into() => Err(Refusal::field(name, format!("{name} is a whole number."))),
                None => Err(Refusal::field(name, format!("{name} is a whole number from {min} to {max}."))),
            },
        }
    }
    fn signed(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, Refusal> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_i64().filter(|n| (min..=max).contains(n)) {
                Some(n) => Ok(Some(n)),
                None => Err(Refusal::field(name, format!("{name} is a whole number from {min} to {max}."))),
            },
        }
    }
    fn part(&mut self) -> Result<Part, Refusal> {
        let Part { offset, limit } = Part::default();
        let offset = self.number("offset", 0, u32::MAX.into())?.map_or(offset, |n| n as usize);
        let limit = self.number("limit", 1, limit as u64)?.map_or(limit, |n| n as usize);
        Ok(Part { offset, limit })
    }
    fn nothing_else(&self, verb: Verb) -> Result<(), Refusal> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(k) => {
                let k: String = k.chars().take(32).collect();
                Err(Refusal::field(&k, format!("{} has no field '{k}'.", verb.as_str())))
            }
        }
    }
}

/// A command of the window: its id, what it was, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Seen {
    /// The id.
    #[n(0)]
    pub id: String,
    /// First 8 bytes of the digest of verb and payload.
    #[n(1)]
    pub print: u64,
    /// The reply.
    #[n(2)]
    pub reply: String,
}

/// First 8 bytes of SHA-256 over the verb, a zero byte and the payload.
pub fn print(verb: &str, payload: &[u8]) -> u64 {
    let mut all = alloc::vec::Vec::with_capacity(verb.len() + 1 + payload.len());
    all.extend_from_slice(verb.as_bytes());
    all.push(0);
    all.extend_from_slice(payload);
    Digest::of(&all).0.first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
}

/// The last [`WINDOW`] commands with an id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    seen: VecDeque<(u64, Seen)>,
    count: u64,
}

impl Window {
    /// The window as it was saved: each with its number.
    pub fn restore(mut seen: alloc::vec::Vec<(u64, Seen)>) -> Self {
        seen.sort_by_key(|s| s.0);
        let count = seen.last().map_or(0, |s| s.0 + 1);
        seen.drain(..seen.len().saturating_sub(WINDOW));
        Self { seen: seen.into(), count }
    }
    /// The command of that id.
    pub fn find(&self, id: &str) -> Option<&Seen> {
        self.seen.iter().map(|(_, s)| s).find(|s| s.id == id)
    }
    /// Remembers a command; returns its number, and the number of the one that fell out.
    pub fn push(&mut self, seen: Seen) -> (u64, Option<u64>) {
        let number = self.count;
        self.count += 1;
        self.seen.push_back((number, seen));
        let out = if self.seen.len() > WINDOW { self.seen.pop_front().map(|s| s.0) } else { None };
        (number, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(verb: &str, payload: &str) -> Command {
        parse(verb, payload.as_bytes()).unwrap().command
    }
    fn refused(verb: &str, payload: &[u8]) -> (Code, Option<String>) {
        let (_, r) = parse(verb, payload).unwrap_err();
        assert!(r.reason.ends_with('.'), "{}", r.reason);
        (r.code, r.field)
    }

    #[test]
    fn by_hand_and_json_say_the_same() {
        let pairs = [
            ("add", " waterloo abba ", r#"{"text":"waterloo abba"}"#),
            ("add", "track:aaaaaaaaaaaaaaaa", r#"{"track":"aaaaaaaaaaaaaaaa","where":"end"}"#),
            ("add", "http://h/x", r#"{"url":"http://h/x"}"#),
            ("add", "http://h/x", r#"{"text":" http://h/x"}"#),
            ("search", "waterloo", r#"{"text":"waterloo","limit":10,"offset":0}"#),
            ("skip", "", "{}"),
            ("skip", "7", r#"{"entry":7}"#),
            ("remove", "7", r#"{"entry":7}"#),
            ("volume", "35", r#"{"percent":35}"#),
            ("volume", "+5", r#"{"by_percent":5}"#),
            ("volume", "-5", r#"{"by_percent":-5}"#),
            ("mute", "true", r#"{"on":true}"#),
            ("ping", "x", r#"{"nonce":"x"}"#),
            ("play", "", "{}"),
            ("queue", "", r#"{"limit":200}"#),
            ("stop", "after", r#"{"after":"track"}"#),
            ("previous", "", "{}"),
            ("seek", "1:30", r#"{"position_ms":90000}"#),
            ("seek", "1:02:03", r#"{"position_ms":3723000}"#),
            ("seek", "90", r#"{"position_ms":90000}"#),
            ("seek", "+10", r#"{"by_ms":10000}"#),
            ("seek", "-1:00", r#"{"by_ms":-60000}"#),
            ("move", "7 next", r#"{"entry":7,"where":"next"}"#),
            ("move", "7 end", r#"{"entry":7,"where":"end"}"#),
            ("move", "7 3", r#"{"entry":7,"before":3}"#),
            ("clear", "", "{}"),
            ("playlist", "friday night", r#"{"name":"friday night","mode":"end","shuffle":false}"#),
            ("playlists", "", r#"{"limit":200}"#),
            ("history", "", r#"{"offset":0}"#),
        ];
        for (verb, text, json) in pairs {
            assert_eq!(ok(verb, text), ok(verb, json), "{verb} {text}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        let bad = |f: &str| (Code::BadPayload, Some(f.to_string()));
        assert_eq!(refused("dance", b"").0, Code::UnknownVerb);
        assert_eq!(refused("add", br#"{"text":"a","loud":1}"#), bad("loud"));
        assert_eq!(refused("add", br#"{"text":"a","track":"b"}"#), bad("text"));
        assert_eq!(refused("add", br#"{"text":7}"#), bad("text"));
        assert_eq!(refused("add", br#"{"text":"a","id":"short"}"#), bad("id"));
        assert_eq!(refused("add", br#"{"text":"a","where":"front"}"#), bad("where"));
        assert_eq!(refused("volume", br#"{"percent":101}"#), bad("percent"));
        assert_eq!(refused("volume", b"loud"), (Code::BadPayload, None));
        assert_eq!(refused("volume", b"+500"), (Code::BadPayload, None));
        assert_eq!(refused("add", br#"{"text":"a","for_s":60}"#), bad("for_s"));
        assert_eq!(refused("add", br#"{"url":"http://h/x","for_s":0}"#), bad("for_s"));
        assert_eq!(refused("add", br#"{"url":"http://h/x","text":"a"}"#), bad("text"));
        assert_eq!(refused("add", b"\xff\xfe"), (Code::BadPayload, None));
        assert_eq!(refused("add", b"{"), (Code::BadPayload, None));
        assert_eq!(refused("add", b""), (Code::BadPayload, None));
        assert_eq!(refused("add", &[b'a'; MAX_PAYLOAD + 1]).0, Code::TooLarge);
        assert_eq!(refused("play", b"now"), (Code::BadPayload, None));
        for (verb, text) in [
            ("seek", ""),
            ("seek", "1:60"),
            ("seek", "+"),
            ("seek", "--3"),
            ("seek", "1::2"),
            ("seek", "1:2:3:4"),
            ("seek", "999999"),
            ("move", "7"),
            ("move", "7 there"),
            ("move", "7 3 2"),
            ("clear", "all"),
            ("stop", "now"),
            ("playlist", " "),
        ] {
            assert_eq!(refused(verb, text.as_bytes()), (Code::BadPayload, None), "{verb} {text}");
        }
        assert_eq!(refused("seek", br#"{"position_ms":1,"by_ms":1}"#), bad("position_ms"));
        assert_eq!(refused("move", br#"{"entry":7}"#), bad("where"));
        assert_eq!(refused("move", br#"{"entry":7,"where":"end","before":3}"#), bad("where"));
        assert_eq!(refused("playlist", br#"{"name":"x","mode":"shuffle"}"#), bad("mode"));
        assert_eq!(refused("stop", br#"{"after":"lunch"}"#), bad("after"));
        assert_eq!(refused("history", br#"{"limit":201}"#), bad("limit"));
        let (id, _) = parse("volume", br#"{"id":"12345678","percent":1000}"#).unwrap_err();
        assert_eq!(id.as_deref(), Some("12345678"), "a refusal carries the id");
    }

    #[test]
    fn the_window_forgets_the_oldest() {
        let mut w = Window::default();
        for n in 0..WINDOW as u64 + 2 {
            let seen = Seen { id: n.to_string(), print: n, reply: String::new() };
            assert_eq!(w.push(seen), (n, n.checked_sub(WINDOW as u64)));
        }
        assert!(w.find("1").is_none() && w.find("2").is_some());
        let saved = w.seen.iter().cloned().rev().collect();
        assert_eq!(Window::restore(saved), w);
    }
}
