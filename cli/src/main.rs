//! The `tombolo` command: everything is in the library, so that tests can call it.

// Proxies and control planes run in this binary too, and allocate small and often.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tombolo_cli::main(std::env::args_os().collect())
}
