//! Which pods a site's manifests ask for.
//!
//! Pure: run specifications in, pods out. Never knows where a pod will live.

use std::collections::BTreeMap;
use tombolo_controlplane_dialect::{RunKind, RunSpec};

/// How a pod is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registration {
    /// As a Kubernetes Pod.
    Pod,
    /// As a WorkloadEntry: a machine without Kubernetes.
    Entry,
}

/// A port with its name, empty when it has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortSpec {
    pub(crate) number: u16,
    pub(crate) name: String,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodSpec {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// The Deployment or group it belongs to.
    pub(crate) owner: String,
    pub(crate) registration: Registration,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) service_account: String,
    pub(crate) ports: Vec<PortSpec>,
    /// `region/zone/subzone` when the manifest says it.
    pub(crate) locality: Option<String>,
    /// False when the manifest wants none.
    pub(crate) sidecar: bool,
}

impl PodSpec {
    pub(crate) fn key(&self) -> PodKey {
        (self.namespace.clone(), self.name.clone())
    }
}

/// Identifies a pod in its site: namespace and name.
pub(crate) type PodKey = (String, String);

/// All pods, with at most `max_replicas` of each owner.
pub(crate) fn pods(runs: &[RunSpec], max_replicas: u32) -> BTreeMap<PodKey, PodSpec> {
    let mut pods = BTreeMap::new();
    for run in runs {
        for number in 0..run.replicas.min(max_replicas) {
            let name = match run.kind {
                RunKind::Pod => run.name.clone(),
                RunKind::Deployment
                | RunKind::StatefulSet
                | RunKind::DaemonSet
                | RunKind::ReplicaSet
                | RunKind::WorkloadGroup => format!("{}-{number}", run.name),
            };
            let pod = pod(run, name);
            // Two owners of one name (a Deployment and a StatefulSet): the first keeps it.
            pods.entry(pod.key()).or_insert(pod);
        }
    }
    pods
}

fn pod(run: &RunSpec, name: String) -> PodSpec {
    let account = if run.service_account.is_empty() { "default" } else { &run.service_account };
    let mut ports: Vec<PortSpec> =
        run.ports.iter().map(|p| PortSpec { number: p.number, name: p.name.clone() }).collect();
    ports.sort();
    ports.dedup_by_key(|p| p.number);
    PodSpec {
        name,
        namespace: run.namespace.as_str().to_owned(),
        owner: run.name.clone(),
        registration: match run.kind {
            RunKind::WorkloadGroup => Registration::Entry,
            RunKind::Deployment | RunKind::StatefulSet | RunKind::DaemonSet | RunKind::ReplicaSet | RunKind::Pod => {
                Registration::Pod
            }
        },
        labels: run.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        service_account: account.to_owned(),
        ports,
        locality: run.locality.as_ref().map(ToString::to_string),
        sidecar: run.sidecar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::folder;

    fn check(yaml: &str, max: u32, expect: &[&str]) -> BTreeMap<PodKey, PodSpec> {
        let reading = folder::read_text(yaml);
        let pods = pods(&reading.runs(), max);
        let names: Vec<_> = pods.values().map(|p| p.name.as_str()).collect();
        assert_eq!(names, expect, "{:?}", reading.diagnostics);
        pods
    }

    fn deployment(replicas: u32) -> String {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
             spec: {{containers: [{{name: c, image: i, ports: [{{containerPort: 9080, name: http}}]}}]}}\n"
        )
    }

    #[test]
    fn replicas_are_bounded_and_zero_is_none() {
        check(&deployment(5), 3, &["web-0", "web-1", "web-2"]);
        check(&deployment(0), 3, &[]);
        let pods = check(&deployment(1), 3, &["web-0"]);
        let pod = pods.values().next().unwrap();
        assert_eq!((pod.service_account.as_str(), pod.registration), ("default", Registration::Pod));
        assert_eq!(pod.ports, [PortSpec { number: 9080, name: "http".into() }]);
    }

    #[test]
    fn services_add_the_ports_that_containers_leave_out() {
        let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                       spec: {selector: {app: web}, ports: [{port: 80, name: tcp}]}\n";
        let pods = check(&format!("{}{service}", deployment(1)), 3, &["web-0"]);
        let ports: Vec<_> = pods.values().next().unwrap().ports.iter().map(|p| p.number).collect();
        assert_eq!(ports, [80, 9080]);
    }

    #[test]
    fn machines_are_entries() {
        let group = "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: old}\n\
                     spec: {metadata: {labels: {app: old}}, template: {serviceAccount: keeper, ports: {http: 80}}}\n";
        let pods = check(group, 3, &["old-0"]);
        let pod = pods.values().next().unwrap();
        assert_eq!((pod.registration, pod.service_account.as_str()), (Registration::Entry, "keeper"));
        assert_eq!(pod.labels["app"], "old");
    }
}
