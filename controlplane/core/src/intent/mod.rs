//! What users mean, parsed and checked, independent of the API in which they wrote it.
//!
//! A dialect yields these; `bind` and `translate` read them. Everything that can be refused by looking at one object
//! alone has been refused before an intent exists: durations are durations, expressions compile, weights are not all zero.

mod destination;
mod gateway;
mod grant;
mod mesh;
mod route;
mod security;

pub use destination::*;
pub use gateway::*;
pub use grant::*;
pub use mesh::*;
pub use route::*;
pub use security::*;

use serde::{Deserialize, Serialize};
use tombolo_federation_model::{Labels, Namespace, ObjectRef, Visibility};

/// What every intent has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The object.
    pub object: ObjectRef,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// Unix seconds; lists are merged oldest first, then by name, namespace and cluster.
    pub created: i64,
    /// Generation that the source reported; 0 when the source has none.
    pub generation: i64,
}

impl Meta {
    /// The order in which intents are merged: oldest first, then by name, namespace and cluster, because creation times
    /// have a resolution of one second and come from different clocks.
    #[must_use]
    pub fn merge_order(&self) -> (i64, &str, &str, &str) {
        (self.created, &self.name, self.namespace.as_str(), &self.object.cluster)
    }
}

/// One object's meaning. A closed list: adding a kind makes the compiler name the places.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // held behind an `Arc` wherever it is kept
pub enum Intent {
    /// Listeners of gateways.
    Gateway(Gateway),
    /// Routes for hosts.
    Routes(Routes),
    /// How clients treat a service.
    Destination(Destination),
    /// Whether servers take plaintext.
    PeerAuthentication(PeerAuthentication),
    /// What a group of sidecars imports and how it treats unknown hosts.
    Sidecar(SidecarScope),
    /// Settings of the whole mesh.
    Mesh(Box<MeshSettings>),
    /// A certificate with its key, or roots, by name.
    Secret(TlsSecret),
    /// Permission to refer to objects of a namespace.
    Grant(Grant),
}

impl Intent {
    /// What every intent has. Mesh settings and secrets have it too.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Gateway(i) => &i.meta,
            Self::Routes(i) => &i.meta,
            Self::Destination(i) => &i.meta,
            Self::PeerAuthentication(i) => &i.meta,
            Self::Sidecar(i) => &i.meta,
            Self::Mesh(i) => &i.meta,
            Self::Secret(i) => &i.meta,
            Self::Grant(i) => &i.meta,
        }
    }
}

/// Picks workloads by label; empty picks every workload in scope.
pub type Selector = Labels;

/// A reference `[namespace/]name`; no namespace means that of the referrer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedRef {
    /// The namespace, always filled in.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
}

/// A secret as a listener names it. Whose it is depends on the workload that listens, which the object does not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Credential {
    /// The namespace when it was written; else that of the gateway's workload.
    pub namespace: Option<Namespace>,
    /// The name.
    pub name: String,
}

impl Credential {
    /// The secret that it is for a workload of a namespace.
    #[must_use]
    pub fn at(&self, workload: &Namespace) -> NamedRef {
        NamedRef { namespace: self.namespace.as_ref().unwrap_or(workload).clone(), name: self.name.clone() }
    }
}

/// Who may use an intent.
pub type ExportTo = Visibility;
