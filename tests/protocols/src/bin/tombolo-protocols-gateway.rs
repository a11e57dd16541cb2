//! The gateway, built with the tests of this crate.

fn main() -> std::process::ExitCode {
    tombolo_gateway_proxy::main(std::env::args_os())
}
