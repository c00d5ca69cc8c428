//! Every format: what comes out of the library is what went in, sample for sample where the codec allows it; made by the
//! encoders that people use, checked against their decoders.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{Library, Place, decode, flac, mp3, reference, rendition, text, tool, trim, wav};
use jukebox_core::library::{Codec, RenditionName};
use jukebox_core::segment::Segment;
use jukebox_office::export::export;
use jukebox_office::verify;

const ORIGINAL: RenditionName = RenditionName::Original;

fn ffmpeg(from: &Path, args: &[&str], to: &Path) {
    tool("ffmpeg", &[&["-v", "error", "-y", "-i", text(from)], args, &[text(to)]].concat());
}

/// What is heard of a track.
fn heard(library: &Library, title: &str) -> Vec<f32> {
    let record = library.titled(title);
    let r = rendition(&record, ORIGINAL);
    trim(r, &decode(r, &library.segments(r))).to_vec()
}

fn residual_db(found: &[f32], expected: &[f32]) -> f64 {
    let error: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    10.0 * (error / expected.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).log10()
}

/// From every segment on, a fresh decoder gives what a continuous one gives.
fn starts_exactly_anywhere(library: &Library, title: &str, prerolls: std::ops::RangeInclusive<usize>) {
    let record = library.titled(title);
    let r = rendition(&record, ORIGINAL);
    let segments = library.segments(r);
    assert!(segments.len() > 3, "{title}");
    let whole = decode(r, &segments);
    for k in 0..segments.len() {
        let from = segments[k].0.first_frame as usize * usize::from(r.init.channels);
        assert!(decode(r, &segments[k..]) == whole[from..], "{title}: segment {k} does not start exactly");
        let preroll = Segment::decode(&segments[k].1).unwrap().preroll.len();
        assert!(k == 0 || prerolls.contains(&preroll), "{title}: segment {k} has {preroll} packets of pre-roll");
    }
}

#[test]
fn lossless_files_keep_every_bit() {
    let place = Place::new();
    let mut expected = vec![];
    for (n, (rate, channels, bits)) in
        [(44_100, 2, 16), (96_000, 2, 24), (8_000, 1, 16), (192_000, 2, 24), (22_050, 1, 8)].into_iter().enumerate()
    {
        let seconds = if rate > 100_000 { 2.6 } else { 5.3 };
        let source = place.at(&format!("{n}.wav"));
        if bits == 8 {
            wav(&place.at("16.wav"), seconds, rate, channels, 16, n as u32 + 1);
            tool("sox", &[text(&place.at("16.wav")), "-b", "8", text(&source)]);
        } else {
            wav(&source, seconds, rate, channels, bits, n as u32 + 1);
        }
        fs::copy(&source, place.music(&format!("{n}-wav.wav"))).unwrap();
        let samples = reference(&source);
        expected.push((format!("{n}-wav"), samples.clone(), bits));
        // Played backwards: else it were the same track.
        let back = place.at("back.wav");
        tool("sox", &["-D", text(&source), text(&back), "reverse"]);
        let backwards = reference(&back);
        tool("sox", &["-D", text(&back), text(&place.music(&format!("{n}-aiff.aiff")))]);
        expected.push((format!("{n}-aiff"), backwards, bits));
        if bits >= 16 {
            // ALAC of ffmpeg takes 16 bits and, as s32p, 24.
            tool("sox", &["-D", text(&source), text(&back), "trim", "0.1"]);
            let format = if bits == 16 { "s16p" } else { "s32p" };
            let alac =
                ["-c:a", "alac", "-sample_fmt", format, "-bits_per_raw_sample", if bits == 16 { "16" } else { "24" }];
            ffmpeg(&back, &alac, &place.music(&format!("{n}-alac.m4a")));
            expected.push((format!("{n}-alac"), reference(&back), bits));
        }
    }
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.unusable.len(), summary.notes.len()), (14, 0, 0), "{summary:?}");
    let library = place.library();
    for (title, samples, bits) in &expected {
        let record = library.titled(title);
        let r = rendition(&record, ORIGINAL);
        assert_eq!((r.init.codec, r.init.bits), (Codec::Flac, *bits as u8), "{title}");
        assert!(heard(&library, title) == *samples, "{title} is not what went in");
        if r.frames > 5 * u64::from(r.init.rate) {
            starts_exactly_anywhere(&library, title, 0..=0);
        }
    }
    assert!(verify::verify(&library.0).unwrap().problems.is_empty());
}

#[test]
fn what_does_not_fit_is_converted_and_said() {
    let place = Place::new();
    let source = place.at("a.wav");
    wav(&source, 3.0, 48_000, 2, 24, 1);
    ffmpeg(&source, &["-c:a", "pcm_f32le", "-af", "volume=0.37"], &place.music("float.wav"));
    ffmpeg(&source, &["-c:a", "pcm_s32le", "-af", "volume=0.71"], &place.music("wide.wav"));
    wav(&source, 3.0, 48_000, 6, 16, 2);
    ffmpeg(&source, &["-c:a", "pcm_s16le"], &place.music("surround.wav"));
    ffmpeg(&source, &["-c:a", "libvorbis", "-q:a", "6"], &place.music("surround.ogg"));
    fs::rename(place.music("surround.ogg"), place.music("vorbis.ogg")).unwrap();
    let summary = place.publish();
    let mut notes: Vec<_> = summary.notes.iter().map(|(p, n)| (p.to_str().unwrap(), n.as_str())).collect();
    notes.sort_unstable();
    let mixed = "has 6 channels: mixed to stereo";
    let rounded = "has samples in floating point: rounded to 24 bits";
    let wide = "has 32-bit samples: rounded to 24 bits";
    let all = [("float.wav", rounded), ("surround.wav", mixed), ("vorbis.ogg", mixed), ("wide.wav", wide)];
    assert_eq!(notes, all, "{summary:?}");
    let library = place.library();
    for name in ["float", "wide"] {
        let (found, expected) = (heard(&library, name), reference(&place.music(&format!("{name}.wav"))));
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 0.6 / 8_388_608.0, "{name}: {worst}");
    }
    // BS.775, as ffmpeg computes it when told how.
    let mix = "pan=stereo|c0=0.4142136*c0+0.2928932*c2+0.2928932*c4|c1=0.4142136*c1+0.2928932*c2+0.2928932*c5";
    for (name, file) in [("surround", "surround.wav"), ("vorbis", "vorbis.ogg")] {
        let to = place.at("mixed.wav");
        ffmpeg(&place.music(file), &["-af", &format!("aformat=sample_fmts=flt,{mix}"), "-c:a", "pcm_f32le"], &to);
        let (found, expected) = (heard(&library, name), reference(&to));
        assert_eq!(found.len(), expected.len(), "{name}");
        let residual = residual_db(&found, &expected);
        assert!(residual < -100.0, "{name}: {residual:.1} dB");
    }
}

/// Length, lag and samples against ffmpeg; bit-exact from every segment.
#[test]
fn lossy_files_keep_their_packets() {
    let place = Place::new();
    for (n, (rate, channels)) in [(44_100, 2), (48_000, 2), (22_050, 1), (32_000, 1)].into_iter().enumerate() {
        let source = place.at(&format!("{n}.wav"));
        wav(&source, 9.3, rate, channels, 16, n as u32 + 1);
        tool("oggenc", &["-Q", "-q", "5", "-o", text(&place.music(&format!("{n}-vorbis.ogg"))), text(&source)]);
        let aac = ["-c:a", "aac", "-b:a", "96k", "-aac_pns", "0"];
        ffmpeg(&source, &aac, &place.music(&format!("{n}-aac.m4a")));
    }
    let source = place.at("0.wav");
    tool("sox", &[text(&source), text(&place.at("back.wav")), "reverse"]);
    ffmpeg(&place.at("back.wav"), &["-c:a", "libvorbis", "-q:a", "2"], &place.music("ffmpeg-vorbis.ogg"));
    ffmpeg(&place.at("back.wav"), &["-c:a", "aac", "-b:a", "128k", "-aac_pns", "0"], &place.music("adts-aac.aac"));
    ffmpeg(&place.at("back.wav"), &["-c:a", "aac", "-b:a", "160k"], &place.music("pns-aac.m4a"));
    for (name, args) in [("v0", &["-V0"][..]), ("abr", &["--abr", "150"])] {
        mp3(&source, &place.music(&format!("{name}-mp3.mp3")), args);
    }
    flac(&source, &place.music("blocks-flac.flac"), &["--blocksize=1000", "-3"]);
    ffmpeg(&place.at("back.wav"), &["-c:a", "flac", "-frame_size", "333"], &place.music("small-flac.flac"));
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.unusable.len(), summary.notes.len()), (15, 0, 0), "{summary:?}");
    let library = place.library();
    for row in library.rows() {
        let name = &row.title;
        let kind = name.rsplit('-').next().unwrap();
        let codec = [("vorbis", Codec::Vorbis), ("aac", Codec::Aac), ("mp3", Codec::Mp3), ("flac", Codec::Flac)];
        let file = fs::read_dir(place.at("music")).unwrap().map(|e| e.unwrap().path());
        let file = file.into_iter().find(|p| p.file_stem().unwrap().to_str() == Some(name)).unwrap();
        let record = library.record(&row);
        let r = rendition(&record, ORIGINAL);
        assert_eq!(r.init.codec, codec.iter().find(|(k, _)| *k == kind).unwrap().1, "{name}");
        let (found, expected) = (heard(&library, name), reference(&file));
        // ffmpeg 5.1 plays the padding of some M4A.
        assert!(found.len() == expected.len() || (kind == "aac" && found.len() < expected.len()), "{name}: frames");
        if file.extension().unwrap() != "aac" {
            assert_eq!(r.frames, (9.3 * f64::from(r.init.rate)) as u64, "{name}");
        }
        let residual = residual_db(&found, &expected);
        assert!(residual < -100.0, "{name}: residual {residual:.1} dB");
        if name != "pns-aac" {
            let prerolls = match r.init.codec {
                Codec::Flac => 0..=0,
                Codec::Mp3 => 1..=9,
                _ => 1..=1,
            };
            starts_exactly_anywhere(&library, name, prerolls);
        }
    }
}

#[test]
fn foreign_opus_is_what_libopus_makes_of_it() {
    let place = Place::new();
    for (name, channels, args) in
        [("music", 2, &["--bitrate", "96"][..]), ("speech", 1, &["--bitrate", "16", "--framesize", "60"])]
    {
        let source = place.at("a.wav");
        wav(&source, 9.3, 48_000, channels, 16, channels.into());
        tool("opusenc", &[&["--quiet"], args, &[text(&source), text(&place.music(&format!("{name}.opus")))]].concat());
    }
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.unusable.len(), summary.notes.len()), (2, 0, 0), "{summary:?}");
    let library = place.library();
    for name in ["music", "speech"] {
        let record = library.titled(name);
        let r = rendition(&record, ORIGINAL);
        assert_eq!((r.init.codec, r.frames, r.delay), (Codec::Opus, 446_400, 312));
        let layout = if r.init.channels == 1 { opus::Channels::Mono } else { opus::Channels::Stereo };
        let channels = usize::from(r.init.channels);
        let segments = library.segments(r);
        let mut libopus = opus::Decoder::new(48_000, layout).unwrap();
        let (mut whole, mut block) = (vec![], vec![0f32; 5_760 * channels]);
        for (_, bytes) in &segments {
            for data in Segment::decode(bytes).unwrap().body {
                let n = libopus.decode_float(data, &mut block, false).unwrap();
                whole.extend_from_slice(&block[..n * channels]);
            }
        }
        let ours = decode(r, &segments);
        assert!(ours == whole, "{name}");
        // From any segment on it is close, and never exact.
        for k in 1..segments.len() {
            let from = segments[k].0.first_frame as usize * channels;
            let part = decode(r, &segments[k..]);
            let second = &whole[from..(from + 48_000 * channels).min(whole.len())];
            let residual = residual_db(&part[..second.len()], second);
            assert!(residual < -30.0, "{name} from {k}: {residual:.1} dB");
        }
    }
}

/// What was exported, decoded by ffmpeg (Opus: by opusdec), is what the library holds.
#[test]
fn exported_files_are_ordinary_files() {
    let place = Place::new();
    let source = place.at("a.wav");
    wav(&source, 4.7, 44_100, 2, 16, 1);
    flac(&source, &place.music("flac.flac"), &[]);
    mp3(&source, &place.music("mp3.mp3"), &["-V2"]);
    tool("oggenc", &["-Q", "-q", "5", "-t", "Ümläut", "-o", text(&place.music("vorbis.ogg")), text(&source)]);
    tool("opusenc", &["--quiet", text(&source), text(&place.music("opus.opus"))]);
    ffmpeg(&source, &["-c:a", "aac", "-aac_pns", "0"], &place.music("aac.m4a"));
    wav(&source, 4.7, 48_000, 1, 24, 2);
    fs::copy(&source, place.music("wav.wav")).unwrap();
    assert_eq!(place.publish().tracks, 6);
    let library = place.library();
    let mut seen = 0;
    for row in library.rows() {
        let record = library.record(&row);
        for r in &record.renditions {
            let ending = ["flac", "mp3", "ogg", "opus", "aac"][r.init.codec as usize];
            let file = place.at(&format!("{}-{}.{ending}", row.title, r.name.as_str()));
            export(&library.0, row.id, r.name, &file).unwrap();
            assert!(export(&library.0, row.id, r.name, &file).unwrap_err().to_string().contains("give another path"));
            let mut expected = trim(r, &decode(r, &library.segments(r))).to_vec();
            let found = match r.init.codec {
                Codec::Opus => {
                    let to = place.at("opus.wav");
                    tool("opusdec", &["--quiet", "--float", "--rate", "48000", text(&file), text(&to)]);
                    reference(&to)
                }
                // ADTS has no place for the delay.
                Codec::Aac => {
                    expected = decode(r, &library.segments(r));
                    reference(&file)
                }
                _ => reference(&file),
            };
            let name = format!("{} {}", row.title, r.name.as_str());
            assert_eq!(found.len(), expected.len(), "{name}");
            let residual = residual_db(&found, &expected);
            assert!(residual < -90.0, "{name}: {residual:.1} dB");
            assert!(r.init.codec != Codec::Flac || found == expected, "{name}: bit for bit");
            seen += 1;
        }
    }
    assert_eq!(seen, 18);
    // What is published again has the same name.
    let again = Place::new();
    let id = |title: &str| library.titled(title).id;
    fs::copy(place.at("mp3-original.mp3"), again.music("mp3.mp3")).unwrap();
    fs::copy(place.at("Ümläut-original.ogg"), again.music("vorbis.ogg")).unwrap();
    assert_eq!(again.publish().tracks, 2);
    let rows = again.library().rows();
    for title in ["mp3", "Ümläut"] {
        assert!(rows.iter().any(|r| r.id == id(title)), "{title}");
    }
}

/// A fill element with an empty SBR payload before the end of each packet: what HE-AAC looks like that says nothing.
fn with_sbr(packet: &[u8]) -> Vec<u8> {
    let mut bits: Vec<u8> = packet.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)).collect();
    let end = bits.iter().rposition(|&b| b == 1).unwrap() - 2;
    bits.truncate(end);
    let put = |bits: &mut Vec<u8>, value: u32, n: u32| bits.extend((0..n).rev().map(|i| (value >> i & 1) as u8));
    put(&mut bits, 6, 3);
    put(&mut bits, 3, 4);
    put(&mut bits, 13, 4);
    put(&mut bits, 0, 20);
    put(&mut bits, 7, 3);
    bits.resize(bits.len().next_multiple_of(8), 0);
    bits.as_chunks::<8>().0.iter().map(|b| b.iter().fold(0, |v, b| v << 1 | b)).collect()
}

#[test]
fn he_aac_is_noticed_and_converted_where_ffmpeg_is() {
    let place = Place::new();
    let source = place.at("a.wav");
    wav(&source, 4.0, 22_050, 2, 16, 1);
    let plain = place.music("plain.aac");
    ffmpeg(&source, &["-c:a", "aac", "-b:a", "48k"], &plain);
    // Each ADTS frame (ISO/IEC 13818-7, 6.2) gets the payload and a new length.
    let (bytes, mut out, mut at) = (fs::read(&plain).unwrap(), vec![], 0);
    while at < bytes.len() {
        let length = |h: &[u8]| usize::from(h[3] & 3) << 11 | usize::from(h[4]) << 3 | usize::from(h[5] >> 5);
        let n = length(&bytes[at..]);
        let packet = with_sbr(&bytes[at + 7..at + n]);
        let mut head = bytes[at..at + 7].to_vec();
        let new = packet.len() + 7;
        head[3] = head[3] & !3 | (new >> 11) as u8;
        head[4] = (new >> 3) as u8;
        head[5] = head[5] & 0x1f | ((new & 7) << 5) as u8;
        out.extend(head);
        out.extend(packet);
        at += n;
    }
    fs::write(place.music("hidden.aac"), out).unwrap();
    // What only ffmpeg decodes.
    ffmpeg(&source, &["-c:a", "wavpack"], &place.music("pack.wv"));
    ffmpeg(&source, &["-c:a", "mp2", "-b:a", "64k"], &place.music("layer.mp2"));
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.unusable.len()), (4, 0), "{summary:?}");
    let notes: Vec<_> = summary.notes.iter().map(|(p, n)| (p.to_str().unwrap(), n.as_str())).collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes.contains(&("hidden.aac", "is HE-AAC: converted to FLAC")), "{notes:?}");
    let library = place.library();
    let rate = |title: &str| library.titled(title).renditions[0].init.rate;
    assert_eq!((rate("plain"), rate("hidden")), (22_050, 44_100));
    assert!(heard(&library, "pack") == reference(&source), "WavPack is lossless");
}

/// As iTunes writes it: no edit list, and a tag with delay and length.
#[test]
fn itunes_files_have_their_length() {
    let place = Place::new();
    let source = place.at("a.wav");
    wav(&source, 5.0, 44_100, 2, 16, 1);
    let made = place.at("a.m4a");
    ffmpeg(&source, &["-c:a", "aac", "-b:a", "128k", "-aac_pns", "0"], &made);
    let mut bytes = fs::read(&made).unwrap();
    let rename = |bytes: &mut Vec<u8>, name: &[u8; 4]| {
        while let Some(at) = bytes.windows(4).position(|w| w == name) {
            bytes[at..at + 4].copy_from_slice(b"free");
        }
    };
    rename(&mut bytes, b"edts");
    rename(&mut bytes, b"udta");
    let boxed = |name: &[u8; 4], body: &[u8]| [&(body.len() as u32 + 8).to_be_bytes(), &name[..], body].concat();
    let smpb = format!("\0\0\0\x01\0\0\0\0 00000000 00000400 00000280 {:016X} 00000000", 220_000);
    let name = boxed(b"name", b"\0\0\0\0iTunSMPB");
    let mean = boxed(b"mean", b"\0\0\0\0com.apple.iTunes");
    let item = boxed(b"----", &[mean, name, boxed(b"data", smpb.as_bytes())].concat());
    let hdlr = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0mdirappl\0\0\0\0\0\0\0\0\0");
    let meta = boxed(b"meta", &[&[0; 4][..], &hdlr, &boxed(b"ilst", &item)].concat());
    let udta = boxed(b"udta", &meta);
    // ffmpeg writes `moov` last.
    let moov = bytes.windows(4).rposition(|w| w == b"moov").unwrap() - 4;
    let size = u32::from_be_bytes(bytes[moov..moov + 4].try_into().unwrap()) + udta.len() as u32;
    bytes[moov..moov + 4].copy_from_slice(&size.to_be_bytes());
    bytes.extend(udta);
    fs::write(place.music("itunes.m4a"), bytes).unwrap();
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.notes.len()), (1, 0), "{summary:?}");
    let library = place.library();
    let r = library.titled("itunes").renditions[0].clone();
    assert_eq!((r.init.codec, r.delay, r.frames), (Codec::Aac, 1_024, 220_000));
    let expected = reference(&made);
    assert!(residual_db(&heard(&library, "itunes"), &expected[..440_000]) < -100.0);
}

/// Files that are kept as they are, files that are converted here, and one that ffmpeg has to read.
#[test]
fn a_cover_comes_along_whatever_the_file() {
    let place = Place::new();
    let (sound, cover) = (place.at("a.wav"), place.at("cover.jpg"));
    wav(&sound, 1.5, 44_100, 2, 16, 1);
    tool("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", "testsrc=size=300x300", "-frames:v", "1", text(&cover)]);
    let with = |n: u32, codec: &[&str], to: &str| {
        // Each is another sound: else they were one track.
        let louder = format!("volume=0.{n}");
        let title = format!("title={n}");
        let put = ["-i", text(&cover), "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"];
        let all = [&put[..], &["-metadata", &title, "-af", &louder], codec].concat();
        ffmpeg(&sound, &all, &place.music(to));
    };
    with(1, &["-c:a", "flac"], "1.flac");
    with(2, &["-c:a", "libmp3lame"], "2.mp3");
    with(3, &["-c:a", "aac"], "3.m4a");
    with(4, &["-c:a", "alac"], "4.m4a");
    with(5, &["-write_id3v2", "1"], "5.aiff");
    with(6, &["-c:a", "ac3"], "6.m4a");
    // A WAV file with a chunk of ID3, as taggers write it; the tag is that of an MP3.
    let mp3 = fs::read(place.music("2.mp3")).unwrap();
    let length = mp3[6..10].iter().fold(0, |n, b| n << 7 | usize::from(*b)) + 10;
    let mut bytes = fs::read(&sound).unwrap();
    bytes.extend([&b"id3 "[..], &(length as u32).to_le_bytes(), &mp3[..length]].concat());
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let all = bytes.len() as u32 - 8;
    bytes[4..8].copy_from_slice(&all.to_le_bytes());
    fs::write(place.music("7.wav"), bytes).unwrap();
    let summary = place.publish();
    assert_eq!((summary.tracks, summary.unusable.len()), (7, 0), "{summary:?}");
    let library = place.library();
    let mut titles: Vec<_> = library.rows().iter().map(|row| row.title.clone()).collect();
    titles.sort();
    assert_eq!(titles, ["1", "2", "2", "3", "4", "5", "6"], "the WAV has the title of its ID3");
    for row in library.rows() {
        let cover = library.record(&row).cover.unwrap_or_else(|| panic!("{} has lost its cover", row.title));
        assert!(library.object(&cover).starts_with(b"\xff\xd8\xff"), "{}", row.title);
    }
}
