//! The other end of the link: name, way, certificate, library and broker, each with the reason of the one table.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jukebox_core::library::{FormatError, Root};
use jukebox_core::reason::{Reason, Who};
use serde_json::Value;

use super::Finding;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::dial::Dialer;
use crate::fetch::{Fault, Fetcher, RootAnswer, TlsFault};
use crate::mqtt;
use crate::store::{Limits, Objects};

/// For each origin, and for the broker.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is said of origins, library and broker, and the last date that a verified office gave. `status`: what a player that
/// runs says of itself; it is asked about the broker, for two of a name drive each other out.
pub(super) fn examine(config: &Config, status: Option<&Value>) -> (Vec<Finding>, Option<(String, Instant)>) {
    let mut found = Vec::new();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return (vec![Finding::missing("office", e.to_string(), "restart the machine")], None),
    };
    let scratch = match Scratch::new() {
        Ok(scratch) => scratch,
        Err(e) => {
            return (
                vec![Finding::missing("office", format!("no folder for a moment: {e}"), "make room in /tmp")],
                None,
            );
        }
    };
    let date = runtime.block_on(async {
        let mut date = None;
        for (n, origin) in config.office.origins.iter().enumerate() {
            date = origin_and_library(config, n, origin, &scratch, &mut found).await.or(date);
        }
        found.push(broker(config, status).await);
        date
    });
    runtime.shutdown_background();
    (found, date)
}

/// The time, if somebody keeps the system's clock right.
fn clock() -> Arc<Clock> {
    let clock = Clock::new(None);
    clock.look(None);
    clock
}

async fn origin_and_library(
    config: &Config,
    n: usize,
    origin: &str,
    scratch: &Scratch,
    found: &mut Vec<Finding>,
) -> Option<(String, Instant)> {
    let office = &config.office;
    let system = |e: String| Finding::missing("office", format!("{origin}: {e}"), "jukebox config check");
    let fetcher = (|| {
        let tls = config::tls_config(config, clock()).map_err(|e| e.line())?;
        let dialer = Dialer::new(office.proxy.clone()).by(&office.interfaces);
        let objects = Objects::open(&scratch.0, Limits { cap_bytes: 0, floor_bytes: 0 }).map_err(|e| e.to_string())?;
        let origins = [origin.to_owned()];
        Fetcher::new(&origins, dialer, tls.as_ref(), office.insecure, objects, |_| {}).map_err(|e| e.to_string())
    })();
    let fetcher = match fetcher {
        Ok(fetcher) => fetcher,
        Err(e) => {
            found.push(system(e));
            return None;
        }
    };
    match fetcher.root(None, PATIENCE).await {
        Ok(RootAnswer::Changed { bytes, .. }) => {
            let how =
                if origin.starts_with("https://") { "reached, its certificate is the office's" } else { "reached" };
            found.push(Finding::ok("office", format!("{origin}: {how}")));
            // The first one's counts.
            if n == 0 {
                found.push(library(&bytes));
            }
        }
        Ok(RootAnswer::Unchanged) => found.push(Finding::ok("office", format!("{origin}: reached"))),
        Err(fault) => {
            let text = format!("{origin}: {} ({fault})", fault.reason().text());
            found.push(Finding::missing("office", text, fix(fault)));
        }
    }
    fetcher.office_date()
}

fn library(bytes: &[u8]) -> Finding {
    match Root::parse(bytes) {
        Ok(root) => {
            let lists = root.playlists.len();
            let text =
                format!("format {}, revision {} of {}, {lists} playlists", root.format, root.revision, root.written);
            Finding::ok("library", text)
        }
        Err(e @ FormatError::Newer { .. }) => {
            Finding::missing("library", e.to_string(), "install the version of the player that belongs to the office's")
        }
        Err(e) => Finding::missing("library", format!("library.json: {e}"), "in the office: jukebox-office verify"),
    }
}

async fn broker(config: &Config, status: Option<&Value>) -> Finding {
    let Some(m) = &config.mqtt else { return Finding::ok("broker", "none: commands come over the socket only") };
    let up = || Finding::ok("broker", format!("{}: lets {} in", m.broker, m.user));
    let down = |why: &str, fix: &str| Finding::missing("broker", format!("{}: {why}", m.broker), fix);
    if let Some(link) = status.map(|s| &s["data"]["broker"]).filter(|l| l.is_object()) {
        let why = link["why"].as_str().unwrap_or("not connected");
        return if link["up"] == true {
            up()
        } else {
            down(why, "see the office lines; or: jukebox-office player add NAME --replace")
        };
    }
    let tls = config::tls_config(config, clock()).ok().flatten();
    let dialer = Dialer::new(config.office.proxy.clone()).by(&config.office.interfaces);
    let settings = mqtt::Settings::new(config, m, dialer, tls);
    match mqtt::login(&settings, PATIENCE).await {
        Ok(()) => up(),
        Err(mqtt::Down::Link(fault)) => down(&format!("{} ({fault})", fault.reason().text()), fix(fault)),
        Err(why @ mqtt::Down::Login) => {
            let fix = format!("in the office: jukebox-office player add {} --replace", config.office.player);
            down(&why.to_string(), &fix)
        }
        Err(why) => down(&why.to_string(), "see to the broker in the office"),
    }
}

/// What mends a fault of the link.
fn fix(fault: Fault) -> &'static str {
    match (fault, fault.reason()) {
        (Fault::Tls(TlsFault::Issuer), _) => {
            "`ca` is not the office's: jukebox-office player add NAME --replace writes the right one"
        }
        (Fault::Tls(TlsFault::Expired | TlsFault::NotYet), _) => {
            "is this machine's clock right? If so, the office's certificate is not: restart jukebox-office"
        }
        (Fault::Tls(TlsFault::Name), _) => {
            "write the name that the office's certificate is for into `origins` and `broker`"
        }
        (Fault::NotMounted, _) => "mount the folder",
        (Fault::NotFound, _) => "there is no library at this address: see `origins`, and jukebox-office publish",
        (_, Reason::Dns) => "is the name in `origins` right? Does `resolvectl query NAME` find it?",
        (_, Reason::NoRoute) => "plug the network in: `ip addr` and `ip route` show what there is",
        (_, reason) => match reason.who() {
            Who::Network => "the network between here and the office: firewall, VPN, login page",
            Who::Player => "see `proxy` in the configuration",
            Who::Office | Who::Time => "see to the office's end: systemctl status jukebox-office",
        },
    }
}

/// A folder that ends with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("jukebox-doctor-{}", std::process::id()));
        // One that lies there already is somebody else's, or left by a doctor that was killed.
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Not made at all is as good.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_read_or_told() {
        let text = |json: &str| library(json.as_bytes());
        assert!(text(r#"{"format":9}"#).fix.is_some_and(|f| f.contains("version of the player")));
        assert!(text("<html>").fix.is_some_and(|f| f.contains("verify")));
    }

    #[test]
    fn each_fault_of_tls_has_its_own_fix() {
        let tls = [TlsFault::Issuer, TlsFault::Expired, TlsFault::Name].map(|t| fix(Fault::Tls(t)));
        assert!(tls[0].contains("`ca`") && tls[1].contains("clock") && tls[2].contains("`origins`"));
        assert!(fix(Fault::Dns).contains("resolvectl") && fix(Fault::Timeout).contains("firewall"));
    }
}
