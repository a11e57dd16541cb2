//! All outputs in dependency order, one stage after the other, and the snapshots made of them.
//!
//! Owns which outputs are wanted; what has to be recomputed follows from what was read. Used by the engine.

use super::classes::{Classes, Turnover};
use crate::{
    bind::{self, View},
    proxy::Role,
    snapshot::{Pool, Shelf, Union, next},
    stage::{AudienceId, Dep, ProxyId, Reader, Stage, VhostKey, World},
    translate::{self, Resources},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{Diagnostic, ObjectRef, ServiceKey};
use tombolo_federation_sync::{ResourceSet, Snapshot, resource_set, types};

/// Where a complaint was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Object(ObjectRef),
    Plan(AudienceId),
    Clusters(AudienceId, ServiceKey),
    Endpoints(AudienceId, ServiceKey),
    Vhosts(AudienceId, VhostKey),
    Routes(AudienceId, String),
    Secrets(AudienceId),
    Listeners(ProxyId),
}

/// What all members of a class receive.
#[derive(Debug, Default)]
struct Shared {
    clusters: Arc<ResourceSet>,
    endpoints: Arc<ResourceSet>,
    routes: Arc<ResourceSet>,
    secrets: Arc<ResourceSet>,
    /// With the trust bundles.
    all_secrets: Union,
}

/// What one proxy receives besides.
#[derive(Debug, Default)]
struct Own {
    listeners: Arc<ResourceSet>,
    clusters: Arc<ResourceSet>,
    /// With those of its class.
    all_clusters: Union,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    classes: Classes,
    audiences: Stage<ProxyId>,
    scopes: Stage<AudienceId>,
    plans: Stage<AudienceId>,
    clusters: Stage<(AudienceId, ServiceKey)>,
    endpoints: Stage<(AudienceId, ServiceKey)>,
    vhosts: Stage<(AudienceId, VhostKey)>,
    routes: Stage<(AudienceId, String)>,
    secrets: Stage<AudienceId>,
    listeners: Stage<ProxyId>,
    roots: Stage<()>,
    checks: Stage<ObjectRef>,
    pool: Pool,
    shelves: Shelves,
    shared: BTreeMap<AudienceId, Shared>,
    own: BTreeMap<ProxyId, Own>,
    roots_set: Arc<ResourceSet>,
    complaints: BTreeMap<Source, Vec<Diagnostic>>,
    snapshots: BTreeMap<ProxyId, Arc<Snapshot>>,
}

#[derive(Debug, Default)]
struct Shelves {
    clusters: Shelf<(AudienceId, Option<ServiceKey>)>,
    endpoints: Shelf<(AudienceId, ServiceKey)>,
    routes: Shelf<(AudienceId, String)>,
    secrets: Shelf<AudienceId>,
    listeners: Shelf<ProxyId>,
    own_clusters: Shelf<ProxyId>,
}

/// What one update has seen so far.
#[derive(Debug, Default)]
struct Progress {
    changed: BTreeSet<Dep>,
    computed: usize,
    classes: BTreeSet<AudienceId>,
    proxies: BTreeSet<ProxyId>,
}

impl Progress {
    /// Prepares a stage: everything that read something which changed has to be computed.
    fn enter<K: Ord + Clone>(&mut self, world: &mut World, stage: &mut Stage<K>) {
        self.changed.extend(world.take_changed());
        stage.touch(&self.changed);
        self.computed += stage.due();
    }
}

impl Outputs {
    /// Brings every output up to date. The answer names the proxies with a new snapshot, and how many outputs were computed.
    pub(super) fn update(&mut self, world: &mut World) -> (BTreeSet<ProxyId>, usize) {
        let mut progress = Progress { changed: world.take_changed(), ..Progress::default() };
        self.want_inputs(world, &progress);
        self.run_audiences(world, &mut progress);
        self.run_plans(world, &mut progress);
        self.run_scopes(world, &mut progress);
        self.run_services(world, &mut progress);
        self.run_vhosts(world, &mut progress);
        self.run_routes(world, &mut progress);
        self.run_secrets(world, &mut progress);
        self.run_listeners(world, &mut progress);
        self.run_checks(world, &mut progress);
        let changed = self.publish(world, &progress);
        (changed, progress.computed)
    }

    pub(super) fn snapshot(&self, id: ProxyId) -> Option<Arc<Snapshot>> {
        self.snapshots.get(&id).cloned()
    }

    pub(super) fn complaints(&self) -> impl Iterator<Item = &Diagnostic> {
        self.complaints.values().flatten()
    }

    fn complain(&mut self, source: Source, complaints: Vec<Diagnostic>) {
        if complaints.is_empty() {
            self.complaints.remove(&source);
        } else {
            self.complaints.insert(source, complaints);
        }
    }

    /// Proxies and objects that came and went.
    fn want_inputs(&mut self, world: &World, progress: &Progress) {
        self.roots.want(());
        for dep in &progress.changed {
            let reader = Reader::new(world);
            match dep {
                Dep::Proxy(id) if reader.proxy(*id).is_some() => {
                    self.audiences.want(*id);
                    self.listeners.want(*id);
                }
                Dep::Proxy(id) => {
                    self.audiences.unwant(id);
                    self.listeners.unwant(id);
                }
                Dep::Intent(object) if reader.intent(object).is_some() => self.checks.want(object.clone()),
                Dep::Intent(object) => self.checks.unwant(object),
                _ => {}
            }
        }
    }

    fn run_audiences(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.audiences);
        let results = self.audiences.run(world, |reader, id| bind::audience(reader, *id));
        let Turnover { came, went } = self.classes.assign(world, results);
        for id in came {
            let Some(role) = Reader::new(world).audience(id).map(|audience| audience.role) else { continue };
            self.scopes.want(id);
            match role {
                Role::Sidecar => self.routes.want((id, "http_proxy".to_owned())),
                Role::Router => {
                    self.plans.want(id);
                    self.secrets.want(id);
                }
            }
            let shared = self.shared.entry(id).or_default();
            let fixed = translate::fixed_clusters(role).value;
            self.shelves.clusters.place((id, None), fixed, &mut self.pool, &mut shared.clusters);
        }
        for id in went {
            self.scopes.unwant(&id);
            self.plans.unwant(&id);
            self.secrets.unwant(&id);
            self.routes.unwant(&(id, "http_proxy".to_owned()));
            if let Some(shared) = self.shared.get_mut(&id) {
                self.shelves.clusters.place((id, None), Vec::new(), &mut self.pool, &mut shared.clusters);
            }
            progress.classes.insert(id);
        }
    }

    fn run_plans(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.plans);
        let results = self.plans.run(world, |reader, id| View::of(reader, *id).map(bind::plan));
        for (id, plan) in results {
            let plan = plan.flatten().map(Arc::new);
            let names =
                |plan: Option<&Arc<bind::GatewayPlan>>| plan.map(|p| translate::route_names(p)).unwrap_or_default();
            let old = names(world.plans.row(&id));
            let new = names(plan.as_ref());
            self.routes.rewant(old.into_iter().map(|name| (id, name)), new.into_iter().map(|name| (id, name)));
            let complaints = plan.as_ref().map(|p| p.complaints.clone()).unwrap_or_default();
            self.complain(Source::Plan(id), complaints);
            world.plans.set(id, plan);
        }
    }

    fn run_scopes(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.scopes);
        let results = self
            .scopes
            .run(world, |reader, id| View::of(reader, *id).map(|view| (view.audience.role, bind::scope(view))));
        for (id, result) in results {
            let (role, new) =
                result.flatten().map_or((Role::Router, None), |(role, scope)| (role, Some(Arc::new(scope))));
            let old = world.scopes.row(&id).cloned();
            if old == new {
                continue;
            }
            let services = |scope: &Option<Arc<bind::Scope>>| {
                let keys = scope.iter().flat_map(|scope| scope.services.values());
                keys.map(|key| (id, key.clone())).collect::<Vec<_>>()
            };
            self.clusters.rewant(services(&old), services(&new));
            self.endpoints.rewant(services(&old), services(&new));
            let vhosts = |scope: &Option<Arc<bind::Scope>>| {
                let services = scope.iter().flat_map(|scope| scope.services.values().cloned().map(VhostKey::Service));
                let hosts = scope.iter().flat_map(|scope| scope.route_hosts.iter().cloned().map(VhostKey::Host));
                services.chain(hosts).map(|key| (id, key)).collect::<Vec<_>>()
            };
            let wanted = if role == Role::Sidecar { vhosts(&new) } else { Vec::new() };
            self.vhosts.rewant(vhosts(&old), wanted);
            resolve(world, id, old.as_deref(), new.as_deref());
            world.scopes.set(id, new);
        }
    }

    fn run_services(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.clusters);
        let results = self
            .clusters
            .run(world, |reader, (id, key)| View::of(reader, *id).map(|view| translate::clusters(view, key)));
        for ((id, key), result) in results {
            let Resources { value, complaints } = result.flatten().unwrap_or_default();
            let shared = self.shared.entry(id).or_default();
            if self.shelves.clusters.place((id, Some(key.clone())), value, &mut self.pool, &mut shared.clusters) {
                progress.classes.insert(id);
            }
            self.complain(Source::Clusters(id, key), complaints);
        }
        progress.enter(world, &mut self.endpoints);
        let results = self
            .endpoints
            .run(world, |reader, (id, key)| View::of(reader, *id).map(|view| translate::assignments(view, key)));
        for ((id, key), result) in results {
            let Resources { value, complaints } = result.flatten().unwrap_or_default();
            let shared = self.shared.entry(id).or_default();
            if self.shelves.endpoints.place((id, key.clone()), value, &mut self.pool, &mut shared.endpoints) {
                progress.classes.insert(id);
            }
            self.complain(Source::Endpoints(id, key), complaints);
        }
    }

    fn run_vhosts(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.vhosts);
        let results =
            self.vhosts.run(world, |reader, (id, key)| View::of(reader, *id).map(|view| translate::vhosts(view, key)));
        for (key, result) in results {
            let result = result.flatten();
            let complaints = result.as_ref().map(|r| r.complaints.clone()).unwrap_or_default();
            self.complain(Source::Vhosts(key.0, key.1.clone()), complaints);
            world.vhosts.set(key, result.map(|r| r.value));
        }
    }

    fn run_routes(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.routes);
        let results = self.routes.run(world, |reader, (id, name)| {
            View::of(reader, *id).map(|view| match view.audience.role {
                Role::Sidecar => translate::http_proxy_routes(view),
                Role::Router => translate::gateway_routes(view, name),
            })
        });
        for ((id, name), result) in results {
            let result = result.flatten().unwrap_or_default();
            let shared = self.shared.entry(id).or_default();
            let value = result.value.into_iter().collect();
            if self.shelves.routes.place((id, name.clone()), value, &mut self.pool, &mut shared.routes) {
                progress.classes.insert(id);
            }
            self.complain(Source::Routes(id, name), result.complaints);
        }
    }

    fn run_secrets(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.secrets);
        let results = self.secrets.run(world, |reader, id| View::of(reader, *id).map(translate::gateway_secrets));
        for (id, result) in results {
            let Resources { value, complaints } = result.flatten().unwrap_or_default();
            let shared = self.shared.entry(id).or_default();
            if self.shelves.secrets.place(id, value, &mut self.pool, &mut shared.secrets) {
                progress.classes.insert(id);
            }
            self.complain(Source::Secrets(id), complaints);
        }
        progress.enter(world, &mut self.roots);
        for ((), bundle) in self.roots.run(world, |reader, ()| translate::roots(reader)) {
            let set = resource_set(bundle.flatten());
            if *self.roots_set != set {
                self.roots_set = Arc::new(set);
                progress.classes.extend(self.shared.keys());
            }
        }
    }

    fn run_listeners(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.listeners);
        let results = self.listeners.run(world, |reader, id| listeners_of(reader, *id));
        for (id, result) in results {
            let (listeners, clusters) = result.flatten().unwrap_or_default();
            let own = self.own.entry(id).or_default();
            let moved = self.shelves.listeners.place(id, listeners.value, &mut self.pool, &mut own.listeners);
            if self.shelves.own_clusters.place(id, clusters.value, &mut self.pool, &mut own.clusters) || moved {
                progress.proxies.insert(id);
            }
            self.complain(Source::Listeners(id), listeners.complaints);
        }
        let moved = progress.changed.iter().filter_map(|dep| match dep {
            Dep::AudienceOf(id) | Dep::Proxy(id) => Some(*id),
            _ => None,
        });
        progress.proxies.extend(moved);
    }

    fn run_checks(&mut self, world: &mut World, progress: &mut Progress) {
        progress.enter(world, &mut self.checks);
        for (object, found) in self.checks.run(world, bind::check) {
            self.complain(Source::Object(object), found.unwrap_or_default());
        }
    }

    fn publish(&mut self, world: &World, progress: &Progress) -> BTreeSet<ProxyId> {
        let of_class =
            world.audience_of.rows().iter().filter(|(_, class)| progress.classes.contains(class)).map(|(id, _)| *id);
        let touched: BTreeSet<ProxyId> = progress.proxies.iter().copied().chain(of_class).collect();
        let mut changed = BTreeSet::new();
        for id in touched {
            match world.audience_of.row(&id) {
                None => {
                    self.snapshots.remove(&id);
                    self.own.remove(&id);
                }
                Some(class) => {
                    let types = self.assemble(id, *class);
                    let old = self.snapshots.get(&id);
                    let new = next(old, types);
                    if old.is_none_or(|old| !Arc::ptr_eq(old, &new)) {
                        self.snapshots.insert(id, new);
                        changed.insert(id);
                    }
                }
            }
        }
        self.shared.retain(|id, _| world.audiences.row(id).is_some());
        changed
    }

    fn assemble(&mut self, id: ProxyId, class: AudienceId) -> BTreeMap<Arc<str>, Arc<ResourceSet>> {
        let shared = self.shared.entry(class).or_default();
        let own = self.own.entry(id).or_default();
        let sets = [
            (types::CLUSTER, own.all_clusters.of(&shared.clusters, &own.clusters)),
            (types::ENDPOINT, shared.endpoints.clone()),
            (types::LISTENER, own.listeners.clone()),
            (types::ROUTE, shared.routes.clone()),
            (types::SECRET, shared.all_secrets.of(&shared.secrets, &self.roots_set)),
        ];
        sets.into_iter().map(|(name, set)| (Arc::from(name), set)).collect()
    }
}

fn listeners_of(reader: &Reader<'_>, id: ProxyId) -> Option<(Resources, Resources)> {
    let proxy = reader.proxy(id)?;
    let view = View::of(reader, reader.audience_of(id)?)?;
    Some(match proxy.role {
        Role::Router => (translate::gateway_listeners(view, proxy), Resources::default()),
        Role::Sidecar => {
            let outbound = translate::http_proxy_listener(view, proxy);
            let inbound = translate::inbound_listeners(view, proxy);
            let listeners = Resources::fine(outbound.into_iter().chain(inbound).collect());
            (listeners, translate::inbound_clusters(view, proxy))
        }
    })
}

/// Takes over which service each host means, host by host, so that only readers of changed hosts are touched.
fn resolve(world: &mut World, id: AudienceId, old: Option<&bind::Scope>, new: Option<&bind::Scope>) {
    let gone = old
        .into_iter()
        .flat_map(|scope| scope.services.keys())
        .filter(|host| new.is_none_or(|new| !new.services.contains_key(*host)));
    for host in gone {
        world.resolved.set((id, host.clone()), None);
    }
    for (host, key) in new.into_iter().flat_map(|scope| &scope.services) {
        world.resolved.set((id, host.clone()), Some(key.clone()));
    }
}
