//! Workloads and endpoints: running things, and the ways to reach them.

use crate::{ClusterId, Host, Identity, Labels, Locality, Namespace, NetworkId, ObjectRef};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

/// Where a workload is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkloadAddress {
    /// An IP address in the workload's network.
    Ip(IpAddr),
    /// A name that the proxy resolves.
    Dns(Host),
    /// A Unix socket on the proxy's own machine.
    Unix(String),
    /// None of its own: reached through the gateway of its network.
    ByNetwork,
}

impl fmt::Display for WorkloadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Dns(host) => write!(f, "{host}"),
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::ByNetwork => f.write_str("(by network)"),
        }
    }
}

/// Whether something takes traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Takes new requests.
    #[default]
    Healthy,
    /// Finishes what it has.
    Draining,
    /// Takes none.
    Unhealthy,
}

/// What an endpoint can do on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsMode {
    /// Plaintext: no proxy of the mesh in front of it.
    #[default]
    Disabled,
    /// Mutual TLS of the mesh.
    Mutual,
}

/// A running thing with an identity and a place: a pod, a VM, a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Unique in its namespace and shard.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Every address; the first is preferred.
    pub addresses: Vec<WorkloadAddress>,
    /// Ports by name (a Kubernetes container port name, or a key of a registration's port map).
    pub ports: BTreeMap<String, u16>,
    /// Where a port is really served, when that is another number than the one that others know, for example
    /// because a process without privileges cannot bind it.
    pub served_ports: BTreeMap<u16, u16>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// Account, the last part of its identity. Empty means `default`.
    pub service_account: String,
    /// `None` means that of the source.
    pub network: Option<NetworkId>,
    /// `None` means that of the source.
    pub locality: Option<Locality>,
    /// Whether it takes traffic.
    pub health: Health,
    /// What its address can do on the wire.
    pub tls: TlsMode,
    /// Relative share, at least 1.
    pub weight: u32,
    /// Where it comes from.
    pub origin: ObjectRef,
}

/// One workload reached for one service: the merged view's unit. Ports are already resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Workload, unique together with its cluster and namespace.
    pub workload: Arc<str>,
    /// Namespace of the workload.
    pub namespace: Namespace,
    /// Where, in the endpoint's own network.
    pub address: WorkloadAddress,
    /// Port at the address, by service port number.
    pub ports: BTreeMap<u16, u16>,
    /// Labels, for subsets.
    pub labels: Arc<Labels>,
    /// The network in which the address means something.
    pub network: NetworkId,
    /// The owner.
    pub cluster: ClusterId,
    /// The place.
    pub locality: Locality,
    /// The identity that it presents; `None` when unknown.
    pub identity: Option<Identity>,
    /// What the address can do on the wire.
    pub tls: TlsMode,
    /// Relative share, at least 1.
    pub weight: u32,
    /// Whether it takes traffic.
    pub health: Health,
    /// True when the source that reported it has been silent for longer than its lease.
    pub stale: bool,
}

/// An east-west gateway: the way into a network from outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkGateway {
    /// The network behind it.
    pub network: NetworkId,
    /// The cluster that owns it.
    pub cluster: ClusterId,
    /// IP address or DNS name, as other networks reach it.
    pub address: String,
    /// The port that takes mutual TLS and routes by SNI; 15443 by convention.
    pub port: u16,
}
