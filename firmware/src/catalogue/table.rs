//! The catalogue's tables: rows by rank, words in FTS5, pages by place, playlists by name.
//!
//! *Place*: where a page stands among the pages, with gaps, so that a page that replaces another takes a place between the
//! same neighbours and no other row moves. *Rank*: popularity (greater first), then place, then the row's index in its page:
//! one number, and the row's id in both tables. FTS5 gives matches in the order of their ids, so the best come first
//! and a search stops after its limit (`bm25` would have to see them all).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::{fs, io};

use jukebox_core::library::{Digest, PageRef, Row, TrackId};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{Hits, playlists};

/// Form of the tables; another one is rebuilt.
const FORMAT: i64 = 2;
/// Rows of a page fit here (publish writes at most 800).
const INDEX_BITS: u32 = 10;
/// Places: thousands of times more than pages, for the gaps.
const PLACE_BITS: u32 = 21;
/// Most rows of a page.
pub(super) const MAX_ROWS: usize = 1 << INDEX_BITS;
/// Counting stops here: nobody reads a thousand hits, and counting all of them costs time.
pub(super) const MAX_TOTAL: u32 = 1000;
/// Pages of the index that a step of merging writes: milliseconds, in which a search has to wait.
const MERGE: i64 = 256;
/// Words of a search; further ones are ignored.
const MAX_WORDS: usize = 16;
/// Characters of a search; further ones are ignored.
const MAX_TEXT: usize = 512;

/// A prefix index also for one letter: without it a search for one letter took ten times as long at 20,000 tracks. Phrases
/// (`AC/DC`) need the positions that `detail = column` would leave out.
const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE page (place INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE);
    CREATE TABLE track (rank INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, place INTEGER NOT NULL, title TEXT NOT NULL,
        artist TEXT NOT NULL, album TEXT NOT NULL, year INTEGER NOT NULL, duration_ms INTEGER NOT NULL, record BLOB NOT NULL);
    CREATE INDEX track_place ON track (place);
    CREATE VIRTUAL TABLE word USING fts5(title, artist, album, content = '', contentless_delete = 1,
        tokenize = 'unicode61 remove_diacritics 2', prefix = '1 2 3');
    PRAGMA user_version = 2;";

pub(super) struct Table {
    pub(super) db: Connection,
    path: PathBuf,
}

/// What the tables hold: which root, and whether all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) library: String,
    pub(super) revision: u64,
    /// Digest of the root's bytes; none until all its pages are here.
    pub(super) root: Option<Digest>,
    pub(super) etag: Option<String>,
}

/// Pages to fetch, with the places that wait for them.
pub(super) type Missing = Vec<(u32, PageRef)>;

impl Table {
    /// Opens the tables, or makes them anew if they are damaged or of another form: they are only a copy.
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let db = match open(path) {
            Err(e) if damaged(&e) => {
                tracing::warn!("{}: {e}; it is fetched again", path.display());
                remove(path)?;
                open(path)?
            }
            db => db?,
        };
        Ok(Self { db, path: path.into() })
    }

    /// Throws everything away.
    pub(super) fn rebuild(&mut self) -> rusqlite::Result<()> {
        // The old files must be closed before they are removed.
        self.db = Connection::open_in_memory()?;
        remove(&self.path)?;
        self.db = open(&self.path)?;
        Ok(())
    }

    pub(super) fn held(&self) -> rusqlite::Result<Option<Held>> {
        let Some(library) = self.meta("library")? else { return Ok(None) };
        Ok(Some(Held {
            library,
            revision: self.meta::<i64>("revision")?.map_or(0, |r| r as u64),
            root: self.meta("root")?.map(Digest),
            etag: self.meta("etag")?,
        }))
    }

    /// Notes what is held from now on.
    pub(super) fn hold(&mut self, held: &Held) -> rusqlite::Result<()> {
        let tx = self.db.transaction()?;
        {
            let mut put = tx.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
            put.execute(params!["library", held.library])?;
            put.execute(params!["revision", held.revision as i64])?;
            put.execute(params!["root", held.root.map(|d| d.0)])?;
            put.execute(params!["etag", held.etag])?;
        }
        tx.commit()
    }

    fn meta<T: rusqlite::types::FromSql>(&self, key: &str) -> rusqlite::Result<Option<T>> {
        let mut one = self.db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        one.query_row([key], |r| r.get::<_, Option<T>>(0)).optional().map(Option::flatten)
    }

    /// Which of `pages` are not here, and where they belong. Pages that cannot be put between their neighbours (no gap is
    /// left, or the order was turned round) mean a new start: then all are missing.
    pub(super) fn plan(&mut self, pages: &[PageRef]) -> rusqlite::Result<Missing> {
        let held: HashMap<Digest, u32> = {
            let mut all = self.db.prepare("SELECT digest, place FROM page")?;
            all.query_map([], |r| Ok((Digest(r.get(0)?), r.get(1)?)))?.collect::<rusqlite::Result<_>>()?
        };
        if let Some(missing) = places(pages, &held) {
            return Ok(missing);
        }
        self.clear()?;
        Ok(places(pages, &HashMap::new()).unwrap_or_default())
    }

    fn clear(&mut self) -> rusqlite::Result<()> {
        self.db.execute_batch("BEGIN; DELETE FROM page; DELETE FROM track; DELETE FROM word; COMMIT;")
    }

    /// Takes pages in, all that can be read. A track that is here already moves to its new page.
    pub(super) fn put<'a, E>(
        &mut self,
        pages: impl Iterator<Item = (u32, &'a Digest, Result<Vec<Row>, E>)>,
    ) -> rusqlite::Result<Result<(), E>> {
        let mut all = Ok(());
        let tx = self.db.transaction()?;
        {
            let mut known = tx.prepare_cached("DELETE FROM track WHERE id = ?1 RETURNING rank")?;
            let mut forget = tx.prepare_cached("DELETE FROM word WHERE rowid = ?1")?;
            let mut track = tx.prepare_cached("INSERT INTO track VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
            let mut word =
                tx.prepare_cached("INSERT INTO word (rowid, title, artist, album) VALUES (?1, ?2, ?3, ?4)")?;
            let mut page = tx.prepare_cached("INSERT INTO page VALUES (?1, ?2)")?;
            for (place, digest, rows) in pages {
                let rows = match rows {
                    Ok(rows) => rows,
                    Err(e) => {
                        all = Err(e);
                        continue;
                    }
                };
                page.execute(params![place, digest.0])?;
                for (index, r) in rows.iter().take(MAX_ROWS).enumerate() {
                    if let Some(rank) = known.query_row([&r.id.0], |r| r.get::<_, i64>(0)).optional()? {
                        forget.execute([rank])?;
                    }
                    let rank = rank(r.popularity, place, index);
                    let length = i64::try_from(r.duration_ms).unwrap_or(i64::MAX);
                    track.execute(params![
                        rank, r.id.0, place, r.title, r.artist, r.album, r.year, length, r.record.0
                    ])?;
                    word.execute(params![rank, r.title, r.artist, r.album])?;
                }
            }
        }
        tx.commit()?;
        Ok(all)
    }

    /// Removes all pages that are not in `pages`.
    pub(super) fn keep(&mut self, pages: &[PageRef]) -> rusqlite::Result<()> {
        let keep: BTreeSet<Digest> = pages.iter().map(|p| p.object).collect();
        let tx = self.db.transaction()?;
        let held: Vec<(u32, Digest)> = {
            let mut all = tx.prepare("SELECT place, digest FROM page")?;
            all.query_map([], |r| Ok((r.get(0)?, Digest(r.get(1)?))))?.collect::<rusqlite::Result<_>>()?
        };
        for (place, _) in held.iter().filter(|(_, digest)| !keep.contains(digest)) {
            tx.execute("DELETE FROM word WHERE rowid IN (SELECT rank FROM track WHERE place = ?1)", [place])?;
            tx.execute("DELETE FROM track WHERE place = ?1", [place])?;
            tx.execute("DELETE FROM page WHERE place = ?1", [place])?;
        }
        tx.commit()
    }

    /// Brings the index of words, which many pages have left in many pieces, a step nearer to one piece: a search looks into
    /// each. `begin`: the first step. Whether there is more to do (<https://sqlite.org/fts5.html>, section 6.8).
    pub(super) fn merge(&mut self, begin: bool) -> rusqlite::Result<bool> {
        let before = self.db.total_changes();
        let mut merge = self.db.prepare_cached("INSERT INTO word (word, rank) VALUES ('merge', ?1)")?;
        merge.execute([if begin { -MERGE } else { MERGE }])?;
        Ok(self.db.total_changes() - before >= 2)
    }

    pub(super) fn count(&self) -> rusqlite::Result<u32> {
        self.db.prepare_cached("SELECT count(*) FROM track")?.query_row([], |r| r.get(0))
    }

    pub(super) fn by_id(&self, id: &TrackId) -> rusqlite::Result<Option<Row>> {
        let sql = select("FROM track WHERE id = ?1");
        self.db.prepare_cached(&sql)?.query_row([&id.0], row).optional()
    }

    pub(super) fn search(&self, text: &str, limit: u32, offset: u32) -> rusqlite::Result<Hits> {
        let Some(query) = query(text) else {
            let sql = select("FROM track ORDER BY rank LIMIT ?1 OFFSET ?2");
            let mut all = self.db.prepare_cached(&sql)?;
            let rows = all.query_map([limit, offset], row)?.collect::<rusqlite::Result<_>>()?;
            return Ok(Hits { rows, total: self.count()? });
        };
        let sql = select(
            "FROM (SELECT rowid AS hit FROM word WHERE word MATCH ?1 ORDER BY rowid LIMIT ?2 OFFSET ?3)
             JOIN track ON rank = hit ORDER BY hit",
        );
        let mut found = self.db.prepare_cached(&sql)?;
        let rows = found.query_map(params![query, limit, offset], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
        let total = if offset == 0 && rows.len() < limit as usize {
            rows.len() as u32
        } else {
            let sql = "SELECT count(*) FROM (SELECT 1 FROM word WHERE word MATCH ?1 LIMIT ?2)";
            self.db.prepare_cached(sql)?.query_row(params![query, MAX_TOTAL], |r| r.get(0))?
        };
        Ok(Hits { rows, total })
    }
}

pub(super) fn select(rest: &str) -> String {
    format!("SELECT rank, id, title, artist, album, year, duration_ms, record {rest}")
}

pub(super) fn row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        popularity: popularity(r.get(0)?),
        id: TrackId(r.get(1)?),
        title: r.get(2)?,
        artist: r.get(3)?,
        album: r.get(4)?,
        year: r.get(5)?,
        duration_ms: r.get::<_, i64>(6)?.unsigned_abs(),
        record: Digest(r.get(7)?),
    })
}

/// 32 bits of popularity turned round, 21 of place, 10 of index: 63, never negative.
fn rank(popularity: u32, place: u32, index: usize) -> i64 {
    i64::from(u32::MAX - popularity) << (PLACE_BITS + INDEX_BITS) | i64::from(place) << INDEX_BITS | index as i64
}

fn popularity(rank: i64) -> u32 {
    u32::MAX - (rank >> (PLACE_BITS + INDEX_BITS)) as u32
}

/// Places for the pages that are not held; none if there is no room between those that are.
fn places(pages: &[PageRef], held: &HashMap<Digest, u32>) -> Option<Missing> {
    let mut used: BTreeSet<u32> = held.values().copied().collect();
    // A page that is named twice counts once, at its first place.
    let mut first: BTreeMap<Digest, ()> = BTreeMap::new();
    let (mut low, mut run, mut missing) = (0, Vec::new(), Vec::new());
    let mut settle = |low: u32, high: u32, run: &mut Vec<PageRef>| -> Option<()> {
        let step = high.checked_sub(low)? / (run.len() as u32 + 1);
        let mut last = low;
        for (n, page) in run.drain(..).enumerate() {
            // Pages that will go still hold their places.
            let place = (last.max(low + step * (n as u32 + 1) - 1) + 1..high).find(|p| !used.contains(p))?;
            used.insert(place);
            missing.push((place, page));
            last = place;
        }
        Some(())
    };
    for page in pages.iter().filter(|p| first.insert(p.object, ()).is_none()) {
        match held.get(&page.object) {
            Some(place) if *place <= low => return None,
            Some(place) => {
                settle(low, *place, &mut run)?;
                low = *place;
            }
            None => run.push(page.clone()),
        }
    }
    settle(low, 1 << PLACE_BITS, &mut run)?;
    Some(missing)
}

/// The FTS5 query for what somebody typed: all words, the last one as a prefix. None if there is no word in it.
///
/// Each word is a quoted string, so nothing in it is syntax; FTS5 cuts it further (`AC/DC` becomes a phrase of two).
fn query(text: &str) -> Option<String> {
    let text: String = text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = text.split_whitespace().filter(|w| w.chars().any(char::is_alphanumeric)).take(MAX_WORDS);
    let quoted: Vec<_> = words.map(|w| format!("\"{}\"", w.replace('"', "\"\""))).collect();
    (!quoted.is_empty()).then(|| quoted.join(" ") + "*")
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -1024;",
    )?;
    match db.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0))? {
        0 => db.execute_batch(&format!("BEGIN IMMEDIATE; {} {SCHEMA} COMMIT;", playlists::SCHEMA))?,
        FORMAT => db.query_row("SELECT count(*) FROM meta, page, playlist", [], |_| Ok(()))?,
        _ => {
            return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None));
        }
    }
    Ok(db)
}

fn remove(path: &Path) -> rusqlite::Result<()> {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match fs::remove_file(name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(e)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the file is to blame. A full or failing card is not.
pub(super) fn damaged(e: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    match e {
        E::InvalidColumnType(..) | E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) => true,
        e => {
            let code = e.sqlite_error_code();
            matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(n: u32) -> PageRef {
        PageRef { object: Digest::of(&n.to_be_bytes()), size: 1, rows: 1 }
    }

    #[test]
    fn pages_find_places_between_their_neighbours() {
        let all: Vec<_> = (0..100).map(page).collect();
        let first = places(&all, &HashMap::new()).unwrap();
        assert!(first.len() == 100 && first.is_sorted_by(|a, b| a.0 < b.0) && first[99].0 < 1 << PLACE_BITS);
        let mut held: HashMap<_, _> = first.iter().map(|(place, p)| (p.object, *place)).collect();
        assert_eq!(places(&all, &held), Some(vec![]));
        // One page replaces another again and again; the one before is still there.
        let mut now = all.clone();
        for n in 1000..3000 {
            now[50] = page(n);
            let missing = places(&now, &held).unwrap();
            assert_eq!(missing.len(), 1);
            let place = missing[0].0;
            assert!(held[&now[49].object] < place && place < held[&now[51].object]);
            held.retain(|d, _| now.iter().any(|p| p.object == *d));
            held.insert(now[50].object, place);
        }
        // No room, or another order: a new start.
        let narrow = HashMap::from([(page(0).object, 5), (page(2).object, 6)]);
        assert_eq!(places(&all[..3], &narrow), None);
        now.reverse();
        assert_eq!(places(&now, &held), None);
        assert_eq!(places(&[page(1), page(1)], &HashMap::new()).unwrap().len(), 1);
    }

    #[test]
    fn rank_puts_the_popular_first() {
        let ranks = [rank(u32::MAX, 1, 0), rank(9, 1, 0), rank(9, 1, 1), rank(9, 2, 0), rank(0, (1 << 21) - 1, 1023)];
        assert!(ranks.is_sorted_by(|a, b| a < b) && ranks[0] >= 0);
        assert_eq!(ranks.map(popularity), [u32::MAX, 9, 9, 9, 0]);
    }

    #[test]
    fn nothing_that_is_typed_is_syntax() {
        assert_eq!(query("waterloo abba").as_deref(), Some("\"waterloo\" \"abba\"*"));
        assert_eq!(query(" \"OR\" * ( x").as_deref(), Some("\"\"\"OR\"\"\" \"x\"*"));
        assert_eq!(query(" -- * \0 "), None);
        assert_eq!(query(&"a ".repeat(1000)).unwrap().matches('a').count(), MAX_WORDS);
    }
}
