//! Every source file says what it is for, stays short enough to read, and names nothing that only one machine has.

use tombolo_tests_tidy::{files, root, short};

/// Longer than this asks for a reason.
const LONGEST: usize = 700;

/// Flat tables of like items: length is no burden there.
const TABLES: &[&str] = &[];

/// Texts that tie the project to one machine or one package registry.
const FOREIGN: &[&str] =
    &["/work/", "/root/", "crates.io", "pypi.org", "pythonhosted", "npmjs", "deb.debian", "proxy.golang"];

#[test]
fn every_file_says_what_it_is_for() {
    let wrong: Vec<String> = files(&root(), ".rs")
        .iter()
        .filter(|file| !std::fs::read_to_string(file).is_ok_and(|text| text.starts_with("//!")))
        .map(|file| short(file))
        .collect();
    assert!(wrong.is_empty(), "files that do not open with //!:\n  {}", wrong.join("\n  "));
}

#[test]
fn files_stay_short_enough_to_read() {
    let wrong: Vec<String> = files(&root(), ".rs")
        .iter()
        .filter(|file| !TABLES.contains(&short(file).as_str()))
        .filter_map(|file| {
            let lines = std::fs::read_to_string(file).ok()?.lines().count();
            (lines > LONGEST).then(|| format!("{} has {lines} lines", short(file)))
        })
        .collect();
    assert!(wrong.is_empty(), "files longer than {LONGEST} lines:\n  {}", wrong.join("\n  "));
}

#[test]
fn nothing_names_one_machine_or_registry() {
    let mut wrong = Vec::new();
    for ending in [".rs", ".toml", ".yaml", ".md", ".py", ".sh", ".proto"] {
        for file in files(&root(), ending) {
            if file.ends_with("tests/tidy/tests/sources.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            for (number, line) in text.lines().enumerate() {
                if let Some(word) = FOREIGN.iter().find(|word| line.contains(**word)) {
                    wrong.push(format!("{}:{}: {word}", short(&file), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "lines that name a machine or a registry:\n  {}", wrong.join("\n  "));
}
