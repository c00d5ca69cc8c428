//! The configuration is read again while music plays: the sound goes on, what is new counts, and what is wrong changes nothing.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::time::Duration;

use jukebox_tests::rig::house::House;
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::{SOON, until, write};
use serde_json::Value;

/// What the player says on its socket, where nobody counts the questions.
fn look(house: &House, verb: &str) -> Value {
    let answer: Value = serde_json::from_str(&house.player.told(&["--json", verb])).unwrap();
    answer["data"].clone()
}

/// Rewrites the player's configuration by `change` and asks for a reload; returns when the player says that it is through.
fn reload(house: &mut House, change: impl Fn(String) -> String) {
    let file = house.player.config();
    let text = std::fs::read_to_string(&file).unwrap();
    let new = change(text.clone());
    assert_ne!(new, text, "nothing was changed");
    write(&file, new);
    house.player.process().signal("HUP");
    let told = house.player.notify().message("RELOADING=1", SOON).expect("it says that it reloads");
    let time = told.lines().find_map(|l| l.strip_prefix("MONOTONIC_USEC=")).expect("and when");
    // systemd compares it with its own clock: microseconds since boot.
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!((time.parse::<f64>().unwrap() / 1e6 - uptime).abs() < 60.0, "{told}");
    assert!(house.player.notify().wait("READY=1", SOON), "and that it is through");
}

#[test]
fn a_reload_is_not_heard_and_counts_at_once() {
    let fallback = "while_waiting = false\nwhen_empty = \"fallback\"\nplaylist = \"calm\"\nshuffle = false\n";
    let setup = Setup { fallback: fallback.into(), ..Setup::default() };
    let mut house = House::with(setup, |music| {
        use jukebox_tests::rig::music::{self, Song};
        for (n, (title, seconds)) in
            [("Waterloo", 30.0), ("Fernando", 9.0), ("Chiquitita", 9.0)].into_iter().enumerate()
        {
            let song = Song { title, seconds, seed: n as u32 + 1, ..Song::default() };
            music::make(&music.join(format!("{n}.flac")), &song);
        }
        write(&music.join("calm.m3u8"), "1.flac\n");
        write(&music.join("loud.m3u8"), "2.flac\n");
    });
    let ears = house.ears();
    house.ok("add", "waterloo");
    house.ok("volume", "80");
    until("it plays, and all of it is on board", SOON, || {
        let queue = look(&house, "queue");
        let sounds = house.player.recording().sounding().len() > 44_100;
        // The hours of the fallback count once the time is known.
        let timely = look(&house, "now")["clock"] == "synced";
        (sounds && timely && queue["entries"][0]["on_board_pct"] == 100).then_some(())
    });
    let mark = ears.mark();

    // Another name, a lower ceiling, another fallback, another place for the music, another way to the broker.
    let library = house.library.display().to_string();
    let web = house.web.url();
    reload(&mut house, |text| {
        let text = text.replace("first_volume = 100", "first_volume = 30\nvolume_max = 40\nrate = 48000");
        let text = text.replace("\"calm\"", "\"loud\"").replace("mqtts://127.0.0.1", "mqtts://localhost");
        format!("name = \"Third floor\"\n{}", text.replace(&format!("{web:?}"), &format!("{library:?}")))
    });
    let told = ears.wait_from(mark, SOON, "what was read", |m| m.topic.ends_with("/event/config")).json();
    assert_eq!((&told["error"], &told["after_restart"]), (&().into(), &vec!["output.rate"].into()), "{told}");
    let info = ears.wait_from(mark, SOON, "info", |m| m.topic.ends_with("/info") && m.payload.contains("Third floor"));
    assert_eq!(info.json()["config"], told["digest"]);
    ears.wait_from(mark, SOON, "connected anew", |m| m.topic.ends_with("/availability") && m.payload == "online");
    assert_eq!(house.ok("volume", "+0")["percent"], 40, "the ceiling came down over it");
    assert_eq!(house.ok("volume", "90")["percent"], 40);
    house.web.stop();
    house.ok("add", "chiquitita");
    until("music comes from the new place", SOON, || {
        (look(&house, "queue")["entries"][1]["on_board_pct"] == 100).then_some(())
    });

    // A wrong file: everything stays, and everybody is told where it is wrong.
    let mark = ears.mark();
    reload(&mut house, |text| text.replace("volume_max = 40", "volume_mx = 70"));
    let told = ears.wait_from(mark, SOON, "what is wrong", |m| m.topic.ends_with("/event/config")).json();
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("jukebox.toml:") && error.ends_with("did you mean `volume_max`?"), "{told}");
    until("the panel says so", SOON, || {
        let panel = house.player.told(&["panel"]);
        (panel.contains("Configuration is wrong") && panel.contains("Line ")).then_some(())
    });
    house.player.process().line("the old one stays");
    assert_eq!(house.ok("volume", "90")["percent"], 40, "the old ceiling");
    assert_eq!(house.ok("now", "")["state"], "playing");

    // The new fallback is the one that follows when nothing is queued.
    let mark = ears.mark();
    let entries = house.ok("queue", "")["entries"].as_array().unwrap().len();
    assert_eq!(entries, 2);
    let before = house.player.recording();
    assert!(before.gaps(1.0).is_empty(), "{:?}", before.gaps(1.0));
    for _ in 0..2 {
        house.ok("skip", "");
    }
    let now = ears.wait_from(mark, Duration::from_secs(20), "the fallback", |m| {
        m.topic.ends_with("/now") && m.json()["source"] == "fallback" && m.json()["state"] == "playing"
    });
    assert_eq!(now.json()["track"]["title"], "Chiquitita");
    assert_eq!(house.ok("health", "")["underruns"], 0);
}
