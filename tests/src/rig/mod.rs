//! Starts real parts for tests: broker, web server, office, player; makes music; measures recordings.
//!
//! Laws: nothing is mocked; every port is free when it is chosen; every file lies in a temporary folder; every process ends
//! with the value that holds it, by its id; nobody waits for time to pass, only for an event, with a deadline. Failures
//! panic with what was awaited and the last lines that the part said: the rig is for tests, where a panic is the report.

pub mod broker;
pub mod clock;
pub mod header;
pub mod house;
pub mod icecast;
pub mod mqtt;
pub mod music;
pub mod network;
pub mod notify;
pub mod office;
pub mod player;
pub mod process;
pub mod proxy;
pub mod recording;
pub mod studio;
pub mod tls;
pub mod web;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use process::Process;

/// How long a part may take for what is done at once on an idle machine: generous, because tests share their cores.
pub const SOON: Duration = Duration::from_secs(20);

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A folder of its own for one test; gone when the value goes.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("jukebox-rig-").tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"))
}

/// A TCP port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("no free port: {e}"));
    listener.local_addr().map(|a| a.port()).unwrap_or_else(|e| panic!("no free port: {e}"))
}

/// The machine's own addresses that servers listen on: 127.0.0.1, ::1 where there is IPv6, and [`network::OFFICE`] where that
/// is there.
pub fn loopbacks() -> impl Iterator<Item = IpAddr> {
    let all = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::from(network::OFFICE)];
    all.into_iter().filter(|ip| TcpListener::bind((*ip, 0)).is_ok())
}

/// Path of a built program of this workspace (`jukebox` or `jukebox-office`), built first where it is not up to date.
///
/// Built once a process, with the profile of the running test and with the features of the whole workspace, so that it is
/// the program that `cargo test --workspace` has built already.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let own = std::env::current_exe().unwrap_or_else(|e| panic!("no path of the test itself: {e}"));
        // target/<profile>/deps/<test> or target/<profile>/<figures>
        let of_profile = own.parent().map(|p| if p.ends_with("deps") { p.parent().unwrap_or(p) } else { p });
        let of_profile = of_profile.unwrap_or_else(|| panic!("{} lies nowhere", own.display())).to_owned();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--workspace", "--bins", "--locked", "--quiet"]).current_dir(root());
        if of_profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.status().unwrap_or_else(|e| panic!("cargo: {e}"));
        assert!(status.success(), "the programs do not build");
        of_profile
    });
    folder.join(name)
}

/// Calls `look` until it sees something, for what cannot tell by itself that it happened (a port that opens, a file that grows).
///
/// # Panics
/// When `limit` is over, with `what`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a tool to its end and returns what it printed.
///
/// # Panics
/// When it is missing or fails, with what it said.
pub fn run(command: &mut Command) -> String {
    let name = command.get_program().to_owned();
    let out = command.output().unwrap_or_else(|e| panic!("{}: {e}", name.display()));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {}\n{said}", out.status);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Writes a file of the rig.
///
/// # Panics
/// When the disk does not take it.
pub fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
