//! The head of a response.
//!
//! Owns the status line and the rules by which the body of a response ends, which depend on what was asked.

use crate::{
    Framing, Names, Refusal, Rules, Spelled, Version, Wishes,
    fields::{self, Fields},
    request,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use memchr::memchr;

/// A response's head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// Version.
    pub version: Version,
    /// Status.
    pub status: StatusCode,
    /// Fields, in order.
    pub headers: HeaderMap,
    /// How the body ends.
    pub framing: Framing,
    /// What is said of the connection.
    pub wishes: Wishes,
    /// How names were spelled, where that is kept.
    pub spelled: Option<Spelled>,
}

/// Reads a complete head, as [`Scanner`](crate::Scanner) found it; `to_head`: it answers a HEAD request.
///
/// # Errors
/// When it is not what RFC 9112 says, or more than `rules` allow.
pub fn parse_response(bytes: &Bytes, rules: &Rules, names: &mut Names, to_head: bool) -> Result<ResponseHead, Refusal> {
    let end = memchr(b'\n', bytes).ok_or(Refusal::Malformed("no status line"))?;
    let (version, status) = status_line(&bytes[..end.saturating_sub(1)])?;
    let mut fields = fields::read(bytes, end + 1, false, rules, names)?;
    let spelled = fields::spelled(bytes, end + 1, rules);
    let framing = framing(&mut fields, version, status, to_head)?;
    let wishes = fields.wishes();
    Ok(ResponseHead { version, status, headers: fields.headers, framing, wishes, spelled })
}

/// `VERSION SP STATUS [SP REASON]`
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), Refusal> {
    let bad = Refusal::Malformed("status line");
    let (version, rest) = line.split_at_checked(8).ok_or(bad)?;
    let version = request::read_version(version).ok_or(bad)??;
    let [b' ', code @ ..] = rest else { return Err(bad) };
    let (code, reason) = code.split_at_checked(3).ok_or(bad)?;
    if !(reason.is_empty() || reason.first() == Some(&b' '))
        || reason.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f)
    {
        return Err(bad);
    }
    if !matches!(code, [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return Err(Refusal::Malformed("status"));
    }
    Ok((version, StatusCode::from_bytes(code).map_err(|_| bad)?))
}

fn framing(fields: &mut Fields, version: Version, status: StatusCode, to_head: bool) -> Result<Framing, Refusal> {
    let stated = fields.framing(version, false)?;
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        match stated {
            None => {}
            // Harmless, and of no use to anybody.
            Some(Framing::Length(0)) => {
                fields.headers.remove(header::CONTENT_LENGTH);
            }
            Some(_) => return Err(Refusal::Malformed("a body where none can be")),
        }
        return Ok(Framing::None);
    }
    if to_head || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::None);
    }
    Ok(match stated {
        Some(Framing::Length(0)) => Framing::None,
        Some(stated) => stated,
        None => Framing::UntilClose,
    })
}
