//! Who may do what, as configured: role-based rules of HTTP and network filters.

use crate::config::{Cidr, HeaderMatcher, MetadataMatcher, Regex, StringMatcher};
use std::sync::Arc;

/// Rules of one place. Rules that are only counted ("shadow") are checked when they are read and then left out: there is nobody here
/// who counts.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessRules {
    /// `None`: everything is allowed.
    pub rules: Option<Rules>,
}

/// Rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What a policy that fits means.
    pub action: AccessAction,
    /// By name, sorted.
    pub policies: Box<[AccessPolicy]>,
}

/// What a policy that fits means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessAction {
    /// Only what fits is allowed.
    Allow,
    /// What fits is refused.
    Deny,
    /// Nothing.
    Log,
}

/// A policy: fits when one of each list does.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessPolicy {
    /// Its name.
    pub name: Arc<str>,
    /// What is done.
    pub permissions: Box<[Condition]>,
    /// Who does it.
    pub principals: Box<[Condition]>,
}

/// A condition on a request or a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// All of these.
    All(Box<[Condition]>),
    /// One of these.
    One(Box<[Condition]>),
    /// The opposite.
    Not(Box<Condition>),
    /// Always or never.
    Is(bool),
    /// A header.
    Header(HeaderMatcher),
    /// The path without its query.
    Path(StringMatcher),
    /// The path without its query, as a template.
    Template(Regex),
    /// Where the client was going.
    DestinationIp(Cidr),
    /// Its port, from this one up to, and without, that one.
    DestinationPort(u32, u32),
    /// SNI.
    ServerName(StringMatcher),
    /// The client of the connection.
    SourceIp(Cidr),
    /// The peer of the socket.
    DirectRemoteIp(Cidr),
    /// The client, also behind trusted proxies.
    RemoteIp(Cidr),
    /// The client showed a certificate that was verified, with such a name if there is a condition on it.
    Authenticated(Option<StringMatcher>),
    /// What filters said of the request.
    Metadata(Box<MetadataMatcher>),
}
