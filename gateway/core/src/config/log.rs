//! Access logs as configured. `crate::accesslog` compiles and renders formats.

use super::{Fraction, HeaderMatcher, MetadataPlace, Value, ValueMatcher};
use std::sync::Arc;

/// One access log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where to.
    pub sink: LogSink,
    /// What is written.
    pub format: LogFormat,
    /// Which requests; `None`: all.
    pub filter: Option<LogFilter>,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogSink {
    /// A file, appended to.
    File(Arc<str>),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a line is. Operators have been checked: every one is known to `crate::accesslog`.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFormat {
    /// Envoy's default line.
    Default,
    /// Text with operators, written as it is (with its own line end).
    Text(Arc<str>),
    /// A JSON object per line whose texts hold operators; keys sorted, empty values left out when `omit_empty`.
    Json {
        /// The object ([`Value::Map`]).
        object: Value,
        /// Members without a value are left out instead of being `null`.
        omit_empty: bool,
    },
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComparisonOp {
    /// =
    Equal,
    /// ≠
    NotEqual,
    /// ≥
    AtLeast,
    /// ≤
    AtMost,
}

/// Which requests are logged.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFilter {
    /// By response code.
    Status(ComparisonOp, u32),
    /// By duration in milliseconds.
    Duration(ComparisonOp, u32),
    /// Health checks are left out.
    NotHealthCheck,
    /// Requests that are traced.
    Traceable,
    /// A share.
    Share(Fraction),
    /// By a request header.
    Header(HeaderMatcher),
    /// One of these response flags (`UF`, `URX` …); empty: any flag.
    Flags(Box<[Arc<str>]>),
    /// One of these gRPC codes; the second is true for "none of these".
    GrpcStatus(Box<[u16]>, bool),
    /// By what filters said of the request; when nothing is at the place the last one counts.
    Metadata(MetadataPlace, Option<ValueMatcher>, bool),
    /// All.
    And(Box<[LogFilter]>),
    /// Any.
    Or(Box<[LogFilter]>),
}
