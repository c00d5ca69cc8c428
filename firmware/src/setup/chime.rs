//! A chime through one output: two notes, so that it is known for what it is.

use std::f32::consts::TAU;
use std::time::Duration;

use anyhow::Context;
use jukebox_board::output::{Content, Device};

use crate::audio::{Player, RateRule, Settings};

const RATE: u32 = 48_000;
/// The notes, in Hz: C5 and E5.
const NOTES: [f32; 2] = [523.25, 659.26];
/// Of each note.
const NOTE: Duration = Duration::from_millis(400);
/// About -18 dB below full scale: heard, and no shock on headphones.
const LEVEL: f32 = 0.125;

/// Plays it, and returns when it has been heard.
///
/// # Errors
/// There is no such output, or another program has it.
pub(super) fn play(output: &str) -> anyhow::Result<()> {
    let device: Device = output.parse()?;
    let settings = Settings { outputs: vec![device], rate: RateRule::Follow, period_ms: None, start_ramp_ms: 0 };
    let mut player = Player::new(settings);
    player.begin(RATE, Content::Float).context("if the player has it: sudo systemctl stop jukebox")?;
    for note in NOTES {
        player.put(&samples(note))?;
    }
    player.end();
    player.finish(Duration::from_secs(5))?;
    Ok(())
}

/// A note that dies away, the same on both sides.
fn samples(hz: f32) -> Vec<f32> {
    let frames = (NOTE.as_secs_f32() * RATE as f32) as usize;
    let sample = |n: usize| {
        let at = n as f32 / RATE as f32;
        // Begins without a click, and has died away by its end.
        let shape = (at / 0.01).min(1.0) * (1.0 - n as f32 / frames as f32).powi(2);
        LEVEL * shape * (TAU * hz * at).sin()
    };
    (0..frames).map(sample).flat_map(|s| [s, s]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_begins_and_ends_in_silence() {
        let note = samples(523.25);
        let peak = note.iter().fold(0.0_f32, |most, s| most.max(s.abs()));
        assert!(note[0] == 0.0 && note[note.len() - 1].abs() < 1e-6 && (0.1..=LEVEL).contains(&peak), "{peak}");
    }
}
