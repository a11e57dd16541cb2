//! Route tables: which request goes where, and what is done to it on the way.
//!
//! Owns the types. `crate::route` matches and decides. The lookup structures are built by [`RouteTable::new`] so that a
//! lookup does not slow down with the number of virtual hosts.

use super::{
    FilterOverrides, Fraction, HeaderChanges, HeaderMatcher, Metadata, MetadataMatch, Mutation, QueryMatcher, Regex,
    RegexRewrite, Upgrade,
};
use crate::{
    format::Format,
    route::{MoreHosts, hosts::HostIndex},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use std::{sync::Arc, time::Duration};

/// A route table.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTable {
    /// Name of the resource; for inline tables the name written there.
    pub name: Arc<str>,
    /// In the order of the resource.
    pub hosts: Arc<[VirtualHost]>,
    /// Finds the virtual host of a host name among them; see [`find`](Self::find).
    pub index: HostIndex,
    /// Request headers, for every route.
    pub request_headers: HeaderChanges,
    /// Response headers, for every route.
    pub response_headers: HeaderChanges,
    /// Removed from requests of external clients.
    pub internal_only_headers: Box<[HeaderName]>,
    /// The changes of the route are applied last, instead of first.
    pub most_specific_wins: bool,
    /// The port of the host does not count for the choice of the virtual host.
    pub ignore_port: bool,
    /// Take the host for the choice of the virtual host from this header.
    pub vhost_header: Option<HeaderName>,
    /// Matrix parameters (`;x=1`) do not count for the match of a path.
    pub ignore_path_parameters: bool,
    /// For routes that name none.
    pub mirrors: Box<[Mirror]>,
    /// For virtual hosts and routes that say nothing about a filter.
    pub overrides: FilterOverrides,
    /// Free-form.
    pub metadata: Metadata,
    /// Further virtual hosts come one by one (VHDS), and so long is waited for the first of them.
    pub more_hosts: Option<super::FetchTimeout>,
    /// Those that came.
    pub more: Option<Arc<MoreHosts>>,
    /// The table is refused when a route in it names a cluster that is not there.
    pub validate_clusters: bool,
}

impl RouteTable {
    /// The place of the virtual host of a host name.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<u32> {
        match &self.more {
            None => self.index.find(host),
            Some(more) => self.find_among(more, &host.to_ascii_lowercase()),
        }
    }

    /// Places of hosts that came one by one follow those that were in the table.
    fn find_among(&self, more: &MoreHosts, host: &str) -> Option<u32> {
        let shifted = |place: u32| place.checked_add(u32::try_from(self.hosts.len()).ok()?);
        if let Some(place) = self.index.find_exact(host) {
            return Some(place);
        }
        if let Some(place) = more.find_exact(host) {
            return shifted(place);
        }
        match (self.index.find_wild(host), more.find_wild(host)) {
            (Some((rank, place)), None) => Some((rank, place)),
            (Some((rank, place)), Some((other, _))) if rank >= other => Some((rank, place)),
            (_, other) => other.and_then(|(rank, place)| Some((rank, shifted(place)?))),
        }
        .map(|(_, place)| place)
    }

    /// The virtual host at a place.
    #[must_use]
    pub fn host(&self, place: u32) -> Option<&VirtualHost> {
        let at = place as usize;
        if let Some(host) = self.hosts.get(at) {
            return Some(host);
        }
        let more = self.more.as_ref()?.get(u32::try_from(at - self.hosts.len()).ok()?)?;
        Some(&more.host)
    }
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// For logs and statistics.
    pub name: Arc<str>,
    /// First match wins.
    pub routes: Box<[Arc<Route>]>,
    /// Whether plaintext requests are redirected to TLS.
    pub require_tls: RequireTls,
    /// Request headers.
    pub request_headers: HeaderChanges,
    /// Response headers.
    pub response_headers: HeaderChanges,
    /// `x-envoy-attempt-count` is put into requests.
    pub request_attempt_count: bool,
    /// `x-envoy-attempt-count` is put into responses.
    pub response_attempt_count: bool,
    /// `x-envoy-is-timeout-retry` is put into retries.
    pub timeout_retry_header: bool,
    /// For routes that have none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// For routes that have none.
    pub hedge: Option<Arc<Hedge>>,
    /// For routes that name none.
    pub mirrors: Box<[Mirror]>,
    /// For routes that say nothing about a filter.
    pub overrides: FilterOverrides,
    /// How requests are described for rate limits.
    pub rate_rules: Box<[super::RateRule]>,
    /// Bytes of a request body that are kept for retries and mirrors; `None`: the listener's buffer limit.
    pub body_buffer_limit: Option<u64>,
    /// Free-form.
    pub metadata: Metadata,
}

/// Whether plaintext requests are redirected to TLS (301).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RequireTls {
    /// No.
    #[default]
    None,
    /// Those of external clients.
    External,
    /// All.
    All,
}

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// For logs; may be empty.
    pub name: Arc<str>,
    /// Which requests.
    pub matches: RouteMatch,
    /// What is done.
    pub target: RouteTarget,
    /// Request headers.
    pub request_headers: HeaderChanges,
    /// Response headers.
    pub response_headers: HeaderChanges,
    /// What this route says about filters.
    pub overrides: FilterOverrides,
    /// Prefix of statistics; empty: none are kept.
    pub stat_prefix: Arc<str>,
    /// See [`VirtualHost::body_buffer_limit`].
    pub body_buffer_limit: Option<u64>,
    /// Free-form.
    pub metadata: Metadata,
}

/// Which requests.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// The path, without its query.
    pub path: PathMatch,
    /// With regard to ASCII case. Patterns of case-insensitive matches are kept in lower case.
    pub case_sensitive: bool,
    /// All must hold.
    pub headers: Box<[HeaderMatcher]>,
    /// All must hold.
    pub query: Box<[QueryMatcher]>,
    /// Each cookie must hold: name, condition, and true for its opposite.
    pub cookies: Box<[(Box<str>, super::StringMatcher, bool)]>,
    /// gRPC requests only.
    pub grpc: bool,
    /// A share of the requests that match otherwise.
    pub share: Option<Box<Fraction>>,
    /// The client presented a certificate (or not).
    pub tls_presented: Option<bool>,
    /// The client's certificate was verified (or not).
    pub tls_validated: Option<bool>,
    /// It asks for metadata that no request has when its route is chosen.
    pub never: bool,
}

/// A path.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// Begins with.
    Prefix(Box<str>),
    /// Equals.
    Exact(Box<str>),
    /// Equals, or goes on with a slash. Has no slash at its end.
    Separated(Box<str>),
    /// Matches as a whole.
    Regex(Regex),
    /// CONNECT requests (without a path).
    Connect,
    /// A template such as `/t/{x}/{y=**}`.
    Template(Box<UriTemplate>),
}

/// A compiled path template.
#[derive(Debug, Clone, PartialEq)]
pub struct UriTemplate {
    /// As written.
    pub text: Box<str>,
    /// What it means; each variable is a group.
    pub pattern: Regex,
    /// Names of the variables, in the order of the groups.
    pub variables: Box<[Box<str>]>,
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteTarget {
    /// Sent to a cluster.
    Forward(Box<RouteAction>),
    /// Answered with a redirect.
    Redirect(Box<Redirect>),
    /// Answered.
    Respond(Box<DirectResponse>),
    /// Nothing is forwarded (gRPC servers only): 404 here.
    NonForwarding,
}

/// How a request is sent to a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteAction {
    /// Which cluster.
    pub cluster: ClusterChoice,
    /// Status when there is no such cluster; 503.
    pub cluster_not_found: StatusCode,
    /// Subset of endpoints.
    pub metadata_match: Option<MetadataMatch>,
    /// What happens to the path.
    pub path_rewrite: PathRewrite,
    /// What happens to the host.
    pub host_rewrite: HostRewrite,
    /// The host before is appended to `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Until the response is complete. `None`: no bound. 15 s by default.
    pub timeout: Option<Duration>,
    /// Nothing moves on the stream. `None`: the connection manager's; `Some(ZERO)`: no bound.
    pub idle_timeout: Option<Duration>,
    /// How requests are described for rate limits.
    pub rate_rules: Box<[super::RateRule]>,
    /// Rules of the virtual host count as well.
    pub include_host_rules: bool,
    /// Bounds of the stream's life.
    pub stream_limit: Option<Box<StreamLimit>>,
    /// When it is tried again. `None`: the virtual host's.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Several tries at once. `None`: the virtual host's.
    pub hedge: Option<Arc<Hedge>>,
    /// Copies to other clusters.
    pub mirrors: Box<[Mirror]>,
    /// High or default priority: which bounds and pools.
    pub priority: RoutePriority,
    /// What consistent hashing takes.
    pub hash: Box<[HashPolicy]>,
    /// Upgrades allowed or not on this route.
    pub upgrades: Box<[UpgradeOverride]>,
    /// Redirects of the upstream that are followed here.
    pub internal_redirect: Option<Arc<InternalRedirect>>,
}

/// An upgrade on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeOverride {
    /// Which, and whether it is allowed.
    pub upgrade: Upgrade,
    /// CONNECT is ended here: the body is sent to the upstream as raw TCP.
    pub terminate_connect: bool,
}

/// Which cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterChoice {
    /// Always the same.
    One(Arc<str>),
    /// Named by a request header.
    Header(Box<HeaderName>),
    /// By weight.
    Weighted {
        /// At least one has a weight.
        clusters: Box<[ClusterWeight]>,
        /// Sum of the weights.
        total: u64,
        /// Runtime keys of weights begin with it, and end with a dot and the cluster's name; empty: there are none.
        runtime_prefix: Box<str>,
        /// Take the number from this request header (decimal) instead of a random one.
        random_header: Option<Box<HeaderName>>,
    },
}

/// One of several clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterWeight {
    /// Its name; empty when `header` is set.
    pub name: Arc<str>,
    /// Named by a request header.
    pub header: Option<HeaderName>,
    /// Weight; 0: never.
    pub weight: u32,
    /// Subset of endpoints, beside the route's.
    pub metadata_match: Option<MetadataMatch>,
    /// Request headers.
    pub request_headers: HeaderChanges,
    /// Response headers.
    pub response_headers: HeaderChanges,
    /// What this choice says about filters.
    pub overrides: FilterOverrides,
    /// Host for the upstream; `None`: as the route says.
    pub host_rewrite: Option<HeaderValue>,
}

/// What happens to the path.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum PathRewrite {
    /// Nothing.
    #[default]
    None,
    /// What matched (prefix, or the whole path) is replaced.
    Prefix(Arc<str>),
    /// By expression, query excluded.
    Regex(Box<RegexRewrite>),
    /// By template, with the variables of [`PathMatch::Template`]: literals and variables in order.
    Template(Box<[TemplatePart]>),
    /// The whole path with its query.
    Format(Box<Format>),
}

/// A part of a rewritten path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it is.
    Literal(Box<str>),
    /// Index into the variables of the template that matched.
    Variable(u16),
}

/// What happens to the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum HostRewrite {
    /// Nothing.
    #[default]
    None,
    /// This one.
    Literal(Box<HeaderValue>),
    /// The value of a request header, if it is there.
    Header(Box<HeaderName>),
    /// Made from the path without its query.
    PathRegex(Box<RegexRewrite>),
    /// The endpoint's host name (DNS clusters): the I/O layer does it.
    Auto,
}

/// Bounds of a stream's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimit {
    /// No longer than this; `Some(ZERO)`: no bound. `None`: the connection manager's.
    pub max: Option<Duration>,
    /// `grpc-timeout` counts, up to this; `Some(ZERO)`: without a bound. `None`: it does not count.
    pub grpc_max: Option<Duration>,
    /// Taken off `grpc-timeout`.
    pub grpc_offset: Duration,
}

/// Which bounds and pools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RoutePriority {
    /// The usual.
    #[default]
    Default,
    /// The others.
    High,
}

/// When a request is tried again, as bits ([`RetryOn`]'s constants), so that a policy is a copyable word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(pub u32);

impl RetryOn {
    /// Any 5xx, or no answer.
    pub const FIVE_XX: Self = Self(1);
    /// 502, 503, 504, or no answer.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// No connection.
    pub const CONNECT_FAILURE: Self = Self(1 << 2);
    /// 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 3);
    /// The stream was refused (HTTP/2 REFUSED_STREAM).
    pub const REFUSED_STREAM: Self = Self(1 << 4);
    /// One of the listed codes.
    pub const STATUS_CODES: Self = Self(1 << 5);
    /// The stream was reset, or timed out per try.
    pub const RESET: Self = Self(1 << 6);
    /// The response has one of the listed headers.
    pub const HEADERS: Self = Self(1 << 7);
    /// `x-envoy-ratelimited` is honoured: such answers are tried again.
    pub const RATE_LIMITED: Self = Self(1 << 8);
    /// gRPC status 1.
    pub const GRPC_CANCELLED: Self = Self(1 << 9);
    /// gRPC status 4.
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 10);
    /// gRPC status 8.
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 11);
    /// gRPC status 14.
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 12);
    /// gRPC status 13.
    pub const GRPC_INTERNAL: Self = Self(1 << 13);
    /// The stream was reset before the request went out.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 14);
    /// HTTP/3 could not be used after connecting.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 15);

    /// True when all bits of the other are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when nothing is tried again.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// When and how a request is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// On what.
    pub on: RetryOn,
    /// How often; 1 by default.
    pub retries: u32,
    /// Bound of one try. `None`: none.
    pub per_try_timeout: Option<Duration>,
    /// Nothing moves during one try.
    pub per_try_idle_timeout: Option<Duration>,
    /// Of [`RetryOn::STATUS_CODES`].
    pub status_codes: Box<[u16]>,
    /// Of [`RetryOn::HEADERS`]: conditions on the response.
    pub response_headers: Box<[HeaderMatcher]>,
    /// Only requests with one of these are tried again; empty: all.
    pub request_headers: Box<[HeaderMatcher]>,
    /// Wait between tries.
    pub back_off: BackOff,
    /// Wait as the response says.
    pub reset_headers: Box<[ResetHeader]>,
    /// Longest such wait; five minutes.
    pub reset_max: Duration,
    /// Endpoints tried before are avoided.
    pub avoid_previous_hosts: bool,
    /// Endpoints of the priorities tried before are avoided after so many tries; `None`: not.
    pub avoid_previous_priorities: Option<u32>,
    /// Endpoints with this `envoy.lb` `canary: true` metadata are left out.
    pub omit_canary: bool,
    /// How often another endpoint is chosen; 1 by default.
    pub host_selection_attempts: u32,
}

/// Wait between tries: random in `[0, base × (2ⁿ − 1))`, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// 25 ms by default.
    pub base: Duration,
    /// Ten times the base by default.
    pub max: Duration,
}

/// A response header that says when to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Its name.
    pub name: HeaderName,
    /// What it says.
    pub format: ResetFormat,
}

/// What a reset header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

/// Several tries at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// A try that ran out of its time goes on while the next starts.
    pub on_per_try_timeout: bool,
}

/// A copy to another cluster. Its host gets `-shadow` appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Which; empty when `header` is set.
    pub cluster: Arc<str>,
    /// Named by a request header.
    pub header: Option<HeaderName>,
    /// How often.
    pub share: Fraction,
    /// `-shadow` is not appended.
    pub keep_host: bool,
    /// Changes of the copy's headers.
    pub headers: Box<[Mutation]>,
    /// Host of the copy.
    pub host: Option<HeaderValue>,
}

/// What consistent hashing takes, in order; hashes are combined.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    /// From where.
    pub source: HashSource,
    /// When this gave a hash, the rest is not looked at.
    pub terminal: bool,
}

/// From where a hash is taken.
#[derive(Debug, Clone, PartialEq)]
pub enum HashSource {
    /// A header's value, rewritten.
    Header(HeaderName, Option<Box<RegexRewrite>>),
    /// A cookie; made with this lifetime and path when absent and a lifetime is given (`Some(ZERO)`: a session cookie).
    Cookie {
        /// Its name.
        name: Box<str>,
        /// Lifetime of a made cookie; `None`: none is made.
        ttl: Option<Duration>,
        /// Path of a made cookie.
        path: Box<str>,
        /// Further attributes of a made cookie.
        attributes: Box<[(Box<str>, Box<str>)]>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter, not decoded.
    Query(Box<str>),
}

/// Redirects of the upstream that are followed here.
#[derive(Debug, Clone, PartialEq)]
pub struct InternalRedirect {
    /// How many in a row.
    pub max: u32,
    /// Which codes; 302 by default.
    pub codes: Box<[u16]>,
    /// From TLS to plaintext or back.
    pub allow_cross_scheme: bool,
    /// Only between the same schemes or from plaintext to TLS.
    pub safe_cross_scheme: bool,
    /// No route is used twice.
    pub avoid_previous_routes: bool,
    /// Only to these routes; `None`: any.
    pub allowed_routes: Option<Box<[Arc<str>]>>,
    /// Headers of the redirecting response that are put into the next request.
    pub copy_headers: Box<[HeaderName]>,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// Scheme instead.
    pub scheme: Option<Box<str>>,
    /// Scheme becomes `https` (a port that was the default of the old scheme is dropped).
    pub https: bool,
    /// Host instead.
    pub host: Option<Box<str>>,
    /// Port instead.
    pub port: Option<u16>,
    /// Path instead.
    pub path: RedirectPath,
    /// 301 by default.
    pub status: StatusCode,
    /// The query is left out.
    pub strip_query: bool,
}

/// Path of a redirect.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum RedirectPath {
    /// The same.
    #[default]
    Same,
    /// This one, maybe with a query that wins over the request's.
    Full(Box<str>),
    /// What matched is replaced.
    Prefix(Box<str>),
    /// By expression.
    Regex(Box<RegexRewrite>),
}

/// An answer made here.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// Status.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
    /// Body made from a format, with its content type.
    pub format: Option<(Format, HeaderValue)>,
}
