//! What the control plane sent, as it sent it: for the disk, and for whoever wants to see it.
//!
//! Owns the bytes of every resource in use and the last refusal of each name. Bounded: a control plane that sends more than a
//! gateway can hold is refused by name, not obeyed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};
use tombolo_federation_sync::Resource;
use tombolo_gateway_core::wire::Kind;

/// Resources of one kind.
pub(crate) const MOST_OF_A_KIND: usize = 250_000;
/// Bytes of all resources together.
pub(crate) const MOST_BYTES: usize = 1 << 30;
/// Refused names that are remembered of one kind.
const MOST_REFUSED: usize = 1000;

/// One resource.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// As it came.
    pub(crate) resource: Arc<Resource>,
    /// When.
    pub(crate) updated: SystemTime,
}

/// A resource that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) reason: String,
    /// When.
    pub(crate) at: SystemTime,
    /// Which version.
    pub(crate) version: Arc<str>,
    /// What it was.
    pub(crate) resource: Option<Arc<Resource>>,
}

/// Everything of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    /// In use or waiting, by name.
    pub(crate) kept: BTreeMap<Arc<str>, Kept>,
    /// Refused since they were last accepted, by name.
    pub(crate) refused: BTreeMap<String, Refused>,
    /// Version of the last response that said one.
    pub(crate) version: String,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelves {
    kinds: BTreeMap<Kind, Shelf>,
    bytes: usize,
}

/// Shared with the admin interface.
pub(crate) type SharedShelves = Arc<Mutex<Shelves>>;

impl Shelves {
    /// One kind.
    pub(crate) fn of(&self, kind: Kind) -> Option<&Shelf> {
        self.kinds.get(&kind)
    }

    /// The version of a response.
    pub(crate) fn version(&mut self, kind: Kind, version: &str) {
        if !version.is_empty() {
            version.clone_into(&mut self.kinds.entry(kind).or_default().version);
        }
    }

    /// Why one more resource has no room.
    pub(crate) fn full(&self, kind: Kind, resource: &Resource) -> Option<String> {
        let shelf = self.kinds.get(&kind);
        let before = shelf.and_then(|shelf| shelf.kept.get(&resource.name));
        if before.is_none() && shelf.map_or(0, |shelf| shelf.kept.len()) >= MOST_OF_A_KIND {
            return Some(format!("more than {MOST_OF_A_KIND} resources of this type"));
        }
        let freed = before.map_or(0, |kept| kept.resource.body.len());
        (self.bytes - freed + resource.body.len() > MOST_BYTES)
            .then(|| format!("more than {MOST_BYTES} bytes of resources"))
    }

    /// Keeps a resource.
    pub(crate) fn put(&mut self, kind: Kind, resource: Arc<Resource>, now: SystemTime) {
        let shelf = self.kinds.entry(kind).or_default();
        shelf.refused.remove(&*resource.name);
        self.bytes += resource.body.len();
        let name = resource.name.clone();
        if let Some(before) = shelf.kept.insert(name, Kept { resource, updated: now }) {
            self.bytes -= before.resource.body.len();
        }
    }

    /// Forgets a resource and what was said against it.
    pub(crate) fn remove(&mut self, kind: Kind, name: &str) {
        let Some(shelf) = self.kinds.get_mut(&kind) else { return };
        shelf.refused.remove(name);
        if let Some(gone) = shelf.kept.remove(name) {
            self.bytes -= gone.resource.body.len();
        }
    }

    /// Remembers a refusal.
    pub(crate) fn refuse(&mut self, kind: Kind, name: &str, refused: Refused) {
        let shelf = self.kinds.entry(kind).or_default();
        if shelf.refused.len() < MOST_REFUSED || shelf.refused.contains_key(name) {
            shelf.refused.insert(name.to_owned(), refused);
        }
    }

    /// All resources by the type URL of their kind, as the disk wants them.
    pub(crate) fn to_save(&self) -> super::store::Kept {
        let of_kind = |shelf: &Shelf| shelf.kept.iter().map(|(n, kept)| (n.clone(), kept.resource.clone())).collect();
        self.kinds.iter().map(|(kind, shelf)| (Arc::from(kind.type_url()), of_kind(shelf))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_as_they_come_and_go() {
        let mut shelves = Shelves::default();
        let now = SystemTime::now();
        let resource = |size: usize| Arc::new(Resource::new("a", vec![0; size]));
        shelves.put(Kind::Cluster, resource(10), now);
        shelves.put(Kind::Cluster, resource(4), now);
        assert_eq!(shelves.bytes, 4);
        assert!(shelves.full(Kind::Cluster, &resource(8)).is_none());
        shelves.remove(Kind::Cluster, "a");
        shelves.remove(Kind::Cluster, "a");
        assert_eq!(shelves.bytes, 0);
        shelves.bytes = MOST_BYTES - 3;
        assert!(shelves.full(Kind::Cluster, &resource(4)).unwrap().contains("bytes"));
    }
}
