//! What peers said last, on disk: a control plane that restarts while a peer is away still serves the peer's share, marked
//! stale by its true age.
//!
//! Owns the files: one per shard and one for the subsets that a peer uses, written whole or not at all, with a checksum. A file that is damaged, or of a cluster that
//! no peer may speak for any more, is dropped: it is a memory, never the truth. Own sources are not kept here: they are read
//! again at once.

use crate::config::Config;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tombolo_controlplane_core::Input;
use tombolo_federation_model::{
    ClusterId, EndpointSlice, Export, Locality, NetworkGateway, NetworkId, Service, SiteName, Subsets, TrustDomain,
    Workload,
};
use tombolo_federation_registry::{Event, Item, ItemKey, Lease, ShardId, ShardSettings};

/// Older than every epoch of a running exchange.
const RESTORED: u64 = 0;
/// Ending of a file with the subsets that a peer uses.
const SUBSETS: &str = "subsets";

/// An item as it is written.
#[derive(Serialize, Deserialize)]
enum Stored {
    Service(Service),
    Workload(Workload),
    Slice(EndpointSlice),
    Gateway(NetworkGateway),
    Export(Export),
}

impl From<Item> for Stored {
    fn from(item: Item) -> Self {
        match item {
            Item::Service(item) => Self::Service(item),
            Item::Workload(item) => Self::Workload(item),
            Item::Slice(item) => Self::Slice(item),
            Item::Gateway(item) => Self::Gateway(item),
            Item::Export(item) => Self::Export(item),
        }
    }
}

impl From<Stored> for Item {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Service(item) => Self::Service(item),
            Stored::Workload(item) => Self::Workload(item),
            Stored::Slice(item) => Self::Slice(item),
            Stored::Gateway(item) => Self::Gateway(item),
            Stored::Export(item) => Self::Export(item),
        }
    }
}

/// What stands before the items.
#[derive(Serialize, Deserialize)]
struct Head {
    cluster: ClusterId,
    source: String,
    via: Vec<SiteName>,
    network: NetworkId,
    locality: Locality,
    trust_domain: TrustDomain,
    stale_after: u64,
    expire_after: u64,
}

#[derive(Deserialize)]
struct Read {
    head: Head,
    saved_unix: u64,
    items: Vec<Stored>,
}

/// A shard as it was said, each item already as JSON, the form in which it is written.
#[derive(Default)]
struct Memory {
    head: Option<Head>,
    live: BTreeMap<ItemKey, String>,
    listing: Option<BTreeMap<ItemKey, String>>,
    complete: bool,
    unsaved: bool,
}

/// A shard that was restored.
#[derive(Debug)]
pub struct Restored {
    /// To be told to the engine.
    pub inputs: Vec<Input>,
    /// How long ago it was heard.
    pub age: Duration,
}

/// A file to be written.
pub struct Save {
    path: PathBuf,
    text: Vec<u8>,
}

/// The memory of what peers said.
pub struct Store {
    folder: PathBuf,
    shards: BTreeMap<ShardId, Memory>,
    /// Those that are not written down yet, as JSON.
    subsets: BTreeMap<SiteName, String>,
}

impl Store {
    /// A memory in a folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, shards: BTreeMap::new(), subsets: BTreeMap::new() }
    }

    /// Takes note of what the engine is about to be told.
    pub fn note(&mut self, input: &Input) {
        match input {
            Input::Declare(shard, settings) => {
                let memory = self.shards.entry(shard.clone()).or_default();
                memory.head = head(shard, settings);
                memory.unsaved = true;
            }
            Input::Registry(event) => self.shards.entry(event.shard().clone()).or_default().note(event),
            Input::RemoteSubsets { peer, subsets } => {
                let text = serde_json::to_string(subsets);
                self.subsets.extend(text.ok().map(|text| (peer.clone(), text)));
            }
            Input::Intent(_) | Input::Bundles(_) => {}
        }
    }

    /// The files that are out of date.
    pub fn unsaved(&mut self, now: SystemTime) -> Vec<Save> {
        let folder = self.folder.clone();
        let ready = self.shards.iter_mut().filter(|(_, memory)| memory.complete && memory.unsaved);
        let shards = ready.filter_map(|(id, memory)| Some(Save { path: path(&folder, id), text: memory.text(now)? }));
        let subsets = std::mem::take(&mut self.subsets).into_iter();
        shards
            .chain(subsets.map(|(peer, text)| Save { path: subsets_path(&folder, &peer), text: text.into_bytes() }))
            .collect()
    }
}

impl Memory {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Begin { .. } => self.listing = Some(BTreeMap::new()),
            Event::Put { item, .. } => {
                // What cannot be written is not remembered; nothing else depends on it.
                let Ok(text) = serde_json::to_string(&Stored::from(item.clone())) else { return };
                self.listing.as_mut().unwrap_or(&mut self.live).insert(item.key(), text);
                self.unsaved = true;
            }
            Event::Remove { key, .. } => {
                self.listing.as_mut().unwrap_or(&mut self.live).remove(key);
                self.unsaved = true;
            }
            Event::Complete { .. } => {
                self.live = self.listing.take().unwrap_or_default();
                (self.complete, self.unsaved) = (true, true);
            }
            Event::Alive { .. } => {}
            Event::Withdraw { .. } => {
                (self.live, self.listing) = (BTreeMap::new(), None);
                (self.complete, self.unsaved) = (true, true);
            }
        }
    }

    fn text(&mut self, now: SystemTime) -> Option<Vec<u8>> {
        self.unsaved = false;
        let saved_unix = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let head = serde_json::to_string(self.head.as_ref()?).ok()?;
        let items = self.live.values().map(String::as_str).collect::<Vec<_>>().join(",\n");
        Some(format!("{{\"head\":{head},\"saved_unix\":{saved_unix},\"items\":[\n{items}\n]}}").into_bytes())
    }
}

impl Save {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self) -> io::Result<()> {
        let part = self.path.with_extension("part");
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::File::create(&part)?;
        file.write_all(checksum(&self.text).as_bytes())?;
        file.write_all(b"\n")?;
        file.write_all(&self.text)?;
        file.sync_all()?;
        fs::rename(&part, &self.path)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Everything that is remembered of clusters that a configured peer may speak for.
#[must_use]
pub fn restore(folder: &Path, config: &Config, now: SystemTime) -> Vec<Restored> {
    let clusters: BTreeSet<&ClusterId> = config.peers.iter().flat_map(|peer| &peer.remit.clusters).collect();
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut restored = Vec::new();
    for path in
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "json"))
    {
        match read::<Read>(&path) {
            Ok(file) if clusters.contains(&file.head.cluster) => restored.push(restored_from(file, now)),
            Ok(file) => {
                tracing::info!(cluster = %file.head.cluster, "no peer speaks for this cluster any more; its share is forgotten");
                let _ = fs::remove_file(&path);
            }
            Err(reason) => {
                tracing::warn!(file = %path.display(), reason, "a remembered share of a peer is damaged and dropped");
                let _ = fs::remove_file(&path);
            }
        }
    }
    restored
}

/// The subsets that configured peers used. They have no age: gateways let peers in by them for as long as nothing newer is
/// said.
#[must_use]
pub fn restore_subsets(folder: &Path, config: &Config) -> Vec<Input> {
    let mut inputs = Vec::new();
    for peer in config.peers.iter().map(|peer| &peer.name) {
        let path = subsets_path(folder, peer);
        match path.exists().then(|| read::<Subsets>(&path)) {
            Some(Ok(subsets)) => inputs.push(Input::RemoteSubsets { peer: peer.clone(), subsets }),
            Some(Err(reason)) => {
                tracing::warn!(file = %path.display(), reason, "the remembered subsets of a peer are damaged and dropped");
                let _ = fs::remove_file(&path);
            }
            None => {}
        }
    }
    inputs
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let end = bytes.iter().position(|b| *b == b'\n').ok_or("it has no checksum")?;
    let text = &bytes[end + 1..];
    if bytes[..end] != *checksum(text).as_bytes() {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_slice(text).map_err(|e| e.to_string())
}

fn restored_from(file: Read, now: SystemTime) -> Restored {
    let Read { head, saved_unix, items } = file;
    let shard = ShardId { cluster: head.cluster, source: head.source.as_str().into(), via: head.via };
    let lease = Lease { stale_after: head.stale_after, expire_after: head.expire_after };
    let settings = ShardSettings {
        network: head.network,
        locality: head.locality,
        trust_domain: head.trust_domain,
        lease: Some(lease),
        own: false,
    };
    let mut inputs = vec![
        Input::Declare(shard.clone(), settings),
        Input::Registry(Event::Begin { shard: shard.clone(), epoch: RESTORED }),
    ];
    inputs.extend(
        items
            .into_iter()
            .map(|item| Input::Registry(Event::Put { shard: shard.clone(), epoch: RESTORED, item: item.into() })),
    );
    inputs.push(Input::Registry(Event::Complete { shard, epoch: RESTORED }));
    let saved = UNIX_EPOCH + Duration::from_secs(saved_unix);
    // Whatever the clock says: it was not heard by this process, so that it is stale at best.
    let age = now.duration_since(saved).unwrap_or_default().max(Duration::from_millis(lease.stale_after));
    Restored { inputs, age }
}

fn head(shard: &ShardId, settings: &ShardSettings) -> Option<Head> {
    let lease = settings.lease?;
    Some(Head {
        cluster: shard.cluster.clone(),
        source: shard.source.to_string(),
        via: shard.via.clone(),
        network: settings.network.clone(),
        locality: settings.locality.clone(),
        trust_domain: settings.trust_domain.clone(),
        stale_after: lease.stale_after,
        expire_after: lease.expire_after,
    })
}

/// Named by a hash, because a shard's name may have characters that a file's may not.
fn path(folder: &Path, shard: &ShardId) -> PathBuf {
    let name = checksum(shard.to_string().as_bytes());
    folder.join(format!("{}-{}.json", shard.cluster, &name[..16]))
}

fn subsets_path(folder: &Path, peer: &SiteName) -> PathBuf {
    folder.join(format!("{peer}.{SUBSETS}"))
}

fn checksum(bytes: &[u8]) -> String {
    crate::ca::hex(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(address: &str) -> Item {
        Item::Gateway(NetworkGateway {
            network: NetworkId::parse("west").unwrap(),
            cluster: ClusterId::parse("west").unwrap(),
            address: address.to_owned(),
            port: 15443,
        })
    }

    fn config(cluster: &str) -> Config {
        let text = format!(
            "site: east\ntrustDomain: east.local\nlisten: {{xds: '127.0.0.1:1', admin: '127.0.0.1:2'}}\nstate: x\npeers: [{{name: west, address: 'h:1', identity: spiffe://west.local/a, bundle: b, remit: {{clusters: [{cluster}]}}}}]\n"
        );
        Config::from_yaml(&text, "test").unwrap()
    }

    fn said(store: &mut Store, addresses: &[&str]) -> ShardId {
        let shard = ShardId::own(ClusterId::parse("west").unwrap(), "peer west");
        let settings = ShardSettings {
            network: NetworkId::parse("west").unwrap(),
            locality: Locality::default(),
            trust_domain: TrustDomain::parse("west.local").unwrap(),
            lease: Some(Lease::default()),
            own: false,
        };
        store.note(&Input::Declare(shard.clone(), settings));
        store.note(&Input::Registry(Event::Begin { shard: shard.clone(), epoch: 1 }));
        for address in addresses {
            store.note(&Input::Registry(Event::Put { shard: shard.clone(), epoch: 1, item: gateway(address) }));
        }
        shard
    }

    fn addresses(restored: &[Restored]) -> Vec<String> {
        let address = |input: &Input| match input {
            Input::Registry(Event::Put { item: Item::Gateway(gateway), .. }) => Some(gateway.address.clone()),
            _ => None,
        };
        restored.iter().flat_map(|r| r.inputs.iter().filter_map(address)).collect()
    }

    #[test]
    fn a_complete_listing_is_remembered_with_its_age() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path().to_owned());
        let shard = said(&mut store, &["1.1.1.1", "2.2.2.2"]);
        let then = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(store.unsaved(then).is_empty(), "half a listing is not remembered");
        store.note(&Input::Registry(Event::Complete { shard: shard.clone(), epoch: 1 }));
        let key = gateway("1.1.1.1").key();
        store.note(&Input::Registry(Event::Remove { shard, epoch: 1, key }));
        for save in store.unsaved(then) {
            save.write().unwrap();
        }
        assert!(store.unsaved(then).is_empty());
        let restored = restore(dir.path(), &config("west"), then + Duration::from_secs(60));
        assert_eq!(addresses(&restored), ["2.2.2.2"]);
        assert_eq!(restored[0].age, Duration::from_secs(60));
        let at_once = restore(dir.path(), &config("west"), then);
        assert_eq!(at_once[0].age, Duration::from_secs(15), "stale at best");
        assert!(restore(dir.path(), &config("south"), then).is_empty(), "nobody speaks for it any more");
        assert!(restore(dir.path(), &config("west"), then).is_empty(), "and it is forgotten");
    }

    #[test]
    fn the_subsets_that_a_peer_uses_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path().to_owned());
        let text = r#"{"reviews.default.svc.cluster.local":{"v2":{"version":"v2"}}}"#;
        let subsets: Subsets = serde_json::from_str(text).unwrap();
        for name in ["west", "gone"] {
            let peer = SiteName::parse(name).unwrap();
            store.note(&Input::RemoteSubsets { peer, subsets: subsets.clone() });
        }
        let saves = store.unsaved(UNIX_EPOCH);
        saves.iter().for_each(|save| save.write().unwrap());
        assert!(store.unsaved(UNIX_EPOCH).is_empty());
        let told = restore_subsets(dir.path(), &config("west"));
        let [Input::RemoteSubsets { peer, subsets: recalled }] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((peer.as_str(), recalled), ("west", &subsets));
        assert!(restore(dir.path(), &config("west"), UNIX_EPOCH).is_empty());
        fs::write(dir.path().join("west.subsets"), "0\n{}").unwrap();
        assert!(restore_subsets(dir.path(), &config("west")).is_empty(), "the checksum is wrong");
    }

    #[test]
    fn a_damaged_file_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path().to_owned());
        let shard = said(&mut store, &["1.1.1.1"]);
        store.note(&Input::Registry(Event::Complete { shard, epoch: 1 }));
        let saves = store.unsaved(UNIX_EPOCH);
        saves[0].write().unwrap();
        let mut bytes = fs::read(saves[0].path()).unwrap();
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        fs::write(saves[0].path(), bytes).unwrap();
        assert!(restore(dir.path(), &config("west"), UNIX_EPOCH).is_empty());
        assert!(!saves[0].path().exists());
    }
}
