//! Owns the operators that read the target of a request: path, query, and the name of the server that is meant.

use super::operator::{Found, Operator, bytes};
use crate::{
    format::Facts,
    head::{Head, split_query},
    names,
};
use http::HeaderName;

/// Which path, with its query or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    query: bool,
    from: From,
}

/// Where a path or host is taken from: the header that keeps the one before a rewrite, the request, or the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Original,
    Request,
    Either,
}

/// When the host stands for the name of the TLS hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerName {
    Only,
    First,
    HostFirst,
}

pub(super) fn server_name(argument: &str) -> Result<Operator, String> {
    let (which, from) = argument.split_once(':').unwrap_or((argument, ""));
    let bad = || format!("%REQUESTED_SERVER_NAME({argument})% is not possible");
    let which = match which {
        "" | "SNI_ONLY" => ServerName::Only,
        "SNI_FIRST" => ServerName::First,
        "HOST_FIRST" => ServerName::HostFirst,
        _ => return Err(bad()),
    };
    Ok(Operator::ServerName(which, From::parse(from, "HOST").ok_or_else(bad)?))
}

impl Shown {
    pub(super) fn parse(argument: &str) -> Result<Self, String> {
        let (query, from) = argument.split_once(':').unwrap_or((argument, ""));
        let bad = || format!("%PATH({argument})% is not possible");
        let query = match query {
            "" | "WQ" => true,
            "NQ" => false,
            _ => return Err(bad()),
        };
        Ok(Self { query, from: From::parse(from, "PATH").ok_or_else(bad)? })
    }

    pub(super) fn find<'a>(self, facts: &Facts<'a>) -> Found<'a> {
        let Some(head) = facts.head else { return Found::Nothing };
        let found = self.from.find(head, &names::X_ENVOY_ORIGINAL_PATH, head.path.as_bytes());
        let end = if self.query { None } else { found.iter().position(|byte| *byte == b'?') };
        text_or_nothing(end.map_or(found, |end| &found[..end]))
    }
}

impl From {
    /// `word` is what the request's own is called.
    fn parse(text: &str, word: &str) -> Option<Self> {
        match text {
            "" => Some(Self::Either),
            "ORIG" => Some(Self::Original),
            own if own == word => Some(Self::Request),
            either => either.strip_prefix("ORIG_OR_").filter(|own| *own == word).map(|_| Self::Either),
        }
    }

    fn find<'a>(self, head: &'a Head, original: &HeaderName, request: &'a [u8]) -> &'a [u8] {
        let kept = || head.headers.get(original).map(http::HeaderValue::as_bytes);
        match self {
            Self::Original => kept().unwrap_or_default(),
            Self::Request => request,
            Self::Either => kept().unwrap_or(request),
        }
    }
}

impl ServerName {
    pub(super) fn find<'a>(self, from: From, facts: &Facts<'a>) -> Found<'a> {
        let sni = facts.conn.map_or("", |conn| &conn.sni).as_bytes();
        let host = |head: &'a Head| from.find(head, &names::X_ENVOY_ORIGINAL_HOST, head.authority.as_bytes());
        let host = || facts.head.map(host).unwrap_or_default();
        text_or_nothing(match self {
            Self::Only => sni,
            Self::First if !sni.is_empty() => sni,
            Self::First => host(),
            Self::HostFirst => Some(host()).filter(|host| !host.is_empty()).unwrap_or(sni),
        })
    }
}

/// The whole query.
pub(super) fn queries(path: &str, decoded: bool) -> Found<'_> {
    let query = split_query(path).1.unwrap_or_default();
    if !decoded || !query.contains('%') {
        return bytes(query);
    }
    let mut plain = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(16 * high + low).ok())) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    Found::Owned(String::from_utf8_lossy(&plain).into_owned())
}

fn text_or_nothing(text: &[u8]) -> Found<'_> {
    if text.is_empty() { Found::Nothing } else { Found::Bytes(text) }
}

/// One member of the query.
pub(super) fn query<'a>(path: &'a str, name: &str) -> Found<'a> {
    let pairs = split_query(path).1.unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    values.next().map_or(Found::Nothing, |value| Found::Bytes(value.as_bytes()))
}
