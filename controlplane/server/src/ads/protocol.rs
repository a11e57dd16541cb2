//! The two protocols of the aggregated discovery service, each as a translation between Envoy's messages and the
//! publisher that decides. Never decides anything itself.

use crate::proxies::{Progress, Speaks};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            Resource as WireResource,
        },
    },
    google::protobuf::Any,
};
use tombolo_federation_sync::{
    DeltaRequest, Plan, Publisher, Resource, Snapshot, SotwPublisher, SotwRequest, TypeStatus,
};

/// What a stream needs of a protocol.
pub(super) trait Protocol: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const SPEAKS: Speaks;

    fn new(plan: Plan) -> Self;
    fn node(request: &Self::Request) -> Option<&Node>;
    /// The reason of a refusal, with the type it is about.
    fn refusal(request: &Self::Request) -> Option<(&str, &str)>;
    fn on_request(&mut self, request: Self::Request);
    fn next(&mut self, snapshot: &Snapshot) -> Option<(Arc<str>, Self::Response)>;
    fn progress(&self) -> Progress;
}

/// Incremental.
pub(super) struct Delta(Publisher);

/// State of the world.
pub(super) struct Sotw(SotwPublisher);

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const SPEAKS: Speaks = Speaks::Delta;

    fn new(plan: Plan) -> Self {
        Self(Publisher::new(plan))
    }

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn refusal(request: &Self::Request) -> Option<(&str, &str)> {
        request.error_detail.as_ref().map(|error| (request.type_url.as_str(), error.message.as_str()))
    }

    fn on_request(&mut self, request: Self::Request) {
        self.0.on_request(&DeltaRequest {
            type_url: request.type_url.into(),
            nonce: request.response_nonce,
            error: request.error_detail.map(|error| error.message),
            refused: BTreeMap::new(),
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions.into_iter().collect(),
        });
    }

    fn next(&mut self, snapshot: &Snapshot) -> Option<(Arc<str>, Self::Response)> {
        let response = self.0.next(snapshot)?;
        let wire = |resource: &Arc<Resource>| WireResource {
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            resource: Some(any(&response.type_url, resource)),
            ..WireResource::default()
        };
        let message = DeltaDiscoveryResponse {
            system_version_info: response.system_version.clone(),
            resources: response.resources.iter().map(wire).collect(),
            type_url: response.type_url.to_string(),
            removed_resources: response.removed.iter().map(ToString::to_string).collect(),
            nonce: response.nonce.clone(),
            ..DeltaDiscoveryResponse::default()
        };
        Some((response.type_url, message))
    }

    fn progress(&self) -> Progress {
        progress(self.0.states())
    }
}

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const SPEAKS: Speaks = Speaks::Sotw;

    fn new(plan: Plan) -> Self {
        Self(SotwPublisher::new(plan))
    }

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn refusal(request: &Self::Request) -> Option<(&str, &str)> {
        request.error_detail.as_ref().map(|error| (request.type_url.as_str(), error.message.as_str()))
    }

    fn on_request(&mut self, request: Self::Request) {
        self.0.on_request(&SotwRequest {
            type_url: request.type_url.into(),
            version: request.version_info,
            nonce: request.response_nonce,
            names: request.resource_names,
            error: request.error_detail.map(|error| error.message),
        });
    }

    fn next(&mut self, snapshot: &Snapshot) -> Option<(Arc<str>, Self::Response)> {
        let response = self.0.next(snapshot)?;
        let message = DiscoveryResponse {
            version_info: response.version.clone(),
            resources: response.resources.iter().map(|resource| any(&response.type_url, resource)).collect(),
            type_url: response.type_url.to_string(),
            nonce: response.nonce.clone(),
            ..DiscoveryResponse::default()
        };
        Some((response.type_url, message))
    }

    fn progress(&self) -> Progress {
        progress(self.0.states())
    }
}

fn any(type_url: &str, resource: &Resource) -> Any {
    Any { type_url: type_url.to_owned(), value: resource.body.to_vec() }
}

fn progress<'a>(states: impl Iterator<Item = (&'a Arc<str>, &'a TypeStatus)>) -> Progress {
    let mut progress = Progress { synced: true, ..Progress::default() };
    let mut asked = false;
    for (type_url, state) in states {
        asked = true;
        progress.synced &= state.synced;
        progress.sent += state.sent;
        progress.nacked += state.nacked;
        if let Some(error) = &state.last_error {
            let name = type_url.rsplit('.').next().unwrap_or(type_url);
            progress.rejected.push(format!("{name}: {error}"));
        }
    }
    progress.synced &= asked;
    progress
}
