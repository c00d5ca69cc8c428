//! The bench: players behind bad links, in real time, on one machine. `tests/lab/README.md` is its page.
//!
//! A run is a case and a player: two network namespaces, the office in one, the player in the other, an emulated [`link`]
//! between them, and a sound card that remembers what it played and when. What was heard is compared with the playlist.

pub mod case;
pub mod link;
pub mod place;
pub mod players;
pub mod tones;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use case::{Case, What, Window};
use link::{Link, OFFICE};
use place::{Names, Place};
use players::{Kind, Office, Player};
use rustix::time::{ClockId, clock_gettime};
use tones::{Heard, Report};

use crate::rig::{folder, office, root, run as run_tool, write};

/// Which cases and players, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Cases of `tests/lab/cases`, or files of your own; all of those if none is named
    #[arg(value_name = "CASE")]
    pub cases: Vec<String>,
    /// Players
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["jukebox", "mpd", "mpv"])]
    pub players: Vec<Kind>,
    /// Seconds to listen, instead of what the case says
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Runs at a time
    #[arg(long, default_value_t = 4)]
    pub jobs: usize,
    /// Keep recordings and logs in `target/lab/runs`
    #[arg(long)]
    pub keep: bool,
}

/// What all runs share.
struct Lab {
    music: PathBuf,
    library: PathBuf,
    sink: PathBuf,
    runs: Option<PathBuf>,
}

/// One line of the table.
struct Line {
    case: String,
    player: &'static str,
    report: Report,
    troubled: bool,
    megabytes: f64,
}

/// Measures and prints. False when a run failed, or nothing can be measured here.
///
/// # Errors
/// A case that cannot be read, or a lab that cannot be made.
pub fn run(args: &Args) -> Result<bool> {
    if let Some(why) = place::not_here() {
        println!("NOT HERE: {why}");
        return Ok(false);
    }
    let cases = cases(&args.cases)?;
    let mut players = args.players.clone();
    players.retain(|kind| {
        let missing = kind.missing();
        if let Some(tool) = missing {
            println!("NOT HERE: {}: no {tool}: apt-get install {tool}", kind.name());
        }
        missing.is_none()
    });
    let lab = Lab::make(args.keep)?;
    for kind in &players {
        println!("{}: {}", kind.name(), kind.version());
    }
    let todo: Vec<_> = cases.iter().flat_map(|case| players.iter().map(move |kind| (case, *kind))).collect();
    let (next, lines) = (Mutex::new(todo.iter()), Mutex::new(Vec::new()));
    let started = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..args.jobs.clamp(1, todo.len().max(1)) {
            s.spawn(|| {
                while let Some(((name, case), kind)) = take(&next) {
                    // The rig panics where a part does not come up: that run has failed, the others go on.
                    let line = catch_unwind(AssertUnwindSafe(|| lab.measure(name, case, *kind, args.seconds)));
                    match line {
                        Ok(Ok(line)) => lines.lock().unwrap_or_else(PoisonError::into_inner).push(line),
                        Ok(Err(e)) => eprintln!("{name} {}: {e:#}", kind.name()),
                        Err(_) => eprintln!("{name} {}: failed, see above", kind.name()),
                    }
                }
            });
        }
    });
    let mut lines = lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place =
        |line: &Line| todo.iter().position(|((name, _), kind)| *name == line.case && kind.name() == line.player);
    lines.sort_by_key(place);
    println!("\n{}", Line::HEAD);
    lines.iter().for_each(|line| println!("{line}"));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let (runs, jobs, minutes) = (lines.len(), args.jobs, started.elapsed().as_secs_f64() / 60.0);
    println!("\n{runs} of {} runs, {jobs} at a time, in {minutes:.0} min; load {load} at the end", todo.len());
    Ok(!todo.is_empty() && lines.len() == todo.len())
}

fn take<'a, T>(next: &Mutex<std::slice::Iter<'a, T>>) -> Option<&'a T> {
    next.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// The cases by name; all of them if none is named.
fn cases(names: &[String]) -> Result<Vec<(String, Case)>> {
    let home = root().join("tests/lab/cases");
    let mut files: Vec<PathBuf> = names
        .iter()
        .map(|name| if name.ends_with(".case") { name.into() } else { home.join(format!("{name}.case")) })
        .collect();
    if names.is_empty() {
        let all = std::fs::read_dir(&home).with_context(|| home.display().to_string())?;
        files =
            all.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "case")).collect();
        files.sort();
    }
    let name = |file: &Path| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    files.iter().map(|file| Ok((name(file), Case::read(file)?))).collect()
}

impl Lab {
    /// Makes what is not there yet, under `target/lab`: the sound card, the music, the library.
    fn make(keep: bool) -> Result<Self> {
        let home = root().join("target/lab");
        let at = |name: &str| home.join(name);
        std::fs::create_dir_all(at("runs")).with_context(|| home.display().to_string())?;
        let lab = Self {
            music: at("music"),
            library: at("library"),
            sink: at("libasound_module_pcm_labsink.so"),
            runs: keep.then(|| at("runs")),
        };
        let source = root().join("tests/lab/sink.c");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-DPIC", "-o"]).arg(&lab.sink).arg(source);
        run_tool(gcc.args(["-lasound", "-lpthread"]));
        if !lab.library.exists() {
            println!("Making {} minutes of music, once", tones::TRACKS.iter().map(|t| t.1).sum::<usize>().div_ceil(60));
            // Whole, or not there at all.
            let unfinished = tempfile::tempdir_in(&home)?;
            let parts = ["music", "library"].map(|n| unfinished.path().join(n));
            std::fs::create_dir(&parts[0])?;
            tones::make(&parts[0]);
            office::publish(&parts[0], &parts[1]);
            if lab.music.exists() {
                std::fs::remove_dir_all(&lab.music)?;
            }
            std::fs::rename(&parts[0], &lab.music)?;
            std::fs::rename(&parts[1], &lab.library)?;
        }
        Ok(lab)
    }

    fn measure(&self, name: &str, case: &Case, kind: Kind, seconds: Option<f64>) -> Result<Line> {
        let seconds = seconds.unwrap_or(case.seconds);
        let folder = folder();
        let at = |name: &str| -> Result<PathBuf> {
            let path = folder.path().join(name);
            std::fs::create_dir(&path)?;
            Ok(path)
        };
        let (near, far) = (at("player")?, at("office")?);
        let [player, office] = [&near, &far].map(|folder| Arc::new(Place::new(folder, OFFICE)));
        let link = Link::new(case.clone(), &player, &office, 1)?;
        let _names = Names::start(&office, OFFICE.parse()?)?;
        let mut servers = Office::start(&far, &office, &self.library, &self.music);
        let mut plays = Player::prepare(kind, &near, &player, &self.sink);

        let now = clock_gettime(ClockId::Monotonic);
        let (went, went_ns) = (link.go(), now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64);
        plays.go();
        let mut edges: Vec<(f64, bool, What)> = Vec::new();
        for Window { from, to, what } in &case.windows {
            edges.extend([(*from, true, *what), (*to, false, *what)]);
        }
        edges.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (t, begins, what) in edges.into_iter().filter(|e| e.0 < seconds) {
            sleep_until(went, t);
            match (what, begins) {
                (What::Server, true) => servers.close(),
                (What::Portal, true) => servers.portal(),
                (What::Server | What::Portal, false) => servers.open(),
                (What::Interface, begins) => link.interface(!begins)?,
                _ => {}
            }
        }
        sleep_until(went, seconds);
        let megabytes = link.carried_down() as f64 / 1e6;
        let (said, sound) = plays.end();
        if let Some(runs) = &self.runs {
            let kept = runs.join(format!("{name}-{}", kind.name()));
            write(&kept.with_extension("log"), said.join("\n"));
            // A player that never opened the sound card left no recording.
            let _ = std::fs::copy(&sound, kept.with_extension("sound"));
        }
        let recovers_at = case.recovers_at(seconds);
        let report = Heard::read(&sound, went_ns, seconds)?.report(recovers_at);
        ensure!(megabytes > 0.0, "nothing passed the link: the run measured nothing");
        let line = Line { case: name.into(), player: kind.name(), report, troubled: recovers_at.is_some(), megabytes };
        println!("{line}");
        Ok(line)
    }
}

fn sleep_until(start: Instant, t: f64) {
    std::thread::sleep((start + Duration::from_secs_f64(t)).saturating_duration_since(Instant::now()));
}

impl Line {
    const HEAD: &str = "| case | player | first sound s | silence s (times) | recovery s | lost s | lost entries | again s | MB |\n\
                        |---|---|---:|---:|---:|---:|---:|---:|---:|";
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, player, report: r, troubled, megabytes } = self;
        let start = r.start.map_or("never".into(), |s| format!("{s:.1}"));
        let silence = match (r.start, r.stalls) {
            (None, _) => "all".into(),
            (_, 0) => "0".into(),
            (_, n) => format!("{:.1} ({n}){}", r.silence, if r.ended_silent { ", to the end" } else { "" }),
        };
        let recovery = match (r.recovery, troubled) {
            (Some(s), _) => format!("{s:.1}"),
            (None, true) => "never".into(),
            (None, false) => "".into(),
        };
        let (lost, entries, again) = (r.lost, r.lost_entries, r.again);
        write!(
            f,
            "| {case} | {player} | {start} | {silence} | {recovery} | {lost} | {entries} | {again:.1} | {megabytes:.1} |"
        )
    }
}
