//! What a run touches: nothing when nothing changed, one page when one track came, and never a broken library.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use common::{Place, flac, mp3, text, wav};
use jukebox_core::library::{CataloguePage, IndexPage, PageList, Playlist, PlaylistTrack, RenditionName, Root, encode};
use jukebox_office::publish::{self, PublishError, publish};
use jukebox_office::{show, verify};

/// Every file of a folder, with its bytes and time.
fn files(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let time = fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path.clone(), (fs::read(&path).unwrap(), time));
            }
        }
    }
    found
}

fn is_whole(library: &Path) -> verify::Report {
    let report = verify::verify(library).unwrap();
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
    report
}

/// Ten short tracks, FLAC and MP3.
fn ten(place: &Place) {
    for n in 0..10 {
        let source = place.at("source.wav");
        wav(&source, 2.5, 44_100, 2, 16, n + 1);
        let (title, artist) = (format!("Track {n}"), format!("Artist {}", n / 3));
        match n % 2 {
            0 => flac(
                &source,
                &place.music(&format!("{n}.flac")),
                &[
                    &format!("--tag=TITLE={title}"),
                    &format!("--tag=ARTIST={artist}"),
                    "--tag=DATE=1999-05-01",
                    "--tag=TRACKNUMBER=7",
                    "--tag=DISCNUMBER=2",
                ],
            ),
            _ => mp3(
                &source,
                &place.music(&format!("{n}.mp3")),
                &["--tt", &title, "--ta", &artist, "--ty", "1984", "--tn", "3/9"],
            ),
        }
    }
}

#[test]
fn a_second_run_touches_nothing_and_a_new_track_little() {
    let place = Place::new();
    ten(&place);
    let first = place.publish();
    assert!(first.changed && first.unusable.is_empty() && first.notes.is_empty(), "{first:?}");
    assert_eq!((first.tracks, first.worked, first.unchanged, first.revision), (10, 10, 0, 1));
    assert!(first.total_ms >= 25_000 && first.total_ms < 25_100);
    let library = place.library();
    let rows = library.rows();
    assert_eq!(rows.len(), 10);
    assert!(rows.is_sorted_by_key(|r| (r.artist.clone(), r.album.clone())));
    let (a, b) = (library.titled("Track 0"), library.titled("Track 1"));
    assert_eq!((a.artist.as_str(), a.year, a.disc, a.number, a.renditions.len()), ("Artist 0", 1999, 2, 7, 3));
    assert_eq!((b.artist.as_str(), b.year, b.disc, b.number), ("Artist 0", 1984, 0, 3));
    let report = is_whole(&library.0);
    assert_eq!((report.tracks, report.roots, report.spare), (10, 1, 0));

    // Nothing new: not a byte, not a time, and it says so.
    let before = files(&library.0);
    let second = place.publish();
    assert!(!second.changed);
    assert_eq!((second.tracks, second.worked, second.unchanged, second.revision, second.written), (10, 0, 10, 1, 0));
    assert!(files(&library.0) == before);
    assert!(publish::report(&second, &place.options()).contains("nothing changed: library stays at revision 1"));

    // One more track: one page, one record, three renditions with an index page each; the root twice.
    wav(&place.at("source.wav"), 2.5, 44_100, 2, 16, 77);
    flac(&place.at("source.wav"), &place.music("new/one.flac"), &[]);
    let third = place.publish();
    assert_eq!((third.worked, third.unchanged, third.revision, third.pages), (1, 10, 2, (1, 1)));
    let after = files(&library.0);
    let new = after.keys().filter(|k| !before.contains_key(*k)).count();
    let changed: Vec<_> = before.iter().filter(|(k, v)| after.get(*k) != Some(v)).map(|(k, _)| k.clone()).collect();
    assert_eq!((new, changed), (1 + 1 + 3 * 2 + 1, vec![library.0.join("library.json")]));
    let report = is_whole(&library.0);
    assert_eq!((report.tracks, report.roots, report.spare), (11, 2, 0));
    let root = library.root();
    let previous = Root::parse(&library.object(&root.previous.unwrap())).unwrap();
    assert_eq!((previous.revision, &previous.library), (1, &root.library));

    // New tags: another record, the same id and the same sound.
    let old = library.titled("Track 0");
    common::tool("metaflac", &["--remove-tag=TITLE", "--set-tag=TITLE=Other", text(&place.music("0.flac"))]);
    assert_eq!(place.publish().revision, 3);
    let new = library.titled("Other");
    assert_eq!((new.id, &new.renditions), (old.id, &old.renditions));

    // The same sound twice: the first path counts, the other is named.
    fs::copy(place.music("new/one.flac"), place.music("zz.flac")).unwrap();
    let twice = place.publish();
    assert_eq!(twice.duplicates, [("zz.flac".into(), "new/one.flac".into())]);
    assert!(!twice.changed);
    fs::remove_file(place.music("new/one.flac")).unwrap();
    let moved = place.publish();
    assert!(moved.duplicates.is_empty() && moved.changed && moved.removed == 1, "{moved:?}");
    assert_eq!(library.titled("zz").renditions.len(), 3);
    is_whole(&library.0);

    // Popularity by path and by id; a line that is none is named.
    let id = library.titled("Track 1").id;
    fs::write(place.at("plays.csv"), format!("what,plays\n2.flac,12\n{id},7\nnonsense\n")).unwrap();
    let mut options = place.options();
    options.popularity = Some(place.at("plays.csv"));
    let popular = publish(&options).unwrap();
    assert_eq!((popular.worked, popular.changed, popular.notes.len()), (0, true, 1));
    let plays = |title: &str| library.rows().iter().find(|r| r.title == title).unwrap().popularity;
    assert_eq!((plays("Track 2"), plays("Track 1"), plays("Track 3")), (12, 7, 0));

    // With no day to be kept, all old roots and what only they name are gone.
    options.keep_days = 0;
    fs::remove_file(place.music("2.flac")).unwrap();
    let swept = publish(&options).unwrap();
    assert!(swept.swept.0 > 5, "{swept:?}");
    let report = is_whole(&library.0);
    assert_eq!((report.tracks, report.spare), (10, 0));

    // An unmounted disk does not empty the library.
    fs::rename(place.at("music"), place.at("elsewhere")).unwrap();
    assert!(matches!(publish(&place.options()), Err(PublishError::Music(..))));
    fs::create_dir(place.at("music")).unwrap();
    assert!(matches!(publish(&place.options()), Err(PublishError::Gone(..))));
    is_whole(&library.0);
}

#[test]
fn verify_finds_every_kind_of_damage() {
    let place = Place::new();
    for n in 1..4 {
        wav(&place.at("source.wav"), 3.0, 44_100, 2, 16, n);
        flac(&place.at("source.wav"), &place.music(&format!("{n}.flac")), &[]);
    }
    place.publish();
    let library = place.library();
    let record = library.titled("2");
    let rendition = common::rendition(&record, RenditionName::Opus96);
    let row = library.rows().iter().find(|r| r.title == "2").unwrap().record;
    let flip = |bytes: &mut Vec<u8>| bytes[20] ^= 1;
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    for (digest, what) in [
        (rendition.object, "opus-96"),
        (rendition.index[0].object, "index page"),
        (row, "record"),
        (library.root().pages[0].object, "catalogue page"),
    ] {
        let path = library.0.join(digest.path());
        let good = fs::read(&path).unwrap();
        for (i, damage) in [flip as fn(&mut Vec<u8>), cut].into_iter().enumerate() {
            let mut bad = good.clone();
            damage(&mut bad);
            fs::write(&path, bad).unwrap();
            let problems = verify::verify(&library.0).unwrap().problems;
            assert!(
                problems.iter().any(|p| p.contains(&digest.to_string()) && p.contains("digest")),
                "{what} {i}: {problems:?}"
            );
        }
        fs::remove_file(&path).unwrap();
        let problems = verify::verify(&library.0).unwrap().problems;
        assert!(problems.iter().any(|p| p.contains(&digest.to_string())), "{what}: {problems:?}");
        fs::write(&path, good).unwrap();
        is_whole(&library.0);
    }
    fs::write(library.0.join("o/ab.txt"), "what").unwrap();
    assert_eq!(verify::verify(&library.0).unwrap().problems, ["o/ab.txt: is not an object: remove it"]);
    fs::remove_file(library.0.join("o/ab.txt")).unwrap();
    // A missing object comes back: the file is worked on again.
    fs::remove_file(library.0.join(rendition.object.path())).unwrap();
    let again = place.publish();
    assert_eq!((again.worked, again.unchanged, again.changed), (1, 2, false));
    is_whole(&library.0);
    fs::write(library.0.join("library.json"), "{}").unwrap();
    assert_eq!(verify::verify(&library.0).unwrap().problems.len(), 1);
    assert!(verify::verify(&place.at("music")).is_err());
}

#[test]
fn playlists_are_in_the_root_and_follow_their_tracks() {
    let place = Place::new();
    ten(&place);
    fs::create_dir(place.music("Bars")).unwrap();
    fs::copy(place.music("4.flac"), place.music("Bars/twice.flac")).unwrap();
    let list = "\u{feff}#EXTM3U\r\n#PLAYLIST:Friday  night\r\n#EXTINF:2,x\r\n../3.mp3\r\n../gone.mp3\r\ntwice.flac\r\n\
        D:\\Music\\0.FLAC\r\n../3.mp3\r\nhttps://radio.example/live\r\n";
    fs::write(place.music("Bars/Friday (1).m3u8"), list).unwrap();
    fs::write(place.music("all.m3u"), (0..10).map(|n| format!("{n}.{}\n", ["flac", "mp3"][n % 2])).collect::<String>())
        .unwrap();
    fs::write(place.music("all.m3u8"), "1.mp3\n").unwrap();
    fs::write(place.music("none.m3u8"), "nothing.mp3\n").unwrap();
    fs::write(place.music("empty.m3u8"), "#EXTM3U\n").unwrap();
    fs::write(place.music("huge.m3u8"), vec![b'\n'; 5 << 20]).unwrap();
    fs::write(place.music("noise.m3u8"), (0..60_000u32).map(|n| (n * n / 8) as u8).collect::<Vec<_>>()).unwrap();
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.playlists), (10, 2), "{summary:?}");
    let said = publish::report(&summary, &place.options());
    let friday = "Bars/Friday (1).m3u8 has 2 of 6 entries that are not in the library: ../gone.mp3, https://radio.example/live\n";
    assert!(said.contains(friday), "{said}");
    assert!(said.contains("all.m3u8 would be called `all`, as all.m3u is: rename one of them\n"), "{said}");
    assert!(said.contains("none.m3u8 has no entry in the library: nothing.mp3\n"), "{said}");
    assert!(
        said.contains("empty.m3u8 is an empty playlist") && said.contains("huge.m3u8 is longer than 4 MiB"),
        "{said}"
    );
    assert_eq!(summary.unusable.len(), 5, "{said}");
    let library = place.library();
    let root = library.root();
    let refs: Vec<_> = root.playlists.iter().map(|p| (p.id.as_str(), p.name.as_str(), p.tracks)).collect();
    assert_eq!(refs, [("bars-friday-1", "Friday night", 4), ("all", "all", 10)]);
    let tracks = |n: usize| {
        let bytes = library.object(&library.root().playlists[n].object);
        assert_eq!(bytes.len() as u32, library.root().playlists[n].size);
        Playlist::parse(&bytes).unwrap().tracks
    };
    let record = |title: &str| {
        let row = library.rows().into_iter().find(|r| r.title == title).unwrap();
        PlaylistTrack { id: row.id, record: row.record }
    };
    assert_eq!(tracks(0), ["Track 3", "Track 4", "Track 0", "Track 3"].map(record));
    is_whole(&library.0);

    // Nothing new: the root stays. New tags: the playlist names the new record. Gone: so is the playlist, not its object.
    assert!(!place.publish().changed);
    common::tool("metaflac", &["--remove-tag=TITLE", "--set-tag=TITLE=Other", text(&place.music("0.flac"))]);
    place.publish();
    assert_eq!(tracks(0)[2], record("Other"));
    fs::remove_file(place.music("Bars/Friday (1).m3u8")).unwrap();
    let gone = place.publish();
    assert!(gone.changed && gone.missing == 1 && library.root().playlists.len() == 1, "{gone:?}");
    is_whole(&library.0);
}

#[test]
fn anything_can_be_shown() {
    let place = Place::new();
    wav(&place.at("source.wav"), 3.0, 44_100, 1, 16, 9);
    flac(&place.at("source.wav"), &place.music("a.flac"), &["--tag=TITLE=Shown"]);
    place.publish();
    let library = place.library();
    let record = library.titled("Shown");
    let at = |name: &str| show::show(&library.0, name).unwrap();
    assert_eq!(at("root")["revision"], 1);
    assert_eq!(at(&record.id.to_string())["record"]["title"], "Shown");
    let row = &library.rows()[0];
    assert_eq!(at(&row.record.to_string())["record"]["renditions"][1]["name"], "opus-96");
    assert_eq!(at(&library.root().pages[0].object.to_string())["catalogue"]["rows"][0]["title"], "Shown");
    let original = &record.renditions[0];
    assert_eq!(at(&original.index[0].object.to_string())["index"][0]["first_frame"], 0);
    assert_eq!(at(&original.object.to_string())["segments"].as_array().unwrap().len(), 3);
    for bad in ["what", "aaaaaaaaaaaaaaaa", &"0".repeat(64)] {
        let e = show::show(&library.0, bad).unwrap_err().to_string();
        assert!(e.contains(bad) && !e.contains('\n'), "{e}");
    }
}

/// Objects that are CBOR against the schema in the docs.
#[test]
fn objects_are_as_the_schema_says() {
    let place = Place::new();
    for n in 1..3 {
        wav(&place.at("source.wav"), 2.5, 44_100, 2, 16, n);
        let tag = format!("--tag=TITLE={n}");
        flac(&place.at("source.wav"), &place.music(&format!("{n}.flac")), &[&tag, "--tag=ALBUM=Same"]);
    }
    place.publish();
    let library = place.library();
    let schema = include_str!("../../firmware/docs/library.cddl");
    let valid = |rule: &str, bytes: &[u8]| cddl_cat::validate_cbor_bytes(rule, schema, bytes);
    let page = &library.root().pages[0].object;
    let page = verify::unzstd(&library.object(page)).unwrap();
    CataloguePage::parse(&page).unwrap();
    valid("catalogue-page", &page).unwrap();
    let rows = library.rows();
    for row in &rows {
        valid("record", &library.object(&row.record)).unwrap();
        for r in library.record(row).renditions {
            let index = library.object(&r.index[0].object);
            IndexPage::parse(&index).unwrap();
            valid("index-page", &index).unwrap();
        }
    }
    valid("page-list", &encode(&PageList { pages: library.root().pages })).unwrap();
    let tracks = rows.iter().map(|r| PlaylistTrack { id: r.id, record: r.record }).collect();
    valid("playlist", &encode(&Playlist { tracks })).unwrap();
    // The schema is no rubber stamp.
    let mut wrong = library.object(&rows[0].record);
    wrong[2] = 9;
    assert!(valid("record", &wrong).is_err() && valid("index-page", &page).is_err());
}

/// Kills a publish as it enters its n-th system call of a kind, by the means of strace; true if it was killed.
fn killed_at(place: &Place, call: &str, n: usize) -> bool {
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={n}")])
        .args([env!("CARGO_BIN_EXE_jukebox-office"), "publish", "--jobs", "1", "--keep-days", "0"])
        .args([place.at("music"), place.at("library")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("strace should be installed");
    !status.success()
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_or_the_new_library() {
    let place = Place::new();
    let add = |n: u32| {
        wav(&place.at("source.wav"), 1.2, 22_050, 1, 16, n);
        flac(&place.at("source.wav"), &place.music(&format!("{n}.flac")), &["--tag=ALBUM=A"]);
    };
    add(1);
    place.publish();
    let library = place.library();
    let (mut kills, mut n, mut seen) = (0, 1, 0);
    // Each round adds a track and dies at another moment; the next one picks up what is there.
    let moments = [("rename", 1..13), ("unlink", 1..4), ("syncfs", 1..3), ("fsync", 1..4)];
    for (call, when) in moments.into_iter().flat_map(|(call, range)| range.map(move |when| (call, when))) {
        n += 1;
        add(n);
        let revision = library.root().revision;
        let killed = killed_at(&place, call, when);
        let report = is_whole(&library.0);
        assert!([revision, revision + 1].contains(&library.root().revision), "{call} {when}");
        assert!(killed || library.root().revision == revision + 1, "{call} {when}");
        kills += u32::from(killed);
        seen += usize::from(report.spare > 0);
    }
    assert!(kills >= 12 && seen >= 5, "{kills} kills, {seen} times something was left over");
    let summary = place.publish();
    assert_eq!(summary.tracks, u64::from(n));
    let report = is_whole(&library.0);
    assert_eq!((report.tracks, report.spare), (u64::from(n), 0));
    assert!(!library.0.join(".tmp").exists());
}

#[test]
fn two_at_once_do_not_clash() {
    let place = Place::new();
    wav(&place.at("source.wav"), 1.5, 44_100, 2, 16, 1);
    flac(&place.at("source.wav"), &place.music("a.flac"), &[]);
    let lock = fs::File::create(place.at("library.publish.lock")).unwrap();
    lock.lock().unwrap();
    let busy = publish(&place.options()).unwrap_err().to_string();
    assert!(busy.contains("another publish") && busy.contains("wait"), "{busy}");
    drop(lock);
    assert_eq!(place.publish().tracks, 1);
}
