//! What keeps bad endpoints and too much load away: circuit breakers, outlier detection, active checks.
//!
//! Owns the types. Used by `breaker`, `outlier`, `health` and the I/O layer.

use super::{HeaderChanges, StringMatcher, Value};
use std::{sync::Arc, time::Duration};

/// Bounds per priority of requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CircuitBreakers {
    /// For default priority.
    pub default: Threshold,
    /// For high priority.
    pub high: Threshold,
    /// Most connections per endpoint at the default priority; `None`: no bound.
    pub per_host_connections: Option<u32>,
    /// The same at the high priority.
    pub per_host_connections_high: Option<u32>,
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
    /// The same for an endpoint that is healthy.
    pub no_traffic_healthy_interval: Duration,
    /// Between checks of an unhealthy endpoint.
    pub unhealthy_interval: Duration,
    /// After a failure that is not enough yet to become unhealthy.
    pub unhealthy_edge_interval: Duration,
    /// After a success that is not enough yet to become healthy.
    pub healthy_edge_interval: Duration,
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
    /// Application protocols offered in place of the cluster's; empty: those of the cluster.
    pub alpn: Box<[Arc<str>]>,
    /// Every failure is logged, not only the first and those that change something.
    pub log_failures: bool,
    /// The same for successes.
    pub log_successes: bool,
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
        /// What `x-envoy-upstream-healthchecked-cluster` of the answer must be.
        service: Option<StringMatcher>,
        /// To be found in order in the answer's body.
        receive: Box<[bytes::Bytes]>,
        /// Bytes of the body that are looked at.
        body_limit: u64,
    },
    /// The gRPC health service.
    Grpc {
        /// Service asked for.
        service: Arc<str>,
        /// `:authority`; empty: the cluster's name.
        authority: Arc<str>,
        /// Metadata to send.
        headers: HeaderChanges,
    },
    /// A connection; with bytes to send and bytes to be found in order in the answer.
    Tcp {
        /// Sent.
        send: Option<bytes::Bytes>,
        /// Expected.
        receive: Box<[bytes::Bytes]>,
        /// A PROXY header comes first.
        proxy: Option<super::ProxyProtocolVersion>,
    },
}
