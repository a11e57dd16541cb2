//! Owns Service: a name with ports, an alias, or the address of an east-west gateway. Never reads endpoints.

use crate::{
    code,
    common::{self, metadata_error},
    fields::{At, Fields},
    object::{Head, service_host},
    read::Yield,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tombolo_federation_model::{
    EndpointSlice, Health, Host, Labels, NetworkGateway, Resolution, Scope, Service, ServicePort, SliceEndpoint,
    TargetPort, Visibility, WorkloadAddress,
};
use tombolo_federation_registry::Item;

const EXPORT_TO: &str = "networking.istio.io/exportTo";
const GATEWAY_PORT: &str = "networking.istio.io/gatewayPort";
const NETWORK_GATEWAY_PORT: u16 = 15443;

/// Fields of a spec that mean nothing to a mesh.
const OTHERS: [&str; 14] = [
    "allocateLoadBalancerNodePorts",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamily",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "publishNotReadyAddresses",
    "sessionAffinityConfig",
    "topologyKeys",
    "externalIPs",
];

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let host = match service_host(&head.name, head.namespace.as_str(), object.at.sink.ctx) {
        Ok(host) => host,
        Err(reason) => {
            metadata_error(object, "metadata.name", reason.to_string());
            return Yield::default();
        }
    };
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    spec.skip(&OTHERS);
    let kinds = [("ClusterIP", false), ("NodePort", false), ("LoadBalancer", false), ("ExternalName", true)];
    let external = spec.at("type").and_then(|at| at.choose(&kinds)).unwrap_or(false);
    let ports = ports(&spec);
    let mut items = Vec::new();
    let alias_of = if external { alias(&spec) } else { None };
    if let Some(target) = &alias_of {
        items.push(Item::Slice(alias_slice(head, &host, target, &ports)));
    }
    items.extend(network_gateways(head, object, &spec, &ports).into_iter().map(Item::Gateway));
    let service = service(head, object, &spec, Names { host, alias_of }, ports);
    items.insert(0, Item::Service(service));
    affinity(&spec);
    distribution(&spec);
    Yield { items, ..Yield::default() }
}

struct Names {
    host: Host,
    alias_of: Option<Host>,
}

fn service(head: &Head, object: &Fields<'_>, spec: &Fields<'_>, names: Names, ports: Vec<ServicePort>) -> Service {
    let (addresses, headless) = addresses(spec);
    let selector = Some(spec.labels("selector")).filter(|labels| !labels.is_empty() && names.alias_of.is_none());
    Service {
        host: names.host,
        namespace: head.namespace.clone(),
        name: head.name.clone(),
        ports,
        labels: head.labels.clone(),
        addresses,
        selector,
        resolution: if names.alias_of.is_some() { Resolution::Dns } else { Resolution::Registry },
        scope: if names.alias_of.is_some() { Scope::External } else { Scope::Mesh },
        headless,
        visibility: visibility(head, object),
        subject_alt_names: Vec::new(),
        created: head.created,
        origin: head.object.clone(),
        alias_of: names.alias_of,
        crossing: head.labels.contains_key(common::NETWORK),
    }
}

/// The near place is preferred without being asked, down to the zone; nodes are not told apart.
fn distribution(spec: &Fields<'_>) {
    if let Some(at) = spec.at("trafficDistribution")
        && !matches!(at.node.text(), Some("PreferClose" | "PreferSameZone" | ""))
    {
        at.warn(
            code::NOT_IN_FORCE,
            "only PreferClose and PreferSameZone are known; endpoints of the same zone are preferred",
        );
    }
}

fn affinity(spec: &Fields<'_>) {
    if let Some(at) = spec.at("sessionAffinity")
        && at.node.text() != Some("None")
    {
        at.warn(code::NOT_IN_FORCE, "use consistentHash with useSourceIp in a DestinationRule instead");
    }
}

fn visibility(head: &Head, object: &Fields<'_>) -> Visibility {
    let Some(text) = head.annotations.get(EXPORT_TO) else { return Visibility::All };
    let words: Vec<_> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    common::visibility(&words, &head.namespace).unwrap_or_else(|reason| {
        metadata_error(object, &format!("metadata.annotations[{EXPORT_TO:?}]"), reason);
        Visibility::Nobody
    })
}

/// Virtual addresses, and whether there is none on purpose.
fn addresses(spec: &Fields<'_>) -> (Vec<IpAddr>, bool) {
    let mut written: Vec<At<'_>> = spec.list("clusterIPs");
    if let Some(at) = spec.at("clusterIP")
        && !written.iter().any(|other| other.node.text() == at.node.text())
    {
        written.insert(0, at);
    }
    let mut addresses = Vec::new();
    for at in &written {
        match at.str() {
            None | Some("" | "None") => {}
            Some(_) => addresses.extend(at.ip()),
        }
    }
    (addresses, written.iter().any(|at| at.node.text() == Some("None")))
}

fn ports(spec: &Fields<'_>) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for at in spec.list("ports") {
        let Some((port, datagrams)) = port(&at.fields()) else { continue };
        match ports.iter_mut().find(|other| other.number == port.number) {
            None => ports.push(port),
            // The same number for TCP and UDP is common (DNS, HTTP/3); only the TCP one can be proxied.
            Some(other) if other.protocol == tombolo_federation_model::Protocol::Udp => *other = port,
            Some(_) if datagrams => {}
            Some(_) => at.error(code::BAD_VALUE, format!("port {} stands twice; remove one", port.number)),
        }
    }
    ports.sort_by_key(|port| port.number);
    ports
}

fn port(fields: &Fields<'_>) -> Option<(ServicePort, bool)> {
    fields.skip(&["nodePort"]);
    let name = fields.string("name").unwrap_or_default();
    let transport = fields.string("protocol").unwrap_or_default();
    let app = fields.string("appProtocol");
    let target = fields.at("targetPort").and_then(|at| common::target_port(&at));
    let number = fields.need("port")?.port()?;
    let protocol = common::port_protocol(&transport, app.as_deref(), &name, number);
    let target = target.unwrap_or(TargetPort::Number(number));
    let datagrams = protocol == tombolo_federation_model::Protocol::Udp;
    Some((ServicePort { number, name, protocol, target }, datagrams))
}

fn alias(spec: &Fields<'_>) -> Option<Host> {
    spec.need("externalName")?.host()
}

/// An alias of a host outside of the mesh is reached by its name; one of a known service never uses this slice.
fn alias_slice(head: &Head, host: &Host, target: &Host, ports: &[ServicePort]) -> EndpointSlice {
    let number = |port: &ServicePort| match port.target {
        TargetPort::Number(number) => (port.name.clone(), number),
        TargetPort::Name(_) => (port.name.clone(), port.number),
    };
    let address = match target.as_str().parse::<IpAddr>() {
        Ok(ip) => WorkloadAddress::Ip(ip),
        Err(_) => WorkloadAddress::Dns(target.clone()),
    };
    let endpoint = SliceEndpoint {
        workload: None,
        address,
        ports: ports.iter().map(number).collect(),
        health: Health::Healthy,
        labels: Arc::new(Labels::new()),
        network: None,
        cluster: None,
        locality: None,
        identity: None,
        weight: 1,
    };
    EndpointSlice {
        host: host.clone(),
        namespace: head.namespace.clone(),
        name: format!("alias/{}", head.name),
        endpoints: vec![endpoint],
    }
}

/// The addresses at which other networks reach the network that the label names.
fn network_gateways(head: &Head, object: &Fields<'_>, spec: &Fields<'_>, ports: &[ServicePort]) -> Vec<NetworkGateway> {
    let Some(network) = common::network(&head.labels, object) else { return Vec::new() };
    let labelled = head.labels.get(GATEWAY_PORT).and_then(|text| text.parse().ok());
    let usual = || ports.iter().find(|p| p.name == "tls" || p.number == NETWORK_GATEWAY_PORT).map(|p| p.number);
    let Some(port) = labelled.or_else(usual) else { return Vec::new() };
    let addresses = outside_addresses(object, spec);
    if addresses.is_empty() {
        object.at.sink.report(
            tombolo_federation_model::Severity::Info,
            code::SUSPICIOUS,
            "status.loadBalancer.ingress",
            object.at.node.line,
            format!("this gateway of network {network} has no address yet, so other networks cannot reach it"),
        );
    }
    let cluster = &object.at.sink.ctx.cluster;
    let gateway = |address| NetworkGateway { network: network.clone(), cluster: cluster.clone(), address, port };
    addresses.into_iter().map(gateway).collect()
}

fn outside_addresses(object: &Fields<'_>, spec: &Fields<'_>) -> Vec<String> {
    let mut addresses = Vec::new();
    if let Some(balancer) = object.fields("status").and_then(|status| {
        status.skip_rest();
        status.fields("loadBalancer")
    }) {
        for at in balancer.list("ingress") {
            let ingress = at.fields();
            ingress.skip(&["ports", "ipMode"]);
            addresses.extend(ingress.at("ip").or_else(|| ingress.at("hostname")).and_then(|at| at.host()));
            ingress.skip(&["hostname"]);
        }
    }
    if addresses.is_empty() {
        addresses.extend(spec.list("externalIPs").iter().filter_map(At::host));
    }
    let mut seen = BTreeMap::new();
    addresses.retain(|address| seen.insert(address.clone(), ()).is_none());
    addresses.iter().map(ToString::to_string).collect()
}
