//! What is to be done with a request: the answer of [`decide`](crate::decide::decide) to the I/O layer.
//!
//! Owns the types and what can be read from them. A decision pins its route table; it holds everything else by value, so it
//! lives as long as the request, whatever happens to the configuration meanwhile.

use crate::{
    config::{
        BackOff, ClusterChoice, ClusterWeight, HealthCheckFilter, Hedge, InternalRedirect, Metadata, MetadataMatch,
        Mirror, RetryOn, RetryPolicy, Route, RouteAction, RoutePriority, RouteTable, RouteTarget, VirtualHost,
    },
    failure::{Failure, Flags},
    filter::{BodyFilter, Mutations},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use smallvec::SmallVec;
use std::{sync::Arc, time::Duration};

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Decision {
    /// Send it to a cluster.
    Forward(Box<Forward>),
    /// Answer it (after the delay, when an injected fault asks for one).
    Reply(Box<Reply>),
}

impl Decision {
    /// Filters that change bodies, as far as the request came in the chain.
    #[must_use]
    pub fn bodies(&mut self) -> &mut Vec<BodyFilter> {
        match self {
            Self::Forward(forward) => &mut forward.bodies,
            Self::Reply(reply) => &mut reply.bodies,
        }
    }

    /// Changes by filters.
    #[must_use]
    pub fn mutations(&self) -> &Mutations {
        match self {
            Self::Forward(forward) => &forward.mutations,
            Self::Reply(reply) => &reply.mutations,
        }
    }

    /// What filters said of the request; it belongs to its head.
    #[must_use]
    pub fn take_metadata(&mut self) -> Metadata {
        std::mem::take(match self {
            Self::Forward(forward) => &mut forward.metadata,
            Self::Reply(reply) => &mut reply.metadata,
        })
    }
}

/// A route that was found. Cheap to copy: one reference count.
#[derive(Debug, Clone)]
pub struct Matched {
    /// The table it was found in.
    pub table: Arc<RouteTable>,
    host: u32,
    route: Option<u32>,
}

impl Matched {
    /// Pins a place in a table. `None` when there is no such place.
    #[must_use]
    pub fn new(table: &Arc<RouteTable>, host: u32, route: Option<u32>) -> Option<Self> {
        let routes = &table.host(host)?.routes;
        route.is_none_or(|at| (at as usize) < routes.len()).then(|| Self { table: Arc::clone(table), host, route })
    }

    /// The virtual host.
    #[must_use]
    pub fn host(&self) -> &VirtualHost {
        self.table.host(self.host).expect("looked at when this was made")
    }

    /// The route; `None` when the virtual host had none that matched.
    #[must_use]
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.route.map(|at| &self.host().routes[at as usize])
    }

    /// How the route forwards, if it does.
    #[must_use]
    pub fn action(&self) -> Option<&RouteAction> {
        match &self.route()?.target {
            RouteTarget::Forward(action) => Some(action),
            RouteTarget::Redirect(_) | RouteTarget::Respond(_) | RouteTarget::NonForwarding => None,
        }
    }
}

/// How a request is forwarded.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The route.
    pub matched: Matched,
    /// The cluster's name; it was in the configuration when this was decided.
    pub cluster: Arc<str>,
    /// Which of the weighted clusters it is.
    pub weighted: Option<u32>,
    /// The request is gRPC: answers made here take gRPC's form.
    pub grpc: bool,
    /// Clocks.
    pub timeouts: StreamTimeouts,
    /// When it is tried again, once the request is prepared; `None`: never.
    pub retry: Option<Arc<RetryPlan>>,
    /// Several tries at once; `None`: one by one.
    pub hedge: Option<Hedge>,
    /// For consistent hashing, once the request is prepared; `None`: the balancer takes a random number.
    pub hash: Option<u64>,
    /// `set-cookie` for the response, when a hash policy made a cookie.
    pub set_cookies: SmallVec<[HeaderValue; 1]>,
    /// Subset of endpoints.
    pub metadata_match: Option<MetadataMatch>,
    /// Which bounds and pools.
    pub priority: RoutePriority,
    /// Copies to send: index into [`mirrors`](Self::mirrors), and the cluster.
    pub copies: SmallVec<[(u32, Arc<str>); 1]>,
    /// The endpoint's host name is the host for the upstream.
    pub auto_host: bool,
    /// An upgrade is asked for and allowed.
    pub upgrade: Option<UpgradePlan>,
    /// Wait so long first (an injected fault).
    pub delay: Option<Duration>,
    /// The response body's rate in KiB per second (an injected fault).
    pub response_kbps: Option<u64>,
    /// Flags raised so far (`DI`).
    pub flags: Flags,
    /// Response headers that filters ask for, put before the response's own changes.
    pub response_headers: Vec<(http::HeaderName, HeaderValue)>,
    /// Changes of request and response by filters.
    pub mutations: Mutations,
    /// Bytes of the request body to keep for retries and copies; `None`: the listener's buffer limit.
    pub body_buffer_limit: Option<u64>,
    /// `x-envoy-*` headers are not put (router setting).
    pub suppress_envoy_headers: bool,
    /// Status instead of 504 when the request times out (`x-envoy-upstream-rq-timeout-alt-response`): 204.
    pub timeout_status: Option<StatusCode>,
    /// Filters that change bodies, in the order of the chain.
    pub bodies: Vec<BodyFilter>,
    /// It is a health check.
    pub health_check: bool,
    /// What filters said of the request.
    pub metadata: Metadata,
    /// The host to resolve, for dynamic forward proxy clusters, when a filter override names one.
    pub forward_host: Option<String>,
}

impl Forward {
    /// How the route forwards.
    #[must_use]
    pub fn action(&self) -> Option<&RouteAction> {
        self.matched.action()
    }

    /// The weighted cluster that was drawn.
    #[must_use]
    pub fn cluster_weight(&self) -> Option<&ClusterWeight> {
        match &self.action()?.cluster {
            ClusterChoice::Weighted { clusters, .. } => clusters.get(self.weighted? as usize),
            ClusterChoice::One(_) | ClusterChoice::Header(_) => None,
        }
    }

    /// The copies the route asks for.
    #[must_use]
    pub fn mirrors(&self) -> &[Mirror] {
        let own = self.action().map_or(&[][..], |action| &action.mirrors);
        match (own.is_empty(), self.matched.host().mirrors.is_empty()) {
            (false, _) => own,
            (true, false) => &self.matched.host().mirrors,
            (true, true) => &self.matched.table.mirrors,
        }
    }

    /// Redirects of the upstream that are followed here.
    #[must_use]
    pub fn internal_redirect(&self) -> Option<&Arc<InternalRedirect>> {
        self.action()?.internal_redirect.as_ref()
    }
}

/// Clocks of one request. `None`: no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamTimeouts {
    /// From the end of the request to the end of the response, over all tries.
    pub global: Option<Duration>,
    /// One try, from the end of the request to its response's head.
    pub per_try: Option<Duration>,
    /// Nothing moves during one try.
    pub per_try_idle: Option<Duration>,
    /// Nothing moves on the stream.
    pub idle: Option<Duration>,
    /// The stream's life.
    pub max_stream: Option<Duration>,
    /// The life of one try's stream, where the request says it; otherwise the upstream does. Zero: no bound.
    pub upstream_stream: Option<Duration>,
}

/// When a request is tried again: the route's policy merged with what a trusted client asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPlan {
    /// On what. Never empty.
    pub on: RetryOn,
    /// How often.
    pub retries: u32,
    /// Codes of [`RetryOn::STATUS_CODES`].
    pub status_codes: SmallVec<[u16; 4]>,
    /// Response headers by which a trusted client asks for retries (present is enough).
    pub header_names: SmallVec<[http::HeaderName; 1]>,
    /// Wait between tries.
    pub back_off: BackOff,
    /// The configured policy, for the rest.
    pub policy: Arc<RetryPolicy>,
}

/// An upgrade that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpgradePlan {
    /// Ask the upstream for the same upgrade and, when it agrees, pass bytes in both directions.
    Pass,
    /// CONNECT (or POST) ends here: the body is raw TCP with the upstream.
    TerminateConnect,
}

/// An answer made here. When the request was gRPC the I/O layer gives it gRPC's form, except a preflight's answer: direct responses
/// and redirects too.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers, without `content-length`, `date` and `server`. `content-type` is there when there is a body.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// gRPC status when it is not the one that follows from `status`.
    pub grpc_status: Option<u32>,
    /// Why.
    pub cause: Cause,
    /// Flags, including those of the failure.
    pub flags: Flags,
    /// Wait so long first (an injected fault).
    pub delay: Option<Duration>,
    /// The route, when one was found: its response header changes are to be applied.
    pub matched: Option<Matched>,
    /// The cluster that the request would have gone to, for the log.
    pub cluster: Option<Arc<str>>,
    /// Filters that change bodies, as far as the request came in the chain.
    pub bodies: Vec<BodyFilter>,
    /// Changes by filters, as far as the request came in the chain.
    pub mutations: Mutations,
    /// What filters said of the request, as far as it came.
    pub metadata: Metadata,
}

/// Why an answer is made here.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// A failure: details, flag and metrics come from it.
    Failure(Failure),
    /// The route says so (`direct_response`).
    DirectResponse,
    /// The route redirects (`direct_response` too, in Envoy's words).
    Redirect,
    /// A CORS preflight (`cors_response`).
    Preflight,
    /// A health check, which the I/O layer judges: only it knows how clusters are.
    HealthCheck(Arc<HealthCheckFilter>),
}

impl Cause {
    /// Response code details.
    #[must_use]
    pub fn details(&self) -> String {
        match self {
            Self::Failure(failure) => failure.details(false),
            Self::DirectResponse | Self::Redirect => "direct_response".to_owned(),
            Self::Preflight => "cors_response".to_owned(),
            Self::HealthCheck(_) => "health_check_ok".to_owned(),
        }
    }
}

impl Reply {
    /// The answer to a failure, with its body as plain text.
    #[must_use]
    pub fn failure(failure: Failure) -> Self {
        let status = StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut headers = HeaderMap::new();
        let body = Bytes::from(failure.body(false));
        if !body.is_empty() {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if let Some(name) = failure.extra_header() {
            headers.insert(http::HeaderName::from_static(name), HeaderValue::from_static("true"));
        }
        let mut flags = Flags::NONE;
        if let Some(flag) = failure.flag() {
            flags.insert(flag);
        }
        Self {
            status,
            headers,
            body,
            grpc_status: None,
            cause: Cause::Failure(failure),
            flags,
            delay: None,
            matched: None,
            cluster: None,
            bodies: Vec::new(),
            mutations: Mutations::default(),
            metadata: Metadata::default(),
        }
    }
}
