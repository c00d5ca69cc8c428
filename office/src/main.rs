//! `jukebox-office`: one binary, one subcommand a job. Each module brings its `Args` and a `run`; here they only meet.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jukebox_office::{config, export, player, publish, serve, show, verify};

/// The office end of the jukebox: turns music into a library, checks it, serves it.
#[derive(Debug, Parser)]
#[command(name = "jukebox-office", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Publish(publish::Args),
    Verify(verify::Args),
    Show(show::Args),
    Export(export::Args),
    Serve(serve::Args),
    Player(player::Args),
    Config(config::Args),
}

fn main() -> ExitCode {
    let done: anyhow::Result<ExitCode> = match Cli::parse().command {
        Command::Publish(args) => publish::run(&args).map_err(Into::into),
        Command::Verify(args) => verify::run(&args).map_err(Into::into),
        Command::Show(args) => show::run(&args).map_err(Into::into),
        Command::Export(args) => export::run(&args).map_err(Into::into),
        Command::Serve(args) => serve::run(&args).map_err(Into::into),
        Command::Player(args) => player::run(&args).map_err(Into::into),
        Command::Config(args) => config::run(&args).map_err(Into::into),
    };
    done.unwrap_or_else(|e| {
        eprintln!("jukebox-office: {e:#}");
        ExitCode::FAILURE
    })
}
