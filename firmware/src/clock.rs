//! Whether the time is known.
//!
//! It is when timesyncd says that it is synchronised, or when the Date of an office whose certificate verified is near; a
//! clock that is off by more counts as unknown, and the office's Date is taken instead.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jukebox_core::time::UnixMs;

/// timesyncd makes this file when it has synchronised (systemd-timesyncd.service(8)).
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";
/// An HTTP date is whole seconds and came over a link: nearer than this it agrees.
const NEAR: Duration = Duration::from_secs(5);

/// What time it is, and whether that is known to be right. `office`: the last `Date` header of a verified office, and when
/// it came.
pub fn now(office: Option<(String, Instant)>) -> (UnixMs, bool) {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = |d: Duration| UnixMs(d.as_millis() as u64);
    if Path::new(TIMESYNC).exists() {
        return (ms(unix), true);
    }
    match office.and_then(|(date, at)| Some(http_date(&date)? + at.elapsed())) {
        Some(office) if office.abs_diff(unix) <= NEAR => (ms(unix), true),
        Some(office) => (ms(office), true),
        None => (ms(unix), false),
    }
}

/// Minutes since midnight at `unix`, where the system says it is.
pub fn minute_of_day(unix: UnixMs) -> Option<u16> {
    let stamp = jiff::Timestamp::from_millisecond(i64::try_from(unix.0).ok()?).ok()?;
    let here = stamp.to_zoned(jiff::tz::TimeZone::system());
    u16::try_from(i32::from(here.hour()) * 60 + i32::from(here.minute())).ok()
}

/// Seconds since 1970 of an HTTP date (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Duration> {
    let stamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(stamp.as_second()).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_office_knows_the_time() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(784_111_777)));
        assert_eq!(http_date("yesterday"), None);
        let (t, synced) = now(Some(("Sun, 06 Nov 1994 08:49:37 GMT".into(), Instant::now())));
        assert!(synced);
        if !Path::new(TIMESYNC).exists() {
            assert!(t.0.abs_diff(784_111_777_000) < 5_000, "{t}");
            assert!(!now(None).1);
        }
    }
}
