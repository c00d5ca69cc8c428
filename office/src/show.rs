//! Show: any object of a library as JSON. Objects do not say what they are: that is told from their first bytes, and of a
//! rendition from the record that names it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jukebox_core::library::{
    CataloguePage, Digest, FormatError, IndexPage, MAX_OBJECT, PageList, Playlist, ROOT, Record, Root, SegmentRef,
    TrackId,
};
use serde_json::{Value, json};

use crate::verify::{ObjectError, unzstd};

/// Print an object of a library as JSON.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  jukebox-office show /srv/library root\n  \
    jukebox-office show /srv/library mfrggzdfmztwq2lk\n  \
    jukebox-office show /srv/library ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
pub struct Args {
    /// Folder of the library
    pub library: PathBuf,
    /// `root`, a track id (16 characters) or the name of an object (64 hex digits)
    pub object: String,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// Not a name.
    #[error("{0}: should be `root`, a track id (16 characters of a to z and 2 to 7) or 64 hex digits")]
    Name(String),
    /// No such track.
    #[error("the library has no track {0}")]
    Track(TrackId),
    /// It cannot be read, or is not of its kind.
    #[error("{0}: {1}")]
    Object(String, ObjectError),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<ExitCode, ShowError> {
    let value = show(&args.library, &args.object)?;
    // A value that was made from text or numbers cannot fail to be written.
    println!("{}", serde_json::to_string_pretty(&value).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

/// An object as JSON.
pub fn show(library: &Path, name: &str) -> Result<Value, ShowError> {
    let fail = |e: ObjectError| ShowError::Object(name.to_owned(), e);
    if name == "root" || name == ROOT {
        return Ok(json!(root(library).map_err(fail)?));
    }
    if let Ok(id) = name.parse::<TrackId>() {
        let (digest, record) = track(library, id)?;
        return Ok(json!({ "object": digest, "record": record }));
    }
    let digest: Digest = name.parse().map_err(|_| ShowError::Name(name.to_owned()))?;
    let bytes = read(library, &digest).map_err(fail)?;
    match guess(&bytes) {
        Some(value) => Ok(value),
        None => rendition(library, &digest).map_err(fail),
    }
}

/// The record of a track.
pub fn track(library: &Path, id: TrackId) -> Result<(Digest, Record), ShowError> {
    let fail = |e: ObjectError| ShowError::Object(id.to_string(), e);
    let mut found = None;
    tracks(library, &mut |row_id, record| {
        if row_id == id {
            found = Some(record);
        }
        found.is_none()
    })
    .map_err(fail)?;
    let digest = found.ok_or(ShowError::Track(id))?;
    let record = read(library, &digest).and_then(|b| Ok(Record::parse(&b)?)).map_err(fail)?;
    Ok((digest, record))
}

/// Objects that say what they are.
fn guess(bytes: &[u8]) -> Option<Value> {
    if bytes.starts_with(&[0xff, 0xd8]) {
        return Some(json!({ "jpeg": bytes.len() }));
    }
    if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return unzstd(bytes).and_then(|b| CataloguePage::parse(&b)).ok().map(|p| json!({ "catalogue": p }));
    }
    if bytes.starts_with(b"{") {
        return Root::parse(bytes).ok().map(|r| json!({ "root": r }));
    }
    None.or_else(|| Record::parse(bytes).ok().map(|r| json!({ "record": r })))
        .or_else(|| IndexPage::parse(bytes).ok().map(|p| json!({ "index": p.segments().collect::<Vec<_>>() })))
        .or_else(|| PageList::parse(bytes).ok().map(|p| json!({ "pages": p.pages })))
        .or_else(|| Playlist::parse(bytes).ok().map(|p| json!({ "playlist": p.tracks })))
}

/// A rendition by the record that names it, with all its segments.
fn rendition(library: &Path, digest: &Digest) -> Result<Value, ObjectError> {
    let mut records = Vec::new();
    tracks(library, &mut |_, record| {
        records.push(record);
        true
    })?;
    for record in records {
        let record = Record::parse(&read(library, &record)?)?;
        if let Some(r) = record.renditions.iter().find(|r| r.object == *digest) {
            let mut segments: Vec<SegmentRef> = Vec::new();
            for page in &r.index {
                segments.extend(IndexPage::parse(&read(library, &page.object)?)?.segments());
            }
            return Ok(json!({ "track": record.id, "title": record.title, "rendition": r, "segments": segments }));
        }
    }
    Err(FormatError::Shape("is of no kind that this version knows, or no track of the library names it".into()).into())
}

fn root(library: &Path) -> Result<Root, ObjectError> {
    Ok(Root::parse(&fs::read(library.join(ROOT))?)?)
}

/// Hands every row's track and record to `each` until it returns false.
fn tracks(library: &Path, each: &mut dyn FnMut(TrackId, Digest) -> bool) -> Result<(), ObjectError> {
    let root = root(library)?;
    let mut pages = Vec::new();
    for page in &root.pages {
        match root.depth {
            0 => pages.push(page.object),
            _ => pages.extend(PageList::parse(&read(library, &page.object)?)?.pages.iter().map(|p| p.object)),
        }
    }
    for page in pages {
        for row in CataloguePage::parse(&unzstd(&read(library, &page)?)?)?.rows {
            if !each(row.id, row.record) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads an object, but not more of it than any but a rendition has.
fn read(library: &Path, digest: &Digest) -> Result<Vec<u8>, ObjectError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(library.join(digest.path())).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => io::Error::new(e.kind(), "the library has no such object"),
        _ => e,
    })?;
    file.take(MAX_OBJECT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
