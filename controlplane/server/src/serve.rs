//! Sockets: binding them with a message that helps, and connections with and without TLS for the gRPC servers.
//!
//! Owns accepting and handshakes, each with a limit. Never knows what is served.

use crate::ca::OwnIdentity;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream, stream::FuturesUnordered};
use rustls::ServerConfig;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Handshakes under way at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 128;
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, for example because no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {purpose}: {error}{hint}; the address is `{field}` in the configuration")]
pub struct BindError {
    address: SocketAddr,
    purpose: &'static str,
    field: &'static str,
    error: io::Error,
    hint: &'static str,
}

/// Listens on an address; the field names it in the error.
///
/// # Errors
/// When the address is in use, not of this machine, or not allowed.
pub async fn bind(address: SocketAddr, purpose: &'static str, field: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => " (another process listens there: an earlier run that was not stopped?)",
            io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
            io::ErrorKind::PermissionDenied => " (ports below 1024 need privileges)",
            _ => "",
        };
        BindError { address, purpose, field, error, hint }
    })
}

/// TLS towards proxies: our own certificate, no certificate of theirs, HTTP/2 only.
///
/// # Errors
/// When the TLS library refuses its own defaults.
pub fn proxy_tls(own: OwnIdentity) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connections of a listener. A failed accept is logged and ends nothing.
pub fn plain(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async move { Some((Ok(accept(&listener).await), listener)) })
}

/// Connections of a listener after their handshakes, which run side by side so that a slow one holds up nobody.
pub fn tls(listener: TcpListener, config: Arc<ServerConfig>) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let state = (listener, TlsAcceptor::from(config), FuturesUnordered::<BoxFuture<'static, _>>::new());
    stream::unfold(state, |(listener, acceptor, mut handshakes)| async move {
        loop {
            tokio::select! {
                connection = accept(&listener), if handshakes.len() < HANDSHAKES => {
                    let handshake = acceptor.accept(connection);
                    handshakes.push(Box::pin(tokio::time::timeout(HANDSHAKE_TIME, handshake)) as BoxFuture<'static, _>);
                }
                Some(outcome) = handshakes.next(), if !handshakes.is_empty() => match outcome {
                    Ok(Ok(connection)) => return Some((Ok(connection), (listener, acceptor, handshakes))),
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
        }
    })
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                // Small messages must not wait for each other.
                let _ = connection.set_nodelay(true);
                return connection;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, "proxies", "listen.xds").await.unwrap_err().to_string();
        for part in [&address.to_string(), "listen.xds", "proxies", "another process"] {
            assert!(error.contains(part), "{error} should name {part}");
        }
    }
}
