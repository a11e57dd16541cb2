//! References into other namespaces: nothing without a grant, everything with it, and neighbours as before.

use crate::{sound, yaml};
use tombolo_tests_mesh::{End, From, Mesh, SiteSpec, Trace};

const SHOP: &str = r#"---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: istio-system}
spec:
  gatewayClassName: istio
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - name: https
    port: 443
    protocol: HTTPS
    hostname: shop.example
    tls: {certificateRefs: [{name: shop-cert, namespace: bank}]}
    allowedRoutes: {namespaces: {from: All}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bank}
spec:
  parentRefs: [{name: front, namespace: istio-system}]
  hostnames: [shop.example]
  rules:
  - matches: [{path: {type: PathPrefix, value: /bank}}]
    backendRefs: [{name: ledger, namespace: bank, port: 9080}]
  - matches: [{path: {type: PathPrefix, value: /shop}}]
    backendRefs: [{name: api, port: 9080}]
"#;
const BANK: &str = r#"---
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: bank}
spec: {selector: {app: ledger}, ports: [{name: http, port: 9080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ledger-v1, namespace: bank}
spec:
  replicas: 1
  selector: {matchLabels: {app: ledger}}
  template:
    metadata: {labels: {app: ledger}}
    spec: {serviceAccountName: ledger, containers: [{name: app, image: x}]}
---
apiVersion: v1
kind: Secret
metadata: {name: shop-cert, namespace: bank}
type: kubernetes.io/tls
stringData:
  tls.crt: "-----BEGIN CERTIFICATE-----\nshop\n-----END CERTIFICATE-----\n"
  tls.key: "-----BEGIN PRIVATE KEY-----\nshop\n-----END PRIVATE KEY-----\n"
"#;

fn grant(from: &str, namespace: &str, to: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: bank}}\nspec:\n  \
         from: [{{group: gateway.networking.k8s.io, kind: {from}, namespace: {namespace}}}]\n  to: [{to}]\n"
    )
}

fn mesh() -> Mesh {
    let east = [yaml::app("api", &[("v1", 1)]), SHOP.to_owned(), BANK.to_owned()];
    let mesh = Mesh::of([SiteSpec::new("east", &east.concat())]).build();
    sound(&mesh);
    mesh
}

#[track_caller]
fn answers(mesh: &mut Mesh, url: &str, wanted: Result<&str, u16>) {
    let trace: Trace = mesh.get(From::Ingress("east"), url);
    match wanted {
        Ok(pod) => assert_eq!(trace.pod(), pod, "{trace:#?}"),
        Err(wanted) => {
            assert!(matches!(&trace.end, End::Reply { status, .. } if *status == wanted), "{trace:#?}");
        }
    }
}

#[test]
fn a_backend_of_another_namespace_needs_a_grant() {
    let mut mesh = mesh();
    let (bank, shop) = ("http://shop.example/bank", "http://shop.example/shop");
    answers(&mut mesh, bank, Err(500));
    answers(&mut mesh, shop, Ok("east/api-v1-0"));
    let service = "{group: \"\", kind: Service}";
    for wrong in [
        grant("HTTPRoute", "elsewhere", service),
        grant("TCPRoute", "default", service),
        grant("HTTPRoute", "default", "{group: \"\", kind: Secret}"),
        grant("HTTPRoute", "default", "{group: \"\", kind: Service, name: other}"),
    ] {
        mesh.site_mut("east").write("grant.yaml", &wrong);
        mesh.settle();
        answers(&mut mesh, bank, Err(500));
    }
    mesh.site_mut("east").write("grant.yaml", &grant("HTTPRoute", "default", service));
    mesh.settle();
    sound(&mesh);
    answers(&mut mesh, bank, Ok("east/ledger-v1-0"));
    mesh.site_mut("east").remove("grant.yaml");
    mesh.settle();
    answers(&mut mesh, bank, Err(500));
    answers(&mut mesh, shop, Ok("east/api-v1-0"));
}

#[test]
fn a_certificate_of_another_namespace_needs_a_grant() {
    let mut mesh = mesh();
    let secure = "https://shop.example/shop";
    let lost = |mesh: &mut Mesh| {
        let trace = mesh.get(From::Ingress("east"), secure);
        assert!(matches!(&trace.end, End::Lost { .. }), "{trace:#?}");
    };
    lost(&mut mesh);
    let secret = "{group: \"\", kind: Secret, name: shop-cert}";
    mesh.site_mut("east").write("grant.yaml", &grant("Gateway", "default", secret));
    mesh.settle();
    lost(&mut mesh);
    mesh.site_mut("east").write("grant.yaml", &grant("Gateway", "istio-system", secret));
    mesh.settle();
    sound(&mesh);
    answers(&mut mesh, secure, Ok("east/api-v1-0"));
    mesh.site_mut("east").remove("grant.yaml");
    mesh.settle();
    lost(&mut mesh);
    answers(&mut mesh, "http://shop.example/shop", Ok("east/api-v1-0"));
}
