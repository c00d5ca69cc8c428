//! The daemon among real parts, used as people use it: commands in by mosquitto's own tools, sound recorded, gaps counted.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::path::Path;
use std::time::{Duration, Instant};

use jukebox_tests::rig::house::House;
use jukebox_tests::rig::mqtt::Listener;
use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::{self, SOON, office, until};
use serde_json::Value;

const SONGS: [(&str, f64); 4] = [("Waterloo", 8.0), ("Fernando", 30.0), ("Water Music", 5.0), ("Музыка 音乐", 4.0)];

fn house() -> House {
    House::new(&SONGS, Setup::default())
}

/// Real time that a short track may take until its end is told: its length, and what a loaded machine adds.
const PLAYED: Duration = Duration::from_secs(40);

fn state(ears: &Listener, mark: usize, limit: Duration, state: &str) -> Value {
    ears.wait_from(mark, limit, state, |m| m.topic.ends_with("/now") && m.json()["state"] == state).json()
}

/// The main job: two songs asked for, one by mosquitto's tools and one by a Python bot, are heard whole and without a gap.
#[test]
fn songs_asked_for_are_heard_without_a_gap() {
    let house = House::new(&[("Waterloo", 4.0), ("Fernando", 5.0)], Setup::default());
    let ears = house.ears();
    assert_eq!(house.ok("add", "waterloo")["track"]["title"], "Waterloo");
    let by_bot = house.bot().bot(&["hq/lobby", "add", "fernando"]);
    assert_eq!((&by_bot["data"]["track"]["title"], &by_bot["player"]), (&"Fernando".into(), &"lobby".into()));

    ears.wait_from(0, PLAYED, "the first song's end", |m| m.topic.ends_with("/event/finished"));
    let mark = ears.mark();
    ears.wait_from(mark, PLAYED, "the second song's end", |m| m.topic.ends_with("/event/finished"));
    ears.wait_from(mark, PLAYED, "stopped", |m| m.topic.ends_with("/now") && m.json()["state"] == "stopped");

    let sound = house.player.recording();
    assert_eq!(sound.rate, 44_100);
    // The first frames of a fade may be zero; nothing else may.
    let heard = sound.sounding().len() as i64;
    assert!((9 * 44_100 - heard).abs() < 441, "9 s are {} frames; {heard} were heard", 9 * 44_100);
    assert!(sound.gaps(1.0).is_empty(), "{:?}", sound.gaps(1.0));
    let health = house.ok("health", "");
    assert_eq!(health["underruns"], 0);
    // The time from the command to the first frame counts: a loaded machine takes a moment.
    assert!(health["unplanned_silence_s"]["since_boot"].as_f64().is_some_and(|s| s < 1.0), "{health}");
    let requests = house.web.requests();
    assert!(requests.iter().any(|r| r.contains(" 206 bytes=") && r.contains("HTTP/2.0")), "{requests:#?}");
}

/// Both the web server and the broker go away in mid-song; what is on board plays on, and when they are back, so is the player.
#[test]
fn an_outage_is_not_heard() {
    let songs = [("Waterloo", 6.0), ("Fernando", 5.0), ("Chiquitita", 4.0)];
    let mut house = House::new(&songs, Setup::default());
    for song in ["waterloo", "fernando"] {
        house.ok("add", song);
    }
    until("all on board", PLAYED, || {
        let queue = house.ok("queue", "");
        let entries = queue["entries"].as_array()?;
        (entries.len() == 2 && entries.iter().all(|e| e["on_board_pct"] == 100)).then_some(())
    });
    house.web.stop();
    house.broker.kill();
    until("both songs are heard", PLAYED, || {
        let sound = house.player.recording();
        (sound.sounding().len() > 11 * 44_100 - 441).then_some(())
    });
    let gaps = house.player.recording().gaps(1.0);
    assert!(gaps.is_empty(), "{gaps:?}");

    house.web.start_again();
    house.broker.start_again();
    let ears = house.ears();
    ears.wait_from(0, PLAYED, "online again", |m| m.topic.ends_with("/availability") && m.payload == "online");
    ears.wait_from(0, PLAYED, "what was played meanwhile", |m| m.topic.ends_with("/event/finished"));
    let on_board = |title: &str| house.ok("search", title)["results"][0]["on_board"].clone();
    assert_eq!((on_board("waterloo"), on_board("chiquitita")), (true.into(), false.into()), "also what is not queued");
    assert_eq!(house.ok("add", "chiquitita")["track"]["title"], "Chiquitita");
    ears.wait_from(0, PLAYED, "the third song", |m| m.topic.ends_with("/now") && m.payload.contains("Chiquitita"));
}

/// Every by-hand entry of every verb, with mosquitto's own tools, and what is heard of it.
#[test]
fn every_verb_by_hand() {
    let house = House::with(Setup::default(), |music| {
        for (n, (title, seconds)) in SONGS.into_iter().enumerate() {
            let song = Song { title, seconds, seed: n as u32 + 1, ..Song::default() };
            music::make(&music.join(format!("{n}.flac")), &song);
        }
        rig::write(&music.join("Friday night.m3u8"), "#EXTM3U\n3.flac\n1.flac\n");
    });
    let ears = house.ears();
    let added = house.ok("add", "waterloo the rig");
    assert_eq!((&added["entry"], &added["track"]["title"]), (&1.into(), &"Waterloo".into()), "{added}");
    state(&ears, 0, SOON, "playing");
    ears.wait("the start is told", |m| m.topic.ends_with("/event/started") && m.json()["entry"] == 1);

    let id = house.ok("search", "water mus")["results"][0]["track"].as_str().unwrap().to_owned();
    let by_id = house.ok("add", &format!("track:{id}"));
    assert_eq!(by_id["track"]["title"], "Water Music");
    assert!((3..=8).contains(&by_id["starts_in_s"].as_u64().unwrap()), "{by_id}");
    assert_eq!(house.refused("add", "http://radio.example/stream"), "url_not_allowed");
    assert_eq!(house.refused("add", "no such thing anywhere"), "not_found");
    assert_eq!(house.refused("add", "track:aaaaaaaaaaaaaaaa"), "unknown_track");
    assert_eq!(house.ok("add", "музыка")["track"]["title"], "Музыка 音乐");
    assert_eq!(house.refused("add", r#"{"text":"water","strict":true}"#), "ambiguous");

    let found = house.ok("search", "WATER");
    assert_eq!(found["total"], 2, "{found}");

    assert_eq!(house.ok("pause", "")["changed"], true);
    assert_eq!(house.ok("pause", "")["changed"], false);
    assert_eq!(house.ok("play", "")["changed"], true);
    assert_eq!(house.ok("toggle", "")["state"], "paused");
    house.ok("toggle", "");
    assert_eq!(house.ok("volume", "35")["percent"], 35);
    assert_eq!(house.ok("volume", "+5")["percent"], 40);
    assert_eq!(house.ok("volume", "-5")["percent"], 35);
    assert_eq!(house.ok("mute", "true")["on"], true);
    assert_eq!(house.ok("mute", "toggle")["on"], false);
    assert_eq!(house.ok("mute", "false")["on"], false);
    let queue = house.ok("queue", "");
    assert_eq!(queue["total"], 3, "{queue}");
    assert_eq!(house.ok("remove", "3")["entry"], 3);
    assert_eq!(house.refused("remove", "3"), "unknown_entry");
    assert_eq!(house.ok("now", "")["track"]["title"], "Waterloo");
    assert_eq!(house.ok("skip", "1")["entry"], 2);
    assert_eq!(house.refused("skip", "1"), "unknown_entry", "repeating is harmless");
    let health = house.ok("health", "");
    assert_eq!((&health["link"], &health["origins"][0]["state"]), (&"good".into(), &"ok".into()), "{health}");
    assert_eq!(house.ok("ping", "")["boot"].as_str().map(str::len), Some(16));
    house.ok("skip", "");
    assert_eq!(house.ok("stop", "")["state"], "stopped");
    assert_eq!(house.refused("dance", ""), "unknown_verb");
    assert_eq!(house.refused("seek", "+10"), "not_seekable");

    assert_eq!(house.ok("playlists", "")["playlists"][0]["id"], "friday-night");
    assert_eq!(house.refused("playlist", "monday"), "unknown_playlist");
    let list = house.ok("playlist", "friday night");
    assert_eq!((&list["added"], &list["missing"]), (&2.into(), &0.into()), "{list}");
    let queue = house.ok("queue", "");
    let [music, fernando] = [0, 1].map(|n| queue["entries"][n]["entry"].to_string());
    house.ok("add", "waterloo");
    house.ok("add", "water music");
    assert_eq!(house.ok("move", &format!("{} next", fernando.parse::<u32>().unwrap() + 2))["place"], 1);
    assert_eq!(house.ok("move", &format!("{} end", fernando.parse::<u32>().unwrap() + 2))["place"], 3);
    assert_eq!(house.ok("move", &format!("{} {fernando}", fernando.parse::<u32>().unwrap() + 1))["place"], 1);
    assert_eq!(house.refused("move", &format!("{music} end")), "not_allowed");
    assert_eq!(house.ok("clear", "")["removed"], 3);
    house.ok("playlist", r#"{"name":"Friday night","mode":"replace"}"#);
    house.ok("skip", "");
    let mark = ears.mark();
    assert_eq!(house.ok("seek", "0:10")["position_ms"], 10_000);
    let now = state(&ears, mark, SOON, "playing");
    assert!((10_000..12_000).contains(&now["position_ms"].as_u64().unwrap()), "{now}");
    let on = house.ok("seek", "+10")["position_ms"].as_u64().unwrap();
    assert!((20_000..24_000).contains(&on), "{on}");
    assert!(house.ok("seek", "-10")["position_ms"].as_u64().is_some_and(|ms| (on - 10_002..on - 8_000).contains(&ms)));
    let restarted = house.ok("previous", "");
    assert_eq!(restarted["position_ms"], 0);
    assert_eq!(house.ok("stop", "after")["changed"], true);
    assert_eq!(house.ok("now", "")["stops_after"], true);
    let plays = house.ok("history", "");
    assert_eq!(plays["plays"].as_array().map(Vec::len), plays["total"].as_u64().map(|n| n as usize));
    assert!(plays["plays"].as_array().unwrap().iter().any(|p| p["title"] == "Waterloo" && p["skipped"] == true));
    assert_eq!(house.ok("stop", "")["state"], "stopped");
    house.ok("clear", "");
    house.ok("skip", "");

    // A bot of another language, with an id, twice: once in effect.
    let command = r#"{"text":"fernando","id":"3b9d7c2e-once"}"#;
    let first = house.bot().bot(&["hq/lobby", "add", command]);
    assert_eq!((&first["status"], &first["data"]["track"]["title"]), (&"ok".into(), &"Fernando".into()), "{first}");
    let again = house.bot().bot(&["hq/lobby", "add", command]);
    assert_eq!((&again["replayed"], &again["data"]["entry"]), (&true.into(), &first["data"]["entry"]));
    assert_eq!(house.ok("queue", "")["total"], 1);

    // MQTT 3.1.1 has no response topic: the reply is on the fixed one.
    let mark = ears.mark();
    house.bot().publish("jukebox/1/hq/lobby/command/ping", "old", &["-V", "mqttv311"]);
    let reply = ears.wait_from(mark, SOON, "the fixed reply topic", |m| m.topic == "jukebox/1/hq/lobby/reply");
    assert_eq!(reply.json()["data"]["nonce"], "old");
    // Retained commands, strange response topics, a verb that is not for all.
    let mark = ears.mark();
    house.bot().publish("jukebox/1/hq/lobby/command/skip", "7", &["-r"]);
    let refused = ears.wait_from(mark, SOON, "retained", |m| m.topic.ends_with("/event/refused"));
    assert_eq!(refused.json()["code"], "retained");
    let clear = house.bot();
    clear.publish("jukebox/1/hq/lobby/command/skip", "", &["-r"]);
    let mark = ears.mark();
    let bad = ["-D", "PUBLISH", "response-topic", "jukebox/1/hq/lobby/volume"];
    house.bot().publish("jukebox/1/hq/lobby/command/volume", "91", &bad);
    ears.wait_from(mark, SOON, "a refusal on the fixed topic", |m| {
        m.topic == "jukebox/1/hq/lobby/reply" && m.json()["code"] == "bad_response_topic"
    });
    let mark = ears.mark();
    house.bot().publish("jukebox/1/hq/all/command/volume", "22", &[]);
    ears.wait_from(mark, SOON, "all players obey", |m| m.topic.ends_with("/lobby/volume") && m.payload == "22");
    for verb in ["play", "pause", "stop", "skip", "mute"] {
        let (mark, back) = (ears.mark(), ["-D", "PUBLISH", "response-topic", "jukebox/1/hq/reply/all"]);
        let say = if verb == "mute" { "false" } else { "" };
        house.bot().publish(&format!("jukebox/1/hq/all/command/{verb}"), say, &back);
        let answer = ears.wait_from(mark, SOON, verb, |m| m.topic == "jukebox/1/hq/reply/all").json();
        assert_eq!((&answer["player"], &answer["status"]), (&"lobby".into(), &"ok".into()), "{answer}");
    }
    house.ok("add", "fernando");
    let mark = ears.mark();
    house.bot().publish("jukebox/1/hq/all/command/add", "water", &[]);
    ears.wait_from(mark, SOON, "not for all", |m| m.payload.contains("not_allowed"));

    // On the player itself.
    assert!(house.player.told(&["status"]).contains("Fernando"));
    assert!(house.player.told(&["--json", "queue"]).contains("\"total\":1"));
    // The volume stands before it for two seconds.
    until("the panel shows the track", SOON, || house.player.told(&["panel"]).contains("Fernando").then_some(()));
    let out = house.player.cli(&["skip", "99"]);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("Entry 99 is not"), "{out:?}");
}

/// Without gain what reaches the DAC is the file, sample for sample, and the same track twice is joined without a gap.
#[test]
fn two_tracks_are_joined_sample_for_sample() {
    let make = |songs: &Path| {
        let song = Song { title: "Waterloo", seconds: 6.0, ..Song::default() };
        music::make(&songs.join("0.flac"), &song);
    };
    let probe = rig::folder();
    make(probe.path());
    office::publish(probe.path(), &probe.path().join("library"));
    // The loudness of the track itself: a gain of 0 dB.
    let shown = rig::run(
        std::process::Command::new(rig::program("jukebox-office"))
            .args(["show"])
            .arg(probe.path().join("library"))
            .arg(track_id(&probe.path().join("library"))),
    );
    let record: Value = serde_json::from_str(&shown).unwrap();
    let loudness = record["record"]["loudness"].as_f64().unwrap_or_else(|| panic!("{shown}"));
    let output = format!("first_volume = 100\nloudness_lufs = {}\n", loudness as f32);
    let house = House::with(Setup { output, ..Setup::default() }, make);
    let ears = house.ears();
    house.ok("add", "waterloo");
    house.ok("add", r#"{"text":"waterloo","twice":true}"#);
    let end = Duration::from_secs(40);
    ears.wait_from(0, end, "the end", |m| m.topic.ends_with("/event/finished") && m.json()["entry"] == 2);
    let file = music::decode(&house.folder().join("songs/0.flac"), house.folder());
    let twice: Vec<[i32; 2]> = file.frames.iter().chain(&file.frames).copied().collect();
    let heard = until("the recording is written", SOON, || {
        let r = house.player.recording();
        // It comes up from nothing: the first frames may be zero.
        (r.sounding().len() + 9 >= twice.len()).then_some(r)
    });
    assert_eq!(heard.rate, 44_100);
    // The first sound after a start comes up in half a second; from there on it is the file, twice.
    let (at, ramp) = (heard.sounding().start, 22_050 + 441);
    let found = heard.find(&twice[ramp..], at);
    assert!(found.is_some_and(|f| f < at + ramp + 9), "not the file twice: {found:?}, gaps {:?}", heard.gaps(0.0));
    let health = house.ok("health", "");
    assert_eq!(health["underruns"], 0);
    // The time from the command to the first frame counts: a loaded machine takes a moment.
    assert!(health["unplanned_silence_s"]["since_boot"].as_f64().is_some_and(|s| s < 1.0), "{health}");
}

fn track_id(library: &Path) -> String {
    let root: Value = serde_json::from_slice(&std::fs::read(library.join("library.json")).unwrap()).unwrap();
    let page = root["pages"][0]["object"].as_str().unwrap().to_owned();
    let mut show = std::process::Command::new(rig::program("jukebox-office"));
    let rows = rig::run(show.arg("show").arg(library).arg(page));
    let page: Value = serde_json::from_str(&rows).unwrap();
    page["catalogue"]["rows"][0]["id"].as_str().unwrap_or_else(|| panic!("{rows}")).to_owned()
}

/// A crash in mid-track: queue, position, volume and ids are there again, and it plays on by itself.
#[test]
fn a_crash_costs_nothing_that_was_answered() {
    let mut house = house();
    let ears = house.ears();
    let add = r#"{"text":"fernando","id":"before-the-crash"}"#;
    house.ok("add", add);
    house.ok("add", "waterloo");
    house.ok("volume", "41");
    state(&ears, 0, SOON, "playing");
    // The playhead is saved every ten seconds.
    until("twelve seconds are heard", Duration::from_secs(40), || {
        (house.player.recording().sounding().len() > 12 * 44_100).then_some(())
    });
    let before = house.ok("now", "")["position_ms"].as_u64().unwrap();
    let mark = ears.mark();
    house.player.crash_and_start_again();
    let now = state(&ears, mark, SOON, "playing");
    assert_eq!(now["track"]["title"], "Fernando");
    let after = now["position_ms"].as_u64().unwrap();
    assert!(after + 13_000 > before && after <= before + 3_000, "it goes on near {before}: {after}");
    assert_eq!(house.ok("queue", "")["total"], 2);
    assert_eq!(house.ok("volume", "+0")["percent"], 41);
    assert_eq!(house.ask("add", add)["replayed"], true);
    let up = ears.wait_from(mark, SOON, "started_up", |m| m.topic.ends_with("/event/started_up"));
    assert_eq!(up.json()["previous_end"], "crashed");
}

/// The office goes away: the queue waits and says why; it comes back: sound follows within 2 s.
#[test]
fn an_office_that_is_away_is_waited_for() {
    let mut house = house();
    let ears = house.ears();
    house.web.stop();
    house.ok("add", "waterloo");
    house.ok("add", "water music");
    let waiting =
        ears.wait_from(0, SOON, "the reason", |m| m.topic.ends_with("/now") && m.json()["reason"]["code"] == "refused");
    assert_eq!(waiting.json()["state"], "buffering");
    assert!(house.player.told(&["status"]).starts_with("Silent: the office refuses connections"));
    assert_eq!(house.ok("queue", "")["total"], 2, "nothing is dropped");
    let (mark, back) = (ears.mark(), Instant::now());
    house.web.start_again();
    state(&ears, mark, SOON, "playing");
    assert!(back.elapsed() < Duration::from_secs(4), "sound followed after {:?}", back.elapsed());
    // The broker goes away: music does not care, and what was published meanwhile is late, but for `add`.
    let session = Instant::now();
    house.broker.stop();
    until("music plays on", SOON, || {
        (house.player.recording().sounding().len() > 2 * 44_100 && session.elapsed() > Duration::from_millis(100))
            .then_some(())
    });
    house.broker.start_again();
    // Asked before it is back, the question comes late.
    let now = until("it answers again", SOON, || Some(house.ask("now", "")).filter(|reply| reply["status"] == "ok"));
    assert_eq!(now["data"]["state"], "playing");
    assert!(house.player.recording().gaps(60.0).is_empty(), "no gap while the broker was away");
}

/// What waited at the broker while the player was away: `add` is honoured, yesterday's skip is not.
#[test]
fn backlog_is_late_but_for_add() {
    let mut house = house();
    let (status, took) = house.player.process().terminate();
    assert!(status.success() && took < Duration::from_secs(2), "{status} after {took:?}");
    let ears = house.ears();
    ears.wait("it says goodbye", |m| m.topic.ends_with("/availability") && m.payload == "offline");
    let mark = ears.mark();
    house.bot().publish("jukebox/1/hq/lobby/command/add", "waterloo", &[]);
    house.bot().publish("jukebox/1/hq/lobby/command/volume", "99", &[]);
    house.player.start_again();
    let late = ears.wait_from(mark, SOON, "late", |m| m.topic.ends_with("/event/refused"));
    assert_eq!((&late.json()["verb"], &late.json()["code"]), (&"volume".into(), &"late".into()));
    ears.wait_from(mark, SOON, "the add", |m| m.topic.ends_with("/event/added"));
    state(&ears, mark, SOON, "playing");
    assert_ne!(house.ok("volume", "+0")["percent"], 99);
    let up = ears.wait_from(mark, SOON, "started_up", |m| m.topic.ends_with("/event/started_up"));
    assert_eq!(up.json()["previous_end"], "stopped");
}

/// SIGTERM in mid-track: a fade, not a click, within two seconds, and a watchdog that was fed until then.
#[test]
fn a_stop_fades_and_is_quick() {
    let mut house = House::new(&SONGS, Setup { watchdog: Some(Duration::from_secs(4)), ..Setup::default() });
    house.ok("add", "fernando");
    until("it plays", SOON, || (house.player.recording().sounding().len() > 44_100).then_some(()));
    assert!(house.player.notify().wait("WATCHDOG=1", SOON));
    let (status, took) = house.player.process().terminate();
    assert!(status.success() && took < Duration::from_secs(2), "{status} after {took:?}");
    let heard = house.player.recording();
    // Behind the fade lies at most the dither's noise: one step of 16 bits.
    let loud = |f: &[i32; 2]| f.iter().any(|s| s.unsigned_abs() > 8 << 16);
    let end = heard.frames.iter().rposition(loud).unwrap() + 1;
    // The last 5 ms ramp down: a mean level per millisecond that falls.
    let level = |ms: usize| {
        let from = end - (ms + 1) * 44;
        heard.frames[from..from + 44].iter().flatten().map(|s| s.unsigned_abs() as u64).sum::<u64>()
    };
    assert!(level(0) < level(4) / 2 && level(0) < level(20) / 2, "{} {} {}", level(0), level(4), level(20));
}

/// Payloads of every wrong kind while music plays: each has its answer, the music has no gap.
#[test]
fn a_flood_of_nonsense_never_touches_the_sound() {
    let house = house();
    let ears = house.ears();
    house.ok("add", "fernando");
    state(&ears, 0, SOON, "playing");
    let long = "x".repeat(9_000);
    let deep = "[".repeat(4_000);
    let nonsense = [
        "{",
        "{}",
        "[]",
        "null",
        "{\"text\":null}",
        "{\"text\":[1]}",
        "\u{202e}\u{0}",
        "track:",
        "track:ä",
        &long,
        &deep,
    ];
    for verb in ["add", "volume", "mute", "skip", "remove", "search", "../../now", "%", "add/x"] {
        // An empty object is a good skip.
        for payload in nonsense.iter().filter(|p| !p.contains('\0') && (verb, **p) != ("skip", "{}")) {
            house.bot().publish(&format!("jukebox/1/hq/lobby/command/{verb}"), payload, &[]);
        }
    }
    // A byte string that is no text.
    let raw = house.folder().join("raw");
    rig::write(&raw, [0xff, 0xfe, 0x00, 0x80]);
    let bot = house.bot();
    let file = raw.display().to_string();
    rig::run(
        std::process::Command::new("mosquitto_pub")
            .args(["-V", "5", "-h", "127.0.0.1", "-p", &bot.port.to_string(), "-u", &bot.user, "-P", &bot.password])
            .args(["--cafile", &bot.ca.clone().unwrap().display().to_string(), "-q", "1"])
            .args(["-t", "jukebox/1/hq/lobby/command/add", "-f", &file]),
    );
    until("it still answers", SOON, || (house.ask("ping", "x")["status"] == "ok").then_some(()));
    let now = until("the flood is over", SOON, || {
        let reply = house.ask("now", "");
        (reply["status"] == "ok").then(|| reply["data"].clone())
    });
    assert_eq!(now["track"]["title"], "Fernando");
    let heard = house.player.recording();
    assert!(heard.gaps(5.0).is_empty(), "{:?}", heard.gaps(5.0));
    let health = until("health is answered", SOON, || {
        let reply = house.ask("health", "");
        (reply["status"] == "ok").then(|| reply["data"].clone())
    });
    assert_eq!(health["underruns"], 0);
}

/// A library whose objects lie: the track is skipped with its reason while others verify, and the music goes on.
#[test]
fn a_lying_library_costs_its_track_only() {
    let house = house();
    let ears = house.ears();
    // The object of Waterloo's original: the largest file that only it needs. Every byte of sound is turned.
    let id = house.ok("search", "waterloo")["results"][0]["track"].as_str().unwrap().to_owned();
    let shown = rig::run(
        std::process::Command::new(rig::program("jukebox-office")).args(["show"]).arg(&house.library).arg(&id),
    );
    let record: Value = serde_json::from_str(&shown).unwrap();
    let object = record["record"]["renditions"][0]["object"].as_str().unwrap().to_owned();
    let path = house.library.join("o").join(&object[..2]).join(&object);
    let bytes: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|b| !b).collect();
    let _ = std::fs::remove_file(&path);
    rig::write(&path, bytes);
    house.ok("add", "fernando");
    state(&ears, 0, SOON, "playing");
    house.ok("add", r#"{"text":"waterloo","where":"next"}"#);
    house.ok("add", "water music");
    house.ok("skip", "");
    let skipped = ears.wait_from(0, Duration::from_secs(40), "the bad track is skipped", |m| {
        m.topic.ends_with("/event/skipped") && !m.json()["reason"].is_null()
    });
    assert_eq!(skipped.json()["reason"]["code"], "damaged");
    ears.wait_from(0, SOON, "the next plays", |m| {
        m.topic.ends_with("/now") && m.json()["track"]["title"] == "Water Music" && m.json()["state"] == "playing"
    });
    let verified =
        std::process::Command::new(rig::program("jukebox-office")).arg("verify").arg(&house.library).output();
    assert!(!verified.unwrap().status.success(), "verify finds it too");
}

/// A root of another form or an older one is refused with a word, and what is here stays.
#[test]
fn a_root_from_the_future_or_the_past_is_refused() {
    let house = house();
    let ears = house.ears();
    let path = house.library.join("library.json");
    let mut root: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    root["revision"] = 0.into();
    rig::write(&path, root.to_string());
    // It is looked at now and again; a restart looks at once.
    let mut house = house;
    let mark = ears.mark();
    house.player.start_again();
    ears.wait_from(mark, SOON, "an older root", |m| {
        m.topic.ends_with("/event/library") && m.payload.contains("is older than")
    });
    assert_eq!(house.ok("add", "waterloo")["track"]["title"], "Waterloo");
    root["format"] = 2.into();
    rig::write(&path, root.to_string());
    house.player.start_again();
    let panel = until("the panel says so", SOON, || {
        let text = house.player.told(&["panel"]);
        text.contains("newer than this player").then_some(text)
    });
    assert!(panel.contains("Waterloo"), "it plays what it has: {panel}");
}

/// The same with nothing but our own office: `serve`, and the file that `player add` wrote.
#[test]
fn serve_and_the_file_of_player_add_are_enough() {
    let folder = rig::folder();
    let (songs, library) = (folder.path().join("songs"), folder.path().join("library"));
    std::fs::create_dir(&songs).unwrap();
    music::make(&songs.join("one.mp3"), &Song { title: "Waterloo", seconds: 4.0, ..Song::default() });
    office::publish(&songs, &library);
    let office = office::Office::start(&folder.path().join("office"), &library);
    let file = office.add("lobby");
    let at = folder.path().display();
    let mut config = std::fs::read_to_string(&file).unwrap();
    config.push_str(&format!(
        "[output]\nrecord = \"{at}/sound.wav\"\n[board]\npanel = \"png:{at}/panel.png\"\nprofile = \"sim-lcd\"\n\
         [store]\nstate = \"{at}/state\"\ncache = \"{at}/cache\"\nfloor_mb = 0\n[socket]\npath = \"{at}/socket\"\n"
    ));
    rig::write(&file, config);
    let bot = office.bot();
    let ears = bot.listen(&["jukebox/1/hq/#"]);
    let mut command = std::process::Command::new(rig::program("jukebox"));
    let mut player = rig::Process::start("lobby", command.args(["run", "--config"]).arg(&file));
    player.line("library revision 1: 1 tracks");
    ears.wait("online", |m| m.topic.ends_with("/availability") && m.payload == "online");
    let added = bot.ask("hq", "lobby", "add", "waterloo");
    assert_eq!(added["status"], "ok", "{added}");
    ears.wait_from(0, Duration::from_secs(30), "its end", |m| m.topic.ends_with("/event/finished"));
    let (status, took) = player.terminate();
    assert!(status.success() && took < Duration::from_secs(2), "{status} after {took:?}");
    let sound = jukebox_tests::rig::recording::Recording::read(&folder.path().join("sound.wav"));
    let heard = sound.sounding().len() as f64 / 44_100.0;
    assert!((3.9..4.1).contains(&heard), "4 s of MP3 are 4 s at the DAC: {heard}");
    assert!(std::fs::read(folder.path().join("panel.png")).unwrap().starts_with(b"\x89PNG"));
}
