//! Tests of `request`.

use super::*;
use crate::testing::{conn, hcm, head};

fn admit_with(hcm: &Hcm, conn: &ConnInfo, head: &mut Head) -> Result<Caller, Box<Reply>> {
    let node = Node {
        address: "10.0.0.9".parse().unwrap(),
        cluster: HeaderValue::from_static("svc"),
        id: HeaderValue::from_static("node"),
    };
    admit(hcm, &node, conn, None, head, &mut Random::new(7))
}

fn value<'h>(head: &'h Head, name: &str) -> Option<&'h str> {
    head.headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn hop_by_hop_headers_go_and_te_keeps_trailers() {
    let mut head = head(
        "/",
        &[
            ("connection", "x-hop, keep-alive"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("te", "trailers, deflate"),
            ("proxy-connection", "x"),
            ("proxy-authorization", "y"),
        ],
    );
    admit_with(&hcm(), &conn(), &mut head).unwrap();
    for gone in ["connection", "x-hop", "keep-alive", "proxy-connection"] {
        assert_eq!(value(&head, gone), None, "{gone}");
    }
    assert_eq!(value(&head, "te"), Some("trailers"));
    assert_eq!(value(&head, "proxy-authorization"), Some("y"));
}

#[test]
fn nominating_where_one_comes_from_is_refused() {
    let mut bad = head("/", &[("connection", "X-Forwarded-For"), ("x-forwarded-for", "1.2.3.4")]);
    assert!(admit_with(&hcm(), &conn(), &mut bad).is_err());
}

#[test]
fn only_internal_peers_may_steer() {
    let mut external =
        head("/", &[("x-envoy-retry-on", "5xx"), ("x-envoy-internal", "true"), ("x-envoy-original-path", "/z")]);
    let caller = admit_with(&hcm(), &conn(), &mut external).unwrap();
    assert!(!caller.internal && !caller.edge);
    assert_eq!(value(&external, "x-envoy-retry-on"), None);
    assert_eq!(value(&external, "x-envoy-internal"), None);
    assert_eq!(value(&external, "x-envoy-original-path"), Some("/z"));

    let mut edge = hcm();
    edge.use_remote_address = true;
    edge.internal.ranges = ["127.0.0.0/8".parse().unwrap()].into();
    let mut inside = head("/", &[("x-envoy-retry-on", "5xx")]);
    assert!(admit_with(&edge, &conn(), &mut inside).unwrap().internal);
    assert_eq!(value(&inside, "x-envoy-retry-on"), Some("5xx"));
    assert_eq!(value(&inside, "x-envoy-internal"), Some("true"));
    assert_eq!(value(&inside, "x-forwarded-for"), Some("10.0.0.9"));

    let mut outside = head("/", &[("x-envoy-retry-on", "5xx"), ("x-forwarded-for", "50.1.2.3")]);
    assert!(!admit_with(&edge, &conn(), &mut outside).unwrap().internal);
    assert_eq!(value(&outside, "x-envoy-retry-on"), None);
}

#[test]
fn trusted_hops_are_skipped() {
    let mut edge = hcm();
    edge.use_remote_address = true;
    edge.trusted_hops = 1;
    let mut one = head("/", &[("x-forwarded-for", "9.9.9.9, 8.8.8.8")]);
    let caller = admit_with(&edge, &conn(), &mut one).unwrap();
    assert_eq!(caller.address.map(|a| a.ip().to_string()).as_deref(), Some("8.8.8.8"));
    assert_eq!(value(&one, "x-envoy-external-address"), Some("8.8.8.8"));
}

#[test]
fn request_ids_are_made_kept_and_replaced() {
    let mut none = head("/", &[]);
    admit_with(&hcm(), &conn(), &mut none).unwrap();
    let id = value(&none, "x-request-id").unwrap();
    assert_eq!((id.len(), id.as_bytes()[14], id.as_bytes()[8]), (36, b'4', b'-'));

    let mut kept = head("/", &[("x-request-id", "abc-not-uuid")]);
    admit_with(&hcm(), &conn(), &mut kept).unwrap();
    assert_eq!(value(&kept, "x-request-id"), Some("abc-not-uuid"));

    let mut edge = hcm();
    edge.use_remote_address = true;
    let mut replaced = head("/", &[("x-request-id", "abc")]);
    admit_with(&edge, &conn(), &mut replaced).unwrap();
    assert_ne!(value(&replaced, "x-request-id"), Some("abc"));
}

#[test]
fn hosts_lose_ports_and_dots_when_asked() {
    let mut settings = hcm();
    settings.strip_port = PortStripping::Any;
    settings.strip_trailing_dot = true;
    let mut head = head("/", &[]);
    head.authority = "svc.test.:9999".into();
    admit_with(&settings, &conn(), &mut head).unwrap();
    assert_eq!(head.authority, "svc.test");
}

#[test]
fn schemes_follow_what_trusted_proxies_say() {
    let mut told = head("/", &[("x-forwarded-proto", "https")]);
    admit_with(&hcm(), &conn(), &mut told).unwrap();
    assert_eq!(told.scheme, Scheme::Https);
    let mut nonsense = head("/", &[("x-forwarded-proto", "gopher")]);
    admit_with(&hcm(), &conn(), &mut nonsense).unwrap();
    assert_eq!((nonsense.scheme, value(&nonsense, "x-forwarded-proto")), (Scheme::Http, Some("gopher")));
}

#[test]
fn names_with_underscores_pass_fall_out_or_end_the_request() {
    let mut settings = hcm();
    let asking = || head("/", &[("x_u", "1")]);
    let mut passing = asking();
    admit_with(&settings, &conn(), &mut passing).unwrap();
    assert_eq!(value(&passing, "x_u"), Some("1"));
    settings.limits.underscores = crate::config::Underscores::Drop;
    let mut dropped = asking();
    admit_with(&settings, &conn(), &mut dropped).unwrap();
    assert_eq!(value(&dropped, "x_u"), None);
    settings.limits.underscores = crate::config::Underscores::Reject;
    assert_eq!(admit_with(&settings, &conn(), &mut asking()).unwrap_err().status.as_u16(), 400);
}

#[test]
fn too_many_headers_are_refused_in_http_1() {
    let mut settings = hcm();
    settings.limits.headers = 2;
    assert!(admit_with(&settings, &conn(), &mut head("/", &[("a", "1")])).is_ok());
    let refused = admit_with(&settings, &conn(), &mut head("/", &[("a", "1"), ("b", "1")])).unwrap_err();
    assert_eq!(refused.status.as_u16(), 431);
}

#[test]
fn crumbs_of_cookies_are_joined_and_expectations_met() {
    let mut two = head("/", &[("cookie", "a=1"), ("cookie", "b=2"), ("expect", "100-Continue")]);
    two.protocol = Protocol::Http2;
    admit_with(&hcm(), &conn(), &mut two).unwrap();
    assert_eq!((value(&two, "cookie"), value(&two, "expect")), (Some("a=1; b=2"), None));
}
