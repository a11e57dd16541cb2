//! A control plane that serves what a test puts into it.

use prost::Message;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tombolo_controlplane_api::ca::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use tombolo_controlplane_api::xds::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wrapped,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    google::protobuf::Any,
};
use tombolo_federation_sync::{DeltaRequest, Plan, Publisher, Resource, Snapshot, SotwPublisher, SotwRequest};
use tonic::{Request, Response, Status, Streaming};

/// What a gateway was told is wrong, by type.
pub type Refusals = Arc<Mutex<Vec<(String, String)>>>;

pub struct Ads {
    pub address: SocketAddr,
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Requests of the delta protocol that opened a type: what was said to be held.
    pub openings: Arc<Mutex<Vec<(String, BTreeMap<String, String>)>>>,
    pub refusals: Refusals,
    server: JoinHandle<()>,
}

/// Signs what holders of the right token send.
pub struct Issuing {
    pub authority: Arc<crate::tls::Authority>,
    pub identity: &'static str,
    pub token: &'static str,
    pub life: std::time::Duration,
    pub issued: Arc<std::sync::atomic::AtomicU32>,
}

#[tonic::async_trait]
impl IstioCertificateService for Issuing {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let shown = request.metadata().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        if shown != format!("Bearer {}", self.token) {
            return Err(Status::unauthenticated("no such token"));
        }
        let leaf = self.authority.sign(&request.into_inner().csr, self.identity, self.life);
        self.issued.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf, self.authority.root.clone()] }))
    }
}

#[derive(Clone)]
struct Service {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    openings: Arc<Mutex<Vec<(String, BTreeMap<String, String>)>>>,
    refusals: Refusals,
}

impl Ads {
    pub async fn start() -> Self {
        // A test may end it, and later finds its place as it left it.
        Self::start_at(tombolo_tests_kit::free()).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        Self::serve(TcpListener::bind(address).await.unwrap(), None).await
    }

    /// With TLS and a certificate authority beside it.
    pub async fn start_secure(identity: tonic::transport::Identity, issuing: Issuing) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some((identity, issuing))).await
    }

    async fn serve(listener: TcpListener, secure: Option<(tonic::transport::Identity, Issuing)>) -> Self {
        let address = listener.local_addr().unwrap();
        let (snapshot, seen) = watch::channel(Arc::new(Snapshot::default()));
        let (openings, refusals) = (Arc::default(), Refusals::default());
        let service = Service { snapshot: seen, openings: Arc::clone(&openings), refusals: Arc::clone(&refusals) };
        let server = tokio::spawn(async move {
            let mut builder = tonic::transport::Server::builder();
            let mut issuing = None;
            if let Some((identity, ca)) = secure {
                builder = builder.tls_config(tonic::transport::ServerTlsConfig::new().identity(identity)).unwrap();
                issuing = Some(IstioCertificateServiceServer::new(ca));
            }
            let router =
                builder.add_service(AggregatedDiscoveryServiceServer::new(service)).add_optional_service(issuing);
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, snapshot, openings, refusals, server }
    }

    /// Replaces all resources of a type.
    pub fn set<M: Message + prost::Name>(&self, resources: impl IntoIterator<Item = (&'static str, M)>) {
        self.put(resources.into_iter().map(|(name, message)| (name.to_owned(), message)));
    }

    pub fn put<M: Message + prost::Name>(&self, resources: impl IntoIterator<Item = (String, M)>) {
        let set = resources
            .into_iter()
            .map(|(name, message)| {
                (Arc::<str>::from(name.as_str()), Arc::new(Resource::new(name.as_str(), message.encode_to_vec())))
            })
            .collect();
        self.snapshot.send_modify(|snapshot| {
            let mut next = (**snapshot).clone().with(M::type_url(), set);
            next.revision += 1;
            *snapshot = Arc::new(next);
        });
    }

    pub fn stop(self) -> SocketAddr {
        self.server.abort();
        self.address
    }
}

impl Drop for Ads {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Boxed<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Boxed<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (send, receive) = tokio::sync::mpsc::channel(16);
        let (mut requests, mut this) = (request.into_inner(), self.clone());
        tokio::spawn(async move {
            let mut publisher = SotwPublisher::new(Plan::quiet());
            loop {
                tokio::select! {
                    request = requests.next() => {
                        let Some(Ok(request)) = request else { return };
                        if let Some(error) = &request.error_detail {
                            this.refusals.lock().unwrap().push((request.type_url.clone(), error.message.clone()));
                        }
                        publisher.on_request(&SotwRequest {
                            type_url: request.type_url.into(), version: request.version_info, nonce: request.response_nonce,
                            names: request.resource_names, error: request.error_detail.map(|e| e.message),
                        });
                    }
                    changed = this.snapshot.changed() => if changed.is_err() { return },
                }
                let snapshot = this.snapshot.borrow_and_update().clone();
                while let Some(response) = publisher.next(&snapshot) {
                    let any =
                        |r: &Arc<Resource>| Any { type_url: response.type_url.to_string(), value: r.body.to_vec() };
                    let message = DiscoveryResponse {
                        version_info: response.version.clone(),
                        nonce: response.nonce.clone(),
                        type_url: response.type_url.to_string(),
                        resources: response.resources.iter().map(any).collect(),
                        ..Default::default()
                    };
                    if send.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (send, receive) = tokio::sync::mpsc::channel(16);
        let (mut requests, mut this) = (request.into_inner(), self.clone());
        tokio::spawn(async move {
            let mut publisher = Publisher::new(Plan::quiet());
            loop {
                tokio::select! {
                    request = requests.next() => {
                        let Some(Ok(request)) = request else { return };
                        if let Some(error) = &request.error_detail {
                            this.refusals.lock().unwrap().push((request.type_url.clone(), error.message.clone()));
                        }
                        if request.response_nonce.is_empty() {
                            let held = request.initial_resource_versions.clone().into_iter().collect();
                            this.openings.lock().unwrap().push((request.type_url.clone(), held));
                        }
                        publisher.on_request(&DeltaRequest {
                            type_url: request.type_url.into(), nonce: request.response_nonce,
                            error: request.error_detail.map(|e| e.message), refused: BTreeMap::new(),
                            subscribe: request.resource_names_subscribe, unsubscribe: request.resource_names_unsubscribe,
                            initial_versions: request.initial_resource_versions.into_iter().collect(),
                        });
                    }
                    changed = this.snapshot.changed() => if changed.is_err() { return },
                }
                let snapshot = this.snapshot.borrow_and_update().clone();
                while let Some(response) = publisher.next(&snapshot) {
                    let wrap = |r: &Arc<Resource>| Wrapped {
                        name: r.name.to_string(),
                        version: r.version.to_string(),
                        resource: Some(Any { type_url: response.type_url.to_string(), value: r.body.to_vec() }),
                        ..Default::default()
                    };
                    let message = DeltaDiscoveryResponse {
                        nonce: response.nonce.clone(),
                        type_url: response.type_url.to_string(),
                        system_version_info: response.system_version.clone(),
                        resources: response.resources.iter().map(wrap).collect(),
                        removed_resources: response.removed.iter().map(ToString::to_string).collect(),
                        ..Default::default()
                    };
                    if send.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}
