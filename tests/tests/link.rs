//! The whole player on a link that is young, gone, and back: real web server, real broker, and what left the DAC.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::time::Duration;

use jukebox_tests::rig::house::House;
use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::until;
use serde_json::{Value, json};

const SOME_TIME: Duration = Duration::from_secs(60);

fn song(folder: &std::path::Path, title: &str, seconds: f64, seed: u32) {
    music::make(&folder.join(format!("{title}.flac")), &Song { title, seconds, seed, ..Song::default() });
}

/// An answer, unless the player says that it was asked too often.
fn look(house: &House, verb: &str) -> Option<Value> {
    std::thread::park_timeout(Duration::from_millis(60));
    let reply = house.ask(verb, "");
    (reply["status"] == "ok").then(|| reply["data"].clone())
}

/// Runs of silence of 30 ms and more within the sound.
fn gaps(house: &House) -> Vec<f64> {
    let sound = house.player.recording();
    sound.gaps(30.0).into_iter().map(|g| g.start as f64 / f64::from(sound.rate)).collect()
}

/// It begins with the smallest rendition, which comes first, and climbs to the original while it plays.
#[test]
fn a_track_begins_small_and_climbs_without_a_seam() {
    let setup = Setup { store: String::new(), ..Setup::default() };
    let house = House::with(setup, |music| song(music, "Waterloo", 75.0, 1));
    let ears = house.ears();
    house.ok("add", "waterloo");
    let renditions = |from: usize, wanted: &str| {
        let what = format!("it plays {wanted}");
        ears.wait_from(from, SOME_TIME, &what, |m| m.topic.ends_with("/now") && m.json()["rendition"] == wanted)
    };
    renditions(0, "opus-32");
    renditions(0, "original");
    let at = house.ok("now", "")["position_ms"].as_u64().unwrap();
    until("five more seconds are heard", SOME_TIME, || {
        (look(&house, "now")?["position_ms"].as_u64()? > at + 5_000).then_some(())
    });
    assert_eq!(gaps(&house), [0.0; 0], "no gap at the change");
    let health = house.ok("health", "");
    assert_eq!(health["underruns"], 0, "{health}");
    // What the renditions hold in common is there throughout: the tone of the song.
    let sound = house.player.recording();
    let seconds = sound.sounding().len() as f64 / f64::from(sound.rate);
    let tone = 240.0;
    let levels: Vec<f64> = (1..seconds as usize - 1).map(|s| sound.level_at(s as f64, 1.0, tone)).collect();
    let mean = levels.iter().sum::<f64>() / levels.len() as f64;
    assert!(levels.iter().all(|l| (l / mean - 1.0).abs() < 0.1), "{levels:?}");
}

/// The next entry is asked for while the office is gone: the fallback follows the first one without a gap, says what is waited
/// for, and makes way when the office is back.
#[test]
fn the_fallback_bridges_an_outage_and_nothing_is_lost() {
    let setup =
        Setup { fallback: "playlist = \"late\"\nshuffle = false\n".into(), store: String::new(), ..Setup::default() };
    let mut house = House::with(setup, |music| {
        song(music, "Waterloo", 20.0, 1);
        song(music, "Fernando", 25.0, 2);
        song(music, "Chiquitita", 9.0, 3);
        std::fs::write(music.join("late.m3u8"), "#EXTM3U\nFernando.flac\n").unwrap();
    });
    house.ok("add", "waterloo");
    until("song and fallback are on board", SOME_TIME, || {
        (look(&house, "health")?["on_board_total_s"].as_u64()? >= 36).then_some(())
    });
    house.web.stop();
    let entry = house.ok("add", "chiquitita")["entry"].clone();
    let waiting = until("the fallback plays", SOME_TIME, || {
        let now = look(&house, "now")?;
        (now["source"] == "fallback" && now["state"] == "playing").then_some(now)
    });
    assert_eq!((&waiting["entry"], &waiting["waiting"]["entry"]), (&Value::Null, &entry));
    assert_eq!(waiting["track"]["title"], "Fernando");
    assert_eq!(waiting["waiting"]["reason"]["code"], "refused");
    let panel = house.player.told(&["status"]);
    assert!(panel.contains("Chiquitita waits") && panel.contains("the office refuses connections"), "{panel}");
    house.web.start_again();
    until("the entry has its turn", SOME_TIME, || {
        let now = look(&house, "now")?;
        (now["entry"] == entry && now["state"] == "playing").then_some(())
    });
    until("all is heard", SOME_TIME, || (look(&house, "now")?["state"] == "stopped").then_some(()));
    assert_eq!(gaps(&house), [0.0; 0], "nobody heard the outage");
    let silence = house.ok("health", "")["unplanned_silence_s"]["since_boot"].as_f64().unwrap();
    assert!(silence < 1.0, "but for the first start: {silence}");
    let plays = house.ok("history", "")["plays"].clone();
    let titles: Vec<_> = plays.as_array().unwrap().iter().map(|p| p["title"].clone()).collect();
    assert_eq!(titles, [json!("Chiquitita"), json!("Waterloo")]);
}
