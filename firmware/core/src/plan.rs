//! What is known of one entry that is to be played: its record, its index pages, what of it is in the store.
//!
//! *Slot*: the stretch of a track between two borders of the grid. All renditions share the grid, so slot `n` is segment
//! `n` of any of them, and page `p` of an index holds slots `128 p` and on. *Rank*: renditions from the smallest to the
//! original; one that is hardly smaller than the original is left out.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::library::{Digest, IndexPage, Record, Rendition, SEGMENTS_PER_PAGE, SegmentRef};
use crate::reason::Reason;
use crate::sound::EntryId;
use crate::time::{Frames, Span};

/// A rendition is worth having beside the original only if it is smaller than so many hundredths of it.
const WORTH_PCT: u64 = 80;

#[derive(Clone, Debug)]
struct Page {
    index: IndexPage,
    /// Bit k: segment k of the page is in the store.
    have: u128,
}

/// A rendition of a plan, and what of it is here.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) rendition: Arc<Rendition>,
    pages: Vec<Option<Page>>,
}

impl Held {
    /// Mean rate in kbit/s.
    pub(crate) fn kbps(&self) -> u64 {
        let length = Frames::new(self.rendition.frames.max(1), self.rendition.init.rate).span();
        self.rendition.size * 8_000 / length.0.max(1)
    }

    fn page(&self, p: usize) -> Option<&Page> {
        self.pages.get(p)?.as_ref()
    }

    fn have(&self, p: usize) -> u128 {
        self.page(p).map_or(0, |page| page.have)
    }

    /// Segment `n`, if its index page is here.
    pub(crate) fn segment(&self, n: usize) -> Option<SegmentRef> {
        self.page(n / SEGMENTS_PER_PAGE)?.index.segment(n % SEGMENTS_PER_PAGE)
    }

    pub(crate) fn has(&self, n: usize) -> bool {
        self.have(n / SEGMENTS_PER_PAGE) & (1 << (n % SEGMENTS_PER_PAGE)) != 0
    }

    /// Where a segment begins, in audible time: of its body, less the delay.
    fn begins(&self, n: usize) -> Option<Span> {
        let r = &self.rendition;
        let frame = match self.segment(n) {
            Some(s) => s.first_frame,
            None if n.is_multiple_of(SEGMENTS_PER_PAGE) => r.index.get(n / SEGMENTS_PER_PAGE)?.first_frame,
            None => return None,
        };
        Some(Frames::new(frame.saturating_sub(r.delay), r.init.rate).span())
    }

    /// Where segment `n` lies in the rendition's object, if its index page is here.
    pub(crate) fn place(&self, n: usize) -> Option<(u64, SegmentRef)> {
        let (p, k) = (n / SEGMENTS_PER_PAGE, n % SEGMENTS_PER_PAGE);
        let before = self.page(p)?.index.segments().take(k).map(|s| u64::from(s.length)).sum::<u64>();
        Some((self.rendition.index.get(p)?.offset + before, self.segment(n)?))
    }

    /// The page that holds a decoded frame.
    fn page_of(&self, frame: u64) -> usize {
        self.rendition.index.partition_point(|x| x.first_frame <= frame).saturating_sub(1)
    }
}

/// What is missing at or after a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// This slot.
    Slot(usize),
    /// Nobody knows which slots page `p` has.
    Page(usize),
    /// Nothing.
    None,
}

/// What is known of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) entry: EntryId,
    pub(crate) digest: Digest,
    pub(crate) record: Option<Arc<Record>>,
    /// By rank: the smallest first, the original last.
    pub(crate) held: Vec<Held>,
    pub(crate) bad: Option<Reason>,
    /// All of it was on board when its details were put away.
    pub(crate) whole: bool,
    /// The highest rank in which, or better, all of it is on board.
    all_from: Option<usize>,
    /// Length, as the catalogue has it.
    length: Span,
}

impl Plan {
    pub(crate) fn new(entry: EntryId, digest: Digest, length: Span) -> Self {
        Self { entry, digest, record: None, held: Vec::new(), bad: None, whole: false, all_from: None, length }
    }

    /// The record is here.
    pub(crate) fn set_record(&mut self, record: Record, original_only: bool) {
        let original = record.renditions.first().map_or(0, |r| r.size);
        let worth = |(i, r): &(usize, &Rendition)| *i == 0 || (!original_only && r.size * 100 < original * WORTH_PCT);
        let chosen = record.renditions.iter().enumerate().filter(worth).map(|(_, r)| r);
        self.held = chosen
            .map(|r| Held { pages: r.index.iter().map(|_| None).collect(), rendition: Arc::new(r.clone()) })
            .collect();
        self.held.sort_by_key(|h| h.rendition.size);
        self.all_from = None;
        self.record = Some(Arc::new(record));
    }

    /// An index page of rank `r` is here.
    pub(crate) fn set_page(&mut self, r: usize, p: usize, index: IndexPage) -> Result<(), Reason> {
        let Some(held) = self.held.get_mut(r) else { return Ok(()) };
        let last = p + 1 == held.pages.len();
        if index.is_empty() || (!last && index.len() != SEGMENTS_PER_PAGE) {
            return Err(Reason::Damaged);
        }
        if let Some(slot @ None) = held.pages.get_mut(p) {
            *slot = Some(Page { index, have: 0 });
        }
        self.count();
        Ok(())
    }

    /// Notes whether a segment is in the store.
    pub(crate) fn set_segment(&mut self, r: usize, n: usize, here: bool) {
        let page = self.held.get_mut(r).and_then(|h| h.pages.get_mut(n / SEGMENTS_PER_PAGE));
        if let Some(Some(page)) = page {
            let bit = 1 << (n % SEGMENTS_PER_PAGE);
            page.have = if here { page.have | bit } else { page.have & !bit };
        }
        self.count();
    }

    /// Finds out anew what is there as a whole.
    fn count(&mut self) {
        self.all_from = (0..self.held.len()).rev().find(|&r| self.gap(0, r) == Gap::None);
    }

    /// Whether all of it is on board in rank `from` or better.
    pub(crate) fn has_all(&self, from: usize) -> bool {
        self.all_from.is_some_and(|r| r >= from)
    }

    /// A segment is not in the store after all.
    pub(crate) fn torn(&mut self, digest: Digest) {
        for page in self.held.iter_mut().flat_map(|h| h.pages.iter_mut().flatten()) {
            if let Some(k) = page.index.segments().position(|s| s.digest == digest) {
                page.have &= !(1 << k);
            }
        }
        self.count();
    }

    /// Goes without the rendition that this segment is of; whether there was one.
    pub(crate) fn without(&mut self, digest: Digest) -> bool {
        let holds = |h: &Held| h.pages.iter().flatten().any(|page| page.index.segments().any(|s| s.digest == digest));
        let before = self.held.len();
        self.held.retain(|h| !holds(h));
        self.count();
        self.held.len() < before
    }

    /// Keeps only that all of it is on board: it is far away, and details cost memory.
    pub(crate) fn put_away(&mut self) {
        (self.whole, self.record, self.held, self.all_from) = (true, None, Vec::new(), None);
    }

    /// Whether an index page of rank `r` is here.
    pub(crate) fn knows(&self, r: usize, p: usize) -> bool {
        self.held.get(r).is_none_or(|h| h.page(p).is_some() || p >= h.pages.len())
    }

    /// Pages of the index; 0 before the record is here.
    pub(crate) fn pages(&self) -> usize {
        self.held.last().map_or(0, |h| h.pages.len())
    }

    /// Slots of page `p`, as far as anybody knows.
    fn slots(&self, p: usize) -> Option<usize> {
        self.held.iter().find_map(|h| h.page(p)).map(|page| page.index.len())
    }

    /// Slots of page `p` that are on board in rank `from` or a better one.
    fn have(&self, p: usize, from: usize) -> u128 {
        self.held.iter().skip(from).fold(0, |all, h| all | h.have(p))
    }

    /// The slot that holds a playhead, or the page that would tell.
    pub(crate) fn locate(&self, at: Frames) -> Result<usize, usize> {
        let mut page = 0;
        for h in self.held.iter().rev() {
            let r = &h.rendition;
            let frame = at.at_rate(r.init.rate).n.min(r.frames.saturating_sub(1)) + r.delay;
            page = h.page_of(frame);
            if let Some(known) = h.page(page) {
                let begins = |k: usize| known.index.segment(k).map_or(u64::MAX, |s| s.first_frame);
                let (mut k, mut behind) = (0, known.index.len());
                while k + 1 < behind {
                    let middle = (k + behind) / 2;
                    if begins(middle) <= frame { k = middle } else { behind = middle }
                }
                return Ok(page * SEGMENTS_PER_PAGE + k);
            }
        }
        Err(page)
    }

    /// Length in time.
    pub(crate) fn length(&self) -> Span {
        self.held.last().map_or(self.length, |h| Frames::new(h.rendition.frames, h.rendition.init.rate).span())
    }

    /// Whether slot `n` is the last.
    pub(crate) fn is_last(&self, n: usize) -> bool {
        let p = n / SEGMENTS_PER_PAGE;
        p + 1 == self.pages() && self.slots(p) == Some(n % SEGMENTS_PER_PAGE + 1)
    }

    /// Where a slot begins; the end of the track behind its last.
    pub(crate) fn begins(&self, n: usize) -> Span {
        self.held.iter().rev().find_map(|h| h.begins(n)).unwrap_or_else(|| self.length())
    }

    /// The first slot from `n` on that is not on board in rank `from` or a better one.
    pub(crate) fn gap(&self, n: usize, from: usize) -> Gap {
        let mut p = n / SEGMENTS_PER_PAGE;
        let mut seen = (1_u128 << (n % SEGMENTS_PER_PAGE)) - 1;
        while p < self.pages() {
            let Some(slots) = self.slots(p) else { return Gap::Page(p) };
            let first = (self.have(p, from) | seen).trailing_ones() as usize;
            if first < slots {
                return Gap::Slot(p * SEGMENTS_PER_PAGE + first);
            }
            (p, seen) = (p + 1, 0);
        }
        Gap::None
    }

    /// Where what is on board without a hole from slot `n` on ends, in rank `from` or better, and whether that is the end of the track.
    pub(crate) fn reach(&self, n: usize, from: usize) -> (Span, bool) {
        match self.gap(n, from) {
            Gap::Slot(k) => (self.begins(k), false),
            Gap::Page(p) => (self.begins(p * SEGMENTS_PER_PAGE), false),
            Gap::None => (self.length(), self.pages() > 0),
        }
    }

    /// Playable time on board from a playhead on without a hole, and whether that reaches the end.
    pub(crate) fn level(&self, from: Frames) -> (Span, bool) {
        let (end, whole) = match self.locate(from) {
            _ if self.has_all(0) => (self.length(), true),
            Ok(n) => self.reach(n, 0),
            Err(_) if self.whole => (self.length(), true),
            Err(_) => return (Span(0), false),
        };
        (Span(end.0.saturating_sub(from.span().0)), whole)
    }

    /// The rank to play slot `n` in, after `last`: the better one once it is here for [`RUN`], or for [`SHORT_RUN`] if `last` is no
    /// small one, where hardly anybody hears the change; and no change without need.
    pub(crate) fn pick(&self, n: usize, last: Option<usize>) -> Option<usize> {
        let here = |r: &usize| self.held.get(*r).is_some_and(|h| h.has(n));
        let begin = self.begins(n);
        // How long this very rank goes on.
        let run = |r: usize| -> Span {
            let mut k = n;
            while self.held[r].has(k) && self.begins(k).0 < begin.0 + RUN.0 {
                k += 1;
            }
            Span(self.begins(k).0.saturating_sub(begin.0))
        };
        let last = last.filter(here);
        let enough = if last.is_some_and(|l| l > 0) { SHORT_RUN } else { RUN };
        let left = self.length().0.saturating_sub(begin.0).min(enough.0);
        let better = (0..self.held.len()).rev().filter(here).take_while(|r| last.is_none_or(|l| *r > l));
        let mut longest: Option<(Span, usize)> = None;
        for r in better {
            let run = run(r);
            if run.0 >= left {
                return Some(r);
            }
            if longest.is_none_or(|l| run > l.0) {
                longest = Some((run, r));
            }
        }
        last.or(longest.map(|l| l.1))
    }

    /// How much is on board, in percent.
    pub(crate) fn pct(&self) -> u8 {
        if self.whole && self.record.is_none() {
            return 100;
        }
        let have: usize = (0..self.pages()).map(|p| self.have(p, 0).count_ones() as usize).sum();
        let last = self.pages().checked_sub(1).and_then(|p| self.slots(p)).unwrap_or(SEGMENTS_PER_PAGE);
        let all = self.pages().saturating_sub(1) * SEGMENTS_PER_PAGE + last;
        if self.pages() == 0 { 0 } else { (have * 100 / all.max(1)).min(100) as u8 }
    }
}

/// A better rendition that is on board for so long is worth a change from the smallest.
const RUN: Span = Span::s(10);
/// And for so long from a better one than that: two segments.
const SHORT_RUN: Span = Span::s(6);
/// A better rendition is fetched so that it can stay: a change at most twice a minute.
pub(crate) const STAY: Span = Span::s(30);
