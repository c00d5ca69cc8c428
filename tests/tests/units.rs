//! The files of `systemd/`: right for the systemd of Debian 12 (252), and for the programs that they start.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use jukebox_tests::rig::{self, run, write};

const UNITS: [&str; 2] = ["jukebox.service", "jukebox-office.service"];
/// All of them: with those that do one thing and end.
const ALL: [&str; 3] = ["jukebox.service", "jukebox-office.service", "jukebox-setup.service"];

/// Every key that may stand in a unit: all of them are known to systemd 252. A newer one (`RestartSteps=`, `notify-reload`) would
/// be ignored there with a warning, and what it promises would not happen.
const KEYS: [&str; 30] = [
    "Unit.Description",
    "Unit.Documentation",
    "Unit.After",
    "Unit.Before",
    "Unit.ConditionFileNotEmpty",
    "Unit.Wants",
    "Unit.StartLimitIntervalSec",
    "Service.Type",
    "Service.ExecStart",
    "Service.ExecStopPost",
    "Service.User",
    "Service.Group",
    "Service.Restart",
    "Service.RestartSec",
    "Service.RestartPreventExitStatus",
    "Service.TimeoutStartSec",
    "Service.TimeoutStopSec",
    "Service.WatchdogSec",
    "Service.StateDirectory",
    "Service.StateDirectoryMode",
    "Service.CacheDirectory",
    "Service.CacheDirectoryMode",
    "Service.RuntimeDirectory",
    "Service.RuntimeDirectoryMode",
    "Service.ConfigurationDirectory",
    "Service.ConfigurationDirectoryMode",
    "Service.UMask",
    "Service.LimitRTPRIO",
    "Service.ExecReload",
    "Install.WantedBy",
];

#[test]
fn units_use_keys_of_debian_12_and_say_what_the_design_says() {
    for name in ALL {
        for key in unit(name).keys() {
            assert!(KEYS.contains(&key.as_str()), "{name}: {key} is not in the list of keys known to systemd 252");
        }
    }
    let setup = unit("jukebox-setup.service");
    assert_eq!((setup["Service.Type"].as_str(), setup["Unit.Before"].as_str()), ("oneshot", "jukebox.service"));
    for name in UNITS {
        let unit = unit(name);
        let same = |key: &str, value: &str| assert_eq!(unit.get(key).map(String::as_str), Some(value), "{name}: {key}");
        same("Service.Type", "notify");
        same("Service.Restart", "always");
        same("Unit.StartLimitIntervalSec", "0");
        assert!(unit.contains_key("Service.WatchdogSec") && unit.contains_key("Service.StateDirectory"), "{name}");
    }
    let player = unit("jukebox.service");
    assert_eq!(player["Service.RestartPreventExitStatus"], jukebox::config::EXIT.to_string());
    let after = player.get("Unit.After").map_or("", String::as_str);
    assert!(
        !after.contains("network") && !after.contains("time-sync"),
        "the player waits for neither network nor clock"
    );
    let defaults = jukebox::config::Socket::default();
    let runtime = Path::new("/run").join(&player["Service.RuntimeDirectory"]);
    assert_eq!(defaults.path.parent(), Some(runtime.as_path()), "the socket lies in the runtime directory");
    let store = jukebox::config::Store::default();
    assert_eq!(store.state, Path::new("/var/lib").join(&player["Service.StateDirectory"]));
    assert_eq!(store.cache, Path::new("/var/cache").join(&player["Service.CacheDirectory"]));
}

#[test]
fn programs_know_the_arguments_that_units_give_them() {
    for name in ALL {
        let unit = unit(name);
        let mut words = unit["Service.ExecStart"].split_whitespace();
        let program = Path::new(words.next().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
        // `--help` at the end: the command line is parsed up to there, and nothing is started.
        let out = run(Command::new(rig::program(&program)).args(words).arg("--help"));
        assert!(out.contains("Usage:"), "{name}: {out}");
    }
}

#[test]
fn systemd_finds_nothing_to_say() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("NOT HERE: no systemd-analyze (Debian: systemd)");
        return;
    }
    let folder = rig::folder();
    for name in ALL {
        // The programs are not installed here: those just built stand in for them.
        let text = read(name).replace("/usr/bin/jukebox", &rig::program("jukebox").display().to_string());
        let copy = folder.path().join(name);
        write(&copy, text);
        let out = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        // It reads the machine's own units too, and may complain of those.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("jukebox")).collect();
        assert!(ours.is_empty(), "{name}: {ours:#?}");
    }
}

#[test]
fn users_groups_and_folders_are_made() {
    if Command::new("systemd-sysusers").arg("--version").output().is_err() {
        eprintln!("NOT HERE: no systemd-sysusers (Debian: systemd)");
        return;
    }
    let folder = rig::folder();
    let root = folder.path();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    let at_root = format!("--root={}", root.display());
    for name in ["jukebox.sysusers.conf", "jukebox-office.sysusers.conf"] {
        run(Command::new("systemd-sysusers").arg(&at_root).arg(file(name)));
    }
    let passwd = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
    let group = std::fs::read_to_string(root.join("etc/group")).unwrap();
    for name in UNITS {
        let user = unit(name)["Service.User"].clone();
        assert!(passwd.lines().any(|l| l.starts_with(&format!("{user}:"))), "{user} is missing:\n{passwd}");
    }
    for name in ["audio", "gpio", "i2c", "spi", "video"] {
        let line = group.lines().find(|l| l.starts_with(&format!("{name}:")));
        let line = line.unwrap_or_else(|| panic!("group {name} is missing:\n{group}"));
        assert!(line.ends_with(":jukebox") || line.ends_with(",jukebox"), "jukebox is not in {name}: {line}");
    }
    // Giving files away needs root.
    if is_root() {
        std::fs::create_dir_all(root.join("etc/jukebox")).unwrap();
        let config = root.join("etc/jukebox/jukebox.toml");
        write(&config, "");
        run(Command::new("systemd-tmpfiles").arg(&at_root).arg("--create").arg(file("jukebox.tmpfiles.conf")));
        let shape = run(Command::new("stat").args(["-c", "%a %u"]).arg(&config));
        assert_eq!(shape.trim(), "640 0");
    }
}

#[test]
fn cross_knows_the_boards() {
    let text = std::fs::read_to_string(rig::root().join("cross.toml")).unwrap();
    let cross: toml::Table = text.parse().unwrap();
    let steps = cross["build"]["pre-build"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect::<String>();
    assert!(steps.contains("dpkg --add-architecture $CROSS_DEB_ARCH"), "{steps}");
    assert!(steps.contains("libasound2-dev:$CROSS_DEB_ARCH") && steps.contains("cmake"), "{steps}");
    for target in ["aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf"] {
        assert!(cross["target"][target]["image"].as_str().unwrap().contains(target));
    }
}

/// `Section.Key` to value; the last one counts.
fn unit(name: &str) -> BTreeMap<String, String> {
    let (mut section, mut keys) = (String::new(), BTreeMap::new());
    for line in read(name).lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(head) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = head.to_owned();
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
            keys.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    keys
}

fn file(name: &str) -> PathBuf {
    rig::root().join("systemd").join(name)
}

fn read(name: &str) -> String {
    let path = file(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn is_root() -> bool {
    run(Command::new("id").arg("-u")).trim() == "0"
}
