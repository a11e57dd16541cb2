//! What each resource of a peer put into the registry.
//!
//! Owns the count of holders: resources may put the same item (the hosts of one definition share its export), which goes with the
//! last of them. Never says what an item is. Used by the intake, and by whoever plays one.

use std::{collections::BTreeMap, sync::Arc};

/// A resource: its type and its name.
type Holder = (Arc<str>, Arc<str>);

/// Items by the resources that hold them, each with a note of the holder.
#[derive(Debug)]
pub struct Holding<K, N> {
    entries: BTreeMap<Holder, (Vec<K>, N)>,
    holders: BTreeMap<K, u32>,
}

impl<K, N> Default for Holding<K, N> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), holders: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, N> Holding<K, N> {
    /// A resource, by type and name, holds these items from now on. Returns those that nobody holds any more.
    #[must_use]
    pub fn put(&mut self, type_url: &str, name: &Arc<str>, items: Vec<K>, note: N) -> Vec<K> {
        for item in &items {
            *self.holders.entry(item.clone()).or_insert(0) += 1;
        }
        let before = self.entries.insert((type_url.into(), name.clone()), (items, note));
        self.release(before)
    }

    /// A resource is gone. Returns the items that nobody holds any more.
    #[must_use]
    pub fn remove(&mut self, type_url: &Arc<str>, name: &Arc<str>) -> Vec<K> {
        let before = self.entries.remove(&(type_url.clone(), name.clone()));
        self.release(before)
    }

    /// The notes of all resources of a type.
    pub fn notes(&self, type_url: &str) -> impl Iterator<Item = &N> {
        self.entries.iter().filter(move |((of, _), _)| **of == *type_url).map(|(_, (_, note))| note)
    }

    fn release(&mut self, before: Option<(Vec<K>, N)>) -> Vec<K> {
        let (mut gone, items) = (Vec::new(), before.map(|(items, _)| items).unwrap_or_default());
        for item in items {
            let left = self.holders.get(&item).map_or(0, |count| count.saturating_sub(1));
            if left > 0 {
                self.holders.insert(item, left);
            } else {
                self.holders.remove(&item);
                gone.push(item);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_item_goes_with_its_last_holder() {
        let mut holding = Holding::default();
        let (kind, one, other): (Arc<str>, Arc<str>, Arc<str>) = ("t".into(), "one".into(), "other".into());
        assert!(holding.put("t", &one, vec!["shared", "own"], 3u64).is_empty());
        assert!(holding.put("t", &other, vec!["shared"], 4).is_empty());
        assert_eq!(holding.put("t", &one, vec!["shared"], 5), ["own"]);
        assert_eq!(holding.notes("t").sum::<u64>(), 9);
        assert!(holding.remove(&kind, &one).is_empty() && holding.remove(&kind, &one).is_empty());
        assert_eq!(holding.remove(&kind, &other), ["shared"]);
        assert_eq!(holding.notes("t").count(), 0);
    }
}
