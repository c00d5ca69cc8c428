//! CPU while playing, against MPD and squeezelite: the same FLAC, the same sink, periods of 50 ms, all at the same time.
//!
//! Ours is the whole daemon in an office: TLS, broker, a panel that is drawn. The others have the file, or plain HTTP, and
//! nothing else. The scheduler's account (`schedstat`, in nanoseconds) of all threads; the sink is ALSA with a DAC's clock
//! (`tests/lab/pcm_lab.c`), so that each player does its own waiting. Ours fetches music long before it plays it: what that
//! took is told apart, as a share of what was fetched. The panel beside the others is the OLED's; what the far larger LCD
//! takes is a figure of its own. Either is a file in memory: making a PNG, which no board does, is in the account.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::house::{House, LONG, LONG_MIN, program};
use super::{Bench, Figure, quantile};
use crate::rig::{Process, SOON, root, until, write};

const NAME: &str = "cpu.playing";
const PANEL: &str = "cpu.panel";
/// What is measured at once, and how often.
const WINDOWS: usize = 5;

/// Ratio of our CPU time to that of the lower of the others, the median of five windows; and what drawing costs.
pub(super) fn cpu(bench: &Bench) -> Vec<Figure> {
    let not_here = |why: &str| vec![Figure::not_here(NAME, 1.0, "x", why), Figure::not_here(PANEL, 0.2, "%", why)];
    let there = |name: &&str| {
        Command::new("sh").args(["-c", "command -v \"$0\"", name]).output().is_ok_and(|o| o.status.success())
    };
    let peers: Vec<&str> = ["mpd", "squeezelite"].into_iter().filter(there).collect();
    if peers.is_empty() {
        return not_here("neither mpd nor squeezelite is installed");
    }
    let library = bench.music.long();
    let file = library.with_file_name("songs").join("0.flac");
    let house = House::new(library);
    let Some(alsa) = sink(&house) else {
        return not_here("the sink does not build: a C compiler and libasound2-dev are needed");
    };
    let memory = tempfile::Builder::new().prefix("figures-").tempdir_in("/dev/shm");
    let panel = memory.as_ref().map_or_else(|_| house.path("panel.png"), |folder| folder.path().join("panel.png"));
    let board =
        |profile: &str| format!("profile = \"{profile}\"\npanel = \"png:{}\"\nbuttons = \"none\"", panel.display());
    let config = house.configure("outputs = [\"lab\"]\nperiod_ms = 50", &board("sim-oled"));
    // The original, as the others play it.
    let text = std::fs::read_to_string(&config).unwrap_or_else(|e| panic!("{}: {e}", config.display()));
    write(&config, text.replace("[store]\n", "[store]\nrenditions = \"original\"\n"));
    let player = house
        .launch(Command::new(program("jukebox")).args(["run", "--config"]).arg(config).env("ALSA_CONFIG_PATH", &alsa));
    let mut line = player.line();
    let pid = player.process.id();
    let idle = Used::by(pid);
    let songs = &LONG[..2];
    line.add_all(songs);
    line.on_board();
    let fetching = Used::by(pid).less(&idle).cpu() / (songs.len() as f64 * LONG_MIN * 60.0);
    let mut playing = vec![("jukebox", pid)];
    let others: Vec<(&str, Process)> = peers
        .into_iter()
        .map(|name| (name, if name == "mpd" { mpd(&house, &alsa, &file) } else { squeezelite(&alsa, &file) }))
        .collect();
    playing.extend(others.iter().map(|(name, process)| (*name, process.id())));
    // They read ahead at first.
    std::thread::sleep(Duration::from_secs(10));
    let span = bench.span(Duration::from_secs(30), Duration::from_secs(10));
    let mut windows: Vec<Vec<Used>> = Vec::new();
    let mut void = 0;
    while windows.len() < WINDOWS {
        let xruns = line.obeyed("health", "")["xruns"].clone();
        let before: Vec<Used> = playing.iter().map(|p| Used::by(p.1)).collect();
        std::thread::sleep(span);
        let window = playing.iter().zip(before).map(|(p, before)| Used::by(p.1).less(&before)).collect();
        // What a machine that was held up asked of the player is not what playing costs; nor does that go on for ever.
        if line.obeyed("health", "")["xruns"] == xruns || void == WINDOWS {
            windows.push(window);
        } else {
            void += 1;
        }
    }
    assert_eq!(line.obeyed("now", "")["state"], "playing");
    let per_s = |k: usize, what: fn(&Used) -> f64| {
        quantile(&windows.iter().map(|w| what(&w[k]) / span.as_secs_f64()).collect::<Vec<_>>(), 0.5)
    };
    let each: Vec<String> = playing
        .iter()
        .enumerate()
        .map(|(k, p)| {
            format!("{} {:.2} %, {:.0} switches/s", p.0, per_s(k, Used::cpu) * 100.0, per_s(k, Used::switches))
        })
        .collect();
    let idle = others.iter().enumerate().find(|(k, _)| per_s(k + 1, Used::cpu) < 1e-4);
    assert!(
        idle.is_none(),
        "{} does not play: {:?}",
        idle.map_or("", |i| i.1.0),
        others.iter().map(|o| o.1.lines()).collect::<Vec<_>>()
    );
    let lowest = |w: &Vec<Used>| w[1..].iter().map(Used::cpu).fold(f64::MAX, f64::min);
    let ratio = |more: f64| {
        let all: Vec<f64> = windows.iter().map(|w| (w[0].cpu() + more * span.as_secs_f64()) / lowest(w)).collect();
        quantile(&all, 0.5)
    };
    let threads: Vec<String> = windows[WINDOWS - 1][0]
        .0
        .values()
        .filter(|(_, ns, _)| *ns > 0)
        .map(|(name, ns, switches)| {
            let s = span.as_secs_f64();
            format!("{name} {:.3} % {:.0}/s", *ns as f64 / 1e7 / s, *switches as f64 / s)
        })
        .collect();
    let conditions = format!(
        "median of {WINDOWS} windows of {} s, {void} with an xrun left out; {}; to fetch it over TLS before took {:.3} %, with that {:.2} x; our threads: {}; {}",
        span.as_secs(),
        each.join("; "),
        fetching * 100.0,
        ratio(fetching),
        threads.join(", "),
        bench.load()
    );
    drop((line, player, others));
    let player = house.player("outputs = [\"paced\"]", &board("sim-lcd"));
    let mut line = player.line();
    line.add(LONG[2]);
    line.on_board();
    let before = Used::by(player.process.id());
    std::thread::sleep(span);
    assert_eq!(line.obeyed("now", "")["state"], "playing");
    let panel = Used::by(player.process.id()).less(&before).thread("panel") / span.as_secs_f64() * 100.0;
    let bus = super::bus::busy().unwrap_or_else(|e| e.to_string());
    vec![
        Figure::new(NAME, ratio(0.0), 1.0, "x", conditions),
        Figure::new(PANEL, panel, 0.2, "%", format!("of a core, its PNG in memory, 240x240; {bus}; {}", bench.load())),
    ]
}

/// What each thread has used: its name, nanoseconds, and how often it was woken.
struct Used(BTreeMap<u32, (String, u64, u64)>);

impl Used {
    fn by(pid: u32) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap_or_else(|e| panic!("process {pid}: {e}"));
        let used = |task: std::fs::DirEntry| {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let status = read("status");
            let line =
                |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim().to_owned();
            // A thread may end meanwhile.
            let id = task.file_name().to_str()?.parse().ok()?;
            let ns = read("schedstat").split(' ').next()?.parse().ok()?;
            Some((id, (line("Name:"), ns, line("voluntary_ctxt_switches:").parse().ok()?)))
        };
        Self(tasks.flatten().filter_map(used).collect())
    }

    fn less(mut self, before: &Self) -> Self {
        for (id, (name, ns, switches)) in &mut self.0 {
            // A number may be another thread's by now.
            if let Some(was) = before.0.get(id).filter(|was| was.0 == *name) {
                (*ns, *switches) = (ns.saturating_sub(was.1), switches.saturating_sub(was.2));
            }
        }
        self
    }

    /// Seconds.
    fn cpu(&self) -> f64 {
        self.0.values().map(|u| u.1 as f64 / 1e9).sum()
    }

    fn switches(&self) -> f64 {
        self.0.values().map(|u| u.2 as f64).sum()
    }

    fn thread(&self, name: &str) -> f64 {
        self.0.values().filter(|u| u.0 == name).map(|u| u.1 as f64 / 1e9).sum()
    }
}

/// Builds the sink; the configuration that knows it as `lab`.
fn sink(house: &House) -> Option<PathBuf> {
    let (module, config) = (house.path("libasound_module_pcm_lab.so"), house.path("alsa.conf"));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-shared", "-fPIC", "-DPIC", "-o"])
        .arg(&module)
        .arg(root().join("tests/lab/pcm_lab.c"))
        .arg("-lasound");
    cc.output().ok().filter(|o| o.status.success())?;
    let text = format!(
        "</usr/share/alsa/alsa.conf>\npcm_type.lab {{ lib \"{}\" }}\n\
         pcm.lab {{ type lab hint {{ show on description lab }} }}\n",
        module.display()
    );
    write(&config, text);
    Some(config)
}

/// MPD, which plays the file over and over.
fn mpd(house: &House, alsa: &Path, file: &Path) -> Process {
    let (config, socket) = (house.path("mpd.conf"), house.path("mpd.socket"));
    let text = format!(
        "bind_to_address \"{}\"\nlog_level \"error\"\n\
         audio_output {{\ntype \"alsa\"\nname \"lab\"\ndevice \"lab\"\nmixer_type \"none\"\n\
         buffer_time \"100000\"\nperiod_time \"50000\"\n}}\n",
        socket.display()
    );
    write(&config, text);
    let process = Process::start(
        "mpd",
        Command::new("mpd").args(["--no-daemon", "--stderr"]).arg(&config).env("ALSA_CONFIG_PATH", alsa),
    );
    let mut to = until("mpd", SOON, || UnixStream::connect(&socket).ok());
    let mut from = BufReader::new(to.try_clone().unwrap_or_else(|e| panic!("mpd: {e}")));
    let mut said = String::new();
    let mut read = |said: &mut String| {
        said.clear();
        from.read_line(said).unwrap_or_else(|e| panic!("mpd: {e}"));
    };
    read(&mut said);
    for command in [format!("add \"{}\"", file.display()), "repeat 1".into(), "play".into()] {
        to.write_all(format!("{command}\n").as_bytes()).unwrap_or_else(|e| panic!("mpd: {e}"));
        read(&mut said);
        assert_eq!(said.trim(), "OK", "mpd: {command}: {:?}", process.lines());
    }
    process
}

/// squeezelite, and a server that tells it to play the file (the SlimProto protocol, as far as that takes).
fn squeezelite(alsa: &Path, file: &Path) -> Process {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("no port: {e}"));
    let (control, web) = (bind(), bind());
    let port = |l: &TcpListener| l.local_addr().map_or(0, |a| a.port());
    let (control_port, web_port) = (port(&control), port(&web));
    let bytes = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    std::thread::spawn(move || {
        for mut to in web.incoming().flatten() {
            let mut head = [0; 1_024];
            if to.read(&mut head).is_ok() {
                let _ = to
                    .write_all(b"HTTP/1.0 200 OK\r\nContent-Type: audio/flac\r\n\r\n")
                    .and_then(|()| to.write_all(&bytes));
            }
        }
    });
    let server = format!("127.0.0.1:{control_port}");
    let mut command = Command::new("squeezelite");
    command.args(["-s", &server, "-o", "lab", "-a", "100:2:16:1", "-n", "bench"]).env("ALSA_CONFIG_PATH", alsa);
    let process = Process::start("squeezelite", &mut command);
    let (mut to, _) = control.accept().unwrap_or_else(|e| panic!("squeezelite does not come: {e}"));
    let mut play = b"s1f????\x14\0\0\x30\0\x01\0\0\0\0\0".to_vec();
    play.extend(web_port.to_be_bytes());
    play.extend([127, 0, 0, 1]);
    play.extend(b"GET / HTTP/1.0\r\n\r\n");
    tell(&mut to, b"aude", &[1, 1]);
    tell(&mut to, b"audg", &[0, 0, 0, 0, 0, 0, 0, 0, 1, 255, 0, 1, 0, 0, 0, 1, 0, 0]);
    tell(&mut to, b"strm", &play);
    // It gives up a server that says nothing; and it has much to say itself.
    std::thread::spawn(move || {
        let _ = to.set_read_timeout(Some(Duration::from_secs(5)));
        let mut said = [0; 4_096];
        loop {
            match to.read(&mut said) {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => tell(&mut to, b"strm", b"t0m????\0\0\x30\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            }
        }
    });
    process
}

fn tell(to: &mut TcpStream, what: &[u8; 4], body: &[u8]) {
    let length = (body.len() as u16 + 4).to_be_bytes();
    let _ = to.write_all(&[&length[..], what, body].concat()); // it ends before we do
}
