//! A stock mosquitto with passwords and the contract's access rules: plain, or over TLS.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mqtt::Account;
use super::tls::Ca;
use super::{Process, SOON, free_port, loopbacks, run, until, write};

/// Password of every account of the rig.
pub const PASSWORD: &str = "rig-secret";

/// A running broker.
pub struct Broker {
    process: Process,
    config: PathBuf,
    port: u16,
    ca: Option<PathBuf>,
}

impl Broker {
    /// Starts one with its files in `folder`, accounts `bot` (may all) and `players` (each bound to its own topics);
    /// returns when it accepts connections.
    ///
    /// # Panics
    /// When mosquitto is missing or does not come up.
    pub fn start(folder: &Path, site: &str, players: &[&str], ca: Option<&Ca>) -> Self {
        let port = free_port();
        let at = folder.display();
        let passwords = folder.join("passwords");
        for (n, user) in ["bot"].iter().chain(players).enumerate() {
            let mut tool = Command::new("mosquitto_passwd");
            tool.args(if n == 0 { &["-c", "-b"][..] } else { &["-b"][..] });
            run(tool.arg(&passwords).arg(user).arg(PASSWORD));
        }
        let rules = folder.join("rules");
        write(
            &rules,
            format!(
                "pattern readwrite jukebox/1/+/%u/#\npattern read jukebox/1/{site}/all/command/#\n\
                 pattern write jukebox/1/{site}/reply/#\n\
                 pattern write homeassistant/device/jukebox_%u/config\npattern read homeassistant/status\n\nuser bot\ntopic readwrite #\n"
            ),
        );
        let tls = ca.map_or(String::new(), |ca| {
            format!("certfile {}\nkeyfile {}\n", ca.certificate.display(), ca.key.display())
        });
        let listeners: String = loopbacks().map(|ip| format!("listener {port} {ip}\n{tls}")).collect();
        // As root it would become `mosquitto`, who may not read a test's folder.
        let config = folder.join("mosquitto.conf");
        write(
            &config,
            format!(
                "user root\nallow_anonymous false\npassword_file {}\nacl_file {}\npersistence true\n\
                 persistence_location {at}/\nautosave_interval 1\nmax_packet_size 262144\nset_tcp_nodelay true\n\
                 log_dest stderr\nlog_type all\n{listeners}",
                passwords.display(),
                rules.display()
            ),
        );
        let process = Self::launch(&config, port);
        Self { process, config, port, ca: ca.map(|ca| ca.ca.clone()) }
    }

    /// For a player's configuration: `mqtt://..` or `mqtts://..`.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.ca.is_some() { "mqtts" } else { "mqtt" }, self.port)
    }

    /// How somebody reaches it, `bot` or a player.
    pub fn account(&self, user: &str) -> Account {
        Account {
            port: self.port,
            user: user.to_owned(),
            password: PASSWORD.to_owned(),
            ca: self.ca.clone(),
            client: None,
        }
    }

    /// What it logs.
    pub fn log(&self) -> &Process {
        &self.process
    }

    /// Kills it (-9): connections are reset, nothing is saved.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in order: sessions and retained messages are saved.
    pub fn stop(&mut self) {
        self.process.terminate();
    }

    /// Starts it again, on the same port, with what it had saved.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = Self::launch(&self.config, self.port);
    }

    fn launch(config: &Path, port: u16) -> Process {
        let path = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"].into_iter().find(|p| Path::new(p).exists());
        let process = Process::start("mosquitto", Command::new(path.unwrap_or("mosquitto")).arg("-c").arg(config));
        until("mosquitto accepts connections", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
        process
    }
}
