//! What the interfaces that cost by the byte carry in a month: counted, forecast, held against the budget.
//!
//! *Month*: a calendar month of UTC. *Forecast*: what was carried, and for the rest of the month the rate of the last days (an
//! average whose weight halves in three days). *Thrift*: what the planner leaves alone.
//!
//! Law: no budget stops the sound. The counts are the interface's own, whoever caused them, because so is the bill.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::link::Average;
use crate::time::{Instant, Span, UnixMs};

/// The weight of a rate in the average halves in so many seconds.
const HALF_LIFE_S: f32 = 3.0 * 86_400.0;
/// More interfaces than a player has; a stranger's file must not make us keep more.
const MOST: usize = 16;

/// An interface as the machine counts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its name.
    pub interface: String,
    /// Bytes in both directions since it came up; begins anew with the machine, or the modem.
    pub bytes: u64,
    /// Most that it may carry in a month, in MB (10^6 bytes); none: as little as is sensible.
    pub budget_mb: Option<u32>,
}

/// What to leave alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thrift {
    /// Nothing.
    #[default]
    None,
    /// Originals: each byte costs.
    Thrifty,
    /// All but the smallest rendition, and what may never be played: the budget would not last.
    Frugal,
}

/// What one interface has carried; saved.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Month {
    /// Its name.
    #[n(0)]
    pub interface: String,
    /// Months since January 1970.
    #[n(1)]
    pub month: u32,
    /// Bytes in this month.
    #[n(2)]
    pub bytes: u64,
    /// Its counter when it was looked at last.
    #[n(3)]
    pub counter: u64,
    /// The average rate, in kbit/s, and its weight.
    #[n(4)]
    pub rate: (f32, f32),
}

impl Month {
    /// The counter shows `bytes` now, `passed` after the last look, if that is known.
    fn count(&mut self, bytes: u64, passed: Option<Span>, unix: Option<UnixMs>) {
        // A counter that is lower than before has begun anew.
        let more = bytes.checked_sub(self.counter).unwrap_or(bytes);
        self.counter = bytes;
        if let Some(month) = unix.map(UnixMs::month)
            && month != self.month
        {
            // Before the time was known for the first time it was this month too.
            self.bytes = if self.month == 0 { self.bytes } else { 0 };
            self.month = month;
        }
        self.bytes += more;
        if let Some(seconds) = passed.map(|p| p.as_ms() as f32 / 1_000.0).filter(|s| *s >= 1.0) {
            let mut average = Average { value: self.rate.0, weight: self.rate.1 };
            average.push(more as f32 / 125.0 / seconds, seconds, HALF_LIFE_S);
            self.rate = (average.value, average.weight);
        }
    }

    /// Bytes at the end of the month, once there was a rate.
    fn forecast(&self, unix: UnixMs) -> Option<u64> {
        let kbps = Average { value: self.rate.0, weight: self.rate.1 }.kbps()?;
        Some(self.bytes + (kbps * 125.0 * unix.left_of_month().as_s() as f32) as u64)
    }
}

/// One metered interface, as `health` tells of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metered<'a> {
    /// Its name.
    pub interface: &'a str,
    /// Bytes in this month.
    pub bytes_month: u64,
    /// MB at the end of the month; null until the time and a rate are known.
    pub forecast_mb_month: Option<u64>,
    /// Most that it may carry, in MB.
    pub budget_mb: Option<u32>,
}

/// All metered interfaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    months: Vec<Month>,
    /// Those that are metered now, and their budgets.
    now: Vec<(String, Option<u32>)>,
    looked: Option<Instant>,
    /// The interface that carries just now, where it is metered.
    by: Option<String>,
}

impl Budget {
    pub(crate) fn restore(months: Vec<Month>) -> Self {
        Self { months, ..Self::default() }
    }

    /// What the metered interfaces count now; `by` is the one of them that carries, if it is one of them.
    pub(crate) fn look(&mut self, now: Instant, unix: Option<UnixMs>, carried: &[Carried], by: Option<String>) {
        let passed = self.looked.replace(now).map(|then| now.since(then));
        for c in carried.iter().take(MOST) {
            let known = self.months.iter().position(|m| m.interface == c.interface);
            let i = known.unwrap_or_else(|| {
                // What it carried before it was known is not ours to count.
                self.months.push(Month { interface: c.interface.clone(), counter: c.bytes, ..Month::default() });
                self.months.len() - 1
            });
            self.months[i].count(c.bytes, passed, unix);
        }
        if self.months.len() > MOST {
            // The longest known that are not there any more.
            let gone = self.months.iter().position(|m| carried.iter().all(|c| c.interface != m.interface));
            gone.map(|i| self.months.remove(i));
        }
        self.now = carried.iter().take(MOST).map(|c| (c.interface.clone(), c.budget_mb)).collect();
        self.by = by.filter(|by| carried.iter().any(|c| c.interface == *by));
    }

    /// What is to be saved.
    pub(crate) fn months(&self) -> &[Month] {
        &self.months
    }

    /// Whether what carries just now costs by the byte.
    pub(crate) fn is_metered(&self) -> bool {
        self.by.is_some()
    }

    pub(crate) fn told(&self, unix: Option<UnixMs>) -> Vec<Metered<'_>> {
        let known = |name: &str| self.months.iter().find(|m| m.interface == name);
        let told = self.now.iter().filter_map(|(name, budget_mb)| {
            let m = known(name)?;
            let forecast_mb_month = unix.and_then(|u| m.forecast(u)).map(|b| b.div_ceil(1_000_000));
            Some(Metered { interface: name, bytes_month: m.bytes, forecast_mb_month, budget_mb: *budget_mb })
        });
        told.collect()
    }

    /// What the interface that carries just now asks to leave alone.
    pub(crate) fn thrift(&self, unix: Option<UnixMs>) -> Thrift {
        let Some(by) = &self.by else { return Thrift::None };
        let Some(m) = self.told(unix).into_iter().find(|m| m.interface == by) else { return Thrift::Thrifty };
        match m.budget_mb {
            None => Thrift::Thrifty,
            Some(most) => {
                let used = m.bytes_month.div_ceil(1_000_000);
                let frugal = m.forecast_mb_month.unwrap_or(used).max(used) > u64::from(most);
                if frugal { Thrift::Frugal } else { Thrift::None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;
    /// 2026-11-01, and a day.
    const NOVEMBER: u64 = 1_793_491_200_000;
    const DAY: u64 = 86_400_000;

    fn carried(bytes: u64, budget_mb: Option<u32>) -> [Carried; 1] {
        [Carried { interface: "wwan0".into(), bytes, budget_mb }]
    }

    /// A budget after `days` of `mb` a day, looked at every half minute, and when that is.
    fn after(days: u64, mb: u64, budget_mb: Option<u32>) -> (Budget, UnixMs) {
        let mut budget = Budget::default();
        let looks = days * 2_880;
        for n in 0..=looks {
            let unix = UnixMs(NOVEMBER + n * 30_000);
            let c = carried(n * mb * MB / 2_880, budget_mb);
            budget.look(Instant(n * 30_000_000), Some(unix), &c, Some("wwan0".into()));
        }
        (budget, UnixMs(NOVEMBER + days * DAY))
    }

    #[test]
    fn what_goes_on_as_it_is_is_forecast_as_it_comes() {
        for days in [1, 10, 29] {
            let (budget, unix) = after(days, 50, None);
            let told = &budget.told(Some(unix))[0];
            assert_eq!(told.bytes_month, days * 50 * MB);
            let forecast = told.forecast_mb_month.unwrap();
            assert!((1_480..=1_520).contains(&forecast), "{forecast} after {days} days");
        }
        let (budget, _) = after(1, 50, None);
        assert_eq!(budget.told(None)[0].forecast_mb_month, None, "without the time nobody knows what is left");
    }

    #[test]
    fn the_planner_is_as_thrifty_as_the_budget_asks() {
        let thrift = |mb, budget| {
            let (b, unix) = after(5, mb, budget);
            b.thrift(Some(unix))
        };
        assert_eq!(thrift(50, None), Thrift::Thrifty, "each byte costs");
        assert_eq!(thrift(50, Some(2_000)), Thrift::None, "it lasts");
        assert_eq!(thrift(70, Some(2_000)), Thrift::Frugal, "it would not last");
        let (mut b, unix) = after(5, 70, Some(2_000));
        b.look(Instant(u64::MAX / 2), Some(unix), &carried(350 * MB, Some(2_000)), Some("eth0".into()));
        assert_eq!((b.thrift(Some(unix)), b.is_metered()), (Thrift::None, false), "another interface carries");
    }

    #[test]
    fn counters_begin_anew_and_so_do_months() {
        let mut budget = Budget::default();
        let mut at = 0;
        let mut look = |budget: &mut Budget, bytes, unix| {
            at += 30_000_000;
            budget.look(Instant(at), unix, &carried(bytes, None), None);
        };
        look(&mut budget, 500, None);
        look(&mut budget, 800, None);
        look(&mut budget, 100, Some(UnixMs(NOVEMBER - 1_000)));
        assert_eq!(
            budget.told(None)[0].bytes_month,
            400,
            "before it was known it counts for nothing; then 300 and 100"
        );
        look(&mut budget, 150, Some(UnixMs(NOVEMBER)));
        assert_eq!(budget.told(None)[0].bytes_month, 50, "a new month");
        // After a restart of the player the counter went on meanwhile.
        let mut again = Budget::restore(budget.months().to_vec());
        again.look(Instant(5), Some(UnixMs(NOVEMBER + 9)), &carried(250, None), None);
        assert_eq!(again.told(None)[0].bytes_month, 150);
        let names = (0..40).map(|n| Carried { interface: alloc::format!("if{n}"), bytes: 0, budget_mb: None });
        names.for_each(|c| again.look(Instant(6), None, core::slice::from_ref(&c), None));
        assert!(again.months().len() <= MOST);
    }
}
