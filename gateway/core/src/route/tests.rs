//! Tests of `route`.

use super::*;
use crate::runtime::Runtime;
use crate::testing::{conn, head, route_to, table, table_message};
use tombolo_controlplane_api::xds::envoy::{
    config::route::v3::{self as pb, header_matcher::HeaderMatchSpecifier as H, route_match::PathSpecifier as P},
    r#type::{
        matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
        v3::Int64Range,
    },
};

fn caller() -> Caller {
    Caller { address: None, internal: false, edge: false }
}

/// The cluster that a path with headers leads to, in a table with one route.
fn fits(matches: pb::RouteMatch, path: &str, headers: &[(&str, &str)]) -> bool {
    let mut route = route_to("c", P::Prefix("/".into()));
    route.r#match = Some(matches);
    let table = table(&table_message("t", &["*"], vec![route]));
    matches!(find(&table, &head(path, headers), &conn(), caller(), &Runtime::default(), 0), Found::Route(_))
}

fn on(path: P) -> pb::RouteMatch {
    pb::RouteMatch { path_specifier: Some(path), ..Default::default() }
}

fn text(pattern: MatchPattern, ignore_case: bool) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case }
}

fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.into(), ..Default::default() }
}

fn with_header(name: &str, spec: H) -> pb::HeaderMatcher {
    pb::HeaderMatcher { name: name.into(), header_match_specifier: Some(spec), ..Default::default() }
}

fn header_fits(matcher: pb::HeaderMatcher, headers: &[(&str, &str)]) -> bool {
    fits(pb::RouteMatch { headers: vec![matcher], ..on(P::Prefix("/".into())) }, "/h", headers)
}

#[test]
fn paths_match_without_their_query() {
    for (wanted, path, expect) in [
        (P::SafeRegex(regex("/re/[0-9]+")), "/re/12", true),
        (P::SafeRegex(regex("/re/[0-9]+")), "/re/12x", false),
        (P::SafeRegex(regex("/re/[0-9]+")), "/re/12?x=/y", true),
        (P::SafeRegex(regex("/a|/ab")), "/ab", true),
        (P::Path("/exact".into()), "/exact?a=1", true),
        (P::Path("/exact".into()), "/exact/", false),
        (P::PathSeparatedPrefix("/sep".into()), "/sep", true),
        (P::PathSeparatedPrefix("/sep".into()), "/sep/x", true),
        (P::PathSeparatedPrefix("/sep".into()), "/sepx", false),
        (P::PathSeparatedPrefix("/sep".into()), "/sep?y", true),
        (P::Prefix("/o".into()), "/order", true),
        (P::ConnectMatcher(pb::route_match::ConnectMatcher {}), "/", false),
    ] {
        assert_eq!(fits(on(wanted.clone()), path, &[]), expect, "{wanted:?} on {path}");
    }
    let fold = pb::RouteMatch {
        case_sensitive: Some(tombolo_controlplane_api::xds::google::protobuf::BoolValue { value: false }),
        ..on(P::Path("/CaseLess".into()))
    };
    assert!(fits(fold, "/caseLESS", &[]));
}

#[test]
fn headers_match_one_by_one() {
    let exact = |value: &str| H::StringMatch(text(MatchPattern::Exact(value.into()), false));
    assert!(header_fits(with_header("x", exact("b")), &[("x", "a"), ("x", "b")]));
    assert!(!header_fits(with_header("x", exact("a,b")), &[("x", "a"), ("x", "b")]), "values are not joined");
    assert!(header_fits(
        with_header("x", H::StringMatch(text(MatchPattern::Exact("AbC".into()), true))),
        &[("x", "aBc")]
    ));
    assert!(!header_fits(
        with_header("x", H::StringMatch(text(MatchPattern::SafeRegex(regex("v[0-9]")), false))),
        &[("x", "v12")]
    ));
    let range = || with_header("x", H::RangeMatch(Int64Range { start: -5, end: 10 }));
    for (value, expect) in [("-5", true), ("9", true), ("10", false), ("3x", false)] {
        assert_eq!(header_fits(range(), &[("x", value)]), expect, "{value}");
    }
    assert!(header_fits(
        with_header(":authority", H::StringMatch(text(MatchPattern::Prefix("svc".into()), false))),
        &[]
    ));
    assert!(header_fits(with_header(":method", exact("GET")), &[]));
}

#[test]
fn a_missing_header_fulfils_nothing_unless_it_counts_as_empty() {
    let not_no = pb::HeaderMatcher {
        invert_match: true,
        ..with_header("x", H::StringMatch(text(MatchPattern::Exact("no".into()), false)))
    };
    assert!(!header_fits(not_no.clone(), &[]));
    assert!(header_fits(not_no.clone(), &[("x", "yes")]));
    assert!(header_fits(pb::HeaderMatcher { treat_missing_header_as_empty: true, ..not_no }, &[]));
    assert!(header_fits(with_header("x", H::PresentMatch(false)), &[]));
    assert!(!header_fits(with_header("x", H::PresentMatch(false)), &[("x", "")]));
}

#[test]
fn the_first_value_of_a_parameter_counts_undecoded() {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
    let query = |spec: Q, path: &str| {
        let matcher = pb::QueryParameterMatcher { name: "a".into(), query_parameter_match_specifier: Some(spec) };
        fits(pb::RouteMatch { query_parameters: vec![matcher], ..on(P::Prefix("/".into())) }, path, &[])
    };
    let one = || Q::StringMatch(text(MatchPattern::Exact("1".into()), false));
    for (path, expect) in
        [("/q?a=1&z=2", true), ("/q?a=2&a=1", false), ("/q?a=%31", false), ("/q", false), ("/q?b=1", false)]
    {
        assert_eq!(query(one(), path), expect, "{path}");
    }
    assert!(query(Q::PresentMatch(true), "/q?a"));
}

#[test]
fn grpc_is_told_by_content_type() {
    let grpc = || pb::RouteMatch { grpc: Some(pb::route_match::GrpcRouteMatchOptions {}), ..on(P::Prefix("/".into())) };
    for (kind, expect) in [("application/grpc", true), ("application/grpc+proto", true), ("application/grpcx", false)] {
        assert_eq!(fits(grpc(), "/", &[("content-type", kind)]), expect, "{kind}");
    }
}

#[test]
fn a_chosen_host_never_falls_back() {
    let mut message = table_message("t", &["svc.test"], vec![route_to("a", P::Path("/only".into()))]);
    let mut any = table_message("t", &["*"], vec![route_to("b", P::Prefix("/".into()))]).virtual_hosts;
    message.virtual_hosts.append(&mut any);
    let table = table(&message);
    assert!(matches!(find(&table, &head("/x", &[]), &conn(), caller(), &Runtime::default(), 0), Found::NoRoute(_)));
    let mut other = head("/x", &[]);
    other.authority = "zzz".into();
    assert!(matches!(find(&table, &other, &conn(), caller(), &Runtime::default(), 0), Found::Route(_)));
}

#[test]
fn ports_of_hosts_count_unless_ignored() {
    let mut message = table_message("t", &["svc.test"], vec![route_to("a", P::Prefix("/".into()))]);
    let mut with_port = head("/", &[]);
    with_port.authority = "svc.test:80".into();
    assert!(matches!(find(&table(&message), &with_port, &conn(), caller(), &Runtime::default(), 0), Found::NoHost));
    message.ignore_port_in_host_matching = true;
    assert!(matches!(find(&table(&message), &with_port, &conn(), caller(), &Runtime::default(), 0), Found::Route(_)));
}

#[test]
fn templates_capture_segments() {
    let template = template::parse("/t/{x}/{y=**}").unwrap();
    assert!(template.pattern.matches_whole(b"/t/1/2/3") && !template.pattern.matches_whole(b"/t/1"));
    for bad in ["t", "/{", "/{a}/{a}", "/{a{b}}", "/a*b", "/{=x}"] {
        assert!(template::parse(bad).is_err(), "{bad}");
    }
    assert!(template::parse_rewrite("/{nope}", &template).is_err());
}

#[test]
fn a_path_is_never_rewritten_to_nothing() {
    let table = table(&table_message("t", &["*"], vec![route_to("c", P::Prefix("/".into()))]));
    let pattern = crate::config::Regex::parse("^/empty").unwrap();
    let rewrite = crate::config::RegexRewrite { pattern, substitution: "".into() };
    let rewrite = crate::config::PathRewrite::Regex(Box::new(rewrite));
    let path = |path: &str| {
        rewritten_path(&table.hosts[0].routes[0], &rewrite, &head(path, &[]), &crate::format::Facts::default())
    };
    assert_eq!((path("/empty?a"), path("/empty/b").as_deref()), (None, Some("/b")));
}

#[test]
fn substitutions_replace_every_match() {
    let rewrite = |pattern: &str, substitution: &str, text: &str| {
        let pattern = crate::config::Regex::parse(pattern).unwrap();
        replace_all(&crate::config::RegexRewrite { pattern, substitution: substitution.into() }, text)
    };
    assert_eq!(rewrite("^/re/([^/]+)/(.*)$", r"/\2/at/\1", "/re/one/two/3"), "/two/3/at/one");
    assert_eq!(rewrite("a", "b", "/rgaXa"), "/rgbXb");
    assert_eq!(rewrite("x", r"\\", "axa"), r"a\a");
    assert_eq!(rewrite("(b)?c", r"[\1]", "ac"), "a[]");
}

#[test]
fn hashes_are_those_of_xxh64_and_stop_where_told() {
    use crate::config::{HashPolicy, HashSource};
    let header = |terminal| HashPolicy { source: HashSource::Header("x-k".parse().unwrap(), None), terminal };
    let query = HashPolicy { source: HashSource::Query("k".into()), terminal: false };
    let request = head("/?k=q", &[("x-k", "v")]);
    let hash = |policies: &[HashPolicy]| hash_request(policies, &request, &conn(), caller()).hash;
    let (v, q) = (xxhash_rust::xxh64::xxh64(b"v", 0), xxhash_rust::xxh64::xxh64(b"q", 0));
    assert_eq!(hash(&[header(true), query.clone()]), Some(v));
    assert_eq!(hash(&[header(false), query]), Some(v.rotate_left(1) ^ q));
    assert_eq!(hash(&[]), None);
    let cookie = HashPolicy {
        source: HashSource::Cookie {
            name: "s".into(),
            ttl: Some(std::time::Duration::from_secs(60)),
            path: "/p".into(),
            attributes: Box::default(),
        },
        terminal: false,
    };
    let made = hash_request(&[cookie], &request, &conn(), caller());
    assert!(made.hash.is_some());
    let text = made.cookies[0].to_str().unwrap();
    assert!(text.starts_with("s=\"") && text.ends_with("\"; Max-Age=60; Path=/p; HttpOnly"), "{text}");
}
