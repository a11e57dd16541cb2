//! A configuration from a file instead of a control plane: Envoy's `static_resources`, read again when the file changes.
//!
//! Owns the file's shape and the watch over it. A file that cannot be used as a whole is not used at all: what was read
//! before goes on serving, and at start the process ends with the reason. The resources go the same way as those of a control
//! plane, so both mean the same.

use super::{
    client::SharedStatus,
    shelves::{Refused, SharedShelves},
    wire::Named,
};
use prost::{Message as _, Name as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{mpsc, watch};
use tombolo_controlplane_api::{
    json::{self, JsonError, Parts},
    xds::envoy::config::bootstrap::v3::{Bootstrap, runtime_layer::LayerSpecifier},
};
use tombolo_federation_sync::Resource;
use tombolo_gateway_core::{
    assemble::{Assembly, INIT_TIMEOUT},
    config::Config,
    time::Millis,
    wire::{self, Kind},
};

/// The file is looked at this often.
const LOOK: Duration = Duration::from_millis(500);
/// Larger files are refused.
const LARGEST: u64 = 256 << 20;
/// What a file may say. The rest of a bootstrap file belongs to flags or has no counterpart here.
const PARTS: [&str; 4] = ["static_resources", "layered_runtime", "node", "admin"];
/// Its resources.
const STATIC: [(&str, Kind); 3] = [
    ("static_resources.clusters", Kind::Cluster),
    ("static_resources.listeners", Kind::Listener),
    ("static_resources.secrets", Kind::Secret),
];

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, io::Error),
    /// It is neither YAML nor JSON, or not of the right shape.
    #[error("{0}: {1}")]
    Shape(String, String),
    /// Resources in it are refused.
    #[error("{0}: {1}")]
    Refused(String, String),
}

/// What the watch needs.
pub(crate) struct Setup {
    /// The file.
    pub(crate) path: PathBuf,
    /// Where configurations go.
    pub(crate) out: watch::Sender<Arc<Config>>,
    /// What is shown.
    pub(crate) status: SharedStatus,
    /// What is in use, as it was read.
    pub(crate) shelves: SharedShelves,
    /// What others ask.
    pub(crate) asked: mpsc::Receiver<super::ask::Ask>,
}

/// A file in use.
pub(crate) struct Files {
    setup: Setup,
    assembly: Assembly,
    sharing: wire::Sharing,
    held: BTreeMap<Kind, BTreeSet<Arc<str>>>,
    seen: Option<(SystemTime, u64)>,
    origin: Instant,
}

/// What a file says.
#[derive(Debug, Default)]
struct Contents {
    resources: Vec<(Kind, Arc<Resource>, wire::Resource)>,
    layers: Vec<Arc<tombolo_gateway_core::config::Value>>,
}

impl Files {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn open(setup: Setup) -> Result<Self, FileError> {
        let assembly = Assembly::new(Some(INIT_TIMEOUT));
        let (sharing, held) = (wire::Sharing::default(), BTreeMap::new());
        let mut files = Self { setup, assembly, sharing, held, seen: None, origin: Instant::now() };
        files.seen = stamp(&files.setup.path);
        files.read()?;
        Ok(files)
    }

    /// Follows the file for ever.
    pub(crate) async fn run(mut self) {
        let mut closed = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                // Nothing can be asked of a file; whoever waits for an answer gets none.
                asked = self.setup.asked.recv(), if !closed => {
                    closed = asked.is_none();
                    continue;
                }
            }
            let now = stamp(&self.setup.path);
            if now.is_some() && now != self.seen {
                self.seen = now;
                match self.read() {
                    Ok(()) => tracing::info!(file = %self.setup.path.display(), "configuration read again"),
                    Err(error) => {
                        tracing::error!(%error, "configuration not taken, what was read before goes on serving");
                        self.setup.status.lock().unwrap_or_else(PoisonError::into_inner).trouble =
                            Some(error.to_string());
                    }
                }
            }
            self.advance();
        }
    }

    fn read(&mut self) -> Result<(), FileError> {
        let name = self.setup.path.display().to_string();
        let contents = self.contents(&name)?;
        let mut names: BTreeMap<Kind, BTreeSet<Arc<str>>> = BTreeMap::new();
        let now = SystemTime::now();
        let mut shelves = self.setup.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, resource, decoded) in contents.resources {
            names.entry(kind).or_default().insert(resource.name.clone());
            let same =
                shelves.of(kind).and_then(|s| s.kept.get(&resource.name)).is_some_and(|k| k.resource == resource);
            if !same {
                shelves.put(kind, resource, now);
            }
            self.assembly.put(decoded);
        }
        for (kind, before) in &self.held {
            for gone in before.iter().filter(|name| !names.get(kind).is_some_and(|now| now.contains(*name))) {
                self.assembly.remove(*kind, gone);
                shelves.remove(*kind, gone);
            }
        }
        drop(shelves);
        self.held = names;
        for kind in [Kind::Cluster, Kind::Listener, Kind::Scope, Kind::Host] {
            self.assembly.complete(kind);
        }
        let merged = tombolo_gateway_core::config::Value::Map(Arc::new(merged(&contents.layers)));
        self.assembly.override_runtime(Arc::new(merged));
        let mut status = self.setup.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.trouble = None;
        for (kind, names) in &self.held {
            let of_kind = status.kinds.entry(*kind).or_default();
            of_kind.accepted += 1;
            of_kind.held = names.len();
        }
        status.kinds.entry(Kind::Listener).or_default().accepted += 1;
        drop(status);
        self.advance();
        Ok(())
    }

    fn advance(&mut self) {
        let now = Millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX));
        if let Some(config) = self.assembly.step(now) {
            self.setup.out.send_replace(config);
        }
        let waiting = self.assembly.waiting();
        self.setup.status.lock().unwrap_or_else(PoisonError::into_inner).waiting = waiting;
    }

    /// Reads and judges everything, and changes nothing.
    fn contents(&mut self, name: &str) -> Result<Contents, FileError> {
        let mut refused = Vec::new();
        let mut twice = BTreeSet::new();
        let mut kinds = [const { Vec::new() }; STATIC.len()];
        let path = self.setup.path.clone();
        let bootstrap = parse(&path, name, &mut |part, body| {
            let (Some((_, kind)), Some(of_kind)) = (STATIC.get(part), kinds.get_mut(part)) else { return };
            match self.resource(*kind, body) {
                Ok((resource, _)) if !twice.insert((*kind, resource.name.clone())) => {
                    refused.push(format!("{kind:?} {:?} is there twice", resource.name));
                }
                Ok((resource, decoded)) => of_kind.push((*kind, resource, decoded)),
                Err(refusal) => refused.push(refusal),
            }
        })?;
        // Secrets come last: only those that something refers to are kept.
        let mut contents = Contents { resources: kinds.into_iter().flatten().collect(), layers: Vec::new() };
        for layer in bootstrap.layered_runtime.unwrap_or_default().layers {
            match layer.layer_specifier {
                Some(LayerSpecifier::StaticLayer(values)) => match wire::structure(&values) {
                    Ok(values) => contents.layers.push(Arc::new(values)),
                    Err(reason) => refused.push(format!("layered_runtime {:?}: {reason}", layer.name)),
                },
                Some(LayerSpecifier::AdminLayer(_)) => {}
                Some(LayerSpecifier::RtdsLayer(_) | LayerSpecifier::DiskLayer(_)) | None => {
                    refused
                        .push(format!("layered_runtime {:?}: only static and admin layers are supported", layer.name));
                }
            }
        }
        refused.extend(unanswered(&contents));
        if refused.is_empty() { Ok(contents) } else { Err(FileError::Refused(name.to_owned(), refused.join("; "))) }
    }

    fn resource(&mut self, kind: Kind, body: Vec<u8>) -> Result<(Arc<Resource>, wire::Resource), String> {
        let name = Named::decode(body.as_slice()).map(|named| named.name).unwrap_or_default();
        let mut resource = Resource::new(name.as_str(), body);
        match wire::decode(kind, &name, &resource.body) {
            Ok(mut decoded) => {
                self.sharing.share(&mut decoded);
                resource.name.clone_from(decoded.name());
                Ok((Arc::new(resource), decoded))
            }
            Err(refusal) => {
                let (reason, version) = (refusal.to_string(), resource.version.clone());
                let told = Refused { reason, at: SystemTime::now(), version, resource: Some(Arc::new(resource)) };
                self.setup.shelves.lock().unwrap_or_else(PoisonError::into_inner).refuse(kind, &name, told);
                Err(format!("{kind:?} {refusal}"))
            }
        }
    }
}

/// References to what only a control plane could bring.
fn unanswered(contents: &Contents) -> Vec<String> {
    let mut scratch = Assembly::new(None);
    contents.resources.iter().for_each(|(_, _, decoded)| scratch.put(decoded.clone()));
    let secrets: BTreeSet<&str> =
        contents.resources.iter().filter(|(kind, _, _)| *kind == Kind::Secret).map(|(_, r, _)| &*r.name).collect();
    let mut out = Vec::new();
    for kind in [Kind::Load, Kind::Routes, Kind::Extension, Kind::Secret] {
        let missing = scratch.wanted(kind).into_iter().filter(|name| !secrets.contains(name.as_str()));
        out.extend(
            missing.map(|name| format!("{kind:?} {name:?} would come from a control plane, of which there is none")),
        );
    }
    let strangers = contents.resources.iter().filter_map(|(kind, resource, decoded)| {
        scratch.admits(decoded).err().map(|reason| format!("{kind:?} {:?}: {reason}", resource.name))
    });
    out.extend(strangers);
    if scratch.wants_all(Kind::Scope) {
        out.push("scoped_rds would come from a control plane, of which there is none".to_owned());
    }
    out
}

fn merged(
    layers: &[Arc<tombolo_gateway_core::config::Value>],
) -> BTreeMap<Arc<str>, tombolo_gateway_core::config::Value> {
    let runtime = tombolo_gateway_core::runtime::Runtime::merged(layers.iter().map(|layer| &**layer));
    runtime.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.modified().ok()?, facts.len()))
}

/// The file without its static resources, which go to `taken` one by one.
fn parse(path: &Path, name: &str, taken: &mut dyn FnMut(usize, Vec<u8>)) -> Result<Bootstrap, FileError> {
    let shape = |reason: String| FileError::Shape(name.to_owned(), reason);
    let read = |error| FileError::Read(name.to_owned(), error);
    if fs::metadata(path).map_err(read)?.len() > LARGEST {
        return Err(shape(format!("larger than {LARGEST} bytes")));
    }
    let text = fs::read_to_string(path).map_err(read)?;
    let bytes = messages(&text, taken).map_err(|error| shape(error.to_string()))?;
    let bootstrap = Bootstrap::decode(bytes.as_slice()).map_err(|error| shape(error.to_string()))?;
    let told = [("node", bootstrap.node.is_some()), ("admin", bootstrap.admin.is_some())];
    for (part, _) in told.into_iter().filter(|(_, told)| *told) {
        tracing::warn!(file = %name, "{part} is told by flags; what the file says of it does not count");
    }
    Ok(bootstrap)
}

/// The text of a file as one message, without its static resources, which go to `taken` one by one.
pub(crate) fn messages(text: &str, taken: &mut dyn FnMut(usize, Vec<u8>)) -> Result<Vec<u8>, JsonError> {
    let parts = Parts { only: &PARTS, each: &STATIC.map(|(path, _)| path), taken };
    let kind = Bootstrap::type_url();
    if text.trim_start().starts_with('{') {
        let mut from = serde_json::Deserializer::from_str(text);
        let bytes = json::read_parts(&kind, &mut from, parts)?;
        let ended = from.end().map_err(|error| JsonError { at: String::new(), reason: error.to_string() });
        return ended.map(|()| bytes);
    }
    let mut read = None;
    let format = serde_saphyr::with_deserializer_from_str(text, |from| {
        let bytes = json::read_parts(&kind, from, parts);
        let told = bytes.as_ref().map(drop).map_err(serde::de::Error::custom);
        read = Some(bytes);
        told
    });
    match (read, format) {
        // What it says itself is said with its place in the message, which the format does not know.
        (Some(Err(error)), _) => Err(error),
        (Some(Ok(bytes)), Ok(())) => Ok(bytes),
        (None, Ok(())) => Ok(Vec::new()),
        (_, Err(error)) => Err(JsonError { at: String::new(), reason: error.to_string() }),
    }
}
