//! The fields of a head, and of trailers.
//!
//! Owns their grammar: one line each, no folding, no space before the colon, no control character in a value.

use crate::{Framing, Names, Refusal, Rules, Spelled, Version, Wishes};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use memchr::{memchr, memchr_iter};

/// Fields that a proxy adds to most messages.
const MORE: usize = 4;

/// Fields, and which of those that matter to this crate are among them: what was seen while they were read need not be looked up.
pub(crate) struct Fields {
    pub(crate) headers: HeaderMap,
    /// `connection`
    pub(crate) connection: bool,
    /// `content-length` or `transfer-encoding`
    pub(crate) framing: bool,
    /// `host`, where it was to be kept apart.
    pub(crate) host: Option<HeaderValue>,
}

/// Reads the fields that begin at `at` of a head that ends in an empty line. Lines are known to end in CR LF. `apart`: `host` is kept
/// apart, and may come once.
pub(crate) fn read(head: &Bytes, at: usize, apart: bool, rules: &Rules, names: &mut Names) -> Result<Fields, Refusal> {
    // One pass over the bytes for all line ends; their number is the map's size, which then neither grows nor is larger than it
    // needs to be.
    let mut ends = std::mem::take(&mut names.ends);
    ends.clear();
    let found = memchr_iter(b'\n', head.get(at..).unwrap_or_default()).map(|end| at + end);
    ends.extend(found.take(rules.max_fields + 1));
    let headers = HeaderMap::with_capacity(ends.len() + MORE);
    let fields = Fields { headers, connection: false, framing: false, host: None };
    let read = lines(head, at, &ends, fields, apart, rules, names);
    names.ends = ends;
    read
}

/// Reads the lines that end at `ends`, up to an empty one.
fn lines(
    head: &Bytes,
    mut at: usize,
    ends: &[usize],
    mut fields: Fields,
    apart: bool,
    rules: &Rules,
    names: &mut Names,
) -> Result<Fields, Refusal> {
    for (count, newline) in ends.iter().copied().enumerate() {
        let end = newline.saturating_sub(1);
        if end <= at {
            break;
        }
        if count >= rules.max_fields {
            return Err(Refusal::TooMany);
        }
        let line = head.get(at..end).unwrap_or_default();
        let colon = memchr(b':', line).ok_or(Refusal::Malformed("field without a colon"))?;
        let raw = &line[..colon];
        if rules.refuse_underscores && raw.contains(&b'_') {
            return Err(Refusal::Malformed("underscore in a name"));
        }
        let name = names.read(raw).ok_or(Refusal::Malformed("field name"))?;
        let (from, to) = trimmed(line, colon + 1);
        let value = HeaderValue::from_maybe_shared(head.slice(at + from..at + to))
            .map_err(|_| Refusal::Malformed("field value"))?;
        at = newline + 1;
        if apart && name == header::HOST {
            if fields.host.replace(value).is_some() {
                return Err(Refusal::Malformed("more than one host"));
            }
            continue;
        }
        fields.connection |= name == header::CONNECTION;
        fields.framing |= name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING;
        fields.headers.try_append(name, value).map_err(|_| Refusal::TooMany)?;
    }
    Ok(fields)
}

/// How the names of a head that was read were spelled, where that is asked for.
pub(crate) fn spelled(head: &Bytes, mut at: usize, rules: &Rules) -> Option<Spelled> {
    if !rules.spelling {
        return None;
    }
    let mut all: Vec<(HeaderName, Bytes)> = Vec::new();
    while let Some(length) = head.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let raw = head.slice(at..at + memchr(b':', &head[at..at + length]).unwrap_or(0));
        if raw.iter().any(u8::is_ascii_uppercase)
            && let Ok(name) = HeaderName::from_bytes(&raw)
            && all.iter().all(|(known, _)| *known != name)
        {
            all.push((name, raw));
        }
        at += length + 1;
    }
    (!all.is_empty()).then(|| all.into())
}

/// Where a value begins and ends without the blanks around it.
fn trimmed(line: &[u8], mut from: usize) -> (usize, usize) {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    while blank(line.get(from)) {
        from += 1;
    }
    let mut to = line.len();
    while to > from && blank(line.get(to - 1)) {
        to -= 1;
    }
    (from, to)
}

impl Fields {
    /// What they say of the connection.
    pub(crate) fn wishes(&self) -> Wishes {
        if self.connection { Wishes::of(&self.headers) } else { Wishes::default() }
    }

    /// What they say of the body's end; `None`: nothing.
    pub(crate) fn framing(&mut self, version: Version, both: bool) -> Result<Option<Framing>, Refusal> {
        if self.framing { framing(&mut self.headers, version, both) } else { Ok(None) }
    }
}

fn framing(headers: &mut HeaderMap, version: Version, both: bool) -> Result<Option<Framing>, Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::Coding);
        }
        if version == Version::Http10 {
            return Err(Refusal::Malformed("transfer coding in HTTP/1.0"));
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            if !both {
                return Err(Refusal::Malformed("length beside a transfer coding"));
            }
            headers.remove(header::CONTENT_LENGTH);
        }
        return Ok(Some(Framing::Chunked));
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(Refusal::Malformed("more than one length"));
    }
    let length = digits(length.as_bytes()).ok_or(Refusal::Malformed("length"))?;
    Ok(Some(Framing::Length(length)))
}

/// A number of decimal digits and nothing else.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|d| *d <= 9)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}
