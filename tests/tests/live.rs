//! Live streams as the core sees them: what may be added, what plays while the station is gone, what is said of it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use jukebox_core::exchange::{Input, Settings};
use jukebox_core::fallback::FallbackSettings;
use jukebox_core::live::Air;
use jukebox_core::reason::Reason;
use jukebox_core::sound::EntryId;
use jukebox_core::time::Span;
use jukebox_tests::world::library::Library;
use jukebox_tests::world::{World, settings};
use serde_json::{Value, json};

const URL: &str = "http://radio.example.org/live";

fn world(when_waiting: bool) -> World {
    let fallback = FallbackSettings { playlist: None, shuffle: false, when_waiting, when_empty: false };
    let streams = vec!["http://radio.example.org/".into()];
    let mut w = World::with(1, Library::new(&[240, 240, 240]), Settings { fallback, streams, ..settings() });
    w.pass(Span::s(1));
    w
}

fn now(w: &mut World) -> Value {
    w.ask("now", "")["data"].clone()
}

fn silence(w: &mut World) -> f64 {
    w.ask("health", "")["data"]["unplanned_silence_s"]["since_boot"].as_f64().unwrap()
}

fn kinds(w: &World, kind: &str) -> Vec<Value> {
    w.events.iter().filter(|e| e.0 == kind).map(|e| e.1.clone()).collect()
}

#[test]
fn what_the_configuration_allows_is_added_and_nothing_else() {
    let mut w = world(false);
    for url in ["http://evil.net/x", "http://127.0.0.1/x", "https://radio.example.org/live", "gopher://x/y"] {
        let r = w.ask("add", url);
        assert_eq!((&r["code"], &r["field"]), (&json!("url_not_allowed"), &json!("url")), "{url}: {r}");
    }
    let r = w.ask("add", URL);
    assert_eq!((&r["status"], &r["data"]["starts_in_s"]), (&json!("ok"), &json!(0)), "{r}");
    assert_eq!(r["data"]["track"]["title"], "radio.example.org/live");
    assert_eq!(w.ask("add", URL)["code"], "duplicate");
    let r = w.ask("add", "Track 0");
    assert_eq!(r["data"]["starts_in_s"], Value::Null, "behind a stream without an end: {r}");
    w.pass(Span::s(5));
    let n = now(&mut w);
    assert_eq!(
        (&n["state"], &n["track"]["kind"], &n["track"]["url"]),
        (&json!("playing"), &json!("stream"), &json!(URL))
    );
    assert_eq!((&n["track"]["title"], &n["track"]["duration_ms"]), (&json!("Radio Test"), &json!(0)), "its name");
    assert_eq!(n["rendition"], Value::Null);
    for to in ["1:00", "+10", "-10"] {
        assert_eq!(w.ask("seek", to)["code"], "not_seekable");
    }
    let q = w.ask("queue", "")["data"].clone();
    assert_eq!((&q["entries"][0]["kind"], &q["entries"][1]["kind"]), (&json!("stream"), &json!("track")));
    assert_eq!(q["entries"][0]["title"], "Radio Test");
    w.ask("skip", "");
    w.pass(Span::s(3));
    assert_eq!(now(&mut w)["track"]["title"], "Track 0");
    let h = w.ask("history", "")["data"]["plays"][0].clone();
    assert_eq!((&h["kind"], &h["url"], &h["skipped"]), (&json!("stream"), &json!(URL), &json!(true)));
}

#[test]
fn a_station_that_is_gone_is_waited_for_while_the_fallback_plays_and_comes_back_at_its_edge() {
    let mut w = world(true);
    w.ask("add", URL);
    w.pass(Span::s(600));
    w.dac.station.sends(false);
    w.pass(Span::ms(1_500));
    w.give(Input::Air { entry: EntryId(1), air: Air::Lost(Reason::StationAway) });
    assert_eq!(w.view.headline.as_str(), "Station gone, playing what has come");
    w.pass(Span::ms(58_500));
    let n = now(&mut w);
    assert_eq!((&n["state"], &n["source"], &n["waiting"]["entry"]), (&json!("playing"), &json!("fallback"), &json!(1)));
    assert_eq!(n["waiting"]["reason"]["code"], "station_away");
    let detail = w.view.detail.as_str();
    assert!(detail.starts_with("Radio Test waits, 0:5") && detail.ends_with(": the station does not come"), "{detail}");
    w.dac.station.sends(true);
    w.pass(Span::ms(600));
    w.give(Input::Air { entry: EntryId(1), air: Air::Comes });
    w.pass(Span::s(2));
    let n = now(&mut w);
    assert_eq!((&n["source"], &n["entry"], &n["waiting"]), (&json!("queue"), &json!(1), &Value::Null));
    assert_eq!(silence(&mut w), 0.0);
    let at = n["position_ms"].as_u64().unwrap();
    assert!((660_000..665_000).contains(&at), "the outage counts: {at}");
    let heard: Vec<_> = w.dac.sounded.iter().map(|s| s.0.0 < 1 << 31).collect();
    assert_eq!(heard, [true, false, true], "{:?}", w.dac.sounded);
    let on: Vec<_> = kinds(&w, "station").iter().map(|e| (e["on"].clone(), e["reason"]["code"].clone())).collect();
    assert_eq!(on, [(json!(false), json!("station_away")), (json!(true), Value::Null)]);
    assert_eq!(kinds(&w, "started").len(), 2, "the stream once, and the fallback");
    assert_eq!(w.retained["queue"]["total"], 1);
}

#[test]
fn without_a_fallback_it_is_silent_says_why_and_begins_with_more_the_next_time() {
    let mut w = world(false);
    w.ask("add", URL);
    w.dac.station.burst = Span::ms(1_500);
    for (need, round) in [(1, 0), (2, 1), (4, 2), (8, 3), (8, 4)] {
        w.pass(Span::s(20));
        assert_eq!(now(&mut w)["state"], "playing", "round {round}");
        w.dac.station.burst = Span(0);
        w.dac.station.sends(false);
        w.pass(Span::s(10));
        w.give(Input::Air { entry: EntryId(1), air: Air::Lost(Reason::StationOff) });
        let n = now(&mut w);
        assert_eq!((&n["state"], &n["reason"]["code"]), (&json!("buffering"), &json!("station_off")));
        assert_eq!(w.view.headline.as_str(), "Silent: the station is off the air");
        w.dac.station.sends(true);
        w.give(Input::Air { entry: EntryId(1), air: Air::Comes });
        let next = Span::s(need * 2).min(Span::s(8));
        w.pass(Span(next.0 - 500_000));
        assert_eq!(now(&mut w)["state"], "buffering", "round {round}: {next:?} has to have come");
        w.pass(Span::ms(1_200));
        assert_eq!(now(&mut w)["state"], "playing", "round {round}");
    }
    // Events are told once they are on the card.
    w.pass(Span::s(3));
    assert_eq!(kinds(&w, "rebuffer").len(), 5);
    assert_eq!(kinds(&w, "silence").len(), 5);
    // An outage that is known as one is another matter.
    w.pass(Span::s(20));
    w.dac.station.sends(false);
    w.give(Input::Air { entry: EntryId(1), air: Air::Lost(Reason::StationAway) });
    w.pass(Span::s(20));
    w.dac.station.burst = Span::ms(1_200);
    w.dac.station.sends(true);
    w.pass(Span::s(1));
    assert_eq!(now(&mut w)["state"], "playing", "it begins with what comes at once");
}

#[test]
fn for_s_ends_it_also_across_a_power_cut_and_while_it_is_gone() {
    let mut w = world(true);
    w.ask("add", &json!({"url": URL, "for_s": 100}).to_string());
    let starts = w.ask("add", "Track 0")["data"]["starts_in_s"].as_u64().unwrap();
    assert!((98..=100).contains(&starts), "{starts}");
    w.pass(Span::s(30));
    w.ask("pause", "");
    w.pass(Span::s(40));
    w.ask("play", "");
    w.pass(Span::s(30));
    w.power_cut();
    w.pass(Span::s(20));
    let n = now(&mut w);
    assert_eq!((&n["state"], &n["track"]["kind"]), (&json!("playing"), &json!("stream")), "{n}");
    let at = n["position_ms"].as_u64().unwrap();
    assert!((68_000..=82_000).contains(&at), "pauses do not count: {at}");
    w.dac.station.sends(false);
    w.pass(Span::s(15));
    assert_eq!(now(&mut w)["source"], "fallback");
    w.pass(Span::s(30));
    let n = now(&mut w);
    assert_eq!((&n["entry"], &n["source"]), (&json!(2), &json!("queue")), "{n}");
    let played = kinds(&w, "finished").iter().find(|e| e["entry"] == 1).unwrap()["played_ms"].clone();
    assert_eq!(played, 100_000);
    let h = w.ask("history", "")["data"]["plays"][0].clone();
    assert_eq!((&h["kind"], &h["played_ms"], &h["skipped"]), (&json!("stream"), &json!(100_000), &json!(false)));
    assert_eq!(silence(&mut w), 0.0);
    w.dac.station.sends(true);
    assert_eq!(w.ask("previous", "")["data"]["entry"], 2, "the track from its start");
    assert_eq!(w.ask("previous", "")["data"]["entry"], 3, "the stream comes back");
    w.pass(Span::s(5));
    assert_eq!(now(&mut w)["track"]["kind"], "stream");
}

#[test]
fn titles_are_shown_and_told_and_what_cannot_be_played_is_skipped_with_the_reason() {
    let mut w = world(false);
    w.ask("add", URL);
    w.ask("add", "Track 1");
    w.pass(Span::s(3));
    w.give(Input::Air { entry: EntryId(1), air: Air::Title("ABBA - Waterloo".into()) });
    let n = w.retained["now"]["track"].clone();
    assert_eq!((&n["title"], &n["artist"], &n["album"]), (&json!("Waterloo"), &json!("ABBA"), &json!("Radio Test")));
    assert_eq!((w.view.headline.as_str(), w.view.title.as_str()), ("Live: Radio Test", "Waterloo"));
    assert_eq!(w.view.progress, None);
    w.give(Input::Air { entry: EntryId(1), air: Air::Title("ABBA - Waterloo".into()) });
    w.give(Input::Air { entry: EntryId(9), air: Air::Title("of another station".into()) });
    w.pass(Span::s(3));
    assert_eq!(kinds(&w, "title").len(), 1);
    w.give(Input::Air { entry: EntryId(1), air: Air::Lost(Reason::HeAac) });
    w.pass(Span::s(3));
    assert_eq!(now(&mut w)["entry"], 2);
    assert_eq!(kinds(&w, "skipped")[0]["reason"]["code"], "he_aac");
}

#[test]
fn stop_tunes_out_and_pause_holds() {
    let mut w = world(false);
    w.ask("add", URL);
    w.pass(Span::s(20));
    w.ask("pause", "");
    w.pass(Span::s(30));
    let held = now(&mut w)["position_ms"].as_u64().unwrap();
    w.ask("play", "");
    w.pass(Span::s(5));
    let at = now(&mut w)["position_ms"].as_u64().unwrap();
    assert!((held + 4_000..held + 6_000).contains(&at), "it goes on where it was: {held}, {at}");
    assert_eq!(w.dac.sounded.len(), 1, "not a frame is left out: {:?}", w.dac.sounded);
    w.ask("stop", "");
    assert_eq!(w.said.iter().rfind(|s| s.starts_with("Tune")).unwrap(), "Tune(None)");
    assert_eq!(now(&mut w)["state"], "stopped");
    w.ask("play", "");
    w.pass(Span::s(5));
    let n = now(&mut w);
    assert!(n["state"] == "playing" && n["position_ms"].as_u64().unwrap() < 6_000, "anew: {n}");
}
