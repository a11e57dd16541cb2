//! From Envoy's messages to configuration.
//!
//! Owns every xDS field name of the data plane. What is not supported is refused by name, never ignored: each message is taken
//! apart field by field, so that a field that nobody reads does not compile. Never keeps state. Used by `assemble`'s callers.

mod any;
mod refusal;
mod types;

pub use refusal::Refusal;
pub use types::{Kind, SUPPORTED, Support};

use crate::config::{Cluster, ClusterLoad, Listener, RouteTable, Secret};
use std::sync::Arc;

/// A decoded resource with its name.
#[derive(Debug, Clone)]
pub enum Resource {
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// The endpoints of a cluster.
    Load(Arc<ClusterLoad>),
    /// A listener.
    Listener(Arc<Listener>),
    /// A route table.
    Routes(Arc<RouteTable>),
    /// A secret and its name.
    Secret(Arc<str>, Arc<Secret>),
}

impl Resource {
    /// Of which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_) => Kind::Cluster,
            Self::Load(_) => Kind::Load,
            Self::Listener(_) => Kind::Listener,
            Self::Routes(_) => Kind::Routes,
            Self::Secret(..) => Kind::Secret,
        }
    }

    /// The name it goes by.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Cluster(cluster) => &cluster.name,
            Self::Load(load) => &load.name,
            Self::Listener(listener) => &listener.name,
            Self::Routes(table) => &table.name,
            Self::Secret(name, _) => name,
        }
    }
}
