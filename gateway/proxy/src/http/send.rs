//! Sending one request over whatever a connection speaks.
//!
//! Owns the last form of a request. Nothing is decided here.

use super::body::Body;
use crate::{
    codec::{Incoming, SendError, http1::Outbound, http2},
    upstream::pool::Lease,
};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use http_body::Body as _;
use tombolo_gateway_core::{
    failure::{Failure, Kind},
    head::Head,
};
use tombolo_gateway_http1::{Framing, RequestLine};

/// A request that is to be sent.
pub(super) struct Request<'a> {
    /// Its head.
    pub(super) head: &'a Head,
    /// The connection may become a tunnel.
    pub(super) tunnel: bool,
    /// Told of a 100 (Continue).
    pub(super) proceed: Option<&'a dyn Fn(HeaderMap)>,
}

/// Sends a request and waits for the head of its response.
///
/// # Errors
/// As [`Lease::send_http1`]; also when the head cannot be written.
pub(super) async fn send(lease: &mut Lease, request: Request<'_>, body: Body) -> Result<Response<Incoming>, SendError> {
    let unwritable = || SendError { failure: Failure::new(Kind::LocalReset), unsent: true };
    let head = request.head;
    if lease.is_http2() {
        return lease.send_http2(http2::Outbound { head, proceed: request.proceed }, body).await;
    }
    let connect = head.method == Method::CONNECT && !head.is_upgrade();
    let target = match head.path.as_str() {
        _ if connect => &head.authority,
        "" => "/",
        path => path,
    };
    // A rewrite may have made what no server should see.
    if !printable(target) || !printable(&head.authority) {
        return Err(unwritable());
    }
    let upgrade = if request.tunnel && !connect { head.upgrade.as_str() } else { "" };
    // An extended CONNECT (RFC 8441) is an upgrade here.
    let method = if head.is_upgrade() && head.method == Method::CONNECT { &Method::GET } else { &head.method };
    let spelled = head.spelled.as_deref().unwrap_or_default();
    let line = RequestLine { method: method.as_str(), target, host: &head.authority, upgrade, spelled };
    let framing = framing(head, &body, request.tunnel);
    let out = Outbound { line, headers: &head.headers, framing, tunnel: request.tunnel, proceed: request.proceed };
    lease.send_http1(out, body).await
}

fn printable(text: &str) -> bool {
    text.bytes().all(|b| b > 0x20 && b != 0x7f)
}

/// What an HTTP/1 server is told of the body.
fn framing(head: &Head, body: &Body, tunnel: bool) -> Framing {
    let stated = || {
        let length = head.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes)?;
        std::str::from_utf8(length).ok()?.parse().ok()
    };
    if tunnel {
        // What follows the head is held back until the server agrees.
        return stated().map_or(Framing::None, Framing::Length);
    }
    if !body.is_end_stream() {
        return body.size_hint().exact().map_or(Framing::Chunked, Framing::Length);
    }
    let bodiless = matches!(head.method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT);
    // Where a body could be expected, its absence is said.
    if bodiless && stated().is_none() { Framing::None } else { Framing::Length(0) }
}
