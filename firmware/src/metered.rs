//! Which interfaces cost by the byte, and what they have carried: the configuration says it, and NetworkManager where it is.
//!
//! NetworkManager is asked by its own `nmcli`, now and again: a D-Bus library would stay in the memory of a player that needs one
//! word of it every five minutes.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jukebox_core::budget::Carried;

use crate::config::Office;

/// What the interfaces of the player's own network have carried.
const COUNTS: &str = "/proc/self/net/dev";
/// NetworkManager is asked so often.
const ASK_EVERY: Duration = Duration::from_secs(300);

/// The metered interfaces.
pub struct Metered {
    /// Those of the configuration, with their budgets in MB.
    configured: BTreeMap<String, Option<u32>>,
    /// Those that NetworkManager says are metered, or seem to be.
    told: Vec<String>,
    asked: Option<Instant>,
}

impl Metered {
    /// As the configuration has them.
    pub fn new(office: &Office) -> Self {
        let mut configured: BTreeMap<String, Option<u32>> = office.metered.iter().map(|i| (i.clone(), None)).collect();
        configured.extend(office.budget_mb.iter().map(|(i, mb)| (i.clone(), Some(*mb))));
        Self { configured, told: Vec::new(), asked: None }
    }

    /// Asks NetworkManager again, if it is time. `nmcli` runs on a thread of its own.
    pub async fn ask(&mut self) {
        if self.asked.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            return;
        }
        self.asked = Some(Instant::now());
        // Not there, or not running: the configuration alone counts.
        self.told = tokio::task::spawn_blocking(network_manager).await.ok().flatten().unwrap_or_default();
    }

    /// Whether an interface is metered.
    pub fn has(&self, interface: &str) -> bool {
        self.configured.contains_key(interface) || self.told.iter().any(|t| t == interface)
    }

    /// What each of them that is there has carried.
    pub fn carried(&self) -> Vec<Carried> {
        let told = self.told.iter().filter(|t| !self.configured.contains_key(*t)).map(|t| (t, None));
        let all = self.configured.iter().map(|(name, mb)| (name, *mb)).chain(told);
        let text = fs::read_to_string(COUNTS).unwrap_or_default();
        let counted = |(name, budget_mb): (&String, Option<u32>)| {
            Some(Carried { interface: name.clone(), bytes: bytes(&text, name)?, budget_mb })
        };
        all.filter_map(counted).collect()
    }
}

/// Bytes in both directions (proc(5): the first and the ninth number); none where the interface is not there.
fn bytes(counts: &str, interface: &str) -> Option<u64> {
    let mut lines = counts.lines().filter_map(|l| l.split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| name.trim() == interface)?;
    let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    Some(numbers.first()? + numbers.get(8)?)
}

fn network_manager() -> Option<Vec<String>> {
    let mut nmcli = Command::new("nmcli");
    nmcli.args(["--get-values", "GENERAL.DEVICE,GENERAL.METERED", "device", "show"]);
    let out = nmcli.env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    out.status.success().then(|| metered(&String::from_utf8_lossy(&out.stdout)))
}

/// The metered devices in what `nmcli` prints: a name and a word a line each (`yes`, `no`, `yes (guessed)`, `no (guessed)`,
/// `unknown`), and an empty line behind each device.
fn metered(text: &str) -> Vec<String> {
    let devices = text.split("\n\n").filter_map(|d| d.trim().split_once('\n'));
    devices.filter(|(_, word)| word.starts_with("yes")).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_manager_is_understood() {
        let said = "wlan0\nno (guessed)\n\nwwan0\nyes\n\nusb0\nyes (guessed)\n\nlo\nunknown\n\n";
        assert_eq!(metered(said), ["wwan0", "usb0"]);
        assert_eq!(metered(""), [""; 0]);
    }

    #[test]
    fn an_interface_counts_where_it_is_there() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs drop\n    \
                    lo: 1000 2 0 0 0 0 0 0 30 4 0 0 0 0 0 0\n wwan0:70000000000 9 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n";
        let counts = ["lo", "wwan0", "wwan", "eth0"].map(|name| bytes(text, name));
        assert_eq!(counts, [Some(1_030), Some(70_000_000_005), None, None]);
        assert!(bytes(&fs::read_to_string(COUNTS).unwrap(), "lo").is_some());
    }
}
