//! Orders that cross each other, and a decoder thread that is busy: with a slow card, with a dry ring, with nothing left.

use std::process::Command;
use std::time::{Duration, Instant};

use jukebox::audio::{Audio, Dac, Form, RateRule, Settings};
use jukebox_board::output::Device;
use jukebox_core::sound::{EntryId, Order, Report};

use super::material::*;
use super::orders::{level, paced};
use super::rig::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// The next piece that is read is this one.
fn until_asked(rig: &Rig, cut: &Cut, segment: usize) {
    let digest = cut.segments[segment].0.digest;
    while rig.asked.recv_timeout(PATIENCE).expect("a segment is read") != digest {}
}

fn until_frames(dac: &Dac, frames: usize) {
    let begun = Instant::now();
    while dac.frames() < frames {
        assert!(begun.elapsed() < PATIENCE, "{} of {frames} frames", dac.frames());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_skip_to_another_rate_after_the_ring_ran_dry() {
    let dir = tempfile::tempdir().unwrap();
    let file = flac(&wav(dir.path(), "a.wav", 44_100, 16, 2, 4.0, 4));
    let (old, new) = (Packets::of(&file).cut_often(0), level(dir.path(), "new", -16_000, 1));
    let rig = Rig::new(Dac::keeping(Form::S16, true, &[44_100, 48_000]), RateRule::Follow, &[&old, &new]);
    old.pieces(1, 0, 0, 0).into_iter().take(3).for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("a dry ring, long after the device was opened", |h| h.underrun_frames > 0 && h.at.n > 50_000);
    until_frames(&rig.dac, rig.dac.frames() + 4_410); // the last frame has left, too
    rig.audio.order(Order::Flush { generation: 1, more: true, fade_ms: 5 });
    new.pieces(2, 0, 100, 1).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.entry.0, heard.generation, heard.at.n), (2, 1, 48_000));
    let whole = rig.dac.integers().iter().step_by(2).filter(|&&x| (x + 16_000).abs() <= 2).count();
    assert!(whole >= 48_000 - 240, "{whole}: all of the new but for a fade");
}

#[test]
fn a_pause_that_ends_right_after_a_flush_lets_out_nothing_old() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (level(dir.path(), "old", 16_000, 6), level(dir.path(), "new", -16_000, 1));
    let rig = Rig::new(paced(), RateRule::Follow, &[&old, &new]);
    let pieces = old.pieces(1, 0, 0, 0);
    pieces[..2].iter().cloned().for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("old sound", |h| h.at.n > 4_800);
    rig.audio.order(Order::Pause(true));
    let begun = Instant::now();
    while rig.dac.integers().last() != Some(&0) {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(rig.audio.heard().ring_ms > 300, "old sound is left: {:?}", rig.audio.heard());
    // The card stalls.
    let shelf = rig.shelf.lock().unwrap();
    rig.audio.order(Order::Play(pieces[2].clone()));
    until_asked(&rig, &old, 2);
    rig.audio.order(Order::Flush { generation: 1, more: true, fade_ms: 5 });
    new.pieces(2, 0, 100, 1).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    rig.audio.order(Order::Pause(false));
    let silent = rig.dac.frames();
    until_frames(&rig.dac, silent + 9_600);
    assert!(rig.dac.integers()[silent * 2..].iter().all(|&x| x == 0), "not one sample of the old");
    drop(shelf);
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.entry.0, heard.at.n, heard.underrun_frames), (2, 48_000, 0));
    assert!(rig.dac.integers()[silent * 2..].iter().all(|&x| x <= 0), "not one sample of the old");
}

#[test]
fn a_remainder_without_a_frame_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = flac(&wav(dir.path(), "a.wav", 44_100, 16, 2, 0.7, 4));
    let cut = Packets::of(&file).cut_often(0);
    let frames = cut.rendition.frames;
    // From its very end; and three frames before it, which a converter leaves out, for both clocks to meet.
    for (rule, from) in [(RateRule::Follow, frames), (RateRule::Fixed(48_000), frames - 3)] {
        for paced in [true, false] {
            let rig = Rig::new(Dac::keeping(Form::S16, paced, &[]), rule, &[&cut]);
            let rest = |entry, seq, generation| {
                let mut pieces = cut.pieces(entry, cut.segments.len() - 1, seq, generation);
                pieces[0].from = from;
                pieces
            };
            let heard = rig.play(rest(1, 0, 0));
            assert_eq!((heard.at.n, heard.music_frames), (frames, 0), "alone: {rule:?}, paced: {paced}");
            rig.audio.order(Order::Flush { generation: 1, more: true, fade_ms: 5 });
            rig.play([cut.pieces(2, 0, 10, 1), rest(3, 20, 1)].concat());
            let heard = rig.play(rest(4, 30, 1));
            assert_eq!((heard.at.n, heard.generation, heard.underrun_frames), (frames, 1, 0), "{rule:?}, {paced}");
        }
    }
}

#[test]
fn bursts_of_orders_while_the_card_stalls_lose_no_piece() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (level(dir.path(), "old", 16_000, 2), level(dir.path(), "new", -16_000, 2));
    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&old, &new]);
    let shelf = rig.shelf.lock().unwrap();
    old.pieces(1, 0, 0, 0).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    until_asked(&rig, &old, 0);
    for generation in 1..=50 {
        rig.audio.order(Order::Flush { generation, more: true, fade_ms: 5 });
        let seq = u64::from(generation) * 10;
        old.pieces(2, 0, seq, generation).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    }
    for turn in 0..50 {
        rig.audio.order(Order::Forget { seq: 501 });
        new.pieces(3 + turn, 0, 1_000 + 10 * u64::from(turn), 50).into_iter().for_each(|p| {
            rig.audio.order(Order::Play(p));
        });
    }
    drop(shelf);
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.generation, heard.entry.0, heard.at.n), (50, 52, 96_000));
    let done: Vec<u64> =
        rig.reports.try_iter().filter_map(|r| if let Report::Decoded { seq } = r { Some(seq) } else { None }).collect();
    assert_eq!(done[..2], [500, 501], "two pieces of the old, and then the new");
    let pieces = new.segments.len() as u64;
    assert_eq!(done[2..], (0..pieces).map(|k| 1_490 + k).collect::<Vec<_>>());
}

#[test]
fn what_was_wrong_with_a_forgotten_piece_does_not_stop_others() {
    let dir = tempfile::tempdir().unwrap();
    let (first, torn) = (level(dir.path(), "a", 16_000, 1), level(dir.path(), "b", 8_000, 1));
    let last = level(dir.path(), "c", -16_000, 1);
    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&first, &torn, &last]);
    let digest = torn.segments[0].0.digest;
    rig.shelf.lock().unwrap().remove(&digest);
    let kept = first.pieces(1, 0, 0, 0);
    let seq = kept.last().unwrap().seq;
    kept.into_iter().chain(torn.pieces(2, 0, 10, 0)).for_each(|p| rig.audio.order(Order::Play(p)));
    let told = std::iter::repeat_with(|| rig.report()).find(|r| matches!(r, Report::Torn { .. }));
    assert_eq!(told, Some(Report::Torn { seq: 10, generation: 0, entry: EntryId(2), digest }));
    rig.audio.order(Order::Forget { seq });
    let heard = rig.play(last.pieces(3, 0, 20, 0));
    assert_eq!((heard.at.n, heard.music_frames), (48_000, 96_000));
}

/// Set in the child, whose decoder thread panics.
const CHILD: &str = "JUKEBOX_TEST_PANIC";

#[test]
fn a_panic_of_the_decoder_thread_ends_the_process() {
    if std::env::var(CHILD).is_ok() {
        let dir = tempfile::tempdir().unwrap();
        let track = level(dir.path(), "level", 16_000, 1);
        let outputs = vec![Device::Virtual(paced())];
        let settings = Settings { outputs, rate: RateRule::Follow, period_ms: None, start_ramp_ms: 0 };
        let audio = Audio::start(settings, |_| panic!("the card is on fire"), drop).unwrap();
        audio.order(Order::Play(track.pieces(1, 0, 0, 0).remove(0)));
        std::thread::sleep(PATIENCE); // never so long: the process ends
        return;
    }
    let name = "sound::races::a_panic_of_the_decoder_thread_ends_the_process";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let done = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    assert_eq!(done.status.code(), Some(70), "{}", String::from_utf8_lossy(&done.stderr));
}
