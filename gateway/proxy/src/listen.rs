//! The listeners of one worker: sockets that follow the configuration, and the connections that came in by them.
//!
//! Owns accept loops. A listener that cannot be bound is tried again and never stops its neighbours. One that is removed
//! or changed drains: what was accepted is finished, what waits in the kernel's queue is still taken in.

use crate::{
    clock, inbound,
    net::{bound::Options, socket},
    worker::Worker,
};
use ahash::AHashMap;
use std::{
    cell::{Cell, RefCell},
    fmt, io,
    net::SocketAddr,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tombolo_gateway_core::config::{Address, FilterChain, Listener};

/// A listener that cannot be bound is tried again after this.
const REBIND: Duration = Duration::from_secs(1);
/// Clocks shorter than this are kept by the connection itself where nothing else needs its task; the sweep is too coarse.
const SHORT: Duration = Duration::from_secs(30);
/// A connection whose listener or chain is gone waits so long for its last request, as in Envoy.
const DRAIN_TIME: Duration = Duration::from_secs(600);
/// A connection that is told to finish because nothing happens on it has this long to do so.
const FAREWELL: Duration = Duration::from_secs(30);
/// Accepting pauses for so long when the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(200);

/// All listeners of a worker.
pub(crate) struct Listeners {
    worker: Rc<Worker>,
    sockets: RefCell<AHashMap<Arc<str>, Rc<Slot>>>,
    /// Those without a socket: others hand connections to them.
    handed: RefCell<AHashMap<Arc<str>, Arc<Listener>>>,
    connections: Rc<Connections>,
    /// There was something to listen on, and all of it was tried once.
    tried: Cell<bool>,
}

/// One listener's sockets, as long as its addresses stay the same.
pub(crate) struct Slot {
    /// Its newest configuration.
    pub(crate) listener: RefCell<Arc<Listener>>,
    /// Connections open.
    pub(crate) open: Cell<u32>,
    /// Stops the accept loops.
    stop: CancellationToken,
    /// What it shares with the other listeners of the worker.
    pub(crate) connections: Rc<Connections>,
}

impl Slot {
    /// A connection that came in by this version of the listener has found its chain. One that is no longer there serves what
    /// was begun, as if the connection had been there before.
    pub(crate) fn choose(&self, by: &Arc<Listener>, chain: &Arc<FilterChain>, handle: &Handle) {
        handle.choose(chain);
        let now = self.listener.borrow();
        let here = || now.chains.iter().chain(&now.default_chain).any(|new| **new == **chain);
        if self.stop.is_cancelled() || !(Arc::ptr_eq(by, &now) || (same_but_chains(by, &now) && here())) {
            handle.tell(Signal::Last);
        }
    }

    /// Says when nothing new is to be accepted.
    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.stop
    }
}

/// The connections of a worker, so that idle ones cost no timer and all of them can be told to finish.
#[derive(Default)]
pub(crate) struct Connections {
    open: RefCell<AHashMap<u64, Rc<Handle>>>,
}

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Signal {
    /// Nothing.
    None,
    /// Answer what is under way and what comes next, and end with that: a client that keeps the connection cannot know yet.
    Last,
    /// Finish what is under way and take nothing new.
    Drain,
    /// End now.
    Close,
}

/// One connection, as the sweep sees it.
pub(crate) struct Handle {
    /// Unique in the worker.
    pub(crate) id: u64,
    /// The listener that serves it.
    listener: RefCell<Arc<str>>,
    chain: RefCell<Option<Arc<FilterChain>>>,
    signal: Cell<Signal>,
    waker: RefCell<Option<Waker>>,
    /// Requests under way.
    pub(crate) active: Cell<u32>,
    /// Requests so far.
    pub(crate) requests: Cell<u32>,
    /// Since when no request is under way.
    idle_since: Cell<Instant>,
    /// Since when a request's head is incomplete, as far as the sweep noticed.
    head_since: Cell<Option<Instant>>,
    /// Something arrived since the last sweep.
    pub(crate) arrived: Arc<AtomicBool>,
    /// The connection is to be closed with patience: its client may still be sending.
    pub(crate) linger: Arc<AtomicBool>,
    /// The client was told to go on with its request.
    pub(crate) continued: Cell<bool>,
    /// Whoever is late with a head can be told so.
    pub(crate) answers: Cell<bool>,
    late: Cell<bool>,
    opened: Instant,
    limits: Cell<Limits>,
}

/// Clocks of a connection; `None`: no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Without a request.
    pub(crate) idle: Option<Duration>,
    /// For the head of a request.
    pub(crate) head: Option<Duration>,
    /// In all.
    pub(crate) life: Option<Duration>,
    /// Nothing can be finished: a connection whose time is up is cut.
    pub(crate) abrupt: bool,
}

/// Which clock ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Nothing moved for too long.
    Idle,
    /// The connection is too old.
    Life,
}

impl Handle {
    /// Registers the task of the connection and says what it is told.
    pub(crate) fn poll_signal(&self, cx: &mut Context<'_>) -> Signal {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.signal.get()
    }

    /// Resolves when the connection is told to end at once.
    pub(crate) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_signal(cx) == Signal::Close { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Resolves when a short clock of a connection of bytes has run out; long ones are the sweep's.
    pub(crate) async fn expired(&self) -> Clock {
        let limits = self.limits.get();
        let short = |limit: Option<Duration>| limit.filter(|limit| *limit < SHORT);
        loop {
            let ends = [
                short(limits.idle).map(|limit| (self.idle_since.get() + limit, Clock::Idle)),
                short(limits.life).map(|limit| (self.opened + limit, Clock::Life)),
            ];
            let next = ends.into_iter().flatten().min_by_key(|(end, _)| *end);
            let Some((next, clock)) = next else { return std::future::pending().await };
            if next <= Instant::now() {
                return clock;
            }
            tokio::time::sleep_until(next.into()).await;
        }
    }

    /// Tells the connection something; a stronger word before stays.
    pub(crate) fn tell(&self, signal: Signal) {
        if signal > self.signal.get() {
            self.signal.set(signal);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The head of a request takes too long.
    pub(crate) fn is_late(&self) -> bool {
        self.late.get()
    }

    /// It belongs to this listener from now on, whichever took it in.
    pub(crate) fn hand_over(&self, listener: &Arc<str>) {
        *self.listener.borrow_mut() = listener.clone();
    }

    /// It belongs to this chain from now on: when that goes, it is told.
    pub(crate) fn choose(&self, chain: &Arc<FilterChain>) {
        *self.chain.borrow_mut() = Some(chain.clone());
    }

    /// It is served by its chain from now on, and these clocks count.
    pub(crate) fn settle(&self, limits: Limits) {
        self.limits.set(limits);
        self.head_since.set(None);
        self.touch();
    }

    /// Something moved.
    pub(crate) fn touch(&self) {
        self.idle_since.set(Instant::now());
    }

    /// A request begins.
    pub(crate) fn begin(&self) {
        self.active.set(self.active.get() + 1);
        self.requests.set(self.requests.get().saturating_add(1));
        self.head_since.set(None);
        self.arrived.store(false, Ordering::Relaxed);
    }

    /// A request is over.
    pub(crate) fn end(&self) {
        let active = self.active.get().saturating_sub(1);
        self.active.set(active);
        if active == 0 {
            // Whoever ends a request has just read the clock.
            self.idle_since.set(clock::recent());
        }
    }

    fn check(&self, now: Instant) {
        let limits = self.limits.get();
        let over =
            |since: Instant, limit: Option<Duration>| limit.is_some_and(|l| now.saturating_duration_since(since) >= l);
        if self.active.get() == 0 {
            // While no request is under way, bytes are the beginning of one.
            if self.head_since.get().is_none() && self.arrived.swap(false, Ordering::Relaxed) {
                self.head_since.set(Some(now));
            }
            if self.head_since.get().is_some_and(|since| over(since, limits.head)) {
                if self.answers.get() && !self.late.replace(true) {
                    self.wake();
                } else {
                    self.tell(Signal::Close);
                }
            } else if over(self.idle_since.get(), limits.idle)
                || (self.signal.get() == Signal::Last && over(self.idle_since.get(), Some(DRAIN_TIME)))
            {
                self.tell(if limits.abrupt { Signal::Close } else { Signal::Drain });
                // Whoever takes nothing in cannot be told anything, either.
                let deaf = limits.idle.map(|idle| idle.saturating_add(FAREWELL));
                if self.signal.get() == Signal::Drain && over(self.idle_since.get(), deaf) {
                    self.tell(Signal::Close);
                }
            }
        }
        if over(self.opened, limits.life) {
            self.tell(if limits.abrupt { Signal::Close } else { Signal::Drain });
        }
    }
}

impl Connections {
    /// Enters a connection.
    pub(crate) fn enter(self: &Rc<Self>, id: u64, listener: Arc<str>, limits: Limits) -> Entered {
        let now = Instant::now();
        let handle = Rc::new(Handle {
            id,
            listener: RefCell::new(listener),
            chain: RefCell::new(None),
            signal: Cell::new(Signal::None),
            waker: RefCell::new(None),
            active: Cell::new(0),
            requests: Cell::new(0),
            idle_since: Cell::new(now),
            head_since: Cell::new(Some(now)),
            arrived: Arc::default(),
            linger: Arc::default(),
            continued: Cell::new(false),
            answers: Cell::new(false),
            late: Cell::new(false),
            opened: now,
            limits: Cell::new(limits),
        });
        self.open.borrow_mut().insert(id, handle.clone());
        Entered { handle, connections: self.clone() }
    }

    fn tell(&self, signal: Signal, which: impl Fn(&Handle) -> bool) {
        // Copied first: whoever is woken may leave the books.
        let told: Vec<Rc<Handle>> = self.open.borrow().values().filter(|h| which(h)).cloned().collect();
        told.iter().for_each(|handle| handle.tell(signal));
    }
}

/// A connection in the books; leaves them when dropped.
pub(crate) struct Entered {
    /// What is known of it.
    pub(crate) handle: Rc<Handle>,
    connections: Rc<Connections>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.handle.id);
    }
}

impl Listeners {
    /// None yet.
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        Self {
            worker,
            sockets: RefCell::default(),
            handed: RefCell::default(),
            connections: Rc::default(),
            tried: Cell::new(false),
        }
    }

    /// Follows the newest configuration.
    pub(crate) fn follow(&self) {
        let live = self.worker.live();
        let wanted = &live.config.listeners;
        let mut sockets = self.sockets.borrow_mut();
        let mut gone = Vec::new();
        sockets.retain(|name, slot| {
            let now = wanted.get(name);
            let stays = now.is_some_and(|now| same_sockets(now, &slot.listener.borrow()));
            if !stays {
                self.gone(name);
                gone.push(slot.clone());
            }
            stays
        });
        self.handed.borrow_mut().retain(|name, before| match wanted.get(name).filter(|now| !now.bind_to_port) {
            Some(now) => {
                self.changed(&std::mem::replace(before, now.clone()), now);
                true
            }
            None => {
                self.gone(name);
                false
            }
        });
        for (name, listener) in wanted.iter() {
            match sockets.get(name) {
                Some(slot) => self.changed(&slot.listener.replace(listener.clone()), listener),
                None if !listener.bind_to_port => drop(self.handed.borrow_mut().insert(name.clone(), listener.clone())),
                None => drop(sockets.insert(name.clone(), self.open(listener))),
            }
        }
        // Last: at no moment does nobody listen where both the one that goes and the one that comes do.
        gone.iter().for_each(|slot| slot.stop.cancel());
        if !wanted.is_empty() && !self.tried.replace(true) {
            // Where it was in vain it counts as unbound by now.
            self.worker.setup.own.listening.add(1);
        }
    }

    fn gone(&self, name: &Arc<str>) {
        self.connections.tell(Signal::Last, |h| *h.listener.borrow() == *name);
    }

    /// The same listener with other contents: connections whose chain changed finish, the others go on, unless something else
    /// than chains changed.
    fn changed(&self, before: &Arc<Listener>, now: &Arc<Listener>) {
        if Arc::ptr_eq(now, before) {
            return;
        }
        let all = |l: &Listener| l.chains.iter().chain(l.default_chain.as_ref()).cloned().collect::<Vec<_>>();
        let kept = all(now);
        let in_place = same_but_chains(before, now);
        let stays = |old: &Arc<FilterChain>| in_place && kept.iter().any(|new| **new == **old);
        let gone: Vec<Arc<FilterChain>> = all(before).into_iter().filter(|old| !stays(old)).collect();
        if !gone.is_empty() {
            self.connections.tell(Signal::Last, |h| {
                *h.listener.borrow() == now.name
                    && h.chain.borrow().as_ref().is_some_and(|c| gone.iter().any(|g| **g == **c))
            });
        }
    }

    /// Every address is tried before this returns, and tried again later where that was in vain.
    fn open(&self, listener: &Arc<Listener>) -> Rc<Slot> {
        let slot = Rc::new(Slot {
            listener: RefCell::new(listener.clone()),
            open: Cell::new(0),
            stop: CancellationToken::new(),
            connections: self.connections.clone(),
        });
        for address in &listener.addresses {
            let (worker, slot) = (self.worker.clone(), slot.clone());
            match address {
                Address::Socket(address) if listener.quic.is_some() => {
                    tokio::task::spawn_local(crate::quic::listen(worker, slot, *address));
                }
                Address::Socket(address) => {
                    let first = take_tcp(&worker, &slot, *address);
                    let first = first.map_err(|error| Unbound::new(&worker, &slot, address, &error));
                    tokio::task::spawn_local(accept_tcp(worker, slot, *address, first));
                }
                Address::Pipe(path, mode) => {
                    let first = worker.setup.bound.take_unix(path, *mode);
                    let first = first.map_err(|error| Unbound::new(&worker, &slot, path, &error));
                    tokio::task::spawn_local(accept_unix(worker, slot, (path.clone(), *mode), first));
                }
                Address::Internal => {}
            }
        }
        slot
    }

    /// Stops accepting and lets connections finish.
    pub(crate) fn drain_all(&self) {
        self.sockets.borrow_mut().drain().for_each(|(_, slot)| slot.stop.cancel());
        self.connections.tell(Signal::Last, |_| true);
    }

    /// Ends everything.
    pub(crate) fn cut_all(&self) {
        self.drain_all();
        self.connections.tell(Signal::Close, |_| true);
    }

    /// Looks for connections whose time is up. While draining also tells those that came in meanwhile.
    pub(crate) fn sweep(&self, draining: bool) {
        let now = Instant::now();
        let all: Vec<Rc<Handle>> = self.connections.open.borrow().values().cloned().collect();
        for handle in all {
            handle.check(now);
            if draining {
                handle.tell(Signal::Drain);
            }
        }
    }
}

/// Whether nothing but the chains of a listener changed.
fn same_but_chains(before: &Listener, now: &Listener) -> bool {
    let Listener { chains, index, default_chain, .. } = now.clone();
    Listener { chains, index, default_chain, ..before.clone() } == *now
}

fn same_sockets(a: &Listener, b: &Listener) -> bool {
    a.addresses == b.addresses
        && a.transparent == b.transparent
        && a.freebind == b.freebind
        && a.ipv4_compat == b.ipv4_compat
        && a.bind_to_port == b.bind_to_port
        && a.quic == b.quic
}

/// Gives an address back when its accept loop ends.
struct Returned(Rc<Worker>, SocketAddr);

impl Drop for Returned {
    fn drop(&mut self) {
        self.0.setup.bound.closed(self.1);
    }
}

fn take_tcp(worker: &Worker, slot: &Slot, address: SocketAddr) -> io::Result<TcpListener> {
    let listener = slot.listener.borrow();
    let options = Options {
        transparent: listener.transparent,
        freebind: listener.freebind,
        ipv4_compat: listener.ipv4_compat,
        backlog: listener.backlog,
    };
    worker.setup.bound.take(address, options)
}

async fn accept_tcp(worker: Rc<Worker>, slot: Rc<Slot>, address: SocketAddr, first: Result<TcpListener, Unbound>) {
    let again = || take_tcp(&worker, &slot, address);
    let Some(socket) = bind(&slot, first, again).await else { return };
    // Declared first, so that it is dropped after the socket is closed.
    let returned = Returned(worker.clone(), address);
    let socket = socket;
    loop {
        tokio::select! {
            biased;
            () = slot.stop.cancelled() => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => inbound::accepted(&worker, &slot, inbound::Socket::Tcp(stream, peer)),
                Err(error) => pause(&slot, &error).await,
            }
        }
    }
    if let Ok(queue) = socket.into_std() {
        socket::rest(|| {
            let (stream, peer) = queue.accept()?;
            stream.set_nonblocking(true)?;
            inbound::accepted(&worker, &slot, inbound::Socket::Tcp(TcpStream::from_std(stream)?, peer));
            Ok(())
        });
    }
    drop(returned);
}

/// An address that could not be listened on, counted for as long as this lives.
struct Unbound(Rc<Worker>);

impl Unbound {
    fn new(worker: &Rc<Worker>, slot: &Slot, place: &impl fmt::Display, error: &io::Error) -> Self {
        worker.setup.own.unbound.add(1);
        let name = slot.listener.borrow().name.clone();
        tracing::warn!(listener = %name, address = %place, %error, "listener not bound, trying again");
        Self(worker.clone())
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        self.0.setup.own.unbound.add(-1);
    }
}

/// A socket to accept from, tried for again and again; `None` when the listener is stopped before there is one.
async fn bind<S>(slot: &Slot, first: Result<S, Unbound>, again: impl Fn() -> io::Result<S>) -> Option<S> {
    let _unbound = match first {
        Ok(socket) => return Some(socket),
        Err(unbound) => unbound,
    };
    loop {
        tokio::select! {
            () = slot.stop.cancelled() => return None,
            () = tokio::time::sleep(REBIND) => {}
        }
        if let Ok(socket) = again() {
            return Some(socket);
        }
    }
}

async fn accept_unix(
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    (path, mode): (Arc<str>, Option<u32>),
    first: Result<UnixListener, Unbound>,
) {
    let again = || worker.setup.bound.take_unix(&path, mode);
    let Some(socket) = bind(&slot, first, again).await else { return };
    let named = |peer: Option<&Path>| peer.map_or_else(|| path.to_string(), |own| own.display().to_string());
    loop {
        tokio::select! {
            biased;
            () = slot.stop.cancelled() => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    inbound::accepted(&worker, &slot, inbound::Socket::Unix(stream, named(peer.as_pathname())));
                }
                Err(error) => pause(&slot, &error).await,
            }
        }
    }
    if let Ok(queue) = socket.into_std() {
        // The other workers and a listener that takes this one's place have the same queue.
        socket::rest(|| {
            let (stream, peer) = queue.accept()?;
            stream.set_nonblocking(true)?;
            let from = named(peer.as_pathname());
            inbound::accepted(&worker, &slot, inbound::Socket::Unix(UnixStream::from_std(stream)?, from));
            Ok(())
        });
    }
    worker.setup.bound.closed_unix(&path);
}

/// Accepting failed. Without file descriptors a loop would spin: connections that wait are left waiting.
async fn pause(slot: &Slot, error: &io::Error) {
    let exhausted =
        [nix::errno::Errno::EMFILE, nix::errno::Errno::ENFILE, nix::errno::Errno::ENOBUFS, nix::errno::Errno::ENOMEM];
    if exhausted.iter().any(|e| error.raw_os_error() == Some(*e as i32)) {
        tracing::warn!(listener = %slot.listener.borrow().name, %error, "accepting pauses");
        tokio::time::sleep(PAUSE).await;
    }
}
