//! The real thing: cpal and ALSA, with PCMs of a configuration of our own (`null`, and `file` on top of it).

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use jukebox::audio::{Player, RateRule, Settings};
use jukebox_board::output::{Content, Device, Output as Pcm};

/// Set in the child: ALSA reads its configuration's place from the environment, once.
const CHILD: &str = "JUKEBOX_TEST_ALSA";
const FRAMES: usize = 48_000;

fn child(test: &str, dir: &Path) -> Output {
    let file = dir.join("out.raw");
    let text = format!(
        "</usr/share/alsa/alsa.conf>\n\
         pcm.recorder {{ type file; slave.pcm null; file \"{}\"; format raw; hint {{ show on; description recorder }} }}\n",
        file.display()
    );
    let config = dir.join("alsa.conf");
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").env("ALSA_CONFIG_PATH", config).output().unwrap()
}

#[test]
fn frames_pass_through_cpal_and_are_counted() {
    if std::env::var(CHILD).is_ok() {
        play();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let done = child("sound::alsa::frames_pass_through_cpal_and_are_counted", dir.path());
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    // The slave has no clock and asks faster than music comes, so that silence lies between; but all of it came, in order.
    let raw = std::fs::read(dir.path().join("out.raw")).unwrap();
    let played: Vec<i32> = raw.as_chunks::<4>().0.iter().step_by(2).map(|b| i32::from_le_bytes(*b) >> 16).collect();
    let sound: Vec<i32> = played.into_iter().filter(|&x| x > 8_000).collect();
    assert!(sound.len() > FRAMES * 9 / 10, "{} of {FRAMES} frames at full level", sound.len());
    assert!(sound.windows(2).filter(|w| w[1] < w[0]).count() <= 40, "in order but for fades");
    assert!(said.contains("heard 48000 frames"), "{said}");
}

/// Plays a slow rise through the file PCM.
fn play() {
    let outputs = vec!["recorder".parse::<Device>().unwrap()];
    let settings = Settings { outputs, rate: RateRule::Follow, period_ms: Some(20), start_ramp_ms: 0 };
    let mut player = Player::new(settings);
    player.begin(48_000, Content::Integer(16)).unwrap();
    let rise: Vec<f32> = (0..FRAMES as i32).flat_map(|n| [(16_000 + n / 8) as f32 / 32_768.0; 2]).collect();
    player.put(&rise).unwrap();
    player.end();
    let heard = player.finish(Duration::from_secs(10)).unwrap();
    println!("heard {} frames, {heard:?}", heard.music_frames);
}

#[test]
fn missing_pcms_are_named_with_those_that_exist() {
    if std::env::var(CHILD).is_ok() {
        let device: Device = "hw:CARD=nowhere".parse().unwrap();
        println!("{}", Pcm::open(&device, 44_100, None, |_| Box::new(|_, _| None)).unwrap_err());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let done = child("sound::alsa::missing_pcms_are_named_with_those_that_exist", dir.path());
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("output `hw:CARD=nowhere` is not there; there are: ") && said.contains("recorder"), "{said}");
}
