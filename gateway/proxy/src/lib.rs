//! The Tombolo gateway: the data plane's I/O around the pure decisions of `gateway/core`.
//!
//! Owns sockets, threads, clocks and tasks. Never decides where a request goes: it asks and acts.

mod admin;
mod agent;
mod args;
mod certs;
mod clock;
mod codec;
mod control;
mod drain;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod inbound;
pub mod lifeline;
mod listen;
mod loglevel;
mod net;
mod node;
mod quic;
mod start;
mod tcp;
mod telemetry;
mod tls;
mod upstream;
mod worker;
mod xds;

pub use agent::agent_main;
use std::{ffi::OsString, process::ExitCode};

/// Runs a gateway with a command line of which the first item is the program's name.
pub fn main(items: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match args::Args::parse_items(items) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Buffers of thousands of connections are small and scattered: huge pages would multiply what they take. Where the
    // kernel refuses, the process is larger and works the same.
    let _ = nix::sys::prctl::set_thp_disable(true);
    loglevel::start(&args.log, args.log_json);
    match start::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
