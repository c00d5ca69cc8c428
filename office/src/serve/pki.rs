//! A small private CA and one server certificate (ECDSA P-256), for HTTPS and for the broker.
//!
//! The CA lasts ten years and is what players are given; the server's certificate lasts one year and is made anew when
//! under a third of it is left (looked at daily), or at a start when the names have changed. Players notice neither.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, crypto::aws_lc_rs};

use super::state::{Settings, State, StateError, random_word, write_whole};

/// How long the CA lasts, in years.
const CA_YEARS: i16 = 10;
/// How long a server certificate lasts, in days.
const SERVER_DAYS: i64 = 365;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A key or certificate cannot be made or used.
    #[error("{}: {why}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What the library says.
        why: String,
    },
}

/// Makes what is missing: the CA, and a server certificate for `settings.names`, localhost and the loopback addresses.
/// Returns whether the server's certificate is new; `settings` then say until when it lasts.
///
/// # Errors
/// [`PkiError`].
pub fn ensure(state: &State, settings: &mut Settings, now: Timestamp) -> Result<bool, PkiError> {
    let (ca_pem, ca_key) = (state.path("ca.pem"), state.path("ca.key"));
    let fail = |path: &PathBuf| {
        let path = path.clone();
        move |e: rcgen::Error| PkiError::Certificate { path, why: e.to_string() }
    };
    let fresh_ca = !ca_key.exists() || !ca_pem.exists();
    if fresh_ca {
        let key = KeyPair::generate().map_err(fail(&ca_key))?;
        let certificate = ca_params(now).self_signed(&key).map_err(fail(&ca_pem))?;
        write_whole(&ca_key, key.serialize_pem().as_bytes(), 0o600)?;
        write_whole(&ca_pem, certificate.pem().as_bytes(), 0o644)?;
    }
    let names = all_names(&settings.names);
    let left = settings.certificate_until - now.as_second();
    let there = state.path("server.pem").exists() && state.path("server.key").exists();
    if !fresh_ca && there && settings.certificate_names == names && left > SERVER_DAYS * 86_400 / 3 {
        return Ok(false);
    }
    let pem = fs::read_to_string(&ca_key).map_err(|why| StateError::Io { path: ca_key.clone(), why })?;
    let ca_params = ca_params(now);
    let issuer = Issuer::from_params(&ca_params, KeyPair::from_pem(&pem).map_err(fail(&ca_key))?);
    let (server_pem, server_key) = (state.path("server.pem"), state.path("server.key"));
    let key = KeyPair::generate().map_err(fail(&server_key))?;
    let certificate = server_params(&names, now).map_err(fail(&server_pem))?.signed_by(&key, &issuer);
    let certificate = certificate.map_err(fail(&server_pem))?;
    // Forgotten first: a kill between the two files then leads to a new pair, not to a pair that does not match.
    settings.certificate_until = 0;
    state.keep_settings(settings)?;
    write_whole(&server_key, key.serialize_pem().as_bytes(), 0o600)?;
    write_whole(&server_pem, certificate.pem().as_bytes(), 0o644)?;
    settings.certificate_until = now.as_second() + SERVER_DAYS * 86_400;
    settings.certificate_names = names;
    state.keep_settings(settings)?;
    Ok(true)
}

/// TLS of the HTTPS door: HTTP/2 and HTTP/1.1 by ALPN, TLS 1.2 and 1.3.
///
/// # Errors
/// [`PkiError::Certificate`].
pub fn server_tls(state: &State) -> Result<ServerConfig, PkiError> {
    let (pem, key) = (state.path("server.pem"), state.path("server.key"));
    let fail = |path: &PathBuf, why: String| PkiError::Certificate { path: path.clone(), why };
    let chain = CertificateDer::pem_file_iter(&pem)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| fail(&pem, e.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|e| fail(&key, e.to_string()))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|tls| tls.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|e| fail(&pem, e.to_string()))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// The given names, and those that always lead to this machine; each once.
fn all_names(given: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in given.iter().map(String::as_str).chain(["localhost", "127.0.0.1", "::1"]) {
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The same name and key identifier whenever it is built, so that what it signs fits the certificate made at first.
fn ca_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Jukebox office CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // A day back: other machines' clocks are not ours.
    params.not_before = midnight(now, 0, -1);
    params.not_after = midnight(now, CA_YEARS, 0);
    params
}

fn server_params(names: &[String], now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    // The common name is for people; what counts is below. It holds at most 64 characters.
    let common: String = names.first().map_or("jukebox", String::as_str).chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, common);
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let serial = random_word().map_err(|_| rcgen::Error::RingUnspecified)?;
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial.as_bytes()[..16]));
    params.not_before = midnight(now, 0, -1);
    params.not_after = midnight(now, 0, SERVER_DAYS);
    Ok(params)
}

/// `now` moved by years and days, at midnight UTC.
fn midnight(now: Timestamp, years: i16, days: i64) -> time::OffsetDateTime {
    let now = now.to_zoned(TimeZone::UTC);
    let then = now.checked_add(years.years().days(days)).unwrap_or(now);
    rcgen::date_time_ymd(then.year().into(), then.month().unsigned_abs(), then.day().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_its_last_third_and_the_ca_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        let mut settings = Settings { names: vec!["office".into()], ..Settings::default() };
        let start: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let at = |days: i64, settings: &mut Settings| {
            ensure(&state, settings, start + jiff::SignedDuration::from_hours(24 * days)).unwrap()
        };
        assert!(at(0, &mut settings));
        assert_eq!(settings.certificate_names, ["office", "localhost", "127.0.0.1", "::1"]);
        let ca = fs::read(state.path("ca.pem")).unwrap();
        assert!(!at(0, &mut settings) && !at(243, &mut settings));
        assert!(at(244, &mut settings), "under a third of a year is left");
        assert!(!at(244, &mut settings));
        settings.names.push("10.0.0.7".into());
        assert!(at(245, &mut settings), "a new name");
        assert_eq!(state.settings().unwrap(), settings, "the settings are kept with the certificate");
        fs::remove_file(state.path("server.key")).unwrap();
        assert!(at(245, &mut settings), "a lost key");
        assert_eq!(fs::read(state.path("ca.pem")).unwrap(), ca);
        assert_eq!(server_tls(&state).unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn what_the_ca_signed_after_years_fits_the_certificate_made_at_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        let mut settings = Settings::default();
        let start: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        ensure(&state, &mut settings, start).unwrap();
        let later = start + jiff::SignedDuration::from_hours(24 * 3000);
        assert!(ensure(&state, &mut settings, later).unwrap());
        let mut check = std::process::Command::new("openssl");
        check.args(["verify", "-attime", &later.as_second().to_string(), "-CAfile"]).arg(state.path("ca.pem"));
        let out = check.arg(state.path("server.pem")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}
