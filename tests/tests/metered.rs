//! Links that cost by the byte, and the time: in simulated time, over power cuts.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use jukebox_core::budget::Carried;
use jukebox_core::exchange::Input;
use jukebox_core::time::{Span, UnixMs};
use jukebox_tests::world::library::Library;
use jukebox_tests::world::{Link, World};
use serde_json::{Value, json};

/// 2026-11-10.
const TODAY: UnixMs = UnixMs(1_794_268_800_000);
const MB: u64 = 1_000_000;

/// The modem's counter.
fn carried(w: &mut World, bytes: u64, budget_mb: Option<u32>, by: &str) {
    let carried = vec![Carried { interface: "wwan0".into(), bytes, budget_mb }];
    w.give(Input::Traffic { carried, by: Some(by.into()) });
}

fn health(w: &mut World) -> Value {
    w.ask("health", "")["data"].clone()
}

/// A player on a quick modem that has carried `mb` in the last minute, after five more minutes of playing: what it plays, and
/// kB that were fetched.
fn after_five_minutes(mb: u64, budget_mb: Option<u32>, by: &str) -> (String, u64) {
    let mut w = World::new(1, Library::new(&[900, 900, 900]));
    w.link = Link::Up { kbps: 20_000, rtt: Span::ms(60) };
    w.give(Input::Clock { unix: TODAY, synced: true });
    carried(&mut w, 0, budget_mb, by);
    w.pass(Span::s(60));
    carried(&mut w, mb * MB, budget_mb, by);
    w.ask("add", "Track 0");
    w.pass(Span::s(300));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!(now["state"], "playing");
    let silence = health(&mut w)["unplanned_silence_s"]["since_boot"].as_f64().unwrap();
    assert!(silence < 1.0, "no budget stops the sound: {silence}");
    let came = w.script.iter().map(|(_, i)| if let Input::Fetched { received, .. } = i { *received } else { 0 });
    (now["rendition"].as_str().unwrap().to_owned(), came.sum::<u64>() / 1_000)
}

#[test]
fn a_budget_is_kept_with_small_renditions_and_never_with_silence() {
    let free = after_five_minutes(90, Some(100), "eth0");
    let costs = after_five_minutes(90, None, "wwan0");
    let short = after_five_minutes(90, Some(100), "wwan0");
    let enough = after_five_minutes(90, Some(10_000_000), "wwan0");
    assert_eq!([&free.0, &costs.0, &short.0, &enough.0], ["original", "opus-96", "opus-32", "original"]);
    assert!(short.1 * 2 < costs.1 && costs.1 * 2 < free.1, "kB: {} {} {}", short.1, costs.1, free.1);
}

#[test]
fn what_was_carried_is_told_and_survives_a_power_cut() {
    let mut w = World::new(2, Library::new(&[60]));
    assert_eq!((&health(&mut w)["bytes_month"], &health(&mut w)["metered"]), (&Value::Null, &json!([])));
    carried(&mut w, 5 * MB, Some(2_000), "wwan0");
    for n in 1..=30 {
        w.pass(Span::s(30));
        carried(&mut w, 5 * MB + n * MB, Some(2_000), "wwan0");
    }
    let told = health(&mut w);
    assert_eq!((&told["bytes_month"], &told["forecast_mb_month"]), (&json!(30 * MB), &Value::Null), "{told}");
    w.give(Input::Clock { unix: TODAY, synced: true });
    let told = health(&mut w);
    // A megabyte every 30 s, for the 21 days that are left.
    let forecast = told["forecast_mb_month"].as_u64().unwrap();
    assert!(forecast.abs_diff(30 + 21 * 2_880) < 1_500, "{told}");
    let each = json!({"interface": "wwan0", "bytes_month": 30 * MB, "forecast_mb_month": forecast, "budget_mb": 2_000});
    assert_eq!(told["metered"], json!([each]));
    w.power_cut();
    carried(&mut w, MB, Some(2_000), "wwan0");
    let left = health(&mut w)["bytes_month"].as_u64().unwrap();
    assert!((20 * MB..31 * MB).contains(&left), "all but the last ten minutes, and what came since: {left}");
}

#[test]
fn state_is_said_less_often_where_it_costs() {
    let said = |by: &str| {
        let mut w = World::new(3, Library::new(&[60]));
        w.pass(Span::s(400));
        carried(&mut w, 0, None, by);
        let before = w.said.len();
        w.pass(Span::s(3_000));
        w.said[before..].iter().filter(|s| s.starts_with("Publish { topic: Health")).count()
    };
    assert_eq!((said("eth0"), said("wwan0")), (100, 10));
}

#[test]
fn the_time_is_known_or_not_told_and_the_last_known_is_kept() {
    let mut w = World::new(4, Library::new(&[600]));
    let now = w.ask("now", "")["data"].clone();
    assert_eq!((&now["at"], &now["clock"]), (&Value::Null, &json!("unknown")));
    w.give(Input::Clock { unix: UnixMs(86_400_000), synced: false });
    assert_eq!(w.ask("now", "")["data"]["at"], Value::Null, "1970 is not told");
    w.give(Input::Clock { unix: TODAY, synced: true });
    let now = w.ask("now", "")["data"].clone();
    assert!(now["at"].as_str().unwrap().starts_with("2026-11-10T00:00:00") && now["clock"] == "synced", "{now}");
    w.pass(Span::s(5));
    assert_eq!(w.saved().meta.unwrap().time, Some(TODAY));
    // A day later, with nothing else to be saved.
    w.pass(Span::s(86_400));
    w.give(Input::Clock { unix: UnixMs(TODAY.0 + 86_400_000), synced: true });
    w.pass(Span::s(5));
    w.power_cut();
    w.pass(Span::s(5));
    assert_eq!(w.ask("now", "")["data"]["at"], Value::Null, "it is not known again yet");
    let kept = w.saved().meta.unwrap().time.unwrap();
    assert!(kept.0 >= TODAY.0 + 86_400_000, "{kept}");
}
