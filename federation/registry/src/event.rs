//! What a source says about its shard. Used by sources, by peers and by the registry.

use std::{collections::BTreeMap, fmt, sync::Arc};
use tombolo_federation_model::{
    ClusterId, EndpointSlice, Export, Locality, Namespace, NetworkGateway, NetworkId, Service, ServiceKey, SiteName,
    TrustDomain, Workload,
};

/// Monotonic milliseconds since some fixed moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds from an earlier moment to this one; 0 when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The part of the registry that one source owns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// The cluster that the reported things run in.
    pub cluster: ClusterId,
    /// Name of the source, unique in its cluster at this site.
    pub source: Arc<str>,
    /// The sites that it was relayed through, nearest first; empty for a source of this site.
    pub via: Vec<SiteName>,
}

impl ShardId {
    /// A source of this site.
    #[must_use]
    pub fn own(cluster: ClusterId, source: &str) -> Self {
        Self { cluster, source: source.into(), via: Vec::new() }
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.source)?;
        self.via.iter().try_for_each(|site| write!(f, " via {site}"))
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How long silence is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Milliseconds of silence after which endpoints rank behind fresh ones.
    pub stale_after: u64,
    /// Milliseconds of silence after which endpoints are dropped, unless they are the last choice.
    pub expire_after: u64,
}

impl Default for Lease {
    fn default() -> Self {
        Self { stale_after: 15_000, expire_after: 600_000 }
    }
}

/// What holds for everything in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSettings {
    /// Where its addresses mean something, unless the item says otherwise.
    pub network: NetworkId,
    /// Where its workloads run, unless the item says otherwise.
    pub locality: Locality,
    /// The trust domain of its workloads' identities.
    pub trust_domain: TrustDomain,
    /// `None` for a source in this process that cannot go silent.
    pub lease: Option<Lease>,
    /// True when this site owns the cluster: its definitions win, and it may be exported.
    pub own: bool,
}

/// One thing that a source reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A service.
    Service(Service),
    /// A workload.
    Workload(Workload),
    /// Written-out endpoints of a service.
    Slice(EndpointSlice),
    /// An east-west gateway.
    Gateway(NetworkGateway),
    /// The wish that a service be exported.
    Export(Export),
}

/// What identifies an item in its shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKey {
    /// Several definitions of one host may stand side by side.
    Service {
        /// Namespace and host.
        key: ServiceKey,
        /// Kind of the definition.
        kind: Arc<str>,
        /// Name of the definition.
        name: String,
    },
    /// By namespace and name.
    Workload(Namespace, String),
    /// By namespace and name.
    Slice(Namespace, String),
    /// All of it.
    Gateway(NetworkGateway),
    /// By namespace and name of the service.
    Export(Namespace, String),
}

impl Item {
    /// What identifies it in its shard.
    #[must_use]
    pub fn key(&self) -> ItemKey {
        match self {
            Self::Service(service) => {
                ItemKey::Service { key: service.key(), kind: service.origin.kind.clone(), name: service.name.clone() }
            }
            Self::Workload(workload) => ItemKey::Workload(workload.namespace.clone(), workload.name.clone()),
            Self::Slice(slice) => ItemKey::Slice(slice.namespace.clone(), slice.name.clone()),
            Self::Gateway(gateway) => ItemKey::Gateway(gateway.clone()),
            Self::Export(export) => ItemKey::Export(export.namespace.clone(), export.name.clone()),
        }
    }
}

/// One step of a source. An epoch is one connection or one full listing of the source: larger is newer, and
/// whatever an older one says is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
// Nearly every event is a `Put`, so a box would cost an allocation each and save nothing.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// A full listing begins. What is there keeps serving until it is complete.
    Begin {
        /// Which shard.
        shard: ShardId,
        /// Of which listing.
        epoch: u64,
    },
    /// Adds or replaces an item: in the listing that is under way, or at once when none is.
    Put {
        /// Which shard.
        shard: ShardId,
        /// Of which listing.
        epoch: u64,
        /// What is there.
        item: Item,
    },
    /// Removes an item: from the listing that is under way, or at once when none is.
    Remove {
        /// Which shard.
        shard: ShardId,
        /// Of which listing.
        epoch: u64,
        /// What is gone.
        key: ItemKey,
    },
    /// The listing replaces what was there, whole.
    Complete {
        /// Which shard.
        shard: ShardId,
        /// Of which listing.
        epoch: u64,
    },
    /// The source is heard and has nothing new.
    Alive {
        /// Which shard.
        shard: ShardId,
    },
    /// The source was removed by configuration: the only way in which a shard ends.
    Withdraw {
        /// Which shard.
        shard: ShardId,
    },
}

impl Event {
    /// The shard that it is about.
    #[must_use]
    pub fn shard(&self) -> &ShardId {
        match self {
            Self::Begin { shard, .. }
            | Self::Put { shard, .. }
            | Self::Remove { shard, .. }
            | Self::Complete { shard, .. }
            | Self::Alive { shard }
            | Self::Withdraw { shard } => shard,
        }
    }
}

/// The items of a shard, shared so that comparing two listings is cheap.
pub(crate) type Contents = BTreeMap<ItemKey, Arc<Item>>;
