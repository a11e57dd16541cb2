//! Endpoints of services, as a class of proxies reaches them.
//!
//! An endpoint in another network is replaced by the east-west gateways of that network. What stands behind one gateway is
//! counted together by place and rank, with the sum of the weights, so that shares stay right whatever the number of
//! gateways. An endpoint that cannot be reached with mutual TLS through a gateway is left out, and that is said.

use super::{
    Resources, cluster, encode,
    encode::Tree,
    locality::{self, Rank},
    names, pb,
    wire::{core, endpoint},
};
use crate::{
    bind::{View, complain},
    intent::{ClientTlsMode, LocalityPolicy, Subset},
    stage::ServiceHead,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_federation_model::{
    Diagnostic, Endpoint, Health, Labels, Locality, NetworkId, ObjectRef, Resolution, Scope, ServiceKey, ServicePort,
    Severity, TlsMode, WorkloadAddress,
};

/// Whether an endpoint belongs to a subset with these labels.
#[must_use]
pub fn in_subset(labels: &Labels, endpoint: &Endpoint) -> bool {
    labels.iter().all(|(key, value)| locality::endpoint_label(endpoint, key).as_deref() == Some(value))
}

/// All assignments of a service for a class of proxies.
#[must_use]
pub fn assignments(view: View<'_, '_>, key: &ServiceKey) -> Resources {
    let Some(service) = view.reader.service(key) else { return Resources::default() };
    if service.resolution == Resolution::Passthrough {
        return Resources::default();
    }
    let effective = cluster::served(view, service);
    let mut out = Resources::default();
    let mut skipped = Skipped::default();
    for port in cluster::service_ports(service) {
        for subset in std::iter::once(None).chain(effective.subsets.iter().map(Some)) {
            let policy = effective.policy_for(port.number, subset);
            let mesh = view.reader.mesh();
            let locality = policy.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref()).unwrap_or(&mesh.locality);
            let through_gateways = match &policy.tls {
                None => mesh.auto_mtls,
                Some(tls) => tls.mode == ClientTlsMode::Mesh,
            };
            let one = One { view, service, port: port.number, subset, locality, through_gateways };
            let name = subset.map_or("", |subset| &subset.name);
            if discovered(service) {
                let reached = one.reached(&mut skipped);
                out.value.push(one.encode(&names::outbound(port.number, name, &key.host), reached));
            }
            if cluster::crosses(view, service) {
                let own = one.in_own_network();
                out.value.push(one.encode(&names::server_name(port.number, name, &key.host), own));
            }
        }
    }
    out.complaints = skipped.complaints(view, service);
    out
}

/// Whether the upstreams of a service ask for endpoints, rather than resolving names themselves.
fn discovered(service: &ServiceHead) -> bool {
    service.alias_of.is_none() && matches!(service.resolution, Resolution::Registry | Resolution::Static)
}

/// What could not be reached, by network.
#[derive(Default)]
struct Skipped {
    without_tls: BTreeMap<NetworkId, BTreeSet<String>>,
    without_gateway: BTreeMap<NetworkId, BTreeSet<String>>,
    switched_off: BTreeMap<NetworkId, BTreeSet<String>>,
}

impl Skipped {
    fn complaints(self, view: View<'_, '_>, service: &ServiceHead) -> Vec<Diagnostic> {
        let key = &service.key;
        let object = ObjectRef::new("Service", key.namespace.as_str(), &service.name, view.audience.cluster.as_str());
        let say = |code: &str, network: &NetworkId, names: BTreeSet<String>, why: &str| {
            let list: Vec<String> = names.into_iter().take(3).collect();
            let text = format!(
                "{} in network {network} ({}, …) cannot be reached from network {}: {why}",
                key.host,
                list.join(", "),
                view.audience.network
            );
            complain(Severity::Warning, code, &object, "", text)
        };
        let tls = self.without_tls.into_iter().map(|(network, names)| {
            say(
                "ENDPOINT_WITHOUT_MTLS",
                &network,
                names,
                "between networks only endpoints with mutual TLS (a sidecar) are reachable",
            )
        });
        let gateway = self.without_gateway.into_iter().map(|(network, names)| {
            say(
                "NETWORK_WITHOUT_GATEWAY",
                &network,
                names,
                "no east-west gateway with an IP address is known for that network",
            )
        });
        let off = self.switched_off.into_iter().map(|(network, names)| {
            say(
                "MTLS_SWITCHED_OFF",
                &network,
                names,
                "a policy switches mutual TLS of the mesh off, and gateways route by it",
            )
        });
        tls.chain(gateway).chain(off).collect()
    }
}

/// What one entry of an assignment stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    rank: Rank,
    place: Locality,
    /// Sorts endpoints of one address; the first line of what telemetry knows about it.
    address: String,
    port: u16,
    workload: String,
    unix: bool,
    draining: bool,
    mutual: bool,
}

/// Entries with their weights.
type Reached = BTreeMap<Entry, u64>;

struct One<'a, 'w> {
    view: View<'a, 'w>,
    service: &'w ServiceHead,
    port: u16,
    subset: Option<&'a Subset>,
    locality: &'a LocalityPolicy,
    /// Clients use mutual TLS of the mesh, by whose server name gateways route.
    through_gateways: bool,
}

impl<'w> One<'_, 'w> {
    /// Endpoints of the subset that take traffic on the port, with the port at the address.
    fn members(&self) -> impl Iterator<Item = (&'w Endpoint, u16)> {
        let own_cluster_only =
            self.view.reader.mesh().cluster_local.iter().any(|host| host.covers(&self.service.key.host));
        let all = self.view.reader.endpoints(&self.service.key).iter();
        all.filter(move |e| !own_cluster_only || e.cluster == self.view.audience.cluster)
            .filter(|e| e.health != Health::Unhealthy && self.subset.is_none_or(|subset| in_subset(&subset.labels, e)))
            .filter_map(|e| Some((&**e, *e.ports.get(&self.port)?)))
    }

    fn direct(&self, endpoint: &Endpoint, port: u16) -> Option<Entry> {
        let (address, unix) = match &endpoint.address {
            WorkloadAddress::Ip(ip) => (ip.to_string(), false),
            WorkloadAddress::Unix(path) => (path.clone(), true),
            // A name is resolved by upstreams that ask for no endpoints; without an address there is nothing to dial here.
            WorkloadAddress::Dns(_) | WorkloadAddress::ByNetwork => return None,
        };
        Some(Entry {
            rank: locality::rank(self.view.audience, self.locality, endpoint),
            place: endpoint.locality.clone(),
            address,
            port,
            workload: workload(endpoint),
            unix,
            draining: endpoint.health == Health::Draining,
            mutual: endpoint.tls == TlsMode::Mutual && self.service.scope == Scope::Mesh,
        })
    }

    /// For gateways: what stands behind a server name is only ever in the gateway's own network.
    fn in_own_network(&self) -> Reached {
        let own = self.members().filter(|(e, _)| e.network == self.view.audience.network && e.tls == TlsMode::Mutual);
        own.filter_map(|(e, port)| Some((self.direct(e, port)?, u64::from(e.weight.max(1))))).collect()
    }

    fn reached(&self, skipped: &mut Skipped) -> Reached {
        let scale = self.scale();
        let mut reached = Reached::new();
        for (endpoint, port) in self.members() {
            let weight = u64::from(endpoint.weight.max(1));
            if endpoint.network == self.view.audience.network || self.service.scope == Scope::External {
                if let Some(entry) = self.direct(endpoint, port) {
                    *reached.entry(entry).or_default() += weight * scale;
                }
                continue;
            }
            let gateways = self.gateways(&endpoint.network);
            if !self.through_gateways {
                skipped.switched_off.entry(endpoint.network.clone()).or_default().insert(endpoint.workload.to_string());
                continue;
            }
            if endpoint.tls != TlsMode::Mutual {
                skipped.without_tls.entry(endpoint.network.clone()).or_default().insert(endpoint.workload.to_string());
            } else if gateways.is_empty() {
                skipped
                    .without_gateway
                    .entry(endpoint.network.clone())
                    .or_default()
                    .insert(endpoint.workload.to_string());
            }
            for gateway in gateways.iter().filter(|_| endpoint.tls == TlsMode::Mutual) {
                let entry = self.behind(endpoint, gateway.0, gateway.1);
                *reached.entry(entry).or_default() += weight * scale / gateways.len() as u64;
            }
        }
        merge_draining(reached)
    }

    /// Ways into another network. Assignments hold addresses only, so a gateway that is known by a name is of no use here.
    fn gateways(&self, network: &NetworkId) -> Vec<(&'w str, u16)> {
        let all = self.view.reader.network_gateways(network).iter();
        let mut usable: Vec<(&str, u16)> = all
            .filter(|g| g.address.parse::<std::net::IpAddr>().is_ok())
            .map(|g| (g.address.as_str(), g.port))
            .collect();
        usable.sort_unstable();
        usable.dedup();
        usable.truncate(16);
        usable
    }

    /// The least factor that makes every share of a weight among the gateways of its network a whole number.
    fn scale(&self) -> u64 {
        let networks: BTreeSet<&NetworkId> = self.members().map(|(e, _)| &e.network).collect();
        let others = networks.into_iter().filter(|network| **network != self.view.audience.network);
        let counts = others.map(|network| self.gateways(network).len().clamp(1, 16) as u64);
        counts.fold(1, |a, b| a / gcd(a, b) * b)
    }

    /// The gateway in place of the endpoint. Labels are dropped; place, rank and freshness are kept.
    fn behind(&self, endpoint: &Endpoint, address: &str, port: u16) -> Entry {
        Entry {
            rank: locality::rank(self.view.audience, self.locality, endpoint),
            place: endpoint.locality.clone(),
            address: address.to_owned(),
            port,
            workload: format!(";{};;;{}", endpoint.namespace, endpoint.cluster),
            unix: false,
            draining: endpoint.health == Health::Draining,
            mutual: true,
        }
    }

    fn encode(&self, name: &str, reached: Reached) -> std::sync::Arc<tombolo_federation_sync::Resource> {
        let mut groups: BTreeMap<(Rank, Locality), Vec<(Entry, u64)>> = BTreeMap::new();
        let shrink = shrink(reached.values().sum());
        for (entry, weight) in reached {
            groups.entry((entry.rank, entry.place.clone())).or_default().push((entry, (weight / shrink).max(1)));
        }
        let shares = locality::distribution(self.view.audience, self.locality);
        let ranks: Vec<Rank> = groups.keys().map(|(rank, _)| *rank).collect::<BTreeSet<_>>().into_iter().collect();
        let total = |places: &str| -> u64 {
            let inside = groups.iter().filter(|((_, place), _)| locality::matches(places, place));
            inside.flat_map(|(_, list)| list).map(|(_, weight)| *weight).sum()
        };
        let mut places = Vec::new();
        for ((rank, place), list) in &groups {
            let sum: u64 = list.iter().map(|(_, weight)| *weight).sum();
            let weight = match shares.map(|shares| shares.iter().find(|(pattern, _)| locality::matches(pattern, place)))
            {
                None => sum,
                // The share of a pattern is divided among the places under it by their weights. Thousandths keep small places above zero.
                Some(Some((pattern, percent))) => (u64::from(*percent) * 1000 * sum / total(pattern).max(1)).max(1),
                Some(None) => continue,
            };
            let priority = ranks.iter().position(|r| r == rank).unwrap_or(0);
            places.push(encode_place(place, priority, weight, list));
        }
        encode::resource(name, encode::load_assignment(name, &places))
    }
}

/// Draining endpoints behind a gateway only count when nothing else is there: the gateway itself is not draining.
fn merge_draining(reached: Reached) -> Reached {
    let alive: BTreeSet<(String, u16, Rank, Locality)> =
        reached.keys().filter(|e| !e.draining).map(|e| (e.address.clone(), e.port, e.rank, e.place.clone())).collect();
    let shadowed = |e: &Entry| e.draining && alive.contains(&(e.address.clone(), e.port, e.rank, e.place.clone()));
    reached.into_iter().filter(|(entry, _)| !shadowed(entry)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What weights are divided by so that their sum fits the 32 bits that Envoy allows for a priority.
fn shrink(total: u64) -> u64 {
    total / u64::from(u32::MAX) + 1
}

/// What telemetry knows about an endpoint: workload, namespace, canonical name and revision, cluster.
fn workload(endpoint: &Endpoint) -> String {
    let label = |keys: &[&str]| keys.iter().find_map(|key| endpoint.labels.get(*key)).map_or("", String::as_str);
    let canonical = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    format!("{};{};{canonical};{revision};{}", endpoint.workload, endpoint.namespace, endpoint.cluster)
}

fn encode_place(place: &Locality, priority: usize, weight: u64, list: &[(Entry, u64)]) -> Vec<u8> {
    let base = endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: place.region.clone(),
            zone: place.zone.clone(),
            sub_zone: place.subzone.clone(),
        }),
        load_balancing_weight: pb::uint(u32::try_from(weight).unwrap_or(u32::MAX)),
        priority: u32::try_from(priority).unwrap_or(u32::MAX),
        ..Default::default()
    };
    let endpoints: Vec<Vec<u8>> = list.iter().map(|(entry, weight)| encode_entry(entry, *weight)).collect();
    encode::locality_endpoints(&base, &endpoints)
}

fn encode_entry(entry: &Entry, weight: u64) -> Vec<u8> {
    let address = if entry.unix { pb::pipe(&entry.address) } else { pb::host_address(&entry.address, entry.port) };
    let health = if entry.draining { core::HealthStatus::Draining } else { core::HealthStatus::Healthy };
    let base = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..Default::default()
        })),
        health_status: health.into(),
        load_balancing_weight: pb::uint(u32::try_from(weight).unwrap_or(u32::MAX)),
        ..Default::default()
    };
    let mut filters = BTreeMap::from([(
        "istio".to_owned(),
        BTreeMap::from([("workload".to_owned(), Tree::text(entry.workload.as_str()))]),
    )]);
    if entry.mutual {
        let mode = BTreeMap::from([("tlsMode".to_owned(), Tree::text("istio"))]);
        filters.insert("envoy.transport_socket_match".to_owned(), mode);
    }
    encode::lb_endpoint(&base, &encode::metadata(&filters))
}

/// The endpoints of an upstream that resolves names itself, inside of the upstream. A service without endpoints is reached by
/// its own host. `single`: only one may be given.
pub(super) fn written_out(
    view: View<'_, '_>,
    service: &ServiceHead,
    port: &ServicePort,
    subset: Option<&Subset>,
    name: &str,
    single: bool,
) -> endpoint::ClusterLoadAssignment {
    let all = view.reader.endpoints(&service.key).iter();
    let members = all.filter(|e| e.health == Health::Healthy && subset.is_none_or(|s| in_subset(&s.labels, e)));
    let mut hosts: Vec<(Locality, endpoint::LbEndpoint)> = members
        .filter_map(|e| {
            let number = *e.ports.get(&port.number)?;
            let address = match &e.address {
                WorkloadAddress::Ip(ip) => pb::host_address(&ip.to_string(), number),
                WorkloadAddress::Dns(host) => pb::host_address(host.as_str(), number),
                WorkloadAddress::Unix(path) => pb::pipe(path),
                WorkloadAddress::ByNetwork => return None,
            };
            Some((e.locality.clone(), plain_endpoint(address, e.weight.max(1))))
        })
        .collect();
    if hosts.is_empty() && subset.is_none() {
        let host = service.alias_of.as_ref().unwrap_or(&service.key.host);
        hosts.push((Locality::default(), plain_endpoint(pb::host_address(host.as_str(), port.number), 1)));
    }
    if single {
        hosts.truncate(1);
    }
    let mut groups: BTreeMap<Locality, Vec<endpoint::LbEndpoint>> = BTreeMap::new();
    hosts.into_iter().for_each(|(place, host)| groups.entry(place).or_default().push(host));
    let endpoints = groups.into_iter().map(|(place, lb_endpoints)| endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality { region: place.region, zone: place.zone, sub_zone: place.subzone }),
        load_balancing_weight: pb::uint(u32::try_from(lb_endpoints.len()).unwrap_or(u32::MAX)),
        lb_endpoints,
        ..Default::default()
    });
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: endpoints.collect(),
        ..Default::default()
    }
}

fn plain_endpoint(address: core::Address, weight: u32) -> endpoint::LbEndpoint {
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..Default::default()
        })),
        load_balancing_weight: pb::uint(weight),
        ..Default::default()
    }
}
