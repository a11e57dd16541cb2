//! What the engine is told: events of shards, of the registry's and of intents.
//!
//! Owns the vocabulary only. Used by the server, which turns sources and peers into these.

use crate::intent::Intent;
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{ObjectRef, SiteName, Subsets, TrustDomain};
use tombolo_federation_registry::{Event, ShardId, ShardSettings};

/// One thing that the engine is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// Services, workloads, gateways and exports of a shard.
    Registry(Event),
    /// A shard exists, with these settings.
    Declare(ShardId, ShardSettings),
    /// What users mean, by shard.
    Intent(IntentEvent),
    /// All trust bundles, own and federated: DER roots by trust domain. Replaces what was known.
    Bundles(BTreeMap<TrustDomain, Vec<Vec<u8>>>),
    /// The subsets by which a peer's clients ask for services. Replaces what was known of that peer.
    RemoteSubsets {
        /// Whose clients.
        peer: SiteName,
        /// All of them.
        subsets: Subsets,
    },
}

/// An event of a shard of intents, with the same rules as the registry's: between `Begin` and `Complete` the old contents
/// still hold; what was not put since `Begin` is gone at `Complete`; an older epoch is ignored.
#[derive(Debug, Clone)]
pub enum IntentEvent {
    /// A full listing begins.
    Begin {
        /// Which shard.
        shard: ShardId,
        /// Larger is newer.
        epoch: u64,
    },
    /// An object is there, with this meaning.
    Put {
        /// Which shard.
        shard: ShardId,
        /// Epoch of the shard.
        epoch: u64,
        /// The meaning.
        intent: Arc<Intent>,
    },
    /// An object is gone.
    Remove {
        /// Which shard.
        shard: ShardId,
        /// Epoch of the shard.
        epoch: u64,
        /// Which object.
        object: ObjectRef,
    },
    /// The full listing is complete.
    Complete {
        /// Which shard.
        shard: ShardId,
        /// Epoch of the shard.
        epoch: u64,
    },
}
