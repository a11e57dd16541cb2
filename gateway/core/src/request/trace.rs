//! Whether a request is traced, as its id says it: one digit of the UUID that means nothing else.
//!
//! Only the decision: contexts that clients send (`traceparent`, `tracestate`, `b3`, `x-b3-*`) are headers like all others and pass
//! unchanged.

use crate::{
    config::{RequestId, Sampling},
    head::Head,
    names,
    time::Random,
};
use http::{HeaderMap, HeaderValue};

/// Where the reason stands in the text of a UUID.
const PLACE: usize = 14;
const LENGTH: usize = 36;

/// Why a request is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is not.
    None,
    /// It was drawn.
    Sampled,
    /// A trusted service asks (`x-envoy-force-trace`).
    Forced,
    /// The client asks (`x-client-trace-id`).
    Client,
}

impl Reason {
    const fn digit(self) -> u8 {
        match self {
            Self::None => b'4',
            Self::Sampled => b'9',
            Self::Forced => b'a',
            Self::Client => b'b',
        }
    }

    const fn of(digit: u8) -> Self {
        match digit {
            b'9' => Self::Sampled,
            b'a' => Self::Forced,
            b'b' => Self::Client,
            _ => Self::None,
        }
    }
}

fn id(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(names::X_REQUEST_ID).map(HeaderValue::as_bytes).filter(|id| id.len() == LENGTH)
}

/// Writes the reason into the id; one that is no UUID stays as it is.
pub(super) fn write(headers: &mut HeaderMap, reason: Reason) {
    let Some(before) = id(headers) else { return };
    if before[PLACE] == reason.digit() {
        return;
    }
    let mut text = before.to_vec();
    text[PLACE] = reason.digit();
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        headers.insert(names::X_REQUEST_ID, value);
    }
}

/// Whether the id says that the request is traced.
#[must_use]
pub fn is_traced(head: &Head) -> bool {
    id(&head.headers).is_some_and(|id| Reason::of(id[PLACE]) != Reason::None)
}

/// Decides, unless the id says it already, and writes it down.
pub(super) fn sample(sampling: Sampling, settings: &RequestId, headers: &mut HeaderMap, random: &mut Random) {
    if !settings.samples {
        return;
    }
    // All proxies on the way draw the same number: it is the id's first half word.
    let Some(drawn) = id(headers).and_then(|id| u64::from_str_radix(std::str::from_utf8(&id[..8]).ok()?, 16).ok())
    else {
        return;
    };
    let drawn = u32::try_from(drawn % 10_000).unwrap_or_default();
    let mut reason = id(headers).map_or(Reason::None, |id| Reason::of(id[PLACE]));
    if reason == Reason::None {
        let asked = headers.contains_key(names::X_CLIENT_TRACE_ID);
        reason = if asked && random.below(10_000) < u64::from(sampling.client) {
            Reason::Client
        } else if headers.contains_key(names::X_ENVOY_FORCE_TRACE) {
            Reason::Forced
        } else if drawn < sampling.random {
            Reason::Sampled
        } else {
            Reason::None
        };
    }
    if drawn >= sampling.overall {
        reason = Reason::None;
    }
    if settings.pack_trace_reason {
        write(headers, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Sampling = Sampling { client: 10_000, random: 10_000, overall: 10_000 };
    const SETTINGS: RequestId = RequestId {
        generate: true,
        preserve_external: false,
        in_response: false,
        pack_trace_reason: true,
        samples: true,
    };

    fn check(sampling: Sampling, given: &[(&'static str, &str)], digit: char) {
        let mut headers = HeaderMap::new();
        headers.insert(names::X_REQUEST_ID, HeaderValue::from_static("00000007-aaaa-4bbb-8ccc-000000000000"));
        for (name, value) in given {
            headers.insert(*name, value.parse().unwrap());
        }
        sample(sampling, &SETTINGS, &mut headers, &mut Random::new(1));
        let id = headers[names::X_REQUEST_ID].to_str().unwrap();
        assert_eq!(id.chars().nth(PLACE), Some(digit), "{given:?} {id}");
    }

    #[test]
    fn the_reason_is_written_into_the_id() {
        check(ALL, &[], '9');
        check(Sampling { random: 7, ..ALL }, &[], '4');
        check(Sampling { random: 8, ..ALL }, &[], '9');
        check(Sampling { random: 0, ..ALL }, &[("x-envoy-force-trace", "1")], 'a');
        check(ALL, &[("x-client-trace-id", "1")], 'b');
        check(Sampling { overall: 0, ..ALL }, &[("x-client-trace-id", "1")], '4');
        check(Sampling { random: 0, ..ALL }, &[("x-request-id", "00000007-aaaa-9bbb-8ccc-000000000000")], '9');
    }

    #[test]
    fn other_ids_stay_as_they_are() {
        let mut headers = HeaderMap::new();
        headers.insert(names::X_REQUEST_ID, HeaderValue::from_static("mine"));
        sample(ALL, &SETTINGS, &mut headers, &mut Random::new(1));
        assert_eq!(headers[names::X_REQUEST_ID], "mine");
        assert!(!is_traced(&Head { headers, ..Head::default() }));
    }
}
