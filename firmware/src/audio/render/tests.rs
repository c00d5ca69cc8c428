//! The callback's body alone: no allocation, no system call; positions and gate frame by frame.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use assert_no_alloc::{AllocDisabler, assert_no_alloc};
use jukebox_board::output::Timing;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::*;
use crate::audio::feed::{Feed, Start};

#[global_allocator]
static ALLOCATOR: AllocDisabler = AllocDisabler;

const RATE: u32 = 48_000;

fn start(entry: u32, generation: u32, rate: u32) -> Start {
    Start { generation, entry: EntryId(entry), at: 0, rate, clock: rate, content: Content::Integer(16), joined: true }
}

fn renderer(rise_ms: u32) -> (Feed, Renderer, Arc<Controls>) {
    let controls = Arc::new(Controls::new());
    let (feed, (frames, markers)) = Feed::new(RATE, controls.clone());
    let renderer = Renderer::new(frames, markers, controls.clone(), RATE, rise_ms);
    (feed, renderer, controls)
}

/// A device that plays what it got a period before.
struct Device {
    given: u64,
    at: Instant,
    out: Vec<f32>,
}

impl Device {
    fn new(period: usize) -> Self {
        Self { given: 0, at: Instant::now(), out: vec![0.0; period * 2] }
    }

    fn ask(&mut self, renderer: &mut Renderer) -> Content {
        let period = (self.out.len() / 2) as u64;
        let timing = Timing { left: self.given.saturating_sub(period), epoch: 0, at: self.at };
        self.given += period;
        renderer.fill(&mut self.out, timing)
    }
}

/// Everything that a callback can meet, in turn: music, borders, pause, volume, flush, an empty ring.
fn ordeal(mut feed: impl FnMut(&mut dyn FnMut()), controls: &Controls, device: &mut Device, renderer: &mut Renderer) {
    for turn in 0..2_000u32 {
        match turn % 50 {
            10 => controls.paused.store(true, Relaxed),
            14 => controls.paused.store(false, Relaxed),
            20 => controls.set_volume(turn as f32 / 2_000.0, 100),
            30 => controls.flush.store(controls.pushed.load(Acquire), std::sync::atomic::Ordering::Release),
            _ => {}
        }
        feed(&mut || {
            device.ask(renderer);
        });
    }
}

#[test]
fn the_callback_never_allocates_after_its_first_call() {
    let (mut feed, mut renderer, controls) = renderer(500);
    let mut device = Device::new(960);
    let block = vec![0.25; 2 * 1_000];
    device.ask(&mut renderer);
    let mut entry = 0;
    let feeding = |ask: &mut dyn FnMut()| {
        entry += 1;
        if feed.is_clear() && entry % 7 != 0 {
            feed.begin(start(entry, 0, RATE));
            feed.put(&block);
            feed.end(1_000);
        }
        feed.pump(false);
        assert_no_alloc(ask);
    };
    ordeal(feeding, &controls, &mut device, &mut renderer);
    let heard = controls.heard();
    assert!(heard.music_frames > 100_000 && heard.entry.0 > 100, "{heard:?}");
}

/// Set in the child in which the callback's thread may make no system call at all.
const CHILD: &str = "JUKEBOX_TEST_SECCOMP";

#[test]
fn the_callback_makes_no_system_call_and_takes_no_lock() {
    if let Ok(way) = std::env::var(CHILD) {
        jailed(&way);
    }
    let child = |way: &str| {
        let name = "audio::render::tests::the_callback_makes_no_system_call_and_takes_no_lock";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(CHILD, way).output().unwrap()
    };
    let done = child("callback");
    assert!(done.status.success(), "{:?}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    const SIGSYS: i32 = 31;
    assert_eq!(child("yield").status.signal(), Some(SIGSYS), "the jail is one: a yield is killed");
}

/// Runs the callback in a thread that is killed, with the process, at its first system call. Never returns.
fn jailed(way: &str) -> ! {
    let (mut feed, mut renderer, controls) = renderer(500);
    let done = Arc::new(AtomicBool::new(false));
    let (way, told, wishes) = (way.to_owned(), done.clone(), controls.clone());
    std::thread::spawn(move || {
        let mut device = Device::new(960);
        device.ask(&mut renderer);
        const EXIT: i64 = if cfg!(target_arch = "x86_64") { 60 } else { 93 };
        let allowed = BTreeMap::from([(EXIT, vec![])]);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(allowed, SeccompAction::KillProcess, SeccompAction::Allow, arch).unwrap();
        let filter: BpfProgram = filter.try_into().unwrap();
        let yields = way == "yield";
        seccompiler::apply_filter(&filter).unwrap();
        // Who feeds it may not get the processor for a while.
        while wishes.heard().music_frames <= 10_000 {
            ordeal(|ask| ask(), &wishes, &mut device, &mut renderer);
        }
        if yields {
            std::thread::yield_now();
        }
        told.store(true, std::sync::atomic::Ordering::Release);
        loop {
            std::hint::spin_loop(); // even ending a thread takes system calls; the process ends it
        }
    });
    let block = vec![0.25; 2 * 1_000];
    let begun = Instant::now();
    let mut entry = 0;
    while !done.load(Acquire) && begun.elapsed() < Duration::from_secs(20) {
        entry += 1;
        if feed.is_clear() {
            feed.begin(start(entry, 0, RATE));
            feed.put(&block);
            feed.end(1_000);
        }
        feed.pump(false);
    }
    let heard = controls.heard();
    let fine = done.load(Acquire) && heard.music_frames > 10_000;
    println!("{heard:?}");
    std::process::exit(if fine { 0 } else { 1 });
}

#[test]
fn the_playhead_is_what_left_the_dac_and_ends_exactly() {
    let (mut feed, mut renderer, controls) = renderer(0);
    feed.begin(start(7, 3, 44_100));
    feed.put(&vec![0.5; 2 * 44_100]);
    feed.end(44_100);
    feed.finish();
    feed.pump(false);
    let mut device = Device::new(480);
    for k in 0..100u64 {
        device.ask(&mut renderer);
        let told = controls.snapshot.read();
        assert_eq!(told.heard.at.n, k.saturating_sub(1) * 441, "one period behind what was handed over");
        assert!(!told.heard.ended);
    }
    device.ask(&mut renderer);
    device.ask(&mut renderer);
    device.ask(&mut renderer);
    let heard = controls.snapshot.read().heard;
    assert_eq!((heard.at, heard.ended), (Frames::new(44_100, 44_100), true));
    assert_eq!((heard.entry, heard.generation, heard.music_frames), (EntryId(7), 3, 48_000));
    assert_eq!(heard.underrun_frames, 0, "silence after the end is nobody's fault");
}

#[test]
fn a_ring_that_runs_dry_fades_counts_and_fades_in_again() {
    let (mut feed, mut renderer, controls) = renderer(0);
    feed.begin(start(1, 0, RATE));
    feed.put(&[0.5; 2 * 1_480]); // the last 10 ms are kept back, for a cross-fade
    feed.pump(false);
    let mut device = Device::new(960);
    device.ask(&mut renderer);
    assert!(device.out.iter().all(|&x| x == 0.5));
    device.ask(&mut renderer);
    assert!(device.out[..80].windows(4).all(|w| w[2] < w[0] && w[3] < w[1]), "40 frames left: faded");
    assert!(device.out[80..].iter().all(|&x| x == 0.0));
    assert_eq!(controls.snapshot.read().heard.underrun_frames, 920);
    feed.put(&[0.5; 2 * 1_000]);
    feed.pump(false);
    device.ask(&mut renderer);
    assert!(device.out[0] < 0.01 && device.out[1_919] == 0.5);
    assert!(device.out.windows(4).all(|w| w[2] >= w[0]));
}

#[test]
fn frames_that_a_library_swallowed_are_not_music() {
    let (mut feed, mut renderer, controls) = renderer(0);
    feed.begin(start(1, 0, RATE));
    feed.put(&vec![0.5; 2 * 48_000]);
    feed.pump(false);
    let (mut out, at) = (vec![0.0; 960], Instant::now());
    for (left, epoch) in [(0, 0), (0, 0), (480, 0), (1_440, 1)] {
        renderer.fill(&mut out, Timing { left, epoch, at });
    }
    let heard = controls.snapshot.read().heard;
    assert_eq!((heard.at.n, heard.music_frames, heard.xruns), (1_440, 960, 1));
}

#[test]
fn a_piece_that_is_taken_back_leaves_what_is_before_it_whole() {
    // Once as it is, once through a converter, which holds back the end of the first.
    for (rate, whole) in [(RATE, 1_000), (44_100, 1_089)] {
        let (mut feed, mut renderer, controls) = renderer(0);
        feed.begin(start(1, 0, rate));
        feed.put(&[0.5; 2 * 1_000]);
        feed.end(1_000);
        feed.begin_piece();
        feed.begin(start(2, 0, rate));
        feed.put(&[-0.5; 2 * 5_000]);
        feed.take_back(0);
        feed.pump(false);
        assert_eq!(feed.pushed(), whole, "{rate}");
        feed.begin(start(3, 0, RATE));
        feed.put(&[0.25; 2 * 1_000]);
        feed.end(1_000);
        feed.pump(false);
        let mut device = Device::new(4_800);
        for _ in 0..3 {
            device.ask(&mut renderer);
        }
        let heard = controls.snapshot.read().heard;
        assert_eq!((heard.entry, heard.ended, heard.music_frames), (EntryId(3), true, whole + 1_000));
        assert_eq!(heard.underrun_frames, 0);
    }
}

#[test]
fn what_is_void_never_fades_in() {
    let (mut feed, mut renderer, controls) = renderer(0);
    feed.begin(start(1, 0, RATE));
    feed.put(&vec![0.5; 2 * 20_000]);
    feed.pump(false);
    let mut device = Device::new(960);
    device.ask(&mut renderer);
    controls.generation.store(1, Relaxed);
    device.ask(&mut renderer);
    assert!(device.out.iter().all(|&x| x == 0.5), "a flush that waits: the old sounds on");
    controls.paused.store(true, Relaxed);
    device.ask(&mut renderer);
    controls.paused.store(false, Relaxed);
    for _ in 0..3 {
        device.ask(&mut renderer);
        assert!(device.out.iter().all(|&x| x == 0.0));
        assert!(!renderer.is_due(960, false), "a sink without a clock waits for the flush");
    }
    feed.cut(1);
    feed.begin(start(2, 1, RATE));
    feed.put(&vec![-0.5; 2 * 2_000]);
    feed.pump(true);
    controls.flush.store(feed.end_flush().unwrap(), Relaxed);
    device.ask(&mut renderer);
    assert!(device.out[0] < 0.0 && device.out[1_919] == -0.5, "the new fades in at once");
    assert_eq!(controls.snapshot.read().heard.underrun_frames, 0);
}
