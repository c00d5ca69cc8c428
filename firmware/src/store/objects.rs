//! Content-addressed files: segments, records, index pages, covers, named by the SHA-256 of their bytes.
//!
//! An object is written to a temporary name and renamed, without a sync: the digest finds a file that a power cut tore, and
//! whoever finds it says so with [`Objects::remove`]. *Floor*: free space that is left to the rest of the system. When the
//! cap or the floor is reached, what is least likely to be played goes ([`table`](super::table)).
//!
//! Law: a card that takes nothing does not stop the music. What plays now and next is kept in memory then, and goes to the
//! card as soon as that takes it.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jukebox_core::library::{Digest, IndexPage, IndexRef, Record};
use jukebox_core::planner::Keep;
use jukebox_core::reason::Reason;
use tokio::sync::{mpsc, oneshot, watch};

use super::table::{BLOCK, Table};

/// How many jobs may wait for the thread.
const QUEUE: usize = 4;
const STACK: usize = 256 << 10;
/// A file read again after this long is marked as used on the disk too, so that a restart knows.
const TOUCH_AFTER: Duration = Duration::from_secs(24 * 3600);
/// What must fit over the floor before a card that was full counts as having room again, in bytes.
const RELIEF: u64 = 1 << 20;

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
    /// The cap is reached, and all that is there is more likely to be played; or the card is full.
    #[error("the card is full")]
    Full,
    /// The card or its driver reports an error.
    #[error("the card cannot be written ({0})")]
    Card(io::ErrorKind),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl ObjectError {
    /// As the player tells it.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Full => Reason::DiskFull,
            Self::Card(_) | Self::Closed => Reason::DiskFault,
        }
    }
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
    trouble: watch::Sender<Option<ObjectError>>,
}

/// What the thread does for those who must not wait for the card.
enum Job {
    Put(Digest, Bytes, Keep, oneshot::Sender<Result<(), ObjectError>>),
    Read(Digest, oneshot::Sender<Option<Bytes>>),
    Remove(Digest),
    Room(u64, Keep, oneshot::Sender<Result<(), ObjectError>>),
    Settle,
}

impl Objects {
    /// Reads the directory (oldest use first), removes what was not finished and what is no file, and starts the writing
    /// thread, which ends with the last clone.
    pub(crate) fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        let (temporary, objects) = (dir.join("tmp"), dir.join("o"));
        clear(&temporary)?;
        fs::create_dir_all(&temporary)?;
        if !objects.is_dir() {
            clear(&objects)?;
            fs::create_dir_all(&objects)?;
        }
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let table = Mutex::new(scan(&objects)?);
        let inner =
            Arc::new(Inner { dir: dir.into(), limits: Mutex::new(limits), table, trouble: watch::Sender::new(None) });
        let worker = inner.clone();
        std::thread::Builder::new().name("objects".into()).stack_size(STACK).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                // Whoever asked may have gone; what was put is stored all the same.
                match job {
                    Job::Put(digest, bytes, keep, done) => drop(done.send(worker.put(&digest, bytes, keep))),
                    Job::Read(digest, done) => drop(done.send(worker.read_checked(&digest))),
                    Job::Remove(digest) => worker.remove(&digest),
                    Job::Room(bytes, keep, done) => drop(done.send(worker.room(bytes, keep))),
                    Job::Settle => worker.settle(),
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
        self.inner.lock().has(digest)
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

    /// The bytes as they are stored, not checked. Blocks on the card: not for the runtime's thread.
    ///
    /// # Errors
    /// They are not there, or cannot be read; then they count as not stored.
    pub fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let spare = self.inner.lock().spared(digest, true);
        spare.map_or_else(|| self.inner.read(digest), |bytes| Ok(bytes.to_vec()))
    }

    /// The bytes, if they are stored and right. A file that is not what its name says is removed. Blocks on the card.
    pub fn read_checked(&self, digest: &Digest) -> Option<Bytes> {
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
    ///
    /// # Errors
    /// The card takes it not, and neither does the memory.
    pub fn put(&self, digest: &Digest, bytes: &[u8], keep: Keep) -> Result<(), ObjectError> {
        self.inner.put(digest, Bytes::copy_from_slice(bytes), keep)
    }

    /// The same through the objects' thread. Four jobs may wait for the card; the fifth waits for a place.
    ///
    /// # Errors
    /// The card takes it not, and neither does the memory.
    pub async fn put_later(&self, digest: Digest, bytes: Bytes, keep: Keep) -> Result<(), ObjectError> {
        let (done, written) = oneshot::channel();
        self.jobs.send(Job::Put(digest, bytes, keep, done)).await.map_err(|_| ObjectError::Closed)?;
        written.await.unwrap_or(Err(ObjectError::Closed))
    }

    /// What a stored object is for: that decides how long it stays.
    pub fn belongs(&self, digest: &Digest, keep: Keep) {
        self.inner.lock().belongs(digest, keep);
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
    ///
    /// # Errors
    /// There is none, on the card or in memory.
    pub async fn room_later(&self, bytes: u64, keep: Keep) -> Result<(), ObjectError> {
        let (done, made) = oneshot::channel();
        self.jobs.send(Job::Room(bytes, keep, done)).await.map_err(|_| ObjectError::Closed)?;
        made.await.unwrap_or(Err(ObjectError::Closed))
    }

    /// Tries a card again that took nothing.
    pub async fn settle_later(&self) {
        let _ = self.jobs.send(Job::Settle).await;
    }

    /// The tracks (records) that are to be played, in order: what belongs to them goes last.
    pub fn pin(&self, tracks: &[Digest]) {
        self.inner.lock().pin(tracks);
    }

    /// Why the card takes nothing, and news of it. A cap that is reached is no trouble.
    pub fn trouble(&self) -> watch::Receiver<Option<ObjectError>> {
        self.inner.trouble.subscribe()
    }

    /// Where the object lies, stored or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.path(digest)
    }

    /// How many objects are on the card, and how many bytes they occupy.
    pub fn stored(&self) -> (usize, u64) {
        self.inner.lock().count()
    }

    /// Bytes that the file system has left for us.
    ///
    /// # Errors
    /// It does not say.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock panics half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.path())
    }

    fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        if !self.lock().touch(digest) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let path = self.path(digest);
        let read = fs::read(&path);
        match &read {
            // Somebody tidied up behind our back, or put something else there.
            Err(_) => self.remove(digest),
            Ok(_) => touch(&path),
        }
        read
    }

    fn read_checked(&self, digest: &Digest) -> Option<Bytes> {
        if let Some(bytes) = self.lock().spared(digest, false) {
            return Some(bytes);
        }
        let bytes = self.read(digest).ok()?;
        if Digest::of(&bytes) == *digest {
            return Some(bytes.into());
        }
        self.remove(digest);
        None
    }

    fn remove(&self, digest: &Digest) {
        self.lock().forget(digest);
        let _ = clear(&self.path(digest));
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let fs = rustix::fs::statvfs(&self.dir)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    fn put(&self, digest: &Digest, bytes: Bytes, keep: Keep) -> Result<(), ObjectError> {
        if self.lock().has(digest) {
            self.lock().belongs(digest, keep);
            return Ok(());
        }
        match self.write(digest, &bytes, keep) {
            Ok(()) => {
                self.settle();
                Ok(())
            }
            Err(why) if self.lock().spare(*digest, bytes, keep) => {
                tracing::debug!("{digest}: kept in memory: {why}");
                Ok(())
            }
            Err(why) => Err(why),
        }
    }

    /// Writes an object to the card, and notes whether that takes it.
    fn write(&self, digest: &Digest, bytes: &[u8], keep: Keep) -> Result<(), ObjectError> {
        self.make_room(bytes.len() as u64, keep)?;
        let temporary = self.dir.join("tmp").join(self.lock().temporary());
        if let Err(e) = write(&temporary, &self.path(digest), bytes) {
            let _ = fs::remove_file(&temporary);
            return Err(self.in_trouble(trouble(&e)));
        }
        self.lock().stored(*digest, bytes.len() as u64, keep);
        Ok(())
    }

    /// Whether an object would be stored, with what is evicted for it.
    fn room(&self, bytes: u64, keep: Keep) -> Result<(), ObjectError> {
        // While the card fails only a write tells whether it still does: what is small enough to be wasted is tried.
        self.make_room(bytes, keep).or_else(|why| match self.lock().spare_room(bytes as usize, keep) {
            true => Ok(()),
            false => Err(why),
        })
    }

    /// Evicts until `bytes` more fit under the cap and over the floor.
    fn make_room(&self, bytes: u64, keep: Keep) -> Result<(), ObjectError> {
        let bytes = bytes.next_multiple_of(BLOCK);
        let free = self.free_bytes().map_err(|e| self.in_trouble(trouble(&e)))?;
        let limits = self.limits();
        let over_floor = (limits.floor_bytes + bytes).saturating_sub(free);
        let over_cap = (self.lock().count().1 + bytes).saturating_sub(limits.cap_bytes);
        let over = over_floor.max(over_cap);
        if over == 0 {
            return Ok(());
        }
        // A little more than needed, so that a full store does not sort its table for each object.
        let more = limits.cap_bytes / 64 / BLOCK * BLOCK;
        let Some(victims) = self.lock().victims(keep, over, over + more) else {
            return Err(if over_floor > over_cap { self.in_trouble(ObjectError::Full) } else { ObjectError::Full });
        };
        for digest in victims {
            self.remove(&digest);
        }
        Ok(())
    }

    fn in_trouble(&self, why: ObjectError) -> ObjectError {
        self.trouble.send_if_modified(|now| now.replace(why) != Some(why));
        why
    }

    /// If the card took nothing and takes something again, it gets what is in memory.
    fn settle(&self) {
        if self.trouble.borrow().is_none() {
            return;
        }
        let room = self.free_bytes().is_ok_and(|free| free >= self.limits().floor_bytes + RELIEF);
        let trial = self.dir.join("tmp").join("trial");
        let taken = room && File::create(&trial).and_then(|mut f| f.write_all(&[0; BLOCK as usize])).is_ok();
        let _ = fs::remove_file(&trial);
        if !taken {
            return;
        }
        loop {
            let Some((digest, bytes, keep)) = self.lock().oldest_spare() else { break };
            if self.write(&digest, &bytes, keep).is_err() {
                return;
            }
            self.lock().drop_spare(&digest);
        }
        self.trouble.send_replace(None);
    }
}

fn trouble(e: &io::Error) -> ObjectError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ObjectError::Full,
        kind => ObjectError::Card(kind),
    }
}

fn write(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(temporary)?.write_all(bytes)?;
    let Err(e) = fs::rename(temporary, path) else { return Ok(()) };
    let parent = path.parent().ok_or(e)?;
    if !parent.is_dir() {
        clear(parent)?;
        fs::create_dir_all(parent)?;
    }
    clear(path)?;
    fs::rename(temporary, path)
}

/// Removes whatever is there.
fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
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

/// All objects in the directory, ordered by their times. Empty files are what a power cut leaves of a rename; what is no file
/// is not ours.
fn scan(objects: &Path) -> io::Result<Table> {
    let mut files = Vec::new();
    for prefix in fs::read_dir(objects)? {
        let prefix = prefix?.path();
        if !prefix.is_dir() {
            continue;
        }
        for file in fs::read_dir(prefix)? {
            let file = file?;
            let Some(digest) = file.file_name().to_str().and_then(|n| n.parse::<Digest>().ok()) else { continue };
            let meta = file.metadata()?;
            if !meta.is_file() || meta.len() == 0 {
                clear(&file.path())?;
                continue;
            }
            files.push((meta.modified()?, digest, meta.len()));
        }
    }
    files.sort_unstable();
    let mut table = Table::default();
    files.into_iter().for_each(|(_, digest, length)| table.found(digest, length));
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jukebox_core::planner::Tier;

    fn objects(dir: &Path, cap_blocks: u64, floor_bytes: u64) -> Objects {
        Objects::open(dir, Limits { cap_bytes: cap_blocks * BLOCK, floor_bytes }).unwrap()
    }

    const LOOSE: Keep = Keep { track: None, tier: Tier::Small };

    fn of(track: &Digest) -> Keep {
        Keep { track: Some(*track), tier: Tier::Small }
    }

    fn put(objects: &Objects, n: u8, keep: Keep) -> (Digest, Result<(), ObjectError>) {
        let digest = Digest::of(&[n; 100]);
        (digest, objects.put(&digest, &[n; 100], keep))
    }

    #[test]
    fn the_least_recently_used_goes_and_the_pinned_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = objects(dir.path(), 3, 0);
        let tracks = [1, 2, 3].map(|n| Digest::of(&[n]));
        let a = put(&store, 1, LOOSE).0;
        let b = put(&store, 2, of(&tracks[0])).0;
        let c = put(&store, 3, LOOSE).0;
        assert_eq!(store.stored(), (3, 3 * BLOCK));
        assert_eq!(store.read(&a).unwrap(), [1; 100]);
        store.pin(&tracks[..1]);
        let (d, put_d) = put(&store, 4, of(&tracks[1]));
        assert_eq!(put_d, Ok(()));
        assert_eq!([a, b, c, d].map(|x| store.has(&x)), [true, true, false, true]);
        assert!(!store.path(&c).exists() && store.path(&d).exists());
        store.pin(&tracks);
        store.belongs(&a, of(&tracks[2]));
        assert_eq!(put(&store, 5, LOOSE).1, Err(ObjectError::Full));
        assert_eq!(*store.trouble().borrow(), None, "a cap that is reached is no trouble");
        // A restart keeps the order by the files' times.
        drop(store);
        let old = SystemTime::now() - Duration::from_secs(3600);
        let path = dir.path().join(d.path());
        File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        let store = objects(dir.path(), 3, 0);
        assert_eq!(store.stored(), (3, 3 * BLOCK));
        put(&store, 6, LOOSE).1.unwrap();
        assert_eq!([a, b, d].map(|x| store.has(&x)), [true, true, false]);
    }

    #[test]
    fn the_floor_is_kept_and_what_plays_is_kept_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let full = objects(dir.path(), 100, u64::MAX / 2);
        let trouble = full.trouble();
        assert_eq!(put(&full, 1, LOOSE).1, Err(ObjectError::Full));
        assert_eq!(*trouble.borrow(), Some(ObjectError::Full));
        let track = Digest::of(b"plays");
        full.pin(&[track]);
        let (kept, done) = put(&full, 2, of(&track));
        assert!(done.is_ok() && full.has(&kept) && !full.path(&kept).exists());
        assert_eq!(full.read_checked(&kept).as_deref(), Some(&[2; 100][..]));
        assert_eq!(full.read(&kept).unwrap(), [2; 100]);
    }

    #[test]
    fn what_is_not_what_its_name_says_is_found_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = objects(dir.path(), 100, 0);
        let spoil: [fn(&Path); 6] = [
            |path| fs::write(path, [9; 100]).unwrap(),
            |path| fs::write(path, [1; 50]).unwrap(),
            |path| fs::write(path, []).unwrap(),
            |path| fs::remove_file(path).unwrap(),
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir_all(path.join("full")).unwrap();
            },
            |path| {
                let folder = path.parent().unwrap();
                fs::remove_dir_all(folder).unwrap();
                fs::write(folder, "no folder").unwrap();
            },
        ];
        for (n, spoil) in (0..).zip(spoil) {
            let a = put(&store, n, LOOSE).0;
            spoil(&store.path(&a));
            assert_eq!(store.read_checked(&a), None, "{n}");
            assert!(!store.has(&a), "{n}");
            assert_eq!(put(&store, n, LOOSE).1, Ok(()), "{n}");
            assert_eq!(store.read_checked(&a).as_deref(), Some(&[n; 100][..]), "{n}");
        }
        // The same while it is not running: what is plainly wrong is not counted.
        let [a, b] = [11, 12].map(|n| put(&store, n, LOOSE).0);
        spoil[2](&store.path(&a));
        spoil[4](&store.path(&b));
        drop(store);
        fs::remove_dir_all(dir.path().join("tmp")).unwrap();
        fs::write(dir.path().join("tmp"), "no folder").unwrap();
        let store = objects(dir.path(), 100, 0);
        assert!(!store.has(&a) && !store.has(&b));
        assert_eq!(put(&store, 12, LOOSE).1, Ok(()));
        fs::remove_dir_all(dir.path().join("o")).unwrap();
        fs::write(dir.path().join("o"), "no folder").unwrap();
        assert_eq!(objects(dir.path(), 100, 0).stored(), (0, 0));
    }
}
