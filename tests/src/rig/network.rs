//! Networks of a test's own: the office in one namespace, the player in another, and cables between them.
//!
//! The test or figure runs again inside ([`enclosed`], [`enclose`]), as root of namespaces that end with it: nothing of the machine is touched. Where
//! the machine does not allow that, a line `NOT HERE` says so, and `tests/run` counts it.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::{SOON, run, until};

/// The office's address, on every cable (a net for documentation, RFC 5737).
pub const OFFICE: [u8; 4] = [192, 0, 2, 1];
/// What the player calls it, and its `/etc/hosts`: the certificate of the rig is for this name too.
pub const NAME: &str = "office.rig";
/// A player's `/etc/hosts` that knows that name.
pub const HOSTS: &str = "192.0.2.1 office.rig\n";

/// Tells a program that it runs inside.
const INSIDE: &str = "JUKEBOX_RIG_INSIDE";

/// Where the caller runs.
pub enum Enclosure {
    /// In networks of its own: it may go on.
    Inside,
    /// It was run inside, and has come to its end.
    Over(ExitStatus),
    /// The machine does not allow it; why.
    NotHere(String),
}

/// Runs this program again with `args`, as root of namespaces that end with it, unless that is what it runs in.
///
/// # Panics
/// When it cannot be started.
pub fn enclose(args: &[&str]) -> Enclosure {
    if std::env::var_os(INSIDE).is_some() {
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        return Enclosure::Inside;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "--kill-child"]);
        command
    };
    let tried =
        unshare().args(["ip", "link", "add", "name", "office0", "type", "veth", "peer", "name", "player0"]).output();
    match tried {
        Ok(out) if out.status.success() => {}
        Ok(out) => return Enclosure::NotHere(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
        Err(e) => return Enclosure::NotHere(e.to_string()),
    }
    // Built out here, where there is a network.
    super::program("jukebox");
    let own = std::env::current_exe().unwrap_or_else(|e| panic!("no path of the program itself: {e}"));
    let status = unshare().arg(own).args(args).env(INSIDE, "1").status();
    Enclosure::Over(status.unwrap_or_else(|e| panic!("unshare: {e}")))
}

/// Whether the calling test, `name` with its modules, is inside and may go on. Outside it is run inside, and this returns when
/// it has passed.
///
/// # Panics
/// When it has not passed.
pub fn enclosed(name: &str) -> bool {
    match enclose(&["--exact", name, "--nocapture"]) {
        Enclosure::Inside => return true,
        Enclosure::Over(status) => assert!(status.success(), "{name} has failed inside"),
        Enclosure::NotHere(why) => {
            // Past the harness, which keeps what a passing test prints.
            let _ = writeln!(std::io::stderr(), "NOT HERE: {name}: no network of its own on this machine: {why}");
        }
    }
    false
}

/// The player's namespace, and its end of the cables.
pub struct Network {
    /// Holds the namespace open.
    keeper: Child,
}

/// A cable between office and player: `office0` to `player0`, and so on.
#[derive(Clone, Copy, Debug)]
pub struct Cable(u8);

impl Network {
    /// A player's namespace without any cable.
    ///
    /// # Panics
    /// When the machine does not allow it.
    pub fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let keeper = command.spawn().unwrap_or_else(|e| panic!("unshare: {e}"));
        let network = Self { keeper };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
        until("the player's network is there", SOON, || {
            std::fs::read_link(network.path()).ok().filter(|ns| *ns != own).map(drop)
        });
        network.inside(&["ip", "link", "set", "lo", "up"]);
        network
    }

    /// A cable that is plugged in: 192.0.2.0/24 is the first one's net, 198.51.100.0/24 the second's, through which the office
    /// is reached under its one address too.
    pub fn cable(&self, number: u8) -> Cable {
        let cable = Cable(number);
        let (here, there) = (cable.office(), cable.player());
        ip(&["link", "add", "name", &here, "type", "veth", "peer", "name", &there, "netns", &self.id()]);
        let net = ["192.0.2", "198.51.100"][usize::from(number)];
        ip(&["address", "add", &format!("{net}.1/24"), "dev", &here]);
        ip(&["link", "set", &here, "up"]);
        self.inside(&["ip", "address", "add", &format!("{net}.2/24"), "dev", &there]);
        self.plug(cable);
        cable
    }

    /// Sets the player's end up.
    pub fn plug(&self, cable: Cable) {
        self.inside(&["ip", "link", "set", &cable.player(), "up"]);
        if cable.0 > 0 {
            self.inside(&["ip", "route", "replace", "192.0.2.1/32", "dev", &cable.player(), "metric", "200"]);
        }
    }

    /// Sets the player's end down: the kernel there knows.
    pub fn unplug(&self, cable: Cable) {
        self.inside(&["ip", "link", "set", &cable.player(), "down"]);
    }

    /// Makes a black hole: what the office sends to the player's first address is lost, and nobody is told.
    pub fn swallow(&self) {
        ip(&["route", "add", "blackhole", "192.0.2.2/32"]);
    }

    /// Ends it.
    pub fn pass(&self) {
        ip(&["route", "delete", "blackhole", "192.0.2.2/32"]);
    }

    /// Bytes that the office has sent over a cable.
    pub fn sent(&self, cable: Cable) -> u64 {
        let text = run(Command::new("ip").args(["-json", "-statistics", "link", "show", &cable.office()]));
        let shown: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        shown[0]["stats64"]["tx"]["bytes"].as_u64().unwrap_or_else(|| panic!("no count of bytes: {text}"))
    }

    /// The namespace's file, for `nsenter`.
    pub fn path(&self) -> std::path::PathBuf {
        Path::new("/proc").join(self.id()).join("ns/net")
    }

    fn id(&self) -> String {
        self.keeper.id().to_string()
    }

    fn inside(&self, command: &[&str]) {
        run(Command::new("nsenter").arg(format!("--net={}", self.path().display())).args(command));
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

impl Cable {
    /// The player's end.
    pub fn player(self) -> String {
        format!("player{}", self.0)
    }

    fn office(self) -> String {
        format!("office{}", self.0)
    }
}

fn ip(args: &[&str]) {
    run(Command::new("ip").args(args));
}
