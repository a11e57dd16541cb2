//! Owns what routes of every protocol share: destinations, weights, attachments, subnets.

use crate::{
    code,
    fields::{At, Fields},
    object::{Head, rule_host},
};
use tombolo_controlplane_core::intent::{Attachment, NamedRef, Target, TcpBackend};
use tombolo_federation_model::{Host, Namespace};

/// Where a rule without `gateways` is in force.
const MESH: &str = "mesh";

/// A host in the form that rules write.
pub(crate) fn host(at: &At<'_>, head: &Head) -> Option<Host> {
    at.parse(|text| rule_host(text, &head.namespace, at.sink.ctx))
}

/// `destination: {host, subset, port}`.
pub(crate) fn destination(at: &At<'_>, head: &Head) -> Option<Target> {
    let fields = at.fields();
    let subset = fields.string("subset").filter(|name| !name.is_empty());
    let port = fields.fields("port").and_then(|port| port.port("number"));
    let host = fields.need("host").and_then(|at| host(&at, head))?;
    if host.is_wildcard() {
        at.error(code::BAD_VALUE, "a destination must be one host, not a pattern");
        return None;
    }
    Some(Target { host, subset, port })
}

/// Relative shares. One alone does not matter; of several at least one must be more than zero.
pub(crate) fn check_weights(list: &At<'_>, weights: &[u32]) {
    if weights.len() > 1 && weights.iter().all(|weight| *weight == 0) {
        list.error(
            code::BAD_VALUE,
            "all weights are zero, so no destination gets a request; give at least one a weight",
        );
    }
    if weights.iter().map(|w| u64::from(*w)).sum::<u64>() > u64::from(u32::MAX) {
        list.error(code::BAD_VALUE, "the sum of the weights is larger than 4294967295");
    }
}

/// The weighted destinations of plain connections.
pub(crate) fn tcp_backends(rule: &Fields<'_>, head: &Head) -> Vec<TcpBackend> {
    let Some(list) = rule.need("route") else { return Vec::new() };
    let mut backends = Vec::new();
    for at in list.list() {
        let fields = at.fields();
        let weight = fields.u32("weight").unwrap_or(0);
        let destination = fields.need("destination").and_then(|at| destination(&at, head));
        backends.extend(destination.map(|destination| TcpBackend { destination, weight }));
    }
    let weights: Vec<_> = backends.iter().map(|b| b.weight).collect();
    check_weights(&list, &weights);
    if backends.is_empty() {
        list.error(code::REQUIRED, "at least one destination is required");
    }
    only_one(&mut backends, |backend| &mut backend.weight);
    backends
}

/// A single destination takes everything, whatever its weight says.
pub(crate) fn only_one<T>(backends: &mut [T], weight: impl Fn(&mut T) -> &mut u32) {
    if let [only] = backends {
        let weight = weight(only);
        *weight = (*weight).max(1);
    }
}

/// `gateways`: the mesh's sidecars, and gateway objects as `name` or `namespace/name`.
pub(crate) fn attachments(owner: &Fields<'_>, head: &Head) -> Vec<Attachment> {
    owner.list("gateways").iter().filter_map(|at| attachment(at, head)).collect()
}

fn attachment(at: &At<'_>, head: &Head) -> Option<Attachment> {
    let text = at.str()?;
    if text == MESH {
        return Some(Attachment::Mesh);
    }
    let gateway = named_ref(at, text, &head.namespace)?;
    Some(Attachment::Gateway { gateway, section: None, port: None })
}

/// `name` or `namespace/name`.
pub(crate) fn named_ref(at: &At<'_>, text: &str, own: &Namespace) -> Option<NamedRef> {
    let (namespace, name) = text.split_once('/').unwrap_or((own.as_str(), text));
    if name.is_empty() || name.contains('/') {
        at.expected("NAME or NAMESPACE/NAME");
        return None;
    }
    // Old manifests name a gateway by its full host; only the first part was ever its name.
    let (name, namespace) = match text.contains('/') {
        false if name.contains(".svc.") => {
            let mut parts = name.split('.');
            (parts.next().unwrap_or(name), parts.next().unwrap_or(namespace))
        }
        _ => (name, namespace),
    };
    let namespace = match namespace {
        "." => own.clone(),
        namespace => at.parse(|_| Namespace::parse(namespace))?,
    };
    Some(NamedRef { namespace, name: name.to_owned() })
}

/// Networks in CIDR form, or single addresses.
pub(crate) fn subnets(owner: &Fields<'_>, name: &'static str) -> Vec<ipnet::IpNet> {
    let parse = |text: &str| {
        let single = text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
        single
            .or_else(|_| text.parse::<ipnet::IpNet>())
            .map_err(|_| format!("{text:?} is no address and no network like 10.0.0.0/8"))
    };
    owner.list(name).iter().filter_map(|at| at.parse(parse)).map(|net| net.trunc()).collect()
}
