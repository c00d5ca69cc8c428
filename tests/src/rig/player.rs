//! A player's daemon with a configuration of the test's own and a virtual DAC that records.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::broker::PASSWORD;
use super::notify::Notify;
use super::recording::Recording;
use super::{Process, SOON, program, run, write};

/// What a test may want of a player. `..Setup::default()` for the rest.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The player's id; the site is `hq`.
    pub player: String,
    /// What it calls the office's machine, where the rig chooses the URLs.
    pub host: String,
    /// The `/etc/hosts` that it sees, in a mount namespace of its own; none: the machine's.
    pub hosts: Option<String>,
    /// The network namespace that it runs in; none: the test's.
    pub network: Option<PathBuf>,
    /// How far its wall clock is off, in seconds; then its kernel says that nobody keeps it.
    pub clock_off_s: i64,
    /// Folders or URLs.
    pub origins: Vec<String>,
    /// The CA of origins and broker; without it plain connections are allowed.
    pub ca: Option<PathBuf>,
    /// URL of the broker; its password is the rig's.
    pub broker: Option<String>,
    /// Lines for `[office]`, beside these.
    pub office: String,
    /// Lines for `[output]`, beside the recording.
    pub output: String,
    /// Lines for `[board]`.
    pub board: String,
    /// Lines for `[store]`, beside its folders and, unless they name one, its size. Originals only, unless told otherwise: recordings are compared sample for sample.
    pub store: String,
    /// Lines for `[fallback]`. Silence, unless told otherwise.
    pub fallback: String,
    /// Lines for `[streams]`.
    pub streams: String,
    /// What starts it, where it is not started straight: a program and its arguments before `jukebox run --config FILE`.
    pub by: Vec<String>,
    /// Watchdog that it is told to feed.
    pub watchdog: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            player: "lobby".into(),
            host: "127.0.0.1".into(),
            hosts: None,
            network: None,
            clock_off_s: 0,
            origins: Vec::new(),
            ca: None,
            broker: None,
            office: String::new(),
            output: "first_volume = 100\n".into(),
            board: "panel = \"none\"\nbuttons = \"none\"\n".into(),
            store: "renditions = \"original\"\n".into(),
            fallback: "while_waiting = false\n".into(),
            streams: String::new(),
            by: Vec::new(),
            watchdog: None,
        }
    }
}

/// A running `jukebox run`.
pub struct Player {
    process: Process,
    notify: Notify,
    folder: PathBuf,
    setup: Setup,
    starts: u32,
}

impl Player {
    /// Starts a player with all its files in `folder`; returns when it says that it is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(folder: &Path, setup: Setup) -> Self {
        std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let (notify, process) = Self::launch(folder, &setup, 1);
        Self { process, notify, folder: folder.to_owned(), setup, starts: 1 }
    }

    /// Ends it with `KILL` (a crash) and starts it again on the same files; the recording is a new one.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn crash_and_start_again(&mut self) {
        self.process.kill();
        self.start_again();
    }

    /// Starts it again on the same files, after it was ended; the recording is a new one.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.starts += 1;
        (self.notify, self.process) = Self::launch(&self.folder, &self.setup, self.starts);
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// As what it was started.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The service manager's end.
    pub fn notify(&self) -> &Notify {
        &self.notify
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("jukebox.toml")
    }

    /// Runs the command line beside it: `jukebox ARGS` with its socket.
    ///
    /// # Panics
    /// When the program cannot be run; a refusal is in the output.
    pub fn cli(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program("jukebox"));
        command.args(args).env("JUKEBOX_SOCKET", self.folder.join("socket"));
        command.output().unwrap_or_else(|e| panic!("jukebox {args:?}: {e}"))
    }

    /// The same, where it must succeed: what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn told(&self, args: &[&str]) -> String {
        run(Command::new(program("jukebox")).args(args).env("JUKEBOX_SOCKET", self.folder.join("socket")))
    }

    /// A connection to its socket (JSON lines).
    ///
    /// # Panics
    /// When it does not accept one.
    pub fn socket(&self) -> UnixStream {
        let path = self.folder.join("socket");
        UnixStream::connect(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// What left the virtual DAC since the last start, as far as it is written.
    pub fn recording(&self) -> Recording {
        Recording::read(&recording(&self.folder, self.starts))
    }

    fn launch(folder: &Path, setup: &Setup, start: u32) -> (Notify, Process) {
        let config = folder.join("jukebox.toml");
        write(&config, text(folder, setup, &recording(folder, start)));
        let notify = Notify::new(&folder.join("notify"));
        let mut command = Command::new(program("jukebox"));
        if let [by, arguments @ ..] = &setup.by[..] {
            command = Command::new(by);
            command.args(arguments).arg(program("jukebox"));
        }
        if let Some(hosts) = &setup.hosts {
            let file = folder.join("hosts");
            write(&file, hosts);
            command = Command::new("unshare");
            command.args(["--map-root-user", "--mount", "sh", "-c"]);
            command.arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"").arg(file).arg(program("jukebox"));
        }
        if let Some(network) = &setup.network {
            let mut enter = Command::new("nsenter");
            enter.arg(format!("--net={}", network.display())).arg(command.get_program()).args(command.get_args());
            command = enter;
        }
        command.args(["run", "--config"]).arg(&config).env("JUKEBOX_LOG", "debug,rustls=info,hyper=info,h2=info");
        if setup.clock_off_s != 0 {
            super::clock::put_off(&mut command, folder, setup.clock_off_s);
        }
        notify.tell(&mut command, setup.watchdog);
        let process = Process::start(&setup.player, &mut command);
        assert!(notify.wait("READY=1", SOON), "the player is not ready; it said:\n{}", process.lines().join("\n"));
        (notify, process)
    }
}

fn recording(folder: &Path, start: u32) -> PathBuf {
    folder.join(format!("sound-{start}.wav"))
}

fn text(folder: &Path, setup: &Setup, recording: &Path) -> String {
    let Setup { player, origins, ca, broker, office, output, board, store, fallback, streams, .. } = setup;
    let (at, record) = (folder.display(), recording.display());
    let trust = match ca {
        Some(ca) => format!("ca = \"{}\"", ca.display()),
        None => "insecure = true".to_owned(),
    };
    let size = if store.contains("size_mb") { "" } else { "size_mb = 1000" };
    let mqtt = broker.as_ref().map_or(String::new(), |url| {
        format!("[mqtt]\nbroker = \"{url}\"\npassword = \"{PASSWORD}\"\nhome_assistant = true\nspread_s = 1\n")
    });
    format!(
        "[office]\nsite = \"hq\"\nplayer = \"{player}\"\norigins = {origins:?}\n{trust}\n{office}\n\
         [output]\nrecord = \"{record}\"\n{output}\n[board]\n{board}\n\
         [store]\nstate = \"{at}/state\"\ncache = \"{at}/cache\"\n{size}\nfloor_mb = 0\n{store}\n\
         [fallback]\n{fallback}\n[streams]\n{streams}\n\
         [socket]\npath = \"{at}/socket\"\n{mqtt}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_configuration_is_a_right_one() {
        let folder = crate::rig::folder();
        let file = folder.path().join("jukebox.toml");
        let ca = crate::rig::tls::Ca::new(folder.path());
        let plain = Setup {
            origins: vec!["http://127.0.0.1:1".into(), "/music".into()],
            broker: Some("mqtt://127.0.0.1:1".into()),
            ..Setup::default()
        };
        let sealed = Setup {
            origins: vec!["https://127.0.0.1:1".into()],
            ca: Some(ca.ca),
            broker: Some("mqtts://127.0.0.1:1".into()),
            ..Setup::default()
        };
        for setup in [plain, sealed] {
            write(&file, text(folder.path(), &setup, Path::new("sound.wav")));
            let config = jukebox::config::Config::load(&file).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((config.office.player.as_str(), &config.office.origins), ("lobby", &setup.origins));
            assert!(config.output.record.is_some() && config.mqtt.is_some());
        }
    }
}
