//! The small state: a table of keys and values in one SQLite database that keeps every acknowledged change.
//!
//! WAL with `synchronous=FULL` syncs once for each transaction. The page is 1 KiB, because a transaction writes whole pages
//! and most change a few hundred bytes. `locking_mode=EXCLUSIVE` keeps a second player out and needs no shared memory file.
//! Two copies are kept: the database, and an older one for the day when the database is not understood.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use rusqlite::{Connection, ErrorCode, params};

use super::{Changes, Recovered, StoreError, Trouble, directory, reject, sync_dir};

const NAME: &str = "state.db";
const OLDER: &str = "state.older.db";
/// Form of the database; a later one is moved aside like a corrupt one.
const FORMAT: i64 = 1;

pub(super) struct State {
    db: Connection,
    dir: PathBuf,
}

impl State {
    /// Opens the database. One that is corrupt or of a later form is moved aside, and the older copy takes its place, or a
    /// fresh one if there is none.
    pub(super) fn open(dir: &Path, found: &mut Recovered) -> Result<Self, StoreError> {
        let path = dir.join(NAME);
        let database = |source| StoreError::Database { path: path.clone(), source };
        let opened = match open(&path) {
            Err(e) if busy(&e) => return Err(StoreError::InUse { path }),
            Err(e) if rejectable(&e) => {
                aside(&path, found).map_err(|e| directory(&path, e))?;
                found.older = restore(dir, found).map_err(|e| directory(&dir.join(OLDER), e))?;
                open(&path).map_err(database)?
            }
            opened => opened.map_err(database)?,
        };
        let (db, rows) = opened;
        found.rows = rows;
        sync_dir(dir).map_err(|e| directory(dir, e))?;
        Ok(Self { db, dir: dir.into() })
    }

    /// Writes `changes` as one transaction; they are durable when it returns.
    pub(super) fn commit(&mut self, changes: &Changes) -> Result<(), Trouble> {
        let mut transaction = || -> rusqlite::Result<()> {
            let tx = self.db.transaction()?;
            {
                let mut put =
                    tx.prepare_cached("INSERT INTO state VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?;
                let mut delete = tx.prepare_cached("DELETE FROM state WHERE key = ?1")?;
                for (key, value) in changes {
                    match value {
                        Some(value) => put.execute(params![key, value])?,
                        None => delete.execute(params![key])?,
                    };
                }
            }
            tx.commit()
        };
        transaction().map_err(trouble)
    }

    /// Makes a fresh older copy.
    pub(super) fn copy(&self) -> io::Result<()> {
        let fresh = self.dir.join("state.older.new");
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let name = fresh.to_str().ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
        self.db.execute("VACUUM INTO ?1", [name]).map_err(io::Error::other)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, self.dir.join(OLDER))?;
        sync_dir(&self.dir)
    }
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn open(path: &Path) -> rusqlite::Result<(Connection, Rows)> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::ZERO)?;
    db.execute_batch(
        "PRAGMA page_size = 1024;
         PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -256;
         PRAGMA wal_autocheckpoint = 1000;",
    )?;
    let format: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    if format > FORMAT {
        return Err(not_understood(format!("form {format}; this version reads {FORMAT}")));
    }
    let check: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
    if check != "ok" {
        return Err(not_understood(check));
    }
    db.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
         PRAGMA user_version = 1;
         COMMIT;",
    )?;
    let rows = {
        let mut all = db.prepare("SELECT key, value FROM state ORDER BY key")?;
        all.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<Rows>>()?
    };
    Ok((db, rows))
}

fn not_understood(why: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(why))
}

fn busy(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the file is to blame. A full or failing card is not a reason to throw the state away.
fn rejectable(e: &rusqlite::Error) -> bool {
    match e {
        // A table of that name and another shape.
        rusqlite::Error::InvalidColumnType(..) => true,
        e => matches!(
            e.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
        ),
    }
}

fn trouble(e: rusqlite::Error) -> Trouble {
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Trouble::DiskFull,
        _ => Trouble::Card(e.to_string()),
    }
}

fn aside(path: &Path, found: &mut Recovered) -> io::Result<()> {
    found.rejected.push(reject(path)?);
    // Its log belongs to it, and must never be applied to its successor.
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let wal = PathBuf::from(wal);
    if wal.exists() {
        found.rejected.push(reject(&wal)?);
    }
    Ok(())
}

/// Puts the older copy in the database's place; false if there is none that is understood.
fn restore(dir: &Path, found: &mut Recovered) -> io::Result<bool> {
    let older = dir.join(OLDER);
    if !older.exists() {
        return Ok(false);
    }
    // A copy is tried on a copy, so that trying cannot harm it.
    let trial = dir.join("state.older.try");
    fs::copy(&older, &trial)?;
    let good = open(&trial).is_ok();
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.join(format!("state.older.try{end}")));
    }
    if !good {
        found.rejected.push(reject(&older)?);
        return Ok(false);
    }
    let fresh = dir.join("state.older.new");
    fs::copy(&older, &fresh)?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, dir.join(NAME))?;
    Ok(true)
}
