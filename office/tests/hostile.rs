//! Bad files cost a line each, and nothing else.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::{Place, flac, mp3, text, wav};
use jukebox_office::verify;

/// An ID3v2.4 tag of one frame (id3.org, "ID3 tag version 2.4.0", sections 3.1 and 4).
fn id3(frame: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let safe = |n: usize| [21, 14, 7, 0].map(|s| (n >> s & 0x7f) as u8);
    let mut tag = b"ID3\x04\0\0".to_vec();
    tag.extend(safe(body.len() + 10));
    tag.extend(frame);
    tag.extend(safe(body.len()));
    tag.extend([0, 0]);
    tag.extend(body);
    tag
}

fn prefixed(path: &Path, tag: &[u8], music: &Path) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(tag).unwrap();
    file.write_all(&fs::read(music).unwrap()).unwrap();
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        // Knuth's MMIX constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn each_bad_file_is_one_line() {
    let place = Place::new();
    let (source, good_mp3, good_flac) = (place.at("source.wav"), place.music("good.mp3"), place.music("good.flac"));
    wav(&source, 3.0, 44_100, 2, 16, 3);
    mp3(&source, &good_mp3, &["-V4"]);
    wav(&source, 3.0, 44_100, 2, 16, 4);
    flac(&source, &good_flac, &[]);
    let bytes = |p: &Path| fs::read(p).unwrap();
    // Not used, and why.
    fs::write(place.music("empty.mp3"), b"").unwrap();
    fs::write(place.music("text.flac"), "this is no music\n".repeat(1_000)).unwrap();
    fs::write(place.music("zeros.mp3"), vec![0; 100_000]).unwrap();
    let flac_bytes = bytes(&good_flac);
    fs::write(place.music("cut.flac"), &flac_bytes[..flac_bytes.len() / 2]).unwrap();
    fs::write(place.music("header.flac"), &flac_bytes[..60]).unwrap();
    let mp3_bytes = bytes(&good_mp3);
    fs::write(place.music("cut.mp3"), &mp3_bytes[..mp3_bytes.len() / 2]).unwrap();
    // STREAMINFO that speaks of 2^36 - 1 frames.
    let mut lies = flac_bytes.clone();
    lies[21] |= 0x0f;
    lies[22..26].fill(0xff);
    fs::write(place.music("lies.flac"), lies).unwrap();
    fs::copy(&source, place.music("plain.wav")).unwrap();
    let surround = place.music("surround.flac");
    common::tool("ffmpeg", &["-v", "error", "-i", text(&source), "-ac", "6", text(&surround)]);
    let mut giant = b"ID3\x04\0\0\x7f\x7f\x7f\x7f".to_vec();
    giant.extend(&mp3_bytes);
    fs::write(place.music("giant-tag.mp3"), giant).unwrap();
    // Used all the same.
    wav(&source, 2.0, 44_100, 2, 16, 5);
    mp3(&source, &place.at("x.mp3"), &["-V4"]);
    let mut title = vec![3];
    title.extend("Ä".repeat(500_000).as_bytes());
    prefixed(&place.music("title.mp3"), &id3(b"TIT2", &title), &place.at("x.mp3"));
    wav(&source, 2.0, 44_100, 2, 16, 6);
    mp3(&source, &place.at("x.mp3"), &["-V4"]);
    let mut cover = b"\0image/jpeg\0\x03\0\xff\xd8\xff\xe0".to_vec();
    cover.resize(50 << 20, 0x5a);
    prefixed(&place.music("cover.mp3"), &id3(b"APIC", &cover), &place.at("x.mp3"));
    wav(&source, 2.0, 44_100, 2, 16, 7);
    flac(&source, &place.music("comment.flac"), &[]);
    fs::write(place.at("long.txt"), "long ".repeat(200_000)).unwrap();
    let long = format!("--set-tag-from-file=COMMENT={}", text(&place.at("long.txt")));
    fs::write(place.at("no.jpg"), vec![0x5a; 100_000]).unwrap();
    let picture = format!("--import-picture-from=3|image/jpeg||100x100x24|{}", text(&place.at("no.jpg")));
    common::tool("metaflac", &[&long, &picture, text(&place.music("comment.flac"))]);
    // A MP3 by another name is what it is.
    wav(&source, 2.0, 44_100, 2, 16, 8);
    mp3(&source, &place.music("wrong-name.flac"), &["-V4"]);
    // Tags at the end that look like packets.
    wav(&source, 2.0, 44_100, 2, 16, 9);
    mp3(&source, &place.at("x.mp3"), &["-V4"]);
    let mut trailing = bytes(&place.at("x.mp3"));
    trailing.extend([0xff, 0xe3, 0x18, 0xc4].repeat(100));
    trailing.extend(b"TAG");
    trailing.resize(trailing.len() + 125, b' ');
    fs::write(place.music("trailing.mp3"), trailing).unwrap();

    // In a process that may have no more than so much memory.
    let run = || {
        let script = r#"ulimit -v 900000; exec "$0" publish --jobs 2 "$1" "$2""#;
        let mut command = Command::new("sh");
        command
            .args(["-c", script, env!("CARGO_BIN_EXE_jukebox-office")])
            .args([place.at("music"), place.at("library")]);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(String::from_utf8_lossy(&out.stderr), "");
        String::from_utf8(out.stdout).unwrap()
    };
    let said = run();
    let unused = [
        ("cut.flac", "is damaged: 1 of 3 s can be played; copy or rip it again"),
        ("cut.mp3", "is damaged: 1 of 3 s can be played; copy or rip it again"),
        ("empty.mp3", "is empty: copy it again"),
        ("giant-tag.mp3", "has 256 MB of tags and covers: remove the pictures"),
        ("header.flac", "copy it again"),
        ("lies.flac", "is damaged: 3 of 1558"),
        ("text.flac", "is not music, or damaged at its start"),
        ("zeros.mp3", "is not music, or damaged at its start"),
    ];
    let lines: Vec<&str> = said.lines().collect();
    for (i, (name, why)) in unused.iter().enumerate() {
        let start = format!("not used: {} ", text(&place.music(name)));
        assert!(lines[i].starts_with(&start) && lines[i].contains(why), "{name}: {said}");
    }
    for (line, name) in [(8, "comment.flac"), (9, "cover.mp3")] {
        let note = format!("note: {} has a cover that cannot be read", text(&place.music(name)));
        assert!(lines[line].starts_with(&note), "{said}");
    }
    assert!(lines[10].ends_with("surround.flac has 6 channels: mixed to stereo"), "{said}");
    assert!(lines[11].starts_with("9 tracks, "), "{said}");
    let library = place.library();
    let title = library.rows().into_iter().find(|r| r.title.starts_with('Ä')).unwrap().title;
    assert!(title.len() <= 400);
    let trailing = library.titled("trailing");
    assert_eq!(trailing.renditions[0].frames, 88_200);
    assert!(verify::verify(&library.0).unwrap().problems.is_empty());
    // What was refused is remembered, and said again.
    let again = run();
    assert!(again.contains("0 files worked on") && again.contains("nothing changed"), "{again}");
    assert_eq!(again.lines().take(11).collect::<Vec<_>>(), lines[..11]);
}

#[test]
fn mutated_files_cost_themselves_only() {
    let place = Place::new();
    let source = place.at("source.wav");
    wav(&source, 1.5, 44_100, 2, 16, 1);
    mp3(&source, &place.at("a.mp3"), &["-V4", "--tt", "Title", "--ta", "Artist"]);
    flac(&source, &place.at("a.flac"), &["--tag=TITLE=Title"]);
    let aac = ["-c:a", "aac", "-b:a", "96k", "-metadata", "title=Title"];
    for (ending, args) in [
        ("ogg", &["-c:a", "libvorbis", "-q:a", "4"][..]),
        ("opus", &["-c:a", "libopus", "-b:a", "64k"]),
        ("m4a", &aac),
        ("aac", &aac),
        ("caf.m4a", &["-c:a", "alac"]),
        ("aiff", &[]),
        ("wav", &[]),
    ] {
        let to = place.at(&format!("a.{ending}"));
        common::tool("ffmpeg", &[&["-v", "error", "-y", "-i", text(&source)], args, &[text(&to)]].concat());
    }
    let kinds = ["mp3", "flac", "ogg", "opus", "m4a", "aac", "caf.m4a", "aiff", "wav"];
    let mut random = Random(20_261_120);
    let files = 234;
    for n in 0..files {
        let kind = kinds[n % kinds.len()];
        let mut bytes = fs::read(place.at(&format!("a.{kind}"))).unwrap();
        for _ in 0..=random.below(20) {
            // Headers are the richest in trouble.
            let most = if random.below(2) == 0 { 200 } else { bytes.len() };
            let at = random.below(most.min(bytes.len()));
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.below(256) as u8,
                2 => {
                    let end = (at + random.below(4_000)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let end = (at + random.below(600)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
        fs::write(place.music(&format!("{n:03}.{kind}")), bytes).unwrap();
    }
    let summary = place.publish();
    let accounted = summary.tracks as usize + summary.unusable.len() + summary.duplicates.len();
    assert_eq!(accounted, files, "{summary:?}");
    assert!(summary.unusable.len() > 10 && summary.tracks > 10, "{summary:?}");
    for (_, why) in summary.unusable.iter().chain(&summary.notes) {
        assert!(!why.contains('\n') && why.contains(": ") || why.contains("; "), "{why}");
    }
    let library = place.library();
    let report = verify::verify(&library.0).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    // And what is in can be played from every segment.
    for row in library.rows() {
        let record = library.record(&row);
        for r in &record.renditions {
            let segments = library.segments(r);
            let decoded = common::decode(r, &segments);
            assert!(decoded.len() as u64 >= (r.delay + r.frames) * u64::from(r.init.channels), "{}", row.title);
        }
    }
}
