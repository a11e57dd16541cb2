//! Heads of messages: what is collected from a header block, and whether it makes a message.
//!
//! Owns the rules of RFC 9113, section 8, for requests, responses and trailers, and the bounds on their size. Never repairs
//! anything.

use crate::field::{Class, Field};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// The head of a request. Texts are valid UTF-8.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Scheme as written; empty for plain CONNECT.
    pub scheme: Bytes,
    /// `:authority`, or the `host` header where that is missing.
    pub authority: Bytes,
    /// Path with query; empty for plain CONNECT.
    pub path: Bytes,
    /// `:protocol` of an extended CONNECT.
    pub protocol: Option<Bytes>,
    /// All other headers, without `host`.
    pub headers: HeaderMap,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
}

/// The first line of a request that is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// Method.
    pub method: &'a Method,
    /// Scheme; not written for plain CONNECT.
    pub scheme: &'a str,
    /// Authority; not written when empty.
    pub authority: &'a str,
    /// Path with query; not written for plain CONNECT.
    pub path: &'a str,
    /// Makes it an extended CONNECT.
    pub protocol: Option<&'a str>,
}

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Fields at most, pseudo headers among them.
    pub fields: usize,
    /// Bytes of names and values at most.
    pub bytes: usize,
}

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It breaks a rule.
    Malformed(&'static str),
    /// It has too many fields.
    TooMany,
    /// It has too many bytes.
    TooLarge,
}

/// What a header block is expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Request,
    Response,
    Trailers,
}

/// Takes the fields of one block.
pub(crate) struct Collector {
    part: Part,
    limits: HeadLimits,
    fields: usize,
    bytes: usize,
    flaw: Option<Flaw>,
    regular: bool,
    method: Option<Method>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<StatusCode>,
    host: Option<HeaderValue>,
    length: Option<u64>,
    headers: HeaderMap,
}

impl Collector {
    /// A collector for one block; `expected` headers find room without growing.
    pub(crate) fn new(part: Part, limits: HeadLimits, expected: usize) -> Self {
        Self {
            part,
            limits,
            fields: 0,
            bytes: 0,
            flaw: None,
            regular: false,
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            status: None,
            host: None,
            length: None,
            headers: HeaderMap::with_capacity(expected),
        }
    }

    /// Counts a field; false when it is not to be kept, because the head is refused anyway.
    fn count(&mut self, size: usize) -> bool {
        self.fields += 1;
        self.bytes += size.saturating_sub(32);
        if self.flaw.is_none() {
            if self.fields > self.limits.fields {
                self.flaw = Some(Flaw::TooMany);
            } else if self.bytes > self.limits.bytes {
                self.flaw = Some(Flaw::TooLarge);
            }
        }
        self.flaw.is_none()
    }

    /// Takes a field that a table keeps. `size` is its size as tables count it.
    pub(crate) fn take_shared(&mut self, field: &Field, size: usize) {
        if self.count(size) {
            self.keep(field.clone());
        }
    }

    /// Takes a field.
    pub(crate) fn take(&mut self, field: Field, size: usize) {
        if self.count(size) {
            self.keep(field);
        }
    }

    fn malformed(&mut self, reason: &'static str) {
        self.flaw = Some(Flaw::Malformed(reason));
    }

    fn keep(&mut self, field: Field) {
        match field {
            Field::Regular(name, value, class) => return self.regular(name, value, class),
            Field::Bad(_) => return self.malformed("http2.invalid.header.field"),
            _ if self.regular || self.part == Part::Trailers => return self.malformed("http2.invalid.header.field"),
            _ => {}
        }
        let request = self.part == Part::Request;
        let fresh = match field {
            Field::Method(method) if request => self.method.replace(method).is_none(),
            Field::Scheme(scheme) if request => self.scheme.replace(scheme).is_none(),
            Field::Authority(authority) if request => self.authority.replace(authority).is_none(),
            Field::Path(path) if request => self.path.replace(path).is_none(),
            Field::Protocol(protocol) if request => self.protocol.replace(protocol).is_none(),
            Field::Status(status) if self.part == Part::Response => self.status.replace(status).is_none(),
            _ => false,
        };
        if !fresh {
            self.malformed("http2.invalid.header.field");
        }
    }

    fn regular(&mut self, name: HeaderName, value: HeaderValue, class: Class) {
        self.regular = true;
        match class {
            Class::Plain | Class::Te => {}
            // Refused where it was read.
            Class::Connection => return self.malformed("http2.invalid.header.field"),
            Class::Length => match (decimal(value.as_bytes()), self.length) {
                (Some(length), None) => self.length = Some(length),
                _ => return self.malformed("http2.invalid.header.field"),
            },
            Class::Host if self.part == Part::Request => {
                if self.host.replace(value).is_some() {
                    self.malformed("http2.invalid.header.field");
                }
                return;
            }
            Class::Host => {}
        }
        if self.headers.try_append(name, value).is_err() {
            self.flaw = Some(Flaw::TooMany);
        }
    }

    /// The head of a request and its `content-length`.
    pub(crate) fn request(self, extended: bool) -> Result<(RequestHead, Option<u64>), Flaw> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        let wrong = Flaw::Malformed("http2.violation.of.messaging.rule");
        let method = self.method.ok_or(wrong)?;
        let host = self.host.map(|host| Bytes::copy_from_slice(host.as_bytes()));
        let authority = self.authority.or(host).ok_or(wrong)?;
        let (scheme, path) = match (&method, &self.protocol) {
            (&Method::CONNECT, None) if self.scheme.is_none() && self.path.is_none() => (Bytes::new(), Bytes::new()),
            (&Method::CONNECT, Some(protocol)) if extended && is_token(protocol) => {
                (self.scheme.ok_or(wrong)?, self.path.ok_or(wrong)?)
            }
            // Without the setting there is no such field.
            (&Method::CONNECT, Some(_)) if !extended => return Err(Flaw::Malformed("http2.invalid.header.field")),
            (&Method::CONNECT, _) | (_, Some(_)) => return Err(wrong),
            _ => (self.scheme.ok_or(wrong)?, self.path.ok_or(wrong)?),
        };
        let plain_connect = method == Method::CONNECT && self.protocol.is_none();
        let fine = is_authority(&authority) && (plain_connect || (is_scheme(&scheme) && is_path(&path, &method)));
        if !fine {
            return Err(Flaw::Malformed("http2.invalid.header.field"));
        }
        let head = RequestHead { method, scheme, authority, path, protocol: self.protocol, headers: self.headers };
        Ok((head, self.length))
    }

    /// The head of a response and its `content-length`.
    pub(crate) fn response(self) -> Result<(ResponseHead, Option<u64>), Flaw> {
        match (self.flaw, self.status) {
            (Some(flaw), _) => Err(flaw),
            (None, Some(status)) if status != StatusCode::SWITCHING_PROTOCOLS => {
                Ok((ResponseHead { status, headers: self.headers }, self.length))
            }
            _ => Err(Flaw::Malformed("http2.violation.of.messaging.rule")),
        }
    }

    /// Trailers.
    pub(crate) fn trailers(mut self) -> Result<HeaderMap, Flaw> {
        match self.flaw {
            Some(flaw) => Err(flaw),
            None => {
                // Framing is over: whatever they say of it now is not for anyone further on.
                self.headers.remove(header::CONTENT_LENGTH);
                Ok(self.headers)
            }
        }
    }

    /// Fields seen so far.
    pub(crate) fn seen(&self) -> usize {
        self.fields
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn is_token(text: &[u8]) -> bool {
    HeaderName::from_bytes(text).is_ok()
}

fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Host and port; no user, as RFC 9113, section 8.3.1 forbids it.
fn is_authority(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| AUTHORITY.get(usize::from(*b)).is_some_and(|fine| *fine))
}

const AUTHORITY: [bool; 256] = {
    let mut fine = [false; 256];
    let mut at = 0;
    let marks = b"-._~!$&'()*+,;=:[]%";
    while at < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "below 256")]
        let byte = at as u8;
        let mut mark = 0;
        fine[at] = byte.is_ascii_alphanumeric();
        while mark < marks.len() {
            fine[at] = fine[at] || marks[mark] == byte;
            mark += 1;
        }
        at += 1;
    }
    fine
};

fn is_path(text: &[u8], method: &Method) -> bool {
    let begins = text.first() == Some(&b'/') || (text == b"*" && *method == Method::OPTIONS);
    begins && text.iter().all(|b| *b > b' ' && *b != 0x7f) && std::str::from_utf8(text).is_ok()
}

#[cfg(test)]
mod tests;
