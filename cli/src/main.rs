//! The `tombolo` command: everything is in the library, so that tests can call it.

// Proxies and control planes run in this binary too, and allocate small and often.
#[global_allocator]
static ALLOCATOR: tombolo_gateway_pages::Allocator = tombolo_gateway_pages::Allocator;

fn main() -> std::process::ExitCode {
    tombolo_cli::main(std::env::args_os().collect())
}
