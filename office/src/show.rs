//! Show: any object of a library as JSON.

use std::path::PathBuf;
use std::process::ExitCode;

/// Print an object of a library as JSON.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder of the library
    pub library: PathBuf,
    /// `root`, a digest (64 hex digits) or a track id (16 characters)
    pub object: String,
}

/// What stops a show.
#[derive(Debug, thiserror::Error)]
#[error("show is not built yet")]
pub struct ShowError;

/// Runs the subcommand.
pub fn run(_args: &Args) -> Result<ExitCode, ShowError> {
    Err(ShowError)
}
