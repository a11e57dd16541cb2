//! Takes out what must not pass: hop-by-hop headers, and headers that only trusted peers may send.

use super::Caller;
use crate::{
    config::{RouteTable, Underscores},
    head::Head,
    names::{self, Present},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// More nominated headers than this are an attack.
const MOST_NOMINATED: usize = 10;
/// A longer `te` is an attack.
const LONGEST_TE: usize = 256;

/// Removes the headers that `connection` nominates. `false`: the request is to be refused, because it nominates too many, or one
/// whose removal would hide where the request came from.
pub(super) fn connection_nominated(headers: &mut HeaderMap) -> bool {
    let mut list = String::new();
    // Several lines are one list.
    for line in headers.get_all(header::CONNECTION) {
        let Ok(line) = line.to_str() else { return false };
        list.push_str(line);
        list.push(',');
    }
    list.make_ascii_lowercase();
    let tokens = || list.split(',').map(str::trim).filter(|token| !token.is_empty());
    if tokens().count() >= MOST_NOMINATED {
        return false;
    }
    for token in tokens() {
        match token {
            "close" | "keep-alive" | "upgrade" | "http2-settings" | "connection" => {}
            "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => return false,
            "te" => {
                // What remains of it is decided for all requests alike, in `hop_by_hop`.
                if headers.get(header::TE).is_some_and(|te| te.len() >= LONGEST_TE) {
                    return false;
                }
            }
            _ if token.starts_with(':') => return false,
            _ => {
                if let Ok(name) = HeaderName::from_bytes(token.as_bytes()) {
                    headers.remove(name);
                }
            }
        }
    }
    true
}

/// Removes what is between this client and us alone. Upgrades live in [`Head::upgrade`]; the field that asks for one stays as it
/// was written, because servers see it.
pub(super) fn hop_by_hop(head: &mut Head) {
    if head.upgrade.eq_ignore_ascii_case("h2c") {
        // Not offered: RFC 9113 took it back.
        head.upgrade.clear();
        head.headers.remove(names::HTTP2_SETTINGS);
    }
    if !head.is_upgrade() {
        head.headers.remove(header::CONNECTION);
    }
    for name in [header::UPGRADE, names::KEEP_ALIVE, names::PROXY_CONNECTION, header::TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    if let Some(te) = head.headers.get(header::TE) {
        let trailers = te.to_str().is_ok_and(|te| {
            te.split(',')
                .any(|coding| coding.split(';').next().is_some_and(|c| c.trim().eq_ignore_ascii_case("trailers")))
        });
        if trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            head.headers.remove(header::TE);
        }
    }
}

/// HTTP/2 and HTTP/3 may send a cookie in crumbs; all others expect one header.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut whole = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(whole) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)) {
        headers.insert(header::COOKIE, whole);
    }
}

/// Takes out names with underscores, where asked. `false`: the request is to be refused for one.
pub(super) fn underscores(action: Underscores, headers: &mut HeaderMap) -> bool {
    if action == Underscores::Allow {
        return true;
    }
    let found: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    if action == Underscores::Reject {
        return found.is_empty();
    }
    found.iter().for_each(|name| drop(headers.remove(name)));
    true
}

/// `expect: 100-continue` is answered here and goes no further.
pub(super) fn expectation(headers: &mut HeaderMap) {
    if headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        headers.remove(header::EXPECT);
    }
}

const EDGE_ONLY: [HeaderName; 3] = [
    names::X_ENVOY_DECORATOR_OPERATION,
    names::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
    names::X_ENVOY_DOWNSTREAM_SERVICE_NODE,
];

const TRUSTED_ONLY: [HeaderName; 15] = [
    names::X_ENVOY_RETRIABLE_STATUS_CODES,
    names::X_ENVOY_RETRIABLE_HEADER_NAMES,
    names::X_ENVOY_RETRY_ON,
    names::X_ENVOY_RETRY_GRPC_ON,
    names::X_ENVOY_MAX_RETRIES,
    names::X_ENVOY_UPSTREAM_ALT_STAT_NAME,
    names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
    names::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
    names::X_ENVOY_UPSTREAM_STREAM_DURATION_MS,
    names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
    names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
    names::X_ENVOY_FORCE_TRACE,
    names::X_ENVOY_IP_TAGS,
    names::X_ENVOY_ORIGINAL_URL,
    names::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
];

/// Removes what this caller may not say, and says whether it is internal.
pub(super) fn untrusted(caller: Caller, table: Option<&RouteTable>, present: Present, headers: &mut HeaderMap) {
    let any = present.has(Present::ENVOY);
    if any {
        headers.remove(names::X_ENVOY_INTERNAL);
    }
    if caller.internal {
        headers.insert(names::X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
        return;
    }
    if any {
        if caller.edge {
            EDGE_ONLY.iter().for_each(|name| drop(headers.remove(name)));
        }
        TRUSTED_ONLY.iter().for_each(|name| drop(headers.remove(name)));
    }
    for name in table.map_or(&[][..], |table| &table.internal_only_headers) {
        headers.remove(name);
    }
}
