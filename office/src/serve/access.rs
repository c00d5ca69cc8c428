//! Who may say and hear what at the broker: rules for mosquitto's dynamic security plugin.
//!
//! The plugin, and not a password file with an access list, because it binds a user to its client id: with the latter a
//! player could log in with another's client id, throw it out and take over its session. It also says honestly that a
//! subscription was denied, and it changes while the broker runs. Each player has a role of its own, `player-NAME`.
//!
//! Law: roles are made anew from this file at every start of the broker; the plugin's file keeps the players' passwords.

use std::num::NonZeroU32;

use aws_lc_rs::{pbkdf2, rand};
use data_encoding::BASE64;
use jukebox_core::homeassistant;
use serde_json::{Value, json};

use super::state::{Player, StateError};

/// Topic at which the plugin takes commands.
pub const CONTROL: &str = "$CONTROL/dynamic-security/v1";
/// Rounds of PBKDF2: the plugin's own number. Our passwords have 160 random bits, more rounds would buy nothing.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(100);

/// The user that bots and people share: commands to every player, and all that players say.
pub const BOT: &str = "bot";
/// The office's own user: everything, and the rules themselves.
pub const OFFICE: &str = "office";

fn rule(kind: &str, topic: &str) -> Value {
    json!({ "acltype": kind, "topic": topic, "priority": 0, "allow": true })
}

fn role(name: &str, write: &[&str], read: &[&str]) -> Value {
    let write = write.iter().map(|topic| rule("publishClientSend", topic));
    // Subscribing is not enough: what is delivered is checked again, and topics with `$` are denied unless named.
    let read = read.iter().flat_map(|topic| [rule("subscribePattern", topic), rule("publishClientReceive", topic)]);
    json!({ "rolename": name, "acls": write.chain(read).collect::<Vec<_>>() })
}

/// What a player may do: all below its own name, hear what is said to all of its site, answer on the site's reply topics,
/// and describe itself to Home Assistant.
fn role_of_player(player: &Player) -> Value {
    let Player { name, site, .. } = player;
    let own = format!("jukebox/1/+/{name}/#");
    let (all, reply) = (format!("jukebox/1/{site}/all/command/#"), format!("jukebox/1/{site}/reply/#"));
    let described = homeassistant::topic(name);
    role(&format!("player-{name}"), &[&own, &reply, &described], &[&own, &all, homeassistant::STATUS])
}

fn role_of_bot() -> Value {
    role(BOT, &["jukebox/1/+/+/command/#"], &["jukebox/1/#"])
}

fn role_of_office() -> Value {
    let all = ["jukebox/#", "homeassistant/#", "$CONTROL/dynamic-security/#"];
    role(OFFICE, &all, &["jukebox/#", "homeassistant/#", "$CONTROL/dynamic-security/#", "$SYS/#"])
}

/// A user as the plugin's file has it.
fn client(user: &str, password: &str, client_id: Option<&str>, role: &str) -> Result<Value, StateError> {
    let (mut salt, mut hash) = ([0; 12], [0; 64]);
    rand::fill(&mut salt).map_err(|_| StateError::Random)?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ROUNDS, &salt, password.as_bytes(), &mut hash);
    let mut client = json!({
        "username": user,
        "password": BASE64.encode(&hash),
        "salt": BASE64.encode(&salt),
        "iterations": ROUNDS,
        "roles": [{ "rolename": role }],
    });
    if let Some(id) = client_id {
        client["clientid"] = id.into();
    }
    Ok(client)
}

/// The plugin's file for these players, with their passwords out of `old`; a player that is not in `old` cannot log in yet.
///
/// # Errors
/// [`StateError::Random`].
pub fn rules(old: &Value, players: &[Player], bot: &str, office: &str) -> Result<Value, StateError> {
    let known = |name: &str| {
        let clients = old["clients"].as_array()?;
        clients.iter().find(|c| c["username"] == name).cloned()
    };
    let mut clients = vec![client(OFFICE, office, None, OFFICE)?, client(BOT, bot, None, BOT)?];
    clients.extend(players.iter().filter_map(|p| known(&p.name)));
    let mut roles = vec![role_of_office(), role_of_bot()];
    roles.extend(players.iter().map(role_of_player));
    Ok(json!({
        "defaultACLAccess": {
            "publishClientSend": false, "publishClientReceive": false, "subscribe": false, "unsubscribe": true,
        },
        "clients": clients,
        "groups": [],
        "roles": roles,
    }))
}

/// Puts a player's password into the plugin's file, for a broker that does not run.
///
/// # Errors
/// [`StateError::Random`].
pub fn admit(rules: &mut Value, player: &Player, password: &str) -> Result<(), StateError> {
    let name = player.name.as_str();
    let fresh = client(name, password, Some(name), &format!("player-{name}"))?;
    if let Some(clients) = rules["clients"].as_array_mut() {
        clients.retain(|c| c["username"] != name);
        clients.push(fresh);
    }
    Ok(())
}

/// The same for a broker that runs: commands for [`CONTROL`]. What was there under this name goes first, and is thrown out.
pub fn commands_to_admit(player: &Player, password: &str) -> Value {
    let name = player.name.as_str();
    let mut commands = commands_to_dismiss(name);
    let role = role_of_player(player);
    let create = json!({ "command": "createRole", "rolename": role["rolename"] });
    let rules = role["acls"].as_array().into_iter().flatten().cloned().map(|mut rule| {
        rule["command"] = "addRoleACL".into();
        rule["rolename"] = role["rolename"].clone();
        rule
    });
    let client = json!({
        "command": "createClient", "username": name, "password": password, "clientid": name,
        "roles": [{ "rolename": format!("player-{name}") }],
    });
    if let Some(list) = commands["commands"].as_array_mut() {
        list.push(create);
        list.extend(rules);
        list.push(client);
    }
    commands
}

/// Commands for [`CONTROL`] that take a player's access away.
pub fn commands_to_dismiss(name: &str) -> Value {
    json!({ "commands": [
        { "command": "deleteClient", "username": name },
        { "command": "deleteRole", "rolename": format!("player-{name}") },
    ]})
}

/// What the plugin refused in its answer to such commands; that there was nothing to delete is no refusal.
pub fn refusal(answer: &Value) -> Option<String> {
    let responses = answer["responses"].as_array()?;
    responses.iter().find_map(|r| {
        let error = r["error"].as_str()?;
        let deleting = r["command"].as_str().is_some_and(|c| c.starts_with("delete"));
        (!(deleting && error.ends_with("not found"))).then(|| format!("{}: {error}", r["command"]))
    })
}
