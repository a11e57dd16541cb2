//! Upstreams that every proxy has, whatever the mesh holds.

use super::{
    Resources, Translated, encode, names,
    pb::{any, duration},
    wire::{cluster, dfp, dfp_cluster},
};
use crate::proxy::Role;
use std::time::Duration;

/// Name of the cache of resolved names that the filter and the upstreams share.
const DNS_CACHE: &str = "dynamic_dns";

/// The cache, the same wherever it is mentioned, or Envoy refuses it.
pub(super) fn dns_cache() -> dfp::DnsCacheConfig {
    dfp::DnsCacheConfig {
        name: DNS_CACHE.to_owned(),
        dns_lookup_family: cluster::cluster::DnsLookupFamily::V4Preferred.into(),
        ..Default::default()
    }
}

/// An upstream that resolves the host of each request. Where nothing is captured this is what "the original destination" means.
pub(super) fn dynamic(name: &str) -> cluster::Cluster {
    let config = dfp_cluster::ClusterConfig {
        cluster_implementation_specifier: Some(
            dfp_cluster::cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(dns_cache()),
        ),
        ..Default::default()
    };
    cluster::Cluster {
        name: name.to_owned(),
        connect_timeout: Some(duration(Duration::from_secs(10))),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::ClusterType(
            cluster::cluster::CustomClusterType {
                name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
                typed_config: Some(any(&config)),
            },
        )),
        ..Default::default()
    }
}

/// An upstream without endpoints: its requests get 503, its connections are closed.
pub(super) fn empty(name: &str) -> cluster::Cluster {
    cluster::Cluster {
        name: name.to_owned(),
        connect_timeout: Some(duration(Duration::from_secs(10))),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Static.into(),
        )),
        ..Default::default()
    }
}

/// The upstreams of a role.
#[must_use]
pub fn fixed_clusters(role: Role) -> Resources {
    let passthrough = cluster::Cluster {
        name: names::PASSTHROUGH.to_owned(),
        connect_timeout: Some(duration(Duration::from_secs(10))),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::OriginalDst.into(),
        )),
        ..Default::default()
    };
    let mut clusters = vec![empty(names::BLACK_HOLE)];
    if role == Role::Sidecar {
        clusters.extend([passthrough, dynamic(names::ALLOW_ANY)]);
    }
    Translated::fine(clusters.iter().map(|c| encode::cluster(c, &[])).collect())
}
