//! Changes of headers as configured. `crate::header` applies them.

use crate::format::Format;
use http::{HeaderName, HeaderValue};

/// Changes at one level (route, virtual host …). Removals come first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderChanges {
    /// Names removed.
    pub remove: Box<[HeaderName]>,
    /// In order.
    pub set: Box<[HeaderChange]>,
}

impl HeaderChanges {
    /// True when nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
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
