//! Bytes written to the card in ten hours.
//!
//! Method: the real core lives through ten simulated hours; what it then wants saved goes through the real store onto a real
//! disk, one hand-over after the other, each waited for. So the hours are compressed and no two transactions are merged that
//! would not be merged in real time. Positions are counted in simulated time, and a few are saved in real time for what one costs.

use std::sync::mpsc;
use std::time::{Duration, Instant as Wall};

use jukebox::store::{Change, Done, Limits, Store};
use jukebox_core::checkpoint::Saved;
use jukebox_core::exchange::Output;
use jukebox_core::jukebox::Jukebox;
use jukebox_core::time::{Instant, Span};

use super::flood::{in_memory, written as written_by};
use super::{Bench, Figure, quantile};
use crate::rig::{SOON, until};
use crate::world::library::Library;
use crate::world::{World, settings};

const HOURS: u64 = 10;
const COMMANDS: u64 = 500;
const SEED: u64 = 7;
/// The store saves no position sooner after another, whatever it is given.
const POSITION_EVERY: Span = Span::s(5);

/// What the core wanted on the card.
#[derive(Default)]
struct Wanted {
    saves: Vec<Vec<Change>>,
    positions: u64,
    position: Vec<u8>,
}

/// Ten hours of music and 500 commands.
pub(super) fn written(bench: &Bench) -> Vec<Figure> {
    const NAME: &str = "written.ten-hours";
    let folder = super::house::folder();
    if let Some(kind) = in_memory(folder.path()) {
        return vec![Figure::not_here(
            NAME,
            50.0,
            "MB",
            format!("the build lies on {kind}, where nothing is written to a disk"),
        )];
    }
    let parts = if bench.quick { HOURS } else { 1 };
    let wanted = live(HOURS / parts, COMMANDS / parts);
    let (saves, positions) = (wanted.saves.len() as u64, wanted.positions);

    let (store, done) = open(&folder.path().join("a"));
    let before = own();
    for (ticket, changes) in wanted.saves.into_iter().enumerate() {
        let ticket = ticket as u64 + 1;
        store.commit(ticket, changes).unwrap_or_else(|e| panic!("{e}"));
        loop {
            match done.recv_timeout(SOON) {
                Ok(Done::Committed { ticket: t }) if t >= ticket => break,
                Ok(Done::Committed { .. }) => {}
                other => panic!("the store: {other:?}"),
            }
        }
    }
    drop(store);
    let state = (own() - before) * parts;
    let one = position_cost(&folder.path().join("b"), &wanted.position);
    let total = (state + one * positions * parts) as f64 / 1e6;
    let conditions = format!(
        "write_bytes of /proc/self/io; {HOURS} h of music, {COMMANDS} commands{}: {saves} transactions {:.1} MB, {positions} positions of \
         {one} bytes; segments and catalogue apart, {}",
        if bench.quick { ", a tenth of it measured" } else { "" },
        state as f64 / 1e6,
        bench.load()
    );
    vec![Figure::new(NAME, total, 50.0, "MB", conditions)]
}

fn own() -> u64 {
    written_by(std::process::id())
}

fn open(folder: &std::path::Path) -> (Store, mpsc::Receiver<Done>) {
    let (tell, done) = mpsc::channel();
    let limits = Limits { cap_bytes: 1 << 30, floor_bytes: 0 };
    let tell = move |d| drop(tell.send(d));
    let (store, _) =
        Store::open(&folder.join("state"), &folder.join("cache"), limits, tell).unwrap_or_else(|e| panic!("{e}"));
    (store, done)
}

/// What saving a position costs: the median of three, in real time.
fn position_cost(folder: &std::path::Path, position: &[u8]) -> u64 {
    let (store, _done) = open(folder);
    let file = folder.join("state/position");
    let save = || {
        let old = std::fs::read(&file).unwrap_or_default();
        store.save_position(position.to_vec());
        until("the position is saved", SOON, || (std::fs::read(&file).ok()? != old).then_some(()));
        // The file changes before its sync is counted.
        std::thread::sleep(Duration::from_millis(100));
    };
    save(); // the first also makes the file
    let began = Wall::now();
    let cost = [(); 3].map(|()| {
        let before = own();
        save();
        (own() - before) as f64
    });
    assert!(began.elapsed() >= Duration::from_secs(14), "positions are saved more often than they are counted");
    quantile(&cost, 0.5) as u64
}

/// Lives `hours` with `commands` spread over them, and says what was to be saved.
fn live(hours: u64, commands: u64) -> Wanted {
    let lengths: Vec<u64> = (0..60).map(|n| 150 + n * 37 % 120).collect();
    let mut world = World::new(SEED, Library::new(&lengths));
    let every = Span(hours * 3_600 * 1_000_000 / commands);
    for n in 0..commands {
        let (verb, payload) = match n % 10 {
            2 => ("volume", format!("{}", 30 + n % 20)),
            4 => ("pause", String::new()),
            5 => ("play", String::new()),
            7 => ("skip", String::new()),
            9 => ("mute", format!("{}", n % 20 == 9)),
            _ => ("add", format!(r#"{{"text":"Track {}","id":"simulated-{n}","twice":true}}"#, n * 7 % 60)),
        };
        let reply = world.ask(verb, &payload);
        assert_eq!(reply["status"], "ok", "{verb} {payload}: {reply}");
        let pause = if verb == "pause" { Span::s(5) } else { every };
        world.pass(pause);
    }
    let heard: u64 = world.dac.sounded.iter().map(|s| s.2).sum::<u64>() / u64::from(crate::world::library::RATE);
    assert!(heard > hours * 3_600 * 8 / 10, "only {heard} s of music in {hours} h");

    // The core is deterministic: given the same inputs again, it wants the same.
    let mut jukebox = Jukebox::new(Instant(1_000_000), SEED, "b".into(), settings(), Saved::default(), None);
    let (mut wanted, mut last) = (Wanted::default(), None::<Instant>);
    let mut drain = |jukebox: &mut Jukebox, now: Instant| {
        while let Some(output) = jukebox.poll_output() {
            match output {
                Output::Save(changes) => wanted.saves.push(changes),
                Output::SavePosition(bytes) => {
                    wanted.position = bytes;
                    if last.is_none_or(|t| now.since(t) >= POSITION_EVERY) {
                        last = Some(now);
                        wanted.positions += 1;
                    }
                }
                _ => {}
            }
        }
    };
    drain(&mut jukebox, Instant(1_000_000));
    for (now, input) in &world.script {
        jukebox.handle_input(*now, input.clone());
        drain(&mut jukebox, *now);
    }
    wanted
}
