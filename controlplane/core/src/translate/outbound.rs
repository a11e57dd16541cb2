//! The listener of a sidecar without capture that takes requests in proxy form or by Host header, and its routes.

use super::{
    Translated, encode, hcm,
    hcm::{Manager, RouteSource},
    names,
    pb::{address, boolean, uint},
    route::MAX_BODY,
    route_action, route_match,
    vhost::Vhost,
    wire::{core, hcm as wire_hcm, listener, protobuf, route},
};
use crate::{bind::View, intent::OutboundPolicy, proxy::Proxy, stage::VhostKey};
use bytes::Bytes;
use prost::Message;
use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};
use tombolo_federation_sync::Resource;

/// The listener, if the proxy wants one.
#[must_use]
pub fn http_proxy_listener(view: View<'_, '_>, proxy: &Proxy) -> Option<Arc<Resource>> {
    let at = proxy.http_proxy?;
    let manager = Manager {
        stat_prefix: names::HTTP_PROXY,
        routes: RouteSource::Named(names::HTTP_PROXY.to_owned()),
        client_cert: wire_hcm::http_connection_manager::ForwardClientCertDetails::Sanitize,
        edge: false,
        dynamic_hosts: true,
    };
    let chain = listener::FilterChain { filters: vec![hcm::filter(view.reader.mesh(), manager)], ..Default::default() };
    let made = listener::Listener {
        name: names::HTTP_PROXY.to_owned(),
        address: Some(address(at)),
        filter_chains: vec![chain],
        traffic_direction: core::TrafficDirection::Outbound.into(),
        ..Default::default()
    };
    Some(encode::resource(names::HTTP_PROXY, made.encode_to_vec()))
}

/// Its routes: a virtual host for each port of each visible service and for each routed host, and one for everything else.
#[must_use]
pub fn http_proxy_routes(view: View<'_, '_>) -> Translated<Option<Arc<Resource>>> {
    let Some(scope) = view.reader.scope(view.id) else { return Translated::default() };
    let services = scope.services.values().cloned().map(VhostKey::Service);
    let hosts = scope.route_hosts.iter().cloned().map(VhostKey::Host);
    let keys: Vec<VhostKey> = services.chain(hosts).collect();
    let all: Vec<&Vhost> =
        keys.iter().filter_map(|key| view.reader.vhosts(view.id, key)).flat_map(|list| list.iter()).collect();
    let domains = settle(&all);
    let known = all
        .iter()
        .zip(domains)
        .filter(|(_, domains)| !domains.is_empty())
        .map(|(vhost, domains)| (&vhost.body, domains));
    let catch_all = everything_else(view.audience.outbound);
    let has_star = all.iter().any(|vhost| vhost.domains.iter().any(|d| d == "*"));
    let rest = (!has_star).then_some((&catch_all, vec!["*".to_owned()]));
    let base = route::RouteConfiguration {
        name: names::HTTP_PROXY.to_owned(),
        validate_clusters: boolean(false),
        max_direct_response_body_size_bytes: uint(MAX_BODY),
        ..Default::default()
    };
    Translated::fine(Some(encode::route_configuration(&base, known.chain(rest))))
}

/// Gives every domain to one virtual host: first to those whose own it is, then to the first that takes it as an alias.
fn settle(all: &[&Vhost]) -> Vec<Vec<String>> {
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    let mut settled: Vec<Vec<String>> = vec![Vec::new(); all.len()];
    let rounds: [fn(&Vhost) -> &[String]; 2] = [|vhost| &vhost.domains, |vhost| &vhost.aliases];
    for names in rounds {
        for (vhost, domains) in all.iter().zip(&mut settled) {
            domains.extend(names(vhost).iter().filter(|name| taken.insert(name)).cloned());
        }
    }
    settled
}

/// What happens with hosts that nobody knows.
fn everything_else(policy: OutboundPolicy) -> Bytes {
    let (name, action) = match policy {
        OutboundPolicy::AllowAny => {
            let to_any = |connect: bool| route::RouteAction {
                cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(names::ALLOW_ANY.to_owned())),
                timeout: Some(protobuf::Duration::default()),
                upgrade_configs: connect.then(tunnel).into_iter().collect(),
                ..Default::default()
            };
            ("allow_any", [route::route::Action::Route(to_any(true)), route::route::Action::Route(to_any(false))])
        }
        OutboundPolicy::RegistryOnly => {
            let refuse = || route::route::Action::DirectResponse(route_action::respond(502, b""));
            ("block_all", [refuse(), refuse()])
        }
    };
    let conditions = [connect(), route_match::anything()];
    let routes = conditions.into_iter().zip(action).map(|(condition, action)| {
        let route = route::Route {
            name: name.to_owned(),
            r#match: Some(condition),
            action: Some(action),
            ..Default::default()
        };
        encode::route(&route, &BTreeMap::new())
    });
    let base = route::VirtualHost { name: name.to_owned(), ..Default::default() };
    encode::virtual_host(&base, &routes.collect::<Vec<_>>())
}

/// A request for a tunnel.
pub(super) fn connect() -> route::RouteMatch {
    let specifier = route::route_match::PathSpecifier::ConnectMatcher(route::route_match::ConnectMatcher {});
    route::RouteMatch { path_specifier: Some(specifier), ..Default::default() }
}

/// The tunnel ends here and its contents go on as a connection.
pub(super) fn tunnel() -> route::route_action::UpgradeConfig {
    route::route_action::UpgradeConfig {
        upgrade_type: "CONNECT".to_owned(),
        enabled: boolean(true),
        connect_config: Some(route::route_action::upgrade_config::ConnectConfig::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_domain_is_given_twice() {
        let vhost = |domains: &[&str], aliases: &[&str]| Vhost {
            name: String::new(),
            domains: domains.iter().map(|d| (*d).to_owned()).collect(),
            aliases: aliases.iter().map(|d| (*d).to_owned()).collect(),
            body: Bytes::new(),
        };
        let all = [vhost(&["a.ns"], &["a", "b.ns"]), vhost(&["b.ns"], &["a", "b"])];
        let all: Vec<&Vhost> = all.iter().collect();
        assert_eq!(settle(&all), [vec!["a.ns", "a"], vec!["b.ns", "b"]]);
    }
}
