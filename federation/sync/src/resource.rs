//! What is published: named, versioned bytes. Owns the rule that a version is a hash of the content, so that it
//! means the same after a restart and at every replica. Used by both halves and by whoever encodes resources.

use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// One named unit of the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Unique in its type.
    pub name: Arc<str>,
    /// Hash of the content: two resources of the same name and version are the same.
    pub version: Arc<str>,
    /// The encoded message, without a type.
    pub body: Bytes,
}

impl Resource {
    /// A resource whose version is the hash of its body.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { name: name.into(), version: content_version(&body), body }
    }
}

/// The version of a body: equal bytes, equal version, in every process.
#[must_use]
pub fn content_version(body: &[u8]) -> Arc<str> {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(body)).into()
}

/// Every resource of one type, by name.
pub type ResourceSet = BTreeMap<Arc<str>, Arc<Resource>>;

/// Collects resources into a set. Of two with the same name the later wins.
pub fn resource_set(resources: impl IntoIterator<Item = Arc<Resource>>) -> ResourceSet {
    resources.into_iter().map(|resource| (resource.name.clone(), resource)).collect()
}

/// Everything that one audience is shown, at one moment. Sets and resources that did not change are shared with the
/// snapshot before, which makes comparing two snapshots cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Grows with every snapshot of the same audience. Informational.
    pub revision: u64,
    /// Resources by type URL. A type that is missing is empty.
    pub types: BTreeMap<Arc<str>, Arc<ResourceSet>>,
}

impl Snapshot {
    /// The resources of a type, if the snapshot has any.
    #[must_use]
    pub fn set(&self, type_url: &str) -> Option<&Arc<ResourceSet>> {
        self.types.get(type_url)
    }

    /// One resource.
    #[must_use]
    pub fn resource(&self, type_url: &str, name: &str) -> Option<&Arc<Resource>> {
        self.types.get(type_url)?.get(name)
    }

    /// The same snapshot with one type replaced; keeps the old set when the new one is equal, so that a reader
    /// sees at a glance that nothing changed.
    #[must_use]
    pub fn with(mut self, type_url: impl Into<Arc<str>>, set: ResourceSet) -> Self {
        let type_url = type_url.into();
        if self.types.get(&type_url).is_none_or(|old| **old != set) {
            self.types.insert(type_url, Arc::new(set));
        }
        self
    }
}
