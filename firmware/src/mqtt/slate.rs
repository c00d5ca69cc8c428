//! What is to be said. It outlives connections: state is said again after each connect, replies and events wait.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jukebox_core::homeassistant::PREFIX;
use rumqttc::ManualAck;
use tokio::sync::{Notify, watch};

/// Replies and acknowledgements that wait; of more the oldest reply goes (whoever waits for it asks again).
const MAX_OUT: usize = 256;
/// Events that wait here: more than the outbox holds.
const MAX_EVENTS: usize = 1024;

/// Where an answer goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyTo {
    /// The whole topic, which core has checked; none for `P/reply`.
    pub topic: Option<String>,
    /// As the command had it.
    pub correlation: Option<Bytes>,
}

/// Acknowledges one command to the connection that it came over.
pub struct AckToken {
    pub(super) connection: u64,
    /// None for QoS 0, which needs none.
    pub(super) ack: Option<ManualAck>,
}

impl fmt::Debug for AckToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AckToken of connection {}", self.connection)
    }
}

pub(super) struct Shared {
    /// `P`.
    pub(super) prefix: String,
    /// Names this process: part of each `online`.
    boot: String,
    slate: Mutex<Slate>,
    /// Something is on the slate; the connection waits for it.
    pub(super) wake: Notify,
    pub(super) link_up: Notify,
    /// The connection is dead, whatever it looks like.
    pub(super) cut: Notify,
    /// Our end's address of the connection.
    local: Mutex<Option<IpAddr>>,
    pub(super) stopped: Notify,
    stop: watch::Sender<bool>,
}

#[derive(Default)]
struct Slate {
    state: BTreeMap<String, Retained>,
    out: VecDeque<Out>,
    events: VecDeque<Waiting>,
    /// This process has said `online`.
    said_online: bool,
    /// The last `online` of another process that was found on connecting.
    rival: Option<String>,
}

struct Retained {
    payload: Bytes,
    /// Not yet said on this connection.
    due: bool,
}

enum Out {
    Reply(ReplyTo, Bytes),
    Ack(AckToken),
}

#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) key: u64,
    pub(super) kind: String,
    pub(super) payload: Bytes,
}

/// What to say next.
pub(super) enum Next {
    Reply(ReplyTo, Bytes),
    Ack(ManualAck),
    State(String, Bytes),
}

impl Shared {
    pub(super) fn new(prefix: String) -> Self {
        Self {
            prefix,
            boot: format!("{:016x}", super::random()),
            slate: Mutex::default(),
            wake: Notify::new(),
            link_up: Notify::new(),
            cut: Notify::new(),
            local: Mutex::default(),
            stopped: Notify::new(),
            stop: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slate> {
        // Nothing under the lock panics half-way through a change.
        self.slate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self, suffix: &str, payload: Bytes) {
        let mut slate = self.lock();
        match slate.state.get_mut(suffix) {
            Some(old) if old.payload == payload => return,
            Some(old) => *old = Retained { payload, due: true },
            None => drop(slate.state.insert(suffix.into(), Retained { payload, due: true })),
        }
        self.wake.notify_one();
    }

    pub(super) fn reply(&self, to: ReplyTo, payload: Bytes) {
        let mut slate = self.lock();
        if slate.out.len() >= MAX_OUT
            && let Some(oldest) = slate.out.iter().position(|o| matches!(o, Out::Reply(..)))
        {
            slate.out.remove(oldest);
        }
        slate.out.push_back(Out::Reply(to, payload));
        self.wake.notify_one();
    }

    pub(super) fn ack(&self, token: AckToken) {
        // No more of them than the broker has commands on the way.
        self.lock().out.push_back(Out::Ack(token));
        self.wake.notify_one();
    }

    pub(super) fn event(&self, key: u64, kind: &str, payload: Bytes) {
        let mut slate = self.lock();
        if slate.events.iter().any(|e| e.key == key) {
            return;
        }
        if slate.events.len() >= MAX_EVENTS {
            slate.events.pop_front();
        }
        slate.events.push_back(Waiting { key, kind: kind.into(), payload });
        self.wake.notify_one();
    }

    /// Our end's address of the connection, if there is one.
    pub(super) fn local(&self) -> Option<IpAddr> {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_local(&self, address: Option<IpAddr>) {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// A new connection: all state is to be said, and acknowledgements to an earlier one mean nothing.
    pub(super) fn begin(&self, connection: u64) {
        let slate = &mut *self.lock();
        slate.state.values_mut().for_each(|r| r.due = true);
        slate.out.retain(|o| !matches!(o, Out::Ack(t) if t.connection != connection));
    }

    /// Names this process and connection, as a property of `online`.
    pub(super) fn signature(&self, connection: u64) -> String {
        format!("{}-{connection}", self.boot)
    }

    pub(super) fn said_online(&self) {
        self.lock().said_online = true;
    }

    /// Whether another process uses our name, judged by the signature of the `online` that was found on connecting: it came
    /// after ours, and it is not the one that was found the last time (whoever wrote that did not come back when we took
    /// the connection away, and is gone).
    pub(super) fn is_taken(&self, found: Option<String>) -> bool {
        let slate = &mut *self.lock();
        let rival = found.filter(|signature| !signature.starts_with(&self.boot));
        let taken = slate.said_online && rival.is_some() && rival != slate.rival;
        slate.rival = rival;
        taken
    }

    /// Whether Home Assistant is told about the player.
    pub(super) fn describes(&self) -> bool {
        self.lock().state.keys().any(|topic| topic.starts_with(PREFIX))
    }

    /// Home Assistant has started: it is told again.
    pub(super) fn describe_again(&self) {
        self.lock().state.iter_mut().filter(|(topic, _)| topic.starts_with(PREFIX)).for_each(|(_, r)| r.due = true);
        self.wake.notify_one();
    }

    /// State that is still to be said.
    pub(super) fn next_state(&self) -> Option<(String, Bytes)> {
        let mut slate = self.lock();
        let (suffix, retained) = slate.state.iter_mut().find(|(_, r)| r.due)?;
        retained.due = false;
        Some((suffix.clone(), retained.payload.clone()))
    }

    /// Replies and acknowledgements in their order first: somebody waits for them.
    pub(super) fn next(&self, connection: u64) -> Option<Next> {
        loop {
            let Some(out) = self.lock().out.pop_front() else {
                return self.next_state().map(|(suffix, payload)| Next::State(suffix, payload));
            };
            match out {
                Out::Reply(to, payload) => return Some(Next::Reply(to, payload)),
                Out::Ack(AckToken { connection: of, ack: Some(ack) }) if of == connection => {
                    return Some(Next::Ack(ack));
                }
                Out::Ack(_) => {}
            }
        }
    }

    pub(super) fn front_event(&self) -> Option<Waiting> {
        self.lock().events.front().cloned()
    }

    pub(super) fn event_done(&self, key: u64) {
        self.lock().events.retain(|e| e.key != key);
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
        self.wake.notify_one();
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns once the stop was asked for.
    pub(super) async fn stopping(&self) {
        // The sender lives as long as we do.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}
