//! Looking at things: a running federation, a running proxy, a folder of manifests.
//!
//! Owns tables and exit codes. Changes nothing anywhere.

pub(crate) mod analyze;
mod dump_envoy;
mod dump_own;
mod offline;
pub(crate) mod proxy_config;
pub(crate) mod status;
pub(crate) mod table;

use std::process::ExitCode;

/// Runs a command that asks over the network, and reports its failure on one line.
pub(crate) fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e.into()),
    };
    runtime.block_on(work).unwrap_or_else(|e| fail(&e))
}

/// One line, and the exit code for "could not".
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(2)
}
