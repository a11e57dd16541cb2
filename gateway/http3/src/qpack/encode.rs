//! Writing field sections: the static table where it fits, plain literals elsewhere.
//!
//! Texts are not Huffman coded: what that saves in bytes it costs in cycles, and a head fits a packet either way.

use super::{
    integer,
    table::{Name, TABLE, find},
};
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// Indexes of `:authority` and `:path`, whose values are always written.
const AUTHORITY: u64 = 0;
const PATH: u64 = 1;
const METHOD: u64 = 15;
const SCHEME: u64 = 22;
const STATUS: u64 = 24;

/// Writes a request's head. Without scheme and path for a plain CONNECT.
pub fn request(
    method: &Method,
    scheme: Option<&str>,
    authority: &str,
    path: Option<&str>,
    protocol: Option<&str>,
    headers: &HeaderMap,
    out: &mut BytesMut,
) {
    out.put_slice(&[0, 0]);
    let known = match *method {
        Method::CONNECT => Some(15),
        Method::DELETE => Some(16),
        Method::GET => Some(17),
        Method::HEAD => Some(18),
        Method::OPTIONS => Some(19),
        Method::POST => Some(20),
        Method::PUT => Some(21),
        _ => None,
    };
    match known {
        Some(index) => indexed(index, out),
        None => named(METHOD, method.as_str().as_bytes(), false, out),
    }
    match scheme {
        Some("http") => indexed(22, out),
        Some("https") => indexed(23, out),
        Some(other) => named(SCHEME, other.as_bytes(), false, out),
        None => {}
    }
    if !authority.is_empty() {
        named(AUTHORITY, authority.as_bytes(), false, out);
    }
    match path {
        Some("/") => indexed(1, out),
        Some(path) => named(PATH, path.as_bytes(), false, out),
        None => {}
    }
    if let Some(protocol) = protocol {
        literal(b":protocol", protocol.as_bytes(), false, out);
    }
    fields(headers, out);
}

/// Writes a response's head.
pub fn response(status: StatusCode, headers: &HeaderMap, out: &mut BytesMut) {
    out.put_slice(&[0, 0]);
    let known = match status.as_u16() {
        103 => Some(24),
        200 => Some(25),
        304 => Some(26),
        404 => Some(27),
        503 => Some(28),
        100 => Some(63),
        204 => Some(64),
        206 => Some(65),
        302 => Some(66),
        400 => Some(67),
        403 => Some(68),
        421 => Some(69),
        425 => Some(70),
        500 => Some(71),
        _ => None,
    };
    match known {
        Some(index) => indexed(index, out),
        None => named(STATUS, status.as_str().as_bytes(), false, out),
    }
    fields(headers, out);
}

/// Writes trailers.
pub fn trailers(headers: &HeaderMap, out: &mut BytesMut) {
    out.put_slice(&[0, 0]);
    fields(headers, out);
}

fn fields(headers: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in headers {
        field(name, value, out);
    }
}

fn field(name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
    let Some(first) = find(name.as_str()) else {
        return literal(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive(), out);
    };
    let same = TABLE.iter().enumerate().skip(first).take_while(|(_, (n, _))| matches!(n, Name::Header(n) if n == name));
    let exact = same.into_iter().find(|(_, (_, text))| text.as_bytes() == value.as_bytes());
    match exact {
        Some((index, _)) if !value.is_sensitive() => indexed(index as u64, out),
        _ => named(first as u64, value.as_bytes(), value.is_sensitive(), out),
    }
}

fn indexed(index: u64, out: &mut BytesMut) {
    integer::write(index, 6, 0xc0, out);
}

fn named(index: u64, value: &[u8], sensitive: bool, out: &mut BytesMut) {
    integer::write(index, 4, if sensitive { 0x70 } else { 0x50 }, out);
    integer::write(value.len() as u64, 7, 0, out);
    out.put_slice(value);
}

fn literal(name: &[u8], value: &[u8], sensitive: bool, out: &mut BytesMut) {
    integer::write(name.len() as u64, 3, if sensitive { 0x30 } else { 0x20 }, out);
    out.put_slice(name);
    integer::write(value.len() as u64, 7, 0, out);
    out.put_slice(value);
}
