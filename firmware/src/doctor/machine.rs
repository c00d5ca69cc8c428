//! What the machine has and who may use it: sound cards, buses, GPIO, files, disk. Looks below a root, which a test makes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jukebox_board::profile::{Profile, Wiring};

use super::Finding;
use crate::config::{Config, Store};

/// Where a Raspberry Pi's firmware reads what hangs on it: Debian 12 and later, and before.
const CONFIG_TXT: [&str; 2] = ["boot/firmware/config.txt", "boot/config.txt"];
/// The user of the service.
const USER: &str = "jukebox";
const READ: u32 = 4;
const WRITE: u32 = 2;

/// Whose rights count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

impl Account {
    /// Whoever asks; where that is root, the user of the service.
    fn here() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let numbers = |key: &str| -> Vec<u32> {
            let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().filter_map(|w| w.parse().ok()).collect()
        };
        // Real, effective, saved, of files (proc(5)).
        let uid = numbers("Uid:").get(1).copied().unwrap_or(0);
        if uid == 0
            && let Some(service) = Self::named(Path::new("/"), USER)
        {
            return service;
        }
        let groups = [numbers("Gid:").get(1).copied().into_iter().collect(), numbers("Groups:")].concat();
        let name = passwd(Path::new("/"), |row| row[2] == uid.to_string())
            .map_or_else(|| uid.to_string(), |row| row[0].clone());
        Self { name, uid, groups }
    }

    fn named(root: &Path, name: &str) -> Option<Self> {
        let row = passwd(root, |row| row[0] == name)?;
        let mut groups = vec![row[3].parse().ok()?];
        let file = fs::read_to_string(root.join("etc/group")).unwrap_or_default();
        groups.extend(file.lines().filter_map(|l| {
            let row: Vec<&str> = l.split(':').collect();
            let member = row.get(3)?.split(',').any(|m| m == name);
            row.get(2)?.parse::<u32>().ok().filter(|_| member)
        }));
        Some(Self { name: name.into(), uid: row[2].parse().ok()?, groups })
    }

    /// Nobody whom a file belongs to.
    #[cfg(test)]
    pub(super) fn stranger() -> Self {
        Self { name: "stranger".into(), uid: u32::MAX - 7, groups: Vec::new() }
    }

    /// Whether the mode bits of `path` allow `want`; false where there is nothing. (Access lists are not looked at.)
    fn may(&self, path: &Path, want: u32) -> bool {
        let Ok(meta) = fs::metadata(path) else { return false };
        let mode = match () {
            () if self.uid == 0 => return true,
            () if meta.uid() == self.uid => meta.mode() >> 6,
            () if self.groups.contains(&meta.gid()) => meta.mode() >> 3,
            () => meta.mode(),
        };
        mode & want == want
    }
}

/// The row of /etc/passwd that fits: name, x, uid, gid, ...
fn passwd(root: &Path, fits: impl Fn(&[String]) -> bool) -> Option<Vec<String>> {
    let file = fs::read_to_string(root.join("etc/passwd")).ok()?;
    let mut rows = file.lines().map(|l| l.split(':').map(str::to_owned).collect::<Vec<_>>());
    rows.find(|row| row.len() > 3 && fits(row))
}

/// The machine.
pub(super) struct Machine {
    root: PathBuf,
    who: Account,
}

impl Machine {
    pub(super) fn here() -> Self {
        Self { root: "/".into(), who: Account::here() }
    }

    #[cfg(test)]
    pub(super) fn below(root: &Path, who: Account) -> Self {
        Self { root: root.into(), who }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Each output of the list: whether its card is there.
    pub(super) fn outputs(&self, names: &[String], profile: Option<&Profile>) -> Vec<Finding> {
        let cards = self.cards();
        let fix = self.line_for(profile, &["dtoverlay=", "gpio="], "the dtoverlay= line of your DAC (docs/boards.md)");
        names.iter().map(|name| self.output(name, &cards, &fix)).collect()
    }

    fn output(&self, name: &str, cards: &[(u32, String)], fix: &str) -> Finding {
        if name.starts_with("paced") || name.starts_with("unpaced") {
            return Finding::ok("output", format!("{name}: a sink without a device"));
        }
        let there = cards.iter().map(|c| c.1.as_str()).collect::<Vec<_>>().join(", ");
        let there = if there.is_empty() { "none".to_owned() } else { there };
        let wanted = name.split_once(':').map(|(_, rest)| rest.split(',').next().unwrap_or_default());
        let wanted = wanted.map(|w| w.strip_prefix("CARD=").unwrap_or(w));
        let found = cards.iter().find(|(n, id)| wanted.is_none_or(|w| w == id || w == n.to_string()));
        let Some((number, id)) = found else {
            return Finding::missing("output", format!("{name}: its card is not there; there are: {there}"), fix);
        };
        let prefix = format!("pcmC{number}D");
        let devices = fs::read_dir(self.at(Path::new("/dev/snd"))).into_iter().flatten().filter_map(Result::ok);
        let own = |n: &str| n.starts_with(&prefix) && n.ends_with('p');
        let mut devices = devices.filter(|d| d.file_name().to_str().is_some_and(own)).peekable();
        if devices.peek().is_none() {
            return Finding::missing("output", format!("{name}: card {id} has no device to play on"), fix);
        }
        if !devices.any(|d| self.who.may(&d.path(), READ | WRITE)) {
            return self.group("output", format!("{name}: {} may not use it", self.who.name), "audio");
        }
        Finding::ok("output", format!("{name}: card {number}, {id}"))
    }

    /// Number and id of each sound card (/proc/asound/cards: ` 0 [Headphones     ]: bcm2835 - ...`).
    fn cards(&self) -> Vec<(u32, String)> {
        let text = fs::read_to_string(self.at(Path::new("/proc/asound/cards"))).unwrap_or_default();
        let card = |line: &str| {
            let (number, rest) = line.split_once('[')?;
            Some((number.trim().parse().ok()?, rest.split(']').next()?.trim().to_owned()))
        };
        text.lines().filter_map(card).collect()
    }

    /// The bus of the profile's panel.
    pub(super) fn panel(&self, profile: Option<&Profile>) -> Option<Finding> {
        let (bus, group, line) = match profile?.panel.as_ref()? {
            Wiring::Ssd1306 { bus, .. } => (bus, "i2c", "dtparam=i2c"),
            Wiring::St7789 { bus, .. } => (bus, "spi", "dtparam=spi"),
        };
        Some(if !self.at(bus).exists() {
            let fix = self.line_for(profile, &[line], &format!("{line}=on"));
            Finding::missing("panel", format!("{}: {group} is not switched on", bus.display()), fix)
        } else if !self.who.may(&self.at(bus), READ | WRITE) {
            self.group("panel", format!("{}: {} may not use it", bus.display(), self.who.name), group)
        } else {
            Finding::ok("panel", format!("{}", bus.display()))
        })
    }

    /// The lines of buttons and panel.
    pub(super) fn gpio(&self, chip: Option<&Path>) -> Finding {
        let all = fs::read_dir(self.at(Path::new("/dev"))).into_iter().flatten().filter_map(Result::ok);
        let is_chip = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("gpiochip"));
        let mut chips: Vec<PathBuf> = match chip {
            Some(chip) => vec![self.at(chip)],
            None => all.map(|e| e.path()).filter(is_chip).collect(),
        };
        chips.retain(|c| c.exists());
        if chips.is_empty() {
            let text = "no GPIO character device for buttons and panel";
            return Finding::missing("gpio", text, "a kernel with CONFIG_GPIO_CDEV, or `[board] gpiochip`");
        }
        if !chips.iter().any(|c| self.who.may(c, READ | WRITE)) {
            return self.group("gpio", format!("{} may not use it", self.who.name), "gpio");
        }
        Finding::ok("gpio", format!("{} may use it", self.who.name))
    }

    fn group(&self, what: &'static str, text: String, group: &str) -> Finding {
        let fix = format!("sudo usermod -aG {group} {}, and 60-jukebox.rules (README), then restart", self.who.name);
        Finding::missing(what, text, fix)
    }

    /// What config.txt needs: the profile's lines that begin so, or what to write without a profile.
    fn line_for(&self, profile: Option<&Profile>, begins: &[&str], else_: &str) -> String {
        let wanted = |l: &&String| begins.iter().any(|b| l.starts_with(b));
        let lines: Vec<&str> =
            profile.map(|p| p.config_txt.iter().filter(wanted).map(String::as_str).collect()).unwrap_or_default();
        let path = CONFIG_TXT.iter().find(|p| self.root.join(p).exists()).copied().unwrap_or(CONFIG_TXT[0]);
        let text = fs::read_to_string(self.root.join(path)).unwrap_or_default();
        let has = |line: &str| text.lines().any(|l| l.trim().starts_with(line.split(',').next().unwrap_or(line)));
        let lines = if lines.is_empty() { vec![else_] } else { lines };
        let lacking: Vec<&str> = lines.iter().copied().filter(|l| !has(l)).collect();
        match lacking[..] {
            [] => format!("{} stands in /{path}: restart; then see how the board is seated", lines.join(" and ")),
            _ => format!("{} into /{path}, then restart", lacking.join(" and ")),
        }
    }

    /// Who may read and write the files that the configuration names.
    pub(super) fn files(&self, config: &Config) -> Vec<Finding> {
        let mut found = Vec::new();
        let who = &self.who.name;
        let mut check = |path: &Path, want: u32, fix: String| {
            if path.exists() && !self.who.may(path, want) {
                let verb = if want & WRITE != 0 { "write" } else { "read" };
                found.push(Finding::missing("permissions", format!("{who} may not {verb} {}", path.display()), fix));
            }
        };
        let own = |path: &Path, mode: &str| format!("sudo chown {who} {0} && sudo chmod {mode} {0}", path.display());
        let mut read = vec![config.path.as_path()];
        read.extend(config.office.ca.as_deref());
        read.extend(config.mqtt.as_ref().and_then(|m| m.password_file.as_deref()));
        for path in read {
            check(path, READ, own(path, "600"));
        }
        for path in [&config.store.state, &config.store.cache] {
            check(path, READ | WRITE | 1, own(path, "750"));
        }
        if config.is_open_to_others() {
            let file = config.path.display();
            let text = format!("others may read {file}, and it holds a password");
            found.push(Finding::missing("permissions", text, format!("sudo chmod o= {file}")));
        }
        if found.is_empty() {
            found.push(Finding::ok("permissions", format!("as {who} needs them")));
        }
        found
    }

    /// Room, and whether it can be written to.
    pub(super) fn disk(&self, store: &Store) -> Vec<Finding> {
        let mut found = Vec::new();
        for (path, floor_mb) in [(&store.cache, store.floor_mb), (&store.state, 1)] {
            let path = self.at(path);
            // What is not there yet will be made in what is.
            let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
            let Ok(fs) = rustix::fs::statvfs(there) else { continue };
            let mb = |blocks: u64| blocks * fs.f_frsize / 1_000_000;
            let (free, all) = (mb(fs.f_bavail), mb(fs.f_blocks));
            if fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                let text = format!("{} is read-only", there.display());
                let fix = "remount it; a card that turned read-only by itself is at its end: replace it";
                found.push(Finding::missing("disk", text, fix));
            } else if free < floor_mb {
                let text = format!("{free} MB are free at {}, under the {floor_mb} of `floor_mb`", there.display());
                found.push(Finding::missing("disk", text, "make room, or take a larger card"));
            } else {
                found.push(Finding::ok("disk", format!("{free} of {all} MB are free at {}", there.display())));
            }
            if floor_mb > 1 && store.size_mb + floor_mb > all {
                let text =
                    format!("`size_mb` and `floor_mb` are {} MB, and the disk has {all}", store.size_mb + floor_mb);
                let fix = format!("size_mb = {} in [store]", all.saturating_sub(floor_mb).max(64));
                found.push(Finding::missing("disk", text, fix));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn write(&self, path: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
        fn machine(&self) -> Machine {
            Machine::below(self.0.path(), Account::stranger())
        }
    }

    #[test]
    fn an_output_needs_a_card_a_device_and_the_right_to_use_it() {
        let fake = Fake::new();
        let board = Profile::named("pirate-audio").unwrap();
        let look = || fake.machine().outputs(&["hw:CARD=sndrpihifiberry".into()], Some(&board)).remove(0);
        let fix = look().fix.unwrap();
        assert_eq!(fix, "dtoverlay=hifiberry-dac and gpio=25=op,dh into /boot/firmware/config.txt, then restart");
        fake.write("boot/firmware/config.txt", "dtoverlay=hifiberry-dac\n", 0o644);
        assert_eq!(look().fix.unwrap(), "gpio=25=op,dh into /boot/firmware/config.txt, then restart");
        fake.write("boot/firmware/config.txt", "dtoverlay=hifiberry-dac\n gpio=25=op,dh\n", 0o644);
        assert!(look().fix.unwrap().ends_with("restart; then see how the board is seated"));
        let cards = " 0 [vc4hdmi        ]: vc4-hdmi - vc4-hdmi\n                      vc4-hdmi\n \
                     1 [sndrpihifiberry]: RPi-simple - snd_rpi_hifiberry_dac\n";
        fake.write("proc/asound/cards", cards, 0o644);
        assert!(look().text.ends_with("has no device to play on"));
        fake.write("dev/snd/pcmC0D0p", "", 0o666);
        fake.write("dev/snd/pcmC1D0p", "", 0o660);
        assert!(look().fix.unwrap().contains("usermod -aG audio stranger"));
        fake.write("dev/snd/pcmC1D0p", "", 0o666);
        assert_eq!(look(), Finding::ok("output", "hw:CARD=sndrpihifiberry: card 1, sndrpihifiberry"));
        let names = ["plughw:1,0", "default", "hw:CARD=Headphones", "paced:x.wav"].map(str::to_owned);
        let wrong: Vec<_> = fake.machine().outputs(&names, None).into_iter().map(|f| f.fix).collect();
        assert!(matches!(&wrong[..], [None, None, Some(fix), None] if fix.contains("docs/boards.md")), "{wrong:?}");
    }

    #[test]
    fn buses_and_lines_are_named_by_what_switches_them_on() {
        let fake = Fake::new();
        let (oled, lcd) = (Profile::named("hifiberry-oled").unwrap(), Profile::named("pirate-audio").unwrap());
        let look = |p: &Profile| fake.machine().panel(Some(p)).unwrap();
        assert!(look(&oled).fix.unwrap().starts_with("dtparam=i2c_arm=on,i2c_arm_baudrate=400000 into"));
        assert!(look(&lcd).fix.unwrap().starts_with("dtparam=spi=on into /boot/firmware/config.txt"));
        assert_eq!(fake.machine().panel(None), None);
        fake.write("dev/i2c-1", "", 0o660);
        assert!(look(&oled).fix.unwrap().contains("-aG i2c stranger"));
        fake.write("dev/i2c-1", "", 0o666);
        assert_eq!(look(&oled), Finding::ok("panel", "/dev/i2c-1"));
        assert!(fake.machine().gpio(None).text.starts_with("no GPIO"));
        fake.write("dev/gpiochip0", "", 0o660);
        assert!(fake.machine().gpio(None).fix.unwrap().contains("-aG gpio stranger"));
        fake.write("dev/gpiochip0", "", 0o666);
        assert_eq!(fake.machine().gpio(Some(Path::new("/dev/gpiochip0"))).fix, None);
        assert!(fake.machine().gpio(Some(Path::new("/dev/gpiochip4"))).fix.is_some());
    }

    #[test]
    fn files_are_for_the_player_and_nobody_else() {
        let fake = Fake::new();
        let at = fake.0.path().display();
        let text = format!(
            "[office]\nsite = \"hq\"\nplayer = \"lobby\"\norigins = [\"/srv\"]\ninsecure = true\n\
             [mqtt]\nbroker = \"mqtt://office\"\npassword = \"p\"\n[store]\nstate = \"{at}/state\"\ncache = \"{at}/cache\"\n"
        );
        let file = fake.write("jukebox.toml", &text, 0o600);
        let config = Config::load(&file).unwrap();
        let fixes = |m: &Machine| m.files(&config).into_iter().filter_map(|f| f.fix).collect::<Vec<_>>();
        assert!(fixes(&fake.machine())[0].starts_with("sudo chown stranger "));
        let own = fs::metadata(&file).unwrap();
        let me = Account { name: "me".into(), uid: own.uid(), groups: vec![own.gid()] };
        assert!(fixes(&Machine::below(fake.0.path(), me)).is_empty());
        fake.write("jukebox.toml", &text, 0o644);
        fs::create_dir(fake.0.path().join("state")).unwrap();
        fs::set_permissions(fake.0.path().join("state"), fs::Permissions::from_mode(0o755)).unwrap();
        let fixes = fixes(&fake.machine());
        assert!(fixes[0].contains("chmod 750") && fixes[1].starts_with("sudo chmod o= "), "{fixes:?}");
    }

    #[test]
    fn a_user_is_known_with_its_groups() {
        let fake = Fake::new();
        fake.write(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\njukebox:x:998:997:Player:/var/lib/jukebox:/bin/false\n",
            0o644,
        );
        fake.write("etc/group", "audio:x:29:pulse,jukebox\ngpio:x:986:pi\ni2c:x:994:jukebox\n", 0o644);
        let user = Account::named(fake.0.path(), "jukebox").unwrap();
        assert_eq!((user.uid, user.groups), (998, vec![997, 29, 994]));
        assert_eq!(Account::named(fake.0.path(), "nobody"), None);
    }

    #[test]
    fn a_store_larger_than_its_disk_is_told() {
        let fake = Fake::new();
        let whole = Store { size_mb: 9_000_000, floor_mb: 2, ..Store::default() };
        let fixes: Vec<_> = fake.machine().disk(&whole).into_iter().filter_map(|f| f.fix).collect();
        assert!(fixes.len() == 1 && fixes[0].starts_with("size_mb = "), "{fixes:?}");
        let full = Store { size_mb: 64, floor_mb: 900_000, ..Store::default() };
        assert!(fake.machine().disk(&full)[0].text.contains("under the 900000"));
    }
}
