//! The link of the simulated world: what it can carry by when, what is in the way, and the transfers on it.
//!
//! *Capacity*: bytes that the link can have carried by an instant, a line with corners. When a transfer ends is solved from it,
//! so that a link that changes every second costs a transfer one look-up. Amounts are millionths of a byte: bytes a second
//! times microseconds, exact in integers. Transfers share the link in the order of their requests.

use std::collections::VecDeque;
use std::sync::Arc;

use jukebox_core::library::Digest;
use jukebox_core::planner::Wish;
use jukebox_core::reason::Reason;
use jukebox_core::time::{Instant, Span};

/// Millionths of a byte in a byte.
const MICRO: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Corner {
    at: Instant,
    /// Carried by then.
    sum: u64,
    /// Bytes a second from then on.
    rate: u32,
}

/// What a link can have carried by when. Behind its last corner it stays as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity(Vec<Corner>);

impl Capacity {
    /// From rows of a trace (how long, bytes), one after the other from the instant 0, again and again until `end`.
    pub fn of_rows(rows: &[(Span, u64)], end: Instant) -> Self {
        let (mut at, mut corners) = (Instant(0), Vec::new());
        let length: u64 = rows.iter().map(|r| r.0.0).sum();
        while at < end && length > 0 {
            for (span, bytes) in rows.iter().filter(|r| r.0 > Span(0)) {
                corners.push((at, (bytes * MICRO / span.0) as u32));
                at = at + *span;
            }
        }
        Self::of_rates(corners)
    }

    /// From instants, in order, and the rate from each on, in bytes a second.
    pub fn of_rates(corners: impl IntoIterator<Item = (Instant, u32)>) -> Self {
        let mut all: Vec<Corner> = Vec::new();
        for (at, rate) in corners {
            let sum = all.last().map_or(0, |c| c.sum + u64::from(c.rate) * at.since(c.at).0);
            if all.last().is_none_or(|c| c.rate != rate) {
                all.push(Corner { at, sum, rate });
            }
        }
        Self(all)
    }

    /// The same, with at most so many bytes a second in each of these times: from when, until when, how many; in order.
    #[must_use]
    pub fn capped(&self, times: impl IntoIterator<Item = (Instant, Instant, u32)>) -> Self {
        let (mut all, mut rate): (Vec<(Instant, u32)>, u32) = (Vec::with_capacity(self.0.len()), 0);
        let mut corners = self.0.iter().peekable();
        for (from, until, most) in times {
            while let Some(c) = corners.next_if(|c| c.at <= from) {
                rate = c.rate;
                all.push((c.at, rate));
            }
            // What was to begin just then begins capped.
            all.pop_if(|c| c.0 == from);
            all.push((from, rate.min(most)));
            while let Some(c) = corners.next_if(|c| c.at <= until) {
                rate = c.rate;
                if c.at < until {
                    all.push((c.at, rate.min(most)));
                }
            }
            all.push((until, rate));
        }
        all.extend(corners.map(|c| (c.at, c.rate)));
        Self::of_rates(all)
    }

    /// What it can have carried by an instant, in millionths of a byte.
    pub fn carried(&self, by: Instant) -> u64 {
        let i = self.0.partition_point(|c| c.at <= by);
        self.0[..i].last().map_or(0, |c| c.sum + u64::from(c.rate) * by.since(c.at).0)
    }

    /// The first instant by which it can have carried so many millionths of a byte; none: never.
    pub fn when(&self, sum: u64) -> Option<Instant> {
        let i = self.0.partition_point(|c| c.sum < sum);
        let Some(c) = self.0[..i].last() else { return self.0.first().map(|c| c.at) };
        (c.rate > 0).then(|| c.at + Span((sum - c.sum).div_ceil(c.rate.into())))
    }

    /// Mean rate up to an instant, in kbit/s.
    pub fn mean_kbps(&self, until: Instant) -> u64 {
        self.carried(until) / MICRO * 8_000 / until.0.max(1)
    }
}

/// What is in the way of all requests for a while. What the link carries meanwhile helps nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Packets vanish, and nobody tells.
    BlackHole,
    /// The interface is down; the kernel tells when it is up again.
    NoRoute,
    /// The name of the office is not found.
    Dns,
    /// A login page answers.
    Portal,
    /// The office's server restarts.
    Restart,
    /// The server sends a byte now and then.
    SlowLoris,
    /// Everything comes with a wrong digest.
    Lying,
    /// The card is full: what comes cannot be kept.
    DiskFull,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::BlackHole,
        Self::NoRoute,
        Self::Dns,
        Self::Portal,
        Self::Restart,
        Self::SlowLoris,
        Self::Lying,
        Self::DiskFull,
    ];

    /// How a request fails that is made meanwhile, or was under way when it began, and after how long.
    pub fn refuses(self, rtt: Span) -> Option<(Reason, Span)> {
        match self {
            Self::NoRoute => Some((Reason::NoRoute, Span::ms(1))),
            Self::Dns => Some((Reason::Dns, Span::s(5))),
            Self::Portal => Some((Reason::Portal, rtt)),
            Self::Restart => Some((Reason::Refused, rtt)),
            Self::BlackHole | Self::SlowLoris | Self::Lying | Self::DiskFull => None,
        }
    }

    /// How what came meanwhile turns out to be useless.
    fn spoils(self) -> Option<Reason> {
        match self {
            Self::Lying => Some(Reason::Lying),
            Self::DiskFull => Some(Reason::DiskFull),
            _ => None,
        }
    }

    /// Bytes a second that pass at most.
    pub fn passes(self) -> u32 {
        if matches!(self, Self::SlowLoris) { 100 } else { 0 }
    }
}

/// The link of a whole night.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// What it can carry, faults or not.
    pub capacity: Capacity,
    /// Round trip.
    pub rtt: Span,
    /// What is in the way, from when until when; in order, none within another.
    pub faults: Vec<(Instant, Instant, Fault)>,
}

impl Weather {
    /// What is in the way now.
    pub fn fault(&self, now: Instant) -> Option<Fault> {
        let i = self.faults.partition_point(|f| f.0 <= now);
        self.faults[..i].last().filter(|f| now < f.1).map(|f| f.2)
    }

    /// What it can carry that helps anybody.
    pub fn useful(&self) -> Capacity {
        self.capacity.capped(self.faults.iter().map(|f| (f.0, f.1, f.2.passes())))
    }
}

/// The link as it is now.
#[derive(Clone, Debug)]
pub enum Link {
    /// So many kbit/s, this round trip.
    Up {
        /// kbit/s.
        kbps: u64,
        /// Round trip.
        rtt: Span,
    },
    /// Every request fails like this, after this long; what is under way stands still.
    Down {
        /// How.
        reason: Reason,
        /// When it is noticed.
        after: Span,
    },
    /// As the night has it. The second is what passes: the capacity without what only a black hole or a slow server holds up.
    Night(Arc<Weather>, Arc<Capacity>),
}

impl Link {
    /// The link of a night.
    pub fn night(weather: Weather) -> Self {
        let held = |f: &&(Instant, Instant, Fault)| f.2.spoils().is_none();
        let passes = weather.capacity.capped(weather.faults.iter().filter(held).map(|f| (f.0, f.1, f.2.passes())));
        Self::Night(Arc::new(weather), Arc::new(passes))
    }

    /// Round trip.
    pub fn rtt(&self) -> Span {
        match self {
            Self::Up { rtt, .. } => *rtt,
            Self::Down { .. } => Span::ms(1),
            Self::Night(weather, _) => weather.rtt,
        }
    }

    /// How a request fails now, and after how long; none: it gets through.
    pub fn refuses(&self, now: Instant) -> Option<(Reason, Span)> {
        match self {
            Self::Up { .. } => None,
            Self::Down { reason, after } => Some((*reason, *after)),
            Self::Night(weather, _) => weather.fault(now)?.refuses(weather.rtt),
        }
    }

    /// Whether a probe that is sent now comes back, and after how long.
    pub fn probe(&self, now: Instant) -> (bool, Span) {
        const PATIENCE: Span = Span::s(1);
        match self {
            Self::Up { rtt, .. } => (true, *rtt),
            Self::Down { after, .. } => (false, PATIENCE.min(*after)),
            Self::Night(weather, passes) => match weather.fault(now) {
                // A connection is all that a probe wants.
                Some(Fault::Portal | Fault::SlowLoris) => (true, weather.rtt),
                Some(f) if let Some((_, after)) = f.refuses(weather.rtt) => (false, after.min(PATIENCE)),
                _ => {
                    let there = passes.when(passes.carried(now + weather.rtt) + 60 * MICRO).map(|t| t.since(now));
                    there.filter(|after| *after <= PATIENCE).map_or((false, PATIENCE), |after| (true, after))
                }
            },
        }
    }

    fn when(&self, begin: Instant, left: u64) -> Option<Instant> {
        match self {
            Self::Up { kbps, .. } => Some(begin + Span(left.div_ceil((kbps * 125).max(1)))),
            Self::Down { .. } => None,
            Self::Night(_, passes) => passes.when(passes.carried(begin) + left).map(|t| t.max(begin)),
        }
    }

    fn carried(&self, from: Instant, until: Instant) -> u64 {
        match self {
            Self::Up { kbps, .. } => kbps * 125 * until.since(from).0,
            Self::Down { .. } => 0,
            Self::Night(_, passes) => passes.carried(until) - passes.carried(from),
        }
    }
}

/// A transfer.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The wish.
    pub id: u64,
    /// What it brings.
    pub digest: Digest,
    /// Bytes in all.
    pub size: u64,
    /// Whether the answer should hold the bytes.
    pub read: Option<Vec<u8>>,
    /// When the request has reached the office and its answer us.
    ready: Instant,
    deadline: Instant,
    /// Bytes of it that an earlier transfer brought.
    before: u64,
    /// Millionths of a byte that are still to come.
    left: u64,
    begun: Option<Instant>,
}

impl Flow {
    /// Bytes that have come, the part of before included.
    pub fn received(&self) -> u64 {
        self.size - self.left.div_ceil(MICRO)
    }
    /// Bytes that this transfer brought.
    pub fn came(&self) -> u64 {
        self.received() - self.before
    }
    /// From its first byte until now.
    pub fn took(&self, now: Instant) -> Span {
        self.begun.map_or(Span(1), |t| Span(now.since(t).0.max(1)))
    }
}

/// The transfers under way, in the order of their requests.
#[derive(Clone, Debug, Default)]
pub struct Pipe {
    flows: VecDeque<Flow>,
    settled: Instant,
    /// Of segments whose transfers broke, as the player keeps them: what there is of each. The oldest goes.
    parts: VecDeque<(Digest, u64)>,
}

/// Parts that are kept at most, and their bytes.
const PARTS: usize = 4;
const PARTS_BYTES: u64 = 4 << 20;

impl Pipe {
    /// A transfer of so many bytes begins; `read` goes into its answer.
    pub fn push(&mut self, now: Instant, link: &Link, wish: &Wish, size: u64, read: Option<Vec<u8>>) {
        let (ready, deadline) = (now + link.rtt(), now + wish.deadline);
        let (id, digest) = (wish.id, wish.digest);
        let part = self.parts.iter().position(|p| p.0 == digest).and_then(|i| self.parts.remove(i));
        let before = part.map_or(0, |p| p.1);
        let left = (size - before) * MICRO;
        self.flows.push_back(Flow { id, digest, size, read, ready, deadline, before, left, begun: None });
    }

    /// A transfer is not wanted any more.
    pub fn cancel(&mut self, id: u64) -> Option<Flow> {
        let i = self.flows.iter().position(|f| f.id == id)?;
        self.flows.remove(i)
    }

    /// What a broken transfer brought is kept for the next one; bytes that are dropped for it.
    pub fn keep(&mut self, flow: &Flow) -> u64 {
        if flow.read.is_some() || flow.received() == 0 {
            return flow.received();
        }
        self.parts.push_back((flow.digest, flow.received()));
        let mut dropped = 0;
        while self.parts.len() > PARTS || self.parts.iter().map(|p| p.1).sum::<u64>() > PARTS_BYTES {
            dropped += self.parts.pop_front().map_or(0, |p| p.1);
        }
        dropped
    }

    /// Everything is dropped: so many bytes.
    pub fn clear(&mut self) -> u64 {
        let flows = std::mem::take(&mut self.flows).into_iter().map(|f| f.received());
        flows.chain(std::mem::take(&mut self.parts).into_iter().map(|p| p.1)).sum()
    }

    /// When a transfer ends, one way or the other, if the link stays as it is.
    pub fn next(&self, link: &Link) -> Option<Instant> {
        let head = self.flows.front()?;
        let end = link.when(self.settled.max(head.ready), head.left);
        let deadline = self.flows.iter().map(|f| f.deadline).min();
        let fault = match link {
            Link::Night(w, _) => w.faults.get(w.faults.partition_point(|f| f.0 <= self.settled)).map(|f| f.0),
            _ => None,
        };
        [end, deadline, fault].into_iter().flatten().min()
    }

    /// Brings the transfers up to `now`; those that have ended, and how. No transfer may have ended before.
    pub fn settle(&mut self, link: &Link, now: Instant) -> Vec<(Flow, Result<(), Reason>)> {
        let mut ended = Vec::new();
        while let Some(head) = self.flows.front_mut() {
            let begin = self.settled.max(head.ready);
            if begin > now {
                break;
            }
            head.begun.get_or_insert(begin);
            let carried = link.carried(begin, now);
            if carried < head.left {
                head.left -= carried;
                break;
            }
            self.settled = link.when(begin, head.left).unwrap_or(now).min(now);
            head.left = 0;
            let Some(flow) = self.flows.pop_front() else { break };
            let outcome = match link {
                Link::Night(w, _) => spoiled(w, flow.begun.unwrap_or(now), now),
                _ => None,
            };
            ended.push((flow, outcome.map_or(Ok(()), Err)));
        }
        self.settled = self.settled.max(now);
        let broken = match link {
            Link::Night(..) => link.refuses(now).map(|r| r.0),
            _ => None,
        };
        let gone = |f: &mut Flow| broken.is_some() || f.deadline <= now;
        let mut i = 0;
        while i < self.flows.len() {
            if gone(&mut self.flows[i])
                && let Some(f) = self.flows.remove(i)
            {
                ended.push((f, Err(broken.unwrap_or(Reason::Timeout))));
            } else {
                i += 1;
            }
        }
        ended
    }
}

/// Whether something spoiled what came between the two instants.
fn spoiled(w: &Weather, begun: Instant, end: Instant) -> Option<Reason> {
    let i = w.faults.partition_point(|f| f.1 <= begun);
    w.faults[i..].iter().take_while(|f| f.0 < end).find_map(|f| f.2.spoils())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: u64) -> Instant {
        Instant(0) + Span::s(n)
    }

    #[test]
    fn a_capacity_is_solved_where_it_was_asked() {
        let rows = [(Span::s(10), 10_000), (Span::s(10), 0), (Span::s(5), 50_000)];
        let c = Capacity::of_rows(&rows, s(40));
        assert_eq!(c.carried(s(5)), 5_000 * MICRO);
        assert_eq!((c.carried(s(15)), c.carried(s(20))), (10_000 * MICRO, 10_000 * MICRO));
        assert_eq!(c.carried(s(50)), 120_000 * MICRO, "again and again");
        assert_eq!(c.when(0), Some(s(0)));
        assert_eq!(c.when(10_000 * MICRO), Some(s(10)), "the first instant, not the end of the gap behind it");
        assert_eq!(c.when(10_000 * MICRO + 1), Some(Instant(20_000_001)));
        for sum in (0..12).map(|k| k * 9_999 * MICRO) {
            let t = c.when(sum).unwrap();
            assert!(c.carried(t) >= sum && (t == s(0) || c.carried(t - Span(1)) < sum), "{sum}");
        }
        let capped = c.capped([(s(2), s(22), 100)]);
        assert_eq!(capped.carried(s(22)), (2_000 + 800 + 200) * MICRO);
        assert_eq!(capped.carried(s(24)), (3_000 + 20_000) * MICRO, "and after it as before");
        assert_eq!(Capacity::of_rates([(s(0), 100), (s(1), 0)]).when(101 * MICRO), None);
    }

    #[test]
    fn transfers_share_the_link_and_the_faults_of_the_night() {
        let capacity = Capacity::of_rates([(s(0), 1_000)]);
        let faults =
            vec![(s(10), s(20), Fault::BlackHole), (s(30), s(31), Fault::Restart), (s(40), s(50), Fault::Lying)];
        let link = Link::night(Weather { capacity, rtt: Span::ms(500), faults });
        let mut pipe = Pipe::default();
        let digest = Digest([0; 32]);
        let mut run = |asks: &[(u64, u64)], until: Instant| {
            let (mut ends, mut asks) = (Vec::new(), asks.iter().peekable());
            loop {
                let ask = asks.peek().map(|a| s(a.0));
                let Some(now) = [pipe.next(&link), ask].into_iter().flatten().min().filter(|t| *t <= until) else {
                    break;
                };
                ends.extend(pipe.settle(&link, now).into_iter().map(|(f, o)| (f.id, now.0 / MICRO, f.received(), o)));
                if let Some(&(at, bytes)) = asks.next_if(|a| s(a.0) == now) {
                    let wish = Wish {
                        id: at,
                        object: digest,
                        range: None,
                        digest,
                        deadline: Span::s(30),
                        read: false,
                        keep: jukebox_core::planner::Keep::default(),
                    };
                    pipe.push(now, &link, &wish, bytes, None);
                }
            }
            ends
        };
        // One after the other, and through the black hole; the second is broken by the restart.
        assert_eq!(
            run(&[(2, 5_000), (3, 20_000)], s(35)),
            [(2, 7, 5_000, Ok(())), (3, 30, 12_500, Err(Reason::Refused))]
        );
        assert_eq!(run(&[(36, 5_000)], s(45)), [(36, 41, 5_000, Err(Reason::Lying))]);
        assert_eq!(run(&[(60, 40_000)], s(99)), [(60, 90, 29_500, Err(Reason::Timeout))]);
        assert_eq!((link.probe(s(5)).0, link.probe(s(15)).0, link.probe(s(45)).0), (true, false, true));
    }
}
