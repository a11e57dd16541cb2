//! Opening one connection to one endpoint: TCP or Unix socket, PROXY header, TLS.
//!
//! Owns no pool. Every failure says what the transport said, for the log; the client is told less.

use super::eyeballs;
use crate::{
    net::{
        proxy_protocol,
        socket::{self, Keepalive},
        stream::{Replay, Stream},
    },
    tls::context::ClientContext,
};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, net::UnixStream, time::timeout};
use tokio_rustls::TlsConnector;
use tombolo_gateway_core::{
    config::ProxyProtocolVersion,
    failure::{Failure, Kind},
};

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// TCP.
    Tcp(SocketAddr),
    /// TCP to whichever of these answers first.
    Any(Arc<[SocketAddr]>),
    /// A Unix socket.
    Unix(Arc<str>),
}

/// Which application protocols are offered in TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Offer {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Both; the answer decides.
    Either,
    /// Nothing of our own: the configured ones.
    Configured,
}

/// Everything that makes one connection.
#[derive(Clone)]
pub(crate) struct Target {
    /// Where to.
    pub(crate) peer: Peer,
    /// TLS and the name to ask for (empty: none).
    pub(crate) tls: Option<(ClientContext, Arc<str>)>,
    /// What TLS offers.
    pub(crate) offer: Offer,
    /// A PROXY header with the client's and our address.
    pub(crate) proxy: Option<(ProxyProtocolVersion, SocketAddr, SocketAddr)>,
    /// Local address.
    pub(crate) from: Option<IpAddr>,
    /// TCP keep-alive.
    pub(crate) keepalive: Option<Keepalive>,
    /// For TCP and TLS together.
    pub(crate) timeout: Duration,
}

/// Opens the connection.
///
/// # Errors
/// A connect failure with the transport's words, or a connect timeout.
pub(crate) async fn open(target: &Target) -> Result<Stream, Failure> {
    match timeout(target.timeout, open_unbounded(target)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(Kind::ConnectTimeout)),
    }
}

async fn open_unbounded(target: &Target) -> Result<Stream, Failure> {
    let mut tcp = match &target.peer {
        Peer::Tcp(to) => socket::connect(*to, target.from, target.keepalive).await.map_err(|e| refused(&e))?,
        Peer::Any(list) => eyeballs::connect(list, target.from, target.keepalive).await.map_err(|e| refused(&e))?,
        // Whoever asks for TLS or a header must not be served without.
        Peer::Unix(_) if target.tls.is_some() || target.proxy.is_some() => {
            return Err(
                Failure::new(Kind::ConnectFailure).with_reason("neither TLS nor a PROXY header over Unix sockets")
            );
        }
        Peer::Unix(path) => return Ok(Stream::Unix(UnixStream::connect(&**path).await.map_err(|e| refused(&e))?)),
    };
    if let Some((version, source, destination)) = target.proxy {
        let header = match version {
            ProxyProtocolVersion::V1 => proxy_protocol::write_v1(source, destination),
            ProxyProtocolVersion::V2 => proxy_protocol::write_v2(source, destination),
        };
        tcp.write_all(&header).await.map_err(|e| refused(&e))?;
    }
    let Some((context, name)) = &target.tls else { return Ok(Stream::Tcp(Replay::new(tcp))) };
    let name = server_name(name, &target.peer)
        .ok_or_else(|| Failure::new(Kind::ConnectFailure).with_reason("TLS_error: bad server name"))?;
    let connector = TlsConnector::from(config(context, target.offer));
    match connector.connect(name, Replay::new(tcp)).await {
        Ok(stream) => Ok(Stream::TlsClient(Box::new(stream))),
        Err(error) => {
            Err(Failure::new(Kind::ConnectFailure).with_reason(format!("TLS_error: {}", crate::tls::explain(&error))))
        }
    }
}

fn config(context: &ClientContext, offer: Offer) -> Arc<ClientConfig> {
    // What is configured wins, as in Envoy; the version's own name is only a fallback.
    if !context.base.alpn_protocols.is_empty() {
        return context.base.clone();
    }
    match offer {
        Offer::Http1 => context.http1.clone(),
        Offer::Http2 => context.h2.clone(),
        Offer::Either => context.either.clone(),
        Offer::Configured => context.base.clone(),
    }
}

/// Without a name the address stands in, which sends no SNI.
fn server_name(name: &str, peer: &Peer) -> Option<ServerName<'static>> {
    if !name.is_empty() {
        return ServerName::try_from(name.to_owned()).ok().or_else(|| ServerName::try_from(loose(name)).ok());
    }
    match peer {
        Peer::Tcp(address) => Some(ServerName::IpAddress(address.ip().into())),
        Peer::Any(list) => list.first().map(|address| ServerName::IpAddress(address.ip().into())),
        Peer::Unix(_) => None,
    }
}

/// Names as service meshes make them may end in a dot.
fn loose(name: &str) -> String {
    name.trim_end_matches('.').to_owned()
}

fn refused(error: &std::io::Error) -> Failure {
    let local = matches!(
        error.kind(),
        std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::PermissionDenied
    ) || error.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32);
    let kind = if local { Kind::LocalConnectFailure } else { Kind::ConnectFailure };
    Failure::new(kind).with_reason(format!("delayed connect error: {}", words(error)))
}

/// The system's words without the number that Rust appends.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_says_so() {
        let target = Target {
            peer: Peer::Tcp(tombolo_tests_kit::free()),
            tls: None,
            offer: Offer::Http1,
            proxy: None,
            from: None,
            keepalive: None,
            timeout: Duration::from_secs(60),
        };
        let failure = open(&target).await.err().unwrap();
        assert_eq!(failure.kind, Kind::ConnectFailure);
        assert_eq!(failure.transport_reason(), Some("delayed connect error: Connection refused"));
    }
}
