//! Owns Pod: a workload when it has an address, a wish to run when it has none and no owner.

use super::runs;
use crate::{common, fields::Fields, object::Head, read::Yield};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tombolo_federation_model::{Health, Workload, WorkloadAddress};
use tombolo_federation_registry::Item;

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    spec.skip_rest();
    let status = object.fields("status");
    let addresses = status.as_ref().map(addresses).unwrap_or_default();
    if addresses.is_empty() {
        let owned = object.at.node.get("metadata").is_some_and(|m| m.get("ownerReferences").is_some());
        return if owned { Yield::default() } else { runs::pod(head, object, &spec).into() };
    }
    let finished = status.as_ref().and_then(|s| s.string("phase")).is_some_and(|p| p == "Succeeded" || p == "Failed");
    if finished {
        return Yield::default();
    }
    let ports = runs::container_ports(&spec);
    let named = ports.into_iter().filter(|port| !port.name.is_empty());
    Item::Workload(Workload {
        name: head.name.clone(),
        namespace: head.namespace.clone(),
        addresses: addresses.into_iter().map(WorkloadAddress::Ip).collect(),
        ports: named.map(|port| (port.name, port.number)).collect::<BTreeMap<_, _>>(),
        served_ports: common::served_ports(head, object),
        labels: Arc::new(head.labels.clone()),
        service_account: runs::service_account(&spec),
        network: common::network(&head.labels, object),
        locality: common::locality(&head.labels),
        health: health(object, status.as_ref()),
        tls: common::tls_mode(&head.labels),
        weight: 1,
        origin: head.object.clone(),
    })
    .into()
}

fn addresses(status: &Fields<'_>) -> Vec<IpAddr> {
    status.skip_rest();
    let mut addresses = Vec::new();
    addresses.extend(status.at("podIP").and_then(|at| at.ip()));
    for at in status.list("podIPs") {
        let ip = at.fields().at("ip").and_then(|at| at.ip());
        addresses.extend(ip.filter(|ip| !addresses.contains(ip)));
    }
    addresses
}

/// A pod that is being deleted finishes what it has. Without any condition nobody watches it, so it counts as ready.
fn health(object: &Fields<'_>, status: Option<&Fields<'_>>) -> Health {
    if object.at.node.get("metadata").is_some_and(|m| m.get("deletionTimestamp").is_some()) {
        return Health::Draining;
    }
    let conditions = status.map(|s| s.list("conditions")).unwrap_or_default();
    let ready = |kind: &str| {
        conditions.iter().any(|at| {
            let text = |name| at.node.get(name).and_then(|n| n.text());
            text("type") == Some(kind) && text("status").is_some_and(|s| s.eq_ignore_ascii_case("true"))
        })
    };
    if conditions.is_empty() || ready("Ready") { Health::Healthy } else { Health::Unhealthy }
}
