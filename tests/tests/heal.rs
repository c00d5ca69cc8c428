//! A player that should sound and does not mends itself: the daemon, with a card that swallows its decoder thread.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jukebox_tests::rig::house::House;
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::{run, until};

/// For what takes seven seconds on a machine that has time.
const LIMIT: Duration = Duration::from_secs(60);

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

/// A card that hangs: whoever opens a stored object waits for ever. Returns what puts it right for those who come later.
fn hang(cache: &Path) -> Vec<(PathBuf, PathBuf)> {
    let objects = files(&cache.join("o"));
    let aside = objects.iter().map(|p| p.with_extension("aside"));
    let pairs: Vec<_> = objects.iter().cloned().zip(aside).collect();
    for (object, aside) in &pairs {
        std::fs::rename(object, aside).unwrap();
        run(Command::new("mkfifo").arg(object));
    }
    pairs
}

fn mend(pairs: &[(PathBuf, PathBuf)]) {
    pairs.iter().for_each(|(object, aside)| std::fs::rename(aside, object).unwrap());
}

#[test]
fn a_decoder_that_hangs_is_replaced_and_if_that_does_not_help_the_process_is() {
    let mut house = House::new(&[("Fernando", 90.0)], Setup::default());
    let ears = house.ears();
    house.ok("add", "fernando");
    until("all on board", LIMIT, || {
        let queue = house.ok("queue", "");
        (queue["entries"][0]["on_board_pct"] == 100).then_some(())
    });
    let cache = house.folder().join("player/cache");
    let heal = |mark: usize, step: &str| {
        let event = ears.wait_from(mark, LIMIT, step, |m| m.topic.ends_with("/event/heal") && m.json()["step"] == step);
        let event = event.json();
        assert!(event["cause"].as_str().is_some_and(|c| c.contains("no frame leaves it")), "{event}");
        event["still_ms"].as_u64().unwrap()
    };

    // The ring lasts for two seconds, then nothing sounds. Opened again the output gets nothing either; a new decoder does.
    let pairs = hang(&cache);
    assert!((3_000..4_500).contains(&heal(0, "reopen")));
    mend(&pairs);
    heal(0, "restart");
    let silent = house.player.recording().sounding().end;
    until("sound again", LIMIT, || (house.player.recording().sounding().end > silent + 44_100).then_some(()));
    let gaps = house.player.recording().gaps(100.0);
    let longest = gaps.iter().map(|g| g.len() as f64 / 44_100.0).fold(0.0, f64::max);
    println!("a decoder thread that hangs costs {longest:.2} s of silence");
    assert!((3.0..10.0).contains(&longest), "{gaps:?}");

    // This time the card stays as it is.
    let mark = ears.mark();
    let pairs = hang(&cache);
    heal(mark, "restart");
    let status = house.player.process().wait();
    assert!(!status.success(), "whoever watches over it starts it anew");
    mend(&pairs);
    house.player.start_again();
    // It was on the card before the end, and is told after it.
    let still = heal(mark, "exit");
    assert!(still < 8_000, "{still} ms, and two seconds until it is started again");
    until("sound after the restart", LIMIT, || (house.player.recording().sounding().len() > 44_100).then_some(()));
}
