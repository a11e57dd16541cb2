//! Where filters stand in the way of a request and of its response.

use super::{at_once, whole, wrap};
use crate::{
    clock,
    codec::Incoming,
    http::{
        exchange::{Exchange, Known},
        forward::{Payload, Request},
        tries::Got,
    },
    upstream::keeper::Live,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use std::{cell::Cell, rc::Rc, time::Duration};
use tombolo_gateway_core::{
    balance::Health,
    decision::{Cause, Reply},
    failure::{Failure, Kind, grpc_from_http},
    filter::{BodyFilter, Leaving, Recode, Recodes, Web, is_foreign_to_web, leave},
    forward::percent_encoded,
    names,
};

/// What of a body becomes the message of a gRPC status.
const MESSAGE: usize = 16 << 10;
/// How long a body may take that is only read for that.
const PATIENCE: Duration = Duration::from_secs(15);

/// Changes a request's body. `patience` is how long a body may keep still while it is kept back; how much of it came until it is
/// whole stands in `counted`.
///
/// # Errors
/// It is longer than a filter allows, malformed, or was broken off.
pub(crate) async fn request(
    recodes: &Recodes,
    request: &mut Request,
    patience: Option<Duration>,
    counted: &Cell<u64>,
) -> Result<(), Failure> {
    let Payload::Fresh(body) = &mut request.body else { return Ok(()) };
    let mut body = std::mem::replace(body, Incoming::Empty);
    for (at, recode) in recodes.iter().enumerate() {
        let Recode::Buffer(most) = *recode else {
            body = wrap(&Recodes::from_slice(&[*recode]), body, Kind::MalformedRequest);
            continue;
        };
        let read = whole(body, most, counted);
        let (all, length) = match patience {
            Some(patience) => tokio::time::timeout(patience, read)
                .await
                .unwrap_or_else(|_| Err(Failure::new(Kind::StreamIdleTimeout)))?,
            None => read.await?,
        };
        body = all;
        // From here on it is counted as any other body.
        counted.set(0);
        // Its length is known now, unless another filter changes it again.
        if recodes[at + 1..].is_empty() {
            request.head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    request.body = Payload::Fresh(body);
    Ok(())
}

/// Changes an upstream's response.
pub(crate) fn response(
    exchange: &Rc<Exchange>,
    status: u16,
    headers: &mut HeaderMap,
    complete: bool,
    chunked: bool,
    body: Incoming,
) -> Incoming {
    let known = exchange.facts.borrow();
    if known.health_check {
        let cluster = exchange.downstream.worker.setup.node.cluster.clone();
        headers.insert(names::X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER, cluster);
    }
    if known.bodies.is_empty() {
        return body;
    }
    let recodes = leave(&known.bodies, &mut Leaving { status, headers, complete, chunked });
    if complete { body } else { wrap(&recodes, body, Kind::UpstreamProtocol) }
}

/// Changes an answer that is made here.
pub(crate) fn local(known: &Known, status: StatusCode, is_head: bool, headers: &mut HeaderMap, body: Bytes) -> Bytes {
    if !body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let complete = body.is_empty() || is_head;
    let recodes = leave(&known.bodies, &mut Leaving { status: status.as_u16(), headers, complete, chunked: false });
    if complete { body } else { at_once(&recodes, body) }
}

/// The answer to a health check, which depends on how clusters are. Other answers stay as they are.
pub(crate) fn judged(exchange: &Rc<Exchange>, live: &Live, answer: Reply) -> Reply {
    let Cause::HealthCheck(filter) = &answer.cause else { return answer };
    exchange.facts.borrow_mut().health_check = true;
    let count = |name: &std::sync::Arc<str>| {
        let hosts = live.upstreams.get(name)?.plan().set().hosts();
        Some((hosts.iter().filter(|host| host.health() == Health::Healthy).count(), hosts.len()))
    };
    let worker = &exchange.downstream.worker;
    let healthy = !worker.setup.drain.failing() && filter.is_healthy(count);
    let mut answer = if healthy {
        answer
    } else {
        Reply { body: Bytes::new(), ..Reply::failure(Failure::new(Kind::FailedHealthCheck)) }
    };
    answer.headers.insert(names::X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER, worker.setup.node.cluster.clone());
    answer
}

/// A response that is not gRPC is told to a gRPC-Web client by its head alone: the body becomes the message of a gRPC status.
pub(crate) async fn foreign_to_web(exchange: &Rc<Exchange>, got: &mut Got, patience: Option<Duration>) {
    let is_web = |filter: &BodyFilter| matches!(filter, BodyFilter::GrpcWeb(Web::Binary | Web::Text));
    let status = got.response.status().as_u16();
    if !exchange.facts.borrow().bodies.iter().any(is_web)
        || http_body::Body::is_end_stream(got.response.body())
        || !is_foreign_to_web(status, got.response.headers())
    {
        return;
    }
    let mut message = Vec::new();
    let body = got.response.body_mut();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            message.extend_from_slice(&data[..data.len().min(MESSAGE - message.len())]);
        }
    };
    // What did not come in time is not said.
    let _ = tokio::time::timeout(patience.unwrap_or(PATIENCE), read).await;
    clock::read();
    let headers = got.response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(u32::from(grpc_from_http(status))));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&message)) {
        headers.insert("grpc-message", message);
    }
    if http_body::Body::is_end_stream(got.response.body()) {
        *got.response.body_mut() = Incoming::Empty;
    }
    got.response.headers_mut().remove(header::CONTENT_LENGTH);
}
