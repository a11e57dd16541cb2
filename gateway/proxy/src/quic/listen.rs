//! A QUIC listener of one worker, and each connection up to the end of its handshake.
//!
//! Owns the bounds of the beginning: how many handshakes go on at once, and from when on a client must first show that its
//! address is its own.

use super::{
    bind::{Ids, Taken},
    session::{self, Choice, Choosing, Chosen},
    transport,
};
use crate::{
    codec::serve_http3,
    inbound::{self, Inbound},
    listen::{Entered, Limits, Slot},
    net::bound::Options,
    tls::peer,
    worker::Worker,
};
use quinn::{Connecting, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime};
use rustls::pki_types::CertificateDer;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tombolo_gateway_core::{
    config::{QuicSettings, Terminal},
    head::ConnInfo,
};

/// A listener that cannot be bound is tried again after this.
const REBIND: Duration = Duration::from_secs(1);
/// A handshake may take this long when nothing is configured.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// With so many handshakes under way, new clients must prove their address first.
const CALM: u32 = 64;
/// With so many, new clients are sent away.
const MOST: u32 = 1024;
/// H3_REQUEST_REJECTED: who is not let in may try elsewhere.
const REFUSED: u32 = 0x10b;
/// Bytes kept of connections that were not looked at yet.
const WAITING: u64 = 4 << 20;

/// Listens until the listener is stopped and its connections have ended. Tried for the first time at once; the rest is the
/// future's.
pub(crate) fn listen(worker: Rc<Worker>, slot: Rc<Slot>, address: SocketAddr) -> impl Future<Output = ()> {
    let mut unbound = Unbound { worker: worker.clone(), counted: false };
    let mut tried = open(&worker, &slot, address);
    if let Err(error) = &tried {
        unbound.failed(&slot, address, error);
    }
    async move {
        loop {
            match tried {
                Ok(endpoint) => {
                    unbound.bound();
                    serve(&worker, &slot, address, &endpoint).await;
                    leave(&worker, address, endpoint).await;
                }
                Err(error) => unbound.failed(&slot, address, &error),
            }
            tokio::select! {
                biased;
                () = slot.stopped().cancelled() => return,
                () = sleep(REBIND) => {}
            }
            tried = open(&worker, &slot, address);
        }
    }
}

/// The endpoints of a worker by their address. A listener that takes another's place takes over its endpoint with the
/// connections on it: packets find their way by connection ids, and a second socket would not know these.
#[derive(Default)]
pub(crate) struct Endpoints(RefCell<HashMap<SocketAddr, Shared>>);

struct Shared {
    endpoint: Endpoint,
    /// Listeners that have it.
    users: usize,
    /// Told when there is one more.
    taken: Rc<Notify>,
}

impl Endpoints {
    /// The endpoint of a listener that goes, for one that comes.
    fn take_over(&self, address: SocketAddr) -> Option<Endpoint> {
        let mut all = self.0.borrow_mut();
        let shared = all.get_mut(&address)?;
        shared.users += 1;
        shared.taken.notify_waiters();
        Some(shared.endpoint.clone())
    }

    fn enter(&self, address: SocketAddr, endpoint: &Endpoint) {
        self.0.borrow_mut().insert(address, Shared { endpoint: endpoint.clone(), users: 1, taken: Rc::default() });
    }

    /// Resolves when another listener has the endpoint, too; `None` when one has it already.
    fn alone(&self, address: SocketAddr) -> Option<Rc<Notify>> {
        let all = self.0.borrow();
        all.get(&address).filter(|shared| shared.users == 1).map(|shared| shared.taken.clone())
    }

    /// A listener is gone; true when it was the last that had the endpoint.
    fn leave(&self, address: SocketAddr) -> bool {
        let mut all = self.0.borrow_mut();
        let Some(shared) = all.get_mut(&address) else { return false };
        shared.users -= 1;
        shared.users == 0 && all.remove(&address).is_some()
    }
}

/// Leaves an endpoint to who takes it over, or else lets those who are there end in their own time, and nobody new come.
async fn leave(worker: &Worker, address: SocketAddr, endpoint: Endpoint) {
    if let Some(taken) = worker.quic.alone(address) {
        endpoint.set_server_config(None);
        tokio::select! {
            () = taken.notified() => {}
            () = endpoint.wait_idle() => {}
        }
    }
    drop(endpoint);
    if worker.quic.leave(address) {
        // Its task must run once more to let go of the socket.
        tokio::task::yield_now().await;
        worker.setup.udp.closed(address);
    }
}

/// Counts as unbound while it is.
struct Unbound {
    worker: Rc<Worker>,
    counted: bool,
}

impl Unbound {
    fn failed(&mut self, slot: &Slot, address: SocketAddr, error: &std::io::Error) {
        if !std::mem::replace(&mut self.counted, true) {
            self.worker.setup.own.unbound.add(1);
            let name = slot.listener.borrow().name.clone();
            tracing::warn!(listener = %name, %address, %error, "listener not bound, trying again");
        }
    }

    fn bound(&mut self) {
        if std::mem::replace(&mut self.counted, false) {
            self.worker.setup.own.unbound.add(-1);
        }
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        self.bound();
    }
}

fn open(worker: &Rc<Worker>, slot: &Slot, address: SocketAddr) -> std::io::Result<Endpoint> {
    if let Some(endpoint) = worker.quic.take_over(address) {
        return Ok(endpoint);
    }
    let options = {
        let listener = slot.listener.borrow();
        Options { freebind: listener.freebind, ipv4_compat: listener.ipv4_compat, ..Options::default() }
    };
    let Taken { socket, place } = worker.setup.udp.take(address, options)?;
    let mut config = EndpointConfig::default();
    config.cid_generator(move || Box::new(Ids(place)));
    let server = server_config(worker, slot, address, address, None);
    let endpoint = server.and_then(|(server, _)| Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime)));
    endpoint.inspect(|endpoint| worker.quic.enter(address, endpoint)).inspect_err(|_| worker.setup.udp.closed(address))
}

/// The settings of one connection; the endpoint itself has those of nobody.
fn server_config(
    worker: &Worker,
    slot: &Slot,
    remote: SocketAddr,
    local: SocketAddr,
    before: Option<&ServerConfig>,
) -> std::io::Result<(ServerConfig, Arc<Choice>)> {
    let listener = slot.listener.borrow().clone();
    let base = session::base().ok_or_else(|| std::io::Error::other("QUIC has no keys"))?;
    let transport = match before {
        Some(before) => before.transport.clone(),
        None => transport::downstream(&settings(slot)),
    };
    let choice = Arc::new(Choice {
        listener,
        config: worker.live().config.clone(),
        store: worker.setup.tls.clone(),
        remote,
        local: Some(local),
        chosen: OnceLock::new(),
    });
    let crypto = Arc::new(Choosing { base, choice: choice.clone() });
    let mut config = match before {
        // Its tokens must stay readable.
        Some(before) => before.clone(),
        None => ServerConfig::with_crypto(crypto.clone()),
    };
    config.crypto = crypto;
    config.transport_config(transport).incoming_buffer_size_total(WAITING);
    Ok((config, choice))
}

fn settings(slot: &Slot) -> QuicSettings {
    slot.listener.borrow().quic.clone().unwrap_or_default()
}

async fn serve(worker: &Rc<Worker>, slot: &Rc<Slot>, address: SocketAddr, endpoint: &Endpoint) {
    let Ok((config, _)) = server_config(worker, slot, address, address, None) else { return };
    endpoint.set_server_config(Some(config.clone()));
    let handshakes = Rc::new(Cell::new(0));
    loop {
        tokio::select! {
            biased;
            () = slot.stopped().cancelled() => return,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => take(worker, slot, address, &config, &handshakes, incoming),
                // Its task ended, which only a mistake in it explains: a new one is opened.
                None => {
                    worker.setup.own.panics.add(1);
                    return;
                }
            }
        }
    }
}

fn take(
    worker: &Rc<Worker>,
    slot: &Rc<Slot>,
    address: SocketAddr,
    before: &ServerConfig,
    handshakes: &Rc<Cell<u32>>,
    incoming: Incoming,
) {
    let own = &worker.setup.own;
    let full = slot.listener.borrow().max_connections.is_some_and(|most| slot.open.get() >= most);
    if full || handshakes.get() >= MOST || settings(slot).refuses {
        own.refused.add(1);
        return incoming.refuse();
    }
    if handshakes.get() >= CALM && !incoming.remote_address_validated() && incoming.may_retry() {
        // An error says that this cannot be; then the packet is dropped, and the client sends it again.
        let _ = incoming.retry();
        return;
    }
    let remote = unmap(incoming.remote_address());
    let ip: IpAddr = incoming.local_ip().unwrap_or(address.ip());
    let local = unmap(SocketAddr::new(ip, address.port()));
    let Ok((config, choice)) = server_config(worker, slot, remote, local, Some(before)) else {
        return incoming.refuse();
    };
    let connecting = match incoming.accept_with(Arc::new(config)) {
        Ok(connecting) => connecting,
        Err(error) => {
            own.handshakes_failed.add(1);
            return tracing::debug!(peer = %remote, %error, "QUIC connection refused");
        }
    };
    own.accepted.add(1);
    own.connections.add(1);
    slot.open.set(slot.open.get() + 1);
    let name = slot.listener.borrow().name.clone();
    let entered = slot.connections.enter(worker.number(), name, Limits::default());
    let counts = Counts { worker: worker.clone(), slot: slot.clone() };
    let shaking = Shaking::new(handshakes);
    let guard = worker.setup.drain.guard();
    tokio::task::spawn_local(async move {
        connection(&counts, choice, entered, connecting, shaking).await;
        drop(counts);
        drop(guard);
    });
}

struct Counts {
    worker: Rc<Worker>,
    slot: Rc<Slot>,
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.worker.setup.own.connections.add(-1);
        if std::thread::panicking() {
            self.worker.setup.own.panics.add(1);
        }
        self.slot.open.set(self.slot.open.get().saturating_sub(1));
    }
}

/// A handshake under way.
struct Shaking(Rc<Cell<u32>>);

impl Shaking {
    fn new(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

async fn connection(
    Counts { worker, slot }: &Counts,
    choice: Arc<Choice>,
    entered: Entered,
    connecting: Connecting,
    shaking: Shaking,
) {
    let handle = entered.handle.clone();
    let limit = choice.listener.quic.as_ref().and_then(|quic| quic.handshake).unwrap_or(HANDSHAKE);
    let shaken = tokio::select! {
        shaken = timeout(limit, connecting) => shaken,
        () = std::future::poll_fn(|cx| handle.poll_close(cx)) => return,
    };
    drop(shaking);
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            worker.setup.own.handshakes_failed.add(1);
            tracing::debug!(listener = %choice.listener.name, peer = %choice.remote, %error, "QUIC handshake failed");
            return;
        }
        Err(_) => return worker.setup.own.handshakes_failed.add(1),
    };
    let Some(chosen) = choice.chosen.get() else { return };
    let Terminal::Http(hcm) = chosen.chain.terminal.clone() else { return };
    slot.choose(&choice.listener, &chosen.chain, &handle);
    let info = ConnInfo {
        remote: Some(choice.remote),
        direct_remote: Some(choice.remote),
        local: choice.local,
        sni: chosen.sni.clone(),
        tls: Some(Box::new(tls(&connection, chosen))),
        ..ConnInfo::default()
    };
    let inbound = Inbound {
        worker: worker.clone(),
        listener: choice.listener.clone(),
        chain: chosen.chain.clone(),
        info,
        entered,
    };
    let Some(_places) = Box::pin(inbound::admitted(&inbound)).await else {
        return connection.close(REFUSED.into(), b"");
    };
    serve_http3(inbound, hcm, connection).await;
}

fn tls(connection: &quinn::Connection, chosen: &Chosen) -> tombolo_gateway_core::head::TlsInfo {
    let certificates = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let data = connection.handshake_data().and_then(|any| any.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    let alpn = data.and_then(|data| data.protocol).unwrap_or_default();
    let certificates = certificates.map(|all| *all).unwrap_or_default();
    // QUIC is TLS 1.3; which of its ciphers was taken is not told.
    peer::of("TLSv1.3", "", &alpn, &certificates, &chosen.chain, &chosen.context)
}

fn unmap(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
