//! Owns PeerAuthentication: whether servers take plaintext.

use crate::{
    code, common,
    fields::{At, Fields},
    object::Head,
    read::Yield,
    text::Value,
};
use std::collections::BTreeMap;
use tombolo_controlplane_core::intent::{Intent, MutualTls, PeerAuthentication};

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let spec = object.at("spec").map(|at| at.fields());
    let selector = spec.as_ref().and_then(|spec| common::match_labels(spec.fields("selector")));
    let mode = spec.as_ref().and_then(|spec| spec.at("mtls")).and_then(|at| mode(&at));
    let list = spec.as_ref().and_then(|spec| spec.at("portLevelMtls"));
    let ports = list.as_ref().map(ports).unwrap_or_default();
    if let Some(list) = list.filter(|_| selector.is_none() && !ports.is_empty()) {
        list.error(code::REQUIRED, "ports can be treated apart only for selected workloads; add selector.matchLabels");
    }
    Intent::PeerAuthentication(PeerAuthentication { meta: head.meta(), selector, mode, ports }).into()
}

fn mode(at: &At<'_>) -> Option<MutualTls> {
    let modes = [
        ("UNSET", None),
        ("DISABLE", Some(MutualTls::Disable)),
        ("PERMISSIVE", Some(MutualTls::Permissive)),
        ("STRICT", Some(MutualTls::Strict)),
    ];
    at.fields().at("mode")?.choose(&modes).flatten()
}

fn ports(at: &At<'_>) -> BTreeMap<u16, Option<MutualTls>> {
    let mut ports = BTreeMap::new();
    for (key, at) in at.entries() {
        let Some(port) = key.parse::<u16>().ok().filter(|port| *port != 0) else {
            at.error(code::BAD_VALUE, format!("{key:?} is no port number of the workload"));
            continue;
        };
        ports.insert(port, if at.node.value == Value::Null { None } else { mode(&at) });
    }
    ports
}
