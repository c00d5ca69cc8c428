//! mosquitto as our child: its configuration, and a watch over its life.
//!
//! Law: one broker at a time; one that died is started again after a pause that grows from 0.5 to 30 s; it ends with us,
//! whether we stop in peace (SIGTERM, then SIGKILL after 1.2 s) or are killed (`setpriv --pdeathsig`, util-linux).

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::state::{State, StateError, write_whole};
use super::{access, until};

/// Largest packet that the broker takes, in bytes. What a player says of a long queue may pass 32 KiB; a player whose message
/// is too long would lose its connection and say it again, for ever: so there is room.
const MAX_PACKET: u32 = 262_144;
/// Within this time a broker listens, or something is wrong.
const START: Duration = Duration::from_secs(5);
/// Within this time it ends when asked to, or it is killed.
const END: Duration = Duration::from_millis(1200);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// mosquitto is not there.
    #[error("mosquitto is not installed: `sudo apt install mosquitto` (or use a broker that is there: --broker URL)")]
    NotInstalled,
    /// It did not start.
    #[error("mosquitto did not start ({0}); is port {1} taken? Choose another with --mqtt-port")]
    NotStarted(String, u16),
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What the configuration is made from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Folder of the broker's own files: rules, data.
    pub folder: PathBuf,
    /// Certificate and key of the listener.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Address to listen at; `None`: all.
    pub bind: Option<IpAddr>,
    /// Port to listen at.
    pub port: u16,
    /// Stay root: for a child of ours that was started as root and reads our own 0600 files.
    pub stay_root: bool,
}

impl Setup {
    /// The child's setup in the office's folder.
    pub fn of_child(state: &State, bind: Option<IpAddr>, port: u16) -> Self {
        Self {
            folder: state.path("broker"),
            certificate: state.path("server.pem"),
            key: state.path("server.key"),
            bind,
            port,
            stay_root: rustix::process::geteuid().is_root(),
        }
    }

    /// mosquitto's configuration. Paths are whole: relative ones would count from wherever it is started.
    pub fn configuration(&self) -> String {
        let folder = self.folder.display();
        let mut text = String::from(
            "# The jukebox's broker: MQTT 5 and 3.1.1 over TLS; who may do what is in the plugin's file.\n",
        );
        if self.stay_root {
            text.push_str("user root\n");
        }
        let bind = self.bind.map_or(String::new(), |a| format!(" {a}"));
        let _ = write!(
            text,
            "\
allow_anonymous false
plugin mosquitto_dynamic_security.so
plugin_opt_config_file {folder}/dynamic-security.json

persistence true
persistence_location {folder}/data/
autosave_interval 30
persistent_client_expiration 14d

max_packet_size {MAX_PACKET}
max_queued_messages 1000
max_inflight_messages 20
set_tcp_nodelay true

log_dest stderr
log_type error
log_type warning

# What follows belongs to the listener; above it, it would open a second, plain one at port 1883.
listener {port}{bind}
max_connections 2000
certfile {certificate}
keyfile {key}
tls_version tlsv1.2
",
            port = self.port,
            certificate = self.certificate.display(),
            key = self.key.display(),
        );
        text
    }
}

/// A broker that runs as our child.
#[derive(Debug)]
pub struct Broker {
    setup: Setup,
    child: Child,
}

impl Broker {
    /// Starts mosquitto and waits until it listens. The rules are made anew, see [`access`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start(state: &State, setup: Setup) -> Result<Self, BrokerError> {
        renew_rules(state)?;
        let data = setup.folder.join("data");
        std::fs::create_dir_all(&data).map_err(|why| StateError::Io { path: data, why })?;
        write_whole(&setup.folder.join("mosquitto.conf"), setup.configuration().as_bytes(), 0o600)?;
        // An answer at the port before we start would be somebody else's.
        if TcpStream::connect((reach(setup.bind), setup.port)).await.is_ok() {
            return Err(BrokerError::NotStarted("somebody listens there".into(), setup.port));
        }
        let child = spawn(&setup)?;
        let mut broker = Self { setup, child };
        let deadline = Instant::now() + START;
        loop {
            if let Ok(Some(status)) = broker.child.try_wait() {
                return Err(BrokerError::NotStarted(status.to_string(), broker.setup.port));
            }
            if TcpStream::connect((reach(broker.setup.bind), broker.setup.port)).await.is_ok() {
                return Ok(broker);
            }
            if Instant::now() > deadline {
                broker.end().await;
                return Err(BrokerError::NotStarted("it does not listen".into(), broker.setup.port));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Starts it again whenever it dies, until `stop` is true; then ends it. Lets it read its certificate again whenever
    /// there is a new one.
    pub async fn keep(mut self, mut stop: watch::Receiver<bool>, mut certificate: watch::Receiver<TlsAcceptor>) {
        let mut pause = Duration::from_millis(500);
        loop {
            let began = Instant::now();
            let status = loop {
                tokio::select! {
                    () = until(&mut stop) => return self.end().await,
                    status = self.child.wait() => break status,
                    Ok(()) = certificate.changed() => self.signal(Signal::HUP),
                }
            };
            tracing::error!("the broker died ({}); it is started again", told(&status));
            // Only a life of a minute shows that it is well again.
            pause = if began.elapsed() > Duration::from_secs(60) { Duration::from_millis(500) } else { pause };
            loop {
                tokio::select! {
                    () = until(&mut stop) => return,
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(Duration::from_secs(30));
                match spawn(&self.setup) {
                    Ok(child) => {
                        self.child = child;
                        tracing::info!("the broker runs again (process {})", self.child.id().unwrap_or_default());
                        break;
                    }
                    Err(e) => tracing::error!("{e}"),
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _ = kill_process(pid, signal);
        }
    }

    async fn end(&mut self) {
        self.signal(Signal::TERM);
        if timeout(END, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Writes the plugin's file anew: today's roles, the players' passwords as they are.
///
/// # Errors
/// [`StateError`].
pub fn renew_rules(state: &State) -> Result<Value, StateError> {
    let old = read_rules(state)?;
    let rules =
        access::rules(&old, &state.players()?, &state.password(access::BOT)?, &state.password(access::OFFICE)?)?;
    keep_rules(state, &rules)?;
    Ok(rules)
}

fn rules_path(state: &State) -> PathBuf {
    state.path("broker").join("dynamic-security.json")
}

fn read_rules(state: &State) -> Result<Value, StateError> {
    let path = rules_path(state);
    match std::fs::read(&path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Value::Null),
        Err(why) => Err(StateError::Io { path, why }),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| StateError::Damaged { path, why }),
    }
}

/// Keeps the plugin's file, for a broker that does not run.
///
/// # Errors
/// [`StateError`].
pub fn keep_rules(state: &State, rules: &Value) -> Result<(), StateError> {
    write_whole(&rules_path(state), rules.to_string().as_bytes(), 0o600)
}

fn spawn(setup: &Setup) -> Result<Child, BrokerError> {
    let mosquitto = find("mosquitto").ok_or(BrokerError::NotInstalled)?;
    // Without setpriv only a `kill -9` of ours leaves it behind.
    let mut command = match find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(mosquitto);
            command
        }
        None => Command::new(mosquitto),
    };
    command.arg("-c").arg(setup.folder.join("mosquitto.conf")).current_dir(&setup.folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    // Whether we are ready is for us to say.
    command.env_remove("NOTIFY_SOCKET");
    // A group of its own: Ctrl-C in the terminal is for us, and we end it after the last message is out.
    command.process_group(0);
    command.spawn().map_err(|e| BrokerError::NotStarted(e.to_string(), setup.port))
}

/// A program on the path, or where Debian keeps daemons: a user's path has no `sbin`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The address at which a listener bound to `bind` is reached from here.
fn reach(bind: Option<IpAddr>) -> IpAddr {
    bind.filter(|a| !a.is_unspecified()).unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

fn told(status: &io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}
