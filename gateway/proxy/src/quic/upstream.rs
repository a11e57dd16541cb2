//! QUIC connections to upstreams.
//!
//! Owns one endpoint per worker and local address; a closed port is told as such where the system tells it.

use super::{bind::Ids, transport};
use crate::tls::context::ClientContext;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime, crypto::rustls::QuicClientConfig};
use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use tombolo_gateway_core::{
    config::Http3Settings,
    failure::{Failure, Kind},
};

thread_local! {
    /// The worker's endpoints by local address.
    static ENDPOINTS: RefCell<HashMap<IpAddr, Endpoint>> = RefCell::default();
}

/// Opens a connection.
///
/// # Errors
/// A connect failure with the transport's words, or a connect timeout.
pub(crate) async fn open(
    to: SocketAddr,
    from: Option<IpAddr>,
    context: &ClientContext,
    name: &str,
    settings: &Http3Settings,
    patience: Duration,
) -> Result<quinn::Connection, Failure> {
    let failed = |reason: String| Failure::new(Kind::ConnectFailure).with_reason(reason);
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let from = from.filter(|ip| ip.is_ipv4() == to.is_ipv4()).unwrap_or(any);
    let endpoint = endpoint(from).map_err(|e| Failure::new(Kind::LocalConnectFailure).with_reason(e.to_string()))?;
    let mut tls = (*context.base).clone();
    if tls.alpn_protocols.is_empty() {
        tls.alpn_protocols = vec![b"h3".to_vec()];
    }
    tls.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| failed(format!("TLS_error: {e}")))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport::upstream(settings));
    let address = to.ip().to_string();
    // Without a name the address stands in, which sends no SNI.
    let name = if name.is_empty() { &address } else { name.trim_end_matches('.') };
    let connecting = endpoint.connect_with(config, to, name).map_err(|e| failed(e.to_string()))?;
    match timeout(patience, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(failed(format!("QUIC: {error}"))),
        Err(_) => Err(Failure::new(Kind::ConnectTimeout)),
    }
}

fn endpoint(from: IpAddr) -> io::Result<Endpoint> {
    ENDPOINTS.with_borrow_mut(|endpoints| {
        if let Some(endpoint) = endpoints.get(&from) {
            return Ok(endpoint.clone());
        }
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        let mut config = EndpointConfig::default();
        config.cid_generator(|| Box::new(Ids::of_one()));
        let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime))?;
        endpoints.insert(from, endpoint.clone());
        Ok(endpoint)
    })
}
