//! Forwarding of connections without looking inside.

use super::{
    access_log::access_log,
    names,
    pb::any,
    wire::{listener, tcp_proxy},
};
use crate::{
    bind::View,
    intent::{MeshSettings, TcpBackend},
};

/// To one upstream.
pub(super) fn to_cluster(mesh: &MeshSettings, stat_prefix: &str, cluster: &str) -> listener::Filter {
    filter(mesh, stat_prefix, tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned()))
}

/// To backends by weight. One that does not exist gets the name that it would have, and its connections are closed.
pub(super) fn to_backends(
    view: View<'_, '_>,
    stat_prefix: &str,
    backends: &[TcpBackend],
    port: u16,
) -> listener::Filter {
    let name = |backend: &TcpBackend| {
        let target = &backend.destination;
        let subset = target.subset.as_deref().unwrap_or_default();
        match view.locate(target, Some(port)) {
            Ok(located) => names::outbound(located.port, subset, &located.service.key.host),
            Err(_) => names::outbound(target.port.unwrap_or(port), subset, &target.host),
        }
    };
    let used: Vec<&TcpBackend> = backends.iter().filter(|b| backends.len() == 1 || b.weight > 0).collect();
    let specifier = match used.as_slice() {
        [] => tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(names::BLACK_HOLE.to_owned()),
        [only] => tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(name(only)),
        several => {
            let weights = several.iter().map(|backend| tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight {
                name: name(backend),
                weight: backend.weight,
                metadata_match: None,
            });
            tcp_proxy::tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::tcp_proxy::WeightedCluster {
                clusters: weights.collect(),
            })
        }
    };
    filter(view.reader.mesh(), stat_prefix, specifier)
}

fn filter(mesh: &MeshSettings, stat_prefix: &str, cluster: tcp_proxy::tcp_proxy::ClusterSpecifier) -> listener::Filter {
    let config = tcp_proxy::TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        access_log: access_log(mesh),
        cluster_specifier: Some(cluster),
        ..Default::default()
    };
    listener::Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(&config))),
    }
}
