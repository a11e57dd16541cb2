//! The request path: a head comes in, a response goes out.
//!
//! Owns the order admit, decide, act; every step is one call. Reads one configuration from begin to end.

use super::{
    exchange::{Downstream, Exchange},
    filters,
    forward::{self, Passed, Payload, Request as Forwarded},
    on_demand, reply,
    response::Outgoing,
};
use crate::{
    clock,
    codec::{Arrived, Incoming},
    telemetry::labels::Role,
    upstream::keeper::Live,
};
use http::Response;
use std::{pin::Pin, rc::Rc, sync::Arc, time::Duration};
use tombolo_gateway_core::{
    config::ClusterChoice,
    config::RouteTable,
    decide::{Moment, decide},
    decision::{Cause, Decision, Reply},
    failure::{Failure, Flag, Kind},
    filter::enter,
    forward::Trail,
    head::{Head, Protocol},
    request::admit,
    time::Random,
};

/// There is nobody to answer, or nothing may be said: the codec resets the stream or closes the connection.
#[derive(Debug, thiserror::Error)]
#[error("the exchange ended without a response")]
pub(crate) struct Gone;

/// Serves one request.
pub(crate) async fn handle(downstream: Rc<Downstream>, arrived: Arrived) -> Result<Response<Outgoing>, Gone> {
    let exchange = Exchange::begin(&downstream);
    let Arrived { mut head, body, upgrade } = arrived;
    if let Incoming::Http2(body) = &body {
        exchange.stream.replace(Some(body.side().clone()));
    }
    exchange.unread.set(!http_body::Body::is_end_stream(&body));
    exchange.hear(Role::Source, &mut head.headers);
    if downstream.http2 && head.headers.len() > usize::try_from(downstream.hcm.limits.headers).unwrap_or(usize::MAX) {
        exchange.facts.borrow_mut().head = Some(head);
        exchange.abandon(Flag::DownstreamProtocolError, "http2.too_many_headers");
        return Err(Gone);
    }
    if let Some(kind) = refused(&downstream, &head) {
        exchange.facts.borrow_mut().head = Some(head);
        return Ok(reply::failure(&exchange, Failure::new(kind), 0));
    }
    let worker = &downstream.worker;
    let live = on_demand::live_for(&downstream, &head).await;
    let hcm = &downstream.hcm;
    let mut random = Random::new(worker.draw());
    let table = live.config.routes_for(hcm, &head.authority, &head.headers);
    let caller = match admit(hcm, &worker.setup.node, &downstream.info, table.map(|t| &**t), &mut head, &mut random) {
        Ok(caller) => caller,
        Err(answer) => return Ok(answered(&exchange, head, *answer).await),
    };
    let limit = hcm.timeouts.request.filter(|_| exchange.unread.get());
    let request = Forwarded { head, caller, body: Payload::Fresh(body), upgrade };
    let Some(limit) = limit else { return serve(exchange, &live, table, request, &mut random).await };
    let head = request.head.clone();
    let serving = Box::pin(serve(exchange.clone(), &live, table, request, &mut random));
    arrive_within(limit, &exchange, head, serving).await
}

/// A request that has not arrived as a whole within its time is answered so, unless it is being answered already.
async fn arrive_within(
    limit: Duration,
    exchange: &Rc<Exchange>,
    head: Box<Head>,
    mut serving: Pin<Box<impl Future<Output = Result<Response<Outgoing>, Gone>>>>,
) -> Result<Response<Outgoing>, Gone> {
    if let Ok(done) = tokio::time::timeout(limit, serving.as_mut()).await {
        return done;
    }
    let (arrived, attempts) = {
        let known = exchange.facts.borrow();
        let arrived = known.source.as_ref().is_some_and(|s| s.borrow().ended());
        (arrived, u32::from(known.cluster.is_some()))
    };
    if arrived {
        return serving.await;
    }
    drop(serving);
    exchange.facts.borrow_mut().head = Some(head);
    Ok(reply::failure(exchange, Failure::new(Kind::RequestTimeout), attempts))
}

/// Decides and acts, again for each redirect of an upstream that is followed here.
async fn serve(
    mut exchange: Rc<Exchange>,
    live: &Live,
    table: Option<&Arc<RouteTable>>,
    mut request: Forwarded,
    random: &mut Random,
) -> Result<Response<Outgoing>, Gone> {
    let downstream = exchange.downstream.clone();
    let worker = &downstream.worker;
    let mut trail = Trail::default();
    loop {
        exchange.facts.borrow_mut().caller = Some(request.caller);
        let moment = Moment { now: clock::recently(), active_faults: worker.active_faults() };
        let (hcm, info) = (&downstream.hcm, &downstream.info);
        let mut decision = decide(&live.config, hcm, table, info, request.caller, &request.head, moment, random);
        request.head.metadata = decision.take_metadata();
        let recodes = enter(decision.bodies(), &mut request.head, request.body.is_over());
        {
            let mut known = exchange.facts.borrow_mut();
            known.bodies = std::mem::take(decision.bodies());
            known.mutations.clone_from(decision.mutations());
        }
        let decided = match decision {
            Decision::Reply(answer) => {
                exchange.change_head(&mut request.head);
                let answer = filters::judged(&exchange, live, *answer);
                return Ok(answered(&exchange, request.head, answer).await);
            }
            Decision::Forward(decided) => decided,
        };
        let fault = (decided.delay.is_some() || decided.response_kbps.is_some()).then(|| worker.fault());
        exchange.facts.borrow_mut().health_check = decided.health_check;
        if !recodes.is_empty() {
            {
                let mut known = exchange.facts.borrow_mut();
                known.matched = Some(decided.matched.clone());
                known.aim(worker.cluster(&decided.cluster));
            }
            let changed = filters::request(&recodes, &mut request, decided.timeouts.idle, &exchange.elsewhere).await;
            clock::read();
            if let Err(failure) = changed {
                return forward::failed(&exchange, request.head, failure, 0);
            }
        }
        match forward::forward(&exchange, live, decided, request, &mut trail).await? {
            Passed::Done(response) => {
                drop(fault);
                return Ok(response);
            }
            Passed::Again(again) => {
                // The next one begins before this one ends: the connection is never without a request meanwhile.
                let next = Exchange::begin(&downstream);
                next.elsewhere.set(exchange.received());
                exchange.finish();
                (exchange, request) = (next, *again);
            }
        }
    }
}

/// Answers a request of which no head can be shown.
pub(crate) fn refuse(downstream: &Rc<Downstream>, kind: Kind) -> Response<Outgoing> {
    reply::failure(&Exchange::begin(downstream), Failure::new(kind), 0)
}

async fn answered(exchange: &Rc<Exchange>, head: Box<Head>, answer: Reply) -> Response<Outgoing> {
    {
        let mut known = exchange.facts.borrow_mut();
        known.head = Some(head);
        // Refused on the way to a cluster, as far as a log can tell.
        if let Cause::Failure(Failure { kind: Kind::UpgradeRefused, .. }) = &answer.cause
            && let Some(ClusterChoice::One(cluster)) =
                answer.matched.as_ref().and_then(|m| m.action()).map(|a| &a.cluster)
        {
            known.aim(exchange.downstream.worker.cluster(cluster));
        }
    }
    match answer.delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => exchange.at_once.set(true),
    }
    reply::reply(exchange, answer)
}

/// What the codec lets through and the connection manager does not.
fn refused(downstream: &Downstream, head: &Head) -> Option<Kind> {
    let named = head.protocol == Protocol::Http10 && downstream.hcm.http1.default_host.is_some();
    (head.authority.is_empty() && !named).then_some(Kind::MissingHost)
}
