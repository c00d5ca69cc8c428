//! TLS towards the office: its private CA and nothing else is trusted.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, crypto};

use super::{Config, ConfigError, Spot, read_small, unreadable};
use crate::clock::{Clock, Verifier};

const FIX: &str = "give the office's CA certificate as PEM (-----BEGIN CERTIFICATE-----)";

/// The one crypto provider of the process (aws-lc-rs), made the default on the first call.
pub fn provider() -> Arc<crypto::CryptoProvider> {
    // A second call, or another part that was first, finds it installed: that is what is wanted.
    let _ = crypto::aws_lc_rs::default_provider().install_default();
    crypto::CryptoProvider::get_default().map_or_else(|| Arc::new(crypto::aws_lc_rs::default_provider()), Arc::clone)
}

/// What origins and broker are checked with, as PEM; none if the configuration names no CA.
///
/// # Errors
/// The file cannot be read.
pub fn roots(config: &Config) -> Result<Option<String>, ConfigError> {
    match (&config.office.ca_pem, &config.office.ca) {
        (Some(pem), _) => Ok(Some(pem.clone())),
        (None, Some(path)) => read_small(path).map(Some).map_err(|e| unreadable(path, e, FIX)),
        (None, None) => Ok(None),
    }
}

/// TLS settings for origins and broker: TLS 1.2 and 1.3, the configured roots only, certificates checked at the time of
/// `clock`, no ALPN (users add theirs); `None` if the configuration names no CA, because then nothing speaks TLS.
///
/// # Errors
/// [`ConfigError`] when the CA cannot be read or holds no certificate.
pub fn tls_config(config: &Config, clock: Arc<Clock>) -> Result<Option<ClientConfig>, ConfigError> {
    let office = &config.office;
    let Some(pem) = roots(config)? else { return Ok(None) };
    let wrong = |why: String| match (&office.ca_pem, &office.ca) {
        (None, Some(path)) => ConfigError::Unreadable { path: path.clone(), why, fix: FIX },
        _ => {
            let text = read_small(&config.path).unwrap_or_default();
            ConfigError::Wrong(Spot::of_key(&config.path, &text, &["office", "ca_pem"], format!("{why}: {FIX}")))
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("no certificate inside".into()));
    }
    trusting(roots, clock).map(Some).map_err(wrong)
}

/// TLS settings that trust `roots` and nothing else, at the time of `clock`; no ALPN.
///
/// # Errors
/// What rustls does not like about them.
pub(crate) fn trusting(roots: RootCertStore, clock: Arc<Clock>) -> Result<ClientConfig, String> {
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let webpki = webpki.build().map_err(|e| e.to_string())?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        // Nothing is left out: the verifier is rustls' own, at a time of ours.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(webpki, clock)))
        .with_no_client_auth())
}
