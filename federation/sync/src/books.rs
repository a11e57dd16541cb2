//! What a reader keeps of one type, whichever variant of the protocol it speaks. Used by both readers.

use crate::{Plan, Resource, Rule, Update};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// One type, as a reader sees it.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) rank: usize,
    pub(crate) rule: Rule,
    pub(crate) wildcard: bool,
    pub(crate) names: BTreeSet<String>,
    /// Versions of what was accepted, by name.
    pub(crate) held: BTreeMap<Arc<str>, Arc<str>>,
}

impl Books {
    pub(crate) fn new(plan: &Plan, type_url: &str) -> Self {
        let (rank, rule) = plan.rule(type_url);
        Self { rank, rule, wildcard: false, names: BTreeSet::new(), held: BTreeMap::new() }
    }

    /// Whether anything is asked for.
    pub(crate) fn asks(&self) -> bool {
        self.wildcard || !self.names.is_empty()
    }

    /// What is asked for, as a first request says it.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.iter().cloned().collect();
        if self.wildcard && !(names.is_empty() && self.rule.wildcard) {
            names.insert(0, "*".to_owned());
        }
        names
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Exactly these names from now on. What is no longer asked for is no longer held.
    pub(crate) fn ask_for(&mut self, names: &BTreeSet<String>) {
        self.names.clone_from(names);
        if !self.wildcard {
            self.held.retain(|name, _| names.contains(&**name));
        }
    }

    /// What of a response is wanted and not held already.
    pub(crate) fn news(&self, resources: Vec<Arc<Resource>>) -> Vec<Arc<Resource>> {
        let is_new = |resource: &Arc<Resource>| {
            self.wants(&resource.name) && self.held.get(&resource.name) != Some(&resource.version)
        };
        resources.into_iter().filter(is_new).collect()
    }

    /// Everything of an update that is not refused is held now.
    pub(crate) fn hold(&mut self, update: &Update, refused: &BTreeMap<String, String>) {
        for name in &update.removed {
            self.held.remove(name);
        }
        for resource in update.changed.iter().filter(|resource| !refused.contains_key(&*resource.name)) {
            if self.wants(&resource.name) {
                self.held.insert(resource.name.clone(), resource.version.clone());
            }
        }
    }
}
