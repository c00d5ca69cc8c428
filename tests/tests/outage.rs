//! The link fails: what is on board plays, then the fallback, then the queue where it stood. Nothing is lost.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use jukebox_core::exchange::{Input, Settings};
use jukebox_core::fallback::FallbackSettings;
use jukebox_core::library::RenditionName;
use jukebox_core::reason::Reason;
use jukebox_core::time::{Instant, Span};
use jukebox_tests::world::library::Library;
use jukebox_tests::world::link::{Capacity, Weather};
use jukebox_tests::world::{Link, World, settings};
use serde_json::{Value, json};

const FAST: Link = Link::Up { kbps: 20_000, rtt: Span::ms(60) };
const GONE: Link = Link::Down { reason: Reason::Timeout, after: Span::s(8) };

fn fallback(when_empty: bool) -> Settings {
    let fallback = FallbackSettings { playlist: None, shuffle: false, when_waiting: true, when_empty };
    Settings { fallback, ..settings() }
}

fn slow(kbps: u64) -> Link {
    Link::Up { kbps, rtt: Span::ms(60) }
}

/// Unplanned silence, that of the first start included.
fn silence(w: &mut World) -> f64 {
    w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"].as_f64().unwrap()
}

/// Entries of the queue that were heard: which, first frame and count, in order.
fn queue_heard(w: &World) -> Vec<(u32, u64, u64)> {
    w.dac.sounded.iter().filter(|s| s.0.0 < 1 << 31).map(|s| (s.0.0, s.1, s.2)).collect()
}

/// An hour-long entry and a short one behind it; after two minutes on a slow link, a quarter of an hour is on board.
fn party(settings: Settings) -> World {
    let mut w = World::with(1, Library::new(&[5_400, 240, 240, 240]), settings);
    w.link = slow(300);
    w.ask("add", "Track 0");
    w.ask("add", "Track 3");
    w.pass(Span::s(120));
    w
}

#[test]
fn the_queue_freezes_at_the_hole_the_fallback_plays_and_the_entry_goes_on_before_it() {
    let mut w = party(fallback(false));
    let start = silence(&mut w);
    w.link = GONE;
    w.pass(Span::s(600));
    let headline = w.view.headline.as_str();
    assert!(headline.starts_with("Link lost, ") && headline.ends_with(" min on board"), "{headline}");
    w.pass(Span::s(3_600));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!((&now["state"], &now["source"], &now["entry"]), (&json!("playing"), &json!("fallback"), &Value::Null));
    assert_eq!(now["waiting"]["entry"], 1);
    assert_eq!(now["waiting"]["reason"]["code"], "timeout");
    assert_eq!(w.view.headline.as_str(), "Fallback while the queue waits");
    assert!(w.view.detail.as_str().contains("the office does not answer"), "{:?}", w.view.detail);
    assert_eq!(w.retained["queue"]["total"], 2, "an outage drops nothing");
    w.link = FAST;
    w.pass(Span::s(120));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!((&now["source"], &now["entry"], &now["waiting"]), (&json!("queue"), &json!(1), &Value::Null));
    assert_eq!(silence(&mut w), start, "an hour of outage");
    let heard = queue_heard(&w);
    assert_eq!(heard.len(), 2, "{heard:?}");
    let hole = heard[0].2;
    let again = hole - heard[1].1;
    assert!((40_000..140_000).contains(&again), "it goes on about 2 s before the hole: {again} frames");
    let kinds: Vec<_> = w.events.iter().filter(|e| e.0 == "fallback").map(|e| e.1["on"].clone()).collect();
    assert_eq!(kinds, [json!(true), json!(false)]);
    // And everything that was asked for is heard to its end, in order.
    w.pass(Span::s(6_000));
    let finished: Vec<_> = w
        .events
        .iter()
        .filter(|e| e.0 == "finished" && e.1["entry"] != Value::Null)
        .map(|e| e.1["entry"].clone())
        .collect();
    assert_eq!(finished, [json!(1), json!(2)]);
    assert_eq!(w.ask("now", "")["data"]["state"], "stopped");
}

#[test]
fn between_tracks_the_fallback_follows_without_a_seam() {
    let mut w = World::with(2, Library::new(&[120, 900, 600]), fallback(false));
    w.link = slow(300);
    w.ask("add", "Track 0");
    w.pass(Span::s(60));
    let start = silence(&mut w);
    // The next entry is asked for when there is no link any more.
    w.link = GONE;
    w.ask("add", "Track 2");
    w.pass(Span::s(300));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!(
        (&now["state"], &now["source"], &now["waiting"]["entry"]),
        (&json!("playing"), &json!("fallback"), &json!(2))
    );
    let first = w.library.rows[0].duration_ms * 441 / 10;
    let (entry, from, frames) = w.dac.sounded[0];
    assert!(entry.0 == 1 && from == 0 && frames.abs_diff(first) < 100, "all of it: {frames} of {first}");
    assert_eq!(silence(&mut w), start);
    w.link = FAST;
    w.pass(Span::s(240));
    assert_eq!(w.ask("now", "")["data"]["entry"], 2);
    assert_eq!(queue_heard(&w).last().map(|h| (h.0, h.1)), Some((2, 0)), "from its start");
    assert_eq!(silence(&mut w), start);
}

#[test]
fn pause_skip_and_stop_hold_for_the_fallback_too() {
    let mut w = party(fallback(false));
    w.link = GONE;
    w.pass(Span::s(1_500));
    assert_eq!(w.ask("now", "")["data"]["source"], "fallback");
    let track = |w: &mut World| w.ask("now", "")["data"]["track"]["title"].clone();
    let before = track(&mut w);
    w.ask("pause", "");
    w.link = FAST;
    w.pass(Span::s(600));
    assert_eq!(
        (w.retained["now"]["state"].clone(), track(&mut w)),
        (json!("paused"), before.clone()),
        "paused is paused"
    );
    w.link = GONE;
    w.pass(Span::s(10));
    w.ask("play", "");
    w.pass(Span::s(100));
    assert_eq!(w.ask("now", "")["data"]["entry"], 1, "the link was there for a while: the entry goes on");
    let mut w = party(fallback(false));
    w.link = GONE;
    w.pass(Span::s(1_500));
    let before = track(&mut w);
    assert_eq!(w.ask("skip", "")["data"]["entry"], Value::Null);
    w.pass(Span::s(2));
    assert_eq!(w.ask("now", "")["data"]["source"], "fallback");
    assert_eq!(w.retained["queue"]["total"], 2, "the fallback's track was skipped ({before}), not the entry");
    assert_eq!(w.ask("skip", "1")["data"]["entry"], 2, "the entry that is waited for");
    w.pass(Span::s(5));
    assert_eq!(w.retained["queue"]["total"], 1);
    assert_eq!(w.ask("stop", "")["data"]["state"], "stopped");
    w.pass(Span::s(60));
    assert_eq!(w.ask("now", "")["data"]["source"], "queue");
    assert!(w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"].as_f64().unwrap() < 1.0);
}

#[test]
fn an_empty_queue_is_silent_or_plays_the_fallback_in_its_hours() {
    let mut w = World::with(3, Library::new(&[60, 60, 60]), fallback(true));
    w.ask("add", "Track 0");
    w.pass(Span::s(90));
    assert_eq!(w.ask("now", "")["data"]["state"], "stopped", "closed until it is known to be open");
    w.give(Input::Hours { open: true });
    w.pass(Span::s(5));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!((&now["state"], &now["source"], &now["waiting"]), (&json!("playing"), &json!("fallback"), &Value::Null));
    w.power_cut();
    w.pass(Span::s(5));
    assert_eq!(w.ask("now", "")["data"]["source"], "fallback", "the hours are remembered");
    w.ask("add", "Track 1");
    w.pass(Span::s(5));
    assert_eq!(w.ask("now", "")["data"]["entry"], 2, "whoever asks for a track hears it at once");
    w.pass(Span::s(70));
    assert_eq!(w.ask("now", "")["data"]["source"], "fallback");
    w.give(Input::Hours { open: false });
    w.pass(Span::s(5));
    assert_eq!(w.ask("now", "")["data"]["state"], "stopped");
    w.give(Input::Hours { open: true });
    w.pass(Span::s(5));
    w.ask("stop", "");
    w.pass(Span::s(60));
    assert_eq!(w.ask("now", "")["data"]["state"], "stopped", "stop is planned silence");
    assert_eq!(silence(&mut w), 0.0);
}

/// Of entries far away only that they are whole is known: that must not be taken for enough to begin with, and what is on the
/// card is found without a link.
#[test]
fn a_skip_far_ahead_without_a_link_neither_hangs_nor_is_silent() {
    let mut w = World::with(6, Library::new(&[240; 30]), fallback(false));
    w.link = FAST;
    for n in 0..30 {
        w.ask("add", &format!(r#"{{"text":"Track {n}","twice":true}}"#));
        w.pass(Span::ms(200));
    }
    w.pass(Span::s(300));
    w.link = GONE;
    w.pass(Span::s(60));
    for entry in 1..25 {
        w.command("skip", &entry.to_string());
    }
    w.pass(Span::s(120));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!((&now["state"], &now["source"]), (&json!("playing"), &json!("queue")), "{now}");
    let turns = w.events.iter().filter(|e| e.0 == "fallback").count();
    assert!(turns <= 4, "{turns} changes between queue and fallback");
    let silence = silence(&mut w);
    assert!(silence < 3.0, "{silence}");
}

#[test]
fn silence_is_told_once_it_is_over_with_its_reason() {
    let mut w = World::new(5, Library::new(&[300]));
    w.link = slow(40);
    w.ask("add", "Track 0");
    w.pass(Span::s(20));
    w.link = GONE;
    w.pass(Span::s(300));
    assert_eq!(w.retained["now"]["state"], "buffering");
    w.link = FAST;
    w.pass(Span::s(30));
    let told: Vec<_> = w.events.iter().filter(|e| e.0 == "silence").map(|e| e.1.clone()).collect();
    let last = told.last().unwrap();
    assert_eq!(last["reason"]["code"], "timeout", "{told:?}");
    let all: f64 = told.iter().map(|e| e["ms"].as_f64().unwrap() / 1_000.0).sum();
    let counted = silence(&mut w);
    assert!((all - counted).abs() < 0.1 && counted > 200.0, "told {all}, counted {counted}");
}

#[test]
fn quality_follows_the_link() {
    for (kbps, best) in [(45, RenditionName::Opus32), (300, RenditionName::Opus96), (1_400, RenditionName::Original)] {
        let mut w = World::new(4, Library::new(&[240; 40]));
        w.link = slow(kbps);
        for n in 0..40 {
            w.ask("add", &format!(r#"{{"text":"Track {n}","twice":true}}"#));
            w.pass(Span::ms(300));
        }
        w.pass(Span::s(2 * 3_600));
        // What the link can carry, or better in idle moments.
        let good = [RenditionName::Original, RenditionName::Opus96, RenditionName::Opus32];
        let good = &good[..=good.iter().position(|r| *r == best).unwrap()];
        let of = |r: &RenditionName| w.dac.renditions.frames.get(r).copied().unwrap_or(0);
        let (all, of_good) = (w.dac.renditions.total(), good.iter().map(of).sum::<u64>());
        assert!(of_good * 10 > all * 9, "{kbps} kbit/s: {of_good} of {all} frames in {good:?}");
        assert!(w.dac.renditions.changes < 2 * 60, "{kbps} kbit/s: {} changes in two hours", w.dac.renditions.changes);
        let silence = silence(&mut w);
        assert!(silence < 5.0, "{kbps} kbit/s: {silence} s of silence");
        assert_eq!(w.dac.sounded.iter().map(|s| s.1).filter(|from| *from != 0).count(), 0, "no seam in any track");
    }
}

/// Wherever the power fails: what was heard to its end is not heard again, and told once.
#[test]
fn a_power_cut_undoes_nothing_that_was_told() {
    let library = std::sync::Arc::new(Library::new(&[12, 12, 12]));
    for cut in 0..45 {
        let mut w = World::with(cut, std::sync::Arc::clone(&library), settings());
        for n in 0..3 {
            w.ask("add", &format!("Track {n}"));
        }
        w.cut_at = Some(w.inputs + 1 + cut * 5);
        w.pass(Span::s(70));
        let mut told: Vec<_> =
            w.events.iter().filter(|e| e.0 == "finished").map(|e| (&e.1["entry"], &e.1["boot"], &e.1["seq"])).collect();
        // The broker may get the same event twice; that is the same in all its parts.
        told.dedup();
        assert_eq!(told.iter().map(|t| t.0).collect::<Vec<_>>(), [&json!(1), &json!(2), &json!(3)], "{cut}: {told:?}");
        let begun: Vec<_> = queue_heard(&w).iter().filter(|h| h.1 == 0).map(|h| h.0).collect();
        assert!(begun.is_sorted() && begun.len() <= 4, "{cut}: {:?}", queue_heard(&w));
        assert_eq!(w.cuts.len(), 1, "{cut}");
    }
}

/// A link that slows down for half a minute now and then: nothing is given up that would have come.
#[test]
fn a_fitful_link_is_given_time() {
    let rows = [(Span::s(10), 300_000), (Span::s(25), 25_000)];
    let capacity = Capacity::of_rows(&rows, Instant(0) + Span::s(3_600));
    let mut w = World::new(8, Library::new(&[1_200]));
    w.link = Link::night(Weather { capacity, rtt: Span::ms(80), faults: Vec::new() });
    w.ask("add", "Track 0");
    w.pass(Span::s(1_300));
    assert!(w.bytes.lost * 50 < w.purposes().total(), "{} of {} bytes", w.bytes.lost, w.purposes().total());
    assert!(silence(&mut w) < 2.0, "{:?}", w.quiet);
}

/// The power fails while there is no link, and next to nothing of the queue is left: nobody has read yet what the card has.
#[test]
fn after_a_power_cut_without_a_link_the_fallback_is_found_on_the_card() {
    let mut w = World::with(3, Library::new(&[600, 240, 240]), fallback(false));
    w.link = slow(2_000);
    w.ask("add", "Track 2");
    w.pass(Span::s(120));
    w.ask("add", "Track 1");
    w.link = GONE;
    // One segment is left of the entry that plays.
    let at = w.ask("now", "")["data"]["position_ms"].as_u64().unwrap();
    for n in (at as usize / 4_000 + 4)..64 {
        for r in [RenditionName::Opus32, RenditionName::Opus96, RenditionName::Original] {
            let digest = Library::segment(2, r, n);
            if w.has(&digest) {
                w.lose(&digest);
            }
        }
    }
    w.power_cut();
    w.pass(Span::s(300));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!((&now["state"], &now["source"]), (&json!("playing"), &json!("fallback")), "{now}");
    let quiet: u64 = w.quiet.iter().filter(|q| !q.start).map(|q| q.until.since(q.from).as_ms()).sum();
    assert!(quiet < 3_000, "{:?}", w.quiet);
}
