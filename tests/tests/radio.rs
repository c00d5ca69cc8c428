//! Live radio: a real Icecast, the real daemon, and what left the DAC.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use jukebox_tests::rig::house::House;
use jukebox_tests::rig::icecast::{Icecast, Tunnel};
use jukebox_tests::rig::player::{Player, Setup};
use jukebox_tests::rig::{SOON, folder, until};
use serde_json::{Value, json};

/// A player without an office, which may tune in to these ports of this machine.
fn player(folder: &std::path::Path, ports: &[u16], more: &str) -> Player {
    let allow: Vec<String> = ports.iter().map(|p| format!("http://127.0.0.1:{p}/")).collect();
    let streams = format!("allow = {allow:?}\n{more}");
    let music = folder.join("music");
    std::fs::create_dir_all(&music).unwrap();
    // At one rate all that is heard is one recording.
    let output = "first_volume = 100\nrate = 44100\n".into();
    let origins = vec![music.display().to_string()];
    Player::start(&folder.join("player"), Setup { origins, streams, output, ..Setup::default() })
}

fn ask(player: &Player, verb: &str, payload: &Value) -> Value {
    let mut socket = player.socket();
    let mut line = payload.clone();
    line["verb"] = json!(verb);
    writeln!(socket, "{line}").unwrap();
    let mut answer = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(socket), &mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn now(player: &Player) -> Value {
    ask(player, "now", &json!({}))["data"].clone()
}

fn wait_for(player: &Player, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    until(what, SOON, || Some(now(player)).filter(&fits))
}

/// Whether the tone of a station is what is heard in the `seconds` from `from` on.
fn hears(player: &Player, from: f64, seconds: f64, hertz: f64) -> bool {
    let sound = player.recording();
    let at = |hertz| sound.level_at(from, seconds, hertz);
    at(hertz) > 20.0 * at(hertz * 1.31)
}

fn recorded(player: &Player) -> f64 {
    let sound = player.recording();
    sound.frames.len() as f64 / f64::from(sound.rate.max(1))
}

#[test]
fn every_kind_of_stream_plays_and_says_what_it_is() {
    let folder = folder();
    let mut icecast = Icecast::start(folder.path());
    let kinds = [("live.mp3", 1_000), ("live.ogg", 1_300), ("live.opus", 1_600), ("live.aac", 1_900)];
    kinds.iter().for_each(|&(name, hertz)| icecast.station(name, hertz));
    let player = player(folder.path(), &[icecast.port()], "");
    for (name, hertz) in kinds {
        let url = format!("http://127.0.0.1:{}/{name}", icecast.port());
        let added = ask(&player, "add", &json!({"url": url}));
        assert_eq!(added["status"], "ok", "{added}");
        let track =
            wait_for(&player, &format!("{name} plays"), |n| n["state"] == "playing" && n["track"]["url"] == url);
        assert_eq!((&track["track"]["kind"], &track["rendition"]), (&json!("stream"), &Value::Null));
        if name.ends_with("mp3") || name.ends_with("aac") {
            icecast.title(name, "ABBA - Waterloo");
            let named = wait_for(&player, "the title is there", |n| n["track"]["title"] == "Waterloo")["track"].clone();
            assert_eq!((&named["artist"], &named["album"]), (&json!("ABBA"), &json!("Rig Radio")));
        } else {
            let named = wait_for(&player, "the tag is there", |n| n["track"]["title"] == "Tune")["track"].clone();
            assert_eq!((&named["artist"], &named["album"]), (&json!("Tagged"), &json!("Rig Radio")));
        }
        let from = recorded(&player);
        until("three more seconds are heard", SOON, || (recorded(&player) > from + 3.0).then_some(()));
        assert!(hears(&player, from + 0.5, 2.0, f64::from(hertz)), "{name} is what is heard");
        assert_eq!(ask(&player, "seek", &json!({"by_ms": 10_000}))["code"], "not_seekable");
        ask(&player, "skip", &json!({}));
    }
    wait_for(&player, "it stops", |n| n["state"] == "stopped");
    let health = ask(&player, "health", &json!({}))["data"].clone();
    assert_eq!(health["underruns"], 0, "{health}");
    let plays = ask(&player, "history", &json!({}))["data"]["plays"].clone();
    assert_eq!(plays.as_array().unwrap().len(), 4);
    assert!(plays.as_array().unwrap().iter().all(|p| p["kind"] == "stream" && p["title"] == "Rig Radio"), "{plays}");
}

/// The station behind a link that goes dark without a word, and a server that dies: the fallback plays, and the stream is back
/// two seconds after it can be.
#[test]
fn a_dark_link_and_a_dead_server_cost_two_seconds_after_their_end() {
    let folder = folder();
    let mut icecast = Icecast::start(folder.path());
    icecast.station("live.mp3", 1_000);
    let tunnel = Tunnel::to(icecast.port());
    let streams = format!("allow = [\"http://127.0.0.1:{}/\"]\n", tunnel.port());
    let setup = Setup { fallback: String::new(), streams, ..Setup::default() };
    let house = House::new(&[("Fernando", 60.0), ("Waterloo", 60.0)], setup);
    until("the fallback is on board", Duration::from_secs(60), || {
        std::thread::park_timeout(Duration::from_millis(60));
        let health = house.ask("health", "");
        (health["data"]["on_board_total_s"].as_u64()? >= 100).then_some(())
    });
    let url = format!("http://127.0.0.1:{}/live.mp3", tunnel.port());
    house.ok("add", &url);
    let player = &house.player;
    let live = |n: &Value| n["state"] == "playing" && n["source"] == "queue";
    let fallback = |n: &Value| n["state"] == "playing" && n["source"] == "fallback";
    wait_for(player, "it plays", live);
    tunnel.dark(true);
    let waiting = wait_for(player, "the fallback plays", fallback);
    assert_eq!(waiting["waiting"]["reason"]["code"], "station_away", "{waiting}");
    std::thread::park_timeout(Duration::from_secs(4));
    let (from, began) = (recorded(player), Instant::now());
    tunnel.dark(false);
    wait_for(player, "it is back", live);
    let back = began.elapsed();
    until("a second more is heard", SOON, || (recorded(player) > from + 4.0).then_some(()));
    assert!(hears(player, from + 2.0, 1.5, 1_000.0), "the station is heard two seconds later");
    assert!(back < Duration::from_secs(3), "{back:?}");

    icecast.stop();
    let waiting = wait_for(player, "the fallback plays", fallback);
    let code = waiting["waiting"]["reason"]["code"].as_str().unwrap();
    assert!(code == "station_away" || code == "station_off", "{waiting}");
    icecast.start_again();
    icecast.station("live.mp3", 1_000);
    wait_for(player, "it is back", live);
    let health = house.ok("health", "");
    // Until the station came for the first time.
    assert!(health["unplanned_silence_s"]["since_boot"].as_f64().unwrap() < 1.0, "{health}");
    assert_eq!(house.ok("queue", "")["total"], 1);
}

#[test]
fn it_ends_when_its_time_is_over_and_survives_a_crash() {
    let folder = folder();
    let mut icecast = Icecast::start(folder.path());
    icecast.station("live.mp3", 1_000);
    let mut player = player(folder.path(), &[icecast.port()], "");
    let url = format!("http://127.0.0.1:{}/live.mp3", icecast.port());
    ask(&player, "add", &json!({"url": url, "for_s": 14}));
    wait_for(&player, "it plays", |n| n["state"] == "playing");
    let at = wait_for(&player, "it is on for two seconds", |n| n["position_ms"].as_u64().unwrap() > 2_000);
    assert_eq!(at["track"]["duration_ms"], 14_000);
    player.crash_and_start_again();
    wait_for(&player, "it plays again", |n| n["state"] == "playing" && n["track"]["kind"] == "stream");
    until("it is over", Duration::from_secs(40), || (now(&player)["state"] == "stopped").then_some(()));
    let play = ask(&player, "history", &json!({}))["data"]["plays"][0].clone();
    let played = play["played_ms"].as_u64().unwrap();
    assert!((14_000..14_250).contains(&played), "{played} ms: a timer may be late");
    assert_eq!((&play["skipped"], &play["url"]), (&json!(false), &json!(url)));
}

/// A server of one answer to all that come.
fn answers(head: &'static str, body: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut come in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 1_024];
            let _ = come.read(&mut request);
            let _ = come.write_all(head.as_bytes()).and_then(|()| come.write_all(&body));
        }
    });
    port
}

#[test]
fn a_player_goes_only_where_its_configuration_lets_it() {
    let folder = folder();
    let secret = TcpListener::bind("127.0.0.1:0").unwrap();
    secret.set_nonblocking(true).unwrap();
    let port = secret.local_addr().unwrap().port();
    let to: &'static str = format!("HTTP/1.0 302 Found\r\nLocation: http://127.0.0.2:{port}/\r\n\r\n").leak();
    let away = answers(to, vec![]);
    let named = format!("allow = [\"http://localhost:{port}/\", \"http://127.0.0.1:{away}/\"]\n");
    let music = folder.path().join("music");
    std::fs::create_dir_all(&music).unwrap();
    let setup = Setup { origins: vec![music.display().to_string()], streams: named, ..Setup::default() };
    let player = Player::start(&folder.path().join("player"), setup);
    for url in [format!("http://127.0.0.1:{port}/"), format!("http://127.0.0.2:{away}/"), "https://localhost/".into()] {
        let refused = ask(&player, "add", &json!({"url": url}));
        assert_eq!((&refused["code"], &refused["field"]), (&json!("url_not_allowed"), &json!("url")), "{refused}");
    }
    // A name that leads into the own network, and a redirect to where none may go: waited for, not skipped, and never reached.
    for url in [format!("http://localhost:{port}/"), format!("http://127.0.0.1:{away}/")] {
        ask(&player, "add", &json!({"url": url}));
        let waits = wait_for(&player, "it says why", |n| n["reason"]["code"] == "station_elsewhere");
        assert_eq!(waits["state"], "buffering");
        ask(&player, "skip", &json!({}));
    }
    assert!(secret.accept().is_err(), "nobody came");
}

#[test]
fn what_is_no_stream_is_skipped_and_says_why() {
    let folder = folder();
    let list = answers("HTTP/1.0 200 OK\r\nContent-Type: audio/x-mpegurl\r\n\r\n", b"http://h/\n".to_vec());
    let noise = answers("HTTP/1.0 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n", vec![0x55; 2 << 20]);
    let he = answers("HTTP/1.0 200 OK\r\nContent-Type: audio/aacp\r\n\r\n", he_aac(folder.path()));
    let login = answers("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n", b"<html>".to_vec());
    let player = player(folder.path(), &[list, noise, he, login], "");
    for (port, code) in [(list, "no_stream"), (noise, "no_stream"), (he, "he_aac")] {
        ask(&player, "add", &json!({"url": format!("http://127.0.0.1:{port}/")}));
        until(&format!("{code} is skipped"), Duration::from_secs(30), || {
            (now(&player)["track"].is_null()).then_some(())
        });
        assert!(player.told(&["status"]).contains("Skipped"), "{code}");
    }
    ask(&player, "add", &json!({"url": format!("http://127.0.0.1:{login}/")}));
    let waits = wait_for(&player, "a login page is waited for", |n| n["reason"]["code"] == "portal");
    assert_eq!(waits["state"], "buffering");
}

/// AAC at half the rate, each frame with a fill element of spectral band replication before its end: HE-AAC as radio sends it.
fn he_aac(folder: &std::path::Path) -> Vec<u8> {
    let file = folder.join("low.aac");
    let mut ffmpeg = std::process::Command::new("ffmpeg");
    ffmpeg.args([
        "-hide_banner",
        "-nostdin",
        "-loglevel",
        "error",
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=500:sample_rate=24000:duration=20",
    ]);
    jukebox_tests::rig::run(ffmpeg.args(["-ac", "2", "-c:a", "aac", "-b:a", "32k"]).arg(&file));
    let low = std::fs::read(file).unwrap();
    let (mut at, mut all) = (0, Vec::new());
    while at + 7 < low.len() {
        let length =
            (usize::from(low[at + 3] & 3) << 11) | usize::from(low[at + 4]) << 3 | usize::from(low[at + 5]) >> 5;
        let (head, body) = (&low[at..at + 7], &low[at + 7..at + length]);
        let mut bits: Vec<bool> = body.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1 == 1)).collect();
        while bits.pop() == Some(false) {}
        bits.truncate(bits.len() - 2);
        let put = |bits: &mut Vec<bool>, value: u32, n: u32| bits.extend((0..n).rev().map(|i| value >> i & 1 == 1));
        put(&mut bits, 6, 3);
        put(&mut bits, 12, 4);
        put(&mut bits, 13, 4);
        (0..92).for_each(|i| bits.push(i % 3 == 0));
        put(&mut bits, 7, 3);
        let body: Vec<u8> =
            bits.chunks(8).map(|c| c.iter().enumerate().fold(0, |b, (i, bit)| b | u8::from(*bit) << (7 - i))).collect();
        let long = body.len() + 7;
        let mut head = head.to_vec();
        head[3] = (head[3] & !3) | (long >> 11) as u8;
        head[4] = (long >> 3) as u8;
        head[5] = (head[5] & 0x1f) | ((long & 7) << 5) as u8;
        all.extend(head);
        all.extend(body);
        at += length;
    }
    all
}
