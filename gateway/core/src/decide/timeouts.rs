//! The clocks of a request: what the route says, what a trusted client asks for, and `grpc-timeout`.

use crate::{
    config::{Hcm, RouteAction, RouterFilter},
    decision::{Matched, StreamTimeouts},
    forward,
    head::Head,
    names,
};
use http::{HeaderName, StatusCode};
use std::time::Duration;

pub(super) fn of(
    hcm: &Hcm,
    action: &RouteAction,
    matched: &Matched,
    router: Option<&RouterFilter>,
    head: &Head,
    grpc: bool,
) -> StreamTimeouts {
    let policy = forward::retry_policy(matched);
    // A route that bounds the life of streams has no other timeout unless the client asks for one.
    let mut global = if action.stream_limit.is_none() { action.timeout } else { None };
    let expected = router.is_some_and(|router| router.respect_expected_timeout);
    let mut per_try = policy.and_then(|policy| policy.per_try_timeout);
    let mut upstream_stream = None;
    if names::any_envoy(&head.headers) {
        upstream_stream = millis(head, names::X_ENVOY_UPSTREAM_STREAM_DURATION_MS);
        let told = expected.then(|| millis(head, names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS)).flatten();
        if let Some(told) = told.or_else(|| millis(head, names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS)) {
            global = nonzero(told);
        }
        if let Some(told) = millis(head, names::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS) {
            per_try = nonzero(told);
        }
    }
    if let (Some(one), Some(all)) = (per_try, global)
        && one >= all
    {
        per_try = None;
    }
    StreamTimeouts {
        global,
        per_try,
        per_try_idle: policy.and_then(|policy| policy.per_try_idle_timeout),
        idle: match action.idle_timeout {
            Some(own) => nonzero(own),
            None => hcm.timeouts.stream_idle,
        },
        max_stream: max_stream(hcm, action, head, grpc),
        upstream_stream,
    }
}

fn max_stream(hcm: &Hcm, action: &RouteAction, head: &Head, grpc: bool) -> Option<Duration> {
    let Some(limit) = &action.stream_limit else { return hcm.timeouts.max_stream };
    let told = if grpc { grpc_timeout(head) } else { None };
    let (Some(told), Some(most)) = (told, limit.grpc_max) else {
        return match limit.max {
            Some(own) => nonzero(own),
            None => hcm.timeouts.max_stream,
        };
    };
    let bounded = if most.is_zero() { told } else { told.min(most) };
    Some(bounded.saturating_sub(limit.grpc_offset))
}

/// Status when the request times out, if the client asks for another than 504.
pub(super) fn alternative(head: &Head) -> Option<StatusCode> {
    let asked = || head.headers.contains_key(names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE);
    (names::any_envoy(&head.headers) && asked()).then_some(StatusCode::NO_CONTENT)
}

fn nonzero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn millis(head: &Head, name: HeaderName) -> Option<Duration> {
    head.headers.get(name)?.to_str().ok()?.trim().parse().ok().map(Duration::from_millis)
}

/// At most eight digits and a unit.
fn grpc_timeout(head: &Head) -> Option<Duration> {
    let text = head.headers.get(names::GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}
