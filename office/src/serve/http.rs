//! The library over HTTP: tower-http's `ServeDir` reads the files; here stand what may be read and for how long it keeps.
//!
//! Law: only `library.json` and `o/ab/<64 hex digits>` exist; anything else is 404, whatever lies in the folder. The root is
//! never used without asking (`no-cache` with an ETag), objects never change (`immutable`). Nothing is read whole.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, ETAG, HeaderName, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use jukebox_core::library::{Digest, ROOT};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower_http::services::ServeDir;

use super::until;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// Time for a TLS handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(20);
/// An HTTP/2 connection that does not answer a ping for this long is dropped: players vanish without a word.
const PING: Duration = Duration::from_secs(20);
/// What running answers get to finish at the end.
const FAREWELL: Duration = Duration::from_millis(800);

/// The routes of the library in `folder`.
pub fn router(folder: &Path) -> Router {
    // Several ranges at once are answered by the whole (RFC 9110, 14.2 allows it): the player asks for one.
    let files = ServeDir::new(folder).append_index_html_on_directories(false).ignore_multi_range_requests(true);
    Router::new().fallback(answer).with_state(files)
}

async fn answer(State(files): State<ServeDir>, request: Request) -> Response {
    let Some(keeps) = keeps(request.uri().path()) else { return StatusCode::NOT_FOUND.into_response() };
    let condition = request.headers().get(IF_RANGE).cloned();
    let again = condition.is_some().then(|| bare(&request));
    let mut response = read(&files, request).await;
    // RFC 9110, 13.1.5: a range counts only if the condition names what is there now.
    if let (Some(condition), Some(again)) = (condition, again)
        && matches!(response.status(), StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE)
        && ![ETAG, LAST_MODIFIED].iter().any(|h: &HeaderName| response.headers().get(h) == Some(&condition))
    {
        response = read(&files, again).await;
    }
    if response.status() != StatusCode::NOT_FOUND {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(keeps));
    }
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn read(files: &ServeDir, request: Request) -> Response {
    match files.clone().try_call(request).await {
        Ok(response) => response.map(Body::new),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            StatusCode::NOT_FOUND.into_response()
        }
        Err(e) => {
            tracing::error!("the library cannot be read: {e}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// `Cache-Control` of what may be read at `path`; `None`: there is nothing.
fn keeps(path: &str) -> Option<&'static str> {
    let name = path.strip_prefix('/')?;
    if name == ROOT {
        return Some("no-cache");
    }
    let digest: Digest = name.rsplit('/').next()?.parse().ok()?;
    (name == digest.path()).then_some("public, max-age=31536000, immutable")
}

/// The same request without its range and conditions on it.
fn bare(request: &Request) -> Request {
    let mut again = Request::new(Body::empty());
    *again.method_mut() = if request.method() == Method::HEAD { Method::HEAD } else { Method::GET };
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    again.headers_mut().remove(RANGE);
    again.headers_mut().remove(IF_RANGE);
    again
}

/// Binds a door; `bind` of `None` is every address, IPv6 and IPv4.
///
/// # Errors
/// What the system says, for example that the port is taken.
pub async fn door(bind: Option<std::net::IpAddr>, port: u16) -> io::Result<TcpListener> {
    match bind {
        Some(address) => TcpListener::bind((address, port)).await,
        None => match TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).await {
            Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await
            }
            done => done,
        },
    }
}

/// Serves `app` at `listener` until `stop` is true (or its sender gone); then running answers get 0.8 s.
/// With `tls`, each connection gets the certificate that is there when it comes.
pub async fn serve(
    listener: TcpListener,
    tls: Option<watch::Receiver<TlsAcceptor>>,
    app: Router,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = until(&mut stop) => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let (stream, peer) = tokio::select! {
            () = until(&mut stop) => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, mostly: let some go before the next try.
                    tracing::warn!("a connection could not be taken: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (app, watcher) = (app.clone(), graceful.watcher());
        let tls = tls.as_ref().map(|tls| tls.borrow().clone());
        tokio::spawn(async move {
            let _place = place;
            match tls {
                None => converse(stream, peer, app, watcher).await,
                Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, peer, app, watcher).await,
                    Ok(Err(e)) => tracing::debug!("{peer}: no TLS: {e}"),
                    Err(_) => tracing::debug!("{peer}: no TLS in time"),
                },
            }
        });
    }
    drop(listener);
    let _ = timeout(FAREWELL, graceful.shutdown()).await;
}

async fn converse<S>(stream: S, peer: SocketAddr, app: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(64)
        .max_send_buf_size(128 << 10);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    if let Err(e) = watcher.watch(connection).await {
        tracing::debug!("{peer}: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_and_objects_exist() {
        let hex = "ab".repeat(32);
        assert_eq!(keeps("/library.json"), Some("no-cache"));
        assert!(keeps(&format!("/o/ab/{hex}")).unwrap().contains("immutable"));
        for path in [
            "/",
            "",
            "/library.json/",
            "//library.json",
            "/o/ab",
            "/o/cd/abababababababababababababababababababababababababababababababab",
            "/o/ab/../../library.json",
            "/o/ab/%61bababababababababababababababababababababababababababababababab",
            "/etc/passwd",
            "/library.json.new",
        ] {
            assert_eq!(keeps(path), None, "{path}");
        }
        assert_eq!(keeps(&format!("/o/AB/{}", hex.to_uppercase())), None);
        assert_eq!(keeps(&format!("/o/ab/{hex}/")), None);
    }
}
