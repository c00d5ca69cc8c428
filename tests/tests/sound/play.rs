//! `jukebox play FILE...`.

use std::path::{Path, PathBuf};

use jukebox::audio::RateRule;
use jukebox::play::{PlayArgs, play};

use super::material::*;

fn args(files: &[&Path], output: String, rate: RateRule) -> PlayArgs {
    PlayArgs { files: files.iter().map(PathBuf::from).collect(), output, rate }
}

#[test]
fn a_flac_file_reaches_the_paced_sink_sample_for_sample() {
    let dir = tempfile::tempdir().unwrap();
    for (bits, form) in [(16, "s16"), (24, "s24")] {
        let file = flac(&wav(dir.path(), &format!("{bits}.wav"), 44_100, bits, 2, 2.0, bits));
        let out = dir.path().join(format!("{bits}-out.wav"));
        let paced = format!("paced:{form}:{}", out.display());
        play(args(&[&file], paced, RateRule::Follow)).unwrap();
        let bytes = bits as usize / 8;
        assert_same(&recorded(&out, bytes), &flac_reference(&file, bytes), form);
    }
}
