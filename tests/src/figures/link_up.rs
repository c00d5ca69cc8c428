//! How soon a silent player sounds again after its link is back: from the moment that the cable is in, or a black hole ends, to
//! the samples that leave the virtual DAC.

use std::time::{Duration, Instant};

use super::tape::{PERIOD_MS, Tape};
use super::{Bench, Figure, quantile, spread};
use crate::rig::house::House;
use crate::rig::network::{Enclosure, HOSTS, NAME, Network, enclose};
use crate::rig::player::Setup;
use crate::rig::until;

/// What the player promises: after silence, sound follows the link.
const FOLLOWS_S: f64 = 2.0;
/// The longest that is waited for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Without a fallback, and each time with a song of which nothing is on board.
pub(super) fn link_up(bench: &Bench) -> Vec<Figure> {
    let names = ["link-up.cable p95", "link-up.answer p95", "link-up.hole p95"];
    let quick: &[&str] = if bench.quick { &["--quick"] } else { &[] };
    match enclose(&[&["figures", "link-up"], quick].concat()) {
        Enclosure::Inside => {}
        // It has printed its lines.
        Enclosure::Over(status) if status.success() => return Vec::new(),
        Enclosure::Over(_) => return vec![Figure::new("link-up", f64::NAN, FOLLOWS_S, "s", "see above")],
        Enclosure::NotHere(why) => return names.map(|n| Figure::not_here(n, FOLLOWS_S, "s", &why)).into(),
    }
    let runs = if bench.quick { 5 } else { 20 };
    let network = Network::new();
    let cable = network.cable(0);
    let titles: Vec<String> = (0..=2 * runs).map(|n| format!("Song {n:02}")).collect();
    let songs: Vec<(&str, f64)> = titles.iter().map(|t| (t.as_str(), 4.0)).collect();
    let output = format!("first_volume = 100\nperiod_ms = {PERIOD_MS}\n");
    let at = Some(network.path());
    let house = House::new(
        &songs,
        Setup { host: NAME.into(), hosts: Some(HOSTS.into()), network: at, output, ..Setup::default() },
    );
    let says = |what: &str| {
        until(what, PATIENCE, || house.player.told(&["status"]).contains(what).then_some(()));
    };
    // The DAC opens with the first song.
    house.player.told(&["add", &titles[0]]);
    let tape = Tape::new(&house.folder().join("player/sound-1.wav"));
    says("Nothing queued");
    let (mut next, mut answers) = (titles[1..].iter().enumerate(), Vec::new());
    let mut back = |reason: &str, go: &dyn Fn(), come: &dyn Fn()| {
        let mut times = Vec::new();
        for (run, title) in next.by_ref().take(runs) {
            go();
            house.player.told(&["add", title]);
            says(reason);
            // At another phase of whatever turns once a second.
            std::thread::sleep(Duration::from_millis(137 * run as u64 % 1_000));
            let asked = house.web.requests().len();
            tape.rewind();
            let told = Instant::now();
            come();
            until("an answer", PATIENCE, || (house.web.requests().len() > asked).then_some(()));
            answers.push(told.elapsed().as_secs_f64());
            let sounded = tape.sound(&[0, 1], PATIENCE).unwrap_or_else(|| panic!("run {run}: it does not come back"));
            times.push(sounded.left.saturating_duration_since(told).as_secs_f64());
            says("Nothing queued");
        }
        times
    };
    let plugged = back("no network", &|| network.unplug(cable), &|| network.plug(cable));
    let passed = back("office does not answer", &|| network.swallow(), &|| network.pass());
    let figure = |name, what: &str, times: &[f64]| {
        let conditions = format!("{what}, {}, TLS, nginx, {}", spread(times, "s"), bench.load());
        Figure::new(name, quantile(times, 0.95), FOLLOWS_S, "s", conditions)
    };
    vec![
        figure(names[0], "cable in to sound", &plugged),
        figure(names[1], "cable in to the first answer served", &answers[..runs]),
        figure(names[2], "end of a black hole to sound", &passed),
    ]
}
