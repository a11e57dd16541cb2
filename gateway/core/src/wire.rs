//! From Envoy's messages to configuration.
//!
//! Owns every xDS field name of the data plane. What is not supported is refused by name, never ignored: each message is taken
//! apart field by field, so that a field that nobody reads does not compile. Never keeps state. Used by `assemble`'s callers.
#![expect(deprecated, reason = "control planes send Envoy's older fields too")]

mod action;
mod address;
mod any;
mod body;
mod cluster;
mod dns;
mod extension;
mod filter;
mod format;
mod header;
mod health;
mod http;
mod lb;
mod limit;
mod listener;
mod load;
mod local_reply;
mod log;
mod matcher;
mod metadata;
mod mutation;
mod network;
mod protocol;
mod rbac;
mod refusal;
mod renew;
mod retry;
mod route;
mod scope;
mod share;
mod split;
mod tls;
mod told;
mod tracing;
mod types;

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upstream_tests;

pub use refusal::Refusal;
pub use renew::Earlier;
pub use share::Sharing;
pub use types::{Kind, SUPPORTED, Support};

use crate::config::{
    Cluster, ClusterLoad, Extension, Listener, RouteTable, Scope, Secret, Value, VirtualHost as VirtualHostConfig,
};
use any::{At as _, Decoded};
use std::sync::Arc;
pub(crate) use told::value_of;
use tombolo_controlplane_api::xds::envoy::{
    config::{
        cluster::v3::Cluster as ClusterMessage,
        core::v3::TypedExtensionConfig,
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::Listener as ListenerMessage,
        route::v3::{RouteConfiguration, ScopedRouteConfiguration, VirtualHost},
    },
    extensions::transport_sockets::tls::v3::Secret as SecretMessage,
    service::runtime::v3::Runtime as RuntimeMessage,
};

/// Larger resources are refused.
pub const LARGEST: usize = 64 << 20;

/// Decodes the bytes of a resource (the value of its `Any`). `name` is what the resource is called in the response; in
/// state-of-the-world responses, where it has no name, pass an empty one.
///
/// # Errors
/// The refusal to answer with.
pub fn decode(kind: Kind, name: &str, body: &[u8]) -> Result<Resource, Refusal> {
    decode_after(kind, name, body, None)
}

/// As [`decode`], with the version of a route table that is in use: what did not change is not decoded again.
///
/// # Errors
/// The refusal to answer with.
pub fn decode_after(kind: Kind, name: &str, body: &[u8], earlier: Option<&Earlier<'_>>) -> Result<Resource, Refusal> {
    if body.len() > LARGEST {
        return Err(Refusal::new("", format!("larger than {LARGEST} bytes")).of(name));
    }
    if name.starts_with("xdstp:") {
        return Err(Refusal::unsupported("name: xdstp").of(name));
    }
    let renewed = earlier.filter(|_| kind == Kind::Routes).and_then(|earlier| renew::renewed(body, earlier));
    let resource = match renewed {
        Some(table) => Ok(Resource::Routes(Arc::new(table))),
        None => decode_as(kind, name, body),
    };
    match resource {
        Ok(resource) if !name.is_empty() && **resource.name() != *name => {
            Err(Refusal::new("name", format!("{:?} in a resource of another name", resource.name())).of(name))
        }
        Ok(resource) => Ok(resource),
        Err(refusal) if name.is_empty() => Err(refusal.of(&any_name(kind, body))),
        Err(refusal) => Err(refusal.of(name)),
    }
}

fn decode_as(kind: Kind, name: &str, body: &[u8]) -> Decoded<Resource> {
    Ok(match kind {
        Kind::Cluster => Resource::Cluster(Arc::new(cluster::cluster(any::decode::<ClusterMessage>(body)?)?)),
        Kind::Load => {
            let load = load::assignment(any::decode::<ClusterLoadAssignment>(body)?)?;
            load::only_addresses(&load)?;
            Resource::Load(Arc::new(load))
        }
        Kind::Listener => Resource::Listener(Arc::new(listener::listener(any::decode::<ListenerMessage>(body)?)?)),
        Kind::Routes => Resource::Routes(Arc::new(route::encoded(body, route::Comes::Alone)?)),
        Kind::Secret => {
            let (name, secret) = tls::secret(any::decode::<SecretMessage>(body)?)?;
            Resource::Secret(name, Arc::new(secret))
        }
        Kind::Scope => Resource::Scope(Arc::new(scope::scope(any::decode::<ScopedRouteConfiguration>(body)?)?)),
        Kind::Host => Resource::Host(Arc::new(host(name, any::decode::<VirtualHost>(body)?)?)),
        Kind::Extension => {
            let (name, extension) = extension::resource(any::decode::<TypedExtensionConfig>(body)?)?;
            Resource::Extension(name, Arc::new(extension))
        }
        Kind::Runtime => {
            let RuntimeMessage { name, layer } = any::decode::<RuntimeMessage>(body)?;
            let layer = any::structure(&layer.unwrap_or_default(), 0).at("layer")?;
            Resource::Runtime(name.into(), Arc::new(layer))
        }
    })
}

/// Free-form values of a structure.
///
/// # Errors
/// When it is nested too deep.
pub fn structure(values: &tombolo_controlplane_api::xds::google::protobuf::Struct) -> Result<Value, String> {
    any::structure(values, 0)
}

/// A virtual host of its own. Its table is told by the name of the resource, `TABLE/HOST`.
fn host(name: &str, message: VirtualHost) -> Decoded<DynamicHost> {
    let (table, _) = name.split_once('/').ok_or_else(|| Refusal::new("name", "not TABLE/HOST"))?;
    let domains = any::texts(&message.domains);
    let host = route::virtual_host(message, route::LARGEST_BODY)?;
    Ok(DynamicHost { name: name.into(), table: table.into(), domains, host: Arc::new(host) })
}

/// The name of a resource that is refused, as far as it can be read.
fn any_name(kind: Kind, body: &[u8]) -> String {
    match kind {
        Kind::Cluster => any::decode::<ClusterMessage>(body).map(|m| m.name),
        Kind::Load => any::decode::<ClusterLoadAssignment>(body).map(|m| m.cluster_name),
        Kind::Listener => any::decode::<ListenerMessage>(body).map(|m| m.name),
        Kind::Routes => any::decode::<RouteConfiguration>(body).map(|m| m.name),
        Kind::Secret => any::decode::<SecretMessage>(body).map(|m| m.name),
        Kind::Scope => any::decode::<ScopedRouteConfiguration>(body).map(|m| m.name),
        Kind::Host => any::decode::<VirtualHost>(body).map(|m| m.name),
        Kind::Extension => any::decode::<TypedExtensionConfig>(body).map(|m| m.name),
        Kind::Runtime => any::decode::<RuntimeMessage>(body).map(|m| m.name),
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
    /// A scope of routes.
    Scope(Arc<Scope>),
    /// A virtual host of its own.
    Host(Arc<DynamicHost>),
    /// A filter's configuration and its name.
    Extension(Arc<str>, Arc<Extension>),
    /// A layer of runtime values and its name.
    Runtime(Arc<str>, Arc<Value>),
}

/// A virtual host that comes as a resource of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct DynamicHost {
    /// Of the resource.
    pub name: Arc<str>,
    /// The route table that it belongs to.
    pub table: Arc<str>,
    /// What it serves.
    pub domains: Box<[Arc<str>]>,
    /// The host.
    pub host: Arc<VirtualHostConfig>,
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
            Self::Scope(_) => Kind::Scope,
            Self::Host(_) => Kind::Host,
            Self::Extension(..) => Kind::Extension,
            Self::Runtime(..) => Kind::Runtime,
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
            Self::Secret(name, _) | Self::Extension(name, _) | Self::Runtime(name, _) => name,
            Self::Scope(scope) => &scope.name,
            Self::Host(host) => &host.name,
        }
    }
}
