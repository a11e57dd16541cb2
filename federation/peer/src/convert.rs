//! Between the merged view and what peers exchange. What is read back is a definition and its written-out endpoints, so
//! that an imported service takes the same way through the registry as any other. Never checks a remit.

use std::{collections::BTreeMap, sync::Arc};
use tombolo_controlplane_api::peer as wire;
use tombolo_federation_model::{
    ClusterId, Endpoint, EndpointSlice, Export, Health, Host, Identity, Labels, Locality, Namespace, NetworkGateway,
    NetworkId, ObjectRef, Protocol, Resolution, Scope, Service, ServicePort, SliceEndpoint, Subsets, TargetPort,
    Visibility, WorkloadAddress,
};
use tombolo_federation_registry::{Item, MergedService};

/// Why a message is not a service or a gateway.
pub type NotAService = String;

/// The shares of a service, one for each cluster that defines it, by resource name.
#[must_use]
pub fn exported_services(service: &MergedService) -> Vec<(String, wire::ExportedService)> {
    service.clusters.iter().map(|cluster| (resource_name(service, cluster), share(service, cluster))).collect()
}

fn resource_name(service: &MergedService, cluster: &ClusterId) -> String {
    format!("{cluster}/{}/{}", service.key.namespace, service.key.host)
}

fn share(service: &MergedService, cluster: &ClusterId) -> wire::ExportedService {
    let ports = service.ports.iter().map(|port| wire::Port {
        number: port.number.into(),
        name: port.name.clone(),
        protocol: port.protocol.as_str().to_owned(),
    });
    let own = service.endpoints.iter().filter(|endpoint| endpoint.cluster == *cluster);
    wire::ExportedService {
        host: service.key.host.to_string(),
        namespace: service.key.namespace.to_string(),
        name: service.name.clone(),
        ports: ports.collect(),
        labels: service.labels.clone(),
        endpoints: own.filter_map(|endpoint| endpoint_to_wire(service, endpoint)).collect(),
        created: service.created,
        subject_alt_names: service.subject_alt_names.clone(),
        cluster: cluster.to_string(),
        clusterset: service.clusterset,
        headless: service.headless,
    }
}

/// `None` for what only its own machine can reach.
fn endpoint_to_wire(service: &MergedService, endpoint: &Endpoint) -> Option<wire::Endpoint> {
    let address = match &endpoint.address {
        WorkloadAddress::Ip(ip) => ip.to_string(),
        WorkloadAddress::Dns(host) => host.to_string(),
        WorkloadAddress::ByNetwork => String::new(),
        WorkloadAddress::Unix(_) => return None,
    };
    let named = |port: &ServicePort| Some((port.name.clone(), u32::from(*endpoint.ports.get(&port.number)?)));
    let health = match endpoint.health {
        Health::Healthy => wire::Health::Healthy,
        Health::Draining => wire::Health::Draining,
        Health::Unhealthy => wire::Health::Unhealthy,
    };
    Some(wire::Endpoint {
        workload: endpoint.workload.to_string(),
        address,
        ports: service.ports.iter().filter_map(named).collect(),
        labels: (*endpoint.labels).clone(),
        network: endpoint.network.to_string(),
        cluster: endpoint.cluster.to_string(),
        locality: endpoint.locality.to_string(),
        identity: endpoint.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
        weight: endpoint.weight,
        health: health.into(),
        namespace: endpoint.namespace.to_string(),
    })
}

/// What a share adds to the registry: the definition, its endpoints, and the export where there is one.
///
/// # Errors
/// Names the first part that cannot be read.
pub fn service_items(share: &wire::ExportedService) -> Result<Vec<Item>, NotAService> {
    let text = |error: tombolo_federation_model::NotAName| error.to_string();
    let host = Host::parse(&share.host).map_err(text)?;
    let namespace = Namespace::parse(&share.namespace).map_err(text)?;
    let origin = ObjectRef::new("ExportedService", &share.namespace, &share.name, &share.cluster);
    let mut ports = share.ports.iter().map(port_from_wire).collect::<Result<Vec<_>, _>>()?;
    ports.sort_by_key(|port| port.number);
    ports.dedup_by_key(|port| port.number);
    let endpoints = share.endpoints.iter().map(endpoint_from_wire).collect::<Result<Vec<_>, _>>()?;
    // A definition may have several hosts, each of which is a share of its own.
    let slice = format!("ExportedService/{}/{host}", share.name);
    let slice = EndpointSlice { host: host.clone(), namespace: namespace.clone(), name: slice, endpoints };
    let service = Service {
        host,
        namespace: namespace.clone(),
        name: share.name.clone(),
        ports,
        labels: share.labels.clone(),
        addresses: Vec::new(),
        selector: None,
        resolution: Resolution::Registry,
        scope: Scope::Mesh,
        headless: share.headless,
        visibility: Visibility::All,
        subject_alt_names: share.subject_alt_names.clone(),
        created: share.created,
        origin: origin.clone(),
        alias_of: None,
        crossing: false,
    };
    let mut items = vec![Item::Service(service), Item::Slice(slice)];
    if share.clusterset {
        items.push(Item::Export(Export { namespace, name: share.name.clone(), created: share.created, origin }));
    }
    Ok(items)
}

fn port_from_wire(port: &wire::Port) -> Result<ServicePort, NotAService> {
    let number = u16::try_from(port.number).map_err(|_| format!("{} is not a port number", port.number))?;
    // A protocol that only a newer peer knows is bytes to us.
    let protocol = if port.protocol.is_empty() {
        Protocol::Detect
    } else {
        Protocol::parse(&port.protocol).unwrap_or(Protocol::Tcp)
    };
    Ok(ServicePort { number, name: port.name.clone(), protocol, target: TargetPort::Number(number) })
}

fn endpoint_from_wire(endpoint: &wire::Endpoint) -> Result<SliceEndpoint, NotAService> {
    let of = |reason: String| format!("endpoint {}: {reason}", endpoint.workload);
    let address = match endpoint.address.parse() {
        Ok(ip) => WorkloadAddress::Ip(ip),
        Err(_) if endpoint.address.is_empty() => WorkloadAddress::ByNetwork,
        Err(_) => WorkloadAddress::Dns(Host::parse(&endpoint.address).map_err(|error| of(error.to_string()))?),
    };
    let mut ports = BTreeMap::new();
    for (name, number) in &endpoint.ports {
        let number = u16::try_from(*number).map_err(|_| of(format!("{number} is not a port number")))?;
        ports.insert(name.clone(), number);
    }
    let identity = match endpoint.identity.as_str() {
        "" => None,
        text => Some(Identity::parse(text).map_err(|error| of(error.to_string()))?),
    };
    let health = match endpoint.health() {
        wire::Health::Healthy => Health::Healthy,
        wire::Health::Draining => Health::Draining,
        wire::Health::Unhealthy => Health::Unhealthy,
    };
    Ok(SliceEndpoint {
        workload: Some(endpoint.workload.clone()).filter(|name| !name.is_empty()),
        address,
        ports,
        health,
        labels: Arc::new(endpoint.labels.clone()),
        network: Some(NetworkId::parse(&endpoint.network).map_err(|error| of(error.to_string()))?),
        cluster: Some(ClusterId::parse(&endpoint.cluster).map_err(|error| of(error.to_string()))?),
        locality: Some(Locality::parse(&endpoint.locality)),
        identity,
        weight: endpoint.weight,
    })
}

/// Subsets, by resource name.
pub(crate) fn subsets_to_wire(subsets: &Subsets) -> impl Iterator<Item = (String, wire::Subset)> {
    let all = subsets.iter().flat_map(|(host, named)| named.iter().map(move |(name, labels)| (host, name, labels)));
    all.map(|(host, name, labels)| {
        let message = wire::Subset { host: host.to_string(), name: name.clone(), labels: labels.clone() };
        (format!("{host}/{name}"), message)
    })
}

/// A subset as a peer says it: host, name and labels.
///
/// # Errors
/// Names the first part that cannot be read. A name has to fit into a server name.
pub fn subset_from_wire(subset: &wire::Subset) -> Result<(Host, String, Labels), NotAService> {
    let host = Host::parse(&subset.host).map_err(|error| error.to_string())?;
    if host.is_wildcard() {
        return Err(format!("host {:?} stands for more than one service", subset.host));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !(1..=63).contains(&subset.name.len()) || !subset.name.bytes().all(allowed) {
        return Err(format!("{:?} is not the name of a subset", subset.name));
    }
    Ok((host, subset.name.clone(), subset.labels.clone()))
}

/// A gateway, by resource name.
#[must_use]
pub fn gateway_to_wire(gateway: &NetworkGateway) -> (String, wire::NetworkGateway) {
    let name = format!("{}/{}/{}:{}", gateway.cluster, gateway.network, gateway.address, gateway.port);
    let message = wire::NetworkGateway {
        network: gateway.network.to_string(),
        address: gateway.address.clone(),
        port: gateway.port.into(),
        cluster: gateway.cluster.to_string(),
    };
    (name, message)
}

/// A gateway as a peer says it.
///
/// # Errors
/// Names the first part that cannot be read.
pub fn gateway_from_wire(gateway: &wire::NetworkGateway) -> Result<NetworkGateway, NotAService> {
    Ok(NetworkGateway {
        network: NetworkId::parse(&gateway.network).map_err(|error| error.to_string())?,
        cluster: ClusterId::parse(&gateway.cluster).map_err(|error| error.to_string())?,
        address: Host::parse(&gateway.address).map_err(|error| error.to_string())?.to_string(),
        port: u16::try_from(gateway.port).map_err(|_| format!("{} is not a port number", gateway.port))?,
    })
}
