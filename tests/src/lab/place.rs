//! A place of its own on the network: a namespace of Linux with nothing but its loopback, and its own name server.
//!
//! A shell that sleeps holds it; when that ends, so does the place. `nsenter` starts programs in it.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::rig::{Process, write};

/// A network and mount namespace.
pub struct Place {
    holder: Process,
}

impl Place {
    /// Makes one whose programs ask `names` for names; its files lie in `folder`.
    ///
    /// # Panics
    /// When the system does not allow it: see [`not_here`].
    pub fn new(folder: &Path, names: &str) -> Self {
        let resolv = folder.join("resolv.conf");
        write(&resolv, format!("nameserver {names}\n"));
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/resolv.conf && ip link set lo up && echo ready && exec sleep 100000");
        let holder = Process::start("place", command.arg(resolv));
        holder.line("ready");
        Self { holder }
    }

    /// A command that runs in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string(), "--"]).arg(program);
        command
    }

    /// Runs `ip ARGS` in it.
    ///
    /// # Errors
    /// What it said.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        let out = self.command("ip").args(args).output().context("nsenter")?;
        ensure!(out.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
        Ok(())
    }

    /// Calls `f` in its network: sockets that it opens stay there, wherever they are used.
    ///
    /// # Errors
    /// When there is no such place any more.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(format!("/proc/{}/ns/net", self.holder.id())).context("the place is gone")?;
        let enter = || -> Result<T> {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        };
        // A thread of its own: it never comes back from there.
        std::thread::scope(|s| s.spawn(enter).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Why there can be no bench on this machine; none: there can.
pub fn not_here() -> Option<String> {
    let tools = [
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("ip", "iproute2"),
        ("nginx", "nginx"),
        ("mosquitto", "mosquitto"),
        ("ffmpeg", "ffmpeg"),
        ("gcc", "gcc"),
    ];
    for (tool, package) in tools {
        if !found(tool) {
            return Some(format!("no {tool}: apt-get install {package}"));
        }
    }
    let mut trial = Command::new("unshare");
    trial.args(["--net", "--mount", "ip", "tuntap", "add", "dev", "lab0", "mode", "tun"]);
    match trial.output() {
        Ok(out) if out.status.success() => None,
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr).trim().replace('\n', "; ");
            Some(format!(
                "no network namespaces or no /dev/net/tun for this user ({said}): run it as root, or under `unshare --map-root-user`"
            ))
        }
        Err(e) => Some(format!("unshare: {e}")),
    }
}

/// Whether there is such a program.
pub fn found(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(tool).is_file())
}

/// A name server: every name is at one address.
pub struct Names {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// Answers at `address`, which must be one of the place's.
    ///
    /// # Errors
    /// When it cannot.
    pub fn start(place: &Place, address: Ipv4Addr) -> Result<Self> {
        let socket = place.inside(|| UdpSocket::bind((address, 53)))?.context("a name server")?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).context("a name server")?;
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, who)) = socket.recv_from(&mut question) else { continue };
                if let Some(answer) = answer(&question[..length], address) {
                    // Who asked may be gone: its affair.
                    let _ = socket.send_to(&answer, who);
                }
            }
        });
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a question (RFC 1035): one address for an A, nothing for other types.
fn answer(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let mut at = 12;
    while *question.get(at)? != 0 {
        at += usize::from(question[at]) + 1;
    }
    let asked = question.get(12..at + 5)?;
    let is_a = asked[asked.len() - 4..] == [0, 1, 0, 1];
    let mut answer = question[..2].to_vec();
    answer.extend([0x85, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(asked);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
