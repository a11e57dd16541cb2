//! Owns the kinds that ask for workloads to run. Never yields a workload: only what runs is one.

use crate::{
    common,
    fields::Fields,
    object::Head,
    read::Yield,
    run::{RunKind, RunPort, RunSpec},
};
use tombolo_federation_model::Labels;

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let kind = match head.kind.as_str() {
        "StatefulSet" => RunKind::StatefulSet,
        "DaemonSet" => RunKind::DaemonSet,
        "ReplicaSet" => RunKind::ReplicaSet,
        _ => RunKind::Deployment,
    };
    let owned = object.at.node.get("metadata").is_some_and(|m| m.get("ownerReferences").is_some());
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    spec.skip_rest();
    if owned {
        // Its owner asks.
        return Yield::default();
    }
    let replicas = if kind == RunKind::DaemonSet { None } else { spec.u32("replicas") };
    let Some(template) = spec.need("template").map(|at| at.fields()) else { return Yield::default() };
    template.skip_rest();
    let metadata = template.fields("metadata");
    let map = |name| metadata.as_ref().map(|m| m.labels(name)).unwrap_or_default();
    if let Some(metadata) = &metadata {
        metadata.skip_rest();
    }
    let (labels, annotations) = (map("labels"), map("annotations"));
    let Some(pod) = template.need("spec").map(|at| at.fields()) else { return Yield::default() };
    pod.skip_rest();
    RunSpec { replicas: replicas.unwrap_or(1), ..run(kind, head, object, &pod, Marks { labels, annotations }) }.into()
}

/// What a pod wants that has no address and no owner.
pub(crate) fn pod(head: &Head, object: &Fields<'_>, spec: &Fields<'_>) -> RunSpec {
    let marks = Marks { labels: head.labels.clone(), annotations: head.annotations.clone() };
    run(RunKind::Pod, head, object, spec, marks)
}

struct Marks {
    labels: Labels,
    annotations: Labels,
}

fn run(kind: RunKind, head: &Head, object: &Fields<'_>, pod: &Fields<'_>, marks: Marks) -> RunSpec {
    RunSpec {
        kind,
        object: head.object.clone(),
        name: head.name.clone(),
        namespace: head.namespace.clone(),
        service_account: service_account(pod),
        ports: container_ports(pod),
        replicas: 1,
        hostname: pod.string("hostname"),
        network: common::network(&marks.labels, object),
        locality: common::locality(&marks.labels),
        sidecar: common::wants_sidecar(&marks.labels, &marks.annotations),
        labels: marks.labels,
        annotations: marks.annotations,
    }
}

/// The account of a pod.
pub(crate) fn service_account(pod: &Fields<'_>) -> String {
    let name = pod.at("serviceAccountName").or_else(|| pod.at("serviceAccount")).and_then(|at| at.string());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned())
}

/// The ports of all containers that take connections.
pub(crate) fn container_ports(pod: &Fields<'_>) -> Vec<RunPort> {
    let mut ports: Vec<RunPort> = Vec::new();
    for container in pod.list("containers") {
        let container = container.fields();
        container.skip_rest();
        for port in container.list("ports") {
            let port = port.fields();
            port.skip_rest();
            let name = port.string("name").unwrap_or_default();
            let transport = port.string("protocol").unwrap_or_default();
            let Some(number) = port.need("containerPort").and_then(|at| at.port()) else { continue };
            let protocol = common::port_protocol(&transport, None, &name, number);
            if !transport.eq_ignore_ascii_case("UDP") && !ports.iter().any(|p| p.number == number) {
                ports.push(RunPort { name, number, protocol });
            }
        }
    }
    ports.sort_by_key(|port| port.number);
    ports
}
