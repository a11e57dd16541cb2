//! From Envoy's messages to configuration.
//!
//! Owns every xDS field name of the data plane. What is not supported is refused by name, never ignored: each message is taken
//! apart field by field, so that a field that nobody reads does not compile. Never keeps state. Used by `assemble`'s callers.
#![expect(deprecated, reason = "control planes send Envoy's older fields too")]

mod action;
mod address;
mod any;
mod cluster;
mod filter;
mod format;
mod header;
mod health;
mod http;
mod lb;
mod listener;
mod load;
mod local_reply;
mod log;
mod matcher;
mod network;
mod protocol;
mod refusal;
mod retry;
mod route;
mod tls;
mod tracing;
mod types;

#[cfg(test)]
mod tests;

pub use refusal::Refusal;
pub use types::{Kind, SUPPORTED, Support};

use crate::config::{Cluster, ClusterLoad, Listener, RouteTable, Secret};
use any::Decoded;
use std::sync::Arc;
use tombolo_controlplane_api::xds::envoy::{
    config::{
        cluster::v3::Cluster as ClusterMessage, endpoint::v3::ClusterLoadAssignment,
        listener::v3::Listener as ListenerMessage, route::v3::RouteConfiguration,
    },
    extensions::transport_sockets::tls::v3::Secret as SecretMessage,
};

/// Larger resources are refused.
pub const LARGEST: usize = 64 << 20;

/// Decodes the bytes of a resource (the value of its `Any`). `name` is what the resource is called in the response; in
/// state-of-the-world responses, where it has no name, pass an empty one.
///
/// # Errors
/// The refusal to answer with.
pub fn decode(kind: Kind, name: &str, body: &[u8]) -> Result<Resource, Refusal> {
    if body.len() > LARGEST {
        return Err(Refusal::new("", format!("larger than {LARGEST} bytes")).of(name));
    }
    let resource = decode_as(kind, body);
    match resource {
        Ok(resource) if !name.is_empty() && **resource.name() != *name => {
            Err(Refusal::new("name", format!("{:?} in a resource of another name", resource.name())).of(name))
        }
        Ok(resource) => Ok(resource),
        Err(refusal) if name.is_empty() => Err(refusal.of(&any_name(kind, body))),
        Err(refusal) => Err(refusal.of(name)),
    }
}

fn decode_as(kind: Kind, body: &[u8]) -> Decoded<Resource> {
    Ok(match kind {
        Kind::Cluster => Resource::Cluster(Arc::new(cluster::cluster(any::decode::<ClusterMessage>(body)?)?)),
        Kind::Load => Resource::Load(Arc::new(load::assignment(any::decode::<ClusterLoadAssignment>(body)?)?)),
        Kind::Listener => Resource::Listener(Arc::new(listener::listener(any::decode::<ListenerMessage>(body)?)?)),
        Kind::Routes => Resource::Routes(Arc::new(route::table(any::decode::<RouteConfiguration>(body)?)?)),
        Kind::Secret => {
            let (name, secret) = tls::secret(any::decode::<SecretMessage>(body)?)?;
            Resource::Secret(name, Arc::new(secret))
        }
    })
}

/// The name of a resource that is refused, as far as it can be read.
fn any_name(kind: Kind, body: &[u8]) -> String {
    match kind {
        Kind::Cluster => any::decode::<ClusterMessage>(body).map(|m| m.name),
        Kind::Load => any::decode::<ClusterLoadAssignment>(body).map(|m| m.cluster_name),
        Kind::Listener => any::decode::<ListenerMessage>(body).map(|m| m.name),
        Kind::Routes => any::decode::<RouteConfiguration>(body).map(|m| m.name),
        Kind::Secret => any::decode::<SecretMessage>(body).map(|m| m.name),
    }
    .unwrap_or_default()
}

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
