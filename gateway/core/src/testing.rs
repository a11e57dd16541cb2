//! Small things that tests of several modules are made of.

use crate::{
    config::{
        Codec, Hcm, Http1Settings, Http2Settings, Limits, PathSettings, PortStripping, RequestId, RouteSource,
        RouteTable, ServerHeader, Timeouts, Underscores, Xfcc, XfccDetails,
    },
    head::{ConnInfo, Head},
    wire::{Kind, Resource, decode},
};
use http::{HeaderName, HeaderValue};
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{core::v3 as core, listener::v3 as pb_listener, route::v3 as pb_route},
        extensions::filters::{http::router::v3::Router, network::http_connection_manager::v3 as pb_hcm},
    },
    google::protobuf,
};

pub(crate) fn head(path: &str, headers: &[(&str, &str)]) -> Head {
    let mut head = Head { authority: "svc.test".into(), path: path.into(), ..Head::default() };
    for (name, value) in headers {
        head.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    head
}

pub(crate) fn conn() -> ConnInfo {
    let peer = Some("127.0.0.1:40000".parse().unwrap());
    ConnInfo { remote: peer, direct_remote: peer, local: Some("127.0.0.1:80".parse().unwrap()), ..ConnInfo::default() }
}

pub(crate) fn hcm() -> Hcm {
    Hcm {
        stat_prefix: "t".into(),
        codec: Codec::Auto,
        routes: RouteSource::Named(Arc::from("t")),
        fetch_timeout: crate::config::FetchTimeout::default(),
        filters: Box::default(),
        access_logs: Box::default(),
        use_remote_address: false,
        trusted_hops: 0,
        skip_xff_append: false,
        internal: crate::config::InternalAddresses::default(),
        xfcc: Xfcc::Sanitize,
        xfcc_details: XfccDetails::default(),
        path: PathSettings::default(),
        strip_port: PortStripping::Keep,
        strip_trailing_dot: false,
        server_name: HeaderValue::from_static("envoy"),
        server_header: ServerHeader::Overwrite,
        via: None,
        append_x_forwarded_port: false,
        scheme_overwrite: None,
        timeouts: Timeouts {
            idle: None,
            max_connection: None,
            max_stream: None,
            stream_idle: Some(Duration::from_secs(300)),
            request: None,
            request_headers: None,
            drain: Duration::from_secs(5),
            delayed_close: Duration::from_secs(1),
        },
        limits: Limits { headers_kb: 60, headers: 100, requests_per_connection: 0, underscores: Underscores::Allow },
        upgrades: Box::default(),
        request_id: RequestId {
            generate: true,
            preserve_external: false,
            in_response: false,
            pack_trace_reason: true,
            samples: true,
        },
        add_user_agent: false,
        proxy_100_continue: false,
        stream_error_on_invalid: false,
        http1: Http1Settings {
            accept_http_10: false,
            default_host: None,
            enable_trailers: false,
            proper_case: false,
            preserve_case: false,
            allow_chunked_length: false,
            allow_absolute_url: true,
            allow_custom_methods: false,
        },
        http2: Http2Settings {
            header_table_size: 4096,
            max_streams: None,
            stream_window: None,
            connection_window: None,
            allow_connect: false,
            stream_error_on_invalid: false,
            keepalive: None,
            max_outbound_frames: None,
        },
        http3: None,
        mesh_stats: false,
        local_reply: None,
        tracing: None,
    }
}

/// A message packed with its type.
pub(crate) fn any<M: prost::Name>(message: &M) -> protobuf::Any {
    protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// A source that says how long it may take.
pub(crate) fn ads_for(wait: Duration) -> core::ConfigSource {
    let seconds = i64::try_from(wait.as_secs()).unwrap();
    core::ConfigSource { initial_fetch_timeout: Some(protobuf::Duration { seconds, nanos: 0 }), ..ads() }
}

/// "Over the aggregated stream".
pub(crate) fn ads() -> core::ConfigSource {
    let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource::default());
    core::ConfigSource { config_source_specifier: Some(ads), ..core::ConfigSource::default() }
}

pub(crate) fn router() -> pb_hcm::HttpFilter {
    pb_hcm::HttpFilter {
        name: "router".into(),
        config_type: Some(pb_hcm::http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..pb_hcm::HttpFilter::default()
    }
}

/// A connection manager with the routes of that name.
pub(crate) fn hcm_message(routes: &str, http_filters: Vec<pb_hcm::HttpFilter>) -> pb_hcm::HttpConnectionManager {
    let rds = pb_hcm::Rds { config_source: Some(ads()), route_config_name: routes.into() };
    pb_hcm::HttpConnectionManager {
        stat_prefix: "t".into(),
        http_filters,
        route_specifier: Some(pb_hcm::http_connection_manager::RouteSpecifier::Rds(rds)),
        ..pb_hcm::HttpConnectionManager::default()
    }
}

/// A listener with one network filter.
pub(crate) fn listener_message(name: &str, filter: protobuf::Any) -> pb_listener::Listener {
    let socket = core::SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
        ..core::SocketAddress::default()
    };
    let filter = pb_listener::Filter {
        name: "f".into(),
        config_type: Some(pb_listener::filter::ConfigType::TypedConfig(filter)),
    };
    pb_listener::Listener {
        name: name.into(),
        address: Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) }),
        filter_chains: vec![pb_listener::FilterChain { filters: vec![filter], ..pb_listener::FilterChain::default() }],
        ..pb_listener::Listener::default()
    }
}

/// A route to a cluster.
pub(crate) fn route_to(cluster: &str, path: pb_route::route_match::PathSpecifier) -> pb_route::Route {
    let action = pb_route::RouteAction {
        cluster_specifier: Some(pb_route::route_action::ClusterSpecifier::Cluster(cluster.into())),
        ..pb_route::RouteAction::default()
    };
    pb_route::Route {
        r#match: Some(pb_route::RouteMatch { path_specifier: Some(path), ..pb_route::RouteMatch::default() }),
        action: Some(pb_route::route::Action::Route(action)),
        ..pb_route::Route::default()
    }
}

/// A table with one virtual host.
pub(crate) fn table_message(
    name: &str,
    domains: &[&str],
    routes: Vec<pb_route::Route>,
) -> pb_route::RouteConfiguration {
    let host = pb_route::VirtualHost {
        name: "v".into(),
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        routes,
        ..pb_route::VirtualHost::default()
    };
    pb_route::RouteConfiguration {
        name: name.into(),
        virtual_hosts: vec![host],
        ..pb_route::RouteConfiguration::default()
    }
}

/// A table as it is decoded.
pub(crate) fn table(message: &pb_route::RouteConfiguration) -> Arc<RouteTable> {
    match decode(Kind::Routes, "", &message.encode_to_vec()) {
        Ok(Resource::Routes(table)) => table,
        other => panic!("{other:?}"),
    }
}

/// A cluster without settings or endpoints.
pub(crate) fn cluster(name: &str) -> Arc<crate::config::Cluster> {
    let message =
        tombolo_controlplane_api::xds::envoy::config::cluster::v3::Cluster { name: name.into(), ..Default::default() };
    match decode(Kind::Cluster, "", &message.encode_to_vec()) {
        Ok(Resource::Cluster(cluster)) => cluster,
        other => panic!("{other:?}"),
    }
}
