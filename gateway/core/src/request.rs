//! What is done to a request before any route is looked for.
//!
//! Owns the cleaning: hop-by-hop headers, headers that only trusted peers may send, `x-forwarded-*`, `x-request-id`,
//! `x-forwarded-client-cert`, host and path in canonical form. Says who asks. Never looks at routes. Used by the I/O layer for
//! each request, before `decide`.

pub mod path;

pub use trace::is_traced;

mod clean;
mod client;
mod trace;
mod xfcc;

#[cfg(test)]
mod tests;

use crate::{
    config::{Hcm, PortStripping, RouteTable, SchemeOverwrite},
    decision::Reply,
    failure::{Failure, Kind},
    head::{ConnInfo, Head, Protocol, Scheme},
    names::{self, Present},
    route::hosts,
    time::Random,
};
use http::{HeaderValue, StatusCode, header};
use std::net::{IpAddr, SocketAddr};

/// What the gateway is to others; the same for the life of the process.
#[derive(Debug, Clone)]
pub struct Node {
    /// Put into `x-forwarded-for` for clients on the same machine.
    pub address: IpAddr,
    /// Name of the service (`--cluster`), for `user-agent` and `x-envoy-downstream-service-cluster`.
    pub cluster: HeaderValue,
    /// Node id, for `x-envoy-downstream-service-node`.
    pub id: HeaderValue,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The client's address: the connection's, or from a trusted `x-forwarded-for` (its port is then 0).
    pub address: Option<SocketAddr>,
    /// The client is an internal peer, whose `x-envoy-*` headers are honoured.
    pub internal: bool,
    /// The request came from outside to an edge.
    pub edge: bool,
}

/// Cleans a request and says who asks. `table` is the route table that will be used, for its internal-only headers.
///
/// # Errors
/// The answer, when the request is refused or redirected here.
pub fn admit(
    hcm: &Hcm,
    node: &Node,
    conn: &ConnInfo,
    table: Option<&RouteTable>,
    head: &mut Head,
    random: &mut Random,
) -> Result<Caller, Box<Reply>> {
    normalize_host(hcm, conn, head);
    let one = matches!(head.protocol, Protocol::Http10 | Protocol::Http11);
    if one && !head.path.is_ascii() {
        return Err(refuse(Kind::MalformedRequest));
    }
    // HTTP/2 and HTTP/3 bound their headers while they decode them, by resetting the stream.
    if one && head.headers.len() + usize::from(!head.authority.is_empty()) > hcm.limits.headers as usize {
        return Err(refuse(Kind::TooManyHeaders));
    }
    if !clean::underscores(hcm.limits.underscores, &mut head.headers) {
        return Err(refuse(Kind::MalformedRequest));
    }
    if !(head.path.is_empty() || head.path.starts_with('/')) {
        return Err(refuse(Kind::AbsolutePath));
    }
    normalize_path(hcm, head)?;
    let present = Present::of(&head.headers);
    if one && present.has(Present::HOP_BY_HOP) && !clean::connection_nominated(&mut head.headers) {
        return Err(refuse(Kind::MalformedRequest));
    }
    if !one {
        clean::join_cookies(&mut head.headers);
    }
    if present.has(Present::HOP_BY_HOP) || !head.upgrade.is_empty() {
        clean::hop_by_hop(head);
    }
    if !hcm.proxy_100_continue && present.has(Present::EXPECT) {
        clean::expectation(&mut head.headers);
    }
    let caller = client::identify(hcm, node, conn, present, head);
    forwarded_proto(hcm, conn, present, head);
    clean::untrusted(caller, table, present, &mut head.headers);
    user_agent(hcm, node, head);
    if let Some(via) = &hcm.via {
        append(&mut head.headers, header::VIA, via.as_bytes(), b", ");
    }
    if caller.edge
        && let Some(address) = caller.address
    {
        set_text(&mut head.headers, names::X_ENVOY_EXTERNAL_ADDRESS, &address.ip().to_string());
    }
    request_id(hcm, caller, present, head, random);
    xfcc::apply(hcm, conn, present, &mut head.headers);
    Ok(caller)
}

fn refuse(kind: Kind) -> Box<Reply> {
    Box::new(Reply::failure(Failure::new(kind)))
}

fn normalize_host(hcm: &Hcm, conn: &ConnInfo, head: &mut Head) {
    if head.authority.is_empty()
        && head.protocol == Protocol::Http10
        && let Some(Ok(host)) = hcm.http1.default_host.as_ref().map(HeaderValue::to_str)
    {
        host.clone_into(&mut head.authority);
    }
    if hcm.strip_trailing_dot {
        let end = hosts::port_start(&head.authority).unwrap_or(head.authority.len());
        if head.authority.get(..end).is_some_and(|host| host.ends_with('.')) {
            head.authority.remove(end - 1);
        }
    }
    let Some(colon) = hosts::port_start(&head.authority) else { return };
    let strip = match hcm.strip_port {
        PortStripping::Keep => false,
        PortStripping::Any => true,
        PortStripping::Matching => {
            let port = head.authority.get(colon + 1..).and_then(|port| port.parse::<u16>().ok());
            port.is_some() && port == conn.local.map(|local| local.port())
        }
    };
    if strip {
        head.authority.truncate(colon);
    }
}

fn normalize_path(hcm: &Hcm, head: &mut Head) -> Result<(), Box<Reply>> {
    match path::normalize(&head.path, hcm.path) {
        path::Normalized::Same => Ok(()),
        path::Normalized::Changed(changed) => {
            head.path = changed;
            Ok(())
        }
        // A gRPC client does not follow redirects.
        path::Normalized::Redirect(_) if head.is_grpc() => Err(refuse(Kind::PathNormalization)),
        path::Normalized::Redirect(to) => {
            let mut reply = Reply::failure(Failure::new(Kind::PathRedirect));
            reply.status = StatusCode::TEMPORARY_REDIRECT;
            set_text(&mut reply.headers, header::LOCATION, &to);
            Err(Box::new(reply))
        }
        path::Normalized::Refused => Err(refuse(Kind::PathNormalization)),
    }
}

/// `x-forwarded-proto` for upstream, and from it the scheme where the protocol carries none.
fn forwarded_proto(hcm: &Hcm, conn: &ConnInfo, present: Present, head: &mut Head) {
    let untrusted = hcm.use_remote_address && hcm.trusted_hops == 0;
    let heard = !untrusted && present.has(Present::FORWARDED_PROTO);
    let told = if heard { head.headers.get(names::X_FORWARDED_PROTO).map(HeaderValue::as_bytes) } else { None };
    let scheme = match told {
        Some(b"http") => Scheme::Http,
        Some(b"https") => Scheme::Https,
        _ => conn.scheme(),
    };
    if told.is_none() {
        head.headers.insert(names::X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    }
    if matches!(head.protocol, Protocol::Http10 | Protocol::Http11) {
        head.scheme = scheme;
    }
    if let Some(SchemeOverwrite::Fixed(scheme)) = hcm.scheme_overwrite {
        head.scheme = scheme;
    }
}

fn user_agent(hcm: &Hcm, node: &Node, head: &mut Head) {
    if !hcm.add_user_agent {
        return;
    }
    head.headers.insert(names::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER, node.cluster.clone());
    if head.headers.get(header::USER_AGENT).is_none_or(HeaderValue::is_empty) {
        head.headers.insert(header::USER_AGENT, node.cluster.clone());
    }
    if !node.id.is_empty() {
        head.headers.insert(names::X_ENVOY_DOWNSTREAM_SERVICE_NODE, node.id.clone());
    }
}

fn request_id(hcm: &Hcm, caller: Caller, present: Present, head: &mut Head, random: &mut Random) {
    let settings = &hcm.request_id;
    let there =
        present.has(Present::REQUEST_ID) && head.headers.get(names::X_REQUEST_ID).is_some_and(|id| !id.is_empty());
    if settings.generate && (!there || (caller.edge && !settings.preserve_external)) {
        let id = uuid(random.draw(), random.draw());
        if let Ok(value) = HeaderValue::from_bytes(&id) {
            head.headers.insert(names::X_REQUEST_ID, value);
        }
    } else if there && caller.edge && settings.pack_trace_reason {
        // A client from outside may not decide about tracing by the id that it made.
        trace::write(&mut head.headers, trace::Reason::None);
    }
    if let Some(sampling) = hcm.tracing {
        trace::sample(sampling, settings, &mut head.headers, random);
    }
}

/// A version 4 UUID.
fn uuid(high: u64, low: u64) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = (u128::from(high) << 64) | u128::from(low);
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bits.to_be_bytes().into_iter().enumerate() {
        // The dashes are there already.
        at += usize::from(matches!(index, 4 | 6 | 8 | 10));
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// Appends to the first value of a header, or puts it.
pub(crate) fn append(headers: &mut http::HeaderMap, name: header::HeaderName, value: &[u8], separator: &[u8]) {
    let joined = match headers.get(&name) {
        Some(before) if !before.is_empty() => [before.as_bytes(), separator, value].concat(),
        _ => value.to_vec(),
    };
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(name, joined);
    }
}

/// Puts a header; a text that cannot be a value is left out.
pub(crate) fn set_text(headers: &mut http::HeaderMap, name: header::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
