//! What the whole mesh does, from manifests to the application that a request reaches.
#![allow(clippy::unwrap_used, reason = "a test may end by panicking, and so may what it calls")]

mod change;
mod federation;
mod gateways;
mod grants;
mod links;
mod odd;
mod operators;
mod policy;
mod routing;
mod security;
mod services;
mod shop;
mod subsets;
mod yaml;

use tombolo_tests_mesh::Mesh;

/// At rest nothing is refused, waits, or is out of step.
#[track_caller]
fn sound(mesh: &Mesh) {
    let faults = mesh.faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
