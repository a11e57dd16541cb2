//! Each crate may use only the crates that its line below names. A new edge is a decision about the architecture, so it
//! is made here, in sight.

use std::{collections::BTreeMap, process::Command};

/// Crate → the workspace crates that it may use, tests aside.
const ALLOWED: &[(&str, &[&str])] = &[
    ("federation-model", &[]),
    ("federation-identity", &["federation-model"]),
    ("federation-registry", &["federation-model"]),
    ("federation-sync", &[]),
    (
        "federation-peer",
        &["federation-model", "federation-identity", "federation-registry", "federation-sync", "controlplane-api"],
    ),
    ("controlplane-api", &[]),
    ("controlplane-core", &["federation-model", "federation-registry", "federation-sync", "controlplane-api"]),
    ("controlplane-dialect", &["federation-model", "federation-registry", "controlplane-core"]),
    (
        "controlplane-server",
        &[
            "federation-model",
            "federation-registry",
            "federation-sync",
            "federation-peer",
            "controlplane-api",
            "controlplane-core",
            "controlplane-dialect",
        ],
    ),
    ("gateway-core", &["federation-model", "controlplane-api"]),
    ("gateway-http1", &[]),
    ("gateway-http2", &[]),
    ("gateway-http3", &[]),
    ("gateway-pages", &[]),
    (
        "gateway-proxy",
        &[
            "federation-model",
            "federation-identity",
            "federation-sync",
            "controlplane-api",
            "gateway-core",
            "gateway-http1",
            "gateway-http2",
            "gateway-http3",
            "gateway-pages",
        ],
    ),
    (
        "cli",
        &[
            "federation-model",
            "federation-registry",
            "controlplane-api",
            "controlplane-core",
            "controlplane-dialect",
            "controlplane-server",
            "gateway-core",
            "gateway-pages",
            "gateway-proxy",
        ],
    ),
    // Tests of the others stand on it.
    ("tests-kit", &["federation-sync", "controlplane-api"]),
];

/// Crates that know no clock, environment, socket, file, thread or `async`.
const PURE: &[&str] = &[
    "federation/model",
    "federation/identity",
    "federation/registry",
    "federation/sync",
    "controlplane/core",
    "controlplane/dialect",
    "gateway/core",
    "gateway/http1",
    "gateway/http2",
    "gateway/http3",
];

/// What a pure crate must not say, outside its tests.
const IMPURE: &[&str] = &[
    "std::time::Instant",
    "SystemTime",
    "Instant::now",
    "std::env",
    "env::var",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "thread::spawn",
    "tokio::",
    "async fn",
    ".await",
    "rand::rng",
    "getrandom",
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(tombolo_tests_tidy::root())
        .output()
        .expect("cargo runs, because cargo runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

#[test]
fn crates_use_only_what_stands_above_them() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for package in metadata()["packages"].as_array().expect("a list of packages") {
        let name = package["name"].as_str().unwrap_or_default().trim_start_matches("tombolo-");
        if name.starts_with("tests-") && name != "tests-kit" {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name}: a crate that this test does not know"));
            continue;
        };
        seen += 1;
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(used) = dependency["name"].as_str().and_then(|n| n.strip_prefix("tombolo-")) else { continue };
            if dependency["kind"].is_null() && !allowed.contains(&used) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert_eq!(seen, ALLOWED.len(), "a crate of the list is gone");
    assert!(wrong.is_empty(), "edges that the architecture does not have:\n  {}", wrong.join("\n  "));
}

/// Whether the line holds the word, and not merely a longer one that begins with it.
fn says(line: &str, word: &str) -> bool {
    let longer = |rest: &str| {
        word.ends_with(char::is_alphanumeric) && rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    };
    line.match_indices(word).any(|(at, _)| !longer(&line[at + word.len()..]))
}

#[test]
fn pure_crates_ask_the_world_nothing() {
    let mut wrong = Vec::new();
    for folder in PURE {
        for file in tombolo_tests_tidy::files(&tombolo_tests_tidy::root().join(folder).join("src"), ".rs") {
            if file.ends_with("tests.rs") || file.iter().any(|part| part == "tests") {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("a source file is readable text");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap_or_default();
                if let Some(word) = IMPURE.iter().find(|word| says(line, word)) {
                    wrong.push(format!("{}:{}: {word}", tombolo_tests_tidy::short(&file), number + 1));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "pure crates must take time, randomness and bytes as arguments:\n  {}",
        wrong.join("\n  ")
    );
}
