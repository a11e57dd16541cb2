//! Metadata of requests: what a filter writes into it, and conditions on it.

use super::{Metadata, StringMatcher, Value};
use std::{collections::BTreeMap, sync::Arc};

/// What a filter writes (`set_metadata`), in order.
#[derive(Debug, Clone, PartialEq)]
pub struct SetMetadata {
    entries: Box<[MetadataEntry]>,
    /// What becomes of no metadata: nearly always there is none before.
    alone: Metadata,
}

/// Values for one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataEntry {
    /// The namespace.
    pub namespace: Arc<str>,
    /// A map.
    pub value: Value,
    /// Values that are there already are merged with these instead of kept as they are.
    pub merge: bool,
}

impl SetMetadata {
    /// Of these entries.
    #[must_use]
    pub fn new(entries: Box<[MetadataEntry]>) -> Self {
        let alone = written(&entries, BTreeMap::new());
        Self { entries, alone }
    }

    /// Writes.
    pub fn apply(&self, metadata: &mut Metadata) {
        *metadata = match &metadata.0 {
            None => self.alone.clone(),
            Some(before) => written(&self.entries, (**before).clone()),
        };
    }
}

fn written(entries: &[MetadataEntry], mut all: BTreeMap<Arc<str>, Value>) -> Metadata {
    for MetadataEntry { namespace, value, merge } in entries {
        match all.get_mut(namespace) {
            None => drop(all.insert(Arc::clone(namespace), value.clone())),
            Some(before) if *merge => update(before, value),
            Some(_) => {}
        }
    }
    Metadata((!all.is_empty()).then(|| Arc::new(all)))
}

/// As Envoy merges structures: maps member by member, lists one behind the other, of anything else the new one counts.
fn update(before: &mut Value, with: &Value) {
    match (&mut *before, with) {
        (Value::Map(old), Value::Map(new)) => {
            let old = Arc::make_mut(old);
            for (key, value) in new.iter() {
                match old.get_mut(key) {
                    Some(before) => update(before, value),
                    None => drop(old.insert(Arc::clone(key), value.clone())),
                }
            }
        }
        (Value::List(old), Value::List(new)) => *old = old.iter().chain(new.iter()).cloned().collect(),
        _ => *before = with.clone(),
    }
}

/// A condition on a value of metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatcher {
    /// Where: a namespace and the keys below.
    pub place: MetadataPlace,
    /// What is there.
    pub value: ValueMatcher,
    /// Anything else is there.
    pub invert: bool,
}

/// A place in metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataPlace {
    /// The namespace.
    pub namespace: Arc<str>,
    /// Keys, each below the one before.
    pub keys: Box<[Arc<str>]>,
}

impl MetadataPlace {
    /// What is there.
    #[must_use]
    pub fn find<'m>(&self, metadata: &'m Metadata) -> Option<&'m Value> {
        self.keys.iter().try_fold(metadata.namespace(&self.namespace)?, |value, key| value.get(key))
    }
}

impl MetadataMatcher {
    /// Whether it holds.
    #[must_use]
    pub fn fits(&self, metadata: &Metadata) -> bool {
        self.value.fits(self.place.find(metadata)) != self.invert
    }
}

/// A condition on a value.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatcher {
    /// It is null, which is not the same as absent.
    Null,
    /// A number, from this one up to, and without, that one; equal when both are.
    Number(f64, f64),
    /// A text.
    Text(StringMatcher),
    /// A truth value.
    Bool(bool),
    /// It is there; with `false` never, as in Envoy.
    Present(bool),
    /// A list with such an item.
    Item(Box<ValueMatcher>),
    /// One of these holds.
    One(Box<[ValueMatcher]>),
}

impl ValueMatcher {
    /// Whether it holds for what is at its place.
    #[must_use]
    pub fn fits(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::One(some), value) => some.iter().any(|one| one.fits(value)),
            (Self::Present(wanted), value) => *wanted && value.is_some(),
            (Self::Null, Some(Value::Null)) => true,
            (Self::Number(from, to), Some(Value::Number(number))) => {
                number == from && from == to || from <= number && number < to
            }
            (Self::Text(matcher), Some(Value::Text(text))) => matcher.fits(text.as_bytes()),
            (Self::Bool(wanted), Some(Value::Bool(truth))) => wanted == truth,
            (Self::Item(one), Some(Value::List(items))) => items.iter().any(|item| one.fits(Some(item))),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(members: &[(&str, Value)]) -> Value {
        Value::Map(Arc::new(members.iter().map(|(key, value)| (Arc::from(*key), value.clone())).collect()))
    }

    fn entry(merge: bool, members: &[(&str, Value)]) -> MetadataEntry {
        MetadataEntry { namespace: "a".into(), value: map(members), merge }
    }

    fn list(numbers: &[f64]) -> Value {
        Value::List(numbers.iter().map(|number| Value::Number(*number)).collect())
    }

    #[test]
    fn what_is_there_is_kept_or_merged() {
        let inner = |value: f64| map(&[("x", Value::Number(value)), ("y", Value::Bool(true))]);
        let first = entry(false, &[("k", Value::Text("1".into())), ("l", list(&[1.0])), ("m", inner(1.0))]);
        let kept = entry(false, &[("k", Value::Text("2".into()))]);
        let merged = entry(true, &[("k", Value::Number(3.0)), ("l", list(&[2.0])), ("m", map(&[("x", Value::Null)]))]);
        let mut metadata = Metadata::default();
        SetMetadata::new([first, kept].into()).apply(&mut metadata);
        assert_eq!(metadata.get("a", "k"), Some(&Value::Text("1".into())));
        SetMetadata::new([merged].into()).apply(&mut metadata);
        assert_eq!(metadata.get("a", "k"), Some(&Value::Number(3.0)));
        assert_eq!(metadata.get("a", "l"), Some(&list(&[1.0, 2.0])));
        assert_eq!(metadata.get("a", "m"), Some(&map(&[("x", Value::Null), ("y", Value::Bool(true))])));
    }

    #[test]
    fn conditions_hold_for_what_is_there() {
        let mut metadata = Metadata::default();
        let all = [("n", Value::Number(7.0)), ("t", Value::Bool(true)), ("z", Value::Null), ("l", list(&[1.0, 2.0]))];
        SetMetadata::new([entry(false, &all)].into()).apply(&mut metadata);
        let check = |key: &str, value: ValueMatcher, expect: bool| {
            let place = MetadataPlace { namespace: "a".into(), keys: [Arc::from(key)].into() };
            let mut matcher = MetadataMatcher { place, value, invert: false };
            assert_eq!(matcher.fits(&metadata), expect, "{matcher:?}");
            matcher.invert = true;
            assert_eq!(matcher.fits(&metadata), !expect, "{matcher:?}");
        };
        check("n", ValueMatcher::Number(7.0, 7.0), true);
        check("n", ValueMatcher::Number(1.0, 7.0), false);
        check("n", ValueMatcher::Number(7.0, 8.0), true);
        check("t", ValueMatcher::Bool(true), true);
        check("z", ValueMatcher::Null, true);
        check("none", ValueMatcher::Null, false);
        check("z", ValueMatcher::Present(true), true);
        check("none", ValueMatcher::Present(false), false);
        check("l", ValueMatcher::Item(Box::new(ValueMatcher::Number(2.0, 2.0))), true);
        check("l", ValueMatcher::One([ValueMatcher::Null, ValueMatcher::Present(true)].into()), true);
    }
}
