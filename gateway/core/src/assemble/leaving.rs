//! Route tables for connections that outlive their listener.
//!
//! A listener that goes, or gives its place to another version, drains: who is connected may still send requests. So a table
//! that nothing refers to any more stays for as long as a connection manager lives that asks for it, as in Envoy, where a
//! draining listener keeps its subscription. Here it is the last version that stays; nothing is subscribed to.

use super::{Assembly, Kind, needs};
use crate::config::{Hcm, Listener, RouteSource, ScopeTable, Terminal};
use ahash::AHashMap;
use smallvec::SmallVec;
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Connection managers of listeners that are out of use, by the tables that they ask for.
    managers: AHashMap<Arc<str>, SmallVec<[Weak<Hcm>; 1]>>,
    /// Tables that stay for them.
    kept: BTreeSet<Arc<str>>,
}

impl Leaving {
    /// This version of a listener is out of use.
    pub(super) fn note(&mut self, listener: &Listener) {
        for chain in needs::chains(listener) {
            let Terminal::Http(hcm) = &chain.terminal else { continue };
            match &hcm.routes {
                RouteSource::Inline(_) => {}
                RouteSource::Named(name) => self.add(name, hcm),
                RouteSource::Scoped(scoped) => {
                    for scope in scoped.scopes.iter().flat_map(|scopes| scopes.iter()) {
                        if let ScopeTable::Named(name) = &scope.routes {
                            self.add(name, hcm);
                        }
                    }
                }
            }
        }
    }

    fn add(&mut self, name: &Arc<str>, hcm: &Arc<Hcm>) {
        let managers = self.managers.entry(Arc::clone(name)).or_default();
        managers.retain(|manager| manager.strong_count() > 0 && manager.as_ptr() != Arc::as_ptr(hcm));
        managers.push(Arc::downgrade(hcm));
    }

    /// Whether somebody may still ask for this table; forgets those who are gone.
    fn is_asked_for(&mut self, name: &str) -> bool {
        let Some(managers) = self.managers.get_mut(name) else { return false };
        managers.retain(|manager| manager.strong_count() > 0);
        let any = !managers.is_empty();
        if !any {
            self.managers.remove(name);
        }
        any
    }
}

impl Assembly {
    /// Nothing refers to this table any more.
    pub(super) fn drop_table(&mut self, name: Arc<str>) {
        if self.leaving.is_asked_for(&name) {
            self.leaving.kept.insert(name);
        } else {
            self.changed |= self.config.routes.remove(&name).is_some();
        }
    }

    /// Lets go of what stayed for connections that are gone by now.
    pub(super) fn drop_kept(&mut self) {
        for name in std::mem::take(&mut self.leaving.kept) {
            if !self.wanted.has(Kind::Routes, &name) {
                self.drop_table(name);
            }
        }
    }
}
