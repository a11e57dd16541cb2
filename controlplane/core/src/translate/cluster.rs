//! Upstreams of services: one for each port and subset.

use super::{
    Resources,
    cluster_tls::{self, Peer},
    encode::{self, Tree},
    endpoint::written_out,
    fixed, http_options, names,
    pb::ads,
    policy, secret,
    wire::cluster,
};
use crate::{
    bind::{EffectiveDestination, View, complain, destination},
    intent::{Algorithm, ClientTlsMode, ConnectionPool, NamedRef, Subset, TrafficPolicy},
    proxy::Role,
    stage::ServiceHead,
};
use std::{collections::BTreeMap, sync::Arc};
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
    let effective = served(view, service);
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

/// The destination that applies; at gateways that let other networks in, with the subsets by which those ask for the service
/// and which are not defined here.
pub(super) fn served(view: View<'_, '_>, service: &ServiceHead) -> EffectiveDestination {
    let mut effective = destination(view, service);
    if crosses(view, service) {
        for (name, labels) in view.reader.remote_subsets(&service.key.host) {
            if effective.subset(name).is_none() {
                let (name, labels) = (name.clone(), labels.clone());
                effective.subsets.push(Subset { name, labels, policy: TrafficPolicy::default() });
            }
        }
    }
    effective
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
        if let Some(missing) = self.missing_credential(&policy) {
            complaints.extend(missing);
            return encode::cluster(&fixed::empty(&name), &self.metadata());
        }
        let mut cluster = self.discovery(&name, &policy);
        let pool = policy.connection_pool.clone().unwrap_or_default();
        let http2 = speaks_http2(self.port.protocol, &pool);
        let dynamic = cluster.lb_policy == i32::from(cluster::cluster::LbPolicy::ClusterProvided);
        if !dynamic {
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
            let repeats = pool.use_client_protocol && (dynamic || policy.tls.is_some() || !self.automatic());
            cluster.typed_extension_protocol_options = http_options::of(&pool, http2, repeats, dynamic);
        }
        let peer = self.peer(http2);
        cluster_tls::apply(&policy, &Peer { automatic: peer.automatic && !dynamic, ..peer }, &mut cluster);
        if pool.use_client_protocol && policy.tls.is_none() && self.automatic() {
            self.note_client_protocol(complaints);
        }
        encode::cluster(&cluster, &self.metadata())
    }

    /// Complaints, when the policy wants a certificate that the proxies cannot get. Without it there is no upstream: a proxy would
    /// wait for the secret with everything, and plaintext is not what was asked for.
    fn missing_credential(&self, policy: &TrafficPolicy) -> Option<Vec<tombolo_federation_model::Diagnostic>> {
        let name = policy.tls.as_ref()?.credential.as_ref()?;
        let secret = NamedRef { namespace: self.view.audience.namespace.clone(), name: name.clone() };
        let mutual = policy.tls.as_ref().is_some_and(|tls| tls.mode == ClientTlsMode::Mutual);
        let gateway = self.view.audience.role == Role::Router;
        let certificate = !mutual || secret::usable(self.view, None, &secret).is_some();
        let roots = policy.tls.as_ref().is_some_and(|tls| tls.insecure)
            || secret::usable_roots(self.view, None, &secret).is_some();
        if gateway && certificate && roots {
            return None;
        }
        let text = if gateway {
            format!(
                "secret {}/{name} is missing, or has not the certificate, key and roots that are needed; its requests get 503",
                secret.namespace
            )
        } else {
            "only gateways are given secrets by name; at sidecars name files instead; its requests get 503".to_owned()
        };
        let field = "spec.trafficPolicy.tls.credentialName";
        Some(
            self.effective
                .objects
                .iter()
                .map(|object| complain(Severity::Warning, "UNUSABLE_SECRET", object, field, text.as_str()))
                .collect(),
        )
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
        service_metadata(self.service)
    }
}

/// The service that an upstream stands for, as telemetry finds it in the upstream's metadata.
pub(super) fn service_metadata(service: &ServiceHead) -> Vec<u8> {
    let service = Tree::map([
        ("host", Tree::text(service.key.host.as_str())),
        ("name", Tree::text(service.name.as_str())),
        ("namespace", Tree::text(service.key.namespace.as_str())),
    ]);
    let fields = BTreeMap::from([("services".to_owned(), Tree::List(vec![service]))]);
    encode::metadata(&BTreeMap::from([("istio".to_owned(), fields)]))
}

/// Whether requests rather than connections may be forwarded: declared so, or not declared at all.
pub(super) fn http_like(protocol: Protocol) -> bool {
    protocol.is_http() || protocol == Protocol::Detect || protocol == Protocol::Https
}

fn speaks_http2(protocol: Protocol, pool: &ConnectionPool) -> bool {
    protocol.is_http2() || (http_like(protocol) && pool.h2_upgrade == Some(true))
}
