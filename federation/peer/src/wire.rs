//! Frames to and from the protocol's own types, and a stream of frames whichever side dialed it.

use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use tokio::sync::mpsc;
use tombolo_controlplane_api::peer::{self as wire, Frame, frame};
use tombolo_federation_sync::{DeltaRequest, DeltaResponse, Resource};
use tonic::{Status, Streaming};

/// Frames that wait for the network at most. More is not produced: changes coalesce instead.
pub(crate) const OUTBOUND: usize = 4;

/// The sending direction of a stream.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// This side dialed.
    Dialed(mpsc::Sender<Frame>),
    /// The other side did.
    Accepted(mpsc::Sender<Result<Frame, Status>>),
}

impl Outbound {
    /// Waits until a frame can be sent. Dropping the wait loses nothing.
    pub(crate) async fn ready(&self) -> Result<(), Gone> {
        let open = match self {
            Self::Dialed(sender) => sender.reserve().await.is_ok(),
            Self::Accepted(sender) => sender.reserve().await.is_ok(),
        };
        if open { Ok(()) } else { Err(Gone) }
    }

    /// Sends a frame for which there is room; call it only after [`Outbound::ready`].
    pub(crate) fn send(&self, frame: frame::Frame) {
        let frame = Frame { frame: Some(frame) };
        // The only sender is the caller, so the room that was there is still there, or the stream has ended, which
        // the reading direction notices.
        match self {
            Self::Dialed(sender) => drop(sender.try_send(frame)),
            Self::Accepted(sender) => drop(sender.try_send(Ok(frame))),
        }
    }

    /// Tells the other side why the stream ends, where the protocol has a word for it.
    pub(crate) fn refuse(&self, status: Status) {
        if let Self::Accepted(sender) = self {
            drop(sender.try_send(Err(status)));
        }
    }
}

/// The stream has ended.
#[derive(Debug)]
pub(crate) struct Gone;

/// An open stream to a peer whose identity is verified.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) inbound: Streaming<Frame>,
    pub(crate) outbound: Outbound,
    /// The chain that the peer presented.
    pub(crate) chain: Arc<Vec<CertificateDer<'static>>>,
}

impl Wire {
    pub(crate) fn dialed(&self) -> bool {
        matches!(self.outbound, Outbound::Dialed(_))
    }
}

pub(crate) fn request_to_wire(request: DeltaRequest) -> frame::Frame {
    frame::Frame::Request(wire::Request {
        type_url: request.type_url.to_string(),
        known: request.initial_versions,
        nonce: request.nonce,
        refused: request.refused,
    })
}

pub(crate) fn request_from_wire(request: wire::Request) -> DeltaRequest {
    let lines: Vec<_> = request.refused.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    DeltaRequest {
        type_url: request.type_url.into(),
        nonce: request.nonce,
        error: (!lines.is_empty()).then(|| lines.join("\n")),
        refused: request.refused,
        initial_versions: request.known,
        ..DeltaRequest::default()
    }
}

pub(crate) fn response_to_wire(response: DeltaResponse) -> frame::Frame {
    let item = |resource: Arc<Resource>| wire::Item {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        body: resource.body.clone(),
    };
    frame::Frame::Response(wire::Response {
        type_url: response.type_url.to_string(),
        nonce: response.nonce,
        changed: response.resources.into_iter().map(item).collect(),
        removed: response.removed.iter().map(ToString::to_string).collect(),
        complete: response.complete,
    })
}

pub(crate) fn response_from_wire(response: wire::Response) -> DeltaResponse {
    let resource =
        |item: wire::Item| Arc::new(Resource { name: item.name.into(), version: item.version.into(), body: item.body });
    DeltaResponse {
        type_url: response.type_url.into(),
        nonce: response.nonce,
        resources: response.changed.into_iter().map(resource).collect(),
        removed: response.removed.into_iter().map(Into::into).collect(),
        system_version: String::new(),
        complete: response.complete,
    }
}
