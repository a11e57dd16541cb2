//! The reader's half of the delta protocol. Outlives its streams: what it holds is said again at the start of the next
//! one, so that only differences come. Used by the gateway's xDS client and by the exchange between control planes.

use crate::{DeltaRequest, DeltaResponse, Plan, Update, books::Books};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// One type, as the reader sees it.
#[derive(Debug)]
struct Shelf {
    books: Books,
    /// The first request of this stream was made.
    opened: bool,
}

/// Keeps the subscription of a reader of the delta protocol, and what it holds.
#[derive(Debug)]
pub struct Subscriber {
    plan: Plan,
    shelves: BTreeMap<Arc<str>, Shelf>,
    outbox: VecDeque<DeltaRequest>,
    connected: bool,
}

impl Subscriber {
    /// A reader that asks for nothing yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { plan, shelves: BTreeMap::new(), outbox: VecDeque::new(), connected: false }
    }

    /// Asks for everything of a type.
    pub fn subscribe_all(&mut self, type_url: &str) {
        let connected = self.connected;
        let shelf = self.shelf(type_url);
        if std::mem::replace(&mut shelf.books.wildcard, true) || !connected {
            return;
        }
        let request = if shelf.opened { ask(type_url, &["*".into()], &[]) } else { opening(type_url.into(), shelf) };
        self.outbox.push_back(request);
    }

    /// Asks for exactly these names of a type, and no longer for others. Names that stay are not asked for again.
    pub fn subscribe_to(&mut self, type_url: &str, names: &BTreeSet<String>) {
        if names.is_empty() && !self.shelves.contains_key(type_url) {
            return;
        }
        let connected = self.connected;
        let shelf = self.shelf(type_url);
        let new: Vec<String> = names.difference(&shelf.books.names).cloned().collect();
        let gone: Vec<String> = shelf.books.names.difference(names).cloned().collect();
        if new.is_empty() && gone.is_empty() {
            return;
        }
        shelf.books.ask_for(names);
        if connected {
            let request = if shelf.opened { ask(type_url, &new, &gone) } else { opening(type_url.into(), shelf) };
            self.outbox.push_back(request);
        }
    }

    /// Asks for some more names of a type and no longer for others; costs what changes, not what there is.
    pub fn amend(&mut self, type_url: &str, more: &BTreeSet<String>, fewer: &BTreeSet<String>) {
        let connected = self.connected;
        let shelf = self.shelf(type_url);
        let new: Vec<String> = more.iter().filter(|name| shelf.books.names.insert((*name).clone())).cloned().collect();
        let gone: Vec<String> = fewer.iter().filter(|name| shelf.books.names.remove(*name)).cloned().collect();
        if new.is_empty() && gone.is_empty() {
            return;
        }
        if !shelf.books.wildcard {
            for name in &gone {
                shelf.books.held.remove(name.as_str());
            }
        }
        if connected {
            let request = if shelf.opened { ask(type_url, &new, &gone) } else { opening(type_url.into(), shelf) };
            self.outbox.push_back(request);
        }
    }

    /// Asks for more names of a type.
    pub fn subscribe(&mut self, type_url: &str, names: impl IntoIterator<Item = String>) {
        let mut all = self.names(type_url);
        all.extend(names);
        self.subscribe_to(type_url, &all);
    }

    /// Asks for one name of a type, also when it was asked for before: the owner answers every time.
    pub fn ask(&mut self, type_url: &str, name: &str) {
        let connected = self.connected;
        let shelf = self.shelf(type_url);
        shelf.books.names.insert(name.to_owned());
        if connected {
            let again = [name.to_owned()];
            let request = if shelf.opened { ask(type_url, &again, &[]) } else { opening(type_url.into(), shelf) };
            self.outbox.push_back(request);
        }
    }

    /// Names that the owner said it does not have, or has under another name as well: the books follow, nothing is said.
    pub fn rename(&mut self, type_url: &str, name: &str, known_as: Option<&str>) {
        if let Some(shelf) = self.shelves.get_mut(type_url) {
            match known_as {
                Some(known_as) => drop(shelf.books.names.insert(known_as.to_owned())),
                None => drop(shelf.books.names.remove(name)),
            }
        }
    }

    /// No longer asks for these names of a type.
    pub fn unsubscribe(&mut self, type_url: &str, names: impl IntoIterator<Item = String>) {
        let mut all = self.names(type_url);
        for name in names {
            all.remove(&name);
        }
        self.subscribe_to(type_url, &all);
    }

    /// The names that are asked for one by one.
    #[must_use]
    pub fn names(&self, type_url: &str) -> BTreeSet<String> {
        self.shelves.get(type_url).map(|shelf| shelf.books.names.clone()).unwrap_or_default()
    }

    /// Whether a name is asked for.
    #[must_use]
    pub fn has_name(&self, type_url: &str, name: &str) -> bool {
        self.shelves.get(type_url).is_some_and(|shelf| shelf.books.names.contains(name))
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

    /// Takes over what an earlier process accepted and kept. Only before the first stream, after subscribing.
    pub fn restore(&mut self, type_url: &str, held: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) {
        self.shelf(type_url).books.held.extend(held);
    }

    /// One resource is no longer held: the owner may send the same version of it again.
    pub fn drop_held(&mut self, type_url: &str, name: &str) {
        if let Some(shelf) = self.shelves.get_mut(type_url) {
            shelf.books.held.remove(name);
        }
    }

    /// Forgets what it holds, so that the next stream brings everything again.
    pub fn forget(&mut self) {
        for shelf in self.shelves.values_mut() {
            shelf.books.held.clear();
        }
    }

    /// A new stream begins: everything is asked for again, with what is held. Requests that were not sent are void.
    pub fn connected(&mut self) {
        self.connected = true;
        self.outbox.clear();
        let mut order = Vec::new();
        for (type_url, shelf) in &mut self.shelves {
            shelf.opened = false;
            if shelf.books.asks() {
                order.push((shelf.books.rank, opening(type_url.clone(), shelf)));
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

    /// Takes in a response. The update must be answered with [`Subscriber::answer`] before the next response of the
    /// same type is taken in.
    pub fn on_response(&mut self, response: DeltaResponse) -> Update {
        let mut update = Update {
            type_url: response.type_url.clone(),
            nonce: response.nonce,
            version: response.system_version,
            complete: response.complete,
            ..Update::default()
        };
        let Some(shelf) = self.shelves.get_mut(&response.type_url) else { return update };
        update.changed = shelf.books.news(response.resources);
        if shelf.books.rule.full_state {
            update.removed = response.removed;
        } else {
            update.missing = response.removed;
        }
        update
    }

    /// Answers an update: everything that is not refused is now held. The reasons become the text of the refusal,
    /// one line per resource.
    pub fn answer(&mut self, update: &Update, refused: &BTreeMap<String, String>) {
        if let Some(shelf) = self.shelves.get_mut(&update.type_url) {
            shelf.books.hold(update, refused);
        }
        let request = DeltaRequest {
            type_url: update.type_url.clone(),
            nonce: update.nonce.clone(),
            error: refusal(refused),
            refused: refused.clone(),
            ..DeltaRequest::default()
        };
        if self.connected {
            self.outbox.push_back(request);
        }
    }

    /// The next request to send.
    #[must_use]
    pub fn next_request(&mut self) -> Option<DeltaRequest> {
        self.outbox.pop_front()
    }

    fn shelf(&mut self, type_url: &str) -> &mut Shelf {
        let books = || Books::new(&self.plan, type_url);
        self.shelves.entry(type_url.into()).or_insert_with(|| Shelf { books: books(), opened: false })
    }
}

/// The text of a refusal: one line for each resource; `None` when nothing is refused.
pub(crate) fn refusal(refused: &BTreeMap<String, String>) -> Option<String> {
    if refused.is_empty() {
        return None;
    }
    let lines: Vec<_> = refused.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    Some(lines.join("\n"))
}

/// The first request of a type in a stream.
fn opening(type_url: Arc<str>, shelf: &mut Shelf) -> DeltaRequest {
    shelf.opened = true;
    let subscribe = shelf.books.asked();
    let initial_versions =
        shelf.books.held.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect();
    DeltaRequest { type_url, subscribe, initial_versions, ..DeltaRequest::default() }
}

fn ask(type_url: &str, subscribe: &[String], unsubscribe: &[String]) -> DeltaRequest {
    DeltaRequest {
        type_url: type_url.into(),
        subscribe: subscribe.to_vec(),
        unsubscribe: unsubscribe.to_vec(),
        ..DeltaRequest::default()
    }
}
