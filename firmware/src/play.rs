//! `jukebox play FILE...`: files through the same ring, renderer and devices as library music.
//!
//! For trying a machine and a DAC: gapless across files of one rate, one line for a file that does not play, and on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use jukebox_board::output::Device;

use crate::audio::stream::{Stream, StreamError};
use crate::audio::{Player, RateRule, Settings};

/// Plays files and ends.
#[derive(Clone, Debug, clap::Args)]
pub struct PlayArgs {
    /// Files to play, one after the other: FLAC, MP3, Ogg Vorbis, Ogg Opus, AAC (ADTS), WAV
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// ALSA device: `default`, `hw:CARD=NAME,DEV=0`, `plughw:...`; or `paced:FILE.wav`, which records instead
    #[arg(long, value_name = "PCM", default_value = "default")]
    pub output: String,
    /// Rate of the device: `follow` each file, or a fixed one in Hz
    #[arg(long, value_name = "follow|HZ", default_value = "follow", value_parser = rate_rule)]
    pub rate: RateRule,
}

/// `follow`, or a rate in Hz.
///
/// # Errors
/// Neither.
pub fn rate_rule(text: &str) -> Result<RateRule, String> {
    match text.parse() {
        _ if text == "follow" => Ok(RateRule::Follow),
        Ok(rate @ 8_000..=384_000) => Ok(RateRule::Fixed(rate)),
        _ => Err("should be `follow` or a rate from 8000 to 384000".into()),
    }
}

/// Plays all files that can be played. Prints what plays to standard output, and a line to standard error for each file
/// that does not.
///
/// # Errors
/// The output does not open, or not one file could be played.
pub fn play(args: PlayArgs) -> anyhow::Result<()> {
    let device: Device = args.output.parse()?;
    let settings = Settings { outputs: vec![device], rate: args.rate, period_ms: None, start_ramp_ms: 0 };
    let mut player = Player::new(settings);
    let mut played = 0;
    for path in &args.files {
        let name = path.display();
        let mut stream = match Stream::open(path) {
            Ok(stream) => stream,
            Err(e) => {
                eprintln!("{name}: {e}");
                continue;
            }
        };
        player.begin(stream.rate(), stream.content()).context("no sound device")?;
        let title = stream.title().map_or_else(String::new, |t| format!("{t}, "));
        let length = stream.seconds().map_or_else(String::new, |s| format!(", {}:{:02}", s / 60, s % 60));
        println!("{name}: {title}{} Hz{length}", stream.rate());
        played += 1;
        if let Err(e) = feed(&mut player, &mut stream)? {
            eprintln!("{name}: stopped early: {e}");
        }
        player.end();
    }
    player.finish(Duration::from_secs(10)).context("no sound device")?;
    if played == 0 {
        bail!("nothing to play");
    }
    Ok(())
}

/// The outer error is the device's and ends everything; the inner one is the file's.
fn feed(player: &mut Player, stream: &mut Stream) -> anyhow::Result<Result<(), StreamError>> {
    loop {
        match stream.next_block() {
            Ok(Some(frames)) => player.put(frames).context("no sound device")?,
            Ok(None) => return Ok(Ok(())),
            Err(e) => return Ok(Err(e)),
        }
    }
}
