//! An office of stock parts and one player, over TLS: nginx, mosquitto, `jukebox run`, and a bot.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::broker::Broker;
use super::mqtt::{Account, Listener};
use super::music::{self, Song};
use super::player::{Player, Setup};
use super::tls::Ca;
use super::web::Web;
use super::{SOON, folder, office, until};

/// A library under nginx, a broker, a player: all running. They end in this order.
pub struct House {
    /// The player.
    pub player: Player,
    /// The web server.
    pub web: Web,
    /// The broker.
    pub broker: Broker,
    /// The library.
    pub library: PathBuf,
    folder: tempfile::TempDir,
}

impl House {
    /// Publishes songs (title, seconds; FLAC, named by their place) and starts everything; returns when the player is
    /// online and knows the catalogue.
    ///
    /// # Panics
    /// When a part does not come up.
    pub fn new(songs: &[(&str, f64)], setup: Setup) -> Self {
        Self::with(setup, |music| {
            for (n, &(title, seconds)) in songs.iter().enumerate() {
                let song = Song { title, seconds, seed: n as u32 + 1, ..Song::default() };
                music::make(&music.join(format!("{n}.flac")), &song);
            }
        })
    }

    /// The same with music of the caller's own making.
    ///
    /// # Panics
    /// When a part does not come up.
    pub fn with(setup: Setup, make: impl Fn(&Path)) -> Self {
        let folder = folder();
        let [songs, library, web, broker] = ["songs", "library", "web", "broker"].map(|n| folder.path().join(n));
        for dir in [&songs, &web, &broker] {
            std::fs::create_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        }
        make(&songs);
        office::publish(&songs, &library);
        let ca = Ca::new(folder.path());
        let web = Web::start(&web, &library, Some(&ca));
        let broker = Broker::start(&broker, "hq", &["lobby"], Some(&ca));
        let setup = {
            let named = |url: String| url.replace("127.0.0.1", &setup.host);
            let (origins, broker) = (vec![named(web.url())], Some(named(broker.url())));
            Setup { origins, ca: Some(ca.ca.clone()), broker, ..setup }
        };
        let player = Player::start(&folder.path().join("player"), setup);
        let house = Self { player, web, broker, library, folder };
        house.ears().wait("the player is online", |m| m.topic.ends_with("/availability") && m.payload == "online");
        until("the catalogue is there", SOON, || (house.ask("search", "x")["status"] == "ok").then_some(()));
        house
    }

    /// Where all its files lie; the music in `songs`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How a bot reaches the broker.
    pub fn bot(&self) -> Account {
        self.broker.account("bot")
    }

    /// Hears all that is said on the site.
    ///
    /// # Panics
    /// When the broker does not let it.
    pub fn ears(&self) -> Listener {
        self.bot().listen(&["jukebox/1/hq/#"])
    }

    /// Asks the player; its reply.
    ///
    /// # Panics
    /// When none comes.
    pub fn ask(&self, verb: &str, payload: &str) -> Value {
        self.bot().ask("hq", "lobby", verb, payload)
    }

    /// Asks what must be granted; the data of the reply.
    ///
    /// # Panics
    /// When it is refused.
    pub fn ok(&self, verb: &str, payload: &str) -> Value {
        let reply = self.ask(verb, payload);
        assert_eq!(reply["status"], "ok", "{verb} {payload}: {reply}");
        reply["data"].clone()
    }

    /// Asks what must be refused; the code.
    ///
    /// # Panics
    /// When it is granted, or refused without a plain sentence.
    pub fn refused(&self, verb: &str, payload: &str) -> String {
        let reply = self.ask(verb, payload);
        assert_eq!(reply["status"], "refused", "{verb} {payload}: {reply}");
        assert!(reply["reason"].as_str().is_some_and(|r| r.ends_with('.')), "a plain sentence: {reply}");
        reply["code"].as_str().unwrap_or_default().to_owned()
    }
}
