//! A fresh connection, from accept to the end of its filter chain.
//!
//! Owns the order: room, PROXY header, sniffing where the listener asks, choice of the chain, TLS, then HTTP or bytes.
//! Nothing is read before it is needed, and every wait has a bound.

use crate::{
    http,
    listen::{Entered, Limits, Signal, Slot},
    net::{
        proxy_protocol::{self, Parsed},
        sniff::{self, Hello, Sniffer, Tls},
        socket,
        stream::{Replay, Stream},
    },
    tcp,
    tls::{context::ServerContext, explain, peer},
    worker::Worker,
};
use bytes::BytesMut;
use smallvec::SmallVec;
use socket2::SockRef;
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::StartHandshake;
use tombolo_gateway_core::{
    chain::{self, Sniffed},
    config::{
        Address, FilterChain, Listener, ListenerFilter, Metadata, NetworkFilter, ProxyProtocolSettings, Terminal,
    },
    filter::{Place, Subject, allowed},
    head::ConnInfo,
};

/// TLS may take this long when nothing is configured.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Before a chain is chosen, a silent connection lives this long.
const SILENT: Duration = Duration::from_secs(15);
/// Bytes looked at before a chain is chosen.
const LOOK_AHEAD: usize = 16 * 1024 + 4096;

/// An accepted socket.
pub(crate) enum Socket {
    /// TCP, with the peer's address.
    Tcp(TcpStream, SocketAddr),
    /// A Unix socket, with the path that stands for the peer.
    Unix(UnixStream, String),
}

/// A connection with everything that was learned of it.
pub(crate) struct Inbound {
    /// Its worker.
    pub(crate) worker: Rc<Worker>,
    /// Its listener.
    pub(crate) listener: Arc<Listener>,
    /// Its chain.
    pub(crate) chain: Arc<FilterChain>,
    /// Addresses, TLS, names.
    pub(crate) info: ConnInfo,
    /// Its place in the books.
    pub(crate) entered: Entered,
}

/// Takes in a socket and serves it in a task of its own.
pub(crate) fn accepted(worker: &Rc<Worker>, slot: &Rc<Slot>, socket: Socket) {
    let own = &worker.setup.own;
    let full = slot.listener.borrow().max_connections.is_some_and(|most| slot.open.get() >= most);
    if full {
        own.refused.add(1);
        return;
    }
    own.accepted.add(1);
    own.connections.add(1);
    slot.open.set(slot.open.get() + 1);
    let listener = slot.listener.borrow().clone();
    let entered = slot.connections.enter(
        worker.number(),
        listener.name.clone(),
        Limits { head: Some(SILENT), ..Limits::default() },
    );
    if slot.stopped().is_cancelled() {
        // The others heard of it before this one was there.
        entered.handle.tell(Signal::Last);
    }
    let (worker, slot) = (worker.clone(), slot.clone());
    let guard = worker.setup.drain.guard();
    tokio::task::spawn_local(async move {
        let _count = Count(worker.clone(), slot.clone());
        // Boxed: what it takes to get this far is much, and is not kept while the connection waits for requests.
        let established = Box::pin(establish(worker, &slot, listener, entered, socket)).await;
        if let Some((inbound, stream)) = established {
            serve(inbound, stream).await;
        }
        drop(guard);
    });
}

struct Count(Rc<Worker>, Rc<Slot>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.setup.own.connections.add(-1);
        if std::thread::panicking() {
            self.0.setup.own.panics.add(1);
        }
        self.1.open.set(self.1.open.get().saturating_sub(1));
    }
}

/// Learns what a connection is and ends TLS, where the chain asks for it; `None` when it ended meanwhile.
async fn establish(
    worker: Rc<Worker>,
    slot: &Slot,
    listener: Arc<Listener>,
    entered: Entered,
    socket: Socket,
) -> Option<(Box<Inbound>, Stream)> {
    let (tcp, peer) = match socket {
        Socket::Unix(stream, pipe) => {
            let info = ConnInfo { unix: true, pipe, ..ConnInfo::default() };
            let chain = choose(&listener, &info, &Learned::default())?;
            entered.handle.choose(&chain);
            return Some((Box::new(Inbound { worker, listener, chain, info, entered }), Stream::Unix(stream)));
        }
        Socket::Tcp(tcp, peer) => (tcp, peer),
    };
    let local = tcp.local_addr().ok();
    socket::settle(&tcp, peer, local);
    let mut info = ConnInfo {
        remote: Some(unmap(peer)),
        direct_remote: Some(unmap(peer)),
        local: local.map(unmap),
        ..ConnInfo::default()
    };
    let mut fresh = Fresh { tcp, ahead: BytesMut::new() };
    let handle = entered.handle.clone();
    let mut learned = Learned::default();
    // Whoever is told to end while still being looked at ends.
    let looked = tokio::select! {
        looked = look(&listener, &mut fresh, &mut info, &mut learned) => looked,
        () = std::future::poll_fn(|cx| handle.poll_close(cx)) => return None,
    };
    looked?;
    // The listener may have changed meanwhile: what it said before counts for nobody who comes in now.
    let listener = meant(&worker, slot.listener.borrow().clone(), local, info.local);
    entered.handle.hand_over(&listener.name);
    let Some(chain) = choose(&listener, &info, &learned) else {
        tracing::debug!(listener = %listener.name, peer = ?info.remote, sni = %info.sni, "no filter chain for the connection");
        return None;
    };
    entered.handle.choose(&chain);
    let inbound = Box::new(Inbound { worker, listener, chain, info, entered });
    if inbound.chain.tls.is_some() {
        return secure(inbound, fresh, learned).await;
    }
    Some((inbound, Stream::Tcp(Replay::with(fresh.ahead.freeze(), fresh.tcp))))
}

/// The listener of the place where the client was going, where the one that took it in looks for such and there is one.
fn meant(worker: &Worker, by: Arc<Listener>, own: Option<SocketAddr>, to: Option<SocketAddr>) -> Arc<Listener> {
    let Some(to) = to.filter(|to| by.use_original_dst && Some(*to) != own.map(unmap)) else { return by };
    let live = worker.live();
    let everywhere = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let at = |place: SocketAddr| {
        let listens = |listener: &&Arc<Listener>| listener.addresses.contains(&Address::Socket(place));
        live.config.listeners.iter().map(|(_, listener)| listener).find(listens).cloned()
    };
    at(to).or_else(|| at(SocketAddr::new(everywhere, to.port()))).filter(|other| other.quic.is_none()).unwrap_or(by)
}

/// IPv4 addresses that came in by an IPv6 socket are IPv4 addresses.
fn unmap(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A socket of which the first bytes may have been read.
struct Fresh {
    tcp: TcpStream,
    ahead: BytesMut,
}

impl Fresh {
    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        if self.ahead.len() >= LOOK_AHEAD {
            return false;
        }
        self.ahead.reserve(2048);
        matches!(self.tcp.read_buf(&mut self.ahead).await, Ok(n) if n > 0)
    }
}

/// What the first bytes said.
#[derive(Default)]
struct Learned {
    /// TLS is spoken; `None`: not looked at.
    tls: Option<bool>,
    hello: Option<Box<Hello>>,
    protocols: Vec<String>,
}

/// Runs the listener's filters; `None` ends the connection.
async fn look(listener: &Listener, fresh: &mut Fresh, info: &mut ConnInfo, learned: &mut Learned) -> Option<()> {
    if listener.filters.is_empty() {
        return Some(());
    }
    let limit = listener.filters_timeout.unwrap_or(SILENT).min(SILENT);
    match timeout(limit, filters(listener, fresh, info, learned)).await {
        Ok(outcome) => outcome,
        Err(_) => listener.continue_on_filters_timeout.then_some(()),
    }
}

async fn filters(listener: &Listener, fresh: &mut Fresh, info: &mut ConnInfo, learned: &mut Learned) -> Option<()> {
    for filter in &listener.filters {
        match filter {
            ListenerFilter::OriginalDst => {
                if let Some(address) = original_destination(&fresh.tcp) {
                    info.local = Some(address);
                }
            }
            ListenerFilter::ProxyProtocol(settings) => read_proxy_header(settings, fresh, info).await?,
            ListenerFilter::TlsInspector => inspect_tls(fresh, info, learned).await?,
            ListenerFilter::HttpInspector => inspect_http(fresh, learned).await,
            // Its configuration did not come: without it nothing may pass.
            ListenerFilter::Discovered(_) => return None,
        }
    }
    Some(())
}

fn original_destination(tcp: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(tcp);
    let v4 = tcp.local_addr().ok()?.ip().to_canonical().is_ipv4();
    let found = if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    found.ok()?.as_socket()
}

async fn read_proxy_header(settings: &ProxyProtocolSettings, fresh: &mut Fresh, info: &mut ConnInfo) -> Option<()> {
    loop {
        match proxy_protocol::parse(&fresh.ahead) {
            Parsed::Partial => {
                if !fresh.more().await {
                    return None;
                }
            }
            Parsed::Absent => return settings.optional.then_some(()),
            Parsed::Bad(reason) => {
                tracing::debug!(peer = ?info.direct_remote, reason, "PROXY header refused");
                return None;
            }
            Parsed::Complete(header) => {
                let v1 = fresh.ahead.starts_with(b"PROXY");
                if (v1 && settings.deny_v1) || (!v1 && settings.deny_v2) {
                    return None;
                }
                if let Some((source, destination)) = header.addresses {
                    info.remote = Some(source);
                    info.local = Some(destination);
                }
                let _ = fresh.ahead.split_to(header.length);
                return Some(());
            }
        }
    }
}

async fn inspect_tls(fresh: &mut Fresh, info: &mut ConnInfo, learned: &mut Learned) -> Option<()> {
    let mut sniffer = Sniffer::new();
    loop {
        match sniffer.feed(&fresh.ahead) {
            Tls::Partial => {
                if !fresh.more().await {
                    // Nothing more will come: whatever it is, it is not TLS.
                    learned.tls = Some(false);
                    return (!fresh.ahead.is_empty()).then_some(());
                }
            }
            Tls::Absent => {
                learned.tls = Some(false);
                return Some(());
            }
            Tls::Bad => return None,
            Tls::Hello(hello) => {
                learned.tls = Some(true);
                info.sni = hello.server_name.clone().unwrap_or_default();
                learned.protocols = hello.alpn.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect();
                learned.hello = Some(hello);
                return Some(());
            }
        }
    }
}

async fn inspect_http(fresh: &mut Fresh, learned: &mut Learned) {
    if learned.tls == Some(true) {
        return;
    }
    let protocol = loop {
        match sniff::http(&fresh.ahead) {
            sniff::Http::Partial => {
                if !fresh.more().await {
                    return;
                }
            }
            sniff::Http::Absent => return,
            sniff::Http::Http10 => break "http/1.0",
            sniff::Http::Http11 => break "http/1.1",
            sniff::Http::Http2 => break "h2c",
        }
    };
    learned.protocols = vec![protocol.to_owned()];
}

fn choose(listener: &Listener, info: &ConnInfo, learned: &Learned) -> Option<Arc<FilterChain>> {
    let protocols: SmallVec<[&str; 4]> = learned.protocols.iter().map(String::as_str).collect();
    let sniffed = Sniffed {
        destination: info.local,
        source: info.remote,
        direct_source: info.direct_remote,
        server_name: &info.sni,
        // As in Envoy, what nobody looked at counts as plain.
        transport: if learned.tls == Some(true) { "tls" } else { "raw_buffer" },
        application_protocols: &protocols,
    };
    chain::choose(listener, sniffed).cloned()
}

/// Ends TLS.
async fn secure(mut inbound: Box<Inbound>, mut fresh: Fresh, mut learned: Learned) -> Option<(Box<Inbound>, Stream)> {
    let limit = inbound.chain.tls_timeout.unwrap_or(HANDSHAKE);
    let handle = inbound.entered.handle.clone();
    let secured = tokio::select! {
        done = timeout(limit, handshake(&mut inbound, &mut fresh, &mut learned)) => done,
        () = std::future::poll_fn(|cx| handle.poll_close(cx)) => return None,
    };
    let start = match secured {
        Ok(Some(accept)) => accept,
        Ok(None) | Err(_) => {
            inbound.worker.setup.own.handshakes_failed.add(1);
            return None;
        }
    };
    let context = start.context.clone();
    let stream = tokio::select! {
        done = timeout(limit, start.into_accept(fresh.tcp)) => done,
        () = std::future::poll_fn(|cx| handle.poll_close(cx)) => return None,
    };
    match stream {
        Ok(Ok(stream)) => {
            inbound.info.tls = Some(Box::new(peer::info(stream.get_ref().1, &inbound.chain, &context)));
            return Some((inbound, Stream::TlsServer(Box::new(stream))));
        }
        Ok(Err(error)) => {
            inbound.worker.setup.own.handshakes_failed.add(1);
            tracing::debug!(listener = %inbound.listener.name, peer = ?inbound.info.remote, error = %explain(&error), "TLS handshake failed");
        }
        Err(_) => inbound.worker.setup.own.handshakes_failed.add(1),
    }
    None
}

/// A handshake of which the hello was read.
struct Begun {
    accepted: rustls::server::Accepted,
    config: Arc<rustls::ServerConfig>,
    context: ServerContext,
}

impl Begun {
    fn into_accept(self, tcp: TcpStream) -> tokio_rustls::Accept<Replay<TcpStream>> {
        StartHandshake::from_parts(self.accepted, Replay::new(tcp)).into_stream(self.config)
    }
}

async fn handshake(inbound: &mut Inbound, fresh: &mut Fresh, learned: &mut Learned) -> Option<Begun> {
    if learned.hello.is_none() {
        inspect_tls(fresh, &mut inbound.info, learned).await?;
    }
    let hello = learned.hello.take()?;
    let context = inbound.chain.tls.as_ref()?;
    let live = inbound.worker.live();
    let built = match inbound.worker.setup.tls.server(context, &live.config) {
        Ok(built) => built,
        Err(reason) => {
            tracing::warn!(listener = %inbound.listener.name, chain = %inbound.chain.name, %reason, "TLS cannot be ended");
            return None;
        }
    };
    if built.require_sni && hello.server_name.is_none() {
        return None;
    }
    let shares = hello.alpn.iter().any(|offered| built.with_alpn.alpn_protocols.contains(offered));
    let config = if shares { built.with_alpn.clone() } else { built.without_alpn.clone() };
    Some(Begun { accepted: hello.accepted?, config, context: built })
}

/// Hands the connection to what ends its chain.
async fn serve(inbound: Box<Inbound>, stream: Stream) {
    let Some(_places) = Box::pin(admitted(&inbound)).await else { return };
    let chain = inbound.chain.clone();
    match &chain.terminal {
        Terminal::Http(hcm) => http::serve(inbound, hcm.clone(), stream).await,
        Terminal::Tcp(proxy) => Box::pin(tcp::serve(inbound, proxy.clone(), stream)).await,
    }
}

/// The places that the connection has in the filters of its chain, for as long as it lives; `None` when they do not let it
/// pass. Who comes too late for a place may be kept waiting before that.
pub(crate) async fn admitted(inbound: &Inbound) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    let Some(full) = passes(inbound, &mut places) else { return Some(places) };
    drop(places);
    let delay = full?;
    let handle = &inbound.entered.handle;
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = std::future::poll_fn(|cx| handle.poll_close(cx)) => {}
    }
    None
}

/// Whether a filter of the chain refuses the connection, and how long it is to be kept waiting then.
fn passes(inbound: &Inbound, places: &mut Vec<Place>) -> Option<Option<Duration>> {
    let mut delay = None;
    let passes = inbound.chain.filters.iter().all(|filter| match filter {
        // Kept by what ends the chain.
        NetworkFilter::MeshStats | NetworkFilter::SniCluster => true,
        NetworkFilter::ConnectionLimit(limit) => {
            let place = limit.take();
            if place.is_none() {
                tracing::debug!(listener = %inbound.listener.name, "connection refused, its chain has as many as it may");
                inbound.worker.setup.own.refused.add(1);
                delay = limit.delay;
            }
            let taken = place.is_some();
            places.extend(place);
            taken
        }
        NetworkFilter::LocalRateLimit(bucket, key, default) => {
            let live = inbound.worker.live();
            let on = if key.is_empty() { *default } else { live.config.runtime.boolean(key, *default) };
            !on || bucket.take(inbound.worker.now())
        }
        NetworkFilter::Rbac(rules) => {
            let none = Metadata::default();
            let subject = Subject { conn: &inbound.info, client: None, head: None, metadata: &none };
            if let Err(details) = allowed(rules, subject) {
                tracing::debug!(listener = %inbound.listener.name, %details, "connection refused");
                return false;
            }
            true
        }
        // Its configuration did not come: without it nothing may pass.
        NetworkFilter::Discovered(_) => false,
    });
    (!passes).then_some(delay)
}

#[cfg(test)]
mod tests {
    fn size_of_future<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Every idle connection holds this much in its task.
    #[test]
    fn an_idle_connection_is_small() {
        let size = size_of_future(super::serve);
        assert!(size <= 1536, "{size}");
    }
}
