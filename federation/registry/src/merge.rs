//! One service out of all its definitions: which definition decides, what the others add, which endpoints count.
//! A pure function of ground state; the order in which shards were declared or heard never shows.

use crate::{
    MergedService, ShardId,
    resolve::Candidate,
    shard::{Freshness, Shard},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{
    ClusterId, Diagnostic, Endpoint, Health, ObjectRef, Resolution, Service, ServicePort, Severity,
};

/// A definition together with its shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Definition<'a> {
    pub(crate) shard: &'a Shard,
    pub(crate) service: &'a Service,
}

impl Definition<'_> {
    pub(crate) fn own(&self) -> bool {
        self.shard.settings.own
    }

    /// Smaller decides: this site's own, then those whose endpoints the registry keeps, then the oldest.
    fn precedence(&self) -> (bool, bool, i64, &ShardId, &ObjectRef) {
        let external = self.service.resolution != Resolution::Registry;
        (!self.own(), external, self.service.created, &self.shard.id, &self.service.origin)
    }

    /// A definition that describes a service from outside, of a host that a registered service of this site has already:
    /// it adds names that endpoints may present, and nothing else. So nobody can capture a service by describing it.
    pub(crate) fn only_decorates(&self, first: &Definition<'_>) -> bool {
        first.service.resolution == Resolution::Registry && self.service.resolution != Resolution::Registry
    }

    /// Whether it may add endpoints and ports: not when the deciding definition finds its addresses in another way.
    pub(crate) fn contributes(&self, first: &Definition<'_>) -> bool {
        let open = matches!(first.service.resolution, Resolution::Registry | Resolution::Static);
        !self.only_decorates(first) && (self.own() == first.own() || open)
    }
}

/// In the order in which they decide.
pub(crate) fn in_order(definitions: &mut [Definition<'_>]) {
    definitions.sort_by(|a, b| a.precedence().cmp(&b.precedence()));
}

/// Merges definitions that are in order. `None` when there are none.
pub(crate) fn merge(
    definitions: &[Definition<'_>],
    candidates: Vec<(ShardId, Candidate)>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<MergedService> {
    let first = definitions.first()?;
    let (service, own) = (first.service, first.own());
    let adding: Vec<_> = definitions.iter().filter(|definition| definition.contributes(first)).collect();
    for definition in definitions.iter().filter(|definition| !definition.contributes(first)) {
        diagnostics.push(shadowed(definition.service, service));
    }
    let clusters: BTreeSet<ClusterId> = adding.iter().map(|definition| definition.shard.id.cluster.clone()).collect();
    let beside =
        |definition: &&&Definition<'_>| definition.own() && definition.shard.id.cluster == first.shard.id.cluster;
    let mut addresses = Vec::new();
    if own {
        for address in adding.iter().filter(beside).flat_map(|definition| &definition.service.addresses) {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
    }
    let trusted = definitions.iter().filter(|definition| definition.own() == own);
    let names: BTreeSet<&String> = trusted.flat_map(|definition| &definition.service.subject_alt_names).collect();
    Some(MergedService {
        key: service.key(),
        name: service.name.clone(),
        ports: ports(&adding, diagnostics),
        labels: service.labels.clone(),
        addresses,
        resolution: service.resolution,
        scope: service.scope,
        headless: service.headless,
        visibility: service.visibility.clone(),
        subject_alt_names: names.into_iter().cloned().collect(),
        created: service.created,
        origin: service.origin.clone(),
        clusters: clusters.into_iter().collect(),
        endpoints: endpoints(candidates),
        exported: false,
        clusterset: false,
        imported: !own,
        alias_of: service.alias_of.clone(),
    })
}

/// All ports by number; an earlier definition's where two differ.
fn ports(definitions: &[&Definition<'_>], diagnostics: &mut Vec<Diagnostic>) -> Vec<ServicePort> {
    let mut ports: BTreeMap<u16, &ServicePort> = BTreeMap::new();
    for definition in definitions {
        for port in &definition.service.ports {
            let kept = ports.entry(port.number).or_insert(port);
            if (&kept.name, kept.protocol) != (&port.name, port.protocol) {
                diagnostics.push(conflict(definition.service, port, kept));
            }
        }
    }
    ports.into_values().cloned().collect()
}

fn conflict(service: &Service, port: &ServicePort, kept: &ServicePort) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: "PORT_CONFLICT".to_owned(),
        object: service.origin.clone(),
        field: String::new(),
        message: format!(
            "port {} of {} is {:?} {:?} here, but {:?} {:?} in the definition that decides; that one is used",
            port.number, service.host, port.name, port.protocol, kept.name, kept.protocol
        ),
        place: String::new(),
    }
}

fn shadowed(service: &Service, by: &Service) -> Diagnostic {
    Diagnostic {
        severity: Severity::Info,
        code: "SERVICE_SHADOWED".to_owned(),
        object: service.origin.clone(),
        field: String::new(),
        message: format!(
            "{} is defined by {} in cluster {}, which decides; its endpoints are used",
            service.host, by.origin, by.origin.cluster
        ),
        place: String::new(),
    }
}

/// One endpoint per workload: the freshest report, and of those a picked one before a written-out one. Endpoints of an
/// expired shard count only when no other endpoint takes traffic.
fn endpoints(mut candidates: Vec<(ShardId, Candidate)>) -> Vec<Arc<Endpoint>> {
    candidates.sort_by(|(a_shard, a), (b_shard, b)| {
        let rank = |shard, candidate: &Candidate| (candidate.freshness, !candidate.selected, shard);
        rank(a_shard, a).cmp(&rank(b_shard, b)).then_with(|| a.endpoint.workload.cmp(&b.endpoint.workload))
    });
    let picked: BTreeSet<_> = candidates
        .iter()
        .filter(|(_, candidate)| candidate.selected)
        .map(|(_, candidate)| (candidate.endpoint.cluster.clone(), candidate.endpoint.address.clone()))
        .collect();
    let mut merged: BTreeMap<(ClusterId, _, Arc<str>), Candidate> = BTreeMap::new();
    for (_, candidate) in candidates {
        let endpoint = &candidate.endpoint;
        if candidate.unnamed && picked.contains(&(endpoint.cluster.clone(), endpoint.address.clone())) {
            continue;
        }
        let key = (endpoint.cluster.clone(), endpoint.namespace.clone(), endpoint.workload.clone());
        match merged.get_mut(&key) {
            Some(kept) => {
                for (number, port) in &candidate.endpoint.ports {
                    kept.endpoint.ports.entry(*number).or_insert(*port);
                }
            }
            None => {
                merged.insert(key, candidate);
            }
        }
    }
    let expired = |candidate: &Candidate| candidate.freshness == Freshness::Expired;
    let choice = merged.values().any(|candidate| !expired(candidate) && candidate.endpoint.health == Health::Healthy);
    let kept = merged.into_values().filter(|candidate| !choice || !expired(candidate));
    kept.map(|candidate| Arc::new(candidate.endpoint)).collect()
}
