//! Owns YAML: text to trees whose every node knows its line. Never knows what an object means.
//! Used by the reading pipeline.
//!
//! The trees keep scalars as they were written. What a scalar means (a port, a truth value, a label) is decided by the
//! field that reads it, so `version: 1.10` stays `1.10` and `port: "80"` is a port.

mod documents;
mod json;
mod node;
mod parse;

pub(crate) use documents::split;
pub(crate) use json::from_json;
pub(crate) use node::{Key, Node, Value};
pub(crate) use parse::parse;
