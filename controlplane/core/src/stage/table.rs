//! A map that remembers which keys changed value since it was last asked.

use std::{borrow::Borrow, collections::BTreeMap};

/// Rows by key. Setting a row to an equal value is no change.
#[derive(Debug)]
pub struct Table<K, V> {
    rows: BTreeMap<K, V>,
    changed: std::collections::BTreeSet<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), changed: std::collections::BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V: PartialEq> Table<K, V> {
    /// Sets or removes a row. True when that changed anything.
    pub fn set(&mut self, key: K, value: Option<V>) -> bool {
        if self.rows.get(&key) == value.as_ref() {
            return false;
        }
        match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(&key),
        };
        self.changed.insert(key);
        true
    }

    /// The row, if there is one.
    pub fn row<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key)
    }

    /// All rows, in key order.
    #[must_use]
    pub fn rows(&self) -> &BTreeMap<K, V> {
        &self.rows
    }

    /// The keys whose rows changed since the last call.
    pub fn take_changed(&mut self) -> std::collections::BTreeSet<K> {
        std::mem::take(&mut self.changed)
    }
}
