//! How endpoints are chosen.
//!
//! Owns the types. Used by `balance`.

use super::Value;
use std::{sync::Arc, time::Duration};

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct LbSettings {
    /// The policy.
    pub policy: LbPolicy,
    /// Percent of healthy endpoints below which health is ignored; 50 by default, 0 never.
    pub panic_threshold: f64,
    /// In panic no endpoint is taken: requests fail at once.
    pub fail_on_panic: bool,
    /// How localities share.
    pub locality: LocalityMode,
    /// Subsets; `None`: off.
    pub subsets: Option<Arc<SubsetSettings>>,
    /// Growing weight of fresh endpoints (round robin, least request).
    pub slow_start: Option<SlowStart>,
    /// Endpoints count only after their first active check.
    pub ignore_new_until_checked: bool,
    /// Keep using the chosen endpoint for as long as its health allows when it is named by a session (stateful sessions), by
    /// these health states in bits; 0: Envoy's default (unknown, healthy, degraded).
    pub override_host_statuses: u32,
    /// Hash by host name instead of address (consistent hashing).
    pub hash_by_hostname: bool,
    /// In percent, at least 100; `None`: unbounded load (consistent hashing).
    pub hash_balance_factor: Option<u32>,
    /// Headers of the request that may name the endpoint, in order; the first that is there counts.
    pub override_headers: Box<[http::HeaderName]>,
}

/// Policies.
#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The least busy of a few.
    LeastRequest(LeastRequest),
    /// Any.
    Random,
    /// Consistent hashing on a ring.
    RingHash(RingHash),
    /// Consistent hashing by a table.
    Maglev(MaglevSettings),
    /// The first that can be connected to.
    PickFirst,
    /// The one of two that is expected to answer first.
    PeakEwma(PeakEwma),
    /// The discovery decides ([`Discovery::OriginalDst`], [`Discovery::DynamicForwardProxy`], [`Discovery::Aggregate`]).
    ByDiscovery,
}

/// Settings of least request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastRequest {
    /// Of how many the least busy is taken; 2 by default.
    pub choices: u32,
    /// How strongly active requests lower the weight when weights differ; 1.0 by default.
    pub active_request_bias: f64,
    /// Look at all endpoints instead of a sample.
    pub full_scan: bool,
}

/// Settings of peak EWMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeakEwma {
    /// How long a measured latency counts; 10 s by default.
    pub decay: Duration,
    /// Taken for an endpoint of which nothing is known; 30 ms by default.
    pub unknown: Duration,
}

/// Settings of a hash ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingHash {
    /// 1024 by default.
    pub minimum_size: u64,
    /// 8 Mi by default.
    pub maximum_size: u64,
    /// The function.
    pub function: RingHashFunction,
}

/// Hash functions of a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RingHashFunction {
    /// XXH64.
    #[default]
    XxHash,
    /// MurmurHash2, as in libstdc++.
    Murmur2,
}

/// Settings of a Maglev table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaglevSettings {
    /// A prime; 65537 by default.
    pub table_size: u64,
}

/// How localities share the load of a priority.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum LocalityMode {
    /// They do not count.
    #[default]
    Flat,
    /// By their weights.
    Weighted,
    /// The own zone first (percent of requests that take part, and the smallest cluster for which it is done).
    ZoneAware {
        /// Percent of requests that are routed so.
        routing_enabled: f64,
        /// Smaller clusters are not.
        min_cluster_size: u64,
        /// With so many healthy endpoints in the own zone all requests stay there.
        force_local: Option<u32>,
        /// No endpoint in panic.
        fail_on_panic: bool,
        /// Zones are compared by the weights of their endpoints, not by their number.
        by_weight: bool,
    },
}

/// Growing weight of fresh endpoints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long an endpoint is fresh.
    pub window: Duration,
    /// Exponent's inverse of the growth; 1.0 is linear.
    pub aggression: f64,
    /// Smallest share of the weight in percent; 10 by default.
    pub min_weight_percent: f64,
}

/// Subsets of endpoints by metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetSettings {
    /// What is done when no subset fits.
    pub fallback: SubsetFallback,
    /// Of [`SubsetFallback::Default`].
    pub default_subset: Box<[(Arc<str>, Value)]>,
    /// Sets of keys by which subsets are made.
    pub selectors: Box<[SubsetSelector]>,
    /// Scale locality weights by the share of endpoints in the subset.
    pub scale_locality_weight: bool,
    /// Respect locality weights within subsets.
    pub locality_weight_aware: bool,
    /// With no endpoints left in the fallback, ignore metadata (panic).
    pub panic_mode_any: bool,
    /// Values in a list count one by one.
    pub list_as_any: bool,
    /// A list of subsets in a route's metadata is tried in order.
    pub fallback_list: bool,
}

/// One set of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetSelector {
    /// Sorted.
    pub keys: Box<[Arc<str>]>,
    /// Own fallback; `None`: that of the settings.
    pub fallback: Option<SubsetFallback>,
    /// Of [`SubsetFallback::Keys`], sorted.
    pub fallback_keys: Box<[Arc<str>]>,
    /// Each subset is one endpoint.
    pub single_host: bool,
}

/// What is done when no subset fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SubsetFallback {
    /// Fail.
    #[default]
    None,
    /// Any endpoint.
    Any,
    /// The default subset.
    Default,
    /// The subset by fewer keys (selectors only).
    Keys,
}
