//! TLS towards the office: its private CA and nothing else is trusted.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, crypto};

use super::{Config, ConfigError, Spot, read_small, unreadable};

/// The one crypto provider of the process (aws-lc-rs), made the default on the first call.
pub fn provider() -> Arc<crypto::CryptoProvider> {
    // A second call, or another part that was first, finds it installed: that is what is wanted.
    let _ = crypto::aws_lc_rs::default_provider().install_default();
    crypto::CryptoProvider::get_default().map_or_else(|| Arc::new(crypto::aws_lc_rs::default_provider()), Arc::clone)
}

/// TLS settings for origins and broker: TLS 1.2 and 1.3, the configured roots only, no ALPN (users add theirs); `None` if
/// the configuration names no CA, because then nothing speaks TLS.
///
/// # Errors
/// [`ConfigError`] when the CA cannot be read or holds no certificate.
pub fn tls_config(config: &Config) -> Result<Option<ClientConfig>, ConfigError> {
    let office = &config.office;
    let fix = "give the office's CA certificate as PEM (-----BEGIN CERTIFICATE-----)";
    let (pem, path) = match (&office.ca_pem, &office.ca) {
        (Some(pem), _) => (pem.clone(), None),
        (None, Some(path)) => (read_small(path).map_err(|e| unreadable(path, e, fix))?, Some(path)),
        (None, None) => return Ok(None),
    };
    let wrong = |why: String| match path {
        Some(path) => ConfigError::Unreadable { path: path.clone(), why, fix },
        None => {
            let text = read_small(&config.path).unwrap_or_default();
            ConfigError::Wrong(Spot::of_key(&config.path, &text, &["office", "ca_pem"], format!("{why}: {fix}")))
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
    let tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(tls))
}
