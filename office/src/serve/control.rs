//! Changes the access rules of a broker that runs, over MQTT, as the user `office`.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::v5::Packet;
use rumqttc::{AsyncClient, Event, MqttOptions, PublishOptions, QoS, Transport};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use serde_json::Value;

use super::access::{CONTROL, OFFICE, refusal};

/// How long the broker may take for all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the broker's rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no connection.
    #[error("{0}")]
    Connection(String),
    /// The broker took the commands and said no.
    #[error("the broker refused {0}")]
    Refused(String),
    /// Nobody answered: the broker has no dynamic security plugin, or `office` is not its administrator.
    #[error("the broker did not answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// Where the broker is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The CA (PEM) for TLS; `None`: plain.
    pub ca_pem: Option<String>,
    /// Password of `office`.
    pub password: String,
}

/// Sends commands to the broker's security plugin and waits for its answer.
///
/// # Errors
/// [`ControlError`].
pub async fn order(broker: &Broker, commands: &Value) -> Result<(), ControlError> {
    tokio::time::timeout(PATIENCE, converse(broker, commands)).await.unwrap_or(Err(ControlError::Silent))
}

async fn converse(broker: &Broker, commands: &Value) -> Result<(), ControlError> {
    let failed = |e: &dyn std::fmt::Display| ControlError::Connection(e.to_string());
    let id = format!("office-{}", std::process::id());
    let mut options = MqttOptions::new(id, (broker.host.as_str(), broker.port));
    options.set_credentials(OFFICE, broker.password.clone());
    if let Some(pem) = &broker.ca_pem {
        options.set_transport(Transport::tls_with_config(trust(pem)?.into()));
    }
    let (client, mut eventloop) = AsyncClient::builder(options).capacity(8).build();
    let answers = format!("{CONTROL}/response");
    client.subscribe(answers.as_str(), QoS::AtLeastOnce).await.map_err(|e| failed(&e))?;
    loop {
        match eventloop.poll().await.map_err(|e| failed(&e))? {
            Event::Incoming(Packet::SubAck(_)) => {
                let once = PublishOptions::new(QoS::AtLeastOnce);
                client.publish(CONTROL, commands.to_string(), once).await.map_err(|e| failed(&e))?;
            }
            Event::Incoming(Packet::Publish(answer)) if answer.topic == answers.as_bytes() => {
                let answer = serde_json::from_slice(&answer.payload).map_err(|e| failed(&e))?;
                // A goodbye, so that the broker's log does not tell of a lost connection.
                let _ = client.disconnect().await;
                while eventloop.poll().await.is_ok() {}
                return refusal(&answer).map_or(Ok(()), |why| Err(ControlError::Refused(why)));
            }
            _ => {}
        }
    }
}

fn trust(pem: &str) -> Result<ClientConfig, ControlError> {
    let failed = |e: &dyn std::fmt::Display| ControlError::Connection(format!("the CA cannot be used: {e}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?;
    Ok(tls.with_root_certificates(roots).with_no_client_auth())
}
