//! The core in the simulated world: what listeners asked for is what sounds, whatever happens to the link and the power.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

#[path = "core/card.rs"]
mod card;
#[path = "core/crossfade.rs"]
mod crossfade;

use jukebox_core::exchange::{Input, Settings, Vitals};
use jukebox_core::gesture::{Button, Edge};
use jukebox_core::library::RenditionName;
use jukebox_core::reason::Reason;
use jukebox_core::time::{Instant, Span};
use jukebox_tests::world::library::Library;
use jukebox_tests::world::{Link, World, settings};
use proptest::prelude::*;
use serde_json::json;

fn kinds(w: &World) -> Vec<&str> {
    w.events.iter().map(|e| e.0.as_str()).filter(|k| !matches!(*k, "button" | "link" | "started_up")).collect()
}

#[test]
fn three_tracks_play_gapless_in_order() {
    let mut w = World::new(1, Library::new(&[30, 200, 9]));
    for n in 0..3 {
        let r = w.ask("add", &format!("Track {n}"));
        assert_eq!((&r["status"], &r["data"]["entry"]), (&json!("ok"), &json!(n + 1)), "{r}");
    }
    w.pass(Span::s(5));
    assert_eq!(w.retained["now"]["state"], "playing");
    assert_eq!(w.retained["now"]["track"]["title"], "Track 0");
    w.pass(Span::s(300));
    assert_eq!(w.retained["now"]["state"], "stopped");
    let lengths: Vec<_> = w.library.rows.iter().map(|r| r.duration_ms).collect();
    let frames: Vec<_> = w.dac.sounded.iter().map(|s| (s.0.0, s.1, s.2 * 1_000 / 44_100)).collect();
    assert_eq!(frames, [(1, 0, lengths[0]), (2, 0, lengths[1]), (3, 0, lengths[2])], "each once, whole");
    let k = kinds(&w);
    assert_eq!(k.iter().filter(|k| **k == "finished").count(), 3, "{k:?}");
    assert_eq!(w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"], 0.0);
}

#[test]
fn the_verbs_do_what_they_say() {
    let mut w = World::new(2, Library::new(&[100, 100, 100]));
    assert_eq!(w.ask("play", "")["data"], json!({"changed": false, "state": "stopped"}));
    assert_eq!(w.ask("add", "Nothing like it")["code"], "not_found");
    for n in 0..3 {
        w.ask("add", &format!("Track {n}"));
    }
    assert_eq!(w.ask("add", "Track 1")["code"], "duplicate");
    w.pass(Span::s(10));
    assert_eq!(w.ask("pause", "")["data"], json!({"changed": true, "state": "paused"}));
    assert_eq!(w.ask("pause", "")["data"], json!({"changed": false, "state": "paused"}));
    w.pass(Span::s(1));
    let held = w.ask("now", "")["data"]["position_ms"].as_u64().unwrap();
    w.pass(Span::s(60));
    assert_eq!(w.ask("now", "")["data"]["position_ms"].as_u64(), Some(held), "the playhead is held");
    assert!((9_000..=10_200).contains(&held), "{held}");
    assert_eq!(w.ask("skip", "")["data"], json!({"entry": 2}));
    assert_eq!(w.retained["now"]["state"], "paused", "a skip stays paused");
    assert_eq!(w.ask("toggle", "")["data"]["changed"], true);
    w.pass(Span::s(2));
    assert_eq!(w.ask("now", "")["data"]["state"], "playing");
    assert_eq!(w.ask("skip", r#"{"entry":1}"#)["code"], "unknown_entry");
    assert_eq!(w.ask("volume", "35")["data"], json!({"ceiling": 100, "percent": 35}));
    assert_eq!(w.ask("volume", "+5")["data"]["percent"], 40);
    assert_eq!(w.ask("mute", "toggle")["data"]["on"], true);
    assert_eq!(w.ask("volume", "-5")["data"]["percent"], 35);
    assert_eq!(w.retained["mute"], false, "any change unmutes");
    assert_eq!(w.ask("remove", "3")["data"], json!({"entry": 3}));
    assert_eq!(w.ask("remove", "3")["code"], "unknown_entry");
    assert_eq!(w.ask("queue", "")["data"]["total"], 1);
    assert_eq!(w.ask("stop", "")["data"], json!({"changed": true, "state": "stopped"}));
    assert_eq!(w.ask("stop", "")["data"]["changed"], false);
    assert_eq!(w.ask("ping", "x")["data"], json!({"boot": "b", "nonce": "x"}));
    assert_eq!(w.ask("search", "Track 2")["data"]["total"], 1);
    w.ask("play", "");
    w.pass(Span::s(1));
    assert_eq!(w.ask("now", "")["data"]["state"], "playing");
}

#[test]
fn an_outage_waits_and_a_bad_track_is_skipped() {
    let mut w = World::new(3, Library::new(&[60, 60, 60, 60]));
    let bad = w.library.rows[1].record;
    w.broken.insert(bad, Reason::Missing);
    for n in 0..4 {
        w.ask("add", &format!("Track {n}"));
    }
    w.link = Link::Down { reason: Reason::Timeout, after: Span::s(8) };
    w.pass(Span::s(600));
    assert_eq!(w.retained["now"]["state"], "buffering");
    assert_eq!(w.retained["now"]["reason"]["code"], "timeout");
    assert_eq!(w.retained["queue"]["total"], 4, "an outage drops nothing");
    w.link = Link::Up { kbps: 5_000, rtt: Span::ms(30) };
    w.pass(Span::s(3));
    assert_eq!(w.ask("now", "")["data"]["state"], "playing", "sound follows the link within 2 s");
    w.pass(Span::s(300));
    let order: Vec<_> = w.events.iter().filter(|e| matches!(e.0.as_str(), "finished" | "skipped")).collect();
    let order: Vec<_> = order.iter().map(|e| (e.0.as_str(), e.1["entry"].as_u64().unwrap())).collect();
    let mut sorted = order.clone();
    sorted.sort_by_key(|o| o.1);
    assert_eq!(sorted, [("finished", 1), ("skipped", 2), ("finished", 3), ("finished", 4)]);
    let skipped = w.events.iter().find(|e| e.0 == "skipped").unwrap();
    assert_eq!(skipped.1["reason"]["code"], "missing");
}

/// Entries of the queue in order.
fn order(w: &mut World) -> Vec<u64> {
    let queue = w.ask("queue", "")["data"].clone();
    queue["entries"].as_array().unwrap().iter().map(|e| e["entry"].as_u64().unwrap()).collect()
}

fn position(w: &mut World) -> u64 {
    w.ask("now", "")["data"]["position_ms"].as_u64().unwrap()
}

#[test]
fn seeking_is_exact_and_beyond_the_end_is_the_next() {
    let mut w = World::new(20, Library::new(&[120, 60]));
    assert_eq!(w.ask("seek", "10")["code"], "not_seekable");
    w.ask("add", "Track 0");
    w.ask("add", "Track 1");
    w.pass(Span::s(5));
    assert_eq!(w.ask("seek", "1:30")["data"], json!({"entry": 1, "position_ms": 90_000}));
    assert!((90_000..90_200).contains(&position(&mut w)));
    w.pass(Span::s(2));
    assert_eq!(w.retained["now"]["state"], "playing");
    let ms = w.ask("seek", "-1:00")["data"]["position_ms"].as_u64().unwrap();
    assert!((31_500..=32_300).contains(&ms), "{ms}");
    assert_eq!(w.ask("seek", "-99")["data"]["position_ms"], 0);
    w.ask("pause", "");
    assert_eq!(w.ask("seek", r#"{"position_ms":45000}"#)["data"]["position_ms"], 45_000);
    w.pass(Span::s(30));
    assert_eq!((position(&mut w), &w.retained["now"]["state"]), (45_000, &json!("paused")), "it waits there");
    w.power_cut();
    w.pass(Span::s(1));
    assert_eq!(position(&mut w), 45_000, "also after a power cut");
    w.ask("play", "");
    w.pass(Span::s(3));
    assert!((47_000..48_200).contains(&position(&mut w)));
    // The frames that sounded after the seek are those of that place.
    let rate = u64::from(jukebox_tests::world::library::RATE);
    assert!(w.dac.sounded.iter().any(|s| s.0.0 == 1 && s.1 / rate == 45), "{:?}", w.dac.sounded);
    assert_eq!(w.ask("seek", "+10:00")["data"], json!({"entry": 2, "position_ms": 0}));
    w.pass(Span::s(1));
    assert_eq!(w.retained["now"]["track"]["title"], "Track 1");
    assert_eq!(w.ask("seek", "2:00")["data"], json!({"entry": null, "position_ms": 0}));
    w.pass(Span::s(1));
    assert_eq!(w.retained["now"]["state"], "stopped");
    assert_eq!(w.ask("history", "")["data"]["total"], 2);
}

#[test]
fn previous_restarts_or_goes_back_through_the_history() {
    let mut w = World::new(21, Library::new(&[20, 30, 40]));
    assert_eq!(w.ask("previous", "")["data"], json!({"entry": null, "position_ms": 0}));
    for n in 0..3 {
        w.ask("add", &format!(r#"{{"text":"Track {n}","by":"ann"}}"#));
    }
    w.pass(Span::s(25));
    assert_eq!(w.retained["now"]["entry"], 2);
    w.pass(Span::s(3));
    assert_eq!(w.ask("previous", "")["data"], json!({"entry": 2, "position_ms": 0}), "more than 3 s in: its start");
    w.pass(Span::s(2));
    let back = w.ask("previous", "")["data"].clone();
    assert_eq!(back, json!({"entry": 4, "position_ms": 0}), "the one before it, under a new number");
    assert_eq!(order(&mut w), [4, 2, 3]);
    assert_eq!(w.ask("history", "")["data"]["total"], 0, "what plays is not history");
    w.pass(Span::s(25));
    assert_eq!(w.retained["now"]["entry"], 2, "the interrupted one plays again, from its start");
    w.ask("skip", "");
    w.pass(Span::s(60));
    assert_eq!(w.retained["now"]["state"], "stopped");
    let history = w.ask("history", "")["data"].clone();
    let plays = history["plays"].as_array().unwrap();
    let plays: Vec<_> = plays.iter().map(|p| (&p["entry"], &p["skipped"], &p["by"])).collect();
    let ann = &json!("ann");
    let [yes, no] = [&json!(true), &json!(false)];
    assert_eq!(plays, [(&json!(3), no, ann), (&json!(2), yes, ann), (&json!(4), no, ann)], "the last first");
    // Of an empty queue: the last one sounds again.
    assert_eq!(w.ask("previous", "")["data"]["entry"], 5);
    w.pass(Span::s(2));
    assert_eq!((&w.retained["now"]["state"], &w.retained["now"]["by"]), (&json!("playing"), ann));
}

#[test]
fn history_survives_and_is_forgotten_in_time() {
    let mut w = World::new(22, Library::new(&[5, 5, 5]));
    let noon = jukebox_core::time::UnixMs(1_795_000_000_000);
    w.give(Input::Clock { unix: noon, synced: true });
    for n in 0..3 {
        w.ask("add", &format!("Track {n}"));
    }
    w.pass(Span::s(30));
    w.power_cut();
    let history = w.ask("history", r#"{"offset":1,"limit":1}"#)["data"].clone();
    assert_eq!((&history["total"], &history["plays"][0]["entry"]), (&json!(3), &json!(2)));
    assert_eq!(history["plays"][0]["played_ms"], 5_000);
    assert!(history["plays"][0]["at"].as_str().unwrap().starts_with("2026-11-18T"), "{history}");
    let later = |days: u64| jukebox_core::time::UnixMs(noon.0 + days * 86_400_000);
    w.give(Input::Clock { unix: later(29), synced: true });
    assert_eq!(w.ask("history", "")["data"]["total"], 3);
    w.give(Input::Clock { unix: later(31), synced: true });
    assert_eq!(w.ask("history", "")["data"]["total"], 0);
    w.pass(Span::s(10));
    w.power_cut();
    assert_eq!(w.ask("history", "")["data"]["total"], 0, "on the card too");
}

#[test]
fn entries_are_moved_and_cleared() {
    let mut w = World::new(23, Library::new(&[60; 6]));
    for n in 0..6 {
        w.ask("add", &format!(r#"{{"text":"Track {n}","by":"{}"}}"#, if n % 2 == 0 { "ann" } else { "bob" }));
    }
    w.pass(Span::s(2));
    assert_eq!(w.ask("move", "6 next")["data"], json!({"place": 1}));
    assert_eq!(w.ask("move", "2 5")["data"], json!({"place": 4}));
    assert_eq!(order(&mut w), [1, 6, 3, 4, 2, 5]);
    assert_eq!(w.ask("move", "6 end")["data"], json!({"place": 5}));
    assert_eq!(w.ask("move", "1 end")["code"], "not_allowed");
    assert_eq!(w.ask("move", "3 1")["code"], "not_allowed");
    let unknown = w.ask("move", "3 99");
    assert_eq!((&unknown["code"], &unknown["field"]), (&json!("unknown_entry"), &json!("before")));
    assert_eq!(w.ask("clear", r#"{"only_by":"bob"}"#)["data"], json!({"removed": 3}));
    assert_eq!(order(&mut w), [1, 3, 5]);
    w.power_cut();
    assert_eq!(order(&mut w), [1, 3, 5]);
    assert_eq!(w.ask("clear", "")["data"], json!({"removed": 2}));
    assert_eq!(w.ask("clear", "")["data"], json!({"removed": 0}));
    w.pass(Span::s(70));
    assert_eq!(heard(&w), [1], "the current one plays to its end, and nothing of the others");
    let mut cleared: Vec<_> = w.events.iter().filter(|e| e.0 == "cleared").map(|e| e.1["entries"].clone()).collect();
    // What was not yet acknowledged at the power cut comes twice.
    cleared.dedup();
    assert_eq!(cleared, [json!([4, 2, 6]), json!([3, 5])]);
    assert_eq!(w.events.iter().filter(|e| e.0 == "moved").count(), 3);
}

#[test]
fn moving_near_the_border_is_heard() {
    for before_end_ms in [200, 900, 1_500, 2_500, 6_000] {
        let mut w = World::new(24, Library::new(&[20, 20, 20]));
        for n in 0..3 {
            w.ask("add", &format!("Track {n}"));
        }
        let length = w.library.rows[0].duration_ms;
        let at = position(&mut w);
        w.pass(Span::ms(length - before_end_ms - at));
        w.ask("move", "3 next");
        w.pass(Span::s(100));
        assert_eq!(heard(&w), [1, 3, 2], "{before_end_ms} ms before the end");
    }
}

#[test]
fn playlists_go_where_they_are_wanted() {
    let library = Library::new(&[30, 30, 30, 30, 30]);
    let library = library.with_playlist("Friday", &[3, 99, 1, 98, 4]).with_playlist("gone", &[97]);
    let mut w = World::new(25, library);
    let lists = w.ask("playlists", "")["data"].clone();
    assert_eq!(
        lists,
        json!({"playlists": [{"id": "friday", "name": "Friday", "tracks": 5}, {"id": "gone", "name": "gone", "tracks": 1}], "total": 2})
    );
    assert_eq!(w.ask("playlist", "monday")["code"], "unknown_playlist");
    assert_eq!(w.ask("playlist", "gone")["code"], "not_found");
    assert_eq!(w.ask("playlist", "friday")["data"], json!({"added": 3, "missing": 2, "left_out": 0}));
    w.pass(Span::s(2));
    assert_eq!(w.retained["now"]["track"]["title"], "Track 3", "it starts the music");
    let titles = |w: &mut World| {
        let queue = w.ask("queue", "")["data"].clone();
        let entries = queue["entries"].as_array().unwrap();
        entries.iter().map(|e| e["title"].as_str().unwrap().replace("Track ", "")).collect::<String>()
    };
    w.ask("playlist", r#"{"name":"Friday","mode":"next"}"#);
    assert_eq!(titles(&mut w), "331414");
    w.ask("playlist", r#"{"name":"Friday","mode":"replace"}"#);
    w.pass(Span::s(2));
    assert_eq!(titles(&mut w), "314");
    assert_eq!(w.ask("history", "")["data"]["total"], 1, "what was replaced had sounded");
    // Shuffled: some order, and the same one after a power cut.
    let orders: Vec<_> = (0..12)
        .map(|_| {
            w.ask("playlist", r#"{"name":"Friday","mode":"replace","shuffle":true}"#);
            titles(&mut w)
        })
        .collect();
    let mut distinct = orders.clone();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() > 2, "{orders:?}");
    w.pass(Span::s(5));
    w.power_cut();
    assert_eq!(Some(&titles(&mut w)), orders.last());
    // A queue has an end.
    for _ in 0..65 {
        w.ask("playlist", "friday");
    }
    assert_eq!(w.ask("playlist", "friday")["data"], json!({"added": 2, "missing": 2, "left_out": 1}));
    let full = w.ask("playlist", "friday");
    assert_eq!(full["code"], "queue_full");
    assert!(full["retry_after_s"].as_u64().is_some_and(|s| (1..=30).contains(&s)), "{full}");
}

#[test]
fn it_stops_after_the_track() {
    // Said early, when the next is in the ring, and across a power cut.
    for (at_s, cut) in [(3, false), (19, false), (10, true)] {
        let mut w = World::new(26, Library::new(&[20, 20]));
        assert_eq!(w.ask("stop", "after")["data"], json!({"state": "stopped", "changed": false}));
        w.ask("add", "Track 0");
        w.ask("add", "Track 1");
        w.pass(Span::s(at_s));
        assert_eq!(w.ask("stop", r#"{"after":"track"}"#)["data"]["changed"], true);
        assert_eq!(w.ask("stop", "after")["data"]["changed"], false);
        assert_eq!(w.retained["now"]["stops_after"], true);
        w.pass(Span::ms(300));
        assert_eq!(w.view.detail.as_str(), "Stops after this track");
        if cut {
            w.power_cut();
        }
        w.pass(Span::s(40));
        assert_eq!(heard(&w), [1], "said at {at_s} s");
        assert_eq!((&w.retained["now"]["state"], &w.retained["now"]["entry"]), (&json!("stopped"), &json!(2)));
        assert_eq!(w.retained["now"]["stops_after"], false);
        let silence = w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"].as_f64().unwrap();
        assert!(silence < 0.3, "it was wanted: {silence}");
        w.ask("play", "");
        w.pass(Span::s(30));
        assert_eq!(heard(&w), [1, 2], "it was for that track only");
    }
    // Taken back by play, and by whatever ends the track.
    for verb in ["play", "skip", "previous"] {
        let mut w = World::new(27, Library::new(&[20, 20, 20]));
        for n in 0..3 {
            w.ask("add", &format!("Track {n}"));
        }
        w.pass(Span::s(21));
        w.ask("stop", "after");
        assert_eq!(w.ask(verb, "")["status"], "ok");
        assert_eq!(w.retained["now"]["stops_after"], false, "{verb}");
        w.pass(Span::s(80));
        assert!(heard(&w).ends_with(&[3]), "{verb}: {:?}", heard(&w));
    }
}

#[test]
fn a_missing_device_freezes_the_playhead() {
    let mut w = World::new(4, Library::new(&[60]));
    w.ask("add", "Track 0");
    w.pass(Span::s(10));
    w.plug(false);
    w.pass(Span::s(30));
    assert_eq!(w.retained["now"]["state"], "no_output");
    assert_eq!(w.retained["now"]["reason"]["code"], "no_output");
    w.plug(true);
    w.pass(Span::s(120));
    assert_eq!(w.dac.sounded.len(), 1, "{:?}", w.dac.sounded);
    assert_eq!(w.retained["now"]["state"], "stopped");
}

#[test]
fn once_late_and_limits() {
    let mut w = World::new(5, Library::new(&[60, 60]));
    let add = r#"{"id":"abcdefgh","text":"Track 0"}"#;
    let first = w.ask("add", add);
    assert_eq!(first["id"], "abcdefgh");
    let mut again = w.ask("add", add);
    assert_eq!(again["replayed"], true);
    again.as_object_mut().unwrap().remove("replayed");
    assert_eq!(first, again);
    assert_eq!(w.ask("add", r#"{"id":"abcdefgh","text":"Track 1"}"#)["code"], "id_reused");
    assert_eq!(w.ask("remove", r#"{"id":"abcdefgh","entry":1}"#)["code"], "id_reused");
    w.power_cut();
    assert_eq!(w.ask("add", add)["replayed"], true, "also after a power cut");
    assert_eq!(w.ask("queue", "")["data"]["total"], 1);
    assert_eq!(w.ask("pause", r#"{"if_rev":99}"#)["code"], "rev_mismatch");
    w.pass(Span::s(5));
    let tokens: Vec<_> = (0..80).map(|_| w.command("ping", "")).collect();
    w.pass(Span::ms(100));
    let busy = tokens.iter().filter(|t| w.replies[t][0]["code"] == "busy").count();
    assert!((28..=31).contains(&busy), "50 at once, then 20 a second: {busy}");
}

#[test]
fn two_commands_with_one_id_at_the_same_moment_are_one() {
    let mut w = World::new(6, Library::new(&[60]));
    let add = r#"{"id":"abcdefgh","text":"Track 0"}"#;
    let (a, b) = (w.command("add", add), w.command("add", add));
    w.pass(Span::s(1));
    assert_eq!(w.replies[&a], w.replies[&b]);
    assert_eq!(w.retained["queue"]["total"], 1);
}

#[test]
fn inserting_next_near_the_border_is_heard_next() {
    for before_end_ms in [200, 900, 1_500, 2_500, 6_000] {
        let mut w = World::new(7, Library::new(&[20, 20, 20]));
        w.ask("add", "Track 0");
        w.ask("add", "Track 1");
        let length = w.library.rows[0].duration_ms;
        let position = w.ask("now", "")["data"]["position_ms"].as_u64().unwrap();
        w.pass(Span::ms(length - before_end_ms - position));
        w.ask("add", r#"{"text":"Track 2","where":"next"}"#);
        w.pass(Span::s(100));
        let mut heard: Vec<_> = w.dac.sounded.iter().map(|s| s.0.0).collect();
        heard.dedup();
        assert_eq!(heard, [1, 3, 2], "{before_end_ms} ms before the end");
        let total: u64 = w.dac.sounded.iter().map(|s| s.2).sum();
        let want: u64 = w.library.frames.iter().sum();
        assert!(total >= want - 44_100 / 2 && total <= want + 44_100 / 2, "{total} of {want}");
    }
}

#[test]
fn the_position_survives_a_power_cut() {
    let mut w = World::new(8, Library::new(&[300]));
    w.ask("add", "Track 0");
    w.pass(Span::s(100));
    w.power_cut();
    w.pass(Span::s(1));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!(now["state"], "playing");
    let ms = now["position_ms"].as_u64().unwrap();
    assert!((85_000..=103_000).contains(&ms), "{ms}");
}

/// Entries in the order in which they were heard.
fn heard(w: &World) -> Vec<u32> {
    let mut heard: Vec<_> = w.dac.sounded.iter().map(|s| s.0.0).collect();
    heard.dedup();
    heard
}

#[test]
fn an_undecodable_track_costs_itself_only() {
    let library = Library::new(&[20, 20, 20]);
    // In mid-track, at its start, and as the one that plays.
    for (track, segment) in [(1u64, 3), (1, 0), (0, 2), (2, 0)] {
        let mut w = World::new(10, library.clone());
        for rendition in [RenditionName::Original, RenditionName::Opus96, RenditionName::Opus32] {
            let digest = Library::segment(track, rendition, segment);
            assert!(w.library.segments.contains_key(&digest));
            w.dac.spoiled.insert(digest);
        }
        for n in 0..3 {
            w.ask("add", &format!("Track {n}"));
        }
        w.pass(Span::s(70));
        assert_eq!(w.retained["now"]["state"], "stopped", "track {track}, segment {segment}: {:?}", w.retained["now"]);
        let skipped: Vec<_> = w.events.iter().filter(|e| e.0 == "skipped").map(|e| e.1["entry"].clone()).collect();
        assert_eq!(skipped, [json!(track + 1)]);
        let finished = w.events.iter().filter(|e| e.0 == "finished").count();
        assert_eq!(finished, 2);
        for good in (0..3).filter(|n| *n != track as u32) {
            assert!(heard(&w).contains(&(good + 1)), "{:?}", w.dac.sounded);
        }
    }
}

#[test]
fn planned_silence_is_not_counted() {
    let mut w = World::new(11, Library::new(&[600]));
    w.ask("add", "Track 0");
    w.pass(Span::s(20));
    w.ask("stop", "");
    w.pass(Span::s(8 * 3_600));
    w.ask("play", "");
    w.pass(Span::s(20));
    w.ask("pause", "");
    w.pass(Span::s(3_600));
    w.ask("play", "");
    w.pass(Span::s(60));
    let silence = w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"].as_f64().unwrap();
    assert!(silence < 0.3, "{silence}");
    w.plug(false);
    w.pass(Span::s(100));
    w.plug(true);
    w.pass(Span::s(10));
    let silence = w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"].as_f64().unwrap();
    assert!((99.0..101.0).contains(&silence), "a missing device is silence that nobody planned: {silence}");
}

#[test]
fn a_skip_does_not_wait_for_what_nobody_wants() {
    let mut w = World::new(12, Library::new(&[60, 60]));
    w.link = Link::Up { kbps: 8, rtt: Span::ms(80) };
    w.ask("add", "Track 0");
    w.ask("add", "Track 1");
    w.pass(Span::s(5));
    assert_eq!(w.retained["now"]["state"], "buffering");
    w.link = Link::Up { kbps: 20_000, rtt: Span::ms(30) };
    w.ask("skip", "");
    w.pass(Span::s(2));
    assert_eq!(w.ask("now", "")["data"]["state"], "playing");
}

#[test]
fn after_a_black_hole_sound_follows_within_two_seconds() {
    for silent_s in [5, 61, 700] {
        let mut w = World::new(13, Library::new(&[300]));
        w.link = Link::Down { reason: Reason::Timeout, after: Span::s(3_600) };
        w.ask("add", "Track 0");
        w.pass(Span::s(silent_s));
        w.link = Link::Up { kbps: 20_000, rtt: Span::ms(30) };
        w.pass(Span::ms(1_800));
        assert_eq!(w.ask("now", "")["data"]["state"], "playing", "after {silent_s} s");
    }
}

#[test]
fn at_rest_it_rests() {
    let mut w = World::new(14, Library::new(&[30, 30]));
    w.link = Link::Down { reason: Reason::Refused, after: Span::ms(20) };
    w.ask("add", "Track 0");
    w.ask("add", "Track 1");
    w.pass(Span::s(60));
    w.ask("remove", "2");
    w.ask("remove", "1");
    let before = w.ticks;
    w.pass(Span::s(600));
    assert!(w.ticks - before < 60, "{} turns in ten minutes with nothing to do", w.ticks - before);
    w.link = Link::Up { kbps: 20_000, rtt: Span::ms(30) };
    w.ask("add", "Track 0");
    w.pass(Span::s(10));
    let before = w.ticks;
    w.pass(Span::s(10));
    assert!(w.ticks - before < 80, "{} turns in ten seconds of music", w.ticks - before);
}

/// A key goes down and comes up after so long.
fn hold(w: &mut World, button: Button, span: Span) {
    w.give(Input::Edge(Edge::Down(button)));
    w.pass(span);
    w.give(Input::Edge(Edge::Up(button)));
    w.pass(Span::ms(30));
}

fn press(w: &mut World, button: Button) {
    hold(w, button, Span::ms(60));
}

#[test]
fn buttons_do_what_the_table_says() {
    let mut w = World::new(9, Library::new(&[60, 60, 60]));
    press(&mut w, Button::Play);
    assert_eq!(w.view.headline.as_str(), "Nothing queued");
    hold(&mut w, Button::Play, Span::ms(700));
    assert_eq!(w.view.headline.as_str(), "lobby at hq", "the information page");
    w.pass(Span::s(20));
    for n in 0..3 {
        w.ask("add", &format!("Track {n}"));
    }
    w.pass(Span::s(3));
    assert_eq!((w.view.headline.as_str(), w.view.title.as_str()), ("Playing", "Track 0"));
    press(&mut w, Button::Play);
    assert_eq!(w.view.headline.as_str(), "Paused");
    press(&mut w, Button::Next);
    assert_eq!((w.view.headline.as_str(), w.view.title.as_str()), ("Paused", "Track 1"));
    press(&mut w, Button::Play);
    w.pass(Span::s(1));
    assert_eq!(w.view.headline.as_str(), "Playing");
    press(&mut w, Button::VolumeUp);
    assert_eq!(w.view.overlay.map(|o| o.percent), Some(32));
    hold(&mut w, Button::VolumeDown, Span::ms(1_100));
    assert_eq!(w.retained["volume"], 32 - 2 * 5, "one at the edge, four repeats from 600 ms on");
    w.give(Input::Edge(Edge::Turn(3)));
    assert_eq!(w.retained["volume"], 25);
    press(&mut w, Button::Knob);
    assert_eq!(w.retained["mute"], true);
    w.give(Input::Edge(Edge::Turn(1)));
    assert_eq!(w.retained["mute"], false, "any change unmutes");
    w.pass(Span::s(3));
    assert_eq!(w.view.overlay, None, "it goes away by itself");
    hold(&mut w, Button::Play, Span::ms(700));
    assert_eq!(w.view.headline.as_str(), "Stopped");
    press(&mut w, Button::Play);
    w.pass(Span::s(1));
    assert_eq!(w.view.headline.as_str(), "Playing");
    // The track before it, by both ways.
    w.pass(Span::s(4));
    let title = |w: &World| w.view.title.as_str().to_owned();
    assert_eq!(title(&w), "Track 1");
    press(&mut w, Button::Previous);
    w.pass(Span::s(1));
    assert_eq!((title(&w).as_str(), position(&mut w) < 1_500), ("Track 1", true), "its start");
    hold(&mut w, Button::Next, Span::ms(700));
    w.pass(Span::s(1));
    assert_eq!(title(&w), "Track 0");
    hold(&mut w, Button::Play, Span::ms(700));
    press(&mut w, Button::Next);
    assert_eq!((w.view.headline.as_str(), title(&w).as_str()), ("Stopped", "Track 1"), "stopped: it advances");
    press(&mut w, Button::Previous);
    assert_eq!((w.view.headline.as_str(), title(&w).as_str()), ("Stopped", "Track 0"));
    w.ask("clear", "");
    press(&mut w, Button::Next);
    assert_eq!(w.view.headline.as_str(), "Nothing next");
    w.pass(Span::s(4));
    press(&mut w, Button::Play);
    w.pass(Span::s(1));
    w.ask("remove", &w.retained["now"]["entry"].to_string());
    press(&mut w, Button::Next);
    assert_eq!(w.view.headline.as_str(), "Nothing next", "nothing is queued");
    w.pass(Span::s(4));
    press(&mut w, Button::Previous);
    w.pass(Span::s(2));
    assert_eq!((w.view.headline.as_str(), title(&w).as_str()), ("Playing", "Track 0"), "the last of the history");
    w.ask("remove", &w.retained["now"]["entry"].to_string());
    // A key that is stuck is told once, and then it is as if it were not there.
    hold(&mut w, Button::Play, Span::s(100));
    assert_eq!(w.view.headline.as_str(), "Nothing queued");
    let stuck = w.events.iter().filter(|e| e.0 == "button" && e.1["gesture"] == "stuck").count();
    assert_eq!(stuck, 1);
    let buttons = w.events.iter().filter(|e| e.0 == "button").count();
    assert_eq!(buttons, 23, "each is told once: {:?}", w.events.iter().filter(|e| e.0 == "button").collect::<Vec<_>>());
    assert!(w.events.iter().any(|e| e.0 == "paused" && e.1["by"] == "button"));
}

#[derive(Clone, Debug)]
enum Act {
    Say(&'static str, String),
    Wait(u64),
    Link(u64),
    Cut,
    Plug(bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0u8..12).prop_map(|n| Act::Say("add", format!("Track {n}"))),
        2 => (0u8..12).prop_map(|n| Act::Say("add", format!(r#"{{"text":"Track {n}","where":"next","twice":true}}"#))),
        2 => Just(Act::Say("skip", String::new())),
        1 => Just(Act::Say("pause", String::new())),
        2 => Just(Act::Say("play", String::new())),
        1 => Just(Act::Say("stop", String::new())),
        1 => (1u8..20).prop_map(|n| Act::Say("remove", n.to_string())),
        2 => Just(Act::Say("previous", String::new())),
        2 => (0u8..250).prop_map(|s| Act::Say("seek", s.to_string())),
        1 => (0u8..60).prop_map(|s| Act::Say("seek", format!("-{s}"))),
        1 => (1u8..20, 1u8..20).prop_map(|(a, b)| Act::Say("move", format!("{a} {b}"))),
        1 => (1u8..20).prop_map(|n| Act::Say("move", format!("{n} next"))),
        1 => Just(Act::Say("clear", String::new())),
        1 => Just(Act::Say("stop", "after".into())),
        1 => prop_oneof![Just("end"), Just("next"), Just("replace")]
            .prop_map(|m| Act::Say("playlist", format!(r#"{{"name":"all","mode":"{m}","shuffle":true}}"#))),
        1 => (0u8..=100).prop_map(|n| Act::Say("volume", n.to_string())),
        8 => (0u64..60_000).prop_map(Act::Wait),
        3 => prop_oneof![Just(0u64), Just(60), Just(300), Just(2_000), Just(20_000)].prop_map(Act::Link),
        2 => Just(Act::Cut),
        1 => any::<bool>().prop_map(Act::Plug),
    ]
}

fn party() -> Library {
    let lengths = [40, 15, 3, 90, 1, 200, 33, 47, 8, 61, 5, 120];
    Library::new(&lengths).with_playlist("all", &[0, 1, 2, 3, 4, 50, 6, 7, 8, 9])
}

/// Entries that were added (and answered), and what became of them.
fn fates(w: &World, added: &[u64]) -> Result<(), String> {
    let left: Vec<u64> =
        w.retained["queue"]["entries"].as_array().unwrap().iter().map(|e| e["entry"].as_u64().unwrap()).collect();
    let total = w.retained["queue"]["total"].as_u64().unwrap() as usize;
    for &id in added {
        let gone = w
            .events
            .iter()
            .filter(|e| match e.0.as_str() {
                "finished" | "skipped" | "removed" => e.1["entry"] == id,
                "cleared" => e.1["entries"].as_array().unwrap().contains(&id.into()),
                _ => false,
            })
            .count();
        let here = left.contains(&id) || (total > left.len() && gone == 0);
        if gone + usize::from(here) < 1 {
            return Err(format!("entry {id} was acknowledged and is lost"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A party on a bad night: whatever happens, every command has one reply, nothing acknowledged is lost, what sounds is in
    /// order, and when the link is back and people rest, the queue plays to its end.
    #[test]
    fn a_party_on_a_bad_night(seed in 1u64..1_000, acts in prop::collection::vec(act(), 1..60)) {
        let mut w = World::new(seed, party());
        let mut tokens = Vec::new();
        for a in acts {
            match a {
                Act::Say(verb, payload) => tokens.push((w.command(verb, &payload), verb)),
                Act::Wait(ms) => w.pass(Span::ms(ms)),
                Act::Link(0) => w.link = Link::Down { reason: Reason::Refused, after: Span::ms(50) },
                Act::Link(kbps) => {
                    w.link = Link::Up { kbps, rtt: Span::ms(80) };
                }
                Act::Cut => w.power_cut(),
                Act::Plug(present) => w.plug(present),
            }
        }
        w.pass(Span::s(1));
        w.link = Link::Up { kbps: 20_000, rtt: Span::ms(30) };
        w.plug(true);
        w.pass(Span::s(40));
        let added: Vec<u64> = tokens.iter().filter(|t| t.1 == "add").filter_map(|t| w.replies.get(&t.0))
            .filter_map(|r| r[0]["data"]["entry"].as_u64()).collect();
        prop_assert!(tokens.iter().all(|t| w.replies.get(&t.0).is_none_or(|r| r.len() == 1)), "one reply each");
        if let Err(e) = fates(&w, &added) { prop_assert!(false, "{e}") }
        // People rest: it plays to the end.
        w.ask("play", "");
        let total = w.ask("queue", "")["data"]["total_ms"].as_u64().unwrap();
        w.pass(Span::ms(total + 30_000));
        prop_assert_eq!(&w.retained["now"]["state"], "stopped", "{:?}", w.retained["now"]);
        prop_assert_eq!(&w.retained["queue"]["total"], 0);
    }

    /// Time, and nothing else, makes the difference: the same script says the same.
    #[test]
    fn a_script_replays_bit_for_bit(seed in 1u64..1_000, acts in prop::collection::vec(act(), 1..40)) {
        let began = Instant(1_000_000);
        let mut w = World::new(seed, party());
        for a in acts {
            match a {
                Act::Say(verb, payload) => { w.command(verb, &payload); }
                Act::Wait(ms) => w.pass(Span::ms(ms)),
                Act::Plug(present) => w.plug(present),
                _ => {}
            }
        }
        let json = serde_json::to_string(&w.script).unwrap();
        let script: Vec<(Instant, Input)> = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(World::replay(&script, began, seed), w.said);
    }
}
