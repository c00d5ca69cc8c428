//! `jukebox-office serve`: the library over HTTPS and a broker, in one command, for trying and for small offices.
//!
//! HTTP is ours, in this process; the broker is mosquitto, as our child. On first start a private CA, a certificate and
//! passwords are made. Law: it stops within 2 s of SIGTERM or SIGINT and leaves no process behind; the music outlives the broker.

pub mod access;
pub mod broker;
pub mod control;
pub mod http;
pub mod pki;
pub mod state;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jukebox_core::library::{ROOT, Root};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use broker::{Broker, BrokerError, Setup};
use pki::PkiError;
use state::{Settings, State, StateError, is_id};

/// How often the certificate is looked at: it is renewed months before it expires.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(24 * 3600);

/// Serves a library to players, and runs the broker that commands go through.
///
/// What is given is remembered: the next start, `player add` and `config` use the same names and ports.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The library that `publish` wrote.
    pub library: PathBuf,
    /// Folder of keys, passwords and the broker's data [default: /var/lib/jukebox-office, or under ~/.local/state].
    #[arg(long, value_name = "DIR", env = "JUKEBOX_OFFICE_STATE")]
    pub state: Option<PathBuf>,
    /// Name or address that players reach this machine by; may be given several times, the first is told to players
    /// [default: the host name].
    #[arg(long, value_name = "HOSTNAME")]
    pub name: Vec<String>,
    /// Port of HTTPS; 0 chooses a free one [default: 8443].
    #[arg(long, value_name = "PORT")]
    pub https: Option<u16>,
    /// Serves plain HTTP as well, at this port: players take it only with `insecure = true`.
    #[arg(long, value_name = "PORT")]
    pub http: Option<u16>,
    /// Port of MQTT over TLS; 0 chooses a free one [default: 8883].
    #[arg(long, value_name = "PORT")]
    pub mqtt_port: Option<u16>,
    /// Uses a broker that is there, and starts none: `mqtts://HOST:PORT`.
    #[arg(long, value_name = "URL", conflicts_with = "mqtt_port")]
    pub broker: Option<String>,
    /// The site's id [default: hq].
    #[arg(long, value_name = "ID")]
    pub site: Option<String>,
    /// Address to listen at [default: all].
    #[arg(long, value_name = "ADDR")]
    pub bind: Option<IpAddr>,
}

/// Why the office does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no library.
    #[error("{}: no such folder; `jukebox-office publish MUSIC_DIR LIBRARY_DIR` makes a library", .0.display())]
    NoLibrary(PathBuf),
    /// The site's name cannot stand in a topic.
    #[error("--site `{0}`: an id is 1 to 32 of a-z, 0-9 and `-`, and neither `all` nor `reply`")]
    Site(String),
    /// The broker's address cannot be used.
    #[error("--broker `{0}`: write mqtts://HOST:PORT")]
    BrokerUrl(String),
    /// Another `serve` has the folder.
    #[error("another `jukebox-office serve` uses {}: stop it, or give --state DIR", .0.display())]
    Busy(PathBuf),
    /// The port cannot be had.
    #[error("port {port}: {why}; choose another with --{option}")]
    Port {
        /// The port.
        port: u16,
        /// The option that sets it.
        option: &'static str,
        /// What the system says.
        why: io::Error,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// There is no broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The system refuses a thread or a signal.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`].
pub fn run(args: &Args) -> Result<ExitCode, ServeError> {
    let level = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    // A second call in one process keeps the first one's log.
    let _ = tracing_subscriber::fmt().with_writer(io::stderr).with_target(false).with_env_filter(level).try_init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Args) -> Result<(), ServeError> {
    // Before anything that must be undone: a signal from now on is a stop, not a death.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    if !args.library.is_dir() {
        return Err(ServeError::NoLibrary(args.library.clone()));
    }
    let state = State::open(&args.state.clone().unwrap_or_else(state::default_folder))?;
    let Some(_lock) = state.lock()? else { return Err(ServeError::Busy(state.path(""))) };
    let mut settings = merge(state.settings()?, args)?;

    let https = http::door(args.bind, settings.https).await.map_err(taken(settings.https, "https"))?;
    settings.https = https.local_addr()?.port();
    let plain = match args.http {
        None => None,
        Some(port) => Some(http::door(args.bind, port).await.map_err(taken(port, "http"))?),
    };
    let any_port = settings.mqtt == 0;
    if any_port {
        settings.mqtt = free_port(args.bind).await?;
    }
    let renewed = pki::ensure(&state, &mut settings, Timestamp::now())?;
    state.keep_settings(&settings)?;
    let (certificate, shown) = watch::channel(acceptor(&state)?);

    let (stop, stopped) = watch::channel(false);
    let mut parts = JoinSet::new();
    let mut pid = None;
    if settings.broker.is_none() {
        let mut tries = if any_port { 5 } else { 1 };
        let broker = loop {
            tries -= 1;
            match Broker::start(&state, Setup::of_child(&state, args.bind, settings.mqtt)).await {
                // A port that was free is anybody's until the broker has it.
                Err(BrokerError::NotStarted(..)) if tries > 0 => {
                    settings.mqtt = free_port(args.bind).await?;
                    state.keep_settings(&settings)?;
                }
                started => break started?,
            }
        };
        pid = broker.pid();
        parts.spawn(broker.keep(stopped.clone(), shown.clone()));
    }
    let app = http::router(&args.library);
    let plain_port = plain.as_ref().map(|p| p.local_addr().map(|a| a.port())).transpose()?;
    parts.spawn(http::serve(https, Some(shown), app.clone(), stopped.clone()));
    if let Some(plain) = plain {
        parts.spawn(http::serve(plain, None, app, stopped));
    }

    print!("{}", greeting(&args.library, &state, &settings, plain_port, pid));
    if renewed {
        tracing::info!("a certificate was made for {}", settings.certificate_names.join(", "));
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let mut look = tokio::time::interval(LOOK_AT_CERTIFICATE);
    let feed = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    loop {
        let pause = async {
            match feed {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            // Evidence: this loop turned and no part has ended.
            () = pause => { let _ = sd_notify::notify(&[NotifyState::Watchdog]); }
            _ = look.tick() => if let Err(e) = renew(&state, &mut settings, Timestamp::now(), &certificate) {
                tracing::error!("the certificate is not renewed: {e}");
            },
            _ = parts.join_next() => { tracing::error!("a part ended that should not"); break; }
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let _ = stop.send(true);
    while parts.join_next().await.is_some() {}
    Ok(())
}

fn acceptor(state: &State) -> Result<TlsAcceptor, PkiError> {
    Ok(TlsAcceptor::from(Arc::new(pki::server_tls(state)?)))
}

/// Makes a new certificate if it is time for one, and shows it at all doors; connections that are there stay.
fn renew(
    state: &State,
    settings: &mut Settings,
    now: Timestamp,
    certificate: &watch::Sender<TlsAcceptor>,
) -> Result<(), PkiError> {
    if pki::ensure(state, settings, now)? {
        certificate.send_replace(acceptor(state)?);
        tracing::info!("the certificate was renewed");
    }
    Ok(())
}

/// Until it is time to stop: `stop` is true, or its sender is gone.
async fn until(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What was remembered, and over it what is given now.
fn merge(mut settings: Settings, args: &Args) -> Result<Settings, ServeError> {
    if let Some(site) = &args.site {
        settings.site.clone_from(site);
    }
    if !is_id(&settings.site) {
        return Err(ServeError::Site(settings.site));
    }
    if !args.name.is_empty() {
        settings.names.clone_from(&args.name);
    }
    if let Some(address) = args.bind.filter(|a| !a.is_unspecified()).map(|a| a.to_string())
        && !settings.names.contains(&address)
    {
        settings.names.push(address);
    }
    settings.bind = args.bind;
    settings.https = args.https.unwrap_or(settings.https);
    settings.mqtt = args.mqtt_port.unwrap_or(settings.mqtt);
    if args.mqtt_port.is_some() {
        settings.broker = None;
    }
    if let Some(url) = &args.broker {
        state::broker_address(url).ok_or_else(|| ServeError::BrokerUrl(url.clone()))?;
        settings.broker = Some(url.clone());
    }
    Ok(settings)
}

async fn free_port(bind: Option<IpAddr>) -> Result<u16, ServeError> {
    Ok(http::door(bind, 0).await.map_err(taken(0, "mqtt-port"))?.local_addr()?.port())
}

fn taken(port: u16, option: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |why| ServeError::Port { port, option, why }
}

/// What an operator wants to know, and what a bot needs.
fn greeting(library: &Path, state: &State, settings: &Settings, plain: Option<u16>, broker: Option<u32>) -> String {
    let root = std::fs::read(library.join(ROOT)).ok().and_then(|bytes| serde_json::from_slice::<Root>(&bytes).ok());
    let holds = match root {
        Some(root) => format!("revision {}", root.revision),
        None => "empty: `jukebox-office publish` fills it, no restart needed".into(),
    };
    let plain = plain.map_or(String::new(), |port| format!("  plain    http://{}:{port}/\n", settings.host()));
    let process = broker.map_or_else(|| "not ours".into(), |pid| format!("mosquitto, process {pid}"));
    let (site, url, origin) = (&settings.site, settings.broker_url(), settings.origin());
    let (host, port, _) = state::broker_address(&url).unwrap_or_default();
    let (ca, password) = (state.path("ca.pem"), state.path("bot.password"));
    let (ca, password, folder, library) = (ca.display(), password.display(), state.path(""), library.display());
    let folder = folder.display();
    format!(
        "\
Serving {library} ({holds})
  music    {origin}
{plain}  broker   {url} ({process})
  state    {folder}

A player:  jukebox-office player add lobby --state {folder}
A bot:     host {host}, port {port}, TLS with CA file {ca}
           user bot, password in {password}
Try:       mosquitto_pub -V 5 -h {host} -p {port} --cafile {ca} -u bot -P \"$(cat {password})\" \\
             -q 1 -t jukebox/1/{site}/lobby/command/add -m waterloo
"
    )
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The certificate that is shown at a door, as PEM.
    async fn shown_at(port: u16) -> String {
        let script = format!("openssl s_client -connect 127.0.0.1:{port} 2>/dev/null | openssl x509");
        let ask = move || Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        let out = tokio::task::spawn_blocking(ask).await.unwrap();
        String::from_utf8(out.stdout).unwrap()
    }

    #[tokio::test]
    async fn a_certificate_is_renewed_at_both_doors_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        let bind = Some(IpAddr::from([127, 0, 0, 1]));
        let mut settings = Settings::default();
        pki::ensure(&state, &mut settings, Timestamp::now()).unwrap();
        let (certificate, shown) = watch::channel(acceptor(&state).unwrap());
        let (stop, stopped) = watch::channel(false);
        let https = http::door(bind, 0).await.unwrap();
        let ports = [https.local_addr().unwrap().port(), free_port(bind).await.unwrap()];
        let broker = Broker::start(&state, Setup::of_child(&state, bind, ports[1])).await.unwrap();
        let mut parts = JoinSet::new();
        parts.spawn(broker.keep(stopped.clone(), shown.clone()));
        parts.spawn(http::serve(https, Some(shown), http::router(folder.path()), stopped));

        let pem = || std::fs::read_to_string(state.path("server.pem")).unwrap().replace('\r', "");
        let first = pem();
        for port in ports {
            assert_eq!(shown_at(port).await, first);
        }
        let today = Timestamp::now();
        renew(&state, &mut settings, today, &certificate).unwrap();
        assert_eq!(pem(), first, "it is not time yet");
        renew(&state, &mut settings, today + jiff::SignedDuration::from_hours(24 * 300), &certificate).unwrap();
        assert_ne!(pem(), first);
        assert_eq!(shown_at(ports[0]).await, pem());
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while shown_at(ports[1]).await != pem() {
            assert!(std::time::Instant::now() < deadline, "the broker keeps its old certificate");
        }
        stop.send_replace(true);
        while parts.join_next().await.is_some() {}
    }
}
