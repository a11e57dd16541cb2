//! The exchange with other control planes: what they are shown, what they say, and whose certificates are believed.
//!
//! Owns the wiring only: sessions and remits are the peer crate's, the meaning of what peers say is the engine's. A root that
//! a peer shows counts for the trust domains of its remit and no other.

mod believe;
mod listen;

use crate::{
    ca::{Authority, OwnCertificate, OwnIdentity, unix_seconds},
    config::{Config, Peer},
    start::Tasks,
    status::Reporter,
    trust::{Bundle, Bundles},
    world::World,
};
use believe::Keeper;
use listen::{Listener, QUEUE, Sites, recall};
use rustls::pki_types::PrivateKeyDer;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tombolo_controlplane_api::status::{PeerStatus, RemoteSiteStatus, SiteStatus};
use tombolo_controlplane_core::Exports;
use tombolo_federation_model::SiteName;
use tombolo_federation_peer::{self as peer, Credentials, LocalSite, PeerEvent, PeerState, Remit, Settings, Trust};
use tombolo_federation_registry::Lease;
use tombolo_federation_sync::Snapshot;

/// How often the own status is shown to peers, when it changed.
const SHOW: Duration = Duration::from_millis(500);
/// Lines of a list in the status that peers are shown.
const MOST_LINES: usize = 500;

/// What the exchange tells the rest of the daemon.
#[derive(Clone)]
pub struct PeerReports {
    started: Instant,
    config: Arc<Config>,
    /// Filled when the exchange begins.
    states: Arc<OnceLock<Vec<watch::Receiver<PeerState>>>>,
    complaints: watch::Receiver<BTreeMap<String, String>>,
    sites: Sites,
}

/// The running exchange.
pub struct Exchange {
    /// What status says about it.
    pub reports: PeerReports,
    /// The roots that are believed.
    pub bundles: watch::Receiver<Arc<Bundles>>,
    status: watch::Sender<Option<Vec<u8>>>,
    site: SiteName,
}

/// Starts everything about peers.
///
/// # Errors
/// When the engine has ended.
pub(crate) async fn start(
    config: &Arc<Config>,
    (authority, own): (&Authority, &OwnIdentity),
    (listener, exports): (Option<TcpListener>, watch::Receiver<Option<Arc<Exports>>>),
    world: &World,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> anyhow::Result<Exchange> {
    let bundle = Bundle { roots: vec![authority.root().to_vec()], source: "own".to_owned() };
    let bundles = Bundles::from([(authority.trust_domain().clone(), bundle)]);
    let own_bundle = peer::Bundle {
        trust_domain: authority.trust_domain().clone(),
        roots: vec![authority.root().to_vec()],
        // A later root was made later.
        sequence: u64::try_from(unix_seconds(authority.root_not_after())).unwrap_or(0),
    };
    let (status, statuses) = watch::channel(None);
    let (shown, snapshots) = watch::channel(Arc::default());
    tasks.loops.spawn(show(config.site.clone(), own_bundle, exports, statuses, shown));
    let (credential, credentials) = watch::channel(Arc::new(credentials_of(&own.current())));
    tasks.loops.spawn(follow_credentials(own.watch(), credential));
    let (mut keeper, believed) = Keeper::new(config, bundles, world.clone());
    keeper.poll();
    keeper.publish().await?;
    let complaints = keeper.complaints.subscribe();
    let roots = keeper.roots.subscribe();
    let (heard, hearsay) = mpsc::channel(QUEUE);
    tasks.loops.spawn(keeper.run(hearsay));
    let local = LocalSite {
        site: config.site.clone(),
        trust_domain: config.trust_domain.clone(),
        clusters: BTreeSet::from([config.cluster()]),
        networks: BTreeSet::from([config.network()]),
        epoch: crate::start::epoch(),
        lease_ms: u32::try_from(config.lease.stale_after.millis()).unwrap_or(u32::MAX),
        exports: snapshots,
        credentials,
        trust: Trust::new(roots),
    };
    recall(config, world).await?;
    let (out, events) = mpsc::channel(QUEUE);
    let reports = PeerReports {
        started: Instant::now(),
        config: config.clone(),
        states: Arc::default(),
        complaints,
        sites: Arc::default(),
    };
    tasks.loops.spawn(Listener::new(config, world.clone(), heard, reports.sites.clone()).run(events));
    let settings = config.peers.iter().map(|peer| settings(peer, config)).collect();
    let begin = Begin { local, settings, listener, out, states: reports.states.clone() };
    tasks.polite.spawn(begin.run(stop.clone()));
    Ok(Exchange { reports, bundles: believed, status, site: config.site.clone() })
}

/// The exchange, which begins when there is something to show.
struct Begin {
    local: LocalSite,
    settings: Vec<Settings>,
    listener: Option<TcpListener>,
    out: mpsc::Sender<PeerEvent>,
    states: Arc<OnceLock<Vec<watch::Receiver<PeerState>>>>,
}

impl Begin {
    async fn run(self, stop: CancellationToken) -> &'static str {
        let mut shown = self.local.exports.clone();
        tokio::select! {
            () = stop.cancelled() => return "peers",
            something = shown.wait_for(|snapshot| snapshot.revision > 0) => if something.is_err() { return "peers" },
        }
        let names: Vec<_> = self.settings.iter().map(|peer| peer.name.clone()).collect();
        let running = peer::start(self.local, self.settings, self.listener, self.out);
        // Set once, here.
        let _ = self.states.set(names.iter().filter_map(|name| running.watch(name)).collect());
        stop.cancelled().await;
        running.shutdown().await;
        "peers"
    }
}

fn settings(peer: &Peer, config: &Config) -> Settings {
    Settings {
        name: peer.name.clone(),
        dial: peer.address.clone(),
        identity: peer.identity.clone(),
        remit: Remit {
            clusters: peer.remit.clusters.clone(),
            networks: peer.remit.networks.clone(),
            trust_domains: peer.remit.trust_domains.clone(),
        },
        lease: Lease {
            stale_after: config.lease.stale_after.millis(),
            expire_after: config.lease.expire_after.millis(),
        },
    }
}

fn credentials_of(own: &OwnCertificate) -> Credentials {
    Credentials { chain: own.chain.clone(), key: PrivateKeyDer::from(own.key.clone_key()) }
}

async fn follow_credentials(
    mut own: watch::Receiver<Arc<OwnCertificate>>,
    credentials: watch::Sender<Arc<Credentials>>,
) -> &'static str {
    while own.changed().await.is_ok() {
        let next = credentials_of(&own.borrow_and_update());
        credentials.send_replace(Arc::new(next));
    }
    "peer credentials"
}

/// Keeps what peers are shown up to date.
async fn show(
    site: SiteName,
    bundle: peer::Bundle,
    mut exports: watch::Receiver<Option<Arc<Exports>>>,
    mut status: watch::Receiver<Option<Vec<u8>>>,
    shown: watch::Sender<Arc<Snapshot>>,
) -> &'static str {
    loop {
        let Ok(now) = exports.wait_for(Option::is_some).await.map(|now| now.clone().unwrap_or_default()) else {
            return "exports";
        };
        let json = status.borrow_and_update().clone();
        let all = peer::Exports {
            services: now.services.clone(),
            gateways: now.gateways.clone(),
            bundles: vec![bundle.clone()],
            subsets: now.subsets.clone(),
            status: json.map(|json| (site.clone(), json)),
        };
        let next = peer::export_snapshot(&shown.borrow(), &all);
        shown.send_replace(Arc::new(next));
        let alive = tokio::select! {
            alive = exports.changed() => alive.is_ok(),
            alive = status.changed() => alive.is_ok(),
        };
        if !alive {
            return "exports";
        }
    }
}

impl Exchange {
    /// Shows the own status to peers, for as long as it is polled.
    pub fn show_status(self, reporter: Arc<Reporter>) -> impl Future<Output = ()> + Send + 'static {
        let Self { status: shown, site, .. } = self;
        async move {
            let mut last = SiteStatus::default();
            while let Ok(mut status) = reporter.site().await {
                status.proxies.truncate(MOST_LINES);
                status.diagnostics.truncate(MOST_LINES);
                let steady = without_ages(status.clone());
                if steady != last {
                    match serde_json::to_vec(&status) {
                        Ok(json) => drop(shown.send_replace(Some(json))),
                        Err(error) => tracing::debug!(%site, %error, "the status cannot be shown to peers"),
                    }
                    last = steady;
                }
                tokio::time::sleep(SHOW).await;
            }
        }
    }
}

/// A status without what changes all the time.
fn without_ages(mut status: SiteStatus) -> SiteStatus {
    status.uptime_ms = 0;
    status.sources.iter_mut().for_each(|source| source.age_ms = 0);
    status.peers.iter_mut().for_each(|peer| peer.age_ms = 0);
    status.proxies.iter_mut().for_each(|proxy| proxy.age_ms = 0);
    status.certificates.iter_mut().for_each(|certificate| certificate.seconds_left = 0);
    status.trust_domains.iter_mut().for_each(|domain| domain.seconds_left = 0);
    status
}

fn waiting(peer: &Peer) -> PeerStatus {
    PeerStatus {
        name: peer.name.to_string(),
        address: peer.address.clone().unwrap_or_default(),
        state: "connecting".to_owned(),
        reason: "the own sources are still being read".to_owned(),
        ..PeerStatus::default()
    }
}

impl PeerReports {
    /// Every configured peer.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let complaints = self.complaints.borrow();
        let Some(states) = self.states.get() else {
            return self.config.peers.iter().map(waiting).collect();
        };
        let line = |state: &watch::Receiver<PeerState>| {
            let mut status = state.borrow().to_status(self.started, Instant::now());
            if let Some(complaint) = complaints.get(&status.name).filter(|_| status.state != "connected") {
                status.reason = format!("its trust bundle is not in force: {complaint}");
            }
            status
        };
        states.iter().map(line).collect()
    }

    /// What peers say about themselves.
    #[must_use]
    pub fn others(&self) -> Vec<RemoteSiteStatus> {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |at: &Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        sites.values().map(|(status, at)| RemoteSiteStatus { status: status.clone(), age_ms: age(at) }).collect()
    }
}
