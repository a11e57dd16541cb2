//! Which names are referred to, by count.

use crate::wire::Kind;
use ahash::AHashMap;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What to subscribe to and what no longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedChange {
    /// Newly referred to.
    pub added: BTreeSet<String>,
    /// No longer referred to.
    pub removed: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Wanted {
    counts: BTreeMap<Kind, AHashMap<Arc<str>, u32>>,
    changes: BTreeMap<Kind, WantedChange>,
    /// Counts that reached zero; looked at again at the end of a step, since a name is often released and acquired in one go.
    zero: BTreeSet<(Kind, Arc<str>)>,
}

impl Wanted {
    pub(super) fn acquire(&mut self, kind: Kind, name: &Arc<str>) {
        let count = self.counts.entry(kind).or_default().entry(Arc::clone(name)).or_default();
        *count += 1;
        if *count == 1 && !self.zero.remove(&(kind, Arc::clone(name))) {
            let change = self.changes.entry(kind).or_default();
            if !change.removed.remove(&**name) {
                change.added.insert(name.to_string());
            }
        }
    }

    pub(super) fn release(&mut self, kind: Kind, name: &Arc<str>) {
        if let Some(count) = self.counts.get_mut(&kind).and_then(|counts| counts.get_mut(name)) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.zero.insert((kind, Arc::clone(name)));
            }
        }
    }

    pub(super) fn has(&self, kind: Kind, name: &str) -> bool {
        self.counts.get(&kind).and_then(|counts| counts.get(name)).is_some_and(|count| *count > 0)
    }

    pub(super) fn names(&self, kind: Kind) -> BTreeSet<String> {
        self.counts.get(&kind).into_iter().flatten().map(|(name, _)| name.to_string()).collect()
    }

    pub(super) fn take(&mut self, kind: Kind) -> Option<WantedChange> {
        self.changes.remove(&kind).filter(|change| !change.added.is_empty() || !change.removed.is_empty())
    }

    /// Names that nothing refers to any more, each once.
    pub(super) fn take_dropped(&mut self) -> Vec<(Kind, Arc<str>)> {
        let dropped: Vec<_> = std::mem::take(&mut self.zero).into_iter().collect();
        for (kind, name) in &dropped {
            if let Some(counts) = self.counts.get_mut(kind) {
                counts.remove(name);
            }
            let change = self.changes.entry(*kind).or_default();
            if !change.added.remove(&**name) {
                change.removed.insert(name.to_string());
            }
        }
        dropped
    }
}
