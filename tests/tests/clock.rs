//! The clock is wrong: certificates at the floor, and a whole player in 1970 and five years ahead.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jukebox::clock::Clock;
use jukebox::config::{Config, tls_config};
use jukebox_core::time::UnixMs;
use jukebox_tests::rig::house::House;
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::{SOON, folder, until, write};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{CertificateError, ClientConfig, ClientConnection, ServerConfig, ServerConnection};

/// An office with a CA of its own, and a certificate for some years.
struct Office {
    ca: String,
    server: Arc<ServerConfig>,
}

impl Office {
    fn new(years: std::ops::Range<i32>) -> Self {
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = ca.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(ca, key);
        let mut leaf = CertificateParams::new(vec!["office.rig".into()]).unwrap();
        (leaf.not_before, leaf.not_after) = (date_time_ymd(years.start, 1, 1), date_time_ymd(years.end, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(jukebox::config::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self { ca: pem, server: Arc::new(server) }
    }

    /// What a player with this clock says about the office's certificate.
    fn meet(&self, clock: &Arc<Clock>) -> Result<(), rustls::Error> {
        let folder = folder();
        let file = folder.path().join("jukebox.toml");
        let office = "site = \"hq\"\nplayer = \"lobby\"\norigins = [\"https://office.rig/\"]";
        write(&file, format!("[office]\n{office}\nca_pem = \"\"\"\n{}\"\"\"\n", self.ca));
        let config = Config::load(&file).unwrap_or_else(|e| panic!("{e}"));
        handshake(tls_config(&config, clock.clone()).unwrap().unwrap(), self.server.clone())
    }
}

/// A handshake in memory.
fn handshake(client: ClientConfig, server: Arc<ServerConfig>) -> Result<(), rustls::Error> {
    let mut client = ClientConnection::new(client.into(), "office.rig".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets()?;
    }
    client.writer().write_all(b"x").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut &wire[..]).unwrap();
    server.process_new_packets()?;
    server.reader().read_exact(&mut [0]).unwrap();
    Ok(())
}

/// A clock that was told the time by an office.
fn told(date: &str) -> Arc<Clock> {
    let clock = Clock::new(None);
    assert!(clock.look(Some((date.into(), Instant::now()))).1);
    clock
}

#[test]
fn certificates_are_checked_at_the_floor_until_the_time_is_known() {
    let expired = |r: Result<(), rustls::Error>| {
        matches!(r, Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })))
    };
    let unknown = Clock::new(None);
    // It was over before this program was built: no clock can make that good.
    assert!(expired(Office::new(2010..2020).meet(&unknown)));
    // It goes on beyond the floor, wherever the machine's clock stands. Whether it has begun nobody can say yet.
    for years in [2010..2090, 2089..2090] {
        assert_eq!(Office::new(years).meet(&unknown), Ok(()));
    }
    // What was known before the restart counts.
    let saved = UnixMs(date_time_ymd(2085, 6, 1).unix_timestamp() as u64 * 1_000);
    assert!(expired(Office::new(2010..2085).meet(&Clock::new(Some(saved)))));
    assert_eq!(Office::new(2010..2086).meet(&Clock::new(Some(saved))), Ok(()));
}

#[test]
fn once_the_time_is_known_a_certificate_has_begun_and_not_ended() {
    let clock = told("Mon, 01 Jan 2080 00:00:00 GMT");
    if jukebox_board::rt::clock_is_kept() == Some(true) {
        // Here the system's clock counts, and no office.
        assert_eq!(Office::new(2010..2090).meet(&clock), Ok(()));
    } else {
        let office = Office::new(2081..2090).meet(&clock);
        let early =
            matches!(office, Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })));
        assert!(early, "{office:?}");
        assert!(Office::new(2010..2079).meet(&clock).is_err(), "expired");
        assert_eq!(Office::new(2010..2081).meet(&clock), Ok(()));
    }
}

/// It reaches office and broker over TLS, plays, and takes the time from the office.
fn plays_at_a_clock_that_is_off_by(off_s: i64) {
    let house = House::new(&[("Waterloo", 3.0)], Setup { clock_off_s: off_s, ..Setup::default() });
    house.ok("add", "waterloo");
    house.ears().wait_from(0, Duration::from_secs(40), "the song's end", |m| m.topic.ends_with("/event/finished"));
    let now = until("the office has told the time", SOON, || {
        let now = house.ok("now", "");
        (now["clock"] == "synced").then_some(now)
    });
    let at = now["at"].as_str().unwrap().to_owned();
    let today = jukebox_core::time::UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64);
    assert_eq!(at[..10], today.to_string()[..10], "the day that the office says (but at midnight)");
}

#[test]
fn a_player_that_thinks_it_is_1970_plays() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    plays_at_a_clock_that_is_off_by(86_400 - now as i64);
}

#[test]
fn a_player_that_is_five_years_ahead_plays() {
    plays_at_a_clock_that_is_off_by(5 * 365 * 86_400);
}
