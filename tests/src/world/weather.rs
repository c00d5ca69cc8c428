//! Links as they are: recorded traces, and a generator that makes more of their kind.
//!
//! *Trace*: rows of `duration_ms bytes`, what could cross a link in that time. *Model*: what a generated link has of a
//! recorded one. Its rate is a Markov chain over the means of six equal shares of the recorded seconds; its fades are a
//! Gilbert-Elliott channel (Gilbert, "Capacity of a burst-noise channel", 1960; Elliott, "Estimates of error rates for codes on
//! burst-noise channels", 1963): in the bad state next to nothing passes, however good the rate would be.

use jukebox_core::time::{Instant, Span};

use super::link::Capacity;

/// Rates of a model.
const LEVELS: usize = 6;
/// A second that carries fewer bytes than this is a bad one: 8 kbit/s.
const BAD: u64 = 1_000;

/// A row of a trace that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Counted from 1.
    pub line: usize,
}

impl std::fmt::Display for BadRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: not `duration_ms bytes`", self.line)
    }
}

impl std::error::Error for BadRow {}

/// The rows of a trace; what is behind `#` is a note.
///
/// # Errors
/// The first line that is no row.
pub fn parse(text: &str) -> Result<Vec<(Span, u64)>, BadRow> {
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let mut words = line.split_whitespace().map(str::parse::<u64>);
        match (words.next(), words.next(), words.next()) {
            (Some(Ok(ms)), Some(Ok(bytes)), None) if ms > 0 => rows.push((Span::ms(ms), bytes)),
            _ => return Err(BadRow { line: i + 1 }),
        }
    }
    Ok(rows)
}

/// Chance that a seed decides (splitmix64 of Steele and others, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
    /// From 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// Between two numbers, each order of magnitude as likely as another.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.unit())
    }
    /// A waiting time of that mean.
    pub fn wait(&mut self, mean: Span) -> Span {
        Span((-(1.0 - self.unit()).ln() * mean.0 as f64) as u64)
    }
}

/// What a generated link has of a recorded one.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Which recording.
    pub name: std::borrow::Cow<'static, str>,
    /// Bytes a second.
    pub levels: [u32; LEVELS],
    /// From each level to each, in thousandths, a second.
    pub next: [[u16; LEVELS]; LEVELS],
    /// From good to bad and from bad to good, in ten-thousandths, a second.
    pub fades: [u16; 2],
    /// Bytes a second in the bad state.
    pub residue: u32,
}

impl Model {
    /// The model of a trace.
    pub fn fit(name: impl Into<std::borrow::Cow<'static, str>>, rows: &[(Span, u64)]) -> Self {
        let seconds = rows.iter().map(|r| r.0.0).sum::<u64>() / 1_000_000;
        let capacity = Capacity::of_rows(rows, Instant(seconds * 1_000_000));
        let at = |s: u64| capacity.carried(Instant(s * 1_000_000)) / 1_000_000;
        let rates: Vec<u64> = (0..seconds).map(|s| at(s + 1) - at(s)).collect();
        let mut good: Vec<u64> = rates.iter().copied().filter(|r| *r >= BAD).collect();
        good.sort_unstable();
        let share = good.len().div_ceil(LEVELS).max(1);
        let mut levels = [0; LEVELS];
        for (level, part) in levels.iter_mut().zip(good.chunks(share)) {
            *level = (part.iter().sum::<u64>() / part.len() as u64) as u32;
        }
        let level = |r: u64| (good.partition_point(|g| *g < r) / share).min(LEVELS - 1);
        let (mut counts, mut fades) = ([[0_u64; LEVELS]; LEVELS], [[0_u64; 2]; 2]);
        for w in rates.windows(2) {
            fades[usize::from(w[0] < BAD)][usize::from(w[1] < BAD)] += 1;
            if w[0] >= BAD && w[1] >= BAD {
                counts[level(w[0])][level(w[1])] += 1;
            }
        }
        let part = |n: u64, all: u64, of: u64| (n * of / all.max(1)) as u16;
        let next = counts.map(|row| row.map(|n| part(n, row.iter().sum(), 1_000)));
        let fades =
            [part(fades[0][1], fades[0].iter().sum(), 10_000), part(fades[1][0], fades[1].iter().sum(), 10_000)];
        let bad: Vec<u64> = rates.iter().copied().filter(|r| *r < BAD).collect();
        let residue = (bad.iter().sum::<u64>() / (bad.len() as u64).max(1)) as u32;
        Self { name: name.into(), levels, next, fades, residue }
    }

    /// A link of its kind, its rates times `scale`.
    pub fn generate(&self, dice: &mut Dice, scale: f64, end: Instant) -> Capacity {
        let (mut level, mut bad) = (dice.below(LEVELS as u64) as usize, false);
        let rates = (0..end.0 / 1_000_000 + 1).map(|s| {
            let turn = u64::from(self.fades[usize::from(bad)]);
            // A recording without a good second after a bad one would be bad for ever.
            bad ^= dice.below(10_000) < if bad { turn.max(100) } else { turn };
            let (mut left, row) = (dice.below(1_000) as i64, self.next[level]);
            for (to, share) in row.iter().enumerate() {
                left -= i64::from(*share);
                if left < 0 {
                    level = to;
                    break;
                }
            }
            let rate = if bad { self.residue } else { self.levels[level] };
            (Instant(s * 1_000_000), (f64::from(rate) * scale) as u32)
        });
        Capacity::of_rates(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_others_named() {
        assert_eq!(parse("# note\n100 20 # x\n\n 7 0\n"), Ok(vec![(Span::ms(100), 20), (Span::ms(7), 0)]));
        for bad in ["1\n", "1 2 3\n", "0 5\n", "-1 5\n", "a b\n"] {
            assert_eq!(parse(&format!("1 1\n{bad}")), Err(BadRow { line: 2 }), "{bad}");
        }
    }

    /// What a model generates is fitted by about the same model.
    #[test]
    fn a_model_fits_what_it_generates() {
        for model in &super::super::models::MODELS {
            let end = Instant(100_000_000_000);
            let link = model.generate(&mut Dice(7), 1.0, end);
            let rows: Vec<_> = (0..100_000_u64)
                .map(|s| {
                    let at = |s: u64| link.carried(Instant(s * 1_000_000)) / 1_000_000;
                    (Span::s(1), at(s + 1) - at(s))
                })
                .collect();
            let again = Model::fit(model.name.clone(), &rows);
            for (a, b) in model.levels.iter().zip(again.levels) {
                assert!(
                    (f64::from(*a) / f64::from(b)).ln().abs() < 0.7,
                    "{}: {:?} {:?}",
                    model.name,
                    model.levels,
                    again.levels
                );
            }
            let share = |f: [u16; 2]| f64::from(f[0]) / f64::from((f[0] + f[1]).max(1));
            assert!(
                (share(model.fades) - share(again.fades)).abs() < 0.05,
                "{}: {:?} {:?}",
                model.name,
                model.fades,
                again.fades
            );
        }
    }
}
