//! Owns the stable codes of this crate's diagnostics. Used by every reader, and by tools that filter.

/// The text is not YAML; the objects of this document are unknown.
pub const YAML: &str = "YAML";
/// A document that is no Kubernetes object.
pub const NOT_AN_OBJECT: &str = "NOT_AN_OBJECT";
/// A key stands twice in one map.
pub const DUPLICATE_KEY: &str = "DUPLICATE_KEY";
/// The same object is defined in two places; the last one is in force.
pub const DUPLICATE_OBJECT: &str = "DUPLICATE_OBJECT";
/// A field that does not exist.
pub const UNKNOWN_FIELD: &str = "UNKNOWN_FIELD";
/// A field that is missing.
pub const REQUIRED: &str = "REQUIRED";
/// A value that cannot be used.
pub const BAD_VALUE: &str = "BAD_VALUE";
/// Fields that exclude each other.
pub const CONFLICTING_FIELDS: &str = "CONFLICTING_FIELDS";
/// A field of an older version of the API, honoured with its old meaning.
pub const LEGACY_FIELD: &str = "LEGACY_FIELD";
/// A field or kind that is accepted but does nothing yet.
pub const NOT_IN_FORCE: &str = "NOT_IN_FORCE";
/// A kind that is not read yet.
pub const NOT_READ: &str = "NOT_READ";
/// A security rule that cannot be enforced yet and is therefore refused.
pub const NOT_ENFORCED: &str = "NOT_ENFORCED";
/// A kind that was withdrawn long ago.
pub const WITHDRAWN_KIND: &str = "WITHDRAWN_KIND";
/// The object works, but probably not as its author thinks.
pub const SUSPICIOUS: &str = "SUSPICIOUS";
/// A secret whose certificate or key has no recognizable form.
pub const BAD_SECRET: &str = "BAD_SECRET";
