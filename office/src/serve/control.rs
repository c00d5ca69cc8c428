//! Changes the access rules of a broker that runs, over MQTT, as the user `office`.
//!
//! mosquitto's own `mosquitto_rr` does the talking: it sends one message and waits for the answer, which is all that is
//! needed. It reads password and commands from a 0600 file of ours, so that no secret is ever an argument.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::access::{CONTROL, OFFICE, refusal};
use super::broker::find;
use super::state::{State, StateError, write_whole};

/// Longest message: the tool reads a line of its file into 1,024 bytes (`client_config_load` of mosquitto 2.0), and what is
/// beyond it as another option.
const LINE: usize = 1_000;
/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the broker's rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The tool is not there.
    #[error("mosquitto_rr is not installed: `sudo apt install mosquitto-clients`")]
    NotInstalled,
    /// The tool cannot be run.
    #[error("mosquitto_rr: {0}")]
    Tool(#[from] io::Error),
    /// The broker took the commands and said no.
    #[error("the broker refused {0}")]
    Refused(String),
    /// Nobody answered: no connection, no dynamic security plugin, or `office` is not its administrator.
    #[error("no answer: {0}")]
    Silent(String),
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Where the broker is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The CA's file for TLS; `None`: plain.
    pub ca: Option<PathBuf>,
}

/// Sends commands to the broker's security plugin, as many at a time as the tool takes, and waits for its answers.
///
/// # Errors
/// [`ControlError`].
pub fn order(state: &State, broker: &Broker, commands: &Value) -> Result<(), ControlError> {
    let mut rest = commands["commands"].as_array().map_or(&[][..], Vec::as_slice);
    while !rest.is_empty() {
        let message = |n: usize| json!({ "commands": rest[..n] });
        let fits = (1..=rest.len()).rev().find(|n| message(*n).to_string().len() <= LINE).unwrap_or(1);
        send(state, broker, &message(fits))?;
        rest = &rest[fits..];
    }
    Ok(())
}

fn send(state: &State, broker: &Broker, commands: &Value) -> Result<(), ControlError> {
    let tool = find("mosquitto_rr").ok_or(ControlError::NotInstalled)?;
    // The tool looks for a file of its own name in the configuration folder; a line is an option. The commands stand there
    // as `-m`: what version 2.0.11 reads with `-f` or `-s` reaches the plugin garbled.
    let options = format!("-u {OFFICE}\n-P {}\n-m {commands}\n", state.password(OFFICE)?);
    let file = state.path("broker").join("mosquitto_rr");
    write_whole(&file, options.as_bytes(), 0o600)?;
    let mut command = Command::new(tool);
    command.env("XDG_CONFIG_HOME", state.path("broker"));
    command.args(["-V", "5", "-q", "1", "-W", &PATIENCE.as_secs().to_string(), "-h", &broker.host]);
    command.args(["-p", &broker.port.to_string(), "-t", CONTROL, "-e", &format!("{CONTROL}/response")]);
    if let Some(ca) = &broker.ca {
        command.arg("--cafile").arg(ca);
    }
    let out = command.stdin(Stdio::null()).output();
    // It may hold a new player's password.
    let _ = fs::remove_file(&file);
    let out = out?;
    match serde_json::from_slice(&out.stdout) {
        Ok(answer) => refusal(&answer).map_or(Ok(()), |why| Err(ControlError::Refused(why))),
        Err(_) => {
            let said = String::from_utf8_lossy(&out.stderr);
            let why = said.lines().next().map_or_else(|| format!("within {} s", PATIENCE.as_secs()), str::to_owned);
            Err(ControlError::Silent(why))
        }
    }
}
