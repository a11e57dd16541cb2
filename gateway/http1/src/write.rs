//! Writing heads and chunks.
//!
//! Owns the form: lower-case names, one space after the colon, no reason beyond the registered one. The fields that frame
//! the body are written from the framing alone, whatever the headers say of it.

use crate::{Framing, Version};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};

/// How names are spelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Case {
    /// As they are: lower case.
    #[default]
    Lower,
    /// `Proper-Case`.
    Proper,
}

/// The last chunk, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The parts of a request line and the host.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// Method.
    pub method: &'a str,
    /// Target, as it is to be sent.
    pub target: &'a str,
    /// Host; empty: no such field.
    pub host: &'a str,
    /// What the connection is to be upgraded to; empty: nothing. The `connection` field that says so is added where it lacks.
    pub upgrade: &'a str,
    /// Names that are spelled otherwise than `Case` says.
    pub spelled: &'a [(HeaderName, Bytes)],
}

/// Appends a request's head. `framing`: what is said of the body; `Length(0)` is said, `None` says nothing. Fields that
/// frame are not taken from `headers`.
pub fn request_head(line: RequestLine<'_>, headers: &HeaderMap, framing: Framing, case: Case, out: &mut Vec<u8>) {
    let how = Spelling { case, spelled: line.spelled };
    out.extend_from_slice(line.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(line.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !line.host.is_empty() {
        name("host", how, out);
        out.extend_from_slice(line.host.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if !line.upgrade.is_empty() {
        if !headers.contains_key(header::CONNECTION) {
            name("connection", how, out);
            out.extend_from_slice(b"upgrade\r\n");
        }
        name("upgrade", how, out);
        out.extend_from_slice(line.upgrade.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    write_fields(headers, how, out);
    frame(framing, how, out);
    out.extend_from_slice(b"\r\n");
}

/// Fields of a response that its headers lack.
#[derive(Debug, Clone, Copy, Default)]
pub struct More<'a> {
    /// `connection`.
    pub connection: Option<&'a str>,
    /// `date`; empty: none.
    pub date: &'a [u8],
    /// Names that are spelled otherwise than `Case` says.
    pub spelled: &'a [(HeaderName, Bytes)],
}

/// Appends a response's head; `framing` as in [`request_head`].
pub fn response_head(
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    more: More<'_>,
    case: Case,
    out: &mut Vec<u8>,
) {
    let how = Spelling { case, spelled: more.spelled };
    out.extend_from_slice(match version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
    write_fields(headers, how, out);
    if !more.date.is_empty() {
        name("date", how, out);
        out.extend_from_slice(more.date);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(connection) = more.connection {
        name("connection", how, out);
        out.extend_from_slice(connection.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    frame(framing, how, out);
    out.extend_from_slice(b"\r\n");
}

fn write_fields(headers: &HeaderMap, how: Spelling<'_>, out: &mut Vec<u8>) {
    for (key, value) in headers {
        if *key == header::CONTENT_LENGTH || *key == header::TRANSFER_ENCODING {
            continue;
        }
        name(key.as_str(), how, out);
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// How names are written.
#[derive(Clone, Copy)]
struct Spelling<'a> {
    case: Case,
    spelled: &'a [(HeaderName, Bytes)],
}

fn name(text: &str, how: Spelling<'_>, out: &mut Vec<u8>) {
    if let Some((_, spelled)) = how.spelled.iter().find(|(name, _)| name.as_str() == text) {
        out.extend_from_slice(spelled);
        out.extend_from_slice(b": ");
        return;
    }
    match how.case {
        Case::Lower => out.extend_from_slice(text.as_bytes()),
        Case::Proper => {
            let mut first = true;
            for byte in text.bytes() {
                out.push(if first { byte.to_ascii_uppercase() } else { byte });
                first = byte == b'-';
            }
        }
    }
    out.extend_from_slice(b": ");
}

fn frame(framing: Framing, how: Spelling<'_>, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            name("content-length", how, out);
            decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => {
            name("transfer-encoding", how, out);
            out.extend_from_slice(b"chunked\r\n");
        }
    }
}

fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// The line before a chunk's data, which are followed by CR LF.
pub type Chunk = ([u8; 18], usize);

/// The line that begins a chunk of `length` bytes, and the line's own length. Zero would end the body: never ask for it.
#[must_use]
pub fn chunk_start(length: usize) -> Chunk {
    let mut line = [0; 18];
    let digits = ((usize::BITS - length.leading_zeros()).div_ceil(4) as usize).max(1);
    for (at, place) in line.iter_mut().take(digits).enumerate() {
        let digit = (length >> (4 * (digits - 1 - at))) & 15;
        *place = b"0123456789abcdef"[digit];
    }
    line[digits] = b'\r';
    line[digits + 1] = b'\n';
    (line, digits + 2)
}

/// Appends the last chunk with trailers.
pub fn trailers(fields: &HeaderMap, case: Case, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    write_fields(fields, Spelling { case, spelled: &[] }, out);
    out.extend_from_slice(b"\r\n");
}
