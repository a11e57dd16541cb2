//! HTTP/2 on either side, gRPC, upgrades, CONNECT.

use crate::{
    resource::{chain, cluster, h2, hcm, hcm_hosts, http, http_with, listener, options_of, to, with},
    script::{Act, Call, Case, End, Piece, Scenario, Step, act, call, get, http2, post, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![pairings(), grpc(), upgrades(), connect()]
}

fn body(path: &'static str, pieces: Vec<Piece>) -> Call {
    Call { method: "POST", body: pieces, ..call(path) }
}

fn data(text: &str) -> Piece {
    Piece::Data(text.as_bytes().to_vec())
}

fn pairings() -> Scenario {
    let big: Vec<u8> = (0..1_500_000_u32).map(|n| b'a' + u8::try_from(n % 23).unwrap_or(0)).collect();
    let chunks = b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n";
    let on = json!({"http_protocol_options": {"enable_trailers": true}});
    let resources = vec![
        http_with(vec![to("/two", "two", json!({})), to("/one", "one", json!({}))], on),
        cluster("two", &["$b0"], h2(json!({}))),
        cluster(
            "one",
            &["$b1"],
            options_of(json!({"explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}})),
        ),
    ];
    let reset = |code| act().end(End::ResetStream(code)).always();
    let cases = vec![
        get("1 to 2", "/two", &[]),
        post("1 to 2, body", "/two", &[], b"hello"),
        post("1 to 2, chunks and trailers", "/two", &[("transfer-encoding", "chunked")], chunks),
        get("1 to 2, trailers back", "/two", &[]).then(0, act().trailer("x-end", "1")),
        raw("1 to 2, head", vec![Step::Send(request("HEAD", "/two", &[], b"")), Step::AnswerToHead]),
        get("1 to 2, te", "/two", &[("te", "trailers, gzip"), ("connection", "te")]),
        get("1 to 2, cookies", "/two", &[("cookie", "a=1; b=2")]),
        get("1 to 2, refused stream", "/two", &[]).then(0, reset(7)),
        get("1 to 2, cancelled stream", "/two", &[]).then(0, reset(8)),
        get("1 to 2, internal error", "/two", &[]).then(0, reset(2)),
        get("1 to 2, reset in the body", "/two", &[]).then(0, act().end(End::ResetStreamInBody(2))),
        raw(
            "1 to 2, goaway",
            vec![
                Step::Send(request("GET", "/two", &[], b"")),
                Step::Answer,
                Step::Sleep(60),
                Step::Send(request("GET", "/two", &[], b"")),
                Step::Answer,
            ],
        )
        .then(0, act().end(End::GoAway)),
        http2("2 to 1", vec![call("/one")]),
        http2("2 to 1, body", vec![body("/one", vec![data("hello"), Piece::End])]),
        http2("2 to 1, trailers", vec![body("/one", vec![data("hello"), Piece::Trailers(vec![("x-sum", "1")])])]),
        http2("2 to 1, trailers back", vec![call("/one")]).then(1, act().trailer("x-end", "1")),
        http2("2 to 1, reset", vec![call("/one")]).then(1, act().end(End::Reset).always()),
        http2("2 to 1, cut", vec![call("/one")]).then(1, act().raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")),
        http2("2 to 1, 304", vec![call("/one")]).then(1, act().status(304)),
        http2(
            "2 to 1, cookie crumbs",
            vec![Call { headers: vec![("cookie", "a=1"), ("cookie", "b=2")], ..call("/one") }],
        ),
        http2("2 to 2", vec![call("/two?q=1")]),
        http2("2 to 2, body", vec![body("/two", vec![data("hello"), Piece::End])]),
        http2("2 to 2, big", vec![body("/two", vec![Piece::Data(big.clone()), Piece::End])]).then(0, act().body(big)),
        http2("2 to 2, trailers both ways", vec![body("/two", vec![data("a"), Piece::Trailers(vec![("x-t", "1")])])])
            .then(0, act().trailer("x-u", "2")),
        http2(
            "2 to 2, cookie crumbs",
            vec![Call { headers: vec![("cookie", "a=1"), ("cookie", "b=2")], ..call("/two") }],
        ),
        http2(
            "2 to 2, three at once",
            vec![
                Call { together: true, ..call("/two?1") },
                Call { together: true, ..call("/two?2") },
                Call { together: true, ..call("/two?3") },
            ],
        )
        .then(0, act().delay(60).always()),
        http2("2 to 2, stream reset", vec![call("/two")]).then(0, reset(2)),
        http2("2 to 2, reset in the body", vec![call("/two")]).then(0, act().end(End::ResetStreamInBody(8))),
        http2("2 to 2, client resets", vec![body("/two", vec![data("a"), Piece::Sleep(60), Piece::Reset(8)])])
            .settling(100),
        http2(
            "2 to 2, others go on",
            vec![
                Call { together: true, ..body("/two?1", vec![data("a"), Piece::Sleep(60), Piece::Reset(8)]) },
                Call { together: true, ..call("/two?2") },
            ],
        )
        .then(0, act().delay(150).always())
        .settling(100),
    ];
    scenario("pairings", resources, cases)
}

fn grpc() -> Scenario {
    let fields = || vec![("content-type", "application/grpc"), ("te", "trailers")];
    let unary =
        |path| Call { method: "POST", headers: fields(), body: vec![data("\0\0\0\0\x01a"), Piece::End], ..call(path) };
    let answers = || act().header("content-type", "application/grpc").body("\0\0\0\0\x01b").trailer("grpc-status", "0");
    let resources = vec![
        http(vec![
            to("/slow", "c", json!({"timeout": "0.3s"})),
            to("/deadline", "c", json!({"timeout": "5s", "max_stream_duration": {"grpc_timeout_header_max": "5s"}})),
            to("/retry", "c", json!({"retry_policy": {"retry_on": "unavailable,cancelled", "num_retries": 2}})),
            to("/dead", "dead", json!({})),
            to("/none", "none", json!({})),
            to("/", "c", json!({})),
        ]),
        cluster("c", &["$b0"], h2(json!({}))),
        cluster("dead", &["$dead"], h2(json!({}))),
    ];
    let trailers_only = |code| Act {
        trailers_only: true,
        ..act().header("content-type", "application/grpc").trailer("grpc-status", code)
    };
    let one = |name, path, script: Vec<Act>| {
        script.into_iter().fold(http2(name, vec![unary(path)]), |case, act| case.then(0, act))
    };
    let echo = |pieces| Call { method: "POST", headers: fields(), body: pieces, ..call("/echo") };
    let stream = || Act { echo: true, ..act().header("content-type", "application/grpc").trailer("grpc-status", "0") };
    let deadline = |value| {
        let mut call = unary("/deadline");
        call.headers.push(("grpc-timeout", value));
        call
    };
    let cases = vec![
        one("unary", "/a", vec![answers()]),
        one("trailers-only", "/a", vec![trailers_only("5")]),
        one(
            "error after a message",
            "/a",
            vec![act().header("content-type", "application/grpc").trailer("grpc-status", "13")],
        ),
        one("503 of the server", "/a", vec![act().status(503)]),
        one("reset by the server", "/a", vec![act().end(End::ResetStream(2)).always()]),
        one("timeout of the route", "/slow", vec![answers().delay(900)]).within(200, 800),
        one("nobody there", "/dead", vec![]),
        one("no such cluster", "/none", vec![]),
        http2("deadline of the client", vec![deadline("300m")]).then(0, answers().delay(900)).within(200, 800),
        http2("deadline kept", vec![deadline("4S")]).then(0, answers()),
        one("retried when unavailable", "/retry", vec![trailers_only("14"), answers()]),
        one("retried, still unavailable", "/retry", vec![trailers_only("14").always()]),
        one("not retried", "/retry", vec![trailers_only("3"), answers()]),
        http2(
            "both streams",
            vec![echo(vec![
                data("one"),
                Piece::Await(3),
                data("two"),
                Piece::Await(6),
                data("three"),
                Piece::Await(11),
                Piece::End,
            ])],
        )
        .then(0, stream()),
        http2("client stream left open, reset", vec![echo(vec![data("one"), Piece::Await(3), Piece::Reset(8)])])
            .then(0, stream())
            .settling(80),
        post("from HTTP/1", "/a", &[("content-type", "application/grpc")], b"\0\0\0\0\x01a").then(0, answers()),
    ];
    scenario("grpc", resources, cases)
}

fn socket_fields() -> [(&'static str, &'static str); 4] {
    [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ]
}

fn tunnel(name: &'static str, path: &str) -> Case {
    let steps = vec![
        Step::Send(request("GET", path, &socket_fields(), b"")),
        Step::Answer,
        Step::Send(b"hello".to_vec()),
        Step::Read(5),
        Step::Shut,
        Step::ReadEnd,
    ];
    raw(name, steps)
}

fn upgrades() -> Scenario {
    let more = json!({
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http2_protocol_options": {"allow_connect": true},
    });
    let resources = vec![
        http_with(
            vec![
                to("/two", "two", json!({})),
                to("/off", "one", json!({"upgrade_configs": [{"upgrade_type": "websocket", "enabled": false}]})),
                to("/short", "one", json!({"timeout": "0.3s"})),
                to("/", "one", json!({})),
            ],
            more,
        ),
        listener(1, vec![chain(hcm(vec![to("/", "one", json!({}))], json!({})))], json!({})),
        cluster("one", &["$b0"], json!({})),
        cluster("two", &["$b1"], h2(json!({"allow_connect": true}))),
    ];
    let extended = |path| Call {
        method: "CONNECT",
        protocol: "websocket",
        headers: vec![("sec-websocket-version", "13")],
        body: vec![data("hello"), Piece::Await(5), Piece::End],
        ..call(path)
    };
    let refused = |status| Act { no_upgrade: true, ..act().status(status) };
    let start = |path| request("GET", path, &socket_fields(), b"");
    let cases = vec![
        tunnel("1 to 1", "/"),
        tunnel("1 to 1, longer than the timeout", "/short"),
        tunnel("1 to 2", "/two"),
        tunnel("off on the route", "/off").then(0, act()),
        raw("refused with 403", vec![Step::Send(start("/")), Step::Answer]).then(0, refused(403)),
        raw("answered with 200", vec![Step::Send(start("/")), Step::Answer]).then(0, refused(200)),
        raw(
            "another upgrade",
            vec![
                Step::Send(request("GET", "/", &[("connection", "upgrade"), ("upgrade", "other")], b"")),
                Step::Answer,
            ],
        ),
        raw("not allowed", vec![Step::Send(start("/")), Step::Answer]).on(1),
        raw(
            "bytes with the head",
            vec![Step::Send([start("/"), b"early".to_vec()].concat()), Step::Answer, Step::Read(5)],
        ),
        http2("2 to 1", vec![extended("/")]),
        http2("2 to 2", vec![extended("/two")]),
        http2("2, refused", vec![extended("/")]).then(0, refused(403)),
        http2("2, not allowed", vec![extended("/")]).on(1),
    ];
    scenario("upgrades", resources, cases)
}

fn connect() -> Scenario {
    let upgrade = |config: Value| json!({"upgrade_configs": [with(json!({"upgrade_type": "CONNECT"}), config)]});
    let route = |cluster: &str, config: Value| json!({"match": {"connect_matcher": {}}, "route": with(json!({"cluster": format!("$s-{cluster}")}), upgrade(config))});
    let host = |name: &str, routes: Vec<Value>| json!({"name": name, "domains": [name], "routes": routes});
    let hosts = vec![
        host("tunnel.test:443", vec![route("bytes", json!({"connect_config": {}}))]),
        host("dead.test:443", vec![route("dead", json!({"connect_config": {}}))]),
        host("pass.test:443", vec![route("http", json!({}))]),
        host("*", vec![to("/", "http", json!({}))]),
    ];
    let more =
        json!({"upgrade_configs": [{"upgrade_type": "CONNECT"}], "http2_protocol_options": {"allow_connect": true}});
    let resources = vec![
        listener(0, vec![chain(hcm_hosts(hosts, more))], json!({})),
        cluster("bytes", &["$b0"], json!({})),
        cluster("http", &["$b1"], json!({})),
        cluster("dead", &["$dead"], json!({})),
    ];
    let start = |to: &str| format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\nx-case: @CASE@\r\n\r\n").into_bytes();
    let talk = |name, to: &str| {
        raw(
            name,
            vec![
                Step::Send(start(to)),
                Step::AnswerToConnect,
                Step::Send(b"hello".to_vec()),
                Step::Read(5),
                Step::Shut,
                Step::ReadEnd,
            ],
        )
    };
    let call = |authority| Call {
        method: "CONNECT",
        authority,
        body: vec![data("hello"), Piece::Await(5), Piece::End],
        ..Call::default()
    };
    let cases = vec![
        talk("ended here", "tunnel.test:443"),
        talk("passed on", "pass.test:443"),
        raw("nobody there", vec![Step::Send(start("dead.test:443")), Step::Answer]),
        raw("no such host", vec![Step::Send(start("other.test:443")), Step::Answer]),
        http2("2, ended here", vec![call("tunnel.test:443")]),
        http2("2, nobody there", vec![call("dead.test:443")]),
    ];
    Scenario { bytes: &[0], ..scenario("connect", resources, cases) }
}
