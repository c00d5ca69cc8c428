//! A decoder that panics: symphonia's Vorbis divides by zero where two points of a floor have the same place.

use std::path::Path;
use std::sync::Arc;

use jukebox::audio::{Form, RateRule};
use jukebox_core::library::{Rendition, RenditionName};
use jukebox_core::sound::{EntryId, Order, Report};
use jukebox_office::publish::{Options, publish};

use super::material::*;
use super::rig::*;

/// Gives a floor of libvorbis, that of long blocks at this rate, two points at 0 (Vorbis I, section 7.2.2).
fn spoil(bytes: &mut [u8]) {
    let bit = |bytes: &[u8], i: usize| u32::from(bytes[i / 8] >> (i % 8) & 1);
    let number = |bytes: &[u8], at: usize| (0..10).map(|i| bit(bytes, at + i) << i).sum::<u32>();
    let starts =
        |at: usize| [93, 23, 372, 6, 46, 186, 750].iter().enumerate().all(|(k, &x)| number(bytes, at + k * 10) == x);
    let at = (0..(bytes.len() - 9) * 8).find(|&at| starts(at)).expect("the floor of libvorbis");
    (at..at + 10).for_each(|i| bytes[i / 8] &= !(1 << (i % 8)));
}

fn vorbis(dir: &Path, name: &str, seed: u32) -> std::path::PathBuf {
    let (source, file) = (wav(dir, "source.wav", 44_100, 16, 2, 5.0, seed), dir.join(name));
    run("oggenc", &["-Q", "-q", "5", "-o", file.to_str().unwrap(), source.to_str().unwrap()]);
    std::fs::remove_file(source).unwrap();
    file
}

#[test]
fn a_panic_costs_its_track_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (music, library) = (dir.path().join("music"), dir.path().join("library"));
    std::fs::create_dir(&music).unwrap();
    vorbis(&music, "before.ogg", 1);
    vorbis(&music, "bad.ogg", 2);
    vorbis(&music, "after.ogg", 3);
    publish(&Options::new(&music, &library)).unwrap();
    let cut = |title| Cut::published(&library, Some(title), RenditionName::Original);
    let [before, mut bad, after] = ["before", "bad", "after"].map(cut);
    let mut init = bad.rendition.init.clone();
    spoil(&mut init.extra);
    bad.rendition = Arc::new(Rendition { init, ..(*bad.rendition).clone() });

    let rig = Rig::fast(Form::F32, RateRule::Follow, &[&before, &bad, &after]);
    let pieces = [before.pieces(1, 0, 0, 0), bad.pieces(2, 0, 10, 0), after.pieces(3, 0, 20, 0)].concat();
    pieces.into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    let told = std::iter::repeat_with(|| rig.report()).find(|r| matches!(r, Report::Undecodable { .. })).unwrap();
    rig.audio.order(Order::Forget { seq: 9 });
    after.pieces(3, 0, 30, 0).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("the end", |h| h.ended && h.entry == EntryId(3));
    assert!(!rig.reports.try_iter().any(|r| matches!(r, Report::Undecodable { .. })), "once");
    let Report::Undecodable { entry: EntryId(2), why, .. } = &told else { panic!("{told:?}") };
    assert_eq!(&**why, "the decoder panicked three times");

    let alone = |cut: &Cut| {
        let rig = Rig::fast(Form::F32, RateRule::Follow, &[cut]);
        rig.play(cut.pieces(1, 0, 0, 0));
        rig.dac.floats()[..cut.rendition.frames as usize * 2].to_vec()
    };
    let (found, first, last) = (rig.dac.floats(), alone(&before), alone(&after));
    assert!(found[..first.len()] == first[..], "what was before, to its last sample");
    let rest = &found[first.len()..];
    let silent = rest.iter().take_while(|x| **x == 0.0).count() / 2;
    assert!(silent <= 3 * 2_048 + 1, "three packets of silence at most: {silent} frames");
    // What follows fades in over 5 ms.
    let fade = 44_100 / 200 * 2 + 2;
    let begins = rest.windows(200).position(|w| *w == last[fade..fade + 200]).expect("what follows") - fade;
    assert!(begins / 2 <= 3 * 2_048, "it follows at once: after {} frames", begins / 2);
    assert!(rest[begins + fade..].starts_with(&last[fade..]), "to its last sample");
}

#[test]
fn the_office_refuses_a_file_that_makes_its_decoder_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (music, library) = (dir.path().join("music"), dir.path().join("library"));
    std::fs::create_dir(&music).unwrap();
    vorbis(&music, "good.ogg", 1);
    let bad = vorbis(&music, "bad.ogg", 2);
    let mut bytes = std::fs::read(&bad).unwrap();
    spoil(&mut bytes);
    mend_ogg(&mut bytes);
    std::fs::write(&bad, bytes).unwrap();
    let summary = publish(&Options::new(&music, &library)).unwrap();
    assert_eq!((summary.tracks, summary.unusable.len()), (1, 1), "{summary:?}");
    let (file, why) = &summary.unusable[0];
    let line = format!("{}: {why}", file.display());
    assert!(line.starts_with("bad.ogg: ") && line.contains("divide by zero") && line.lines().count() == 1, "{line}");
}
