//! One origin: its door, what it is worth just now, and one request to it.
//!
//! *Grudge*: an origin that failed, was slow or lied comes after the others until its time is over; the time doubles with
//! each failure, and is jittered so that a house full of players does not come back in one second.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Uri;
use jukebox_core::library::ROOT;
use tokio::time::timeout;

use super::fault::Fault;
use super::flow::Flow;
use super::folder::Folder;
use super::http::{Ask, Head, Http};
use crate::dial::Dialer;

use super::{OriginError, OriginHealth, OriginState, Want, chance, lock};

/// Longest time that an origin comes last after it failed; it doubles from 1 s with each failure.
const AVOID_MOST: Duration = Duration::from_secs(60);
/// How long an origin that sent wrong bytes comes last.
const AVOID_LIAR: Duration = Duration::from_secs(600);
/// What an origin is not measured by, in bytes: it would be the round trip.
const MEASURED: u64 = 32 << 10;
/// An origin is slow if another is so many times faster.
const SLOWER: f32 = 4.0;
/// How long nothing may come before something is done about it: four times what the first byte takes, within these.
const PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

pub(super) struct Origin {
    pub(super) url: String,
    door: Door,
    pub(super) health: Mutex<Health>,
}

enum Door {
    Http(Box<Http>),
    Folder(Folder),
}

#[derive(Default)]
pub(super) struct Health {
    state: OriginState,
    failures: u32,
    /// Transfers in a row that were too slow.
    slow: u32,
    retry_at: Option<Instant>,
    /// Something that it sent right before.
    pub(super) witness: Option<Want>,
    /// Averages over about the last three answers: transfer rate, and time to the first byte.
    kbps: Option<f32>,
    first_byte_s: Option<f32>,
}

impl Origin {
    pub(super) fn new(
        url: &str,
        tls: Option<&rustls::ClientConfig>,
        insecure: bool,
        ways: &[Dialer],
    ) -> Result<Self, OriginError> {
        let system = |e: &dyn std::fmt::Display| OriginError::System(url.into(), e.to_string());
        let made = |door| Ok(Self { url: url.into(), door, health: Mutex::default() });
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
        made(Door::Http(Box::new(Http::new(uri, &tls, ways))))
    }

    /// Whether it is reached over the network by a connection of its own.
    pub(super) fn is_http(&self) -> bool {
        matches!(self.door, Door::Http(_))
    }

    /// Whether it is a folder on a share that is mounted over the network.
    pub(super) fn is_share(&self) -> bool {
        matches!(&self.door, Door::Folder(folder) if folder.is_share())
    }

    /// One request under its deadline; what comes is in `flow` as it comes.
    pub(super) async fn ask(
        &self,
        way: usize,
        ask: Ask<'_>,
        deadline: Duration,
        flow: &Flow,
    ) -> (Result<Bytes, Fault>, Head) {
        let mut head = Head::default();
        let answer = match &self.door {
            Door::Http(http) => {
                let answer = timeout(deadline, http.get(way, ask, &mut head, flow)).await;
                if answer.is_err() && flow.first_byte().is_none() {
                    // Nothing at all came: a connection that the network has forgotten must not be used again.
                    http.renew(Some(way));
                }
                answer
            }
            Door::Folder(folder) => {
                let answer = timeout(deadline, folder.get(ask.path.into(), ask.range, ask.limit)).await;
                if let Ok(Ok(bytes)) = &answer {
                    flow.push(bytes);
                }
                answer
            }
        };
        (answer.unwrap_or(Err(Fault::Timeout)), head)
    }

    /// Whether it can be reached: one TCP connect, or one byte.
    pub(super) async fn reach(&self, way: usize) -> Result<(), Fault> {
        match &self.door {
            Door::Http(http) => http.reach(way).await,
            Door::Folder(folder) => folder.get(ROOT.into(), Some(0..1), 1).await.map(|_| ()),
        }
    }

    /// Forgets connections, of one way or of all: requests that are under way end by themselves.
    pub(super) fn renew(&self, way: Option<usize>) {
        if let Door::Http(http) = &self.door {
            http.renew(way);
        }
    }

    /// Lets bygones be bygones: what was learned before the link came back is worth nothing.
    pub(super) fn forgive(&self) {
        let mut health = lock(&self.health);
        (health.retry_at, health.failures, health.kbps, health.first_byte_s) = (None, 0, None, None);
    }

    /// Until when it comes after the others.
    pub(super) fn avoided(&self, now: Instant) -> Option<Instant> {
        lock(&self.health).retry_at.filter(|at| *at > now)
    }

    pub(super) fn shown(&self, now: Instant) -> OriginHealth {
        let avoid = self.avoided(now).map(|at| at - now);
        OriginHealth { url: self.url.clone(), state: lock(&self.health).state, avoid }
    }

    /// How long nothing may come from it before something is done about that.
    pub(super) fn patience(&self) -> Duration {
        let [least, most] = PATIENCE;
        let usual = lock(&self.health).first_byte_s;
        usual.map_or(most, |s| Duration::from_secs_f32(s * 4.0)).clamp(least, most)
    }

    /// The transfer rate to expect, kbit/s.
    pub(super) fn kbps(&self) -> Option<f32> {
        lock(&self.health).kbps
    }

    /// Judges it by an answer.
    pub(super) fn note(&self, fault: Option<Fault>) {
        let state = match fault {
            None => OriginState::Ok,
            // It answered well: the object is not there.
            Some(Fault::NotFound) => return,
            Some(Fault::Timeout) => OriginState::Slow,
            Some(Fault::WrongDigest { .. } | Fault::WrongRange | Fault::WrongLength) => OriginState::Lying,
            Some(_) => OriginState::Failing,
        };
        let mut health = lock(&self.health);
        if state == OriginState::Ok {
            (health.state, health.failures, health.retry_at) = (state, 0, None);
        } else {
            health.avoid(state);
        }
    }

    /// Measures it by a transfer that went well; `best` is what the fastest of the others carries.
    pub(super) fn measure(&self, bytes: u64, took: Duration, first_byte: Option<Duration>, best: Option<f32>) {
        let mut health = lock(&self.health);
        let average = |old: Option<f32>, new: f32| Some(old.map_or(new, |old| old * 0.7 + new * 0.3));
        if let Some(first) = first_byte {
            health.first_byte_s = average(health.first_byte_s, first.as_secs_f32());
        }
        if bytes >= MEASURED {
            let kbps = bytes as f32 / 125.0 / took.as_secs_f32().max(0.001);
            health.kbps = average(health.kbps, kbps);
            if best.is_some_and(|best| best > kbps * SLOWER) {
                health.failures = health.slow;
                health.slow += 1;
                health.avoid(OriginState::Slow);
            } else {
                health.slow = 0;
            }
        }
    }
}

impl Health {
    fn avoid(&mut self, state: OriginState) {
        let doubled = Duration::from_secs(1 << self.failures.min(6)).min(AVOID_MOST);
        let time = if state == OriginState::Lying { AVOID_LIAR } else { doubled };
        self.state = state;
        self.failures += 1;
        self.retry_at = Some(Instant::now() + time.mul_f64(0.75 + chance() / 2.0));
    }
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
    fn origins_are_checked_before_they_are_used() {
        let tls = distrustful().unwrap();
        let form = |url, tls, insecure| Origin::new(url, tls, insecure, &Dialer::new(None).ways()).map(|_| ());
        assert!(matches!(form("http://a/", Some(&tls), false), Err(OriginError::Insecure(_))));
        assert!(matches!(form("https://a/", None, true), Err(OriginError::NoTls(_))));
        assert!(matches!(form("ftp://a/", None, true), Err(OriginError::Form(_))));
        assert!(matches!(form("music", None, true), Err(OriginError::Form(_))));
        assert!(form("https://a:1/lib/", Some(&tls), false).is_ok() && form("http://a", None, true).is_ok());
    }

    #[test]
    fn a_slow_origin_is_avoided_and_forgiven() {
        let origin = Origin::new("http://a", None, true, &Dialer::new(None).ways()).unwrap();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(origin.patience(), PATIENCE[1], "nothing is known of it");
        origin.measure(125_000, second, Some(Duration::from_millis(400)), Some(1_500.0));
        assert_eq!((origin.shown(now).state, origin.avoided(now)), (OriginState::Ok, None));
        assert_eq!(origin.patience().as_millis(), 1_600);
        origin.measure(12_500, second, None, Some(1_500.0));
        assert_eq!(origin.avoided(now), None, "too short to be measured by");
        origin.measure(40_000, second, None, Some(1_500.0));
        assert_eq!(origin.shown(now).state, OriginState::Slow);
        let first = origin.avoided(now).unwrap() - now;
        origin.note(Some(Fault::Timeout));
        assert!(origin.avoided(now).unwrap() - now > first, "the back-off grows");
        origin.note(Some(Fault::NotFound));
        assert_eq!(origin.shown(now).state, OriginState::Slow, "an honest 404 says nothing");
        origin.forgive();
        assert_eq!(origin.avoided(now), None);
        origin.note(None);
        assert_eq!(origin.shown(now).state, OriginState::Ok);
    }
}
