//! The resources that are spoilt: valid, and with as many fields as a resource of its kind usually has.

use super::{chain, cluster, extension, filled, hcm_hosts, listener, tcp, to, with};
use crate::resource::{
    CLUSTER, ENDPOINTS, LISTENER, ROUTES, URL, certificate, encode, options_of, router, tls_chain, tls_to, trust, typed,
};
use serde_json::{Value, json};

/// What must be there so that routes and endpoints are asked for.
///
/// # Panics
/// When the tables are wrong.
#[must_use]
pub fn base(ip: &str) -> crate::resource::Encoded {
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    let eds = json!({
        "@type": format!("{URL}{CLUSTER}"), "name": "fuzz", "type": "EDS",
        "eds_cluster_config": {"eds_config": source},
    });
    let manager = json!({"route_config": null, "rds": {"config_source": source, "route_config_name": "fuzz"}});
    let manager = hcm_hosts(vec![], manager).to_string().replace("\"route_config\":null,", "");
    let manager: Value = serde_json::from_str(&manager).unwrap_or_default();
    let text = json!([eds, listener(0, vec![chain(manager)], json!({}))]).to_string();
    let text = text.replace("$ip", ip).replace("$s-0", "base").replace("$s", "fuzz").replace("$l0", "7999");
    let mut resources: Vec<Value> = serde_json::from_str(&text.replace("$log", "/dev/null")).unwrap_or_default();
    resources.push(json!({"@type": format!("{URL}{ENDPOINTS}"), "cluster_name": "fuzz"}));
    resources.push(json!({"@type": format!("{URL}{ROUTES}"), "name": "fuzz"}));
    encode(&resources).expect("the base is valid")
}

/// All templates.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    vec![
        (CLUSTER, upstream()),
        (CLUSTER, secure()),
        (LISTENER, web()),
        (LISTENER, bytes()),
        (ROUTES, routes()),
        (ENDPOINTS, endpoints()),
    ]
}

/// Templates of longer runs.
pub(super) fn wide() -> Vec<(&'static str, Value)> {
    vec![(LISTENER, guarded())]
}

fn upstream() -> Value {
    let more = json!({
        "connect_timeout": "2s", "lb_policy": "RING_HASH", "per_connection_buffer_limit_bytes": 32768,
        "ring_hash_lb_config": {"minimum_ring_size": 64, "maximum_ring_size": 1024, "hash_function": "XX_HASH"},
        "circuit_breakers": {"thresholds": [{
            "priority": "HIGH", "max_connections": 10, "max_pending_requests": 10, "max_requests": 10, "max_retries": 2,
            "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 3},
        }]},
        "outlier_detection": {
            "consecutive_5xx": 5, "interval": "10s", "base_ejection_time": "30s", "max_ejection_percent": 10,
            "enforcing_consecutive_5xx": 100, "success_rate_stdev_factor": 1900,
        },
        "health_checks": [{
            "timeout": "1s", "interval": "5s", "unhealthy_threshold": 3, "healthy_threshold": 2,
            "http_health_check": {"path": "/health", "host": "a", "expected_statuses": [{"start": 200, "end": 300}]},
        }],
        "common_lb_config": {"healthy_panic_threshold": {"value": 50.0}},
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 60}},
    });
    filled(&with(cluster("0", &["$b0", "$b1"], more), json!({})))
}

fn secure() -> Value {
    let context = json!({
        "sni": "backend.test",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"}, "alpn_protocols": ["h2"],
            "validation_context": trust(json!({"match_typed_subject_alt_names": [
                {"san_type": "DNS", "matcher": {"exact": "backend.test"}},
            ]})),
        },
    });
    let options = options_of(json!({
        "common_http_protocol_options": {"idle_timeout": "60s", "max_requests_per_connection": 100},
        "explicit_http_config": {"http2_protocol_options": {
            "max_concurrent_streams": 100, "initial_stream_window_size": 65536, "initial_connection_window_size": 65536,
        }},
    }));
    let subsets = json!({"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 2},
        "lb_subset_config": {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{"keys": ["version"]}]}});
    filled(&with(with(cluster("0", &["$b0"], tls_to(context)), options), subsets))
}

/// A listener that ends TLS, with filters that admit, refuse, limit and change.
fn guarded() -> Value {
    let f = |name: &str, kind: &str, fields: Value| {
        extension(
            &format!("envoy.filters.http.{name}"),
            &format!("envoy.extensions.filters.http.{name}.v3.{kind}"),
            fields,
        )
    };
    let policy = json!({
        "permissions": [{"and_rules": {"rules": [
            {"url_path": {"path": {"prefix": "/a"}}}, {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
        ]}}],
        "principals": [{"authenticated": {"principal_name": {"suffix": "/a"}}}, {"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}],
    });
    let filters = json!([
        f("rbac", "RBAC", json!({"rules": {"action": "DENY", "policies": {"p": policy}}})),
        f("cors", "Cors", json!({})),
        f("buffer", "Buffer", json!({"max_request_bytes": 1000})),
        f(
            "local_ratelimit",
            "LocalRateLimit",
            json!({
                "stat_prefix": "l", "token_bucket": {"max_tokens": 10, "tokens_per_fill": 10, "fill_interval": "1s"},
                "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}, "runtime_key": "e"},
                "descriptors": [{
                    "entries": [{"key": "k", "value": "v"}],
                    "token_bucket": {"max_tokens": 5, "tokens_per_fill": 5, "fill_interval": "1s"},
                }],
                "response_headers_to_add": [{"header": {"key": "x-l", "value": "1"}}],
            })
        ),
        f(
            "compressor",
            "Compressor",
            json!({
                "compressor_library": extension("gzip", "envoy.extensions.compression.gzip.compressor.v3.Gzip", json!({
                    "memory_level": 5, "window_bits": 12, "compression_level": "COMPRESSION_LEVEL_1", "chunk_size": 4096,
                })),
                "response_direction_config": {"common_config": {"min_content_length": 100, "content_type": ["text/html"]}},
            })
        ),
        f(
            "header_mutation",
            "HeaderMutation",
            json!({"mutations": {"request_mutations": [
                {"remove": "x-n"}, {"append": {"header": {"key": "x-m", "value": "1"}, "append_action": "ADD_IF_ABSENT"}},
            ]}})
        ),
        router(),
    ]);
    let route = with(
        to(
            "/",
            "c",
            json!({
                "internal_redirect_policy": {"max_internal_redirects": 2, "redirect_response_codes": [302, 307]},
                "rate_limits": [{"actions": [{"request_headers": {"header_name": "x", "descriptor_key": "k"}}]}],
                "max_stream_duration": {"max_stream_duration": "10s", "grpc_timeout_header_max": "5s"},
                "hedge_policy": {"hedge_on_per_try_timeout": true, "initial_requests": 1},
                "idle_timeout": "60s", "priority": "HIGH", "cluster_not_found_response_code": "NOT_FOUND",
            }),
        ),
        json!({"response_headers_to_add": [{"header": {"key": "x-r", "value": "%PROTOCOL%"}}], "decorator": {"operation": "o"}}),
    );
    let more = json!({
        "http_filters": filters, "codec_type": "HTTP2", "generate_request_id": true, "preserve_external_request_id": true,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
        "local_reply_config": {
            "body_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE%"}},
            "mappers": [{
                "filter": {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "k"}}}},
                "status_code": 502, "body": {"inline_string": "no"},
            }],
        },
        "delayed_close_timeout": "1s", "drain_timeout": "5s", "request_headers_timeout": "10s",
        "strip_matching_host_port": true, "normalize_path": true, "merge_slashes": true, "max_stream_duration": null,
        "set_current_client_cert_details": {"uri": true, "subject": true}, "via": "v",
    });
    let more: Value =
        serde_json::from_str(&more.to_string().replace("\"max_stream_duration\":null,", "")).unwrap_or_default();
    let host = json!({"name": "any", "domains": ["*"], "routes": [route], "include_request_attempt_count": true});
    let context = json!({
        "common_tls_context": {
            "tls_certificates": [certificate("svc")], "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3",
                "cipher_suites": ["ECDHE-ECDSA-AES128-GCM-SHA256"], "ecdh_curves": ["X25519"]},
            "validation_context": trust(json!({})),
        },
        "require_client_certificate": true, "session_timeout": "600s", "disable_stateless_session_resumption": true,
    });
    let chain = tls_chain(hcm_hosts(vec![host], more), json!({"server_names": ["a.test"]}), context);
    let more = json!({
        "bind_to_port": false, "tcp_backlog_size": 128,        "access_log": [crate::resource::log()], "connection_balance_config": {"exact_balance": {}},
    });
    filled(&listener(0, vec![chain], more))
}

fn hosts() -> Value {
    let add = json!({"header": {"key": "x-a", "value": "%REQ(X-B)%"}, "append_action": "ADD_IF_ABSENT"});
    json!([
        {
            "name": "first", "domains": ["a.test", "*.b.test"],
            "request_headers_to_add": [add], "response_headers_to_remove": ["x-c"],
            "routes": [
                {
                    "name": "one",
                    "match": {
                        "safe_regex": {"regex": "/[a-z]+"},
                        "headers": [
                            {"name": "x-h", "string_match": {"prefix": "v"}},
                            {"name": "x-n", "range_match": {"start": 1, "end": 9}},
                        ],
                        "query_parameters": [{"name": "q", "string_match": {"exact": "1"}}],
                        "runtime_fraction": {"default_value": {"numerator": 10, "denominator": "HUNDRED"}},
                    },
                    "route": {
                        "weighted_clusters": {"clusters": [{"name": "fuzz", "weight": 30}, {"name": "fuzz2", "weight": 70}]},
                        "timeout": "3s", "prefix_rewrite": "/x", "host_rewrite_literal": "c.test",
                        "retry_policy": {
                            "retry_on": "5xx", "num_retries": 2, "per_try_timeout": "1s",
                            "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"},
                        },
                        "hash_policy": [{"header": {"header_name": "x-hash"}}, {"cookie": {"name": "c", "ttl": "60s"}}],
                        "request_mirror_policies": [{"cluster": "fuzz"}],
                        "upgrade_configs": [{"upgrade_type": "websocket"}],
                    },
                },
                {"match": {"prefix": "/r"}, "redirect": {"path_redirect": "/new", "response_code": "FOUND"}},
                {"match": {"path": "/d"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}},
                {"match": {"path_separated_prefix": "/p"}, "route": {
                    "cluster": "fuzz", "regex_rewrite": {"pattern": {"regex": "^/(p)"}, "substitution": "/\\1"},
                }},
                {"match": {"prefix": "/h"}, "route": {"cluster_header": "x-cluster"}},
            ],
        },
        {"name": "second", "domains": ["*"], "require_tls": "EXTERNAL_ONLY", "routes": []},
    ])
}

fn routes() -> Value {
    json!({
        "name": "fuzz", "virtual_hosts": hosts(), "max_direct_response_body_size_bytes": 4096,
        "request_headers_to_remove": ["x-d"], "internal_only_headers": ["x-e"],
    })
}

fn web() -> Value {
    let fault = extension(
        "envoy.filters.http.fault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        json!({"abort": {"http_status": 503, "percentage": {"numerator": 5}}, "delay": {"fixed_delay": "1s", "percentage": {"numerator": 5}}}),
    );
    let limit = extension(
        "envoy.filters.http.local_ratelimit",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        json!({"stat_prefix": "l", "token_bucket": {"max_tokens": 10, "tokens_per_fill": 10, "fill_interval": "1s"}}),
    );
    let more = json!({
        "codec_type": "AUTO", "server_name": "x", "use_remote_address": true, "xff_num_trusted_hops": 1,
        "http_filters": [fault, limit, router()],
        "common_http_protocol_options": {"idle_timeout": "60s", "max_headers_count": 100},
        "http2_protocol_options": {"max_concurrent_streams": 100, "initial_stream_window_size": 65536},
        "stream_idle_timeout": "300s", "request_timeout": "10s", "max_request_headers_kb": 60,
        "path_with_escaped_slashes_action": "REJECT_REQUEST", "forward_client_cert_details": "SANITIZE",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "server_header_transformation": "OVERWRITE",
    });
    let matching = json!({"filter_chain_match": {
        "server_names": ["a.test"], "transport_protocol": "tls", "application_protocols": ["h2"],
        "source_prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}], "destination_port": 443,
    }, "name": "first", "transport_socket_connect_timeout": "5s"});
    let first = with(chain(hcm_hosts(hosts().as_array().cloned().unwrap_or_default(), more)), matching);
    let plain =
        hcm_hosts(vec![json!({"name": "any", "domains": ["*"], "routes": [to("/", "c", json!({}))]})], json!({}));
    let more = json!({
        "bind_to_port": false, "listener_filters": [crate::resource::inspector()], "listener_filters_timeout": "5s",
        "per_connection_buffer_limit_bytes": 32768, "traffic_direction": "INBOUND",
        "default_filter_chain": chain(plain),
    });
    filled(&listener(0, vec![first], more))
}

fn bytes() -> Value {
    let clusters = json!([{"name": "fuzz", "weight": 1}, {"name": "fuzz2", "weight": 2}]);
    let proxy = tcp(json!({
        "weighted_clusters": {"clusters": clusters}, "idle_timeout": "60s", "max_connect_attempts": 2,
        "hash_policy": [{"source_ip": {}}], "max_downstream_connection_duration": "600s",
    }));
    let proxied = extension(
        "envoy.filters.listener.proxy_protocol",
        typed("envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol", json!({}))["@type"]
            .as_str()
            .unwrap_or_default()
            .trim_start_matches(URL),
        json!({"allow_requests_without_proxy_protocol": true}),
    );
    filled(&listener(0, vec![chain(proxy)], json!({"bind_to_port": false, "listener_filters": [proxied]})))
}

fn endpoints() -> Value {
    let endpoint = |port: u16| {
        json!({
            "endpoint": {"address": {"socket_address": {"address": "$ip", "port_value": port}}},
            "health_status": "HEALTHY", "load_balancing_weight": 2,
            "metadata": {"filter_metadata": {"envoy.lb": {"version": "v1"}}},
        })
    };
    json!({
        "cluster_name": "fuzz",
        "endpoints": [
            {"locality": {"region": "r", "zone": "z"}, "priority": 0, "load_balancing_weight": 3, "lb_endpoints": [endpoint(1), endpoint(2)]},
            {"locality": {"region": "r", "zone": "y"}, "priority": 1, "load_balancing_weight": 1, "lb_endpoints": [endpoint(3)]},
        ],
        "policy": {
            "overprovisioning_factor": 140,
            "drop_overloads": [{"category": "c", "drop_percentage": {"numerator": 5, "denominator": "HUNDRED"}}],
        },
    })
}
