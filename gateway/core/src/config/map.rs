//! A map from names to shared values that is cheap to copy and to change a little.
//!
//! Owns the sharing: a copy costs a few hundred reference counts whatever the number of entries, and a change copies one
//! part in 256. Rejected: a tree crate (one more dependency for one use), a plain hash map (each endpoint change would copy
//! ten thousand entries). Used by [`Config`](super::Config) and `assemble`.

use std::{collections::HashMap, fmt, sync::Arc};

const PARTS: usize = 256;

type Part<V> = HashMap<Arc<str>, Arc<V>, ahash::RandomState>;

/// Names to shared values. Iteration order is not defined.
pub struct Map<V> {
    parts: Box<[Option<Arc<Part<V>>>]>,
    len: usize,
}

fn part_of(name: &str) -> usize {
    // The top byte: the inner maps hash with another function, so the parts do not bias them.
    (xxhash_rust::xxh3::xxh3_64(name.as_bytes()) >> 56) as usize
}

impl<V> Map<V> {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<V>> {
        self.parts.get(part_of(name))?.as_ref()?.get(name)
    }

    /// True when the name is here.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All names with their values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<V>)> {
        self.parts.iter().flatten().flat_map(|part| part.iter())
    }

    /// Names that have another value than in a map before, or none in one of them. Costs what changed, not what there is, as long as
    /// one map came from the other.
    pub fn changes<'m>(&'m self, before: &'m Self) -> impl Iterator<Item = &'m Arc<str>> {
        let parts = self.parts.iter().zip(&before.parts).filter(|(new, old)| match (new, old) {
            (Some(new), Some(old)) => !Arc::ptr_eq(new, old),
            (None, None) => false,
            _ => true,
        });
        parts.flat_map(|(new, old)| {
            let old_value = |name: &Arc<str>| old.as_ref().and_then(|old| old.get(name));
            let differs = move |value: &Arc<V>, name| old_value(name).is_none_or(|before| !Arc::ptr_eq(before, value));
            let changed = new.iter().flat_map(|part| part.iter()).filter(move |(name, value)| differs(value, name));
            let is_gone = |name: &&Arc<str>| !new.as_ref().is_some_and(|new| new.contains_key(*name));
            changed.map(|(name, _)| name).chain(old.iter().flat_map(|part| part.keys()).filter(is_gone))
        })
    }

    /// Puts a value; returns the one before.
    pub fn insert(&mut self, name: Arc<str>, value: Arc<V>) -> Option<Arc<V>> {
        let slot = self.parts.get_mut(part_of(&name))?;
        let before = Arc::make_mut(slot.get_or_insert_default()).insert(name, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes a value out.
    pub fn remove(&mut self, name: &str) -> Option<Arc<V>> {
        let slot = self.parts.get_mut(part_of(name))?;
        // Looked up first: a miss must not copy a part.
        if !slot.as_ref()?.contains_key(name) {
            return None;
        }
        let gone = Arc::make_mut(slot.as_mut()?).remove(name);
        self.len -= usize::from(gone.is_some());
        gone
    }
}

impl<V> Clone for Map<V> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), len: self.len }
    }
}

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| None).collect(), len: 0 }
    }
}

impl<V: fmt::Debug> fmt::Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<V> FromIterator<(Arc<str>, Arc<V>)> for Map<V> {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<V>)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (name, value) in entries {
            map.insert(name, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_what_differs() {
        let before: Map<u32> = (0..1000).map(|n| (Arc::from(n.to_string()), Arc::new(n))).collect();
        let mut after = before.clone();
        assert_eq!(after.changes(&before).count(), 0);
        after.insert("7".into(), Arc::new(7));
        after.insert("new".into(), Arc::new(1));
        after.remove("8");
        let mut changed: Vec<_> = after.changes(&before).map(|name| &**name).collect();
        changed.sort_unstable();
        assert_eq!(changed, ["7", "8", "new"]);
        assert_eq!(after.changes(&Map::default()).count(), after.len());
        assert_eq!(Map::default().changes(&after).count(), after.len());
    }

    #[test]
    fn a_copy_does_not_see_later_changes_and_shares_the_rest() {
        let mut map: Map<u32> = (0..1000).map(|n| (Arc::from(n.to_string()), Arc::new(n))).collect();
        let copy = map.clone();
        assert_eq!(map.insert("7".into(), Arc::new(70)).as_deref(), Some(&7));
        assert_eq!(map.remove("8").as_deref(), Some(&8));
        assert_eq!(map.remove("8"), None);
        assert_eq!((map.len(), copy.len()), (999, 1000));
        assert_eq!((copy.get("7").map(|v| **v), map.get("7").map(|v| **v)), (Some(7), Some(70)));
        assert!(copy.contains("8") && !map.contains("8"));
        let shared =
            copy.iter().filter(|(name, value)| map.get(name).is_some_and(|other| Arc::ptr_eq(value, other))).count();
        assert_eq!(shared, 998);
    }
}
