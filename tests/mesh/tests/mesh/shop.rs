//! The sample shop, as `tombolo up` runs it: everything that it makes the engine produce is taken by the gateway, and the
//! claims that are made about it hold.

use crate::sound;
use std::{fs, path::Path};
use tombolo_controlplane_core::Role;
use tombolo_tests_mesh::{End, From, Mesh, SiteSpec, Speaks};

const STOREFRONT: From<'static> = From::Pod("east/storefront-0");

fn sites() -> Vec<SiteSpec> {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/shop");
    let site = |name: &str| {
        let mut spec = SiteSpec { files: Vec::new(), ..SiteSpec::new(name, "") };
        for entry in fs::read_dir(shop.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            spec = spec.file(&file, &fs::read_to_string(&path).unwrap());
        }
        spec
    };
    ["east", "west", "vm"].map(site).into()
}

#[test]
fn everything_is_accepted_in_both_protocols() {
    for speaks in [Speaks::Delta, Speaks::Sotw] {
        let mesh = Mesh::of(sites()).speaks(speaks).build();
        sound(&mesh);
        assert_eq!((mesh.count(Role::Router), mesh.count(Role::Sidecar)), (6, 8));
        for site in mesh.sites() {
            let complaints = site.diagnostics();
            let bad: Vec<_> =
                complaints.iter().filter(|d| d.severity == tombolo_federation_model::Severity::Error).collect();
            assert!(bad.is_empty(), "{}: {bad:#?}", site.name());
        }
    }
}

#[test]
fn the_claims_of_the_sample_hold() {
    let mut mesh = Mesh::of(sites()).build();
    let ingress = From::Ingress("east");
    assert_eq!(mesh.get(ingress.clone(), "http://any.example/").pod(), "east/storefront-0");
    assert_eq!(mesh.get(ingress.clone(), "http://any.example/teapot").status(), 418);
    let moved = mesh.get(ingress.clone(), "http://any.example/old-shop/x");
    assert!(
        matches!(&moved.end, End::Reply { status: 301, location: Some(to), .. } if to == "http://any.example/"),
        "{moved:#?}"
    );
    let item = mesh.get(ingress.clone(), "http://any.example/items/42");
    assert_eq!((item.pod().as_str(), item.seen().unwrap().path.as_str()), ("east/catalog-east-0", "/item"));
    let tester = mesh.request(ingress, "GET", "http://any.example/", &[("end-user", "tester")]);
    assert_eq!(tester.pod(), "west/reviews-v2-0");
    let taste = mesh.request(STOREFRONT, "GET", "http://reviews:9080/", &[("x-taste-of", "v3")]);
    assert_eq!(taste.pod(), "west/reviews-v3-0");
    for (from, url, pod, peer) in [
        (STOREFRONT, "http://ratings:9080/", "west/ratings-v1-0", "spiffe://east.local/ns/default/sa/storefront"),
        (
            From::Pod("west/ratings-v1-0"),
            "http://inventory.vm.internal:7070/",
            "vm/inventory-0",
            "spiffe://west.local/ns/default/sa/ratings",
        ),
        (
            From::Pod("vm/inventory-0"),
            "http://ratings:9080/",
            "west/ratings-v1-0",
            "spiffe://vm.local/ns/default/sa/inventory",
        ),
        (
            From::Pod("vm/inventory-0"),
            "http://storefront/",
            "east/storefront-0",
            "spiffe://vm.local/ns/default/sa/inventory",
        ),
    ] {
        let trace = mesh.get(from, url);
        assert_eq!((trace.pod().as_str(), trace.peer()), (pod, Some(peer)), "{url}: {trace:#?}");
    }
    for (url, to) in [("http://partner.example.com/", 8088), ("http://partner-by-name.example.com/", 18088)] {
        let trace = mesh.get(STOREFRONT, url);
        assert!(matches!(trace.end, End::Outside { port, .. } if port == to), "{trace:#?}");
    }
    for (pod, port, strict) in [("catalog-west-0", 8080, false), ("ratings-v1-0", 9080, true)] {
        let to = mesh.site("west").pod(pod).address(port);
        let trace = mesh.get(From::Address { site: "west", to, hello: None }, "http://plain/");
        assert_eq!(matches!(trace.end, End::Lost { .. }), strict, "{trace:#?}");
    }
}

#[test]
fn the_sample_splits_and_fails_over() {
    let mut mesh = Mesh::of(sites()).build();
    let v2 = (0..1000).filter(|_| mesh.get(STOREFRONT, "http://reviews:9080/").pod() == "west/reviews-v2-0").count();
    assert!((149..=251).contains(&v2), "{v2} of 1000");
    assert_eq!(mesh.get(STOREFRONT, "http://catalog:8080/").pod(), "east/catalog-east-0");
    mesh.site_mut("east").set_ready("catalog-east-0", false);
    mesh.settle();
    assert_eq!(mesh.get(STOREFRONT, "http://catalog:8080/").pod(), "west/catalog-west-0");
    mesh.site_mut("east").set_ready("catalog-east-0", true);
    mesh.settle();
    assert_eq!(mesh.get(STOREFRONT, "http://catalog:8080/").pod(), "east/catalog-east-0");
}
