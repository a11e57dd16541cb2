//! Owns Istio's kinds. All versions of a group have one schema.

mod backend;
mod destination;
mod destination_policy;
mod gateway;
mod http_action;
mod http_match;
mod http_policy;
pub(crate) mod mesh;
mod security;
mod service_entry;
mod sidecar;
mod tcp;
mod virtual_service;
mod withdrawn;
mod workload;

pub(crate) use http_match::is_header_name;
pub(crate) use http_policy::{check_name as check_header_name, header_value};
pub(crate) use withdrawn::withdrawn;

use crate::{code, fields::Fields, kube, object::Head, read::Yield};
use tombolo_federation_model::Severity;

/// Reads an object of a group of Istio's.
pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    if !matches!(head.version.as_str(), "v1" | "v1beta1" | "v1alpha3" | "v1alpha1") {
        let message = format!("version {} is unknown; it is read as v1", head.version);
        object.at.sink.report(Severity::Warning, code::SUSPICIOUS, "apiVersion", object.at.node.line, message);
    }
    match head.kind.as_str() {
        "VirtualService" => virtual_service::read(head, object),
        "DestinationRule" => destination::read(head, object),
        "Gateway" => gateway::read(head, object),
        "ServiceEntry" => service_entry::read(head, object),
        "WorkloadEntry" => workload::read_entry(head, object),
        "WorkloadGroup" => workload::read_group(head, object),
        "Sidecar" => sidecar::read(head, object),
        "PeerAuthentication" => security::read(head, object),
        "AuthorizationPolicy" | "RequestAuthentication" => not_enforced(head, object),
        "EnvoyFilter" | "WasmPlugin" | "ProxyConfig" | "Telemetry" | "TrafficExtension" => not_in_force(head, object),
        _ => kube::unknown(head, object),
    }
}

/// A rule that protects something must not look as if it did.
fn not_enforced(head: &Head, object: &Fields<'_>) -> Yield {
    object.skip_rest();
    object.at.error(
        code::NOT_ENFORCED,
        format!(
            "the kind {} is not enforced yet, so it is refused instead of accepted without effect; until then protect the workload by a PeerAuthentication with mode STRICT, or in the application",
            head.kind
        ),
    );
    Yield::default()
}

fn not_in_force(head: &Head, object: &Fields<'_>) -> Yield {
    object.skip_rest();
    let instead = match head.kind.as_str() {
        "EnvoyFilter" => {
            "it changes the configuration of another proxy; use VirtualService and DestinationRule fields where they exist"
        }
        "WasmPlugin" | "TrafficExtension" => "extensions are not loaded",
        "Telemetry" => "metrics and access logs have the mesh's settings",
        _ => "the proxy has its own settings",
    };
    object.at.warn(code::NOT_IN_FORCE, format!("the kind {} is accepted, but not in force yet: {instead}", head.kind));
    Yield::default()
}
