//! Tests of `accesslog`.

use super::*;
use crate::config::{LogFormat, Value};
use crate::failure::{Flag, Flags};
use crate::format::Facts;
use crate::head::{ConnInfo, Head, PeerCertificate, TlsInfo};
use http::HeaderMap;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request with something to say for every operator that is tested.
struct Fixture {
    head: Head,
    conn: ConnInfo,
    response: HeaderMap,
    trailers: HeaderMap,
}

fn fixture() -> Fixture {
    let mut head = Head { path: "/a?k=v&k=w".into(), authority: "example.com".into(), ..Head::default() };
    head.headers.insert("user-agent", "curl".parse().unwrap());
    let peer = PeerCertificate { uris: vec!["spiffe://a".into(), "b".into()], ..PeerCertificate::default() };
    let conn = ConnInfo {
        remote: Some("10.0.0.1:5000".parse().unwrap()),
        local: Some("[::1]:443".parse().unwrap()),
        tls: Some(Box::new(TlsInfo { version: "TLSv1.3", peer: Some(peer), ..TlsInfo::default() })),
        ..ConnInfo::default()
    };
    let mut response = HeaderMap::new();
    response.insert("x-envoy-upstream-service-time", "12".parse().unwrap());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "14".parse().unwrap());
    Fixture { head, conn, response, trailers }
}

impl Fixture {
    fn record(&self) -> Record<'_> {
        let facts = Facts {
            head: Some(&self.head),
            conn: Some(&self.conn),
            response: Some(&self.response),
            status: Some(503),
            flags: [Flag::UpstreamRetryLimitExceeded, Flag::UpstreamConnectionFailure].into_iter().collect(),
            details: "via_upstream",
            cluster: "outbound|80||a",
            upstream: Some("10.0.0.9:8080".parse().unwrap()),
            attempts: 2,
            start: 1_792_104_347_012_345,
            ..Facts::default()
        };
        let times = Times {
            request_end: Some(1_500),
            upstream_receive_begin: Some(20_000),
            response_end: Some(31_000),
            end: Some(31_900),
            ..Times::default()
        };
        let bytes = Bytes { received: 5, sent: 7, ..Bytes::default() };
        Record { facts, times, bytes, trailers: Some(&self.trailers), ..Record::default() }
    }
}

fn line(format: &str) -> String {
    let mut out = Vec::new();
    LineFormat::text(format).unwrap().render(&fixture().record(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_default_line_is_the_usual_one() {
    let mut out = Vec::new();
    LineFormat::compile(&LogFormat::Default).unwrap().render(&fixture().record(), &mut out);
    let expect = "[2026-10-15T22:45:47.012Z] \"GET /a?k=v&k=w HTTP/1.1\" 503 URX,UF 5 7 31 12 \"-\" \"curl\" \"-\" \
                  \"example.com\" \"10.0.0.9:8080\"\n";
    assert_eq!(String::from_utf8(out).unwrap(), expect);
    assert!(line(ISTIO).ends_with("\"10.0.0.9:8080\" outbound|80||a - [::1]:443 10.0.0.1:5000 - -\n"));
}

#[test]
fn operators() {
    for (format, expect) in [
        ("%RESPONSE_FLAGS_LONG%", "UpstreamRetryLimitExceeded,UpstreamConnectionFailure"),
        ("%REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "1 20 11"),
        ("%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)%", "20000"),
        ("%DURATION%ms %REQUEST_TX_DURATION%", "31ms -"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%", "10.0.0.1 5000"),
        ("%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_TLS_VERSION%", "spiffe://a,b TLSv1.3"),
        ("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%", "Unavailable UNAVAILABLE 14"),
        ("%TRAILER(grpc-status)% %RESP(x-no?X-ENVOY-UPSTREAM-SERVICE-TIME)%", "14 12"),
        ("%REQ_WITHOUT_QUERY(:PATH)% %REQ(:PATH):3% %QUERY_PARAM(k)%", "/a /a? v"),
        ("%START_TIME(%Y/%m/%d %s)%", "2026/10/15 1792104347"),
        ("%DYNAMIC_METADATA(a:b)% %UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", "- outbound|80||a 2"),
        ("100%% %REQ(user-agent)%", "100% curl"),
    ] {
        assert_eq!(line(format), expect, "{format}");
    }
}

#[test]
fn what_is_not_known_is_refused() {
    for bad in [
        "%NOPE%",
        "%REQ%",
        "%REQ()%",
        "%REQ(a",
        "100%",
        "%PROTOCOL",
        "%DURATION(x)%",
        "%REQ(a):x%",
        "%PATH(x)%",
        "%METADATA(NOBODY:a:b)%",
        "%FILTER_STATE(a:b)%",
        "%REQUESTED_SERVER_NAME(x)%",
        "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(129)%",
        "%START_TIME(%Q)%",
        "%COMMON_DURATION(a:b)%",
    ] {
        assert!(LineFormat::text(bad).is_err(), "{bad:?} should be refused");
    }
}

fn json(members: &[(&str, Value)], omit_empty: bool, record: &Record<'_>) -> String {
    let members = members.iter().map(|(name, value)| ((*name).into(), value.clone()));
    let object = Value::Map(Arc::new(members.collect::<BTreeMap<Arc<str>, Value>>()));
    let mut out = Vec::new();
    LineFormat::compile(&LogFormat::Json { object, omit_empty }).unwrap().render(record, &mut out);
    String::from_utf8(out).unwrap()
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn json_keeps_types_and_shows_nothing_as_null() {
    let members = [
        ("code", text("%RESPONSE_CODE%")),
        ("cluster", text("%UPSTREAM_CLUSTER%")),
        ("flags", text("%RESPONSE_FLAGS%")),
        ("route", text("%ROUTE_NAME%")),
        ("mixed", text("%PROTOCOL% %ROUTE_NAME%")),
        ("fixed", Value::List(Arc::new([Value::Bool(true), Value::Number(1.0), text("x")]))),
    ];
    let fixture = fixture();
    let expect = r#"{"cluster":"outbound|80||a","code":503,"fixed":[true,1,"x"],"flags":"URX,UF","mixed":"HTTP/1.1 -","route":null}"#;
    assert_eq!(json(&members, false, &fixture.record()), format!("{expect}\n"));
    assert!(!json(&members, true, &fixture.record()).contains("route"));
    let quiet = Record { facts: Facts { flags: Flags::NONE, status: None, ..Facts::default() }, ..Record::default() };
    assert!(json(&members, false, &quiet).contains(r#""code":0,"fixed":[true,1,"x"],"flags":"-""#));
}

proptest! {
    #[test]
    fn no_value_can_end_a_line_or_a_string(value in prop::collection::vec(any::<u8>(), 0..40), bound in 0usize..40) {
        let Ok(header) = http::HeaderValue::from_bytes(&value) else { return Ok(()) };
        let path = String::from_utf8_lossy(&value).into_owned();
        let mut fixture = fixture();
        fixture.head.headers.insert("x-evil", header);
        fixture.head.path = path;
        let record = fixture.record();
        let mut out = Vec::new();
        LineFormat::text(&format!("%REQ(x-evil):{bound}% %REQ(:PATH)%")).unwrap().render(&record, &mut out);
        prop_assert!(out.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f));

        let members = [("a", text("%REQ(x-evil)%")), ("b", text("x %REQ(:PATH)%"))];
        let line = json(&members, false, &record);
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        prop_assert_eq!(parsed["b"].as_str().unwrap(), format!("x {}", if fixture.head.path.is_empty() { "-" } else { &fixture.head.path }));
    }

    #[test]
    fn no_format_panics(format in "[%A-Z_():?a-z0-9 \u{e9}]{0,40}") {
        let _ = LineFormat::text(&format);
    }
}
