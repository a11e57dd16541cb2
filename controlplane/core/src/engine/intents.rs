//! Shards of intents: the barrier between a listing and what holds, as the registry has it for its items.

use crate::{input::IntentEvent, intent::Intent};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::ObjectRef;
use tombolo_federation_registry::ShardId;

#[derive(Debug, Default)]
struct Shard {
    epoch: u64,
    live: BTreeMap<ObjectRef, Arc<Intent>>,
    listing: Option<BTreeMap<ObjectRef, Arc<Intent>>>,
}

/// What every shard says.
#[derive(Debug, Default)]
pub(super) struct Intents {
    shards: BTreeMap<ShardId, Shard>,
    holders: BTreeMap<ObjectRef, BTreeSet<ShardId>>,
}

impl Intents {
    /// Takes an event. The answer names the objects whose meaning may have changed.
    pub(super) fn apply(&mut self, event: IntentEvent) -> BTreeSet<ObjectRef> {
        match event {
            IntentEvent::Begin { shard, epoch } => {
                let state = self.shards.entry(shard).or_default();
                if epoch >= state.epoch {
                    state.epoch = epoch;
                    state.listing = Some(BTreeMap::new());
                }
                BTreeSet::new()
            }
            IntentEvent::Put { shard, epoch, intent } => {
                let object = intent.meta().object.clone();
                self.edit(&shard, epoch, object, Some(intent))
            }
            IntentEvent::Remove { shard, epoch, object } => self.edit(&shard, epoch, object, None),
            IntentEvent::Complete { shard, epoch } => self.complete(&shard, epoch),
        }
    }

    /// What an object means. When several shards report it, the first in order of shard ids is believed.
    pub(super) fn meaning(&self, object: &ObjectRef) -> Option<Arc<Intent>> {
        let shard = self.holders.get(object)?.first()?;
        self.shards.get(shard)?.live.get(object).cloned()
    }

    fn edit(
        &mut self,
        id: &ShardId,
        epoch: u64,
        object: ObjectRef,
        intent: Option<Arc<Intent>>,
    ) -> BTreeSet<ObjectRef> {
        let state = self.shards.entry(id.clone()).or_default();
        if epoch < state.epoch {
            return BTreeSet::new();
        }
        state.epoch = epoch;
        let listing = state.listing.is_some();
        let target = state.listing.as_mut().unwrap_or(&mut state.live);
        match intent {
            Some(intent) => drop(target.insert(object.clone(), intent)),
            None => drop(target.remove(&object)),
        }
        if listing {
            return BTreeSet::new();
        }
        self.refresh_holder(id, &object);
        BTreeSet::from([object])
    }

    fn complete(&mut self, id: &ShardId, epoch: u64) -> BTreeSet<ObjectRef> {
        let Some(state) = self.shards.get_mut(id).filter(|state| epoch >= state.epoch) else { return BTreeSet::new() };
        let Some(listing) = state.listing.take() else { return BTreeSet::new() };
        let old = std::mem::replace(&mut state.live, listing);
        let touched: BTreeSet<ObjectRef> = old.keys().chain(state.live.keys()).cloned().collect();
        touched.iter().for_each(|object| self.refresh_holder(id, object));
        touched
    }

    fn refresh_holder(&mut self, id: &ShardId, object: &ObjectRef) {
        let held = self.shards.get(id).is_some_and(|state| state.live.contains_key(object));
        let holders = self.holders.entry(object.clone()).or_default();
        if held {
            holders.insert(id.clone());
        } else {
            holders.remove(id);
        }
        if holders.is_empty() {
            self.holders.remove(object);
        }
    }

    /// Forgets a shard that was removed by configuration.
    pub(super) fn withdraw(&mut self, id: &ShardId) -> BTreeSet<ObjectRef> {
        let Some(state) = self.shards.remove(id) else { return BTreeSet::new() };
        state.live.keys().for_each(|object| self.refresh_holder(id, object));
        state.live.into_keys().collect()
    }
}
