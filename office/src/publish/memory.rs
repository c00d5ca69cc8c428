//! Memory: what publish found out about each file, so that the next run works only on what changed.
//!
//! It lies beside the library, never inside. Losing it costs time, nothing else. Law: a result is believed only if its
//! objects are known to be on the disk, or were written since this machine started (a power cut may have torn them).

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use rusqlite::{Connection, params};

use super::scan::Stamp;
use super::track::Analysed;

/// Raised whenever other results would come out of the same file: all is worked on again.
const VERSION: i64 = 2;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Outcome {
    /// It is usable.
    #[n(0)]
    Track(#[n(0)] Box<Analysed>),
    /// It is not, and why.
    #[n(1)]
    Unusable(#[n(0)] String),
}

/// The database beside the library.
#[derive(Debug)]
pub struct Memory {
    db: Connection,
    boot: String,
}

/// Results by path.
pub type Known = HashMap<PathBuf, (Stamp, Outcome)>;

impl Memory {
    /// Opens the database; one of another version is emptied.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0))?;
        if version != VERSION {
            db.execute_batch("DROP TABLE IF EXISTS file")?;
            db.pragma_update(None, "user_version", VERSION)?;
        }
        // `boot`: which start of the machine wrote the objects; NULL once they are on the disk.
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS file(path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, \
             outcome BLOB NOT NULL, boot TEXT) WITHOUT ROWID",
        )?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        db.execute("DELETE FROM file WHERE boot IS NOT NULL AND boot IS NOT ?1", [&boot])?;
        Ok(Self { db, boot })
    }

    /// All that is known.
    pub fn load(&self) -> rusqlite::Result<Known> {
        let mut query = self.db.prepare("SELECT path, size, mtime_ns, outcome FROM file")?;
        let mut rows = query.query([])?;
        let mut known = Known::new();
        while let Some(row) = rows.next()? {
            let (path, size, mtime_ns): (Vec<u8>, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let path = PathBuf::from(std::ffi::OsString::from_vec(path));
            // What cannot be read is worked on again.
            if let Ok(outcome) = minicbor::decode(row.get_ref(3)?.as_blob()?) {
                known.insert(path, (Stamp { size: size.cast_unsigned(), mtime_ns }, outcome));
            }
        }
        Ok(known)
    }

    /// Keeps a result whose objects may not be on the disk yet.
    pub fn keep(&self, path: &Path, stamp: Stamp, outcome: &Outcome) -> rusqlite::Result<()> {
        let mut statement = self.db.prepare_cached("INSERT OR REPLACE INTO file VALUES(?1, ?2, ?3, ?4, ?5)")?;
        let outcome = jukebox_core::library::encode(outcome);
        let key = path.as_os_str().as_bytes();
        statement.execute(params![key, stamp.size.cast_signed(), stamp.mtime_ns, outcome, self.boot])?;
        Ok(())
    }

    /// Forgets files that are gone.
    pub fn forget<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        for path in paths {
            transaction.execute("DELETE FROM file WHERE path = ?1", [path.as_os_str().as_bytes()])?;
        }
        transaction.commit()
    }

    /// All objects are on the disk now.
    pub fn synced(&self) -> rusqlite::Result<()> {
        self.db.execute("UPDATE file SET boot = NULL WHERE boot IS NOT NULL", []).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_may_have_torn_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.sqlite");
        let stamp = Stamp { size: 3, mtime_ns: -5 };
        let lost = Outcome::Unusable("is empty".into());
        let mut memory = Memory::open(&path).unwrap();
        memory.keep(Path::new("a.mp3"), stamp, &lost).unwrap();
        memory.synced().unwrap();
        memory.keep(Path::new("b.mp3"), stamp, &lost).unwrap();
        assert_eq!(memory.load().unwrap().len(), 2);
        // The same start of the machine: a killed publish loses nothing.
        memory = Memory::open(&path).unwrap();
        assert_eq!(memory.load().unwrap().len(), 2);
        memory.db.execute("UPDATE file SET boot = 'another' WHERE boot IS NOT NULL", []).unwrap();
        memory = Memory::open(&path).unwrap();
        let known = memory.load().unwrap();
        assert_eq!(known.into_iter().collect::<Vec<_>>(), [("a.mp3".into(), (stamp, lost))]);
        memory.forget([Path::new("a.mp3")].into_iter()).unwrap();
        assert!(memory.load().unwrap().is_empty());
        memory.db.pragma_update(None, "user_version", 99).unwrap();
        Memory::open(&path).unwrap();
    }
}
