//! The xDS client: one aggregated stream, taken up again whenever it breaks.
//!
//! Owns what was received and what is assembled from it. Losing the stream changes nothing but the state it shows:
//! what is in use stays in use. Every resource that cannot be used is refused by name; its neighbours are taken.

use super::{
    ask::Ask,
    lives::Lives,
    shelves::{Refused, SharedShelves, Shelves},
    store::Store,
    stream::{Inbound, Reader, Stream},
    wire::Beside,
};
use crate::{
    args::XdsMode,
    certs::Own,
    control::{Backoff, Remote, RemoteError},
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};
use tombolo_controlplane_api::{
    node::SECRET_DEFAULT,
    xds::envoy::config::{core::v3::Node, endpoint::v3::ClusterLoadAssignment},
};
use tombolo_federation_sync::Update;
use tombolo_gateway_core::{
    assemble::{Assembly, INIT_TIMEOUT, Waiting},
    config::{Config, Value},
    time::Millis,
    wire::{self, Kind, Resource},
};

/// Changes are written to disk at most this often, …
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// … and so seldom that writing takes no more than this part of the time, because the file is written whole, …
const SAVING_SHARE: u32 = 50;
/// … but at least this often.
const SAVE_AT_LEAST: Duration = Duration::from_secs(5);
/// A stream that lived this long ends the growth of waits.
const STEADY: Duration = Duration::from_secs(30);

/// Virtual hosts that requests may have asked for; more are answered as if there were none.
const MOST_ON_DEMAND: usize = 10_000;

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
    pub(crate) waiting: Vec<Waiting>,
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
    /// What came, as it came.
    pub(crate) shelves: SharedShelves,
    /// Runtime layers to subscribe to, in the order in which they count.
    pub(crate) layers: Vec<Arc<str>>,
    /// What others ask.
    pub(crate) asked: mpsc::Receiver<Ask>,
}

/// The client.
pub(crate) struct Client {
    setup: Setup,
    reader: Reader,
    assembly: Assembly,
    sharing: wire::Sharing,
    lives: Lives,
    /// Requests that wait for a virtual host, by the name of its resource.
    pending: BTreeMap<String, Vec<oneshot::Sender<u64>>>,
    /// Those to be told when what was just taken in is in use.
    settled: Vec<oneshot::Sender<u64>>,
    /// Names that were asked for and are not known to be of nobody.
    on_demand: BTreeSet<String>,
    /// The administrator's runtime values.
    overrides: BTreeMap<String, String>,
    generation: u64,
    /// What is kept is newer than what is on disk, since then.
    unsaved: Option<Instant>,
    saving: Option<tokio::task::JoinHandle<()>>,
    /// How many microseconds the last time took.
    save_took: Arc<AtomicU64>,
    origin: Instant,
    /// Why the last stream ended; the same reason is logged once.
    trouble: Option<String>,
}

/// What woke the client up.
enum Woken {
    Message(Result<Inbound, RemoteError>),
    Own(bool),
    Asked(Option<Ask>),
    Clock,
}

impl Client {
    /// A client that has nothing yet.
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            reader: Reader::new(setup.mode),
            assembly: Assembly::new(Some(INIT_TIMEOUT)),
            sharing: wire::Sharing::default(),
            lives: Lives::default(),
            pending: BTreeMap::new(),
            settled: Vec::new(),
            on_demand: BTreeSet::new(),
            overrides: BTreeMap::new(),
            generation: 0,
            unsaved: None,
            saving: None,
            save_took: Arc::default(),
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
        self.assembly.use_layers(self.setup.layers.clone());
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
            // Nobody can answer these now.
            self.pending.clear();
            let until = Instant::now() + backoff.wait();
            self.idle_until(until).await;
        }
    }

    fn fresh_backoff() -> Backoff {
        Backoff::new(Duration::from_millis(200), Duration::from_secs(5))
    }

    /// Waits without a stream; our own certificate, questions and clocks go on meanwhile.
    async fn idle_until(&mut self, until: Instant) {
        while Instant::now() < until {
            let next = self.next_deadline().min(until);
            let woken = self.wait(None, next).await;
            self.react(woken);
        }
    }

    async fn wait(&mut self, stream: Option<&mut Stream>, next: Instant) -> Woken {
        let message = async {
            match stream {
                Some(stream) => stream.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = message => Woken::Message(message),
            changed = self.setup.own.changed(), if self.setup.own.has_changed().is_ok() => Woken::Own(changed.is_ok()),
            asked = self.setup.asked.recv(), if !self.setup.asked.is_closed() => Woken::Asked(asked),
            () = sleep_until(next.into()) => Woken::Clock,
        }
    }

    /// Does what is to be done; a message is taken in by who has the stream.
    fn react(&mut self, woken: Woken) -> Option<RemoteError> {
        match woken {
            Woken::Message(Ok(message)) => {
                self.take(message);
                return None;
            }
            Woken::Message(Err(error)) => return Some(error),
            Woken::Own(true) => self.take_own(),
            Woken::Asked(Some(ask)) => self.answer_to(ask),
            Woken::Own(false) | Woken::Asked(None) | Woken::Clock => {}
        }
        self.advance();
        None
    }

    async fn serve_stream(&mut self) -> RemoteError {
        let mut stream = match Stream::open(&self.setup.remote, self.setup.mode, self.setup.node.clone()).await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        self.reader.connected();
        loop {
            if let Err(error) = stream.send_all(&mut self.reader).await {
                return error;
            }
            let next = self.next_deadline();
            let woken = self.wait(Some(&mut stream), next).await;
            if let Some(error) = self.react(woken) {
                return error;
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When something is to be done although nothing arrives.
    fn next_deadline(&self) -> Instant {
        let assembly =
            self.assembly.deadline().map(|at| self.origin + Duration::from_millis(at.0) + Duration::from_millis(1));
        let save = self.unsaved.map(|since| since + self.save_every());
        let far = Instant::now() + Duration::from_secs(3600);
        assembly.into_iter().chain(save).chain(self.lives.next()).fold(far, Instant::min)
    }

    fn take_own(&mut self) {
        let secret = self.setup.own.borrow_and_update().secret.clone();
        if let Some(secret) = secret {
            self.assembly.put_own_secret(SECRET_DEFAULT.into(), secret);
        }
    }

    fn answer_to(&mut self, ask: Ask) {
        match ask {
            Ask::Host(name, done) => {
                if self.on_demand.len() >= MOST_ON_DEMAND && !self.on_demand.contains(&name) {
                    let _ = done.send(self.generation);
                    return;
                }
                if !self.pending.contains_key(&name) {
                    self.on_demand.insert(name.clone());
                    self.reader.ask(Kind::Host.type_url(), &name);
                }
                self.pending.entry(name).or_default().push(done);
            }
            Ask::Runtime(values) => {
                for (key, text) in values {
                    if text.is_empty() {
                        drop(self.overrides.remove(&key))
                    } else {
                        drop(self.overrides.insert(key, text))
                    }
                }
                let values = self.overrides.iter().map(|(key, text)| (Arc::from(key.as_str()), told(text)));
                self.assembly.override_runtime(Arc::new(Value::Map(Arc::new(values.collect()))));
            }
        }
    }

    fn take(&mut self, message: Inbound) {
        self.trouble = None;
        let (update, beside) = self.reader.on_response(message);
        let refused = self.apply(&update, beside);
        // As in Envoy: what the update refers to is asked for before the update is acknowledged.
        self.advance();
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
    fn apply(&mut self, update: &Update, beside: Beside) -> BTreeMap<String, String> {
        let mut refused: BTreeMap<String, String> = beside.strangers.into_iter().collect();
        let Some(kind) = Kind::parse(&update.type_url) else { return refused };
        let now = SystemTime::now();
        let shelves = self.setup.shelves.clone();
        let mut shelves = shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.version(kind, &update.version);
        for resource in &update.changed {
            match self.decode(kind, resource, &shelves) {
                Ok(decoded) => {
                    self.assembly.put(decoded);
                    shelves.put(kind, resource.clone(), now);
                }
                Err(reason) => {
                    let version = resource.version.clone();
                    let told = Refused { reason: reason.clone(), at: now, version, resource: Some(resource.clone()) };
                    shelves.refuse(kind, &resource.name, told);
                    refused.insert(resource.name.to_string(), reason);
                }
            }
        }
        // What the control plane no longer has is kept while something refers to it, but a filter that is gone lets nothing pass.
        let gone = update.removed.iter().chain(update.missing.iter().filter(|_| kind == Kind::Extension));
        for name in gone {
            self.assembly.remove(kind, name);
            shelves.remove(kind, name);
            // Otherwise the same version would not come again.
            self.reader.drop_held(kind.type_url(), name);
        }
        drop(shelves);
        self.go_without(kind, &update.missing);
        let moment = Instant::now();
        for (name, ttl) in beside.lives.iter().filter(|(name, _)| !refused.contains_key(&**name)) {
            self.lives.set(kind, name, *ttl, moment);
        }
        self.settle(kind, &beside.told, &update.removed);
        self.assembly.complete(kind);
        if !update.changed.is_empty() || !update.removed.is_empty() {
            self.unsaved.get_or_insert_with(Instant::now);
        }
        refused
    }

    /// Endpoints that the control plane says are not there are none: whoever waits for them goes on without. Those that were
    /// there before serve on.
    fn go_without(&mut self, kind: Kind, missing: &[Arc<str>]) {
        for name in missing.iter().filter(|_| kind == Kind::Load) {
            if self.assembly.has_endpoints(name) {
                continue;
            }
            let none = ClusterLoadAssignment { cluster_name: name.to_string(), ..Default::default() };
            if let Ok(decoded) = wire::decode(kind, name, &none.encode_to_vec()) {
                self.assembly.put(decoded);
            }
        }
    }

    fn decode(
        &mut self,
        kind: Kind,
        resource: &tombolo_federation_sync::Resource,
        kept: &Shelves,
    ) -> Result<Resource, String> {
        if let Some(reason) = kept.full(kind, resource) {
            return Err(reason);
        }
        // The name is said by whoever lists the refusals.
        let before = kept.of(kind).filter(|_| kind == Kind::Routes).and_then(|shelf| shelf.kept.get(&resource.name));
        let earlier = before.and_then(|before| {
            let table = self.assembly.newest_routes(&resource.name)?.clone();
            Some(wire::Earlier { body: &before.resource.body, table })
        });
        let mut decoded = wire::decode_after(kind, &resource.name, &resource.body, earlier.as_ref())
            .map_err(|refusal| format!("{}: {}", refusal.field, refusal.reason))?;
        self.sharing.share(&mut decoded);
        if let Resource::Routes(table) = &decoded
            && table.more_hosts.is_some()
            && self.setup.mode == XdsMode::Sotw
        {
            return Err("vhds: virtual hosts come one by one only by the delta protocol".to_owned());
        }
        self.assembly.admits(&decoded)?;
        Ok(decoded)
    }

    /// Whoever waits for these virtual hosts is told when what was taken in is in use. All that a response names is settled, not
    /// only what is new in it: who asks again for what is known, or for what is not there, gets the same answer again.
    fn settle(&mut self, kind: Kind, told: &[Arc<str>], gone: &[Arc<str>]) {
        if kind != Kind::Host {
            return;
        }
        for name in told {
            self.settled.extend(self.pending.remove(&**name).into_iter().flatten());
        }
        for name in gone {
            self.on_demand.remove(&**name);
            self.reader.rename(kind.type_url(), name, None);
        }
    }

    /// Drops what was not renewed in time. As in Envoy, what others refer to stays.
    fn end_lives(&mut self) {
        for (kind, name) in self.lives.ended(Instant::now()) {
            if matches!(kind, Kind::Cluster | Kind::Listener | Kind::Scope | Kind::Host) {
                tracing::warn!(kind = ?kind, resource = %name, "not renewed in time, dropped");
                self.assembly.remove(kind, &name);
                self.setup.shelves.lock().unwrap_or_else(PoisonError::into_inner).remove(kind, &name);
                self.unsaved.get_or_insert_with(Instant::now);
            }
            self.reader.drop_held(kind.type_url(), &name);
        }
    }

    /// Moves what is ready into use, adjusts the subscription, writes to disk when that is due.
    fn advance(&mut self) {
        self.end_lives();
        let now = self.now();
        if let Some(config) = self.assembly.step(now) {
            tracing::debug!(
                generation = config.generation,
                listeners = config.listeners.len(),
                clusters = config.clusters.len(),
                "configuration changed"
            );
            self.generation = config.generation;
            self.setup.out.send_replace(config);
        }
        for asker in self.settled.drain(..) {
            let _ = asker.send(self.generation);
        }
        self.amend();
        let waiting = self.assembly.waiting();
        self.show(|status| status.waiting = waiting);
        self.save_if_due();
    }

    /// Asks for what is referred to now and no longer for what is not.
    fn amend(&mut self) {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.wildcard()) {
            // Virtual hosts one by one are unknown to the other variant.
            let possible = kind != Kind::Host || self.setup.mode == XdsMode::Delta;
            if self.assembly.wants_all(kind) && possible {
                self.reader.subscribe_all(kind.type_url());
            }
            if let Some(change) = self.assembly.take_wanted(kind) {
                self.reader.amend(kind.type_url(), &change.added, &change.removed);
                let mut shelves = self.setup.shelves.lock().unwrap_or_else(PoisonError::into_inner);
                change.removed.iter().for_each(|name| shelves.remove(kind, name));
            }
        }
    }

    fn save_if_due(&mut self) {
        let due = self.unsaved.is_some_and(|since| since.elapsed() >= self.save_every());
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
        let kept = self.setup.shelves.lock().unwrap_or_else(PoisonError::into_inner).to_save();
        let took = self.save_took.clone();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            if let Err(error) = store.save(&kept) {
                tracing::warn!(%error, "last good configuration not saved");
            }
            took.store(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }));
    }

    fn save_every(&self) -> Duration {
        let took = Duration::from_micros(self.save_took.load(Ordering::Relaxed));
        took.saturating_mul(SAVING_SHARE).clamp(SAVE_EVERY, SAVE_AT_LEAST)
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
        let now = SystemTime::now();
        for kind in Kind::ALL {
            let mut versions = Vec::new();
            for resource in kept.get(kind.type_url()).into_iter().flat_map(BTreeMap::values) {
                let shelves = self.setup.shelves.clone();
                let mut shelves = shelves.lock().unwrap_or_else(PoisonError::into_inner);
                match self.decode(kind, resource, &shelves) {
                    Ok(decoded) => {
                        self.assembly.put(decoded);
                        shelves.put(kind, resource.clone(), now);
                        versions.push((resource.name.clone(), resource.version.clone()));
                    }
                    Err(reason) => tracing::warn!(resource = %resource.name, %reason, "saved resource refused"),
                }
            }
            self.assembly.complete(kind);
            self.amend();
            self.reader.restore(kind.type_url(), versions);
        }
        self.show(|status| status.from_disk = true);
        tracing::info!("serving the last good configuration until the control plane answers");
        self.advance();
    }

    fn show(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.setup.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A runtime value from a text: a truth value, a number, or the text.
fn told(text: &str) -> Value {
    match (text.parse::<bool>(), text.parse::<f64>()) {
        (Ok(truth), _) => Value::Bool(truth),
        (_, Ok(number)) => Value::Number(number),
        _ => Value::Text(text.into()),
    }
}
