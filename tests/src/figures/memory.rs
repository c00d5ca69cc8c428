//! Memory: of the real daemon as the kernel counts it, and of its live heap as the allocator counts it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::house::{House, LONG, Line, Player};
use super::{Bench, Figure};
use crate::rig::until;

/// What smaps_rollup says, in MB (10^6 bytes).
fn rollup(pid: u32, keys: &[&str]) -> f64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let kib = |key: &&str| {
        let line = text.lines().find_map(|l| l.strip_prefix(*key));
        line.and_then(|l| l.trim_end_matches("kB").trim().parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{path}: no {key}"))
    };
    keys.iter().map(kib).sum::<u64>() as f64 * 1_024.0 / 1e6
}

/// How long memory is watched.
const WATCHED: Duration = Duration::from_secs(60);

/// The daemon as it stands in an office: music over TLS, broker over TLS, an LCD with CJK on it.
pub(super) fn memory(bench: &Bench) -> Vec<Figure> {
    let house = House::new(bench.music.long());
    let board =
        format!("profile = \"sim-lcd\"\npanel = \"png:{}\"\nbuttons = \"none\"", house.path("panel.png").display());
    let player = house.player_alone("outputs = [\"paced\"]", &board);
    let mut line = player.line();
    line.add_all(LONG);
    until("it plays", crate::rig::SOON, || (line.obeyed("now", "")["state"] == "playing").then_some(()));
    let span = bench.span(Duration::from_secs(600), Duration::from_secs(60));
    let pid = player.process.id();
    // The figure is the mean of the last while, nobody asking anything: pages of the program come and go.
    let watched = WATCHED.min(span / 2);
    std::thread::sleep(span - watched);
    let samples: Vec<[f64; 5]> = (0..watched.as_secs())
        .map(|_| {
            std::thread::sleep(Duration::from_secs(1));
            let kernel = |key: &str| rollup(pid, &[key]);
            // What is the process's alone: heap, stacks, data. Clean pages of the program are the page cache's, told apart.
            ["Pss:", "Private_Dirty:", "Private_Clean:", "Pss_File:", "Rss:"].map(kernel)
        })
        .collect();
    let highest = |n: usize| samples.iter().map(|s| s[n]).fold(0.0, f64::max);
    let mean = |n: usize| samples.iter().map(|s| s[n]).sum::<f64>() / samples.len().max(1) as f64;
    assert_eq!(line.obeyed("now", "")["state"], "playing", "after {span:?}");
    let health = line.obeyed("health", "");
    let conditions = format!(
        "the mean of a sample a second in the last {} s of {} min of FLAC 44.1/16, TLS to nginx and mosquitto, CJK title on a \
         240x240 panel; highest {:.1}; program and libraries {:.1} of the mean, RSS {:.1}; underruns {}, {}",
        watched.as_secs(),
        span.as_secs() / 60,
        highest(0),
        mean(3),
        mean(4),
        health["underruns"],
        bench.load()
    );
    vec![
        Figure::new("memory.pss", mean(0), 12.0, "MB", &conditions),
        Figure::new(
            "memory.private",
            mean(1),
            8.0,
            "MB",
            format!("Private_Dirty, beside {:.1} MB Private_Clean; {conditions}", mean(2)),
        ),
    ]
}

/// The daemon's own code in a process that counts what lives on its heap; the DAC takes all it is given, so that an hour
/// passes in seconds.
pub(super) fn heap(bench: &Bench) -> Vec<Figure> {
    let house = House::new(bench.music.long());
    let config = house.configure("outputs = [\"unpaced\"]", "panel = \"none\"\nbuttons = \"none\"");
    let own = std::env::current_exe().unwrap_or_else(|e| panic!("no path of this program: {e}"));
    let player = house.launch(Command::new(own).arg("heap-player").arg(config));
    let mut line = player.line();
    let early = after(10, &mut line, &player);
    let late = after(70, &mut line, &player);
    let grown = (late.0 as f64 - early.0 as f64) / 1_000.0;
    let conditions = format!(
        "live Rust heap {:.0} kB when stopped after 10 min, {:.0} kB after 70, unpaced; with the C libraries' \
         anonymous memory {:.1} and {:.1} MB; {}",
        early.0 as f64 / 1_000.0,
        late.0 as f64 / 1_000.0,
        early.1,
        late.1,
        bench.load()
    );
    vec![Figure::new("heap.growth", grown.abs(), 64.0, "kB", conditions)]
}

/// Plays until so many minutes have been heard since the start, stops, and returns live bytes and anonymous MB.
fn after(minutes: u64, line: &mut Line, player: &Player) -> (u64, f64) {
    let heard = |line: &mut Line| line.obeyed("now", "")["entry"].as_u64();
    // Long songs have four minutes each; entries count from 1.
    let want = minutes / 4 + 1;
    while heard(line).is_none_or(|e| e <= want) {
        let queued = line.obeyed("queue", "")["total"].as_u64().unwrap_or(0);
        if queued < 4 {
            line.add_all(LONG);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // The same state both times: nothing plays, nothing is queued, nothing is on its way.
    line.obeyed("stop", "");
    let queue = line.obeyed("queue", "");
    for entry in queue["entries"].as_array().into_iter().flatten() {
        line.obeyed("remove", &entry["entry"].to_string());
    }
    std::thread::sleep(Duration::from_secs(3));
    let mark = player.process.mark();
    player.process.signal("USR1");
    let told = player.process.line_from(mark, crate::rig::SOON, "live bytes", |l| l.starts_with("live "));
    let live = told.trim_start_matches("live ").parse().unwrap_or_else(|e| panic!("{told}: {e}"));
    (live, rollup(player.process.id(), &["Anonymous:"]))
}

/// A player in this process. On USR1 it prints how many bytes are `live`.
pub(super) fn player(config: &Path, live: fn() -> usize) -> anyhow::Result<()> {
    #[derive(clap::Parser)]
    struct Of {
        #[command(flatten)]
        run: jukebox::cli::RunArgs,
    }
    let args = <Of as clap::Parser>::parse_from([Path::new("player"), Path::new("--config"), config]).run;
    let config = jukebox::config::Config::load(config)?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let Ok(mut usr1) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()) else {
                return;
            };
            while usr1.recv().await.is_some() {
                println!("live {}", live());
            }
        });
    });
    jukebox::driver::run(&config, &args)
}
