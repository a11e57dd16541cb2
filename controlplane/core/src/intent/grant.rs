//! Permission to refer to objects of a namespace from others.

use super::Meta;
use serde::{Deserialize, Serialize};
use tombolo_federation_model::Namespace;

/// Which objects of other namespaces may refer to which objects of this one (a ReferenceGrant).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Identity of the object; its namespace is that of the objects that may be referred to.
    pub meta: Meta,
    /// Who may refer; any of them.
    pub from: Vec<GrantedFrom>,
    /// To what; any of them.
    pub to: Vec<GrantedTo>,
}

/// Who may refer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedFrom {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: Namespace,
}

/// What may be referred to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedTo {
    /// API group; empty for the core one.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Only the object of this name; `None` for all.
    pub name: Option<String>,
}

impl Grant {
    /// Whether it lets an object of a kind and namespace refer to one of this namespace.
    #[must_use]
    pub fn permits(&self, from: (&str, &str, &Namespace), to: (&str, &str, &str)) -> bool {
        let source = |f: &GrantedFrom| (f.group.as_str(), f.kind.as_str(), &f.namespace) == from;
        let target = |t: &GrantedTo| {
            (t.group.as_str(), t.kind.as_str()) == (to.0, to.1) && t.name.as_ref().is_none_or(|name| name == to.2)
        };
        self.from.iter().any(source) && self.to.iter().any(target)
    }
}
