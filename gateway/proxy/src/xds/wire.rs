//! Between Envoy's discovery messages and the protocol halves of `federation/sync`.
//!
//! Pure. Knows the envelope only; what is inside a resource is read by `gateway/core`.

use bytes::Bytes;
use prost::Message as _;
use std::{collections::BTreeSet, sync::Arc};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wrapped,
        },
    },
    google::{protobuf::Any, rpc::Status},
};
use tombolo_federation_sync::{DeltaRequest, DeltaResponse, Resource, SotwRequest, SotwResponse, content_version};

/// gRPC's INTERNAL, which Envoy uses for refusals.
const REFUSED: i32 = 13;
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// Every resource type that we read has its name in the first field.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

fn refusal(error: Option<String>) -> Option<Status> {
    error.map(|message| Status { code: REFUSED, message, details: Vec::new() })
}

/// A request of the delta protocol; the node goes with the first one of a stream.
pub(crate) fn delta_request(request: DeltaRequest, node: Option<Node>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node,
        type_url: request.type_url.to_string(),
        resource_names_subscribe: request.subscribe,
        resource_names_unsubscribe: request.unsubscribe,
        initial_resource_versions: request.initial_versions.into_iter().collect(),
        response_nonce: request.nonce,
        error_detail: refusal(request.error),
        ..DeltaDiscoveryRequest::default()
    }
}

/// A request of the state-of-the-world protocol.
pub(crate) fn sotw_request(request: SotwRequest, node: Option<Node>) -> DiscoveryRequest {
    DiscoveryRequest {
        node,
        version_info: request.version,
        resource_names: request.names,
        type_url: request.type_url.to_string(),
        response_nonce: request.nonce,
        error_detail: refusal(request.error),
        ..DiscoveryRequest::default()
    }
}

/// A response of the delta protocol. Resources without a body (heartbeats) change nothing; those of another type than
/// the response's are kept out and named in the second part.
pub(crate) fn delta_response(response: DeltaDiscoveryResponse) -> (DeltaResponse, Vec<(String, String)>) {
    let mut bad = Vec::new();
    let mut resources = Vec::with_capacity(response.resources.len());
    for wrapped in response.resources {
        let Some(any) = wrapped.resource else { continue };
        if any.type_url != response.type_url {
            bad.push((wrapped.name, format!("has type {} in a response of type {}", any.type_url, response.type_url)));
            continue;
        }
        resources.push(resource(wrapped.name, wrapped.version, any.value));
    }
    let out = DeltaResponse {
        type_url: Arc::from(response.type_url),
        nonce: response.nonce,
        resources,
        removed: response.removed_resources.into_iter().map(Arc::from).collect(),
        system_version: response.system_version_info,
        complete: false,
    };
    (out, bad)
}

/// A response of the state-of-the-world protocol.
pub(crate) fn sotw_response(response: DiscoveryResponse) -> (SotwResponse, Vec<(String, String)>) {
    let mut bad = Vec::new();
    let mut resources: Vec<Arc<Resource>> = Vec::with_capacity(response.resources.len());
    let mut names = BTreeSet::new();
    for any in response.resources {
        let any = match unwrap(any) {
            Ok(Some(any)) => any,
            Ok(None) => continue,
            Err(reason) => {
                bad.push((String::new(), reason));
                continue;
            }
        };
        if any.type_url != response.type_url {
            bad.push((String::new(), format!("type {} in a response of type {}", any.type_url, response.type_url)));
            continue;
        }
        let name = match Named::decode(any.value.as_slice()) {
            Ok(named) => named.name,
            Err(error) => {
                bad.push((String::new(), format!("unreadable: {error}")));
                continue;
            }
        };
        if !names.insert(name.clone()) {
            bad.push((name, "appears twice".to_owned()));
            continue;
        }
        resources.push(resource(name, String::new(), any.value));
    }
    let out = SotwResponse {
        type_url: Arc::from(response.type_url),
        version: response.version_info,
        nonce: response.nonce,
        resources,
    };
    (out, bad)
}

fn unwrap(any: Any) -> Result<Option<Any>, String> {
    if any.type_url != WRAPPER {
        return Ok(Some(any));
    }
    Wrapped::decode(any.value.as_slice()).map(|w| w.resource).map_err(|e| format!("unreadable wrapper: {e}"))
}

/// A server that gives no version gets the hash of the content, which says the same.
fn resource(name: String, version: String, body: Vec<u8>) -> Arc<Resource> {
    let body = Bytes::from(body);
    let version = if version.is_empty() { content_version(&body) } else { Arc::from(version) };
    Arc::new(Resource { name: Arc::from(name), version, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_controlplane_api::xds::envoy::config::cluster::v3::Cluster;

    const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    fn any(name: &str) -> Any {
        Any { type_url: CLUSTER.into(), value: Cluster { name: name.into(), ..Cluster::default() }.encode_to_vec() }
    }

    #[test]
    fn names_are_found_in_plain_and_wrapped_resources() {
        let wrapped = Wrapped { name: "b".into(), resource: Some(any("b")), ..Wrapped::default() };
        let response = DiscoveryResponse {
            type_url: CLUSTER.into(),
            resources: vec![any("a"), Any { type_url: WRAPPER.into(), value: wrapped.encode_to_vec() }, any("a")],
            ..DiscoveryResponse::default()
        };
        let (out, bad) = sotw_response(response);
        assert_eq!(out.resources.iter().map(|r| &*r.name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(bad, [("a".to_owned(), "appears twice".to_owned())]);
    }

    #[test]
    fn a_stranger_in_a_delta_response_is_named() {
        let stranger = Any { type_url: "type.googleapis.com/x".into(), value: Vec::new() };
        let response = DeltaDiscoveryResponse {
            type_url: CLUSTER.into(),
            resources: vec![
                Wrapped { name: "a".into(), version: "1".into(), resource: Some(any("a")), ..Wrapped::default() },
                Wrapped { name: "s".into(), resource: Some(stranger), ..Wrapped::default() },
                Wrapped { name: "heartbeat".into(), ..Wrapped::default() },
            ],
            ..DeltaDiscoveryResponse::default()
        };
        let (out, bad) = delta_response(response);
        assert_eq!(out.resources.len(), 1);
        assert_eq!(bad.len(), 1);
    }
}
