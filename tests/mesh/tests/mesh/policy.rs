//! Hosts that nobody declared, and servers outside of the mesh.

use crate::{sound, yaml};
use tombolo_tests_mesh::{End, From, Mesh, SiteSpec};

const WEB: From<'static> = From::Pod("east/web-v1-0");

const MESH_ONLY: &str = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: \
                         |\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";
const SIDECAR_ANY: &str = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: loose}\nspec:\n  \
                           workloadSelector: {labels: {app: loose}}\n  outboundTrafficPolicy: {mode: ALLOW_ANY}\n  egress: \
                           [{hosts: [\"*/*\"]}]\n";
const PARTNERS: &str = r#"---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: by-address}
spec:
  hosts: [partner.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 198.51.100.9, ports: {http: 8088}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: by-name}
spec:
  hosts: [named.example]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: real.example, ports: {http: 8089}}]
"#;

fn mesh(more: &str) -> Mesh {
    let east = [yaml::app("web", &[("v1", 1)]), yaml::app("loose", &[("v1", 1)]), PARTNERS.to_owned()];
    let mesh = Mesh::of([SiteSpec::new("east", &east.concat()).file("policy.yaml", more)]).build();
    sound(&mesh);
    mesh
}

#[test]
fn unknown_hosts_pass_unless_the_mesh_says_otherwise() {
    let mut open = mesh("");
    let trace = open.get(WEB, "http://unknown.example:81/x");
    let End::Outside { host, port, seen } = &trace.end else { panic!("{trace:#?}") };
    assert_eq!((host.as_str(), *port, seen.path.as_str()), ("unknown.example", 81, "/x"));
    let mut closed = mesh(MESH_ONLY);
    let trace = closed.get(WEB, "http://unknown.example:81/x");
    assert!(matches!(&trace.end, End::Reply { status: 502, by, .. } if by == "east/web-v1-0"), "{trace:#?}");
    assert_eq!(closed.get(WEB, "http://loose:9080/").pod(), "east/loose-v1-0");
    assert_eq!(closed.get(WEB, "http://partner.example/").status(), 200);
}

#[test]
fn a_sidecar_may_be_looser_than_the_mesh() {
    let mut mesh = mesh(&[MESH_ONLY, SIDECAR_ANY].concat());
    assert_eq!(mesh.get(WEB, "http://unknown.example/").status(), 502);
    let trace = mesh.get(From::Pod("east/loose-v1-0"), "http://unknown.example/");
    assert!(matches!(trace.end, End::Outside { .. }), "{trace:#?}");
    mesh.site_mut("east").write("policy.yaml", SIDECAR_ANY);
    mesh.settle();
    assert_eq!(mesh.get(WEB, "http://unknown.example/").status(), 200, "the policy was taken back");
}

#[test]
fn servers_outside_are_called_in_plaintext_by_address_and_by_name() {
    let mut mesh = mesh("");
    for (url, wanted) in
        [("http://partner.example/", ("198.51.100.9", 8088)), ("http://named.example/", ("real.example", 8089))]
    {
        let trace = mesh.get(WEB, url);
        let End::Outside { host, port, .. } = &trace.end else { panic!("{trace:#?}") };
        assert_eq!((host.as_str(), *port), wanted);
        assert_eq!(trace.hops.len(), 1);
    }
}
