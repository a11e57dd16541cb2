//! How long a stream to an upstream may live, as its cluster or a trusted request says.

use crate::{
    resource::{chain, cluster, hcm, hcm_hosts, http, listener, options_of, to},
    script::{Act, Call, Case, End, Piece, Scenario, Step, act, call, get, http2, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![streams(), tunnels()]
}

/// Fields of a cluster whose streams may live for so long.
fn lives(seconds: &str, version: &str) -> Value {
    options_of(json!({
        "explicit_http_config": {version: {}},
        "common_http_protocol_options": {"max_stream_duration": seconds},
    }))
}

fn late(millis: u64) -> Act {
    Act { body_delay: millis, ..act() }
}

fn streams() -> Scenario {
    let retry = |on: &str| json!({"retry_policy": {"retry_on": on, "num_retries": 1}});
    let older = json!({"common_http_protocol_options": {"max_stream_duration": "0.3s"}});
    let resources = vec![
        http(vec![
            to("/two", "two", json!({})),
            to("/none", "none", json!({})),
            to("/older", "older", json!({})),
            to("/again", "one", retry("reset")),
            to("/unsent", "one", retry("reset-before-request,connect-failure")),
            to("/sooner", "one", json!({"timeout": "0.1s"})),
            to("/", "one", json!({})),
        ]),
        cluster("one", &["$b0"], lives("0.3s", "http_protocol_options")),
        cluster("two", &["$b1"], lives("0.3s", "http2_protocol_options")),
        cluster("none", &["$b0"], lives("0s", "http_protocol_options")),
        cluster("older", &["$b0"], older),
        listener(1, vec![chain(hcm(vec![to("/", "one", json!({}))], json!({"use_remote_address": true})))], json!({})),
    ];
    let said = |name, millis: &str, path: &str| get(name, path, &[("x-envoy-upstream-stream-duration-ms", millis)]);
    let half = vec![
        Step::Send(request("POST", "/", &[("content-length", "10")], b"")),
        Step::Send(b"part".to_vec()),
        Step::Answer,
    ];
    let grpc = Call {
        method: "POST",
        headers: vec![("content-type", "application/grpc"), ("te", "trailers")],
        body: vec![Piece::Data(b"\0\0\0\0\x01a".to_vec()), Piece::End],
        ..call("/two")
    };
    let cases: Vec<Case> = vec![
        get("before the head", "/", &[]).then(0, act().delay(4000)).within(200, 3500),
        get("in the body", "/", &[]).then(0, late(4000)).within(200, 3500),
        get("in time", "/", &[]),
        raw("the client is still sending", half).then(0, act().delay(4000)).within(200, 3500),
        get("tried again", "/again", &[]).then(0, act().delay(4000)).within(200, 3500),
        get("tried again in vain", "/again", &[]).then(0, act().delay(4000).always()).within(500, 3500),
        get("not tried again", "/unsent", &[]).then(0, act().delay(4000)).within(200, 3500),
        get("another clock is sooner", "/sooner", &[]).then(0, act().delay(4000)).within(50, 3500),
        get("the older field", "/older", &[]).then(0, act().delay(4000)).within(200, 3500),
        get("zero is no bound", "/none", &[]).then(0, act().delay(500)),
        get("HTTP/2, before the head", "/two", &[]).then(1, act().delay(4000)).within(200, 3500),
        get("HTTP/2, in the body", "/two", &[]).then(1, late(4000)).within(200, 3500),
        http2("HTTP/2 on both sides, in the body", vec![call("/two")]).then(1, late(4000)).within(200, 3500),
        http2("gRPC", vec![grpc]).then(1, act().delay(4000)).within(200, 3500),
        said("the request says less", "200", "/none").then(0, act().delay(4000)).within(100, 3500),
        said("the request says more", "5000", "/").then(0, act().delay(600)),
        said("the request says none", "0", "/").then(0, act().delay(600)),
        said("the request says nonsense", "soon", "/").then(0, act().delay(4000)).within(200, 3500),
        said("nobody from outside says how long", "5000", "/").on(1).then(0, act().delay(4000)).within(200, 3500),
        get("reset within", "/", &[]).then(0, act().end(End::Reset).always()),
    ];
    scenario("lives of streams", resources, cases)
}

fn tunnels() -> Scenario {
    let fields = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    let start = |path: &str| request("GET", path, &fields, b"");
    let connect = json!({"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]});
    let hosts = vec![
        json!({"name": "tunnel", "domains": ["tunnel.test:443"], "routes": [
            {"match": {"connect_matcher": {}}, "route": {"cluster": "$s-bytes", "upgrade_configs": connect["upgrade_configs"]}},
        ]}),
        json!({"name": "any", "domains": ["*"], "routes": [to("/two", "two", json!({})), to("/", "one", json!({}))]}),
    ];
    let more = json!({"upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}]});
    let mut two = lives("0.4s", "http2_protocol_options");
    two["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["explicit_http_config"] =
        json!({"http2_protocol_options": {"allow_connect": true}});
    let resources = vec![
        listener(0, vec![chain(hcm_hosts(hosts, more))], json!({})),
        cluster("one", &["$b1"], lives("0.4s", "http_protocol_options")),
        cluster("two", &["$b2"], two),
        cluster("bytes", &["$b0"], lives("0.4s", "http_protocol_options")),
    ];
    let talk = |name, path: &str| {
        let steps =
            vec![Step::Send(start(path)), Step::Answer, Step::Send(b"hello".to_vec()), Step::Read(5), Step::ReadEnd];
        raw(name, steps).within(300, 3500)
    };
    let connect = b"CONNECT tunnel.test:443 HTTP/1.1\r\nhost: tunnel.test:443\r\nx-case: @CASE@\r\n\r\n".to_vec();
    let cases = vec![
        talk("an upgrade", "/"),
        talk("an upgrade over HTTP/2", "/two"),
        raw(
            "CONNECT that ends here",
            vec![
                Step::Send(connect),
                Step::AnswerToConnect,
                Step::Send(b"hello".to_vec()),
                Step::Read(5),
                Step::ReadEnd,
            ],
        )
        .within(300, 3500),
    ];
    Scenario { bytes: &[0], backends: 3, ..scenario("lives of tunnels", resources, cases) }
}
