//! What a Gateway and a VirtualService make of requests at an ingress gateway.

use crate::{sound, yaml};
use tombolo_tests_mesh::{End, From, Mesh, SiteSpec, Trace};

const ROUTES: &str = r#"---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["shop.example", "*.wild.example"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front}
spec:
  hosts: ["shop.example"]
  gateways: [front]
  http:
  - name: exact
    match: [{uri: {exact: /exact}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - name: regex
    match: [{uri: {regex: "/items/[0-9]+"}}]
    rewrite: {uri: /item, authority: inside.example}
    route: [{destination: {host: catalog}}]
  - name: header
    match: [{headers: {end-user: {exact: tester}}, uri: {prefix: /app}}]
    headers: {request: {set: {x-told: "yes"}, remove: [x-secret]}}
    route: [{destination: {host: reviews, subset: v2}}]
  - name: both
    match: [{method: {exact: POST}, queryParams: {mode: {exact: fast}}}]
    route: [{destination: {host: catalog}}]
  - name: moved
    match: [{uri: {prefix: /old}}]
    redirect: {uri: /new, authority: other.example, redirectCode: 308}
  - name: short
    match: [{uri: {exact: /short}}]
    directResponse: {status: 503, body: {string: "closed for today"}}
  - name: stripped
    match: [{uri: {prefix: /api/}}]
    rewrite: {uri: /}
    route: [{destination: {host: catalog}}]
  - name: teapot
    match: [{uri: {exact: /teapot}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: catalog}}]
  - name: late
    match: [{uri: {exact: /late}}]
    fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}, abort: {httpStatus: 500, percentage: {value: 100}}}
    route: [{destination: {host: catalog}}]
  - name: app
    match: [{uri: {prefix: /app}}]
    route: [{destination: {host: reviews, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild}
spec:
  hosts: ["*.wild.example"]
  gateways: [front]
  http:
  - route: [{destination: {host: catalog}}]
"#;

fn mesh() -> Mesh {
    let east = [
        yaml::app("reviews", &[("v1", 1), ("v2", 1)]),
        yaml::app("catalog", &[("v1", 1)]),
        yaml::subsets("reviews"),
        ROUTES.to_owned(),
    ];
    let mesh = Mesh::of([SiteSpec::new("east", &east.concat())]).build();
    sound(&mesh);
    mesh
}

fn get(mesh: &mut Mesh, path: &str) -> Trace {
    mesh.get(From::Ingress("east"), &format!("http://shop.example{path}"))
}

#[track_caller]
fn check(trace: &Trace, route: &str, pod: &str, path: &str) {
    assert_eq!(trace.hops[0].route, route, "{trace:#?}");
    assert_eq!(trace.pod(), format!("east/{pod}"), "{trace:#?}");
    assert_eq!(trace.proxies(), ["east/ingress", &format!("east/{pod}")]);
    assert_eq!(trace.seen().unwrap().path, path);
    assert_eq!(trace.peer(), Some("spiffe://east.local/ns/istio-system/sa/istio-ingressgateway"));
}

#[test]
fn paths_match_exactly_by_prefix_and_by_pattern() {
    let mut mesh = mesh();
    check(&get(&mut mesh, "/exact"), "exact", "reviews-v1-0", "/exact");
    check(&get(&mut mesh, "/exact?x=1"), "exact", "reviews-v1-0", "/exact?x=1");
    check(&get(&mut mesh, "/app/deep"), "app", "reviews-v1-0", "/app/deep");
    check(&get(&mut mesh, "/items/42"), "regex", "catalog-v1-0", "/item");
    for miss in ["/exact/", "/items/x", "/items/4/2", "/"] {
        assert_eq!(get(&mut mesh, miss).status(), 404, "{miss}");
    }
}

#[test]
fn headers_methods_and_queries_match_together() {
    let mut mesh = mesh();
    let from = From::Ingress("east");
    let told = [("end-user", "tester"), ("x-secret", "s")];
    let trace = mesh.request(from.clone(), "GET", "http://shop.example/app", &told);
    check(&trace, "header", "reviews-v2-0", "/app");
    let seen = trace.seen().unwrap();
    assert_eq!((seen.header("x-told"), seen.header("x-secret")), (Some("yes"), None));
    let other = mesh.request(from.clone(), "GET", "http://shop.example/app", &[("end-user", "tester2")]);
    check(&other, "app", "reviews-v1-0", "/app");
    let post = mesh.request(from.clone(), "POST", "http://shop.example/x?mode=fast", &[]);
    check(&post, "both", "catalog-v1-0", "/x?mode=fast");
    for (method, query) in [("GET", "mode=fast"), ("POST", "mode=slow"), ("POST", "")] {
        let miss = mesh.request(from.clone(), method, &format!("http://shop.example/x?{query}"), &[]);
        assert_eq!(miss.status(), 404, "{method} {query}");
    }
}

#[test]
fn rewrites_change_what_the_application_sees() {
    let mut mesh = mesh();
    let trace = get(&mut mesh, "/items/7");
    assert_eq!(trace.seen().unwrap().authority, "inside.example");
    assert_eq!(trace.seen().unwrap().header("x-envoy-original-path"), Some("/items/7"));
    check(&get(&mut mesh, "/api/v2/x?y"), "stripped", "catalog-v1-0", "/v2/x?y");
}

#[track_caller]
fn answered(trace: &Trace) -> (u16, Option<&str>, &str, u64) {
    let End::Reply { by, status, location, body, delay, .. } = &trace.end else { panic!("{trace:#?}") };
    assert_eq!((by.as_str(), trace.hops.len()), ("east/ingress", 1), "{trace:#?}");
    (*status, location.as_deref(), body, *delay)
}

#[test]
fn the_gateway_answers_by_itself_where_routes_say_so() {
    let mut mesh = mesh();
    let moved = get(&mut mesh, "/old/page");
    assert_eq!(answered(&moved), (308, Some("http://other.example/new"), "", 0));
    assert_eq!(answered(&get(&mut mesh, "/short")), (503, None, "closed for today", 0));
    let (status, .., delay) = answered(&get(&mut mesh, "/teapot"));
    assert_eq!((status, delay), (418, 0));
    let (status, .., delay) = answered(&get(&mut mesh, "/late"));
    assert_eq!((status, delay), (500, 300));
}

#[test]
fn hosts_are_kept_apart() {
    let mut mesh = mesh();
    let from = From::Ingress("east");
    for (host, status) in
        [("a.wild.example", 200), ("a.b.wild.example", 200), ("wild.example", 404), ("x.example", 404)]
    {
        let trace = mesh.get(from.clone(), &format!("http://{host}/anything"));
        assert_eq!(trace.status(), status, "{host}: {trace:#?}");
    }
}
