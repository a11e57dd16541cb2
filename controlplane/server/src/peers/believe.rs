//! Whose roots are believed: files bootstrap trust in a peer, what the peer then shows follows its rotations.
//!
//! Owns the decision, and the memory of what peers showed. A root counts for one trust domain only, and never for our own
//! unless it is our own.

use crate::{
    config::{Config, Peer},
    trust::{self, Bundle, BundleFile, Bundles},
    world::{Ended, World},
};
use rustls::pki_types::CertificateDer;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tombolo_controlplane_core::Input;
use tombolo_federation_model::{SiteName, TrustDomain};
use tombolo_federation_peer::TrustMap;

/// How often bundle files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Folder of the roots that peers showed, in the state folder.
const SHOWN: &str = "bundles";

/// What a peer shows of a trust domain.
pub(super) struct Heard {
    pub(super) peer: SiteName,
    pub(super) domain: TrustDomain,
    pub(super) roots: Vec<Vec<u8>>,
}

/// Decides which roots are believed: files bootstrap trust in a peer, and what the peer then shows of its own domains
/// follows its rotations. Both count until the file is brought up to date, so that a rotation cuts nobody off.
pub(super) struct Keeper {
    /// Where roots that peers showed are remembered.
    folder: PathBuf,
    files: Vec<(String, BundleFile)>,
    fixed: Bundles,
    shown: Bundles,
    bundles: watch::Sender<Arc<Bundles>>,
    pub(super) roots: watch::Sender<Arc<TrustMap>>,
    pub(super) complaints: watch::Sender<BTreeMap<String, String>>,
    world: World,
}

impl Keeper {
    pub(super) fn new(config: &Config, own: Bundles, world: World) -> (Self, watch::Receiver<Arc<Bundles>>) {
        let file = |peer: &Peer| {
            (peer.name.to_string(), BundleFile::new(peer.bundle.clone(), peer.identity.trust_domain().clone()))
        };
        let folder = config.state.join(SHOWN);
        let domains = config.peers.iter().flat_map(|peer| peer.remit.trust_domains.iter().map(move |d| (peer, d)));
        let recalled = domains.filter_map(|(peer, domain)| {
            let roots = trust::recall_bundle(&remembered(&folder, domain), domain)?;
            Some((domain.clone(), Bundle { roots, source: peer.name.to_string() }))
        });
        let (bundles, believed) = watch::channel(Arc::new(Bundles::new()));
        let keeper = Self {
            files: config.peers.iter().map(file).collect(),
            roots: watch::Sender::new(Arc::new(trust_map(&own))),
            fixed: own,
            shown: recalled.collect(),
            folder,
            bundles,
            complaints: watch::Sender::new(BTreeMap::new()),
            world,
        };
        (keeper, believed)
    }

    pub(super) async fn run(mut self, mut hearsay: mpsc::Receiver<Heard>) -> &'static str {
        loop {
            self.poll();
            if self.publish().await.is_err() {
                return "trust bundles";
            }
            if let Ok(heard) = tokio::time::timeout(LOOK, hearsay.recv()).await {
                match heard {
                    Some(heard) => self.hear(heard),
                    None => return "trust bundles",
                }
            }
        }
    }

    pub(super) fn poll(&mut self) {
        let mut complaints = BTreeMap::new();
        for (peer, file) in &mut self.files {
            if let Some(roots) = file.poll() {
                tracing::info!(peer, trust_domain = %file.domain(), roots = roots.len(), "read a trust bundle");
                self.fixed.insert(file.domain().clone(), Bundle { roots, source: peer.clone() });
            }
            if !file.complaint().is_empty() {
                complaints.insert(peer.clone(), file.complaint().to_owned());
            }
        }
        self.complaints.send_if_modified(|known| {
            let new = *known != complaints;
            *known = complaints;
            new
        });
    }

    fn hear(&mut self, Heard { peer, domain, roots }: Heard) {
        let own = self.fixed.get(&domain).is_some_and(|bundle| bundle.source == "own");
        if own {
            tracing::warn!(%peer, trust_domain = %domain, "a peer shows roots of this site's own trust domain");
            return;
        }
        if let Err(reason) = trust::check(&domain, &roots) {
            tracing::warn!(%peer, trust_domain = %domain, reason, "roots that a peer shows are not believed");
            return;
        }
        if let Err(error) = trust::write_bundle(&remembered(&self.folder, &domain), &roots) {
            tracing::warn!(trust_domain = %domain, %error, "the roots of a peer cannot be remembered");
        }
        self.shown.insert(domain, Bundle { roots, source: peer.to_string() });
    }

    pub(super) async fn publish(&mut self) -> Result<(), Ended> {
        let mut all = self.fixed.clone();
        for (domain, bundle) in &self.shown {
            let known = all.entry(domain.clone()).or_insert_with(|| bundle.clone());
            let more = bundle.roots.iter().filter(|root| !known.roots.contains(root)).cloned().collect::<Vec<_>>();
            known.roots.extend(more);
        }
        if all == **self.bundles.borrow() {
            return Ok(());
        }
        self.roots.send_replace(Arc::new(trust_map(&all)));
        let told = self.world.tell(vec![Input::Bundles(trust::for_engine(&all))]).await;
        self.bundles.send_replace(Arc::new(all));
        told
    }
}

fn remembered(folder: &Path, domain: &TrustDomain) -> PathBuf {
    folder.join(format!("{domain}.pem"))
}

fn trust_map(bundles: &Bundles) -> TrustMap {
    let certificates = |bundle: &Bundle| bundle.roots.iter().cloned().map(CertificateDer::from).collect();
    bundles.iter().map(|(domain, bundle)| (domain.clone(), certificates(bundle))).collect()
}
