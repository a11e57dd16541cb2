//! Clusters: groups of endpoints that requests are sent to, and how.
//!
//! Owns the types. Used by `balance`, `breaker`, `outlier`, `attempt` and the I/O layer.

use super::{
    CircuitBreakers, ClusterLoad, HealthCheck, Http3Settings, LbSettings, Metadata, OutlierDetection, UpstreamTls,
    Value,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Unique.
    pub name: Arc<str>,
    /// Name in statistics; empty: the name.
    pub alt_stat_name: Arc<str>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How an endpoint is chosen.
    pub lb: Arc<LbSettings>,
    /// How long a TCP connection may take to be made; 5 s by default.
    pub connect_timeout: Duration,
    /// Bounds at the default and at the high priority.
    pub breakers: Arc<CircuitBreakers>,
    /// `None`: no endpoint is ejected.
    pub outlier: Option<Arc<OutlierDetection>>,
    /// Active checks.
    pub health_check: Option<Arc<HealthCheck>>,
    /// A new cluster is used only after the first round of active checks.
    pub wait_until_checked: bool,
    /// HTTP towards the endpoints.
    pub http: Arc<UpstreamHttp>,
    /// Transport when no match fits.
    pub transport: TransportSocket,
    /// First that fits an endpoint wins.
    pub transport_matches: Box<[TransportMatch]>,
    /// Local address of connections.
    pub bind: Option<Arc<BindSettings>>,
    /// TCP keep-alive; `None`: off.
    pub keepalive: Option<Arc<TcpKeepalive>>,
    /// Connections are closed when their endpoint turns unhealthy.
    pub close_on_health_failure: bool,
    /// An endpoint that left discovery goes at once, even while healthy by active checks.
    pub ignore_health_on_removal: bool,
    /// A pool of its own for each client connection.
    pub pool_per_downstream: bool,
    /// Free-form: `istio` tells the services for telemetry.
    pub metadata: Metadata,
    /// How long endpoints may take to arrive.
    pub fetch_timeout: super::FetchTimeout,
}

impl Cluster {
    /// Name in statistics and logs.
    #[must_use]
    pub fn observed(&self) -> &Arc<str> {
        if self.alt_stat_name.is_empty() { &self.name } else { &self.alt_stat_name }
    }

    /// The same, where it is not its own.
    #[must_use]
    pub fn alias(&self) -> Option<Arc<str>> {
        (!self.alt_stat_name.is_empty()).then(|| Arc::clone(&self.alt_stat_name))
    }
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// The control plane, by this name of an endpoint resource (the cluster's own name unless it says another).
    Eds(Arc<str>),
    /// Written in the cluster.
    Static(Arc<ClusterLoad>),
    /// Every address of the names written in the cluster is an endpoint.
    StrictDns(Arc<ClusterLoad>, Arc<DnsSettings>),
    /// The first address of the one name is used for new connections.
    LogicalDns(Arc<ClusterLoad>, Arc<DnsSettings>),
    /// Where the client was going.
    OriginalDst(Box<OriginalDst>),
    /// Resolved from the request's host (or SNI).
    DynamicForwardProxy(Arc<ForwardNames>),
    /// The first of these clusters that can take a request.
    Aggregate(Box<[Arc<str>]>),
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// Time between resolutions when the answer's TTL does not say (or is not respected).
    pub refresh: Duration,
    /// Shortest and longest time to the next question after one that failed; `None`: `refresh`.
    pub failure: Option<(Duration, Duration)>,
    /// Random addition to the time between resolutions.
    pub jitter: Duration,
    /// No sooner, whatever a TTL says.
    pub min_refresh: Duration,
    /// Follow the TTL of answers.
    pub respect_ttl: bool,
    /// Which addresses.
    pub family: DnsFamily,
    /// Who is asked.
    pub resolver: DnsResolver,
}

/// Who is asked for addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DnsResolver {
    /// These servers; empty: those of the machine.
    pub servers: Box<[SocketAddr]>,
    /// Only if the machine names none.
    pub servers_as_fallback: bool,
    /// The machine's own library instead, which knows no TTL.
    pub library: bool,
    /// By TCP from the start.
    pub tcp: bool,
    /// Names are complete as they are.
    pub no_search: bool,
    /// For one question to one server; zero: 5 s.
    pub timeout: Duration,
    /// Questions before giving up; 0: 4.
    pub tries: u32,
}

/// Names that requests bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardNames {
    /// Cache of answers, shared by what names it.
    pub cache: Arc<str>,
    /// How they are resolved.
    pub dns: DnsSettings,
    /// Names known at a time.
    pub most: u32,
    /// Names that nobody asked for in so long are forgotten.
    pub unused: Duration,
    /// Requests that wait for an answer at a time.
    pub pending: u32,
    /// How long they wait.
    pub timeout: Duration,
}

/// Which addresses of a name count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DnsFamily {
    /// IPv6 if there are any, else IPv4.
    #[default]
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4 if there are any, else IPv6.
    V4Preferred,
    /// All.
    All,
}

/// Pass-through to where the client was going.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginalDst {
    /// Take the destination from this header (`x-envoy-original-dst-host` when it was only switched on).
    pub header: Option<http::HeaderName>,
    /// Connect to this port instead.
    pub port_override: Option<u16>,
    /// Destinations unused for so long are forgotten.
    pub cleanup_interval: Duration,
}

/// HTTP towards the endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamHttp {
    /// Versions.
    pub versions: HttpVersions,
    /// Idle connections are closed after so long. `None`: never. One hour by default.
    pub idle_timeout: Option<Duration>,
    /// Connections are drained after so long.
    pub max_connection_duration: Option<Duration>,
    /// Streams are reset after so long.
    pub max_stream: Option<Duration>,
    /// Requests per connection; 0: any number.
    pub max_requests_per_connection: u32,
    /// Response headers; `None`: Envoy's 100.
    pub max_headers: Option<u32>,
    /// Kilobytes of response headers; `None`: Envoy's 60.
    pub max_headers_kb: Option<u32>,
    /// SNI is the request's host.
    pub auto_sni: bool,
    /// The certificate must name the request's host.
    pub auto_san_validation: bool,
    /// Take the host for SNI and certificate from this header; `None`: `:authority`.
    pub override_auto_sni_header: Option<http::HeaderName>,
    /// HTTP/1 details.
    pub http1: Http1Upstream,
    /// HTTP/2 details.
    pub http2: super::Http2Settings,
    /// HTTP/3 towards the endpoints.
    pub http3: Http3Settings,
}

/// Versions of HTTP towards the endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HttpVersions {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
    /// The version of the client's request.
    SameAsDownstream,
    /// By ALPN: HTTP/2 or HTTP/1.1 (plaintext: HTTP/1.1).
    Auto,
}

/// HTTP/1 details towards the endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Http1Upstream {
    /// Trailers pass in both directions.
    pub enable_trailers: bool,
    /// Names as `Proper-Case`.
    pub proper_case: bool,
    /// Names as they came.
    pub preserve_case: bool,
    /// Requests with both Content-Length and Transfer-Encoding pass (without the former).
    pub allow_chunked_length: bool,
}

/// How bytes travel to an endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum TransportSocket {
    /// As they are.
    #[default]
    Raw,
    /// In TLS.
    Tls(Arc<UpstreamTls>),
    /// In QUIC, with its TLS.
    Quic(Arc<UpstreamTls>),
    /// Behind a PROXY protocol header.
    ProxyProtocol(ProxyProtocolVersion, Box<TransportSocket>),
    /// To a listener of the same process, taking this metadata along (namespace, from the endpoint or from the cluster).
    Internal(Box<[(Arc<str>, EndpointMetadata)]>),
}

/// Whose metadata is taken along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointMetadata {
    /// The endpoint's.
    Endpoint,
    /// The cluster's.
    Cluster,
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ProxyProtocolVersion {
    /// Text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// A transport for endpoints whose metadata says so.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportMatch {
    /// For display.
    pub name: Arc<str>,
    /// All of these must be equal in the endpoint's `envoy.transport_socket_match` metadata; empty: any endpoint.
    pub criteria: Box<[(Arc<str>, Value)]>,
    /// The transport.
    pub transport: TransportSocket,
}

/// Local address of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindSettings {
    /// Address, with port or port 0.
    pub source: Option<SocketAddr>,
    /// IP_FREEBIND.
    pub freebind: bool,
}

/// TCP keep-alive; `None`: the platform's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}

impl Cluster {
    /// The transport towards an endpoint with this metadata.
    #[must_use]
    pub fn transport_for(&self, endpoint: &Metadata) -> &TransportSocket {
        if self.transport_matches.is_empty() {
            return &self.transport;
        }
        let told = endpoint.namespace("envoy.transport_socket_match");
        let fits =
            |m: &&TransportMatch| m.criteria.iter().all(|(key, want)| told.and_then(|t| t.get(key)) == Some(want));
        self.transport_matches.iter().find(fits).map_or(&self.transport, |m| &m.transport)
    }
}
