//! Heads and bodies beside the code; the corpus of malformed requests is in `tests/`.

use crate::*;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};

fn request(text: &str) -> Result<RequestHead, Refusal> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let found = Scanner::new().find(&bytes, Rules::STRICT.max_bytes)?.expect("a whole head");
    parse_request(&bytes.slice(found.start..found.end), &Rules::STRICT, &mut Names::new())
}

fn response(text: &str, to_head: bool) -> Result<ResponseHead, Refusal> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let found = Scanner::new().find(&bytes, Rules::STRICT.max_bytes)?.expect("a whole head");
    parse_response(&bytes.slice(found.start..found.end), &Rules::STRICT, &mut Names::new(), to_head)
}

#[test]
fn a_request_is_read() {
    let head =
        request("\r\nPOST /x?y HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\nX-A: \t b c \r\nx-a:2\r\n\r\n").unwrap();
    assert_eq!((head.method, head.version), (Method::POST, Version::Http11));
    assert_eq!(head.target, Target::Origin(Bytes::from_static(b"/x?y")));
    assert_eq!(head.host.unwrap(), "a:1");
    assert_eq!(head.framing, Framing::Length(5));
    let all: Vec<_> = head.headers.get_all("x-a").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(all, ["b c", "2"]);
    assert!(!head.headers.contains_key("host"));
}

#[test]
fn targets_have_four_forms() {
    let absolute = |path: &'static str| Target::Absolute {
        authority: Bytes::from_static(b"h:8"),
        path: Bytes::from_static(path.as_bytes()),
    };
    let target = |line: &str| request(&format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n")).map(|h| h.target);
    assert_eq!(target("GET http://h:8/a?b"), Ok(absolute("/a?b")));
    assert_eq!(target("GET HTTP://h:8"), Ok(absolute("")));
    assert_eq!(target("OPTIONS *"), Ok(Target::Asterisk));
    assert_eq!(target("CONNECT h:8"), Ok(Target::Authority(Bytes::from_static(b"h:8"))));
    for bad in ["GET foo", "GET *", "CONNECT h", "CONNECT /x", "GET http:///x", "GET ftp://h/", "GET http://u@h/"] {
        assert!(matches!(target(bad), Err(Refusal::Malformed(_))), "{bad}");
    }
}

#[test]
fn responses_end_as_they_must() {
    let framing = |text: &str, to_head| response(text, to_head).map(|r| r.framing);
    assert_eq!(framing("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", false), Ok(Framing::Length(3)));
    assert_eq!(framing("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", true), Ok(Framing::None));
    assert_eq!(framing("HTTP/1.1 200\r\n\r\n", false), Ok(Framing::UntilClose));
    assert_eq!(framing("HTTP/1.1 304 X\r\ncontent-length: 3\r\n\r\n", false), Ok(Framing::None));
    assert_eq!(framing("HTTP/1.1 204 X\r\n\r\n", false), Ok(Framing::None));
    assert_eq!(framing("HTTP/1.1 200 X\r\nTransfer-Encoding: Chunked\r\n\r\n", false), Ok(Framing::Chunked));
    for bad in [
        "HTTP/1.1 204 X\r\ncontent-length: 3\r\n\r\n",
        "HTTP/1.1 200 X\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 X\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n",
        "HTTP/1.0 200 X\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 600 X\r\n\r\n",
        "HTTP/1.1  200 X\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        assert!(response(bad, false).is_err(), "{bad}");
    }
}

fn decode(framing: Framing, input: &[u8]) -> Result<(Vec<u8>, HeaderMap, usize, bool), MalformedBody> {
    let (mut decoder, mut names) = (Decoder::new(framing), Names::new());
    let mut input = BytesMut::from(input);
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    loop {
        match decoder.decode(&mut input, &mut names)? {
            Decoded::Data(piece) => data.extend_from_slice(&piece),
            Decoded::Trailers(found) => trailers = found,
            Decoded::Partial => return Ok((data, trailers, input.len(), false)),
            Decoded::End => return Ok((data, trailers, input.len(), true)),
        }
    }
}

#[test]
fn chunks_are_read() {
    let (data, trailers, left, over) =
        decode(Framing::Chunked, b"5;a=\"b\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\nGET").unwrap();
    assert_eq!((data.as_slice(), left, over), (&b"hello0123456789"[..], 3, true));
    assert_eq!(trailers["x-t"], "1");
    let (data, _, left, over) = decode(Framing::Length(5), b"helloGET").unwrap();
    assert_eq!((data.as_slice(), left, over), (&b"hello"[..], 3, true));
    for bad in [
        &b"g\r\n"[..],
        b"0x5\r\nhello\r\n",
        b"fffffffffffffffff\r\n",
        b"+5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\nhello\n",
        b"3\r\nhello\r\n",
        b"5\r\nhello\n",
        b"5;a\nhello\r\n",
        b"5;\x00\r\nhello\r\n",
        b"\r\n5\r\n",
        b"0\r\nx : 1\r\n\r\n",
        b"0\r\nContent-Length: 1\r\n\r\n",
        b"0\r\n\n",
    ] {
        assert!(decode(Framing::Chunked, bad).is_err(), "{}", bad.escape_ascii());
    }
}

#[test]
fn heads_are_written() {
    let mut headers = HeaderMap::new();
    headers.insert("x-one", "1".parse().unwrap());
    headers.insert("content-length", "99".parse().unwrap());
    let mut out = Vec::new();
    let line = RequestLine { method: "POST", target: "/p", host: "h", upgrade: "", spelled: &[] };
    request_head(line, &headers, Framing::Length(10), Case::Lower, &mut out);
    assert_eq!(out, b"POST /p HTTP/1.1\r\nhost: h\r\nx-one: 1\r\ncontent-length: 10\r\n\r\n");
    out.clear();
    let status = StatusCode::NOT_FOUND;
    let more = More { connection: Some("close"), date: b"now", spelled: &[] };
    response_head(Version::Http11, status, &headers, Framing::Chunked, more, Case::Proper, &mut out);
    assert_eq!(
        std::str::from_utf8(&out).unwrap(),
        "HTTP/1.1 404 Not Found\r\nX-One: 1\r\nDate: now\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for length in [1, 9, 15, 16, 255, 256, 65_536, usize::MAX] {
        let (line, size) = chunk_start(length);
        assert_eq!(line[..size], *format!("{length:x}\r\n").as_bytes());
    }
}

#[test]
fn spelling_is_kept_where_it_is_asked_for() {
    let bytes = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: h\r\nX-aB: 1\r\nx-ab: 2\r\nplain: 3\r\n\r\n");
    assert!(parse_request(&bytes, &Rules::STRICT, &mut Names::new()).unwrap().spelled.is_none());
    let rules = Rules { spelling: true, ..Rules::STRICT };
    let head = parse_request(&bytes, &rules, &mut Names::new()).unwrap();
    let spelled = head.spelled.unwrap();
    assert_eq!(spelled.iter().map(|(_, raw)| &raw[..]).collect::<Vec<_>>(), [&b"Host"[..], b"X-aB"]);
    let mut out = Vec::new();
    let line = RequestLine { method: "GET", target: "/", host: "h", upgrade: "", spelled: &spelled };
    request_head(line, &head.headers, Framing::None, Case::Lower, &mut out);
    assert_eq!(out, b"GET / HTTP/1.1\r\nHost: h\r\nX-aB: 1\r\nX-aB: 2\r\nplain: 3\r\n\r\n");
}
