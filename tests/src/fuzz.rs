//! What the fuzzer tries, a function for each target: hostile bytes in, and nothing may panic, hang or break its word.
//!
//! `tests/tests/fuzz.rs` tries them, and replays what was found before (`tests/fuzz/regressions/TARGET`). `tests/fuzz` is the
//! same for cargo-fuzz, a target each.

use std::panic::catch_unwind;
use std::path::Path;

use jukebox::config::Config;
use jukebox_core::checkpoint::{Position, Saved};
use jukebox_core::command::{self, Verb};
use jukebox_core::library::{CataloguePage, IndexPage, PageList, Playlist, Record, RenditionName, Root, encode};
use jukebox_core::segment::Segment;
use jukebox_core::sound::EntryId;
use jukebox_core::wire;
use jukebox_office::publish::source::Source;
use serde_json::Value;

/// A target: its name, and what it does with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 8] = [
    ("root", root),
    ("pages", pages),
    ("records", records),
    ("segments", segments),
    ("wire", wire),
    ("config", config),
    ("commands", commands),
    ("demux", demux),
];

/// `library.json`.
pub fn root(bytes: &[u8]) {
    if let Ok(root) = Root::parse(bytes) {
        assert_eq!(Root::parse(&root.to_bytes()).as_ref(), Ok(&root));
    }
}

/// Catalogue pages, lists of them, playlists, and pages of an index.
pub fn pages(bytes: &[u8]) {
    if let Ok(page) = CataloguePage::parse(bytes) {
        assert_eq!(CataloguePage::parse(&encode(&page)).as_ref(), Ok(&page));
    }
    if let Ok(list) = PageList::parse(bytes) {
        assert_eq!(PageList::parse(&encode(&list)).as_ref(), Ok(&list));
    }
    if let Ok(playlist) = Playlist::parse(bytes) {
        assert_eq!(Playlist::parse(&encode(&playlist)).as_ref(), Ok(&playlist));
    }
    if let Ok(page) = IndexPage::parse(bytes) {
        assert_eq!(page.segments().len(), page.len());
        assert_eq!(IndexPage::parse(&encode(&page)).as_ref(), Ok(&page));
    }
}

/// Records; what is computed of them is a number.
pub fn records(bytes: &[u8]) {
    if let Ok(record) = Record::parse(bytes) {
        assert_eq!(Record::parse(&encode(&record)).as_ref(), Ok(&record));
        assert!(record.gain(-18.0, false).0.is_finite() && record.gain(-18.0, true).0.is_finite());
        let _ = record.rendition(RenditionName::Original);
    }
}

/// Segments.
pub fn segments(bytes: &[u8]) {
    if let Ok(segment) = Segment::decode(bytes) {
        let again = segment.encode();
        assert!(Segment::decode(&again).is_ok_and(|s| s == segment));
    }
}

/// The saved rows and the saved position; replies that quote a stranger's words.
pub fn wire(bytes: &[u8]) {
    // A row: length of the key, length of the value, key, value.
    let (mut rows, mut rest) = (Vec::new(), bytes);
    while let [key, value, more @ ..] = rest {
        let (key, more) = more.split_at((*key as usize).min(more.len()));
        let (value, more) = more.split_at((*value as usize).min(more.len()));
        rows.push((key.to_vec(), value.to_vec()));
        rest = more;
    }
    let saved = Saved::load(rows.iter().cloned());
    assert!(saved.rejected.len() <= rows.len());
    let _ = Position::read(bytes, EntryId(1));
    let words = String::from_utf8_lossy(bytes);
    for outcome in [Ok(Value::from(&*words)), Err(command::Refusal::new(jukebox_core::reason::Code::Internal, &*words))]
    {
        let reply = wire::reply(Some(&words), "lobby", "add", 1, &outcome);
        for reply in [wire::unsaved(&reply), wire::replayed(&reply), reply] {
            let read: Value = serde_json::from_str(&reply).unwrap_or_else(|e| panic!("{e}: {reply}"));
            assert_eq!(read["id"], *words);
        }
    }
}

/// The configuration: right, or an error with a place in the file.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Config::parse(&text, Path::new("jukebox.toml")) {
        Ok(config) => assert!(config.digest().starts_with("sha256:")),
        Err(e) => assert!(e.to_string().starts_with("jukebox.toml:"), "{e}"),
    }
}

/// Commands: the first byte chooses the verb, the rest is the payload.
pub fn commands(bytes: &[u8]) {
    let [verb, payload @ ..] = bytes else { return };
    let verb = Verb::ALL[usize::from(*verb) % Verb::ALL.len()].as_str();
    match command::parse(verb, payload) {
        Ok(request) => assert_eq!(request.verb.as_str(), verb),
        Err((_, refusal)) => assert!(refusal.reason.ends_with('.'), "a plain sentence: {}", refusal.reason),
    }
}

/// Most packets of a file that are looked at.
const PACKETS: usize = 2_000;

/// Files of the music folder. A decoder may panic: publish catches that, as here. It may not hang, and may not eat the memory.
pub fn demux(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap_or_else(|e| panic!("no temporary file: {e}"));
    std::fs::write(file.path(), bytes).unwrap_or_else(|e| panic!("{e}"));
    let _ = catch_unwind(|| {
        let Ok(mut source) = Source::open(file.path()) else { return };
        let channels = usize::from(source.init.channels);
        for _ in 0..PACKETS {
            let Ok(Some(packet)) = source.next_packet() else { return };
            if packet.pcm.len() != packet.frames as usize * channels {
                eprintln!("frames that are not there");
                std::process::abort();
            }
        }
    });
}
