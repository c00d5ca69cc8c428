//! The contract as others read it: the AsyncAPI document, foreign validators, foreign clients, Home Assistant.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use jukebox_core::command::Verb;
use jukebox_core::reason::{Code, Reason};
use jukebox_tests::rig::broker::PASSWORD;
use jukebox_tests::rig::house::House;
use jukebox_tests::rig::mqtt::Message;
use jukebox_tests::rig::music::{self, Song};
use jukebox_tests::rig::player::Setup;
use jukebox_tests::rig::{self, SOON, root};
use serde_json::{Value, json};

/// Holds messages against the document: what it names, or what does not fit.
fn hold(messages: &[Message]) -> Result<Value, String> {
    let mut python = Command::new("python3");
    python.arg(root().join("tests/contract.py")).arg(root().join("firmware/docs/asyncapi.yaml"));
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: Vec<_> =
        messages.iter().map(|m| json!({"topic": m.topic, "payload": m.payload}).to_string() + "\n").collect();
    python.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
    let out = python.wait_with_output().unwrap();
    match out.status.success() {
        true => Ok(serde_json::from_slice(&out.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// Packages of npm, of these versions, for node scripts; none where npm or its registry is not there.
fn node(script: &str) -> Option<Command> {
    static INSTALLED: std::sync::OnceLock<Result<PathBuf, String>> = std::sync::OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let folder = root().join("target/npm");
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        std::fs::write(folder.join("package.json"), "{\"private\":true}").map_err(|e| e.to_string())?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--silent"]);
        let out = npm.args(["@asyncapi/parser@3.6.6", "mqtt@5.16.0"]).current_dir(&folder).output();
        let out = out.map_err(|e| format!("npm: {e}"))?;
        if out.status.success() {
            Ok(folder.join("node_modules"))
        } else {
            Err(String::from_utf8_lossy(&out.stderr).into_owned())
        }
    });
    match installed {
        Ok(modules) => {
            let mut node = Command::new("node");
            node.arg(root().join("tests").join(script)).env("NODE_PATH", modules);
            Some(node)
        }
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "npm is needed: {why}");
            eprintln!("NOT HERE: npm, or its registry: {script} was not run: {why}");
            None
        }
    }
}

fn set<T: Into<String>>(all: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    all.into_iter().map(Into::into).collect()
}

fn named(all: &Value) -> BTreeSet<String> {
    set(all.as_array().unwrap().iter().map(|v| v.as_str().unwrap()))
}

/// The kinds of events in core: what `event("..")` is called with.
fn kinds() -> BTreeSet<String> {
    let files = std::fs::read_dir(root().join("firmware/core/src")).unwrap();
    let files = files.map(|f| f.unwrap().path()).filter(|f| f.is_file());
    let text: String = files.map(|f| std::fs::read_to_string(f).unwrap()).collect();
    let calls = text.split(".event(\"").skip(1);
    set(calls.map(|rest| rest.split('"').next().unwrap()))
}

#[test]
fn the_document_names_what_the_code_knows() {
    let names = hold(&[]).unwrap();
    let verbs = set(Verb::ALL.map(Verb::as_str));
    assert_eq!(named(&names["verbs"]), verbs);
    assert_eq!(named(&names["answers"]), verbs, "what each is answered");
    assert_eq!(named(&names["for_all"]), set(Verb::ALL.into_iter().filter(|v| v.for_all()).map(Verb::as_str)));
    let code = |c: Code| serde_json::to_value(c).unwrap().as_str().unwrap().to_owned();
    assert_eq!(named(&names["codes"]), set(Code::ALL.map(code)));
    assert_eq!(named(&names["reasons"]), set(Reason::ALL.map(Reason::code)));
    assert_eq!(named(&names["kinds"]), kinds());
}

#[test]
fn asyncapis_own_parser_reads_it() {
    let Some(mut node) = node("asyncapi.cjs") else { return };
    let said = rig::run(node.arg(root().join("firmware/docs/asyncapi.yaml")));
    assert!(said.starts_with("AsyncAPI 3.0.0: "), "{said}");
}

/// A party by clients of others over MQTT 5 and 3.1.1; all that is said fits the document.
#[test]
fn a_party_of_foreign_clients_fits_the_document() {
    let house = House::with(Setup::default(), |songs| {
        for (n, (title, seconds)) in
            [("Waterloo", 20.0), ("Fernando", 30.0), ("Water Music", 25.0)].into_iter().enumerate()
        {
            let song = Song { title, seconds, seed: n as u32 + 1, ..Song::default() };
            music::make(&songs.join(format!("{n}.flac")), &song);
        }
        rig::write(&songs.join("Friday night.m3u8"), "1.flac\n2.flac\n");
    });
    let bot = house.bot();
    let ears = bot.listen(&["jukebox/1/hq/#", "homeassistant/#"]);
    for version in ["5", "4"] {
        let Some(mut node) = node("party.cjs") else { break };
        let ca = bot.ca.clone().unwrap();
        node.arg(bot.port.to_string()).arg(ca).arg(version).env("JUKEBOX_PASSWORD", PASSWORD);
        let replies = rig::run(&mut node);
        let replies: Vec<Value> = replies.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(replies.len(), 12, "{replies:#?}");
        assert!(replies.iter().all(|r| r["status"] == "ok" && r["player"] == "lobby"), "{replies:#?}");
        assert_eq!(replies[0]["data"], json!({"added": 2, "missing": 0, "left_out": 0}));
        assert_eq!(replies[2]["data"]["place"], 1);
    }
    // The rest of the verbs, by a bot in Python.
    for (verb, text) in [
        ("add", r#"{"text":"fernando","twice":true}"#),
        ("search", "water"),
        ("play", ""),
        ("pause", ""),
        ("toggle", ""),
        ("mute", r#"{"on":true}"#),
        ("playlists", ""),
        ("now", ""),
        ("health", ""),
        ("ping", r#"{"nonce":"x"}"#),
        ("remove", r#"{"entry":99999}"#),
        ("skip", ""),
    ] {
        let reply = bot.bot(&["hq/lobby", verb, text]);
        assert_eq!(reply["status"] == "refused", verb == "remove", "{reply}");
    }
    bot.publish("jukebox/1/hq/all/command/stop", "{}", &[]);
    let mark = ears.mark();
    assert_eq!(house.refused("dance", ""), "unknown_verb");
    ears.wait_from(mark, SOON, "the refusal", |m| m.topic.ends_with("/event/refused"));

    let all: Vec<_> = ears.messages().into_iter().filter(|m| m.topic.starts_with("jukebox/")).collect();
    // What a bot said wrongly on purpose, and the player's ping to itself.
    let all: Vec<_> = all.into_iter().filter(|m| !m.topic.ends_with("/dance") && !m.payload.is_empty()).collect();
    assert!(all.len() > 60, "{}", all.len());
    if let Err(why) = hold(&all) {
        panic!("{why}");
    }
    // The check can fail: a field too few, one too many, a value of another kind.
    let now = all.iter().rfind(|m| m.topic.ends_with("/now")).unwrap().clone();
    for (field, value) in [("state", Value::Null), ("colour", json!("red")), ("position_ms", json!("1"))] {
        let mut payload = now.json();
        payload[field] = value;
        let bad = Message { payload: payload.to_string(), ..now.clone() };
        assert!(hold(&[bad]).unwrap_err().contains(field));
    }
    home_assistant_knows_every_key(&house);
}

/// The fields of a page's object, `{"rev","track":{"id",..},"entries":[{"entry"}, ..the first 20]}`, as paths.
fn paths_of_page(text: &str) -> BTreeSet<String> {
    let (mut paths, mut open, mut last) = (BTreeSet::new(), Vec::new(), String::new());
    for (n, part) in text.split('"').enumerate() {
        if n % 2 == 1 {
            last = [open.concat(), part.to_owned()].concat();
            paths.insert(last.clone());
            continue;
        }
        for c in part.chars() {
            match c {
                '{' => open.push(if last.is_empty() {
                    String::new()
                } else {
                    format!("{}/", last.rsplit('/').next().unwrap())
                }),
                '}' => drop(open.pop()),
                _ => {}
            }
        }
    }
    paths
}

/// The fields that a player says, as paths; of a list its first element counts.
fn paths_of(value: &Value, at: &str) -> BTreeSet<String> {
    match value {
        Value::Object(fields) => {
            let below = |(name, v): (&String, &Value)| {
                let path = format!("{at}{name}");
                let mut all = paths_of(v, &format!("{path}/"));
                all.insert(path);
                all
            };
            fields.iter().flat_map(below).collect()
        }
        Value::Array(all) => all.first().map(|v| paths_of(v, at)).unwrap_or_default(),
        _ => BTreeSet::new(),
    }
}

/// What is retained has the fields of the page, all of them and no other; and `health` tells what is.
#[test]
fn state_is_what_the_page_says_field_by_field() {
    let setup = Setup { office: "budget_mb = { lo = 100000 }".into(), ..Setup::default() };
    let house = House::new(&[("Waterloo", 90.0), ("Fernando", 60.0)], setup);
    let ears = house.ears();
    house.ok("add", "waterloo");
    house.ok("add", "fernando");
    ears.wait("it plays", |m| m.topic.ends_with("/now") && m.json()["state"] == "playing");
    let health = rig::until("all is on board, and bytes are counted", Duration::from_secs(45), || {
        std::thread::park_timeout(Duration::from_millis(120));
        let health = house.ok("health", "");
        (health["on_board_queue_s"].as_u64()? >= 100 && health["metered"][0]["bytes_month"].as_u64()? > 0)
            .then_some(health)
    });
    let page = std::fs::read_to_string(root().join("firmware/docs/mqtt.md")).unwrap();
    for what in ["info", "now", "queue", "health"] {
        let row = page.lines().find(|l| l.starts_with(&format!("| `P/{what}`"))).unwrap();
        let cell = row.split('|').nth(3).unwrap().split('`').find(|t| t.starts_with('{')).unwrap();
        let said = ears.messages().into_iter().rfind(|m| m.topic.ends_with(&format!("/lobby/{what}"))).unwrap().json();
        let said = if what == "health" { health.clone() } else { said };
        let mut paths = paths_of_page(cell);
        // Streams have one.
        paths.remove("entries/url");
        assert_eq!(paths_of(&said, ""), paths, "{what}");
    }
    let number = |name: &str| health[name].as_f64().unwrap_or_else(|| panic!("{name}: {health}"));
    let folder = house.folder();
    let df = rig::run(Command::new("df").args(["--output=avail", "-B1000000"]).arg(folder));
    let free: f64 = df.lines().last().unwrap().trim().parse().unwrap();
    assert!((number("disk_free_mb") - free).abs() < 0.05 * free + 100.0, "{free} MB are free: {health}");
    assert_eq!(
        (&health["link"], &health["catalogue_tracks"], &health["disk"]),
        (&json!("good"), &json!(2), &Value::Null)
    );
    assert_eq!(health["origins"], json!([{"url": house.web.url(), "state": "ok"}]));
    assert_eq!((&health["underruns"], &health["xruns"]), (&json!(0), &json!(0)));
    assert!(
        (100.0..=150.0).contains(&number("on_board_queue_s"))
            && number("on_board_total_s") >= number("on_board_queue_s")
    );
    let silence = |name: &str| health["unplanned_silence_s"][name].as_f64().unwrap();
    assert!(silence("today") <= silence("since_boot") && silence("since_boot") < 1.0, "{health}");
    assert!(number("written_mb_today") < 100.0 && number("wasted_kb") < 1_000.0, "{health}");
    let metered = &health["metered"][0];
    assert_eq!((&metered["interface"], &metered["budget_mb"]), (&json!("lo"), &json!(100_000)));
    assert_eq!(
        (&health["bytes_month"], &health["forecast_mb_month"]),
        (&metered["bytes_month"], &metered["forecast_mb_month"])
    );
    let told = [&health["cpu_c"], &health["throttled"], &health["forecast_mb_month"]];
    assert!(told[0].is_null() || told[0].is_i64());
    assert!(told[1].is_null() || told[1].is_array());
    assert!(told[2].is_null() || told[2].is_u64());
    assert_eq!(house.ok("health", "")["origins"], health["origins"], "asked and retained are the same");
}

/// Keys of device discovery: <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>, and for each
/// platform `https://www.home-assistant.io/integrations/PLATFORM.mqtt/`; as Home Assistant 2026.2 knows them (its schemas, read on
/// 2026-11-27), without those that are on their way out (`object_id`). It drops others without a word. Abbreviations are not used.
const SHARED: [&str; 12] = [
    "device",
    "origin",
    "components",
    "state_topic",
    "command_topic",
    "qos",
    "encoding",
    "availability",
    "availability_topic",
    "availability_template",
    "payload_available",
    "payload_not_available",
];
const DEVICE: [&str; 12] = [
    "identifiers",
    "connections",
    "name",
    "manufacturer",
    "model",
    "model_id",
    "sw_version",
    "hw_version",
    "serial_number",
    "via_device",
    "suggested_area",
    "configuration_url",
];
const ORIGIN: [&str; 3] = ["name", "sw_version", "support_url"];
/// Of every entity.
const ENTITY: [&str; 12] = [
    "platform",
    "unique_id",
    "name",
    "icon",
    "entity_category",
    "entity_picture",
    "enabled_by_default",
    "default_entity_id",
    "json_attributes_topic",
    "json_attributes_template",
    "qos",
    "encoding",
];
/// Platform: keys that it must have, keys that it may have.
const PLATFORMS: [(&str, &[&str], &[&str]); 8] = [
    ("button", &["command_topic"], &["payload_press", "command_template", "device_class", "retain"]),
    (
        "number",
        &["command_topic"],
        &[
            "command_template",
            "device_class",
            "max",
            "min",
            "mode",
            "optimistic",
            "payload_reset",
            "retain",
            "state_topic",
            "step",
            "unit_of_measurement",
            "value_template",
        ],
    ),
    (
        "switch",
        &["command_topic"],
        &[
            "command_template",
            "device_class",
            "optimistic",
            "payload_off",
            "payload_on",
            "retain",
            "state_off",
            "state_on",
            "state_topic",
            "value_template",
        ],
    ),
    (
        "select",
        &["command_topic", "options"],
        &["command_template", "optimistic", "retain", "state_topic", "value_template"],
    ),
    (
        "text",
        &["command_topic"],
        &["command_template", "max", "min", "mode", "pattern", "retain", "state_topic", "value_template"],
    ),
    (
        "sensor",
        &["state_topic"],
        &[
            "device_class",
            "expire_after",
            "force_update",
            "last_reset_value_template",
            "options",
            "state_class",
            "suggested_display_precision",
            "unit_of_measurement",
            "value_template",
        ],
    ),
    (
        "binary_sensor",
        &["state_topic"],
        &["device_class", "expire_after", "force_update", "off_delay", "payload_off", "payload_on", "value_template"],
    ),
    ("event", &["state_topic", "event_types"], &["device_class", "value_template"]),
];

fn home_assistant_knows_every_key(house: &House) {
    let bot = house.bot();
    // A listener that comes later gets it, because it is retained.
    let ears = bot.listen(&["homeassistant/#"]);
    let topic = "homeassistant/device/jukebox_lobby/config";
    // The first description had no playlists yet.
    let described = ears.wait("the description", |m| m.topic == topic && m.payload.contains("friday-night"));
    assert!(described.retained);
    let all = described.json();
    let keys = |v: &Value| set(v.as_object().unwrap().keys().cloned());
    assert!(keys(&all).is_subset(&set(SHARED)), "{:?}", keys(&all));
    assert!(keys(&all["device"]).is_subset(&set(DEVICE)) && keys(&all["origin"]).is_subset(&set(ORIGIN)));
    assert_eq!(all["origin"]["name"], "jukebox", "required");
    let mut platforms = BTreeSet::new();
    for (id, part) in all["components"].as_object().unwrap() {
        let platform = part["platform"].as_str().unwrap();
        let (_, must, may) = PLATFORMS.iter().find(|p| p.0 == platform).unwrap_or_else(|| panic!("{platform}"));
        let known = set(ENTITY.iter().chain(*must).chain(*may).copied());
        assert!(keys(part).is_subset(&known), "{id}: {:?}", keys(part).difference(&known));
        assert!(set(must.iter().copied()).is_subset(&keys(part)), "{id} must have {must:?}");
        assert_eq!(part["unique_id"], format!("jukebox_lobby_{id}"));
        platforms.insert(platform.to_owned());
        // What it is to do is something that the player understands; what it is to hear is something that is said.
        if let Some(command) = part["command_topic"].as_str() {
            let verb = command.strip_prefix("jukebox/1/hq/lobby/command/").unwrap();
            assert!(Verb::parse(verb).is_some(), "{verb}");
        }
        if let Some(state) = part["state_topic"].as_str().filter(|s| !s.ends_with("/event/button")) {
            bot.listen(&[state]).wait("what the sensor hears", |m| m.topic == state);
        }
    }
    assert_eq!(platforms, set(PLATFORMS.map(|p| p.0)));
    assert_eq!(all["components"]["playlist"]["options"], json!(["friday-night"]));
    // Where a Python with the package `homeassistant` is named, its own schemas have a look.
    if let Some(python) = std::env::var_os("JUKEBOX_HOMEASSISTANT") {
        let mut python = Command::new(python);
        let file = house.folder().join("discovery.json");
        rig::write(&file, &described.payload);
        python.arg(root().join("tests/discovery.py")).stdin(std::fs::File::open(&file).unwrap());
        eprintln!("{}", rig::run(&mut python));
    }
    // What a button says is understood.
    let press = all["components"]["previous"]["payload_press"].as_str().unwrap();
    assert_eq!(house.ask("previous", press)["status"], "ok");
    // Home Assistant starts: it is told again.
    let mark = ears.mark();
    bot.publish("homeassistant/status", "online", &[]);
    ears.wait_from(mark, SOON, "the description again", |m| m.topic == topic);
}
