//! One stage: outputs by key, each with the reads of its last computation.

use super::{Dep, Reader, World};
use std::collections::{BTreeMap, BTreeSet};

/// Remembers for every wanted output what it read, and which outputs have to be computed.
#[derive(Debug)]
pub struct Stage<K> {
    reads: BTreeMap<K, BTreeSet<Dep>>,
    readers: BTreeMap<Dep, BTreeSet<K>>,
    wanted: BTreeSet<K>,
    due: BTreeSet<K>,
    gone: BTreeSet<K>,
}

impl<K> Default for Stage<K> {
    fn default() -> Self {
        Self {
            reads: BTreeMap::new(),
            readers: BTreeMap::new(),
            wanted: BTreeSet::new(),
            due: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Stage<K> {
    /// The output is wanted from now on.
    pub fn want(&mut self, key: K) {
        if self.wanted.insert(key.clone()) {
            self.gone.remove(&key);
            self.due.insert(key);
        }
    }

    /// The output is wanted no more.
    pub fn unwant(&mut self, key: &K) {
        if self.wanted.remove(key) {
            self.forget(key);
            self.due.remove(key);
            self.gone.insert(key.clone());
        }
    }

    /// Wants exactly the keys of `new` of those that `old` and `new` name.
    pub fn rewant(&mut self, old: impl IntoIterator<Item = K>, new: impl IntoIterator<Item = K>) {
        let new: BTreeSet<K> = new.into_iter().collect();
        for key in old {
            if !new.contains(&key) {
                self.unwant(&key);
            }
        }
        new.into_iter().for_each(|key| self.want(key));
    }

    /// Whether anything has to be done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.due.is_empty() && self.gone.is_empty()
    }

    /// Number of outputs that have to be computed.
    #[must_use]
    pub fn due(&self) -> usize {
        self.due.len()
    }

    /// Makes the outputs that read one of these due.
    pub fn touch<'a>(&mut self, changed: impl IntoIterator<Item = &'a Dep>) {
        for dep in changed {
            if let Some(keys) = self.readers.get(dep) {
                self.due.extend(keys.iter().cloned());
            }
        }
    }

    /// Computes what is due. The answer holds every computed output, and `None` for those that are wanted no more.
    pub fn run<V>(&mut self, world: &World, compute: impl Fn(&Reader<'_>, &K) -> V) -> Vec<(K, Option<V>)> {
        let mut results: Vec<(K, Option<V>)> =
            std::mem::take(&mut self.gone).into_iter().map(|key| (key, None)).collect();
        for key in std::mem::take(&mut self.due) {
            let reader = Reader::new(world);
            let value = compute(&reader, &key);
            self.record(&key, reader.into_reads());
            results.push((key, Some(value)));
        }
        results
    }

    fn record(&mut self, key: &K, reads: BTreeSet<Dep>) {
        self.forget(key);
        for dep in &reads {
            self.readers.entry(dep.clone()).or_default().insert(key.clone());
        }
        self.reads.insert(key.clone(), reads);
    }

    fn forget(&mut self, key: &K) {
        for dep in self.reads.remove(key).unwrap_or_default() {
            if let Some(keys) = self.readers.get_mut(&dep) {
                keys.remove(key);
                if keys.is_empty() {
                    self.readers.remove(&dep);
                }
            }
        }
    }
}
