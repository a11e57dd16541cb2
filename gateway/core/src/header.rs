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
    let value = |change: &'c HeaderChange| match &change.value {
        HeaderValueFormat::Fixed(value) => Some(value.clone()),
        HeaderValueFormat::Format(format) => {
            HeaderValue::from_maybe_shared(bytes::Bytes::from(format.render(facts))).ok()
        }
    };
    let kept = |change: &HeaderChange, value: &HeaderValue| change.keep_empty || !value.is_empty();
    Pending(changes.set.iter().filter_map(|c| value(c).filter(|v| kept(c, v)).map(|v| (c, v))).collect())
}

/// Removes, then puts.
pub fn apply(changes: &HeaderChanges, pending: Pending<'_>, headers: &mut HeaderMap) {
    for name in &changes.remove {
        headers.remove(name);
    }
    for (change, value) in pending.0 {
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
}

/// The changes that a route, what stands above it and the weighted cluster ask for, in the order of application: from the
/// specific to the general, or the other way round when the table says so.
fn levels<'m>(
    matched: &'m Matched,
    weight: Option<&'m ClusterWeight>,
    pick: [fn(&'m Matched, Option<&'m ClusterWeight>) -> Option<&'m HeaderChanges>; 4],
) -> SmallVec<[&'m HeaderChanges; 4]> {
    let mut all: SmallVec<[&HeaderChanges; 4]> =
        pick.into_iter().filter_map(|pick| pick(matched, weight)).filter(|changes| !changes.is_empty()).collect();
    if matched.table.most_specific_wins {
        all.reverse();
    }
    all
}

/// Changes of requests on this route.
#[must_use]
pub fn request_levels<'m>(matched: &'m Matched, weight: Option<&'m ClusterWeight>) -> SmallVec<[&'m HeaderChanges; 4]> {
    levels(
        matched,
        weight,
        [
            |_, weight| weight.map(|w| &w.request_headers),
            |matched, _| matched.route().map(|route| &route.request_headers),
            |matched, _| Some(&matched.host().request_headers),
            |matched, _| Some(&matched.table.request_headers),
        ],
    )
}

/// Changes of responses on this route.
#[must_use]
pub fn response_levels<'m>(
    matched: &'m Matched,
    weight: Option<&'m ClusterWeight>,
) -> SmallVec<[&'m HeaderChanges; 4]> {
    levels(
        matched,
        weight,
        [
            |_, weight| weight.map(|w| &w.response_headers),
            |matched, _| matched.route().map(|route| &route.response_headers),
            |matched, _| Some(&matched.host().response_headers),
            |matched, _| Some(&matched.table.response_headers),
        ],
    )
}

/// Changes a response as the route asks for. `facts` needs no response headers: they are read from `headers`.
pub fn change_response(matched: &Matched, weight: Option<&ClusterWeight>, facts: &Facts<'_>, headers: &mut HeaderMap) {
    for changes in response_levels(matched, weight) {
        let pending = evaluate(changes, &Facts { response: Some(headers), ..*facts });
        apply(changes, pending, headers);
    }
}
