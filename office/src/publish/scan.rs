//! Scan: which files of a music folder are to be worked on. Nothing is opened here.
//!
//! *Source*: a file whose name says that it is music. Names that begin with a dot are not looked at (macOS leaves `._x.mp3`
//! beside `x.mp3`). Links are followed, each folder once.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that may be music.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Within the music folder.
    pub path: PathBuf,
    /// Its size, time and place: if they are what they were, it was not written to.
    pub stamp: Stamp,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Found {
    /// Files to work on, sorted by path.
    pub sources: Vec<Source>,
    /// Playlists within the music folder, sorted by path.
    pub playlists: Vec<PathBuf>,
    /// Folders and files that could not be looked at, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Extensions that name music: what publish takes, and what it says it cannot take yet.
const MUSIC: &[&str] = &[
    "flac", "mp3", "wav", "wave", "aif", "aiff", "aifc", "ogg", "oga", "opus", "m4a", "m4b", "mp4", "aac", "alac",
    "wma", "ape", "wv", "mpc", "tta", "dsf", "dff", "mka", "mp2", "mp1", "spx", "ac3", "dts", "caf", "au", "ra",
];

/// Extensions of playlists.
const PLAYLISTS: &[&str] = &["m3u8", "m3u"];

/// Looks through `music`, but not into `library` should it lie within.
pub fn scan(music: &Path, library: &Path) -> io::Result<Found> {
    let library = fs::canonicalize(library).ok();
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut folders = vec![PathBuf::new()];
    // The first folder must be there; a later one that fails costs its own files only.
    fs::read_dir(music)?;
    while let Some(folder) = folders.pop() {
        if let Err(e) = look(music, &folder, library.as_deref(), &mut seen, &mut folders, &mut found) {
            found.unreadable.push((folder, e.to_string()));
        }
    }
    found.sources.sort_by(|a, b| a.path.cmp(&b.path));
    found.playlists.sort();
    found.unreadable.sort();
    Ok(found)
}

fn look(
    music: &Path,
    folder: &Path,
    library: Option<&Path>,
    seen: &mut HashSet<(u64, u64)>,
    folders: &mut Vec<PathBuf>,
    found: &mut Found,
) -> io::Result<()> {
    let whole = music.join(folder);
    let here = fs::metadata(&whole)?;
    if !seen.insert((here.dev(), here.ino()))
        || (library.is_some() && fs::canonicalize(&whole).ok().as_deref() == library)
    {
        return Ok(());
    }
    for entry in fs::read_dir(&whole)? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = folder.join(&name);
        match fs::metadata(music.join(&path)) {
            Ok(m) if m.is_dir() => folders.push(path),
            Ok(m) if m.is_file() && is_one_of(&path, PLAYLISTS) => found.playlists.push(path),
            Ok(m) if m.is_file() && is_one_of(&path, MUSIC) => {
                let mtime_ns = m.mtime().saturating_mul(1_000_000_000).saturating_add(m.mtime_nsec());
                found.sources.push(Source { path, stamp: Stamp { size: m.size(), mtime_ns } });
            }
            Ok(_) => {}
            Err(e) if is_one_of(&path, MUSIC) || is_one_of(&path, PLAYLISTS) => {
                found.unreadable.push((path, e.to_string()))
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn is_one_of(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    extensions.iter().any(|m| extension.eq_ignore_ascii_case(m))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_once_and_dots_are_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("library/o")).unwrap();
        for f in ["a/b/2.FLAC", "a/1.mp3", "a/cover.jpg", "a/._1.mp3", "a/b/Mix.M3U8", "library/o/x.mp3"] {
            fs::write(at(f), f).unwrap();
        }
        std::os::unix::fs::symlink(at("a"), at("a/b/loop")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("a/gone.mp3")).unwrap();
        let found = scan(dir.path(), &at("library")).unwrap();
        let paths: Vec<_> = found.sources.iter().map(|s| s.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a/1.mp3", "a/b/2.FLAC"]);
        assert_eq!(found.sources[0].stamp.size, 7);
        assert_eq!(found.playlists, [Path::new("a/b/Mix.M3U8")]);
        assert_eq!(found.unreadable.len(), 1);
        assert!(scan(&at("nothing"), &at("library")).is_err());
    }
}
