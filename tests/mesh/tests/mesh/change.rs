//! What a change costs, and what a mistake spoils: nothing that it does not concern.

use crate::{sound, yaml};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_gateway_core::wire::Kind;
use tombolo_tests_mesh::{From, Mesh, Received, SiteSpec, Speaks, Weather};

const WEB: From<'static> = From::Pod("east/web-v1-0");

fn mesh() -> Mesh {
    let mut mesh = Mesh::of(yaml::pair()).build();
    sound(&mesh);
    quiet(&mut mesh);
    mesh
}

fn quiet(mesh: &mut Mesh) {
    mesh.proxies_mut().for_each(|proxy| drop(proxy.take_received()));
}

/// What each proxy received, by kind and name; proxies that received nothing are left out.
fn received(mesh: &mut Mesh) -> BTreeMap<String, BTreeSet<(Kind, String)>> {
    let of = |list: Vec<Received>| list.into_iter().map(|one| (one.kind, one.name)).collect::<BTreeSet<_>>();
    let all = mesh.proxies_mut().map(|proxy| (proxy.name().to_owned(), of(proxy.take_received())));
    all.filter(|(_, list)| !list.is_empty()).collect()
}

#[test]
fn a_weight_changes_the_routes_of_its_site_and_nothing_else() {
    let mut mesh = mesh();
    mesh.site_mut("east").write("split.yaml", &yaml::split("reviews", 0, 100));
    mesh.settle();
    sound(&mesh);
    let got = received(&mut mesh);
    let routes = BTreeSet::from([(Kind::Routes, "http_proxy".to_owned())]);
    let sidecars: Vec<_> = mesh.site("east").pods().keys().map(|pod| format!("east/{pod}")).collect();
    assert_eq!(got, sidecars.into_iter().map(|name| (name, routes.clone())).collect());
    assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v2-0");
}

#[test]
fn the_same_text_again_changes_nothing() {
    let mut mesh = mesh();
    let configs: Vec<_> = mesh.proxies().map(|proxy| proxy.config().generation).collect();
    mesh.site_mut("east").write("split.yaml", &format!("# a remark\n{}", yaml::split("reviews", 80, 20)));
    mesh.settle();
    assert_eq!(received(&mut mesh), BTreeMap::new());
    assert_eq!(mesh.proxies().map(|proxy| proxy.config().generation).collect::<Vec<_>>(), configs);
}

#[test]
fn a_pod_changes_the_endpoints_of_its_service_and_nothing_else() {
    let mut mesh = mesh();
    mesh.site_mut("west").set_ready("ratings-v1-0", false);
    mesh.settle();
    let got = received(&mut mesh);
    assert_eq!(got.len(), mesh.proxies().count(), "{got:#?}");
    for (proxy, list) in &got {
        assert!(list.iter().all(|(kind, name)| *kind == Kind::Load && name.contains("ratings")), "{proxy}: {list:?}");
    }
}

#[test]
fn a_service_that_comes_brings_only_itself() {
    let mut mesh = mesh();
    mesh.site_mut("west").write("more.yaml", &yaml::app("extra", &[("v1", 1)]));
    mesh.settle();
    sound(&mesh);
    for (proxy, list) in received(&mut mesh) {
        if proxy == "west/extra-v1-0" {
            continue;
        }
        for (kind, name) in &list {
            let own = name.contains("extra.default");
            let shared = matches!(kind, Kind::Routes | Kind::Listener);
            assert!(own || shared, "{proxy} received {kind:?} {name}");
        }
    }
    assert_eq!(mesh.get(WEB, "http://extra:9080/").pod(), "west/extra-v1-0");
    mesh.site_mut("west").remove("more.yaml");
    mesh.settle();
    sound(&mesh);
    assert_eq!(mesh.site("east").engine().registry().services().filter(|s| s.name == "extra").count(), 0);
    for proxy in mesh.proxies() {
        let left = proxy.config().clusters.iter().filter(|(name, _)| name.contains("extra")).count();
        assert_eq!(left, 0, "{} keeps clusters of a service that is gone", proxy.name());
    }
}

#[test]
fn whole_state_brings_the_same_as_differences() {
    for speaks in [Speaks::Delta, Speaks::Sotw] {
        let mut mesh = Mesh::of(yaml::pair()).speaks(speaks).build();
        sound(&mesh);
        mesh.site_mut("east").write("split.yaml", &yaml::split("reviews", 0, 100));
        mesh.settle();
        assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v2-0", "{speaks:?}");
        mesh.site_mut("east").remove("split.yaml");
        mesh.settle();
        sound(&mesh);
        assert!(mesh.get(WEB, "http://reviews:9080/").pod().starts_with("east/reviews-v1-"), "{speaks:?}");
    }
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_its_neighbours() {
    let mut mesh = mesh();
    let good = yaml::split("reviews", 0, 100);
    mesh.site_mut("east").write("split.yaml", &good);
    mesh.settle();
    quiet(&mut mesh);
    let neighbour = yaml::split("catalog", 100, 0).replace("subset: v1", "subset: v9");
    for broken in [
        good.replace("weight: 100", "weight: many"),
        good.replace("http:", "http: ["),
        good.replace("hosts: [reviews]", "hosts: 5"),
    ] {
        mesh.site_mut("east").write("split.yaml", &broken);
        mesh.settle();
        sound(&mesh);
        assert_eq!(received(&mut mesh), BTreeMap::new(), "{broken}");
        assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v2-0");
        assert!(!mesh.site("east").diagnostics().is_empty(), "{broken}");
        assert_eq!(mesh.site("east").manifests().kept().len(), 1, "{broken}");
        // A neighbour in the same folder is taken at the same time.
        mesh.site_mut("east").write("extra.yaml", &yaml::app("extra", &[("v1", 1)]));
        mesh.settle();
        assert_eq!(mesh.get(WEB, "http://extra:9080/").pod(), "east/extra-v1-0");
        mesh.site_mut("east").remove("extra.yaml");
        mesh.settle();
        quiet(&mut mesh);
    }
    // One that refers to a subset that is not there spoils its own destination only.
    mesh.site_mut("east").write("split.yaml", &[good, neighbour].concat());
    mesh.settle();
    sound(&mesh);
    assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "west/reviews-v2-0");
    assert!(
        mesh.site("east").diagnostics().iter().any(|d| d.object.name.as_ref() == "catalog"),
        "{:?}",
        mesh.site("east").diagnostics()
    );
}

#[test]
fn a_mistake_from_the_start_leaves_the_rest() {
    let [east, west] = yaml::pair();
    let east = east
        .file("a-broken.yaml", "kind: [\n")
        .file("b-broken.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: BAD NAME}\nspec: {ports: [{port: 1}]}\n")
        .file("c-broken.yaml", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec: {hosts: [catalog], http: [{route: [{destination: {host: catalog}}], timeout: soon}]}\n");
    let mut mesh = Mesh::of([east, west]).build();
    sound(&mesh);
    assert_eq!(mesh.get(WEB, "http://catalog:9080/").pod(), "east/catalog-v1-0");
    assert_eq!(mesh.get(WEB, "http://ratings:9080/").pod(), "west/ratings-v1-0");
    let places: BTreeSet<String> = mesh.site("east").diagnostics().into_iter().map(|d| d.place).collect();
    for file in ["a-broken.yaml", "b-broken.yaml", "c-broken.yaml"] {
        assert!(places.iter().any(|place| place.starts_with(file)), "{file}: {places:?}");
    }
}

#[test]
fn a_proxy_that_reconnects_is_sent_nothing_that_it_holds() {
    let mut mesh = mesh();
    mesh.reconnect_proxies();
    mesh.settle();
    sound(&mesh);
    assert_eq!(received(&mut mesh), BTreeMap::new());
    assert!(mesh.proxies().all(|proxy| proxy.breaks() == 1));
}

#[test]
fn a_site_may_be_named_as_it_likes() {
    let sites = [
        SiteSpec::new("eu-1", &yaml::app("web", &[("v1", 1)])),
        SiteSpec::new("us.2", &yaml::app("api", &[("v1", 1)])),
    ];
    let mut mesh = Mesh::of(sites).build();
    sound(&mesh);
    assert_eq!(mesh.get(From::Pod("eu-1/web-v1-0"), "http://api:9080/").pod(), "us.2/api-v1-0");
}

/// Asks for reviews at every moment of a change; returns how many requests failed, and how many moments there were.
fn watch(mesh: &mut Mesh) -> (Vec<String>, usize) {
    let (mut failed, mut moments) = (Vec::new(), 0);
    while mesh.step() {
        moments += 1;
        let trace = mesh.get(WEB, "http://reviews:9080/");
        if trace.pod().is_empty() {
            failed.push(format!("{trace:?}"));
        }
    }
    (failed, moments)
}

#[test]
fn no_request_fails_while_routes_move_to_subsets_that_are_new() {
    let weather = Weather { delay: 40, break_one_in: 0 };
    let east = [yaml::app("web", &[("v1", 1)]), yaml::app("reviews", &[("v1", 1), ("v2", 1)])].concat();
    for speaks in [Speaks::Delta, Speaks::Sotw] {
        for seed in 0..4 {
            let site = SiteSpec::new("east", &east);
            let mut mesh = Mesh::of([site]).speaks(speaks).seed(seed).weather(weather, weather).build();
            let both = [yaml::subsets("reviews"), yaml::split("reviews", 0, 100)].concat();
            mesh.site_mut("east").write("routes.yaml", &both);
            let (failed, moments) = watch(&mut mesh);
            assert!(moments > 10 && failed.is_empty(), "{speaks:?} {seed}: {failed:#?}");
            sound(&mesh);
            assert_eq!(mesh.get(WEB, "http://reviews:9080/").pod(), "east/reviews-v2-0");
            // And back: the upstreams go only after the routes to them.
            mesh.site_mut("east").remove("routes.yaml");
            let (failed, _) = watch(&mut mesh);
            assert!(failed.is_empty(), "{speaks:?} {seed}: {failed:#?}");
            let left =
                mesh.proxy("east/web-v1-0").config().clusters.iter().filter(|(name, _)| name.contains("|v2|")).count();
            assert_eq!(left, 0);
        }
    }
}

#[test]
fn no_request_fails_while_pods_are_replaced_or_streams_break() {
    let weather = Weather { delay: 40, break_one_in: 10 };
    for seed in 0..4 {
        let mut mesh = Mesh::of(yaml::pair()).seed(seed).weather(weather, weather).build();
        mesh.site_mut("east").set_ready("reviews-v1-0", false);
        mesh.site_mut("west").write("more.yaml", &yaml::app("extra", &[("v1", 1)]));
        let (failed, moments) = watch(&mut mesh);
        assert!(moments > 10 && failed.is_empty(), "{seed}: {failed:#?}");
        mesh.reconnect_proxies();
        let (failed, _) = watch(&mut mesh);
        assert!(failed.is_empty(), "{seed}: {failed:#?}");
        sound(&mesh);
    }
}
