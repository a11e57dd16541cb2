//! Whether a workload takes plaintext on a port.

use super::selects;
use crate::{
    intent::{MutualTls, PeerAuthentication},
    stage::Reader,
};
use tombolo_federation_model::{Labels, Namespace};

/// The mode for a workload's port: that of the oldest policy which selects the workload (its entry for the port first),
/// else that of its namespace, else that of the mesh, else both. A policy with a selector in the root namespace is a policy of that
/// namespace like any other.
#[must_use]
pub fn mutual_tls(reader: &Reader<'_>, namespace: &Namespace, labels: &Labels, port: u16) -> MutualTls {
    let root = &reader.mesh().root_namespace;
    let selecting = |p: &&std::sync::Arc<PeerAuthentication>| {
        p.selector.as_ref().is_some_and(|s| !s.is_empty() && selects(s, labels))
    };
    let own = reader.peer_authentications(namespace).find(selecting);
    let by_port = own.and_then(|policy| policy.ports.get(&port).copied().flatten());
    let by_workload = || own.and_then(|policy| policy.mode);
    let by_namespace = || whole(reader, namespace);
    let by_mesh = || whole(reader, root);
    by_port.or_else(by_workload).or_else(by_namespace).or_else(by_mesh).unwrap_or(MutualTls::Permissive)
}

/// The mode of the oldest policy for a whole namespace.
fn whole(reader: &Reader<'_>, namespace: &Namespace) -> Option<MutualTls> {
    reader
        .peer_authentications(namespace)
        .find(|p| p.selector.as_ref().is_none_or(Labels::is_empty))
        .and_then(|p| p.mode)
}
