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

#[test]
fn files_of_one_rate_are_gapless_and_bad_ones_cost_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (wav(dir.path(), "a.wav", 44_100, 16, 2, 0.6, 1), wav(dir.path(), "b.wav", 44_100, 16, 2, 0.5, 2));
    let c = wav(dir.path(), "c.wav", 44_100, 16, 2, 0.4, 3);
    let files = [flac(&a), flac(&b)];
    let (broken, folder) = (dir.path().join("broken.mp3"), dir.path().join("folder.flac"));
    std::fs::write(&broken, b"this is no music").unwrap();
    std::fs::create_dir(&folder).unwrap();
    let out = dir.path().join("out.wav");
    let all = [&*files[0], &broken, &folder, Path::new("nowhere.flac"), &files[1], &c];
    play(args(&all, format!("unpaced:s16:{}", out.display()), RateRule::Follow)).unwrap();
    let third = flac_reference(&flac(&c), 2);
    let reference = [flac_reference(&files[0], 2), flac_reference(&files[1], 2), third].concat();
    assert_same(&recorded(&out, 2), &reference, "FLAC, FLAC, WAV");
}

#[test]
fn mp3_and_ogg_files_play_with_their_own_length() {
    let dir = tempfile::tempdir().unwrap();
    let source = wav(dir.path(), "a.wav", 44_100, 16, 2, 1.0, 1);
    let (ogg, opus) = (dir.path().join("a.ogg"), dir.path().join("a.opus"));
    run("oggenc", &["-Q", "-o", ogg.to_str().unwrap(), source.to_str().unwrap()]);
    run("opusenc", &["--quiet", source.to_str().unwrap(), opus.to_str().unwrap()]);
    for (file, rate) in [(mp3(&source, &["-V2"]), 44_100), (ogg, 44_100), (opus, 48_000)] {
        let out = dir.path().join("out.wav");
        play(args(&[&file], format!("unpaced:s24:{}", out.display()), RateRule::Follow)).unwrap();
        let found = recorded(&out, 3);
        let last = found.iter().rposition(|&x| x != 0).unwrap() / 2 + 1;
        assert!((rate - 60..=rate).contains(&last), "{}: {last} frames of {rate}", file.display());
    }
}

#[test]
fn nothing_to_play_and_no_device_are_errors_of_one_line() {
    let said = |files: &[&Path], output: &str| {
        let e = play(args(files, output.into(), RateRule::Follow)).unwrap_err();
        format!("{e:#}")
    };
    assert_eq!(said(&[Path::new("nowhere.flac")], "unpaced"), "nothing to play");
    assert!(said(&[Path::new("nowhere.flac")], "paced:").starts_with("output `paced:`: should be"));
    let dir = tempfile::tempdir().unwrap();
    let file = flac(&wav(dir.path(), "a.wav", 44_100, 16, 2, 0.2, 1));
    let text = said(&[&file], "hw:CARD=nowhere,DEV=0");
    assert!(text.starts_with("no sound device: output `hw:CARD=nowhere,DEV=0` is not there"), "{text}");
    assert!(!text.contains('\n'));
}
