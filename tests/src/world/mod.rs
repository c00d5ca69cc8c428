//! The simulated world: the real core with a simulated link, origin, disk, DAC and people, in simulated time.
//!
//! Event-driven, no ticks, seeded. Everything that goes into the core is recorded, so that a night can be replayed. A power
//! cut drops the process with everything that was not durable; the disk and what was acknowledged stay.

pub mod dac;
pub mod library;
pub mod link;
pub mod models;
pub mod station;
pub mod weather;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jukebox_core::checkpoint::{Change, Saved};
use jukebox_core::exchange::{Catalogue, Incoming, Input, Output, SavedList, Settings, Source, Topic};
use jukebox_core::fallback::FallbackSettings;
use jukebox_core::jukebox::Jukebox;
use jukebox_core::library::{Digest, playlist_id};
use jukebox_core::link::Sample;
use jukebox_core::planner::Wish;
use jukebox_core::reason::Reason;
use jukebox_core::time::{Instant, Span};
use jukebox_core::view::View;
use serde_json::Value;

use dac::Dac;
use library::Library;
pub use link::Link;
use link::Pipe;

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
        streams: Vec::new(),
        write_budget: u64::MAX,
        history_keep: Span::s(30 * 86_400),
        original_only: false,
        fallback: FallbackSettings { playlist: None, shuffle: false, when_waiting: false, when_empty: false },
    }
}

/// What may be told once all that was to be saved before it is on the card.
enum Held {
    Reply(u64, String),
    Offer(u64, String, String),
}

#[derive(Default)]
struct Commit {
    changes: Vec<Change>,
    position: Option<Vec<u8>>,
    held: Vec<Held>,
}

enum Event {
    Give(u32, Input),
    Durable(u32, Commit),
}

/// A time in which it should have sounded, and did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The last frame before it, or the moment in which somebody wanted music.
    pub from: Instant,
    /// The first frame after it.
    pub until: Instant,
    /// Nothing was to sound before it.
    pub start: bool,
}

/// Bytes that came over the link.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    /// Segments, records and index pages that came whole and went to the card, and how long they are.
    pub arrived: Vec<(Digest, u64)>,
    /// Of transfers that failed or were given up.
    pub lost: u64,
}

/// What the bytes that came over the link were good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purposes {
    /// Heard, without what the next two count; records and index pages too.
    pub played: u64,
    /// Copies in heard segments for pre-roll and fades.
    pub copies: u64,
    /// Heard in a better rendition.
    pub replaced: u64,
    /// Not heard, and still on the card.
    pub on_board: u64,
    /// Heard in a smaller rendition, because it came too late.
    pub late: u64,
    /// Never whole: of transfers that failed or were given up.
    pub lost: u64,
}

impl Purposes {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.played + self.copies + self.replaced + self.on_board + self.late + self.lost
    }
}

/// The world around one player.
pub struct World {
    /// Now.
    pub now: Instant,
    /// What there is to play.
    pub library: Arc<Library>,
    /// The link.
    pub link: Link,
    /// The sound.
    pub dac: Dac,
    /// What the player is configured to.
    pub settings: Settings,
    /// The player's mind.
    pub jukebox: Jukebox,
    /// Nights are many: scripts, what is said, and the retained queue are not kept.
    pub light: bool,
    /// Says on standard output what happens.
    pub loud: bool,
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
    /// Times in which it should have sounded, and did not.
    pub quiet: Vec<Quiet>,
    /// What came over the link.
    pub bytes: Bytes,
    /// Inputs that were taken, over all processes.
    pub inputs: u64,
    /// The power fails in the middle of this input.
    pub cut_at: Option<u64>,
    /// How many runs of frames had sounded at each power cut.
    pub cuts: Vec<usize>,
    /// Since when five minutes of the fallback are on board, as `health` has it.
    pub spare_since: Option<Instant>,
    /// Time that the mind took to think.
    pub thought: std::time::Duration,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    position: Option<Vec<u8>>,
    disk: HashSet<Digest>,
    agenda: BTreeMap<(Instant, u64), Event>,
    count: u64,
    run: u32,
    seed: u64,
    commit: Commit,
    pipe: Pipe,
    /// When the next transfer ends, as far as is known.
    pipe_next: Option<Instant>,
    /// Since when it should sound and does not; whether nothing was to sound before.
    still: Option<(Instant, bool)>,
    /// At the last look: it should sound, and frames that had left by then.
    was_due: (bool, u64),
    dead: bool,
    tokens: u64,
}

/// One of so many inputs is timed; a prime, so that no rhythm of theirs is met.
const MEASURED: u64 = 17;
/// How long the card takes for a transaction.
const COMMIT: Span = Span::ms(20);
/// At the end of the queue frames end before that is looked at: no silence.
const LOOK: Span = Span::ms(300);

impl World {
    /// A player at its first start, with the catalogue and the broker there.
    pub fn new(seed: u64, library: Library) -> Self {
        Self::with(seed, library, settings())
    }

    /// The same with settings of its own.
    pub fn with(seed: u64, library: impl Into<Arc<Library>>, settings: Settings) -> Self {
        let link = Link::Up { kbps: 20_000, rtt: Span::ms(30) };
        let now = Instant(1_000_000);
        let mut world = Self {
            now,
            library: library.into(),
            link,
            dac: Dac::default(),
            jukebox: Jukebox::new(now, seed, "b".into(), settings.clone(), Saved::default(), None),
            settings,
            light: false,
            loud: false,
            script: Vec::new(),
            said: Vec::new(),
            replies: HashMap::new(),
            events: Vec::new(),
            retained: HashMap::new(),
            ticks: 0,
            view: View::default(),
            broken: HashMap::new(),
            quiet: Vec::new(),
            bytes: Bytes::default(),
            inputs: 0,
            cut_at: None,
            cuts: Vec::new(),
            spare_since: None,
            thought: std::time::Duration::ZERO,
            rows: BTreeMap::new(),
            position: None,
            disk: HashSet::new(),
            agenda: BTreeMap::new(),
            count: 0,
            run: 0,
            seed,
            commit: Commit::default(),
            pipe: Pipe::default(),
            pipe_next: None,
            still: None,
            was_due: (false, 0),
            dead: false,
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
        self.look();
        self.run += 1;
        self.dead = false;
        self.commit = Commit::default();
        self.bytes.lost += self.pipe.clear();
        self.pipe_next = None;
        self.cuts.push(self.dac.sounded.len());
        self.dac = self.dac.restarted();
        self.was_due.1 = 0;
        self.dac.advance(self.now, &self.library, &self.disk);
        let saved = Saved::load(self.rows.clone());
        assert!(saved.rejected.is_empty(), "{:?}", saved.rejected);
        let boot = format!("b{}", self.run);
        self.script.clear();
        self.said.clear();
        self.jukebox = Jukebox::new(self.now, self.seed, boot, self.settings.clone(), saved, self.position.as_deref());
        self.connect();
    }

    /// What the card holds of the small state.
    pub fn saved(&self) -> Saved {
        Saved::load(self.rows.clone())
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
        self.pipe_next = self.pipe.next(&self.link);
        loop {
            if self.dead {
                self.power_cut();
            }
            let agenda = self.agenda.keys().next().map(|k| k.0);
            let all = [agenda, self.jukebox.poll_timeout(), self.dac.next(), self.pipe_next];
            let Some(at) = all.into_iter().flatten().min().filter(|&t| t <= until) else { break };
            self.now = at.max(self.now);
            self.sound();
            if self.pipe_next.is_some_and(|t| t <= self.now) {
                self.transfer();
            }
            while let Some(e) = self.agenda.first_entry().filter(|e| e.key().0 <= self.now) {
                match e.remove() {
                    Event::Give(run, input) if run == self.run => self.give(input),
                    Event::Durable(run, commit) if run == self.run && !self.dead => self.durable(commit),
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
        if self.transfer() && self.dead {
            self.power_cut();
        }
    }

    /// What the bytes that came over the link were good for so far.
    pub fn purposes(&self) -> Purposes {
        let mut all = Purposes { lost: self.bytes.lost, ..Purposes::default() };
        let heard: Vec<_> = self.dac.heard_of.iter().filter_map(|d| self.library.segments.get(d)).collect();
        let mut best: HashMap<(u32, u32), u32> = HashMap::new();
        for p in heard {
            let most = best.entry((p.track, p.number)).or_default();
            *most = p.bytes.max(*most);
        }
        for (digest, bytes) in &self.bytes.arrived {
            let Some(p) = self.library.segments.get(digest) else {
                all.played += bytes;
                continue;
            };
            match best.get(&(p.track, p.number)) {
                _ if self.dac.heard_of.contains(digest) => {
                    all.copies += u64::from(p.overhead);
                    all.played += bytes - u64::from(p.overhead);
                }
                None => all.on_board += bytes,
                Some(most) if *most > p.bytes => all.replaced += bytes,
                Some(_) => all.late += bytes,
            }
        }
        all
    }

    /// Rows of the small state on the card, and their bytes.
    pub fn rows(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.iter().map(|(k, v)| k.len() + v.len()).sum())
    }

    /// Whether the card holds an object.
    pub fn has(&self, digest: &Digest) -> bool {
        self.disk.contains(digest)
    }

    /// The card loses an object, and nobody notices before it is read.
    pub fn lose(&mut self, digest: &Digest) {
        assert!(self.disk.remove(digest), "it was not there");
    }

    fn sound(&mut self) {
        for r in self.dac.advance(self.now, &self.library, &self.disk) {
            self.give(Input::Report(r));
        }
        self.look();
    }

    /// What the link has brought by now; whether anything.
    fn transfer(&mut self) -> bool {
        let ended = self.pipe.settle(&self.link, self.now);
        let any = !ended.is_empty();
        for (flow, outcome) in ended {
            let (id, received) = (flow.id, flow.received());
            let arrival = match outcome {
                Ok(()) => {
                    if self.disk.insert(flow.digest) {
                        self.bytes.arrived.push((flow.digest, received));
                    }
                    Ok(())
                }
                Err(reason) => {
                    let spoiled = matches!(reason, Reason::Lying | Reason::DiskFull);
                    self.bytes.lost += if spoiled { received } else { self.pipe.keep(&flow) };
                    Err(reason)
                }
            };
            let tells = flow.came() > 0 && matches!(arrival, Ok(()) | Err(Reason::Timeout));
            let sample = tells.then(|| Sample { bytes: flow.came() as u32, took: flow.took(self.now) });
            self.give(Input::Fetched { id, arrival: arrival.map(|()| flow.read), sample, received });
        }
        self.pipe_next = self.pipe.next(&self.link);
        any
    }

    /// Notes when it should have sounded and did not.
    fn look(&mut self) {
        let (due, frames) = (self.jukebox.listens() && self.dac.wants(), self.dac.heard().music_frames);
        let (was, before) = std::mem::replace(&mut self.was_due, (due, frames));
        if frames > before {
            if let Some((from, start)) = self.still.take() {
                let played = Span((frames - before) * 1_000_000 / u64::from(library::RATE));
                let until = (self.now - played).max(from);
                // Less is rounding.
                if until.since(from) >= Span::ms(1) {
                    self.note(Quiet { from, until, start });
                }
            }
            if due && self.dac.heard().ring_ms == 0 {
                self.still = Some((self.dac.moved_at(), false));
            }
        } else if due {
            self.still.get_or_insert((self.now, !was));
        }
        if !due && let Some((from, start)) = self.still.take() {
            let quiet = Quiet { from, until: self.now, start };
            if self.now.since(from) > LOOK && !start {
                self.note(quiet);
            }
        }
    }

    fn note(&mut self, quiet: Quiet) {
        self.tell(|| {
            format!(
                "quiet for {:.3} s{}",
                quiet.until.since(quiet.from).0 as f64 / 1e6,
                if quiet.start { ", a start" } else { "" }
            )
        });
        self.quiet.push(quiet);
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.loud {
            println!("{:>12.3}  {}", self.now.0 as f64 / 1e6, what());
        }
    }

    /// Gives the core an input, as the driver would.
    pub fn give(&mut self, input: Input) {
        if self.jukebox.listens() {
            for r in self.dac.advance(self.now, &self.library, &self.disk) {
                self.take(Input::Report(r));
            }
            self.look();
            self.take(Input::Heard(self.dac.heard()));
        }
        self.take(input);
        self.look();
    }

    fn take(&mut self, input: Input) {
        if self.dead {
            return;
        }
        if !self.light {
            self.script.push((self.now, input.clone()));
        }
        if self.loud {
            match &input {
                Input::Tick | Input::Heard(_) | Input::Report(_) | Input::Delivered { .. } => {}
                Input::Fetched { id, arrival, received, .. } => {
                    self.tell(|| format!("fetched {id} {:?} {received}", arrival.as_ref().map(|_| ())))
                }
                Input::Command(c) => self.tell(|| format!("in {} {}", c.verb, String::from_utf8_lossy(&c.payload))),
                other => self.tell(|| format!("in {other:?}")),
            }
        }
        self.inputs += 1;
        self.dead = self.cut_at == Some(self.inputs);
        // To look at the clock costs as much as many a thought: one of so many is measured.
        let began = self.inputs.is_multiple_of(MEASURED).then(std::time::Instant::now);
        self.jukebox.handle_input(self.now, input);
        self.thought += began.map_or(std::time::Duration::ZERO, |t| t.elapsed() * MEASURED as u32);
        if self.dead {
            let most = self.inputs as usize % 5;
            self.tell(|| format!("the power fails after {most} outputs"));
            return self.drain_some(most);
        }
        self.drain();
    }

    fn at(&mut self, after: Span, event: Event) {
        self.count += 1;
        self.agenda.insert((self.now + after, self.count), event);
    }

    fn durable(&mut self, commit: Commit) {
        for c in commit.changes {
            match c.value {
                Some(v) => self.rows.insert(c.key, v),
                None => self.rows.remove(&c.key),
            };
        }
        if commit.position.is_some() {
            self.position = commit.position;
        }
        for held in commit.held {
            match held {
                Held::Reply(token, payload) => self.reply(token, &payload),
                Held::Offer(key, kind, payload) => {
                    self.events.push((kind, serde_json::from_str(&payload).expect("an event is JSON")));
                    self.at(Span::ms(5), Event::Give(self.run, Input::Delivered { key }));
                }
            }
        }
    }

    fn reply(&mut self, token: u64, payload: &str) {
        self.tell(|| format!("reply {payload}"));
        self.replies.entry(token).or_default().push(serde_json::from_str(payload).expect("a reply is JSON"));
    }

    fn drain(&mut self) {
        self.drain_some(usize::MAX);
    }

    /// Carries out so many of the outputs.
    fn drain_some(&mut self, most: usize) {
        let mut reports = Vec::new();
        let commits = |c: &Commit| !c.changes.is_empty() || c.position.is_some() || !c.held.is_empty();
        for _ in 0..most {
            let Some(output) = self.jukebox.poll_output() else { break };
            if !self.light {
                self.said.push(format!("{output:?}"));
            }
            let run = self.run;
            match output {
                Output::Order(o) => {
                    self.dac.order(o);
                    reports.extend(self.dac.advance(self.now, &self.library, &self.disk));
                }
                Output::Fetch(w) => self.fetch(w),
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
                Output::Save(changes) => self.commit.changes.extend(changes),
                // One thread writes both, in the order of the orders.
                Output::SavePosition(p) => self.commit.position = Some(p),
                Output::Reply { token, payload, durable } if durable => {
                    self.commit.held.push(Held::Reply(token, payload))
                }
                Output::Reply { token, payload, .. } => self.reply(token, &payload),
                Output::Publish { topic, payload } => self.published(topic, &payload),
                Output::Offer { key, kind, payload } => {
                    self.tell(|| format!("offer {kind} {payload}"));
                    self.commit.held.push(Held::Offer(key, kind, payload));
                }
                Output::Show(view) => {
                    let headline = view.headline.as_str();
                    assert!(!headline.is_empty() && headline.chars().count() <= 42, "{headline:?}");
                    self.view = *view;
                }
                Output::Probe => {
                    let (up, after) = self.link.probe(self.now);
                    self.at(after, Event::Give(run, Input::Link { up }));
                }
                Output::Cancel { id } => {
                    let of_it = |e: &Event| matches!(e, Event::Give(_, Input::Fetched { id: i, .. }) if *i == id);
                    self.agenda.retain(|_, e| !of_it(e));
                    if let Some(flow) = self.pipe.cancel(id) {
                        self.bytes.lost += self.pipe.keep(&flow);
                        self.tell(|| format!("cancel {id}, {} of {} bytes", flow.received(), flow.size));
                        self.pipe_next = self.pipe.next(&self.link);
                    }
                }
                Output::Event { kind, payload } => self.tell(|| format!("event {kind} {payload}")),
                // The simulated DAC has nothing that could be mended.
                Output::Describe { .. } | Output::Pin(_) | Output::Heal(_) => {}
                Output::Tune(wanted) => {
                    if let Some(input) = self.dac.station.tune(wanted) {
                        self.at(Span::ms(50), Event::Give(run, input));
                    }
                }
                Output::Period { ms } => reports.extend(self.dac.lengthen_period(ms)),
            }
        }
        if commits(&self.commit) {
            let commit = std::mem::take(&mut self.commit);
            self.at(COMMIT, Event::Durable(self.run, commit));
        }
        for r in reports {
            self.take(Input::Report(r));
        }
    }

    fn published(&mut self, topic: Topic, payload: &str) {
        if self.light && matches!(topic, Topic::Queue | Topic::Info) {
            return;
        }
        let value: Value = serde_json::from_str(payload).expect("state is JSON");
        if value["state"] == "playing" {
            let still = self.now.since(self.dac.moved_at());
            assert!(still < Span::s(1), "said to play, and no frame has left the DAC for {still:?}");
        }
        if topic == Topic::Now {
            self.tell(|| {
                format!("now {} {} {} {}", value["state"], value["source"], value["entry"], value["rendition"])
            });
        }
        if topic == Topic::Health && self.spare_since.is_none() {
            let s = |what: &str| value[what].as_u64().unwrap_or(0);
            let spare = s("on_board_total_s").saturating_sub(s("on_board_queue_s"));
            self.spare_since = (spare >= 300).then_some(self.now);
        }
        self.retained.insert(topic.as_str(), value);
    }

    fn fetch(&mut self, w: Wish) {
        let answer =
            |received: Option<Vec<u8>>| Input::Fetched { id: w.id, arrival: Ok(received), sample: None, received: 0 };
        let refuse = |reason| Input::Fetched { id: w.id, arrival: Err(reason), sample: None, received: 0 };
        let run = self.run;
        let bytes = w.read.then(|| self.library.objects.get(&w.object).cloned()).flatten();
        if self.disk.contains(&w.digest) {
            return self.at(Span::ms(1), Event::Give(run, answer(bytes)));
        }
        if let Some(&reason) = self.broken.get(&w.digest) {
            return self.at(Span::ms(40), Event::Give(run, refuse(reason)));
        }
        if let Some((reason, after)) = self.link.refuses(self.now) {
            self.tell(|| format!("fetch {} refused: {reason:?}", w.id));
            return self.at(after.min(w.deadline), Event::Give(run, refuse(reason)));
        }
        let size = w.range.map_or(bytes.as_ref().map_or(0, Vec::len) as u64, |r| r.1.into());
        self.tell(|| match self.library.segments.get(&w.digest) {
            Some(p) => format!("fetch {} track {} slot {} {:?} {size} bytes", w.id, p.track, p.number, p.rendition),
            None => format!("fetch {} {size} bytes", w.id),
        });
        self.pipe.push(self.now, &self.link, &w, size, bytes);
        self.pipe_next = self.pipe.next(&self.link);
    }
}
