//! Write: objects into the library's folder, and the root last.
//!
//! Law: an object has its name only when it is whole; the root is renamed only when all that it names is on the disk. So a
//! kill at any moment leaves the old or the new library. Unfinished objects lie in `.tmp` within the library (a rename needs
//! one file system); the next publish removes what a killed one left there.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use jukebox_core::library::{Digest, ROOT};
use sha2::{Digest as _, Sha256};

/// Why a library cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another publish holds the lock.
    #[error("another publish is at work on {0}: wait until it is done")]
    Busy(PathBuf),
    /// The system refused.
    #[error("{0}: {1}: check the path and its permissions")]
    Io(PathBuf, io::Error),
}

/// A library's folder, open for writing by one publish only.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    written: AtomicU64,
    serial: AtomicU64,
    lock: File,
}

impl Drop for Store {
    fn drop(&mut self) {
        // A child of ours that is just being started may hold the file open for a moment, and with it the lock.
        let _ = self.lock.unlock();
    }
}

impl Store {
    /// Opens a library's folder and makes it if it is not there.
    pub fn open(library: &Path) -> Result<Self, OpenError> {
        let at = |e| OpenError::Io(library.to_owned(), e);
        fs::create_dir_all(library).map_err(at)?;
        let dir = fs::canonicalize(library).map_err(at)?;
        let lock_path = beside(&dir, "lock").map_err(at)?;
        let lock = File::create(&lock_path).map_err(|e| OpenError::Io(lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Busy(dir)),
            Err(TryLockError::Error(e)) => return Err(at(e)),
        }
        let store = Self { dir, written: AtomicU64::new(0), serial: AtomicU64::new(0), lock };
        store.clean_up().map_err(at)?;
        Ok(store)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Removes what is unfinished.
    pub fn clean_up(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.dir.join(".tmp")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Stores a small object; one that is there already, byte for byte, is not touched.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if fs::read(self.path(&digest)).is_ok_and(|old| old == bytes) {
            return Ok(digest);
        }
        let mut w = self.writer()?;
        w.write(bytes)?;
        Ok(w.finish()?.0)
    }

    /// Begins an object whose name is known only at its end.
    pub fn writer(&self) -> io::Result<ObjectWriter<'_>> {
        let tmp = self.dir.join(".tmp");
        let path = tmp.join(self.serial.fetch_add(1, Ordering::Relaxed).to_string());
        let file = match File::create(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&tmp)?;
                File::create(&path)?
            }
            made => made?,
        };
        let file = Some(BufWriter::with_capacity(1 << 16, file));
        Ok(ObjectWriter { store: self, path, file, hash: Sha256::new(), size: 0 })
    }

    /// Whether the object is there, with that size if one is given.
    pub fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|m| m.is_file() && size.is_none_or(|s| s == m.len()))
    }

    /// Reads an object.
    pub fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        fs::read(self.path(digest))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.path())
    }

    /// Returns when all objects are on the disk: one call for the whole file system, since thousands of files each with a
    /// sync of its own take minutes.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.dir)?)?)
    }

    /// The root as it is now; none in a new library.
    pub fn root(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.dir.join(ROOT)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes `bytes` the root. All that it names must be on the disk: see [`Store::sync`].
    pub fn replace_root(&self, bytes: &[u8]) -> io::Result<()> {
        let tmp = self.dir.join(".tmp").join(ROOT);
        fs::create_dir_all(self.dir.join(".tmp"))?;
        let mut file = File::create(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&tmp, self.dir.join(ROOT))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Removes every object that is not in `keep`; returns how many, and their bytes.
    pub fn sweep(&self, keep: &HashSet<Digest>) -> io::Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for (path, digest) in objects(&self.dir)? {
            if digest.is_some_and(|d| !keep.contains(&d)) {
                bytes += fs::metadata(&path)?.len();
                fs::remove_file(&path)?;
                count += 1;
            }
        }
        Ok((count, bytes))
    }
}

/// Files below `o/`, with the digest that each is named by; none for a file that is no object.
pub fn objects(library: &Path) -> io::Result<Vec<(PathBuf, Option<Digest>)>> {
    let mut found = Vec::new();
    let top = match fs::read_dir(library.join("o")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        top => top?,
    };
    for folder in top {
        let folder = folder?.path();
        if !folder.is_dir() {
            found.push((folder, None));
            continue;
        }
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            let digest = path.file_name().and_then(|n| n.to_str()).and_then(|n| Digest::from_str(n).ok());
            let digest = digest.filter(|d| path == library.join(d.path()));
            found.push((path, digest));
        }
    }
    found.sort();
    Ok(found)
}

/// A file beside the library, never inside: all that is inside is served.
pub fn beside(library: &Path, what: &str) -> io::Result<PathBuf> {
    let name = library.file_name().ok_or_else(|| io::Error::other("a library cannot be the top of a file system"))?;
    let mut name = name.to_owned();
    name.push(".publish.");
    name.push(what);
    Ok(library.with_file_name(name))
}

/// An object that is being written.
#[derive(Debug)]
pub struct ObjectWriter<'a> {
    store: &'a Store,
    path: PathBuf,
    file: Option<BufWriter<File>>,
    hash: Sha256,
    size: u64,
}

impl ObjectWriter<'_> {
    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
        }
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Gives the object its name. One of that name may be there: the new file takes its place, for the old one may be what
    /// a power cut left of it.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        let digest = Digest(std::mem::take(&mut self.hash).finalize().into());
        if let Some(file) = self.file.take() {
            file.into_inner().map_err(io::IntoInnerError::into_error)?;
        }
        let to = self.store.path(&digest);
        match fs::rename(&self.path, &to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(to.parent().unwrap_or(&to))?;
                fs::rename(&self.path, &to)?;
            }
            renamed => renamed?,
        }
        self.store.written.fetch_add(self.size, Ordering::Relaxed);
        Ok((digest, self.size))
    }
}

impl Drop for ObjectWriter<'_> {
    fn drop(&mut self) {
        // Gone already if it was finished.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("library");
        let store = Store::open(&library).unwrap();
        assert!(matches!(Store::open(&library), Err(OpenError::Busy(_))));
        let mut dropped = store.writer().unwrap();
        dropped.write(b"never").unwrap();
        drop(dropped);
        let kept = store.put(b"abc").unwrap();
        let gone = store.put(b"def").unwrap();
        assert_eq!(kept, Digest::of(b"abc"));
        assert!(store.has(&kept, Some(3)) && !store.has(&kept, Some(4)));
        assert_eq!(objects(&store.dir).unwrap().len(), 2);
        assert_eq!(store.sweep(&HashSet::from([kept])).unwrap(), (1, 3));
        assert!(store.has(&kept, None) && !store.has(&gone, None));
        store.sync().unwrap();
        store.replace_root(b"{}").unwrap();
        assert_eq!(store.root().unwrap().unwrap(), b"{}");
        store.clean_up().unwrap();
        assert!(!store.dir.join(".tmp").exists());
    }
}
