//! Codecs that hyper speaks.
//!
//! Owns the translation of its messages and errors into the seam's. Nothing outside of `codec` and the pool knows hyper.

use super::{Arrived, Broken, Incoming, Upgrade, Watched};
use crate::{
    http::{
        Downstream, convert,
        handle::{self, Gone},
        response::Outgoing,
    },
    listen::{Handle, Signal},
};
use http::{Method, Request, Response, Version};
use hyper::{body::Incoming as HyperBody, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};
use tombolo_gateway_core::{
    config::Http2Settings,
    failure::{Failure, Kind},
};

/// Streams of one HTTP/2 connection when nothing is configured: enough for a browser or a proxy, bounded for an attacker.
const MAX_STREAMS: u32 = 128;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Resets that a peer may have provoked before its connection is ended.
const MAX_RESETS: usize = 64;

/// Drives a connection; `graceful` is called once when it is told to finish.
async fn drive<C: Future>(handle: &Handle, connection: C, graceful: impl Fn(Pin<&mut C>)) {
    let mut connection = pin!(connection);
    let mut told = false;
    std::future::poll_fn(|cx| {
        match handle.poll_signal(cx) {
            Signal::None => {}
            Signal::Drain => {
                if !std::mem::replace(&mut told, true) {
                    graceful(connection.as_mut());
                }
            }
            Signal::Close => return Poll::Ready(()),
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// Serves HTTP/2 until the connection ends.
pub(crate) async fn serve_http2(downstream: &Rc<Downstream>, io: Watched) {
    let settings: &Http2Settings = &downstream.hcm.http2;
    let service = service_fn({
        let downstream = downstream.clone();
        move |request: Request<HyperBody>| serve(downstream.clone(), request)
    });
    let mut builder = http2::Builder::new(Executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams.unwrap_or(MAX_STREAMS))
        .initial_stream_window_size(settings.stream_window.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(settings.connection_window.unwrap_or(CONNECTION_WINDOW))
        .header_table_size(settings.header_table_size)
        .max_header_list_size(downstream.hcm.limits.headers_kb.saturating_mul(1024))
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_send_buf_size(256 << 10);
    if settings.allow_connect {
        builder.enable_connect_protocol();
    }
    if let Some((interval, patience)) = settings.keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(patience);
    }
    let connection = builder.serve_connection(TokioIo::new(io), service);
    drive(&downstream.handle, connection, |c| c.graceful_shutdown()).await;
}

async fn serve(downstream: Rc<Downstream>, mut request: Request<HyperBody>) -> Result<Response<Outgoing>, Gone> {
    let upgrade = wants_upgrade(&request).then(|| Upgrade::Hyper(hyper::upgrade::on(&mut request)));
    let (parts, body) = request.into_parts();
    let protocol = parts.extensions.get::<hyper::ext::Protocol>().map(|p| p.as_str().to_owned());
    let (head, original) = convert::head(parts, downstream.info.scheme(), protocol.as_deref());
    let body = if http_body::Body::is_end_stream(&body) { Incoming::Empty } else { Incoming::Hyper(body) };
    handle::handle(downstream, Arrived { head, original, body, upgrade }).await
}

fn wants_upgrade(request: &Request<HyperBody>) -> bool {
    request.method() == Method::CONNECT
        || (request.version() == Version::HTTP_11 && request.headers().contains_key(http::header::UPGRADE))
}

/// Runs hyper's helper tasks on the worker that owns the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Executor;

impl<F: Future + 'static> hyper::rt::Executor<F> for Executor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Why a body broke off.
pub(super) fn broken(error: &hyper::Error) -> Broken {
    Broken { failure: classify(error), malformed: is_malformed(error) }
}

/// Whether a body is wrong, as opposed to cut short.
fn is_malformed(error: &hyper::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData);
        }
        next = cause.source();
    }
    error.is_parse()
}

/// What a codec's error means.
pub(crate) fn classify(error: &hyper::Error) -> Failure {
    if let Some(reason) = h2_reason(error) {
        return reason;
    }
    if error.is_parse() || error.is_parse_status() {
        return Failure::new(Kind::UpstreamProtocol);
    }
    if error.is_user() {
        return Failure::new(Kind::DownstreamDisconnect);
    }
    if error.is_timeout() {
        return Failure::new(Kind::UpstreamClosed).with_reason("keepalive timeout");
    }
    Failure::new(Kind::UpstreamClosed)
}

fn h2_reason(error: &hyper::Error) -> Option<Failure> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return Some(match h2.reason() {
                Some(h2::Reason::REFUSED_STREAM) => Failure::new(Kind::UpstreamRefusedStream),
                Some(_) if h2.is_go_away() => Failure::new(Kind::UpstreamClosed),
                Some(h2::Reason::PROTOCOL_ERROR) if !h2.is_remote() => Failure::new(Kind::UpstreamProtocol),
                Some(_) if h2.is_remote() => Failure::new(Kind::UpstreamReset),
                _ => Failure::new(Kind::UpstreamClosed),
            });
        }
        next = cause.source();
    }
    None
}
