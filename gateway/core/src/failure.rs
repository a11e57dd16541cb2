//! Owns what a failed request looks like: who failed, how, and whether another try is safe.
//!
//! Never decides whether a retry happens (that is `attempt`) and never writes to a socket. Used by every part of the
//! gateway that can refuse or lose a request: status code, response flag, code details, body, gRPC status and metric
//! label come from the one table in this file, so they cannot disagree.

mod flags;
mod table;
#[cfg(test)]
mod tests;

pub use flags::{Flag, Flags};

use table::{Row, row};

/// The party at which a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client: it sent something wrong, went away, or was too slow.
    Downstream,
    /// This gateway: its configuration, limits or policies said no.
    Local,
    /// The server or the path to it.
    Upstream,
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    // Downstream: malformed or unacceptable requests.
    /// The bytes are not HTTP, or are HTTP that the RFCs forbid.
    MalformedRequest,
    /// The header section is larger than allowed.
    HeadersTooLarge,
    /// The header section has more fields than allowed.
    TooManyHeaders,
    /// A transfer coding other than `chunked`.
    UnsupportedTransferEncoding,
    /// HTTP/1.0 or older where only HTTP/1.1 is accepted.
    VersionTooLow,
    /// No `host` or `:authority`.
    MissingHost,
    /// No path where one is needed.
    MissingPath,
    /// `*` or an absolute form where no route can take it.
    AbsolutePath,
    /// A path with bytes or escapes that are refused.
    InvalidPath,
    /// Path normalisation was asked for and failed.
    PathNormalization,
    /// Path normalisation asks the client to use another path.
    PathRedirect,
    /// An upgrade that no route enables.
    UpgradeRefused,
    /// The upstream answered a WebSocket handshake as if it were a request.
    HandshakeFailed,
    /// An `x-envoy-*` header failed the strict check.
    InvalidEnvoyHeader,
    /// The body is larger than a filter may buffer.
    RequestTooLarge,
    /// The client closed its connection.
    DownstreamDisconnect,
    /// The client reset its stream.
    DownstreamReset,
    /// The request head took too long to arrive.
    RequestHeaderTimeout,
    /// The whole request took too long to arrive.
    RequestTimeout,
    /// Nothing moved on the stream for too long.
    StreamIdleTimeout,
    /// The stream lived for longer than allowed.
    MaxStreamDuration,
    /// The connection lived for longer than allowed.
    ConnectionDuration,

    // Local: what this gateway knows or was told.
    /// There is no route configuration yet.
    RouteConfigMissing,
    /// No virtual host or route matches.
    NoRoute,
    /// The route names an upstream that does not exist.
    NoCluster,
    /// The upstream has no host that may be used.
    NoHealthyUpstream,
    /// The upstream is in maintenance mode.
    Maintenance,
    /// The control plane asked to drop part of the load.
    DropOverload,
    /// The control plane asked to drop all of the load.
    UnconditionalDropOverload,
    /// A circuit breaker is open: connections, pending requests or requests.
    Overflow,
    /// The gateway itself is out of a resource.
    Overload,
    /// The body outgrew the buffer that a retry would need.
    RetryBufferExceeded,
    /// The response is larger than a filter may buffer.
    ResponseTooLarge,
    /// Access rules refuse the caller.
    AccessDenied,
    /// A page of another origin sent a request that changes something.
    ForeignOrigin,
    /// The caller has no acceptable token.
    Unauthenticated,
    /// An external authorizer refused.
    ExternalAuthorizationDenied,
    /// An external authorizer could not be asked.
    ExternalAuthorizationError,
    /// The local rate limit is used up.
    RateLimited,
    /// The global rate limit is used up.
    GlobalRateLimited,
    /// The rate limit service could not be asked.
    RateLimitServiceError,
    /// A configured fault ended the request.
    FaultInjected,
    /// The origin is not allowed to send this request.
    CsrfRefused,
    /// A filter's configuration never arrived.
    NoFilterConfig,
    /// This gateway reports itself as unhealthy.
    FailedHealthCheck,
    /// This gateway ended the stream.
    LocalReset,

    // Upstream.
    /// The server refused or could not be reached.
    ConnectFailure,
    /// The server did not accept in time.
    ConnectTimeout,
    /// The connection could not be opened for a reason on this machine.
    LocalConnectFailure,
    /// The connection ended before the response did.
    UpstreamClosed,
    /// The server reset the stream.
    UpstreamReset,
    /// The server reset the stream and promised not to have looked at the request.
    UpstreamRefusedStream,
    /// The server answered a CONNECT with an error of the tunnel.
    UpstreamConnectError,
    /// The server sent what is not HTTP.
    UpstreamProtocol,
    /// No complete response within the route's timeout.
    UpstreamTimeout,
    /// No response within the timeout of one try.
    PerTryTimeout,
    /// Nothing from the server within the idle timeout of one try.
    PerTryIdleTimeout,
    /// The upstream's own limit on the life of a stream.
    UpstreamMaxStreamDuration,
    /// The name of the server does not resolve.
    DnsFailure,
}

/// One failed request, or one failed try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The party at which it failed.
    pub side: Side,
    /// How it failed.
    pub kind: Kind,
    status: Option<u16>,
    reason: Option<Box<str>>,
}

impl Failure {
    /// The failure as the table has it.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let row = row(kind);
        Self { side: row.side, kind, status: None, reason: None }
    }

    /// The same with the status that configuration asks for (an unknown cluster's, an injected fault's).
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The same with more to say: for upstream kinds the transport's own words, otherwise the exact code details
    /// (`http1.codec_error`).
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<Box<str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// HTTP status of the reply; 0 where no reply can be sent.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(row(self.kind).status)
    }

    /// What the access log and `%RESPONSE_FLAGS%` show.
    #[must_use]
    pub fn flag(&self) -> Option<Flag> {
        row(self.kind).flag
    }

    /// Value of the `kind` label of metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        row(self.kind).label
    }

    /// The transport's own words, where there are any (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
    #[must_use]
    pub fn transport_reason(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| row(self.kind).reset.is_some())
    }

    /// Status in the `grpc-status` of a gRPC request's reply.
    #[must_use]
    pub fn grpc_status(&self) -> u8 {
        row(self.kind).grpc.unwrap_or_else(|| grpc_from_http(self.status()))
    }

    /// A header that the reply carries besides the usual ones; its value is `true`.
    #[must_use]
    pub fn extra_header(&self) -> Option<&'static str> {
        row(self.kind).header
    }

    /// Whether this is a reset of a try, as opposed to a timeout or to a decision before any try.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        row(self.kind).reset.is_some()
    }

    /// Appends the response code details. `started` says that response headers had already gone downstream.
    pub fn write_details(&self, started: bool, out: &mut String) {
        let Row { reset, details, .. } = row(self.kind);
        let Some(reset) = reset else {
            out.push_str(self.reason.as_deref().unwrap_or(details));
            return;
        };
        out.push_str(if started {
            "upstream_reset_after_response_started{"
        } else {
            "upstream_reset_before_response_started{"
        });
        push_underscored(reset, out);
        if let Some(reason) = &self.reason {
            out.push('|');
            push_underscored(reason, out);
        }
        out.push('}');
    }

    /// The response code details as a fresh string, for places that are not hot.
    #[must_use]
    pub fn details(&self, started: bool) -> String {
        let mut out = String::new();
        self.write_details(started, &mut out);
        out
    }

    /// Appends the body of the reply. `retried` says that this was not the first try. The transport's own words stay in
    /// the log: they name addresses and certificates that are no client's business.
    pub fn write_body(&self, retried: bool, out: &mut String) {
        let Row { reset, body, .. } = row(self.kind);
        let Some(reset) = reset else {
            out.push_str(body);
            return;
        };
        out.push_str("upstream connect error or disconnect/reset before headers. ");
        if retried {
            out.push_str("retried and the latest ");
        }
        out.push_str("reset reason: ");
        out.push_str(reset);
    }

    /// The body of the reply as a fresh string.
    #[must_use]
    pub fn body(&self, retried: bool) -> String {
        let mut out = String::new();
        self.write_body(retried, &mut out);
        out
    }
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// The gRPC status that stands for an HTTP status when a gRPC request is answered without its server.
#[must_use]
pub fn grpc_from_http(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

fn push_underscored(text: &str, out: &mut String) {
    out.extend(text.chars().map(|c| if c.is_ascii_whitespace() { '_' } else { c }));
}
