//! Tests of `forward`.

use super::*;
use crate::{
    config::{Config, ServerHeader},
    decide::{Moment, decide},
    decision::{Decision, Forward},
    format::Facts,
    head::Head,
    request::Caller,
    testing::{cluster, conn, hcm, head, route_to, table, table_message},
    time::Random,
};
use http::{HeaderMap, HeaderValue};
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::envoy::config::{
    core::v3 as core,
    route::v3::{self as pb, route_match::PathSpecifier as P},
};

const CALLER: Caller = Caller { address: None, internal: false, edge: false };

fn put(key: &str, value: &str, action: core::header_value_option::HeaderAppendAction) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
        append_action: action as i32,
        ..Default::default()
    }
}

fn append(key: &str, value: &str) -> core::HeaderValueOption {
    put(key, value, core::header_value_option::HeaderAppendAction::AppendIfExistsOrAdd)
}

fn decided(message: &pb::RouteConfiguration, head: &Head) -> Box<Forward> {
    let config = Config { clusters: [(Arc::from("c"), cluster("c"))].into_iter().collect(), ..Config::default() };
    let (table, hcm) = (table(message), hcm());
    match decide(&config, &hcm, Some(&table), &conn(), CALLER, head, Moment::default(), &mut Random::new(1)) {
        Decision::Forward(forward) => forward,
        Decision::Reply(reply) => panic!("{reply:?}"),
    }
}

/// The head as the upstream sees it, and the decision.
fn prepared(message: &pb::RouteConfiguration, mut head: Head) -> (Head, Box<Forward>) {
    let mut forward = decided(message, &head);
    let (hcm, conn) = (hcm(), conn());
    prepare(&mut forward, Context { hcm: &hcm, conn: &conn, caller: CALLER, base: Facts::default() }, &mut head);
    stamp_attempt(&forward, 1, Duration::ZERO, false, &mut head);
    (head, forward)
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn one_route() -> pb::RouteConfiguration {
    table_message("t", &["*"], vec![route_to("c", P::Prefix("/".into()))])
}

fn action(message: &mut pb::RouteConfiguration) -> &mut pb::RouteAction {
    match message.virtual_hosts[0].routes[0].action.as_mut() {
        Some(pb::route::Action::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_levels_apply_from_the_specific_to_the_general() {
    let mut message = one_route();
    message.request_headers_to_add.push(append("x-o", "global"));
    message.virtual_hosts[0].request_headers_to_add.push(append("x-o", "vhost"));
    message.virtual_hosts[0].routes[0].request_headers_to_add.push(append("x-o", "route"));
    assert_eq!(values(&prepared(&message, head("/", &[])).0.headers, "x-o"), ["route", "vhost", "global"]);
    message.most_specific_header_mutations_wins = true;
    assert_eq!(values(&prepared(&message, head("/", &[])).0.headers, "x-o"), ["global", "vhost", "route"]);
}

#[test]
fn each_action_does_what_it_is_named_for() {
    use core::header_value_option::HeaderAppendAction as A;
    let mut message = one_route();
    message.request_headers_to_add = vec![
        put("x-app", "n", A::AppendIfExistsOrAdd),
        put("x-abs", "n", A::AddIfAbsent),
        put("x-ow", "n", A::OverwriteIfExistsOrAdd),
        put("x-owx", "n", A::OverwriteIfExists),
        append("x-empty", "%REQ(nope)%"),
        put("host", "%REQ(:authority)%.new", A::OverwriteIfExistsOrAdd),
    ];
    message.request_headers_to_remove = vec!["x-gone".into()];
    let olds: Vec<_> = ["x-app", "x-abs", "x-ow", "x-owx", "x-gone"].iter().map(|name| (*name, "o")).collect();
    let (there, _) = prepared(&message, head("/", &olds));
    let all = |head: &Head| {
        ["x-app", "x-abs", "x-ow", "x-owx", "x-gone", "x-empty"].map(|name| values(&head.headers, name).join(","))
    };
    assert_eq!(all(&there), ["o,n", "o", "n", "n", "", ""]);
    assert_eq!(there.authority, "svc.test.new");
    assert_eq!(all(&prepared(&message, head("/", &[])).0), ["n", "n", "n", "", "", ""]);
}

#[test]
fn rewrites_tell_what_was_there_before() {
    let mut message = one_route();
    message.virtual_hosts[0].routes[0].r#match.as_mut().unwrap().path_specifier = Some(P::Prefix("/api".into()));
    action(&mut message).prefix_rewrite = "/".into();
    action(&mut message).host_rewrite_specifier =
        Some(pb::route_action::HostRewriteSpecifier::HostRewriteLiteral("lit.test".into()));
    action(&mut message).append_x_forwarded_host = true;
    let (seen, _) = prepared(&message, head("/api/x?y", &[("x-forwarded-host", "before")]));
    assert_eq!((seen.path.as_str(), seen.authority.as_str()), ("//x?y", "lit.test"));
    assert_eq!(values(&seen.headers, "x-envoy-original-path"), ["/api/x?y"]);
    assert_eq!(values(&seen.headers, "x-envoy-original-host"), ["svc.test"]);
    assert_eq!(values(&seen.headers, "x-forwarded-host"), ["before,svc.test"]);
}

#[test]
fn retries_are_merged_and_their_headers_consumed() {
    let mut message = one_route();
    let (seen, forward) = prepared(
        &message,
        head(
            "/",
            &[
                ("x-envoy-retry-on", "bogus,5xx"),
                ("x-envoy-retriable-status-codes", "418, 404"),
                ("x-envoy-retriable-header-names", "X-Again"),
            ],
        ),
    );
    let plan = forward.retry.unwrap();
    assert_eq!((plan.retries, &*plan.status_codes, plan.header_names[0].as_str()), (1, &[418, 404][..], "x-again"));
    assert!(plan.on.has(crate::config::RetryOn::FIVE_XX));
    assert!(!seen.headers.keys().any(|name| name.as_str().starts_with("x-envoy-ret")));
    assert!(prepared(&message, head("/", &[])).1.retry.is_none());

    let present = pb::HeaderMatcher { name: "x-idem".into(), ..Default::default() };
    action(&mut message).retry_policy = Some(pb::RetryPolicy {
        retry_on: "5xx".into(),
        retriable_request_headers: vec![present],
        ..Default::default()
    });
    assert!(prepared(&message, head("/", &[])).1.retry.is_none());
    let with = head("/", &[("x-idem", "1"), ("x-envoy-max-retries", "0")]);
    assert_eq!(prepared(&message, with).1.retry.unwrap().retries, 0);
}

#[test]
fn the_upstream_is_told_how_long_it_has() {
    let (mut seen, forward) = prepared(&one_route(), head("/", &[]));
    assert_eq!(values(&seen.headers, "x-envoy-expected-rq-timeout-ms"), ["15000"]);
    stamp_attempt(&forward, 2, Duration::from_secs(14), false, &mut seen);
    assert_eq!(values(&seen.headers, "x-envoy-expected-rq-timeout-ms"), ["1000"]);
    stamp_attempt(&forward, 3, Duration::from_secs(16), false, &mut seen);
    assert_eq!(values(&seen.headers, "x-envoy-expected-rq-timeout-ms"), ["1"]);
}

#[test]
fn responses_are_changed_and_finished() {
    let mut message = one_route();
    message.virtual_hosts[0].include_attempt_count_in_response = true;
    message.response_headers_to_add.push(append("x-f", "%RESPONSE_CODE%|%UPSTREAM_CLUSTER%|%RESP(x-up)%"));
    let (seen, forward) = prepared(&message, head("/", &[]));
    let mut settings = hcm();
    settings.via = Some(HeaderValue::from_static("v"));
    let conn = conn();
    let context = Context { hcm: &settings, conn: &conn, caller: CALLER, base: Facts::default() };
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-up", "u"), ("server", "up"), ("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "5")]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let facts = Facts { status: Some(200), cluster: "c", ..Facts::default() };
    upstream_response(&forward, context, &seen, &facts, 7, 2, &mut headers);
    finish_response(&settings, Some(&seen), false, &mut headers);
    let expect = [
        ("x-f", "200|c|u"),
        ("server", "envoy"),
        ("via", "v"),
        ("x-envoy-upstream-service-time", "7"),
        ("x-envoy-attempt-count", "2"),
        ("x-hop", "1"),
    ];
    for (name, value) in expect {
        assert_eq!(values(&headers, name), [value], "{name}");
    }
    assert!(!headers.contains_key("connection") && !headers.contains_key("keep-alive"));
    settings.server_header = ServerHeader::PassThrough;
    headers.remove("server");
    finish_response(&settings, None, false, &mut headers);
    assert!(!headers.contains_key("server"));
}
