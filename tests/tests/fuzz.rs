//! Hostile bytes for all that reads a stranger's bytes: pieces of a true library, torn and mixed, and what was found before
//! (`tests/fuzz/regressions/TARGET`). A moment for each target; `JUKEBOX_FUZZ_S=600` tries each for ten minutes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jukebox_tests::fuzz::TARGETS;
use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::{folder, office, root, run};

/// Tries of each target when no time is given.
const TRIES: u64 = 400;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        // Knuth's MMIX constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// True bytes of every kind: a library's objects (pages also out of zstd), music, the example of the configuration, words.
fn seeds() -> Vec<Vec<u8>> {
    let dir = folder();
    let (songs, library) = (dir.path().join("songs"), dir.path().join("library"));
    std::fs::create_dir(&songs).unwrap();
    for (n, name) in ["a.flac", "b.mp3"].iter().enumerate() {
        music::make(&songs.join(name), &Song { seconds: 0.4, seed: n as u32 + 1, ..Song::default() });
    }
    office::publish(&songs, &library);
    for (name, codec) in [
        ("c.wav", "pcm_s16le"),
        ("d.ogg", "libvorbis"),
        ("e.opus", "libopus"),
        ("f.m4a", "aac"),
        ("g.m4a", "alac"),
        ("h.aiff", "pcm_s16be"),
    ] {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-i"]).arg(songs.join("a.flac"));
        run(ffmpeg.args(["-c:a", codec]).arg(dir.path().join(name)));
    }
    // A WAV with a chunk of ID3: the tag that the MP3 begins with.
    let (mp3, mut wav) =
        (std::fs::read(songs.join("b.mp3")).unwrap(), std::fs::read(dir.path().join("c.wav")).unwrap());
    let tag = 10 + mp3[6..10].iter().fold(0, |n, b| n << 7 | usize::from(*b));
    wav.extend([&b"id3 "[..], &(tag as u32).to_le_bytes(), &mp3[..tag]].concat());
    std::fs::write(dir.path().join("i.wav"), wav).unwrap();
    let mut found = vec![root().join("systemd/jukebox.toml.example")];
    files(dir.path(), &mut found);
    let mut seeds: Vec<Vec<u8>> = found.iter().map(|f| std::fs::read(f).unwrap()).collect();
    let plain: Vec<_> = seeds.iter().filter_map(|s| zstd::bulk::decompress(s, 1 << 22).ok()).collect();
    seeds.extend(plain);
    let words = ["7 next", "+5", "1:30", "waterloo", r#"{"text":"x","where":"next","id":"12345678","by":"me"}"#];
    seeds.extend(words.map(|w| format!("a{w}").into_bytes()));
    seeds
}

/// A seed torn in one to four places.
fn torn(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.below(256) as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(bytes.len()))),
            4 => {
                let piece: Vec<u8> = bytes[at..(at + 1 + random.below(32)).min(bytes.len())].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..(from + 4096).min(other.len())]);
            }
        }
    }
    bytes
}

#[test]
fn torn_bytes_harm_nobody() {
    let span = std::env::var("JUKEBOX_FUZZ_S").ok().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let seeds = seeds();
    for (n, (name, target)) in TARGETS.into_iter().enumerate() {
        let (mut random, start) = (Random(n as u64), Instant::now());
        let mut tries = 0;
        while span.map_or(tries < TRIES, |span| start.elapsed() < span) {
            let bytes = torn(&seeds, &mut random);
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                let kept = std::env::temp_dir().join(format!("jukebox-fuzz-{name}"));
                std::fs::write(&kept, &bytes).unwrap();
                panic!("{name}: the bytes lie in {}", kept.display());
            }
            tries += 1;
        }
        println!("{name}: {tries} tries");
    }
}

#[test]
fn what_was_found_before_is_harmless() {
    for (name, target) in TARGETS {
        let Ok(folder) = root().join("tests/fuzz/regressions").join(name).read_dir() else { continue };
        for file in folder {
            target(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
