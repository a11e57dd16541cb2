//! Tests of heads: what a list of fields may say, and what is refused.

use super::{Collector, Flaw, HeadLimits, Part, RequestHead};
use crate::field::Name;
use bytes::Bytes;
use http::Method;

const LIMITS: HeadLimits = HeadLimits { fields: 20, bytes: 1000 };
const PLAIN: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "svc.test")];

fn collect(part: Part, fields: &[(&str, &str)]) -> Collector {
    let mut collector = Collector::new(part, LIMITS, 4);
    for (name, value) in fields {
        let size = name.len() + value.len() + 32;
        collector.take(Name::parse(name.as_bytes()).with(Bytes::copy_from_slice(value.as_bytes()), false), size);
    }
    collector
}

fn request(fields: &[(&str, &str)]) -> Result<RequestHead, Flaw> {
    collect(Part::Request, fields).request(true).map(|(head, _)| head)
}

/// The plain request with one part changed, or left out.
fn with(name: &str, value: Option<&str>) -> Result<RequestHead, Flaw> {
    let mut fields: Vec<(&str, &str)> = PLAIN.iter().copied().filter(|(n, _)| *n != name).collect();
    fields.extend(value.map(|value| (name, value)));
    request(&fields)
}

fn extra(name: &str, value: &str) -> Result<RequestHead, Flaw> {
    let mut fields = PLAIN.to_vec();
    fields.push((name, value));
    request(&fields)
}

#[test]
fn good_requests_are_taken() {
    request(&PLAIN).unwrap();
    with(":scheme", Some("ftp")).unwrap();
    with(":scheme", Some("HTTP")).unwrap();
    with(":path", Some("/a?b=%20'\"<>")).unwrap();
    with(":path", Some("/é")).unwrap();
    with(":authority", Some("[::1]:80")).unwrap();
    extra("te", "trailers").unwrap();
    extra("x_u", "1").unwrap();
    extra("x-n", " a").unwrap();
    let other = request(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a")]).unwrap();
    assert_eq!(&other.path[..], b"*");
    let connect = request(&[(":method", "CONNECT"), (":authority", "svc.test:80")]).unwrap();
    assert_eq!(connect.method, Method::CONNECT);
    let mut extended = PLAIN.to_vec();
    extended[0] = (":method", "CONNECT");
    extended.push((":protocol", "websocket"));
    assert_eq!(request(&extended).unwrap().protocol.as_deref(), Some(&b"websocket"[..]));
}

#[test]
fn host_stands_in_for_a_missing_authority_only() {
    let mut fields = PLAIN[..3].to_vec();
    fields.push(("host", "h.test"));
    let head = request(&fields).unwrap();
    assert_eq!(&head.authority[..], b"h.test");
    assert!(head.headers.is_empty());
    let both = extra("host", "h.test").unwrap();
    assert_eq!(&both.authority[..], b"svc.test");
    assert!(both.headers.is_empty());
}

#[test]
fn malformed_requests_are_refused() {
    for part in [":method", ":scheme", ":path", ":authority"] {
        assert!(matches!(with(part, None), Err(Flaw::Malformed(_))), "no {part}");
        assert!(matches!(with(part, Some("")), Err(Flaw::Malformed(_))), "empty {part}");
    }
    let bad_parts = [
        (":path", "foo"),
        (":path", "*"),
        (":path", "http://a.test/x"),
        (":path", "/a b"),
        (":path", "/a\u{7f}"),
        (":path", "/a\r"),
        (":method", "GE T"),
        (":scheme", "1http"),
        (":scheme", "ht/tp"),
        (":authority", "a b"),
        (":authority", "user@svc.test"),
        (":authority", "a/b"),
        (":authority", "a\\b"),
        (":authority", "a?b"),
    ];
    for (name, value) in bad_parts {
        assert!(matches!(with(name, Some(value)), Err(Flaw::Malformed(_))), "{name} {value:?}");
    }
    let bad_headers = [
        ("X-Up", "1"),
        ("connection", "keep-alive"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        (":x", "1"),
        (":status", "200"),
        (":method", "GET"),
        ("", "x"),
        ("x a", "1"),
        ("x:", "1"),
        ("x\"", "1"),
        ("x-n", "a\nb"),
        ("x-n", "a\rb"),
        ("x-n", "a\0b"),
        ("content-length", "5x"),
        ("content-length", "+5"),
        ("content-length", ""),
        ("content-length", "99999999999999999999"),
    ];
    for (name, value) in bad_headers {
        assert!(matches!(extra(name, value), Err(Flaw::Malformed(_))), "{name:?} {value:?}");
    }
    let twice = [&PLAIN[..], &[("content-length", "5"), ("content-length", "5")]].concat();
    assert!(matches!(request(&twice), Err(Flaw::Malformed(_))));
    let hosts = [&PLAIN[..], &[("host", "a"), ("host", "a")]].concat();
    assert!(matches!(request(&hosts), Err(Flaw::Malformed(_))));
    let late = [&[("x", "1")][..], &PLAIN[..]].concat();
    assert!(matches!(request(&late), Err(Flaw::Malformed(_))), "pseudo headers come first");
    let connect = with(":method", Some("CONNECT"));
    assert!(matches!(connect, Err(Flaw::Malformed(_))), "CONNECT with a path");
    assert!(matches!(extra(":protocol", "websocket"), Err(Flaw::Malformed(_))), "GET with a protocol");
    let mut extended = PLAIN.to_vec();
    extended[0] = (":method", "CONNECT");
    extended.push((":protocol", "websocket"));
    assert!(collect(Part::Request, &extended).request(false).is_err(), "extended CONNECT that was not offered");
}

#[test]
fn responses_have_a_status_and_nothing_else() {
    let read = |fields: &[(&str, &str)]| {
        collect(Part::Response, fields).response().map(|(head, length)| (head.status, length))
    };
    assert_eq!(read(&[(":status", "200"), ("content-length", "7")]).unwrap(), (http::StatusCode::OK, Some(7)));
    for bad in [&[][..], &[(":status", "20")], &[(":status", "2000")], &[(":status", "101")], &[(":status", "abc")]] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
    assert!(read(&[(":status", "200"), (":status", "200")]).is_err());
    assert!(read(&[(":status", "200"), (":path", "/")]).is_err());
    assert!(read(&[("x", "1"), (":status", "200")]).is_err());
}

#[test]
fn trailers_have_no_pseudo_headers() {
    let read = |fields: &[(&str, &str)]| collect(Part::Trailers, fields).trailers();
    assert_eq!(read(&[("grpc-status", "0")]).unwrap().len(), 1);
    for bad in [(":path", "/x"), (":status", "200"), ("connection", "close"), ("X", "1")] {
        assert!(read(&[bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn heads_have_bounds() {
    let many: Vec<(&str, &str)> = PLAIN.iter().copied().chain((0..17).map(|_| ("x", "1"))).collect();
    assert_eq!(request(&many).unwrap_err(), Flaw::TooMany);
    request(&many[..20]).unwrap();
    let big = "a".repeat(1000);
    assert_eq!(extra("x", &big).unwrap_err(), Flaw::TooLarge);
}
