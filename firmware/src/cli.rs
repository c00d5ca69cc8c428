//! `run`, `play FILE...`, and the contract's verbs over the socket, in the grammar that people type.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::{Value, json};

use crate::config::{self, Config, ConfigError};
use crate::doctor::DoctorArgs;
use crate::play::PlayArgs;
use crate::setup::SetupArgs;
use crate::{driver, panel, socket};

/// The player of the office jukebox.
#[derive(Parser, Debug)]
#[command(version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    what: What,
    /// Print what is answered as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Socket of the running player.
    #[arg(long, global = true, env = "JUKEBOX_SOCKET", default_value = "/run/jukebox/socket", value_name = "PATH")]
    socket: PathBuf,
}

const EXAMPLES: &str = "Examples:
  jukebox run --config /etc/jukebox/jukebox.toml
  jukebox add waterloo abba        the best hit to the end of the queue
  jukebox search waterloo
  jukebox skip                     on to the next; 'skip 7' only if entry 7 plays
  jukebox seek 1:30                or +10, -10 seconds
  jukebox playlist friday --shuffle
  jukebox volume +5
  jukebox status
  jukebox play song.flac           try the sound device without an office";

#[derive(Subcommand, Debug)]
enum What {
    /// Be the player.
    Run(RunArgs),
    /// Without files: let the player play. With files: play them here, without an office.
    Play(PlayArgs),
    /// Put the best hit of a search into the queue (or track:ID).
    Add(Words),
    /// Look into the catalogue.
    Search(Words),
    /// Hold the music.
    Pause,
    /// Play or pause.
    Toggle,
    /// Stop: silence until somebody plays or adds.
    #[command(after_help = "Examples:\n  jukebox stop\n  jukebox stop after    when the track has ended")]
    Stop {
        /// Not now: when the track has ended.
        when: Option<When>,
    },
    /// On to the next entry; with a number only if that entry plays.
    Skip {
        /// The entry.
        entry: Option<u32>,
    },
    /// Back to the start of the track; in its first 3 s, to the track before it.
    Previous,
    /// Go elsewhere in the track.
    #[command(after_help = "Examples:\n  jukebox seek 1:30    a minute and a half into the track\n  \
        jukebox seek +10     ten seconds on; beyond the end is the next track\n  jukebox seek -1:00   a minute back")]
    Seek {
        /// 1:30, +10 or -10 (minutes and seconds, or seconds).
        #[arg(allow_hyphen_values = true)]
        to: String,
    },
    /// Set the volume: 35, +5 or -5.
    Volume {
        /// 0 to 100, or a change with its sign.
        #[arg(allow_hyphen_values = true)]
        percent: String,
    },
    /// Mute: true, false or toggle.
    Mute {
        /// true, false or toggle.
        #[arg(default_value = "toggle")]
        on: String,
    },
    /// Take an entry out of the queue.
    Remove {
        /// The entry.
        entry: u32,
    },
    /// Give an entry another place in the queue.
    #[command(after_help = "Examples:\n  jukebox move 7 next   right after the current one\n  \
        jukebox move 7 end\n  jukebox move 7 3      before entry 3")]
    Move {
        /// The entry.
        entry: u32,
        /// next, end, or the entry that it goes before.
        place: String,
    },
    /// Take all entries but the current one out of the queue.
    #[command(after_help = "Examples:\n  jukebox clear\n  jukebox clear --only-by user-17   what one person asked for")]
    Clear {
        /// Only what this person asked for.
        #[arg(long, value_name = "WHO")]
        only_by: Option<String>,
    },
    /// Put a playlist of the library into the queue.
    #[command(after_help = "Examples:\n  jukebox playlist friday\n  \
        jukebox playlist --shuffle --mode replace friday night")]
    Playlist {
        /// Behind all others, right after the current entry, or in place of the whole queue.
        #[arg(long, value_enum, default_value_t = Mode::End)]
        mode: Mode,
        /// In an order of chance.
        #[arg(long)]
        shuffle: bool,
        /// Its name.
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// Show the playlists of the library.
    Playlists,
    /// Show the queue.
    Queue,
    /// Show what was played, the last first.
    History {
        /// At most so many plays, 1 to 200.
        #[arg(default_value_t = 20)]
        limit: u32,
    },
    /// Show what plays.
    Now,
    /// Show how the player is.
    Health,
    /// Ask whether the player listens.
    Ping,
    /// Say in one sentence what the player does.
    Status,
    /// Show state and events as they come.
    Watch,
    /// Show what the panel shows.
    Panel(PanelArgs),
    /// Set the player up: who it is, where the office is, which board and outputs.
    Setup(Box<SetupArgs>),
    /// Check all that silently does not work, and say what mends it.
    #[command(after_help = "Exit status 0 if all is well, else 1.")]
    Doctor(DoctorArgs),
    /// Look after the configuration.
    #[command(subcommand)]
    Config(ConfigWhat),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum When {
    After,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Mode {
    End,
    Next,
    Replace,
}

#[derive(Args, Debug)]
struct Words {
    /// Words of title, artist, album.
    #[arg(required = true)]
    words: Vec<String>,
}

#[derive(Args, Debug)]
struct PanelArgs {
    /// Say on the panel why no player runs: for systemd when it has ended.
    #[arg(long)]
    last_words: bool,
    /// Configuration file.
    #[arg(long, env = "JUKEBOX_CONFIG", default_value = "/etc/jukebox/jukebox.toml", value_name = "FILE")]
    config: PathBuf,
}

/// Options of `jukebox run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Configuration file.
    #[arg(long, env = "JUKEBOX_CONFIG", default_value = "/etc/jukebox/jukebox.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// A line to show under the panel in the terminal (may be given again).
    #[arg(long, value_name = "TEXT")]
    pub below: Vec<String>,
    /// Write log lines to this file instead of standard error.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum ConfigWhat {
    /// Read the configuration and say what is wrong, or what it means.
    Check {
        /// Configuration file.
        #[arg(env = "JUKEBOX_CONFIG", default_value = "/etc/jukebox/jukebox.toml")]
        file: PathBuf,
    },
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let outcome = match &self.what {
            What::Run(args) => return run(args),
            What::Play(args) if !args.files.is_empty() => crate::play::play(args.clone()),
            What::Config(ConfigWhat::Check { file }) => return check(file),
            What::Setup(args) => crate::setup::setup(args),
            What::Doctor(args) => return crate::doctor::doctor(args, &self.socket, self.json),
            What::Panel(args) if args.last_words => {
                let of_systemd = |name| std::env::var(name).unwrap_or_default();
                return panel::last_words(&args.config, &of_systemd("SERVICE_RESULT"), &of_systemd("EXIT_STATUS"));
            }
            What::Completions { shell } => {
                clap_complete::generate(*shell, &mut Self::command(), "jukebox", &mut std::io::stdout());
                Ok(())
            }
            What::Watch => self.watch(),
            other => self.ask(other),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("jukebox: {e:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn ask(&self, what: &What) -> anyhow::Result<()> {
        let line = question(what);
        let verb = line["verb"].as_str().unwrap_or_default();
        let answer = socket::ask(&self.socket, &line.to_string()).map_err(|e| self.unreachable(&e))?;
        if self.json {
            println!("{answer}");
        }
        let answer: Value = serde_json::from_str(&answer)?;
        if answer["status"] == "refused" {
            anyhow::bail!("{}", answer["reason"].as_str().unwrap_or("refused"));
        }
        if !self.json {
            print!("{}", in_words(verb, &answer));
        }
        Ok(())
    }

    fn watch(&self) -> anyhow::Result<()> {
        let mut stream = std::os::unix::net::UnixStream::connect(&self.socket).map_err(|e| self.unreachable(&e))?;
        writeln!(stream, r#"{{"verb":"watch"}}"#)?;
        for line in BufReader::new(stream).lines() {
            println!("{}", line?);
        }
        Ok(())
    }

    fn unreachable(&self, e: &std::io::Error) -> anyhow::Error {
        let fix = "is the player running? Its [socket] path can be given with --socket";
        anyhow::anyhow!("{}: {e}; {fix}", self.socket.display())
    }
}

/// The line for the socket: the plain text of the contract, or its fields.
fn question(what: &What) -> Value {
    let say = |verb: &str, text: &str| json!({"verb": verb, "say": text});
    match what {
        What::Play(_) => say("play", ""),
        What::Add(w) => say("add", &w.words.join(" ")),
        What::Search(w) => say("search", &w.words.join(" ")),
        What::Pause => say("pause", ""),
        What::Toggle => say("toggle", ""),
        What::Stop { when: None } => say("stop", ""),
        What::Stop { when: Some(When::After) } => say("stop", "after"),
        What::Skip { entry } => say("skip", &entry.map(|e| e.to_string()).unwrap_or_default()),
        What::Previous => say("previous", ""),
        What::Seek { to } => say("seek", to),
        What::Volume { percent } => say("volume", percent),
        What::Mute { on } => say("mute", on),
        What::Remove { entry } => say("remove", &entry.to_string()),
        What::Move { entry, place } => say("move", &format!("{entry} {place}")),
        What::Clear { only_by } => json!({"verb": "clear", "only_by": only_by}),
        What::Playlist { mode, shuffle, name } => {
            let mode = format!("{mode:?}").to_lowercase();
            json!({"verb": "playlist", "name": name.join(" "), "mode": mode, "shuffle": shuffle})
        }
        What::Playlists => say("playlists", ""),
        What::Queue => say("queue", ""),
        What::History { limit } => json!({"verb": "history", "limit": limit}),
        What::Now => say("now", ""),
        What::Health => say("health", ""),
        What::Ping => say("ping", ""),
        What::Panel(_) => say("panel", ""),
        _ => say("status", ""),
    }
}

fn check(file: &Path) -> ExitCode {
    match Config::load(file).and_then(|c| c.check_report()) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(config::EXIT)
        }
    }
}

fn run(args: &RunArgs) -> ExitCode {
    if let Err(e) = log(args) {
        eprintln!("jukebox: {e:#}");
        return ExitCode::FAILURE;
    }
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("{e}");
            panel::say_not_set_up(&args.config, &e);
            return ExitCode::from(config::EXIT);
        }
    };
    match driver::run(&config, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e:#}");
            eprintln!("jukebox: {e:#}");
            failure(&e)
        }
    }
}

/// The CA is read when the player starts; what it wants is in the configuration all the same.
fn failure(e: &anyhow::Error) -> ExitCode {
    if e.is::<ConfigError>() { ExitCode::from(config::EXIT) } else { ExitCode::FAILURE }
}

/// Log lines go to standard error (the journal), or to a file where a panel has the terminal.
fn log(args: &RunArgs) -> anyhow::Result<()> {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::prelude::*;
    let wish = std::env::var("JUKEBOX_LOG").ok().and_then(|w| w.parse::<Targets>().ok());
    let filter = wish.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_target(false).with_ansi(false);
    match &args.log {
        Some(path) => {
            let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let file = open.map_err(|e| anyhow::anyhow!("{}: {e}; give another --log", path.display()))?;
            lines.with_writer(std::sync::Mutex::new(file)).finish().with(filter).init();
        }
        None if std::io::stderr().is_terminal() => {
            lines.with_writer(std::io::stderr).finish().with(filter).init();
        }
        // The journal has its own time stamps.
        None => lines.without_time().with_writer(std::io::stderr).finish().with(filter).init(),
    }
    Ok(())
}

/// An answer as people read it.
fn in_words(verb: &str, answer: &Value) -> String {
    let data = &answer["data"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let song = |t: &Value| match (text(&t["title"]), text(&t["artist"])) {
        (title, artist) if artist.is_empty() => title,
        (title, artist) => format!("{title} - {artist}"),
    };
    match verb {
        "add" => {
            let when = match data["starts_in_s"].as_u64() {
                Some(0) => "now".into(),
                Some(s) => format!("in {}", clock(s * 1_000)),
                None => "when the stream before it is ended".into(),
            };
            format!("Entry {}: {}, starts {when}\n", data["entry"], song(&data["track"]))
        }
        "search" => {
            let list = data["results"].as_array().map(Vec::as_slice).unwrap_or_default();
            let line = |t: &Value| format!("track:{}  {}  {}\n", text(&t["track"]), clock_of(t), song(t));
            let more = data["total"].as_u64().unwrap_or(0).saturating_sub(list.len() as u64);
            let rest = if more > 0 { format!("and {more} more\n") } else { String::new() };
            list.iter().map(line).collect::<String>() + &rest
        }
        "queue" => {
            let list = data["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
            let line = |e: &Value| {
                format!("{:>5}  {}  {}  ({})\n", e["entry"].to_string(), clock_of(e), song(e), text(&e["by"]))
            };
            if list.is_empty() { "Nothing queued\n".into() } else { list.iter().map(line).collect() }
        }
        "now" => {
            let at = data["position_ms"].as_u64().map(clock).unwrap_or_default();
            let reason = data["reason"]["text"].as_str().map(|r| format!("  {r}")).unwrap_or_default();
            let track = &data["track"];
            let what =
                if track.is_null() { String::new() } else { format!("  {}  {at}/{}", song(track), clock_of(track)) };
            format!("{}{what}{reason}\n", text(&data["state"]))
        }
        "seek" | "previous" => match data["entry"].as_u64() {
            Some(entry) => format!("Entry {entry} at {}\n", clock(data["position_ms"].as_u64().unwrap_or(0))),
            None => "Nothing plays\n".into(),
        },
        "move" => format!("Place {} in the queue\n", data["place"]),
        "clear" => format!("{} out\n", entries(&data["removed"])),
        "playlist" => {
            let missing = match data["missing"].as_u64().unwrap_or(0) {
                0 => String::new(),
                n => format!(", {n} missing in the library"),
            };
            let full = match data["left_out"].as_u64().unwrap_or(0) {
                0 => String::new(),
                n => format!(", {n} left out: the queue is full"),
            };
            format!("{} added{missing}{full}\n", entries(&data["added"]))
        }
        "playlists" => {
            let list = data["playlists"].as_array().map(Vec::as_slice).unwrap_or_default();
            let line =
                |p: &Value| format!("{:>5}  {}  ({})\n", p["tracks"].to_string(), text(&p["id"]), text(&p["name"]));
            if list.is_empty() { "The library has no playlists\n".into() } else { list.iter().map(line).collect() }
        }
        "history" => {
            let list = data["plays"].as_array().map(Vec::as_slice).unwrap_or_default();
            let line = |p: &Value| {
                let at = p["at"].as_str().and_then(|a| a.get(..16)).unwrap_or("").replace('T', " ");
                let cut = if p["skipped"] == true { ", skipped" } else { "" };
                format!("{at:16}  {}  {}  ({}{cut})\n", clock_of(p), song(p), text(&p["by"]))
            };
            if list.is_empty() { "Nothing was played\n".into() } else { list.iter().map(line).collect() }
        }
        "volume" => format!("{} %\n", data["percent"]),
        "mute" => format!("mute {}\n", if data["on"] == true { "on" } else { "off" }),
        "stop" if data["state"] != "stopped" => "Stops after this track\n".into(),
        "play" | "pause" | "toggle" | "stop" => format!("{}\n", text(&data["state"])),
        "skip" => match data["entry"].as_u64() {
            Some(entry) => format!("On to entry {entry}\n"),
            None => "Nothing next\n".into(),
        },
        "remove" => format!("Entry {} is out\n", data["entry"]),
        "ping" => format!("It listens; this run is {}\n", text(&data["boot"])),
        "status" | "panel" => format!("{}\n", text(&data["text"])),
        _ => serde_json::to_string_pretty(data).unwrap_or_default() + "\n",
    }
}

/// "1 entry", "12 entries".
fn entries(n: &Value) -> String {
    if n == 1 { "1 entry".into() } else { format!("{n} entries") }
}

fn clock_of(t: &Value) -> String {
    match t["duration_ms"].as_u64().unwrap_or(0) {
        0 if t["kind"] == "stream" => "live".into(),
        ms => clock(ms),
    }
}

/// Minutes and seconds: `3:07`.
fn clock(ms: u64) -> String {
    format!("{}:{:02}", ms / 60_000, ms / 1_000 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let line = |args: &[&str]| question(&Cli::try_parse_from([&["jukebox"], args].concat()).unwrap().what);
        let said = |verb, text| json!({"verb": verb, "say": text});
        assert_eq!(line(&["volume", "-5"]), said("volume", "-5"));
        assert_eq!(line(&["seek", "-1:00"]), said("seek", "-1:00"));
        assert_eq!(line(&["move", "7", "next"]), said("move", "7 next"));
        assert_eq!(line(&["stop", "after"]), said("stop", "after"));
        let friday = json!({"verb": "playlist", "name": "friday night", "mode": "next", "shuffle": true});
        assert_eq!(line(&["playlist", "friday", "night", "--mode", "next", "--shuffle"]), friday);
        // Every verb of the contract has its command.
        for verb in jukebox_core::command::Verb::ALL {
            assert!(Cli::command().find_subcommand(verb.as_str()).is_some(), "{}", verb.as_str());
        }
        assert!(Cli::try_parse_from(["jukebox", "dance"]).is_err());
    }

    #[test]
    fn whatever_is_wrong_with_the_configuration_exits_78() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jukebox.toml");
        let exit = ExitCode::from(78);
        assert_eq!(check(&file), exit, "missing");
        std::fs::write(&file, "[office]\nsite = 7\n").unwrap();
        assert_eq!(check(&file), exit, "wrong");
        let at = folder.path().display();
        let text = format!(
            "[office]\nsite = \"hq\"\nplayer = \"lobby\"\norigins = [\"https://office/\"]\nca_pem = \"none\"\n\
             [store]\nstate = \"{at}/state\"\ncache = \"{at}/cache\"\n[socket]\npath = \"{at}/socket\"\n"
        );
        std::fs::write(&file, text).unwrap();
        assert_eq!(check(&file), exit, "a bad CA");
        let args = RunArgs { config: file.clone(), below: Vec::new(), log: None };
        let error = driver::run(&Config::load(&file).unwrap(), &args).unwrap_err();
        assert_eq!(failure(&error), exit, "{error:#}");
        assert_eq!(failure(&anyhow::anyhow!("the card")), ExitCode::FAILURE);
    }

    #[test]
    fn answers_are_plain() {
        let added = json!({"data": {"entry": 8, "starts_in_s": 61, "track": {"title": "A", "artist": "B"}}});
        assert_eq!(in_words("add", &added), "Entry 8: A - B, starts in 1:01\n");
        assert_eq!(in_words("queue", &json!({"data": {"entries": []}})), "Nothing queued\n");
        assert_eq!(in_words("skip", &json!({"data": {"entry": null}})), "Nothing next\n");
        let list = json!({"data": {"added": 40, "missing": 2, "left_out": 0}});
        assert_eq!(in_words("playlist", &list), "40 entries added, 2 missing in the library\n");
        assert_eq!(in_words("seek", &json!({"data": {"entry": 7, "position_ms": 90_000}})), "Entry 7 at 1:30\n");
        let play = json!({"title": "A", "artist": "B", "by": "x", "duration_ms": 61_000, "skipped": true,
            "at": "2026-11-20T10:15:02.120Z"});
        assert_eq!(
            in_words("history", &json!({"data": {"plays": [play]}})),
            "2026-11-20 10:15  1:01  A - B  (x, skipped)\n"
        );
    }
}
