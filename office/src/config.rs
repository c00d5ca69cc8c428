//! `jukebox-office config`: the same office under a stock nginx and a stock mosquitto, as their own configuration files.
//!
//! What is printed serves the same objects with the same headers, certificates and access rules as `jukebox-office serve`;
//! the lines at its top say where it goes and what to run.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

use crate::serve::broker::{Setup, renew_rules};
use crate::serve::pki::{self, PkiError};
use crate::serve::state::{Settings, State, StateError, default_folder};

/// Prints a configuration for a stock nginx or mosquitto.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// For nginx, the file /etc/nginx/conf.d/jukebox.conf.
    Nginx {
        /// The library that `publish` wrote.
        library: PathBuf,
        #[command(flatten)]
        common: Common,
        /// Port of HTTPS [default: that of `serve`].
        #[arg(long, value_name = "PORT")]
        https: Option<u16>,
    },
    /// For mosquitto, the file /etc/mosquitto/conf.d/jukebox.conf.
    Mosquitto {
        #[command(flatten)]
        common: Common,
        /// Port of MQTT over TLS [default: that of `serve`].
        #[arg(long, value_name = "PORT")]
        mqtt_port: Option<u16>,
        /// Folder of the broker's own copies of key and rules: its user cannot read the office's.
        #[arg(long, value_name = "DIR", default_value = "/var/lib/mosquitto/jukebox")]
        dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Folder of keys and passwords [default: as `serve`].
    #[arg(long, value_name = "DIR", env = "JUKEBOX_OFFICE_STATE")]
    state: Option<PathBuf>,
    /// Name or address that players reach this machine by; may be given several times [default: as `serve`].
    #[arg(long, value_name = "HOSTNAME")]
    name: Vec<String>,
    /// Address to listen at [default: all].
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,
}

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// There is no library.
    #[error("{}: {why}; `jukebox-office publish` makes a library", .path.display())]
    Library {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

/// Prints what the command line says.
///
/// # Errors
/// [`PrintError`].
pub fn run(args: &Args) -> Result<ExitCode, PrintError> {
    match &args.what {
        What::Nginx { library, common, https } => {
            let library = library.canonicalize().map_err(|why| PrintError::Library { path: library.clone(), why })?;
            let (state, settings) = prepare(common, |s| s.https = https.unwrap_or(s.https))?;
            print!("{}", nginx(&library, &state, &settings, common.bind));
        }
        What::Mosquitto { common, mqtt_port, dir } => {
            let (state, settings) = prepare(common, |s| s.mqtt = mqtt_port.unwrap_or(s.mqtt))?;
            print!("{}", mosquitto(dir, &state, &settings, common.bind));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder with everything in it, and the settings with what is given now. While `serve` runs nothing is changed.
fn prepare(common: &Common, change: impl FnOnce(&mut Settings)) -> Result<(State, Settings), PrintError> {
    let state = State::open(&common.state.clone().unwrap_or_else(default_folder))?;
    let mut settings = state.settings()?;
    change(&mut settings);
    if !common.name.is_empty() {
        settings.names.clone_from(&common.name);
    }
    if let Some(_lock) = state.lock()? {
        pki::ensure(&state, &mut settings, Timestamp::now())?;
        state.keep_settings(&settings)?;
        renew_rules(&state)?;
    }
    Ok((state, settings))
}

/// `listen` lines: HTTP/2 in the form that nginx 1.22 (Debian 12) and later take.
fn listen(bind: Option<IpAddr>, port: u16) -> String {
    match bind {
        Some(IpAddr::V6(address)) => format!("    listen [{address}]:{port} ssl http2;\n"),
        Some(IpAddr::V4(address)) => format!("    listen {address}:{port} ssl http2;\n"),
        None => format!("    listen {port} ssl http2;\n    listen [::]:{port} ssl http2;\n"),
    }
}

/// nginx's site. Its user (`www-data`) must be able to read the library; the key it reads as root.
fn nginx(library: &Path, state: &State, settings: &Settings, bind: Option<IpAddr>) -> String {
    let listen = listen(bind, settings.https);
    let (pem, key, library) = (state.path("server.pem"), state.path("server.key"), library.display());
    let (pem, key, names) = (pem.display(), key.display(), settings.names.join(" "));
    format!(
        r#"# The jukebox's library. Put this into /etc/nginx/conf.d/jukebox.conf, then: sudo nginx -t && sudo systemctl reload nginx
# The user www-data must be able to read {library}
# The certificate is renewed by `jukebox-office config nginx`: run it every half year, and reload.
server {{
{listen}    server_name {names};
    ssl_certificate "{pem}";
    ssl_certificate_key "{key}";
    ssl_protocols TLSv1.2 TLSv1.3;
    server_tokens off;

    root "{library}";
    default_type application/octet-stream;
    # With Debian's default, `tcp_nopush on`, short answers may wait 40 ms for more.
    tcp_nopush off;
    # A compressed answer would lose its strong ETag, and music does not shrink.
    gzip off;
    max_ranges 1;

    # The root is the only object that changes: it is asked for every time.
    location = /library.json {{
        default_type application/json;
        add_header Cache-Control "no-cache" always;
        add_header X-Content-Type-Options "nosniff" always;
    }}
    # Objects are named by their SHA-256: they never change.
    location ~ "^/o/([0-9a-f]{{2}})/\1[0-9a-f]{{62}}$" {{
        add_header Cache-Control "public, max-age=31536000, immutable";
        add_header X-Content-Type-Options "nosniff" always;
    }}
    location / {{
        return 404;
    }}
}}
"#
    )
}

/// mosquitto's configuration, with copies of key and rules that its user can read and change.
fn mosquitto(dir: &Path, state: &State, settings: &Settings, bind: Option<IpAddr>) -> String {
    let setup = Setup {
        folder: dir.into(),
        certificate: dir.join("server.pem"),
        key: dir.join("server.key"),
        bind,
        port: settings.mqtt,
        stay_root: false,
    };
    let from = state.path("");
    let (from, dir, port, host) = (from.display(), dir.display(), settings.mqtt, settings.host());
    format!(
        "\
# Put this into /etc/mosquitto/conf.d/jukebox.conf, after these two, which give the broker copies of its own:
#   sudo install -d -o mosquitto -m 700 {dir} {dir}/data
#   sudo install -o mosquitto -m 600 {from}server.pem {from}server.key {from}broker/dynamic-security.json {dir}
# then: sudo systemctl restart mosquitto. Debian's own mosquitto.conf also sets persistence and a log: remove those lines there.
# Players are added while it runs: jukebox-office player add NAME --broker mqtts://{host}:{port}
{}",
        setup.configuration()
    )
}
