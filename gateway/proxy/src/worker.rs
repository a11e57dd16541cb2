//! One worker: a thread with a runtime, listeners, pools and counters of its own.
//!
//! Owns everything that the hot path touches, so that nothing there is shared or locked. Follows the newest
//! configuration; each request pins the one it began with.

use crate::{
    clock,
    drain::Drain,
    http::{Logs, timer::Timers},
    listen::Listeners,
    net::bound::Bound,
    telemetry::{
        labels::Labels,
        proc,
        series::Tables,
        sink::{Feed, Lines},
    },
    tls::context::TlsStore,
    upstream::{
        cluster::{Cluster, Surroundings},
        keeper::{Live, Suspect},
        pool::Watch,
        resolver::Resolver,
    },
};
use ahash::AHashMap;
use std::{
    cell::{Cell, RefCell},
    io,
    net::IpAddr,
    ops::Deref,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tombolo_gateway_core::{format::Environment, request::Node, time::Millis};

/// Idle connections are looked at this often.
const SWEEP: Duration = Duration::from_secs(1);

/// What a worker is given.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Configurations with their upstreams.
    pub(crate) live: watch::Receiver<Arc<Live>>,
    /// Where suspicious endpoints are reported.
    pub(crate) suspects: mpsc::Sender<Suspect>,
    /// TLS contexts.
    pub(crate) tls: Arc<TlsStore>,
    /// Listening sockets.
    pub(crate) bound: Arc<Bound>,
    /// UDP sockets.
    pub(crate) udp: Arc<crate::quic::Udp>,
    /// The process' own numbers.
    pub(crate) own: Arc<proc::Own>,
    /// Where access log lines go.
    pub(crate) feed: Feed,
    /// The process' drain.
    pub(crate) drain: Drain,
    /// What the gateway is to others.
    pub(crate) node: Arc<Node>,
    /// The machine that it runs on.
    pub(crate) machine: Arc<Machine>,
    /// What telemetry says of the workload beside it.
    pub(crate) facts: Arc<crate::node::WorkloadFacts>,
    /// What other proxies are told of it.
    pub(crate) announcement: Arc<crate::telemetry::metadata::Announcement>,
    /// Local address of upstream connections.
    pub(crate) source: Option<IpAddr>,
    /// Where resources are asked for that a request needs.
    pub(crate) asker: crate::xds::ask::Asker,
}

/// What values of headers and lines can tell of where the process runs.
pub(crate) struct Machine {
    /// Its name.
    pub(crate) hostname: String,
    /// The environment that the process was started with.
    pub(crate) environment: Environment,
}

impl Machine {
    /// Asks once: neither changes while the process runs.
    pub(crate) fn ask() -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { hostname: hostname.trim().to_owned(), environment: std::env::vars_os().filter_map(text).collect() }
    }
}

/// A configuration as one worker holds it: copies count in the worker alone, where no other thread writes.
pub(crate) struct Pinned(Arc<Live>);

impl Deref for Pinned {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.0
    }
}

/// A worker's state.
pub(crate) struct Worker {
    /// What it was given.
    pub(crate) setup: Setup,
    /// What clusters need.
    pub(crate) around: Surroundings,
    /// Its access log lines.
    pub(crate) lines: Rc<Lines>,
    /// Its request and connection counters.
    pub(crate) labels: Labels,
    /// Names that requests bring.
    pub(crate) resolver: Rc<Resolver>,
    /// Compiled access logs.
    pub(crate) logs: Logs,
    /// Its QUIC endpoints.
    pub(crate) quic: crate::quic::Endpoints,
    /// Timers that no request needs.
    pub(crate) timers: Rc<Timers>,
    live: RefCell<Rc<Pinned>>,
    faults: Rc<Cell<u32>>,
    clusters: RefCell<AHashMap<Arc<str>, Rc<Cluster>>>,
    random: Cell<u64>,
    next_connection: Cell<u64>,
}

/// One injected fault that is going on.
pub(crate) struct Fault(Rc<Cell<u32>>);

impl Drop for Fault {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

struct Books {
    own: Arc<proc::Own>,
}

impl Watch for Books {
    fn opened(&self) {
        self.own.upstream_connections.add(1);
    }

    fn closed(&self) {
        self.own.upstream_connections.add(-1);
    }

    fn failed(&self) {
        self.own.upstream_failures.add(1);
    }
}

/// Starts a worker's thread. It ends when the drain is over.
pub(crate) fn start(index: usize, setup: Setup, tables: Arc<Tables>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .event_interval(61)
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(setup, tables)),
            Err(error) => tracing::error!(%error, "worker not started"),
        }
    })
}

async fn run(setup: Setup, tables: Arc<Tables>) {
    let worker = Rc::new(Worker::new(setup, tables));
    let listeners = Listeners::new(worker.clone());
    let mut live = worker.setup.live.clone();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (draining, over) = (worker.setup.drain.begun(), worker.setup.drain.over());
    tokio::pin!(draining, over);
    let mut drained = false;
    // The first value is there already; a listener must not wait for the second.
    live.mark_changed();
    loop {
        tokio::select! {
            biased;
            () = &mut over => break,
            () = &mut draining, if !drained => {
                drained = true;
                listeners.drain_all();
            }
            changed = live.changed() => {
                if changed.is_err() {
                    break;
                }
                let now = live.borrow_and_update().clone();
                worker.follow(now);
                if !drained {
                    listeners.follow();
                }
            }
            _ = sweep.tick() => {
                worker.sweep();
                listeners.sweep(drained);
            }
        }
    }
    listeners.cut_all();
    worker.lines.flush();
}

impl Worker {
    fn new(setup: Setup, tables: Arc<Tables>) -> Self {
        let first = setup.live.borrow().clone();
        let watch = Rc::new(Books { own: setup.own.clone() });
        Self {
            around: Surroundings { tls: setup.tls.clone(), source: setup.source, watch },
            lines: Lines::new(setup.feed.clone()),
            labels: Labels::new(tables, setup.facts.clone(), &setup.announcement),
            resolver: Resolver::new(),
            logs: Logs::default(),
            quic: crate::quic::Endpoints::default(),
            timers: Rc::default(),
            faults: Rc::default(),
            live: RefCell::new(Rc::new(Pinned(first))),
            clusters: RefCell::default(),
            random: Cell::new(rand::random()),
            next_connection: Cell::new(1),
            setup,
        }
    }

    /// The newest configuration. Cheap: a count that no other thread touches.
    pub(crate) fn live(&self) -> Rc<Pinned> {
        self.live.borrow().clone()
    }

    fn follow(&self, live: Arc<Live>) {
        *self.live.borrow_mut() = Rc::new(Pinned(live.clone()));
        self.clusters.borrow_mut().retain(|_, cluster| {
            let here = cluster.follow(&live);
            if !here {
                cluster.close();
            }
            here
        });
    }

    /// A cluster by its name; `None` when there is none.
    pub(crate) fn cluster(&self, name: &Arc<str>) -> Option<Rc<Cluster>> {
        if let Some(found) = self.clusters.borrow().get(name) {
            return Some(found.clone());
        }
        let live = self.live();
        let upstream = live.upstreams.get(name)?;
        let cluster = Cluster::new(name.clone(), upstream.clone(), live.sequence, self.draw());
        self.clusters.borrow_mut().insert(name.clone(), cluster.clone());
        Some(cluster)
    }

    /// A random number (SplitMix64): fast, and good enough for everything but secrets.
    pub(crate) fn draw(&self) -> u64 {
        let mut random = tombolo_gateway_core::time::Random::new(self.random.get());
        let drawn = random.draw();
        self.random.set(self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        drawn
    }

    /// A number for a connection, unique in the worker.
    pub(crate) fn number(&self) -> u64 {
        let n = self.next_connection.get();
        self.next_connection.set(n + 1);
        n
    }

    /// Injected faults that are going on.
    pub(crate) fn active_faults(&self) -> u32 {
        self.faults.get()
    }

    /// Counts one injected fault for as long as the guard lives.
    pub(crate) fn fault(&self) -> Fault {
        self.faults.set(self.faults.get() + 1);
        Fault(self.faults.clone())
    }

    /// Now, in the unit of the pure crates.
    pub(crate) fn now(&self) -> Millis {
        clock::now()
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.clusters.borrow().values().for_each(|c| c.sweep(now));
        self.resolver.sweep(now);
        self.logs.sweep();
        self.labels.tidy();
    }
}
