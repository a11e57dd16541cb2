//! Retries elsewhere, and limits by what is in a request.

use crate::{
    resource::{address, chain, cluster, extension, hcm, http, http_with, listener, router, to, typed, with},
    script::{Case, End, Scenario, Step, act, get, http2, post, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![elsewhere(), described(), buffered()]
}

fn elsewhere() -> Scenario {
    let host = extension("previous", "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", json!({}));
    let canary =
        extension("canary", "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate", json!({}));
    let level = extension(
        "levels",
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        json!({"update_frequency": 1}),
    );
    let policy = |fields: Value| json!({"retry_policy": with(json!({"retry_on": "5xx,reset,connect-failure", "num_retries": 1}), fields)});
    let elsewhere = json!({"retry_host_predicate": [host], "host_selection_retry_max_attempts": "40"});
    let hedged =
        json!({"per_try_timeout": "0.2s", "retry_host_predicate": [host], "host_selection_retry_max_attempts": "40"});
    let routes = vec![
        to("/hosts", "pair", policy(elsewhere.clone())),
        to(
            "/canary",
            "canary",
            policy(json!({"retry_host_predicate": [canary], "host_selection_retry_max_attempts": "40"})),
        ),
        to("/levels", "levels", policy(json!({"retry_priority": level}))),
        to("/same", "levels", policy(json!({}))),
        to("/dead", "half", policy(elsewhere)),
        to("/hedged", "pair", with(policy(hedged), json!({"hedge_policy": {"hedge_on_per_try_timeout": true}}))),
        to(
            "/limited",
            "levels",
            policy(json!({"retry_on": "retriable-status-codes", "retriable_status_codes": [429],
            "rate_limited_retry_back_off": {"reset_headers": [{"name": "retry-after", "format": "SECONDS"}], "max_interval": "2s"}})),
        ),
    ];
    let endpoint = |backend: &str| json!({"endpoint": {"address": address(backend)}});
    let marked = with(endpoint("$b0"), json!({"metadata": {"filter_metadata": {"envoy.lb": {"canary": true}}}}));
    let of = |name: &str, levels: Value| {
        let name_in_full = format!("$s-{name}");
        cluster(
            name,
            &[],
            json!({"lb_policy": "RANDOM", "load_assignment": {"cluster_name": name_in_full, "endpoints": levels}}),
        )
    };
    let resources = vec![
        http(routes),
        of("pair", json!([{"lb_endpoints": [endpoint("$b0"), endpoint("$b1")]}])),
        of("canary", json!([{"lb_endpoints": [marked, endpoint("$b1")]}])),
        of(
            "levels",
            json!([{"priority": 0, "lb_endpoints": [endpoint("$b0")]}, {"priority": 1, "lb_endpoints": [endpoint("$b1")]}]),
        ),
        of("half", json!([{"lb_endpoints": [endpoint("$dead"), endpoint("$b1")]}])),
    ];
    let cases = vec![
        get("another host", "/hosts", &[])
            .then(0, act().status(503).always())
            .times(24)
            .ignoring(&["share.backend", "log"]),
        get("another host than the one that resets", "/hosts", &[])
            .then(0, act().end(End::Reset).always())
            .times(24)
            .ignoring(&["share.backend", "log"]),
        get("another host than a dead one", "/dead", &[]).times(24).ignoring(&["log"]),
        get("no canary", "/canary", &[]).then(1, act().status(503)).times(8).ignoring(&["log"]),
        get("another level", "/levels", &[]).then(0, act().status(503)),
        get("another level fails, too", "/levels", &[])
            .then(0, act().status(503))
            .then(1, act().status(500).body("last")),
        get("the same level", "/same", &[]).then(0, act().status(503)),
        get("hedged elsewhere", "/hedged", &[])
            .then(0, act().delay(500).body("slow").always())
            .within(0, 450)
            .ignoring(&["upstream", "log", "answer.headers"]),
        get("after the time it names", "/limited", &[])
            .then(0, act().status(429).header("retry-after", "1"))
            .within(800, 2500)
            .ignoring(&["upstream1.headers"]),
    ];
    scenario("retry elsewhere", resources, cases)
}

fn filters(list: Vec<Value>) -> Value {
    json!({"http_filters": list.into_iter().chain([router()]).collect::<Vec<_>>()})
}

fn described() -> Scenario {
    const NAME: &str = "envoy.filters.http.local_ratelimit";
    const KIND: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let bucket = |n: u32| json!({"max_tokens": n, "tokens_per_fill": n, "fill_interval": "60s"});
    let all = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    let entry = |key: &str, value: &str| json!({"key": key, "value": value});
    let limit = |tokens: u32, descriptors: Value, more: Value| {
        let base = json!({
            "stat_prefix": "limit", "token_bucket": bucket(tokens), "filter_enabled": all, "filter_enforced": all,
            "descriptors": descriptors,
        });
        with(base, more)
    };
    let route = |prefix: &str, fields: Value, actions: Value| {
        let own = json!({"typed_per_filter_config": {NAME: typed(KIND, fields)}});
        with(to(prefix, "c", json!({"rate_limits": [{"actions": actions}]})), own)
    };
    let header = |name: &str| json!({"request_headers": {"header_name": name, "descriptor_key": "who"}});
    let one = |value: &str, tokens: u32| json!({"entries": [entry("who", value)], "token_bucket": bucket(tokens)});
    let matched = json!({"header_value_match": {
        "descriptor_value": "yes", "headers": [{"name": "x-match", "present_match": true}],
    }});
    let pair = json!([header("x-who"), {"generic_key": {"descriptor_value": "shop"}}]);
    let routes = vec![
        route("/who", limit(100, json!([one("a", 1), one("b", 2)]), json!({})), json!([header("x-who")])),
        route(
            "/pair",
            limit(
                100,
                json!([{"entries": [entry("who", "a"), entry("generic_key", "shop")], "token_bucket": bucket(1)}]),
                json!({}),
            ),
            pair,
        ),
        route(
            "/match",
            limit(100, json!([{"entries": [entry("header_match", "yes")], "token_bucket": bucket(1)}]), json!({})),
            json!([matched]),
        ),
        route(
            "/cluster",
            limit(
                100,
                json!([{"entries": [entry("destination_cluster", "rate limit by what-c")], "token_bucket": bucket(1)}]),
                json!({}),
            ),
            json!([{"destination_cluster": {}}]),
        ),
        route(
            "/remote",
            limit(
                100,
                json!([{"entries": [entry("remote_address", "127.0.0.1")], "token_bucket": bucket(1)}]),
                json!({}),
            ),
            json!([{"remote_address": {}}]),
        ),
        route("/default", limit(2, json!([one("a", 1)]), json!({})), json!([header("x-who")])),
        route(
            "/apart",
            limit(1, json!([one("a", 2)]), json!({"always_consume_default_token_bucket": false})),
            json!([header("x-who")]),
        ),
        to("/", "c", json!({})),
    ];
    let row = |name, path: &'static str, fields: &[(&str, &str)], n: usize| {
        let steps = (0..n).flat_map(|_| [Step::Send(request("GET", path, fields, b"")), Step::Answer]).collect();
        raw(name, steps)
    };
    let cases = vec![
        row("one token", "/who", &[("x-who", "a")], 2),
        row("two tokens", "/who", &[("x-who", "b")], 3),
        row("nobody's", "/who", &[("x-who", "c")], 3),
        row("no field", "/who", &[], 3),
        row("both entries", "/pair", &[("x-who", "a")], 2),
        row("one of both", "/pair", &[("x-who", "b")], 2),
        row("matched", "/match", &[("x-match", "1")], 2),
        row("not matched", "/match", &[], 2),
        row("by cluster", "/cluster", &[], 2),
        row("by address", "/remote", &[], 2),
        row("both buckets", "/default", &[("x-who", "a")], 2),
        row("what the others left", "/default", &[], 2),
        row("a bucket of its own", "/apart", &[("x-who", "a")], 3),
        row("the common bucket is full", "/apart", &[], 2),
    ];
    let filter = filters(vec![extension(NAME, KIND, json!({"stat_prefix": "limit"}))]);
    let resources = vec![http_with(routes, filter), cluster("c", &["$b0"], json!({}))];
    Scenario { stateful: true, ..scenario("rate limit by what", resources, cases) }
}

fn buffered() -> Scenario {
    const NAME: &str = "envoy.filters.http.buffer";
    let own = |prefix: &str, fields: Value| {
        let kind = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
        with(to(prefix, "c", json!({})), json!({"typed_per_filter_config": {NAME: typed(kind, fields)}}))
    };
    let filter = extension(NAME, "envoy.extensions.filters.http.buffer.v3.Buffer", json!({"max_request_bytes": 1000}));
    let routes = vec![
        own("/off", json!({"disabled": true})),
        own("/more", json!({"buffer": {"max_request_bytes": 4000}})),
        own("/less", json!({"buffer": {"max_request_bytes": 10}})),
        to("/", "c", json!({})),
    ];
    let chunks = |path: &str, n: usize| -> Case {
        let head = request("POST", path, &[("transfer-encoding", "chunked")], b"");
        let body = format!("{n:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(n));
        raw(
            if n > 1000 { "chunks beyond it" } else { "chunks within it" },
            vec![Step::Send([head, body.into_bytes()].concat()), Step::Answer],
        )
    };
    let call = |path, n: usize| crate::script::Call {
        method: "POST",
        body: vec![crate::script::Piece::Data(vec![b'x'; n]), crate::script::Piece::End],
        ..crate::script::call(path)
    };
    let cases = vec![
        post("exactly", "/", &[], &[b'x'; 1000]),
        post("one more", "/", &[], &[b'x'; 1001]),
        post("more on this route", "/more", &[], &[b'x'; 3000]),
        post("less on this route", "/less", &[], &[b'x'; 11]),
        post("off on this route", "/off", &[], &[b'x'; 3000]),
        chunks("/", 500),
        chunks("/", 2000),
        get("no body", "/", &[]),
        http2("over HTTP/2", vec![call("/", 900)]),
        http2("too much over HTTP/2", vec![call("/", 1100)]),
        http2("answered here over HTTP/2", vec![call("/local", 5)]).on(1),
        http2("redirected here over HTTP/2", vec![call("/moved", 5)]).on(1),
        http2("no route over HTTP/2", vec![call("/nowhere", 5)]).on(1),
    ];
    let local = vec![
        json!({"match": {"path": "/local"}, "direct_response": {"status": 202, "body": {"inline_string": "here"}}}),
        json!({"match": {"path": "/moved"}, "redirect": {"path_redirect": "/else"}}),
    ];
    let resources = vec![
        http_with(routes, filters(vec![filter])),
        listener(1, vec![chain(hcm(local, json!({})))], json!({})),
        cluster("c", &["$b0"], json!({})),
    ];
    scenario("buffer", resources, cases)
}
