//! Tests of the JSON mapping.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::xds::envoy::{
    config::{bootstrap::v3::Bootstrap, cluster::v3::Cluster, listener::v3::Listener},
    extensions::transport_sockets::tls::v3::Secret,
};
use prost::{Message as _, Name as _};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::json;

fn written(type_url: &str, bytes: &[u8], secrets: Secrets) -> serde_json::Value {
    write(type_url, bytes.to_vec().into(), secrets).unwrap().into_value()
}

#[test]
fn a_cluster_goes_there_and_back() {
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
    let bytes = read(&Cluster::type_url(), &value).unwrap();
    let cluster = Cluster::decode(bytes.as_slice()).unwrap();
    assert_eq!(cluster.connect_timeout.unwrap().nanos, 250_000_000);
    assert_eq!(written(&Cluster::type_url(), &bytes, Secrets::Shown), value);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let wrong = |value: serde_json::Value| read(&Cluster::type_url(), &value).unwrap_err().to_string();
    assert_eq!(wrong(json!({"nmae": "c"})), "nmae: envoy.config.cluster.v3.Cluster has no such field");
    let deep = json!({"circuit_breakers": {"thresholds": [{"max_requests": "many"}]}});
    assert!(wrong(deep).starts_with("circuit_breakers.thresholds[0].max_requests: text where"));
    assert!(wrong(json!({"type": "NEAR"})).contains("\"NEAR\" is not one of"));
    assert!(wrong(json!({"connect_timeout": "1m"})).contains("not a duration"));
    let both = json!({"type": "STATIC", "cluster_type": {"name": "x"}});
    assert!(wrong(both).contains("of which there may be one"));
    let file = json!({"static_resources": {"clusters": [{"x": 1}]}});
    let error = read(&Bootstrap::type_url(), &file).unwrap_err();
    assert_eq!(error.at, "static_resources.clusters[0].x");
}

#[test]
fn keys_are_not_shown() {
    let value = json!({"name": "s", "tls_certificate": {
        "certificate_chain": {"inline_string": "CERT"},
        "private_key": {"inline_string": "KEY"},
        "password": {"inline_bytes": "S0VZ"},
    }});
    let bytes = read(&Secret::type_url(), &value).unwrap();
    let shown = written(&Secret::type_url(), &bytes, Secrets::Redacted);
    assert_eq!(shown["tls_certificate"]["certificate_chain"]["inline_string"], "CERT");
    assert_eq!(shown["tls_certificate"]["private_key"]["inline_string"], "[redacted]");
    assert_eq!(shown["tls_certificate"]["password"]["inline_bytes"], "W3JlZGFjdGVkXQ==");
    assert_eq!(written(&Secret::type_url(), &bytes, Secrets::Shown), value);
}

#[test]
fn moments_are_written_in_utc() {
    assert_eq!(write::timestamp(0, 0), "1970-01-01T00:00:00Z");
    assert_eq!(write::timestamp(951_782_400, 5_000_000), "2000-02-29T00:00:00.005Z");
    assert_eq!(write::timestamp(1_799_999_999, 0), "2027-01-15T07:59:59Z");
}

/// A file with something of everything that the mapping treats in its own way.
fn sample() -> serde_json::Value {
    json!({
        "node": {"id": "n", "metadata": {"a": null, "b": [true, 2, {"c": "d"}, []], "e": {}}, "listening_addresses": []},
        "static_resources": {
            "listeners": [{
                "name": "l",
                "address": {"socket_address": {"address": "::1", "port_value": 0, "ipv4_compat": true}},
                "per_connection_buffer_limit_bytes": 32768,
                "filter_chains": [{"filters": [{
                    "name": "hcm",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "s",
                        "codec_type": "HTTP2",
                        "server_header_transformation": 2,
                        "stream_idle_timeout": "-1.000000001s",
                        "http_filters": [{"name": "r", "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                        }}, {"name": "w", "typed_config": {
                            "@type": "type.googleapis.com/google.protobuf.Struct", "value": {"x": 1.25},
                        }}, {"name": "v", "typed_config": {
                            "@type": "type.googleapis.com/google.protobuf.BoolValue", "value": true,
                        }}],
                        "routeConfig": {"virtual_hosts": [{
                            "name": "v",
                            "domains": ["*"],
                            "typed_per_filter_config": {"f": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true}},
                            "retry_policy": {"retriable_status_codes": [503, 429, 1], "retry_on": "5xx"},
                            "routes": [{
                                "match": {"prefix": "", "runtime_fraction": {"default_value": {"numerator": 3, "denominator": "MILLION"}}},
                                "route": {"weighted_clusters": {"clusters": [{"name": "c", "weight": 0}], "total_weight": null}},
                                "metadata": null,
                            }],
                        }]},
                    },
                }]}],
            }],
            "clusters": [{
                "name": "c",
                "lb_subset_config": {"list_as_any": true, "default_subset": {"k": null}},
                "health_checks": [{"timeout": "1s", "healthy_threshold": 1, "tcp_health_check": {"send": {"text": "00"}},
                    "http_health_check": null, "interval_jitter_percent": "12", "event_log_path": ""}],
                "common_lb_config": {"healthy_panic_threshold": {"value": 12.5}},
                "ring_hash_lb_config": {"minimum_ring_size": "18446744073709551615"},
                "lb_policy": "RING_HASH",
            }],
            "secrets": [{"name": "s", "generic_secret": {"secret": {"inline_bytes": "AAEC/w=="}}}],
        },
        "layered_runtime": {"layers": [{"name": "x", "static_layer": {"a.b": {"numerator": 1}}}]},
    })
}

#[test]
fn reading_and_writing_agree_with_the_descriptions() {
    let pool = DescriptorPool::decode(std::fs::read(env!("DESCRIPTIONS")).unwrap().as_slice()).unwrap();
    let kind = pool.get_message_by_name(&Bootstrap::full_name()).unwrap();
    let wanted = DynamicMessage::deserialize(kind.clone(), &sample()).unwrap();
    let bytes = read(&Bootstrap::type_url(), &sample()).unwrap();
    let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
    let json = |m: &DynamicMessage| m.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
    let told = json(&wanted);
    assert_eq!(json(&DynamicMessage::decode(kind, bytes.as_slice()).unwrap()), told);
    let by_us = written(&Bootstrap::type_url(), &bytes, Secrets::Shown);
    assert_eq!(by_us, told);
    assert_eq!(written(&Bootstrap::type_url(), &wanted.encode_to_vec(), Secrets::Shown), told);
}

#[test]
fn the_table_has_every_field_and_value() {
    let pool = DescriptorPool::decode(std::fs::read(env!("DESCRIPTIONS")).unwrap().as_slice()).unwrap();
    for message in pool.all_messages() {
        let found = words::Message::find(message.full_name()).unwrap();
        for field in message.fields() {
            let by_name = found.field(field.name()).unwrap();
            assert_eq!(by_name.number, field.number(), "{}", field.full_name());
            assert_eq!(found.field(field.json_name()).unwrap().number, field.number(), "{}", field.full_name());
            assert_eq!(found.numbered(field.number()).unwrap().name, field.name());
            assert_eq!((by_name.is_list(), by_name.is_map()), (field.is_list(), field.is_map()));
            match (by_name.kind, field.kind()) {
                (words::Kind::Message(ours), prost_reflect::Kind::Message(theirs)) => {
                    assert_eq!(ours.name(), theirs.full_name());
                }
                (words::Kind::Enum(ours), prost_reflect::Kind::Enum(theirs)) => {
                    assert_eq!(ours.name(), theirs.full_name());
                    assert!(theirs.values().all(|value| ours.number(value.name()) == Some(value.number())));
                }
                (words::Kind::Scalar(_), theirs) => {
                    assert!(theirs.as_message().is_none() && theirs.as_enum().is_none(), "{}", field.full_name());
                }
                (ours, theirs) => panic!("{}: {ours:?} {theirs:?}", field.full_name()),
            }
        }
    }
    assert!(words::Message::find("envoy.Nothing").is_none());
}

#[test]
fn items_of_named_lists_are_handed_over() {
    let mut taken = Vec::new();
    let parts = Parts {
        only: &["static_resources", "node", "layered_runtime"],
        each: &["static_resources.clusters", "static_resources.listeners"],
        taken: &mut |part, bytes| taken.push((part, bytes)),
    };
    let text = sample().to_string();
    let mut from = serde_json::Deserializer::from_str(&text);
    let rest = read_parts(&Bootstrap::type_url(), &mut from, parts).unwrap();
    let rest = Bootstrap::decode(rest.as_slice()).unwrap();
    let left = rest.static_resources.unwrap();
    assert_eq!((left.clusters.len(), left.listeners.len(), left.secrets.len()), (0, 0, 1));
    assert_eq!(rest.node.unwrap().id, "n");
    let whole = Bootstrap::decode(read(&Bootstrap::type_url(), &sample()).unwrap().as_slice()).unwrap();
    let whole = whole.static_resources.unwrap();
    let of = |wanted: usize| taken.iter().find(|(part, _)| *part == wanted).map(|(_, bytes)| bytes.as_slice()).unwrap();
    assert_eq!(Cluster::decode(of(0)).unwrap(), whole.clusters[0]);
    assert_eq!(Listener::decode(of(1)).unwrap(), whole.listeners[0]);
    assert_eq!(taken.len(), 2);
}

#[test]
fn places_of_mistakes_in_handed_over_items_and_of_strangers() {
    let wrong = |text: &str| {
        let parts = Parts { only: &["static_resources"], each: &["static_resources.clusters"], taken: &mut |_, _| {} };
        let mut from = serde_json::Deserializer::from_str(text);
        read_parts(&Bootstrap::type_url(), &mut from, parts).unwrap_err().to_string()
    };
    assert_eq!(wrong(r#"{"admin": {}}"#), "admin: not supported in a file");
    let stranger = wrong(r#"{"static_resources": {"clusters": [{"name": "a"}, {"naem": "b"}]}}"#);
    assert!(
        stranger.starts_with("static_resources.clusters[1].naem: envoy.config.cluster.v3.Cluster has no"),
        "{stranger}"
    );
    assert!(
        wrong(r#"{"static_resources": {"clusters": [null]}}"#).starts_with("static_resources.clusters[0]: null where")
    );
    assert!(wrong(r#"{"static_resources": "#).contains("EOF"));
    assert!(
        wrong(r#"{"static_resources": {"clusters": [{"name": "a", "name": "b"}]}}"#)
            .contains("[0].name: is there twice")
    );
}

#[test]
fn yaml_is_read_without_a_tree_too() {
    let text =
        "name: c\nconnect_timeout: 0.25s\ntype: STRICT_DNS\nmetadata: {filter_metadata: {x: {a: [1, ~, yes]}}}\n";
    let read_yaml = |text: &str| {
        let mut told = None;
        let format = serde_saphyr::with_deserializer_from_str(text, |from| {
            let parts = Parts { only: &[], each: &[], taken: &mut |_, _| {} };
            let read = read_parts(&Cluster::type_url(), from, parts);
            let format = read.as_ref().map(drop).map_err(serde::de::Error::custom);
            told = Some(read);
            format
        });
        (told.unwrap(), format.is_ok())
    };
    let value: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    let (by_line, by_tree) = (read_yaml(text).0.unwrap(), read(&Cluster::type_url(), &value).unwrap());
    assert_eq!(Cluster::decode(by_line.as_slice()).unwrap(), Cluster::decode(by_tree.as_slice()).unwrap());
    let (told, format) = read_yaml("name: [c]");
    assert_eq!(
        (told.unwrap_err().to_string().as_str(), format),
        ("name: a list where a single value is expected", false)
    );
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    for bytes in [&[0x0a, 5, b'x'][..], &[0x0f], &[0x80; 20]] {
        assert!(write(&Cluster::type_url(), bytes.to_vec().into(), Secrets::Shown).is_err(), "{bytes:?}");
    }
    let inside = written(&Cluster::type_url(), &[0x0a, 1, 0xff, 0x22, 2, 0x08, 0x01], Secrets::Shown);
    assert_eq!(inside, json!({"name": "[not a valid message]", "connect_timeout": "1s"}));
}

#[test]
fn text_in_pieces_is_the_tree_in_one() {
    let many: Vec<_> = (0..3000).map(|n| json!({"n": n, "e": {}, "l": [], "t": ["a\"b", [null]]})).collect();
    let value = json!({"first": {"a": 1}, "many": many, "zero": {}});
    let pieces: Vec<String> = Node::from(value.clone()).into_text().collect();
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < 20_000), "{}", pieces.len());
    assert_eq!(pieces.concat(), serde_json::to_string_pretty(&value).unwrap() + "\n");
    assert_eq!(Node::Leaf(json!(7)).into_text().collect::<Vec<_>>(), ["7\n"]);
}
