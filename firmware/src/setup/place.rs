//! Puts the configuration in place in one step, keeps what was there, and blanks the boot partition's copy.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Copies that are kept at most; with all of them there, somebody should look.
const COPIES: u32 = 100;

/// Writes `text` to `path`, mode 0600, for the user of the service where we are root. Returns the name under which what was
/// there is kept, if it was another text.
pub(super) fn put(path: &Path, text: &str) -> anyhow::Result<Option<PathBuf>> {
    let old = match fs::read_to_string(path) {
        Ok(old) => Some(old),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fix = || format!("{}: run it as root, or give another --config", folder.display());
    fs::create_dir_all(folder).with_context(fix)?;
    let new = beside(path, ".new");
    // Left by one that was killed.
    let _ = fs::remove_file(&new);
    let written = write(&new, text, path).with_context(fix).and_then(|()| {
        let kept = if old.is_some_and(|old| old != text) { Some(keep(path)?) } else { None };
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()?;
        Ok(kept)
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write(new: &Path, text: &str, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(text.as_bytes())?;
    if let Some((user, group)) = owner(path) {
        rustix::fs::fchown(&file, Some(rustix::fs::Uid::from_raw(user)), Some(rustix::fs::Gid::from_raw(group)))?;
    }
    file.sync_all()
}

/// Who is to own the file: the user of the service where we may give files away.
fn owner(path: &Path) -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").ok()?.uid() != 0 {
        return None;
    }
    // A file in another place than the service's belongs to whoever made it.
    if path != Path::new(crate::config::PATH) {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let row = passwd.lines().find_map(|l| l.strip_prefix("jukebox:"))?;
    let mut numbers = row.split(':').skip(1).take(2).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Gives what is there a second name: there is never a moment without a file.
fn keep(path: &Path) -> io::Result<PathBuf> {
    for n in 1..=COPIES {
        let copy = beside(path, &format!(".old-{n}"));
        match fs::hard_link(path, &copy) {
            Ok(()) => return Ok(copy),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other(format!("there are {COPIES} old copies: remove some")))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path.file_name().unwrap_or_default());
    name.push(ending);
    path.with_file_name(name)
}

/// Writes zeros over the file, then makes it empty: it held a password, and whoever has the card reads its boot partition.
pub(super) fn blank(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len();
    file.write_all(&vec![0; usize::try_from(length).unwrap_or(0)])?;
    file.sync_all()?;
    file.set_len(0)?;
    file.sync_all()
}
