//! Applies configured changes of headers.
//!
//! Owns the meaning of "append", "overwrite" and so on. Used by `forward` and by answers made here.

use crate::{
    config::{Action, ClusterWeight, HeaderChange, HeaderChanges, HeaderValueFormat},
    decision::Matched,
    format::Facts,
};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

/// Values worked out for a list of changes, before any of them is applied: operators read the headers as they were.
pub struct Pending<'c>(SmallVec<[(&'c HeaderChange, HeaderValue); 4]>);

/// Works out the values. A value that is empty (unless kept) or cannot be a header's is left out.
#[must_use]
pub fn evaluate<'c>(changes: &'c HeaderChanges, facts: &Facts<'_>) -> Pending<'c> {
    Pending(changes.set().iter().filter_map(|change| Some((change, value(change, facts)?))).collect())
}

/// The value of one.
pub(crate) fn value(change: &HeaderChange, facts: &Facts<'_>) -> Option<HeaderValue> {
    let value = match &change.value {
        HeaderValueFormat::Fixed(value) => value.clone(),
        HeaderValueFormat::Format(format) => {
            HeaderValue::from_maybe_shared(bytes::Bytes::from(format.render(facts))).ok()?
        }
    };
    (change.keep_empty || !value.is_empty()).then_some(value)
}

/// Removes, then puts.
pub fn apply(changes: &HeaderChanges, pending: Pending<'_>, headers: &mut HeaderMap) {
    for name in changes.removed() {
        headers.remove(name);
    }
    for (change, value) in pending.0 {
        put(change, value, headers);
    }
}

/// Puts one.
pub(crate) fn put(change: &HeaderChange, value: HeaderValue, headers: &mut HeaderMap) {
    match change.action {
        Action::Append => {
            headers.append(&change.name, value);
        }
        Action::AddIfAbsent => {
            headers.entry(&change.name).or_insert(value);
        }
        Action::Overwrite => {
            headers.insert(&change.name, value);
        }
        Action::OverwriteIfExists => {
            if headers.contains_key(&change.name) {
                headers.insert(&change.name, value);
            }
        }
    }
}

/// Lists of changes in the order of their application.
pub type Levels<'m> = SmallVec<[&'m HeaderChanges; 4]>;

/// From the specific (weighted cluster, route) to the general (virtual host, table), or the other way round when the table says
/// so.
fn ordered<'m>(matched: &'m Matched, levels: [Option<&'m HeaderChanges>; 4]) -> Levels<'m> {
    let mut all: Levels<'m> = levels.into_iter().flatten().filter(|changes| !changes.is_empty()).collect();
    if matched.table.most_specific_wins {
        all.reverse();
    }
    all
}

/// Changes of requests on this route.
#[must_use]
pub fn request_levels<'m>(matched: &'m Matched, weight: Option<&'m ClusterWeight>) -> Levels<'m> {
    let of_route = matched.route().map(|route| &route.request_headers);
    let (of_host, of_table) = (Some(&matched.host().request_headers), Some(&matched.table.request_headers));
    ordered(matched, [weight.map(|weight| &weight.request_headers), of_route, of_host, of_table])
}

/// Changes of responses on this route.
#[must_use]
pub fn response_levels<'m>(matched: &'m Matched, weight: Option<&'m ClusterWeight>) -> Levels<'m> {
    let of_route = matched.route().map(|route| &route.response_headers);
    let (of_host, of_table) = (Some(&matched.host().response_headers), Some(&matched.table.response_headers));
    ordered(matched, [weight.map(|weight| &weight.response_headers), of_route, of_host, of_table])
}

/// Changes a response as the route asks for. `facts` needs no response headers: they are read from `headers`. For an answer made
/// here leave its `status` out: Envoy applies these changes before it settles the status, and renders 0.
pub fn change_response(matched: &Matched, weight: Option<&ClusterWeight>, facts: &Facts<'_>, headers: &mut HeaderMap) {
    for changes in response_levels(matched, weight) {
        let pending = evaluate(changes, &Facts { response: Some(headers), ..*facts });
        apply(changes, pending, headers);
    }
}
