//! The task that owns [`Jukebox`]: take an input, handle, drain, dispatch.
//!
//! Data flows *towards* the driver, through one bounded channel; the driver never waits for a task. A full channel makes
//! those who send wait (threads) or count (tasks whose news is replaced by newer news anyway).

mod alarm;
mod parts;
mod reload;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use jukebox_core::exchange::{Incoming, Input, Output, Source, Topic};
use jukebox_core::heal::Step;
use jukebox_core::jukebox::Jukebox;
use jukebox_core::sound::Report;
use jukebox_core::time::{Instant, Span};
use jukebox_core::wire;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::cli::RunArgs;
use crate::config::{Config, ConfigError};
use crate::{mqtt, netlink, socket, store, systemd};
use alarm::Alarm;
use parts::Parts;

/// News that may wait for the driver.
const INBOX: usize = 1_024;
/// Inputs handled before the loop looks at its timers again.
const BATCH: usize = 64;
/// The whole stop: last writes, fade, goodbye; systemd kills after 5 s.
const STOP_WITHIN: Duration = Duration::from_millis(1_500);
/// The same for a player that is mute and has to be back soon.
const STOP_MUTE_WITHIN: Duration = Duration::from_millis(400);
/// The part of it that a slow card may take before the fade begins.
const SAVE_WITHIN: Duration = Duration::from_millis(1_000);

/// What comes to the driver.
pub(crate) enum News {
    /// For the core, as it is.
    Input(Input),
    /// From the command line.
    Ask(socket::Ask),
    /// From the broker.
    Mqtt(mqtt::Event),
    /// From the store.
    Store(store::Done),
    /// The configuration is to be read again.
    Reload,
    /// It was read.
    Fresh(Result<Box<reload::Fresh>, ConfigError>),
    /// The kernel says that the network has changed.
    Network(netlink::Ways, netlink::Change),
    /// Somebody left the keyboard, or a signal came.
    End,
}

/// Whom a reply goes to.
enum ReplyTo {
    Socket(oneshot::Sender<String>),
    Mqtt(mqtt::ReplyTo, mqtt::AckToken),
}

/// Runs the player until it is told to end.
pub fn run(config: &Config, args: &RunArgs) -> anyhow::Result<()> {
    jukebox_board::rt::thrifty();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let local = tokio::task::LocalSet::new();
    let ended = local.block_on(&runtime, async {
        let (inbox, news) = mpsc::channel(INBOX);
        let (parts, jukebox) = Parts::start(config, args, inbox)?;
        let driver = Driver {
            began: parts.began,
            jukebox,
            parts,
            tokens: 0,
            waiting: HashMap::new(),
            ticket: 0,
            committed: 0,
            held: Vec::new(),
            offer: None,
            fetches: HashMap::new(),
            watchers: Vec::new(),
            now_json: String::new(),
            reached: true,
            ending: false,
            mute: false,
            broker: Some("connecting".into()),
            systemd: systemd::Systemd::new(),
        };
        driver.run(news).await
    });
    drop(local);
    // A look-up of a name may hang for many seconds: nobody waits for it.
    runtime.shutdown_background();
    ended
}

struct Driver {
    began: std::time::Instant,
    jukebox: Jukebox,
    parts: Parts,
    tokens: u64,
    waiting: HashMap<u64, ReplyTo>,
    /// Hand-overs to the store so far, and those that are durable.
    ticket: u64,
    committed: u64,
    /// Replies that wait for a ticket.
    held: Vec<(u64, u64, String)>,
    /// The event for the broker that waits for a ticket.
    offer: Option<(u64, u64, String, String)>,
    fetches: HashMap<u64, AbortHandle>,
    watchers: Vec<mpsc::Sender<String>>,
    now_json: String,
    /// What the last probe said.
    reached: bool,
    ending: bool,
    /// It ends because it does not sound.
    mute: bool,
    /// Why the broker is not connected; none if it is.
    broker: Option<String>,
    systemd: systemd::Systemd,
}

impl Driver {
    async fn run(mut self, mut news: mpsc::Receiver<News>) -> anyhow::Result<()> {
        let mut alarm = Alarm::new().context("no timer")?;
        self.dispatch();
        self.systemd.ready();
        while !self.ending {
            let due = self.jukebox.poll_timeout().map(|t| self.began + Duration::from_micros(t.0));
            let feed = self.systemd.every().map(|e| std::time::Instant::now() + e / 2);
            let wake = [due, feed].into_iter().flatten().min();
            let wake = wake.unwrap_or_else(|| std::time::Instant::now() + Duration::from_secs(3_600));
            alarm.set(wake).context("the timer cannot be set")?;
            let first = tokio::select! {
                n = news.recv() => n,
                () = alarm.rings() => Some(News::Input(Input::Tick)),
            };
            let Some(first) = first else { break };
            self.listen();
            self.take(first);
            for _ in 1..BATCH {
                let Ok(more) = news.try_recv() else { break };
                self.take(more);
            }
            self.systemd.status(&self.jukebox.sentence());
            self.systemd.turned(self.parts.heard().music_frames, self.jukebox.should_move());
        }
        self.systemd.stopping();
        let mute = self.mute;
        self.stop(news).await;
        anyhow::ensure!(!mute, "no frame leaves the DAC, and nothing helped");
        Ok(())
    }

    /// Fades out, saves, says goodbye: within [`STOP_WITHIN`], whatever the card and the broker do.
    async fn stop(mut self, mut news: mpsc::Receiver<News>) {
        // A sound path that hangs is not waited for.
        let within = if self.mute { STOP_MUTE_WITHIN } else { STOP_WITHIN };
        let deadline = std::time::Instant::now() + within;
        self.listen();
        self.handle(Input::Shutdown);
        let last = self.ticket;
        let saved = async {
            while self.committed < last {
                match news.recv().await {
                    Some(News::Store(done)) => self.stored(done),
                    Some(_) => {}
                    None => break,
                }
            }
        };
        if timeout(SAVE_WITHIN.min(within), saved).await.is_err() {
            tracing::warn!("the card did not take the last changes in time");
        }
        // From here on nobody takes news: without this a thread that has some would wait for ever, and we for the thread.
        drop(news);
        self.parts.stop(deadline).await;
    }

    fn now(&self) -> Instant {
        Instant(self.began.elapsed().as_micros() as u64)
    }

    /// Decisions see where the sound is: a fresh look goes first.
    fn listen(&mut self) {
        if self.jukebox.listens() {
            let heard = self.parts.heard();
            self.handle(Input::Heard(heard));
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Input(Input::Link { up }) => {
                if up && !std::mem::replace(&mut self.reached, up) {
                    // What was learned before the link came back is worth nothing.
                    self.parts.renew();
                }
                self.reached = up;
                self.handle(Input::Link { up });
            }
            News::Input(input @ Input::Fetched { id, .. }) => {
                self.fetches.remove(&id);
                self.handle(input);
            }
            News::Input(input) => {
                if let Input::Clock { unix, synced } = input {
                    self.parts.clock(unix, synced);
                }
                if let Input::Report(Report::Torn { digest, .. }) = input {
                    tracing::warn!("{digest}: torn on disk, fetched again");
                    self.parts.remove(digest);
                }
                self.handle(input);
            }
            News::Network(ways, change) => {
                let up = ways.are_there();
                tracing::info!("network: {}", if up { "another way out" } else { "no way out" });
                self.parts.network(ways, change);
                self.handle(Input::Network { up });
            }
            News::Store(done) => self.stored(done),
            News::Mqtt(event) => self.mqtt(event),
            News::Ask(ask) => self.asked(ask),
            News::Reload => self.read_again(),
            News::Fresh(read) => {
                let reload = self.parts.reload(read);
                self.handle(Input::Reloaded(reload));
                self.systemd.ready();
            }
            News::End => self.ending = true,
        }
    }

    /// Reads the configuration on a thread of its own: the card may stall.
    fn read_again(&self) {
        self.systemd.reloading();
        let (path, inbox) = (self.parts.config.path.clone(), self.parts.inbox.clone());
        let clock = self.parts.clock.clone();
        tokio::task::spawn_local(async move {
            if let Ok(read) = tokio::task::spawn_blocking(move || reload::read(&path, clock)).await {
                let _ = inbox.send(News::Fresh(read)).await;
            }
        });
    }

    fn handle(&mut self, input: Input) {
        self.jukebox.handle_input(self.now(), input);
        self.dispatch();
    }

    /// Frames stand still although they should not.
    fn heal(&mut self, step: Step) {
        match step {
            Step::Reopen => {
                tracing::error!("no frame leaves the DAC: the output is opened again");
                self.parts.audio.reopen();
            }
            Step::Restart => {
                tracing::error!("no frame leaves the DAC: the sound path is started anew");
                if let Err(e) = self.parts.restart_audio() {
                    tracing::error!("{e:#}");
                }
            }
            Step::Exit => {
                tracing::error!("no frame leaves the DAC: the process ends, to be started anew");
                (self.ending, self.mute) = (true, true);
            }
        }
    }

    /// Carries out what the core wants.
    fn dispatch(&mut self) {
        while let Some(output) = self.jukebox.poll_output() {
            match output {
                Output::Order(order) => self.parts.audio.order(order),
                Output::Fetch(wish) => {
                    let id = wish.id;
                    self.fetches.insert(id, self.parts.fetch(wish));
                }
                Output::Cancel { id } => {
                    if let Some(task) = self.fetches.remove(&id) {
                        task.abort();
                    }
                }
                Output::Pin(tracks) => self.parts.store.objects().pin(&tracks),
                Output::Search { token, text, limit, offset } => self.parts.search(token, text, limit, offset),
                Output::Lookup { token, track } => self.parts.lookup(token, track),
                Output::List { token, list, seed, offset, limit } => self.parts.list(token, list, seed, offset, limit),
                Output::Save(changes) => {
                    self.ticket += 1;
                    if self.parts.store.commit(self.ticket, changes).is_err() {
                        tracing::error!("the card has not taken anything for too long");
                    }
                }
                Output::SavePosition(bytes) => self.parts.store.save_position(bytes),
                Output::Reply { token, payload, durable } if durable && self.committed < self.ticket => {
                    self.held.push((self.ticket, token, payload));
                }
                Output::Reply { token, payload, .. } => self.reply(token, payload),
                Output::Publish { topic, payload } => self.publish(topic, payload),
                Output::Describe { payload } => {
                    if let Some(mqtt) = &self.parts.mqtt {
                        mqtt.describe(payload);
                    }
                }
                Output::Event { kind, payload } => self.tell_watchers(&kind, &payload, true),
                Output::Probe => self.parts.probe(),
                Output::Offer { key, kind, payload } => {
                    self.offer = Some((self.ticket, key, kind, payload));
                    self.offer();
                }
                Output::Tune(station) => self.parts.tune(station),
                Output::Show(view) => self.parts.show(*view),
                Output::Heal(step) => self.heal(step),
                Output::Period { ms } => self.parts.lengthen_period(ms),
            }
        }
    }

    /// Hands the event to the broker that waits for it, once what it tells of is on the card.
    fn offer(&mut self) {
        if let (Some((_, key, kind, payload)), Some(mqtt)) =
            (self.offer.take_if(|o| o.0 <= self.committed), &self.parts.mqtt)
        {
            mqtt.event(key, &kind, payload);
        }
    }

    fn publish(&mut self, topic: Topic, payload: String) {
        self.tell_watchers(topic.as_str(), &payload, false);
        if let Some(mqtt) = &self.parts.mqtt {
            mqtt.state(topic.as_str(), payload.clone());
        }
        if topic == Topic::Now {
            self.now_json = payload;
        }
    }

    fn tell_watchers(&mut self, what: &str, payload: &str, event: bool) {
        let key = if event { "event" } else { "state" };
        let line = || format!(r#"{{"{key}":"{what}","data":{payload}}}"#);
        self.watchers.retain(|w| w.try_send(line()).is_ok());
    }

    fn reply(&mut self, token: u64, payload: String) {
        match self.waiting.remove(&token) {
            // Whoever asked may be gone: no news.
            Some(ReplyTo::Socket(to)) => drop(to.send(payload)),
            Some(ReplyTo::Mqtt(to, ack)) => {
                if let Some(mqtt) = &self.parts.mqtt {
                    mqtt.reply(to, payload);
                    mqtt.ack(ack);
                }
            }
            None => {}
        }
    }

    fn stored(&mut self, done: store::Done) {
        match done {
            store::Done::Committed { ticket } => {
                self.committed = self.committed.max(ticket);
                let ready: Vec<_> = self.held.extract_if(.., |h| h.0 <= ticket).collect();
                ready.into_iter().for_each(|(_, token, payload)| self.reply(token, payload));
                self.offer();
                self.parts.disk_trouble(None);
            }
            store::Done::Failed { why, .. } | store::Done::PositionFailed { why } => {
                tracing::error!("the card does not take the state: {why}");
                // It is in effect, and tried again every second; nobody is left waiting for a card that may be dead.
                let held = std::mem::take(&mut self.held);
                held.into_iter().for_each(|(_, token, payload)| self.reply(token, wire::unsaved(&payload)));
                self.offer.iter_mut().for_each(|o| o.0 = 0);
                self.offer();
                self.parts.disk_trouble(Some(why.reason()));
            }
        }
    }

    fn asked(&mut self, ask: socket::Ask) {
        match ask {
            socket::Ask::Command { verb, payload, reply } => {
                let token = self.token(ReplyTo::Socket(reply));
                self.handle(Input::Command(Incoming {
                    token,
                    source: Source::Console,
                    verb,
                    payload,
                    retained: false,
                    expired: false,
                    backlog: false,
                    for_all: false,
                    bad_response_topic: false,
                }));
            }
            socket::Ask::Status(to) => {
                let now: serde_json::Value = serde_json::from_str(&self.now_json).unwrap_or_default();
                let text = self.jukebox.sentence();
                let link = || serde_json::json!({"up": self.broker.is_none(), "why": self.broker});
                let broker = self.parts.mqtt.as_ref().map(|_| link());
                let answer = serde_json::json!({"status": "ok", "data": {"text": text, "now": now, "broker": broker}});
                drop(to.send(answer.to_string()));
            }
            socket::Ask::Panel(to) => {
                let card = jukebox_board::panel::terminal::card(&self.parts.view, false).join("\n");
                let answer = serde_json::json!({"status": "ok", "data": {"text": card}});
                drop(to.send(answer.to_string()));
            }
            socket::Ask::Watch(to) => {
                let line = format!(r#"{{"state":"now","data":{}}}"#, self.now_json);
                if to.try_send(line).is_ok() {
                    self.watchers.push(to);
                }
            }
        }
    }

    fn mqtt(&mut self, event: mqtt::Event) {
        match event {
            mqtt::Event::Up => {
                self.broker = None;
                self.handle(Input::Bots { up: true, name_taken: false })
            }
            mqtt::Event::Down { why } => {
                tracing::warn!("broker: {why}");
                self.broker = Some(why.to_string());
                self.handle(Input::Bots { up: false, name_taken: matches!(why, mqtt::Down::NameTaken) });
            }
            mqtt::Event::Delivered { key } => self.handle(Input::Delivered { key }),
            mqtt::Event::Command(c) => {
                let prefix = format!("jukebox/1/{}/reply/", self.parts.site);
                let topic = c.reply_to.topic.as_deref();
                let bad_response_topic =
                    topic.is_some_and(|t| !t.starts_with(&prefix) || t.contains(['+', '#', '\0']) || t == prefix);
                let expired = c.expired();
                let mut to = c.reply_to;
                if bad_response_topic {
                    to.topic = None;
                }
                let token = self.token(ReplyTo::Mqtt(to, c.ack));
                self.handle(Input::Command(Incoming {
                    token,
                    source: Source::Mqtt,
                    verb: c.verb,
                    payload: c.payload.to_vec(),
                    retained: c.retained,
                    expired,
                    backlog: c.backlog,
                    for_all: c.all,
                    bad_response_topic,
                }));
            }
        }
    }

    fn token(&mut self, to: ReplyTo) -> u64 {
        self.tokens += 1;
        self.waiting.insert(self.tokens, to);
        self.tokens
    }
}

/// A core span as the system's.
pub(crate) fn duration(s: Span) -> Duration {
    Duration::from_micros(s.0)
}
