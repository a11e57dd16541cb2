//! Copies of requests to other clusters.
//!
//! Owns their tasks. A copy never delays, fails or outlives-by-much the request that it is made of; its response is
//! dropped.

use super::{
    body::{Body, SharedSource},
    exchange::Exchange,
    send,
};
use crate::{
    drain::Guard,
    upstream::{
        choice::{self, Question},
        cluster::Wish,
    },
};
use http::HeaderValue;
use std::{rc::Rc, sync::Arc, time::Duration};
use tombolo_gateway_core::{
    breaker::Resource,
    config::{Mirror, RoutePriority},
    decision::Forward,
    format::Facts,
    forward::stamp_attempt,
    head::Head,
    route::hosts::port_start,
};

/// How long a copy may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes by which a copy may lag behind.
const LAG: usize = 256 * 1024;

/// Sends the copies that a decision asks for.
pub(crate) fn copies(exchange: &Rc<Exchange>, forward: &Forward, head: &Head, source: Option<&SharedSource>) {
    for (index, cluster) in &forward.copies {
        let Some(mirror) = usize::try_from(*index).ok().and_then(|at| forward.mirrors().get(at)) else { continue };
        let body = source.map_or(Body::Empty, |source| source.borrow_mut().copy(LAG));
        let head = copied(exchange, forward, mirror, head);
        let guard = exchange.downstream.worker.setup.drain.guard();
        tokio::task::spawn_local(tokio::time::timeout(
            TIMEOUT,
            send_one(exchange.downstream.clone(), cluster.clone(), head, body, guard),
        ));
    }
}

fn copied(exchange: &Rc<Exchange>, forward: &Forward, mirror: &Mirror, head: &Head) -> Head {
    let mut head = head.clone();
    // A copy becomes no tunnel.
    head.headers.remove(http::header::CONNECTION);
    stamp_attempt(forward, 1, Duration::ZERO, false, &mut head);
    // The copy is a request of this proxy's own.
    head.headers.insert("x-envoy-internal", HeaderValue::from_static("true"));
    let own = exchange.downstream.worker.setup.node.address.to_string();
    let before = head.headers.get("x-forwarded-for").and_then(|v| v.to_str().ok()).map(|v| format!("{v},{own}"));
    if let Ok(value) = HeaderValue::try_from(before.unwrap_or(own)) {
        head.headers.insert("x-forwarded-for", value);
    }
    if let Some(host) = mirror.host.as_ref().and_then(|h| h.to_str().ok()) {
        host.clone_into(&mut head.authority);
    } else if !mirror.keep_host {
        let at = port_start(&head.authority).unwrap_or(head.authority.len());
        head.authority.insert_str(at, "-shadow");
    }
    let (conn, around) = (Some(&exchange.downstream.info), exchange.downstream.surroundings());
    for mutation in &mirror.headers {
        let facts = Facts { head: Some(&head), conn, around, start: exchange.since_1970(), ..Facts::default() };
        mutation.apply(mutation.value(&facts), &mut head.headers);
    }
    head
}

async fn send_one(downstream: Rc<super::Downstream>, cluster: Arc<str>, head: Head, body: Body, guard: Guard) {
    let worker = &downstream.worker;
    let Some(cluster) = worker.cluster(&cluster) else { return };
    let (upstream, live) = (cluster.upstream(), worker.live());
    let question = Question { headers: Some(&head.headers), host: &head.authority, ..Question::default() };
    let picked = choice::choose(worker, &cluster, &upstream, &question, worker.now());
    let Some(endpoint) = picked.await.map(|picked| picked.endpoint) else { return };
    let upstream = endpoint.upstream();
    let wish = Wish {
        downstream_http2: downstream.http2,
        priority: RoutePriority::Default,
        host: &head.authority,
        addresses: downstream.info.remote.zip(downstream.info.local),
        downstream: downstream.handle.id,
        http1_only: false,
    };
    let Ok(mut lease) = endpoint.lease(&worker.around, &live, &upstream, &wish).await else { return };
    let Some(_permit) = upstream.breakers(RoutePriority::Default).acquire(Resource::Requests) else {
        return lease.give_back();
    };
    let request = send::Request { head: &head, tunnel: false, proceed: None };
    let whole = async {
        let Ok(response) = send::send(&mut lease, request, body).await else { return false };
        let mut body = response.into_body();
        while let Some(Ok(_)) = http_body_util::BodyExt::frame(&mut body).await {}
        true
    };
    let life = upstream.cluster.http.max_stream.unwrap_or(TIMEOUT);
    if tokio::time::timeout(life, whole).await == Ok(true) {
        lease.give_back();
    }
    drop(guard);
}
