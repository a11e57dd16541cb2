//! Message heads: which fields there must be, which there may not be, and what they mean.
//!
//! Owns the rules of RFC 9114, section 4. What breaks them is malformed and ends the request; nothing is repaired.

use crate::{
    code::Violation,
    qpack::{self, Field, Pseudo},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// A request's head.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// `:method`
    pub method: Method,
    /// `:scheme` is `https`; `None` for a plain CONNECT.
    pub https: Option<bool>,
    /// `:authority`, or `host` where that is absent; may be empty.
    pub authority: Bytes,
    /// `:path`; `None` for a plain CONNECT.
    pub path: Option<Bytes>,
    /// `:protocol` of an extended CONNECT.
    pub protocol: Option<Bytes>,
    /// Everything else; `host` is not among it, and cookies are one field.
    pub headers: HeaderMap,
    /// The length that the body must have.
    pub content_length: Option<u64>,
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// `:status`
    pub status: StatusCode,
    /// Everything else.
    pub headers: HeaderMap,
    /// The length that the body must have, unless there is none.
    pub content_length: Option<u64>,
}

/// Fields as they come, with the rules that concern every kind of section.
#[derive(Default)]
struct Collected {
    pseudo: [Option<Bytes>; 6],
    headers: HeaderMap,
    content_length: Option<u64>,
    cookies: Option<BytesMut>,
    regular: bool,
}

impl Collected {
    fn read(section: Bytes, most: usize) -> Result<Self, Violation> {
        let mut all = Self::default();
        qpack::decode(section, most, |field| match field {
            Field::Pseudo(name, value) => all.pseudo(name, value),
            Field::Header(name, value) => all.header(name, value),
        })?;
        if let Some(cookies) = all.cookies.take() {
            let whole = HeaderValue::from_maybe_shared(cookies.freeze());
            all.headers.insert(header::COOKIE, whole.map_err(|_| Violation::message("a cookie is not allowed"))?);
        }
        Ok(all)
    }

    fn pseudo(&mut self, name: Pseudo, value: Bytes) -> Result<(), Violation> {
        if self.regular {
            return Err(Violation::message("a pseudo-header field after others"));
        }
        match self.pseudo.get_mut(name as usize) {
            Some(place @ None) => *place = Some(value),
            _ => return Err(Violation::message("a pseudo-header field is there twice")),
        }
        Ok(())
    }

    fn header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Violation> {
        self.regular = true;
        if name == header::COOKIE {
            return self.cookie(&value);
        }
        if name == header::CONTENT_LENGTH {
            let length = length(&value).ok_or(Violation::message("content-length is no number"))?;
            if self.content_length.replace(length).is_some() {
                return Err(Violation::message("content-length is there twice"));
            }
        } else if is_of_connection(&name) {
            return Err(Violation::message("a field that concerns a connection"));
        } else if name == header::TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
            return Err(Violation::message("te is something else than trailers"));
        }
        self.headers.append(name, value);
        Ok(())
    }

    /// A cookie may come in pieces, which are one field for everybody behind us.
    fn cookie(&mut self, value: &HeaderValue) -> Result<(), Violation> {
        match &mut self.cookies {
            None => self.cookies = Some(BytesMut::from(value.as_bytes())),
            Some(before) => {
                before.put_slice(b"; ");
                before.put_slice(value.as_bytes());
            }
        }
        Ok(())
    }

    fn take(&mut self, name: Pseudo) -> Option<Bytes> {
        self.pseudo.get_mut(name as usize).and_then(Option::take)
    }

    fn has(&self, name: Pseudo) -> bool {
        self.pseudo.get(name as usize).is_some_and(Option::is_some)
    }
}

fn is_of_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn length(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Reads a request's head.
///
/// # Errors
/// The rule that it breaks.
pub fn request(section: Bytes, most: usize) -> Result<RequestHead, Violation> {
    let mut all = Collected::read(section, most)?;
    if all.has(Pseudo::Status) {
        return Err(Violation::message("a request with a status"));
    }
    let method = all.take(Pseudo::Method).ok_or(Violation::message("there is no method"))?;
    let method = Method::from_bytes(&method).map_err(|_| Violation::message("the method is not allowed"))?;
    let authority = authority(&mut all)?;
    let (scheme, path, protocol) = (all.take(Pseudo::Scheme), all.take(Pseudo::Path), all.take(Pseudo::Protocol));
    if protocol.is_some() && method != Method::CONNECT {
        return Err(Violation::message(":protocol without CONNECT"));
    }
    if protocol.as_ref().is_some_and(|p| HeaderName::from_bytes(p).is_err()) {
        return Err(Violation::message("the protocol is not allowed"));
    }
    let (https, path) = if method == Method::CONNECT && protocol.is_none() {
        if scheme.is_some() || path.is_some() {
            return Err(Violation::message("CONNECT with a scheme or path"));
        }
        if authority.is_empty() {
            return Err(Violation::message("CONNECT to nowhere"));
        }
        (None, None)
    } else {
        (Some(is_https(scheme)?), Some(checked_path(path, &method)?))
    };
    let Collected { headers, content_length, .. } = all;
    Ok(RequestHead { method, https, authority, path, protocol, headers, content_length })
}

fn is_https(scheme: Option<Bytes>) -> Result<bool, Violation> {
    let scheme = scheme.ok_or(Violation::message("there is no scheme"))?;
    if scheme.eq_ignore_ascii_case(b"https") {
        Ok(true)
    } else if scheme.eq_ignore_ascii_case(b"http") {
        Ok(false)
    } else {
        Err(Violation::message("the scheme is not served"))
    }
}

fn checked_path(path: Option<Bytes>, method: &Method) -> Result<Bytes, Violation> {
    let path = path.ok_or(Violation::message("there is no path"))?;
    let begins = path.first() == Some(&b'/') || (*method == Method::OPTIONS && &path[..] == b"*");
    if !begins || path.iter().any(|byte| !byte.is_ascii_graphic()) {
        return Err(Violation::message("the path is not allowed"));
    }
    Ok(path)
}

/// `:authority`, or `host`; both only when they are equal.
fn authority(all: &mut Collected) -> Result<Bytes, Violation> {
    let named = all.take(Pseudo::Authority);
    let mut hosts = all.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|value| Bytes::copy_from_slice(value.as_bytes()));
    if hosts.next().is_some() {
        return Err(Violation::message("host is there twice"));
    }
    all.headers.remove(header::HOST);
    let authority = match (named, host) {
        (Some(named), Some(host)) if !named.eq_ignore_ascii_case(&host) => {
            return Err(Violation::message("host and :authority differ"));
        }
        (Some(named), _) => named,
        (None, Some(host)) => host,
        (None, None) => Bytes::new(),
    };
    if authority.iter().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'@' | b'/' | b'?' | b'#' | b'\\')) {
        return Err(Violation::message("the authority is not allowed"));
    }
    Ok(authority)
}

/// Reads a response's head.
///
/// # Errors
/// The rule that it breaks.
pub fn response(section: Bytes, most: usize) -> Result<ResponseHead, Violation> {
    let mut all = Collected::read(section, most)?;
    let status = all.take(Pseudo::Status).ok_or(Violation::message("there is no status"))?;
    if all.pseudo.iter().any(Option::is_some) {
        return Err(Violation::message("a response with a field of requests"));
    }
    let status = StatusCode::from_bytes(&status).map_err(|_| Violation::message("the status is no status"))?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Violation::message("101 does not exist in HTTP/3"));
    }
    let Collected { headers, content_length, .. } = all;
    Ok(ResponseHead { status, headers, content_length })
}

/// Reads trailers.
///
/// # Errors
/// The rule that they break.
pub fn trailers(section: Bytes, most: usize) -> Result<HeaderMap, Violation> {
    let all = Collected::read(section, most)?;
    if all.pseudo.iter().any(Option::is_some) {
        return Err(Violation::message("a pseudo-header field in trailers"));
    }
    Ok(all.headers)
}

#[cfg(test)]
mod tests;
