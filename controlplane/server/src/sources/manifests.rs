//! A folder of manifests as one shard: what is in force, and the differences to what was told before.
//!
//! Owns the last good version of every object. Used by the source's task; knows no task, channel or clock itself.

use super::folder::{Folder, Look};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};
use tombolo_controlplane_core::{Input, IntentEvent, intent::Intent};
use tombolo_controlplane_dialect::{Context, Document, Reading, read};
use tombolo_federation_model::{Diagnostic, ObjectRef, Severity};
use tombolo_federation_registry::{Event, Item, ItemKey, ShardId};

/// What a refresh brings.
#[derive(Debug, Default)]
pub struct Refresh {
    /// To be told to the engine, in order; empty when nothing changed.
    pub inputs: Vec<Input>,
    /// True when the folder should be looked at again soon.
    pub doubtful: bool,
    /// True when [`Manifests::report`] says something new.
    pub new_report: bool,
}

/// What status says about a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderReport {
    /// Objects in force.
    pub objects: u64,
    /// Services and workloads among them.
    pub services: u64,
    /// Workloads among them.
    pub workloads: u64,
    /// Objects and files that are not in force as they stand.
    pub refused: u64,
    /// Complaints.
    pub diagnostics: Vec<Diagnostic>,
}

/// The folder and everything that was told about it.
pub struct Manifests {
    folder: Folder,
    context: Context,
    shard: ShardId,
    epoch: u64,
    texts: BTreeMap<String, Arc<[u8]>>,
    reading: Reading,
    kept: BTreeSet<ObjectRef>,
    unreadable: BTreeMap<String, String>,
    items: BTreeMap<ItemKey, Item>,
    intents: BTreeMap<ObjectRef, Vec<Arc<Intent>>>,
    begun: bool,
}

impl Manifests {
    /// Nothing read yet. `epoch` must grow with every start of the process.
    #[must_use]
    pub fn new(folder: PathBuf, context: Context, shard: ShardId, epoch: u64) -> Self {
        Self {
            folder: Folder::new(folder),
            context,
            shard,
            epoch,
            texts: BTreeMap::new(),
            reading: Reading::default(),
            kept: BTreeSet::new(),
            unreadable: BTreeMap::new(),
            items: BTreeMap::new(),
            intents: BTreeMap::new(),
            begun: false,
        }
    }

    /// Looks at the folder and says what changed.
    ///
    /// # Errors
    /// When the folder cannot be listed: what was told before stays.
    pub fn refresh(&mut self) -> io::Result<Refresh> {
        let look = self.folder.look()?;
        if self.begun && look.is_quiet() && look.unreadable == self.unreadable {
            return Ok(Refresh { doubtful: look.doubtful, ..Refresh::default() });
        }
        let Look { changed, removed, unreadable, doubtful } = look;
        self.texts.extend(changed);
        removed.iter().for_each(|name| drop(self.texts.remove(name)));
        self.unreadable = unreadable;
        self.read();
        Ok(Refresh { inputs: self.tell(), doubtful, new_report: true })
    }

    fn read(&mut self) {
        let documents: Vec<Document> =
            self.texts.iter().map(|(place, text)| Document::new(place.clone(), text.to_vec())).collect();
        let mut reading = read(&documents, &self.context);
        self.kept = reading.keep_last_good(&self.reading);
        self.reading = reading;
    }

    /// The differences to what was told before; the whole at the first time.
    fn tell(&mut self) -> Vec<Input> {
        let (shard, epoch) = (self.shard.clone(), self.epoch);
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
        let (shard, epoch) = (&self.shard, self.epoch);
        let now: BTreeMap<ItemKey, &Item> = self.reading.items().map(|item| (item.key(), item)).collect();
        for key in self.items.keys().filter(|key| !now.contains_key(*key)) {
            inputs.push(Input::Registry(Event::Remove { shard: shard.clone(), epoch, key: key.clone() }));
        }
        for (key, item) in &now {
            if self.items.get(key) != Some(*item) {
                inputs.push(Input::Registry(Event::Put { shard: shard.clone(), epoch, item: (*item).clone() }));
            }
        }
        self.items = now.into_iter().map(|(key, item)| (key, item.clone())).collect();
    }

    fn tell_intents(&mut self, inputs: &mut Vec<Input>) {
        let (shard, epoch) = (&self.shard, self.epoch);
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

    /// What status says.
    #[must_use]
    pub fn report(&self) -> FolderReport {
        let count = |wanted: fn(&Item) -> bool| self.items.values().filter(|item| wanted(item)).count() as u64;
        let mut diagnostics = self.reading.diagnostics.clone();
        let cluster = self.context.cluster.as_str();
        diagnostics.extend(self.unreadable.iter().map(|(place, reason)| Diagnostic {
            severity: Severity::Error,
            code: "UNREADABLE_FILE".to_owned(),
            object: ObjectRef::new("File", "", place, cluster),
            field: String::new(),
            message: format!("{reason}; what it defined before stays in force"),
            place: place.clone(),
        }));
        diagnostics.extend(self.kept.iter().map(|object| Diagnostic {
            severity: Severity::Info,
            code: "LAST_GOOD_KEPT".to_owned(),
            object: object.clone(),
            field: String::new(),
            message: "its last good version stays in force until it can be read again".to_owned(),
            place: self.reading.objects.get(object).map(|o| o.place.clone()).unwrap_or_default(),
        }));
        FolderReport {
            objects: self.reading.objects.len() as u64,
            services: count(|item| matches!(item, Item::Service(_))),
            workloads: count(|item| matches!(item, Item::Workload(_))),
            refused: (self.reading.refused.len() + self.reading.unreadable.len() + self.unreadable.len()) as u64,
            diagnostics,
        }
    }
}
