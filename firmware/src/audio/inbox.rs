//! Where orders wait for the decoder thread, which may be in the middle of reading from a slow card.
//!
//! It cannot fill up: an order that makes others pointless takes their place. A flush voids all before it, a
//! forget what it forgets, a close and a resume each other; and no more pieces are taken than may ever be given ahead.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jukebox_core::sound::{LivePiece, PIECES_AHEAD, Piece};

/// Pieces that may wait: far more than the law allows.
const PIECES: usize = 4 * PIECES_AHEAD;

/// Orders that need the thread; pause and volume go straight to the callback.
#[derive(Debug, PartialEq)]
pub(crate) enum Job {
    Play(Piece),
    Live(LivePiece),
    Flush {
        generation: u32,
        more: bool,
    },
    Forget {
        seq: u64,
    },
    Close,
    /// A pause ended.
    Resume,
    /// The device is closed and opened again.
    Reopen,
    /// The device's period is to be at least so long.
    Period {
        ms: u32,
    },
    End,
}

#[derive(Default)]
pub(crate) struct Inbox(Mutex<VecDeque<Job>>);

impl Inbox {
    pub(crate) fn put(&self, job: Job) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &job {
            Job::Play(piece) => {
                if jobs.iter().filter(|j| matches!(j, Job::Play(_))).count() >= PIECES {
                    tracing::error!("piece {} is dropped: more pieces than may be given ahead", piece.seq);
                    return;
                }
            }
            Job::Flush { generation, .. } => jobs.retain(|j| match j {
                Job::Play(p) => p.generation >= *generation,
                Job::Live(p) => p.generation >= *generation,
                Job::End | Job::Reopen | Job::Period { .. } => true,
                Job::Flush { .. } | Job::Forget { .. } | Job::Close | Job::Resume => false,
            }),
            Job::Forget { seq } => {
                jobs.retain(|j| match j {
                    Job::Play(p) => p.seq <= *seq,
                    Job::Live(p) => p.seq <= *seq,
                    Job::Forget { seq: older } => older < seq,
                    _ => true,
                });
                if matches!(jobs.back(), Some(Job::Forget { .. })) {
                    return; // it forgets all that this one does
                }
            }
            Job::Live(_) => jobs.retain(|j| !matches!(j, Job::Live(_))),
            Job::Close => jobs.retain(|j| !matches!(j, Job::Close)),
            Job::Resume => jobs.retain(|j| !matches!(j, Job::Close | Job::Resume)),
            Job::Reopen => jobs.retain(|j| !matches!(j, Job::Reopen)),
            Job::Period { .. } => jobs.retain(|j| !matches!(j, Job::Period { .. })),
            Job::End => {}
        }
        jobs.push_back(job);
    }

    pub(crate) fn take(&self) -> Option<Job> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::super::deck::tests::piece;
    use super::*;

    fn play(seq: u64, generation: u32) -> Job {
        Job::Play(piece(seq, generation, 1).0)
    }

    fn all(inbox: &Inbox) -> Vec<Job> {
        std::iter::from_fn(|| inbox.take()).collect()
    }

    #[test]
    fn a_flush_takes_the_place_of_all_before_it_but_the_end() {
        let inbox = Inbox::default();
        let old = [play(1, 0), Job::Forget { seq: 0 }, Job::Close, Job::Resume, Job::End, play(2, 0)];
        old.into_iter().for_each(|j| inbox.put(j));
        for generation in 1..=1_000 {
            inbox.put(Job::Flush { generation, more: true });
            (0..4).for_each(|k| inbox.put(play(u64::from(generation) * 4 + k, generation)));
        }
        let mut expected = vec![Job::End, Job::Flush { generation: 1_000, more: true }];
        expected.extend((4_000..4_004).map(|seq| play(seq, 1_000)));
        assert_eq!(all(&inbox), expected);
    }

    #[test]
    fn bursts_of_forgets_lose_no_piece_that_is_kept() {
        let inbox = Inbox::default();
        [play(1, 0), play(2, 0)].into_iter().for_each(|j| inbox.put(j));
        for turn in 0..1_000 {
            inbox.put(Job::Forget { seq: 2 });
            inbox.put(play(3 + 2 * turn, 0));
            inbox.put(play(4 + 2 * turn, 0));
        }
        assert_eq!(all(&inbox), [play(1, 0), play(2, 0), Job::Forget { seq: 2 }, play(2_001, 0), play(2_002, 0)]);
        for job in [Job::Forget { seq: 5 }, play(8, 0), play(9, 0), Job::Forget { seq: 8 }, Job::Forget { seq: 8 }] {
            inbox.put(job);
        }
        assert_eq!(all(&inbox), [Job::Forget { seq: 5 }, play(8, 0), Job::Forget { seq: 8 }]);
    }

    #[test]
    fn pauses_and_closes_do_not_pile_up_and_too_many_pieces_are_refused() {
        let inbox = Inbox::default();
        for _ in 0..100 {
            inbox.put(Job::Close);
            inbox.put(Job::Resume);
            inbox.put(Job::Close);
        }
        assert_eq!(all(&inbox), [Job::Resume, Job::Close]);
        (0..100).for_each(|seq| inbox.put(play(seq, 0)));
        inbox.put(Job::Flush { generation: 0, more: false });
        let jobs = all(&inbox);
        assert_eq!(
            (&jobs[0], jobs.len()),
            (&play(0, 0), PIECES + 1),
            "the first are kept, and the flush comes through"
        );
    }
}
