//! Live radio: a real Icecast, the real daemon, and what left the DAC.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jukebox_tests::rig::house::House;
use jukebox_tests::rig::icecast::{Icecast, Tunnel};
use jukebox_tests::rig::player::{Player, Setup};
use jukebox_tests::rig::recording::Recording;
use jukebox_tests::rig::tls::Ca;
use jukebox_tests::rig::web::Web;
use jukebox_tests::rig::{SOON, folder, free_port, studio, until};
use serde_json::{Value, json};

/// A player without an office, which may tune in to these ports of this machine.
fn player(folder: &Path, ports: &[u16], more: &str) -> Player {
    let allow: Vec<String> = ports.iter().map(|p| format!("http://127.0.0.1:{p}/")).collect();
    Player::start(&folder.join("player"), setup(folder, &format!("allow = {allow:?}\n{more}")))
}

fn setup(folder: &Path, streams: &str) -> Setup {
    let music = folder.join("music");
    std::fs::create_dir_all(&music).unwrap();
    // At one rate all that is heard is one recording.
    let output = "first_volume = 100\nrate = 44100\n".into();
    Setup { origins: vec![music.display().to_string()], streams: streams.into(), output, ..Setup::default() }
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

/// SHOUTcast's servers of the first kind do not even say HTTP.
#[test]
fn a_shoutcast_server_of_the_first_kind_is_a_station() {
    let folder = folder();
    let music = studio::show(&folder.path().join("show.mp3"), 1_000, 60.0, "", "");
    let body = studio::titled(&music, 8_192, &[(0.0, "ABBA - Waterloo"), (0.1, "ABBA - Fernando")]);
    let head = "ICY 200 OK\r\nicy-notice1:<BR>This stream requires <a href=\"http://www.winamp.com/\">Winamp</a><BR>\r\n\
                icy-notice2:SHOUTcast Distributed Network Audio Server/Linux v1.9.8<BR>\r\nicy-name:Old Radio\r\n\
                icy-genre:Oldies\r\nicy-pub:1\r\ncontent-type:audio/mpeg\r\nicy-metaint:8192\r\nicy-br:128\r\n\r\n";
    let port = studio::on_air(head, body, 60.0);
    let player = player(folder.path(), &[port], "");
    ask(&player, "add", &json!({"url": format!("http://127.0.0.1:{port}/")}));
    for title in ["Waterloo", "Fernando"] {
        let named =
            wait_for(&player, title, |n| n["state"] == "playing" && n["track"]["title"] == title)["track"].clone();
        assert_eq!((&named["artist"], &named["album"]), (&json!("ABBA"), &json!("Old Radio")));
    }
    until("six seconds are heard", SOON, || (recorded(&player) > 6.0).then_some(()));
    assert!(hears(&player, 2.0, 3.0, 1_000.0));
    assert!(player.recording().gaps(1.0).is_empty(), "titles are not heard");
}

/// Ogg begins anew where a station changes what it plays: the next title, and no gap.
#[test]
fn ogg_goes_on_where_a_station_begins_it_anew() {
    let folder = folder();
    for ending in ["ogg", "opus"] {
        let file = folder.path().join(format!("show.{ending}"));
        let mut body = studio::show(&file, 1_000, 8.0, "Waterloo", "ABBA");
        body.extend(studio::show(&file, 1_500, 30.0, "Fernando", "Abba"));
        let port = studio::on_air("HTTP/1.0 200 OK\r\nContent-Type: application/ogg\r\n\r\n", body, 38.0);
        let player = player(&folder.path().join(ending), &[port], "");
        ask(&player, "add", &json!({"url": format!("http://127.0.0.1:{port}/")}));
        for (title, artist) in [("Waterloo", "ABBA"), ("Fernando", "Abba")] {
            let fits = |n: &Value| n["state"] == "playing" && n["track"]["title"] == title;
            assert_eq!(wait_for(&player, title, fits)["track"]["artist"], artist);
        }
        until("twelve seconds are heard", SOON, || (recorded(&player) > 12.5).then_some(()));
        let sound = player.recording();
        let from = sound.sounding().start as f64 / f64::from(sound.rate);
        let louder = |at, a, b| sound.level_at(from + at, 1.0, a) > 20.0 * sound.level_at(from + at, 1.0, b);
        assert!(louder(6.0, 1_000.0, 1_500.0) && louder(9.5, 1_500.0, 1_000.0), "{ending}: one, then the other");
        assert!(sound.gaps(10.0).is_empty(), "{ending}: {:?}", sound.gaps(10.0));
        assert_eq!(ask(&player, "health", &json!({}))["data"]["underruns"], 0);
    }
}

/// A station behind TLS of a private CA, which nginx gives it; also when the clock is wrong, because nothing tells the time here.
#[test]
fn a_station_behind_tls_is_checked_against_the_roots_of_the_configuration_whatever_the_clock_says() {
    let folder = folder();
    let mut icecast = Icecast::start(folder.path());
    icecast.station("live.mp3", 1_000);
    let (ca, port) = (Ca::new(folder.path()), free_port());
    let (certificate, key, at) = (ca.certificate.display(), ca.key.display(), icecast.port());
    let proxy = format!(
        "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         location / {{ proxy_pass http://127.0.0.1:{at}; proxy_buffering off; }} }}"
    );
    let _web = Web::with(folder.path(), port, true, &proxy);
    let url = format!("https://127.0.0.1:{port}/live.mp3");
    let allow = format!("allow = [\"https://127.0.0.1:{port}/\"]\n");
    let trusts = format!("{allow}ca = \"{}\"\n", ca.ca.display());
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    for (name, clock_off_s) in [("right", 0), ("1970", 86_400 - now_s), ("ahead", 5 * 365 * 86_400)] {
        let at = folder.path().join(name);
        let player = Player::start(&at.join("player"), Setup { clock_off_s, ..setup(&at, &trusts) });
        ask(&player, "add", &json!({"url": url}));
        wait_for(&player, &format!("it plays at a clock that is {name}"), |n| n["state"] == "playing");
        until("three seconds are heard", SOON, || (recorded(&player) > 3.5).then_some(()));
        assert!(hears(&player, 1.5, 1.5, 1_000.0), "{name}");
    }
    // Nobody vouches for it.
    let at = folder.path().join("stranger");
    let other = Ca::new(&{
        std::fs::create_dir_all(&at).unwrap();
        at.clone()
    });
    let strange = format!("{allow}ca = \"{}\"\n", other.ca.display());
    let player = Player::start(&at.join("player"), setup(&at, &strange));
    ask(&player, "add", &json!({"url": url}));
    let waits = wait_for(&player, "it says so", |n| !n["reason"].is_null());
    assert_eq!((&waits["state"], &waits["reason"]["code"]), (&json!("buffering"), &json!("station_away")));
}

/// A pause that is shorter than what is kept goes on where it was; a longer one comes back at the station's edge.
#[test]
fn a_pause_goes_on_where_it_was_or_at_the_edge() {
    /// The station climbs a step a second, and begins again after 40.
    const STEPS: usize = 40;
    let hertz = |step: usize| 500.0 + 50.0 * step as f64;
    let folder = folder();
    let mut icecast = Icecast::start(folder.path());
    icecast.sends("live.mp3", &format!("aevalsrc=0.4*sin(2*PI*(500+50*floor(mod(t\\,{STEPS})))*t):s=44100"));
    let player = player(folder.path(), &[icecast.port()], "buffer_s = 12");
    ask(&player, "add", &json!({"url": format!("http://127.0.0.1:{}/live.mp3", icecast.port())}));
    wait_for(&player, "it plays", |n| n["state"] == "playing");
    until("five seconds are heard", SOON, || (recorded(&player) > 6.0).then_some(()));
    let step_at = |sound: &Recording, at: f64| {
        let level = |step: &usize| sound.level_at(at, 0.4, hertz(*step));
        (0..STEPS).max_by(|a, b| level(a).total_cmp(&level(b))).unwrap()
    };
    // Pauses for some seconds: by how many steps the station has gone on unheard.
    let pause = |seconds: f64| {
        ask(&player, "pause", &json!({}));
        wait_for(&player, "it pauses", |n| n["state"] == "paused");
        let from = recorded(&player);
        until("the pause is over", Duration::from_secs(60), || (recorded(&player) > from + seconds).then_some(()));
        let before = player.recording();
        ask(&player, "play", &json!({}));
        // What was decoded before the pause is heard first.
        until("eight more seconds are heard", SOON, || (recorded(&player) > from + seconds + 9.0).then_some(()));
        let after = player.recording();
        let rate = f64::from(after.rate);
        let stopped = before.sounding().end as f64 / rate;
        (
            step_at(&before, stopped - 0.5),
            step_at(&after, recorded(&player) - 1.0),
            recorded(&player) - stopped - seconds,
        )
    };
    let gone = |(before, after, heard): (usize, usize, f64)| (after + 2 * STEPS - before) as f64 % STEPS as f64 - heard;
    let short = gone(pause(4.0));
    assert!(short.abs() < 2.0, "nothing is skipped: {short} s");
    let long = gone(pause(22.0));
    assert!((12.0..30.0).contains(&long), "it is at the edge: {long} s were skipped");
    assert_eq!(now(&player)["state"], "playing");
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
fn he_aac(folder: &Path) -> Vec<u8> {
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
