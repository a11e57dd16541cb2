//! From the arguments to the code that runs: `tombolo COMMAND`, or another name of the same binary.
//!
//! Owns the multi-call rule and the lifeline: a child of `up` lives only as long as its standard input is open, so that
//! nothing survives a parent that died without saying goodbye.

use crate::{
    args::{Cli, Command, FederationCommand},
    inspect::{analyze, proxy_config, status},
    up, workload,
};
use clap::Parser;
use std::{ffi::OsString, io::Read, path::Path, process::ExitCode};

/// Set in the environment of children that shall end when their standard input ends.
pub(crate) const LIFELINE: &str = "TOMBOLO_STDIN_LIFELINE";

/// Runs the command that the arguments name; the first is the program's own name.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    if std::env::var_os(LIFELINE).is_some_and(|v| v == "1") {
        hold_the_lifeline();
    }
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

/// Ends the process when standard input does. A thread, because entry points bring runtimes of their own.
fn hold_the_lifeline() {
    let watch = || {
        let mut sink = [0; 64];
        let mut input = std::io::stdin().lock();
        loop {
            match input.read(&mut sink) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // The parent is gone, nobody is left to be told.
        std::process::exit(0);
    };
    // Without the thread the child merely outlives a parent that was killed.
    let _ = std::thread::Builder::new().name("lifeline".into()).stack_size(64 * 1024).spawn(watch);
}
