//! Skip, pause, stop; devices that go away; segments that lie.

use std::time::{Duration, Instant};

use jukebox::audio::{Dac, Form, RateRule};
use jukebox_core::library::{Codec, Init};
use jukebox_core::sound::{EntryId, Order, OutputState, Report};

use super::material::*;
use super::rig::*;

/// A track of one constant level: every ramp shows.
pub fn level(dir: &std::path::Path, name: &str, steps: i16, seconds: u32) -> Cut {
    let raw = dir.join(format!("{name}.raw"));
    let frames = 48_000 * seconds as usize;
    let bytes: Vec<u8> = std::iter::repeat_n(steps.to_le_bytes(), frames * 2).flatten().collect();
    std::fs::write(&raw, bytes).unwrap();
    let path = dir.join(format!("{name}.flac"));
    let format =
        ["--force-raw-format", "--endian=little", "--sign=signed", "--channels=2", "--bps=16", "--sample-rate=48000"];
    let files = ["-s", "-o", path.to_str().unwrap(), raw.to_str().unwrap()];
    run("flac", &[&format[..], &files].concat());
    Packets::of(&path).cut_often(0)
}

pub fn paced() -> Dac {
    Dac::keeping(Form::S16, true, &[])
}

/// Left channel, from the first sound on.
pub fn left(dac: &Dac) -> Vec<i32> {
    dac.integers().into_iter().step_by(2).skip_while(|&x| x == 0).collect()
}

fn steepest(samples: &[i32]) -> i32 {
    samples.windows(2).map(|w| (w[1] - w[0]).abs()).max().unwrap_or(0)
}

#[test]
fn a_skip_fades_out_drops_the_rest_and_fades_in_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (level(dir.path(), "old", 16_000, 6), level(dir.path(), "new", -16_000, 2));
    let rig = Rig::new(paced(), RateRule::Follow, &[&old, &new]);
    old.pieces(1, 0, 0, 0).into_iter().take(4).for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("old sound", |h| h.at.n > 9_600);
    rig.audio.order(Order::Flush { generation: 1, more: true, fade_ms: 5 });
    let pieces = new.pieces(2, 0, 100, 1);
    pieces.iter().cloned().for_each(|p| rig.audio.order(Order::Play(p)));
    let asked = Instant::now();
    let heard = rig.until("new sound", |h| h.generation == 1);
    let took = asked.elapsed();
    assert_eq!(heard.entry.0, 2);
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.entry.0, heard.at.n, heard.underrun_frames), (2, 96_000, 0));
    let samples = left(&rig.dac);
    let zero = samples.iter().position(|&x| x <= 0).unwrap();
    let (down, up) = (&samples[zero - 300..zero], &samples[zero..zero + 300]);
    assert!(down[0] == 16_000 && down.windows(2).all(|w| w[1] <= w[0] + 4), "out: monotone but for dither");
    assert!(up[299] == -16_000 && up.windows(2).all(|w| w[1] <= w[0] + 4), "in: monotone but for dither");
    assert!(steepest(&samples[zero - 300..zero + 300]) <= 16_000 / 240 + 5, "no click");
    assert!(samples[zero..].iter().all(|&x| x <= 0), "not one sample of the old");
    let silent = samples[zero - 10..zero + 10].iter().filter(|x| x.abs() < 10).count();
    assert!(silent < 5, "{silent} silent frames between the two");
    let new_frames = samples[zero..].iter().filter(|&&x| (x + 16_000).abs() <= 2).count();
    assert!((96_000 - 240..96_000 - 230).contains(&new_frames), "{new_frames}: all of the new but for its fade");
    println!("skip: new sound left the DAC after {took:?} (10 ms periods)");
}

#[test]
fn a_long_fade_takes_its_time_and_never_more_than_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (level(dir.path(), "old", 16_000, 6), level(dir.path(), "new", -16_000, 2));
    for (fade_ms, longest) in [(500, 24_000 + 960), (60_000, 2 * 48_000 + 4_800)] {
        let rig = Rig::new(paced(), RateRule::Follow, &[&old, &new]);
        old.pieces(1, 0, 0, 0).into_iter().take(4).for_each(|p| rig.audio.order(Order::Play(p)));
        rig.until("old sound", |h| h.at.n > 9_600);
        rig.audio.order(Order::Flush { generation: 1, more: true, fade_ms });
        new.pieces(2, 0, 100, 1).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
        let heard = rig.until("the end", |h| h.ended && h.generation == 1);
        assert_eq!((heard.entry.0, heard.at.n, heard.underrun_frames), (2, 96_000, 0));
        let samples = left(&rig.dac);
        let zero = samples.iter().position(|&x| x <= 0).unwrap();
        let begin = samples.iter().position(|&x| x < 15_990).unwrap();
        let begin = samples[begin..zero].iter().position(|&x| x < 15_900).unwrap() + begin;
        assert!((20_000..longest).contains(&(zero - begin)), "{fade_ms} ms: it faded over {} frames", zero - begin);
        assert!(samples[begin..zero].windows(2).all(|w| w[1] <= w[0] + 4), "monotone but for dither");
        assert!(steepest(&samples[begin..zero + 300]) <= 16_000 / 240 + 5, "no click");
    }
}

#[test]
fn a_stop_fades_out_and_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let old = level(dir.path(), "old", 16_000, 4);
    let rig = Rig::new(paced(), RateRule::Follow, &[&old]);
    old.pieces(1, 0, 0, 0).into_iter().take(4).for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("sound", |h| h.at.n > 4_800);
    rig.audio.order(Order::Flush { generation: 1, more: false, fade_ms: 5 });
    rig.audio.order(Order::Close);
    while rig.report() != Report::Output(OutputState::Closed) {}
    let heard = rig.audio.heard();
    assert!(!heard.ended && heard.entry.0 == 1 && heard.ring_ms == 0 && heard.underrun_frames == 0, "{heard:?}");
    assert!(steepest(&left(&rig.dac)) <= 16_000 / 240 + 5, "no click");
}

#[test]
fn pause_holds_the_playhead_exactly_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let track = level(dir.path(), "level", 16_000, 2);
    let rig = Rig::new(paced(), RateRule::Follow, &[&track]);
    track.pieces(1, 0, 0, 0).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("sound", |h| h.at.n > 24_000);
    rig.audio.order(Order::Pause(true));
    let silent = |dac: &Dac| left(dac).iter().rev().take(1_000).all(|&x| x == 0);
    let begun = Instant::now();
    while !silent(&rig.dac) {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    let held = rig.audio.heard();
    let frames = rig.dac.frames();
    while rig.dac.frames() < frames + 4_800 {
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(rig.audio.heard().at, held.at);
    }
    rig.audio.order(Order::Pause(false));
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.at.n, heard.music_frames, heard.underrun_frames), (96_000, 96_000, 0));
    let samples = left(&rig.dac);
    let last = samples.iter().rposition(|&x| x != 0).unwrap();
    assert!(steepest(&samples[..=last]) <= 16_000 / 480 + 5, "no click");
    let played = samples.iter().filter(|&&x| x != 0).count();
    assert!((96_000 - 4..=96_000).contains(&played), "{played} frames sounded");
}

#[test]
fn volume_is_reached_over_its_ramp() {
    let dir = tempfile::tempdir().unwrap();
    let track = level(dir.path(), "level", 16_000, 2);
    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&track]);
    rig.audio.order(Order::Volume { factor: 0.25, ramp_ms: 10 });
    rig.play(track.pieces(1, 0, 0, 0));
    let samples = left(&rig.dac);
    assert!(samples[..96_000].iter().all(|&x| (x - 4_000).abs() <= 1), "the first volume needs no ramp");
}

#[test]
fn a_device_that_goes_away_is_reported_and_nothing_is_lost_when_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = flac(&wav(dir.path(), "a.wav", 48_000, 16, 2, 2.0, 1));
    let reference = flac_reference(&file, 2);
    let cut = Packets::of(&file).cut_often(0);
    let rig = Rig::new(paced(), RateRule::Follow, &[&cut]);
    cut.pieces(1, 0, 0, 0).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("sound", |h| h.at.n > 24_000);
    rig.dac.unplug();
    while !matches!(rig.report(), Report::Output(OutputState::Missing { .. })) {}
    let held = rig.audio.heard();
    let there = held.at.n as usize;
    let lead = rig.dac.frames() - there; // silence before the first frames were there
    assert!(rig.dac.integers()[..lead * 2].iter().all(|&x| x == 0), "what left the DAC, to the frame");
    assert!(held.ring_ms > 0);
    rig.dac.plug();
    let begun = Instant::now();
    while !matches!(rig.report(), Report::Output(OutputState::Open { .. })) {}
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.at.n, heard.underrun_frames), (96_000, 0));
    let samples: Vec<i32> = rig.dac.integers().into_iter().skip(lead * 2).collect();
    assert_eq!(samples[..there * 2], reference[..there * 2]);
    // One period holds the fade, and its dither.
    let faded = (there + 480) * 2;
    assert_same(&samples[faded..], &reference[faded..], "after the comeback and its fade");
    let n =
        samples[there * 2..faded].iter().zip(&reference[there * 2..]).filter(|(a, b)| a.abs() > b.abs() + 2).count();
    assert_eq!(n, 0, "faded in");
}

#[test]
fn a_device_that_falls_mute_is_missing_after_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let track = level(dir.path(), "level", 16_000, 3);
    let rig = Rig::new(paced(), RateRule::Follow, &[&track]);
    track.pieces(1, 0, 0, 0).into_iter().take(4).for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("sound", |h| h.at.n > 4_800);
    rig.dac.mute(true);
    let begun = Instant::now();
    while !matches!(rig.report(), Report::Output(OutputState::Missing { .. })) {}
    let took = begun.elapsed();
    assert!((900..1_600).contains(&(took.as_millis() as u64)), "{took:?}");
    rig.dac.mute(false);
    let held = rig.audio.heard().at.n;
    rig.until("sound again", |h| h.at.n > held + 9_600);
}

#[test]
fn nobody_there_at_first_is_reported_once_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let track = level(dir.path(), "level", 16_000, 1);
    let rig = Rig::new(paced(), RateRule::Follow, &[&track]);
    rig.dac.unplug();
    track.pieces(1, 0, 0, 0).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    assert!(matches!(rig.report(), Report::Output(OutputState::Missing { .. })));
    rig.dac.plug();
    assert!(matches!(rig.report(), Report::Output(OutputState::Open { rate: 48_000, .. })), "and not missing again");
    assert_eq!(rig.until("the end", |h| h.ended).music_frames, 48_000);
}

#[test]
fn the_rate_follows_the_original_between_tracks() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, rate| flac(&wav(dir.path(), name, rate, 16, 2, 0.7, 4));
    let files = [make("a.wav", 44_100), make("b.wav", 48_000), make("c.wav", 22_050)];
    let cuts = files.each_ref().map(|f| Packets::of(f).cut_often(0));
    let dac = Dac::keeping(Form::S16, false, &[44_100, 48_000]);
    let rig = Rig::new(dac, RateRule::Follow, &[&cuts[0], &cuts[1], &cuts[2]]);
    let pieces = (0..3).flat_map(|i| cuts[i].pieces(i as u32 + 1, 0, i as u64 * 10, 0)).collect();
    let reports = rig.give(pieces);
    let heard = rig.until("the end", |h| h.ended && h.entry.0 == 3);
    let rates: Vec<u32> = reports
        .iter()
        .filter_map(|r| if let Report::Output(OutputState::Open { rate, .. }) = r { Some(*rate) } else { None })
        .collect();
    assert_eq!(rates, [44_100, 48_000, 44_100], "the nearest that the device takes");
    assert_eq!(heard.music_frames, 30_870 + 33_600 + 30_870);
    assert_eq!(heard.underrun_frames, 0);
    let found = rig.dac.integers();
    let first = flac_reference(&files[0], 2);
    assert_same(&found[..first.len()], &first, "the first to its end");
    let second = flac_reference(&files[1], 2);
    let begin = first.len().next_multiple_of(441 * 2);
    assert!((0..8).any(|k| found[begin + k * 882..].starts_with(&second)), "the second from its beginning");
}

#[test]
fn a_torn_segment_is_told_and_music_goes_on_when_it_was_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let track = level(dir.path(), "level", 16_000, 2);
    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&track]);
    let torn = track.segments[1].0.digest;
    rig.shelf.lock().unwrap().get_mut(&torn).unwrap().pop();
    track.pieces(1, 0, 0, 0).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    let told = std::iter::repeat_with(|| rig.report()).find(|r| matches!(r, Report::Torn { .. }));
    let entry = EntryId(1);
    assert_eq!(told, Some(Report::Torn { seq: 1, generation: 0, entry, digest: torn }));
    rig.shelf.lock().unwrap().insert(torn, track.segments[1].1.clone());
    rig.audio.order(Order::Forget { seq: 0 });
    let heard = rig.play(track.pieces(1, 1, 10, 0));
    assert_eq!((heard.at.n, heard.music_frames, heard.underrun_frames), (96_000, 96_000, 0), "without a seam");
}

#[test]
fn a_track_that_cannot_be_decoded_is_told_and_the_next_plays() {
    let dir = tempfile::tempdir().unwrap();
    let good = level(dir.path(), "level", 16_000, 1);
    let garbage = Packets {
        init: Init { codec: Codec::Flac, ..good.rendition.init.clone() },
        delay: 0,
        frames: 40_960,
        packets: (0..10u8).map(|i| vec![i; 500]).collect(),
        starts: (0..=10).map(|i| i * 4_096).collect(),
    };
    let bad = garbage.cut(&[5], 0);
    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&good, &bad]);
    let pieces = [bad.pieces(1, 0, 0, 0), good.pieces(2, 0, 10, 0)].concat();
    pieces.into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    let digest = bad.segments[0].0.digest;
    let told = std::iter::repeat_with(|| rig.report()).find(|r| matches!(r, Report::Undecodable { .. }));
    let (seq, generation, entry, why) = (0, 0, EntryId(1), "no packet of a segment could be decoded".into());
    assert_eq!(told, Some(Report::Undecodable { seq, generation, entry, digest: Some(digest), why }));
    assert_eq!(rig.audio.heard().music_frames, 0, "nothing sounds in its place until somebody says what should");
    rig.audio.order(Order::Flush { generation: 1, more: true, fade_ms: 5 });
    assert_eq!(rig.play(good.pieces(2, 0, 20, 1)).entry.0, 2);
}

#[test]
fn a_packet_that_cannot_be_decoded_is_silence_of_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let file = flac(&wav(dir.path(), "a.wav", 44_100, 16, 2, 2.0, 1));
    let mut packets = Packets::of(&file);
    packets.packets[5] = vec![0x55; 99];
    let (from, to) = (packets.starts[5] as usize * 2, packets.starts[6] as usize * 2);
    let cut = packets.cut_often(0);
    let rig = Rig::fast(Form::S16, RateRule::Follow, &[&cut]);
    rig.play(cut.pieces(1, 0, 0, 0));
    let mut reference = flac_reference(&file, 2);
    reference[from..to].fill(0);
    assert_same(&rig.dac.integers(), &reference, "with a hole");
}

#[test]
fn the_next_output_takes_over_at_its_own_rate_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let track = level(dir.path(), "level", 16_000, 3);
    let (first, second) = (Dac::keeping(Form::S16, true, &[48_000]), Dac::keeping(Form::S16, true, &[44_100]));
    let rig = Rig::with(&[&first, &second], RateRule::Follow, &[&track]);
    let pieces = track.pieces(1, 0, 0, 0);
    let puller = first.clone();
    let pulled = std::thread::spawn(move || {
        while puller.frames() < 30_000 {
            std::thread::sleep(Duration::from_millis(1));
        }
        puller.unplug();
    });
    let giving = rig.give(pieces);
    pulled.join().unwrap();
    let states: Vec<_> = giving.into_iter().filter(|r| matches!(r, Report::Output(_))).collect();
    assert!(
        matches!(
            &states[..],
            [
                Report::Output(OutputState::Open { rate: 48_000, .. }),
                Report::Output(OutputState::Missing { .. }),
                Report::Output(OutputState::Open { rate: 44_100, .. })
            ]
        ),
        "{states:?}"
    );
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.at.n, heard.underrun_frames), (144_000, 0));
    let sounded = |dac: &Dac| left(dac).iter().filter(|&&x| x != 0).count() as i64;
    let expected = (144_000 - sounded(&first)) * 147 / 160;
    assert!((sounded(&second) - expected).abs() < 40, "{} frames of {expected}", sounded(&second));
}

#[test]
fn an_xrun_costs_what_the_library_swallowed_and_music_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let track = level(dir.path(), "level", 16_000, 1);
    let rig = Rig::new(paced(), RateRule::Follow, &[&track]);
    track.pieces(1, 0, 0, 0).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    rig.until("sound", |h| h.at.n > 9_600);
    rig.dac.xrun();
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.at.n, heard.xruns, heard.underrun_frames), (48_000, 1, 0));
    assert_eq!(heard.music_frames, 48_000 - 480, "the period that may have been swallowed counts as silence");
}

#[test]
fn a_longer_period_opens_the_device_anew_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let track = level(dir.path(), "level", 16_000, 1);
    let rig = Rig::new(paced(), RateRule::Follow, &[&track]);
    track.pieces(1, 0, 0, 0).into_iter().for_each(|p| rig.audio.order(Order::Play(p)));
    let opened = || {
        std::iter::repeat_with(|| rig.report()).find_map(|r| match r {
            Report::Output(OutputState::Open { period_ms, .. }) => Some(period_ms),
            _ => None,
        })
    };
    assert_eq!(opened(), Some(10));
    rig.until("sound", |h| h.at.n > 9_600);
    rig.audio.lengthen_period(40);
    assert_eq!(opened(), Some(40));
    rig.audio.lengthen_period(20);
    let heard = rig.until("the end", |h| h.ended);
    assert_eq!((heard.at.n, heard.underrun_frames), (48_000, 0));
}
