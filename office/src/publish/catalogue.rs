//! Catalogue: analysed files become records, rows, pages; equal input gives equal bytes.
//!
//! *Page*: rows in order, cut where the rows themselves say (after a row whose id's digest modulo 200 is 0), so that a new
//! track changes the page it falls into and no other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};

use jukebox_core::library::{
    AlbumGain, CataloguePage, Digest, FORMAT, PageList, PageRef, Record, Row, TrackId, encode,
};

use super::measure::Blocks;
use super::track::Analysed;
use super::write::Store;

/// A page has so many rows, and ends after one in [`ONE_IN`] between.
const MIN_ROWS: usize = 50;
const MAX_ROWS: usize = 800;
const ONE_IN: u64 = 200;
/// More pages than this are named by lists of pages.
const MAX_PAGES: usize = 2_000;
/// For pages zstd works as hard as it can: they are few, small, and cross bad links.
const ZSTD_LEVEL: i32 = 19;

/// What was made.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// For the root.
    pub pages: Vec<PageRef>,
    /// For the root.
    pub depth: u32,
    /// Tracks.
    pub tracks: u64,
    /// Length of all of them.
    pub total_ms: u64,
    /// Files whose sound is that of another file, and that file.
    pub duplicates: Vec<(PathBuf, PathBuf)>,
    /// The record of each track.
    pub records: HashMap<TrackId, Digest>,
}

/// How popular tracks are: by path within the music folder, or by id.
pub type Popularity = HashMap<String, u32>;

/// Reads `path or id,number` lines. Returns lines that are not so, by number; a first line of words is a heading.
pub fn popularity(csv: &str) -> (Popularity, Vec<usize>) {
    let (mut known, mut bad) = (Popularity::new(), Vec::new());
    for (i, line) in csv.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let parsed = line.rsplit_once(',').and_then(|(key, n)| Some((key.trim(), n.trim().parse().ok()?)));
        match parsed {
            Some((key, n)) => {
                let inner = key.strip_prefix('"').and_then(|k| k.strip_suffix('"'));
                known.insert(inner.map_or(key.to_owned(), |k| k.replace("\"\"", "\"")), n);
            }
            None if i == 0 => {}
            None => bad.push(i + 1),
        }
    }
    (known, bad)
}

/// Stores records and pages of `files`, which are sorted by path.
pub fn build(files: &[(&Path, &Analysed)], popularity: &Popularity, store: &Store) -> io::Result<Catalogue> {
    let mut catalogue = Catalogue::default();
    let mut first: HashMap<TrackId, &Path> = HashMap::new();
    let mut kept = Vec::with_capacity(files.len());
    for &(path, track) in files {
        match first.entry(track.id) {
            Entry::Occupied(other) => catalogue.duplicates.push((path.to_owned(), (*other.get()).to_owned())),
            Entry::Vacant(free) => {
                free.insert(path);
                kept.push((path, track));
            }
        }
    }
    let albums = albums(&kept);
    let mut rows = Vec::with_capacity(kept.len());
    for (path, track) in kept {
        let gain = album_of(path, track).and_then(|a| albums.get(&a)).cloned();
        let record = record(path, track, gain);
        let popular = popularity.get(&record.id.to_string()).or_else(|| popularity.get(&*path.to_string_lossy()));
        let row = Row {
            id: record.id,
            title: record.title.clone(),
            artist: record.artist.clone(),
            album: record.album.clone(),
            year: record.year,
            duration_ms: record.duration_ms,
            popularity: popular.copied().unwrap_or(0),
            record: store.put(&encode(&record))?,
        };
        catalogue.records.insert(row.id, row.record);
        catalogue.tracks += 1;
        catalogue.total_ms += row.duration_ms;
        rows.push((record.disc, record.number, row));
    }
    rows.sort_by(|(d, n, a), (e, m, b)| (&a.artist, &a.album, d, n, &a.id).cmp(&(&b.artist, &b.album, e, m, &b.id)));
    let rows: Vec<Row> = rows.into_iter().map(|(_, _, row)| row).collect();
    (catalogue.pages, catalogue.depth) = pages(rows, store)?;
    Ok(catalogue)
}

/// Stores the pages of `rows`, which are in order: what the root names, and its depth.
pub fn pages(rows: Vec<Row>, store: &Store) -> io::Result<(Vec<PageRef>, u32)> {
    let mut pages = Vec::new();
    for page in cut(rows) {
        let count = page.len() as u32;
        let bytes = zstd::bulk::compress(&encode(&CataloguePage { rows: page }), ZSTD_LEVEL)?;
        pages.push(PageRef { object: store.put(&bytes)?, size: bytes.len() as u32, rows: count });
    }
    Ok(if pages.len() > MAX_PAGES { (lists(pages, store)?, 1) } else { (pages, 0) })
}

/// Rows into pages.
fn cut(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut pages = Vec::new();
    let mut page = Vec::new();
    for row in rows {
        let ends = ends_page(&row.id);
        page.push(row);
        if page.len() >= MAX_ROWS || (ends && page.len() >= MIN_ROWS) {
            pages.push(std::mem::take(&mut page));
        }
    }
    if !page.is_empty() {
        pages.push(page);
    }
    pages
}

/// Whether a page may end after the row: the first 64 bits, big-endian, of the digest of its id.
fn ends_page(id: &TrackId) -> bool {
    Digest::of(&id.0).0.first_chunk().is_some_and(|b| u64::from_be_bytes(*b).is_multiple_of(ONE_IN))
}

/// Pages into lists of pages: a list ends after a page whose name begins with a zero byte, so it too changes locally.
fn lists(pages: Vec<PageRef>, store: &Store) -> io::Result<Vec<PageRef>> {
    let mut out = Vec::new();
    for list in pages.chunk_by(|a, _| a.object.0[0] != 0) {
        let bytes = encode(&PageList { pages: list.to_vec() });
        let rows = list.iter().map(|p| p.rows).sum();
        out.push(PageRef { object: store.put(&bytes)?, size: bytes.len() as u32, rows });
    }
    Ok(out)
}

fn record(path: &Path, track: &Analysed, album_gain: Option<AlbumGain>) -> Record {
    let title = if track.title.is_empty() {
        path.file_stem().unwrap_or_default().to_string_lossy().chars().take(200).collect()
    } else {
        track.title.clone()
    };
    Record {
        format: FORMAT,
        id: track.id,
        title,
        artist: track.artist.clone(),
        album: track.album.clone(),
        album_artist: track.album_artist.clone(),
        year: track.year,
        disc: track.disc,
        number: track.number,
        duration_ms: track.duration_ms(),
        loudness: track.loudness,
        album_gain,
        cover: track.cover,
        renditions: track.renditions.clone(),
    }
}

/// Which album a file belongs to: 64 bits of the digest of album artist, album and folder, each ended by a zero byte.
fn album_of(path: &Path, track: &Analysed) -> Option<u64> {
    if track.album.is_empty() {
        return None;
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut key = Vec::new();
    for part in [track.album_artist.as_bytes(), track.album.as_bytes(), folder.as_os_str().as_encoded_bytes()] {
        key.extend_from_slice(part);
        key.push(0);
    }
    Digest::of(&key).0.first_chunk().map(|b| u64::from_be_bytes(*b))
}

/// Loudness and peak of albums of more than one track.
fn albums(files: &[(&Path, &Analysed)]) -> HashMap<u64, AlbumGain> {
    let mut members: HashMap<u64, Vec<&Analysed>> = HashMap::new();
    for (path, track) in files {
        if let Some(album) = album_of(path, track) {
            members.entry(album).or_default().push(track);
        }
    }
    let gain = |(album, tracks): (u64, Vec<&Analysed>)| {
        let loudness = Blocks::loudness(tracks.iter().map(|t| &t.blocks));
        let true_peak = tracks.iter().map(|t| t.true_peak()).fold(f32::MIN, f32::max);
        (album, AlbumGain { album, loudness, true_peak })
    };
    members.into_iter().filter(|(_, tracks)| tracks.len() > 1).map(gain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u64) -> Row {
        let id = TrackId(Digest::of(&n.to_be_bytes()).0[..10].try_into().unwrap());
        Row {
            id,
            title: n.to_string(),
            artist: format!("{:04}", n % 997),
            album: String::new(),
            year: 0,
            duration_ms: 1,
            popularity: 0,
            record: Digest::default(),
        }
    }

    #[test]
    fn pages_are_cut_by_their_rows() {
        let mut rows: Vec<Row> = (0..20_000).map(row).collect();
        rows.sort_by(|a, b| (&a.artist, &a.id).cmp(&(&b.artist, &b.id)));
        let before = cut(rows.clone());
        let inner = &before[..before.len() - 1];
        assert!(inner.iter().all(|p| (MIN_ROWS..=MAX_ROWS).contains(&p.len())), "{:?}", before.len());
        assert!((60..140).contains(&before.len()), "{}", before.len());
        let mut changed = 0;
        for n in 0..50 {
            let mut more = rows.clone();
            more.insert(n as usize * 397, row(1_000_000 + n));
            changed += cut(more).iter().filter(|p| !before.contains(p)).count();
        }
        // One page each; now and then the new row ends a page, or shifts one that is full.
        assert!((50..75).contains(&changed), "{changed}");
    }

    #[test]
    fn popularity_is_read_from_what_people_export() {
        let (known, bad) = popularity("file,plays\nA/b.mp3,3\n\"C, d/e \"\"f\"\".flac\",12\n\nwhat\nx,-1\nabc , 7\r\n");
        assert_eq!(known.len(), 3);
        assert_eq!((known["A/b.mp3"], known["C, d/e \"f\".flac"], known["abc"]), (3, 12, 7));
        assert_eq!(bad, [5, 6]);
    }
}
