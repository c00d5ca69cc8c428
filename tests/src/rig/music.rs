//! Music for tests: signals without a single silent sample, so that every silent one in a recording is a gap.

use std::path::Path;
use std::process::Command;

use super::recording::Recording;
use super::{root, run};

/// What a test file holds.
#[derive(Debug, Clone)]
pub struct Song<'a> {
    /// Title; the file is named after it.
    pub title: &'a str,
    /// Artist.
    pub artist: &'a str,
    /// Seconds.
    pub seconds: f64,
    /// Samples a second.
    pub rate: u32,
    /// Bits of a FLAC sample: 16 or 24.
    pub bits: u32,
    /// Start of the random numbers: two songs sound alike only if this is the same.
    pub seed: u32,
}

impl Default for Song<'_> {
    fn default() -> Self {
        Self { title: "Noise", artist: "The Rig", seconds: 10.0, rate: 44_100, bits: 16, seed: 1 }
    }
}

/// Writes `song` as FLAC or MP3, by the ending of `file`: pink noise beside a tone, at about -20 dBFS.
///
/// # Panics
/// When ffmpeg or lame is missing or fails.
pub fn make(file: &Path, song: &Song<'_>) {
    let Song { title, artist, seconds, rate, bits, seed } = song;
    // The tone's pitch tells songs apart by ear; the noise makes every stretch of it findable in a recording.
    let pitch = 220 + 20 * (seed % 20);
    let tone = format!("sine=frequency={pitch}:sample_rate={rate}:duration={seconds}");
    let noise = |n: u32| format!("anoisesrc=color=pink:amplitude=0.2:seed={n}:sample_rate={rate}:duration={seconds}");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-y"]);
    for source in [&tone, &noise(2 * seed), &noise(2 * seed + 1)] {
        ffmpeg.args(["-f", "lavfi", "-i", source]);
    }
    let mix = "[1][0]amix=weights=1 1:normalize=0[l];[2][0]amix=weights=1 1:normalize=0[r];[l][r]join=inputs=2:channel_layout=stereo";
    ffmpeg.args(["-filter_complex", mix, "-ar", &rate.to_string()]);
    ffmpeg.args(["-metadata", &format!("title={title}"), "-metadata", &format!("artist={artist}")]);
    ffmpeg.args(["-metadata", "album=Made for tests"]);
    if file.extension().is_some_and(|e| e == "mp3") {
        ffmpeg.args(["-c:a", "libmp3lame", "-b:a", "128k"]);
    } else {
        ffmpeg.args([
            "-c:a",
            "flac",
            "-sample_fmt",
            if *bits == 24 { "s32" } else { "s16" },
            "-bits_per_raw_sample",
            &bits.to_string(),
        ]);
    }
    run(ffmpeg.arg(file));
}

/// The reference decode of `file`, by ffmpeg, at its own rate: what a perfect player hands to the DAC.
///
/// # Panics
/// When ffmpeg is missing or fails.
pub fn decode(file: &Path, folder: &Path) -> Recording {
    let wav = folder.join("reference.wav");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-i"]).arg(file).args(["-c:a", "pcm_s32le"]);
    run(ffmpeg.arg(&wav));
    Recording::read(&wav)
}

/// Renders the project's own tunes to FLAC in `folder`.
///
/// # Panics
/// When fluidsynth and its friends are missing.
pub fn tunes(folder: &Path) {
    run(Command::new(root().join("tests/tunes/render")).arg(folder));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_song_has_its_length_and_not_one_gap() {
        let folder = crate::rig::folder();
        for (name, rate, bits) in [("a.flac", 44_100, 16), ("b.flac", 96_000, 24), ("c.mp3", 44_100, 16)] {
            let file = folder.path().join(name);
            make(&file, &Song { seconds: 2.0, rate, bits, ..Song::default() });
            let sound = decode(&file, folder.path());
            assert_eq!((sound.rate, sound.frames.len()), (rate, 2 * rate as usize), "{name}");
            assert!(sound.gaps(1.0).is_empty(), "{name}");
            if name.ends_with("flac") {
                let odd = sound.frames.iter().filter(|f| (f[0] >> (32 - bits - 1)) & 1 == 1).count();
                assert_eq!(odd, 0, "{name} has no more than {bits} bits");
            }
        }
    }

    /// The tunes are heard, not trusted: length, loudness, and the first notes of each melody at their time.
    #[test]
    fn the_tunes_are_the_tunes() {
        let folder = crate::rig::folder();
        tunes(folder.path());
        let scores = [
            // File, beats a minute, sixteenths before the melody begins, its first notes (MIDI) by sixteenth.
            ("the-entertainer.flac", 78.0, 0.0, &[(0, 86), (1, 88), (2, 84), (3, 81), (5, 83), (6, 79)][..]),
            ("maple-leaf-rag.flac", 98.0, 2.0, &[(1, 68), (2, 75), (3, 68), (4, 72), (5, 75), (7, 67)][..]),
            ("prelude-in-c.flac", 96.0, 0.0, &[(0, 60), (1, 64), (2, 67), (3, 72), (4, 76)][..]),
        ];
        for (name, tempo, lead, notes) in scores {
            let sound = decode(&folder.path().join(name), folder.path());
            let seconds = sound.frames.len() as f64 / f64::from(sound.rate);
            assert!((75.0..95.0).contains(&seconds), "{name}: {seconds} s");
            assert!((-30.0..-12.0).contains(&sound.rms_db()), "{name}: {} dB", sound.rms_db());
            let sixteenth = 60.0 / tempo / 4.0;
            for (at, note) in notes {
                let from = (lead + f64::from(*at)) * sixteenth;
                let heard =
                    |midi: f64| sound.level_at(from + 0.03, sixteenth - 0.03, 440.0 * ((midi - 69.0) / 12.0).exp2());
                let (right, below, above) =
                    (heard(f64::from(*note)), heard(f64::from(*note) - 1.0), heard(f64::from(*note) + 1.0));
                assert!(right > 2.0 * below && right > 2.0 * above, "{name}: sixteenth {at} is not note {note}");
            }
        }
    }
}
