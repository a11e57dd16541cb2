//! Clusters of names, with a name server of the test's own.
#![expect(deprecated, reason = "control planes send Envoy's older fields")]

use crate::{
    build::{address, duration},
    moody::{Moody, Names, SILENT},
    process::eventually,
    upstream::{answers, behind},
};
use std::{
    net::SocketAddr,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType, LbPolicy, RefreshRate},
            },
            core::v3::{Address, SocketAddress, TypedExtensionConfig, address as at, socket_address::PortSpecifier},
        },
        extensions::{
            clusters::dynamic_forward_proxy::v3::{
                ClusterConfig as Forward, cluster_config::ClusterImplementationSpecifier,
            },
            common::dynamic_forward_proxy::v3::DnsCacheConfig,
            network::dns_resolver::cares::v3::CaresDnsResolverConfig,
        },
    },
};

fn asking(server: SocketAddr) -> Option<TypedExtensionConfig> {
    let config = CaresDnsResolverConfig { resolvers: vec![address(server)], ..Default::default() };
    Some(TypedExtensionConfig { name: "cares".into(), typed_config: Some(pack_any(config)) })
}

/// A cluster of one name at a port.
fn named(kind: DiscoveryType, server: SocketAddr, port: u16) -> Cluster {
    of_name("shop.test.", kind, server, port)
}

fn of_name(name: &str, kind: DiscoveryType, server: SocketAddr, port: u16) -> Cluster {
    let place = Address {
        address: Some(at::Address::SocketAddress(SocketAddress {
            address: name.into(),
            port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
            ..Default::default()
        })),
    };
    let mut load = crate::build::endpoints("a", &["127.0.0.1:1".parse().unwrap()]);
    for endpoint in load.endpoints.iter_mut().flat_map(|group| &mut group.lb_endpoints) {
        use tombolo_controlplane_api::xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
        if let Some(HostIdentifier::Endpoint(endpoint)) = &mut endpoint.host_identifier {
            endpoint.address = Some(place.clone());
        }
    }
    Cluster {
        name: "a".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind as i32)),
        load_assignment: Some(load),
        connect_timeout: Some(duration(Duration::from_secs(60))),
        dns_refresh_rate: Some(duration(Duration::from_secs(60))),
        respect_dns_ttl: true,
        typed_dns_resolver_config: asking(server),
        ..Default::default()
    }
}

/// A start waits for names no longer than this.
const FIRST_NAMES: Duration = Duration::from_secs(5);
/// A new version waits for its names no longer than this.
const WARM_UP: Duration = Duration::from_secs(15);

#[tokio::test]
async fn answers_count_for_as_long_as_they_say() {
    let (origin, begun) = (Moody::start("one").await, Instant::now());
    let names = Names::start(&[[127, 0, 0, 9]], 1).await;
    let a = named(DiscoveryType::StrictDns, names.address, origin.address.port());
    let (_ads, gateway, at) = behind([a], [], &[]).await;
    // Nobody listens at the first address.
    eventually("the first answer is in use", async || {
        crate::client::get(gateway.admin, "/clusters").await.unwrap().body.contains("127.0.0.9:")
    })
    .await;
    assert!(answers(at, 1).await.contains_key("503"));
    names.script.lock().unwrap().0 = vec![[127, 0, 0, 1]];
    eventually("the next answer is in use", async || answers(at, 1).await.contains_key("one")).await;
    // The first question, and one more for each second that passed at the most.
    let most = 2 + begun.elapsed().as_secs();
    assert!((2..=most).contains(&names.questions.load(SeqCst).into()), "asked once a second");
    // A server that fails takes nothing away; a name that is gone does.
    names.script.lock().unwrap().2 = 2;
    let asked = names.questions.load(SeqCst);
    eventually("it is asked again", async || names.questions.load(SeqCst) > asked).await;
    assert!(answers(at, 3).await.contains_key("one"));
}

#[tokio::test]
async fn nobody_is_served_before_names_are_known_and_old_ones_serve_until_new_ones_are() {
    for kind in [DiscoveryType::StrictDns, DiscoveryType::LogicalDns] {
        let origin = Moody::start("one").await;
        let names = Names::start(&[[127, 0, 0, 1]], 60).await;
        let a = named(kind, names.address, origin.address.port());
        let begun = Instant::now();
        let (ads, gateway, at) = behind([a], [], &[]).await;
        // Who believes `/ready` is not told that there is no endpoint.
        if begun.elapsed() < FIRST_NAMES {
            assert!(answers(at, 1).await.contains_key("one"));
        }
        eventually("the name is known", async || answers(at, 1).await.contains_key("one")).await;
        names.script.lock().unwrap().2 = SILENT;
        let (asked, begun) = (names.questions.load(SeqCst), Instant::now());
        ads.set([("a", of_name("other.test.", kind, names.address, origin.address.port()))]);
        eventually("the new name is asked for", async || names.questions.load(SeqCst) > asked).await;
        // The workers have what there is by now.
        eventually("the new version is here", async || {
            crate::client::get(gateway.admin, "/config_dump").await.unwrap().body.contains("other.test.")
        })
        .await;
        let found = answers(at, 3).await;
        assert!(found.get("one") == Some(&3) || begun.elapsed() > WARM_UP, "{kind:?}: {found:?}");
    }
}

#[tokio::test]
async fn every_address_is_an_endpoint_and_a_lost_name_has_none() {
    let origin = Moody::start("one").await;
    let names = Names::start(&[[127, 0, 0, 1], [127, 0, 0, 9]], 1).await;
    let mut a = named(DiscoveryType::StrictDns, names.address, origin.address.port());
    a.dns_failure_refresh_rate = Some(RefreshRate {
        base_interval: Some(duration(Duration::from_millis(100))),
        max_interval: Some(duration(Duration::from_millis(200))),
    });
    let (_ads, gateway, at) = behind([a], [], &[]).await;
    eventually("both are endpoints", async || {
        let clusters = crate::client::get(gateway.admin, "/clusters").await.unwrap().body;
        clusters.contains("127.0.0.9:") && clusters.contains("127.0.0.1:")
    })
    .await;
    names.script.lock().unwrap().2 = 3;
    eventually("nobody is left", async || crate::client::get(at, "/").await.unwrap().body == "no healthy upstream")
        .await;
}

#[tokio::test]
async fn a_logical_endpoint_is_reached_by_whichever_address_answers() {
    let origin = Moody::start("one").await;
    let names = Names::start(&[[127, 0, 0, 9], [127, 0, 0, 1]], 60).await;
    let a = named(DiscoveryType::LogicalDns, names.address, origin.address.port());
    let (_ads, gateway, at) = behind([a], [], &[]).await;
    eventually("the name is resolved", async || {
        crate::client::get(gateway.admin, "/clusters").await.unwrap().body.contains("127.0.0.9:")
    })
    .await;
    let asked = names.questions.load(SeqCst);
    assert_eq!(answers(at, 3).await["one"], 3);
    assert_eq!(names.questions.load(SeqCst), asked);
}

#[tokio::test]
async fn hosts_of_requests_are_resolved() {
    let origin = Moody::start("one").await;
    let names = Names::start(&[[127, 0, 0, 1]], 60).await;
    let cache =
        DnsCacheConfig { name: "c".into(), typed_dns_resolver_config: asking(names.address), ..Default::default() };
    let config = Forward {
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(cache)),
        ..Default::default()
    };
    let a = Cluster {
        name: "a".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.dynamic_forward_proxy".into(),
            typed_config: Some(pack_any(config)),
        })),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..Default::default()
    };
    let (_ads, _gateway, at) = behind([a], [], &[]).await;
    let host = format!("some.test:{}", origin.address.port());
    assert_eq!(crate::client::get_host(at, &host, "/").await.body, "one");
    // One, or more where the first answer came too late.
    let asked = names.questions.load(SeqCst);
    for _ in 0..2 {
        assert_eq!(crate::client::get_host(at, &host, "/").await.body, "one");
    }
    assert_eq!(names.questions.load(SeqCst), asked);
}
