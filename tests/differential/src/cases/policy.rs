//! What routes and filters do to requests: faults, retries, mirrors, limits, rewrites, fields; and which endpoints get them.

use crate::{
    resource::{chain, cluster, extension, h2, hcm_hosts, http, http_with, listener, options_of, router, to, with},
    script::{Case, End, Scenario, Step, act, get, http2, post, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![fault(), cors(), rate(), mirror(), retry(), rewrite(), fields(), health(), outlier(), compression()]
}

fn filters(list: Vec<Value>) -> Value {
    json!({"http_filters": list.into_iter().chain([router()]).collect::<Vec<_>>()})
}

/// A route with the configuration of a filter of its own.
fn per(route: Value, filter: &str, type_name: &str, fields: Value) -> Value {
    with(route, json!({"typed_per_filter_config": {filter: crate::resource::typed(type_name, fields)}}))
}

fn percent(n: u32) -> Value {
    json!({"numerator": n, "denominator": "HUNDRED"})
}

fn fault() -> Scenario {
    const KIND: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
    const NAME: &str = "envoy.filters.http.fault";
    let own = |prefix: &str, fields: Value| per(to(prefix, "c", json!({})), NAME, KIND, fields);
    let routes = vec![
        own("/abort", json!({"abort": {"http_status": 503, "percentage": percent(100)}})),
        own("/never", json!({"abort": {"http_status": 503, "percentage": percent(0)}})),
        own("/grpc", json!({"abort": {"grpc_status": 5, "percentage": percent(100)}})),
        own("/delay", json!({"delay": {"fixed_delay": "0.3s", "percentage": percent(100)}})),
        own(
            "/both",
            json!({
                "delay": {"fixed_delay": "0.2s", "percentage": percent(100)},
                "abort": {"http_status": 418, "percentage": percent(100)},
            }),
        ),
        own(
            "/header",
            json!({
                "delay": {"header_delay": {}, "percentage": percent(100)},
                "abort": {"header_abort": {}, "percentage": percent(100)},
            }),
        ),
        own(
            "/matched",
            json!({
                "headers": [{"name": "x-fault", "string_match": {"exact": "yes"}}],
                "abort": {"http_status": 500, "percentage": percent(100)},
            }),
        ),
        own("/half", json!({"abort": {"http_status": 503, "percentage": percent(50)}})),
        to("/", "c", json!({})),
    ];
    let g = |name, path: &str| get(name, path, &[]);
    let cases = vec![
        g("abort", "/abort"),
        post("abort with a body", "/abort", &[], b"hello"),
        g("never", "/never"),
        post("gRPC abort", "/grpc", &[("content-type", "application/grpc")], b""),
        g("delay", "/delay").within(250, 900),
        g("delay and abort", "/both").within(150, 900),
        get("by header, abort", "/header", &[("x-envoy-fault-abort-request", "429")]),
        get("by header, delay", "/header", &[("x-envoy-fault-delay-request", "200")]).within(150, 900),
        get("by header, nonsense", "/header", &[("x-envoy-fault-abort-request", "abc")]),
        g("by header, none", "/header"),
        get("matched", "/matched", &[("x-fault", "yes")]),
        g("not matched", "/matched"),
        // Which ones are hit is chance: their order is no fact.
        g("a half", "/half").times(60).ignoring(&["log"]),
        g("no fault", "/"),
    ];
    let resources =
        vec![http_with(routes, filters(vec![extension(NAME, KIND, json!({}))])), cluster("c", &["$b0"], json!({}))];
    scenario("fault", resources, cases)
}

fn cors() -> Scenario {
    const NAME: &str = "envoy.filters.http.cors";
    let policy = json!({
        "allow_origin_string_match": [{"exact": "https://a.test"}, {"suffix": ".b.test"}],
        "allow_methods": "GET, PUT", "allow_headers": "x-one, x-two", "expose_headers": "x-three", "max_age": "600",
        "allow_credentials": true,
    });
    let kind = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
    let routes = vec![per(to("/", "c", json!({})), NAME, kind, policy)];
    let preflight = |name, origin: &'static str, method: &'static str| {
        let fields = [("origin", origin), ("access-control-request-method", method)];
        raw(name, vec![Step::Send(request("OPTIONS", "/", &fields, b"")), Step::Answer])
    };
    let cases = vec![
        preflight("preflight", "https://a.test", "PUT"),
        preflight("preflight by suffix", "https://x.b.test", "GET"),
        preflight("preflight of a stranger", "https://c.test", "GET"),
        preflight("preflight, method not in the list", "https://a.test", "DELETE"),
        raw(
            "options without a method",
            vec![Step::Send(request("OPTIONS", "/", &[("origin", "https://a.test")], b"")), Step::Answer],
        ),
        get("actual", "/", &[("origin", "https://a.test")]),
        get("actual of a stranger", "/", &[("origin", "https://c.test")]),
        get("same origin", "/", &[]),
        get("upstream has its own", "/", &[("origin", "https://a.test")])
            .then(0, act().header("access-control-allow-origin", "*").header("access-control-expose-headers", "x-up")),
    ];
    let filter = extension(NAME, "envoy.extensions.filters.http.cors.v3.Cors", json!({}));
    scenario("cors", vec![http_with(routes, filters(vec![filter])), cluster("c", &["$b0"], json!({}))], cases)
}

fn rate() -> Scenario {
    const NAME: &str = "envoy.filters.http.local_ratelimit";
    const KIND: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let limit = |tokens: u32, more: Value| {
        let base = json!({
            "stat_prefix": "limit",
            "token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "60s"},
            "filter_enabled": {"default_value": percent(100)}, "filter_enforced": {"default_value": percent(100)},
        });
        with(base, more)
    };
    let own = |prefix: &str, fields| per(to(prefix, "c", json!({})), NAME, KIND, fields);
    let add = json!({"response_headers_to_add": [{"header": {"key": "x-limited", "value": "yes"}}]});
    let routes = vec![
        own("/two", limit(2, add)),
        own("/status", limit(1, json!({"status": {"code": "ServiceUnavailable"}}))),
        own("/shadow", limit(1, json!({"filter_enforced": {"default_value": percent(0)}}))),
        to("/", "c", json!({})),
    ];
    let twice = |name, path: &str, n: usize| {
        let steps = (0..n).flat_map(|_| [Step::Send(request("GET", path, &[], b"")), Step::Answer]).collect();
        raw(name, steps)
    };
    let cases = vec![
        twice("third is too many", "/two", 3),
        twice("own status", "/status", 2),
        twice("fields of the draft", "/draft", 2).on(1).ignoring(&["answer.headers", "answer2.headers"]),
        twice("not enforced", "/shadow", 3),
        twice("no limit", "/", 3),
        raw(
            "a gRPC call",
            vec![Step::Send(request("POST", "/two", &[("content-type", "application/grpc")], b"")), Step::Answer],
        ),
    ];
    let filter = || filters(vec![extension(NAME, KIND, json!({"stat_prefix": "limit"}))]);
    let draft = own("/draft", limit(1, json!({"enable_x_ratelimit_headers": "DRAFT_VERSION_03"})));
    let resources = vec![
        http_with(routes, filter()),
        listener(1, vec![chain(crate::resource::hcm(vec![draft], filter()))], json!({})),
        cluster("c", &["$b0"], json!({})),
    ];
    Scenario { stateful: true, ..scenario("rate limit", resources, cases) }
}

fn mirror() -> Scenario {
    let to_b = |fraction: u32| {
        json!({"request_mirror_policies": [{
            "cluster": "$s-b", "runtime_fraction": {"default_value": percent(fraction)},
        }]})
    };
    let routes = vec![
        to("/all", "a", to_b(100)),
        to("/none", "a", to_b(0)),
        to("/half", "a", to_b(50)),
        to("/", "a", json!({})),
    ];
    let cases = vec![
        get("mirrored", "/all?x=1", &[("x-a", "b")]).settling(100),
        post("with a body", "/all", &[], b"hello").settling(100),
        get("mirror fails", "/all", &[]).then(1, act().end(End::Reset)).settling(100),
        get("mirror answers otherwise", "/all", &[]).then(1, act().status(500).delay(200)).settling(300),
        get("never", "/none", &[]).settling(50),
        get("a half", "/half", &[]).times(60),
    ];
    let resources = vec![http(routes), cluster("a", &["$b0"], json!({})), cluster("b", &["$b1"], json!({}))];
    scenario("mirror", resources, cases)
}

fn retry() -> Scenario {
    let policy = |fields: Value| json!({"retry_policy": with(json!({"num_retries": 2}), fields)});
    let on = |conditions: &str| policy(json!({"retry_on": conditions}));
    let hedged = with(
        policy(json!({"retry_on": "5xx", "per_try_timeout": "0.2s"})),
        json!({"hedge_policy": {"hedge_on_per_try_timeout": true}}),
    );
    let routes = vec![
        to("/5xx", "c", on("5xx")),
        to("/gateway", "c", on("gateway-error")),
        to("/reset", "c", on("reset")),
        to("/connect", "dead", on("connect-failure")),
        to("/4xx", "c", on("retriable-4xx")),
        to("/codes", "c", policy(json!({"retry_on": "retriable-status-codes", "retriable_status_codes": [418]}))),
        to(
            "/headers",
            "c",
            policy(json!({
                "retry_on": "retriable-headers", "retriable_headers": [{"name": "x-again", "present_match": true}],
            })),
        ),
        to("/try", "c", policy(json!({"retry_on": "5xx", "per_try_timeout": "0.2s"}))),
        to("/hedge", "c", hedged),
        to("/timeout", "c", with(on("5xx"), json!({"timeout": "0.4s"}))),
        to("/refused", "two", on("refused-stream")),
        to("/", "c", json!({})),
    ];
    let fails = |status: u16| act().status(status);
    let cases = vec![
        get("5xx", "/5xx", &[]).then(0, fails(503)).then(0, fails(500)),
        get("5xx, all fail", "/5xx", &[]).then(0, fails(503).always()),
        post("5xx with a body", "/5xx", &[], b"hello").then(0, fails(503)),
        get("gateway error, 500 is none", "/gateway", &[]).then(0, fails(500)),
        get("gateway error", "/gateway", &[]).then(0, fails(502)).then(0, fails(504)),
        get("reset", "/reset", &[]).then(0, act().end(End::Reset)).then(0, act().end(End::Shut)),
        get("reset, all fail", "/reset", &[]).then(0, act().end(End::Reset).always()),
        get("connect failure", "/connect", &[]),
        get("409", "/4xx", &[]).then(0, fails(409)),
        get("404 is not retriable", "/4xx", &[]).then(0, fails(404)),
        get("status of the list", "/codes", &[]).then(0, fails(418)),
        get("by a field of the answer", "/headers", &[]).then(0, act().header("x-again", "1")),
        get("a try too long", "/try", &[]).then(0, act().delay(700)).within(150, 900),
        get("all tries too long", "/try", &[]).then(0, act().delay(700).always()).within(500, 1800),
        get("hedged", "/hedge", &[])
            .then(0, act().delay(300).body("first"))
            .then(0, act().delay(700))
            .within(250, 1100),
        get("hedged, the third is first", "/hedge", &[])
            .then(0, act().delay(900).body("first"))
            .then(0, act().delay(900).body("second"))
            .within(350, 1100),
        get("the timeout ends retries", "/timeout", &[]).then(0, fails(503).delay(250).always()).within(300, 900),
        get("stream refused", "/refused", &[]).then(1, act().end(End::ResetStream(7))),
        get("asked by field", "/", &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "1")]).then(0, fails(503)),
        get("first try's body is not the answer", "/5xx", &[]).then(0, fails(503).body("wrong")),
    ];
    let resources = vec![
        http(routes),
        cluster("c", &["$b0"], json!({})),
        cluster("two", &["$b1"], h2(json!({}))),
        cluster("dead", &["$dead"], json!({})),
    ];
    scenario("retry", resources, cases)
}

fn rewrite() -> Scenario {
    let regex = |regex: &str, by: &str| json!({"pattern": {"regex": regex}, "substitution": by});
    let redirect = |prefix: &str, fields: Value| json!({"match": {"prefix": prefix}, "redirect": fields});
    let routes = vec![
        to("/groups", "c", json!({"regex_rewrite": regex("^/groups/([a-z]+)/([0-9]+)(.*)$", "/\\2/\\1\\3")})),
        to("/case", "c", json!({"regex_rewrite": regex("(?i)HELLO", "bye")})),
        to("/all", "c", json!({"regex_rewrite": regex("[0-9]", "#")})),
        to("/escape", "c", json!({"regex_rewrite": regex("^/escape/(.*)$", "/\\\\1/\\1/\\0")})),
        to("/empty", "c", json!({"regex_rewrite": regex("^/empty", "")})),
        to("/prefix", "c", json!({"prefix_rewrite": "/"})),
        to("/host", "c", json!({"host_rewrite_literal": "rewritten.test"})),
        to("/byheader", "c", json!({"host_rewrite_header": "x-host"})),
        to("/bypath", "c", json!({"host_rewrite_path_regex": regex("^/bypath/([^/]*).*$", "\\1.test")})),
        redirect("/moved", json!({"regex_rewrite": regex("^/moved/(.*)$", "/new/\\1"), "host_redirect": "else.test"})),
        redirect("/scheme", json!({"https_redirect": true, "response_code": "PERMANENT_REDIRECT"})),
        redirect("/port", json!({"port_redirect": 8443, "response_code": "FOUND"})),
        redirect("/strip", json!({"path_redirect": "/plain", "strip_query": true})),
        json!({"match": {"path_separated_prefix": "/sep"}, "route": {"cluster": "$s-c", "prefix_rewrite": "/other"}}),
        json!({"match": {"safe_regex": {"regex": "/exp/[a-c]+"}}, "route": {"cluster": "$s-c"}}),
    ];
    let g = |name, path: &str| get(name, path, &[]);
    let cases = vec![
        g("groups", "/groups/abc/12/x?q=1"),
        g("groups, no match", "/groups/abc"),
        g("ignoring case", "/case/hello/Hello"),
        g("all of them", "/all/1a2b3?x=4"),
        g("escapes", "/escape/a"),
        g("to nothing", "/empty"),
        g("prefix", "/prefix/a/b?c"),
        g("prefix to two slashes", "/prefixed"),
        g("host", "/host"),
        get("host by field", "/byheader", &[("x-host", "field.test")]),
        g("host by path", "/bypath/abc/def"),
        g("redirect by expression", "/moved/a?b=c"),
        get("redirect to https", "/scheme/a?b", &[("host", "svc.test:8080")]),
        g("redirect to a port", "/port"),
        g("redirect without the query", "/strip?a=b"),
        g("separated", "/sep/x"),
        g("not separated", "/sepx"),
        g("expression", "/exp/abc"),
        g("expression does not match all", "/exp/abcd"),
        g("encoded", "/prefix/%41%2f%zz"),
        g("dots", "/prefix/a/../b/./c"),
        g("slashes", "/prefix//a///b"),
    ];
    scenario("rewrite", vec![http(routes), cluster("c", &["$b0"], json!({}))], cases)
}

fn fields() -> Scenario {
    let operators = [
        "PROTOCOL",
        "REQ(X-A)",
        "REQ(X-NONE?X-A)",
        "REQ(X-A):2",
        "REQ(:PATH)",
        "REQ(:METHOD)",
        "REQ(:AUTHORITY)",
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_LOCAL_PORT",
        "DOWNSTREAM_LOCAL_ADDRESS",
        "ROUTE_NAME",
        "REQUESTED_SERVER_NAME",
        "DOWNSTREAM_TLS_VERSION",
        "DOWNSTREAM_PEER_URI_SAN",
        "REQ(X-NONE)",
        "UPSTREAM_CLUSTER",
        "ENVIRONMENT(NO_SUCH_VARIABLE)",
        "HOSTNAME",
        "METADATA(ROUTE:meta:key)",
        "METADATA(CLUSTER:meta:key)",
        "FILTER_STATE(none)",
        "STREAM_ID",
        "PATH(NQ)",
        "PATH(WQ)",
        "REQ_WITHOUT_QUERY(:PATH)",
    ];
    let add = |names: &[&str]| -> Vec<Value> {
        let named = names.iter().enumerate();
        named.map(|(n, op)| json!({"header": {"key": format!("x-{n}"), "value": format!("[%{op}%]")}})).collect()
    };
    let answers = [
        "RESPONSE_CODE",
        "RESPONSE_FLAGS",
        "RESP(X-UP)",
        "UPSTREAM_CLUSTER",
        "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        "REQ(X-A)",
        "RESPONSE_CODE_DETAILS",
        "UPSTREAM_PROTOCOL",
        "BYTES_RECEIVED",
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        "RESP(SERVER)",
        "CONNECTION_ID",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    ];
    let meta = json!({"metadata": {"filter_metadata": {"meta": {"key": "value"}}}});
    let one = |n: usize, prefix: &str, key: &str, list: Vec<Value>| {
        with(with(to(prefix, "c", json!({})), meta.clone()), json!({"name": format!("route {n}"), key: list}))
    };
    let action = |name: &str, value: &str, action: &str| json!({"header": {"key": name, "value": value}, "append_action": action});
    let actions = || {
        vec![
            action("x-append", "new", "APPEND_IF_EXISTS_OR_ADD"),
            action("x-absent", "new", "ADD_IF_ABSENT"),
            action("x-over", "new", "OVERWRITE_IF_EXISTS_OR_ADD"),
            action("x-exists", "new", "OVERWRITE_IF_EXISTS"),
        ]
    };
    // Each operator has a route of its own: one that a side does not know must not hide the others.
    let mut hosts = Vec::new();
    let mut cases: Vec<Case> = Vec::new();
    let routes = vec![
        one(0, "/up", "request_headers_to_add", add(&operators[..16])),
        one(1, "/down", "response_headers_to_add", add(&answers[..7])),
        one(2, "/actions-up", "request_headers_to_add", actions()),
        one(3, "/actions-down", "response_headers_to_add", actions()),
        to("/", "c", json!({})),
    ];
    hosts.push(json!({"name": "any", "domains": ["*"], "routes": routes}));
    let present = [("x-append", "old"), ("x-absent", "old"), ("x-over", "old"), ("x-exists", "old")];
    cases.push(get("operators to the upstream", "/up?a=b", &[("x-a", "value")]));
    cases.push(get("operators to the client", "/down", &[("x-a", "value")]).then(0, act().header("x-up", "u")));
    cases.push(get("actions, there", "/actions-up", &present));
    cases.push(get("actions, not there", "/actions-up", &[]));
    cases.push(present.iter().fold(get("actions down, there", "/actions-down", &[]), |case, _| case).then(
        0,
        act().header("x-append", "old").header("x-absent", "old").header("x-over", "old").header("x-exists", "old"),
    ));
    cases.push(get("actions down, not there", "/actions-down", &[]));
    let cluster_meta = json!({"metadata": {"filter_metadata": {"meta": {"key": "of the cluster"}}}});
    let mut resources =
        vec![listener(0, vec![chain(hcm_hosts(hosts, json!({})))], json!({})), cluster("c", &["$b0"], cluster_meta)];
    let rest = operators[16..].iter().map(|op| (*op, "request_headers_to_add"));
    let rest: Vec<(&'static str, &str)> =
        rest.chain(answers[7..].iter().map(|op| (*op, "response_headers_to_add"))).collect();
    for (n, (operator, key)) in (1u16..).zip(rest.into_iter().take(9)) {
        let route = one(usize::from(n), "/", key, add(&[operator]));
        let host = json!({"name": "any", "domains": ["*"], "routes": [route]});
        resources.push(listener(n, vec![chain(hcm_hosts(vec![host], json!({})))], json!({})));
        cases.push(get(operator, "/?x=1", &[]).on(n).ignoring(if operator == "STREAM_ID" {
            &["upstream0.headers"]
        } else {
            &[]
        }));
    }
    scenario("fields", resources, cases)
}

fn health() -> Scenario {
    let check = |fields: Value| {
        let base = json!({
            "timeout": "0.2s", "interval": "0.1s", "no_traffic_interval": "0.1s", "unhealthy_threshold": 2,
            "healthy_threshold": 1, "no_traffic_healthy_interval": "0.1s",
        });
        json!({"health_checks": [with(base, fields)]})
    };
    let no_panic = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0.0}}});
    let of =
        |name: &str, backends: &[&str], fields: Value| cluster(name, backends, with(check(fields), no_panic.clone()));
    let names = ["http", "dead", "half", "tcp", "tcpdead", "body"];
    let routes = names.iter().map(|name| to(&format!("/{name}/"), name, json!({}))).collect();
    let up = json!({"http_health_check": {"path": "/health"}});
    let resources = vec![
        http(routes),
        of("http", &["$b0"], up.clone()),
        of("dead", &["$dead"], up.clone()),
        of("half", &["$b0", "$dead"], up),
        of("tcp", &["$b1"], json!({"tcp_health_check": {}})),
        of("tcpdead", &["$dead"], json!({"tcp_health_check": {}})),
        of(
            "body",
            &["$b0"],
            json!({"http_health_check": {"path": "/health", "expected_statuses": [{"start": 300, "end": 400}]}}),
        ),
    ];
    let g = |name, path: &str, cases: &'static [&'static str]| get(name, path, &[]).ignoring(cases);
    // The checks themselves come when they come.
    const OWN: &[&str] = &["upstream"];
    let cases = vec![
        g("up", "/http/", OWN),
        g("down", "/dead/", OWN),
        get("one of two", "/half/", &[]).times(6).ignoring(&["share.backend"]),
        g("tcp up", "/tcp/", OWN),
        g("tcp down", "/tcpdead/", OWN),
        g("status not expected", "/body/", OWN),
    ];
    Scenario { warm: 1200, ..scenario("health", resources, cases) }
}

fn outlier() -> Scenario {
    let detection = |fields: Value| {
        json!({
            "outlier_detection": with(json!({"interval": "30s", "base_ejection_time": "60s", "max_ejection_percent": 100}), fields),
            "common_lb_config": {"healthy_panic_threshold": {"value": 0.0}},
        })
    };
    let routes = vec![to("/a", "a", json!({})), to("/b", "b", json!({})), to("/c", "c", json!({}))];
    let resources = vec![
        http(routes),
        cluster("a", &["$b0"], detection(json!({"consecutive_5xx": 3, "enforcing_consecutive_5xx": 100}))),
        cluster(
            "b",
            &["$b1"],
            detection(json!({
                "consecutive_5xx": 0, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100,
                "enforcing_consecutive_5xx": 0,
            })),
        ),
        cluster(
            "c",
            &["$b2"],
            detection(json!({"consecutive_5xx": 2, "enforcing_consecutive_5xx": 0, "enforcing_success_rate": 0})),
        ),
    ];
    let row = |name, path: &str, n: usize| {
        raw(
            name,
            (0..n).flat_map(|_| [Step::Send(request("GET", path, &[], b"")), Step::Answer, Step::Sleep(40)]).collect(),
        )
    };
    let cases = vec![
        row("after three 5xx", "/a", 5).then(0, act().status(500).always()),
        row("500 is no gateway failure", "/b", 3).then(1, act().status(500).always()),
        row("after two gateway failures", "/b", 4).then(1, act().status(502).always()),
        row("not enforced", "/c", 4).then(2, act().status(503).always()),
    ];
    Scenario { backends: 3, stateful: true, ..scenario("outlier", resources, cases) }
}

fn compression() -> Scenario {
    let library = extension("gzip", "envoy.extensions.compression.gzip.compressor.v3.Gzip", json!({}));
    let filter = extension(
        "envoy.filters.http.compressor",
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        json!({"compressor_library": library, "response_direction_config": {"common_config": {"min_content_length": 100}}}),
    );
    let text = "the same again and again. ".repeat(100);
    let accepts = [("accept-encoding", "gzip")];
    let html = || act().header("content-type", "text/html").body(text.clone());
    const LENGTH: &[&str] = &["answer.body", "log"];
    let cases = vec![
        get("asked for", "/", &accepts).then(0, html()).ignoring(LENGTH),
        get("not asked for", "/", &[]).then(0, html()),
        get("refused by weight", "/", &[("accept-encoding", "gzip;q=0")]).then(0, html()),
        get("too short", "/", &accepts).then(0, act().header("content-type", "text/html").body("short")),
        get("an image", "/", &accepts).then(0, act().header("content-type", "image/png").body(text.clone())),
        get("encoded already", "/", &accepts).then(0, html().header("content-encoding", "br")),
        get("no-transform", "/", &accepts).then(0, html().header("cache-control", "no-transform")).ignoring(LENGTH),
        get("a strong tag", "/", &accepts).then(0, html().header("etag", "\"x\"")).ignoring(LENGTH),
        get("anything", "/", &[("accept-encoding", "*")]).then(0, html()).ignoring(LENGTH),
        http2("over HTTP/2", vec![crate::script::Call { headers: accepts.to_vec(), ..crate::script::call("/") }])
            .then(0, html())
            .ignoring(LENGTH),
    ];
    let options = options_of(json!({"explicit_http_config": {"http_protocol_options": {}}}));
    let resources =
        vec![http_with(vec![to("/", "c", json!({}))], filters(vec![filter])), cluster("c", &["$b0"], options)];
    scenario("compression", resources, cases)
}
