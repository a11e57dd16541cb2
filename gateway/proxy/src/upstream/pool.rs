//! The connections of one worker to one endpoint over one transport.
//!
//! Owns idle HTTP/1 connections (last used, first taken), HTTP/2 connections with their streams, and the requests that
//! wait for either. Never decides whether a request is tried again. HTTP/1 connections are driven by whoever leases them,
//! HTTP/2 connections by tasks of the worker; a connection that ends takes itself out of the books.

mod books;
mod http3;
#[cfg(test)]
mod tests;

pub(crate) use books::Books;

use super::connect::{self, Target};
use crate::{
    clock,
    codec::{
        Http3Sender, Incoming, SendError, Switched, Upgrade,
        http1::{Client, Outbound},
        http2,
    },
    http::body::Body,
    net::stream::Stream,
    telemetry::ends::OtherEnd,
};
use http::Response;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tombolo_gateway_core::{
    breaker::{Breakers, Permit, Resource},
    config::{Http2Settings, Http3Settings},
    failure::{Failure, Kind},
};
use tombolo_gateway_http1::{Case, Rules};

/// HTTP/2 windows when nothing is configured: enough for a fast local network, bounded against a slow reader.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Streams on an HTTP/3 connection when nothing is configured; a server that allows fewer has the others wait.
const QUIC_STREAMS: u32 = 100;

/// Version spoken on a pool's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/3, over QUIC.
    Http3,
    /// What TLS agrees on.
    ByAlpn,
}

/// How a pool behaves.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Version.
    pub(crate) version: Version,
    /// Idle connections are closed after so long.
    pub(crate) idle: Option<Duration>,
    /// Connections take no new request after so long.
    pub(crate) max_age: Option<Duration>,
    /// Requests that one connection serves; 0: any number.
    pub(crate) max_requests: u32,
    /// HTTP/2 settings.
    pub(crate) http2: Http2Settings,
    /// HTTP/3 settings.
    pub(crate) http3: Http3Settings,
    /// Response headers at most.
    pub(crate) max_headers: usize,
    /// Bytes of a response's head at most.
    pub(crate) max_head: usize,
    /// Names as `Proper-Case` in HTTP/1.
    pub(crate) proper_case: bool,
    /// How servers spell names is kept.
    pub(crate) preserve_case: bool,
}

/// One connection, as everybody who uses it sees it.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Our end.
    pub(crate) local: Option<SocketAddr>,
    /// Its end.
    pub(crate) remote: Option<SocketAddr>,
    /// TLS version, empty for none.
    pub(crate) tls_version: &'static str,
    /// TLS cipher suite, empty for none.
    pub(crate) tls_cipher: &'static str,
    /// The server, when it proved to be one of the mesh.
    pub(crate) end: Option<OtherEnd>,
    /// Requests that it was given.
    served: Cell<u32>,
    /// Streams under way (HTTP/2).
    streams: Cell<u32>,
    /// It takes no new request.
    retired: Cell<bool>,
    opened: Instant,
    /// When the last request on it ended.
    quiet_since: Cell<Instant>,
}

enum Sender {
    Http1(Rc<Client>),
    Http2(Rc<http2::Client>),
    Http3(Http3Sender),
}

/// The right to send one request on a connection.
pub(crate) struct Lease {
    /// The connection.
    pub(crate) conn: Rc<Conn>,
    /// It served a request before.
    pub(crate) reused: bool,
    sender: Option<Sender>,
    /// The stream behind a CONNECT over HTTP/3.
    switched: Option<Switched>,
    pool: Weak<Pool>,
}

struct Idle {
    conn: Rc<Conn>,
    sender: Rc<Client>,
    since: Instant,
}

/// What a waiting request is given.
type Handed = Result<Lease, Failure>;

/// The pool.
pub(crate) struct Pool {
    settings: Settings,
    target: Target,
    breakers: Arc<Breakers>,
    idle: RefCell<VecDeque<Idle>>,
    shared: RefCell<Vec<(Rc<Conn>, Rc<http2::Client>)>>,
    /// HTTP/3 connections.
    quic: RefCell<Vec<(Rc<Conn>, Http3Sender)>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Handed>>>,
    connecting: Cell<u32>,
    open: Cell<u32>,
    closed: Cell<bool>,
    /// Told of every connection, opened and failed.
    watch: Rc<dyn Watch>,
}

/// Who wants to know about connections.
pub(crate) trait Watch {
    /// One was opened.
    fn opened(&self);
    /// One is gone.
    fn closed(&self);
    /// One could not be opened.
    fn failed(&self);
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(settings: Settings, target: Target, breakers: Arc<Breakers>, watch: Rc<dyn Watch>) -> Rc<Self> {
        Rc::new(Self {
            settings,
            target,
            breakers,
            watch,
            idle: RefCell::default(),
            shared: RefCell::default(),
            quic: RefCell::default(),
            waiting: RefCell::default(),
            connecting: Cell::new(0),
            open: Cell::new(0),
            closed: Cell::new(false),
        })
    }

    /// A connection for one request: one that is there, or the first that becomes free or opens.
    ///
    /// # Errors
    /// When a circuit breaker is open, or the connection that was opened for it failed.
    pub(crate) async fn lease(self: &Rc<Self>) -> Result<Lease, Failure> {
        if let Some(lease) = self.ready() {
            return Ok(lease);
        }
        let Some(_pending) = self.breakers.acquire(Resource::Pending) else {
            return Err(Failure::new(Kind::Overflow));
        };
        let (give, take) = oneshot::channel();
        self.waiting.borrow_mut().push_back(give);
        self.connect_if_needed();
        match take.await {
            Ok(handed) => handed,
            Err(_) => Err(Failure::new(Kind::LocalReset)),
        }
    }

    /// A connection that can take a request now.
    pub(crate) fn ready(self: &Rc<Self>) -> Option<Lease> {
        self.ready_http1().or_else(|| self.ready_http2()).or_else(|| self.ready_http3())
    }

    fn ready_http1(self: &Rc<Self>) -> Option<Lease> {
        loop {
            let Idle { conn, sender, .. } = self.idle.borrow_mut().pop_back()?;
            if !conn.retired.get() && sender.is_alive() {
                return Some(self.lend(conn, Sender::Http1(sender), true));
            }
            // Closed while it was idle, or it said something that nobody asked for.
        }
    }

    fn ready_http2(self: &Rc<Self>) -> Option<Lease> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|(conn, sender)| !sender.is_closed() && !conn.retired.get());
        let bound = self.settings.http2.max_streams.unwrap_or(u32::MAX);
        let free =
            |(conn, client): &&(Rc<Conn>, Rc<http2::Client>)| conn.streams.get() < bound.min(client.most_streams());
        let (conn, sender) = shared.iter().find(free)?;
        let (conn, sender) = (conn.clone(), sender.clone());
        drop(shared);
        let reused = conn.served.get() > 0;
        Some(self.lend(conn, Sender::Http2(sender), reused))
    }

    fn ready_http3(self: &Rc<Self>) -> Option<Lease> {
        let mut quic = self.quic.borrow_mut();
        quic.retain(|(conn, sender)| !sender.is_closed() && !conn.retired.get());
        let bound = self.settings.http3.max_streams.unwrap_or(QUIC_STREAMS);
        let (conn, sender) = quic.iter().find(|(conn, _)| conn.streams.get() < bound)?;
        let (conn, sender) = (conn.clone(), sender.clone());
        drop(quic);
        let reused = conn.served.get() > 0;
        Some(self.lend(conn, Sender::Http3(sender), reused))
    }

    fn lend(self: &Rc<Self>, conn: Rc<Conn>, sender: Sender, reused: bool) -> Lease {
        conn.served.set(conn.served.get() + 1);
        conn.streams.set(conn.streams.get() + 1);
        self.retire_if_due(&conn);
        Lease { conn, reused, sender: Some(sender), switched: None, pool: Rc::downgrade(self) }
    }

    /// A connection that reached its age or its number of requests takes no further one.
    fn retire_if_due(&self, conn: &Conn) {
        let counted = self.settings.max_requests != 0 && conn.served.get() >= self.settings.max_requests;
        let aged = self.settings.max_age.is_some_and(|age| conn.opened.elapsed() >= age);
        if counted || aged {
            conn.retired.set(true);
        }
    }

    /// Opens a connection when more requests wait than connections are being opened for.
    fn connect_if_needed(self: &Rc<Self>) {
        let waiting = u32::try_from(self.waiting.borrow().len()).unwrap_or(u32::MAX);
        // HTTP/2: one connection serves many; another is opened only when those there are full.
        let wanted =
            if matches!(self.settings.version, Version::Http2 | Version::Http3) { waiting.min(1) } else { waiting };
        while self.connecting.get() < wanted {
            let permit = match self.breakers.acquire(Resource::Connections) {
                Some(permit) => permit,
                // Without any connection a pool could never serve what waits.
                None if self.open.get() == 0 && self.connecting.get() == 0 => {
                    self.breakers.acquire_anyway(Resource::Connections)
                }
                None => return,
            };
            self.connecting.set(self.connecting.get() + 1);
            tokio::task::spawn_local(open(self.clone(), permit));
        }
    }

    /// Gives connections to requests that wait. A pool that is closed has no further use for what is left.
    fn hand_over(self: &Rc<Self>) {
        self.hand_to_waiting();
        if self.closed.get() && self.waiting.borrow().is_empty() {
            self.let_go();
        }
    }

    fn hand_to_waiting(self: &Rc<Self>) {
        loop {
            if self.waiting.borrow().is_empty() {
                return;
            }
            let Some(lease) = self.ready() else { return };
            let mut lease = Some(Ok(lease));
            while let Some(handed) = lease.take() {
                let next = self.waiting.borrow_mut().pop_front();
                match next {
                    Some(waiter) => {
                        if let Err(back) = waiter.send(handed) {
                            lease = Some(back);
                        }
                    }
                    // Dropped: goes back by itself.
                    None => return,
                }
            }
        }
    }

    /// A fresh connection goes to whoever waited longest; it takes one request even before its task first ran.
    fn hand_fresh(self: &Rc<Self>, conn: &Rc<Conn>, sender: Sender) {
        let sender = match sender {
            Sender::Http2(sender) => return self.shared.borrow_mut().push((conn.clone(), sender)),
            Sender::Http3(sender) => return self.quic.borrow_mut().push((conn.clone(), sender)),
            Sender::Http1(sender) => sender,
        };
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(waiter) if waiter.is_closed() => {}
                Some(waiter) => {
                    // Whoever gave up in between leaves the connection to its lease's drop.
                    let _ = waiter.send(Ok(self.lend(conn.clone(), Sender::Http1(sender), false)));
                    return;
                }
                None => {
                    if !self.closed.get() {
                        self.idle.borrow_mut().push_back(Idle { conn: conn.clone(), sender, since: Instant::now() });
                    }
                    return;
                }
            }
        }
    }

    fn fail_one(&self, failure: Failure) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(waiter) if waiter.is_closed() => {}
                Some(waiter) => {
                    let _ = waiter.send(Err(failure));
                    return;
                }
                None => return,
            }
        }
    }

    /// Closes idle connections that are older than allowed, and forgets those that are gone.
    pub(crate) fn sweep(&self, now: Instant) {
        let over = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit)
        };
        let (idle, age) = (self.settings.idle, self.settings.max_age);
        let expired = |entry: &Idle| over(entry.since, idle) || over(entry.conn.opened, age);
        // Requests under way on a connection hold it themselves.
        let done = |conn: &Conn| {
            let quiet = conn.streams.get() == 0 && over(conn.quiet_since.get(), idle);
            conn.retired.get() || quiet || over(conn.opened, age)
        };
        let gone = books::taken_out(&self.idle, |entry| expired(entry) || !entry.sender.is_alive());
        let shared = books::taken_out(&self.shared, |(conn, sender)| done(conn) || sender.is_closed());
        let quic = books::taken_out(&self.quic, |(conn, sender)| done(conn) || sender.is_closed());
        // Outside of the borrows: a connection that ends looks after those who wait.
        drop((gone, shared, quic));
    }

    /// Lets go of idle connections and becomes nobody's choice; requests under way go on, and those that wait for a connection
    /// still get one: they chose before.
    pub(crate) fn close(self: &Rc<Self>) {
        self.closed.set(true);
        self.let_go();
        self.connect_if_needed();
    }

    fn let_go(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        let shared = std::mem::take(&mut *self.shared.borrow_mut());
        let quic = std::mem::take(&mut *self.quic.borrow_mut());
        drop((idle, shared, quic));
    }

    /// Whether no request is under way and nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        let (shared, quic) = (self.shared.borrow(), self.quic.borrow());
        let quiet = shared.iter().map(|(conn, _)| conn).chain(quic.iter().map(|(conn, _)| conn));
        let quiet = quiet.filter(|conn| conn.streams.get() == 0).count() + self.idle.borrow().len();
        // What is open and in none of the lists is lent, or finishes what it has.
        self.waiting.borrow().is_empty() && usize::try_from(self.open.get()).is_ok_and(|open| open == quiet)
    }

    /// Whether nothing is open and nobody waits.
    pub(crate) fn is_unused(&self) -> bool {
        self.open.get() == 0 && self.connecting.get() == 0 && self.waiting.borrow().is_empty()
    }
}

/// Opens one connection for a pool and enters it into the pool's books.
async fn open(pool: Rc<Pool>, permit: Permit) {
    if pool.settings.version == Version::Http3 {
        return http3::open(pool, permit).await;
    }
    let outcome = connect(&pool).await;
    pool.connecting.set(pool.connecting.get().saturating_sub(1));
    let (conn, stream, http2) = match outcome {
        Ok(connected) => connected,
        Err(failure) => {
            drop(permit);
            return failed(&pool, &failure);
        }
    };
    pool.open.set(pool.open.get() + 1);
    pool.watch.opened();
    let books =
        Books { pool: Rc::downgrade(&pool), watch: pool.watch.clone(), conn: conn.clone(), permit: Some(permit) };
    if http2 {
        return open_http2(pool, conn, stream, books).await;
    }
    let rules = Rules {
        max_bytes: pool.settings.max_head,
        max_fields: pool.settings.max_headers,
        spelling: pool.settings.preserve_case,
        ..Rules::STRICT
    };
    let case = if pool.settings.proper_case { Case::Proper } else { Case::Lower };
    let client = Client::new(stream, rules, case, books);
    pool.hand_fresh(&conn, Sender::Http1(client));
    pool.hand_over();
    pool.connect_if_needed();
}

/// Nobody gets a connection; whoever waited for this one is told.
fn failed(pool: &Rc<Pool>, failure: &Failure) {
    pool.watch.failed();
    // With HTTP/2 all of them waited for this one connection.
    let told = if pool.settings.version == Version::Http1 { 1 } else { pool.waiting.borrow().len() };
    for _ in 0..told {
        pool.fail_one(failure.clone());
    }
    pool.connect_if_needed();
}

async fn open_http2(pool: Rc<Pool>, conn: Rc<Conn>, stream: Stream, books: Books) {
    let weak = Rc::downgrade(&pool);
    let (client, driver) = http2::Client::new(stream, http2_settings(&pool.settings), move || {
        if let Some(pool) = weak.upgrade() {
            pool.hand_over();
            pool.connect_if_needed();
        }
    });
    pool.hand_fresh(&conn, Sender::Http2(client));
    pool.hand_over();
    pool.connect_if_needed();
    drop(pool);
    driver.await;
    drop(books);
}

/// A connection, and whether it is to speak HTTP/2.
async fn connect(pool: &Rc<Pool>) -> Result<(Rc<Conn>, Stream, bool), Failure> {
    let stream = connect::open(&pool.target).await?;
    let http2 = match pool.settings.version {
        Version::Http1 => false,
        Version::Http2 | Version::Http3 => true,
        Version::ByAlpn => stream.alpn() == Some(b"h2"),
    };
    let (tls_version, tls_cipher) = stream.tls_facts();
    let conn = Rc::new(Conn {
        local: stream.tcp().and_then(|s| s.local_addr().ok()),
        remote: stream.tcp().and_then(|s| s.peer_addr().ok()),
        end: OtherEnd::of_server(&pool.target, &stream),
        tls_version,
        tls_cipher,
        served: Cell::new(0),
        streams: Cell::new(0),
        retired: Cell::new(false),
        opened: Instant::now(),
        quiet_since: Cell::new(Instant::now()),
    });
    Ok((conn, stream, http2))
}

/// How we speak HTTP/2 with this pool's servers.
fn http2_settings(settings: &Settings) -> tombolo_gateway_http2::Settings {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    tombolo_gateway_http2::Settings {
        max_streams: settings.http2.max_streams.unwrap_or(u32::MAX),
        stream_window: settings.http2.stream_window.unwrap_or(STREAM_WINDOW),
        connection_window: settings.http2.connection_window.unwrap_or(CONNECTION_WINDOW),
        header_table: settings.http2.header_table_size,
        head: tombolo_gateway_http2::HeadLimits { fields: settings.max_headers, bytes: settings.max_head },
        // A bad response ends that response: what else is under way on its connection goes on.
        malformed_ends_stream: true,
        huffman: false,
        keepalive: settings.http2.keepalive.map(|(interval, patience)| (millis(interval), millis(patience))),
        send_buffer: 256 << 10,
        ..tombolo_gateway_http2::Settings::default()
    }
}

impl Lease {
    /// Sends the request and waits for the head of its response, on a connection that speaks HTTP/2.
    ///
    /// # Errors
    /// Says what happened and whether anything went out.
    pub(crate) async fn send_http2(
        &mut self,
        out: http2::Outbound<'_>,
        body: Body,
    ) -> Result<Response<Incoming>, SendError> {
        match &self.sender {
            Some(Sender::Http2(client)) => client.send(out, body).await,
            Some(Sender::Http3(sender)) => {
                let (response, switched) = sender.send(out.head, body).await?;
                self.switched = switched;
                Ok(response)
            }
            _ => Err(SendError { failure: Failure::new(Kind::LocalReset), unsent: true }),
        }
    }

    /// The same on a connection that speaks HTTP/1.
    ///
    /// # Errors
    /// Says what happened and whether anything went out.
    pub(crate) async fn send_http1(&mut self, out: Outbound<'_>, body: Body) -> Result<Response<Incoming>, SendError> {
        match &self.sender {
            Some(Sender::Http1(client)) => client.send(out, body).await,
            _ => Err(SendError { failure: Failure::new(Kind::LocalReset), unsent: true }),
        }
    }

    /// The connection or stream on which `response` came, once it stops being HTTP.
    pub(crate) fn upgrade(&mut self, response: &mut Response<Incoming>) -> Upgrade {
        match &self.sender {
            Some(Sender::Http1(client)) => Upgrade::Now(client.take_tunnel()),
            Some(Sender::Http3(_)) => self.switched.take().map_or(Upgrade::Now(None), Upgrade::Http3),
            _ => Upgrade::Now(http2::Client::tunnel(response)),
        }
    }

    /// What is spoken, as in access logs.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.sender {
            Some(Sender::Http1(_)) => "HTTP/1.1",
            Some(Sender::Http2(_)) => "HTTP/2",
            Some(Sender::Http3(_)) => "HTTP/3",
            None => "",
        }
    }

    /// HTTP/2 is spoken, or HTTP/3, whose messages look the same.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Some(Sender::Http2(_) | Sender::Http3(_)))
    }

    /// The exchange on it is over and complete in both directions: the connection may serve again.
    pub(crate) fn give_back(mut self) {
        // A stream of a connection that others use as well just ends.
        if self.is_http2() {
            return;
        }
        let Some(pool) = self.pool.upgrade() else { return };
        let Some(Sender::Http1(sender)) = self.sender.take() else { return };
        if self.conn.retired.get() || pool.closed.get() || !sender.is_reusable() {
            return;
        }
        // Whoever gives back has just read the clock.
        pool.idle.borrow_mut().push_back(Idle { conn: self.conn.clone(), sender, since: clock::recent() });
        pool.hand_over();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.conn.streams.set(self.conn.streams.get().saturating_sub(1));
        self.conn.quiet_since.set(clock::recent());
        let http2 = self.is_http2();
        // A sender that is still here belongs to an HTTP/1 exchange that was cut short, and its connection ends with
        // it, or to HTTP/2, where the stream alone ends.
        self.sender = None;
        if http2
            && let Some(pool) = self.pool.upgrade()
            && !pool.waiting.borrow().is_empty()
        {
            // Deferred: the connection's own task may have to run before it can take another request.
            tokio::task::spawn_local(async move {
                tokio::task::yield_now().await;
                pool.hand_over();
                pool.connect_if_needed();
            });
        }
    }
}
