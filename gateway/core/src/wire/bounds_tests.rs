//! Tests of single fields that must be there and within bounds, as Envoy's own checks want them.

use super::{Kind, decode};
use crate::testing::{any, hcm_message, listener_message, route_to, router, table_message};
use prost::Message;
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3 as c,
            core::v3 as core,
            endpoint::v3 as e,
            route::v3::{self as r, route_action as ra, route_match::PathSpecifier as P},
        },
        extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
        r#type::v3::FractionalPercent,
    },
    google::protobuf::{Duration, UInt32Value},
};

fn refused(kind: Kind, message: &impl Message) -> String {
    decode(kind, "", &message.encode_to_vec()).map(|_| ()).expect_err("should be refused").to_string()
}

/// Why a table is refused once its only host was spoilt.
fn host(spoil: impl Fn(&mut r::VirtualHost)) -> String {
    let mut table = table_message("t", &["a"], vec![route_to("c", P::Prefix("/".into()))]);
    spoil(&mut table.virtual_hosts[0]);
    refused(Kind::Routes, &table)
}

fn action(spoil: impl Fn(&mut r::RouteAction)) -> String {
    host(|host| {
        let Some(r::route::Action::Route(action)) = &mut host.routes[0].action else { panic!("no route") };
        spoil(action);
    })
}

fn manager(spoil: impl Fn(&mut HttpConnectionManager)) -> String {
    let mut manager = hcm_message("r", vec![router()]);
    spoil(&mut manager);
    refused(Kind::Listener, &listener_message("l", any(&manager)))
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[test]
fn hosts_and_routes_name_what_they_are_about() {
    assert!(host(|h| h.name.clear()).ends_with("virtual_hosts[0].name: empty"));
    assert!(host(|h| h.domains[0] = "a\nb".into()).contains("domains[0]: has the control character 0x0a"));
    assert!(host(|h| h.require_tls = 99).ends_with("require_tls: 99 is not known"));
    let query = r::QueryParameterMatcher::default();
    let with = |h: &mut r::VirtualHost| h.routes[0].r#match.as_mut().unwrap().query_parameters.push(query.clone());
    assert!(host(with).contains("match.query_parameters[0].name: empty"));
    let empty = ra::ClusterSpecifier::Cluster(String::new());
    assert!(action(|a| a.cluster_specifier = Some(empty.clone())).contains("route.cluster: empty"));
    let mirror = ra::RequestMirrorPolicy::default();
    assert!(action(|a| a.request_mirror_policies.push(mirror.clone())).contains("request_mirror_policies[0].cluster"));
    let upgrade = ra::UpgradeConfig::default();
    assert!(action(|a| a.upgrade_configs.push(upgrade.clone())).contains("upgrade_configs[0].upgrade_type: empty"));
    let cookie = ra::HashPolicy {
        policy_specifier: Some(ra::hash_policy::PolicySpecifier::Cookie(ra::hash_policy::Cookie::default())),
        ..Default::default()
    };
    assert!(action(|a| a.hash_policy.push(cookie.clone())).contains("hash_policy[0].cookie.name: empty"));
}

#[test]
fn a_back_off_of_no_time_is_refused() {
    let none = Some(Duration::default());
    let back_off = r::retry_policy::RetryBackOff { base_interval: none, max_interval: None };
    let retry = r::RetryPolicy { retry_back_off: Some(back_off), ..Default::default() };
    assert!(action(|a| a.retry_policy = Some(retry.clone())).ends_with("retry_back_off.base_interval: no time"));
}

#[test]
fn numbers_of_a_manager_keep_within_bounds() {
    for kb in [0, 8193] {
        let why = manager(|m| m.max_request_headers_kb = number(kb));
        assert!(why.ends_with(&format!("max_request_headers_kb: {kb} is not from 1 to 8192")), "{why}");
    }
    let common = core::HttpProtocolOptions { max_headers_count: number(0), ..Default::default() };
    assert!(manager(|m| m.common_http_protocol_options = Some(common)).contains("max_headers_count: 0"));
    let http2 = core::Http2ProtocolOptions { max_concurrent_streams: number(1 << 31), ..Default::default() };
    assert!(manager(|m| m.http2_protocol_options = Some(http2.clone())).contains("max_concurrent_streams: 2147483648"));
    assert!(manager(|m| m.forward_client_cert_details = 99).ends_with("forward_client_cert_details: 99 is not known"));
}

#[test]
fn times_end_where_nanoseconds_in_64_bits_do() {
    let timeout = |seconds| Some(Duration { seconds, nanos: 0 });
    assert!(action(|a| a.timeout = timeout(9_223_372_037)).ends_with("route.timeout: not a valid duration"));
    let mut table = table_message("t", &["a"], vec![route_to("c", P::Prefix("/".into()))]);
    let Some(r::route::Action::Route(action)) = &mut table.virtual_hosts[0].routes[0].action else {
        panic!("no route")
    };
    action.timeout = timeout(9_223_372_036);
    assert!(decode(Kind::Routes, "", &table.encode_to_vec()).is_ok());
}

#[test]
fn what_stands_twice_is_refused_and_what_has_no_name_is_left_out() {
    let upgrade = |kind: &str| ra::UpgradeConfig { upgrade_type: kind.into(), ..Default::default() };
    let twice = |a: &mut r::RouteAction| a.upgrade_configs = vec![upgrade("websocket"), upgrade("WebSocket")];
    assert!(action(twice).ends_with("upgrade_configs[1]: is there twice"));
    let mut table = table_message("t", &["a"], vec![route_to("c", P::Prefix("/".into()))]);
    table.internal_only_headers = vec![String::new(), "x-own".into()];
    table.request_headers_to_remove = vec![String::new()];
    assert!(decode(Kind::Routes, "", &table.encode_to_vec()).is_ok());
    table.internal_only_headers.push("a b".into());
    assert!(refused(Kind::Routes, &table).contains("internal_only_headers[2]"));
}

#[test]
fn clusters_keep_within_bounds() {
    let cluster = |spoil: &dyn Fn(&mut c::Cluster)| {
        let mut message = c::Cluster { name: "c".into(), ..Default::default() };
        spoil(&mut message);
        refused(Kind::Cluster, &message)
    };
    assert!(cluster(&|m| m.connect_timeout = Some(Duration::default())).ends_with("connect_timeout: no time"));
    let outlier = |spoil: fn(&mut c::OutlierDetection)| {
        let mut outlier = c::OutlierDetection::default();
        spoil(&mut outlier);
        cluster(&move |m| m.outlier_detection = Some(outlier.clone()))
    };
    assert!(
        outlier(|o| o.max_ejection_percent = number(101)).contains("max_ejection_percent: 101 is not from 0 to 100")
    );
    assert!(outlier(|o| o.enforcing_consecutive_5xx = number(101)).contains("enforcing_consecutive_5xx: 101"));
    assert!(outlier(|o| o.interval = Some(Duration::default())).contains("interval: no time"));
}

#[test]
fn what_is_dropped_is_one_share_of_at_most_all() {
    let drop = |numerator| e::cluster_load_assignment::policy::DropOverload {
        category: "a".into(),
        drop_percentage: Some(FractionalPercent { numerator, denominator: 0 }),
    };
    let why = |drop_overloads| {
        let policy = Some(e::cluster_load_assignment::Policy { drop_overloads, ..Default::default() });
        refused(Kind::Load, &e::ClusterLoadAssignment { cluster_name: "c".into(), policy, ..Default::default() })
    };
    assert!(why(vec![drop(101)]).contains("drop_overloads[0].drop_percentage: more than all"));
    assert!(why(vec![drop(1), drop(1)]).ends_with("drop_overloads: more than one category"));
}

#[test]
fn endpoints_have_an_address_a_port_and_a_weight() {
    let refused = |place: core::SocketAddress, weight: Option<UInt32Value>| {
        let address = core::Address { address: Some(core::address::Address::SocketAddress(place)) };
        let inner = e::Endpoint { address: Some(address), ..Default::default() };
        let endpoint = e::LbEndpoint {
            host_identifier: Some(e::lb_endpoint::HostIdentifier::Endpoint(inner)),
            load_balancing_weight: weight,
            ..Default::default()
        };
        let group = e::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
        let load = e::ClusterLoadAssignment {
            cluster_name: "c".into(),
            endpoints: vec![group],
            policy: None,
            ..Default::default()
        };
        refused(Kind::Load, &load)
    };
    let port = Some(core::socket_address::PortSpecifier::PortValue(80));
    let place = |address: &str, port_specifier| core::SocketAddress {
        address: address.into(),
        port_specifier,
        ..Default::default()
    };
    assert!(refused(place("", port.clone()), None).ends_with("socket_address.address: empty"));
    assert!(refused(place("10.0.0.1", None), None).ends_with("socket_address.port_value: missing"));
    assert!(refused(place("a.test", port.clone()), None).ends_with("\"a.test\" is not an IP address"));
    assert!(refused(place("10.0.0.1", port), number(0)).contains("lb_endpoints[0].load_balancing_weight: 0"));
}

#[test]
fn what_nobody_heeds_is_refused_by_name() {
    use tombolo_controlplane_api::xds::envoy::extensions::filters::network::tcp_proxy::v3 as t;
    let connect = ra::UpgradeConfig {
        upgrade_type: "CONNECT".into(),
        connect_config: Some(ra::upgrade_config::ConnectConfig { allow_post: true, ..Default::default() }),
        ..Default::default()
    };
    assert!(action(|a| a.upgrade_configs.push(connect.clone())).contains("connect_config.allow_post: not supported"));
    let proxy = t::TcpProxy {
        stat_prefix: "t".into(),
        tunneling_config: Some(t::tcp_proxy::TunnelingConfig { hostname: "a:1".into(), ..Default::default() }),
        cluster_specifier: Some(t::tcp_proxy::ClusterSpecifier::Cluster("c".into())),
        ..Default::default()
    };
    let why = refused(Kind::Listener, &listener_message("l", any(&proxy)));
    assert!(why.contains("tunneling_config: not supported"), "{why}");
}

#[test]
fn what_says_nothing_or_what_nobody_knows_is_refused() {
    assert!(action(|a| a.priority = 99).contains("priority: 99 is not known"));
    let hedge = r::HedgePolicy { initial_requests: number(0), ..Default::default() };
    assert!(action(|a| a.hedge_policy = Some(hedge)).contains("hedge_policy.initial_requests: 0"));
    let rule = r::RateLimit::default();
    assert!(action(|a| a.rate_limits.push(rule.clone())).contains("rate_limits[0].actions: empty"));
    assert!(host(|h| h.routes[0].decorator = Some(r::Decorator::default())).contains("decorator.operation: empty"));
    let mut listener = listener_message("l", any(&hcm_message("r", vec![router()])));
    listener.connection_balance_config = Some(Default::default());
    assert!(refused(Kind::Listener, &listener).contains("connection_balance_config.balance_type: missing"));
}
