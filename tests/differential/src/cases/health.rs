//! Endpoints whose health changes while they are used, and how they are asked for it.

use crate::{
    resource::{address, cluster, h2, http, to, with},
    script::{Case, Health, Scenario, Step, act, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![changes(), grpc(), ejected()]
}

fn checked(check: Value) -> Value {
    let base = json!({
        "timeout": "0.3s", "interval": "0.1s", "no_traffic_interval": "0.1s", "no_traffic_healthy_interval": "0.1s",
        "unhealthy_threshold": 2, "healthy_threshold": 1,
    });
    json!({"health_checks": [with(base, check)]})
}

fn strict() -> Value {
    json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0.0}}})
}

fn one(path: &str) -> [Step; 2] {
    [Step::Send(request("GET", path, &[], b"")), Step::Answer]
}

/// A case that waits for a status, then looks at one answer.
fn after(name: &'static str, before: Vec<Step>, path: &'static str, status: u16) -> Case {
    let steps = [before, vec![Step::Until(path, status)], one(path).to_vec()].concat();
    raw(name, steps)
}

fn changes() -> Scenario {
    let path = |fields: Value| json!({"http_health_check": with(json!({"path": "/healthz"}), fields)});
    let of = |name: &str, backends: &[&str], check: Value| cluster(name, backends, with(checked(check), strict()));
    let endpoint = |n: u16| json!({"endpoint": {"address": address(&format!("$b{n}"))}});
    let levels = json!({"load_assignment": {"cluster_name": "$s-levels", "endpoints": [
        {"priority": 0, "lb_endpoints": [endpoint(2)]}, {"priority": 1, "lb_endpoints": [endpoint(3)]},
    ]}});
    let fields = json!({
        "host": "health.test", "method": "HEAD",
        "request_headers_to_add": [{"header": {"key": "x-check", "value": "yes"}}], "request_headers_to_remove": ["user-agent-none"],
    });
    let codes = json!({
        "expected_statuses": [{"start": 200, "end": 201}, {"start": 404, "end": 405}],
        "retriable_statuses": [{"start": 503, "end": 504}],
    });
    // Who says itself that it fails is believed until the next check, which does not come here.
    let seldom = json!({
        "timeout": "3s", "interval": "60s", "no_traffic_interval": "60s", "no_traffic_healthy_interval": "60s",
    });
    let names = ["single", "half", "levels", "fields", "codes", "two", "panic", "seldom"];
    let resources = vec![
        http(names.iter().map(|name| to(&format!("/{name}"), name, json!({}))).collect()),
        of("single", &["$b0"], path(json!({}))),
        of("half", &["$b0", "$b1"], path(json!({}))),
        with(of("levels", &[], path(json!({}))), levels),
        of("fields", &["$b4"], path(fields)),
        of("codes", &["$b5"], path(codes)),
        with(with(cluster("two", &["$b6"], h2(json!({}))), checked(path(json!({})))), strict()),
        cluster("panic", &["$b0", "$b7"], checked(path(json!({})))),
        with(of("seldom", &["$b4"], with(path(json!({})), seldom)), json!({})),
    ];
    let health = |n, status| Step::Health(n, Health::Status(status));
    let cases = vec![
        after("healthy", vec![], "/single", 200),
        after("not any more", vec![health(0, 503)], "/single", 503),
        raw("half of them", one("/half").to_vec()).times(6),
        after("none of them", vec![health(1, 500)], "/half", 503),
        after("again", vec![health(0, 200)], "/half", 200),
        after("the other, too", vec![health(1, 200)], "/single", 200),
        after("first level", vec![], "/levels", 200),
        raw("second level", [vec![health(2, 503), Step::Sleep(1000)], one("/levels").to_vec()].concat()),
        after("no level", vec![health(3, 503)], "/levels", 503),
        after("first level again", vec![health(2, 200)], "/levels", 200),
        after("own fields", vec![], "/fields", 200),
        after("404 is healthy", vec![health(5, 404)], "/codes", 200),
        after("503 may be tried again", vec![health(5, 503)], "/codes", 503),
        after("over HTTP/2", vec![], "/two", 200),
        after("over HTTP/2, not any more", vec![health(6, 429)], "/two", 503),
        after("silent", vec![Step::Health(5, Health::Silent)], "/codes", 503),
        raw(
            "panic",
            [
                vec![health(0, 503), health(7, 503), Step::Until("/single", 503), Step::Sleep(700)],
                one("/panic").to_vec(),
            ]
            .concat(),
        )
        .ignoring(&["answer.body", "upstream0"]),
        after("asks to be left alone", vec![], "/seldom", 200)
            .then(4, act().header("x-envoy-immediate-health-check-fail", "1")),
        after("and is", vec![], "/seldom", 503),
    ];
    Scenario { backends: 8, warm: 600, stateful: true, ..scenario("health-changes", resources, cases) }
}

fn grpc() -> Scenario {
    let of = |name: &str, backend: &str, check: Value| {
        let check = checked(json!({"grpc_health_check": check, "timeout": "0.6s"}));
        with(with(cluster(name, &[backend], h2(json!({}))), check), strict())
    };
    let metadata = json!([{"header": {"key": "x-check", "value": "yes"}}]);
    let resources = vec![
        http(
            ["plain", "named", "fields", "other"].iter().map(|name| to(&format!("/{name}"), name, json!({}))).collect(),
        ),
        of("plain", "$b0", json!({})),
        of("named", "$b1", json!({"service_name": "a.Service"})),
        of("fields", "$b2", json!({"authority": "health.test", "initial_metadata": metadata})),
        of("other", "$b3", json!({"service_name": "a.Nother"})),
    ];
    let set = |n, health| vec![Step::Health(n, health)];
    let cases = vec![
        after("serving", vec![], "/plain", 200),
        after("not serving", set(0, Health::Status(500)), "/plain", 503),
        after("serving again", set(0, Health::Status(200)), "/plain", 200),
        after("unimplemented", set(0, Health::Grpc("12")), "/plain", 503),
        after("serving once more", set(0, Health::Status(200)), "/plain", 200),
        after("unavailable", set(0, Health::Grpc("14")), "/plain", 503),
        after("status without an answer", set(0, Health::Grpc("0")), "/plain", 503),
        after("a service", set(1, Health::Only("a.Service")), "/named", 200),
        after("an unknown service", set(3, Health::Only("a.Service")), "/other", 503),
        after("silent", set(1, Health::Silent), "/named", 503),
        after("own fields", vec![], "/fields", 200),
    ];
    Scenario { backends: 4, warm: 600, stateful: true, ..scenario("grpc-health", resources, cases) }
}

fn ejected() -> Scenario {
    let detection = |fields: Value| {
        let base = json!({"interval": "0.2s", "base_ejection_time": "0.4s", "max_ejection_percent": 100});
        with(json!({"outlier_detection": with(base, fields)}), strict())
    };
    let five = json!({"consecutive_5xx": 2, "enforcing_consecutive_5xx": 100});
    let local = json!({
        "split_external_local_origin_errors": true, "consecutive_local_origin_failure": 2, "consecutive_5xx": 0,
        "enforcing_consecutive_local_origin_failure": 100, "base_ejection_time": "60s", "enforcing_consecutive_5xx": 0,
    });
    let capped = json!({"consecutive_5xx": 1, "enforcing_consecutive_5xx": 100, "max_ejection_percent": 10, "base_ejection_time": "60s"});
    let resources = vec![
        http(["back", "local", "capped"].iter().map(|name| to(&format!("/{name}"), name, json!({}))).collect()),
        cluster("back", &["$b0"], detection(five)),
        cluster("local", &["$dead"], detection(local)),
        cluster("capped", &["$b1", "$b2"], detection(capped)),
    ];
    let row = |path: &str, n: usize| -> Vec<Step> {
        (0..n).flat_map(|_| one(path).into_iter().chain([Step::Sleep(40)])).collect()
    };
    let cases = vec![
        raw("ejected", row("/back", 3)).then(0, act().status(500)).then(0, act().status(500)),
        after("comes back", vec![], "/back", 200),
        raw("nobody there", row("/local", 4)),
        raw("not all at once", row("/capped", 6))
            .then(1, act().status(500).always())
            .then(2, act().status(500).always())
            .ignoring(&["upstream", "answer"]),
    ];
    Scenario { backends: 3, stateful: true, ..scenario("ejected", resources, cases) }
}
