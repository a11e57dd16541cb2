//! Subsets that cross sites. A client in one site names a subset in the server name by which the east-west gateway of another
//! routes, so each site tells the others which subsets it uses and what they mean.
//!
//! Owns two indexes by host, each brought up to date host by host: what this site uses, and what peers use. Used by the
//! engine.

use super::World;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{Host, Labels, SiteName, Subsets};

/// Labels by name of subset.
type Named = BTreeMap<String, Labels>;

impl World {
    /// Takes over the subsets that a peer uses.
    pub fn set_remote_subsets(&mut self, peer: SiteName, subsets: Subsets) {
        let new = Arc::new(subsets);
        let old = self.subsets_of_peers.insert(peer.clone(), new.clone()).unwrap_or_default();
        if new.is_empty() {
            self.subsets_of_peers.remove(&peer);
        }
        let hosts: BTreeSet<&Host> = old.keys().chain(new.keys()).collect();
        for host in hosts.into_iter().filter(|host| old.get(*host) != new.get(*host)) {
            let row = merged(self.subsets_of_peers.values().filter_map(|all| all.get(host)).flatten());
            self.remote_subsets.set(host.clone(), row);
        }
    }

    /// Recomputes which subsets of a host this site uses elsewhere. Rules for a pattern of hosts are left out: they have no
    /// host to ask for.
    pub(super) fn refresh_used_subsets(&mut self, host: &Host) {
        let home = &self.site.cluster;
        let mut keys = self.hosts.row(host).into_iter().flatten();
        let endpoints = |key| self.endpoints.row(key).into_iter().flat_map(|list| list.iter());
        let defined = || self.destinations.row(host).flat_map(|destination| &destination.subsets);
        let used = !host.is_wildcard()
            && defined().next().is_some()
            && keys.any(|key| endpoints(key).any(|endpoint| endpoint.cluster != *home));
        let row = used.then(|| merged(defined().map(|subset| (&subset.name, &subset.labels)))).flatten();
        self.used_subsets.set(host.clone(), row);
    }

    /// The subsets that this site uses of services with endpoints in other clusters.
    #[must_use]
    pub fn used_subsets(&self) -> &Subsets {
        self.used_subsets.rows()
    }

    /// Whether those changed since the last call.
    pub fn take_used_subsets_changed(&mut self) -> bool {
        !self.used_subsets.take_changed().is_empty()
    }
}

/// The first definition of a name counts; `None` when there is none.
fn merged<'a>(all: impl Iterator<Item = (&'a String, &'a Labels)>) -> Option<Named> {
    let mut named = Named::new();
    for (name, labels) in all {
        named.entry(name.clone()).or_insert_with(|| labels.clone());
    }
    Some(named).filter(|named| !named.is_empty())
}
