//! The daemon among real parts: mosquitto, nginx or `serve`, a paced DAC that records.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jukebox_tests::rig::broker::Broker;
use jukebox_tests::rig::mqtt::{Account, Listener, Message};
use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::office::{self, Office};
use jukebox_tests::rig::player::{Player, Setup};
use jukebox_tests::rig::tls::Ca;
use jukebox_tests::rig::web::Web;
use jukebox_tests::rig::{self, run};
use serde_json::Value;

/// Real time that a short track may take until its end is told: its length, and what a loaded machine adds.
const PLAYED: Duration = Duration::from_secs(40);

/// An office of stock parts and one player, over TLS: nginx, mosquitto, `jukebox run`.
struct House {
    web: Web,
    broker: Broker,
    player: Player,
    /// Last, so that nobody writes into it any more when it goes.
    _folder: tempfile::TempDir,
}

impl House {
    /// Publishes `songs` (title, seconds) and starts everything; returns when the player is online and knows the catalogue.
    fn open(songs: &[(&str, f64)]) -> (Self, Account, Listener) {
        let folder = rig::folder();
        let at = |name: &str| folder.path().join(name);
        let library = library(folder.path(), songs);
        let ca = Ca::new(folder.path());
        for name in ["web", "broker"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let web = Web::start(&at("web"), &library, Some(&ca));
        let broker = Broker::start(&at("broker"), "hq", &["lobby"], Some(&ca));
        let bot = broker.account("bot");
        let ears = bot.listen(&["jukebox/1/hq/#"]);
        let setup =
            Setup { origins: vec![web.url()], ca: Some(ca.ca.clone()), broker: Some(broker.url()), ..Setup::default() };
        let mut player = Player::start(&at("player"), setup);
        ears.wait("online", |m| m.topic.ends_with("/availability") && m.payload == "online");
        player.process().line(&format!("library revision 1: {} tracks", songs.len()));
        (Self { web, broker, player, _folder: folder }, bot, ears)
    }
}

/// The songs as FLAC in `folder/songs`, published to `folder/library`.
fn library(folder: &Path, songs: &[(&str, f64)]) -> PathBuf {
    let (music, library) = (folder.join("songs"), folder.join("library"));
    std::fs::create_dir(&music).unwrap();
    for (seed, (title, seconds)) in (1..).zip(songs) {
        music::make(&music.join(format!("{title}.flac")), &Song { title, seconds: *seconds, seed, ..Song::default() });
    }
    office::publish(&music, &library);
    library
}

fn event<'a>(kind: &'a str, title: &'a str) -> impl Fn(&Message) -> bool + 'a {
    move |m| m.topic.ends_with(&format!("/event/{kind}")) && (title.is_empty() || m.payload.contains(title))
}

/// A reply that must be `ok`: its data.
fn ok(reply: &Value) -> &Value {
    assert_eq!(reply["status"], "ok", "{reply}");
    &reply["data"]
}

/// The main job: two songs asked for, one by mosquitto's tools and one by a Python bot, are heard whole and without a gap.
#[test]
fn songs_asked_for_are_heard_without_a_gap() {
    let (house, bot, ears) = House::open(&[("Waterloo", 4.0), ("Fernando", 5.0)]);
    let added = bot.ask("hq", "lobby", "add", "waterloo");
    assert_eq!(ok(&added)["track"]["title"], "Waterloo");
    let by_bot = bot.bot(&["hq/lobby", "add", "fernando"]);
    assert_eq!(ok(&by_bot)["track"]["title"], "Fernando");
    assert_eq!(by_bot["player"], "lobby");

    ears.wait_from(0, PLAYED, "the first song's end", event("finished", ""));
    let mark = ears.mark();
    ears.wait_from(mark, PLAYED, "the second song's end", event("finished", ""));
    ears.wait_from(mark, PLAYED, "stopped", |m| m.topic.ends_with("/now") && m.json()["state"] == "stopped");

    let sound = house.player.recording();
    assert_eq!(sound.rate, 44_100);
    // The first frames of a fade may be zero; nothing else may.
    let heard = sound.sounding().len() as i64;
    assert!((9 * 44_100 - heard).abs() < 441, "9 s are {} frames; {heard} were heard", 9 * 44_100);
    assert!(sound.gaps(1.0).is_empty(), "{:?}", sound.gaps(1.0));
    let health = bot.ask("hq", "lobby", "health", "");
    assert_eq!(ok(&health)["unplanned_silence_s"]["since_boot"], 0.0);
    assert_eq!(ok(&health)["underruns"], 0);
    let requests = house.web.requests();
    assert!(requests.iter().any(|r| r.contains(" 206 bytes=") && r.contains("HTTP/2.0")), "{requests:#?}");
}

/// Both the web server and the broker go away in mid-song; what is on board plays on, and when they are back, so is the player.
#[test]
fn an_outage_is_not_heard() {
    let (mut house, bot, _) = House::open(&[("Waterloo", 6.0), ("Fernando", 5.0), ("Chiquitita", 4.0)]);
    for song in ["waterloo", "fernando"] {
        ok(&bot.ask("hq", "lobby", "add", song));
    }
    rig::until("all on board", PLAYED, || {
        let queue = bot.ask("hq", "lobby", "queue", "");
        let entries = ok(&queue)["entries"].as_array()?.clone();
        (entries.len() == 2 && entries.iter().all(|e| e["on_board_pct"] == 100)).then_some(())
    });
    house.web.stop();
    house.broker.kill();
    rig::until("both songs are heard", PLAYED, || {
        let sound = house.player.recording();
        (sound.sounding().len() > 11 * 44_100 - 441).then_some(())
    });
    let gaps = house.player.recording().gaps(1.0);
    assert!(gaps.is_empty(), "{gaps:?}");

    house.web.start_again();
    house.broker.start_again();
    let ears = bot.listen(&["jukebox/1/hq/#"]);
    ears.wait_from(0, PLAYED, "online again", |m| m.topic.ends_with("/availability") && m.payload == "online");
    ears.wait_from(0, PLAYED, "what was played meanwhile", event("finished", ""));
    assert_eq!(ok(&bot.ask("hq", "lobby", "add", "chiquitita"))["track"]["title"], "Chiquitita");
    ears.wait_from(0, PLAYED, "the third song", |m| m.topic.ends_with("/now") && m.payload.contains("Chiquitita"));
}

/// `kill -9` in mid-song: it comes back with queue, volume and command ids, and plays on from where it was.
#[test]
fn a_crash_costs_seconds_only() {
    let (mut house, bot, _) = House::open(&[("Waterloo", 18.0), ("Fernando", 5.0)]);
    ok(&bot.ask("hq", "lobby", "volume", "55"));
    let first = bot.ask("hq", "lobby", "add", r#"{"text":"waterloo","id":"the-same-id"}"#);
    ok(&bot.ask("hq", "lobby", "add", "fernando"));
    // The position is written every 10 s.
    rig::until("12 s are heard", PLAYED, || (house.player.recording().sounding().len() > 12 * 44_100).then_some(()));
    house.player.crash_and_start_again();

    let again = bot.ask("hq", "lobby", "add", r#"{"text":"waterloo","id":"the-same-id"}"#);
    assert_eq!((&again["replayed"], &again["data"]), (&Value::Bool(true), &first["data"]));
    let now = bot.ask("hq", "lobby", "now", "");
    let now = ok(&now);
    assert_eq!(now["track"]["title"], "Waterloo");
    assert!(now["position_ms"].as_u64().unwrap() >= 5_000, "not from the start: {now}");
    let queue = bot.ask("hq", "lobby", "queue", "");
    assert_eq!(ok(&queue)["entries"].as_array().unwrap().len(), 2, "{queue}");
    let kept = bot.listen(&["jukebox/1/hq/lobby/volume"]);
    assert_eq!(kept.wait("the volume", |_| true).payload, "55");
    let (status, took) = house.player.process().terminate();
    assert!(status.success() && took < Duration::from_secs(2), "SIGTERM: {status} after {took:?}");
}

/// A bot meets the office's broker as `serve` sets it up, a player's file fits the player's own parser, and a stop leaves nothing behind.
#[test]
fn serve_lets_players_and_bots_in() {
    let folder = rig::folder();
    let (songs, library) = (folder.path().join("songs"), folder.path().join("library"));
    std::fs::create_dir(&songs).unwrap();
    music::make(&songs.join("one.flac"), &Song { title: "One", seconds: 3.0, ..Song::default() });
    office::publish(&songs, &library);
    let mut office = Office::start(&folder.path().join("office"), &library);

    let file = office.add("lobby");
    let config = jukebox::config::Config::load(&file).unwrap_or_else(|e| panic!("{e}"));
    let mqtt = config.mqtt.expect("the office names its broker");
    assert_eq!((config.office.player.as_str(), config.office.site.as_str()), ("lobby", "hq"));

    // The library over the CA of that file, as any HTTP client sees it.
    let ca = folder.path().join("ca.pem");
    rig::write(&ca, config.office.ca_pem.expect("the office gives its CA"));
    let root = format!("{}/library.json", config.office.origins[0].trim_end_matches('/'));
    let text = run(Command::new("curl").args(["-sSf", "--cacert"]).arg(&ca).arg(&root));
    assert!(text.contains("\"revision\""), "{text}");

    // The player's own account, and a bot's: each hears what the other may say.
    let bot = office.bot();
    let mut lobby = bot.clone();
    lobby.client = Some(mqtt.user.clone());
    (lobby.user, lobby.password) = (mqtt.user.clone(), mqtt.password.expect("a password").reveal().to_owned());
    let player_ears = lobby.listen(&["jukebox/1/hq/lobby/command/#"]);
    let bot_ears = bot.listen(&["jukebox/1/hq/#"]);
    bot.publish("jukebox/1/hq/lobby/command/skip", "7", &[]);
    player_ears.wait("the bot's command", |m| m.topic.ends_with("/command/skip") && m.payload == "7");
    drop(player_ears);
    lobby.publish("jukebox/1/hq/kitchen/volume", "1", &[]);
    lobby.publish("jukebox/1/hq/lobby/volume", "35", &[]);
    bot_ears.wait("the player's state", |m| m.topic == "jukebox/1/hq/lobby/volume" && m.payload == "35");
    assert!(bot_ears.messages().iter().all(|m| !m.topic.contains("kitchen")), "a player speaks for itself only");

    let broker = office.greeting.iter().find_map(|l| l.split("mosquitto, process ").nth(1)).expect("the broker's id");
    let broker = format!("/proc/{}", broker.trim_end_matches(')'));
    assert!(std::path::Path::new(&broker).exists());
    let (status, _) = office.process().terminate();
    assert!(status.success(), "{status}");
    assert!(!std::path::Path::new(&broker).exists(), "the broker ends with the office");
}

/// The same library under a stock nginx: what the player will ask for is there, over HTTP/2, in ranges, unchanged.
#[test]
fn nginx_serves_the_same_library() {
    let folder = rig::folder();
    let (songs, library) = (folder.path().join("songs"), folder.path().join("library"));
    std::fs::create_dir(&songs).unwrap();
    music::make(&songs.join("one.flac"), &Song { title: "One", seconds: 3.0, ..Song::default() });
    office::publish(&songs, &library);
    let ca = Ca::new(folder.path());
    let web = Web::start(folder.path(), &library, Some(&ca));
    let object = std::fs::read_dir(library.join("o")).unwrap().next().unwrap().unwrap().path();
    let object = std::fs::read_dir(object).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&object).unwrap();
    let url = format!("{}/{}", web.url(), object.strip_prefix(&library).unwrap().display());
    let part = Command::new("curl").args(["-sSf", "--http2", "-r", "10-99", "--cacert"]).arg(&ca.ca).arg(&url).output();
    assert_eq!(part.unwrap().stdout, bytes[10..100]);
}
