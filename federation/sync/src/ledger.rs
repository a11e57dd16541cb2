//! What one reader holds of one type, as far as the owner can know: the bookkeeping that both publishers share.
//! Owns comparing, acknowledgement and refusal; never decides an order between types.

use crate::{Resource, ResourceSet, Rule};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How one type fares with one reader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeStatus {
    /// Responses sent.
    pub sent: u64,
    /// Responses accepted.
    pub acked: u64,
    /// Responses refused.
    pub nacked: u64,
    /// Why the newest refused response was refused; cleared when nothing refused is left.
    pub last_error: Option<String>,
    /// The reader has accepted everything that the newest snapshot has for it.
    pub synced: bool,
}

/// What the reader holds under one name.
#[derive(Debug, Clone, Default)]
struct Held {
    /// `None`: it may hold some version, but not surely which, because a response that had it was refused.
    version: Option<Arc<str>>,
    /// Some version was accepted once, and is still in use if a newer one was refused.
    accepted: bool,
    /// What was last accepted, where a later response may have to repeat it.
    good: Option<Arc<Resource>>,
}

/// The response that is not answered yet.
#[derive(Debug)]
struct Flight {
    nonce: String,
    batch: Batch,
    /// The set that the batch brings the reader up to; `None` when more is to follow.
    reaches: Option<Arc<ResourceSet>>,
    /// The batch has names that the reader did not hold.
    adds: bool,
}

/// What to send.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) changed: Vec<Arc<Resource>>,
    pub(crate) removed: Vec<Arc<str>>,
    /// Nothing is left after it.
    pub(crate) complete: bool,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) rank: usize,
    pub(crate) rule: Rule,
    /// Whether `good` is kept: a state-of-the-world response repeats what did not change.
    repeats: bool,
    pub(crate) wildcard: bool,
    pub(crate) names: BTreeSet<Arc<str>>,
    held: BTreeMap<Arc<str>, Held>,
    /// Versions that the reader could not use, by name.
    refused: BTreeMap<Arc<str>, Arc<str>>,
    /// Asked for, or forced: sent even if the reader holds it.
    due: BTreeSet<Arc<str>>,
    /// A response must follow, even an empty one.
    pub(crate) owes_answer: bool,
    flight: Option<Flight>,
    /// How many resources the next batch may hold. Shrinks while it is unknown which of several was refused.
    limit: usize,
    /// The set that was compared last and left nothing to send.
    settled: Option<Arc<ResourceSet>>,
    pub(crate) last_nonce: String,
    pub(crate) status: TypeStatus,
}

impl Ledger {
    pub(crate) fn new(rank: usize, rule: Rule, repeats: bool) -> Self {
        Self {
            rank,
            rule,
            repeats,
            wildcard: false,
            names: BTreeSet::new(),
            held: BTreeMap::new(),
            refused: BTreeMap::new(),
            due: BTreeSet::new(),
            owes_answer: true,
            flight: None,
            limit: usize::MAX,
            settled: None,
            last_nonce: String::new(),
            status: TypeStatus::default(),
        }
    }

    pub(crate) fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether the nonce names the response that is not answered yet.
    pub(crate) fn awaits(&self, nonce: &str) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.nonce == nonce)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    /// The reader says that it holds this version.
    pub(crate) fn believe(&mut self, name: Arc<str>, version: Arc<str>) {
        self.held.insert(name, Held { version: Some(version), accepted: true, good: None });
    }

    /// Answers for the name even if the reader holds it.
    pub(crate) fn owe(&mut self, name: Arc<str>) {
        self.due.insert(name);
    }

    /// Forgets what the last comparison said, because the subscription changed.
    pub(crate) fn unsettle(&mut self) {
        self.settled = None;
        if let Some(flight) = &mut self.flight {
            flight.reaches = None;
        }
    }

    /// Forgets what the reader no longer asks for.
    pub(crate) fn forget_unwanted(&mut self) {
        let (wildcard, names) = (self.wildcard, &self.names);
        let wanted = |name: &Arc<str>| wildcard || names.contains(name);
        self.held.retain(|name, _| wanted(name));
        self.refused.retain(|name, _| wanted(name));
        self.due.retain(wanted);
        self.unsettle();
    }

    fn is_settled(&self, set: &Arc<ResourceSet>) -> bool {
        self.due.is_empty()
            && !self.owes_answer
            && self.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, set))
    }

    /// Whether the resource is news to the reader.
    fn lacks(&self, resource: &Resource) -> bool {
        let same = |known: &Arc<str>| Arc::ptr_eq(known, &resource.version) || *known == resource.version;
        if self.due.contains(&resource.name) {
            return true;
        }
        if self.held.get(&resource.name).is_some_and(|held| held.version.as_ref().is_some_and(same)) {
            return false;
        }
        !self.refused.get(&resource.name).is_some_and(same)
    }

    /// The resources of the set that the reader asks for.
    fn wanted<'s>(&'s self, set: &'s ResourceSet) -> Box<dyn Iterator<Item = &'s Arc<Resource>> + 's> {
        if self.wildcard {
            Box::new(set.values())
        } else {
            Box::new(self.names.iter().filter_map(|name| set.get(name)))
        }
    }

    /// What the reader lacks of the set. Removals are left out where they have to wait.
    pub(crate) fn compare(&mut self, set: &Arc<ResourceSet>, removals: bool, max_bytes: usize) -> Batch {
        if self.is_settled(set) {
            return Batch { complete: true, ..Batch::default() };
        }
        let mut batch = Batch { complete: true, ..Batch::default() };
        let mut bytes = 0;
        for resource in self.wanted(set).filter(|resource| self.lacks(resource)) {
            let full = batch.changed.len() >= self.limit || bytes + resource.body.len() > max_bytes;
            if full && !batch.changed.is_empty() {
                batch.complete = false;
                break;
            }
            bytes += resource.body.len();
            batch.changed.push(resource.clone());
        }
        let gone = self.held.keys().filter(|name| !set.contains_key(*name));
        if removals {
            batch.removed = gone.cloned().collect();
        } else {
            batch.complete &= gone.count() == 0;
        }
        // What was asked for and never existed is said at once: nothing can depend on it.
        let unknown = self.due.iter().filter(|name| !set.contains_key(*name) && !self.held.contains_key(*name));
        batch.removed.extend(unknown.cloned());
        if batch.complete && batch.changed.is_empty() && batch.removed.is_empty() && self.flight.is_none() {
            self.settled = Some(set.clone());
        }
        batch
    }

    /// Whether the reader may still lack, or not have confirmed, a name of the set that it did not have before.
    pub(crate) fn additions_open(&self, set: &Arc<ResourceSet>) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.adds)
            || (!self.is_settled(set)
                && self.wanted(set).any(|resource| !self.held.contains_key(&resource.name) && self.lacks(resource)))
    }

    /// Whether the reader uses nothing older than the set: it has confirmed everything, or refused what it never had.
    pub(crate) fn is_confirmed(&mut self, set: &Arc<ResourceSet>) -> bool {
        if self.flight.is_some() || self.owes_answer {
            return false;
        }
        let left = self.compare(set, true, usize::MAX);
        let older = |name: &Arc<str>| self.held.get(name).is_some_and(|held| held.accepted);
        left.complete && left.changed.is_empty() && left.removed.is_empty() && !self.refusals(set).any(older)
    }

    /// The resources of the set that the reader could not use.
    fn refusals<'s>(&'s self, set: &'s ResourceSet) -> impl Iterator<Item = &'s Arc<str>> {
        let current = |name: &Arc<str>, version: &Arc<str>| set.get(name).is_some_and(|r| r.version == *version);
        self.refused.iter().filter(move |(name, version)| current(name, version)).map(|(name, _)| name)
    }

    /// Records that the batch was sent.
    pub(crate) fn sent(&mut self, nonce: String, batch: Batch, set: &Arc<ResourceSet>) {
        for name in batch.changed.iter().map(|resource| &resource.name).chain(&batch.removed) {
            self.due.remove(name);
        }
        let adds = batch.changed.iter().any(|resource| !self.held.contains_key(&resource.name));
        let reaches = batch.complete.then(|| set.clone());
        self.owes_answer = false;
        self.status.sent += 1;
        self.last_nonce.clone_from(&nonce);
        self.flight = Some(Flight { nonce, batch, reaches, adds });
    }

    /// The response in flight was accepted.
    pub(crate) fn accepted(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        self.status.acked += 1;
        self.limit = self.limit.saturating_mul(2);
        for resource in
            flight.batch.changed.into_iter().filter(|resource| self.wants(&resource.name)).collect::<Vec<_>>()
        {
            self.refused.remove(&resource.name);
            let good = self.repeats.then(|| resource.clone());
            self.held
                .insert(resource.name.clone(), Held { version: Some(resource.version.clone()), accepted: true, good });
        }
        self.drop_held(&flight.batch.removed);
        if self.refused.is_empty() {
            self.status.last_error = None;
        }
        self.settled = flight.reaches;
    }

    pub(crate) fn drop_held(&mut self, names: &[Arc<str>]) {
        for name in names {
            self.held.remove(name);
            self.refused.remove(name);
            self.due.remove(name);
        }
    }

    /// The response in flight was refused. A reader may have applied any part of it, so nothing of it counts as
    /// held, but all of it must be taken back when it is gone. What is known to be bad is not sent again until its
    /// content changes; the rest is. When the culprit is not named, halves are tried until it is found.
    pub(crate) fn rejected(&mut self, error: &str, named: &BTreeMap<String, String>) {
        let Some(flight) = self.flight.take() else { return };
        self.status.nacked += 1;
        self.status.last_error = Some(error.to_owned());
        self.settled = None;
        let Batch { changed, removed, .. } = flight.batch;
        if changed.is_empty() {
            // Nothing can be offered instead of a removal: count it as done, or it would be sent for ever.
            self.drop_held(&removed);
            return;
        }
        let blamed = |resource: &&Arc<Resource>| {
            if named.is_empty() { mentions(error, &resource.name) } else { named.contains_key(&*resource.name) }
        };
        let mut culprits: Vec<_> = changed.iter().filter(blamed).collect();
        if culprits.is_empty() && changed.len() == 1 {
            culprits.extend(&changed);
        }
        if culprits.is_empty() {
            self.limit = (changed.len() / 2).max(1);
        }
        for resource in culprits {
            self.refused.insert(resource.name.clone(), resource.version.clone());
        }
        for resource in changed.iter().filter(|resource| self.wants(&resource.name)).collect::<Vec<_>>() {
            self.held.entry(resource.name.clone()).or_default().version = None;
        }
        for name in removed {
            self.held.entry(name).or_default().version = None;
        }
    }

    /// What the reader holds once the batch is applied, for a response that has to repeat everything.
    pub(crate) fn whole(&self, batch: &Batch) -> Vec<Arc<Resource>> {
        let mut whole: BTreeMap<&Arc<str>, &Arc<Resource>> =
            self.held.iter().filter_map(|(name, held)| held.good.as_ref().map(|good| (name, good))).collect();
        for name in &batch.removed {
            whole.remove(name);
        }
        whole.extend(batch.changed.iter().map(|resource| (&resource.name, resource)));
        whole.into_values().cloned().collect()
    }

    /// Notes whether the reader is up to date with the set.
    pub(crate) fn note_synced(&mut self, set: &Arc<ResourceSet>) {
        let refuses = self.refusals(set).next().is_some();
        self.status.synced = self.flight.is_none() && self.is_settled(set) && !refuses;
    }
}

/// Whether the text names the resource: as a whole word, so that `a` is not found in `bad`.
fn mentions(text: &str, name: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '|' | '/');
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let after = &text[at + name.len()..];
            // A full stop or a dash that ends a sentence is not part of a name.
            let mut rest = after.chars();
            let joined = match rest.next() {
                Some('.' | '-' | '/') => rest.next().is_some_and(char::is_alphanumeric),
                Some(next) => part_of_name(next),
                None => false,
            };
            !text[..at].ends_with(part_of_name) && !joined
        })
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn a_name_is_found_only_as_a_whole() {
        assert!(mentions("Error adding cluster(s) a: bad, b|80: worse", "a"));
        assert!(mentions("Error adding cluster(s) a: bad, b|80: worse", "b|80"));
        assert!(mentions("refused a.", "a"));
        assert!(!mentions("refused a.b", "a"));
        assert!(!mentions("bad thing", "a"));
        assert!(!mentions("outbound|80||x.default", "outbound|80||x"));
        assert!(!mentions("anything", ""));
    }
}
