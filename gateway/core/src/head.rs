//! What the I/O layer tells about a request and the connection that it came on.
//!
//! Owns the types. A [`Head`] is made by the codec, changed by `request` and `forward`, and read by everything else.
//! Keep one per connection and refill it: its texts then cost no allocation.

use crate::config::{ConnectionBuckets, Metadata};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};
use tombolo_federation_model::Identity;

/// The head of a request.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Method; CONNECT also for extended CONNECT.
    pub method: Method,
    /// Scheme of the request as far as known: from the transport, then from a trusted `x-forwarded-proto`.
    pub scheme: Scheme,
    /// `Host` or `:authority`, as sent; empty when there was none. There is no `host` in `headers`.
    pub authority: String,
    /// Path with query, as sent (`/x?y`, or `*`); empty for CONNECT without a path.
    pub path: String,
    /// Version spoken by the client.
    pub protocol: Protocol,
    /// What is asked to be upgraded to: the `upgrade` header of an HTTP/1.1 upgrade request, or `:protocol` of an extended CONNECT.
    /// `CONNECT` for plain CONNECT. Empty: nothing.
    pub upgrade: String,
    /// All other headers, in order.
    pub headers: HeaderMap,
    /// Names of headers as the client spelled them, where that is kept for servers that mind.
    pub spelled: Option<Arc<[(HeaderName, Bytes)]>>,
    /// What filters said of it.
    pub metadata: Metadata,
}

impl Head {
    /// The first value of a header, or a part of the request line.
    #[must_use]
    pub fn value(&self, name: &Name) -> Option<&[u8]> {
        match name {
            Name::Method => Some(self.method.as_str().as_bytes()),
            Name::Path => (!self.path.is_empty()).then_some(self.path.as_bytes()),
            Name::Authority => (!self.authority.is_empty()).then_some(self.authority.as_bytes()),
            Name::Scheme => Some(self.scheme.as_str().as_bytes()),
            Name::Status => None,
            Name::Header(name) => self.headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// The path without its query.
    #[must_use]
    pub fn path_only(&self) -> &str {
        split_query(&self.path).0
    }

    /// The connection or stream is to become something else: an upgrade of HTTP/1, an extended CONNECT of the others.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        !self.upgrade.is_empty() && self.upgrade != "CONNECT"
    }

    /// True for gRPC: `content-type` is `application/grpc` or begins with `application/grpc+`.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        let Some(kind) = self.headers.get(http::header::CONTENT_TYPE) else { return false };
        match kind.as_bytes().strip_prefix(b"application/grpc") {
            Some(rest) => rest.is_empty() || rest.first() == Some(&b'+'),
            None => false,
        }
    }
}

/// Splits a path from its query; the query is `None` without a question mark.
#[must_use]
pub fn split_query(path: &str) -> (&str, Option<&str>) {
    match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    }
}

/// Schemes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`.
    #[default]
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// As written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Versions of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
}

impl Protocol {
    /// As in access logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        }
    }
}

/// The name of a header or of a part of the request line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:authority` or `host`
    Authority,
    /// `:scheme`
    Scheme,
    /// `:status` (responses only)
    Status,
    /// Any other.
    Header(HeaderName),
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// When it cannot be a header's name; says so in lower case.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            other => Self::Header(
                HeaderName::from_bytes(other.as_bytes()).map_err(|_| format!("{text:?} is not a header name"))?,
            ),
        })
    }
}

/// What is known of a connection; made once.
#[derive(Debug, Clone, Default)]
pub struct ConnInfo {
    /// The client: the peer, or what a PROXY protocol header said. `None` for Unix sockets and internal connections.
    pub remote: Option<SocketAddr>,
    /// The peer of the socket.
    pub direct_remote: Option<SocketAddr>,
    /// Where the client was going: the local address, the original destination, or what a PROXY protocol header said.
    pub local: Option<SocketAddr>,
    /// The connection came over a Unix socket.
    pub unix: bool,
    /// The path of that socket: the client's where it has one, else the listener's.
    pub pipe: String,
    /// TLS, when it was ended here. Boxed: plain connections wait with less.
    pub tls: Option<Box<TlsInfo>>,
    /// SNI seen by the inspector or by TLS; empty: none.
    pub sni: String,
    /// Limits of its own, once a filter wants them.
    pub buckets: OnceLock<Arc<ConnectionBuckets>>,
}

impl ConnInfo {
    /// The client's address.
    #[must_use]
    pub fn remote_ip(&self) -> Option<IpAddr> {
        self.remote.map(|address| address.ip())
    }

    /// The scheme of the transport.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }
}

/// What is known of TLS that was ended here.
#[derive(Debug, Clone, Default)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Cipher suite.
    pub cipher: &'static str,
    /// Negotiated protocol; empty: none.
    pub alpn: String,
    /// URI names of the certificate that was presented here (`By` in XFCC).
    pub local_uris: Vec<String>,
    /// Subject of that certificate.
    pub local_subject: String,
    /// The client's certificate.
    pub peer: Option<PeerCertificate>,
}

/// A client's certificate.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificate {
    /// It was verified against trust.
    pub verified: bool,
    /// Its SPIFFE identity, only when verified.
    pub identity: Option<Identity>,
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Subject, RFC 2253.
    pub subject: String,
    /// Issuer, RFC 2253.
    pub issuer: String,
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// URL-encoded PEM of the certificate.
    pub pem: String,
    /// URL-encoded PEM of the certificate and its chain.
    pub chain_pem: String,
}
