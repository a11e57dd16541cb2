//! Envoy's messages by their JSON form. Owns the descriptors, which come with the crate of message types, so that a resource
//! in a table of cases is written as in Envoy's own documents.

use anyhow::{Context, Result, bail};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use std::{path::PathBuf, process::Command, sync::OnceLock};

/// The descriptors of all messages.
///
/// # Panics
/// When they cannot be found: nothing can be tested without.
#[must_use]
pub fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| load().expect("the descriptors of Envoy's messages"))
}

fn load() -> Result<DescriptorPool> {
    let file = sources()?.join("src").join("generated").join("types.bin");
    let bytes = std::fs::read(&file).with_context(|| format!("no descriptors at {}", file.display()))?;
    Ok(DescriptorPool::decode(bytes.as_slice())?)
}

/// Where cargo keeps the crate of message types; the crate has the descriptors but does not export them.
fn sources() -> Result<PathBuf> {
    // Offline first; a build of this package alone may not have brought what the rest of the workspace names.
    let ask = |more: &[&str]| {
        Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--filter-platform", "host-tuple", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .args(more)
            .output()
    };
    let mut output = ask(&["--offline"])?;
    if !output.status.success() {
        output = ask(&[])?;
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let found = packages.iter().find(|package| package["name"] == "envoy-types");
    let manifest =
        found.and_then(|package| package["manifest_path"].as_str()).context("no crate of Envoy's messages")?;
    PathBuf::from(manifest).parent().map(PathBuf::from).context("a manifest lies in a folder")
}

/// A message of a type, from its JSON form.
///
/// # Errors
/// When the type is unknown or the JSON is not one of it.
pub fn message(type_name: &str, json: &Value) -> Result<DynamicMessage> {
    let Some(descriptor) = pool().get_message_by_name(type_name) else { bail!("no message {type_name}") };
    DynamicMessage::deserialize(descriptor, json).with_context(|| format!("not a {type_name}: {json}"))
}

/// The bytes of a message.
///
/// # Errors
/// As [`message`].
pub fn encode(type_name: &str, json: &Value) -> Result<Vec<u8>> {
    Ok(message(type_name, json)?.encode_to_vec())
}
