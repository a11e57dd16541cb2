//! Owns `retry_on`: whether a response or a broken try is one that the policy wants to try again.
//!
//! Never counts retries and never waits.

use super::ResponseHead;
use crate::config::{ResetFormat, RetryOn};
use crate::decision::RetryPlan;
use crate::failure::{Failure, Kind};
use crate::time::millis;
use http::HeaderMap;

/// What the policy says of one outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Take it as it is.
    No,
    /// Try again after a wait.
    BackOff,
    /// Try again, no sooner than after so many milliseconds.
    RateLimited(u64),
    /// Try again at once.
    AtOnce,
}

/// Whether conditions on response headers are part of the policy.
pub(super) fn asks_headers(plan: &RetryPlan) -> bool {
    plan.on.has(RetryOn::HEADERS) && !plan.policy.response_headers.is_empty()
}

pub(super) fn from_head(plan: &RetryPlan, head: &ResponseHead<'_>) -> Verdict {
    // Rate limited by a proxy further on: the load is the trouble, so nothing but this condition counts.
    let wanted = if head.headers.contains_key("x-envoy-ratelimited") {
        plan.on.has(RetryOn::RATE_LIMITED)
    } else {
        by_status(plan, head.status) || by_header(plan, head) || by_grpc(plan.on, head.headers)
    };
    match asked_wait(plan, head) {
        _ if !wanted => Verdict::No,
        Some(wait) if wait > 1 => Verdict::RateLimited(wait),
        _ => Verdict::BackOff,
    }
}

fn by_status(plan: &RetryPlan, status: u16) -> bool {
    let on = plan.on;
    (on.has(RetryOn::FIVE_XX) && (500..600).contains(&status))
        || (on.has(RetryOn::GATEWAY_ERROR) && matches!(status, 502..=504))
        || (on.has(RetryOn::RETRIABLE_4XX) && status == 409)
        || (on.has(RetryOn::STATUS_CODES) && plan.status_codes.contains(&status))
}

fn by_header(plan: &RetryPlan, head: &ResponseHead<'_>) -> bool {
    plan.on.has(RetryOn::HEADERS)
        && ((head.listed && asks_headers(plan)) || plan.header_names.iter().any(|name| head.headers.contains_key(name)))
}

/// Only a response without a body has its gRPC status in the head; later it is too late.
fn by_grpc(on: RetryOn, headers: &HeaderMap) -> bool {
    let Some(status) = headers.get("grpc-status") else { return false };
    match status.as_bytes() {
        b"1" => on.has(RetryOn::GRPC_CANCELLED),
        b"4" => on.has(RetryOn::GRPC_DEADLINE_EXCEEDED),
        b"8" => on.has(RetryOn::GRPC_RESOURCE_EXHAUSTED),
        b"13" => on.has(RetryOn::GRPC_INTERNAL),
        b"14" => on.has(RetryOn::GRPC_UNAVAILABLE),
        _ => false,
    }
}

/// How many milliseconds the server asks to wait, if it says so and if that is not too long.
fn asked_wait(plan: &RetryPlan, head: &ResponseHead<'_>) -> Option<u64> {
    let longest = millis(plan.policy.reset_max);
    plan.policy.reset_headers.iter().find_map(|header| {
        let said: u64 = head.headers.get(&header.name)?.to_str().ok()?.trim().parse().ok()?;
        let seconds = match header.format {
            ResetFormat::Seconds => said,
            ResetFormat::UnixTimestamp => said.checked_sub(head.unix_seconds)?,
        };
        Some(seconds.saturating_mul(1000)).filter(|wait| *wait <= longest)
    })
}

pub(super) fn from_reset(plan: &RetryPlan, failure: &Failure, sent: bool, over_http3: bool) -> Verdict {
    let on = plan.on;
    let unconnected = match failure.kind {
        // More load is no cure for overload.
        Kind::Overflow | Kind::Overload | Kind::NoHealthyUpstream => return Verdict::No,
        Kind::ConnectFailure | Kind::ConnectTimeout | Kind::LocalConnectFailure => true,
        _ => false,
    };
    if over_http3 && (unconnected || on.has(RetryOn::HTTP3_POST_CONNECT_FAILURE)) {
        return Verdict::AtOnce;
    }
    let wanted = (unconnected && on.has(RetryOn::CONNECT_FAILURE))
        || (!sent && on.has(RetryOn::RESET_BEFORE_REQUEST))
        || on.has(RetryOn::RESET)
        || on.has(RetryOn::FIVE_XX)
        || on.has(RetryOn::GATEWAY_ERROR)
        || (failure.kind == Kind::UpstreamRefusedStream && on.has(RetryOn::REFUSED_STREAM));
    if wanted { Verdict::BackOff } else { Verdict::No }
}
