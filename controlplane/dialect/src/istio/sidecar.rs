//! Owns Sidecar: what a group of sidecars imports, and how it treats hosts that it does not know.

use crate::{
    code,
    fields::{At, Fields},
    object::Head,
    read::Yield,
};
use tombolo_controlplane_core::intent::{EgressImport, ImportFrom, Intent, OutboundPolicy, SidecarScope};
use tombolo_federation_model::{Host, Namespace};

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.fields("spec") else {
        // Without a spec everything is imported, as without the object.
        return Intent::Sidecar(SidecarScope { meta: head.meta(), selector: None, egress: None, outbound: None })
            .into();
    };
    let selector = spec.fields("workloadSelector").map(|s| s.labels("labels")).filter(|labels| !labels.is_empty());
    spec.not_in_force(&["ingress", "inboundConnectionPool"]);
    let egress = spec.at("egress").map(|list| imports(&list));
    let outbound = spec.at("outboundTrafficPolicy").and_then(|at| outbound(&at));
    Intent::Sidecar(SidecarScope { meta: head.meta(), selector, egress, outbound }).into()
}

fn imports(list: &At<'_>) -> Vec<EgressImport> {
    let mut imports = Vec::new();
    for at in list.list() {
        let listener = at.fields();
        listener.not_in_force(&["port", "bind", "captureMode"]);
        let Some(hosts) = listener.need("hosts") else { continue };
        imports.extend(hosts.list().iter().filter_map(import));
    }
    imports
}

/// `NAMESPACE/HOST`.
fn import(at: &At<'_>) -> Option<EgressImport> {
    let Some((namespace, host)) = at.str()?.split_once('/') else {
        at.expected("NAMESPACE/HOST, for example \"./*\", \"*/*\" or \"shop/reviews.shop.svc.cluster.local\"");
        return None;
    };
    let namespace = match namespace {
        "*" => ImportFrom::Any,
        "." => ImportFrom::Own,
        "~" => ImportFrom::Nothing,
        name => ImportFrom::Namespace(at.parse(|_| Namespace::parse(name))?),
    };
    Some(EgressImport { namespace, host: at.parse(|_| Host::parse(host))? })
}

/// Of a sidecar or of the mesh.
pub(crate) fn outbound(at: &At<'_>) -> Option<OutboundPolicy> {
    let fields = at.fields();
    fields.not_in_force(&["egressProxy"]);
    let modes = [("REGISTRY_ONLY", OutboundPolicy::RegistryOnly), ("ALLOW_ANY", OutboundPolicy::AllowAny)];
    let Some(mode) = fields.at("mode") else {
        // The zero of the API's list of words.
        at.warn(code::SUSPICIOUS, "mode is absent, which means REGISTRY_ONLY; write it");
        return Some(OutboundPolicy::RegistryOnly);
    };
    mode.choose(&modes)
}
