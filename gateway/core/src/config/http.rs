//! The connection manager: how requests are read, judged and answered on a listener.
//!
//! Owns the types. Used by `request`, `decide` and the I/O layer's codecs.

use super::{AccessLog, Cidr, HttpFilter, LocalReply, RouteTable};
use http::HeaderValue;
use std::{sync::Arc, time::Duration};

/// A connection manager.
#[derive(Debug, Clone, PartialEq)]
pub struct Hcm {
    /// Prefix of statistics.
    pub stat_prefix: Arc<str>,
    /// Which version of HTTP is read.
    pub codec: Codec,
    /// Where the routes are.
    pub routes: RouteSource,
    /// How long routes may take to arrive.
    pub fetch_timeout: super::FetchTimeout,
    /// In order; the router, last, is [`HttpFilterKind::Router`](super::HttpFilterKind::Router).
    pub filters: Box<[HttpFilter]>,
    /// Written when a request ends.
    pub access_logs: Box<[AccessLog]>,
    /// The peer's address is the client's: the proxy is an edge. Otherwise the address is taken from `x-forwarded-for`.
    pub use_remote_address: bool,
    /// How many proxies in front are trusted to have appended to `x-forwarded-for`.
    pub trusted_hops: u32,
    /// `x-forwarded-for` is not appended to.
    pub skip_xff_append: bool,
    /// Which addresses count as internal peers, whose `x-envoy-*` headers are honoured.
    pub internal: InternalAddresses,
    /// What is told of the client's certificate.
    pub xfcc: Xfcc,
    /// What of the client's certificate is put into `x-forwarded-client-cert`.
    pub xfcc_details: XfccDetails,
    /// Normalisation of paths.
    pub path: PathSettings,
    /// What of the host's port is removed before matching.
    pub strip_port: PortStripping,
    /// A dot at the end of the host is removed.
    pub strip_trailing_dot: bool,
    /// Value of `server`.
    pub server_name: HeaderValue,
    /// When it is put.
    pub server_header: ServerHeader,
    /// Appended to `via` of requests and responses; `None`: not.
    pub via: Option<HeaderValue>,
    /// `x-forwarded-port` is put when absent.
    pub append_x_forwarded_port: bool,
    /// `:scheme` for upstream, whatever the client said.
    pub scheme_overwrite: Option<SchemeOverwrite>,
    /// Clocks.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// Upgrades (and CONNECT) allowed here; a route may override.
    pub upgrades: Box<[Upgrade]>,
    /// `x-request-id`.
    pub request_id: RequestId,
    /// `user-agent` is set to the cluster's name by edge proxies (and `x-envoy-downstream-service-cluster`).
    pub add_user_agent: bool,
    /// 100-continue is asked of the upstream instead of being answered here.
    pub proxy_100_continue: bool,
    /// Invalid HTTP ends the stream only, not the connection. `None`: the codec's default.
    pub stream_error_on_invalid: bool,
    /// HTTP/1 details.
    pub http1: Http1Settings,
    /// HTTP/2 details.
    pub http2: Http2Settings,
    /// HTTP/3 details; `None`: not served.
    pub http3: Option<Http3Settings>,
    /// Mesh metrics (`istio.stats`) are kept.
    pub mesh_stats: bool,
    /// Changes of answers that are made here; `None`: none.
    pub local_reply: Option<Arc<LocalReply>>,
    /// Which requests are traced, as far as `x-request-id` says so; `None`: tracing is not configured.
    pub tracing: Option<Sampling>,
}

/// Which version of HTTP is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// By ALPN, or by the first bytes.
    #[default]
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2 (in plaintext with prior knowledge).
    Http2,
    /// HTTP/3.
    Http3,
}

/// Where the routes are.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// Here.
    Inline(Arc<RouteTable>),
    /// In [`Config::routes`](super::Config::routes).
    Named(Arc<str>),
    /// By the request's headers.
    Scoped(Arc<super::ScopedRoutes>),
}

/// Which addresses count as internal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InternalAddresses {
    /// Unix sockets count.
    pub unix_sockets: bool,
    /// Ranges; empty: none.
    pub ranges: Box<[Cidr]>,
}

/// What is done with `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Xfcc {
    /// Removed.
    #[default]
    Sanitize,
    /// Passed on when the connection is mutual TLS.
    ForwardOnly,
    /// Appended to when the connection is mutual TLS.
    AppendForward,
    /// Replaced when the connection is mutual TLS.
    SanitizeSet,
    /// Passed on always.
    AlwaysForwardOnly,
}

/// What of the client's certificate is told. `By` and `Hash` always are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XfccDetails {
    /// Subject.
    pub subject: bool,
    /// Certificate, URL-encoded PEM.
    pub cert: bool,
    /// Chain, URL-encoded PEM.
    pub chain: bool,
    /// DNS names.
    pub dns: bool,
    /// URI name.
    pub uri: bool,
}

/// Normalisation of paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathSettings {
    /// As RFC 3986 says: dot segments, unreserved characters decoded, backslashes turned.
    pub normalize: bool,
    /// Adjacent slashes become one.
    pub merge_slashes: bool,
    /// What is done about `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// What is done about `%2F` and `%5C` in paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum EscapedSlashes {
    /// Kept.
    #[default]
    Keep,
    /// 400.
    Reject,
    /// 307 to the path with them decoded.
    Redirect,
    /// Decoded.
    Unescape,
}

/// What of the host's port is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PortStripping {
    /// Nothing.
    #[default]
    Keep,
    /// The listener's port.
    Matching,
    /// Any port.
    Any,
}

/// When `server` is put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ServerHeader {
    /// Always.
    #[default]
    Overwrite,
    /// When the upstream put none.
    AppendIfAbsent,
    /// Never.
    PassThrough,
}

/// `:scheme` for upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemeOverwrite {
    /// This one.
    Fixed(crate::head::Scheme),
    /// That of the upstream's transport.
    MatchUpstream,
}

/// Clocks. `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection without requests; one hour.
    pub idle: Option<Duration>,
    /// A connection drains after so long.
    pub max_connection: Option<Duration>,
    /// No request lives longer (a route may say otherwise).
    pub max_stream: Option<Duration>,
    /// Nothing moves on a stream; five minutes.
    pub stream_idle: Option<Duration>,
    /// The whole request must have come.
    pub request: Option<Duration>,
    /// The request's head must have come.
    pub request_headers: Option<Duration>,
    /// Between the two GOAWAYs when draining; five seconds.
    pub drain: Duration,
    /// Before a connection that is being closed is cut; one second.
    pub delayed_close: Duration,
}

/// Bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Kilobytes of the request's head; 60.
    pub headers_kb: u32,
    /// Headers of a request; 100.
    pub headers: u32,
    /// Requests per connection; 0: any number.
    pub requests_per_connection: u32,
    /// What is done about names with underscores.
    pub underscores: Underscores,
}

/// What is done about header names with underscores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Underscores {
    /// They pass.
    #[default]
    Allow,
    /// 400.
    Reject,
    /// They are left out.
    Drop,
}

/// An upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// `websocket`, `CONNECT` …; compared without regard to case.
    pub kind: Arc<str>,
    /// Allowed.
    pub enabled: bool,
}

/// `x-request-id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// One is made when there is none.
    pub generate: bool,
    /// An edge keeps what the client sent.
    pub preserve_external: bool,
    /// It is put into responses.
    pub in_response: bool,
    /// The trace decision is written into the id (UUIDs only).
    pub pack_trace_reason: bool,
    /// The id's number decides about sampling, so that all proxies on the way decide alike.
    pub samples: bool,
}

/// Which requests are traced, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sampling {
    /// Of those whose client asks by `x-client-trace-id`.
    pub client: u32,
    /// Of those that nobody asks for.
    pub random: u32,
    /// Of those that would be traced.
    pub overall: u32,
}

/// HTTP/1 details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Settings {
    /// HTTP/1.0 is served; otherwise 426.
    pub accept_http_10: bool,
    /// Host of HTTP/1.0 requests that name none.
    pub default_host: Option<HeaderValue>,
    /// Trailers pass.
    pub enable_trailers: bool,
    /// Names as `Proper-Case` in responses.
    pub proper_case: bool,
    /// Names as they came.
    pub preserve_case: bool,
    /// Content-Length beside Transfer-Encoding passes (and is removed); otherwise 400.
    pub allow_chunked_length: bool,
    /// Absolute URLs in request lines are understood (always true in Envoy since 2021).
    pub allow_absolute_url: bool,
    /// HTTP/2-only methods and unknown methods are allowed.
    pub allow_custom_methods: bool,
}

/// HTTP/2 details, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Settings {
    /// Bytes of the header table; 4096.
    pub header_table_size: u32,
    /// Streams at once; `None`: the I/O layer's safe default.
    pub max_streams: Option<u32>,
    /// Window per stream.
    pub stream_window: Option<u32>,
    /// Window per connection.
    pub connection_window: Option<u32>,
    /// Extended CONNECT (RFC 8441).
    pub allow_connect: bool,
    /// Invalid messages end the stream only.
    pub stream_error_on_invalid: bool,
    /// PING after so much silence, and how long the answer may take.
    pub keepalive: Option<(Duration, Duration)>,
    /// Outbound frames queued before the connection is ended as a flood; `None`: the I/O layer's default.
    pub max_outbound_frames: Option<u32>,
}

/// HTTP/3 details.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http3Settings {
    /// Streams at once.
    pub max_streams: Option<u32>,
    /// Window per stream.
    pub stream_window: Option<u32>,
    /// Window per connection.
    pub connection_window: Option<u32>,
    /// Extended CONNECT.
    pub allow_connect: bool,
    /// A peer that is not heard of for so long is gone. `None`: as its place says.
    pub idle: Option<Duration>,
    /// Pause after which a silent connection is asked whether it lives (towards endpoints).
    pub keepalive: Option<Duration>,
}
