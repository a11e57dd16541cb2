//! Links that delay and break: whatever they do, everybody ends up with the same, and the same seed is the same run.

use crate::{sound, yaml};
use proptest::prelude::*;
use tombolo_gateway_core::config::{Config, Map};
use tombolo_tests_mesh::{From, Mesh, Speaks, Trace, Weather};

/// What somebody does to the mesh.
#[derive(Debug, Clone, Copy)]
enum Act {
    Weight(u32),
    NoSplit,
    Ready(&'static str, &'static str, bool),
    Stop(&'static str, &'static str),
    Start(&'static str, &'static str),
    Extra(bool),
    Reconnect,
}

fn act() -> impl Strategy<Value = Act> {
    let pod = prop_oneof![
        Just(("east", "reviews-v1-0")),
        Just(("east", "catalog-v1-0")),
        Just(("west", "reviews-v2-0")),
        Just(("west", "catalog-v1-1")),
        Just(("west", "ratings-v1-0")),
    ];
    prop_oneof![
        (0u32..=100).prop_map(Act::Weight),
        Just(Act::NoSplit),
        (pod.clone(), any::<bool>()).prop_map(|((site, pod), ready)| Act::Ready(site, pod, ready)),
        pod.clone().prop_map(|(site, pod)| Act::Stop(site, pod)),
        pod.prop_map(|(site, pod)| Act::Start(site, pod)),
        any::<bool>().prop_map(Act::Extra),
        Just(Act::Reconnect),
    ]
}

fn play(mesh: &mut Mesh, act: Act) {
    match act {
        Act::Weight(v1) => mesh.site_mut("east").write("split.yaml", &yaml::split("reviews", v1, 100 - v1)),
        Act::NoSplit => mesh.site_mut("east").remove("split.yaml"),
        Act::Ready(site, pod, ready) => mesh.site_mut(site).set_ready(pod, ready),
        Act::Stop(site, pod) => mesh.site_mut(site).stop(pod),
        Act::Start(site, pod) => mesh.site_mut(site).start(pod),
        Act::Extra(true) => mesh.site_mut("west").write("extra.yaml", &yaml::app("extra", &[("v1", 1)])),
        Act::Extra(false) => mesh.site_mut("west").remove("extra.yaml"),
        Act::Reconnect => mesh.reconnect_proxies(),
    }
}

/// Names of what is not the same in two maps.
fn unlike<V: PartialEq>(what: &str, a: &Map<V>, b: &Map<V>, found: &mut Vec<String>) {
    let missing = b.iter().filter(|(name, _)| !a.contains(name)).map(|(name, _)| name);
    let other = a.iter().filter(|(name, value)| b.get(name).is_none_or(|same| same != *value)).map(|(name, _)| name);
    found.extend(other.chain(missing).map(|name| format!("{what} {name}")));
}

/// Everything in which the proxies of two meshes work by different configurations.
fn differences(a: &Mesh, b: &Mesh) -> Vec<String> {
    let mut found = Vec::new();
    for (one, other) in a.proxies().zip(b.proxies()) {
        assert_eq!(one.name(), other.name());
        // Of scopes and runtime layers the control plane sends none.
        let Config { generation: _, listeners, routes, clusters, loads, secrets, scopes: _, runtime: _ } =
            &**one.config();
        let there = other.config();
        let mut names = Vec::new();
        unlike("listener", listeners, &there.listeners, &mut names);
        unlike("routes", routes, &there.routes, &mut names);
        unlike("cluster", clusters, &there.clusters, &mut names);
        unlike("load", loads, &there.loads, &mut names);
        unlike("secret", secrets, &there.secrets, &mut names);
        found.extend(names.into_iter().map(|name| format!("{}: {name}", one.name())));
    }
    assert_eq!(a.proxies().count(), b.proxies().count());
    found
}

fn requests(mesh: &mut Mesh) -> Vec<Trace> {
    let urls = ["http://reviews:9080/", "http://catalog:9080/a", "http://ratings:9080/", "http://extra:9080/"];
    urls.iter().cycle().take(24).map(|url| mesh.get(From::Pod("east/web-v1-0"), url)).collect()
}

/// A run with requests in the middle of everything.
fn run(acts: &[Act], speaks: Speaks, weather: Weather, seed: u64) -> (Mesh, Vec<Trace>) {
    let mut mesh = Mesh::of(yaml::pair()).seed(seed).speaks(speaks).weather(weather, weather).build();
    let mut traces = Vec::new();
    for act in acts {
        play(&mut mesh, *act);
        mesh.settle();
        traces.extend(requests(&mut mesh));
    }
    (mesh, traces)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn bad_links_change_nothing_in_the_end(
        acts in prop::collection::vec(act(), 1..5),
        seed: u64,
        delay in 0u64..50,
        break_one_in in prop_oneof![Just(0u64), 12u64..60],
        sotw: bool,
    ) {
        let speaks = if sotw { Speaks::Sotw } else { Speaks::Delta };
        let weather = Weather { delay, break_one_in };
        let (mut bad, traces) = run(&acts, speaks, weather, seed);
        sound(&bad);
        let (good, _) = run(&acts, Speaks::Delta, Weather::default(), seed);
        sound(&good);
        prop_assert_eq!(differences(&bad, &good), Vec::<String>::new());
        let (mut again, same) = run(&acts, speaks, weather, seed);
        prop_assert_eq!(&traces, &same, "the same seed is the same run");
        prop_assert_eq!(requests(&mut bad), requests(&mut again));
        prop_assert_eq!(bad.now(), again.now());
    }
}

#[test]
fn the_links_of_the_property_do_break() {
    let weather = Weather { delay: 20, break_one_in: 15 };
    let (mesh, _) = run(&[Act::Weight(50), Act::Stop("west", "ratings-v1-0")], Speaks::Delta, weather, 7);
    let breaks: u64 = mesh.proxies().map(|proxy| proxy.breaks()).sum();
    assert!(breaks > 20, "{breaks}");
}
