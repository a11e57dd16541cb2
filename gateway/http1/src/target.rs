//! What a request line asks for.
//!
//! Owns the four forms of RFC 9112 section 3.2. Never normalises a path.

use crate::{Refusal, Rules};
use bytes::Bytes;
use http::Method;
use memchr::{memchr, memmem};

/// A target, in the form in which it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path with its query. Also what the rules leave as it is.
    Origin(Bytes),
    /// A URL: `host` counts instead of the field of that name; the path begins with a slash, or is `*`.
    Absolute {
        /// Host with port.
        authority: Bytes,
        /// Path with its query; empty for a URL without one.
        path: Bytes,
    },
    /// Host with port, for CONNECT.
    Authority(Bytes),
    /// `*`, for OPTIONS.
    Asterisk,
}

/// Whether a byte may stand in a host with a port.
pub(crate) fn is_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'['
                | b']'
        )
}

/// Reads a target.
pub(crate) fn read(method: &Method, raw: &Bytes, rules: &Rules) -> Result<Target, Refusal> {
    // Printable ASCII alone: what a path may hold beyond that must be escaped.
    if !raw.iter().all(|b| (0x21..0x7f).contains(b)) {
        return Err(Refusal::Malformed("target"));
    }
    if *method == Method::CONNECT {
        return connect(raw);
    }
    match raw.first() {
        Some(b'/') => Ok(Target::Origin(raw.clone())),
        Some(b'*') if raw.len() == 1 && *method == Method::OPTIONS => Ok(Target::Asterisk),
        _ => absolute(raw, rules),
    }
}

fn connect(raw: &Bytes) -> Result<Target, Refusal> {
    let bad = Refusal::Malformed("authority");
    let colon = raw.iter().rposition(|b| *b == b':').ok_or(bad)?;
    let port = std::str::from_utf8(&raw[colon + 1..]).ok().filter(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if colon == 0 || port.and_then(|p| p.parse::<u16>().ok()).is_none() || !raw.iter().all(|b| is_authority(*b)) {
        return Err(bad);
    }
    Ok(Target::Authority(raw.clone()))
}

fn absolute(raw: &Bytes, rules: &Rules) -> Result<Target, Refusal> {
    let bad = Refusal::Malformed("target");
    let at = memmem::find(raw, b"://").ok_or(bad)?;
    let scheme = &raw[..at];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(bad);
    }
    if !rules.absolute {
        return Ok(Target::Origin(raw.clone()));
    }
    let from = at + 3;
    let rest = &raw[from..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = raw.slice(from..from + end);
    if authority.is_empty() || authority.first() == Some(&b':') || !authority.iter().all(|b| is_authority(*b)) {
        return Err(Refusal::Malformed("authority"));
    }
    let path = raw.slice(from + end..);
    // A fragment is never sent.
    if memchr(b'#', &path) == Some(0) {
        return Err(bad);
    }
    Ok(Target::Absolute { authority, path })
}
