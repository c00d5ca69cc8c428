//! The library's playlists: which tracks, in which order.

use std::collections::BTreeMap;

use jukebox_core::exchange::{List, Listed, MAX_PLAYLISTS, SavedList};
use jukebox_core::library::{Digest, PlaylistRef, PlaylistTrack, TrackId};
use jukebox_core::queue::shuffle;
use rusqlite::{OptionalExtension, params};

use super::table::{Table, row, select};

/// `track` holds ids of 10 bytes, one after the other: a playlist is read and written whole.
pub(super) const SCHEMA: &str = "CREATE TABLE playlist (id TEXT PRIMARY KEY, name TEXT NOT NULL, object BLOB NOT NULL, track BLOB NOT NULL) WITHOUT ROWID;";

impl Table {
    /// The playlists that are here, and the objects that they were read from.
    pub(super) fn playlist_objects(&self) -> rusqlite::Result<BTreeMap<String, Digest>> {
        let mut all = self.db.prepare_cached("SELECT id, object FROM playlist")?;
        all.query_map([], |r| Ok((r.get(0)?, Digest(r.get(1)?))))?.collect()
    }

    /// Takes a playlist in, in place of an earlier one of its id.
    pub(super) fn put_playlist(&mut self, list: &PlaylistRef, all: &[PlaylistTrack]) -> rusqlite::Result<()> {
        let ids: Vec<u8> = all.iter().flat_map(|t| t.id.0).collect();
        let mut put = self.db.prepare_cached("INSERT OR REPLACE INTO playlist VALUES (?1, ?2, ?3, ?4)")?;
        put.execute(params![list.id, list.name, list.object.0, ids]).map(drop)
    }

    pub(super) fn remove_playlist(&mut self, id: &str) -> rusqlite::Result<()> {
        self.db.prepare_cached("DELETE FROM playlist WHERE id = ?1")?.execute([id]).map(drop)
    }

    /// All playlists by id.
    pub(super) fn playlists(&self) -> rusqlite::Result<Vec<SavedList>> {
        let mut all =
            self.db.prepare_cached("SELECT id, name, length(track) / 10 FROM playlist ORDER BY id LIMIT ?1")?;
        all.query_map([MAX_PLAYLISTS as i64], |r| Ok(SavedList { id: r.get(0)?, name: r.get(1)?, tracks: r.get(2)? }))?
            .collect()
    }

    /// The tracks of a list; none if there is no such list.
    pub(super) fn list(
        &self,
        list: &List,
        seed: Option<u64>,
        offset: u32,
        limit: u32,
    ) -> rusqlite::Result<Option<Listed>> {
        let List::Playlist(id) = list else { return self.popular(seed, offset, limit).map(Some) };
        let mut one = self.db.prepare_cached("SELECT track FROM playlist WHERE id = ?1")?;
        let Some(ids) = one.query_row([id], |r| r.get::<_, Vec<u8>>(0)).optional()? else { return Ok(None) };
        let mut ids: Vec<TrackId> = ids.as_chunks().0.iter().copied().map(TrackId).collect();
        let mut found = Listed { total: ids.len() as u32, ..Listed::default() };
        if let Some(seed) = seed {
            shuffle(&mut ids, seed);
        }
        for id in ids.iter().skip(offset as usize).take(limit as usize) {
            match self.by_id(id)? {
                Some(row) => found.rows.push(row),
                None => found.missing += 1,
            }
        }
        Ok(Some(found))
    }

    fn popular(&self, seed: Option<u64>, offset: u32, limit: u32) -> rusqlite::Result<Listed> {
        let mut all = self.db.prepare_cached(&select("FROM track ORDER BY rank LIMIT ?1 OFFSET ?2"))?;
        let mut rows = all.query_map([limit, offset], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
        if let Some(seed) = seed {
            shuffle(&mut rows, seed);
        }
        Ok(Listed { rows, missing: 0, total: self.count()? })
    }
}
