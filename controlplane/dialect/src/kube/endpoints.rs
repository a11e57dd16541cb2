//! Owns Endpoints and EndpointSlice: addresses that somebody wrote out for a service. Those that Kubernetes derives from
//! pods are left out, because the pods themselves tell more.

use crate::{
    common,
    fields::{At, Fields},
    object::{Head, service_host},
    read::Yield,
};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{EndpointSlice, Health, Host, Labels, SliceEndpoint, WorkloadAddress};
use tombolo_federation_registry::Item;

const SERVICE: &str = "kubernetes.io/service-name";
const SLICE_OWNER: &str = "endpointslice.kubernetes.io/managed-by";
const ENDPOINTS_OWNER: &str = "endpoints.kubernetes.io/managed-by";

pub(crate) fn read_endpoints(head: &Head, object: &Fields<'_>) -> Yield {
    let subsets = object.list("subsets");
    if head.labels.contains_key(ENDPOINTS_OWNER) {
        return Yield::default();
    }
    let mut endpoints = Vec::new();
    for subset in subsets {
        let subset = subset.fields();
        let ports = ports(&subset);
        for (list, health) in [("addresses", Health::Healthy), ("notReadyAddresses", Health::Unhealthy)] {
            for at in subset.list(list) {
                let address = at.fields();
                address.skip_rest();
                let ip = address.need("ip").and_then(|at| at.ip());
                let workload = target(&address);
                endpoints.extend(ip.map(|ip| endpoint(WorkloadAddress::Ip(ip), &ports, health, workload)));
            }
        }
    }
    slice(head, object, &head.name, format!("endpoints/{}", head.name), endpoints)
}

pub(crate) fn read_slice(head: &Head, object: &Fields<'_>) -> Yield {
    let (kind, list, ports) = (object.string("addressType"), object.list("endpoints"), ports(object));
    // The mirroring controller copies Endpoints, which are read themselves.
    let derived = head.labels.get(SLICE_OWNER).is_some_and(|owner| {
        owner.starts_with("endpointslice-controller.") || owner.starts_with("endpointslicemirroring-controller.")
    });
    if derived {
        return Yield::default();
    }
    let Some(service) = head.labels.get(SERVICE) else {
        let message = format!("the label {SERVICE:?} is required: it names the service");
        common::metadata_error(object, "metadata.labels", message);
        return Yield::default();
    };
    let names = kind.is_some_and(|kind| kind == "FQDN");
    let endpoints = list.iter().flat_map(|at| slice_endpoint(&at.fields(), &ports, names)).collect();
    slice(head, object, service, head.name.clone(), endpoints)
}

fn slice_endpoint(fields: &Fields<'_>, ports: &BTreeMap<String, u16>, names: bool) -> Option<SliceEndpoint> {
    // A zone without its region tells no place; the pod behind the endpoint tells both.
    fields.skip(&["hostname", "nodeName", "hints", "deprecatedTopology", "zone"]);
    let health = health(fields);
    let workload = target(fields);
    let address = |at: &At<'_>| {
        if names { at.host().map(WorkloadAddress::Dns) } else { at.ip().map(WorkloadAddress::Ip) }
    };
    // Kubernetes allows several addresses, but says that only the first counts.
    let first = fields.list("addresses").first().and_then(address);
    first.map(|address| endpoint(address, ports, health, workload))
}

fn health(endpoint: &Fields<'_>) -> Health {
    let Some(conditions) = endpoint.fields("conditions") else { return Health::Healthy };
    let is = |name, otherwise| conditions.bool(name).unwrap_or(otherwise);
    let (ready, serving, terminating) = (is("ready", true), is("serving", true), is("terminating", false));
    match (ready, serving && terminating) {
        (true, _) => Health::Healthy,
        (false, true) => Health::Draining,
        (false, false) => Health::Unhealthy,
    }
}

/// The pod behind an address.
fn target(address: &Fields<'_>) -> Option<String> {
    let target = address.fields("targetRef")?;
    target.skip_rest();
    target.string("name").filter(|_| target.string("kind").is_some_and(|kind| kind == "Pod"))
}

fn ports(owner: &Fields<'_>) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    for at in owner.list("ports") {
        let port = at.fields();
        port.skip(&["protocol", "appProtocol"]);
        let name = port.string("name").unwrap_or_default();
        ports.extend(port.port("port").map(|number| (name, number)));
    }
    ports
}

fn endpoint(
    address: WorkloadAddress,
    ports: &BTreeMap<String, u16>,
    health: Health,
    workload: Option<String>,
) -> SliceEndpoint {
    SliceEndpoint {
        workload,
        address,
        ports: ports.clone(),
        health,
        labels: Arc::new(Labels::new()),
        network: None,
        cluster: None,
        locality: None,
        identity: None,
        weight: 1,
    }
}

fn slice(head: &Head, object: &Fields<'_>, service: &str, name: String, endpoints: Vec<SliceEndpoint>) -> Yield {
    let host: Host = match service_host(service, head.namespace.as_str(), object.at.sink.ctx) {
        Ok(host) => host,
        Err(reason) => {
            common::metadata_error(object, "metadata", reason.to_string());
            return Yield::default();
        }
    };
    Item::Slice(EndpointSlice { host, namespace: head.namespace.clone(), name, endpoints }).into()
}
