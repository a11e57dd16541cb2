//! Tests of protocol errors: each with its code and its scope.

use super::*;

/// What must become of a connection that is fed these frames after a GET on stream 1 was opened without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Stream(Code),
    Connection(Code),
    Malformed,
}

fn judge(bench: &mut Bench, bytes: &[u8], stream: u32) -> Verdict {
    let outcome = bench.feed(bytes);
    let seen = bench.written();
    match outcome {
        Err(error) if error.malformed => {
            assert!(seen.iter().all(|f| f.kind != kind::GOAWAY));
            Verdict::Malformed
        }
        Err(error) => {
            let last = seen.last().unwrap();
            assert_eq!((last.kind, last.number(4)), (kind::GOAWAY, error.code.0), "the peer is told");
            assert_eq!(bench.feed(b"x"), Err(error), "nothing more is read");
            Verdict::Connection(error.code)
        }
        Ok(()) => match seen.iter().find(|f| f.kind == kind::RST_STREAM) {
            Some(reset) => {
                assert_eq!(reset.stream, stream);
                Verdict::Stream(Code(reset.number(0)))
            }
            None => Verdict::Fine,
        },
    }
}

fn check(what: &str, bytes: &[u8], expect: Verdict) {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&post(1)).unwrap();
    bench.events();
    assert_eq!(judge(&mut bench, bytes, 1), expect, "{what}");
    if expect == Verdict::Fine || matches!(expect, Verdict::Stream(_)) {
        bench.events();
        bench.feed(&get(101)).unwrap();
        bench.request();
    }
}

use Verdict::{Connection as C, Fine, Malformed, Stream as S};

#[test]
fn frames_that_break_framing() {
    let ping = |length: usize| frame(kind::PING, 0, 0, &vec![0; length]);
    check("PING of 7", &ping(7), C(Code::FRAME_SIZE_ERROR));
    check("PING of 9", &ping(9), C(Code::FRAME_SIZE_ERROR));
    check("PING on a stream", &frame(kind::PING, 0, 1, &[0; 8]), C(Code::PROTOCOL_ERROR));
    check("frame too large", &frame(kind::DATA, 0, 1, &vec![0; 16_385]), C(Code::FRAME_SIZE_ERROR));
    check("largest frame", &frame(kind::DATA, 0, 1, &vec![0; 16_384]), Fine);
    check("DATA on stream 0", &data(0, b"x", false), C(Code::PROTOCOL_ERROR));
    check("DATA on an idle stream", &data(3, b"x", false), C(Code::PROTOCOL_ERROR));
    check("DATA on an even stream", &data(2, b"x", false), C(Code::PROTOCOL_ERROR));
    check("padding too long", &frame(kind::DATA, flag::PADDED, 1, &[5, 0, 0, 0, 0]), C(Code::PROTOCOL_ERROR));
    check("padding alone", &frame(kind::DATA, flag::PADDED, 1, &[4, 0, 0, 0, 0]), Fine);
    check("padding without length", &frame(kind::DATA, flag::PADDED, 1, &[]), C(Code::FRAME_SIZE_ERROR));
    check("RST_STREAM of 3", &frame(kind::RST_STREAM, 0, 1, &[0; 3]), C(Code::FRAME_SIZE_ERROR));
    check("RST_STREAM on stream 0", &reset(0, Code::CANCEL), C(Code::PROTOCOL_ERROR));
    check("RST_STREAM on an idle stream", &reset(9, Code::CANCEL), C(Code::PROTOCOL_ERROR));
    check("push", &frame(kind::PUSH_PROMISE, 4, 1, &[0; 4]), C(Code::PROTOCOL_ERROR));
    check("GOAWAY on a stream", &frame(kind::GOAWAY, 0, 1, &[0; 8]), C(Code::PROTOCOL_ERROR));
    check("GOAWAY of 7", &frame(kind::GOAWAY, 0, 0, &[0; 7]), C(Code::FRAME_SIZE_ERROR));
    check("PRIORITY on stream 0", &frame(kind::PRIORITY, 0, 0, &[0; 5]), C(Code::PROTOCOL_ERROR));
    check("PRIORITY of 4", &frame(kind::PRIORITY, 0, 1, &[0; 4]), S(Code::FRAME_SIZE_ERROR));
    check("PRIORITY", &frame(kind::PRIORITY, 0, 7, &[0; 5]), Fine);
    check("unknown frame", &frame(0xbb, 0xff, 0, b"what"), Fine);
    check("unknown frame on a stream", &frame(0xbb, 0, 1, b"what"), Fine);
}

#[test]
fn settings_that_break_rules() {
    check("on a stream", &frame(kind::SETTINGS, 0, 1, &[]), C(Code::PROTOCOL_ERROR));
    check("of 5", &frame(kind::SETTINGS, 0, 0, &[0; 5]), C(Code::FRAME_SIZE_ERROR));
    check("ACK with a payload", &frame(kind::SETTINGS, 1, 0, &[0; 6]), C(Code::FRAME_SIZE_ERROR));
    check("ENABLE_PUSH 2", &settings(&[(2, 2)]), C(Code::PROTOCOL_ERROR));
    check("ENABLE_PUSH 1", &settings(&[(2, 1)]), Fine);
    check("window", &settings(&[(4, 1 << 31)]), C(Code::FLOW_CONTROL_ERROR));
    check("frame size too small", &settings(&[(5, 16_383)]), C(Code::PROTOCOL_ERROR));
    check("frame size too large", &settings(&[(5, 1 << 24)]), C(Code::PROTOCOL_ERROR));
    check("ENABLE_CONNECT_PROTOCOL 2", &settings(&[(8, 2)]), C(Code::PROTOCOL_ERROR));
    check("ENABLE_CONNECT_PROTOCOL back to 0", &settings(&[(8, 1), (8, 0)]), C(Code::PROTOCOL_ERROR));
    check("unknown", &settings(&[(99, 5)]), Fine);
    let overflow = [window(1, 0x7fff_0000), settings(&[(4, 0x7fff_ffff)])].concat();
    check("a window that overflows", &overflow, C(Code::FLOW_CONTROL_ERROR));
}

#[test]
fn windows_that_break_rules() {
    check("0 on the connection", &window(0, 0), C(Code::PROTOCOL_ERROR));
    check("0 on a stream", &window(1, 0), S(Code::PROTOCOL_ERROR));
    check("idle stream", &window(5, 1), C(Code::PROTOCOL_ERROR));
    check("of 3", &frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), C(Code::FRAME_SIZE_ERROR));
    check("overflow on the connection", &window(0, 0x7fff_ffff), C(Code::FLOW_CONTROL_ERROR));
    check("overflow on a stream", &window(1, 0x7fff_ffff), S(Code::FLOW_CONTROL_ERROR));
    check("reserved bit", &window(1, 0x8000_0001), Fine);
}

#[test]
fn headers_out_of_order() {
    check("stream 0", &headers(0, true, &GET), C(Code::PROTOCOL_ERROR));
    check("even stream", &headers(2, true, &GET), C(Code::PROTOCOL_ERROR));
    check("CONTINUATION alone", &frame(kind::CONTINUATION, 4, 1, &[]), C(Code::PROTOCOL_ERROR));
    let begun = frame(kind::HEADERS, 1, 3, &block(&GET));
    check("DATA inside", &[begun.clone(), data(1, b"x", false)].concat(), C(Code::PROTOCOL_ERROR));
    check("PING inside", &[begun.clone(), frame(kind::PING, 0, 0, &[0; 8])].concat(), C(Code::PROTOCOL_ERROR));
    check("unknown frame inside", &[begun.clone(), frame(0xbb, 0, 0, &[])].concat(), C(Code::PROTOCOL_ERROR));
    let other = frame(kind::CONTINUATION, 4, 1, &[]);
    check("CONTINUATION of another stream", &[begun, other].concat(), C(Code::PROTOCOL_ERROR));
    check("a number that goes back", &[get(9), get(7)].concat(), C(Code::STREAM_CLOSED));
    check("priority cut off", &frame(kind::HEADERS, 0x24, 3, &[0; 4]), C(Code::FRAME_SIZE_ERROR));
    check("bad compression", &frame(kind::HEADERS, 5, 3, &[0xff; 9]), C(Code::COMPRESSION_ERROR));
}

#[test]
fn frames_on_closed_streams() {
    let done = data(1, b"", true);
    let after = |next: Vec<u8>| [done.clone(), next].concat();
    check("DATA after the end", &after(data(1, b"x", false)), S(Code::STREAM_CLOSED));
    check("HEADERS after the end", &after(headers(1, true, &[("a", "b")])), S(Code::STREAM_CLOSED));
    check("window after the end", &after(window(1, 5)), Fine);
    let gone = |next: Vec<u8>| [reset(1, Code::CANCEL), next].concat();
    check("DATA after a reset", &gone(data(1, b"x", false)), S(Code::STREAM_CLOSED));
    check("HEADERS after a reset", &gone(headers(1, true, &GET)), C(Code::STREAM_CLOSED));
    check("window after a reset", &gone(window(1, 5)), Fine);
    check("reset after a reset", &gone(reset(1, Code::CANCEL)), Fine);
    // After our own reset the peer may not know yet.
    let mut bench = Bench::server(Settings::default());
    bench.feed(&post(1)).unwrap();
    let stream = bench.request();
    bench.connection.reset(stream, Code::CANCEL);
    bench.written();
    let late = [data(1, b"x", false), headers(1, true, &[("a", "b")])].concat();
    assert_eq!(judge(&mut bench, &late, 1), Fine);
}

#[test]
fn bodies_that_differ_from_their_length() {
    let sized = |length: &'static str| headers(3, false, &[&GET[..], &[("content-length", length)]].concat());
    let case = |length, parts: &[&[u8]], expect| {
        let mut all = sized(length);
        for (at, part) in parts.iter().enumerate() {
            all.extend(data(3, part, at + 1 == parts.len()));
        }
        let mut bench = Bench::server(Settings::default());
        assert_eq!(judge(&mut bench, &all, 3), expect, "{length} {parts:?}");
    };
    case("5", &[b"hello"], Fine);
    case("5", &[b"he", b"llo"], Fine);
    case("5", &[b"hello", b""], Fine);
    case("3", &[b"hello"], S(Code::PROTOCOL_ERROR));
    case("9", &[b"hello"], S(Code::PROTOCOL_ERROR));
    case("0", &[b""], Fine);
    let trailers = [sized("5"), data(3, b"hell", false), headers(3, true, &[("a", "b")])].concat();
    check_on(&trailers, 3, S(Code::PROTOCOL_ERROR));
    check("a length and no body", &headers(3, true, &[&GET[..], &[("content-length", "5")]].concat()), Malformed);
}

fn check_on(bytes: &[u8], stream: u32, expect: Verdict) {
    assert_eq!(judge(&mut Bench::server(Settings::default()), bytes, stream), expect);
}

#[test]
fn malformed_messages_end_the_connection_or_one_stream() {
    let bad = [
        headers(3, true, &[&GET[..], &[("X-Up", "1")]].concat()),
        headers(3, true, &[&GET[..], &[("connection", "close")]].concat()),
        headers(3, true, &GET[1..]),
        [post(3), headers(3, true, &[(":path", "/x")])].concat(),
        [post(3), headers(3, false, &[("a", "b")])].concat(),
    ];
    for bytes in bad {
        check("by default", &bytes, Malformed);
        let mut bench = Bench::server(Settings { malformed_ends_stream: true, ..Settings::default() });
        assert_eq!(judge(&mut bench, &bytes, 3), S(Code::PROTOCOL_ERROR));
        bench.events();
        bench.feed(&get(5)).unwrap();
        bench.request();
    }
}

#[test]
fn heads_beyond_the_bounds_end_one_stream_and_keep_the_tables_in_step() {
    let mut bench = Bench::server(Settings::default());
    let mut encoder = Encoder::new(false);
    let mut large = BytesMut::new();
    let mut next = BytesMut::new();
    let value = HeaderValue::from_static("kept in the table");
    let name = http::HeaderName::from_static("x-kept");
    for out in [&mut large, &mut next] {
        encoder.begin(out);
        for (pseudo, text) in
            [(Pseudo::Method, "GET"), (Pseudo::Scheme, "http"), (Pseudo::Path, "/"), (Pseudo::Authority, "a")]
        {
            encoder.pseudo(pseudo, text, out);
        }
        for _ in 0..2 {
            encoder.header(&name, &value, out);
        }
    }
    for _ in 0..101 {
        large.extend_from_slice(&block(&[("x", "1")]));
    }
    bench.feed(&frame(kind::HEADERS, 5, 1, &large)).unwrap();
    let seen = bench.written();
    assert_eq!((seen[0].kind, seen[0].number(0)), (kind::RST_STREAM, Code::INTERNAL_ERROR.0));
    assert!(bench.events().is_empty());
    bench.feed(&frame(kind::HEADERS, 5, 3, &next)).unwrap();
    let events = bench.events();
    let [Event::Request { head, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(head.headers.get_all("x-kept").iter().all(|v| v == value));
}

#[test]
fn a_connection_begins_as_it_must() {
    let mut server = Connection::server(Settings::default(), 0);
    let error = server.receive(&mut BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]), 0).unwrap_err();
    assert_eq!(error.code, Code::PROTOCOL_ERROR);
    let mut server = Connection::server(Settings::default(), 0);
    let early = [&PREFACE[..], &get(1)].concat();
    assert_eq!(server.receive(&mut BytesMut::from(&early[..]), 0).unwrap_err().code, Code::PROTOCOL_ERROR);
    let mut server = Connection::server(Settings::default(), 0);
    let ack = [&PREFACE[..], &frame(kind::SETTINGS, 1, 0, &[])].concat();
    assert_eq!(server.receive(&mut BytesMut::from(&ack[..]), 0).unwrap_err().code, Code::PROTOCOL_ERROR);
}

#[test]
fn clients_refuse_what_servers_may_not_do() {
    let case = |what: &str, bytes: &[u8], expect| {
        let mut bench = Bench::client(Settings { malformed_ends_stream: true, ..Settings::default() });
        bench.open(Method::GET, true);
        bench.written();
        assert_eq!(judge(&mut bench, bytes, 1), expect, "{what}");
    };
    let ok = headers(1, false, &[(":status", "200")]);
    case("a stream of its own", &headers(2, true, &[(":status", "200")]), C(Code::PROTOCOL_ERROR));
    case("an idle stream", &headers(3, true, &[(":status", "200")]), C(Code::PROTOCOL_ERROR));
    case("DATA first", &data(1, b"x", false), S(Code::PROTOCOL_ERROR));
    case("no status", &headers(1, true, &[("a", "b")]), S(Code::PROTOCOL_ERROR));
    case("status 101", &headers(1, false, &[(":status", "101")]), S(Code::PROTOCOL_ERROR));
    case("interim with the end", &headers(1, true, &[(":status", "103")]), S(Code::PROTOCOL_ERROR));
    case("head twice", &[ok.clone(), ok.clone()].concat(), S(Code::PROTOCOL_ERROR));
    case("ENABLE_PUSH 1", &settings(&[(2, 1)]), C(Code::PROTOCOL_ERROR));
    case("upper case", &headers(1, true, &[(":status", "200"), ("X", "1")]), S(Code::PROTOCOL_ERROR));
    case("after the end", &[headers(1, true, &[(":status", "200")]), ok].concat(), C(Code::STREAM_CLOSED));
}

#[test]
fn a_stream_that_the_peer_ends_is_told_with_its_code() {
    let mut bench = Bench::client(Settings::default());
    bench.open(Method::GET, true);
    bench.open(Method::GET, true);
    bench.feed(&[reset(1, Code::REFUSED_STREAM), reset(3, Code::CANCEL)].concat()).unwrap();
    let ends: Vec<(Code, Cause)> = bench
        .events()
        .iter()
        .map(|e| if let Event::Reset { code, cause, .. } = e { (*code, *cause) } else { panic!("{e:?}") })
        .collect();
    assert_eq!(ends, [(Code::REFUSED_STREAM, Cause::Peer), (Code::CANCEL, Cause::Peer)]);
}
