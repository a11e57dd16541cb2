//! The xDS client: one aggregated stream, taken up again whenever it breaks.
//!
//! Owns what was received and what is assembled from it. Losing the stream changes nothing but the state it shows:
//! what is in use stays in use. Every resource that cannot be used is refused by name; its neighbours are taken.

use super::{
    store::{Kept, Store},
    stream::{Inbound, Reader, Stream},
};
use crate::{
    args::XdsMode,
    certs::Own,
    control::{Backoff, Remote, RemoteError},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::watch, time::sleep_until};
use tombolo_controlplane_api::{node::SECRET_DEFAULT, xds::envoy::config::core::v3::Node};
use tombolo_federation_sync::Update;
use tombolo_gateway_core::{
    assemble::{Assembly, INIT_TIMEOUT},
    config::Config,
    time::Millis,
    wire::{self, Kind},
};

/// Changes are written to disk at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// A stream that lived this long ends the growth of waits.
const STEADY: Duration = Duration::from_secs(30);

/// What the admin interface and metrics show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// A stream is open and something came over it.
    pub(crate) connected: bool,
    /// When that last changed.
    pub(crate) since: Option<SystemTime>,
    /// Why the last stream ended or could not be opened.
    pub(crate) trouble: Option<String>,
    /// What is in use came from disk and was not yet confirmed by the control plane.
    pub(crate) from_disk: bool,
    /// By kind.
    pub(crate) kinds: BTreeMap<Kind, KindStatus>,
    /// What waits, and for what.
    pub(crate) waiting: Vec<String>,
}

/// One kind of resources.
#[derive(Debug, Clone, Default)]
pub(crate) struct KindStatus {
    /// Responses that were taken.
    pub(crate) accepted: u64,
    /// Responses of which something was refused.
    pub(crate) refused: u64,
    /// The last refusals, by resource.
    pub(crate) reasons: BTreeMap<String, String>,
    /// Resources held.
    pub(crate) held: usize,
}

/// The status, shared with whoever shows it.
pub(crate) type SharedStatus = Arc<Mutex<Status>>;

/// What the client needs.
pub(crate) struct Setup {
    /// Where the control plane is.
    pub(crate) remote: Remote,
    /// Which protocol.
    pub(crate) mode: XdsMode,
    /// Who we say we are.
    pub(crate) node: Node,
    /// Where the last good configuration is kept.
    pub(crate) store: Option<Store>,
    /// Our own certificate.
    pub(crate) own: watch::Receiver<Own>,
    /// Where configurations go.
    pub(crate) out: watch::Sender<Arc<Config>>,
    /// What is shown.
    pub(crate) status: SharedStatus,
}

/// The client.
pub(crate) struct Client {
    setup: Setup,
    reader: Reader,
    assembly: Assembly,
    kept: Kept,
    /// What is kept is newer than what is on disk, since then.
    unsaved: Option<Instant>,
    saving: Option<tokio::task::JoinHandle<()>>,
    origin: Instant,
    /// Why the last stream ended; the same reason is logged once.
    trouble: Option<String>,
}

impl Client {
    /// A client that has nothing yet.
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            reader: Reader::new(setup.mode),
            assembly: Assembly::new(Some(INIT_TIMEOUT)),
            kept: Kept::new(),
            unsaved: None,
            saving: None,
            origin: Instant::now(),
            trouble: None,
            setup,
        }
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.wildcard()) {
            self.reader.subscribe_all(kind.type_url());
        }
        self.take_own();
        self.boot();
        let mut backoff = Self::fresh_backoff();
        loop {
            let begun = Instant::now();
            let error = self.serve_stream().await;
            self.reader.disconnected();
            if begun.elapsed() >= STEADY {
                backoff = Self::fresh_backoff();
            }
            let words = error.to_string();
            if self.trouble.as_ref() != Some(&words) {
                tracing::warn!(control_plane = %self.setup.remote.address, %error, "xds stream ended, serving what is held");
            }
            self.show(|status| {
                status.connected = false;
                status.since = Some(SystemTime::now());
                status.trouble = Some(words.clone());
            });
            self.trouble = Some(words);
            let until = Instant::now() + backoff.wait();
            self.idle_until(until).await;
        }
    }

    fn fresh_backoff() -> Backoff {
        Backoff::new(Duration::from_millis(200), Duration::from_secs(5))
    }

    /// Waits without a stream; our own certificate and clocks go on meanwhile.
    async fn idle_until(&mut self, until: Instant) {
        loop {
            let next = self.next_deadline().min(until);
            tokio::select! {
                changed = self.setup.own.changed() => {
                    if changed.is_err() {
                        sleep_until(until.into()).await;
                        return;
                    }
                    self.take_own();
                }
                () = sleep_until(next.into()) => {}
            }
            self.advance();
            if Instant::now() >= until {
                return;
            }
        }
    }

    async fn serve_stream(&mut self) -> RemoteError {
        let mut stream = match Stream::open(&self.setup.remote, self.setup.mode, self.setup.node.clone()).await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        self.reader.connected();
        let mut own_gone = false;
        loop {
            if let Err(error) = stream.send_all(&mut self.reader).await {
                return error;
            }
            let next = self.next_deadline();
            tokio::select! {
                message = stream.next() => match message {
                    Ok(message) => self.take(message),
                    Err(error) => return error,
                },
                changed = self.setup.own.changed(), if !own_gone => match changed {
                    Ok(()) => self.take_own(),
                    Err(_) => own_gone = true,
                },
                () = sleep_until(next.into()) => {}
            }
            self.advance();
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When something is to be done although nothing arrives.
    fn next_deadline(&self) -> Instant {
        let assembly =
            self.assembly.deadline().map(|at| self.origin + Duration::from_millis(at.0) + Duration::from_millis(1));
        let save = self.unsaved.map(|since| since + SAVE_EVERY);
        let far = Instant::now() + Duration::from_secs(3600);
        assembly.into_iter().chain(save).fold(far, Instant::min)
    }

    fn take_own(&mut self) {
        let secret = self.setup.own.borrow_and_update().secret.clone();
        if let Some(secret) = secret {
            self.assembly.put_own_secret(SECRET_DEFAULT.into(), secret);
        }
    }

    fn take(&mut self, message: Inbound) {
        self.trouble = None;
        let (update, strangers) = self.reader.on_response(message);
        let refused = self.apply(&update, strangers);
        self.reader.answer(&update, &refused);
        let Some(kind) = Kind::parse(&update.type_url) else { return };
        for (name, reason) in &refused {
            tracing::warn!(kind = ?kind, resource = %name, %reason, "resource refused");
        }
        let held = self.reader.held(kind.type_url());
        self.show(|status| {
            status.connected = true;
            status.from_disk = false;
            status.trouble = None;
            let of_kind = status.kinds.entry(kind).or_default();
            of_kind.held = held;
            if refused.is_empty() {
                of_kind.accepted += 1;
                for resource in &update.changed {
                    of_kind.reasons.remove(&*resource.name);
                }
            } else {
                of_kind.refused += 1;
                of_kind.reasons = refused;
            }
        });
    }

    /// Takes in what can be used; returns what cannot, with reasons.
    fn apply(&mut self, update: &Update, strangers: Vec<(String, String)>) -> BTreeMap<String, String> {
        let mut refused: BTreeMap<String, String> = strangers.into_iter().collect();
        let Some(kind) = Kind::parse(&update.type_url) else { return refused };
        for resource in &update.changed {
            match wire::decode(kind, &resource.name, &resource.body) {
                Ok(decoded) => {
                    self.assembly.put(decoded);
                    let of_kind = self.kept.entry(update.type_url.clone()).or_default();
                    of_kind.insert(resource.name.clone(), resource.clone());
                }
                Err(refusal) => {
                    // The name is said by whoever lists the refusals.
                    refused.insert(resource.name.to_string(), format!("{}: {}", refusal.field, refusal.reason));
                }
            }
        }
        for name in &update.removed {
            self.assembly.remove(kind, name);
            if let Some(of_kind) = self.kept.get_mut(&update.type_url) {
                of_kind.remove(name);
            }
        }
        self.assembly.complete(kind);
        if !update.changed.is_empty() || !update.removed.is_empty() {
            self.unsaved.get_or_insert_with(Instant::now);
        }
        refused
    }

    /// Moves what is ready into use, adjusts the subscription, writes to disk when that is due.
    fn advance(&mut self) {
        let now = self.now();
        if let Some(config) = self.assembly.step(now) {
            tracing::debug!(
                generation = config.generation,
                listeners = config.listeners.len(),
                clusters = config.clusters.len(),
                "configuration changed"
            );
            self.setup.out.send_replace(config);
        }
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.wildcard()) {
            if let Some(change) = self.assembly.take_wanted(kind) {
                self.reader.subscribe_to(kind.type_url(), &self.assembly.wanted(kind));
                if let Some(of_kind) = self.kept.get_mut(kind.type_url()) {
                    of_kind.retain(|name, _| !change.removed.contains(&**name));
                }
            }
        }
        let waiting = self.assembly.waiting();
        self.show(|status| {
            status.waiting =
                waiting.iter().map(|w| format!("{:?} {:?} waits for {}", w.kind, w.name, w.missing)).collect()
        });
        self.save_if_due();
    }

    fn save_if_due(&mut self) {
        let due = self.unsaved.is_some_and(|since| since.elapsed() >= SAVE_EVERY);
        let busy = self.saving.as_ref().is_some_and(|task| !task.is_finished());
        let Some(store) = self.setup.store.clone().filter(|_| due && !busy) else {
            if self.setup.store.is_none() {
                self.unsaved = None;
            } else if due && busy {
                self.unsaved = Some(Instant::now());
            }
            return;
        };
        self.unsaved = None;
        let kept = self.kept.clone();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = store.save(&kept) {
                tracing::warn!(%error, "last good configuration not saved");
            }
        }));
    }

    /// Takes up what an earlier process kept on disk. It serves until the control plane says otherwise.
    fn boot(&mut self) {
        let kept = match self.setup.store.as_ref().map(Store::load) {
            Some(Ok(Some(kept))) => kept,
            Some(Err(error)) => {
                tracing::warn!(%error, "last good configuration not read");
                return self.advance();
            }
            Some(Ok(None)) | None => return self.advance(),
        };
        for kind in Kind::ALL {
            let of_kind = kept.get(kind.type_url()).into_iter().flat_map(BTreeMap::values);
            for resource in of_kind {
                match wire::decode(kind, &resource.name, &resource.body) {
                    Ok(decoded) => self.assembly.put(decoded),
                    Err(refusal) => tracing::warn!(resource = %resource.name, %refusal, "saved resource refused"),
                }
            }
            self.assembly.complete(kind);
            if !kind.wildcard() {
                self.reader.subscribe_to(kind.type_url(), &self.assembly.wanted(kind));
            }
            let versions =
                kept.get(kind.type_url()).into_iter().flatten().map(|(name, r)| (name.clone(), r.version.clone()));
            self.reader.restore(kind.type_url(), versions.collect());
        }
        self.kept = kept;
        self.show(|status| status.from_disk = true);
        tracing::info!("serving the last good configuration until the control plane answers");
        self.advance();
    }

    fn show(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.setup.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
