//! The codecs: HTTP/1, HTTP/2 and HTTP/3 as clients and servers send them.

use crate::Target;
use bytes::{Bytes, BytesMut};
use std::fmt::Write as _;
use tombolo_gateway_http1::{Decoded, Decoder, Names, Refusal, Rules, Scanner, parse_request};
use tombolo_gateway_http2::{Connection, PREFACE, Settings};
use tombolo_gateway_http3::{Event, MessageReader, Side, request};

/// Targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "http1_requests", feed: http1_requests, seeds: requests },
    Target { name: "http2_server", feed: http2_server, seeds: connections },
    Target { name: "http3_request", feed: http3_request, seeds: messages },
];

/// Largest head that the HTTP/3 target lets through.
const LARGEST: usize = 16 * 1024;

/// How a refusal is answered. The words for the log may tell more when more is there to be seen.
fn refused(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed(_) => "400",
        Refusal::Version => "426",
        Refusal::TooLarge | Refusal::TooMany => "431",
        Refusal::Coding => "501",
    }
}

/// What was read of a connection, as text.
fn read_http1(pieces: &[&[u8]]) -> String {
    let (mut input, mut names, mut said) = (BytesMut::new(), Names::new(), String::new());
    let (mut scanner, mut body): (Scanner, Option<Decoder>) = (Scanner::new(), None);
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            if let Some(decoder) = &mut body {
                match decoder.decode(&mut input, &mut names) {
                    Ok(Decoded::Partial) => break,
                    Ok(Decoded::Data(data)) => drop(write!(said, "{}", data.escape_ascii())),
                    Ok(Decoded::Trailers(_) | Decoded::End) => body = None,
                    Err(_) => return said + "!",
                }
                continue;
            }
            match scanner.find(&input, Rules::STRICT.max_bytes) {
                Ok(None) => break,
                Err(refusal) => return said + refused(&refusal),
                Ok(Some(found)) => {
                    let head = input.split_to(found.end).freeze().slice(found.start..);
                    scanner = Scanner::new();
                    match parse_request(&head, &Rules::STRICT, &mut names) {
                        Ok(head) => {
                            let _ = write!(said, "[{} {:?} {:?}]", head.method, head.target, head.framing);
                            body = Some(Decoder::new(head.framing));
                        }
                        Err(refusal) => return said + refused(&refusal),
                    }
                }
            }
        }
    }
    said
}

/// Where the bytes are cut changes nothing.
fn http1_requests(input: &[u8]) {
    let (first, second) = input.split_at(input.len() / 3);
    let (second, third) = second.split_at(second.len() / 2);
    assert_eq!(read_http1(&[input]), read_http1(&[first, second, third]), "the cut changes what is read");
}

fn requests() -> Vec<Vec<u8>> {
    [
        &b"GET /a?b HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\nbytes",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// What a client sends costs a bounded answer; nothing breaks.
fn http2_server(input: &[u8]) {
    let mut connection = Connection::server(Settings::default(), 0);
    let mut bytes = BytesMut::from(&PREFACE[..]);
    bytes.extend_from_slice(input);
    let ended = connection.receive(&mut bytes, 0).is_err();
    let mut events = 0;
    while connection.event().is_some() {
        events += 1;
    }
    assert!(events <= 4 * input.len() + 4, "{events} events of {} bytes", input.len());
    let answer = connection.output().len();
    assert!(answer <= 64 * 1024 + 8 * input.len(), "{answer} bytes of answer to {} bytes", input.len());
    assert_eq!(ended, connection.error().is_some(), "an error is told once and remembered");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
}

fn connections() -> Vec<Vec<u8>> {
    let settings = frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let get = frame(1, 5, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'a']);
    let post = frame(1, 4, 3, &[0x83, 0x86, 0x84, 0x41, 1, b'a']);
    let data = frame(0, 1, 3, b"body");
    vec![
        [settings.clone(), get.clone()].concat(),
        [settings.clone(), post, data].concat(),
        [settings.clone(), get, frame(3, 0, 1, &[0, 0, 0, 8]), frame(6, 0, 0, &[0; 8])].concat(),
        [settings, frame(8, 0, 0, &[0, 0, 1, 0]), frame(2, 0, 5, &[0, 0, 0, 1, 7]), frame(7, 0, 0, &[0; 8])].concat(),
    ]
}

/// Heads stay within their bound however they are sent.
fn http3_request(input: &[u8]) {
    let mut reader = MessageReader::new(Side::Request, LARGEST);
    let (first, second) = input.split_at(input.len() / 2);
    for piece in [first, second] {
        reader.feed(Bytes::copy_from_slice(piece));
        loop {
            match reader.read() {
                Ok(Some(Event::Head(section))) => {
                    assert!(section.len() <= LARGEST, "a head beyond its bound");
                    let _ = request(section, LARGEST);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = reader.finish();
}

fn messages() -> Vec<Vec<u8>> {
    // HEADERS with indexed :method GET, :scheme https, :path / and a literal :authority; then DATA.
    let head = [1, 8, 0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, b'a'];
    vec![[&head[..], &[0, 4], b"body"].concat(), [&head[..], &head[..]].concat(), vec![0x21, 2, 0, 0, 4, 0]]
}
