//! Outside: what we have no decoder for goes through ffmpeg, where one is installed, and comes back as FLAC.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use symphonia::core::io::MediaSource;

/// Endings of what only ffmpeg may be able to decode.
const ENDINGS: &[&str] = &[
    "wma", "ape", "wv", "mpc", "tta", "dsf", "dff", "mp1", "mp2", "spx", "ac3", "dts", "caf", "au", "ra", "aifc",
    "alac",
];

/// Whether a file that could not be opened may be one for ffmpeg.
pub fn may_know(path: &Path) -> bool {
    ending(path).is_some_and(|e| ENDINGS.contains(&e.as_str()))
}

fn ending(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

/// Whether ffmpeg is installed.
pub fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        let run = Command::new("ffmpeg")
            .arg("-version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        run.is_ok_and(|s| s.success())
    })
}

/// A file's sound as FLAC, while ffmpeg makes it. It ends with this.
pub struct Outside {
    out: Mutex<ChildStdout>,
    child: Child,
}

impl Outside {
    /// Starts ffmpeg.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A path is a path, even if it looks like an address or an option.
        let mut url = std::ffi::OsString::from("file:");
        url.push(path);
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-v", "error", "-i"]).arg(url).args(["-map", "0:a:0", "-c:a", "flac"]);
        if ending(path).is_some_and(|e| e == "dsf" || e == "dff") {
            // One bit at megahertz: an eighth of its rate would still be 352,800, and most of it noise.
            ffmpeg.args(["-ar", "88200"]);
        }
        ffmpeg.args(["-f", "flac", "-"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = ffmpeg.spawn()?;
        let out = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { out: Mutex::new(out), child })
    }
}

impl Read for Outside {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.out.get_mut().unwrap_or_else(PoisonError::into_inner).read(into)
    }
}

impl Seek for Outside {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl MediaSource for Outside {
    fn is_seekable(&self) -> bool {
        false
    }
    fn byte_len(&self) -> Option<u64> {
        None
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // It has ended, or is of no use any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
