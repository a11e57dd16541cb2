//! Changes of headers as configured. `crate::header` applies them.

use crate::format::Format;
use http::{HeaderName, HeaderValue};

/// Changes at one level (route, virtual host …). Removals come first. One word where there are none, as almost everywhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderChanges(Option<Box<Lists>>);

#[derive(Debug, Clone, PartialEq)]
struct Lists {
    remove: Box<[HeaderName]>,
    set: Box<[HeaderChange]>,
}

impl HeaderChanges {
    /// These names go, then these values are put.
    #[must_use]
    pub fn new(remove: Box<[HeaderName]>, set: Box<[HeaderChange]>) -> Self {
        let any = !(remove.is_empty() && set.is_empty());
        Self(any.then(|| Box::new(Lists { remove, set })))
    }

    /// Names removed.
    #[must_use]
    pub fn removed(&self) -> &[HeaderName] {
        self.0.as_ref().map_or(&[], |lists| &lists.remove)
    }

    /// What is put, in order.
    #[must_use]
    pub fn set(&self) -> &[HeaderChange] {
        self.0.as_ref().map_or(&[], |lists| &lists.set)
    }

    /// True when nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// One header put.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderChange {
    /// Which; `host` and `:authority` are both spelled `host` here, `:path` is refused.
    pub name: HeaderName,
    /// What.
    pub value: HeaderValueFormat,
    /// How.
    pub action: Action,
    /// An empty value is put too; otherwise it leaves the header alone.
    pub keep_empty: bool,
}

/// A value, or what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValueFormat {
    /// Always the same: shared, not copied.
    Fixed(HeaderValue),
    /// Has operators.
    Format(Format),
}

/// What happens to values that are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// The new one is added to those there.
    #[default]
    Append,
    /// Put only when there is none.
    AddIfAbsent,
    /// Replaces all.
    Overwrite,
    /// Replaces all, only when there is one.
    OverwriteIfExists,
}
