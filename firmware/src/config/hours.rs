//! `hours`: when an empty queue should not be silent. Days and spans of local time: `mon-fri 08:00-18:00, sat 10:00-14:00`.

use std::fmt;
use std::str::FromStr;

use jiff::Zoned;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Spans of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    text: String,
    /// Days (bit 0 is Monday) and minutes of the day: from, and up to but without.
    spans: Vec<(u8, u16, u16)>,
}

impl Default for Hours {
    fn default() -> Self {
        Self { text: "mon-sun 00:00-24:00".into(), spans: vec![(0x7f, 0, 1_440)] }
    }
}

impl Hours {
    /// Whether this is within one of the spans.
    pub fn are_open(&self, at: &Zoned) -> bool {
        let day = 1 << at.weekday().to_monday_zero_offset();
        let minute = at.hour() as u16 * 60 + at.minute() as u16;
        self.spans.iter().any(|&(days, from, to)| days & day != 0 && (from..to).contains(&minute))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spans = text.split(',').map(|part| span(part.trim())).collect::<Result<_, _>>();
        let wrong = |what| format!("{what}; hours look like `mon-fri 08:00-18:00, sat 10:00-14:00`");
        Ok(Self { text: text.into(), spans: spans.map_err(wrong)? })
    }
}

fn span(part: &str) -> Result<(u8, u16, u16), String> {
    let (days, times) = part.split_once(' ').ok_or_else(|| format!("`{part}` lacks days or times"))?;
    let day = |name: &str| {
        let found = DAYS.iter().position(|d| *d == name.to_ascii_lowercase());
        found.ok_or_else(|| format!("`{name}` is no day"))
    };
    let (first, last) = days.split_once('-').unwrap_or((days, days));
    let (first, last) = (day(first)?, day(last)?);
    // `sat-mon` goes over the end of the week.
    let days = (0..7).filter(|d| (d + 7 - first) % 7 <= (last + 7 - first) % 7).fold(0, |all, d| all | 1 << d);
    let (from, to) = times.trim().split_once('-').ok_or_else(|| format!("`{times}` is no span of time"))?;
    let (from, to) = (minute(from)?, minute(to)?);
    if from >= to {
        return Err(format!("`{}` ends before it begins", times.trim()));
    }
    Ok((days, from, to))
}

fn minute(text: &str) -> Result<u16, String> {
    let number = |s: &str| if s.len() == 2 { s.parse::<u16>().ok() } else { None };
    let parts = text.split_once(':').and_then(|(h, m)| Some((number(h)?, number(m)?)));
    match parts {
        Some((h, m)) if m < 60 && (h < 24 || (h == 24 && m == 0)) => Ok(h * 60 + m),
        _ => Err(format!("`{text}` is no time of day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times() {
        let hours: Hours = "mon-fri 08:00-18:00, Sat-sun 10:30-12:00".parse().unwrap();
        for (at, open) in [
            ("2026-11-26T08:00[Europe/Zurich]", true), // a Thursday
            ("2026-11-26T07:59[Europe/Zurich]", false),
            ("2026-11-26T18:00[Europe/Zurich]", false),
            ("2026-11-28T10:30[Europe/Zurich]", true),
            ("2026-11-29T12:00[Europe/Zurich]", false),
        ] {
            assert_eq!(hours.are_open(&at.parse().unwrap()), open, "{at}");
        }
        let weekend: Hours = "sat-mon 00:00-24:00".parse().unwrap();
        assert!(weekend.are_open(&"2026-11-30T23:59[UTC]".parse().unwrap()), "a Monday");
        assert!(!weekend.are_open(&"2026-12-01T00:00[UTC]".parse().unwrap()));
        assert!(Hours::default().are_open(&"2026-11-26T03:00[UTC]".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, what) in [
            ("mon-fri", "`mon-fri` lacks days or times"),
            ("moon 08:00-09:00", "`moon` is no day"),
            ("mon 8:00-09:00", "`8:00` is no time of day"),
            ("mon 08:00-24:01", "`24:01` is no time of day"),
            ("mon 10:00-09:00", "`10:00-09:00` ends before it begins"),
        ] {
            assert!(text.parse::<Hours>().unwrap_err().starts_with(what), "{text}");
        }
    }
}
