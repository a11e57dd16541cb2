//! Routes: what is matched and where it goes.

use super::{ExportTo, Meta, NamedRef};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tombolo_federation_model::{Host, Labels, Namespace};

/// Where a set of routes is in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Attachment {
    /// At the sidecars of the mesh.
    Mesh,
    /// At a gateway object; `section` narrows it to one listener by name (Gateway API), `port` to one port.
    Gateway {
        /// The gateway object.
        gateway: NamedRef,
        /// Listener name.
        section: Option<String>,
        /// Listener port.
        port: Option<u16>,
    },
}

/// Routes for a set of hosts (a VirtualService, an HTTPRoute, a GRPCRoute …).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    /// Identity of the object.
    pub meta: Meta,
    /// Fully qualified hosts; short names were completed with the object's namespace. Never empty, except for a delegate.
    pub hosts: Vec<Host>,
    /// Where it is in force; never empty, except for a delegate.
    pub attachments: Vec<Attachment>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// How several objects for one host at one gateway combine.
    pub precedence: Precedence,
    /// HTTP rules, in order.
    pub http: Vec<HttpRule>,
    /// Rules for TLS that is passed through, in order.
    pub tls: Vec<TlsRule>,
    /// Rules for plain connections, in order.
    pub tcp: Vec<TcpRule>,
}

/// How rules of several objects for one host combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precedence {
    /// Object by object in merge order, rules in their order, catch-all rules last (VirtualService).
    ObjectOrder,
    /// The most specific match of any object first (Gateway API).
    MostSpecific,
}

/// One HTTP rule: if any match applies (or there is none), do the action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpRule {
    /// Name given by the user, or empty.
    pub name: String,
    /// Path of the rule in the object, for diagnostics, for example `spec.http[0]`.
    pub field: String,
    /// Alternatives; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// What to do.
    pub action: HttpAction,
    /// Total time for a request with all its retries; `None` or zero means no limit.
    pub timeout: Option<Duration>,
    /// `None` means the mesh default; `attempts == 0` turns retries off.
    pub retry: Option<RetryPolicy>,
    /// Faults injected before the request is forwarded.
    pub fault: Option<Fault>,
    /// Copies sent elsewhere.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy.
    pub cors: Option<Cors>,
    /// Header changes.
    pub headers: HeaderChanges,
    /// Rules that another object supplies.
    pub delegate: Option<NamedRef>,
}

/// What an HTTP rule does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HttpAction {
    /// Forward, after rewriting. An empty list answers 500 (a rule whose references are all invalid), or is a delegate's root.
    Forward {
        /// Where to, by weight.
        backends: Vec<HttpBackend>,
        /// Changes of path and authority.
        rewrite: Rewrite,
    },
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer at once.
    Respond {
        /// Status code.
        status: u16,
        /// Body.
        body: Vec<u8>,
    },
}

/// One weighted destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpBackend {
    /// The service.
    pub destination: Target,
    /// Relative share; a single backend's weight does not matter.
    pub weight: u32,
    /// Header changes for requests that go here.
    pub headers: HeaderChanges,
}

/// A service, or a subset of it, on a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Fully qualified host.
    pub host: Host,
    /// Named subset of a destination rule.
    pub subset: Option<String>,
    /// `None` is fine for services with one port.
    pub port: Option<u16>,
}

/// A text test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextMatch {
    /// Equal.
    Exact(String),
    /// Begins with, as text.
    Prefix(String),
    /// Begins with, by whole path segments, a trailing slash ignored (Gateway API).
    SegmentPrefix(String),
    /// The whole text matches (RE2 syntax, checked).
    Regex(String),
    /// There is a value.
    Present,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpMatch {
    /// Name given by the user, or empty.
    pub name: String,
    /// Path without query.
    pub path: Option<TextMatch>,
    /// Path comparison ignores case.
    pub ignore_path_case: bool,
    /// `http` or `https`.
    pub scheme: Option<TextMatch>,
    /// Method.
    pub method: Option<TextMatch>,
    /// Host header; may hold a port.
    pub authority: Option<TextMatch>,
    /// By lower-case name.
    pub headers: BTreeMap<String, TextMatch>,
    /// These must not match.
    pub without_headers: BTreeMap<String, TextMatch>,
    /// By name.
    pub query: BTreeMap<String, TextMatch>,
    /// Port on which the request arrived, or for which it is meant.
    pub port: Option<u16>,
    /// Labels of the client's workload; not at gateways.
    pub source_labels: Labels,
    /// Namespace of the client's workload.
    pub source_namespace: Option<Namespace>,
    /// Only at these attachments of the object; empty means all.
    pub attachments: Vec<Attachment>,
}

/// Changes of path and authority on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The path.
    pub path: Option<PathRewrite>,
    /// The Host header.
    pub authority: Option<String>,
}

/// How a path is rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathRewrite {
    /// The matched prefix, or for other matches the whole path, becomes this.
    Prefix(String),
    /// The matched segments become this (Gateway API's ReplacePrefixMatch).
    SegmentPrefix(String),
    /// The whole path becomes this.
    Full(String),
    /// What matches becomes the substitution (`\1` refers to a group).
    Regex {
        /// RE2 syntax.
        pattern: String,
        /// Replacement.
        substitution: String,
    },
}

/// A redirect answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// New path.
    pub path: Option<PathRewrite>,
    /// New host.
    pub authority: Option<String>,
    /// New port.
    pub port: RedirectPort,
    /// New scheme.
    pub scheme: Option<String>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Which port a redirect names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedirectPort {
    /// Left as it follows from scheme and authority.
    Unset,
    /// This one.
    Number(u16),
    /// The default port of the scheme.
    FromProtocol,
    /// The port on which the request came.
    FromRequest,
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Retries, not counting the first attempt.
    pub attempts: u32,
    /// Time for each attempt.
    pub per_try_timeout: Option<Duration>,
    /// Conditions by Envoy's names; empty means the mesh default.
    pub on: Vec<String>,
    /// Statuses that are retried.
    pub statuses: Vec<u16>,
    /// Prefer endpoints of other localities on a retry.
    pub remote_localities: Option<bool>,
    /// Do not go to an endpoint that failed before.
    pub ignore_previous_hosts: Option<bool>,
    /// First pause.
    pub backoff: Option<Duration>,
}

/// Part of the requests, in millionths: exact for every percentage that the APIs can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fraction(pub u32);

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);
}

/// Injected faults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Wait before forwarding.
    pub delay: Option<(Duration, Fraction)>,
    /// Answer instead of forwarding.
    pub abort: Option<(Abort, Fraction)>,
}

/// The answer of an injected abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}

/// A copy of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Where to.
    pub destination: Target,
    /// How many.
    pub fraction: Fraction,
}

/// Cross-origin policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// Origins.
    pub allow_origins: Vec<TextMatch>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Request headers.
    pub allow_headers: Vec<String>,
    /// Response headers.
    pub expose_headers: Vec<String>,
    /// How long a preflight may be remembered; whole seconds.
    pub max_age: Option<Duration>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// Whether a preflight of another origin goes on to the backend.
    pub forward_unmatched_preflights: bool,
}

/// Header changes, in the order: remove, set, add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderChanges {
    /// Of the request.
    pub request: HeaderEdit,
    /// Of the response.
    pub response: HeaderEdit,
}

/// Changes of one header map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderEdit {
    /// Replace or add.
    pub set: BTreeMap<String, String>,
    /// Append.
    pub add: BTreeMap<String, String>,
    /// Remove.
    pub remove: Vec<String>,
}

/// Routing of TLS that is not terminated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsRule {
    /// Path of the rule in the object.
    pub field: String,
    /// Alternatives; never empty.
    pub matches: Vec<TlsMatch>,
    /// Where to, by weight per connection.
    pub backends: Vec<TcpBackend>,
}

/// Conditions on a TLS connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsMatch {
    /// Server names; never empty.
    pub sni_hosts: Vec<Host>,
    /// The connection's conditions.
    pub connection: TcpMatch,
}

/// Routing of plain connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcpRule {
    /// Path of the rule in the object.
    pub field: String,
    /// Alternatives; empty matches everything.
    pub matches: Vec<TcpMatch>,
    /// Where to, by weight per connection.
    pub backends: Vec<TcpBackend>,
}

/// Conditions on a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpMatch {
    /// Networks of the destination address.
    pub destination_subnets: Vec<ipnet::IpNet>,
    /// Port for which it is meant.
    pub port: Option<u16>,
    /// Labels of the client's workload.
    pub source_labels: Labels,
    /// Namespace of the client's workload.
    pub source_namespace: Option<Namespace>,
    /// Only at these attachments; empty means all.
    pub attachments: Vec<Attachment>,
}

/// A weighted destination of connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpBackend {
    /// The service.
    pub destination: Target,
    /// Relative share.
    pub weight: u32,
}
