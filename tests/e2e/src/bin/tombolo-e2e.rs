//! The tombolo command, built beside the tests that run it.

fn main() -> std::process::ExitCode {
    tombolo_cli::main(std::env::args_os().collect())
}
