//! The daemon among real parts: mosquitto, nginx or `serve`, a paced DAC that records.

use std::process::Command;

use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::office::{self, Office};
use jukebox_tests::rig::tls::Ca;
use jukebox_tests::rig::web::Web;
use jukebox_tests::rig::{self, run};

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
