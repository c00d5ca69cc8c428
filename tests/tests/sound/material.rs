//! Sound made by sox, coded by the usual tools, decoded by the usual tools.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a tool; its standard output.
pub fn run(tool: &str, args: &[&str]) -> Vec<u8> {
    let done = Command::new(tool).args(args).output().unwrap_or_else(|e| panic!("{tool} is needed: {e}"));
    assert!(done.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A WAV with tones, noise and a beat, that no codec finds easy. `seed` makes them differ.
pub fn wav(dir: &Path, name: &str, rate: u32, bits: u32, channels: u32, seconds: f64, seed: u32) -> PathBuf {
    synth(&dir.join(name), [rate, bits, channels], seconds, seed, &["pinknoise"])
}

/// The same without noise: nothing hides a click.
pub fn tones(path: &Path, format: [u32; 3], seconds: f64, seed: u32) -> PathBuf {
    synth(path, format, seconds, seed, &["sine", "97"])
}

/// `format`: rate, bits, channels.
fn synth(path: &Path, format: [u32; 3], seconds: f64, seed: u32, more: &[&str]) -> PathBuf {
    let hz = (300 + 37 * seed).to_string();
    let up = format!("{}-{}", 400 + 11 * seed, 3_000 + 100 * seed);
    let [rate, bits, channels] = format.map(|n| n.to_string());
    let seconds = &*seconds.to_string();
    let form = ["-R", "-n", "-r", &rate, "-b", &bits, "-c", &channels, text(path)];
    let tones = ["synth", seconds, "sine", &hz, "synth", seconds, "sine", "mix", &up, "synth", seconds];
    let (third, mix) = more.split_at(1);
    run("sox", &[&form[..], &tones, third, &["mix"], mix, &["tremolo", "3", "60", "gain", "-n", "-3"]].concat());
    path.to_owned()
}

/// Codes a WAV as FLAC.
pub fn flac(wav: &Path) -> PathBuf {
    let path = wav.with_extension("flac");
    run("flac", &["-s", "-f", "-o", text(&path), text(wav)]);
    path
}

/// Codes a WAV as MP3.
pub fn mp3(wav: &Path, options: &[&str]) -> PathBuf {
    let path = wav.with_extension("mp3");
    let args = [&["--quiet"], options, &[text(wav), text(&path)]].concat();
    run("lame", &args);
    path
}

/// What `flac -d` makes of a file, as integers in their own bits, interleaved.
pub fn flac_reference(path: &Path, bytes: usize) -> Vec<i32> {
    let raw = run("flac", &["-s", "-d", "-c", "--force-raw-format", "--endian=little", "--sign=signed", text(path)]);
    integers(&raw, bytes)
}

/// Little-endian integers of 2, 3 or 4 bytes.
pub fn integers(raw: &[u8], bytes: usize) -> Vec<i32> {
    raw.chunks_exact(bytes)
        .map(|b| {
            let mut wide = [0; 4];
            wide[4 - bytes..].copy_from_slice(b);
            i32::from_le_bytes(wide) >> (32 - 8 * bytes)
        })
        .collect()
}

/// What ffmpeg makes of a file, as floats.
pub fn ffmpeg_reference(path: &Path) -> Vec<f32> {
    let raw = run("ffmpeg", &["-v", "error", "-i", text(path), "-f", "f32le", "-"]);
    raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Energy of the difference against the energy of the reference. At any other lag than 0 it is near 0 dB.
pub fn residual_db(found: &[f32], reference: &[f32]) -> f64 {
    let power = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let error = power(&mut found.iter().zip(reference).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    10.0 * (error / power(&mut reference.iter().map(|x| f64::from(*x)))).log10()
}

/// The samples of a WAV that the virtual DAC wrote (its header is 44 bytes).
pub fn recorded(path: &Path, bytes: usize) -> Vec<i32> {
    integers(&std::fs::read(path).unwrap()[44..], bytes)
}

/// `found` begins with `expected`, and then is silent.
pub fn assert_same(found: &[i32], expected: &[i32], what: &str) {
    let first = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "{what}: first difference at sample {first:?} of {}", expected.len());
    assert!(found.len() >= expected.len(), "{what}: {} of {} samples", found.len(), expected.len());
    assert!(found[expected.len()..].iter().all(|&x| x == 0), "{what}: sound after the end");
}

/// Writes the right checksum into every page of an Ogg file (RFC 3533, section 6).
pub fn mend_ogg(bytes: &mut [u8]) {
    let mut at = 0;
    while at < bytes.len() {
        assert_eq!(bytes[at..at + 4], *b"OggS");
        let segments = usize::from(bytes[at + 26]);
        let body: usize = bytes[at + 27..at + 27 + segments].iter().map(|&n| usize::from(n)).sum();
        let page = &mut bytes[at..at + 27 + segments + body];
        page[22..26].fill(0);
        let step = |crc: u32, bit: bool| if bit { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
        let crc =
            page.iter().fold(0u32, |crc, &b| (0..8).fold(crc ^ u32::from(b) << 24, |crc, _| step(crc, crc >> 31 == 1)));
        page[22..26].copy_from_slice(&crc.to_le_bytes());
        at += page.len();
    }
}
