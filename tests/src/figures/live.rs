//! How long a live stream stays away after a black hole has ended: from its end to the samples that leave the virtual DAC.

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tape::{PERIOD_MS, Tape};
use super::{Bench, Figure, quantile, spread};
use crate::rig::icecast::{Icecast, Tunnel};
use crate::rig::player::{Player, Setup};
use crate::rig::{SOON, folder, until};

/// It plays for so long before the next hole.
const PLAYS: Duration = Duration::from_secs(6);
/// The longest that is waited for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holes in the way to an Icecast station, swallowing everything without a word; without a fallback, so that what sounds is it.
pub(super) fn live(bench: &Bench) -> Vec<Figure> {
    let folder = folder();
    let mut icecast = Icecast::start(folder.path());
    icecast.station("live.mp3", 1_000);
    let tunnel = Tunnel::to(icecast.port());
    let music = folder.path().join("music");
    std::fs::create_dir(&music).unwrap_or_else(|e| panic!("{}: {e}", music.display()));
    let setup = Setup {
        origins: vec![music.display().to_string()],
        output: format!("first_volume = 100\nperiod_ms = {PERIOD_MS}\n"),
        streams: format!("allow = [\"http://127.0.0.1:{}/\"]\n", tunnel.port()),
        ..Setup::default()
    };
    let player = Player::start(&folder.path().join("player"), setup);
    let ask = |verb: &str, more: Value| -> Value {
        let mut line = more;
        line["verb"] = json!(verb);
        let mut socket = player.socket();
        let sent = writeln!(socket, "{line}");
        let mut answer = String::new();
        let read = BufReader::new(socket).read_line(&mut answer);
        assert!(sent.is_ok() && read.is_ok(), "the socket does not answer");
        serde_json::from_str(&answer).unwrap_or_default()
    };
    ask("add", json!({"url": format!("http://127.0.0.1:{}/live.mp3", tunnel.port())}));
    until("it plays", SOON, || (ask("now", json!({}))["data"]["state"] == "playing").then_some(()));
    let tape = Tape::new(&folder.path().join("player/sound-1.wav"));
    let (hole, runs) = (bench.span(Duration::from_secs(60), Duration::from_secs(12)), if bench.quick { 5 } else { 20 });
    let mut back = Vec::new();
    for run in 0..runs {
        // At another phase of whatever turns once a second.
        std::thread::sleep(PLAYS + Duration::from_millis(137 * run % 1_000));
        tunnel.dark(true);
        std::thread::sleep(hole);
        tape.rewind();
        assert!(tape.sound(&[0, 1], Duration::from_millis(100)).is_none(), "the hole is longer than what is buffered");
        let told = Instant::now();
        tunnel.dark(false);
        let sounded = tape.sound(&[0, 1], PATIENCE).unwrap_or_else(|| panic!("run {run}: it does not come back"));
        back.push(sounded.left.saturating_duration_since(told).as_secs_f64());
    }
    let conditions = format!("black holes of {} s, {}, {}", hole.as_secs(), spread(&back, "s"), bench.load());
    vec![Figure::new("live.back p95", quantile(&back, 0.95), 2.0, "s", conditions)]
}
