//! The physical limit: what a player could do that knows the future of the link, with the same library and the same wishes.
//!
//! It never waits, keeps everything, and knows of an entry when it is asked for. Three answers, each a bound that no player can beat:
//!
//! - *Silence*, starts included: it fetches the smallest rendition in the order of the queue, without a pause, and plays each
//!   segment as soon as it is whole and its turn has come. No order of fetching brings a beginning of the queue on board earlier,
//!   so at no time can anybody have played more; and where its queue is empty, nobody else's is shorter.
//! - *Start delay*, from the wish to the first frame, where nothing was to sound before: record, index page and segment go
//!   over the link one after the other: what names the next has to be here, and its first byte comes a round trip later.
//! - *Bit rate*: what is heard by an instant must have come by then, and what is heard after it is at best the
//!   original. The least of these sums over all instants bounds the bytes heard.

use jukebox_core::library::{Digest, Record, RenditionName, SEGMENTS_PER_PAGE};
use jukebox_core::time::{Instant, Span};

use crate::world::library::Library;
use crate::world::link::Capacity;

/// The bounds of a night.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limit {
    /// Least time in which it should sound and does not.
    pub silence: Span,
    /// Wishes after which it has to start, and the least delay of each.
    pub starts: Vec<(Instant, Span)>,
    /// Most that can be played.
    pub played: Span,
    /// Highest mean bit rate of what is heard, in kbit/s.
    pub kbps: u64,
}

const MICRO: u64 = 1_000_000;

/// The limit for entries that were asked for at these instants (in order; which track), until the night ends.
/// `link`: what it can carry that helps.
pub fn limit(library: &Library, link: &Capacity, rtt: Span, wishes: &[(Instant, u64)], until: Instant) -> Limit {
    let mut limit = Limit::default();
    let mut had = std::collections::HashSet::new();
    // What the link has carried for us, when what has come so far ends to sound, and what is heard in the best rendition.
    let (mut carried, mut ends) = (0, Instant(0));
    let mut heard: Vec<(Instant, u64)> = Vec::new();
    for &(at, track) in wishes {
        carried = carried.max(link.carried(at + rtt));
        let never = Instant(u64::MAX / 2);
        // When something has come that is asked for once what names it has come.
        let mut come = |digest: Digest, size: u64, named: Instant| {
            if !had.insert(digest) {
                return named;
            }
            carried += size * MICRO;
            let alone = link.carried(named + rtt) + size * MICRO;
            link.when(carried.max(alone)).unwrap_or(never).max(named + rtt)
        };
        let row = &library.rows[track as usize];
        let record = &library.objects[&row.record];
        let Ok(parsed) = Record::parse(record) else { continue };
        let Some(small) = parsed.renditions.iter().min_by_key(|r| r.size) else { continue };
        let record_here = come(row.record, record.len() as u64, at);
        let mut named = record_here;
        let mut first = true;
        for n in 0.. {
            let part = |name| library.segments.get(&Library::segment(track, name, n));
            let (Some(part), Some(best)) = (part(small.name), part(RenditionName::Original)) else { break };
            if n % SEGMENTS_PER_PAGE == 0 {
                let page = small.index[n / SEGMENTS_PER_PAGE].object;
                named = come(page, library.objects[&page].len() as u64, record_here);
            }
            let here = come(Library::segment(track, small.name, n), part.bytes.into(), named);
            let fresh = std::mem::take(&mut first) && ends < at;
            let due = ends.max(at);
            let begins = due.max(here);
            if due < until {
                limit.silence.0 += begins.min(until).since(due).0;
                if fresh {
                    limit.starts.push((at, begins.min(until).since(at)));
                }
            }
            if begins < until {
                let length = Span(part.frames * MICRO / u64::from(part.rate));
                limit.played.0 += (begins + length).min(until).since(begins).0;
                heard.push((begins, best.bytes.into()));
            }
            ends = begins + Span(part.frames * MICRO / u64::from(part.rate));
        }
    }
    // Nothing is fetched before the first wish.
    let since = wishes.first().map_or(0, |w| link.carried(w.0));
    let came = |by: Instant| (link.carried(by) - since) / MICRO;
    let (mut after, mut most) = (0, came(until));
    for &(begins, bytes) in heard.iter().rev() {
        after += bytes;
        most = most.min(came(begins) + after);
    }
    most = most.min(after);
    limit.kbps = if heard.is_empty() { 0 } else { most * 8_000 / limit.played.0.max(1) };
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: u64) -> Instant {
        Instant(0) + Span::s(n)
    }

    #[test]
    fn plenty_and_next_to_nothing() {
        let library = Library::new(&[100, 100]);
        let wishes = [(s(10), 0), (s(20), 1)];
        let plenty = Capacity::of_rates([(s(0), 10_000_000)]);
        let l = limit(&library, &plenty, Span::ms(100), &wishes, s(1_000));
        assert_eq!((l.starts.len(), l.silence), (1, l.starts[0].1));
        assert!((Span::ms(300)..Span::ms(302)).contains(&l.silence), "three round trips: {:?}", l.silence);
        assert_eq!(l.played.as_s(), 200);
        let original: u64 = (0..2)
            .map(|n| {
                (0..)
                    .map_while(|k| library.segments.get(&Library::segment(n, RenditionName::Original, k)))
                    .map(|p| u64::from(p.bytes))
                    .sum::<u64>()
            })
            .sum();
        assert_eq!(l.kbps, original * 8_000 / l.played.0);
        // At a quarter of the smallest rendition's rate, what comes sounds at once, and that is all.
        let slow = Capacity::of_rates([(s(0), 1_100)]);
        let l = limit(&library, &slow, Span::ms(100), &wishes, s(400));
        assert_eq!(l.played.0 + l.silence.0, 390_000_000);
        assert!((80..110).contains(&l.played.as_s()), "{:?}", l.played);
        assert!(l.kbps <= 45, "{}", l.kbps);
        // Nothing before the wish, nothing after the link has ended.
        let early = Capacity::of_rates([(s(0), 10_000_000), (s(9), 0)]);
        assert_eq!(limit(&library, &early, Span::ms(100), &wishes, s(400)).played, Span(0));
    }
}
