//! HTTP/2 requests, sound and malformed, through a gateway to servers of both versions.

use crate::GATEWAY;
use anyhow::{Result, ensure};
use tombolo_tests_protocols::{
    wire2::{self, DATA, END_STREAM, Fields, HEADERS, Wire2, fields, frame},
    world::{Arrived, Place, Probe, World},
};

/// What is sent after a head.
enum Then {
    /// Data; true ends the stream.
    Data(&'static [u8], bool),
    /// Trailers, which end the stream.
    Trailers(Fields),
    /// Trailers that do not end it.
    Unended(Fields),
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// It arrives: method, target, host, body.
    Taken(&'static str, &'static str, &'static str, &'static [u8]),
    /// The stream is reset, or answered with 400; nothing whole arrives.
    Refused,
    /// The gateway answers with this status, and nothing arrives.
    Answered(u16),
    /// It is refused when the server has seen this body and may think it whole.
    Late(&'static [u8]),
}

struct Case {
    name: String,
    head: Fields,
    end: bool,
    then: Vec<Then>,
    fate: Fate,
}

const PLAIN: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/p")];
const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":authority", "h"), (":path", "/p")];
const TAKEN: Fate = Fate::Taken("GET", "/p", "h", b"");

fn case(name: impl Into<String>, head: Fields, fate: Fate) -> Case {
    Case { name: name.into(), head, end: true, then: Vec::new(), fate }
}

fn with(more: &[(&str, &str)]) -> Fields {
    fields(&[&PLAIN[..], more].concat())
}

/// The plain request with one of its parts in another shape, or without it.
fn changed(name: &str, value: Option<&str>) -> Fields {
    let part = |(n, v): &(&'static str, &'static str)| match value {
        Some(value) if *n == name => Some((n.as_bytes().to_vec(), value.as_bytes().to_vec())),
        None if *n == name => None,
        _ => Some((n.as_bytes().to_vec(), v.as_bytes().to_vec())),
    };
    PLAIN.iter().filter_map(part).collect()
}

fn raw(name: &[u8], value: &[u8]) -> Fields {
    let mut head = fields(&PLAIN);
    head.push((name.to_vec(), value.to_vec()));
    head
}

fn post(name: &str, more: &[(&str, &str)], then: Vec<Then>, fate: Fate) -> Case {
    Case { name: name.into(), head: fields(&[&POST[..], more].concat()), end: false, then, fate }
}

fn sound() -> Vec<Case> {
    let body = |bytes| Fate::Taken("POST", "/p", "h", bytes);
    let options = fields(&[(":method", "OPTIONS"), (":scheme", "http"), (":authority", "h"), (":path", "*")]);
    vec![
        case("plain", fields(&PLAIN), TAKEN),
        case("pseudo headers in another order", PLAIN.iter().rev().flat_map(|f| fields(&[*f])).collect(), TAKEN),
        case("query", changed(":path", Some("/p?a=b&c")), Fate::Taken("GET", "/p?a=b&c", "h", b"")),
        case("port", changed(":authority", Some("h:80")), Fate::Taken("GET", "/p", "h:80", b"")),
        case("host instead of an authority", [changed(":authority", None), fields(&[("host", "h")])].concat(), TAKEN),
        case("host beside an authority", with(&[("host", "h")]), TAKEN),
        case("host that differs gives way", with(&[("host", "other")]), TAKEN),
        case("te trailers", with(&[("te", "trailers")]), TAKEN),
        case("many cookies", with(&[("cookie", "a=1"), ("cookie", "b=2")]), TAKEN),
        case("underscore", with(&[("x_y", "1")]), TAKEN),
        case("high bytes in a value", raw(b"x", b"\xff\xfe"), TAKEN),
        case("tab in a value", raw(b"x", b"a\tb"), TAKEN),
        case("empty value", raw(b"x", b""), TAKEN),
        case("length zero", with(&[("content-length", "0")]), TAKEN),
        case("options star", options, Fate::Answered(404)),
        post("body", &[], vec![Then::Data(b"hello", true)], body(b"hello")),
        post("body in pieces", &[], vec![Then::Data(b"he", false), Then::Data(b"llo", true)], body(b"hello")),
        post("body with its length", &[("content-length", "5")], vec![Then::Data(b"hello", true)], body(b"hello")),
        post("empty body", &[], vec![Then::Data(b"", true)], body(b"")),
        post(
            "trailers",
            &[],
            vec![Then::Data(b"hello", false), Then::Trailers(fields(&[("x-t", "1")]))],
            body(b"hello"),
        ),
        post("trailers alone", &[], vec![Then::Trailers(fields(&[("x-t", "1")]))], body(b"")),
        post(
            "body that looks like chunks",
            &[],
            vec![Then::Data(b"0\r\n\r\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n", true)],
            body(b"0\r\n\r\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
    ]
}

fn pseudo() -> Vec<Case> {
    let mut out = Vec::new();
    let mut refused = |name: String, head: Fields| out.push(case(name, head, Fate::Refused));
    for (name, value) in PLAIN {
        refused(format!("without {name}"), changed(name, None));
        refused(format!("empty {name}"), changed(name, Some("")));
        refused(format!("{name} twice"), with(&[(name, value)]));
        refused(
            format!("{name} after a regular field"),
            [changed(name, None), fields(&[("x", "1"), (name, value)])].concat(),
        );
        refused(
            format!("{name} in capitals"),
            [changed(name, None), fields(&[(&name.to_uppercase(), value)])].concat(),
        );
    }
    for (name, value) in [
        (":path", "p"),
        (":path", "*"),
        (":path", "?x"),
        (":path", "//h /x"),
        (":path", "http://h/p"),
        (":path", "/a b"),
        (":path", "/a\tb"),
        (":path", "/a\0"),
        (":path", "/a\r\nx: 1"),
        (":path", "/a\n"),
        (":path", "/\x7f"),
        (":path", "/ HTTP/1.1\r\nhost: a\r\n\r\nGET /x"),
        (":method", "GE T"),
        (":method", "GET / HTTP/1.1\r\nx: 1"),
        (":method", "G\0T"),
        (":method", "G:T"),
        (":method", "\"GET\""),
        (":scheme", "ht tp"),
        (":scheme", "1http"),
        (":scheme", "http://h"),
        (":scheme", "http\r\n"),
        (":authority", "a b"),
        (":authority", "u@h"),
        (":authority", "u:p@h"),
        (":authority", "h/p"),
        (":authority", "h?x"),
        (":authority", "h#x"),
        (":authority", "h\\p"),
        (":authority", "h\r\nx: 1"),
        (":authority", "h\0"),
        (":authority", "h\t"),
    ] {
        refused(format!("{name} {value:?}"), changed(name, Some(value)));
    }
    for (name, value) in [(":status", "200"), (":x", "1"), (":", "1"), (":protocol", "websocket"), (":Path", "/x")] {
        refused(format!("{name} in a request"), with(&[(name, value)]));
    }
    refused("an empty block".into(), Vec::new());
    out
}

fn regular() -> Vec<Case> {
    let mut out = Vec::new();
    let mut refused = |name: String, head: Fields| out.push(case(name, head, Fate::Refused));
    for name in
        ["X-Up", "Host", "x Y", "x y", "x:", "x(y", "x@y", "x/y", "x\0y", "x\ry", "x\ny", "x\ty", "x\"", "x\u{e9}", ""]
    {
        refused(format!("name {name:?}"), with(&[(name, "1")]));
    }
    for value in
        [&b"a\nb"[..], b"a\rb", b"a\r\nb: c", b"a\0b", b"\n", b"a\r\n\r\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n", b"a\x7f"]
    {
        refused(format!("value {:?}", String::from_utf8_lossy(value)), raw(b"x", value));
    }
    for (name, value) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "upgrade"),
        ("connection", "x"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
        ("te", "chunked"),
        ("te", ""),
        ("content-length", "+0"),
        ("content-length", "-1"),
        ("content-length", "0x0"),
        ("content-length", "0,0"),
        ("content-length", "0 0"),
        ("content-length", ""),
        ("content-length", "zero"),
        ("content-length", "99999999999999999999"),
        ("content-length", "1"),
        ("host", "a b"),
        ("host", "a/b"),
        ("host", "u@h"),
    ] {
        let head = if name == "host" {
            [changed(":authority", None), fields(&[(name, value)])].concat()
        } else {
            with(&[(name, value)])
        };
        refused(format!("{name}: {value:?}"), head);
    }
    refused("two lengths".into(), with(&[("content-length", "0"), ("content-length", "0")]));
    refused("two hosts".into(), with(&[("host", "h"), ("host", "h")]));
    out
}

fn bodies() -> Vec<Case> {
    let refused = |name: &str, more: &[(&str, &str)], then: Vec<Then>| post(name, more, then, Fate::Refused);
    let data = |bytes, end| Then::Data(bytes, end);
    let trailers = |list: &[(&str, &str)]| vec![Then::Data(b"hello", false), Then::Trailers(fields(list))];
    // Bytes are passed on as they come: what is wrong after the last that was announced is found too late for the server.
    let late = |name: &str, length: &str, then: Vec<Then>, seen: &'static [u8]| {
        post(name, &[("content-length", length)], then, Fate::Late(seen))
    };
    let mut out = vec![
        late("length zero and a body", "0", vec![data(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n", true)], b""),
        late("length passed in pieces", "4", vec![data(b"hell", false), data(b"o", true)], b"hell"),
        refused("length larger than the body", &[("content-length", "6")], vec![data(b"hello", true)]),
        refused("length smaller than the body", &[("content-length", "4")], vec![data(b"hello", true)]),
        refused("length and an empty body", &[("content-length", "5")], vec![data(b"", true)]),
        refused("length and trailers too soon", &[("content-length", "6")], trailers(&[("x", "1")])),
        refused(
            "length and a body of two requests",
            &[("content-length", "3")],
            vec![data(b"abcGET /x HTTP/1.1\r\nhost: a\r\n\r\n", true)],
        ),
        refused("trailers that do not end the stream", &[], vec![Then::Unended(fields(&[("x", "1")]))]),
    ];
    for (name, value) in [
        (":path", "/x"),
        (":method", "GET"),
        (":status", "200"),
        (":x", "1"),
        ("X-Up", "1"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "x"),
        ("te", "gzip"),
        ("x", "a\nb"),
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("", "1"),
        ("x y", "1"),
    ] {
        out.push(refused(&format!("trailer {name}: {value:?}"), &[], trailers(&[(name, value)])));
    }
    out
}

fn connects() -> Vec<Case> {
    let of = |list: &[(&str, &str)]| fields(&[&[(":method", "CONNECT")][..], list].concat());
    let refused = |name: &str, list: &[(&str, &str)]| case(name, of(list), Fate::Refused);
    let (scheme, host, path) = ((":scheme", "http"), (":authority", "h"), (":path", "/p"));
    let socket = (":protocol", "websocket");
    vec![
        case("CONNECT where nobody allowed it", of(&[(":authority", "h:80")]), Fate::Answered(404)),
        case("extended CONNECT where nobody allowed it", of(&[scheme, host, path, socket]), Fate::Answered(403)),
        refused("CONNECT with a scheme", &[host, scheme]),
        refused("CONNECT with a path", &[host, path]),
        refused("CONNECT with both", &[host, scheme, path]),
        refused("CONNECT without an authority", &[]),
        refused("CONNECT with a bad authority", &[(":authority", "u@h:80")]),
        refused("extended CONNECT without a path", &[host, scheme, socket]),
        refused("extended CONNECT without a scheme", &[host, path, socket]),
        refused("extended CONNECT without an authority", &[path, scheme, socket]),
        refused("extended CONNECT with an empty protocol", &[host, path, scheme, (":protocol", "")]),
        refused("extended CONNECT with a protocol that is none", &[host, path, scheme, (":protocol", "web socket")]),
        refused("extended CONNECT with two protocols", &[host, path, scheme, socket, socket]),
    ]
}

fn cases() -> Vec<Case> {
    [sound(), pseudo(), regular(), bodies(), connects()].into_iter().flatten().collect()
}

/// The stream that the case is on; before and behind it are good ones.
const GOOD: u32 = 1;
const BAD: u32 = 3;
const LAST: u32 = 5;

async fn play(place: &Place, probe: &mut Probe, case: &Case) -> Result<()> {
    let probing = fields(&[(":method", "POST"), (":scheme", "http"), (":authority", "h"), (":path", "/probe")]);
    let mut wire = Wire2::open(place.at).await?;
    // A good request is under way on the same connection all the time.
    wire.head(GOOD, &probing, false).await;
    wire.head(BAD, &case.head, case.end).await;
    for then in &case.then {
        wire.send(&encoded(then)).await;
    }
    let fate = wire.fate(BAD).await?;
    probe.ask().await?;
    wire.send(&frame(DATA, END_STREAM, GOOD, b"good")).await;
    let good = wire.fate(GOOD).await?;
    ensure!(good.status == Some(200) && good.body == b"ok", "the other stream: {good:?}; this one: {fate:?}");
    wire.head(LAST, &probing, true).await;
    let last = wire.fate(LAST).await?;
    ensure!(last.status == Some(200) && wire.goaway.is_none(), "a stream later: {last:?}, {:?}", wire.goaway);
    let arrived = probe.arrived(&place.recorder).await?;
    check(case, &wire, &arrived)
}

fn encoded(then: &Then) -> Vec<u8> {
    match then {
        Then::Data(bytes, end) => frame(DATA, u8::from(*end), BAD, bytes),
        Then::Trailers(list) => frame(HEADERS, 5, BAD, &wire2::block(list)),
        Then::Unended(list) => frame(HEADERS, 4, BAD, &wire2::block(list)),
    }
}

fn check(case: &Case, wire: &Wire2, arrived: &Arrived) -> Result<()> {
    let fate = wire.fates.get(&BAD).cloned().unwrap_or_default();
    let nothing = arrived.whole.is_empty() && arrived.broken.is_empty();
    match &case.fate {
        Fate::Taken(method, target, host, body) => {
            ensure!(fate.status == Some(200) && fate.body == b"ok", "{fate:?}");
            let [(head, bytes)] = &arrived.whole[..] else { anyhow::bail!("the server saw {arrived:?}") };
            let found = (head.method.as_str(), head.target.as_str(), head.host.as_str(), &bytes[..]);
            ensure!(found == (*method, *target, *host, *body), "the server saw {found:?}");
            ensure!(arrived.broken.is_empty(), "the server saw {arrived:?}");
        }
        Fate::Refused => {
            ensure!(fate.reset == Some(1) || fate.status == Some(400), "{fate:?}");
            ensure!(arrived.whole.is_empty(), "the server saw {arrived:?}");
            // Of a body that turns out to be wrong the beginning may be seen, and then that it broke off.
            ensure!(nothing || !case.then.is_empty(), "the server saw {arrived:?}");
        }
        Fate::Answered(status) => {
            ensure!(fate.status == Some(*status) && nothing, "{fate:?}, and the server saw {arrived:?}");
        }
        Fate::Late(body) => {
            ensure!(fate.reset == Some(1) || answered(&fate), "{fate:?}");
            let fine = arrived.whole.iter().all(|(_, seen)| seen == body);
            ensure!(fine && arrived.whole.len() < 2, "the server saw {arrived:?}");
        }
    }
    Ok(())
}

/// The server had all it was told to expect and answered before the rest came, which nobody heeds any more (RFC 9113, 8.1).
fn answered(fate: &wire2::Fate) -> bool {
    fate.status == Some(200) && fate.reset == Some(0)
}

/// By default the whole connection of who breaks the rules ends, as Envoy has it; everybody else's goes on.
async fn play_harshly(place: &Place, probe: &mut Probe, case: &Case) -> Result<()> {
    let mut wire = Wire2::open(place.at).await?;
    wire.head(BAD, &case.head, case.end).await;
    for then in &case.then {
        wire.send(&encoded(then)).await;
    }
    // A body that differs from its length ends its stream only.
    let fate = |wire: &Wire2| wire.fates.get(&BAD).cloned().unwrap_or_default();
    wire.until(|wire| fate(wire).reset.is_some()).await?;
    let fate = fate(&wire);
    if !(matches!(case.fate, Fate::Late(_)) && answered(&fate)) {
        ensure!(wire.ended || (fate.reset == Some(1) && !case.then.is_empty()), "{fate:?}");
        ensure!(wire.fates.values().all(|fate| fate.status.is_none()), "{:?}", wire.fates);
    }
    let arrived = probe.arrived(&place.recorder).await?;
    let seen: &[u8] = if let Fate::Late(seen) = case.fate { seen } else { b"" };
    let fine = match &arrived.whole[..] {
        [] => true,
        [(_, body)] => matches!(case.fate, Fate::Late(_)) && body == seen,
        _ => false,
    };
    ensure!(fine && (arrived.broken.is_empty() || !case.then.is_empty()), "the server saw {arrived:?}");
    Ok(())
}

async fn all(place: &Place, cases: &[Case], gentle: bool) -> Vec<String> {
    let mut probe = Probe::open(place.at).await.unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let played =
            if gentle { play(place, &mut probe, case).await } else { play_harshly(place, &mut probe, case).await };
        if let Err(error) = played {
            wrong.push(format!("{}: {error:#}", case.name));
            let _ = place.recorder.take();
        }
    }
    wrong
}

async fn check_all(cases: &[Case], gentle: bool) {
    let world = World::start(GATEWAY, gentle).await.unwrap();
    let (one, two) = tokio::join!(all(&world.one, cases, gentle), all(&world.two, cases, gentle));
    let report = |wrong: &[String]| format!("{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(one.is_empty() && two.is_empty(), "to HTTP/1 {}\nto HTTP/2 {}", report(&one), report(&two));
    world.gateway.is_whole().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_streams_stop_at_the_gateway() {
    let cases = cases();
    assert!(cases.len() >= 160, "{} cases", cases.len());
    check_all(&cases, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_streams_end_their_own_connection_only() {
    let refused = |case: &Case| matches!(case.fate, Fate::Refused | Fate::Late(_));
    let cases: Vec<Case> = cases().into_iter().filter(refused).collect();
    assert!(cases.len() >= 130, "{} cases", cases.len());
    check_all(&cases, false).await;
}
