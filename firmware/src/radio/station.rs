//! The way to a station: which URL, which address, which answer.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use jukebox_core::reason::Reason;
use jukebox_core::station::{Url, allowed};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::greeting::Greeting;
use super::icy::{Icy, text};
use crate::clock::Clock;
use crate::config::{Streams, trusting};
use crate::dial::{Dialer, NotAllowed};
use crate::fetch::{Fault, classify};

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Music between two titles that a station may wish for, in bytes.
const MOST_BETWEEN: usize = 1 << 20;

/// Goes to stations.
pub(super) struct Door {
    streams: Arc<Streams>,
    ways: Vec<Dialer>,
    clock: Arc<Clock>,
    /// Made when the first `https` station is tuned in to: the public roots are many.
    tls: OnceLock<Option<ClientConfig>>,
}

/// A station that answers.
pub(super) struct Listening {
    body: Incoming,
    pub(super) icy: Icy,
    pub(super) name: Option<String>,
    pub(super) mime: String,
}

impl Listening {
    /// What comes next.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.body.frame().await?.ok()?.into_data() {
                Ok(data) => return Some(data),
                Err(_) => continue,
            }
        }
    }
}

impl Door {
    pub(super) fn new(streams: Streams, dialer: &Dialer, clock: Arc<Clock>) -> Self {
        let streams = Arc::new(streams);
        let may = streams.clone();
        let dialer = dialer.guarded(Arc::new(move |address| may.may_reach(address)));
        Self { streams, ways: dialer.ways(), clock, tls: OnceLock::new() }
    }

    /// Tries a station once, by one of the ways out.
    pub(super) async fn knock(&self, url: &str, way: usize) -> Result<Listening, Reason> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let parsed: Url = url.parse().map_err(|e| elsewhere(&url, e))?;
            if !allowed(&self.streams.allow, &parsed) {
                return Err(elsewhere(&url, "not under `allow`"));
            }
            // An address that is allowed stands in `allow` itself; what a name leads to is looked at when it is resolved.
            match self.ask(&url, &parsed, &self.ways[way % self.ways.len()]).await? {
                Answer::Station(listening) => return Ok(listening),
                Answer::There(to) => url = to,
            }
        }
        Err(elsewhere(&url, "too many redirects"))
    }

    async fn ask(&self, url: &str, parsed: &Url, dialer: &Dialer) -> Result<Answer, Reason> {
        let uri: Uri = url.parse().map_err(|_| elsewhere(url, "not a URL"))?;
        let authority = uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        let away = |e: &(dyn StdError + 'static)| reason(url, e);
        let mut client = hyper::client::conn::http1::Builder::new();
        client.max_buf_size(64 << 10);
        let mut sender = if parsed.secure {
            let tls = self.tls.get_or_init(|| roots(&self.streams.ca, self.clock.clone()));
            let tls = tls.clone().ok_or(Reason::StationAway)?;
            let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
            let stream = connector.wrap_connector(dialer.clone()).call(uri.clone()).await.map_err(|e| away(&*e))?;
            let (sender, connection) = client.handshake(Greeting::of(stream)).await.map_err(|e| away(&e))?;
            // Ends when the answer is dropped.
            tokio::task::spawn_local(connection);
            sender
        } else {
            let stream = dialer.clone().call(uri.clone()).await.map_err(|e| away(&e))?;
            let (sender, connection) = client.handshake(Greeting::of(stream)).await.map_err(|e| away(&e))?;
            tokio::task::spawn_local(connection);
            sender
        };
        let request = Request::get(uri.path_and_query().map_or("/", |p| p.as_str()))
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("jukebox/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header("Icy-MetaData", "1")
            .body(Empty::<Bytes>::new())
            .map_err(|_| Reason::StationAway)?;
        let answer = sender.send_request(request).await.map_err(|e| away(&e))?;
        let headers = answer.headers();
        if answer.status().is_redirection() {
            let to = words(headers, "location").ok_or(Reason::StationOff)?;
            let base =
                if to.starts_with('/') && !to.starts_with("//") { url.find("://").map(|at| at + 3) } else { None };
            let host = base.map(|at| url[at..].find(['/', '?']).map_or(url, |end| &url[..at + end]));
            return Ok(Answer::There(host.map_or(to.clone(), |host| format!("{host}{to}"))));
        }
        if answer.status() == StatusCode::NETWORK_AUTHENTICATION_REQUIRED {
            return Err(Reason::Portal);
        }
        if answer.status() != StatusCode::OK {
            tracing::info!("{url}: HTTP status {}", answer.status().as_u16());
            return Err(Reason::StationOff);
        }
        let mime = words(headers, "content-type").unwrap_or_default().to_ascii_lowercase();
        let mime = mime.split(';').next().unwrap_or_default().trim().to_owned();
        if mime.starts_with("text/html") || mime.starts_with("application/xhtml") {
            return Err(Reason::Portal);
        }
        if mime.contains("mpegurl") || mime.contains("scpls") || mime.starts_with("video/") || mime.starts_with("text/")
        {
            tracing::warn!("{url}: {mime} is a list or a picture; add the stream itself");
            return Err(Reason::NoStream);
        }
        let every = words(headers, "icy-metaint").and_then(|n| n.parse().ok()).filter(|n| *n <= MOST_BETWEEN);
        let name = words(headers, "icy-name").or_else(|| words(headers, "ice-name"));
        let icy = Icy::new(every.unwrap_or(0));
        Ok(Answer::Station(Listening { body: answer.into_body(), icy, name, mime }))
    }
}

enum Answer {
    Station(Listening),
    There(String),
}

fn words(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = text(headers.get(name)?.as_bytes());
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn elsewhere(url: &str, why: &str) -> Reason {
    tracing::warn!("{url}: {why}");
    Reason::StationElsewhere
}

/// What an error means to whoever waits for the station.
fn reason(url: &str, e: &(dyn StdError + 'static)) -> Reason {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(refused) = NotAllowed::find(e) {
            return elsewhere(url, &refused.to_string());
        }
        next = e.source();
    }
    match classify(e) {
        Fault::Route => Reason::NoRoute,
        fault @ Fault::Proxy(_) => fault.reason(),
        fault => {
            tracing::info!("{url}: {fault}");
            Reason::StationAway
        }
    }
}

/// What stations are checked against, and when.
fn roots(file: &Path, clock: Arc<Clock>) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match CertificateDer::pem_file_iter(file) {
        Ok(all) => drop(roots.add_parsable_certificates(all.flatten())),
        Err(e) => tracing::error!("{}: {e}: `ca` under [streams] names the certificates of stations", file.display()),
    }
    if roots.is_empty() {
        return None;
    }
    trusting(roots, clock).map_err(|e| tracing::error!("{}: {e}", file.display())).ok()
}
