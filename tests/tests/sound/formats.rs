//! Every format, by the encoders that people use, through the office and the player to the sink.
//!
//! Lossless: bit for bit. Lossy: as many frames as went in, none of them late, and what ffmpeg decodes; Opus: what libopus
//! decodes. From any segment on: the same, where the codec allows it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use jukebox::audio::{Dac, Form, RateRule};
use jukebox_core::library::{Codec, RenditionName};
use jukebox_core::segment::Segment;
use jukebox_office::publish::{Options, publish};

use super::material::*;
use super::rig::*;

/// What a rendition is measured by.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// The source: every bit.
    Bits,
    /// ffmpeg; every start gives the same.
    Ffmpeg,
    /// ffmpeg; its noise is thrown anew at each start.
    Noisy,
    /// libopus; a start is close.
    Libopus,
}

struct Format {
    /// The file's.
    name: &'static str,
    /// Rate, bits and channels of the source.
    source: [u32; 3],
    /// Tool and arguments; `IN` and `OUT` stand for the files.
    tool: &'static str,
    codec: Codec,
    by: By,
}

const SECONDS: f64 = 6.1;
const CD: [u32; 3] = [44_100, 16, 2];
const DAT: [u32; 3] = [48_000, 16, 2];

const FORMATS: [Format; 19] = {
    use By::{Bits, Ffmpeg, Libopus, Noisy};
    use Codec::{Aac, Flac, Mp3, Opus, Vorbis};
    const fn format(name: &'static str, source: [u32; 3], tool: &'static str, codec: Codec, by: By) -> Format {
        Format { name, source, tool, codec, by }
    }
    [
        format("wav.wav", CD, "sox -D IN OUT", Flac, Bits),
        format("wav-24-96-mono.wav", [96_000, 24, 1], "sox -D IN OUT", Flac, Bits),
        format("aiff.aiff", [48_000, 24, 2], "sox -D IN OUT", Flac, Bits),
        format("alac.m4a", CD, "ffmpeg -v error -i IN -c:a alac OUT", Flac, Bits),
        format("flac.flac", CD, "flac -s IN -o OUT", Flac, Bits),
        format("flac-blocks.flac", CD, "flac -s --blocksize=1000 -3 IN -o OUT", Flac, Bits),
        format("flac-small.flac", CD, "ffmpeg -v error -i IN -c:a flac -frame_size 333 OUT", Flac, Bits),
        format("oggenc.ogg", CD, "oggenc -Q -q 5 -o OUT IN", Vorbis, Ffmpeg),
        format("oggenc-low.ogg", [22_050, 16, 1], "oggenc -Q -q 1 -o OUT IN", Vorbis, Ffmpeg),
        format("ffmpeg.ogg", DAT, "ffmpeg -v error -i IN -c:a libvorbis -q:a 2 OUT", Vorbis, Ffmpeg),
        format("aac.m4a", CD, "ffmpeg -v error -i IN -c:a aac -b:a 128k -aac_pns 0 OUT", Aac, Ffmpeg),
        format(
            "aac-fast.m4a",
            DAT,
            "ffmpeg -v error -i IN -c:a aac -b:a 160k -aac_pns 0 -movflags faststart OUT",
            Aac,
            Ffmpeg,
        ),
        format("aac-noise.m4a", CD, "ffmpeg -v error -i IN -c:a aac -b:a 96k OUT", Aac, Noisy),
        format("aac-itunes.m4a", CD, "ffmpeg -v error -i IN -c:a aac -b:a 128k -aac_pns 0 OUT", Aac, Ffmpeg),
        format("lame-v0.mp3", CD, "lame --quiet -V0 IN OUT", Mp3, Ffmpeg),
        format("lame-abr.mp3", CD, "lame --quiet --abr 150 IN OUT", Mp3, Ffmpeg),
        format("opusenc.opus", DAT, "opusenc --quiet --bitrate 96 IN OUT", Opus, Libopus),
        format("opus-gain.opus", DAT, "opusenc --quiet --bitrate 64 IN OUT", Opus, Libopus),
        format(
            "opus-speech.opus",
            [48_000, 16, 1],
            "opusenc --quiet --bitrate 16 --framesize 60 IN OUT",
            Opus,
            Libopus,
        ),
    ]
};

/// Output gain in the header of `opus-gain.opus`, in dB.
const GAIN_DB: f32 = -4.5;
/// Frames before the first in the edit list of `aac-itunes.m4a`: the delay of Apple's encoder.
const APPLE: u64 = 2_112;

struct World {
    dir: tempfile::TempDir,
    cuts: HashMap<&'static str, Cut>,
}

/// Everything is made and published once.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let (music, library) = (dir.path().join("music"), dir.path().join("library"));
    std::fs::create_dir(&music).unwrap();
    for (seed, f) in (1..).zip(&FORMATS) {
        let [rate, bits, channels] = f.source;
        let source = wav(dir.path(), &format!("{}.wav", f.name), rate, bits, channels, SECONDS, seed);
        let out = music.join(f.name);
        let put = |word| match word {
            "IN" => source.to_str().unwrap(),
            "OUT" => out.to_str().unwrap(),
            other => other,
        };
        let words: Vec<&str> = f.tool.split(' ').map(put).collect();
        run(words[0], &words[1..]);
        match f.name {
            "opus-gain.opus" => set_gain(&out),
            "aac-itunes.m4a" => set_edit(&out),
            _ => {}
        }
    }
    let summary = publish(&Options::new(&music, &library)).unwrap();
    assert_eq!(
        (summary.tracks as usize, summary.unusable.len(), summary.notes.len()),
        (FORMATS.len(), 0, 0),
        "{summary:?}"
    );
    let cut = |f: &Format| {
        let stem = Path::new(f.name).file_stem().unwrap().to_str().unwrap();
        (f.name, Cut::published(&library, Some(stem), RenditionName::Original))
    };
    World { cuts: FORMATS.iter().map(cut).collect(), dir }
});

impl World {
    fn source(&self, f: &Format) -> PathBuf {
        self.dir.path().join(format!("{}.wav", f.name))
    }

    fn file(&self, f: &Format) -> PathBuf {
        self.dir.path().join("music").join(f.name)
    }
}

/// Writes an output gain into an Opus header (RFC 7845, section 5.1) and mends the page's checksum (RFC 3533, section 6).
fn set_gain(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let head = bytes.windows(8).position(|w| w == b"OpusHead").unwrap();
    bytes[head + 16..head + 18].copy_from_slice(&((GAIN_DB * 256.0) as i16).to_le_bytes());
    mend_ogg(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

/// Lets the edit list begin where Apple's encoder would, and end after five seconds (ISO/IEC 14496-12, 8.6.6).
fn set_edit(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(4).position(|w| w == b"elst").unwrap() + 12;
    bytes[at..at + 4].copy_from_slice(&5_000u32.to_be_bytes()); // ffmpeg counts the whole in milliseconds
    bytes[at + 4..at + 8].copy_from_slice(&(APPLE as u32).to_be_bytes());
    std::fs::write(file, bytes).unwrap();
}

/// Plays pieces as fast as it goes; interleaved stereo, as far as music was heard.
fn heard(cuts: &[&Cut], pieces: Vec<jukebox_core::sound::Piece>) -> Vec<f32> {
    let rig = Rig::fast(Form::F32, RateRule::Follow, cuts);
    let heard = rig.play(pieces);
    assert_eq!((heard.underrun_frames, heard.xruns), (0, 0));
    let mut floats = rig.dac.floats();
    let rest = floats.split_off(heard.music_frames as usize * 2);
    assert!(rest.iter().all(|&x| x == 0.0), "sound after the end");
    floats
}

fn stereo(samples: Vec<f32>, channels: u32) -> Vec<f32> {
    if channels == 2 { samples } else { samples.into_iter().flat_map(|x| [x, x]).collect() }
}

/// What libopus makes of the packets that were published, gain and all.
fn libopus(cut: &Cut, channels: u32) -> Vec<f32> {
    let layout = if channels == 1 { opus::Channels::Mono } else { opus::Channels::Stereo };
    let mut decoder = opus::Decoder::new(48_000, layout).unwrap();
    let (mut whole, mut block) = (vec![], vec![0f32; 5_760 * channels as usize]);
    for (_, bytes) in &cut.segments {
        for packet in Segment::decode(bytes).unwrap().body {
            let n = decoder.decode_float(packet, &mut block, false).unwrap();
            whole.extend_from_slice(&block[..n * channels as usize]);
        }
    }
    let r = &cut.rendition;
    let audible = r.delay as usize * channels as usize..(r.delay + r.frames) as usize * channels as usize;
    stereo(whole[audible].to_vec(), channels)
}

#[test]
fn every_format_reaches_the_sink_as_it_went_in() {
    for f in &FORMATS {
        let (cut, [rate, bits, channels]) = (&WORLD.cuts[f.name], f.source);
        let (r, name) = (&cut.rendition, f.name);
        assert_eq!(r.init.codec, f.codec, "{name}");
        let frames = match name {
            "aac-itunes.m4a" => 5 * u64::from(rate),
            _ => (SECONDS * f64::from(rate)).round() as u64,
        };
        assert_eq!(r.frames, frames, "{name}: as many frames as went in");
        let whole = heard(&[cut], cut.pieces(1, 0, 0, 0));
        assert_eq!(whole.len() as u64, frames * 2, "{name}: as many frames at the sink");
        let residual = match f.by {
            By::Bits => {
                let form = if bits == 16 { Form::S16 } else { Form::S24 };
                let rig = Rig::new(Dac::keeping(form, false, &[]), RateRule::Follow, &[cut]);
                rig.play(cut.pieces(1, 0, 0, 0));
                let raw = run("sox", &[WORLD.source(f).to_str().unwrap(), "-t", "raw", "-"]);
                let source = integers(&raw, bits as usize / 8);
                let sides: Vec<i32> =
                    if channels == 2 { source } else { source.iter().flat_map(|&x| [x, x]).collect() };
                assert_same(&rig.dac.integers(), &sides, name);
                f64::NEG_INFINITY
            }
            By::Ffmpeg | By::Noisy => {
                let mut expected = stereo(ffmpeg_reference(&WORLD.file(f)), channels);
                // ffmpeg 5.1 plays the padding of some M4A.
                assert!(
                    expected.len() == whole.len() || (f.codec == Codec::Aac && expected.len() > whole.len()),
                    "{name}"
                );
                expected.truncate(whole.len());
                residual_db(&whole, &expected)
            }
            By::Libopus => {
                let gain = if name == "opus-gain.opus" { GAIN_DB } else { 0.0 };
                let factor = 10f32.powf(gain / 20.0);
                let expected: Vec<f32> = libopus(cut, channels).iter().map(|x| x * factor).collect();
                residual_db(&whole, &expected)
            }
        };
        println!("{name}: {frames} frames, residual {residual:.1} dB");
        assert!(residual <= -100.0, "{name}: residual {residual:.1} dB");
        assert!(cut.segments.len() >= 3, "{name}");
        for first in 1..cut.segments.len() {
            let (found, from) = (heard(&[cut], cut.pieces(1, first, 0, 0)), cut.begins(first) * 2);
            assert_eq!(found.len(), whole.len() - from, "{name} from {first}");
            match f.by {
                By::Bits | By::Ffmpeg => assert!(found == whole[from..], "{name} from segment {first}, bit for bit"),
                // Its own noise apart, the music is the same: 3 dB would be another music of the same level.
                By::Noisy => assert!(residual_db(&found, &whole[from..]) < -6.0, "{name} from {first}"),
                // RFC 7845, section 4.6: after 80 ms a decoder has converged.
                By::Libopus => {
                    let residual = residual_db(&found, &whole[from..]);
                    assert!(residual < -30.0, "{name} from {first}: {residual:.1} dB");
                }
            }
        }
    }
}

/// The border lies where the first track's last frame says, and not a sample on either side is another one.
#[test]
fn tracks_of_different_formats_follow_each_other_without_a_gap() {
    for (rate, bits) in [(44_100, 16), (48_000, 16)] {
        let line: Vec<&Format> = FORMATS.iter().filter(|f| f.source == [rate, bits, 2]).collect();
        let codecs = |c: Codec| line.iter().filter(|f| f.codec == c).count();
        assert!(line.len() >= 4 && codecs(Codec::Aac) > 0 && codecs(Codec::Vorbis) > 0, "{rate}");
        let cuts: Vec<&Cut> = line.iter().map(|f| &WORLD.cuts[f.name]).collect();
        let (mut pieces, mut alone, mut seq) = (vec![], vec![], 0);
        for (entry, cut) in (1..).zip(&cuts) {
            pieces.extend(cut.pieces(entry, 0, seq, 0));
            seq += cut.segments.len() as u64;
            alone.extend(heard(&[cut], cut.pieces(1, 0, 0, 0)));
        }
        let together = heard(&cuts, pieces);
        assert_eq!(together.len(), alone.len(), "{rate}: no frame more or less");
        let other = together.iter().zip(&alone).position(|(a, b)| a != b);
        assert_eq!(other, None, "{rate}: the first sample that is another one");
    }
}
