//! Resources, as short as a test needs them.

use crate::certificates::Leaf;
use std::net::SocketAddr;
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::{
                cluster::v3::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType},
                core::v3::{
                    Address, DataSource, Http1ProtocolOptions, Http2ProtocolOptions, Http3ProtocolOptions, Pipe,
                    ProxyProtocolConfig, QuicProtocolOptions as QuicTimes, SocketAddress, TransportSocket, address,
                    data_source::Specifier, proxy_protocol_config::Version, socket_address,
                    socket_address::PortSpecifier, transport_socket,
                },
                endpoint::v3::{
                    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
                },
                listener::v3::{
                    Filter, FilterChain, Listener, ListenerFilter, QuicProtocolOptions, UdpListenerConfig, filter,
                    listener_filter,
                },
                route::v3::{
                    HeaderMatcher, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
                    header_matcher::HeaderMatchSpecifier, route, route_action, route_match,
                },
            },
            extensions::{
                filters::{
                    http::router::v3::Router,
                    network::http_connection_manager::v3::{
                        HttpConnectionManager, HttpFilter,
                        http_connection_manager::{CodecType, RouteSpecifier, UpgradeConfig},
                        http_filter,
                    },
                    network::tcp_proxy::v3::{TcpProxy, tcp_proxy},
                },
                transport_sockets::{
                    proxy_protocol::v3::ProxyProtocolUpstreamTransport,
                    quic::v3::{QuicDownstreamTransport, QuicUpstreamTransport},
                    raw_buffer::v3::RawBuffer,
                    tls::v3::{
                        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate,
                        UpstreamTlsContext, common_tls_context::ValidationContextType,
                    },
                },
                upstreams::http::v3::{
                    HttpProtocolOptions,
                    http_protocol_options::{
                        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                    },
                },
            },
            r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
        },
        google::protobuf::{Any, BoolValue, Duration},
    },
};

/// A Unix socket.
#[must_use]
pub fn pipe(path: &std::path::Path) -> Address {
    let pipe = Pipe { path: path.to_string_lossy().into_owned(), mode: 0 };
    Address { address: Some(address::Address::Pipe(pipe)) }
}

/// A TCP socket.
#[must_use]
pub fn tcp_address(socket: SocketAddr) -> Address {
    address(socket, false)
}

fn address(socket: SocketAddr, udp: bool) -> Address {
    let protocol = if udp { socket_address::Protocol::Udp } else { socket_address::Protocol::Tcp };
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            protocol: protocol as i32,
            address: socket.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(u32::from(socket.port()))),
            ..Default::default()
        })),
    }
}

fn text(text: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineString(text.into())), ..Default::default() })
}

fn socket(name: &str, config: Any) -> Option<TransportSocket> {
    Some(TransportSocket { name: name.into(), config_type: Some(transport_socket::ConfigType::TypedConfig(config)) })
}

fn common(own: Option<&Leaf>, trust: Option<&str>) -> Option<CommonTlsContext> {
    let certificate = |leaf: &Leaf| TlsCertificate {
        certificate_chain: text(&leaf.chain),
        private_key: text(&leaf.key),
        ..Default::default()
    };
    let validation = |root: &str| {
        ValidationContextType::ValidationContext(CertificateValidationContext {
            trusted_ca: text(root),
            ..Default::default()
        })
    };
    Some(CommonTlsContext {
        tls_certificates: own.map(certificate).into_iter().collect(),
        validation_context_type: trust.map(validation),
        ..Default::default()
    })
}

/// TLS as server; with `trust`, clients must show a certificate of it.
#[must_use]
pub fn server_tls(own: &Leaf, trust: Option<&str>) -> DownstreamTlsContext {
    DownstreamTlsContext {
        common_tls_context: common(Some(own), trust),
        require_client_certificate: trust.map(|_| BoolValue { value: true }),
        ..Default::default()
    }
}

/// What sends to a cluster.
#[must_use]
pub fn to_cluster(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.into())),
        timeout: Some(Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    }
}

/// A route for what begins with a prefix.
#[must_use]
pub fn route(prefix: &str, action: route::Action) -> Route {
    let path = route_match::PathSpecifier::Prefix(prefix.into());
    Route {
        r#match: Some(RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(action),
        ..Default::default()
    }
}

/// A connection manager that sends everything to one cluster.
#[must_use]
pub fn manager(cluster: &str) -> HttpConnectionManager {
    manager_of(vec![route("/", route::Action::Route(to_cluster(cluster)))])
}

/// A connection manager with these routes for every host.
#[must_use]
pub fn manager_of(routes: Vec<Route>) -> HttpConnectionManager {
    let host = VirtualHost { name: "all".into(), domains: vec!["*".into()], routes, ..Default::default() };
    HttpConnectionManager {
        stat_prefix: "test".into(),
        route_specifier: Some(RouteSpecifier::RouteConfig(RouteConfiguration {
            name: "all".into(),
            virtual_hosts: vec![host],
            ..Default::default()
        })),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".into(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A connection manager whose requests to a cluster may become tunnels. A second is long for one whose script is to say nothing,
/// all others have the time that they need; and a connection that is to end does so soon.
#[must_use]
pub fn tunnels(cluster: &str) -> HttpConnectionManager {
    let within = |seconds| {
        let timeout = Some(Duration { seconds, nanos: 0 });
        route::Action::Route(RouteAction { timeout, ..to_cluster(cluster) })
    };
    let connect = || route_match::PathSpecifier::ConnectMatcher(route_match::ConnectMatcher {});
    let any = || route_match::PathSpecifier::Prefix("/".into());
    let one = |path_specifier, headers, seconds| Route {
        r#match: Some(RouteMatch { path_specifier: Some(path_specifier), headers, ..Default::default() }),
        ..route("/", within(seconds))
    };
    let silent = |script: &str| {
        let exact = StringMatcher { match_pattern: Some(MatchPattern::Exact(script.into())), ..Default::default() };
        let specifier = Some(HeaderMatchSpecifier::StringMatch(exact));
        vec![HeaderMatcher { name: "x-script".into(), header_match_specifier: specifier, ..Default::default() }]
    };
    let mut routes = Vec::new();
    for script in ["nothing", "103"] {
        routes.extend([one(connect(), silent(script), 1), one(any(), silent(script), 1)]);
    }
    routes.extend([one(connect(), Vec::new(), 60), one(any(), Vec::new(), 60)]);
    let mut hcm = manager_of(routes);
    hcm.delayed_close_timeout = Some(Duration { seconds: 0, nanos: 50_000_000 });
    for kind in ["websocket", "CONNECT", "connect-udp"] {
        allow_upgrade(&mut hcm, kind);
    }
    hcm
}

/// Lets requests become tunnels of this kind.
pub fn allow_upgrade(hcm: &mut HttpConnectionManager, kind: &str) {
    hcm.upgrade_configs.push(UpgradeConfig { upgrade_type: kind.into(), ..Default::default() });
    hcm.http2_protocol_options.get_or_insert_default().allow_connect = true;
    hcm.http3_protocol_options.get_or_insert_default().allow_extended_connect = true;
}

/// A listener for HTTP/3.
#[must_use]
pub fn http3_listener(name: &str, at: SocketAddr, tls: DownstreamTlsContext, hcm: HttpConnectionManager) -> Any {
    pack_any(over_quic(name, at, tls, hcm))
}

/// The same with a filter before the connection manager.
#[must_use]
pub fn guarded_http3_listener(
    name: &str,
    at: SocketAddr,
    tls: DownstreamTlsContext,
    hcm: HttpConnectionManager,
    guard: Any,
) -> Any {
    let mut listener = over_quic(name, at, tls, hcm);
    let filter = Filter { name: guard.type_url.clone(), config_type: Some(filter::ConfigType::TypedConfig(guard)) };
    listener.filter_chains[0].filters.insert(0, filter);
    pack_any(listener)
}

fn over_quic(name: &str, at: SocketAddr, tls: DownstreamTlsContext, mut hcm: HttpConnectionManager) -> Listener {
    hcm.codec_type = CodecType::Http3 as i32;
    let transport = QuicDownstreamTransport { downstream_tls_context: Some(tls), ..Default::default() };
    let mut listener = listener(name, at, true, hcm);
    listener.filter_chains[0].transport_socket = socket("envoy.transport_sockets.quic", pack_any(transport));
    listener.udp_listener_config = Some(UdpListenerConfig { quic_options: Some(quic_options()), ..Default::default() });
    listener
}

/// A client whose last word was lost on the way is noticed by its silence, here soon enough for a test.
fn quic_options() -> QuicProtocolOptions {
    let silence = Duration { seconds: 20, nanos: 0 };
    let idle = QuicTimes { idle_network_timeout: Some(silence), ..Default::default() };
    QuicProtocolOptions { quic_protocol_options: Some(idle), ..Default::default() }
}

/// A listener for HTTP/1 and HTTP/2 in plaintext.
#[must_use]
pub fn plain_listener(name: &str, at: SocketAddr, hcm: HttpConnectionManager) -> Any {
    pack_any(listener(name, at, false, hcm))
}

/// A listener for HTTP/1 and HTTP/2 in plaintext, to be changed before it is packed.
#[must_use]
pub fn http_listener(name: &str, at: SocketAddr, hcm: HttpConnectionManager) -> Listener {
    listener(name, at, false, hcm)
}

fn listener(name: &str, at: SocketAddr, udp: bool, hcm: HttpConnectionManager) -> Listener {
    Listener {
        name: name.into(),
        address: Some(address(at, udp)),
        filter_chains: vec![chain("envoy.filters.network.http_connection_manager", pack_any(hcm))],
        ..Default::default()
    }
}

/// A listener that passes bytes to a cluster.
#[must_use]
pub fn tcp_listener(name: &str, at: SocketAddr, cluster: &str) -> Listener {
    Listener {
        name: name.into(),
        address: Some(address(at, false)),
        filter_chains: vec![tcp_chain(cluster)],
        ..Default::default()
    }
}

/// Passes bytes to a cluster.
#[must_use]
pub fn tcp_chain(cluster: &str) -> FilterChain {
    let proxy = TcpProxy {
        stat_prefix: "test".into(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    };
    chain("envoy.filters.network.tcp_proxy", pack_any(proxy))
}

fn chain(name: &str, config: Any) -> FilterChain {
    let filter = Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(config)) };
    FilterChain { filters: vec![filter], ..Default::default() }
}

/// A filter of a listener.
#[must_use]
pub fn listener_filter(config: Any) -> ListenerFilter {
    let name = config.type_url.clone();
    ListenerFilter { name, config_type: Some(listener_filter::ConfigType::TypedConfig(config)), ..Default::default() }
}

/// TLS is ended with this.
#[must_use]
pub fn tls_socket(tls: DownstreamTlsContext) -> Option<TransportSocket> {
    socket("envoy.transport_sockets.tls", pack_any(tls))
}

/// A header of the PROXY protocol goes before everything else.
#[must_use]
pub fn proxy_socket(version: Version) -> Option<TransportSocket> {
    let raw = socket("envoy.transport_sockets.raw_buffer", pack_any(RawBuffer {}));
    let config = ProxyProtocolConfig { version: version as i32, ..Default::default() };
    let transport =
        ProxyProtocolUpstreamTransport { config: Some(config), transport_socket: raw, ..Default::default() };
    socket("envoy.transport_sockets.upstream_proxy_protocol", pack_any(transport))
}

/// A cluster of one endpoint that speaks HTTP/1.
#[must_use]
pub fn http1_cluster(name: &str, at: SocketAddr) -> Any {
    pack_any(cluster(name, at, ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())))
}

/// A cluster of one endpoint that speaks HTTP/2 in plaintext.
#[must_use]
pub fn http2_cluster(name: &str, at: SocketAddr) -> Any {
    pack_any(cluster(name, at, ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())))
}

/// A cluster of one endpoint that speaks HTTP/3 and shows a certificate of `trust`, and is awaited for so many seconds.
#[must_use]
pub fn http3_cluster(name: &str, at: SocketAddr, seconds: i64, trust: &str) -> Any {
    let mut cluster = cluster(name, at, ProtocolConfig::Http3ProtocolOptions(Http3ProtocolOptions::default()));
    let tls = UpstreamTlsContext {
        common_tls_context: common(None, Some(trust)),
        sni: "localhost".into(),
        ..Default::default()
    };
    cluster.connect_timeout = Some(Duration { seconds, nanos: 0 });
    let transport = QuicUpstreamTransport { upstream_tls_context: Some(tls) };
    cluster.transport_socket = socket("envoy.transport_sockets.quic", pack_any(transport));
    pack_any(cluster)
}

/// A cluster of one endpoint, to be changed before it is packed.
#[must_use]
pub fn raw_cluster(name: &str, at: Address) -> Cluster {
    cluster_at(name, at, ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
}

fn cluster(name: &str, at: SocketAddr, version: ProtocolConfig) -> Cluster {
    cluster_at(name, address(at, false), version)
}

fn cluster_at(name: &str, at: Address, version: ProtocolConfig) -> Cluster {
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(version),
        })),
        ..Default::default()
    };
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint { address: Some(at), ..Default::default() })),
        ..Default::default()
    };
    Cluster {
        name: name.into(),
        connect_timeout: Some(Duration { seconds: 60, nanos: 0 }),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        typed_extension_protocol_options: [(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into(),
            pack_any(options),
        )]
        .into(),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.into(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
