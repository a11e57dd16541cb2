//! The gateway as a program of its own.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tombolo_gateway_proxy::lifeline::hold();
    tombolo_gateway_proxy::main(std::env::args_os())
}
