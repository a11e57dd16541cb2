//! A small control plane for one side: delta ADS with the publisher that the real one uses, and probes, which offer one
//! resource out of turn and say whether it was taken. Owns nothing of what the resources mean.

use anyhow::Result;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tombolo_controlplane_api::xds::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wrapped,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    google::protobuf::Any,
};
use tombolo_federation_sync::{DeltaRequest, Plan, Publisher, Resource, Snapshot};
use tonic::{Request, Response, Status, Streaming};

/// A resource that is offered out of turn.
pub struct Probe {
    /// Type in the envelope.
    pub type_url: String,
    /// Type of the content, which may be a wrong one.
    pub content_url: String,
    /// Name in the envelope.
    pub name: String,
    /// The encoded message; `None` takes the name away.
    pub body: Option<Vec<u8>>,
}

/// What a proxy said on its stream, in order: `Cluster ask`, `Cluster leave`, `Cluster ACK` or `Cluster NACK`, and a name.
pub type Heard = Vec<(String, String)>;

type Asked = (Probe, oneshot::Sender<Option<String>>);

/// The control plane of one side.
pub struct Ads {
    /// Where it listens.
    pub address: SocketAddr,
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// What was refused: type and reason.
    pub refusals: Arc<Mutex<Vec<(String, String)>>>,
    heard: Arc<Mutex<Heard>>,
    probes: Arc<Mutex<Option<mpsc::Sender<Asked>>>>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    refusals: Arc<Mutex<Vec<(String, String)>>>,
    heard: Arc<Mutex<Heard>>,
    probes: Arc<Mutex<Option<mpsc::Sender<Asked>>>>,
}

impl Ads {
    /// Listens and serves.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(ip: &str) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let (snapshot, seen) = watch::channel(Arc::new(Snapshot::default()));
        let service =
            Service { snapshot: seen, refusals: Arc::default(), heard: Arc::default(), probes: Arc::default() };
        let (refusals, heard, probes) = (service.refusals.clone(), service.heard.clone(), service.probes.clone());
        let server = tokio::spawn(async move {
            let service = AggregatedDiscoveryServiceServer::new(service).max_decoding_message_size(64 << 20);
            let router = tonic::transport::Server::builder().add_service(service);
            // Ends with the task, which the owner aborts.
            let _ = router.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(Self { address, snapshot, refusals, heard, probes, server })
    }

    /// Shows another snapshot.
    pub fn show(&self, types: crate::resource::Encoded) {
        self.change(|mut snapshot| {
            for (type_url, resources) in types {
                let set = resources.into_iter().map(|(name, body)| Arc::new(Resource::new(name, body)));
                snapshot = snapshot.with(type_url, tombolo_federation_sync::resource_set(set));
            }
            snapshot
        });
    }

    /// Shows these resources beside those that are there.
    pub fn put(&self, types: crate::resource::Encoded) {
        self.change(|mut snapshot| {
            for (type_url, resources) in types {
                let mut set = snapshot.set(&type_url).map(|set| (**set).clone()).unwrap_or_default();
                let new = resources.into_iter().map(|(name, body)| Arc::new(Resource::new(name, body)));
                set.extend(tombolo_federation_sync::resource_set(new));
                snapshot = snapshot.with(type_url, set);
            }
            snapshot
        });
    }

    /// How much was heard.
    ///
    /// # Panics
    /// Never: nobody panics with the lock.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.heard.lock().expect("nobody panics with it").len()
    }

    /// What was heard since about resources of a scenario: what was asked for and answered, in order, and what was left.
    ///
    /// # Panics
    /// Never: nobody panics with the lock.
    #[must_use]
    pub fn heard(&self, since: usize, scenario: &str) -> (Vec<String>, Vec<String>) {
        let heard = self.heard.lock().expect("nobody panics with it");
        let of = |name: &str| {
            let name = name.trim_start_matches('-');
            name == scenario || name.strip_prefix(scenario).is_some_and(|rest| rest.starts_with('-'))
        };
        let mine = heard.iter().skip(since).filter(|(_, name)| of(name));
        mine.map(|(what, name)| format!("{what} {name}")).partition(|line| !line.contains(" leave "))
    }

    /// Takes a resource away.
    pub fn remove(&self, type_url: &str, name: &str) {
        self.change(|snapshot| {
            let mut set = snapshot.set(type_url).map(|set| (**set).clone()).unwrap_or_default();
            set.remove(name);
            snapshot.with(type_url, set)
        });
    }

    fn change(&self, change: impl FnOnce(Snapshot) -> Snapshot) {
        self.snapshot.send_modify(|snapshot| {
            let mut next = change((**snapshot).clone());
            next.revision += 1;
            *snapshot = Arc::new(next);
        });
    }

    /// Offers a resource and waits for the answer: nothing, or why it was refused.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn probe(&self, probe: Probe) -> Result<Option<String>> {
        let (answer, answered) = oneshot::channel();
        let sender = self.probes.lock().expect("nobody panics with it").clone();
        let sender = sender.ok_or_else(|| anyhow::anyhow!("no stream is open"))?;
        sender.send((probe, answer)).await?;
        Ok(tokio::time::timeout(Duration::from_secs(5), answered).await??)
    }
}

impl Drop for Ads {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Service {
    /// Hears a request; an answer to a probe goes to whoever waits.
    fn hear(
        &self,
        request: DeltaDiscoveryRequest,
        publisher: &mut Publisher,
        waiting: &mut BTreeMap<String, oneshot::Sender<Option<String>>>,
        sent: &mut BTreeMap<String, Vec<String>>,
    ) {
        let error = request.error_detail.map(|e| e.message);
        if let Some(answer) = waiting.remove(&request.response_nonce) {
            let _ = answer.send(error);
            return;
        }
        self.write_down(&request.type_url, "ask", &request.resource_names_subscribe);
        self.write_down(&request.type_url, "leave", &request.resource_names_unsubscribe);
        if let Some(names) = sent.remove(&request.response_nonce) {
            self.write_down(&request.type_url, if error.is_some() { "NACK" } else { "ACK" }, &names);
        }
        if let Some(error) = &error {
            let mut refusals = self.refusals.lock().expect("nobody panics with it");
            refusals.push((request.type_url.clone(), error.clone()));
        }
        publisher.on_request(&DeltaRequest {
            type_url: request.type_url.into(),
            nonce: request.response_nonce,
            error,
            refused: BTreeMap::new(),
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions.into_iter().collect(),
        });
    }

    fn write_down(&self, type_url: &str, what: &str, names: &[String]) {
        let kind = type_url.rsplit('.').next().unwrap_or_default();
        let mut heard = self.heard.lock().expect("nobody panics with it");
        heard.extend(names.iter().map(|name| (format!("{kind} {what}"), name.clone())));
    }

    async fn serve(mut self, mut requests: Streaming<DeltaDiscoveryRequest>, send: Sender) {
        let (probe, mut probes) = mpsc::channel(1);
        *self.probes.lock().expect("nobody panics with it") = Some(probe);
        let (mut publisher, mut waiting, mut sent) = (Publisher::new(Plan::envoy()), BTreeMap::new(), BTreeMap::new());
        let mut number = 0u64;
        loop {
            tokio::select! {
                request = requests.next() => {
                    let Some(Ok(request)) = request else { return };
                    self.hear(request, &mut publisher, &mut waiting, &mut sent);
                }
                changed = self.snapshot.changed() => if changed.is_err() { return },
                Some((probe, answer)) = probes.recv() => {
                    number += 1;
                    let nonce = format!("probe-{number}");
                    waiting.insert(nonce.clone(), answer);
                    if send.send(Ok(offer(probe, nonce))).await.is_err() {
                        return;
                    }
                }
            }
            let snapshot = self.snapshot.borrow_and_update().clone();
            while let Some(response) = publisher.next(&snapshot) {
                let url = response.type_url.to_string();
                let message = DeltaDiscoveryResponse {
                    nonce: response.nonce.clone(),
                    resources: response.resources.iter().map(|r| wrap(&url, &r.name, &r.version, &r.body)).collect(),
                    type_url: url,
                    removed_resources: response.removed.iter().map(ToString::to_string).collect(),
                    ..Default::default()
                };
                sent.insert(message.nonce.clone(), names(&message));
                if send.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        }
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

fn offer(probe: Probe, nonce: String) -> DeltaDiscoveryResponse {
    let mut message = DeltaDiscoveryResponse { type_url: probe.type_url, ..Default::default() };
    match probe.body {
        Some(body) => message.resources.push(wrap(&probe.content_url, &probe.name, &nonce, &body)),
        None => message.removed_resources.push(probe.name),
    }
    message.nonce = nonce;
    message
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sender = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Boxed<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Boxed<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("both sides speak the delta protocol here"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (send, receive) = mpsc::channel(16);
        tokio::spawn(self.clone().serve(request.into_inner(), send));
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}
