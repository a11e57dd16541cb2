//! What a sidecar without capture takes for its application: a listener and an upstream for each port.

use super::{
    Resources, Translated, cluster, connection, encode, hcm,
    hcm::{Manager, RouteSource},
    http_options, names,
    pb::{address, any, boolean, duration, uint},
    route::MAX_BODY,
    route_match, tls,
    wire::{
        cluster as wire_cluster, core, endpoint, hcm as wire_hcm, http_inspector, listener, protobuf, route,
        tls_inspector,
    },
};
use crate::{
    bind::{View, mutual_tls},
    intent::{MeshSettings, MutualTls},
    proxy::Proxy,
    stage::ServiceHead,
};
use prost::Message;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tombolo_federation_model::{Protocol, WorkloadAddress};
use tombolo_federation_sync::Resource;

/// One port of the application.
struct Port<'a> {
    /// The workload's port, by which policies and names refer to it.
    number: u16,
    listens: SocketAddr,
    serves: SocketAddr,
    protocol: Protocol,
    /// The service that telemetry names for the port: the oldest.
    service: Option<&'a ServiceHead>,
    mode: MutualTls,
    mesh: &'a MeshSettings,
}

/// The listeners of a sidecar.
#[must_use]
pub fn inbound_listeners(view: View<'_, '_>, proxy: &Proxy) -> Vec<Arc<Resource>> {
    ports(view, proxy).map(|port| port.listener()).collect()
}

/// The upstreams of a sidecar's own application.
#[must_use]
pub fn inbound_clusters(view: View<'_, '_>, proxy: &Proxy) -> Resources {
    Translated::fine(ports(view, proxy).map(|port| port.cluster()).collect())
}

fn ports<'a>(view: View<'_, 'a>, proxy: &'a Proxy) -> impl Iterator<Item = Port<'a>> {
    let mesh = view.reader.mesh();
    proxy.inbound.iter().map(move |(number, (listens, serves))| {
        let said = said_of(view, proxy, *number, *listens);
        Port {
            number: *number,
            listens: *listens,
            serves: *serves,
            // The oldest definition that says anything decides.
            protocol: said.iter().map(|(_, protocol)| *protocol).find(|p| *p != Protocol::Detect).unwrap_or_default(),
            service: said.first().map(|(service, _)| *service),
            mode: mutual_tls(view.reader, &proxy.namespace, &proxy.labels, *number),
            mesh,
        }
    })
}

/// What the services that this workload serves say about the port, oldest first.
fn said_of<'a>(
    view: View<'_, 'a>,
    proxy: &Proxy,
    number: u16,
    listens: SocketAddr,
) -> Vec<(&'a ServiceHead, Protocol)> {
    let at = [proxy.address, listens.ip()].map(WorkloadAddress::Ip);
    let served = at.iter().filter_map(|address| view.reader.served(&view.audience.cluster, address)).flatten();
    let mut said = Vec::new();
    for (key, ports) in served {
        let Some(service) = view.reader.service(key) else { continue };
        for port in &service.ports {
            // The port at the address is the one that is really bound, which may be another than the declared one.
            let here = ports.get(&port.number).is_some_and(|at| *at == listens.port() || *at == number);
            if here {
                said.push((&**service, port.protocol));
            }
        }
    }
    said.sort_by(|(a, _), (b, _)| (a.created, &a.key).cmp(&(b.created, &b.key)));
    said
}

/// What is done with the connections of one filter chain.
#[derive(Clone, Copy, PartialEq)]
enum Content {
    Requests,
    Bytes,
}

impl Port<'_> {
    fn listener(&self) -> Arc<Resource> {
        let name = format!("inbound_{}_{}", self.listens.ip(), self.listens.port());
        let mut filters = Vec::new();
        if self.mode != MutualTls::Disable {
            filters.push(listener_filter(
                "envoy.filters.listener.tls_inspector",
                any(&tls_inspector::TlsInspector::default()),
            ));
        }
        if self.detects() && self.mode != MutualTls::Strict {
            filters
                .push(listener_filter("envoy.filters.listener.http_inspector", any(&http_inspector::HttpInspector {})));
        }
        let sniffing = !filters.is_empty();
        let made = listener::Listener {
            name: name.clone(),
            address: Some(address(self.listens)),
            filter_chains: self.chains(),
            listener_filters: filters,
            listener_filters_timeout: sniffing.then(|| duration(Duration::from_secs(5))),
            // A server that speaks first gets its client after the time is over.
            continue_on_listener_filters_timeout: sniffing,
            traffic_direction: core::TrafficDirection::Inbound.into(),
            ..Default::default()
        };
        encode::resource(&name, made.encode_to_vec())
    }

    fn detects(&self) -> bool {
        self.protocol == Protocol::Detect
    }

    fn content(&self) -> Content {
        if self.protocol.is_http() { Content::Requests } else { Content::Bytes }
    }

    fn chains(&self) -> Vec<listener::FilterChain> {
        let mut chains = Vec::new();
        match self.mode {
            MutualTls::Disable => {}
            MutualTls::Permissive => chains.extend(self.mesh_chains(&tls::MESH_PROTOCOLS)),
            // Whatever it offers: a client without a certificate of the mesh fails in the handshake.
            MutualTls::Strict => chains.extend(self.mesh_chains(&[])),
        }
        if self.mode != MutualTls::Strict {
            chains.extend(self.plain_chains());
        }
        chains
    }

    /// Chains for mutual TLS, for clients that offer one of the names; no names means all clients with TLS.
    fn mesh_chains(&self, offered: &[&str]) -> Vec<listener::FilterChain> {
        if !self.detects() {
            return vec![self.chain("mtls", "tls", offered, self.content(), true)];
        }
        let others: Vec<&str> =
            offered.iter().copied().filter(|name| !tls::MESH_HTTP_PROTOCOLS.contains(name)).collect();
        vec![
            self.chain("mtls-http", "tls", &tls::MESH_HTTP_PROTOCOLS, Content::Requests, true),
            self.chain("mtls-tcp", "tls", &others, Content::Bytes, true),
        ]
    }

    fn plain_chains(&self) -> Vec<listener::FilterChain> {
        if !self.detects() {
            return vec![self.chain("plain", "", &[], self.content(), false)];
        }
        vec![
            self.chain("plain-http", "", &["http/1.0", "http/1.1", "h2c"], Content::Requests, false),
            self.chain("plain-tcp", "", &[], Content::Bytes, false),
        ]
    }

    fn chain(
        &self,
        name: &str,
        transport: &str,
        protocols: &[&str],
        content: Content,
        mutual: bool,
    ) -> listener::FilterChain {
        let condition = listener::FilterChainMatch {
            transport_protocol: transport.to_owned(),
            application_protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            ..Default::default()
        };
        let filter = match content {
            Content::Requests => self.manager(mutual),
            Content::Bytes => {
                connection::to_cluster(self.mesh, &names::inbound(self.number), &names::inbound(self.number))
            }
        };
        listener::FilterChain {
            name: name.to_owned(),
            filter_chain_match: (condition != listener::FilterChainMatch::default()).then_some(condition),
            filters: vec![filter],
            transport_socket: mutual.then(|| tls::mesh_server(&tls::SERVER_PROTOCOLS)),
            ..Default::default()
        }
    }

    fn manager(&self, mutual: bool) -> listener::Filter {
        use wire_hcm::http_connection_manager::ForwardClientCertDetails;
        let name = names::inbound(self.number);
        let manager = Manager {
            stat_prefix: &name,
            routes: RouteSource::Inline(Box::new(self.routes())),
            client_cert: if mutual {
                ForwardClientCertDetails::SanitizeSet
            } else {
                ForwardClientCertDetails::Sanitize
            },
            edge: false,
            dynamic_hosts: false,
        };
        hcm::filter(self.mesh, manager)
    }

    /// Everything to the application, without retries: only the client knows what may be repeated.
    fn routes(&self) -> route::RouteConfiguration {
        let name = names::inbound(self.number);
        let action = route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(name.clone())),
            timeout: Some(protobuf::Duration::default()),
            ..Default::default()
        };
        let all = route::Route {
            name: "default".to_owned(),
            r#match: Some(route_match::anything()),
            action: Some(route::route::Action::Route(action)),
            ..Default::default()
        };
        let host = route::VirtualHost {
            name: format!("inbound|http|{}", self.number),
            domains: vec!["*".to_owned()],
            routes: vec![all],
            ..Default::default()
        };
        route::RouteConfiguration {
            name,
            virtual_hosts: vec![host],
            validate_clusters: boolean(false),
            max_direct_response_body_size_bytes: uint(MAX_BODY),
            ..Default::default()
        }
    }

    fn cluster(&self) -> Arc<Resource> {
        let name = names::inbound(self.number);
        let host = endpoint::LbEndpoint {
            host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
                address: Some(address(self.serves)),
                ..Default::default()
            })),
            ..Default::default()
        };
        let place = endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![host],
            load_balancing_weight: uint(1),
            ..Default::default()
        };
        let limits = wire_cluster::circuit_breakers::Thresholds {
            max_connections: uint(u32::MAX),
            max_pending_requests: uint(u32::MAX),
            max_requests: uint(u32::MAX),
            max_retries: uint(u32::MAX),
            ..Default::default()
        };
        let made = wire_cluster::Cluster {
            name: name.clone(),
            connect_timeout: Some(duration(Duration::from_secs(10))),
            cluster_discovery_type: Some(wire_cluster::cluster::ClusterDiscoveryType::Type(
                wire_cluster::cluster::DiscoveryType::Static.into(),
            )),
            load_assignment: Some(endpoint::ClusterLoadAssignment {
                cluster_name: name,
                endpoints: vec![place],
                ..Default::default()
            }),
            circuit_breakers: Some(wire_cluster::CircuitBreakers {
                thresholds: vec![limits],
                per_host_thresholds: Vec::new(),
            }),
            typed_extension_protocol_options: match self.protocol {
                // Who did not say what it speaks gets what its client spoke.
                Protocol::Detect => http_options::of_application(None),
                protocol => http_options::of_application(Some(protocol.is_http2())),
            },
            ..Default::default()
        };
        encode::cluster(&made, &self.service.map(cluster::service_metadata).unwrap_or_default())
    }
}

fn listener_filter(name: &str, config: protobuf::Any) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
    }
}

/// The listener filter that finds out server name and offered protocols.
pub(super) fn tls_inspection() -> listener::ListenerFilter {
    listener_filter("envoy.filters.listener.tls_inspector", any(&tls_inspector::TlsInspector::default()))
}
