//! Snapshots as short text: what a person wants to see in a test, one line for each thing.

use prost::Message;
use std::fmt::Write;
use tombolo_controlplane_api::xds::envoy::{
    config::{
        cluster::v3::{Cluster, cluster::ClusterDiscoveryType},
        core::v3::{Address, address, socket_address, transport_socket},
        endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
        listener::v3::{Listener, filter},
        route::v3::{
            Route, RouteConfiguration, VirtualHost, route, route_action::ClusterSpecifier, route_match::PathSpecifier,
        },
    },
    extensions::transport_sockets::tls::v3::{UpstreamTlsContext, common_tls_context::ValidationContextType},
};
use tombolo_federation_sync::{Snapshot, types};

fn decode<T: Message + Default>(snapshot: &Snapshot, kind: &str) -> Vec<T> {
    let set = snapshot.set(kind).into_iter().flat_map(|set| set.values());
    set.map(|resource| T::decode(resource.body.clone()).expect("what we encode can be decoded")).collect()
}

pub(super) fn clusters(snapshot: &Snapshot) -> Vec<Cluster> {
    decode(snapshot, types::CLUSTER)
}

pub(super) fn listeners(snapshot: &Snapshot) -> Vec<Listener> {
    decode(snapshot, types::LISTENER)
}

pub(super) fn route_configs(snapshot: &Snapshot) -> Vec<RouteConfiguration> {
    decode(snapshot, types::ROUTE)
}

pub(super) fn assignments(snapshot: &Snapshot) -> Vec<ClusterLoadAssignment> {
    decode(snapshot, types::ENDPOINT)
}

/// All of it.
pub(super) fn all(snapshot: &Snapshot) -> String {
    let parts = [
        clusters_text(snapshot),
        endpoints_text(snapshot),
        listeners_text(snapshot),
        routes_text(snapshot),
        secrets_text(snapshot),
    ];
    parts.concat()
}

fn address(at: Option<&Address>) -> String {
    match at.and_then(|a| a.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => match socket.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => format!("{}:{port}", socket.address),
            _ => socket.address.clone(),
        },
        Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
        _ => "?".to_owned(),
    }
}

pub(super) fn clusters_text(snapshot: &Snapshot) -> String {
    let mut out = String::from("clusters\n");
    for cluster in clusters(snapshot) {
        let kind = match &cluster.cluster_discovery_type {
            Some(ClusterDiscoveryType::Type(0)) => "static",
            Some(ClusterDiscoveryType::Type(1)) => "strict-dns",
            Some(ClusterDiscoveryType::Type(2)) => "logical-dns",
            Some(ClusterDiscoveryType::Type(3)) => "eds",
            Some(ClusterDiscoveryType::Type(4)) => "original-dst",
            _ => "dynamic",
        };
        let _ = write!(out, "  {} {kind}", cluster.name);
        for entry in &cluster.transport_socket_matches {
            if let Some(text) = entry.transport_socket.as_ref().and_then(|socket| tls(socket.config_type.as_ref()?)) {
                let _ = write!(out, " {}({text})", entry.name);
            }
        }
        if let Some(text) = cluster.transport_socket.as_ref().and_then(|socket| tls(socket.config_type.as_ref()?)) {
            let _ = write!(out, " tls({text})");
        }
        out.push('\n');
    }
    out
}

fn tls(socket: &transport_socket::ConfigType) -> Option<String> {
    let transport_socket::ConfigType::TypedConfig(any) = socket;
    let context = UpstreamTlsContext::decode(any.value.as_slice())
        .ok()
        .filter(|_| any.type_url.ends_with("UpstreamTlsContext"))?;
    let common = context.common_tls_context?;
    let names = match common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => combined.default_validation_context,
        Some(ValidationContextType::ValidationContext(context)) => Some(context),
        _ => None,
    };
    let names = names.map(|c| c.match_typed_subject_alt_names.len()).unwrap_or_default();
    Some(format!("sni {} alpn {} names {names}", context.sni, common.alpn_protocols.join(",")))
}

pub(super) fn endpoints_text(snapshot: &Snapshot) -> String {
    let mut out = String::from("endpoints\n");
    for assignment in assignments(snapshot) {
        let _ = writeln!(out, "  {}", assignment.cluster_name);
        for place in &assignment.endpoints {
            let at = place.locality.clone().unwrap_or_default();
            let weight = place.load_balancing_weight.map_or(0, |w| w.value);
            for endpoint in &place.lb_endpoints {
                let Some(HostIdentifier::Endpoint(target)) = &endpoint.host_identifier else { continue };
                let share = endpoint.load_balancing_weight.map_or(0, |w| w.value);
                let mode = endpoint
                    .metadata
                    .as_ref()
                    .is_some_and(|m| m.filter_metadata.contains_key("envoy.transport_socket_match"));
                let _ = writeln!(
                    out,
                    "    p{} {}/{} ({weight}) {} weight {share}{}{}",
                    place.priority,
                    at.region,
                    at.zone,
                    address(target.address.as_ref()),
                    if mode { " mtls" } else { "" },
                    if endpoint.health_status == 3 { " draining" } else { "" },
                );
            }
        }
    }
    out
}

pub(super) fn listeners_text(snapshot: &Snapshot) -> String {
    let mut out = String::from("listeners\n");
    for listener in listeners(snapshot) {
        let _ = writeln!(out, "  {} {}", listener.name, address(listener.address.as_ref()));
        for chain in &listener.filter_chains {
            let condition = chain.filter_chain_match.clone().unwrap_or_default();
            let filters: Vec<&str> =
                chain.filters.iter().map(|f| f.name.rsplit('.').next().unwrap_or_default()).collect();
            let _ = writeln!(
                out,
                "    [{}|{}|{}] {}{}",
                condition.transport_protocol,
                condition.application_protocols.join(","),
                condition.server_names.join(","),
                filters.join(","),
                if chain.transport_socket.is_some() { " over tls" } else { "" },
            );
            for filter in &chain.filters {
                let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else { continue };
                assert!(!any.type_url.is_empty());
            }
        }
    }
    out
}

pub(super) fn routes_text(snapshot: &Snapshot) -> String {
    let mut out = String::from("routes\n");
    for config in route_configs(snapshot) {
        let _ = writeln!(out, "  {}", config.name);
        for host in &config.virtual_hosts {
            out.push_str(&vhost_text(host));
        }
    }
    out
}

pub(super) fn vhost_text(host: &VirtualHost) -> String {
    let mut out = format!(
        "    {} [{}]{}\n",
        host.name,
        host.domains.join(" "),
        if host.require_tls == 2 { " https-only" } else { "" }
    );
    for route in &host.routes {
        let _ = writeln!(out, "      {} -> {}", condition(route), action(route));
    }
    out
}

fn condition(route: &Route) -> String {
    let Some(condition) = &route.r#match else { return "?".to_owned() };
    let path = match &condition.path_specifier {
        Some(PathSpecifier::Prefix(p)) => format!("prefix {p}"),
        Some(PathSpecifier::Path(p)) => format!("path {p}"),
        Some(PathSpecifier::SafeRegex(r)) => format!("regex {}", r.regex),
        Some(PathSpecifier::PathSeparatedPrefix(p)) => format!("segments {p}"),
        Some(PathSpecifier::ConnectMatcher(_)) => "connect".to_owned(),
        _ => "?".to_owned(),
    };
    let headers: Vec<&str> = condition.headers.iter().map(|h| h.name.as_str()).collect();
    if headers.is_empty() { path } else { format!("{path} headers {}", headers.join(",")) }
}

fn action(route: &Route) -> String {
    let mut text = match &route.action {
        Some(route::Action::Route(action)) => {
            let target = match &action.cluster_specifier {
                Some(ClusterSpecifier::Cluster(name)) => name.clone(),
                Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                    let share = |c: &tombolo_controlplane_api::xds::envoy::config::route::v3::weighted_cluster::ClusterWeight| {
                        format!("{}*{}", c.weight.map_or(0, |w| w.value), c.name)
                    };
                    weighted.clusters.iter().map(share).collect::<Vec<_>>().join(" + ")
                }
                _ => "?".to_owned(),
            };
            let retries = action.retry_policy.as_ref().and_then(|r| r.num_retries).map_or(0, |n| n.value);
            format!("{target} retries {retries}")
        }
        Some(route::Action::Redirect(redirect)) => format!("redirect {}", redirect.host_redirect),
        Some(route::Action::DirectResponse(reply)) => format!("answer {}", reply.status),
        _ => "?".to_owned(),
    };
    let mut filters: Vec<&String> = route.typed_per_filter_config.keys().collect();
    filters.sort();
    filters.iter().for_each(|name| {
        let _ = write!(text, " +{}", name.rsplit('.').next().unwrap_or_default());
    });
    text
}

pub(super) fn secrets_text(snapshot: &Snapshot) -> String {
    let mut out = String::from("secrets\n");
    for name in snapshot.set(types::SECRET).into_iter().flat_map(|set| set.keys()) {
        let _ = writeln!(out, "  {name}");
    }
    out
}
