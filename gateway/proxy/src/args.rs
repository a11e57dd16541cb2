//! The command line of the gateway and what is derived from it once at start.
//!
//! Owns the flags and their environment variables. Never read after start by anything but `start.rs`.

use clap::{Parser, ValueEnum};
use std::{ffi::OsString, net::IpAddr, path::PathBuf};

/// The variant of the xDS protocol that is spoken with the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum XdsMode {
    /// Incremental: only what changed travels.
    Delta,
    /// State of the world: every response carries all resources of a type.
    Sotw,
}

/// Flags of `tombolo-gateway`; each is also an environment variable.
#[derive(Debug, Clone, Parser)]
#[command(name = "tombolo-gateway", version, about = "The Tombolo data plane: takes xDS, accepts traffic, forwards it")]
pub(crate) struct Args {
    /// Control plane, HOST:PORT.
    #[arg(long, env = "TOMBOLO_XDS", value_name = "HOST:PORT", required_unless_present = "config")]
    pub(crate) xds: Option<String>,
    /// File with listeners and clusters (YAML or JSON, Envoy's `static_resources`), instead of a control plane; read again when
    /// it changes.
    #[arg(long, env = "TOMBOLO_CONFIG", value_name = "FILE", conflicts_with = "xds")]
    pub(crate) config: Option<PathBuf>,
    /// Runtime layer to ask the control plane for; may be given several times, a later one wins.
    #[arg(long, env = "TOMBOLO_RTDS", value_name = "LAYER", value_delimiter = ',', conflicts_with = "config")]
    pub(crate) rtds: Vec<String>,
    /// Protocol variant towards the control plane.
    #[arg(long, env = "TOMBOLO_XDS_MODE", value_enum, default_value_t = XdsMode::Delta)]
    pub(crate) xds_mode: XdsMode,
    /// Node id, for Istio's control planes TYPE~IP~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN.
    #[arg(long, env = "TOMBOLO_NODE", value_name = "ID", required_unless_present = "config")]
    pub(crate) node: Option<String>,
    /// Node cluster; the second part of the node id when absent.
    #[arg(long, env = "TOMBOLO_CLUSTER", value_name = "NAME", default_value = "tombolo")]
    pub(crate) cluster: String,
    /// JSON object with the node's metadata.
    #[arg(long, env = "TOMBOLO_METADATA_FILE", value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Where the admin interface listens; a port alone is one of 127.0.0.1.
    #[arg(long, env = "TOMBOLO_ADMIN", value_name = "[HOST:]PORT", value_parser = admin_address)]
    pub(crate) admin: String,
    /// Worker threads; one per core when absent.
    #[arg(long, env = "TOMBOLO_WORKERS", value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// PEM roots of the control plane's certificate. Present: TLS is used and required.
    #[arg(long, env = "TOMBOLO_XDS_ROOTS", value_name = "FILE")]
    pub(crate) xds_roots: Option<PathBuf>,
    /// SPIFFE id that the control plane must present; its host name must match when absent.
    #[arg(long, env = "TOMBOLO_XDS_IDENTITY", value_name = "SPIFFE_ID", requires = "xds_roots")]
    pub(crate) xds_identity: Option<String>,
    /// File with the token that is shown to the control plane; read anew for each use.
    #[arg(long, env = "TOMBOLO_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate authority, the control plane itself when absent.
    #[arg(long, env = "TOMBOLO_CA", value_name = "HOST:PORT")]
    pub(crate) ca: Option<String>,
    /// The cluster that has this gateway and its like as endpoints: with it requests stay in their zone where they can.
    #[arg(long, env = "TOMBOLO_LOCAL_CLUSTER", value_name = "NAME")]
    pub(crate) local_cluster: Option<String>,
    /// Directory for the last good configuration, which serves when the control plane is away at start.
    #[arg(long, env = "TOMBOLO_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// How long a drain may take before what is left is cut.
    #[arg(long, env = "TOMBOLO_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_seconds: u64,
    /// Log filter, for example `info` or `tombolo_gateway_proxy=debug`.
    #[arg(long, env = "TOMBOLO_LOG", value_name = "LEVEL", default_value = "info")]
    pub(crate) log: String,
    /// Log as JSON lines.
    #[arg(long, env = "TOMBOLO_LOG_JSON")]
    pub(crate) log_json: bool,
    /// Local address of connections to upstreams that do not name one themselves.
    #[arg(long, env = "TOMBOLO_SOURCE_ADDRESS", value_name = "IP")]
    pub(crate) source_address: Option<IpAddr>,
}

impl Args {
    /// Parses flags and environment; the first item is the program's name.
    ///
    /// # Errors
    /// When a flag is missing or wrong, or help was asked for; the error prints itself.
    pub(crate) fn parse_items(items: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(items)
    }

    /// The control plane; empty without one.
    #[must_use]
    pub(crate) fn xds(&self) -> &str {
        self.xds.as_deref().unwrap_or_default()
    }

    /// The node id; a gateway without a control plane has no need of one.
    #[must_use]
    pub(crate) fn node(&self) -> &str {
        self.node.as_deref().unwrap_or("tombolo")
    }

    /// Number of worker threads.
    #[must_use]
    pub(crate) fn worker_count(&self) -> usize {
        self.workers.filter(|n| *n > 0).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Address of the certificate authority, when certificates can be asked for at all.
    #[must_use]
    pub(crate) fn authority(&self) -> Option<&str> {
        (self.xds_roots.is_some() && self.token_file.is_some())
            .then(|| self.ca.as_deref().unwrap_or_else(|| self.xds()))
    }
}

/// A port alone would otherwise be taken for a name; nobody wants the admin interface on all addresses by mistake.
fn admin_address(text: &str) -> Result<String, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(format!("127.0.0.1:{port}")),
        Err(_) if text.contains(':') => Ok(text.to_owned()),
        Err(_) => Err("neither HOST:PORT nor a port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::parse_items(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_short_form_is_plaintext_delta() {
        let args = parse("g --xds 127.0.0.1:1 --node n --admin 127.0.0.1:2").unwrap();
        assert_eq!(args.xds_mode, XdsMode::Delta);
        assert_eq!(args.authority(), None);
        assert!(args.worker_count() >= 1);
    }

    #[test]
    fn a_port_alone_is_one_of_the_loopback() {
        assert_eq!(parse("g --xds 127.0.0.1:1 --node n --admin 9901").unwrap().admin, "127.0.0.1:9901");
        assert!(parse("g --xds 127.0.0.1:1 --node n --admin localhost").is_err());
    }

    #[test]
    fn a_file_stands_instead_of_a_control_plane() {
        let args = parse("g --config f.yaml --admin 1").unwrap();
        assert_eq!((args.node(), args.xds()), ("tombolo", ""));
        assert!(parse("g --config f.yaml --xds a:1 --admin 1").is_err());
        assert!(parse("g --admin 1").is_err());
        assert_eq!(parse("g --xds a:1 --node n --admin 1 --rtds a --rtds b").unwrap().rtds, ["a", "b"]);
    }

    #[test]
    fn certificates_need_roots_and_a_token() {
        let base = "g --xds cp:1 --node n --admin 127.0.0.1:2";
        assert_eq!(parse(&format!("{base} --token-file t")).unwrap().authority(), None);
        assert_eq!(parse(&format!("{base} --token-file t --xds-roots r")).unwrap().authority(), Some("cp:1"));
        assert_eq!(parse(&format!("{base} --token-file t --xds-roots r --ca ca:3")).unwrap().authority(), Some("ca:3"));
        assert!(parse(&format!("{base} --xds-identity spiffe://a/b")).is_err());
    }
}
