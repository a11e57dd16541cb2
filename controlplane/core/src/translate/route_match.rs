//! Conditions of rules on requests.

use super::{
    pb::{self, boolean, regex, string_matcher},
    route::{At, RouteContext},
    wire::route,
};
use crate::{
    bind::selects,
    intent::{Attachment, HttpMatch, TextMatch},
};
use std::collections::BTreeMap;

/// What every request matches.
pub(super) fn anything() -> route::RouteMatch {
    path_match(&TextMatch::Prefix("/".to_owned()), false)
}

/// Whether a request matches everything that this condition asks of it.
pub(super) fn is_anything(condition: &route::RouteMatch) -> bool {
    let path = match &condition.path_specifier {
        Some(route::route_match::PathSpecifier::Prefix(prefix)) => prefix == "/",
        _ => false,
    };
    path && condition.headers.is_empty() && condition.query_parameters.is_empty()
}

/// The condition, or `None` when it can never hold for these proxies: what the proxy's own place, labels and port decide is
/// decided here and not on each request.
pub(super) fn translate(context: &RouteContext<'_, '_>, condition: &HttpMatch) -> Option<route::RouteMatch> {
    if !in_force(context, condition) {
        return None;
    }
    let everything = TextMatch::Prefix("/".to_owned());
    let mut out = path_match(condition.path.as_ref().unwrap_or(&everything), condition.ignore_path_case);
    let pseudo = [(":method", &condition.method), (":authority", &condition.authority), (":scheme", &condition.scheme)];
    for (name, test) in pseudo {
        out.headers.extend(test.as_ref().map(|test| header(name, test, false)));
    }
    out.headers.extend(condition.headers.iter().map(|(name, test)| header(name, test, false)));
    out.headers.extend(condition.without_headers.iter().map(|(name, test)| header(name, test, true)));
    out.query_parameters = query(&condition.query);
    Some(out)
}

fn in_force(context: &RouteContext<'_, '_>, condition: &HttpMatch) -> bool {
    if !condition.attachments.is_empty() && !condition.attachments.iter().any(|a| context.at.is(a)) {
        return false;
    }
    if condition.port.is_some_and(|port| port != context.port) {
        return false;
    }
    match context.at {
        // Once gateways are named, conditions on the client's workload are about the mesh only.
        At::Gateway { .. } => true,
        At::Mesh => {
            let audience = context.view.audience;
            selects(&condition.source_labels, &audience.labels)
                && condition.source_namespace.as_ref().is_none_or(|namespace| *namespace == audience.namespace)
        }
    }
}

impl At<'_> {
    /// Whether an attachment means this place.
    pub(super) fn is(self, attachment: &Attachment) -> bool {
        match (self, attachment) {
            (At::Mesh, Attachment::Mesh) => true,
            (
                At::Gateway { name, section, port },
                Attachment::Gateway { gateway, section: wanted, port: wanted_port },
            ) => {
                gateway == name
                    && wanted.as_deref().is_none_or(|s| s == section)
                    && wanted_port.is_none_or(|p| p == port)
            }
            _ => false,
        }
    }
}

fn path_match(test: &TextMatch, ignore_case: bool) -> route::RouteMatch {
    use route::route_match::PathSpecifier;
    let specifier = match test {
        TextMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        TextMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        TextMatch::SegmentPrefix(prefix) => match prefix.trim_end_matches('/') {
            "" => PathSpecifier::Prefix("/".to_owned()),
            segments => PathSpecifier::PathSeparatedPrefix(segments.to_owned()),
        },
        // Case is part of a pattern, so that it cannot be told apart from it.
        TextMatch::Regex(pattern) if ignore_case => PathSpecifier::SafeRegex(regex(&format!("(?i){pattern}"))),
        TextMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
        TextMatch::Present => PathSpecifier::Prefix("/".to_owned()),
    };
    let case_sensitive = (ignore_case && !matches!(test, TextMatch::Regex(_))).then(|| boolean(false)).flatten();
    route::RouteMatch { path_specifier: Some(specifier), case_sensitive, ..Default::default() }
}

/// A header that must not match does so also when it is absent, unless it is its absence that is asked for.
fn header(name: &str, test: &TextMatch, invert: bool) -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier;
    let specifier =
        string_matcher(test).map_or(HeaderMatchSpecifier::PresentMatch(true), HeaderMatchSpecifier::StringMatch);
    route::HeaderMatcher {
        name: name.to_owned(),
        invert_match: invert,
        treat_missing_header_as_empty: invert && *test != TextMatch::Present,
        header_match_specifier: Some(specifier),
    }
}

fn query(tests: &BTreeMap<String, TextMatch>) -> Vec<route::QueryParameterMatcher> {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier;
    let one = |(name, test): (&String, &TextMatch)| route::QueryParameterMatcher {
        name: name.clone(),
        query_parameter_match_specifier: Some(
            pb::string_matcher(test)
                .map_or(QueryParameterMatchSpecifier::PresentMatch(true), QueryParameterMatchSpecifier::StringMatch),
        ),
    };
    tests.iter().map(one).collect()
}

/// How specific a condition is, most specific first: exact path, longer prefix, pattern, then method, number of headers, number of
/// query parameters.
pub(super) fn specificity(
    condition: Option<&HttpMatch>,
) -> (u8, std::cmp::Reverse<usize>, bool, std::cmp::Reverse<usize>, std::cmp::Reverse<usize>) {
    use std::cmp::Reverse;
    let Some(condition) = condition else { return (3, Reverse(0), true, Reverse(0), Reverse(0)) };
    let (kind, length) = match &condition.path {
        Some(TextMatch::Exact(path)) => (0, path.len()),
        Some(TextMatch::Prefix(path) | TextMatch::SegmentPrefix(path)) => (2, path.trim_end_matches('/').len()),
        Some(TextMatch::Regex(pattern)) => (1, pattern.len()),
        Some(TextMatch::Present) | None => (2, 0),
    };
    (
        kind,
        Reverse(length),
        condition.method.is_none(),
        Reverse(condition.headers.len()),
        Reverse(condition.query.len()),
    )
}
