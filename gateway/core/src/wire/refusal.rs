//! Why a resource is refused.

use std::fmt;

/// A resource that is refused: goes into the NACK as it is displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the resource; empty until known.
    pub resource: String,
    /// Path of the field, such as `filter_chains[0].filters[1].typed_config`.
    pub field: String,
    /// Why, in lower case.
    pub reason: String,
}

impl Refusal {
    /// A refusal of one field.
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { resource: String::new(), field: field.into(), reason: reason.into() }
    }

    /// The field is known to Envoy but not to us.
    pub(crate) fn unsupported(field: impl Into<String>) -> Self {
        Self::new(field, "not supported")
    }

    /// The same, seen from one level up.
    pub(crate) fn inside(mut self, outer: &str) -> Self {
        if self.field.is_empty() {
            self.field = outer.to_owned();
        } else if self.field.starts_with('[') {
            self.field.insert_str(0, outer);
        } else {
            self.field = format!("{outer}.{}", self.field);
        }
        self
    }

    /// The same, with the resource's name.
    pub(crate) fn of(mut self, resource: &str) -> Self {
        resource.clone_into(&mut self.resource);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.resource, self.field, self.reason)
    }
}

impl std::error::Error for Refusal {}
