//! The owner's half of the state-of-the-world protocol, for one stream. Types whose absence means removal are sent
//! whole; of the others only what changed. Used by the ADS server.

use crate::{
    Plan, Resource, Snapshot, SotwRequest, SotwResponse, TypeStatus, content_version,
    ledger::Ledger,
    publisher::{Desk, Turn},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Says what to send to one reader of the state-of-the-world protocol.
#[derive(Debug)]
pub struct SotwPublisher {
    desk: Desk,
}

impl SotwPublisher {
    /// For a stream that begins now.
    #[must_use]
    pub fn new(mut plan: Plan) -> Self {
        // A response cannot be split where absence means removal.
        plan.batch_bytes = usize::MAX;
        Self { desk: Desk::new(plan) }
    }

    /// Takes in what the reader said. Call [`SotwPublisher::next`] afterwards.
    pub fn on_request(&mut self, request: &SotwRequest) {
        let first = !self.desk.ledgers.contains_key(&request.type_url);
        let repeats = self.desk.plan.rule(&request.type_url).1.full_state;
        let ledger = self.desk.open(&request.type_url, repeats);
        if first {
            ledger.wildcard = request.names.is_empty() && ledger.rule.wildcard;
            ask(ledger, request);
            return;
        }
        let answers = ledger.awaits(&request.nonce);
        let repeats = !ledger.in_flight() && request.nonce == ledger.last_nonce && request.error.is_none();
        if answers {
            match &request.error {
                None => ledger.accepted(),
                Some(error) => ledger.rejected(error, &BTreeMap::new()),
            }
        }
        // Requests come in order, so the names are the newest ones even when the nonce was overtaken. The same names
        // again, in a request that answers nothing, mean that the reader waits for them, see warming.
        if !ask(ledger, request) && repeats {
            ledger.owes_answer = true;
            for name in ledger.names.clone() {
                ledger.owe(name);
            }
        }
    }

    /// The next response for the newest snapshot, or nothing: because the reader holds everything, or because it has
    /// to answer first. Call it again until it says nothing, and after each request and each new snapshot.
    #[must_use]
    pub fn next(&mut self, snapshot: &Snapshot) -> Option<SotwResponse> {
        while let Some(Turn { type_url, batch }) = self.desk.turn(snapshot) {
            let Some(ledger) = self.desk.ledgers.get_mut(&type_url) else { break };
            if !ledger.rule.full_state && batch.changed.is_empty() && !ledger.owes_answer {
                // There is no word for "gone" here: silence, and the name counts as not held.
                ledger.drop_held(&batch.removed);
                continue;
            }
            if ledger.rule.full_state
                && batch.changed.is_empty()
                && !ledger.owes_answer
                && !batch.removed.iter().any(|n| ledger.holds(n))
            {
                // Asked for, but never existed: silence as well.
                ledger.drop_held(&batch.removed);
                continue;
            }
            let resources = if ledger.rule.full_state { ledger.whole(&batch) } else { batch.changed.clone() };
            let nonce = self.desk.nonce();
            self.desk.sent(snapshot, &type_url, nonce.clone(), batch);
            return Some(SotwResponse { version: version(&resources), type_url, nonce, resources });
        }
        self.desk.note_synced(snapshot);
        None
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

/// Takes over the list of names and owes the new ones. True when the list is another one than before.
fn ask(ledger: &mut Ledger, request: &SotwRequest) -> bool {
    if request.names.iter().any(|name| name == "*") {
        ledger.wildcard = true;
    }
    let names: BTreeSet<Arc<str>> =
        request.names.iter().filter(|name| *name != "*").map(|name| name.as_str().into()).collect();
    if names == ledger.names {
        return false;
    }
    let before = std::mem::replace(&mut ledger.names, names);
    ledger.forget_unwanted();
    for name in ledger.names.difference(&before).cloned().collect::<Vec<_>>() {
        ledger.owe(name);
    }
    true
}

/// The version of a response: a hash of what it holds, so that it is the same after a restart.
fn version(resources: &[Arc<Resource>]) -> String {
    let mut text = String::new();
    for resource in resources {
        text.push_str(&resource.name);
        text.push('\n');
        text.push_str(&resource.version);
        text.push('\n');
    }
    content_version(text.as_bytes()).to_string()
}
