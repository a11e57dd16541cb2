//! The request, once for all tries and once for each.

use super::retry;
use crate::{
    config::{Hcm, HeaderChanges},
    decision::{Forward, StreamTimeouts},
    filter::TrailerChanges,
    format::{Facts, MetadataOf},
    head::{ConnInfo, Head},
    header, names,
    request::{self, Caller},
    route,
};
use http::{HeaderName, HeaderValue};
use std::time::Duration;

/// What is known beside the request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The connection manager.
    pub hcm: &'a Hcm,
    /// The connection.
    pub conn: &'a ConnInfo,
    /// Who asks.
    pub caller: Caller,
    /// What values of headers can tell beside these: the beginning, the surroundings, metadata of the cluster.
    pub base: Facts<'a>,
}

/// Changes the head into what the upstream is to see, and completes the decision: retries and hash depend on the changed
/// headers. Call once, before the first try.
pub fn prepare(forward: &mut Forward, context: Context<'_>, head: &mut Head) {
    if !forward.mutations.is_empty() {
        forward.mutations.request(&around(forward, context), head);
    }
    if names::any_envoy(&head.headers) {
        head.headers.remove(names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE);
        head.headers.remove(names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS);
        head.headers.remove(names::X_ENVOY_UPSTREAM_STREAM_DURATION_MS);
    }
    if forward.matched.host().request_attempt_count {
        head.headers.insert(names::X_ENVOY_ATTEMPT_COUNT, HeaderValue::from_static("1"));
    }
    let matched = forward.matched.clone();
    let weight = forward.cluster_weight();
    for changes in header::request_levels(&matched, weight) {
        change(changes, forward, context, head);
    }
    rewrite_host(forward, head);
    rewrite_path(forward, context, head);
    forward.retry = retry::plan(&forward.matched, &mut head.headers);
    if let Some(action) = matched.action() {
        let hashed = route::hash_request(&action.hash, head, context.conn, context.caller);
        forward.hash = hashed.hash;
        forward.set_cookies = hashed.cookies;
    }
}

/// What is to become of the request's trailers; `None`: nothing. `head` is as the upstream is to see it.
#[must_use]
pub fn request_trailers(forward: &Forward, context: Context<'_>, head: &Head) -> Option<TrailerChanges> {
    if forward.mutations.is_empty() {
        return None;
    }
    forward.mutations.request_trailers(&facts(forward, context, head))
}

/// What changes from try to try: call before each, `attempt` counting from 1, `elapsed` since the request was complete.
pub fn stamp_attempt(forward: &Forward, attempt: u32, elapsed: Duration, after_timeout: bool, head: &mut Head) {
    if forward.matched.host().request_attempt_count && attempt > 1 {
        head.headers.insert(names::X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(attempt));
    }
    if forward.matched.host().timeout_retry_header && attempt > 1 {
        let told = if after_timeout { "true" } else { "false" };
        head.headers.insert(names::X_ENVOY_IS_TIMEOUT_RETRY, HeaderValue::from_static(told));
    }
    if forward.suppress_envoy_headers {
        return;
    }
    let hedging = forward.hedge.is_some_and(|hedge| hedge.on_per_try_timeout);
    if let Some(expected) = expected_timeout(&forward.timeouts, hedging, elapsed) {
        let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        head.headers.insert(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, names::number(millis));
    }
}

/// How long the upstream has for its answer.
fn expected_timeout(timeouts: &StreamTimeouts, hedging: bool, elapsed: Duration) -> Option<Duration> {
    let one = timeouts.per_try.filter(|_| !hedging).or(timeouts.global)?;
    Some(match timeouts.global {
        None => one,
        // Zero would mean for ever.
        Some(global) if elapsed >= global => Duration::from_millis(1),
        Some(global) => one.min(global - elapsed),
    })
}

fn change(changes: &HeaderChanges, forward: &Forward, context: Context<'_>, head: &mut Head) {
    let facts = facts(forward, context, head);
    let pending = header::evaluate(changes, &facts);
    header::apply(changes, pending, &mut head.headers);
    // `:authority` is spelled `host` in changes and lives outside of the headers.
    if let Some(host) = head.headers.remove(http::header::HOST)
        && let Ok(host) = host.to_str()
    {
        host.clone_into(&mut head.authority);
    }
}

fn facts<'a>(forward: &'a Forward, context: Context<'a>, head: &'a Head) -> Facts<'a> {
    Facts { head: Some(head), ..around(forward, context) }
}

fn around<'a>(forward: &'a Forward, context: Context<'a>) -> Facts<'a> {
    Facts {
        conn: Some(context.conn),
        client: context.caller.address,
        route: forward.matched.route().map_or("", |route| &route.name),
        virtual_host: &forward.matched.host().name,
        cluster: &forward.cluster,
        attempts: 1,
        metadata: MetadataOf {
            route: forward.matched.route().map(|route| &route.metadata),
            virtual_host: Some(&forward.matched.host().metadata),
            ..context.base.metadata
        },
        ..context.base
    }
}

fn rewrite_host(forward: &Forward, head: &mut Head) {
    let Some(action) = forward.matched.action() else { return };
    let of_weight = forward.cluster_weight().and_then(|weight| weight.host_rewrite.clone());
    let Some(host) = of_weight.or_else(|| route::rewritten_host(action, head)) else { return };
    let Ok(host) = host.to_str() else { return };
    if action.append_x_forwarded_host && !head.authority.is_empty() {
        let before = std::mem::take(&mut head.authority);
        request::append(&mut head.headers, names::X_FORWARDED_HOST, before.as_bytes(), b",");
        head.authority = before;
    }
    tell_original(forward, names::X_ENVOY_ORIGINAL_HOST, &head.authority.clone(), head);
    host.clone_into(&mut head.authority);
}

fn rewrite_path(forward: &Forward, context: Context<'_>, head: &mut Head) {
    let (Some(route), Some(action)) = (forward.matched.route(), forward.matched.action()) else { return };
    let facts = facts(forward, context, head);
    let Some(path) = route::rewritten_path(route, &action.path_rewrite, head, &facts) else { return };
    let before = std::mem::replace(&mut head.path, path);
    tell_original(forward, names::X_ENVOY_ORIGINAL_PATH, &before, head);
}

fn tell_original(forward: &Forward, name: HeaderName, before: &str, head: &mut Head) {
    if !forward.suppress_envoy_headers {
        request::set_text(&mut head.headers, name, before);
    }
}
