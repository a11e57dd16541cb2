//! Services that several sites share: subsets by weight, failover, exports, addresses that overlap, silence.

use crate::{sound, yaml};
use std::collections::BTreeMap;
use tombolo_tests_mesh::{End, From, Hello, Mesh, SiteSpec, Trace};

const WEB: From<'static> = From::Pod("east/web-v1-0");

fn spread(mesh: &mut Mesh, url: &str, times: u32) -> BTreeMap<String, u32> {
    let mut pods = BTreeMap::new();
    for _ in 0..times {
        *pods.entry(mesh.get(WEB, url).pod()).or_default() += 1;
    }
    pods
}

#[test]
fn a_split_by_weight_reaches_the_subset_of_the_other_site() {
    let run = |seed| {
        let mut mesh = Mesh::of(yaml::pair()).seed(seed).build();
        sound(&mesh);
        spread(&mut mesh, "http://reviews:9080/", 2000)
    };
    for seed in [1, 2, 3] {
        let pods = run(seed);
        let (v1, v2) = (pods["east/reviews-v1-0"] + pods["east/reviews-v1-1"], pods["west/reviews-v2-0"]);
        assert_eq!((v1 + v2, pods.len()), (2000, 3), "{pods:?}");
        // Four standard deviations of 2000 draws at 20 %.
        assert!((328..=472).contains(&v2), "{pods:?}");
        assert!(pods["east/reviews-v1-0"].abs_diff(pods["east/reviews-v1-1"]) < 180, "{pods:?}");
        assert_eq!(run(seed), pods, "the same seed is the same run");
    }
}

#[track_caller]
fn crossing(trace: &Trace, by: &str, to: &str, sni: &str) {
    let ways = trace.proxies();
    assert_eq!(ways.len(), 3, "{trace:#?}");
    assert_eq!((ways[1], ways[2], trace.pod().as_str()), (by, to, to), "{trace:#?}");
    let [_, middle, last] = &trace.hops[..] else { panic!("{trace:#?}") };
    assert_eq!((middle.sni.as_str(), middle.cluster.as_str()), (sni, sni), "{trace:#?}");
    assert_eq!((middle.alpn.as_deref(), middle.peer.as_deref()), (None, None), "the gateway must not open it");
    assert_eq!(last.peer.as_deref(), Some("spiffe://east.local/ns/default/sa/web"));
    assert_eq!(last.alpn.as_deref(), Some("http/1.1"));
}

#[test]
fn a_call_to_another_network_passes_its_gateway_unopened() {
    let mut mesh = Mesh::of(yaml::pair()).build();
    let trace = mesh.get(WEB, "http://ratings:9080/r?x=1");
    crossing(&trace, "west/east-west", "west/ratings-v1-0", "outbound_.9080_._.ratings.default.svc.cluster.local");
    let seen = trace.seen().unwrap();
    assert_eq!((seen.path.as_str(), seen.authority.as_str()), ("/r?x=1", "ratings:9080"));
    let xfcc = seen.header("x-forwarded-client-cert").unwrap_or_default();
    assert!(xfcc.contains("URI=spiffe://east.local/ns/default/sa/web"), "{xfcc}");
    let split = (0..200).map(|_| mesh.get(WEB, "http://reviews:9080/")).find(|t| t.hops.len() == 3).unwrap();
    crossing(&split, "west/east-west", "west/reviews-v2-0", "outbound_.9080_.v2_.reviews.default.svc.cluster.local");
}

#[test]
fn names_of_services_have_all_their_forms() {
    let mut mesh = Mesh::of(yaml::pair()).build();
    for host in ["ratings", "ratings.default", "ratings.default.svc", "ratings.default.svc.cluster.local"] {
        let trace = mesh.get(WEB, &format!("http://{host}:9080/"));
        assert_eq!(trace.pod(), "west/ratings-v1-0", "{host}: {trace:#?}");
    }
}

#[test]
fn calls_stay_near_fail_over_and_come_back() {
    let mut mesh = Mesh::of(yaml::pair()).build();
    let url = "http://catalog:9080/";
    let near = BTreeMap::from([("east/catalog-v1-0".to_owned(), 40)]);
    let far = |pods: &BTreeMap<String, u32>| pods.keys().all(|pod| pod.starts_with("west/catalog-v1-"));
    assert_eq!(spread(&mut mesh, url, 40), near);
    mesh.site_mut("east").set_ready("catalog-v1-0", false);
    mesh.settle();
    sound(&mesh);
    let pods = spread(&mut mesh, url, 40);
    assert!(far(&pods) && pods.values().sum::<u32>() == 40 && pods.len() == 2, "{pods:?}");
    mesh.site_mut("east").set_ready("catalog-v1-0", true);
    mesh.settle();
    assert_eq!(spread(&mut mesh, url, 40), near);
    mesh.site_mut("east").stop("catalog-v1-0");
    mesh.settle();
    assert!(far(&spread(&mut mesh, url, 40)));
    mesh.site_mut("west").stop("catalog-v1-0");
    mesh.settle();
    assert_eq!(spread(&mut mesh, url, 10), BTreeMap::from([("west/catalog-v1-1".to_owned(), 10)]));
    mesh.site_mut("west").stop("catalog-v1-1");
    mesh.settle();
    sound(&mesh);
    let trace = mesh.get(WEB, url);
    let End::Reply { status, details, .. } = &trace.end else { panic!("{trace:#?}") };
    assert_eq!((*status, details.as_str()), (503, "no_healthy_upstream"));
    mesh.site_mut("east").start("catalog-v1-0");
    mesh.settle();
    assert_eq!(spread(&mut mesh, url, 40), near);
}

#[test]
fn what_is_not_exported_is_neither_known_nor_let_in() {
    let west = [yaml::app("open", &[("v1", 1)]), yaml::app("closed", &[("v1", 1)]), yaml::export("open")];
    let sites =
        [SiteSpec::new("east", &yaml::app("web", &[("v1", 1)])), SiteSpec::new("west", &west.concat()).declared_only()];
    let mut mesh = Mesh::of(sites).build();
    sound(&mesh);
    assert_eq!(mesh.get(WEB, "http://open:9080/").pod(), "west/open-v1-0");
    let unknown = mesh.get(WEB, "http://closed:9080/");
    assert!(matches!(&unknown.end, End::Outside { host, .. } if host == "closed"), "{unknown:#?}");
    assert_eq!(mesh.get(From::Pod("west/open-v1-0"), "http://closed:9080/").pod(), "west/closed-v1-0");
    // Somebody who guesses the server name, and has a certificate of the mesh.
    let gateway = mesh.get(WEB, "http://open:9080/").hops[0].to.unwrap();
    let east = mesh.site("east").trust_domain().clone();
    let mut guess = |name: &str| {
        let sni = format!("outbound_.9080_._.{name}.default.svc.cluster.local");
        let hello = Hello::stranger(&sni, &["istio"]).showing("spiffe://east.local/ns/default/sa/web", &east);
        mesh.get(From::Address { site: "east", to: gateway, hello: Some(hello) }, "http://guess/")
    };
    assert_eq!(guess("open").proxies(), ["west/east-west", "west/open-v1-0"]);
    for name in ["closed", "web", "nothing"] {
        let trace = guess(name);
        assert_eq!(trace.proxies(), ["west/east-west"], "{name}");
        assert!(matches!(&trace.end, End::Lost { at, .. } if at == "west/east-west"), "{trace:#?}");
    }
}

#[test]
fn an_export_can_be_taken_back() {
    let west = SiteSpec::new("west", &yaml::app("open", &[("v1", 1)])).declared_only();
    let sites =
        [SiteSpec::new("east", &yaml::app("web", &[("v1", 1)])), west.file("export.yaml", &yaml::export("open"))];
    let mut mesh = Mesh::of(sites).build();
    assert_eq!(mesh.get(WEB, "http://open:9080/").pod(), "west/open-v1-0");
    let gateway = mesh.get(WEB, "http://open:9080/").hops[0].to.unwrap();
    mesh.site_mut("west").remove("export.yaml");
    mesh.settle();
    sound(&mesh);
    assert!(matches!(mesh.get(WEB, "http://open:9080/").end, End::Outside { .. }));
    let hello = Hello::stranger("outbound_.9080_._.open.default.svc.cluster.local", &["istio"]);
    let trace = mesh.get(From::Address { site: "", to: gateway, hello: Some(hello) }, "http://guess/");
    assert!(
        matches!(&trace.end, End::Lost { .. }) && trace.hops.is_empty(),
        "nothing is left to listen for: {trace:#?}"
    );
}

#[test]
fn the_same_address_in_two_sites_is_two_pods() {
    // The same names, labels and addresses in both sites; only who serves what differs.
    let east = [yaml::app("web", &[("v1", 1)]), yaml::app("twin", &[("v1", 1)])];
    let west = [yaml::app("only", &[("v1", 1)]), yaml::app("twin", &[("v1", 1)])];
    let mut mesh = Mesh::of([SiteSpec::new("east", &east.concat()), SiteSpec::new("west", &west.concat())]).build();
    sound(&mesh);
    let addresses = |mesh: &Mesh, site: &str| mesh.site(site).pods().values().map(|pod| pod.ip).collect::<Vec<_>>();
    let (mut a, mut b) = (addresses(&mesh, "east"), addresses(&mesh, "west"));
    a.sort();
    b.sort();
    assert_eq!(a, b, "this test wants overlapping addresses");
    for _ in 0..20 {
        assert_eq!(mesh.get(WEB, "http://twin:9080/").pod(), "east/twin-v1-0");
        assert_eq!(mesh.get(WEB, "http://only:9080/").pod(), "west/only-v1-0");
        assert_eq!(mesh.get(From::Pod("west/only-v1-0"), "http://twin:9080/").pod(), "west/twin-v1-0");
        assert_eq!(mesh.get(From::Pod("west/only-v1-0"), "http://web:9080/").pod(), "east/web-v1-0");
    }
    mesh.site_mut("east").set_ready("twin-v1-0", false);
    mesh.settle();
    let trace = mesh.get(WEB, "http://twin:9080/");
    assert_eq!(trace.proxies(), ["east/web-v1-0", "west/east-west", "west/twin-v1-0"]);
    assert_eq!(mesh.get(From::Pod("west/only-v1-0"), "http://twin:9080/").pod(), "west/twin-v1-0");
}

#[test]
fn silence_of_a_site_takes_nothing_away() {
    let mut mesh = Mesh::of(yaml::pair()).build();
    mesh.pass(30_000);
    assert_eq!(mesh.get(WEB, "http://ratings:9080/").pod(), "west/ratings-v1-0");
    mesh.cut("east", "west");
    mesh.pass(60_000);
    sound(&mesh);
    assert_eq!(mesh.get(WEB, "http://ratings:9080/").pod(), "west/ratings-v1-0", "stale is not gone");
    mesh.site_mut("west").stop("ratings-v1-0");
    mesh.settle();
    let trace = mesh.get(WEB, "http://ratings:9080/");
    assert_eq!(trace.proxies(), ["east/web-v1-0", "west/east-west"], "east cannot know yet");
    mesh.heal("east", "west");
    mesh.settle();
    assert_eq!(mesh.get(WEB, "http://ratings:9080/").status(), 503);
    assert_eq!(mesh.get(WEB, "http://ratings:9080/").hops.len(), 1, "east knows now");
    mesh.site_mut("west").start("ratings-v1-0");
    mesh.settle();
    assert_eq!(mesh.get(WEB, "http://ratings:9080/").pod(), "west/ratings-v1-0");
}

#[test]
fn a_service_without_endpoints_here_is_called_there_by_its_name_of_the_set() {
    let west = [yaml::app("ratings", &[("v1", 1)]), yaml::export("ratings")];
    let sites =
        [SiteSpec::new("east", &yaml::app("web", &[("v1", 1)])), SiteSpec::new("west", &west.concat()).declared_only()];
    let mut mesh = Mesh::of(sites).build();
    let trace = mesh.get(WEB, "http://ratings.default.svc.clusterset.local:9080/");
    assert_eq!(trace.pod(), "west/ratings-v1-0", "{trace:#?}");
}
