//! Between messages as codecs have them and the core's heads.
//!
//! Pure. Nothing is decided here: what a request means is the core's business.

use super::body::Body;
use crate::codec::Original;
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme as UriScheme},
};
use tombolo_gateway_core::head::{Head, Protocol, Scheme};

/// Reads a request's head. /// `asked` is the protocol of an extended CONNECT.
pub(crate) fn head(parts: Parts, scheme: Scheme, asked: Option<&str>) -> (Head, Original) {
    let Parts { method, uri, version, mut headers, .. } = parts;
    let host = headers.remove(header::HOST);
    let authority = match uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => host.as_ref().and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned(),
    };
    let protocol = match version {
        Version::HTTP_10 | Version::HTTP_09 => Protocol::Http10,
        Version::HTTP_2 => Protocol::Http2,
        Version::HTTP_3 => Protocol::Http3,
        _ => Protocol::Http11,
    };
    let upgrade = upgrade(&method, &headers, asked, protocol);
    let path = uri.path_and_query().cloned();
    let text = match &path {
        // CONNECT has a path only in its extended form.
        _ if method == Method::CONNECT && path.as_ref().is_none_or(|p| p.as_str().is_empty() || asked.is_none()) => {
            String::new()
        }
        Some(path) => path.as_str().to_owned(),
        None => "/".to_owned(),
    };
    let head = Head { method, scheme, authority, path: text, protocol, upgrade, headers };
    (head, Original { path })
}

/// What a request asks to be upgraded to; empty for nothing.
fn upgrade(method: &Method, headers: &HeaderMap, asked: Option<&str>, protocol: Protocol) -> String {
    if method == Method::CONNECT {
        return asked.unwrap_or("CONNECT").to_owned();
    }
    if !matches!(protocol, Protocol::Http11) {
        return String::new();
    }
    let Some(kind) = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()) else { return String::new() };
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let nominated = connection.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    if nominated { kind.to_owned() } else { String::new() }
}

/// The request for an HTTP/2 upstream; `None` when the head cannot be written (a path or host that is no URI).
pub(crate) fn request(
    head: &Head,
    original: Option<&Original>,
    headers: HeaderMap,
    body: Body,
) -> Option<Request<Body>> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = headers;
    *request.version_mut() = Version::HTTP_2;
    let mut parts = http::uri::Parts::default();
    if !(head.method == Method::CONNECT && head.path.is_empty()) {
        parts.scheme = Some(match head.scheme {
            Scheme::Http => UriScheme::HTTP,
            Scheme::Https => UriScheme::HTTPS,
        });
        parts.path_and_query = Some(path(head, original)?);
    }
    parts.authority = Some(authority(head)?);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(request)
}

fn path(head: &Head, original: Option<&Original>) -> Option<PathAndQuery> {
    if let Some(path) = original.and_then(|o| o.path.as_ref()).filter(|p| p.as_str() == head.path) {
        return Some(path.clone());
    }
    if head.path.is_empty() {
        return Some(PathAndQuery::from_static("/"));
    }
    PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(head.path.as_bytes())).ok()
}

fn authority(head: &Head) -> Option<Authority> {
    Authority::from_maybe_shared(Bytes::copy_from_slice(head.authority.as_bytes())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str, headers: &[(&str, &str)]) -> Head {
        let mut builder = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        head(builder.body(()).unwrap().into_parts().0, Scheme::Http, None).0
    }

    #[test]
    fn the_proxy_form_names_the_host() {
        let proxied = parse("GET", "http://reviews:9080/x?y", &[("host", "127.0.0.1:80")]);
        assert_eq!((proxied.authority.as_str(), proxied.path.as_str()), ("reviews:9080", "/x?y"));
        let bare = parse("GET", "http://reviews:9080", &[]);
        assert_eq!(bare.path, "/");
        let origin = parse("GET", "/x", &[("host", "a")]);
        assert_eq!((origin.authority.as_str(), origin.path.as_str()), ("a", "/x"));
        assert!(origin.headers.is_empty());
    }

    #[test]
    fn upgrades_need_both_headers() {
        assert_eq!(
            parse("GET", "/", &[("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")]).upgrade,
            "websocket"
        );
        assert_eq!(parse("GET", "/", &[("upgrade", "websocket")]).upgrade, "");
        assert_eq!(parse("CONNECT", "a:1", &[]).upgrade, "CONNECT");
        assert_eq!(parse("CONNECT", "a:1", &[]).path, "");
    }

    #[test]
    fn requests_are_written_for_http2() {
        let head = parse("GET", "/x?y", &[("host", "a:1"), ("k", "v")]);
        let two = request(&head, None, head.headers.clone(), Body::Empty).unwrap();
        assert_eq!(two.uri().to_string(), "http://a:1/x?y");
        assert!(!two.headers().contains_key("host"));
    }
}
