//! Owns what a line can say about a request: the facts that formats share, and those that only logs have.
//!
//! Borrows everything; made on the stack when a request ends. Unknown things are left at their default.

use crate::format::Facts;
use http::HeaderMap;
use std::net::SocketAddr;

/// What is known of a finished request.
#[derive(Clone, Copy, Default)]
pub struct Record<'a> {
    /// What header formats know as well.
    pub facts: Facts<'a>,
    /// When things happened after that.
    pub times: Times,
    /// How much was moved.
    pub bytes: Bytes,
    /// Where it was sent.
    pub upstream: Upstream<'a>,
    /// Trailers of the response.
    pub trailers: Option<&'a HeaderMap>,
    /// Why the connection was ended, if this gateway did it.
    pub termination: &'a str,
    /// Trace of the request.
    pub trace_id: &'a str,
}

/// Moments in microseconds after the start; `None` for what did not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The last byte of the request arrived.
    pub request_end: Option<u64>,
    /// Connecting began.
    pub connect_begin: Option<u64>,
    /// TCP was connected.
    pub connect_end: Option<u64>,
    /// TLS was done.
    pub handshake_end: Option<u64>,
    /// A stream on a connection was had.
    pub pool_ready: Option<u64>,
    /// The first byte went upstream.
    pub upstream_send_begin: Option<u64>,
    /// The last byte went upstream.
    pub upstream_send_end: Option<u64>,
    /// The first byte of the response arrived.
    pub upstream_receive_begin: Option<u64>,
    /// The first byte of its body arrived.
    pub upstream_body_begin: Option<u64>,
    /// The last byte of the response arrived.
    pub upstream_receive_end: Option<u64>,
    /// The first byte went downstream.
    pub response_begin: Option<u64>,
    /// The last byte went downstream.
    pub response_end: Option<u64>,
    /// All was over.
    pub end: Option<u64>,
    /// How long TLS with the client took.
    pub downstream_handshake: Option<u64>,
}

/// How much was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Body of the request.
    pub received: u64,
    /// Body of the response.
    pub sent: u64,
    /// Of the request, with heads and framing.
    pub downstream_wire_received: u64,
    /// Of the response, with heads and framing.
    pub downstream_wire_sent: u64,
    /// Heads of the request.
    pub downstream_header_received: u64,
    /// Heads of the response.
    pub downstream_header_sent: u64,
    /// From the upstream, with heads and framing.
    pub upstream_wire_received: u64,
    /// To the upstream, with heads and framing.
    pub upstream_wire_sent: u64,
    /// Heads from the upstream.
    pub upstream_header_received: u64,
    /// Heads to the upstream.
    pub upstream_header_sent: u64,
}

/// Where a request was sent. Its address and cluster are among the shared facts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upstream<'a> {
    /// Host name of the endpoint.
    pub hostname: &'a str,
    /// Name of the cluster in statistics, when it differs.
    pub observed_cluster: &'a str,
    /// Own address of the connection.
    pub local: Option<SocketAddr>,
    /// Far address of the connection; differs from the endpoint's through a tunnel.
    pub remote: Option<SocketAddr>,
    /// Protocol of the connection.
    pub protocol: &'a str,
    /// Why the transport failed.
    pub failure: &'a str,
    /// Number of the connection.
    pub connection_id: Option<u64>,
    /// TLS version.
    pub tls_version: &'a str,
    /// TLS cipher suite.
    pub tls_cipher: &'a str,
    /// URI names of the server's certificate, joined by commas.
    pub peer_uri_sans: &'a str,
    /// Subject of the server's certificate.
    pub peer_subject: &'a str,
}
