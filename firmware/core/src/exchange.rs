//! Everything that can happen to the player ([`Input`]), and everything that it can want of the world ([`Output`]): data.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::budget::Carried;
use crate::checkpoint::{Change, KnownLibrary};
use crate::gesture::Edge;
use crate::heal::Step;
use crate::library::{Digest, Row, TrackId};
use crate::link::Sample;
use crate::live::{Air, Station};
use crate::planner::{Arrival, Wish};
use crate::reason::Reason;
use crate::reload::Reload;
use crate::sound::{EntryId, Heard, Order, Report};
use crate::time::{Span, UnixMs};
use crate::view::View;
use crate::wire::Origin;

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Id of the player.
    pub player: String,
    /// What people call it.
    pub name: String,
    /// Id of the site.
    pub site: String,
    /// Version that runs.
    pub version: String,
    /// The board.
    pub model: String,
    /// The board's serial number.
    pub serial: String,
    /// Digest of the configuration.
    pub config: String,
    /// Address shown on the information page; the office's, as configured.
    pub office: String,
    /// Whether plain connections are allowed.
    pub insecure: bool,
    /// Whether a broker is configured: without one nobody misses it.
    pub broker: bool,
    /// Ceiling of the volume, in percent.
    pub volume_max: u8,
    /// Volume of the first start, in percent.
    pub first_volume: u8,
    /// Loudness that tracks are brought to, LUFS.
    pub loudness_lufs: f32,
    /// How long neighbours that are not of one album are cross-faded; zero: never.
    pub crossfade: Span,
    /// The output runs at one rate whatever plays, so that tracks of different rates can be cross-faded too.
    pub fixed_rate: bool,
    /// How much of the coming queue should be on board.
    pub ahead: Span,
    /// Nothing but originals is fetched.
    pub original_only: bool,
    /// What plays while the queue waits, or is empty.
    pub fallback: crate::fallback::FallbackSettings,
    /// The PCM is closed after so much planned silence.
    pub idle_close: Span,
    /// Whether Home Assistant is told about the player.
    pub home_assistant: bool,
    /// Written to the card in a day, in bytes, beyond which only what will be needed is fetched.
    pub write_budget: u64,
    /// Plays are remembered for so long.
    pub history_keep: Span,
    /// The live streams that may be added: [`Rule`](crate::station::Rule)s as they are written.
    #[serde(default)]
    pub streams: Vec<String>,
}

/// Who sent a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The broker.
    Mqtt,
    /// The command line.
    Console,
    /// The buttons.
    Button,
}

/// A command as it came, with what its transport knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Names the command in the reply.
    pub token: u64,
    /// Who sent it.
    pub source: Source,
    /// The verb, as written.
    pub verb: String,
    /// The payload, as it came.
    pub payload: Vec<u8>,
    /// It was kept by the broker.
    pub retained: bool,
    /// Its expiry passed.
    pub expired: bool,
    /// It waited at the broker while the player was away.
    pub backlog: bool,
    /// It is for all players of the site.
    pub for_all: bool,
    /// Its response topic is not one that the player may publish to.
    pub bad_response_topic: bool,
}

/// The state of the catalogue on the player.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Tracks that can be searched; none before the first fetch is through.
    pub tracks: Option<u64>,
    /// First fetch: how far, in percent.
    pub fetched_pct: u8,
    /// First fetch: how fast, in kbit/s.
    pub kbps: u32,
    /// The office's library is of a newer form than this version reads.
    pub newer: bool,
    /// Why it cannot be refreshed.
    pub reason: Option<Reason>,
    /// The office's library was refused (another library, an older root): why, in a sentence.
    pub refused: Option<String>,
    /// The library that was accepted last.
    pub library: Option<KnownLibrary>,
    /// Its playlists, in the order of their ids; at most [`MAX_PLAYLISTS`].
    #[serde(default)]
    pub playlists: Vec<SavedList>,
}

/// Most playlists of a library that a player offers.
pub const MAX_PLAYLISTS: usize = 500;

/// A playlist of the library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedList {
    /// What commands call it.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Tracks in it.
    pub tracks: u32,
}

/// Tracks that the catalogue is asked for in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    /// A playlist, by its id. Shuffled, it is shuffled as a whole before offset and limit count.
    Playlist(String),
    /// The most popular tracks. Shuffled, it is those within offset and limit that change places.
    Popular,
}

/// Tracks of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Those that were asked for and are in the catalogue, in order.
    pub rows: Vec<Row>,
    /// Those that were asked for and are not.
    pub missing: u32,
    /// How many there are without offset and limit.
    pub total: u32,
}

/// What holds a machine back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Throttle {
    /// The power supply is too weak.
    UnderVoltage,
    /// It may not run as fast as it could.
    Capped,
    /// It is slowed down.
    Throttled,
    /// It is too hot.
    Hot,
}

/// What the machine under the player says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// Free on the card, in MB.
    pub disk_free_mb: Option<u64>,
    /// Written to the card since the process started, in bytes.
    pub written: Option<u64>,
    /// Days since 1970 in local time, once the time is known.
    pub day: Option<u32>,
    /// Why the card takes nothing, or not all: what could not be written is not saved.
    pub disk: Option<Reason>,
    /// Temperature of the processor, in degrees Celsius.
    pub cpu_c: Option<i16>,
    /// What holds it back just now; none where nobody tells.
    pub throttled: Option<Vec<Throttle>>,
    /// The origins.
    pub origins: Vec<Origin>,
}

/// Everything that can happen to the player.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// Somebody wants something.
    Command(Incoming),
    /// A button.
    Edge(Edge),
    /// The catalogue answers: hits from the best on, and how many there are; none: no catalogue yet.
    Found {
        /// Of which question.
        token: u64,
        /// The hits.
        hits: Option<(Vec<Row>, u64)>,
        /// Those of them that are on disk as a whole.
        #[serde(default)]
        on_board: Vec<TrackId>,
    },
    /// The catalogue answers with a list; none: no such list, or no catalogue yet.
    Listed {
        /// Of which question.
        token: u64,
        /// Its tracks.
        list: Option<Listed>,
    },
    /// A wish was fulfilled or not.
    Fetched {
        /// Which.
        id: u64,
        /// The bytes, if they were to be read.
        arrival: Arrival,
        /// How fast it came, if it came over the link; if time ran out, how fast what came of it: the next request goes on there.
        sample: Option<Sample>,
        /// Bytes that came over the link for it, those of attempts that failed or came second included.
        received: u64,
    },
    /// Bytes that came over the link for a wish that was given up.
    Wasted {
        /// How many.
        bytes: u64,
    },
    /// Where the sound is.
    Heard(Heard),
    /// The audio threads report.
    Report(Report),
    /// A probe says whether the office can be reached.
    Link {
        /// Whether it can.
        up: bool,
    },
    /// The kernel says that the ways out of the machine have changed.
    Network {
        /// Whether there is one.
        up: bool,
    },
    /// What the interfaces that cost by the byte have carried.
    Traffic {
        /// Each of them.
        carried: Vec<Carried>,
        /// The interface that carries just now, whether it is one of them or not.
        by: Option<String>,
    },
    /// The radio reports of the station that is tuned in.
    Air {
        /// The entry that it was tuned in for.
        entry: EntryId,
        /// What.
        air: Air,
    },
    /// The broker is connected, or not (and why).
    Bots {
        /// Whether it is.
        up: bool,
        /// Another client has taken the player's name.
        name_taken: bool,
    },
    /// The broker has taken an event.
    Delivered {
        /// Which.
        key: u64,
    },
    /// What time it is, and whether that is known to be right.
    Clock {
        /// Now.
        unix: UnixMs,
        /// Known to be right.
        synced: bool,
    },
    /// Whether it is a time at which an empty queue should not be silent.
    Hours {
        /// Whether it is.
        open: bool,
    },
    /// The catalogue.
    Catalogue(Catalogue),
    /// The machine.
    Vitals(Vitals),
    /// The configuration was read again.
    Reloaded(Reload),
    /// The process is about to end: save.
    Shutdown,
}

/// A topic under `jukebox/1/<site>/<player>/` that holds retained state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topic {
    /// `info`.
    Info,
    /// `now`.
    Now,
    /// `queue`.
    Queue,
    /// `volume`.
    Volume,
    /// `mute`.
    Mute,
    /// `health`.
    Health,
}

impl Topic {
    /// The last part of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Now => "now",
            Self::Queue => "queue",
            Self::Volume => "volume",
            Self::Mute => "mute",
            Self::Health => "health",
        }
    }
}

/// What the player wants of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// For the audio threads.
    Order(Order),
    /// Bring this on board; answered by [`Input::Fetched`].
    Fetch(Wish),
    /// Give this wish up: its answer is not wanted any more.
    Cancel {
        /// Which.
        id: u64,
    },
    /// Try one TCP connect to the office; answered by [`Input::Link`].
    Probe,
    /// These tracks (records) are to be played, in this order: what belongs to them goes last when the store needs room.
    Pin(Vec<Digest>),
    /// Ask the catalogue; answered by [`Input::Found`].
    Search {
        /// Names the question.
        token: u64,
        /// Words.
        text: String,
        /// At most so many hits.
        limit: usize,
        /// From this hit on.
        offset: usize,
    },
    /// Ask the catalogue for a track; answered by [`Input::Found`].
    Lookup {
        /// Names the question.
        token: u64,
        /// Which.
        track: TrackId,
    },
    /// Ask the catalogue for the tracks of a list; answered by [`Input::Listed`].
    List {
        /// Names the question.
        token: u64,
        /// Which list.
        list: List,
        /// Shuffles it ([`shuffle`](crate::queue::shuffle)): the same seed, the same order.
        seed: Option<u64>,
        /// From this track on.
        offset: u32,
        /// At most so many tracks.
        limit: u32,
    },
    /// One transaction for the store.
    Save(Vec<Change>),
    /// The playhead, for its own file.
    SavePosition(Vec<u8>),
    /// The answer to a command, JSON. `durable`: only once all that was to be saved before it is on disk.
    Reply {
        /// Of which command.
        token: u64,
        /// JSON.
        payload: String,
        /// Wait for the store.
        durable: bool,
    },
    /// Retained state.
    Publish {
        /// Where.
        topic: Topic,
        /// JSON.
        payload: String,
    },
    /// The description for Home Assistant, JSON, retained at [`topic`](crate::homeassistant::topic).
    Describe {
        /// JSON.
        payload: String,
    },
    /// Something happened: for whoever watches just now.
    Event {
        /// Last part of its topic.
        kind: String,
        /// JSON.
        payload: String,
    },
    /// An event for the broker, only once all that was to be saved before it is on disk; the next comes when this one is
    /// delivered.
    Offer {
        /// Names it in [`Input::Delivered`].
        key: u64,
        /// Last part of its topic.
        kind: String,
        /// JSON.
        payload: String,
    },
    /// Tune in to this station, if another or none is on; none: be still. Answered by [`Input::Air`].
    Tune(Option<Station>),
    /// For the panel.
    Show(Box<View>),
    /// The period of the sound device is to be at least so long from now on.
    Period {
        /// In milliseconds.
        ms: u32,
    },
    /// Frames stand still: mend the sound path. After [`Step::Restart`] everything is ordered anew.
    Heal(Step),
}
