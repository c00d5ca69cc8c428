//! The searchable copy of the library's catalogue: SQLite FTS5 behind a thread of its own.
//!
//! *Refresh*: ask the first origin for the root, fetch the pages whose digests are new, two at a time, and take them in as they
//! come. While a refresh runs, search sees the old pages and the new ones that are here; a track is never there twice.
//!
//! Law: the copy can be lost and is then fetched again; the root cannot be turned back. Case and accents are folded, all
//! words must be there, the last one may be a prefix.

mod playlists;
mod table;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jukebox_core::exchange::{List, Listed, SavedList};
use jukebox_core::library::{
    CataloguePage, Digest, FormatError, MAX_OBJECT, PageList, PageRef, Playlist, Root, Row, TrackId,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::fetch::{Fault, Fetcher, RootAnswer, Want};
use table::{Held, Table};

/// Questions that may wait for the thread; another waits for a place.
const QUEUE: usize = 16;
/// FTS5 merges its index on the stack of whoever writes.
const STACK: usize = 512 << 10;
/// Pages on the way at a time.
const PARALLEL: usize = 2;
/// Pages that are taken in at once: each turn is a write to the disk, and work for the index.
const BATCH: usize = 32;
/// But none waits for longer.
const BATCH_FOR: Duration = Duration::from_secs(2);
/// Most pages of a library: 20 million tracks.
const MAX_PAGES: usize = 100_000;
/// Largest zstd window that is accepted (2^22 bytes, what a page may unpack to): memory is bounded by us, not by the page.
const WINDOW_LOG: u32 = 22;

/// Why the catalogue does not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The cache directory cannot be used.
    #[error("{path}: {source}; the player's user must own this directory")]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// SQLite cannot do it (card full, failing).
    #[error("catalogue: {0}")]
    Database(#[from] rusqlite::Error),
    /// The copy was damaged and thrown away; the next refresh fetches it again.
    #[error("the catalogue was damaged and is being fetched again")]
    Rebuilt,
    /// The player is closing.
    #[error("the catalogue is closed")]
    Closed,
}

/// Why a refresh did not succeed. What was here stays.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The root or a page cannot be had.
    #[error("the library cannot be fetched: {0}")]
    Fetch(Fault),
    /// The library is of a later form.
    #[error("the library has format {found}: update the player")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// Another library than the one that this player knows.
    #[error(
        "another library ({found}) than this player's ({known}); if that is meant, clear the player's cache and state"
    )]
    OtherLibrary {
        /// The id that is known.
        known: String,
        /// The id that came.
        found: String,
    },
    /// An earlier root than one that was seen.
    #[error("revision {found} of the library is older than {known}, which was seen before")]
    LowerRevision {
        /// The revision that is known.
        known: u64,
        /// The revision that came.
        found: u64,
    },
    /// An object of the catalogue is not what it should be.
    #[error("the catalogue is broken: {0}")]
    Broken(FormatError),
    /// The copy cannot be written.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// The library that counts: which one, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub library: String,
    /// The highest revision that was accepted.
    pub revision: u64,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Hits {
    /// Best first.
    pub rows: Vec<Row>,
    /// All that match; counting stops at 1,000.
    pub total: u32,
}

/// How far a refresh has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Pages that came in this refresh.
    pub pages: usize,
    /// Pages that this refresh has to fetch.
    pub pages_total: usize,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes to fetch.
    pub bytes_total: u64,
}

/// A refresh that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub enum Refreshed {
    /// Nothing is new.
    Unchanged,
    /// All pages of this root are here.
    Changed {
        /// The root, for its playlists; save `library` and `revision` of it as [`Known`].
        root: Box<Root>,
        /// What was fetched.
        progress: Progress,
        /// Tracks in the catalogue now.
        tracks: u32,
    },
}

type Job = Box<dyn FnOnce(&mut Table) + Send>;

/// The catalogue; a cheap clone. The thread ends with the last one.
#[derive(Clone)]
pub struct Catalogue {
    jobs: mpsc::Sender<Job>,
}

impl Catalogue {
    /// Opens `catalogue.db` in `cache_dir`. `known` is what the state remembers: roots before it are refused also after the
    /// cache was lost, and a cache of another library is thrown away.
    pub fn open(cache_dir: &Path, known: Option<Known>) -> Result<Self, CatalogueError> {
        let directory = |source| CatalogueError::Directory { path: cache_dir.into(), source };
        std::fs::create_dir_all(cache_dir).map_err(directory)?;
        let mut table = Table::open(&cache_dir.join("catalogue.db"))?;
        if let Some(known) = known {
            let held = table.held()?;
            if held.as_ref().is_some_and(|h| h.library != known.library) {
                table.rebuild()?;
            }
            if held.is_none_or(|h| h.library != known.library || h.revision < known.revision) {
                table.hold(&Held { library: known.library, revision: known.revision, root: None, etag: None })?;
            }
        }
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new().name("catalogue".into()).stack_size(STACK);
        thread
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut table);
                }
            })
            .map_err(directory)?;
        Ok(Self { jobs })
    }

    /// Tracks that match all words of `text` (the last may be a prefix), most popular first, then by artist and album.
    /// Without any word: all tracks in that order.
    pub async fn search(&self, text: &str, limit: u32, offset: u32) -> Result<Hits, CatalogueError> {
        let text = text.to_owned();
        self.run(move |t| t.search(&text, limit, offset)).await
    }

    /// The track of that id.
    pub async fn by_id(&self, id: TrackId) -> Result<Option<Row>, CatalogueError> {
        self.run(move |t| t.by_id(&id)).await
    }

    /// The library's playlists, by id.
    pub async fn playlists(&self) -> Result<Vec<SavedList>, CatalogueError> {
        self.run(|t| t.playlists()).await
    }

    /// Tracks of a list from `offset` on, at most `limit`, shuffled if there is a seed; none if there is no such list.
    pub async fn list(
        &self,
        list: List,
        seed: Option<u64>,
        offset: u32,
        limit: u32,
    ) -> Result<Option<Listed>, CatalogueError> {
        self.run(move |t| t.list(&list, seed, offset, limit)).await
    }

    /// How many tracks there are.
    pub async fn count(&self) -> Result<u32, CatalogueError> {
        self.run(|t| t.count()).await
    }

    /// Brings the copy up to the first origin's root. `deadline` is for each request; `progress` is called after each page.
    /// Given up or interrupted, the next refresh goes on where this one was.
    pub async fn refresh(
        &self,
        fetcher: &Fetcher,
        deadline: Duration,
        mut progress: impl FnMut(Progress),
    ) -> Result<Refreshed, RefreshError> {
        let held = self.run(|t| t.held()).await?;
        // An unfinished copy must see its root again.
        let etag = held.as_ref().filter(|h| h.root.is_some()).and_then(|h| h.etag.clone());
        let answer = fetcher.root(etag.as_deref(), deadline).await.map_err(RefreshError::Fetch)?;
        let RootAnswer::Changed { bytes, etag } = answer else { return Ok(Refreshed::Unchanged) };
        let digest = Digest::of(&bytes);
        if held.as_ref().is_some_and(|h| h.root == Some(digest)) {
            return Ok(Refreshed::Unchanged);
        }
        let root = accept(&bytes, held.as_ref())?;
        let mut holding = Held { library: root.library.clone(), revision: root.revision, root: None, etag };
        let seen = holding.clone();
        self.run(move |t| t.hold(&seen)).await?;

        let pages = self.pages(fetcher, &root, deadline).await?;
        let named = pages.clone();
        let (total, missing) = (pages.len(), self.run(move |t| t.plan(&named)).await?);
        let mut at = Progress {
            pages_total: missing.len(),
            bytes_total: missing.iter().map(|(_, p)| u64::from(p.size)).sum(),
            ..Progress::default()
        };
        progress(at);
        let mut missing = missing.into_iter();
        let mut coming = JoinSet::new(); // aborts what is left when dropped
        let (mut batch, mut begun) = (Vec::new(), Instant::now());
        loop {
            while coming.len() < PARALLEL
                && let Some((place, page)) = missing.next()
            {
                let fetcher = fetcher.clone();
                coming.spawn(async move {
                    let fetched = fetcher.fetch(Want::whole(page.object, deadline)).await;
                    fetched.map(|f| (place, page.object, f.bytes))
                });
            }
            let Some(came) = coming.join_next().await else { break };
            // A panic there was reported by its hook.
            let came = came.map_err(|_| CatalogueError::Closed)?;
            if batch.is_empty() {
                begun = Instant::now();
            }
            let failed = came.map(|page| batch.push(page)).err();
            if failed.is_some() || batch.len() == BATCH || begun.elapsed() >= BATCH_FOR || coming.is_empty() {
                at.pages += batch.len();
                at.bytes += batch.iter().map(|(_, _, bytes)| bytes.len() as u64).sum::<u64>();
                self.take_in(std::mem::take(&mut batch)).await?;
                progress(at);
            }
            if let Some(fault) = failed {
                return Err(RefreshError::Fetch(fault));
            }
        }
        self.refresh_playlists(fetcher, &root, deadline).await?;
        holding.root = Some(digest);
        let tracks = self
            .run(move |t| {
                t.keep(&pages)?;
                t.hold(&holding)?;
                t.count()
            })
            .await?;
        // Most of it is new: what a search looks into is put together once, and not for every change. If that fails it is only
        // slower.
        if at.pages * 2 > total {
            let mut begin = true;
            while self.run(move |t| t.merge(begin)).await.unwrap_or(false) {
                begin = false;
            }
        }
        Ok(Refreshed::Changed { root: Box::new(root), progress: at, tracks })
    }

    /// The catalogue pages that a root names, directly or through lists.
    async fn pages(&self, fetcher: &Fetcher, root: &Root, deadline: Duration) -> Result<Vec<PageRef>, RefreshError> {
        let mut pages = root.pages.clone();
        if root.depth == 1 {
            pages.clear();
            for list in &root.pages {
                let list = fetcher.fetch(Want::whole(list.object, deadline)).await.map_err(RefreshError::Fetch)?;
                pages.extend(PageList::parse(&list.bytes).map_err(RefreshError::Broken)?.pages);
                if pages.len() > MAX_PAGES {
                    break;
                }
            }
        }
        if pages.len() > MAX_PAGES {
            return Err(RefreshError::Broken(FormatError::Value { field: "pages", why: "more than 100,000" }));
        }
        Ok(pages)
    }

    /// Brings the playlists up to the root's.
    async fn refresh_playlists(&self, fetcher: &Fetcher, root: &Root, deadline: Duration) -> Result<(), RefreshError> {
        let mut held = self.run(|t| t.playlist_objects()).await?;
        for list in &root.playlists {
            if held.remove(&list.id) == Some(list.object) {
                continue;
            }
            let fetched = fetcher.fetch(Want::whole(list.object, deadline)).await.map_err(RefreshError::Fetch)?;
            let playlist = Playlist::parse(&fetched.bytes).map_err(RefreshError::Broken)?;
            let list = list.clone();
            self.run(move |t| t.put_playlist(&list, &playlist.tracks)).await?;
        }
        for (id, _) in held {
            self.run(move |t| t.remove_playlist(&id)).await?;
        }
        Ok(())
    }

    /// Unpacks a page and takes it in, all on the catalogue's thread.
    async fn take_in(&self, batch: Vec<(u32, Digest, Bytes)>) -> Result<(), RefreshError> {
        let taken =
            self.run(move |table| table.put(batch.iter().map(|(place, page, bytes)| (*place, page, rows(bytes)))));
        taken.await?.map_err(RefreshError::Broken)
    }

    /// Runs `work` on the thread. A damaged copy is thrown away, so that the next refresh makes a new one.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Table) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, CatalogueError> {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move |table| {
            let result = match work(table) {
                Err(e) if table::damaged(&e) => {
                    tracing::warn!("catalogue: {e}; it is fetched again");
                    Err(table.rebuild().map_or_else(CatalogueError::Database, |()| CatalogueError::Rebuilt))
                }
                result => result.map_err(CatalogueError::Database),
            };
            // Whoever asked may have gone.
            let _ = done.send(result);
        });
        self.jobs.send(job).await.map_err(|_| CatalogueError::Closed)?;
        answer.await.unwrap_or(Err(CatalogueError::Closed))
    }
}

/// Reads a root and compares it with what is known.
fn accept(bytes: &[u8], held: Option<&Held>) -> Result<Root, RefreshError> {
    let root = Root::parse(bytes).map_err(|e| match e {
        FormatError::Newer { found } => RefreshError::Newer { found },
        e => RefreshError::Broken(e),
    })?;
    match held {
        Some(h) if h.library != root.library => {
            Err(RefreshError::OtherLibrary { known: h.library.clone(), found: root.library })
        }
        Some(h) if h.revision > root.revision => {
            Err(RefreshError::LowerRevision { known: h.revision, found: root.revision })
        }
        _ => Ok(root),
    }
}

/// The rows of a page as it is stored: zstd around CBOR, both bounded.
fn rows(stored: &[u8]) -> Result<Vec<Row>, FormatError> {
    let zstd = |e: io::Error| FormatError::Shape(format!("zstd: {e}"));
    let mut unpack = zstd::stream::read::Decoder::with_buffer(stored).map_err(zstd)?;
    unpack.window_log_max(WINDOW_LOG).map_err(zstd)?;
    let mut bytes = Vec::new();
    unpack.take(MAX_OBJECT as u64 + 1).read_to_end(&mut bytes).map_err(zstd)?;
    let rows = CataloguePage::parse(&bytes)?.rows;
    if rows.len() > table::MAX_ROWS {
        return Err(FormatError::Value { field: "page", why: "more than 1,024 rows" });
    }
    Ok(rows)
}
