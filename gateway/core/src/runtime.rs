//! Values that operators change while the gateway runs: the runtime layers of the control plane (RTDS) and of the
//! administrator, merged.
//!
//! Owns the lookup by key and what a value of a wrong shape means: it counts as absent, as in Envoy. Never keeps layers of
//! its own; `assemble` merges them. Used wherever a configuration names a runtime key.

use crate::config::{Fraction, Value};
use ahash::AHashMap;
use std::sync::Arc;

/// Structures deeper than this are not looked into.
const DEEPEST: usize = 16;

/// Merged values by key. Members of structures go by `outer.inner`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    values: AHashMap<Arc<str>, Value>,
}

impl Runtime {
    /// Merges layers; a later one wins.
    #[must_use]
    pub fn merged<'v>(layers: impl IntoIterator<Item = &'v Value>) -> Self {
        let mut values = AHashMap::default();
        for layer in layers {
            flatten("", layer, &mut values, 0);
        }
        Self { values }
    }

    /// True when nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Value)> {
        self.values.iter()
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        if self.values.is_empty() || key.is_empty() { None } else { self.values.get(key) }
    }

    /// A whole number that is not negative.
    #[must_use]
    pub fn integer(&self, key: &str, default: u64) -> u64 {
        self.number(key).filter(|n| *n >= 0.0 && n.fract() == 0.0).map_or(default, |n| n as u64)
    }

    /// A number.
    #[must_use]
    pub fn double(&self, key: &str, default: f64) -> f64 {
        self.number(key).unwrap_or(default)
    }

    /// A truth value.
    #[must_use]
    pub fn boolean(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            Some(Value::Bool(value)) => *value,
            Some(Value::Text(text)) => text.parse().unwrap_or(default),
            _ => default,
        }
    }

    /// The share as runtime says, or as it is written. A plain number is a percentage.
    #[must_use]
    pub fn share(&self, written: &Fraction) -> Fraction {
        let told = match self.get(&written.runtime_key) {
            None => None,
            Some(value @ Value::Map(_)) => fraction(value),
            Some(_) => self
                .number(&written.runtime_key)
                .filter(|n| *n >= 0.0 && n.fract() == 0.0)
                .map(|n| (n.min(f64::from(u32::MAX)) as u32, 100)),
        };
        match told {
            Some((numerator, denominator)) => {
                Fraction { numerator, denominator, runtime_key: Arc::clone(&written.runtime_key) }
            }
            None => written.clone(),
        }
    }

    /// Whether a random number falls into a share, as runtime says or as it is written.
    #[must_use]
    pub fn hit(&self, written: &Fraction, random: u64) -> bool {
        match self.get(&written.runtime_key) {
            None => written.hit(random),
            Some(_) => self.share(written).hit(random),
        }
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// `{numerator, denominator}` as a message of type `FractionalPercent` is written.
fn fraction(value: &Value) -> Option<(u32, u32)> {
    let numerator = match value.get("numerator") {
        Some(Value::Number(n)) if *n >= 0.0 => *n as u32,
        Some(_) => return None,
        None => 0,
    };
    let denominator = match value.get("denominator").map(Value::as_str) {
        None | Some(Some("HUNDRED")) => 100,
        Some(Some("TEN_THOUSAND")) => 10_000,
        Some(Some("MILLION")) => 1_000_000,
        Some(_) => return None,
    };
    Some((numerator, denominator))
}

fn flatten(prefix: &str, value: &Value, out: &mut AHashMap<Arc<str>, Value>, depth: usize) {
    let Value::Map(members) = value else { return };
    if depth > DEEPEST {
        return;
    }
    for (key, member) in members.iter() {
        let name = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
        // A fraction is one value, and nothing prevents a structure of two such keys from being looked into as well.
        if matches!(member, Value::Map(_)) {
            flatten(&name, member, out, depth + 1);
            if fraction(member).is_none() || !(member.get("numerator").is_some() || member.get("denominator").is_some())
            {
                continue;
            }
        }
        out.insert(name.into(), member.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn map(members: &[(&str, Value)]) -> Value {
        Value::Map(Arc::new(members.iter().map(|(k, v)| (Arc::from(*k), v.clone())).collect::<BTreeMap<_, _>>()))
    }

    #[test]
    fn later_layers_win_and_structures_are_looked_into() {
        let first =
            map(&[("a", map(&[("b", Value::Number(1.0)), ("c", Value::Bool(true))])), ("x", Value::Number(7.0))]);
        let second = map(&[("a.b", Value::Number(2.0))]);
        let runtime = Runtime::merged([&first, &second]);
        assert_eq!(runtime.integer("a.b", 0), 2);
        assert!(runtime.boolean("a.c", false));
        assert_eq!(runtime.integer("missing", 9), 9);
        assert_eq!(runtime.integer("a.c", 9), 9, "a truth value is no number");
    }

    #[test]
    fn shares_are_percentages_or_fractions() {
        let written = Fraction { numerator: 1, denominator: 100, runtime_key: "k".into() };
        let share = |value| {
            let told = Runtime::merged([&map(&[("k", value)])]).share(&written);
            (told.numerator, told.denominator)
        };
        assert_eq!(share(Value::Number(30.0)), (30, 100));
        let fraction = map(&[("numerator", Value::Number(5.0)), ("denominator", Value::Text("MILLION".into()))]);
        assert_eq!(share(fraction), (5, 1_000_000));
        assert_eq!(share(Value::Text("nonsense".into())), (1, 100));
        assert_eq!(Runtime::default().share(&written).numerator, 1);
    }
}
