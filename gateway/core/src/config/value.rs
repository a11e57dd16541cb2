//! Free-form values: metadata of endpoints, routes and clusters.
//!
//! Owns the closed value type and its equality. Never interprets keys. Used by `wire`, `balance` (subsets), telemetry.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// A value as in JSON.
#[derive(Debug, Clone, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// Text.
    Text(Arc<str>),
    /// Values in order.
    List(Arc<[Value]>),
    /// Values by name.
    Map(Arc<BTreeMap<Arc<str>, Value>>),
}

impl Value {
    /// The text, when it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// A member of a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        if let Self::Map(map) = self { map.get(key) } else { None }
    }
}

// Numbers are equal when their bits are: values serve as keys of subsets, which needs `Eq`.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Null => {}
            Self::Bool(value) => value.hash(state),
            Self::Number(value) => value.to_bits().hash(state),
            Self::Text(value) => value.hash(state),
            Self::List(value) => value.hash(state),
            Self::Map(value) => value.hash(state),
        }
    }
}

/// Values by namespace (Envoy's `filter_metadata`): `envoy.lb`, `istio`, `envoy.transport_socket_match` …
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata(pub Option<Arc<BTreeMap<Arc<str>, Value>>>);

impl Metadata {
    /// The value of a namespace.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Option<&Value> {
        self.0.as_ref()?.get(namespace)
    }

    /// Puts a value at a key of a namespace, in place of what is there.
    pub fn put(&mut self, namespace: &Arc<str>, key: &Arc<str>, value: Value) {
        let all = Arc::make_mut(self.0.get_or_insert_default());
        let before = all.entry(Arc::clone(namespace)).or_insert_with(|| Value::Map(Arc::default()));
        match before {
            Value::Map(members) => drop(Arc::make_mut(members).insert(Arc::clone(key), value)),
            other => *other = Value::Map(Arc::new([(Arc::clone(key), value)].into())),
        }
    }

    /// The value at a key of a namespace.
    #[must_use]
    pub fn get(&self, namespace: &str, key: &str) -> Option<&Value> {
        self.namespace(namespace)?.get(key)
    }
}

/// What a route asks of an endpoint's `envoy.lb` metadata (subset load balancing): keys in order, each once.
pub type MetadataMatch = Arc<[(Arc<str>, Value)]>;
