//! Series of metrics: they go with the cluster that they are about, so that others find room.

use crate::{
    build::{cluster, endpoints, filtered, http_chain, listener, mesh_stats, routes, to},
    client::get,
    moody::Moody,
    process::{Gateway, Options, eventually},
};
use std::{collections::BTreeSet, net::SocketAddr};
use tombolo_controlplane_api::xds::{
    envoy::config::{
        cluster::v3::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::v3::Metadata,
    },
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};
use tombolo_tests_kit::{ads::Ads, free};

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct { fields: fields.map(|(name, value)| (name.to_owned(), value)).into() }
}

/// A cluster that stands for a service of its own.
fn service(name: &str, origin: SocketAddr) -> Cluster {
    let service = fields([("host", text(name)), ("name", text(name)), ("namespace", text("n"))]);
    let services = ListValue { values: vec![Value { kind: Some(Kind::StructValue(service)) }] };
    let services = fields([("services", Value { kind: Some(Kind::ListValue(services)) })]);
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        eds_cluster_config: None,
        load_assignment: Some(endpoints(name, &[origin])),
        metadata: Some(Metadata { filter_metadata: [("istio".to_owned(), services)].into(), ..Default::default() }),
        ..cluster(name)
    }
}

/// The services of which there are counts of requests.
async fn counted(gateway: &Gateway) -> BTreeSet<String> {
    let metrics = gateway.metrics().await;
    let label = |line: &str| Some(line.split_once("destination_service=\"")?.1.split_once('"')?.0.to_owned());
    let lines = metrics.lines().filter(|line| line.starts_with("istio_requests_total{"));
    lines.map(|line| label(line).unwrap_or_else(|| line.to_owned())).collect()
}

#[tokio::test]
async fn a_series_goes_with_its_cluster_and_one_that_two_clusters_share_stays_with_the_other() {
    let origin = Moody::start("one").await;
    let (ads, at) = (Ads::start().await, free());
    let subset = |name: &str| Cluster {
        name: name.into(),
        load_assignment: Some(endpoints(name, &[origin.address])),
        ..service("shared", origin.address)
    };
    ads.set([("one", subset("one")), ("two", subset("two")), ("own", service("own", origin.address))]);
    ads.set([("r", routes("r", &[("*", ["one", "two", "own"].map(|name| to(&format!("/{name}"), name)).to_vec())]))]);
    ads.set([("l", listener("l", at, vec![http_chain(filtered(vec![mesh_stats()]))]))]);
    let gateway = Gateway::ready(&Options::new(ads.address)).await;
    for path in ["/one", "/two", "/own"] {
        assert_eq!(get(at, path).await.unwrap().status, 200);
    }
    let both: BTreeSet<String> = ["own", "shared"].map(str::to_owned).into();
    eventually("both are counted", async || counted(&gateway).await == both).await;
    ads.set([("two", subset("two"))]);
    eventually("what had one cluster is gone", async || !counted(&gateway).await.contains("own")).await;
    assert!(counted(&gateway).await.contains("shared"));
    assert_eq!(get(at, "/two").await.unwrap().status, 200);
    let metrics = gateway.metrics().await;
    let line =
        |line: &&str| line.starts_with("istio_requests_total{") && line.contains("destination_service=\"shared\"");
    let count = metrics.lines().find(line).and_then(|line| line.rsplit_once(' ')).unwrap().1;
    assert_eq!(count, "3", "it goes on counting");
}
