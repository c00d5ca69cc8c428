//! How every connection of the player begins: straight to the host, or through a proxy (HTTP CONNECT, RFC 9110, section 9.3.6).
//!
//! Origins, broker and probe all dial here. Addresses of both families are tried side by side, so that a dead one costs
//! little. Law: with a proxy nothing goes past it, names are not even resolved; what goes wrong at the proxy is told as
//! such, and is link trouble.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Empty;
use hyper::header::{self, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

/// All addresses of a name together; and once more for the proxy's answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// How long the resolver may think where an older answer is known.
const DNS_PATIENCE: Duration = Duration::from_secs(1);

/// Makes connections; a cheap clone.
#[derive(Clone)]
pub struct Dialer {
    tcp: HttpConnector<Resolver>,
    interfaces: Arc<[String]>,
    proxy: Option<Arc<Proxy>>,
}

impl Dialer {
    /// Through `proxy`, or straight without one.
    pub fn new(proxy: Option<Proxy>) -> Self {
        let tcp = connector(Resolver::default());
        Self { tcp, interfaces: Arc::default(), proxy: proxy.map(Arc::new) }
    }

    /// The same, to addresses that `may` allows. What a proxy resolves is the proxy's affair.
    pub fn guarded(&self, may: Guard) -> Self {
        let resolver = Resolver { may: Some(may).filter(|_| self.proxy.is_none()), ..Resolver::default() };
        Self { tcp: connector(resolver), ..self.clone() }
    }

    /// The same, with network interfaces to leave the machine by, best first; none leaves it to the system's routes.
    pub fn by(self, interfaces: &[String]) -> Self {
        Self { interfaces: interfaces.into(), ..self }
    }

    /// Those interfaces.
    pub(crate) fn interfaces(&self) -> Arc<[String]> {
        self.interfaces.clone()
    }

    /// A connection by the first interface that carries one; where the system's routes decide, by them.
    ///
    /// # Errors
    /// Those of the last that was tried, as [`dial`](Self::dial) tells them.
    pub async fn dial_any(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut last = None;
        for way in self.ways() {
            match way.dial(host, port).await {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::NetworkUnreachable.into()))
    }

    /// A dialer for each interface (or the one, where the system's routes decide), best first.
    pub fn ways(&self) -> Vec<Self> {
        let bound = |interface: &String| {
            let mut dialer = self.clone();
            // SO_BINDTODEVICE, which needs no privilege for a socket that is not bound yet (Linux 5.7).
            dialer.tcp.set_interface(interface);
            dialer
        };
        if self.interfaces.is_empty() { vec![self.clone()] } else { self.interfaces.iter().map(bound).collect() }
    }

    /// A connection to `port` of `host`, a name or an address (IPv6 with or without brackets).
    ///
    /// # Errors
    /// Those of the system; inside of others is [`NotResolved`] or [`ProxyFault`].
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let host = host.trim_matches(['[', ']']);
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        match &self.proxy {
            None => self.tcp(&authority).await,
            Some(proxy) => {
                let fault = match self.tcp(&proxy.authority).await {
                    Ok(stream) => match timeout(CONNECT_WITHIN, tunnel(stream, proxy, &authority)).await {
                        Ok(Ok(stream)) => return Ok(stream),
                        Ok(Err(fault)) => fault,
                        Err(_) => ProxyFault::Away,
                    },
                    // The player's own network is in the way, not the proxy.
                    Err(e) if crate::fetch::classify(&e) == crate::fetch::Fault::Route => return Err(e),
                    Err(_) => ProxyFault::Away,
                };
                Err(io::Error::other(fault))
            }
        }
    }

    async fn tcp(&self, authority: &str) -> io::Result<TcpStream> {
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query("/").build();
        let uri = uri.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        // The connector is always ready.
        Ok(self.tcp.clone().call(uri).await.map_err(io::Error::other)?.into_inner())
    }
}

/// Whether an address may be connected to.
pub type Guard = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

fn connector(resolver: Resolver) -> HttpConnector<Resolver> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_WITHIN));
    tcp
}

/// Asks the proxy for a way to `authority`.
async fn tunnel(stream: TcpStream, proxy: &Proxy, authority: &str) -> Result<TcpStream, ProxyFault> {
    let strange = |_| ProxyFault::Away;
    let (mut ask, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(strange)?;
    // Ends with the tunnel's birth, or when the answer is dropped.
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::connect(authority)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("jukebox/", env!("CARGO_PKG_VERSION")));
    if let Some(login) = &proxy.login {
        request = request.header(header::PROXY_AUTHORIZATION, login);
    }
    // Only a host that no configuration lets pass could fail here.
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| ProxyFault::Away)?;
    let answer = ask.send_request(request).await.map_err(strange)?;
    match answer.status() {
        status if status.is_success() => {}
        // Some say 401, which is not theirs to say.
        StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => return Err(ProxyFault::Login),
        status => return Err(ProxyFault::NoWay(status.as_u16())),
    }
    let tunnel = hyper::upgrade::on(answer).await.map_err(strange)?;
    let parts = tunnel.downcast::<TokioIo<TcpStream>>().map_err(|_| ProxyFault::Away)?;
    // TLS and MQTT begin with us: whoever speaks first is not who we want.
    if parts.read_buf.is_empty() { Ok(parts.io.into_inner()) } else { Err(ProxyFault::Away) }
}

/// For hyper's client.
impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            dialer.dial(uri.host().unwrap_or_default(), port).await.map(TokioIo::new)
        })
    }
}

/// `http://[USER:PASSWORD@]HOST:PORT`; never shown with its user and password, which may be percent-encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    authority: String,
    login: Option<HeaderValue>,
}

impl Proxy {
    /// Whether it has user and password.
    pub fn has_login(&self) -> bool {
        self.login.is_some()
    }
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text is not repeated: it may hold a password.
        let form = || "a proxy is http://HOST:PORT or http://USER:PASSWORD@HOST:PORT".to_owned();
        let uri: Uri = text
            .parse()
            .map_err(|_| format!("{}; in user and password write special characters as %XX, `@` as %40", form()))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(form()) };
        let port = authority.port_u16().filter(|p| *p != 0).ok_or_else(form)?;
        if authority.host().is_empty() || uri.path().len() > 1 || uri.query().is_some() {
            return Err(form());
        }
        let login = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((login, _)) => {
                let (user, password) = login.split_once(':').ok_or_else(form)?;
                let mut plain: Vec<u8> = percent_decode_str(user).collect();
                plain.push(b':');
                plain.extend(percent_decode_str(password));
                let mut value =
                    HeaderValue::try_from(format!("Basic {}", BASE64.encode(&plain))).map_err(|_| form())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { authority: format!("{}:{port}", authority.host()), login })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What is wrong at the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProxyFault {
    /// It cannot be reached, or does not speak HTTP.
    #[error("the proxy cannot be reached")]
    Away,
    /// 407: user and password are missing or wrong.
    #[error("the proxy refuses user or password")]
    Login,
    /// It does not let us through, or does not get through itself: its HTTP status.
    #[error("the proxy gives no way there (HTTP status {0})")]
    NoWay(u16),
}

/// A name that the resolver does not know; its own type, because an `io::Error` from there says nothing.
#[derive(Debug, thiserror::Error)]
#[error("not resolved: {0}")]
pub struct NotResolved(io::Error);

/// A name leads to an address that may not be connected to.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it leads to {0}, which is not of the public Internet, and not under `private`")]
pub struct NotAllowed(IpAddr);

impl NotAllowed {
    /// In an error of dialling.
    pub(crate) fn find(e: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let e = e.downcast_ref::<NotResolved>()?;
        e.0.get_ref()?.downcast_ref::<Self>().copied()
    }
}

/// The system's resolver, with an error that can be told from a refused connection. Where it does not answer, what it said
/// last still holds: the office seldom moves, and TLS tells if it did.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    last: Arc<Known>,
    /// Other addresses are left out: they are not even tried.
    may: Option<Guard>,
}

/// The last answer for each name; the configuration names a few.
type Known = Mutex<BTreeMap<String, Vec<SocketAddr>>>;

impl Default for Resolver {
    fn default() -> Self {
        Self { system: GaiResolver::new(), last: Arc::default(), may: None }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NotResolved;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotResolved>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotResolved>> {
        self.system.poll_ready(cx).map_err(NotResolved)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (last, key) = (self.last.clone(), name.as_str().to_owned());
        let (answer, may) = (self.system.call(name), self.may.clone());
        Box::pin(async move {
            let asked = async { Ok(answer.await?.collect()) };
            let mut found = remembered(&last, key, asked).await?;
            if let Some((may, first)) = may.zip(found.first().map(SocketAddr::ip)) {
                found.retain(|a| may(a.ip()));
                if found.is_empty() {
                    return Err(NotResolved(io::Error::other(NotAllowed(first))));
                }
            }
            Ok(found.into_iter())
        })
    }
}

async fn remembered(
    last: &Known,
    name: String,
    asked: impl Future<Output = io::Result<Vec<SocketAddr>>>,
) -> Result<Vec<SocketAddr>, NotResolved> {
    // Nothing under the lock panics half-way through a change.
    let lock = || last.lock().unwrap_or_else(PoisonError::into_inner);
    let known = lock().get(&name).cloned();
    let answer = match &known {
        None => asked.await,
        Some(_) => timeout(DNS_PATIENCE, asked).await.unwrap_or(Err(io::ErrorKind::TimedOut.into())),
    };
    match (answer, known) {
        (Ok(addresses), _) => {
            lock().insert(name, addresses.clone());
            Ok(addresses)
        }
        (Err(_), Some(known)) => Ok(known),
        (Err(e), None) => Err(NotResolved(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_with_a_port_and_perhaps_a_login() {
        let proxy: Proxy = "http://desk:p%40ss:w@proxy.example.org:3128".parse().unwrap();
        assert_eq!(proxy.authority, "proxy.example.org:3128");
        assert_eq!(proxy.login.as_ref().unwrap(), &format!("Basic {}", BASE64.encode(b"desk:p@ss:w")));
        let shown = format!("{proxy} {proxy:?} {}", serde_json::to_string(&proxy).unwrap());
        assert!(!shown.contains("desk") && !shown.contains("ss"), "{shown}");
        assert_eq!("http://[::1]:8080/".parse::<Proxy>().unwrap().authority, "[::1]:8080");
        for wrong in ["proxy:3128", "http://proxy", "https://proxy:1", "http://proxy:0", "http://a:1/x", "http://u@a:1"]
        {
            assert!(wrong.parse::<Proxy>().unwrap_err().starts_with("a proxy is http://HOST:PORT"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_resolver_that_fails_or_hangs_is_helped_by_what_it_said() {
        let last = Known::default();
        let office = || "office".to_owned();
        let fails = || async { Err(io::Error::other("no")) };
        assert!(remembered(&last, office(), fails()).await.is_err(), "nothing is known yet");
        let here = vec![SocketAddr::from(([10, 0, 0, 1], 0))];
        let moved = vec![SocketAddr::from(([10, 0, 0, 2], 0))];
        assert_eq!(remembered(&last, office(), async { Ok(here.clone()) }).await.unwrap(), here);
        assert_eq!(remembered(&last, office(), fails()).await.unwrap(), here);
        assert_eq!(remembered(&last, office(), std::future::pending()).await.unwrap(), here);
        assert_eq!(remembered(&last, office(), async { Ok(moved.clone()) }).await.unwrap(), moved);
    }
}
