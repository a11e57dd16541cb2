//! Being dialed: TLS, then the identity, then the peer that it belongs to. One bad handshake never ends the listener.

use crate::{
    LocalSite,
    dial::MAX_FRAME,
    tls,
    verify::{NotTrusted, claimed_identity},
    wire::{OUTBOUND, Outbound, Wire},
};
use rustls::{CertificateError, OtherError};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tombolo_controlplane_api::peer::{
    Frame,
    peering_server::{Peering, PeeringServer},
};
use tombolo_federation_model::Identity;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{
        Server,
        server::{TcpConnectInfo, TlsConnectInfo},
    },
};

/// Handshakes at the same time; more are turned away.
const HANDSHAKES: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);
const REMEMBERED: usize = 16;

/// Which peer an identity belongs to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory(Arc<RwLock<BTreeMap<Identity, mpsc::Sender<Wire>>>>);

impl Directory {
    pub(crate) fn insert(&self, identity: Identity, door: mpsc::Sender<Wire>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(identity, door);
    }

    pub(crate) fn remove(&self, identity: &Identity) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(identity);
    }

    fn door(&self, identity: &Identity) -> Option<mpsc::Sender<Wire>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(identity).cloned()
    }
}

/// The newest callers that were turned away, and why.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<VecDeque<String>>>);

impl Refusals {
    fn note(&self, text: String) {
        tracing::warn!("turned away: {text}");
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == REMEMBERED {
            list.pop_front();
        }
        list.push_back(text);
    }

    pub(crate) fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Serves until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, local: LocalSite, directory: Directory, refusals: Refusals) {
    let (connections, accepted) = mpsc::channel(OUTBOUND);
    let desk = Desk { directory, refusals: refusals.clone() };
    let service = PeeringServer::new(desk).max_decoding_message_size(MAX_FRAME);
    let streams = Server::builder()
        .timeout(PATIENCE)
        .max_concurrent_streams(Some(4))
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(accepted));
    tokio::select! {
        result = streams => {
            if let Err(error) = result {
                tracing::error!(%error, "peering ended");
            }
        }
        () = accept(listener, local, refusals, connections) => {}
    }
}

type Accepted = Result<TlsStream<TcpStream>, std::io::Error>;

async fn accept(listener: TcpListener, local: LocalSite, refusals: Refusals, connections: mpsc::Sender<Accepted>) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(_) if handshakes.len() >= HANDSHAKES => {}
                Ok((tcp, from)) => {
                    let (local, refusals, connections) = (local.clone(), refusals.clone(), connections.clone());
                    handshakes.spawn(async move {
                        match handshake(tcp, &local).await {
                            Ok(stream) => drop(connections.send(Ok(stream)).await),
                            Err(reason) => refusals.note(format!("{from}: {reason}")),
                        }
                    });
                }
                // Out of file descriptors, most likely: waiting is all that can be done.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
}

async fn handshake(tcp: TcpStream, local: &LocalSite) -> Result<TlsStream<TcpStream>, String> {
    let credentials = local.credentials.borrow().clone();
    let config = tls::server(&credentials, local.trust.clone()).map_err(|error| format!("own certificate: {error}"))?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let accepting = TlsAcceptor::from(Arc::new(config)).accept(tcp);
    let accepted = tokio::time::timeout(PATIENCE, accepting).await.map_err(|_| "handshake took too long".to_owned())?;
    accepted.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => reason.to_string(),
            Some(reason) => reason.to_string(),
            None => error.to_string(),
        }
    })
}

/// Brings each stream to the peer that it belongs to.
#[derive(Debug)]
struct Desk {
    directory: Directory,
    refusals: Refusals,
}

#[tonic::async_trait]
impl Peering for Desk {
    type ExchangeStream = ReceiverStream<Result<Frame, Status>>;

    async fn exchange(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let chain = info.and_then(TlsConnectInfo::peer_certs).unwrap_or_default();
        let identity = chain.first().ok_or(NotTrusted::NoCertificate).and_then(claimed_identity);
        let identity = identity.map_err(|reason| Status::unauthenticated(reason.to_string()))?;
        let Some(door) = self.directory.door(&identity) else {
            let reason = format!("{identity} is not a configured peer");
            self.refusals.note(reason.clone());
            return Err(Status::permission_denied(reason));
        };
        let (sender, receiver) = mpsc::channel(OUTBOUND);
        let wire = Wire { inbound: request.into_inner(), outbound: Outbound::Accepted(sender), chain };
        door.try_send(wire).map_err(|_| Status::unavailable("busy with another stream of this peer"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
