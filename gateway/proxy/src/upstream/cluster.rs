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
    telemetry::labels::Destination,
    tls::context::{ClientContext, TlsStore},
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
    balance::{Host, HostId, Picker, Request},
    config::{EndpointAddress, HttpVersions, ProxyProtocolVersion, RoutePriority, TransportSocket},
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
}

/// An endpoint in use by a worker.
pub(crate) struct Endpoint {
    /// What balancing knows of it; `None` for destinations that are no part of the cluster's endpoints.
    pub(crate) host: RefCell<Option<Host>>,
    /// Number of its labels in metrics, once known.
    pub(crate) telemetry: Cell<Option<Destination>>,
    peer: Peer,
    /// The pool of almost every request, and the configuration for which it was found.
    usual: RefCell<Option<Usual>>,
    pools: RefCell<Variants>,
}

/// Destinations that discovery does not know, by address and name.
type Named = AHashMap<(Peer, Arc<str>), Rc<Endpoint>>;
/// Every pool of an endpoint.
type Variants = SmallVec<[(Variant, Rc<Pool>); 1]>;

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
        let picker = RefCell::new(Picker::new(upstream.plan.clone(), seed));
        Rc::new(Self {
            name,
            picker,
            upstream: RefCell::new(upstream),
            sequence: Cell::new(sequence),
            hosts: RefCell::default(),
            named: RefCell::default(),
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
        if !Arc::ptr_eq(&now.plan, self.picker.borrow().plan()) {
            self.picker.borrow_mut().update(now.plan.clone());
            let mut hosts = self.hosts.borrow_mut();
            if !hosts.is_empty() {
                let present: AHashMap<HostId, &Host> = now.plan.set().hosts().iter().map(|h| (h.id(), h)).collect();
                hosts.retain(|id, endpoint| match present.get(id) {
                    Some(host) => {
                        *endpoint.host.borrow_mut() = Some((*host).clone());
                        endpoint.telemetry.set(None);
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
        true
    }

    /// Chooses an endpoint.
    pub(crate) fn pick(&self, request: &Request<'_>, random: u64, now: Millis) -> Option<Rc<Endpoint>> {
        let mut picker = self.picker.borrow_mut();
        let index = picker.pick(request, random, now)?;
        let host = picker.plan().host(index);
        if let Some(found) = self.hosts.borrow().get(&host.id()) {
            return Some(found.clone());
        }
        let peer = match &host.endpoint.address {
            EndpointAddress::Socket(address) => Peer::Tcp(*address),
            EndpointAddress::Pipe(path) => Peer::Unix(path.clone()),
            EndpointAddress::Name(..) | EndpointAddress::Internal(..) => return None,
        };
        let endpoint = Endpoint::new(Some(host.clone()), peer);
        self.hosts.borrow_mut().insert(host.id(), endpoint.clone());
        Some(endpoint)
    }

    /// A destination that discovery does not know: named by the request, or where the client was going.
    pub(crate) fn destination(&self, address: SocketAddr, name: &str) -> Rc<Endpoint> {
        let key = (Peer::Tcp(address), Arc::from(name));
        self.named.borrow_mut().entry(key).or_insert_with(|| Endpoint::new(None, Peer::Tcp(address))).clone()
    }

    /// Closes what is idle for too long and forgets what is unused.
    pub(crate) fn sweep(&self, now: Instant) {
        for endpoint in self.hosts.borrow().values() {
            endpoint.sweep(now);
        }
        self.named.borrow_mut().retain(|_, endpoint| {
            endpoint.sweep(now);
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
    fn new(host: Option<Host>, peer: Peer) -> Rc<Self> {
        Rc::new(Self {
            host: RefCell::new(host),
            telemetry: Cell::new(None),
            peer,
            usual: RefCell::default(),
            pools: RefCell::default(),
        })
    }

    /// Its TCP address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &self.peer {
            Peer::Tcp(address) => Some(*address),
            Peer::Unix(_) => None,
        }
    }

    fn sweep(&self, now: Instant) {
        let mut pools = self.pools.borrow_mut();
        pools.iter().for_each(|(_, pool)| pool.sweep(now));
        pools.retain(|(_, pool)| !pool.is_unused());
        if let Some(usual) = &*self.usual.borrow()
            && !usual.pool.is_unused()
        {
            return;
        }
        *self.usual.borrow_mut() = None;
    }

    fn close(&self) {
        self.pools.borrow_mut().drain(..).for_each(|(_, pool)| pool.close());
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
        let pool = self.find_or_make(around, upstream, variant, tls.map(|t| (t, name)));
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
    ) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if let Some((_, pool)) = pools.iter().find(|(v, _)| *v == variant) {
            return pool.clone();
        }
        // The same pool but for older secrets or settings: its connections finish what they have.
        let outdated = |v: &Variant| Variant { tls: v.tls, settings_of: v.settings_of, ..variant.clone() } == *v;
        pools.retain(|(v, pool)| {
            let old = outdated(v);
            if old {
                pool.close();
            }
            !old
        });
        let pool = Pool::new(
            settings(upstream, variant.version),
            self.target(around, upstream, &variant, tls),
            upstream.breakers(variant.priority).clone(),
            around.watch.clone(),
        );
        pools.push((variant, pool.clone()));
        pool
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
        let built = around
            .tls
            .client(context, &live.config)
            .map_err(|reason| Failure::new(Kind::ConnectFailure).with_reason(format!("TLS_error: {reason}")))?;
        let host = self.host.borrow();
        let hostname = host.as_ref().map_or("", |h| &h.endpoint.hostname);
        let name: Arc<str> = if upstream.cluster.http.auto_sni {
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
        let keepalive = cluster.keepalive.map(|k| Keepalive { time: k.time, interval: k.interval, probes: k.probes });
        let bind = cluster.bind.as_ref().and_then(|b| b.source).map(|a| a.ip());
        Target {
            peer: self.peer.clone(),
            tls,
            offer: match variant.version {
                Version::Http1 => Offer::Http1,
                Version::Http2 => Offer::Http2,
                Version::ByAlpn => Offer::Either,
            },
            proxy: variant.proxy,
            from: bind.or(around.source),
            keepalive,
            timeout: cluster.connect_timeout,
        }
    }
}

fn version(versions: HttpVersions, wish: &Wish<'_>) -> Version {
    match versions {
        HttpVersions::Http1 => Version::Http1,
        HttpVersions::Http2 | HttpVersions::Http3 => Version::Http2,
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
        max_headers: count(http.max_headers, MAX_HEADERS),
        max_head: count(http.max_headers_kb, MAX_HEAD_KB) * 1024,
        proper_case: http.http1.proper_case,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}
