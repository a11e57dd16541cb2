//! Listeners with one HTTP filter each, which is valid or wrong in one way: what is beyond spoiling a valid one.

use crate::resource::{extension, hcm, listener, router, to};
use serde_json::{Value, json};

/// What each is, and the listener.
pub(super) fn all() -> Vec<(String, Value)> {
    let with = |(what, filter): (String, Value)| {
        let chain = hcm(vec![to("/", "c", json!({}))], json!({"http_filters": [filter, router()]}));
        (what, listener(0, vec![crate::resource::chain(chain)], json!({"bind_to_port": false})))
    };
    mutations().into_iter().chain(told()).map(with).collect()
}

fn mutations() -> Vec<(String, Value)> {
    let filter = |mutations: Value| {
        extension(
            "envoy.filters.http.header_mutation",
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            json!({"mutations": mutations}),
        )
    };
    let put = |key: &str, value: &str, action: &str| json!({"append": {"header": {"key": key, "value": value}, "append_action": action}});
    let add = |key: &str| put(key, "v", "APPEND_IF_EXISTS_OR_ADD");
    let over = |key: &str| put(key, "v", "OVERWRITE_IF_EXISTS_OR_ADD");
    let record = |key: &str, value: Value| json!({"append": {"record": {"key": key, "value": value}}});
    let mut all = Vec::new();
    for field in
        ["request_mutations", "response_mutations", "request_trailers_mutations", "response_trailers_mutations"]
    {
        for list in [
            json!([]),
            json!([{}]),
            json!([add(":path")]),
            json!([over(":path")]),
            json!([over(":authority")]),
            json!([over("host")]),
            json!([add("host")]),
            json!([add("a b")]),
            json!([put("a", "%NOPE%", "ADD_IF_ABSENT")]),
            json!([put("a", "%REQ(b)%", "OVERWRITE_IF_EXISTS")]),
            json!([add("a"), {"remove": "a"}, add("a")]),
            json!([{"remove": "a b"}]),
            json!([{"remove": ""}]),
            json!([{"remove": "a\nb"}]),
            json!([{"remove_on_match": {}}]),
            json!([{"remove_on_match": {"key_matcher": {"prefix": "x-"}}}]),
            json!([{"remove_on_match": {"key_matcher": {}}}]),
        ] {
            all.push((format!("{field} {list}"), filter(json!({field: list}))));
        }
    }
    for one in [
        record("a", json!("b")),
        record("a", json!("%REQ(b)%")),
        record("a", json!("%NOPE%")),
        record("", json!("b")),
        record("a", json!(3)),
        record("a", json!(null)),
        json!({"append": {}}),
        json!({"append": {"record": {"key": "a"}}}),
        json!({"append": {"entry": {"key": "a", "value": "Yg=="}}}),
        json!({"append": {"record": {"key": "a", "value": "b"}}, "remove": "a"}),
        json!({"remove": "a"}),
        json!({}),
    ] {
        all.push((format!("query {one}"), filter(json!({"query_parameter_mutations": [one]}))));
    }
    all
}

fn told() -> Vec<(String, Value)> {
    let rewrite = json!({"pattern": {"regex": "a"}, "substitution": "b"});
    let rules = [
        json!({"on_header_present": {"key": "k"}}),
        json!({"header": "x-a", "cookie": "c", "on_header_present": {"key": "k"}}),
        json!({"header": "x-a"}),
        json!({"header": "x-a", "on_header_present": {"key": "k"}, "remove": true}),
        json!({"header": ":path", "on_header_present": {"key": "k"}}),
        json!({"header": "a b", "on_header_present": {"key": "k"}}),
        json!({"header": "x-a", "on_header_present": {"value": "v"}}),
        json!({"header": "x-a", "on_header_present": {"key": "k", "value": "v", "regex_value_rewrite": rewrite}}),
        json!({"header": "x-a", "on_header_present": {"key": "k", "regex_value_rewrite": {"pattern": {"regex": "("}}}}),
        json!({"header": "x-a", "on_header_missing": {"key": "k"}}),
        json!({"header": "x-a", "on_header_missing": {"key": "k", "value": "v", "type": "NUMBER"}}),
        json!({"header": "x-a", "on_header_missing": {"key": "k", "regex_value_rewrite": rewrite}}),
        json!({"cookie": "c", "on_header_present": {"key": "k", "encode": "BASE64", "type": "PROTOBUF_VALUE"}}),
        json!({"cookie": "c", "on_header_present": {"key": "k"}, "remove": true}),
    ];
    let filter = |field: &str, rule: &Value| {
        extension(
            "envoy.filters.http.header_to_metadata",
            "envoy.extensions.filters.http.header_to_metadata.v3.Config",
            json!({field: [rule]}),
        )
    };
    let each = |field: &'static str| {
        rules.iter().map(move |rule| (format!("{field} {rule}"), filter(field, rule))).collect::<Vec<_>>()
    };
    [each("request_rules"), each("response_rules")].concat()
}
