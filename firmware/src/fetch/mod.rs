//! Downloads: many origins, a deadline for each request, a second request where one stands still, samples of the link.
//!
//! *Origin*: a place that serves the library, an `https` (or, where allowed, `http`) URL or a folder. *Want*: an object, or a
//! range of one, with the digest of just these bytes. *Witness*: something that an origin sent right before; when its bytes
//! for a want are wrong, it is asked for its witness again, and that decides whether the library or the way is damaged.
//!
//! Law: the link is not the track. Only [`Fault::NotFound`] from every origin that still has a root, or wrong bytes from
//! every origin that still sends its witness right, is the track's fault.

mod fault;
mod flow;
mod folder;
mod http;
mod origin;
mod race;

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jukebox_core::library::{Digest, MAX_OBJECT, MAX_SEGMENT, ROOT};
use jukebox_core::planner::{Keep, Tier};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub(crate) use fault::classify;
pub use fault::{Fault, TlsFault};

use crate::dial::Dialer;
use crate::store::Objects;
use flow::Flow;
use http::{Ask, Head};
use origin::Origin;
use race::Race;

/// Shares of the link: two large segments on the way at a time, for more would delay what is needed first, or eight small
/// ones, for the round trips of two would leave a quick link idle.
const SHARES: usize = 8;
/// Bytes of a segment that takes one share; a larger one takes [`LARGE`].
const SHARE: u64 = 32 << 10;
const LARGE: u32 = 4;
/// Small objects on the way at a time.
const SMALL: usize = 2;
/// How long a way comes last after another one carried what it had not.
const AVOID_WAY: Duration = Duration::from_secs(60);
/// What is small enough to be asked for again as a witness, in bytes.
const WITNESS: usize = 64 << 10;

/// Why an origin of the configuration cannot be used. The text names it and the fix.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Not a URL and not a path.
    #[error("origin `{0}`: should be `https://host/path` or an absolute path")]
    Form(String),
    /// A plain connection that was not allowed.
    #[error("origin `{0}`: a plain connection; use https, or set `insecure = true`")]
    Insecure(String),
    /// TLS without anything to check it with.
    #[error("origin `{0}`: https needs the office's CA (`ca` or `ca_pem`)")]
    NoTls(String),
    /// TLS cannot be set up, or a thread not be started.
    #[error("origin `{0}`: {1}")]
    System(String, String),
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The object.
    pub object: Digest,
    /// The bytes of it; none for the whole (at most 4 MiB).
    pub range: Option<Range<u64>>,
    /// SHA-256 of the bytes wanted: the object itself if it is wanted whole.
    pub digest: Digest,
    /// For each request to an origin, from connecting to the last byte.
    pub deadline: Duration,
    /// What it is for: that decides how long the store keeps it.
    pub keep: Keep,
}

impl Want {
    /// A whole object.
    pub const fn whole(object: Digest, deadline: Duration) -> Self {
        let keep = Keep { track: None, tier: Tier::Middle };
        Self { object, range: None, digest: object, deadline, keep }
    }
}

/// What was wanted, checked and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Bytes,
    /// Which origin sent them; none if they were on disk.
    pub origin: Option<usize>,
    /// How many of them it sent in `took`; the others had come before.
    pub came: u64,
    /// From the request to the last byte, without waiting for a turn or for the card; zero if they were on disk.
    pub took: Duration,
}

/// The answer to [`Fetcher::root`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootAnswer {
    /// Still what the tag says.
    Unchanged,
    /// The root's bytes, not looked at, and its tag for the next time.
    Changed {
        /// The bytes.
        bytes: Bytes,
        /// The `ETag`, if the origin has one.
        etag: Option<String>,
    },
}

/// A transfer, for the estimate of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// From which origin.
    pub origin: usize,
    /// Bytes of the body that came.
    pub bytes: u64,
    /// From the request (connecting included where there was no connection) to the last byte.
    pub duration: Duration,
    /// From the request to the head of the answer; none if there was none.
    pub first_byte: Option<Duration>,
    /// How it ended badly; then `bytes` came in `duration` all the same.
    pub fault: Option<Fault>,
}

/// What an origin is worth just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OriginState {
    /// It answers.
    #[default]
    Ok,
    /// It did not answer in time.
    Slow,
    /// It cannot be reached, or answers with errors.
    Failing,
    /// It sent something else than what was asked for.
    Lying,
}

/// An origin as `health` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginHealth {
    /// As the configuration has it.
    pub url: String,
    /// What it is worth.
    pub state: OriginState,
    /// How long it still comes after the others.
    pub avoid: Option<Duration>,
}

/// Counts the bytes of bodies that came over the link, also of requests that failed or were given up; a cheap clone.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    came: AtomicU64,
}

impl Meter {
    /// So many until now, without those that are kept for a later request: they count there.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// So many came while it counted, whatever became of them.
    pub fn came(&self) -> u64 {
        self.0.came.load(Ordering::Relaxed)
    }

    fn come(&self, bytes: usize) {
        self.0.came.fetch_add(bytes as u64, Ordering::Relaxed);
        self.add(bytes);
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sub(&self, bytes: usize) {
        let less = |n: u64| Some(n.saturating_sub(bytes as u64));
        let _ = self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Downloads for the whole player; a cheap clone.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    origins: Vec<Origin>,
    ways: Vec<Way>,
    /// Name of each way; none where the system's routes decide.
    interfaces: Arc<[String]>,
    metered: AtomicBool,
    objects: Objects,
    sample: Box<dyn Fn(Sample) + Send + Sync>,
    segments: Semaphore,
    small: Semaphore,
    running: Mutex<HashMap<Digest, watch::Receiver<Option<Outcome>>>>,
    parts: flow::Parts,
    date: Mutex<Option<(String, Instant)>>,
}

type Outcome = Result<Fetched, Fault>;

/// How connections leave the machine, by an interface or as the system routes them: until when it comes after the others.
type Way = Mutex<Option<Instant>>;

/// An origin, by a way: places in the lists of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    origin: usize,
    way: usize,
}

impl Fetcher {
    /// `origins`: the first is the one whose root counts.
    /// `tls` trusts what the office's certificates are signed by. `sample` is called after each transfer that was not given
    /// up, on the runtime's thread.
    pub fn new(
        origins: &[String],
        dialer: Dialer,
        tls: Option<&rustls::ClientConfig>,
        insecure: bool,
        objects: Objects,
        sample: impl Fn(Sample) + Send + Sync + 'static,
    ) -> Result<Self, OriginError> {
        let ways = dialer.ways();
        let origins = origins.iter().map(|url| Origin::new(url, tls, insecure, &ways)).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner {
            origins,
            ways: ways.iter().map(|_| Way::default()).collect(),
            interfaces: dialer.interfaces(),
            metered: AtomicBool::new(false),
            parts: flow::Parts::default(),
            objects,
            sample: Box::new(sample),
            segments: Semaphore::new(SHARES),
            small: Semaphore::new(SMALL),
            running: Mutex::default(),
            date: Mutex::default(),
        })))
    }

    /// From the disk, or from the first origin that has it; checked and stored.
    ///
    /// Equal wants at the same time are one download. At most two segments and two whole objects are on the way at a time;
    /// others wait for their turn, and their deadline starts with it. Dropping the future gives up.
    pub async fn fetch(&self, want: Want) -> Result<Fetched, Fault> {
        self.fetch_counted(want, &Meter::default()).await
    }

    /// The same; what comes over the link for it is counted as it comes.
    pub async fn fetch_counted(&self, want: Want, meter: &Meter) -> Result<Fetched, Fault> {
        if want.range.as_ref().is_some_and(|r| r.start >= r.end || r.end - r.start > MAX_SEGMENT as u64) {
            return Err(Fault::WrongLength);
        }
        loop {
            let lead = {
                let mut running = lock(&self.0.running);
                match running.get(&want.digest) {
                    Some(other) => Err(other.clone()),
                    None => {
                        let (tell, told) = watch::channel(None);
                        running.insert(want.digest, told);
                        Ok(Running { inner: &self.0, digest: want.digest, tell })
                    }
                }
            };
            match lead {
                Ok(running) => {
                    let outcome = self.0.fetch(&want, meter).await;
                    running.tell.send_replace(Some(outcome.clone()));
                    return outcome;
                }
                Err(mut other) => {
                    if let Ok(outcome) = other.wait_for(Option::is_some).await
                        && let Some(outcome) = outcome.clone()
                    {
                        return outcome;
                    }
                    // Whoever led gave up: lead.
                }
            }
        }
    }

    /// The root, from the first origin: only its root counts. `etag` is what the last answer gave.
    pub async fn root(&self, etag: Option<&str>, deadline: Duration) -> Result<RootAnswer, Fault> {
        let mut last = Fault::Route;
        for way in self.0.ways() {
            let ask = Ask { path: ROOT, range: None, limit: MAX_OBJECT as u64, etag };
            let flow = Flow::new(Vec::new(), &Meter::default());
            let (answer, head) = self.0.ask(Candidate { origin: 0, way }, ask, deadline, &flow).await;
            self.0.origins[0].note(answer.as_ref().err().copied());
            match answer {
                Ok(_) if head.not_modified => return Ok(RootAnswer::Unchanged),
                Ok(bytes) => return Ok(RootAnswer::Changed { bytes, etag: head.etag }),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Whether any origin can be reached: one TCP connect (through the proxy, if there is one) to each, at
    /// the same time. Nothing is sent.
    pub async fn probe(&self, deadline: Duration) -> Result<(), Fault> {
        let all = self.0.ways().into_iter().flat_map(|way| self.0.origins.iter().map(move |o| (o, way)));
        let mut tries: Vec<_> =
            all.map(|(o, way)| Box::pin(async move { timeout(deadline, o.reach(way)).await })).collect();
        let mut first = None;
        poll_fn(|cx| {
            while let Some(done) = tries.iter_mut().enumerate().find_map(|(i, t)| match t.as_mut().poll(cx) {
                Poll::Ready(answer) => Some((i, answer.unwrap_or(Err(Fault::Timeout)))),
                Poll::Pending => None,
            }) {
                drop(tries.remove(done.0));
                match done.1 {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(fault) => _ = first.get_or_insert(fault),
                }
            }
            if tries.is_empty() { Poll::Ready(Err(first.unwrap_or(Fault::Route))) } else { Poll::Pending }
        })
        .await
    }

    /// Forgets connections and grudges: what was learned before the link came back is worth nothing.
    pub fn renew(&self) {
        for origin in &self.0.origins {
            origin.renew(None);
            origin.forgive();
        }
        self.0.ways.iter().for_each(|w| *lock(w) = None);
    }

    /// The interface that requests leave by, where the configuration names some.
    pub fn interface(&self) -> Option<String> {
        self.0.interfaces.get(*self.0.ways().first()?).cloned()
    }

    /// Whether bytes cost just now: then folders of shares are left alone, whose protocol talks too much.
    pub fn metered(&self, metered: bool) {
        self.0.metered.store(metered, Ordering::Relaxed);
    }

    /// All origins in the order of the configuration.
    pub fn origins(&self) -> Vec<OriginHealth> {
        let now = Instant::now();
        self.0.origins.iter().map(|o| o.shown(now)).collect()
    }

    /// Takes over the date that another's office gave: it is still right.
    pub fn date_of(&self, other: &Self) {
        *lock(&self.0.date) = other.office_date();
    }

    /// The `Date` that an office with a verified certificate sent last, and when that was.
    pub fn office_date(&self) -> Option<(String, Instant)> {
        lock(&self.0.date).clone()
    }
}

/// A download that others may wait for; the last thing it does is to take itself off the list.
struct Running<'a> {
    inner: &'a Inner,
    digest: Digest,
    tell: watch::Sender<Option<Outcome>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.inner.running).remove(&self.digest);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    async fn fetch(&self, want: &Want, meter: &Meter) -> Outcome {
        if let Some(bytes) = self.objects.read_later(want.digest).await {
            self.objects.belongs(&want.digest, want.keep);
            return Ok(Fetched { bytes, origin: None, came: 0, took: Duration::ZERO });
        }
        // Bytes that the card will not take are not paid for; of a whole object only the least that it occupies is known.
        let least = want.range.as_ref().map_or(1, |r| r.end - r.start);
        let turns = if want.range.is_some() { &self.segments } else { &self.small };
        // The semaphore is never closed.
        let _turn = turns.acquire_many(if least <= SHARE { 1 } else { LARGE }).await;
        self.objects.room_later(least, want.keep).await.map_err(Fault::Store)?;
        let candidates = self.candidates(want);
        let ways: Vec<usize> = candidates.iter().map(|c| c.way).collect();
        let won = Race::new(self, want, meter).run(candidates).await.map_err(|faults| verdict(&faults))?;
        self.carried(won.candidate.way, &ways);
        self.objects.put_later(want.digest, won.bytes.clone(), want.keep).await.map_err(Fault::Store)?;
        Ok(Fetched { bytes: won.bytes, origin: Some(won.candidate.origin), came: won.came, took: won.took })
    }

    /// One origin's answer by one way, checked; the origin is judged by it.
    async fn attempt(&self, by: Candidate, want: &Want, flow: Flow, meter: &Meter) -> Result<Bytes, Fault> {
        let origin = &self.origins[by.origin];
        let mut answer = self.bytes(by, want, &flow).await;
        if matches!(answer, Err(Fault::WrongDigest { .. } | Fault::WrongRange)) && flow.before() > 0 {
            // The part that was there before may be what is wrong.
            flow.restart();
            answer = self.bytes(by, want, &flow).await;
        }
        if answer == Err(Fault::NotFound) && !self.has_root(by, want.deadline).await {
            answer = Err(Fault::Status(404));
        }
        origin.note(answer.as_ref().err().copied());
        if let Err(Fault::WrongDigest { .. }) = answer {
            let witness = lock(&origin.health).witness.clone().filter(|w| w.digest != want.digest);
            let others_verify = match witness {
                Some(witness) => self.bytes(by, &witness, &Flow::new(Vec::new(), meter)).await.is_ok(),
                None => false,
            };
            return Err(Fault::WrongDigest { others_verify });
        }
        if let Ok(bytes) = &answer {
            let others = self.origins.iter().enumerate().filter(|(i, _)| *i != by.origin);
            let best = others.filter_map(|(_, o)| o.kbps()).max_by(f32::total_cmp);
            origin.measure(flow.came() as u64, flow.times().0, flow.first_byte(), best);
            let mut health = lock(&origin.health);
            if bytes.len() <= WITNESS || health.witness.is_none() {
                health.witness = Some(want.clone());
            }
        }
        answer
    }

    /// Whether an origin that does not have an object has a library at all: an emptied web root, a wrong one and some login
    /// pages answer 404 to everything.
    async fn has_root(&self, by: Candidate, deadline: Duration) -> bool {
        // A folder has looked for itself.
        !self.origins[by.origin].is_http() || {
            let ask = Ask { path: ROOT, range: None, limit: MAX_OBJECT as u64, etag: None };
            self.ask(by, ask, deadline, &Flow::new(Vec::new(), &Meter::default())).await.0.is_ok()
        }
    }

    async fn bytes(&self, by: Candidate, want: &Want, flow: &Flow) -> Result<Bytes, Fault> {
        let path = want.object.path();
        let limit = want.range.as_ref().map_or(MAX_OBJECT as u64, |r| r.end - r.start);
        let ask = Ask { path: &path, range: want.range.clone(), limit, etag: None };
        let bytes = self.ask(by, ask, want.deadline, flow).await.0?;
        let right = Digest::of(&bytes) == want.digest;
        if right { Ok(bytes) } else { Err(Fault::WrongDigest { others_verify: false }) }
    }

    /// One request under its deadline, reported as a sample.
    async fn ask(&self, by: Candidate, ask: Ask<'_>, deadline: Duration, flow: &Flow) -> (Result<Bytes, Fault>, Head) {
        let (answer, mut head) = self.origins[by.origin].ask(by.way, ask, deadline, flow).await;
        let (duration, first_byte) = (flow.times().0, flow.first_byte());
        let bytes = flow.came() as u64;
        if let Some(date) = head.date.take() {
            *lock(&self.date) = Some((date, Instant::now()));
        }
        let fault = answer.as_ref().err().copied();
        (self.sample)(Sample { origin: by.origin, bytes, duration, first_byte, fault });
        (answer, head)
    }

    /// Ways as they should be tried: those in good standing in their order, then the others, soonest forgiven first.
    fn ways(&self) -> Vec<usize> {
        let now = Instant::now();
        let mut ways: Vec<usize> = (0..self.ways.len()).collect();
        ways.sort_by_key(|w| lock(&self.ways[*w]).filter(|at| *at > now)); // stable, and none before some
        ways
    }

    /// Origins as they should be tried: those in good standing first, the rest soonest forgiven first; by the best way, and
    /// when all have failed there, by the next. Among equals the want decides (rendezvous hashing: each want has an order
    /// of its own, so that segments are spread, and an origin that goes moves nothing but its own share).
    fn candidates(&self, want: &Want) -> VecDeque<Candidate> {
        let now = Instant::now();
        let rank = |n: &usize| {
            let origin = &self.origins[*n];
            (origin.avoided(now), Digest::of(&[origin.url.as_bytes(), &want.digest.0].concat()))
        };
        let metered = self.metered.load(Ordering::Relaxed);
        let mut order: Vec<usize> =
            (0..self.origins.len()).filter(|n| !metered || !self.origins[*n].is_share()).collect();
        order.sort_by_cached_key(rank);
        let mut all = VecDeque::new();
        for (i, way) in self.ways().into_iter().enumerate() {
            // A folder has no ways: once is enough.
            let these = order.iter().filter(|n| i == 0 || self.origins[**n].is_http());
            all.extend(these.map(|&origin| Candidate { origin, way }));
        }
        all
    }

    /// One way has carried what those before it had not: they are tried again later.
    fn carried(&self, by: usize, tried: &[usize]) {
        let until = Instant::now() + AVOID_WAY.mul_f64(0.75 + chance() / 2.0);
        for &way in tried.iter().take_while(|w| **w != by) {
            lock(&self.ways[way]).get_or_insert(until);
        }
        *lock(&self.ways[by]) = None;
    }
}

/// A number from 0 to below 1.
pub(crate) fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    // Seeded by the system: good enough for jitter.
    let random = std::hash::RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// What the faults of all origins mean together: the track's fault only if no origin leaves hope.
fn verdict(faults: &[Fault]) -> Fault {
    let hope = faults.iter().find(|f| !f.is_track());
    // Wrong bytes weigh more than none: they are what somebody must look at.
    let worst = faults.iter().find(|f| **f != Fault::NotFound).or(faults.first());
    hope.or(worst).copied().unwrap_or(Fault::Route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hopeful_origin_makes_the_track_innocent() {
        let wrong = |others_verify| Fault::WrongDigest { others_verify };
        assert_eq!(verdict(&[Fault::NotFound, Fault::NotFound]), Fault::NotFound);
        assert_eq!(verdict(&[Fault::NotFound, Fault::Refused]), Fault::Refused);
        assert_eq!(verdict(&[wrong(true), Fault::Timeout]), Fault::Timeout);
        assert_eq!(verdict(&[Fault::NotFound, wrong(true)]), wrong(true));
        assert_eq!(verdict(&[wrong(true), wrong(false)]), wrong(false));
        assert_eq!(verdict(&[]), Fault::Route);
    }
}
