//! Services: names with ports.

use crate::{ClusterId, Health, Host, Labels, Namespace, NetworkId, ObjectRef, Protocol, WorkloadAddress};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// What makes a service one service across clusters: its host name. Sameness of namespace and name is
/// sameness of the host, because a Kubernetes service's host holds both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Namespace of the definition. External services of the same host may exist in several namespaces.
    pub namespace: Namespace,
    /// Host name, or a wildcard for some external services.
    pub host: Host,
}

/// Which port of a workload a service port stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By name of the workload's port.
    Name(String),
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// The number that clients use.
    pub number: u16,
    /// Unique in its service; may be empty when it is the only port.
    pub name: String,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The workload's port.
    pub target: TargetPort,
}

/// How the addresses of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// From workloads and endpoint slices of the registry.
    Registry,
    /// Addresses written in the definition.
    Static,
    /// Names that the proxy resolves; every answer is an endpoint.
    Dns,
    /// Names that the proxy resolves; a new connection goes to the first answer.
    DnsRoundRobin,
    /// Wherever the client was going (the original destination).
    Passthrough,
}

/// Inside or outside of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Part of the mesh: mutual TLS where the endpoint can do it.
    Mesh,
    /// Outside of the mesh: no mutual TLS unless a rule asks for it.
    External,
}

/// Which namespaces see something (`exportTo`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// Every namespace.
    #[default]
    All,
    /// Only these.
    Only(Vec<Namespace>),
    /// Nobody.
    Nobody,
}

impl Visibility {
    /// Whether a client in the namespace sees it.
    #[must_use]
    pub fn includes(&self, namespace: &Namespace) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.contains(namespace),
            Self::Nobody => false,
        }
    }
}

/// A service as one source defines it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its host name. A definition with several hosts yields one service for each.
    pub host: Host,
    /// The namespace of the definition.
    pub namespace: Namespace,
    /// The name of the definition.
    pub name: String,
    /// Unique numbers, in ascending order.
    pub ports: Vec<ServicePort>,
    /// Labels of the service itself.
    pub labels: Labels,
    /// Virtual addresses, without those of other clusters.
    pub addresses: Vec<IpAddr>,
    /// Picks workloads of the same namespace; `None` when endpoints are written out.
    pub selector: Option<Labels>,
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
    /// Unix seconds; the older definition wins a conflict.
    pub created: i64,
    /// Where it comes from.
    pub origin: ObjectRef,
    /// True when it is an ExternalName-like alias of this host.
    pub alias_of: Option<Host>,
    /// True when it is how other networks reach this one. Peers learn its address as that of a gateway; as a service it is
    /// shown to them only when somebody exports it by name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crossing: bool,
}

impl Service {
    /// What makes it the same service elsewhere.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), host: self.host.clone() }
    }
}

/// Endpoints that a source writes out for a service, instead of selecting workloads by label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// The service.
    pub host: Host,
    /// Its namespace.
    pub namespace: Namespace,
    /// Name of the slice, unique in its namespace and shard. `DEFINITION` or `KIND/DEFINITION/…` where a definition of
    /// that name is in the same cluster: the endpoints are that definition's alone, whatever else defines the host.
    pub name: String,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One written-out endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceEndpoint {
    /// Name of the workload when it is known; an unnamed endpoint is named by its address.
    pub workload: Option<String>,
    /// IP address, DNS name or socket path.
    pub address: WorkloadAddress,
    /// Port numbers by name of the service port.
    pub ports: BTreeMap<String, u16>,
    /// Ready to serve.
    pub health: Health,
    /// Labels, when the slice's source knows them.
    pub labels: Arc<Labels>,
    /// `None` means that of the source.
    pub network: Option<NetworkId>,
    /// Owner, `None` means the source's cluster.
    pub cluster: Option<ClusterId>,
    /// Place, when the source knows it.
    pub locality: Option<crate::Locality>,
    /// The SPIFFE id that it presents, when it can do mutual TLS.
    pub identity: Option<crate::Identity>,
    /// Relative share, at least 1.
    pub weight: u32,
}

/// The wish that a service of this cluster be usable from the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Namespace of the service.
    pub namespace: Namespace,
    /// Name of the service.
    pub name: String,
    /// Unix seconds; the older export wins a conflict.
    pub created: i64,
    /// Where it comes from.
    pub origin: ObjectRef,
}
