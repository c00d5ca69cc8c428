//! `jukebox-tests figures`: measures what the project claims. See [`jukebox_tests::figures`].

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jukebox_tests::figures;

/// Counts what lives on the heap; the figures ask it.
#[global_allocator]
static HEAP: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// The test house of the jukebox.
#[derive(Parser, Debug)]
#[command(version, about)]
enum What {
    /// Measure what the project claims, and print it beside its limits
    Figures(figures::Args),
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
