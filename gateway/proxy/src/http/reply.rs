//! Answers that are made here.
//!
//! Owns their form: plain text for everybody, a status in headers for gRPC. What is said comes from the core.

use super::{
    exchange::{Beyond, Downstream, Exchange, Known},
    filters,
    response::Outgoing,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::{borrow::Cow, rc::Rc, sync::atomic::Ordering};
use tombolo_gateway_core::{
    decision::{Cause, Reply},
    failure::{Failure, Kind, Side, grpc_from_http},
    format::Facts,
    forward::{Answer, finish_response, in_grpc, rewrite},
    head::Protocol,
    header::change_response,
};

/// The response for a reply; the exchange ends with it.
pub(crate) fn reply(exchange: &Rc<Exchange>, reply: Reply) -> Response<Outgoing> {
    let Reply { status, headers, body, grpc_status, cause, flags, matched, cluster, .. } = reply;
    let hcm = &exchange.downstream.hcm;
    let mut known = exchange.facts.borrow_mut();
    let is_grpc = known.head.as_ref().is_some_and(|head| head.is_grpc()) && cause != Cause::Preflight;
    let is_head = known.head.as_ref().is_some_and(|h| h.method == http::Method::HEAD);
    known.flags.extend(flags);
    known.status = status.as_u16();
    known.details = Cow::Owned(cause.details());
    if matched.is_some() {
        known.matched = matched;
    }
    if let Some(cluster) = cluster.and_then(|name| exchange.downstream.worker.cluster(&name)) {
        known.aim(Some(cluster));
    }
    let mut answer = Answer { status, headers, body };
    if let Some(matched) = &known.matched {
        let received = known.source.as_ref().map_or(0, |s| s.borrow().bytes());
        let (beyond, via) = (Beyond::of(&known), known.upstream_side());
        let record = exchange.record(&known, received, beyond.metadata());
        let facts = Facts { status: None, via: Some(&via), ..record.facts };
        change_response(matched, None, &facts, &mut answer.headers);
    }
    if let Some(config) = &hcm.local_reply {
        let received = known.source.as_ref().map_or(0, |s| s.borrow().bytes());
        rewrite(
            config,
            &exchange.record(&known, received, Beyond::of(&known).metadata()),
            exchange.question(&known, exchange.micros()),
            &mut answer,
        );
    }
    if is_grpc {
        let code = grpc_status.unwrap_or_else(|| match &cause {
            Cause::Failure(failure) if answer.status == status => u32::from(failure.grpc_status()),
            _ => u32::from(grpc_from_http(answer.status.as_u16())),
        });
        in_grpc(code, &mut answer);
        known.grpc_status = u16::try_from(code).ok();
    }
    let Answer { status, mut headers, mut body } = answer;
    known.status = status.as_u16();
    if !known.mutations.is_empty() {
        changed(exchange, &known, status, &mut headers);
        let known = &mut *known;
        if let Some(head) = &mut known.head {
            known.mutations.read_response(&mut headers, &mut head.metadata);
        }
    }
    if !known.bodies.is_empty() {
        body = filters::local(&known, status, is_head, &mut headers, body);
    }
    finish_response(hcm, known.head.as_deref(), false, &mut headers);
    if status == StatusCode::NO_CONTENT {
        // It may not have a body, whatever there is to say.
        headers.remove(header::CONTENT_TYPE);
        body = Bytes::new();
    }
    // A client that broke the rules, or whose body nobody will read, is not listened to any more.
    let refused = matches!(
        &cause,
        Cause::Failure(failure) if failure.side == Side::Downstream && failure.kind != Kind::AbsolutePath
    ) && status.is_client_error();
    let unread = known.source.as_ref().map_or(exchange.unread.get(), |s| !s.borrow().ended());
    if !exchange.downstream.http2 && (refused || unread) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        // It may still be sending: closing at once would take the answer away from it.
        exchange.downstream.handle.linger.store(true, Ordering::Relaxed);
    }
    // HTTP/1 gets a length of 0 from its codec where one is needed.
    if !body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if exchange.downstream.logs_heads() {
        known.response = Some(headers.clone());
    }
    known.times.response_begin = Some(exchange.micros());
    drop(known);
    let outgoing = if is_head || body.is_empty() { Outgoing::Empty } else { Outgoing::Full(Some(body)) };
    if let Outgoing::Full(Some(body)) = &outgoing {
        exchange.add_sent(body.len());
    }
    exchange.finish();
    let mut response = Response::new(outgoing);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What filters change in an answer that is made here.
fn changed(exchange: &Exchange, known: &Known, status: StatusCode, headers: &mut HeaderMap) {
    let received = known.source.as_ref().map_or(0, |s| s.borrow().bytes());
    let (beyond, via) = (Beyond::of(known), known.upstream_side());
    let record = exchange.record(known, received, beyond.metadata());
    let facts = Facts { status: Some(status.as_u16()), via: Some(&via), ..record.facts };
    known.mutations.response(&facts, headers);
}

/// The answer to what is no request.
pub(crate) fn unread(downstream: &Rc<Downstream>, refused: Failure) -> Response<Outgoing> {
    let exchange = Exchange::begin(downstream);
    exchange.facts.borrow_mut().unheard = Some(Protocol::Http11);
    failure(&exchange, refused, 0)
}

/// The answer to a failure of forwarding.
pub(crate) fn failure(exchange: &Rc<Exchange>, failure: Failure, attempts: u32) -> Response<Outgoing> {
    {
        let mut known = exchange.facts.borrow_mut();
        known.attempts = attempts;
        known.trouble = failure.transport_reason().map(|reason| reason.replace(' ', "_").into());
    }
    let body = failure.body(attempts > 1);
    let mut made = Reply::failure(failure);
    made.body = body.into();
    made.matched = exchange.facts.borrow().matched.clone();
    reply(exchange, made)
}
