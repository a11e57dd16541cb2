//! Who is affected by a change: lookups from an item to the services that it takes part in, so that one pod's change
//! recomputes only the services that select it. Owns no rule of merging. Used by the registry only.

use crate::{Item, ItemKey, shard::Edit};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{ClusterId, EndpointSlice, Labels, Namespace, Service, ServiceKey, Workload};

/// Short name of a shard inside one registry. Never decides an order that can be seen.
pub(crate) type Slot = u32;

/// An item together with its shard.
pub(crate) type Place = (Slot, ItemKey);

type Label = (String, String);

#[derive(Debug, Default)]
pub(crate) struct Index {
    definitions: BTreeMap<ServiceKey, BTreeMap<Place, Arc<Item>>>,
    slices: BTreeMap<ServiceKey, BTreeMap<Place, Arc<Item>>>,
    /// Definitions by their own name, which is what an export says.
    by_name: BTreeMap<(Namespace, String), BTreeSet<(ServiceKey, Place)>>,
    exports: BTreeMap<(Namespace, String), BTreeSet<Slot>>,
    pools: BTreeMap<(ClusterId, Namespace), Pool>,
}

/// The workloads of one namespace in one cluster, and what picks them.
#[derive(Debug, Default)]
struct Pool {
    workloads: BTreeMap<String, BTreeMap<Slot, Arc<Item>>>,
    by_label: BTreeMap<Label, BTreeSet<(String, Slot)>>,
    /// Selectors by one of their labels; `None` for the one that picks everything.
    selectors: BTreeMap<Option<Label>, BTreeMap<(ServiceKey, Place), Labels>>,
    /// Services whose written-out endpoints name a workload.
    mentions: BTreeMap<String, BTreeSet<(ServiceKey, Place)>>,
}

/// Whether labels have everything that a selector asks for.
fn picks(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Index {
    /// Takes over a difference and adds the services that it may concern.
    pub(crate) fn apply(&mut self, slot: Slot, cluster: &ClusterId, edit: &Edit, dirty: &mut BTreeSet<ServiceKey>) {
        let place = (slot, edit.key.clone());
        if let Some(old) = &edit.old {
            self.touch(cluster, old, dirty);
            self.remove(cluster, &place, old);
        }
        if let Some(new) = &edit.new {
            self.add(cluster, &place, new);
            self.touch(cluster, new, dirty);
        }
    }

    /// Adds the services that the item may concern.
    pub(crate) fn touch(&self, cluster: &ClusterId, item: &Item, dirty: &mut BTreeSet<ServiceKey>) {
        match item {
            Item::Service(service) => {
                dirty.insert(service.key());
            }
            Item::Slice(slice) => {
                dirty.insert(slice_key(slice));
            }
            Item::Workload(workload) => {
                if let Some(pool) = self.pools.get(&(cluster.clone(), workload.namespace.clone())) {
                    pool.touch(workload, dirty);
                }
            }
            Item::Export(export) => {
                let named = self.by_name.get(&(export.namespace.clone(), export.name.clone()));
                dirty.extend(named.into_iter().flatten().map(|(key, _)| key.clone()));
            }
            Item::Gateway(_) => {}
        }
    }

    fn add(&mut self, cluster: &ClusterId, place: &Place, item: &Arc<Item>) {
        match &**item {
            Item::Service(service) => {
                let key = service.key();
                let name = (key.namespace.clone(), service.name.clone());
                self.by_name.entry(name).or_default().insert((key.clone(), place.clone()));
                if let Some(selector) = &service.selector {
                    let pool = self.pool(cluster, &service.namespace);
                    pool.selectors
                        .entry(first(selector))
                        .or_default()
                        .insert((key.clone(), place.clone()), selector.clone());
                }
                self.definitions.entry(key).or_default().insert(place.clone(), item.clone());
            }
            Item::Slice(slice) => {
                let key = slice_key(slice);
                let pool = self.pool(cluster, &slice.namespace);
                for name in mentioned(slice) {
                    pool.mentions.entry(name.clone()).or_default().insert((key.clone(), place.clone()));
                }
                self.slices.entry(key).or_default().insert(place.clone(), item.clone());
            }
            Item::Workload(workload) => {
                let pool = self.pool(cluster, &workload.namespace);
                pool.workloads.entry(workload.name.clone()).or_default().insert(place.0, item.clone());
                for label in labels(workload) {
                    pool.by_label.entry(label).or_default().insert((workload.name.clone(), place.0));
                }
            }
            Item::Export(export) => {
                self.exports.entry((export.namespace.clone(), export.name.clone())).or_default().insert(place.0);
            }
            Item::Gateway(_) => {}
        }
    }

    fn remove(&mut self, cluster: &ClusterId, place: &Place, item: &Item) {
        match item {
            Item::Service(service) => {
                let key = service.key();
                let (name, entry) = ((key.namespace.clone(), service.name.clone()), (key.clone(), place.clone()));
                prune(&mut self.by_name, &name, |set| set.remove(&entry), BTreeSet::is_empty);
                if let Some(selector) = &service.selector {
                    let pool = self.pool(cluster, &service.namespace);
                    prune(&mut pool.selectors, &first(selector), |set| set.remove(&entry), BTreeMap::is_empty);
                }
                prune(&mut self.definitions, &key, |set| set.remove(place), BTreeMap::is_empty);
            }
            Item::Slice(slice) => {
                let entry = (slice_key(slice), place.clone());
                let pool = self.pool(cluster, &slice.namespace);
                for name in mentioned(slice) {
                    prune(&mut pool.mentions, name, |set| set.remove(&entry), BTreeSet::is_empty);
                }
                prune(&mut self.slices, &entry.0, |set| set.remove(place), BTreeMap::is_empty);
            }
            Item::Workload(workload) => {
                let pool = self.pool(cluster, &workload.namespace);
                prune(&mut pool.workloads, &workload.name, |set| set.remove(&place.0), BTreeMap::is_empty);
                let entry = (workload.name.clone(), place.0);
                for label in labels(workload) {
                    prune(&mut pool.by_label, &label, |set| set.remove(&entry), BTreeSet::is_empty);
                }
            }
            Item::Export(export) => {
                let key = (export.namespace.clone(), export.name.clone());
                prune(&mut self.exports, &key, |set| set.remove(&place.0), BTreeSet::is_empty);
            }
            Item::Gateway(_) => {}
        }
    }

    fn pool(&mut self, cluster: &ClusterId, namespace: &Namespace) -> &mut Pool {
        self.pools.entry((cluster.clone(), namespace.clone())).or_default()
    }

    /// The definitions of a service.
    pub(crate) fn definitions(&self, key: &ServiceKey) -> impl Iterator<Item = (&Place, &Service)> {
        self.definitions.get(key).into_iter().flatten().filter_map(|(place, item)| match &**item {
            Item::Service(service) => Some((place, service)),
            _ => None,
        })
    }

    /// The written-out endpoints of a service.
    pub(crate) fn slices(&self, key: &ServiceKey) -> impl Iterator<Item = (Slot, &EndpointSlice)> {
        self.slices.get(key).into_iter().flatten().filter_map(|((slot, _), item)| match &**item {
            Item::Slice(slice) => Some((*slot, slice)),
            _ => None,
        })
    }

    /// The shards that export a service of this name.
    pub(crate) fn exporters(&self, namespace: &Namespace, name: &str) -> impl Iterator<Item = Slot> {
        self.exports.get(&(namespace.clone(), name.to_owned())).into_iter().flatten().copied()
    }

    /// Every report of the workload in its cluster.
    pub(crate) fn workload(
        &self,
        cluster: &ClusterId,
        namespace: &Namespace,
        name: &str,
    ) -> impl Iterator<Item = (Slot, &Workload)> {
        let pool = self.pools.get(&(cluster.clone(), namespace.clone()));
        pool.and_then(|pool| pool.workloads.get(name))
            .into_iter()
            .flatten()
            .filter_map(|(slot, item)| as_workload(*slot, item))
    }

    /// Every report of the workloads that a selector picks, by way of its rarest label.
    pub(crate) fn selected(
        &self,
        cluster: &ClusterId,
        namespace: &Namespace,
        selector: &Labels,
    ) -> Vec<(Slot, &Workload)> {
        let Some(pool) = self.pools.get(&(cluster.clone(), namespace.clone())) else { return Vec::new() };
        let nobody = BTreeSet::new();
        let candidates =
            selector.iter().map(|(key, value)| pool.by_label.get(&(key.clone(), value.clone())).unwrap_or(&nobody));
        let Some(rarest) = candidates.min_by_key(|set| set.len()) else {
            let all = pool.workloads.values().flatten();
            return all.filter_map(|(slot, item)| as_workload(*slot, item)).collect();
        };
        let reports = rarest.iter().filter_map(|(name, slot)| Some((*slot, pool.workloads.get(name)?.get(slot)?)));
        reports.filter_map(|(slot, item)| as_workload(slot, item)).filter(|(_, w)| picks(selector, &w.labels)).collect()
    }
}

impl Pool {
    fn touch(&self, workload: &Workload, dirty: &mut BTreeSet<ServiceKey>) {
        for label in labels(workload).map(Some).chain([None]) {
            let selectors = self.selectors.get(&label).into_iter().flatten();
            let matching = selectors.filter(|(_, selector)| picks(selector, &workload.labels));
            dirty.extend(matching.map(|((key, _), _)| key.clone()));
        }
        dirty.extend(self.mentions.get(&workload.name).into_iter().flatten().map(|(key, _)| key.clone()));
    }
}

fn as_workload(slot: Slot, item: &Item) -> Option<(Slot, &Workload)> {
    match item {
        Item::Workload(workload) => Some((slot, workload)),
        _ => None,
    }
}

fn first(selector: &Labels) -> Option<Label> {
    selector.iter().next().map(|(key, value)| (key.clone(), value.clone()))
}

fn labels(workload: &Workload) -> impl Iterator<Item = Label> {
    workload.labels.iter().map(|(key, value)| (key.clone(), value.clone()))
}

fn mentioned(slice: &EndpointSlice) -> impl Iterator<Item = &String> {
    slice.endpoints.iter().filter_map(|endpoint| endpoint.workload.as_ref())
}

pub(crate) fn slice_key(slice: &EndpointSlice) -> ServiceKey {
    ServiceKey { namespace: slice.namespace.clone(), host: slice.host.clone() }
}

/// Edits the set under a key and drops the key when nothing is left, so that churn leaves no trace.
fn prune<K: Ord, S, R>(
    map: &mut BTreeMap<K, S>,
    key: &K,
    edit: impl FnOnce(&mut S) -> R,
    is_empty: impl Fn(&S) -> bool,
) {
    if let Some(set) = map.get_mut(key) {
        edit(set);
        if is_empty(set) {
            map.remove(key);
        }
    }
}
