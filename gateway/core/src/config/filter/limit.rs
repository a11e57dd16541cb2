//! Local rate limits, as configured.

use crate::{
    config::{Fraction, HeaderChanges, HeaderMatcher, QueryMatcher},
    filter::TokenBucket,
};
use http::HeaderName;
use std::sync::Arc;

/// Token buckets in front of the routes.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalRateLimit {
    /// Prefix of statistics.
    pub stat_prefix: Arc<str>,
    /// For all requests; `None`: nothing is limited.
    pub bucket: Option<Arc<TokenBucket>>,
    /// How often it is looked at.
    pub enabled: Fraction,
    /// How often it is enforced.
    pub enforced: Fraction,
    /// Status of refusals; 429.
    pub status: u16,
    /// Headers of refusals.
    pub response_headers: HeaderChanges,
    /// Headers of requests that are refused only on paper.
    pub request_headers: HeaderChanges,
    /// gRPC refusals say RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub grpc_resource_exhausted: bool,
    /// Buckets for some requests.
    pub descriptors: Box<[DescriptorLimit]>,
    /// What requests are described by; empty: as route and virtual host say.
    pub rules: Box<[RateRule]>,
    /// Rules of routes that belong to another stage do not count.
    pub stage: u32,
    /// When rules of the virtual host count.
    pub host_rules: HostRules,
    /// `x-ratelimit-*` is put into responses.
    pub tell: bool,
    /// `retry-after` is put into refusals.
    pub tell_retry: bool,
    /// The bucket for all is used also by requests that have a bucket of their own.
    pub always_default: bool,
    /// Each connection of a client has buckets of its own.
    pub each_connection: bool,
}

/// The buckets of one connection. As in Envoy there is one set for a connection, made by the first filter that wants it.
#[derive(Debug, Clone)]
pub struct ConnectionBuckets {
    /// For all requests.
    pub bucket: Option<Arc<TokenBucket>>,
    /// For some.
    pub descriptors: Box<[DescriptorLimit]>,
}

impl LocalRateLimit {
    /// Full buckets of the same sizes.
    #[must_use]
    pub fn fresh_buckets(&self) -> ConnectionBuckets {
        let fresh = |bucket: &Arc<TokenBucket>| Arc::new(bucket.full_again());
        let descriptors =
            self.descriptors.iter().map(|one| DescriptorLimit { bucket: fresh(&one.bucket), ..one.clone() });
        ConnectionBuckets { bucket: self.bucket.as_ref().map(fresh), descriptors: descriptors.collect() }
    }
}

/// A bucket for requests that are described so.
#[derive(Debug, Clone, PartialEq)]
pub struct DescriptorLimit {
    /// Keys and values, in order.
    pub entries: Box<[(Box<str>, Box<str>)]>,
    /// Its tokens.
    pub bucket: Arc<TokenBucket>,
    /// It refuses nothing.
    pub shadow: bool,
}

/// When rules of the virtual host count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HostRules {
    /// When the route has none.
    #[default]
    Otherwise,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How a request is described; nothing when one of the actions gives nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct RateRule {
    /// To which filters it belongs.
    pub stage: u32,
    /// One entry each.
    pub actions: Box<[RateAction]>,
}

/// An entry of a description.
#[derive(Debug, Clone, PartialEq)]
pub enum RateAction {
    /// Key `destination_cluster`.
    DestinationCluster,
    /// Key `remote_address`.
    RemoteAddress,
    /// Key `masked_remote_address`: the network of the client, by so many bits for IPv4 and IPv6.
    MaskedAddress(u8, u8),
    /// A header's value under this key; the flag: an absent one is skipped.
    Header(HeaderName, Box<str>, bool),
    /// A query parameter's value, likewise.
    Query(Box<str>, Box<str>, bool),
    /// Always the same.
    Key(Box<str>, Box<str>),
    /// Key and value when these headers fit, or when they do not.
    HeaderMatch(Box<str>, Box<str>, bool, Box<[HeaderMatcher]>),
    /// Key and value when these query parameters fit, or when they do not.
    QueryMatch(Box<str>, Box<str>, bool, Box<[QueryMatcher]>),
}
