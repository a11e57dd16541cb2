//! What each rule of the registry means, by example.

use crate::{
    Event, ExportPolicy, Freshness, Item, ItemKey, Millis, Registry, RegistrySettings,
    fixtures::{
        LEASE, cluster, endpoints, export, gateway, host, key, labels, list, namespace, own, peer, port, seen, service,
        settings, slice, workload, written,
    },
};
use std::sync::Arc;
use tombolo_federation_model::{Health, Host, Resolution, Scope, Service, TargetPort, TlsMode, WorkloadAddress};

fn registry() -> Registry {
    let mut registry = Registry::new(RegistrySettings::default());
    registry.declare(own("east", "k8s"), settings("east", true), Millis(0));
    registry.declare(own("east", "files"), settings("east", true), Millis(0));
    registry.declare(peer("west"), settings("west", false), Millis(0));
    registry
}

fn simple() -> Vec<Item> {
    vec![Item::Service(service("east", "a")), Item::Workload(workload("east", "a1", "app=a,version=v1"))]
}

fn share() -> Vec<Item> {
    let imported = Service { selector: None, ..service("west", "a") };
    vec![Item::Service(imported), slice("a", vec![written("w1", [10, 9, 0, 1], 8080)])]
}

#[test]
fn workloads_are_picked_whichever_source_of_the_cluster_reports_them() {
    let mut registry = registry();
    list(&mut registry, &own("east", "k8s"), 1, vec![Item::Service(service("east", "a"))], 0);
    assert_eq!(seen(&mut registry, "a"), "");
    list(&mut registry, &own("east", "files"), 1, vec![Item::Workload(workload("east", "a1", "app=a"))], 0);
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080");
    let endpoint = registry.service(&key("a")).unwrap().endpoints[0].clone();
    assert_eq!(endpoint.identity.as_ref().unwrap().to_string(), "spiffe://east.local/ns/default/sa/default");
    assert_eq!(endpoint.network.as_str(), "net-east");
    assert_eq!(endpoint.locality.to_string(), "east");
}

#[test]
fn ports_are_found_by_number_by_name_and_where_they_are_really_served() {
    let mut registry = registry();
    let mut a = service("east", "a");
    a.ports =
        vec![port(80, "http", TargetPort::Name("web".to_owned())), port(81, "no", TargetPort::Name("none".to_owned()))];
    let mut a1 = workload("east", "a1", "app=a");
    a1.ports.insert("web".to_owned(), 80);
    a1.served_ports.insert(80, 10_080);
    let mut plain = workload("east", "a2", "app=a");
    plain.tls = TlsMode::Disabled;
    let items = vec![Item::Service(a), Item::Workload(a1), Item::Workload(plain)];
    list(&mut registry, &own("east", "k8s"), 1, items, 0);
    // The second workload has no port of that name: it does not serve the service.
    assert_eq!(seen(&mut registry, "a"), "east/a1:10080");
}

#[test]
fn registrations_name_the_service_port() {
    let mut registry = registry();
    let entry = Service { resolution: Resolution::Static, scope: Scope::External, ..service("east", "a") };
    let mut vm = workload("east", "vm1", "app=a");
    vm.ports.insert("http".to_owned(), 9999);
    list(&mut registry, &own("east", "k8s"), 1, vec![Item::Service(entry), Item::Workload(vm)], 0);
    assert_eq!(seen(&mut registry, "a"), "east/vm1:9999");
}

#[test]
fn unhealthy_workloads_stay_listed() {
    let mut registry = registry();
    let mut a1 = workload("east", "a1", "app=a");
    a1.health = Health::Unhealthy;
    list(&mut registry, &own("east", "k8s"), 1, vec![Item::Service(service("east", "a")), Item::Workload(a1)], 0);
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080!");
}

#[test]
fn one_service_in_two_clusters_is_one_and_the_local_definition_decides() {
    let mut registry = registry();
    let mut a = service("east", "a");
    a.addresses = vec!["10.96.0.1".parse().unwrap()];
    a.created = 900;
    list(&mut registry, &own("east", "k8s"), 1, vec![Item::Service(a), simple()[1].clone()], 0);
    let mut imported = Service { selector: None, created: 1, ..service("west", "a") };
    imported.addresses = vec!["10.96.0.1".parse().unwrap(), "10.97.0.2".parse().unwrap()];
    imported.subject_alt_names = vec!["spiffe://evil".to_owned()];
    imported.ports = vec![port(80, "grpc", TargetPort::Number(80)), port(90, "admin", TargetPort::Number(90))];
    let items = vec![Item::Service(imported), slice("a", vec![written("w1", [10, 0, 0, 49], 8080)])];
    list(&mut registry, &peer("west"), 1, items, 0);
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080");
    let merged = registry.service(&key("a")).unwrap();
    assert_eq!(merged.clusters, [cluster("east"), cluster("west")]);
    assert_eq!(merged.addresses, ["10.96.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert!(merged.subject_alt_names.is_empty() && !merged.imported);
    assert_eq!(
        merged.ports.iter().map(|port| (port.number, port.name.as_str())).collect::<Vec<_>>(),
        [(80, "http"), (90, "admin")]
    );
    assert_eq!(registry.diagnostics().map(|d| d.code.as_str()).collect::<Vec<_>>(), ["PORT_CONFLICT"]);
}

#[test]
fn overlapping_addresses_of_two_clusters_stay_two_endpoints() {
    let mut registry = registry();
    list(&mut registry, &own("east", "k8s"), 1, simple(), 0);
    let imported = Service { selector: None, ..service("west", "a") };
    // The same workload name and the same address as in the east.
    let items = vec![Item::Service(imported), slice("a", vec![written("a1", [10, 0, 0, b'1'], 8080)])];
    list(&mut registry, &peer("west"), 1, items, 0);
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080 west/a1:8080");
}

#[test]
fn a_service_that_is_only_imported_has_no_addresses() {
    let mut registry = registry();
    list(&mut registry, &peer("west"), 1, share(), 0);
    assert_eq!(seen(&mut registry, "a"), "west/w1:8080");
    let merged = registry.service(&key("a")).unwrap();
    assert!(merged.imported && merged.addresses.is_empty() && !merged.exported);
    assert_eq!(merged.endpoints[0].network.as_str(), "net-west");
}

#[test]
fn describing_a_registered_service_from_outside_only_adds_names() {
    let mut registry = registry();
    let mut entry = Service { resolution: Resolution::Static, created: 1, selector: None, ..service("east", "a") };
    entry.name = "squatter".to_owned();
    entry.subject_alt_names = vec!["also".to_owned()];
    entry.addresses = vec!["1.1.1.1".parse().unwrap()];
    let Item::Slice(mut inline) = slice("a", vec![written("", [6, 6, 6, 6], 666)]) else { unreachable!() };
    inline.name = "entry/squatter/a".to_owned();
    let items = [simple(), vec![Item::Service(entry), Item::Slice(inline)]].concat();
    list(&mut registry, &own("east", "k8s"), 1, items, 0);
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080");
    let merged = registry.service(&key("a")).unwrap();
    assert!(merged.addresses.is_empty());
    assert_eq!(merged.subject_alt_names, ["also"]);
    assert_eq!(registry.diagnostics().map(|d| d.code.as_str()).collect::<Vec<_>>(), ["SERVICE_SHADOWED"]);
}

#[test]
fn two_descriptions_of_a_host_join_their_ports_and_keep_their_endpoints_apart() {
    let mut registry = registry();
    let describe = |name: &str, created, port| {
        let mut entry = Service { resolution: Resolution::Static, selector: None, created, ..service("east", "x") };
        entry.name = name.to_owned();
        entry.ports = vec![port];
        entry.origin = tombolo_federation_model::ObjectRef::new("ServiceEntry", "default", name, "east");
        Item::Service(entry)
    };
    let inline = |name: &str, address| {
        let Item::Slice(mut inline) = slice("x", vec![written("", address, 1)]) else { unreachable!() };
        inline.name = name.to_owned();
        inline.endpoints[0].ports.clear();
        Item::Slice(inline)
    };
    let first = describe("one", 5, port(80, "http", TargetPort::Number(8080)));
    let second = describe("two", 6, port(443, "https", TargetPort::Number(8443)));
    let items = vec![first, second, inline("one", [1, 0, 0, 1]), inline("two", [1, 0, 0, 2])];
    list(&mut registry, &own("east", "k8s"), 1, items, 0);
    assert_eq!(seen(&mut registry, "x"), "east/1.0.0.1:8080 east/1.0.0.2:8443");
    let merged = registry.service(&key("x")).unwrap();
    assert_eq!(merged.name, "one");
    assert_eq!(merged.ports.len(), 2);
}

#[test]
fn a_written_out_endpoint_that_names_a_workload_takes_what_is_known_of_it() {
    let mut registry = registry();
    let a = Service { selector: None, ..service("east", "a") };
    let mut entry = written("a1", [10, 0, 0, 7], 80);
    entry.identity = None;
    let mut a1 = workload("east", "a1", "version=v2");
    a1.served_ports.insert(80, 10_080);
    list(&mut registry, &own("east", "k8s"), 1, vec![Item::Service(a), slice("a", vec![entry])], 0);
    list(&mut registry, &own("east", "files"), 1, vec![Item::Workload(a1)], 0);
    assert_eq!(seen(&mut registry, "a"), "east/a1:10080");
    let endpoint = &registry.service(&key("a")).unwrap().endpoints[0];
    assert_eq!(*endpoint.labels, labels("version=v2"));
    assert_eq!(endpoint.tls, TlsMode::Mutual);
    assert!(endpoint.identity.is_some());
}

#[test]
fn picked_workloads_are_not_counted_again_when_they_are_also_written_out() {
    let mut registry = registry();
    let named = written("a1", [10, 0, 0, b'1'], 8080);
    let unnamed = written("", [10, 0, 0, b'1'], 8080);
    let items = [simple(), vec![slice("a", vec![named, unnamed, written("", [10, 0, 0, 200], 8080)])]].concat();
    list(&mut registry, &own("east", "k8s"), 1, items, 0);
    assert_eq!(seen(&mut registry, "a"), "east/10.0.0.200:8080 east/a1:8080");
}

#[test]
fn a_listing_replaces_the_old_one_whole_and_not_before_it_is_complete() {
    let mut registry = registry();
    let shard = own("east", "k8s");
    list(&mut registry, &shard, 1, simple(), 0);
    registry.apply(Event::Begin { shard: shard.clone(), epoch: 2 }, Millis(1));
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080");
    let put = |item| Event::Put { shard: shard.clone(), epoch: 2, item };
    registry.apply(put(Item::Service(service("east", "a"))), Millis(1));
    registry.apply(put(Item::Workload(workload("east", "a2", "app=a"))), Millis(1));
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080");
    // A straggler of the old connection changes nothing.
    let old =
        Event::Remove { shard: shard.clone(), epoch: 1, key: ItemKey::Workload(namespace("default"), "a1".to_owned()) };
    registry.apply(old, Millis(1));
    registry.apply(Event::Complete { shard: shard.clone(), epoch: 1 }, Millis(1));
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080");
    registry.apply(Event::Complete { shard: shard.clone(), epoch: 2 }, Millis(1));
    assert_eq!(seen(&mut registry, "a"), "east/a2:8080");
    registry.apply(Event::Begin { shard: shard.clone(), epoch: 1 }, Millis(1));
    registry.apply(Event::Complete { shard, epoch: 1 }, Millis(1));
    assert_eq!(seen(&mut registry, "a"), "east/a2:8080");
}

#[test]
fn the_same_listing_again_changes_nothing() {
    let mut registry = registry();
    list(&mut registry, &own("east", "k8s"), 1, simple(), 0);
    assert!(!registry.take_changes().is_empty());
    let before = registry.service(&key("a")).unwrap().clone();
    list(&mut registry, &own("east", "k8s"), 2, simple(), 5);
    assert!(registry.take_changes().is_empty());
    assert!(Arc::ptr_eq(&before, registry.service(&key("a")).unwrap()));
}

#[test]
fn what_comes_back_before_anybody_looks_did_not_go() {
    let mut registry = registry();
    let shard = own("east", "k8s");
    list(&mut registry, &shard, 1, simple(), 0);
    registry.take_changes();
    let item = simple()[1].clone();
    registry.apply(Event::Remove { shard: shard.clone(), epoch: 1, key: item.key() }, Millis(0));
    registry.apply(Event::Put { shard, epoch: 1, item }, Millis(0));
    assert!(registry.take_changes().is_empty());
}

#[test]
fn only_services_that_a_change_concerns_change() {
    let mut registry = registry();
    let shard = own("east", "k8s");
    let mut items = simple();
    items.push(Item::Service(service("east", "b")));
    items.push(Item::Workload(workload("east", "b1", "app=b")));
    list(&mut registry, &shard, 1, items, 0);
    registry.take_changes();
    let unchanged = registry.service(&key("a")).unwrap().endpoints[0].clone();
    let item = Item::Workload(workload("east", "a2", "app=a"));
    registry.apply(Event::Put { shard, epoch: 1, item }, Millis(0));
    let changes = registry.take_changes();
    assert_eq!(changes.services.into_iter().collect::<Vec<_>>(), [key("a")]);
    assert!(Arc::ptr_eq(&unchanged, &registry.service(&key("a")).unwrap().endpoints[0]));
}

#[test]
fn silence_makes_stale_then_expired_and_never_empty() {
    let mut registry = registry();
    list(&mut registry, &own("east", "k8s"), 1, simple(), 0);
    list(&mut registry, &peer("west"), 1, share(), 0);
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080 west/w1:8080");
    assert_eq!(registry.deadline(), Some(Millis(LEASE.stale_after)));
    registry.tick(Millis(LEASE.stale_after));
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080 west/w1:8080~");
    assert_eq!(registry.totals().stale_endpoints, 1);
    registry.apply(Event::Alive { shard: peer("west") }, Millis(20_000));
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080 west/w1:8080");
    registry.tick(Millis(20_000 + LEASE.expire_after));
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080");
    let west = registry.shards(Millis(20_000 + LEASE.expire_after)).into_iter().find(|s| s.id == peer("west")).unwrap();
    assert_eq!((west.freshness, west.age_ms, west.endpoints), (Freshness::Expired, LEASE.expire_after, 1));
    // The only endpoints that are left are used, however old.
    list(&mut registry, &own("east", "k8s"), 2, vec![Item::Service(service("east", "a"))], 0);
    assert_eq!(seen(&mut registry, "a"), "west/w1:8080~");
}

#[test]
fn an_unhealthy_endpoint_is_no_choice_against_an_expired_one() {
    let mut registry = registry();
    let mut a1 = workload("east", "a1", "app=a");
    a1.health = Health::Unhealthy;
    list(&mut registry, &own("east", "k8s"), 1, vec![Item::Service(service("east", "a")), Item::Workload(a1)], 0);
    list(&mut registry, &peer("west"), 1, share(), 0);
    registry.tick(Millis(LEASE.expire_after));
    assert_eq!(seen(&mut registry, "a"), "east/a1:8080! west/w1:8080~");
}

#[test]
fn a_source_that_lists_again_and_again_without_end_grows_stale() {
    let mut registry = registry();
    list(&mut registry, &peer("west"), 1, share(), 0);
    for second in 1..20 {
        let now = Millis(second * 1000);
        registry.apply(Event::Begin { shard: peer("west"), epoch: 1 + second }, now);
        registry.apply(Event::Alive { shard: peer("west") }, now);
    }
    registry.tick(Millis(19_000));
    assert_eq!(seen(&mut registry, "a"), "west/w1:8080~");
}

#[test]
fn a_withdrawn_source_is_gone_at_once() {
    let mut registry = registry();
    list(&mut registry, &peer("west"), 1, share(), 0);
    assert_eq!(seen(&mut registry, "a"), "west/w1:8080");
    registry.apply(Event::Withdraw { shard: peer("west") }, Millis(1));
    assert_eq!(seen(&mut registry, "a"), "nothing");
    assert_eq!(registry.shards(Millis(1)).len(), 2);
}

#[test]
fn nothing_is_exported_that_nobody_declared() {
    let mut registry = registry();
    list(&mut registry, &own("east", "k8s"), 1, simple(), 0);
    list(&mut registry, &peer("west"), 1, share(), 0);
    registry.take_changes();
    assert_eq!(registry.exported().len(), 0);
    list(&mut registry, &own("east", "files"), 1, vec![export("east", "a")], 0);
    let changes = registry.take_changes();
    assert_eq!(changes.exports.len(), 1);
    let shown = registry.exported().next().unwrap();
    assert!(shown.exported && shown.clusterset);
    assert_eq!(endpoints(shown), "east/a1:8080", "own endpoints only");
    assert_eq!(shown.clusters, [cluster("east")]);
    assert!(registry.service(&key("a")).unwrap().clusterset);
}

#[test]
fn an_export_of_another_cluster_exports_nothing_of_this_one() {
    let mut registry = registry();
    list(&mut registry, &own("east", "k8s"), 1, simple(), 0);
    list(&mut registry, &peer("west"), 1, [share(), vec![export("west", "a")]].concat(), 0);
    registry.take_changes();
    assert_eq!(registry.exported().len(), 0);
    assert!(registry.service(&key("a")).unwrap().clusterset);
}

#[test]
fn exporting_everything_leaves_out_what_is_local_external_an_alias_or_a_crossing() {
    let cluster_local = vec![Host::parse("*.kube-system.svc.cluster.local").unwrap(), host("local")];
    let mut registry = Registry::new(RegistrySettings { export: ExportPolicy::All, cluster_local });
    registry.declare(own("east", "k8s"), settings("east", true), Millis(0));
    registry.declare(peer("west"), settings("west", false), Millis(0));
    let alias = Service { alias_of: Some(host("a")), ..service("east", "alias") };
    let external = Service { scope: Scope::External, ..service("east", "external") };
    let crossing = Service { crossing: true, ..service("east", "crossing") };
    let items = [service("east", "local"), alias, external, crossing].map(Item::Service);
    list(&mut registry, &own("east", "k8s"), 1, [simple(), items.to_vec()].concat(), 0);
    let foreign = Service { selector: None, ..service("west", "local") };
    list(&mut registry, &peer("west"), 1, vec![Item::Service(foreign)], 0);
    registry.take_changes();
    assert_eq!(registry.exported().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(registry.service(&key("local")).unwrap().clusters, [cluster("east")], "not imported either");
    list(&mut registry, &own("east", "k8s"), 2, [items.to_vec(), vec![export("east", "crossing")]].concat(), 0);
    registry.take_changes();
    let named = registry.exported().map(|service| service.name.as_str()).collect::<Vec<_>>();
    assert_eq!(named, ["crossing"], "but one that is exported by name");
}

#[test]
fn gateways_are_kept_by_network_and_expire_last() {
    let mut registry = registry();
    list(&mut registry, &own("east", "k8s"), 1, vec![gateway("east", "1.1.1.1")], 0);
    list(&mut registry, &peer("west"), 1, vec![gateway("west", "2.2.2.2"), gateway("west", "2.2.2.3")], 0);
    assert!(registry.take_changes().gateways);
    assert_eq!(registry.gateways().values().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(registry.own_gateways().len(), 1);
    registry.tick(Millis(LEASE.expire_after));
    assert!(!registry.take_changes().gateways, "the last way in stays");
}

#[test]
fn settings_that_change_reach_the_endpoints() {
    let mut registry = registry();
    list(&mut registry, &own("east", "k8s"), 1, simple(), 0);
    registry.take_changes();
    let mut other = settings("east", true);
    other.trust_domain = tombolo_federation_model::TrustDomain::parse("new.local").unwrap();
    registry.declare(own("east", "k8s"), other, Millis(1));
    assert_eq!(registry.take_changes().services.len(), 1);
    let identity = registry.service(&key("a")).unwrap().endpoints[0].identity.clone().unwrap();
    assert_eq!(identity.trust_domain().as_str(), "new.local");
}

#[test]
fn a_workload_without_an_address_is_reached_through_its_network() {
    let mut registry = registry();
    let mut a1 = workload("east", "a1", "app=a");
    a1.addresses.clear();
    list(&mut registry, &own("east", "k8s"), 1, vec![Item::Service(service("east", "a")), Item::Workload(a1)], 0);
    registry.take_changes();
    assert_eq!(registry.service(&key("a")).unwrap().endpoints[0].address, WorkloadAddress::ByNetwork);
}

#[test]
fn events_of_a_shard_that_nobody_declared_are_ignored() {
    let mut registry = registry();
    list(&mut registry, &own("north", "k8s"), 1, simple(), 0);
    assert!(registry.take_changes().is_empty());
}
