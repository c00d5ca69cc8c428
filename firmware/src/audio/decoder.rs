//! The decoder thread: orders in; pieces to blocks to the line; reports out.
//!
//! It works in small steps (one packet each) and looks at its orders between them, so that a skip never waits for a
//! segment. With nothing to do it sleeps until it is rung, or until the ring has room; it never spins.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jukebox_board::output::Content;
use jukebox_core::library::Digest;
use jukebox_core::sound::{EntryId, OutputState, PIECES_AHEAD, Piece, Report};
use jukebox_core::time::Frames;

use super::Settings;
use super::deck::{Deck, content};
use super::feed::{Feed, RING_MS, Start};
use super::inbox::{Inbox, Job};
use super::line::{Line, Shared, WATCH};

/// How long the old sound plays on while the first frames of the new one are awaited.
const FLUSH_WAIT: Duration = Duration::from_millis(200);
/// When so little is left in the ring, what a converter holds has to come out: nothing follows in time.
const TAIL: Duration = Duration::from_millis(500);
/// Room that is worth waking up for.
const ROOM: Duration = Duration::from_millis(250);
/// Steps of waiting for the DAC to play the last frames.
const DRAIN: Duration = Duration::from_millis(5);

/// How a block follows what is before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    /// A track after another; it may be converted together with that.
    Track,
    /// Elsewhere.
    Jump,
    /// The same track in another rendition.
    Splice,
}

pub(crate) struct Decoder<Read, Tell> {
    inbox: Arc<Inbox>,
    shared: Shared,
    line: Line,
    deck: Deck,
    read: Read,
    tell: Arc<Tell>,
    pieces: VecDeque<Piece>,
    /// What is in the deck, or was last.
    current: Option<Piece>,
    /// The next block begins something.
    fresh: Option<Fresh>,
    /// Frames to be left out, so that both clocks meet.
    leave_out: u64,
    factor: f32,
    /// Reported once it is in the ring.
    done: Option<u64>,
    generation: u32,
    /// Pieces of this generation are dropped: this one before them was torn.
    torn: Option<(u32, u64)>,
    /// Pieces of this entry are dropped: this one of it cannot be decoded.
    bad: Option<(EntryId, u64)>,
    closing: bool,
    gained: Vec<f32>,
}

impl<Read, Tell> Decoder<Read, Tell>
where
    Read: Fn(&Digest) -> io::Result<Vec<u8>>,
    Tell: Fn(Report) + Send + Sync + 'static,
{
    pub(crate) fn new(settings: Settings, inbox: Arc<Inbox>, shared: Shared, read: Read, tell: Tell) -> Self {
        let tell = Arc::new(tell);
        let output = tell.clone();
        let line = Line::new(settings, shared.clone(), move |state: OutputState| output(Report::Output(state)));
        Self {
            inbox,
            shared,
            line,
            deck: Deck::default(),
            read,
            tell,
            pieces: VecDeque::with_capacity(2 * PIECES_AHEAD),
            current: None,
            fresh: None,
            leave_out: 0,
            factor: 1.0,
            done: None,
            generation: 0,
            torn: None,
            bad: None,
            closing: false,
            gained: vec![],
        }
    }

    pub(crate) fn run(mut self) {
        loop {
            let seen = self.shared.wake.rung();
            while let Some(job) = self.inbox.take() {
                if matches!(job, Job::End) {
                    self.line.end();
                    return;
                }
                self.obey(job);
            }
            self.line.tick();
            if !self.step() {
                let wait = self.pause_length();
                self.shared.wake.wait(seen, wait);
            }
        }
    }

    fn obey(&mut self, job: Job) {
        match job {
            Job::Play(piece) => {
                self.closing = false;
                let torn = self.torn.is_some_and(|(generation, _)| generation == piece.generation);
                let bad = self.bad.is_some_and(|(entry, _)| entry == piece.entry);
                if piece.generation >= self.generation && !torn && !bad {
                    self.pieces.push_back(piece);
                }
            }
            Job::Flush { generation, more } => {
                self.generation = generation;
                self.pieces.retain(|p| p.generation >= generation);
                self.deck.unload();
                (self.done, self.torn, self.bad, self.fresh) = (None, None, None, None);
                self.closing = false;
                if let Some(feed) = &mut self.line.feed {
                    feed.cut(generation);
                }
                if !more || !self.line.is_open() {
                    self.line.pump(true);
                    self.line.flush();
                }
            }
            Job::Forget { seq } => {
                self.pieces.retain(|p| p.seq <= seq);
                // What was wrong with a piece that is forgotten is nothing to those that come in its place.
                self.torn = self.torn.filter(|&(_, torn)| torn <= seq);
                self.bad = self.bad.filter(|&(_, bad)| bad <= seq);
                if self.current.as_ref().is_some_and(|p| p.seq > seq) {
                    self.deck.unload();
                    (self.done, self.current, self.fresh) = (None, None, None);
                    if let Some(feed) = &mut self.line.feed {
                        feed.take_back(self.generation);
                    }
                }
            }
            Job::Close => self.closing = true,
            Job::Resume => {
                self.closing = false;
                self.line.want_again();
            }
            Job::Reopen => self.line.reopen(),
            Job::End => {}
        }
    }

    /// One small step; whether there was anything to do.
    fn step(&mut self) -> bool {
        let flushing = self.line.feed.as_ref().is_some_and(|f| f.flushing().is_some());
        let mut busy = self.line.pump(flushing);
        self.flush_if_ready();
        let clear = self.line.feed.as_ref().is_none_or(Feed::is_clear);
        if !clear {
            return busy;
        }
        if let Some(seq) = self.done.take() {
            (self.tell)(Report::Decoded { seq });
            busy = true;
        }
        if self.deck.is_loaded() {
            return if self.line.feed.is_some() { self.decode() } else { busy };
        }
        if !self.pieces.is_empty() {
            return self.load() || busy;
        }
        let left = self.left();
        if let Some(feed) = &mut self.line.feed
            && feed.owes()
            && left < TAIL
        {
            feed.finish();
            return true;
        }
        if self.closing && (self.line.is_drained() || self.is_paused()) {
            self.closing = false;
            self.line.shut();
        }
        busy
    }

    /// Puts the next piece into the deck, if the device is fit for it.
    fn load(&mut self) -> bool {
        let Some(piece) = self.pieces.front() else { return false };
        let in_track =
            self.current.as_ref().is_some_and(|c| c.entry == piece.entry && c.generation == piece.generation);
        let rate = piece.original_rate;
        if !in_track && !self.fit(rate) {
            return false;
        }
        let Some(piece) = self.pieces.pop_front() else { return false };
        let digest = piece.segment.digest;
        let bytes = (self.read)(&digest).ok().filter(|b| Digest::of(b) == digest);
        let Some(bytes) = bytes else {
            let Piece { seq, generation, entry, .. } = piece;
            self.torn = Some((generation, seq));
            self.pieces.retain(|p| p.generation != generation);
            (self.tell)(Report::Torn { seq, generation, entry, digest });
            return true;
        };
        let object = piece.rendition.object;
        let spliced = in_track && self.current.as_ref().is_some_and(|c| c.rendition.object != object);
        let lead = spliced && self.line.feed.as_ref().is_some_and(Feed::wants_lead);
        match self.deck.load(bytes, &piece, lead) {
            Ok(joined) => {
                self.fresh = match (in_track, joined) {
                    _ if spliced => Some(Fresh::Splice),
                    (true, true) => None,
                    (false, _) if piece.from == 0 => Some(Fresh::Track),
                    _ => Some(Fresh::Jump),
                };
                if let Some(feed) = &mut self.line.feed {
                    feed.begin_piece();
                }
                self.factor = if piece.gain.0 == 0.0 { 1.0 } else { 10f32.powf(piece.gain.0 / 20.0) };
                self.current = Some(piece);
            }
            Err(why) => self.give_up(&piece, why.0),
        }
        true
    }

    /// Whether the device is open at the right rate. What a flush is about to drop is not waited for.
    fn fit(&mut self, rate: u32) -> bool {
        if self.line.is_fit(rate) {
            return true;
        }
        if self.line.is_open() && self.line.feed.as_ref().is_some_and(|f| f.flushing().is_some()) {
            self.line.pump(true);
            self.line.flush();
        }
        false
    }

    fn decode(&mut self) -> bool {
        let (Some(feed), Some(piece)) = (&mut self.line.feed, &self.current) else { return false };
        let block = match self.deck.next_block() {
            None => return false,
            Some(Err(why)) => {
                let piece = piece.clone();
                self.give_up(&piece, why.0);
                return true;
            }
            Some(Ok(block)) => block,
        };
        let mut frames = block.frames;
        let ends = block.last && piece.last;
        // What ends has begun, were it without a frame: nobody should wait for its end for ever.
        if (!frames.is_empty() || ends)
            && let Some(fresh) = self.fresh.take()
        {
            let init = &piece.rendition.init;
            let content = if self.factor == 1.0 { content(init) } else { Content::Float };
            let (generation, entry, rate, clock) = (piece.generation, piece.entry, init.rate, clock(piece));
            let joined = fresh == Fresh::Track;
            let start = Start { generation, entry, at: block.at, rate, clock, content, joined };
            self.leave_out = if fresh == Fresh::Splice { feed.splice(start) } else { feed.begin(start) };
        }
        if !frames.is_empty() {
            let skip = self.leave_out.min((frames.len() / 2) as u64);
            self.leave_out -= skip;
            frames = &frames[skip as usize * 2..];
            if self.factor != 1.0 {
                self.gained.clear();
                self.gained.extend(frames.iter().map(|x| x * self.factor));
                frames = &self.gained;
            }
            if block.tail { feed.put_tail(frames) } else { feed.put(frames) }
        }
        if ends {
            let rendition = &piece.rendition;
            feed.end(Frames::new(rendition.frames, rendition.init.rate).at_rate(clock(piece)).n);
        }
        if block.last {
            self.done = Some(piece.seq);
        }
        true
    }

    fn give_up(&mut self, piece: &Piece, why: &'static str) {
        let &Piece { seq, generation, entry, .. } = piece;
        self.deck.unload();
        self.bad = Some((entry, seq));
        self.pieces.retain(|p| p.entry != entry);
        self.current = None;
        if let Some(feed) = &mut self.line.feed {
            feed.break_off(self.generation);
        }
        (self.tell)(Report::Undecodable { seq, generation, entry, why: why.into() });
    }

    /// Publishes a flush once the new sound can begin without a gap, or will not come in time.
    fn flush_if_ready(&mut self) {
        let Some(feed) = &self.line.feed else { return };
        let Some((since, point)) = feed.flushing() else { return };
        let idle = !self.deck.is_loaded() && self.pieces.is_empty() && feed.is_clear() && feed.pushed() > point;
        let brim = !feed.is_clear(); // pumped to the brim, and yet something is left
        if feed.is_ready(point) || idle || brim || since.elapsed() >= FLUSH_WAIT || !self.line.is_open() {
            self.line.flush();
        }
    }

    fn is_paused(&self) -> bool {
        self.shared.controls.paused.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// How long the ring lasts.
    fn left(&self) -> Duration {
        let rate = self.line.feed.as_ref().map_or(1, Feed::rate);
        Duration::from_millis(self.shared.controls.unheard() * 1_000 / u64::from(rate))
    }

    /// How long to sleep if nobody rings.
    fn pause_length(&self) -> Duration {
        let Some(feed) = &self.line.feed else { return WATCH };
        if let Some((since, _)) = feed.flushing() {
            return FLUSH_WAIT.saturating_sub(since.elapsed()).max(Duration::from_millis(1));
        }
        let (left, level) = (self.left(), Duration::from_millis(RING_MS.into()));
        let wait = if !feed.is_clear() {
            (left + ROOM).saturating_sub(level)
        } else if !self.pieces.is_empty() || self.closing {
            left // for a device of another rate, or for the end
        } else if feed.owes() {
            left.saturating_sub(TAIL)
        } else {
            WATCH
        };
        wait.clamp(DRAIN, WATCH)
    }
}

/// Rate at which positions in a track are told.
fn clock(piece: &Piece) -> u32 {
    if piece.original_rate == 0 { piece.rendition.init.rate } else { piece.original_rate }
}
