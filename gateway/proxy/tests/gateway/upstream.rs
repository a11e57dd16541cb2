//! Endpoints that come and go: health checks, outliers, fail-over, breakers, limits of connections.

use crate::{
    build::{self, cluster, duration, endpoints, hcm, http_chain, listener, routes, to},
    client::{Connection, get, get_host},
    moody::{Moody, grpc_health},
    origin::Origin,
    process::{Gateway, Options, eventually},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::{
                cluster::v3::{
                    CircuitBreakers, Cluster, LoadBalancingPolicy, OutlierDetection,
                    circuit_breakers::Thresholds,
                    cluster::{
                        ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, LbConfig, LbPolicy,
                        OriginalDstLbConfig,
                    },
                    load_balancing_policy,
                },
                core::v3::{
                    HealthCheck, HttpProtocolOptions as Common, Locality, TypedExtensionConfig,
                    health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload},
                },
                endpoint::v3::ClusterLoadAssignment,
            },
            extensions::{
                clusters::aggregate::v3::ClusterConfig as Aggregate,
                load_balancing_policies::{
                    override_host::v3::{OverrideHost, override_host::OverrideHostSource},
                    round_robin::v3::RoundRobin,
                },
                transport_sockets::{proxy_protocol::v3::ProxyProtocolUpstreamTransport, raw_buffer::v3::RawBuffer},
                upstreams::http::v3::{
                    HttpProtocolOptions,
                    http_protocol_options::{
                        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                    },
                },
            },
            r#type::v3::Percent,
        },
        google::protobuf::{UInt32Value, UInt64Value},
    },
};
use tombolo_tests_kit::{ads::Ads, free};

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn ms(millis: u64) -> Option<tombolo_controlplane_api::xds::google::protobuf::Duration> {
    Some(duration(Duration::from_millis(millis)))
}

/// Checks that are quick enough for a test: often, but with all the time for an answer that a busy machine may need.
fn checked(mut cluster: Cluster, checker: HealthChecker) -> Cluster {
    cluster.health_checks = vec![HealthCheck {
        timeout: ms(60_000),
        interval: ms(40),
        no_traffic_interval: ms(40),
        unhealthy_threshold: number(2),
        healthy_threshold: number(2),
        health_checker: Some(checker),
        ..Default::default()
    }];
    cluster
}

fn http_check() -> HealthChecker {
    HealthChecker::HttpHealthCheck(HttpHealthCheck { path: "/healthz".into(), ..Default::default() })
}

/// Without panic: nobody healthy means nobody.
fn strict(mut cluster: Cluster) -> Cluster {
    cluster.common_lb_config =
        Some(CommonLbConfig { healthy_panic_threshold: Some(Percent { value: 0.0 }), ..Default::default() });
    cluster
}

/// A gateway with one listener that sends everything to `a`.
pub async fn behind(
    clusters: impl IntoIterator<Item = Cluster>,
    loads: impl IntoIterator<Item = ClusterLoadAssignment>,
    more: &[&str],
) -> (Ads, Gateway, SocketAddr) {
    let ads = Ads::start().await;
    let at = free();
    ads.set(clusters.into_iter().map(|c| (c.name.clone(), c)));
    ads.set(loads.into_iter().map(|l| (l.cluster_name.clone(), l)));
    ads.set([("r", routes("r", &[("*", vec![to("/", "a")])]))]);
    ads.set([("l", listener("l", at, vec![http_chain(hcm("r"))]))]);
    let mut options = Options::new(ads.address);
    options.more = more.iter().map(|s| (*s).to_owned()).collect();
    let gateway = Gateway::ready(&options).await;
    (ads, gateway, at)
}

/// How often each answer came.
pub async fn answers(at: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut connection = Connection::open(at).await;
    for _ in 0..count {
        let got = connection.get("h", "/").await.unwrap();
        let key = if got.status == 200 { got.body } else { got.status.to_string() };
        *counts.entry(key).or_default() += 1;
    }
    counts
}

async fn only(at: SocketAddr, name: &str) {
    eventually(&format!("all requests get {name}"), async || {
        let found = answers(at, 6).await;
        found.len() == 1 && found.contains_key(name)
    })
    .await;
}

async fn both(at: SocketAddr) {
    eventually("both answer", async || answers(at, 6).await.len() == 2).await;
}

#[tokio::test]
async fn http_checks_take_an_endpoint_out_and_back() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let a = checked(cluster("a"), http_check());
    let (_ads, gateway, at) = behind([a], [endpoints("a", &[one.address, two.address])], &[]).await;
    both(at).await;
    assert!(one.checks.load(SeqCst) > 0);
    one.health.store(500, SeqCst);
    only(at, "two").await;
    let clusters = get(gateway.admin, "/clusters").await.unwrap().body;
    assert!(clusters.contains(&format!("a::{}::health_flags::/failed_active_hc", one.address)), "{clusters}");
    assert!(clusters.contains(&format!("a::{}::health_flags::healthy", two.address)), "{clusters}");
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("tombolo_gateway_cluster_endpoints_healthy{cluster=\"a\"} 1"), "{metrics}");
    one.health.store(200, SeqCst);
    both(at).await;
    let connections = one.connections.load(SeqCst);
    let checks = one.checks.load(SeqCst);
    eventually("more checks", async || one.checks.load(SeqCst) > checks + 5).await;
    assert_eq!(one.connections.load(SeqCst), connections, "checks keep their connection");
}

#[tokio::test]
async fn listeners_wait_for_the_first_round() {
    let one = Moody::start("one").await;
    one.health.store(503, SeqCst);
    let a = strict(checked(cluster("a"), http_check()));
    let (_ads, _gateway, at) = behind([a], [endpoints("a", &[one.address])], &[]).await;
    let got = get(at, "/").await.unwrap();
    assert_eq!((got.status, got.body.as_str()), (503, "no healthy upstream"));
    one.health.store(200, SeqCst);
    only(at, "one").await;
}

#[tokio::test]
async fn a_new_cluster_is_looked_at_before_it_serves() {
    let (zero, one, two) = (Moody::start("zero").await, Moody::start("one").await, Moody::start("two").await);
    two.health.store(503, SeqCst);
    let (ads, _gateway, at) = behind([cluster("a")], [endpoints("a", &[zero.address])], &[]).await;
    only(at, "zero").await;
    let b = checked(cluster("b"), http_check());
    ads.set([cluster("a"), b].map(|c| (c.name.clone(), c)));
    let loads = [endpoints("a", &[zero.address]), endpoints("b", &[one.address, two.address])];
    ads.set(loads.map(|l| (l.cluster_name.clone(), l)));
    ads.set([("r", routes("r", &[("*", vec![to("/", "b")])]))]);
    eventually("the new cluster serves", async || {
        let found = answers(at, 6).await;
        assert!(!found.contains_key("two"), "nothing goes to what was not looked at: {found:?}");
        found.get("one") == Some(&6)
    })
    .await;
}

#[tokio::test]
async fn tcp_checks_look_for_bytes() {
    let origin = Origin::tcp().await;
    let text = |hex: &str| Payload { payload: Some(payload::Payload::Text(hex.into())) };
    let check = |expect: &str| {
        HealthChecker::TcpHealthCheck(TcpHealthCheck {
            send: Some(text("70696e67")),
            receive: vec![text(expect)],
            ..Default::default()
        })
    };
    let (good, mut bad) = (checked(cluster("good"), check("50494e47")), checked(cluster("bad"), check("ffff")));
    bad.health_checks[0].timeout = ms(300);
    let loads = [endpoints("good", &[origin.address]), endpoints("bad", &[origin.address])];
    let (_ads, gateway, _) = behind([good, bad], loads, &[]).await;
    eventually("one is healthy, the other is not", async || {
        let clusters = get(gateway.admin, "/clusters").await.unwrap().body;
        clusters.contains(&format!("good::{}::health_flags::healthy", origin.address))
            && clusters.contains(&format!("bad::{}::health_flags::/failed_active_hc/active_hc_timeout", origin.address))
    })
    .await;
}

#[tokio::test]
async fn grpc_checks_ask_the_health_service() {
    let number = Arc::new(std::sync::atomic::AtomicU8::new(1));
    let (address, _server) = grpc_health(number.clone()).await;
    let check = HealthChecker::GrpcHealthCheck(GrpcHealthCheck { service_name: "shop".into(), ..Default::default() });
    let a = strict(checked(build::http2(cluster("a")), check));
    let (_ads, _gateway, at) = behind([a], [endpoints("a", &[address])], &[]).await;
    only(at, "served").await;
    number.store(2, SeqCst);
    only(at, "503").await;
    number.store(1, SeqCst);
    only(at, "served").await;
}

#[tokio::test]
async fn degraded_endpoints_wait_for_the_others_to_fail() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    *one.headers.lock().unwrap() = "x-envoy-degraded: 1\r\n".into();
    let a = checked(cluster("a"), http_check());
    let (_ads, _gateway, at) = behind([a], [endpoints("a", &[one.address, two.address])], &[]).await;
    eventually("most go to the good one", async || {
        let found = answers(at, 40).await;
        found.get("two").copied().unwrap_or(0) > found.get("one").copied().unwrap_or(0)
    })
    .await;
    two.health.store(500, SeqCst);
    only(at, "one").await;
}

#[tokio::test]
async fn an_endpoint_may_ask_to_be_left_alone() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let mut a = checked(cluster("a"), http_check());
    // Checks do not come back to it within the test.
    for check in &mut a.health_checks {
        (check.interval, check.no_traffic_interval) = (ms(60_000), ms(60_000));
    }
    let (_ads, gateway, at) = behind([a], [endpoints("a", &[one.address, two.address])], &[]).await;
    both(at).await;
    *one.headers.lock().unwrap() = "x-envoy-immediate-health-check-fail: 1\r\n".into();
    only(at, "two").await;
    let clusters = get(gateway.admin, "/clusters").await.unwrap().body;
    assert!(clusters.contains("/failed_active_hc/excluded_via_immediate_hc_fail"), "{clusters}");
}

#[tokio::test]
async fn good_checks_keep_what_discovery_forgot() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let a = checked(cluster("a"), http_check());
    let (ads, gateway, at) = behind([a], [endpoints("a", &[one.address, two.address])], &[]).await;
    both(at).await;
    ads.set([("a", endpoints("a", &[two.address]))]);
    eventually("it is marked", async || {
        get(gateway.admin, "/clusters").await.unwrap().body.contains("/pending_dynamic_removal")
    })
    .await;
    both(at).await;
    one.health.store(500, SeqCst);
    only(at, "two").await;
    let clusters = get(gateway.admin, "/clusters").await.unwrap().body;
    assert!(!clusters.contains(&one.address.to_string()), "{clusters}");
}

#[tokio::test]
async fn outliers_are_ejected_and_come_back() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let mut a = cluster("a");
    a.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: number(3),
        interval: ms(100),
        base_ejection_time: ms(400),
        max_ejection_percent: number(50),
        ..Default::default()
    });
    let (_ads, gateway, at) = behind([a], [endpoints("a", &[one.address, two.address])], &[]).await;
    both(at).await;
    one.status.store(500, SeqCst);
    only(at, "two").await;
    // It comes back after a while, and is ejected again.
    eventually("it is shown as ejected", async || {
        answers(at, 6).await;
        get(gateway.admin, "/clusters").await.unwrap().body.contains("/failed_outlier_check")
    })
    .await;
    one.status.store(200, SeqCst);
    both(at).await;
}

/// A load of several priorities.
fn levels(name: &str, addresses: &[SocketAddr]) -> ClusterLoadAssignment {
    let mut load = endpoints(name, &[]);
    load.endpoints = (0..)
        .zip(addresses)
        .map(|(priority, address)| {
            let mut group = endpoints(name, &[*address]).endpoints.remove(0);
            group.priority = priority;
            group
        })
        .collect();
    load
}

#[tokio::test]
async fn the_next_priority_takes_over() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let a = checked(cluster("a"), http_check());
    let (_ads, _gateway, at) = behind([a], [levels("a", &[one.address, two.address])], &[]).await;
    only(at, "one").await;
    one.health.store(500, SeqCst);
    only(at, "two").await;
    one.health.store(200, SeqCst);
    only(at, "one").await;
}

fn aggregate(members: &[&str]) -> Cluster {
    let config = Aggregate { clusters: members.iter().map(|m| (*m).into()).collect() };
    Cluster {
        name: "a".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.aggregate".into(),
            typed_config: Some(pack_any(config)),
        })),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..Default::default()
    }
}

#[tokio::test]
async fn an_aggregate_fails_over_to_its_next_member() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let clusters = [aggregate(&["b", "nowhere", "c"]), checked(cluster("b"), http_check()), cluster("c")];
    let loads = [endpoints("b", &[one.address]), endpoints("c", &[two.address])];
    let (ads, _gateway, at) = Box::pin(behind(clusters, loads, &[])).await;
    only(at, "one").await;
    one.health.store(500, SeqCst);
    only(at, "two").await;
    one.health.store(200, SeqCst);
    only(at, "one").await;
    ads.set([("b".to_owned(), endpoints("b", &[])), ("c".to_owned(), endpoints("c", &[two.address]))]);
    one.health.store(500, SeqCst);
    only(at, "two").await;
}

#[tokio::test]
async fn too_many_requests_overflow() {
    let one = Moody::start("one").await;
    let mut a = cluster("a");
    a.circuit_breakers = Some(CircuitBreakers {
        thresholds: vec![Thresholds { max_requests: number(1), track_remaining: true, ..Default::default() }],
        ..Default::default()
    });
    let (_ads, gateway, at) = behind([a], [endpoints("a", &[one.address])], &[]).await;
    let slow = tokio::spawn(async move { get_host(at, "h", "/slow").await.status });
    let remaining =
        "tombolo_gateway_cluster_breaker_remaining{cluster=\"a\",priority=\"default\",resource=\"requests\"} 0";
    eventually("the first is under way", async || gateway.metrics().await.contains(remaining)).await;
    let got = get(at, "/").await.unwrap();
    assert_eq!((got.status, got.header("x-envoy-overloaded")), (503, "true"));
    assert_eq!(got.body.len(), 81);
    one.let_go.add_permits(1);
    assert_eq!(slow.await.unwrap(), 200);
    assert_eq!(get(at, "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_endpoint_may_have_few_connections() {
    let one = Moody::start("one").await;
    let mut a = cluster("a");
    a.circuit_breakers = Some(CircuitBreakers {
        per_host_thresholds: vec![Thresholds { max_connections: number(1), ..Default::default() }],
        ..Default::default()
    });
    let (_ads, _gateway, at) = behind([a], [endpoints("a", &[one.address])], &[]).await;
    let requests: Vec<_> = (0..3).map(|_| tokio::spawn(async move { get_host(at, "h", "/").await.status })).collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(one.connections.load(SeqCst), 1);
}

fn limited(common: Common) -> Cluster {
    let mut a = cluster("a");
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(common),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::HttpProtocolOptions(Default::default())),
        })),
        ..Default::default()
    };
    a.typed_extension_protocol_options
        .insert("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into(), pack_any(options));
    a
}

#[tokio::test]
async fn connections_live_as_long_as_they_may() {
    let one = Moody::start("one").await;
    let a = limited(Common { max_requests_per_connection: number(2), ..Default::default() });
    let (ads, _gateway, at) = behind([a], [endpoints("a", &[one.address])], &[]).await;
    assert_eq!(answers(at, 6).await["one"], 6);
    assert_eq!(one.connections.load(SeqCst), 3);
    ads.set([("a", limited(Common { idle_timeout: ms(100), ..Default::default() }))]);
    eventually("idle connections are closed", async || {
        let before = one.connections.load(SeqCst);
        answers(at, 1).await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
        answers(at, 1).await;
        one.connections.load(SeqCst) > before
    })
    .await;
    ads.set([("a", limited(Common { max_connection_duration: ms(50), ..Default::default() }))]);
    eventually("old connections are replaced", async || {
        answers(at, 1).await;
        let before = one.connections.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(60)).await;
        answers(at, 2).await;
        one.connections.load(SeqCst) > before
    })
    .await;
}

#[tokio::test]
async fn upstreams_hear_who_the_client_is() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut a = cluster("a");
    let inner = build::socket("envoy.transport_sockets.raw_buffer", pack_any(RawBuffer::default()));
    let transport = ProxyProtocolUpstreamTransport { transport_socket: Some(inner), ..Default::default() };
    a.transport_socket = Some(build::socket("envoy.transport_sockets.upstream_proxy_protocol", pack_any(transport)));
    let (_ads, _gateway, at) = behind([a], [endpoints("a", &[address])], &[]).await;
    let client = tokio::spawn(async move { get(at, "/").await.unwrap().status });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|w| w == b"\r\n\r\n") {
        stream.read_buf(&mut seen).await.unwrap();
    }
    let seen = String::from_utf8(seen).unwrap();
    let (first, rest) = seen.split_once("\r\n").unwrap();
    assert!(first.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ") && first.ends_with(&at.port().to_string()), "{first}");
    assert!(rest.starts_with("GET / HTTP/1.1\r\n"), "{rest}");
    stream.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
    assert_eq!(client.await.unwrap(), 204);
}

#[tokio::test]
async fn a_header_may_name_the_endpoint() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let policy = |name: &str, config| load_balancing_policy::Policy {
        typed_extension_config: Some(TypedExtensionConfig { name: name.into(), typed_config: Some(config) }),
    };
    let inner = LoadBalancingPolicy { policies: vec![policy("rr", pack_any(RoundRobin::default()))] };
    let outer = OverrideHost {
        override_host_sources: vec![OverrideHostSource { header: "x-to".into(), ..Default::default() }],
        fallback_policy: Some(inner),
        ..Default::default()
    };
    let mut a = cluster("a");
    a.load_balancing_policy = Some(LoadBalancingPolicy { policies: vec![policy("o", pack_any(outer))] });
    let (_ads, _gateway, at) = behind([a], [endpoints("a", &[one.address, two.address])], &[]).await;
    both(at).await;
    for _ in 0..6 {
        let request = http::Request::get("/").header("host", "h").header("x-to", two.address.to_string());
        let got = Connection::open(at).await.send(request.body(Default::default()).unwrap()).await.unwrap();
        assert_eq!(got.body, "two");
    }
}

#[tokio::test]
async fn requests_go_where_a_header_says() {
    let one = Moody::start("one").await;
    let a = Cluster {
        name: "a".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        lb_config: Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
            use_http_header: true,
            ..Default::default()
        })),
        ..Default::default()
    };
    let (_ads, _gateway, at) = behind([a], [], &[]).await;
    let send = async |to: &str| {
        let request = http::Request::get("/").header("host", "h").header("x-envoy-original-dst-host", to);
        Connection::open(at).await.send(request.body(Default::default()).unwrap()).await.unwrap()
    };
    assert_eq!(send(&one.address.to_string()).await.body, "one");
    assert_eq!(send("nonsense").await.status, 503);
    assert_eq!(get(at, "/").await.unwrap().status, 503, "nothing was redirected: there is no original destination");
}

fn in_zone(name: &str, zones: &[(&str, &[SocketAddr])]) -> ClusterLoadAssignment {
    let mut load = endpoints(name, &[]);
    load.endpoints = zones
        .iter()
        .map(|(zone, addresses)| {
            let mut group = endpoints(name, addresses).endpoints.remove(0);
            group.locality = Some(Locality { region: "r".into(), zone: (*zone).into(), sub_zone: String::new() });
            group
        })
        .collect();
    load
}

#[tokio::test]
async fn requests_stay_in_their_zone() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let mut a = cluster("a");
    use tombolo_controlplane_api::xds::envoy::config::cluster::v3::cluster::common_lb_config as clc;
    a.common_lb_config = Some(CommonLbConfig {
        locality_config_specifier: Some(clc::LocalityConfigSpecifier::ZoneAwareLbConfig(clc::ZoneAwareLbConfig {
            min_cluster_size: Some(UInt64Value { value: 1 }),
            ..Default::default()
        })),
        ..Default::default()
    });
    let metadata = tempfile::NamedTempFile::new().unwrap();
    let labels = r#"{"LABELS": {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "west"}}"#;
    std::fs::write(metadata.path(), labels).unwrap();
    let own = [free(), free()];
    let loads = [
        in_zone("a", &[("east", &[one.address]), ("west", &[two.address])]),
        in_zone("own", &[("east", &own[..1]), ("west", &own[1..])]),
    ];
    let more = ["--local-cluster", "own", "--metadata-file", metadata.path().to_str().unwrap()];
    let (ads, _gateway, at) = behind([a, cluster("own")], loads, &more).await;
    only(at, "two").await;
    // The whole fleet is in the west: half of it must go elsewhere.
    let loads =
        [in_zone("a", &[("east", &[one.address]), ("west", &[two.address])]), in_zone("own", &[("west", &own)])];
    ads.set(loads.map(|load| (load.cluster_name.clone(), load)));
    both(at).await;
}
