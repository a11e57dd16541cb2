//! The HTTP connection manager of every listener that routes requests.

use super::{
    access_log::access_log,
    fixed,
    pb::{ads, any, boolean},
    wire::{cors, dfp_filter, fault, hcm, listener, protobuf, route, router},
};
use crate::intent::MeshSettings;

/// What differs from listener to listener.
#[derive(Debug)]
pub(super) struct Manager<'a> {
    pub(super) stat_prefix: &'a str,
    pub(super) routes: RouteSource,
    /// What is done with the client's certificate in the forwarded header.
    pub(super) client_cert: hcm::http_connection_manager::ForwardClientCertDetails,
    /// Clients are strangers: their address is what the socket says, their headers are not trusted.
    pub(super) edge: bool,
    /// Hosts may be resolved by the proxy itself.
    pub(super) dynamic_hosts: bool,
}

/// Where the routes are.
#[derive(Debug)]
pub(super) enum RouteSource {
    /// Served by name.
    Named(String),
    /// Here.
    Inline(Box<route::RouteConfiguration>),
}

/// The network filter.
pub(super) fn filter(mesh: &MeshSettings, manager: Manager<'_>) -> listener::Filter {
    let with_certificate = manager.client_cert == hcm::http_connection_manager::ForwardClientCertDetails::SanitizeSet;
    let config = hcm::HttpConnectionManager {
        codec_type: hcm::http_connection_manager::CodecType::Auto.into(),
        stat_prefix: manager.stat_prefix.to_owned(),
        http_filters: http_filters(manager.dynamic_hosts),
        access_log: access_log(mesh),
        use_remote_address: boolean(manager.edge),
        xff_num_trusted_hops: if manager.edge { mesh.trusted_proxies } else { 0 },
        generate_request_id: boolean(true),
        normalize_path: boolean(true),
        stream_idle_timeout: Some(protobuf::Duration::default()),
        forward_client_cert_details: manager.client_cert.into(),
        set_current_client_cert_details: with_certificate.then(|| {
            hcm::http_connection_manager::SetCurrentClientCertDetails {
                subject: boolean(true),
                uri: true,
                dns: true,
                ..Default::default()
            }
        }),
        upgrade_configs: upgrades(manager.dynamic_hosts),
        route_specifier: Some(source(manager.routes)),
        ..Default::default()
    };
    listener::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(&config))),
    }
}

/// CONNECT is for clients that want a tunnel through their own sidecar; at other listeners nobody may ask for one.
fn upgrades(tunnels: bool) -> Vec<hcm::http_connection_manager::UpgradeConfig> {
    let upgrade = |kind: &str| hcm::http_connection_manager::UpgradeConfig {
        upgrade_type: kind.to_owned(),
        ..Default::default()
    };
    let tunnels = tunnels.then(|| upgrade("CONNECT"));
    std::iter::once(upgrade("websocket")).chain(tunnels).collect()
}

fn source(routes: RouteSource) -> hcm::http_connection_manager::RouteSpecifier {
    use hcm::http_connection_manager::RouteSpecifier;
    match routes {
        RouteSource::Named(name) => {
            RouteSpecifier::Rds(hcm::Rds { config_source: Some(ads()), route_config_name: name })
        }
        RouteSource::Inline(routes) => RouteSpecifier::RouteConfig(*routes),
    }
}

/// In the order of the request; the router is last.
fn http_filters(dynamic_hosts: bool) -> Vec<hcm::HttpFilter> {
    let filter = |name: &str, config: protobuf::Any, is_optional: bool| hcm::HttpFilter {
        name: name.to_owned(),
        is_optional,
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    };
    // Our gateway counts requests by Istio's metrics where it finds this name; a stock Envoy skips what it does not know.
    let stats = protobuf::Any { type_url: "type.googleapis.com/stats.PluginConfig".to_owned(), value: Vec::new() };
    let mut filters = vec![
        filter("envoy.filters.http.fault", any(&fault::HttpFault::default()), false),
        filter("envoy.filters.http.cors", any(&cors::Cors {}), false),
        filter("istio.stats", stats, true),
    ];
    if dynamic_hosts {
        let config = dfp_filter::FilterConfig {
            implementation_specifier: Some(dfp_filter::filter_config::ImplementationSpecifier::DnsCacheConfig(
                fixed::dns_cache(),
            )),
            ..Default::default()
        };
        filters.push(filter("envoy.filters.http.dynamic_forward_proxy", any(&config), false));
    }
    filters.push(filter("envoy.filters.http.router", any(&router::Router::default()), false));
    filters
}
