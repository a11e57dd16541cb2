//! One proxy's stream, from its first message to its end.
//!
//! Owns the publisher that knows what this proxy holds. The stream is pulled by its connection: nothing is computed for a
//! proxy that does not read, and the newest snapshot waits for it in place of all older ones.

use super::{Admission, protocol::Protocol, shown::Shown};
use crate::{
    metrics::Metrics,
    proxies::{Progress, ProxyTable, StreamId},
    world::{Attachment, Published, World},
};
use futures_util::{Stream, stream};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tombolo_controlplane_api::xds::envoy::config::core::v3::Node;
use tombolo_federation_sync::Plan;
use tonic::{Status, Streaming};

/// A stream on which nobody introduces themselves ends after this time.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// The name under which our own gateway introduces itself.
const OWN_GATEWAY: &str = "tombolo-gateway";

/// What every stream shares.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) world: World,
    pub(super) table: Arc<ProxyTable>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
}

/// One stream.
pub(super) struct Session<P: Protocol> {
    shared: Shared,
    admission: Admission,
    incoming: Streaming<P::Request>,
    proxy: Option<Connected<P>>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

/// A proxy that has introduced itself.
struct Connected<P> {
    id: String,
    publisher: P,
    attachment: Attachment,
    shown: Shown,
    /// Holds the line of the table.
    line: Line,
    told: Progress,
    /// When the newest snapshot was published that the proxy has not wholly acknowledged.
    behind_since: Option<Instant>,
}

/// Marks the proxy as gone when the stream ends, however it ends.
struct Line {
    table: Arc<ProxyTable>,
    stream: StreamId,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.table.closed(&self.stream, Instant::now());
    }
}

enum Event<R> {
    Said(R),
    Ended,
    Published,
    Late,
}

impl<P: Protocol> Session<P> {
    pub(super) fn new(
        shared: Shared,
        admission: Admission,
        incoming: Streaming<P::Request>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { shared, admission, incoming, proxy: None, over: false, _permit: permit }
    }

    /// The responses, each made when the connection has room for it.
    pub(super) fn responses(self) -> impl Stream<Item = Result<P::Response, Status>> + Send + 'static {
        stream::unfold(self, |mut session| async move {
            let next = session.next().await?;
            Some((next, session))
        })
    }

    async fn next(&mut self) -> Option<Result<P::Response, Status>> {
        while !self.over {
            if let Some(response) = self.proxy.as_mut().and_then(|proxy| proxy.respond(&self.shared.metrics)) {
                return Some(Ok(response));
            }
            let outcome = match self.event().await {
                Event::Said(request) => self.listen(request).await,
                Event::Published => Ok(()),
                Event::Ended => return None,
                Event::Late => Err(Status::deadline_exceeded("no proxy introduced itself on this stream")),
            };
            if let Err(status) = outcome {
                tracing::warn!(reason = status.message(), "refused a stream");
                self.over = true;
                return Some(Err(status));
            }
        }
        None
    }

    async fn event(&mut self) -> Event<P::Request> {
        let unknown = self.proxy.is_none();
        let late = tokio::time::sleep(INTRODUCTION);
        let published = async {
            match &mut self.proxy {
                Some(proxy) => proxy.attachment.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shared.stop.cancelled() => Event::Ended,
            said = self.incoming.message() => match said {
                Ok(Some(request)) => Event::Said(request),
                Ok(None) => Event::Ended,
                Err(status) => {
                    tracing::debug!(%status, "a stream broke");
                    Event::Ended
                }
            },
            alive = published => if alive { Event::Published } else { Event::Ended },
            () = late, if unknown => Event::Late,
        }
    }

    async fn listen(&mut self, request: P::Request) -> Result<(), Status> {
        if self.proxy.is_none() {
            let node = P::node(&request).ok_or_else(|| Status::invalid_argument("the first message names no node"))?;
            self.proxy = Some(introduce(&self.shared, &self.admission, node).await?);
        }
        let Some(proxy) = &mut self.proxy else { return Ok(()) };
        if let Some((type_url, reason)) = P::refusal(&request) {
            self.shared.metrics.rejected();
            tracing::warn!(proxy = proxy.id, type_url, reason, "a proxy refused its configuration");
        }
        proxy.publisher.on_request(request);
        Ok(())
    }
}

async fn introduce<P: Protocol>(shared: &Shared, admission: &Admission, node: &Node) -> Result<Connected<P>, Status> {
    let proxy = admission.admit(node)?;
    let plan = if node.user_agent_name == OWN_GATEWAY { Plan::quiet() } else { Plan::envoy() };
    let id = proxy.id.clone();
    let version = version(node, &proxy.version);
    let stream = shared.table.opened(&proxy, P::SPEAKS, version, Instant::now());
    let line = Line { table: shared.table.clone(), stream };
    let attachment = shared.world.attach(proxy).await.map_err(|e| Status::unavailable(e.to_string()))?;
    tracing::info!(proxy = id, "a proxy connected");
    let shown = Shown::to(admission.proved());
    Ok(Connected {
        id,
        publisher: P::new(plan),
        attachment,
        shown,
        line,
        told: Progress::default(),
        behind_since: None,
    })
}

impl<P: Protocol> Connected<P> {
    fn respond(&mut self, metrics: &Metrics) -> Option<P::Response> {
        let Published { snapshot, at } = self.attachment.newest()?;
        let response = self.publisher.next(&self.shown.of(snapshot));
        if let Some((type_url, _)) = &response {
            metrics.pushed(type_url);
            self.behind_since = self.behind_since.max(Some(at));
        }
        let progress = self.publisher.progress();
        if progress.synced
            && let Some(since) = self.behind_since.take()
        {
            metrics.converged(since.elapsed());
        }
        if progress != self.told {
            self.line.table.progress(&self.line.stream, progress.clone());
            self.told = progress;
        }
        response.map(|(_, response)| response)
    }
}

impl<P> Drop for Connected<P> {
    fn drop(&mut self) {
        tracing::info!(proxy = self.id, "a proxy disconnected");
    }
}

/// The version that status shows: the proxy's own, else that of its build.
fn version(node: &Node, metadata: &str) -> String {
    use tombolo_controlplane_api::xds::envoy::config::core::v3::node::UserAgentVersionType;
    match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => format!("{} {version}", node.user_agent_name),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => match &build.version {
            Some(v) => format!("{} {}.{}.{}", node.user_agent_name, v.major_number, v.minor_number, v.patch),
            None => node.user_agent_name.clone(),
        },
        None if metadata.is_empty() => node.user_agent_name.clone(),
        None => metadata.to_owned(),
    }
}
