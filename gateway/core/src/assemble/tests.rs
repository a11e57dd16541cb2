//! Tests of `assemble`.

mod dynamic;

use super::*;
use crate::config::Terminal;
use crate::testing::{ads, any as packed, hcm_message, listener_message, route_to, router, table_message};
use crate::wire::decode;
use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;
use tombolo_controlplane_api::xds::envoy::config::{
    cluster::v3::{Cluster as ClusterMessage, cluster as cc},
    endpoint::v3 as e,
    route::v3::route_match::PathSpecifier,
};
use tombolo_controlplane_api::xds::{
    envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hh,
    google::protobuf::BoolValue,
};

fn cluster(name: &str, stat: &str) -> Resource {
    let message = ClusterMessage {
        name: name.into(),
        alt_stat_name: stat.into(),
        cluster_discovery_type: Some(cc::ClusterDiscoveryType::Type(cc::DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(cc::EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() }),
        ..Default::default()
    };
    decode(Kind::Cluster, name, &message.encode_to_vec()).unwrap()
}

fn load(name: &str, priority: u32) -> Resource {
    let group = e::LocalityLbEndpoints { priority, ..Default::default() };
    let message = e::ClusterLoadAssignment { cluster_name: name.into(), endpoints: vec![group], ..Default::default() };
    decode(Kind::Load, name, &message.encode_to_vec()).unwrap()
}

fn listener(name: &str, routes: &str) -> Resource {
    let message = listener_message(name, packed(&hcm_message(routes, vec![router()])));
    decode(Kind::Listener, name, &message.encode_to_vec()).unwrap()
}

fn routes(name: &str, to: &str) -> Resource {
    let message = table_message(name, &["*"], vec![route_to(to, PathSpecifier::Prefix("/".into()))]);
    decode(Kind::Routes, name, &message.encode_to_vec()).unwrap()
}

const NOW: Millis = Millis(1000);

/// A gateway that has a listener, its routes and their cluster.
fn running() -> Assembly {
    let mut all = Assembly::new(Some(INIT_TIMEOUT));
    all.put(cluster("c", ""));
    all.complete(Kind::Cluster);
    all.put(load("c", 0));
    all.put(listener("l", "r"));
    all.put(routes("r", "c"));
    all.step(NOW);
    assert_eq!(all.waiting(), []);
    all
}

/// What is counted in a chain, such as tokens and connections, does not begin anew because something else of its listener changed.
#[test]
fn chains_that_say_the_same_stay_what_they_are() {
    let mut all = running();
    let chain = |config: &Config| Arc::clone(&config.listeners.get("l").unwrap().chains[0]);
    let before = chain(&all.config);
    let mut changed = listener_message("l", packed(&hcm_message("r", vec![router()])));
    changed.freebind = Some(BoolValue { value: true });
    all.put(decode(Kind::Listener, "l", &changed.encode_to_vec()).unwrap());
    let config = all.step(NOW).unwrap();
    assert!(config.listeners.get("l").unwrap().freebind);
    assert!(Arc::ptr_eq(&before, &chain(&config)));
}

/// A connection that drains asks for routes as before; then they go, unless a listener wants them again.
#[test]
fn tables_stay_for_connections_of_listeners_that_are_gone() {
    let connected = |all: &Assembly| match &all.config.listeners.get("l").unwrap().chains[0].terminal {
        Terminal::Http(hcm) => Arc::clone(hcm),
        Terminal::Tcp(_) => panic!("another terminal"),
    };
    for again in [false, true] {
        let mut all = running();
        let connection = connected(&all);
        all.remove(Kind::Listener, "l");
        let config = all.step(NOW).unwrap();
        assert!(config.route_table(&connection).is_some());
        assert!(!all.wanted(Kind::Routes).contains("r"));
        if again {
            all.put(listener("l", "r"));
        }
        drop(connection);
        all.put(cluster("c", "another"));
        all.step(NOW);
        assert_eq!(all.config.routes.contains("r"), again);
    }
    // Who moves to another table leaves the old one behind.
    let mut all = running();
    let connection = connected(&all);
    all.put(listener("l", "other"));
    all.put(routes("other", "c"));
    assert!(all.step(NOW).unwrap().route_table(&connection).is_some());
    drop(connection);
    all.put(cluster("c", "another"));
    all.step(NOW);
    assert!(!all.config.routes.contains("r"));
}

#[test]
fn a_listener_waits_for_all_that_it_needs() {
    let mut all = Assembly::new(Some(INIT_TIMEOUT));
    all.put(listener("l", "r"));
    assert!(all.step(NOW).is_none());
    all.put(cluster("c", ""));
    all.complete(Kind::Cluster);
    all.put(routes("r", "c"));
    assert!(all.step(NOW).is_none(), "the cluster has no endpoints yet");
    let missing: Vec<_> = all.waiting().into_iter().map(|w| w.missing).collect();
    assert_eq!(missing, ["endpoints \"c\"", "routes \"r\"", "cluster \"c\""]);
    all.put(load("c", 0));
    let config = all.step(NOW).unwrap();
    assert!(config.listeners.contains("l") && config.routes.contains("r") && config.loads.contains("c"));
}

#[test]
fn what_does_not_arrive_is_done_without() {
    let mut all = Assembly::new(Some(INIT_TIMEOUT));
    all.complete(Kind::Cluster);
    all.put(listener("l", "r"));
    assert!(all.step(NOW).is_none());
    assert_eq!(all.deadline(), Some(NOW.after(INIT_TIMEOUT)));
    assert!(all.step(Millis(NOW.0 + INIT_TIMEOUT - 1)).is_none());
    let config = all.step(NOW.after(INIT_TIMEOUT)).unwrap();
    assert!(config.listeners.contains("l") && !config.routes.contains("r"));
    assert_eq!(all.deadline(), None);
}

#[test]
fn the_version_before_serves_until_the_new_one_is_ready() {
    let mut all = running();
    all.take_wanted(Kind::Routes);
    all.put(listener("l", "other"));
    assert!(all.step(NOW).is_none(), "the new routes are not here");
    all.put(routes("other", "c"));
    let config = all.step(NOW).unwrap();
    assert!(
        config.routes.contains("other") && !config.routes.contains("r"),
        "the old routes go when nothing names them"
    );
    assert_eq!(all.take_wanted(Kind::Routes).unwrap().removed, BTreeSet::from(["r".to_owned()]));
}

#[test]
fn routes_to_a_new_cluster_wait_for_its_endpoints() {
    let mut all = running();
    all.put(cluster("new", ""));
    all.put(routes("r", "new"));
    assert!(all.step(NOW).is_none());
    all.put(load("new", 0));
    let config = all.step(NOW).unwrap();
    assert!(config.clusters.contains("new"));
    let missing = routes("r", "nowhere");
    all.put(missing);
    assert!(all.step(NOW).is_some(), "a cluster that does not exist is not waited for");
}

#[test]
fn a_cluster_that_does_not_exist_is_refused_where_that_is_asked_for() {
    let all = running();
    let written = |validate: Option<bool>, to: &str| {
        let mut table = table_message("t", &["*"], vec![route_to(to, PathSpecifier::Prefix("/".into()))]);
        table.validate_clusters = validate.map(|value| BoolValue { value });
        let mut manager = hcm_message("x", vec![router()]);
        manager.route_specifier = Some(hh::RouteSpecifier::RouteConfig(table.clone()));
        let listener = listener_message("m", packed(&manager)).encode_to_vec();
        (decode(Kind::Listener, "m", &listener).unwrap(), decode(Kind::Routes, "t", &table.encode_to_vec()).unwrap())
    };
    let (listener, alone) = written(None, "nowhere");
    assert!(all.admits(&listener).unwrap_err().contains("there is no cluster \"nowhere\""));
    assert_eq!(all.admits(&alone), Ok(()), "routes that come by themselves may be early");
    let (listener, alone) = written(Some(true), "nowhere");
    assert!(all.admits(&listener).is_err() && all.admits(&alone).is_err());
    let (listener, alone) = written(Some(false), "nowhere");
    assert!(all.admits(&listener).is_ok() && all.admits(&alone).is_ok());
    let (listener, alone) = written(Some(true), "c");
    assert!(all.admits(&listener).is_ok() && all.admits(&alone).is_ok());
}

#[test]
fn the_same_again_changes_nothing() {
    let mut all = running();
    for resource in [cluster("c", ""), load("c", 0), listener("l", "r"), routes("r", "c")] {
        all.put(resource);
        assert!(all.step(NOW).is_none());
    }
}

#[test]
fn a_change_leaves_the_rest_shared() {
    let mut all = running();
    all.put(cluster("d", ""));
    all.put(load("d", 0));
    let before = all.step(NOW).unwrap();
    all.put(load("c", 1));
    let after = all.step(NOW).unwrap();
    assert!(Arc::ptr_eq(before.listeners.get("l").unwrap(), after.listeners.get("l").unwrap()));
    assert!(Arc::ptr_eq(before.loads.get("d").unwrap(), after.loads.get("d").unwrap()));
    assert_eq!(after.loads.get("c").unwrap().priorities.len(), 2);
    assert_eq!(after.generation, before.generation + 1);
}

#[test]
fn removal_is_at_once_for_what_is_listed_and_never_for_what_is_referred_to() {
    let mut all = running();
    all.remove(Kind::Routes, "r");
    all.remove(Kind::Load, "c");
    assert!(all.step(NOW).is_none());
    all.remove(Kind::Cluster, "c");
    let config = all.step(NOW).unwrap();
    assert!(!config.clusters.contains("c") && !config.loads.contains("c") && config.listeners.contains("l"));
    drop(config);
    all.remove(Kind::Listener, "l");
    let config = all.step(NOW).unwrap();
    assert!(config.listeners.is_empty() && config.routes.is_empty());
    assert!(all.wanted(Kind::Load).is_empty() && all.wanted(Kind::Routes).is_empty());
}

#[test]
fn what_is_wanted_is_told_once() {
    let mut all = running();
    let change = all.take_wanted(Kind::Load).unwrap();
    assert_eq!(change.added, BTreeSet::from(["c".to_owned()]));
    assert_eq!(all.take_wanted(Kind::Load), None);
    all.put(cluster("c", "renamed"));
    all.step(NOW);
    assert_eq!(all.take_wanted(Kind::Load), None, "a new version of the same cluster wants the same");
    assert_eq!(all.wanted(Kind::Load), BTreeSet::from(["c".to_owned()]));
}

/// A control plane's side: what there is, and the answers to what is wanted.
#[derive(Default, Clone)]
struct Server(BTreeMap<(Kind, String), (String, u32)>);

impl Server {
    fn resource(&self, kind: Kind, name: &str) -> Option<Resource> {
        let (to, number) = self.0.get(&(kind, name.to_owned()))?;
        Some(match kind {
            Kind::Cluster => cluster(name, to),
            Kind::Load => load(name, *number),
            Kind::Listener => listener(name, to),
            Kind::Routes => routes(name, to),
            _ => return None,
        })
    }

    /// Answers until nothing more is wanted.
    fn settle(&self, all: &mut Assembly) -> Option<Arc<Config>> {
        let mut last = None;
        for _ in 0..4 {
            for kind in [Kind::Load, Kind::Routes] {
                for name in all.take_wanted(kind).map(|change| change.added).unwrap_or_default() {
                    if let Some(resource) = self.resource(kind, &name) {
                        all.put(resource);
                    }
                }
            }
            last = all.step(NOW).or(last);
        }
        last
    }
}

fn contents(config: &Config) -> BTreeMap<(Kind, String), String> {
    let mut all = BTreeMap::new();
    config.clusters.iter().for_each(|(n, v)| drop(all.insert((Kind::Cluster, n.to_string()), format!("{v:?}"))));
    config.listeners.iter().for_each(|(n, v)| drop(all.insert((Kind::Listener, n.to_string()), format!("{v:?}"))));
    config.routes.iter().for_each(|(n, v)| drop(all.insert((Kind::Routes, n.to_string()), format!("{v:?}"))));
    config.loads.iter().for_each(|(n, v)| drop(all.insert((Kind::Load, n.to_string()), format!("{v:?}"))));
    all
}

proptest! {
    /// When nothing waits, what is in use is what a fresh gateway would use, whatever happened before.
    #[test]
    fn step_by_step_equals_from_scratch(
        changes in prop::collection::vec((0u8..4, "[ab]", "[ab]", 0u32..3, any::<bool>()), 1..30),
    ) {
        let mut server = Server::default();
        for name in ["a", "b"] {
            server.0.insert((Kind::Load, name.to_owned()), (String::new(), 0));
            server.0.insert((Kind::Routes, name.to_owned()), ("a".to_owned(), 0));
        }
        let mut all = Assembly::new(None);
        all.complete(Kind::Cluster);
        for (kind, name, to, number, remove) in changes {
            let kind = [Kind::Cluster, Kind::Listener, Kind::Load, Kind::Routes][usize::from(kind)];
            if remove && kind.wildcard() {
                server.0.remove(&(kind, name.clone()));
                all.remove(kind, &name);
            } else {
                server.0.insert((kind, name.clone()), (to, number));
                if let Some(resource) = server.resource(kind, &name) {
                    all.put(resource);
                }
            }
            server.settle(&mut all);
        }
        // Nobody holds what was before: what stayed for its connections goes.
        all.step(NOW);
        prop_assert_eq!(all.waiting(), vec![]);
        let mut fresh = Assembly::new(None);
        fresh.complete(Kind::Cluster);
        for (kind, name) in server.0.keys() {
            if kind.wildcard() && let Some(resource) = server.resource(*kind, name) {
                fresh.put(resource);
            }
        }
        let scratch = server.settle(&mut fresh).unwrap_or_default();
        prop_assert_eq!(contents(&all.config), contents(&scratch));
    }
}
