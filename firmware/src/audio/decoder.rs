//! The decoder thread: orders in; pieces to blocks to the line; reports out.
//!
//! It works in small steps (one packet each) and looks at its orders between them, so that a skip never waits for a
//! segment. With nothing to do it sleeps until it is rung, or until the ring has room; it never spins. Where two tracks
//! overlap, the one that ends moves to a deck of its own, and the two are decoded in turn.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jukebox_board::output::Content;
use jukebox_core::library::{Digest, SegmentRef};
use jukebox_core::sound::{LivePiece, OutputState, PIECES_AHEAD, Piece, Report};
use jukebox_core::time::{Frames, Span};

use super::Settings;
use super::deck::{Block, Deck, content};
use super::feed::{Feed, RING_MS, Start};
use super::inbox::{Inbox, Job};
use super::line::{Line, Shared, WATCH};
use super::live::LiveDeck;

/// How long the old sound plays on while the first frames of the new one are awaited.
const FLUSH_WAIT: Duration = Duration::from_millis(200);
/// When so little is left in the ring, what a converter holds has to come out: nothing follows in time.
const TAIL: Duration = Duration::from_millis(500);
/// Room that is worth waking up for.
const ROOM: Duration = Duration::from_millis(500);
/// A station of which so little is left in the ring has run dry.
const DRY: Duration = Duration::from_millis(60);
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

/// A track that goes on beneath the next one, to its end.
struct Under {
    deck: Deck,
    /// What is in its deck, or was last.
    piece: Piece,
    factor: f32,
    /// Reported once it is in the ring.
    done: Option<u64>,
}

pub(crate) struct Decoder<Read, Tell> {
    inbox: Arc<Inbox>,
    shared: Shared,
    line: Line,
    deck: Deck,
    read: Read,
    tell: Arc<Tell>,
    pieces: VecDeque<Piece>,
    /// A station that comes after all pieces, and what plays it.
    live: Option<(LivePiece, Option<LiveDeck>)>,
    /// What is in the deck, or was last, and what was before it.
    current: Option<Piece>,
    before: Option<Piece>,
    /// The track before, if the one in the deck begins before its end.
    under: Option<Under>,
    /// The next block begins something.
    fresh: Option<Fresh>,
    /// Frames to be left out, so that both clocks meet.
    leave_out: u64,
    factor: f32,
    /// Reported once it is in the ring.
    done: Option<u64>,
    generation: u32,
    /// Pieces of this generation are dropped: this one before them could not be played.
    failed: Option<(u32, u64)>,
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
            live: None,
            current: None,
            under: None,
            before: None,
            fresh: None,
            leave_out: 0,
            factor: 1.0,
            done: None,
            generation: 0,
            failed: None,
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
                let void = self.failed.is_some_and(|(generation, _)| generation == piece.generation);
                if piece.generation >= self.generation && !void {
                    self.pieces.push_back(piece);
                }
            }
            Job::Live(piece) => {
                self.closing = false;
                if piece.generation >= self.generation {
                    self.live = Some((piece, None));
                }
            }
            Job::Flush { generation, more } => {
                self.generation = generation;
                self.live = self.live.take().filter(|(p, _)| p.generation >= generation);
                self.pieces.retain(|p| p.generation >= generation);
                self.deck.unload();
                (self.done, self.failed, self.fresh, self.under) = (None, None, None, None);
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
                let live = self.live.take_if(|(p, _)| p.seq > seq);
                if live.is_some_and(|(_, deck)| deck.is_some())
                    && let Some(feed) = &mut self.line.feed
                {
                    feed.take_back(self.generation);
                }
                // What was wrong with a piece that is forgotten is nothing to those that come in its place.
                self.failed = self.failed.filter(|&(_, failed)| failed <= seq);
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
            Job::Period { ms } => self.line.lengthen_period(ms),
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
        if self.under.is_some() {
            match &self.line.feed {
                Some(feed) if feed.wants_under() => return self.decode_under() || busy,
                Some(feed) if feed.is_crossing() => {}
                _ => self.end_under(),
            }
        }
        if self.deck.is_loaded() {
            return if self.line.feed.is_some() { self.decode() } else { busy };
        }
        if !self.pieces.is_empty() {
            return self.load() || busy;
        }
        if self.live.is_some() {
            return self.play_live() || busy;
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

    /// A packet of the station, if one has come.
    fn play_live(&mut self) -> bool {
        let Some((piece, deck)) = self.live.take() else { return false };
        let LivePiece { seq, generation, entry, .. } = piece;
        let began = deck.is_none();
        let tape = || self.shared.tape().filter(|tape| tape.entry() == entry);
        let Some(mut deck) = deck.or_else(|| LiveDeck::new(piece, tape()?)) else {
            self.live = Some((piece, None));
            return false;
        };
        if began && !self.fit(deck.rate()) {
            self.live = Some((piece, None));
            return false;
        }
        let left = self.left();
        let Some(feed) = &mut self.line.feed else {
            self.live = Some((piece, None));
            return false;
        };
        if began {
            (self.current, self.fresh) = (None, None);
            feed.begin_piece();
            (self.tell)(Report::Decoded { seq });
        }
        match deck.next_block(left) {
            Some(Ok(block)) => {
                let mut frames = block.frames;
                if let Some((rate, at)) = block.fresh {
                    let content = Content::Float;
                    self.leave_out =
                        feed.begin(Start { generation, entry, at, rate, clock: rate, content, joined: false });
                }
                let skip = self.leave_out.min((frames.len() / 2) as u64);
                self.leave_out -= skip;
                frames = &frames[skip as usize * 2..];
                feed.put(frames);
            }
            Some(Err(why)) => {
                feed.break_off(self.generation);
                (self.tell)(Report::Undecodable { seq, generation, entry, digest: None, why: why.0.into() });
                return true;
            }
            None => {
                // What is not there is nobody's underrun.
                if left <= DRY && !std::mem::replace(&mut deck.dry, true) {
                    feed.break_off(self.generation);
                    deck.break_off();
                }
                self.live = Some((piece, Some(deck)));
                return began;
            }
        }
        deck.dry = false;
        self.live = Some((piece, Some(deck)));
        true
    }

    /// Puts the next piece into the deck, if the device is fit for it.
    fn load(&mut self) -> bool {
        let Some(next) = self.next() else { return false };
        let piece = &self.pieces[next];
        let in_track =
            self.current.as_ref().is_some_and(|c| c.entry == piece.entry && c.generation == piece.generation);
        let rate = piece.original_rate;
        if !in_track && !self.fit(rate) {
            return false;
        }
        let Some(piece) = self.pieces.remove(next) else { return false };
        let Some(bytes) = self.bytes(&piece) else { return true };
        let object = piece.rendition.object;
        let crossing = self.line.feed.as_ref().is_some_and(Feed::is_crossing);
        let spliced = in_track && !crossing && self.current.as_ref().is_some_and(|c| c.rendition.object != object);
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
                self.before = self.current.replace(piece);
            }
            Err(why) => self.give_up(&piece, why.0),
        }
        true
    }

    /// Which piece the deck takes next: those of its track come before one that begins before its end.
    fn next(&self) -> Option<usize> {
        let under = self.under.as_ref().map(|u| u.piece.entry);
        let (next, piece) = self.pieces.iter().enumerate().find(|(_, p)| Some(p.entry) != under)?;
        let current = self.current.as_ref().filter(|c| c.generation == piece.generation && !c.last);
        match current {
            Some(c) if piece.overlap > Span(0) => self.pieces.iter().position(|p| p.entry == c.entry),
            _ => Some(next),
        }
    }

    /// The bytes of a piece; what is missing is reported.
    fn bytes(&mut self, piece: &Piece) -> Option<Vec<u8>> {
        let &Piece { seq, generation, entry, segment: SegmentRef { digest, .. }, .. } = piece;
        let bytes = (self.read)(&digest).ok().filter(|b| Digest::of(b) == digest);
        if bytes.is_none() {
            self.stop_after(generation, seq);
            (self.tell)(Report::Torn { seq, generation, entry, digest });
        }
        bytes
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
        let border = self.border();
        let (Some(feed), Some(piece)) = (&mut self.line.feed, &self.current) else { return false };
        let block = match self.deck.next_block() {
            None => return false,
            Some(Err(why)) => {
                let piece = std::mem::replace(&mut self.current, self.before.take());
                if self.deck.has_given() {
                    feed.take_back(self.generation);
                }
                if let Some(piece) = piece {
                    self.give_up(&piece, why.0);
                }
                return true;
            }
            Some(Ok(block)) => block,
        };
        let mut frames = block.frames;
        let Block { at, last, tail, .. } = block;
        let ends = last && piece.last;
        // From here on the next track sounds too.
        let cross = border.filter(|&b| !frames.is_empty() && b < at + (frames.len() / 2) as u64);
        // What ends has begun, were it without a frame: nobody should wait for its end for ever.
        if (!frames.is_empty() || ends)
            && let Some(fresh) = self.fresh.take()
        {
            let init = &piece.rendition.init;
            let content = if self.factor == 1.0 { content(init) } else { Content::Float };
            let (generation, entry, rate, clock) = (piece.generation, piece.entry, init.rate, clock(piece));
            let joined = fresh == Fresh::Track;
            let start = Start { generation, entry, at, rate, clock, content, joined };
            self.leave_out = if fresh == Fresh::Splice { feed.splice(start) } else { feed.begin(start) };
        }
        if !frames.is_empty() {
            let skip = self.leave_out.min((frames.len() / 2) as u64);
            self.leave_out -= skip;
            frames = &frames[skip as usize * 2..];
            if self.factor != 1.0 || cross.is_some() {
                self.gained.clear();
                self.gained.extend(frames.iter().map(|x| x * self.factor));
                frames = &self.gained;
            }
            let own = cross.map_or(frames.len(), |b| (b.saturating_sub(at) as usize * 2).min(frames.len()));
            let (own, rest) = frames.split_at(own);
            if tail {
                feed.put_tail(own)
            } else {
                feed.put(own)
            }
            if cross.is_some() {
                feed.cross(length(piece));
                feed.put_under(rest);
            }
        }
        let done = last.then_some(piece.seq);
        if cross.is_some() {
            if ends {
                feed.end_under();
            }
            let deck = std::mem::take(&mut self.deck);
            self.under = self.current.take().map(|piece| Under { deck, piece, factor: self.factor, done });
            return true;
        }
        if ends {
            feed.end(length(piece));
        }
        self.done = done;
        true
    }

    /// Frame of the track in the deck at which the next one begins, if that is before its end.
    fn border(&self) -> Option<u64> {
        let Piece { entry, generation, rendition, .. } = self.current.as_ref().filter(|_| self.under.is_none())?;
        let i = self.pieces.iter().position(|p| p.overlap > Span(0) && p.generation == *generation)?;
        let next = &self.pieces[i];
        let follows = i.checked_sub(1).is_none_or(|k| self.pieces[k].entry == *entry);
        let overlap = next.overlap.at_rate(rendition.init.rate);
        (follows && self.line.suits(next.original_rate)).then(|| rendition.frames.saturating_sub(overlap))
    }

    /// The next packet of the track that ends.
    fn decode_under(&mut self) -> bool {
        let (Some(feed), Some(under)) = (&mut self.line.feed, &mut self.under) else { return false };
        let factor = under.factor;
        match under.deck.next_block() {
            Some(Ok(Block { frames, last, .. })) => {
                self.gained.clear();
                self.gained.extend(frames.iter().map(|x| x * factor));
                feed.put_under(&self.gained);
                if last {
                    under.done = Some(under.piece.seq);
                    if under.piece.last {
                        feed.end_under();
                    }
                }
                return true;
            }
            // It was about to end.
            Some(Err(_)) => {
                feed.end_under();
                return true;
            }
            None => {}
        }
        if let Some(seq) = under.done.take() {
            (self.tell)(Report::Decoded { seq });
        }
        let entry = under.piece.entry;
        let Some(piece) = self.pieces.iter().position(|p| p.entry == entry).and_then(|i| self.pieces.remove(i)) else {
            return false;
        };
        let Some(bytes) = self.bytes(&piece) else { return true };
        if let (Some(feed), Some(under)) = (&mut self.line.feed, &mut self.under) {
            if under.deck.load(bytes, &piece, false).is_err() {
                feed.end_under();
            }
            under.piece = piece;
        }
        true
    }

    /// The track before is heard no longer.
    fn end_under(&mut self) {
        let Some(under) = self.under.take() else { return };
        under.done.into_iter().for_each(|seq| (self.tell)(Report::Decoded { seq }));
        let entry = under.piece.entry;
        self.pieces.iter().filter(|p| p.entry == entry).for_each(|p| (self.tell)(Report::Decoded { seq: p.seq }));
        self.pieces.retain(|p| p.entry != entry);
    }

    /// Nothing of a piece could be decoded: all is as it was before it.
    fn give_up(&mut self, piece: &Piece, why: &'static str) {
        let &Piece { seq, generation, entry, .. } = piece;
        self.deck.unload();
        self.stop_after(generation, seq);
        self.fresh = None;
        (self.tell)(Report::Undecodable {
            seq,
            generation,
            entry,
            digest: Some(piece.segment.digest),
            why: why.into(),
        });
    }

    /// A piece could not be played: what follows it must not sound in its place.
    fn stop_after(&mut self, generation: u32, seq: u64) {
        self.failed = Some((generation, seq));
        self.pieces.retain(|p| p.generation != generation);
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
        } else if self.live.is_some() {
            left.saturating_sub(DRY)
        } else if feed.owes() {
            left.saturating_sub(TAIL)
        } else {
            WATCH
        };
        wait.clamp(DRAIN, WATCH)
    }
}

/// Length of a track, by its original's clock.
fn length(piece: &Piece) -> u64 {
    let rendition = &piece.rendition;
    Frames::new(rendition.frames, rendition.init.rate).at_rate(clock(piece)).n
}

/// Rate at which positions in a track are told.
fn clock(piece: &Piece) -> u32 {
    if piece.original_rate == 0 { piece.rendition.init.rate } else { piece.original_rate }
}
