//! A source of manifests: what is in force, and the differences to what the engine was told before.
//!
//! Owns the last good version of every object, as the control plane's own folder source does. Never reads a file: texts are
//! given to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_controlplane_core::{Input, IntentEvent, intent::Intent};
use tombolo_controlplane_dialect::{Context, Document, Reading, read};
use tombolo_federation_model::ObjectRef;
use tombolo_federation_registry::{Event, Item, ItemKey, ShardId};

const EPOCH: u64 = 1;

/// A source of one site.
#[derive(Debug)]
pub struct Source {
    context: Context,
    shard: ShardId,
    texts: BTreeMap<String, String>,
    reading: Reading,
    kept: BTreeSet<ObjectRef>,
    items: BTreeMap<ItemKey, Item>,
    intents: BTreeMap<ObjectRef, Vec<Arc<Intent>>>,
    begun: bool,
}

impl Source {
    /// An empty source.
    #[must_use]
    pub fn new(context: Context, shard: ShardId) -> Self {
        Self {
            context,
            shard,
            texts: BTreeMap::new(),
            reading: Reading::default(),
            kept: BTreeSet::new(),
            items: BTreeMap::new(),
            intents: BTreeMap::new(),
            begun: false,
        }
    }

    /// The shard that it reports.
    #[must_use]
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// Puts a file in place.
    pub fn write(&mut self, file: &str, text: &str) {
        self.texts.insert(file.to_owned(), text.to_owned());
    }

    /// Removes a file.
    pub fn remove(&mut self, file: &str) {
        self.texts.remove(file);
    }

    /// A file as it stands.
    #[must_use]
    pub fn file(&self, file: &str) -> Option<&str> {
        self.texts.get(file).map(String::as_str)
    }

    /// Names of all files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    /// What the texts say, after [`refresh`](Self::refresh).
    #[must_use]
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Objects whose last good version is kept.
    #[must_use]
    pub fn kept(&self) -> &BTreeSet<ObjectRef> {
        &self.kept
    }

    /// Reads the texts again; returns the differences to what was told before, at first the whole.
    pub fn refresh(&mut self) -> Vec<Input> {
        let documents: Vec<Document> =
            self.texts.iter().map(|(place, text)| Document::new(place.clone(), text.as_bytes())).collect();
        let mut reading = read(&documents, &self.context);
        self.kept = reading.keep_last_good(&self.reading);
        self.reading = reading;
        let (shard, epoch) = (self.shard.clone(), EPOCH);
        let mut inputs = Vec::new();
        if !self.begun {
            inputs.push(Input::Registry(Event::Begin { shard: shard.clone(), epoch }));
            inputs.push(Input::Intent(IntentEvent::Begin { shard: shard.clone(), epoch }));
        }
        self.tell_items(&mut inputs);
        self.tell_intents(&mut inputs);
        if !self.begun {
            inputs.push(Input::Registry(Event::Complete { shard: shard.clone(), epoch }));
            inputs.push(Input::Intent(IntentEvent::Complete { shard, epoch }));
            self.begun = true;
        }
        inputs
    }

    fn tell_items(&mut self, inputs: &mut Vec<Input>) {
        let (shard, epoch) = (&self.shard, EPOCH);
        let now: BTreeMap<ItemKey, Item> = self.reading.items().map(|item| (item.key(), item.clone())).collect();
        for key in self.items.keys().filter(|key| !now.contains_key(*key)) {
            inputs.push(Input::Registry(Event::Remove { shard: shard.clone(), epoch, key: key.clone() }));
        }
        for (key, item) in &now {
            if self.items.get(key) != Some(item) {
                inputs.push(Input::Registry(Event::Put { shard: shard.clone(), epoch, item: item.clone() }));
            }
        }
        self.items = now;
    }

    fn tell_intents(&mut self, inputs: &mut Vec<Input>) {
        let (shard, epoch) = (&self.shard, EPOCH);
        let mut now: BTreeMap<ObjectRef, Vec<Arc<Intent>>> = BTreeMap::new();
        for intent in self.reading.intents() {
            now.entry(intent.meta().object.clone()).or_default().push(intent.clone());
        }
        for (object, before) in &self.intents {
            if now.get(object).is_none_or(|after| after.len() < before.len()) {
                let object = object.clone();
                inputs.push(Input::Intent(IntentEvent::Remove { shard: shard.clone(), epoch, object }));
            }
        }
        for (object, intents) in &now {
            if self.intents.get(object) != Some(intents) {
                let put = |intent: &Arc<Intent>| {
                    Input::Intent(IntentEvent::Put { shard: shard.clone(), epoch, intent: intent.clone() })
                };
                inputs.extend(intents.iter().map(put));
            }
        }
        self.intents = now;
    }
}
