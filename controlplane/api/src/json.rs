//! Envoy's messages as JSON, in both directions, as protobuf's JSON mapping says it.
//!
//! Owns the names of all messages and fields, as a table that is read where it lies in the program. Reading is strict: a name that
//! no message has is refused with its place. It goes from text to bytes without a tree between, so that a large file costs no
//! more memory than its messages. Writing goes piece by piece
//! and can hide what Envoy marks as sensitive. Used for configuration files and for what admin
//! pages show; never on the way of a request.

mod base64;
mod encode;
mod node;
mod read;
mod scalar;
mod words;
mod write;

pub use node::{Items, Members, Node, Text};
pub use read::{Parts, read, read_parts};
pub use write::{timestamp, write};

/// What is shown of sensitive fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Everything: for files that go back to who wrote them.
    Shown,
    /// `[redacted]` instead.
    Redacted,
}

/// Why something could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Path of the field.
    pub at: String,
    /// Why, in lower case.
    pub reason: String,
}

impl JsonError {
    pub(crate) fn new(at: &str, reason: impl Into<String>) -> Self {
        Self { at: at.to_owned(), reason: reason.into() }
    }
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.at.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.at, self.reason) }
    }
}

impl std::error::Error for JsonError {}

fn unknown(type_url: &str) -> JsonError {
    JsonError::new("", format!("{type_url} is not known"))
}

#[cfg(test)]
mod tests;
