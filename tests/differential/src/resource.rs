//! Short words for resources in the tables of cases: JSON as in Envoy's documents, with places as words (see `place`). Owns no
//! scenario.

use crate::certs::certs;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Prefix of type URLs.
pub const URL: &str = "type.googleapis.com/";
/// The type of listeners.
pub const LISTENER: &str = "envoy.config.listener.v3.Listener";
/// The type of clusters.
pub const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
/// The type of endpoints.
pub const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
/// The type of routes.
pub const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
/// The type of secrets.
pub const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";
/// Options of HTTP upstreams.
pub const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A typed message within another.
#[must_use]
pub fn typed(type_name: &str, fields: Value) -> Value {
    with(json!({"@type": format!("{URL}{type_name}")}), fields)
}

/// A named extension.
#[must_use]
pub fn extension(name: &str, type_name: &str, fields: Value) -> Value {
    json!({"name": name, "typed_config": typed(type_name, fields)})
}

/// An object with the fields of another put over its own.
#[must_use]
pub fn with(base: Value, over: Value) -> Value {
    match (base, over) {
        (Value::Object(mut base), Value::Object(over)) => {
            base.extend(over);
            Value::Object(base)
        }
        (base, _) => base,
    }
}

/// A socket address.
#[must_use]
pub fn address(port: &str) -> Value {
    json!({"socket_address": {"address": "$ip", "port_value": port}})
}

/// A listener with the number `n` of its scenario.
#[must_use]
pub fn listener(n: u16, chains: Vec<Value>, more: Value) -> Value {
    let base = json!({
        "@type": format!("{URL}{LISTENER}"), "name": format!("$s-{n}"), "address": address(&format!("$l{n}")),
        "filter_chains": chains,
    });
    with(base, more)
}

/// A listener of one HTTP chain with these routes for any host.
#[must_use]
pub fn http(routes: Vec<Value>) -> Value {
    listener(0, vec![chain(hcm(routes, json!({})))], json!({}))
}

/// The same with more fields of the connection manager.
#[must_use]
pub fn http_with(routes: Vec<Value>, more: Value) -> Value {
    listener(0, vec![chain(hcm(routes, more))], json!({}))
}

/// A chain of one filter.
#[must_use]
pub fn chain(filter: Value) -> Value {
    json!({"filters": [filter]})
}

/// A chain that ends TLS.
#[must_use]
pub fn tls_chain(filter: Value, matching: Value, context: Value) -> Value {
    let socket = extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        context,
    );
    json!({"filters": [filter], "filter_chain_match": matching, "transport_socket": socket})
}

/// A connection manager with these routes for any host.
#[must_use]
pub fn hcm(routes: Vec<Value>, more: Value) -> Value {
    hcm_hosts(vec![json!({"name": "any", "domains": ["*"], "routes": routes})], more)
}

/// A connection manager with virtual hosts.
#[must_use]
pub fn hcm_hosts(hosts: Vec<Value>, more: Value) -> Value {
    let base = json!({
        "stat_prefix": "$s",
        "access_log": [log()],
        "route_config": {"name": "$s", "virtual_hosts": hosts, "validate_clusters": false},
        "http_filters": [router()],
    });
    extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        with(base, more),
    )
}

/// The last HTTP filter.
#[must_use]
pub fn router() -> Value {
    extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", json!({}))
}

/// A proxy of bytes.
#[must_use]
pub fn tcp(fields: Value) -> Value {
    let base = json!({"stat_prefix": "$s", "access_log": [log()]});
    extension(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        with(base, fields),
    )
}

/// The access log that is compared; the port finds the client.
#[must_use]
pub fn log() -> Value {
    let operators = [
        ("port", "DOWNSTREAM_DIRECT_REMOTE_PORT"),
        ("case", "REQ(X-CASE)"),
        ("code", "RESPONSE_CODE"),
        ("flags", "RESPONSE_FLAGS"),
        ("details", "RESPONSE_CODE_DETAILS"),
        ("failure", "UPSTREAM_TRANSPORT_FAILURE_REASON"),
        ("cluster", "UPSTREAM_CLUSTER"),
        ("attempts", "UPSTREAM_REQUEST_ATTEMPT_COUNT"),
        ("route", "ROUTE_NAME"),
        ("received", "BYTES_RECEIVED"),
        ("sent", "BYTES_SENT"),
        ("protocol", "PROTOCOL"),
        ("sni", "REQUESTED_SERVER_NAME"),
        ("tls", "DOWNSTREAM_TLS_VERSION"),
        ("peer", "DOWNSTREAM_PEER_URI_SAN"),
        ("remote", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"),
    ];
    let fields: Map<String, Value> =
        operators.iter().map(|(name, operator)| ((*name).to_owned(), json!(format!("%{operator}%")))).collect();
    extension(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        json!({"path": "$log", "log_format": {"json_format": fields}}),
    )
}

/// A route to a cluster by prefix.
#[must_use]
pub fn to(prefix: &str, cluster: &str, action: Value) -> Value {
    json!({"match": {"prefix": prefix}, "route": with(json!({"cluster": format!("$s-{cluster}")}), action)})
}

/// A cluster of these backends, by their words.
#[must_use]
pub fn cluster(name: &str, backends: &[&str], more: Value) -> Value {
    let name = format!("$s-{name}");
    let endpoints: Vec<Value> = backends.iter().map(|b| json!({"endpoint": {"address": address(b)}})).collect();
    let base = json!({
        "@type": format!("{URL}{CLUSTER}"), "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    with(base, more)
}

/// Fields of a cluster that speaks HTTP/2.
#[must_use]
pub fn h2(options: Value) -> Value {
    options_of(json!({"explicit_http_config": {"http2_protocol_options": options}}))
}

/// Fields of a cluster with HTTP options.
#[must_use]
pub fn options_of(options: Value) -> Value {
    json!({"typed_extension_protocol_options": {OPTIONS: typed(OPTIONS, options)}})
}

/// Fields of a cluster that originates TLS.
#[must_use]
pub fn tls_to(context: Value) -> Value {
    let socket = extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        context,
    );
    json!({"transport_socket": socket})
}

/// A certificate with its key, as a TLS context names it.
#[must_use]
pub fn certificate(name: &str) -> Value {
    let made = certs().of(name);
    json!({"certificate_chain": {"inline_string": made.chain}, "private_key": {"inline_string": made.key}})
}

/// Trust in our authority.
#[must_use]
pub fn trust(more: Value) -> Value {
    with(json!({"trusted_ca": {"inline_string": certs().ca}}), more)
}

/// The TLS inspector.
#[must_use]
pub fn inspector() -> Value {
    extension(
        "envoy.filters.listener.tls_inspector",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        json!({}),
    )
}

/// The name of a resource.
///
/// # Errors
/// When it has none.
pub fn name(resource: &Value) -> Result<String> {
    let name = resource.get("name").or_else(|| resource.get("cluster_name"));
    Ok(name.and_then(Value::as_str).with_context(|| format!("a resource without a name: {resource}"))?.to_owned())
}

/// Encoded resources by type URL, each with its name.
pub type Encoded = BTreeMap<String, Vec<(String, Vec<u8>)>>;

/// Encodes resources by type URL.
///
/// # Errors
/// When one is not what it says.
pub fn encode(resources: &[Value]) -> Result<Encoded> {
    let mut types = Encoded::new();
    for resource in resources {
        let mut fields = resource.as_object().context("a resource is an object")?.clone();
        let url = fields.remove("@type").context("a resource has a type")?.as_str().unwrap_or_default().to_owned();
        let body = crate::schema::encode(url.trim_start_matches(URL), &Value::Object(fields))?;
        types.entry(url).or_default().push((name(resource)?, body));
    }
    Ok(types)
}
