//! The exchange with other control planes: what they are shown, what they say, and whose certificates are believed.
//!
//! Owns the wiring only: sessions and remits are the peer crate's, the meaning of what peers say is the engine's. A root that
//! a peer shows counts for the trust domains of its remit and no other.

use crate::{
    ca::{Authority, OwnCertificate, OwnIdentity, unix_seconds},
    config::{Config, Peer},
    start::Tasks,
    status::Reporter,
    store::{self, Restored, Save, Store},
    trust::{self, Bundle, BundleFile, Bundles},
    world::{Ended, World},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tombolo_controlplane_api::status::{PeerStatus, RemoteSiteStatus, SiteStatus};
use tombolo_controlplane_core::{Exports, Input};
use tombolo_federation_model::{SiteName, TrustDomain};
use tombolo_federation_peer::{
    self as peer, Credentials, LocalSite, PeerEvent, PeerState, Remit, Settings, Trust, TrustMap,
};
use tombolo_federation_registry::Lease;
use tombolo_federation_sync::Snapshot;

/// How often bundle files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Events of peers that wait; a peer that finds no room is not read.
const QUEUE: usize = 256;
/// How often the own status is shown to peers, when it changed.
const SHOW: Duration = Duration::from_secs(3);
/// How often what peers said is written down, when it changed.
const SAVE: Duration = Duration::from_secs(2);
/// Folder of it, in the state folder.
const SHARES: &str = "peers";
/// Folder of the roots that peers showed, in the state folder.
const SHOWN: &str = "bundles";
/// A peer's status that is larger than this is not kept.
const LARGEST_STATUS: usize = 4 << 20;
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
    sites: Arc<Mutex<BTreeMap<SiteName, (SiteStatus, Instant)>>>,
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
    let store = Store::new(config.state.join(SHARES));
    let listener_of_events = Listener { world: world.clone(), heard, sites: reports.sites.clone(), store };
    tasks.loops.spawn(listener_of_events.run(events));
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

/// Tells the engine what peers said before this process began.
async fn recall(config: &Config, world: &World) -> anyhow::Result<()> {
    for Restored { inputs, age } in store::restore(&config.state.join(SHARES), config, SystemTime::now()) {
        world.recall(inputs, age).await?;
    }
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

/// What a peer shows of a trust domain.
struct Heard {
    peer: SiteName,
    domain: TrustDomain,
    roots: Vec<Vec<u8>>,
}

/// Passes on what peers say, and remembers it.
struct Listener {
    world: World,
    heard: mpsc::Sender<Heard>,
    sites: Arc<Mutex<BTreeMap<SiteName, (SiteStatus, Instant)>>>,
    store: Store,
}

impl Listener {
    async fn run(mut self, mut events: mpsc::Receiver<PeerEvent>) -> &'static str {
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

/// Decides which roots are believed: files bootstrap trust in a peer, and what the peer then shows of its own domains
/// follows its rotations. Both count until the file is brought up to date, so that a rotation cuts nobody off.
struct Keeper {
    /// Where roots that peers showed are remembered.
    folder: PathBuf,
    files: Vec<(String, BundleFile)>,
    fixed: Bundles,
    shown: Bundles,
    bundles: watch::Sender<Arc<Bundles>>,
    roots: watch::Sender<Arc<TrustMap>>,
    complaints: watch::Sender<BTreeMap<String, String>>,
    world: World,
}

impl Keeper {
    fn new(config: &Config, own: Bundles, world: World) -> (Self, watch::Receiver<Arc<Bundles>>) {
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

    async fn run(mut self, mut hearsay: mpsc::Receiver<Heard>) -> &'static str {
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

    fn poll(&mut self) {
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

    async fn publish(&mut self) -> Result<(), Ended> {
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
