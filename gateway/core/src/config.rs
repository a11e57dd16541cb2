//! The configuration that a running gateway works by: an immutable tree behind one pointer.
//!
//! Owns the types only. `wire` makes them from xDS messages, `assemble` puts complete trees together, `route`,
//! `filter`, `balance` and the I/O layer read them. Never holds anything that changes while it is in use: pools,
//! health and load live beside the tree, keyed by the names found here. No xDS field name appears outside `wire`;
//! the words here are Envoy's where it has a word, so that its documentation applies.
//!
//! A request pins one [`Config`] (one `Arc`) and reads everything from it. Unchanged parts are shared between
//! successive trees, so `Arc::ptr_eq` tells what changed.

mod cluster;
mod filter;
mod guard;
mod header;
mod http;
mod lb;
mod listener;
mod load;
mod local_reply;
mod log;
mod map;
mod matcher;
mod metadata;
mod route;
mod scope;
mod tls;
mod value;

pub use cluster::{
    BindSettings, Cluster, Discovery, DnsFamily, DnsResolver, DnsSettings, EndpointMetadata, ForwardNames,
    Http1Upstream, HttpVersions, OriginalDst, ProxyProtocolVersion, TcpKeepalive, TransportMatch, TransportSocket,
    UpstreamHttp,
};
pub use filter::{
    Abort, AbortKind, AccessAction, AccessPolicy, AccessRules, Coder, Coding, Compressible, Compressor,
    CompressorOverride, Condition, ConnectionBuckets, Cors, Csrf, Decompressor, Delay, DelayKind, DescriptorLimit,
    Discovered, Extension, Fault, FaultRate, FilterOverride, FilterOverrides, HeaderMutationFilter, HeaderToMetadata,
    HealthCheckFilter, HostRules, HttpFilter, HttpFilterKind, LocalRateLimit, MetadataKind, MetadataRule,
    MetadataSource, MetadataTarget, Mutation, QueryMutation, RateAction, RateRule, RouterFilter, Rules,
};
pub use guard::{CircuitBreakers, HealthCheck, HealthCheckKind, OutlierDetection, Threshold};
pub use header::{Action, HeaderChange, HeaderChanges, HeaderValueFormat};
pub use http::{
    Codec, EscapedSlashes, Hcm, Http1Settings, Http2Settings, Http3Settings, InternalAddresses, Limits, PathSettings,
    PortStripping, RequestId, RouteSource, Sampling, SchemeOverwrite, ServerHeader, Timeouts, Underscores, Upgrade,
    Xfcc, XfccDetails,
};
pub use lb::{
    LbPolicy, LbSettings, LeastRequest, LocalityMode, MaglevSettings, PeakEwma, RingHash, RingHashFunction, SlowStart,
    SubsetFallback, SubsetSelector, SubsetSettings,
};
pub use listener::{
    Address, Cidr, Direction, FilterChain, FilterChainMatch, Listener, ListenerFilter, NetworkFilter,
    ProxyProtocolSettings, QuicSettings, SourceType, TcpCluster, TcpHash, TcpProxy, TcpWeight, Terminal,
};
pub use load::{ClusterLoad, DropOverload, Endpoint, EndpointAddress, HealthStatus, LocalityEndpoints, Priority};
pub use local_reply::{LocalReply, ReplyFormat, ReplyMapper};
pub use log::{AccessLog, ComparisonOp, LogFilter, LogFormat, LogSink};
pub use map::Map;
pub use matcher::{
    Fraction, HeaderMatch, HeaderMatcher, QueryMatch, QueryMatcher, Regex, RegexRewrite, StringMatch, StringMatcher,
};
pub use metadata::{MetadataEntry, MetadataMatcher, MetadataPlace, SetMetadata, ValueMatcher};
pub use route::{
    BackOff, ClusterChoice, ClusterWeight, DirectResponse, HashPolicy, HashSource, Hedge, HostRewrite,
    InternalRedirect, Mirror, PathMatch, PathRewrite, Redirect, RedirectPath, RequireTls, ResetFormat, ResetHeader,
    RetryOn, RetryPolicy, Route, RouteAction, RouteMatch, RoutePriority, RouteTable, RouteTarget, StreamLimit,
    TemplatePart, UpgradeOverride, UriTemplate, VirtualHost,
};
pub use scope::{Element, Fragment, Scope, ScopeIndex, ScopeTable, ScopedRoutes};
pub use tls::{
    Bundle, Certificate, DownstreamTls, PrivateKey, SanKind, SanMatcher, Secret, SecretRef, SecretSource, TlsCommon,
    TlsVersion, UpstreamTls, Validation, ValidationSource,
};
pub use value::{Metadata, MetadataMatch, Value};

use crate::runtime::Runtime;
use ::http::HeaderMap;
use std::{sync::Arc, time::Duration};

/// How long a resource that something refers to may take before it is done without (Envoy's `initial_fetch_timeout`);
/// `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchTimeout(pub Option<Duration>);

impl Default for FetchTimeout {
    fn default() -> Self {
        Self(Some(Duration::from_secs(15)))
    }
}

impl FetchTimeout {
    /// The longer of the two.
    #[must_use]
    pub fn or_longer(self, other: Self) -> Self {
        Self(self.0.zip(other.0).map(|(one, two)| one.max(two)))
    }
}

/// Everything a gateway works by at one moment.
///
/// A tree in use is complete: each listener in it has its routes, certificates and trust, or the time allowed for
/// them had passed.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Rises by one with each new tree of this process.
    pub generation: u64,
    /// By name. A name keeps its sockets as long as its addresses stay the same.
    pub listeners: Map<Listener>,
    /// Route tables that listeners name ([`RouteSource::Named`]), by name.
    pub routes: Map<RouteTable>,
    /// By name.
    pub clusters: Map<Cluster>,
    /// Endpoints, by the name of the cluster (not of the EDS resource). For clusters that are discovered by other means
    /// than [`Discovery::Eds`] the load that the cluster itself carries; DNS results are the I/O layer's own.
    pub loads: Map<ClusterLoad>,
    /// By name. See [`SecretRef`]: a reference whose secret is not here cannot be used yet.
    pub secrets: Map<Secret>,
    /// Scopes that came one by one, for connection managers that do not write theirs.
    pub scopes: Arc<ScopeIndex>,
    /// What operators set.
    pub runtime: Arc<Runtime>,
}

impl Config {
    /// The routes of a connection manager, if they are here. A listener that was activated because the time to wait for its
    /// routes had passed has none: its requests get 404.
    #[must_use]
    pub fn route_table<'a>(&'a self, hcm: &'a Hcm) -> Option<&'a Arc<RouteTable>> {
        match &hcm.routes {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Named(name) => self.routes.get(name),
            RouteSource::Scoped(_) => None,
        }
    }

    /// The routes for a request with these headers: as [`route_table`](Self::route_table), or those of its scope.
    #[must_use]
    pub fn routes_for<'a>(&'a self, hcm: &'a Hcm, authority: &str, headers: &HeaderMap) -> Option<&'a Arc<RouteTable>> {
        let RouteSource::Scoped(scoped) = &hcm.routes else { return self.route_table(hcm) };
        match &scoped.find(&self.scopes, authority, headers)?.routes {
            ScopeTable::Inline(table) => Some(table),
            ScopeTable::Named(name) => self.routes.get(name),
        }
    }
}
