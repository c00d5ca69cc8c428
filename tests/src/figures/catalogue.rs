//! Twenty thousand tracks: on the wire, and searched.

use std::path::Path;
use std::time::{Duration, Instant};

use jukebox::catalogue::{Catalogue, Refreshed};
use jukebox::dial::Dialer;
use jukebox::fetch::Fetcher;
use jukebox::store::{Limits, Store};
use jukebox_core::library::{CataloguePage, Digest, PageRef, Root, Row, TrackId, encode};

use super::{Bench, Figure, quantile, spread};
use crate::rig::write;

const TRACKS: u64 = 20_000;
/// Rows of a page as publish cuts them, on average.
const ROWS: usize = 250;
/// As publish compresses them.
const ZSTD_LEVEL: i32 = 19;

/// Fetches a generated catalogue from a folder, as publish would have written it, and searches it.
pub(super) fn catalogue(bench: &Bench) -> Vec<Figure> {
    let folder = super::house::folder();
    let (library, cache) = (folder.path().join("library"), folder.path().join("cache"));
    let rows = rows();
    let root = publish(&library, &rows);
    let limits = Limits { cap_bytes: 1 << 30, floor_bytes: 0 };
    let (store, _) = Store::open(&folder.path().join("state"), &cache, limits, drop).unwrap_or_else(|e| panic!("{e}"));
    let origin = [library.display().to_string()];
    let fetcher =
        Fetcher::new(&origin, Dialer::new(None), None, false, store.objects(), drop).unwrap_or_else(|e| panic!("{e}"));
    let catalogue = Catalogue::open(&cache, None).unwrap_or_else(|e| panic!("{e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| panic!("no runtime: {e}"));
    let begun = Instant::now();
    let refreshed = runtime.block_on(catalogue.refresh(&fetcher, Duration::from_secs(60), |_| ()));
    let Ok(Refreshed::Changed { progress, tracks, .. }) = refreshed else { panic!("the refresh: {refreshed:?}") };
    assert_eq!(u64::from(tracks), TRACKS);
    let loaded = begun.elapsed();

    let mut took = Vec::new();
    for text in questions(&rows) {
        let start = Instant::now();
        let hits = runtime.block_on(catalogue.search(&text, 20, 0)).unwrap_or_else(|e| panic!("{text}: {e}"));
        took.push(start.elapsed().as_secs_f64() * 1_000.0);
        assert!(hits.total > 0, "{text}");
    }
    let wire = (progress.bytes + root) as f64 / 1e6;
    let pages = format!(
        "root and {} pages of {ROWS} rows, loaded in {:.1} s, {}",
        progress.pages,
        loaded.as_secs_f64(),
        bench.load()
    );
    let searches = format!(
        "p99; {}; 20 hits and the total, words and prefixes from one letter on, {}",
        spread(&took, "ms"),
        bench.load()
    );
    vec![
        Figure::new("catalogue.wire", wire, 2.4, "MB", pages),
        Figure::new("catalogue.search", quantile(&took, 0.99), 5.0, "ms", searches),
    ]
}

/// What people type: titles, titles with the artist begun, artists, and beginnings of one to three letters.
fn questions(rows: &[Row]) -> Vec<String> {
    let question = |(n, row): (usize, &Row)| {
        let last = row.artist.split(' ').next_back().unwrap_or_default();
        let begin = |n: usize| last.chars().take(n).collect::<String>();
        match n % 6 {
            0 => row.title.clone(),
            1 => format!("{} {}", row.title, begin(2)),
            n @ 2..=4 => begin(n - 1),
            _ => row.artist.clone(),
        }
    };
    rows.iter().step_by(20).enumerate().map(question).collect()
}

/// Writes the library's catalogue; returns the size of the root.
fn publish(library: &Path, rows: &[Row]) -> u64 {
    let pages = rows.chunks(ROWS).map(|rows| {
        let page = encode(&CataloguePage { rows: rows.to_vec() });
        let packed = zstd::bulk::compress(&page, ZSTD_LEVEL).unwrap_or_else(|e| panic!("zstd: {e}"));
        let object = Digest::of(&packed);
        let path = library.join(object.path());
        let made = path.parent().map(std::fs::create_dir_all);
        assert!(made.is_some_and(|m| m.is_ok()), "{}", path.display());
        write(&path, &packed);
        PageRef { object, size: packed.len() as u32, rows: rows.len() as u32 }
    });
    let root = Root {
        format: jukebox_core::library::FORMAT,
        library: "0123456789abcdef".repeat(2),
        revision: 1,
        written: "2026-11-20T10:15:02Z".into(),
        previous: None,
        pages: pages.collect(),
        depth: 0,
        playlists: Vec::new(),
        signatures: Vec::new(),
    };
    let bytes = root.to_bytes();
    write(&library.join(jukebox_core::library::ROOT), &bytes);
    bytes.len() as u64
}

/// Tracks in the order of a catalogue: twelve an album, three albums an artist.
fn rows() -> Vec<Row> {
    let row = |n: u64| {
        let (album, digest) = (n / 12, Digest::of(&n.to_be_bytes()));
        let mut id = [0; 10];
        id.copy_from_slice(&digest.0[..10]);
        Row {
            id: TrackId(id),
            title: words(n, 1 + n % 4),
            artist: words(1_000_000 + album / 3, 2),
            album: words(2_000_000 + album, 2),
            year: 1950 + (album % 75) as u16,
            duration_ms: 120_000 + n * 7919 % 240_000,
            popularity: (n * 7919 % 1000) as u32,
            record: Digest::of(&digest.0),
        }
    };
    let mut rows: Vec<Row> = (0..TRACKS).map(row).collect();
    rows.sort_by(|a, b| (&a.artist, &a.album, &a.id).cmp(&(&b.artist, &b.album, &b.id)));
    rows
}

/// Words like those of a music library: 3,000 of them, the first ones in many titles (Zipf, roughly).
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
        (h % 3000) * (h / 3000 % 3000) / 3000
    };
    (0..count).map(|i| word(pick(i))).collect::<Vec<_>>().join(" ")
}
