//! Folders of documents: order, definitions that repeat, and what stays when something breaks.

use crate::{Context, Document, Reading, code, read, read_json};
use proptest::prelude::*;
use std::{fs, path::Path};
use tombolo_federation_model::{ClusterId, ObjectRef, Severity, TrustDomain};
use tombolo_federation_registry::Item;

fn context() -> Context {
    Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap())
}

fn service(name: &str, port: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
}

fn folder(files: &[(&str, String)]) -> Reading {
    let documents: Vec<_> = files.iter().map(|(place, text)| Document::new(*place, text.as_str())).collect();
    read(&documents, &context())
}

/// `NAME:PORT` of every service.
fn ports(reading: &Reading) -> Vec<String> {
    let port = |item: &Item| match item {
        Item::Service(service) => Some(format!("{}:{}", service.name, service.ports[0].number)),
        _ => None,
    };
    reading.items().filter_map(port).collect()
}

fn object(name: &str) -> ObjectRef {
    ObjectRef::new("Service", "default", name, "east")
}

#[test]
fn the_last_definition_in_path_order_applies_and_both_places_are_told() {
    let files = [("b/x.yaml", service("web", "2")), ("a.yaml", service("web", "1")), ("b-c.yaml", service("web", "3"))];
    let reading = folder(&files);
    // Folder by folder: b/x.yaml comes before b-c.yaml.
    assert_eq!(ports(&reading), ["web:3"]);
    let told = &reading.diagnostics[0];
    assert_eq!((told.severity, told.code.as_str()), (Severity::Warning, code::DUPLICATE_OBJECT));
    assert!(told.message.contains("a.yaml:1") && told.message.contains("b-c.yaml:1"), "{told}");
    assert_eq!(ports(&folder(&files[..2])), ["web:2"]);
    assert_eq!(ports(&folder(&files[1..2])), ["web:1"]);
}

#[test]
fn a_refused_object_keeps_its_last_good_version_and_only_that() {
    let good = folder(&[("a.yaml", service("web", "1") + "---\n" + &service("db", "5"))]);
    let mut bad = folder(&[("a.yaml", service("web", "http") + "---\n" + &service("db", "6"))]);
    assert_eq!(ports(&bad), ["db:6"]);
    assert!(bad.refused.contains_key(&object("web")));
    assert_eq!(bad.keep_last_good(&good).into_iter().collect::<Vec<_>>(), [object("web")]);
    assert_eq!(ports(&bad), ["db:6", "web:1"]);
    // The next reading is compared with what is in force, so it stays through a second fault.
    let mut worse = folder(&[("a.yaml", service("web", "70000"))]);
    worse.keep_last_good(&bad);
    assert_eq!(ports(&worse), ["web:1"]);
}

#[test]
fn a_refused_later_definition_does_not_bring_back_the_earlier_one() {
    let earlier = ("a.yaml", service("web", "1"));
    let good = folder(&[earlier.clone(), ("b.yaml", service("web", "2"))]);
    let mut bad = folder(&[earlier.clone(), ("b.yaml", service("web", "x"))]);
    // On a fresh start the earlier one is what is left.
    assert_eq!(ports(&bad), ["web:1"]);
    bad.keep_last_good(&good);
    assert_eq!(ports(&bad), ["web:2"]);
    let mut removed = folder(&[earlier]);
    removed.keep_last_good(&bad);
    assert_eq!(ports(&removed), ["web:1"]);
}

#[test]
fn an_unreadable_file_keeps_what_it_had_and_a_removed_one_does_not() {
    let good =
        folder(&[("a.yaml", service("web", "1")), ("b.yaml", service("db", "5") + "---\n" + &service("web", "2"))]);
    assert_eq!(ports(&good), ["db:5", "web:2"]);
    let mut broken = folder(&[("a.yaml", service("web", "1")), ("b.yaml", "kind: [".to_owned())]);
    assert!(broken.unreadable.contains("b.yaml"));
    broken.keep_last_good(&good);
    assert_eq!(ports(&broken), ["db:5", "web:2"]);
    let mut gone = folder(&[("a.yaml", service("web", "1"))]);
    assert!(gone.keep_last_good(&broken).is_empty());
    assert_eq!(ports(&gone), ["web:1"]);
    // A file that comes later wins over one that cannot be read.
    let mut later = folder(&[("b.yaml", "kind: [".to_owned()), ("c.yaml", service("web", "9"))]);
    later.keep_last_good(&good);
    assert_eq!(ports(&later), ["db:5", "web:9"]);
}

#[test]
fn bytes_that_are_no_text_are_a_complaint() {
    let reading = read(&[Document::new("a.yaml", vec![0xff, 0xfe])], &context());
    assert_eq!(reading.diagnostics[0].code, code::YAML);
    assert!(reading.unreadable.contains("a.yaml"));
}

#[test]
fn an_object_of_an_api_server_reads_as_its_text_does() {
    let json: serde_json::Value = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": null, "ports": [{"port": 80, "targetPort": "http"}]}
    });
    let live = read_json(&json, "api", &context());
    let text = folder(&[("api", json.to_string())]);
    assert!(live.items().eq(text.items()));
    assert_eq!(live.items().count(), 1);
}

fn golden_inputs() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).map(|path| fs::read(path).unwrap()).collect()
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&[Document::new("a.yaml", bytes)], &context());
    }

    #[test]
    fn any_text_of_yaml_letters_is_read_without_panic(text in "[-a-c:{}\\[\\],&*!|>'\"#%@ \n\t?~<]{0,200}") {
        let _ = read(&[Document::new("a.yaml", text)], &context());
    }

    /// Real objects with a piece cut out or replaced reach deeper than random bytes do.
    #[test]
    fn damaged_objects_are_read_without_panic(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in 0_usize..40,
        put in prop::sample::select(vec!["", "[", "{}", "null", "- ", "\u{e9}", "99999999999999999999", ": ", "\"", "~", "&a *a"]),
    ) {
        let inputs = golden_inputs();
        let mut bytes = which.get(&inputs).clone();
        let from = at.index(bytes.len());
        let to = (from + cut).min(bytes.len());
        bytes.splice(from..to, put.bytes());
        let reading = read(&[Document::new("a.yaml", bytes)], &context());
        for diagnostic in &reading.diagnostics {
            prop_assert!(diagnostic.place.starts_with("a.yaml"), "{}", diagnostic);
            prop_assert!(!diagnostic.message.is_empty());
        }
    }

    /// A broken document changes nothing of the others.
    #[test]
    fn a_broken_document_leaves_its_neighbours_alone(which in any::<prop::sample::Index>(), front in any::<bool>()) {
        let inputs = golden_inputs();
        let text = String::from_utf8(which.get(&inputs).clone()).unwrap();
        let alone = read(&[Document::new("a.yaml", text.as_str())], &context());
        let mixed = if front { format!("kind: [broken\n---\n{text}") } else { format!("{text}\n---\nkind: [broken\n") };
        let mixed = read(&[Document::new("a.yaml", mixed)], &context());
        prop_assert!(mixed.unreadable.contains("a.yaml"));
        prop_assert!(alone.items().eq(mixed.items()));
        prop_assert!(alone.intents().eq(mixed.intents()));
    }
}
