//! The demo federation proves its own promises, in the build that the tests are made of.

use std::process::Command;

#[test]
fn up_check_finds_nothing_wrong() {
    let state = tempfile::tempdir().expect("a temporary folder can be made");
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo-e2e"))
        .args(["up", "--check", "--loopback-base", "20", "--state"])
        .arg(state.path().join("state"))
        .output()
        .expect("the binary was built beside this test");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("ok"), "the table has rows: {text}");
}
