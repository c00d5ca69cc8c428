//! How long people wait: skip, key, first sound.
//!
//! A command counts from the moment it is written to the player's socket; sound from the samples that leave the virtual DAC.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use super::house::{House, SIDES, program, side_title};
use super::tape::{PERIOD_MS, Tape};
use super::{Bench, Figure, quantile, spread};
use crate::rig::until;

/// The longest that is waited for a sound.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENT: &str = "panel = \"none\"\nbuttons = \"none\"";

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

fn recording(house: &House) -> String {
    format!("record = \"{}\"\nperiod_ms = {PERIOD_MS}", house.path("sound.wav").display())
}

/// Skips between songs that sound left and right: the first sample on the other side is the new song's.
pub(super) fn skip(bench: &Bench) -> Vec<Figure> {
    let house = House::new(bench.music.sides());
    let player = house.player(&recording(&house), SILENT);
    let mut line = player.line();
    let skips = if bench.quick { 60 } else { 400 };
    let (mut handed, mut left, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    let mut side = 0;
    let mut tape = None;
    while handed.len() < skips {
        // Half a queue at a time, so that what is played was stored long before.
        line.add_all((0..SIDES).map(side_title));
        let tape = tape.get_or_insert_with(|| Tape::new(&house.path("sound.wav")));
        line.on_board();
        for n in 0..SIDES - 1 {
            tape.rewind();
            // Until the song of this side sounds; at another phase of the period each time.
            assert!(tape.sound(&[side], PATIENCE).is_some(), "song {n} does not sound");
            std::thread::sleep(Duration::from_micros(120_000 + 3_700 * (n as u64 % 17)));
            tape.rewind();
            side = 1 - side;
            let told = Instant::now();
            line.obeyed("skip", "");
            answered.push(ms(told.elapsed()));
            let sounded = tape.sound(&[side], PATIENCE);
            let sounded = sounded.unwrap_or_else(|| panic!("skip to song {} gives no sound", n + 1));
            handed.push(ms(sounded.handed.saturating_duration_since(told)));
            left.push(ms(sounded.left.saturating_duration_since(told)));
        }
        line.obeyed("skip", ""); // the last of them: silence, and the next begins left again
        tape.silence(Duration::from_millis(200));
        side = 0;
    }
    drop(tape);
    let conditions = |samples: &[f64]| {
        let spread = spread(samples, "ms");
        format!(
            "p99; {spread}; stored FLAC, period {PERIOD_MS} ms of a paced virtual DAC, no FIFO, over the socket, {}",
            bench.load()
        )
    };
    println!("# skip: answered in p99 {:.1} ms, {}", quantile(&answered, 0.99), spread(&answered, "ms"));
    vec![
        Figure::new("skip.to-device", quantile(&handed, 0.99), PERIOD_MS + 15.0, "ms", conditions(&handed)),
        Figure::new("skip.to-dac", quantile(&left, 0.99), 3.0 * PERIOD_MS + 15.0, "ms", conditions(&left)),
    ]
}

/// Adds to an empty queue of a stopped player: songs that were never fetched, then the same again.
pub(super) fn first_sound(bench: &Bench) -> Vec<Figure> {
    let house = House::new(bench.music.sides());
    let player = house.player(&recording(&house), SILENT);
    let mut line = player.line();
    // The DAC opens with the first song, which therefore does not count.
    line.add(&side_title(0));
    let tape = Tape::new(&house.path("sound.wav"));
    let songs = if bench.quick { 1..40 } else { 1..SIDES };
    let hush = |line: &mut super::house::Line, entry: u64| {
        line.obeyed("stop", "");
        line.obeyed("remove", &entry.to_string());
        tape.silence(Duration::from_millis(150));
    };
    let first = line.obeyed("now", "")["entry"].as_u64().unwrap_or(1);
    tape.sound(&[0, 1], PATIENCE);
    hush(&mut line, first);
    let (mut fresh, mut stored, mut beyond, mut beyond_log) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for n in songs.clone() {
        let lines = log(&house).len();
        let (took, entry, at) = add(&mut line, &tape, n);
        fresh.push(took);
        hush(&mut line, entry);
        let (needed, before_sound) = fetched(&log(&house)[lines..], at);
        beyond.push(needed);
        beyond_log.push(before_sound);
    }
    for n in songs {
        // Its first second is on board, and if not all of it, then the rest is fetched while it sounds.
        let (took, entry, _) = add(&mut line, &tape, n);
        stored.push(took);
        hush(&mut line, entry);
    }
    println!(
        "# first-sound: all that was fetched when it sounded, prefetch of later segments included: {} beyond the first segment",
        spread(&beyond_log, "kB")
    );
    let conditions = |samples: &[f64]| {
        let spread = spread(samples, "ms");
        format!(
            "p99, to the DAC; {spread}; FLAC, TLS, nginx on loopback, period {PERIOD_MS} ms, no FIFO, {}",
            bench.load()
        )
    };
    let bytes =
        format!("worst; {}; answered before the first segment was: record and index page", spread(&beyond, "kB"));
    vec![
        Figure::new("first-sound.not-stored", quantile(&fresh, 0.99), 150.0, "ms", conditions(&fresh)),
        Figure::new("first-sound.stored", quantile(&stored, 0.99), 60.0, "ms", conditions(&stored)),
        Figure::new("first-sound.bytes", quantile(&beyond, 1.0), 8.0, "kB", bytes),
    ]
}

/// Adds song `n`: milliseconds until it sounds, its entry, and when (Unix time, seconds) it sounded.
fn add(line: &mut super::house::Line, tape: &Tape, n: usize) -> (f64, u64, f64) {
    // Another phase of the period each time.
    std::thread::sleep(Duration::from_micros(3_700 * (n as u64 % 17)));
    tape.rewind();
    let told = Instant::now();
    let entry = line.add(&side_title(n));
    let sounded = tape.sound(&[n % 2], PATIENCE).unwrap_or_else(|| panic!("song {n} does not sound"));
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() - sounded.left.elapsed();
    (ms(sounded.left.saturating_duration_since(told)), entry, unix.as_secs_f64())
}

/// An answer of nginx: when, with how many bytes, and whether it is the first segment of a song.
struct Answer {
    unix: f64,
    bytes: u64,
    first_segment: bool,
}

fn log(house: &House) -> Vec<Answer> {
    let text = std::fs::read_to_string(house.path("when.log")).unwrap_or_default();
    let line = |l: &str| {
        let words: Vec<&str> = l.split(' ').collect();
        let [unix, _, bytes, range, _] = words[..] else { return None };
        let first_segment = range.starts_with("bytes=0-");
        Some(Answer { unix: unix.parse().ok()?, bytes: bytes.parse().ok()?, first_segment })
    };
    text.lines().filter_map(line).collect()
}

/// Kilobytes beside the first segment: of what was answered before it was, and of what was answered up to Unix time `at`.
fn fetched(log: &[Answer], at: f64) -> (f64, f64) {
    let Some(first) = log.iter().position(|a| a.first_segment) else { return (f64::NAN, f64::NAN) };
    let sum = |answers: &mut dyn Iterator<Item = &Answer>| answers.map(|a| a.bytes).sum::<u64>() as f64 / 1_000.0;
    let segment = log[first].bytes as f64 / 1_000.0;
    (sum(&mut log[..first].iter()), sum(&mut log.iter().filter(|a| a.unix <= at)) - segment)
}

/// Presses keys in a terminal of its own, where a paused player shows its panel.
pub(super) fn key(bench: &Bench) -> Vec<Figure> {
    let house = House::new(bench.music.sides());
    let config = house.configure(&recording(&house), "panel = \"terminal\"\nbuttons = \"keyboard\"");
    // `script` (util-linux) makes the terminal.
    let line = format!(
        "exec {} run --config {} --log {}",
        program("jukebox").display(),
        config.display(),
        house.path("log").display()
    );
    let mut script = Command::new("script");
    script.args(["-qfec", &line, "/dev/null"]).env("TERM", "xterm-256color");
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().unwrap_or_else(|e| panic!("script: {e}"));
    let (Some(mut keys), Some(mut picture)) = (script.stdin.take(), script.stdout.take()) else {
        panic!("script has no pipes")
    };
    let (tell, shown) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(n @ 1..) = picture.read(&mut bytes) {
            if tell.send((Instant::now(), bytes[..n].to_vec())).is_err() {
                return;
            }
        }
    });
    let socket = house.path("socket");
    until("the player listens", crate::rig::SOON, || std::os::unix::net::UnixStream::connect(&socket).ok());
    let mut line = super::house::Line::new(&socket);
    until("the catalogue is there", crate::rig::SOON, || {
        (line.obeyed("health", "")["catalogue_tracks"].as_u64() > Some(0)).then_some(())
    });
    line.add(&side_title(0));
    line.obeyed("pause", "");
    let presses = if bench.quick { 60 } else { 300 };
    let mut took = Vec::new();
    for n in 0..presses {
        // Whatever else was on its way to the panel has been drawn.
        while shown.recv_timeout(Duration::from_millis(150 + 7 * (n % 9))).is_ok() {}
        let pressed = Instant::now();
        let wrote = keys.write_all(if n % 2 == 0 { b"-" } else { b"+" }).and_then(|()| keys.flush());
        wrote.unwrap_or_else(|e| panic!("the keyboard: {e}"));
        // The overlay tells the volume; what else is drawn first does not count.
        let mut drawn = String::new();
        let seen = loop {
            let (seen, bytes) = shown.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("key {n} shows `{drawn}`: {e}"));
            drawn += &String::from_utf8_lossy(&bytes);
            if drawn.contains('%') {
                break seen;
            }
        };
        took.push(ms(seen - pressed));
    }
    let _ = keys.write_all(b"q");
    until("the player ends", crate::rig::SOON, || script.try_wait().ok().flatten());
    let _ = reader.join();
    let conditions = format!(
        "p99; {}; volume key to the terminal's bytes, through a pty of script(1), {}",
        spread(&took, "ms"),
        bench.load()
    );
    vec![Figure::new("key.to-panel", quantile(&took, 0.99), 50.0, "ms", conditions)]
}
