//! Public manifests of other projects are read as they are, when they lie beside this checkout.

use crate::{Context, Document, code, is_manifest, read};
use std::{fs, path::Path};
use tombolo_federation_model::{ClusterId, Severity, TrustDomain};

fn context() -> Context {
    Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap())
}

fn collect(folder: &Path, found: &mut Vec<Document>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if is_manifest(&path.to_string_lossy()) {
            found.push(Document::new(path.to_string_lossy(), fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn public_manifests_are_accepted_as_they_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/samples");
    if !folder.is_dir() {
        eprintln!("no samples beside this checkout, nothing to read");
        return;
    }
    let mut documents = Vec::new();
    collect(&folder, &mut documents);
    assert!(!documents.is_empty());
    for document in documents {
        let reading = read(std::slice::from_ref(&document), &context());
        assert!(reading.unreadable.is_empty(), "{:#?}", reading.diagnostics);
        for diagnostic in reading.diagnostics {
            let told = [code::WITHDRAWN_KIND, code::NOT_ENFORCED].contains(&diagnostic.code.as_str());
            assert!(diagnostic.severity < Severity::Error || told, "{diagnostic}");
            if std::env::var_os("SHOW_DIAGNOSTICS").is_some() {
                println!("{diagnostic}");
            }
        }
    }
}
