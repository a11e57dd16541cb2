//! One shard: what its source reported, and when it was last heard. Owns the barrier between a listing and what serves,
//! and the lease. Used by the registry only.

use crate::{Event, Item, ItemKey, Millis, ShardId, ShardSettings, event::Contents};
use std::{collections::BTreeSet, sync::Arc};

/// How far a shard is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Its first listing is not complete.
    Syncing,
    /// Heard within its lease.
    Fresh,
    /// Silent for longer than its lease.
    Stale,
    /// Silent for so long that its endpoints are only a last choice.
    Expired,
}

impl Freshness {
    /// The word for it in a status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syncing => "syncing",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }
}

/// A shard, for a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub id: ShardId,
    /// How far it is to be believed.
    pub freshness: Freshness,
    /// Milliseconds since it was last heard; 0 for a source that cannot go silent.
    pub age_ms: u64,
    /// The listing that serves.
    pub epoch: u64,
    /// Services in it.
    pub services: usize,
    /// Workloads in it.
    pub workloads: usize,
    /// Written-out endpoints in it.
    pub endpoints: usize,
    /// Gateways in it.
    pub gateways: usize,
}

/// A difference in what serves.
pub(crate) struct Edit {
    pub(crate) key: ItemKey,
    pub(crate) old: Option<Arc<Item>>,
    pub(crate) new: Option<Arc<Item>>,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) settings: ShardSettings,
    pub(crate) live: Contents,
    listing: Option<Contents>,
    epoch: Option<u64>,
    complete: bool,
    heard: Millis,
    pub(crate) freshness: Freshness,
}

impl Shard {
    pub(crate) fn new(id: ShardId, settings: ShardSettings, now: Millis) -> Self {
        Self {
            id,
            settings,
            live: Contents::new(),
            listing: None,
            epoch: None,
            complete: false,
            heard: now,
            freshness: Freshness::Syncing,
        }
    }

    /// Takes in what the source says; returns what changed in what serves. Only what proves that the contents are up to
    /// date counts as heard: a source that begins listing again and again and never ends grows stale.
    pub(crate) fn apply(&mut self, event: Event, now: Millis) -> Vec<Edit> {
        let current = |epoch: u64| self.epoch == Some(epoch);
        let edits = match event {
            Event::Begin { epoch, .. } => {
                if self.epoch.is_none_or(|known| epoch >= known) {
                    self.epoch = Some(epoch);
                    self.listing = Some(Contents::new());
                }
                return Vec::new();
            }
            Event::Put { epoch, .. } | Event::Remove { epoch, .. } | Event::Complete { epoch, .. }
                if !current(epoch) =>
            {
                return Vec::new();
            }
            Event::Put { item, .. } => self.put(item),
            Event::Remove { key, .. } => self.remove(key),
            Event::Complete { .. } => self.swap(),
            Event::Alive { .. } => Vec::new(),
            Event::Withdraw { .. } => {
                self.listing = Some(Contents::new());
                self.swap()
            }
        };
        if self.listing.is_none() {
            self.heard = now;
        }
        edits
    }

    fn put(&mut self, item: Item) -> Vec<Edit> {
        let key = item.key();
        if let Some(listing) = &mut self.listing {
            // What did not change stays the same allocation, so that the swap sees it at a glance.
            let shared = self.live.get(&key).filter(|old| ***old == item).cloned();
            listing.insert(key, shared.unwrap_or_else(|| Arc::new(item)));
            return Vec::new();
        }
        if self.live.get(&key).is_some_and(|old| **old == item) {
            return Vec::new();
        }
        let new = Arc::new(item);
        let old = self.live.insert(key.clone(), new.clone());
        vec![Edit { key, old, new: Some(new) }]
    }

    fn remove(&mut self, key: ItemKey) -> Vec<Edit> {
        if let Some(listing) = &mut self.listing {
            listing.remove(&key);
            return Vec::new();
        }
        match self.live.remove(&key) {
            Some(old) => vec![Edit { key, old: Some(old), new: None }],
            None => Vec::new(),
        }
    }

    fn swap(&mut self) -> Vec<Edit> {
        let Some(listing) = self.listing.take() else { return Vec::new() };
        self.complete = true;
        let before = std::mem::replace(&mut self.live, listing);
        let keys: BTreeSet<&ItemKey> = before.keys().chain(self.live.keys()).collect();
        let mut edits = Vec::new();
        for key in keys {
            let (old, new) = (before.get(key), self.live.get(key));
            let same = matches!((old, new), (Some(old), Some(new)) if Arc::ptr_eq(old, new));
            if !same {
                edits.push(Edit { key: key.clone(), old: old.cloned(), new: new.cloned() });
            }
        }
        edits
    }

    /// When silence would change the verdict next.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        let lease = self.settings.lease?;
        match self.freshness {
            Freshness::Fresh => Some(Millis(self.heard.0.saturating_add(lease.stale_after))),
            Freshness::Stale => Some(Millis(self.heard.0.saturating_add(lease.expire_after))),
            Freshness::Syncing | Freshness::Expired => None,
        }
    }

    /// Judges the silence; true when the verdict is another than before.
    pub(crate) fn judge(&mut self, now: Millis) -> bool {
        let silence = now.since(self.heard);
        let verdict = match self.settings.lease {
            _ if !self.complete => Freshness::Syncing,
            Some(lease) if silence >= lease.expire_after => Freshness::Expired,
            Some(lease) if silence >= lease.stale_after => Freshness::Stale,
            Some(_) | None => Freshness::Fresh,
        };
        std::mem::replace(&mut self.freshness, verdict) != verdict
    }

    /// Whether what it says may be out of date.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self.freshness, Freshness::Stale | Freshness::Expired)
    }

    pub(crate) fn status(&self, now: Millis) -> ShardStatus {
        let mut status = ShardStatus {
            id: self.id.clone(),
            freshness: self.freshness,
            age_ms: self.settings.lease.map_or(0, |_| now.since(self.heard)),
            epoch: self.epoch.unwrap_or(0),
            services: 0,
            workloads: 0,
            endpoints: 0,
            gateways: 0,
        };
        for item in self.live.values() {
            match &**item {
                Item::Service(_) => status.services += 1,
                Item::Workload(_) => status.workloads += 1,
                Item::Slice(slice) => status.endpoints += slice.endpoints.len(),
                Item::Gateway(_) => status.gateways += 1,
                Item::Export(_) => {}
            }
        }
        status
    }
}
