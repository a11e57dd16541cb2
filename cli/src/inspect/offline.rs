//! An engine without a network: what a control plane would complain about when it saw all of the given clusters.
//!
//! Feeds the engine as a server would, once, and takes its complaints. Decides nothing itself.

use super::analyze::Cluster;
use anyhow::Context;
use tombolo_controlplane_core::{Engine, Input, IntentEvent, SiteSettings};
use tombolo_federation_model::{Diagnostic, Locality, NetworkId, SiteName};
use tombolo_federation_registry::{Event, Millis, ShardId, ShardSettings};

/// Nothing takes time here.
const NOW: Millis = Millis(0);
const EPOCH: u64 = 1;

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
        found.extend(engine.diagnostics().into_iter().filter(|d| *d.object.cluster == *own.id.as_str()));
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
