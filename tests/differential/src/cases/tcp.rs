//! Bytes without a protocol, and the PROXY protocol in front of anything.

use crate::{
    resource::{chain, cluster, extension, hcm, listener, tcp, to, with},
    script::{Act, Case, End, Scenario, Step, act, get, raw, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![plain(), proxy_in(), proxy_out()]
}

fn talk(name: &'static str) -> Case {
    raw(name, vec![Step::Send(b"hello".to_vec()), Step::Read(5)])
}

fn plain() -> Scenario {
    let at = |n: u16, fields: Value| listener(n, vec![chain(tcp(fields))], json!({}));
    let long: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap_or(0)).collect();
    let n = long.len();
    let weighted = |a: u32, b: u32| json!({"weighted_clusters": {"clusters": [{"name": "$s-a", "weight": a}, {"name": "$s-b", "weight": b}]}});
    let cases = vec![
        talk("talk"),
        raw("client ends first", vec![Step::Send(b"hello".to_vec()), Step::Shut, Step::ReadEnd]),
        raw("client ends first, late answer", vec![Step::Send(b"hello".to_vec()), Step::Shut, Step::ReadEnd])
            .then(0, act().delay(300)),
        raw("nothing but an end", vec![Step::Shut, Step::ReadEnd]),
        raw("server first", vec![Step::Read(3), Step::Send(b"x".to_vec()), Step::Read(1)]).then(0, act().raw(b"hi!")),
        raw("server ends first", vec![Step::ReadEnd]).then(0, act().raw(b"bye").end(End::Close)).settling(50),
        raw(
            "server ends first, client goes on",
            vec![
                Step::Read(3),
                Step::Sleep(50),
                Step::Send(b"still here".to_vec()),
                Step::Sleep(50),
                Step::Shut,
                Step::ReadEnd,
            ],
        )
        .then(0, act().raw(b"bye").end(End::Close))
        .settling(100),
        raw("server leaves at once", vec![Step::ReadEnd]).then(0, act().end(End::ShutAtOnce)),
        raw("server resets", vec![Step::Send(b"hello".to_vec()), Step::ReadEnd]).then(0, act().end(End::Reset)),
        raw("client resets", vec![Step::Send(b"hello".to_vec()), Step::Read(5), Step::Sleep(30), Step::Reset])
            .settling(150),
        raw("3 MB there and back", vec![Step::Send(long.clone()), Step::Read(n)]).ignoring(&["upstream0.ended", "log"]),
        raw("3 MB to a slow server", vec![Step::Send(long.clone()), Step::Shut, Step::ReadEnd])
            .then(0, Act { body_delay: 2, ..act() }),
        raw("3 MB from a server that ends", vec![Step::Sleep(300), Step::ReadEnd])
            .then(0, act().raw(&long).end(End::Close)),
        raw("refused", vec![Step::ReadEnd]).on(1),
        raw("no such cluster", vec![Step::ReadEnd]).on(2),
        raw("idle", vec![Step::Send(b"a".to_vec()), Step::Read(1), Step::ReadEnd]).on(3).within(400, 2600),
        raw("too long", vec![Step::Send(b"a".to_vec()), Step::Read(1), Step::ReadEnd]).on(4).within(400, 2600),
        talk("all weight on one").on(5),
        talk("weights").on(6).times(40),
        raw("second endpoint when the first refuses", vec![Step::Send(b"hello".to_vec()), Step::Read(5)])
            .on(7)
            // Which of the two is first is drawn.
            .ignoring(&["log"]),
        talk("no healthy endpoint").on(8),
    ];
    let resources = vec![
        at(0, json!({"cluster": "$s-a"})),
        at(1, json!({"cluster": "$s-dead"})),
        at(2, json!({"cluster": "$s-nobody"})),
        at(3, json!({"cluster": "$s-a", "idle_timeout": "0.5s"})),
        at(4, json!({"cluster": "$s-a", "max_downstream_connection_duration": "0.5s"})),
        at(5, weighted(100, 0)),
        at(6, weighted(50, 50)),
        at(7, json!({"cluster": "$s-half", "max_connect_attempts": 4})),
        at(8, json!({"cluster": "$s-empty"})),
        cluster("a", &["$b0"], json!({})),
        cluster("b", &["$b1"], json!({})),
        cluster("dead", &["$dead"], json!({})),
        cluster("half", &["$dead", "$b1"], json!({})),
        cluster("empty", &[], json!({})),
    ];
    Scenario { bytes: &[0, 1], ..scenario("tcp", resources, cases) }
}

fn proxy_filter(more: Value) -> Value {
    let filter = extension(
        "envoy.filters.listener.proxy_protocol",
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        more,
    );
    json!({"listener_filters": [filter]})
}

fn proxy_in() -> Scenario {
    let routes = || {
        let fields = [("x-remote", "%DOWNSTREAM_REMOTE_ADDRESS%"), ("x-local", "%DOWNSTREAM_LOCAL_ADDRESS%")];
        let add: Vec<Value> = fields.iter().map(|(k, v)| json!({"header": {"key": k, "value": v}})).collect();
        vec![with(to("/", "c", json!({})), json!({"request_headers_to_add": add}))]
    };
    let chains = || vec![chain(hcm(routes(), json!({"use_remote_address": true})))];
    let v2 = |command: u8, family: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap_or(0).to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, body].concat()
    };
    let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0x34, 0, 80];
    let v6 = [&[0x20, 1][..], &[0; 13], &[9], &[0x20, 1], &[0; 13], &[8], &[0x12, 0x34, 0, 80]].concat();
    // Bytes of version 2 are no text: they go before the request in the same stream.
    let sent = |name: &'static str, header: &[u8]| {
        let all = [header, &crate::script::request("GET", "/", &[], b"")].concat();
        raw(name, vec![Step::Send(all), Step::Answer])
    };
    let cases = vec![
        sent("v1", b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n"),
        sent("v1 IPv6", b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 80\r\n"),
        sent("v1 unknown", b"PROXY UNKNOWN\r\n"),
        sent("v1 unknown with more", b"PROXY UNKNOWN a b c\r\n"),
        sent("v1 wrong family", b"PROXY TCP5 1.2.3.4 5.6.7.8 1111 80\r\n"),
        sent("v1 too few", b"PROXY TCP4 1.2.3.4 5.6.7.8 1111\r\n"),
        sent("v1 port too large", b"PROXY TCP4 1.2.3.4 5.6.7.8 70000 80\r\n"),
        sent("v1 too long", &[b"PROXY TCP4 ".as_slice(), &[b'1'; 110], b"\r\n"].concat()),
        sent("v2", &v2(0x21, 0x11, &v4)),
        sent("v2 IPv6", &v2(0x21, 0x21, &v6)),
        sent("v2 with values", &v2(0x21, 0x11, &[&v4[..], &[0x02, 0, 4], b"name", &[0x04, 0, 1, 0]].concat())),
        sent("v2 local", &v2(0x20, 0, &[])),
        sent("v2 local with addresses", &v2(0x20, 0x11, &v4)),
        sent("v2 cut short", &v2(0x21, 0x11, &v4[..7])),
        sent("v2 wrong version", &v2(0x31, 0x11, &v4)),
        sent("v2 wrong command", &v2(0x22, 0x11, &v4)),
        sent("v2 datagram", &v2(0x21, 0x12, &v4)),
        sent("v2 unspecified", &v2(0x21, 0, &[])),
        raw(
            "v1 in pieces",
            vec![
                Step::Send(b"PROXY TCP4 1.2.".to_vec()),
                Step::Sleep(30),
                Step::Send(b"3.4 5.6.7.8 1111 80\r".to_vec()),
                Step::Sleep(30),
                Step::Send([b"\n".as_slice(), &crate::script::request("GET", "/", &[], b"")].concat()),
                Step::Answer,
            ],
        ),
        get("none", "/", &[]),
        get("none, optional", "/", &[]).on(1),
        sent("v1, optional", b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n").on(1),
        sent("v1 refused", b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n").on(2),
        sent("v2, v1 refused", &v2(0x21, 0x11, &v4)).on(2),
    ];
    let resources = vec![
        listener(0, chains(), proxy_filter(json!({}))),
        listener(1, chains(), proxy_filter(json!({"allow_requests_without_proxy_protocol": true}))),
        listener(2, chains(), proxy_filter(json!({"disallowed_versions": ["V1"]}))),
        cluster("c", &["$b0"], json!({})),
    ];
    scenario("proxy protocol in", resources, cases)
}

fn proxy_out() -> Scenario {
    let socket = |version: &str| {
        let raw = extension("raw", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
        let config = json!({"config": {"version": version}, "transport_socket": raw});
        let kind = "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
        json!({"transport_socket": extension("envoy.transport_sockets.upstream_proxy_protocol", kind, config)})
    };
    let cases = vec![
        get("v1", "/v1", &[]),
        get("v2", "/v2", &[]),
        raw(
            "v1 passed on",
            vec![
                Step::Send(
                    [
                        b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n".as_slice(),
                        &crate::script::request("GET", "/v1", &[], b""),
                    ]
                    .concat(),
                ),
                Step::Answer,
            ],
        )
        .on(1),
    ];
    let chains = || vec![chain(hcm(vec![to("/v1", "v1", json!({})), to("/v2", "v2", json!({}))], json!({})))];
    let resources = vec![
        listener(0, chains(), json!({})),
        listener(1, chains(), proxy_filter(json!({}))),
        cluster("v1", &["$b0"], socket("V1")),
        cluster("v2", &["$b0"], socket("V2")),
    ];
    scenario("proxy protocol out", resources, cases)
}
