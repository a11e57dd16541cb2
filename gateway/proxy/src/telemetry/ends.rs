//! The other end of a connection of the mesh: who it is by its certificate, and what it told of itself last.
//!
//! Made only of certificates that a handshake verified; a connection without one has no such end, and nobody on it is
//! believed or told anything.

use crate::{net::stream::Stream, upstream::connect::Target};
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};
use tombolo_federation_identity::claimed_identity;
use tombolo_federation_model::Identity;
use tombolo_gateway_core::head::ConnInfo;

/// Words of a peer about itself, the number of the labels that they are worth, and in which epoch.
type Words = (Box<[u8]>, Option<u32>, u32);

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct OtherEnd {
    /// Who it is.
    pub(super) identity: Identity,
    /// Who we are to it.
    pub(super) own: Arc<str>,
    /// Numbers of the two names in metrics, ours first, once known, and in which epoch.
    pub(super) numbers: Cell<Option<(u32, u32, u32)>>,
    /// The last words about itself, and the number of the labels they are worth.
    pub(super) told: RefCell<Option<Words>>,
}

impl OtherEnd {
    fn new(identity: Identity, own: Arc<str>) -> Self {
        Self { identity, own, numbers: Cell::new(None), told: RefCell::new(None) }
    }

    /// The client of a connection that was accepted with a certificate of the mesh.
    pub(crate) fn of_client(info: &ConnInfo) -> Option<Self> {
        let tls = info.tls.as_ref()?;
        let identity = tls.peer.as_ref()?.identity.clone()?;
        let own = tls.local_uris.first().filter(|uri| Identity::parse(uri).is_ok())?;
        Some(Self::new(identity, Arc::from(own.as_str())))
    }

    /// The server of a connection that was opened with this proxy's certificate of the mesh.
    pub(crate) fn of_server(target: &Target, stream: &Stream) -> Option<Self> {
        let own = target.tls.as_ref()?.0.own.clone()?;
        let Stream::TlsClient(tls) = stream else { return None };
        let leaf = tls.get_ref().1.peer_certificates()?.first()?;
        Some(Self::new(claimed_identity(leaf).ok()?, own))
    }
}
