//! The simulated world: the real core with a simulated link, origin, disk, DAC and people, in simulated time.
//!
//! Event-driven, no ticks, seeded. Everything that goes into the core is recorded, so that a night can be replayed. A power
//! cut drops the process with everything that was not durable; the disk and what was acknowledged stay.

pub mod dac;
pub mod library;

use std::collections::{BTreeMap, HashMap, HashSet};

use jukebox_core::checkpoint::Saved;
use jukebox_core::exchange::{Catalogue, Incoming, Input, Output, SavedList, Settings, Source};
use jukebox_core::fallback::FallbackSettings;
use jukebox_core::jukebox::Jukebox;
use jukebox_core::library::{Digest, playlist_id};
use jukebox_core::link::Sample;
use jukebox_core::reason::Reason;
use jukebox_core::time::{Instant, Span};
use jukebox_core::view::View;
use serde_json::Value;

use dac::Dac;
use library::Library;

/// Settings of the simulated player.
pub fn settings() -> Settings {
    Settings {
        player: "lobby".into(),
        name: "Lobby".into(),
        site: "hq".into(),
        version: "0.0.0".into(),
        model: "simulated".into(),
        serial: "1".into(),
        config: "sha256:0".into(),
        office: "office".into(),
        insecure: false,
        broker: true,
        volume_max: 100,
        first_volume: 30,
        loudness_lufs: -18.0,
        crossfade: Span(0),
        fixed_rate: false,
        ahead: Span::s(1_800),
        idle_close: Span::s(600),
        home_assistant: true,
        history_keep: Span::s(30 * 86_400),
        original_only: false,
        fallback: FallbackSettings { playlist: None, shuffle: false, when_waiting: false, when_empty: false },
    }
}

/// The link as it is now.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    /// So many kbit/s, this round trip.
    Up {
        /// kbit/s.
        kbps: u64,
        /// Round trip.
        rtt: Span,
    },
    /// Every request fails like this, after this long.
    Down {
        /// How.
        reason: Reason,
        /// When it is noticed.
        after: Span,
    },
}

enum Event {
    Give(u32, Input),
    Durable(u32, Vec<jukebox_core::checkpoint::Change>, Vec<(u64, String)>),
}

/// The world around one player.
pub struct World {
    /// Now.
    pub now: Instant,
    /// What there is to play.
    pub library: Library,
    /// The link.
    pub link: Link,
    /// The sound.
    pub dac: Dac,
    /// What the player is configured to.
    pub settings: Settings,
    /// The player's mind.
    pub jukebox: Jukebox,
    /// Inputs since the process started.
    pub script: Vec<(Instant, Input)>,
    /// Outputs since the process started, as text.
    pub said: Vec<String>,
    /// Replies by token.
    pub replies: HashMap<u64, Vec<Value>>,
    /// Events that the broker has taken, by kind, in order.
    pub events: Vec<(String, Value)>,
    /// The last retained payloads.
    pub retained: HashMap<&'static str, Value>,
    /// Turns that nothing but time caused.
    pub ticks: u64,
    /// What the panel shows.
    pub view: View,
    /// Objects that cannot be had, and how.
    pub broken: HashMap<Digest, Reason>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    position: Option<Vec<u8>>,
    disk: HashSet<Digest>,
    agenda: BTreeMap<(Instant, u64), Event>,
    count: u64,
    run: u32,
    seed: u64,
    unsaved: Vec<jukebox_core::checkpoint::Change>,
    waiting: Vec<(u64, String)>,
    link_busy_until: Instant,
    tokens: u64,
}

/// How long the card takes for a transaction.
const COMMIT: Span = Span::ms(20);

impl World {
    /// A player at its first start, with the catalogue and the broker there.
    pub fn new(seed: u64, library: Library) -> Self {
        Self::with(seed, library, settings())
    }

    /// The same with settings of its own.
    pub fn with(seed: u64, library: Library, settings: Settings) -> Self {
        let link = Link::Up { kbps: 20_000, rtt: Span::ms(30) };
        let now = Instant(1_000_000);
        let mut world = Self {
            now,
            library,
            link,
            dac: Dac::default(),
            jukebox: Jukebox::new(now, seed, "b".into(), settings.clone(), Saved::default(), None),
            settings,
            script: Vec::new(),
            said: Vec::new(),
            replies: HashMap::new(),
            events: Vec::new(),
            retained: HashMap::new(),
            ticks: 0,
            view: View::default(),
            broken: HashMap::new(),
            rows: BTreeMap::new(),
            position: None,
            disk: HashSet::new(),
            agenda: BTreeMap::new(),
            count: 0,
            run: 0,
            seed,
            unsaved: Vec::new(),
            waiting: Vec::new(),
            link_busy_until: Instant(0),
            tokens: 0,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.drain();
        let tracks = Some(self.library.rows.len() as u64);
        let playlists = self.library.playlists.iter();
        let playlists = playlists.map(|(name, ids)| SavedList {
            id: playlist_id(name),
            name: name.clone(),
            tracks: ids.len() as u32,
        });
        let playlists = playlists.collect();
        self.give(Input::Catalogue(Catalogue { tracks, playlists, ..Catalogue::default() }));
        self.give(Input::Bots { up: true, name_taken: false });
    }

    /// The power fails and comes back: what was not durable is gone.
    pub fn power_cut(&mut self) {
        self.run += 1;
        self.unsaved.clear();
        self.waiting.clear();
        self.dac = self.dac.restarted();
        self.dac.advance(self.now, &self.library, &self.disk);
        let saved = Saved::load(self.rows.clone());
        assert!(saved.rejected.is_empty(), "{:?}", saved.rejected);
        let boot = format!("b{}", self.run);
        self.script.clear();
        self.said.clear();
        self.jukebox = Jukebox::new(self.now, self.seed, boot, self.settings.clone(), saved, self.position.as_deref());
        self.connect();
    }

    /// The same inputs to a fresh mind: what it says.
    pub fn replay(script: &[(Instant, Input)], began: Instant, seed: u64) -> Vec<String> {
        let mut jukebox = Jukebox::new(began, seed, "b".into(), settings(), Saved::default(), None);
        let mut said = Vec::new();
        let drain = |j: &mut Jukebox, said: &mut Vec<String>| {
            while let Some(o) = j.poll_output() {
                said.push(format!("{o:?}"));
            }
        };
        drain(&mut jukebox, &mut said);
        for (at, input) in script {
            jukebox.handle_input(*at, input.clone());
            drain(&mut jukebox, &mut said);
        }
        said
    }

    /// A command by hand; its token.
    pub fn command(&mut self, verb: &str, payload: &str) -> u64 {
        self.tokens += 1;
        let (token, source) = (self.tokens, Source::Mqtt);
        let (verb, payload) = (verb.to_owned(), payload.as_bytes().to_vec());
        self.give(Input::Command(Incoming {
            token,
            source,
            verb,
            payload,
            retained: false,
            expired: false,
            backlog: false,
            for_all: false,
            bad_response_topic: false,
        }));
        token
    }

    /// A command and its reply, letting time pass until it is there.
    pub fn ask(&mut self, verb: &str, payload: &str) -> Value {
        let token = self.command(verb, payload);
        for _ in 0..100 {
            if let Some(r) = self.replies.get(&token) {
                return r[0].clone();
            }
            self.pass(Span::ms(10));
        }
        panic!("no reply to {verb} {payload}");
    }

    /// Plugs the sound device out or in.
    pub fn plug(&mut self, present: bool) {
        if let Some(r) = self.dac.plug(present) {
            self.give(Input::Report(r));
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, span: Span) {
        let until = self.now + span;
        loop {
            let agenda = self.agenda.keys().next().map(|k| k.0);
            let next = [agenda, self.jukebox.poll_timeout(), self.dac.next()].into_iter().flatten().min();
            let Some(at) = next.filter(|&t| t <= until) else { break };
            self.now = at.max(self.now);
            self.sound();
            while let Some(e) = self.agenda.first_entry().filter(|e| e.key().0 <= self.now) {
                match e.remove() {
                    Event::Give(run, input) if run == self.run => self.give(input),
                    Event::Durable(run, changes, replies) if run == self.run => self.durable(changes, replies),
                    _ => {}
                }
            }
            if self.jukebox.poll_timeout().is_some_and(|t| t <= self.now) {
                self.ticks += 1;
                self.give(Input::Tick);
            }
        }
        self.now = until;
        self.sound();
    }

    fn sound(&mut self) {
        for r in self.dac.advance(self.now, &self.library, &self.disk) {
            self.give(Input::Report(r));
        }
    }

    /// Gives the core an input, as the driver would.
    pub fn give(&mut self, input: Input) {
        if self.jukebox.listens() {
            for r in self.dac.advance(self.now, &self.library, &self.disk) {
                self.take(Input::Report(r));
            }
            self.take(Input::Heard(self.dac.heard()));
        }
        self.take(input);
    }

    fn take(&mut self, input: Input) {
        self.script.push((self.now, input.clone()));
        self.jukebox.handle_input(self.now, input);
        self.drain();
    }

    fn at(&mut self, after: Span, event: Event) {
        self.count += 1;
        self.agenda.insert((self.now + after, self.count), event);
    }

    fn durable(&mut self, changes: Vec<jukebox_core::checkpoint::Change>, replies: Vec<(u64, String)>) {
        for c in changes {
            match c.value {
                Some(v) => self.rows.insert(c.key, v),
                None => self.rows.remove(&c.key),
            };
        }
        for (token, payload) in replies {
            self.replies.entry(token).or_default().push(serde_json::from_str(&payload).expect("a reply is JSON"));
        }
    }

    fn drain(&mut self) {
        let mut reports = Vec::new();
        while let Some(output) = self.jukebox.poll_output() {
            self.said.push(format!("{output:?}"));
            let run = self.run;
            match output {
                Output::Order(o) => {
                    self.dac.order(o);
                    reports.extend(self.dac.advance(self.now, &self.library, &self.disk));
                }
                Output::Fetch(w) => {
                    let (after, arrival, sample) = self.serve(&w);
                    let received = sample.map_or(0, |s| s.bytes.into());
                    self.at(after, Event::Give(run, Input::Fetched { id: w.id, arrival, sample, received }));
                }
                Output::Search { token, text, limit, .. } => {
                    let hits: Vec<_> = self.library.rows.iter().filter(|r| r.title == text).cloned().collect();
                    let total = hits.len() as u64;
                    let hits = Some((hits.into_iter().take(limit).collect(), total));
                    self.at(Span::ms(2), Event::Give(run, Input::Found { token, hits, on_board: Vec::new() }));
                }
                Output::Lookup { token, track } => {
                    let hits: Vec<_> = self.library.rows.iter().filter(|r| r.id == track).cloned().collect();
                    let total = hits.len() as u64;
                    self.at(
                        Span::ms(2),
                        Event::Give(run, Input::Found { token, hits: Some((hits, total)), on_board: Vec::new() }),
                    );
                }
                Output::List { token, list, seed, offset, limit } => {
                    let list = self.library.list(&list, seed, offset, limit);
                    self.at(Span::ms(2), Event::Give(run, Input::Listed { token, list }));
                }
                Output::Save(changes) => self.unsaved.extend(changes),
                Output::SavePosition(p) => self.position = Some(p),
                Output::Reply { token, payload, durable } if durable => self.waiting.push((token, payload)),
                Output::Reply { token, payload, .. } => self.durable(Vec::new(), vec![(token, payload)]),
                Output::Publish { topic, payload } => {
                    let value: Value = serde_json::from_str(&payload).expect("state is JSON");
                    if value["state"] == "playing" {
                        let still = self.now.since(self.dac.moved_at());
                        assert!(still < Span::s(1), "said to play, and no frame has left the DAC for {still:?}");
                    }
                    self.retained.insert(topic.as_str(), value);
                }
                Output::Offer { key, kind, payload } => {
                    self.events.push((kind, serde_json::from_str(&payload).expect("an event is JSON")));
                    self.at(Span::ms(5), Event::Give(run, Input::Delivered { key }));
                }
                Output::Show(view) => {
                    let headline = view.headline.as_str();
                    assert!(!headline.is_empty() && headline.chars().count() <= 42, "{headline:?}");
                    self.view = *view;
                }
                Output::Probe => {
                    let (up, after) = match self.link {
                        Link::Up { rtt, .. } => (true, rtt),
                        Link::Down { after, .. } => (false, after.min(Span::s(1))),
                    };
                    self.at(after, Event::Give(run, Input::Link { up }));
                }
                Output::Cancel { id } => {
                    let of_it = |e: &Event| matches!(e, Event::Give(_, Input::Fetched { id: i, .. }) if *i == id);
                    self.agenda.retain(|_, e| !of_it(e));
                    self.link_busy_until = self.now;
                }
                // The simulated DAC has nothing that could be mended.
                Output::Event { .. } | Output::Describe { .. } | Output::Pin(_) | Output::Heal(_) => {}
            }
        }
        if !self.unsaved.is_empty() || !self.waiting.is_empty() {
            let (changes, replies) = (std::mem::take(&mut self.unsaved), std::mem::take(&mut self.waiting));
            self.at(COMMIT, Event::Durable(self.run, changes, replies));
        }
        for r in reports {
            self.take(Input::Report(r));
        }
    }

    fn serve(&mut self, w: &jukebox_core::planner::Wish) -> (Span, jukebox_core::planner::Arrival, Option<Sample>) {
        let bytes = w.read.then(|| self.library.objects.get(&w.object).cloned()).flatten();
        if self.disk.contains(&w.digest) {
            return (Span::ms(1), Ok(bytes), None);
        }
        if let Some(&reason) = self.broken.get(&w.digest) {
            return (Span::ms(40), Err(reason), None);
        }
        match self.link {
            Link::Down { reason, after } => (after.min(w.deadline), Err(reason), None),
            Link::Up { kbps, rtt } => {
                let size = w.range.map_or(bytes.as_ref().map_or(0, Vec::len) as u64, |r| r.1.into());
                let took = Span(size * 8_000 / kbps.max(1) + 1);
                // Transfers share the link: one waits for the other.
                let begin = self.link_busy_until.max(self.now + rtt);
                let end = begin + took;
                if end.since(self.now) > w.deadline {
                    return (w.deadline, Err(Reason::Timeout), None);
                }
                self.link_busy_until = end;
                self.disk.insert(w.digest);
                (end.since(self.now), Ok(bytes), Some(Sample { bytes: size as u32, took }))
            }
        }
    }
}
