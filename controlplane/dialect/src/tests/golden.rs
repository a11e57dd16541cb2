//! Every `testdata/*/*.in.yaml` is read, and what comes out is compared with the text beside it. `UPDATE_GOLDEN=1` writes
//! those texts anew; they are reviewed as code.

use crate::{Context, Document, Reading, RunSpec, read};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};
use tombolo_controlplane_core::intent::Intent;
use tombolo_federation_model::{ClusterId, TrustDomain};
use tombolo_federation_registry::Item;

fn inputs() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let mut inputs: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    inputs.sort();
    inputs
}

fn render(reading: &Reading) -> String {
    let mut text = String::new();
    for diagnostic in &reading.diagnostics {
        writeln!(text, "{diagnostic}").unwrap();
    }
    for (object, refused) in &reading.refused {
        writeln!(text, "refused: {object} ({}:{})", refused.place, refused.line).unwrap();
    }
    for place in &reading.unreadable {
        writeln!(text, "unreadable: {place}").unwrap();
    }
    for object in reading.objects.values() {
        writeln!(text, "\n# {} ({}:{})", object.object, object.place, object.line).unwrap();
        object.items.iter().for_each(|item| writeln!(text, "{}", item_text(item)).unwrap());
        object.intents.iter().for_each(|intent| writeln!(text, "{}", intent_text(intent)).unwrap());
    }
    for run in reading.runs() {
        writeln!(text, "\nrun {}", run_text(&run)).unwrap();
    }
    text
}

fn item_text(item: &Item) -> String {
    match item {
        Item::Service(service) => format!("service {}", json(service)),
        Item::Workload(workload) => format!("workload {}", json(workload)),
        Item::Slice(slice) => format!("slice {}", json(slice)),
        Item::Gateway(gateway) => format!("gateway {}", json(gateway)),
        Item::Export(export) => format!("export {}", json(export)),
    }
}

fn intent_text(intent: &Intent) -> String {
    match intent {
        Intent::Secret(secret) => {
            let has = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(Vec::len);
            format!(
                "secret certificate {:?} key {:?} roots {:?} bytes",
                has(&secret.certificate),
                has(&secret.key),
                has(&secret.roots)
            )
        }
        other => format!("intent {}", json(other)),
    }
}

fn run_text(run: &RunSpec) -> String {
    format!("{run:#?}")
}

/// Without what is absent or empty, so that a reader sees what matters.
fn json(value: &impl serde::Serialize) -> String {
    let mut value = serde_json::to_value(value).unwrap();
    prune(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

fn prune(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            // The head of every object says this already.
            map.retain(|key, _| !matches!(key.as_str(), "origin" | "meta"));
            map.values_mut().for_each(prune);
            map.retain(|_, value| !is_empty(value));
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_empty(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[test]
fn readings_are_as_they_were() {
    let context = Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap());
    let mut differing = Vec::new();
    for input in inputs() {
        let place = input.file_name().unwrap().to_string_lossy().replace(".in.yaml", ".yaml");
        let found = render(&read(&[Document::new(place, fs::read(&input).unwrap())], &context));
        let golden = PathBuf::from(input.to_string_lossy().replace(".in.yaml", ".out.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, found).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != found {
            differing.push(golden);
        }
    }
    assert!(differing.is_empty(), "run with UPDATE_GOLDEN=1 and review: {differing:?}");
}
