//! Carries out what the attempt machine asks for: chooses endpoints, opens streams, waits.
//!
//! Owns the tries under way of one request and its clock. Decides nothing: every outcome goes to the machine, which says
//! what is next.

use super::{
    body::{Body, Reader, SharedSource},
    exchange::Exchange,
    send,
    timer::Timer,
};
use crate::{
    clock,
    codec::{Incoming, SendError},
    upstream::{
        choice::{self, Picked, Question},
        cluster::{Cluster, Endpoint, Wish},
        keeper::{Blame, Live, Suspect, Upstream},
        pool::Lease,
    },
};
use http::{HeaderMap, Method, Response};
use smallvec::SmallVec;
use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};
use tombolo_gateway_core::{
    attempt::{Action, Attempt, Broken, Event, ResponseHead, Setup, Step, TryId},
    balance::{self, InFlight},
    breaker::{Permit, Resource},
    config::LbPolicy,
    decision::{Forward, UpgradePlan},
    failure::{Failure, Flags, Kind},
    forward::{finish_response, stamp_attempt},
    head::{Head, Name},
    outlier::Outcome,
    route::header_matches_in,
    time::Millis,
};

/// A connection that turned out to be closed is replaced this often within one try.
const STALE: u32 = 3;

/// What is asked of an upstream.
pub(crate) struct Ask<'a> {
    /// The request.
    pub(crate) exchange: &'a Rc<Exchange>,
    /// What was decided.
    pub(crate) forward: &'a Forward,
    /// As the upstream is to see it.
    pub(crate) head: &'a Head,
    /// Its body.
    pub(crate) source: Option<&'a SharedSource>,
    /// Where to.
    pub(crate) cluster: &'a Rc<Cluster>,
    /// The cluster's state when the request began.
    pub(crate) upstream: Arc<Upstream>,
    /// The configuration when the request began.
    pub(crate) live: &'a Live,
}

/// A response with everything that it occupies.
pub(crate) struct Got {
    /// The response.
    pub(crate) response: Response<Incoming>,
    /// Its connection.
    pub(crate) lease: Lease,
    /// Its endpoint.
    pub(crate) endpoint: Rc<Endpoint>,
    /// The endpoint's count.
    pub(crate) in_flight: Option<InFlight>,
    /// The breaker's count.
    pub(crate) permit: Permit,
    /// When the try began.
    pub(crate) begun: Instant,
}

/// How the tries ended.
pub(crate) enum Done {
    /// With a response.
    Response(Box<Got>, After),
    /// Without one.
    Failed(Failure, After),
}

/// What goes on after the tries.
pub(crate) struct After {
    /// Tries made.
    pub(crate) attempts: u32,
    /// Flags raised.
    pub(crate) flags: Flags,
    /// Until when the response must be complete.
    pub(crate) until: Option<Millis>,
    /// Until when the upstream lets its stream live.
    pub(crate) end: Option<Millis>,
    /// The clock of the whole, which goes on.
    pub(crate) timer: Timer,
}

/// Why a try broke.
struct Lost {
    failure: Failure,
    /// Bytes may have gone out.
    sent: bool,
}

type Outcomes<'a> = Pin<Box<dyn Future<Output = Result<Box<Got>, Lost>> + 'a>>;

struct Try<'a> {
    id: TryId,
    endpoint: Rc<Endpoint>,
    opened: Rc<Cell<bool>>,
    told_opened: bool,
    outcome: Outcomes<'a>,
}

/// What woke the driver.
enum Woken {
    Opened(TryId),
    Finished(TryId, Result<Box<Got>, Lost>),
    RequestComplete,
    RequestBroken,
    Timer,
    StreamIdle,
    StreamLife,
}

/// Clocks of the stream itself, beside those of the tries.
struct StreamClock {
    idle: Option<Duration>,
    life: Option<Millis>,
    begun: Millis,
}

/// Leaves the request's head to the log line when the client goes away while it is tried.
struct Left<'a>(Option<&'a Ask<'a>>);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if let Some(ask) = self.0.filter(|ask| ask.exchange.downstream.logs_heads()) {
            ask.exchange.facts.borrow_mut().head.get_or_insert_with(|| Box::new(ask.head.clone()));
        }
    }
}

/// Tries until there is a response to send or nothing more to try.
pub(crate) async fn run(ask: &Ask<'_>) -> Done {
    let mut left = Left(Some(ask));
    let done = go(ask).await;
    left.0 = None;
    done
}

async fn go(ask: &Ask<'_>) -> Done {
    let worker = &ask.exchange.downstream.worker;
    let mut attempt = Attempt::new(setup(ask));
    let mut tries: SmallVec<[Try<'_>; 1]> = SmallVec::new();
    let mut timer = Timer::new(&worker.timers);
    let mut complete = ask.source.is_none();
    let stream = stream_clock(ask);
    if complete {
        let _ = attempt.next(Event::RequestComplete, clock::recently(), 0);
    }
    let mut step = Step { drop: None, action: Action::Pick(TryId(0)) };
    let mut got: Option<(TryId, Box<Got>)> = None;
    loop {
        if let Some(gone) = step.drop {
            tries.retain(|one| one.id != gone);
            got = got.filter(|(id, _)| *id != gone);
        }
        match step.action {
            Action::Pick(id) => {
                step = begin(ask, &mut attempt, id, &mut tries).await;
                continue;
            }
            Action::Forward(id) => {
                let (until, end) = (attempt.until(), attempt.end());
                let after = After { attempts: attempt.count(), flags: attempt.flags(), until, end, timer };
                match got.take().filter(|(of, _)| *of == id) {
                    Some((_, got)) => return Done::Response(got, after),
                    None => return Done::Failed(Failure::new(Kind::LocalReset), after),
                }
            }
            Action::Fail(failure) | Action::Abort(failure) => {
                return Done::Failed(
                    failure,
                    After { attempts: attempt.count(), flags: attempt.flags(), until: None, end: None, timer },
                );
            }
            Action::Wait(_) => {}
        }
        let woken = wait(ask, &attempt, &mut tries, &mut timer, complete, &stream).await;
        if let Some(source) = ask.source
            && attempt.keeps_body()
            && !source.borrow().replayable()
        {
            let _ = attempt.next(Event::BodyLost, worker.now(), 0);
        }
        let now = worker.now();
        step = match woken {
            Woken::Opened(id) => attempt.next(Event::Opened(id), now, 0),
            Woken::RequestComplete => {
                complete = true;
                attempt.next(Event::RequestComplete, now, 0)
            }
            Woken::Timer => {
                let outlived = attempt.outlived(now);
                let step = attempt.next(Event::Timer, now, worker.draw());
                let over = matches!(step.action, Action::Fail(_));
                for late in tries.iter().filter(|one| (over || step.drop == Some(one.id)) && outlived != Some(one.id)) {
                    report(ask, Some(&late.endpoint), || Outcome::TimedOut);
                }
                step
            }
            Woken::RequestBroken => failed(broken(ask)),
            Woken::StreamIdle => failed(Kind::StreamIdleTimeout),
            Woken::StreamLife => failed(Kind::MaxStreamDuration),
            Woken::Finished(id, outcome) => {
                let at = tries.iter().position(|one| one.id == id);
                let endpoint = at.map(|at| tries.remove(at).endpoint);
                finished(ask, &mut attempt, id, outcome, endpoint, &mut got)
            }
        };
    }
}

/// How the client broke its request off.
fn broken(ask: &Ask<'_>) -> Kind {
    if ask.source.is_some_and(|s| s.borrow().malformed()) { Kind::MalformedRequest } else { Kind::DownstreamDisconnect }
}

fn failed(kind: Kind) -> Step {
    Step { drop: None, action: Action::Fail(Failure::new(kind)) }
}

fn setup(ask: &Ask<'_>) -> Setup {
    let forward = ask.forward;
    Setup {
        retry: forward.retry.clone(),
        hedge_on_per_try_timeout: forward.hedge.is_some_and(|h| h.on_per_try_timeout),
        timeouts: forward.timeouts,
        life: upstream_life(forward, &ask.upstream),
        timeout_status: forward.timeout_status.map(|s| s.as_u16()),
        breakers: ask.upstream.breakers(forward.priority).clone(),
    }
}

/// How long the upstream lets a stream live: a request that is trusted may say it instead.
pub(crate) fn upstream_life(forward: &Forward, upstream: &Upstream) -> Option<Duration> {
    match forward.timeouts.upstream_stream {
        Some(told) => Some(told).filter(|told| !told.is_zero()),
        None => upstream.cluster.http.max_stream,
    }
}

fn stream_clock(ask: &Ask<'_>) -> StreamClock {
    let begun = clock::at(ask.exchange.start);
    let life = ask.forward.timeouts.max_stream.map(|life| begun.after(tombolo_gateway_core::time::millis(life)));
    StreamClock { idle: ask.forward.timeouts.idle, life, begun }
}

/// Chooses an endpoint for a try and begins it.
async fn begin<'a>(ask: &'a Ask<'_>, attempt: &mut Attempt, id: TryId, tries: &mut SmallVec<[Try<'a>; 1]>) -> Step {
    // Read when the request began, or when the try before this one ended.
    let now = clock::recently();
    let Some(Picked { endpoint, priority }) = choose(ask, attempt, now).await else {
        return attempt.next(Event::NoHost(id), now, 0);
    };
    let mut step = Step { drop: None, action: Action::Wait(None) };
    if let Some(host) = &*endpoint.host.borrow() {
        step = attempt.next(Event::Picked(id, host.id(), priority), now, 0);
    }
    {
        let mut known = ask.exchange.facts.borrow_mut();
        known.endpoint = Some(endpoint.clone());
        known.attempts = attempt.count();
    }
    // The first try's head is the request's own; only what differs from it is a copy.
    let mut own: Option<Box<Head>> = None;
    let copy = || Box::new(ask.head.clone());
    if attempt.count() > 1 {
        let elapsed = Duration::from_micros(ask.exchange.recent_micros());
        stamp_attempt(ask.forward, attempt.count(), elapsed, false, own.get_or_insert_with(copy));
    }
    if ask.forward.auto_host
        && let Some(host) = endpoint.host.borrow().as_ref().filter(|h| !h.endpoint.hostname.is_empty())
    {
        host.endpoint.hostname.as_ref().clone_into(&mut own.get_or_insert_with(copy).authority);
    }
    let opened = Rc::new(Cell::new(false));
    let outcome = Box::pin(one_try(ask, endpoint.clone(), own, opened.clone()));
    tries.push(Try { id, endpoint, opened, told_opened: false, outcome });
    step
}

/// An endpoint of the cluster, or whatever stands for one.
async fn choose(ask: &Ask<'_>, attempt: &Attempt, now: Millis) -> Option<Picked> {
    let downstream = &ask.exchange.downstream;
    let mut request = balance::Request {
        hash: ask.forward.hash,
        subset: ask.forward.metadata_match.as_deref(),
        ..balance::Request::default()
    };
    attempt.narrow(&mut request);
    let question = Question {
        request,
        original: choice::original(&downstream.listener, downstream.info.local),
        headers: Some(&ask.head.headers),
        host: ask.forward.forward_host.as_deref().unwrap_or(&ask.head.authority),
        tried: attempt.count().saturating_sub(1),
    };
    choice::choose(&downstream.worker, ask.cluster, &ask.upstream, &question, now).await
}

impl Ask<'_> {
    /// The upstream wants the body: so is the client told.
    fn proceed(&self, headers: &mut HeaderMap) {
        finish_response(&self.exchange.downstream.hcm, Some(self.head), false, headers);
        headers.remove(http::header::SERVER);
        headers.remove(http::header::VIA);
        if let Some(source) = self.source {
            source.borrow().proceed(headers);
        }
    }
}

/// One try, from a connection to the head of the response.
async fn one_try(
    ask: &Ask<'_>,
    endpoint: Rc<Endpoint>,
    own: Option<Box<Head>>,
    opened: Rc<Cell<bool>>,
) -> Result<Box<Got>, Lost> {
    let downstream = &ask.exchange.downstream;
    let head = own.as_deref().unwrap_or(ask.head);
    let upstream = endpoint.upstream();
    let breakers = upstream.breakers(ask.forward.priority);
    let unsent = |failure| Lost { failure, sent: false };
    let mut permit = None;
    let in_flight = endpoint.host.borrow().as_ref().map(|h| h.state.begin());
    let tunnel = ask.forward.upgrade == Some(UpgradePlan::Pass) && head.method != Method::CONNECT;
    let wish = Wish {
        downstream_http2: downstream.http2,
        priority: ask.forward.priority,
        host: server_name(&upstream, head),
        addresses: downstream.info.remote.zip(downstream.info.local),
        downstream: downstream.handle.id,
        http1_only: tunnel,
    };
    let (mut left, begun) = (STALE, clock::recent());
    loop {
        let mut lease = endpoint.lease(&downstream.worker.around, ask.live, &upstream, &wish).await.map_err(unsent)?;
        // Counted from here on, as in Envoy: until it has a connection a request is one that waits.
        let Some(counted) = permit.take().or_else(|| breakers.acquire(Resource::Requests)) else {
            lease.give_back();
            return Err(unsent(Failure::new(Kind::Overflow)));
        };
        opened.set(true);
        let body = ask.source.map_or(Body::Empty, |source| {
            let trailers = lease.is_http2() || upstream.cluster.http.http1.enable_trailers;
            Body::Client(Reader::new(source, trailers))
        });
        let told = ask.exchange.tells(lease.conn.end.as_ref()).then(|| {
            let mut told = Box::new(head.clone());
            ask.exchange.tell(lease.conn.end.as_ref(), &mut told.headers);
            told
        });
        {
            let mut known = ask.exchange.facts.borrow_mut();
            known.conn = Some(lease.conn.clone());
            known.spoken = lease.protocol();
        }
        let proceed = |mut headers: HeaderMap| ask.proceed(&mut headers);
        let proceed: Option<&dyn Fn(HeaderMap)> =
            if downstream.hcm.proxy_100_continue && ask.source.is_some() { Some(&proceed) } else { None };
        let tunnel = ask.forward.upgrade == Some(UpgradePlan::Pass);
        let request = send::Request { head: told.as_deref().unwrap_or(head), tunnel, proceed };
        match send::send(&mut lease, request, body).await {
            Ok(response) => {
                return Ok(Box::new(Got { response, lease, endpoint, in_flight, permit: counted, begun }));
            }
            Err(SendError { failure, unsent }) => {
                if unsent && lease.reused && left > 0 {
                    // The server had closed it while idle. Nothing went out: another connection will do.
                    left -= 1;
                    permit = Some(counted);
                    continue;
                }
                return Err(Lost { failure, sent: !unsent });
            }
        }
    }
}

/// The host that a TLS server is asked for, where that is the request's to say.
fn server_name<'h>(upstream: &Upstream, head: &'h Head) -> &'h str {
    let told = upstream.cluster.http.override_auto_sni_header.as_ref().and_then(|name| head.headers.get(name));
    told.and_then(|value| value.to_str().ok()).filter(|told| !told.is_empty()).unwrap_or(&head.authority)
}

/// Tells machine and balancer how a try ended.
fn finished(
    ask: &Ask<'_>,
    attempt: &mut Attempt,
    id: TryId,
    outcome: Result<Box<Got>, Lost>,
    endpoint: Option<Rc<Endpoint>>,
    got: &mut Option<(TryId, Box<Got>)>,
) -> Step {
    let worker = &ask.exchange.downstream.worker;
    let now = clock::recently();
    match outcome {
        Ok(found) => {
            let status = found.response.status().as_u16();
            report(ask, endpoint.as_deref(), || Outcome::Status(outlier_status(&found.response)));
            answered(ask, &found, now);
            let listed = attempt.asks_headers() && listed(ask, status, found.response.headers());
            let since = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let unix_seconds = if attempt.asks_time() { since().map_or(0, |d| d.as_secs()) } else { 0 };
            let head = ResponseHead { try_id: id, status, headers: found.response.headers(), listed, unix_seconds };
            let step = attempt.next(Event::Head(head), now, worker.draw());
            *got = Some((id, found));
            step
        }
        Err(Lost { failure, sent }) => {
            let outcome = match failure.kind {
                Kind::ConnectFailure | Kind::ConnectTimeout | Kind::LocalConnectFailure => Some(Outcome::ConnectFailed),
                Kind::UpstreamClosed | Kind::UpstreamReset | Kind::UpstreamProtocol => Some(Outcome::Reset),
                _ => None,
            };
            if let Some(outcome) = outcome {
                report(ask, endpoint.as_deref(), || outcome);
            }
            if failure.kind == Kind::DownstreamDisconnect {
                return failed(broken(ask));
            }
            if sent {
                let _ = attempt.next(Event::Sent(id), now, 0);
            }
            attempt.next(Event::Reset(Broken { try_id: id, failure, over_http3: false }), now, worker.draw())
        }
    }
}

/// A gRPC error in headers counts as the HTTP status that stands for it.
fn outlier_status(response: &Response<Incoming>) -> u16 {
    match super::response::grpc_status(response.headers()) {
        Some(0) | None => response.status().as_u16(),
        Some(14) => 503,
        Some(4) => 504,
        Some(2 | 13 | 15) => 500,
        Some(_) => 200,
    }
}

fn listed(ask: &Ask<'_>, status: u16, headers: &HeaderMap) -> bool {
    let Some(plan) = &ask.forward.retry else { return false };
    plan.policy.response_headers.iter().any(|matcher| match &matcher.name {
        Name::Header(name) => header_matches_in(matcher, name, headers),
        Name::Status => {
            let mut with = HeaderMap::new();
            let name = http::HeaderName::from_static("x-status");
            with.insert(name.clone(), http::HeaderValue::from(status));
            header_matches_in(matcher, &name, &with)
        }
        _ => false,
    })
}

fn report(ask: &Ask<'_>, endpoint: Option<&Endpoint>, outcome: impl FnOnce() -> Outcome) {
    let Some(endpoint) = endpoint else { return };
    let upstream = endpoint.upstream();
    let Some(settings) = &upstream.cluster.outlier else { return };
    let host = endpoint.host.borrow();
    let Some(host) = host.as_ref() else { return };
    if let Some(cause) = host.state.outliers().record(settings, outcome()) {
        let suspect = Suspect { cluster: endpoint.cluster.clone(), host: host.id(), blame: Blame::Outlier(cause) };
        // Full: the next failure tells again.
        let _ = ask.exchange.downstream.worker.setup.suspects.try_send(suspect);
    }
}

/// What an answer says of its endpoint beside its status.
fn answered(ask: &Ask<'_>, found: &Got, now: Millis) {
    let upstream = found.endpoint.upstream();
    let (policy, checked) = (&upstream.cluster.lb.policy, upstream.cluster.health_check.is_some());
    let host = found.endpoint.host.borrow();
    let Some(host) = host.as_ref() else { return };
    if let LbPolicy::PeakEwma(settings) = policy {
        let micros = u64::try_from(found.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        host.state.latency().observe(micros, settings, now);
    }
    if checked && found.response.headers().contains_key("x-envoy-immediate-health-check-fail") {
        let suspect = Suspect { cluster: found.endpoint.cluster.clone(), host: host.id(), blame: Blame::Itself };
        let _ = ask.exchange.downstream.worker.setup.suspects.try_send(suspect);
    }
}

/// Waits for whatever happens first.
async fn wait(
    ask: &Ask<'_>,
    attempt: &Attempt,
    tries: &mut SmallVec<[Try<'_>; 1]>,
    timer: &mut Timer,
    complete: bool,
    stream: &StreamClock,
) -> Woken {
    std::future::poll_fn(|cx| {
        for one in tries.iter_mut() {
            let polled = one.outcome.as_mut().poll(cx);
            if one.opened.get() && !std::mem::replace(&mut one.told_opened, one.opened.get()) && polled.is_pending() {
                return Poll::Ready(Woken::Opened(one.id));
            }
            if let Poll::Ready(outcome) = polled {
                return Poll::Ready(Woken::Finished(one.id, outcome));
            }
        }
        if let Some(source) = ask.source.filter(|_| !complete)
            && source.borrow_mut().poll_finished(cx).is_ready()
        {
            let broken = source.borrow().failed();
            return Poll::Ready(if broken { Woken::RequestBroken } else { Woken::RequestComplete });
        }
        let idle = stream.idle.map(|idle| {
            let last = ask.source.map_or(stream.begun, |s| clock::at(s.borrow().last_read()));
            last.after(tombolo_gateway_core::time::millis(idle))
        });
        loop {
            let Some(next) = [attempt.until(), idle, stream.life].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            std::task::ready!(timer.poll(cx, clock::origin() + Duration::from_millis(next.0)));
            let now = clock::now();
            if attempt.until().is_some_and(|at| at <= now) {
                return Poll::Ready(Woken::Timer);
            }
            if idle.is_some_and(|at| at <= now) {
                return Poll::Ready(Woken::StreamIdle);
            }
            if stream.life.is_some_and(|at| at <= now) {
                return Poll::Ready(Woken::StreamLife);
            }
            // Early by less than the clock's unit.
            std::task::ready!(timer.poll(cx, clock::recent() + Duration::from_millis(1)));
        }
    })
    .await
}
