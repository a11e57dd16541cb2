//! What rules do with requests: forward, redirect, answer; and what they change on the way.

use super::{
    names,
    pb::{any, boolean, duration, fraction, inline, regex, runtime_fraction, string_matcher, uint},
    route::RouteContext,
    wire::{core, cors, fault, fault_delay, matcher, previous_hosts, previous_priorities, protobuf, route, types},
};
use crate::{
    bind::{destination, is_refused},
    intent::{
        Abort, Algorithm, Cors, Fault, Fraction, HashKey, HeaderChanges, HeaderEdit, HttpAction, HttpBackend,
        HttpMatch, HttpRule, Mirror, PathRewrite, Redirect, RedirectPort, RetryPolicy, Rewrite, Target, TextMatch,
    },
};
use std::{collections::BTreeMap, time::Duration};

const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// Fills in everything of a route but its condition. The answer holds the settings for filters.
pub(super) fn fill(
    context: &mut RouteContext<'_, '_>,
    rule: &HttpRule,
    condition: Option<&HttpMatch>,
    out: &mut route::Route,
) -> BTreeMap<String, protobuf::Any> {
    out.name.clone_from(&rule.name);
    let host = header_edits(&rule.headers, out);
    out.action = Some(match &rule.action {
        HttpAction::Redirect(redirect) => route::route::Action::Redirect(redirected(context, redirect, condition)),
        HttpAction::Respond { status, body } => route::route::Action::DirectResponse(respond(*status, body)),
        HttpAction::Forward { backends, .. } if backends.is_empty() => {
            route::route::Action::DirectResponse(respond(500, b""))
        }
        HttpAction::Forward { backends, rewrite } => {
            let mut action = forward(context, rule, backends, out);
            rewritten(rewrite, condition, &mut action);
            if let Some(host) = host.or_else(|| rewrite.authority.clone()) {
                action.host_rewrite_specifier =
                    Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral(host));
            }
            route::route::Action::Route(action)
        }
    });
    let mut filters = BTreeMap::new();
    filters.extend(rule.fault.as_ref().and_then(injected).map(|f| ("envoy.filters.http.fault".to_owned(), any(&f))));
    filters.extend(rule.cors.as_ref().map(|c| ("envoy.filters.http.cors".to_owned(), any(&cors_policy(c)))));
    filters
}

/// The route of a service for which no rule is written.
pub(super) fn default_route(context: &RouteContext<'_, '_>, target: &Target) -> route::Route {
    let mut action = to_cluster(context, target);
    action.timeout = Some(protobuf::Duration::default());
    action.hash_policy = hash_policy(context, target);
    action.retry_policy = retry(context, None, !action.hash_policy.is_empty());
    route::Route {
        name: "default".to_owned(),
        r#match: Some(super::route_match::anything()),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    }
}

fn to_cluster(context: &RouteContext<'_, '_>, target: &Target) -> route::RouteAction {
    let cluster = cluster_name(context, target);
    route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster)),
        ..Default::default()
    }
}

/// The upstream of a destination. One that does not exist gets the name that it would have: requests get 503 until it does.
fn cluster_name(context: &RouteContext<'_, '_>, target: &Target) -> String {
    let subset = target.subset.as_deref().unwrap_or_default();
    match context.view.locate(target, Some(context.port)) {
        Ok(located) => names::outbound(located.port, subset, &located.service.key.host),
        Err(_) => names::outbound(target.port.unwrap_or(context.port), subset, &target.host),
    }
}

fn forward(
    context: &mut RouteContext<'_, '_>,
    rule: &HttpRule,
    backends: &[HttpBackend],
    out: &mut route::Route,
) -> route::RouteAction {
    let used: Vec<&HttpBackend> = backends.iter().filter(|b| backends.len() == 1 || b.weight > 0).collect();
    let mut action = match used.as_slice() {
        [only] => {
            let mut action = to_cluster(context, &only.destination);
            if let Some(host) = header_edits(&only.headers, out) {
                action.host_rewrite_specifier =
                    Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral(host));
            }
            action
        }
        several => weighted(context, several),
    };
    if used.iter().any(|backend| is_refused(&backend.destination)) {
        use route::route_action::ClusterNotFoundResponseCode;
        action.cluster_not_found_response_code = ClusterNotFoundResponseCode::InternalServerError.into();
    }
    action.timeout = Some(duration(rule.timeout.unwrap_or(Duration::ZERO)));
    action.hash_policy = used.first().map(|first| hash_policy(context, &first.destination)).unwrap_or_default();
    action.retry_policy = retry(context, rule.retry.as_ref(), !action.hash_policy.is_empty());
    action.request_mirror_policies = rule.mirrors.iter().map(|m| mirrored(context, m)).collect();
    action
}

fn weighted(context: &RouteContext<'_, '_>, backends: &[&HttpBackend]) -> route::RouteAction {
    let clusters = backends.iter().map(|backend| {
        let mut edits = route::Route::default();
        let host = header_edits(&backend.headers, &mut edits);
        route::weighted_cluster::ClusterWeight {
            name: cluster_name(context, &backend.destination),
            weight: uint(backend.weight),
            request_headers_to_add: edits.request_headers_to_add,
            request_headers_to_remove: edits.request_headers_to_remove,
            response_headers_to_add: edits.response_headers_to_add,
            response_headers_to_remove: edits.response_headers_to_remove,
            host_rewrite_specifier: host
                .map(route::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            ..Default::default()
        }
    });
    let clusters = route::WeightedCluster { clusters: clusters.collect(), ..Default::default() };
    route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::WeightedClusters(clusters)),
        ..Default::default()
    }
}

fn mirrored(context: &RouteContext<'_, '_>, mirror: &Mirror) -> route::route_action::RequestMirrorPolicy {
    route::route_action::RequestMirrorPolicy {
        cluster: cluster_name(context, &mirror.destination),
        runtime_fraction: Some(runtime_fraction(mirror.fraction)),
        trace_sampled: boolean(false),
        ..Default::default()
    }
}

/// Adds header changes to a route. The answer is the host that is set, which is a rewrite and not a header.
fn header_edits(changes: &HeaderChanges, out: &mut route::Route) -> Option<String> {
    let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
    let host = changes.request.set.iter().find(|(name, _)| is_host(name)).map(|(_, value)| value.clone());
    out.request_headers_to_add
        .extend(added(&changes.request).filter(|option| option.header.as_ref().is_none_or(|h| !is_host(&h.key))));
    out.request_headers_to_remove.extend(changes.request.remove.iter().filter(|name| !is_host(name)).cloned());
    out.response_headers_to_add.extend(added(&changes.response));
    out.response_headers_to_remove.extend(changes.response.remove.iter().cloned());
    host
}

fn added(edit: &HeaderEdit) -> impl Iterator<Item = core::HeaderValueOption> + '_ {
    use core::header_value_option::HeaderAppendAction;
    let option = |key: &str, value: &str, action: HeaderAppendAction| core::HeaderValueOption {
        header: Some(core::HeaderValue { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() }),
        append_action: action.into(),
        ..Default::default()
    };
    let set = edit.set.iter().map(move |(k, v)| option(k, v, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = edit.add.iter().map(move |(k, v)| option(k, v, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add)
}

/// `hashed`: the same client belongs on the same endpoint, also when it is tried again.
fn retry(context: &RouteContext<'_, '_>, wanted: Option<&RetryPolicy>, hashed: bool) -> Option<route::RetryPolicy> {
    let mesh = context.view.reader.mesh();
    let policy = wanted.or(mesh.default_retry.as_ref());
    let attempts = policy.map_or(2, |policy| policy.attempts);
    if attempts == 0 {
        return None;
    }
    let mut on = policy.map(|p| p.on.join(",")).unwrap_or_default();
    let mut statuses: Vec<u32> = policy.map(|p| p.statuses.iter().map(|s| u32::from(*s)).collect()).unwrap_or_default();
    if on.is_empty() && statuses.is_empty() {
        RETRY_ON.clone_into(&mut on);
        statuses = vec![503];
    } else if !statuses.is_empty() && !on.split(',').any(|word| word == "retriable-status-codes") {
        on = if on.is_empty() { "retriable-status-codes".to_owned() } else { format!("{on},retriable-status-codes") };
    }
    let elsewhere = !hashed && policy.and_then(|p| p.ignore_previous_hosts) != Some(false);
    Some(route::RetryPolicy {
        retry_on: on,
        num_retries: uint(attempts),
        per_try_timeout: policy.and_then(|p| p.per_try_timeout).filter(|t| !t.is_zero()).map(duration),
        retry_host_predicate: if elsewhere { vec![not_again()] } else { Vec::new() },
        host_selection_retry_max_attempts: if elsewhere { 5 } else { 0 },
        retriable_status_codes: statuses,
        retry_priority: policy.filter(|p| p.remote_localities == Some(true)).map(|_| other_priorities()),
        retry_back_off: policy.and_then(|p| p.backoff).map(|first| route::retry_policy::RetryBackOff {
            base_interval: Some(duration(first)),
            max_interval: Some(duration(first.saturating_mul(10))),
        }),
        ..Default::default()
    })
}

fn not_again() -> route::retry_policy::RetryHostPredicate {
    route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any(
            &previous_hosts::PreviousHostsPredicate {},
        ))),
    }
}

fn other_priorities() -> route::retry_policy::RetryPriority {
    let config = previous_priorities::PreviousPrioritiesConfig { update_frequency: 2 };
    route::retry_policy::RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(route::retry_policy::retry_priority::ConfigType::TypedConfig(any(&config))),
    }
}

/// What the destination's policy hashes.
fn hash_policy(context: &RouteContext<'_, '_>, target: &Target) -> Vec<route::route_action::HashPolicy> {
    use route::route_action::{HashPolicy, hash_policy};
    let Ok(located) = context.view.locate(target, Some(context.port)) else { return Vec::new() };
    let effective = destination(context.view, located.service);
    let subset = target.subset.as_deref().and_then(|name| effective.subset(name));
    let policy = effective.policy_for(located.port, subset);
    let Some(Algorithm::ConsistentHash { key, .. }) = policy.load_balancer.and_then(|lb| lb.algorithm) else {
        return Vec::new();
    };
    let specifier = match key {
        HashKey::Header(name) => {
            hash_policy::PolicySpecifier::Header(hash_policy::Header { header_name: name, regex_rewrite: None })
        }
        HashKey::Cookie { name, path, ttl, attributes } => hash_policy::PolicySpecifier::Cookie(hash_policy::Cookie {
            name,
            path,
            ttl: ttl.map(duration),
            attributes: attributes
                .into_iter()
                .map(|(name, value)| hash_policy::CookieAttribute { name, value })
                .collect(),
        }),
        HashKey::SourceIp => {
            hash_policy::PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip: true })
        }
        HashKey::Query(name) => hash_policy::PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name }),
    };
    vec![HashPolicy { terminal: false, policy_specifier: Some(specifier) }]
}

fn substitute(pattern: &str, replacement: &str) -> matcher::RegexMatchAndSubstitute {
    matcher::RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: replacement.to_owned() }
}

/// Text as a replacement: a backslash would refer to a group.
fn literally(text: &str) -> String {
    text.replace('\\', "\\\\")
}

/// A new prefix in place of matched segments: one that ends in a slash, or is empty, must not leave two slashes or none.
fn segments(matched: &str, replacement: &str) -> matcher::RegexMatchAndSubstitute {
    let pattern = format!("^{}/*", regex::escape(matched.trim_end_matches('/')));
    substitute(&pattern, &format!("{}/", literally(replacement.trim_end_matches('/'))))
}

fn matched_segments(condition: Option<&HttpMatch>) -> &str {
    match condition.and_then(|c| c.path.as_ref()) {
        Some(TextMatch::SegmentPrefix(prefix) | TextMatch::Prefix(prefix)) => prefix,
        _ => "",
    }
}

fn rewritten(rewrite: &Rewrite, condition: Option<&HttpMatch>, action: &mut route::RouteAction) {
    match &rewrite.path {
        None => {}
        Some(PathRewrite::Prefix(prefix)) => action.prefix_rewrite.clone_from(prefix),
        Some(PathRewrite::SegmentPrefix(prefix)) if prefix.trim_end_matches('/').is_empty() => {
            action.regex_rewrite = Some(segments(matched_segments(condition), prefix));
        }
        Some(PathRewrite::SegmentPrefix(prefix)) => match matched_segments(condition).trim_end_matches('/') {
            "" => action.regex_rewrite = Some(segments("", prefix)),
            _ => prefix.trim_end_matches('/').clone_into(&mut action.prefix_rewrite),
        },
        Some(PathRewrite::Full(path)) => action.regex_rewrite = Some(substitute("/.*", &literally(path))),
        Some(PathRewrite::Regex { pattern, substitution }) => {
            action.regex_rewrite = Some(substitute(pattern, substitution))
        }
    }
}

fn redirected(
    context: &RouteContext<'_, '_>,
    redirect: &Redirect,
    condition: Option<&HttpMatch>,
) -> route::RedirectAction {
    use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let path = redirect.path.as_ref().map(|path| match path {
        PathRewrite::Full(path) => PathRewriteSpecifier::PathRedirect(path.clone()),
        PathRewrite::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.clone()),
        PathRewrite::SegmentPrefix(prefix) => {
            PathRewriteSpecifier::RegexRewrite(segments(matched_segments(condition), prefix))
        }
        PathRewrite::Regex { pattern, substitution } => {
            PathRewriteSpecifier::RegexRewrite(substitute(pattern, substitution))
        }
    });
    let port = match redirect.port {
        RedirectPort::Number(port) => u32::from(port),
        RedirectPort::FromRequest => u32::from(context.port),
        RedirectPort::Unset | RedirectPort::FromProtocol => 0,
    };
    let code = match redirect.status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    route::RedirectAction {
        host_redirect: redirect.authority.clone().unwrap_or_default(),
        port_redirect: port,
        response_code: code.into(),
        scheme_rewrite_specifier: redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        ..Default::default()
    }
}

pub(super) fn respond(status: u16, body: &[u8]) -> route::DirectResponseAction {
    let body = (!body.is_empty()).then(|| inline(body));
    route::DirectResponseAction { status: u32::from(status), body, ..Default::default() }
}

fn injected(fault: &Fault) -> Option<fault::HttpFault> {
    if fault.delay.is_none() && fault.abort.is_none() {
        return None;
    }
    let delay = fault.delay.map(|(time, part)| fault_delay::FaultDelay {
        percentage: Some(fraction(part)),
        fault_delay_secifier: Some(fault_delay::fault_delay::FaultDelaySecifier::FixedDelay(duration(time))),
    });
    let abort = fault.abort.map(|(abort, part)| fault::FaultAbort {
        percentage: Some(fraction(part)),
        error_type: Some(match abort {
            Abort::Http(status) => fault::fault_abort::ErrorType::HttpStatus(u32::from(status)),
            Abort::Grpc(status) => fault::fault_abort::ErrorType::GrpcStatus(status),
        }),
        ..Default::default()
    });
    Some(fault::HttpFault { delay, abort, ..Default::default() })
}

fn cors_policy(policy: &Cors) -> cors::CorsPolicy {
    let any_origin = || matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(regex(".*"))),
        ignore_case: false,
    };
    cors::CorsPolicy {
        allow_origin_string_match: policy
            .allow_origins
            .iter()
            .map(|o| string_matcher(o).unwrap_or_else(any_origin))
            .collect(),
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials.and_then(boolean),
        filter_enabled: Some(core::RuntimeFractionalPercent {
            default_value: Some(whole()),
            runtime_key: String::new(),
        }),
        forward_not_matching_preflights: boolean(policy.forward_unmatched_preflights),
        ..Default::default()
    }
}

fn whole() -> types::FractionalPercent {
    fraction(Fraction::ALL)
}
