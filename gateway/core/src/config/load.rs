//! The endpoints of a cluster.
//!
//! Owns the types. Health found at run time lives beside it. Used by `balance` and the I/O layer.

use super::Metadata;
use std::{net::SocketAddr, sync::Arc};
use tombolo_federation_model::Locality;

/// All endpoints of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterLoad {
    /// The resource's name (for EDS that of the cluster, or its service name).
    pub name: Arc<str>,
    /// By priority, 0 first, none missing (a priority that was not named is empty).
    pub priorities: Box<[Priority]>,
    /// In percent: 140 when nothing is said. How much spare capacity a priority is trusted with before the next one gets a share.
    pub overprovisioning: u32,
    /// Load balance by locality weight within a priority when no policy says otherwise.
    pub weighted_localities: bool,
    /// Requests refused before any endpoint is chosen, in order.
    pub drops: Box<[DropOverload]>,
}

/// A share of requests to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropOverload {
    /// For statistics.
    pub category: Arc<str>,
    /// In parts of a million.
    pub per_million: u32,
}

/// The endpoints of one priority.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Priority {
    /// In the order of the resource.
    pub localities: Box<[LocalityEndpoints]>,
}

/// The endpoints of one locality at one priority.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    /// Where.
    pub locality: Locality,
    /// Weight among the localities of the priority; `None`: not given, gets no load when localities are weighted.
    pub weight: Option<u32>,
    /// In the order of the resource (round robin begins with the first; hash rings do not care).
    pub endpoints: Box<[Arc<Endpoint>]>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: EndpointAddress,
    /// Further addresses of the same endpoint (happy eyeballs).
    pub more_addresses: Box<[SocketAddr]>,
    /// Host name for TLS and `Host`; empty: none.
    pub hostname: Arc<str>,
    /// Health as told by the control plane.
    pub health: HealthStatus,
    /// Weight among the endpoints of the locality, at least 1.
    pub weight: u32,
    /// Free-form: `envoy.lb` (subsets, hash key), `envoy.transport_socket_match`, `istio` (telemetry).
    pub metadata: Metadata,
    /// Metadata of its locality.
    pub locality_metadata: Metadata,
    /// Active health checks go to this port instead.
    pub health_check_port: Option<u16>,
    /// Active health checks go to this address instead.
    pub health_check_address: Option<SocketAddr>,
    /// `Host` of active health checks; empty: that of the check.
    pub health_check_hostname: Arc<str>,
    /// No active health checks.
    pub skip_health_check: bool,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// An address.
    Socket(SocketAddr),
    /// A host name to resolve, with a port (DNS clusters).
    Name(Arc<str>, u16),
    /// A Unix socket.
    Pipe(Arc<str>),
    /// A listener of the same process: its name and the endpoint's id.
    Internal(Arc<str>, Arc<str>),
}

/// Health as told by the control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// Not told: counts as healthy, unless active checks or outlier detection say otherwise.
    #[default]
    Unknown,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
    /// Gets no new requests and counts as bad.
    Draining,
    /// Bad (a check ran out of time).
    Timeout,
    /// Taken when not enough healthy ones are left.
    Degraded,
}
