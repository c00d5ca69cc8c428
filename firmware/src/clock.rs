//! What time it is, and whether that is known.
//!
//! *Known*: somebody keeps the system's clock right (timesyncd, chrony: the kernel says so), or an office whose certificate
//! verified said it in a `Date`. *Floor*: the latest time that is certainly past, the later of build and last saved time.
//!
//! Law: until the time is known the system's clock counts for nothing, be it at 1970 or five years ahead. Certificates are
//! checked with the floor then: one that had expired by then is refused, and whether one has begun cannot be judged. Once
//! known, the time stays known, on a clock that never steps.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jukebox_core::time::UnixMs;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// timesyncd makes this file when it has synchronised (systemd-timesyncd.service(8)).
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";
/// An HTTP date is whole seconds and came over a link: nearer than this it agrees.
const NEAR: Duration = Duration::from_secs(5);
/// When this program was built, in seconds since 1970 (build.rs).
const BUILT: &str = env!("JUKEBOX_BUILT");

/// The time of the whole player.
#[derive(Debug)]
pub struct Clock {
    floor: UnixMs,
    known: Mutex<Option<(UnixMs, Instant)>>,
}

impl Clock {
    /// A clock that does not know the time yet; `saved` is the last time that was known before this start.
    pub fn new(saved: Option<UnixMs>) -> Arc<Self> {
        let built = UnixMs(BUILT.parse::<u64>().unwrap_or_default() * 1_000);
        Arc::new(Self { floor: saved.unwrap_or_default().max(built), known: Mutex::default() })
    }

    /// What time it is, and whether that is known to be right. `office`: the last `Date` header of a verified office, and
    /// when it came.
    pub fn look(&self, office: Option<(String, Instant)>) -> (UnixMs, bool) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = Path::new(TIMESYNC).exists() || jukebox_board::rt::clock_is_kept() == Some(true);
        let office = office.and_then(|(date, at)| Some(http_date(&date)? + at.elapsed()));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.map(|(then, at)| Duration::from_millis(then.0) + at.elapsed());
        match judge(unix, kept, office.or(before)) {
            Some(now) => {
                let now = UnixMs(now.as_millis() as u64);
                *known = Some((now, Instant::now()));
                (now, true)
            }
            None => (UnixMs(unix.as_millis() as u64), false),
        }
    }

    /// The time that certificates are checked at, and whether it is known: if not, it is the floor. Never below the floor.
    pub fn for_certificates(&self) -> (UnixMs, bool) {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = known.map(|(then, at)| UnixMs(then.0 + at.elapsed().as_millis() as u64));
        (now.unwrap_or_default().max(self.floor), now.is_some())
    }
}

/// The time, if it is known: the system's where somebody keeps it or the office agrees, else the office's.
fn judge(system: Duration, kept: bool, office: Option<Duration>) -> Option<Duration> {
    match office {
        _ if kept => Some(system),
        Some(office) if office.abs_diff(system) <= NEAR => Some(system),
        office => office,
    }
}

/// Minutes since midnight at `unix`, where the system says it is.
pub fn minute_of_day(unix: UnixMs) -> Option<u16> {
    let stamp = jiff::Timestamp::from_millisecond(i64::try_from(unix.0).ok()?).ok()?;
    let here = stamp.to_zoned(jiff::tz::TimeZone::system());
    u16::try_from(i32::from(here.hour()) * 60 + i32::from(here.minute())).ok()
}

/// Days since 1970, where the local time is this.
pub fn day(here: &jiff::Zoned) -> Option<u32> {
    let local = here.timestamp().as_second() + i64::from(here.offset().seconds());
    u32::try_from(local.div_euclid(86_400)).ok()
}

/// Seconds since 1970 of an HTTP date (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Duration> {
    let stamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(stamp.as_second()).ok().map(Duration::from_secs)
}

/// rustls' own check of certificates, at the time of a [`Clock`].
#[derive(Debug)]
pub(crate) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    clock: Arc<Clock>,
}

impl Verifier {
    pub(crate) fn new(webpki: Arc<WebPkiServerVerifier>, clock: Arc<Clock>) -> Self {
        Self { webpki, clock }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (floor, known) = self.clock.for_certificates();
        let mut at = UnixTime::since_unix_epoch(Duration::from_millis(floor.0));
        // While the time is unknown it may be any after the floor: each certificate of the chain may move it on once.
        for _ in 0..=intermediates.len() {
            match self.webpki.verify_server_cert(end_entity, intermediates, name, ocsp, at) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) if !known => {
                    at = not_before;
                }
                verdict => return verdict,
            }
        }
        self.webpki.verify_server_cert(end_entity, intermediates, name, ocsp, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn an_office_knows_the_time() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(S(784_111_777)));
        assert_eq!(http_date("yesterday"), None);
        assert_eq!(judge(S(0), false, None), None, "1970");
        assert_eq!(judge(S(0), false, Some(S(1_700_000_000))), Some(S(1_700_000_000)));
        let near = Duration::from_millis(1_700_000_001_234);
        assert_eq!(judge(near, false, Some(S(1_700_000_000))), Some(near), "they agree: the finer one");
        assert_eq!(judge(near, true, Some(S(3))), Some(near), "a clock that is kept is right");
    }

    #[test]
    fn the_floor_never_sinks_and_what_is_known_stays_known() {
        let built = Clock::new(None).floor;
        assert!(built > UnixMs(1_700_000_000_000), "built after 2023: {built}");
        assert_eq!(Clock::new(Some(UnixMs(5))).floor, built);
        let later = UnixMs(built.0 + 86_400_000);
        let clock = Clock::new(Some(later));
        assert_eq!(clock.for_certificates(), (later, false), "whatever the system's clock says");
        let said = || Some(("Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), Instant::now()));
        let (_, known) = clock.look(said());
        assert!(known && clock.look(None).1, "it stays known");
        let (at, known) = clock.for_certificates();
        assert!(known && at >= later, "an office that says less than the floor does not turn it back");
    }
}
