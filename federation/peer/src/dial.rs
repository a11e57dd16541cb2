//! Opening a stream to a peer.

use crate::{
    LocalSite, Settings,
    session::describe,
    tls,
    wire::{OUTBOUND, Outbound, Wire},
};
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, OtherError, pki_types::ServerName};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tombolo_controlplane_api::peer::peering_client::PeeringClient;
use tonic::{Code, transport::Endpoint};

/// Larger than any batch of resources; one very large service may exceed a batch.
pub(crate) const MAX_FRAME: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// It may work later.
    #[error("{0}")]
    Unreachable(String),
    /// One side does not accept the other.
    #[error("{0}")]
    Refused(String),
}

pub(crate) async fn dial(address: &str, settings: &Settings, local: &LocalSite) -> Result<Wire, DialError> {
    let late = |_| DialError::Unreachable(format!("{address} did not answer in time"));
    tokio::time::timeout(PATIENCE, open(address, settings, local)).await.map_err(late)?
}

async fn open(address: &str, settings: &Settings, local: &LocalSite) -> Result<Wire, DialError> {
    let stream = handshake(address, settings, local).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection is used up"));
        async move { stream }
    });
    let channel = Endpoint::from_static("http://peer").connect_with_connector(once).await;
    let channel = channel.map_err(|error| DialError::Unreachable(describe(&error)))?;
    let (sender, receiver) = mpsc::channel(OUTBOUND);
    let mut client = PeeringClient::new(channel).max_decoding_message_size(MAX_FRAME);
    let response = client.exchange(ReceiverStream::new(receiver)).await.map_err(|status| match status.code() {
        Code::PermissionDenied => DialError::Refused(format!("the peer refused: {}", status.message())),
        _ => refused_by_alert(describe(&status)),
    })?;
    Ok(Wire { inbound: response.into_inner(), outbound: Outbound::Dialed(sender), chain: Arc::new(chain) })
}

async fn handshake(address: &str, settings: &Settings, local: &LocalSite) -> Result<TlsStream<TcpStream>, DialError> {
    let unreachable = |error: std::io::Error| DialError::Unreachable(format!("{address}: {error}"));
    let credentials = local.credentials.borrow().clone();
    let config = tls::client(&credentials, local.trust.clone(), settings.identity.clone());
    let config = config.map_err(|error| DialError::Refused(format!("own certificate: {error}")))?;
    let tcp = TcpStream::connect(address).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    // The name is not looked at by either side: identities are.
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| DialError::Unreachable(error.to_string()))?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| tls_error(&error))
}

/// A failed handshake: with the verifier's own words where it was this side that refused.
fn tls_error(error: &std::io::Error) -> DialError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            DialError::Refused(reason.to_string())
        }
        Some(reason @ (rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))) => {
            DialError::Refused(reason.to_string())
        }
        Some(reason) => DialError::Unreachable(reason.to_string()),
        None => DialError::Unreachable(error.to_string()),
    }
}

/// In TLS 1.3 the other side judges our certificate after our handshake is done: its refusal comes as a broken stream.
fn refused_by_alert(text: String) -> DialError {
    if text.contains("fatal alert") { DialError::Refused(text) } else { DialError::Unreachable(text) }
}
