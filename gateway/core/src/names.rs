//! Header names that are not in the `http` crate's list, written once.

use http::{HeaderMap, HeaderName, HeaderValue};

macro_rules! names {
    ($($constant:ident = $text:literal),* $(,)?) => {
        $(
            #[doc = concat!("`", $text, "`")]
            pub const $constant: HeaderName = HeaderName::from_static($text);
        )*
    };
}

names! {
    PROXY_CONNECTION = "proxy-connection",
    KEEP_ALIVE = "keep-alive",
    HTTP2_SETTINGS = "http2-settings",
    X_FORWARDED_FOR = "x-forwarded-for",
    X_FORWARDED_PROTO = "x-forwarded-proto",
    X_FORWARDED_HOST = "x-forwarded-host",
    X_FORWARDED_PORT = "x-forwarded-port",
    X_FORWARDED_CLIENT_CERT = "x-forwarded-client-cert",
    X_REQUEST_ID = "x-request-id",
    X_CLIENT_TRACE_ID = "x-client-trace-id",
    X_ENVOY_INTERNAL = "x-envoy-internal",
    X_ENVOY_EXTERNAL_ADDRESS = "x-envoy-external-address",
    X_ENVOY_DECORATOR_OPERATION = "x-envoy-decorator-operation",
    X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER = "x-envoy-downstream-service-cluster",
    X_ENVOY_DOWNSTREAM_SERVICE_NODE = "x-envoy-downstream-service-node",
    X_ENVOY_RETRIABLE_STATUS_CODES = "x-envoy-retriable-status-codes",
    X_ENVOY_RETRIABLE_HEADER_NAMES = "x-envoy-retriable-header-names",
    X_ENVOY_RETRY_ON = "x-envoy-retry-on",
    X_ENVOY_RETRY_GRPC_ON = "x-envoy-retry-grpc-on",
    X_ENVOY_MAX_RETRIES = "x-envoy-max-retries",
    X_ENVOY_UPSTREAM_ALT_STAT_NAME = "x-envoy-upstream-alt-stat-name",
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS = "x-envoy-upstream-rq-timeout-ms",
    X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS = "x-envoy-upstream-rq-per-try-timeout-ms",
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE = "x-envoy-upstream-rq-timeout-alt-response",
    X_ENVOY_UPSTREAM_STREAM_DURATION_MS = "x-envoy-upstream-stream-duration-ms",
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS = "x-envoy-expected-rq-timeout-ms",
    X_ENVOY_FORCE_TRACE = "x-envoy-force-trace",
    X_ENVOY_IP_TAGS = "x-envoy-ip-tags",
    X_ENVOY_ORIGINAL_URL = "x-envoy-original-url",
    X_ENVOY_ORIGINAL_PATH = "x-envoy-original-path",
    X_ENVOY_ORIGINAL_HOST = "x-envoy-original-host",
    X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT = "x-envoy-hedge-on-per-try-timeout",
    X_ENVOY_ATTEMPT_COUNT = "x-envoy-attempt-count",
    X_ENVOY_IS_TIMEOUT_RETRY = "x-envoy-is-timeout-retry",
    X_ENVOY_UPSTREAM_SERVICE_TIME = "x-envoy-upstream-service-time",
    X_ENVOY_UPSTREAM_CANARY = "x-envoy-upstream-canary",
    X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL = "x-envoy-immediate-health-check-fail",
    X_ENVOY_ORIGINAL_DST_HOST = "x-envoy-original-dst-host",
    X_ENVOY_FAULT_DELAY_REQUEST = "x-envoy-fault-delay-request",
    X_ENVOY_FAULT_DELAY_REQUEST_PERCENTAGE = "x-envoy-fault-delay-request-percentage",
    X_ENVOY_FAULT_ABORT_REQUEST = "x-envoy-fault-abort-request",
    X_ENVOY_FAULT_ABORT_GRPC_REQUEST = "x-envoy-fault-abort-grpc-request",
    X_ENVOY_FAULT_ABORT_REQUEST_PERCENTAGE = "x-envoy-fault-abort-request-percentage",
    X_ENVOY_FAULT_THROUGHPUT_RESPONSE = "x-envoy-fault-throughput-response",
    X_ENVOY_FAULT_THROUGHPUT_RESPONSE_PERCENTAGE = "x-envoy-fault-throughput-response-percentage",
    X_RATELIMIT_LIMIT = "x-ratelimit-limit",
    X_RATELIMIT_REMAINING = "x-ratelimit-remaining",
    X_RATELIMIT_RESET = "x-ratelimit-reset",
    GRPC_TIMEOUT = "grpc-timeout",
    GRPC_ACCEPT_ENCODING = "grpc-accept-encoding",
    X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER = "x-envoy-upstream-healthchecked-cluster",
    PRIVATE_NETWORK_REQUESTED = "access-control-request-private-network",
    PRIVATE_NETWORK_ALLOWED = "access-control-allow-private-network",
}

/// Whether any name begins with `x-envoy-`. Nearly no request has one, and one pass over its few names costs less than a single lookup,
/// which hashes the name that it looks for.
pub(crate) fn any_envoy(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().as_bytes().first_chunk() == Some(b"x-envoy-"))
}

/// Whether there is a header that is meant for one connection alone; one pass as in [`any_envoy`].
pub(crate) fn any_hop_by_hop(headers: &HeaderMap) -> bool {
    Present::of(headers).has(Present::HOP_BY_HOP)
}

/// Which of the headers that need work may be there: what is not said to be there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Present(u8);

impl Present {
    /// Any that is meant for one connection alone.
    pub(crate) const HOP_BY_HOP: Self = Self(1);
    /// Any whose name begins with `x-envoy-`.
    pub(crate) const ENVOY: Self = Self(2);
    /// `expect`
    pub(crate) const EXPECT: Self = Self(4);
    /// `x-forwarded-for`
    pub(crate) const FORWARDED_FOR: Self = Self(8);
    /// `x-forwarded-proto`
    pub(crate) const FORWARDED_PROTO: Self = Self(16);
    /// `x-forwarded-client-cert`
    pub(crate) const CLIENT_CERT: Self = Self(32);
    /// `x-request-id`
    pub(crate) const REQUEST_ID: Self = Self(64);

    /// One pass over the names.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |found, name| found | Self::one(name.as_str()).0))
    }

    fn one(name: &str) -> Self {
        match name {
            "connection" | "upgrade" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "te" => {
                Self::HOP_BY_HOP
            }
            "expect" => Self::EXPECT,
            "x-forwarded-for" => Self::FORWARDED_FOR,
            "x-forwarded-proto" => Self::FORWARDED_PROTO,
            "x-forwarded-client-cert" => Self::CLIENT_CERT,
            "x-request-id" => Self::REQUEST_ID,
            _ if name.starts_with("x-envoy-") => Self::ENVOY,
            _ => Self(0),
        }
    }

    /// Whether it may be there.
    pub(crate) const fn has(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }
}

/// A number as a value; small ones without an allocation.
pub(crate) fn number(number: u64) -> HeaderValue {
    const SMALL: [&str; 20] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"];
    match usize::try_from(number).ok().and_then(|at| SMALL.get(at)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(number),
    }
}
