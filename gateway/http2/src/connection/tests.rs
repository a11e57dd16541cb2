//! Frame by frame: what is taken, and each rule that can be broken, with the code and the reach of the answer.

mod errors;
mod floods;
mod flow;
mod pairs;

use super::Connection;
use crate::{
    code::{Code, ConnectionError},
    event::{Cause, Event},
    frame::{FrameHead, HEAD, PREFACE, flag, kind},
    head::RequestLine,
    hpack::{Encoder, Pseudo},
    settings::Settings,
    stream::Stream,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    FrameHead { length: payload.len(), kind, flags, stream }.put(&mut out);
    out.put_slice(payload);
    out.to_vec()
}

fn data(stream: u32, payload: &[u8], end: bool) -> Vec<u8> {
    frame(kind::DATA, u8::from(end), stream, payload)
}

/// A header block of literals, so that tests need no state.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(u8::try_from(text.len()).unwrap());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "svc.test")];

fn headers(stream: u32, end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | u8::from(end), stream, &block(fields))
}

fn get(stream: u32) -> Vec<u8> {
    headers(stream, true, &GET)
}

fn post(stream: u32) -> Vec<u8> {
    headers(stream, false, &GET)
}

fn reset(stream: u32, code: Code) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn settings(all: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, value) in all {
        payload.extend_from_slice(&number.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A frame that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Seen {
    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

fn frames(mut bytes: &[u8]) -> Vec<Seen> {
    let mut all = Vec::new();
    if bytes.starts_with(PREFACE) {
        bytes = &bytes[PREFACE.len()..];
    }
    while !bytes.is_empty() {
        let head = FrameHead::parse(bytes).unwrap();
        let payload = bytes[HEAD..HEAD + head.length].to_vec();
        bytes = &bytes[HEAD + head.length..];
        all.push(Seen { kind: head.kind, flags: head.flags, stream: head.stream, payload });
    }
    all
}

/// A connection with what came out of it.
struct Bench {
    connection: Connection,
    now: u64,
}

impl Bench {
    /// A server that was greeted, with its greeting taken away.
    fn server(own: Settings) -> Self {
        let mut bench = Self { connection: Connection::server(own, 0), now: 0 };
        bench.feed(&[PREFACE, &settings(&[])[..], &frame(kind::SETTINGS, flag::ACK, 0, &[])[..]].concat()).unwrap();
        bench.written();
        bench.events();
        bench
    }

    fn client(own: Settings) -> Self {
        let mut bench = Self { connection: Connection::client(own, 0), now: 0 };
        bench.feed(&[&settings(&[])[..], &frame(kind::SETTINGS, flag::ACK, 0, &[])[..]].concat()).unwrap();
        bench.written();
        bench.events();
        bench
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.connection.receive(&mut BytesMut::from(bytes), self.now)
    }

    fn written(&mut self) -> Vec<Seen> {
        self.connection.pump();
        frames(&self.connection.output().take())
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.connection.event()).collect()
    }

    /// The one request among the events.
    fn request(&mut self) -> Stream {
        match &self.events()[..] {
            [Event::Request { stream, .. }] => *stream,
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, method: Method, end: bool) -> Stream {
        let line = RequestLine { method: &method, scheme: "http", authority: "svc.test", path: "/", protocol: None };
        self.connection.send_request(&line, &HeaderMap::new(), end).unwrap()
    }

    fn respond(&mut self, stream: Stream, end: bool) {
        self.connection.send_response(stream, StatusCode::OK, &HeaderMap::new(), end).unwrap();
    }
}

/// Events as short texts, to be compared.
fn tell(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            Event::Request { stream, head, length, end } => {
                format!(
                    "request {} {} {} {length:?} {end} {:?}",
                    stream.id(),
                    head.method,
                    head.headers.len(),
                    head.path
                )
            }
            Event::Interim { stream, head } => format!("interim {} {}", stream.id(), head.status),
            Event::Response { stream, head, length, end } => {
                format!("response {} {} {length:?} {end}", stream.id(), head.status)
            }
            Event::Data { stream, bytes, end } => format!("data {} {bytes:?} {end}", stream.id()),
            Event::Trailers { stream, headers } => format!("trailers {} {headers:?}", stream.id()),
            Event::Reset { stream, code, cause } => format!("reset {} {code} {cause:?}", stream.id()),
            Event::Writable { stream } => format!("writable {}", stream.id()),
            Event::GoAway { code } => format!("goaway {code}"),
            Event::Unheard { reason } => format!("unheard {reason}"),
            Event::Settings => "settings".to_owned(),
        })
        .collect()
}

#[test]
fn a_request_is_answered() {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&[post(1), data(1, b"hello", true)].concat()).unwrap();
    let events = bench.events();
    assert_eq!(tell(&events), ["request 1 GET 0 None false b\"/\"", "data 1 b\"hello\" true"]);
    let Event::Request { stream, .. } = events[0] else { panic!() };
    bench.connection.consumed(stream, 5);
    bench.respond(stream, false);
    bench.connection.send_data(stream, Bytes::from_static(b"world"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    bench.connection.send_trailers(stream, trailers).unwrap();
    let kinds: Vec<(u8, u8)> = bench.written().iter().map(|f| (f.kind, f.flags)).collect();
    assert_eq!(kinds, [(kind::HEADERS, 4), (kind::DATA, 0), (kind::HEADERS, 5)]);
    assert_eq!(bench.connection.open_streams(), 0);
}

#[test]
fn the_greeting_says_what_is_set() {
    let mut server = Connection::server(Settings { extended_connect: true, ..Settings::default() }, 0);
    let seen = frames(&server.output().take());
    assert_eq!(seen.iter().map(|f| f.kind).collect::<Vec<_>>(), [kind::SETTINGS, kind::WINDOW_UPDATE]);
    assert!(seen[0].payload.chunks(6).any(|entry| entry == [0, 8, 0, 0, 0, 1]));
    assert_eq!(seen[1].number(0), (1 << 20) - 65_535);
    let mut client = Connection::client(Settings::default(), 0);
    let bytes = client.output().take();
    assert!(bytes.starts_with(PREFACE));
    assert!(frames(&bytes)[0].payload.chunks(6).any(|entry| entry == [0, 2, 0, 0, 0, 0]), "no push");
}

#[test]
fn headers_may_be_padded_prioritised_and_cut() {
    let mut bench = Bench::server(Settings::default());
    let block = block(&GET);
    let mut padded = vec![3, 0, 0, 0, 0, 9];
    padded.extend_from_slice(&block);
    padded.extend_from_slice(&[0; 3]);
    bench.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::PADDED | flag::PRIORITY | 1, 1, &padded)).unwrap();
    let (a, b) = block.split_at(7);
    let cut = [
        frame(kind::HEADERS, 1, 3, a),
        frame(kind::CONTINUATION, 0, 3, &b[..9]),
        frame(kind::CONTINUATION, 4, 3, &b[9..]),
    ];
    bench.feed(&cut.concat()).unwrap();
    assert_eq!(tell(&bench.events()), ["request 1 GET 0 None true b\"/\"", "request 3 GET 0 None true b\"/\""]);
}

#[test]
fn padding_of_data_is_consumed_at_once() {
    let mut bench = Bench::server(Settings::default());
    let mut payload = vec![200];
    payload.extend_from_slice(b"hi");
    payload.extend_from_slice(&[0; 200]);
    bench.feed(&[post(1), frame(kind::DATA, flag::PADDED, 1, &payload)].concat()).unwrap();
    assert_eq!(tell(&bench.events())[1], "data 1 b\"hi\" false");
    assert_eq!(bench.connection.unannounced, 201);
}

#[test]
fn a_client_gets_interim_heads_bodies_and_trailers() {
    let mut bench = Bench::client(Settings::default());
    let stream = bench.open(Method::GET, true);
    let trailers = headers(1, true, &[("grpc-status", "0"), ("content-length", "9")]);
    let answer = [
        headers(1, false, &[(":status", "103"), ("link", "</a>")]),
        headers(1, false, &[(":status", "200"), ("content-length", "2")]),
        data(1, b"hi", false),
        trailers,
    ];
    bench.feed(&answer.concat()).unwrap();
    assert_eq!(
        tell(&bench.events()),
        [
            "interim 1 103 Early Hints",
            "response 1 200 OK Some(2) false",
            "data 1 b\"hi\" false",
            "trailers 1 {\"grpc-status\": \"0\"}"
        ]
    );
    assert!(!bench.connection.is_open(stream));
}

#[test]
fn responses_without_a_body_may_say_a_length() {
    let mut bench = Bench::client(Settings::default());
    bench.open(Method::HEAD, true);
    bench.open(Method::GET, true);
    bench.feed(&headers(1, true, &[(":status", "200"), ("content-length", "7")])).unwrap();
    bench.feed(&headers(3, true, &[(":status", "304"), ("content-length", "7")])).unwrap();
    assert_eq!(tell(&bench.events()), ["response 1 200 OK Some(0) true", "response 3 304 Not Modified Some(0) true"]);
    bench.open(Method::HEAD, true);
    bench.feed(&[headers(5, false, &[(":status", "200")]), data(5, b"x", true)].concat()).unwrap();
    assert_eq!(tell(&bench.events())[1], "reset 5 PROTOCOL_ERROR Refused(\"body differs from content-length\")");
}

#[test]
fn a_server_that_leaves_takes_what_was_on_its_way() {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&get(1)).unwrap();
    bench.connection.drain();
    let seen = bench.written();
    assert_eq!((seen[0].kind, seen[0].number(0), seen[1].kind), (kind::GOAWAY, 0x7fff_ffff, kind::PING));
    bench.feed(&get(3)).unwrap();
    bench.feed(&frame(kind::PING, flag::ACK, 0, &seen[1].payload)).unwrap();
    let seen = bench.written();
    assert_eq!((seen[0].kind, seen[0].number(0), seen[0].number(4)), (kind::GOAWAY, 3, 0));
    bench.feed(&[post(5), data(5, b"late", true)].concat()).unwrap();
    let events = bench.events();
    assert_eq!(events.len(), 2, "what came after the last word is ignored");
    for event in events {
        let Event::Request { stream, .. } = event else { panic!() };
        assert!(!bench.connection.is_finished());
        bench.respond(stream, true);
    }
    assert!(bench.connection.is_finished());
}

#[test]
fn a_client_knows_what_was_not_looked_at() {
    let mut bench = Bench::client(Settings::default());
    for _ in 0..3 {
        bench.open(Method::GET, true);
    }
    let mut payload = 1_u32.to_be_bytes().to_vec();
    payload.extend_from_slice(&[0; 4]);
    bench.feed(&frame(kind::GOAWAY, 0, 0, &payload)).unwrap();
    assert_eq!(
        tell(&bench.events()),
        ["reset 3 REFUSED_STREAM Unprocessed", "reset 5 REFUSED_STREAM Unprocessed", "goaway NO_ERROR"]
    );
    assert_eq!(bench.connection.room(), 0);
    assert!(!bench.connection.is_finished());
    bench.feed(&headers(1, true, &[(":status", "200")])).unwrap();
    assert!(bench.connection.is_finished());
}

#[test]
fn a_client_keeps_to_the_peers_bound() {
    let mut bench = Bench::client(Settings { max_streams: 1000, ..Settings::default() });
    bench.feed(&settings(&[(3, 1)])).unwrap();
    assert_eq!(bench.connection.room(), 1);
    bench.open(Method::GET, true);
    let line = RequestLine { method: &Method::GET, scheme: "http", authority: "a", path: "/", protocol: None };
    let full = bench.connection.send_request(&line, &HeaderMap::new(), true);
    assert_eq!(full, Err(crate::Unopened::Full));
}

#[test]
fn numbers_of_streams_run_out() {
    let mut bench = Bench::client(Settings::default());
    bench.connection.next_local = 0x7fff_ffff;
    bench.open(Method::GET, true);
    assert_eq!(bench.connection.room(), 0);
    let line = RequestLine { method: &Method::GET, scheme: "http", authority: "a", path: "/", protocol: None };
    assert_eq!(bench.connection.send_request(&line, &HeaderMap::new(), true), Err(crate::Unopened::Ending));
}

#[test]
fn pings_are_answered_and_asked() {
    let own = Settings { keepalive: Some((100, 50)), ..Settings::default() };
    let mut bench = Bench::server(own);
    bench.feed(&frame(kind::PING, 0, 0, b"12345678")).unwrap();
    let seen = bench.written();
    assert_eq!((seen[0].flags, &seen[0].payload[..]), (1, &b"12345678"[..]));
    assert_eq!(bench.connection.deadline(), Some(100));
    bench.connection.tick(100).unwrap();
    let asked = bench.written();
    assert_eq!(asked[0].kind, kind::PING);
    bench.now = 120;
    bench.feed(&frame(kind::PING, flag::ACK, 0, &asked[0].payload)).unwrap();
    assert_eq!(bench.connection.deadline(), Some(220));
    bench.connection.tick(220).unwrap();
    bench.connection.tick(269).unwrap();
    assert!(bench.connection.tick(270).is_err());
}

#[test]
fn unread_bodies_do_not_hold_the_peer() {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&[post(1), data(1, b"part", false)].concat()).unwrap();
    let events = bench.events();
    let Event::Request { stream, .. } = events[0] else { panic!() };
    bench.connection.consumed(stream, 4);
    bench.connection.discard(stream);
    bench.feed(&data(1, b"more", false)).unwrap();
    assert!(bench.events().is_empty());
    bench.respond(stream, true);
    let seen = bench.written();
    assert_eq!((seen[1].kind, seen[1].number(0)), (kind::RST_STREAM, 0), "the client may stop sending");
    bench.feed(&data(1, b"late", true)).unwrap();
    assert!(bench.written().is_empty());
    assert_eq!(bench.connection.unannounced, 12, "the connection's window is given back all the same");
}

#[test]
fn large_heads_are_cut_into_frames() {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&get(1)).unwrap();
    let stream = bench.request();
    let mut headers = HeaderMap::new();
    headers.insert("x-big", HeaderValue::from_str(&"{".repeat(40_000)).unwrap());
    bench.connection.send_response(stream, StatusCode::OK, &headers, true).unwrap();
    let seen = bench.written();
    let shape: Vec<(u8, u8)> = seen.iter().map(|f| (f.kind, f.flags)).collect();
    assert_eq!(shape, [(kind::HEADERS, 1), (kind::CONTINUATION, 0), (kind::CONTINUATION, 4)]);
}

#[test]
fn tables_of_a_peer_that_allows_none_stay_empty() {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&settings(&[(1, 0)])).unwrap();
    for id in [1, 3, 5] {
        bench.feed(&get(id)).unwrap();
    }
    for event in bench.events() {
        let Event::Request { stream, .. } = event else { continue };
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        bench.connection.send_response(stream, StatusCode::OK, &headers, true).unwrap();
    }
    let seen = bench.written();
    assert_eq!(seen[1].payload[..2], [0x20, 0x88], "the change is announced first");
    assert_eq!(seen[3].payload.len(), seen[2].payload.len());
}
