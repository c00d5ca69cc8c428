//! What Home Assistant is told about the player: one message that describes the whole device (MQTT device discovery,
//! <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>). All topics in it are those of the contract.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use crate::exchange::{SavedList, Settings};

/// Home Assistant's own topics begin with this.
pub const PREFIX: &str = "homeassistant/";
/// Says `online` when Home Assistant has started and wants to be told again.
pub const STATUS: &str = "homeassistant/status";

/// Where the description of a player lies, retained.
pub fn topic(player: &str) -> String {
    format!("{PREFIX}device/jukebox_{player}/config")
}

/// The description.
pub fn discovery(s: &Settings, playlists: &[SavedList]) -> String {
    let at = format!("jukebox/1/{}/{}", s.site, s.player);
    let device = format!("jukebox_{}", s.player);
    let say = |verb: &str| format!("{at}/command/{verb}");
    let hear = |what: &str| format!("{at}/{what}");
    let mut parts = Map::new();
    let mut part = |id: &str, platform: &str, name: &str, mut keys: Value| {
        keys["platform"] = platform.into();
        keys["unique_id"] = format!("{device}_{id}").into();
        keys["name"] = name.into();
        parts.insert(id.into(), keys);
    };
    for (verb, name, icon) in [
        ("play", "Play", "mdi:play"),
        ("pause", "Pause", "mdi:pause"),
        ("stop", "Stop", "mdi:stop"),
        ("skip", "Next", "mdi:skip-next"),
        ("previous", "Previous", "mdi:skip-previous"),
        ("clear", "Clear queue", "mdi:playlist-remove"),
    ] {
        let keys = json!({"command_topic": say(verb), "payload_press": r#"{"by":"home-assistant"}"#, "icon": icon});
        part(verb, "button", name, keys);
    }
    let volume = json!({
        "command_topic": say("volume"), "state_topic": hear("volume"), "min": 0, "max": s.volume_max, "step": 1,
        "unit_of_measurement": "%", "icon": "mdi:volume-high",
    });
    part("volume", "number", "Volume", volume);
    let mute = json!({
        "command_topic": say("mute"), "state_topic": hear("mute"), "payload_on": "true", "payload_off": "false",
        "icon": "mdi:volume-off",
    });
    part("mute", "switch", "Mute", mute);
    // What people type must not become JSON of the contract, nor a name with a quotation mark break it.
    let field = |name: &str| format!(r#"{{{{ {{"{name}": value, "by": "home-assistant"}} | tojson }}}}"#);
    let options: Vec<_> = playlists.iter().map(|p| p.id.as_str()).collect();
    if !options.is_empty() {
        let keys = json!({
            "command_topic": say("playlist"), "command_template": field("name"), "options": options,
            "icon": "mdi:playlist-music",
        });
        part("playlist", "select", "Add playlist", keys);
    }
    let add = json!({
        "command_topic": say("add"), "command_template": field("text"), "min": 1, "max": 255, "icon": "mdi:music-note-plus",
    });
    part("add", "text", "Add", add);
    let now = |template: &str| json!({"state_topic": hear("now"), "value_template": template});
    let mut state = now("{{ value_json.state }}");
    state["device_class"] = "enum".into();
    state["options"] = json!(["stopped", "buffering", "playing", "paused", "no_output"]);
    part("state", "sensor", "State", state);
    part("title", "sensor", "Title", now("{{ (value_json.track or {}).title | default('', true) }}"));
    part("artist", "sensor", "Artist", now("{{ (value_json.track or {}).artist | default('', true) }}"));
    part("reason", "sensor", "Why it waits", now("{{ (value_json.reason or {}).text | default('', true) }}"));
    let queued = json!({
        "state_topic": hear("queue"), "value_template": "{{ value_json.total }}", "state_class": "measurement",
        "icon": "mdi:playlist-play",
    });
    part("queued", "sensor", "Queued", queued);
    let on_board = json!({
        "state_topic": hear("health"), "value_template": "{{ value_json.on_board_queue_s }}", "device_class": "duration",
        "unit_of_measurement": "s", "state_class": "measurement", "entity_category": "diagnostic",
    });
    part("on_board", "sensor", "On board", on_board);
    let link = json!({
        "state_topic": hear("health"), "value_template": "{{ value_json.link }}", "device_class": "enum",
        "options": ["down", "poor", "fair", "good"], "entity_category": "diagnostic",
    });
    part("link", "sensor", "Link", link);
    let silence_s = json!({
        "state_topic": hear("health"), "value_template": "{{ value_json.unplanned_silence_s.today }}",
        "device_class": "duration", "unit_of_measurement": "s", "entity_category": "diagnostic",
    });
    part("silence_today", "sensor", "Silence today", silence_s);
    let mut silence = now("{{ 'ON' if value_json.state in ('buffering', 'no_output') else 'OFF' }}");
    silence["device_class"] = "problem".into();
    part("silence", "binary_sensor", "Silence", silence);
    let keys = ["play", "next", "previous", "volume_down", "volume_up", "knob"];
    let mut kinds: Vec<_> =
        keys.iter().flat_map(|k| ["press", "long", "stuck"].map(|gesture| format!("{k}_{gesture}"))).collect();
    kinds.push("turn_turn".into());
    let button = json!({
        "state_topic": hear("event/button"), "device_class": "button", "event_types": kinds,
        "value_template": r#"{{ {"event_type": value_json.name ~ "_" ~ value_json.gesture} | tojson }}"#,
    });
    part("button", "event", "Button", button);
    let mut about = json!({
        "identifiers": [device], "name": s.name, "manufacturer": "Jukebox", "model": s.model, "sw_version": s.version,
    });
    if !s.serial.is_empty() {
        about["serial_number"] = s.serial.as_str().into();
    }
    let origin = json!({"name": "jukebox", "sw_version": s.version});
    let all = json!({
        "device": about, "origin": origin, "availability_topic": hear("availability"), "qos": 1, "components": parts,
    });
    crate::wire::json(&all)
}
