//! Neighbours are cross-faded where they may be, and what is told of them stays true.

use jukebox_core::fallback::FallbackSettings;

use super::*;

#[test]
fn the_last_entry_is_not_heard_when_it_goes_while_it_is_with_the_decoder() {
    let mut w = World::new(1, Library::new(&[20, 20]));
    (0..2).for_each(|n| assert_eq!(w.ask("add", &format!("Track {n}"))["status"], "ok"));
    w.pass(Span::ms(18_500));
    assert_eq!(w.ask("remove", r#"{"entry":2}"#)["status"], "ok");
    w.pass(Span::s(30));
    assert!(heard_ms(&w).iter().all(|h| h.0 == 1) && heard_ms(&w).last().unwrap().2 == 20_000, "{:?}", heard_ms(&w));
}

/// A player that cross-fades over so many seconds.
fn crossfading(seconds: u64, library: Library) -> World {
    let settings = Settings { crossfade: Span::s(seconds), ..settings() };
    let count = library.rows.len();
    let mut w = World::with(1, library, settings);
    (0..count).for_each(|n| assert_eq!(w.ask("add", &format!("Track {n}"))["status"], "ok"));
    w
}

/// What was heard of each entry, in milliseconds: from where to where.
fn heard_ms(w: &World) -> Vec<(u32, u64, u64)> {
    let ms = |frames: u64| (frames * 1_000 + 22_050) / 44_100;
    w.dac.sounded.iter().map(|s| (s.0.0, ms(s.1), ms(s.1 + s.2))).collect()
}

#[test]
fn tracks_are_cross_faded_and_what_is_told_of_them_stays_true() {
    let mut w = crossfading(6, Library::new(&[60, 200, 9]));
    w.pass(Span::s(61));
    assert_eq!(w.retained["now"]["track"]["title"], "Track 1", "the louder one plays");
    w.pass(Span::s(209));
    // Half of each fade belongs to each track; a third of the short one sounds alone.
    assert_eq!(heard_ms(&w), [(1, 0, 57_000), (2, 3_000, 198_500), (3, 1_500, 9_001)]);
    let played: Vec<u64> =
        w.events.iter().filter(|e| e.0 == "finished").map(|e| e.1["played_ms"].as_u64().unwrap()).collect();
    assert_eq!(played, [57_000, 198_500, 9_000]);
    let plays = &w.ask("history", "")["data"]["plays"];
    let in_history: Vec<&serde_json::Value> = plays.as_array().unwrap().iter().rev().map(|p| &p["played_ms"]).collect();
    assert_eq!(in_history, [57_000, 198_500, 9_000]);
    assert_eq!(w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"], 0.0);
}

#[test]
fn no_cross_fade_within_an_album_at_a_skip_or_before_a_stop() {
    let mut w = crossfading(12, Library::album(&[30, 40]));
    w.pass(Span::s(80));
    assert_eq!(heard_ms(&w), [(1, 0, 30_000), (2, 0, 40_000)], "one album");

    let mut w = crossfading(12, Library::new(&[100, 100, 100]));
    w.pass(Span::s(20));
    w.ask("skip", "");
    w.ask("stop", r#"{"after":"track"}"#);
    w.pass(Span::s(200));
    let heard = heard_ms(&w);
    assert!(heard.len() == 2 && heard[0].0 == 1 && (19_900..21_000).contains(&heard[0].2), "{heard:?}");
    assert_eq!(heard[1], (2, 0, 100_000), "from its first frame after the skip, to its last before the stop");
}

/// While both are with the decoder, or sound, the next one goes away: the one that plays does so to its end.
#[test]
fn a_queue_that_changes_in_a_cross_fade_takes_the_next_one_out_of_it() {
    for at_s in [45, 49, 52] {
        let mut w = crossfading(10, Library::new(&[60, 60]));
        w.pass(Span::s(at_s));
        assert_eq!(w.ask("remove", r#"{"entry":2}"#)["status"], "ok");
        w.pass(Span::s(30));
        let heard = heard_ms(&w);
        let (last, whole) = (heard.last().unwrap(), heard.iter().map(|h| h.2 - h.1).sum::<u64>());
        assert!(heard.iter().all(|h| h.0 == 1) && last.2 == 60_000, "{at_s}: {heard:?}");
        assert!(whole.abs_diff(60_000) < 50, "{at_s}: {heard:?}");
        assert_eq!(w.retained["now"]["state"], "stopped");
    }
}

/// Of what follows too little is on board: it follows without a fade, or with a shorter one.
#[test]
fn what_is_not_on_board_is_not_waited_for() {
    let mut w = crossfading(10, Library::new(&[60, 60]));
    w.pass(Span::s(20));
    w.link = Link::Down { reason: Reason::Refused, after: Span::ms(50) };
    w.pass(Span::s(100));
    let heard = heard_ms(&w);
    assert_eq!((heard[0], heard[1]), ((1, 0, 55_000), (2, 5_000, 60_000)), "all was on board");
}

/// What is told to be on board is how long it sounds without the link.
#[test]
fn the_overlap_is_not_counted_twice() {
    let mut w = crossfading(12, Library::new(&[60, 90, 60]));
    w.pass(Span::s(30));
    w.link = Link::Down { reason: Reason::Refused, after: Span::ms(50) };
    let sounded = |w: &World| heard_ms(w).iter().map(|h| h.2 - h.1).sum::<u64>();
    let (told, before) = (w.ask("health", "")["data"]["on_board_queue_s"].as_u64().unwrap(), sounded(&w));
    w.pass(Span::s(200));
    assert_eq!((heard_ms(&w).len(), &w.retained["now"]["state"]), (3, &"stopped".into()));
    let sounds = sounded(&w) - before;
    assert!(sounds.abs_diff(told * 1_000) < 1_100, "{told} s were told, {sounds} ms sounded");
}

/// The device goes away before, in and after the middle of a cross-fade: both tracks go on where they were.
#[test]
fn a_missing_device_holds_a_cross_fade() {
    for at_s in [49, 53, 57] {
        let mut w = crossfading(10, Library::new(&[60, 60]));
        w.pass(Span::s(at_s));
        w.plug(false);
        w.pass(Span::s(30));
        assert_eq!(w.retained["now"]["state"], "no_output", "{at_s}");
        w.plug(true);
        w.pass(Span::s(90));
        assert_eq!(heard_ms(&w), [(1, 0, 55_000), (2, 5_000, 60_000)], "{at_s}");
        let finished = w.events.iter().filter(|e| e.0 == "finished").count();
        assert_eq!((finished, &w.retained["now"]["state"]), (2, &"stopped".into()), "{at_s}");
    }
}

/// The fallback that steps in at the last moment follows without a fade. The entry that waited is cross-faded where the fallback's
/// track ends soon, else the fallback makes room at once.
#[test]
fn the_queue_is_whole_beside_a_fallback() {
    for (stands_in_s, second) in [(600, (2, 0, 60_000)), (200, (2, 5_000, 60_000))] {
        let fallback =
            FallbackSettings { playlist: Some("calm".into()), shuffle: false, when_waiting: true, when_empty: false };
        let library = Library::new(&[60, 60, stands_in_s]).with_playlist("calm", &[2]);
        let mut w = World::with(1, library, Settings { crossfade: Span::s(10), fallback, ..settings() });
        w.ask("add", "Track 0");
        w.pass(Span::s(30));
        w.link = Link::Down { reason: Reason::Refused, after: Span::ms(50) };
        w.ask("add", "Track 1");
        w.pass(Span::s(180));
        assert_eq!(w.retained["now"]["source"], "fallback");
        w.link = Link::Up { kbps: 20_000, rtt: Span::ms(60) };
        w.pass(Span::s(300));
        let heard = heard_ms(&w);
        let queue: Vec<_> = heard.iter().copied().filter(|h| h.0 < 1 << 31).collect();
        assert_eq!(queue, [(1, 0, 60_000), second], "{heard:?}");
        assert_eq!(w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"], 0.0);
    }
}
