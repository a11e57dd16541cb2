//! Everything that outputs may read: ground state (services, intents, proxies) and what earlier stages derived from it.
//!
//! Owns the indexes. Every index is a [`Table`] or [`Lists`], so a change of any row is known to the engine without
//! anybody saying so. Read only through a [`super::Reader`].

use super::{Dep, Lists, Table};
use crate::{
    bind::{Audience, GatewayPlan, Scope},
    intent::{
        Attachment, Destination, Gateway, Grant, Intent, MeshSettings, NamedRef, PeerAuthentication, Routes,
        SidecarScope, TlsSecret,
    },
    proxy::Proxy,
    settings::SiteSettings,
    translate::Vhost,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{
    ClusterId, Endpoint, Host, Identity, Labels, Namespace, NetworkGateway, NetworkId, ObjectRef, Resolution,
    Scope as MeshScope, ServiceKey, ServicePort, SiteName, Subsets, TlsMode, TrustDomain, Visibility, WorkloadAddress,
};
use tombolo_federation_registry::MergedService;

/// One attached proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub u64);

/// One class of proxies that receive the same resources. The number has no meaning and reaches no output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AudienceId(pub u32);

/// What a virtual host of a sidecar stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VhostKey {
    /// A service of the registry.
    Service(ServiceKey),
    /// A host that only routes name.
    Host(Host),
}

/// A service without its endpoints, so that a change of endpoints does not touch what does not depend on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHead {
    /// What makes it the same elsewhere.
    pub key: ServiceKey,
    /// Name of the definition.
    pub name: String,
    /// Ports by ascending number.
    pub ports: Vec<ServicePort>,
    /// Labels of the service.
    pub labels: Labels,
    /// Virtual addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// How addresses are found.
    pub resolution: Resolution,
    /// Inside or outside of the mesh.
    pub scope: MeshScope,
    /// Who may use it.
    pub visibility: Visibility,
    /// Names that endpoints may present besides their own.
    pub subject_alt_names: Vec<String>,
    /// Unix seconds.
    pub created: i64,
    /// Peers may reach it through this site's gateways.
    pub exported: bool,
    /// Answers to `clusterset.local` too.
    pub clusterset: bool,
    /// It is an alias of this host.
    pub alias_of: Option<Host>,
}

impl ServiceHead {
    fn of(service: &MergedService) -> Self {
        Self {
            key: service.key.clone(),
            name: service.name.clone(),
            ports: service.ports.clone(),
            labels: service.labels.clone(),
            addresses: service.addresses.clone(),
            resolution: service.resolution,
            scope: service.scope,
            visibility: service.visibility.clone(),
            subject_alt_names: service.subject_alt_names.clone(),
            created: service.created,
            exported: service.exported,
            clusterset: service.clusterset,
            alias_of: service.alias_of.clone(),
        }
    }

    /// The port with this number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// Services that a workload's address serves, with the port at the address by service port.
pub type ServedHere = BTreeMap<ServiceKey, BTreeMap<u16, u16>>;

/// Trust bundles: DER roots by trust domain.
pub type Bundles = BTreeMap<TrustDomain, Vec<Vec<u8>>>;

/// See the module.
#[derive(Debug)]
pub struct World {
    pub(super) site: SiteSettings,
    pub(super) default_mesh: Arc<MeshSettings>,
    pub(super) services: Table<ServiceKey, Arc<ServiceHead>>,
    pub(super) hosts: Table<Host, BTreeSet<ServiceKey>>,
    pub(super) endpoints: Table<ServiceKey, Arc<Vec<Arc<Endpoint>>>>,
    pub(super) identities: Table<ServiceKey, Arc<BTreeSet<Identity>>>,
    pub(super) served: Table<(ClusterId, WorkloadAddress), ServedHere>,
    pub(super) network_gateways: Table<(), Arc<BTreeMap<NetworkId, Vec<NetworkGateway>>>>,
    pub(super) bundles: Table<(), Arc<Bundles>>,
    pub(super) subsets_of_peers: BTreeMap<SiteName, Arc<Subsets>>,
    pub(super) remote_subsets: Table<Host, BTreeMap<String, Labels>>,
    pub(super) used_subsets: Table<Host, BTreeMap<String, Labels>>,
    pub(super) intents: Table<ObjectRef, Arc<Intent>>,
    pub(super) mesh: Lists<(), MeshSettings>,
    pub(super) gateways: Lists<(), Gateway>,
    pub(super) gateways_named: Lists<NamedRef, Gateway>,
    pub(super) mesh_routes: Lists<Host, Routes>,
    pub(super) gateway_routes: Lists<NamedRef, Routes>,
    pub(super) routes_named: Lists<NamedRef, Routes>,
    pub(super) destinations: Lists<Host, Destination>,
    pub(super) peer_authentications: Lists<Namespace, PeerAuthentication>,
    pub(super) sidecars: Lists<Namespace, SidecarScope>,
    pub(super) secrets: Lists<NamedRef, TlsSecret>,
    pub(super) grants: Lists<Namespace, Grant>,
    pub(super) label_keys: Table<String, u32>,
    pub(super) proxies: Table<ProxyId, Arc<Proxy>>,
    /// Which class each proxy belongs to.
    pub audience_of: Table<ProxyId, AudienceId>,
    /// The classes.
    pub audiences: Table<AudienceId, Arc<Audience>>,
    /// What each class sees.
    pub scopes: Table<AudienceId, Arc<Scope>>,
    /// The service that a host means, by class.
    pub resolved: Table<(AudienceId, Host), ServiceKey>,
    /// Listeners of gateways, bound, by class.
    pub plans: Table<AudienceId, Arc<GatewayPlan>>,
    /// Virtual hosts of sidecars.
    pub vhosts: Table<(AudienceId, VhostKey), Arc<Vec<Vhost>>>,
}

impl World {
    /// An empty world of a site.
    #[must_use]
    pub fn new(site: SiteSettings) -> Self {
        Self {
            default_mesh: Arc::new(crate::bind::default_mesh(&site)),
            site,
            services: Table::default(),
            hosts: Table::default(),
            endpoints: Table::default(),
            identities: Table::default(),
            served: Table::default(),
            network_gateways: Table::default(),
            bundles: Table::default(),
            subsets_of_peers: BTreeMap::new(),
            remote_subsets: Table::default(),
            used_subsets: Table::default(),
            intents: Table::default(),
            mesh: Lists::default(),
            gateways: Lists::default(),
            gateways_named: Lists::default(),
            mesh_routes: Lists::default(),
            gateway_routes: Lists::default(),
            routes_named: Lists::default(),
            destinations: Lists::default(),
            peer_authentications: Lists::default(),
            sidecars: Lists::default(),
            secrets: Lists::default(),
            grants: Lists::default(),
            label_keys: Table::default(),
            proxies: Table::default(),
            audience_of: Table::default(),
            audiences: Table::default(),
            scopes: Table::default(),
            resolved: Table::default(),
            plans: Table::default(),
            vhosts: Table::default(),
        }
    }

    /// Takes over a merged service of the registry, or its absence.
    pub fn set_service(&mut self, key: &ServiceKey, service: Option<&MergedService>) {
        let old = self.endpoints.row(key).cloned().unwrap_or_default();
        let new = service.map(|s| s.endpoints.clone()).unwrap_or_default();
        self.set_served(key, &old, &new);
        self.services.set(key.clone(), service.map(|s| Arc::new(ServiceHead::of(s))));
        let mut same_host = self.hosts.row(&key.host).cloned().unwrap_or_default();
        if service.is_some() {
            same_host.insert(key.clone());
        } else {
            same_host.remove(key);
        }
        self.hosts.set(key.host.clone(), Some(same_host).filter(|set| !set.is_empty()));
        let identities = new.iter().filter(|e| e.tls == TlsMode::Mutual).filter_map(|e| e.identity.clone()).collect();
        self.identities.set(key.clone(), service.map(|_| Arc::new(identities)));
        self.endpoints.set(key.clone(), service.map(|_| Arc::new(new)));
        self.refresh_used_subsets(&key.host);
    }

    fn set_served(&mut self, key: &ServiceKey, old: &[Arc<Endpoint>], new: &[Arc<Endpoint>]) {
        let place = |e: &Arc<Endpoint>| (e.cluster.clone(), e.address.clone());
        let mut rows: BTreeMap<(ClusterId, WorkloadAddress), BTreeMap<u16, u16>> =
            old.iter().map(|e| (place(e), BTreeMap::new())).collect();
        for endpoint in new {
            rows.entry(place(endpoint)).or_default().extend(endpoint.ports.iter().map(|(k, v)| (*k, *v)));
        }
        for (at, ports) in rows {
            let mut row = self.served.row(&at).cloned().unwrap_or_default();
            if ports.is_empty() {
                row.remove(key);
            } else {
                row.insert(key.clone(), ports);
            }
            self.served.set(at, Some(row).filter(|row| !row.is_empty()));
        }
    }

    /// Takes over the east-west gateways that the registry knows.
    pub fn set_network_gateways(&mut self, gateways: BTreeMap<NetworkId, Vec<NetworkGateway>>) {
        self.network_gateways.set((), Some(Arc::new(gateways)));
    }

    /// Takes over the trust bundles.
    pub fn set_bundles(&mut self, bundles: Bundles) {
        self.bundles.set((), Some(Arc::new(bundles)));
    }

    /// Adds, replaces or removes a proxy.
    pub fn set_proxy(&mut self, id: ProxyId, proxy: Option<Proxy>) {
        self.proxies.set(id, proxy.map(Arc::new));
    }

    /// Adds, replaces or removes an intent.
    pub fn set_intent(&mut self, object: &ObjectRef, intent: Option<Arc<Intent>>) {
        let old = self.intents.row(object).cloned();
        if !self.intents.set(object.clone(), intent.clone()) {
            return;
        }
        if let Some(old) = &old {
            self.unindex(old);
        }
        if let Some(new) = &intent {
            self.index(new);
        }
        for intent in [old, intent].into_iter().flatten() {
            if let Intent::Destination(destination) = &*intent {
                self.refresh_used_subsets(&destination.host);
            }
        }
    }

    fn index(&mut self, intent: &Intent) {
        let meta = intent.meta();
        match intent {
            Intent::Gateway(gateway) => {
                let gateway = Arc::new(gateway.clone());
                self.gateways.add((), meta, gateway.clone());
                self.gateways_named.add(named(meta), meta, gateway);
            }
            Intent::Routes(routes) => {
                let routes = Arc::new(routes.clone());
                for host in mesh_hosts(&routes) {
                    self.mesh_routes.add(host, meta, routes.clone());
                }
                for gateway in attached_gateways(&routes) {
                    self.gateway_routes.add(gateway, meta, routes.clone());
                }
                self.routes_named.add(named(meta), meta, routes);
            }
            Intent::Destination(destination) => {
                self.destinations.add(destination.host.clone(), meta, Arc::new(destination.clone()))
            }
            Intent::PeerAuthentication(policy) => {
                self.peer_authentications.add(meta.namespace.clone(), meta, Arc::new(policy.clone()))
            }
            Intent::Sidecar(scope) => self.sidecars.add(meta.namespace.clone(), meta, Arc::new(scope.clone())),
            Intent::Mesh(mesh) => self.mesh.add((), meta, Arc::new((**mesh).clone())),
            Intent::Secret(secret) => self.secrets.add(named(meta), meta, Arc::new(secret.clone())),
            Intent::Grant(grant) => self.grants.add(meta.namespace.clone(), meta, Arc::new(grant.clone())),
        }
        for key in label_keys(intent) {
            let count = self.label_keys.row(&key).copied().unwrap_or(0);
            self.label_keys.set(key, Some(count + 1));
        }
    }

    fn unindex(&mut self, intent: &Intent) {
        let meta = intent.meta();
        match intent {
            Intent::Gateway(_) => {
                self.gateways.remove(&(), meta);
                self.gateways_named.remove(&named(meta), meta);
            }
            Intent::Routes(routes) => {
                mesh_hosts(routes).iter().for_each(|host| self.mesh_routes.remove(host, meta));
                attached_gateways(routes).iter().for_each(|gateway| self.gateway_routes.remove(gateway, meta));
                self.routes_named.remove(&named(meta), meta);
            }
            Intent::Destination(destination) => self.destinations.remove(&destination.host, meta),
            Intent::PeerAuthentication(_) => self.peer_authentications.remove(&meta.namespace, meta),
            Intent::Sidecar(_) => self.sidecars.remove(&meta.namespace, meta),
            Intent::Mesh(_) => self.mesh.remove(&(), meta),
            Intent::Secret(_) => self.secrets.remove(&named(meta), meta),
            Intent::Grant(_) => self.grants.remove(&meta.namespace, meta),
        }
        for key in label_keys(intent) {
            let count = self.label_keys.row(&key).copied().unwrap_or(0);
            self.label_keys.set(key, count.checked_sub(1).filter(|left| *left > 0));
        }
    }

    /// All objects that are intents.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.intents.rows().keys()
    }

    /// Everything that changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Dep> {
        let mut deps = BTreeSet::new();
        let services = self.services.take_changed();
        deps.extend((!services.is_empty()).then_some(Dep::Services));
        deps.extend(services.into_iter().map(Dep::Service));
        deps.extend(self.hosts.take_changed().into_iter().map(Dep::Host));
        deps.extend(self.endpoints.take_changed().into_iter().map(Dep::Endpoints));
        deps.extend(self.identities.take_changed().into_iter().map(Dep::Identities));
        deps.extend(self.served.take_changed().into_iter().map(|(cluster, address)| Dep::Served(cluster, address)));
        deps.extend(self.network_gateways.take_changed().into_iter().map(|()| Dep::NetworkGateways));
        deps.extend(self.bundles.take_changed().into_iter().map(|()| Dep::Bundles));
        deps.extend(self.remote_subsets.take_changed().into_iter().map(Dep::RemoteSubsets));
        deps.extend(self.intents.take_changed().into_iter().map(Dep::Intent));
        self.take_changed_lists(&mut deps);
        let proxies = self.proxies.take_changed();
        deps.extend((!proxies.is_empty()).then_some(Dep::Proxies));
        deps.extend(proxies.into_iter().map(Dep::Proxy));
        deps.extend(self.audience_of.take_changed().into_iter().map(Dep::AudienceOf));
        deps.extend(self.audiences.take_changed().into_iter().map(Dep::Audience));
        deps.extend(self.scopes.take_changed().into_iter().map(Dep::Scope));
        deps.extend(self.resolved.take_changed().into_iter().map(|(audience, host)| Dep::Resolved(audience, host)));
        deps.extend(self.plans.take_changed().into_iter().map(Dep::Plan));
        deps.extend(self.vhosts.take_changed().into_iter().map(|(audience, key)| Dep::Vhost(audience, key)));
        deps
    }

    fn take_changed_lists(&mut self, deps: &mut BTreeSet<Dep>) {
        deps.extend(self.mesh.take_changed().into_iter().map(|()| Dep::Mesh));
        deps.extend(self.gateways.take_changed().into_iter().map(|()| Dep::Gateways));
        deps.extend(self.gateways_named.take_changed().into_iter().map(Dep::Gateway));
        let mesh_routes = self.mesh_routes.take_changed();
        deps.extend((!mesh_routes.is_empty()).then_some(Dep::MeshRouteHosts));
        deps.extend(mesh_routes.into_iter().map(Dep::MeshRoutes));
        deps.extend(self.gateway_routes.take_changed().into_iter().map(Dep::GatewayRoutes));
        deps.extend(self.routes_named.take_changed().into_iter().map(Dep::RoutesNamed));
        deps.extend(self.destinations.take_changed().into_iter().map(Dep::Destinations));
        deps.extend(self.peer_authentications.take_changed().into_iter().map(Dep::PeerAuthentications));
        deps.extend(self.sidecars.take_changed().into_iter().map(Dep::Sidecars));
        deps.extend(self.secrets.take_changed().into_iter().map(Dep::Secret));
        deps.extend(self.grants.take_changed().into_iter().map(Dep::Grants));
        deps.extend((!self.label_keys.take_changed().is_empty()).then_some(Dep::LabelKeys));
    }
}

fn named(meta: &crate::intent::Meta) -> NamedRef {
    NamedRef { namespace: meta.namespace.clone(), name: meta.name.clone() }
}

fn mesh_hosts(routes: &Routes) -> BTreeSet<Host> {
    if routes.attachments.contains(&Attachment::Mesh) {
        routes.hosts.iter().cloned().collect()
    } else {
        BTreeSet::new()
    }
}

fn attached_gateways(routes: &Routes) -> BTreeSet<NamedRef> {
    let gateway = |attachment: &Attachment| match attachment {
        Attachment::Mesh => None,
        Attachment::Gateway { gateway, .. } => Some(gateway.clone()),
    };
    routes.attachments.iter().filter_map(gateway).collect()
}

/// The label keys by which the intent tells one proxy from another. Proxies that agree in all of these are one class.
fn label_keys(intent: &Intent) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut add = |labels: &Labels| keys.extend(labels.keys().cloned());
    match intent {
        Intent::Gateway(gateway) => add(&gateway.selector),
        Intent::Routes(routes) => {
            routes.http.iter().flat_map(|rule| &rule.matches).for_each(|m| add(&m.source_labels));
            routes.tls.iter().flat_map(|rule| &rule.matches).for_each(|m| add(&m.connection.source_labels));
            routes.tcp.iter().flat_map(|rule| &rule.matches).for_each(|m| add(&m.source_labels));
        }
        Intent::Destination(destination) => {
            destination.workload_selector.iter().for_each(&mut add);
            keys.extend(failover_labels(destination));
        }
        Intent::Sidecar(scope) => scope.selector.iter().for_each(add),
        Intent::Mesh(mesh) => keys.extend(label_names(&mesh.locality.failover_priority)),
        Intent::PeerAuthentication(_) | Intent::Secret(_) | Intent::Grant(_) => {}
    }
    keys
}

fn label_names(priorities: &[String]) -> impl Iterator<Item = String> {
    priorities.iter().map(|label| label.split('=').next().unwrap_or(label).to_owned())
}

fn failover_labels(destination: &Destination) -> Vec<String> {
    let subsets = destination.subsets.iter().map(|subset| &subset.policy);
    let top = std::iter::once(&destination.policy).chain(subsets);
    let policies = top.flat_map(|policy| std::iter::once(policy).chain(policy.ports.values()));
    let locality = policies.filter_map(|policy| policy.load_balancer.as_ref()?.locality.as_ref());
    locality.flat_map(|locality| label_names(&locality.failover_priority).collect::<Vec<_>>()).collect()
}
