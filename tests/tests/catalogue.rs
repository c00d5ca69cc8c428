//! The catalogue from a library in a folder: refresh page by page, search, and roots that must not be believed.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jukebox::catalogue::{Catalogue, Known, RefreshError, Refreshed};
use jukebox::dial::Dialer;
use jukebox::fetch::{Fault, Fetcher};
use jukebox::store::{Limits, Store};
use jukebox_core::exchange::List;
use jukebox_core::library::{
    CataloguePage, Digest, PageList, PageRef, Playlist, PlaylistRef, PlaylistTrack, Root, Row, TrackId, encode,
};

const DEADLINE: Duration = Duration::from_secs(20);
const LIBRARY: &str = "0123456789abcdef0123456789abcdef";

/// A library in a folder, and a player's disk.
struct House {
    dir: tempfile::TempDir,
    _store: Store,
    fetcher: Fetcher,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { cap_bytes: 1 << 30, floor_bytes: 0 };
        let (store, _) = Store::open(&dir.path().join("state"), &dir.path().join("cache"), limits, drop).unwrap();
        let library = dir.path().join("library");
        fs::create_dir(&library).unwrap();
        let origins = [library.to_str().unwrap().to_owned()];
        let fetcher = Fetcher::new(&origins, Dialer::new(None), None, false, store.objects(), drop).unwrap();
        Self { dir, _store: store, fetcher }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = self.dir.path().join("library").join(digest.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        digest
    }

    fn page(&self, rows: &[Row]) -> PageRef {
        let packed = zstd(&encode(&CataloguePage { rows: rows.to_vec() }));
        PageRef { object: self.put(&packed), size: packed.len() as u32, rows: rows.len() as u32 }
    }

    fn root(&self, revision: u64, pages: Vec<PageRef>, depth: u32) -> Root {
        let (library, written) = (LIBRARY.to_owned(), "2026-11-20T10:15:02Z".to_owned());
        let (previous, playlists, signatures) = (None, vec![], vec![]);
        Root { format: 1, library, revision, written, previous, pages, depth, playlists, signatures }
    }

    fn publish(&self, root: &Root) {
        fs::write(self.dir.path().join("library/library.json"), root.to_bytes()).unwrap();
    }

    /// Publishes rows, cut into pages of 200.
    fn publish_rows(&self, revision: u64, rows: &[Row]) -> Vec<PageRef> {
        let pages: Vec<_> = rows.chunks(200).map(|rows| self.page(rows)).collect();
        self.publish(&self.root(revision, pages.clone(), 0));
        pages
    }

    async fn refresh(&self, catalogue: &Catalogue) -> Result<Refreshed, RefreshError> {
        catalogue.refresh(&self.fetcher, DEADLINE, |_| ()).await
    }

    fn open(&self) -> Catalogue {
        Catalogue::open(&self.cache(), None).unwrap()
    }
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 19).unwrap()
}

fn row(n: u32, title: &str, artist: &str, popularity: u32) -> Row {
    let digest = Digest::of(&n.to_be_bytes());
    Row {
        // Of its own: two equal strings would be one on the wire.
        id: TrackId(Digest::of(&digest.0).0[..10].try_into().unwrap()),
        title: title.into(),
        artist: artist.into(),
        album: format!("{artist}'s best"),
        year: 1974,
        duration_ms: 166_000,
        popularity,
        record: digest,
    }
}

async fn titles(catalogue: &Catalogue, text: &str) -> Vec<String> {
    let hits = catalogue.search(text, 100, 0).await.unwrap();
    assert_eq!(hits.rows.len(), hits.total as usize);
    hits.rows.into_iter().map(|r| r.title).collect()
}

#[tokio::test]
async fn search_folds_case_and_accents_and_puts_the_popular_first() {
    let house = House::new();
    let rows = [
        row(1, "Waterloo", "ABBA", 0),
        row(2, "Waterloo Sunset", "The Kinks", 9),
        row(3, "Für Elise", "Beethoven", 0),
        row(4, "Déjà Vu", "Crosby, Stills", 0),
        row(5, "Thunderstruck", "AC/DC", 3),
        row(6, "Москва", "Кино", 0),
    ];
    house.publish_rows(1, &rows);
    let catalogue = house.open();
    assert!(matches!(house.refresh(&catalogue).await, Ok(Refreshed::Changed { tracks: 6, .. })));
    assert_eq!(titles(&catalogue, "waterloo").await, ["Waterloo Sunset", "Waterloo"]);
    assert_eq!(titles(&catalogue, "abba WATER").await, ["Waterloo"]);
    assert_eq!(titles(&catalogue, "water abba").await, Vec::<String>::new(), "only the last word is a prefix");
    assert_eq!(titles(&catalogue, "fur elise").await, ["Für Elise"]);
    assert_eq!(titles(&catalogue, "DEJA vù").await, ["Déjà Vu"]);
    assert_eq!(titles(&catalogue, "ac/dc").await, ["Thunderstruck"]);
    assert_eq!(titles(&catalogue, "моск").await, ["Москва"]);
    assert_eq!(titles(&catalogue, "").await.len(), 6);
    assert_eq!(titles(&catalogue, "the kinks's").await, ["Waterloo Sunset"], "the album has it");
    // Hostile text is text.
    for text in [
        "\"",
        "a OR b",
        "title:x",
        "NEAR(a b)",
        "*",
        "^a",
        "a AND",
        "-",
        "'; DROP TABLE track; --",
        "\0",
        "{",
        "😀",
        "é́",
    ] {
        catalogue.search(text, 10, 0).await.unwrap_or_else(|e| panic!("{text:?}: {e}"));
    }
    catalogue.search(&"x\" ".repeat(100_000), 10, 0).await.unwrap();
    assert_eq!(catalogue.by_id(rows[3].id).await.unwrap().as_ref(), Some(&rows[3]));
    assert_eq!(catalogue.by_id(TrackId([0; 10])).await.unwrap(), None);
    let second = catalogue.search("waterloo", 1, 1).await.unwrap();
    assert_eq!((second.rows[0].title.as_str(), second.total), ("Waterloo", 2));
}

#[tokio::test]
async fn one_changed_page_is_one_fetched_page() {
    let house = House::new();
    let mut rows: Vec<_> =
        (0..2000).map(|n| row(n, &format!("song {n:04}"), &format!("band {:03}", n / 10), 0)).collect();
    house.publish_rows(1, &rows);
    let catalogue = house.open();
    let Ok(Refreshed::Changed { progress, tracks, .. }) = house.refresh(&catalogue).await else { panic!() };
    assert_eq!((progress.pages, progress.pages_total, tracks), (10, 10, 2000));
    assert_eq!(progress.bytes, progress.bytes_total);
    assert!(matches!(house.refresh(&catalogue).await, Ok(Refreshed::Unchanged)));
    // A title changes, one track goes, one comes: still the place of its page.
    rows[450].title = "new title".into();
    rows.remove(460);
    rows.insert(455, row(9999, "brand new", "band 045", 0));
    house.publish_rows(2, &rows);
    let Ok(Refreshed::Changed { progress, tracks, .. }) = house.refresh(&catalogue).await else { panic!() };
    assert_eq!((progress.pages, tracks), (1, 2000));
    assert_eq!(titles(&catalogue, "brand new").await, ["brand new"]);
    assert_eq!(titles(&catalogue, "song 0450").await.len() + titles(&catalogue, "song 0460").await.len(), 0);
    let all = catalogue.search("", 3000, 0).await.unwrap().rows;
    assert_eq!(all, rows, "in the order of the pages, without popularity");
    // The same after a restart; and a page that was moved to another page is there once.
    drop(catalogue);
    let catalogue = house.open();
    assert!(matches!(house.refresh(&catalogue).await, Ok(Refreshed::Unchanged)));
    rows.rotate_left(100);
    house.publish_rows(3, &rows);
    assert!(matches!(house.refresh(&catalogue).await, Ok(Refreshed::Changed { tracks: 2000, .. })));
    assert_eq!(catalogue.search("", 3000, 0).await.unwrap().rows, rows);
    // Popularity alone changes the order.
    rows[1999].popularity = 7;
    house.publish_rows(4, &rows);
    house.refresh(&catalogue).await.unwrap();
    assert_eq!(catalogue.search("song", 1, 0).await.unwrap().rows[0], rows[1999]);
    assert_eq!(catalogue.search("song", 1, 0).await.unwrap().total, 1000, "counting stops");
    house.publish_rows(5, &[]);
    assert!(matches!(house.refresh(&catalogue).await, Ok(Refreshed::Changed { tracks: 0, .. })));
}

#[tokio::test]
async fn a_refresh_goes_on_where_it_was_interrupted() {
    let house = House::new();
    let rows: Vec<_> = (0..1000).map(|n| row(n, &format!("song {n:04}"), "band", 0)).collect();
    let pages = house.publish_rows(1, &rows);
    let missing = house.dir.path().join("library").join(pages[3].object.path());
    let bytes = fs::read(&missing).unwrap();
    fs::remove_file(&missing).unwrap();
    let catalogue = house.open();
    assert!(matches!(house.refresh(&catalogue).await, Err(RefreshError::Fetch(Fault::NotFound))));
    let here = catalogue.count().await.unwrap();
    // Two pages come at a time: the one before the missing one may still have been on its way.
    assert!((400..1000).contains(&here), "what is here can be found: {here}");
    fs::write(&missing, bytes).unwrap();
    let Ok(Refreshed::Changed { progress, tracks, .. }) = house.refresh(&catalogue).await else { panic!() };
    assert!(progress.pages as u32 * 200 <= 1000 - here && tracks == 1000, "{progress:?} after {here}");
}

#[tokio::test]
async fn pages_of_pages() {
    let house = House::new();
    let rows: Vec<_> = (0..900).map(|n| row(n, &format!("song {n:04}"), "band", 0)).collect();
    let pages: Vec<_> = rows.chunks(100).map(|rows| house.page(rows)).collect();
    let lists: Vec<_> = pages
        .chunks(4)
        .map(|pages| {
            let list = encode(&PageList { pages: pages.to_vec() });
            PageRef { object: house.put(&list), size: list.len() as u32, rows: 400 }
        })
        .collect();
    house.publish(&house.root(1, lists, 1));
    let catalogue = house.open();
    assert!(matches!(house.refresh(&catalogue).await, Ok(Refreshed::Changed { tracks: 900, .. })));
    assert_eq!(catalogue.search("", 1000, 0).await.unwrap().rows, rows);
}

#[tokio::test]
async fn roots_that_must_not_be_believed() {
    let house = House::new();
    house.publish_rows(5, &[row(1, "kept", "x", 0)]);
    let catalogue = house.open();
    house.refresh(&catalogue).await.unwrap();
    let page = house.page(&[row(2, "other", "x", 0)]);
    house.publish(&house.root(4, vec![page.clone()], 0));
    assert!(matches!(house.refresh(&catalogue).await, Err(RefreshError::LowerRevision { known: 5, found: 4 })));
    house.publish(&Root { library: "f".repeat(32), ..house.root(9, vec![page.clone()], 0) });
    assert!(matches!(house.refresh(&catalogue).await, Err(RefreshError::OtherLibrary { .. })));
    house.publish(&Root { format: 2, ..house.root(9, vec![page], 0) });
    assert!(matches!(house.refresh(&catalogue).await, Err(RefreshError::Newer { found: 2 })));
    fs::write(house.dir.path().join("library/library.json"), "<html>").unwrap();
    assert!(matches!(house.refresh(&catalogue).await, Err(RefreshError::Broken(_))));
    // Pages that lie: not zstd, not CBOR, a bomb, too many rows.
    let many: Vec<_> = (0..1025).map(|n| row(n, "x", "y", 0)).collect();
    let bad = [
        b"not zstd".to_vec(),
        zstd(b"not cbor"),
        zstd(&vec![0; 64 << 20]),
        zstd(&encode(&CataloguePage { rows: many })),
    ];
    for (n, bytes) in bad.iter().enumerate() {
        let page = PageRef { object: house.put(bytes), size: 1, rows: 1 };
        house.publish(&house.root(10 + n as u64, vec![page], 0));
        let refused = house.refresh(&catalogue).await;
        assert!(matches!(refused, Err(RefreshError::Broken(_))), "{n}: {refused:?}");
    }
    assert_eq!(titles(&catalogue, "kept").await, ["kept"], "what was here is still here");
    // A refused page does not move the revision back either, and a lost cache does not forget what the state knows.
    drop(catalogue);
    fs::remove_file(house.cache().join("catalogue.db")).unwrap();
    let known = Some(Known { library: LIBRARY.into(), revision: 20 });
    house.publish_rows(19, &[]);
    let catalogue = Catalogue::open(&house.cache(), known).unwrap();
    assert!(matches!(house.refresh(&catalogue).await, Err(RefreshError::LowerRevision { known: 20, found: 19 })));
}

#[tokio::test]
async fn a_damaged_copy_is_fetched_again() {
    let house = House::new();
    house.publish_rows(1, &[row(1, "song", "x", 0)]);
    let catalogue = house.open();
    house.refresh(&catalogue).await.unwrap();
    drop(catalogue);
    let path = house.cache().join("catalogue.db");
    let closed = |wal: PathBuf| {
        let start = Instant::now();
        while wal.exists() {
            assert!(start.elapsed() < DEADLINE, "the thread closes its database");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    closed(house.cache().join("catalogue.db-wal"));
    for spoilt in [b"not a database at all, and longer than a header".repeat(50), vec![0; 3]] {
        fs::write(&path, spoilt).unwrap();
        let catalogue = house.open();
        let refreshed = house.refresh(&catalogue).await;
        assert!(matches!(refreshed, Ok(Refreshed::Changed { tracks: 1, .. })), "{refreshed:?}");
        assert_eq!(titles(&catalogue, "song").await, ["song"]);
        drop(catalogue);
        closed(house.cache().join("catalogue.db-wal"));
    }
}

/// Words that look like those of a music library: 3,000 of them, the first ones common.
fn words(n: u64, count: u64) -> String {
    const PARTS: [&str; 16] =
        ["lo", "ve", "mo", "on", "ri", "ver", "na", "light", "bl", "ue", "da", "ncing", "he", "art", "sto", "ne"];
    let word = |k: u64| {
        let mut h = k.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h ^= h >> 29;
        (0..2 + h % 3).map(|i| PARTS[(h >> (8 + 4 * i)) as usize % 16]).collect::<String>()
    };
    let pick = |i: u64| {
        let mut h = (n * 7 + i).wrapping_mul(0xd134_2543_de82_ef95);
        h ^= h >> 31;
        // Squared, so that few words are in many titles (Zipf, roughly).
        (h % 3000) * (h / 3000 % 3000) / 3000
    };
    (0..count).map(|i| word(pick(i))).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn twenty_thousand_tracks_are_small_on_the_wire_and_quick_to_search() {
    let house = House::new();
    let mut rows: Vec<_> = (0..20_000u32)
        .map(|n| {
            let album = u64::from(n / 12);
            let mut row =
                row(n, &words(u64::from(n), 1 + u64::from(n % 4)), &words(1_000_000 + album / 3, 2), n * 7919 % 1000);
            row.album = words(2_000_000 + album, 2);
            row.year = 1950 + (album % 75) as u16;
            row.duration_ms = 120_000 + u64::from(n) * 7919 % 240_000;
            row
        })
        .collect();
    rows.sort_by(|a, b| (&a.artist, &a.album).cmp(&(&b.artist, &b.album)));
    house.publish_rows(1, &rows);
    let catalogue = house.open();
    let start = Instant::now();
    let Ok(Refreshed::Changed { progress, tracks, .. }) = house.refresh(&catalogue).await else { panic!() };
    let loaded = start.elapsed();
    assert_eq!(tracks, 20_000);
    let mut searches: Vec<String> = Vec::new();
    for (n, row) in rows.iter().step_by(40).enumerate() {
        let last = row.artist.split(' ').next_back().unwrap();
        let cut = |n: usize| last.chars().take(n).collect::<String>();
        searches.push(match n % 6 {
            0 => row.title.clone(),
            1 => format!("{} {}", row.title, cut(2)),
            2 => cut(1),
            3 => cut(2),
            4 => cut(3),
            _ => row.artist.clone(),
        });
    }
    let mut took = Vec::new();
    for text in &searches {
        let start = Instant::now();
        let hits = catalogue.search(text, 20, 0).await.unwrap();
        took.push(start.elapsed());
        assert!(hits.total > 0 && hits.rows.is_sorted_by_key(|r| u32::MAX - r.popularity), "{text}");
    }
    for (kind, like) in searches.iter().enumerate().take(6) {
        println!("  like `{like}`: worst {:?}", took.iter().skip(kind).step_by(6).max().unwrap());
    }
    took.sort();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    let on_disk = fs::metadata(house.cache().join("catalogue.db")).unwrap().len();
    println!("20,000 tracks: {} bytes on the wire, loaded in {loaded:?}, {on_disk} bytes on disk", progress.bytes);
    println!("{} searches of 20: p50 {p50:?}, p99 {p99:?}, worst {:?}", took.len(), took[took.len() - 1]);
    assert!(progress.bytes <= 2_400_000);
    // The limit is 5 ms; a machine that runs other tests beside this one is given more.
    assert!(p99 <= Duration::from_millis(25), "{p99:?}");
}

#[tokio::test]
async fn playlists_come_with_the_root_and_go_with_it() {
    let house = House::new();
    let rows: Vec<_> = (0..30).map(|n| row(n, &format!("Song {n}"), "ABBA", n)).collect();
    let pages = house.publish_rows(1, &rows);
    let catalogue = house.open();
    house.refresh(&catalogue).await.unwrap();
    assert_eq!(catalogue.playlists().await.unwrap(), []);
    let put = |tracks: &[&Row]| {
        let tracks = tracks.iter().map(|r| PlaylistTrack { id: r.id, record: r.record }).collect();
        house.put(&encode(&Playlist { tracks }))
    };
    let gone = row(99, "Gone", "ABBA", 0);
    let friday = put(&[&rows[3], &gone, &rows[1], &rows[3]]);
    let all = put(&rows.iter().collect::<Vec<_>>());
    let root = |revision, lists: &[(&str, Digest)]| {
        let playlists = lists.iter().map(|&(name, object)| {
            let (id, name) = (name.to_lowercase(), name.into());
            PlaylistRef { id, name, object, size: 0, tracks: 0 }
        });
        let playlists = playlists.collect();
        house.publish(&Root { playlists, ..house.root(revision, pages.clone(), 0) });
    };
    root(2, &[("friday", friday), ("all", all)]);
    house.refresh(&catalogue).await.unwrap();
    let names: Vec<_> = catalogue.playlists().await.unwrap().into_iter().map(|p| (p.name, p.tracks)).collect();
    assert_eq!(names, [("all".into(), 30), ("friday".into(), 4)]);
    let list = |name: &str, seed, offset, limit| catalogue.list(List::Playlist(name.into()), seed, offset, limit);
    let found = list("friday", None, 0, 200).await.unwrap().unwrap();
    let titles: Vec<_> = found.rows.iter().map(|r| r.title.as_str()).collect();
    assert_eq!((titles, found.missing, found.total), (vec!["Song 3", "Song 1", "Song 3"], 1, 4));
    assert_eq!(list("monday", None, 0, 200).await.unwrap(), None);
    // A seed is an order of the whole, so that its parts fit together.
    let whole = list("all", Some(7), 0, 200).await.unwrap().unwrap().rows;
    let mut parts = list("all", Some(7), 0, 11).await.unwrap().unwrap().rows;
    parts.extend(list("all", Some(7), 11, 200).await.unwrap().unwrap().rows);
    assert_eq!(whole, parts);
    assert!(whole != rows && whole != list("all", Some(8), 0, 200).await.unwrap().unwrap().rows);
    let popular = catalogue.list(List::Popular, None, 0, 3).await.unwrap().unwrap();
    assert_eq!((popular.rows.iter().map(|r| r.popularity).collect::<Vec<_>>(), popular.total), (vec![29, 28, 27], 30));
    // One changes, one goes; it is so after a restart too.
    root(3, &[("friday", all)]);
    house.refresh(&catalogue).await.unwrap();
    drop(catalogue);
    let lists = house.open().playlists().await.unwrap();
    assert_eq!(lists.into_iter().map(|p| (p.name, p.tracks)).collect::<Vec<_>>(), [("friday".into(), 30)]);
}
