//! What the file may say, and what is said about a wrong one.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

const EXAMPLE: &str = include_str!("../../../systemd/jukebox.toml.example");
const DOCS: &str = include_str!("../../docs/config.md");
const LEAST: &str = "[office]\nsite = \"hq\"\nplayer = \"lobby\"\norigins = [\"/srv/music\"]\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/jukebox/jukebox.toml")).map_err(|e| e.to_string())
}

fn wrong(text: &str) -> String {
    parse(text).expect_err(text)
}

/// All keys of a section (`""`: the top), as serde itself names them when it meets an unknown one.
fn keys_of(section: &str) -> BTreeSet<String> {
    let text =
        if section.is_empty() { "zzzzzzzzzzzz = 1\n".into() } else { format!("[{section}]\nzzzzzzzzzzzz = 1\n") };
    let error = toml::from_str::<Config>(&text).unwrap_err();
    error.message().split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect()
}

/// Section and key of each line `key = ...` or `#key = ...` of the example, and the line's number.
fn keys_of_example() -> Vec<(String, String, usize)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for (number, line) in EXAMPLE.lines().enumerate() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = bare.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.into();
        } else if let Some((key, _)) = bare.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            keys.push((section.clone(), key.into(), number));
        }
    }
    keys
}

#[test]
fn the_least_file_gets_the_defaults() {
    let config = parse(LEAST).unwrap();
    assert_eq!((config.name.as_str(), config.office.site.as_str()), ("lobby", "hq"));
    assert_eq!((config.output.volume_max, config.output.first_volume, config.output.rate), (100, 30, Rate::Follow));
    assert_eq!(config.store.state, Path::new("/var/lib/jukebox"));
    assert_eq!(config.socket.path, Path::new("/run/jukebox/socket"));
    assert_eq!(config.output.in_order(None), ["default"]);
    assert_eq!((&config.board.panel, config.board.buttons), (&Panel::Board, Buttons::Board));
    assert!(config.mqtt.is_none() && tls_config(&config, Clock::new(None)).unwrap().is_none());
}

#[test]
fn the_example_is_right_and_names_every_key() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.mqtt.unwrap().address(), ("office.example.org".into(), 8883, true));
    let shown: BTreeSet<_> = keys_of_example().into_iter().map(|(section, key, _)| (section, key)).collect();
    for section in keys_of("") {
        if section == "name" {
            assert!(shown.contains(&(String::new(), section)));
            continue;
        }
        for key in keys_of(&section) {
            assert!(shown.contains(&(section.clone(), key.clone())), "the example lacks {section}.{key}");
        }
    }
}

#[test]
fn every_commented_line_of_the_example_is_right_too() {
    // Keys that say the same exclude each other: the other one goes while its twin is tried.
    let twins = [("ca_pem", "ca"), ("password", "password_file"), ("record", "outputs")];
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for (section, key, number) in keys_of_example() {
        if !lines[number].starts_with('#') {
            continue;
        }
        let twin = twins.iter().find(|(name, _)| *name == key).map(|(_, other)| format!("{other} = "));
        let text: String = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| !twin.as_ref().is_some_and(|t| line.starts_with(t.as_str())))
            .map(|(n, line)| if n == number { format!("{}\n", &line[1..]) } else { format!("{line}\n") })
            .collect();
        assert!(parse(&text).is_ok(), "{section}.{key}: {}", wrong(&text));
    }
}

#[test]
fn every_key_is_in_the_documentation_and_nothing_else_is() {
    let documented: BTreeSet<(String, String)> = {
        let mut section = String::new();
        let mut found = BTreeSet::new();
        for line in DOCS.lines() {
            if let Some(name) = line.strip_prefix("## `[").and_then(|l| l.split(']').next()) {
                section = name.into();
            } else if let Some(key) = line.strip_prefix("| `").and_then(|l| l.split('`').next()) {
                found.insert((section.clone(), key.to_owned()));
            }
        }
        found
    };
    let mut keys = BTreeSet::new();
    for section in keys_of("") {
        if section == "name" {
            keys.insert((String::new(), section));
        } else {
            keys.extend(keys_of(&section).into_iter().map(|key| (section.clone(), key)));
        }
    }
    assert_eq!(documented, keys);
}

#[test]
fn an_unknown_key_is_shown_with_its_line_and_the_nearest_one() {
    let text = format!("{LEAST}[output]\nvolume_mx = 90\n");
    assert_eq!(
        wrong(&text),
        "/etc/jukebox/jukebox.toml:6:1: unknown key `volume_mx`: did you mean `volume_max`?\n  |\n6 | volume_mx = 90\n  | ^^^^^^^^^"
    );
    assert!(wrong(&format!("{LEAST}[otuput]\n")).contains("did you mean `output`?"));
    assert!(wrong(&format!("{LEAST}colour = 1\n")).contains("here may stand site, player, origins"));
}

#[test]
fn a_wrong_value_says_what_is_allowed() {
    for (section, line, says) in [
        ("output", "volume_max = 0", "whole number from 1 to 100"),
        ("output", "volume_max = 300", "whole number from 1 to 100"),
        ("output", "volume_max = \"loud\"", "whole number from 1 to 100"),
        ("output", "period_ms = 2", "whole number from 5 to 200"),
        ("output", "rate = \"fast\"", "must be \"follow\" or a rate"),
        ("output", "rate = 44", "must be \"follow\" or a rate"),
        ("output", "loudness_lufs = 3", "number from -40.0 to -5.0"),
        ("output", "crossfade_s = 13", "whole number from 0 to 12"),
        ("output", "first_volume = 50\nvolume_max = 40", "at most 40"),
        ("output", "outputs = [\"\"]", "an output has a name"),
        ("output", "outputs = [\"default\"]\nrecord = \"a.wav\"", "instead of `outputs`"),
        ("board", "panel = \"png:\"", "\"png:FILE\""),
        ("board", "buttons = \"mouse\"", "\"keyboard\""),
        ("board", "night = \"8pm\"", "\"20:00-07:00\""),
        ("board", "profile = \"sim-olde\"", "there are: hifiberry-oled, pirate-audio"),
        ("store", "size_mb = 1", "from 64 to"),
        ("store", "cache = \"/var/lib/jukebox\"", "a folder of its own"),
        ("mqtt", "broker = \"office\"", "write mqtts://HOST:8883"),
        ("mqtt", "broker = \"mqtt://office\"", "insecure = true"),
        ("mqtt", "broker = \"mqtts://office:8883/a\"", "nothing behind it"),
        ("mqtt", "broker = \"mqtts://office\"", "needs `ca`"),
        ("mqtt", "user = \"lobby\"", "`broker` is missing"),
        ("mqtt", "broker = \"mqtts://a b\"", "not a URL"),
    ] {
        let text = format!("{LEAST}\n[{section}]\n{line}\n");
        let error = wrong(&text);
        assert!(error.contains(says), "{line}: {error}");
        assert!(error.contains(" | ^") || error.contains("  | "), "no caret: {error}");
    }
}

#[test]
fn ids_are_short_words_that_topics_can_hold() {
    for bad in ["all", "reply", "", "Lobby", "lobby/1", "lobby+", "a#", "über", &"a".repeat(33)] {
        let error = wrong(&LEAST.replace("lobby", bad));
        assert!(error.starts_with("/etc/jukebox/jukebox.toml:3:10: "), "{bad}: {error}");
    }
    assert!(parse(&LEAST.replace("lobby", &"a".repeat(32))).is_ok());
}

#[test]
fn plain_http_wants_a_word_and_other_schemes_are_refused() {
    let plain = LEAST.replace("/srv/music", "http://office:8080/");
    assert!(wrong(&plain).contains("allow it with `insecure = true`"));
    assert!(parse(&format!("{plain}insecure = true\n")).is_ok());
    let tls = LEAST.replace("/srv/music", "https://office/");
    assert!(wrong(&tls).contains("needs `ca`"));
    for bad in ["smb://nas/music", "https://", "https://me:secret@office/"] {
        assert!(parse(&LEAST.replace("/srv/music", bad)).is_err(), "{bad}");
    }
    assert!(wrong(&LEAST.replace("[\"/srv/music\"]", "[]")).contains("at least one origin"));
}

#[test]
fn what_is_missing_is_named() {
    assert!(wrong("").contains("`office` is missing"));
    assert!(wrong("[office]\nsite = \"hq\"\nplayer = \"lobby\"\n").contains("`origins` is missing"));
    let none = Config::load(Path::new("/nowhere/jukebox.toml")).unwrap_err();
    assert!(matches!(none, ConfigError::Missing(_)) && none.to_string().contains("player add"));
}

#[test]
fn syntax_errors_have_a_place_as_well() {
    let error = wrong("[office\nsite = 1");
    assert!(error.starts_with("/etc/jukebox/jukebox.toml:1:8: "), "{error}");
    assert!(wrong("name = \"ü\u{7f}\n").contains(":1:"));
}

#[test]
fn relative_paths_count_from_the_file() {
    let config = parse(&format!("{}\n[store]\nstate = \"s\"\n", LEAST.replace("/srv/music", "music"))).unwrap();
    assert_eq!(config.office.origins, ["/etc/jukebox/music"]);
    assert_eq!(config.store.state, Path::new("/etc/jukebox/s"));
}

#[test]
fn the_password_comes_from_its_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jukebox.toml");
    let text = format!("{LEAST}insecure = true\n[mqtt]\nbroker = \"mqtt://[::1]:1884\"\npassword_file = \"secret\"\n");
    std::fs::write(&path, &text).unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("secret: ") && error.contains("first line"), "{error}");
    std::fs::write(folder.path().join("secret"), "s3cret\n").unwrap();
    let config = Config::load(&path).unwrap();
    let mqtt = config.mqtt.as_ref().unwrap();
    assert_eq!(mqtt.password.as_ref().unwrap().reveal(), "s3cret");
    assert_eq!(mqtt.user, "lobby");
    assert_eq!(mqtt.address(), ("::1".into(), 1884, false));
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(!config.check_report().unwrap().contains("s3cret"));
    assert!(config.check_report().unwrap().contains("warning: `insecure = true`"));
}

#[test]
fn the_digest_tells_settings_apart_but_not_passwords() {
    let with = |password: &str, volume: u8| {
        let mqtt = format!("[mqtt]\nbroker = \"mqtt://office\"\npassword = \"{password}\"\n");
        parse(&format!("{LEAST}insecure = true\n{mqtt}[output]\nvolume_max = {volume}\n")).unwrap().digest()
    };
    assert_eq!(with("one", 80), with("two", 80));
    assert_ne!(with("one", 80), with("one", 81));
    assert!(with("one", 80).starts_with("sha256:") && with("one", 80).len() == 7 + 64);
}

#[test]
fn a_ca_without_certificates_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jukebox.toml");
    let text = LEAST.replace("/srv/music", "https://office/");
    std::fs::write(&path, format!("{text}ca_pem = \"nothing\"\n")).unwrap();
    let error = Config::load(&path).unwrap().check_report().unwrap_err().to_string();
    assert!(error.contains("jukebox.toml:5:10: no certificate inside"), "{error}");
    std::fs::write(&path, format!("{text}ca = \"ca.pem\"\n")).unwrap();
    let error = Config::load(&path).unwrap().check_report().unwrap_err().to_string();
    assert!(error.contains("ca.pem: No such file") && error.contains("fix: give the office's CA"), "{error}");
}
