//! The reader's half of the state-of-the-world protocol. Used by the gateway's xDS client against control planes that
//! speak nothing else.

use crate::{Plan, SotwRequest, SotwResponse, Update, books::Books, subscriber::refusal};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

/// One type, as the reader sees it.
#[derive(Debug)]
struct Shelf {
    books: Books,
    /// Version of the last response that was accepted.
    version: String,
    nonce: String,
}

impl Shelf {
    /// What is asked for now, with the newest answer.
    fn request(&self, type_url: &str, error: Option<String>) -> SotwRequest {
        let names = self.books.asked();
        let (version, nonce) = (self.version.clone(), self.nonce.clone());
        SotwRequest { type_url: type_url.into(), version, nonce, names, error }
    }
}

/// Keeps the subscription of a reader of the state-of-the-world protocol, and what it holds.
#[derive(Debug)]
pub struct SotwSubscriber {
    plan: Plan,
    shelves: BTreeMap<Arc<str>, Shelf>,
    outbox: VecDeque<SotwRequest>,
    connected: bool,
}

impl SotwSubscriber {
    /// A reader that asks for nothing yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { plan, shelves: BTreeMap::new(), outbox: VecDeque::new(), connected: false }
    }

    /// Asks for everything of a type.
    pub fn subscribe_all(&mut self, type_url: &str) {
        let shelf = self.shelf(type_url);
        if !std::mem::replace(&mut shelf.books.wildcard, true) {
            let request = shelf.request(type_url, None);
            self.push(request);
        }
    }

    /// Asks for exactly these names of a type, and no longer for others.
    pub fn subscribe_to(&mut self, type_url: &str, names: &BTreeSet<String>) {
        if names.is_empty() && !self.shelves.contains_key(type_url) {
            return;
        }
        let shelf = self.shelf(type_url);
        if shelf.books.names == *names {
            return;
        }
        shelf.books.ask_for(names);
        // Every change is said, not only the newest: a name that goes and comes back has to be sent again.
        let request = shelf.request(type_url, None);
        self.push(request);
    }

    /// Asks for some more names of a type and no longer for others.
    pub fn amend(&mut self, type_url: &str, more: &BTreeSet<String>, fewer: &BTreeSet<String>) {
        let mut names = self.names(type_url);
        names.extend(more.iter().cloned());
        names.retain(|name| !fewer.contains(name));
        self.subscribe_to(type_url, &names);
    }

    fn push(&mut self, request: SotwRequest) {
        if self.connected {
            self.outbox.push_back(request);
        }
    }

    /// The names that are asked for one by one.
    #[must_use]
    pub fn names(&self, type_url: &str) -> BTreeSet<String> {
        self.shelves.get(type_url).map(|shelf| shelf.books.names.clone()).unwrap_or_default()
    }

    /// Versions of what was accepted, by name.
    #[must_use]
    pub fn held(&self, type_url: &str) -> BTreeMap<Arc<str>, Arc<str>> {
        self.shelves.get(type_url).map(|shelf| shelf.books.held.clone()).unwrap_or_default()
    }

    /// How many resources of a type are held.
    #[must_use]
    pub fn held_count(&self, type_url: &str) -> usize {
        self.shelves.get(type_url).map_or(0, |shelf| shelf.books.held.len())
    }

    /// Takes over what an earlier process accepted and kept, so that it is not reported as changed again.
    pub fn restore(&mut self, type_url: &str, held: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) {
        self.shelf(type_url).books.held.extend(held);
    }

    /// One resource is no longer held: the owner may send the same version of it again.
    pub fn drop_held(&mut self, type_url: &str, name: &str) {
        if let Some(shelf) = self.shelves.get_mut(type_url) {
            shelf.books.held.remove(name);
        }
    }

    /// A new stream begins: everything is asked for again.
    pub fn connected(&mut self) {
        self.connected = true;
        self.outbox.clear();
        let mut order = Vec::new();
        for (type_url, shelf) in &mut self.shelves {
            shelf.nonce.clear();
            if shelf.books.asks() {
                order.push((shelf.books.rank, shelf.request(type_url, None)));
            }
        }
        order.sort_by_key(|(rank, _)| *rank);
        self.outbox.extend(order.into_iter().map(|(_, request)| request));
    }

    /// The stream is gone. Nothing is forgotten.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.outbox.clear();
    }

    /// Takes in a response. The update must be answered with [`SotwSubscriber::answer`] before the next response of
    /// the same type is taken in.
    pub fn on_response(&mut self, response: SotwResponse) -> Update {
        let mut update = Update {
            type_url: response.type_url.clone(),
            nonce: response.nonce,
            version: response.version,
            complete: true,
            ..Update::default()
        };
        let Some(shelf) = self.shelves.get_mut(&response.type_url) else { return update };
        if shelf.books.rule.full_state {
            let present: HashSet<&Arc<str>> = response.resources.iter().map(|resource| &resource.name).collect();
            update.removed = shelf.books.held.keys().filter(|name| !present.contains(name)).cloned().collect();
        }
        update.changed = shelf.books.news(response.resources);
        update
    }

    /// Answers an update: everything that is not refused is now held.
    pub fn answer(&mut self, update: &Update, refused: &BTreeMap<String, String>) {
        let Some(shelf) = self.shelves.get_mut(&update.type_url) else { return };
        shelf.books.hold(update, refused);
        shelf.nonce.clone_from(&update.nonce);
        if refused.is_empty() {
            shelf.version.clone_from(&update.version);
        }
        let request = shelf.request(&update.type_url, refusal(refused));
        self.push(request);
    }

    /// The next request to send.
    #[must_use]
    pub fn next_request(&mut self) -> Option<SotwRequest> {
        self.outbox.pop_front()
    }

    fn shelf(&mut self, type_url: &str) -> &mut Shelf {
        let books = || Books::new(&self.plan, type_url);
        let shelf = || Shelf { books: books(), version: String::new(), nonce: String::new() };
        self.shelves.entry(type_url.into()).or_insert_with(shelf)
    }
}
