//! Which endpoints get a request by what is in it, and which get a copy of it.

use crate::{
    resource::{address, cluster, h2, http, to, with},
    script::{Case, End, Scenario, Step, act, call, get, http2, post, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![hashes("RING_HASH", "ring hash"), hashes("MAGLEV", "maglev"), mirrors()]
}

/// Eight endpoints which hash alike on both sides, since their keys or names count rather than their addresses.
fn eight(name: &str, policy: &str, by_name: bool, more: Value) -> Value {
    let endpoints: Vec<Value> = (0..8)
        .map(|n| {
            let place = json!({"address": address(&format!("$b{n}")), "hostname": format!("b{n}.test")});
            let key = json!({"filter_metadata": {"envoy.lb": {"hash_key": format!("key-{n}")}}});
            let weight = 1 + n % 3;
            let endpoint = json!({"endpoint": place, "load_balancing_weight": weight});
            if by_name { endpoint } else { with(endpoint, json!({"metadata": key})) }
        })
        .collect();
    let name_in_full = format!("$s-{name}");
    let dns = json!({
        "type": "STRICT_DNS", "dns_lookup_family": "V4_ONLY",
        "common_lb_config": {"consistent_hashing_lb_config": {"use_hostname_for_hashing": true}},
    });
    let common = if by_name { dns } else { json!({}) };
    let assignment = json!({"cluster_name": name_in_full, "endpoints": [{"lb_endpoints": endpoints}]});
    let base = cluster(name, &[], json!({"lb_policy": policy, "load_assignment": assignment}));
    with(with(base, common), more)
}

fn hashes(policy: &str, name: &'static str) -> Scenario {
    let by = |prefix: &str, cluster: &str, policies: Value| to(prefix, cluster, json!({"hash_policy": policies}));
    let header = |name: &str| json!({"header": {"header_name": name}});
    let rewritten = json!({"header": {
        "header_name": "x-key", "regex_rewrite": {"pattern": {"regex": "^([0-9]+)-.*$"}, "substitution": "\\1"},
    }});
    let cookie = |fields: Value| json!({"cookie": with(json!({"name": "c"}), fields)});
    let attributes = json!([{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}]);
    let terminal = |policy: Value| with(policy, json!({"terminal": true}));
    let routes = vec![
        by("/header", "keys", json!([header("x-key")])),
        by("/name", "names", json!([header("x-key")])),
        by("/rewritten", "keys", json!([rewritten])),
        by("/cookie", "keys", json!([cookie(json!({}))])),
        by("/ttl", "keys", json!([cookie(json!({"ttl": "60s", "path": "/p"}))])),
        by("/session", "keys", json!([cookie(json!({"ttl": "0s"}))])),
        by("/attributes", "keys", json!([cookie(json!({"ttl": "5s", "attributes": attributes}))])),
        by("/query", "keys", json!([{"query_parameter": {"name": "q"}}])),
        by("/source", "keys", json!([{"connection_properties": {"source_ip": true}}])),
        by("/both", "keys", json!([header("x-key"), header("x-more")])),
        by("/terminal", "keys", json!([terminal(header("x-key")), header("x-more")])),
    ];
    let ring = json!({"ring_hash_lb_config": {"minimum_ring_size": 256}});
    let murmur = json!({"ring_hash_lb_config": {"minimum_ring_size": 64, "hash_function": "MURMUR_HASH_2"}});
    let small = json!({"maglev_lb_config": {"table_size": 131}});
    let (keys, names) = if policy == "MAGLEV" { (json!({}), small) } else { (ring, murmur) };
    let resources = vec![http(routes), eight("keys", policy, false, keys), eight("names", policy, true, names)];
    Scenario { backends: 8, ..scenario(name, resources, placed()) }
}

/// Requests on one connection, each with a field or a query of its own.
fn row(name: &'static str, one: impl Fn(usize) -> (String, Vec<(&'static str, String)>)) -> Case {
    let steps = (0..16).flat_map(|n| {
        let (path, fields) = one(n);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        [Step::Send(request("GET", &path, &fields, b"")), Step::Answer]
    });
    // Where each went is in the answers; what the backends saw has no order of its own.
    raw(name, steps.collect()).ignoring(&["upstream0.", "upstream1"])
}

fn placed() -> Vec<Case> {
    let key = |path: &'static str| move |n: usize| (path.to_owned(), vec![("x-key", format!("{n}-key"))]);
    let sent = |path: &'static str| move |n: usize| (path.to_owned(), vec![("cookie", format!("a=b; c={n}; d"))]);
    vec![
        row("by field", key("/header")),
        row("by field, hosts by name", key("/name")),
        row("by field, rewritten", key("/rewritten")),
        row("by a field that comes twice", |n| {
            ("/header".into(), vec![("x-key", format!("{n}")), ("x-key", "more".into())])
        }),
        row("by cookie", sent("/cookie")),
        row("by cookie with a lifetime", sent("/ttl")),
        row("by query", |n| (format!("/query?a=1&q={n}&q=2"), vec![])),
        row("by empty query", |n| (format!("/query?q=&n={n}"), vec![])),
        row("by source", |_| ("/source".into(), vec![])),
        row("by two fields", |n| ("/both".into(), vec![("x-key", format!("{n}")), ("x-more", format!("{}", n / 4))])),
        row("by the second of two", |n| ("/both".into(), vec![("x-more", format!("{n}"))])),
        row("by the terminal one", |n| ("/terminal".into(), vec![("x-key", "one".into()), ("x-more", format!("{n}"))])),
        row("by the one after the terminal", |n| ("/terminal".into(), vec![("x-more", format!("{n}"))])),
        get("cookie made", "/ttl", &[]).ignoring(&["answer.body", "upstream0"]),
        get("cookie made for a session", "/session", &[]).ignoring(&["answer.body", "upstream0"]),
        get("cookie made with attributes", "/attributes", &[]).ignoring(&["answer.body", "upstream0"]),
        get("cookie not made", "/cookie", &[]).ignoring(&["answer.body", "upstream0"]),
        get("nothing to hash", "/header", &[]).ignoring(&["answer.body", "upstream0"]),
    ]
}

fn mirrors() -> Scenario {
    let policies = |list: Value| json!({"request_mirror_policies": list});
    let b = json!({"cluster": "$s-b"});
    let bare = json!({"cluster": "$s-b", "disable_shadow_host_suffix_append": true});
    let routes = vec![
        to("/several", "a", policies(json!([b, {"cluster": "$s-c"}]))),
        to("/twice", "a", policies(json!([b, b]))),
        to("/bare", "a", policies(json!([bare]))),
        to("/header", "a", policies(json!([{"cluster_header": "x-mirror"}]))),
        to("/none", "a", policies(json!([{"cluster": "$s-none"}]))),
        to("/dead", "a", policies(json!([{"cluster": "$s-dead"}]))),
        to("/two", "a", policies(json!([{"cluster": "$s-two"}]))),
        to("/host", "a", with(policies(json!([b])), json!({"host_rewrite_literal": "new.test"}))),
        to("/prefix", "a", with(policies(json!([b])), json!({"prefix_rewrite": "/other"}))),
        to("/retry", "a", with(policies(json!([b])), json!({"retry_policy": {"retry_on": "5xx", "num_retries": 1}}))),
        with(
            to("/added", "a", policies(json!([b]))),
            json!({"request_headers_to_add": [{"header": {"key": "x-added", "value": "yes"}}]}),
        ),
    ];
    let g = |name, path: &str| get(name, path, &[]).settling(120);
    let cases = vec![
        g("several", "/several"),
        post("several, with a body", "/several", &[], b"hello").settling(120),
        g("the same twice", "/twice"),
        g("host as it is", "/bare"),
        get("host with a port", "/several", &[("host", "svc.test:81")]).settling(120),
        get("by field", "/header", &[("x-mirror", "mirrors-b")]).settling(120),
        g("by field, absent", "/header"),
        get("by field, unknown", "/header", &[("x-mirror", "nowhere")]).settling(120),
        g("no such cluster", "/none"),
        g("nobody there", "/dead"),
        g("to HTTP/2", "/two"),
        g("host rewritten", "/host"),
        g("prefix rewritten", "/prefix"),
        g("fields added", "/added"),
        g("retried", "/retry").then(0, act().status(503)),
        g("client leaves early", "/several").then(0, act().end(End::Shut).always()),
        http2("from HTTP/2", vec![call("/several")]).settling(120),
        post("a large body", "/several", &[], &[b'x'; 100_000]).settling(200),
    ];
    let resources = vec![
        http(routes),
        cluster("a", &["$b0"], json!({})),
        cluster("b", &["$b1"], json!({})),
        cluster("c", &["$b2"], json!({})),
        cluster("two", &["$b3"], h2(json!({}))),
        cluster("dead", &["$dead"], json!({})),
    ];
    Scenario { backends: 4, ..scenario("mirrors", resources, cases) }
}
