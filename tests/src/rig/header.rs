//! The 40-pin header of a Raspberry Pi, simulated by Linux itself (gpio-sim), for tests that press its buttons.
//!
//! The test runs again inside a kernel of its own ([`enclosed`]): user-mode Linux, an ordinary program, over this machine's files, which it
//! only reads. `tests/kernel` makes it, once. Where it is not there, a line `NOT HERE` says so, and `tests/run` counts it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{folder, program, root, run, write};

/// Tells a test that it runs inside, and where its files are.
const INSIDE: &str = "JUKEBOX_RIG_HEADER";
/// Longer than debouncing (15 ms), shorter than holding (600 ms).
const PRESS: Duration = Duration::from_millis(60);
/// Between two edges of an encoder that is turned slowly: the kernel looks at the level after the edge, and may be late.
const QUARTER: Duration = Duration::from_millis(30);

/// A folder with what `prepare` made in it, if the calling test, `name`, is inside and may go on. Outside it is run inside, and this
/// returns none when it has passed.
///
/// # Panics
/// When it has not passed.
pub fn enclosed(name: &str, prepare: impl Fn(&Path)) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let kernel = root().join("target/kernel/linux");
    if !kernel.exists() {
        // Past the harness, which keeps what a passing test prints.
        let _ = writeln!(std::io::stderr(), "NOT HERE: {name}: no {}: run tests/kernel", kernel.display());
        return None;
    }
    let folder = folder();
    let at = folder.path().display();
    prepare(folder.path());
    program("jukebox");
    let own = std::env::current_exe().unwrap_or_else(|e| panic!("no path of the test itself: {e}"));
    let init = folder.path().join("init");
    // Nothing can be built inside, and nothing needs to be.
    write(
        &init,
        format!(
            "#!/bin/sh\n\
             export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run CARGO=true {INSIDE}={at}\n\
             mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run\n\
             mount -t configfs configfs /sys/kernel/config\n\
             {} --exact {name} --nocapture && echo passed inside\n\
             echo o >/proc/sysrq-trigger\n\
             exec sleep 60\n",
            own.display()
        ),
    );
    run(Command::new("chmod").arg("+x").arg(&init));
    let mut linux = Command::new("timeout");
    linux.args(["--kill-after=5", "180"]).arg(&kernel).args(["mem=512M", "rootfstype=hostfs", "rootflags=/", "ro"]);
    linux.args(["con=null", "con0=null,fd:1", "quiet", "umid=rig"]);
    linux.arg(format!("uml_dir={at}/")).arg(format!("init={}", init.display())).env("HOME", folder.path());
    let out = linux.stdin(std::process::Stdio::null()).output().unwrap_or_else(|e| panic!("{}: {e}", kernel.display()));
    let said = String::from_utf8_lossy(&out.stdout);
    println!("{said}");
    assert!(said.contains("passed inside"), "{name} has failed inside");
    None
}

/// The header's chip, with these lines pulled up.
pub struct Header {
    lines: PathBuf,
}

impl Header {
    /// # Panics
    /// When the kernel does not simulate it.
    pub fn new(lines: &[u8]) -> Self {
        let chip = Path::new("/sys/kernel/config/gpio-sim/header");
        let bank = chip.join("bank");
        for n in lines {
            let line = bank.join(format!("line{n}"));
            std::fs::create_dir_all(&line).unwrap_or_else(|e| panic!("{}: {e}", line.display()));
        }
        write(&bank.join("num_lines"), "54");
        write(&bank.join("label"), "pinctrl-bcm2835");
        write(&chip.join("live"), "1");
        let named = |file: PathBuf| {
            let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            text.trim().to_owned()
        };
        let device = Path::new("/sys/devices/platform").join(named(chip.join("dev_name")));
        let header = Self { lines: device.join(named(bank.join("chip_name"))) };
        lines.iter().for_each(|n| header.set(*n, false));
        header
    }

    /// Makes the machine a Raspberry Pi 3 in the eyes of rppal: model and registers. The registers are a file; edges are the chip's.
    ///
    /// # Panics
    /// When the kernel is not the test's own.
    pub fn be_a_pi(&self) {
        write(Path::new("/run/cpuinfo"), "Revision\t: a02082\n");
        run(Command::new("mount").args(["--bind", "/run/cpuinfo", "/proc/cpuinfo"]));
        write(Path::new("/dev/gpiomem"), [0; 4096]);
    }

    fn set(&self, line: u8, low: bool) {
        write(&self.lines.join(format!("sim_gpio{line}/pull")), if low { "pull-down" } else { "pull-up" });
    }

    /// Presses the button on `line` once.
    ///
    /// # Panics
    /// When the line is none of those given.
    pub fn press(&self, line: u8) {
        self.set(line, true);
        std::thread::sleep(PRESS);
        self.set(line, false);
        // As a finger does: the next press is another one.
        std::thread::sleep(PRESS);
    }

    /// Turns the encoder on `contacts` by a detent, towards the first one.
    ///
    /// # Panics
    /// When a line is none of those given.
    pub fn turn(&self, contacts: [u8; 2]) {
        for low in [true, false] {
            for line in contacts {
                self.set(line, low);
                std::thread::sleep(QUARTER);
            }
        }
    }
}
