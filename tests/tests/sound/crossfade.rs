//! Two tracks that overlap: which sample of which sounds where, and how loud.
//!
//! The reference is arithmetic on each track played alone on the same output: cosine and sine of one angle over the fade.

use std::f32::consts::FRAC_PI_2;

use jukebox::audio::{Dac, Form, RateRule};
use jukebox_core::library::{Gain, RenditionName};
use jukebox_core::sound::{EntryId, Order, Piece, Report};
use jukebox_core::time::Span;
use jukebox_office::publish::{Options, publish};

use super::material::*;
use super::orders::{left, level};
use super::rig::*;

/// Pieces of two tracks that overlap, in the order in which core gives them: the second one's first before the first piece
/// of the one before that it touches, and then as they sound.
fn overlapping(a: &Cut, b: &Cut, overlap: Span, gains: [f32; 2]) -> Vec<Piece> {
    let ms = |cut: &Cut, k: usize| cut.begins(k) as u64 * 1_000 / u64::from(cut.rendition.init.rate);
    let border = a.rendition.frames * 1_000 / u64::from(a.rendition.init.rate) - overlap.as_ms();
    let mut all: Vec<(u64, Piece)> = a
        .pieces(1, 0, 0, 0)
        .into_iter()
        .enumerate()
        .map(|(k, p)| (ms(a, k), Piece { gain: Gain(gains[0]), ..p }))
        .collect();
    let at = all.iter().rposition(|p| p.0 <= border).unwrap();
    for (k, mut p) in b.pieces(2, 0, 100, 0).into_iter().enumerate() {
        p.gain = Gain(gains[1]);
        if k == 0 {
            p.overlap = overlap;
            all.insert(at, (border, p));
        } else {
            let time = border + ms(b, k);
            let place = all.iter().skip(at + 1).position(|p| p.0 > time).map_or(all.len(), |i| i + at + 1);
            all.insert(place, (time, p));
        }
    }
    all.into_iter().zip(0..).map(|((_, p), seq)| Piece { seq, ..p }).collect()
}

/// Gives pieces whose reports do not come in their order.
fn give(rig: &Rig, pieces: Vec<Piece>) {
    let mut waiting = pieces.into_iter();
    waiting.by_ref().take(4).for_each(|p| rig.audio.order(Order::Play(p)));
    while waiting.len() > 0 {
        if matches!(rig.report(), Report::Decoded { .. }) {
            waiting.by_ref().take(1).for_each(|p| rig.audio.order(Order::Play(p)));
        }
    }
}

/// Interleaved stereo, as far as music was heard.
fn alone(cut: &Cut, rule: RateRule, gain: f32) -> Vec<f32> {
    let rig = Rig::fast(Form::F32, rule, &[cut]);
    let heard = rig.play(cut.pieces(1, 0, 0, 0).into_iter().map(|p| Piece { gain: Gain(gain), ..p }).collect());
    rig.dac.floats()[..heard.music_frames as usize * 2].to_vec()
}

/// `a` up to frame `from`, `b` beneath it to its end and then alone.
fn crossed(a: &[f32], b: &[f32], from: usize) -> Vec<f32> {
    let length = a.len() / 2 - from;
    let mut all = a[..from * 2].to_vec();
    all.extend((0..length * 2).map(|i| {
        let (up, down) = (((i / 2) as f32 + 0.5) / length as f32 * FRAC_PI_2).sin_cos();
        b[i] * up + a[from * 2 + i] * down
    }));
    all.extend_from_slice(&b[length * 2..]);
    all
}

#[test]
fn each_frame_sounds_where_it_should_at_equal_power_and_with_each_ones_gain() {
    let dir = tempfile::tempdir().unwrap();
    let flacs = [(7.3, 1), (9.1, 2)].map(|(seconds, seed)| {
        let source = wav(dir.path(), &format!("{seed}.wav"), 44_100, 16, 2, seconds, seed);
        Packets::of(&flac(&source)).cut_often(0)
    });
    let [a, b] = &flacs;
    for (overlap_ms, gains) in [(3_000, [0.0, 0.0]), (2_000, [-6.0, -3.0]), (100, [0.0, 0.0])] {
        let rig = Rig::fast(Form::F32, RateRule::Follow, &[a, b]);
        give(&rig, overlapping(a, b, Span::ms(overlap_ms), gains));
        let overlap = overlap_ms * 441 / 10;
        let from = a.rendition.frames - overlap;
        let heard = rig.until("the end", |h| {
            // The louder one plays, and its frames are counted as they lie.
            let until = from + overlap / 2;
            let due = if h.entry == EntryId(2) { h.music_frames - from.min(h.music_frames) } else { h.music_frames };
            assert!(h.at.n == due && (h.entry == EntryId(2)) == (h.music_frames > until), "{h:?}: {until}");
            h.ended
        });
        let expected =
            crossed(&alone(a, RateRule::Follow, gains[0]), &alone(b, RateRule::Follow, gains[1]), from as usize);
        assert_eq!((heard.music_frames as usize * 2, heard.underrun_frames), (expected.len(), 0), "length");
        let floats = rig.dac.floats();
        let off = floats.iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{overlap_ms} ms: {off}");
        assert!(floats[..from as usize * 2] == expected[..from as usize * 2], "before it, bit for bit");
        let after = a.rendition.frames as usize * 2;
        assert!(floats[after..expected.len()] == expected[after..], "after it, bit for bit");
        assert!(floats[expected.len()..].iter().all(|&x| x == 0.0));
    }
}

/// An MP3 of 44.1 kHz into a FLAC of 48, on an output of 48: both are converted, or not, by themselves.
#[test]
fn rates_and_codecs_do_not_matter_where_the_output_keeps_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let (music, library) = (dir.path().join("music"), dir.path().join("library"));
    std::fs::create_dir(&music).unwrap();
    std::fs::rename(mp3(&wav(dir.path(), "a.wav", 44_100, 16, 2, 9.5, 1), &["-V2"]), music.join("a.mp3")).unwrap();
    std::fs::rename(flac(&wav(dir.path(), "b.wav", 48_000, 16, 1, 11.0, 2)), music.join("b.flac")).unwrap();
    publish(&Options::new(&music, &library)).unwrap();
    let cut = |title| Cut::published(&library, Some(title), RenditionName::Original);
    let (a, b, rule) = (cut("a"), cut("b"), RateRule::Fixed(48_000));
    let rig = Rig::fast(Form::F32, rule, &[&a, &b]);
    give(&rig, overlapping(&a, &b, Span::ms(2_500), [0.0; 2]));
    let heard = rig.until("the end", |h| h.ended);
    let (first, second) = (alone(&a, rule, 0.0), alone(&b, rule, 0.0));
    // It begins with a block of the converter: no more than 30 ms early.
    let from = heard.music_frames as usize - second.len() / 2;
    let nominal = first.len() / 2 - 120_000;
    assert!((nominal - 1_440..=nominal).contains(&from), "{from}, not {nominal}");
    let (floats, expected) = (rig.dac.floats(), crossed(&first, &second, from));
    let off = floats.iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(off < 1e-5, "{off}");
    assert_eq!((heard.entry, heard.at.n, heard.underrun_frames), (EntryId(2), 48_000 * 11, 0));
}

/// Constant levels, so that every step shows: a pause, and a skip.
#[test]
fn what_happens_in_the_middle_of_it_makes_no_click() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) =
        (level(dir.path(), "a", 8_000, 4), level(dir.path(), "b", 8_000, 6), level(dir.path(), "c", -8_000, 2));
    let rig = Rig::new(Dac::keeping(Form::S16, true, &[]), RateRule::Follow, &[&a, &b, &c]);
    give(&rig, overlapping(&a, &b, Span::s(3), [0.0; 2]));
    rig.until("the fade", |h| h.at.n > 60_000);
    rig.audio.order(Order::Pause(true));
    rig.audio.order(Order::Pause(false));
    rig.until("the louder one", |h| h.entry == EntryId(2) && h.at.n > 80_000);
    rig.audio.order(Order::Flush { generation: 1, more: true, fade_ms: 5 });
    c.pieces(3, 0, 200, 1).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    let heard = rig.until("the next", |h| h.ended);
    assert_eq!((heard.entry, heard.generation, heard.at.n), (EntryId(3), 1, 96_000));
    let mut samples = left(&rig.dac);
    samples.truncate(samples.iter().rposition(|&x| x < -7_990).unwrap());
    let steepest = samples.windows(2).map(|w| (w[1] - w[0]).abs()).max().unwrap();
    // Two equal levels are the square root of two louder in the middle; a ramp of 5 ms has 240 frames.
    assert!(steepest <= 11_400 / 240 + 3, "no click: {steepest}");
    let loudest = samples.iter().copied().max().unwrap();
    assert!((11_300..11_330).contains(&loudest), "equal power: {loudest}");
}

/// A device that goes away in the middle takes nothing with it.
#[test]
fn a_device_that_is_opened_again_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (level(dir.path(), "a", 8_000, 3), level(dir.path(), "b", 8_000, 4));
    let rig = Rig::new(Dac::keeping(Form::S16, true, &[]), RateRule::Follow, &[&a, &b]);
    give(&rig, overlapping(&a, &b, Span::s(1), [0.0; 2]));
    rig.until("the fade", |h| h.at.n > 110_000);
    rig.audio.reopen();
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.entry, heard.at.n, heard.music_frames), (EntryId(2), 4 * 48_000, 6 * 48_000));
}

/// The device has to change its rate: there is no fade, and nothing is lost.
#[test]
fn without_one_rate_the_next_track_follows() {
    let dir = tempfile::tempdir().unwrap();
    let a = Packets::of(&flac(&wav(dir.path(), "a.wav", 44_100, 16, 2, 5.0, 1))).cut_often(0);
    let b = Packets::of(&flac(&wav(dir.path(), "b.wav", 48_000, 16, 2, 5.0, 2))).cut_often(0);
    let rig = Rig::fast(Form::F32, RateRule::Follow, &[&a, &b]);
    give(&rig, overlapping(&a, &b, Span::s(1), [0.0; 2]));
    let heard = rig.until("the end", |h| h.ended && h.entry == EntryId(2));
    assert_eq!((heard.music_frames, heard.underrun_frames), (5 * (44_100 + 48_000), 0));
}
