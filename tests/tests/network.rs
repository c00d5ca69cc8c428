//! The network fails under the whole player: cable out and in, a black hole, one of two interfaces dead; or it costs by the
//! byte. Real kernel, web server and broker.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::time::{Duration, Instant};

use jukebox_tests::rig::house::House;
use jukebox_tests::rig::network::{HOSTS, NAME, Network, enclosed};
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::{SOON, until};

const SONGS: [(&str, f64); 3] = [("Waterloo", 4.0), ("Fernando", 4.0), ("Chiquitita", 4.0)];
/// What the README promises.
const FOLLOWS: Duration = Duration::from_secs(2);
const SOME_TIME: Duration = Duration::from_secs(60);

fn house(network: &Network, office: &str) -> House {
    let network = Some(network.path());
    House::new(
        &SONGS,
        Setup { host: NAME.into(), hosts: Some(HOSTS.into()), network, office: office.into(), ..Setup::default() },
    )
}

fn status(house: &House) -> String {
    house.player.told(&["status"])
}

/// Three times: the link goes, a song that is not on board is asked for, and the player says what is wrong. The times from
/// the link's return until it plays, sorted.
fn times(house: &House, reason: &str, go: impl Fn(), come: impl Fn()) -> [Duration; 3] {
    let mut times = SONGS.map(|(song, _)| {
        go();
        house.player.told(&["add", song]);
        until(reason, SOME_TIME, || status(house).contains(reason).then_some(()));
        let since = Instant::now();
        come();
        until("it plays", SOON, || status(house).starts_with("Playing").then_some(()));
        let took = since.elapsed();
        until("it has ended", SOON, || status(house).starts_with("Nothing queued").then_some(()));
        took
    });
    times.sort();
    eprintln!("sound after {times:?}");
    times
}

#[test]
fn sound_follows_the_cable() {
    if !enclosed("sound_follows_the_cable") {
        return;
    }
    let network = Network::new();
    let cable = network.cable(0);
    let house = house(&network, "");
    let times = times(&house, "no network", || network.unplug(cable), || network.plug(cable));
    assert!(times[1] < FOLLOWS, "{times:?}");
    // The broker too is called again by itself.
    house.ears().wait("online", |m| m.topic.ends_with("/availability") && m.payload == "online");
}

#[test]
fn sound_follows_the_end_of_a_black_hole() {
    if !enclosed("sound_follows_the_end_of_a_black_hole") {
        return;
    }
    let network = Network::new();
    network.cable(0);
    let house = house(&network, "");
    let times = times(&house, "office does not answer", || network.swallow(), || network.pass());
    assert!(times[1] < FOLLOWS, "{times:?}");
}

/// The better interface carries all while it can, the other one all while it cannot.
#[test]
fn whichever_interface_works_carries() {
    if !enclosed("whichever_interface_works_carries") {
        return;
    }
    let network = Network::new();
    let (cable, modem) = (network.cable(0), network.cable(1));
    let office = format!("interfaces = [{:?}, {:?}]", cable.player(), modem.player());
    let house = house(&network, &office);
    let ears = house.ears();
    let play = |song: &str| {
        let mark = ears.mark();
        house.player.told(&["add", song]);
        ears.wait_from(mark, SOME_TIME, "it is heard to its end, and the bots hear of it", |m| {
            m.topic.ends_with("/event/finished")
        });
    };
    play("Waterloo");
    let (by_cable, by_modem) = (network.sent(cable), network.sent(modem));
    // Neighbour discovery and the like; a song is more than 100 kB.
    assert!(by_cable > 100_000 && by_modem < 10_000, "{by_cable} {by_modem}");
    network.unplug(cable);
    play("Fernando");
    assert!(network.sent(modem) > by_modem + 100_000, "{by_modem} {}", network.sent(modem));
    network.plug(cable);
    let (by_cable, by_modem) = (network.sent(cable), network.sent(modem));
    play("Chiquitita");
    assert!(network.sent(cable) > by_cable + 100_000, "it goes back");
    assert!(network.sent(modem) < by_modem + 20_000, "{by_modem} {}", network.sent(modem));
}

/// A budget that would not last is kept with the smallest rendition; the sound goes on.
#[test]
fn a_budget_is_kept_on_an_interface_that_costs() {
    if !enclosed("a_budget_is_kept_on_an_interface_that_costs") {
        return;
    }
    let network = Network::new();
    let cable = network.cable(0);
    let office = format!("interfaces = [{0:?}]\nbudget_mb = {{ {0} = 100 }}", cable.player());
    let setup = Setup {
        host: NAME.into(),
        hosts: Some(HOSTS.into()),
        network: Some(network.path()),
        office,
        store: String::new(),
        ..Setup::default()
    };
    let house = House::new(&[("Waterloo", 80.0), ("Fernando", 40.0)], setup);
    let look = |verb: &str| {
        // Twenty questions a second are too many.
        std::thread::park_timeout(Duration::from_millis(120));
        house.ok(verb, "")
    };
    house.ok("add", "waterloo");
    let health = until("the forecast is beyond the budget", Duration::from_secs(75), || {
        let health = look("health");
        (health["forecast_mb_month"].as_u64()? > 100).then_some(health)
    });
    let metered = &health["metered"][0];
    assert_eq!((&metered["interface"], &metered["budget_mb"]), (&cable.player().into(), &100.into()), "{health}");
    let (counted, sent) = (health["bytes_month"].as_u64().unwrap(), network.sent(cable));
    // Before the first look it is not counted, nor since the last one; what the player sends is.
    assert!(counted > 2_000_000 && counted < sent + sent / 5, "{counted} of {sent} bytes");
    let before = network.sent(cable);
    house.ok("add", "fernando");
    until("it is on board", SOME_TIME, || (look("queue")["entries"][1]["on_board_pct"] == 100).then_some(()));
    let cost = network.sent(cable) - before;
    eprintln!("40 s of music cost {cost} bytes beyond the budget");
    assert!(cost < 600_000, "{cost} bytes, of an original of 4 MB and a small copy of 160 kB");
    house.ok("skip", "");
    until("it plays", SOME_TIME, || {
        Some(look("now")).filter(|n| n["state"] == "playing" && n["rendition"] == "opus-32")
    });
    let health = house.ok("health", "");
    assert!(health["unplanned_silence_s"]["since_boot"].as_f64().unwrap() < 1.0, "{health}");
}
