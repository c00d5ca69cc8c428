//! Downloads: per-request deadline, failover between origins, samples for the estimate of the link.
//!
//! *Origin*: a place that serves the library, an `https` (or, where allowed, `http`) URL or a folder. *Want*: an object, or a
//! range of one, with the digest of just these bytes. *Witness*: something that an origin sent right before; when its bytes
//! for a want are wrong, it is asked for its witness again, and that decides whether the library or the way is damaged.
//!
//! Law: the link is not the track. Only [`Fault::NotFound`] from every origin that still has a root, or wrong bytes from
//! every origin that still sends its witness right, is the track's fault.

mod fault;
mod folder;
mod http;

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Uri;
use jukebox_core::library::{Digest, MAX_OBJECT, MAX_SEGMENT, ROOT};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub(crate) use fault::classify;
pub use fault::{Fault, TlsFault};

use crate::dial::Dialer;
use crate::store::Objects;
use folder::Folder;
use http::{Ask, Came, Http};

/// Segments on the way at a time. More would share the link, and delay what is needed first.
const SEGMENTS: usize = 2;
/// Small objects on the way at a time.
const SMALL: usize = 2;
/// Longest time that an origin comes last after it failed; it doubles from 1 s with each failure.
const AVOID_MOST: Duration = Duration::from_secs(60);
/// How long an origin that sent wrong bytes comes last.
const AVOID_LIAR: Duration = Duration::from_secs(600);
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
}

impl Want {
    /// A whole object.
    pub const fn whole(object: Digest, deadline: Duration) -> Self {
        Self { object, range: None, digest: object, deadline }
    }
}

/// What was wanted, checked and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Bytes,
    /// Which origin sent them; none if they were on disk.
    pub origin: Option<usize>,
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
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// So many until now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Downloads for the whole player; a cheap clone.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    origins: Vec<Origin>,
    dialer: Dialer,
    objects: Objects,
    sample: Box<dyn Fn(Sample) + Send + Sync>,
    segments: Semaphore,
    small: Semaphore,
    running: Mutex<HashMap<Digest, watch::Receiver<Option<Outcome>>>>,
    date: Mutex<Option<(String, Instant)>>,
}

type Outcome = Result<Fetched, Fault>;

struct Origin {
    url: String,
    door: Door,
    health: Mutex<Health>,
}

enum Door {
    Http(Box<Http>, Uri),
    Folder(Folder),
}

#[derive(Default)]
struct Health {
    state: OriginState,
    failures: u32,
    retry_at: Option<Instant>,
    witness: Option<Want>,
}

impl Fetcher {
    /// `origins` in order of preference. `tls` trusts what the office's certificates are signed by. `sample` is called after
    /// each transfer, on the runtime's thread.
    pub fn new(
        origins: &[String],
        dialer: Dialer,
        tls: Option<&rustls::ClientConfig>,
        insecure: bool,
        objects: Objects,
        sample: impl Fn(Sample) + Send + Sync + 'static,
    ) -> Result<Self, OriginError> {
        let origins = origins.iter().map(|url| origin(url, &dialer, tls, insecure)).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner {
            origins,
            dialer,
            objects,
            sample: Box::new(sample),
            segments: Semaphore::new(SEGMENTS),
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
        let ask = Ask { path: ROOT, range: None, limit: MAX_OBJECT as u64, etag };
        let (answer, came) = self.0.ask(0, ask, deadline, &Meter::default()).await;
        self.0.note(0, answer.as_ref().err().copied());
        let bytes = answer?;
        Ok(if came.not_modified { RootAnswer::Unchanged } else { RootAnswer::Changed { bytes, etag: came.etag } })
    }

    /// Whether any origin can be reached: one TCP connect (through the proxy, if there is one) to each in turn until one takes
    /// it. Nothing is sent.
    pub async fn probe(&self, deadline: Duration) -> Result<(), Fault> {
        let mut last = Fault::Route;
        for origin in &self.0.origins {
            let reached = timeout(deadline, origin.reach(&self.0.dialer)).await.unwrap_or(Err(Fault::Timeout));
            match reached {
                Ok(()) => return Ok(()),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Forgets connections and grudges: what was learned before the link came back is worth nothing.
    pub fn renew(&self) {
        for origin in &self.0.origins {
            if let Door::Http(http, _) = &origin.door {
                http.renew();
            }
            lock(&origin.health).retry_at = None;
        }
    }

    /// All origins in the order of the configuration.
    pub fn origins(&self) -> Vec<OriginHealth> {
        let now = Instant::now();
        let health = |o: &Origin| {
            let h = lock(&o.health);
            let avoid = h.retry_at.and_then(|at| at.checked_duration_since(now));
            OriginHealth { url: o.url.clone(), state: h.state, avoid }
        };
        self.0.origins.iter().map(health).collect()
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
            return Ok(Fetched { bytes, origin: None, took: Duration::ZERO });
        }
        let turns = if want.range.is_some() { &self.segments } else { &self.small };
        // The semaphore is never closed.
        let _turn = turns.acquire().await;
        // Bytes that the card will not take are not paid for; of a whole object only the least that it occupies is known.
        let least = want.range.as_ref().map_or(1, |r| r.end - r.start);
        self.objects.room_later(least).await.map_err(Fault::Store)?;
        let mut faults = Vec::with_capacity(self.origins.len());
        for n in self.order() {
            match self.try_origin(n, want, meter).await {
                Ok((bytes, took)) => {
                    self.objects.put_later(want.digest, bytes.clone()).await.map_err(Fault::Store)?;
                    return Ok(Fetched { bytes, origin: Some(n), took });
                }
                Err(fault) => {
                    tracing::debug!(url = self.origins[n].url, object = %want.object, "{fault}");
                    faults.push(fault);
                }
            }
        }
        Err(verdict(&faults))
    }

    /// One origin's answer, checked; the origin is judged by it.
    async fn try_origin(&self, n: usize, want: &Want, meter: &Meter) -> Result<(Bytes, Duration), Fault> {
        let began = Instant::now();
        let mut answer = self.bytes(n, want, meter).await;
        let took = began.elapsed();
        if answer == Err(Fault::NotFound) && !self.has_root(n, want.deadline).await {
            answer = Err(Fault::Status(404));
        }
        self.note(n, answer.as_ref().err().copied());
        if let Err(Fault::WrongDigest { .. }) = answer {
            let witness = lock(&self.origins[n].health).witness.clone().filter(|w| w.digest != want.digest);
            let others_verify = match witness {
                Some(witness) => self.bytes(n, &witness, meter).await.is_ok(),
                None => false,
            };
            return Err(Fault::WrongDigest { others_verify });
        }
        if let Ok(bytes) = &answer {
            let mut health = lock(&self.origins[n].health);
            if bytes.len() <= WITNESS || health.witness.is_none() {
                health.witness = Some(want.clone());
            }
        }
        answer.map(|bytes| (bytes, took))
    }

    /// Whether an origin that does not have an object has a library at all: an emptied web root, a wrong one and some login
    /// pages answer 404 to everything.
    async fn has_root(&self, n: usize, deadline: Duration) -> bool {
        // A folder has looked for itself.
        matches!(self.origins[n].door, Door::Folder(_)) || {
            let ask = Ask { path: ROOT, range: None, limit: MAX_OBJECT as u64, etag: None };
            self.ask(n, ask, deadline, &Meter::default()).await.0.is_ok()
        }
    }

    async fn bytes(&self, n: usize, want: &Want, meter: &Meter) -> Result<Bytes, Fault> {
        let path = want.object.path();
        let limit = want.range.as_ref().map_or(MAX_OBJECT as u64, |r| r.end - r.start);
        let ask = Ask { path: &path, range: want.range.clone(), limit, etag: None };
        let bytes = self.ask(n, ask, want.deadline, meter).await.0?;
        let right = Digest::of(&bytes) == want.digest;
        if right { Ok(bytes) } else { Err(Fault::WrongDigest { others_verify: false }) }
    }

    /// One request under its deadline, reported as a sample.
    async fn ask(&self, n: usize, ask: Ask<'_>, deadline: Duration, meter: &Meter) -> (Result<Bytes, Fault>, Came) {
        let start = Instant::now();
        let mut came = Came { meter: meter.clone(), ..Came::default() };
        let answer = match &self.origins[n].door {
            Door::Http(http, uri) => {
                let answer = within(deadline, http.get(ask, &mut came)).await;
                if answer == Err(Fault::Timeout) && came.first_byte.is_none() {
                    // Nothing at all came: a connection that the network has forgotten must not be used again.
                    http.renew();
                }
                if let Some(date) = came.date.take().filter(|_| uri.scheme_str() == Some("https")) {
                    *lock(&self.date) = Some((date, Instant::now()));
                }
                answer
            }
            Door::Folder(folder) => {
                let answer = within(deadline, folder.get(ask.path.into(), ask.range, ask.limit)).await;
                came.bytes = answer.as_ref().map_or(0, |b| b.len() as u64);
                meter.add(came.bytes as usize);
                answer
            }
        };
        (self.sample)(Sample {
            origin: n,
            bytes: came.bytes,
            duration: start.elapsed(),
            first_byte: came.first_byte,
            fault: answer.as_ref().err().copied(),
        });
        (answer, came)
    }

    /// Origins as they should be tried: those in good standing in their order, then the others, soonest forgiven first.
    fn order(&self) -> Vec<usize> {
        let now = Instant::now();
        let avoided = |n: &usize| lock(&self.origins[*n].health).retry_at.filter(|at| *at > now);
        let mut order: Vec<usize> = (0..self.origins.len()).collect();
        order.sort_by_key(avoided); // stable, and none comes before some
        order
    }

    fn note(&self, n: usize, fault: Option<Fault>) {
        let mut health = lock(&self.origins[n].health);
        health.state = match fault {
            None => OriginState::Ok,
            // It answered well: the object is not there.
            Some(Fault::NotFound) => return,
            Some(Fault::Timeout) => OriginState::Slow,
            Some(Fault::WrongDigest { .. } | Fault::WrongRange | Fault::WrongLength) => OriginState::Lying,
            Some(_) => OriginState::Failing,
        };
        if health.state == OriginState::Ok {
            health.failures = 0;
            health.retry_at = None;
            return;
        }
        let doubled = Duration::from_secs(1 << health.failures.min(6)).min(AVOID_MOST);
        let avoid = if health.state == OriginState::Lying { AVOID_LIAR } else { doubled };
        health.failures += 1;
        health.retry_at = Some(Instant::now() + avoid);
    }
}

impl Origin {
    async fn reach(&self, dialer: &Dialer) -> Result<(), Fault> {
        match &self.door {
            Door::Http(_, uri) => {
                let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
                let dialled = dialer.dial(uri.host().unwrap_or_default(), port).await;
                dialled.map(|_| ()).map_err(|e| classify(&e))
            }
            Door::Folder(folder) => folder.get(ROOT.into(), Some(0..1), 1).await.map(|_| ()),
        }
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(deadline, work).await.unwrap_or(Err(Fault::Timeout))
}

/// What the faults of all origins mean together: the track's fault only if no origin leaves hope.
fn verdict(faults: &[Fault]) -> Fault {
    let hope = faults.iter().find(|f| !f.is_track());
    // Wrong bytes weigh more than none: they are what somebody must look at.
    let worst = faults.iter().find(|f| **f != Fault::NotFound).or(faults.first());
    hope.or(worst).copied().unwrap_or(Fault::Route)
}

fn origin(
    url: &str,
    dialer: &Dialer,
    tls: Option<&rustls::ClientConfig>,
    insecure: bool,
) -> Result<Origin, OriginError> {
    let system = |e: &dyn std::fmt::Display| OriginError::System(url.into(), e.to_string());
    let made = |door| Ok(Origin { url: url.into(), door, health: Mutex::default() });
    let path = url.strip_prefix("file://").unwrap_or(url);
    if path.starts_with('/') {
        return made(Door::Folder(Folder::open(PathBuf::from(path)).map_err(|e| system(&e))?));
    }
    let form = || OriginError::Form(url.into());
    let uri: Uri = url.parse().map_err(|_| form())?;
    uri.host().ok_or_else(form)?;
    let tls = match (uri.scheme_str(), tls) {
        (Some("https"), Some(tls)) => tls.clone(),
        (Some("https"), None) => return Err(OriginError::NoTls(url.into())),
        (Some("http"), _) if !insecure => return Err(OriginError::Insecure(url.into())),
        (Some("http"), _) => distrustful().map_err(|e| system(&e))?,
        _ => return Err(form()),
    };
    made(Door::Http(Box::new(Http::new(&uri, dialer, &tls)), uri))
}

/// TLS that trusts nobody, for a client that never uses it.
fn distrustful() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
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

    #[test]
    fn origins_are_checked_before_they_are_used() {
        let tls = distrustful().unwrap();
        let form = |url, tls, insecure| origin(url, &Dialer::new(None), tls, insecure).map(|_| ());
        assert!(matches!(form("http://a/", Some(&tls), false), Err(OriginError::Insecure(_))));
        assert!(matches!(form("https://a/", None, true), Err(OriginError::NoTls(_))));
        assert!(matches!(form("ftp://a/", None, true), Err(OriginError::Form(_))));
        assert!(matches!(form("music", None, true), Err(OriginError::Form(_))));
        assert!(form("https://a:1/lib/", Some(&tls), false).is_ok() && form("http://a", None, true).is_ok());
    }
}
