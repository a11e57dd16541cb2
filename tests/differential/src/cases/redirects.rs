//! Redirects of an upstream that the proxy follows itself.

use crate::{
    resource::{certificate, cluster, extension, h2, hcm, http, inspector, listener, tls_chain, to, with},
    script::{Act, Case, Scenario, Step, Tls, act, call, get, http2, post, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![internal()]
}

fn predicate(name: &str, fields: Value) -> Value {
    let kind = format!("envoy.extensions.internal_redirect.{name}");
    extension(name.split('.').next().unwrap_or_default(), &kind, fields)
}

fn routes() -> Vec<Value> {
    let named = |name: &str, route: Value| with(route, json!({"name": name}));
    let own = |name: &str, policy: Value| {
        named(name, to(&format!("/{name}"), "a", json!({"internal_redirect_policy": policy})))
    };
    let previous = || predicate("previous_routes.v3.PreviousRoutesConfig", json!({}));
    let listed = || {
        predicate("allow_listed_routes.v3.AllowListedRoutesConfig", json!({"allowed_route_names": ["target", "two"]}))
    };
    let safe = || predicate("safe_cross_scheme.v3.SafeCrossSchemeConfig", json!({}));
    vec![
        own("once", json!({})),
        own("codes", json!({"redirect_response_codes": [301, 303, 307, 308]})),
        own("two", json!({"max_internal_redirects": 2})),
        own("none", json!({"max_internal_redirects": 0})),
        own("previous", json!({"max_internal_redirects": 3, "predicates": [previous()]})),
        own("listed", json!({"max_internal_redirects": 3, "predicates": [listed()]})),
        own("cross", json!({"allow_cross_scheme_redirect": true, "max_internal_redirects": 2})),
        own("safe", json!({"allow_cross_scheme_redirect": true, "predicates": [safe()]})),
        own("copy", json!({"response_headers_to_copy": ["x-copied", "x-absent"]})),
        named(
            "retried",
            to(
                "/retried",
                "a",
                json!({
                    "internal_redirect_policy": {}, "retry_policy": {"retry_on": "5xx", "num_retries": 1},
                }),
            ),
        ),
        named(
            "rewritten",
            to(
                "/rewritten",
                "a",
                json!({
                    "internal_redirect_policy": {}, "prefix_rewrite": "/inner", "host_rewrite_literal": "inner.test",
                }),
            ),
        ),
        named("target", to("/target", "b", json!({}))),
        json!({"name": "direct", "match": {"prefix": "/direct"}, "direct_response": {"status": 202}}),
        json!({"name": "onward", "match": {"prefix": "/onward"}, "redirect": {"path_redirect": "/else"}}),
        named("dead", to("/dead", "dead", json!({}))),
        named("plain", to("/plain", "a", json!({}))),
    ]
}

fn moved(status: u16, location: &'static str) -> Act {
    act().status(status).header("location", location).body("moved")
}

fn internal() -> Scenario {
    let secure = tls_chain(
        hcm(routes(), json!({})),
        json!({}),
        json!({"common_tls_context": {"tls_certificates": [certificate("svc")]}}),
    );
    let resources = vec![
        http(routes()),
        listener(1, vec![secure], json!({"listener_filters": [inspector()]})),
        cluster("a", &["$b0"], json!({})),
        cluster("b", &["$b1"], h2(json!({}))),
        cluster("dead", &["$dead"], json!({})),
    ];
    scenario("internal redirects", resources, [followed(), refused(), schemes(), bodies()].concat())
}

fn followed() -> Vec<Case> {
    vec![
        get("followed", "/once?x=1", &[("x-a", "b")]).then(0, moved(302, "http://svc.test/target?y=2")),
        get("another host", "/once", &[]).then(0, moved(302, "http://other.test:81/target")),
        get("fragment", "/once", &[]).then(0, moved(302, "http://svc.test/target?a#frag")),
        get("no path", "/once", &[]).then(0, moved(302, "http://svc.test")),
        get("an answer that fails", "/once", &[]).then(0, moved(302, "http://svc.test/dead")),
        get("to an answer made here", "/once", &[]).then(0, moved(302, "http://svc.test/direct")),
        get("to a redirect", "/once", &[]).then(0, moved(302, "http://svc.test/onward")),
        get("twice", "/two", &[])
            .then(0, moved(302, "http://svc.test/two/1"))
            .then(0, moved(302, "http://svc.test/target")),
        get("three are too many", "/two", &[]).then(0, moved(302, "http://svc.test/two/1").always()),
        get("by the next route's policy", "/two", &[])
            .then(0, moved(302, "http://svc.test/once"))
            .then(0, moved(302, "http://svc.test/target")),
        get("copied fields", "/copy", &[]).then(0, moved(302, "http://svc.test/target").header("x-copied", "1")),
        get("copied over", "/copy", &[("x-copied", "0"), ("x-absent", "0")])
            .then(0, moved(302, "http://svc.test/target").header("x-copied", "1")),
        get("rewritten", "/rewritten/x", &[]).then(0, moved(302, "http://svc.test/target")),
        get("retried before", "/retried", &[]).then(0, act().status(503)).then(0, moved(302, "http://svc.test/target")),
        http2("over HTTP/2", vec![call("/once")]).then(0, moved(302, "http://svc.test/target")),
    ]
}

fn refused() -> Vec<Case> {
    let once = |name, location| get(name, "/once", &[]).then(0, moved(302, location));
    vec![
        get("no policy", "/plain", &[]).then(0, moved(302, "http://svc.test/target")),
        get("none allowed", "/none", &[]).then(0, moved(302, "http://svc.test/target")),
        get("another code", "/once", &[]).then(0, moved(301, "http://svc.test/target")),
        once("relative", "/target"),
        once("relative to the scheme", "//svc.test/target"),
        once("another protocol", "ftp://svc.test/target"),
        once("with a user", "http://me@svc.test/target"),
        once("nonsense", "http://"),
        once("no route", "http://svc.test/nowhere"),
        get("no location", "/once", &[]).then(0, act().status(302)),
        get("302 is not listed", "/codes", &[]).then(0, moved(302, "http://svc.test/target")),
        get("301", "/codes", &[]).then(0, moved(301, "http://svc.test/target")),
        get("308", "/codes", &[]).then(0, moved(308, "http://svc.test/target")),
        get("200 with a location", "/codes", &[]).then(0, act().header("location", "http://svc.test/target")),
        get("previous route", "/previous", &[]).then(0, moved(302, "http://svc.test/previous/1").always()),
        get("there and back", "/previous", &[])
            .then(0, moved(302, "http://svc.test/two"))
            .then(0, moved(302, "http://svc.test/previous"))
            .then(0, moved(302, "http://svc.test/two")),
        get("listed", "/listed", &[]).then(0, moved(302, "http://svc.test/target")),
        get("not listed", "/listed", &[]).then(0, moved(302, "http://svc.test/plain")),
    ]
}

fn schemes() -> Vec<Case> {
    let tls = || Tls { sni: "svc.test", ..Tls::default() };
    let to_secure = |name, path| get(name, path, &[]).then(0, moved(302, "https://svc.test/target"));
    let to_plain = |name, path| get(name, path, &[]).then(0, moved(302, "http://svc.test/target")).on(1).tls(tls());
    vec![
        to_secure("to https", "/once"),
        to_secure("to https, allowed", "/cross"),
        to_secure("to https, when safe", "/safe"),
        to_plain("from https", "/once"),
        to_plain("from https, allowed", "/cross"),
        to_plain("from https, when safe", "/safe"),
        to_secure("https to https", "/once").on(1).tls(tls()),
        to_secure("https to https, when safe", "/safe").on(1).tls(tls()),
        get("plain to plain, when safe", "/safe", &[]).then(0, moved(302, "http://svc.test/target")),
    ]
}

fn bodies() -> Vec<Case> {
    let late = |name, path: &str, status| {
        let head = request("POST", path, &[("transfer-encoding", "chunked")], b"");
        let steps = vec![
            Step::Send([head, b"5\r\nhello\r\n".to_vec()].concat()),
            Step::Sleep(100),
            Step::Send(b"0\r\n\r\n".to_vec()),
            Step::Answer,
        ];
        raw(name, steps).then(0, moved(status, "http://svc.test/target"))
    };
    vec![
        post("POST, 302", "/once", &[], b"hello").then(0, moved(302, "http://svc.test/target")),
        post("POST, 301", "/codes", &[], b"hello").then(0, moved(301, "http://svc.test/target")),
        post("POST, 303", "/codes", &[], b"hello").then(0, moved(303, "http://svc.test/target")),
        post("POST, 307", "/codes", &[], b"hello").then(0, moved(307, "http://svc.test/target")),
        post("POST, 308, large", "/codes", &[], &[b'x'; 70_000]).then(0, moved(308, "http://svc.test/target")),
        late("POST in chunks", "/codes", 307),
        raw("HEAD, 303", vec![Step::Send(request("HEAD", "/codes", &[], b"")), Step::AnswerToHead])
            .then(0, moved(303, "http://svc.test/target")),
        raw("PUT, 303", vec![Step::Send(request("PUT", "/codes", &[], b"hello")), Step::Answer])
            .then(0, moved(303, "http://svc.test/target")),
    ]
}
