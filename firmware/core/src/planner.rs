//! Which segment of which rendition next, and what is on board.
//!
//! A *plan* is what is known of an entry: its record, its index pages, which of its segments are in the store. The planner
//! walks the queue from the playhead, nearest first, and wishes for the first thing that is missing, until the coming
//! `ahead` of music is on board. Every wish goes to the store first, so that a restart finds again what is there.
//!
//! Law: link trouble stops the walk where it stands and is tried again; a track's own fault marks its plan `bad` and the
//! walk goes on behind it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::library::{Digest, IndexPage, Record, Rendition, RenditionName, SEGMENTS_PER_PAGE, SegmentRef};
use crate::reason::{Action, Reason};
use crate::sound::EntryId;
use crate::time::{Frames, Instant, Span};

/// Wishes that may be under way at once.
pub const IN_FLIGHT: usize = 2;
/// Longest pause between two tries while something still sounds.
const SLOWEST_RETRY: Span = Span::s(30);

/// Something to be brought on board: `length` bytes at `offset` of `object` whose digest is `digest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Names the wish in the answer.
    pub id: u64,
    /// Object of the library.
    pub object: Digest,
    /// Part of it: offset and length in bytes; none is the whole object.
    pub range: Option<(u64, u32)>,
    /// Digest of the bytes.
    pub digest: Digest,
    /// After this it is given up.
    pub deadline: Span,
    /// Whether the answer should hold the bytes (records and index pages), or they just go into the store (segments).
    pub read: bool,
}

/// The answer to a wish: the bytes if it was to be read.
pub type Arrival = Result<Option<Vec<u8>>, Reason>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Record,
    Index(usize),
    Segment(usize),
}

#[derive(Clone, Debug)]
struct Page {
    index: IndexPage,
    /// Bit n: segment n of the page is in the store.
    have: u128,
}

#[derive(Clone, Debug)]
struct Plan {
    entry: EntryId,
    digest: Digest,
    record: Option<Arc<Record>>,
    rendition: Option<Arc<Rendition>>,
    pages: Vec<Option<Page>>,
    bad: Option<Reason>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    id: u64,
    entry: EntryId,
    part: Part,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    reason: Reason,
    since: Instant,
    again: Instant,
    tries: u32,
}

/// An entry of the line that the planner walks: which, its record, and from where it is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// The entry.
    pub entry: EntryId,
    /// Its record.
    pub record: Digest,
    /// First frame wanted.
    pub from: Frames,
}

/// A segment that is on board.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The segment.
    pub segment: SegmentRef,
    /// Its rendition.
    pub rendition: Arc<Rendition>,
    /// Whether it is the last.
    pub last: bool,
}

/// How things stand around the planner when it is asked for a wish.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// How much music should be on board.
    pub ahead: Span,
    /// Which rendition is wanted.
    pub rendition: RenditionName,
    /// Nothing sounds although it should: hurry, and one thing at a time.
    pub silent: bool,
    /// Transfer rate to expect, in kbit/s.
    pub kbps: Option<u32>,
}

/// The planner.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    plans: Vec<Plan>,
    under_way: Vec<UnderWay>,
    last_wish: u64,
    trouble: Option<Trouble>,
    /// State of a xorshift generator, for jitter.
    random: u64,
    /// What should be kept in the store has changed.
    news: bool,
}

impl Planner {
    /// A planner whose jitter is seeded.
    pub fn new(seed: u64) -> Self {
        Self { random: seed | 1, ..Self::default() }
    }

    /// Drops the plans of entries that are not in the line any more. Returns the wishes that nobody has any more.
    pub fn keep_only(&mut self, now: Instant, in_line: impl Fn(EntryId) -> bool) -> Vec<u64> {
        let before = self.plans.len();
        self.plans.retain(|p| in_line(p.entry));
        self.news |= self.plans.len() != before;
        // What was in trouble may be gone: look at once.
        self.hurry(now);
        self.under_way.extract_if(.., |w| !in_line(w.entry)).map(|w| w.id).collect()
    }

    /// The next thing to bring on board, if there is one and it is time.
    pub fn wish(&mut self, now: Instant, line: impl Iterator<Item = Ahead>, need: Need) -> Option<Wish> {
        let most = if need.silent { 1 } else { IN_FLIGHT };
        if self.under_way.len() >= most || self.trouble.is_some_and(|t| t.again > now || !self.under_way.is_empty()) {
            return None;
        }
        let mut ahead = Span(0);
        for a in line {
            if ahead >= need.ahead {
                break;
            }
            let i = self.plan(a);
            match self.missing(i, a.from, need, &mut ahead) {
                Missing::Part(part) => return Some(self.order(now, i, part, need)),
                Missing::UnderWay => return None,
                Missing::Nothing => {}
            }
        }
        if self.under_way.is_empty() {
            // Nothing is missing any more.
            self.trouble = None;
        }
        None
    }

    /// The answer to a wish. A track's own fault marks its plan, the link's starts a pause.
    pub fn arrived(&mut self, now: Instant, id: u64, arrival: Arrival, silent: bool) {
        let Some(i) = self.under_way.iter().position(|w| w.id == id) else { return };
        let UnderWay { entry, part, .. } = self.under_way.swap_remove(i);
        let outcome = match arrival {
            Ok(bytes) => {
                self.trouble = None;
                self.take(entry, part, bytes)
            }
            Err(reason) => Err(reason),
        };
        let Err(reason) = outcome else { return };
        if reason.action() == Action::Skip {
            return self.spoil(entry, reason);
        }
        let (since, tries) = self.trouble.map_or((now, 0), |t| (t.since, t.tries + 1));
        let mut trouble = Trouble { reason, since, again: now, tries };
        trouble.again = now + self.pause(tries, silent);
        self.trouble = Some(trouble);
    }

    /// Full jitter around the pause: 1 s while silent, else 1 s doubling to 30 s.
    fn pause(&mut self, tries: u32, silent: bool) -> Span {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let base = if silent { Span::s(1) } else { Span::s(1 << tries.min(5)).min(SLOWEST_RETRY) };
        Span(base.0 * 3 / 4 + self.random % (base.0 / 2))
    }

    /// Tries again at once: the link came up, or somebody pressed play.
    pub fn hurry(&mut self, now: Instant) {
        if let Some(t) = &mut self.trouble {
            t.again = now;
        }
    }

    /// Gives up what is under way; the wishes, for whoever carries them out.
    pub fn give_up(&mut self) -> impl Iterator<Item = u64> {
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
        self.trouble.filter(|_| self.under_way.is_empty()).map(|t| t.again)
    }

    /// What the link keeps us waiting for, and since when.
    pub fn trouble(&self) -> Option<(Reason, Instant)> {
        self.trouble.map(|t| (t.reason, t.since))
    }

    /// Why this entry cannot be played at all.
    pub fn bad(&self, entry: EntryId) -> Option<Reason> {
        self.find(entry)?.bad
    }

    /// The record of an entry, once it is here.
    pub fn record(&self, entry: EntryId) -> Option<&Arc<Record>> {
        self.find(entry)?.record.as_ref()
    }

    /// The rendition of an entry, once it is chosen.
    pub fn rendition(&self, entry: EntryId) -> Option<&Arc<Rendition>> {
        self.find(entry)?.rendition.as_ref()
    }

    /// The number of the segment that holds a frame, if its index page is here.
    pub fn locate(&self, entry: EntryId, at: Frames) -> Option<usize> {
        self.find(entry)?.locate(at).ok()
    }

    /// Segment `n` of an entry if it is on board.
    pub fn ready(&self, entry: EntryId, n: usize) -> Option<Ready> {
        let plan = self.find(entry)?;
        let page = plan.pages.get(n / SEGMENTS_PER_PAGE)?.as_ref()?;
        let k = n % SEGMENTS_PER_PAGE;
        let segment = page.index.segments().nth(k).filter(|_| page.have & (1 << k) != 0)?;
        let last = n / SEGMENTS_PER_PAGE + 1 == plan.pages.len() && k + 1 == page.index.len();
        Some(Ready { segment, rendition: Arc::clone(plan.rendition.as_ref()?), last })
    }

    /// A segment turned out not to be in the store as it should.
    pub fn torn(&mut self, entry: EntryId, digest: Digest) {
        let Some(plan) = self.plans.iter_mut().find(|p| p.entry == entry) else { return };
        for page in plan.pages.iter_mut().flatten() {
            if let Some(k) = page.index.segments().position(|s| s.digest == digest) {
                page.have &= !(1 << k);
            }
        }
    }

    /// What cannot be decoded although its digest is right.
    pub fn spoil(&mut self, entry: EntryId, reason: Reason) {
        if let Some(plan) = self.plans.iter_mut().find(|p| p.entry == entry) {
            plan.bad = Some(reason);
        }
    }

    /// Playable time on board from a frame on without a hole, and whether that reaches the end.
    pub fn level(&self, entry: EntryId, from: Frames) -> (Span, bool) {
        self.find(entry).map_or((Span(0), false), |p| p.level(from))
    }

    /// How much of an entry is on board, in percent.
    pub fn on_board_pct(&self, entry: EntryId) -> u8 {
        let Some(plan) = self.find(entry) else { return 0 };
        let have: u32 = plan.pages.iter().flatten().map(|p| p.have.count_ones()).sum();
        let last = plan.pages.last().and_then(Option::as_ref).map_or(SEGMENTS_PER_PAGE, |p| p.index.len());
        let all = plan.pages.len().saturating_sub(1) * SEGMENTS_PER_PAGE + last;
        if plan.pages.is_empty() { 0 } else { (have as usize * 100 / all.max(1)) as u8 }
    }

    /// Everything that the plans need, if that has changed since it was asked last: the store must not drop it.
    pub fn pins(&mut self) -> Option<Vec<Digest>> {
        if !core::mem::take(&mut self.news) {
            return None;
        }
        let mut pins = Vec::new();
        for p in &self.plans {
            pins.push(p.digest);
            pins.extend(p.rendition.iter().flat_map(|r| r.index.iter().map(|i| i.object)));
            pins.extend(p.pages.iter().flatten().flat_map(|page| page.index.segments().map(|s| s.digest)));
        }
        Some(pins)
    }

    fn find(&self, entry: EntryId) -> Option<&Plan> {
        self.plans.iter().find(|p| p.entry == entry)
    }

    fn plan(&mut self, a: Ahead) -> usize {
        if let Some(i) = self.plans.iter().position(|p| p.entry == a.entry) {
            return i;
        }
        let (entry, digest) = (a.entry, a.record);
        self.plans.push(Plan { entry, digest, record: None, rendition: None, pages: Vec::new(), bad: None });
        self.plans.len() - 1
    }

    /// The first part of a plan that is missing from `from` on; adds what is there to `ahead`.
    fn missing(&mut self, i: usize, from: Frames, need: Need, ahead: &mut Span) -> Missing {
        let plan = &mut self.plans[i];
        let under_way = |part| self.under_way.iter().any(|w| w.entry == plan.entry && w.part == part);
        let wanted = |part| if under_way(part) { Missing::UnderWay } else { Missing::Part(part) };
        if plan.bad.is_some() {
            return Missing::Nothing;
        }
        let Some(record) = &plan.record else { return wanted(Part::Record) };
        if plan.rendition.is_none() {
            let chosen = record.rendition(need.rendition).or_else(|| record.renditions.first());
            plan.pages = chosen.map(|r| r.index.iter().map(|_| None).collect()).unwrap_or_default();
            plan.rendition = chosen.cloned().map(Arc::new);
        }
        let mut n = match plan.locate(from) {
            Ok(n) => n,
            Err(page) => return wanted(Part::Index(page)),
        };
        let Some(rendition) = &plan.rendition else { return Missing::Nothing };
        let rate = rendition.init.rate;
        while let Some(slot) = plan.pages.get(n / SEGMENTS_PER_PAGE) {
            let Some(page) = slot else { return wanted(Part::Index(n / SEGMENTS_PER_PAGE)) };
            let k = n % SEGMENTS_PER_PAGE;
            let Some(segment) = page.index.segments().nth(k) else { return Missing::Nothing };
            // What is under way is coming; the one behind it may come beside.
            if page.have & (1 << k) == 0 && !under_way(Part::Segment(n)) {
                return Missing::Part(Part::Segment(n));
            }
            if *ahead >= need.ahead {
                break;
            }
            let next = page.index.segments().nth(k + 1).map(|s| s.first_frame);
            let end = next.unwrap_or_else(|| plan.page_end(n / SEGMENTS_PER_PAGE));
            ahead.0 += Frames::new(end.saturating_sub(segment.first_frame), rate).span().0;
            n += 1;
        }
        Missing::Nothing
    }

    fn order(&mut self, now: Instant, i: usize, part: Part, need: Need) -> Wish {
        self.last_wish += 1;
        let (id, plan) = (self.last_wish, &self.plans[i]);
        self.under_way.push(UnderWay { id, entry: plan.entry, part, since: now });
        let whole = |object| Wish { id, object, range: None, digest: object, deadline: Span::s(10), read: true };
        let rendition = plan.rendition.as_ref();
        match part {
            Part::Record => whole(plan.digest),
            Part::Index(p) => whole(rendition.and_then(|r| r.index.get(p)).map_or(plan.digest, |x| x.object)),
            Part::Segment(n) => {
                let page = plan.pages.get(n / SEGMENTS_PER_PAGE).and_then(Option::as_ref);
                let (mut offset, mut found) = (0, SegmentRef { length: 0, first_frame: 0, digest: plan.digest });
                if let (Some(page), Some(r)) = (page, rendition) {
                    offset = r.index.get(n / SEGMENTS_PER_PAGE).map_or(0, |x| x.offset);
                    for s in page.index.segments().take(n % SEGMENTS_PER_PAGE + 1) {
                        offset += u64::from(found.length);
                        found = s;
                    }
                }
                // Four times what the estimate says, within bounds that a dead link and a slow one can live with.
                let ms = need.kbps.map_or(30_000, |k| u64::from(found.length) * 8 * 4 / u64::from(k.max(1)));
                let deadline = Span::ms(ms.clamp(8_000, 60_000));
                let object = rendition.map_or(plan.digest, |r| r.object);
                Wish { id, object, range: Some((offset, found.length)), digest: found.digest, deadline, read: false }
            }
        }
    }

    fn take(&mut self, entry: EntryId, part: Part, bytes: Option<Vec<u8>>) -> Result<(), Reason> {
        let Some(plan) = self.plans.iter_mut().find(|p| p.entry == entry) else { return Ok(()) };
        let bytes = bytes.unwrap_or_default();
        self.news |= !matches!(part, Part::Segment(_));
        match part {
            Part::Record => plan.record = Some(Arc::new(Record::parse(&bytes).map_err(unreadable)?)),
            Part::Index(p) => {
                let index = IndexPage::parse(&bytes).map_err(unreadable)?;
                let last = p + 1 == plan.pages.len();
                if !last && index.len() != SEGMENTS_PER_PAGE {
                    return Err(Reason::Damaged);
                }
                if let Some(slot) = plan.pages.get_mut(p) {
                    *slot = Some(Page { index, have: 0 });
                }
            }
            Part::Segment(n) => {
                if let Some(Some(page)) = plan.pages.get_mut(n / SEGMENTS_PER_PAGE) {
                    page.have |= 1 << (n % SEGMENTS_PER_PAGE);
                }
            }
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
    Part(Part),
    UnderWay,
    Nothing,
}

impl Plan {
    /// The segment that holds a frame, or the index page that would tell.
    fn locate(&self, at: Frames) -> Result<usize, usize> {
        let Some(r) = &self.rendition else { return Err(0) };
        let frame = at.at_rate(r.init.rate).n.min(r.frames.saturating_sub(1)) + r.delay;
        let p = r.index.partition_point(|x| x.first_frame <= frame).saturating_sub(1);
        let Some(Some(page)) = self.pages.get(p) else { return Err(p) };
        let k = page.index.segments().take_while(|s| s.first_frame <= frame).count().saturating_sub(1);
        Ok(p * SEGMENTS_PER_PAGE + k)
    }

    /// Decoded frame behind the last segment of a page.
    fn page_end(&self, page: usize) -> u64 {
        let Some(r) = &self.rendition else { return 0 };
        r.index.get(page + 1).map_or(r.delay + r.frames, |x| x.first_frame)
    }

    fn level(&self, from: Frames) -> (Span, bool) {
        let (Ok(first), Some(r)) = (self.locate(from), &self.rendition) else { return (Span(0), false) };
        let start = from.at_rate(r.init.rate).n + r.delay;
        let level = |end: u64| Frames::new(end.saturating_sub(start), r.init.rate).span();
        let mut n = first;
        loop {
            let Some(Some(page)) = self.pages.get(n / SEGMENTS_PER_PAGE) else {
                let end = if n / SEGMENTS_PER_PAGE >= self.pages.len() {
                    r.delay + r.frames
                } else {
                    self.page_end(n / SEGMENTS_PER_PAGE - 1)
                };
                return (level(end), n / SEGMENTS_PER_PAGE >= self.pages.len());
            };
            let k = n % SEGMENTS_PER_PAGE;
            let Some(segment) = page.index.segments().nth(k) else { return (level(r.delay + r.frames), true) };
            if page.have & (1 << k) == 0 {
                return (level(segment.first_frame), false);
            }
            n += 1;
        }
    }
}
