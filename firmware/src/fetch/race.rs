//! The requests for one want: one after the other while they fail, a second beside the first where nothing moves.
//!
//! *Candidate*: an origin by one way. *Hedge*: a second request, to the next candidate or over a fresh connection, when the
//! first has stood still for too long; it goes on behind what the first has brought. Whoever is right first wins.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::flow::Flow;
use super::{Candidate, Fault, Inner, Meter, Want};

/// How often requests are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often the only one that is left is asked again.
const AGAIN: u32 = 2;
/// Requests for one want at a time.
const MOST: usize = 2;
/// A request that is so old is expected to end before its deadline at its pace, or another origin is asked.
const CRAWLS_AFTER: Duration = Duration::from_secs(2);

pub(super) struct Race<'a> {
    inner: &'a Inner,
    want: &'a Want,
    meter: &'a Meter,
    running: Vec<Runner<'a>>,
    /// The longest part that came of requests that are over.
    part: Vec<u8>,
    won: bool,
}

struct Runner<'a> {
    candidate: Candidate,
    flow: Flow,
    work: Pin<Box<dyn Future<Output = Result<Bytes, Fault>> + Send + 'a>>,
}

/// Who was right first.
pub(super) struct Won {
    pub(super) bytes: Bytes,
    pub(super) candidate: Candidate,
    /// Of `bytes`, those that this request brought,
    pub(super) came: u64,
    /// in this time.
    pub(super) took: Duration,
}

impl<'a> Race<'a> {
    pub(super) fn new(inner: &'a Inner, want: &'a Want, meter: &'a Meter) -> Self {
        // Only a range can be gone on with.
        let part = if want.range.is_some() { inner.parts.take(&want.digest, meter) } else { Vec::new() };
        Self { inner, want, meter, running: Vec::new(), part, won: false }
    }

    /// Until somebody is right, or nobody is left: then what each of them did.
    pub(super) async fn run(mut self, mut candidates: VecDeque<Candidate>) -> Result<Won, Vec<Fault>> {
        let mut faults = Vec::with_capacity(candidates.len());
        let mut again = AGAIN;
        loop {
            if self.running.is_empty() {
                let Some(next) = candidates.pop_front() else { return Err(faults) };
                self.start(next);
            }
            match timeout(LOOK, first(&mut self.running)).await {
                Ok((i, answer)) => {
                    let done = self.running.swap_remove(i);
                    let (came, part) = (done.flow.came(), done.flow.take());
                    match answer {
                        Ok(bytes) => {
                            self.won = true;
                            let lost = self.running.iter().filter(|r| r.stands(self.inner, self.want));
                            lost.for_each(|r| self.inner.origins[r.candidate.origin].note(Some(Fault::Timeout)));
                            let (candidate, took) = (done.candidate, done.flow.times().0);
                            return Ok(Won { bytes, candidate, came: came as u64, took });
                        }
                        Err(fault) => {
                            let url = &self.inner.origins[done.candidate.origin].url;
                            tracing::debug!(url, object = %self.want.object, "{fault}");
                            if done.flow.restarted() {
                                self.part.clear();
                            }
                            if !matches!(fault, Fault::WrongDigest { .. } | Fault::WrongLength) {
                                self.leave(part);
                            }
                            let hopeless = candidates.is_empty() && self.running.is_empty();
                            if hopeless && fault == Fault::Reset && came > 0 && again > 0 {
                                // It was cut in the middle, and nobody else is left: at once, behind what came.
                                again -= 1;
                                self.start(done.candidate);
                            } else {
                                faults.push(fault);
                            }
                        }
                    }
                }
                Err(_) if self.running.iter().all(|r| r.stands(self.inner, self.want)) => {
                    if let Some(fault) = self.hedge(&mut candidates, &mut again) {
                        faults.push(fault);
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Nothing moves: another one is asked beside, or the only one over a fresh connection.
    fn hedge(&mut self, candidates: &mut VecDeque<Candidate>, again: &mut u32) -> Option<Fault> {
        let mut fault = None;
        let next = match candidates.front() {
            Some(_) if self.running.len() == MOST => {
                let slowest = self.running.remove(0);
                self.inner.origins[slowest.candidate.origin].note(Some(Fault::Timeout));
                self.leave(slowest.flow.take());
                fault = Some(Fault::Timeout);
                candidates.pop_front()
            }
            Some(_) => candidates.pop_front(),
            None => {
                let only = self.running.first().map(|r| (r.candidate, r.flow.times().1));
                let stuck = only.filter(|(c, still)| {
                    let origin = &self.inner.origins[c.origin];
                    self.running.len() < MOST && origin.is_http() && *still > 2 * origin.patience()
                });
                let next = stuck.filter(|_| *again > 0).map(|(c, _)| c);
                *again -= u32::from(next.is_some());
                next
            }
        };
        if let Some(next) = next {
            if let Some(same) = self.running.iter().find(|r| r.candidate == next) {
                // What is under way keeps its connection.
                self.inner.origins[same.candidate.origin].renew(Some(next.way));
            }
            self.start(next);
        }
        fault
    }

    fn start(&mut self, candidate: Candidate) {
        let parts = self.running.iter().map(|r| r.flow.part());
        let mut part = parts.chain([self.part.clone()]).max_by_key(Vec::len).unwrap_or_default();
        match &self.want.range {
            Some(range)
                if (part.len() as u64) < range.end - range.start && self.inner.origins[candidate.origin].is_http() => {}
            _ => part.clear(),
        }
        let flow = Flow::new(part, self.meter);
        let work = Box::pin(self.inner.attempt(candidate, self.want, flow.clone(), self.meter));
        self.running.push(Runner { candidate, flow, work });
    }

    fn leave(&mut self, part: Vec<u8>) {
        if self.want.range.is_some() && part.len() > self.part.len() {
            self.part = part;
        }
    }
}

impl Drop for Race<'_> {
    /// Given up, or lost: what came is kept for the next try.
    fn drop(&mut self) {
        for r in std::mem::take(&mut self.running) {
            self.leave(r.flow.take());
        }
        if !self.won {
            self.inner.parts.keep(self.want.digest, std::mem::take(&mut self.part), self.meter);
        }
    }
}

impl Runner<'_> {
    /// Whether nothing comes any more, or so little that it will not be there in time.
    fn stands(&self, inner: &Inner, want: &Want) -> bool {
        let (age, still) = self.flow.times();
        let length = want.range.as_ref().map_or(0, |r| r.end - r.start) as f64;
        let left = length - self.flow.len() as f64;
        let crawls = || left / (self.flow.came() as f64 + 1.0) * age.as_secs_f64() > want.deadline.as_secs_f64();
        still > inner.origins[self.candidate.origin].patience() || age > CRAWLS_AFTER && crawls()
    }
}

/// The first request that ends, by its place.
async fn first(running: &mut [Runner<'_>]) -> (usize, Result<Bytes, Fault>) {
    poll_fn(|cx| {
        for (i, runner) in running.iter_mut().enumerate() {
            if let Poll::Ready(answer) = runner.work.as_mut().poll(cx) {
                return Poll::Ready((i, answer));
            }
        }
        Poll::Pending
    })
    .await
}
