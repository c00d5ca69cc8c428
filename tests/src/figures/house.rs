//! Parts for figures: the release build of the player, and the music that it plays.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::broker::{Broker, PASSWORD};
use crate::rig::music::{self, Song};
use crate::rig::notify::Notify;
use crate::rig::tls::Ca;
use crate::rig::web::Web;
use crate::rig::{Process, SOON, free_port, root, run, until, write};

/// Rate of all music here, so that the DAC is opened once.
pub(super) const RATE: u32 = 44_100;
/// Songs that sound on one side only, alternately: left, right. What sounds is told by where.
pub(super) const SIDES: usize = 120;
const SIDE_S: f64 = 6.0;
/// Minutes of each long song.
pub(super) const LONG_MIN: f64 = 4.0;
/// Titles of the long songs, with glyphs of each CJK script.
pub(super) const LONG: [&str; 4] = ["夜に歌う音楽", "音乐之夜的歌声", "한국 음악의 밤", "東京ブルース 第四番"];

/// A program of the release build, built first where it is not up to date.
pub(super) fn program(name: &str) -> PathBuf {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--release", "--locked", "--quiet", "-p", "jukebox", "-p", "jukebox-office"]);
        let status = cargo.current_dir(root()).status().unwrap_or_else(|e| panic!("cargo: {e}"));
        assert!(status.success(), "the programs do not build");
        let own = std::env::current_exe().unwrap_or_else(|e| panic!("no path of this program: {e}"));
        // target/<profile>/jukebox-tests
        own.ancestors().nth(2).map(|t| t.join("release")).unwrap_or_default()
    });
    target.join(name)
}

/// A folder on the disk that the build lies on: a temporary folder may be in memory, where a sync costs nothing.
pub(super) fn folder() -> tempfile::TempDir {
    let target = program("jukebox").parent().map(Path::to_owned).unwrap_or_default();
    tempfile::Builder::new().prefix("figures-").tempdir_in(target).unwrap_or_else(|e| panic!("no folder: {e}"))
}

/// Libraries, made when they are first needed.
#[derive(Default)]
pub(super) struct Music {
    long: OnceLock<(tempfile::TempDir, PathBuf)>,
    sides: OnceLock<(tempfile::TempDir, PathBuf)>,
}

impl Music {
    /// The long songs: stereo noise, which FLAC can hardly make smaller.
    pub(super) fn long(&self) -> &Path {
        let made = self.long.get_or_init(|| {
            published(|songs| {
                for (n, title) in LONG.iter().enumerate() {
                    let song =
                        Song {
                            title, artist: "音楽", seconds: 60.0 * LONG_MIN, seed: n as u32 + 1, ..Song::default()
                        };
                    music::make(&songs.join(format!("{n}.flac")), &song);
                }
            })
        });
        &made.1
    }

    /// The short songs, by [`side_title`]: noise left or right.
    pub(super) fn sides(&self) -> &Path {
        let made = self.sides.get_or_init(|| published(|songs| (0..SIDES).for_each(|n| side(songs, n))));
        &made.1
    }
}

/// Title of a short song; even ones sound left, odd ones right.
pub(super) fn side_title(n: usize) -> String {
    format!("Side {n:03}")
}

fn side(songs: &Path, n: usize) {
    let noise = format!("anoisesrc=color=pink:amplitude=0.4:seed={}:sample_rate={RATE}:duration={SIDE_S}", n + 1);
    let pan = if n.is_multiple_of(2) { "pan=stereo|c0=c0|c1=0*c0" } else { "pan=stereo|c0=0*c0|c1=c0" };
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", &noise, "-af", pan]);
    ffmpeg.args(["-metadata", &format!("title={}", side_title(n)), "-metadata", "artist=Side", "-sample_fmt", "s16"]);
    run(ffmpeg.arg(songs.join(format!("{n}.flac"))));
}

fn published(make: impl Fn(&Path)) -> (tempfile::TempDir, PathBuf) {
    let folder = folder();
    let (songs, library) = (folder.path().join("songs"), folder.path().join("library"));
    std::fs::create_dir(&songs).unwrap_or_else(|e| panic!("{}: {e}", songs.display()));
    make(&songs);
    run(Command::new(program("jukebox-office")).arg("publish").arg(&songs).arg(&library));
    (folder, library)
}

/// An office over TLS: nginx and mosquitto. Its player's files lie beside.
pub(super) struct House {
    pub(super) web: Web,
    pub(super) broker: Broker,
    ca: Ca,
    folder: tempfile::TempDir,
}

impl House {
    pub(super) fn new(library: &Path) -> Self {
        let folder = folder();
        let ca = Ca::new(folder.path());
        let port = free_port();
        let at = folder.path().display();
        // Beside the rig's own log one that says when.
        let server = format!(
            "log_format when '$msec $status $body_bytes_sent $http_range $uri'; access_log {at}/when.log when;\n\
             server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {}; ssl_certificate_key {}; root {}; }}",
            ca.certificate.display(),
            ca.key.display(),
            library.display()
        );
        let web = Web::with(folder.path(), port, true, &server);
        let broker = Broker::start(folder.path(), "hq", &["lobby"], Some(&ca));
        Self { web, broker, ca, folder }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration: `output` and `board` are lines of these sections.
    pub(super) fn configure(&self, output: &str, board: &str) -> PathBuf {
        let at = self.folder.path().display();
        let file = self.path("jukebox.toml");
        write(
            &file,
            format!(
                "[office]\nsite = \"hq\"\nplayer = \"lobby\"\norigins = [\"{}\"]\nca = \"{}\"\n\
                 [output]\nfirst_volume = 100\n{output}\n[board]\n{board}\n\
                 [store]\nstate = \"{at}/state\"\ncache = \"{at}/cache\"\nsize_mb = 2000\nfloor_mb = 0\n\
                 [socket]\npath = \"{at}/socket\"\n[mqtt]\nbroker = \"{}\"\npassword = \"{PASSWORD}\"\n",
                self.web.url(),
                self.ca.ca.display(),
                self.broker.url()
            ),
        );
        file
    }

    /// Starts the player; returns when it has its catalogue.
    pub(super) fn player(&self, output: &str, board: &str) -> Player {
        self.player_of(&program("jukebox"), output, board)
    }

    /// The same with a program of its own: with a shared one, another player of this machine would share its memory.
    pub(super) fn player_alone(&self, output: &str, board: &str) -> Player {
        let own = self.path("jukebox");
        std::fs::copy(program("jukebox"), &own).unwrap_or_else(|e| panic!("{}: {e}", own.display()));
        self.player_of(&own, output, board)
    }

    fn player_of(&self, program: &Path, output: &str, board: &str) -> Player {
        let config = self.configure(output, board);
        self.launch(Command::new(program).args(["run", "--config"]).arg(config))
    }

    /// Starts `command`, which is a player of this house.
    pub(super) fn launch(&self, command: &mut Command) -> Player {
        let notify = Notify::new(&self.path("notify"));
        notify.tell(command, None);
        let process = Process::start("lobby", command);
        assert!(notify.wait("READY=1", SOON), "the player is not ready; it said:\n{}", process.lines().join("\n"));
        let player = Player { process, _notify: notify, socket: self.path("socket") };
        player.has_catalogue();
        player
    }
}

/// A running player.
pub(super) struct Player {
    pub(super) process: Process,
    _notify: Notify,
    socket: PathBuf,
}

impl Player {
    /// A line to the player that stays open, so that connecting is not measured.
    pub(super) fn line(&self) -> Line {
        Line::new(&self.socket)
    }

    fn has_catalogue(&self) {
        until("the catalogue is there", SOON, || {
            (self.line().ask("health", "")["data"]["catalogue_tracks"].as_u64() > Some(0)).then_some(())
        });
    }
}

/// An open connection to the player's socket.
pub(super) struct Line {
    write: UnixStream,
    read: BufReader<UnixStream>,
}

impl Line {
    pub(super) fn new(socket: &Path) -> Self {
        let write = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        let read = BufReader::new(write.try_clone().unwrap_or_else(|e| panic!("socket: {e}")));
        Self { write, read }
    }

    /// A command as people type it, and its reply.
    pub(super) fn ask(&mut self, verb: &str, say: &str) -> Value {
        self.send(&json!({"verb": verb, "say": say}))
    }

    /// A command as JSON, and its reply.
    pub(super) fn send(&mut self, command: &Value) -> Value {
        let fail = |e: std::io::Error| panic!("{command}: {e}");
        self.write.write_all(format!("{command}\n").as_bytes()).unwrap_or_else(fail);
        let mut line = String::new();
        self.read.read_line(&mut line).unwrap_or_else(|e| panic!("{command}: {e}"));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{command}: {e}: {line}"))
    }

    /// The same, where it must be obeyed: the reply's data.
    pub(super) fn obeyed(&mut self, verb: &str, say: &str) -> Value {
        let reply = self.ask(verb, say);
        assert_eq!(reply["status"], "ok", "{verb} {say}: {reply}");
        reply["data"].clone()
    }

    /// Adds a track, also one that is queued already.
    pub(super) fn add(&mut self, title: &str) -> u64 {
        let reply = self.send(&json!({"verb": "add", "text": title, "twice": true}));
        reply["data"]["entry"].as_u64().unwrap_or_else(|| panic!("add {title}: {reply}"))
    }

    /// Adds tracks in order.
    pub(super) fn add_all<T: AsRef<str>>(&mut self, titles: impl IntoIterator<Item = T>) {
        for title in titles {
            self.add(title.as_ref());
        }
    }

    /// Waits until every entry of the queue is on the player's disk.
    pub(super) fn on_board(&mut self) {
        until("the queue is on board", Duration::from_secs(120), || {
            let queue = self.obeyed("queue", "");
            let entries = queue["entries"].as_array().map_or(&[][..], Vec::as_slice);
            entries.iter().all(|e| e["on_board_pct"] == 100).then_some(())
        });
    }
}
