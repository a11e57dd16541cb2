//! The registry: ground state by shard, and the merged view that follows from it. Owns when what is recomputed; the rules
//! are in `merge` and `resolve`. Used by the control plane's one world thread.

use crate::{
    Event, Item, MergedService, Millis, ShardId, ShardSettings, ShardStatus, Totals,
    index::{Index, Slot},
    merge::{Definition, in_order, merge},
    resolve::{Candidate, Shards, selected, written},
    shard::{Freshness, Shard},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{
    ClusterId, Diagnostic, Host, Namespace, NetworkGateway, NetworkId, Resolution, Scope, ServiceKey, Visibility,
    Workload,
};

/// Which services of this site's clusters its peers are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExportPolicy {
    /// Those that an export names.
    #[default]
    DeclaredOnly,
    /// Every service of the mesh that is not local to its cluster.
    All,
}

/// What holds for the whole registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Which services peers are shown.
    pub export: ExportPolicy,
    /// Hosts and host patterns that mean another service in every cluster: neither exported nor imported.
    pub cluster_local: Vec<Host>,
}

/// What is another than at the last [`Registry::take_changes`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services that came, went or changed.
    pub services: BTreeSet<ServiceKey>,
    /// Services whose exported form came, went or changed.
    pub exports: BTreeSet<ServiceKey>,
    /// Some east-west gateway came, went or changed.
    pub gateways: bool,
}

impl Changes {
    /// True when nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.exports.is_empty() && !self.gateways
    }
}

/// All shards, and the merged view as of the last [`Registry::take_changes`].
#[derive(Debug, Default)]
pub struct Registry {
    settings: RegistrySettings,
    slots: BTreeMap<ShardId, Slot>,
    shards: Shards,
    next_slot: Slot,
    index: Index,
    dirty: BTreeSet<ServiceKey>,
    gateways_dirty: bool,
    services: BTreeMap<ServiceKey, Arc<MergedService>>,
    exports: BTreeMap<ServiceKey, Arc<MergedService>>,
    diagnostics: BTreeMap<ServiceKey, Vec<Diagnostic>>,
    gateways: BTreeMap<NetworkId, Vec<NetworkGateway>>,
    revision: u64,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(settings: RegistrySettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Makes a shard known, or changes its settings. Events of shards that are not known are ignored.
    pub fn declare(&mut self, id: ShardId, settings: ShardSettings, now: Millis) {
        if let Some(shard) = self.slots.get(&id).and_then(|slot| self.shards.get_mut(slot)) {
            if shard.settings != settings {
                shard.settings = settings;
                shard.judge(now);
                self.touch_shard(&id);
            }
            return;
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        self.slots.insert(id.clone(), slot);
        self.shards.insert(slot, Shard::new(id, settings, now));
    }

    /// Takes in one step of a source.
    pub fn apply(&mut self, event: Event, now: Millis) {
        let id = event.shard().clone();
        let Some(&slot) = self.slots.get(&id) else { return };
        let Some(shard) = self.shards.get_mut(&slot) else { return };
        let withdraw = matches!(event, Event::Withdraw { .. });
        let edits = shard.apply(event, now);
        let turned = shard.judge(now);
        for edit in &edits {
            let gateway = |item: &Option<Arc<Item>>| matches!(item.as_deref(), Some(Item::Gateway(_)));
            self.gateways_dirty |= gateway(&edit.old) || gateway(&edit.new);
            self.index.apply(slot, &id.cluster, edit, &mut self.dirty);
        }
        if turned {
            self.touch_shard(&id);
        }
        if withdraw {
            self.slots.remove(&id);
            self.shards.remove(&slot);
        }
    }

    /// Lets time pass: shards that stayed silent become stale or expired.
    pub fn tick(&mut self, now: Millis) {
        let turned = self.shards.values_mut().filter_map(|shard| shard.judge(now).then(|| shard.id.clone()));
        for id in turned.collect::<Vec<_>>() {
            self.touch_shard(&id);
        }
    }

    /// When [`Registry::tick`] would next change something if nothing is heard until then.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        self.shards.values().filter_map(Shard::deadline).min()
    }

    fn touch_shard(&mut self, id: &ShardId) {
        let Some(shard) = self.slots.get(id).and_then(|slot| self.shards.get(slot)) else { return };
        for item in shard.live.values() {
            self.gateways_dirty |= matches!(**item, Item::Gateway(_));
            self.index.touch(&id.cluster, item, &mut self.dirty);
        }
    }

    /// Brings the merged view up to date and says what is another than before. A service that changed and changed back
    /// did not change.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for key in std::mem::take(&mut self.dirty) {
            let (merged, exported, diagnostics) = self.derive(&key);
            if diagnostics.is_empty() {
                self.diagnostics.remove(&key);
            } else {
                self.diagnostics.insert(key.clone(), diagnostics);
            }
            if replace(&mut self.services, &key, merged) {
                changes.services.insert(key.clone());
            }
            if replace(&mut self.exports, &key, exported) {
                changes.exports.insert(key);
            }
        }
        if std::mem::take(&mut self.gateways_dirty) {
            let gateways = self.derive_gateways();
            changes.gateways = gateways != self.gateways;
            self.gateways = gateways;
        }
        if !changes.is_empty() {
            self.revision += 1;
        }
        changes
    }

    /// One service as everybody sees it, and as peers are shown it.
    fn derive(&self, key: &ServiceKey) -> (Option<MergedService>, Option<MergedService>, Vec<Diagnostic>) {
        let local_only = self.settings.cluster_local.iter().any(|pattern| pattern.covers(&key.host));
        let mut definitions: Vec<Definition<'_>> = Vec::new();
        for ((slot, _), service) in self.index.definitions(key) {
            let Some(shard) = self.shards.get(slot) else { continue };
            if shard.settings.own || !local_only {
                definitions.push(Definition { shard, service });
            }
        }
        in_order(&mut definitions);
        let mut diagnostics = Vec::new();
        let Some(mut merged) = merge(&definitions, self.candidates(key, &definitions), &mut diagnostics) else {
            return (None, None, diagnostics);
        };
        merged.clusterset = definitions.iter().any(|definition| self.is_declared(definition));
        let own: Vec<_> = definitions.iter().copied().filter(Definition::own).collect();
        let shown = !local_only && self.shows(&own);
        merged.exported = shown;
        let exported = if shown { merge(&own, self.candidates(key, &own), &mut Vec::new()) } else { None };
        let exported = exported.map(|mut service| {
            service.exported = true;
            service.clusterset = own.iter().any(|definition| self.is_declared(definition));
            service
        });
        (Some(merged), exported, diagnostics)
    }

    /// Every endpoint that the definitions have.
    fn candidates(&self, key: &ServiceKey, definitions: &[Definition<'_>]) -> Vec<(ShardId, Candidate)> {
        let Some(first) = definitions.first() else { return Vec::new() };
        let adding: Vec<_> = definitions.iter().filter(|definition| definition.contributes(first)).collect();
        let mut candidates = Vec::new();
        for definition in &adding {
            candidates.extend(selected(&self.index, &self.shards, &definition.shard.id.cluster, definition.service));
        }
        for (slot, slice) in self.index.slices(key) {
            let Some(shard) = self.shards.get(&slot) else { continue };
            let beside = |definition: &&Definition<'_>| {
                definition.shard.id.cluster == shard.id.cluster && definition.own() == shard.settings.own
            };
            let owner = owner(&slice.name);
            let owned = definitions.iter().filter(beside).any(|definition| definition.service.name == owner);
            for definition in adding.iter().copied().filter(beside).filter(|d| !owned || d.service.name == owner) {
                candidates.extend(written(&self.index, &self.shards, slot, slice, definition.service));
            }
        }
        let named = |candidate: Candidate| Some((self.shards.get(&candidate.slot)?.id.clone(), candidate));
        candidates.into_iter().filter_map(named).collect()
    }

    /// Whether an export in the definition's own cluster names it.
    fn is_declared(&self, definition: &Definition<'_>) -> bool {
        let service = definition.service;
        let mut exporters = self.index.exporters(&service.namespace, &service.name);
        exporters
            .any(|slot| self.shards.get(&slot).is_some_and(|shard| shard.id.cluster == definition.shard.id.cluster))
    }

    /// Whether peers are shown a service with these definitions, all of them this site's own.
    fn shows(&self, own: &[Definition<'_>]) -> bool {
        let Some(first) = own.first() else { return false };
        let service = first.service;
        let reachable = matches!(service.resolution, Resolution::Registry | Resolution::Static);
        let plain = service.scope == Scope::Mesh && service.alias_of.is_none() && !service.host.is_wildcard();
        let allowed = match self.settings.export {
            ExportPolicy::All => {
                let declared = own.iter().any(|definition| self.is_declared(definition));
                service.visibility != Visibility::Nobody && (!service.crossing || declared)
            }
            ExportPolicy::DeclaredOnly => own.iter().any(|definition| self.is_declared(definition)),
        };
        reachable && plain && allowed
    }

    /// Gateways by network; those of an expired shard only where the network has no other.
    fn derive_gateways(&self) -> BTreeMap<NetworkId, Vec<NetworkGateway>> {
        let mut found: BTreeMap<NetworkId, BTreeSet<(bool, NetworkGateway)>> = BTreeMap::new();
        for shard in self.shards.values() {
            for item in shard.live.values() {
                if let Item::Gateway(gateway) = &**item {
                    let expired = shard.freshness == Freshness::Expired;
                    found.entry(gateway.network.clone()).or_default().insert((expired, gateway.clone()));
                }
            }
        }
        let keep = |set: BTreeSet<(bool, NetworkGateway)>| {
            let choice = set.iter().any(|(expired, _)| !expired);
            let kept: BTreeSet<_> =
                set.into_iter().filter(|(expired, _)| !expired || !choice).map(|(_, gateway)| gateway).collect();
            kept.into_iter().collect()
        };
        found.into_iter().map(|(network, set)| (network, keep(set))).collect()
    }

    /// One service.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<MergedService>> {
        self.services.get(key)
    }

    /// Every service, in order of namespace and host.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<MergedService>> {
        self.services.values()
    }

    /// What peers are shown: own definitions and own endpoints only.
    pub fn exported(&self) -> impl ExactSizeIterator<Item = &Arc<MergedService>> {
        self.exports.values()
    }

    /// East-west gateways by network.
    #[must_use]
    pub fn gateways(&self) -> &BTreeMap<NetworkId, Vec<NetworkGateway>> {
        &self.gateways
    }

    /// East-west gateways of this site's own clusters, which is what peers are shown.
    #[must_use]
    pub fn own_gateways(&self) -> Vec<NetworkGateway> {
        let own = self.shards.values().filter(|shard| shard.settings.own).flat_map(|shard| shard.live.values());
        let found: BTreeSet<_> = own
            .filter_map(|item| match &**item {
                Item::Gateway(gateway) => Some(gateway.clone()),
                _ => None,
            })
            .collect();
        found.into_iter().collect()
    }

    /// A workload by name, as the first shard of its cluster reports it.
    #[must_use]
    pub fn workload(&self, cluster: &ClusterId, namespace: &Namespace, name: &str) -> Option<&Workload> {
        let reports = self.index.workload(cluster, namespace, name);
        let reports = reports.filter_map(|(slot, workload)| Some((&self.shards.get(&slot)?.id, workload)));
        reports.min_by_key(|(id, _)| *id).map(|(_, workload)| workload)
    }

    /// How every shard fares.
    #[must_use]
    pub fn shards(&self, now: Millis) -> Vec<ShardStatus> {
        self.slots.values().filter_map(|slot| self.shards.get(slot)).map(|shard| shard.status(now)).collect()
    }

    /// Complaints about definitions that contradict each other.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.values().flatten()
    }

    /// Sums over the merged view.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { exported: self.exports.len(), revision: self.revision, ..Totals::default() };
        for service in self.services.values() {
            totals.services += 1;
            totals.endpoints += service.endpoints.len();
            totals.stale_endpoints += service.endpoints.iter().filter(|endpoint| endpoint.stale).count();
            totals.imported += usize::from(service.imported);
        }
        totals
    }
}

/// The definition that a slice belongs to, if there is one of that name, see `EndpointSlice::name`.
fn owner(slice: &str) -> &str {
    slice.split('/').nth(1).unwrap_or(slice)
}

/// Puts a derived service in its place; false when it is the same as before. Endpoints that did not change stay the same
/// allocation.
fn replace(view: &mut BTreeMap<ServiceKey, Arc<MergedService>>, key: &ServiceKey, new: Option<MergedService>) -> bool {
    let Some(mut new) = new else { return view.remove(key).is_some() };
    if let Some(old) = view.get(key) {
        if **old == new {
            return false;
        }
        let id = |endpoint: &tombolo_federation_model::Endpoint| {
            (endpoint.cluster.clone(), endpoint.namespace.clone(), endpoint.workload.clone())
        };
        let known: BTreeMap<_, _> = old.endpoints.iter().map(|endpoint| (id(endpoint), endpoint)).collect();
        for endpoint in &mut new.endpoints {
            if let Some(same) = known.get(&id(endpoint)).filter(|same| ***same == *endpoint) {
                *endpoint = Arc::clone(same);
            }
        }
    }
    view.insert(key.clone(), Arc::new(new));
    true
}
