//! `jukebox doctor`: checks all that silently does not work, one line each, with the fix.
//!
//! It works with and without a running player, and changes nothing. As root it checks for the user `jukebox`, as anybody
//! else for that user.

mod machine;
mod office;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use jukebox_board::rt;
use jukebox_board::vitals::Vitals;
use jukebox_core::exchange::Throttle;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::{panel, socket};
use machine::Machine;

/// The part of a card's life that is used up from here on, in percent (the last step that an eMMC tells).
const WORN_PCT: u8 = 90;

/// What to look at.
#[derive(clap::Args, Debug, Clone)]
pub struct DoctorArgs {
    /// Configuration file.
    #[arg(long, env = "JUKEBOX_CONFIG", default_value = config::PATH, value_name = "FILE")]
    pub config: PathBuf,
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// The thing, in a word.
    what: &'static str,
    /// How it is.
    text: String,
    /// What mends it; none if it is well.
    fix: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, text: text.into(), fix: None }
    }

    fn missing(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, text: text.into(), fix: Some(fix.into()) }
    }

    fn lines(&self) -> String {
        let state = if self.fix.is_none() { "ok" } else { "missing" };
        let mut lines = format!("{state:<8} {:<13} {}\n", self.what, self.text);
        if let Some(fix) = &self.fix {
            lines.push_str(&format!("{:<22} fix: {fix}\n", ""));
        }
        lines
    }

    fn json(&self) -> Value {
        let state = if self.fix.is_none() { "ok" } else { "missing" };
        json!({"check": self.what, "state": state, "text": self.text, "fix": self.fix})
    }
}

/// Checks, prints, and says by the exit status whether all is well. `socket`: that of the player, where the configuration
/// does not name it.
pub fn doctor(args: &DoctorArgs, socket: &Path, json: bool) -> ExitCode {
    let findings = examine(&args.config, socket, &Machine::here());
    let well = findings.iter().all(|f| f.fix.is_none());
    if json {
        let checks: Vec<_> = findings.iter().map(Finding::json).collect();
        println!("{}", json!({"ok": well, "checks": checks}));
    } else {
        findings.iter().for_each(|f| print!("{}", f.lines()));
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn examine(path: &Path, socket: &Path, machine: &Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    let config = Config::load(path).and_then(|c| c.check_report().map(|_| c));
    let board = config.as_ref().map_or_else(|_| panel::legible(path), |c| c.board.clone());
    let profile = board.profile().ok().flatten();
    match &config {
        Ok(c) => {
            let office = &c.office;
            found.push(Finding::ok(
                "configuration",
                format!("{} at {}, {}", office.player, office.site, path.display()),
            ));
            if office.insecure {
                found.push(Finding::ok("configuration", "plain connections are allowed (`insecure = true`)"));
            }
            found.extend(machine.files(c));
        }
        Err(config::ConfigError::Missing(_)) => {
            let text = format!("{} is not there", path.display());
            found.push(Finding::missing("configuration", text, "sudo jukebox setup"));
        }
        Err(e) => found.push(Finding::missing("configuration", e.line(), "jukebox config check")),
    }
    let name = profile.as_ref().map_or("none; `[board] profile` names one", |p| p.about.as_str());
    found.push(Finding::ok("board", name));
    let outputs = config.as_ref().map(|c| c.output.clone()).unwrap_or_default().in_order(profile.as_ref());
    found.extend(machine.outputs(&outputs, profile.as_ref()));
    if board.panel == config::Panel::Board {
        found.extend(machine.panel(profile.as_ref()));
    }
    let pins = profile.as_ref().is_some_and(|p| !p.pins().is_empty());
    if pins && (board.buttons == config::Buttons::Board || board.panel == config::Panel::Board) {
        found.push(machine.gpio(board.gpiochip.as_deref()));
    }

    let unit = unit();
    let ask = |path: &Path| socket::ask(path, r#"{"verb":"status"}"#).ok();
    let at = config.as_ref().map_or(socket, |c| c.socket.path.as_path());
    let status: Option<Value> = ask(at).and_then(|line| serde_json::from_str(&line).ok());
    found.push(real_time(unit.as_ref(), rt::may_fifo()));

    let mut date = None;
    match &config {
        Ok(c) => {
            let (seen, told) = office::examine(c, status.as_ref());
            date = told;
            found.push(time(date));
            found.extend(seen);
            found.extend(machine.disk(&c.store));
        }
        Err(_) => {
            found.push(time(date));
            found.extend(machine.disk(&config::Store::default()));
        }
    }
    found.extend(power(&Vitals::look()));
    found.push(service(unit.as_ref(), status.as_ref()));
    found
}

fn time(office: Option<(String, std::time::Instant)>) -> Finding {
    let by_office = office.is_some();
    match Clock::new(None).look(office) {
        (_, true) if by_office => Finding::ok("clock", "known, by the office or the time service"),
        (_, true) => Finding::ok("clock", "known, by the time service"),
        (now, false) => Finding::missing(
            "clock",
            format!("nobody vouches for it; it says {now}"),
            "sudo timedatectl set-ntp true; or reach the office, whose time is taken then",
        ),
    }
}

fn real_time(unit: Option<&BTreeMap<String, String>>, allowed: bool) -> Finding {
    let limit = unit.and_then(|u| u.get("LimitRTPRIO")?.parse::<u32>().ok()).unwrap_or(0);
    if limit > 0 {
        Finding::ok("real time", format!("the service may use SCHED_FIFO up to {limit}"))
    } else if allowed {
        Finding::ok("real time", "SCHED_FIFO is allowed here")
    } else {
        let text = "SCHED_FIFO is not allowed: periods are 50 ms, not 20, and a busy machine may be heard";
        Finding::missing(
            "real time",
            text,
            "LimitRTPRIO=20 in [Service] of jukebox.service, as in systemd/jukebox.service",
        )
    }
}

fn power(vitals: &Vitals) -> Vec<Finding> {
    let mut found = Vec::new();
    let throttled = vitals.throttled.as_deref().unwrap_or_default();
    if throttled.contains(&Throttle::UnderVoltage) {
        let fix = "a power supply of the board's maker and a short cable; fewer USB devices";
        found.push(Finding::missing("power", "the supply is too weak just now", fix));
    }
    if throttled.iter().any(|t| *t != Throttle::UnderVoltage) {
        let at = vitals.cpu_c.map_or_else(String::new, |c| format!(" at {c} degrees"));
        found.push(Finding::missing(
            "heat",
            format!("the processor is slowed down{at}"),
            "air: a larger case, or a heat sink",
        ));
    }
    if found.is_empty() {
        found
            .push(Finding::ok("power", if vitals.throttled.is_some() { "enough" } else { "this board does not tell" }));
    }
    if let Some(pct) = vitals.card_worn_pct {
        let text = format!("{pct} % of its life are used");
        found.push(match pct {
            WORN_PCT.. => Finding::missing("card", text, "replace the card soon"),
            _ => Finding::ok("card", text),
        });
    }
    found
}

/// What systemd knows of the unit; none where there is no systemd, or no such unit.
fn unit() -> Option<BTreeMap<String, String>> {
    let keys = "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus,UnitFileState,NRestarts,LimitRTPRIO";
    let out = Command::new("systemctl").args(["show", "jukebox.service", keys]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok().filter(|_| out.status.success())?;
    let unit: BTreeMap<_, _> =
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    (unit.get("LoadState").map(String::as_str) == Some("loaded")).then_some(unit)
}

fn service(unit: Option<&BTreeMap<String, String>>, status: Option<&Value>) -> Finding {
    let of = |key: &str| unit.and_then(|u| u.get(key)).map_or("", String::as_str);
    let now = status.and_then(|s| s["data"]["text"].as_str());
    match (unit, of("ActiveState"), now) {
        (Some(_), "active" | "reloading", Some(now)) if of("UnitFileState") == "enabled" => {
            Finding::ok("service", format!("runs, {} restarts: {now}", of("NRestarts")))
        }
        (Some(_), "active" | "reloading", Some(_)) => {
            Finding::missing("service", "runs, but would not start at boot", "sudo systemctl enable jukebox")
        }
        (Some(_), "active" | "reloading", None) => {
            let fix = "sudo systemctl restart jukebox; are you in the group jukebox?";
            Finding::missing("service", "runs, but does not answer at its socket", fix)
        }
        (_, _, Some(now)) => Finding::ok("service", format!("runs, though not as a service: {now}")),
        (None, _, None) => {
            let fix = "install the unit (README, Install as a service), or: jukebox run";
            Finding::missing("service", "the player does not run", fix)
        }
        (Some(_), _, None) => {
            let text = format!(
                "the player does not run: {}, {}, exit status {}",
                of("SubState"),
                of("Result"),
                of("ExecMainStatus")
            );
            Finding::missing(
                "service",
                text,
                "sudo systemctl enable --now jukebox; why it ended: journalctl -u jukebox",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_service_is_well_only_if_it_runs_answers_and_comes_again() {
        let status = json!({"data": {"text": "Playing - A"}});
        let enabled = unit_of(&[("ActiveState", "active"), ("UnitFileState", "enabled"), ("NRestarts", "0")]);
        let disabled = unit_of(&[("ActiveState", "active"), ("UnitFileState", "disabled")]);
        let failed = unit_of(&[("ActiveState", "failed"), ("Result", "exit-code"), ("ExecMainStatus", "78")]);
        assert_eq!(service(Some(&enabled), Some(&status)), Finding::ok("service", "runs, 0 restarts: Playing - A"));
        assert!(service(Some(&disabled), Some(&status)).fix.is_some_and(|f| f.ends_with("enable jukebox")));
        assert!(service(Some(&enabled), None).text.contains("does not answer"));
        assert!(service(Some(&failed), None).text.contains("exit status 78"));
        assert_eq!(service(None, Some(&status)).fix, None);
        assert!(service(None, None).fix.is_some());
    }

    #[test]
    fn real_time_is_the_units_or_ours() {
        let unit = unit_of(&[("LimitRTPRIO", "20")]);
        assert_eq!(real_time(Some(&unit), false).fix, None);
        assert_eq!(real_time(None, true).fix, None);
        assert!(
            real_time(Some(&unit_of(&[("LimitRTPRIO", "0")])), false).fix.is_some_and(|f| f.contains("LimitRTPRIO=20"))
        );
    }

    #[test]
    fn a_weak_supply_heat_and_a_worn_card_are_told() {
        let whats = |v: &Vitals| power(v).into_iter().filter(|f| f.fix.is_some()).map(|f| f.what).collect::<Vec<_>>();
        assert!(whats(&Vitals::default()).is_empty());
        let all = vec![Throttle::UnderVoltage, Throttle::Hot];
        let ill = Vitals { cpu_c: Some(84), throttled: Some(all), card_worn_pct: Some(90) };
        assert_eq!(whats(&ill), ["power", "heat", "card"]);
        assert_eq!(power(&Vitals { throttled: Some(Vec::new()), ..Vitals::default() })[0].text, "enough");
    }

    #[test]
    fn without_a_configuration_the_rest_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none");
        let found = examine(&none, &none, &Machine::below(folder.path(), machine::Account::stranger()));
        let of = |what: &str| found.iter().find(|f| f.what == what).unwrap_or_else(|| panic!("{what}: {found:?}"));
        assert_eq!(of("configuration").fix.as_deref(), Some("sudo jukebox setup"));
        assert!(of("output").fix.is_some() && of("disk").what == "disk" && of("service").what == "service");
        let text = of("configuration").lines();
        assert!(
            text.starts_with("missing  configuration ") && text.contains("\n                       fix: sudo"),
            "{text}"
        );
        assert_eq!(of("configuration").json()["state"], "missing");
    }
}
