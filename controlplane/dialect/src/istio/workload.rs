//! Owns WorkloadEntry, WorkloadGroup, and the form of an endpoint that ServiceEntry shares with them.

use crate::{
    code, common,
    fields::{At, Fields},
    object::Head,
    read::Yield,
    run::{RunKind, RunPort, RunSpec},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tombolo_federation_model::{
    Health, Host, Labels, Locality, NetworkId, Protocol, TlsMode, Workload, WorkloadAddress,
};
use tombolo_federation_registry::Item;

/// What an entry, an endpoint and a template say alike.
pub(crate) struct Entry {
    pub(crate) address: Option<WorkloadAddress>,
    pub(crate) ports: BTreeMap<String, u16>,
    pub(crate) labels: Labels,
    pub(crate) network: Option<NetworkId>,
    pub(crate) locality: Option<Locality>,
    pub(crate) weight: u32,
    pub(crate) service_account: String,
}

impl Entry {
    pub(crate) fn read(fields: &Fields<'_>) -> Self {
        let address = fields.at("address").and_then(|at| address(&at));
        let network =
            fields.at("network").filter(|at| at.node.text() != Some("")).and_then(|at| at.parse(NetworkId::parse));
        let by_network = network.is_some() && fields.at("address").is_none_or(|at| at.node.text() == Some(""));
        let mut ports = BTreeMap::new();
        for (name, at) in fields.at("ports").map(|at| at.entries()).unwrap_or_default() {
            ports.extend(at.port().map(|number| (name.to_owned(), number)));
        }
        let labels = fields.labels("labels");
        let written = fields.string("locality").filter(|text| !text.is_empty()).map(|text| Locality::parse(&text));
        Self {
            address: address.or(by_network.then_some(WorkloadAddress::ByNetwork)),
            ports,
            network,
            locality: written.or_else(|| common::locality(&labels)),
            weight: fields.u32("weight").unwrap_or(0).max(1),
            service_account: fields.string("serviceAccount").unwrap_or_default(),
            labels,
        }
    }

    pub(crate) fn tls(&self) -> TlsMode {
        common::tls_mode(&self.labels)
    }
}

/// An IP address, a socket path, or a name.
pub(crate) fn address(at: &At<'_>) -> Option<WorkloadAddress> {
    let text = at.str().filter(|text| !text.is_empty())?;
    if let Some(path) = text.strip_prefix("unix://") {
        let good = path.starts_with('/') || path.starts_with('@');
        if !good {
            at.error(code::BAD_VALUE, "a socket must be named by its whole path, as in unix:///run/app.sock");
        }
        return good.then(|| WorkloadAddress::Unix(path.to_owned()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(WorkloadAddress::Ip(ip));
    }
    let host = at.parse(Host::parse)?;
    if host.is_wildcard() {
        at.error(code::BAD_VALUE, "an address must be one host, not a pattern");
        return None;
    }
    Some(WorkloadAddress::Dns(host))
}

pub(crate) fn read_entry(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let mut entry = Entry::read(&spec);
    let Some(address) = entry.address.take() else {
        spec.at.error(
            code::REQUIRED,
            "an address is required; without one name the network through whose gateway it is reached",
        );
        return Yield::default();
    };
    // Both places may label a workload; the spec is what selectors look at, and wins.
    let mut labels = head.labels.clone();
    labels.append(&mut entry.labels);
    Item::Workload(Workload {
        name: head.name.clone(),
        namespace: head.namespace.clone(),
        addresses: vec![address],
        ports: entry.ports,
        served_ports: common::served_ports(head, object),
        service_account: entry.service_account,
        network: entry.network.or_else(|| common::network(&labels, object)),
        locality: entry.locality.or_else(|| common::locality(&labels)),
        health: Health::Healthy,
        tls: common::tls_mode(&labels),
        labels: Arc::new(labels),
        weight: entry.weight,
        origin: head.object.clone(),
    })
    .into()
}

pub(crate) fn read_group(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    spec.skip(&["probe"]);
    let metadata = spec.fields("metadata");
    let marks = |name| metadata.as_ref().map(|m| m.labels(name)).unwrap_or_default();
    let (mut labels, annotations) = (marks("labels"), marks("annotations"));
    let Some(template) = spec.need("template").map(|at| at.fields()) else { return Yield::default() };
    let entry = Entry::read(&template);
    labels.extend(entry.labels);
    let port = |(name, number): (String, u16)| {
        let protocol = Protocol::from_port_name(&name).unwrap_or_default();
        RunPort { name, number, protocol }
    };
    let mut ports: Vec<_> = entry.ports.into_iter().map(port).collect();
    ports.sort_by_key(|port| port.number);
    RunSpec {
        kind: RunKind::WorkloadGroup,
        object: head.object.clone(),
        name: head.name.clone(),
        namespace: head.namespace.clone(),
        annotations,
        service_account: if entry.service_account.is_empty() { "default".to_owned() } else { entry.service_account },
        ports,
        replicas: 1,
        hostname: None,
        network: entry.network.or_else(|| common::network(&labels, object)),
        locality: entry.locality.or_else(|| common::locality(&labels)),
        sidecar: true,
        labels,
    }
    .into()
}
