//! Views for a person who debugs: the merged registry and a proxy's configuration, as JSON. Nothing depends on their shape.

use serde_json::{Map, Value, json};
use tombolo_federation_registry::Registry;
use tombolo_federation_sync::Snapshot;

/// Every service with its endpoints, and every gateway.
#[must_use]
pub fn registry(registry: &Registry) -> Value {
    let services: Vec<Value> = registry
        .services()
        .map(|service| {
            json!({
                "host": service.key.host,
                "namespace": service.key.namespace,
                "clusters": service.clusters,
                "ports": service.ports,
                "resolution": service.resolution,
                "scope": service.scope,
                "exported": service.exported,
                "imported": service.imported,
                "endpoints": service.endpoints,
            })
        })
        .collect();
    let gateways: Map<String, Value> =
        registry.gateways().iter().map(|(network, gateways)| (network.to_string(), json!(gateways))).collect();
    json!({ "services": services, "gateways": gateways })
}

/// Names, versions and sizes of what a proxy is told, by type. The bodies are the proxy's to show.
#[must_use]
pub fn snapshot(snapshot: &Snapshot) -> Value {
    let types: Map<String, Value> = snapshot
        .types
        .iter()
        .map(|(type_url, set)| {
            let resources: Vec<Value> = set
                .values()
                .map(|r| json!({ "name": &*r.name, "version": &*r.version, "bytes": r.body.len() }))
                .collect();
            (type_url.to_string(), Value::Array(resources))
        })
        .collect();
    json!({ "revision": snapshot.revision, "types": types })
}
