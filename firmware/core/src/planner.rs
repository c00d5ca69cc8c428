//! Which segment of which rendition next, from which entry: start, safety, fallback, then quality.
//!
//! *Line*: the queue from the playhead on. *Spare*: the fallback. What is wished for, in this order:
//!
//! 1. **Sound**: what plays now and has nothing left; the smallest rendition, or a better one that comes as quickly.
//! 2. **Safety**: the smallest rendition of the coming [`Need::ahead`] of the line, nearest first.
//! 3. **Spare**: the smallest rendition of the next minutes of the fallback.
//! 4. **Quality**: what comes within five minutes in the best rendition that three quarters of the link carry while it plays.
//! 5. **Reserve**: the smallest rendition of the rest of the line.
//! 6. **Quality** with all of the link, then the rest of the fallback.
//! 7. **Idle**: the original of the coming [`Need::ahead`], where the link has nothing better to do.
//!
//! So an outage at any moment finds as much playable time on board as the link allowed, and quality is bought with what is
//! left. A small copy costs about 4 % of a FLAC original beside it. Every wish goes to the store first, so that a restart
//! finds again what is there.
//!
//! Law: link trouble stops the walk where it stands and is tried again; a track's own fault marks its plan `bad` and the
//! walk goes on behind it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::budget::Thrift;
use crate::fallback::is_fallback;
use crate::library::{Digest, IndexPage, Record, RenditionName, SEGMENTS_PER_PAGE, SegmentRef};
use crate::plan::{Gap, Plan, STAY};
use crate::reason::{Action, Reason};
use crate::sound::EntryId;
use crate::time::{Frames, Instant, Span};
pub use crate::wish::{Ahead, Arrival, Hands, Keep, Need, Ready, Tier, Wish};

/// What stands in is looked for on the card: it answers at once,
const STAND_IN_DEADLINE: Span = Span::ms(1_500);
/// or another is tried after this.
const STAND_IN_AGAIN: Span = Span::ms(200);
/// Wishes that may be under way at once,
pub const IN_FLIGHT: usize = 2;
/// and so many, as long as all are small copies that will be here in a moment: else the round trip, not the link, says how soon
/// an outage may come.
pub const IN_FLIGHT_SMALL: usize = 16;
const MOMENT: Span = Span::ms(500);
/// Below this, in kbit/s, two of them keep a link busy for longer than any round trip.
const BUSY_KBPS: u32 = 500;
/// What sounds next, and is nearly here, may have the next request beside it.
const BESIDE: Span = Span::ms(500);
/// Longest pause between two tries while something still sounds.
const SLOWEST_RETRY: Span = Span::s(30);
/// Quality is bought for so much of what comes next.
const NEAR: Span = Span::s(300);
/// A better rendition goes on if so much of it can come before it plays.
const GOES_ON: Span = Span::s(8);
/// A start may wait so long for a better rendition of one segment,
const QUICK: Span = Span::ms(150);
/// Length of the first segment of a track (`library.md`).
const FIRST: Span = Span::s(1);
/// until so much is on board.
const STARTED: Span = Span::s(20);
/// Of the fallback that is brought on board before quality is bought.
const SPARE: Span = Span::s(600);
/// On board before a track that ran dry goes on.
pub(crate) const RESUME_LEVEL: Span = Span::s(5);
/// A start looks so far ahead.
const HORIZON: Span = Span::s(60);
/// What the store had no room for is wished for again after this long, if it is needed before long,
const FULL_RETRY: Span = Span::s(5);
/// and after this long, if it is not.
const FULL_RETRY_LATER: Span = Span::s(60);
/// A segment of an original that takes longer than this is left to a better link.
const TOO_SLOW: Span = Span::s(20);

/// A record or an index page is asked for in one piece: it may take so long before it is asked for anew.
const WHOLE: Span = Span::s(60);
/// A link below this is not given up for a few slow seconds, in kbit/s.
const FITFUL_KBPS: u32 = 1_500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Record,
    Index { rank: usize, page: usize },
    Segment { rank: usize, slot: usize },
}

/// What a wish is for, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// What stands in for the queue and sounds, or will in a minute: as a rule the card has it.
    StandIn,
    Sound,
    Safety,
    Spare,
    Quality,
    Reserve,
    Idle,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    id: u64,
    entry: EntryId,
    part: Part,
    purpose: Purpose,
    since: Instant,
    /// When it will be here, as far as the estimate of the link knows.
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    reason: Reason,
    since: Instant,
    again: Instant,
    tries: u32,
}

/// The planner.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    /// By entry.
    plans: Vec<Plan>,
    under_way: Vec<UnderWay>,
    /// Nothing but originals is wished for.
    original_only: bool,
    /// Wishes given up for a more urgent one.
    void: Vec<u64>,
    last_wish: u64,
    trouble: Option<Trouble>,
    /// There was no room for something of this purpose: until then neither for it nor for what is less urgent.
    full: Option<(Purpose, Instant)>,
    /// Transfer rate to hope for, in kbit/s.
    hopeful_kbps: Option<u32>,
    /// A start waits for nothing but its first segment.
    eager: bool,
    /// What stands in is not on the card and did not come: it is tried again then, and so often it was.
    stand_in_again: Option<Instant>,
    stand_in_tries: usize,
    /// State of a xorshift generator, for jitter.
    random: u64,
    /// Counts what could make another wish possible.
    turn: u64,
    /// All of the line of this revision that is not needed soon was on board.
    reserve: Option<u64>,
    /// There was nothing to wish for at this turn, playhead (in seconds) and estimate.
    content: Option<(u64, u64, Option<u32>)>,
}

impl Planner {
    /// A planner whose jitter is seeded; `original_only`: smaller renditions are left alone.
    pub fn new(seed: u64, original_only: bool) -> Self {
        Self { random: seed | 1, original_only, ..Self::default() }
    }

    /// Whether smaller renditions are left alone; tracks that are planned already keep theirs.
    pub fn only_originals(&mut self, only: bool) {
        self.original_only = only;
    }

    /// Drops the plans of entries that are not in the line any more. Returns the wishes that nobody has any more.
    pub fn keep_only(&mut self, now: Instant, in_line: impl Fn(EntryId) -> bool) -> Vec<u64> {
        self.plans.retain(|p| in_line(p.entry));
        // A track less is room for others.
        self.full = None;
        // What was in trouble may be gone: look at once.
        self.hurry(now);
        self.under_way.extract_if(.., |w| !in_line(w.entry)).map(|w| w.id).collect()
    }

    /// An entry goes by another id.
    pub fn rename(&mut self, from: EntryId, to: EntryId) {
        self.plans.iter_mut().filter(|p| p.entry == from).for_each(|p| p.entry = to);
        self.plans.sort_unstable_by_key(|p| p.entry);
        self.under_way.iter_mut().filter(|w| w.entry == from).for_each(|w| w.entry = to);
    }

    /// The next thing to bring on board, if there is one and it is time.
    pub fn wish(&mut self, now: Instant, line: &[Ahead], spare: &[Ahead], need: Need) -> Option<Wish> {
        (self.hopeful_kbps, self.eager) = (need.hopeful_kbps, need.eager);
        if let Some((i, part)) = self.stand_in(now, spare, need) {
            return Some(self.order(now, i, part, Purpose::StandIn, need));
        }
        if !self.may_wish(now, need) {
            return None;
        }
        if self.full.is_some_and(|f| f.1 <= now) {
            self.full = None;
        }
        let here = (self.turn, need.pace, need.kbps);
        let found = match self.hands(now, need) {
            Hands::Free => self.look(line, spare, need),
            Hands::Few => self.look_nearby(line, spare, need),
            // Only what is to sound now takes the place of what is under way.
            Hands::Full => {
                self.small(line.get(..1)?, Span(0), need.ahead, Purpose::Safety, need).filter(|f| f.2 == Purpose::Sound)
            }
        };
        let found = found.filter(|f| self.full.is_none_or(|full| f.2 < full.0));
        let Some((i, part, purpose)) = found else {
            if self.under_way.is_empty() && self.full.is_none() {
                // Nothing is missing any more.
                self.trouble = None;
            }
            self.content = Some(here);
            return None;
        };
        // What is waited for in silence has the link to itself, but for the end: then the next request is on its way already.
        let alone = |w: &UnderWay| w.purpose == Purpose::Sound && w.due.is_none_or(|due| due > now + BESIDE);
        if need.silent && self.under_way.iter().any(alone) {
            return None;
        }
        // What only improves must not stand in the way of what sounds.
        while self.hands(now, need) == Hands::Full {
            let worst = self.under_way.iter().enumerate().max_by_key(|(_, w)| w.purpose);
            let Some((k, _)) = worst.filter(|(_, w)| purpose == Purpose::Sound && w.purpose > Purpose::Safety) else {
                self.content = Some(here);
                return None;
            };
            self.void.push(self.under_way.swap_remove(k).id);
        }
        Some(self.order(now, i, part, purpose, need))
    }

    /// What is missing of that which stands in. It waits neither for the link nor for what waits for the link.
    fn stand_in(&mut self, now: Instant, spare: &[Ahead], need: Need) -> Option<(usize, Part)> {
        let busy = self.under_way.iter().any(|w| w.purpose == Purpose::StandIn);
        if !need.standing_in || spare.is_empty() || busy || self.stand_in_again.is_some_and(|t| t > now) {
            return None;
        }
        // What the card does not have is followed by others that it may have: the next, and those that played last.
        let n = self.stand_in_tries / 2 % spare.len();
        let first = if self.stand_in_tries.is_multiple_of(2) { n } else { spare.len() - 1 - n };
        let found = self.small(spare.get(first..)?, Span(0), HORIZON, Purpose::StandIn, need);
        if found.is_none() && self.stand_in_tries > 0 {
            (self.stand_in_again, self.stand_in_tries) = (Some(now + Span::s(1)), 0);
        }
        found.map(|(i, part, _)| (i, part))
    }

    /// Whether it is worth while to look for a wish: something has changed since there was none.
    pub fn may_wish(&self, now: Instant, need: Need) -> bool {
        let pausing = self.trouble.is_some_and(|t| t.again > now || !self.under_way.is_empty());
        let room = self.full.is_some_and(|f| f.1 <= now);
        !pausing && (need.silent || room || self.content != Some((self.turn, need.pace, need.kbps)))
    }

    /// What may be taken on beside what is under way.
    pub fn hands(&self, now: Instant, need: Need) -> Hands {
        // Nothing shares the link with what is waited for in silence.
        let fast = !need.silent && need.kbps.is_some_and(|k| k >= BUSY_KBPS);
        let brief = |w: &UnderWay| w.purpose < Purpose::Quality && w.due.is_none_or(|due| due <= now + MOMENT);
        match self.under_way.len() {
            n if n < IN_FLIGHT => Hands::Free,
            n if fast && n < IN_FLIGHT_SMALL && self.under_way.iter().all(brief) => Hands::Few,
            _ => Hands::Full,
        }
    }

    /// Wishes that were given up for a more urgent one.
    pub fn voided(&mut self) -> impl Iterator<Item = u64> {
        core::mem::take(&mut self.void).into_iter()
    }

    /// What will be needed, and is small.
    fn look_nearby(&mut self, line: &[Ahead], spare: &[Ahead], need: Need) -> Option<(usize, Part, Purpose)> {
        self.small(line, Span(0), need.ahead, Purpose::Safety, need)
            .or_else(|| self.small(spare, Span(0), SPARE, Purpose::Spare, need))
    }

    fn look(&mut self, line: &[Ahead], spare: &[Ahead], need: Need) -> Option<(usize, Part, Purpose)> {
        self.look_nearby(line, spare, need)
            .or_else(|| if need.spare_card { None } else { self.look_further(line, spare, need) })
    }

    /// What is good to have and not needed yet.
    fn look_further(&mut self, line: &[Ahead], spare: &[Ahead], need: Need) -> Option<(usize, Part, Purpose)> {
        let all = Span(u64::MAX / 2);
        // Until all of the line is on board, quality has at most three quarters of the link.
        let most = Need { kbps: need.kbps.map(|k| k / 4 * 3), ..need };
        let near = NEAR.min(need.ahead);
        None.or_else(|| self.better(line, near, most, false).filter(|_| need.thrift < Thrift::Frugal))
            .or_else(|| self.reserve(line, need))
            .or_else(|| self.better(line, near, need, false).filter(|_| need.thrift < Thrift::Frugal))
            .or_else(|| self.small(spare, SPARE, all, Purpose::Reserve, need).filter(|_| need.thrift < Thrift::Frugal))
            .or_else(|| self.better(line, need.ahead, need, true).filter(|_| need.thrift == Thrift::None))
    }

    /// Whether there is nothing to look for behind what is needed soon.
    pub fn has_reserve(&self, revision: u64) -> bool {
        self.reserve == Some(revision)
    }

    /// The first thing missing of what is not needed soon.
    fn reserve(&mut self, line: &[Ahead], need: Need) -> Option<(usize, Part, Purpose)> {
        if self.has_reserve(need.revision) {
            return None;
        }
        let found = self.small(line, need.ahead, Span(u64::MAX / 2), Purpose::Reserve, need);
        self.reserve = (found.is_none() && self.under_way.is_empty()).then_some(need.revision);
        found
    }

    /// The first thing missing for playing in the smallest rendition what begins between `after` and `until`.
    fn small(
        &mut self,
        line: &[Ahead],
        after: Span,
        until: Span,
        purpose: Purpose,
        need: Need,
    ) -> Option<(usize, Part, Purpose)> {
        let (mut end, mut i) = (0, 0);
        for (k, a) in line.iter().enumerate() {
            let begin = end;
            if begin >= until.0 {
                break;
            }
            end = begin + a.left().0;
            let (near, far) = (after == Span(0), begin >= after.0 && after > Span(0));
            if !near && end <= after.0 {
                continue;
            }
            i = self.plan(a, i + 1);
            if far && self.plans[i].whole {
                continue;
            }
            let quick = near && k == 0 && purpose == Purpose::Safety;
            match self.missing(i, a.from, Span(until.0 - begin), quick, need) {
                Missing::Part(part, Span(0)) if quick => {
                    return Some((i, part, Purpose::Sound));
                }
                Missing::Part(part, _) => return Some((i, part, purpose)),
                Missing::UnderWay => {}
                // Far away, and all there: what is known of it is read again when its time comes.
                Missing::Nothing if far => self.plans[i].put_away(),
                Missing::Nothing => {}
            }
        }
        None
    }

    /// The first part that is missing for playing from `from` on for `reach`, and what is on board before it.
    fn missing(&mut self, i: usize, from: Frames, reach: Span, quick: bool, need: Need) -> Missing {
        let plan = &self.plans[i];
        let entry = plan.entry;
        let coming = |part| self.under_way.iter().any(|w| w.entry == entry && w.part == part);
        if plan.bad.is_some() {
            return Missing::Nothing;
        }
        if plan.has_all(0) {
            return Missing::Nothing;
        }
        if plan.record.is_none() {
            return if coming(Part::Record) { Missing::UnderWay } else { Missing::Part(Part::Record, Span(0)) };
        }
        // The page of the rendition that comes first tells of all of them.
        let first = if quick && !need.down { self.quickest(i, None, need) } else { 0 };
        let index = |page| {
            // Any rank's page tells what is on board; the one that is coming already, else the first's.
            let rank = (0..plan.held.len()).find(|&rank| coming(Part::Index { rank, page }));
            match rank {
                Some(_) => Missing::UnderWay,
                None => Missing::Part(Part::Index { rank: first, page }, Span(0)),
            }
        };
        let mut n = match plan.locate(from) {
            Ok(n) => n,
            Err(page) => return index(page),
        };
        let begin = from.span();
        loop {
            match plan.gap(n, 0) {
                Gap::None => return Missing::Nothing,
                Gap::Page(p) if plan.begins(p * SEGMENTS_PER_PAGE).0 >= begin.0.saturating_add(reach.0) => {
                    return Missing::Nothing;
                }
                Gap::Page(p) => return index(p),
                Gap::Slot(slot) => {
                    let level = Span(plan.begins(slot).0.saturating_sub(begin.0));
                    if level >= reach {
                        return Missing::Nothing;
                    }
                    if (0..plan.held.len()).any(|rank| coming(Part::Segment { rank, slot })) {
                        // It is on its way; the one behind it may come beside.
                        n = slot + 1;
                        continue;
                    }
                    let rank = match self.trouble {
                        // Without a link only the card answers. It holds the smallest as a rule; else another is tried.
                        _ if !need.down && quick && level < STARTED => self.quickest(i, Some(slot), need),
                        Some(t) if need.down => t.tries as usize % plan.held.len().max(1),
                        _ => 0,
                    };
                    let page = slot / SEGMENTS_PER_PAGE;
                    return if plan.knows(rank, page) {
                        Missing::Part(Part::Segment { rank, slot }, level)
                    } else if coming(Part::Index { rank, page }) {
                        Missing::UnderWay
                    } else {
                        Missing::Part(Part::Index { rank, page }, level)
                    };
                }
            }
        }
    }

    /// The best rank of which this slot comes within [`QUICK`]; the smallest if none does. None: no slot is known yet, and the
    /// first of a track is short.
    fn quickest(&self, i: usize, slot: Option<usize>, need: Need) -> usize {
        let plan = &self.plans[i];
        let kbps = u64::from(need.sure_kbps.unwrap_or(0));
        let length = slot.map_or(FIRST.0, |n| plan.begins(n + 1).0.saturating_sub(plan.begins(n).0));
        let fits = |h: &crate::plan::Held| {
            let known = slot.and_then(|n| h.segment(n));
            let bits = known.map_or(h.kbps() * length / 1_000, |s| u64::from(s.length) * 8);
            bits * 1_000 <= kbps * QUICK.0
        };
        let top = match need.thrift {
            Thrift::None => plan.held.len(),
            Thrift::Thrifty => plan.held.len().saturating_sub(1),
            Thrift::Frugal => plan.held.len().min(1),
        };
        // An index page costs a round trip more, and a fitful link may not have the time.
        let plenty = kbps >= u64::from(FITFUL_KBPS);
        let near = |r: usize| plenty || slot.is_none_or(|n| plan.knows(r, n / SEGMENTS_PER_PAGE));
        (0..top).rev().find(|&r| near(r) && fits(&plan.held[r])).unwrap_or(0)
    }

    /// The first thing missing for playing what comes within `until` in a better rendition. `idle`: in the original, whether or
    /// not the link could carry it while it plays.
    fn better(&mut self, line: &[Ahead], until: Span, need: Need, idle: bool) -> Option<(usize, Part, Purpose)> {
        let kbps = u64::from(need.kbps?.max(1));
        let purpose = if idle { Purpose::Idle } else { Purpose::Quality };
        let mut end = 0;
        for a in line {
            let start = Span(end);
            if start >= until {
                break;
            }
            end += a.left().0;
            let i = self.plan(a, 0);
            let plan = &self.plans[i];
            if plan.bad.is_some() || plan.held.len() < 2 {
                continue;
            }
            let original = plan.held.len() - 1;
            let top = original - usize::from(need.thrift > Thrift::None);
            let carried = (1..=top).rev().find(|&r| plan.held[r].kbps() * 10 <= kbps * 8);
            // An original has what is left beside that which has to come anyway.
            let beside = carried.filter(|r| *r < original).unwrap_or(0);
            let kbps = if idle { kbps.saturating_sub(plan.held[beside].kbps()).max(1) } else { kbps };
            let slow = plan.held[original].kbps() * 4 * 1_000_000 / kbps > TOO_SLOW.0;
            let Some(want) = (if idle && !slow { Some(original) } else { carried }) else { continue };
            if plan.has_all(want) {
                continue;
            }
            let Ok(head) = plan.locate(a.from) else { continue };
            let origin = a.from.span();
            // What is with the decoder comes too late, and so does what plays before a run of it is here.
            let first = head.max(a.fed);
            if first == usize::MAX {
                continue; // all of it is with the decoder
            }
            let rate = plan.held[want].kbps();
            let after = |lead: Span| {
                let lead = lead.0 * rate / kbps;
                let lead = if a.fed == 0 { lead.saturating_sub(start.0) } else { lead };
                let earliest = plan.begins(first).0 + lead;
                let late = |n: &usize| plan.begins(*n).0 < earliest && plan.begins(*n) < plan.length();
                (first..).find(|n| !late(n)).unwrap_or(first)
            };
            let fresh = after(STAY);
            let coming = |part| self.under_way.iter().any(|w| w.entry == a.entry && w.part == part);
            let here =
                |slot| plan.held.iter().skip(want).any(|h| h.has(slot)) || coming(Part::Segment { rank: want, slot });
            let mut n = after(GOES_ON);
            loop {
                let (part, at) = match plan.gap(n, want) {
                    Gap::Slot(slot) if plan.knows(want, slot / SEGMENTS_PER_PAGE) => {
                        (Part::Segment { rank: want, slot }, slot)
                    }
                    Gap::Slot(slot) => (Part::Index { rank: want, page: slot / SEGMENTS_PER_PAGE }, slot),
                    Gap::Page(page) => (Part::Index { rank: want, page }, n.max(page * SEGMENTS_PER_PAGE)),
                    Gap::None => break,
                };
                if at < fresh && !at.checked_sub(1).is_some_and(here) {
                    n = fresh;
                    continue;
                }
                let beyond = (plan.begins(at).0 + start.0).saturating_sub(origin.0) >= until.0;
                if beyond {
                    break;
                }
                match part {
                    _ if !coming(part) => return Some((i, part, purpose)),
                    Part::Segment { slot, .. } => n = slot + 1,
                    _ => break,
                }
            }
        }
        None
    }

    /// The answer to a wish. A track's own fault marks its plan, the link's starts a pause. `moved`: some of it came; the next
    /// request goes on behind that.
    pub fn arrived(&mut self, now: Instant, id: u64, arrival: Arrival, moved: bool, on_board: Span) {
        let Some(i) = self.under_way.iter().position(|w| w.id == id) else { return };
        let UnderWay { entry, part, purpose, since: asked, .. } = self.under_way.swap_remove(i);
        self.turn += 1;
        let outcome = match arrival {
            Ok(bytes) => {
                // What the card had says nothing of the link.
                self.trouble = self.trouble.filter(|_| purpose == Purpose::StandIn && !moved);
                self.take(entry, part, bytes)
            }
            Err(reason) => Err(reason),
        };
        let Err(reason) = outcome else { return };
        if reason.action() == Action::Skip {
            return self.spoil(entry, reason);
        }
        if purpose == Purpose::StandIn {
            (self.stand_in_again, self.stand_in_tries) = (Some(now + STAND_IN_AGAIN), self.stand_in_tries + 1);
            return;
        }
        if reason.action() == Action::Heal && purpose > Purpose::Sound {
            // All that is there is more likely to be played: no trouble.
            let again = if purpose == Purpose::Safety { FULL_RETRY } else { FULL_RETRY_LATER };
            self.full = Some((self.full.map_or(purpose, |f| f.0.min(purpose)), now + again));
            return;
        }
        if moved {
            self.trouble = None;
            return;
        }
        if self.trouble.is_some_and(|t| asked <= t.since) {
            return; // of the same moment: no other try
        }
        let (since, tries) = self.trouble.map_or((now, 0), |t| (t.since, t.tries + 1));
        let mut trouble = Trouble { reason, since, again: now, tries };
        trouble.again = now + self.pause(tries, on_board);
        self.trouble = Some(trouble);
    }

    /// Jitter of a half around the pause: 1 s doubling to 30 s, and at most a tenth of what is on board.
    fn pause(&mut self, tries: u32, on_board: Span) -> Span {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let most = SLOWEST_RETRY.min(Span(on_board.0 / 10)).max(Span::s(1));
        let base = Span::s(1 << tries.min(5)).min(most);
        Span(base.0 * 3 / 4 + self.random % (base.0 / 2))
    }

    /// Tries again at once: the link came up, or somebody pressed play.
    pub fn hurry(&mut self, now: Instant) {
        self.turn += 1;
        if let Some(t) = &mut self.trouble {
            t.again = now;
        }
    }

    /// Gives up what is under way; the wishes, for whoever carries them out.
    pub fn give_up(&mut self) -> impl Iterator<Item = u64> {
        self.turn += 1;
        core::mem::take(&mut self.under_way).into_iter().map(|w| w.id)
    }

    /// Since when the oldest wish is under way.
    pub fn waits_since(&self) -> Option<Instant> {
        self.under_way.iter().map(|w| w.since).min()
    }

    /// Silence needs a quicker retry than what was planned while music still played.
    pub fn fell_silent(&mut self, now: Instant) {
        if let Some(t) = &mut self.trouble {
            t.again = t.again.min(now + Span::s(1));
        }
    }

    /// When it is time to ask for a wish again by itself.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let trouble = self.trouble.filter(|_| self.under_way.is_empty()).map(|t| t.again);
        [trouble, self.full.map(|f| f.1)].into_iter().flatten().min()
    }

    /// What the link keeps us waiting for, and since when.
    pub fn trouble(&self) -> Option<(Reason, Instant)> {
        self.trouble.map(|t| (t.reason, t.since))
    }

    /// Why this entry cannot be played at all.
    pub fn bad(&self, entry: EntryId) -> Option<Reason> {
        self.find(entry)?.bad
    }

    /// Whether enough is on board to begin at a frame: all that is left, or so much that at the estimated rate the smallest
    /// rendition does not run dry within a minute. Where nothing stands in for it, waiting is silence too: anything will do.
    pub fn may_start(&self, entry: EntryId, from: Frames) -> bool {
        let Some(plan) = self.find(entry) else { return false };
        let (level, whole) = plan.level(from);
        // The fallback has other tracks for when this one runs dry.
        if self.eager || is_fallback(entry) {
            return whole || level > Span(0);
        }
        let (Some(kbps), Some(small)) = (self.hopeful_kbps, plan.held.first()) else { return whole || level > Span(0) };
        let horizon = plan.length().0.saturating_sub(from.span().0).min(HORIZON.0);
        // A rate is believed by four fifths.
        let comes = horizon * u64::from(kbps) * 8 / (small.kbps().max(1) * 10);
        whole || (level > Span(0) && level.0 + comes >= horizon)
    }

    /// Whether a track that ran dry goes on: with enough that it does not run dry again at once, or, where nothing stands in for
    /// it, with anything.
    pub fn may_resume(&self, entry: EntryId, from: Frames) -> bool {
        let (level, whole) = self.level(entry, from);
        whole || ((self.eager || level >= RESUME_LEVEL) && self.may_start(entry, from))
    }

    /// The record of an entry, once it is here.
    pub fn record(&self, entry: EntryId) -> Option<&Arc<Record>> {
        self.find(entry)?.record.as_ref()
    }

    /// Frames a second of an entry's original, once its record is here.
    pub fn rate(&self, entry: EntryId) -> Option<u32> {
        self.record(entry)?.renditions.first().map(|r| r.init.rate)
    }

    /// Length of an entry's original, once its record is here.
    pub fn length(&self, entry: EntryId) -> Option<Frames> {
        self.record(entry)?.renditions.first().map(|r| Frames::new(r.frames, r.init.rate))
    }

    /// The slot that holds a frame, if an index page of it is here.
    pub fn locate(&self, entry: EntryId, at: Frames) -> Option<usize> {
        self.find(entry)?.locate(at).ok()
    }

    /// Slot `n` of an entry in the rendition it is best played in after `last`, if it is on board.
    pub fn ready(&self, entry: EntryId, n: usize, last: Option<RenditionName>) -> Option<Ready> {
        let plan = self.find(entry)?;
        let rank = last.and_then(|name| plan.held.iter().position(|h| h.rendition.name == name));
        let held = plan.held.get(plan.pick(n, rank)?)?;
        Some(Ready { segment: held.segment(n)?, rendition: Arc::clone(&held.rendition), last: plan.is_last(n) })
    }

    /// Slot `n` of an entry in this rendition and no other, if it is on board.
    pub(crate) fn ready_in(&self, entry: EntryId, n: usize, name: RenditionName) -> Option<Ready> {
        let plan = self.find(entry)?;
        let held = plan.held.iter().find(|h| h.rendition.name == name && h.has(n))?;
        Some(Ready { segment: held.segment(n)?, rendition: Arc::clone(&held.rendition), last: plan.is_last(n) })
    }

    /// Up to where an entry is on board in this rendition without a hole from slot `n` on.
    pub(crate) fn held_until(&self, entry: EntryId, n: usize, name: RenditionName) -> Span {
        let Some(plan) = self.find(entry) else { return Span(0) };
        let held = plan.held.iter().find(|h| h.rendition.name == name);
        let end = held.map_or(n, |h| (n..).find(|&k| !h.has(k)).unwrap_or(n));
        plan.begins(end)
    }

    /// Where slot `n` of an entry begins.
    pub(crate) fn begins(&self, entry: EntryId, n: usize) -> Span {
        self.find(entry).map_or(Span(0), |p| p.begins(n))
    }

    /// A segment turned out not to be in the store as it should.
    pub fn torn(&mut self, entry: EntryId, digest: Digest) {
        self.turn += 1;
        if let Some(plan) = self.find_mut(entry) {
            plan.torn(digest);
        }
    }

    /// A segment cannot be decoded although its digest is right: its rendition is of no use; with the last one the track is.
    pub fn undecodable(&mut self, entry: EntryId, digest: Digest) {
        let Some(plan) = self.find_mut(entry) else { return };
        if plan.without(digest) {
            // What is under way goes by the numbers of the renditions, which are others now.
            self.void.extend(self.under_way.extract_if(.., |w| w.entry == entry).map(|w| w.id));
            self.turn += 1;
        }
        if self.find(entry).is_some_and(|p| p.held.is_empty()) {
            self.spoil(entry, Reason::Undecodable);
        }
    }

    /// It is the entry's own fault that it cannot be played.
    fn spoil(&mut self, entry: EntryId, reason: Reason) {
        self.turn += 1;
        if let Some(plan) = self.find_mut(entry) {
            plan.bad = Some(reason);
        }
    }

    /// Playable time on board from a frame on without a hole, and whether that reaches the end.
    pub fn level(&self, entry: EntryId, from: Frames) -> (Span, bool) {
        self.find(entry).map_or((Span(0), false), |p| p.level(from))
    }

    /// How much of an entry is on board, in percent.
    pub fn on_board_pct(&self, entry: EntryId) -> u8 {
        self.find(entry).map_or(0, Plan::pct)
    }

    fn find(&self, entry: EntryId) -> Option<&Plan> {
        self.place(entry).ok().map(|i| &self.plans[i])
    }

    fn find_mut(&mut self, entry: EntryId) -> Option<&mut Plan> {
        self.place(entry).ok().map(|i| &mut self.plans[i])
    }

    /// Where an entry's plan is, or belongs.
    fn place(&self, entry: EntryId) -> Result<usize, usize> {
        self.plans.binary_search_by_key(&entry, |p| p.entry)
    }

    /// The plan of an entry. `guess`: where it is, as a rule.
    fn plan(&mut self, a: &Ahead, guess: usize) -> usize {
        if self.plans.get(guess).is_some_and(|p| p.entry == a.entry) {
            return guess;
        }
        self.place(a.entry).unwrap_or_else(|i| {
            self.plans.insert(i, Plan::new(a.entry, a.record, a.length));
            i
        })
    }

    fn order(&mut self, now: Instant, i: usize, part: Part, purpose: Purpose, need: Need) -> Wish {
        self.last_wish += 1;
        let (id, plan) = (self.last_wish, &self.plans[i]);
        let keep = |tier| Keep { track: Some(plan.digest), tier };
        let whole = |object| {
            let (deadline, keep) = (WHOLE, keep(Tier::Small));
            Wish { id, object, range: None, digest: object, deadline, read: true, keep }
        };
        let of = |rank: usize| plan.held.get(rank).map(|h| &h.rendition);
        let mut wish = match part {
            Part::Record => whole(plan.digest),
            Part::Index { rank, page } => {
                whole(of(rank).and_then(|r| r.index.get(page)).map_or(plan.digest, |x| x.object))
            }
            Part::Segment { rank, slot } => {
                let nothing = (0, SegmentRef { length: 0, first_frame: 0, digest: plan.digest });
                let (offset, found) = plan.held.get(rank).and_then(|h| h.place(slot)).unwrap_or(nothing);
                // Four times what the estimate says, within bounds that a dead link and a slow one can live with. A slow one
                // is fitful: what has come so far is lost with the deadline, and a dead one is noticed by probes.
                let ms = need.kbps.map_or(30_000, |k| u64::from(found.length) * 8 * 4 / u64::from(k.max(1)));
                let least = if need.kbps.is_some_and(|k| k >= FITFUL_KBPS) { 8_000 } else { 30_000 };
                let deadline = Span::ms(ms.clamp(least, 120_000));
                let object = of(rank).map_or(plan.digest, |r| r.object);
                let keep = keep(match rank {
                    _ if purpose == Purpose::Sound => Tier::Now,
                    0 => Tier::Small,
                    _ if rank + 1 == plan.held.len() => Tier::Original,
                    _ => Tier::Middle,
                });
                let (range, digest) = (Some((offset, found.length)), found.digest);
                Wish { id, object, range, digest, deadline, read: false, keep }
            }
        };
        if purpose == Purpose::StandIn {
            wish.deadline = STAND_IN_DEADLINE;
        }
        let takes = |(range, k): ((u64, u32), u32)| Span(u64::from(range.1) * 8_000 / u64::from(k.max(1)));
        // One after the other.
        let first = self.under_way.iter().filter_map(|w| w.due).fold(now, Instant::max);
        let due = wish.range.zip(need.kbps).map(|found| first + takes(found));
        self.under_way.push(UnderWay { id, entry: plan.entry, part, purpose, since: now, due });
        wish
    }

    fn take(&mut self, entry: EntryId, part: Part, bytes: Option<Vec<u8>>) -> Result<(), Reason> {
        let original_only = self.original_only;
        let Some(plan) = self.find_mut(entry) else { return Ok(()) };
        let bytes = bytes.unwrap_or_default();
        match part {
            Part::Record => plan.set_record(Record::parse(&bytes).map_err(unreadable)?, original_only),
            Part::Index { rank, page } => {
                plan.set_page(rank, page, IndexPage::parse(&bytes).map_err(unreadable)?)?;
            }
            Part::Segment { rank, slot } => plan.set_segment(rank, slot, true),
        }
        Ok(())
    }
}

/// An object that verifies and cannot be read is the track's fault, not the link's.
fn unreadable(e: crate::library::FormatError) -> Reason {
    match e {
        crate::library::FormatError::Newer { .. } => Reason::Newer,
        _ => Reason::Damaged,
    }
}

enum Missing {
    /// This part, after so much that is on board.
    Part(Part, Span),
    UnderWay,
    Nothing,
}
