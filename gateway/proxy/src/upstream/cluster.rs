//! One cluster as one worker uses it: whose turn it is, and the pools of its endpoints.
//!
//! Owns pools and turns. Made when the worker first needs the cluster, so an unused cluster costs a worker nothing.

use super::{
    connect::{Offer, Peer, Target},
    keeper::{Live, Upstream},
    pool::{Lease, Pool, Settings, Version, Watch},
};
use crate::{
    net::socket::Keepalive,
    telemetry::{labels::Destination, numbers::Uses},
    tls::{
        context::{ClientContext, TlsStore},
        verify::HostCheck,
    },
};
use ahash::AHashMap;
use smallvec::SmallVec;
use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Instant,
};
use tombolo_gateway_core::{
    balance::{Health, Host, HostId, Picker, Request},
    breaker::{Breakers, Permit, Resource},
    config::{Discovery, EndpointAddress, HttpVersions, ProxyProtocolVersion, RoutePriority, TransportSocket},
    failure::{Failure, Kind},
    time::Millis,
};

/// Response headers at most, unless configured.
const MAX_HEADERS: usize = 100;
/// A response's head at most, in KiB, unless configured: Envoy takes larger ones from upstreams than from clients.
const MAX_HEAD_KB: usize = 128;

/// A cluster in use by a worker.
pub(crate) struct Cluster {
    /// Its name.
    pub(crate) name: Arc<str>,
    upstream: RefCell<Arc<Upstream>>,
    sequence: Cell<u64>,
    picker: RefCell<Picker>,
    hosts: RefCell<AHashMap<HostId, Rc<Endpoint>>>,
    named: RefCell<Named>,
    /// Labels in metrics that go with it.
    pub(crate) telemetry: Uses,
}

/// An endpoint in use by a worker.
pub(crate) struct Endpoint {
    /// The name of its cluster.
    pub(crate) cluster: Arc<str>,
    /// The state of its cluster, as new as the worker knows it.
    upstream: RefCell<Arc<Upstream>>,
    /// When it was last chosen; for destinations that discovery does not know.
    last: Cell<Instant>,
    /// What balancing knows of it; `None` for destinations that are no part of the cluster's endpoints.
    pub(crate) host: RefCell<Option<Host>>,
    /// Number of its labels in metrics, once known.
    pub(crate) telemetry: Cell<Option<Destination>>,
    peer: RefCell<Peer>,
    /// It was not unhealthy when last looked at.
    usable: Cell<bool>,
    /// The pool of almost every request, and the configuration for which it was found.
    usual: RefCell<Option<Usual>>,
    pools: RefCell<Variants>,
}

/// Destinations that discovery does not know, by address and name.
type Named = AHashMap<(Peer, Arc<str>), Rc<Endpoint>>;
/// Every pool of an endpoint.
type Variants = SmallVec<[(Variant, Rc<Pool>, Permit); 1]>;

/// The pool of almost every request, and for what it was found.
struct Usual {
    sequence: u64,
    /// State of the files that TLS is read from.
    files: u64,
    priority: RoutePriority,
    version: Version,
    pool: Rc<Pool>,
}

/// What tells pools of one endpoint apart.
#[derive(Debug, Clone, PartialEq)]
struct Variant {
    version: Version,
    priority: RoutePriority,
    /// Which TLS context; 0 for none.
    tls: u64,
    name: Arc<str>,
    proxy: Option<(ProxyProtocolVersion, SocketAddr, SocketAddr)>,
    /// For clusters that do not share connections between clients.
    downstream: u64,
    settings_of: usize,
}

/// What a request asks of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// Version of the client's request.
    pub(crate) downstream_http2: bool,
    /// Which bounds.
    pub(crate) priority: RoutePriority,
    /// Host for SNI, where the cluster takes it from the request.
    pub(crate) host: &'a str,
    /// The client's and our own address, for PROXY headers.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// Identifies the client's connection.
    pub(crate) downstream: u64,
    /// An HTTP/1 upgrade: needs a connection that can become a tunnel.
    pub(crate) http1_only: bool,
}

/// What clusters of a worker share.
pub(crate) struct Surroundings {
    /// TLS contexts.
    pub(crate) tls: Arc<TlsStore>,
    /// Local address unless the cluster says another.
    pub(crate) source: Option<IpAddr>,
    /// Who wants to know about connections.
    pub(crate) watch: Rc<dyn Watch>,
}

impl Cluster {
    /// A cluster that was not used before.
    pub(crate) fn new(name: Arc<str>, upstream: Arc<Upstream>, sequence: u64, seed: u64) -> Rc<Self> {
        let picker = RefCell::new(Picker::new(upstream.plan().clone(), seed));
        Rc::new(Self {
            name,
            picker,
            upstream: RefCell::new(upstream),
            sequence: Cell::new(sequence),
            hosts: RefCell::default(),
            named: RefCell::default(),
            telemetry: Uses::default(),
        })
    }

    /// The cluster's present state.
    pub(crate) fn upstream(&self) -> Arc<Upstream> {
        self.upstream.borrow().clone()
    }

    /// Follows a new state of the world. False when the cluster is gone.
    pub(crate) fn follow(&self, live: &Live) -> bool {
        if self.sequence.replace(live.sequence) == live.sequence {
            return true;
        }
        let Some(now) = live.upstreams.get(&self.name) else { return false };
        if Arc::ptr_eq(now, &self.upstream.borrow()) {
            return true;
        }
        if !Arc::ptr_eq(now.plan(), self.picker.borrow().plan()) {
            self.picker.borrow_mut().update(now.plan().clone());
            let mut hosts = self.hosts.borrow_mut();
            if !hosts.is_empty() {
                let present: AHashMap<HostId, &Host> = now.plan().set().hosts().iter().map(|h| (h.id(), h)).collect();
                hosts.retain(|id, endpoint| match present.get(id) {
                    Some(host) => {
                        endpoint.follow(host, now);
                        true
                    }
                    None => {
                        endpoint.close();
                        false
                    }
                });
            }
        }
        *self.upstream.borrow_mut() = now.clone();
        for endpoint in self.hosts.borrow().values().chain(self.named.borrow().values()) {
            *endpoint.upstream.borrow_mut() = now.clone();
        }
        true
    }

    /// Chooses an endpoint.
    pub(crate) fn pick(&self, request: &Request<'_>, random: u64, now: Millis) -> Option<Rc<Endpoint>> {
        let mut picker = self.picker.borrow_mut();
        self.upstream.borrow().touch();
        let index = picker.pick(request, random, now)?;
        let host = picker.plan().host(index);
        if let Some(found) = self.hosts.borrow().get(&host.id()) {
            return Some(found.clone());
        }
        let peer = peer(host)?;
        let endpoint = Endpoint::new(self, Some(host.clone()), peer);
        self.hosts.borrow_mut().insert(host.id(), endpoint.clone());
        Some(endpoint)
    }

    /// A destination that discovery does not know: named by the request, or where the client was going.
    pub(crate) fn destination(&self, address: SocketAddr, name: &str) -> Rc<Endpoint> {
        self.reach(Peer::Tcp(address), name)
    }

    /// The same for a name with several addresses.
    pub(crate) fn reach(&self, peer: Peer, name: &str) -> Rc<Endpoint> {
        self.upstream.borrow().touch();
        let key = (peer.clone(), Arc::from(name));
        let endpoint = self.named.borrow_mut().entry(key).or_insert_with(|| Endpoint::new(self, None, peer)).clone();
        endpoint.last.set(Instant::now());
        endpoint
    }

    /// Closes what is idle for too long and forgets what is unused.
    pub(crate) fn sweep(&self, now: Instant) {
        for endpoint in self.hosts.borrow().values() {
            endpoint.sweep(now);
        }
        let forgotten = match &self.upstream.borrow().cluster.discovery {
            Discovery::OriginalDst(settings) => Some(settings.cleanup_interval),
            Discovery::DynamicForwardProxy(names) => Some(names.unused),
            _ => None,
        };
        self.named.borrow_mut().retain(|_, endpoint| {
            endpoint.sweep(now);
            let idle = now.saturating_duration_since(endpoint.last.get());
            if forgotten.is_some_and(|after| idle >= after) && Rc::strong_count(endpoint) == 1 {
                endpoint.close();
                return false;
            }
            Rc::strong_count(endpoint) > 1 || !endpoint.pools.borrow().is_empty()
        });
    }

    /// Lets go of every idle connection; the cluster is gone.
    pub(crate) fn close(&self) {
        self.hosts.borrow().values().for_each(|e| e.close());
        self.named.borrow().values().for_each(|e| e.close());
    }
}

impl Endpoint {
    fn new(cluster: &Cluster, host: Option<Host>, peer: Peer) -> Rc<Self> {
        Rc::new(Self {
            cluster: cluster.name.clone(),
            upstream: RefCell::new(cluster.upstream()),
            last: Cell::new(Instant::now()),
            host: RefCell::new(host),
            telemetry: Cell::new(None),
            peer: RefCell::new(peer),
            usable: Cell::new(true),
            usual: RefCell::default(),
            pools: RefCell::default(),
        })
    }

    /// The present state of its cluster: of the member, where the cluster that was asked is an aggregate.
    pub(crate) fn upstream(&self) -> Arc<Upstream> {
        self.upstream.borrow().clone()
    }

    /// Takes what became known of it.
    fn follow(&self, host: &Host, now: &Upstream) {
        let healthy = |host: &Host| host.health() != Health::Unhealthy;
        let was_usable = self.usable.replace(healthy(host));
        if now.cluster.close_on_health_failure && was_usable && !healthy(host) {
            self.close();
        }
        *self.host.borrow_mut() = Some(host.clone());
        self.telemetry.set(None);
        // A name's further addresses may have changed; connections from now on go by the new ones.
        if let Some(peer) = peer(host)
            && *self.peer.borrow() != peer
        {
            *self.peer.borrow_mut() = peer;
            self.close();
        }
    }

    /// Its TCP address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &*self.peer.borrow() {
            Peer::Tcp(address) => Some(*address),
            Peer::Any(list) => list.first().copied(),
            Peer::Unix(_) => None,
        }
    }

    fn sweep(&self, now: Instant) {
        let mut pools = self.pools.borrow_mut();
        pools.iter().for_each(|(_, pool, _)| pool.sweep(now));
        pools.retain(|(_, pool, _)| !pool.is_unused());
        if let Some(usual) = &*self.usual.borrow()
            && !usual.pool.is_unused()
        {
            return;
        }
        *self.usual.borrow_mut() = None;
    }

    fn close(&self) {
        self.pools.borrow_mut().drain(..).for_each(|(_, pool, _)| pool.close());
        *self.usual.borrow_mut() = None;
    }

    /// A connection for a request.
    ///
    /// # Errors
    /// As [`Pool::lease`]; also when TLS cannot be set up.
    pub(crate) async fn lease(
        &self,
        around: &Surroundings,
        live: &Live,
        upstream: &Arc<Upstream>,
        wish: &Wish<'_>,
    ) -> Result<Lease, Failure> {
        self.pool(around, live, upstream, wish)?.lease().await
    }

    /// The pool for a request.
    pub(crate) fn pool(
        &self,
        around: &Surroundings,
        live: &Live,
        upstream: &Arc<Upstream>,
        wish: &Wish<'_>,
    ) -> Result<Rc<Pool>, Failure> {
        let version = version(upstream.cluster.http.versions, wish);
        if let Some(usual) = &*self.usual.borrow()
            && usual.sequence == live.sequence
            && usual.files == around.tls.files.epoch()
            && usual.priority == wish.priority
            && usual.version == version
        {
            return Ok(usual.pool.clone());
        }
        let files = around.tls.files.epoch();
        let transport = self.transport(upstream);
        let (tls, name) = self.tls(around, live, upstream, &transport, wish)?;
        let usual = !depends_on_request(upstream, &transport);
        let variant = Variant {
            version,
            priority: wish.priority,
            tls: tls.as_ref().map_or(0, |t| t.id),
            name: name.clone(),
            proxy: proxy_header(&transport, wish),
            downstream: if upstream.cluster.pool_per_downstream { wish.downstream } else { 0 },
            settings_of: Arc::as_ptr(&upstream.cluster.http) as usize,
        };
        let pool = self.find_or_make(around, upstream, variant, tls.map(|t| (t, name)))?;
        if usual {
            let (sequence, priority) = (live.sequence, wish.priority);
            *self.usual.borrow_mut() = Some(Usual { sequence, files, priority, version, pool: pool.clone() });
        }
        Ok(pool)
    }

    fn find_or_make(
        &self,
        around: &Surroundings,
        upstream: &Upstream,
        variant: Variant,
        tls: Option<(ClientContext, Arc<str>)>,
    ) -> Result<Rc<Pool>, Failure> {
        let mut pools = self.pools.borrow_mut();
        if let Some((_, pool, _)) = pools.iter().find(|(v, _, _)| *v == variant) {
            return Ok(pool.clone());
        }
        // The same pool but for older secrets or settings: its connections finish what they have.
        let outdated = |v: &Variant| Variant { tls: v.tls, settings_of: v.settings_of, ..variant.clone() } == *v;
        pools.retain(|(v, pool, _)| {
            let old = outdated(v);
            if old {
                pool.close();
            }
            !old
        });
        let breakers = upstream.breakers(variant.priority);
        let permit = breakers.acquire(Resource::Pools).or_else(|| {
            // One of the same endpoint that serves nobody makes room, even if it keeps connections for later.
            let idle = pools.iter().position(|(v, pool, _)| v.priority == variant.priority && pool.is_idle())?;
            let (_, pool, _) = pools.remove(idle);
            pool.close();
            breakers.acquire(Resource::Pools)
        });
        // As in Envoy: an endpoint that can have no pool is none.
        let permit = permit.ok_or_else(|| Failure::new(Kind::NoHealthyUpstream))?;
        let pool = Pool::new(
            settings(upstream, variant.version),
            self.target(around, upstream, &variant, tls),
            self.breakers(upstream, variant.priority),
            around.watch.clone(),
        );
        pools.push((variant, pool.clone(), permit));
        Ok(pool)
    }

    /// The cluster's breakers, with the endpoint's own bound where there is one.
    fn breakers(&self, upstream: &Upstream, priority: RoutePriority) -> Arc<Breakers> {
        let (whole, settings) = (upstream.breakers(priority), &upstream.cluster.breakers);
        let most = match priority {
            RoutePriority::Default => settings.per_host_connections,
            RoutePriority::High => settings.per_host_connections_high,
        };
        match (most, &*self.host.borrow()) {
            (Some(most), Some(host)) => whole.of_host(&host.state, most),
            _ => whole.clone(),
        }
    }

    /// A connection of its own, for a TCP proxy.
    pub(crate) fn tcp_target(
        &self,
        around: &Surroundings,
        live: &Live,
        upstream: &Arc<Upstream>,
        wish: &Wish<'_>,
    ) -> Result<Target, Failure> {
        let transport = self.transport(upstream);
        let (tls, name) = self.tls(around, live, upstream, &transport, wish)?;
        let variant = Variant {
            version: Version::ByAlpn,
            priority: wish.priority,
            tls: 0,
            name: name.clone(),
            proxy: proxy_header(&transport, wish),
            downstream: 0,
            settings_of: 0,
        };
        let mut target = self.target(around, upstream, &variant, tls.map(|t| (t, name)));
        target.offer = Offer::Configured;
        Ok(target)
    }

    fn transport(&self, upstream: &Upstream) -> TransportSocket {
        match &*self.host.borrow() {
            Some(host) => upstream.cluster.transport_for(&host.endpoint.metadata).clone(),
            None => upstream.cluster.transport.clone(),
        }
    }

    fn tls(
        &self,
        around: &Surroundings,
        live: &Live,
        upstream: &Upstream,
        transport: &TransportSocket,
        wish: &Wish<'_>,
    ) -> Result<(Option<ClientContext>, Arc<str>), Failure> {
        let context = match transport {
            TransportSocket::Raw | TransportSocket::Internal(_) => return Ok((None, Arc::from(""))),
            TransportSocket::Tls(context) | TransportSocket::Quic(context) => context,
            TransportSocket::ProxyProtocol(_, inner) => return self.tls(around, live, upstream, inner, wish),
        };
        let http = &upstream.cluster.http;
        let built = around
            .tls
            .client(context, &live.config, if http.auto_san_validation { HostCheck::Always } else { HostCheck::No })
            .map_err(|reason| Failure::new(Kind::ConnectFailure).with_reason(format!("TLS_error: {reason}")))?;
        let host = self.host.borrow();
        let hostname = host.as_ref().map_or("", |h| &h.endpoint.hostname);
        let name: Arc<str> = if http.auto_sni {
            Arc::from(without_port(wish.host))
        } else if context.sni.is_empty() && context.auto_host_sni {
            Arc::from(hostname)
        } else {
            context.sni.clone()
        };
        Ok((Some(built), name))
    }

    fn target(
        &self,
        around: &Surroundings,
        upstream: &Upstream,
        variant: &Variant,
        tls: Option<(ClientContext, Arc<str>)>,
    ) -> Target {
        let cluster = &upstream.cluster;
        let keepalive =
            cluster.keepalive.as_ref().map(|k| Keepalive { time: k.time, interval: k.interval, probes: k.probes });
        let bind = cluster.bind.as_ref().and_then(|b| b.source).map(|a| a.ip());
        Target {
            peer: self.peer.borrow().clone(),
            tls,
            offer: match variant.version {
                Version::Http1 => Offer::Http1,
                Version::Http2 => Offer::Http2,
                Version::ByAlpn => Offer::Either,
                Version::Http3 => Offer::Configured,
            },
            proxy: variant.proxy,
            from: bind.or(around.source),
            keepalive,
            timeout: cluster.connect_timeout,
        }
    }
}

/// How an endpoint of discovery is reached; `None`: not at all.
fn peer(host: &Host) -> Option<Peer> {
    let more = &host.endpoint.more_addresses;
    match &host.endpoint.address {
        EndpointAddress::Socket(address) if more.is_empty() => Some(Peer::Tcp(*address)),
        EndpointAddress::Socket(address) => {
            Some(Peer::Any([*address].into_iter().chain(more.iter().copied()).collect()))
        }
        EndpointAddress::Pipe(path) => Some(Peer::Unix(path.clone())),
        EndpointAddress::Name(..) | EndpointAddress::Internal(..) => None,
    }
}

fn version(versions: HttpVersions, wish: &Wish<'_>) -> Version {
    match versions {
        HttpVersions::Http1 => Version::Http1,
        HttpVersions::Http2 => Version::Http2,
        HttpVersions::Http3 => Version::Http3,
        HttpVersions::SameAsDownstream if wish.downstream_http2 && !wish.http1_only => Version::Http2,
        HttpVersions::SameAsDownstream => Version::Http1,
        HttpVersions::Auto if wish.http1_only => Version::Http1,
        HttpVersions::Auto => Version::ByAlpn,
    }
}

fn depends_on_request(upstream: &Upstream, transport: &TransportSocket) -> bool {
    upstream.cluster.pool_per_downstream
        || upstream.cluster.http.auto_sni
        || matches!(transport, TransportSocket::ProxyProtocol(..))
}

fn proxy_header(
    transport: &TransportSocket,
    wish: &Wish<'_>,
) -> Option<(ProxyProtocolVersion, SocketAddr, SocketAddr)> {
    match (transport, wish.addresses) {
        (TransportSocket::ProxyProtocol(version, _), Some((source, destination))) => {
            Some((*version, source, destination))
        }
        _ => None,
    }
}

fn settings(upstream: &Upstream, version: Version) -> Settings {
    let http = &upstream.cluster.http;
    let count = |n: Option<u32>, default: usize| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(default);
    Settings {
        version,
        idle: http.idle_timeout,
        max_age: http.max_connection_duration,
        max_requests: http.max_requests_per_connection,
        http2: http.http2.clone(),
        http3: http.http3.clone(),
        max_headers: count(http.max_headers, MAX_HEADERS),
        max_head: count(http.max_headers_kb, MAX_HEAD_KB) * 1024,
        proper_case: http.http1.proper_case,
        preserve_case: http.http1.preserve_case,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}
