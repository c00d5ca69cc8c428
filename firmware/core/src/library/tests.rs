//! The library's objects, as bytes and back.

use super::*;
use alloc::string::ToString;
use alloc::vec;

#[test]
fn ids_are_text() {
    let d = Digest::of(b"abc");
    assert_eq!(d.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(d.path(), "o/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(d.to_string().parse(), Ok(d));
    let t = TrackId([0xff; 10]);
    assert_eq!(t.to_string(), "7777777777777777");
    assert_eq!(t.to_string().parse(), Ok(t));
    assert!("abc".parse::<TrackId>().is_err() && "18".repeat(8).parse::<TrackId>().is_err());
}

#[test]
fn playlists_are_called_by_their_path() {
    assert_eq!(playlist_id("Friday"), "friday");
    assert_eq!(playlist_id("Bars & Co/ Friday night (2)!"), "bars-co-friday-night-2");
    assert_eq!(playlist_id("Fête/Ünder"), "fête-ünder");
    assert_eq!(playlist_id("--- !"), "");
    assert!(playlist_id(&"ä b".repeat(60)).len() <= MAX_PLAYLIST_ID);
}

#[test]
fn index_pages_round_trip_and_lies_are_refused() {
    let s = |length, first_frame| SegmentRef { length, first_frame, digest: Digest::of(&[1]) };
    let page = IndexPage::new(&[s(10, 0), s(20, 44_100)]);
    let read = IndexPage::parse(&encode(&page)).unwrap();
    assert_eq!(read.segments().collect::<Vec<_>>(), vec![s(10, 0), s(20, 44_100)]);
    for bad in [vec![s(10, 5), s(10, 5)], vec![s(0, 0)], vec![s(u32::MAX, 0)], vec![]] {
        assert!(IndexPage::parse(&encode(&IndexPage::new(&bad))).is_err());
    }
}

fn hex<T: Encode<()>>(object: &T) -> String {
    HEXLOWER.encode(&encode(object))
}

/// What is in libraries and on players' disks stays readable: these bytes never change, keys are only added.
#[test]
fn the_forms_are_frozen() {
    let id = TrackId([1; 10]);
    let record = Digest([2; 32]);
    let (id_hex, record_hex) = ("01".repeat(10), "02".repeat(32));
    let row = Row {
        id,
        title: "t".into(),
        artist: "a".into(),
        album: "".into(),
        year: 1999,
        duration_ms: 70_000,
        popularity: 3,
        record,
    };
    assert_eq!(
        hex(&CataloguePage { rows: vec![row] }),
        alloc::format!("a10081a8004a{id_hex}016174026161036004190 7cf051a0001117006030758 20{record_hex}")
            .replace(' ', "")
    );
    assert_eq!(
        hex(&PageList { pages: vec![PageRef { object: record, size: 5, rows: 6 }] }),
        alloc::format!("a10081a3005820{record_hex}01050206")
    );
    assert_eq!(
        hex(&Playlist { tracks: vec![PlaylistTrack { id, record }] }),
        alloc::format!("a10081a2004a{id_hex}015820{record_hex}")
    );
    assert_eq!(
        hex(&IndexPage::new(&[SegmentRef { length: 258, first_frame: 3, digest: record }])),
        alloc::format!("a100582c000001020000000000000003{record_hex}")
    );
    let track = Record {
        format: FORMAT,
        id,
        title: "t".into(),
        artist: "".into(),
        album: "".into(),
        album_artist: "".into(),
        year: 0,
        disc: 1,
        number: 2,
        duration_ms: 1_000,
        loudness: -14.5,
        album_gain: Some(AlbumGain { album: 9, loudness: -15.0, true_peak: -1.0 }),
        cover: Some(record),
        renditions: vec![Rendition {
            name: RenditionName::Opus96,
            init: Init {
                codec: Codec::Opus,
                rate: 48_000,
                channels: 2,
                bits: 0,
                coded_bits: 0,
                longest_packet: 960,
                extra: vec![7, 8],
            },
            delay: 312,
            frames: 48_000,
            true_peak: -0.5,
            size: 12_000,
            object: record,
            index: vec![IndexRef { object: record, offset: 0, first_frame: 0 }],
        }],
    };
    let init = "a70004 0119bb80 0202 0300 0400 051903c0 06420708".replace(' ', "");
    let rendition = alloc::format!(
        "a8 0001 01{init} 02190138 0319bb80 04fabf000000 05192ee0 065820{record_hex} 0781a3005820{record_hex}01000200"
    );
    let expected = alloc::format!(
        "ae 0001 014a{id_hex} 026174 0360 0460 0560 0600 0701 0802 091903e8 0afac1680000 \
         0ba3000901fac170000002fabf800000 0c5820{record_hex} 0d81{rendition}"
    );
    assert_eq!(hex(&track), expected.replace([' ', '\n'], ""));
    assert_eq!(Record::parse(&encode(&track)), Ok(track.clone()));
    // What is not there takes no room.
    let bare = Record { album_gain: None, cover: None, ..track };
    assert!(hex(&bare).starts_with("ac0001"));
    assert_eq!(Record::parse(&encode(&bare)), Ok(bare));
}

#[test]
fn keys_of_the_future_are_passed_over() {
    // A page reference with a key 9 that nobody knows yet.
    let bytes = alloc::format!("a20081a40058 20{}01050206 0963666f6f 18c8f5", "02".repeat(32)).replace(' ', "");
    let list = PageList::parse(&HEXLOWER.decode(bytes.as_bytes()).unwrap()).unwrap();
    assert_eq!(list.pages, [PageRef { object: Digest([2; 32]), size: 5, rows: 6 }]);
    let text = br#"{"format":1,"library":"000102030405060708090a0b0c0d0e0f","revision":7,"written":"w","previous":null,
        "pages":[{"object":"0202020202020202020202020202020202020202020202020202020202020202","size":5,"rows":6,"new":1}],
        "playlists":[],"later":{}}"#;
    let root = Root::parse(text).unwrap();
    assert_eq!((root.revision, root.depth, root.pages.as_slice()), (7, 0, list.pages.as_slice()));
    assert_eq!(Root::parse(&root.to_bytes()), Ok(root));
}

#[test]
fn a_newer_root_is_told_from_a_broken_one() {
    assert_eq!(Root::parse(br#"{"format":2,"what":1}"#), Err(FormatError::Newer { found: 2 }));
    assert!(matches!(Root::parse(b"<html>"), Err(FormatError::Shape(_))));
}
