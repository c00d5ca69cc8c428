//! Publish: a music folder in, a library out.
//!
//! ```text
//! scan -> (source -> measure, encode, cut -> write) per file, in parallel -> catalogue -> root
//! ```
//! *Outcome*: what became of a file; `memory` keeps it, so that only new and changed files are worked on. Law: the library is
//! the old or the new one at every moment, and a run that finds nothing new touches nothing.

pub mod catalogue;
mod container;
mod convert;
mod cut;
mod encode;
mod measure;
mod memory;
mod outside;
mod playlists;
mod scan;
pub mod source;
mod tags;
mod track;
pub mod write;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use jukebox_core::library::{Digest, FORMAT, FormatError, PlaylistRef, Root};
use jukebox_core::time::UnixMs;
use rayon::prelude::*;

use self::catalogue::Catalogue;
use self::memory::{Memory, Outcome};
use self::scan::Source;
use self::source::Unusable;
pub use self::source::decoder;
use self::tags::Covers;
use self::track::Analysed;
use self::write::Store;
pub use self::write::{OpenError, objects};
use crate::verify::{self, References};

/// Turn a music folder into a library that any web server can hold.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  jukebox-office publish /srv/music /srv/library\n  \
    jukebox-office publish --popularity plays.csv --jobs 4 /srv/music /srv/library")]
pub struct Args {
    /// Folder with the music, in any depth: FLAC, MP3, Ogg Vorbis, Opus, AAC, ALAC, WAV, AIFF, and what ffmpeg can decode
    pub music: PathBuf,
    /// Folder of the library; made if it is not there
    pub library: PathBuf,
    /// CSV with lines `path or track id,number`: greater is more popular
    #[arg(long, value_name = "CSV")]
    pub popularity: Option<PathBuf>,
    /// Keep objects that a root of the last DAYS days names
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub keep_days: u32,
    /// Files worked on at once [default: one a core]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
}

/// What to publish, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder with the music.
    pub music: PathBuf,
    /// Folder of the library; made if it is not there.
    pub library: PathBuf,
    /// CSV of popularity.
    pub popularity: Option<PathBuf>,
    /// Days that a replaced root's objects are kept.
    pub keep_days: u32,
    /// Files worked on at once; none: one a core.
    pub jobs: Option<usize>,
}

impl Options {
    /// With the defaults of the command line.
    pub fn new(music: impl Into<PathBuf>, library: impl Into<PathBuf>) -> Self {
        Self { music: music.into(), library: library.into(), popularity: None, keep_days: 30, jobs: None }
    }
}

/// What stops a publish. A file that cannot be used does not: see [`Summary::unusable`].
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The music folder is not there.
    #[error("{0}: {1}: check the path of the music folder")]
    Music(PathBuf, io::Error),
    /// No music where there was some.
    #[error(
        "{0} holds no music that can be used, but the library has some: is the disk mounted? To start afresh, remove {1}"
    )]
    Gone(PathBuf, PathBuf),
    /// The library is in use or cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The library's disk refused.
    #[error("{0}: {1}: check the library's disk; the library is as it was before")]
    Disk(PathBuf, io::Error),
    /// The root is not one.
    #[error("{0}: {1}; put back a good copy, or remove the library to start afresh")]
    Root(PathBuf, FormatError),
    /// What publish remembers cannot be used.
    #[error("{0}: {1}: remove that file, it holds nothing that cannot be found out again")]
    Memory(PathBuf, rusqlite::Error),
    /// The popularity file cannot be read.
    #[error("{0}: {1}: check the path given with --popularity")]
    Popularity(PathBuf, io::Error),
    /// No threads.
    #[error("cannot start {0} jobs: give a smaller number with --jobs")]
    Jobs(usize),
}

/// What a publish did.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// Whether the library is another one now.
    pub changed: bool,
    /// Revision of the root.
    pub revision: u64,
    /// Tracks in the library.
    pub tracks: u64,
    /// Length of all tracks, in milliseconds.
    pub total_ms: u64,
    /// Files that were worked on, usable or not.
    pub worked: u64,
    /// Files that were as the last publish left them.
    pub unchanged: u64,
    /// Files that are gone since.
    pub removed: u64,
    /// Files that could not be used, and why and what helps.
    pub unusable: Vec<(PathBuf, String)>,
    /// What people should know of files that are used, and of the popularity file.
    pub notes: Vec<(PathBuf, String)>,
    /// Playlists in the library.
    pub playlists: u64,
    /// Entries of playlists that are not in the library.
    pub missing: u64,
    /// Files whose sound is that of another file, and that file, which is used.
    pub duplicates: Vec<(PathBuf, PathBuf)>,
    /// Catalogue pages, and how many of them the root before did not name.
    pub pages: (usize, usize),
    /// Bytes written to the library.
    pub written: u64,
    /// Objects removed because no root of the last days names them, and their bytes.
    pub swept: (u64, u64),
    /// How long it took.
    pub took: Duration,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<ExitCode, PublishError> {
    let options = Options {
        music: args.music.clone(),
        library: args.library.clone(),
        popularity: args.popularity.clone(),
        keep_days: args.keep_days,
        jobs: args.jobs,
    };
    let summary = publish(&options)?;
    print!("{}", report(&summary, &options));
    Ok(ExitCode::SUCCESS)
}

/// The summary as people read it: a line for each file that needs care, then what was done.
pub fn report(s: &Summary, options: &Options) -> String {
    let mut lines = Vec::new();
    let name = |path: &Path| options.music.join(path).display().to_string();
    lines.extend(s.unusable.iter().map(|(path, why)| format!("not used: {} {why}", name(path))));
    lines.extend(s.notes.iter().map(|(path, what)| format!("note: {} {what}", name(path))));
    lines.extend(
        s.duplicates
            .iter()
            .map(|(path, other)| format!("twice: {} sounds as {}, which is used", name(path), name(other))),
    );
    let (h, min) = (s.total_ms / 3_600_000, s.total_ms / 60_000 % 60);
    let mut done =
        format!("{} tracks, {h} h {min:02} min; {} files worked on, {} unchanged", s.tracks, s.worked, s.unchanged);
    let counts = [
        (s.removed, "gone"),
        (s.unusable.len() as u64, "not used"),
        (s.duplicates.len() as u64, "twice"),
        (s.playlists, "playlists"),
        (s.missing, "entries of playlists not in the library"),
    ];
    for (n, what) in counts {
        if n > 0 {
            done += &format!(", {n} {what}");
        }
    }
    lines.push(done);
    lines.push(if s.changed {
        let (pages, new) = s.pages;
        format!(
            "library is at revision {}: {} MB written, {new} of {pages} catalogue pages new",
            s.revision,
            s.written / 1_000_000
        )
    } else {
        format!("nothing changed: library stays at revision {}", s.revision)
    });
    if s.swept.0 > 0 {
        lines.push(format!("removed {} old objects, {} MB", s.swept.0, s.swept.1 / 1_000_000));
    }
    lines.push(format!("took {:.1} s", s.took.as_secs_f64()));
    lines.iter().flat_map(|l| [l.as_str(), "\n"]).collect()
}

/// Publishes.
pub fn publish(options: &Options) -> Result<Summary, PublishError> {
    let begun = Instant::now();
    let mut summary = Summary::default();
    let popularity = popularity(options, &mut summary)?;
    fs::read_dir(&options.music).map_err(|e| PublishError::Music(options.music.clone(), e))?;
    let store = Store::open(&options.library)?;
    let disk = |e| PublishError::Disk(store.dir().to_owned(), e);
    let old = match store.root().map_err(disk)? {
        Some(bytes) => Some(Root::parse(&bytes).map_err(|e| PublishError::Root(store.dir().join("library.json"), e))?),
        None => None,
    };
    let found = scan::scan(&options.music, store.dir()).map_err(|e| PublishError::Music(options.music.clone(), e))?;
    summary
        .unusable
        .extend(found.unreadable.into_iter().map(|(p, e)| (p, format!("cannot be read ({e}): check the permissions"))));

    let files = outcomes(&found.sources, options, &store, &mut summary)?;
    let tracks: Vec<(&Path, &Analysed)> = files
        .iter()
        .filter_map(|(path, outcome)| match outcome {
            Outcome::Track(track) => Some((path.as_path(), &**track)),
            Outcome::Unusable(_) => None,
        })
        .collect();
    if tracks.is_empty() && old.as_ref().is_some_and(|r| !r.pages.is_empty()) {
        return Err(PublishError::Gone(options.music.clone(), store.dir().to_owned()));
    }
    let built = catalogue::build(&tracks, &popularity, &store).map_err(disk)?;
    summary.tracks = built.tracks;
    summary.total_ms = built.total_ms;
    summary.duplicates.clone_from(&built.duplicates);
    let lists = playlists::build(&found.playlists, &options.music, &tracks, &built.records, &store).map_err(disk)?;
    summary.playlists = lists.refs.len() as u64;
    summary.missing = lists.missing;
    summary.unusable.extend(lists.unusable);
    summary.notes.extend(lists.notes);
    let root = commit(old, built, lists.refs, &store, &mut summary).map_err(disk)?;
    summary.revision = root.revision;
    summary.written = store.written();
    summary.swept = sweep(&root, options.keep_days, &store).map_err(disk)?;
    store.clean_up().map_err(disk)?;
    summary.took = begun.elapsed();
    Ok(summary)
}

fn popularity(options: &Options, summary: &mut Summary) -> Result<catalogue::Popularity, PublishError> {
    let Some(path) = &options.popularity else { return Ok(Default::default()) };
    let csv = fs::read_to_string(path).map_err(|e| PublishError::Popularity(path.clone(), e))?;
    let (popularity, bad) = catalogue::popularity(&csv);
    let note = |n| (path.clone(), format!("line {n}: should be `path or track id,number`"));
    summary.notes.extend(bad.into_iter().map(note));
    Ok(popularity)
}

/// What became of every file, sorted by path: remembered, or worked on now.
fn outcomes(
    sources: &[Source],
    options: &Options,
    store: &Store,
    summary: &mut Summary,
) -> Result<Vec<(PathBuf, Outcome)>, PublishError> {
    let path = write::beside(store.dir(), "sqlite").map_err(|e| PublishError::Disk(store.dir().to_owned(), e))?;
    let forgot = |e| PublishError::Memory(path.clone(), e);
    let mut memory = Memory::open(&path).map_err(forgot)?;
    let mut known = memory.load().map_err(forgot)?;

    let mut files = Vec::with_capacity(sources.len());
    let mut fresh = Vec::new();
    // Of two files with one id only the first one's objects are kept: the second is not asked for them.
    let mut ids = HashSet::new();
    for source in sources {
        match known.remove(&source.path) {
            Some((stamp, outcome)) if stamp == source.stamp => {
                let usable = match &outcome {
                    Outcome::Track(t) => !ids.insert(t.id) || t.is_stored(store),
                    Outcome::Unusable(_) => true,
                };
                if usable {
                    files.push((source.path.clone(), outcome));
                } else {
                    fresh.push(source);
                }
            }
            _ => fresh.push(source),
        }
    }
    summary.unchanged = files.len() as u64;
    summary.worked = fresh.len() as u64;
    summary.removed = known.len() as u64;
    memory.forget(known.keys().map(PathBuf::as_path)).map_err(forgot)?;

    let jobs = options.jobs.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build().map_err(|_| PublishError::Jobs(jobs))?;
    let bar = bar(&fresh);
    let covers = Covers::default();
    let (results, arriving) = mpsc::sync_channel(64);
    let mut failed = None;
    std::thread::scope(|scope| {
        let (pool, fresh, covers, bar) = (&pool, &fresh, &covers, &bar);
        scope.spawn(move || {
            pool.install(|| {
                // One at a time from the list: long and short files mix, and a failure of the disk ends it at once.
                fresh.par_iter().with_max_len(1).try_for_each_with(results, |results, source| {
                    let done = track::analyse(&options.music.join(&source.path), store, covers);
                    bar.inc(source.stamp.size);
                    let stop = matches!(done, Err(Unusable::Store(_)));
                    if results.send((*source, done)).is_err() || stop { None } else { Some(()) }
                })
            })
        });
        for (source, done) in arriving {
            let outcome = match done {
                Ok(track) => Outcome::Track(Box::new(track)),
                Err(Unusable::Store(e)) => {
                    failed.get_or_insert(PublishError::Disk(store.dir().to_owned(), e));
                    continue;
                }
                Err(why) => Outcome::Unusable(why.to_string()),
            };
            // A disk that failed once may not the next time.
            let lasting = !matches!(&outcome, Outcome::Unusable(why) if why.starts_with("cannot be read"));
            if lasting && let Err(e) = memory.keep(&source.path, source.stamp, &outcome) {
                failed.get_or_insert(PublishError::Memory(path.clone(), e));
            }
            files.push((source.path.clone(), outcome));
        }
    });
    bar.finish_and_clear();
    if let Some(e) = failed {
        return Err(e);
    }
    if !fresh.is_empty() {
        store.sync().map_err(|e| PublishError::Disk(store.dir().to_owned(), e))?;
        memory.synced().map_err(forgot)?;
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, outcome) in &files {
        match outcome {
            Outcome::Unusable(why) => summary.unusable.push((path.clone(), why.clone())),
            Outcome::Track(t) => summary.notes.extend(t.note.iter().map(|n| (path.clone(), n.clone()))),
        }
    }
    summary.unusable.sort();
    Ok(files)
}

/// Shown on a terminal only.
fn bar(fresh: &[&Source]) -> ProgressBar {
    let bar = ProgressBar::new(fresh.iter().map(|s| s.stamp.size).sum());
    if fresh.is_empty() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Makes the root, unless it would say what the one before says.
fn commit(
    old: Option<Root>,
    built: Catalogue,
    playlists: Vec<PlaylistRef>,
    store: &Store,
    summary: &mut Summary,
) -> io::Result<Root> {
    let before: HashSet<Digest> = old.iter().flat_map(|r| &r.pages).map(|p| p.object).collect();
    summary.pages = (built.pages.len(), built.pages.iter().filter(|p| !before.contains(&p.object)).count());
    let same = old.as_ref().is_some_and(|r| {
        r.pages == built.pages && r.depth == built.depth && r.playlists == playlists && r.format == FORMAT
    });
    if let (true, Some(old)) = (same, &old) {
        return Ok(old.clone());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let root = Root {
        format: FORMAT,
        library: match &old {
            Some(r) => r.library.clone(),
            None => random_id()?,
        },
        revision: old.as_ref().map_or(0, |r| r.revision) + 1,
        written: UnixMs(now.as_millis() as u64).to_string(),
        previous: match &old {
            // Byte for byte what was served.
            Some(_) => store.root()?.map(|bytes| store.put(&bytes)).transpose()?,
            None => None,
        },
        pages: built.pages,
        depth: built.depth,
        playlists,
        signatures: Vec::new(),
    };
    let bytes = root.to_bytes();
    store.put(&bytes)?;
    store.sync()?;
    store.replace_root(&bytes)?;
    summary.changed = true;
    Ok(root)
}

/// 128 random bits as 32 hex digits.
fn random_id() -> io::Result<String> {
    let mut bits = [0; 16];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bits)?;
    Ok(data_encoding::HEXLOWER.encode(&bits))
}

/// Removes objects that no root names which was in force within the last `keep_days` days.
fn sweep(root: &Root, keep_days: u32, store: &Store) -> io::Result<(u64, u64)> {
    let oldest = jiff::Timestamp::now() - Duration::from_secs(u64::from(keep_days) * 86_400);
    let mut keep = References::default();
    let mut live = Some((Digest::of(&root.to_bytes()), root.clone()));
    while let Some((digest, root)) = live.take() {
        keep.insert(digest);
        // Where something cannot be read, what it names is not known: then nothing is removed, and `verify` says why.
        if verify::follow(&root, &|d| store.read(d), &mut keep).is_err() {
            return Ok((0, 0));
        }
        // The root before was in force until this one was written.
        let replaced: Option<jiff::Timestamp> = root.written.parse().ok();
        if replaced.is_some_and(|t| t >= oldest)
            && let Some(previous) = root.previous
            && let Ok(bytes) = store.read(&previous)
            && let Ok(parsed) = Root::parse(&bytes)
        {
            live = Some((previous, parsed));
        }
    }
    store.sweep(&keep)
}
