//! The exchange with other control planes, and whose certificates are believed.
//!
//! Owns the wiring: bundles from files, sessions, and what status says about peers.

use crate::{
    ca::{Authority, OwnIdentity},
    config::Config,
    trust::{self, Bundle, BundleFile, Bundles},
    world::{Summary, World},
};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tombolo_controlplane_api::status::{PeerStatus, RemoteSiteStatus};
use tombolo_controlplane_core::{Exports, Input};

/// How often bundle files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The exchange, not yet running.
pub struct Peers {
    config: Arc<Config>,
    own: OwnIdentity,
}

/// What status says about peers.
#[derive(Clone)]
pub struct PeerReports {
    config: Arc<Config>,
}

impl Peers {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(config: Arc<Config>, own: OwnIdentity) -> Self {
        Self { config, own }
    }

    /// Starts everything; returns the bundles as they are believed.
    ///
    /// # Errors
    /// When the engine has ended.
    pub async fn start(
        &self,
        _listener: Option<TcpListener>,
        _exports: watch::Receiver<Arc<Exports>>,
        authority: &Authority,
        world: &World,
        _stop: &CancellationToken,
        tasks: &mut JoinSet<&'static str>,
    ) -> anyhow::Result<watch::Receiver<Arc<Bundles>>> {
        let _ = &self.own;
        let own = Bundle { roots: vec![authority.root().to_vec()], source: "own".to_owned() };
        let bundles = Bundles::from([(authority.trust_domain().clone(), own)]);
        world.tell(vec![Input::Bundles(trust::for_engine(&bundles))]).await?;
        let (sender, receiver) = watch::channel(Arc::new(bundles));
        let files: Vec<_> = self
            .config
            .peers
            .iter()
            .map(|peer| {
                (peer.name.to_string(), BundleFile::new(peer.bundle.clone(), peer.identity.trust_domain().clone()))
            })
            .collect();
        let world = world.clone();
        tasks.spawn(async move {
            follow(files, sender, world).await;
            "bundles"
        });
        Ok(receiver)
    }

    /// For status.
    #[must_use]
    pub fn reports(&self) -> PeerReports {
        PeerReports { config: self.config.clone() }
    }
}

async fn follow(mut files: Vec<(String, BundleFile)>, sender: watch::Sender<Arc<Bundles>>, world: World) {
    loop {
        let mut bundles = Bundles::clone(&sender.borrow());
        for (peer, file) in &mut files {
            if let Some(roots) = file.poll() {
                bundles.insert(file.domain().clone(), Bundle { roots, source: peer.clone() });
            }
        }
        if bundles != **sender.borrow() {
            if world.tell(vec![Input::Bundles(trust::for_engine(&bundles))]).await.is_err() {
                return;
            }
            sender.send_replace(Arc::new(bundles));
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl PeerReports {
    /// Every configured peer.
    #[must_use]
    pub fn status(&self, _summary: &Summary) -> Vec<PeerStatus> {
        self.config
            .peers
            .iter()
            .map(|peer| PeerStatus {
                name: peer.name.to_string(),
                address: peer.address.clone().unwrap_or_default(),
                state: "connecting".to_owned(),
                ..PeerStatus::default()
            })
            .collect()
    }

    /// What peers say about themselves.
    #[must_use]
    pub fn others(&self) -> Vec<RemoteSiteStatus> {
        Vec::new()
    }
}
