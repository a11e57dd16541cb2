//! The merged view: what the rest of the control plane reads. Never holds anything that cannot be derived again.

use std::{net::IpAddr, sync::Arc};
use tombolo_federation_model::{
    ClusterId, Endpoint, Host, Labels, ObjectRef, Resolution, Scope, ServiceKey, ServicePort, Visibility,
};

/// One service of the mesh, whatever number of clusters define it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedService {
    /// Namespace and host.
    pub key: ServiceKey,
    /// Name of the definition that decides.
    pub name: String,
    /// All ports of all definitions by number; the deciding definition's where two differ.
    pub ports: Vec<ServicePort>,
    /// Labels of the deciding definition.
    pub labels: Labels,
    /// Virtual addresses in the deciding definition's cluster; empty for a service that is only imported.
    pub addresses: Vec<IpAddr>,
    /// How addresses are found.
    pub resolution: Resolution,
    /// Inside or outside of the mesh.
    pub scope: Scope,
    /// True when clients get the workloads' addresses instead of a virtual one.
    pub headless: bool,
    /// Who may use it.
    pub visibility: Visibility,
    /// Identities or DNS names that endpoints may present besides their own.
    pub subject_alt_names: Vec<String>,
    /// Unix seconds of the deciding definition.
    pub created: i64,
    /// The deciding definition.
    pub origin: ObjectRef,
    /// The clusters that define it, in order.
    pub clusters: Vec<ClusterId>,
    /// Where it is reached, in order of cluster, namespace and workload.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// True when this site shows it to peers.
    pub exported: bool,
    /// True when a cluster exports it by a declaration: it then also answers to a name in `clusterset.local`.
    pub clusterset: bool,
    /// True when no cluster of this site defines it.
    pub imported: bool,
    /// True when it is an alias of this host.
    pub alias_of: Option<Host>,
}

/// Sums over the merged view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Services.
    pub services: usize,
    /// Endpoints of all services.
    pub endpoints: usize,
    /// Those whose source is silent for longer than its lease.
    pub stale_endpoints: usize,
    /// Services that are shown to peers.
    pub exported: usize,
    /// Services that no cluster of this site defines.
    pub imported: usize,
    /// Services and gateways that changed since the start.
    pub revision: u64,
}
