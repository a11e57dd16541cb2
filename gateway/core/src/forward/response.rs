//! The response's headers.

use super::Context;
use crate::{
    config::{Hcm, ServerHeader},
    decision::Forward,
    format::{Facts, MetadataOf},
    head::Head,
    header, names, request,
};
use http::{HeaderMap, HeaderValue, header as h};

/// Changes the headers of an upstream's response as the route asks for. `millis` is the time from the end of the request to these
/// headers, `attempts` the number of tries.
pub fn upstream_response(
    forward: &Forward,
    context: Context<'_>,
    head: &Head,
    facts: &Facts<'_>,
    millis: u64,
    attempts: u32,
    headers: &mut HeaderMap,
) {
    let metadata = MetadataOf {
        route: forward.matched.route().map(|route| &route.metadata),
        virtual_host: Some(&forward.matched.host().metadata),
        ..facts.metadata
    };
    let (conn, client) = (Some(context.conn), context.caller.address);
    let facts = Facts { head: Some(head), conn, client, attempts, metadata, ..*facts };
    if !forward.suppress_envoy_headers {
        headers.insert(names::X_ENVOY_UPSTREAM_SERVICE_TIME, names::number(millis));
    }
    header::change_response(&forward.matched, forward.cluster_weight(), &facts, headers);
    if forward.matched.host().response_attempt_count {
        headers.insert(names::X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(attempts));
    }
    for cookie in &forward.set_cookies {
        headers.append(h::SET_COOKIE, cookie.clone());
    }
    forward.mutations.response(&facts, headers);
    for (name, value) in &forward.response_headers {
        headers.insert(name, value.clone());
    }
}

/// What the connection manager does to every response, also to those made here. `upgraded`: the response accepts an upgrade.
/// `date` is left to the I/O layer, which has the clock.
pub fn finish_response(hcm: &Hcm, head: Option<&Head>, upgraded: bool, headers: &mut HeaderMap) {
    if names::any_hop_by_hop(headers) {
        if !upgraded {
            headers.remove(h::CONNECTION);
            headers.remove(h::UPGRADE);
        }
        for name in [h::TRANSFER_ENCODING, names::KEEP_ALIVE, names::PROXY_CONNECTION] {
            headers.remove(name);
        }
    }
    let forced = |head: &Head| head.headers.contains_key(names::X_ENVOY_FORCE_TRACE);
    let asked = |head: &&Head| hcm.request_id.in_response || (names::any_envoy(&head.headers) && forced(head));
    if let Some(id) = head.filter(asked).and_then(|head| head.headers.get(names::X_REQUEST_ID)) {
        headers.insert(names::X_REQUEST_ID, id.clone());
    }
    if let Some(via) = &hcm.via {
        request::append(headers, h::VIA, via.as_bytes(), b", ");
    }
    match hcm.server_header {
        ServerHeader::Overwrite => {
            headers.insert(h::SERVER, hcm.server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            headers.entry(h::SERVER).or_insert_with(|| hcm.server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
}
