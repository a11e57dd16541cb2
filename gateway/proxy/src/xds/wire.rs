//! Between Envoy's discovery messages and the protocol halves of `federation/sync`.
//!
//! Pure. Knows the envelope only; what is inside a resource is read by `gateway/core`.

use ahash::AHashSet;
use bytes::Bytes;
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wrapped,
        },
    },
    google::{
        protobuf::{Any, Duration as Span},
        rpc::Status,
    },
};
use tombolo_federation_sync::{
    DeltaRequest, DeltaResponse, Resource, SotwRequest, SotwResponse, content_version, types,
};

/// gRPC's INTERNAL, which Envoy uses for refusals.
const REFUSED: i32 = 13;
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// Every resource type that we read has its name in the first field.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Named {
    /// Its name.
    #[prost(string, tag = "1")]
    pub(super) name: String,
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

/// What comes beside the resources of a response.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// What has no business in the response, by name, and why.
    pub(crate) strangers: Vec<(String, String)>,
    /// How long resources live from now on, also those that came without a body as a sign of life.
    pub(crate) lives: Vec<(Arc<str>, Option<Duration>)>,
    /// Other names of resources, under which they may have been asked for, with their own.
    pub(crate) aliases: Vec<(Arc<str>, Arc<str>)>,
    /// Names of which the response says something, also what is known already.
    pub(crate) told: Vec<Arc<str>>,
}

/// A response of the delta protocol. A resource without a body is a sign of life; of virtual hosts it says that there is none for
/// these names. Resources of another type than the response's are kept out.
pub(crate) fn delta_response(response: DeltaDiscoveryResponse) -> (DeltaResponse, Beside) {
    let mut beside = Beside::default();
    let mut resources = Vec::with_capacity(response.resources.len());
    let mut removed: Vec<Arc<str>> = response.removed_resources.into_iter().map(Arc::from).collect();
    for wrapped in response.resources {
        let name: Arc<str> = Arc::from(wrapped.name);
        let Some(any) = wrapped.resource else {
            if response.type_url == types::VIRTUAL_HOST {
                removed.extend(wrapped.aliases.into_iter().map(Arc::from).chain([name]));
            } else {
                beside.lives.push((name, wrapped.ttl.and_then(life)));
            }
            continue;
        };
        if any.type_url != response.type_url {
            let reason = format!("has type {} in a response of type {}", any.type_url, response.type_url);
            beside.strangers.push((name.to_string(), reason));
            continue;
        }
        beside.lives.push((name.clone(), wrapped.ttl.and_then(life)));
        beside.aliases.extend(wrapped.aliases.into_iter().map(|alias| (Arc::from(alias), name.clone())));
        resources.push(resource(name, wrapped.version, any.value));
    }
    beside.told.extend(resources.iter().map(|resource| resource.name.clone()));
    beside.told.extend(removed.iter().cloned().chain(beside.aliases.iter().map(|(alias, _)| alias.clone())));
    let out = DeltaResponse {
        type_url: Arc::from(response.type_url),
        nonce: response.nonce,
        resources,
        removed,
        system_version: response.system_version_info,
        complete: false,
    };
    (out, beside)
}

fn life(ttl: Span) -> Option<Duration> {
    Some(Duration::new(u64::try_from(ttl.seconds).ok()?, u32::try_from(ttl.nanos).ok()?))
}

/// A response of the state-of-the-world protocol.
pub(crate) fn sotw_response(response: DiscoveryResponse) -> (SotwResponse, Beside) {
    let mut beside = Beside::default();
    let mut resources: Vec<Arc<Resource>> = Vec::with_capacity(response.resources.len());
    let mut names = AHashSet::new();
    for any in response.resources {
        match sotw_resource(any, &response.type_url) {
            Ok((name, ttl, None)) => beside.lives.push((name.into(), ttl)),
            Ok((name, _, Some(_))) if !names.insert(name.clone()) => {
                beside.strangers.push((name, "appears twice".to_owned()));
            }
            Ok((name, ttl, Some(body))) => {
                let name: Arc<str> = name.into();
                beside.lives.push((name.clone(), ttl));
                resources.push(resource(name, String::new(), body));
            }
            Err(reason) => beside.strangers.push((String::new(), reason)),
        }
    }
    let out = SotwResponse {
        type_url: Arc::from(response.type_url),
        version: response.version_info,
        nonce: response.nonce,
        resources,
    };
    (out, beside)
}

/// Name, life and body.
type Unwrapped = (String, Option<Duration>, Option<Vec<u8>>);

/// What a resource is, wrapped or not.
fn sotw_resource(any: Any, type_url: &str) -> Result<Unwrapped, String> {
    let (name, ttl, any) = if any.type_url == WRAPPER {
        let wrapped = Wrapped::decode(any.value.as_slice()).map_err(|e| format!("unreadable wrapper: {e}"))?;
        (wrapped.name, wrapped.ttl.and_then(life), wrapped.resource)
    } else {
        (String::new(), None, Some(any))
    };
    let Some(any) = any else { return Ok((name, ttl, None)) };
    if any.type_url != type_url {
        return Err(format!("type {} in a response of type {type_url}", any.type_url));
    }
    let named = Named::decode(any.value.as_slice()).map_err(|error| format!("unreadable: {error}"))?;
    Ok((named.name, ttl, Some(any.value)))
}

/// A server that gives no version gets the hash of the content, which says the same.
fn resource(name: Arc<str>, version: String, body: Vec<u8>) -> Arc<Resource> {
    let body = Bytes::from(body);
    let version = if version.is_empty() { content_version(&body) } else { Arc::from(version) };
    Arc::new(Resource { name, version, body })
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
        assert_eq!(bad.strangers, [("a".to_owned(), "appears twice".to_owned())]);
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
        assert_eq!(bad.strangers.len(), 1);
        assert_eq!(bad.lives.len(), 2, "a resource without a body is a sign of life");
    }

    #[test]
    fn a_virtual_host_is_told_under_all_its_names() {
        let host = Wrapped {
            name: "t/h".into(),
            aliases: vec!["t/h.example".into()],
            resource: Some(Any { type_url: types::VIRTUAL_HOST.into(), value: Vec::new() }),
            ..Wrapped::default()
        };
        let response = DeltaDiscoveryResponse {
            type_url: types::VIRTUAL_HOST.into(),
            resources: vec![host],
            removed_resources: vec!["t/gone".into()],
            ..DeltaDiscoveryResponse::default()
        };
        let (_, beside) = delta_response(response);
        assert_eq!(beside.aliases, [("t/h.example".into(), "t/h".into())]);
        assert_eq!(beside.told.iter().map(|name| &**name).collect::<Vec<_>>(), ["t/h", "t/gone", "t/h.example"]);
    }

    #[test]
    fn a_virtual_host_without_a_body_is_none() {
        let none = Wrapped { name: "t/h".into(), aliases: vec!["t/alias".into()], ..Wrapped::default() };
        let response = DeltaDiscoveryResponse {
            type_url: types::VIRTUAL_HOST.into(),
            resources: vec![none],
            ..DeltaDiscoveryResponse::default()
        };
        let (out, _) = delta_response(response);
        assert_eq!(out.removed.iter().map(|name| &**name).collect::<Vec<_>>(), ["t/alias", "t/h"]);
    }
}
