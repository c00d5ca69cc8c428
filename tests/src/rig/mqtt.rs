//! The contract by hand: `mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr`, as a person would type them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Process, SOON, root, run};

/// How somebody reaches the broker.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// The CA, if it speaks TLS.
    pub ca: Option<PathBuf>,
    /// Client id, where the broker binds it to the user; only one connection at a time has it.
    pub client: Option<String>,
}

impl Account {
    /// Publishes; `more` are further options (`-r`, `-q 1`, `-D PUBLISH ...`).
    ///
    /// # Panics
    /// When the broker does not take it.
    pub fn publish(&self, topic: &str, payload: &str, more: &[&str]) {
        run(self.tool("mosquitto_pub").args(["-q", "1", "-t", topic, "-m", payload]).args(more));
    }

    /// Asks `verb` of a player and returns its reply, by `mosquitto_rr`. An empty payload is sent as a null message.
    ///
    /// # Panics
    /// When no reply comes in [`SOON`], or it is not JSON.
    pub fn ask(&self, site: &str, player: &str, verb: &str, payload: &str) -> Value {
        let topic = format!("jukebox/1/{site}/{player}/command/{verb}");
        let back = format!("jukebox/1/{site}/reply/rig-{verb}-{:?}", std::thread::current().id());
        let back = back.replace(['(', ')'], "");
        let limit = SOON.as_secs().to_string();
        let mut tool = self.tool("mosquitto_rr");
        tool.args(["-q", "1", "-W", &limit, "-t", &topic, "-e", &back]);
        if payload.is_empty() {
            tool.arg("-n")
        } else {
            tool.args(["-m", payload])
        };
        let text = run(&mut tool);
        serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("reply to {verb}: {e}: {text}"))
    }

    /// Listens to `topics`; returns when the broker has confirmed it. Lines are `TOPIC RETAINED PAYLOAD`.
    pub fn listen(&self, topics: &[&str]) -> Listener {
        // Into a pipe it would print in blocks: `stdbuf` makes that lines.
        let mut tool = Command::new("stdbuf");
        self.address(tool.args(["-oL", "mosquitto_sub"]));
        // `-d` tells when the subscription stands; messages carry a mark that its other lines do not.
        tool.args(["-d", "-q", "1", "-F", "> %t %r %p"]);
        for topic in topics {
            tool.args(["-t", topic]);
        }
        let process = Process::start("mosquitto_sub", &mut tool);
        process.line("Subscribed (mid");
        Listener { process }
    }

    /// Runs the Python bot of `tests/bot.py` (paho) with `args`, and returns what it printed as JSON.
    ///
    /// # Panics
    /// When it fails.
    pub fn bot(&self, args: &[&str]) -> Value {
        // Debian's python3 has Debian's paho; another python of the PATH may not.
        let python = if PathBuf::from("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
        let mut bot = Command::new(python);
        bot.arg(root().join("tests/bot.py")).args(["--port", &self.port.to_string(), "--user", &self.user]);
        bot.env("JUKEBOX_PASSWORD", &self.password);
        if let Some(ca) = &self.ca {
            bot.arg("--ca").arg(ca);
        }
        let text = run(bot.args(args));
        serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("bot: {e}: {text}"))
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = Command::new(name);
        self.address(&mut tool);
        tool
    }

    fn address(&self, tool: &mut Command) {
        tool.args(["-V", "5", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-u", &self.user, "-P", &self.password]);
        if let Some(ca) = &self.ca {
            tool.arg("--cafile").arg(ca);
        }
        if let Some(client) = &self.client {
            tool.arg("-i").arg(client);
        }
    }
}

/// A `mosquitto_sub` that runs.
pub struct Listener {
    process: Process,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Whether it is an old one that the broker kept.
    pub retained: bool,
    /// Its payload.
    pub payload: String,
}

impl Message {
    /// The payload as JSON; a payload that is not JSON is a string.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|_| Value::String(self.payload.clone()))
    }
}

impl Listener {
    /// All messages so far.
    pub fn messages(&self) -> Vec<Message> {
        self.process.lines().iter().filter_map(|line| parse(line)).collect()
    }

    /// A place to wait [`from`](Self::wait_from): only what comes after it counts.
    pub fn mark(&self) -> usize {
        self.process.mark()
    }

    /// The first message that `fits`, of those that came or come within [`SOON`].
    ///
    /// # Panics
    /// When none comes; `what` names it.
    pub fn wait(&self, what: &str, fits: impl Fn(&Message) -> bool) -> Message {
        self.wait_from(0, SOON, what, fits)
    }

    /// The same from `mark` on and within `limit`.
    ///
    /// # Panics
    /// When none comes; `what` names it.
    pub fn wait_from(&self, mark: usize, limit: Duration, what: &str, fits: impl Fn(&Message) -> bool) -> Message {
        let line = self.process.line_from(mark, limit, what, |line| parse(line).is_some_and(|m| fits(&m)));
        parse(&line).unwrap_or_else(|| panic!("not a message: {line}"))
    }
}

fn parse(line: &str) -> Option<Message> {
    let mut parts = line.strip_prefix("> ")?.splitn(3, ' ');
    let (topic, retained) = (parts.next()?.to_owned(), parts.next()? == "1");
    Some(Message { topic, retained, payload: parts.next().unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::{broker::Broker, folder, tls::Ca};

    /// What a player would do, without one: the tools meet each other over TLS, and the rules keep a player to its topics.
    #[test]
    fn tools_and_rules_work_over_tls() {
        let folder = folder();
        let ca = Ca::new(folder.path());
        let mut broker = Broker::start(folder.path(), "hq", &["lobby"], Some(&ca));
        let bot = broker.account("bot");
        let ears = bot.listen(&["jukebox/1/#"]);
        bot.publish("jukebox/1/hq/lobby/volume", "35", &["-r"]);
        let heard = ears.wait("volume", |m| m.topic == "jukebox/1/hq/lobby/volume");
        assert_eq!((heard.retained, heard.json()), (false, Value::from(35)));

        let lobby = broker.account("lobby");
        lobby.publish("jukebox/1/hq/kitchen/volume", "99", &[]);
        lobby.publish("jukebox/1/hq/reply/me", "{\"status\":\"ok\"}", &[]);
        ears.wait("the reply", |m| m.topic == "jukebox/1/hq/reply/me");
        assert!(ears.messages().iter().all(|m| m.payload != "99"), "a player writes only below its own name");

        broker.stop();
        broker.start_again();
        let later = bot.listen(&["jukebox/1/hq/lobby/volume"]);
        assert!(later.wait("kept", |m| m.payload == "35").retained);
    }
}
