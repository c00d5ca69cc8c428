//! One HTTP origin: a client with its pool of connections, and one request.
//!
//! HTTP/2 where ALPN offers it, with pings that tell a dead connection from a slow one. Redirects are never followed.

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::fault::{Fault, classify};
use super::flow::Flow;
use super::lock;
use crate::dial::Dialer;

/// A ping when nothing came for this long while a request is under way.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The connection is dead if a ping is not answered within this.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes in flight on one HTTP/2 stream; two streams use a connection.
const WINDOW: u32 = 512 << 10;

pub(super) struct Http {
    uri: Uri,
    /// Ends without a slash.
    base: String,
    tls: rustls::ClientConfig,
    /// One for each way.
    clients: Vec<(Dialer, Mutex<Caller>)>,
}

type Caller = Client<HttpsConnector<Dialer>, Empty<Bytes>>;

/// What is wanted of an origin.
pub(super) struct Ask<'a> {
    /// Below the origin's base.
    pub(super) path: &'a str,
    pub(super) range: Option<Range<u64>>,
    /// Most bytes of the body.
    pub(super) limit: u64,
    pub(super) etag: Option<&'a str>,
}

/// What the head of an answer said.
#[derive(Default)]
pub(super) struct Head {
    pub(super) etag: Option<String>,
    /// The `Date`, of an origin whose certificate verified.
    pub(super) date: Option<String>,
    pub(super) not_modified: bool,
}

impl Http {
    /// `uri` is an `http` or `https` URL.
    pub(super) fn new(uri: Uri, tls: &rustls::ClientConfig, ways: &[Dialer]) -> Self {
        let mut tls = tls.clone();
        // The connector sets what it speaks, and insists on doing so.
        tls.alpn_protocols.clear();
        let clients = ways.iter().map(|way| (way.clone(), Mutex::new(client(way, &tls)))).collect();
        Self { base: uri.to_string().trim_end_matches('/').into(), uri, clients, tls }
    }

    /// Forgets connections, of one way or of all: requests that are under way end by themselves.
    pub(super) fn renew(&self, way: Option<usize>) {
        for (_, (dialer, caller)) in self.clients.iter().enumerate().filter(|(i, _)| way.is_none_or(|w| w == *i)) {
            *lock(caller) = client(dialer, &self.tls);
        }
    }

    /// One request; `head` and `flow` are filled as it goes, for whoever gives up waiting.
    pub(super) async fn get(&self, way: usize, ask: Ask<'_>, head: &mut Head, flow: &Flow) -> Result<Bytes, Fault> {
        let range = ask.range.map(|r| r.start + flow.before() as u64..r.end);
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(format!("{}/{}", self.base, ask.path))
            .header(header::USER_AGENT, concat!("jukebox/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(Range { start, end }) = &range {
            request = request.header(header::RANGE, format!("bytes={start}-{}", end.saturating_sub(1)));
        }
        if let Some(etag) = ask.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        // Only a URL that no origin has could fail here.
        let request = request.body(Empty::new()).map_err(|_| Fault::Protocol)?;
        let answer = lock(&self.clients.get(way).ok_or(Fault::Route)?.1).request(request);
        let answer = answer.await.map_err(|e| classify(&e))?;
        flow.head();
        head.etag = text(answer.headers(), header::ETAG);
        head.date = text(answer.headers(), header::DATE).filter(|_| self.uri.scheme_str() == Some("https"));
        if ask.etag.is_some() && answer.status() == StatusCode::NOT_MODIFIED {
            head.not_modified = true;
            return Ok(Bytes::new());
        }
        let exact = judge(&answer, range.as_ref())?;
        body(answer.into_body(), exact, ask.limit, flow).await?;
        Ok(flow.take().into())
    }

    /// One TCP connect (through the proxy, if there is one); nothing is sent.
    pub(super) async fn reach(&self, way: usize) -> Result<(), Fault> {
        let port = self.uri.port_u16().unwrap_or(if self.uri.scheme_str() == Some("https") { 443 } else { 80 });
        let (dialer, _) = self.clients.get(way).ok_or(Fault::Route)?;
        dialer.dial(self.uri.host().unwrap_or_default(), port).await.map(drop).map_err(|e| classify(&e))
    }
}

fn client(dialer: &Dialer, tls: &rustls::ClientConfig) -> Caller {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(dialer.clone());
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(2)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(2 * WINDOW)
        .build(connector)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(Into::into)
}

/// Whether status and headers are an answer to the question; how long the body must be, if that is known.
fn judge(answer: &Response<Incoming>, range: Option<&Range<u64>>) -> Result<Option<u64>, Fault> {
    let status = answer.status();
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Err(Fault::NotFound);
    }
    if status.is_redirection() {
        return Err(Fault::Redirect);
    }
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Err(Fault::WrongRange);
    }
    if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return Err(Fault::Status(status.as_u16()));
    }
    let headers = answer.headers();
    let kind = text(headers, header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    if kind.starts_with("text/html") || kind.starts_with("application/xhtml") {
        return Err(Fault::Portal);
    }
    let length = text(headers, header::CONTENT_LENGTH).and_then(|l| l.parse::<u64>().ok());
    match range {
        None if status == StatusCode::OK => Ok(length),
        None => Err(Fault::WrongRange),
        Some(range) => {
            let wanted = range.end - range.start;
            let right = if status == StatusCode::OK {
                // The whole, where the whole was wanted.
                range.start == 0 && length == Some(wanted)
            } else {
                content_range(text(headers, header::CONTENT_RANGE).as_deref()) == Some(range.clone())
            };
            if !right {
                return Err(Fault::WrongRange);
            }
            if length.is_some_and(|l| l != wanted) {
                return Err(Fault::WrongLength);
            }
            Ok(Some(wanted))
        }
    }
}

/// `bytes 0-99/1000` (RFC 9110, section 14.4).
fn content_range(value: Option<&str>) -> Option<Range<u64>> {
    let (range, _) = value?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
}

async fn body(mut body: Incoming, exact: Option<u64>, limit: u64, flow: &Flow) -> Result<(), Fault> {
    let most = exact.unwrap_or(limit);
    if most > limit {
        return Err(Fault::WrongLength);
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| classify(&e))?;
        let Ok(data) = frame.into_data() else { continue };
        flow.push(&data);
        if flow.came() as u64 > most {
            return Err(Fault::WrongLength);
        }
    }
    if exact.is_some_and(|e| e != flow.came() as u64) { Err(Fault::WrongLength) } else { Ok(()) }
}
