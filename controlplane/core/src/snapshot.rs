//! Sets of resources that grow and shrink piece by piece, and snapshots made of them.
//!
//! Owns sharing: equal resources of different classes are one resource in memory, and a set that did not change is the
//! same set in the next snapshot. Used by the engine.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};
use tombolo_federation_sync::{Resource, ResourceSet, Snapshot};

/// One copy of equal resources.
#[derive(Debug, Default)]
pub struct Pool {
    known: HashMap<(Arc<str>, Arc<str>), Weak<Resource>>,
    purge_at: usize,
}

impl Pool {
    /// The resource, or an equal one that is in use already.
    pub fn share(&mut self, resource: Arc<Resource>) -> Arc<Resource> {
        let key = (resource.name.clone(), resource.version.clone());
        // Two types may have resources of one name, so equal versions are only equal resources when the bytes are.
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade).filter(|known| known.body == resource.body) {
            return known;
        }
        self.known.insert(key, Arc::downgrade(&resource));
        if self.known.len() > self.purge_at {
            self.known.retain(|_, weak| weak.strong_count() > 0);
            self.purge_at = (self.known.len() * 2).max(1024);
        }
        resource
    }
}

/// What one output put into a set.
#[derive(Debug)]
pub struct Shelf<K> {
    parts: BTreeMap<K, Vec<Arc<Resource>>>,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self { parts: BTreeMap::new() }
    }
}

impl<K: Ord> Shelf<K> {
    /// Replaces the part of an output in a set. True when the set is another one now.
    pub fn place(&mut self, key: K, new: Vec<Arc<Resource>>, pool: &mut Pool, set: &mut Arc<ResourceSet>) -> bool {
        let old = self.parts.remove(&key).unwrap_or_default();
        let new: Vec<Arc<Resource>> = new.into_iter().map(|resource| pool.share(resource)).collect();
        let same = old.len() == new.len() && old.iter().zip(&new).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            let set = Arc::make_mut(set);
            for gone in &old {
                // Another output may have taken the name over in the same step.
                if set.get(&gone.name).is_some_and(|there| Arc::ptr_eq(there, gone)) {
                    set.remove(&gone.name);
                }
            }
            for resource in &new {
                set.insert(resource.name.clone(), resource.clone());
            }
        }
        if !new.is_empty() {
            self.parts.insert(key, new);
        }
        !same
    }

    /// The part of an output.
    #[must_use]
    pub fn part(&self, key: &K) -> &[Arc<Resource>] {
        self.parts.get(key).map_or(&[], Vec::as_slice)
    }
}

/// Two sets as one, made anew only when one of them is another set than before.
#[derive(Debug, Default)]
pub struct Union {
    parts: (Arc<ResourceSet>, Arc<ResourceSet>),
    whole: Arc<ResourceSet>,
}

impl Union {
    /// Both sets; where both have a name, that of the second.
    pub fn of(&mut self, first: &Arc<ResourceSet>, second: &Arc<ResourceSet>) -> Arc<ResourceSet> {
        if !Arc::ptr_eq(first, &self.parts.0) || !Arc::ptr_eq(second, &self.parts.1) {
            self.whole = if second.is_empty() {
                first.clone()
            } else {
                let mut whole = (**first).clone();
                whole.extend(second.iter().map(|(name, resource)| (name.clone(), resource.clone())));
                Arc::new(whole)
            };
            self.parts = (first.clone(), second.clone());
        }
        self.whole.clone()
    }
}

/// A snapshot of these types; the old one when nothing changed.
#[must_use]
pub fn next(old: Option<&Arc<Snapshot>>, types: BTreeMap<Arc<str>, Arc<ResourceSet>>) -> Arc<Snapshot> {
    let mut types = types;
    let Some(old) = old else { return Arc::new(Snapshot { revision: 1, types }) };
    for (name, set) in &mut types {
        // Comparing shared sets compares their addresses first.
        if let Some(before) = old.types.get(name).filter(|before| *before == set) {
            *set = before.clone();
        }
    }
    if types == old.types { old.clone() } else { Arc::new(Snapshot { revision: old.revision + 1, types }) }
}
