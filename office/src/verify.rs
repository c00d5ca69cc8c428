//! Verify: every digest and every reference of a library is checked, and each problem is one line.
//!
//! Two questions: is each object what its name says, and is all there that a root names? A root before the current one may be
//! gone (publish removes old ones), but one that is there must be whole.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jukebox_core::library::{
    CataloguePage, Digest, FormatError, IndexPage, MAX_OBJECT, PageList, PageRef, Playlist, ROOT, Record, Rendition,
    Root, Row,
};
use jukebox_core::segment::Segment;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::publish::objects;

/// Check every digest and every reference of a library.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  jukebox-office verify /srv/library")]
pub struct Args {
    /// Folder of the library
    pub library: PathBuf,
}

/// What stops a verify. A problem of the library does not: see [`Report::problems`].
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The folder is no library.
    #[error("{0}: {1}: is this the folder of a library? `jukebox-office publish` makes one")]
    Root(PathBuf, io::Error),
    /// The system refused.
    #[error("{0}: {1}: check the disk and the permissions")]
    Io(PathBuf, io::Error),
}

/// What was found.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Objects there are, and their bytes.
    pub objects: (u64, u64),
    /// Tracks of the current root.
    pub tracks: u64,
    /// Roots that are kept, the current one included.
    pub roots: u64,
    /// Objects that no root names: left by a killed publish; the next one removes them.
    pub spare: u64,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<ExitCode, VerifyError> {
    let report = verify(&args.library)?;
    report.problems.iter().for_each(|p| println!("{p}"));
    let (count, bytes) = report.objects;
    let mut line =
        format!("{} tracks, {count} objects, {} MB, {} roots", report.tracks, bytes / 1_000_000, report.roots);
    if report.spare > 0 {
        line += &format!("; {} objects that no root names (the next publish removes them)", report.spare);
    }
    println!("{line}");
    Ok(match report.problems.len() {
        0 => {
            println!("all is as it should be");
            ExitCode::SUCCESS
        }
        n => {
            println!("{n} problems: publish again, or copy the library again from where it was published");
            ExitCode::FAILURE
        }
    })
}

/// Checks a library.
pub fn verify(library: &Path) -> Result<Report, VerifyError> {
    let mut report = Report::default();
    let root_path = library.join(ROOT);
    let root = fs::read(&root_path).map_err(|e| VerifyError::Root(root_path, e))?;
    let found = objects(library).map_err(|e| VerifyError::Io(library.join("o"), e))?;

    let hashed: Vec<_> = found.par_iter().map(|(path, digest)| (path, *digest, hash(path))).collect();
    let mut there = HashMap::new();
    for (path, named, hashed) in hashed {
        let shown = path.strip_prefix(library).unwrap_or(path).display();
        match (named, hashed) {
            (None, _) => report.problems.push(format!("{shown}: is not an object: remove it")),
            (Some(_), Err(e)) => report.problems.push(format!("{shown}: cannot be read: {e}")),
            (Some(name), Ok((digest, size))) => {
                report.objects.0 += 1;
                report.objects.1 += size;
                there.insert(name, size);
                if name != digest {
                    report.problems.push(format!("{shown}: its bytes have the digest {digest}"));
                }
            }
        }
    }

    let mut check = Check { library, there, named: HashSet::new(), problems: Vec::new() };
    check.roots(&root, &mut report);
    report.spare = check.there.keys().filter(|d| !check.named.contains(d)).count() as u64;
    report.problems.append(&mut check.problems);
    Ok(report)
}

fn hash(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let (mut hash, mut size, mut block) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok((Digest(hash.finalize().into()), size)),
            n => {
                hash.update(&block[..n]);
                size += n as u64;
            }
        }
    }
}

/// What is known while references are followed.
struct Check<'a> {
    library: &'a Path,
    there: HashMap<Digest, u64>,
    named: HashSet<Digest>,
    problems: Vec<String>,
}

impl Check<'_> {
    /// Follows the current root and all before it that are kept.
    fn roots(&mut self, current: &[u8], report: &mut Report) {
        let (mut bytes, mut name) = (current.to_vec(), ROOT.to_owned());
        let mut records = Vec::new();
        loop {
            let root = match Root::parse(&bytes) {
                Ok(root) => root,
                Err(e) => {
                    self.problems.push(format!("{name}: {e}"));
                    break;
                }
            };
            let own = Digest::of(&bytes);
            self.wants(&own, &name);
            report.roots += 1;
            let rows = self.root(&root, &name, &mut records);
            if report.roots == 1 {
                report.tracks = rows;
            }
            // A root that was removed as too old is no problem, and neither are those before it.
            match root.previous.filter(|d| *d != own && self.there.contains_key(d)) {
                Some(previous) => {
                    name = format!("root {previous}");
                    match fs::read(self.library.join(previous.path())) {
                        Ok(b) => bytes = b,
                        Err(e) => {
                            self.problems.push(format!("{name}: cannot be read: {e}"));
                            break;
                        }
                    }
                }
                None => break,
            }
        }
        // The bulk of the work: records and their renditions, side by side.
        let (library, there) = (self.library, &self.there);
        let checked: Vec<_> =
            records.par_iter().map(|(digest, row)| record(library, there, digest, row.as_ref())).collect();
        for (named, problems) in checked {
            self.named.extend(named);
            self.problems.extend(problems);
        }
    }

    /// Notes a reference, and whether it leads somewhere.
    fn wants(&mut self, digest: &Digest, by: &str) -> bool {
        let there = self.there.contains_key(digest);
        if !there {
            self.problems.push(format!("{by}: names {}, which is missing", digest.path()));
        }
        self.named.insert(*digest) && there
    }

    /// Follows one root down to its records, which are collected; returns its rows.
    fn root(&mut self, root: &Root, name: &str, records: &mut Vec<(Digest, Option<Row>)>) -> u64 {
        let mut rows = 0;
        let mut pages = root.pages.clone();
        if root.depth == 1 {
            pages.clear();
            for list in &root.pages {
                self.wants(&list.object, name);
                match read_with(self.library, list, PageList::parse) {
                    Ok(l) if l.pages.iter().map(|p| p.rows).sum::<u32>() == list.rows => pages.extend(l.pages),
                    Ok(_) => self
                        .problems
                        .push(format!("{name}: page list {}: holds other than {} rows", list.object, list.rows)),
                    Err(e) => self.problems.push(format!("{name}: page list {}: {e}", list.object)),
                }
            }
        }
        for page in &pages {
            rows += u64::from(page.rows);
            if !self.wants(&page.object, name) {
                continue;
            }
            match read_with(self.library, page, |b| CataloguePage::parse(&unzstd(b)?)) {
                Ok(p) if p.rows.len() == page.rows as usize => {
                    records.extend(p.rows.into_iter().map(|row| (row.record, Some(row))));
                }
                Ok(p) => self.problems.push(format!(
                    "{name}: catalogue page {}: holds {} rows instead of {}",
                    page.object,
                    p.rows.len(),
                    page.rows
                )),
                Err(e) => self.problems.push(format!("{name}: catalogue page {}: {e}", page.object)),
            }
        }
        for playlist in &root.playlists {
            let by = format!("playlist {}", playlist.name);
            if !self.wants(&playlist.object, &by) {
                continue;
            }
            match read(self.library, &playlist.object).and_then(|b| Ok(Playlist::parse(&b)?)) {
                Ok(list) => records.extend(list.tracks.into_iter().map(|t| (t.record, None))),
                Err(e) => self.problems.push(format!("{by}: {e}")),
            }
        }
        rows
    }
}

/// Why an object cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It is not of its kind.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Its size is not the one that was named.
    #[error("has {is} bytes instead of {named}")]
    Size {
        /// Bytes it has.
        is: u64,
        /// Bytes it should have.
        named: u64,
    },
}

impl From<io::Error> for ObjectError {
    fn from(e: io::Error) -> Self {
        Self::Read(e)
    }
}

/// Reads an object, but not more of it than any but a rendition has.
pub fn read(library: &Path, digest: &Digest) -> Result<Vec<u8>, ObjectError> {
    let mut bytes = Vec::new();
    File::open(library.join(digest.path()))?.take(MAX_OBJECT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_with<T>(
    library: &Path,
    page: &PageRef,
    parse: impl Fn(&[u8]) -> Result<T, FormatError>,
) -> Result<T, ObjectError> {
    let bytes = read(library, &page.object)?;
    if bytes.len() as u64 != u64::from(page.size) {
        return Err(ObjectError::Size { is: bytes.len() as u64, named: page.size.into() });
    }
    Ok(parse(&bytes)?)
}

/// Takes a catalogue page out of zstd, within bounds.
pub fn unzstd(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    zstd::bulk::decompress(bytes, MAX_OBJECT).map_err(|e| FormatError::Shape(format!("zstd: {e}")))
}

/// Checks a record, its cover, and every segment of its renditions. Returns what it names and what is wrong.
fn record(
    library: &Path,
    there: &HashMap<Digest, u64>,
    digest: &Digest,
    row: Option<&Row>,
) -> (Vec<Digest>, Vec<String>) {
    let mut named = vec![*digest];
    let mut problems = Vec::new();
    let what = row.map_or(format!("record {digest}"), |r| format!("track {} ({})", r.id, r.title));
    let parsed = match read(library, digest).and_then(|b| Ok(Record::parse(&b)?)) {
        Ok(r) => r,
        Err(e) => return (named, vec![format!("{what}: record {}: {e}", digest.path())]),
    };
    if row.is_some_and(|r| r.id != parsed.id || r.duration_ms != parsed.duration_ms || r.title != parsed.title) {
        problems.push(format!("{what}: the catalogue says other than record {digest}"));
    }
    if let Some(cover) = parsed.cover {
        named.push(cover);
        if !there.contains_key(&cover) {
            problems.push(format!("{what}: names cover {}, which is missing", cover.path()));
        }
    }
    for r in &parsed.renditions {
        named.push(r.object);
        named.extend(r.index.iter().map(|i| i.object));
        if let Err(e) = rendition(library, r) {
            problems.push(format!("{what}: {} ({}): {e}", r.name.as_str(), r.object.path()));
        }
    }
    (named, problems)
}

/// Why a rendition is not what its index says.
#[derive(Debug, thiserror::Error)]
enum RenditionError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("index page {0}: {1}")]
    Index(Digest, ObjectError),
    #[error("index page {0}: begins at another byte or frame than the record says")]
    Place(Digest),
    #[error("segment {0}: {1}")]
    Segment(usize, &'static str),
    #[error("has {is} bytes, its index speaks of {index}, its record of {record}")]
    Size { is: u64, index: u64, record: u64 },
}

fn rendition(library: &Path, r: &Rendition) -> Result<(), RenditionError> {
    let mut file = File::open(library.join(r.object.path()))?;
    let (mut offset, mut packets, mut number) = (0, 0, 0);
    let mut bytes = Vec::new();
    for page_ref in &r.index {
        let index = |e| RenditionError::Index(page_ref.object, e);
        let page = read(library, &page_ref.object).and_then(|b| Ok(IndexPage::parse(&b)?)).map_err(index)?;
        let first = page.segments().next().map(|s| s.first_frame);
        if page_ref.offset != offset || first != Some(page_ref.first_frame) {
            return Err(RenditionError::Place(page_ref.object));
        }
        for s in page.segments() {
            let wrong = |what| RenditionError::Segment(number, what);
            bytes.resize(s.length as usize, 0);
            file.read_exact(&mut bytes).map_err(|_| wrong("is cut short"))?;
            if Digest::of(&bytes) != s.digest {
                return Err(wrong("has another digest than its index says"));
            }
            let segment = Segment::decode(&bytes).map_err(|_| wrong("is no segment"))?;
            if segment.first_frame != s.first_frame || segment.first_packet != packets {
                return Err(wrong("is of another place in the track"));
            }
            if segment.body.is_empty() {
                return Err(wrong("is empty"));
            }
            packets += segment.body.len() as u64;
            offset += u64::from(s.length);
            number += 1;
        }
    }
    let is = file.seek(SeekFrom::End(0))?;
    if is != offset || is != r.size {
        return Err(RenditionError::Size { is, index: offset, record: r.size });
    }
    Ok(())
}

/// Objects that are named.
pub type References = HashSet<Digest>;

/// Adds every object that `root` names, itself not included. Pages that `into` has already are not read again.
pub fn follow(
    root: &Root,
    read: &dyn Fn(&Digest) -> io::Result<Vec<u8>>,
    into: &mut References,
) -> Result<(), ObjectError> {
    let mut records = Vec::new();
    let mut pages = Vec::new();
    for page in &root.pages {
        if root.depth == 0 {
            pages.push(page.object);
        } else if into.insert(page.object) {
            pages.extend(PageList::parse(&read(&page.object)?)?.pages.iter().map(|p| p.object));
        }
    }
    for page in pages {
        if into.insert(page) {
            records.extend(CataloguePage::parse(&unzstd(&read(&page)?)?)?.rows.iter().map(|r| r.record));
        }
    }
    for list in &root.playlists {
        if into.insert(list.object) {
            records.extend(Playlist::parse(&read(&list.object)?)?.tracks.iter().map(|t| t.record));
        }
    }
    for digest in records {
        if into.insert(digest) {
            let record = Record::parse(&read(&digest)?)?;
            into.extend(record.cover);
            for r in &record.renditions {
                into.insert(r.object);
                into.extend(r.index.iter().map(|i| i.object));
            }
        }
    }
    Ok(())
}
