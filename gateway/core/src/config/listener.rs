//! Listeners: where connections come in and what is done with them.
//!
//! Owns the types; `crate::chain` chooses a filter chain. Used by the I/O layer.

use super::{AccessLog, DownstreamTls, Hcm, Http3Settings, Metadata, MetadataMatch};
use crate::filter::{Places, TokenBucket};
use ipnet::IpNet;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// A range of addresses.
pub type Cidr = IpNet;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP (or UDP for QUIC).
    Socket(SocketAddr),
    /// A Unix stream socket with the mode of its file, when given; a name that begins with `@` is abstract.
    Pipe(Arc<str>, Option<u32>),
    /// Reached only from within the process, by the listener's name.
    Internal,
}

/// Who the connections of a listener come from, for telemetry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// From others to the workload beside the proxy.
    Inbound,
    /// From the workload beside the proxy to others.
    Outbound,
}

/// A listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique.
    pub name: Arc<str>,
    /// All addresses; the first is the main one.
    pub addresses: Box<[Address]>,
    /// Prefix of statistics; empty: the address.
    pub stat_prefix: Arc<str>,
    /// In the order written, which does not matter for the choice: see `crate::chain`. No two match equally.
    pub chains: Box<[Arc<FilterChain>]>,
    /// Finds them.
    pub index: crate::chain::ChainIndex,
    /// Taken when no other matches; without it such connections are closed.
    pub default_chain: Option<Arc<FilterChain>>,
    /// In order, before a chain is chosen.
    pub filters: Box<[ListenerFilter]>,
    /// How long the listener filters may take. `None`: for ever.
    pub filters_timeout: Option<Duration>,
    /// After that time: choose a chain by what is known (`true`) or close (`false`).
    pub continue_on_filters_timeout: bool,
    /// Soft bound of the bytes buffered per connection and direction.
    pub buffer_limit: u32,
    /// For telemetry.
    pub direction: Direction,
    /// `false`: no socket; connections come from a listener with [`use_original_dst`](Self::use_original_dst) whose
    /// original destination is this listener's address.
    pub bind_to_port: bool,
    /// Hand a connection to the listener whose address is its original destination, if there is one.
    pub use_original_dst: bool,
    /// IP_TRANSPARENT.
    pub transparent: bool,
    /// IP_FREEBIND.
    pub freebind: bool,
    /// `::` takes IPv4 as well.
    pub ipv4_compat: bool,
    /// Of the listen queue. `None`: the platform's.
    pub backlog: Option<u32>,
    /// Most connections at once. `None`: as many as the process bears.
    pub max_connections: Option<u32>,
    /// Accept QUIC (HTTP/3) on UDP instead of TCP.
    pub quic: Option<QuicSettings>,
    /// Written for connections that found no chain as well.
    pub access_logs: Box<[AccessLog]>,
    /// Free-form.
    pub metadata: Metadata,
}

/// How QUIC is spoken on a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuicSettings {
    /// Streams and windows.
    pub http3: Http3Settings,
    /// A client that is not heard of for so long is gone. `None`: five minutes.
    pub idle: Option<Duration>,
    /// A handshake may take this long. `None`: 20 seconds.
    pub handshake: Option<Duration>,
    /// No new connection is taken.
    pub refuses: bool,
}

/// What runs on a fresh connection before a chain is chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerFilter {
    /// Reads the destination before redirection (SO_ORIGINAL_DST).
    OriginalDst,
    /// Looks whether TLS is spoken, and at its SNI and ALPN. Without it no chain that asks for them matches and TLS is
    /// spoken only by chains that match anything.
    TlsInspector,
    /// Looks whether HTTP is spoken in plaintext; sets the application protocol to `http/1.0`, `http/1.1` or `h2c`.
    HttpInspector,
    /// Reads a PROXY protocol header.
    ProxyProtocol(ProxyProtocolSettings),
    /// Comes as a resource of its own; while this stands here, connections are closed.
    Discovered(Arc<super::Discovered>),
}

/// How PROXY protocol headers are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyProtocolSettings {
    /// Connections without a header pass (`true`) or are closed (`false`).
    pub optional: bool,
    /// Version 1 is refused.
    pub deny_v1: bool,
    /// Version 2 is refused.
    pub deny_v2: bool,
}

/// One way to treat a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// For logs (`%FILTER_CHAIN_NAME%`); may be empty.
    pub name: Arc<str>,
    /// Which connections.
    pub matches: FilterChainMatch,
    /// TLS as server; `None`: plaintext.
    pub tls: Option<Arc<DownstreamTls>>,
    /// How long TLS may take. `None`: for ever (the I/O layer's own bound applies).
    pub tls_timeout: Option<Duration>,
    /// In order, before the last one.
    pub filters: Box<[NetworkFilter]>,
    /// What ends the chain.
    pub terminal: Terminal,
    /// Free-form.
    pub metadata: Metadata,
}

/// Which connections a chain takes. An empty list or `None` takes any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatch {
    /// Destination port, after original destination and PROXY protocol.
    pub destination_port: Option<u16>,
    /// Destination addresses.
    pub destinations: Box<[Cidr]>,
    /// SNI in lower case: exact, or `*.suffix`.
    pub server_names: Box<[Arc<str>]>,
    /// `tls` or `raw_buffer` (or `quic`); empty: any.
    pub transport_protocol: Arc<str>,
    /// ALPN of the client's hello, or what the HTTP inspector saw.
    pub application_protocols: Box<[Arc<str>]>,
    /// The peer's address, before PROXY protocol.
    pub direct_sources: Box<[Cidr]>,
    /// Where the source is.
    pub source_type: SourceType,
    /// The client's address.
    pub sources: Box<[Cidr]>,
    /// The client's port.
    pub source_ports: Box<[u16]>,
}

/// Where the source of a connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// Anywhere.
    #[default]
    Any,
    /// The same host: loopback or equal to the destination.
    SameIpOrLoopback,
    /// Another host.
    External,
}

/// A network filter that does not end the chain.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkFilter {
    /// Counts connections with mesh labels (`istio.stats`).
    MeshStats,
    /// A TCP proxy behind it takes the SNI for the cluster's name.
    SniCluster,
    /// At most so many connections at once; more are closed after the delay.
    ConnectionLimit(Arc<Places>),
    /// Each connection takes a token; those that find none are closed. The rest says how operators switch it off: a runtime key, and
    /// what counts without it.
    LocalRateLimit(Arc<TokenBucket>, Box<str>, bool),
    /// Lets only those pass who may.
    Rbac(Arc<super::AccessRules>),
    /// Comes as a resource of its own; while this stands here, connections are closed.
    Discovered(Arc<super::Discovered>),
}

/// What ends a chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Terminal {
    /// HTTP.
    Http(Arc<Hcm>),
    /// Bytes to a cluster.
    Tcp(Arc<TcpProxy>),
}

/// Bytes from a connection to one endpoint of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxy {
    /// Prefix of statistics.
    pub stat_prefix: Arc<str>,
    /// Where to.
    pub cluster: TcpCluster,
    /// Nothing in both directions for so long ends the connection. `None`: never. One hour by default.
    pub idle_timeout: Option<Duration>,
    /// The connection ends after so long in any case.
    pub max_duration: Option<Duration>,
    /// How many endpoints are tried.
    pub max_connect_attempts: u32,
    /// Wait between the attempts: base and maximum.
    pub back_off: Option<(Duration, Duration)>,
    /// What consistent hashing takes.
    pub hash: Option<TcpHash>,
    /// Subset of endpoints.
    pub metadata_match: Option<MetadataMatch>,
    /// Written when the connection ends.
    pub access_logs: Box<[AccessLog]>,
}

/// Where a TCP proxy sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpCluster {
    /// Always the same.
    One(Arc<str>),
    /// By weight; a subset there wins over the proxy's own.
    Weighted(Box<[TcpWeight]>),
}

/// One of several clusters: its name, its weight, and its subset.
pub type TcpWeight = (Arc<str>, u32, Option<MetadataMatch>);

/// What a TCP proxy hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpHash {
    /// The client's address.
    SourceIp,
}
