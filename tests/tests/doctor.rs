//! `jukebox doctor` beside a running player and without one, and `jukebox setup` at a terminal that hangs up.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use jukebox_tests::rig::house::House;
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::tls::Ca;
use jukebox_tests::rig::{SOON, folder, program, run, until, write};
use serde_json::Value;

/// What the doctor says of `what`, with a configuration: all its lines.
fn doctor(config: &Path, what: &str) -> Vec<Value> {
    let mut command = Command::new(program("jukebox"));
    let out = command.args(["doctor", "--json", "--config"]).arg(config).output().unwrap();
    let told: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let checks = told["checks"].as_array().unwrap();
    let well = checks.iter().all(|c| c["state"] == "ok");
    assert_eq!((told["ok"].as_bool(), out.status.code()), (Some(well), Some(i32::from(!well))), "{told}");
    assert!(checks.iter().all(|c| (c["state"] == "missing") == c["fix"].is_string()), "each with its fix: {told}");
    checks.iter().filter(|c| c["check"] == what).cloned().collect()
}

#[track_caller]
fn all_ok(found: &[Value]) {
    assert!(!found.is_empty() && found.iter().all(|f| f["state"] == "ok"), "{found:?}");
}

#[track_caller]
fn missing(found: &[Value], text: &str, fix: &str) {
    let has = |f: &Value, key: &str, part: &str| f[key].as_str().is_some_and(|t| t.contains(part));
    let hit = found.iter().any(|f| f["state"] == "missing" && has(f, "text", text) && has(f, "fix", fix));
    assert!(hit, "{text}, {fix}: {found:?}");
}

#[test]
fn the_doctor_finds_what_is_well_and_what_is_not() {
    let mut house = House::new(&[("Waterloo", 4.0)], Setup::default());
    let config = house.player.config();
    for what in ["configuration", "output", "office", "library", "broker", "service", "clock"] {
        all_ok(&doctor(&config, what));
    }
    assert!(doctor(&config, "library")[0]["text"].as_str().unwrap().starts_with("format 1, revision 1 of "));
    let text = String::from_utf8(house.player.cli(&["doctor", "--config", config.to_str().unwrap()]).stdout).unwrap();
    assert!(text.contains("\nok       broker        mqtts://"), "{text}");
    // The player was not driven out.
    assert_eq!(house.ok("ping", "x")["nonce"], "x");

    // Without a player the broker is tried; what waits there for the player is not touched.
    let (status, _) = house.player.process().terminate();
    assert!(status.success());
    house.bot().publish("jukebox/1/hq/lobby/command/add", "waterloo", &[]);
    all_ok(&doctor(&config, "broker"));
    missing(&doctor(&config, "service"), "does not run", "");
    let ears = house.ears();
    let mark = ears.mark();
    house.player.start_again();
    ears.wait_from(mark, SOON, "what waited", |m| m.topic.ends_with("/event/added"));
    let (status, _) = house.player.process().terminate();
    assert!(status.success());

    let right = std::fs::read_to_string(&config).unwrap();
    let other = folder();
    let foreign = Ca::new(other.path());
    let ca = right.lines().find(|l| l.starts_with("ca = ")).unwrap();
    write(&config, right.replace(ca, &format!("ca = {:?}", foreign.ca)));
    missing(&doctor(&config, "office"), "certificate is not accepted", "`ca` is not the office's");
    write(&config, right.replace("rig-secret", "guess"));
    missing(&doctor(&config, "broker"), "refuses user or password", "player add lobby --replace");
    write(&config, right.replace("https://127.0.0.1", "https://nowhere.invalid"));
    missing(&doctor(&config, "office"), "does not know the office's name", "resolvectl");
    house.web.stop();
    write(&config, right.clone());
    missing(&doctor(&config, "office"), "refuses the connection", "jukebox-office");
    write(&config, right.replace("record = ", "outputs = [\"hw:CARD=gone\"]\n#"));
    missing(&doctor(&config, "output"), "hw:CARD=gone: its card is not there", "dtoverlay=");
    write(&config, right.replace("volume", "volum"));
    missing(&doctor(&config, "configuration"), "did you mean `first_volume`?", "config check");
}

/// Ctrl-C in the middle of the questions, and a player without a configuration.
#[test]
fn a_setup_that_is_broken_off_leaves_nothing() {
    let place = folder();
    let config = place.path().join("etc/jukebox.toml");
    let mut command = Command::new(program("jukebox"));
    command.args(["setup", "--boot", "/nowhere", "--config"]).arg(&config).args(["--office", "/srv/music"]);
    let mut setup = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    setup.stdin.as_mut().unwrap().write_all(b"hq\nlobby\n").unwrap();
    let (mut said, mut byte) = (String::new(), [0]);
    while !said.contains("What people call it") && setup.stdout.as_mut().unwrap().read(&mut byte).unwrap() > 0 {
        said.push(byte[0].into());
    }
    run(Command::new("kill").args(["-INT", &setup.id().to_string()]));
    let ended = until("it ends", SOON, || setup.try_wait().unwrap());
    assert!(!ended.success() && said.contains("What people call it"), "{said}");
    assert_eq!(place.path().read_dir().unwrap().count(), 0, "nothing is there, not even a folder");

    let out = Command::new(program("jukebox")).args(["run", "--config"]).arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(78) && said.contains("sudo jukebox setup"), "{said}");
}
