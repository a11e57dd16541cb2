//! The command line.
//!
//! Owns flags and their help. Never acts.

use crate::workload::WorkloadArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

/// Many clusters, VMs and edge sites as one mesh.
#[derive(Debug, Parser)]
#[command(name = "tombolo", version, about, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole federation on this machine until Ctrl-C.
    Up(UpArgs),
    /// Look at a federation.
    #[command(subcommand)]
    Federation(FederationCommand),
    /// Check manifests without a running mesh.
    Analyze(AnalyzeArgs),
    /// Show what a proxy runs.
    ProxyConfig(ProxyConfigArgs),
    /// Print the version.
    Version,
    /// Run the stand-in workload that `up` starts for every pod.
    Workload(WorkloadArgs),
    /// Run a control plane: the same as `tombolo-controlplane`.
    #[command(name = "controlplane", disable_help_flag = true)]
    ControlPlane(Rest),
    /// Run a gateway or sidecar: the same as `tombolo-gateway`.
    #[command(disable_help_flag = true)]
    Gateway(Rest),
    /// Run the agent that connects a workload's own Envoy: the same as `tombolo-agent`.
    #[command(disable_help_flag = true)]
    Agent(Rest),
}

/// Arguments that another entry point parses.
#[derive(Debug, Args)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<std::ffi::OsString>,
}

/// Flags of `up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// A site from a folder of manifests, NAME=DIR; may be repeated. Without it the embedded shop runs on three sites.
    #[arg(long = "site", value_name = "NAME=DIR")]
    pub(crate) sites: Vec<String>,
    /// Folder for state, logs and up.json.
    #[arg(long, env = "TOMBOLO_UP_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Most replicas of one Deployment that are started.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) max_replicas: u32,
    /// Wait before a dead process is started again; doubled up to 30s while it keeps dying.
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub(crate) restart_delay: std::time::Duration,
    /// The first site uses 127.(N+1).0.0/16, the next 127.(N+2).0.0/16 and so on.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) loopback_base: u8,
    /// Time for everything to become ready.
    #[arg(long, default_value = "120s", value_parser = duration, value_name = "DURATION")]
    pub(crate) ready_timeout: std::time::Duration,
    /// Log level of control planes and gateways.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub(crate) log: String,
    /// How proxies subscribe.
    #[arg(long, default_value = "delta", value_enum)]
    pub(crate) xds_mode: XdsMode,
    /// Program of the gateways and sidecars instead of this one, such as a `tombolo-gateway` built to be shipped.
    #[arg(long, value_name = "FILE")]
    pub(crate) gateway: Option<PathBuf>,
    /// Prove that the federation does what it should, print a table, exit 0 or 1.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum XdsMode {
    /// Only what changed.
    Delta,
    /// Everything of a type each time.
    Sotw,
}

impl XdsMode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Sotw => "sotw",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum FederationCommand {
    /// One table for all sites, asked from any of them; exit code 1 when something needs a person.
    Status(StatusArgs),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables for people.
    #[default]
    Table,
    /// Tables with more columns.
    Wide,
    /// JSON for scripts.
    Json,
}

/// Flags of `federation status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Shape of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Print again every two seconds until Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Which running federation is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Admin address of a control plane or proxy, HOST:PORT, instead of the one found in up.json.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
    /// State folder of a running `tombolo up`; the latest one when absent.
    #[arg(long, env = "TOMBOLO_UP_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// The site to ask first.
    #[arg(long)]
    pub(crate) site: Option<String>,
}

/// Flags of `analyze`.
#[derive(Debug, Args)]
pub(crate) struct AnalyzeArgs {
    /// Folders or files of manifests; each argument is read as one cluster.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Shape of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Warnings count as errors in the exit code.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// What it accepts.
    Listeners,
    /// Where requests go by host and path.
    Routes,
    /// Upstreams.
    Clusters,
    /// Addresses of upstreams with their state.
    Endpoints,
    /// Everything.
    #[default]
    All,
}

/// Flags of `proxy-config`.
#[derive(Debug, Args)]
pub(crate) struct ProxyConfigArgs {
    /// Workload name such as `reviews-v1-0`, SITE/WORKLOAD, SITE/ingress, SITE/east-west, or an admin address HOST:PORT.
    pub(crate) proxy: String,
    /// What to show.
    #[arg(value_enum, default_value_t)]
    pub(crate) section: Section,
    /// Shape of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// State folder of a running `tombolo up`; the latest one when absent.
    #[arg(long, env = "TOMBOLO_UP_STATE")]
    pub(crate) state: Option<PathBuf>,
}

/// `1500ms`, `5s`, `2m`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is not a duration such as 500ms, 5s or 2m")),
    };
    let seconds = number.parse::<f64>().map_err(|_| format!("{text:?} is not a duration such as 500ms, 5s or 2m"))?;
    std::time::Duration::try_from_secs_f64(seconds * scale).map_err(|e| format!("{text:?}: {e}"))
}

/// HOST:PORT as an address.
pub(crate) fn resolve(text: &str) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs;
    let mut found = text.to_socket_addrs().map_err(|e| format!("{text:?} is not HOST:PORT: {e}"))?;
    found.next().ok_or_else(|| format!("{text:?}: no address"))
}
