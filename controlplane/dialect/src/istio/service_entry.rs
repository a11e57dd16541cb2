//! Owns ServiceEntry: one service for each host, with its endpoints written out, selected, or resolved by name.

use super::workload::Entry;
use crate::{
    code, common,
    fields::{At, Fields},
    object::Head,
    read::Yield,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tombolo_federation_model::{
    EndpointSlice, Health, Host, Identity, Labels, Protocol, Resolution, Scope, Service, ServicePort, SliceEndpoint,
    TargetPort, TlsMode, WorkloadAddress,
};
use tombolo_federation_registry::Item;

const MAX_HOSTS: usize = 256;

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let hosts = hosts(&spec);
    let ports = ports(&spec);
    let written = [("MESH_EXTERNAL", Scope::External), ("MESH_INTERNAL", Scope::Mesh)];
    let scope = spec.at("location").and_then(|at| at.choose(&written)).unwrap_or(Scope::External);
    let resolution = resolution(&spec);
    let selector = selector(&spec);
    let endpoints = endpoints(&spec, head, &ports);
    check(&spec, resolution, &hosts, &endpoints);
    if selector.is_some() && spec.present("endpoints") {
        spec.at.error(code::CONFLICTING_FIELDS, "endpoints and workloadSelector exclude each other; keep one");
    }
    let Some(first) = hosts.first() else { return Yield::default() };
    let service = Service {
        host: first.clone(),
        namespace: head.namespace.clone(),
        name: head.name.clone(),
        labels: head.labels.clone(),
        addresses: addresses(&spec),
        resolution: if selector.is_some() && resolution == Resolution::Static {
            Resolution::Registry
        } else {
            resolution
        },
        selector,
        scope,
        headless: false,
        visibility: common::export_to(spec.at("exportTo"), &head.namespace),
        subject_alt_names: spec.strings("subjectAltNames"),
        created: head.created,
        origin: head.object.clone(),
        alias_of: None,
        crossing: false,
        ports,
    };
    let items = hosts.into_iter().flat_map(|host| of_host(&service, host, &endpoints)).collect();
    Yield { items, ..Yield::default() }
}

/// The service of one host and its slice.
fn of_host(pattern: &Service, host: Host, endpoints: &[SliceEndpoint]) -> Vec<Item> {
    let mut endpoints = endpoints.to_vec();
    let by_name = matches!(pattern.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if endpoints.is_empty() && by_name && pattern.selector.is_none() && !host.is_wildcard() {
        // Without endpoints the host itself is resolved.
        let ports = pattern.ports.iter().map(|port| (port.name.clone(), default_number(port))).collect();
        endpoints.push(endpoint(WorkloadAddress::Dns(host.clone()), ports));
    }
    let mut items = vec![Item::Service(Service { host: host.clone(), ..pattern.clone() })];
    if !endpoints.is_empty() {
        let name = format!("entry/{}/{host}", pattern.name);
        items.push(Item::Slice(EndpointSlice { host, namespace: pattern.namespace.clone(), name, endpoints }));
    }
    items
}

fn hosts(spec: &Fields<'_>) -> Vec<Host> {
    let Some(list) = spec.need("hosts") else { return Vec::new() };
    let mut hosts: Vec<Host> = Vec::new();
    for at in list.list() {
        let Some(host) = at.host() else { continue };
        if host.as_str() == "*" {
            at.error(
                code::BAD_VALUE,
                "\"*\" would be every host there is; name hosts, or a pattern like \"*.example.com\"",
            );
        } else if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    if hosts.is_empty() || hosts.len() > MAX_HOSTS {
        list.error(code::BAD_VALUE, format!("it must have 1 to {MAX_HOSTS} hosts"));
    }
    hosts
}

fn addresses(spec: &Fields<'_>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for at in spec.list("addresses") {
        let Some(text) = at.str() else { continue };
        match (text.parse::<IpAddr>(), text.parse::<ipnet::IpNet>()) {
            (Ok(ip), _) => addresses.push(ip),
            (_, Ok(net)) if net.prefix_len() == net.max_prefix_len() => addresses.push(net.addr()),
            (_, Ok(_)) => at.warn(code::NOT_IN_FORCE, "networks are not matched yet, only single addresses"),
            _ => at.expected("an address"),
        }
    }
    addresses
}

fn ports(spec: &Fields<'_>) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for at in spec.list("ports") {
        let Some(port) = port(&at.fields()) else { continue };
        if ports.iter().any(|other| other.number == port.number || other.name == port.name) {
            at.error(
                code::BAD_VALUE,
                format!("port {} {:?} stands twice; numbers and names must be unique", port.number, port.name),
            );
        }
        ports.push(port);
    }
    ports.sort_by_key(|port| port.number);
    ports
}

fn port(fields: &Fields<'_>) -> Option<ServicePort> {
    let name = fields.string("name").unwrap_or_default();
    let target = fields.at("targetPort").and_then(|at| at.port());
    let known = |text: &str| {
        Protocol::parse(text)
            .ok_or_else(|| format!("{text:?} is no protocol; write for example HTTP, HTTPS, TLS, GRPC or TCP"))
    };
    let said = fields.at("protocol").filter(|at| at.node.text() != Some("")).and_then(|at| at.parse(known));
    let number = fields.need("number")?.port()?;
    let protocol = said.unwrap_or_else(|| common::port_protocol("TCP", None, &name, number));
    Some(ServicePort { number, name, protocol, target: TargetPort::Number(target.unwrap_or(number)) })
}

fn default_number(port: &ServicePort) -> u16 {
    match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => port.number,
    }
}

fn resolution(spec: &Fields<'_>) -> Resolution {
    let Some(at) = spec.at("resolution") else { return Resolution::Passthrough };
    let words = [
        ("NONE", Resolution::Passthrough),
        ("STATIC", Resolution::Static),
        ("DNS", Resolution::Dns),
        ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
    ];
    at.choose(&words).unwrap_or(Resolution::Passthrough)
}

fn selector(spec: &Fields<'_>) -> Option<Labels> {
    let labels = spec.fields("workloadSelector")?.labels("labels");
    if labels.is_empty() {
        spec.at.error(code::REQUIRED, "workloadSelector needs labels, because an empty one would select nothing");
    }
    Some(labels)
}

fn endpoints(spec: &Fields<'_>, head: &Head, ports: &[ServicePort]) -> Vec<SliceEndpoint> {
    spec.list("endpoints").iter().filter_map(|at| written_endpoint(at, head, ports)).collect()
}

fn written_endpoint(at: &At<'_>, head: &Head, ports: &[ServicePort]) -> Option<SliceEndpoint> {
    let fields = at.fields();
    let mut entry = Entry::read(&fields);
    for name in entry.ports.keys().filter(|name| !ports.iter().any(|port| port.name == **name)) {
        at.warn(code::SUSPICIOUS, format!("no port of this entry is named {name:?}, so this number is not used"));
    }
    let Some(address) = entry.address.take() else {
        at.error(
            code::REQUIRED,
            "an address is required; without one name the network through whose gateway it is reached",
        );
        return None;
    };
    let numbers = ports
        .iter()
        .map(|port| (port.name.clone(), entry.ports.get(&port.name).copied().unwrap_or(default_number(port))));
    let base = endpoint(address, numbers.collect());
    Some(SliceEndpoint {
        identity: identity(at, head, &entry),
        labels: Arc::new(entry.labels),
        network: entry.network,
        locality: entry.locality,
        weight: entry.weight,
        ..base
    })
}

/// An endpoint with a sidecar presents the identity of its account.
fn identity(at: &At<'_>, head: &Head, entry: &Entry) -> Option<Identity> {
    if entry.tls() == TlsMode::Disabled {
        return None;
    }
    let account = if entry.service_account.is_empty() { "default" } else { &entry.service_account };
    match Identity::workload(&at.sink.ctx.trust_domain, head.namespace.as_str(), account) {
        Ok(identity) => Some(identity),
        Err(reason) => {
            at.error(code::BAD_VALUE, reason.to_string());
            None
        }
    }
}

fn endpoint(address: WorkloadAddress, ports: BTreeMap<String, u16>) -> SliceEndpoint {
    SliceEndpoint {
        workload: None,
        address,
        ports,
        health: Health::Healthy,
        labels: Arc::new(Labels::new()),
        network: None,
        cluster: None,
        locality: None,
        identity: None,
        weight: 1,
    }
}

/// What goes together with which resolution.
fn check(spec: &Fields<'_>, resolution: Resolution, hosts: &[Host], endpoints: &[SliceEndpoint]) {
    let complain = |message: &str| spec.at.error(code::BAD_VALUE, message);
    match resolution {
        Resolution::Passthrough if !endpoints.is_empty() => {
            complain(
                "resolution NONE sends connections where the client wanted, so endpoints would not be used; write STATIC or DNS",
            );
        }
        Resolution::Static if endpoints.iter().any(|e| matches!(e.address, WorkloadAddress::Dns(_))) => {
            complain("resolution STATIC needs IP addresses; for names write resolution: DNS");
        }
        Resolution::Dns | Resolution::DnsRoundRobin if endpoints.is_empty() && hosts.iter().any(Host::is_wildcard) => {
            complain("a pattern cannot be resolved; add endpoints, or write resolution: NONE");
        }
        Resolution::DnsRoundRobin if endpoints.len() > 1 => {
            complain("resolution DNS_ROUND_ROBIN takes at most one endpoint; write resolution: DNS");
        }
        _ => {}
    }
}
