//! Who may speak with whom: plaintext, mutual TLS, and names that do not belong to who shows them.

use crate::{sound, yaml};
use tombolo_federation_model::{Identity, TrustDomain};
use tombolo_tests_mesh::{End, From, Hello, Mesh, SiteSpec, Trace};

const WEB: From<'static> = From::Pod("east/web-v1-0");
const WEB_ID: &str = "spiffe://east.local/ns/default/sa/web";

fn policy(mode: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: api}}\nspec:\n  selector: \
         {{matchLabels: {{app: api}}}}\n  mtls: {{mode: {mode}}}\n"
    )
}

/// `port_name` says what is spoken: `http`, `tcp`, or nothing that anybody knows.
fn mesh(port_name: &str, mode: &str) -> Mesh {
    let east = [
        yaml::app("web", &[("v1", 1)]),
        yaml::service("api", port_name, 9080),
        yaml::deployment("api", "v1", 1),
        policy(mode),
    ];
    let west = yaml::app("far", &[("v1", 1)]);
    let mesh = Mesh::of([SiteSpec::new("east", &east.concat()), SiteSpec::new("west", &west)]).build();
    sound(&mesh);
    mesh
}

fn dial(mesh: &mut Mesh, hello: Option<Hello>) -> Trace {
    let to = mesh.site("east").pod("api-v1-0").address(9080);
    mesh.get(From::Address { site: "east", to, hello }, "http://api:9080/")
}

fn trust(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

fn member() -> Hello {
    Hello::stranger("", &["istio-http/1.1", "istio", "http/1.1"]).showing(WEB_ID, &trust("east.local"))
}

#[track_caller]
fn refused(trace: &Trace, word: &str) {
    let End::Lost { at, why } = &trace.end else { panic!("{trace:#?}") };
    assert_eq!(at, "east/api-v1-0");
    assert!(why.contains(word), "{why:?} should say {word:?}");
}

#[test]
fn permissive_takes_both_and_tells_them_apart() {
    for port_name in ["http", "tcp", "other"] {
        let mut mesh = mesh(port_name, "PERMISSIVE");
        let plain = dial(&mut mesh, None);
        assert_eq!((plain.pod().as_str(), plain.peer()), ("east/api-v1-0", None), "{port_name}: {plain:#?}");
        let mutual = dial(&mut mesh, Some(member()));
        assert_eq!((mutual.pod().as_str(), mutual.peer()), ("east/api-v1-0", Some(WEB_ID)), "{port_name}: {mutual:#?}");
        let nobody = Hello::stranger("", &["istio-http/1.1", "istio"]);
        refused(&dial(&mut mesh, Some(nobody)), "no certificate");
    }
}

#[test]
fn strict_takes_mutual_tls_only() {
    for port_name in ["http", "tcp", "other"] {
        let mut mesh = mesh(port_name, "STRICT");
        assert!(matches!(dial(&mut mesh, None).end, End::Lost { .. }), "{port_name}");
        assert_eq!(dial(&mut mesh, Some(member())).peer(), Some(WEB_ID), "{port_name}");
        refused(&dial(&mut mesh, Some(Hello::stranger("", &["http/1.1"]))), "no certificate");
        refused(&dial(&mut mesh, Some(Hello::stranger("", &[]))), "no certificate");
        // A port of which only bytes are known takes requests in proxy form by no route.
        let status = if port_name == "tcp" { 404 } else { 200 };
        assert_eq!(mesh.get(WEB, "http://api:9080/").status(), status, "{port_name}");
    }
}

#[test]
fn disabled_takes_plaintext_only_and_callers_know() {
    let mut mesh = mesh("http", "DISABLE");
    assert_eq!(dial(&mut mesh, None).pod(), "east/api-v1-0");
    assert_ne!(dial(&mut mesh, Some(member())).pod(), "east/api-v1-0");
}

#[test]
fn a_policy_can_be_changed_while_it_is_in_force() {
    let mut mesh = mesh("http", "STRICT");
    mesh.site_mut("east").edit("site.yaml", "mode: STRICT", "mode: PERMISSIVE");
    mesh.settle();
    assert_eq!(dial(&mut mesh, None).pod(), "east/api-v1-0");
    mesh.site_mut("east").edit("site.yaml", "mode: PERMISSIVE", "mode: STRICT");
    mesh.settle();
    assert!(matches!(dial(&mut mesh, None).end, End::Lost { .. }));
}

#[test]
fn a_root_vouches_for_its_own_trust_domain_only() {
    let mut mesh = mesh("http", "STRICT");
    let shows = |identity: &str, domain: &str| member().showing(identity, &trust(domain));
    let far = "spiffe://west.local/ns/default/sa/far";
    assert_eq!(dial(&mut mesh, Some(shows(far, "west.local"))).peer(), Some(far));
    refused(&dial(&mut mesh, Some(shows(WEB_ID, "west.local"))), "does not vouch");
    refused(&dial(&mut mesh, Some(shows(far, "east.local"))), "does not vouch");
    let stranger = "spiffe://other.local/ns/default/sa/web";
    refused(&dial(&mut mesh, Some(shows(stranger, "other.local"))), "no bundle");
    refused(&dial(&mut mesh, Some(shows("web", "east.local"))), "SPIFFE");
}

#[test]
fn a_server_with_another_identity_than_its_workload_is_refused() {
    let mut mesh = mesh("http", "PERMISSIVE");
    assert_eq!(mesh.get(WEB, "http://api:9080/").pod(), "east/api-v1-0");
    let impostor = Identity::parse("spiffe://east.local/ns/default/sa/web").unwrap();
    mesh.proxy_mut("east/api-v1-0").present(&impostor);
    mesh.settle();
    refused(&mesh.get(WEB, "http://api:9080/"), "none of the names");
    let own = Identity::parse("spiffe://east.local/ns/default/sa/api").unwrap();
    mesh.proxy_mut("east/api-v1-0").present(&own);
    mesh.settle();
    assert_eq!(mesh.get(WEB, "http://api:9080/").pod(), "east/api-v1-0");
}

#[test]
fn a_pod_without_a_sidecar_is_called_in_plaintext_here_and_not_at_all_from_elsewhere() {
    let bare = yaml::deployment("bare", "v1", 1).replace(
        "{labels: {app: bare, version: v1}}",
        "{labels: {app: bare, version: v1, sidecar.istio.io/inject: \"false\"}}",
    );
    let east = [yaml::app("web", &[("v1", 1)]), yaml::service("bare", "http", 9080), bare];
    let west = yaml::app("far", &[("v1", 1)]);
    let mut mesh = Mesh::of([SiteSpec::new("east", &east.concat()), SiteSpec::new("west", &west)]).build();
    sound(&mesh);
    assert!(!mesh.site("east").pod("bare-v1-0").sidecar);
    let trace = mesh.get(WEB, "http://bare:9080/");
    assert_eq!((trace.pod().as_str(), trace.hops.len()), ("east/bare-v1-0", 1), "{trace:#?}");
    let far = mesh.get(From::Pod("west/far-v1-0"), "http://bare:9080/");
    assert!(matches!(&far.end, End::Reply { status: 503, .. }), "{far:#?}");
}
