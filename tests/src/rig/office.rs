//! The office's programs: publish a library, serve it, add players.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::mqtt::Account;
use super::notify::Notify;
use super::{Process, SOON, program, run};

/// Publishes `music` into `library`; returns the summary that it printed.
///
/// # Panics
/// When publish fails.
pub fn publish(music: &Path, library: &Path) -> String {
    run(Command::new(program("jukebox-office")).arg("publish").arg(music).arg(library))
}

/// A running `jukebox-office serve`, with its own broker, on free ports of 127.0.0.1, site `hq`.
pub struct Office {
    process: Process,
    state: PathBuf,
    /// What it said when it was ready.
    pub greeting: Vec<String>,
}

impl Office {
    /// Serves `library`, keeping keys and passwords in `state`; returns when it is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(state: &Path, library: &Path) -> Self {
        let notify = Notify::new(&state.with_extension("notify"));
        let mut command = Command::new(program("jukebox-office"));
        command.arg("serve").arg(library).arg("--state").arg(state);
        command.args([
            "--bind",
            "127.0.0.1",
            "--name",
            "localhost",
            "--site",
            "hq",
            "--https",
            "0",
            "--mqtt-port",
            "0",
        ]);
        notify.tell(&mut command, None);
        let process = Process::start("office", &mut command);
        assert!(notify.wait("READY=1", SOON), "the office is not ready; it said:\n{}", process.lines().join("\n"));
        process.line("Try:");
        let greeting = process.lines();
        Self { process, state: state.to_owned(), greeting }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Lets a player in; returns its configuration file.
    ///
    /// # Panics
    /// When the office refuses.
    pub fn add(&self, player: &str) -> PathBuf {
        let file = self.state.with_file_name(format!("{player}.toml"));
        let mut command = Command::new(program("jukebox-office"));
        run(command.args(["player", "add", player, "--state"]).arg(&self.state).arg("--out").arg(&file));
        file
    }

    /// How a bot reaches the broker, as the greeting says it.
    ///
    /// # Panics
    /// When the greeting does not say so.
    pub fn bot(&self) -> Account {
        let line = self.greeting.iter().find(|l| l.starts_with("A bot:"));
        let port = line.and_then(|l| l.split("port ").nth(1)).and_then(|l| l.split(',').next());
        let port = port.and_then(|p| p.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the greeting names no port:\n{}", self.greeting.join("\n")));
        let password = std::fs::read_to_string(self.state.join("bot.password"));
        let password = password.unwrap_or_else(|e| panic!("bot.password: {e}")).trim().to_owned();
        Account { port, user: "bot".into(), password, ca: Some(self.state.join("ca.pem")), client: None }
    }
}
