//! Networks as offices have them: a proxy in the way, IPv6 only, HTTP/2; with tinyproxy, nginx and mosquitto.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::path::Path;
use std::time::Duration;

use jukebox::dial::{Dialer, ProxyFault};
use jukebox::fetch::{Fault, Fetcher, Want};
use jukebox::mqtt::{Down, Event, INBOX, Mqtt, Settings};
use jukebox::store::{Limits, Store};
use jukebox_core::library::{Digest, ROOT};
use jukebox_tests::rig::house::House;
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::proxy::{OUTSIDE, Proxy};
use jukebox_tests::rig::tls::Ca;
use jukebox_tests::rig::web::Web;
use jukebox_tests::rig::{SOON, folder, free_port};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const SONG: [(&str, f64); 1] = [("Waterloo", 3.0)];

/// A song is asked for over the broker, fetched from the web server, and heard whole.
fn plays(house: &House) {
    house.ok("add", "waterloo");
    let finished = |m: &jukebox_tests::rig::mqtt::Message| m.topic.ends_with("/event/finished");
    house.ears().wait_from(0, Duration::from_secs(40), "the song's end", finished);
    let sound = house.player.recording();
    assert!((3 * 44_100 - sound.sounding().len() as i64).abs() < 441 && sound.gaps(1.0).is_empty());
}

#[test]
fn a_player_behind_a_proxy_plays_and_obeys_through_it() {
    let dir = folder();
    let mut proxy = Proxy::start(dir.path(), "BasicAuth desk secret");
    let office = format!("proxy = \"{}\"", proxy.url("desk:%73ecret@"));
    let mut house = House::new(&SONG, Setup { office, ..Setup::default() });
    plays(&house);
    let log = house.broker.log().lines().join("\n");
    assert!(log.contains(&format!("New client connected from {OUTSIDE}")) && log.contains("as lobby"), "{log}");
    let tunnels = |proxy: &Proxy| proxy.log().lines().iter().filter(|l| l.contains("CONNECT 127.0.0.1:")).count();
    assert!(tunnels(&proxy) >= 2, "one to the web server, one to the broker");
    assert!(house.web.requests().iter().all(|r| r.contains("HTTP/2.0")), "{:?}", house.web.requests());

    // Nothing goes past it: without the proxy there is nobody.
    let ears = house.ears();
    proxy.stop();
    ears.wait("the will", |m| m.topic.ends_with("/availability") && m.payload == "offline");
    let asked = house.web.requests().len();
    house.player.process().line("mqtt: the proxy cannot be reached");
    assert_eq!(house.web.requests().len(), asked);
}

#[test]
fn an_office_with_nothing_but_an_ipv6_address_is_reached_by_its_name() {
    let setup = Setup { host: "office.rig".into(), hosts: Some("::1 office.rig\n".into()), ..Setup::default() };
    plays(&House::new(&SONG, setup));
}

#[test]
fn an_ipv6_address_in_brackets_is_as_good_as_a_name() {
    let house = House::new(&SONG, Setup { host: "[::1]".into(), ..Setup::default() });
    plays(&house);
    assert!(house.broker.log().lines().iter().any(|l| l.contains("connected from ::1")));
}

/// A library of one object behind a web server, and what a player fetches it with.
struct Office {
    web: Web,
    want: Want,
    tls: rustls::ClientConfig,
    store: Store,
    dir: tempfile::TempDir,
}

impl Office {
    fn new(server: Option<&str>) -> Self {
        let dir = folder();
        let library = dir.path().join("library");
        let bytes = vec![7; 200_000];
        let object = Digest::of(&bytes);
        let file = library.join(object.path());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
        std::fs::write(library.join(ROOT), "{}").unwrap();
        let ca = Ca::new(dir.path());
        let web = match server {
            None => Web::start(dir.path(), &library, Some(&ca)),
            Some(more) => {
                let port = free_port();
                let (certificate, key, root) = (ca.certificate.display(), ca.key.display(), library.display());
                let server = format!(
                    "server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate};
                     ssl_certificate_key {key}; root {root}; {more} }}"
                );
                Web::with(dir.path(), port, true, &server)
            }
        };
        let limits = Limits { cap_bytes: 1 << 30, floor_bytes: 0 };
        let (store, _) = Store::open(&dir.path().join("state"), &dir.path().join("cache"), limits, drop).unwrap();
        let want = Want::whole(object, Duration::from_secs(600));
        Self { web, want, tls: trusting(&ca.ca), store, dir }
    }

    fn fetcher(&self, proxy: Option<String>, tls: &rustls::ClientConfig) -> Fetcher {
        let dialer = Dialer::new(proxy.map(|p| p.parse().unwrap()));
        Fetcher::new(&[self.web.url()], dialer, Some(tls), false, self.store.objects(), drop).unwrap()
    }

    async fn fault(&self, proxy: String) -> Fault {
        let fetcher = self.fetcher(Some(proxy), &self.tls);
        let fault = fetcher.fetch(self.want.clone()).await.unwrap_err();
        assert_eq!(fetcher.probe(SOON).await, Err(fault), "the probe sees it too");
        assert!(fault.is_link());
        fault
    }
}

fn trusting(ca: &Path) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(jukebox::config::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn what_is_wrong_at_the_proxy_is_told_and_is_never_the_tracks_fault() {
    let mut office = Office::new(None);
    let dir = office.dir.path().to_owned();
    let mut proxy = Proxy::start(&dir, "BasicAuth desk secret");
    for login in ["", "desk:wrong@"] {
        assert_eq!(office.fault(proxy.url(login)).await, Fault::Proxy(ProxyFault::Login));
    }
    let narrow = Proxy::start(&dir, "ConnectPort 1");
    assert_eq!(office.fault(narrow.url("")).await, Fault::Proxy(ProxyFault::NoWay(403)));
    assert!(office.fetcher(Some(proxy.url("desk:secret@")), &office.tls).probe(SOON).await.is_ok());

    // The broker's link says the same.
    let (to, mut events) = tokio::sync::mpsc::channel(INBOX);
    let [site, player] = ["hq", "lobby"].map(String::from);
    let dialer = Dialer::new(Some(narrow.url("").parse().unwrap()));
    let (host, user, password) = ("::1".into(), String::new(), String::new());
    let mqtt = Mqtt::start(Settings { host, port: 1883, dialer, tls: None, site, player, user, password }, to);
    let Some(Event::Down { why }) = events.recv().await else { panic!("not connected at all") };
    assert_eq!(why, Down::Link(Fault::Proxy(ProxyFault::NoWay(403))));
    mqtt.stop().await;

    office.web.stop();
    assert!(matches!(office.fault(proxy.url("desk:secret@")).await, Fault::Proxy(ProxyFault::NoWay(500..))));
    proxy.stop();
    assert_eq!(office.fault(proxy.url("")).await, Fault::Proxy(ProxyFault::Away));
    assert_eq!(office.fault("http://no.invalid:3128".into()).await, Fault::Proxy(ProxyFault::Away));
}

/// A frozen server costs the request its deadline, and no more: afterwards it is as if it had never been.
#[tokio::test]
async fn a_web_server_that_says_nothing_any_more_costs_the_deadline() {
    let office = Office::new(None);
    let fetcher = office.fetcher(None, &office.tls);
    fetcher.root(None, SOON).await.unwrap();
    office.web.signal("STOP");
    let want = Want { deadline: Duration::from_secs(8), ..office.want.clone() };
    let fault = tokio::time::timeout(Duration::from_secs(60), fetcher.fetch(want)).await.unwrap();
    office.web.signal("CONT");
    assert_eq!(fault, Err(Fault::Timeout));
    assert_eq!(fetcher.fetch(office.want.clone()).await.unwrap().bytes.len(), 200_000);
}

#[tokio::test]
async fn a_web_server_that_is_slow_for_longer_than_a_ping_may_take_is_waited_for() {
    let office = Office::new(Some("limit_rate 25k;"));
    let fetcher = office.fetcher(None, &office.tls);
    assert_eq!(fetcher.fetch(office.want.clone()).await.unwrap().bytes.len(), 200_000);
    assert!(office.web.requests().iter().all(|r| r.contains("HTTP/2.0")), "{:?}", office.web.requests());
}
