//! HTTP/1.1 to HTTP/1.1: bodies, trailers, interim answers, limits, the life of a connection.

use crate::{
    resource::{chain, cluster, hcm, http, http_with, listener, options_of, to, with},
    script::{Case, End, Scenario, Step, act, get, post, raw, request, scenario},
};
use serde_json::json;

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![plain(), trailers(), big(), old(), limits(), life(), unix(), buffers()]
}

fn two(name: &'static str, first: Vec<u8>, second: Vec<u8>) -> Case {
    raw(name, vec![Step::Send([first, second].concat()), Step::Answer, Step::Answer])
}

fn plain() -> Scenario {
    let expect = |name, fields: &[(&str, &str)]| {
        let whole = request("POST", "/", fields, b"");
        raw(name, vec![Step::Send(whole), Step::Sleep(60), Step::Send(b"hello".to_vec()), Step::Answer])
    };
    let cases = vec![
        get("get", "/", &[]),
        post("post", "/a?b=c", &[], b"hello"),
        get("not found", "/x", &[]).then(0, act().status(404).header("x-a", "b").body("nothing here")),
        raw("head", vec![Step::Send(request("HEAD", "/", &[], b"")), Step::AnswerToHead]),
        two("two in one segment", request("GET", "/1", &[], b""), request("GET", "/2", &[], b"")),
        two("close asked for", request("GET", "/1", &[("connection", "close")], b""), request("GET", "/2", &[], b"")),
        post("chunked request", "/", &[("transfer-encoding", "chunked")], b"5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\n\r\n"),
        post("empty chunked request", "/", &[("transfer-encoding", "chunked")], b"0\r\n\r\n"),
        expect("100-continue", &[("content-length", "5"), ("expect", "100-continue")]),
        raw(
            "100-continue refused",
            vec![
                Step::Send(request("POST", "/", &[("content-length", "5"), ("expect", "100-continue")], b"")),
                Step::Answer,
            ],
        )
        .then(0, crate::script::Act { no_continue: true, ..act().raw(b"HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n") })
        .ignoring(&["closed"]),
        get("103 first", "/", &[])
            .then(0, crate::script::Act { interim: vec![(103, vec![("link", "</a>")])], ..act() }),
        get("closes", "/", &[]).then(0, act().end(End::Close)),
        get("body to the end", "/", &[]).then(0, act().raw(b"HTTP/1.1 200 OK\r\nx-y: z\r\n\r\nto the end")),
        get("cut short", "/", &[]).then(0, act().raw(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nshort")),
        get("cut in a chunk", "/", &[])
            .then(0, act().raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nshort")),
        get("nothing", "/", &[]).then(0, act().end(End::Shut).always()),
        get("reset", "/", &[]).then(0, act().end(End::Reset).always()),
        get("reset in the body", "/", &[]).then(0, act().body("0123456789").end(End::ResetInBody)),
        get("not HTTP", "/", &[]).then(0, act().raw(b"hello there\r\n\r\n").always()),
        get("204", "/", &[]).then(0, act().status(204)),
        get("304", "/", &[]).then(0, act().status(304).header("etag", "x")),
        get("late body", "/", &[]).then(0, crate::script::Act { body_delay: 200, ..act() }),
        raw("client leaves", vec![Step::Send(request("GET", "/", &[], b"")), Step::Sleep(80), Step::Reset])
            .then(0, act().delay(400))
            .settling(500),
        raw(
            "client leaves in its body",
            vec![
                Step::Send(request("POST", "/", &[("content-length", "50")], b"")),
                Step::Send(b"part".to_vec()),
                Step::Sleep(80),
                Step::Reset,
            ],
        )
        .settling(200),
        raw("client half-closes", vec![Step::Send(request("GET", "/", &[], b"")), Step::Shut, Step::Answer])
            .then(0, act().delay(100)),
        raw(
            "answer before the body",
            vec![
                Step::Send(request("POST", "/", &[("content-length", "10")], b"")),
                Step::Send(b"part".to_vec()),
                Step::Answer,
            ],
        )
        .then(0, act().status(413)),
    ];
    scenario("plain", vec![http(vec![to("/", "c", json!({}))]), cluster("c", &["$b0"], json!({}))], cases)
}

fn trailers() -> Scenario {
    let on = json!({"http_protocol_options": {"enable_trailers": true}});
    let upstream = options_of(json!({"explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}}));
    let chunks = b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n";
    let cases = vec![
        post("request", "/", &[("transfer-encoding", "chunked"), ("trailer", "x-sum")], chunks),
        get("answer", "/", &[]).then(0, act().trailer("x-end", "yes")),
        get("answer, wanted", "/", &[("te", "trailers")])
            .then(0, act().trailer("x-end", "yes").header("trailer", "x-end")),
        post(
            "forbidden in trailers",
            "/",
            &[("transfer-encoding", "chunked")],
            b"1\r\na\r\n0\r\ncontent-length: 5\r\n\r\n",
        ),
        post("not enabled, request", "/", &[("transfer-encoding", "chunked")], chunks).on(1),
        get("not enabled, answer", "/", &[]).on(1).then(1, act().trailer("x-end", "yes")),
    ];
    let resources = vec![
        http_with(vec![to("/", "c", json!({}))], on),
        listener(1, vec![chain(hcm(vec![to("/", "d", json!({}))], json!({})))], json!({})),
        cluster("c", &["$b0"], upstream),
        cluster("d", &["$b1"], json!({})),
    ];
    scenario("trailers", resources, cases)
}

fn big() -> Scenario {
    let body: Vec<u8> = (0..5_u32 << 20).map(|n| b'a' + u8::try_from(n % 23).unwrap_or(0)).collect();
    let cases = vec![
        post("up 5 MiB", "/", &[], &body),
        get("down 5 MiB", "/", &[]).then(0, act().body(body.clone())),
        raw("down 5 MiB, slow reader", vec![Step::Send(request("GET", "/", &[], b"")), Step::AnswerSlowly(5)])
            .then(0, act().body(body.clone())),
        post("both ways", "/", &[], &body).then(0, act().body(body)),
    ];
    scenario("big", vec![http(vec![to("/", "c", json!({}))]), cluster("c", &["$b0"], json!({}))], cases)
}

fn old() -> Scenario {
    let version10 =
        |name, text: &str| raw(name, vec![Step::Send(text.replace('\n', "\r\n").into_bytes()), Step::Answer]);
    let options = json!({"http_protocol_options": {"accept_http_10": true, "default_host_for_http_10": "old.test"}});
    let cases = vec![
        version10("1.0", "GET / HTTP/1.0\nhost: svc.test\nx-case: @CASE@\n\n"),
        version10("1.0 without host", "GET / HTTP/1.0\nx-case: @CASE@\n\n"),
        version10("1.0 keep-alive", "GET / HTTP/1.0\nhost: a\nconnection: keep-alive\nx-case: @CASE@\n\n"),
        version10("1.0 with a body", "POST / HTTP/1.0\nhost: a\ncontent-length: 2\nx-case: @CASE@\n\nhi"),
        version10("1.0, chunked answer", "GET / HTTP/1.0\nhost: a\nx-case: @CASE@\n\n")
            .then(0, act().trailer("x-t", "1")),
        version10("1.0 not accepted", "GET / HTTP/1.0\nhost: svc.test\nx-case: @CASE@\n\n").on(1),
        version10("0.9", "GET /\n\n"),
        version10("2.0 by name", "GET / HTTP/2.0\nhost: a\n\n"),
    ];
    let resources = vec![
        http_with(vec![to("/", "c", json!({}))], options),
        listener(1, vec![chain(hcm(vec![to("/", "c", json!({}))], json!({})))], json!({})),
        cluster("c", &["$b0"], json!({})),
    ];
    scenario("old versions", resources, cases)
}

fn limits() -> Scenario {
    let many: Vec<(String, String)> = (0..40).map(|n| (format!("x-{n}"), "v".repeat(20))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let long = "v".repeat(9000);
    let common = json!({"max_headers_count": 20, "max_requests_per_connection": 2, "max_stream_duration": "0.5s"});
    let more = json!({"common_http_protocol_options": common, "max_request_headers_kb": 8});
    let cases = vec![
        get("too many fields", "/", &many),
        get("too long a field", "/", &[("x-long", &long)]),
        get("a long path", &format!("/{long}"), &[]),
        raw(
            "third request",
            vec![
                Step::Send(request("GET", "/1", &[], b"")),
                Step::Answer,
                Step::Send(request("GET", "/2", &[], b"")),
                Step::Answer,
                Step::Send(request("GET", "/3", &[], b"")),
                Step::Answer,
            ],
        ),
        get("a stream too long", "/", &[]).then(0, act().delay(1500)).within(400, 1400),
        get("a body too long", "/", &[]).then(0, crate::script::Act { body_delay: 1500, ..act() }).within(400, 1400),
    ];
    scenario("limits", vec![http_with(vec![to("/", "c", json!({}))], more), cluster("c", &["$b0"], json!({}))], cases)
}

fn life() -> Scenario {
    let once = |n: u16, more| listener(n, vec![chain(hcm(vec![to("/", "c", json!({}))], more))], json!({}));
    let common = |fields| json!({"common_http_protocol_options": fields});
    let idle = vec![Step::Send(request("GET", "/", &[], b"")), Step::Answer, Step::ReadEnd];
    let upstream = options_of(json!({
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }));
    let cases = vec![
        raw("idle", idle.clone()).within(600, 3500),
        raw("nothing sent", vec![Step::ReadEnd]).within(600, 3500),
        raw("duration", idle).on(1).within(600, 3500),
        raw("head too slow", vec![Step::Send(b"GET / HTTP/1.1\r\nhost".to_vec()), Step::Answer])
            .on(2)
            .within(500, 3500),
        raw(
            "body too slow",
            vec![
                Step::Send(request("POST", "/", &[("content-length", "9")], b"")),
                Step::Send(b"abc".to_vec()),
                Step::Answer,
            ],
        )
        .on(3)
        .within(600, 3500),
        raw(
            "upstream connections used once",
            vec![
                Step::Send(request("GET", "/1", &[], b"")),
                Step::Answer,
                Step::Send(request("GET", "/2", &[], b"")),
                Step::Answer,
            ],
        )
        .on(4),
    ];
    let resources = vec![
        once(0, with(common(json!({"idle_timeout": "1s"})), json!({"drain_timeout": "0.1s"}))),
        once(1, with(common(json!({"max_connection_duration": "1s"})), json!({"drain_timeout": "0.1s"}))),
        once(2, json!({"request_headers_timeout": "1s"})),
        once(3, json!({"request_timeout": "1s"})),
        listener(4, vec![chain(hcm(vec![to("/", "once", json!({}))], json!({})))], json!({})),
        cluster("c", &["$b0"], json!({})),
        cluster("once", &["$b1"], upstream),
    ];
    scenario("life", resources, cases)
}

fn unix() -> Scenario {
    let pipe = |n: u16| json!({"pipe": {"path": format!("$u{n}")}});
    let chains = vec![chain(hcm(vec![to("/", "pipe", json!({}))], json!({})))];
    let assignment = json!({"cluster_name": "$s-pipe", "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": pipe(9)}}]},
    ]});
    let cases = vec![get("to a Unix socket", "/", &[]), post("from a Unix socket", "/", &[], b"hello").unix(1)];
    let resources = vec![
        listener(0, chains.clone(), json!({})),
        listener(1, chains, json!({"address": pipe(1)})),
        cluster("pipe", &[], json!({"load_assignment": assignment})),
    ];
    scenario("unix", resources, cases)
}

fn buffers() -> Scenario {
    let filter = crate::resource::extension(
        "envoy.filters.http.buffer",
        "envoy.extensions.filters.http.buffer.v3.Buffer",
        json!({"max_request_bytes": 1000}),
    );
    let more = json!({"http_filters": [filter, crate::resource::router()]});
    let small = json!({"per_connection_buffer_limit_bytes": 4096});
    let body = vec![b'x'; 20_000];
    let retrying = to("/retry", "c", json!({"retry_policy": {"retry_on": "5xx", "num_retries": 1}}));
    let cases = vec![
        post("within the buffer", "/", &[], b"hello"),
        post("beyond the buffer", "/", &[], &body).ignoring(&["closed", "log"]),
        post("chunked within the buffer", "/", &[("transfer-encoding", "chunked")], b"3\r\nabc\r\n0\r\n\r\n"),
        post("small windows", "/", &[], &body).on(1),
        post("retry of a small body", "/retry", &[], b"hello").on(1).then(0, act().status(503)),
        post("retry of a large body", "/retry", &[], &body).on(1).then(0, act().status(503)),
    ];
    let plain = hcm(vec![retrying, to("/", "c", json!({}))], json!({}));
    let resources = vec![
        with(http_with(vec![to("/", "c", json!({}))], more), json!({})),
        listener(1, vec![chain(plain)], small.clone()),
        cluster("c", &["$b0"], small),
    ];
    scenario("buffers", resources, cases)
}
