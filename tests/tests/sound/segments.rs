//! Segments: from any start, across every border, across tracks, with and without conversion.

use jukebox::audio::{Form, RateRule};
use jukebox_core::library::{Codec, Gain, Init};

use super::material::*;
use super::rig::*;

#[test]
fn flac_equals_the_reference_from_any_segment_on() {
    let dir = tempfile::tempdir().unwrap();
    for (bits, rate, form) in [(16, 44_100, Form::S16), (24, 96_000, Form::S24), (24, 48_000, Form::S32)] {
        let file = flac(&wav(dir.path(), &format!("{bits}-{rate}.wav"), rate, bits, 2, 3.0, bits));
        let mut reference = flac_reference(&file, bits as usize / 8);
        if form == Form::S32 {
            reference.iter_mut().for_each(|x| *x <<= 8);
        }
        let cut = Packets::of(&file).cut_often(0);
        assert!(cut.segments.len() >= 5);
        for first in 0..cut.segments.len() {
            let rig = Rig::fast(form, RateRule::Follow, &[&cut]);
            let heard = rig.play(cut.pieces(1, first, 0, 0));
            assert_same(&rig.dac.integers(), &reference[cut.begins(first) * 2..], &format!("{form:?} from {first}"));
            assert_eq!((heard.at.n, heard.at.rate), (cut.rendition.frames, rate));
            assert_eq!(heard.music_frames, cut.rendition.frames - cut.begins(first) as u64);
            assert_eq!((heard.underrun_frames, heard.xruns), (0, 0));
        }
    }
}

#[test]
fn playing_from_inside_a_segment_begins_with_that_frame() {
    let dir = tempfile::tempdir().unwrap();
    let file = flac(&wav(dir.path(), "a.wav", 44_100, 16, 2, 2.0, 1));
    let cut = Packets::of(&file).cut_often(0);
    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&cut]);
    let mut pieces = cut.pieces(1, 2, 0, 0);
    let from = cut.begins(2) + 777;
    pieces[0].from = from as u64;
    rig.play(pieces);
    assert_same(&rig.dac.integers(), &flac_reference(&file, 2)[from * 2..], "from 777 frames into segment 2");
}

#[test]
fn mono_plays_on_both_sides_and_gain_is_applied_with_dither() {
    let dir = tempfile::tempdir().unwrap();
    let file = flac(&wav(dir.path(), "mono.wav", 44_100, 16, 1, 1.0, 1));
    let reference: Vec<i32> = flac_reference(&file, 2).iter().flat_map(|&x| [x, x]).collect();
    let cut = Packets::of(&file).cut_often(0);
    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&cut]);
    rig.play(cut.pieces(1, 0, 0, 0));
    assert_same(&rig.dac.integers(), &reference, "mono");

    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&cut]);
    let pieces = cut.pieces(1, 0, 0, 0).into_iter().map(|mut p| {
        p.gain = Gain(-6.0);
        p
    });
    rig.play(pieces.collect());
    let found = rig.dac.integers();
    let factor = 10f64.powf(-0.3);
    let errors: Vec<f64> = found.iter().zip(&reference).map(|(a, b)| f64::from(*a) - f64::from(*b) * factor).collect();
    assert!(errors.iter().all(|e| e.abs() <= 1.5 + 1e-6), "rounding and two dice of half a step each");
    let variance = errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64;
    assert!((0.22..0.28).contains(&variance), "{variance}: 1/4 with TPDF, 1/12 without");
    assert_ne!(
        found[0..20_000].iter().step_by(2).collect::<Vec<_>>(),
        found[1..20_000].iter().step_by(2).collect::<Vec<_>>()
    );
}

#[test]
fn two_tracks_are_gapless_and_identical_to_the_joined_file_also_when_converted() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (wav(dir.path(), "a.wav", 44_100, 16, 2, 1.3, 1), wav(dir.path(), "b.wav", 44_100, 16, 2, 1.1, 2));
    let ab = dir.path().join("ab.wav");
    run("sox", &[a.to_str().unwrap(), b.to_str().unwrap(), ab.to_str().unwrap()]);
    let files = [flac(&a), flac(&b), flac(&ab)];
    let cuts = files.each_ref().map(|f| Packets::of(f).cut_often(0));
    let both = || [cuts[0].pieces(1, 0, 0, 0), cuts[1].pieces(2, 0, 100, 0)].concat();

    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&cuts[0], &cuts[1]]);
    let heard = rig.play(both());
    let reference = [flac_reference(&files[0], 2), flac_reference(&files[1], 2)].concat();
    assert_same(&rig.dac.integers(), &reference, "two tracks");
    assert_eq!(heard.music_frames as usize * 2, reference.len());

    let converted = |pieces| {
        let rig = Rig::fast(Form::F32, RateRule::Fixed(48_000), &[&cuts[0], &cuts[1], &cuts[2]]);
        let heard = rig.play(pieces);
        (rig.dac.floats(), heard)
    };
    let (two, heard) = converted(both());
    assert_eq!(heard.at.n, cuts[1].rendition.frames, "the end is exact at the track's own rate");
    let (one, heard) = converted(cuts[2].pieces(1, 0, 0, 0));
    let frames = (cuts[2].rendition.frames * 160).div_ceil(147) as usize;
    assert_eq!(heard.music_frames as usize, frames);
    assert!(one[..frames * 2] == two[..frames * 2], "converted: bit for bit");
    assert!(two[frames * 2..].iter().all(|&x| x == 0.0));
    assert!(two[frames * 2 - 2_000..frames * 2 - 400].iter().any(|x| x.abs() > 0.01), "not silent at its end");
}

#[test]
fn mp3_has_the_right_length_no_lag_and_ffmpegs_samples() {
    let dir = tempfile::tempdir().unwrap();
    for (name, rate, channels, options) in [
        ("v2", 44_100, 2, &["-V2"][..]),
        ("320", 48_000, 2, &["-b", "320"]),
        ("low", 24_000, 1, &["-b", "32", "--resample", "24"]),
    ] {
        let source = wav(dir.path(), &format!("{name}.wav"), rate, 16, channels, 3.0, 5);
        let file = mp3(&source, options);
        let cut = Packets::of(&file).cut_often(10);
        if name != "low" {
            // The smallest frames have no room for LAME's tag, so that nobody knows delay and padding: ffmpeg neither.
            assert_eq!(cut.rendition.frames, u64::from(rate) * 3, "{name}: delay and padding are removed");
        }
        let rig = Rig::fast(Form::F32, RateRule::Follow, &[&cut]);
        rig.play(cut.pieces(1, 0, 0, 0));
        let whole = rig.dac.floats();
        if name == "low" {
            // Here ffmpeg 5.1 differs from all others (-25 dB); LAME's decoder drops its own delay and gives 16 bits.
            let (decoded, text) = (dir.path().join("lame.wav"), |p: &std::path::Path| p.to_str().unwrap().to_owned());
            run("lame", &["--quiet", "--decode", &text(&file), &text(&decoded)]);
            let reference: Vec<f32> = recorded(&decoded, 2).iter().map(|&x| x as f32 / 32_768.0).collect();
            let ours: Vec<f32> = whole.iter().step_by(2).skip(529).copied().collect();
            let level = residual_db(&ours, &reference);
            assert!(level <= -75.0, "{name}: {level:.1} dB");
        } else {
            let reference = ffmpeg_reference(&file);
            assert_eq!(reference.len() as u64, cut.rendition.frames * 2, "{name}: ffmpeg counts the same");
            let level = residual_db(&whole, &reference);
            assert!(level <= -100.0, "{name}: {level:.1} dB");
            println!("mp3 {name}: residual against ffmpeg {level:.1} dB, {} frames", cut.rendition.frames);
        }
        let samples = cut.rendition.frames as usize * 2;
        for first in 1..cut.segments.len() {
            let rig = Rig::fast(Form::F32, RateRule::Follow, &[&cut]);
            rig.play(cut.pieces(1, first, 0, 0));
            let (from, found) = (cut.begins(first) * 2, rig.dac.floats());
            let n = samples - from;
            assert!(found[..n] == whole[from..from + n], "{name}: from segment {first}, bit for bit");
        }
    }
}

/// Codes a WAV (48 kHz, stereo, 16 bits) as our office does: the two packets before each border without prediction.
fn our_opus(samples: &[i32], border_every: usize) -> (Packets, Vec<usize>) {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Stereo, opus::Application::Audio).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(96_000)).unwrap();
    let delay = encoder.get_lookahead().unwrap() as u64;
    let mut input: Vec<i16> = samples.iter().map(|&x| x as i16).collect();
    let frames = input.len() as u64 / 2;
    input.resize((input.len() + delay as usize * 2).next_multiple_of(960 * 2), 0);
    let count = input.len() / (960 * 2);
    let borders: Vec<usize> = (border_every..count).step_by(border_every).collect();
    let packets: Vec<Vec<u8>> = input
        .chunks(960 * 2)
        .enumerate()
        .map(|(i, chunk)| {
            let alone = borders.iter().any(|&b| i + 2 == b || i + 1 == b);
            encoder.set_prediction_disabled(alone).unwrap();
            encoder.encode_vec(chunk, 4_000).unwrap()
        })
        .collect();
    let starts = (0..=count as u64).map(|i| i * 960).collect();
    let mut extra = b"OpusHead\x01\x02".to_vec();
    extra.extend_from_slice(&(delay as u16).to_le_bytes()); // a pre-skip that nobody zeroed must not be trimmed twice
    extra.extend_from_slice(&48_000u32.to_le_bytes());
    extra.extend_from_slice(&[0, 0, 0]);
    let init =
        Init { codec: Codec::Opus, rate: 48_000, channels: 2, bits: 0, coded_bits: 0, longest_packet: 960, extra };
    (Packets { init, delay, frames, packets, starts }, borders)
}

#[test]
fn our_opus_equals_libopus_from_any_segment_on() {
    let dir = tempfile::tempdir().unwrap();
    let source = wav(dir.path(), "a.wav", 48_000, 16, 2, 3.0, 3);
    let samples = flac_reference(&flac(&source), 2);
    let (packets, borders) = our_opus(&samples, 25);
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Stereo).unwrap();
    let mut reference = vec![0f32; packets.packets.len() * 960 * 2];
    for (packet, out) in packets.packets.iter().zip(reference.chunks_mut(960 * 2)) {
        assert_eq!(decoder.decode_float(packet, out, false).unwrap(), 960);
    }
    let audible = packets.delay as usize * 2..(packets.delay + packets.frames) as usize * 2;
    let reference = &reference[audible];
    let cut = packets.cut(&borders, 2);
    for first in 0..cut.segments.len() {
        let rig = Rig::fast(Form::F32, RateRule::Follow, &[&cut]);
        let heard = rig.play(cut.pieces(1, first, 0, 0));
        let from = cut.begins(first) * 2;
        let found = rig.dac.floats();
        assert!(found[..reference.len() - from] == reference[from..], "from segment {first}, bit for bit");
        assert_eq!(heard.at.n, 3 * 48_000);
    }
}
