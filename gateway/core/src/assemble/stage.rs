//! New versions that wait for what they refer to.

use crate::{config::FetchTimeout, time::Millis};
use ahash::AHashMap;
use std::sync::Arc;

/// The versions of one kind that wait, by name.
#[derive(Debug)]
pub(super) struct Stage<V> {
    pub(super) warming: AHashMap<Arc<str>, Warming<V>>,
}

#[derive(Debug)]
pub(super) struct Warming<V> {
    pub(super) value: Arc<V>,
    /// When it was first looked at.
    pub(super) since: Option<Millis>,
    /// When it is done without what is still missing.
    due: Option<Millis>,
}

/// What something waits for.
#[derive(Debug)]
pub(super) struct Gaps {
    since: Millis,
    now: Millis,
    /// The first thing that is missing.
    pub(super) first: Option<(&'static str, Arc<str>)>,
    /// When the last of them is done without; `None` while one is waited for without end.
    due: Option<Millis>,
}

impl Gaps {
    pub(super) fn new(since: Millis, now: Millis) -> Self {
        Self { since, now, first: None, due: Some(now) }
    }

    /// Something is not here. It counts until its time is over.
    pub(super) fn add(&mut self, what: &'static str, name: &Arc<str>, wait: FetchTimeout) {
        let until = wait.0.map(|wait| self.since.after(crate::time::millis(wait)));
        if until.is_some_and(|until| until <= self.now) {
            return;
        }
        if self.first.is_none() {
            self.first = Some((what, Arc::clone(name)));
        }
        self.due = self.due.zip(until).map(|(one, other)| one.max(other));
    }

    pub(super) fn words(&self) -> Option<String> {
        self.first.as_ref().map(|(what, name)| format!("{what} {name:?}"))
    }
}

impl<V> Default for Stage<V> {
    fn default() -> Self {
        Self { warming: AHashMap::default() }
    }
}

impl<V> Stage<V> {
    /// Returns the version that was waiting before. The clock goes on: a stream of changes must not put off for ever.
    pub(super) fn put(&mut self, name: Arc<str>, value: Arc<V>) -> Option<Arc<V>> {
        match self.warming.entry(name) {
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                Some(std::mem::replace(&mut entry.get_mut().value, value))
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Warming { value, since: None, due: None });
                None
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<V>> {
        self.warming.remove(name).map(|warming| warming.value)
    }

    /// Takes out what has what it needs or has waited long enough. Starts the clocks of the others.
    pub(super) fn ready(&mut self, now: Millis, look: impl Fn(&V, &mut Gaps)) -> Vec<Arc<V>> {
        let mut ready = Vec::new();
        self.warming.retain(|_, warming| {
            let mut gaps = Gaps::new(*warming.since.get_or_insert(now), now);
            look(&warming.value, &mut gaps);
            warming.due = gaps.due;
            let waits = gaps.first.is_some();
            if !waits {
                ready.push(Arc::clone(&warming.value));
            }
            waits
        });
        ready
    }

    /// When the next of them is done without something.
    pub(super) fn due(&self) -> Option<Millis> {
        self.warming.values().filter_map(|warming| warming.due).min()
    }
}
