//! A stock Icecast with stations that ffmpeg feeds, and a way to it that can go dark.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::{Process, SOON, free_port, run, until, write};

/// Its passwords.
const PASSWORD: &str = "rig";
/// How long a relay looks for bytes before it looks whether it should end.
const TURN: Duration = Duration::from_millis(20);

/// A running server. Its stations end with it.
pub struct Icecast {
    process: Process,
    stations: Vec<Process>,
    config: std::path::PathBuf,
    port: u16,
}

impl Icecast {
    /// Starts one with its files in `folder`; returns when it accepts connections.
    ///
    /// # Panics
    /// When icecast2 is missing or does not come up.
    pub fn start(folder: &Path) -> Self {
        let port = free_port();
        let config = folder.join(format!("icecast-{port}.xml"));
        // It does not run as root.
        let root = run(Command::new("id").arg("-u")).trim() == "0";
        let user = if root { "<changeowner><user>nobody</user><group>nogroup</group></changeowner>" } else { "" };
        let at = folder.display();
        write(
            &config,
            format!(
                "<icecast><limits><clients>50</clients><sources>8</sources></limits>\
                 <authentication><source-password>{PASSWORD}</source-password><relay-password>{PASSWORD}</relay-password>\
                 <admin-user>admin</admin-user><admin-password>{PASSWORD}</admin-password></authentication>\
                 <hostname>localhost</hostname><fileserve>0</fileserve>\
                 <listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address></listen-socket>\
                 <paths><basedir>{at}</basedir><logdir>{at}</logdir><webroot>{at}</webroot>\
                 <adminroot>/usr/share/icecast2/admin</adminroot></paths>\
                 <logging><accesslog>-</accesslog><errorlog>-</errorlog><loglevel>3</loglevel></logging>\
                 <security><chroot>0</chroot>{user}</security></icecast>"
            ),
        );
        let process = Self::launch(&config, port);
        Self { process, stations: Vec::new(), config, port }
    }

    fn launch(config: &Path, port: u16) -> Process {
        let process = Process::start("icecast2", Command::new("icecast2").arg("-c").arg(config));
        until("icecast2 accepts connections", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
        process
    }

    /// A station at `/NAME`: a tone of `hertz` in noise, without one silent sample. The name's ending chooses what it sends:
    /// `mp3`, `ogg` (Vorbis), `opus` or `aac`. Returns when it is on the air.
    ///
    /// # Panics
    /// When ffmpeg is missing or fails.
    pub fn station(&mut self, name: &str, hertz: u32) {
        let rate = if name.ends_with("opus") { 48_000 } else { 44_100 };
        self.sends(
            name,
            &format!(
                "sine=frequency={hertz}:sample_rate={rate},volume=2[t];\
                 anoisesrc=color=pink:amplitude=0.1:sample_rate={rate}[n];[t][n]amix=normalize=0"
            ),
        );
    }

    /// The same, with what a graph of ffmpeg's filters gives.
    ///
    /// # Panics
    /// When ffmpeg is missing or fails.
    pub fn sends(&mut self, name: &str, graph: &str) {
        let (codec, form, kind) = match name.rsplit('.').next() {
            Some("ogg") => ("libvorbis", "ogg", "application/ogg"),
            Some("opus") => ("libopus", "ogg", "application/ogg"),
            Some("aac") => ("aac", "adts", "audio/aac"),
            _ => ("libmp3lame", "mp3", "audio/mpeg"),
        };
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", graph]);
        ffmpeg.args([
            "-ac",
            "2",
            "-c:a",
            codec,
            "-b:a",
            "128k",
            "-metadata",
            "title=Tune",
            "-metadata",
            "artist=Tagged",
        ]);
        ffmpeg.args(["-ice_name", "Rig Radio", "-content_type", kind, "-f", form]);
        ffmpeg.arg(format!("icecast://source:{PASSWORD}@127.0.0.1:{}/{name}", self.port));
        self.stations.push(Process::start("ffmpeg", &mut ffmpeg));
        until("the station is on the air", 3 * SOON, || on_air(self.port, name).then_some(()));
    }

    /// Says what `/NAME` plays, as a studio does.
    ///
    /// # Panics
    /// When the server does not take it.
    pub fn title(&self, name: &str, song: &str) {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "-u", &format!("admin:{PASSWORD}"), "-G", "--data-urlencode", &format!("song={song}")]);
        curl.args(["-d", &format!("mount=/{name}"), "-d", "mode=updinfo"]);
        run(curl.arg(format!("http://127.0.0.1:{}/admin/metadata", self.port)));
    }

    /// Kills it, with its stations.
    pub fn stop(&mut self) {
        self.stations.clear();
        self.process.kill();
    }

    /// Starts it again at the same port, without stations.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.stop();
        self.process = Self::launch(&self.config, self.port);
    }

    /// Its port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Whether a station sends.
fn on_air(port: u16, name: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut head = [0; 15];
    let asked = write!(stream, "GET /{name} HTTP/1.0\r\n\r\n").is_ok() && stream.read_exact(&mut head).is_ok();
    asked && head.ends_with(b" 200 OK")
}

/// A way to a server that goes dark as a link does: without a word. What was on the way stays lost, for good.
pub struct Tunnel {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    dark: AtomicBool,
    /// Counts how often it went dark: connections of before are dead.
    times: AtomicU64,
    end: AtomicBool,
}

impl Tunnel {
    /// A way to a port of this machine.
    ///
    /// # Panics
    /// When there is no port left.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("no port: {e}"));
        let own = listener.local_addr().map(|a| a.port()).unwrap_or_default();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for come in listener.incoming().map_while(Result::ok) {
                if shared.end.load(SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || carry(&come, port, &shared));
            }
        });
        Self { port: own, state }
    }

    /// Its near end at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Goes dark, or opens again.
    pub fn dark(&self, dark: bool) {
        if dark {
            self.state.times.fetch_add(1, SeqCst);
        }
        self.state.dark.store(dark, SeqCst);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.state.end.store(true, SeqCst);
        // So that the listener looks.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Carries bytes both ways until either side ends; in the dark none, and none ever again. Who listens hangs up in the end.
fn carry(near: &TcpStream, port: u16, state: &State) {
    let born = state.times.load(SeqCst);
    let lost = state.dark.load(SeqCst);
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
    for side in [near, &far] {
        let _ = side.set_read_timeout(Some(TURN));
        let _ = side.set_nodelay(true);
    }
    let dead = || lost || state.times.load(SeqCst) != born;
    // Whether the connection has come to its end.
    let copy = |mut from: &TcpStream, mut to: &TcpStream, hangs_up: bool| -> bool {
        let mut buffer = [0; 4_096];
        while !state.end.load(SeqCst) {
            match from.read(&mut buffer) {
                Ok(0) => return hangs_up || !dead(),
                Ok(n) if !dead() && to.write_all(&buffer[..n]).is_err() => return true,
                Err(e) if !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return hangs_up || !dead();
                }
                _ => {}
            }
            if dead() && !hangs_up {
                return false;
            }
        }
        true
    };
    let end = |over: bool| {
        for side in [near, &far].into_iter().filter(|_| over) {
            let _ = side.shutdown(Shutdown::Both);
        }
    };
    std::thread::scope(|s| {
        s.spawn(|| end(copy(near, &far, true)));
        end(copy(&far, near, false));
    });
}
