//! `jukebox-tests figures` measures what the project claims, `nights` lives bad nights, `bench` listens to players behind bad
//! links. See [`jukebox_tests::figures`], [`jukebox_tests::nights`], [`jukebox_tests::lab`].

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jukebox_tests::{figures, lab, nights};

/// Counts what lives on the heap; the figures ask it.
#[global_allocator]
static HEAP: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// The test house of the jukebox.
#[derive(Parser, Debug)]
#[command(version, about)]
enum What {
    /// Measure what the project claims, and print it beside its limits
    Figures(figures::Args),
    /// Live nights of bad links, faults and power cuts in simulated time, beside the physical limit
    Nights(nights::Args),
    /// Print what the simulated links have of recorded ones (rows of `duration_ms bytes`)
    Fit {
        /// The recordings.
        files: Vec<PathBuf>,
    },
    /// Put players behind bad links, listen to them, and print what was heard
    Bench(lab::Args),
    /// A player that tells its heap: part of the figure `heap`
    #[command(hide = true)]
    HeapPlayer {
        /// Its configuration.
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match What::parse() {
        What::Figures(args) => figures::run(&args),
        What::Nights(args) => Ok(nights::run(&args)),
        What::Fit { files } => nights::fit(&files).map(|()| true),
        What::Bench(args) => lab::run(&args),
        What::HeapPlayer { config } => figures::heap_player(&config, || HEAP.allocated()).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("jukebox-tests: {e:#}");
            ExitCode::FAILURE
        }
    }
}
