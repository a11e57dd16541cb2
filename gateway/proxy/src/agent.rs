//! The agent beside a stock Envoy: it fetches the proxy's own certificate, serves it over a Unix socket (SDS), and writes
//! the bootstrap file with which Envoy finds the control plane and the agent.
//!
//! Owns the process's life; never sees traffic. A stock Envoy cannot make a signing request, so this stands beside it as
//! Istio's agent does; the names on the wire are Istio's.

mod bootstrap;
mod sds;

use crate::{args::XdsMode, certs, control::Remote, node};
use clap::Parser;
use std::{ffi::OsString, io, path::PathBuf, process::ExitCode};
use tokio::{net::UnixListener, signal::unix::SignalKind, sync::watch, task::JoinSet};

/// Flags of `tombolo agent`; each is also an environment variable.
#[derive(Debug, Clone, Parser)]
#[command(name = "tombolo-agent", version, about = "Stands beside a stock Envoy: certificate by SDS, bootstrap file")]
pub(crate) struct AgentArgs {
    /// Control plane over TLS, HOST:PORT.
    #[arg(long, env = "TOMBOLO_XDS", value_name = "HOST:PORT")]
    pub(crate) xds: String,
    /// Protocol variant that Envoy shall speak with the control plane.
    #[arg(long, env = "TOMBOLO_XDS_MODE", value_enum, default_value_t = XdsMode::Delta)]
    pub(crate) xds_mode: XdsMode,
    /// Node id: TYPE~IP~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN.
    #[arg(long, env = "TOMBOLO_NODE", value_name = "ID")]
    pub(crate) node: String,
    /// Node cluster.
    #[arg(long, env = "TOMBOLO_CLUSTER", value_name = "NAME", default_value = "tombolo")]
    pub(crate) cluster: String,
    /// JSON object with the node's metadata.
    #[arg(long, env = "TOMBOLO_METADATA_FILE", value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Where Envoy's admin interface shall listen.
    #[arg(long, env = "TOMBOLO_ADMIN", value_name = "HOST:PORT")]
    pub(crate) admin: String,
    /// PEM roots of the control plane's certificate.
    #[arg(long, env = "TOMBOLO_XDS_ROOTS", value_name = "FILE")]
    pub(crate) xds_roots: PathBuf,
    /// SPIFFE id that the control plane must present.
    #[arg(long, env = "TOMBOLO_XDS_IDENTITY", value_name = "SPIFFE_ID")]
    pub(crate) xds_identity: String,
    /// File with the token that is shown to the control plane.
    #[arg(long, env = "TOMBOLO_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// Certificate authority, the control plane itself when absent.
    #[arg(long, env = "TOMBOLO_CA", value_name = "HOST:PORT")]
    pub(crate) ca: Option<String>,
    /// Folder for the socket and for `bootstrap.json`; made when it is not there, readable by its owner only.
    #[arg(long, env = "TOMBOLO_AGENT_DIR", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Log filter.
    #[arg(long, env = "TOMBOLO_LOG", value_name = "LEVEL", default_value = "info")]
    pub(crate) log: String,
}

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error("{0}: {1}")]
    Path(String, io::Error),
    #[error(transparent)]
    Metadata(#[from] node::MetadataError),
    #[error("bootstrap file: {0}")]
    Bootstrap(#[from] bootstrap::BootstrapError),
    #[error("secret service: {0}")]
    Serve(#[from] tonic::transport::Error),
    #[error("signals: {0}")]
    Signals(io::Error),
}

/// Runs the agent until SIGTERM or SIGINT; the first item is the program's name.
pub fn agent_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match AgentArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    crate::tls::install_crypto();
    let filter = tracing_subscriber::EnvFilter::new(&args.log);
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("tombolo-agent: {reason}");
    ExitCode::FAILURE
}

async fn run(args: AgentArgs) -> Result<(), AgentError> {
    private_folder(&args.dir)?;
    let socket = args.dir.join("sds.sock");
    // What is left of an earlier run would make the bind fail.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(|e| AgentError::Path(socket.display().to_string(), e))?;
    let identity = node::Identity::load(&args.node, &args.cluster, args.metadata_file.as_deref())?;
    let authority = Remote {
        address: args.ca.clone().unwrap_or_else(|| args.xds.clone()),
        roots: Some(args.xds_roots.clone()),
        identity: Some(args.xds_identity.clone()),
        token: Some(args.token_file.clone()),
    };
    let written = bootstrap::write(&args, &identity, &socket)?;
    let (own, certificate) = watch::channel(certs::Own::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(certs::keep(authority, own));
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    tracing::info!(bootstrap = %written.display(), socket = %socket.display(), "serving the certificate to Envoy");
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    sds::serve(listener, certificate, stop).await?;
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

/// The socket hands out a private key, so nobody else may reach it.
fn private_folder(dir: &std::path::Path) -> Result<(), AgentError> {
    use std::os::unix::fs::PermissionsExt as _;
    let named = |e| AgentError::Path(dir.display().to_string(), e);
    std::fs::create_dir_all(dir).map_err(named)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(named)
}
