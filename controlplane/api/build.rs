//! Compiles our own protobuf files without an installed protoc, and keeps the descriptions of Envoy's messages that their
//! crate brings along, for reading and writing them as JSON.

#[path = "build/words.rs"]
mod words;

use prost_reflect::DescriptorPool;
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

/// The crate of Envoy's messages holds their descriptions in a file that it does not export.
fn descriptions() -> Result<(), Box<dyn Error>> {
    let from = source_of("envoy-types")?.join("src/generated/types.bin");
    let pool = DescriptorPool::decode(fs::read(&from)?.as_slice())?;
    // For tests, which compare what the table says with what the descriptions say.
    println!("cargo:rustc-env=DESCRIPTIONS={}", from.display());
    let out = PathBuf::from(env::var("OUT_DIR")?);
    Ok(fs::write(out.join("words.bin"), words::table(&pool)?)?)
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
