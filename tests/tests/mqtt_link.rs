//! The link to the broker against a real mosquitto: killed, frozen, restarted; two players of one name.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jukebox::dial::Dialer;
use jukebox::fetch::{Fault, TlsFault};
use jukebox::mqtt::{Command as Order, Down, Event, INBOX, Mqtt, Pace, ReplyTo, Settings};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::{AsyncClient, MqttOptions, PublishOptions};
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);
const P: &str = "jukebox/1/hq/lobby";
/// Quick, so that a test need not wait; the order of things is the same.
const PACE: Pace = Pace { keep_alive_s: 1, first_pause_ms: 20, spread_ms: 100 };

/// A mosquitto of our own, its port and its directory.
struct Broker {
    child: Option<Child>,
    port: u16,
    dir: tempfile::TempDir,
}

impl Broker {
    fn start(extra: &str) -> Self {
        Self::with_files(extra, |_| ())
    }

    fn with_files(extra: &str, files: impl FnOnce(&PathBuf)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        files(&dir.path().to_path_buf());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let d = dir.path().display();
        let config = format!(
            "persistence true\npersistence_location {d}/\nautosave_interval 1\nautosave_on_changes true\nuser root\n\
             set_tcp_nodelay true\nmax_queued_messages 1000\nlistener {port} 127.0.0.1\n{}\n",
            extra.replace("DIR", &d.to_string())
        );
        fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { child: None, port, dir };
        broker.run();
        broker
    }

    fn run(&mut self) {
        let mosquitto = ["/usr/sbin/mosquitto", "mosquitto"].into_iter().find(|p| PathBuf::from(p).exists());
        let child = Command::new(mosquitto.unwrap_or("mosquitto"))
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed");
        self.child = Some(child);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < DEADLINE, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn settings(&self) -> Settings {
        let [host, site, player] = ["127.0.0.1", "hq", "lobby"].map(String::from);
        let dialer = Dialer::new(None);
        Settings {
            host,
            port: self.port,
            dialer,
            tls: None,
            site,
            player,
            user: String::new(),
            password: String::new(),
        }
    }

    fn player(&self) -> Player {
        Player::start(self.settings(), PACE)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// The player's end.
struct Player {
    mqtt: Mqtt,
    events: mpsc::Receiver<Event>,
}

impl Player {
    fn start(settings: Settings, pace: Pace) -> Self {
        let (inbox, events) = mpsc::channel(INBOX);
        let mqtt = Mqtt::start_paced(settings, pace, inbox);
        mqtt.state("volume", "35");
        mqtt.state("now", r#"{"rev":1}"#);
        Self { mqtt, events }
    }

    async fn next(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("the link lives")
    }

    async fn up(&mut self) {
        while !matches!(self.next().await, Event::Up) {}
    }

    async fn down(&mut self) -> Down {
        loop {
            if let Event::Down { why } = self.next().await {
                return why;
            }
        }
    }

    async fn command(&mut self) -> Order {
        loop {
            if let Event::Command(c) = self.next().await {
                return c;
            }
        }
    }

    /// Sends commands until one is no backlog: the border was passed.
    async fn past_the_border(&mut self, bot: &Bot) {
        loop {
            bot.say(&format!("{P}/command/now"), "", false, PublishProperties::default()).await;
            let c = self.command().await;
            self.mqtt.ack(c.ack);
            if !c.backlog {
                return;
            }
        }
    }
}

/// Somebody else at the broker.
struct Bot {
    client: AsyncClient,
    heard: mpsc::UnboundedReceiver<Publish>,
    task: tokio::task::JoinHandle<()>,
}

impl Bot {
    async fn connect(broker: &Broker, filter: &str) -> Self {
        Self::connect_as(broker, filter, "bot").await
    }

    async fn connect_as(broker: &Broker, filter: &str, id: &str) -> Self {
        let (client, mut events) = AsyncClient::builder(MqttOptions::new(id, ("127.0.0.1", broker.port))).build();
        let (tell, heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let rumqttc::Event::Incoming(Packet::Publish(p)) = event {
                    let _ = tell.send(p);
                }
            }
        });
        let subscribed = client.subscribe_tracked(filter.to_owned(), QoS::AtLeastOnce).await.unwrap();
        timeout(DEADLINE, subscribed.wait_completion_async()).await.unwrap().unwrap();
        Self { client, heard, task }
    }

    /// Returns when the broker has it.
    async fn say(&self, topic: &str, payload: &str, retain: bool, properties: PublishProperties) {
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
        let options = if retain { options.retained() } else { options };
        let sent = self.client.publish_tracked(topic.to_owned(), payload.to_owned(), options).await.unwrap();
        timeout(DEADLINE, sent.wait_completion_async()).await.unwrap().unwrap();
    }

    async fn hear(&mut self) -> (String, String, bool) {
        let p = timeout(DEADLINE, self.heard.recv()).await.expect("a message in time").unwrap();
        (String::from_utf8(p.topic.to_vec()).unwrap(), String::from_utf8(p.payload.to_vec()).unwrap(), p.retain)
    }

    /// The next message under one of the topics below `P`.
    async fn hear_on(&mut self, suffix: &str) -> String {
        loop {
            let (topic, payload, _) = self.hear().await;
            if topic.strip_prefix(P).is_some_and(|s| s.trim_start_matches('/').starts_with(suffix)) {
                return payload;
            }
        }
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn online_comes_after_all_state_and_unchanged_state_is_said_once() {
    let broker = Broker::start("allow_anonymous true");
    let mut bot = Bot::connect(&broker, &format!("{P}/#")).await;
    let mut player = broker.player();
    player.up().await;
    let mut said = Vec::new();
    while said.last().is_none_or(|(t, _): &(String, String)| !t.ends_with("/availability")) {
        let (topic, payload, _) = bot.hear().await;
        said.push((topic, payload));
    }
    let expected = [("now", r#"{"rev":1}"#), ("volume", "35"), ("availability", "online")];
    assert_eq!(said, expected.map(|(t, p)| (format!("{P}/{t}"), p.to_owned())));
    for volume in ["35", "36", "36", "37"] {
        player.mqtt.state("volume", volume);
    }
    player.mqtt.state("mute", "true");
    assert_eq!(bot.hear_on("mute").await, "true");
    // Retained, and only the newest is kept: a late listener hears it.
    drop(bot);
    let mut late = Bot::connect(&broker, &format!("{P}/#")).await;
    let mut heard = Vec::new();
    for _ in 0..4 {
        let (topic, payload, retained) = late.hear().await;
        assert!(retained);
        heard.push(format!("{}={payload}", topic.rsplit_once('/').unwrap().1));
    }
    heard.sort();
    assert_eq!(heard, ["availability=online", "mute=true", r#"now={"rev":1}"#, "volume=37"]);
    // A clean stop says so at once; the will would take 10 s.
    player.mqtt.stop().await;
    assert_eq!(late.hear_on("availability").await, "offline");
}

#[tokio::test]
async fn commands_come_with_all_that_core_needs() {
    let broker = Broker::start("allow_anonymous true");
    let mut bot = Bot::connect(&broker, "jukebox/1/hq/reply/#").await;
    let mut player = broker.player();
    player.up().await;
    player.past_the_border(&bot).await;
    let properties = PublishProperties {
        response_topic: Some("jukebox/1/hq/reply/me".into()),
        correlation_data: Some(Bytes::from_static(&[0, 255, 7])),
        message_expiry_interval: Some(60),
        ..PublishProperties::default()
    };
    bot.say(&format!("{P}/command/add"), "waterloo", false, properties).await;
    let c = player.command().await;
    assert_eq!((c.verb.as_str(), &c.payload[..]), ("add", &b"waterloo"[..]));
    assert!(!c.retained && !c.backlog && !c.all && !c.expired());
    assert!(c.expires.is_some_and(|at| at > Instant::now() + Duration::from_secs(50)));
    player.mqtt.reply(c.reply_to.clone(), r#"{"status":"ok"}"#);
    player.mqtt.ack(c.ack);
    let answer = timeout(DEADLINE, bot.heard.recv()).await.unwrap().unwrap();
    assert_eq!(&answer.payload[..], br#"{"status":"ok"}"#);
    assert_eq!(answer.properties.unwrap().correlation_data, c.reply_to.correlation);

    bot.say("jukebox/1/hq/all/command/pause", "", false, PublishProperties::default()).await;
    let c = player.command().await;
    assert!(c.all && c.verb == "pause" && c.reply_to == ReplyTo::default());
    player.mqtt.ack(c.ack);
    // Retained now: told, so that it can be refused. It must not come again at the next connect.
    bot.say(&format!("{P}/command/skip"), "", true, PublishProperties::default()).await;
    let c = player.command().await;
    assert!(c.retained && c.verb == "skip");
    player.mqtt.ack(c.ack);
    // Hostile ends of topics, and an answer to a topic that cannot be: nothing breaks.
    bot.say(&format!("{P}/command/a/b"), "\u{0}", false, PublishProperties::default()).await;
    let c = player.command().await;
    assert_eq!(c.verb, "a/b");
    player.mqtt.reply(ReplyTo { topic: Some("not/#/allowed".into()), correlation: None }, "x");
    player.mqtt.reply(ReplyTo { topic: Some("jukebox/1/hq/reply/me".into()), correlation: None }, "still here");
    player.mqtt.ack(c.ack);
    assert_eq!(bot.hear().await.1, "still here");
    // Somebody's own ping is a command.
    bot.say(&format!("{P}/command/ping"), r#"{"nonce":"mine"}"#, false, PublishProperties::default()).await;
    assert_eq!(player.command().await.verb, "ping");
}

#[tokio::test]
async fn a_killed_broker_costs_no_event_and_no_command() {
    let mut broker = Broker::start("allow_anonymous true");
    let mut player = broker.player();
    player.up().await;
    let mut bot = Bot::connect(&broker, &format!("{P}/event/#")).await;
    player.mqtt.event(1, "started", "one");
    assert_eq!(bot.hear_on("event/started").await, "one");
    assert!(matches!(player.next().await, Event::Delivered { key: 1 }));
    broker.kill();
    assert!(matches!(player.down().await, Down::Link(Fault::Reset | Fault::Refused)));
    (2..=4).for_each(|n| player.mqtt.event(n, "finished", format!("event {n}")));
    player.mqtt.event(2, "finished", "event 2"); // twice is once
    player.mqtt.reply(ReplyTo { topic: Some(format!("{P}/event/reply")), correlation: None }, "late answer");
    player.mqtt.state("volume", "77");
    fs::remove_file(broker.dir.path().join("mosquitto.db")).ok(); // without state, as after a new installation
    broker.run();
    let mut bot = Bot::connect(&broker, &format!("{P}/#")).await;
    player.up().await;
    let (mut delivered, mut heard) = (Vec::new(), Vec::new());
    while delivered.len() < 3 {
        if let Event::Delivered { key } = player.next().await {
            delivered.push(key);
        }
    }
    while heard.len() < 3 {
        let (topic, payload, _) = bot.hear().await;
        if topic.ends_with("/event/finished") {
            heard.push(payload);
        }
    }
    assert_eq!((delivered, heard), (vec![2, 3, 4], [2, 3, 4].map(|n| format!("event {n}")).to_vec()));
    let mut late = Bot::connect_as(&broker, &format!("{P}/#"), "late").await;
    assert_eq!(late.hear_on("volume").await, "77");
    // Subscribed anew although the broker knew nothing of it.
    player.past_the_border(&late).await;
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_and_comes_back() {
    let broker = Broker::start("allow_anonymous true");
    let mut player = broker.player();
    player.up().await;
    broker.signal("-STOP");
    let frozen = Instant::now();
    assert_eq!(player.down().await, Down::Silent);
    println!("noticed after {:?} with a keep-alive of 1 s", frozen.elapsed());
    player.mqtt.event(1, "rebuffer", "while it was frozen");
    broker.signal("-CONT");
    let mut bot = Bot::connect(&broker, &format!("{P}/event/#")).await;
    player.up().await;
    while !matches!(player.next().await, Event::Delivered { key: 1 }) {}
    assert_eq!(bot.hear_on("event/rebuffer").await, "while it was frozen");
}

#[tokio::test]
async fn what_waited_at_the_broker_is_backlog_and_unacknowledged_commands_come_again() {
    let broker = Broker::start("allow_anonymous true");
    let mut player = broker.player();
    player.up().await;
    let bot = Bot::connect(&broker, "nothing").await;
    player.past_the_border(&bot).await;
    bot.say(&format!("{P}/command/add"), "first", false, PublishProperties::default()).await;
    let first = player.command().await;
    assert!(!first.backlog);
    player.mqtt.stop().await; // not acknowledged: as if killed before it was saved
    drop(player);
    bot.say(&format!("{P}/command/skip"), "yesterday", false, PublishProperties::default()).await;
    // A new process with the session that the broker kept.
    let mut player = broker.player();
    let again = player.command().await;
    assert!(again.backlog && again.payload == first.payload, "{again:?}");
    let late = player.command().await;
    assert!(late.backlog && &late.payload[..] == b"yesterday");
    // An acknowledgement of a connection that is gone does nothing; of this one it counts.
    player.mqtt.ack(first.ack);
    player.mqtt.ack(again.ack);
    player.mqtt.ack(late.ack);
    player.past_the_border(&bot).await;
    player.mqtt.stop().await;
    drop(player);
    let mut player = broker.player();
    player.up().await;
    bot.say(&format!("{P}/command/play"), "", false, PublishProperties::default()).await;
    assert_eq!(player.command().await.verb, "play", "nothing that was acknowledged comes again");
}

#[tokio::test]
async fn a_flood_is_taken_in_windows() {
    let broker = Broker::start("allow_anonymous true");
    let bot = Bot::connect(&broker, "nothing").await;
    let mut player = broker.player();
    player.up().await;
    for n in 0..300 {
        let options = PublishOptions::new(QoS::AtLeastOnce);
        bot.client.publish(format!("{P}/command/queue"), format!("{n}"), options).await.unwrap();
        bot.client.publish(format!("{P}/command/now"), "x", PublishOptions::new(QoS::AtMostOnce)).await.unwrap();
    }
    let mut waiting = Vec::new();
    for n in 0..300 {
        // Not more than the window before something is acknowledged, and none is lost.
        let c = loop {
            let c = player.command().await;
            if c.verb == "queue" {
                break c;
            }
        };
        assert_eq!(c.payload, n.to_string());
        waiting.push(c.ack);
        if waiting.len() == 16 {
            waiting.drain(..).for_each(|ack| player.mqtt.ack(ack));
        }
    }
}

#[tokio::test]
async fn a_name_that_is_used_twice_is_said() {
    // This mosquitto takes the connection away without a word: the players find out by themselves.
    let broker = Broker::start("allow_anonymous true");
    let mut first = broker.player();
    first.up().await;
    let mut second = broker.player();
    for player in [&mut first, &mut second] {
        while player.down().await != Down::NameTaken {}
    }
    // One goes: the other has the name for itself, and neither a restart nor a killed broker is taken for a rival.
    second.mqtt.stop().await;
    drop(second);
    let bot = Bot::connect(&broker, "nothing").await;
    first.past_the_border(&bot).await;
    drop(first);
    let mut again = broker.player();
    again.up().await;
    broker.signal("-KILL");
    assert_ne!(again.down().await, Down::NameTaken);
}

#[tokio::test]
async fn a_refused_login_and_a_refused_topic_are_told() {
    let users = |dir: &PathBuf| {
        for (user, password) in [("lobby", "right"), ("other", "x")] {
            let file = dir.join("passwd");
            let flags: &[&str] = if file.exists() { &["-b"] } else { &["-b", "-c"] };
            let made = Command::new("mosquitto_passwd").args(flags).arg(&file).args([user, password]).output().unwrap();
            assert!(made.status.success());
        }
        let mut acl = fs::File::create(dir.join("acl")).unwrap();
        writeln!(acl, "pattern readwrite jukebox/1/+/%u/now\npattern readwrite jukebox/1/+/%u/availability").unwrap();
        writeln!(acl, "pattern readwrite jukebox/1/+/%u/command/#\npattern readwrite jukebox/1/+/%u/event/started")
            .unwrap();
    };
    let broker = Broker::with_files("allow_anonymous false\npassword_file DIR/passwd\nacl_file DIR/acl", users);
    let mut wrong = Player::start(Settings { password: "wrong".into(), ..broker.settings() }, PACE);
    assert_eq!(wrong.down().await, Down::Login);
    let mut player = Player::start(Settings { password: "right".into(), ..broker.settings() }, PACE);
    player.up().await;
    // What the broker will never take does not block what it takes.
    player.mqtt.event(1, "refused", "x");
    player.mqtt.event(2, "started", "x");
    player.mqtt.event(3, "a+b", "x");
    for key in 1..=3 {
        assert!(matches!(player.next().await, Event::Delivered { key: k } if k == key));
    }
}

#[tokio::test]
async fn tls_with_the_offices_ca_only() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(ca, key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let server = rcgen::CertificateParams::new(names).unwrap().signed_by(&server_key, &issuer).unwrap();
    let files = |dir: &PathBuf| {
        fs::write(dir.join("s.pem"), server.pem()).unwrap();
        fs::write(dir.join("s.key"), server_key.serialize_pem()).unwrap();
    };
    let broker = Broker::with_files("allow_anonymous true\ncertfile DIR/s.pem\nkeyfile DIR/s.key", files);
    let config = |roots: rustls::RootCertStore| {
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    let mut player = Player::start(Settings { tls: Some(config(roots)), ..broker.settings() }, PACE);
    player.up().await;
    let nobody = config(rustls::RootCertStore::empty());
    let mut wary = Player::start(Settings { tls: Some(nobody), player: "wary".into(), ..broker.settings() }, PACE);
    assert_eq!(wary.down().await, Down::Link(Fault::Tls(TlsFault::Issuer)));
    let plain = Settings { host: "no.invalid".into(), ..broker.settings() };
    assert_eq!(Player::start(plain, PACE).down().await, Down::Link(Fault::Dns));
}
