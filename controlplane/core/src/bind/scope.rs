//! What a class of proxies sees: which services, and which hosts that only routes name.

use super::{Audience, View, covering};
use crate::{
    intent::{EgressImport, HttpAction, ImportFrom, Routes},
    proxy::Role,
    stage::ServiceHead,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{Host, Namespace, ServiceKey};

/// What a class sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The service that each host means.
    pub services: BTreeMap<Host, ServiceKey>,
    /// Hosts of visible routes of the mesh that are no services; empty at gateways.
    pub route_hosts: BTreeSet<Host>,
}

/// What the class sees.
#[must_use]
pub fn scope(view: View<'_, '_>) -> Scope {
    let destinations = imported_destinations(view);
    let mut services: BTreeMap<Host, &Arc<ServiceHead>> = BTreeMap::new();
    for (key, head) in view.reader.services() {
        let imported = view.audience.imports_host(&key.namespace, &key.host) || destinations.contains(&key.host);
        if !head.visibility.includes(&view.audience.namespace) || !imported {
            continue;
        }
        services
            .entry(key.host.clone())
            .and_modify(|old| {
                if claim(view.audience, head) < claim(view.audience, old) {
                    *old = head;
                }
            })
            .or_insert(head);
    }
    let services: BTreeMap<Host, ServiceKey> =
        services.into_iter().map(|(host, head)| (host, head.key.clone())).collect();
    let is_new = |host: &&Host| !services.contains_key(*host);
    let route_hosts = match view.audience.role {
        Role::Router => BTreeSet::new(),
        Role::Sidecar => visible_route_hosts(view).filter(is_new).cloned().collect(),
    };
    Scope { services, route_hosts }
}

/// Who means the host when several namespaces define it: the client's own, then the namespace that the host itself names
/// (nobody can take another namespace's service name away from third parties), then the oldest.
fn claim<'s>(audience: &Audience, head: &'s ServiceHead) -> (bool, bool, i64, &'s ServiceKey) {
    let home = head.key.host.as_str().split('.').nth(1) == Some(head.key.namespace.as_str());
    (head.key.namespace != audience.namespace, !home, head.created, &head.key)
}

fn visible_route_hosts<'w>(view: View<'_, 'w>) -> impl Iterator<Item = &'w Host> {
    view.reader
        .mesh_route_hosts()
        .filter(move |host| view.reader.mesh_routes(host).any(|routes| view.audience.sees_routes(routes)))
}

/// Importing routes imports the services that they lead to.
fn imported_destinations(view: View<'_, '_>) -> BTreeSet<Host> {
    if view.audience.imports.is_none() {
        return BTreeSet::new();
    }
    let mut hosts = BTreeSet::new();
    for host in view.reader.mesh_route_hosts() {
        for routes in view.reader.mesh_routes(host).filter(|routes| view.audience.sees_routes(routes)) {
            hosts.extend(destination_hosts(routes).cloned());
        }
    }
    hosts
}

fn destination_hosts(routes: &Routes) -> impl Iterator<Item = &Host> {
    let http = routes.http.iter().flat_map(|rule| {
        let backends = match &rule.action {
            HttpAction::Forward { backends, .. } => backends.as_slice(),
            HttpAction::Redirect(_) | HttpAction::Respond { .. } => &[],
        };
        backends.iter().map(|b| &b.destination.host).chain(rule.mirrors.iter().map(|m| &m.destination.host))
    });
    let tls = routes.tls.iter().flat_map(|rule| &rule.backends);
    let tcp = routes.tcp.iter().flat_map(|rule| &rule.backends);
    http.chain(tls.chain(tcp).map(|b| &b.destination.host))
}

impl Audience {
    /// Whether the sidecar scope imports a host of a namespace.
    #[must_use]
    pub fn imports_host(&self, namespace: &Namespace, host: &Host) -> bool {
        self.imports.as_ref().is_none_or(|list| {
            list.iter().any(|import| self.names_origin(import, namespace) && import.host.covers(host))
        })
    }

    /// Whether routes of the mesh are in force for the class: exported to it, and imported by it.
    #[must_use]
    pub fn sees_routes(&self, routes: &Routes) -> bool {
        let imported = || {
            self.imports.as_ref().is_none_or(|list| {
                let fits = |import: &EgressImport| routes.hosts.iter().any(|host| import.host.overlaps(host));
                list.iter().any(|import| self.names_origin(import, &routes.meta.namespace) && fits(import))
            })
        };
        routes.export_to.includes(&self.namespace) && imported()
    }

    fn names_origin(&self, import: &EgressImport, namespace: &Namespace) -> bool {
        match &import.namespace {
            ImportFrom::Any => true,
            ImportFrom::Own => *namespace == self.namespace,
            ImportFrom::Namespace(wanted) => wanted == namespace,
            ImportFrom::Nothing => false,
        }
    }
}

impl<'w> View<'_, 'w> {
    /// The service that a host means to the class. A name under `clusterset.local` means the exported service of the
    /// same name; a host without a service of its own may fall under a wildcard service.
    #[must_use]
    pub fn service(&self, host: &Host) -> Option<&'w Arc<ServiceHead>> {
        let local = self.clusterset_alias(host);
        let host = local.as_ref().unwrap_or(host);
        let key = covering(host).find_map(|pattern| self.reader.resolved(self.id, &pattern))?;
        let head = self.reader.service(key)?;
        (local.is_none() || head.clusterset).then_some(head)
    }

    fn clusterset_alias(&self, host: &Host) -> Option<Host> {
        let name = host.as_str().strip_suffix(".svc.clusterset.local")?;
        Host::parse(&format!("{name}.svc.{}", self.reader.site().domain_suffix)).ok()
    }
}
