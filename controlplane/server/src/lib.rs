//! The control plane daemon: sources, the world thread, streams to proxies and peers, the certificate authority, status.
//!
//! Owns every socket, file, thread and clock of the control plane. Decides nothing about configuration: what objects mean is
//! read by the dialect crate, and what proxies are told is computed by the core crate. [`main`] is the whole program.

pub mod admin;
pub mod ads;
pub mod ca;
pub mod config;
pub mod debug;
mod logging;
pub mod metrics;
pub mod peers;
pub mod proxies;
pub mod serve;
pub mod sources;
pub mod start;
pub mod status;
pub mod store;
pub mod trust;
pub mod world;

use clap::Parser;
use config::Config;
use std::{ffi::OsString, path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Threads that may read files and parse at once.
const BLOCKING_THREADS: usize = 4;

/// Flags of the program.
#[derive(Debug, Parser)]
#[command(
    name = "tombolo-controlplane",
    version,
    about = "The Tombolo control plane: reads what users wrote and what is running, and tells gateways what to do"
)]
struct Flags {
    /// Configuration file, in YAML.
    #[arg(long, env = "TOMBOLO_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration file.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    log: logging::LogFlags,
}

/// The program. The first argument is its name, as everywhere.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    small_pages();
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            // Help and version are errors of this kind too, with a code of 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("tombolo-controlplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Asks for ordinary pages: an allocator that takes huge ones holds several times the memory of this process, which has
/// little and touches it seldom.
fn small_pages() {
    // Where the kernel refuses, the process is larger and works the same.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(&flags.config)?;
    if flags.check {
        println!("{} is usable", flags.config.display());
        return Ok(());
    }
    flags.log.start()?;
    // One provider for every TLS connection; an earlier choice of the same process stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = stop.clone();
        let asked = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            told.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = start::run(config, stop) => outcome,
            () = asked => Ok(()),
        }
    });
    // A blocked file system must not keep the process alive.
    runtime.shutdown_background();
    outcome
}
