//! Configurations as files: what Envoy's `static_resources` say in JSON, as short as a test needs it.

use crate::{gateway::Gateway, wire1::PATIENCE};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const TYPES: &str = "type.googleapis.com/envoy.";
const MANAGER: &str = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// A gateway with one worker that follows a file.
#[derive(Debug)]
pub struct Filed {
    /// The gateway.
    pub gateway: Gateway,
    folder: TempDir,
}

impl Filed {
    /// Starts this program with a file.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn start(program: &str, listeners: &[Value], clusters: &[Value]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("gateway.json");
        std::fs::write(&file, text(listeners, clusters))?;
        let gateway = Gateway::of_file(Path::new(program), &file, 1).await?;
        Ok(Self { gateway, folder })
    }

    /// Changes the file and waits until the gateway shows `sign` among what it serves.
    ///
    /// # Errors
    /// When it never does.
    pub async fn change(&self, listeners: &[Value], clusters: &[Value], sign: &str) -> Result<()> {
        // As a whole, or half a file is read.
        let (fresh, file) = (self.folder.path().join("fresh"), self.folder.path().join("gateway.json"));
        std::fs::write(&fresh, text(listeners, clusters))?;
        std::fs::rename(fresh, file)?;
        let begun = Instant::now();
        while !self.gateway.ask("/config_dump").await?.1.contains(sign) {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{sign} was never served");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }
}

fn text(listeners: &[Value], clusters: &[Value]) -> String {
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}}).to_string()
}

/// A message of Envoy's with its type.
#[must_use]
pub fn typed(kind: &str, mut message: Value) -> Value {
    if let Some(fields) = message.as_object_mut() {
        fields.insert("@type".into(), format!("{TYPES}{kind}").into());
    }
    message
}

/// A place to listen or to go to.
#[must_use]
pub fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// An HTTP filter.
#[must_use]
pub fn filter(name: &str, kind: &str, message: Value) -> Value {
    json!({"name": name, "typed_config": typed(kind, message)})
}

/// A connection manager with these routes for every host, these filters before the router, and more.
#[must_use]
pub fn manager(routes: Value, filters: &[Value], more: &Value) -> Value {
    let router = filter("router", "extensions.filters.http.router.v3.Router", json!({}));
    let filters = [filters, &[router]].concat();
    let mut manager = json!({
        "stat_prefix": "test",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    });
    if let (Some(fields), Some(more)) = (manager.as_object_mut(), more.as_object()) {
        fields.extend(more.clone());
    }
    filter("http", MANAGER, manager)
}

/// A listener with one chain of one filter; with TLS where a transport socket is given.
#[must_use]
pub fn listener(name: &str, at: SocketAddr, filter: &Value, transport: Option<&Value>) -> Value {
    let mut chain = json!({"filters": [filter]});
    if let Some(transport) = transport {
        chain["transport_socket"] = transport.clone();
    }
    json!({"name": name, "address": address(at), "filter_chains": [chain]})
}

/// A cluster of these endpoints, which speak HTTP/1.
#[must_use]
pub fn cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = endpoints.iter().map(|at| json!({"endpoint": {"address": address(*at)}})).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "60s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

/// The same, which speak HTTP/2.
#[must_use]
pub fn cluster2(name: &str, endpoints: &[SocketAddr]) -> Value {
    let mut cluster = cluster(name, endpoints);
    let options = json!({"explicit_http_config": {"http2_protocol_options": {}}});
    let kind = "extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster["typed_extension_protocol_options"] = json!({format!("envoy.{kind}"): typed(kind, options)});
    cluster
}

/// A route from what begins with a prefix to a cluster, which has all the time that a busy machine may need.
#[must_use]
pub fn to(prefix: &str, cluster: &str) -> Value {
    json!({"match": {"prefix": prefix}, "route": {"cluster": cluster, "timeout": "60s"}})
}

/// Text as a file has it.
///
/// # Errors
/// When the file cannot be written.
pub fn put(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path.to_str().context("a path")?.to_owned())
}
