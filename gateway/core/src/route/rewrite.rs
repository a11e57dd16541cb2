//! Paths and hosts for the upstream.

use crate::{
    config::{HostRewrite, PathMatch, PathRewrite, RegexRewrite, Route, RouteAction, TemplatePart},
    format::Facts,
    head::{Head, split_query},
};
use http::HeaderValue;

/// Replaces every match. A substitution refers to groups as `\1`; `\0` is the whole match.
pub(crate) fn replace_all(rewrite: &RegexRewrite, text: &str) -> String {
    let regex = rewrite.pattern.search();
    let mut out: Vec<u8> = Vec::with_capacity(text.len() + rewrite.substitution.len());
    let mut last = 0;
    for captures in regex.captures_iter(text) {
        let Some(whole) = captures.get_match() else { continue };
        out.extend_from_slice(&text.as_bytes()[last..whole.start()]);
        last = whole.end();
        let mut rest = rewrite.substitution.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match (byte, after.first()) {
                (b'\\', Some(digit)) if digit.is_ascii_digit() => {
                    let group = captures.get_group(usize::from(digit - b'0'));
                    out.extend_from_slice(group.map_or(&[][..], |span| &text.as_bytes()[span.range()]));
                    rest = &after[1..];
                }
                (b'\\', Some(b'\\')) => {
                    out.push(b'\\');
                    rest = &after[1..];
                }
                _ => out.push(byte),
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[last..]);
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// The path with its query for the upstream; `None`: as it is. A regular expression that matches nothing counts as a rewrite, as
/// in Envoy (the original path is told).
#[must_use]
pub fn rewritten_path(route: &Route, rewrite: &PathRewrite, head: &Head, facts: &Facts<'_>) -> Option<String> {
    let (path, query) = split_query(&head.path);
    let fresh = match rewrite {
        PathRewrite::None => return None,
        PathRewrite::Prefix(prefix) => {
            let rest = path.get(route.matched_part(path).len()..).unwrap_or_default();
            format!("{prefix}{rest}")
        }
        // Without a path there is no request: what leaves none leaves it as it was.
        PathRewrite::Regex(rewrite) => Some(replace_all(rewrite, path)).filter(|path| !path.is_empty())?,
        PathRewrite::Template(parts) => from_template(route, parts, path)?,
        PathRewrite::Format(format) => {
            let whole = String::from_utf8(format.render(facts)).ok()?;
            return whole.starts_with('/').then_some(whole);
        }
    };
    Some(match query {
        Some(query) => format!("{fresh}?{query}"),
        None => fresh,
    })
}

fn from_template(route: &Route, parts: &[TemplatePart], path: &str) -> Option<String> {
    let PathMatch::Template(template) = &route.matches.path else { return None };
    let mut captures = template.pattern.search().create_captures();
    template.pattern.search().captures(path, &mut captures);
    let mut out = String::new();
    for part in parts {
        match part {
            TemplatePart::Literal(text) => out.push_str(text),
            TemplatePart::Variable(at) => {
                out.push_str(
                    captures
                        .get_group(usize::from(*at) + 1)
                        .and_then(|span| path.get(span.range()))
                        .unwrap_or_default(),
                );
            }
        }
    }
    Some(out)
}

/// The host for the upstream; `None`: as it is.
#[must_use]
pub fn rewritten_host(action: &RouteAction, head: &Head) -> Option<HeaderValue> {
    match &action.host_rewrite {
        HostRewrite::None | HostRewrite::Auto => None,
        HostRewrite::Literal(host) => Some(HeaderValue::clone(host)),
        HostRewrite::Header(name) => head.headers.get(&**name).filter(|value| !value.is_empty()).cloned(),
        HostRewrite::PathRegex(rewrite) => HeaderValue::try_from(replace_all(rewrite, head.path_only())).ok(),
    }
}
