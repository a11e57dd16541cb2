//! An engine without a network: what a control plane would complain about when it saw all of the given clusters.
//!
//! Feeds the engine as a server would, once, and takes its complaints. Decides nothing itself.

use super::analyze::Cluster;
use anyhow::Context;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use tombolo_controlplane_core::{Engine, Input, IntentEvent, SiteSettings};
use tombolo_controlplane_dialect::RunSpec;
use tombolo_federation_model::{Diagnostic, Health, Locality, NetworkId, SiteName, TlsMode, Workload, WorkloadAddress};
use tombolo_federation_registry::{Event, Item, Millis, ShardId, ShardSettings};

/// Nothing takes time here.
const NOW: Millis = Millis(0);
const EPOCH: u64 = 1;
/// Code of a complaint that only connected gateways could refute.
const NEEDS_PROXIES: &str = "SELECTOR_MATCHES_NOTHING";

/// The complaints of each cluster's control plane about its own objects.
///
/// # Errors
/// When a cluster's id cannot be a site's or network's name.
pub(super) fn complaints(clusters: &[Cluster]) -> anyhow::Result<Vec<Diagnostic>> {
    let mut found = Vec::new();
    for own in clusters {
        let mut engine = Engine::new(settings(own)?);
        for cluster in clusters {
            feed(&mut engine, cluster, cluster.id == own.id)?;
        }
        engine.step(NOW);
        let of_own = |d: &Diagnostic| *d.object.cluster == *own.id.as_str() && d.code != NEEDS_PROXIES;
        found.extend(engine.diagnostics().into_iter().filter(of_own));
    }
    Ok(found)
}

fn settings(cluster: &Cluster) -> anyhow::Result<SiteSettings> {
    let site = SiteName::parse(cluster.id.as_str()).with_context(|| format!("cluster {}", cluster.id))?;
    Ok(SiteSettings::new(site, cluster.id.clone(), network(cluster)?, cluster.trust_domain.clone()))
}

fn network(cluster: &Cluster) -> anyhow::Result<NetworkId> {
    NetworkId::parse(cluster.id.as_str()).with_context(|| format!("cluster {}", cluster.id))
}

/// What will run, as if it ran: selectors and subsets are judged by its labels.
fn workload(run: &RunSpec) -> Workload {
    Workload {
        name: run.name.clone(),
        namespace: run.namespace.clone(),
        // An address for documentation: nothing is sent.
        addresses: vec![WorkloadAddress::Ip(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))],
        ports: run.ports.iter().map(|p| (p.name.clone(), p.number)).filter(|(name, _)| !name.is_empty()).collect(),
        served_ports: BTreeMap::new(),
        labels: Arc::new(run.labels.clone()),
        service_account: run.service_account.clone(),
        network: run.network.clone(),
        locality: run.locality.clone(),
        health: Health::Healthy,
        tls: TlsMode::Mutual,
        weight: 1,
        origin: run.object.clone(),
    }
}

/// Puts a cluster's objects in. Others share their services only, as peers do.
fn feed(engine: &mut Engine, cluster: &Cluster, own: bool) -> anyhow::Result<()> {
    let shard = ShardId::own(cluster.id.clone(), "manifests");
    let settings = ShardSettings {
        network: network(cluster)?,
        locality: Locality::default(),
        trust_domain: cluster.trust_domain.clone(),
        lease: None,
        own,
    };
    let (id, epoch) = (|| shard.clone(), EPOCH);
    let mut inputs = vec![Input::Declare(id(), settings), Input::Registry(Event::Begin { shard: id(), epoch })];
    let put = |item: &_| Input::Registry(Event::Put { shard: id(), epoch, item: Clone::clone(item) });
    inputs.extend(cluster.reading.items().map(put));
    inputs.extend(cluster.reading.runs().iter().map(|run| put(&Item::Workload(workload(run)))));
    inputs.push(Input::Registry(Event::Complete { shard: id(), epoch }));
    if own {
        inputs.push(Input::Intent(IntentEvent::Begin { shard: id(), epoch }));
        let intents = cluster.reading.intents();
        inputs.extend(
            intents.map(|intent| Input::Intent(IntentEvent::Put { shard: id(), epoch, intent: intent.clone() })),
        );
        inputs.push(Input::Intent(IntentEvent::Complete { shard: id(), epoch }));
    }
    for input in inputs {
        engine.apply(input, NOW);
    }
    Ok(())
}
