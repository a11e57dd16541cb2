//! Puts complete configurations together.
//!
//! Owns what was received and what is waiting: a listener is used only when its routes, certificates and trust are here, a cluster
//! only when its endpoints and certificates are; until then the version before goes on serving. What does not arrive in time is
//! done without, as in Envoy. A change costs what depends on it, not the size of the configuration. Never decodes and never
//! knows a clock. Used by the gateway's xDS client.

mod admits;
mod extend;
mod hosts;
mod leaving;
mod needs;
mod stage;
#[cfg(test)]
mod tests;
mod wanted;

pub use wanted::WantedChange;

use crate::{
    config::{
        Cluster, ClusterLoad, Config, Discovery, FetchTimeout, Listener, RouteTable, Scope, Secret, SecretSource, Value,
    },
    runtime::Runtime,
    time::Millis,
    wire::{Kind, Resource},
};
use ahash::AHashMap;
use extend::Extensions;
use hosts::Hosts;
use leaving::Leaving;
use needs::{Need, Needs};
use smallvec::SmallVec;
use stage::{Gaps, Stage};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use wanted::Wanted;

/// How long the first answers (clusters, scopes, runtime layers) and warming clusters are waited for, in milliseconds.
pub const INIT_TIMEOUT: u64 = 15_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Assembly {
    config: Config,
    changed: bool,
    init_timeout: FetchTimeout,
    clusters: Stage<Cluster>,
    listeners: Stage<Listener>,
    routes: Stage<RouteTable>,
    scopes: Stage<Scope>,
    /// Received, by the name of the resource; only wanted ones are kept.
    loads: AHashMap<Arc<str>, Arc<ClusterLoad>>,
    /// Clusters in use or warming, by the name of their endpoint resource.
    load_users: AHashMap<Arc<str>, SmallVec<[Arc<str>; 1]>>,
    extensions: Extensions,
    /// Listeners in use that take filters from resources, as they were sent.
    extended: AHashMap<Arc<str>, Arc<Listener>>,
    hosts: Hosts,
    /// Scopes in use.
    scoped: BTreeMap<Arc<str>, Arc<Scope>>,
    /// Runtime layers in the order in which they count, the administrator's last.
    layers: Vec<(Arc<str>, Option<Arc<Value>>)>,
    overrides: Option<Arc<Value>>,
    leaving: Leaving,
    wanted: Wanted,
    wanted_all: BTreeSet<Kind>,
    complete: BTreeSet<Kind>,
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
        Self { init_timeout: FetchTimeout(init_timeout.map(Duration::from_millis)), ..Self::default() }
    }

    /// Whether endpoints of this name ever came.
    #[must_use]
    pub fn has_endpoints(&self, name: &str) -> bool {
        self.loads.contains_key(name)
    }

    /// Takes a resource in.
    pub fn put(&mut self, resource: Resource) {
        match resource {
            Resource::Cluster(cluster) => self.put_cluster(cluster),
            Resource::Load(load) => self.put_load(load),
            Resource::Listener(listener) => self.put_listener(listener),
            Resource::Routes(table) => self.put_routes(table),
            Resource::Secret(name, secret) => self.put_secret(name, secret, SecretSource::Ads),
            Resource::Scope(scope) => self.put_scope(scope),
            Resource::Host(host) => self.hosts.put(host),
            Resource::Extension(name, extension) => {
                if self.wanted.has(Kind::Extension, &name) {
                    self.extensions.insert(Arc::clone(&name), extension);
                    self.extend(&name);
                }
            }
            Resource::Runtime(name, layer) => {
                if let Some((_, slot)) = self.layers.iter_mut().find(|(layer, _)| *layer == name) {
                    *slot = Some(layer);
                    self.merge_runtime();
                }
            }
        }
    }

    /// Takes runtime values from these layers; a later one wins.
    pub fn use_layers(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        for name in names {
            self.wanted.acquire(Kind::Runtime, &name);
            self.layers.push((name, None));
        }
    }

    /// The administrator's own runtime values, which win over all layers.
    pub fn override_runtime(&mut self, values: Arc<Value>) {
        self.overrides = Some(values);
        self.merge_runtime();
    }

    /// Takes in a secret of the proxy's own ([`SecretSource::Own`]). It is kept whether it is wanted or not.
    pub fn put_own_secret(&mut self, name: Arc<str>, secret: Arc<Secret>) {
        self.put_secret(name, secret, SecretSource::Own);
    }

    /// Forgets a resource that the control plane removed. Endpoints, routes and secrets that are still referred to stay, as in
    /// Envoy: they go when nothing refers to them any more.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Cluster => self.remove_cluster(name),
            Kind::Listener => self.remove_listener(name),
            Kind::Scope => self.remove_scope(name),
            Kind::Host => self.hosts.remove(name),
            Kind::Extension => {
                if self.extensions.remove(name).is_some() {
                    self.extend(name);
                }
            }
            Kind::Load | Kind::Routes | Kind::Secret | Kind::Runtime => {}
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
        self.step_scopes(now);
        self.step_listeners(now);
        self.drop_kept();
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
        let due = [self.clusters.due(), self.listeners.due(), self.routes.due(), self.scopes.due()];
        due.into_iter().flatten().min()
    }

    /// The newest version of a route table, as it was put in.
    #[must_use]
    pub fn newest_routes(&self, name: &str) -> Option<&Arc<RouteTable>> {
        let warming = self.routes.warming.get(name).map(|warming| &warming.value);
        warming.or_else(|| self.hosts.tables.get(name)).or_else(|| self.config.routes.get(name))
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

    /// True when all resources of a kind are wanted because something in use or waiting takes whatever there is.
    #[must_use]
    pub fn wants_all(&self, kind: Kind) -> bool {
        kind.wildcard() || self.wanted_all.contains(&kind)
    }

    /// What waits, for the admin page.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        fn each<'s, V>(
            kind: Kind,
            stage: &'s Stage<V>,
            look: impl Fn(&V, &mut Gaps) + 's,
        ) -> impl Iterator<Item = Waiting> + 's {
            stage.warming.iter().map(move |(name, warming)| {
                let mut gaps = Gaps::new(Millis(0), Millis(0));
                look(&warming.value, &mut gaps);
                Waiting { kind, name: Arc::clone(name), missing: gaps.words().unwrap_or_default() }
            })
        }
        let mut all: Vec<_> = each(Kind::Cluster, &self.clusters, |c, gaps| self.cluster_gaps(c, gaps))
            .chain(each(Kind::Listener, &self.listeners, |l, gaps| self.listener_gaps(l, gaps)))
            .chain(each(Kind::Routes, &self.routes, |table, gaps| self.routes_gaps(table, gaps)))
            .chain(each(Kind::Scope, &self.scopes, |scope, gaps| self.scope_gaps(scope, gaps)))
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
            let users = self.load_users.entry(Arc::clone(load)).or_default();
            if !users.contains(&cluster.name) {
                users.push(Arc::clone(&cluster.name));
            }
        }
    }

    /// `after` is the version that takes its place.
    fn release_cluster(&mut self, cluster: &Cluster, after: Option<&Cluster>) {
        self.release(&Needs::of_cluster(cluster));
        if let Discovery::Eds(load) = &cluster.discovery
            && after.is_none_or(|after| after.discovery != cluster.discovery)
            && let Some(users) = self.load_users.get_mut(load)
        {
            users.retain(|user| *user != cluster.name);
            if users.is_empty() {
                self.load_users.remove(load);
            }
        }
    }

    fn acquire(&mut self, needs: &Needs<'_>) {
        needs.each(|need, name, _| need.kind().into_iter().for_each(|kind| self.wanted.acquire(kind, name)));
    }

    fn release(&mut self, needs: &Needs<'_>) {
        needs.each(|need, name, _| need.kind().into_iter().for_each(|kind| self.wanted.release(kind, name)));
    }

    fn remove_cluster(&mut self, name: &str) {
        if let Some(gone) = self.clusters.remove(name) {
            self.release_cluster(&gone, None);
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
        let active = || self.extended.get(&name).or_else(|| self.config.listeners.get(&name));
        let same = match self.listeners.warming.get(&name) {
            Some(warming) => *warming.value == *listener,
            None => active().is_some_and(|active| **active == *listener),
        };
        if same {
            return;
        }
        self.acquire(&Needs::of_listener(&listener));
        if Needs::scopes(&listener) {
            self.wanted_all.insert(Kind::Scope);
        }
        if let Some(before) = self.listeners.put(name, listener) {
            self.release(&Needs::of_listener(&before));
        }
    }

    fn remove_listener(&mut self, name: &str) {
        if let Some(gone) = self.listeners.remove(name) {
            self.release(&Needs::of_listener(&gone));
        }
        let sent = self.extended.remove(name);
        if let Some(gone) = self.config.listeners.remove(name) {
            self.release(&Needs::of_listener(sent.as_ref().unwrap_or(&gone)));
            self.leaving.note(&gone);
            self.changed = true;
        }
    }

    fn put_routes(&mut self, table: Arc<RouteTable>) {
        let name = Arc::clone(&table.name);
        if !self.wanted.has(Kind::Routes, &name) {
            return;
        }
        let active = self.hosts.tables.get(&name).or_else(|| self.config.routes.get(&name));
        if active.is_some_and(|before| **before == *table) {
            self.routes.remove(&name);
            return;
        }
        if table.more_hosts.is_some() {
            self.wanted_all.insert(Kind::Host);
        }
        self.routes.put(name, table);
    }

    fn put_scope(&mut self, scope: Arc<Scope>) {
        let name = Arc::clone(&scope.name);
        let same = match self.scopes.warming.get(&name) {
            Some(warming) => *warming.value == *scope,
            None => self.scoped.get(&name).is_some_and(|active| **active == *scope),
        };
        if same {
            return;
        }
        self.acquire(&Needs::of_scope(&scope));
        if let Some(before) = self.scopes.put(name, scope) {
            self.release(&Needs::of_scope(&before));
        }
    }

    fn remove_scope(&mut self, name: &str) {
        if let Some(gone) = self.scopes.remove(name) {
            self.release(&Needs::of_scope(&gone));
        }
        if let Some(gone) = self.scoped.remove(name) {
            Arc::make_mut(&mut self.config.scopes).remove(&gone);
            self.release(&Needs::of_scope(&gone));
            self.changed = true;
        }
    }

    /// Puts what is known of an extension into the listeners in use that take it.
    fn extend(&mut self, name: &str) {
        for (listener, sent) in &self.extended {
            if extend::places(sent).any(|place| *place.resource == *name) {
                let resolved = extend::resolved(sent, &self.extensions);
                if self.config.listeners.get(listener).is_none_or(|active| **active != *resolved) {
                    self.config.listeners.insert(Arc::clone(listener), resolved);
                    self.changed = true;
                }
            }
        }
    }

    fn merge_runtime(&mut self) {
        let layers = self.layers.iter().filter_map(|(_, layer)| layer.as_deref());
        let merged = Runtime::merged(layers.chain(self.overrides.as_deref()));
        if *self.config.runtime != merged {
            self.config.runtime = Arc::new(merged);
            self.changed = true;
        }
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
        let mut stage = std::mem::take(&mut self.clusters);
        let ready = stage.ready(now, |cluster, gaps| self.cluster_gaps(cluster, gaps));
        self.clusters = stage;
        for fresh in ready {
            let name = Arc::clone(&fresh.name);
            let load = match &fresh.discovery {
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
            if let Some(before) = self.config.clusters.insert(name, Arc::clone(&fresh)) {
                self.release_cluster(&before, Some(&fresh));
            }
            self.changed = true;
        }
    }

    fn step_routes(&mut self, now: Millis) {
        let mut stage = std::mem::take(&mut self.routes);
        let ready = stage.ready(now, |table, gaps| self.routes_gaps(table, gaps));
        self.routes = stage;
        for fresh in ready {
            let name = Arc::clone(&fresh.name);
            let table = if fresh.more_hosts.is_some() {
                self.hosts.tables.insert(Arc::clone(&name), Arc::clone(&fresh));
                self.hosts.merged(&fresh)
            } else {
                self.hosts.tables.remove(&name);
                fresh
            };
            self.config.routes.insert(name, table);
            self.changed = true;
        }
        for table in self.hosts.take_changed() {
            self.config.routes.insert(Arc::clone(&table.name), table);
            self.changed = true;
        }
    }

    fn step_scopes(&mut self, now: Millis) {
        let mut stage = std::mem::take(&mut self.scopes);
        let ready = stage.ready(now, |scope, gaps| self.scope_gaps(scope, gaps));
        self.scopes = stage;
        for fresh in ready {
            let before = self.scoped.insert(Arc::clone(&fresh.name), Arc::clone(&fresh));
            let index = Arc::make_mut(&mut self.config.scopes);
            if let Some(before) = &before {
                index.remove(before);
            }
            // A key that another scope has was refused before; who has it keeps it.
            let _ = index.put(fresh);
            if let Some(before) = before {
                self.release(&Needs::of_scope(&before));
            }
            self.changed = true;
        }
    }

    fn step_listeners(&mut self, now: Millis) {
        let mut stage = std::mem::take(&mut self.listeners);
        let ready = stage.ready(now, |listener, gaps| self.listener_gaps(listener, gaps));
        self.listeners = stage;
        for fresh in ready {
            let name = Arc::clone(&fresh.name);
            let resolved = extend::resolved(&fresh, &self.extensions);
            let sent = if Arc::ptr_eq(&resolved, &fresh) {
                self.extended.remove(&name)
            } else {
                self.extended.insert(Arc::clone(&name), fresh)
            };
            let resolved = match self.config.listeners.get(&name) {
                Some(before) => extend::keeping(resolved, before),
                None => resolved,
            };
            if let Some(before) = self.config.listeners.insert(name, resolved) {
                self.leaving.note(&before);
                self.release(&Needs::of_listener(sent.as_ref().unwrap_or(&before)));
            }
            self.changed = true;
        }
    }

    fn cluster_gaps(&self, cluster: &Cluster, gaps: &mut Gaps) {
        Needs::of_cluster(cluster).each(|need, name, wait| self.look(need, name, wait, gaps));
    }

    fn listener_gaps(&self, listener: &Listener, gaps: &mut Gaps) {
        if !self.complete.contains(&Kind::Cluster) {
            gaps.add("the first set of", &Arc::from("clusters"), self.init_timeout);
        }
        for (name, _) in self.layers.iter().filter(|(_, layer)| layer.is_none()) {
            gaps.add("runtime layer", name, self.init_timeout);
        }
        Needs::of_listener(listener).each(|need, name, wait| self.look(need, name, wait, gaps));
        if Needs::scopes(listener) {
            if !self.complete.contains(&Kind::Scope) {
                gaps.add("the first set of", &Arc::from("scopes"), self.init_timeout);
            }
            self.scopes.warming.keys().for_each(|scope| gaps.add("scope", scope, self.init_timeout));
        }
        Needs::clusters_of_listener(listener, |name| self.warms(name, gaps));
    }

    fn routes_gaps(&self, table: &RouteTable, gaps: &mut Gaps) {
        if let Some(wait) = table.more_hosts
            && !self.complete.contains(&Kind::Host)
        {
            gaps.add("virtual hosts of", &table.name, wait);
        }
        Needs::clusters_of_routes(table, |name| self.warms(name, gaps));
    }

    fn scope_gaps(&self, scope: &Scope, gaps: &mut Gaps) {
        Needs::of_scope(scope).each(|need, name, wait| self.look(need, name, wait, gaps));
    }

    /// A cluster that does not exist is not waited for: requests for it are answered, as in Envoy. One that waits for ever itself
    /// holds up nothing else for longer than the time of the start.
    fn warms(&self, cluster: &Arc<str>, gaps: &mut Gaps) {
        if !self.clusters.warming.is_empty()
            && self.clusters.warming.contains_key(cluster)
            && !self.config.clusters.contains(cluster)
        {
            gaps.add("cluster", cluster, self.init_timeout);
        }
    }

    fn look(&self, need: Need, name: &Arc<str>, wait: FetchTimeout, gaps: &mut Gaps) {
        let (here, what) = match need {
            Need::Load => (self.loads.contains_key(name), "endpoints"),
            Need::Routes => (self.config.routes.contains(name), "routes"),
            Need::Secret => (self.config.secrets.contains(name), "secret"),
            Need::OwnSecret => (self.config.secrets.contains(name), "own secret"),
            Need::Extension => (self.extensions.contains_key(name), "extension"),
            // It is subscribed to, but nobody waits.
            Need::LateExtension => (true, "extension"),
        };
        if !here {
            gaps.add(what, name, wait);
        }
    }

    fn drop_unwanted(&mut self) {
        for (kind, name) in self.wanted.take_dropped() {
            match kind {
                Kind::Load => {
                    self.loads.remove(&name);
                }
                Kind::Routes => {
                    self.routes.remove(&name);
                    self.hosts.tables.remove(&name);
                    self.drop_table(name);
                }
                Kind::Secret => self.changed |= self.config.secrets.remove(&name).is_some(),
                Kind::Extension => drop(self.extensions.remove(&name)),
                Kind::Cluster | Kind::Listener | Kind::Scope | Kind::Host | Kind::Runtime => {}
            }
        }
    }
}
