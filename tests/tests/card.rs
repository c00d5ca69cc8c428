//! The card under the whole player: small, full, or full of wrong bytes. The music goes on.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jukebox_core::library::{CataloguePage, Digest, MAX_OBJECT, ROOT, Record, Root};
use jukebox_tests::rig::house::House;
use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::{SOON, folder, office, until};

/// For what plays in real time.
const LIMIT: Duration = Duration::from_secs(90);

/// The loudness of the only song, in LUFS: brought to that, it is played as it is, sample for sample.
fn loudness(make: impl Fn(&Path)) -> f32 {
    let place = folder();
    let [songs, library] = ["songs", "library"].map(|n| place.path().join(n));
    fs::create_dir(&songs).unwrap();
    make(&songs);
    office::publish(&songs, &library);
    let object = |d: &Digest| fs::read(library.join(d.path())).unwrap();
    let root = Root::parse(&fs::read(library.join(ROOT)).unwrap()).unwrap();
    let page = zstd::bulk::decompress(&object(&root.pages[0].object), MAX_OBJECT).unwrap();
    Record::parse(&object(&CataloguePage::parse(&page).unwrap().rows[0].record)).unwrap().loudness
}

/// Every stored object.
fn objects(cache: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(cache.join("o")).unwrap().map(|e| e.unwrap().path());
    folders.flat_map(|p| fs::read_dir(p).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>()).collect()
}

/// Whether a file holds what its name says.
fn is_right(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_str().unwrap();
    fs::read(file).is_ok_and(|bytes| Digest::of(&bytes) == name.parse().unwrap())
}

/// Makes every object wrong, each in one of seven ways.
fn spoil(objects: &[PathBuf]) {
    let first = fs::read(&objects[0]).unwrap();
    for (n, file) in objects.iter().enumerate() {
        let mut bytes = fs::read(file).unwrap();
        match n % 7 {
            0 => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
            }
            1 => bytes.truncate(bytes.len() / 2),
            2 => bytes.fill(0),
            3 => bytes.clear(),
            4 => bytes.extend_from_slice(b"more"),
            // Another object's bytes, each of them right.
            5 => bytes.clone_from(&first),
            _ => {
                fs::remove_file(file).unwrap();
                fs::create_dir(file).unwrap();
                continue;
            }
        }
        fs::write(file, bytes).unwrap();
    }
    assert!(objects.iter().all(|file| !is_right(file)));
}

#[test]
fn wrong_bytes_are_found_and_fetched_again_and_never_played() {
    let make = |songs: &Path| {
        let song = Song { title: "Waterloo", seconds: 22.0, ..Song::default() };
        music::make(&songs.join("0.flac"), &song);
    };
    let output = format!("first_volume = 100\nloudness_lufs = {}\n", loudness(make));
    let mut house = House::with(Setup { output, ..Setup::default() }, make);
    let cache = house.folder().join("player/cache");
    let file = music::decode(&house.folder().join("songs/0.flac"), house.folder());
    // The first sound after a start comes up in half a second, from nothing: so many frames at either end may be zero.
    const UNHEARD: usize = 9;
    let ramp = 22_050 + 441;
    let heard_whole = |house: &House| {
        let heard = until("the recording is written", LIMIT, || {
            let heard = house.player.recording();
            (heard.sounding().len() + UNHEARD >= file.frames.len()).then_some(heard)
        });
        let at = heard.sounding().start;
        let found = heard.find(&file.frames[ramp..], at);
        let whole = found.is_some_and(|f| f <= at + ramp && f + UNHEARD >= at + ramp);
        if !whole {
            let off = (ramp..file.frames.len()).find(|n| heard.frames.get(at + n) != Some(&file.frames[*n]));
            println!("differs from frame {off:?} on; gaps {:?}", heard.gaps(1.0));
        }
        assert!(whole, "every frame of the file, once, and no other: {found:?} after {at}");
    };

    // While it plays.
    let ears = house.ears();
    house.ok("add", "waterloo");
    until("all on board", SOON, || (house.ok("queue", "")["entries"][0]["on_board_pct"] == 100).then_some(()));
    let stored = objects(&cache);
    spoil(&stored);
    heard_whole(&house);
    ears.wait_from(0, LIMIT, "the end", |m| m.topic.ends_with("/event/finished"));
    let refilled = stored.iter().filter(|f| is_right(f)).count();
    assert!(refilled >= 3, "{refilled} of {} objects", stored.len());

    // While it is off.
    house.player.process().terminate();
    let stored: Vec<_> = objects(&cache).into_iter().filter(|f| is_right(f)).collect();
    spoil(&stored);
    house.player.start_again();
    until("the catalogue is there", SOON, || (house.ask("search", "x")["status"] == "ok").then_some(()));
    house.ok("add", "waterloo");
    heard_whole(&house);
    let segments = stored.iter().filter(|f| fs::metadata(f).is_ok_and(|m| m.len() > 28_000));
    assert!(segments.clone().count() > 3 && segments.clone().all(|f| is_right(f)), "the segments are right again");
}

#[test]
fn a_full_card_does_not_stop_the_music_and_heals_by_itself() {
    // The cache on a disk of its own, of 16 MB: a file system in memory, in a mount namespace.
    let mount = "cache=$(dirname \"$4\")/cache; mkdir -p \"$cache\" && mount -t tmpfs -o size=16m none \"$cache\" && exec \"$@\"";
    let by = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"].map(Into::into).to_vec();
    let mut house = House::new(&[("Waterloo", 24.0), ("Fernando", 24.0)], Setup { by, ..Setup::default() });
    let ears = house.ears();
    let cache = house.folder().join("player/cache");
    let seen = PathBuf::from(format!("/proc/{}/root{}", house.player.process().id(), cache.display()));
    let ballast = seen.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    drop(file);

    house.ok("add", "waterloo");
    house.ok("add", "fernando");
    let disk = |what: &str, code: serde_json::Value| {
        ears.wait_from(0, SOON, what, move |m| m.topic.ends_with("/event/disk") && m.json()["reason"]["code"] == code)
    };
    disk("the card is full", "disk_full".into());
    until("health says so", SOON, || (house.ok("health", "")["disk"]["code"] == "disk_full").then_some(()));
    assert!(house.player.told(&["status"]).contains("The card is full"));
    ears.wait_from(0, LIMIT, "both tracks", |m| m.topic.ends_with("/event/started") && m.json()["entry"] == 2);
    let segment = |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.len() > 28_000);
    assert!(!objects(&seen).iter().any(segment), "no segment fits");
    fs::remove_file(&ballast).unwrap();
    disk("it has room again", serde_json::Value::Null);
    ears.wait_from(0, LIMIT, "the end", |m| m.topic.ends_with("/event/finished") && m.json()["entry"] == 2);
    let health = house.ok("health", "");
    assert_eq!(health["disk"], serde_json::Value::Null);
    let silence = health["unplanned_silence_s"]["since_boot"].as_f64().unwrap();
    println!("two tracks of 24 s on a full card: {silence} s of silence");
    assert!(silence < 1.0, "{health}");
    let heard = house.player.recording();
    let gaps = heard.gaps(100.0);
    assert!(gaps.is_empty() && heard.sounding().len() > 47 * 44_100, "{gaps:?}");
    assert!(
        objects(&seen).iter().filter(|f| segment(f)).count() > 3,
        "what was in memory is on the card, and what came since"
    );
}

#[test]
fn a_small_cache_holds_what_comes_next_and_lets_go_of_what_was_played() {
    /// The smallest that there is, for half of the queue.
    const MB: u64 = 64;
    let store = format!("renditions = \"original\"\nsize_mb = {MB}\n");
    let house = House::with(Setup { store, ..Setup::default() }, |songs| {
        for n in 0..10u32 {
            let title = format!("Song {n}");
            let song = Song { title: &title, seconds: 30.0, rate: 96_000, bits: 24, seed: n + 1, ..Song::default() };
            music::make(&songs.join(format!("{n}.flac")), &song);
        }
    });
    let cache = house.folder().join("player/cache");
    let stored = || objects(&cache).iter().filter_map(|f| fs::metadata(f).ok()).map(|m| m.len()).sum::<u64>();
    let library = fs::read_dir(house.folder().join("songs")).unwrap().map(|f| f.unwrap().metadata().unwrap().len());
    let library = library.sum::<u64>();
    assert!(library > 3 * MB * 1_000_000 / 2, "{library} bytes of music");
    for n in 0..10 {
        house.ok("add", &format!("song {n}"));
    }
    // In the order in which they come, as many as there is room for.
    let whole = || -> Vec<bool> {
        let queue = house.ok("queue", "");
        queue["entries"].as_array().unwrap().iter().map(|e| e["on_board_pct"] == 100).collect()
    };
    let (mut most, mut played) = (0, 0);
    for step in 0..4 {
        let come = until("the next three are on board", SOON, || {
            // Twenty questions a second are too many.
            std::thread::park_timeout(Duration::from_millis(120));
            most = most.max(stored());
            Some(whole()).filter(|w| w.len() < 3 || w[..3].iter().all(|w| *w))
        });
        assert!(step > 0 || !come[9], "not all of it fits");
        if step < 3 {
            house.ok("skip", "");
            house.ok("skip", "");
            played += 2;
        }
    }
    println!("{played} of 10 tracks played, {} MB of {} MB at most", most / 1_000_000, library / 1_000_000);
    assert!(most <= MB * 1_000_000, "{most} bytes");
    assert!(most > MB * 600_000, "most of it is used: {most} bytes");
    let health = house.ok("health", "");
    assert_eq!((&health["disk"], &health["underruns"]), (&serde_json::Value::Null, &0.into()), "{health}");
    assert!(health["unplanned_silence_s"]["since_boot"].as_f64().unwrap() < 1.0, "{health}");
}
