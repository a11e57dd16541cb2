//! The lifeline: a child of a supervisor such as `tombolo up` lives only as long as its standard input is open, so that nothing
//! survives a parent that died without saying goodbye.

use std::io::Read;

/// Set to `1` in the environment of children that shall end when their standard input ends.
pub const VARIABLE: &str = "TOMBOLO_STDIN_LIFELINE";

/// Ends the process when standard input does, if the environment asks for it. A thread, because programs bring runtimes of
/// their own.
pub fn hold() {
    if std::env::var_os(VARIABLE).is_none_or(|value| value != "1") {
        return;
    }
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
