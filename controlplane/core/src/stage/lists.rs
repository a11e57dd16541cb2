//! A map from key to a list of intents in merge order, which remembers the keys whose lists changed.

use crate::intent::Meta;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Lists by key. The order inside of a list is that of [`Meta::merge_order`], whatever the order of insertion was.
#[derive(Debug)]
pub struct Lists<K, T> {
    rows: BTreeMap<K, Vec<(Meta, Arc<T>)>>,
    changed: BTreeSet<K>,
}

impl<K, T> Default for Lists<K, T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, T> Lists<K, T> {
    /// Adds an entry.
    pub fn add(&mut self, key: K, meta: &Meta, item: Arc<T>) {
        let list = self.rows.entry(key.clone()).or_default();
        let at = list
            .partition_point(|(other, _)| (other.merge_order(), &other.object) <= (meta.merge_order(), &meta.object));
        list.insert(at, (meta.clone(), item));
        self.changed.insert(key);
    }

    /// Removes the entry of an object; no change when there is none.
    pub fn remove(&mut self, key: &K, meta: &Meta) {
        let Some(list) = self.rows.get_mut(key) else { return };
        let before = list.len();
        list.retain(|(other, _)| other.object != meta.object);
        if list.len() != before {
            self.changed.insert(key.clone());
        }
        if list.is_empty() {
            self.rows.remove(key);
        }
    }

    /// The list of a key, oldest first.
    pub fn row(&self, key: &K) -> impl Iterator<Item = &Arc<T>> + use<'_, K, T> {
        self.rows.get(key).into_iter().flatten().map(|(_, item)| item)
    }

    /// Keys that have a list.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.rows.keys()
    }

    /// The keys whose lists changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.changed)
    }
}
