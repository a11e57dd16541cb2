//! HTTP filters as configured: a closed list. `crate::filter` holds their behaviour.

mod access;
mod body;
mod csrf;
mod health;
mod limit;
mod mutation;
mod told;

pub use access::{AccessAction, AccessPolicy, AccessRules, Condition, Rules};
pub use body::{Coder, Coding, Compressible, Compressor, CompressorOverride, Decompressor};
pub use csrf::Csrf;
pub use health::HealthCheckFilter;
pub use limit::{ConnectionBuckets, DescriptorLimit, HostRules, LocalRateLimit, RateAction, RateRule};
pub use mutation::{HeaderMutationFilter, Mutation, QueryMutation};
pub use told::{HeaderToMetadata, MetadataKind, MetadataRule, MetadataSource, MetadataTarget};

use super::{Fraction, HeaderMatcher, StringMatcher};
use http::HeaderValue;
use std::{sync::Arc, time::Duration};

/// A filter in a connection manager's chain.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    /// Name in the chain; routes refer to it to override settings.
    pub name: Arc<str>,
    /// Switched off unless a route switches it on.
    pub disabled: bool,
    /// Which, with its settings.
    pub kind: HttpFilterKind,
}

/// The filters there are.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpFilterKind {
    /// Ends the chain: sends upstream.
    Router(RouterFilter),
    /// Delays and aborts.
    Fault(Arc<Fault>),
    /// Answers preflights; settings come from routes.
    Cors,
    /// At most so many requests in a time, counted in this process.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Changes headers, trailers and queries.
    HeaderMutation(Arc<HeaderMutationFilter>),
    /// Refuses requests that change something and come from pages of other origins.
    Csrf(Arc<Csrf>),
    /// Writes into the request's metadata.
    SetMetadata(Arc<super::SetMetadata>),
    /// Writes values of headers into the request's metadata.
    HeaderToMetadata(Arc<HeaderToMetadata>),
    /// Resolves the request's host for a dynamic forward proxy cluster.
    DynamicForwardProxy,
    /// Compresses bodies.
    Compressor(Arc<Compressor>),
    /// Decompresses bodies.
    Decompressor(Arc<Decompressor>),
    /// Turns gRPC-Web into gRPC.
    GrpcWeb,
    /// Keeps requests of up to so many bytes back until they are complete.
    Buffer(u64),
    /// Lets only those pass who may.
    Rbac(Arc<AccessRules>),
    /// Answers health checks.
    HealthCheck(Arc<HealthCheckFilter>),
    /// Counts gRPC messages.
    GrpcStats,
    /// Counts with mesh labels (`istio.stats`).
    MeshStats,
    /// Requests for hosts that are not known yet wait until the control plane told them.
    OnDemand,
    /// Comes as a resource of its own. `assemble` puts what came in its place; while this stands here, requests get 500.
    Discovered(Arc<Discovered>),
}

/// A filter that comes as a resource of its own (ECDS).
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    /// Name of the resource.
    pub resource: Arc<str>,
    /// Message types that it may be of, without a host part.
    pub types: Box<[Arc<str>]>,
    /// Used until it comes.
    pub default: Option<Extension>,
    /// The listener waits for it, even when there is a default.
    pub waits: bool,
    /// How long it may take.
    pub fetch_timeout: super::FetchTimeout,
}

/// A filter's configuration, for each place in which it could stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Extension {
    /// Its message type, without a host part.
    pub type_name: Arc<str>,
    /// In a connection manager.
    pub http: Option<HttpFilterKind>,
    /// Before a filter chain is chosen.
    pub listener: Option<super::ListenerFilter>,
    /// In a filter chain, not at its end.
    pub network: Option<super::NetworkFilter>,
}

/// Settings of the router.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouterFilter {
    /// No `x-envoy-*` headers are put into requests and responses.
    pub suppress_envoy_headers: bool,
    /// `x-envoy-expected-rq-timeout-ms` from the client is honoured.
    pub respect_expected_timeout: bool,
    /// Requests with these headers (`x-envoy-*`) that hold nonsense get 400.
    pub strict_check_headers: Box<[http::HeaderName]>,
}

/// What a route (or virtual host, or weighted cluster) says about a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterOverride {
    /// Switched off here.
    Off,
    /// Switched on here with the chain's settings.
    On,
    /// Other fault settings.
    Fault(Arc<Fault>),
    /// CORS settings.
    Cors(Arc<Cors>),
    /// Other origins.
    Csrf(Arc<Csrf>),
    /// Other limits.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Further changes.
    HeaderMutation(Arc<HeaderMutationFilter>),
    /// Other values of headers that become metadata.
    HeaderToMetadata(Arc<HeaderToMetadata>),
    /// Another way to compress.
    Compressor(Arc<CompressorOverride>),
    /// Another bound.
    Buffer(u64),
    /// Other rules.
    Rbac(Arc<AccessRules>),
    /// Host to resolve instead of the request's.
    ForwardHost(Arc<str>),
    /// Host to resolve is in this header.
    ForwardHostHeader(http::HeaderName),
}

/// Overrides by the name of the filter in the chain, sorted. Empty almost everywhere.
pub type FilterOverrides = Box<[(Arc<str>, FilterOverride)]>;

/// Delays and aborts on purpose.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Before the request goes on.
    pub delay: Option<Delay>,
    /// Instead of the request going on.
    pub abort: Option<Abort>,
    /// Slows the response down.
    pub response_rate: Option<FaultRate>,
    /// Only for this cluster; empty: any.
    pub upstream_cluster: Arc<str>,
    /// Only for requests with these headers.
    pub headers: Box<[HeaderMatcher]>,
    /// Only for these values of `x-envoy-downstream-service-node`; empty: any.
    pub downstream_nodes: Box<[Arc<str>]>,
    /// Faults at once; `None`: any number. The I/O layer counts.
    pub max_active: Option<u32>,
}

/// A delay.
#[derive(Debug, Clone, PartialEq)]
pub struct Delay {
    /// How long.
    pub kind: DelayKind,
    /// How often.
    pub share: Fraction,
}

/// How long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DelayKind {
    /// Always so.
    Fixed(Duration),
    /// As `x-envoy-fault-delay-request` says in milliseconds.
    Header,
}

/// An abort.
#[derive(Debug, Clone, PartialEq)]
pub struct Abort {
    /// With what.
    pub kind: AbortKind,
    /// How often.
    pub share: Fraction,
}

/// With what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbortKind {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
    /// As `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
}

/// A rate for response bodies.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRate {
    /// KiB per second; `None`: as `x-envoy-fault-throughput-response` says.
    pub kbps: Option<u64>,
    /// How often.
    pub share: Fraction,
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// Origins that are allowed.
    pub allow_origins: Box<[StringMatcher]>,
    /// `access-control-allow-methods`; `None`: not put.
    pub allow_methods: Option<HeaderValue>,
    /// `access-control-allow-headers`.
    pub allow_headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub expose_headers: Option<HeaderValue>,
    /// `access-control-max-age`.
    pub max_age: Option<HeaderValue>,
    /// `access-control-allow-credentials`.
    pub allow_credentials: bool,
    /// `access-control-allow-private-network`, when asked for.
    pub allow_private_network: bool,
    /// Preflights of other origins go upstream; otherwise they are answered here without permission.
    pub forward_not_matching_preflights: bool,
    /// How often it works at all.
    pub enabled: Fraction,
    /// How often it is only counted.
    pub shadow: Option<Fraction>,
}
