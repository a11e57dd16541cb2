//! Envoy's messages as JSON, in both directions, as protobuf's JSON mapping says it.
//!
//! Owns the descriptions of all messages, which are large: they are decoded when asked for and given back with the last
//! [`Dictionary`]. Reading is strict: a name that no message has is refused with its place. Writing can hide what Envoy marks as
//! sensitive. Used for configuration files and for what admin pages show; never on the way of a request.

mod read;
mod write;

pub use write::timestamp;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

static DESCRIPTIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xds.bin"));

/// The descriptions of all messages.
#[derive(Debug, Clone)]
pub struct Dictionary {
    pool: DescriptorPool,
}

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

impl Dictionary {
    /// Decodes the descriptions: some megabytes and a hundredth of a second or so.
    ///
    /// # Errors
    /// When the build is broken.
    pub fn open() -> Result<Self, JsonError> {
        match DescriptorPool::decode(DESCRIPTIONS) {
            Ok(pool) => Ok(Self { pool }),
            Err(error) => Err(JsonError::new("", error.to_string())),
        }
    }

    fn message(&self, type_url: &str) -> Option<MessageDescriptor> {
        let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
        self.pool.get_message_by_name(name)
    }

    /// A message as JSON, with the names of fields as in the protobuf files.
    ///
    /// # Errors
    /// When the type is not known or the bytes are no such message.
    pub fn write(&self, type_url: &str, bytes: &[u8], secrets: Secrets) -> Result<Value, JsonError> {
        let kind = self.message(type_url).ok_or_else(|| JsonError::new("", format!("{type_url} is not known")))?;
        let message = DynamicMessage::decode(kind, bytes).map_err(|e| JsonError::new("", e.to_string()))?;
        Ok(write::message(self, &message, secrets))
    }

    /// The bytes of a message from JSON.
    ///
    /// # Errors
    /// The first thing that does not fit, and where.
    pub fn read(&self, type_url: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
        let kind = self.message(type_url).ok_or_else(|| JsonError::new("", format!("{type_url} is not known")))?;
        Ok(read::message(self, &kind, value, "", 0)?.encode_to_vec())
    }
}

#[cfg(test)]
mod tests;
