//! What is in a library is the music: sample for sample where the codec allows it, from every segment.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{Library, Place, decode, flac, mp3, reference, rendition, trim, wav};
use jukebox_core::library::{Codec, Record, Rendition, RenditionName};
use jukebox_core::segment::Segment;

/// Starts at every segment; returns the pre-rolls that were needed.
fn starts_exactly_anywhere(library: &Library, r: &Rendition) -> Vec<usize> {
    let segments = library.segments(r);
    let channels = usize::from(r.init.channels);
    let whole = decode(r, &segments);
    for k in 0..segments.len() {
        let from = segments[k].0.first_frame as usize * channels;
        let part = decode(r, &segments[k..]);
        assert!(part == whole[from..], "segment {k} of {} does not start exactly", r.name.as_str());
    }
    segments.iter().map(|(_, b)| Segment::decode(b).unwrap().preroll.len()).collect()
}

/// Bodies joined are all packets, each once, and the tail is what follows.
fn packets_are_whole(library: &Library, r: &Rendition, tail: usize) {
    let segments = library.segments(r);
    let parsed: Vec<Segment<'_>> = segments.iter().map(|(_, b)| Segment::decode(b).unwrap()).collect();
    let all: Vec<&[u8]> = parsed.iter().flat_map(|s| s.body.iter().copied()).collect();
    for s in &parsed {
        let (from, to) = (s.first_packet as usize, s.first_packet as usize + s.body.len());
        assert_eq!(s.preroll, all[from - s.preroll.len()..from]);
        assert_eq!(s.tail, all[to..(to + tail).min(all.len())]);
    }
}

fn borders_s(library: &Library, r: &Rendition) -> Vec<f64> {
    let at = |f: u64| f.saturating_sub(r.delay) as f64 / f64::from(r.init.rate);
    library.segments(r).iter().map(|(s, _)| at(s.first_frame)).collect()
}

fn opus_is_right(library: &Library, record: &Record) {
    let original = rendition(record, RenditionName::Original);
    let seconds = original.frames as f64 / f64::from(original.init.rate);
    let grid = borders_s(library, original);
    for (name, kbps) in [(RenditionName::Opus96, 96.0), (RenditionName::Opus32, 32.0)] {
        let r = rendition(record, name);
        assert_eq!((r.init.codec, r.init.rate, r.init.channels), (Codec::Opus, 48_000, original.init.channels));
        assert_eq!(r.frames, (original.frames * 48_000).div_ceil(u64::from(original.init.rate)));
        // Continuous decode with libopus itself, all bodies one after the other.
        let layout = if r.init.channels == 1 { opus::Channels::Mono } else { opus::Channels::Stereo };
        let channels = usize::from(r.init.channels);
        let segments = library.segments(r);
        let mut libopus = opus::Decoder::new(48_000, layout).unwrap();
        let (mut whole, mut block) = (Vec::new(), vec![0f32; 960 * channels]);
        for (_, bytes) in &segments {
            for data in Segment::decode(bytes).unwrap().body {
                assert_eq!(libopus.decode_float(data, &mut block, false).unwrap(), 960);
                whole.extend_from_slice(&block);
            }
        }
        assert!(decode(r, &segments) == whole);
        assert!(whole.len() as u64 >= (r.delay + r.frames) * channels as u64);
        for (k, (s, bytes)) in segments.iter().enumerate() {
            let segment = Segment::decode(bytes).unwrap();
            assert!(if k == 0 { segment.preroll.is_empty() } else { (3..=5).contains(&segment.preroll.len()) });
            let mut fresh = opus::Decoder::new(48_000, layout).unwrap();
            for data in &segment.preroll {
                fresh.decode_float(data, &mut block, false).unwrap();
            }
            let mut at = s.first_frame as usize * channels;
            for data in &segment.body {
                fresh.decode_float(data, &mut block, false).unwrap();
                assert!(block == whole[at..at + block.len()], "{} segment {k} frame {}", name.as_str(), at / channels);
                at += block.len();
            }
        }
        packets_are_whole(library, r, 2);
        // The body's first packet holds the border.
        let borders = borders_s(library, r);
        assert_eq!(borders.len(), grid.len());
        assert!(borders.iter().zip(&grid).all(|(b, g)| (-1e-6..0.020_01).contains(&(g - b))), "{borders:?} {grid:?}");
        let got = r.size as f64 * 8.0 / seconds / 1_000.0;
        assert!((0.4 * kbps..1.25 * kbps).contains(&got), "{} has {got:.1} kbit/s", name.as_str());
    }
    // It is the same music: opus-96 follows the original, in time and level.
    let r = rendition(record, RenditionName::Opus96);
    let channels = usize::from(r.init.channels);
    let ours = decode(r, &library.segments(r));
    let ours = trim(r, &ours);
    let source = decode(original, &library.segments(original));
    let source = trim(original, &source);
    let at = |pcm: &[f32], rate: f64, t: f64| {
        let (i, w) = ((t * rate) as usize, (t * rate).fract() as f32);
        pcm[i * channels] * (1.0 - w) + pcm[(i + 1) * channels] * w
    };
    let (mut ab, mut aa, mut bb) = (0f64, 0f64, 0f64);
    for i in 0..(seconds * 8_000.0) as usize - 8 {
        let t = i as f64 / 8_000.0;
        let a = f64::from(at(source, f64::from(original.init.rate), t));
        let b = f64::from(at(ours, 48_000.0, t));
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    assert!(ab / (aa * bb).sqrt() > 0.8, "correlation {}", ab / (aa * bb).sqrt());
    assert!((r.true_peak - original.true_peak).abs() < 3.0);
}

#[test]
fn flac_is_bit_exact_from_every_segment() {
    let place = Place::new();
    for (name, rate, channels, bits, args) in [
        ("cd", 44_100, 2, 16, &["-5"][..]),
        ("studio", 96_000, 2, 24, &["-8"]),
        ("mono", 48_000, 1, 16, &["-0", "-b", "1152"]),
        ("odd", 22_050, 2, 24, &["-5", "--blocksize=65535", "--lax"]),
    ] {
        let source = place.at(&format!("{name}.wav"));
        wav(&source, 13.7, rate, channels, bits, rate);
        flac(&source, &place.music(&format!("{name}.flac")), args);
    }
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.unusable.len(), summary.notes.len()), (4, 0, 0), "{summary:?}");
    let library = place.library();
    for (name, borders) in [("cd", 6), ("studio", 6), ("mono", 6), ("odd", 4)] {
        let record = library.titled(name);
        let r = rendition(&record, RenditionName::Original);
        let whole = decode(r, &library.segments(r));
        let expected = reference(&place.at(&format!("{name}.wav")));
        assert!(trim(r, &whole) == expected, "{name} is not what was encoded");
        // Debian's ffmpeg finds no sound in blocks of 65,535 frames.
        assert!(name == "odd" || expected == reference(&place.music(&format!("{name}.flac"))));
        assert!(starts_exactly_anywhere(&library, r).iter().all(|&n| n == 0));
        packets_are_whole(&library, r, 0);
        let grid = borders_s(&library, r);
        assert_eq!(grid.len(), borders, "{name}: {grid:?}");
        if name != "odd" {
            assert!(grid.iter().zip([0.0, 1.0, 2.0, 4.0, 8.0, 12.0]).all(|(g, w)| (g - w).abs() <= 0.05), "{grid:?}");
        }
        opus_is_right(&library, &record);
    }
}

#[test]
fn mp3_is_bit_exact_from_every_segment_and_has_the_right_length() {
    let place = Place::new();
    let mut lengths = vec![];
    for (name, rate, channels, args) in [
        ("v2", 44_100, 2, &["-V2"][..]),
        ("cbr320", 48_000, 2, &["-b", "320"]),
        ("cbr128", 44_100, 2, &["-b", "128"]),
        ("low", 22_050, 1, &["-b", "32", "-m", "m"]),
        ("untagged", 44_100, 2, &["-V5", "-t"]),
    ] {
        let source = place.at(&format!("{name}.wav"));
        wav(&source, 17.3, rate, channels, 16, rate + args.len() as u32);
        lengths.push((name, (17.3 * f64::from(rate)) as u64));
        mp3(&source, &place.music(&format!("{name}.mp3")), args);
    }
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.unusable.len(), summary.notes.len()), (5, 0, 0), "{summary:?}");
    let library = place.library();
    for (name, length) in lengths {
        let record = library.titled(name);
        let r = rendition(&record, RenditionName::Original);
        let decoded = decode(r, &library.segments(r));
        let ours = trim(r, &decoded);
        let expected = reference(&place.music(&format!("{name}.mp3")));
        assert_eq!(ours.len(), expected.len(), "{name}");
        if r.delay > 0 {
            assert_eq!(r.frames, length, "{name}");
        }
        let error: f64 = ours.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let power: f64 = expected.iter().map(|b| f64::from(*b).powi(2)).sum();
        let residual = 10.0 * (error / power).log10();
        assert!(residual < -100.0, "{name}: residual {residual:.1} dB");
        let prerolls = starts_exactly_anywhere(&library, r);
        assert!(prerolls[1..].iter().all(|n| (1..=9).contains(n)), "{name}: {prerolls:?}");
        packets_are_whole(&library, r, 0);
        if r.init.rate == 48_000 {
            opus_is_right(&library, &record);
        }
    }
}

#[test]
fn loudness_is_that_of_ffmpeg() {
    let place = Place::new();
    let source = place.at("a.wav");
    wav(&source, 12.0, 44_100, 2, 16, 5);
    flac(&source, &place.music("one/a.flac"), &["--tag=ALBUM=Both", "--tag=TITLE=a"]);
    common::tool("sox", &[common::text(&source), common::text(&place.at("b.wav")), "gain", "-6", "reverse"]);
    flac(&place.at("b.wav"), &place.music("one/b.flac"), &["--tag=ALBUM=Both", "--tag=TITLE=b"]);
    place.publish();
    let library = place.library();
    let (a, b) = (library.titled("a"), library.titled("b"));
    let measured = |path: &std::path::Path| {
        let args = ["-nostats", "-i", common::text(path), "-filter_complex", "ebur128=peak=true", "-f", "null", "-"];
        let out = std::process::Command::new("ffmpeg").args(args).output().unwrap();
        let log = String::from_utf8_lossy(&out.stderr).into_owned();
        let summary = log.rsplit_once("Summary:").unwrap().1.to_owned();
        let value = |key: &str| -> f32 {
            let line = summary.lines().find(|l| l.trim_start().starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (value("I:"), value("Peak:"))
    };
    for (record, path) in [(&a, "one/a.flac"), (&b, "one/b.flac")] {
        let (loudness, peak) = measured(&place.music(path));
        let original = rendition(record, RenditionName::Original);
        // Another filter between the samples than ours, and the music is full of treble.
        assert!((record.loudness - loudness).abs() <= 0.1, "{} {loudness}", record.loudness);
        assert!((original.true_peak - peak).abs() <= 1.0, "{} {peak}", original.true_peak);
    }
    assert!((a.loudness - b.loudness - 6.0).abs() < 0.2);
    // Both know the same album, whose loudness is that of the two joined.
    assert_eq!(a.album_gain, b.album_gain);
    common::tool("sox", &[common::text(&source), common::text(&place.at("b.wav")), common::text(&place.at("ab.wav"))]);
    let album = a.album_gain.clone().unwrap();
    let (joined, _) = measured(&place.at("ab.wav"));
    assert!((album.loudness - joined).abs() <= 0.15, "{} {joined}", album.loudness);
    let highest = |r: &Record| r.renditions.iter().map(|x| x.true_peak).fold(f32::MIN, f32::max);
    assert_eq!(album.true_peak, highest(&a).max(highest(&b)));
}
