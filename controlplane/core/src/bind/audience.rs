//! Which proxies are alike: everything that resources other than listeners may depend on.

use super::selects;
use crate::{
    intent::{EgressImport, OutboundPolicy, SidecarScope},
    proxy::{Proxy, Role},
    stage::{ProxyId, Reader},
};
use std::sync::Arc;
use tombolo_federation_model::{ClusterId, Labels, Locality, Namespace, NetworkId};

/// What the members of a class have in common. Labels that no intent asks for are left out, so that replicas of one
/// deployment, and often all deployments of a namespace, are one class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience {
    /// Sidecar or gateway.
    pub role: Role,
    /// Namespace of the workloads.
    pub namespace: Namespace,
    /// Their cluster.
    pub cluster: ClusterId,
    /// Their network.
    pub network: NetworkId,
    /// Their place.
    pub locality: Locality,
    /// Their labels, as far as any intent tells proxies apart by them.
    pub labels: Labels,
    /// What their sidecar scope imports; `None` means everything.
    pub imports: Option<Vec<EgressImport>>,
    /// What they do with unknown hosts.
    pub outbound: OutboundPolicy,
}

/// The class of a proxy.
#[must_use]
pub fn audience(reader: &Reader<'_>, id: ProxyId) -> Option<Audience> {
    let proxy = reader.proxy(id)?;
    let site = reader.site();
    let scope = sidecar_scope(reader, proxy);
    let labels = proxy.labels.iter().filter(|(key, _)| reader.is_label_key(key));
    Some(Audience {
        role: proxy.role,
        namespace: proxy.namespace.clone(),
        cluster: proxy.cluster.clone().unwrap_or_else(|| site.cluster.clone()),
        network: proxy.network.clone().unwrap_or_else(|| site.network.clone()),
        locality: proxy.locality.clone().unwrap_or_else(|| site.locality.clone()),
        labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
        imports: scope.and_then(|scope| scope.egress.clone()),
        outbound: scope.and_then(|scope| scope.outbound).unwrap_or(reader.mesh().outbound),
    })
}

/// The scope in force: one that selects the workload, else that of the namespace, else that of the root namespace;
/// the oldest of each. Scopes never apply to gateways.
fn sidecar_scope<'w>(reader: &Reader<'w>, proxy: &Proxy) -> Option<&'w Arc<SidecarScope>> {
    if proxy.role == Role::Router {
        return None;
    }
    let selected =
        reader.sidecars(&proxy.namespace).find(|s| s.selector.as_ref().is_some_and(|sel| selects(sel, &proxy.labels)));
    let of_namespace = |namespace| reader.sidecars(namespace).find(|s| s.selector.is_none());
    selected.or_else(|| of_namespace(&proxy.namespace)).or_else(|| of_namespace(&reader.mesh().root_namespace))
}
