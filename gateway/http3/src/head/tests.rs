//! Heads: written and read again, and every broken rule.

use super::*;
use crate::code::Code;

fn section(fields: &[(&str, &str)]) -> Bytes {
    let mut out = BytesMut::from(&[0, 0][..]);
    for (name, value) in fields {
        // A literal of which neither part is looked at while it is written.
        let length = name.len();
        if length < 7 {
            out.put_u8(0x20 | u8::try_from(length).unwrap());
        } else {
            out.put_slice(&[0x27, u8::try_from(length - 7).unwrap()]);
        }
        out.put_slice(name.as_bytes());
        out.put_u8(u8::try_from(value.len()).unwrap());
        out.put_slice(value.as_bytes());
    }
    out.freeze()
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/x?y")];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Bytes {
    section(&[&GET[..], more].concat())
}

#[test]
fn a_request_is_read() {
    let head = request(with(&[("cookie", "a=b"), ("te", "trailers"), ("cookie", "c=d"), ("host", "A")]), 1000).unwrap();
    assert_eq!((head.method, head.https, &head.authority[..]), (Method::GET, Some(true), &b"a"[..]));
    assert_eq!(head.path.unwrap(), "/x?y");
    assert_eq!(head.headers["cookie"], "a=b; c=d");
    assert!(!head.headers.contains_key("host"));
}

#[test]
fn what_is_written_is_read() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/css"));
    headers.insert("content-length", HeaderValue::from_static("12"));
    headers.insert("x-own", HeaderValue::from_static("v"));
    headers.insert("accept-encoding", HeaderValue::from_static("identity"));
    for method in [Method::GET, Method::PATCH] {
        let mut out = BytesMut::new();
        qpack::request(&method, Some("https"), "a:1", Some("/p"), None, &headers, &mut out);
        let head = request(out.freeze(), 1000).unwrap();
        assert_eq!((head.method, head.headers.clone(), head.content_length), (method, headers.clone(), Some(12)));
    }
    for status in [200, 204, 418, 503] {
        let mut out = BytesMut::new();
        qpack::response(StatusCode::from_u16(status).unwrap(), &headers, &mut out);
        let head = response(out.freeze(), 1000).unwrap();
        assert_eq!((head.status.as_u16(), head.headers), (status, headers.clone()));
    }
    let mut out = BytesMut::new();
    qpack::trailers(&headers, &mut out);
    assert_eq!(trailers(out.freeze(), 1000).unwrap(), headers);
}

#[test]
fn malformed_requests_end_themselves_only() {
    let bad: &[&[(&str, &str)]] = &[
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "x")],
        &[("te", "gzip")],
        &[("X-Upper", "v")],
        &[("a", "v"), (":path", "/")],
        &[("a", "v"), (":protocol", "x")],
        &[(":path", "/")],
        &[(":status", "200")],
        &[(":what", "x")],
        &[("content-length", "x")],
        &[("content-length", "+1")],
        &[("content-length", "1"), ("content-length", "1")],
        &[("host", "b")],
        &[("a", "x\r\ny: z")],
        &[("a", "\0")],
        &[("a b", "c")],
        &[("", "c")],
        &[(":protocol", "websocket")],
    ];
    for fields in bad {
        assert_eq!(request(with(fields), 1000).unwrap_err().code, Code::MESSAGE_ERROR, "{fields:?}");
    }
    for without in 0..4 {
        let mut fields = GET.to_vec();
        fields.remove(without);
        let read = request(section(&fields), 1000);
        // Without an authority it is the connection manager that answers.
        assert_eq!(read.is_ok(), without == 2, "{without}");
    }
    for (at, value) in [(0, "G T"), (1, "ftp"), (2, "u@a"), (2, "a/b"), (3, ""), (3, "x"), (3, "/ x"), (3, "*")] {
        let mut fields = GET;
        fields[at].1 = value;
        assert_eq!(request(section(&fields), 1000).unwrap_err().code, Code::MESSAGE_ERROR, "{value:?}");
    }
}

#[test]
fn connect_has_neither_scheme_nor_path_unless_it_is_extended() {
    let plain = request(section(&[(":method", "CONNECT"), (":authority", "a:1")]), 1000).unwrap();
    assert_eq!((plain.https, plain.path), (None, None));
    assert!(request(section(&[(":method", "CONNECT")]), 1000).is_err());
    let mut extended = GET.to_vec();
    extended[0].1 = "CONNECT";
    assert!(request(section(&extended), 1000).is_err());
    extended.push((":protocol", "websocket"));
    assert_eq!(request(section(&extended), 1000).unwrap().protocol.unwrap(), "websocket");
}

#[test]
fn malformed_responses_and_trailers() {
    let bad: &[&[(&str, &str)]] =
        &[&[], &[(":status", "20")], &[(":status", "101")], &[(":status", "200"), (":path", "/")]];
    for fields in bad {
        assert_eq!(response(section(fields), 1000).unwrap_err().code, Code::MESSAGE_ERROR, "{fields:?}");
    }
    assert_eq!(trailers(section(&[(":status", "200")]), 1000).unwrap_err().code, Code::MESSAGE_ERROR);
    assert!(trailers(section(&[("grpc-status", "0")]), 1000).is_ok());
}
