//! The players that are measured: ours, and peers as Debian installs them, with the settings that they come with.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::link::OFFICE;
use super::place::{Place, found};
use super::tones::TRACKS;
use crate::rig::notify::Notify;
use crate::rig::{Process, SOON, program, run, until, write};

/// The office's name. Its name server gives the same address for every name.
pub const HOST: &str = "music.lab";

/// A player to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// This project's daemon, with the library that its office publishes
    Jukebox,
    /// Music Player Daemon, given the URLs of the MP3 files
    Mpd,
    /// mpv, given the same
    Mpv,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jukebox => "jukebox",
            Self::Mpd => "mpd",
            Self::Mpv => "mpv",
        }
    }

    /// A program that it needs and that is not there.
    pub fn missing(self) -> Option<&'static str> {
        let needs: &[&str] = match self {
            Self::Jukebox => &[],
            Self::Mpd => &["mpd", "mpc"],
            Self::Mpv => &["mpv"],
        };
        needs.iter().copied().find(|tool| !found(tool))
    }

    /// What it says that it is.
    pub fn version(self) -> String {
        let program = if self == Self::Jukebox { program("jukebox") } else { self.name().into() };
        let said = run(Command::new(program).arg("--version"));
        said.lines().next().unwrap_or_default().split(" Copyright").next().unwrap_or_default().to_owned()
    }
}

/// A player in its place, ready to play, or playing.
pub struct Player<'a> {
    kind: Kind,
    folder: &'a Path,
    place: &'a Place,
    sound: PathBuf,
    process: Option<Process>,
}

impl<'a> Player<'a> {
    /// Starts what runs before anybody asks for music (a daemon); mpv is started to play.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn prepare(kind: Kind, folder: &'a Path, place: &'a Place, sink: &Path) -> Self {
        let sound = folder.join("recording");
        let card = format!("slave.pcm {{ type labsink file \"{}\" }}", sound.display());
        let library = format!("pcm_type.labsink {{ lib \"{}\" }}", sink.display());
        let text = format!("</usr/share/alsa/alsa.conf>\n{library}\npcm.!default {{ type plug {card} }}\n");
        write(&folder.join("asound.conf"), text);
        let mut player = Self { kind, folder, place, sound, process: None };
        match kind {
            Kind::Jukebox => player.daemon(),
            Kind::Mpd => player.mpd(),
            Kind::Mpv => {}
        }
        player
    }

    /// Asks for the playlist, and for sound.
    ///
    /// # Panics
    /// When the player does not take it.
    pub fn go(&mut self) {
        match self.kind {
            Kind::Jukebox => {
                for (title, _) in TRACKS {
                    run(&mut self.cli(&["add", title]));
                }
            }
            Kind::Mpd => drop(run(&mut self.mpc(&["play"]))),
            Kind::Mpv => {
                let mut mpv = self.command("mpv");
                mpv.args(["--no-config", "--no-video", "--no-terminal", "--ao=alsa"]).args(urls());
                self.process = Some(Process::start("mpv", &mut mpv));
            }
        }
    }

    /// Ends it: what it said, and its recording.
    pub fn end(mut self) -> (Vec<String>, PathBuf) {
        let said = self.process.take().map_or(Vec::new(), |mut process| {
            process.kill();
            process.lines()
        });
        (said, self.sound)
    }

    fn daemon(&mut self) {
        let at = self.folder.display();
        let config = self.folder.join("jukebox.toml");
        // No fallback: what is heard is the queue, and when it waits there is silence, as with the peers.
        let text = format!(
            "[office]\nsite = \"lab\"\nplayer = \"lab\"\norigins = [\"http://{HOST}\"]\ninsecure = true\n\
             [output]\noutputs = [\"default\"]\nfirst_volume = 100\n[board]\npanel = \"none\"\nbuttons = \"none\"\n\
             [store]\nstate = \"{at}/state\"\ncache = \"{at}/cache\"\nfloor_mb = 0\n\
             [fallback]\nwhile_waiting = false\n[socket]\npath = \"{at}/socket\"\n\
             [mqtt]\nbroker = \"mqtt://{HOST}\"\npassword = \"lab\"\n"
        );
        write(&config, text);
        let notify = Notify::new(&self.folder.join("notify"));
        let mut command = self.command(program("jukebox"));
        command.arg("run").arg("--config").arg(&config);
        notify.tell(&mut command, None);
        let process = Process::start("jukebox", &mut command);
        assert!(notify.wait("READY=1", SOON), "the player is not ready:\n{}", process.lines().join("\n"));
        self.process = Some(process);
        until("the player knows the catalogue", SOON, || {
            let found = self.cli(&["search", TRACKS[0].0]).output().ok()?;
            String::from_utf8_lossy(&found.stdout).contains(TRACKS[0].0).then_some(())
        });
    }

    fn mpd(&mut self) {
        let at = self.folder.display();
        let config = self.folder.join("mpd.conf");
        let output = "audio_output {\ntype \"alsa\"\nname \"lab\"\ndevice \"default\"\nmixer_type \"none\"\n}\n";
        write(&config, format!("bind_to_address \"{at}/socket\"\nzeroconf_enabled \"no\"\n{output}"));
        let mut command = self.command("mpd");
        let process = Process::start("mpd", command.args(["--no-daemon", "--stderr"]).arg(&config));
        until("mpd answers", SOON, || self.mpc(&["status"]).output().ok()?.status.success().then_some(()));
        run(self.mpc(&["add"]).args(urls()));
        self.process = Some(process);
    }

    fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("jukebox"));
        command.args(args).env("JUKEBOX_SOCKET", self.folder.join("socket"));
        command
    }

    fn mpc(&self, args: &[&str]) -> Command {
        let mut command = Command::new("mpc");
        command.arg("-q").args(args).env("MPD_HOST", self.folder.join("socket"));
        command
    }

    /// A program in the player's place, before others on this machine, whose sound card is the lab's.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.place.command("nice");
        command.args(["-n", "-10"]).arg(program).current_dir(self.folder).env("HOME", self.folder);
        command.env("ALSA_CONFIG_PATH", self.folder.join("asound.conf")).env_remove("XDG_RUNTIME_DIR");
        command
    }
}

fn urls() -> impl Iterator<Item = String> {
    (0..TRACKS.len()).map(|n| format!("http://{HOST}/mp3/{n}.mp3"))
}

/// The office: a stock nginx and a stock mosquitto.
pub struct Office<'a> {
    folder: &'a Path,
    place: &'a Place,
    running: Vec<Process>,
}

impl<'a> Office<'a> {
    /// Serves the library at `/` and the MP3 files at `/mp3/`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(folder: &'a Path, place: &'a Place, library: &Path, music: &Path) -> Self {
        let (at, library, music) = (folder.display(), library.display(), music.display());
        let nginx = |name: &str, locations: &str| {
            let text = format!(
                "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr;\nevents {{ }}\nhttp {{\n\
                 types {{ audio/mpeg mp3; text/html html; }} default_type application/octet-stream; access_log off;\n\
                 client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;\n\
                 uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;\n\
                 server {{ listen {OFFICE}:80; {locations} }}\n}}\n"
            );
            write(&folder.join(name), text);
        };
        nginx("office.conf", &format!("location / {{ root {library}; }} location /mp3/ {{ alias {music}/; }}"));
        let page = "location = /login { default_type text/html; return 200 \"<html><h1>Welcome</h1></html>\"; }";
        nginx("portal.conf", &format!("location / {{ return 302 http://portal.lab/login; }} {page}"));
        let user = if rustix::process::getuid().is_root() { "user root\n" } else { "" };
        write(&folder.join("broker.conf"), format!("listener 1883 {OFFICE}\nallow_anonymous true\n{user}"));
        let mut office = Self { folder, place, running: Vec::new() };
        office.open();
        let served = || office.place.inside(|| std::net::TcpStream::connect((OFFICE, 80))).ok()?.ok();
        until("nginx accepts connections", SOON, served);
        office
    }

    /// Serves (again).
    pub fn open(&mut self) {
        self.close();
        self.nginx("office.conf");
        let mut broker = self.place.command("mosquitto");
        broker.arg("-c").arg(self.folder.join("broker.conf"));
        self.running.push(Process::start("mosquitto", &mut broker));
    }

    /// A captive portal takes its place.
    pub fn portal(&mut self) {
        self.close();
        self.nginx("portal.conf");
    }

    /// Connections are refused, those that are open end.
    pub fn close(&mut self) {
        self.running.clear();
    }

    fn nginx(&mut self, config: &str) {
        let mut nginx = self.place.command("nginx");
        nginx.arg("-p").arg(self.folder).arg("-c").arg(self.folder.join(config)).args(["-e", "stderr"]);
        self.running.push(Process::start("nginx", &mut nginx));
    }
}
