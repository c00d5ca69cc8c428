//! Publish: a music folder in, a library out.

use std::path::PathBuf;
use std::process::ExitCode;

/// Turn a music folder into a library that any web server can hold.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  jukebox-office publish /srv/music /srv/library\n  \
    jukebox-office publish --popularity plays.csv --jobs 4 /srv/music /srv/library")]
pub struct Args {
    /// Folder with the music (FLAC and MP3, in any depth)
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

/// What stops a publish.
#[derive(Debug, thiserror::Error)]
#[error("publish is not built yet")]
pub struct PublishError;

/// Runs the subcommand.
pub fn run(_args: &Args) -> Result<ExitCode, PublishError> {
    Err(PublishError)
}
