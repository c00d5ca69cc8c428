//! Buttons and encoder on the pins of a simulated header steer the player: through the GPIO character device, and through rppal.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::path::Path;
use std::process::Command;

use jukebox_tests::rig::header::{Header, enclosed};
use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::player::{Player, Setup};
use jukebox_tests::rig::{self, Process, SOON, office, program, until};

/// Pins of the profile `hifiberry-oled`.
const PLAY: u8 = 17;
const NEXT: u8 = 27;
const VOLUME: [u8; 2] = [23, 24];
const KNOB: u8 = 13;
const ENCODER: [u8; 2] = [5, 6];

fn prepare(folder: &Path) {
    let songs = folder.join("songs");
    std::fs::create_dir(&songs).unwrap();
    for (n, title) in ["Waterloo", "Fernando"].into_iter().enumerate() {
        let song = Song { title, seconds: 60.0, seed: n as u32 + 1, ..Song::default() };
        music::make(&songs.join(format!("{n}.flac")), &song);
    }
    office::publish(&songs, &folder.join("library"));
}

fn steer(folder: &Path, header: &Header, how: &str) {
    let setup = Setup {
        origins: vec![folder.join("library").display().to_string()],
        output: "first_volume = 40\n".into(),
        board: "profile = \"hifiberry-oled\"\npanel = \"none\"\n".into(),
        ..Setup::default()
    };
    let own = rig::folder();
    let mut player = Player::start(own.path(), setup);
    player.process().line(&format!("buttons through {how}"));
    until("the catalogue is there", SOON, || player.cli(&["search", "x"]).status.success().then_some(()));
    player.told(&["add", "waterloo"]);
    player.told(&["add", "fernando"]);
    let is = |what: &str| until(what, SOON, || player.told(&["status"]).contains(what).then_some(()));
    is("Playing");
    for state in ["Paused", "Playing"] {
        header.press(PLAY);
        is(state);
    }
    header.press(NEXT);
    is("Fernando");
    let mut watch = Command::new(program("jukebox"));
    let watch = Process::start("watch", watch.args(["watch", "--socket"]).arg(own.path().join("socket")));
    watch.line("now");
    let told = |act: &dyn Fn(), what: &str, data: &str| {
        let (mark, line) = (watch.mark(), format!(r#"{{"state":"{what}","data":{data}}}"#));
        act();
        watch.line_from(mark, SOON, &line, |l| l == line);
    };
    told(&|| header.press(VOLUME[1]), "volume", "42");
    told(&|| header.press(VOLUME[0]), "volume", "40");
    told(&|| (0..3).for_each(|_| header.turn(ENCODER)), "volume", "43");
    told(&|| header.turn([ENCODER[1], ENCODER[0]]), "volume", "42");
    for on in ["true", "false"] {
        told(&|| header.press(KNOB), "mute", on);
    }
    println!("{how}: play, pause, next, volume, encoder and knob were obeyed");
}

#[test]
fn pressed_buttons_steer_the_player() {
    let Some(folder) = enclosed("pressed_buttons_steer_the_player", prepare) else { return };
    let header = Header::new(&[&[PLAY, NEXT, KNOB], &VOLUME[..], &ENCODER].concat());
    steer(&folder, &header, "character device");
    header.be_a_pi();
    steer(&folder, &header, "rppal");
}
