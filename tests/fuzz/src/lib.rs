//! Every parser that reads what strangers send, as a target of mutated input.
//!
//! A target is a plain function of bytes that panics when a law is broken, with seeds that reach deep. `cargo test` runs
//! each for a moment with the mutator here; the `fuzz` folder runs the same functions under cargo-fuzz, guided by coverage.

mod mutate;
pub mod targets;

pub use mutate::{Finding, run};

/// One parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also that of its cargo-fuzz target.
    pub name: &'static str,
    /// Feeds it one input. Panics when a law does not hold.
    pub feed: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
#[must_use]
pub fn all() -> Vec<Target> {
    [
        targets::connection::TARGETS,
        targets::routing::TARGETS,
        targets::configuration::TARGETS,
        targets::codecs::TARGETS,
        targets::servers::TARGETS,
        targets::requests::TARGETS,
    ]
    .concat()
}

/// The target of a name.
///
/// # Panics
/// When there is none: the caller is a fuzz target of that name.
#[must_use]
pub fn target(name: &str) -> Target {
    all().into_iter().find(|target| target.name == name).expect("a target of this name")
}
