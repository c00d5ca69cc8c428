//! The office's folder: keys, passwords, the register of players, what the last `serve` was told.
//!
//! ```text
//! ca.pem ca.key          the private CA           bot.password office.password   one line each
//! server.pem server.key  of HTTPS and broker      office.json                    settings of the last `serve`
//! broker/                mosquitto's own: configuration, access rules, data      players.json   who was added
//! ```
//! Law: the folder is 0700, secrets are 0600, and a file is replaced whole (temporary name, rename) or not at all. Whoever
//! changes something holds the lock; `serve` holds it for as long as it runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The office's folder.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

/// What `serve` was told, so that `player add` and `config` need not be told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The site's id.
    pub site: String,
    /// Names and addresses of this machine, best first: they stand in the certificate, and players are told the first.
    pub names: Vec<String>,
    /// Port of HTTPS.
    pub https: u16,
    /// Port of MQTT over TLS.
    pub mqtt: u16,
    /// Address that the last `serve` listened at; `None`: all.
    pub bind: Option<IpAddr>,
    /// Somebody else's broker, if that is used.
    pub broker: Option<String>,
    /// Unix second at which the server's certificate ends.
    pub certificate_until: i64,
    /// Names in that certificate.
    pub certificate_names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            site: "hq".into(),
            names: vec![hostname()],
            https: 8443,
            mqtt: 8883,
            bind: None,
            broker: None,
            certificate_until: 0,
            certificate_names: Vec::new(),
        }
    }
}

impl Settings {
    /// The name that others reach this machine by.
    pub fn host(&self) -> &str {
        self.names.first().map_or("localhost", String::as_str)
    }
    /// Where players find the library: `https://HOST:PORT/`.
    pub fn origin(&self) -> String {
        format!("https://{}:{}/", bracketed(self.host()), self.https)
    }
    /// Where players find the broker: `mqtts://HOST:PORT`.
    pub fn broker_url(&self) -> String {
        let own = || format!("mqtts://{}:{}", bracketed(self.host()), self.mqtt);
        self.broker.clone().unwrap_or_else(own)
    }
}

/// A player that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Player {
    /// Its id.
    pub name: String,
    /// Its site.
    pub site: String,
    /// When it was added (RFC 3339).
    pub added: String,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refuses.
    #[error("{}: {why}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// A file of ours is not what we wrote.
    #[error("{}: {why}; move it away and start again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// The system has no randomness.
    #[error("the system gives no random numbers")]
    Random,
}

/// Held by whoever changes the folder; let go when dropped, also by a `kill -9`.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl State {
    /// Opens the folder, and makes it if there is none.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let make = |path: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|why| StateError::Io { path: path.into(), why })
        };
        make(folder)?;
        make(&folder.join("broker"))?;
        // Relative paths would count from wherever mosquitto or nginx is started.
        let folder = folder.canonicalize().map_err(|why| StateError::Io { path: folder.into(), why })?;
        Ok(Self { folder })
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes the lock of the folder; `None` if somebody else, that is `serve`, has it.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn lock(&self) -> Result<Option<Lock>, StateError> {
        let (path, file) = self.lock_file("lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(why)) => Err(StateError::Io { path, why }),
        }
    }

    /// Takes the lock of the register of players, and waits for it: changes of it take turns.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn lock_players(&self) -> Result<Lock, StateError> {
        let (path, file) = self.lock_file("players.lock")?;
        file.lock().map_err(|why| StateError::Io { path, why })?;
        Ok(Lock(file))
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), StateError> {
        let path = self.path(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.and_then(|file| give(&file, &path).map(|()| file));
        file.map(|file| (path.clone(), file)).map_err(|why| StateError::Io { path, why })
    }

    /// Settings of the last `serve`, or the defaults.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn settings(&self) -> Result<Settings, StateError> {
        self.json("office.json")
    }

    /// Keeps the settings.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep_settings(&self, settings: &Settings) -> Result<(), StateError> {
        self.keep_json("office.json", settings)
    }

    /// The players that were added, by name.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn players(&self) -> Result<Vec<Player>, StateError> {
        self.json("players.json")
    }

    /// Keeps the list of players.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep_players(&self, players: &[Player]) -> Result<(), StateError> {
        self.keep_json("players.json", players)
    }

    /// The password of `bot` or `office`, made when it is first asked for.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn password(&self, user: &str) -> Result<String, StateError> {
        let path = self.path(&format!("{user}.password"));
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(StateError::Io { path, why }),
            _ => {
                let fresh = random_word()?;
                write_whole(&path, format!("{fresh}\n").as_bytes(), 0o600)?;
                Ok(fresh)
            }
        }
    }

    fn json<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, StateError> {
        let path = self.path(name);
        match fs::read(&path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(why) => Err(StateError::Io { path, why }),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| StateError::Damaged { path, why }),
        }
    }

    fn keep_json<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.path(name);
        let bytes = serde_json::to_vec_pretty(value).map_err(|why| StateError::Damaged { path: path.clone(), why })?;
        write_whole(&path, &bytes, 0o600)
    }
}

/// Where the folder is unless `--state` says otherwise: root's is `/var/lib/jukebox-office`, anybody else's is at home.
pub fn default_folder() -> PathBuf {
    let home = || std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
    match std::env::var_os("XDG_STATE_HOME") {
        _ if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/jukebox-office"),
        Some(folder) => PathBuf::from(folder).join("jukebox-office"),
        None => home().join(".local/state/jukebox-office"),
    }
}

/// Replaces a file in one step: whoever reads sees the old or the new one.
///
/// # Errors
/// [`StateError::Io`].
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    Draft::write(path, bytes, mode)?.keep()
}

/// A file that is on the disk under another name until it is kept; dropped, it goes.
#[derive(Debug)]
pub struct Draft {
    fresh: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Writes what shall stand at `path`; what stands there now stays.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<Self, StateError> {
        let draft = Self { fresh: path.with_added_extension("new"), path: path.into() };
        let write = || {
            if path.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            // Left by a run that was killed, maybe with another mode.
            let _ = fs::remove_file(&draft.fresh);
            let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&draft.fresh)?;
            file.write_all(bytes)?;
            give(&file, path)?;
            file.sync_all()
        };
        write().map_err(|why| StateError::Io { path: path.into(), why })?;
        Ok(draft)
    }

    /// Puts it in its place, in one step.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn keep(self) -> Result<(), StateError> {
        fs::rename(&self.fresh, &self.path).map_err(|why| StateError::Io { path: self.path.clone(), why })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `keep` there is nothing under this name.
        let _ = fs::remove_file(&self.fresh);
    }
}

/// What root writes into somebody's folder is theirs: the service reads what `sudo jukebox-office player add` has written.
fn give(file: &File, path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owner = fs::metadata(folder)?;
    match rustix::process::geteuid().is_root() && owner.uid() != 0 {
        true => fchown(file, Some(owner.uid()), Some(owner.gid())),
        false => Ok(()),
    }
}

/// 160 random bits as 32 characters that can be read aloud and need no quoting anywhere.
///
/// # Errors
/// [`StateError::Random`].
pub fn random_word() -> Result<String, StateError> {
    let mut bytes = [0; 20];
    rand::fill(&mut bytes).map_err(|_| StateError::Random)?;
    Ok(BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

/// Whether `id` can be a site or a player: `[a-z0-9-]{1,32}`, and no word of the topics.
pub fn is_id(id: &str) -> bool {
    (1..=32).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && id != "all"
        && id != "reply"
}

/// Host, port and whether it is TLS of `mqtts://HOST[:PORT]` or `mqtt://HOST[:PORT]`.
pub fn broker_address(url: &str) -> Option<(String, u16, bool)> {
    let uri: hyper::Uri = url.parse().ok()?;
    let tls = match uri.scheme_str()? {
        "mqtts" => true,
        "mqtt" => false,
        _ => return None,
    };
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    (!host.is_empty()).then(|| (host, uri.port_u16().unwrap_or(if tls { 8883 } else { 1883 }), tls))
}

/// An IPv6 address in brackets, as a URL wants it.
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

    use super::*;

    #[test]
    fn what_root_writes_belongs_to_the_owner_of_the_folder() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT HERE: giving files away needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(4_321), Some(4_322)).unwrap();
        let state = State { folder: folder.path().into() };
        let _turn = state.lock_players().unwrap();
        state.keep_players(&[]).unwrap();
        for name in ["players.lock", "players.json"] {
            let file = fs::metadata(state.path(name)).unwrap();
            assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (4_321, 4_322, 0o600), "{name}");
        }
    }
}
