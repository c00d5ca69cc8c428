//! How long to wait before the broker is called again.
//!
//! Two things are wanted: a player whose own link has hiccups is back at once, and an office that has restarted is not met by
//! all its players in one second. *Hang-up*: the other end closed or refuses the connection, which it does to all its players
//! alike. *Silence*: nothing comes any more, which as a rule is the player's own link.
//!
//! Law: what all players see at the same time is answered after a pause that is random over the whole *spread*. Then so many
//! call in a second on average as there are players over seconds of the spread: 3.3 of 300 at 90 s, and chance makes 15 (5 %)
//! of it once in some ten thousand restarts. At 60 s it would be once in 250.

use std::time::Duration;

use super::{Down, Pace};
use crate::fetch::Fault;

/// A connection that lasted this long ends the back-off: two players with one id would else kick each other out for ever.
const LASTED: Duration = Duration::from_secs(60);

/// The pauses of one player.
pub(super) struct Pauses {
    pace: Pace,
    /// Connections in a row that did not last.
    tries: u32,
    /// There was a connection since the start.
    met: bool,
    /// The pause that runs was cut already.
    cut: bool,
}

impl Pauses {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, tries: 0, met: false, cut: false }
    }

    /// The pause after a try that ended like `why`; `up` is how long it was connected, if it was. `dice` is random.
    pub(super) fn after(&mut self, why: &Down, up: Option<Duration>, dice: u64) -> Duration {
        self.cut = false;
        self.met |= up.is_some();
        self.tries = if up.is_some_and(|t| t > LASTED) { 0 } else { self.tries + 1 };
        let Pace { first_pause_ms, spread_ms, .. } = self.pace;
        let longest = spread_ms.saturating_mul(2);
        let bound = match up {
            Some(_) if hung_up(why) => spread_ms,
            // Long pauses meet what comes back as evenly as the spread does: one of twice its length is half over on average.
            None if self.met => longest,
            // Its own hiccup, or it has just started: it doubles.
            _ => first_pause_ms.saturating_mul(2 << self.tries.min(16)).min(longest),
        };
        random_below(dice, bound)
    }

    /// The link came back: the pause from now on, instead of what is left. Once in a pause, so that a link that comes and
    /// goes does not put it off for ever.
    pub(super) fn link_up(&mut self, dice: u64) -> Option<Duration> {
        let first = !std::mem::replace(&mut self.cut, true);
        first.then(|| random_below(dice, self.pace.spread_ms))
    }
}

fn random_below(dice: u64, bound_ms: u64) -> Duration {
    Duration::from_millis(dice % bound_ms.max(1))
}

/// Whether all players see this end, and not only this one.
fn hung_up(why: &Down) -> bool {
    match why {
        Down::Link(fault) => matches!(fault, Fault::Reset | Fault::Refused | Fault::Status(_) | Fault::Protocol),
        Down::Silent | Down::Overrun | Down::Changed => false,
        Down::Unavailable | Down::Login | Down::NameTaken | Down::Protocol(_) | Down::Stopped => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAYERS: usize = 300;
    const RUNS: u64 = 200;

    /// xorshift64*, seeded.
    struct Dice(u64);

    impl Dice {
        fn throw(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
        fn ms(&mut self, below: u64) -> u64 {
            self.throw() % below
        }
    }

    /// How the office goes away.
    #[derive(Clone, Copy, Debug)]
    enum Away {
        /// In order: connections are closed, then refused.
        Restart,
        /// Power or network is cut: a dead connection is noticed after 22 to 30 s, and each try takes 15 s.
        Silent,
    }

    /// When this player is connected again, if the office is away from 0 to `back_ms`.
    fn returns(away: Away, back_ms: u64, hurry: usize, dice: &mut Dice) -> u64 {
        let mut pauses = Pauses::new(Pace::default());
        let (mut t, mut why, takes) = match away {
            Away::Restart => (dice.ms(50), Down::Link(Fault::Reset), 20),
            Away::Silent => (22_000 + dice.ms(8_000), Down::Silent, 15_000),
        };
        // A probe a second while little is on board, one in 30 s with more, none where nothing is missing.
        let told = [Some(back_ms + dice.ms(1_000)), Some(back_ms + dice.ms(30_000)), None][hurry % 3];
        let mut up = Some(Duration::from_secs(3_600));
        loop {
            let pause = pauses.after(&why, up, dice.throw()).as_millis() as u64;
            let mut next = t + pause;
            if let Some(told) = told.filter(|at| (t..next).contains(at)) {
                next = told + pauses.link_up(dice.throw()).unwrap().as_millis() as u64;
            }
            if next >= back_ms {
                return next;
            }
            (t, up) = (next + takes, None);
            why = Down::Link(if takes < 1_000 { Fault::Refused } else { Fault::Timeout });
        }
    }

    /// Most players that come in one second, of all runs.
    fn worst(away: Away, back_s: u64) -> usize {
        let run = |seed: u64| {
            let mut dice = Dice(seed * 7_919 + back_s * 104_729 + 1);
            let mut seconds = std::collections::HashMap::<u64, usize>::new();
            for player in 0..PLAYERS {
                *seconds.entry(returns(away, back_s * 1_000, player, &mut dice) / 1_000).or_default() += 1;
            }
            assert!(seconds.keys().all(|s| *s < back_s + 200), "all are back in the end");
            seconds.into_values().max().unwrap_or(0)
        };
        (0..RUNS).map(run).max().unwrap_or(0)
    }

    #[test]
    fn no_second_after_an_office_restart_sees_more_than_a_twentieth_of_300_players() {
        for away in [2, 20, 60, 300, 3_600] {
            let most = worst(Away::Restart, away);
            assert!(most * 20 <= PLAYERS, "{most} of {PLAYERS} in a second after {away} s");
        }
        for away in [60, 120, 600, 3_600] {
            let most = worst(Away::Silent, away);
            assert!(most * 20 <= PLAYERS, "{most} of {PLAYERS} in a second after {away} s without power");
        }
    }

    #[test]
    fn a_hiccup_of_its_own_link_costs_a_second() {
        let mut pauses = Pauses::new(Pace::default());
        let long = Some(LASTED * 2);
        for dice in 0..5_000 {
            assert!(pauses.after(&Down::Silent, long, dice) <= Duration::from_secs(1));
        }
        // It does not last: longer and longer.
        let all = |pauses: &mut Pauses, up| (0..8).map(|_| pauses.after(&Down::Silent, up, u64::MAX).as_secs()).max();
        assert!(all(&mut pauses, Some(Duration::from_secs(5))) > Some(30));
        let mut new = Pauses::new(Pace::default());
        assert!(new.after(&Down::Link(Fault::Refused), None, u64::MAX) <= Duration::from_secs(2), "at the start too");
        assert!(all(&mut new, None) <= Some(180));
    }

    #[test]
    fn a_link_that_comes_and_goes_puts_nothing_off_for_ever() {
        let mut pauses = Pauses::new(Pace::default());
        pauses.after(&Down::Silent, None, 7);
        assert!(pauses.link_up(8).is_some());
        assert_eq!(pauses.link_up(9), None);
        pauses.after(&Down::Silent, None, 7);
        assert!(pauses.link_up(8).is_some());
    }
}
