//! Application protocols of service ports.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is spoken on a port. `Detect` means that nobody said, so the proxy looks at the first bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Nobody said.
    #[default]
    Detect,
    /// HTTP/1.1, upgrades included.
    Http,
    /// HTTP/2 with prior knowledge, or by ALPN.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
    /// gRPC-Web, which is HTTP/1.1 or HTTP/2.
    GrpcWeb,
    /// HTTP inside TLS that the mesh does not terminate at a workload, and terminates at a gateway.
    Https,
    /// TLS that is not said to hold HTTP.
    Tls,
    /// Bytes.
    Tcp,
    /// Datagrams; not proxied.
    Udp,
    /// Routed as bytes.
    Mongo,
    /// Routed as bytes.
    Redis,
    /// Routed as bytes; the server speaks first.
    MySql,
}

impl Protocol {
    /// Reads a protocol name, in any case, as in a gateway server's `protocol` or a port's `appProtocol`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "http" | "http1" | "kubernetes.io/ws" => Self::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" | "kubernetes.io/wss" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            _ => return None,
        })
    }

    /// Reads the protocol from a port name of the form `PROTOCOL[-SUFFIX]`.
    #[must_use]
    pub fn from_port_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("grpc-web") || name.to_ascii_lowercase().starts_with("grpc-web-") {
            return Some(Self::GrpcWeb);
        }
        Self::parse(name.split('-').next().unwrap_or(name))
    }

    /// Whether requests are routed one by one.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether upstream connections use HTTP/2.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// Whether the bytes are TLS that the client began.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// The name as users write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "",
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-WEB",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Mongo => "MONGO",
            Self::Redis => "REDIS",
            Self::MySql => "MYSQL",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_tell_the_protocol() {
        assert_eq!(Protocol::from_port_name("http"), Some(Protocol::Http));
        assert_eq!(Protocol::from_port_name("http2-web"), Some(Protocol::Http2));
        assert_eq!(Protocol::from_port_name("grpc-web"), Some(Protocol::GrpcWeb));
        assert_eq!(Protocol::from_port_name("grpc-webby"), Some(Protocol::Grpc));
        assert_eq!(Protocol::from_port_name("httpx"), None);
        assert_eq!(Protocol::from_port_name(""), None);
    }
}
