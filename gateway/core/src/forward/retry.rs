//! When a request is tried again: what the route says and what a trusted client asks for, merged.

use crate::{
    config::{BackOff, RetryOn, RetryPolicy},
    decision::{Matched, RetryPlan},
    head::Head,
    names,
    route::header_matches_in,
};
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// What counts where no policy is configured and only headers ask for retries.
static BARE: LazyLock<Arc<RetryPolicy>> = LazyLock::new(|| {
    Arc::new(RetryPolicy {
        on: RetryOn::default(),
        retries: 1,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        status_codes: Box::default(),
        response_headers: Box::default(),
        request_headers: Box::default(),
        back_off: BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
        reset_headers: Box::default(),
        reset_max: Duration::from_secs(300),
        avoid_previous_hosts: false,
        avoid_previous_priorities: None,
        omit_canary: false,
        host_selection_attempts: 1,
    })
});

/// The policy of a route.
pub(crate) fn policy(matched: &Matched) -> Option<&Arc<RetryPolicy>> {
    matched.action().and_then(|action| action.retry.as_ref()).or(matched.host().retry.as_ref())
}

/// Merges, and takes the headers that ask for retries out of the request.
pub(super) fn plan(matched: &Matched, headers: &mut HeaderMap) -> Option<Arc<RetryPlan>> {
    let policy = policy(matched);
    let told = Told::take(headers);
    let mut on = policy.map_or(RetryOn::default(), |policy| policy.on).with(told.on);
    let limited = policy.map_or(&[][..], |policy| &policy.request_headers);
    let allowed = |head: &HeaderMap| {
        limited.iter().any(|matcher| match &matcher.name {
            crate::head::Name::Header(name) => header_matches_in(matcher, name, head),
            _ => false,
        })
    };
    if !limited.is_empty() && !allowed(headers) {
        on = RetryOn::default();
    }
    if on.is_empty() {
        return None;
    }
    let policy = policy.unwrap_or(&BARE);
    let mut status_codes: SmallVec<[u16; 4]> = SmallVec::from_slice(&policy.status_codes);
    status_codes.extend(told.codes);
    Some(Arc::new(RetryPlan {
        on,
        retries: told.retries.unwrap_or(policy.retries),
        status_codes,
        header_names: told.names,
        back_off: policy.back_off,
        policy: Arc::clone(policy),
    }))
}

#[derive(Default)]
struct Told {
    on: RetryOn,
    retries: Option<u32>,
    codes: SmallVec<[u16; 4]>,
    names: SmallVec<[HeaderName; 1]>,
}

impl Told {
    fn take(headers: &mut HeaderMap) -> Self {
        // Nearly no request has any of these, and each removal is a lookup.
        if !names::any_envoy(headers) {
            return Self::default();
        }
        let mut text = |name: HeaderName| headers.remove(name).and_then(|value| value.to_str().map(str::to_owned).ok());
        let on = text(names::X_ENVOY_RETRY_ON).map_or(RetryOn::default(), |list| parse_retry_on(&list).0);
        let grpc = text(names::X_ENVOY_RETRY_GRPC_ON).map_or(RetryOn::default(), |list| parse_retry_on(&list).0);
        let retries = text(names::X_ENVOY_MAX_RETRIES).and_then(|count| count.trim().parse().ok());
        let codes = text(names::X_ENVOY_RETRIABLE_STATUS_CODES).unwrap_or_default();
        let listed = text(names::X_ENVOY_RETRIABLE_HEADER_NAMES).unwrap_or_default();
        text(names::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT);
        text(names::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS);
        Self {
            on: on.with(grpc),
            retries,
            codes: codes.split(',').filter_map(|code| code.trim().parse().ok()).collect(),
            names: listed
                .split(',')
                .filter_map(|name| HeaderName::from_bytes(name.trim().to_ascii_lowercase().as_bytes()).ok())
                .collect(),
        }
    }
}

/// Reads a comma separated list of conditions, HTTP and gRPC ones alike. The second is false when one of them is not known; the
/// others count all the same.
#[must_use]
pub fn parse_retry_on(list: &str) -> (RetryOn, bool) {
    let mut on = RetryOn::default();
    let mut all = true;
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match condition(word) {
            Some(bit) => on = on.with(bit),
            None => all = false,
        }
    }
    (on, all)
}

fn condition(word: &str) -> Option<RetryOn> {
    Some(match word {
        "5xx" => RetryOn::FIVE_XX,
        "gateway-error" => RetryOn::GATEWAY_ERROR,
        "connect-failure" => RetryOn::CONNECT_FAILURE,
        "retriable-4xx" => RetryOn::RETRIABLE_4XX,
        "refused-stream" => RetryOn::REFUSED_STREAM,
        "retriable-status-codes" => RetryOn::STATUS_CODES,
        "reset" => RetryOn::RESET,
        "retriable-headers" => RetryOn::HEADERS,
        "envoy-ratelimited" => RetryOn::RATE_LIMITED,
        "cancelled" => RetryOn::GRPC_CANCELLED,
        "deadline-exceeded" => RetryOn::GRPC_DEADLINE_EXCEEDED,
        "resource-exhausted" => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        "unavailable" => RetryOn::GRPC_UNAVAILABLE,
        "internal" => RetryOn::GRPC_INTERNAL,
        "reset-before-request" => RetryOn::RESET_BEFORE_REQUEST,
        "http3-post-connect-failure" => RetryOn::HTTP3_POST_CONNECT_FAILURE,
        _ => return None,
    })
}

/// Whether a trusted client asks for hedging, if it says anything.
pub(crate) fn told_hedging(head: &Head) -> Option<bool> {
    if !names::any_envoy(&head.headers) {
        return None;
    }
    match head.headers.get(names::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT)?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}
