//! A configuration from a file instead of a control plane: Envoy's `static_resources`, read again when the file changes.
//!
//! Owns the file's shape and the watch over it. A file that cannot be used as a whole is not used at all: what was read
//! before goes on serving, and at start the process ends with the reason. The resources go the same way as those of a control
//! plane, so both mean the same.

use super::{
    client::SharedStatus,
    shelves::{Refused, SharedShelves},
};
use prost::{Message as _, Name as _};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{mpsc, watch};
use tombolo_controlplane_api::{
    json::Dictionary,
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
        let mut files = Self { setup, assembly, held: BTreeMap::new(), seen: None, origin: Instant::now() };
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
        let waiting = self.assembly.waiting();
        self.setup.status.lock().unwrap_or_else(PoisonError::into_inner).waiting = waiting;
        let now = Millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX));
        if let Some(config) = self.assembly.step(now) {
            self.setup.out.send_replace(config);
        }
    }

    /// Reads and judges everything, and changes nothing.
    fn contents(&self, name: &str) -> Result<Contents, FileError> {
        let bootstrap = parse(&self.setup.path, name)?;
        let mut refused = Vec::new();
        let mut contents = Contents::default();
        let resources = bootstrap.static_resources.unwrap_or_default();
        // Secrets come last: only those that something refers to are kept.
        let all = resources.clusters.into_iter().map(|m| (Kind::Cluster, m.name.clone(), m.encode_to_vec()));
        let all =
            all.chain(resources.listeners.into_iter().map(|m| (Kind::Listener, m.name.clone(), m.encode_to_vec())));
        let all = all.chain(resources.secrets.into_iter().map(|m| (Kind::Secret, m.name.clone(), m.encode_to_vec())));
        let mut twice = BTreeSet::new();
        for (kind, of, body) in all {
            let resource = Arc::new(Resource::new(of.as_str(), body));
            if !twice.insert((kind, of.clone())) {
                refused.push(format!("{kind:?} {of:?} is there twice"));
            }
            match wire::decode(kind, &of, &resource.body) {
                Ok(decoded) => contents.resources.push((kind, resource, decoded)),
                Err(refusal) => {
                    refused.push(format!("{kind:?} {refusal}"));
                    self.refuse(kind, &of, &resource, refusal.to_string());
                }
            }
        }
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

    fn refuse(&self, kind: Kind, name: &str, resource: &Arc<Resource>, reason: String) {
        let version = resource.version.clone();
        let told = Refused { reason, at: SystemTime::now(), version, resource: Some(resource.clone()) };
        self.setup.shelves.lock().unwrap_or_else(PoisonError::into_inner).refuse(kind, name, told);
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

fn parse(path: &Path, name: &str) -> Result<Bootstrap, FileError> {
    let shape = |reason: String| FileError::Shape(name.to_owned(), reason);
    let read = |error| FileError::Read(name.to_owned(), error);
    if fs::metadata(path).map_err(read)?.len() > LARGEST {
        return Err(shape(format!("larger than {LARGEST} bytes")));
    }
    let text = fs::read_to_string(path).map_err(read)?;
    let value: Json = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| shape(error.to_string()))?
    } else {
        serde_saphyr::from_str(&text).map_err(|error| shape(error.to_string()))?
    };
    let parts = value.as_object().ok_or_else(|| shape("not an object".to_owned()))?;
    if let Some(other) = parts.keys().find(|key| !PARTS.contains(&key.as_str())) {
        return Err(shape(format!("{other}: not supported in a file")));
    }
    for told in ["node", "admin"].into_iter().filter(|part| parts.contains_key(*part)) {
        tracing::warn!(file = %name, "{told} is told by flags; what the file says of it does not count");
    }
    let words = Dictionary::open().map_err(|error| shape(error.to_string()))?;
    let bytes = words.read(&Bootstrap::type_url(), &value).map_err(|error| shape(error.to_string()))?;
    Bootstrap::decode(bytes.as_slice()).map_err(|error| shape(error.to_string()))
}
