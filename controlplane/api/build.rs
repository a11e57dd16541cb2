//! Compiles our own protobuf files without an installed protoc, and keeps the descriptions of Envoy's messages that their
//! crate brings along, for reading and writing them as JSON.

use prost::Message as _;
use prost_reflect::{DescriptorPool, prost_types::FileDescriptorSet};
use std::{env, error::Error, fs, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let files = protox::compile(["proto/peer.proto", "proto/ca.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".tombolo")
        // In order, so that equal messages encode to equal bytes and a hash of them means something.
        .btree_map(".tombolo")
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .compile_well_known_types(true)
        .compile_fds(files)?;
    descriptions()
}

/// The crate of Envoy's messages holds their descriptions in a file that it does not export. Comments are most of it and are left
/// out.
fn descriptions() -> Result<(), Box<dyn Error>> {
    let from = source_of("envoy-types")?.join("src/generated/types.bin");
    let bytes = fs::read(&from)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("sensitive.txt"), sensitive(&DescriptorPool::decode(bytes.as_slice())?).join("\n"))?;
    let mut all = FileDescriptorSet::decode(bytes.as_slice())?;
    for file in &mut all.file {
        file.source_code_info = None;
    }
    Ok(fs::write(out.join("xds.bin"), all.encode_to_vec())?)
}

/// Fields that Envoy marks as ones that must not be shown, sorted. The mark is an extension of the field's options, which does not
/// survive in what is written.
fn sensitive(pool: &DescriptorPool) -> Vec<String> {
    let marked = |field: &prost_reflect::FieldDescriptor| {
        let options = field.options();
        let mut extensions = options.extensions();
        extensions.any(|(e, value)| e.full_name() == "udpa.annotations.sensitive" && value.as_bool() == Some(true))
    };
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let mut names: Vec<String> = fields.filter(marked).map(|field| field.full_name().to_owned()).collect();
    names.sort();
    names
}

/// Where the source of a dependency lies, wherever it came from.
fn source_of(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    // Offline first; a build of one package may not have brought what the rest of the workspace names, and then it is fetched.
    let ask = |more: &[&str]| {
        Command::new(env::var("CARGO")?)
            .args(["metadata", "--format-version", "1", "--filter-platform", &env::var("TARGET")?])
            .args(more)
            .current_dir(env::var("CARGO_MANIFEST_DIR")?)
            .output()
            .map_err(Box::<dyn Error>::from)
    };
    let mut output = ask(&["--offline"])?;
    if !output.status.success() {
        output = ask(&[])?;
    }
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages.filter(|p| p["name"] == name).find_map(|p| p["manifest_path"].as_str());
    let manifest = PathBuf::from(manifest.ok_or_else(|| format!("{name} is not a dependency"))?);
    Ok(manifest.parent().ok_or("a manifest without a folder")?.to_path_buf())
}
