//! What is torn, cannot be decoded or finds no room costs what it must, and no more.

use super::*;

/// Runs of frames of entry 1 that were heard: first frame and count.
fn runs(w: &World) -> Vec<(u64, u64)> {
    w.dac.sounded.iter().filter(|s| s.0.0 == 1).map(|s| (s.1, s.2)).collect()
}

fn health(w: &mut World) -> serde_json::Value {
    w.ask("health", "")["data"].clone()
}

#[test]
fn an_undecodable_segment_costs_its_rendition_only() {
    use RenditionName::{Opus32, Opus96, Original};
    for (spoiled, segments) in
        [(vec![Original], vec![12, 20]), (vec![Original, Opus96], vec![12]), (vec![Opus32], vec![1, 12])]
    {
        let mut w = World::new(12, Library::new(&[120]));
        for (name, k) in spoiled.iter().flat_map(|r| segments.iter().map(move |k| (*r, *k))) {
            w.dac.spoiled.insert(Library::segment(0, name, k));
        }
        w.ask("add", "Track 0");
        w.pass(Span::s(130));
        assert_eq!(w.retained["now"]["state"], "stopped");
        assert!(!w.events.iter().any(|e| e.0 == "skipped"), "{spoiled:?}");
        assert_eq!(runs(&w), [(0, w.library.frames[0])], "{spoiled:?}: every frame once");
        let silence = health(&mut w)["unplanned_silence_s"]["since_boot"].as_f64().unwrap();
        assert!(silence < 0.3, "{spoiled:?}: {silence}");
    }
}

#[test]
fn of_an_undecodable_rendition_nothing_else_is_on_board_it_waits_for_the_link() {
    let mut w = World::new(13, Library::new(&[600]));
    w.link = Link::Up { kbps: 60, rtt: Span::ms(60) };
    w.dac.spoiled.insert(Library::segment(0, RenditionName::Opus32, 12));
    w.ask("add", "Track 0");
    w.pass(Span::s(40));
    w.link = Link::Down { reason: jukebox_core::reason::Reason::Timeout, after: Span::s(8) };
    w.pass(Span::s(120));
    let now = w.retained["now"].clone();
    assert_eq!((&now["state"], &now["reason"]["code"]), (&json!("buffering"), &json!("timeout")), "{now}");
    w.link = Link::Up { kbps: 20_000, rtt: Span::ms(60) };
    w.pass(Span::s(700));
    assert!(!w.events.iter().any(|e| e.0 == "skipped"));
    assert_eq!(runs(&w), [(0, w.library.frames[0])], "every frame once");
}

#[test]
fn what_the_card_lost_is_fetched_again_before_the_ring_is_empty() {
    let mut w = World::new(14, Library::new(&[120]));
    w.ask("add", "Track 0");
    w.pass(Span::s(20));
    // The card forgets all that is to come; of each segment the one that would be played is found missing in its turn.
    for k in 10..30 {
        for name in [RenditionName::Original, RenditionName::Opus96, RenditionName::Opus32] {
            let digest = Library::segment(0, name, k);
            if w.has(&digest) {
                w.lose(&digest);
            }
        }
    }
    w.pass(Span::s(110));
    assert_eq!(w.retained["now"]["state"], "stopped");
    assert_eq!(runs(&w), [(0, w.library.frames[0])], "every frame once");
    let silence = health(&mut w)["unplanned_silence_s"]["since_boot"].as_f64().unwrap();
    assert!(silence < 0.3, "{silence}");
}

/// A look at the machine on a day: so much was written by this run.
fn card(w: &mut World, written: u64, day: Option<u32>, disk: Option<Reason>) {
    w.give(Input::Vitals(Vitals { written: Some(written), day, disk, ..Vitals::default() }));
}

/// Segments on board of a rendition of a track.
fn on_board(w: &World, track: u64, rendition: RenditionName) -> usize {
    (0..)
        .map(|k| Library::segment(track, rendition, k))
        .take_while(|d| w.library.segments.contains_key(d))
        .filter(|d| w.has(d))
        .count()
}

#[test]
fn a_card_that_took_enough_today_takes_only_what_is_needed() {
    let settings = Settings { write_budget: 100_000_000, ..jukebox_tests::world::settings() };
    let mut w = World::with(15, Library::new(&[300; 12]), settings);
    card(&mut w, 60_000_000, Some(20_000), None);
    w.pass(Span::s(5));
    w.power_cut();
    card(&mut w, 50_000_000, Some(20_000), None);
    assert_eq!(health(&mut w)["written_mb_today"], 110, "over a restart");
    for n in 0..12 {
        w.ask("add", &format!("Track {n}"));
    }
    w.pass(Span::s(280));
    let small: Vec<_> = (0..12).map(|n| on_board(&w, n, RenditionName::Opus32)).collect();
    let whole = (1..6).all(|n| small[n] >= 75);
    assert!(whole && small[8..].iter().all(|&n| n == 0), "half an hour of the queue, and no more: {small:?}");
    let original: usize = (1..12).map(|n| on_board(&w, n, RenditionName::Original)).sum();
    assert_eq!(original, 0, "no upgrade");
    // Midnight.
    card(&mut w, 51_000_000, Some(20_001), None);
    assert_eq!(health(&mut w)["written_mb_today"], 1);
    w.pass(Span::s(280));
    assert!(on_board(&w, 3, RenditionName::Original) > 70 && on_board(&w, 11, RenditionName::Opus32) > 70);
    assert_eq!(health(&mut w)["unplanned_silence_s"]["since_boot"], 0.0);
}

#[test]
fn a_card_in_trouble_is_told() {
    let mut w = World::new(16, Library::new(&[300]));
    w.ask("add", "Track 0");
    w.pass(Span::s(10));
    card(&mut w, 0, None, Some(Reason::DiskFull));
    assert_eq!(w.view.detail.as_str(), "The card is full");
    assert_eq!(w.retained["health"]["disk"]["code"], "disk_full");
    card(&mut w, 0, None, Some(Reason::DiskFault));
    card(&mut w, 0, None, None);
    assert_eq!(w.retained["health"]["disk"], json!(null));
    // An event goes out once it is on the card.
    w.pass(Span::s(5));
    let told: Vec<_> = w.events.iter().filter(|e| e.0 == "disk").map(|e| e.1["reason"]["code"].clone()).collect();
    assert_eq!(told, [json!("disk_full"), json!("disk_fault"), json!(null)]);
}

#[test]
fn errors_of_the_device_make_its_period_longer_for_good() {
    let mut w = World::new(17, Library::new(&[3_600]));
    w.ask("add", "Track 0");
    w.pass(Span::s(10));
    for _ in 0..2 {
        w.dac.xrun();
        w.pass(Span::s(1_000));
    }
    assert_eq!(w.dac.period_ms(), 20);
    w.dac.xrun();
    w.pass(Span::s(10));
    assert_eq!(w.dac.period_ms(), 40);
    let told: Vec<_> =
        w.events.iter().filter(|e| e.0 == "period").map(|e| (e.1["from_ms"].clone(), e.1["to_ms"].clone())).collect();
    assert_eq!(told, [(json!(20), json!(40))]);
    w.power_cut();
    w.pass(Span::s(10));
    assert_eq!((w.dac.period_ms(), w.retained["now"]["state"].clone()), (40, json!("playing")));
}
