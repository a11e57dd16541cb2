//! Forwarding one request: headers on the way up, tries, headers on the way down.
//!
//! Owns the order of these. The rules are the core's.

use super::{
    body::{SharedSource, Source},
    exchange::{Beyond, Exchange},
    filters,
    handle::Gone,
    mirror, reply,
    response::{Clocks, Held, Outgoing, Streaming, grpc_status},
    tries::{self, After, Ask, Done, Got},
    tunnel,
};
use crate::{
    codec::{Incoming, Upgrade},
    telemetry::labels::Role,
    upstream::keeper::Live,
};
use http::{Response, StatusCode};
use http_body::Body as _;
use std::{borrow::Cow, rc::Rc, time::Duration};
use tombolo_gateway_core::{
    accesslog,
    balance::drop_overload,
    decision::{Forward, UpgradePlan},
    failure::{Failure, Kind},
    format::{Facts, MetadataOf},
    forward::{
        Asked, Context, Trail, finish_response, follow, prepare, request_trailers, stamp_attempt, upstream_response,
    },
    head::Head,
    request::Caller,
};

/// A request that is to be forwarded.
pub(crate) struct Request {
    /// Its head, cleaned.
    pub(crate) head: Box<Head>,
    /// Who asks.
    pub(crate) caller: Caller,
    /// Its body.
    pub(crate) body: Payload,
    /// The client's side of an upgrade.
    pub(crate) upgrade: Option<Upgrade>,
}

/// The body of a request that is to be forwarded.
pub(crate) enum Payload {
    /// As it comes.
    Fresh(Incoming),
    /// It was forwarded before, and what was read of it is kept.
    Again(SharedSource),
}

impl Payload {
    /// Nothing of it will come any more.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Fresh(body) => body.is_end_stream(),
            Self::Again(source) => source.borrow().ended(),
        }
    }
}

const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

/// What came of forwarding.
pub(crate) enum Passed {
    /// A response.
    Done(Response<Outgoing>),
    /// A redirect that is followed here.
    Again(Box<Request>),
}

/// Forwards a request.
pub(crate) async fn forward(
    exchange: &Rc<Exchange>,
    live: &Live,
    mut forward: Box<Forward>,
    request: Request,
    trail: &mut Trail,
) -> Result<Passed, Gone> {
    let downstream = exchange.downstream.clone();
    let Request { mut head, caller, body, upgrade } = request;
    exchange.facts.borrow_mut().matched = Some(forward.matched.clone());
    exchange.facts.borrow_mut().flags.extend(forward.flags);
    if let Some(delay) = forward.delay {
        tokio::time::sleep(delay).await;
        crate::clock::read();
    }
    let Some(cluster) = downstream.worker.cluster(&forward.cluster) else {
        keep_head(exchange, head);
        exchange.at_once.set(forward.delay.is_none());
        return Ok(Passed::Done(reply::failure(exchange, Failure::new(Kind::NoCluster), 0)));
    };
    let upstream = cluster.upstream();
    exchange.facts.borrow_mut().aim_with(&cluster, &upstream);
    if let Some(dropped) = drop_overload(&upstream.load.drops, downstream.worker.draw()) {
        keep_head(exchange, head);
        return Ok(Passed::Done(reply::failure(exchange, Failure::new(dropped.kind), 0)));
    }
    let cluster_metadata = MetadataOf { cluster: Some(&upstream.cluster.metadata), ..MetadataOf::default() };
    let via = accesslog::Upstream { observed_cluster: &upstream.cluster.alt_stat_name, ..Default::default() };
    let base = Facts { via: Some(&via), ..base(exchange, cluster_metadata) };
    let context = Context { hcm: &downstream.hcm, conn: &downstream.info, caller, base };
    prepare(&mut forward, context, &mut head);
    let source = match body {
        Payload::Again(source) => Some(source),
        Payload::Fresh(body) if body.is_end_stream() || forward.upgrade.is_some() => None,
        Payload::Fresh(body) => {
            let most = forward.body_buffer_limit.unwrap_or(u64::from(downstream.listener.buffer_limit));
            let keeps = forward.retry.is_some() || !forward.copies.is_empty() || forward.internal_redirect().is_some();
            let most = if keeps { usize::try_from(most).unwrap_or(usize::MAX) } else { 64 * 1024 };
            let source = Source::new(body, most);
            source.borrow_mut().change_trailers(request_trailers(&forward, context, &head));
            Some(source)
        }
    };
    exchange.facts.borrow_mut().source.clone_from(&source);
    mirror::copies(exchange, &forward, &head, source.as_ref());
    if forward.upgrade == Some(UpgradePlan::TerminateConnect) {
        // Boxed: every request would be as large.
        let tunnel = Box::pin(tunnel::terminate(exchange, live, &forward, cluster, head, upgrade));
        return Ok(Passed::Done(tunnel.await));
    }
    stamp_attempt(&forward, 1, Duration::from_micros(exchange.recent_micros()), false, &mut head);
    let ask =
        Ask { exchange, forward: &forward, head: &head, source: source.as_ref(), cluster: &cluster, upstream, live };
    let done = tries::run(&ask).await;
    match done {
        Done::Failed(failure, after) => {
            exchange.facts.borrow_mut().flags.extend(after.flags);
            failed(exchange, head, failure, after.attempts).map(Passed::Done)
        }
        Done::Response(mut got, after) => {
            let status = got.response.status().as_u16();
            if forward.internal_redirect().is_some()
                && source.as_ref().is_none_or(|s| s.borrow().ended() && s.borrow().replayable())
                && let table = &forward.matched.table
                && let asked =
                    (Asked { table, runtime: &live.config.runtime, conn: &downstream.info, caller, head: &head })
                && let headers = got.response.headers()
                && let Some(next) = follow(&forward, trail, asked, status, headers, downstream.worker.draw())
            {
                leave_behind(exchange, head, *got, &after);
                exchange.aim_at(trail.take_aim());
                let kept = source.filter(|_| next.method != http::Method::GET || status != 303);
                let body = kept.map_or(Payload::Fresh(Incoming::Empty), Payload::Again);
                return Ok(Passed::Again(Box::new(Request { head: Box::new(next), caller, body, upgrade: None })));
            }
            if forward.upgrade == Some(UpgradePlan::Pass)
                && head.upgrade.eq_ignore_ascii_case("websocket")
                && !got.lease.is_http2()
                && (status < 400 && status != 101)
            {
                // No answer to a handshake: its body would be taken for frames.
                exchange.facts.borrow_mut().flags.extend(after.flags);
                keep_head(exchange, head);
                let failure = Failure::new(Kind::HandshakeFailed).with_status(status);
                return Ok(Passed::Done(reply::failure(exchange, failure, after.attempts)));
            }
            filters::foreign_to_web(exchange, &mut got, forward.timeouts.global).await;
            exchange.aim_at(trail.take_aim());
            Ok(Passed::Done(respond(exchange, &forward, head, caller, *got, after, upgrade)))
        }
    }
}

/// The end of a request that failed: an answer, if there is anybody to answer.
pub(crate) fn failed(
    exchange: &Rc<Exchange>,
    head: Box<Head>,
    failure: Failure,
    attempts: u32,
) -> Result<Response<Outgoing>, Gone> {
    keep_head(exchange, head);
    // An HTTP/2 stream that broke the rules has ended already.
    let unanswerable = failure.kind == Kind::MalformedRequest && exchange.stream.borrow().is_some();
    if unanswerable || failure.kind == Kind::DownstreamDisconnect {
        let (flag, details) = exchange.fate();
        exchange.abandon(flag, details);
        return Err(Gone);
    }
    Ok(reply::failure(exchange, failure, attempts))
}

/// What values of headers can tell beside what the rules of forwarding know.
fn base<'a>(exchange: &'a Exchange, metadata: MetadataOf<'a>) -> Facts<'a> {
    Facts { start: exchange.since_1970(), around: exchange.downstream.surroundings(), metadata, ..Facts::default() }
}

/// Writes down a response that the client does not see.
fn leave_behind(exchange: &Rc<Exchange>, head: Box<Head>, got: Got, after: &After) {
    let (parts, body) = got.response.into_parts();
    let mut known = exchange.facts.borrow_mut();
    known.status = parts.status.as_u16();
    known.flags.extend(after.flags);
    known.attempts = after.attempts;
    known.details = Cow::Borrowed("internal_redirect");
    known.response = Some(parts.headers);
    known.head = Some(head);
    if body.is_end_stream() {
        got.lease.give_back();
    }
}

/// The head is kept for the log line of a request that ends here.
fn keep_head(exchange: &Rc<Exchange>, head: Box<Head>) {
    exchange.facts.borrow_mut().head = Some(head);
}

/// Turns an upstream's response into the client's.
fn respond(
    exchange: &Rc<Exchange>,
    forward: &Forward,
    mut head: Box<Head>,
    caller: Caller,
    got: Got,
    after: After,
    upgrade: Option<Upgrade>,
) -> Response<Outgoing> {
    let downstream = &exchange.downstream;
    let Got { mut response, mut lease, endpoint, in_flight, permit, .. } = got;
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (forward.upgrade == Some(UpgradePlan::Pass)
            && if head.is_upgrade() { lease.is_http2() } else { head.method == http::Method::CONNECT }
            && response.status().is_success());
    let upstream_side = switching.then(|| lease.upgrade(&mut response));
    let (mut parts, incoming) = response.into_parts();
    if switching && head.is_upgrade() {
        tunnel::switched(&head, &mut parts);
    }
    let status = parts.status.as_u16();
    exchange.hear(Role::Destination, &mut parts.headers);
    // Read when the response came.
    let micros = exchange.recent_micros();
    let (request_end, whole) = {
        let mut known = exchange.facts.borrow_mut();
        known.times.upstream_receive_begin = Some(micros);
        (known.times.request_end.unwrap_or(0), known.source.as_ref().is_none_or(|s| s.borrow().ended()))
    };
    let flags = after.flags;
    let known = exchange.facts.borrow();
    let (via, beyond) = (known.upstream_side(), Beyond::of(&known));
    let facts = Facts {
        status: Some(status),
        flags,
        details: "via_upstream",
        route: forward.matched.route().map_or("", |r| &r.name),
        virtual_host: &forward.matched.host().name,
        cluster: &forward.cluster,
        upstream: endpoint.address(),
        via: Some(&via),
        received: known.source.as_ref().map_or(0, |s| s.borrow().bytes()),
        ..base(exchange, beyond.metadata())
    };
    let context = Context { hcm: &downstream.hcm, conn: &downstream.info, caller, base: Facts::default() };
    let millis = micros.saturating_sub(request_end) / 1000;
    // The time counts from the request's end, of which nothing is known before it.
    let theirs = if whole { None } else { Some(parts.headers.get(SERVICE_TIME).cloned()) };
    upstream_response(forward, context, &head, &facts, millis, after.attempts, &mut parts.headers);
    drop(beyond);
    drop(known);
    forward.mutations.read_response(&mut parts.headers, &mut head.metadata);
    match theirs {
        None => {}
        Some(None) => drop(parts.headers.remove(SERVICE_TIME)),
        Some(Some(theirs)) => drop(parts.headers.insert(SERVICE_TIME, theirs)),
    }
    let complete = incoming.is_end_stream() || head.method == http::Method::HEAD || switching;
    let incoming = filters::response(exchange, status, &mut parts.headers, complete, !lease.is_http2(), incoming);
    finish_response(&downstream.hcm, Some(&head), switching, &mut parts.headers);
    // Only who told of itself wants to know, as in Istio.
    exchange.tell(exchange.client_that_told(), &mut parts.headers);
    if forward.upgrade.is_some() {
        parts.headers.remove(SERVICE_TIME);
        if !switching && !downstream.http2 {
            // What the client sent after its head was meant for another protocol.
            parts.headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        }
    }
    parts.version = http::Version::HTTP_11;
    let is_head = head.method == http::Method::HEAD;
    {
        let mut known = exchange.facts.borrow_mut();
        known.status = status;
        known.flags.extend(flags);
        known.details = Cow::Borrowed("via_upstream");
        known.attempts = after.attempts;
        known.grpc_status = grpc_status(&parts.headers);
        known.times.response_begin = Some(micros);
        if downstream.logs_heads() || known.mutations.response_has_trailers() {
            known.response = Some(parts.headers.clone());
        }
        known.head = Some(head);
    }
    let trailers = (downstream.http2 || downstream.hcm.http1.enable_trailers)
        && (lease.is_http2()
            || downstream
                .worker
                .cluster(&forward.cluster)
                .is_some_and(|c| c.upstream().cluster.http.http1.enable_trailers));
    let mut held = Held { exchange: exchange.clone(), lease: Some(lease), in_flight, permit: Some(permit) };
    if let Some(upstream_side) = upstream_side {
        if let Some(client_side) = upgrade {
            let clocks = tunnel::Clocks { idle: forward.timeouts.idle, end: after.end };
            tunnel::pass(exchange, client_side, upstream_side, held, clocks);
        }
        return Response::from_parts(parts, Outgoing::Empty);
    }
    if incoming.is_end_stream() || is_head {
        let done = exchange.facts.borrow().source.as_ref().is_none_or(|s| s.borrow().ended());
        exchange.finish_at(micros);
        // Its task must see the end of the message before it can serve again; the pool looks for that.
        held.release(done && incoming.is_end_stream());
        return Response::from_parts(parts, Outgoing::Empty);
    }
    let incoming = match incoming {
        Incoming::Full(Some(data)) if forward.response_kbps.is_none() => {
            // Nothing of it is still to come: what it occupies is given back before it is written.
            let done = exchange.facts.borrow().source.as_ref().is_none_or(|s| s.borrow().ended());
            exchange.add_sent(data.len());
            exchange.facts.borrow_mut().times.upstream_receive_end = Some(micros);
            exchange.finish_at(micros);
            held.release(done);
            return Response::from_parts(parts, Outgoing::Full(Some(data)));
        }
        other => other,
    };
    let clocks = Clocks {
        global: after.until,
        idle: forward.timeouts.idle,
        life: forward.timeouts.max_stream.map(|life| crate::clock::at(exchange.start + life)),
        upstream: after.end,
    };
    let streaming = Streaming::new(incoming, held, clocks, after.timer, forward.response_kbps, trailers);
    Response::from_parts(parts, Outgoing::Stream(streaming))
}
