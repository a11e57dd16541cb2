//! From what users mean to Envoy's xDS v3: one function for each kind of output.
//!
//! The only place of the control plane that knows xDS field names. Translation cannot fail, it can complain; a complaint
//! names the object, the field and the reason. Everything is encoded here, once, in an order that depends on nothing but
//! the content, because the version of a resource is the hash of its bytes. Used by the engine.

mod access_log;
mod cluster;
mod cluster_tls;
mod connection;
mod encode;
mod endpoint;
mod fixed;
mod gateway_listener;
mod gateway_routes;
mod hcm;
mod http_options;
mod inbound;
mod locality;
mod names;
mod outbound;
mod pb;
mod policy;
mod route;
mod route_action;
mod route_match;
mod secret;
mod tls;
mod vhost;

pub use cluster::{clusters, service_ports};
pub use endpoint::{assignments, in_subset};
pub use fixed::fixed_clusters;
pub use gateway_listener::gateway_listeners;
pub use gateway_routes::{gateway_routes, route_names};
pub use inbound::{inbound_clusters, inbound_listeners};
pub use outbound::{http_proxy_listener, http_proxy_routes};
pub use secret::{gateway_secrets, roots};
pub use vhost::{Vhost, vhosts};

use std::sync::Arc;
use tombolo_federation_model::Diagnostic;
use tombolo_federation_sync::Resource;

/// Resources, and what is to be said about them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translated<T> {
    /// What could be translated.
    pub value: T,
    /// What could not, or not as its author thinks.
    pub complaints: Vec<Diagnostic>,
}

/// Some resources of one type.
pub type Resources = Translated<Vec<Arc<Resource>>>;

impl<T> Translated<T> {
    /// A translation without complaints.
    pub fn fine(value: T) -> Self {
        Self { value, complaints: Vec::new() }
    }
}

/// The types of Envoy's API under short names. The wire word for an upstream is `cluster`.
mod wire {
    pub(super) use tombolo_controlplane_api::xds::{
        envoy::{
            config::{
                accesslog::v3 as accesslog, cluster::v3 as cluster, core::v3 as core, endpoint::v3 as endpoint,
                listener::v3 as listener, route::v3 as route,
            },
            extensions::{
                clusters::dynamic_forward_proxy::v3 as dfp_cluster,
                common::dynamic_forward_proxy::v3 as dfp,
                filters::{
                    common::fault::v3 as fault_delay,
                    http::{
                        cors::v3 as cors, dynamic_forward_proxy::v3 as dfp_filter, fault::v3 as fault,
                        router::v3 as router,
                    },
                    listener::{http_inspector::v3 as http_inspector, tls_inspector::v3 as tls_inspector},
                    network::{http_connection_manager::v3 as hcm, tcp_proxy::v3 as tcp_proxy},
                },
                retry::{
                    host::previous_hosts::v3 as previous_hosts,
                    priority::previous_priorities::v3 as previous_priorities,
                },
                transport_sockets::{
                    proxy_protocol::v3 as proxy_protocol, raw_buffer::v3 as raw_buffer, tls::v3 as tls,
                },
                upstreams::http::v3 as upstream_http,
            },
            r#type::{matcher::v3 as matcher, v3 as types},
        },
        google::protobuf,
    };
}
