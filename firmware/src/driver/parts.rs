//! Everything around the core, started in order and stopped in order.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use jukebox_board::buttons::{Buttons, HELP, Key, Keyboard};
use jukebox_board::profile::Profile;
use jukebox_core::checkpoint::{KnownLibrary, Saved};
use jukebox_core::exchange::{self, Input, List, Settings, Vitals};
use jukebox_core::fallback::FallbackSettings;
use jukebox_core::jukebox::Jukebox;
use jukebox_core::library::{Digest, Row, TrackId};
use jukebox_core::link::Sample;
use jukebox_core::live::{Air, Station};
use jukebox_core::planner::Wish;
use jukebox_core::reason::Reason;
use jukebox_core::sound::Heard;
use jukebox_core::time::{Instant as CoreInstant, Span, UnixMs};
use jukebox_core::view::View;
use jukebox_core::wire::Origin;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::{News, reload};
use crate::audio::tape::Tape;
use crate::audio::{self, Audio, RateRule};
use crate::catalogue::{self, Catalogue, Known, RefreshError, Refreshed};
use crate::cli::RunArgs;
use crate::clock::Clock;
use crate::config::{self, Config, Rate, Renditions, WhenEmpty};
use crate::dial::Dialer;
use crate::fetch::{Fetcher, Meter, OriginState, Want, chance};
use crate::metered::Metered;
use crate::mqtt::Mqtt;
use crate::netlink::{Change, Netlink, Ways};
use crate::radio::Radio;
use crate::socket::{self, Socket};
use crate::store::{Limits, ObjectError, Objects, Store};
use crate::systemd::{Signal, Signals};
use crate::{clock, mqtt, panel};

/// The first sound after a boot comes up slowly: nobody jumps.
const START_RAMP_MS: u32 = 500;
/// A round trip beyond this is for the requests themselves to find out.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// How often the machine is looked at.
const LOOK_AROUND: Duration = Duration::from_secs(30);
/// How often the program's pages that are not in use are given back.
const FORGET: Duration = Duration::from_secs(10);
/// How often the library's root is looked at, give or take a quarter: of 300 players about 3 a second, at any time.
const REFRESH: Duration = Duration::from_secs(90);
/// Each request of a refresh.
const REFRESH_DEADLINE: Duration = Duration::from_secs(20);
/// Until the first catalogue is here.
const REFRESH_FIRST: Duration = Duration::from_secs(2);

/// The parts of a running player.
pub(super) struct Parts {
    pub(super) began: Instant,
    pub(super) site: String,
    pub(super) audio: Audio,
    sound: audio::Settings,
    /// Counts of sound paths that were given up.
    before: Heard,
    pub(super) store: Store,
    pub(super) mqtt: Option<Mqtt>,
    pub(super) view: View,
    /// What counts of it; the file may say more.
    pub(super) config: Config,
    /// The certificates that origins and broker are checked with.
    pub(super) roots: Option<Digest>,
    pub(super) model: String,
    /// Why the card does not take the state; shared with the task that looks around.
    state_trouble: Rc<Cell<Option<Reason>>>,
    /// Days since 1970, once they are known.
    day: Rc<Cell<Option<u32>>>,
    /// The ways out of the machine, as the kernel told them last.
    ways: Rc<RefCell<Ways>>,
    pub(super) clock: Arc<Clock>,
    pub(super) fetcher: Fetcher,
    catalogue: Catalogue,
    pub(super) radio: Radio,
    tape: Option<Arc<Tape>>,
    panel: Option<panel::Running>,
    pub(super) name: String,
    keyboard: Option<Keyboard>,
    buttons: Option<Buttons>,
    pub(super) socket: Socket,
    pub(super) inbox: mpsc::Sender<News>,
    written_at_start: u64,
    /// The tasks that look at the library and at the machine.
    refreshing: Option<AbortHandle>,
    looking: Option<AbortHandle>,
}

impl Parts {
    /// Starts all parts; the core wakes up with what was saved.
    pub(super) fn start(config: &Config, args: &RunArgs, inbox: mpsc::Sender<News>) -> anyhow::Result<(Self, Jukebox)> {
        let began = Instant::now();
        let profile = config.board.profile()?;
        let written_at_start = written_bytes().unwrap_or(0);
        let tell = inbox.clone();
        let (store, found) = Store::open(&config.store.state, &config.store.cache, limits(config), move |done| {
            // The driver always drains its inbox: the store's thread waits at most for a moment.
            let _ = tell.blocking_send(News::Store(done));
        })?;
        for path in &found.rejected {
            tracing::error!("{}: was not understood and was moved aside", path.display());
        }
        let objects = store.objects();
        let saved = Saved::load(found.rows);
        for key in &saved.rejected {
            tracing::error!("saved state: {key} cannot be read and is left out");
        }
        let clock = Clock::new(saved.meta.as_ref().and_then(|m| m.time));
        let tls = config::tls_config(config, clock.clone())?;
        let dialer = Dialer::new(config.office.proxy.clone()).by(&config.office.interfaces);
        let fetcher = Fetcher::new(
            &config.office.origins,
            dialer.clone(),
            tls.as_ref(),
            config.office.insecure,
            objects.clone(),
            |_| {},
        )?;

        let sound = audio_settings(config, profile.as_ref())?;
        let audio = start_audio(&sound, &objects, &inbox)?;

        let known = saved.meta.as_ref().and_then(|m| m.library.clone());
        let known = known.map(|k| Known { library: k.id, revision: k.revision });
        let catalogue = Catalogue::open(&config.store.cache, known)?;
        let radio = Radio::new(&config.streams, &dialer, &clock);
        let mqtt = config.mqtt.as_ref().map(|m| start_mqtt(config, m, dialer, tls.clone(), &inbox));
        let socket = listen(config, &inbox)?;
        let panel = start_panel(config, args, profile.as_ref())?;
        let keyboard = start_keyboard(config, &inbox)?;
        let buttons = start_buttons(config, profile.as_ref(), &inbox);
        forward_signals(config, &inbox)?;

        let model = profile.map_or_else(model, |p| p.name);
        let boot = random_hex();
        let settings = settings(config, model.clone());
        let seed = u64::from_str_radix(&boot, 16).unwrap_or(1);
        let jukebox = Jukebox::new(CoreInstant(0), seed, boot, settings, saved, found.position.as_deref());
        let mut parts = Self {
            began,
            site: config.office.site.clone(),
            audio,
            sound,
            before: Heard::default(),
            store,
            mqtt,
            view: View::default(),
            config: config.clone(),
            roots: reload::roots(config)?,
            model,
            state_trouble: Rc::default(),
            day: Rc::default(),
            ways: Rc::default(),
            clock,
            fetcher,
            catalogue,
            radio,
            tape: None,
            panel,
            name: config.name.clone(),
            keyboard,
            buttons,
            socket,
            inbox,
            written_at_start,
            refreshing: None,
            looking: None,
        };
        parts.refresh_catalogue();
        tokio::task::spawn_local(forget_for_ever());
        parts.listen_to_the_kernel();
        parts.look_around_for_ever();
        Ok((parts, jukebox))
    }

    /// Gives the terminal back, fades out, closes the card, and says goodbye to the broker meanwhile. What is not done by
    /// `deadline` ends with the process: a card or a device that hangs holds nobody up.
    pub(super) async fn stop(self, deadline: Instant) {
        let Self { audio, mqtt, store, panel, keyboard, buttons, name, .. } = self;
        if let Some(panel) = &panel {
            // What played does not stay there, looking as if it still did.
            panel.handle.show(panel::off(&name));
        }
        let (done, joined) = oneshot::channel();
        // Each drop joins a thread: not here, where the goodbye to the broker must go on.
        let join = std::thread::Builder::new().name("stop".into()).stack_size(128 << 10).spawn(move || {
            // The terminal is given back whatever the device and the card do.
            drop(keyboard);
            drop(buttons);
            drop(panel);
            drop(audio);
            drop(store);
            let _ = done.send(());
        });
        let goodbye = async {
            if let Some(mqtt) = mqtt {
                mqtt.stop().await;
            }
        };
        let all = async { tokio::join!(goodbye, joined) };
        if join.is_err() || tokio::time::timeout_at(deadline.into(), all).await.is_err() {
            tracing::warn!("not everything stopped in time");
        }
    }

    /// Where the sound is; counts are the process's.
    pub(super) fn heard(&self) -> Heard {
        let (now, before) = (self.audio.heard(), &self.before);
        Heard {
            music_frames: before.music_frames + now.music_frames,
            underrun_frames: before.underrun_frames + now.underrun_frames,
            xruns: before.xruns + now.xruns,
            ..now
        }
    }

    /// Gives the sound path up, hanging or not, and starts another.
    pub(super) fn restart_audio(&mut self) -> anyhow::Result<()> {
        self.before = self.heard();
        let new = start_audio(&self.sound, &self.store.objects(), &self.inbox)?;
        new.listen_to(self.tape.clone());
        std::mem::replace(&mut self.audio, new).abandon();
        Ok(())
    }

    /// Tunes in to a station, or out.
    pub(super) fn tune(&mut self, station: Option<Station>) {
        self.radio.be_still();
        self.tape = station.map(|station| {
            let (entry, inbox) = (station.entry, self.inbox.clone());
            self.radio.tune(station, move |air: Air| {
                let inbox = inbox.clone();
                async move { drop(inbox.send(News::Input(Input::Air { entry, air })).await) }
            })
        });
        self.audio.listen_to(self.tape.clone());
    }

    /// The period of the device is to be at least so long.
    pub(super) fn lengthen_period(&mut self, ms: u32) {
        tracing::warn!("the period of the sound device is made {ms} ms");
        self.sound.lengthen_period(ms);
        self.audio.lengthen_period(ms);
    }

    /// Removes an object that is torn; a fetch of it that is asked for after this one comes after this one.
    pub(super) fn remove(&self, digest: Digest) {
        let objects = self.store.objects();
        tokio::task::spawn_local(async move { objects.remove_later(digest).await });
    }

    pub(super) fn show(&mut self, view: View) {
        let before = std::mem::replace(&mut self.view, view.clone());
        let Some(panel) = &self.panel else { return };
        if let (Some(covers), Some(digest)) = (&panel.covers, view.cover.filter(|_| view.cover != before.cover)) {
            let (covers, objects, fetcher) = (covers.clone(), self.store.objects(), self.fetcher.clone());
            tokio::task::spawn_local(async move {
                match panel::cover(digest, &objects, &fetcher).await {
                    Ok(cover) => covers.put(cover),
                    Err(why) => tracing::info!("cover {digest}: {why}"),
                }
            });
        }
        panel.handle.show(view);
    }

    /// Whether it is night, for the panel; while the time is not known it is day.
    pub(super) fn clock(&self, unix: UnixMs, synced: bool) {
        let (Some(panel), Some(night)) = (&self.panel, self.config.board.night) else { return };
        panel.handle.dim(synced && clock::minute_of_day(unix).is_some_and(|minute| night.has(minute)));
    }

    /// Carries out a wish; the answer comes as news.
    pub(super) fn fetch(&self, wish: Wish) -> AbortHandle {
        let (fetcher, inbox) = (self.fetcher.clone(), self.inbox.clone());
        tokio::task::spawn_local(async move {
            let range = wish.range.map(|(offset, length)| offset..offset + u64::from(length));
            let deadline = super::duration(wish.deadline);
            let count = Count { meter: Meter::default(), inbox: Some(inbox.clone()) };
            let want = Want { object: wish.object, range, digest: wish.digest, deadline, keep: wish.keep };
            let began = tokio::time::Instant::now();
            let got = fetcher.fetch_counted(want, &count.meter).await;
            let (arrival, sample) = match got {
                Ok(f) => {
                    // Of a segment that came in parts only the last was timed: the others count at its pace.
                    let took = f.took.mul_f64(f.bytes.len() as f64 / f.came.max(1) as f64);
                    let took = Span(took.as_micros().max(1) as u64);
                    let sample = f.origin.map(|_| Sample { bytes: f.bytes.len() as u32, took });
                    (Ok(wish.read.then(|| f.bytes.to_vec())), sample)
                }
                Err(fault) => {
                    tracing::info!("{}: {fault}", wish.object);
                    let reason = fault.reason();
                    // Time ran out on a slow link: that tells how slow it is, and the next request goes on behind what came.
                    let moved = Some(count.meter.came()).filter(|n| *n > 0 && reason == Reason::Timeout);
                    let took = Span(began.elapsed().as_micros().max(1) as u64);
                    (Err(reason), moved.map(|bytes| Sample { bytes: bytes as u32, took }))
                }
            };
            let received = count.end();
            let _ = inbox.send(News::Input(Input::Fetched { id: wish.id, arrival, sample, received })).await;
        })
        .abort_handle()
    }

    /// Whether the office can be reached; the answer comes as news.
    pub(super) fn probe(&self) {
        let (fetcher, inbox) = (self.fetcher.clone(), self.inbox.clone());
        tokio::task::spawn_local(async move {
            let up = fetcher.probe(PROBE_DEADLINE).await.is_ok();
            let _ = inbox.send(News::Input(Input::Link { up })).await;
        });
    }

    /// The kernel says that the network has changed: what was learned before is worth nothing.
    pub(super) fn network(&self, ways: Ways, change: Change) {
        self.fetcher.renew();
        if let Some(mqtt) = &self.mqtt {
            let named = &self.config.office.interfaces;
            let better = |now: &str| named.iter().take_while(|i| *i != now).any(|i| ways.leads_by(i));
            mqtt.network(|address| {
                // A better interface that came is taken.
                ways.keep(address) && !(change.gained && ways.interface_of(address).is_some_and(better))
            });
            if change.gained && ways.are_there() {
                mqtt.link_up();
            }
        }
        *self.ways.borrow_mut() = ways;
    }

    /// The link came back: connections and grudges of before are worth nothing.
    pub(super) fn renew(&self) {
        self.fetcher.renew();
        self.radio.link_up();
        if let Some(mqtt) = &self.mqtt {
            mqtt.link_up();
        }
    }

    pub(super) fn search(&self, token: u64, text: String, limit: usize, offset: usize) {
        let (catalogue, inbox) = (self.catalogue.clone(), self.inbox.clone());
        let objects = self.store.objects();
        tokio::task::spawn_local(async move {
            let hits = match catalogue.search(&text, limit as u32, offset as u32).await {
                // Nothing found in nothing: it is still on its way.
                Ok(hits) if hits.total == 0 && tracks(&catalogue).await.is_none() => None,
                Ok(hits) => Some((hits.rows, hits.total.into())),
                Err(e) => none(&e),
            };
            found(&inbox, &objects, token, hits).await;
        });
    }

    pub(super) fn lookup(&self, token: u64, track: TrackId) {
        let (catalogue, inbox) = (self.catalogue.clone(), self.inbox.clone());
        let objects = self.store.objects();
        tokio::task::spawn_local(async move {
            let hits = match catalogue.by_id(track).await {
                Ok(None) if tracks(&catalogue).await.is_none() => None,
                Ok(row) => Some((row.into_iter().collect(), 1)),
                Err(e) => none(&e),
            };
            found(&inbox, &objects, token, hits).await;
        });
    }

    pub(super) fn list(&self, token: u64, list: List, seed: Option<u64>, offset: u32, limit: u32) {
        let (catalogue, inbox) = (self.catalogue.clone(), self.inbox.clone());
        tokio::task::spawn_local(async move {
            let list = match catalogue.list(list, seed, offset, limit).await {
                Ok(Some(list)) if list.total == 0 && tracks(&catalogue).await.is_none() => None,
                Ok(list) => list,
                Err(e) => none(&e),
            };
            let _ = inbox.send(News::Input(Input::Listed { token, list })).await;
        });
    }

    /// Looks at the library's root now and again, at the first catalogue more often.
    pub(super) fn refresh_catalogue(&mut self) {
        let (catalogue, fetcher, inbox) = (self.catalogue.clone(), self.fetcher.clone(), self.inbox.clone());
        let task = tokio::task::spawn_local(async move {
            let mut state = exchange::Catalogue { tracks: tracks(&catalogue).await, ..Default::default() };
            loop {
                let (news, began, first) = (inbox.clone(), Instant::now(), state.tracks.is_none());
                let mut shown = state.clone();
                let refreshed = catalogue.refresh(&fetcher, REFRESH_DEADLINE, |p| {
                    shown.fetched_pct = (p.bytes * 100 / p.bytes_total.max(1)).min(100) as u8;
                    shown.kbps = (p.bytes * 8 / (began.elapsed().as_millis().max(1) as u64)) as u32;
                    if first {
                        // News of progress is replaced by the next.
                        let _ = news.try_send(News::Input(Input::Catalogue(shown.clone())));
                    }
                });
                outcome(&mut state, refreshed.await);
                state.tracks = tracks(&catalogue).await;
                state.playlists = catalogue.playlists().await.unwrap_or_default();
                let wait = if state.tracks.is_none() { REFRESH_FIRST } else { REFRESH };
                let _ = inbox.send(News::Input(Input::Catalogue(state.clone()))).await;
                tokio::time::sleep(wait.mul_f64(0.75 + chance() / 2.0)).await;
            }
        });
        if let Some(before) = self.refreshing.replace(task.abort_handle()) {
            before.abort();
        }
    }

    fn listen_to_the_kernel(&self) {
        let (inbox, ways) = (self.inbox.clone(), self.ways.clone());
        tokio::task::spawn_local(async move {
            let listened = async {
                let mut kernel = Netlink::open().await?;
                *ways.borrow_mut() = kernel.ways().clone();
                loop {
                    let change = kernel.next().await?;
                    if inbox.send(News::Network(kernel.ways().clone(), change)).await.is_err() {
                        return Ok::<(), std::io::Error>(());
                    }
                }
            };
            if let Err(e) = listened.await {
                tracing::warn!("the kernel does not tell of the network: {e}; it takes a probe to see that it is back");
            }
        });
    }

    /// Looks at clock, hours and machine from now on.
    pub(super) fn look_around_for_ever(&mut self) {
        let (fetcher, inbox, ways) = (self.fetcher.clone(), self.inbox.clone(), self.ways.clone());
        let machine = self.machine();
        let mut card = machine.objects.trouble();
        let (fallback, clock) = (self.config.fallback.clone(), self.clock.clone());
        let mut metered = Metered::new(&self.config.office);
        let task = tokio::task::spawn_local(async move {
            loop {
                jukebox_board::rt::trim();
                let by = fetcher.interface().or_else(|| ways.borrow().leads_out().map(str::to_owned));
                fetcher.metered(by.as_deref().is_some_and(|name| metered.has(name)));
                let (unix, synced) = clock.look(fetcher.office_date());
                let _ = inbox.send(News::Input(Input::Clock { unix, synced })).await;
                let here = fallback.local(unix).filter(|_| synced);
                machine.day.set(here.as_ref().and_then(clock::day));
                if let Some(here) = here {
                    let _ = inbox.send(News::Input(Input::Hours { open: fallback.hours.are_open(&here) })).await;
                }
                let _ = inbox.send(News::Input(Input::Traffic { carried: metered.carried(), by })).await;
                let full = card.borrow_and_update().is_some();
                let _ = inbox.send(News::Input(Input::Vitals(machine.look()))).await;
                if full {
                    machine.objects.settle_later().await;
                }
                metered.ask().await;
                // The office's date comes with the first answer, and a card may have room again: look soon.
                let pause = if synced && !full { LOOK_AROUND } else { Duration::from_secs(2) };
                // News of the card are told at once. Whoever tells them lives as long as `machine`.
                let _ = tokio::time::timeout(pause, card.changed()).await;
            }
        });
        if let Some(before) = self.looking.replace(task.abort_handle()) {
            before.abort();
        }
    }

    /// Notes whether the card takes the state. News of it is told at once, with a fresh look at the machine.
    pub(super) fn disk_trouble(&self, trouble: Option<Reason>) {
        if self.state_trouble.replace(trouble) != trouble {
            let _ = self.inbox.try_send(News::Input(Input::Vitals(self.machine().look())));
        }
    }

    fn machine(&self) -> Machine {
        Machine {
            fetcher: self.fetcher.clone(),
            objects: self.store.objects(),
            cache: self.config.store.cache.clone(),
            state_trouble: self.state_trouble.clone(),
            day: self.day.clone(),
            written_at_start: self.written_at_start,
        }
    }
}

/// The machine under the player, as far as one can look at it; a cheap clone.
#[derive(Clone)]
struct Machine {
    fetcher: Fetcher,
    objects: Objects,
    cache: PathBuf,
    /// Why the card does not take the state.
    state_trouble: Rc<Cell<Option<Reason>>>,
    /// Days since 1970, once they are known.
    day: Rc<Cell<Option<u32>>>,
    written_at_start: u64,
}

impl Machine {
    fn look(&self) -> Vitals {
        let free = rustix::fs::statvfs(&self.cache).ok().map(|s| s.f_bavail * s.f_frsize / 1_000_000);
        let state = |s| match s {
            OriginState::Ok => "ok",
            OriginState::Slow => "slow",
            OriginState::Failing => "failing",
            OriginState::Lying => "lying",
        };
        let origin = |o: crate::fetch::OriginHealth| Origin { url: o.url, state: state(o.state).into() };
        let machine = jukebox_board::vitals::Vitals::look();
        let objects = *self.objects.trouble().borrow();
        Vitals {
            cpu_c: machine.cpu_c,
            throttled: machine.throttled,
            disk_free_mb: free,
            written: written_bytes().map(|b| b.saturating_sub(self.written_at_start)),
            day: self.day.get(),
            disk: self.state_trouble.get().or(objects.map(ObjectError::reason)),
            origins: self.fetcher.origins().into_iter().map(origin).collect(),
        }
    }
}

/// Keeps small what counts as the player's memory.
async fn forget_for_ever() {
    let Ok(pages) = jukebox_board::rt::CleanPages::find() else { return };
    loop {
        tokio::time::sleep(FORGET).await;
        pages.forget();
    }
}

/// Counts what comes for one wish; what came for one that is given up is told as wasted.
struct Count {
    meter: Meter,
    inbox: Option<mpsc::Sender<News>>,
}

impl Count {
    fn end(mut self) -> u64 {
        self.inbox = None;
        self.meter.bytes()
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take().filter(|_| self.meter.bytes() > 0) {
            // A full inbox loses a few bytes of a count, nothing else.
            let _ = inbox.try_send(News::Input(Input::Wasted { bytes: self.meter.bytes() }));
        }
    }
}

/// Tracks that can be searched; none before the first fetch.
async fn tracks(catalogue: &Catalogue) -> Option<u64> {
    catalogue.count().await.ok().filter(|&n| n > 0).map(u64::from)
}

fn none<T>(e: &catalogue::CatalogueError) -> Option<T> {
    tracing::warn!("{e}");
    None
}

/// Sends hits, with those that are on disk.
async fn found(inbox: &mpsc::Sender<News>, objects: &Objects, token: u64, hits: Option<(Vec<Row>, u64)>) {
    let rows = hits.iter().flat_map(|h| &h.0);
    // Of most tracks not even the record is here: that costs no look at the card.
    let some: Vec<_> = rows.filter(|r| objects.has(&r.record)).map(|r| (r.id, r.record)).collect();
    let mut on_board = Vec::new();
    if !some.is_empty() {
        let objects = objects.clone();
        let whole = move || some.into_iter().filter(|(_, record)| objects.holds(record)).map(|(id, _)| id).collect();
        on_board = tokio::task::spawn_blocking(whole).await.unwrap_or_default();
    }
    let _ = inbox.send(News::Input(Input::Found { token, hits, on_board })).await;
}

/// What a refresh says about the catalogue.
fn outcome(state: &mut exchange::Catalogue, refreshed: Result<Refreshed, RefreshError>) {
    (state.reason, state.refused, state.newer) = (None, None, false);
    match refreshed {
        Ok(Refreshed::Unchanged) => {}
        Ok(Refreshed::Changed { root, tracks, .. }) => {
            tracing::info!("library revision {}: {tracks} tracks", root.revision);
            state.library = Some(KnownLibrary { id: root.library, revision: root.revision });
        }
        Err(e) => {
            tracing::warn!("{e}");
            match e {
                RefreshError::Fetch(fault) => state.reason = Some(fault.reason()),
                RefreshError::Newer { .. } => state.newer = true,
                RefreshError::OtherLibrary { .. } | RefreshError::LowerRevision { .. } => {
                    state.refused = Some(e.to_string());
                }
                RefreshError::Broken(_) => state.reason = Some(Reason::Lying),
                RefreshError::Catalogue(_) => state.reason = Some(Reason::DiskFull),
            }
        }
    }
}

fn start_audio(settings: &audio::Settings, objects: &Objects, inbox: &mpsc::Sender<News>) -> anyhow::Result<Audio> {
    let (objects, tell) = (objects.clone(), inbox.clone());
    let read = move |d: &Digest| objects.read(d);
    let tell = move |report| {
        let _ = tell.blocking_send(News::Input(Input::Report(report)));
    };
    Audio::start(settings.clone(), read, tell).context("the decoder thread does not start")
}

fn audio_settings(config: &Config, profile: Option<&Profile>) -> anyhow::Result<audio::Settings> {
    let outputs = config.output.in_order(profile).iter().map(|o| o.parse()).collect::<Result<Vec<_>, _>>()?;
    let rate = match config.output.rate {
        Rate::Follow => RateRule::Follow,
        Rate::Fixed(hz) => RateRule::Fixed(hz),
    };
    Ok(audio::Settings { outputs, rate, period_ms: config.output.period_ms, start_ramp_ms: START_RAMP_MS })
}

/// How much of the disk the store may take.
pub(super) fn limits(config: &Config) -> Limits {
    Limits { cap_bytes: config.store.size_mb * 1_000_000, floor_bytes: config.store.floor_mb * 1_000_000 }
}

pub(super) fn settings(config: &Config, model: String) -> Settings {
    let office = config.office.origins.first().cloned().unwrap_or_default();
    Settings {
        player: config.office.player.clone(),
        name: config.name.clone(),
        site: config.office.site.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        model,
        serial: config::device_tree("serial-number").unwrap_or_default(),
        config: config.digest(),
        office,
        insecure: config.office.insecure,
        broker: config.mqtt.is_some(),
        volume_max: config.output.volume_max,
        first_volume: config.output.first_volume,
        loudness_lufs: config.output.loudness_lufs,
        crossfade: Span::s(config.output.crossfade_s.into()),
        fixed_rate: config.output.rate != config::Rate::Follow,
        ahead: Span::s(u64::from(config.store.ahead_min) * 60),
        original_only: config.store.renditions == Renditions::Original,
        fallback: FallbackSettings {
            playlist: config.fallback.playlist.clone(),
            shuffle: config.fallback.shuffle,
            when_waiting: config.fallback.while_waiting,
            when_empty: config.fallback.when_empty == WhenEmpty::Fallback,
        },
        idle_close: Span::s(u64::from(config.output.idle_close_min) * 60),
        home_assistant: config.mqtt.as_ref().is_some_and(|m| m.home_assistant),
        write_budget: config.store.write_mb_day * 1_000_000,
        history_keep: Span::s(u64::from(config.history.keep_days) * 86_400),
        streams: config.streams.allow.clone(),
    }
}

pub(super) fn start_mqtt(
    config: &Config,
    m: &config::Mqtt,
    dialer: Dialer,
    tls: Option<rustls::ClientConfig>,
    inbox: &mpsc::Sender<News>,
) -> Mqtt {
    let (events, mut come) = mpsc::channel(mqtt::INBOX);
    let to = inbox.clone();
    tokio::task::spawn_local(async move {
        while let Some(e) = come.recv().await {
            // While the player stops nobody listens any more, and the link still has to say goodbye.
            let _ = to.send(News::Mqtt(e)).await;
        }
    });
    let pace = mqtt::Pace { spread_ms: u64::from(m.spread_s) * 1_000, ..mqtt::Pace::default() };
    Mqtt::start_paced(mqtt::Settings::new(config, m, dialer, tls), pace, events)
}

pub(super) fn listen(config: &Config, inbox: &mpsc::Sender<News>) -> anyhow::Result<Socket> {
    let (asks, mut come) = mpsc::channel(16);
    let to = inbox.clone();
    tokio::task::spawn_local(async move {
        while let Some(ask) = come.recv().await {
            if to.send(News::Ask(ask)).await.is_err() {
                return;
            }
        }
    });
    Ok(socket::listen(&config.socket.path, asks)?)
}

fn start_panel(config: &Config, args: &RunArgs, profile: Option<&Profile>) -> anyhow::Result<Option<panel::Running>> {
    let keys = config.board.buttons == config::Buttons::Keyboard;
    let mut below: Vec<String> = if keys { HELP.map(Into::into).to_vec() } else { Vec::new() };
    if keys && !args.below.is_empty() {
        below.push(String::new());
    }
    below.extend(args.below.iter().cloned());
    panel::start(&config.board, profile, below)
}

/// The buttons of the board. Without them the player plays all the same.
fn start_buttons(config: &Config, profile: Option<&Profile>, inbox: &mpsc::Sender<News>) -> Option<Buttons> {
    let pins = profile?.buttons.as_ref().filter(|_| config.board.buttons == config::Buttons::Board)?;
    let to = inbox.clone();
    let tell = move |edge| {
        let _ = to.blocking_send(News::Input(Input::Edge(edge)));
    };
    match Buttons::start(pins, config.board.gpiochip.as_deref(), tell) {
        Ok(buttons) => {
            tracing::info!("buttons through {}", buttons.how());
            Some(buttons)
        }
        Err(fault) => {
            tracing::error!("{fault}");
            None
        }
    }
}

fn start_keyboard(config: &Config, inbox: &mpsc::Sender<News>) -> anyhow::Result<Option<Keyboard>> {
    if config.board.buttons != config::Buttons::Keyboard {
        return Ok(None);
    }
    let to = inbox.clone();
    let keyboard = Keyboard::start(move |key| {
        let news = match key {
            Key::Edge(edge) => News::Input(Input::Edge(edge)),
            Key::Quit => News::End,
        };
        let _ = to.blocking_send(news);
    });
    keyboard.context("the keyboard cannot be used")
}

fn forward_signals(config: &Config, inbox: &mpsc::Sender<News>) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("signals")?;
    let to = inbox.clone();
    // In a terminal SIGHUP says that the terminal is gone.
    let terminal = config.board.panel == config::Panel::Terminal || config.board.buttons == config::Buttons::Keyboard;
    tokio::task::spawn_local(async move {
        while signals.come().await == Signal::Reload && !terminal {
            let _ = to.send(News::Reload).await;
        }
        let _ = to.send(News::End).await;
    });
    Ok(())
}

/// Bytes that this process has caused to be written to a disk (proc(5), /proc/pid/io).
fn written_bytes() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|l| l.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

fn model() -> String {
    config::device_tree("model").unwrap_or_else(|| "unknown board".into())
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Seeded by the system; good enough for names and jitter.
    std::hash::RandomState::new().build_hasher().finish()
}

fn random_hex() -> String {
    format!("{:016x}", random())
}
