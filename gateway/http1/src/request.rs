//! The head of a request.
//!
//! Owns the request line and what follows for the framing of the body.

use crate::{
    Framing, Names, Refusal, Rules, Spelled, Target, Version, Wishes,
    fields::{self, Fields},
    target,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use memchr::memchr;

/// Methods that a client may use unless any may be: those that are registered and older friends.
const METHODS: [&str; 34] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// A request's head.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// What is asked for.
    pub target: Target,
    /// The `host` field, if there is one. It is not among the headers.
    pub host: Option<HeaderValue>,
    /// Version.
    pub version: Version,
    /// All other fields, in order.
    pub headers: HeaderMap,
    /// How the body ends.
    pub framing: Framing,
    /// What is said of the connection.
    pub wishes: Wishes,
    /// How names were spelled, where that is kept.
    pub spelled: Option<Spelled>,
}

/// Reads a complete head, as [`Scanner`](crate::Scanner) found it; `bytes` are the head and nothing else.
///
/// # Errors
/// When it is not what RFC 9112 says, or more than `rules` allow.
pub fn parse_request(bytes: &Bytes, rules: &Rules, names: &mut Names) -> Result<RequestHead, Refusal> {
    let end = memchr(b'\n', bytes).ok_or(Refusal::Malformed("no request line"))?;
    let line = &bytes[..end.saturating_sub(1)];
    let (method, raw, version) = request_line(line)?;
    let method = read_method(method, rules)?;
    if version == Version::Http10 && !rules.http_10 {
        return Err(Refusal::Version);
    }
    let target = target::read(&method, &bytes.slice_ref(raw), rules)?;
    let mut fields = fields::read(bytes, end + 1, true, rules, names)?;
    let spelled = fields::spelled(bytes, end + 1, rules);
    if fields.host.as_ref().is_some_and(|host| !host.as_bytes().iter().all(|b| target::is_authority(*b))) {
        return Err(Refusal::Malformed("host"));
    }
    let framing = fields.framing(version, rules.chunked_length)?.unwrap_or(Framing::None);
    let framing = if framing == Framing::Length(0) { Framing::None } else { framing };
    let wishes = fields.wishes();
    let Fields { headers, host, .. } = fields;
    Ok(RequestHead { method, target, host, version, headers, framing, wishes, spelled })
}

/// `METHOD SP TARGET SP VERSION`, with single spaces.
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), Refusal> {
    let bad = Refusal::Malformed("request line");
    let first = memchr(b' ', line).ok_or(bad)?;
    let (method, rest) = (&line[..first], &line[first + 1..]);
    let Some(second) = memchr(b' ', rest) else {
        // HTTP/0.9 knew no version. Anything but a space between the words is none of its requests.
        let words = [method, rest].iter().all(|w| !w.is_empty() && w.iter().all(|b| (0x21..0x7f).contains(b)));
        return Err(if words { Refusal::Version } else { bad });
    };
    let (target, version) = (&rest[..second], &rest[second + 1..]);
    if method.is_empty() || target.is_empty() {
        return Err(bad);
    }
    Ok((method, target, read_version(version).ok_or(bad)??))
}

/// `None`: no version at all.
pub(crate) fn read_version(text: &[u8]) -> Option<Result<Version, Refusal>> {
    match text {
        b"HTTP/1.1" => Some(Ok(Version::Http11)),
        b"HTTP/1.0" => Some(Ok(Version::Http10)),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Some(Err(Refusal::Version)),
        _ => None,
    }
}

fn read_method(raw: &[u8], rules: &Rules) -> Result<Method, Refusal> {
    match raw {
        b"GET" => return Ok(Method::GET),
        b"POST" => return Ok(Method::POST),
        _ => {}
    }
    let method = Method::from_bytes(raw).map_err(|_| Refusal::Malformed("method"))?;
    if !rules.any_method && METHODS.binary_search(&method.as_str()).is_err() {
        return Err(Refusal::Malformed("unknown method"));
    }
    Ok(method)
}
