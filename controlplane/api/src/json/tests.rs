//! Tests of the JSON mapping.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::xds::envoy::{
    config::{bootstrap::v3::Bootstrap, cluster::v3::Cluster},
    extensions::transport_sockets::tls::v3::Secret,
};
use prost::Name as _;
use serde_json::json;

fn words() -> Dictionary {
    Dictionary::open().unwrap()
}

#[test]
fn a_cluster_goes_there_and_back() {
    let words = words();
    let value = json!({
        "name": "c",
        "type": "STRICT_DNS",
        "connect_timeout": "0.250s",
        "circuit_breakers": {"thresholds": [{"max_requests": 7}]},
        "metadata": {"filter_metadata": {"istio": {"a": [1.5, "x", null, true]}}},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 5}},
            },
        },
    });
    let bytes = words.read(&Cluster::type_url(), &value).unwrap();
    let cluster = Cluster::decode(bytes.as_slice()).unwrap();
    assert_eq!(cluster.connect_timeout.unwrap().nanos, 250_000_000);
    assert_eq!(words.write(&Cluster::type_url(), &bytes, Secrets::Shown).unwrap(), value);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let words = words();
    let wrong = |value| words.read(&Cluster::type_url(), &value).unwrap_err().to_string();
    assert_eq!(wrong(json!({"nmae": "c"})), "nmae: envoy.config.cluster.v3.Cluster has no such field");
    let deep = json!({"circuit_breakers": {"thresholds": [{"max_requests": "many"}]}});
    assert!(wrong(deep).starts_with("circuit_breakers.thresholds[0].max_requests: text where"));
    assert!(wrong(json!({"type": "NEAR"})).contains("\"NEAR\" is not one of"));
    assert!(wrong(json!({"connect_timeout": "1m"})).contains("not a duration"));
    let both = json!({"type": "STATIC", "cluster_type": {"name": "x"}});
    assert!(wrong(both).contains("of which there may be one"));
    let file = json!({"static_resources": {"clusters": [{"x": 1}]}});
    let error = words.read(&Bootstrap::type_url(), &file).unwrap_err();
    assert_eq!(error.at, "static_resources.clusters[0].x");
}

#[test]
fn keys_are_not_shown() {
    let words = words();
    let value = json!({"name": "s", "tls_certificate": {
        "certificate_chain": {"inline_string": "CERT"},
        "private_key": {"inline_string": "KEY"},
        "password": {"inline_bytes": "S0VZ"},
    }});
    let bytes = words.read(&Secret::type_url(), &value).unwrap();
    let shown = words.write(&Secret::type_url(), &bytes, Secrets::Redacted).unwrap();
    assert_eq!(shown["tls_certificate"]["certificate_chain"]["inline_string"], "CERT");
    assert_eq!(shown["tls_certificate"]["private_key"]["inline_string"], "[redacted]");
    assert_eq!(shown["tls_certificate"]["password"]["inline_bytes"], "W3JlZGFjdGVkXQ==");
    assert_eq!(words.write(&Secret::type_url(), &bytes, Secrets::Shown).unwrap(), value);
}

#[test]
fn moments_are_written_in_utc() {
    assert_eq!(write::timestamp(0, 0), "1970-01-01T00:00:00Z");
    assert_eq!(write::timestamp(951_782_400, 5_000_000), "2000-02-29T00:00:00.005Z");
    assert_eq!(write::timestamp(1_799_999_999, 0), "2027-01-15T07:59:59Z");
}
