//! The terminal we were started in: changed while it serves as panel or buttons, put back when the guard is dropped.
//!
//! Dropping is what restores, so that a normal end, an error and a panic of the owner all do it. While the screen is ours,
//! what anybody writes to a terminal's standard error (a warning of a C library, a panic) would tear the picture: it goes to a
//! file without a name, and its end is printed when the screen is given back.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};

/// Of what was written to standard error meanwhile, at most so many bytes are printed.
const REPLAYED: u64 = 8 << 10;

/// Keys come one by one, unechoed, Ctrl-C and Ctrl-Z among them, until this is dropped.
pub struct Keys {
    before: Termios,
}

impl Keys {
    /// Takes standard input. None if it is not a terminal, or we are a background job of it.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn take() -> io::Result<Option<Self>> {
        let input = rustix::stdio::stdin();
        if !io::stdin().is_terminal() || tcgetpgrp(input).ok() != Some(getpgrp()) {
            return Ok(None);
        }
        let before = tcgetattr(input)?;
        let mut now = before.clone();
        now.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        now.special_codes[SpecialCodeIndex::VMIN] = 1;
        now.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(input, OptionalActions::Now, &now)?;
        Ok(Some(Self { before }))
    }
}

/// Makes Ctrl-C and Ctrl-Z signals again: whoever types them once more means the system, not us.
pub fn allow_signals() {
    let input = rustix::stdio::stdin();
    if let Ok(mut now) = tcgetattr(input) {
        now.local_modes |= LocalModes::ISIG;
        let _ = tcsetattr(input, OptionalActions::Now, &now);
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The terminal's other page, without a cursor, until this is dropped.
pub struct Screen {
    errors: Option<Diverted>,
}

/// Standard error, on its way into a file.
struct Diverted {
    to: OwnedFd,
    file: File,
}

impl Screen {
    /// Takes standard output. None if it is not a terminal that can be drawn on.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn take() -> io::Result<Option<Self>> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !io::stdout().is_terminal() {
            return Ok(None);
        }
        // Without a place for the file, standard error stays where it is.
        let errors = if io::stderr().is_terminal() { divert().ok() } else { None };
        let screen = Self { errors };
        write(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Some(screen))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write(b"\x1b[0m\x1b[?25h\x1b[?1049l");
        if let Some(mut errors) = self.errors.take() {
            let _ = rustix::stdio::dup2_stderr(&errors.to);
            let _ = replay(&mut errors.file);
        }
    }
}

/// Columns and rows of the terminal; 80 by 24 where it does not say.
pub fn size() -> (usize, usize) {
    match tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Writes to the terminal at once.
///
/// # Errors
/// It is gone.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn divert() -> io::Result<Diverted> {
    let path = std::env::temp_dir().join(format!("jukebox-{}.err", std::process::id()));
    let file = File::options().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let to = rustix::io::dup(rustix::stdio::stderr())?;
    rustix::stdio::dup2_stderr(&file)?;
    Ok(Diverted { to, file })
}

fn replay(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(REPLAYED)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    io::stderr().write_all(&text)
}
