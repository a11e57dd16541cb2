//! The codecs: HTTP/1, HTTP/2 and HTTP/3 as clients and servers send them.

use crate::{
    Target,
    targets::{seeds, thirds},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use std::fmt::Write as _;
use tombolo_gateway_http1::{Decoded, Decoder, Framing, Names, Refusal, Rules, Scanner, parse_request, parse_response};
use tombolo_gateway_http2::{Connection, Event as Event2, PREFACE, RequestLine, Settings};
use tombolo_gateway_http3::{
    Control, ControlReader, Event, MessageReader, Settings as Settings3, Side,
    qpack::{DecoderStream, EncoderStream},
    request, response, trailers,
};

/// Targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "http1_requests", feed: http1_requests, seeds: requests },
    Target { name: "http2_server", feed: http2_server, seeds: connections },
    Target { name: "http3_request", feed: http3_request, seeds: messages },
    Target { name: "http1_responses", feed: http1_responses, seeds: responses },
    Target { name: "http2_client", feed: http2_client, seeds: answers },
    Target { name: "hpack", feed: hpack, seeds: blocks },
    Target { name: "http3_response", feed: http3_response, seeds: sections },
    Target { name: "http3_control", feed: http3_control, seeds: controls },
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

/// What is read of a connection, as text. `head` reads one head: what it says, and how its body is framed.
fn read_http1(
    pieces: &[&[u8]],
    mut head: impl FnMut(&Bytes, &mut Names) -> Result<(String, Framing), Refusal>,
) -> String {
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
            let bytes = match scanner.find(&input, Rules::STRICT.max_bytes) {
                Ok(None) => break,
                Err(refusal) => return said + refused(&refusal),
                Ok(Some(found)) => input.split_to(found.end).freeze().slice(found.start..),
            };
            scanner = Scanner::new();
            match head(&bytes, &mut names) {
                Ok((text, framing)) => {
                    let _ = write!(said, "[{text} {framing:?}]");
                    body = Some(Decoder::new(framing));
                }
                Err(refusal) => return said + refused(&refusal),
            }
        }
    }
    said
}

fn read_requests(pieces: &[&[u8]]) -> String {
    read_http1(pieces, |bytes, names| {
        let head = parse_request(bytes, &Rules::STRICT, names)?;
        Ok((format!("{} {:?}", head.method, head.target), head.framing))
    })
}

/// Heads that answer GET and HEAD in turn.
fn read_responses(pieces: &[&[u8]]) -> String {
    let mut to_head = false;
    read_http1(pieces, |bytes, names| {
        let head = parse_response(bytes, &Rules::STRICT, names, to_head)?;
        let bodiless = to_head || matches!(head.status.as_u16(), 100..=199 | 204 | 304);
        assert!(!bodiless || head.framing == Framing::None, "{:?} of what has no body", head.framing);
        to_head = !to_head;
        Ok((head.status.to_string(), head.framing))
    })
}

/// Where the bytes are cut changes nothing.
fn http1_requests(input: &[u8]) {
    assert_eq!(read_requests(&[input]), read_requests(&thirds(input)), "the cut changes what is read");
}

fn requests() -> Vec<Vec<u8>> {
    seeds(&[
        b"GET /a?b HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\nbytes",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ])
}

/// What a client sends costs a bounded answer; nothing breaks.
fn http2_server(input: &[u8]) {
    bounded(Connection::server(Settings::default(), 0), &PREFACE[..], input);
}

/// Feeds a connection what it expects first and then the input: what it says and tells is bounded by that. Returns what it
/// tells.
fn bounded(mut connection: Connection, first: &[u8], input: &[u8]) -> Vec<Event2> {
    let mut bytes = BytesMut::from(first);
    bytes.extend_from_slice(input);
    let ended = connection.receive(&mut bytes, 0).is_err();
    let events: Vec<Event2> = std::iter::from_fn(|| connection.event()).collect();
    assert!(events.len() <= 4 * input.len() + 8, "{} events of {} bytes", events.len(), input.len());
    let answer = connection.output().len();
    assert!(answer <= 64 * 1024 + 8 * input.len(), "{answer} bytes of answer to {} bytes", input.len());
    assert_eq!(ended, connection.error().is_some(), "an error is told once and remembered");
    events
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

/// Where the bytes are cut changes nothing, and what has no body has none.
fn http1_responses(input: &[u8]) {
    assert_eq!(read_responses(&[input]), read_responses(&thirds(input)), "the cut changes what is read");
}

fn responses() -> Vec<Vec<u8>> {
    seeds(&[
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200\r\ncontent-length: 7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a\r\nok\r\n0\r\nx: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.0 204 No Content\r\n\r\nHTTP/1.1 304 N\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nbytes",
        b"HTTP/1.1 200 OK\r\n\r\neverything to the end",
    ])
}

/// What a server sends to two requests that are under way.
fn http2_client(input: &[u8]) {
    let mut connection = Connection::client(Settings::default(), 0);
    let line = |method| RequestLine { method, scheme: "http", authority: "a", path: "/", protocol: None };
    let _ = connection.send_request(&line(&Method::GET), &HeaderMap::new(), true);
    let _ = connection.send_request(&line(&Method::POST), &HeaderMap::new(), false);
    let events = bounded(connection, &frame(4, 0, 0, &[]), input);
    let asks = events.iter().any(|event| matches!(event, Event2::Request { .. }));
    assert!(!asks, "a server does not ask");
}

fn answers() -> Vec<Vec<u8>> {
    let (head, data) = (frame(1, 4, 1, &[0x88]), frame(0, 1, 1, b"body"));
    vec![
        [head.clone(), data.clone()].concat(),
        [frame(1, 4, 1, &[8, 3, b'1', b'0', b'3']), head.clone(), data, frame(1, 5, 3, &[0x8d])].concat(),
        [head, frame(1, 5, 1, &[0, 1, b't', 1, b'v']), frame(8, 0, 3, &[0, 0, 1, 0])].concat(),
        [frame(5, 4, 1, &[0, 0, 0, 2, 0x82]), frame(7, 0, 0, &[0; 8]), frame(3, 0, 3, &[0, 0, 0, 7])].concat(),
        [frame(1, 0, 1, &[0x88]), frame(9, 4, 1, &[0x40, 1, b'a', 1, b'b'])].concat(),
    ]
}

/// Header blocks of two requests, the second read with the table that the first left. Each comes as one frame and in
/// pieces, and is the same.
fn hpack(input: &[u8]) {
    let (first, second) = input.split_at(input.len() / 2);
    assert_eq!(heads(&[first, second], usize::MAX), heads(&[first, second], 3), "the cut changes what is read");
}

/// The heads that a server reads, each block in frames of so many bytes, and whether the connection lives.
fn heads(blocks: &[&[u8]], piece: usize) -> (Vec<String>, bool) {
    let mut connection = Connection::server(Settings { malformed_ends_stream: true, ..Settings::default() }, 0);
    let mut bytes = BytesMut::from(&[&PREFACE[..], &frame(4, 0, 0, &[])].concat()[..]);
    for (block, stream) in blocks.iter().zip([1, 3]) {
        // Few enough pieces to be no flood, each small enough for one byte of length.
        let piece = piece.max(block.len() / 8 + 1).min(255);
        if block.len() > 8 * 255 {
            return (Vec::new(), true);
        }
        let pieces: Vec<&[u8]> = if block.is_empty() { vec![&[]] } else { block.chunks(piece).collect() };
        for (at, part) in pieces.iter().enumerate() {
            let last = if at + 1 == pieces.len() { 4 } else { 0 };
            let (kind, flags) = if at == 0 { (1, 1 | last) } else { (9, last) };
            bytes.extend_from_slice(&frame(kind, flags, stream, part));
        }
    }
    let fine = connection.receive(&mut bytes, 0).is_ok();
    let mut read = Vec::new();
    while let Some(event) = connection.event() {
        match event {
            Event2::Request { head, .. } => {
                let text = format!("{} {:?} {:?} {:?}", head.method, head.authority, head.path, head.headers);
                assert!(text.len() < 1 << 20, "a head beyond its bound");
                read.push(text);
            }
            Event2::Reset { .. } => read.push("refused".into()),
            _ => {}
        }
    }
    (read, fine)
}

fn blocks() -> Vec<Vec<u8>> {
    let plain = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let huffman =
        [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    let table = [0x82, 0x86, 0x84, 0xbe, 0xbf];
    let sizes = [0x20, 0x3f, 0xe1, 0x1f, 0x82, 0x86, 0x84, 0x41, 1, b'a', 0x10, 1, b'x', 1, b'y'];
    let [plain, huffman] = [plain.to_vec(), huffman.to_vec()];
    vec![
        [plain.clone(), plain.clone()].concat(),
        [huffman.clone(), huffman].concat(),
        [&plain[..], &[0x40, 1, b'k', 1, b'v'], &table, &[0xbe; 6]].concat(),
        sizes.repeat(2),
    ]
}

/// Answers and trailers stay within their bound.
fn http3_response(input: &[u8]) {
    let mut reader = MessageReader::new(Side::Response, LARGEST);
    reader.feed(Bytes::copy_from_slice(input));
    loop {
        match reader.read() {
            Ok(Some(Event::Head(section))) => match response(section, LARGEST) {
                Ok(head) if head.status.is_informational() => reader.interim(),
                Ok(_) => {}
                Err(_) => return,
            },
            Ok(Some(Event::Trailers(section))) => drop(trailers(section, LARGEST)),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let _ = reader.finish();
}

fn sections() -> Vec<Vec<u8>> {
    let head = [1, 3, 0, 0, 0xd9];
    let fields = [1, 8, 0, 0, 0x21, b'x', 3, b'a', b'b', b'c'];
    vec![
        [&head[..], &[0, 4], b"body", &fields].concat(),
        [&head[..], &fields].concat(),
        vec![1, 4, 0, 0, 0xff, 0x00, 0],
    ]
}

/// The first byte says whose stream it is: settings that are read are written and read the same.
fn http3_control(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 4 {
        0 | 1 => {
            let side = if kind % 4 == 0 { Side::Request } else { Side::Response };
            let (mut reader, mut bytes) = (ControlReader::new(side), Bytes::copy_from_slice(rest));
            while let Ok(Some(told)) = reader.read(&mut bytes) {
                let Control::Settings(settings) = told else { continue };
                let mut out = BytesMut::new();
                settings.encode(&mut out);
            }
            let _ = Settings3::decode(rest);
        }
        2 => drop(EncoderStream::default().read(rest)),
        _ => {
            let (one, two) = rest.split_at(rest.len() / 2);
            let mut stream = DecoderStream::default();
            let cut = stream.read(one).and_then(|()| stream.read(two)).is_ok();
            assert_eq!(cut, DecoderStream::default().read(rest).is_ok(), "the cut changes what is read");
        }
    }
}

fn controls() -> Vec<Vec<u8>> {
    vec![
        vec![0, 4, 4, 6, 0x50, 0, 8, 1, 7, 1, 0],
        vec![1, 4, 2, 8, 1, 0x0d, 1, 5, 3, 1, 1],
        vec![2, 0x20, 0x20],
        vec![3, 0x40, 0x41, 0x3f],
        vec![3, 0x84, 0x01],
    ]
}
