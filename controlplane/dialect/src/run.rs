//! Owns what a set of objects wants to run: for tools that start stand-in workloads. Never starts anything.

use std::collections::BTreeMap;
use tombolo_federation_model::{Labels, Locality, Namespace, NetworkId, ObjectRef, Protocol, TargetPort};
use tombolo_federation_registry::Item;

/// Which kind of object asks for the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunKind {
    /// Replicas with random names.
    Deployment,
    /// Replicas with numbered names.
    StatefulSet,
    /// One on each node.
    DaemonSet,
    /// Replicas without an owner.
    ReplicaSet,
    /// A pod without an owner that runs nowhere yet.
    Pod,
    /// Machines that register themselves.
    WorkloadGroup,
}

/// A port on which a workload serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunPort {
    /// Name, or empty.
    pub name: String,
    /// Number.
    pub number: u16,
    /// What is spoken, as far as somebody said.
    pub protocol: Protocol,
}

/// Workloads of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// The kind that asks.
    pub kind: RunKind,
    /// The object.
    pub object: ObjectRef,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Labels of each workload.
    pub labels: Labels,
    /// Annotations of each workload.
    pub annotations: BTreeMap<String, String>,
    /// Account; `default` when the object says none.
    pub service_account: String,
    /// Ports in ascending order.
    pub ports: Vec<RunPort>,
    /// How many; 1 when the object says nothing.
    pub replicas: u32,
    /// Host name that the object wishes.
    pub hostname: Option<String>,
    /// Network, when the object says it.
    pub network: Option<NetworkId>,
    /// Place, when the object says it.
    pub locality: Option<Locality>,
    /// False when the object says that no sidecar is wanted.
    pub sidecar: bool,
}

impl RunSpec {
    /// Whether a selector picks these workloads. An empty selector picks none, as in a Kubernetes service.
    #[must_use]
    pub fn is_selected_by(&self, selector: &Labels) -> bool {
        !selector.is_empty() && selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

/// Adds to each run the ports that services expect of it and its object does not name, because a container port is only a
/// remark in Kubernetes and many manifests leave it out. Ports that have no protocol yet get that of the service port.
pub fn complete_ports<'i>(runs: &mut [RunSpec], items: impl IntoIterator<Item = &'i Item>) {
    for item in items {
        let Item::Service(service) = item else { continue };
        let Some(selector) = &service.selector else { continue };
        let selected = |run: &&mut RunSpec| run.namespace == service.namespace && run.is_selected_by(selector);
        for run in runs.iter_mut().filter(selected) {
            for port in &service.ports {
                complete_port(run, &port.target, port.protocol);
            }
        }
    }
    for run in runs {
        run.ports.sort_by_key(|port| port.number);
    }
}

fn complete_port(run: &mut RunSpec, target: &TargetPort, protocol: Protocol) {
    let known = run.ports.iter_mut().find(|port| match target {
        TargetPort::Number(number) => port.number == *number,
        TargetPort::Name(name) => port.name == *name,
    });
    match (known, target) {
        (Some(port), _) if port.protocol == Protocol::Detect => port.protocol = protocol,
        (Some(_), _) | (None, TargetPort::Name(_)) => {}
        (None, TargetPort::Number(number)) => {
            run.ports.push(RunPort { name: String::new(), number: *number, protocol });
        }
    }
}
