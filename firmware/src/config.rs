//! The player's configuration file: parse, check, explain.
//!
//! One TOML file, `/etc/jukebox/jukebox.toml` unless told otherwise; `firmware/docs/config.md` describes every key. What
//! comes out of [`Config::load`] has been checked: whoever uses a value need not check it again. Law: an error names file,
//! line and column, shows the line, and says what to write instead. Relative paths count from the file's own folder.

mod board;
mod explain;
mod hours;
mod streams;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use hyper::Uri;
use jukebox_board::output::Device;
use jukebox_board::profile::Profile;
use jukebox_core::library::Digest;
use jukebox_core::time::UnixMs;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use crate::clock::Clock;
use crate::dial::Proxy;
pub use board::{Board, Buttons, Night, Panel, device_tree, hat};
pub use explain::Spot;
pub use hours::Hours;
pub use streams::Streams;
pub(crate) use tls::trusting;
pub use tls::{provider, roots, tls_config};

/// Where the file lies unless `--config` or `JUKEBOX_CONFIG` says otherwise.
pub const PATH: &str = "/etc/jukebox/jukebox.toml";
/// Exit status for a configuration that is missing or wrong (`EX_CONFIG` of sysexits.h): systemd does not restart on it.
pub const EXIT: u8 = 78;
/// Names that no site and no player may have: they are words of the MQTT topics.
const RESERVED: [&str; 2] = ["all", "reply"];
/// Longest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What the file says, checked and with defaults filled in.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What people call this player (panel, info); the id where it is not given.
    #[serde(default)]
    pub name: String,
    /// Who this player is and where its music comes from.
    pub office: Office,
    /// Where sound goes.
    #[serde(default)]
    pub output: Output,
    /// What the board has beside the DAC.
    #[serde(default)]
    pub board: Board,
    /// What is kept on disk.
    #[serde(default)]
    pub store: Store,
    /// What plays while the queue waits, or is empty.
    #[serde(default)]
    pub fallback: Fallback,
    /// Which live streams may be added.
    #[serde(default)]
    pub streams: Streams,
    /// What was played.
    #[serde(default)]
    pub history: History,
    /// The broker; without it the player takes no commands from the office.
    #[serde(default)]
    pub mqtt: Option<Mqtt>,
    /// The command line's socket.
    #[serde(default)]
    pub socket: Socket,
    /// The file all this was read from.
    #[serde(skip)]
    pub path: PathBuf,
}

/// `[office]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Office {
    /// The site, `[a-z0-9-]{1,32}`.
    #[serde(deserialize_with = "id")]
    pub site: String,
    /// The player's id, `[a-z0-9-]{1,32}`, unique per broker.
    #[serde(deserialize_with = "id")]
    pub player: String,
    /// Places that serve the library, at least one; the first one's root counts: `https://`, with `insecure` also `http://`, or a folder (absolute by now).
    pub origins: Vec<String>,
    /// Network interfaces to leave by, best first; empty: as the system's routes say.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Those of them, and others, that cost by the byte.
    #[serde(default)]
    pub metered: Vec<String>,
    /// What metered interfaces may carry in a month, in MB (10^6 bytes), by interface.
    #[serde(default)]
    pub budget_mb: BTreeMap<String, u32>,
    /// PEM file with the roots that origins and broker are checked against; instead of `ca_pem`.
    pub ca: Option<PathBuf>,
    /// The same roots, written out.
    pub ca_pem: Option<String>,
    /// What all connections go through; none: straight.
    #[serde(default, deserialize_with = "proxy")]
    pub proxy: Option<Proxy>,
    /// Allows `http://` and `mqtt://`.
    #[serde(default)]
    pub insecure: bool,
}

/// `[output]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// PCMs in order of preference. Use [`Output::in_order`].
    pub outputs: Vec<String>,
    /// The PCM's sample rate.
    pub rate: Rate,
    /// ALSA period in ms, 5 to 200; `None`: as the scheduling allows.
    #[serde(deserialize_with = "maybe_within::<_, u32, 5, 200>")]
    pub period_ms: Option<u32>,
    /// Ceiling of the volume in percent, 1 to 100.
    #[serde(deserialize_with = "within::<_, u8, 1, 100>")]
    pub volume_max: u8,
    /// Volume of a player that never had one, in percent, 0 to `volume_max`.
    #[serde(deserialize_with = "within::<_, u8, 0, 100>")]
    pub first_volume: u8,
    /// Loudness that tracks are brought to, in LUFS, -40 to -5.
    #[serde(deserialize_with = "loudness")]
    pub loudness_lufs: f32,
    /// Seconds that neighbours not of one album are cross-faded, 0 to 12; 0: never.
    #[serde(deserialize_with = "within::<_, u8, 0, 12>")]
    pub crossfade_s: u8,
    /// Minutes without music until the PCM is closed, 1 to 1440.
    #[serde(deserialize_with = "within::<_, u32, 1, 1440>")]
    pub idle_close_min: u32,
    /// A WAV file that takes the sound, at the pace of a DAC, instead of a device.
    pub record: Option<PathBuf>,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            outputs: Vec::new(),
            rate: Rate::Follow,
            period_ms: None,
            volume_max: 100,
            first_volume: 30,
            loudness_lufs: -18.0,
            crossfade_s: 0,
            idle_close_min: 10,
            record: None,
        }
    }
}

impl Output {
    /// The outputs to try, best first: `record` as `paced:FILE`, else `outputs`, else those of the board's profile, else ALSA's
    /// `default`.
    pub fn in_order(&self, board: Option<&Profile>) -> Vec<String> {
        match (&self.record, board) {
            (Some(file), _) => vec![format!("paced:{}", file.display())],
            (None, _) if !self.outputs.is_empty() => self.outputs.clone(),
            (None, Some(board)) if !board.outputs.is_empty() => board.outputs.clone(),
            (None, _) => vec!["default".into()],
        }
    }
}

/// `rate`: `"follow"` or a number of Hz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// The rate of the track's original: bit-exact, with a planned gap where the rate changes.
    Follow,
    /// Always this rate in Hz: gapless across rates.
    Fixed(u32),
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Folder of the small state that must survive.
    pub state: PathBuf,
    /// Folder of segments, records and covers: may be emptied at any time.
    pub cache: PathBuf,
    /// Most that the cache may hold, in MB (10^6 bytes), 64 to 10,000,000.
    #[serde(deserialize_with = "within::<_, u64, 64, 10_000_000>")]
    pub size_mb: u64,
    /// Space that is always left free on the cache's disk, in MB, 0 to 1,000,000.
    #[serde(deserialize_with = "within::<_, u64, 0, 1_000_000>")]
    pub floor_mb: u64,
    /// Written to the disk in a day, in MB, beyond which only what will be needed is fetched, 50 to 10,000,000.
    #[serde(deserialize_with = "within::<_, u64, 50, 10_000_000>")]
    pub write_mb_day: u64,
    /// How much of the queue is fetched ahead, in minutes of music, 1 to 1440.
    #[serde(deserialize_with = "within::<_, u32, 1, 1440>")]
    pub ahead_min: u32,
    /// Which renditions are fetched.
    pub renditions: Renditions,
}

/// `renditions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Renditions {
    /// A small copy of what comes first, then the best that the link carries.
    #[default]
    Auto,
    /// The original and nothing else.
    Original,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            state: "/var/lib/jukebox".into(),
            cache: "/var/cache/jukebox".into(),
            size_mb: 4000,
            floor_mb: 500,
            write_mb_day: 4000,
            ahead_min: 30,
            renditions: Renditions::Auto,
        }
    }
}

/// `[fallback]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fallback {
    /// Id of the library's playlist that it plays; `None`: the most popular tracks.
    pub playlist: Option<String>,
    /// In an order of this player's own, the same after every start.
    pub shuffle: bool,
    /// It plays while the queue waits for the link.
    pub while_waiting: bool,
    /// What is heard when nothing is queued.
    pub when_empty: WhenEmpty,
    /// When `when_empty` counts, in local time.
    #[serde(deserialize_with = "parsed", serialize_with = "shown")]
    pub hours: Hours,
    /// IANA name of the time zone of `hours`; `None`: the system's.
    #[serde(deserialize_with = "timezone")]
    pub timezone: Option<String>,
}

/// `when_empty`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenEmpty {
    /// Nothing.
    #[default]
    Silence,
    /// The fallback, within `hours`.
    Fallback,
}

impl Default for Fallback {
    fn default() -> Self {
        let (playlist, timezone, hours) = (None, None, Hours::default());
        Self { playlist, shuffle: true, while_waiting: true, when_empty: WhenEmpty::Silence, hours, timezone }
    }
}

impl Fallback {
    /// Local time at an instant; none beyond the year 9999.
    pub fn local(&self, at: UnixMs) -> Option<jiff::Zoned> {
        let zone = self.timezone.as_deref().and_then(|name| jiff::tz::TimeZone::get(name).ok());
        let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
        Some(at.to_zoned(zone.unwrap_or_else(jiff::tz::TimeZone::system)))
    }
}

/// `[history]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Plays are forgotten after so many days, 1 to 3650 (and beyond 200 of them).
    #[serde(deserialize_with = "within::<_, u32, 1, 3650>")]
    pub keep_days: u32,
}

impl Default for History {
    fn default() -> Self {
        Self { keep_days: 30 }
    }
}

/// `[mqtt]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `mqtts://host:port`, with `office.insecure` also `mqtt://host:port`. Use [`Mqtt::address`].
    pub broker: String,
    /// User at the broker; the player's id where it is not given.
    #[serde(default)]
    pub user: String,
    /// Password at the broker, read from `password_file` if that is given.
    #[serde(default, skip_serializing)]
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Whether Home Assistant is told about the player at this broker.
    #[serde(default)]
    pub home_assistant: bool,
    /// Players that lost the broker together come back within so many seconds, 0 to 600.
    #[serde(default = "spread_s", deserialize_with = "within::<_, u32, 0, 600>")]
    pub spread_s: u32,
}

impl Mqtt {
    /// Host and port of the broker, and whether it is spoken to over TLS. Ports: 8883 with TLS, 1883 without.
    pub fn address(&self) -> (String, u16, bool) {
        let uri: Uri = self.broker.parse().unwrap_or_default();
        let tls = uri.scheme_str() != Some("mqtt");
        // An IPv6 address stands in brackets in a URL and without them everywhere else.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        (host, uri.port_u16().unwrap_or(if tls { 8883 } else { 1883 }), tls)
    }
}

/// `[socket]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Socket {
    /// The Unix socket.
    pub path: PathBuf,
}

impl Default for Socket {
    fn default() -> Self {
        Self { path: "/run/jukebox/socket".into() }
    }
}

/// A word that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The word itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why there is no configuration. Each text is complete: what is wrong, where, and what to do. The binary exits with [`EXIT`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no file.
    #[error(
        "{}: there is no configuration file\n  `jukebox-office player add NAME` in the office writes one, and `sudo jukebox setup` asks for it; or name another with --config FILE",
        .0.display()
    )]
    Missing(PathBuf),
    /// The file, or one that it names, cannot be read.
    #[error("{}: {why}\n  fix: {fix}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
        /// What to do.
        fix: &'static str,
    },
    /// Something in the file is wrong.
    #[error("{0}")]
    Wrong(Spot),
}

impl ConfigError {
    /// Where it is wrong, in a few words: `line 12 of jukebox.toml`, or the file.
    pub fn place(&self) -> String {
        let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        match self {
            Self::Missing(path) => format!("{} is missing", name(path)),
            Self::Unreadable { path, .. } => format!("{} cannot be read", name(path)),
            Self::Wrong(spot) => format!("Line {} of {}", spot.line, name(&spot.path)),
        }
    }

    /// The whole in one line, without the line of the file, which may hold a password.
    pub fn line(&self) -> String {
        match self {
            Self::Wrong(Spot { path, line, column, what, .. }) => {
                format!("{}:{line}:{column}: {}", path.display(), what.replace('\n', " "))
            }
            other => other.to_string().replace("\n  ", "; "),
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`, and the password file that it names.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] if there is none; else what is wrong and where.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match read_small(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(ConfigError::Missing(path.into())),
            Err(e) => return Err(unreadable(path, e, "make it a text file that the user `jukebox` may read")),
            Ok(text) => text,
        };
        let mut config = Self::parse(&text, path)?;
        // One's own profile is another file.
        config
            .board
            .profile()
            .map_err(|e| ConfigError::Wrong(Spot::of_key(path, &text, &["board", "profile"], e.to_string())))?;
        if let Some(mqtt) = &mut config.mqtt
            && let Some(file) = &mqtt.password_file
        {
            let fix = "put the password into its first line, readable for the user `jukebox`";
            let secret = read_small(file).map_err(|e| unreadable(file, e, fix))?;
            let word = secret.lines().next().unwrap_or_default();
            if word.is_empty() {
                return Err(ConfigError::Unreadable { path: file.clone(), why: "the first line is empty".into(), fix });
            }
            mqtt.password = Some(Secret(word.to_owned()));
        }
        Ok(config)
    }

    /// Checks `text` as if it had been read from `path`; reads no file.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|e| ConfigError::Wrong(Spot::of_toml(path, text, &e)))?;
        config.path = path.into();
        config.check().map_err(|(key, what)| ConfigError::Wrong(Spot::of_key(path, text, key, what)))?;
        if config.name.is_empty() {
            config.name.clone_from(&config.office.player);
        }
        if let Some(mqtt) = &mut config.mqtt
            && mqtt.user.is_empty()
        {
            mqtt.user.clone_from(&config.office.player);
        }
        config.anchor(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// The checks that need more than one value: the key that is wrong, and what to write.
    fn check(&self) -> Result<(), (&'static [&'static str], String)> {
        let office = &self.office;
        if self.name.chars().count() > 64 || self.name.chars().any(char::is_control) {
            return Err((&["name"], "a name has at most 64 characters and no control characters".into()));
        }
        if office.origins.is_empty() {
            let what = "at least one origin is needed, for example [\"https://music.example.org\"]";
            return Err((&["office", "origins"], what.into()));
        }
        for origin in &office.origins {
            self.check_origin(origin).map_err(|what| (&["office", "origins"] as &[_], what))?;
        }
        let with_budget: Vec<String> = office.budget_mb.keys().cloned().collect();
        let lists: [(&'static [&'static str], &Vec<String>); 3] = [
            (&["office", "interfaces"], &office.interfaces),
            (&["office", "metered"], &office.metered),
            (&["office", "budget_mb"], &with_budget),
        ];
        for (key, names) in lists {
            // IFNAMSIZ of Linux, without the zero.
            let wrong = names.iter().find(|n| n.is_empty() || n.len() > 15 || n.contains(['/', ' ', '\0']));
            if let Some(name) = wrong {
                let what = format!("`{name}` is no network interface: write its name, for example \"wlan0\"");
                return Err((key, what));
            }
        }
        if office.ca.is_some() && office.ca_pem.is_some() {
            return Err((&["office", "ca"], "`ca` and `ca_pem` say the same: keep one".into()));
        }
        if self.output.first_volume > self.output.volume_max {
            let what = format!("`first_volume` is above `volume_max`: at most {}", self.output.volume_max);
            return Err((&["output", "first_volume"], what));
        }
        if self.output.record.is_some() && !self.output.outputs.is_empty() {
            let what = "`record` takes the sound instead of `outputs`: keep one";
            return Err((&["output", "record"], what.into()));
        }
        if self.output.outputs.iter().any(|o| o.trim().is_empty()) {
            return Err((&["output", "outputs"], "an output has a name, for example \"hw:CARD=DAC\"".into()));
        }
        for output in &self.output.outputs {
            output.parse::<Device>().map_err(|e| (&["output", "outputs"] as &[_], e.to_string()))?;
        }
        if let Some(name) = self.board.profile.as_ref().filter(|name| !name.contains('/')) {
            Profile::named(name).map_err(|e| (&["board", "profile"] as &[_], e.to_string()))?;
        }
        self.streams.check()?;
        if self.store.state == self.store.cache {
            return Err((
                &["store", "cache"],
                "`cache` may be emptied at any time: give it a folder of its own".into(),
            ));
        }
        if let Some(mqtt) = &self.mqtt {
            self.check_broker(&mqtt.broker).map_err(|what| (&["mqtt", "broker"] as &[_], what))?;
            if mqtt.password.is_some() && mqtt.password_file.is_some() {
                return Err((
                    &["mqtt", "password_file"],
                    "`password` and `password_file` say the same: keep one".into(),
                ));
            }
        }
        let tls = office
            .origins
            .iter()
            .find(|o| o.starts_with("https://"))
            .or_else(|| self.mqtt.as_ref().map(|m| &m.broker).filter(|b| b.starts_with("mqtts://")));
        if let Some(url) = tls
            && office.ca.is_none()
            && office.ca_pem.is_none()
        {
            let what = format!(
                "{url} needs `ca` (or `ca_pem`): the office's CA file, or /etc/ssl/certs/ca-certificates.crt for a public one"
            );
            return Err((&["office"], what));
        }
        Ok(())
    }

    fn check_origin(&self, origin: &str) -> Result<(), String> {
        let Some((scheme, _)) = origin.split_once("://") else {
            return if origin.is_empty() { Err("an origin is a URL or a folder, not \"\"".into()) } else { Ok(()) };
        };
        match scheme {
            "https" => check_url(origin),
            "http" if self.office.insecure => check_url(origin),
            "http" => Err(format!("{origin} is not protected: use https://, or allow it with `insecure = true`")),
            "smb" | "cifs" | "nfs" => Err(format!("{origin}: mount the share, and give its folder")),
            _ => Err(format!("{origin}: an origin is https://HOST/, http://HOST/ or a folder, not {scheme}://")),
        }
    }

    fn check_broker(&self, broker: &str) -> Result<(), String> {
        match broker.split_once("://") {
            Some(("mqtts", _)) => check_url(broker),
            Some(("mqtt", _)) if self.office.insecure => check_url(broker),
            Some(("mqtt", _)) => Err(format!(
                "{broker} is not protected: use mqtts://, or allow it with `insecure = true` under [office]"
            )),
            _ => Err(format!("`{broker}` is not a broker: write mqtts://HOST:8883")),
        }
        .and_then(|()| match broker.parse::<Uri>().map(|u| u.path().len() > 1 || u.query().is_some()) {
            Ok(true) => Err(format!("{broker}: a broker is mqtts://HOST:PORT, nothing behind it")),
            _ => Ok(()),
        })
    }

    /// Makes every relative path count from `base`.
    fn anchor(&mut self, base: &Path) {
        for origin in self.office.origins.iter_mut().filter(|o| !o.contains("://")) {
            *origin = base.join(&*origin).display().to_string();
        }
        let mut paths = vec![&mut self.store.state, &mut self.store.cache, &mut self.socket.path];
        paths.extend(self.office.ca.as_mut());
        paths.extend(self.output.record.as_mut());
        paths.push(&mut self.streams.ca);
        paths.extend(self.mqtt.as_mut().and_then(|m| m.password_file.as_mut()));
        paths.extend(self.board.gpiochip.as_mut());
        if let Panel::Png(file) = &mut self.board.panel {
            paths.push(file);
        }
        if let Some(own) = self.board.profile.as_mut().filter(|name| name.contains('/')) {
            *own = base.join(&*own).display().to_string();
        }
        for path in paths {
            *path = base.join(&*path);
        }
    }

    /// `sha256:<hex>` over the checked values without passwords: equal for equal behaviour, shown in `P/info`.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("sha256:{}", Digest::of(&json))
    }

    /// Whether everybody on the machine may read a password in the file.
    pub fn is_open_to_others(&self) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let secret_inside = self.mqtt.as_ref().is_some_and(|m| m.password.is_some() && m.password_file.is_none());
        let secret_inside = secret_inside || self.office.proxy.as_ref().is_some_and(Proxy::has_login);
        secret_inside && std::fs::metadata(&self.path).is_ok_and(|m| m.permissions().mode() & 0o004 != 0)
    }

    /// What `jukebox config check` prints about a file that is right; also tries the CA.
    ///
    /// # Errors
    /// [`ConfigError`] when the CA cannot be used.
    pub fn check_report(&self) -> Result<String, ConfigError> {
        let tls = tls_config(self, Clock::new(None))?;
        let mut lines = vec![
            format!("{}: right", self.path.display()),
            format!("  player   {} ({}) at site {}", self.office.player, self.name, self.office.site),
            format!("  music    {}", self.office.origins.join(", ")),
            match &self.mqtt {
                None => "  broker   none: commands come over the socket only".into(),
                Some(m) if m.password.is_none() => format!("  broker   {} without a password", m.broker),
                Some(m) => format!("  broker   {} as {}", m.broker, m.user),
            },
            match &self.office.proxy {
                None => "  proxy    none".into(),
                Some(proxy) if proxy.has_login() => format!("  proxy    {proxy} with user and password"),
                Some(proxy) => format!("  proxy    {proxy}"),
            },
            match &self.streams.allow[..] {
                [] => "  streams  none".into(),
                allowed => format!("  streams  {}", allowed.join(", ")),
            },
            format!("  state    {}, cache {}", self.store.state.display(), self.store.cache.display()),
            format!("  socket   {}", self.socket.path.display()),
            format!("  digest   {}", self.digest()),
        ];
        if tls.is_some() && self.office.insecure {
            lines.push("  warning: `insecure = true`: plain connections are allowed beside TLS".into());
        } else if self.office.insecure {
            lines.push("  warning: `insecure = true`: whoever is on the way can listen and change things".into());
        }
        if self.is_open_to_others() {
            let file = self.path.display();
            lines.push(format!("  warning: others may read {file}, and it holds a password: chmod 600 {file}"));
        }
        Ok(lines.join("\n"))
    }
}

fn read_small(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn unreadable(path: &Path, why: std::io::Error, fix: &'static str) -> ConfigError {
    ConfigError::Unreadable { path: path.into(), why: why.to_string(), fix }
}

fn check_url(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|e| format!("{url} is not a URL: {e}"))?;
    match uri.authority() {
        // Not repeated: it may hold a password.
        Some(a) if a.as_str().contains('@') => Err(format!("no user or password in the URL of {}", a.host())),
        Some(a) if !a.host().is_empty() && a.port_u16() != Some(0) => Ok(()),
        _ => Err(format!("{url} names no host")),
    }
}

fn id<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let id = String::deserialize(d)?;
    if RESERVED.contains(&id.as_str()) {
        return Err(D::Error::custom(format!("`{id}` is reserved: choose another id")));
    }
    let fits =
        (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits { Ok(id) } else { Err(D::Error::custom("an id is 1 to 32 of the characters a-z, 0-9 and `-`")) }
}

/// Of 300 players no second sees more than 5 % then.
const fn spread_s() -> u32 {
    90
}

fn proxy<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Proxy>, D::Error> {
    String::deserialize(d)?.parse().map(Some).map_err(D::Error::custom)
}

fn within<'de, D, N, const LEAST: i64, const MOST: i64>(d: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<i64>,
{
    let wrong = || D::Error::custom(format!("must be a whole number from {LEAST} to {MOST}"));
    let n = i64::deserialize(d).map_err(|_| wrong())?;
    if (LEAST..=MOST).contains(&n) { N::try_from(n).map_err(|_| wrong()) } else { Err(wrong()) }
}

fn maybe_within<'de, D, N, const LEAST: i64, const MOST: i64>(d: D) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<i64>,
{
    within::<D, N, LEAST, MOST>(d).map(Some)
}

fn loudness<'de, D: Deserializer<'de>>(d: D) -> Result<f32, D::Error> {
    let wrong = || D::Error::custom("must be a number from -40.0 to -5.0 (LUFS)");
    let lufs = f64::deserialize(d).map_err(|_| wrong())?;
    #[expect(clippy::cast_possible_truncation, reason = "a tenth of a LUFS is all that can be heard")]
    if (-40.0..=-5.0).contains(&lufs) { Ok(lufs as f32) } else { Err(wrong()) }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Follow => s.serialize_str("follow"),
            Self::Fixed(hz) => s.serialize_u32(*hz),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(d)? {
            toml::Value::String(s) if s == "follow" => Ok(Self::Follow),
            toml::Value::Integer(n @ 8_000..=384_000) => Ok(Self::Fixed(u32::try_from(n).unwrap_or(48_000))),
            _ => Err(D::Error::custom("must be \"follow\" or a rate from 8000 to 384000 (Hz), for example 48000")),
        }
    }
}

#[cfg(test)]
mod tests;

fn parsed<'de, D: Deserializer<'de>, T: std::str::FromStr<Err = String>>(d: D) -> Result<T, D::Error> {
    String::deserialize(d)?.parse().map_err(D::Error::custom)
}

fn shown<S: Serializer, T: fmt::Display>(value: &T, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(value)
}

fn timezone<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(d)?;
    match jiff::tz::TimeZone::get(&name) {
        Ok(_) => Ok(Some(name)),
        Err(_) => Err(D::Error::custom(format!("`{name}` is no time zone; they look like `Europe/Zurich`"))),
    }
}
