//! What a site says about itself and about the peers it trusts, and what it hears from them. Used by the server's wiring.

use crate::{Credentials, Remit, Trust};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::watch;
use tombolo_federation_model::{ClusterId, Identity, NetworkId, SiteName, Subsets, TrustDomain};
use tombolo_federation_registry::{Event, Lease, ShardId, ShardSettings};
use tombolo_federation_sync::Snapshot;

/// Type URLs of what peers exchange.
pub mod types {
    /// A service that its owner exports.
    pub const SERVICE: &str = "type.googleapis.com/tombolo.federation.peer.v1.ExportedService";
    /// An east-west gateway.
    pub const GATEWAY: &str = "type.googleapis.com/tombolo.federation.peer.v1.NetworkGateway";
    /// The roots of a trust domain.
    pub const BUNDLE: &str = "type.googleapis.com/tombolo.federation.peer.v1.TrustBundle";
    /// A subset by which the site asks for a service.
    pub const SUBSET: &str = "type.googleapis.com/tombolo.federation.peer.v1.Subset";
    /// What a site says about itself.
    pub const STATUS: &str = "type.googleapis.com/tombolo.federation.peer.v1.SiteStatus";
    /// All of them, in the order in which they are sent.
    pub const ALL: [&str; 5] = [BUNDLE, GATEWAY, SERVICE, SUBSET, STATUS];
}

/// One peer that this site was told to trust.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of its site.
    pub name: SiteName,
    /// `HOST:PORT` to dial; `None` when only the peer dials.
    pub dial: Option<String>,
    /// The identity that its certificate must have.
    pub identity: Identity,
    /// What it may speak for.
    pub remit: Remit,
    /// How long its silence is trusted. The time after which it counts as stale is what the peer itself promises, within
    /// reason; this is used until it has said so.
    pub lease: Lease,
}

/// This site, as its peers see it.
#[derive(Debug, Clone)]
pub struct LocalSite {
    /// Its name.
    pub site: SiteName,
    /// The trust domain of its identities.
    pub trust_domain: TrustDomain,
    /// The clusters that it speaks for.
    pub clusters: BTreeSet<ClusterId>,
    /// The networks that it speaks for.
    pub networks: BTreeSet<NetworkId>,
    /// Larger at every start of the process.
    pub epoch: u64,
    /// How long peers may trust its silence, in milliseconds. It says something at least every third of this.
    pub lease_ms: u32,
    /// What it shows, see [`crate::export_snapshot`].
    pub exports: watch::Receiver<Arc<Snapshot>>,
    /// Its certificate and key; a change is used for the next connection.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// The roots by which peers are judged; a change is applied to open connections too.
    pub trust: Trust,
}

/// What is heard from a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerEvent {
    /// A shard is to be made known, or has other settings than before.
    Declare {
        /// Which.
        shard: ShardId,
        /// What holds for it.
        settings: ShardSettings,
    },
    /// A step of a shard.
    Registry(Event),
    /// The roots of a trust domain in the peer's remit.
    Bundle {
        /// Who says so.
        peer: SiteName,
        /// Whose roots.
        trust_domain: TrustDomain,
        /// DER certificates.
        roots: Vec<Vec<u8>>,
        /// Grows with every change; an older one never comes.
        sequence: u64,
    },
    /// The subsets by which the peer asks for services.
    Subsets {
        /// Who says so.
        peer: SiteName,
        /// All of them; replaces what it said before.
        subsets: Subsets,
    },
    /// What a site says about itself, as JSON.
    Status {
        /// Who says so.
        peer: SiteName,
        /// About which site.
        site: SiteName,
        /// See the status module of the API crate.
        json: Bytes,
    },
}
