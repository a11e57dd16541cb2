//! Owns the conditions of HTTPRoute and GRPCRoute rules.

use crate::{
    code,
    fields::{At, Fields},
    grammar,
};
use std::collections::BTreeMap;
use tombolo_controlplane_core::intent::{HttpMatch, TextMatch};

/// One alternative of an HTTPRoute.
pub(crate) fn http(at: &At<'_>) -> HttpMatch {
    let fields = at.fields();
    let lower = |(name, value): (String, TextMatch)| (name.to_ascii_lowercase(), value);
    HttpMatch {
        path: fields.at("path").and_then(|at| path(&at)),
        method: fields.string("method").map(TextMatch::Exact),
        headers: values(&fields, "headers").into_iter().rev().map(lower).collect(),
        query: values(&fields, "queryParams").into_iter().rev().collect(),
        ..HttpMatch::default()
    }
}

fn path(at: &At<'_>) -> Option<TextMatch> {
    let fields = at.fields();
    let value = fields.at("value");
    let kinds = [("PathPrefix", 'p'), ("Exact", 'e'), ("RegularExpression", 'r')];
    let kind = fields.at("type").map_or(Some('p'), |at| at.choose(&kinds))?;
    let Some(value) = value else { return Some(TextMatch::SegmentPrefix("/".to_owned())) };
    if kind == 'r' {
        return value.parse(grammar::expression).map(TextMatch::Regex);
    }
    let text = value.string()?;
    if !text.starts_with('/') {
        value.error(code::BAD_VALUE, format!("{text:?} is no path; it must begin with a slash"));
    }
    Some(if kind == 'e' { TextMatch::Exact(text) } else { TextMatch::SegmentPrefix(text) })
}

/// Names with tests; of a name that stands twice the first counts, so callers collect in reverse.
fn values(fields: &Fields<'_>, list: &'static str) -> Vec<(String, TextMatch)> {
    let mut values = Vec::new();
    for at in fields.list(list) {
        let fields = at.fields();
        let regex = is_regex(&fields);
        let value = fields.need("value").and_then(|at| text(&at, regex));
        let name = fields.need("name").and_then(|at| at.string());
        values.extend(name.zip(value));
    }
    values
}

fn is_regex(fields: &Fields<'_>) -> bool {
    let kinds = [("Exact", false), ("RegularExpression", true)];
    fields.at("type").and_then(|at| at.choose(&kinds)).unwrap_or(false)
}

fn text(at: &At<'_>, regex: bool) -> Option<TextMatch> {
    if regex { at.parse(grammar::expression).map(TextMatch::Regex) } else { at.string().map(TextMatch::Exact) }
}

/// One alternative of a GRPCRoute: service and method are the two segments of a path.
pub(crate) fn grpc(at: &At<'_>) -> HttpMatch {
    let fields = at.fields();
    let mut headers = BTreeMap::new();
    for (name, value) in values(&fields, "headers").into_iter().rev() {
        headers.insert(name.to_ascii_lowercase(), value);
    }
    HttpMatch { path: fields.at("method").and_then(|at| grpc_path(&at)), headers, ..HttpMatch::default() }
}

fn grpc_path(at: &At<'_>) -> Option<TextMatch> {
    let fields = at.fields();
    let regex = is_regex(&fields);
    let (service, method) = (fields.string("service"), fields.string("method"));
    if service.is_none() && method.is_none() {
        at.error(code::REQUIRED, "write service, method or both");
        return None;
    }
    if regex {
        let any = || "[^/]+".to_owned();
        let pattern = format!("/{}/{}", service.unwrap_or_else(any), method.unwrap_or_else(any));
        return at.at_text(&pattern, grammar::expression).map(TextMatch::Regex);
    }
    Some(match (service, method) {
        (Some(service), Some(method)) => TextMatch::Exact(format!("/{service}/{method}")),
        (Some(service), None) => TextMatch::Prefix(format!("/{service}/")),
        (None, method) => TextMatch::Regex(format!("/[^/]+/{}", regex::escape(&method.unwrap_or_default()))),
    })
}
