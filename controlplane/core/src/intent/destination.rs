//! How clients treat a service.

use super::{ExportTo, Meta, Selector};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tombolo_federation_model::{Host, Labels};

/// Policy and subsets for a host (a DestinationRule).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// Identity of the object.
    pub meta: Meta,
    /// Fully qualified host or wildcard.
    pub host: Host,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Only for clients with these labels in the object's namespace.
    pub workload_selector: Option<Selector>,
    /// For the whole host.
    pub policy: TrafficPolicy,
    /// Named parts.
    pub subsets: Vec<Subset>,
}

/// A named part of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subset {
    /// Unique in the object.
    pub name: String,
    /// Endpoints with all of these labels; empty means all endpoints.
    pub labels: Labels,
    /// Overrides the host's policy field by field.
    pub policy: TrafficPolicy,
}

/// Policy of a host, of a subset, or (without `ports`) of a port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficPolicy {
    /// How endpoints are chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection of failing endpoints.
    pub outlier: Option<OutlierDetection>,
    /// TLS to the service; `None` means automatic mutual TLS.
    pub tls: Option<ClientTls>,
    /// By port number; replaces the policy above wholesale for that port.
    pub ports: BTreeMap<u16, TrafficPolicy>,
    /// PROXY protocol version (1 or 2) sent to the service.
    pub proxy_protocol: Option<u8>,
    /// Budget for retries.
    pub retry_budget: Option<RetryBudget>,
}

/// How endpoints are chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// The algorithm; `None` means the default (least request).
    pub algorithm: Option<Algorithm>,
    /// Preference for places.
    pub locality: Option<LocalityPolicy>,
    /// Slow start.
    pub warmup: Option<Warmup>,
}

/// The algorithm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Algorithm {
    /// In turn.
    RoundRobin,
    /// The less loaded of two random endpoints.
    LeastRequest,
    /// Any.
    Random,
    /// Where the client was going.
    Passthrough,
    /// By hash.
    ConsistentHash {
        /// What is hashed.
        key: HashKey,
        /// On which table.
        table: HashTable,
    },
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashKey {
    /// A request header.
    Header(String),
    /// A cookie, generated when it is absent and a lifetime is given.
    Cookie {
        /// Name.
        name: String,
        /// Path attribute.
        path: String,
        /// Lifetime; zero means for the session.
        ttl: Option<Duration>,
        /// Further attributes of a generated one, each with its value or an empty text.
        attributes: Vec<(String, String)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(String),
}

/// The table of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashTable {
    /// With at least this many entries.
    Ring(u64),
    /// With this many entries (prime).
    Maglev(u64),
}

/// Slow start of new endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Warmup {
    /// How long.
    pub duration: Duration,
    /// Smallest share in percent of the full one.
    pub min_percent: f64,
    /// Exponent of growth.
    pub aggression: f64,
}

/// Preference for places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalityPolicy {
    /// `Some(false)` turns preference off.
    pub enabled: Option<bool>,
    /// From a place (pattern with `*`) to shares by place in percent.
    pub distribute: Vec<(String, BTreeMap<String, u32>)>,
    /// From a region to the one that takes over.
    pub failover: Vec<(String, String)>,
    /// Labels, most important first (`key` or `key=value`), whose agreement ranks endpoints.
    pub failover_priority: Vec<String>,
}

/// Limits of one proxy towards one service (subset).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionPool {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Idle time of plain TCP.
    pub tcp_idle_timeout: Option<Duration>,
    /// Kernel keepalive: probes, time before the first, interval.
    pub tcp_keepalive: Option<(Option<u32>, Option<Duration>, Option<Duration>)>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests at a time.
    pub max_requests: Option<u32>,
    /// Requests before a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// Retries at a time.
    pub max_retries: Option<u32>,
    /// Idle time of HTTP connections.
    pub http_idle_timeout: Option<Duration>,
    /// Use HTTP/2 towards a service that speaks HTTP/1 by declaration.
    pub h2_upgrade: Option<bool>,
    /// Use the protocol of the client.
    pub use_client_protocol: bool,
    /// Streams per HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
}

/// Ejection of failing endpoints. A missing field means Envoy's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlierDetection {
    /// Consecutive 5xx answers; `Some(0)` turns it off.
    pub consecutive_5xx: Option<u32>,
    /// Consecutive 502, 503 and 504 answers; `Some(0)` turns it off.
    pub consecutive_gateway_errors: Option<u32>,
    /// Count local failures apart.
    pub split_local_origin: bool,
    /// Consecutive local failures.
    pub consecutive_local_origin: Option<u32>,
    /// Time between sweeps.
    pub interval: Option<Duration>,
    /// First time of absence.
    pub base_ejection_time: Option<Duration>,
    /// At most this share is ejected.
    pub max_ejection_percent: Option<u32>,
    /// Below this share of healthy endpoints detection is off.
    pub min_health_percent: Option<u32>,
}

/// TLS from the proxy to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTls {
    /// Which.
    pub mode: ClientTlsMode,
    /// Secret by name.
    pub credential: Option<String>,
    /// Client certificate file.
    pub certificate: Option<String>,
    /// Client key file.
    pub key: Option<String>,
    /// Roots file.
    pub roots: Option<String>,
    /// Names that the server may present.
    pub subject_alt_names: Vec<String>,
    /// Server name to send.
    pub sni: Option<String>,
    /// Do not verify.
    pub insecure: bool,
}

/// Kind of TLS to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientTlsMode {
    /// Plaintext.
    Disable,
    /// Server authentication.
    Simple,
    /// With the given client certificate.
    Mutual,
    /// With the mesh's certificate.
    Mesh,
}

/// Budget for retries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryBudget {
    /// Share of active requests.
    pub percent: f64,
    /// Always allowed.
    pub min_concurrency: u32,
}
