//! The configuration, read again while it plays (SIGHUP): all is made ready, then exchanged; what is wrong changes nothing.

use std::path::Path;
use std::sync::Arc;

use jukebox_core::library::Digest;
use jukebox_core::reload::Reload;

use super::parts::{Parts, limits, listen, settings, start_mqtt};
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError};
use crate::dial::Dialer;
use crate::fetch::Fetcher;
use crate::mqtt;

/// A configuration that was read and is right.
pub(crate) struct Fresh {
    config: Config,
    tls: Option<rustls::ClientConfig>,
    roots: Option<Digest>,
}

/// Reads the file at `path` and what it names; waits for the card.
pub(super) fn read(path: &Path, clock: Arc<Clock>) -> Result<Box<Fresh>, ConfigError> {
    let config = Config::load(path)?;
    let tls = config::tls_config(&config, clock)?;
    let roots = roots(&config)?;
    Ok(Box::new(Fresh { config, tls, roots }))
}

/// Tells one set of certificates from another.
pub(super) fn roots(config: &Config) -> Result<Option<Digest>, ConfigError> {
    Ok(config::roots(config)?.map(|pem| Digest::of(pem.as_bytes())))
}

impl Parts {
    /// Lets a fresh configuration count, or says why the old one stays.
    pub(super) fn reload(&mut self, read: Result<Box<Fresh>, ConfigError>) -> Reload {
        let reload = match read {
            Ok(fresh) => self.exchange(*fresh),
            Err(e) => Err((e.place(), e.line())),
        };
        match reload {
            Ok(reload) => {
                tracing::info!("{}: read again", self.config.path.display());
                if let Reload::Right { after_restart, .. } = &reload
                    && !after_restart.is_empty()
                {
                    tracing::warn!("these count after a restart: {}", after_restart.join(", "));
                }
                reload
            }
            Err((place, error)) => {
                tracing::error!("the configuration is wrong, and the old one stays: {error}");
                Reload::Wrong { place, error }
            }
        }
    }

    fn exchange(&mut self, fresh: Fresh) -> Result<Reload, (String, String)> {
        let Fresh { mut config, tls, roots } = fresh;
        let after_restart = keep(&self.config, &mut config);
        let old = &self.config;
        let place = || config.path.display().to_string();
        let other_way = config.office != old.office || roots != self.roots;
        let dialer = Dialer::new(config.office.proxy.clone()).by(&config.office.interfaces);
        let fetcher = other_way.then(|| {
            let (office, objects) = (&config.office, self.store.objects());
            Fetcher::new(&office.origins, dialer.clone(), tls.as_ref(), office.insecure, objects, |_| {})
        });
        let fetcher = fetcher.transpose().map_err(|e| (place(), e.to_string()))?;
        let socket = (config.socket != old.socket).then(|| listen(&config, &self.inbox));
        let socket = socket.transpose().map_err(|e| (place(), format!("{e:#}")))?;

        // From here on nothing fails.
        if let Some(socket) = socket {
            self.socket = socket;
        }
        if other_way || config.streams != old.streams {
            self.radio.go_by(&config.streams, &dialer, &self.clock);
        }
        let link = |m: &config::Mqtt| (m.broker.clone(), m.user.clone(), m.password.clone());
        match (&self.mqtt, &config.mqtt) {
            (Some(mqtt), Some(new)) if other_way || config.mqtt.as_ref().map(link) != old.mqtt.as_ref().map(link) => {
                mqtt.connect_to(mqtt::Settings::new(&config, new, dialer, tls));
            }
            (Some(mqtt), None) => {
                let mqtt = mqtt.clone();
                tokio::task::spawn_local(async move { mqtt.stop().await });
                self.mqtt = None;
            }
            (None, Some(new)) => self.mqtt = Some(start_mqtt(&config, new, dialer, tls, &self.inbox)),
            _ => {}
        }
        self.store.objects().limit(limits(&config));
        self.name.clone_from(&config.name);
        (self.config, self.roots) = (config, roots);
        if let Some(fetcher) = fetcher {
            fetcher.date_of(&self.fetcher);
            self.fetcher = fetcher;
            self.refresh_catalogue();
        }
        self.look_around_for_ever();
        let settings = Box::new(settings(&self.config, self.model.clone()));
        Ok(Reload::Right { settings, after_restart })
    }
}

/// What cannot change while it plays stays as it was; the keys of which there is something new.
fn keep(old: &Config, new: &mut Config) -> Vec<String> {
    let mut kept = Vec::new();
    let mut stay = |key: &str, differs: bool| {
        if differs {
            kept.push(key.to_owned());
        }
        differs
    };
    if stay("office.site", new.office.site != old.office.site)
        | stay("office.player", new.office.player != old.office.player)
    {
        // Both may stand in for a name or a user that is not given.
        new.office.site.clone_from(&old.office.site);
        new.office.player.clone_from(&old.office.player);
        new.name.clone_from(&old.name);
        new.mqtt.clone_from(&old.mqtt);
    }
    let (to, from) = (&mut new.output, &old.output);
    if stay("output.outputs", to.outputs != from.outputs) {
        to.outputs.clone_from(&from.outputs);
    }
    if stay("output.record", to.record != from.record) {
        to.record.clone_from(&from.record);
    }
    if stay("output.rate", to.rate != from.rate) {
        to.rate = from.rate;
    }
    if stay("output.period_ms", to.period_ms != from.period_ms) {
        to.period_ms = from.period_ms;
    }
    if stay("board", new.board != old.board) {
        new.board.clone_from(&old.board);
    }
    if stay("store.state", new.store.state != old.store.state) {
        new.store.state.clone_from(&old.store.state);
    }
    if let (Some(to), Some(from)) = (&mut new.mqtt, &old.mqtt)
        && stay("mqtt.spread_s", to.spread_s != from.spread_s)
    {
        to.spread_s = from.spread_s;
    }
    if stay("store.cache", new.store.cache != old.store.cache) {
        new.store.cache.clone_from(&old.store.cache);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sounds_and_who_it_is_stay_until_a_restart() {
        let least = "[office]\nsite = \"hq\"\nplayer = \"lobby\"\norigins = [\"/srv/music\"]\n";
        let parse = |text: &str| Config::parse(text, Path::new("/etc/jukebox/jukebox.toml")).unwrap();
        let old = parse(least);
        let mut new = parse(
            "[office]\nsite = \"hq\"\nplayer = \"bar\"\norigins = [\"/srv/more\"]\n[output]\nvolume_max = 40\nrate = 48000\n\
             outputs = [\"hw:CARD=x\"]\nperiod_ms = 30\n[board]\nnight = \"20:00-07:00\"\n[store]\nsize_mb = 100\nstate = \"/s\"\ncache = \"/c\"\n",
        );
        let kept = keep(&old, &mut new);
        let keys = [
            "office.player",
            "output.outputs",
            "output.rate",
            "output.period_ms",
            "board",
            "store.state",
            "store.cache",
        ];
        assert_eq!(kept, keys);
        let counts = parse(
            "[office]\nsite = \"hq\"\nplayer = \"lobby\"\norigins = [\"/srv/more\"]\n[output]\nvolume_max = 40\n[store]\nsize_mb = 100\n",
        );
        assert_eq!(new, counts);
        assert!(keep(&old, &mut old.clone()).is_empty());
    }
}
