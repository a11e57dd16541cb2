//! Filters that change headers, trailers and queries, at all levels of routing.

use crate::{
    resource::{chain, cluster, extension, h2, hcm_hosts, listener, options_of, router, to, typed, with},
    script::{Act, Call, Piece, Scenario, act, call, get, http2, post, scenario},
};
use serde_json::{Value, json};

const NAME: &str = "envoy.filters.http.header_mutation";
const KIND: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const PER_ROUTE: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![levels(false), levels(true), lists(), trailers(), names()]
}

/// Another name of a cluster, for logs and for headers that tell it.
fn names() -> Scenario {
    let told = |key: &str| json!([{"header": {"key": key, "value": "%UPSTREAM_CLUSTER%|%UPSTREAM_CLUSTER_RAW%"}}]);
    let more = json!({"request_headers_to_add": told("x-up"), "response_headers_to_add": told("x-down")});
    let routes = vec![with(to("/dead", "dead", json!({})), more.clone()), with(to("/", "c", json!({})), more)];
    let tcp = crate::resource::tcp(json!({"cluster": "$s-c"}));
    let other = json!({"alt_stat_name": "another name"});
    let resources = vec![
        crate::resource::http(routes),
        listener(1, vec![chain(tcp)], json!({})),
        cluster("c", &["$b0"], other.clone()),
        cluster("dead", &["$dead"], other),
    ];
    let cases = vec![get("http", "/", &[]), get("nobody there", "/dead", &[]), get("tcp", "/", &[]).on(1)];
    scenario("names of clusters", resources, cases)
}

fn put(key: &str, value: &str, action: &str) -> Value {
    json!({"append": {"header": {"key": key, "value": value}, "append_action": action}})
}

fn add(key: &str, value: &str) -> Value {
    put(key, value, "APPEND_IF_EXISTS_OR_ADD")
}

fn query(key: &str, value: &str, action: &str) -> Value {
    json!({"append": {"record": {"key": key, "value": value}, "action": action}})
}

fn filter(name: &str, mutations: Value, specific_wins: bool) -> Value {
    let fields = json!({"mutations": mutations, "most_specific_header_mutations_wins": specific_wins});
    extension(name, KIND, fields)
}

/// The same of one level: each appends and overwrites.
fn level(name: &str) -> Value {
    json!({
        "request_mutations": [add("x-order", name), put("x-last", name, "OVERWRITE_IF_EXISTS_OR_ADD")],
        "query_parameter_mutations": [
            query("order", name, "APPEND_IF_EXISTS_OR_ADD"), query("last", name, "OVERWRITE_IF_EXISTS_OR_ADD"),
            query("first", name, "ADD_IF_ABSENT"),
        ],
        "response_mutations": [add("x-order", name), put("x-last", name, "OVERWRITE_IF_EXISTS_OR_ADD")],
    })
}

fn per(name: &str, mutations: Value) -> Value {
    json!({"typed_per_filter_config": {name: typed(PER_ROUTE, json!({"mutations": mutations}))}})
}

/// Which level comes last, of the filter and of the table's own changes.
fn levels(specific_wins: bool) -> Scenario {
    let own = |name: &str| json!([{"header": {"key": "x-own", "value": name}}]);
    let headers = |name: &str| json!({"request_headers_to_add": own(name), "response_headers_to_add": own(name)});
    let weighted = json!({
        "match": {"prefix": "/weighted"},
        "route": {"weighted_clusters": {"clusters": [with(
            json!({"name": "$s-c", "weight": 1}),
            per(NAME, level("weight")),
        )]}},
    });
    let routes = vec![
        with(weighted, per(NAME, level("route"))),
        with(with(to("/route", "c", json!({})), per(NAME, level("route"))), headers("route")),
        with(
            json!({"match": {"prefix": "/direct"}, "direct_response": {"status": 403, "body": {"inline_string": "no"}}}),
            per(NAME, level("route")),
        ),
        with(
            json!({"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/elsewhere"}}),
            per(NAME, level("route")),
        ),
        with(to("/none", "nowhere", json!({})), per(NAME, level("route"))),
        with(
            to("/off", "c", json!({})),
            json!({"typed_per_filter_config": {NAME: {
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true,
            }}}),
        ),
        to("/", "c", json!({})),
    ];
    let host = with(
        with(json!({"name": "any", "domains": ["*"], "routes": routes}), per(NAME, level("host"))),
        headers("host"),
    );
    let table = with(
        json!({
            "name": "$s", "virtual_hosts": [host], "validate_clusters": false,
            "most_specific_header_mutations_wins": specific_wins,
        }),
        with(per(NAME, level("table")), headers("table")),
    );
    let filters =
        json!([filter("first", level("first"), false), filter(NAME, level("chain"), specific_wins), router()]);
    let manager = hcm_hosts(vec![], json!({"route_config": table, "http_filters": filters}));
    let cases = vec![
        get("host", "/", &[]),
        get("route", "/route?order=before&last=before&other=1", &[]),
        get("weighted cluster", "/weighted", &[]),
        get("direct response", "/direct", &[]),
        get("redirect", "/redirect", &[]),
        get("no such cluster", "/none", &[]),
        get("switched off", "/off", &[]),
        get("the upstream fails", "/route", &[]).then(0, act().end(crate::script::End::Reset).always()),
    ];
    let name = if specific_wins { "mutations, specific wins" } else { "mutations, general wins" };
    scenario(name, vec![listener(0, vec![chain(manager)], json!({})), cluster("c", &["$b0"], json!({}))], cases)
}

/// What single changes do.
fn lists() -> Scenario {
    let mutations = json!({
        "request_mutations": [
            {"remove": "x-gone"}, add("x-a", "1"), add("x-b", "%REQ(x-a)%"), {"remove": "x-a"},
            add("x-c", "%REQ(x-a)%"), put("x-there", "new", "OVERWRITE_IF_EXISTS"), put("x-not", "new", "OVERWRITE_IF_EXISTS"),
            put("x-kept", "new", "ADD_IF_ABSENT"), {"remove_on_match": {"key_matcher": {"prefix": "x-drop-"}}},
            {"remove": "not a name"}, add("x-nothing", "%REQ(nope)%"),
        ],
        "query_parameter_mutations": [
            query("told", "%REQ(x-b)%", "OVERWRITE_IF_EXISTS_OR_ADD"), {"remove": "secret"},
            query("nothing", "%REQ(nope)%", "APPEND_IF_EXISTS_OR_ADD"), query("there", "new", "OVERWRITE_IF_EXISTS"),
            query("not", "new", "OVERWRITE_IF_EXISTS"), query("kept", "a b/ü", "ADD_IF_ABSENT"),
        ],
        "response_mutations": [
            add("x-code", "%RESPONSE_CODE%"), add("x-path", "%REQ(:path)%"), {"remove": "x-gone"},
            add("x-server", "%RESP(server)%"),
        ],
    });
    let rewriting = json!({"prefix_rewrite": "/new", "retry_policy": {"retry_on": "5xx", "num_retries": 1}});
    let routes = vec![
        to("/old", "c", rewriting),
        json!({"match": {"prefix": "/direct"}, "direct_response": {"status": 200}}),
        to("/", "c", json!({})),
    ];
    let hosts = vec![json!({"name": "any", "domains": ["*"], "routes": routes})];
    let manager = hcm_hosts(hosts, json!({"http_filters": [filter("f", mutations, false), router()]}));
    let fields = [("x-gone", "1"), ("x-there", "old"), ("x-kept", "old"), ("x-drop-1", "a"), ("x-drop-2", "b")];
    let cases = vec![
        get("nothing there", "/", &[]).then(0, act().header("x-gone", "1")),
        get("all there", "/p?told=1&told=2&secret=3&secret&there=4&there=5&kept=6", &fields),
        get("order of parameters", "/?z=1&a=2&m=3&a=1", &[]),
        get("parameters that are encoded", "/?a%20b=%2f%7e~*'%zz+x&%61=1&b=%", &[]),
        get("odd parameters", "/?&&=&=x&flag&a=b=c", &[]),
        get("no parameters behind the mark", "/?", &[]),
        get("a path that is rewritten", "/old/x?secret=1&b=2", &[]),
        get("tried again", "/old/x", &fields).then(0, act().status(503)),
        get("direct response", "/direct", &[]),
    ];
    let resources = vec![listener(0, vec![chain(manager)], json!({})), cluster("c", &["$b0"], json!({}))];
    scenario("mutations", resources, cases)
}

fn trailers() -> Scenario {
    let mutations = |name: &str| {
        json!({
            "request_trailers_mutations": [
                add("x-more", name), {"remove": "x-gone"}, add("x-told", "%REQ(x-say)%"), put("x-sum", name, "OVERWRITE_IF_EXISTS"),
            ],
            "response_trailers_mutations": [
                add("x-more", name), {"remove": "x-gone"}, add("x-told", "%REQ(x-say)% %RESPONSE_CODE%"),
                put("x-end", name, "OVERWRITE_IF_EXISTS"), {"remove_on_match": {"key_matcher": {"prefix": "x-drop-"}}},
            ],
        })
    };
    let host = json!({"name": "any", "domains": ["*"], "routes": [
        with(to("/two", "two", json!({})), per(NAME, mutations("route"))), to("/", "one", json!({})),
    ]});
    let more = json!({
        "http_filters": [filter("f", mutations("first"), false), filter(NAME, mutations("chain"), false), router()],
        "http_protocol_options": {"enable_trailers": true},
    });
    let one = options_of(json!({"explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}}));
    let resources = vec![
        listener(0, vec![chain(hcm_hosts(vec![host], more))], json!({})),
        cluster("one", &["$b0"], one),
        cluster("two", &["$b1"], h2(json!({}))),
    ];
    let chunks = b"5\r\nhello\r\n0\r\nx-sum: 1\r\nx-gone: 1\r\n\r\n";
    let chunked = [("transfer-encoding", "chunked"), ("x-say", "hey"), ("te", "trailers")];
    let body = |path| Call {
        method: "POST",
        headers: vec![("x-say", "hey"), ("te", "trailers")],
        body: vec![Piece::Data(b"hello".to_vec()), Piece::Trailers(vec![("x-sum", "1"), ("x-gone", "1")])],
        ..call(path)
    };
    let answer = || act().trailer("x-end", "1").trailer("x-gone", "1").trailer("x-drop-1", "1");
    let web = || Act { ..act().header("content-type", "application/grpc").trailer("grpc-status", "0") };
    let cases = vec![
        post("1 to 1", "/", &chunked, chunks).then(0, answer()),
        post("1 to 2", "/two", &chunked, chunks).then(1, answer()),
        http2("2 to 1", vec![body("/")]).then(0, answer()),
        http2("2 to 2", vec![body("/two")]).then(1, answer()),
        post("none", "/", &[], b"hello"),
        http2("none, HTTP/2", vec![call("/two")]),
        http2("gRPC", vec![body("/two")]).then(1, web()),
        http2("gRPC without a message", vec![body("/two")]).then(
            1,
            Act { trailers_only: true, ..act().header("content-type", "application/grpc").trailer("grpc-status", "5") },
        ),
    ];
    scenario("mutations of trailers", resources, cases)
}
