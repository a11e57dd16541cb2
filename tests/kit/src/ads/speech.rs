//! The service as a server wants it, around what a control plane says on one stream.
//!
//! Knows neither resources nor publishers: a control plane with a bookkeeping of its own stands on it as well.

use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tombolo_controlplane_api::xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::AggregatedDiscoveryService,
};
use tonic::{Request, Response, Status, Streaming};

/// Where answers go.
pub type Out<T> = mpsc::Sender<Result<T, Status>>;

/// Answers that wait to be sent.
const WAITING: usize = 16;

/// Who speaks on streams; each has a clone of its own.
pub trait Speaker: Clone + Send + Sync + 'static {
    /// A stream of the delta protocol, until it ends.
    fn differences(
        self,
        requests: Streaming<DeltaDiscoveryRequest>,
        out: Out<DeltaDiscoveryResponse>,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// A stream of the state of the world, until it ends.
    fn whole(
        self,
        requests: Streaming<DiscoveryRequest>,
        out: Out<DiscoveryResponse>,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// The service of a speaker.
#[derive(Debug)]
pub struct Discovery<S>(pub S);

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn answers<T: Send + 'static>(receive: mpsc::Receiver<Result<T, Status>>) -> Response<Boxed<T>> {
    Response::new(Box::pin(ReceiverStream::new(receive)))
}

#[tonic::async_trait]
impl<S: Speaker> AggregatedDiscoveryService for Discovery<S> {
    type StreamAggregatedResourcesStream = Boxed<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Boxed<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Boxed<DiscoveryResponse>>, Status> {
        let (out, receive) = mpsc::channel(WAITING);
        tokio::spawn(self.0.clone().whole(request.into_inner(), out));
        Ok(answers(receive))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Boxed<DeltaDiscoveryResponse>>, Status> {
        let (out, receive) = mpsc::channel(WAITING);
        tokio::spawn(self.0.clone().differences(request.into_inner(), out));
        Ok(answers(receive))
    }
}
