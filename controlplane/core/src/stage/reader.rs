//! The only way to read the world. Every question is written down, whether it has an answer or not: a service that
//! appears later must rerun whoever asked for it in vain.

use super::{AudienceId, Bundles, ProxyId, ServedHere, ServiceHead, VhostKey, World};
use crate::{
    bind::{Audience, GatewayPlan, Scope},
    intent::{
        Destination, Gateway, Grant, Intent, MeshSettings, NamedRef, PeerAuthentication, Routes, SidecarScope,
        TlsSecret,
    },
    proxy::Proxy,
    settings::SiteSettings,
    translate::Vhost,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{
    ClusterId, Endpoint, Host, Identity, Labels, Namespace, NetworkGateway, NetworkId, ObjectRef, ServiceKey,
    WorkloadAddress,
};

/// One question that an output asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // each is documented at the method of `Reader` of the same name
pub enum Dep {
    Service(ServiceKey),
    Services,
    Host(Host),
    Endpoints(ServiceKey),
    Identities(ServiceKey),
    Served(ClusterId, WorkloadAddress),
    NetworkGateways,
    Bundles,
    RemoteSubsets(Host),
    Intent(ObjectRef),
    Mesh,
    Gateways,
    Gateway(NamedRef),
    MeshRoutes(Host),
    MeshRouteHosts,
    GatewayRoutes(NamedRef),
    RoutesNamed(NamedRef),
    Destinations(Host),
    PeerAuthentications(Namespace),
    Sidecars(Namespace),
    Secret(NamedRef),
    Grants(Namespace),
    LabelKeys,
    Proxy(ProxyId),
    Proxies,
    AudienceOf(ProxyId),
    Audience(AudienceId),
    Scope(AudienceId),
    Resolved(AudienceId, Host),
    Plan(AudienceId),
    Vhost(AudienceId, VhostKey),
}

/// Reads on behalf of one output.
#[derive(Debug)]
pub struct Reader<'w> {
    world: &'w World,
    reads: RefCell<BTreeSet<Dep>>,
}

impl<'w> Reader<'w> {
    /// A reader that has read nothing yet.
    #[must_use]
    pub fn new(world: &'w World) -> Self {
        Self { world, reads: RefCell::default() }
    }

    /// Everything that was asked.
    #[must_use]
    pub fn into_reads(self) -> BTreeSet<Dep> {
        self.reads.into_inner()
    }

    fn note(&self, dep: Dep) {
        self.reads.borrow_mut().insert(dep);
    }

    /// The site's settings; they never change, so nothing is recorded.
    #[must_use]
    pub fn site(&self) -> &'w SiteSettings {
        &self.world.site
    }

    /// A service without its endpoints.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&'w Arc<ServiceHead>> {
        self.note(Dep::Service(key.clone()));
        self.world.services.row(key)
    }

    /// All services without their endpoints.
    #[must_use]
    pub fn services(&self) -> &'w BTreeMap<ServiceKey, Arc<ServiceHead>> {
        self.note(Dep::Services);
        self.world.services.rows()
    }

    /// The services with exactly this host.
    pub fn services_at(&self, host: &Host) -> impl Iterator<Item = &'w ServiceKey> + use<'w> {
        self.note(Dep::Host(host.clone()));
        self.world.hosts.row(host).into_iter().flatten()
    }

    /// The endpoints of a service.
    #[must_use]
    pub fn endpoints(&self, key: &ServiceKey) -> &'w [Arc<Endpoint>] {
        self.note(Dep::Endpoints(key.clone()));
        self.world.endpoints.row(key).map_or(&[], |list| list.as_slice())
    }

    /// The identities of the endpoints of a service that can do mutual TLS.
    #[must_use]
    pub fn identities(&self, key: &ServiceKey) -> Option<&'w Arc<BTreeSet<Identity>>> {
        self.note(Dep::Identities(key.clone()));
        self.world.identities.row(key)
    }

    /// Services that are served at a workload's address.
    #[must_use]
    pub fn served(&self, cluster: &ClusterId, address: &WorkloadAddress) -> Option<&'w ServedHere> {
        let at = (cluster.clone(), address.clone());
        self.note(Dep::Served(at.0.clone(), at.1.clone()));
        self.world.served.row(&at)
    }

    /// The east-west gateways of a network.
    #[must_use]
    pub fn network_gateways(&self, network: &NetworkId) -> &'w [NetworkGateway] {
        self.note(Dep::NetworkGateways);
        self.world.network_gateways.row(&()).and_then(|all| all.get(network)).map_or(&[], Vec::as_slice)
    }

    /// The trust bundles.
    #[must_use]
    pub fn bundles(&self) -> Option<&'w Arc<Bundles>> {
        self.note(Dep::Bundles);
        self.world.bundles.row(&())
    }

    /// The subsets by which peers ask for the services with this host.
    pub fn remote_subsets(&self, host: &Host) -> impl Iterator<Item = (&'w String, &'w Labels)> + use<'w> {
        self.note(Dep::RemoteSubsets(host.clone()));
        self.world.remote_subsets.row(host).into_iter().flatten()
    }

    /// An intent by its object.
    #[must_use]
    pub fn intent(&self, object: &ObjectRef) -> Option<&'w Arc<Intent>> {
        self.note(Dep::Intent(object.clone()));
        self.world.intents.row(object)
    }

    /// Settings of the mesh: the oldest that were given, or the defaults.
    #[must_use]
    pub fn mesh(&self) -> &'w MeshSettings {
        self.note(Dep::Mesh);
        self.world.mesh.row(&()).next().unwrap_or(&self.world.default_mesh)
    }

    /// All gateway objects, oldest first.
    pub fn gateways(&self) -> impl Iterator<Item = &'w Arc<Gateway>> + use<'w> {
        self.note(Dep::Gateways);
        self.world.gateways.row(&())
    }

    /// A gateway object by name.
    #[must_use]
    pub fn gateway(&self, name: &NamedRef) -> Option<&'w Arc<Gateway>> {
        self.note(Dep::Gateway(name.clone()));
        self.world.gateways_named.row(name).next()
    }

    /// Routes of the mesh with exactly this host or pattern, oldest first.
    pub fn mesh_routes(&self, host: &Host) -> impl Iterator<Item = &'w Arc<Routes>> + use<'w> {
        self.note(Dep::MeshRoutes(host.clone()));
        self.world.mesh_routes.row(host)
    }

    /// All hosts and patterns of routes of the mesh.
    pub fn mesh_route_hosts(&self) -> impl Iterator<Item = &'w Host> + use<'w> {
        self.note(Dep::MeshRouteHosts);
        self.world.mesh_routes.keys()
    }

    /// Routes attached to a gateway object, oldest first.
    pub fn gateway_routes(&self, gateway: &NamedRef) -> impl Iterator<Item = &'w Arc<Routes>> + use<'w> {
        self.note(Dep::GatewayRoutes(gateway.clone()));
        self.world.gateway_routes.row(gateway)
    }

    /// Routes by name, for delegation.
    #[must_use]
    pub fn routes_named(&self, name: &NamedRef) -> Option<&'w Arc<Routes>> {
        self.note(Dep::RoutesNamed(name.clone()));
        self.world.routes_named.row(name).next()
    }

    /// Destinations with exactly this host or pattern, oldest first.
    pub fn destinations(&self, host: &Host) -> impl Iterator<Item = &'w Arc<Destination>> + use<'w> {
        self.note(Dep::Destinations(host.clone()));
        self.world.destinations.row(host)
    }

    /// Policies of a namespace, oldest first.
    pub fn peer_authentications(
        &self,
        namespace: &Namespace,
    ) -> impl Iterator<Item = &'w Arc<PeerAuthentication>> + use<'w> {
        self.note(Dep::PeerAuthentications(namespace.clone()));
        self.world.peer_authentications.row(namespace)
    }

    /// Sidecar scopes of a namespace, oldest first.
    pub fn sidecars(&self, namespace: &Namespace) -> impl Iterator<Item = &'w Arc<SidecarScope>> + use<'w> {
        self.note(Dep::Sidecars(namespace.clone()));
        self.world.sidecars.row(namespace)
    }

    /// A certificate or roots by name.
    #[must_use]
    pub fn secret(&self, name: &NamedRef) -> Option<&'w Arc<TlsSecret>> {
        self.note(Dep::Secret(name.clone()));
        self.world.secrets.row(name).next()
    }

    /// Permissions to refer to objects of a namespace, oldest first.
    pub fn grants(&self, namespace: &Namespace) -> impl Iterator<Item = &'w Arc<Grant>> + use<'w> {
        self.note(Dep::Grants(namespace.clone()));
        self.world.grants.row(namespace)
    }

    /// Whether any intent tells proxies apart by this label.
    #[must_use]
    pub fn is_label_key(&self, key: &str) -> bool {
        self.note(Dep::LabelKeys);
        self.world.label_keys.row(key).is_some()
    }

    /// An attached proxy.
    #[must_use]
    pub fn proxy(&self, id: ProxyId) -> Option<&'w Arc<Proxy>> {
        self.note(Dep::Proxy(id));
        self.world.proxies.row(&id)
    }

    /// All attached proxies.
    pub fn proxies(&self) -> impl Iterator<Item = &'w Arc<Proxy>> + use<'w> {
        self.note(Dep::Proxies);
        self.world.proxies.rows().values()
    }

    /// The class of a proxy.
    #[must_use]
    pub fn audience_of(&self, id: ProxyId) -> Option<AudienceId> {
        self.note(Dep::AudienceOf(id));
        self.world.audience_of.row(&id).copied()
    }

    /// A class of proxies.
    #[must_use]
    pub fn audience(&self, id: AudienceId) -> Option<&'w Arc<Audience>> {
        self.note(Dep::Audience(id));
        self.world.audiences.row(&id)
    }

    /// What a class of proxies sees.
    #[must_use]
    pub fn scope(&self, id: AudienceId) -> Option<&'w Arc<Scope>> {
        self.note(Dep::Scope(id));
        self.world.scopes.row(&id)
    }

    /// The service that a host means to a class of proxies.
    #[must_use]
    pub fn resolved(&self, id: AudienceId, host: &Host) -> Option<&'w ServiceKey> {
        let key = (id, host.clone());
        self.note(Dep::Resolved(key.0, key.1.clone()));
        self.world.resolved.row(&key)
    }

    /// The bound listeners of a class of gateways.
    #[must_use]
    pub fn plan(&self, id: AudienceId) -> Option<&'w Arc<GatewayPlan>> {
        self.note(Dep::Plan(id));
        self.world.plans.row(&id)
    }

    /// The translated virtual hosts of a service or host.
    #[must_use]
    pub fn vhosts(&self, id: AudienceId, key: &VhostKey) -> Option<&'w Arc<Vec<Vhost>>> {
        let key = (id, key.clone());
        self.note(Dep::Vhost(key.0, key.1.clone()));
        self.world.vhosts.row(&key)
    }
}
