//! Each target for a moment. `TOMBOLO_FUZZ_SECONDS` says how long (default 1), `TOMBOLO_FUZZ_SEED` with which number to begin.

use std::time::Duration;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_input_breaks_a_law() {
    let length = Duration::from_secs(number("TOMBOLO_FUZZ_SECONDS").unwrap_or(1));
    let seed = number("TOMBOLO_FUZZ_SEED").unwrap_or(0x5eed);
    let mut findings = Vec::new();
    for target in tombolo_tests_fuzz::all() {
        match tombolo_tests_fuzz::run(&target, seed, length) {
            Ok(count) => {
                println!("{:20} {count} inputs", target.name);
                assert!(count > 100, "{}: only {count} inputs, which is no test", target.name);
            }
            Err(finding) => findings.push(finding),
        }
    }
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn every_target_can_be_run_by_cargo_fuzz() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz");
    let manifest = std::fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
    for target in tombolo_tests_fuzz::all() {
        let path = format!("fuzz_targets/{}.rs", target.name);
        assert!(manifest.contains(&format!("path = \"{path}\"")), "fuzz/Cargo.toml does not know {path}");
        let text = std::fs::read_to_string(format!("{folder}/{path}")).unwrap_or_default();
        assert!(text.contains(&format!("target(\"{}\")", target.name)), "{path} is missing or feeds another target");
    }
}
