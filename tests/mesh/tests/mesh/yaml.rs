//! Manifests that several tests share.

use tombolo_tests_mesh::SiteSpec;

/// A service and the pods that serve it, one deployment for each version, all of account `NAME`.
pub(crate) fn app(name: &str, versions: &[(&str, u32)]) -> String {
    let mut text = service(name, "http", 9080);
    for (version, replicas) in versions {
        text.push_str(&deployment(name, version, *replicas));
    }
    text
}

pub(crate) fn service(name: &str, port_name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{app: {name}}}\n  ports: [{{name: \
         {port_name}, port: {port}}}]\n"
    )
}

pub(crate) fn deployment(name: &str, version: &str, replicas: u32) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}-{version}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}, version: {version}}}}}\n  template:\n    metadata: {{labels: {{app: {name}, \
         version: {version}}}}}\n    spec:\n      serviceAccountName: {name}\n      containers: [{{name: app, image: x}}]\n"
    )
}

pub(crate) fn export(name: &str) -> String {
    format!("---\napiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\nmetadata: {{name: {name}}}\n")
}

/// Subsets `v1`, `v2` and `v3` by label.
pub(crate) fn subsets(name: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec:\n  host: {name}\n  \
         subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  - {{name: v2, labels: {{version: v2}}}}\n  - {{name: v3, \
         labels: {{version: v3}}}}\n"
    )
}

/// Two subsets of one service by weight.
pub(crate) fn split(name: &str, v1: u32, v2: u32) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{name}]\n  \
         http:\n  - route:\n    - destination: {{host: {name}, subset: v1}}\n      weight: {v1}\n    - destination: {{host: \
         {name}, subset: v2}}\n      weight: {v2}\n"
    )
}

/// A caller in east; reviews v1 in east and v2 in west, four to one; catalog in both; ratings in west only.
pub(crate) fn pair() -> [SiteSpec; 2] {
    let east =
        [app("web", &[("v1", 1)]), app("reviews", &[("v1", 2)]), app("catalog", &[("v1", 1)]), subsets("reviews")];
    let west = [app("reviews", &[("v2", 1)]), app("catalog", &[("v1", 2)]), app("ratings", &[("v1", 1)])];
    [
        SiteSpec::new("east", &east.concat()).file("split.yaml", &split("reviews", 80, 20)),
        SiteSpec::new("west", &west.concat()),
    ]
}
