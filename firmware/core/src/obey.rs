//! Carries out commands and gestures: admitted once, always answered.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::checkpoint::{Intent, StopAfter};
use crate::command::{self, Command, Mode, Refusal, Request, Verb, What};
use crate::exchange::{Incoming, List, Listed, Output, Source};
use crate::fallback::is_fallback;
use crate::gesture::{Button, Gesture};
use crate::jukebox::{Ask, Jukebox, Notice, Pending};
use crate::library::{Row, TrackId, playlist_id};
use crate::queue::{Entry, MAX_ENTRIES, NotAdded, NotMoved, Place, Stream, Where};
use crate::reason::Code;
use crate::sound::EntryId;
use crate::station::{self, Url};
use crate::time::{Frames, Span};
use crate::wire::{self, HistoryPlay, Hit, State};

/// Commands that may wait for the catalogue at once; more are told that the player is busy.
const MAX_PENDING: usize = 64;
/// Further into a track `previous` goes to its start.
const RESTARTS_AFTER_MS: u64 = 3_000;
/// The volume shows on the panel for so long.
const OVERLAY: Span = Span::s(2);

impl Jukebox {
    /// Takes a command in. Exactly one reply goes out for it, now or when the catalogue has answered.
    pub(crate) fn obey(&mut self, c: Incoming) {
        let print = command::print(&c.verb, &c.payload);
        let mut ask = Ask {
            tokens: vec![c.token],
            verb: c.verb.clone(),
            id: None,
            print,
            asks: Verb::parse(&c.verb).is_none_or(Verb::asks),
            source: c.source,
        };
        let request = match self.admit(&c, &mut ask) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            // Refused at the door: nothing happened that must happen only once.
            Err(refusal) => return self.answer(&Ask { asks: true, ..ask }, Err(refusal)),
        };
        if let Err(refusal) = self.still_at(request.if_rev) {
            return self.answer(&ask, Err(refusal));
        }
        match &request.command {
            Command::Add { what: What::Track(track), .. } => {
                let track = *track;
                let token = self.wait_for_catalogue(ask, request);
                self.push(Output::Lookup { token, track });
            }
            Command::Add { what: What::Text(text), .. } => {
                let text = text.clone();
                let token = self.wait_for_catalogue(ask, request);
                self.push(Output::Search { token, text, limit: 5, offset: 0 });
            }
            Command::Search { text, limit, offset } => {
                let (text, limit, offset) = (text.clone(), *limit, *offset);
                let token = self.wait_for_catalogue(ask, request);
                self.push(Output::Search { token, text, limit, offset });
            }
            Command::Playlist { name, shuffle, .. } => {
                let (list, shuffle) = (List::Playlist(self.playlist_named(name)), *shuffle);
                let seed = shuffle.then(|| self.throw_dice());
                let token = self.wait_for_catalogue(ask, request);
                self.push(Output::List { token, list, seed, offset: 0, limit: MAX_ENTRIES as u32 });
            }
            _ => {
                let outcome = self.carry_out(&request, ask.source);
                self.answer(&ask, outcome);
            }
        }
    }

    /// Lets a command in, or says why not. `None`: it was answered already, or will be with the first of its id.
    fn admit(&mut self, c: &Incoming, ask: &mut Ask) -> Result<Option<Request>, Refusal> {
        let refuse = |code, reason: &str| Err(Refusal::new(code, reason));
        let parsed = command::parse(&c.verb, &c.payload);
        ask.id = match &parsed {
            Ok(r) => r.id.clone(),
            Err((id, _)) => id.clone(),
        };
        if let Some(id) = ask.id.clone().filter(|_| !ask.asks)
            && self.said_before(&id, c.token, ask)?
        {
            return Ok(None);
        }
        if c.retained {
            return refuse(
                Code::Retained,
                "Commands must not be retained: it would be obeyed again at every reconnect.",
            );
        }
        if c.expired {
            return refuse(Code::Expired, "The command expired before it could be obeyed.");
        }
        if c.bad_response_topic {
            let reason = format!("A response topic lies under jukebox/1/{}/reply/.", self.settings.site);
            return Err(Refusal::new(Code::BadResponseTopic, reason));
        }
        if c.source == Source::Mqtt && !self.allowance.take(self.now) {
            let busy = Refusal::new(Code::Busy, "More than 20 commands a second; try again in a second.");
            return Err(Refusal { retry_after_s: Some(1), ..busy });
        }
        let request = parsed.map_err(|(_, refusal)| refusal)?;
        if c.for_all && !request.verb.for_all() {
            return refuse(Code::NotAllowed, "This verb is not for all players at once.");
        }
        if c.backlog && request.verb != Verb::Add {
            return refuse(Code::Late, "The player was away when this was sent; say it again if you still want it.");
        }
        let stream = matches!(request.command, Command::Add { what: What::Url(_), .. });
        let waits = matches!(request.command, Command::Add { .. } | Command::Search { .. } | Command::Playlist { .. });
        let waits = waits && !stream;
        if waits && self.pending.len() >= MAX_PENDING {
            let busy = Refusal::new(Code::Busy, "Too many commands wait for the catalogue; try again in a second.");
            return Err(Refusal { retry_after_s: Some(1), ..busy });
        }
        Ok(Some(request))
    }

    /// A command of this id was said before: its answer is given again, or will be to both. An answer that was given while
    /// the broker waited for the acknowledgement comes back as backlog: it is not late.
    fn said_before(&mut self, id: &str, token: u64, ask: &Ask) -> Result<bool, Refusal> {
        let again = |print| {
            let reused = "This id was used for another command.";
            if print == ask.print { Ok(()) } else { Err(Refusal::new(Code::IdReused, reused)) }
        };
        if let Some(seen) = self.window.find(id) {
            again(seen.print)?;
            let payload = wire::replayed(&seen.reply);
            self.reply_now(token, payload, true);
            return Ok(true);
        }
        if let Some(p) = self.pending.iter_mut().find(|p| p.ask.id.as_deref() == Some(id)) {
            again(p.ask.print)?;
            p.ask.tokens.push(token);
            return Ok(true);
        }
        Ok(false)
    }

    /// The queue may have changed since the sender looked.
    fn still_at(&self, rev: Option<u64>) -> Result<(), Refusal> {
        let now = self.queue.revision();
        match rev {
            Some(rev) if rev != now => {
                let reason = format!("The queue has changed: it is at revision {now}, not {rev}.");
                Err(Refusal { field: Some("if_rev".into()), ..Refusal::new(Code::RevMismatch, reason) })
            }
            _ => Ok(()),
        }
    }

    fn wait_for_catalogue(&mut self, ask: Ask, request: Request) -> u64 {
        self.questions += 1;
        self.pending.push(Pending { question: self.questions, since: self.now, ask, request });
        self.questions
    }

    /// The catalogue has answered.
    pub(crate) fn found(&mut self, token: u64, hits: Option<(Vec<Row>, u64)>, on_board: &[TrackId]) {
        let Some(i) = self.pending.iter().position(|p| p.question == token) else { return };
        let Pending { ask, request, .. } = self.pending.remove(i);
        let outcome = match (hits, &request.command) {
            (None, _) => Err(no_catalogue()),
            (Some((hits, total)), Command::Search { .. }) => {
                Ok(json!({"results": hits.iter().map(|h| self.hit(h, on_board)).collect::<Vec<_>>(), "total": total}))
            }
            (Some((hits, total)), Command::Add { what, place, twice, strict, .. }) => {
                let by = request.by.clone().unwrap_or_else(|| default_by(ask.source).into());
                self.still_at(request.if_rev)
                    .and_then(|()| self.add(what, &hits, on_board, total, &by, *place, *twice, *strict))
            }
            _ => Err(Refusal::new(Code::Internal, "An answer that nobody asked for.")),
        };
        self.answer(&ask, outcome);
    }

    /// The catalogue has answered with a list.
    pub(crate) fn listed(&mut self, token: u64, list: Option<Listed>) {
        let Some(i) = self.pending.iter().position(|p| p.question == token) else { return };
        let Pending { ask, request, .. } = self.pending.remove(i);
        let by = request.by.clone().unwrap_or_else(|| default_by(ask.source).into());
        let outcome = match (&request.command, list) {
            (Command::Playlist { .. }, None) if self.catalogue.tracks.is_none() => Err(no_catalogue()),
            (Command::Playlist { name, .. }, None) => {
                let name: String = name.chars().take(80).collect();
                let reason = format!("There is no playlist '{name}'; the verb playlists names them.");
                Err(Refusal { field: Some("name".into()), ..Refusal::new(Code::UnknownPlaylist, reason) })
            }
            (Command::Playlist { name, mode, .. }, Some(list)) => {
                self.still_at(request.if_rev).and_then(|()| self.add_playlist(name, *mode, &list, &by))
            }
            _ => Err(Refusal::new(Code::Internal, "An answer that nobody asked for.")),
        };
        self.answer(&ask, outcome);
    }

    fn add_playlist(&mut self, name: &str, mode: Mode, list: &Listed, by: &str) -> Result<Value, Refusal> {
        if list.rows.is_empty() {
            let name: String = name.chars().take(80).collect();
            return Err(Refusal::new(Code::NotFound, format!("The library holds none of the tracks of '{name}'.")));
        }
        if mode == Mode::Replace {
            self.remember_current(self.playback.position(&self.queue), true);
            self.take_out(|_| true, by, None);
        }
        let fresh = self.queue.is_empty();
        let room = MAX_ENTRIES - self.queue.len();
        let rows = list.rows.iter().take(room);
        // A playlist is wanted whole: what is queued already comes again. Each goes right after the current one, the last first.
        let added: Vec<EntryId> = if mode == Mode::Next && !fresh {
            let ids = rows.rev().filter_map(|r| self.queue.add(r, by, Where::Next, true).ok());
            ids.collect::<Vec<_>>().into_iter().rev().collect()
        } else {
            rows.filter_map(|r| self.queue.add(r, by, Where::End, true).ok()).collect()
        };
        if added.is_empty() {
            return Err(self.full());
        }
        added.iter().for_each(|id| self.entry_added(*id));
        self.event("added", json!({"playlist": name, "entries": added, "by": by}));
        if mode == Mode::Replace {
            self.restart_head();
        } else {
            self.line_changed();
        }
        if self.playback.intent() == Intent::Stopped {
            self.set_intent(Intent::Playing, by);
        }
        let left_out = u64::from(list.total) - u64::from(list.missing) - added.len() as u64;
        Ok(json!({"added": added.len(), "missing": list.missing, "left_out": left_out}))
    }

    /// The id of the playlist that somebody means by its id or its name, in whatever letters.
    fn playlist_named(&self, name: &str) -> String {
        let (id, name) = (playlist_id(name), name.trim().to_lowercase());
        let named = self.catalogue.playlists.iter().find(|l| l.id == name || l.name.to_lowercase() == name);
        named.map_or(id, |l| l.id.clone())
    }

    fn hit<'r>(&self, row: &'r Row, on_board: &[TrackId]) -> Hit<'r> {
        // Of what is queued the planner knows also a whole that was put together of several renditions.
        let entry = self.queue.iter().find(|e| e.track == row.id);
        let on_board = on_board.contains(&row.id) || entry.is_some_and(|e| self.planner.on_board_pct(e.id) == 100);
        let (title, artist, album) = (&row.title, &row.artist, &row.album);
        Hit { track: row.id, title, artist, album, duration_ms: row.duration_ms, on_board }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command")]
    fn add(
        &mut self,
        what: &What,
        hits: &[Row],
        on_board: &[TrackId],
        total: u64,
        by: &str,
        place: Where,
        twice: bool,
        strict: bool,
    ) -> Result<Value, Refusal> {
        let Some(best) = hits.first() else {
            return Err(match what {
                What::Url(_) => Refusal::new(Code::Internal, "The catalogue was asked for a stream."),
                What::Track(t) => Refusal::new(Code::UnknownTrack, format!("The library has no track {t}.")),
                What::Text(t) => {
                    let t: String = t.chars().take(80).collect();
                    Refusal::new(Code::NotFound, format!("Nothing matches '{t}'."))
                }
            });
        };
        if strict && total > 1 {
            let names = hits.iter().map(|h| format!("{} by {} (track:{})", h.title, h.artist, h.id));
            let names = names.collect::<Vec<_>>().join("; ");
            return Err(Refusal::new(Code::Ambiguous, format!("{total} tracks match: {names}.")));
        }
        let id = self.queue.add(best, by, place, twice).map_err(|e| self.not_added(e, &best.title))?;
        let starts_in_s = self.added(id, by, place);
        let also: Vec<_> = hits.iter().skip(1).take(4).map(|h| self.hit(h, on_board)).collect();
        Ok(json!({"entry": id, "track": self.hit(best, on_board), "starts_in_s": starts_in_s, "also": also}))
    }

    fn add_stream(
        &mut self,
        url: &str,
        for_s: Option<u32>,
        by: &str,
        place: Where,
        twice: bool,
    ) -> Result<Value, Refusal> {
        let refuse = |code, reason: String| Refusal { field: Some("url".into()), ..Refusal::new(code, reason) };
        let parsed: Url =
            url.parse().map_err(|e| refuse(Code::UrlNotAllowed, format!("This URL is not taken: {e}.")))?;
        if !station::allowed(&self.settings.streams, &parsed) {
            let host = &parsed.host;
            let reason =
                format!("{host} is not allowed here; `allow` under [streams] in the configuration lists what is.");
            return Err(refuse(Code::UrlNotAllowed, reason));
        }
        let name = parsed.short();
        let stream = Stream { url: url.into(), for_s };
        let added = self.queue.add_stream(stream, &name, by, place, twice);
        let id = added.map_err(|e| self.not_added(e, &name))?;
        let starts_in_s = self.added(id, by, place);
        let track = self.queue.find(id).map(|(_, e)| {
            let (title, artist, album) = (&e.title, &e.artist, &e.album);
            Hit { track: e.track, title, artist, album, duration_ms: e.duration_ms, on_board: false }
        });
        Ok(json!({"entry": id, "track": track, "starts_in_s": starts_in_s, "also": []}))
    }

    fn not_added(&self, why: NotAdded, title: &str) -> Refusal {
        match why {
            NotAdded::Full => self.full(),
            NotAdded::Duplicate(e) => {
                let reason = format!("{title} is among the next 20 already, as entry {}.", e.0);
                Refusal::new(Code::Duplicate, reason)
            }
        }
    }

    /// An entry was added: what follows from that, and in how many seconds it starts; none behind a stream without an end.
    fn added(&mut self, id: EntryId, by: &str, place: Where) -> Option<u64> {
        self.entry_added(id);
        self.line_changed();
        let track = self.queue.find(id).map(|(_, e)| e.track);
        self.event("added", json!({"entry": id, "track": track, "by": by}));
        if self.playback.intent() == Intent::Stopped {
            self.set_intent(Intent::Playing, by);
        }
        let (at, entry) = self.queue.find(id)?;
        if self.queue.iter().take(at).any(Entry::is_endless) {
            return None;
        }
        let starts_in = match place {
            _ if at == 0 => 0,
            Where::Next => self.queue.current().map_or(0, |e| self.left_of(e.id, e.duration_ms)),
            Where::End => self.time_to_go().saturating_sub(entry.duration_ms),
        };
        Some(starts_in / 1_000)
    }

    fn full(&self) -> Refusal {
        let s = starts_in_next(self.time_to_go(), self.queue.total_ms(), self.queue.len());
        let wait = Self::in_words(s);
        let reason = format!("The queue is full ({MAX_ENTRIES}). Try again in about {wait}.");
        Refusal { retry_after_s: Some(s), ..Refusal::new(Code::QueueFull, reason) }
    }

    /// What is left of the whole queue, in milliseconds.
    fn time_to_go(&self) -> u64 {
        let played = self.playback.position(&self.queue).as_ms();
        self.queue.total_ms().saturating_sub(if self.queue.is_empty() { 0 } else { played })
    }

    fn left_of(&self, entry: EntryId, duration_ms: u64) -> u64 {
        let current = self.queue.current().is_some_and(|e| e.id == entry);
        duration_ms.saturating_sub(if current { self.playback.position(&self.queue).as_ms() } else { 0 })
    }

    /// Another entry comes after the current one: what was given of the old one is taken back.
    pub(crate) fn behind_current_changed(&mut self) {
        let Some(current) = self.queue.current().map(|e| e.id) else { return };
        if !self.playback.take_back(current) {
            // It is in the ring: the current one goes on from its playhead in a new generation.
            let at = self.playback.position(&self.queue);
            self.playback.rewind(at, true);
        }
    }

    /// The queue has changed behind the current entry: if the decoder has another order, what it has is taken back.
    fn line_changed(&mut self) {
        let ids: Vec<EntryId> = self.queue.iter().map(|e| e.id).collect();
        let fits = |(i, fed): (usize, EntryId)| ids.get(i).map_or(is_fallback(fed), |id| *id == fed);
        let same = self.playback.fed().enumerate().all(fits);
        if !same {
            self.behind_current_changed();
        }
    }

    /// Everything that needs no catalogue.
    fn carry_out(&mut self, request: &Request, source: Source) -> Result<Value, Refusal> {
        let by = request.by.clone().unwrap_or_else(|| default_by(source).into());
        Ok(match &request.command {
            Command::Play => self.want(Intent::Playing, &by),
            Command::Pause => self.want(Intent::Paused, &by),
            Command::Toggle => self.toggle(&by),
            Command::Stop { after_track: false } => self.want(Intent::Stopped, &by),
            Command::Stop { after_track: true } => self.stop_after(&by),
            Command::Previous => self.previous(&by)?,
            Command::SeekTo(ms) => self.seek(*ms, &by)?,
            Command::SeekBy(ms) => {
                let at = self.playback.position(&self.queue).as_ms();
                self.seek(at.saturating_add_signed(*ms), &by)?
            }
            Command::Skip(entry) => self.skip(*entry, &by)?,
            Command::VolumeTo(to) => self.volume((*to).into(), &by),
            Command::VolumeBy(change) => self.volume(i32::from(self.volume) + i32::from(*change), &by),
            Command::Mute(on) => {
                self.set_mute(on.unwrap_or(!self.muted), &by);
                self.overlay_until = Some(self.now + OVERLAY);
                json!({"on": self.muted})
            }
            Command::Remove(id) => self.remove(*id, &by)?,
            Command::Move(id, place) => self.shift(*id, *place, &by)?,
            Command::Clear { only_by } => {
                let current = self.queue.current().map(|e| e.id);
                let theirs = |e: &Entry| only_by.as_ref().is_none_or(|who| e.by == *who);
                let removed = self.take_out(|e| Some(e.id) != current && theirs(e), &by, only_by.as_deref());
                self.line_changed();
                json!({"removed": removed})
            }
            Command::Playlists(part) => {
                let all = &self.catalogue.playlists;
                let lists: Vec<_> = all.iter().skip(part.offset).take(part.limit).collect();
                json!({"playlists": lists, "total": all.len()})
            }
            Command::Queue(part) => value(&self.queue_state(part.offset, part.limit)),
            Command::History(part) => {
                let plays = self.history.iter().skip(part.offset).take(part.limit).map(HistoryPlay::from);
                json!({"plays": plays.collect::<Vec<_>>(), "total": self.history.len()})
            }
            Command::Now => value(&self.now_state()),
            Command::Health => value(&self.health_state()),
            Command::Ping(nonce) => json!({"nonce": nonce, "boot": self.boot}),
            Command::Add { what: What::Url(url), place, twice, for_s, .. } => {
                self.add_stream(url, *for_s, &by, *place, *twice)?
            }
            Command::Add { .. } | Command::Search { .. } | Command::Playlist { .. } => {
                return Err(Refusal::new(Code::Internal, "The catalogue was not asked."));
            }
        })
    }

    fn want(&mut self, intent: Intent, by: &str) -> Value {
        // With nothing queued there is nothing to play or to hold.
        let stays = intent != Intent::Paused && self.stop_after.is_some();
        if stays {
            self.set_stop_after(None);
        }
        let nothing = self.queue.is_empty() && !self.stands_in_for_silence();
        let idle = nothing || (intent == Intent::Paused && self.playback.intent() == Intent::Stopped);
        let changed = if idle && intent != Intent::Stopped { stays } else { self.set_intent(intent, by) || stays };
        json!({"state": self.state(), "changed": changed})
    }

    fn toggle(&mut self, by: &str) -> Value {
        let to = if self.playback.intent() == Intent::Playing { Intent::Paused } else { Intent::Playing };
        self.want(to, by)
    }

    fn volume(&mut self, percent: i32, by: &str) -> Value {
        self.set_volume(percent, by);
        self.overlay_until = Some(self.now + OVERLAY);
        json!({"percent": self.volume, "ceiling": self.settings.volume_max})
    }

    fn skip(&mut self, entry: Option<EntryId>, by: &str) -> Result<Value, Refusal> {
        if self.fallback.on.is_some()
            && entry.is_none()
            && let Some(id) = self.fallback.list.current().map(|e| e.id)
        {
            self.skip_fallback(id, by, None);
            return Ok(json!({"entry": null}));
        }
        let current = self.queue.current().map(|e| e.id);
        match (entry, current) {
            // Naming the entry makes repeating harmless: it is not current any more, so nothing is skipped.
            (Some(e), Some(c)) if e != c && self.queue.find(e).is_some() => {
                let reason = format!("Entry {} is not playing; to take it out say remove {0}.", e.0);
                return Err(Refusal { field: Some("entry".into()), ..Refusal::new(Code::UnknownEntry, reason) });
            }
            (Some(e), c) if Some(e) != c => {
                let reason = format!("Entry {} is not in the queue any more.", e.0);
                return Err(Refusal { field: Some("entry".into()), ..Refusal::new(Code::UnknownEntry, reason) });
            }
            (_, Some(c)) => {
                self.skip_entry(c, by, None);
                self.restart_head();
            }
            (_, None) => {}
        }
        Ok(json!({"entry": self.queue.current().map(|e| e.id)}))
    }

    /// Planned silence once the current entry has ended.
    fn stop_after(&mut self, by: &str) -> Value {
        let current = self.queue.current().filter(|_| self.playback.intent() != Intent::Stopped).map(|e| e.id);
        let news = current.is_some() && self.stop_after.is_none();
        if let Some(entry) = current.filter(|_| news) {
            self.set_stop_after(Some(StopAfter { entry, by: by.into() }));
            self.behind_current_changed();
        }
        json!({"state": self.state(), "changed": news})
    }

    /// More than 3 s into the track: its start. Else the last of the history comes back before it.
    fn previous(&mut self, by: &str) -> Result<Value, Refusal> {
        let entry = match self.history.last() {
            Some((_, play)) if self.is_at_its_start() => play.entry.clone(),
            _ => {
                self.restart_head();
                self.save_position();
                return Ok(json!({"entry": self.queue.current().map(|e| e.id), "position_ms": 0}));
            }
        };
        let (fresh, track) = (self.queue.is_empty(), entry.track);
        let id = self.queue.put_first(entry).map_err(|_| self.full())?;
        self.forget_last_play();
        self.entry_added(id);
        self.event("added", json!({"entry": id, "track": track, "by": by}));
        self.restart_head();
        if fresh {
            self.set_intent(Intent::Playing, by);
        }
        self.save_position();
        Ok(json!({"entry": id, "position_ms": 0}))
    }

    /// A stream has no start to go back to.
    fn is_at_its_start(&self) -> bool {
        let stream = self.queue.current().is_some_and(|e| e.stream.is_some());
        stream || self.playback.position(&self.queue).as_ms() <= RESTARTS_AFTER_MS
    }

    /// Goes elsewhere in the current track. Beyond its end is the next one.
    fn seek(&mut self, ms: u64, by: &str) -> Result<Value, Refusal> {
        let Some(entry) = self.queue.current().filter(|_| self.playback.intent() != Intent::Stopped) else {
            return Err(Refusal::new(Code::NotSeekable, "Nothing plays; say play or add first."));
        };
        let id = entry.id;
        if entry.stream.is_some() {
            return Err(Refusal::new(Code::NotSeekable, "A live stream has no other place to go to."));
        }
        if ms >= entry.duration_ms {
            self.skip(None, by)?;
            return Ok(json!({"entry": self.queue.current().map(|e| e.id), "position_ms": 0}));
        }
        let rate = self.planner.rate(id).unwrap_or(48_000);
        let at = Frames::from_ms(ms, rate);
        if self.fallback.on.is_some() {
            // It goes on there when its time comes.
            self.playback.set_aside(at);
        } else {
            self.playback.rewind(at, self.planner.level(id, at).0 > Span(0));
        }
        self.planner.hurry(self.now);
        self.save_position();
        Ok(json!({"entry": id, "position_ms": ms}))
    }

    fn shift(&mut self, id: EntryId, place: Place, by: &str) -> Result<Value, Refusal> {
        let before = self.queue.revision();
        let place = self.queue.shift(id, place).map_err(|e| match e {
            NotMoved::Unknown(e) => {
                let field = if e == id { "entry" } else { "before" };
                let refusal = Refusal::new(Code::UnknownEntry, format!("Entry {} is not in the queue.", e.0));
                Refusal { field: Some(field.into()), ..refusal }
            }
            NotMoved::Current(e) if e == id => {
                Refusal::new(Code::NotAllowed, format!("Entry {} is the current one; it keeps its place.", e.0))
            }
            NotMoved::Current(e) => {
                Refusal::new(Code::NotAllowed, format!("Entry {} is the current one; nothing goes before it.", e.0))
            }
        })?;
        if self.queue.revision() != before {
            self.queue_changed();
            let track = self.queue.find(id).map(|(_, e)| e.track);
            self.event("moved", json!({"entry": id, "track": track, "place": place, "by": by}));
            self.line_changed();
        }
        Ok(json!({"place": place}))
    }

    /// Takes entries out together: those of which `which` says so.
    fn take_out(&mut self, which: impl Fn(&Entry) -> bool, by: &str, only_by: Option<&str>) -> usize {
        let gone: Vec<EntryId> = self.queue.iter().filter(|e| which(e)).map(|e| e.id).collect();
        for id in &gone {
            self.queue.remove(*id);
            self.entry_forgotten(*id);
        }
        if !gone.is_empty() {
            self.queue_changed();
            self.event("cleared", json!({"removed": gone.len(), "entries": gone, "only_by": only_by, "by": by}));
        }
        gone.len()
    }

    fn remove(&mut self, id: EntryId, by: &str) -> Result<Value, Refusal> {
        let Some((place, _)) = self.queue.find(id) else {
            let refusal = Refusal::new(Code::UnknownEntry, format!("Entry {} is not in the queue.", id.0));
            return Err(Refusal { field: Some("entry".into()), ..refusal });
        };
        if place == 0 {
            self.remember_current(self.playback.position(&self.queue), true);
        }
        if let Some(e) = self.queue.remove(id) {
            self.entry_forgotten(id);
            self.queue_changed();
            self.event("removed", json!({"entry": id, "track": e.track, "by": by}));
        }
        if place == 0 {
            self.restart_head();
        } else {
            self.line_changed();
        }
        Ok(json!({"entry": id}))
    }

    /// The table of buttons.
    pub(crate) fn gesture(&mut self, g: Gesture) {
        let by = "button";
        let name = match g {
            Gesture::Press(b) | Gesture::Long(b) | Gesture::Repeat(b) | Gesture::Stuck(b) => b.as_str(),
            Gesture::Turn(_) => "turn",
        };
        let kind = match g {
            Gesture::Press(_) => "press",
            Gesture::Long(_) => "long",
            Gesture::Repeat(_) => "repeat",
            Gesture::Turn(_) => "turn",
            Gesture::Stuck(_) => "stuck",
        };
        if kind != "repeat" {
            self.event("button", json!({"name": name, "gesture": kind, "by": by}));
        }
        let stopped = self.state() == State::Stopped;
        match g {
            Gesture::Press(Button::Play) if self.queue.is_empty() && !self.stands_in_for_silence() => {
                self.word("Nothing queued", "Ask the bot for a track")
            }
            // Without a device it counts as paused: whoever presses wants to hear something.
            Gesture::Press(Button::Play) if self.state() == State::NoOutput => self.planner.hurry(self.now),
            Gesture::Press(Button::Play) => {
                self.toggle(by);
            }
            Gesture::Long(Button::Play) if stopped => self.notice = Some((Notice::Page, self.now + Span::s(15))),
            Gesture::Long(Button::Play) => {
                self.want(Intent::Stopped, by);
            }
            Gesture::Press(Button::Next) if self.queue.len() < 2 && stopped => self.word("Nothing next", ""),
            Gesture::Press(Button::Next) => {
                // A press always means the current entry: nothing can be refused.
                let _ = self.skip(None, by);
            }
            // Boards with four buttons have no other.
            Gesture::Press(Button::Previous) | Gesture::Long(Button::Next) => self.back(),
            Gesture::Press(Button::VolumeUp) | Gesture::Repeat(Button::VolumeUp) => self.turn(2),
            Gesture::Press(Button::VolumeDown) | Gesture::Repeat(Button::VolumeDown) => self.turn(-2),
            Gesture::Turn(n) => self.turn(n.into()),
            Gesture::Press(Button::Knob) => {
                self.set_mute(!self.muted, by);
                self.overlay_until = Some(self.now + OVERLAY);
            }
            _ => {}
        }
    }

    fn back(&mut self) {
        if self.queue.is_empty() && self.history.is_empty() {
            self.word("Nothing before", "");
        } else if self.previous("button").is_err() {
            self.word("The queue is full", "");
        }
    }

    fn turn(&mut self, percent: i32) {
        let to = i32::from(self.volume) + percent;
        self.volume(to, "button");
    }

    fn word(&mut self, headline: &'static str, detail: &'static str) {
        let word = Notice::Word { headline, title: String::new(), detail };
        self.notice = Some((word, self.now + Span::s(3)));
    }
}

/// Seconds until a place is free: what is left of the current entry, at most a mean track.
fn starts_in_next(left_ms: u64, total_ms: u64, entries: usize) -> u64 {
    let mean = total_ms / entries.max(1) as u64;
    (left_ms.min(mean) / 1_000).max(1)
}

fn no_catalogue() -> Refusal {
    let refusal = Refusal::new(Code::NoCatalogue, "The catalogue is still on its way; try again in a moment.");
    Refusal { retry_after_s: Some(10), ..refusal }
}

fn default_by(source: Source) -> &'static str {
    match source {
        Source::Mqtt => "mqtt",
        Source::Console => "console",
        Source::Button => "button",
    }
}

fn value<T: serde::Serialize>(t: &T) -> Value {
    serde_json::to_value(t).unwrap_or_else(|e| Value::String(e.to_string()))
}
