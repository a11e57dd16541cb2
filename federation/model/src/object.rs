//! References to what users wrote, and complaints about it.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// Which object, in which cluster, from which place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// For example `VirtualService`.
    pub kind: Arc<str>,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
    /// The cluster whose source reported it.
    pub cluster: Arc<str>,
}

impl ObjectRef {
    /// Names an object.
    #[must_use]
    pub fn new(kind: &str, namespace: &str, name: &str, cluster: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into(), cluster: cluster.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How bad a complaint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// The object works, but probably not as its author thinks.
    Warning,
    /// The object, or the named part of it, is not in force.
    Error,
}

/// A complaint about an object, for its status, the log, `analyze` and `federation status`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// Stable code in upper snake case, for example `LEGACY_FIELD`.
    pub code: String,
    /// What it is about.
    pub object: ObjectRef,
    /// Path of the field, for example `spec.http[0].route[1].weight`; empty for the whole object.
    pub field: String,
    /// The reason, and what to write instead where that is known.
    pub message: String,
    /// Where the text stands, for example `east/reviews.yaml:12`; empty when unknown.
    pub place: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} [{}] {}", self.severity, self.code, self.object)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.place.is_empty() {
            write!(f, " ({})", self.place)?;
        }
        Ok(())
    }
}
