//! The law of the house, checked: who may depend on whom, what may not come in at all, which file alone may know what.
//!
//! An arrow (`ARROWS`) means "may depend on". The lists of what must not come in count indirect dependencies too, as cargo
//! resolves them for this machine (.config/deny.toml covers the other targets). What is told by reading the sources is told by plain text search: comments are taken out
//! first, and a file counts up to its `#[cfg(test)]`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Package, and the packages of this workspace that it may depend on.
const ARROWS: [(&str, &[&str]); 5] = [
    ("jukebox-core", &[]),
    ("jukebox-board", &["jukebox-core"]),
    ("jukebox", &["jukebox-board", "jukebox-core"]),
    ("jukebox-office", &["jukebox-core"]),
    ("jukebox-tests", &["jukebox", "jukebox-board", "jukebox-core", "jukebox-office"]),
];

/// All that core may name; each of them builds without `std`.
const CORE: [&str; 7] = ["data-encoding", "heapless", "minicbor", "serde", "serde_json", "sha2", "thiserror"];

/// Package, and what it must not have among its dependencies, direct or not.
const NEVER: [(&str, &[&str]); 5] = [
    ("jukebox-core", &["tokio", "tracing", "log", "rand", "libc", "chrono", "jiff", "mio", "socket2"]),
    (
        "jukebox-board",
        &[
            "tokio",
            "hyper",
            "rustls",
            "rumqttc-v5-next",
            "reqwest",
            "socket2",
            "axum", // network, MQTT
            "symphonia",
            "symphonia-core",
            "opus",
            "rubato",
            "ebur128",
            "lewton",
            "minimp3", // codecs
            "rusqlite",
        ],
    ),
    ("jukebox", &["ring", "openssl-sys", "native-tls", "axum", "rayon", "jukebox-office", "jukebox-tests"]),
    ("jukebox-office", &["ring", "openssl-sys", "native-tls", "cpal", "rppal", "jukebox", "jukebox-board"]),
    ("jukebox-tests", &["ring", "openssl-sys", "native-tls"]),
];

/// A crate (as written in code), and the only place of the product that may name it. A path without `.rs` is a file or a folder of that name.
const KNOWN_IN_ONE_PLACE: [(&str, &str); 3] =
    [("rumqttc", "firmware/src/mqtt"), ("cpal", "board/src/output"), ("rppal", "board/src/buttons")];

/// What may lie at the top of the repository.
const TOP: [&str; 19] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "board",
    "cross.toml",
    "firmware",
    "office",
    "systemd",
    "tests",
];

/// Longest source file, in lines.
const MAX_LINES: usize = 800;

#[test]
fn packages_depend_along_the_arrows_only() {
    let direct = direct();
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(direct.keys().map(String::as_str).collect::<BTreeSet<_>>(), ours, "packages of the workspace");
    for (package, allowed) in ARROWS {
        for name in direct[package].iter().filter(|name| ours.contains(name.as_str())) {
            assert!(allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
}

#[test]
fn core_names_few_crates() {
    for name in &direct()["jukebox-core"] {
        assert!(CORE.contains(&name.as_str()), "jukebox-core must not depend on {name}");
    }
}

#[test]
fn what_must_not_come_in_does_not() {
    for (package, never) in NEVER {
        let all = closure(package);
        for name in never {
            assert!(!all.contains(*name), "{package} must not depend on {name}, also not by way of another crate");
        }
    }
    assert!(closure("jukebox").contains("aws-lc-rs"), "the closure is not seen: this test proves nothing");
}

#[test]
fn packages_take_the_lints_of_the_workspace() {
    for manifest in ["firmware", "firmware/core", "board", "office", "tests"] {
        let text = read(&root().join(manifest).join("Cargo.toml"));
        let toml: toml::Table = text.parse().unwrap();
        assert_eq!(toml["lints"]["workspace"].as_bool(), Some(true), "{manifest}/Cargo.toml: [lints] workspace = true");
    }
}

#[test]
fn unsafe_lives_in_one_file() {
    for file in product() {
        if file.name == "board/src/rt.rs" {
            continue;
        }
        for (number, line) in file.code() {
            let found = words(line).any(|w| w == "unsafe") && !line.contains("unsafe_");
            assert!(!found, "{}:{number}: unsafe is for board/src/rt.rs alone", file.name);
        }
    }
}

#[test]
fn nothing_panics_on_purpose() {
    for file in product() {
        for (number, line) in file.code() {
            for bad in [".unwrap()", ".expect(\"", "todo!(", "unimplemented!("] {
                assert!(!line.contains(bad), "{}:{number}: {bad} is for tests", file.name);
            }
        }
    }
}

#[test]
fn core_touches_nothing_of_the_world() {
    let lib = read(&root().join("firmware/core/src/lib.rs"));
    assert!(lib.contains("#![no_std]") || lib.contains("#![cfg_attr(not(test), no_std)]"), "core is no_std");
    for file in product().iter().filter(|f| f.name.starts_with("firmware/core/")) {
        for (number, line) in file.code() {
            for bad in ["std::", "tokio::", "Instant::now", "SystemTime", "HashMap", "HashSet"] {
                let at = line.find(bad);
                let whole = at.is_some_and(|i| !line[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                assert!(!whole, "{}:{number}: {bad} is not for core", file.name);
            }
        }
    }
}

#[test]
fn each_library_is_known_in_one_place() {
    for file in product() {
        for (krate, place) in KNOWN_IN_ONE_PLACE {
            let inside = file.name.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
            for (number, line) in file.code().filter(|_| !inside) {
                let found = line.contains(&format!("{krate}::")) && words(line).any(|w| w == krate);
                assert!(!found, "{}:{number}: only {place} knows {krate}", file.name);
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    for file in sources(&["firmware", "board", "office", "tests"]) {
        assert!(file.text.starts_with("//! "), "{}: begins with what it is (//!)", file.name);
        let lines = file.text.lines().count();
        assert!(lines <= MAX_LINES, "{}: {lines} lines; at {MAX_LINES} it is two modules", file.name);
    }
}

/// What is tried in every run is what cargo-fuzz may try for long.
#[test]
fn each_fuzz_target_has_its_file() {
    let folder = root().join("tests/fuzz");
    let manifest: toml::Table = read(&folder.join("Cargo.toml")).parse().unwrap();
    let bins = manifest["bin"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap().to_owned());
    let names: BTreeSet<String> = jukebox_tests::fuzz::TARGETS.iter().map(|t| t.0.to_owned()).collect();
    assert_eq!(bins.collect::<BTreeSet<_>>(), names);
    for name in names {
        let text = read(&folder.join("targets").join(format!("{name}.rs")));
        assert!(text.contains(&format!("jukebox_tests::fuzz::{name}(bytes)")), "{name}");
    }
}

#[test]
fn the_top_level_is_tidy() {
    let out = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let listed = out.ok().filter(|o| o.status.success()).map(|o| String::from_utf8(o.stdout).unwrap());
    // Not a git clone (a tarball): what lies there counts, without what the build makes.
    let names: BTreeSet<String> = match listed {
        Some(text) => text.split_terminator('\0').map(|p| p.split('/').next().unwrap_or(p).to_owned()).collect(),
        None => std::fs::read_dir(root())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n != "target" && n != ".try")
            .collect(),
    };
    assert!(names.contains("Cargo.toml"), "the repository is not seen");
    for name in names {
        assert!(TOP.contains(&name.as_str()), "{name} does not belong at the top level");
    }
}

/// Each package of the workspace, with the names that it depends on directly (dev-dependencies do not count).
fn direct() -> BTreeMap<String, BTreeSet<String>> {
    let text = cargo(&["metadata", "--format-version", "1", "--locked", "--no-deps"]);
    let meta: Value = serde_json::from_str(&text).unwrap();
    let of = |package: &Value| {
        let wanted = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"] != "dev");
        wanted.map(|d| d["name"].as_str().unwrap().to_owned()).collect()
    };
    let packages = meta["packages"].as_array().unwrap().iter();
    packages.map(|p| (p["name"].as_str().unwrap().to_owned(), of(p))).collect()
}

/// Names of all that `package` is built from. (`cargo metadata` would also name what only a feature that is off brings.)
fn closure(package: &str) -> BTreeSet<String> {
    let text = cargo(&["tree", "--locked", "--package", package, "--edges", "normal,build", "--prefix", "none"]);
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn cargo(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A source file, its name relative to the repository.
struct Source {
    name: String,
    text: String,
}

impl Source {
    /// Numbered lines without comments, up to the file's own tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().take_while(|line| !line.trim_start().starts_with("#[cfg(test)]"));
        lines.enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap_or(line)))
    }
}

/// The sources of what is installed: no tests, no benches.
fn product() -> Vec<Source> {
    let all = sources(&["firmware/src", "firmware/core/src", "board/src", "office/src"]);
    all.into_iter().filter(|f| !f.name.ends_with("/tests.rs") && !f.name.contains("/tests/")).collect()
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut files = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut files);
    }
    assert!(!files.is_empty(), "no sources in {folders:?}");
    files.sort();
    files
        .iter()
        .map(|path| Source { name: path.strip_prefix(root()).unwrap().display().to_string(), text: read(path) })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
