//! The gateway as a program of its own.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tombolo_gateway_pages::Allocator = tombolo_gateway_pages::Allocator;

fn main() -> ExitCode {
    tombolo_gateway_proxy::lifeline::hold();
    tombolo_gateway_proxy::main(std::env::args_os())
}
