//! The store under power cuts, corruption, a second player and a full card.
//!
//! Power cuts: a writer runs under strace; its recorded writes are replayed into images of the disk as they may lie there
//! after a cut at any moment, and each image is opened. Nothing that was acknowledged before the cut may be missing. The same
//! with the whole player, which fetches, plays and obeys meanwhile; and on some of its images a player starts.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

#[path = "store/trace.rs"]
mod trace;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use jukebox::catalogue::Catalogue;
use jukebox::store::{Change, Done, Limits, Recovered, Stalled, Store, StoreError};
use jukebox_core::checkpoint::Saved;
use jukebox_core::library::Digest;
use jukebox_tests::rig::house::House;
use jukebox_tests::rig::player::{Player, Setup};
use jukebox_tests::rig::until;
use serde_json::{Value, json};
use trace::{CALLS, Call, Cut, parse, replay};

const LIMITS: Limits = Limits { cap_bytes: 1 << 30, floor_bytes: 0 };
const DEADLINE: Duration = Duration::from_secs(30);
/// Tells this binary, started again, which directory to write to.
const WRITER: &str = "JUKEBOX_TEST_STORE_WRITER";

fn change(key: &str, value: Option<&[u8]>) -> Change {
    Change { key: key.into(), value: value.map(<[u8]>::to_vec) }
}

fn open(dir: &Path) -> (Store, Recovered, mpsc::Receiver<Done>) {
    let (tx, rx) = mpsc::channel();
    let (store, found) =
        Store::open(&dir.join("state"), &dir.join("cache"), LIMITS, move |d| drop(tx.send(d))).unwrap();
    (store, found, rx)
}

fn commit(store: &Store, done: &mpsc::Receiver<Done>, ticket: u64, changes: Vec<Change>) {
    store.commit(ticket, changes).unwrap();
    assert_eq!(done.recv_timeout(DEADLINE), Ok(Done::Committed { ticket }));
}

#[test]
fn what_was_committed_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, found, done) = open(dir.path());
    assert!(found.rows.is_empty() && found.position.is_none() && found.rejected.is_empty());
    commit(&store, &done, 7, vec![change("b", Some(b"2")), change("a", Some(b"1"))]);
    store.commit(8, vec![change("a", None), change("c", Some(b"3"))]).unwrap();
    store.commit(9, vec![change("c", Some(b"4"))]).unwrap();
    store.save_position(vec![5; 40]);
    drop(store);
    assert_eq!(done.iter().collect::<Vec<_>>(), [8, 9].map(|ticket| Done::Committed { ticket }));
    let (_store, found, _) = open(dir.path());
    assert_eq!(found.rows, [(b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"4".to_vec())]);
    assert_eq!(found.position, Some(vec![5; 40]));
}

#[test]
fn a_second_player_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = Store::open(&dir.path().join("state"), &dir.path().join("cache"), LIMITS, drop);
    assert!(matches!(second, Err(StoreError::InUse { .. })));
}

#[test]
fn a_corrupt_database_is_moved_aside_and_the_older_copy_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, done) = open(dir.path());
    commit(&store, &done, 1, vec![change("old", Some(b"1"))]);
    drop(store); // the first commit of a run makes the older copy
    let database = dir.path().join("state/state.db");
    let spoil = || {
        let mut bytes = fs::read(&database).unwrap();
        bytes.iter_mut().skip(100).for_each(|b| *b ^= 0x5a);
        fs::write(&database, bytes).unwrap();
    };
    spoil();
    let (store, found, _) = open(dir.path());
    assert!(found.older && found.rejected.len() == 1 && found.rejected[0].exists());
    assert!(found.rejected[0].to_str().unwrap().contains("state.db.rejected-"));
    assert_eq!(found.rows, [(b"old".to_vec(), b"1".to_vec())]);
    drop(store);
    // Neither is understood: a fresh one.
    spoil();
    fs::write(dir.path().join("state/state.older.db"), "not a database, but long enough to be read as one".repeat(99))
        .unwrap();
    let (store, found, done) = open(dir.path());
    assert!(!found.older && found.rejected.len() == 2 && found.rows.is_empty());
    commit(&store, &done, 1, vec![change("new", Some(b"1"))]);
    drop(store);
    // A later form is not touched either.
    rusqlite::Connection::open(&database).unwrap().pragma_update(None, "user_version", 2).unwrap();
    assert_eq!(open(dir.path()).1.rejected.len(), 1);
}

#[test]
fn a_burst_shares_its_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, done) = open(dir.path());
    for ticket in 0..5000u64 {
        // The card is slower than this loop, and 4,096 tickets may wait.
        let stalled = store.commit(ticket, vec![change(&format!("{}", ticket % 50), Some(&ticket.to_be_bytes()))]);
        assert!(ticket >= 4096 || stalled == Ok(()), "{ticket}: {stalled:?}");
        assert!(matches!(stalled, Ok(()) | Err(Stalled)));
    }
    drop(store);
    let tickets: Vec<_> =
        done.iter().map(|d| if let Done::Committed { ticket } = d { ticket } else { panic!("{d:?}") }).collect();
    assert!(tickets.is_sorted() && tickets.len() >= 4096);
    let (_store, found, _) = open(dir.path());
    assert_eq!(found.rows.len(), 50);
    assert!(found.rows.iter().all(|(_, v)| u64::from_be_bytes(v[..].try_into().unwrap()) >= 4950));
}

/// What a command changes, more or less: its id and reply, a queue entry, the revision, an event.
fn command(n: u64) -> Vec<Change> {
    vec![
        change(&format!("id/{:03}", n % 256), Some(&[n as u8; 180])),
        change(&format!("queue/{:05}", n), Some(&[n as u8; 120])),
        change(&format!("queue/{:05}", n.wrapping_sub(100)), None),
        change("queue", Some(&n.to_be_bytes())),
        change(&format!("outbox/{n:08}"), Some(&[n as u8; 250])),
        change(&format!("outbox/{:08}", n.wrapping_sub(3)), None),
    ]
}

/// Bytes that this process caused to be written, whole pages.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|l| l.strip_prefix("write_bytes: ")?.parse().ok()).unwrap()
}

/// Not a test of its own: the process whose writes are recorded or counted.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(WRITER).map(PathBuf::from) else { return };
    let open = || {
        let (tx, rx) = mpsc::channel();
        let told = move |d| {
            if let Done::Committed { ticket } = d {
                println!("ACK {ticket}");
            }
            let _ = tx.send(d);
        };
        let (store, _) = Store::open(&dir.join("state"), &dir.join("cache"), LIMITS, told).unwrap();
        (store, rx)
    };
    if std::env::var_os("COUNT").is_some() {
        let (store, done) = open();
        let before = written();
        let mut took: Vec<_> = (1..=500)
            .map(|n| {
                // Commands do not come back to back: a pause of the load, nothing waits for it.
                std::thread::sleep(Duration::from_millis(if n % 8 == 0 { 25 } else { 0 }));
                let start = Instant::now();
                commit(&store, &done, n, command(n));
                start.elapsed()
            })
            .collect();
        let bytes = (written() - before) / 500;
        // Back to back the pace of transactions shows, after a pause the card alone.
        let mut alone: Vec<_> = took.iter().skip(7).step_by(8).copied().collect();
        took.sort();
        alone.sort();
        println!("COUNT {bytes} {} {}", alone[alone.len() / 2].as_micros(), took[495].as_micros());
        return;
    }
    for run in 0..3u64 {
        let (store, done) = open();
        store.save_position(vec![run as u8; 60]);
        for n in 1..=12 {
            let ticket = run * 12 + n;
            // Two keys of one ticket, and one key that every ticket changes; the value leads to overflow pages at times.
            let value = vec![ticket as u8; if ticket % 5 == 0 { 3000 } else { 90 }];
            let keys = [format!("a{ticket:03}"), format!("b{ticket:03}"), "last".into()];
            commit(&store, &done, ticket, keys.iter().map(|k| change(k, Some(&value))).collect());
        }
        drop(store); // writes the log back and starts another: the recorded writes hold checkpoints too
    }
}

fn again(dir: &Path, strace: Option<&Path>) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match strace {
        Some(log) => {
            let mut c = Command::new("strace");
            c.args(["-f", "-y", "-xx", "-s", "65536", "-e", CALLS, "-o"]).arg(log).arg(this);
            c
        }
        None => Command::new(this),
    };
    command.args(["--exact", "writer", "--nocapture", "--test-threads=1"]).env(WRITER, dir);
    command
}

#[test]
fn commands_are_cheap_for_the_card() {
    // A real file system: in memory nothing is counted.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = again(dir.path(), None).env("COUNT", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|l| l.split_once("COUNT ")).unwrap_or_else(|| panic!("{output:?}")).1;
    let [bytes, p50, p99] = line.split(' ').map(|n| n.parse::<u64>().unwrap()).collect::<Vec<_>>()[..] else {
        panic!()
    };
    println!("a command: {bytes} bytes written; commit after a pause p50 {p50} us, back to back p99 {p99} us");
    // 50 MB hold 7,200 positions of 4 KiB, 500 commands and 1,000 changes that playing makes.
    let budget = 7200 * 4096 + 1500 * bytes;
    assert!(budget <= 50_000_000, "{budget} bytes in ten hours");
}

#[test]
fn no_acknowledged_change_is_lost_in_a_power_cut() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("run");
    let log = work.path().join("trace");
    let status = again(&dir, Some(&log)).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    let calls = parse(&fs::read_to_string(&log).unwrap(), &dir);
    let last = calls.iter().filter(|c| matches!(c, Call::Ack(_))).count();
    assert_eq!(last, 36, "every commit was acknowledged in the trace");
    let checked = replay(&calls, &dir, usize::MAX, check);
    println!("{} recorded calls, {checked} images, 0 acknowledged changes lost", calls.len());
    assert!(checked > 500);
}

const COMMANDS: u64 = 60;

/// What each command wants: a track, or a volume.
fn wanted_volume(n: u64) -> Option<u64> {
    n.is_multiple_of(2).then_some(n)
}

#[test]
fn a_player_that_fetches_plays_and_obeys_survives_a_power_cut_at_every_write() {
    let work = tempfile::tempdir().unwrap();
    let log = work.path().join("trace");
    let strace = ["strace", "-D", "-f", "-y", "-xx", "-s", "5000000", "-e", CALLS, "-o", log.to_str().unwrap()];
    // A small copy first, then the original, as it comes out of the box.
    let setup = Setup { by: strace.map(Into::into).to_vec(), store: String::new(), ..Setup::default() };
    let songs = [("Waterloo", 12.0), ("Fernando", 5.0)];
    let mut house = House::new(&songs, setup);
    let ears = house.ears();
    let socket = house.player.socket();
    let mut replies = BufReader::new(socket.try_clone().unwrap()).lines();
    for n in 1..=COMMANDS {
        let id = format!("power-cut-{n:04}");
        let command = match wanted_volume(n) {
            Some(percent) => serde_json::json!({"verb": "volume", "percent": percent, "id": id}),
            None => {
                let title = if n == 1 { "waterloo" } else { "fernando" };
                serde_json::json!({"verb": "add", "text": title, "twice": true, "by": n.to_string(), "id": id})
            }
        };
        writeln!(&socket, "{command}").unwrap();
        let reply = replies.next().unwrap().unwrap();
        assert!(reply.contains("\"status\":\"ok\""), "{reply}");
        if n == 1 {
            ears.wait_from(0, DEADLINE, "sound", |m| m.topic.ends_with("/event/started"));
        }
    }
    ears.wait_from(0, DEADLINE, "the next track", |m| m.topic.ends_with("/event/started") && m.json()["entry"] == 2);
    let id = house.player.process().id().to_string();
    house.player.process().terminate();
    let player = house.folder().join("player");
    let ended = |trace: &str| trace.lines().any(|l| l.starts_with(&id) && l.contains("+++ exited"));
    let trace = until("the trace is written", DEADLINE, || fs::read_to_string(&log).ok().filter(|t| ended(t)));
    let calls = parse(&trace, &player);
    let last = calls.iter().filter(|c| matches!(c, Call::Ack(_))).count();
    assert_eq!(last as u64, COMMANDS, "every command was acknowledged in the trace");
    let setup = Setup { by: vec![], ..house.player.setup().clone() };
    let (images, started) = (Cell::new(0), Cell::new(0));
    let checked = replay(&calls, &player, 1_000, |image, acked, cut| {
        images.set(images.get() + 1);
        // Another kind of cut each time.
        if images.get() % 97 == 50 {
            let copy = work.path().join("started");
            copy_all(image, &copy);
            start_player(&copy, &setup, acked, cut);
            fs::remove_dir_all(copy).unwrap();
            started.set(started.get() + 1);
        }
        check_player(image, acked, cut);
    });
    let (calls, started) = (calls.len(), started.get());
    println!(
        "{calls} recorded calls of a player, {checked} images, {started} players started, 0 acknowledged commands lost"
    );
    assert!(checked >= 1_000 && started >= 10);
}

/// The player itself wakes up: it goes on playing, says so, and knows every command that it acknowledged.
fn start_player(folder: &Path, setup: &Setup, acked: u64, cut: Cut) {
    let context = format!("{cut:?} after command {acked}");
    let mut player = Player::start(folder, setup.clone());
    let ask = |line: Value| -> Value {
        let socket = player.socket();
        writeln!(&socket, "{line}").unwrap();
        let reply = BufReader::new(&socket).lines().next().unwrap().unwrap();
        serde_json::from_str::<Value>(&reply).unwrap()["data"].clone()
    };
    let by = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().filter_map(|e| Some(e["by"].as_str()?.to_owned())).collect()
    };
    let [queue, history] = ["queue", "history"].map(|verb| ask(json!({"verb": verb, "limit": 200})));
    let there: BTreeSet<_> = [by(&queue["entries"]), by(&history["plays"])].concat().into_iter().collect();
    let lost: Vec<_> = (1..=acked).filter(|n| wanted_volume(*n).is_none() && !there.contains(&n.to_string())).collect();
    assert!(lost.is_empty(), "{context}: {lost:?} are lost");
    if acked == 0 && there.is_empty() {
        until("the catalogue is there", DEADLINE, || player.cli(&["add", "waterloo"]).status.success().then_some(()));
    }
    until(&format!("{context}: half a second of sound"), DEADLINE, || {
        let sound = player.recording();
        (sound.sounding().len() > 22_050).then_some(())
    });
    until(&format!("{context}: it says what plays"), DEADLINE, || {
        let status = player.told(&["status"]);
        let names = status.contains("Waterloo") || status.contains("Fernando");
        (status.contains("Playing") && names).then_some(())
    });
    let said = player.process().lines();
    let bad: Vec<_> = said.iter().filter(|l| l.contains("panicked") || l.contains(" ERROR ")).collect();
    assert!(bad.is_empty(), "{context}: {bad:?}");
}

/// Every file below a folder, to the same place below another.
fn copy_all(from: &Path, to: &Path) {
    for file in files(from) {
        let copy = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&file, copy).unwrap();
    }
}

/// A player as it would wake up.
fn check_player(image: &Path, acked: u64, cut: Cut) {
    let context = || format!("{cut:?} after command {acked}");
    let (store, found, _) = open(image);
    assert!(found.rejected.is_empty(), "{}: {:?}", context(), found.rejected);
    let saved = Saved::load(found.rows);
    assert!(saved.rejected.is_empty(), "{}: {:?}", context(), saved.rejected);
    let played = saved.history.iter().map(|p| p.entry.by.clone());
    let there: BTreeSet<_> = saved.queue.iter().map(|e| e.by.clone()).chain(played).collect();
    let lost: Vec<_> = (1..=acked).filter(|n| wanted_volume(*n).is_none() && !there.contains(&n.to_string())).collect();
    assert!(lost.is_empty(), "{}: {lost:?} are lost", context());
    if let Some(meta) = saved.meta.filter(|_| acked > 1) {
        // The command after the acknowledged one may be saved already.
        let of = |n: u64| if n.is_multiple_of(2) { n } else { n - 1 };
        let volume = u64::from(meta.volume);
        assert!(volume == of(acked) || volume == of(acked + 1), "{}: volume {volume}", context());
    } else {
        assert!(acked <= 1, "{}: nothing is saved", context());
    }
    drop(Catalogue::open(&image.join("cache"), None).unwrap_or_else(|e| panic!("{}: {e}", context())));
    let objects = store.objects();
    let files = files(&image.join("cache/o"));
    for file in &files {
        let digest: Digest = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let bytes = objects.read_checked(&digest);
        assert!(bytes.as_ref().is_none_or(|b| Digest::of(b) == digest), "{}: wrong bytes", context());
        // What was written is torn only where the card had not taken it.
        assert!(bytes.is_some() || !matches!(cut, Cut::All), "{}: {digest} is torn", context());
        assert_eq!(objects.has(&digest), bytes.is_some(), "{}: what is torn is not there", context());
    }
}

/// Every file below a folder, which may be missing.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

fn check(image: &Path, acked: u64, cut: Cut) {
    let (_store, found, _) = open(image);
    let context = || format!("{cut:?} after ticket {acked}");
    assert!(found.rejected.is_empty(), "{}: {:?}", context(), found.rejected);
    assert!(found.position.is_none_or(|p| p.len() == 60 && p.iter().all(|b| *b == p[0] && *b < 3)));
    let keys: BTreeSet<_> = found.rows.iter().map(|(k, _)| String::from_utf8(k.clone()).unwrap()).collect();
    for ticket in 1..=36u64 {
        let [a, b] = ["a", "b"].map(|k| keys.contains(&format!("{k}{ticket:03}")));
        assert_eq!(a, b, "{}: half of ticket {ticket}", context());
        assert!(a || ticket > acked, "{}: ticket {ticket} is lost", context());
    }
    let last = found.rows.iter().find(|(k, _)| k == b"last").map_or(0, |(_, v)| u64::from(v[0]));
    assert!(last == acked || last == acked + 1, "{}: last is {last}", context());
}
