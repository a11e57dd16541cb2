//! The aggregated discovery service: what proxies are told, over one stream each.
//!
//! Owns the streams and the decision who may open one. Never computes configuration; the world publishes it.

mod protocol;
mod session;
mod shown;

#[cfg(test)]
mod tests;

use crate::{
    ca::{TokenVerifier, authorization, refusal},
    metrics::Metrics,
    proxies::ProxyTable,
    world::World,
};
use futures_util::Stream;
use protocol::{Delta, Protocol, Sotw};
use session::{Session, Shared};
use std::{pin::Pin, sync::Arc};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tombolo_controlplane_api::xds::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
};
use tombolo_controlplane_core::Proxy;
use tombolo_federation_model::Identity;
use tonic::{Request, Response, Status, Streaming};

/// Largest message of a proxy: after a reconnect it names every resource that it holds.
const LARGEST_REQUEST: usize = 32 << 20;
/// More proxies than one control plane serves.
const MOST_STREAMS: usize = 10_000;

/// Who may open a stream.
#[derive(Clone)]
pub enum Door {
    /// Whoever reaches the port: it is bound to a loopback address.
    Open,
    /// Whoever shows a token; `None` turns everybody away, because nobody can be recognized.
    Tokens(Option<Arc<TokenVerifier>>),
}

/// The service.
pub struct Ads {
    shared: Shared,
    door: Door,
    room: Arc<Semaphore>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Ads {
    /// The service behind a door, ready to be added to a server.
    #[must_use]
    pub fn server(
        world: World,
        table: Arc<ProxyTable>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        door: Door,
    ) -> AggregatedDiscoveryServiceServer<Self> {
        let shared = Shared { world, table, metrics, stop };
        AggregatedDiscoveryServiceServer::new(Self { shared, door, room: Arc::new(Semaphore::new(MOST_STREAMS)) })
            .max_decoding_message_size(LARGEST_REQUEST)
    }

    fn open<P: Protocol>(
        &self,
        request: Request<Streaming<P::Request>>,
    ) -> Result<Response<Responses<P::Response>>, Status> {
        let admission = match &self.door {
            Door::Open => Admission(None),
            Door::Tokens(None) => return Err(Status::unauthenticated("this site recognizes no tokens")),
            Door::Tokens(Some(tokens)) => {
                let claimed = tokens.bearer(authorization(request.metadata())).map_err(|e| {
                    tracing::warn!(from = ?request.remote_addr(), reason = %e, "refused a stream");
                    refusal(&e)
                })?;
                Admission(Some(claimed.identity))
            }
        };
        let permit = self.room.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| Status::resource_exhausted("this control plane serves as many proxies as it can"))?;
        let session = Session::<P>::new(self.shared.clone(), admission, request.into_inner(), permit);
        Ok(Response::new(Box::pin(session.responses())))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Sotw>(request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request)
    }
}

/// Whom a stream was opened by, when that is known.
struct Admission(Option<Identity>);

impl Admission {
    /// Whether the stream's owner proved an identity.
    fn proved(&self) -> bool {
        self.0.is_some()
    }

    /// The proxy that a node introduces. One that showed a token may be only what its token says, because what a proxy is
    /// told depends on its namespace and account.
    fn admit(&self, node: &Node) -> Result<Proxy, Status> {
        let none = Default::default();
        let metadata = node.metadata.as_ref().unwrap_or(&none);
        let mut proxy = Proxy::parse(&node.id, metadata).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if proxy.locality.is_none() {
            proxy.locality = node.locality.as_ref().map(|l| tombolo_federation_model::Locality {
                region: l.region.clone(),
                zone: l.zone.clone(),
                subzone: l.sub_zone.clone(),
            });
        }
        let Some(identity) = &self.0 else { return Ok(proxy) };
        if identity.workload_parts() != Some((proxy.namespace.as_str(), proxy.service_account.as_str())) {
            return Err(Status::permission_denied(format!(
                "the token is of {identity}, but the proxy says that it is of namespace {} and service account {}",
                proxy.namespace, proxy.service_account
            )));
        }
        // Proxies are told apart by their ids, so that nobody may take one that looks like a neighbour's.
        if !proxy.id.split('~').nth(2).is_some_and(|name| name.ends_with(&format!(".{}", proxy.namespace))) {
            return Err(Status::permission_denied(format!(
                "the node id {} is not one of namespace {}",
                proxy.id, proxy.namespace
            )));
        }
        Ok(proxy)
    }
}
