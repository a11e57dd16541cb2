//! Owns the conditions of HTTP rules.

use super::backend;
use crate::{
    code,
    fields::{At, Fields},
    grammar,
    object::Head,
    text::Value,
};
use std::collections::BTreeMap;
use tombolo_controlplane_core::intent::{HttpMatch, TextMatch};

/// Keys that headers may not have, because they have fields of their own.
const RESERVED: [&str; 4] = ["uri", "scheme", "method", "authority"];
const CLAIMS: &str = "@request.auth.claims";

/// One alternative.
pub(crate) fn read(at: &At<'_>, head: &Head) -> HttpMatch {
    let fields = at.fields();
    let attachments = backend::attachments(&fields, head);
    let source_labels = fields.labels("sourceLabels");
    let text = |name| fields.at(name).and_then(|at| text_match(&at, false));
    fields.skip(&["statPrefix"]);
    HttpMatch {
        name: fields.string("name").unwrap_or_default(),
        path: fields.at("uri").and_then(|at| text_match(&at, true)),
        ignore_path_case: fields.bool("ignoreUriCase").unwrap_or(false),
        scheme: text("scheme"),
        method: text("method"),
        authority: text("authority"),
        headers: headers(&fields, "headers"),
        without_headers: headers(&fields, "withoutHeaders"),
        query: query(&fields),
        port: fields.port("port"),
        // A gateway's clients have no labels, so the API ignores these as soon as gateways are named.
        source_labels: if attachments.is_empty() { source_labels } else { Default::default() },
        source_namespace: fields.namespace("sourceNamespace"),
        attachments,
    }
}

fn headers(fields: &Fields<'_>, name: &'static str) -> BTreeMap<String, TextMatch> {
    let mut headers = BTreeMap::new();
    for (key, at) in fields.at(name).map(|at| at.entries()).unwrap_or_default() {
        if key.starts_with(CLAIMS) {
            at.error(code::NOT_ENFORCED, "conditions on token claims are not supported; match a header instead");
            continue;
        }
        if RESERVED.contains(&key) {
            at.warn(code::SUSPICIOUS, format!("the API ignores this key here; write {key} beside headers"));
            continue;
        }
        if !is_header_name(key) {
            at.error(code::BAD_VALUE, format!("{key:?} is not a header name"));
            continue;
        }
        headers.extend(presence_or_text(&at).map(|text| (key.to_ascii_lowercase(), text)));
    }
    headers
}

fn query(fields: &Fields<'_>) -> BTreeMap<String, TextMatch> {
    let entries = fields.at("queryParams").map(|at| at.entries()).unwrap_or_default();
    entries.into_iter().filter_map(|(key, at)| Some((key.to_owned(), presence_or_text(&at)?))).collect()
}

/// An empty message means that there is a value.
fn presence_or_text(at: &At<'_>) -> Option<TextMatch> {
    let empty = ["exact", "prefix", "regex"].iter().all(|name| at.node.get(name).is_none());
    if empty && matches!(at.node.value, Value::Null | Value::Map(_)) {
        // Only to complain about a misspelt field.
        drop(at.fields_of(&["exact", "prefix", "regex"]));
    }
    if empty { Some(TextMatch::Present) } else { text_match(at, false) }
}

/// `exact`, `prefix` or `regex`. An empty prefix matches everything, which only a path may want.
pub(crate) fn text_match(at: &At<'_>, empty_prefix: bool) -> Option<TextMatch> {
    let fields = at.fields();
    let found: Vec<_> =
        ["exact", "prefix", "regex"].iter().filter_map(|name| Some((*name, fields.at(name)?))).collect();
    let [(name, value)] = found.as_slice() else {
        at.error(code::BAD_VALUE, "write exactly one of exact, prefix and regex");
        return None;
    };
    match *name {
        "exact" => value.string().map(TextMatch::Exact),
        "regex" => value.parse(grammar::expression).map(TextMatch::Regex),
        _ => {
            let prefix = value.string()?;
            if prefix.is_empty() && !empty_prefix {
                value.error(
                    code::BAD_VALUE,
                    "the prefix is empty, so it matches every value; to ask for any value write {}",
                );
                return None;
            }
            Some(TextMatch::Prefix(prefix))
        }
    }
}

/// A token as HTTP defines it; a leading colon is that of a pseudo header.
pub(crate) fn is_header_name(name: &str) -> bool {
    let token = name.strip_prefix(':').unwrap_or(name);
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
