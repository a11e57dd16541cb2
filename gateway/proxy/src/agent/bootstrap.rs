//! The bootstrap file of a stock Envoy under our control plane, as JSON.
//!
//! Owns its shape: ADS over TLS with the token, the agent's secret service, admin. Never overwrites in place: a new file
//! takes the old one's name.

use super::AgentArgs;
use crate::{args::XdsMode, node::Identity};
use serde_json::{Value, json};
use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use tombolo_controlplane_api::node::SDS_UPSTREAM;

/// Why there is no bootstrap file.
#[derive(Debug, thiserror::Error)]
pub(super) enum BootstrapError {
    #[error("{0:?} is not HOST:PORT")]
    Address(String),
    #[error("{0}: {1}")]
    File(String, io::Error),
    #[error("metadata: {0}")]
    Metadata(#[from] serde_json::Error),
}

/// Writes `bootstrap.json` into the agent's folder, and says where it is.
pub(super) fn write(args: &AgentArgs, identity: &Identity, socket: &Path) -> Result<PathBuf, BootstrapError> {
    let metadata: Value = match &args.metadata_file {
        Some(path) => serde_json::from_slice(&fs::read(path).map_err(|e| named(path, e))?)?,
        None => json!({}),
    };
    let token = fs::read_to_string(&args.token_file).map_err(|e| named(&args.token_file, e))?;
    let content = bootstrap(args, identity, metadata, socket, token.trim())?;
    let path = args.dir.join("bootstrap.json");
    let fresh = args.dir.join("bootstrap.json.new");
    let _ = fs::remove_file(&fresh);
    // It holds the token, so only the owner may read it.
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(|e| named(&fresh, e))?;
    file.write_all(&serde_json::to_vec_pretty(&content)?).map_err(|e| named(&fresh, e))?;
    fs::rename(&fresh, &path).map_err(|e| named(&path, e))?;
    Ok(path)
}

fn named(path: &Path, error: io::Error) -> BootstrapError {
    BootstrapError::File(path.display().to_string(), error)
}

fn bootstrap(
    args: &AgentArgs,
    identity: &Identity,
    metadata: Value,
    socket: &Path,
    token: &str,
) -> Result<Value, BootstrapError> {
    let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    let api_type = match args.xds_mode {
        XdsMode::Delta => "DELTA_GRPC",
        XdsMode::Sotw => "GRPC",
    };
    let mut node = json!({"id": args.node, "cluster": args.cluster, "metadata": metadata});
    if let Some(locality) = &identity.message.locality {
        node["locality"] = json!({"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone});
    }
    Ok(json!({
        "node": node,
        "admin": {"address": address(&args.admin)?},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{
                    "envoy_grpc": {"cluster_name": "xds-grpc"},
                    "initial_metadata": [{"key": "authorization", "value": format!("Bearer {token}")}],
                }],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [control_plane(args)?, secret_service(socket)]},
    }))
}

fn control_plane(args: &AgentArgs) -> Result<Value, BootstrapError> {
    let mut cluster = grpc_cluster("xds-grpc", &json!({"address": address(&args.xds)?}));
    let host = args.xds.rsplit_once(':').map_or("", |(host, _)| host);
    cluster["type"] = if host.parse::<std::net::IpAddr>().is_ok() { json!("STATIC") } else { json!("STRICT_DNS") };
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "validation_context": {
                    "trusted_ca": {"filename": args.xds_roots},
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": args.xds_identity}}],
                },
            },
        },
    });
    Ok(cluster)
}

fn secret_service(socket: &Path) -> Value {
    let mut cluster = grpc_cluster(SDS_UPSTREAM, &json!({"address": {"pipe": {"path": socket}}}));
    cluster["type"] = json!("STATIC");
    cluster
}

fn grpc_cluster(name: &str, endpoint: &Value) -> Value {
    json!({
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
    })
}

fn address(text: &str) -> Result<Value, BootstrapError> {
    let refuse = || BootstrapError::Address(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
    let port: u16 = port.parse().map_err(|_| refuse())?;
    Ok(json!({"socket_address": {"address": host.trim_matches(['[', ']']), "port_value": port}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn the_file_holds_what_envoy_needs_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, "secret-token\n").unwrap();
        let dir = folder.path().display().to_string();
        let line = [
            "a",
            "--xds",
            "127.0.0.1:15012",
            "--xds-mode",
            "sotw",
            "--node",
            "router~127.0.0.1~g.ns~ns.svc.cluster.local",
            "--admin",
            "127.0.0.1:9901",
            "--xds-roots",
            "roots.pem",
            "--xds-identity",
            "spiffe://east/ns/a/sa/b",
            "--token-file",
            token.to_str().unwrap(),
            "--dir",
            &dir,
        ];
        let args = AgentArgs::try_parse_from(line).unwrap();
        let identity = Identity::load(&args.node, &args.cluster, None).unwrap();
        let path = write(&args, &identity, &folder.path().join("sds.sock")).unwrap();
        let made: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(made.pointer("/dynamic_resources/ads_config/api_type"), Some(&json!("GRPC")));
        let shown = made.pointer("/dynamic_resources/ads_config/grpc_services/0/initial_metadata/0/value");
        assert_eq!(shown, Some(&json!("Bearer secret-token")));
        assert_eq!(made.pointer("/static_resources/clusters/1/name"), Some(&json!("sds-grpc")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_address_without_a_port_is_refused() {
        assert!(address("localhost").is_err());
        assert!(address("localhost:http").is_err());
        assert_eq!(address("[::1]:80").unwrap().pointer("/socket_address/address"), Some(&json!("::1")));
    }
}
