//! Live radio: tunes in to a station, tapes what comes, tells what it is, and is back soon after it was gone.
//!
//! *Try*: one way to the station, from its name to the head of the answer. While nothing comes there is another try every
//! second, beside those before it, because a black hole raises no event and swallows whatever was sent into it; the first
//! that is answered carries on. A connection that stood still and goes on by itself is kept: nothing of it is lost.
//!
//! Law: only what the configuration allows is connected to; the address that was checked is the address that is dialled;
//! a redirect is checked like the URL itself.

mod demux;
mod greeting;
mod icy;
mod sbr;
mod station;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jukebox_core::live::{Air, Station};
use jukebox_core::reason::{Action, Reason};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{interval, timeout};

use crate::audio::tape::Tape;
use crate::clock::Clock;
use crate::config::Streams;
use crate::dial::Dialer;
use crate::fetch::chance;
use demux::Heard;
use station::{Door, Listening};

/// Nothing came for so long: it may be gone.
const STILL: Duration = Duration::from_millis(1_500);
/// Between two tries.
const EVERY: Duration = Duration::from_secs(1);
/// After a station that leads elsewhere, or sends what cannot be played.
const REFUSED_EVERY: Duration = Duration::from_secs(5);
/// Tries that may be under way.
const TRIES: usize = 4;
/// A try is given up after this; others are under way long before.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether something still comes.
const LOOK: Duration = Duration::from_millis(250);
/// A tape that was full is filled again when it has fallen to this.
const LOW: Duration = Duration::from_secs(3);
/// Of a run, before it is told that it comes.
const COMES: Duration = Duration::from_secs(1);
/// Tries without an answer, good or bad, before that is told.
const UNANSWERED: u32 = 3;
/// A station that cannot be understood so often is none.
const MISUNDERSTOOD: u32 = 3;

/// Tunes in.
pub(crate) struct Radio {
    streams: Streams,
    door: Arc<Door>,
    task: Option<AbortHandle>,
    again: Arc<Notify>,
}

impl Radio {
    /// Tuned in to nothing. `dialer` goes only where a station may lead.
    pub(crate) fn new(streams: &Streams, dialer: &Dialer, clock: &Arc<Clock>) -> Self {
        let door = Arc::new(Door::new(streams.clone(), dialer, clock.clone()));
        Self { streams: streams.clone(), door, task: None, again: Arc::default() }
    }

    /// Another configuration: for the next station that is tuned in to. What is on stays on.
    pub(crate) fn go_by(&mut self, streams: &Streams, dialer: &Dialer, clock: &Arc<Clock>) {
        (self.streams, self.door) = (streams.clone(), Arc::new(Door::new(streams.clone(), dialer, clock.clone())));
    }

    /// Tunes in to a station, and out of the one before; `tell` is where reports go. What it is taped on.
    pub(crate) fn tune<F>(&mut self, station: Station, tell: impl Fn(Air) -> F + 'static) -> Arc<Tape>
    where
        F: Future<Output = ()> + 'static,
    {
        self.be_still();
        let (most, bytes) =
            (Duration::from_secs(self.streams.buffer_s.into()), self.streams.buffer_mb as usize * 1_000_000);
        let tape = Tape::new(station.entry, most, bytes);
        let listener = Listener {
            url: station.url,
            door: self.door.clone(),
            tape: tape.clone(),
            again: self.again.clone(),
            on: None,
            connections: 0,
            unanswered: 0,
            lost: None,
            misunderstood: 0,
        };
        self.task = Some(tokio::task::spawn_local(listener.run(tell)).abort_handle());
        tape
    }

    /// Tunes out.
    pub(crate) fn be_still(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// The link came back: no try waits for its turn.
    pub(crate) fn link_up(&self) {
        self.again.notify_waiters();
    }
}

/// One tuning.
struct Listener {
    url: String,
    door: Arc<Door>,
    tape: Arc<Tape>,
    again: Arc<Notify>,
    on: Option<On>,
    /// Connections so far; what is heard of any but the last counts for nothing.
    connections: u64,
    /// Tries since one was answered.
    unanswered: u32,
    /// What was told of it being gone.
    lost: Option<Reason>,
    misunderstood: u32,
}

/// A connection that carries, or did.
struct On {
    task: JoinHandle<()>,
    pulse: Arc<Pulse>,
}

impl Drop for On {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// When something came last.
struct Pulse {
    born: Instant,
    ms: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self { born: Instant::now(), ms: AtomicU64::new(0) }
    }
    fn beat(&self) {
        self.ms.store(self.born.elapsed().as_millis() as u64, Relaxed);
    }
    fn still_for(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.ms.load(Relaxed)))
    }
}

/// What happens to a listener.
enum News {
    Look,
    Tried(Result<Listening, Reason>),
    Heard(Heard),
    Again,
}

impl Listener {
    async fn run<F: Future<Output = ()>>(mut self, tell: impl Fn(Air) -> F) {
        let (hears, mut heard) = mpsc::unbounded_channel();
        let mut tries: JoinSet<Result<Listening, Reason>> = JoinSet::new();
        let mut handles: Vec<AbortHandle> = Vec::new();
        let (mut look, mut next, mut way) = (interval(LOOK), Instant::now(), 0);
        loop {
            let news = tokio::select! {
                biased;
                Some((of, h)) = heard.recv() => if of == self.connections { News::Heard(h) } else { News::Look },
                Some(t) = tries.join_next() => News::Tried(t.unwrap_or(Err(Reason::StationAway))),
                () = self.again.notified() => News::Again,
                _ = look.tick() => News::Look,
            };
            let mut says = Vec::new();
            match news {
                News::Look => {}
                News::Again => next = Instant::now(),
                News::Heard(h) => {
                    let pause = self.hear(h, &mut says);
                    next = next.max(Instant::now() + pause);
                }
                // One that stood still has gone on meanwhile: nothing of it was lost.
                News::Tried(Ok(_)) if !self.wants() => {}
                News::Tried(Ok(listening)) => {
                    handles.drain(..).for_each(|h| h.abort());
                    says.extend(listening.name.clone().map(Air::Name));
                    let pulse = Arc::new(Pulse::new());
                    (self.connections, self.unanswered) = (self.connections + 1, 0);
                    let task = listening.tape(self.tape.clone(), pulse.clone(), self.connections, hears.clone());
                    self.on = Some(On { task: tokio::task::spawn_local(task), pulse });
                }
                News::Tried(Err(reason)) => {
                    if matches!(reason, Reason::StationElsewhere | Reason::Portal) {
                        next = next.max(Instant::now() + REFUSED_EVERY - EVERY);
                    }
                    if reason == Reason::NoStream {
                        self.misunderstood += 1;
                    }
                    if self.wants() {
                        self.lose(reason, &mut says);
                    }
                }
            }
            if self.wants() && Instant::now() >= next {
                // A try that is swallowed says nothing by itself.
                if self.on.is_some() || (self.lost.is_none() && self.unanswered >= UNANSWERED) {
                    self.lose(Reason::StationAway, &mut says);
                }
                self.unanswered += 1;
                handles.retain(|h| !h.is_finished());
                if handles.len() >= TRIES {
                    handles.remove(0).abort();
                }
                let (door, url) = (self.door.clone(), self.url.clone());
                let attempt =
                    async move { timeout(TRY_WITHIN, door.knock(&url, way)).await.unwrap_or(Err(Reason::StationAway)) };
                handles.push(tries.spawn_local(attempt));
                way += 1;
                next = Instant::now() + EVERY.mul_f64(0.75 + chance() / 4.0);
            }
            if self.lost.is_some() && !self.wants() && self.tape.level() >= COMES {
                self.lost = None;
                says.push(Air::Comes);
            }
            for air in says {
                tell(air).await;
            }
        }
    }

    /// Whether nothing comes although there is room for it.
    fn wants(&self) -> bool {
        match &self.on {
            Some(on) => on.pulse.still_for() >= STILL,
            None => self.tape.level() <= LOW,
        }
    }

    /// What a connection gave; how long the next try should wait for it.
    fn hear(&mut self, heard: Heard, says: &mut Vec<Air>) -> Duration {
        match heard {
            Heard::Title(title) => says.push(Air::Title(title)),
            // It comes: looked at in a moment anyway, but silence may wait for it.
            Heard::Enough => {
                self.misunderstood = 0;
                self.lost = None;
                says.push(Air::Comes);
            }
            Heard::HeAac => {
                self.on = None;
                self.lose(Reason::HeAac, says);
                return REFUSED_EVERY;
            }
            Heard::Noise => {
                self.on = None;
                self.misunderstood += 1;
                self.lose(Reason::NoStream, says);
            }
            Heard::Ended => {
                self.on = None;
                // A tape that is full lets go of a station that is there.
                if self.tape.level() <= LOW {
                    self.lose(Reason::StationOff, says);
                }
            }
        }
        Duration::ZERO
    }

    /// It is gone: told once for each reason. That it is no stream at all has to be sure.
    fn lose(&mut self, reason: Reason, says: &mut Vec<Air>) {
        let skip = reason.action() == Action::Skip;
        if reason == Reason::NoStream && self.misunderstood < MISUNDERSTOOD {
            return;
        }
        if self.lost != Some(reason) || skip {
            self.lost = Some(reason);
            says.push(Air::Lost(reason));
        }
    }
}

impl Listening {
    /// Tapes what comes, until it ends.
    async fn tape(mut self, tape: Arc<Tape>, pulse: Arc<Pulse>, of: u64, hears: mpsc::UnboundedSender<(u64, Heard)>) {
        let (bytes, come) = mpsc::channel(8);
        let (demux, mime) = (hears.clone(), self.mime.clone());
        let thread = std::thread::Builder::new().name("radio".into()).stack_size(demux::STACK);
        let begun = thread.spawn(move || demux::demux(come, &mime, &tape, &|h| drop(demux.send((of, h)))));
        if begun.is_err() {
            let _ = hears.send((of, Heard::Ended));
            return;
        }
        while let Some(data) = self.next().await {
            pulse.beat();
            let (music, title) = self.icy.strip(data);
            if let Some(title) = title {
                let _ = hears.send((of, Heard::Title(title)));
            }
            if !music.is_empty() && bytes.send(music).await.is_err() {
                // The demuxer has had enough, and has said why.
                return;
            }
        }
    }
}
