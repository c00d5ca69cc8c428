//! Segments on disk and small state, behind threads of their own, because an SD card may stall for seconds.
//!
//! *State*: keys and values whose meaning only core knows, in one SQLite database. *Position*: where the playhead stands,
//! in two alternating slots of a file of its own. *Objects*: content-addressed files. *Ticket*: the number of a hand-over
//! of changes, reported when they are durable. *Slate*: what was handed over and is not yet on the card.
//!
//! Law: the caller never waits for the card. Changes go to the slate at once; the store's thread writes all that the slate
//! holds as one transaction, at most one every 20 ms, and reports the tickets. What could not be written stays on the
//! slate and is tried again every second, so that the card never holds a later change without an earlier one.

mod objects;
mod position;
mod state;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io, mem};

pub use jukebox_core::checkpoint::Change;
use jukebox_core::reason::Reason;
pub use objects::{Limits, ObjectError, Objects};
pub use position::MAX_POSITION;

use position::Position;
use state::State;

/// Least time between two transactions.
const COMMIT_EVERY: Duration = Duration::from_millis(20);
/// Least time between two saved positions: more often wears the card for nothing.
const POSITION_EVERY: Duration = Duration::from_secs(5);
/// How long after a failed write the next is tried.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a copy of the state serves as the older copy before a new one is made.
const COPY_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Tickets that may wait for the card.
const MAX_TICKETS: usize = 4096;
/// SQLite's commit and checkpoint need about 60 KiB.
const STACK: usize = 256 << 10;

/// Why the store cannot be opened. The text names the path and the fix.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A directory cannot be made or read.
    #[error("{path}: {source}; the player's user must own this directory")]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another player holds the state.
    #[error("{path}: in use by another jukebox; stop it first")]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The database cannot be opened, and moving it aside did not help.
    #[error("{path}: {source}")]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

/// Why something is not on the card (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The card is full.
    #[error("the card is full")]
    DiskFull,
    /// The card or its driver reports an error.
    #[error("the card cannot be written: {0}")]
    Card(String),
    /// A position longer than [`MAX_POSITION`].
    #[error("the position has {0} bytes, more than a slot holds")]
    TooLong(usize),
}

impl Trouble {
    /// As the player tells it.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::DiskFull => Reason::DiskFull,
            Self::Card(_) | Self::TooLong(_) => Reason::DiskFault,
        }
    }
}

/// What the store's thread reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The changes of this ticket are on the card. Tickets are reported one by one, in the order of their hand-over.
    Committed {
        /// The ticket.
        ticket: u64,
    },
    /// The changes of this ticket are not on the card yet. They are kept and tried again every second:
    /// [`Done::Committed`] follows when that works. Reported once for each ticket.
    Failed {
        /// The ticket.
        ticket: u64,
        /// Why.
        why: Trouble,
    },
    /// A position was not saved; the next one is tried as usual.
    PositionFailed {
        /// Why.
        why: Trouble,
    },
}

/// What was found when the store was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// All keys and values, in the order of the keys.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// The last position that was saved whole.
    pub position: Option<Vec<u8>>,
    /// Files that were not understood and moved aside, by their new names.
    pub rejected: Vec<PathBuf>,
    /// `rows` come from the older copy, because the newer was rejected.
    pub older: bool,
}

/// More tickets wait for the card than are remembered. The changes are kept and will be written, but this ticket is never
/// reported: whoever waits for it should be told that the player cannot answer for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the card has not taken anything for too long")]
pub struct Stalled;

/// The store. Dropping it writes what is on the slate and ends its threads.
pub struct Store {
    slate: Arc<Shared>,
    objects: Objects,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens (or makes) the state in `state_dir` and the objects in `cache_dir`, and starts the threads.
    ///
    /// `done` is called from the store's thread; it must not block.
    pub fn open(
        state_dir: &Path,
        cache_dir: &Path,
        limits: Limits,
        done: impl Fn(Done) + Send + 'static,
    ) -> Result<(Self, Recovered), StoreError> {
        let mut found = Recovered::default();
        fs::create_dir_all(state_dir).map_err(|e| directory(state_dir, e))?;
        let state = State::open(state_dir, &mut found)?;
        let position = Position::open(state_dir, &mut found).map_err(|e| directory(state_dir, e))?;
        let objects = Objects::open(cache_dir, limits).map_err(|e| directory(cache_dir, e))?;
        let slate = Arc::new(Shared::default());
        let writer = Writer { state, position, slate: slate.clone(), done: Box::new(done) };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .stack_size(STACK)
            .spawn(move || writer.run())
            .map_err(|e| directory(state_dir, e))?;
        Ok((Self { slate, objects, thread: Some(thread) }, found))
    }

    /// Hands over changes that belong together; [`Done::Committed`] with `ticket` comes when they are durable.
    ///
    /// Never blocks. A key's later value replaces an earlier one that is not yet written, so the slate holds at most the
    /// whole state however long the card stalls; only tickets are limited, to 4,096.
    pub fn commit(&self, ticket: u64, changes: Vec<Change>) -> Result<(), Stalled> {
        let mut slate = self.slate.lock();
        slate.changes.extend(changes.into_iter().map(|c| (c.key, c.value)));
        let room = slate.tickets.len() < MAX_TICKETS;
        if room {
            slate.tickets.push(Ticket { ticket, told: false });
        }
        drop(slate);
        self.slate.wake.notify_one();
        if room { Ok(()) } else { Err(Stalled) }
    }

    /// Saves the position (at most [`MAX_POSITION`] bytes). Never blocks; a later position replaces one that is not yet
    /// written, and one is written at most every 5 s and when the store is dropped.
    pub fn save_position(&self, bytes: Vec<u8>) {
        self.slate.lock().position = Some(bytes);
        self.slate.wake.notify_one();
    }

    /// The objects on disk.
    pub fn objects(&self) -> Objects {
        self.objects.clone()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.slate.lock().stop = true;
        self.slate.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by the panic hook; there is nothing left to save.
            let _ = thread.join();
        }
    }
}

fn directory(path: &Path, source: io::Error) -> StoreError {
    StoreError::Directory { path: path.into(), source }
}

/// Moves a file that is not understood aside as `NAME.rejected-UNIXTIME` and returns its new name.
fn reject(path: &Path) -> io::Result<PathBuf> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let name = |n: u64| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".rejected-{n}"));
        PathBuf::from(name)
    };
    // The clock may stand still at 1970: never onto an earlier one.
    let aside = (now..).map(name).find(|p| !p.exists()).unwrap_or_else(|| name(now));
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Makes names in `dir` durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// What was handed over and is not yet on the card.
#[derive(Default)]
struct Slate {
    changes: Changes,
    tickets: Vec<Ticket>,
    position: Option<Vec<u8>>,
    stop: bool,
}

type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

struct Ticket {
    ticket: u64,
    /// Its failure was reported.
    told: bool,
}

/// What is due; nothing of it is on the slate any more.
struct Work {
    commit: Option<(Changes, Vec<Ticket>)>,
    position: Option<Vec<u8>>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    slate: Mutex<Slate>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slate> {
        // No code that can panic runs under the lock, so the slate is whole even if a holder died.
        self.slate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store's thread.
struct Writer {
    state: State,
    position: Position,
    slate: Arc<Shared>,
    done: Box<dyn Fn(Done) + Send>,
}

impl Writer {
    fn run(mut self) {
        let start = Instant::now();
        let (mut next_commit, mut next_position, mut next_copy) = (start, start, start);
        loop {
            let Work { commit, position, stop } = self.wait(next_commit, next_position);
            if let Some((changes, tickets)) = commit {
                // Measured from the start of a transaction: a single command never waits 20 ms, a burst shares the sync.
                next_commit = Instant::now() + COMMIT_EVERY;
                match self.state.commit(&changes) {
                    Ok(()) => tickets.into_iter().for_each(|t| (self.done)(Done::Committed { ticket: t.ticket })),
                    Err(why) => {
                        next_commit = Instant::now() + RETRY_EVERY;
                        self.put_back(changes, tickets, &why);
                    }
                }
            }
            if let Some(bytes) = position {
                next_position = Instant::now() + POSITION_EVERY;
                if let Err(why) = self.position.save(&bytes) {
                    (self.done)(Done::PositionFailed { why });
                }
            }
            if stop {
                return;
            }
            if next_copy <= Instant::now() {
                next_copy = Instant::now() + COPY_EVERY;
                // The copy is a convenience: without it a later loss of the state costs more, nothing else.
                if let Err(why) = self.state.copy() {
                    tracing::warn!("state: no older copy: {why}");
                }
            }
        }
    }

    /// Waits until something is due, and takes it from the slate.
    fn wait(&self, next_commit: Instant, next_position: Instant) -> Work {
        let mut slate = self.slate.lock();
        loop {
            let now = Instant::now();
            let changed = !slate.changes.is_empty() || !slate.tickets.is_empty();
            let commit = changed && (slate.stop || next_commit <= now);
            // Never ahead of a change: it may be the position in an entry that is the current one only then.
            let position = slate.position.is_some() && (slate.stop || next_position <= now) && (commit || !changed);
            if commit || position || slate.stop {
                let slate = &mut *slate;
                return Work {
                    commit: commit.then(|| (mem::take(&mut slate.changes), mem::take(&mut slate.tickets))),
                    position: if position { slate.position.take() } else { None },
                    stop: slate.stop,
                };
            }
            let alone = slate.position.is_some() && !changed;
            let due = [changed.then_some(next_commit), alone.then_some(next_position)];
            slate = match due.into_iter().flatten().min() {
                Some(due) => {
                    let woken = self.slate.wake.wait_timeout(slate, due.saturating_duration_since(now));
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.slate.wake.wait(slate).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Puts changes that could not be written back, under those that came meanwhile, and says so once for each ticket.
    fn put_back(&self, changes: Changes, mut tickets: Vec<Ticket>, why: &Trouble) {
        for t in tickets.iter_mut().filter(|t| !t.told) {
            t.told = true;
            (self.done)(Done::Failed { ticket: t.ticket, why: why.clone() });
        }
        let mut slate = self.slate.lock();
        let newer = mem::replace(&mut slate.changes, changes);
        slate.changes.extend(newer);
        tickets.append(&mut slate.tickets);
        slate.tickets = tickets;
    }
}
