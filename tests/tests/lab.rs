//! The lab's link proves itself: packets through real namespaces. Where the system does not allow them, it says NOT HERE.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jukebox_tests::lab::case::Case;
use jukebox_tests::lab::link::{Link, OFFICE, PLAYER};
use jukebox_tests::lab::place::{self, Names, Place};
use jukebox_tests::rig::folder;

/// Two places joined by a link, and a UDP socket at each end.
struct Pair {
    link: Link,
    near: UdpSocket,
    far: UdpSocket,
    player: Arc<Place>,
    office: Arc<Place>,
    _folder: tempfile::TempDir,
}

impl Pair {
    /// None, told loudly, where there can be no namespaces.
    fn new(case: &str) -> Option<Self> {
        if let Some(why) = place::not_here() {
            // Past the test's captured output: whoever runs the tests must see it.
            let _ = writeln!(std::io::stderr(), "NOT HERE: the lab's link was not tested: {why}");
            return None;
        }
        let folder = folder();
        let [player, office] = [(), ()].map(|()| Arc::new(Place::new(folder.path(), OFFICE)));
        let link = Link::new(Case::parse(case, Path::new("")).unwrap(), &player, &office, 1).unwrap();
        let socket = |place: &Place, at: &str| {
            let socket = place.inside(|| UdpSocket::bind((at, 9000))).unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
            socket
        };
        let (near, far) = (socket(&player, PLAYER), socket(&office, OFFICE));
        far.connect((PLAYER, 9000)).unwrap();
        near.connect((OFFICE, 9000)).unwrap();
        Some(Self { link, near, far, player, office, _folder: folder })
    }

    /// Sends packets of 1000 bytes on the wire down the link, and takes what comes until nothing does: their numbers, and the
    /// time from the first packet sent to the last one taken.
    fn send(&self, count: u16, pause: Duration) -> (Vec<u16>, Duration) {
        let start = Instant::now();
        std::thread::scope(|s| {
            s.spawn(|| {
                for n in 0..count {
                    let mut packet = [0; 972]; // beside 20 bytes of IP and 8 of UDP
                    packet[..2].copy_from_slice(&n.to_be_bytes());
                    self.far.send(&packet).unwrap();
                    std::thread::sleep(pause);
                }
            });
            let (mut taken, mut last, mut packet) = (Vec::new(), start, [0; 2_000]);
            while let Ok(length) = self.near.recv(&mut packet) {
                assert_eq!(length, 972);
                taken.push(u16::from_be_bytes([packet[0], packet[1]]));
                last = Instant::now();
            }
            assert!(taken.is_sorted(), "order is kept");
            (taken, last - start)
        })
    }
}

#[test]
fn rate_delay_and_queue_are_those_of_the_case() {
    let Some(pair) = Pair::new("down 800\nup 800\ndelay 100\nqueue 64\n") else { return };
    let ping = || {
        let start = Instant::now();
        pair.near.send(b"there").unwrap();
        pair.far.recv(&mut [0; 10]).unwrap();
        pair.far.send(b"back").unwrap();
        pair.near.recv(&mut [0; 10]).unwrap();
        start.elapsed().as_secs_f64()
    };
    let before = ping();
    pair.link.go();
    let after = ping();
    assert!((0.2..1.2).contains(&before) && (0.2..1.2).contains(&after), "{before} {after}");
    // 300 packets at once: 64 KiB of them wait, the rest is lost. 800 kbit/s carry 100 a second, and of a busy machine's time
    // only the least is certain.
    let bytes = pair.link.carried_down();
    let (taken, time) = pair.send(300, Duration::ZERO);
    assert!((65..200).contains(&taken.len()), "{}", taken.len());
    let least = 0.1 + taken.len() as f64 / 100.0 - 0.02;
    assert!((least..least + 2.0).contains(&time.as_secs_f64()), "{time:?} for {}", taken.len());
    // The answer to a ping, 32 bytes, may be counted late.
    assert_eq!((pair.link.carried_down() - bytes) / 1_000, taken.len() as u64);
}

#[test]
fn traces_windows_and_losses_are_those_of_the_case() {
    let Some(pair) = Pair::new("loss 0.2 0\nat 1 1 drop\nat 3 0.5 hold\n") else { return };
    pair.link.go();
    let start = Instant::now();
    let (taken, _) = pair.send(400, Duration::from_millis(10));
    let sent = start.elapsed().as_secs_f64() - 1.5; // it waited so long for one more
    assert!((4.0..8.0).contains(&sent), "{sent}");
    // Packet n left at about n * sent / 400 seconds; the first second of them, and the third, lose a fifth.
    let of = |from: f64, to: f64| {
        let time = |n: u16| f64::from(n) * sent / 400.0;
        let all = (0..400).filter(|n| (from..to).contains(&time(*n))).count();
        let came = taken.iter().filter(|n| (from..to).contains(&time(**n))).count();
        came as f64 / all as f64
    };
    assert!((0.65..0.95).contains(&of(0.0, 0.9)), "{}", of(0.0, 0.9));
    assert!(of(1.3, 1.7) < 0.01, "{}", of(1.3, 1.7));
    assert!((0.65..0.95).contains(&of(2.2, 4.0)), "what was held came later: {}", of(2.2, 4.0));
}

#[test]
fn every_name_is_the_office_until_the_interface_goes() {
    let Some(pair) = Pair::new("delay 5\n") else { return };
    let _names = Names::start(&pair.office, OFFICE.parse().unwrap()).unwrap();
    let asked = pair.player.command("getent").args(["ahostsv4", "music.lab"]).output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stdout).starts_with(OFFICE), "{asked:?}");
    pair.link.interface(false).unwrap();
    let unreachable = || pair.near.send(b"x").is_err();
    assert!(unreachable());
    pair.link.interface(true).unwrap();
    pair.near.send(b"again").unwrap();
    assert_eq!(pair.far.recv(&mut [0; 10]).unwrap(), 5);
}
