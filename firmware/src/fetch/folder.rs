//! A folder as an origin: a thread of its own, because a dead mount blocks in the kernel and must not freeze anything else.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jukebox_core::library::ROOT;
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, kind};

/// Reads that may wait for the folder; while they do, another is a [`Fault::Timeout`] at once.
const QUEUE: usize = 4;
const STACK: usize = 128 << 10;

pub(super) struct Folder {
    share: bool,
    reads: mpsc::Sender<Job>,
}

struct Job {
    path: String,
    range: Option<Range<u64>>,
    limit: u64,
    done: oneshot::Sender<Result<Bytes, Fault>>,
}

impl Folder {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        let share = is_share(&dir);
        let (reads, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new().name("folder".into()).stack_size(STACK).spawn(move || {
            while let Some(Job { path, range, limit, done }) = queue.blocking_recv() {
                // Past its deadline: do not make a slow mount slower.
                if !done.is_closed() {
                    let _ = done.send(read(&dir, &path, range, limit));
                }
            }
        })?;
        Ok(Self { reads, share })
    }

    /// Whether it lies on a file system that is reached over the network.
    pub(super) fn is_share(&self) -> bool {
        self.share
    }

    pub(super) async fn get(&self, path: String, range: Option<Range<u64>>, limit: u64) -> Result<Bytes, Fault> {
        let (done, answer) = oneshot::channel();
        self.reads.try_send(Job { path, range, limit, done }).map_err(|_| Fault::Timeout)?;
        answer.await.unwrap_or(Err(Fault::Reset))
    }
}

/// By the mount table (proc(5), mountinfo), because asking the file system itself may block for ever.
fn is_share(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    kind_of_mount(dir, &table)
        .is_some_and(|k| matches!(k, "cifs" | "smb3" | "nfs" | "nfs4" | "fuse.sshfs" | "9p" | "ceph"))
}

/// The file system of the deepest mount above `dir`. An automount point is what will be mounted there, further down the table.
fn kind_of_mount<'t>(dir: &Path, table: &'t str) -> Option<&'t str> {
    let mounts = table.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        dir.starts_with(point).then(|| (point.components().count(), kind.split(' ').next()))
    });
    mounts.max_by_key(|m| m.0)?.1
}

fn read(dir: &Path, path: &str, range: Option<Range<u64>>, limit: u64) -> Result<Bytes, Fault> {
    let other = |e: io::Error| kind(e.kind()).unwrap_or(Fault::NotMounted);
    let mut file = match File::open(dir.join(path)) {
        // Where a share is not mounted everything is missing: then it is not the object's fault.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(if fs::exists(dir.join(ROOT)).unwrap_or(false) { Fault::NotFound } else { Fault::NotMounted });
        }
        file => file.map_err(other)?,
    };
    let size = file.metadata().map_err(other)?.len();
    let Range { start, end } = range.unwrap_or(0..size);
    if end > size {
        return Err(Fault::WrongRange);
    }
    if end - start > limit {
        return Err(Fault::WrongLength);
    }
    file.seek(SeekFrom::Start(start)).map_err(other)?;
    let mut bytes = vec![0; (end - start) as usize];
    file.read_exact(&mut bytes).map_err(other)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_by_the_deepest_mount() {
        let table = "22 1 179:2 / / rw - ext4 /dev/root rw\n\
                     50 22 0:40 / /srv/music rw shared:9 - cifs //office/music rw,vers=3.1.1\n\
                     51 50 0:41 / /srv/music/local rw - tmpfs tmpfs rw\n";
        let kind = |dir: &str| kind_of_mount(Path::new(dir), table);
        assert_eq!(
            [kind("/srv/music/a"), kind("/srv"), kind("/srv/music/local")],
            [Some("cifs"), Some("ext4"), Some("tmpfs")]
        );
        assert!(!is_share(Path::new("/proc")));
    }
}
