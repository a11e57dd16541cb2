//! Puts complete configurations together.
//!
//! Owns what was received and what is waiting: a listener is used only when its routes, certificates and trust are here, a cluster
//! only when its endpoints and certificates are; until then the version before goes on serving. What does not arrive in time is
//! done without, as in Envoy. A change costs what depends on it, not the size of the configuration. Never decodes and never
//! knows a clock. Used by the gateway's xDS client.

mod needs;
#[cfg(test)]
mod tests;
mod wanted;

pub use wanted::WantedChange;

use crate::{
    config::{Cluster, ClusterLoad, Config, Discovery, Listener, RouteTable, Secret, SecretSource},
    time::Millis,
    wire::{Kind, Resource},
};
use ahash::{AHashMap, AHashSet};
use needs::{Need, Needs};
use std::{collections::BTreeSet, sync::Arc};
use wanted::Wanted;

/// How long routes, endpoints and secrets may take before they are done without, in milliseconds; Envoy's
/// `initial_fetch_timeout`.
pub const INIT_TIMEOUT: u64 = 15_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Assembly {
    config: Config,
    changed: bool,
    init_timeout: Option<u64>,
    clusters: Stage<Cluster>,
    listeners: Stage<Listener>,
    routes: Stage<RouteTable>,
    /// Received, by the name of the resource; only wanted ones are kept.
    loads: AHashMap<Arc<str>, Arc<ClusterLoad>>,
    /// Clusters in use or warming, by the name of their endpoint resource.
    load_users: AHashMap<Arc<str>, AHashSet<Arc<str>>>,
    wanted: Wanted,
    complete: BTreeSet<Kind>,
}

/// New versions that wait for something.
#[derive(Debug)]
struct Stage<V> {
    warming: AHashMap<Arc<str>, Warming<V>>,
}

impl<V> Default for Stage<V> {
    fn default() -> Self {
        Self { warming: AHashMap::default() }
    }
}

#[derive(Debug)]
struct Warming<V> {
    value: Arc<V>,
    /// When it was first looked at.
    since: Option<Millis>,
}

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// What waits.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// For what, for example `routes "http.80"`.
    pub missing: String,
}

impl Assembly {
    /// Nothing received. `init_timeout` in milliseconds as [`INIT_TIMEOUT`]; `None` waits for ever.
    #[must_use]
    pub fn new(init_timeout: Option<u64>) -> Self {
        Self { init_timeout, ..Self::default() }
    }

    /// Takes a resource in.
    pub fn put(&mut self, resource: Resource) {
        match resource {
            Resource::Cluster(cluster) => self.put_cluster(cluster),
            Resource::Load(load) => self.put_load(load),
            Resource::Listener(listener) => self.put_listener(listener),
            Resource::Routes(table) => self.put_routes(table),
            Resource::Secret(name, secret) => self.put_secret(name, secret, SecretSource::Ads),
        }
    }

    /// Takes in a secret of the proxy's own ([`SecretSource::Own`]). It is kept whether it is wanted or not.
    pub fn put_own_secret(&mut self, name: Arc<str>, secret: Arc<Secret>) {
        self.put_secret(name, secret, SecretSource::Own);
    }

    /// Forgets a resource that the control plane removed. Endpoints and routes that are still referred to stay, as in Envoy: they
    /// go when nothing refers to them any more.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Cluster => self.remove_cluster(name),
            Kind::Listener => self.remove_listener(name),
            Kind::Load | Kind::Routes | Kind::Secret => {}
        }
    }

    /// The first full answer for a kind of which everything is wanted has been taken in. Listeners wait for that of clusters.
    pub fn complete(&mut self, kind: Kind) {
        self.complete.insert(kind);
    }

    /// Moves what is ready into use. `Some` when anything changed.
    pub fn step(&mut self, now: Millis) -> Option<Arc<Config>> {
        self.step_clusters(now);
        self.step_routes(now);
        self.step_listeners(now);
        self.drop_unwanted();
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.config.generation += 1;
        Some(Arc::new(self.config.clone()))
    }

    /// When [`step`](Self::step) is to be called again although nothing arrived.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        let timeout = self.init_timeout?;
        let since = self.clusters.since().chain(self.listeners.since()).chain(self.routes.since());
        since.min().map(|since| since.after(timeout))
    }

    /// The names of a kind that something refers to. For kinds of which everything is wanted: empty.
    #[must_use]
    pub fn wanted(&self, kind: Kind) -> BTreeSet<String> {
        self.wanted.names(kind)
    }

    /// What changed in [`wanted`](Self::wanted) since it was last asked.
    pub fn take_wanted(&mut self, kind: Kind) -> Option<WantedChange> {
        self.wanted.take(kind)
    }

    /// What waits, for the admin page.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let clusters =
            self.clusters.warming.iter().map(|(name, w)| (Kind::Cluster, name, self.cluster_misses(&w.value)));
        let listeners =
            self.listeners.warming.iter().map(|(name, w)| (Kind::Listener, name, self.listener_misses(&w.value)));
        let routes = self.routes.warming.iter().map(|(name, w)| (Kind::Routes, name, self.routes_miss(&w.value)));
        let mut all: Vec<_> = clusters
            .chain(listeners)
            .chain(routes)
            .map(|(kind, name, missing)| Waiting { kind, name: Arc::clone(name), missing: missing.unwrap_or_default() })
            .collect();
        all.sort();
        all
    }

    fn put_cluster(&mut self, cluster: Arc<Cluster>) {
        let name = Arc::clone(&cluster.name);
        let same = match self.clusters.warming.get(&name) {
            Some(warming) => *warming.value == *cluster,
            None => self.config.clusters.get(&name).is_some_and(|active| **active == *cluster),
        };
        if same {
            return;
        }
        self.acquire_cluster(&cluster);
        if let Some(before) = self.clusters.put(name, Arc::clone(&cluster)) {
            // The version in use may still read the same endpoints.
            let active = self.config.clusters.get(&cluster.name).cloned();
            let same_as_active = active.filter(|active| active.discovery == before.discovery);
            self.release_cluster(&before, Some(same_as_active.as_deref().unwrap_or(&cluster)));
        }
    }

    fn acquire_cluster(&mut self, cluster: &Cluster) {
        self.acquire(&Needs::of_cluster(cluster));
        if let Discovery::Eds(load) = &cluster.discovery {
            self.load_users.entry(Arc::clone(load)).or_default().insert(Arc::clone(&cluster.name));
        }
    }

    /// `after` is the version that takes its place.
    fn release_cluster(&mut self, cluster: &Cluster, after: Option<&Cluster>) {
        self.release(&Needs::of_cluster(cluster));
        if let Discovery::Eds(load) = &cluster.discovery
            && after.is_none_or(|after| after.discovery != cluster.discovery)
            && let Some(users) = self.load_users.get_mut(load)
        {
            users.remove(&cluster.name);
            if users.is_empty() {
                self.load_users.remove(load);
            }
        }
    }

    fn acquire(&mut self, needs: &Needs<'_>) {
        needs.each(|need, name| need.kind().into_iter().for_each(|kind| self.wanted.acquire(kind, name)));
    }

    fn release(&mut self, needs: &Needs<'_>) {
        needs.each(|need, name| need.kind().into_iter().for_each(|kind| self.wanted.release(kind, name)));
    }

    fn remove_cluster(&mut self, name: &str) {
        if let Some(gone) = self.clusters.warming.remove(name) {
            self.release_cluster(&gone.value, None);
        }
        if let Some(gone) = self.config.clusters.remove(name) {
            self.release_cluster(&gone, None);
            self.config.loads.remove(name);
            self.changed = true;
        }
    }

    fn put_load(&mut self, load: Arc<ClusterLoad>) {
        if !self.wanted.has(Kind::Load, &load.name) {
            return;
        }
        let name = Arc::clone(&load.name);
        if self.loads.get(&name).is_some_and(|before| **before == *load) {
            return;
        }
        self.loads.insert(Arc::clone(&name), Arc::clone(&load));
        let users = self.load_users.get(&name).into_iter().flatten();
        for user in users {
            let uses = |c: &Arc<Cluster>| matches!(&c.discovery, Discovery::Eds(wanted) if *wanted == name);
            if self.config.clusters.get(user).is_some_and(uses) {
                self.config.loads.insert(Arc::clone(user), Arc::clone(&load));
                self.changed = true;
            }
        }
    }

    fn put_listener(&mut self, listener: Arc<Listener>) {
        let name = Arc::clone(&listener.name);
        let same = match self.listeners.warming.get(&name) {
            Some(warming) => *warming.value == *listener,
            None => self.config.listeners.get(&name).is_some_and(|active| **active == *listener),
        };
        if same {
            return;
        }
        self.acquire(&Needs::of_listener(&listener));
        if let Some(before) = self.listeners.put(name, listener) {
            self.release(&Needs::of_listener(&before));
        }
    }

    fn remove_listener(&mut self, name: &str) {
        if let Some(gone) = self.listeners.warming.remove(name) {
            self.release(&Needs::of_listener(&gone.value));
        }
        if let Some(gone) = self.config.listeners.remove(name) {
            self.release(&Needs::of_listener(&gone));
            self.changed = true;
        }
    }

    fn put_routes(&mut self, table: Arc<RouteTable>) {
        let name = Arc::clone(&table.name);
        if !self.wanted.has(Kind::Routes, &name) {
            return;
        }
        if self.config.routes.get(&name).is_some_and(|before| **before == *table) {
            self.routes.warming.remove(&name);
            return;
        }
        self.routes.put(name, table);
    }

    fn put_secret(&mut self, name: Arc<str>, secret: Arc<Secret>, source: SecretSource) {
        if source == SecretSource::Ads && !self.wanted.has(Kind::Secret, &name) {
            return;
        }
        if self.config.secrets.get(&name).is_none_or(|before| **before != *secret) {
            self.config.secrets.insert(name, secret);
            self.changed = true;
        }
    }

    fn step_clusters(&mut self, now: Millis) {
        for name in
            self.ready(now, |all| &mut all.clusters.warming, |all, cluster| all.cluster_misses(cluster).is_none())
        {
            let Some(fresh) = self.clusters.warming.remove(&name) else { continue };
            let load = match &fresh.value.discovery {
                Discovery::Eds(load) => self.loads.get(load).cloned(),
                Discovery::Static(load) | Discovery::StrictDns(load, _) | Discovery::LogicalDns(load, _) => {
                    Some(Arc::clone(load))
                }
                Discovery::OriginalDst(_) | Discovery::DynamicForwardProxy(_) | Discovery::Aggregate(_) => None,
            };
            match load {
                Some(load) => self.config.loads.insert(Arc::clone(&name), load),
                None => self.config.loads.remove(&name),
            };
            if let Some(before) = self.config.clusters.insert(name, Arc::clone(&fresh.value)) {
                self.release_cluster(&before, Some(&fresh.value));
            }
            self.changed = true;
        }
    }

    fn step_routes(&mut self, now: Millis) {
        for name in self.ready(now, |all| &mut all.routes.warming, |all, table| all.routes_miss(table).is_none()) {
            let Some(fresh) = self.routes.warming.remove(&name) else { continue };
            self.config.routes.insert(name, fresh.value);
            self.changed = true;
        }
    }

    fn step_listeners(&mut self, now: Millis) {
        for name in self.ready(now, |all| &mut all.listeners.warming, |all, l| all.listener_misses(l).is_none()) {
            let Some(fresh) = self.listeners.warming.remove(&name) else { continue };
            if let Some(before) = self.config.listeners.insert(name, fresh.value) {
                self.release(&Needs::of_listener(&before));
            }
            self.changed = true;
        }
    }

    /// The names in a stage that have what they need or have waited long enough. Starts the clocks of the others.
    fn ready<V>(
        &mut self,
        now: Millis,
        stage: impl Fn(&mut Self) -> &mut AHashMap<Arc<str>, Warming<V>>,
        fits: impl Fn(&Self, &V) -> bool,
    ) -> Vec<Arc<str>> {
        let timeout = self.init_timeout;
        let entries: Vec<_> =
            stage(self).iter().map(|(name, w)| (Arc::clone(name), Arc::clone(&w.value), w.since)).collect();
        let mut ready = Vec::new();
        for (name, value, since) in entries {
            let waited = since.map_or(0, |since| now.since(since));
            if fits(self, &value) || timeout.is_some_and(|timeout| waited >= timeout) {
                ready.push(name);
            } else if since.is_none()
                && let Some(warming) = stage(self).get_mut(&name)
            {
                warming.since = Some(now);
            }
        }
        ready
    }

    fn cluster_misses(&self, cluster: &Cluster) -> Option<String> {
        let mut missing = None;
        Needs::of_cluster(cluster).each(|kind, name| missing = missing.take().or_else(|| self.misses(kind, name)));
        missing
    }

    fn listener_misses(&self, listener: &Listener) -> Option<String> {
        if !self.complete.contains(&Kind::Cluster) {
            return Some("the first set of clusters".to_owned());
        }
        let mut missing = None;
        Needs::of_listener(listener).each(|kind, name| missing = missing.take().or_else(|| self.misses(kind, name)));
        Needs::clusters_of_listener(listener, |name| missing = missing.take().or_else(|| self.warms(name)));
        missing
    }

    fn routes_miss(&self, table: &RouteTable) -> Option<String> {
        let mut missing = None;
        Needs::clusters_of_routes(table, |name| missing = missing.take().or_else(|| self.warms(name)));
        missing
    }

    /// A cluster that does not exist is not waited for: requests for it are answered, as in Envoy.
    fn warms(&self, cluster: &str) -> Option<String> {
        let new = self.clusters.warming.contains_key(cluster) && !self.config.clusters.contains(cluster);
        new.then(|| format!("cluster {cluster:?}"))
    }

    fn misses(&self, need: Need, name: &str) -> Option<String> {
        let (here, what) = match need {
            Need::Load => (self.loads.contains_key(name), "endpoints"),
            Need::Routes => (self.config.routes.contains(name), "routes"),
            Need::Secret => (self.config.secrets.contains(name), "secret"),
            Need::OwnSecret => (self.config.secrets.contains(name), "own secret"),
        };
        (!here).then(|| format!("{what} {name:?}"))
    }

    fn drop_unwanted(&mut self) {
        for (kind, name) in self.wanted.take_dropped() {
            match kind {
                Kind::Load => {
                    self.loads.remove(&name);
                }
                Kind::Routes => {
                    self.routes.warming.remove(&name);
                    self.changed |= self.config.routes.remove(&name).is_some();
                }
                Kind::Secret => self.changed |= self.config.secrets.remove(&name).is_some(),
                Kind::Cluster | Kind::Listener => {}
            }
        }
    }
}

impl<V> Stage<V> {
    /// Returns the version that was waiting before. The clock goes on: a stream of changes must not put off for ever.
    fn put(&mut self, name: Arc<str>, value: Arc<V>) -> Option<Arc<V>> {
        match self.warming.entry(name) {
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                Some(std::mem::replace(&mut entry.get_mut().value, value))
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Warming { value, since: None });
                None
            }
        }
    }

    fn since(&self) -> impl Iterator<Item = Millis> {
        self.warming.values().filter_map(|w| w.since)
    }
}
