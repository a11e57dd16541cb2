//! One request from its head to the last byte of its response: what is known of it, and the one place where it ends.
//!
//! Owns the record from which log line and metrics are made, exactly once, however the request ends.

use super::{
    body::SharedSource,
    logs::{self, Compiled},
};
use crate::{
    clock,
    codec::http2,
    inbound::Inbound,
    listen::{Entered, Handle},
    telemetry::{
        ends::OtherEnd,
        labels::{Finished, Role, Side, Told},
    },
    upstream::{
        cluster::{Cluster, Endpoint},
        keeper,
        pool::Conn,
    },
    worker::Worker,
};
use http::HeaderMap;
use std::{
    borrow::Cow,
    cell::{Cell, Ref, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};
use tombolo_gateway_core::{
    accesslog::{Bytes, Question, Record, Times, Upstream},
    balance::Host,
    config::{ClusterChoice, FilterChain, Hcm, Listener},
    decision::Matched,
    failure::{Flag, Flags},
    filter::{BodyFilter, Mutations},
    format::{Facts, MetadataOf, Surroundings},
    head::{ConnInfo, Head, Protocol},
    request::{Caller, is_traced},
};

/// A client's connection, as its requests see it.
pub(crate) struct Downstream {
    /// Its worker.
    pub(crate) worker: Rc<Worker>,
    /// Its listener.
    pub(crate) listener: Arc<Listener>,
    /// Its chain.
    pub(crate) chain: Arc<FilterChain>,
    /// Its connection manager.
    pub(crate) hcm: Arc<Hcm>,
    /// Addresses and TLS.
    pub(crate) info: ConnInfo,
    /// Its place in the books.
    pub(crate) handle: Rc<Handle>,
    /// HTTP/2 is spoken.
    pub(crate) http2: bool,
    /// Its side in metrics.
    pub(crate) side: Side,
    logs: Compiled,
}

impl Downstream {
    /// Made once per connection, which stays in the books for as long as the second lives.
    pub(crate) fn new(inbound: Inbound, hcm: Arc<Hcm>, http2: bool) -> (Rc<Self>, Entered) {
        let Inbound { worker, listener, chain, info, entered } = inbound;
        let handle = entered.handle.clone();
        let side = worker.labels.side(listener.direction, &info);
        let logs = worker.logs.of(&hcm, &hcm.access_logs);
        (Rc::new(Self { worker, listener, chain, hcm, info, handle, http2, side, logs }), entered)
    }

    /// What values of headers and lines can tell of it.
    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        let machine = &self.worker.setup.machine;
        Surroundings {
            hostname: &machine.hostname,
            environment: Some(&machine.environment),
            connection_id: Some(self.handle.id),
            filter_chain: &self.chain.name,
            listener: Some(&self.listener.metadata),
            chain: Some(&self.chain.metadata),
        }
    }

    /// Whether anybody will read the heads after the response went out.
    pub(crate) fn logs_heads(&self) -> bool {
        !self.logs.is_empty()
    }
}

/// One request under way.
pub(crate) struct Exchange {
    /// The connection it came on.
    pub(crate) downstream: Rc<Downstream>,
    /// When it began.
    pub(crate) start: Instant,
    /// Everything else, filled as it becomes known.
    pub(crate) facts: RefCell<Known>,
    /// Its stream, where it has one: it knows how it ended.
    pub(crate) stream: RefCell<Option<Rc<http2::Side>>>,
    /// The request has a body that nobody took up yet.
    pub(crate) unread: Cell<bool>,
    /// Bytes that the client sent through a tunnel.
    pub(crate) tunnelled: Cell<u64>,
    /// Bytes that the client sent into a buffer, or with the request that was redirected to this one.
    pub(crate) elsewhere: Cell<u64>,
    /// It was answered before anything of its body could be taken up.
    pub(crate) at_once: Cell<bool>,
    sent: Cell<u64>,
    done: Cell<bool>,
    /// When it began, in microseconds since 1970; 0 until somebody asks.
    since_1970: Cell<u64>,
}

/// What becomes known of a request.
#[derive(Default)]
pub(crate) struct Known {
    /// Its head.
    pub(crate) head: Option<Box<Head>>,
    /// What was spoken, where no head can be shown.
    pub(crate) unheard: Option<Protocol>,
    /// Who asks.
    pub(crate) caller: Option<Caller>,
    /// The route.
    pub(crate) matched: Option<Matched>,
    /// The upstream.
    pub(crate) cluster: Option<Rc<Cluster>>,
    /// The upstream's name in logs, where it is another.
    observed: Option<Arc<str>>,
    /// The endpoint of the last try.
    pub(crate) endpoint: Option<Rc<Endpoint>>,
    /// The connection of the last try.
    pub(crate) conn: Option<Rc<Conn>>,
    /// What is spoken on it.
    pub(crate) spoken: &'static str,
    /// Tries.
    pub(crate) attempts: u32,
    /// Status of the response; 0 for none.
    pub(crate) status: u16,
    /// Headers of the response, when somebody will read them.
    pub(crate) response: Option<HeaderMap>,
    /// Trailers of the response.
    pub(crate) trailers: Option<HeaderMap>,
    /// gRPC status of the response.
    pub(crate) grpc_status: Option<u16>,
    /// Flags.
    pub(crate) flags: Flags,
    /// Response code details.
    pub(crate) details: Cow<'static, str>,
    /// The transport's words about a failure.
    pub(crate) trouble: Option<Box<str>>,
    /// The request's body.
    pub(crate) source: Option<SharedSource>,
    /// What client and server told of themselves.
    pub(crate) told: Told,
    /// Moments.
    pub(crate) times: Times,
    /// It is a health check.
    pub(crate) health_check: bool,
    /// Filters that change bodies.
    pub(crate) bodies: Vec<BodyFilter>,
    /// Filters that change headers and trailers.
    pub(crate) mutations: Mutations,
}

impl Known {
    /// The connection of the last try, as formats read it.
    pub(crate) fn upstream_side(&self) -> Upstream<'_> {
        let conn = self.conn.as_deref();
        Upstream {
            local: conn.and_then(|c| c.local),
            remote: conn.and_then(|c| c.remote),
            protocol: self.spoken,
            failure: self.trouble.as_deref().unwrap_or(""),
            tls_version: conn.map_or("", |c| c.tls_version),
            tls_cipher: conn.map_or("", |c| c.tls_cipher),
            observed_cluster: self.observed.as_deref().unwrap_or(""),
            ..Upstream::default()
        }
    }

    /// This is where it goes.
    pub(crate) fn aim(&mut self, cluster: Option<Rc<Cluster>>) {
        self.observed = cluster.as_ref().and_then(|cluster| cluster.upstream().cluster.alias());
        self.cluster = cluster;
    }

    /// The same, its state being at hand.
    pub(crate) fn aim_with(&mut self, cluster: &Rc<Cluster>, upstream: &keeper::Upstream) {
        self.observed = upstream.cluster.alias();
        self.cluster = Some(cluster.clone());
    }
}

/// Metadata of the cluster and the endpoint, held while somebody reads it.
#[derive(Default)]
pub(crate) struct Beyond<'a> {
    cluster: Option<Arc<keeper::Upstream>>,
    host: Option<Ref<'a, Option<Host>>>,
}

impl<'a> Beyond<'a> {
    /// Of what is known.
    pub(crate) fn of(known: &'a Known) -> Self {
        Self {
            cluster: known.cluster.as_ref().map(|cluster| cluster.upstream()),
            host: known.endpoint.as_ref().map(|endpoint| endpoint.host.borrow()),
        }
    }

    /// As formats read it.
    pub(crate) fn metadata(&self) -> MetadataOf<'_> {
        MetadataOf {
            cluster: self.cluster.as_ref().map(|upstream| &upstream.cluster.metadata),
            endpoint: self.host.as_ref().and_then(|host| host.as_ref()).map(|host| &host.endpoint.metadata),
            ..MetadataOf::default()
        }
    }
}

impl Exchange {
    /// A request begins.
    pub(crate) fn begin(downstream: &Rc<Downstream>) -> Rc<Self> {
        downstream.handle.begin();
        downstream.worker.setup.own.requests.add(1);
        Rc::new(Self {
            downstream: downstream.clone(),
            start: clock::read(),
            facts: RefCell::default(),
            stream: RefCell::default(),
            unread: Cell::new(false),
            tunnelled: Cell::new(0),
            elsewhere: Cell::new(0),
            at_once: Cell::new(false),
            sent: Cell::new(0),
            done: Cell::new(false),
            since_1970: Cell::new(0),
        })
    }

    /// Microseconds since it began.
    pub(crate) fn micros(&self) -> u64 {
        clock::read();
        self.recent_micros()
    }

    /// The same as far as the clock was read: where nothing was waited for since.
    pub(crate) fn recent_micros(&self) -> u64 {
        u64::try_from(clock::recent().saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// The client is gone or gets nothing more; says how it ended.
    pub(crate) fn abandon(&self, flag: Flag, details: &'static str) {
        {
            let mut known = self.facts.borrow_mut();
            known.flags.insert(flag);
            known.details = Cow::Borrowed(details);
        }
        self.finish();
    }

    /// A request of which nothing can be shown ends before it began.
    pub(crate) fn unheard(downstream: &Rc<Downstream>, protocol: Protocol, flag: Flag, details: &'static str) {
        let exchange = Self::begin(downstream);
        exchange.facts.borrow_mut().unheard = Some(protocol);
        exchange.abandon(flag, details);
    }

    /// How the client ended it.
    pub(crate) fn fate(&self) -> (Flag, &'static str) {
        let told = self.stream.borrow().as_ref().and_then(|side| side.fate());
        told.unwrap_or((Flag::DownstreamConnectionTermination, "downstream_remote_disconnect"))
    }

    /// Takes out of a message what its sender told of itself: the client's words out of a request, the server's out of a
    /// response.
    pub(crate) fn hear(&self, role: Role, headers: &mut HeaderMap) {
        if !self.downstream.hcm.mesh_stats {
            return;
        }
        let labels = &self.downstream.worker.labels;
        let mut known = self.facts.borrow_mut();
        match role {
            Role::Source => known.told.source = labels.hear(role, self.downstream.side.end.as_ref(), None, headers),
            Role::Destination => {
                let end = known.conn.as_ref().and_then(|conn| conn.end.as_ref());
                let told = labels.hear(role, end, known.cluster.as_deref(), headers);
                known.told.destination = told;
            }
        }
    }

    /// The client, when it is one of the mesh and told of itself.
    pub(crate) fn client_that_told(&self) -> Option<&OtherEnd> {
        self.downstream.side.end.as_ref().filter(|_| self.facts.borrow().told.source.is_some())
    }

    /// Whether there is anything to tell.
    pub(crate) fn tells(&self, to: Option<&OtherEnd>) -> bool {
        self.downstream.hcm.mesh_stats && to.is_some()
    }

    /// Tells a server of the mesh who asks, or a client of the mesh who answers; nobody else.
    pub(crate) fn tell(&self, to: Option<&OtherEnd>, headers: &mut HeaderMap) {
        if self.tells(to) {
            self.downstream.worker.labels.tell(headers);
        }
    }

    /// Bytes of the response's body went out.
    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// Bytes of the request's body that came, as they are logged.
    pub(crate) fn received(&self) -> u64 {
        self.received_by(&self.facts.borrow())
    }

    fn received_by(&self, known: &Known) -> u64 {
        let taken = known.source.as_ref().map_or(self.tunnelled.get(), |s| s.borrow().bytes());
        let stream = self.stream.borrow();
        let unread = stream.as_ref().filter(|_| !self.at_once.get()).map_or(0, |stream| stream.unread());
        taken + self.elsewhere.get() + unread
    }

    /// Its log line names this route, if any: where a redirect led.
    pub(crate) fn aim_at(&self, aim: Option<Option<Matched>>) {
        let Some(aim) = aim else { return };
        let mut known = self.facts.borrow_mut();
        known.aim(match aim.as_ref().and_then(Matched::action).map(|action| &action.cluster) {
            Some(ClusterChoice::One(name)) => self.downstream.worker.cluster(name),
            _ => None,
        });
        known.matched = aim;
    }

    /// What filters do to the head of a request that is answered here.
    pub(crate) fn change_head(&self, head: &mut Head) {
        let known = self.facts.borrow();
        if !known.mutations.is_empty() {
            known.mutations.request(&self.record(&known, 0, MetadataOf::default()).facts, head);
        }
    }

    /// What filters do to the trailers of the response.
    pub(crate) fn change_trailers(&self, trailers: &mut HeaderMap) {
        let known = self.facts.borrow();
        if known.mutations.response_has_trailers() {
            let (beyond, via) = (Beyond::of(&known), known.upstream_side());
            let facts =
                Facts { via: Some(&via), ..self.record(&known, self.received_by(&known), beyond.metadata()).facts };
            known.mutations.response_trailers(&facts, trailers);
        }
    }

    /// The request is over. Only the first call counts.
    pub(crate) fn finish(&self) {
        if !self.done.get() {
            self.finish_at(self.micros());
        }
    }

    /// The same, so many microseconds after its beginning.
    pub(crate) fn finish_at(&self, end: u64) {
        if self.done.replace(true) {
            return;
        }
        let downstream = &self.downstream;
        downstream.handle.end();
        downstream.worker.setup.own.requests.add(-1);
        let mut known = self.facts.borrow_mut();
        if downstream.handle.continued.take() && known.status == 0 {
            known.status = 100;
        }
        known.times.end = Some(end);
        known.times.response_end.get_or_insert(end);
        let received = self.received_by(&known);
        if downstream.hcm.mesh_stats {
            let finished = Finished {
                cluster: known.cluster.as_deref(),
                endpoint: known.endpoint.as_deref(),
                end: known.conn.as_ref().and_then(|c| c.end.as_ref()),
                told: known.told,
                status: known.status,
                grpc: known.grpc_status,
                is_grpc: known.head.as_ref().is_some_and(|head| head.is_grpc()),
                flags: known.flags,
                micros: end,
                received,
                sent: self.sent.get(),
            };
            downstream.worker.labels.request(&downstream.side, &finished);
        }
        if downstream.logs_heads() {
            self.log(&known, received, end);
        }
    }

    fn log(&self, known: &Known, received: u64, end: u64) {
        let downstream = &self.downstream;
        let reads = self.downstream.logs.iter().any(|(_, format, _)| format.reads_metadata());
        let beyond = if reads { Beyond::of(known) } else { Beyond::default() };
        let record = self.record(known, received, beyond.metadata());
        logs::write(&downstream.logs, &downstream.worker.lines, &record, self.question(known, end));
    }

    /// What log filters ask beside the record.
    pub(crate) fn question(&self, known: &Known, end: u64) -> Question {
        Question {
            millis: end / 1000,
            grpc: known.grpc_status,
            random: self.downstream.worker.draw(),
            health_check: known.health_check,
            traced: known.head.as_deref().is_some_and(is_traced),
        }
    }

    /// All that is known, as log lines and formats read it.
    pub(crate) fn record<'a>(&'a self, known: &'a Known, received: u64, beyond: MetadataOf<'a>) -> Record<'a> {
        let downstream = &self.downstream;
        let upstream = known.endpoint.as_ref().and_then(|e| e.address());
        let facts = Facts {
            head: known.head.as_deref(),
            unheard: known.unheard,
            conn: Some(&downstream.info),
            client: known.caller.and_then(|c| c.address),
            start: self.since_1970(),
            around: downstream.surroundings(),
            metadata: MetadataOf {
                route: known.matched.as_ref().and_then(Matched::route).map(|r| &r.metadata),
                virtual_host: known.matched.as_ref().map(|m| &m.host().metadata),
                ..beyond
            },
            status: Some(known.status),
            response: known.response.as_ref(),
            flags: known.flags,
            details: &known.details,
            route: known.matched.as_ref().and_then(Matched::route).map_or("", |r| &r.name),
            virtual_host: known.matched.as_ref().map_or("", |m| &m.host().name),
            cluster: known.cluster.as_ref().map_or("", |c| &c.name),
            upstream,
            via: None,
            received,
            attempts: known.attempts,
            local_reply: "",
        };
        Record {
            facts,
            times: known.times,
            bytes: Bytes { received, sent: self.sent.get(), ..Bytes::default() },
            upstream: known.upstream_side(),
            trailers: known.trailers.as_ref(),
            ..Record::default()
        }
    }

    /// When it began, in microseconds.
    pub(crate) fn since_1970(&self) -> u64 {
        if self.since_1970.get() == 0 {
            let since = clock::wall(self.start).duration_since(SystemTime::UNIX_EPOCH);
            self.since_1970.set(since.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(0)));
        }
        self.since_1970.get()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.done.get() {
            return;
        }
        // Nobody said how it ended: the client went away, and with it everything that held this.
        let (flag, details) = self.fate();
        self.abandon(flag, details);
    }
}
