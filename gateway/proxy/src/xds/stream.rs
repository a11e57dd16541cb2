//! One stream of either protocol variant.
//!
//! Owns the task that reads it. A server may hold back its response headers until it has something to say, so the stream
//! counts as open as soon as requests can be sent.

use super::wire::{self as messages, Beside};
use crate::{
    args::XdsMode,
    control::{Remote, RemoteError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tombolo_controlplane_api::xds::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use tombolo_federation_sync::{Plan, SotwSubscriber, Subscriber, Update};
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

/// A control plane may send all clusters of a large mesh at once.
const LARGEST_MESSAGE: usize = 256 << 20;
const IN_FLIGHT: usize = 8;

/// A response of either variant.
pub(crate) enum Inbound {
    /// Incremental.
    Delta(Box<DeltaDiscoveryResponse>),
    /// State of the world.
    Sotw(Box<DiscoveryResponse>),
}

/// The reader's half of either variant.
pub(crate) enum Reader {
    /// Incremental.
    Delta(Subscriber),
    /// State of the world.
    Sotw(SotwSubscriber),
}

enum Outbound {
    Delta(mpsc::Sender<DeltaDiscoveryRequest>),
    Sotw(mpsc::Sender<DiscoveryRequest>),
}

/// An open stream.
pub(crate) struct Stream {
    out: Outbound,
    inbound: mpsc::Receiver<Result<Inbound, Status>>,
    node: Option<Node>,
    /// Ends with the stream.
    _reading: JoinSet<()>,
}

impl Reader {
    /// A reader that asks for nothing.
    pub(crate) fn new(mode: XdsMode) -> Self {
        match mode {
            XdsMode::Delta => Self::Delta(Subscriber::new(Plan::quiet())),
            XdsMode::Sotw => Self::Sotw(SotwSubscriber::new(Plan::quiet())),
        }
    }

    /// Asks for everything of a type.
    pub(crate) fn subscribe_all(&mut self, type_url: &str) {
        match self {
            Self::Delta(reader) => reader.subscribe_all(type_url),
            Self::Sotw(reader) => reader.subscribe_all(type_url),
        }
    }

    /// Takes over versions that an earlier process held.
    pub(crate) fn restore(&mut self, type_url: &str, held: Vec<(Arc<str>, Arc<str>)>) {
        match self {
            Self::Delta(reader) => reader.restore(type_url, held),
            Self::Sotw(reader) => reader.restore(type_url, held),
        }
    }

    /// How many resources of a type are held.
    pub(crate) fn held(&self, type_url: &str) -> usize {
        match self {
            Self::Delta(reader) => reader.held_count(type_url),
            Self::Sotw(reader) => reader.held_count(type_url),
        }
    }

    /// A stream begins.
    pub(crate) fn connected(&mut self) {
        match self {
            Self::Delta(reader) => reader.connected(),
            Self::Sotw(reader) => reader.connected(),
        }
    }

    /// The stream is gone.
    pub(crate) fn disconnected(&mut self) {
        match self {
            Self::Delta(reader) => reader.disconnected(),
            Self::Sotw(reader) => reader.disconnected(),
        }
    }

    /// Asks for some more names and no longer for others.
    pub(crate) fn amend(&mut self, type_url: &str, more: &BTreeSet<String>, fewer: &BTreeSet<String>) {
        match self {
            Self::Delta(reader) => reader.amend(type_url, more, fewer),
            Self::Sotw(reader) => reader.amend(type_url, more, fewer),
        }
    }

    /// Asks for one name, again if need be.
    pub(crate) fn ask(&mut self, type_url: &str, name: &str) {
        match self {
            Self::Delta(reader) => reader.ask(type_url, name),
            // Nothing that comes by name on demand exists in this variant.
            Self::Sotw(_) => {}
        }
    }

    /// What became of a name that was asked for: it is known by another one, or by none.
    pub(crate) fn rename(&mut self, type_url: &str, name: &str, known_as: Option<&str>) {
        if let Self::Delta(reader) = self {
            reader.rename(type_url, name, known_as);
        }
    }

    /// A resource ended by itself: the control plane may send the same version again.
    pub(crate) fn drop_held(&mut self, type_url: &str, name: &str) {
        match self {
            Self::Delta(reader) => reader.drop_held(type_url, name),
            Self::Sotw(reader) => reader.drop_held(type_url, name),
        }
    }

    /// Takes in a response; also returns what came beside the resources.
    pub(crate) fn on_response(&mut self, message: Inbound) -> (Update, Beside) {
        match (self, message) {
            (Self::Delta(reader), Inbound::Delta(message)) => {
                let (response, beside) = messages::delta_response(*message);
                // What came under another name than the one that was asked for is wanted all the same.
                for (alias, name) in &beside.aliases {
                    if reader.has_name(&response.type_url, alias) {
                        reader.rename(&response.type_url, alias, Some(name));
                    }
                }
                (reader.on_response(response), beside)
            }
            (Self::Sotw(reader), Inbound::Sotw(message)) => {
                let (response, beside) = messages::sotw_response(*message);
                (reader.on_response(response), beside)
            }
            // A stream of one variant yields only its own messages.
            (Self::Delta(_), Inbound::Sotw(_)) | (Self::Sotw(_), Inbound::Delta(_)) => Default::default(),
        }
    }

    /// Answers an update.
    pub(crate) fn answer(&mut self, update: &Update, refused: &BTreeMap<String, String>) {
        match self {
            Self::Delta(reader) => reader.answer(update, refused),
            Self::Sotw(reader) => reader.answer(update, refused),
        }
    }
}

fn ended() -> RemoteError {
    RemoteError::Connect("the stream was closed".to_owned())
}

impl Stream {
    /// Connects and begins a stream.
    pub(crate) async fn open(remote: &Remote, mode: XdsMode, node: Node) -> Result<Self, RemoteError> {
        let token = remote.authorization().await?;
        let client = AggregatedDiscoveryServiceClient::new(remote.connect().await?)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let (found, inbound) = mpsc::channel(IN_FLIGHT);
        let mut reading = JoinSet::new();
        let out = match mode {
            XdsMode::Delta => {
                let (out, requests) = mpsc::channel(IN_FLIGHT);
                reading.spawn(read_delta(client, authorized(ReceiverStream::new(requests), token), found));
                Outbound::Delta(out)
            }
            XdsMode::Sotw => {
                let (out, requests) = mpsc::channel(IN_FLIGHT);
                reading.spawn(read_sotw(client, authorized(ReceiverStream::new(requests), token), found));
                Outbound::Sotw(out)
            }
        };
        Ok(Self { out, inbound, node: Some(node), _reading: reading })
    }

    /// Sends everything that the reader has to say. The node goes with the first request only.
    pub(crate) async fn send_all(&mut self, reader: &mut Reader) -> Result<(), RemoteError> {
        loop {
            let sent = match (&self.out, &mut *reader) {
                (Outbound::Delta(out), Reader::Delta(reader)) => {
                    let Some(request) = reader.next_request() else { return Ok(()) };
                    out.send(messages::delta_request(request, self.node.take())).await.is_ok()
                }
                (Outbound::Sotw(out), Reader::Sotw(reader)) => {
                    let Some(request) = reader.next_request() else { return Ok(()) };
                    out.send(messages::sotw_request(request, self.node.take())).await.is_ok()
                }
                (Outbound::Delta(_), Reader::Sotw(_)) | (Outbound::Sotw(_), Reader::Delta(_)) => return Ok(()),
            };
            if !sent {
                // The reason is in what was received last.
                return Err(self.next().await.err().unwrap_or_else(ended));
            }
        }
    }

    /// The next response.
    pub(crate) async fn next(&mut self) -> Result<Inbound, RemoteError> {
        match self.inbound.recv().await {
            Some(Ok(message)) => Ok(message),
            Some(Err(status)) => Err(status.into()),
            None => Err(ended()),
        }
    }
}

fn authorized<S>(stream: S, token: Option<MetadataValue<Ascii>>) -> Request<S> {
    let mut request = Request::new(stream);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token);
    }
    request
}

type Client = AggregatedDiscoveryServiceClient<Channel>;
type Found = mpsc::Sender<Result<Inbound, Status>>;

async fn read_delta(mut client: Client, request: Request<ReceiverStream<DeltaDiscoveryRequest>>, found: Found) {
    match client.delta_aggregated_resources(request).await {
        Ok(response) => forward(response.into_inner(), found, |m| Inbound::Delta(Box::new(m))).await,
        Err(status) => drop(found.send(Err(status)).await),
    }
}

async fn read_sotw(mut client: Client, request: Request<ReceiverStream<DiscoveryRequest>>, found: Found) {
    match client.stream_aggregated_resources(request).await {
        Ok(response) => forward(response.into_inner(), found, |m| Inbound::Sotw(Box::new(m))).await,
        Err(status) => drop(found.send(Err(status)).await),
    }
}

async fn forward<M>(mut stream: Streaming<M>, found: Found, wrap: impl Fn(M) -> Inbound) {
    loop {
        let next = match stream.message().await {
            Ok(Some(message)) => Ok(wrap(message)),
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let last = next.is_err();
        if found.send(next).await.is_err() || last {
            return;
        }
    }
}
