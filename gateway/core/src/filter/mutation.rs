//! Changes of headers, trailers and queries: what the filters of one chain do to one request and its response.
//!
//! Filters see requests in the order of the chain, responses in the opposite one. Within a filter the chain's own changes come
//! first, in both directions.

use crate::{
    config::{Action, FilterOverride, HeaderMutationFilter, HeaderToMetadata, Metadata, Mutation, QueryMutation},
    format::Facts,
    head::Head,
    header,
};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

/// What is to be changed. Nothing is allocated where there is nothing.
#[derive(Debug, Clone, Default)]
pub struct Mutations {
    filters: Vec<SmallVec<[Arc<HeaderMutationFilter>; 1]>>,
    /// What is read from the response, besides.
    told: Vec<Arc<HeaderToMetadata>>,
}

/// Changes of trailers that were worked out before the trailers came.
#[derive(Debug, Clone, Default)]
pub struct TrailerChanges(Vec<(Mutation, Option<HeaderValue>)>);

impl Mutations {
    /// One more filter of the chain, with what the levels of routing say of it: the specific ones first.
    pub(crate) fn push<'m>(
        &mut self,
        own: Arc<HeaderMutationFilter>,
        levels: impl DoubleEndedIterator<Item = &'m FilterOverride>,
    ) {
        let of = |level: &FilterOverride| match level {
            FilterOverride::HeaderMutation(filter) => Some(Arc::clone(filter)),
            _ => None,
        };
        let general_first = own.most_specific_wins;
        let mut all = SmallVec::from_iter([own]);
        if general_first {
            all.extend(levels.rev().filter_map(of));
        } else {
            all.extend(levels.filter_map(of));
        }
        self.filters.push(all);
    }

    /// One more filter that reads heads.
    pub(crate) fn tell(&mut self, told: &Arc<HeaderToMetadata>) {
        self.filters.extend(told.removal.clone().map(|removal| SmallVec::from_iter([removal])));
        if !told.response.is_empty() {
            self.told.push(Arc::clone(told));
        }
    }

    /// Nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty() && self.told.is_empty()
    }

    /// Reads a response into the request's metadata.
    pub fn read_response(&self, headers: &mut HeaderMap, metadata: &mut Metadata) {
        for told in self.told.iter().rev() {
            told.read_response(headers, metadata);
        }
    }

    fn of_request(&self) -> impl Iterator<Item = &Arc<HeaderMutationFilter>> {
        self.filters.iter().flatten()
    }

    fn of_response(&self) -> impl Iterator<Item = &Arc<HeaderMutationFilter>> {
        self.filters.iter().rev().flatten()
    }

    /// Changes a request. `base`: what is known of it beside its head.
    pub fn request(&self, base: &Facts<'_>, head: &mut Head) {
        for filter in self.of_request() {
            for mutation in &filter.request {
                let value = mutation.value(&Facts { head: Some(head), ..*base });
                mutation.apply(value, &mut head.headers);
            }
            if !filter.query.is_empty() {
                let values: Vec<_> =
                    filter.query.iter().map(|one| one.value(&Facts { head: Some(head), ..*base })).collect();
                head.path = with_query(&head.path, filter.query.iter().zip(values));
            }
        }
    }

    /// What is to become of the request's trailers; `None`: nothing.
    #[must_use]
    pub fn request_trailers(&self, facts: &Facts<'_>) -> Option<TrailerChanges> {
        let all = self.of_request().flat_map(|filter| &filter.request_trailers);
        let all: Vec<_> = all.map(|mutation| (mutation.clone(), mutation.value(facts))).collect();
        (!all.is_empty()).then_some(TrailerChanges(all))
    }

    /// Changes a response's headers; they are read from there.
    pub fn response(&self, facts: &Facts<'_>, headers: &mut HeaderMap) {
        for mutation in self.of_response().flat_map(|filter| &filter.response) {
            let value = mutation.value(&Facts { response: Some(headers), ..*facts });
            mutation.apply(value, headers);
        }
    }

    /// Whether trailers of responses are changed.
    #[must_use]
    pub fn response_has_trailers(&self) -> bool {
        self.of_response().any(|filter| !filter.response_trailers.is_empty())
    }

    /// Changes a response's trailers.
    pub fn response_trailers(&self, facts: &Facts<'_>, trailers: &mut HeaderMap) {
        for mutation in self.of_response().flat_map(|filter| &filter.response_trailers) {
            mutation.apply(mutation.value(facts), trailers);
        }
    }
}

impl TrailerChanges {
    /// Changes trailers.
    pub fn apply(&self, trailers: &mut HeaderMap) {
        for (mutation, value) in &self.0 {
            mutation.apply(value.clone(), trailers);
        }
    }
}

impl Mutation {
    /// What is put, if anything.
    #[must_use]
    pub fn value(&self, facts: &Facts<'_>) -> Option<HeaderValue> {
        match self {
            Self::Put(change) => header::value(change, facts),
            Self::Remove(_) | Self::RemoveMatching(_) => None,
        }
    }

    /// Changes headers; `value` is what was worked out.
    pub fn apply(&self, value: Option<HeaderValue>, headers: &mut HeaderMap) {
        match self {
            Self::Remove(name) => drop(headers.remove(name)),
            Self::RemoveMatching(matcher) => {
                let gone: Vec<_> =
                    headers.keys().filter(|name| matcher.fits(name.as_str().as_bytes())).cloned().collect();
                for name in gone {
                    headers.remove(name);
                }
            }
            Self::Put(change) => {
                if let Some(value) = value {
                    header::put(change, value, headers);
                }
            }
        }
    }
}

impl QueryMutation {
    fn value(&self, facts: &Facts<'_>) -> Vec<u8> {
        match self {
            Self::Put(_, format, _) => format.render(facts),
            Self::Remove(_) => Vec::new(),
        }
    }
}

/// The path with another query. As in Envoy the parameters come in the order of their names then. Those that were there stay as
/// they were written: Envoy decodes them, and a space or an end of a line would stand in the request line.
fn with_query<'q>(path: &str, changes: impl Iterator<Item = (&'q QueryMutation, Vec<u8>)>) -> String {
    let (start, query) = path.split_once('?').unwrap_or((path, ""));
    let mut all = BTreeMap::<Vec<u8>, Vec<String>>::new();
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        all.entry(decoded(name)).or_default().push(format!("{name}={value}"));
    }
    for (change, value) in changes {
        let (name, action) = match change {
            QueryMutation::Remove(name) => {
                all.remove(name.as_bytes());
                continue;
            }
            QueryMutation::Put(name, _, action) => (name.as_bytes(), *action),
        };
        let mut pair = String::with_capacity(name.len() + value.len() + 1);
        encode(name, &mut pair);
        pair.push('=');
        encode(&value, &mut pair);
        let there = all.contains_key(name);
        match action {
            Action::Append => all.entry(name.to_vec()).or_default().push(pair),
            Action::AddIfAbsent if there => {}
            Action::OverwriteIfExists if !there => {}
            Action::AddIfAbsent | Action::Overwrite | Action::OverwriteIfExists => {
                drop(all.insert(name.to_vec(), vec![pair]));
            }
        }
    }
    let mut out = start.to_owned();
    let mut between = '?';
    for pair in all.values().flatten() {
        out.push(between);
        out.push_str(pair);
        between = '&';
    }
    out
}

/// What percent signs stand for; those without two digits stand for themselves.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn encode(text: &[u8], out: &mut String) {
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"*-._".contains(byte) {
            out.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, value: &str, action: Action) -> QueryMutation {
        QueryMutation::Put(name.into(), crate::format::Format::parse(value).unwrap(), action)
    }

    fn check(path: &str, change: QueryMutation, expect: &str) {
        let value = change.value(&Facts::default());
        assert_eq!(with_query(path, [(&change, value)].into_iter()), expect, "{path} {change:?}");
    }

    #[test]
    fn queries_are_changed() {
        check("/p", put("a", "x y", Action::Append), "/p?a=x%20y");
        check("/p?b&a=1&c=%2F+%zz&%61=%31", put("a", "2", Action::Append), "/p?a=1&%61=%31&a=2&b=&c=%2F+%zz");
        check("/p?a=1&a=3", put("a", "2", Action::Overwrite), "/p?a=2");
        check("/p?b=1", put("a", "2", Action::OverwriteIfExists), "/p?b=1");
        check("/p?a=1", put("a", "2", Action::AddIfAbsent), "/p?a=1");
        check("/p?a=1&b=2&a", QueryMutation::Remove("a".into()), "/p?b=2");
        check("/p?a=1", QueryMutation::Remove("a".into()), "/p");
    }
}
