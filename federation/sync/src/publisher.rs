//! The owner's half of the delta protocol, for one stream. Owns nothing but what this reader asked for and holds.
//! Used by the ADS server and by the exchange between control planes.

use crate::{
    DeltaRequest, DeltaResponse, Plan, ResourceSet, Snapshot, TypeStatus,
    ledger::{Batch, Ledger},
};
use std::{collections::BTreeMap, sync::Arc};

/// The rules that one stream's types have in common, whichever protocol is spoken.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) plan: Plan,
    pub(crate) ledgers: BTreeMap<Arc<str>, Ledger>,
    nonces: u64,
    empty: Arc<ResourceSet>,
}

/// One type's turn.
pub(crate) struct Turn {
    pub(crate) type_url: Arc<str>,
    pub(crate) batch: Batch,
}

impl Desk {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, ledgers: BTreeMap::new(), nonces: 0, empty: Arc::default() }
    }

    pub(crate) fn set(&self, snapshot: &Snapshot, type_url: &str) -> Arc<ResourceSet> {
        snapshot.set(type_url).unwrap_or(&self.empty).clone()
    }

    pub(crate) fn nonce(&mut self) -> String {
        self.nonces += 1;
        self.nonces.to_string()
    }

    pub(crate) fn open(&mut self, type_url: &Arc<str>, repeats: bool) -> &mut Ledger {
        let (rank, rule) = self.plan.rule(type_url);
        self.ledgers.entry(type_url.clone()).or_insert_with(|| Ledger::new(rank, rule, repeats))
    }

    /// The next type that has something to send and may send it: first what is new, in the order of the plan, then
    /// the removals that had to wait.
    pub(crate) fn turn(&mut self, snapshot: &Snapshot) -> Option<Turn> {
        let mut order: Vec<_> = self.ledgers.iter().map(|(url, ledger)| (ledger.rank, url.clone())).collect();
        order.sort();
        for late in [false, true] {
            for (_, type_url) in &order {
                let waits = self.dependents(type_url);
                if late && (waits.is_empty() || !self.all_confirmed(&waits, snapshot)) {
                    continue;
                }
                if let Some(batch) = self.batch(snapshot, type_url, late || waits.is_empty()) {
                    return Some(Turn { type_url: type_url.clone(), batch });
                }
            }
        }
        None
    }

    fn batch(&mut self, snapshot: &Snapshot, type_url: &Arc<str>, removals: bool) -> Option<Batch> {
        let set = self.set(snapshot, type_url);
        if self.ledgers.get(type_url)?.in_flight() || self.is_held_back(snapshot, type_url) {
            return None;
        }
        let max_bytes = self.plan.batch_bytes;
        let ledger = self.ledgers.get_mut(type_url)?;
        let batch = ledger.compare(&set, removals, max_bytes);
        (ledger.owes_answer || !batch.changed.is_empty() || !batch.removed.is_empty()).then_some(batch)
    }

    /// Whether the type may refer to additions of another type that the reader has not confirmed.
    fn is_held_back(&self, snapshot: &Snapshot, type_url: &Arc<str>) -> bool {
        let Some(other) = self.ledgers.get(type_url).and_then(|ledger| ledger.rule.refers_to.as_ref()) else {
            return false;
        };
        let set = self.set(snapshot, other);
        self.ledgers.get(other).is_some_and(|ledger| ledger.additions_open(&set))
    }

    /// The types in use that may refer to this one.
    fn dependents(&self, type_url: &Arc<str>) -> Vec<Arc<str>> {
        let refers = |ledger: &Ledger| ledger.rule.refers_to.as_ref() == Some(type_url);
        self.ledgers.iter().filter(|(_, ledger)| refers(ledger)).map(|(url, _)| url.clone()).collect()
    }

    fn all_confirmed(&mut self, urls: &[Arc<str>], snapshot: &Snapshot) -> bool {
        urls.iter().all(|url| {
            let set = self.set(snapshot, url);
            self.ledgers.get_mut(url).is_none_or(|ledger| ledger.is_confirmed(&set))
        })
    }

    /// Records that the batch goes out, and owes what follows it.
    pub(crate) fn sent(&mut self, snapshot: &Snapshot, type_url: &Arc<str>, nonce: String, batch: Batch) {
        for (url, ledger) in &mut self.ledgers {
            if ledger.rule.follows.as_ref() != Some(type_url) {
                continue;
            }
            let exists = |name: &str| snapshot.resource(url, name).is_some();
            for resource in
                batch.changed.iter().filter(|r| ledger.wants(&r.name) && exists(&r.name)).collect::<Vec<_>>()
            {
                ledger.owe(resource.name.clone());
            }
        }
        let set = self.set(snapshot, type_url);
        if let Some(ledger) = self.ledgers.get_mut(type_url) {
            ledger.sent(nonce, batch, &set);
        }
    }

    pub(crate) fn note_synced(&mut self, snapshot: &Snapshot) {
        for (url, ledger) in &mut self.ledgers {
            ledger.note_synced(snapshot.set(url).unwrap_or(&self.empty));
        }
    }
}

/// Says what to send to one reader of the delta protocol.
#[derive(Debug)]
pub struct Publisher {
    desk: Desk,
}

impl Publisher {
    /// For a stream that begins now.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { desk: Desk::new(plan) }
    }

    /// Takes in what the reader said. Call [`Publisher::next`] afterwards.
    pub fn on_request(&mut self, request: &DeltaRequest) {
        let first = !self.desk.ledgers.contains_key(&request.type_url);
        let ledger = self.desk.open(&request.type_url, false);
        if first {
            begin(ledger, request);
            return;
        }
        if !request.nonce.is_empty() && ledger.awaits(&request.nonce) {
            match &request.error {
                None => ledger.accepted(),
                Some(error) => ledger.rejected(error, &request.refused),
            }
        }
        // A subscription counts whatever the nonce: it is a change, not a state.
        for name in &request.unsubscribe {
            unsubscribe(ledger, name);
        }
        for name in &request.subscribe {
            subscribe(ledger, name);
        }
    }

    /// The next response for the newest snapshot, or nothing: because the reader holds everything, or because it has
    /// to answer first. Call it again until it says nothing, and after each request and each new snapshot.
    #[must_use]
    pub fn next(&mut self, snapshot: &Snapshot) -> Option<DeltaResponse> {
        let Some(Turn { type_url, batch }) = self.desk.turn(snapshot) else {
            self.desk.note_synced(snapshot);
            return None;
        };
        let nonce = self.desk.nonce();
        let response = DeltaResponse {
            type_url: type_url.clone(),
            nonce: nonce.clone(),
            resources: batch.changed.clone(),
            removed: batch.removed.clone(),
            system_version: snapshot.revision.to_string(),
            complete: batch.complete,
        };
        self.desk.sent(snapshot, &type_url, nonce, batch);
        Some(response)
    }

    /// How the types that the reader asked for fare.
    pub fn states(&self) -> impl Iterator<Item = (&Arc<str>, &TypeStatus)> {
        self.desk.ledgers.iter().map(|(url, ledger)| (url, &ledger.status))
    }

    /// How one type fares; `None` when the reader never asked for it.
    #[must_use]
    pub fn state(&self, type_url: &str) -> Option<&TypeStatus> {
        self.desk.ledgers.get(type_url).map(|ledger| &ledger.status)
    }
}

/// The first request of a type in a stream: what the reader wants, and what it still holds from before.
fn begin(ledger: &mut Ledger, request: &DeltaRequest) {
    ledger.wildcard =
        request.subscribe.iter().any(|name| name == "*") || (request.subscribe.is_empty() && ledger.rule.wildcard);
    ledger.names = request.subscribe.iter().filter(|name| *name != "*").map(|name| Arc::from(name.as_str())).collect();
    for (name, version) in &request.initial_versions {
        if ledger.wants(name) {
            ledger.believe(name.as_str().into(), version.as_str().into());
        }
    }
    for name in ledger.names.clone() {
        if ledger.rule.resent_on_resume || !ledger.holds(&name) {
            ledger.owe(name);
        }
    }
}

fn subscribe(ledger: &mut Ledger, name: &str) {
    if name == "*" {
        ledger.wildcard = true;
        ledger.owes_answer = true;
    } else {
        ledger.names.insert(name.into());
        ledger.owe(name.into());
    }
    ledger.unsettle();
}

fn unsubscribe(ledger: &mut Ledger, name: &str) {
    if name == "*" {
        ledger.wildcard = false;
    } else {
        ledger.names.remove(name);
        if ledger.wildcard && ledger.holds(name) {
            // The reader dropped it, but still gets it with everything else.
            ledger.owe(name.into());
        }
    }
    ledger.forget_unwanted();
}
