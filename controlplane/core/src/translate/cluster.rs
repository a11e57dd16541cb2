//! Upstreams of services: one for each port and subset.

use super::{
    Resources,
    cluster_tls::{self, Peer},
    encode::{self, Tree},
    endpoint::written_out,
    fixed, names,
    pb::{ads, any, duration, uint},
    policy,
    wire::{cluster, core, upstream_http},
};
use crate::{
    bind::{EffectiveDestination, View, complain, destination},
    intent::{Algorithm, ConnectionPool, Subset, TrafficPolicy},
    proxy::Role,
    stage::ServiceHead,
};
use std::{collections::BTreeMap, collections::HashMap, sync::Arc};
use tombolo_federation_model::{Protocol, Resolution, Scope, ServiceKey, ServicePort, Severity};
use tombolo_federation_sync::Resource;

/// Ports of a service that proxies forward to.
pub fn service_ports(service: &ServiceHead) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(|port| port.protocol != Protocol::Udp)
}

/// All upstreams of a service for a class of proxies. Gateways also get those that east-west routing by server name leads to.
#[must_use]
pub fn clusters(view: View<'_, '_>, key: &ServiceKey) -> Resources {
    let Some(service) = view.reader.service(key) else { return Resources::default() };
    let effective = destination(view, service);
    let mut out = Resources::default();
    for port in service_ports(service) {
        for subset in std::iter::once(None).chain(effective.subsets.iter().map(Some)) {
            let one = One { view, service, effective: &effective, port, subset };
            out.value.push(one.cluster(&mut out.complaints));
            if crosses(view, service) {
                out.value.push(one.by_server_name());
            }
        }
    }
    out
}

/// Whether gateways of the class let other networks in to the service.
pub(super) fn crosses(view: View<'_, '_>, service: &ServiceHead) -> bool {
    let open = |plan: &Arc<crate::bind::GatewayPlan>| {
        plan.listeners.iter().any(|listener| match &listener.kind {
            crate::bind::ListenerKind::Tls(chains) => {
                chains.iter().any(|c| c.kind == crate::bind::ChainKind::AutoPassthrough)
            }
            _ => false,
        })
    };
    view.audience.role == Role::Router && service.exported && view.reader.plan(view.id).is_some_and(open)
}

/// One upstream to be made.
struct One<'a, 'w> {
    view: View<'a, 'w>,
    service: &'w Arc<ServiceHead>,
    effective: &'a EffectiveDestination,
    port: &'a ServicePort,
    subset: Option<&'a Subset>,
}

impl One<'_, '_> {
    fn subset_name(&self) -> &str {
        self.subset.map_or("", |subset| &subset.name)
    }

    fn policy(&self) -> TrafficPolicy {
        self.effective.policy_for(self.port.number, self.subset)
    }

    fn cluster(&self, complaints: &mut Vec<tombolo_federation_model::Diagnostic>) -> Arc<Resource> {
        let name = names::outbound(self.port.number, self.subset_name(), &self.service.key.host);
        let policy = self.policy();
        let mut cluster = self.discovery(&name, &policy);
        let pool = policy.connection_pool.clone().unwrap_or_default();
        let http2 = speaks_http2(self.port.protocol, &pool);
        if cluster.lb_policy != i32::from(cluster::cluster::LbPolicy::ClusterProvided) {
            let mesh = self.view.reader.mesh();
            policy::apply(&policy, &mesh.locality, mesh.connect_timeout, &mut cluster);
        } else {
            // Who resolves hosts by itself chooses endpoints by itself.
            let mut limits = cluster::Cluster::default();
            policy::apply(&policy, &Default::default(), None, &mut limits);
            cluster.circuit_breakers = limits.circuit_breakers;
            cluster.connect_timeout = limits.connect_timeout;
        }
        if http_like(self.port.protocol) {
            cluster.typed_extension_protocol_options = http_options(&pool, http2, &policy);
        }
        cluster_tls::apply(&policy, &self.peer(http2), &mut cluster);
        if pool.use_client_protocol && policy.tls.is_none() && self.automatic() {
            self.note_client_protocol(complaints);
        }
        encode::cluster(&cluster, &self.metadata())
    }

    fn note_client_protocol(&self, complaints: &mut Vec<tombolo_federation_model::Diagnostic>) {
        for object in &self.effective.objects {
            let text = "within the mesh the protocol of the service's port decides, because it is agreed on before the request is seen";
            complaints.push(complain(
                Severity::Info,
                "CLIENT_PROTOCOL_IGNORED",
                object,
                "spec.trafficPolicy.connectionPool.http.useClientProtocol",
                text,
            ));
        }
    }

    /// Where the endpoints come from.
    fn discovery(&self, name: &str, policy: &TrafficPolicy) -> cluster::Cluster {
        use cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
        let passthrough =
            matches!(policy.load_balancer.as_ref().and_then(|lb| lb.algorithm.as_ref()), Some(Algorithm::Passthrough));
        let resolution = self.service.resolution;
        if passthrough || resolution == Resolution::Passthrough {
            return fixed::dynamic(name);
        }
        let mut made = cluster::Cluster { name: name.to_owned(), ..Default::default() };
        let kind = match resolution {
            Resolution::Dns => DiscoveryType::StrictDns,
            Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
            _ if self.service.alias_of.is_some() => DiscoveryType::StrictDns,
            Resolution::Registry | Resolution::Static | Resolution::Passthrough => DiscoveryType::Eds,
        };
        if kind == DiscoveryType::Eds {
            made.eds_cluster_config =
                Some(cluster::cluster::EdsClusterConfig { eds_config: Some(ads()), service_name: name.to_owned() });
        } else {
            made.load_assignment = Some(written_out(
                self.view,
                self.service,
                self.port,
                self.subset,
                name,
                kind == DiscoveryType::LogicalDns,
            ));
            made.dns_lookup_family = cluster::cluster::DnsLookupFamily::V4Preferred.into();
        }
        made.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
        made
    }

    fn automatic(&self) -> bool {
        self.service.scope == Scope::Mesh && self.view.reader.mesh().auto_mtls
    }

    fn peer(&self, http2: bool) -> Peer<'_> {
        let (mesh_protocols, protocols): (&'static [&'static str], &'static [&'static str]) =
            match (http_like(self.port.protocol) && self.port.protocol != Protocol::Https, http2) {
                (true, true) => (&["istio-h2", "istio", "h2"], &["h2"]),
                (true, false) => (&["istio-http/1.1", "istio", "http/1.1"], &["http/1.1"]),
                (false, _) => (&["istio"], &[]),
            };
        Peer {
            server_name: names::server_name(self.port.number, self.subset_name(), &self.service.key.host),
            identities: self.view.reader.identities(&self.service.key).map(|set| &**set),
            names: &self.service.subject_alt_names,
            automatic: self.automatic(),
            mesh_protocols,
            protocols,
            system_roots: &self.view.reader.site().system_roots,
        }
    }

    /// The upstream to which an east-west gateway forwards what is meant for this one, without looking inside.
    fn by_server_name(&self) -> Arc<Resource> {
        let name = names::server_name(self.port.number, self.subset_name(), &self.service.key.host);
        let mut cluster = cluster::Cluster {
            eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: name.clone(),
            }),
            name,
            cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
                cluster::cluster::DiscoveryType::Eds.into(),
            )),
            ..Default::default()
        };
        let mesh = self.view.reader.mesh();
        policy::apply(
            &TrafficPolicy { tls: None, ..self.policy() },
            &mesh.locality,
            mesh.connect_timeout,
            &mut cluster,
        );
        encode::cluster(&cluster, &self.metadata())
    }

    /// Which service this is, for telemetry.
    fn metadata(&self) -> Vec<u8> {
        let service = Tree::map([
            ("host", Tree::text(self.service.key.host.as_str())),
            ("name", Tree::text(self.service.name.as_str())),
            ("namespace", Tree::text(self.service.key.namespace.as_str())),
        ]);
        let fields = BTreeMap::from([("services".to_owned(), Tree::List(vec![service]))]);
        encode::metadata(&BTreeMap::from([("istio".to_owned(), fields)]))
    }
}

/// Whether requests rather than connections may be forwarded: declared so, or not declared at all.
pub(super) fn http_like(protocol: Protocol) -> bool {
    protocol.is_http() || protocol == Protocol::Detect || protocol == Protocol::Https
}

fn speaks_http2(protocol: Protocol, pool: &ConnectionPool) -> bool {
    protocol.is_http2() || (http_like(protocol) && pool.h2_upgrade == Some(true))
}

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn http_options(
    pool: &ConnectionPool,
    http2: bool,
    policy: &TrafficPolicy,
) -> HashMap<String, tombolo_controlplane_api::xds::google::protobuf::Any> {
    use upstream_http::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
    };
    let http2_options = core::Http2ProtocolOptions {
        max_concurrent_streams: pool.max_concurrent_streams.and_then(uint),
        ..Default::default()
    };
    let protocol = if pool.use_client_protocol && policy.tls.is_some() {
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(core::Http1ProtocolOptions::default()),
            http2_protocol_options: Some(http2_options),
            http3_protocol_options: None,
        })
    } else {
        let config = if http2 {
            ProtocolConfig::Http2ProtocolOptions(http2_options)
        } else {
            ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default())
        };
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let options = upstream_http::HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: pool.http_idle_timeout.map(duration),
            max_connection_duration: pool.max_connection_duration.map(duration),
            max_requests_per_connection: pool.max_requests_per_connection.filter(|n| *n > 0).and_then(uint),
            ..Default::default()
        }),
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    HashMap::from([(HTTP_OPTIONS.to_owned(), any(&options))])
}

/// Options for an upstream that repeats the protocol of its client.
pub(super) fn same_protocol_options() -> HashMap<String, tombolo_controlplane_api::xds::google::protobuf::Any> {
    use upstream_http::http_protocol_options::{UpstreamProtocolOptions, UseDownstreamHttpConfig};
    let config = UseDownstreamHttpConfig {
        http_protocol_options: Some(core::Http1ProtocolOptions::default()),
        http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
        http3_protocol_options: None,
    };
    let options = upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)),
        ..Default::default()
    };
    HashMap::from([(HTTP_OPTIONS.to_owned(), any(&options))])
}

/// Options for an upstream with a fixed protocol.
pub(super) fn plain_options(http2: bool) -> HashMap<String, tombolo_controlplane_api::xds::google::protobuf::Any> {
    http_options(&ConnectionPool::default(), http2, &TrafficPolicy::default())
}
