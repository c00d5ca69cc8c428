//! What a program wrote, recorded by strace, and the disk as it may lie after a power cut at any of its calls.
//!
//! Law: a recorded call counts when it ends, and only if it succeeded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The calls that change files, and by which the player answers.
pub const CALLS: &str = "trace=openat,pwrite64,write,sendto,ftruncate,fsync,fdatasync,rename,unlink,pwritev,fallocate";
/// Ids of commands to a traced player begin like this; their number follows.
pub const COMMAND_ID: &str = "\"id\":\"power-cut-";

/// One recorded call.
pub enum Call {
    Open { path: PathBuf, truncate: bool },
    Write { path: PathBuf, at: usize, bytes: Vec<u8> },
    Truncate { path: PathBuf, len: usize },
    Sync { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    Ack(u64),
}

/// The calls of a trace that matter for files in the folders `state` and `cache` of `dir`, in order. Interrupted calls count
/// when they end.
pub fn parse(trace: &str, dir: &Path) -> Vec<Call> {
    let ours = |path: &Path| ["state", "cache"].iter().any(|part| path.starts_with(dir.join(part)));
    let mut ends: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut unfinished: BTreeMap<&str, String> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let whole = if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, start.into());
            continue;
        } else if rest.starts_with("<...") {
            let end = rest.split_once("resumed>").unwrap().1;
            unfinished.remove(pid).unwrap() + end
        } else {
            rest.into()
        };
        // The result of an interrupted call stands in a column of its own: spaces before it.
        let Some((call, result)) = whole.rsplit_once(" = ") else { continue };
        let Some((name, args)) = call.trim_end().strip_suffix(')').and_then(|c| c.split_once('(')) else { continue };
        if result.starts_with("-1 ") || result.starts_with('?') {
            continue;
        }
        // `-y` shows the file behind a descriptor.
        let of_fd = || {
            let path = PathBuf::from(unhex_text(args.split_once('<').unwrap().1.split_once('>').unwrap().0));
            ours(&path).then_some(path)
        };
        let strings: Vec<Vec<u8>> = args.split('"').skip(1).step_by(2).map(unhex).collect();
        let path = |n: usize| PathBuf::from(String::from_utf8(strings[n].clone()).unwrap());
        let number = || args.rsplit(',').next().unwrap().trim().parse::<usize>().unwrap();
        match name {
            "openat" if ours(&path(0)) => {
                ends.insert(path(0), 0);
                calls.push(Call::Open { path: path(0), truncate: args.contains("O_TRUNC") });
            }
            "pwrite64" => {
                calls.extend(of_fd().map(|path| Call::Write { path, at: number(), bytes: strings[0].clone() }))
            }
            "ftruncate" => calls.extend(of_fd().map(|path| Call::Truncate { path, len: number() })),
            "fsync" | "fdatasync" => calls.extend(of_fd().map(|path| Call::Sync { path })),
            "rename" if ours(&path(0)) => calls.push(Call::Rename { from: path(0), to: path(1) }),
            "unlink" if ours(&path(0)) => calls.push(Call::Unlink { path: path(0) }),
            "write" | "sendto" => match of_fd() {
                // Such files are written from their start to their end.
                Some(path) => {
                    let at = ends.entry(path.clone()).or_default();
                    let bytes = strings[0].clone();
                    let written: usize = result.trim().parse().unwrap();
                    assert_eq!(bytes.len(), written, "{}: a write in parts, or not recorded whole", path.display());
                    calls.push(Call::Write { path, at: *at, bytes });
                    *at += written;
                }
                None => {
                    let text = strings.first().map(|s| String::from_utf8_lossy(s).into_owned()).unwrap_or_default();
                    let number = text.trim().strip_prefix("ACK ").or_else(|| {
                        let id = text.split_once(COMMAND_ID).filter(|_| text.contains("\"status\":\"ok\""));
                        id?.1.split('"').next()
                    });
                    calls.extend(number.map(|n| Call::Ack(n.parse().unwrap())));
                }
            },
            "pwritev" | "fallocate" => assert!(of_fd().is_none(), "{name} is not replayed"),
            _ => {}
        }
    }
    calls
}

fn unhex(s: &str) -> Vec<u8> {
    s.split("\\x").skip(1).map(|h| u8::from_str_radix(h, 16).unwrap()).collect()
}

fn unhex_text(s: &str) -> String {
    if s.contains("\\x") { String::from_utf8(unhex(s)).unwrap() } else { s.into() }
}

#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync.
    since: Vec<(usize, Option<Vec<u8>>)>,
}

fn apply(content: &mut Vec<u8>, at: usize, bytes: Option<&[u8]>) {
    match bytes {
        None => content.resize(at, 0),
        Some(bytes) => {
            content.resize(content.len().max(at + bytes.len()), 0);
            content[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// What of the unsynced writes reached the card.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    All,
    None,
    Half,
}

/// Lays out the files of `dir` as they may lie on the card after a cut at each call, and checks each image with the number of
/// the last acknowledgement: all images, or about `most` of them, evenly. How many that were.
pub fn replay(calls: &[Call], dir: &Path, most: usize, check: impl Fn(&Path, u64, Cut)) -> usize {
    let memory = Path::new("/dev/shm");
    let images = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let mut files: BTreeMap<PathBuf, File> = BTreeMap::new();
    let (mut acked, mut checked, mut seen, mut random) = (0, 0, 0usize, 1u64);
    let all = 3 * calls.iter().filter(|c| !matches!(c, Call::Open { .. })).count();
    for call in calls {
        match call {
            Call::Ack(n) => acked = *n,
            Call::Open { path, truncate } => {
                let f = files.entry(path.clone()).or_default();
                if *truncate {
                    f.now.clear();
                    f.since.push((0, None));
                }
                continue;
            }
            Call::Write { path, at, bytes } => {
                let f = files.entry(path.clone()).or_default();
                apply(&mut f.now, *at, Some(bytes));
                f.since.push((*at, Some(bytes.clone())));
            }
            Call::Truncate { path, len } => {
                let f = files.entry(path.clone()).or_default();
                apply(&mut f.now, *len, None);
                f.since.push((*len, None));
            }
            Call::Sync { path } => {
                if let Some(f) = files.get_mut(path) {
                    f.synced.clone_from(&f.now);
                    f.since.clear();
                }
            }
            Call::Rename { from, to } => {
                let f = files.remove(from).unwrap_or_else(|| panic!("{} was not seen being made", from.display()));
                files.insert(to.clone(), f);
            }
            Call::Unlink { path } => drop(files.remove(path)),
        }
        for cut in [Cut::All, Cut::None, Cut::Half] {
            seen += 1;
            // The same number of images whatever the number of calls.
            if most < all && seen * most / all == (seen - 1) * most / all {
                continue;
            }
            let image = images.path().join(format!("{checked}"));
            lay_out(&files, dir, &image, cut, &mut random);
            check(&image, acked, cut);
            fs::remove_dir_all(&image).unwrap();
            checked += 1;
        }
    }
    checked
}

fn lay_out(files: &BTreeMap<PathBuf, File>, dir: &Path, to: &Path, cut: Cut, random: &mut u64) {
    // A folder is opened, too, to make names durable.
    let folders: BTreeSet<_> = files.keys().flat_map(|p| p.ancestors().skip(1)).collect();
    for (path, f) in files.iter().filter(|(p, _)| !folders.contains(p.as_path())) {
        let content = match cut {
            Cut::All => f.now.clone(),
            Cut::None => f.synced.clone(),
            Cut::Half => {
                let mut content = f.synced.clone();
                for (at, bytes) in &f.since {
                    // Knuth's MMIX generator: the same images in every run.
                    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    if *random >> 63 == 0 {
                        apply(&mut content, *at, bytes.as_deref());
                    }
                }
                content
            }
        };
        let file = to.join(path.strip_prefix(dir).unwrap());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
}
