//! Services whose sites disagree or say little: ports, headless services, scopes, places of a hash.

use crate::{sound, yaml};
use std::collections::BTreeSet;
use tombolo_tests_mesh::{End, From, Mesh, SiteSpec};

const WEB: From<'static> = From::Pod("east/web-v1-0");

#[test]
fn each_site_serves_a_port_where_it_likes() {
    let api = |target: u16| {
        yaml::deployment("api", "v1", 1)
            + &format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: api}}\nspec:\n  selector: {{app: api}}\n  ports: [{{name: \
                 http, port: 80, targetPort: {target}}}]\n"
            )
    };
    let east = [yaml::app("web", &[("v1", 1)]), api(8080)].concat();
    let mut mesh = Mesh::of([SiteSpec::new("east", &east), SiteSpec::new("west", &api(443))]).build();
    sound(&mesh);
    let trace = mesh.get(WEB, "http://api/");
    assert!(matches!(trace.end, End::Workload { port: 8080, .. }), "{trace:#?}");
    mesh.site_mut("east").set_ready("api-v1-0", false);
    mesh.settle();
    let trace = mesh.get(WEB, "http://api/");
    assert_eq!(trace.pod(), "west/api-v1-0");
    assert!(matches!(trace.end, End::Workload { port: 443, .. }), "{trace:#?}");
}

#[test]
fn a_headless_service_is_called_across_sites() {
    let api = yaml::app("api", &[("v1", 2)])
        .replace("spec:\n  selector: {app: api}", "spec:\n  clusterIP: None\n  selector: {app: api}");
    let sites = [SiteSpec::new("east", &yaml::app("web", &[("v1", 1)])), SiteSpec::new("west", &api)];
    let mut mesh = Mesh::of(sites).build();
    sound(&mesh);
    let pods: BTreeSet<String> = (0..40).map(|_| mesh.get(WEB, "http://api:9080/").pod()).collect();
    assert_eq!(pods, ["west/api-v1-0", "west/api-v1-1"].map(str::to_owned).into());
}

#[test]
fn a_scope_hides_what_it_does_not_import() {
    let other =
        yaml::app("api", &[("v1", 1)]).replace("metadata: {name: api", "metadata: {namespace: other, name: api");
    let scope = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec: {egress: [{hosts: \
                 [\"./*\"]}]}\n";
    let east = [yaml::app("web", &[("v1", 1)]), yaml::app("near", &[("v1", 1)]), other];
    let mut mesh = Mesh::of([SiteSpec::new("east", &east.concat()).file("scope.yaml", "")]).build();
    sound(&mesh);
    assert_eq!(mesh.get(WEB, "http://api.other:9080/").pod(), "east/api-v1-0");
    mesh.site_mut("east").write("scope.yaml", scope);
    mesh.settle();
    sound(&mesh);
    let trace = mesh.get(WEB, "http://api.other:9080/");
    assert!(matches!(trace.end, End::Outside { .. }), "{trace:#?}");
    assert_eq!(mesh.get(WEB, "http://near:9080/").pod(), "east/near-v1-0");
    let known = mesh.proxy("east/web-v1-0").config().clusters.iter().filter(|(name, _)| name.contains("other")).count();
    assert_eq!(known, 0);
}

#[test]
fn a_hash_of_a_header_has_one_place() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: api}\nspec:\n  host: api\n  \
                trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}\n";
    let east = [yaml::app("web", &[("v1", 1)]), yaml::app("api", &[("v1", 4)]), rule.to_owned()];
    let mut mesh = Mesh::of([SiteSpec::new("east", &east.concat())]).build();
    sound(&mesh);
    let mut used = BTreeSet::new();
    for user in 0..40 {
        let user = user.to_string();
        let mut ask = || mesh.request(WEB, "GET", "http://api:9080/", &[("x-user", &user)]).pod();
        let first = ask();
        assert!((0..5).all(|_| ask() == first), "{user}");
        used.insert(first);
    }
    assert_eq!(used.len(), 4, "{used:?}");
}

#[test]
fn an_account_that_changes_is_expected_at_once() {
    let east = [yaml::app("web", &[("v1", 1)]), yaml::app("api", &[("v1", 1)])];
    let west = yaml::app("far", &[("v1", 1)]);
    let mut mesh = Mesh::of([SiteSpec::new("east", &east.concat()), SiteSpec::new("west", &west)]).build();
    mesh.site_mut("east").edit("site.yaml", "serviceAccountName: api", "serviceAccountName: robot");
    mesh.settle();
    sound(&mesh);
    assert_eq!(mesh.get(WEB, "http://api:9080/").pod(), "east/api-v1-0");
    assert_eq!(mesh.get(From::Pod("west/far-v1-0"), "http://api:9080/").pod(), "east/api-v1-0");
}
