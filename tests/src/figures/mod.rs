//! The figures that the project claims, measured: `cargo run --release -p jukebox-tests -- figures [NAME..]`.
//!
//! *Figure*: name, value, limit, ratio, verdict, conditions; one line each. A group measures related figures on parts that it
//! starts itself: the player's release build, mosquitto and nginx over TLS, a virtual DAC that keeps real time.
//!
//! Law: what is printed was measured in this run. What cannot be measured here says `NOT HERE` and why; nothing is skipped
//! silently. Times are taken from outside the player, so what the measuring costs counts against it, never for it.

mod bus;
mod catalogue;
mod cpu;
mod disk;
mod flood;
mod house;
mod link_up;
mod live;
mod memory;
mod publish;
mod tape;
mod times;

use std::fmt;
use std::time::Duration;

/// Which figures, and how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Groups to measure; all of them if none is named
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// A minute instead of ten, fewer samples; the line says so
    #[arg(long)]
    pub quick: bool,
}

/// Whether a figure may be, counted from below.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Within its limit.
    Pass,
    /// Beyond it.
    Fail,
    /// It cannot be measured on this machine; why.
    NotHere(String),
}

/// One line of the table. Smaller is better.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    name: &'static str,
    value: f64,
    limit: f64,
    unit: &'static str,
    verdict: Verdict,
    conditions: String,
}

impl Figure {
    /// A figure that was measured.
    pub fn new(name: &'static str, value: f64, limit: f64, unit: &'static str, conditions: impl Into<String>) -> Self {
        // A value that is not a number is beyond every limit.
        let verdict = if value <= limit { Verdict::Pass } else { Verdict::Fail };
        Self { name, value, limit, unit, verdict, conditions: conditions.into() }
    }

    /// A figure that this machine cannot give.
    pub fn not_here(name: &'static str, limit: f64, unit: &'static str, why: impl Into<String>) -> Self {
        Self { name, value: f64::NAN, limit, unit, verdict: Verdict::NotHere(why.into()), conditions: String::new() }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, limit, unit, verdict, conditions } = self;
        match verdict {
            Verdict::NotHere(why) => write!(f, "{name:<24} {:>9} {unit:<3} limit {limit:>7}   NOT HERE: {why}", "-"),
            verdict => {
                let word = if *verdict == Verdict::Pass { "PASS" } else { "FAIL" };
                let ratio = if *limit > 0.0 { format!("{:.2}", value / limit) } else { "-".into() };
                write!(f, "{name:<24} {value:>9.3} {unit:<3} limit {limit:>7} ratio {ratio:>5} {word}  ({conditions})")
            }
        }
    }
}

/// A group: its name, and what measures it.
type Group = (&'static str, fn(&Bench) -> Vec<Figure>);

/// Quick ones first.
const GROUPS: [Group; 13] = [
    ("catalogue", catalogue::catalogue),
    ("written", disk::written),
    ("publish", publish::cpu),
    ("heap", memory::heap),
    ("skip", times::skip),
    ("key", times::key),
    ("first-sound", times::first_sound),
    ("flood", flood::flood),
    ("cpu", cpu::cpu),
    ("link-up", link_up::link_up),
    ("live", live::live),
    ("memory", memory::memory),
    ("large", catalogue::large),
];

/// What all groups share.
pub struct Bench {
    quick: bool,
    music: house::Music,
}

impl Bench {
    /// `long`, or `quick` if that was asked for.
    fn span(&self, long: Duration, quick: Duration) -> Duration {
        if self.quick { quick } else { long }
    }

    /// The load of the machine: what else ran.
    fn load(&self) -> String {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        format!("load {} on {cores} cores", load.split(' ').next().unwrap_or("?"))
    }
}

/// Measures and prints; whether no figure failed.
///
/// # Errors
/// A name that is no group.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    let known = || GROUPS.map(|g| g.0).join(" ");
    if let Some(name) = args.names.iter().find(|n| GROUPS.iter().all(|g| g.0 != n.as_str())) {
        anyhow::bail!("there is no figure `{name}`; there are: {}", known());
    }
    let bench = Bench { quick: args.quick, music: house::Music::default() };
    let wanted = |g: &Group| args.names.is_empty() || args.names.iter().any(|n| n == g.0);
    let mut good = true;
    for (_, measure) in GROUPS.into_iter().filter(wanted) {
        for figure in measure(&bench) {
            good &= figure.verdict != Verdict::Fail;
            println!("{figure}");
        }
    }
    Ok(good)
}

/// The heap figure's player: see `memory::heap`.
///
/// # Errors
/// Those of the player.
pub fn heap_player(config: &std::path::Path, live: fn() -> usize) -> anyhow::Result<()> {
    memory::player(config, live)
}

/// The value below which `part` (0 to 1) of the samples lie: the nearest rank, so p99 of fewer than 100 is the worst.
fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Count, median and worst, for the conditions.
fn spread(samples: &[f64], unit: &str) -> String {
    let (p50, worst) = (quantile(samples, 0.5), quantile(samples, 1.0));
    format!("n {}, median {p50:.1} {unit}, worst {worst:.1}", samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((quantile(&samples, 0.5), quantile(&samples, 0.99), quantile(&samples, 1.0)), (100.0, 198.0, 200.0));
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_line_says_all_and_no_number_is_never_a_pass() {
        let line = Figure::new("memory.pss", 9.0, 12.0, "MB", "idle").to_string();
        assert_eq!(line, "memory.pss                   9.000 MB  limit      12 ratio  0.75 PASS  (idle)");
        assert_eq!(Figure::new("x", f64::NAN, 1.0, "ms", "").verdict, Verdict::Fail);
        let line = Figure::not_here("x", 1.0, "ms", "no disk").to_string();
        assert!(line.ends_with("NOT HERE: no disk"), "{line}");
    }
}
