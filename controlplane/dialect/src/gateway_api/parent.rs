//! Owns `parentRefs`: at which gateways and for which services a route is in force.

use super::gateway_name;
use crate::{
    code,
    fields::{At, Fields},
    object::{Head, service_host},
};
use tombolo_controlplane_core::intent::{Attachment, NamedRef};
use tombolo_federation_model::{Host, Namespace, Visibility};

/// Where a route is in force, apart for gateways and for each service.
#[derive(Default)]
pub(crate) struct Parents {
    pub(crate) gateways: Vec<Attachment>,
    pub(crate) services: Vec<ServiceParent>,
}

/// A service whose clients follow the route.
pub(crate) struct ServiceParent {
    pub(crate) host: Host,
    /// Ports of the service; empty means all.
    pub(crate) ports: Vec<u16>,
    pub(crate) visibility: Visibility,
}

pub(crate) fn read(spec: &Fields<'_>, head: &Head) -> Parents {
    let mut parents = Parents::default();
    spec.skip(&["useDefaultGateways"]);
    for at in spec.need("parentRefs").iter().flat_map(At::list) {
        parent(&at, head, &mut parents);
    }
    parents
}

fn parent(at: &At<'_>, head: &Head, parents: &mut Parents) -> Option<()> {
    let fields = at.fields();
    fields.skip(&["group"]);
    let namespace = fields.namespace("namespace").unwrap_or_else(|| head.namespace.clone());
    let (section, port) = (fields.string("sectionName"), fields.port("port"));
    let kinds = [("Gateway", true), ("Service", false), ("ServiceImport", false)];
    let gateway = fields.at("kind").map_or(Some(true), |at| at.choose(&kinds))?;
    let imported = at.node.get("kind").and_then(|kind| kind.text()) == Some("ServiceImport");
    let name = fields.need("name")?;
    if gateway {
        let gateway = NamedRef { namespace, name: gateway_name(&name.string()?) };
        parents.gateways.push(Attachment::Gateway { gateway, section, port });
        return Some(());
    }
    let host = name.parse(|text| parent_host(text, &namespace, imported, at))?;
    match parents.services.iter_mut().find(|known| known.host == host) {
        // One reference without a port covers all.
        Some(known) if known.ports.is_empty() => {}
        Some(known) => match port {
            Some(port) => known.ports.push(port),
            None => known.ports.clear(),
        },
        None => {
            // A route beside its service is for all clients; elsewhere it is for the clients of its own namespace.
            let producer = namespace == head.namespace;
            let visibility = if producer { Visibility::All } else { Visibility::Only(vec![head.namespace.clone()]) };
            parents.services.push(ServiceParent { host, ports: port.into_iter().collect(), visibility });
        }
    }
    Some(())
}

/// The host of a service, or of its import from all clusters.
pub(crate) fn parent_host(
    name: &str,
    namespace: &Namespace,
    imported: bool,
    at: &At<'_>,
) -> Result<Host, tombolo_federation_model::NotAName> {
    if imported {
        return Host::parse(&format!("{name}.{namespace}.svc.clusterset.local"));
    }
    service_host(name, namespace.as_str(), at.sink.ctx)
}

/// A route that is in force nowhere does nothing.
pub(crate) fn check(parents: &Parents, object: &Fields<'_>) {
    if parents.gateways.is_empty() && parents.services.is_empty() && !object.at.sink.refused() {
        object.at.warn(code::SUSPICIOUS, "it has no parentRefs, so it is in force nowhere");
    }
}
