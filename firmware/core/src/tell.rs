//! Says what is so: retained state for the broker, a view for the panel. Only what changed goes out.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::checkpoint::Intent;
use crate::command::Verb;
use crate::exchange::{Output, SavedList, Throttle, Topic};
use crate::fallback::is_fallback;
use crate::homeassistant;
use crate::jukebox::{Jukebox, Notice};
use crate::library::RenditionName;
use crate::playback::longest_overlap;
use crate::reason::{Reason, Who};
use crate::sound::{EntryId, OutputState};
use crate::time::{Frames, Instant, Span};
use crate::view::{Icon, Progress, Strip, Text, View, VolumeOverlay};
use crate::wire::{self, Because, Health, Info, Now, QueueEntry, QueueState, Silence, State, Track, Waiting};

/// Entries in the retained queue.
const QUEUE_SHOWN: usize = 20;
/// `now` is said again so often while playing.
const NOW_EVERY: Span = Span::s(60);
/// `health` is said so often,
const HEALTH_EVERY: Span = Span::s(30);
/// and so often over a link that costs by the byte.
const HEALTH_METERED_EVERY: Span = Span::s(300);
/// Growth of what is on board is said no more often than this.
const BOARD_EVERY: Span = Span::s(5);

/// From here on a Raspberry Pi slows itself down, in degrees Celsius.
const HOT_C: i16 = 80;

/// What was said last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    info: Option<bool>,
    now: Option<NowKey>,
    now_at: Instant,
    queue: Option<(u64, u32)>,
    queue_at: Instant,
    volume: Option<u8>,
    mute: Option<bool>,
    health: Option<(crate::view::Grade, Option<Reason>)>,
    health_at: Instant,
    /// The playlists in the description for Home Assistant.
    described: Option<Vec<SavedList>>,
    view: Option<View>,
    /// The state and the second in which all was looked at last.
    looked: Option<(State, u64)>,
    /// Days since 1970, once known, and the silence before this one.
    day: Option<u64>,
    silence_before_today: Span,
}

const fn health_every(metered: bool) -> Span {
    if metered { HEALTH_METERED_EVERY } else { HEALTH_EVERY }
}

type NowKey = (u64, State, Option<EntryId>, Option<RenditionName>, Option<&'static str>, bool, bool, u32);

impl Told {
    pub(crate) fn poll_timeout(&self, state: State, metered: bool) -> Option<Instant> {
        let now = (state == State::Playing).then_some(self.now_at + NOW_EVERY);
        [now, Some(self.health_at + health_every(metered))].into_iter().flatten().min()
    }

    /// All state is to be said again.
    pub(crate) fn again(&mut self) {
        let Self { day, silence_before_today, .. } = *self;
        *self = Self { day, silence_before_today, ..Self::default() };
    }
}

impl Jukebox {
    /// Says what has changed. `stirred`: something happened; else time has passed, which nobody sees but once a second.
    pub(crate) fn tell(&mut self, stirred: bool) {
        let state = self.state();
        let looked = Some((state, self.now.0 / 1_000_000));
        let due = self.told.poll_timeout(state, self.budget.is_metered()).is_some_and(|t| t <= self.now);
        if core::mem::replace(&mut self.told.looked, looked) == looked && !stirred && !due {
            return;
        }
        if let Some((then, unix)) = self.clock {
            let day = (unix.0 + self.now.since(then).as_ms()) / 86_400_000;
            if self.told.day.replace(day).is_some_and(|before| before != day) {
                self.told.silence_before_today = self.playback.silence();
            }
        }
        let clock = self.clock.is_some();
        if self.told.info != Some(clock) {
            self.told.info = Some(clock);
            let payload = wire::json(&self.info());
            self.push(Output::Publish { topic: Topic::Info, payload });
        }
        let reason = self.reason().map(|r| r.0.code());
        let current = self.line().current().map(|e| e.id);
        let sounding = self.playback.rendition();
        let (stops, titles) = (self.stop_after.is_some(), self.live.titles);
        let key = (self.queue.revision(), state, current, sounding, reason, clock, stops, titles);
        let again = state == State::Playing && self.now.since(self.told.now_at) >= NOW_EVERY;
        if self.told.now != Some(key) || again {
            (self.told.now, self.told.now_at) = (Some(key), self.now);
            let payload = wire::json(&self.now_state());
            self.push(Output::Publish { topic: Topic::Now, payload });
        }
        let rev = self.queue.revision();
        if self.told.queue.is_none_or(|q| q.0 != rev) || self.now.since(self.told.queue_at) >= BOARD_EVERY {
            let board = self.queue.iter().take(QUEUE_SHOWN).map(|e| u32::from(self.planner.on_board_pct(e.id))).sum();
            self.told.queue_at = self.now;
            if self.told.queue.replace((rev, board)) != Some((rev, board)) {
                let payload = wire::json(&self.queue_state(0, QUEUE_SHOWN));
                self.push(Output::Publish { topic: Topic::Queue, payload });
            }
        }
        if self.told.volume.replace(self.volume) != Some(self.volume) {
            self.push(Output::Publish { topic: Topic::Volume, payload: format!("{}", self.volume) });
        }
        if self.told.mute.replace(self.muted) != Some(self.muted) {
            self.push(Output::Publish { topic: Topic::Mute, payload: format!("{}", self.muted) });
        }
        let grade = (self.link.grade(), self.vitals.disk);
        if self.told.health != Some(grade)
            || self.now.since(self.told.health_at) >= health_every(self.budget.is_metered())
        {
            (self.told.health, self.told.health_at) = (Some(grade), self.now);
            let payload = wire::json(&self.health_state());
            self.push(Output::Publish { topic: Topic::Health, payload });
        }
        if self.settings.home_assistant && self.told.described.as_ref() != Some(&self.catalogue.playlists) {
            self.told.described = Some(self.catalogue.playlists.clone());
            let payload = homeassistant::discovery(&self.settings, &self.catalogue.playlists);
            self.push(Output::Describe { payload });
        }
        let view = self.view();
        if self.told.view.as_ref() != Some(&view) {
            self.told.view = Some(view.clone());
            self.push(Output::Show(Box::new(view)));
        }
    }

    fn info(&self) -> Info<'_> {
        let s = &self.settings;
        Info {
            name: &s.name,
            model: &s.model,
            serial: &s.serial,
            version: &s.version,
            boot: &self.boot,
            since: self.at(self.began),
            config: &s.config,
            insecure: s.insecure,
            verbs: Verb::ALL.map(Verb::as_str).to_vec(),
        }
    }

    /// Why it does not sound although it should, and since when.
    pub(crate) fn reason(&self) -> Option<(Reason, Instant)> {
        match self.state() {
            State::NoOutput => Some((Reason::NoOutput, self.now)),
            State::Buffering => self.trouble(),
            _ => None,
        }
    }

    pub(crate) fn now_state(&self) -> Now<'_> {
        let (current, waiting) = (self.line().current(), self.fallback.on);
        let rendition = self.playback.rendition().map(RenditionName::as_str);
        let reason = self.reason().map(|(r, since)| Because {
            code: r.code(),
            text: r.text(),
            since: if r == Reason::NoOutput { None } else { self.at(since) },
        });
        Now {
            rev: self.queue.revision(),
            state: self.state(),
            source: if waiting.is_some() { "fallback" } else { "queue" },
            entry: current.map(|e| e.id).filter(|id| !is_fallback(*id)),
            track: current.map(|e| {
                let (title, artist, album) = self.names(e);
                Track { title, artist, album, ..Track::from(e) }
            }),
            by: current.map(|e| e.by.as_str()).filter(|by| !by.is_empty()),
            position_ms: if current.is_some() { self.playback.position(self.line()).as_ms() } else { 0 },
            at: self.at(self.now),
            clock: if self.clock.is_some() { "synced" } else { "unknown" },
            rendition,
            waiting: waiting.and_then(|w| {
                let (entry, r) = w.entry?;
                Some(Waiting { entry, reason: Because { code: r.code(), text: r.text(), since: self.at(w.since) } })
            }),
            stops_after: self.stop_after.is_some(),
            reason,
        }
    }

    pub(crate) fn queue_state(&self, offset: usize, limit: usize) -> QueueState<'_> {
        let entries = self.queue.iter().skip(offset).take(limit).map(|e| QueueEntry {
            entry: e.id,
            track: e.track,
            title: &e.title,
            artist: &e.artist,
            duration_ms: e.duration_ms,
            by: &e.by,
            on_board_pct: self.planner.on_board_pct(e.id),
            kind: wire::kind(e),
            url: wire::url(e),
        });
        let entries: Vec<_> = entries.collect();
        QueueState { rev: self.queue.revision(), total: self.queue.len(), total_ms: self.queue.total_ms(), entries }
    }

    pub(crate) fn health_state(&self) -> Health<'_> {
        let seconds = |s: Span| (s.as_ms() as f64) / 1_000.0;
        let silence = self.playback.silence();
        let today = Span(silence.0.saturating_sub(self.told.silence_before_today.0));
        let heard = self.playback.heard();
        let metered = self.budget.told(self.unix(self.now));
        Health {
            link: self.link.grade(),
            on_board_queue_s: self.on_board().as_s(),
            on_board_total_s: self.on_board_in_all().as_s(),
            unplanned_silence_s: Silence { today: seconds(today), since_boot: seconds(silence) },
            underruns: heard.underrun_frames,
            xruns: heard.xruns,
            disk_free_mb: self.vitals.disk_free_mb,
            disk: self.card_trouble().map(|(r, since)| Because {
                code: r.code(),
                text: r.text(),
                since: self.at(since),
            }),
            written_mb_today: self.written_mb_today(),
            wasted_kb: self.wasted / 1_000,
            catalogue_tracks: self.catalogue.tracks,
            cpu_c: self.vitals.cpu_c,
            throttled: self.vitals.throttled.as_deref(),
            bytes_month: (!metered.is_empty()).then(|| metered.iter().map(|m| m.bytes_month).sum()),
            forecast_mb_month: metered.iter().map(|m| m.forecast_mb_month).reduce(|a, b| Some(a? + b?)).flatten(),
            metered,
            origins: &self.vitals.origins,
        }
    }

    /// Playable time from the playhead on without a hole and without any link.
    pub(crate) fn on_board(&self) -> Span {
        self.on_board_up_to(Span(u64::MAX))
    }

    /// The same, counted no further than it takes to reach `enough`.
    pub(crate) fn on_board_up_to(&self, enough: Span) -> Span {
        let (mut all, mut before) = (Span(0), None);
        for (i, e) in self.queue.iter().enumerate() {
            let from = if i == 0 { self.playback.position(&self.queue) } else { Frames::default() };
            let (level, whole) = self.planner.level(e.id, from);
            // Where two are cross-faded, one second holds two of music.
            let this = (e.id, Span::ms(e.duration_ms));
            let crossed =
                before.replace(this).map_or(Span(0), |a| longest_overlap(a, this, &self.planner, &self.settings));
            all.0 = (all.0 + level.0).saturating_sub(crossed.min(level).0);
            if !whole || all >= enough {
                break;
            }
        }
        all
    }

    /// Playable time without any link: the queue's, and the fallback's.
    fn on_board_in_all(&self) -> Span {
        let spare = self.fallback.list.iter().map(|e| self.planner.level(e.id, Frames::default()).0.0);
        Span(self.on_board().0 + spare.sum::<u64>())
    }

    /// The screen.
    pub(crate) fn view(&self) -> View {
        let mut v = self.screen();
        v.overlay = self.overlay_until.map(|_| VolumeOverlay { percent: self.volume, muted: self.muted });
        v.strip = Some(Strip {
            link: self.link.grade(),
            bots: self.bots || !self.settings.broker,
            volume: self.volume,
            muted: self.muted,
            up_next: self.queue.len().saturating_sub(1).min(255) as u8,
        });
        v
    }

    fn screen(&self) -> View {
        match &self.notice {
            Some((Notice::Page, _)) => return self.information(),
            Some((Notice::Word { headline, title, detail }, _)) => {
                let icon = if *headline == "Skipped" { Icon::Skip } else { Icon::Note };
                let (headline, title, detail) = (Text::new(headline), Text::new(title), Text::new(detail));
                return View { icon, headline, title, detail, ..View::default() };
            }
            None => {}
        }
        let Some(entry) = self.line().current() else { return self.idle() };
        let state = self.state();
        let at = self.playback.position(self.line());
        let (at_s, of_s) = ((at.as_ms() / 1_000) as u32, (entry.duration_ms / 1_000) as u32);
        let progress = (!entry.is_endless()).then_some(Progress { at_s, of_s });
        let (icon, headline) = match state {
            State::Playing if self.waits_for().is_some() => (Icon::NoLink, Text::new("Fallback while the queue waits")),
            State::Playing if self.fallback.on.is_some() => (Icon::Play, Text::new("Nothing queued, playing on")),
            State::Playing => (Icon::Play, self.playing_headline()),
            State::Paused => (Icon::Pause, Text::new("Paused")),
            State::Stopped => (Icon::Stop, Text::new("Stopped")),
            State::NoOutput => (Icon::NoSound, Text::new(Reason::NoOutput.short())),
            State::Buffering => match self.trouble() {
                Some((r, _)) => (Icon::NoLink, text(format_args!("Silent: {}", lower(r.short())))),
                None if entry.stream.is_some() => (Icon::Wait, Text::new("Tuning in")),
                None if self.planner.level(entry.id, at).0 > Span(0) => (Icon::Wait, Text::new("Starting")),
                None => (Icon::Wait, Text::new("Fetching")),
            },
        };
        let detail = match (state, self.warning()) {
            (State::NoOutput, _) => match self.playback.output_state() {
                OutputState::Missing { .. } => Text::new("Check the DAC; the music waits where it is"),
                _ => Text::default(),
            },
            (State::Buffering, _) if self.trouble().is_some() => match self.waits_since() {
                Some(t) => text(format_args!("For {}; nothing is lost", clock(self.now.since(t)))),
                None => Text::new("Nothing is lost; it goes on by itself"),
            },
            (State::Playing, _) if self.waits_for().is_some() => match self.waits_for() {
                Some((title, r, since)) => {
                    let ago = clock(self.now.since(since));
                    text(format_args!("{title} waits, {ago}: {}", lower(r.short())))
                }
                None => Text::default(),
            },
            (_, Some(w)) => Text::new(w),
            (_, None) if self.stop_after.is_some() => Text::new("Stops after this track"),
            (_, None) => match self.line().iter().nth(1) {
                Some(next) if next.artist.is_empty() => text(format_args!("Next: {}", next.title)),
                Some(next) => text(format_args!("Next: {}, {}", next.title, next.artist)),
                None => Text::default(),
            },
        };
        let (title, artist, _) = self.names(entry);
        let (title, artist) = (Text::new(title), Text::new(artist));
        // While sound waits for the link a cover has to.
        let record = self.planner.record(entry.id).filter(|_| state != State::Buffering);
        let cover = record.and_then(|r| r.cover);
        View { icon, headline, title, artist, detail, progress, cover, ..View::default() }
    }

    /// The title that is waited for while the fallback plays, why, and since when.
    fn waits_for(&self) -> Option<(&str, Reason, Instant)> {
        let waiting = self.fallback.on?;
        let (id, reason) = waiting.entry?;
        Some((self.queue.find(id)?.1.title.as_str(), reason, waiting.since))
    }

    /// Since when sound is waited for.
    fn waits_since(&self) -> Option<Instant> {
        let live = self.line().current().is_some_and(|e| e.stream.is_some());
        if live { self.trouble().map(|t| t.1) } else { self.link.down_since() }
    }

    fn playing_headline(&self) -> Text {
        if let Some(e) = self.line().current().filter(|e| e.stream.is_some()) {
            return match self.trouble() {
                Some(_) => Text::new("Station gone, playing what has come"),
                None if self.names(e).0 == e.title => Text::new("Live"),
                None => text(format_args!("Live: {}", e.title.chars().take(36).collect::<String>())),
            };
        }
        match self.planner.trouble() {
            Some((r, _)) if r.who() == Who::Network || r == Reason::Refused => {
                text(format_args!("Link lost, {} min on board", self.on_board().as_s() / 60))
            }
            _ => Text::new("Playing"),
        }
    }

    /// Trouble that does not touch the sound yet, worst first.
    fn warning(&self) -> Option<&'static str> {
        let throttled = self.vitals.throttled.as_deref().unwrap_or_default();
        let trouble = self.planner.trouble().map(|t| t.0).filter(|r| r.who() != Who::Network);
        if let Some(disk) = self.vitals.disk {
            Some(disk.short())
        } else if throttled.contains(&Throttle::UnderVoltage) {
            Some("Power supply too weak")
        } else if throttled.contains(&Throttle::Hot) || self.vitals.cpu_c.is_some_and(|c| c >= HOT_C) {
            Some("Too hot, and slowed down")
        } else if let Some(r) = trouble.filter(|r| *r != Reason::Refused) {
            Some(r.short())
        } else if self.name_taken {
            Some("Another player uses this name")
        } else if self.catalogue.newer {
            Some("The library is newer than this player")
        } else if self.catalogue.refused.is_some() {
            Some("The office's library was refused")
        } else if self.catalogue.reason == Some(Reason::Tls) {
            Some(Reason::Tls.short())
        } else if self.settings.broker && !self.bots && self.now.since(self.began) > Span::s(60) {
            Some("Bots offline, music fine")
        } else {
            None
        }
    }

    /// Nothing is queued.
    fn idle(&self) -> View {
        let c = &self.catalogue;
        let (icon, headline, detail) = match (self.warning(), c.tracks, c.reason) {
            (_, None, Some(r)) => (Icon::NoLink, Text::new(r.short()), Text::new("Trying again by itself")),
            (_, None, None) if c.newer => {
                (Icon::Warning, Text::new("Library newer than this player"), Text::new("Update the player"))
            }
            (_, None, None) => {
                let detail = text(format_args!("{} %, {} kbit/s", c.fetched_pct, c.kbps));
                (Icon::Wait, Text::new("Fetching the catalogue"), detail)
            }
            (Some(w), Some(_), _) => (Icon::Note, Text::new("Nothing queued"), Text::new(w)),
            (None, Some(n), _) => {
                (Icon::Note, Text::new("Nothing queued"), text(format_args!("Ask the bot: {n} tracks")))
            }
        };
        View { icon, headline, title: Text::new(&self.settings.name), detail, ..View::default() }
    }

    fn information(&self) -> View {
        let s = &self.settings;
        let plain = if s.insecure { ", plain connections" } else { "" };
        View {
            icon: Icon::Info,
            headline: text(format_args!("{} at {}", s.player, s.site)),
            title: Text::new(&s.name),
            artist: text(format_args!("{}{plain}", s.office)),
            detail: text(format_args!("Version {}, {} min on board", s.version, self.on_board().as_s() / 60)),
            ..View::default()
        }
    }

    /// The line that `jukebox status` prints: the same words as on the panel.
    pub fn sentence(&self) -> String {
        let v = self.screen();
        let mut line = String::from(v.headline.as_str());
        for part in [&v.title, &v.artist, &v.detail] {
            if !part.is_empty() {
                line.push_str(if self.playback.intent() == Intent::Stopped { ". " } else { " - " });
                line.push_str(part.as_str());
            }
        }
        line
    }
}

fn text(args: core::fmt::Arguments<'_>) -> Text {
    let mut t = Text::default();
    // What does not fit is cut.
    let _ = t.write_fmt(args);
    t
}

/// Minutes and seconds: `2:10`.
fn clock(s: Span) -> String {
    format!("{}:{:02}", s.as_s() / 60, s.as_s() % 60)
}

/// A sentence as the second half of another.
fn lower(s: &str) -> String {
    let mut chars = s.chars();
    chars.next().map_or(String::new(), |c| c.to_lowercase().chain(chars).collect())
}
