//! Filters and answers made here, over sockets.
#![expect(deprecated, reason = "the older forms are what control planes send")]

use crate::{
    build::{self, action, cluster, filtered, hcm, http_chain, http_filter, listener, routes, to},
    client::{Connection, get},
    http::simple,
    origin::Origin,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use std::{io::Read as _, net::SocketAddr};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::accesslog::v3::{
                AccessLogFilter, ComparisonFilter, StatusCodeFilter, access_log_filter::FilterSpecifier,
            },
            config::{
                core::v3::{
                    CidrRange, DataSource, HeaderValue, HeaderValueOption, RuntimeUInt32, SubstitutionFormatString,
                    TypedExtensionConfig, data_source::Specifier, substitution_format_string::Format,
                },
                rbac::v3::{Permission, Policy, Principal, Rbac as RbacRules, permission, principal},
                route::v3::{FilterConfig, HeaderMatcher, InternalRedirectPolicy},
            },
            extensions::{
                compression::{
                    brotli::compressor::v3::Brotli,
                    gzip::{compressor::v3::Gzip, decompressor::v3::Gzip as Gunzip},
                    zstd::compressor::v3::Zstd,
                },
                filters::http::{
                    buffer::v3::{Buffer, BufferPerRoute, buffer_per_route},
                    compressor::v3::Compressor,
                    decompressor::v3::Decompressor,
                    grpc_web::v3::GrpcWeb,
                    health_check::v3::HealthCheck,
                    rbac::v3::{Rbac, RbacPerRoute},
                },
                filters::network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, LocalReplyConfig, ResponseMapper,
                },
                filters::network::rbac::v3::Rbac as NetworkRbac,
            },
            r#type::{
                matcher::v3::{PathMatcher, StringMatcher, path_matcher, string_matcher::MatchPattern},
                v3::Percent,
            },
        },
        google::protobuf::{Any, BoolValue, UInt32Value},
    },
};
use tombolo_tests_kit::ads::Ads;

fn library(config: Any) -> Option<TypedExtensionConfig> {
    Some(TypedExtensionConfig { name: "library".into(), typed_config: Some(config) })
}

fn compressor(name: &str, config: Any) -> HttpFilter {
    http_filter(name, pack_any(Compressor { compressor_library: library(config), ..Default::default() }))
}

/// A listener with these filters before the router.
fn with(ads: &Ads, at: SocketAddr, filters: Vec<HttpFilter>) {
    managed(ads, at, filtered(filters));
}

fn managed(ads: &Ads, at: SocketAddr, own: HttpConnectionManager) {
    ads.set([("l", listener("l", at, vec![http_chain(own)]))]);
}

/// A response with its bytes.
async fn fetch(at: SocketAddr, request: Request<Full<Bytes>>) -> (http::response::Parts, Vec<u8>) {
    let io = hyper_util::rt::TokioIo::new(tokio::net::TcpStream::connect(at).await.unwrap());
    let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = send.send_request(request).await.unwrap().into_parts();
    (parts, body.collect().await.unwrap().to_bytes().to_vec())
}

fn asked(path: &str, accept: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "h").header("accept-encoding", accept);
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

#[tokio::test]
async fn responses_are_compressed_as_the_client_likes() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let filters = vec![
            compressor("gzip", pack_any(Gzip::default())),
            compressor("br", pack_any(Brotli::default())),
            compressor("zstd", pack_any(Zstd::default())),
        ];
        with(ads, at, filters);
    })
    .await;
    let text = "all work and no play makes jack a dull boy. ".repeat(4000);
    for (accept, coding) in [("gzip", "gzip"), ("gzip;q=0.5, br", "br"), ("zstd, deflate", "zstd")] {
        let (head, body) = fetch(at, asked("/echo", accept, &text)).await;
        assert_eq!(head.headers["content-encoding"], coding);
        assert_eq!(head.headers["vary"], "Accept-Encoding");
        assert!(body.len() < text.len() / 10, "{coding}: {}", body.len());
        let mut plain = Vec::new();
        match coding {
            "gzip" => drop(flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap()),
            "br" => drop(brotli::Decompressor::new(&body[..], 4096).read_to_end(&mut plain).unwrap()),
            _ => plain = zstd::decode_all(&body[..]).unwrap(),
        }
        assert!(plain == text.as_bytes(), "{coding} changes the text");
    }
    let (head, body) = fetch(at, asked("/echo", "gzip", "short")).await;
    assert_eq!((head.headers.get("content-encoding"), &body[..]), (None, &b"short"[..]));
}

#[tokio::test]
async fn compressed_requests_are_decompressed() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let config = Decompressor { decompressor_library: library(pack_any(Gunzip::default())), ..Default::default() };
        with(ads, at, vec![http_filter("d", pack_any(config))]);
    })
    .await;
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(&b"hello hello hello"[..], flate2::Compression::fast())
        .read_to_end(&mut packed)
        .unwrap();
    let request = |body: Vec<u8>| {
        Request::post("/echo")
            .header("host", "h")
            .header("content-encoding", "gzip")
            .body(Full::new(body.into()))
            .unwrap()
    };
    let (head, body) = fetch(at, request(packed)).await;
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b"hello hello hello"[..]));
    let (head, _) = fetch(at, request(b"this is no gzip".to_vec())).await;
    assert_eq!(head.status.as_u16(), 400);
}

#[tokio::test]
async fn grpc_web_clients_reach_grpc_servers() {
    let origin = Origin::http2("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        ads.set([("a", build::http2(cluster("a")))]);
        with(ads, at, vec![http_filter("web", pack_any(GrpcWeb::default()))]);
    })
    .await;
    let request = |kind: &str, body: &'static [u8]| {
        Request::post("/grpc")
            .header("host", "h")
            .header("content-type", kind)
            .header("accept", kind)
            .body(Full::new(Bytes::from_static(body)))
            .unwrap()
    };
    let expect = b"\0\0\0\0\0\x80\0\0\0\x0fgrpc-status:0\r\n";
    let (head, body) = fetch(at, request("application/grpc-web+proto", b"\0\0\0\0\0")).await;
    assert_eq!(
        (head.status.as_u16(), head.headers["content-type"].to_str().unwrap()),
        (200, "application/grpc-web+proto")
    );
    assert_eq!(body, expect);
    let (head, body) = fetch(at, request("application/grpc-web-text", b"AAAAAAA=")).await;
    assert_eq!(head.headers["content-type"], "application/grpc-web-text+proto");
    // Each piece is padded by itself.
    let (message, trailers) = body.split_at(8);
    assert_eq!([STANDARD.decode(message).unwrap(), STANDARD.decode(trailers).unwrap()].concat(), expect);
    let missing = Request::post("/status/404").header("host", "h").header("content-type", "application/grpc-web");
    let (head, body) = fetch(at, missing.body(Full::default()).unwrap()).await;
    assert_eq!((head.status.as_u16(), head.headers["grpc-status"].to_str().unwrap(), body.len()), (404, "12", 0));
    assert_eq!(head.headers["grpc-message"], "a 404");
}

#[tokio::test]
async fn requests_are_kept_back_until_they_are_complete() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let mut small = to("/echo", "a");
        let most = |bytes| Buffer { max_request_bytes: Some(UInt32Value { value: bytes }) };
        let own = BufferPerRoute { r#override: Some(buffer_per_route::Override::Buffer(most(4))) };
        small.typed_per_filter_config.insert("b".into(), pack_any(own));
        let mut free = to("/echo", "a");
        free.r#match.as_mut().unwrap().headers = vec![HeaderMatcher { name: "x-free".into(), ..Default::default() }];
        free.typed_per_filter_config
            .insert("b".into(), pack_any(FilterConfig { disabled: true, ..Default::default() }));
        ads.set([("r", routes("r", &[("*", vec![free, small, to("/", "a")])]))]);
        with(ads, at, vec![http_filter("b", pack_any(most(1000)))]);
    })
    .await;
    let post = |path: &str, body: &str| asked(path, "", body);
    assert_eq!(fetch(at, post("/echo", "1234")).await.1, b"1234");
    let (head, body) = fetch(at, post("/echo", "12345")).await;
    assert_eq!((head.status.as_u16(), &body[..]), (413, &b"Payload Too Large"[..]));
    assert_eq!(fetch(at, post("/x", &"x".repeat(1000))).await.0.status.as_u16(), 200);
    assert_eq!(fetch(at, post("/x", &"x".repeat(1001))).await.0.status.as_u16(), 413);
    let mut free = post("/echo", &"x".repeat(2000));
    free.headers_mut().insert("x-free", "1".parse().unwrap());
    assert_eq!(fetch(at, free).await.1.len(), 2000);
    assert!(String::from_utf8(fetch(at, post("/headers", "1234")).await.1).unwrap().contains("content-length: 4"));
}

#[tokio::test]
async fn health_checks_are_answered_here() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let check = |name: &str, path: &str, clusters: &[(&str, f64)]| {
            let config = HealthCheck {
                pass_through_mode: Some(BoolValue { value: false }),
                cluster_min_healthy_percentages: clusters
                    .iter()
                    .map(|(name, value)| ((*name).into(), Percent { value: *value }))
                    .collect(),
                headers: vec![HeaderMatcher {
                    name: ":path".into(),
                    header_match_specifier: Some(
                        tombolo_controlplane_api::xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier::ExactMatch(
                            path.into(),
                        ),
                    ),
                    ..Default::default()
                }],
                ..Default::default()
            };
            http_filter(name, pack_any(config))
        };
        with(ads, at, vec![
            check("one", "/health", &[]),
            check("two", "/clusters", &[("a", 100.0)]),
            check("three", "/missing", &[("nope", 1.0)]),
        ]);
    })
    .await;
    let health = get(at, "/health").await.unwrap();
    assert_eq!((health.status, health.body.as_str(), origin.count()), (200, "", 0));
    assert!(health.headers.contains_key("x-envoy-upstream-healthchecked-cluster"));
    assert_eq!(get(at, "/clusters").await.unwrap().status, 200);
    assert_eq!(get(at, "/missing").await.unwrap().status, 503);
    assert_eq!((get(at, "/other").await.unwrap().body.as_str(), origin.count()), ("a", 1));
}

#[tokio::test]
async fn answers_made_here_are_changed_as_configured() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let text =
            |text: &str| DataSource { specifier: Some(Specifier::InlineString(text.into())), ..Default::default() };
        let not_found = AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::StatusCodeFilter(StatusCodeFilter {
                comparison: Some(ComparisonFilter {
                    op: 0,
                    value: Some(RuntimeUInt32 { default_value: 404, runtime_key: "k".into() }),
                }),
            })),
        };
        let put = HeaderValueOption {
            header: Some(HeaderValue { key: "x-made".into(), value: "%RESPONSE_CODE%".into(), ..Default::default() }),
            ..Default::default()
        };
        let mapper = ResponseMapper {
            filter: Some(not_found),
            status_code: Some(UInt32Value { value: 410 }),
            body: Some(text("nothing here")),
            headers_to_add: vec![put],
            ..Default::default()
        };
        let format = SubstitutionFormatString {
            format: Some(Format::TextFormat("<%LOCAL_REPLY_BODY%|%RESPONSE_CODE%|%REQ(:path)%>".into())),
            content_type: "text/html".into(),
            ..Default::default()
        };
        let mut own = hcm("r");
        own.local_reply_config = Some(LocalReplyConfig { mappers: vec![mapper], body_format: Some(format) });
        managed(ads, at, own);
        ads.set([("r", routes("r", &[("*", vec![to("/a", "a")])]))]);
    })
    .await;
    let got = get(at, "/none?x").await.unwrap();
    assert_eq!((got.status, got.body.as_str()), (410, "<nothing here|410|/none?x>"));
    assert_eq!((got.header("content-type"), got.header("x-made")), ("text/html", "404"));
    assert_eq!(get(at, "/a").await.unwrap().body, "a", "an upstream's response stays as it is");
}

#[tokio::test]
async fn redirects_of_the_upstream_are_followed() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, _| {
        let mut route = to("/", "a");
        action(&mut route).internal_redirect_policy = Some(InternalRedirectPolicy {
            max_internal_redirects: Some(UInt32Value { value: 2 }),
            redirect_response_codes: vec![302, 307],
            ..Default::default()
        });
        ads.set([("r", routes("r", &[("*", vec![route])]))]);
    })
    .await;
    let mut connection = Connection::open(at).await;
    let request = |path: &str| {
        let request = Request::post(path).header("host", "h");
        request.body(Full::new(Bytes::from_static(b"carried along"))).unwrap()
    };
    let got = connection.send(request("/to/307/http%3A%2F%2Fh%2Fecho")).await.unwrap();
    assert_eq!((got.status, got.body.as_str(), origin.count()), (200, "carried along", 2));
    let seen = connection.send(request("/to/302/http%3A%2F%2Fh%2Fheaders")).await.unwrap().body;
    assert!(seen.contains("x-envoy-original-url: http://h/to/302/"), "{seen}");
    let round = "/to/302/http%3A%2F%2Fh%2Floop";
    let got = connection.send(request(round)).await.unwrap();
    assert_eq!((got.status, got.header("location")), (302, "http://h/loop"), "no more than allowed");
    let elsewhere = connection.send(request("/to/302/%2Frelative")).await.unwrap();
    assert_eq!((elsewhere.status, elsewhere.header("location")), (302, "/relative"));
}

fn denying(path: &str) -> RbacRules {
    let wanted = StringMatcher { match_pattern: Some(MatchPattern::Prefix(path.into())), ..Default::default() };
    let path = PathMatcher { rule: Some(path_matcher::Rule::Path(wanted)) };
    let policy = Policy {
        permissions: vec![Permission { rule: Some(permission::Rule::UrlPath(path)) }],
        principals: vec![Principal { identifier: Some(principal::Identifier::Any(true)) }],
        ..Default::default()
    };
    RbacRules { action: 1, policies: [("no entry".to_owned(), policy)].into(), ..Default::default() }
}

#[tokio::test]
async fn only_those_pass_who_may() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let mut free = to("/private/free", "a");
        free.typed_per_filter_config.insert("rbac".into(), pack_any(RbacPerRoute::default()));
        ads.set([("r", routes("r", &[("*", vec![free, to("/", "a")])]))]);
        let rules = Rbac { rules: Some(denying("/private")), ..Default::default() };
        with(ads, at, vec![http_filter("rbac", pack_any(rules))]);
    })
    .await;
    assert_eq!(get(at, "/public").await.unwrap().status, 200);
    let refused = get(at, "/private?x").await.unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(get(at, "/private/free").await.unwrap().status, 200);
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn connections_are_judged_before_they_are_served() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, at| {
        let range =
            |address: &str| CidrRange { address_prefix: address.into(), prefix_len: Some(UInt32Value { value: 32 }) };
        let policy = Policy {
            permissions: vec![Permission { rule: Some(permission::Rule::Any(true)) }],
            principals: vec![Principal { identifier: Some(principal::Identifier::DirectRemoteIp(range("127.0.0.1"))) }],
            ..Default::default()
        };
        let rules = RbacRules { action: 0, policies: [("here".to_owned(), policy)].into(), ..Default::default() };
        let config = NetworkRbac { rules: Some(rules), stat_prefix: "x".into(), ..Default::default() };
        let mut chain = http_chain(hcm("r"));
        chain.filters.insert(0, build::filter("envoy.filters.network.rbac", pack_any(config)));
        ads.set([("l", listener("l", at, vec![chain]))]);
    })
    .await;
    assert_eq!(get(at, "/").await.unwrap().status, 200);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let io = socket.connect(at).await.unwrap();
    let mut other = Connection::http1(io).await.unwrap();
    assert!(other.get("h", "/").await.is_err(), "a stranger is served");
}
