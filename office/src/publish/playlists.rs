//! Playlists: `.m3u8` files of the music folder become objects that the root names.
//!
//! *Entry*: a line that is no comment: a path beside the playlist, or one that another machine wrote, of which only the end
//! can be right. Law: an entry that is not in the library costs itself, and is named.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use jukebox_core::library::{Digest, Playlist, PlaylistRef, PlaylistTrack, TrackId, encode, playlist_id};

use super::tags::tidy;
use super::track::Analysed;
use super::write::Store;

/// Longest playlist file, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Most tracks of a playlist, and most playlists: the root and each playlist cross bad links whole.
const MAX_TRACKS: usize = 10_000;
const MAX_LISTS: usize = 1_000;
/// So many missing entries are named.
const NAMED: usize = 20;

/// What became of the playlists.
#[derive(Debug, Default)]
pub struct Lists {
    /// For the root, sorted by path.
    pub refs: Vec<PlaylistRef>,
    /// Entries that are not in the library.
    pub missing: u64,
    /// Playlists that are not used, and why.
    pub unusable: Vec<(PathBuf, String)>,
    /// What people should know of those that are used.
    pub notes: Vec<(PathBuf, String)>,
}

/// Stores the playlists at `paths` within `music`. `files` are all usable files, `records` the records of their tracks.
pub fn build(
    paths: &[PathBuf],
    music: &Path,
    files: &[(&Path, &Analysed)],
    records: &HashMap<TrackId, Digest>,
    store: &Store,
) -> io::Result<Lists> {
    let mut lists = Lists::default();
    if paths.is_empty() {
        return Ok(lists);
    }
    let shelf = Shelf::new(files);
    let mut ids: HashMap<String, &Path> = HashMap::new();
    for path in paths {
        let mut refuse = |why: String| lists.unusable.push((path.clone(), why));
        let id = playlist_id(&path.with_extension("").to_string_lossy());
        if id.is_empty() {
            refuse("has a name without a letter or digit: rename it".into());
            continue;
        }
        if let Some(other) = ids.get(&id) {
            refuse(format!("would be called `{id}`, as {} is: rename one of them", other.display()));
            continue;
        }
        if lists.refs.len() == MAX_LISTS {
            refuse(format!("is beyond the {MAX_LISTS} playlists that a library may have: remove some"));
            continue;
        }
        let text = match read(&music.join(path)) {
            Ok(text) => text,
            Err(why) => {
                refuse(why);
                continue;
            }
        };
        let (mut tracks, mut missing, mut name) = (Vec::new(), Vec::new(), String::new());
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            if let Some(given) = line.strip_prefix("#PLAYLIST:") {
                name = tidy(given);
            } else if !line.starts_with('#') {
                let track = shelf.find(path, line).and_then(|id| Some((id, *records.get(&id)?)));
                match track {
                    Some((id, record)) => tracks.push(PlaylistTrack { id, record }),
                    None => missing.push(line),
                }
            }
        }
        lists.missing += missing.len() as u64;
        let (found, all) = (tracks.len(), tracks.len() + missing.len());
        if found == 0 {
            refuse(match all {
                0 => "is an empty playlist: remove it, or put in paths of music".into(),
                _ => format!("has no entry in the library: {}", named(&missing)),
            });
            continue;
        }
        if !missing.is_empty() {
            let what =
                format!("has {} of {all} entries that are not in the library: {}", missing.len(), named(&missing));
            lists.notes.push((path.clone(), what));
        }
        if found > MAX_TRACKS {
            tracks.truncate(MAX_TRACKS);
            lists.notes.push((path.clone(), format!("has {found} tracks: the first {MAX_TRACKS} are used, split it")));
        }
        if name.is_empty() {
            name = tidy(&path.file_stem().unwrap_or_default().to_string_lossy());
        }
        let count = tracks.len() as u32;
        let bytes = encode(&Playlist { tracks });
        let (object, size) = (store.put(&bytes)?, bytes.len() as u32);
        lists.refs.push(PlaylistRef { id: id.clone(), name, object, size, tracks: count });
        ids.insert(id, path);
    }
    Ok(lists)
}

fn named(missing: &[&str]) -> String {
    let mut text: Vec<String> = missing.iter().take(NAMED).map(|m| tidy(m).chars().take(100).collect()).collect();
    if missing.len() > NAMED {
        text.push(format!("and {} more", missing.len() - NAMED));
    }
    text.join(", ")
}

/// Text of a playlist: UTF-8, else what old programs on Windows wrote, taken as Latin-1.
fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let fault = |e: io::Error| format!("cannot be read ({e}): check the disk and the permissions");
    File::open(path).map_err(fault)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("is longer than 4 MiB: is it a playlist? Split it".into());
    }
    if bytes.contains(&0) {
        return Err("is no text: is it a playlist? Save it as UTF-8".into());
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    Ok(String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| bytes.iter().map(|&b| char::from(b)).collect()))
}

/// Where each usable file is found, by its path within the music folder.
struct Shelf {
    exact: HashMap<String, TrackId>,
    /// In lower case; of files that differ in nothing else, the first.
    loose: HashMap<String, TrackId>,
}

impl Shelf {
    fn new(files: &[(&Path, &Analysed)]) -> Self {
        let mut shelf = Self { exact: HashMap::new(), loose: HashMap::new() };
        for (path, track) in files {
            let path = path.to_string_lossy();
            shelf.loose.entry(path.to_lowercase()).or_insert(track.id);
            shelf.exact.insert(path.into_owned(), track.id);
        }
        shelf
    }

    /// The track of a playlist's line.
    fn find(&self, playlist: &Path, line: &str) -> Option<TrackId> {
        let decoded = line.strip_prefix("file://").map(unescape);
        let line = decoded.as_deref().unwrap_or(line);
        // A backslash is part of a name here, and a separator where the playlist may come from.
        [line.to_owned(), line.replace('\\', "/")].iter().find_map(|line| {
            let beside = playlist.parent().unwrap_or(Path::new("")).join(line);
            let mut parts: Vec<String> = Vec::new();
            for part in line.split('/').filter(|p| !p.is_empty() && *p != ".") {
                match part {
                    ".." => drop(parts.pop()),
                    part => parts.push(part.to_owned()),
                }
            }
            let ends = (0..parts.len()).map(|from| parts[from..].join("/"));
            let tries: Vec<String> = normal(&beside).into_iter().chain(ends).collect();
            let exact = tries.iter().find_map(|t| self.exact.get(t));
            exact.or_else(|| tries.iter().find_map(|t| self.loose.get(&t.to_lowercase()))).copied()
        })
    }
}

/// A path without `.` and `..`; none if it leads out of the music folder.
fn normal(path: &Path) -> Option<String> {
    let mut out: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()?),
            Component::Normal(name) => out.push(name.to_str()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(out.join("/"))
}

/// Takes `%20` and its like out of a URL (RFC 3986, section 2.1).
fn unescape(url: &str) -> String {
    let mut out = Vec::new();
    let mut rest = url.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        rest = match code {
            Some(code) if byte == b'%' => {
                out.push(code);
                &after[2..]
            }
            _ => {
                out.push(byte);
                after
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_however_they_are_written() {
        let id = |n| TrackId([n; 10]);
        let exact: HashMap<String, TrackId> =
            [("Rock/Queen/a b.flac", 1), ("Rock/x.mp3", 2), ("top.ogg", 3), ("Rock/Lists/x.mp3", 4)]
                .map(|(p, n)| (p.to_owned(), id(n)))
                .into();
        let loose = exact.iter().map(|(p, n)| (p.to_lowercase(), *n)).collect();
        let shelf = Shelf { exact, loose };
        let find = |line| shelf.find(Path::new("Rock/Lists/mix.m3u8"), line);
        for (line, n) in [
            ("../Queen/a b.flac", 1),
            ("../queen/A B.FLAC", 1),
            ("x.mp3", 4),
            ("./x.mp3", 4),
            ("../x.mp3", 2),
            ("../../top.ogg", 3),
            ("/srv/music/Rock/x.mp3", 2),
            ("file:///srv/music/Rock/Queen/a%20b.flac", 1),
            ("D:\\Music\\Rock\\Queen\\a b.flac", 1),
            ("..\\Queen\\a b.flac", 1),
        ] {
            assert_eq!(find(line), Some(id(n)), "{line}");
        }
        for line in ["../../../etc/passwd", "nothing.mp3", "https://radio.example/live", "%", "..", "/"] {
            assert_eq!(find(line), None, "{line}");
        }
    }
}
