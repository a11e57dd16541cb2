//! Conditions on texts, headers, query and cookies.

use crate::{
    config::{HeaderMatch, HeaderMatcher, QueryMatch, QueryMatcher, StringMatch, StringMatcher},
    head::{Head, Name},
};
use http::{HeaderMap, HeaderValue, header};

impl StringMatcher {
    /// Whether a text fulfils it.
    #[must_use]
    pub fn fits(&self, text: &[u8]) -> bool {
        let fold = self.ignore_case;
        let same = |a: &[u8], b: &[u8]| if fold { a.eq_ignore_ascii_case(b) } else { a == b };
        match &self.kind {
            StringMatch::Exact(want) => same(text, want.as_bytes()),
            StringMatch::Prefix(want) => text.get(..want.len()).is_some_and(|part| same(part, want.as_bytes())),
            StringMatch::Suffix(want) => text
                .len()
                .checked_sub(want.len())
                .and_then(|at| text.get(at..))
                .is_some_and(|part| same(part, want.as_bytes())),
            StringMatch::Contains(want) => {
                want.is_empty() || text.windows(want.len()).any(|part| same(part, want.as_bytes()))
            }
            StringMatch::Regex(regex) => regex.matches_whole(text),
        }
    }
}

/// Whether all conditions hold.
#[must_use]
pub fn headers_match(matchers: &[HeaderMatcher], head: &Head) -> bool {
    matchers.iter().all(|matcher| header_matches(matcher, head))
}

/// Whether a condition on a request holds.
#[must_use]
pub fn header_matches(matcher: &HeaderMatcher, head: &Head) -> bool {
    match &matcher.name {
        Name::Header(name) => header_matches_in(matcher, name, &head.headers),
        other => one(matcher, head.value(other)),
    }
}

/// Whether a condition holds in these headers. Repeated values are looked at one by one, never joined.
#[must_use]
pub fn header_matches_in(matcher: &HeaderMatcher, name: &header::HeaderName, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next();
    if first.is_none() || matches!(matcher.kind, HeaderMatch::Present(_)) {
        return one(matcher, first);
    }
    first.into_iter().chain(values).any(|value| value_fits(&matcher.kind, value)) != matcher.invert
}

fn one(matcher: &HeaderMatcher, value: Option<&[u8]>) -> bool {
    match (&matcher.kind, value) {
        (HeaderMatch::Present(present), value) => (*present == value.is_some()) != matcher.invert,
        (kind, Some(value)) => value_fits(kind, value) != matcher.invert,
        (kind, None) if matcher.missing_is_empty => value_fits(kind, b"") != matcher.invert,
        (_, None) => false,
    }
}

fn value_fits(kind: &HeaderMatch, value: &[u8]) -> bool {
    match kind {
        HeaderMatch::Present(present) => *present,
        HeaderMatch::Text(matcher) => matcher.fits(value),
        HeaderMatch::Range(start, end) => {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<i64>().ok());
            number.is_some_and(|number| *start <= number && number < *end)
        }
    }
}

/// The first value of a query parameter, not decoded.
pub(crate) fn query_value<'q>(name: &str, query: Option<&'q str>) -> Option<&'q str> {
    let mut pairs = query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

pub(crate) fn query(matcher: &QueryMatcher, query: Option<&str>) -> bool {
    let value = query_value(&matcher.name, query);
    match &matcher.kind {
        QueryMatch::Present(present) => *present == value.is_some(),
        QueryMatch::Text(text) => value.is_some_and(|value| text.fits(value.as_bytes())),
    }
}

/// The first value of a cookie, without quotes.
pub(crate) fn cookie_value<'h>(name: &str, headers: &'h HeaderMap) -> Option<&'h str> {
    let crumbs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = crumbs.flat_map(|value| value.split(';')).filter_map(|crumb| crumb.trim_start().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let value = value.trim_end();
    Some(value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value))
}

pub(super) fn cookie(name: &str, matcher: &StringMatcher, invert: bool, head: &Head) -> bool {
    match cookie_value(name, &head.headers) {
        Some(value) => matcher.fits(value.as_bytes()) != invert,
        None => invert,
    }
}
