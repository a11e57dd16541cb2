//! Labels and series without traffic.

use super::*;
use crate::{telemetry::series, upstream::keeper::Upstream};
use prost::Message as _;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tombolo_controlplane_api::xds::{
    envoy::config::{cluster::v3 as pb, core::v3::Metadata},
    google::protobuf::{ListValue, Struct, Value as Field, value::Kind as Sort},
};
use tombolo_federation_model::Identity;
use tombolo_gateway_core::{config::Discovery, wire};

fn end(identity: &str) -> OtherEnd {
    OtherEnd {
        identity: Identity::parse(identity).unwrap(),
        own: Arc::from("spiffe://east.local/ns/shop/sa/own"),
        numbers: Cell::new(None),
        told: RefCell::new(None),
    }
}

fn labels() -> Labels {
    Labels::new(Arc::default(), Arc::default(), &Announcement::default())
}

fn words(namespace: &str) -> HeaderMap {
    words_of(namespace, "web-v1")
}

fn words_of(namespace: &str, workload: &str) -> HeaderMap {
    let metadata = serde_json::json!({"NAMESPACE": namespace, "WORKLOAD_NAME": workload, "LABELS": {"app": "web"}});
    let node = crate::node::Identity::new("sidecar~1.2.3.4~web-0.shop~x", "c", metadata.as_object().unwrap());
    let mut headers = HeaderMap::new();
    node.announcement.put(&mut headers);
    headers
}

#[test]
fn a_side_says_unknown_for_what_it_does_not_know() {
    let text = side_labels(Role::Source, &WorkloadFacts { workload: "w".into(), ..WorkloadFacts::default() });
    assert!(text.starts_with("source_workload=\"w\",source_workload_namespace=\"unknown\""), "{text}");
}

#[test]
fn numbers_are_stable_and_bounded() {
    let labels = labels();
    let numbers = &labels.numbers;
    let first = numbers.number("a", NO_SOURCE);
    assert_eq!(numbers.number("a", NO_SOURCE), first);
    for n in 0..MOST + 10 {
        numbers.number(&n.to_string(), NO_SOURCE);
    }
    assert_eq!(numbers.len(), MOST);
    assert_eq!(numbers.number("one more", NO_PRINCIPAL), NO_PRINCIPAL);
    assert_eq!(&*numbers.text(NO_PRINCIPAL), UNKNOWN);
}

/// A cluster that stands for a service of its own.
fn service(name: &str) -> Rc<Cluster> {
    let text = |text: &str| Field { kind: Some(Sort::StringValue(text.into())) };
    let fields = |name: &str, value| Struct { fields: [(name.to_owned(), value)].into() };
    let service = Field { kind: Some(Sort::StructValue(fields("host", text(name)))) };
    let services = Field { kind: Some(Sort::ListValue(ListValue { values: vec![service] })) };
    let filter_metadata = [("istio".to_owned(), fields("services", services))].into();
    let metadata = Some(Metadata { filter_metadata, ..Default::default() });
    let message = pb::Cluster { name: name.into(), metadata, ..Default::default() };
    let wire::Resource::Cluster(cluster) = wire::decode(wire::Kind::Cluster, name, &message.encode_to_vec()).unwrap()
    else {
        panic!()
    };
    let Discovery::Static(load) = cluster.discovery.clone() else { panic!() };
    Cluster::new(name.into(), Arc::new(Upstream::idle(cluster, load, None)), 0, 0)
}

fn asked<'a>(cluster: &'a Cluster, end: &'a OtherEnd, told: Told) -> Finished<'a> {
    Finished {
        cluster: Some(cluster),
        endpoint: None,
        end: Some(end),
        told,
        status: 200,
        grpc: None,
        is_grpc: false,
        flags: Flags::NONE,
        micros: 1,
        received: 1,
        sent: 1,
    }
}

/// Thrice the series that there may be, and thrice the texts, as each brings two.
const END: usize = 12_288;

/// Three times as many as there is room for, of everything that a cluster brings: its service, its servers' names, and what
/// these tell of themselves.
#[test]
fn clusters_that_come_and_go_leave_room_for_others() {
    let labels = labels();
    let side = Side { inbound: false, id: NO_SOURCE, end: None, mutual_tls: false };
    let ask = |n: usize| {
        let cluster = service(&format!("service-{n}"));
        let server = end(&format!("spiffe://east.local/ns/shop/sa/server-{n}"));
        // Telling takes a test the longest; not everybody does.
        let mut headers = if n.is_multiple_of(6) { words_of("shop", &format!("w-{n}")) } else { HeaderMap::new() };
        let destination = labels.hear(Role::Destination, Some(&server), Some(&cluster), &mut headers);
        labels.request(&side, &asked(&cluster, &server, Told { source: None, destination }));
        cluster
    };
    let first = ask(0);
    for n in 1..END {
        ask(n);
    }
    let last = ask(END);
    let shown = || {
        let mut out = String::new();
        series::expose(std::slice::from_ref(&labels.tables), &mut out);
        let lines = out.lines().filter(|line| line.starts_with("istio_requests_total{"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = shown();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, n) in lines.iter().zip([0, END]) {
        for part in [format!("\"service-{n}\""), format!("/server-{n}\""), format!("\"w-{n}\"")] {
            assert!(line.contains(&part), "{part} is not in {line}");
        }
    }
    drop((first, last));
    labels.tidy();
    assert!(shown().is_empty());
}

#[test]
fn only_a_peer_of_the_mesh_is_believed_and_only_about_its_own_namespace() {
    let (labels, peer) = (labels(), end("spiffe://east.local/ns/shop/sa/web"));
    let mut headers = words("shop");
    assert_eq!(labels.hear(Role::Source, None, None, &mut headers), None);
    assert!(headers.is_empty(), "the words of strangers go no further either");
    let number = labels.hear(Role::Source, Some(&peer), None, &mut words("shop")).unwrap();
    let text = labels.numbers.text(number);
    assert!(text.contains("source_workload=\"web-v1\"") && text.contains("source_app=\"web\""), "{text}");
    assert_eq!(labels.hear(Role::Source, Some(&peer), None, &mut words("shop")), Some(number));
    assert_eq!(labels.hear(Role::Source, Some(&peer), None, &mut words("bank")), None);
    let odd = end("spiffe://east.local/odd");
    assert_eq!(labels.hear(Role::Source, Some(&odd), None, &mut words("shop")), None);
}

#[test]
fn the_words_of_others_cannot_take_all_the_room() {
    let (labels, peer) = (labels(), end("spiffe://east.local/ns/shop/sa/web"));
    for n in 0..MOST {
        labels.numbers.number(&n.to_string(), NO_SOURCE);
        if labels.numbers.len() >= MOST_TOLD {
            break;
        }
    }
    assert_eq!(labels.hear(Role::Source, Some(&peer), None, &mut words("shop")), None);
}

#[test]
fn each_reporter_names_both_principals() {
    let labels = labels();
    let peer = end("spiffe://west.local/ns/shop/sa/web");
    for inbound in [true, false] {
        let side = Side { inbound, id: NO_SOURCE, end: inbound.then(|| peer.clone()), mutual_tls: inbound };
        let text = labels.pair(labels.between(&side, None, None, Some(&peer), Told::default()));
        let (source, destination) = if inbound { ("west.local", "east.local") } else { ("east.local", "west.local") };
        assert!(text.contains(&format!("source_principal=\"spiffe://{source}")), "{text}");
        assert!(text.contains(&format!("destination_principal=\"spiffe://{destination}")), "{text}");
    }
}
