//! Commands in, state and events out: the one module that knows rumqttc.
//!
//! *Slate*: what is to be said (state by topic, replies, acknowledgements, events); it outlives connections. *Border*: the
//! player's ping to itself that tells what waited at the broker (*backlog*) from what is said now.
//!
//! Law: one event loop for each connection. After any error it is dropped and a new one is built, so that no packet id,
//! queue or half-open session of the library survives a failure; what must survive is on the slate and in the outbox. After
//! each connect: subscribe, then all state, then `online`, then the rest.

mod connection;
mod pause;
mod slate;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jukebox_core::homeassistant;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::config::{self, Config};
use crate::dial::Dialer;
use crate::fetch::Fault;
use pause::Pauses;
use slate::Shared;
pub use slate::{AckToken, ReplyTo};

/// A clean stop takes no longer than this: the service has 2 s in all.
const STOP_WITHIN: Duration = Duration::from_millis(1500);

/// Places that the inbox of [`Mqtt::start`] should have at least.
pub const INBOX: usize = 64;

/// Where and as whom to connect.
#[derive(Clone)]
pub struct Settings {
    /// The broker's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is reached.
    pub dialer: Dialer,
    /// What its certificate is checked with; none for a plain connection (whoever calls has checked that it is allowed).
    pub tls: Option<rustls::ClientConfig>,
    /// The site's id.
    pub site: String,
    /// The player's id; the client id too, so that the broker can bind topics to it.
    pub player: String,
    /// User name; the player's id if it is empty.
    pub user: String,
    /// Password; none if it is empty.
    pub password: String,
}

impl Settings {
    /// As the configuration has it; `tls` where its broker is spoken to over TLS.
    pub fn new(config: &Config, m: &config::Mqtt, dialer: Dialer, tls: Option<rustls::ClientConfig>) -> Self {
        let (host, port, secure) = m.address();
        Self {
            host,
            port,
            dialer,
            tls: tls.filter(|_| secure),
            site: config.office.site.clone(),
            player: config.office.player.clone(),
            user: m.user.clone(),
            password: m.password.as_ref().map(|p| p.reveal().to_owned()).unwrap_or_default(),
        }
    }

    /// `jukebox/1/<site>/<player>`: where all that this player says and hears lies.
    pub fn prefix(&self) -> String {
        format!("jukebox/1/{}/{}", self.site, self.player)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the password.
        write!(f, "{}:{} as {}", self.host, self.port, self.prefix())
    }
}

/// How patient the link is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The broker is asked for a sign of life after so many seconds of silence; a dead one is noticed after about twice this.
    pub keep_alive_s: u16,
    /// Bound of the first pause after a connection that failed, in milliseconds; it doubles. A pause is random up to it.
    pub first_pause_ms: u64,
    /// What all players see at the same time (the broker went away, the link came back) is answered after a random pause
    /// up to this, in milliseconds. No pause is longer than twice this.
    pub spread_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { keep_alive_s: 15, first_pause_ms: 500, spread_ms: 90_000 }
    }
}

/// What comes from the broker.
#[derive(Debug)]
pub enum Event {
    /// Connected, subscribed, and everything that is state has been said.
    Up,
    /// Not connected (any more); tried again after a back-off. Comes for every attempt that fails.
    Down {
        /// Why.
        why: Down,
    },
    /// Somebody wants something.
    Command(Command),
    /// The broker has this event, or will never take it (then the log says why): take it from the outbox.
    Delivered {
        /// As it was given to [`Mqtt::event`].
        key: u64,
    },
}

/// A command as it came; whether it is understood and obeyed is decided by core.
#[derive(Debug)]
pub struct Command {
    /// The end of the topic; may be anything.
    pub verb: String,
    /// The payload; up to 64 KiB.
    pub payload: Bytes,
    /// Where the sender wants the answer; the topic is not checked.
    pub reply_to: ReplyTo,
    /// It was published with the retain flag.
    pub retained: bool,
    /// It waited at the broker while the player was away.
    pub backlog: bool,
    /// It was sent to all players of the site.
    pub all: bool,
    /// When it is not wanted any more, if its sender said so.
    pub expires: Option<Instant>,
    /// To be given to [`Mqtt::ack`] after the answer.
    pub ack: AckToken,
}

impl Command {
    /// Whether its expiry has passed while it waited here.
    pub fn expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Down {
    /// The network or TLS.
    #[error("{0}")]
    Link(Fault),
    /// Wrong user or password, or not allowed.
    #[error("the broker refuses user or password")]
    Login,
    /// The broker takes nobody now.
    #[error("the broker is not available")]
    Unavailable,
    /// Somebody else connected with our id.
    #[error("another player uses this name")]
    NameTaken,
    /// The broker says nothing any more.
    #[error("the broker does not answer")]
    Silent,
    /// The broker does what MQTT does not allow, or refuses what we do.
    #[error("{0}")]
    Protocol(String),
    /// More commands than the inbox holds; what was not acknowledged comes again.
    #[error("more commands than can be taken")]
    Overrun,
    /// [`Mqtt::connect_to`] was called.
    #[error("connecting as newly configured")]
    Changed,
    /// [`Mqtt::stop`] was called.
    #[error("stopped")]
    Stopped,
}

/// The link to the broker, as the driver holds it; a cheap clone. Nothing of it blocks.
#[derive(Clone)]
pub struct Mqtt {
    shared: Arc<Shared>,
    settings: watch::Sender<Settings>,
}

impl Mqtt {
    /// Starts the link's task on the current runtime.
    ///
    /// At most 16 unacknowledged commands come, and messages of QoS 0 only while `inbox` has room ([`INBOX`]). If a command
    /// does not fit, the connection is built anew and the broker sends it again. State that is set before the next `await`
    /// is out before the first `online`.
    pub fn start(settings: Settings, inbox: mpsc::Sender<Event>) -> Self {
        Self::start_paced(settings, Pace::default(), inbox)
    }

    /// The same with another patience.
    pub fn start_paced(settings: Settings, pace: Pace, inbox: mpsc::Sender<Event>) -> Self {
        let shared = Arc::new(Shared::new(settings.prefix()));
        let (settings, told) = watch::channel(settings);
        tokio::spawn(run(told, pace, shared.clone(), inbox));
        Self { shared, settings }
    }

    /// Ends the connection and connects elsewhere, or as somebody else; site and player must be the same. Nothing that is
    /// still to be said is lost.
    pub fn connect_to(&self, settings: Settings) {
        self.settings.send_replace(settings);
    }

    /// Says `P/<suffix>` (retained): now, if it is new, and after each connect. Only the newest is kept for each topic.
    pub fn state(&self, suffix: &str, payload: impl Into<Bytes>) {
        self.shared.state(suffix, payload.into());
    }

    /// Describes the player to Home Assistant (retained): like state, and again when it has started.
    pub fn describe(&self, payload: impl Into<Bytes>) {
        let player = self.shared.prefix.rsplit('/').next().unwrap_or_default();
        self.shared.state(&homeassistant::topic(player), payload.into());
    }

    /// Answers a command. Kept until the broker can be reached; of 256 waiting the oldest goes.
    pub fn reply(&self, to: ReplyTo, payload: impl Into<Bytes>) {
        self.shared.reply(to, payload.into());
    }

    /// Hands over an event of the outbox. They go out in this order, one at a time; [`Event::Delivered`] with `key` (any
    /// number that names it there) comes when the broker has it. One that is here already is not taken twice. Of 1,024
    /// waiting the oldest goes: the outbox is smaller, and keeps it for the next start.
    pub fn event(&self, key: u64, kind: &str, payload: impl Into<Bytes>) {
        self.shared.event(key, kind, payload.into());
    }

    /// Acknowledges a command, after the replies that were given before. For a connection that has ended it does nothing:
    /// the command comes again.
    pub fn ack(&self, token: AckToken) {
        self.shared.ack(token);
    }

    /// The link came back: a pause is cut to a random time within the spread ([`Pace::spread_ms`]).
    pub fn link_up(&self) {
        self.shared.link_up.notify_waiters();
    }

    /// The network has changed; `keep` tells whether a connection from an address of ours may live. One that may not is ended:
    /// nobody else would tell that it is dead for half a minute.
    pub fn network(&self, keep: impl Fn(IpAddr) -> bool) {
        if self.shared.local().is_some_and(|address| !keep(address)) {
            self.shared.cut.notify_waiters();
        }
    }

    /// Says what is left, then `offline`, and disconnects; returns after at most 1.5 s.
    pub async fn stop(&self) {
        self.shared.stop();
        // Too late: the will says it for us.
        let _ = timeout(STOP_WITHIN, self.shared.stopped.notified()).await;
    }
}

/// Whether the broker lets the player in: connects as it would, and leaves again. Only for a player that does not run: two of
/// a name drive each other out.
///
/// # Errors
/// Why not.
pub async fn login(settings: &Settings, patience: Duration) -> Result<(), Down> {
    timeout(patience, connection::login(settings)).await.unwrap_or(Err(Down::Silent))
}

/// One connection after the other, until the stop.
async fn run(mut settings: watch::Receiver<Settings>, pace: Pace, shared: Arc<Shared>, inbox: mpsc::Sender<Event>) {
    let mut pauses = Pauses::new(pace);
    for number in 1.. {
        let began = Instant::now();
        let now = settings.borrow_and_update().clone();
        let (why, met) = tokio::select! {
            end = connection::connection(number, &now, pace, &shared, &inbox) => end,
            // Not heard any more where nobody holds the link: it is about to stop.
            Ok(()) = settings.changed() => (Down::Changed, false),
        };
        shared.set_local(None);
        tracing::debug!("mqtt: {why}");
        let changed = why == Down::Changed;
        let pause = pauses.after(&why, met.then(|| began.elapsed()), random());
        if why == Down::Stopped || inbox.send(Event::Down { why }).await.is_err() {
            break;
        }
        if changed {
            continue;
        }
        let mut until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                Ok(()) = settings.changed() => break,
                () = shared.link_up.notified() => {
                    if let Some(pause) = pauses.link_up(random()) {
                        until = tokio::time::Instant::now() + pause;
                    }
                }
                () = shared.stopping() => {
                    shared.stopped.notify_one();
                    return;
                }
            }
        }
    }
    shared.stopped.notify_one();
}

/// Seeded by the system; good enough to spread players out and to tell pings apart.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_shown() {
        let text = ["broker", "hq", "lobby", "lobby", "secret"].map(String::from);
        let [host, site, player, user, password] = text;
        let dialer = Dialer::new(None);
        let settings = Settings { host, port: 8883, dialer, tls: None, site, player, user, password };
        assert_eq!(format!("{settings:?}"), "broker:8883 as jukebox/1/hq/lobby");
    }
}
