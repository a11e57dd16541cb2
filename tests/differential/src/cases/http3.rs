//! HTTP/3 from clients: what passes, what is answered here, what goes wrong behind.

use crate::{
    resource::{certificate, cluster, extension, h2, hcm, http, listener, options_of, to, with},
    script::{Act, Call, End, Piece, Scenario, act, call, get, http3, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![served()]
}

/// A listener over UDP.
fn quic(n: u16, filter: Value) -> Value {
    let context = json!({"downstream_tls_context": {"common_tls_context": {"tls_certificates": [certificate("svc")]}}});
    let transport = extension(
        "envoy.transport_sockets.quic",
        "envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
        context,
    );
    let address = json!({"socket_address": {"protocol": "UDP", "address": "$ip", "port_value": format!("$l{n}")}});
    let chain = json!({"filters": [filter], "transport_socket": transport});
    listener(n, vec![chain], json!({"address": address, "udp_listener_config": {"quic_options": {}}}))
}

fn routes() -> Vec<Value> {
    let alternative =
        json!({"response_headers_to_add": [{"header": {"key": "alt-svc", "value": "h3=\":443\"; ma=60"}}]});
    vec![
        json!({"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "short"}}}),
        json!({"match": {"path": "/moved"}, "redirect": {"host_redirect": "else.test", "path_redirect": "/new"}}),
        json!({"match": {"path": "/plain"}, "redirect": {"scheme_redirect": "http", "response_code": "FOUND"}}),
        with(to("/alt", "one", json!({})), alternative),
        with(
            to("/told", "one", json!({})),
            json!({"request_headers_to_add": [
                {"header": {"key": "x-client", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}},
            ]}),
        ),
        to("/slow", "one", json!({"timeout": "0.3s"})),
        to("/retry", "one", json!({"retry_policy": {"retry_on": "5xx", "num_retries": 2}})),
        to("/dead", "dead", json!({})),
        to("/none", "none", json!({})),
        to("/two", "two", json!({})),
        to("/one", "one", json!({})),
    ]
}

fn served() -> Scenario {
    let trailing = json!({"enable_trailers": true});
    let more = json!({"codec_type": "HTTP3", "http3_protocol_options": {}});
    let one = options_of(json!({"explicit_http_config": {"http_protocol_options": trailing}}));
    let resources = vec![
        quic(0, hcm(routes(), more)),
        with(http(routes()), json!({"name": "$s-1", "address": crate::resource::address("$l1")})),
        cluster("one", &["$b0"], one),
        cluster("two", &["$b1"], h2(json!({}))),
        cluster("dead", &["$dead"], json!({})),
    ];
    scenario("http3", resources, [passing(), local(), broken()].concat())
}

fn body(path: &'static str, pieces: Vec<Piece>) -> Call {
    Call { method: "POST", body: pieces, ..call(path) }
}

fn data(text: &str) -> Piece {
    Piece::Data(text.as_bytes().to_vec())
}

fn passing() -> Vec<crate::script::Case> {
    let big: Vec<u8> = (0..100_000_u32).map(|n| b'a' + u8::try_from(n % 23).unwrap_or(0)).collect();
    let fields = |headers| Call { headers, ..call("/one") };
    vec![
        http3("get", vec![call("/one?q=1")]),
        http3("post", vec![body("/one", vec![data("hello"), Piece::End])]),
        http3("head", vec![Call { method: "HEAD", ..call("/one") }]),
        http3("big both ways", vec![body("/one", vec![Piece::Data(big.clone()), Piece::End])]).then(0, act().body(big)),
        http3("trailers", vec![body("/one", vec![data("a"), Piece::Trailers(vec![("x-t", "1")])])]),
        http3("trailers back", vec![call("/one")]).then(0, act().trailer("x-end", "1")),
        http3(
            "to HTTP/2, trailers both ways",
            vec![body("/two", vec![data("a"), Piece::Trailers(vec![("x-t", "1")])])],
        )
        .then(1, act().trailer("x-u", "2")),
        http3("to HTTP/2", vec![call("/two")]),
        http3("204", vec![call("/one")]).then(0, act().status(204)),
        http3("304", vec![call("/one")]).then(0, act().status(304).header("etag", "x")),
        http3("404 of the server", vec![call("/one")]).then(0, act().status(404).body("nothing here")),
        http3("cookie crumbs", vec![fields(vec![("cookie", "a=1"), ("cookie", "b=2")])]),
        http3("te", vec![fields(vec![("te", "trailers")])]),
        get("fields of the proxy, over TCP", "/one", &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "http")])
            .on(1),
        http3("fields of the proxy", vec![fields(vec![("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "http")])]),
        // Envoy's log tells its peer; the operators of its headers, for the same request, the client.
        http3("the client in a header", vec![Call { headers: vec![("x-forwarded-for", "1.2.3.4")], ..call("/told") }])
            .ignoring(&["log"]),
        http3("103 first", vec![call("/one")]).then(0, Act { interim: vec![(103, vec![("link", "</a>")])], ..act() }),
        http3("late body", vec![call("/one")]).then(0, Act { body_delay: 200, ..act() }),
        http3("body in pieces", vec![body("/one", vec![data("a"), Piece::Sleep(60), data("b"), Piece::End])]),
        http3(
            "three at once",
            vec![
                Call { together: true, ..call("/two?1") },
                Call { together: true, ..call("/two?2") },
                Call { together: true, ..call("/two?3") },
            ],
        )
        .then(1, act().delay(60).always()),
        http3("one after the other", vec![call("/one"), call("/two"), call("/direct")]),
        http3("answer without a length", vec![call("/one")])
            .then(0, act().raw(b"HTTP/1.1 200 OK\r\nx-y: z\r\n\r\nto the end")),
        http3("retried", vec![call("/retry")]).then(0, act().status(503)),
        http3(
            "gRPC",
            vec![Call {
                headers: vec![("content-type", "application/grpc"), ("te", "trailers")],
                ..body("/two", vec![data("\0\0\0\0\x01a"), Piece::End])
            }],
        )
        .then(1, act().header("content-type", "application/grpc").body("\0\0\0\0\x01b").trailer("grpc-status", "0")),
    ]
}

fn local() -> Vec<crate::script::Case> {
    vec![
        http3("direct response", vec![call("/direct")]),
        http3("direct response to a body", vec![body("/direct", vec![data("hello"), Piece::End])]),
        http3("redirect", vec![call("/moved")]),
        http3("redirect to another scheme", vec![call("/plain?a=b")]),
        http3("no route", vec![call("/")]),
        http3("no such cluster", vec![call("/none")]),
        http3("nobody there", vec![call("/dead")]),
        http3("alternative service", vec![call("/alt")]),
        get("alternative service, over TCP", "/alt", &[]).on(1),
        http3("too slow", vec![call("/slow")]).then(0, act().delay(900)),
        http3("CONNECT", vec![Call { method: "CONNECT", authority: "a.test:443", ..Call::default() }]),
        http3(
            "gRPC, nobody there",
            vec![Call { headers: vec![("content-type", "application/grpc")], ..body("/dead", vec![Piece::End]) }],
        ),
    ]
}

fn broken() -> Vec<crate::script::Case> {
    vec![
        http3("reset by the server", vec![call("/one")]).then(0, act().end(End::Reset).always()),
        http3("closed by the server", vec![call("/one")]).then(0, act().end(End::Shut).always()),
        http3("cut short", vec![call("/one")])
            .then(0, act().raw(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nshort")),
        http3("not HTTP", vec![call("/one")]).then(0, act().raw(b"hello there\r\n\r\n").always()),
        http3("stream refused", vec![call("/two")]).then(1, act().end(End::ResetStream(7)).always()),
        http3("stream reset in the body", vec![call("/two")]).then(1, act().end(End::ResetStreamInBody(2))),
        http3("client resets", vec![body("/two", vec![data("a"), Piece::Sleep(60), Piece::Reset(0x10c)])])
            .settling(100),
    ]
}
