//! A case: what a link does to a player, read from a small text file.
//!
//! One item a line, `#` begins a comment; the comment before the first item says what the case is. Every word of the language
//! is in `tests/lab/README.md`. A *window* is a part of the run in which something is different; `t` is seconds since the start.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use jukebox_core::time::Span;

use crate::world::weather;

/// What a window does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// Every packet is lost.
    Drop,
    /// Nothing passes, packets wait in the queue.
    Hold,
    /// Packets from or to this UDP or TCP port are lost.
    Port(u16),
    /// Another rate in both directions, in bytes a second.
    Rate(f64),
    /// The office's servers are down: connections are refused.
    Server,
    /// A captive portal: connections are cut, every HTTP answer leads to its page, the broker is out of reach.
    Portal,
    /// The player's interface is down.
    Interface,
}

/// From when to when something is different, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// First second.
    pub from: f64,
    /// End.
    pub to: f64,
    /// What happens.
    pub what: What,
}

/// Capacity and loss of one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// Seconds and bytes a second, one after the other, again and again.
    rows: Vec<(f64, f64)>,
    /// Probability that a packet is lost.
    pub loss: f64,
}

/// Gilbert and Elliott's link: it goes from good to bad and back by chance, packet by packet, and loses when it is bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst {
    /// Probability that a good link turns bad at a packet.
    pub worsens: f64,
    /// Probability that a bad link turns good.
    pub recovers: f64,
    /// Probability that a bad link loses a packet.
    pub loss: f64,
}

/// A link, and for how long a player is listened to behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What it is, in a sentence.
    pub about: String,
    /// Length of the run.
    pub seconds: f64,
    /// Towards the player.
    pub down: Side,
    /// From the player.
    pub up: Side,
    /// One-way delay of both directions, seconds.
    pub delay: f64,
    /// Delay on top, at most, seconds; packets stay in order.
    pub jitter: f64,
    /// Room for packets that wait, of each direction, in bytes.
    pub queue: usize,
    /// What would wait longer is lost, seconds.
    pub patience: f64,
    /// Losses that come together.
    pub burst: Option<Burst>,
    /// What happens in the run, in the order of the file.
    pub windows: Vec<Window>,
}

impl Case {
    /// Reads a case and the traces that it names (relative to it).
    ///
    /// # Errors
    /// The file and the line, and what was wanted there.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Self::parse(&text, file.parent().unwrap_or(Path::new(""))).with_context(|| file.display().to_string())
    }

    /// The same from its text; traces lie in `folder`.
    ///
    /// # Errors
    /// The line, and what was wanted there.
    pub fn parse(text: &str, folder: &Path) -> Result<Self> {
        let side = || Side { rows: vec![(1.0, 1e9)], loss: 0.0 };
        let mut case = Self {
            about: String::new(),
            seconds: 180.0,
            down: side(),
            up: side(),
            delay: 0.0,
            jitter: 0.0,
            queue: 256 * 1024,
            patience: f64::INFINITY,
            burst: None,
            windows: Vec::new(),
        };
        let (mut comments, mut begun) = (Vec::new(), false);
        for (number, line) in text.lines().enumerate() {
            let (code, comment) = line.split_once('#').map_or((line, None), |(code, comment)| (code, Some(comment)));
            let words: Vec<&str> = code.split_whitespace().collect();
            begun |= !words.is_empty();
            comments.extend(comment.filter(|_| !begun).map(str::trim));
            case.item(&words, folder).with_context(|| format!("line {}: {}", number + 1, line.trim()))?;
        }
        case.about = comments.join(" ");
        Ok(case)
    }

    fn item(&mut self, words: &[&str], folder: &Path) -> Result<()> {
        let number = |at: usize| -> Result<f64> {
            let value = words.get(at).and_then(|w| w.parse::<f64>().ok()).filter(|v| v.is_finite() && *v >= 0.0);
            value.with_context(|| format!("word {} is to be a number, 0 or more", at + 1))
        };
        let chance = |at: usize| -> Result<f64> {
            let value = number(at)?;
            ensure!(value <= 1.0, "word {} is to be a probability, 0 to 1", at + 1);
            Ok(value)
        };
        match *words {
            [] => {}
            ["seconds", _] => self.seconds = number(1)?,
            ["down", _] => self.down.rows = capacity(words[1], 1.0, folder)?,
            ["down", _, _] => self.down.rows = capacity(words[1], number(2)?, folder)?,
            ["up", _] => self.up.rows = capacity(words[1], 1.0, folder)?,
            ["up", _, _] => self.up.rows = capacity(words[1], number(2)?, folder)?,
            ["loss", _, _] => (self.down.loss, self.up.loss) = (chance(1)?, chance(2)?),
            ["delay", _] => self.delay = number(1)? / 1_000.0,
            ["jitter", _] => self.jitter = number(1)? / 1_000.0,
            ["queue", _] => self.queue = (number(1)? * 1_024.0) as usize,
            ["queue", _, _] => {
                (self.queue, self.patience) = ((number(1)? * 1_024.0) as usize, number(2)? / 1_000.0);
            }
            ["burst", _, _, _] => {
                self.burst = Some(Burst { worsens: chance(1)?, recovers: chance(2)?, loss: chance(3)? });
            }
            ["at", _, _, ref what @ ..] => {
                let what = match *what {
                    ["drop"] => What::Drop,
                    ["hold"] => What::Hold,
                    ["port", _] => What::Port(number(4)? as u16),
                    ["rate", _] => What::Rate(number(4)? * 125.0),
                    ["server"] => What::Server,
                    ["portal"] => What::Portal,
                    ["interface"] => What::Interface,
                    _ => bail!("at SECOND SECONDS: then drop, hold, port N, rate KBIT, server, portal or interface"),
                };
                let from = number(1)?;
                self.windows.push(Window { from, to: from + number(2)?, what });
            }
            _ => bail!("no such item: seconds, down, up, loss, delay, jitter, queue, burst, at"),
        }
        Ok(())
    }

    /// When the last window is over, if there is one and the run goes on after it.
    pub fn recovers_at(&self, seconds: f64) -> Option<f64> {
        self.windows.iter().map(|w| w.to).filter(|to| *to < seconds).reduce(f64::max)
    }

    /// Bytes a second of a direction at `t`, and until when it is so.
    pub fn rate(&self, side: &Side, t: f64) -> (f64, f64) {
        let (mut rate, mut until) = side.at(t);
        for w in &self.windows {
            let new = match w.what {
                What::Hold => 0.0,
                What::Rate(rate) => rate,
                _ => continue,
            };
            if t < w.from {
                until = until.min(w.from);
            } else if t < w.to {
                (rate, until) = (new, until.min(w.to));
            }
        }
        (rate, until)
    }

    /// Whether a packet from or to these ports is lost at `t`, whatever chance says.
    pub fn drops(&self, t: f64, ports: [u16; 2]) -> bool {
        self.windows.iter().filter(|w| w.from <= t && t < w.to).any(|w| match w.what {
            What::Drop | What::Interface => true,
            What::Port(port) => ports.contains(&port),
            _ => false,
        })
    }
}

impl Side {
    fn at(&self, t: f64) -> (f64, f64) {
        let length: f64 = self.rows.iter().map(|r| r.0).sum();
        let mut end = (t / length).floor() * length;
        for (seconds, rate) in &self.rows {
            end += seconds;
            if t < end {
                return (*rate, end);
            }
        }
        // Rounding: `t` is the very end of the last row.
        (self.rows[0].1, end + self.rows[0].0)
    }
}

/// A rate in kbit/s, or the rows `duration_ms bytes` of a trace; multiplied by `scale`.
fn capacity(word: &str, scale: f64, folder: &Path) -> Result<Vec<(f64, f64)>> {
    if let Ok(kbit) = word.parse::<f64>() {
        return Ok(vec![(3_600.0, kbit * 125.0 * scale)]);
    }
    let file = folder.join(word);
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}: a rate or a trace", file.display()))?;
    let rows = weather::parse(&text).with_context(|| file.display().to_string())?;
    ensure!(!rows.is_empty(), "{}: no rows", file.display());
    let row = |(span, bytes): &(Span, u64)| {
        let seconds = span.0 as f64 / 1e6;
        (seconds, *bytes as f64 / seconds * scale)
    };
    Ok(rows.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_says_what_it_is_and_when_what_happens() {
        let folder = crate::rig::folder();
        crate::rig::write(&folder.path().join("a.trace"), "1000 1000 # slow\n\n500 4000\n");
        let text = "# Two lines\n# of words.\nseconds 60\ndown a.trace 2\nup 800 # not this\nqueue 64 500\n\
                    at 10 5 hold\nat 20 5 drop\nat 30 5 port 53\nat 90 5 rate 8\n";
        let case = Case::parse(text, folder.path()).unwrap();
        assert_eq!((case.about.as_str(), case.seconds), ("Two lines of words.", 60.0));
        assert_eq!((case.queue, case.patience), (65_536, 0.5));
        for (t, rate, until) in
            [(0.0, 2_000.0, 1.0), (1.2, 16_000.0, 1.5), (3.5, 2_000.0, 4.0), (9.9, 2_000.0, 10.0), (12.0, 0.0, 13.0)]
        {
            assert_eq!(case.rate(&case.down, t), (rate, until), "at {t}");
        }
        assert_eq!(case.rate(&case.up, 92.0), (1_000.0, 95.0));
        assert!(case.drops(20.0, [1, 2]) && !case.drops(25.0, [1, 2]) && case.drops(31.0, [1, 53]));
        assert_eq!((case.recovers_at(60.0), case.recovers_at(10.0)), (Some(35.0), None));
    }

    #[test]
    fn a_slip_of_the_pen_is_told_with_its_line() {
        for (text, part) in
            [("delay", "no such item"), ("\nloss 0 2", "line 2"), ("at 1 2 nap", "hold"), ("down no.trace", "no.trace")]
        {
            let told = format!("{:#}", Case::parse(text, Path::new("/nowhere")).unwrap_err());
            assert!(told.contains(part), "{told}");
        }
    }
}
