//! Clusters: groups of endpoints that requests are sent to, and how.
//!
//! Owns the types. Used by `balance`, `breaker`, `outlier`, `attempt` and the I/O layer.

use super::{ClusterLoad, HeaderChanges, Metadata, UpstreamTls, Value};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

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
    pub lb: LbSettings,
    /// How long a TCP connection may take to be made; 5 s by default.
    pub connect_timeout: Duration,
    /// Soft bound of the bytes buffered per connection and direction.
    pub buffer_limit: u32,
    /// Bounds at the default and at the high priority.
    pub breakers: CircuitBreakers,
    /// `None`: no endpoint is ejected.
    pub outlier: Option<Arc<OutlierDetection>>,
    /// Active checks; empty: none.
    pub health_checks: Box<[Arc<HealthCheck>]>,
    /// HTTP towards the endpoints.
    pub http: Arc<UpstreamHttp>,
    /// Transport when no match fits.
    pub transport: TransportSocket,
    /// First that fits an endpoint wins.
    pub transport_matches: Box<[TransportMatch]>,
    /// Local address of connections.
    pub bind: Option<BindSettings>,
    /// TCP keep-alive; `None`: off.
    pub keepalive: Option<TcpKeepalive>,
    /// Connections opened ahead of need.
    pub preconnect: Preconnect,
    /// Connections are closed when their endpoint turns unhealthy.
    pub close_on_health_failure: bool,
    /// An endpoint that left discovery goes at once, even while healthy by active checks.
    pub ignore_health_on_removal: bool,
    /// A pool of its own for each client connection.
    pub pool_per_downstream: bool,
    /// Free-form: `istio` tells the services for telemetry.
    pub metadata: Metadata,
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// The control plane, by this name of an endpoint resource (the cluster's own name unless it says another).
    Eds(Arc<str>),
    /// Written in the cluster.
    Static(Arc<ClusterLoad>),
    /// Every address of the names written in the cluster is an endpoint.
    StrictDns(Arc<ClusterLoad>, DnsSettings),
    /// The first address of the one name is used for new connections.
    LogicalDns(Arc<ClusterLoad>, DnsSettings),
    /// Where the client was going.
    OriginalDst(OriginalDst),
    /// Resolved from the request's host (or SNI).
    DynamicForwardProxy(DnsSettings),
    /// The first of these clusters that can take a request.
    Aggregate(Box<[Arc<str>]>),
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// Time between resolutions when the answer's TTL does not say (or is not respected).
    pub refresh: Duration,
    /// Follow the TTL of answers.
    pub respect_ttl: bool,
    /// Which addresses.
    pub family: DnsFamily,
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

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct LbSettings {
    /// The policy.
    pub policy: LbPolicy,
    /// Percent of healthy endpoints below which health is ignored; 50 by default, 0 never.
    pub panic_threshold: f64,
    /// In panic no endpoint is taken: requests fail at once.
    pub fail_on_panic: bool,
    /// How localities share.
    pub locality: LocalityMode,
    /// Subsets; `None`: off.
    pub subsets: Option<Arc<SubsetSettings>>,
    /// Growing weight of fresh endpoints (round robin, least request).
    pub slow_start: Option<SlowStart>,
    /// Wait so long to gather changes of endpoints; `None`: Envoy's second.
    pub update_merge_window: Option<Duration>,
    /// Endpoints count only after their first active check.
    pub ignore_new_until_checked: bool,
    /// Keep using the chosen endpoint for as long as its health allows when it is named by a session (stateful sessions), by
    /// these health states in bits; 0: Envoy's default (unknown, healthy, degraded).
    pub override_host_statuses: u32,
    /// Hash by host name instead of address (consistent hashing).
    pub hash_by_hostname: bool,
    /// In percent, at least 100; `None`: unbounded load (consistent hashing).
    pub hash_balance_factor: Option<u32>,
}

/// Policies.
#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The least busy of a few.
    LeastRequest(LeastRequest),
    /// Any.
    Random,
    /// Consistent hashing on a ring.
    RingHash(RingHash),
    /// Consistent hashing by a table.
    Maglev(MaglevSettings),
    /// The first that can be connected to.
    PickFirst,
    /// The discovery decides ([`Discovery::OriginalDst`], [`Discovery::DynamicForwardProxy`], [`Discovery::Aggregate`]).
    ByDiscovery,
}

/// Settings of least request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastRequest {
    /// Of how many the least busy is taken; 2 by default.
    pub choices: u32,
    /// How strongly active requests lower the weight when weights differ; 1.0 by default.
    pub active_request_bias: f64,
    /// Look at all endpoints instead of a sample.
    pub full_scan: bool,
}

/// Settings of a hash ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingHash {
    /// 1024 by default.
    pub minimum_size: u64,
    /// 8 Mi by default.
    pub maximum_size: u64,
    /// The function.
    pub function: RingHashFunction,
}

/// Hash functions of a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RingHashFunction {
    /// XXH64.
    #[default]
    XxHash,
    /// MurmurHash2, as in libstdc++.
    Murmur2,
}

/// Settings of a Maglev table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaglevSettings {
    /// A prime; 65537 by default.
    pub table_size: u64,
}

/// How localities share the load of a priority.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum LocalityMode {
    /// They do not count.
    #[default]
    Flat,
    /// By their weights.
    Weighted,
    /// The own zone first (percent of requests that take part, and the smallest cluster for which it is done).
    ZoneAware {
        /// Percent of requests that are routed so.
        routing_enabled: f64,
        /// Smaller clusters are not.
        min_cluster_size: u64,
        /// Endpoints of the own zone count even when there are too few.
        force_local: bool,
        /// No endpoint in panic.
        fail_on_panic: bool,
    },
}

/// Growing weight of fresh endpoints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long an endpoint is fresh.
    pub window: Duration,
    /// Exponent's inverse of the growth; 1.0 is linear.
    pub aggression: f64,
    /// Smallest share of the weight in percent; 10 by default.
    pub min_weight_percent: f64,
}

/// Subsets of endpoints by metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetSettings {
    /// What is done when no subset fits.
    pub fallback: SubsetFallback,
    /// Of [`SubsetFallback::Default`].
    pub default_subset: Box<[(Arc<str>, Value)]>,
    /// Sets of keys by which subsets are made.
    pub selectors: Box<[SubsetSelector]>,
    /// Scale locality weights by the share of endpoints in the subset.
    pub scale_locality_weight: bool,
    /// Respect locality weights within subsets.
    pub locality_weight_aware: bool,
    /// With no endpoints left in the fallback, ignore metadata (panic).
    pub panic_mode_any: bool,
    /// Values in a list count one by one.
    pub list_as_any: bool,
    /// A list of subsets in a route's metadata is tried in order.
    pub fallback_list: bool,
}

/// One set of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetSelector {
    /// Sorted.
    pub keys: Box<[Arc<str>]>,
    /// Own fallback; `None`: that of the settings.
    pub fallback: Option<SubsetFallback>,
    /// Of [`SubsetFallback::Keys`], sorted.
    pub fallback_keys: Box<[Arc<str>]>,
    /// Each subset is one endpoint.
    pub single_host: bool,
}

/// What is done when no subset fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SubsetFallback {
    /// Fail.
    #[default]
    None,
    /// Any endpoint.
    Any,
    /// The default subset.
    Default,
    /// The subset by fewer keys (selectors only).
    Keys,
}

/// Bounds per priority of requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CircuitBreakers {
    /// For default priority.
    pub default: Threshold,
    /// For high priority.
    pub high: Threshold,
    /// Most connections per endpoint; `None`: no bound.
    pub per_host_connections: Option<u32>,
}

/// Bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Connections; 1024 by default.
    pub connections: u32,
    /// Requests waiting for a connection; 1024 by default.
    pub pending: u32,
    /// Requests at once; 1024 by default.
    pub requests: u32,
    /// Retries at once; 3 by default. Not used when `retry_budget` is set.
    pub retries: u32,
    /// Connection pools; no bound by default.
    pub pools: u32,
    /// Retries as a share of requests: percent, and how many are always allowed.
    pub retry_budget: Option<(f64, u32)>,
    /// Publish how much remains.
    pub track_remaining: bool,
}

impl Default for Threshold {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
            pools: u32::MAX,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// When an endpoint is ejected for failing. Percentages that enforce are the chance to eject when the condition holds.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    /// 5xx in a row; 5.
    pub consecutive_5xx: u32,
    /// 100.
    pub enforcing_consecutive_5xx: u32,
    /// Gateway errors (502, 503, 504) in a row; 5.
    pub consecutive_gateway_failure: u32,
    /// 0.
    pub enforcing_consecutive_gateway_failure: u32,
    /// Errors of the own side (connecting, timeouts) are counted apart.
    pub split_external_local_origin: bool,
    /// Own-side errors in a row; 5.
    pub consecutive_local_origin_failure: u32,
    /// 100.
    pub enforcing_consecutive_local_origin_failure: u32,
    /// Time between sweeps; 10 s.
    pub interval: Duration,
    /// Ejection lasts this times the number of ejections; 30 s.
    pub base_ejection: Duration,
    /// But no longer; 300 s or the base, if that is more.
    pub max_ejection: Duration,
    /// Random addition to the ejection; 0.
    pub max_ejection_jitter: Duration,
    /// Share of endpoints that may be ejected; 10.
    pub max_ejection_percent: u32,
    /// One may be ejected whatever that share says.
    pub always_eject_one: bool,
    /// 100.
    pub enforcing_success_rate: u32,
    /// 5.
    pub success_rate_minimum_hosts: u32,
    /// 100.
    pub success_rate_request_volume: u32,
    /// In thousandths; 1900.
    pub success_rate_stdev_factor: u32,
    /// 100.
    pub enforcing_local_origin_success_rate: u32,
    /// 85.
    pub failure_percentage_threshold: u32,
    /// 0.
    pub enforcing_failure_percentage: u32,
    /// 0.
    pub enforcing_failure_percentage_local_origin: u32,
    /// 5.
    pub failure_percentage_minimum_hosts: u32,
    /// 50.
    pub failure_percentage_request_volume: u32,
    /// A successful active check ends the ejection; true.
    pub uneject_on_healthy_check: bool,
}

/// An active check.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: HealthCheckKind,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Between checks of a healthy endpoint.
    pub interval: Duration,
    /// Between checks while the cluster has had no traffic.
    pub no_traffic_interval: Duration,
    /// Between checks of an unhealthy endpoint.
    pub unhealthy_interval: Duration,
    /// Random addition to each interval.
    pub jitter: Duration,
    /// The same in percent of the interval.
    pub jitter_percent: u32,
    /// Wait before the first check.
    pub initial_jitter: Duration,
    /// Failures in a row to become unhealthy (HTTP 503 needs one).
    pub unhealthy_threshold: u32,
    /// Successes in a row to become healthy (the first check needs one).
    pub healthy_threshold: u32,
    /// Keep the connection between checks.
    pub reuse_connection: bool,
    /// Chooses the transport of checks as endpoint metadata would.
    pub transport_criteria: Option<Value>,
}

/// What an active check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum HealthCheckKind {
    /// An HTTP request.
    Http {
        /// `Host`; empty: the cluster's name.
        host: Arc<str>,
        /// With query.
        path: Arc<str>,
        /// GET unless said otherwise.
        method: http::Method,
        /// HTTP/2.
        http2: bool,
        /// Ranges `[start, end)` that are good; 200 when empty.
        expected: Box<[(u16, u16)]>,
        /// Ranges that count as failures without making the endpoint unhealthy at once.
        retriable: Box<[(u16, u16)]>,
        /// More headers.
        headers: HeaderChanges,
    },
    /// The gRPC health service.
    Grpc {
        /// Service asked for.
        service: Arc<str>,
        /// `:authority`; empty: the cluster's name.
        authority: Arc<str>,
    },
    /// A connection; with bytes to send and bytes to be found in order in the answer.
    Tcp {
        /// Sent.
        send: Option<bytes::Bytes>,
        /// Expected.
        receive: Box<[bytes::Bytes]>,
    },
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
    /// No request lives longer.
    pub max_stream_duration: Option<Duration>,
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
    /// Send the whole URL in the request line.
    pub absolute_url: bool,
}

/// How bytes travel to an endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum TransportSocket {
    /// As they are.
    #[default]
    Raw,
    /// In TLS.
    Tls(Arc<UpstreamTls>),
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
    /// For the other address family.
    pub more_sources: Box<[IpAddr]>,
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

/// Connections opened ahead of need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preconnect {
    /// Connections per stream wanted at an endpoint; 1.0: none ahead.
    pub per_upstream: f64,
    /// The same across the cluster.
    pub predictive: f64,
}

impl Default for Preconnect {
    fn default() -> Self {
        Self { per_upstream: 1.0, predictive: 1.0 }
    }
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
