//! Starting and stopping: a list of subsystems, not logic.
//!
//! Owns every long-lived task and thread. The control thread runs xDS, certificates, DNS, outlier detection and the
//! admin interface; workers run traffic and nothing else.

use crate::{
    admin::{self, Admin},
    args::Args,
    certs::{self, Own},
    control::Remote,
    drain::Drain,
    net::bound::Bound,
    node,
    telemetry::{proc, sink::Writer},
    tls::{self, context::TlsStore, files},
    upstream::{
        health::Around,
        keeper::{Keeper, Live, Setup as UpstreamSetup},
    },
    worker,
    xds::{
        ask,
        client::{Client, Setup as XdsSetup, SharedStatus},
        files::{Files, Setup as FileSetup},
        shelves::SharedShelves,
        store::Store,
    },
};
use anyhow::Context as _;
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tombolo_federation_model::Locality;
use tombolo_gateway_core::{config::Config, request::Node};

/// After the drain is over, threads have this long to end.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// The first configuration has served so long when the start counts as over.
const SETTLED: Duration = Duration::from_secs(1);

/// Runs a gateway until it is told to stop and has drained.
///
/// # Errors
/// When something that it cannot do without fails at start.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    crate::clock::origin();
    tls::install_crypto();
    let runtime =
        Builder::new_current_thread().enable_all().max_blocking_threads(4).build().context("control runtime")?;
    runtime.block_on(control(args))
}

async fn control(args: &Args) -> anyhow::Result<()> {
    let identity = node::Identity::load(args.node(), &args.cluster, args.metadata_file.as_deref())?;
    let drain = Drain::new();
    let own = Arc::new(proc::Own::default());
    let status = SharedStatus::default();
    let writer = Writer::start().context("access log thread")?;
    let mut tasks: JoinSet<()> = JoinSet::new();

    let certificate = certificates(args, &mut tasks);
    let (configs, config_seen) = watch::channel(Arc::new(Config::default()));
    let shelves = SharedShelves::default();
    let (asker, asked) = ask::channel();
    let source = Source { out: configs, status: status.clone(), shelves: shelves.clone(), asked };
    subscribe(args, &identity, certificate.clone(), source, &mut tasks)?;
    let store = Arc::new(TlsStore::default());
    let (keeper, suspects, live) = Keeper::new(config_seen.clone(), upstreams(args, &identity, &store, config_seen));
    tasks.spawn(keeper.run());

    tasks.spawn(forget_the_start(live.clone()));

    let workers = args.worker_count();
    let bound = Arc::new(Bound::new(workers));
    let store = Arc::new(TlsStore::default());
    tasks.spawn(files::watch(store.clone()));
    let setup = worker::Setup {
        live: live.clone(),
        suspects,
        tls: store,
        bound: bound.clone(),
        udp: Arc::new(crate::quic::Udp::new(workers)),
        own: own.clone(),
        feed: writer.feed(),
        drain: drain.clone(),
        node: Arc::new(told_node(args)?),
        machine: Arc::new(worker::Machine::ask()),
        facts: identity.workload.clone(),
        announcement: identity.announcement.clone(),
        source: args.source_address,
        asker: asker.clone(),
    };
    let tables: Vec<_> = (0..workers).map(|_| Arc::default()).collect();
    let mut threads = Vec::with_capacity(workers);
    for (index, table) in tables.iter().enumerate() {
        threads.push(worker::start(index, setup.clone(), Arc::clone(table)).context("worker thread")?);
    }
    let feed = setup.feed.clone();
    drop(setup);

    let quit = Arc::new(Notify::new());
    let page = Admin {
        started: Instant::now(),
        node: args.node().to_owned(),
        live,
        status,
        certificate,
        own,
        tables,
        bound,
        dropped_lines: writer.dropped(),
        drain: drain.clone(),
        shelves,
        file: args.config.is_some(),
        asker,
        feed: feed.clone(),
        quit: quit.clone(),
    };
    let listener = admin::bind(&args.admin).await.with_context(|| format!("admin interface at {}", args.admin))?;
    tasks.spawn(admin::serve(listener, Arc::new(page)));

    until_told(&feed, &quit).await?;
    stop(args, &drain, threads).await;
    tasks.shutdown().await;
    drop(writer);
    Ok(())
}

/// Gives back what only the start needed, once the first configuration has served for a moment.
async fn forget_the_start(mut live: watch::Receiver<Arc<Live>>) {
    if live.changed().await.is_err() {
        return;
    }
    tokio::time::sleep(SETTLED).await;
    match tombolo_gateway_pages::give_back() {
        Ok(bytes) => tracing::debug!(bytes, "pages of the program given back"),
        Err(error) => tracing::debug!(%error, "pages of the program stay"),
    }
}

/// What is told about upstreams beside their configuration.
fn upstreams(
    args: &Args,
    identity: &node::Identity,
    tls: &Arc<TlsStore>,
    configs: watch::Receiver<Arc<Config>>,
) -> UpstreamSetup {
    let place = identity.message.locality.clone().unwrap_or_default();
    let own = Locality { region: place.region, zone: place.zone, subzone: place.sub_zone };
    UpstreamSetup {
        around: Around { tls: tls.clone(), source: args.source_address, configs },
        local: args.local_cluster.as_deref().map(|name| (Arc::from(name), own)),
    }
}

fn certificates(args: &Args, tasks: &mut JoinSet<()>) -> watch::Receiver<Own> {
    let (own, seen) = watch::channel(Own::default());
    if let Some(address) = args.authority() {
        tasks.spawn(certs::keep(remote(args, address), own));
    }
    seen
}

fn remote(args: &Args, address: &str) -> Remote {
    Remote {
        address: address.to_owned(),
        roots: args.xds_roots.clone(),
        identity: args.xds_identity.clone(),
        token: args.token_file.clone(),
    }
}

/// Where configurations come out, whatever they come from.
struct Source {
    out: watch::Sender<Arc<Config>>,
    status: SharedStatus,
    shelves: SharedShelves,
    asked: mpsc::Receiver<ask::Ask>,
}

/// Starts what brings configurations: a file, or the control plane.
fn subscribe(
    args: &Args,
    identity: &node::Identity,
    own: watch::Receiver<Own>,
    source: Source,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let Source { out, status, shelves, asked } = source;
    if let Some(path) = &args.config {
        let setup = FileSetup { path: path.clone(), out, status, shelves, asked };
        tasks.spawn(Files::open(setup).context("configuration file")?.run());
        return Ok(());
    }
    let store = match &args.state {
        Some(directory) => {
            let opened = Store::open(directory, identity.fingerprint());
            Some(opened.with_context(|| format!("state directory {}", directory.display()))?)
        }
        None => None,
    };
    let client = Client::new(XdsSetup {
        remote: remote(args, args.xds()),
        mode: args.xds_mode,
        node: identity.message.clone(),
        store,
        own,
        out,
        status,
        shelves,
        layers: args.rtds.iter().map(|layer| Arc::from(layer.as_str())).collect(),
        asked,
    });
    tasks.spawn(client.run());
    Ok(())
}

/// What the gateway tells others of itself in headers.
fn told_node(args: &Args) -> anyhow::Result<Node> {
    let from_id = args.node().split('~').nth(1).and_then(|ip| ip.parse::<IpAddr>().ok());
    Ok(Node {
        address: from_id.or(args.source_address).or_else(own_address).unwrap_or(IpAddr::from([127, 0, 0, 1])),
        cluster: args.cluster.parse().context("--cluster cannot be a header's value")?,
        id: args.node().parse().context("--node cannot be a header's value")?,
    })
}

/// The first IPv4 address of this machine, in the order of its interfaces, that is not a loopback address.
fn own_address() -> Option<IpAddr> {
    let of = |interface: nix::ifaddrs::InterfaceAddress| Some(interface.address?.as_sockaddr_in()?.ip());
    nix::ifaddrs::getifaddrs().ok()?.filter_map(of).find(|ip| !ip.is_loopback()).map(IpAddr::V4)
}

/// Waits for SIGTERM or SIGINT; SIGUSR1 has log files opened again.
async fn until_told(feed: &crate::telemetry::sink::Feed, quit: &Notify) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut reopen = signal(SignalKind::user_defined1()).context("SIGUSR1")?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
            () = quit.notified() => return Ok(()),
            _ = reopen.recv() => feed.reopen(),
        }
    }
}

/// Drains, and cuts what is left at the deadline.
async fn stop(args: &Args, drain: &Drain, threads: Vec<std::thread::JoinHandle<()>>) {
    tracing::info!(alive = drain.alive(), seconds = args.drain_seconds, "draining");
    drain.begin();
    if timeout(Duration::from_secs(args.drain_seconds), drain.finished()).await.is_err() {
        tracing::warn!(alive = drain.alive(), "drain deadline reached, cutting what is left");
    }
    drain.cut();
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    });
    if timeout(LAST_MOMENT, joined).await.is_err() {
        tracing::warn!("a worker did not end in time");
    }
}
