//! The stand-in workload: a small server that says who it is and what it received.
//!
//! `tombolo up` runs one for every pod of the user's manifests. Owns the command line and the accept loops; never knows
//! the mesh: what it says about the caller's identity is what its sidecar told it in a header.

mod call;
mod echo;
mod query;
mod serve;
#[cfg(test)]
mod tests;
mod tls;

use clap::Args;
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Command line of the stand-in workload.
#[derive(Debug, Clone, Args)]
pub struct WorkloadArgs {
    /// Name of the workload, as it reports itself.
    #[arg(long, env = "TOMBOLO_WORKLOAD_NAME", default_value = "workload")]
    pub name: String,
    /// Its namespace.
    #[arg(long, env = "TOMBOLO_WORKLOAD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// The site it runs in.
    #[arg(long, env = "TOMBOLO_WORKLOAD_SITE", default_value = "")]
    pub site: String,
    /// Its service account.
    #[arg(long, env = "TOMBOLO_WORKLOAD_SERVICE_ACCOUNT", default_value = "default")]
    pub service_account: String,
    /// A label, KEY=VALUE; may be repeated.
    #[arg(long = "label", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Address to listen on, IP:PORT; may be repeated.
    #[arg(long = "listen", required = true)]
    pub listen: Vec<SocketAddr>,
    /// Address to listen on with TLS, IP:PORT; may be repeated.
    #[arg(long = "tls-listen", requires = "tls_certificate")]
    pub tls_listen: Vec<SocketAddr>,
    /// Certificate chain that is shown there, PEM.
    #[arg(long, requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long)]
    pub tls_key: Option<PathBuf>,
    /// HTTP proxy of its sidecar, through which calls are made. Without it calls go straight to the URL's address.
    #[arg(long, env = "TOMBOLO_HTTP_PROXY")]
    pub http_proxy: Option<SocketAddr>,
    /// Seconds given to open requests when it is told to stop.
    #[arg(long, default_value_t = 5)]
    pub drain_seconds: u64,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// Who this workload is; the same for every answer.
#[derive(Debug)]
pub(crate) struct Me {
    name: String,
    namespace: String,
    site: String,
    service_account: String,
    labels: BTreeMap<String, String>,
    version: String,
    hostname: String,
    http_proxy: Option<SocketAddr>,
    flaky: std::sync::Mutex<query::Attempts>,
}

impl Me {
    fn new(args: &WorkloadArgs) -> Self {
        let labels: BTreeMap<String, String> = args.labels.iter().cloned().collect();
        let version = ["version", "app.kubernetes.io/version"].iter().find_map(|k| labels.get(*k)).cloned();
        Self {
            name: args.name.clone(),
            namespace: args.namespace.clone(),
            site: args.site.clone(),
            service_account: args.service_account.clone(),
            labels,
            version: version.unwrap_or_default(),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map(|h| h.trim().to_owned())
                .unwrap_or_default(),
            http_proxy: args.http_proxy,
            flaky: std::sync::Mutex::default(),
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn main(args: &WorkloadArgs) -> ExitCode {
    // One thread: a stand-in should cost next to nothing.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &WorkloadArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let secure = match (&args.tls_certificate, &args.tls_key) {
        (Some(chain), Some(key)) => Some(tls::acceptor(chain, key)?),
        _ => None,
    };
    let plain = args.listen.iter().map(|at| (*at, None));
    let all: Vec<_> = plain.chain(args.tls_listen.iter().map(|at| (*at, secure.clone()))).collect();
    let mut servers = serve::bind(Arc::new(Me::new(args)), &all, &stop).await?;
    let on: Vec<String> = all.iter().map(|(at, _)| at.to_string()).collect();
    eprintln!("{}/{} listens on {}", args.namespace, args.name, on.join(", "));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    stop.cancel();
    let drained = async { while servers.join_next().await.is_some() {} };
    let patience = std::time::Duration::from_secs(args.drain_seconds);
    if tokio::time::timeout(patience, drained).await.is_err() {
        eprintln!("stopped with requests still open after {patience:?}");
    }
    Ok(())
}
