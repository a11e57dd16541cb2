//! The list of subsystems: what is started, in which order, and how all of it ends.
//!
//! Owns every long-lived task. One function per subsystem; the logic is theirs.

use crate::{
    admin::Admin,
    ads::{Ads, Door},
    ca::{Authority, CertificateService, OwnIdentity, TokenVerifier},
    config::{Config, Export},
    metrics::Metrics,
    peers,
    proxies::ProxyTable,
    serve,
    sources::{FolderSource, Manifests, SourceReport},
    status::Reporter,
    trust,
    world::World,
};
use anyhow::Context as _;
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tombolo_controlplane_core::{Input, SiteSettings};
use tombolo_controlplane_dialect::Context;
use tombolo_federation_model::Namespace;
use tombolo_federation_registry::{ExportPolicy, ShardId, ShardSettings};
use tonic::transport::Server;

/// How long everything may take to end before it is cut off.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// Pings on a quiet connection, and the wait for the answer.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(10);
/// Streams of one connection: a proxy needs two at most.
const STREAMS: u32 = 64;
const HEADERS: u32 = 32 * 1024;

/// Long-lived tasks; each says its name when it ends.
#[derive(Default)]
pub(crate) struct Tasks {
    /// Run for ever and are simply dropped at the end.
    pub(crate) loops: JoinSet<&'static str>,
    /// End by themselves after the stop was called: they say goodbye first.
    pub(crate) polite: JoinSet<&'static str>,
}

/// The sockets, bound before anything else is begun.
struct Sockets {
    xds: TcpListener,
    xds_plaintext: Option<TcpListener>,
    peering: Option<TcpListener>,
    admin: TcpListener,
}

/// Runs the control plane until the token is cancelled or something that must not end does.
///
/// # Errors
/// When it cannot start, or ended without being told to.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let sockets = bind(&config).await?;
    let mut tasks = Tasks::default();
    let metrics = Arc::new(Metrics::new());
    let table = Arc::new(ProxyTable::default());
    let (authority, own) = certificates(&config, &mut tasks)?;
    let (exporter, exports) = watch::channel(None);
    let (world, thread) = World::start(site(&config), metrics.clone(), exporter)?;
    tasks.loops.spawn(named("clock", world.clone().tick()));
    // Before anything else is said: nothing is published until what is declared here has been read.
    declare(&config, &world).await?;
    // Before the sources: what is recalled of peers, and whose certificates are believed, is there when the own sources
    // have been read and the first configuration is published.
    let exchange =
        peers::start(&config, (&authority, &own), (sockets.peering, exports), &world, &stop, &mut tasks).await?;
    let sources = sources(&config, &world, &mut tasks)?;
    let tokens = config.tokens.clone().map(|t| Arc::new(TokenVerifier::new(t, config.trust_domain.clone())));
    let ads = |door| Ads::server(world.clone(), table.clone(), metrics.clone(), stop.clone(), door);
    let signing = CertificateService::server(authority.clone(), tokens.clone(), metrics.clone());
    let secure = serve::tls(sockets.xds, serve::proxy_tls(own.clone())?);
    let router = grpc().add_service(ads(Door::Tokens(tokens))).add_service(signing);
    tasks.polite.spawn(served("xds", router.serve_with_incoming_shutdown(secure, stop.clone().cancelled_owned())));
    if let Some(listener) = sockets.xds_plaintext {
        let router = grpc().add_service(ads(Door::Open));
        let open = router.serve_with_incoming_shutdown(serve::plain(listener), stop.clone().cancelled_owned());
        tasks.polite.spawn(served("xds-plaintext", open));
    }
    let reporter = Reporter {
        config: config.clone(),
        started: Instant::now(),
        world: world.clone(),
        sources,
        table,
        authority,
        own,
        bundles: exchange.bundles.clone(),
        peers: exchange.reports.clone(),
    };
    let reporter = Arc::new(reporter);
    tasks.loops.spawn(named("status", exchange.show_status(reporter.clone())));
    let admin = Admin { reporter, world: world.clone(), metrics };
    tasks.polite.spawn(named("admin", admin.serve(sockets.admin, stop.clone())));
    tracing::info!(
        site = %config.site, trust_domain = %config.trust_domain, xds = %config.listen.xds, admin = %config.listen.admin,
        "the control plane is running"
    );
    let outcome = until_the_end(&world, &mut tasks, &stop).await;
    finish(world, thread, tasks, &stop).await;
    outcome
}

async fn until_the_end(world: &World, tasks: &mut Tasks, stop: &CancellationToken) -> anyhow::Result<()> {
    let ended = tokio::select! {
        // Asked first: what ends because of the stop did not end unexpectedly.
        biased;
        () = stop.cancelled() => return Ok(()),
        () = world.ended() => anyhow::bail!("the engine ended unexpectedly; its last words are in the log"),
        Some(ended) = tasks.loops.join_next() => ended,
        Some(ended) = tasks.polite.join_next() => ended,
    };
    match ended {
        Ok(name) => anyhow::bail!("{name} ended unexpectedly"),
        Err(error) => anyhow::bail!("a task ended unexpectedly: {error}"),
    }
}

/// Streams end first, so that proxies go elsewhere; then the engine.
async fn finish(world: World, thread: std::thread::JoinHandle<()>, mut tasks: Tasks, stop: &CancellationToken) {
    tracing::info!("stopping");
    stop.cancel();
    let ends = async {
        while tasks.polite.join_next().await.is_some() {}
        world.stop().await;
        world.ended().await;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    };
    if tokio::time::timeout(LAST_WORDS, ends).await.is_err() {
        tracing::debug!("some tasks were cut off");
    }
}

async fn bind(config: &Config) -> Result<Sockets, serve::BindError> {
    let listen = &config.listen;
    let xds_plaintext = match listen.xds_plaintext {
        Some(address) => Some(serve::bind(address, "proxies without TLS", "listen.xdsPlaintext").await?),
        None => None,
    };
    let peering = match listen.peering {
        Some(address) => Some(serve::bind(address, "peers", "listen.peering").await?),
        None => None,
    };
    Ok(Sockets {
        xds: serve::bind(listen.xds, "proxies", "listen.xds").await?,
        xds_plaintext,
        peering,
        admin: serve::bind(listen.admin, "status and metrics", "listen.admin").await?,
    })
}

fn certificates(config: &Config, tasks: &mut Tasks) -> anyhow::Result<(Arc<Authority>, OwnIdentity)> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state)
        .with_context(|| format!("cannot make the state folder {}", config.state.display()))?;
    let authority = Authority::open(&config.ca_dir(), &config.trust_domain, &config.ca, SystemTime::now())?;
    let authority = Arc::new(authority);
    let bundle = config.bundle_file();
    trust::write_bundle(&bundle, &[authority.root().to_vec()])
        .with_context(|| format!("cannot write {}", bundle.display()))?;
    let (own, renewal) = OwnIdentity::start(authority.clone(), config.own_identity())?;
    tasks.loops.spawn(named("certificate renewal", renewal));
    Ok((authority, own))
}

fn site(config: &Config) -> SiteSettings {
    let mut site =
        SiteSettings::new(config.site.clone(), config.cluster(), config.network(), config.trust_domain.clone());
    site.locality = config.locality.clone();
    site.domain_suffix.clone_from(&config.domain_suffix);
    site.export = match config.export {
        Export::None => ExportPolicy::DeclaredOnly,
        Export::All => ExportPolicy::All,
    };
    site
}

/// Makes the shards of the own sources known.
async fn declare(config: &Config, world: &World) -> anyhow::Result<()> {
    let settings = ShardSettings {
        network: config.network(),
        locality: config.locality.clone(),
        trust_domain: config.trust_domain.clone(),
        lease: None,
        own: true,
    };
    let declared = config.sources.iter().map(|source| ShardId::own(config.cluster(), &source.name));
    world.tell(declared.map(|shard| Input::Declare(shard, settings.clone())).collect()).await?;
    Ok(())
}

fn sources(config: &Config, world: &World, tasks: &mut Tasks) -> anyhow::Result<Vec<watch::Receiver<SourceReport>>> {
    let mut context = Context::new(config.cluster(), config.trust_domain.clone());
    context.domain_suffix.clone_from(&config.domain_suffix);
    let mut reports = Vec::new();
    for source in &config.sources {
        let mut context = context.clone();
        context.default_namespace = Namespace::parse(&source.namespace)?;
        let shard = ShardId::own(config.cluster(), &source.name);
        let manifests = Manifests::new(source.path.clone(), context, shard, epoch());
        let (task, report) =
            FolderSource::new(source.name.clone(), source.kind, source.path.clone(), manifests, world.clone());
        tasks.loops.spawn(named("source", task.run()));
        reports.push(report);
    }
    Ok(reports)
}

/// Larger at every start of the process: milliseconds since 1970.
pub(crate) fn epoch() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn grpc() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADERS)
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn served(name: &'static str, server: impl Future<Output = Result<(), tonic::transport::Error>>) -> &'static str {
    if let Err(error) = server.await {
        tracing::error!(server = name, %error, "a server ended");
    }
    name
}
