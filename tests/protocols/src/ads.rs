//! A control plane that has one answer for each type and never changes it.

use anyhow::Result;
use std::{collections::BTreeMap, net::SocketAddr, pin::Pin, sync::Arc};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tombolo_controlplane_api::xds::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    google::protobuf::Any,
};
use tonic::{Request, Response, Status, Streaming};

/// Resources by their type.
pub type Resources = BTreeMap<String, Vec<Any>>;

/// A running control plane.
#[derive(Debug)]
pub struct Ads {
    /// Where it listens.
    pub address: SocketAddr,
    /// What the gateway refused.
    refusals: mpsc::Receiver<String>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Service {
    resources: Arc<Resources>,
    refused: mpsc::Sender<String>,
}

impl Ads {
    /// Serves these resources.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(resources: Vec<Any>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut by_type = Resources::new();
        for resource in resources {
            by_type.entry(resource.type_url.clone()).or_default().push(resource);
        }
        let (refused, refusals) = mpsc::channel(16);
        let service = AggregatedDiscoveryServiceServer::new(Service { resources: Arc::new(by_type), refused });
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(Self { address, refusals, task })
    }

    /// What the gateway refused, once it did.
    pub async fn refusal(&mut self) -> Option<String> {
        self.refusals.recv().await
    }
}

impl Drop for Ads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers;
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let mut requests = request.into_inner();
        let (resources, refused) = (self.resources.clone(), self.refused.clone());
        let (send, answers) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                if let Some(error) = request.error_detail {
                    let _ = refused.try_send(error.message);
                } else if request.response_nonce.is_empty() {
                    let answer = DiscoveryResponse {
                        version_info: "1".into(),
                        nonce: request.type_url.clone(),
                        resources: resources.get(&request.type_url).cloned().unwrap_or_default(),
                        type_url: request.type_url,
                        ..Default::default()
                    };
                    if send.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn delta_aggregated_resources(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world only"))
    }
}
