//! Subsets that cross sites: what gateways make of those that peers use, and which ones peers are told.

use super::{fixtures::*, show};
use crate::{Input, ProxyId, Step, intent::*};
use std::collections::BTreeMap;
use tombolo_federation_model::*;
use tombolo_federation_registry::{ExportPolicy, Item};
use tombolo_federation_sync::Snapshot;

/// Site east, which exports reviews v1 and v2, with an east-west gateway and a sidecar.
fn entered() -> (Mesh, ProxyId, ProxyId) {
    let mut site = site();
    site.export = ExportPolicy::All;
    let mut mesh = Mesh::of(site);
    for cluster in ["east", "west"] {
        mesh.service(cluster, "reviews", &[(9080, Protocol::Http)]);
    }
    mesh.workload("east", "reviews-v1-0", "127.1.1.1", "version=v1");
    mesh.workload("east", "reviews-v2-0", "127.1.1.2", "version=v2");
    mesh.workload("west", "reviews-v1-1", "127.2.1.1", "version=v1");
    let auto = server(15443, Protocol::Tls, &["*.local"], Some(ServerTlsMode::AutoPassthrough));
    mesh.intent(Intent::Gateway(gateway("cross", 1, vec![auto])));
    let gateway = mesh.attach(router("cross-0", "istio=ingress"));
    let client = mesh.attach(sidecar("ratings-0", "127.1.1.9"));
    (mesh, gateway, client)
}

fn tell(mesh: &mut Mesh, peer: &str, subsets: &[(&str, &str)]) {
    let named: BTreeMap<String, Labels> =
        subsets.iter().map(|(name, with)| ((*name).to_owned(), labels(with))).collect();
    let subsets = if named.is_empty() { Subsets::new() } else { Subsets::from([(host("reviews"), named)]) };
    mesh.tell(Input::RemoteSubsets { peer: SiteName::parse(peer).unwrap(), subsets });
}

fn server_name(subset: &str) -> String {
    format!("outbound_.9080_.{subset}_.reviews.default.svc.cluster.local")
}

/// The addresses behind a server name; `None` when the gateway does not know it, in whatever part.
fn behind(snapshot: &Snapshot, subset: &str) -> Option<Vec<String>> {
    let name = server_name(subset);
    let chain = show::listeners_text(snapshot).contains(&format!("[||{name}] tcp_proxy"));
    let upstream = show::clusters(snapshot).iter().any(|cluster| cluster.name == name);
    let text = show::endpoints_text(snapshot);
    let assigned = text.split_once(&format!("  {name}\n")).map(|(_, rest)| {
        let lines = rest.lines().take_while(|line| line.starts_with("    "));
        lines.filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
    });
    assert!(chain == upstream && upstream == assigned.is_some(), "half of {name}: {}", show::all(snapshot));
    assigned
}

#[test]
fn a_gateway_serves_the_subsets_that_peers_use() {
    let (mut mesh, gateway, client) = entered();
    let (before, of_client) = (mesh.snapshot(gateway), mesh.snapshot(client));
    assert_eq!(behind(&before, "late"), None);
    tell(&mut mesh, "west", &[("late", "version=v2")]);
    let step = mesh.engine.step(mesh.now);
    assert_eq!(step.changed.iter().collect::<Vec<_>>(), [&gateway], "nobody but the gateway");
    assert_eq!(behind(&mesh.snapshot(gateway), "late").unwrap(), ["127.1.1.2:9080"], "only what stands here");
    assert_eq!(mesh.snapshot(client), of_client);
    tell(&mut mesh, "west", &[]);
    assert_eq!(mesh.snapshot(gateway).types, before.types);
}

#[test]
fn the_own_definition_of_a_subset_wins() {
    let (mut mesh, gateway, _) = entered();
    tell(&mut mesh, "west", &[("v1", "version=v2"), ("v2", "version=v2")]);
    mesh.intent(Intent::Destination(destination("reviews", "reviews", &[("v1", "version=v1")])));
    let snapshot = mesh.snapshot(gateway);
    assert_eq!(behind(&snapshot, "v1").unwrap(), ["127.1.1.1:9080"]);
    assert_eq!(behind(&snapshot, "v2").unwrap(), ["127.1.1.2:9080"]);
    mesh.forget(meta("DestinationRule", "default", "reviews", 0).object);
    assert_eq!(behind(&mesh.snapshot(gateway), "v1").unwrap(), ["127.1.1.2:9080"]);
}

#[test]
fn of_two_peers_the_first_by_name_is_believed() {
    let (mut mesh, gateway, _) = entered();
    tell(&mut mesh, "west", &[("new", "version=v1")]);
    tell(&mut mesh, "north", &[("new", "version=v2")]);
    assert_eq!(behind(&mesh.snapshot(gateway), "new").unwrap(), ["127.1.1.2:9080"]);
    tell(&mut mesh, "north", &[]);
    assert_eq!(behind(&mesh.snapshot(gateway), "new").unwrap(), ["127.1.1.1:9080"]);
}

#[test]
fn what_is_not_exported_stays_closed_whatever_peers_use() {
    let mut mesh = shop();
    let auto = server(15443, Protocol::Tls, &["*.local"], Some(ServerTlsMode::AutoPassthrough));
    mesh.intent(Intent::Gateway(gateway("cross", 1, vec![auto])));
    tell(&mut mesh, "west", &[("late", "version=v1")]);
    let gateway = mesh.attach(router("cross-0", "istio=ingress"));
    assert_eq!(show::listeners_text(&mesh.snapshot(gateway)), "listeners\n");
    assert!(!show::clusters_text(&mesh.snapshot(gateway)).contains("late"));
}

fn step(mesh: &mut Mesh) -> Step {
    mesh.engine.step(mesh.now)
}

#[test]
fn peers_are_told_the_subsets_of_what_lives_elsewhere() {
    let mut mesh = Mesh::new();
    mesh.service("east", "reviews", &[(9080, Protocol::Http)]);
    mesh.workload("east", "reviews-v1-0", "127.1.1.1", "version=v1");
    mesh.intent(Intent::Destination(destination("one", "reviews", &[("v1", "version=v1")])));
    mesh.intent(Intent::Destination(destination("any", "*.default.svc.cluster.local", &[("v9", "")])));
    step(&mut mesh);
    assert_eq!(mesh.engine.exports().subsets, Subsets::new(), "all of it lives here");
    mesh.service("west", "reviews", &[(9080, Protocol::Http)]);
    mesh.workload("west", "reviews-v2-0", "127.2.1.1", "version=v2");
    assert!(step(&mut mesh).exports_changed);
    let v1 = ("v1".to_owned(), labels("version=v1"));
    assert_eq!(mesh.engine.exports().subsets, Subsets::from([(host("reviews"), BTreeMap::from([v1.clone()]))]));
    // A younger object adds names; it does not change those that an older one has.
    let mut younger = destination("two", "reviews", &[("v1", "version=v0"), ("v2", "version=v2")]);
    younger.meta.created = 200;
    mesh.intent(Intent::Destination(younger.clone()));
    assert!(step(&mut mesh).exports_changed);
    let both = BTreeMap::from([v1, ("v2".to_owned(), labels("version=v2"))]);
    assert_eq!(mesh.engine.exports().subsets, Subsets::from([(host("reviews"), both)]));
    // A policy is nothing that peers see.
    younger.policy.proxy_protocol = Some(2);
    mesh.intent(Intent::Destination(younger));
    assert!(!step(&mut mesh).exports_changed);
    mesh.remove("west", Item::Workload(workload("west", "reviews-v2-0", "127.2.1.1", "version=v2")).key());
    assert!(step(&mut mesh).exports_changed);
    assert_eq!(mesh.engine.exports().subsets, Subsets::new());
}
