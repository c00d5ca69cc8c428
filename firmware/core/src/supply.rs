//! What is brought on board: what is wished for, when the office is probed, and what comes of it.

use crate::exchange::Output;
use crate::jukebox::Jukebox;
use crate::link::Sample;
use crate::planner::{Ahead, Arrival, Hands, Need};
use crate::queue::Queue;
use crate::time::{Frames, Instant, Span};

/// What could stand in is looked for on the card after so much waiting.
const STAND_IN_AFTER: Span = Span::ms(500);
/// A request that does not come back for so long makes us probe,
const PROBE_AFTER: Span = Span::s(2);
/// so often with less than this on board, or nothing,
const PROBE_EVERY: Span = Span::s(1);
const PROBE_OFTEN_BELOW: Span = Span::s(600);
/// and so often with more.
const PROBE_SELDOM: Span = Span::s(30);

impl Jukebox {
    pub(crate) fn wish(&mut self) {
        if self.ending {
            return;
        }
        let silent = self.playback.is_silent(self.now, self.line());
        if silent {
            self.planner.fell_silent(self.now);
        }
        let (kbps, hopeful_kbps) = (self.link.kbps(), self.link.hopeful_kbps());
        let sure_kbps = self.link.sure_kbps();
        let (head, ahead) = (self.line().current().map(|e| e.id), self.settings.ahead);
        let at = self.playback.position(self.line()).span().as_s();
        let pace = at << 8 | head.map_or(0, |id| self.playback.slots_fed(id) as u64 & 0xff);
        let thrift = self.budget.thrift(self.unix(self.now));
        // A request that failed is no proof that nothing passes: a probe is.
        let down = self.unreached && self.link.down_since().is_some();
        let eager = !self.settings.fallback.when_waiting;
        let waits = self.fallback.missing_since.is_some_and(|t| self.now.since(t) >= STAND_IN_AFTER);
        let standing_in = self.fallback.on.is_some() || (silent && waits);
        let spare_card = self.spares_card();
        let revision = self.queue.revision();
        let need = Need {
            ahead,
            silent,
            kbps,
            hopeful_kbps,
            sure_kbps,
            thrift,
            spare_card,
            down,
            eager,
            standing_in,
            pace,
            revision,
        };
        if standing_in || self.planner.may_wish(self.now, need) {
            let (mut queue, mut spare) = core::mem::take(&mut self.walked);
            // With its hands full it looks at nothing but what is to sound now.
            let full = self.planner.hands(self.now, need) == Hands::Full && !standing_in;
            let most = if full { 1 } else { usize::MAX };
            let (mut end, has_reserve) = (Span(0), self.planner.has_reserve(revision));
            queue.extend(self.walk(&self.queue).take(most).take_while(|a| {
                let begin = end;
                end.0 += a.left().0;
                !has_reserve || begin < ahead
            }));
            spare.extend(self.walk(&self.fallback.list).take(most));
            while let Some(wish) = self.planner.wish(self.now, &queue, &spare, need) {
                self.out.push_back(Output::Fetch(wish));
            }
            queue.clear();
            spare.clear();
            self.walked = (queue, spare);
        }
        self.out.extend(self.planner.voided().map(|id| Output::Cancel { id }));
        self.pin();
        if self.probe_at(self.now).is_some_and(|t| t <= self.now) {
            (self.probing, self.probed_at) = (true, self.now);
            self.out.push_back(Output::Probe);
        }
    }

    /// Tells the store what is to be played, in order: the queue, then the fallback.
    fn pin(&mut self) {
        let lines = (self.queue.revision(), self.fallback.list.revision());
        if self.pinned.replace(lines) != Some(lines) {
            let tracks = self.queue.iter().chain(self.fallback.list.iter()).map(|e| e.record).collect();
            self.out.push_back(Output::Pin(tracks));
        }
    }

    /// Queue or fallback as the planner sees it: in order, from the playhead on.
    fn walk<'a>(&'a self, list: &'a Queue) -> impl Iterator<Item = Ahead> + 'a {
        let here = core::ptr::eq(list, self.line()) || core::ptr::eq(list, &self.queue);
        let start = if here { self.playback.position(list) } else { Frames::default() };
        list.iter().enumerate().filter(|(_, e)| e.stream.is_none()).map(move |(i, e)| Ahead {
            entry: e.id,
            record: e.record,
            from: if i == 0 { start } else { Frames::default() },
            length: Span::ms(e.duration_ms),
            fed: self.playback.slots_fed(e.id),
        })
    }

    /// When the office is probed next: while the link is in trouble or a request does not come back. A black hole raises no
    /// event: only a try shows that it has ended. Once a second with little on board, else now and again. What is later than
    /// `until` need not be exact.
    pub(crate) fn probe_at(&self, until: Instant) -> Option<Instant> {
        if self.probing || self.ending {
            return None;
        }
        let waits = self.planner.waits_since().map(|t| t + PROBE_AFTER);
        let due = self.planner.trouble().map(|t| t.1).or(waits)?;
        let urgent = || {
            self.playback.is_silent(self.now, self.line())
                || self.fallback.on.is_some()
                || (self.listens() && self.on_board_up_to(PROBE_OFTEN_BELOW) < PROBE_OFTEN_BELOW)
        };
        let (often, seldom) = (due.max(self.probed_at + PROBE_EVERY), self.probed_at + PROBE_SELDOM);
        // How urgent it is costs a walk.
        Some(if often > until || (due < seldom && urgent()) { often } else { due.max(seldom) })
    }

    pub(crate) fn probed(&mut self, up: bool) {
        self.probing = false;
        if !up {
            self.unreached = true;
            return self.link.failed(self.now);
        }
        if core::mem::take(&mut self.unreached) {
            // A request that went into the void does not come back with the link: ask anew.
            let void = self.planner.give_up();
            self.out.extend(void.map(|id| Output::Cancel { id }));
            self.link.reached();
        }
        self.planner.hurry(self.now);
    }

    /// The ways out have changed. What is under way may have lost its own: it is asked for anew at once, by what there is now.
    pub(crate) fn network(&mut self, up: bool) {
        let void = self.planner.give_up();
        self.out.extend(void.map(|id| Output::Cancel { id }));
        self.planner.hurry(self.now);
        self.unreached = !up;
        if !up {
            self.link.failed(self.now);
        }
    }

    pub(crate) fn fetched(&mut self, id: u64, arrival: Arrival, sample: Option<Sample>) {
        match (&arrival, sample) {
            (_, Some(s)) => self.link.sample(s),
            (Err(r), _) if r.action() == crate::reason::Action::Wait => self.link.failed(self.now),
            (Err(r), _) if r.action() == crate::reason::Action::Skip => self.link.reached(),
            _ => {}
        }
        let silent = self.playback.is_silent(self.now, self.line());
        let on_board = if silent { Span(0) } else { self.on_board_up_to(PROBE_OFTEN_BELOW) };
        // A track's own fault marks its plan; `drop_bad` takes it out when its turn comes.
        self.planner.arrived(self.now, id, arrival, sample.is_some(), on_board);
    }
}
