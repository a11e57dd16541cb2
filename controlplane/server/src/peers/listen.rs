//! What peers say: passed on to the engine, to whoever decides about roots, and to disk.
//!
//! Owns the memory of what peers said. Never judges it: what is outside of a remit was dropped before it came here.

use super::believe::Heard;
use crate::{
    config::Config,
    store::{self, Restored, Save, Store},
    world::{Ended, World},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::mpsc;
use tombolo_controlplane_api::status::SiteStatus;
use tombolo_controlplane_core::Input;
use tombolo_federation_model::SiteName;
use tombolo_federation_peer::PeerEvent;

/// Events of peers that wait; a peer that finds no room is not read.
pub(super) const QUEUE: usize = 256;
/// How often what peers said is written down, when it changed.
const SAVE: Duration = Duration::from_secs(2);
/// Folder of it, in the state folder.
const SHARES: &str = "peers";
/// A peer's status that is larger than this is not kept.
const LARGEST_STATUS: usize = 4 << 20;

/// What sites say about themselves, and when they said it.
pub(super) type Sites = Arc<Mutex<BTreeMap<SiteName, (SiteStatus, Instant)>>>;

/// Passes on what peers say, and remembers it.
pub(super) struct Listener {
    world: World,
    heard: mpsc::Sender<Heard>,
    sites: Sites,
    store: Store,
}

impl Listener {
    pub(super) fn new(config: &Config, world: World, heard: mpsc::Sender<Heard>, sites: Sites) -> Self {
        Self { world, heard, sites, store: Store::new(folder(config)) }
    }

    pub(super) async fn run(mut self, mut events: mpsc::Receiver<PeerEvent>) -> &'static str {
        let mut clock = tokio::time::interval(SAVE);
        let mut waiting = Vec::with_capacity(QUEUE);
        loop {
            tokio::select! {
                heard = events.recv_many(&mut waiting, QUEUE) => {
                    if heard == 0 || self.pass_on(&mut waiting).await.is_err() {
                        return "what peers say";
                    }
                }
                _ = clock.tick() => save(self.store.unsaved(SystemTime::now())).await,
            }
        }
    }

    async fn pass_on(&mut self, events: &mut Vec<PeerEvent>) -> Result<(), Ended> {
        let mut inputs = Vec::new();
        for event in events.drain(..) {
            match event {
                PeerEvent::Declare { shard, settings } => inputs.push(Input::Declare(shard, settings)),
                PeerEvent::Registry(event) => inputs.push(Input::Registry(event)),
                PeerEvent::Bundle { peer, trust_domain, roots, sequence: _ } => {
                    self.heard.send(Heard { peer, domain: trust_domain, roots }).await.map_err(|_| Ended)?;
                }
                PeerEvent::Subsets { peer, subsets } => inputs.push(Input::RemoteSubsets { peer, subsets }),
                PeerEvent::Status { peer, site, json } => keep_status(&self.sites, &peer, site, &json),
            }
        }
        if inputs.is_empty() {
            return Ok(());
        }
        inputs.iter().for_each(|input| self.store.note(input));
        self.world.tell(inputs).await
    }
}

/// A site speaks about itself only.
fn keep_status(sites: &Mutex<BTreeMap<SiteName, (SiteStatus, Instant)>>, peer: &SiteName, site: SiteName, json: &[u8]) {
    if *peer != site || json.len() > LARGEST_STATUS {
        return;
    }
    match serde_json::from_slice::<SiteStatus>(json) {
        Ok(mut status) => {
            status.site = site.to_string();
            sites.lock().unwrap_or_else(PoisonError::into_inner).insert(site, (status, Instant::now()));
        }
        Err(error) => tracing::debug!(peer = %peer, %error, "a peer's status cannot be read"),
    }
}

/// Tells the engine what peers said before this process began.
pub(super) async fn recall(config: &Config, world: &World) -> anyhow::Result<()> {
    for Restored { inputs, age } in store::restore(&folder(config), config, SystemTime::now()) {
        world.recall(inputs, age).await?;
    }
    world.recall(store::restore_subsets(&folder(config), config), Duration::ZERO).await?;
    Ok(())
}

/// Writes what peers said, for a restart. A full disk costs the memory, nothing else.
async fn save(files: Vec<Save>) {
    let write = move || {
        for file in files {
            if let Err(error) = file.write() {
                tracing::warn!(file = %file.path().display(), %error, "a peer's share cannot be remembered");
            }
        }
    };
    // A panic in there is logged by its own thread.
    let _ = tokio::task::spawn_blocking(write).await;
}

fn folder(config: &Config) -> PathBuf {
    config.state.join(SHARES)
}
