//! Every screen of the panel as a picture, for both panels, compared pixel by pixel with `tests/snapshots/panel`.
//!
//! `BLESS=1 cargo test -p jukebox-tests --test panel` writes the pictures anew: look at them before they are committed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use jukebox::config::{Config, ConfigError};
use jukebox::panel::{not_set_up, off};
use jukebox_board::buttons::{Key, Keyboard};
use jukebox_board::panel::png::picture;
use jukebox_board::panel::{COVER_SIDE, Cover, Look, Panel, PanelHandle, Terminal};
use jukebox_board::profile::Screen;
use jukebox_core::library::Digest;
use jukebox_core::view::{Grade, Icon, Progress, Strip, Text, View, VolumeOverlay};

const GOOD: Strip = Strip { link: Grade::Good, bots: true, volume: 35, muted: false, up_next: 12 };

/// A page: headline, title, artist, detail.
fn page(icon: Icon, [headline, title, artist, detail]: [&str; 4]) -> View {
    let [headline, title, artist, detail] = [headline, title, artist, detail].map(Text::new);
    View { icon, headline, title, artist, detail, ..View::default() }
}

/// A page with the strip, as most are.
fn with_strip(icon: Icon, words: [&str; 4], strip: Strip) -> View {
    View { strip: Some(strip), ..page(icon, words) }
}

/// A page with strip and progress.
fn music(icon: Icon, words: [&str; 4], strip: Strip, at_s: u32, of_s: u32) -> View {
    View { progress: Some(Progress { at_s, of_s }), ..with_strip(icon, words, strip) }
}

/// Every screen: its name and view.
fn screens() -> Vec<(&'static str, View)> {
    let down = Strip { link: Grade::Down, bots: false, ..GOOD };
    let poor = Strip { link: Grade::Poor, ..GOOD };
    let quiet = Strip { up_next: 0, ..GOOD };
    let rag = ["Playing", "Maple Leaf Rag", "Scott Joplin", "Next: The Entertainer, Scott Joplin"];
    vec![
        ("splash", page(Icon::Note, ["Jukebox 0.1.0", "Lobby", "", "Starting"])),
        ("not-set-up", not_set_up(&ConfigError::Missing("/etc/jukebox/jukebox.toml".into()))),
        (
            "no-sound-device",
            with_strip(
                Icon::NoSound,
                ["No sound device", "hw:sndrpihifiberry", "", "Is the DAC plugged in? Tried every second."],
                GOOD,
            ),
        ),
        (
            "first-library",
            with_strip(
                Icon::Wait,
                ["Fetching the library", "42 %", "812 kbit/s", "About 3 minutes. Music can be queued after that."],
                Strip { up_next: 0, ..poor },
            ),
        ),
        (
            "nothing-queued",
            with_strip(Icon::Note, ["Nothing queued", "Ask for a song", "", "jukebox/1/hq/lobby/command/add"], quiet),
        ),
        ("playing", music(Icon::Play, rag, GOOD, 62, 185)),
        (
            "playing-long",
            music(
                Icon::Play,
                [
                    "Playing",
                    "The Fabulous Adventures of the Twelve Cellists in the Land of Pizzicato",
                    "The Cellists of the Philharmonic Orchestra with Friends",
                    "Next: A Night on the Bare Mountain, Modest Mussorgsky",
                ],
                Strip { volume: 100, up_next: 120, ..GOOD },
                3661,
                7322,
            ),
        ),
        (
            "playing-greek",
            music(
                Icon::Play,
                ["Playing", "Τα Παιδιά του Πειραιά", "Μάνος Χατζιδάκις", "Next: Zorba’s Dance, Μίκης Θεοδωράκης"],
                GOOD,
                9,
                201,
            ),
        ),
        (
            "playing-cyrillic",
            music(Icon::Play, ["Playing", "Подмосковные вечера", "Владимир Трошин", "Next: Калинка"], GOOD, 100, 167),
        ),
        (
            "playing-japanese",
            music(
                Icon::Play,
                ["Playing", "上を向いて歩こう", "坂本九", "Next: 世界に一つだけの花、SMAP"],
                GOOD,
                30,
                183,
            ),
        ),
        (
            "playing-chinese",
            music(Icon::Play, ["Playing", "月亮代表我的心", "鄧麗君 (Teresa Teng)", "Next: 甜蜜蜜"], GOOD, 88, 208),
        ),
        (
            "playing-korean",
            music(Icon::Play, ["Playing", "아리랑", "김영임", "Next: Für Elise – Beethoven \u{1f3b9}"], GOOD, 5, 240),
        ),
        (
            "playing-vietnamese",
            music(Icon::Play, ["Playing", "Diễm xưa", "Trịnh Công Sơn", "Next: Hạ trắng, Khánh Ly"], GOOD, 5, 240),
        ),
        (
            "playing-hebrew",
            music(Icon::Play, ["Playing", "ירושלים של זהב", "שולי נתן", "Next: Hava Nagila"], GOOD, 5, 240),
        ),
        (
            "playing-mixed",
            music(Icon::Play, ["Playing", "שיר (Waterloo) 1974", "אבבא ABBA", "Next: «שלום» by Ofra"], GOOD, 5, 240),
        ),
        (
            "paused",
            music(
                Icon::Pause,
                ["Paused", "Maple Leaf Rag", "Scott Joplin", "Play goes on. Hold Play to stop."],
                GOOD,
                62,
                185,
            ),
        ),
        ("muted", music(Icon::Play, rag, Strip { muted: true, ..GOOD }, 63, 185)),
        (
            "fetching",
            music(Icon::Wait, ["Fetching", "The Entertainer", "Scott Joplin", "3 of 8 s, 96 kbit/s"], poor, 0, 240),
        ),
        (
            "link-lost",
            music(
                Icon::NoLink,
                ["Link lost, 34 min on board", "Maple Leaf Rag", "Scott Joplin", "The office does not answer"],
                down,
                62,
                185,
            ),
        ),
        (
            "fallback",
            music(
                Icon::NoLink,
                [
                    "Fallback while the queue waits",
                    "The Entertainer",
                    "Scott Joplin",
                    "Maple Leaf Rag waits, 2:10: the office does not answer",
                ],
                down,
                31,
                240,
            ),
        ),
        (
            "silent",
            with_strip(
                Icon::NoLink,
                [
                    "Silent, nothing on board",
                    "Solace",
                    "Scott Joplin",
                    "No network. Music starts by itself when the link is back.",
                ],
                Strip { up_next: 3, ..down },
            ),
        ),
        (
            "skipped",
            music(
                Icon::Skip,
                ["Skipped: Solace", "Maple Leaf Rag", "Scott Joplin", "The file cannot be decoded"],
                GOOD,
                0,
                185,
            ),
        ),
        (
            "bots-offline",
            music(
                Icon::Play,
                ["Playing", "Maple Leaf Rag", "Scott Joplin", "Bots offline, music fine"],
                Strip { bots: false, ..GOOD },
                62,
                185,
            ),
        ),
        (
            "disk-full",
            music(
                Icon::Warning,
                ["The card is full", "Maple Leaf Rag", "Scott Joplin", "Plays on; makes room by itself"],
                GOOD,
                62,
                185,
            ),
        ),
        (
            "hot",
            music(Icon::Play, ["Playing", "Maple Leaf Rag", "Scott Joplin", "Too hot, and slowed down"], GOOD, 62, 185),
        ),
        (
            "under-voltage",
            music(Icon::Play, ["Playing", "Maple Leaf Rag", "Scott Joplin", "Power supply too weak"], GOOD, 62, 185),
        ),
        ("off", off("Lobby")),
        (
            "configuration-wrong",
            not_set_up(&Config::parse("[office]\nsite = 7\n", Path::new("/etc/jukebox/jukebox.toml")).unwrap_err()),
        ),
        (
            "certificate-refused",
            with_strip(
                Icon::Warning,
                [
                    "The office's certificate is refused",
                    "It ends 2026-11-20",
                    "Here: 1970-01-01",
                    "Is the clock right? Check office.ca.",
                ],
                Strip { up_next: 3, ..down },
            ),
        ),
        (
            "library-newer",
            music(
                Icon::Play,
                ["Playing", "Maple Leaf Rag", "Scott Joplin", "The library is newer than this player: update it"],
                GOOD,
                62,
                185,
            ),
        ),
        (
            "name-used-twice",
            with_strip(
                Icon::Warning,
                ["Name used twice", "lobby", "", "Another player has this name. Change office.player."],
                Strip { bots: false, ..GOOD },
            ),
        ),
        (
            "stopped",
            with_strip(
                Icon::Stop,
                ["Stopped", "Maple Leaf Rag", "Scott Joplin", "Play starts. Hold Play: about this player."],
                GOOD,
            ),
        ),
        (
            "volume",
            View {
                overlay: Some(VolumeOverlay { percent: 42, muted: false }),
                ..music(Icon::Play, rag, GOOD, 62, 185)
            },
        ),
        (
            "volume-full",
            View {
                overlay: Some(VolumeOverlay { percent: 100, muted: false }),
                ..music(Icon::Play, rag, GOOD, 62, 185)
            },
        ),
        (
            "volume-muted",
            View { overlay: Some(VolumeOverlay { percent: 42, muted: true }), ..music(Icon::Play, rag, GOOD, 62, 185) },
        ),
        (
            "info",
            page(
                Icon::Info,
                [
                    "This player",
                    "hq / lobby",
                    "10.0.40.17, fe80::ba27:ebff:fe12:3456",
                    "Jukebox 0.1.0, 34 min on board, link good, plain HTTP (insecure)",
                ],
            ),
        ),
    ]
}

/// A cover that the panel has at hand: a disc on a gradient, as a test of orientation and colours.
fn cover() -> Cover {
    let side = COVER_SIDE as i32;
    let pixel = |x: i32, y: i32| {
        let from_middle = (x - side / 2).pow(2) + (y - side / 2).pow(2);
        let (r, g, b) = if from_middle < 900 { (31, 50, 4) } else { (x * 31 / side, 12, y * 31 / side) };
        (r << 11 | g << 5 | b) as u16
    };
    let pixels = (0..side).flat_map(|y| (0..side).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect();
    Cover { digest: Digest::of(b"a cover"), pixels }
}

/// Screens that are looked at in another way than by day and at rest.
fn looks() -> Vec<(&'static str, View, Look)> {
    let words = ["Playing", "Maple Leaf Rag", "Scott Joplin", "Next: The Entertainer, Scott Joplin"];
    let rag = music(Icon::Play, words, GOOD, 62, 185);
    let shown = cover();
    let with = View { cover: Some(shown.digest), ..rag.clone() };
    let words = ["Link lost, 34 min on board", "The Fabulous Adventures of the Twelve Cellists", "The Cellists", ""];
    let long = View { cover: with.cover, ..music(Icon::NoLink, words, GOOD, 62, 185) };
    let by_day = Look { cover: Some(std::sync::Arc::new(shown)), ..Look::default() };
    let night = Look { dim: true, ..by_day.clone() };
    vec![
        ("cover", with.clone(), by_day.clone()),
        ("cover-long", long, by_day),
        ("cover-night", with, night.clone()),
        ("night", rag.clone(), Look { cover: None, ..night }),
        ("moved", rag, Look { shift: 6, ..Look::default() }),
    ]
}

#[test]
fn screens_look_as_they_did() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("snapshots/panel");
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    let plain = screens().into_iter().map(|(name, view)| (name, view, Look::default()));
    for (name, view, look) in plain.chain(looks()) {
        for (kind, screen) in [("oled", Screen::Oled), ("lcd", Screen::Lcd)] {
            let path = folder.join(format!("{name}.{kind}.png"));
            let drawn = picture(screen, &view, &look).unwrap();
            if bless {
                fs::write(&path, &drawn).unwrap();
            }
            // Pixels are compared, not bytes: another version of the encoder may pack them otherwise.
            let kept = fs::read(&path).map(|bytes| pixels(&bytes));
            if kept.ok() != Some(pixels(&drawn)) {
                wrong.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    assert!(wrong.is_empty(), "these pictures changed (look, then BLESS=1): {wrong:?}");
}

#[test]
fn there_is_no_picture_without_a_screen() {
    let names = screens().into_iter().map(|s| s.0).chain(looks().into_iter().map(|l| l.0));
    let known: Vec<String> = names.flat_map(|name| ["oled", "lcd"].map(|k| format!("{name}.{k}.png"))).collect();
    for file in fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("snapshots/panel")).unwrap() {
        let name = file.unwrap().file_name().to_string_lossy().into_owned();
        assert!(known.contains(&name), "{name} belongs to no screen");
    }
}

/// Size and pixels of a PNG.
fn pixels(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    pixels.truncate(info.buffer_size());
    (info.width, info.height, pixels)
}

/// The child of the next test: it runs in a pseudo-terminal.
#[test]
#[ignore = "needs a terminal; started by a_terminal_is_used_and_given_back"]
fn in_a_terminal() {
    let (tell, told) = mpsc::channel();
    let keyboard = Keyboard::start(move |key| tell.send(key).unwrap()).unwrap().expect("standard input is a terminal");
    let panel = PanelHandle::start(Panel::Terminal(Terminal::new(vec!["press a key".to_owned()]).unwrap())).unwrap();
    eprintln!("written while the screen was ours");
    panel.show(page(Icon::Play, ["Playing", "上を向いて歩こう", "坂本九", ""]));
    let mut keys = Vec::new();
    while keys.last() != Some(&Key::Quit) {
        keys.push(told.recv_timeout(Duration::from_secs(20)).unwrap());
    }
    drop(panel);
    drop(keyboard);
    println!("{keys:?}");
}

#[test]
fn a_terminal_is_used_and_given_back() {
    let me = std::env::current_exe().unwrap();
    let line = format!("stty -g; {} --exact in_a_terminal --ignored --nocapture; stty -g", me.display());
    let mut script = Command::new("script")
        .args(["--quiet", "--flush", "--echo", "never", "--command", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script, of Debian's bsdutils");
    let (mut keys, mut out) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (mut seen, mut typed) = (Vec::new(), false);
    let mut bytes = [0; 4096];
    // The child gives up by itself when it hears nothing, so this ends.
    while let Ok(read @ 1..) = out.read(&mut bytes) {
        seen.extend_from_slice(&bytes[..read]);
        if !typed && String::from_utf8_lossy(&seen).contains("press a key") {
            keys.write_all(b"n\x03").unwrap();
            typed = true;
        }
    }
    assert!(script.wait().unwrap().success());
    let seen = String::from_utf8_lossy(&seen).into_owned();
    let at = |what: &str| seen.find(what).unwrap_or_else(|| panic!("{what:?} is not in {seen:?}"));
    let (title, given_back) = (at("上を向いて歩こう"), at("\x1b[?25h\x1b[?1049l"));
    assert!(at("\x1b[?1049h\x1b[?25l") < title && title < given_back);
    assert!(given_back < at("written while the screen was ours"), "standard error does not tear the picture");
    at("[Edge(Down(Next)), Edge(Up(Next)), Quit]");
    let settings: Vec<&str> = seen.lines().map(str::trim).filter(|line| line.matches(':').count() > 20).collect();
    assert!(settings.len() == 2 && settings[0] == settings[1], "{settings:?}");
}
