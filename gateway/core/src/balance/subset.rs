//! Owns subsets: groups of endpoints by metadata, and which group a request's criteria lead to.
//!
//! Immutable and shared. A lookup hashes the criteria once and allocates nothing, except for fallbacks by fewer keys.

use super::host::Host;
use crate::config::{MetadataMatch, SubsetFallback, SubsetSelector, SubsetSettings, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const NAMESPACE: &str = "envoy.lb";
const FALLBACK_LIST: &str = "fallback_list";

type Pair = (Arc<str>, Value);

/// Groups by their criteria. Groups are numbered by the plan.
#[derive(Debug)]
pub(super) struct Subsets {
    settings: Arc<SubsetSettings>,
    groups: HashMap<MetadataMatch, u32, ahash::RandomState>,
    /// Number of the default subset's group.
    default: Option<u32>,
}

/// The members of each group that selectors make.
pub(super) fn members(settings: &SubsetSettings, hosts: &[Host]) -> BTreeMap<Vec<(Arc<str>, Ordered)>, Vec<u32>> {
    let mut groups: BTreeMap<Vec<(Arc<str>, Ordered)>, Vec<u32>> = BTreeMap::new();
    for (index, host) in hosts.iter().enumerate() {
        for selector in &settings.selectors {
            for criteria in criteria_of(selector, host, settings.list_as_any) {
                let group = groups.entry(criteria).or_default();
                // Two selectors of the same keys would name a host twice; where a subset is one host the first counts.
                let taken = selector.single_host && !group.is_empty();
                if !taken && group.last() != Some(&(index as u32)) {
                    group.push(index as u32);
                }
            }
        }
    }
    groups
}

/// A value with an order of its own kind, so that groups are numbered the same way every time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ordered(pub(super) Value);

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (&self.0, &other.0) {
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) if a == b => std::cmp::Ordering::Equal,
            // Lists, maps and mixed kinds are rare as subset values; their debug form differs when they do.
            (a, b) => format!("{a:?}").cmp(&format!("{b:?}")),
        }
    }
}

fn criteria_of(selector: &SubsetSelector, host: &Host, list_as_any: bool) -> Vec<Vec<(Arc<str>, Ordered)>> {
    let mut found = vec![Vec::with_capacity(selector.keys.len())];
    for key in &selector.keys {
        let Some(value) = host.endpoint.metadata.get(NAMESPACE, key) else { return Vec::new() };
        let values = match value {
            Value::List(items) if list_as_any => items.iter().collect(),
            other => vec![other],
        };
        found = values
            .into_iter()
            .flat_map(|value| {
                found.iter().map(|criteria| {
                    let mut longer = criteria.clone();
                    longer.push((key.clone(), Ordered(value.clone())));
                    longer
                })
            })
            .collect();
    }
    found
}

/// Whether an endpoint has all of these values.
pub(super) fn matches(criteria: &[Pair], host: &Host, list_as_any: bool) -> bool {
    criteria.iter().all(|(key, wanted)| match host.endpoint.metadata.get(NAMESPACE, key) {
        Some(Value::List(items)) if list_as_any => items.contains(wanted),
        found => found == Some(wanted),
    })
}

/// Whether an endpoint is marked as canary.
pub(super) fn is_canary(host: &Host) -> bool {
    host.endpoint.metadata.get(NAMESPACE, "canary") == Some(&Value::Bool(true))
}

impl Subsets {
    pub(super) fn new(
        settings: &Arc<SubsetSettings>,
        groups: HashMap<MetadataMatch, u32, ahash::RandomState>,
        default: Option<u32>,
    ) -> Self {
        Self { settings: settings.clone(), groups, default }
    }

    /// The group that is asked when a group that was found has nobody to offer.
    pub(super) fn last_resort(&self, whole: u32) -> Option<u32> {
        self.settings.panic_mode_any.then_some(whole)
    }

    /// The group for a request. `None`: there is none, and no fallback either.
    pub(super) fn find(&self, criteria: Option<&[Pair]>, whole: u32) -> Option<u32> {
        let criteria = criteria.unwrap_or_default();
        if self.settings.fallback_list
            && let Some((_, Value::List(alternatives))) = criteria.iter().find(|(key, _)| &**key == FALLBACK_LIST)
        {
            return self.first_of(criteria, alternatives, whole);
        }
        self.exact(criteria).or_else(|| self.fallback(criteria, whole))
    }

    fn exact(&self, criteria: &[Pair]) -> Option<u32> {
        if criteria.is_empty() { None } else { self.groups.get(criteria).copied() }
    }

    fn fallback(&self, criteria: &[Pair], whole: u32) -> Option<u32> {
        let same_keys = |selector: &&SubsetSelector| {
            selector.fallback.is_some() && selector.keys.iter().eq(criteria.iter().map(|(key, _)| key))
        };
        let selector = self.settings.selectors.iter().find(same_keys);
        match selector.and_then(|selector| selector.fallback).unwrap_or(self.settings.fallback) {
            SubsetFallback::None => None,
            SubsetFallback::Any => Some(whole),
            SubsetFallback::Default => self.default,
            SubsetFallback::Keys => {
                let keys = &selector?.fallback_keys;
                let fewer: Vec<Pair> = criteria.iter().filter(|(key, _)| keys.contains(key)).cloned().collect();
                // Fewer keys each time, so this ends.
                if fewer.len() == criteria.len() {
                    return None;
                }
                self.exact(&fewer).or_else(|| self.fallback(&fewer, whole))
            }
        }
    }

    fn first_of(&self, criteria: &[Pair], alternatives: &[Value], whole: u32) -> Option<u32> {
        let base: BTreeMap<Arc<str>, Value> =
            criteria.iter().filter(|(key, _)| &**key != FALLBACK_LIST).cloned().collect();
        let merged = |alternative: &Value| -> Vec<Pair> {
            let mut all = base.clone();
            if let Value::Map(more) = alternative {
                all.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            all.into_iter().collect()
        };
        let mut tried = Vec::new();
        for alternative in alternatives {
            tried = merged(alternative);
            if let Some(group) = self.exact(&tried) {
                return Some(group);
            }
        }
        self.fallback(&tried, whole)
    }
}
