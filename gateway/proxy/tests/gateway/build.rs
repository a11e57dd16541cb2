//! Resources, as short as a test needs them.

use std::{net::SocketAddr, time::Duration};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::{
                cluster::v3::{
                    Cluster,
                    cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
                },
                core::v3::{
                    Address, AggregatedConfigSource, ConfigSource, Http2ProtocolOptions, SocketAddress,
                    TransportSocket, address, config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
                    transport_socket,
                },
                endpoint::v3::{
                    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
                },
                listener::v3::{
                    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
                },
                route::v3::{
                    RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action,
                    route_match,
                },
            },
            extensions::{
                filters::{
                    http::router::v3::Router,
                    listener::tls_inspector::v3::TlsInspector,
                    network::{
                        http_connection_manager::v3::{
                            HttpConnectionManager, HttpFilter, Rds,
                            http_connection_manager::{RouteSpecifier, UpgradeConfig},
                            http_filter,
                        },
                        tcp_proxy::v3::{TcpProxy, tcp_proxy},
                    },
                },
                upstreams::http::v3::{
                    HttpProtocolOptions,
                    http_protocol_options::{
                        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                    },
                },
            },
        },
        google::protobuf::{self, BoolValue, UInt32Value},
    },
};

pub fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        resource_api_version: 2,
        ..Default::default()
    }
}

pub fn address(socket: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(u32::from(socket.port()))),
            ..Default::default()
        })),
    }
}

pub fn duration(time: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap(),
        nanos: i32::try_from(time.subsec_nanos()).unwrap(),
    }
}

/// A cluster whose endpoints come by EDS under its own name.
pub fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
        // A handshake of two gateways waits its turn on a busy machine.
        connect_timeout: Some(duration(Duration::from_secs(60))),
        ..Default::default()
    }
}

pub fn http2(mut cluster: Cluster) -> Cluster {
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())),
        })),
        ..Default::default()
    };
    cluster
        .typed_extension_protocol_options
        .insert("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into(), pack_any(options));
    cluster
}

pub fn endpoints(cluster: &str, addresses: &[SocketAddr]) -> ClusterLoadAssignment {
    let endpoint = |a: &SocketAddr| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint { address: Some(address(*a)), ..Default::default() })),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: addresses.iter().map(endpoint).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub fn to(prefix: &str, cluster: &str) -> Route {
    Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix(prefix.into())),
            ..Default::default()
        }),
        action: Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.into())),
            // A server of the test waits its turn, too.
            timeout: Some(duration(Duration::from_secs(60))),
            ..Default::default()
        })),
        ..Default::default()
    }
}

pub fn action(route: &mut Route) -> &mut RouteAction {
    match route.action.as_mut() {
        Some(route::Action::Route(action)) => action,
        _ => panic!("not a forwarding route"),
    }
}

pub fn retry(on: &str, retries: u32) -> RetryPolicy {
    RetryPolicy { retry_on: on.into(), num_retries: Some(UInt32Value { value: retries }), ..Default::default() }
}

pub fn routes(name: &str, hosts: &[(&str, Vec<Route>)]) -> RouteConfiguration {
    RouteConfiguration {
        name: name.into(),
        virtual_hosts: hosts
            .iter()
            .map(|(domain, routes)| VirtualHost {
                name: (*domain).into(),
                domains: vec![(*domain).into()],
                routes: routes.clone(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

/// A connection manager with routes by RDS.
pub fn hcm(routes: &str) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".into(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes.into(),
        })),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".into(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
            ..Default::default()
        }],
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
        ..Default::default()
    }
}

pub fn filter(name: &str, config: protobuf::Any) -> Filter {
    Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

pub fn http_filter(name: &str, config: protobuf::Any) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// A manager with these filters before the router.
pub fn filtered(filters: Vec<HttpFilter>) -> HttpConnectionManager {
    let mut own = hcm("r");
    own.http_filters.splice(0..0, filters);
    own
}

pub fn http_chain(hcm: HttpConnectionManager) -> FilterChain {
    FilterChain {
        filters: vec![filter("envoy.filters.network.http_connection_manager", pack_any(hcm))],
        ..Default::default()
    }
}

pub fn tcp_chain(cluster: &str) -> FilterChain {
    let proxy = TcpProxy {
        stat_prefix: "tcp".into(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    };
    FilterChain { filters: vec![filter("envoy.filters.network.tcp_proxy", pack_any(proxy))], ..Default::default() }
}

pub fn for_sni(mut chain: FilterChain, names: &[&str]) -> FilterChain {
    chain.name = names.join(",");
    chain.filter_chain_match =
        Some(FilterChainMatch { server_names: names.iter().map(|n| (*n).into()).collect(), ..Default::default() });
    chain
}

pub fn listener(name: &str, at: SocketAddr, chains: Vec<FilterChain>) -> Listener {
    Listener { name: name.into(), address: Some(address(at)), filter_chains: chains, ..Default::default() }
}

pub fn inspecting(mut listener: Listener) -> Listener {
    listener.listener_filters = vec![ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".into(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack_any(TlsInspector::default()))),
        ..Default::default()
    }];
    listener
}

pub fn socket(name: &str, config: protobuf::Any) -> TransportSocket {
    TransportSocket { name: name.into(), config_type: Some(transport_socket::ConfigType::TypedConfig(config)) }
}

pub fn yes() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

/// Istio's metrics filter, as its control plane sends it.
pub fn mesh_stats() -> HttpFilter {
    let config = protobuf::Any { type_url: "type.googleapis.com/stats.PluginConfig".into(), value: Vec::new() };
    HttpFilter {
        name: "istio.stats".into(),
        is_optional: true,
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}
