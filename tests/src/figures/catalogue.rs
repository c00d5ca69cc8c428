//! Catalogues of twenty thousand and of two million tracks: on the wire, and searched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jukebox::catalogue::{Catalogue, Refreshed};
use jukebox::dial::Dialer;
use jukebox::fetch::Fetcher;
use jukebox::store::{Limits, Store};
use jukebox_core::library::{Digest, Root, Row, TrackId};
use jukebox_office::publish::catalogue::pages;
use jukebox_office::publish::write::Store as Published;

use super::{Bench, Figure, quantile, spread};
use crate::rig::write;

const TRACKS: u64 = 20_000;
const MANY: u64 = 2_000_000;
/// Searches that are timed.
const SEARCHES: usize = 1_000;

/// A published catalogue, and a player's copy of it.
struct Shelf {
    rows: Vec<Row>,
    library: Published,
    revision: u64,
    fetcher: Fetcher,
    /// Answers with a body that came from the library, and their bytes.
    came: Arc<[AtomicU64; 2]>,
    catalogue: Catalogue,
    runtime: tokio::runtime::Runtime,
    _player: Store,
    _folder: tempfile::TempDir,
}

impl Shelf {
    fn new(tracks: u64) -> Self {
        let folder = super::house::folder();
        let library = Published::open(&folder.path().join("library")).unwrap_or_else(|e| panic!("{e}"));
        let cache = folder.path().join("cache");
        let limits = Limits { cap_bytes: 8 << 30, floor_bytes: 0 };
        let (store, _) =
            Store::open(&folder.path().join("state"), &cache, limits, drop).unwrap_or_else(|e| panic!("{e}"));
        let origin = [library.dir().display().to_string()];
        let came = Arc::<[AtomicU64; 2]>::default();
        let count = came.clone();
        let sample = move |s: jukebox::fetch::Sample| {
            count[0].fetch_add(1, Ordering::Relaxed);
            count[1].fetch_add(s.bytes, Ordering::Relaxed);
        };
        let fetcher = Fetcher::new(&origin, Dialer::new(None), None, false, store.objects(), sample);
        let fetcher = fetcher.unwrap_or_else(|e| panic!("{e}"));
        let catalogue = Catalogue::open(&cache, None).unwrap_or_else(|e| panic!("{e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|e| panic!("no runtime: {e}"));
        let rows = rows(tracks);
        Self { rows, library, revision: 0, fetcher, came, catalogue, runtime, _player: store, _folder: folder }
    }

    /// Publishes the rows and brings the player's copy up to them: answers and bytes that it took, and how long.
    fn refresh(&mut self) -> (u64, u64, Duration) {
        self.revision += 1;
        publish(&self.library, self.revision, &self.rows);
        let before = [0, 1].map(|n| self.came[n].load(Ordering::Relaxed));
        let begun = Instant::now();
        let refreshed = self.runtime.block_on(self.catalogue.refresh(&self.fetcher, Duration::from_secs(60), |_| ()));
        let Ok(Refreshed::Changed { tracks, .. }) = refreshed else { panic!("the refresh: {refreshed:?}") };
        assert_eq!(tracks as usize, self.rows.len());
        let came = [0, 1].map(|n| self.came[n].load(Ordering::Relaxed) - before[n]);
        (came[0], came[1], begun.elapsed())
    }

    /// Milliseconds of each search.
    fn search(&self) -> Vec<f64> {
        let one = |text: String| {
            let start = Instant::now();
            let hits =
                self.runtime.block_on(self.catalogue.search(&text, 20, 0)).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(hits.total > 0, "{text}");
            start.elapsed().as_secs_f64() * 1_000.0
        };
        questions(&self.rows).into_iter().map(one).collect()
    }
}

/// Fetches a generated catalogue from a folder, as publish wrote it, and searches it.
pub(super) fn catalogue(bench: &Bench) -> Vec<Figure> {
    let mut shelf = Shelf::new(TRACKS);
    let (objects, bytes, loaded) = shelf.refresh();
    let took = shelf.search();
    let wire = format!("root and {} pages, loaded in {:.1} s, {}", objects - 1, loaded.as_secs_f64(), bench.load());
    vec![
        Figure::new("catalogue.wire", bytes as f64 / 1e6, 2.4, "MB", wire),
        Figure::new("catalogue.search", quantile(&took, 0.99), 5.0, "ms", searches(bench, &took)),
    ]
}

/// The same with the music of a whole country: searched, and one track changed.
pub(super) fn large(bench: &Bench) -> Vec<Figure> {
    let mut shelf = Shelf::new(if bench.quick { MANY / 10 } else { MANY });
    let (objects, bytes, loaded) = shelf.refresh();
    let took = shelf.search();
    let middle = shelf.rows.len() / 2;
    shelf.rows[middle].title.push_str(" (remastered)");
    // The root is there in any case, once a minute.
    let (changed, changed_bytes, _) = shelf.refresh();
    let all = format!(
        "{} tracks in {objects} objects, {:.0} MB, loaded in {:.0} s",
        shelf.rows.len(),
        bytes as f64 / 1e6,
        loaded.as_secs_f64()
    );
    vec![
        Figure::new("large.search", quantile(&took, 0.99), 10.0, "ms", format!("{all}; {}", searches(bench, &took))),
        Figure::new(
            "large.change",
            changed as f64 - 1.0,
            3.0,
            "",
            format!("pages beside the root for one changed title, {:.1} kB with it", changed_bytes as f64 / 1e3),
        ),
    ]
}

fn searches(bench: &Bench, took: &[f64]) -> String {
    let what = "20 hits and the total, words and prefixes from one letter on";
    format!("p99; {}; {what}, {}", spread(took, "ms"), bench.load())
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
    rows.iter().step_by((rows.len() / SEARCHES).max(1)).enumerate().map(question).collect()
}

/// Writes the library's catalogue as publish does; returns the size of the root.
fn publish(store: &Published, revision: u64, rows: &[Row]) -> u64 {
    let (pages, depth) = pages(rows.to_vec(), store).unwrap_or_else(|e| panic!("the pages: {e}"));
    let root = Root {
        format: jukebox_core::library::FORMAT,
        library: "0123456789abcdef".repeat(2),
        revision,
        written: "2026-11-20T10:15:02Z".into(),
        previous: None,
        pages,
        depth,
        playlists: Vec::new(),
        signatures: Vec::new(),
    };
    let bytes = root.to_bytes();
    write(&store.dir().join(jukebox_core::library::ROOT), &bytes);
    bytes.len() as u64
}

/// Tracks in the order of a catalogue: twelve an album, three albums an artist.
fn rows(tracks: u64) -> Vec<Row> {
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
    let mut rows: Vec<Row> = (0..tracks).map(row).collect();
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
