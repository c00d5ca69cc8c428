//! The binary: see `jukebox --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    jukebox::cli::Cli::parse().run()
}
