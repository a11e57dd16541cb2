//! One stream of the scripted control plane: requests go to a publisher and into the notes, what the publisher wants goes out.

use super::{Asked, Notes, Out, Probe, Speaker, open};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::StreamExt as _;
use tombolo_controlplane_api::xds::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wrapped,
    },
    google::protobuf::Any,
};
use tombolo_federation_sync::{DeltaRequest, Plan, Publisher, Snapshot, SotwPublisher, SotwRequest};
use tonic::Streaming;

/// What every stream has.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) plan: Plan,
    pub(super) shown: watch::Receiver<Arc<Snapshot>>,
    pub(super) notes: Arc<Notes>,
}

impl Speaker for Script {
    async fn differences(self, requests: Streaming<DeltaDiscoveryRequest>, out: Out<DeltaDiscoveryResponse>) {
        let publisher = Publisher::new(self.plan.clone());
        let half = Delta { publisher, waiting: BTreeMap::new(), sent: BTreeMap::new(), number: 0 };
        self.speak(half, requests, out).await;
    }

    async fn whole(self, requests: Streaming<DiscoveryRequest>, out: Out<DiscoveryResponse>) {
        let half = World(SotwPublisher::new(self.plan.clone()));
        self.speak(half, requests, out).await;
    }
}

/// What differs between the two forms of the protocol.
trait Half {
    type Request;
    type Response;

    fn hear(&mut self, request: Self::Request, notes: &Notes);

    /// What is to be sent next.
    fn say(&mut self, snapshot: &Snapshot) -> Option<Self::Response>;

    /// What asks this; nothing where it cannot be asked.
    fn offer(&mut self, asked: Asked) -> Option<Self::Response>;
}

impl Script {
    async fn speak<H: Half>(mut self, mut half: H, mut requests: Streaming<H::Request>, out: Out<H::Response>) {
        let (probe, mut probes) = mpsc::channel(1);
        *open(&self.notes.probes) = Some(probe);
        loop {
            let mut next = None;
            tokio::select! {
                request = requests.next() => {
                    let Some(Ok(request)) = request else { return };
                    half.hear(request, &self.notes);
                }
                changed = self.shown.changed() => if changed.is_err() { return },
                Some(asked) = probes.recv() => next = half.offer(asked),
            }
            let snapshot = self.shown.borrow_and_update().clone();
            while let Some(response) = next.take().or_else(|| half.say(&snapshot)) {
                if out.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Notes {
    fn refused(&self, type_url: &str, reason: Option<&String>) {
        if let Some(reason) = reason {
            self.refusals.send_modify(|all| all.push((type_url.to_owned(), reason.clone())));
        }
    }

    fn hear(&self, type_url: &str, what: &str, names: &[String]) {
        let kind = type_url.rsplit('.').next().unwrap_or_default();
        open(&self.heard).extend(names.iter().map(|name| (format!("{kind} {what}"), name.clone())));
    }
}

struct Delta {
    publisher: Publisher,
    /// Who waits for the answer to a probe, by its nonce.
    waiting: BTreeMap<String, oneshot::Sender<Option<String>>>,
    /// Names in responses that are not answered yet, by their nonces.
    sent: BTreeMap<String, Vec<String>>,
    /// Of probes so far.
    number: u64,
}

impl Half for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn hear(&mut self, request: DeltaDiscoveryRequest, notes: &Notes) {
        let (type_url, nonce) = (request.type_url, request.response_nonce);
        let error = request.error_detail.map(|error| error.message);
        if let Some(answer) = self.waiting.remove(&nonce) {
            let _ = answer.send(error);
            return;
        }
        notes.hear(&type_url, "ask", &request.resource_names_subscribe);
        notes.hear(&type_url, "leave", &request.resource_names_unsubscribe);
        if let Some(names) = self.sent.remove(&nonce) {
            notes.hear(&type_url, if error.is_some() { "NACK" } else { "ACK" }, &names);
        }
        notes.refused(&type_url, error.as_ref());
        let held: BTreeMap<_, _> = request.initial_resource_versions.into_iter().collect();
        if nonce.is_empty() {
            open(&notes.openings).push((type_url.clone(), held.clone()));
        }
        self.publisher.on_request(&DeltaRequest {
            type_url: type_url.into(),
            nonce,
            error,
            refused: BTreeMap::new(),
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: held,
        });
    }

    fn say(&mut self, snapshot: &Snapshot) -> Option<DeltaDiscoveryResponse> {
        let response = self.publisher.next(snapshot)?;
        let type_url = response.type_url.to_string();
        let message = DeltaDiscoveryResponse {
            nonce: response.nonce,
            system_version_info: response.system_version,
            resources: response.resources.iter().map(|r| wrap(&type_url, &r.name, &r.version, &r.body)).collect(),
            removed_resources: response.removed.iter().map(ToString::to_string).collect(),
            type_url,
            ..Default::default()
        };
        self.sent.insert(message.nonce.clone(), names(&message));
        Some(message)
    }

    fn offer(&mut self, (probe, answer): Asked) -> Option<DeltaDiscoveryResponse> {
        self.number += 1;
        let nonce = format!("probe-{}", self.number);
        self.waiting.insert(nonce.clone(), answer);
        Some(offered(probe, nonce))
    }
}

/// The names that a response brings, and those that it takes away with a `-`.
fn names(message: &DeltaDiscoveryResponse) -> Vec<String> {
    let removed = message.removed_resources.iter().map(|name| format!("-{name}"));
    message.resources.iter().map(|resource| resource.name.clone()).chain(removed).collect()
}

fn wrap(type_url: &str, name: &str, version: &str, body: &[u8]) -> Wrapped {
    let content = Any { type_url: type_url.to_owned(), value: body.to_vec() };
    Wrapped { name: name.to_owned(), version: version.to_owned(), resource: Some(content), ..Default::default() }
}

fn offered(probe: Probe, nonce: String) -> DeltaDiscoveryResponse {
    let mut message = DeltaDiscoveryResponse { type_url: probe.type_url, ..Default::default() };
    match probe.body {
        Some(body) => message.resources.push(wrap(&probe.content_url, &probe.name, &nonce, &body)),
        None => message.removed_resources.push(probe.name),
    }
    message.nonce = nonce;
    message
}

/// The state of the world. Of what it hears only refusals are written down.
struct World(SotwPublisher);

impl Half for World {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn hear(&mut self, request: DiscoveryRequest, notes: &Notes) {
        let error = request.error_detail.map(|error| error.message);
        notes.refused(&request.type_url, error.as_ref());
        self.0.on_request(&SotwRequest {
            type_url: request.type_url.into(),
            version: request.version_info,
            nonce: request.response_nonce,
            names: request.resource_names,
            error,
        });
    }

    fn say(&mut self, snapshot: &Snapshot) -> Option<DiscoveryResponse> {
        let response = self.0.next(snapshot)?;
        let type_url = response.type_url.to_string();
        let any = |body: &[u8]| Any { type_url: type_url.clone(), value: body.to_vec() };
        Some(DiscoveryResponse {
            version_info: response.version,
            nonce: response.nonce,
            resources: response.resources.iter().map(|r| any(&r.body)).collect(),
            type_url: type_url.clone(),
            ..Default::default()
        })
    }

    fn offer(&mut self, _: Asked) -> Option<DiscoveryResponse> {
        // One more resource would take all others of its type away; who waits is told that there is no answer.
        None
    }
}
