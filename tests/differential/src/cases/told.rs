//! Headers and cookies that become metadata.

use crate::{
    resource::{chain, cluster, extension, hcm_hosts, listener, log, router, to, typed, with},
    script::{Scenario, act, get, scenario},
};
use serde_json::{Value, json};

const NAME: &str = "envoy.filters.http.header_to_metadata";
const KIND: &str = "envoy.extensions.filters.http.header_to_metadata.v3.Config";

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    let present = |source: Value, target: Value| with(source, json!({"on_header_present": target}));
    let header = |name: &str| json!({"header": name});
    let rewrite = json!({"pattern": {"regex": "v([0-9]+)"}, "substitution": "<\\1>"});
    let rules = json!({
        "request_rules": [
            present(header("x-text"), json!({"key": "text"})),
            present(header("x-text"), json!({"key": "fixed", "value": "yes", "metadata_namespace": "other"})),
            present(header("x-number"), json!({"key": "number", "type": "NUMBER"})),
            present(header("x-number"), json!({"key": "decoded", "encode": "BASE64"})),
            present(header("x-rewritten"), json!({"key": "rewritten", "regex_value_rewrite": rewrite})),
            present(json!({"cookie": "c"}), json!({"key": "cookie"})),
            present(header(":path"), json!({"key": "path"})),
            with(present(with(header("x-gone"), json!({"remove": true})), json!({"key": "gone"})), json!({})),
            {"header": "x-gone", "on_header_missing": {"key": "gone after", "value": "it is"}},
            {"header": "x-not", "on_header_missing": {"key": "missing", "value": "7", "type": "NUMBER"}},
        ],
        "response_rules": [
            present(with(header("x-back"), json!({"remove": true})), json!({"key": "back", "metadata_namespace": "other"})),
            {"header": "x-not", "on_header_missing": {"key": "no answer", "value": "none"}},
        ],
    });
    let own = json!({"request_rules": [present(header("x-text"), json!({"key": "of the route"}))]});
    let routes = vec![
        with(to("/own", "c", json!({})), json!({"typed_per_filter_config": {NAME: typed(KIND, own)}})),
        json!({"match": {"prefix": "/direct"}, "direct_response": {"status": 200}}),
        to("/", "c", json!({})),
    ];
    let mut log = log();
    for (field, operator) in
        [("told", format!("%DYNAMIC_METADATA({NAME})%")), ("other", "%DYNAMIC_METADATA(other)%".into())]
    {
        log["typed_config"]["log_format"]["json_format"][field] = json!(operator);
    }
    let hosts = vec![json!({"name": "any", "domains": ["*"], "routes": routes})];
    let more = json!({"http_filters": [extension(NAME, KIND, rules), router()], "access_log": [log]});
    let all = [
        ("x-text", "a"),
        ("x-text", "b"),
        ("x-number", " 2.5 "),
        ("x-rewritten", "v1,v22"),
        ("cookie", "b=1; c=\"x\""),
        ("x-gone", "z"),
    ];
    let cases = vec![
        get("nothing there", "/", &[]),
        get("all there", "/p?q=1", &all).then(0, act().header("x-back", "1")),
        get("on the route", "/own", &all).then(0, act().header("x-back", "1")),
        get("answered here", "/direct", &all),
        get("encoded", "/", &[("x-number", "aGV5")]),
        get("encoded without padding", "/", &[("x-number", "aGU")]),
        get("no number", "/", &[("x-number", "1,5")]),
    ];
    let resources =
        vec![listener(0, vec![chain(hcm_hosts(hosts, more))], json!({})), cluster("c", &["$b0"], json!({}))];
    vec![scenario("told by headers", resources, cases)]
}
