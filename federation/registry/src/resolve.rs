//! From workloads and written-out endpoints to [`Endpoint`]s of one service: which port, which identity, which place.
//! Never compares clusters or definitions; that is merging.

use crate::{
    ShardSettings,
    index::{Index, Slot},
    shard::{Freshness, Shard},
};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{
    ClusterId, Endpoint, EndpointSlice, Identity, Namespace, Resolution, Service, ServicePort, SliceEndpoint,
    TargetPort, TlsMode, Workload, WorkloadAddress,
};

/// The registered shards.
pub(crate) type Shards = BTreeMap<Slot, Shard>;

/// An endpoint that one shard reports for a service.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) endpoint: Endpoint,
    pub(crate) slot: Slot,
    /// Picked by label, which wins over written out.
    pub(crate) selected: bool,
    /// A written-out endpoint that names no workload.
    pub(crate) unnamed: bool,
    pub(crate) freshness: Freshness,
}

/// The endpoints that a definition's selector picks in its own cluster.
pub(crate) fn selected(index: &Index, shards: &Shards, cluster: &ClusterId, service: &Service) -> Vec<Candidate> {
    let Some(selector) = &service.selector else { return Vec::new() };
    let reports = index.selected(cluster, &service.namespace, selector);
    reports
        .into_iter()
        .filter_map(|(slot, workload)| from_workload(slot, shards.get(&slot)?, workload, service))
        .collect()
}

fn from_workload(slot: Slot, shard: &Shard, workload: &Workload, service: &Service) -> Option<Candidate> {
    let port = |port: &ServicePort| Some((port.number, served(workload, workload_port(workload, service, port)?)));
    let ports: BTreeMap<u16, u16> = service.ports.iter().filter_map(port).collect();
    if ports.is_empty() && !service.ports.is_empty() {
        return None;
    }
    let settings = &shard.settings;
    let endpoint = Endpoint {
        workload: workload.name.as_str().into(),
        namespace: workload.namespace.clone(),
        address: workload.addresses.first().cloned().unwrap_or(WorkloadAddress::ByNetwork),
        ports,
        labels: workload.labels.clone(),
        network: workload.network.clone().unwrap_or_else(|| settings.network.clone()),
        cluster: shard.id.cluster.clone(),
        locality: workload.locality.clone().unwrap_or_else(|| settings.locality.clone()),
        identity: identity(settings, workload),
        tls: workload.tls,
        weight: workload.weight.max(1),
        health: workload.health,
        stale: shard.is_stale(),
    };
    Some(Candidate { endpoint, slot, selected: true, unnamed: false, freshness: shard.freshness })
}

/// The workload's port behind a service port. Services whose endpoints are registered by hand name their own ports in
/// the registration; others point at a port by number or by the workload's name for it.
fn workload_port(workload: &Workload, service: &Service, port: &ServicePort) -> Option<u16> {
    if service.resolution != Resolution::Registry
        && let Some(number) = workload.ports.get(&port.name)
    {
        return Some(*number);
    }
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => workload.ports.get(name).copied(),
    }
}

fn served(workload: &Workload, port: u16) -> u16 {
    workload.served_ports.get(&port).copied().unwrap_or(port)
}

fn identity(settings: &ShardSettings, workload: &Workload) -> Option<Identity> {
    if workload.tls == TlsMode::Disabled {
        return None;
    }
    let account = if workload.service_account.is_empty() { "default" } else { &workload.service_account };
    Identity::workload(&settings.trust_domain, workload.namespace.as_str(), account).ok()
}

/// The endpoints that a slice writes out, read with the ports of a definition in the same cluster.
pub(crate) fn written(
    index: &Index,
    shards: &Shards,
    slot: Slot,
    slice: &EndpointSlice,
    service: &Service,
) -> Vec<Candidate> {
    let Some(shard) = shards.get(&slot) else { return Vec::new() };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut candidates = Vec::new();
    for entry in &slice.endpoints {
        let name = entry.workload.clone().unwrap_or_else(|| {
            // Two endpoints at one address differ by port: both stay.
            let address = entry.address.to_string();
            let times = seen.entry(address.clone()).or_default();
            *times += 1;
            if *times == 1 { address } else { format!("{address}#{times}") }
        });
        let workload = known_workload(index, shards, shard, &slice.namespace, entry);
        candidates.extend(from_entry(slot, shard, &slice.namespace, &name, entry, workload, service));
    }
    candidates
}

/// The workload that an entry names, where this site has a report of its own about it: the freshest one.
fn known_workload<'i>(
    index: &'i Index,
    shards: &'i Shards,
    shard: &Shard,
    namespace: &Namespace,
    entry: &SliceEndpoint,
) -> Option<(&'i Shard, &'i Workload)> {
    let cluster = &shard.id.cluster;
    if entry.cluster.as_ref().is_some_and(|owner| owner != cluster) {
        return None;
    }
    let reports = index.workload(cluster, namespace, entry.workload.as_ref()?);
    let reports = reports.filter_map(|(slot, workload)| Some((shards.get(&slot)?, workload)));
    reports.min_by(|(a, _), (b, _)| (a.freshness, &a.id).cmp(&(b.freshness, &b.id)))
}

fn from_entry(
    slot: Slot,
    shard: &Shard,
    namespace: &Namespace,
    name: &str,
    entry: &SliceEndpoint,
    workload: Option<(&Shard, &Workload)>,
    service: &Service,
) -> Option<Candidate> {
    let settings = &shard.settings;
    let port = |port: &ServicePort| {
        let number = entry_port(entry, service, port)?;
        Some((port.number, workload.map_or(number, |(_, workload)| served(workload, number))))
    };
    let ports: BTreeMap<u16, u16> = service.ports.iter().filter_map(port).collect();
    if ports.is_empty() && !service.ports.is_empty() {
        return None;
    }
    let known = workload.map(|(_, workload)| workload);
    let identity = entry.identity.clone().or_else(|| workload.and_then(|(owner, w)| identity(&owner.settings, w)));
    let tls = match known {
        Some(workload) if entry.identity.is_none() => workload.tls,
        _ if identity.is_some() => TlsMode::Mutual,
        _ => TlsMode::Disabled,
    };
    let network = entry.network.clone().or_else(|| known.and_then(|w| w.network.clone()));
    let locality = entry.locality.clone().or_else(|| known.and_then(|w| w.locality.clone()));
    let labels = known.filter(|_| entry.labels.is_empty()).map_or(&entry.labels, |workload| &workload.labels);
    let endpoint = Endpoint {
        workload: name.into(),
        namespace: namespace.clone(),
        address: entry.address.clone(),
        ports,
        labels: Arc::clone(labels),
        network: network.unwrap_or_else(|| settings.network.clone()),
        cluster: entry.cluster.clone().unwrap_or_else(|| shard.id.cluster.clone()),
        locality: locality.unwrap_or_else(|| settings.locality.clone()),
        identity,
        tls,
        weight: entry.weight.max(1),
        health: entry.health,
        stale: shard.is_stale(),
    };
    Some(Candidate { endpoint, slot, selected: false, unnamed: entry.workload.is_none(), freshness: shard.freshness })
}

/// An entry says its ports by name. One that says some of them does not serve the others when the registry keeps the
/// endpoints; one that was written by hand falls back to the definition.
fn entry_port(entry: &SliceEndpoint, service: &Service, port: &ServicePort) -> Option<u16> {
    if let Some(number) = entry.ports.get(&port.name) {
        return Some(*number);
    }
    if service.resolution == Resolution::Registry && !entry.ports.is_empty() {
        return None;
    }
    match port.target {
        TargetPort::Number(number) => Some(number),
        TargetPort::Name(_) => None,
    }
}
