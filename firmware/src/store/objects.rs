//! Content-addressed files: segments, records, index pages, covers, named by the SHA-256 of their bytes.
//!
//! An object is written to a temporary name and renamed, without a sync: the digest finds a file that a power cut tore, and
//! whoever finds it says so with [`Objects::remove`]. *Pinned* objects are never evicted. *Floor*: free space that is left to
//! the rest of the system. When the cap or the floor is reached, the least recently used objects go.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jukebox_core::library::{Digest, IndexPage, IndexRef, Record};
use tokio::sync::{mpsc, oneshot};

/// What a file occupies at least.
const BLOCK: u64 = 4096;
/// How many jobs may wait for the thread.
const QUEUE: usize = 4;
const STACK: usize = 256 << 10;
/// A file read again after this long is marked as used on the disk too, so that a restart knows.
const TOUCH_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How much of the disk the objects may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of all objects together.
    pub cap_bytes: u64,
    /// Bytes of the file system that stay free.
    pub floor_bytes: u64,
}

/// Why an object is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ObjectError {
    /// The cap or the floor is reached and everything left is pinned, or the card is full.
    #[error("the card is full")]
    Full,
    /// The card or its driver reports an error.
    #[error("the card cannot be written ({0})")]
    Card(io::ErrorKind),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// The objects on disk; a cheap clone.
#[derive(Clone)]
pub struct Objects {
    inner: Arc<Inner>,
    jobs: mpsc::Sender<Job>,
}

struct Inner {
    dir: PathBuf,
    limits: Mutex<Limits>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    files: HashMap<Digest, Used>,
    pinned: HashSet<Digest>,
    /// Bytes of all files, in whole blocks.
    bytes: u64,
    /// Counts uses.
    clock: u32,
    /// Names of temporary files.
    temporary: u64,
}

/// 8 bytes, because a card holds a hundred thousand of them.
#[derive(Clone, Copy)]
struct Used {
    blocks: u32,
    at: u32,
}

/// What the thread does for those who must not wait for the card.
enum Job {
    Put(Digest, Bytes, oneshot::Sender<Result<(), ObjectError>>),
    Read(Digest, oneshot::Sender<Option<Bytes>>),
    Remove(Digest),
    Room(u64, oneshot::Sender<Result<(), ObjectError>>),
}

impl Objects {
    /// Reads the directory (oldest use first), removes what was not finished, and starts the writing thread, which ends
    /// with the last clone.
    pub(crate) fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        let temporary = dir.join("tmp");
        match fs::remove_dir_all(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::create_dir_all(&temporary)?,
        }
        fs::create_dir_all(dir.join("o"))?;
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let inner = Arc::new(Inner { dir: dir.into(), limits: Mutex::new(limits), table: Mutex::new(scan(dir)?) });
        let worker = inner.clone();
        std::thread::Builder::new().name("objects".into()).stack_size(STACK).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                // Whoever asked may have gone; what was put is stored all the same.
                match job {
                    Job::Put(digest, bytes, done) => drop(done.send(worker.put(&digest, &bytes))),
                    Job::Read(digest, done) => drop(done.send(worker.read_checked(&digest).map(Bytes::from))),
                    Job::Remove(digest) => worker.remove(&digest),
                    Job::Room(bytes, done) => drop(done.send(worker.make_room(bytes))),
                }
            }
        })?;
        Ok(Self { inner, jobs })
    }

    /// Sets how much of the disk the objects may take; what is too much by then goes when the next one comes.
    pub fn limit(&self, limits: Limits) {
        *self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Whether the object is stored (its bytes may be torn: only reading and checking tells).
    pub fn has(&self, digest: &Digest) -> bool {
        self.inner.lock().files.contains_key(digest)
    }

    /// Whether all of one rendition of a track is here, by its record. Blocks on the card for record and index.
    pub fn holds(&self, record: &Digest) -> bool {
        let Some(record) = self.read(record).ok().and_then(|bytes| Record::parse(&bytes).ok()) else { return false };
        let page = |page: &IndexRef| {
            let index = Some(&page.object).filter(|d| self.has(d)).and_then(|d| self.read(d).ok());
            let index = index.and_then(|bytes| IndexPage::parse(&bytes).ok());
            index.is_some_and(|i| i.segments().all(|s| self.has(&s.digest)))
        };
        record.renditions.iter().any(|r| !r.index.is_empty() && r.index.iter().all(page))
    }

    /// The bytes as they are on disk, not checked. Blocks on the card: not for the runtime's thread.
    pub fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        self.inner.read(digest)
    }

    /// The bytes, if they are stored and right. A file that is not what its name says is removed. Blocks on the card.
    pub fn read_checked(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.inner.read_checked(digest)
    }

    /// The same through the objects' thread. Four jobs may wait for the card; the fifth waits for a place.
    pub async fn read_later(&self, digest: Digest) -> Option<Bytes> {
        if !self.has(&digest) {
            return None;
        }
        let (done, read) = oneshot::channel();
        self.jobs.send(Job::Read(digest, done)).await.ok()?;
        read.await.ok()?
    }

    /// Stores an object whose digest was checked. Blocks on the card.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ObjectError> {
        self.inner.put(digest, bytes)
    }

    /// The same through the objects' thread. Four jobs may wait for the card; the fifth waits for a place.
    pub async fn put_later(&self, digest: Digest, bytes: Bytes) -> Result<(), ObjectError> {
        let (done, written) = oneshot::channel();
        self.jobs.send(Job::Put(digest, bytes, done)).await.map_err(|_| ObjectError::Closed)?;
        written.await.unwrap_or(Err(ObjectError::Closed))
    }

    /// Removes an object, for example one that is torn.
    pub fn remove(&self, digest: &Digest) {
        self.inner.remove(digest);
    }

    /// The same through the objects' thread, in its turn among the other jobs.
    pub async fn remove_later(&self, digest: Digest) {
        let _ = self.jobs.send(Job::Remove(digest)).await;
    }

    /// Makes room for an object of so many bytes, through the objects' thread: whoever pays for bytes asks before they come.
    pub async fn room_later(&self, bytes: u64) -> Result<(), ObjectError> {
        let (done, made) = oneshot::channel();
        self.jobs.send(Job::Room(bytes.next_multiple_of(BLOCK), done)).await.map_err(|_| ObjectError::Closed)?;
        made.await.unwrap_or(Err(ObjectError::Closed))
    }

    /// These and only these are kept whatever the cap says.
    pub fn pin(&self, pinned: HashSet<Digest>) {
        self.inner.lock().pinned = pinned;
    }

    /// Where the object lies, stored or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.path(digest)
    }

    /// How many objects are stored, and how many bytes they occupy.
    pub fn stored(&self) -> (usize, u64) {
        let table = self.inner.lock();
        (table.files.len(), table.bytes)
    }

    /// Bytes that the file system has left for us.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock panics half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.path())
    }

    fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        if !self.use_it(digest) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let path = self.path(digest);
        let read = fs::read(&path);
        match &read {
            // Somebody tidied up behind our back.
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.forget(digest),
            _ => touch(&path),
        }
        read
    }

    fn read_checked(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = self.read(digest).ok()?;
        if Digest::of(&bytes) == *digest {
            return Some(bytes);
        }
        self.remove(digest);
        None
    }

    fn remove(&self, digest: &Digest) {
        self.forget(digest);
        let _ = fs::remove_file(self.path(digest));
    }

    fn use_it(&self, digest: &Digest) -> bool {
        let table = &mut *self.lock();
        table.clock += 1;
        table.files.get_mut(digest).map(|used| used.at = table.clock).is_some()
    }

    fn forget(&self, digest: &Digest) {
        let table = &mut *self.lock();
        if let Some(used) = table.files.remove(digest) {
            table.bytes -= u64::from(used.blocks) * BLOCK;
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let fs = rustix::fs::statvfs(&self.dir)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ObjectError> {
        if self.use_it(digest) {
            return Ok(());
        }
        let blocks = (bytes.len() as u64).div_ceil(BLOCK);
        self.make_room(blocks * BLOCK)?;
        let temporary = {
            let mut table = self.lock();
            table.temporary += 1;
            self.dir.join("tmp").join(table.temporary.to_string())
        };
        let path = self.path(digest);
        let written = write(&temporary, &path, bytes);
        if let Err(e) = written {
            let _ = fs::remove_file(&temporary);
            return Err(match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ObjectError::Full,
                kind => ObjectError::Card(kind),
            });
        }
        let table = &mut *self.lock();
        table.clock += 1;
        if table.files.insert(*digest, Used { blocks: blocks as u32, at: table.clock }).is_none() {
            table.bytes += blocks * BLOCK;
        }
        Ok(())
    }

    /// Evicts until `bytes` more fit under the cap and over the floor.
    fn make_room(&self, bytes: u64) -> Result<(), ObjectError> {
        let free = self.free_bytes().map_err(|e| ObjectError::Card(e.kind()))?;
        let limits = *self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let over_floor = (limits.floor_bytes + bytes).saturating_sub(free);
        let over_cap = (self.lock().bytes + bytes).saturating_sub(limits.cap_bytes);
        let over = over_floor.max(over_cap);
        if over == 0 {
            return Ok(());
        }
        // A little more than needed, so that a full store does not sort its table for each object.
        let more = limits.cap_bytes / 64 / BLOCK * BLOCK;
        let victims = self.lock().oldest(over, over + more).ok_or(ObjectError::Full)?;
        for digest in victims {
            self.remove(&digest);
        }
        Ok(())
    }
}

impl Table {
    /// The least recently used that are not pinned and make up `want` bytes, or at least `need`.
    fn oldest(&self, need: u64, want: u64) -> Option<Vec<Digest>> {
        let mut loose: Vec<_> = self.files.iter().filter(|(d, _)| !self.pinned.contains(d)).collect();
        loose.sort_unstable_by_key(|(_, used)| used.at);
        let mut sum = 0;
        let mut victims = Vec::new();
        for (digest, used) in loose {
            if sum >= want {
                break;
            }
            sum += u64::from(used.blocks) * BLOCK;
            victims.push(*digest);
        }
        (sum >= need).then_some(victims)
    }
}

fn write(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(temporary)?.write_all(bytes)?;
    match fs::rename(temporary, path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::rename(temporary, path)
        }
        renamed => renamed,
    }
}

/// Marks the file as used today. Failing costs a wrong place in the order after a restart, nothing else.
fn touch(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let now = SystemTime::now();
    let stale = |t: SystemTime| now.duration_since(t).is_ok_and(|age| age > TOUCH_AFTER);
    if file.metadata().and_then(|m| m.modified()).is_ok_and(stale) {
        let _ = file.set_times(FileTimes::new().set_modified(now));
    }
}

/// All objects in the directory, ordered by their times. Empty files are what a power cut leaves of a rename.
fn scan(dir: &Path) -> io::Result<Table> {
    let mut files = Vec::new();
    for prefix in fs::read_dir(dir.join("o"))? {
        let prefix = prefix?.path();
        if !prefix.is_dir() {
            continue;
        }
        for file in fs::read_dir(prefix)? {
            let file = file?;
            let Some(digest) = file.file_name().to_str().and_then(|n| n.parse::<Digest>().ok()) else { continue };
            let meta = file.metadata()?;
            if meta.len() == 0 {
                let _ = fs::remove_file(file.path());
                continue;
            }
            files.push((meta.modified()?, digest, meta.len().div_ceil(BLOCK) as u32));
        }
    }
    files.sort_unstable();
    let mut table = Table::default();
    for (_, digest, blocks) in files {
        table.clock += 1;
        table.bytes += u64::from(blocks) * BLOCK;
        table.files.insert(digest, Used { blocks, at: table.clock });
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(dir: &Path, cap_blocks: u64, floor_bytes: u64) -> Objects {
        Objects::open(dir, Limits { cap_bytes: cap_blocks * BLOCK, floor_bytes }).unwrap()
    }

    fn put(objects: &Objects, n: u8) -> (Digest, Result<(), ObjectError>) {
        let digest = Digest::of(&[n; 100]);
        (digest, objects.put(&digest, &[n; 100]))
    }

    #[test]
    fn the_least_recently_used_goes_and_the_pinned_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = objects(dir.path(), 3, 0);
        let [a, b, c] = [1, 2, 3].map(|n| put(&store, n).0);
        assert_eq!(store.stored(), (3, 3 * BLOCK));
        assert_eq!(store.read(&a).unwrap(), [1; 100]);
        store.pin([b].into());
        let (d, put_d) = put(&store, 4);
        assert_eq!(put_d, Ok(()));
        assert_eq!([a, b, c, d].map(|x| store.has(&x)), [true, true, false, true]);
        assert!(!store.path(&c).exists() && store.path(&d).exists());
        store.pin([a, b, d].into());
        assert_eq!(put(&store, 5).1, Err(ObjectError::Full));
        // A restart keeps the order by the files' times.
        drop(store);
        let old = SystemTime::now() - Duration::from_secs(3600);
        let path = dir.path().join(d.path());
        File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        let store = objects(dir.path(), 3, 0);
        assert_eq!(store.stored(), (3, 3 * BLOCK));
        put(&store, 6).1.unwrap();
        assert_eq!([a, b, d].map(|x| store.has(&x)), [true, true, false]);
    }

    #[test]
    fn the_floor_is_kept_and_torn_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let full = objects(dir.path(), 100, u64::MAX / 2);
        assert_eq!(put(&full, 1).1, Err(ObjectError::Full));
        drop(full);
        let store = objects(dir.path(), 100, 0);
        let [a, b] = [1, 2].map(|n| put(&store, n).0);
        fs::write(store.path(&a), [9; 100]).unwrap();
        assert_eq!(store.read_checked(&a), None);
        assert!(!store.has(&a) && !store.path(&a).exists());
        assert_eq!(store.read_checked(&b), Some(vec![2; 100]));
        fs::write(store.path(&b), []).unwrap();
        drop(store);
        assert!(!objects(dir.path(), 100, 0).has(&b));
    }
}
