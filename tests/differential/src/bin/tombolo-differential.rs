//! The gateway, built beside the tests that run it.

fn main() -> std::process::ExitCode {
    tombolo_gateway_proxy::main(std::env::args_os())
}
