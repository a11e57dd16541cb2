//! Tests of what clusters say about choosing, checking and resolving.

use super::{Kind, Resource, decode};
use crate::config::{
    Cluster, Discovery, HealthCheckKind, LbPolicy, LocalityMode, PeakEwma, SubsetFallback, SubsetSettings,
};
use prost::{Message as _, Name as _};
use std::time::Duration;
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3::{
                self as c, CircuitBreakers, OutlierDetection,
                circuit_breakers::Thresholds,
                cluster::{self as cc, LbPolicy as Legacy, RefreshRate},
                load_balancing_policy::Policy,
            },
            core::v3::{
                self as core, HeaderValue, HeaderValueOption, HealthCheck, TypedExtensionConfig,
                health_check::{CustomHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck, TlsOptions},
            },
        },
        extensions::{
            load_balancing_policies::{
                common::v3::{LocalityLbConfig, locality_lb_config as llc},
                round_robin::v3::RoundRobin,
                subset::v3::{Subset, subset::LbSubsetSelector},
            },
            network::dns_resolver::{cares::v3::CaresDnsResolverConfig, hickory::v3::HickoryDnsResolverConfig},
        },
        r#type::{
            matcher::v3::{StringMatcher, string_matcher::MatchPattern},
            v3::Int64Range,
        },
    },
    google::protobuf::{self, Any, Struct, UInt32Value, value::Kind as ValueKind},
};

fn plain() -> c::Cluster {
    c::Cluster { name: "c".into(), ..Default::default() }
}

fn accepted(message: &c::Cluster) -> std::sync::Arc<Cluster> {
    match decode(Kind::Cluster, "c", &message.encode_to_vec()) {
        Ok(Resource::Cluster(cluster)) => cluster,
        Ok(_) => panic!("no cluster"),
        Err(refusal) => panic!("{refusal}"),
    }
}

fn refused(message: &c::Cluster) -> String {
    match decode(Kind::Cluster, "c", &message.encode_to_vec()) {
        Ok(_) => panic!("accepted"),
        Err(refusal) => refusal.to_string(),
    }
}

fn seconds(seconds: i64) -> Option<protobuf::Duration> {
    Some(protobuf::Duration { seconds, nanos: 0 })
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn check(checker: HealthChecker) -> HealthCheck {
    HealthCheck {
        timeout: seconds(1),
        interval: seconds(5),
        unhealthy_threshold: number(3),
        healthy_threshold: number(2),
        health_checker: Some(checker),
        ..Default::default()
    }
}

fn with_check(check: HealthCheck) -> c::Cluster {
    c::Cluster { health_checks: vec![check], ..plain() }
}

#[test]
fn every_field_of_a_check_is_taken() {
    let header = HeaderValueOption {
        header: Some(HeaderValue { key: "x-a".into(), value: "b".into(), ..Default::default() }),
        ..Default::default()
    };
    let name = StringMatcher { match_pattern: Some(MatchPattern::Prefix("shop".into())), ..Default::default() };
    let http = HttpHealthCheck {
        path: "/ready".into(),
        host: "h".into(),
        expected_statuses: vec![Int64Range { start: 200, end: 300 }],
        retriable_statuses: vec![Int64Range { start: 500, end: 504 }],
        request_headers_to_add: vec![header],
        request_headers_to_remove: vec!["user-agent".into()],
        service_name_matcher: Some(name),
        ..Default::default()
    };
    let full = HealthCheck {
        initial_jitter: seconds(1),
        interval_jitter: seconds(1),
        interval_jitter_percent: 10,
        unhealthy_edge_interval: seconds(2),
        healthy_edge_interval: seconds(3),
        no_traffic_healthy_interval: seconds(90),
        event_log_path: "/dev/null".into(),
        always_log_health_check_failures: true,
        tls_options: Some(TlsOptions { alpn_protocols: vec!["http/1.1".into()] }),
        transport_socket_match_criteria: Some(Struct::default()),
        ..check(HealthChecker::HttpHealthCheck(http))
    };
    let cluster = accepted(&with_check(full));
    let check = cluster.health_check.as_ref().unwrap();
    assert_eq!(check.unhealthy_interval, Duration::from_secs(5));
    assert_eq!(check.unhealthy_edge_interval, Duration::from_secs(2));
    assert_eq!(check.healthy_edge_interval, Duration::from_secs(3));
    assert_eq!((check.no_traffic_interval.as_secs(), check.no_traffic_healthy_interval.as_secs()), (60, 90));
    assert!(
        matches!(&check.kind, HealthCheckKind::Http { expected, service: Some(_), .. } if **expected == [(200, 300)])
    );
}

#[test]
fn checks_that_cannot_be_done_are_refused_by_name() {
    let custom = CustomHealthCheck { name: "envoy.health_checkers.redis".into(), ..Default::default() };
    let found = refused(&with_check(check(HealthChecker::CustomHealthCheck(custom))));
    assert_eq!(found, "c: health_checks[0].custom_health_check envoy.health_checkers.redis: not supported");
    let tcp = check(HealthChecker::TcpHealthCheck(TcpHealthCheck::default()));
    let twice = c::Cluster { health_checks: vec![tcp.clone(), tcp.clone()], ..plain() };
    assert_eq!(refused(&twice), "c: health_checks: more than one");
    assert!(refused(&with_check(HealthCheck { timeout: None, ..tcp })).contains("timeout: missing"));
}

#[test]
fn unknown_numbers_of_enumerations_are_refused_by_name() {
    assert_eq!(refused(&c::Cluster { lb_policy: 99, ..plain() }), "c: lb_policy: 99 is not known");
    assert_eq!(refused(&c::Cluster { dns_lookup_family: 9, ..plain() }), "c: dns_lookup_family: 9 is not known");
    assert!(refused(&c::Cluster { protocol_selection: 9, ..plain() }).contains("protocol_selection: 9 is not known"));
}

#[test]
fn bounds_of_endpoints_and_of_ejections() {
    let per_host = |threshold| c::Cluster {
        circuit_breakers: Some(CircuitBreakers { per_host_thresholds: vec![threshold], ..Default::default() }),
        ..plain()
    };
    let cluster = accepted(&per_host(Thresholds { max_connections: number(7), priority: 1, ..Default::default() }));
    assert_eq!(cluster.breakers.per_host_connections_high, Some(7));
    assert_eq!(cluster.breakers.per_host_connections, None);
    assert!(refused(&per_host(Thresholds { max_requests: number(7), ..Default::default() })).contains("max_requests"));
    let thresholds = vec![
        Thresholds { max_requests: number(1), ..Default::default() },
        Thresholds { max_requests: number(2), ..Default::default() },
    ];
    let breakers = CircuitBreakers { thresholds, ..Default::default() };
    let cluster = accepted(&c::Cluster { circuit_breakers: Some(breakers), ..plain() });
    assert_eq!(cluster.breakers.default.requests, 1, "of two for one priority the first counts");
    let short = OutlierDetection { max_ejection_time: seconds(10), ..Default::default() };
    let found = refused(&c::Cluster { outlier_detection: Some(short), ..plain() });
    assert_eq!(found, "c: outlier_detection.max_ejection_time: shorter than base_ejection_time");
}

fn policy(config: Any) -> c::Cluster {
    let config = TypedExtensionConfig { name: "p".into(), typed_config: Some(config) };
    let policies = vec![Policy { typed_extension_config: Some(config) }];
    c::Cluster { load_balancing_policy: Some(c::LoadBalancingPolicy { policies }), ..plain() }
}

fn any<M: prost::Message + prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

#[test]
fn newer_policies() {
    let zone = llc::ZoneAwareLbConfig {
        force_local_zone: Some(llc::zone_aware_lb_config::ForceLocalZone { min_size: number(4) }),
        locality_basis: 1,
        fail_traffic_on_panic: true,
        ..Default::default()
    };
    let locality =
        LocalityLbConfig { locality_config_specifier: Some(llc::LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) };
    let robin = RoundRobin { locality_lb_config: Some(locality), ..Default::default() };
    let settings = accepted(&policy(any(&robin))).lb.clone();
    assert!(settings.fail_on_panic);
    assert_eq!(
        settings.locality,
        LocalityMode::ZoneAware {
            routing_enabled: 100.0,
            min_cluster_size: 6,
            force_local: Some(4),
            fail_on_panic: true,
            by_weight: true,
        }
    );
    let inner = c::LoadBalancingPolicy { policies: policy(any(&robin)).load_balancing_policy.unwrap().policies };
    let selector = LbSubsetSelector { keys: vec!["v".into()], single_host_per_subset: true, ..Default::default() };
    let subset = Subset {
        fallback_policy: 1,
        subset_selectors: vec![selector.clone()],
        subset_lb_policy: Some(inner),
        ..Default::default()
    };
    let settings = accepted(&policy(any(&subset))).lb.clone();
    assert!(matches!(settings.subsets.as_deref(), Some(SubsetSettings { fallback: SubsetFallback::Any, .. })));
    let two = Subset { subset_selectors: vec![selector.clone(), selector], ..subset };
    assert!(refused(&policy(any(&two))).contains("single_host_per_subset"));
}

#[test]
fn peak_ewma_is_named_in_a_struct() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Typed {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(message, optional, tag = "2")]
        value: Option<Struct>,
    }
    let typed = |fields: &[(&str, &str)]| {
        let text = |v: &str| protobuf::Value { kind: Some(ValueKind::StringValue(v.into())) };
        let message = Typed {
            type_url: "type.googleapis.com/tombolo.load_balancing_policies.peak_ewma.v1.PeakEwma".into(),
            value: Some(Struct { fields: fields.iter().map(|(k, v)| ((*k).into(), text(v))).collect() }),
        };
        policy(Any { type_url: "type.googleapis.com/xds.type.v3.TypedStruct".into(), value: message.encode_to_vec() })
    };
    let policy = accepted(&typed(&[("decay", "2.5s")])).lb.policy.clone();
    let want = PeakEwma { decay: Duration::from_millis(2500), unknown: Duration::from_millis(30) };
    assert_eq!(policy, LbPolicy::PeakEwma(want));
    assert!(refused(&typed(&[("decay", "soon")])).contains("not a time"));
    assert!(refused(&typed(&[("speed", "1s")])).contains("speed: not supported"));
}

#[test]
fn resolvers() {
    let typed = |config| c::Cluster {
        typed_dns_resolver_config: Some(TypedExtensionConfig { name: "r".into(), typed_config: Some(config) }),
        cluster_discovery_type: Some(cc::ClusterDiscoveryType::Type(cc::DiscoveryType::StrictDns as i32)),
        dns_failure_refresh_rate: Some(RefreshRate { base_interval: seconds(1), max_interval: None }),
        lb_policy: Legacy::RoundRobin as i32,
        ..plain()
    };
    let server = core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: "10.0.0.1".into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(0)),
            ..Default::default()
        })),
    };
    let cares = CaresDnsResolverConfig { resolvers: vec![server], query_tries: number(2), ..Default::default() };
    let cluster = accepted(&typed(any(&cares)));
    let Discovery::StrictDns(_, settings) = &cluster.discovery else { panic!("{:?}", cluster.discovery) };
    assert_eq!((&*settings.resolver.servers, settings.resolver.tries), (&["10.0.0.1:53".parse().unwrap()][..], 2));
    assert_eq!(settings.failure, Some((Duration::from_secs(1), Duration::from_secs(10))));
    let other = HickoryDnsResolverConfig::default();
    assert!(refused(&typed(any(&other))).contains(&HickoryDnsResolverConfig::full_name()));
}
