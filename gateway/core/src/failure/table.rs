//! Owns the table from a kind of failure to everything that clients, logs and metrics see of it.
//!
//! Never used directly: `Failure` reads it. Bodies and details are what Envoy sends, so that alerts and scripts written
//! for it keep working.

use super::{Flag, Kind, Side};

pub(super) struct Row {
    pub(super) side: Side,
    /// 0 where no reply can be sent.
    pub(super) status: u16,
    pub(super) flag: Option<Flag>,
    /// Response code details; unused where `reset` is set.
    pub(super) details: &'static str,
    /// Body of the reply; unused where `reset` is set.
    pub(super) body: &'static str,
    /// The reason of a stream reset: such failures share one pattern of details and body.
    pub(super) reset: Option<&'static str>,
    /// gRPC status where it does not follow from the HTTP status.
    pub(super) grpc: Option<u8>,
    pub(super) header: Option<&'static str>,
    pub(super) label: &'static str,
}

const DEADLINE_EXCEEDED: u8 = 4;

const fn reply(side: Side, label: &'static str, status: u16, details: &'static str, body: &'static str) -> Row {
    Row { side, status, flag: None, details, body, reset: None, grpc: None, header: None, label }
}

const fn client(label: &'static str, status: u16, details: &'static str, body: &'static str) -> Row {
    reply(Side::Downstream, label, status, details, body)
}

const fn local(label: &'static str, status: u16, details: &'static str, body: &'static str) -> Row {
    reply(Side::Local, label, status, details, body)
}

const fn reset(side: Side, label: &'static str, flag: Flag, reason: &'static str) -> Row {
    Row { flag: Some(flag), reset: Some(reason), ..reply(side, label, 503, "", "") }
}

impl Row {
    const fn flag(self, flag: Flag) -> Row {
        Row { flag: Some(flag), ..self }
    }

    const fn grpc(self, status: u8) -> Row {
        Row { grpc: Some(status), ..self }
    }

    const fn header(self, name: &'static str) -> Row {
        Row { header: Some(name), ..self }
    }

    const fn status(self, status: u16) -> Row {
        Row { status, ..self }
    }
}

/// The one table. A new kind does not compile until it has a row.
pub(super) const fn row(kind: Kind) -> Row {
    match kind {
        Kind::MalformedRequest => {
            client("malformed_request", 400, "http1.codec_error", "Bad Request").flag(Flag::DownstreamProtocolError)
        }
        Kind::HeadersTooLarge => {
            client("headers_too_large", 431, "http1.headers_too_large", "Request Header Fields Too Large")
                .flag(Flag::DownstreamProtocolError)
        }
        Kind::TooManyHeaders => {
            client("too_many_headers", 431, "http1.too_many_headers", "Request Header Fields Too Large")
                .flag(Flag::DownstreamProtocolError)
        }
        Kind::UnsupportedTransferEncoding => {
            client("transfer_encoding", 501, "http1.invalid_transfer_encoding", "Not Implemented")
                .flag(Flag::DownstreamProtocolError)
        }
        Kind::VersionTooLow => {
            client("version_too_low", 426, "low_version", "Upgrade Required").flag(Flag::DownstreamProtocolError)
        }
        Kind::MissingHost => client("missing_host", 400, "missing_host_header", ""),
        Kind::MissingPath => client("missing_path", 404, "missing_path_rejected", ""),
        Kind::AbsolutePath => client("absolute_path", 404, "absolute_path_rejected", ""),
        Kind::InvalidPath => client("invalid_path", 400, "invalid_path", ""),
        Kind::PathNormalization => client("path_normalization", 400, "path_normalization_failed", ""),
        Kind::PathRedirect => client("path_redirect", 307, "path_normalization_failed", ""),
        Kind::UpgradeRefused => client("upgrade_refused", 403, "upgrade_failed", ""),
        Kind::HandshakeFailed => local("websocket_handshake", 200, "websocket_handshake_unsuccessful", ""),
        Kind::InvalidEnvoyHeader => client("invalid_envoy_header", 400, "request_headers_failed_strict_check", "")
            .flag(Flag::InvalidEnvoyRequestHeaders),
        Kind::RequestTooLarge => client("request_too_large", 413, "request_payload_too_large", "Payload Too Large"),
        Kind::DownstreamDisconnect => client("downstream_disconnect", 0, "downstream_remote_disconnect", "")
            .flag(Flag::DownstreamConnectionTermination),
        Kind::DownstreamReset => {
            client("downstream_reset", 0, "http2.remote_reset", "").flag(Flag::DownstreamRemoteReset)
        }
        Kind::RequestHeaderTimeout => {
            client("request_header_timeout", 408, "request_header_timeout", "request header timeout")
        }
        Kind::RequestTimeout => client("request_timeout", 408, "request_overall_timeout", "request timeout"),
        Kind::StreamIdleTimeout => {
            client("stream_idle_timeout", 504, "stream_idle_timeout", "stream timeout").flag(Flag::StreamIdleTimeout)
        }
        Kind::MaxStreamDuration => {
            client("max_stream_duration", 504, "max_duration_timeout", "downstream duration timeout")
                .grpc(DEADLINE_EXCEEDED)
        }
        Kind::ConnectionDuration => {
            client("connection_duration", 0, "duration_timeout", "").flag(Flag::DurationTimeout)
        }

        Kind::RouteConfigMissing => {
            local("route_config_missing", 404, "route_configuration_not_found", "").flag(Flag::NoRouteFound)
        }
        Kind::NoRoute => local("no_route", 404, "route_not_found", "").flag(Flag::NoRouteFound),
        Kind::NoCluster => local("no_cluster", 503, "cluster_not_found", "").flag(Flag::NoClusterFound),
        Kind::NoHealthyUpstream => local("no_healthy_upstream", 503, "no_healthy_upstream", "no healthy upstream")
            .flag(Flag::NoHealthyUpstream),
        Kind::Maintenance => local("maintenance", 503, "maintenance_mode", "maintenance mode")
            .flag(Flag::UpstreamOverflow)
            .header("x-envoy-overloaded"),
        Kind::DropOverload => local("drop_overload", 503, "drop_overload", "drop overload")
            .flag(Flag::DropOverload)
            .header("x-envoy-drop-overload"),
        Kind::UnconditionalDropOverload => {
            local("unconditional_drop_overload", 503, "unconditional_drop_overload", "unconditional drop overload")
                .flag(Flag::UnconditionalDropOverload)
                .header("x-envoy-unconditional-drop-overload")
        }
        Kind::Overflow => {
            reset(Side::Local, "overflow", Flag::UpstreamOverflow, "overflow").header("x-envoy-overloaded")
        }
        Kind::Overload => local("overload", 503, "overload", "envoy overloaded").flag(Flag::OverloadManagerTerminated),
        Kind::RetryBufferExceeded => local(
            "retry_buffer_exceeded",
            507,
            "request_payload_exceeded_retry_buffer_limit",
            "exceeded request buffer limit while retrying upstream",
        ),
        Kind::ResponseTooLarge => {
            local("response_too_large", 500, "response_payload_too_large", "Internal Server Error")
        }
        Kind::AccessDenied => {
            local("access_denied", 403, "rbac_access_denied_matched_policy[none]", "RBAC: access denied")
        }
        Kind::ForeignOrigin => local("foreign_origin", 403, "csrf_origin_mismatch", "Invalid origin"),
        Kind::Unauthenticated => local("unauthenticated", 401, "jwt_authn_access_denied", "Jwt is missing"),
        Kind::ExternalAuthorizationDenied => {
            local("ext_authz_denied", 403, "ext_authz_denied", "").flag(Flag::UnauthorizedExternalService)
        }
        Kind::ExternalAuthorizationError => {
            local("ext_authz_error", 403, "ext_authz_error", "").flag(Flag::UnauthorizedExternalService)
        }
        Kind::RateLimited => {
            local("rate_limited", 429, "local_rate_limited", "local_rate_limited").flag(Flag::RateLimited)
        }
        Kind::GlobalRateLimited => local("global_rate_limited", 429, "request_rate_limited", "")
            .flag(Flag::RateLimited)
            .header("x-envoy-ratelimited"),
        Kind::RateLimitServiceError => {
            local("rate_limit_error", 500, "rate_limiter_error", "").flag(Flag::RateLimitServiceError)
        }
        Kind::FaultInjected => {
            local("fault_injected", 503, "fault_filter_abort", "fault filter abort").flag(Flag::FaultInjected)
        }
        Kind::CsrfRefused => local("csrf_refused", 403, "csrf_origin_mismatch", "Invalid origin"),
        Kind::NoFilterConfig => {
            local("no_filter_config", 500, "filter_config_not_found", "").flag(Flag::NoFilterConfigFound)
        }
        Kind::FailedHealthCheck => {
            local("failed_health_check", 503, "health_check_failed", "").flag(Flag::FailedLocalHealthCheck)
        }
        Kind::LocalReset => reset(Side::Local, "local_reset", Flag::LocalReset, "local reset"),

        Kind::ConnectFailure => {
            upstream("connect_failure", Flag::UpstreamConnectionFailure, "remote connection failure")
        }
        Kind::ConnectTimeout => upstream("connect_timeout", Flag::UpstreamConnectionFailure, "connection timeout"),
        Kind::LocalConnectFailure => {
            upstream("local_connect_failure", Flag::UpstreamConnectionFailure, "local connection failure")
        }
        Kind::UpstreamClosed => {
            upstream("upstream_closed", Flag::UpstreamConnectionTermination, "connection termination")
        }
        Kind::UpstreamReset => upstream("upstream_reset", Flag::UpstreamRemoteReset, "remote reset"),
        Kind::UpstreamRefusedStream => {
            upstream("upstream_refused_stream", Flag::UpstreamRemoteReset, "remote refused stream reset")
        }
        Kind::UpstreamConnectError => {
            upstream("upstream_connect_error", Flag::UpstreamRemoteReset, "remote error with CONNECT request")
        }
        Kind::UpstreamProtocol => {
            upstream("upstream_protocol", Flag::UpstreamProtocolError, "protocol error").status(502)
        }
        Kind::UpstreamTimeout => timeout("upstream_timeout", "response_timeout", "upstream request timeout"),
        Kind::PerTryTimeout => timeout("per_try_timeout", "upstream_per_try_timeout", "upstream request timeout"),
        Kind::PerTryIdleTimeout => {
            timeout("per_try_idle_timeout", "upstream_per_try_idle_timeout", "upstream request timeout")
                .flag(Flag::StreamIdleTimeout)
        }
        Kind::UpstreamMaxStreamDuration => timeout(
            "upstream_max_stream_duration",
            "upstream_max_stream_duration_reached",
            "upstream max stream duration reached",
        )
        .flag(Flag::UpstreamMaxStreamDurationReached),
        Kind::DnsFailure => {
            reply(Side::Upstream, "dns_failure", 503, "dns_resolution_failure", "DNS resolution failure")
                .flag(Flag::DnsResolutionFailed)
        }
    }
}

const fn upstream(label: &'static str, flag: Flag, reason: &'static str) -> Row {
    reset(Side::Upstream, label, flag, reason)
}

const fn timeout(label: &'static str, details: &'static str, body: &'static str) -> Row {
    reply(Side::Upstream, label, 504, details, body).flag(Flag::UpstreamRequestTimeout)
}
