//! The world: one thread that owns the engine, and everybody else's way to it.
//!
//! Owns time for the engine (a monotonic clock since start), the batching of changes and the publishing of what came out,
//! latest wins. Never computes configuration itself, and never waits for anybody who reads it.

use crate::metrics::Metrics;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};
use tombolo_controlplane_core::{Engine, Exports, Input, Proxy, ProxyId, SiteSettings};
use tombolo_federation_model::Diagnostic;
use tombolo_federation_registry::{Event, Millis, ShardId, ShardStatus, Totals};
use tombolo_federation_sync::Snapshot;

/// Messages that may wait; a source that finds no room stops reading.
const QUEUE: usize = 1024;
/// Shortest time between two publishes, so that a burst of changes is one.
const FLOOR: Duration = Duration::from_millis(20);
/// How often leases are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The engine's clock at start, in milliseconds: a year, so that what was heard earlier has a time too.
const BEGINNING: u64 = 365 * 86_400 * 1000;

/// What a proxy is told, and since when.
#[derive(Debug, Clone)]
pub struct Published {
    /// Everything at one moment.
    pub snapshot: Arc<Snapshot>,
    /// When it was published.
    pub at: Instant,
}

/// The world has ended: the daemon is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the control plane is stopping")]
pub struct Ended;

/// What status needs of the engine, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Every shard.
    pub shards: Vec<ShardStatus>,
    /// Sums over the merged view.
    pub totals: Totals,
    /// Complaints of binding, translation and merging.
    pub diagnostics: Vec<Diagnostic>,
}

enum Message {
    Tell(Vec<Input>),
    /// As if it had been told so long ago.
    Recall(Vec<Input>, Duration),
    Attach(Box<Proxy>, oneshot::Sender<Attachment>),
    Tick,
    Summary(oneshot::Sender<Summary>),
    Registry(oneshot::Sender<serde_json::Value>),
    Config(String, oneshot::Sender<Option<Published>>),
    Stop,
}

/// A way to the world; cheap to clone.
#[derive(Clone)]
pub struct World {
    sender: mpsc::Sender<Message>,
}

/// A proxy's seat: as long as it is held, the engine computes for this proxy.
pub struct Attachment(watch::Receiver<Option<Published>>);

impl Attachment {
    /// What the proxy is to be told; `None` until it was computed for the first time.
    pub fn newest(&mut self) -> Option<Published> {
        self.0.borrow_and_update().clone()
    }

    /// Waits for something newer than what was last looked at; false when there will be nothing any more.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl World {
    /// Starts the thread. What peers may see goes to `exports` whenever it changed, first when the own sources have been
    /// read: a peer must not take "not read yet" for "gone".
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        settings: SiteSettings,
        metrics: Arc<Metrics>,
        exports: watch::Sender<Option<Arc<Exports>>>,
    ) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let keeper = Keeper {
            engine: Engine::new(settings),
            start: Instant::now(),
            seats: BTreeMap::new(),
            unread: BTreeSet::new(),
            logged: Vec::new(),
            metrics,
            exports,
        };
        let thread = thread::Builder::new().name("world".to_owned()).spawn(move || keeper.run(receiver))?;
        Ok((Self { sender }, thread))
    }

    /// Tells the engine; waits while it is too busy to listen. What is told at once takes effect at once.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn tell(&self, inputs: Vec<Input>) -> Result<(), Ended> {
        self.sender.send(Message::Tell(inputs)).await.map_err(|_| Ended)
    }

    /// Tells the engine what was known before this process began, and how long ago it was heard.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn recall(&self, inputs: Vec<Input>, age: Duration) -> Result<(), Ended> {
        self.sender.send(Message::Recall(inputs, age)).await.map_err(|_| Ended)
    }

    /// Gives a proxy a seat. One that has it already, because it reconnected, shares it.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn attach(&self, proxy: Proxy) -> Result<Attachment, Ended> {
        self.ask(|answer| Message::Attach(Box::new(proxy), answer)).await
    }

    /// What status needs.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn summary(&self) -> Result<Summary, Ended> {
        self.ask(Message::Summary).await
    }

    /// The merged registry as JSON, for a person.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn registry(&self) -> Result<serde_json::Value, Ended> {
        self.ask(Message::Registry).await
    }

    /// What a proxy is told, by node id; `None` when it has no seat.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn config(&self, proxy: String) -> Result<Option<Published>, Ended> {
        self.ask(|answer| Message::Config(proxy, answer)).await
    }

    /// Looks at leases regularly, for as long as it is polled.
    pub async fn tick(self) {
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            // A full queue means that the engine is about to look at the time anyway.
            if let Err(mpsc::error::TrySendError::Closed(_)) = self.sender.try_send(Message::Tick) {
                return;
            }
        }
    }

    /// Ends the thread after what was told before.
    pub async fn stop(&self) {
        let _ = self.sender.send(Message::Stop).await;
    }

    /// Returns when the thread has ended, for whatever reason.
    pub async fn ended(&self) {
        self.sender.closed().await;
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Ended> {
        let (answer, answered) = oneshot::channel();
        self.sender.send(message(answer)).await.map_err(|_| Ended)?;
        answered.await.map_err(|_| Ended)
    }
}

struct Seat {
    id: ProxyId,
    proxy: Proxy,
    published: watch::Sender<Option<Published>>,
}

/// The thread's state.
struct Keeper {
    engine: Engine,
    start: Instant,
    /// By node id.
    seats: BTreeMap<String, Seat>,
    /// Own shards whose first listing is not complete. Until then nothing is published: a proxy that reconnects to a
    /// control plane which has just started must not take "not read yet" for "gone".
    unread: BTreeSet<ShardId>,
    logged: Vec<Diagnostic>,
    metrics: Arc<Metrics>,
    exports: watch::Sender<Option<Arc<Exports>>>,
}

impl Keeper {
    fn run(mut self, mut receiver: mpsc::Receiver<Message>) {
        let mut last = Instant::now().checked_sub(FLOOR).unwrap_or_else(Instant::now);
        while let Some(first) = receiver.blocking_recv() {
            if changes(&first) {
                thread::sleep(FLOOR.saturating_sub(last.elapsed()));
            }
            let mut told = 0;
            let mut next = Some(first);
            let mut room = QUEUE;
            let began = Instant::now();
            while let Some(message) = next {
                match self.take(message) {
                    Some(inputs) => told += inputs,
                    None => return,
                }
                // A source that never pauses must not keep everybody from seeing what it said before.
                room = room.saturating_sub(1);
                next = if room > 0 { receiver.try_recv().ok() } else { None };
            }
            if self.publish() || told > 0 {
                self.metrics.batch(told, began.elapsed());
                last = Instant::now();
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(BEGINNING.saturating_add(millis(self.start.elapsed())))
    }

    /// Takes one message; `None` at the end, else how many inputs it had.
    fn take(&mut self, message: Message) -> Option<u64> {
        let mut told = 0;
        // An answer that nobody waits for any more is dropped.
        match message {
            Message::Tell(inputs) => {
                let now = self.now();
                told = inputs.len() as u64;
                for input in inputs {
                    self.note(&input);
                    self.engine.apply(input, now);
                }
            }
            Message::Recall(inputs, age) => {
                let then = Millis(self.now().0.saturating_sub(millis(age)));
                told = inputs.len() as u64;
                inputs.into_iter().for_each(|input| self.engine.apply(input, then));
            }
            Message::Attach(proxy, answer) => drop(answer.send(self.attach(*proxy))),
            Message::Tick => self.vacate(),
            Message::Summary(answer) => drop(answer.send(self.summary())),
            Message::Registry(answer) => drop(answer.send(crate::debug::registry(self.engine.registry()))),
            Message::Config(proxy, answer) => {
                drop(answer.send(self.seats.get(&proxy).and_then(|seat| seat.published.borrow().clone())));
            }
            Message::Stop => return None,
        }
        Some(told)
    }

    fn note(&mut self, input: &Input) {
        match input {
            Input::Declare(shard, settings) if settings.own => drop(self.unread.insert(shard.clone())),
            Input::Registry(Event::Complete { shard, .. } | Event::Withdraw { shard }) => {
                self.unread.remove(shard);
            }
            Input::Declare(..)
            | Input::Registry(_)
            | Input::Intent(_)
            | Input::Bundles(_)
            | Input::RemoteSubsets { .. } => {}
        }
    }

    fn attach(&mut self, proxy: Proxy) -> Attachment {
        if let Some(seat) = self.seats.get(&proxy.id).filter(|seat| seat.proxy == proxy) {
            return Attachment(seat.published.subscribe());
        }
        if let Some(other) = self.seats.remove(&proxy.id) {
            self.engine.detach(other.id);
        }
        let id = self.engine.attach(proxy.clone());
        let (published, receiver) = watch::channel(None);
        self.seats.insert(proxy.id.clone(), Seat { id, proxy, published });
        Attachment(receiver)
    }

    /// Frees the seats of proxies that are gone. A proxy that reconnects at once finds its seat as it was.
    fn vacate(&mut self) {
        let gone = self.seats.extract_if(.., |_, seat| seat.published.is_closed());
        gone.for_each(|(_, seat)| self.engine.detach(seat.id));
    }

    /// Computes what changed and shows it; true when anything did.
    fn publish(&mut self) -> bool {
        let step = self.engine.step(self.now());
        let at = Instant::now();
        for seat in self.seats.values().filter(|_| self.unread.is_empty()) {
            // A seat that was never shown anything may have been computed while own sources were still being read.
            let owed = step.changed.contains(&seat.id) || seat.published.borrow().is_none();
            if let Some(snapshot) = owed.then(|| self.engine.snapshot(seat.id)).flatten() {
                seat.published.send_replace(Some(Published { snapshot, at }));
            }
        }
        if self.unread.is_empty() && (step.exports_changed || self.exports.borrow().is_none()) {
            self.exports.send_replace(Some(Arc::new(self.engine.exports())));
        }
        if step.diagnostics_changed {
            let now = self.engine.diagnostics();
            now.iter().filter(|diagnostic| !self.logged.contains(diagnostic)).for_each(crate::sources::log);
            self.logged = now;
        }
        self.metrics.computed(step.computed);
        !step.changed.is_empty()
    }

    fn summary(&self) -> Summary {
        let registry = self.engine.registry();
        Summary {
            shards: registry.shards(self.now()),
            totals: registry.totals(),
            diagnostics: self.engine.diagnostics(),
        }
    }
}

fn changes(message: &Message) -> bool {
    matches!(message, Message::Tell(_) | Message::Recall(..) | Message::Attach(..) | Message::Tick)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl World {
    /// A world without an engine: every proxy is told what the sender holds.
    pub(crate) fn showing(published: watch::Receiver<Option<Published>>) -> Self {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some(message) = receiver.recv().await {
                if let Message::Attach(_, answer) = message {
                    let _ = answer.send(Attachment(published.clone()));
                }
            }
        });
        Self { sender }
    }

    /// A world without an engine that repeats what it is told.
    pub(crate) fn hearing() -> (Self, mpsc::Receiver<Vec<Input>>) {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let (repeat, told) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some(message) = receiver.recv().await {
                if let Message::Tell(inputs) = message
                    && repeat.send(inputs).await.is_err()
                {
                    return;
                }
            }
        });
        (Self { sender }, told)
    }
}
