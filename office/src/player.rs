//! `jukebox-office player`: a player's access, and the configuration file it is set up with.
//!
//! Adding makes a password, lets it in at the broker (one that runs learns it at once) and writes the player's TOML: the CA
//! is inside, so that nothing has to be trusted on first use. The password is in that file only; the office keeps its hash.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::serve::access;
use crate::serve::broker::{keep_rules, renew_rules};
use crate::serve::control::{self, ControlError};
use crate::serve::pki::{self, PkiError};
use crate::serve::state::{
    Draft, Player, Settings, State, StateError, broker_address, default_folder, is_id, random_word,
};

/// Adds, lists and removes players.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Lets a player in, and writes its configuration file.
    Add(Add),
    /// Lists the players that were added.
    List(Common),
    /// Takes a player's access away; it is disconnected at once.
    Remove {
        /// The player's id.
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Folder of keys, passwords and the broker's data [default: as `serve`].
    #[arg(long, value_name = "DIR", env = "JUKEBOX_OFFICE_STATE")]
    state: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The player's id: 1 to 32 of a-z, 0-9 and `-`.
    name: String,
    #[command(flatten)]
    common: Common,
    /// Where the player finds the library, best first; may be given several times [default: what `serve` serves].
    #[arg(long, value_name = "URL")]
    origin: Vec<String>,
    /// The broker [default: what `serve` runs].
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// The site's id [default: that of `serve`].
    #[arg(long, value_name = "ID")]
    site: Option<String>,
    /// PEM file of the CA that origins and broker are checked against [default: the office's own].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The file to write [default: NAME.toml].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Gives a player that is there a new password.
    #[arg(long)]
    replace: bool,
}

/// Why a player was not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum PlayerError {
    /// The name or the site cannot stand in a topic.
    #[error("`{0}`: an id is 1 to 32 of a-z, 0-9 and `-`, and neither `all` nor `reply`")]
    Id(String),
    /// The name is used.
    #[error("`{0}` is there already: choose another name, or give it a new password with --replace")]
    Twice(String),
    /// The name is not known.
    #[error("`{0}` was never added; `jukebox-office player list` shows who was")]
    Unknown(String),
    /// The output file is there.
    #[error("{} is there already: name another with --out FILE, or overwrite it with --replace", .0.display())]
    FileExists(PathBuf),
    /// The broker's address cannot be used.
    #[error("broker `{0}`: write mqtts://HOST:PORT")]
    BrokerUrl(String),
    /// The running broker did not take the change.
    #[error("the broker at {url} was not changed: {why}")]
    Broker {
        /// Its address.
        url: String,
        /// Why.
        why: ControlError,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no CA.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The CA that was named, or the output, cannot be read or written.
    #[error("{}: {why}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// The configuration cannot be written as TOML.
    #[error("the configuration cannot be written: {0}")]
    Toml(#[from] toml::ser::Error),
}

/// Does what the command line says.
///
/// # Errors
/// [`PlayerError`].
pub fn run(args: &Args) -> Result<ExitCode, PlayerError> {
    match &args.command {
        What::Add(args) => add(args)?,
        What::List(common) => list(&open(common)?)?,
        What::Remove { name, common } => remove(&open(common)?, name)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn open(common: &Common) -> Result<State, PlayerError> {
    Ok(State::open(&common.state.clone().unwrap_or_else(default_folder))?)
}

fn add(args: &Add) -> Result<(), PlayerError> {
    let state = open(&args.common)?;
    let name = args.name.clone();
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let _turn = state.lock_players()?;
    let (settings, site) = settings_for(&state, args)?;
    for id in [&name, &site] {
        if !is_id(id) {
            return Err(PlayerError::Id(id.clone()));
        }
    }
    let mut players = state.players()?;
    if !args.replace && players.iter().any(|p| p.name == name) {
        return Err(PlayerError::Twice(name));
    }
    if !args.replace && out.exists() {
        return Err(PlayerError::FileExists(out));
    }
    let player = Player { name: name.clone(), site, added: Timestamp::now().to_string() };
    let password = random_word()?;
    let ca = args.ca.clone().unwrap_or_else(|| state.path("ca.pem"));
    let ca_pem = std::fs::read_to_string(&ca).map_err(|why| PlayerError::Io { path: ca.clone(), why })?;
    let origins = if args.origin.is_empty() { vec![settings.origin()] } else { args.origin.clone() };
    let text = file(&player, &password, &origins, &settings.broker_url(), &ca_pem)?;

    // On the disk before the broker forgets the old password: a file that cannot be written locks nobody out.
    let file = Draft::write(&out, text.as_bytes(), 0o600)?;
    let known = admit(&state, &settings, &player, &password, &ca)?;
    file.keep()?;
    players.retain(|p| p.name != name);
    players.push(player.clone());
    players.sort_by(|a, b| a.name.cmp(&b.name));
    state.keep_players(&players)?;
    println!(
        "{}: written, for player `{name}` at site `{}`. It holds the password: keep it private.",
        out.display(),
        player.site
    );
    println!("Put it on the player as /etc/jukebox/jukebox.toml (owner jukebox, mode 0600).");
    if let Err(why) = known {
        println!(
            "The broker {} did not take it ({why}): add user `{name}` there with the password from the file.",
            settings.broker_url()
        );
    }
    Ok(())
}

/// Settings of `serve` under what the command line says, and the player's site. Makes the CA if `serve` never ran.
fn settings_for(state: &State, args: &Add) -> Result<(Settings, String), PlayerError> {
    let mut settings = state.settings()?;
    if let Some(_lock) = state.lock()?
        && !state.path("ca.pem").exists()
    {
        pki::ensure(state, &mut settings, Timestamp::now())?;
    }
    if let Some(url) = &args.broker {
        settings.broker = Some(url.clone());
    }
    let url = settings.broker_url();
    broker_address(&url).ok_or(PlayerError::BrokerUrl(url))?;
    let site = args.site.clone().unwrap_or_else(|| settings.site.clone());
    Ok((settings, site))
}

/// Lets the player in: at the broker that runs, else in the rules of the one that will. The inner error is a broker of
/// somebody else that did not take it: its owner has to do it.
fn admit(
    state: &State,
    settings: &Settings,
    player: &Player,
    password: &str,
    ca: &Path,
) -> Result<Result<(), ControlError>, PlayerError> {
    if settings.broker.is_some() {
        return order(state, settings, ca, &access::commands_to_admit(player, password));
    }
    if let Some(_lock) = state.lock()? {
        let mut rules = renew_rules(state)?;
        access::admit(&mut rules, player, password)?;
        keep_rules(state, &rules)?;
        return Ok(Ok(()));
    }
    match order(state, settings, ca, &access::commands_to_admit(player, password))? {
        Ok(()) => Ok(Ok(())),
        Err(why) => Err(PlayerError::Broker { url: settings.broker_url(), why }),
    }
}

/// Sends commands to the broker's security plugin, as the user `office`.
fn order(
    state: &State,
    settings: &Settings,
    ca: &Path,
    commands: &Value,
) -> Result<Result<(), ControlError>, PlayerError> {
    let (host, port, tls) = match &settings.broker {
        Some(url) => broker_address(url).ok_or_else(|| PlayerError::BrokerUrl(url.clone()))?,
        None => {
            let bound = settings.bind.filter(|a| !a.is_unspecified()).map(|a| a.to_string());
            (bound.unwrap_or_else(|| "localhost".into()), settings.mqtt, true)
        }
    };
    Ok(control::order(state, &control::Broker { host, port, ca: tls.then(|| ca.to_owned()) }, commands))
}

fn list(state: &State) -> Result<(), PlayerError> {
    let players = state.players()?;
    if players.is_empty() {
        println!("No player was added yet: `jukebox-office player add NAME`.");
    }
    for Player { name, site, added } in players {
        println!("{name:<32} {site:<32} {added}");
    }
    Ok(())
}

fn remove(state: &State, name: &str) -> Result<(), PlayerError> {
    let _turn = state.lock_players()?;
    let settings = state.settings()?;
    let mut players = state.players()?;
    let before = players.len();
    players.retain(|p| p.name != name);
    if players.len() == before {
        return Err(PlayerError::Unknown(name.to_owned()));
    }
    let lock = state.lock()?;
    if settings.broker.is_some() || lock.is_none() {
        let ca = state.path("ca.pem");
        order(state, &settings, &ca, &access::commands_to_dismiss(name))?
            .map_err(|why| PlayerError::Broker { url: settings.broker_url(), why })?;
        state.keep_players(&players)?;
    } else {
        state.keep_players(&players)?;
        renew_rules(state)?;
    }
    println!("`{name}` has no access any more.");
    Ok(())
}

#[derive(Serialize)]
struct File<'a> {
    office: Office<'a>,
    mqtt: Mqtt<'a>,
}

#[derive(Serialize)]
struct Office<'a> {
    site: &'a str,
    player: &'a str,
    origins: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_pem: Option<&'a str>,
}

#[derive(Serialize)]
struct Mqtt<'a> {
    broker: &'a str,
    user: &'a str,
    password: &'a str,
}

/// The player's configuration: what it needs and nothing else, so that everything else keeps its default.
fn file(
    player: &Player,
    password: &str,
    origins: &[String],
    broker: &str,
    ca_pem: &str,
) -> Result<String, toml::ser::Error> {
    let insecure = broker.starts_with("mqtt://") || origins.iter().any(|o| o.starts_with("http://"));
    let tls = broker.starts_with("mqtts://") || origins.iter().any(|o| o.starts_with("https://"));
    let office = Office { site: &player.site, player: &player.name, origins, insecure, ca_pem: tls.then_some(ca_pem) };
    let text = toml::to_string_pretty(&File { office, mqtt: Mqtt { broker, user: &player.name, password } })?;
    Ok(format!(
        "# Configuration of the player `{}`; goes to /etc/jukebox/jukebox.toml. Holds a password: mode 0600.\n\
         # Every key that may stand here: docs/config.md. After a change: jukebox config check.\n\n{text}",
        player.name
    ))
}
