//! The documentation says what the code says. `BLESS=1` writes the tables anew.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use jukebox_core::command::Verb;
use jukebox_core::reason::{Code, Reason};
use jukebox_tests::rig::root;

/// What stands between the line `<!-- name -->` and the next blank line.
fn table(text: &str, name: &str) -> std::ops::Range<usize> {
    let mark = format!("<!-- {name} -->\n");
    let from = text.find(&mark).unwrap_or_else(|| panic!("no {mark}")) + mark.len();
    from..text[from..].find("\n\n").map_or(text.len(), |n| from + n + 1)
}

#[test]
fn codes_and_reasons_are_those_of_the_table() {
    let codes = Code::ALL.map(|c| format!("`{}`", serde_json::to_value(c).unwrap().as_str().unwrap())).join(" ");
    let row = |r: Reason| {
        let (action, who) = (format!("{:?}", r.action()).to_lowercase(), format!("{:?}", r.who()).to_lowercase());
        format!("| `{}` | {} | {} | {action} | {who} |\n", r.code(), r.short(), r.text())
    };
    let reasons: String = Reason::ALL.map(row).concat();
    let path = root().join("firmware/docs/mqtt.md");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (name, want) in [("codes", codes + "\n"), ("reasons", reasons)] {
        let at = table(&text, name);
        if std::env::var_os("BLESS").is_some() {
            text.replace_range(at, &want);
            std::fs::write(&path, &text).unwrap();
        } else {
            assert_eq!(&text[at], want, "run this test with BLESS=1");
        }
    }
}

#[test]
fn every_verb_is_documented() {
    let text = std::fs::read_to_string(root().join("firmware/docs/mqtt.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("| `")).collect();
    for v in Verb::ALL {
        let named = format!("`{}`", v.as_str());
        let found = rows.iter().any(|r| r.split('|').nth(1).is_some_and(|cell| cell.contains(&named)));
        assert!(found, "{} is not in the table of verbs", v.as_str());
    }
}
