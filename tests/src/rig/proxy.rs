//! A stock tinyproxy: HTTP CONNECT, with a login or without.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use super::{Process, SOON, free_port, until, write};

/// The address that servers see behind it: they can tell who came through and who did not.
pub const OUTSIDE: &str = "127.0.0.2";

/// A running proxy.
pub struct Proxy {
    process: Process,
    port: u16,
}

impl Proxy {
    /// Starts one with its configuration in `folder` and further `lines` in it (`BasicAuth USER PASSWORD`, `ConnectPort N`);
    /// returns when it accepts connections.
    ///
    /// # Panics
    /// When tinyproxy is missing or does not come up.
    pub fn start(folder: &Path, lines: &str) -> Self {
        let port = free_port();
        let config = folder.join(format!("tinyproxy-{port}.conf"));
        write(
            &config,
            format!("Port {port}\nListen 127.0.0.1\nBind {OUTSIDE}\nTimeout 600\nLogLevel Connect\n{lines}\n"),
        );
        let process = Process::start("tinyproxy", Command::new("tinyproxy").arg("-d").arg("-c").arg(config));
        until("tinyproxy accepts connections", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { process, port }
    }

    /// URL for a player's configuration; `login` is `USER:PASSWORD@` or nothing.
    pub fn url(&self, login: &str) -> String {
        format!("http://{login}127.0.0.1:{}", self.port)
    }

    /// What it logs.
    pub fn log(&self) -> &Process {
        &self.process
    }

    /// Kills it: tunnels are cut.
    pub fn stop(&mut self) {
        self.process.kill();
    }
}
