//! Scoped routes: which of many route tables serves a request, by values of its headers.
//!
//! Owns the types and the lookup, which costs one hash whatever the number of scopes. Used by `wire` (makes them),
//! `assemble` (collects those that come one by one) and [`Config::routes_for`](super::Config::routes_for).

use super::RouteTable;
use ahash::AHashMap;
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;
use std::sync::Arc;

/// How a connection manager finds a scope.
#[derive(Debug, Clone, PartialEq)]
pub struct ScopedRoutes {
    /// For logs.
    pub name: Arc<str>,
    /// Makes the key; never empty.
    pub fragments: Box<[Fragment]>,
    /// The scopes, where they are written here; `None`: those that the control plane sends one by one.
    pub scopes: Option<ScopeIndex>,
}

/// One part of a key, taken from a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Which header; `None`: the authority, which HTTP/1 calls `host`.
    pub header: Option<HeaderName>,
    /// Splits its value; empty: the value is one element.
    pub separator: Arc<str>,
    /// Which element.
    pub element: Element,
}

/// Which element of a header's value is the fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// By its place.
    Index(u32),
    /// What follows this key and separator in the first element that begins so.
    Value {
        /// The key.
        key: Arc<str>,
        /// Between key and value.
        separator: Arc<str>,
    },
}

/// One scope.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// Unique.
    pub name: Arc<str>,
    /// What the fragments must be.
    pub key: Box<[Arc<str>]>,
    /// Its routes.
    pub routes: ScopeTable,
}

/// Routes of a scope.
#[derive(Debug, Clone, PartialEq)]
pub enum ScopeTable {
    /// Written in it.
    Inline(Arc<RouteTable>),
    /// By name.
    Named(Arc<str>),
}

/// Scopes by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScopeIndex {
    by_key: AHashMap<Box<str>, Arc<Scope>>,
}

impl ScopeIndex {
    /// Adds a scope.
    ///
    /// # Errors
    /// The name of the scope that has the same key.
    pub fn put(&mut self, scope: Arc<Scope>) -> Result<(), Arc<str>> {
        let key = joined(scope.key.iter().map(|part| &**part));
        match self.by_key.get(&*key) {
            Some(other) if other.name != scope.name => Err(Arc::clone(&other.name)),
            _ => {
                self.by_key.insert(key, scope);
                Ok(())
            }
        }
    }

    /// Takes a scope out.
    pub fn remove(&mut self, scope: &Scope) {
        let key = joined(scope.key.iter().map(|part| &**part));
        if self.by_key.get(&*key).is_some_and(|here| here.name == scope.name) {
            self.by_key.remove(&*key);
        }
    }

    /// All scopes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Scope>> {
        self.by_key.values()
    }

    fn find(&self, key: &str) -> Option<&Arc<Scope>> {
        self.by_key.get(key)
    }
}

/// Parts of a key as one text. Lengths keep `ab`,`c` and `a`,`bc` apart.
fn joined<'p>(parts: impl Iterator<Item = &'p str>) -> Box<str> {
    use std::fmt::Write as _;
    let mut out = String::new();
    for part in parts {
        let _ = write!(out, "{}:{part}", part.len());
    }
    out.into()
}

impl ScopedRoutes {
    /// The scope of a request. A request that lacks a fragment has none.
    #[must_use]
    pub fn find<'s>(
        &'s self,
        discovered: &'s ScopeIndex,
        authority: &str,
        headers: &HeaderMap,
    ) -> Option<&'s Arc<Scope>> {
        let parts: Option<SmallVec<[&str; 4]>> =
            self.fragments.iter().map(|part| part.of(authority, headers)).collect();
        let scopes = self.scopes.as_ref().unwrap_or(discovered);
        scopes.find(&joined(parts?.into_iter()))
    }
}

impl Fragment {
    fn of<'h>(&self, authority: &'h str, headers: &'h HeaderMap) -> Option<&'h str> {
        let value = match &self.header {
            Some(name) => headers.get(name)?.to_str().ok()?,
            None => authority,
        };
        let mut whole = Some(value);
        let mut split = value.split(&*self.separator);
        let elements = std::iter::from_fn(|| if self.separator.is_empty() { whole.take() } else { split.next() });
        let mut elements = elements;
        match &self.element {
            Element::Index(index) => elements.nth(usize::try_from(*index).ok()?),
            Element::Value { key, separator } => elements.find_map(|element| {
                let (name, value) = element.split_once(&**separator).unwrap_or((element, ""));
                (name == &**key).then_some(value)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn routes(fragments: Vec<Fragment>, scopes: &[(&str, &[&str])]) -> ScopedRoutes {
        let mut index = ScopeIndex::default();
        for (name, key) in scopes {
            let key = key.iter().map(|part| Arc::from(*part)).collect();
            let scope = Scope { name: (*name).into(), key, routes: ScopeTable::Named("t".into()) };
            index.put(Arc::new(scope)).unwrap();
        }
        ScopedRoutes { name: "s".into(), fragments: fragments.into(), scopes: Some(index) }
    }

    fn found(routes: &ScopedRoutes, header: &'static str) -> Option<String> {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("addr"), HeaderValue::from_static(header))]);
        routes.find(&ScopeIndex::default(), "", &headers).map(|scope| scope.name.to_string())
    }

    #[test]
    fn fragments_are_taken_by_place_or_by_key() {
        let header = HeaderName::from_static("addr");
        let by_key = Element::Value { key: "city".into(), separator: "=".into() };
        let of = |element| Fragment { header: Some(header.clone()), separator: ";".into(), element };
        let keyed = routes(vec![of(by_key)], &[("f", &["Freiburg"]), ("empty", &[""])]);
        assert_eq!(found(&keyed, "x=1;city=Freiburg;city=other"), Some("f".into()));
        assert_eq!(found(&keyed, "x=1;city"), Some("empty".into()));
        assert_eq!(found(&keyed, "x=1"), None);
        let placed = routes(vec![of(Element::Index(1)), of(Element::Index(0))], &[("ba", &["b", "a"])]);
        assert_eq!(found(&placed, "a;b"), Some("ba".into()));
        assert_eq!(found(&placed, "a"), None);
    }

    #[test]
    fn the_same_key_belongs_to_one_scope() {
        let mut index = routes(Vec::new(), &[("a", &["x", "yz"]), ("b", &["xy", "z"])]).scopes.unwrap();
        let other =
            Scope { name: "c".into(), key: ["x".into(), "yz".into()].into(), routes: ScopeTable::Named("t".into()) };
        assert_eq!(index.put(Arc::new(other.clone())), Err("a".into()));
        index.remove(&other);
        assert_eq!(index.iter().count(), 2, "another's key is not taken away");
    }
}
