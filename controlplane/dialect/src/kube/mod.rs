//! Owns the kinds of Kubernetes itself. Never knows Istio's kinds, except Istio's own settings in a ConfigMap.

mod endpoints;
mod pod;
mod runs;
mod secret;
mod service;

use crate::{code, fields::Fields, istio, object::Head, read::Yield};
use tombolo_federation_model::Severity;

/// Reads an object of a group of Kubernetes.
pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    match (head.group.as_str(), head.kind.as_str()) {
        ("", "Service") => service::read(head, object),
        ("", "Pod") => pod::read(head, object),
        ("", "Endpoints") => endpoints::read_endpoints(head, object),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::read_slice(head, object),
        ("", "Secret") => secret::read(head, object),
        ("", "ConfigMap") if head.name == "istio" => istio::mesh::read(head, object),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => runs::read(head, object),
        ("batch", _) => unknown(head, object),
        _ => {
            // Namespaces, accounts, volumes and other objects that mean nothing to a mesh.
            object.skip_rest();
            Yield::default()
        }
    }
}

/// Accepts an object of which nothing is read.
pub(crate) fn unknown(head: &Head, object: &Fields<'_>) -> Yield {
    object.skip_rest();
    let message = format!("objects of kind {} are not read; this one has no effect on the mesh", head.object.kind);
    object.at.sink.report(Severity::Info, code::NOT_READ, "", object.at.node.line, message);
    Yield::default()
}
