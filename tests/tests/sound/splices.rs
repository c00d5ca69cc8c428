//! Changing the rendition in mid-track: at every border of a track, between every two renditions, in both directions.
//!
//! The measure is each rendition played alone, on the same output. Away from the borders the spliced track must be, at the
//! same frame, the rendition that plays there; at a border each sample must lie between the two. So nothing is repeated,
//! left out or shifted, and nothing is louder than its sources. A click would be a jump that neither of them has.

use jukebox::audio::{Dac, Form, RateRule};
use jukebox_core::library::{Codec, Digest, RenditionName};
use jukebox_core::segment::Segment;
use jukebox_core::sound::{Order, PIECES_AHEAD, Piece, Report};
use jukebox_office::publish::{Options, publish};

use super::material::*;
use super::rig::*;

/// A track as the office publishes it: original, 96 and 32 kbit/s.
fn published(file: &std::path::Path) -> [Cut; 3] {
    let library = tempfile::tempdir().unwrap();
    publish(&Options::new(file.parent().unwrap(), library.path())).unwrap();
    let names = [RenditionName::Original, RenditionName::Opus96, RenditionName::Opus32];
    names.map(|name| Cut::published(library.path(), None, name))
}

/// The pieces of a track whose segments are of the renditions that `choose` says.
fn mixed<'a>(cuts: &'a [Cut; 3], choose: impl Fn(usize) -> usize + 'a) -> Vec<Piece> {
    let all = cuts.each_ref().map(|c| c.pieces(1, 0, 0, 0));
    let original_rate = cuts[0].rendition.init.rate;
    (0..all[0].len()).map(|k| Piece { original_rate, ..all[choose(k)][k].clone() }).collect()
}

struct Sink {
    form: Form,
    rates: &'static [u32],
    rule: RateRule,
    rate: u32,
}

/// Plays pieces; left and right channel, as far as music was heard.
fn play(sink: &Sink, cuts: &[Cut; 3], pieces: Vec<Piece>) -> [Vec<f32>; 2] {
    let rig = Rig::new(Dac::keeping(sink.form, false, sink.rates), sink.rule, &cuts.each_ref());
    let rate = cuts[0].rendition.init.rate;
    rig.give(pieces);
    let heard = rig.until("the end", |h| {
        let due = h.music_frames * u64::from(rate) / u64::from(sink.rate);
        assert!(h.ended || (h.at.n.abs_diff(due) <= 1 && h.at.rate % rate == 0), "{h:?}, due {due}");
        h.ended
    });
    let frames = cuts[0].rendition.frames;
    assert_eq!((heard.at.n, heard.at.rate, heard.underrun_frames), (frames, rate, 0));
    assert_eq!(heard.music_frames, (frames * u64::from(sink.rate)).div_ceil(rate.into()), "length");
    assert_eq!(rig.dac.rate(), sink.rate);
    let floats = rig.dac.floats();
    let music = &floats[..heard.music_frames as usize * 2];
    assert!(floats[music.len()..].iter().all(|&x| x == 0.0), "sound after the end");
    [0, 1].map(|side| music.iter().skip(side).step_by(2).copied().collect())
}

/// By how many frames `b` comes later than `a`: a parabola through the peak of the correlation.
fn lag(a: &[f32], b: &[f32]) -> f64 {
    let n = a.len().min(b.len());
    let at = |l: usize| (8..n - 8).map(|i| f64::from(a[i]) * f64::from(b[i + l - 8])).sum::<f64>();
    let peak = (1..16).max_by(|&x, &y| at(x).total_cmp(&at(y))).unwrap();
    let (before, top, after) = (at(peak - 1), at(peak), at(peak + 1));
    peak as f64 - 8.0 + 0.5 * (before - after) / (before - 2.0 * top + after)
}

/// The largest second difference.
fn jump(x: &[f32]) -> f32 {
    x.windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs()).fold(0.0, f32::max)
}

/// What a window holds at the top of the spectrum, beyond 0.4 of the rate, where music has little and a click all it has:
/// the loudest of short windows (Goertzel, at five frequencies).
fn hiss(x: &[f32]) -> f32 {
    let power = |w: &[f32], part: f32| {
        let k = 2.0 * (std::f32::consts::TAU * part).cos();
        let (a, b) = w.iter().zip(0..).fold((0.0, 0.0), |(a, b), (x, i)| {
            let hann = (std::f32::consts::PI * i as f32 / w.len() as f32).sin().powi(2);
            (x * hann + k * a - b, a)
        });
        a * a + b * b - k * a * b
    };
    let windows = x.windows(64).step_by(16);
    windows.map(|w| [0.42, 0.44, 0.46, 0.48, 0.495].map(|p| power(w, p)).iter().sum::<f32>()).fold(0.0, f32::max)
}

/// Every border, every two renditions, both directions. Returns the largest lag against the original, in frames of 44.1 kHz.
fn every_border(name: &str, cuts: &[Cut; 3], sink: &Sink) -> f64 {
    let alone = [0, 1, 2].map(|i| play(sink, cuts, mixed(cuts, move |_| i)));
    let frames = alone[0][0].len();
    let of = |ms: usize| sink.rate as usize * ms / 1_000;
    let ratio = f64::from(sink.rate) / f64::from(cuts[0].rendition.init.rate);
    let count = cuts[0].segments.len();
    let borders: Vec<usize> = (1..count).map(|k| (cuts[0].begins(k) as f64 * ratio) as usize).collect();
    let (mut splices, mut worst_lag, mut worst_off, mut worst_jump, mut worst_hiss) = (0, 0f64, 0f32, 0f32, 0f32);
    for (a, b) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        let choose = move |k: usize| if k.is_multiple_of(2) { a } else { b };
        let found = play(sink, cuts, mixed(cuts, choose));
        let what = format!("{name}, {a} and {b}");
        for side in 0..2 {
            let against = lag(&alone[0][side], &found[side]).abs() * 44_100.0 / f64::from(sink.rate);
            worst_lag = worst_lag.max(against);
            let mut begin = 0;
            for k in 0..count {
                // Where the segment sounds alone: after the fade at its beginning, before that at its end.
                let end = borders.get(k).map_or(frames, |b| b - of(31));
                let pure = &alone[choose(k)][side];
                if begin < end {
                    let off = found[side][begin..end].iter().zip(&pure[begin..end]).map(|(x, y)| (x - y).abs());
                    worst_off = worst_off.max(off.fold(0.0, f32::max));
                }
                let Some(&border) = borders.get(k) else { break };
                begin = border + of(31);
                let area = border - of(31)..begin.min(frames);
                let [old, new] = [&alone[choose(k)][side][area.clone()], &alone[choose(k + 1)][side][area.clone()]];
                let now = &found[side][area];
                for ((x, y), z) in old.iter().zip(new).zip(now) {
                    assert!(*z >= x.min(*y) - 2e-3 && *z <= x.max(*y) + 2e-3, "{what}: {z} is not between {x} and {y}");
                }
                worst_jump = worst_jump.max(jump(now) / jump(old).max(jump(new)));
                worst_hiss = worst_hiss.max(hiss(now) / hiss(old).max(hiss(new)).max(1e-6));
                splices += usize::from(side == 0);
            }
        }
    }
    println!(
        "{name}: {splices} splices, lag {worst_lag:.4} frames, {worst_off:.1e} off, jump {worst_jump:.2}, hiss {worst_hiss:.2}"
    );
    assert!(worst_off <= 1e-4, "{name}: {worst_off} off the rendition that plays");
    assert!(worst_jump <= 1.05, "{name}: a jump {worst_jump} times what the sources have");
    assert!(worst_hiss <= 1.2, "{name}: {worst_hiss} times the sources' top of the spectrum");
    worst_lag
}

const fn sink(rule: RateRule, rates: &'static [u32], rate: u32) -> Sink {
    Sink { form: Form::F32, rates, rule, rate }
}

/// Tones, in which every click shows.
fn source(dir: &tempfile::TempDir, rate: u32, bits: u32, channels: u32, seconds: f64) -> std::path::PathBuf {
    let music = dir.path().join("music");
    std::fs::create_dir(&music).unwrap();
    tones(&music.join("a.wav"), [rate, bits, channels], seconds, 7)
}

/// As FLAC or MP3, in a folder of its own.
fn coded(wav: std::path::PathBuf, options: Option<&[&str]>) -> std::path::PathBuf {
    let file = options.map_or_else(|| flac(&wav), |o| mp3(&wav, o));
    std::fs::remove_file(wav).unwrap();
    file
}

#[test]
fn flac_of_a_cd_whose_last_segment_is_short() {
    let dir = tempfile::tempdir().unwrap();
    let cuts = published(&coded(source(&dir, 44_100, 16, 2, 20.07), None));
    every_border("flac 44.1 follow", &cuts, &sink(RateRule::Follow, &[], 44_100));
    every_border("flac 44.1 to 48", &cuts, &sink(RateRule::Fixed(48_000), &[], 48_000));
}

#[test]
fn mp3_that_leans_on_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let cuts = published(&coded(source(&dir, 44_100, 16, 2, 9.3), Some(&["-V2"])));
    assert_eq!(cuts[0].rendition.init.codec, Codec::Mp3);
    every_border("mp3 44.1 follow", &cuts, &sink(RateRule::Follow, &[], 44_100));
    every_border("mp3 44.1 to 48", &cuts, &sink(RateRule::Fixed(48_000), &[], 48_000));
}

#[test]
fn noise_tells_that_nothing_lags() {
    let dir = tempfile::tempdir().unwrap();
    let music = dir.path().join("music");
    std::fs::create_dir(&music).unwrap();
    let cuts = published(&coded(wav(&music, "a.wav", 44_100, 16, 2, 9.3, 7), None));
    for (name, sink) in [
        ("noise 44.1 follow", sink(RateRule::Follow, &[], 44_100)),
        ("noise 44.1 to 48", sink(RateRule::Fixed(48_000), &[], 48_000)),
    ] {
        let lag = every_border(name, &cuts, &sink);
        assert!(lag < 0.02, "{name}: {lag} frames of lag");
    }
}

#[test]
fn other_rates_and_mono() {
    let dir = tempfile::tempdir().unwrap();
    let cuts = published(&coded(source(&dir, 48_000, 24, 1, 8.6), None));
    every_border("mono flac 48 follow", &cuts, &sink(RateRule::Follow, &[], 48_000));
    let dir = tempfile::tempdir().unwrap();
    let cuts = published(&coded(source(&dir, 96_000, 24, 2, 8.6), None));
    every_border("flac 96 follow", &cuts, &sink(RateRule::Follow, &[], 96_000));
    every_border("flac 96 to 44.1", &cuts, &sink(RateRule::Fixed(44_100), &[], 44_100));
    let dir = tempfile::tempdir().unwrap();
    let cuts = published(&coded(source(&dir, 22_050, 16, 1, 8.6), Some(&["-V4"])));
    every_border("mono mp3 22.05, DAC from 44.1 on", &cuts, &sink(RateRule::Follow, &[44_100, 48_000], 44_100));
    every_border("mono mp3 22.05 to 48", &cuts, &sink(RateRule::Fixed(48_000), &[], 48_000));
}

/// The same track, of which nothing of segment `k` can be decoded, although its digest is right.
fn spoilt(cut: &Cut, k: usize) -> Cut {
    let mut cut = cut.clone();
    let (place, bytes) = &mut cut.segments[k];
    // No frame of FLAC, and Opus of no frames (RFC 6716, 3.2.5): libopus takes anything else.
    let noise = [0xff, 0x00, 0x55, 0x55];
    let mut segment = Segment::decode(bytes).unwrap();
    segment.body.iter_mut().chain(&mut segment.tail).for_each(|packet| *packet = &noise[..]);
    let spoilt = segment.encode();
    (place.digest, *bytes) = (Digest::of(&spoilt), spoilt);
    cut
}

#[test]
fn a_segment_of_which_nothing_can_be_decoded_gives_way_to_another_rendition() {
    let dir = tempfile::tempdir().unwrap();
    let cuts = published(&coded(source(&dir, 44_100, 16, 2, 9.3), None));
    let sink = sink(RateRule::Follow, &[], 44_100);
    for (bad, good) in [(0, 1), (2, 1), (1, 0)] {
        for k in [0, 2] {
            let what = format!("segment {k} of rendition {bad}, then {good}");
            let want = play(&sink, &cuts, mixed(&cuts, |i| if i < k { bad } else { good }));
            let mut held = cuts.clone();
            held[bad] = spoilt(&cuts[bad], k);
            let rig = Rig::new(Dac::keeping(sink.form, false, sink.rates), sink.rule, &held.each_ref());
            let numbered = |first: u64, pieces: Vec<Piece>| {
                (first..).zip(pieces).map(|(seq, p)| Piece { seq, ..p }).collect::<Vec<_>>()
            };
            let pieces = numbered(1, mixed(&held, |_| bad));
            let digest = pieces[k].segment.digest;
            pieces.into_iter().take(PIECES_AHEAD).for_each(|p| rig.audio.order(Order::Play(p)));
            let told = std::iter::repeat_with(|| rig.report()).find_map(|r| match r {
                Report::Undecodable { seq, digest, .. } => Some((seq, digest?)),
                _ => None,
            });
            assert_eq!(told, Some((1 + k as u64, digest)), "{what}");
            rig.audio.order(Order::Forget { seq: k as u64 });
            rig.give(numbered(100, mixed(&held, |_| good).split_off(k)));
            rig.until("the end", |h| h.ended);
            let floats = rig.dac.floats();
            for (side, want) in want.iter().enumerate() {
                let found: Vec<f32> = floats.iter().skip(side).step_by(2).copied().collect();
                assert!(found.starts_with(want), "{what}: not as if it had been chosen");
            }
        }
    }
}
