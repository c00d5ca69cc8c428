//! Verify: every digest and every reference of a library is checked.

use std::path::PathBuf;
use std::process::ExitCode;

/// Check every digest and every reference of a library.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder of the library
    pub library: PathBuf,
}

/// What stops a verify.
#[derive(Debug, thiserror::Error)]
#[error("verify is not built yet")]
pub struct VerifyError;

/// Runs the subcommand.
pub fn run(_args: &Args) -> Result<ExitCode, VerifyError> {
    Err(VerifyError)
}
