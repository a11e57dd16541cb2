//! Metadata that a filter writes, limits of single connections and of connections as such, over sockets.

#![expect(deprecated, reason = "the older forms are what control planes send")]

use crate::{
    build::{self, filtered, hcm, http_chain, http_filter, listener, routes, to},
    client::{Connection, get},
    http::simple,
    origin::Origin,
};
use std::{net::SocketAddr, time::Duration};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::{
                accesslog::v3::{
                    AccessLog, AccessLogFilter, MetadataFilter, access_log::ConfigType as LogConfig,
                    access_log_filter::FilterSpecifier,
                },
                core::v3::{
                    DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent, SubstitutionFormatString,
                    data_source::Specifier, substitution_format_string::Format,
                },
                rbac::v3::{Permission, Policy, Principal, Rbac as RbacRules, permission, principal},
                route::v3::Route,
            },
            extensions::{
                access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
                filters::{
                    http::{
                        csrf::v3::CsrfPolicy,
                        local_ratelimit::v3::LocalRateLimit,
                        rbac::v3::Rbac,
                        set_metadata::v3::{Config, Metadata},
                    },
                    network::{
                        http_connection_manager::v3::{HttpConnectionManager, HttpFilter},
                        local_ratelimit::v3::LocalRateLimit as ConnectionRateLimit,
                    },
                },
            },
            r#type::{
                matcher::v3::{
                    MetadataMatcher, StringMatcher, ValueMatcher,
                    metadata_matcher::{PathSegment, path_segment::Segment},
                    string_matcher::MatchPattern as Text,
                    value_matcher::MatchPattern,
                },
                v3::{FractionalPercent, TokenBucket},
            },
        },
        google::protobuf::{BoolValue, Struct, UInt32Value, Value, value::Kind},
    },
};
use tombolo_tests_kit::ads::Ads;

fn with(ads: &Ads, at: SocketAddr, filters: Vec<HttpFilter>, logs: Vec<AccessLog>) {
    let own = HttpConnectionManager { access_log: logs, ..filtered(filters) };
    ads.set([("l", listener("l", at, vec![http_chain(own)]))]);
}

/// Says `colour: red` in the namespace `test`.
fn says_red() -> HttpFilter {
    let value = Value { kind: Some(Kind::StringValue("red".into())) };
    let value = Some(Struct { fields: [("colour".to_owned(), value)].into() });
    let metadata = vec![Metadata { metadata_namespace: "test".into(), value, ..Default::default() }];
    http_filter("set", pack_any(Config { metadata, ..Default::default() }))
}

fn colour_is(colour: &str) -> MetadataMatcher {
    let text = StringMatcher { match_pattern: Some(Text::Exact(colour.into())), ..Default::default() };
    MetadataMatcher {
        filter: "test".into(),
        path: vec![PathSegment { segment: Some(Segment::Key("colour".into())) }],
        value: Some(ValueMatcher { match_pattern: Some(MatchPattern::StringMatch(text)) }),
        invert: false,
    }
}

fn logs(path: &str, colour: &str) -> AccessLog {
    let text = format!("{colour} %DYNAMIC_METADATA(test:colour)% %REQ(:PATH)%\n");
    let text = DataSource { specifier: Some(Specifier::InlineString(text)), ..Default::default() };
    let format = SubstitutionFormatString { format: Some(Format::TextFormatSource(text)), ..Default::default() };
    let file = FileAccessLog { path: path.into(), access_log_format: Some(AccessLogFormat::LogFormat(format)) };
    let matcher = Some(colour_is(colour));
    let by = MetadataFilter { matcher, match_if_key_not_found: Some(BoolValue { value: false }) };
    AccessLog {
        filter: Some(AccessLogFilter { filter_specifier: Some(FilterSpecifier::MetadataFilter(by)) }),
        config_type: Some(LogConfig::TypedConfig(pack_any(file))),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_a_filter_says_is_in_headers_logs_and_rules() {
    let origin = Origin::http1("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log").display().to_string();
    let (ads, _gateway, at) = simple(&origin, |ads, at| {
        let mut route = to("/", "a");
        route.request_headers_to_add = vec![HeaderValueOption {
            header: Some(HeaderValue {
                key: "x-colour".into(),
                value: "%DYNAMIC_METADATA(test:colour)%".into(),
                ..Default::default()
            }),
            ..Default::default()
        }];
        // Nothing is said yet when routes are chosen.
        let mut never: Route = to("/", "nowhere");
        never.r#match.as_mut().unwrap().dynamic_metadata = vec![colour_is("red")];
        ads.set([("r", routes("r", &[("*", vec![never, route])]))]);
        with(ads, at, vec![says_red()], vec![logs(&path, "red"), logs(&path, "blue")]);
    })
    .await;
    assert!(get(at, "/headers").await.unwrap().body.contains("x-colour: red"));
    crate::process::eventually("the line is written", async || {
        std::fs::read_to_string(&path).is_ok_and(|text| text == "red red /headers\n")
    })
    .await;
    let rules = |colour: &str| {
        let permission = Permission { rule: Some(permission::Rule::Metadata(colour_is(colour))) };
        let anybody = Principal { identifier: Some(principal::Identifier::Any(true)) };
        let policy = Policy { permissions: vec![permission], principals: vec![anybody], ..Default::default() };
        let rules = RbacRules { action: 1, policies: [("p".to_owned(), policy)].into(), ..Default::default() };
        http_filter("rbac", pack_any(Rbac { rules: Some(rules), ..Default::default() }))
    };
    with(&ads, at, vec![says_red(), rules("red")], Vec::new());
    crate::process::eventually("red is refused", async || get(at, "/").await.unwrap().status == 403).await;
    with(&ads, at, vec![rules("red"), says_red()], Vec::new());
    crate::process::eventually("before it is said it is not known", async || get(at, "/").await.unwrap().status == 200)
        .await;
}

fn always() -> Option<RuntimeFractionalPercent> {
    let all = FractionalPercent { numerator: 100, denominator: 0 };
    Some(RuntimeFractionalPercent { default_value: Some(all), ..Default::default() })
}

fn bucket(tokens: u32) -> Option<TokenBucket> {
    let fill_interval = Some(build::duration(Duration::from_secs(3600)));
    Some(TokenBucket { max_tokens: tokens, tokens_per_fill: Some(UInt32Value { value: tokens }), fill_interval })
}

#[tokio::test]
async fn each_connection_has_its_own_limit() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let config = LocalRateLimit {
            stat_prefix: "s".into(),
            token_bucket: bucket(2),
            filter_enabled: always(),
            filter_enforced: always(),
            local_rate_limit_per_downstream_connection: true,
            ..Default::default()
        };
        with(ads, at, vec![http_filter("limit", pack_any(config))], Vec::new());
    })
    .await;
    for _ in 0..2 {
        let mut connection = Connection::open(at).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(connection.get("h", "/").await.unwrap().status);
        }
        assert_eq!(seen, [200, 200, 429]);
    }
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        with(
            ads,
            at,
            vec![http_filter("csrf", pack_any(CsrfPolicy { filter_enabled: always(), ..Default::default() }))],
            Vec::new(),
        );
    })
    .await;
    let post = async |from: &str| {
        let request = http::Request::post("/").header("host", "shop").header("origin", from).body(Default::default());
        Connection::open(at).await.send(request.unwrap()).await.unwrap()
    };
    assert_eq!(post("http://shop").await.status, 200);
    let refused = post("http://evil").await;
    assert_eq!((refused.status, refused.body.as_str()), (403, "Invalid origin"));
    assert_eq!(get(at, "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn connections_beyond_their_rate_are_closed() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let config = ConnectionRateLimit { stat_prefix: "s".into(), token_bucket: bucket(2), ..Default::default() };
        let mut chain = http_chain(hcm("r"));
        chain.filters.insert(0, build::filter("envoy.filters.network.local_ratelimit", pack_any(config)));
        ads.set([("l", listener("l", at, vec![chain]))]);
    })
    .await;
    let mut first = Connection::open(at).await;
    assert_eq!(first.get("h", "/").await.unwrap().status, 200);
    assert_eq!(get(at, "/").await.unwrap().status, 200);
    assert!(get(at, "/").await.is_err(), "the third is served");
    assert_eq!(first.get("h", "/").await.unwrap().status, 200, "who is here stays");
}
