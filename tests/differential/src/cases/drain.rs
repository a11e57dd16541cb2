//! Connections whose listener changes or goes.

use crate::{
    resource::{CLUSTER, LISTENER, chain, cluster, hcm, listener, to, with},
    script::{Call, Case, Piece, Scenario, Step, act, call, get, http2, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![removed(), changed()]
}

fn one(n: u16, more: Value) -> Value {
    listener(n, vec![chain(hcm(vec![to("/", "c", json!({}))], json!({"drain_timeout": "0.5s"})))], more)
}

fn asks(path: &str) -> [Step; 2] {
    [Step::Send(request("GET", path, &[], b"")), Step::Answer]
}

fn gone(name: &'static str) -> Step {
    Step::Remove(LISTENER, name)
}

fn removed() -> Scenario {
    let late = |pieces: Vec<Piece>| Call { method: "POST", body: pieces, ..call("/1") };
    let leaves = |name| Piece::Remove(LISTENER, name);
    let cases = vec![
        raw(
            "HTTP/1, next request",
            [asks("/1").to_vec(), vec![gone("$s-0"), Step::Sleep(150)], asks("/2").to_vec()].concat(),
        ),
        raw("HTTP/1, request under way", vec![Step::Send(request("GET", "/1", &[], b"")), gone("$s-1"), Step::Answer])
            .on(1)
            .then(0, act().delay(300)),
        http2("HTTP/2, request under way", vec![late(vec![leaves("$s-2"), Piece::Sleep(200), Piece::End])])
            .on(2)
            .then(0, act().delay(100))
            .ignoring(&["connection", "goaways"]),
        http2(
            "HTTP/2, request longer than the drain",
            vec![late(vec![leaves("$s-4"), Piece::Sleep(1200), Piece::End])],
        )
        .on(4),
        http2(
            "HTTP/2, next request",
            vec![call("/1"), Call { before: vec![leaves("$s-5"), Piece::Sleep(200)], ..call("/2") }],
        )
        .on(5)
        .ignoring(&["connection", "goaways"]),
        http2(
            "HTTP/2, last request",
            vec![
                call("/1"),
                Call { before: vec![leaves("$s-6"), Piece::Sleep(200)], ..call("/2") },
                Call { before: vec![Piece::Sleep(900)], ..call("/3") },
            ],
        )
        .on(6),
        get("nobody listens any more", "/", &[]).on(1),
    ];
    let mut resources: Vec<Value> = (0..8).map(|n| one(n, json!({}))).collect();
    resources.push(cluster("c", &["$b0"], json!({})));
    Scenario { stateful: true, ..scenario("drain", resources, cases) }
}

fn changed() -> Scenario {
    let web = |route: Value| chain(hcm(vec![route], json!({"drain_timeout": "0.5s"})));
    let named = |name: &str, chain: Value, port: u32| {
        with(chain, json!({"name": name, "filter_chain_match": {"destination_port": port}}))
    };
    let to_c = || to("/", "c", json!({}));
    let direct = || json!({"match": {"prefix": "/"}, "direct_response": {"status": 202}});
    let other = json!({"per_connection_buffer_limit_bytes": 65536});
    let two = |second: Value| listener(4, vec![web(to_c()), named("second", web(second), 1)], json!({}));
    let put = |resource: Value| vec![Step::Put(resource), Step::Sleep(250)];
    let around = |name, n: u16, resource: Value| -> Case {
        raw(name, [asks("/1").to_vec(), put(resource), asks("/2").to_vec()].concat()).on(n)
    };
    let resources = vec![
        one(0, json!({})),
        one(1, json!({})),
        one(2, json!({})),
        one(3, json!({})),
        two(to_c()),
        one(5, json!({})),
        cluster("c", &["$b0"], json!({})),
    ];
    let cases = vec![
        around("chain changes", 0, listener(0, vec![web(direct())], json!({}))),
        get("by the new chain", "/", &[]).on(0),
        around("listener changes", 1, one(1, other)),
        get("by the new listener", "/", &[]).on(1),
        http2(
            "chain changes, HTTP/2",
            vec![
                call("/1"),
                Call {
                    before: vec![Piece::Put(listener(2, vec![web(direct())], json!({}))), Piece::Sleep(250)],
                    ..call("/2")
                },
            ],
        )
        .on(2)
        .ignoring(&["connection", "goaways"]),
        http2(
            "chain changes under a request",
            vec![Call {
                method: "POST",
                body: vec![Piece::Put(listener(3, vec![web(direct())], json!({}))), Piece::Sleep(900), Piece::End],
                ..call("/1")
            }],
        )
        .on(3),
        around("another chain changes", 4, two(direct())),
        around("nothing changes", 5, one(5, json!({}))),
        around("cluster changes", 5, cluster("c", &["$b0"], json!({"connect_timeout": "3s"}))),
        raw(
            "cluster goes under a request",
            vec![
                Step::Send(request("GET", "/1", &[], b"")),
                Step::Sleep(60),
                Step::Remove(CLUSTER, "$s-c"),
                Step::Answer,
            ],
        )
        .on(5)
        .then(0, act().delay(400)),
    ];
    Scenario { stateful: true, ..scenario("changes", resources, cases) }
}
