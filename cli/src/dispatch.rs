//! From the arguments to the code that runs: `tombolo COMMAND`, or another name of the same binary.
//!
//! Owns the multi-call rule.

use crate::{
    args::{Cli, Command, FederationCommand},
    inspect::{analyze, proxy_config, status},
    up, workload,
};
use clap::Parser;
use std::{ffi::OsString, path::Path, process::ExitCode};
use tombolo_gateway_proxy::lifeline;

/// Runs the command that the arguments name; the first is the program's own name.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    lifeline::hold();
    let called = args.first().map(Path::new).and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("tombolo");
    match called {
        "tombolo-controlplane" => return controlplane(args),
        "tombolo-gateway" => return gateway(args),
        "tombolo-agent" => return agent(args),
        _ => {}
    }
    run(Cli::parse_from(args).command)
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Workload(args) => workload::main(&args),
        Command::ControlPlane(rest) => controlplane(with_name("tombolo-controlplane", rest.args)),
        Command::Gateway(rest) => gateway(with_name("tombolo-gateway", rest.args)),
        Command::Agent(rest) => agent(with_name("tombolo-agent", rest.args)),
        Command::Version => {
            println!("tombolo {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Command::Up(args) => up::main(&args),
        Command::Federation(FederationCommand::Status(args)) => for_readers(|| status::main(&args)),
        Command::Analyze(args) => for_readers(|| analyze::main(&args)),
        Command::ProxyConfig(args) => for_readers(|| proxy_config::main(&args)),
    }
}

/// Runs a command whose output somebody reads: when the reader leaves, as in `tombolo … | head`, it ends without a word.
fn for_readers(command: impl FnOnce() -> ExitCode) -> ExitCode {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to std") && text.contains("Broken pipe") {
            // What a shell reports for a program that the signal ended.
            std::process::exit(141);
        }
        usual(info);
    }));
    command()
}

fn with_name(name: &str, rest: Vec<OsString>) -> Vec<OsString> {
    std::iter::once(OsString::from(name)).chain(rest).collect()
}

fn controlplane(args: Vec<OsString>) -> ExitCode {
    tombolo_controlplane_server::main(args)
}

fn gateway(args: Vec<OsString>) -> ExitCode {
    tombolo_gateway_proxy::main(args)
}

fn agent(args: Vec<OsString>) -> ExitCode {
    tombolo_gateway_proxy::agent_main(args)
}
