//! What is to be done with a request.
//!
//! Owns the order of things: virtual host and route, the cluster by weight, the filters in the order of the chain, then
//! the route's own action. Pure and synchronous; costs nothing that grows with the configuration. Used by the I/O layer once per
//! request (and again after an internal redirect).

mod draft;
mod timeouts;

#[cfg(test)]
mod tests;

use crate::{
    config::{
        ClusterChoice, ClusterWeight, Config, DirectResponse, Hcm, HttpFilterKind, Metadata, Mirror, Redirect, Route,
        RouteAction, RouteTable, RouteTarget, RouterFilter, Value,
    },
    decision::{Cause, Decision, Forward, Matched, Reply, UpgradePlan},
    failure::{Failure, Flags, Kind},
    filter::{BodyFilter, Mutations},
    format::Facts,
    forward,
    head::{ConnInfo, Head},
    names,
    request::{self, Caller},
    route::{self, Found},
    runtime::Runtime,
    time::{Millis, Random},
};
use bytes::Bytes;
use draft::{Draft, Parts};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use smallvec::SmallVec;
use std::{sync::Arc, time::Duration};

/// What may change from request to request besides the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    /// Now.
    pub now: Millis,
    /// Injected faults that are going on in this process.
    pub active_faults: u32,
}

/// Decides about a request that [`admit`](request::admit) has cleaned. `table` is [`Config::route_table`]'s answer.
#[must_use]
#[expect(
    clippy::too_many_arguments,
    reason = "each is one plain part of the question; a struct of them would be made at one place only"
)]
pub fn decide(
    config: &Config,
    hcm: &Hcm,
    table: Option<&Arc<RouteTable>>,
    conn: &ConnInfo,
    caller: Caller,
    head: &Head,
    moment: Moment,
    random: &mut Random,
) -> Decision {
    let Some(table) = table else { return refuse(Kind::RouteConfigMissing, None) };
    let drawn = random.draw();
    let (matched, missing) = match route::find(table, head, conn, caller, &config.runtime, drawn) {
        Found::Route(matched) => (Some(matched), None),
        Found::NoRoute(matched) => (Some(matched), Some(Kind::NoRoute)),
        Found::NoHost => (None, Some(Kind::NoRoute)),
        Found::NeedsTls(matched) => return to_tls(head, matched),
    };
    let choice =
        matched.as_ref().and_then(Matched::action).map(|action| choose_cluster(action, head, &config.runtime, drawn));
    let weighted = choice.as_ref().and_then(|choice| choice.weighted);
    let upgrade = match (&missing, upgrade(hcm, matched.as_ref(), head)) {
        (None, Err(())) => {
            let cluster = choice.map(|choice| choice.name);
            let reply = Reply { matched, cluster, ..Reply::failure(Failure::new(Kind::UpgradeRefused)) };
            return Decision::Reply(Box::new(reply));
        }
        (_, Ok(plan)) => plan,
        (Some(_), Err(())) => None,
    };
    let mut draft = Draft {
        runtime: Some(&config.runtime),
        conn: Some(conn),
        client: caller.address,
        matched: matched.as_ref(),
        weighted,
        cluster: choice.as_ref().map_or("", |c| &c.name),
        ..Draft::default()
    };
    if let Some(mut reply) = draft.run_filters(hcm, head, moment, random) {
        reply.delay = draft.delay;
        reply.bodies = draft.parts.bodies;
        reply.mutations = draft.parts.mutations;
        reply.metadata = draft.parts.metadata;
        reply.cluster = choice.map(|choice| choice.name);
        return Decision::Reply(reply);
    }
    let outcome = (draft.delay, draft.flags());
    let parts = draft.parts();
    let (bodies, metadata, mutations) = (parts.bodies.clone(), parts.metadata.clone(), parts.mutations.clone());
    let changed =
        changed(&parts, matched.as_ref(), Facts { conn: Some(conn), client: caller.address, ..Facts::default() }, head);
    let head = changed.as_ref().unwrap_or(head);
    let decision = match (missing, matched) {
        (None, Some(matched)) => act(config, hcm, head, matched, choice, upgrade, parts, random),
        (kind, matched) => refuse(kind.unwrap_or(Kind::NoRoute), matched),
    };
    let mut decision = delayed(decision, outcome, bodies);
    if let Decision::Reply(reply) = &mut decision {
        reply.metadata = metadata;
        reply.mutations = mutations;
    }
    decision
}

/// The head as filters change it, for an answer that is made of it. Where it is forwarded, that is done later.
fn changed(parts: &Parts, matched: Option<&Matched>, base: Facts<'_>, head: &Head) -> Option<Head> {
    if parts.mutations.is_empty() || matched.is_some_and(|matched| matched.action().is_some()) {
        return None;
    }
    let mut head = head.clone();
    parts.mutations.request(&base, &mut head);
    Some(head)
}

fn delayed(decision: Decision, (delay, flags): (Option<Duration>, Flags), bodies: Vec<BodyFilter>) -> Decision {
    match decision {
        Decision::Forward(mut forward) => {
            forward.delay = delay;
            forward.flags = flags;
            forward.bodies = bodies;
            Decision::Forward(forward)
        }
        Decision::Reply(mut reply) => {
            reply.delay = delay;
            reply.bodies = bodies;
            let mut all = flags;
            all.extend(reply.flags);
            reply.flags = all;
            Decision::Reply(reply)
        }
    }
}

fn refuse(kind: Kind, matched: Option<Matched>) -> Decision {
    Decision::Reply(Box::new(Reply { matched, ..Reply::failure(Failure::new(kind)) }))
}

/// Redirects to the same URL with `https`.
fn to_tls(head: &Head, matched: Matched) -> Decision {
    let host = match route::hosts::port_start(&head.authority) {
        Some(at) if head.authority.get(at..) == Some(":80") => head.authority.get(..at).unwrap_or_default(),
        _ => &head.authority,
    };
    let location = format!("https://{host}{}", head.path);
    Decision::Reply(Box::new(redirect_to(&location, StatusCode::MOVED_PERMANENTLY, matched)))
}

fn redirect_to(location: &str, status: StatusCode, matched: Matched) -> Reply {
    let mut headers = HeaderMap::new();
    request::set_text(&mut headers, header::LOCATION, location);
    answer(status, headers, Bytes::new(), Cause::Redirect, Some(matched))
}

fn answer(status: StatusCode, headers: HeaderMap, body: Bytes, cause: Cause, matched: Option<Matched>) -> Reply {
    Reply {
        status,
        headers,
        body,
        grpc_status: None,
        cause,
        flags: Flags::NONE,
        delay: None,
        matched,
        cluster: None,
        bodies: Vec::new(),
        mutations: Mutations::default(),
        metadata: Metadata::default(),
    }
}

struct Choice {
    name: Arc<str>,
    weighted: Option<u32>,
}

fn choose_cluster(action: &RouteAction, head: &Head, runtime: &Runtime, drawn: u64) -> Choice {
    let named = |header: &header::HeaderName| {
        let value = head.headers.get(header).and_then(|value| value.to_str().ok());
        Arc::from(value.unwrap_or_default())
    };
    match &action.cluster {
        ClusterChoice::One(name) => Choice { name: Arc::clone(name), weighted: None },
        ClusterChoice::Header(header) => Choice { name: named(header), weighted: None },
        ClusterChoice::Weighted { clusters, total, runtime_prefix, random_header } => {
            let told =
                random_header.as_deref().and_then(|name| head.headers.get(name)?.to_str().ok()?.parse::<u64>().ok());
            let told = told.unwrap_or(drawn);
            let index = if runtime.is_empty() || runtime_prefix.is_empty() {
                by_weight(clusters.iter().map(|cluster| u64::from(cluster.weight)), *total, told)
            } else {
                let weight = |cluster: &ClusterWeight| {
                    runtime.integer(&format!("{runtime_prefix}.{}", cluster.name), u64::from(cluster.weight))
                };
                let weights: SmallVec<[u64; 4]> = clusters.iter().map(weight).collect();
                by_weight(weights.iter().copied(), weights.iter().sum(), told)
            };
            let name = clusters
                .get(index)
                .map_or_else(|| Arc::from(""), |c| c.header.as_ref().map_or_else(|| Arc::clone(&c.name), named));
            Choice { name, weighted: u32::try_from(index).ok() }
        }
    }
}

/// The place that a number falls on; the first when there are no weights.
fn by_weight(mut weights: impl Iterator<Item = u64>, total: u64, drawn: u64) -> usize {
    let mut left = drawn % total.max(1);
    let found = weights.position(|weight| match left.checked_sub(weight) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    found.unwrap_or_default()
}

/// Whether what is asked to be upgraded to is allowed, if anything is.
fn upgrade(hcm: &Hcm, matched: Option<&Matched>, head: &Head) -> Result<Option<UpgradePlan>, ()> {
    if head.upgrade.is_empty() {
        return Ok(None);
    }
    let action = matched.and_then(Matched::action);
    let on_route = action.and_then(|a| a.upgrades.iter().find(|u| u.upgrade.kind.eq_ignore_ascii_case(&head.upgrade)));
    let here = hcm.upgrades.iter().find(|u| u.kind.eq_ignore_ascii_case(&head.upgrade));
    let allowed = on_route.map(|u| u.upgrade.enabled).or(here.map(|u| u.enabled)).unwrap_or(false);
    if !allowed {
        return Err(());
    }
    let ends_here = on_route.is_some_and(|u| u.terminate_connect);
    Ok(Some(if ends_here { UpgradePlan::TerminateConnect } else { UpgradePlan::Pass }))
}

#[expect(clippy::too_many_arguments, reason = "the parts of one decision, used once")]
fn act(
    config: &Config,
    hcm: &Hcm,
    head: &Head,
    matched: Matched,
    choice: Option<Choice>,
    upgrade: Option<UpgradePlan>,
    parts: Parts,
    random: &mut Random,
) -> Decision {
    let Some(route) = matched.route().cloned() else { return refuse(Kind::NoRoute, Some(matched)) };
    let action = match &route.target {
        RouteTarget::Forward(action) => action,
        RouteTarget::Redirect(redirect) => return redirected(&route, redirect, head, matched),
        RouteTarget::Respond(response) => return responded(response, head, matched),
        RouteTarget::NonForwarding => return refuse(Kind::NoRoute, Some(matched)),
    };
    let Some(choice) = choice else { return refuse(Kind::NoRoute, Some(matched)) };
    let router = router(hcm);
    if let Some(name) = router.and_then(|router| nonsense(router, head)) {
        let failure = Failure::new(Kind::InvalidEnvoyHeader)
            .with_reason(format!("request_headers_failed_strict_check{{{name}}}"));
        return Decision::Reply(Box::new(Reply { matched: Some(matched), ..Reply::failure(failure) }));
    }
    let Some(cluster) = config.clusters.get(&choice.name) else {
        let failure = Failure::new(Kind::NoCluster).with_status(action.cluster_not_found.as_u16());
        return Decision::Reply(Box::new(Reply { matched: Some(matched), ..Reply::failure(failure) }));
    };
    let grpc = head.is_grpc() || parts.bodies.iter().any(|filter| matches!(filter, BodyFilter::GrpcWeb(_)));
    let hedge = hedge(action, &matched, head);
    let timeouts = timeouts::of(hcm, action, &matched, router, head, grpc);
    let weight = Draft { matched: Some(&matched), weighted: parts.weighted, ..Draft::default() }.weight();
    let metadata_match = merged(action.metadata_match.as_ref(), weight.and_then(|w| w.metadata_match.as_ref()));
    let metadata_match = merged(metadata_match.as_ref(), subset_said(&parts.metadata).as_ref());
    let mut forward = Forward {
        cluster: Arc::clone(&cluster.name),
        weighted: parts.weighted,
        grpc,
        timeouts,
        retry: None,
        hedge,
        hash: None,
        set_cookies: SmallVec::new(),
        metadata_match,
        priority: action.priority,
        copies: SmallVec::new(),
        auto_host: matches!(action.host_rewrite, crate::config::HostRewrite::Auto),
        upgrade,
        delay: None,
        response_kbps: parts.response_kbps,
        flags: Flags::NONE,
        response_headers: parts.response_headers,
        mutations: parts.mutations,
        body_buffer_limit: route.body_buffer_limit.or(matched.host().body_buffer_limit),
        suppress_envoy_headers: router.is_some_and(|router| router.suppress_envoy_headers),
        timeout_status: timeouts::alternative(head),
        forward_host: parts.forward_host,
        bodies: parts.bodies,
        health_check: parts.health_check,
        metadata: parts.metadata,
        matched,
    };
    forward.copies = copies(forward.mirrors(), head, &config.runtime, random);
    Decision::Forward(Box::new(forward))
}

fn router(hcm: &Hcm) -> Option<&RouterFilter> {
    hcm.filters.iter().rev().find_map(|filter| match &filter.kind {
        HttpFilterKind::Router(router) => Some(router),
        _ => None,
    })
}

/// The first `x-envoy-*` header that is to be checked and holds nonsense.
fn nonsense<'r>(router: &'r RouterFilter, head: &Head) -> Option<&'r header::HeaderName> {
    let holds_sense = |name: &header::HeaderName| {
        let Some(value) = head.headers.get(name) else { return true };
        let Ok(text) = value.to_str() else { return false };
        if *name == names::X_ENVOY_RETRY_ON || *name == names::X_ENVOY_RETRY_GRPC_ON {
            forward::parse_retry_on(text).1
        } else {
            text.trim().parse::<u64>().is_ok()
        }
    };
    router.strict_check_headers.iter().find(|name| !holds_sense(name))
}

fn hedge(action: &RouteAction, matched: &Matched, head: &Head) -> Option<crate::config::Hedge> {
    let configured = action.hedge.as_ref().or(matched.host().hedge.as_ref()).map(|hedge| **hedge);
    match forward::told_hedging(head) {
        None => configured,
        Some(on_per_try_timeout) => Some(crate::config::Hedge { on_per_try_timeout }),
    }
}

/// What filters said of the endpoints that are wanted.
fn subset_said(metadata: &Metadata) -> Option<crate::config::MetadataMatch> {
    match metadata.namespace("envoy.lb")? {
        Value::Map(said) => Some(said.iter().map(|(key, value)| (Arc::clone(key), value.clone())).collect()),
        _ => None,
    }
}

/// The keys of both; the second's win.
fn merged(
    route: Option<&crate::config::MetadataMatch>,
    weight: Option<&crate::config::MetadataMatch>,
) -> Option<crate::config::MetadataMatch> {
    match (route, weight) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(Arc::clone(one)),
        (Some(route), Some(weight)) => {
            let of_route = route.iter().filter(|(key, _)| !weight.iter().any(|(other, _)| other == key));
            let mut all: Vec<_> = of_route.chain(weight.iter()).cloned().collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            Some(all.into())
        }
    }
}

fn copies(mirrors: &[Mirror], head: &Head, runtime: &Runtime, random: &mut Random) -> SmallVec<[(u32, Arc<str>); 1]> {
    let mut out = SmallVec::new();
    for (index, mirror) in (0u32..).zip(mirrors) {
        if !runtime.hit(&mirror.share, random.draw()) {
            continue;
        }
        let named = mirror.header.as_ref().and_then(|name| head.headers.get(name)?.to_str().ok()).map(Arc::from);
        match (named, mirror.header.is_some()) {
            (Some(name), _) => out.push((index, name)),
            (None, false) => out.push((index, Arc::clone(&mirror.cluster))),
            (None, true) => {}
        }
    }
    out
}

fn redirected(route: &Route, redirect: &Redirect, head: &Head, matched: Matched) -> Decision {
    let location = route::location(route, redirect, head);
    Decision::Reply(Box::new(redirect_to(&location, redirect.status, matched)))
}

fn responded(response: &DirectResponse, head: &Head, matched: Matched) -> Decision {
    let mut headers = HeaderMap::new();
    let mut body = response.body.clone();
    let mut kind = HeaderValue::from_static("text/plain");
    if let Some((format, content_type)) = &response.format {
        let text = String::from_utf8_lossy(&body).into_owned();
        let facts =
            Facts { head: Some(head), status: Some(response.status.as_u16()), local_reply: &text, ..Facts::default() };
        body = format.render(&facts).into();
        kind = content_type.clone();
    }
    if !body.is_empty() {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    Decision::Reply(Box::new(answer(response.status, headers, body, Cause::DirectResponse, Some(matched))))
}
