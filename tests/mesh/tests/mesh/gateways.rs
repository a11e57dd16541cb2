//! Gateways with TLS, and the Gateway API.

use crate::{sound, yaml};
use tombolo_tests_mesh::{End, From, Mesh, SiteSpec};

const SERVERS: &str = r#"---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [shop.example]
    tls: {httpsRedirect: true}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.example]
    tls: {mode: SIMPLE, credentialName: shop-cert}
  - port: {number: 443, name: https-lost, protocol: HTTPS}
    hosts: [lost.example]
    tls: {mode: SIMPLE, credentialName: no-such-cert}
  - port: {number: 443, name: tls, protocol: TLS}
    hosts: [raw.example]
    tls: {mode: PASSTHROUGH}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front}
spec:
  hosts: [shop.example, lost.example]
  gateways: [istio-system/front]
  http: [{route: [{destination: {host: api}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: raw}
spec:
  hosts: [raw.example]
  gateways: [istio-system/front]
  tls:
  - match: [{port: 443, sniHosts: [raw.example]}]
    route: [{destination: {host: api, port: {number: 9080}}}]
"#;
const SECRET: &str = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: shop-cert, namespace: istio-system}\ntype: \
                      kubernetes.io/tls\nstringData:\n  tls.crt: \"-----BEGIN CERTIFICATE-----\\nshop\\n-----END \
                      CERTIFICATE-----\\n\"\n  tls.key: \"-----BEGIN PRIVATE KEY-----\\nshop\\n-----END PRIVATE KEY-----\\n\"\n";

fn mesh() -> Mesh {
    let east = [yaml::app("api", &[("v1", 1)]), SERVERS.to_owned()];
    let mesh = Mesh::of([SiteSpec::new("east", &east.concat()).file("secret.yaml", SECRET)]).build();
    sound(&mesh);
    mesh
}

#[test]
fn tls_is_ended_by_the_certificate_of_the_host() {
    let mut mesh = mesh();
    let from = From::Ingress("east");
    let trace = mesh.get(from.clone(), "https://shop.example/x");
    assert_eq!(trace.pod(), "east/api-v1-0", "{trace:#?}");
    assert_eq!(trace.hops[0].alpn.as_deref(), Some("h2"));
    assert_eq!(trace.seen().unwrap().header("x-forwarded-proto"), Some("https"));
    let moved = mesh.get(from.clone(), "http://shop.example/x");
    assert!(
        matches!(&moved.end, End::Reply { status: 301, location: Some(to), .. } if to == "https://shop.example/x"),
        "{moved:#?}"
    );
    for host in ["lost.example", "other.example"] {
        let trace = mesh.get(from.clone(), &format!("https://{host}/"));
        assert!(matches!(&trace.end, End::Lost { at, .. } if at == "east/ingress"), "{trace:#?}");
    }
}

#[test]
fn a_certificate_may_come_and_go() {
    let mut mesh = mesh();
    let from = From::Ingress("east");
    mesh.site_mut("east").remove("secret.yaml");
    mesh.settle();
    sound(&mesh);
    assert!(matches!(mesh.get(from.clone(), "https://shop.example/").end, End::Lost { .. }));
    assert_eq!(mesh.get(from.clone(), "http://shop.example/").status(), 301, "the other port goes on");
    mesh.site_mut("east").write("secret.yaml", SECRET);
    mesh.settle();
    sound(&mesh);
    assert_eq!(mesh.get(from, "https://shop.example/").pod(), "east/api-v1-0");
}

#[test]
fn unopened_tls_goes_by_its_server_name() {
    let mut mesh = mesh();
    let trace = mesh.get(From::Ingress("east"), "https://raw.example/");
    assert_eq!(trace.hops[0].cluster, "outbound|9080||api.default.svc.cluster.local", "{trace:#?}");
    assert_eq!(trace.hops[0].alpn, None);
}

#[test]
fn routes_of_the_gateway_api_reach_another_site() {
    let east = r#"---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: istio
  listeners:
  - {name: web, port: 80, protocol: HTTP, hostname: "*.edge.example", allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api}
spec:
  parentRefs: [{name: edge}]
  hostnames: [a.edge.example]
  rules:
  - matches: [{path: {type: PathPrefix, value: /api}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    backendRefs: [{name: api, port: 9080}]
"#;
    let stub = yaml::service("api", "http", 9080);
    let sites =
        [SiteSpec::new("east", &[east, &stub].concat()), SiteSpec::new("west", &yaml::app("api", &[("v1", 1)]))];
    let mut mesh = Mesh::of(sites).build();
    sound(&mesh);
    let from = From::Ingress("east");
    let trace = mesh.get(from.clone(), "http://a.edge.example/api/x");
    assert_eq!(trace.pod(), "west/api-v1-0", "{trace:#?}");
    assert_eq!(trace.seen().unwrap().path, "/x");
    for url in ["http://a.edge.example/apix", "http://a.edge.example/", "http://b.edge.example/api"] {
        assert_eq!(mesh.get(from.clone(), url).status(), 404, "{url}");
    }
}

#[test]
fn a_gateway_object_anywhere_uses_the_secrets_of_the_gateways_own_namespace() {
    let servers = SERVERS.replace(", namespace: istio-system}", "}").replace("istio-system/front", "front");
    let east = [yaml::app("api", &[("v1", 1)]), servers];
    let mut mesh = Mesh::of([SiteSpec::new("east", &east.concat()).file("secret.yaml", SECRET)]).build();
    sound(&mesh);
    let trace = mesh.get(From::Ingress("east"), "https://shop.example/x");
    assert_eq!(trace.pod(), "east/api-v1-0", "{trace:#?}");
}
