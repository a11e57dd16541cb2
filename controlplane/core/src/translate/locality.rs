//! Which endpoints come first: fresh before stale, near before far, and what the user says about it.
//!
//! Preference for the near place is on unless a policy turns it off, whether or not outlier detection is configured: a
//! call that leaves its site without need costs time and money, and a site without endpoints fails over by itself.

use crate::{bind::Audience, intent::LocalityPolicy};
use tombolo_federation_model::{Endpoint, Locality};

/// Place in the order of preference: smaller first. Equal ranks share the load.
pub(super) type Rank = (bool, usize, u8, bool);

/// The rank of an endpoint for a class of proxies.
pub(super) fn rank(audience: &Audience, policy: &LocalityPolicy, endpoint: &Endpoint) -> Rank {
    if policy.enabled == Some(false) || distribution(audience, policy).is_some() {
        return (endpoint.stale, 0, 0, false);
    }
    if !policy.failover_priority.is_empty() {
        return (endpoint.stale, disagreement(audience, policy, endpoint), 0, false);
    }
    let closeness = audience.locality.closeness(&endpoint.locality);
    let preferred = closeness == 0 && takes_over(audience, policy, endpoint);
    let distance = 2 * (3 - closeness) - u8::from(preferred);
    (endpoint.stale, 0, distance, endpoint.network != audience.network)
}

/// Whether the policy names the endpoint's region as the one that takes over for the proxy's.
fn takes_over(audience: &Audience, policy: &LocalityPolicy, endpoint: &Endpoint) -> bool {
    policy.failover.iter().any(|(from, to)| *from == audience.locality.region && *to == endpoint.locality.region)
}

/// How many of the priority labels, counted from the end, do not matter because an earlier one disagrees already.
fn disagreement(audience: &Audience, policy: &LocalityPolicy, endpoint: &Endpoint) -> usize {
    let agrees = |label: &String| {
        let (key, wanted) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (label.as_str(), proxy_label(audience, label)),
        };
        wanted.is_some() && wanted == endpoint_label(endpoint, key)
    };
    policy.failover_priority.len() - policy.failover_priority.iter().take_while(|label| agrees(label)).count()
}

fn proxy_label(audience: &Audience, key: &str) -> Option<String> {
    place_label(key, audience.cluster.as_str(), audience.network.as_str(), &audience.locality)
        .or_else(|| audience.labels.get(key).cloned())
}

/// A label of an endpoint; those that say where it is are known without being written on it.
pub(super) fn endpoint_label(endpoint: &Endpoint, key: &str) -> Option<String> {
    let place = place_label(key, endpoint.cluster.as_str(), endpoint.network.as_str(), &endpoint.locality);
    place.or_else(|| endpoint.labels.get(key).cloned())
}

fn place_label(key: &str, cluster: &str, network: &str, locality: &Locality) -> Option<String> {
    let known = match key {
        "topology.istio.io/cluster" => cluster,
        "topology.istio.io/network" => network,
        "topology.kubernetes.io/region" => &locality.region,
        "topology.kubernetes.io/zone" => &locality.zone,
        "topology.istio.io/subzone" => &locality.subzone,
        _ => return None,
    };
    Some(known.to_owned())
}

/// The shares by place that hold for the class, if the policy gives any.
pub(super) fn distribution<'p>(
    audience: &Audience,
    policy: &'p LocalityPolicy,
) -> Option<&'p std::collections::BTreeMap<String, u32>> {
    if policy.enabled == Some(false) {
        return None;
    }
    policy.distribute.iter().find(|(from, _)| matches(from, &audience.locality)).map(|(_, to)| to)
}

/// Whether a place falls under a pattern such as `us-west/zone1/*`. A pattern that ends early stands for everything below.
pub(super) fn matches(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.subzone];
    pattern.split('/').zip(parts).all(|(want, have)| want == "*" || want == have.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_what_is_below_them() {
        let place = Locality::parse("us/z1/a");
        for yes in ["*", "us/*", "us", "us/z1", "us/z1/*", "us/*/a", "us/z1/a"] {
            assert!(matches(yes, &place), "{yes}");
        }
        for no in ["eu/*", "us/z2", "us/z1/b"] {
            assert!(!matches(no, &place), "{no}");
        }
    }
}
