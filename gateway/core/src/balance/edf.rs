//! Owns weighted turns: earliest deadline first, where a pick moves an entry's deadline by the inverse of its weight.
//!
//! Belongs to one worker. Over any run each entry is picked in exact proportion to its weight, spread evenly. A pick is
//! O(log n) and allocates nothing.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug, Clone)]
struct Entry {
    deadline: f64,
    /// Breaks ties by who waits longest.
    order: u64,
    item: u32,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Reversed: the heap gives its greatest, which is to be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

/// A schedule of items.
#[derive(Debug, Clone, Default)]
pub(super) struct Edf {
    heap: BinaryHeap<Entry>,
    now: f64,
    order: u64,
}

impl Edf {
    /// A schedule of `items`, started somewhere in its cycle so that workers do not go in step.
    pub(super) fn new(items: impl Iterator<Item = u32>, weight: impl Fn(u32) -> f64, start: u64) -> Self {
        let mut edf = Self::default();
        for item in items {
            edf.add(item, weight(item));
        }
        let picks = if edf.heap.is_empty() { 0 } else { start % (2 * edf.heap.len() as u64) };
        for _ in 0..picks {
            edf.pick(&weight);
        }
        edf
    }

    fn add(&mut self, item: u32, weight: f64) {
        if weight > 0.0 {
            let deadline = self.now + 1.0 / weight;
            self.heap.push(Entry { deadline, order: self.order, item });
            self.order += 1;
        }
    }

    /// The next item. Its weight is asked for at this moment, so that changing weights count from its next turn on.
    pub(super) fn pick(&mut self, weight: impl Fn(u32) -> f64) -> Option<u32> {
        let mut first = self.heap.peek_mut()?;
        self.now = first.deadline;
        let item = first.item;
        // Written in place: one sift instead of a pop and a push.
        first.deadline = self.now + 1.0 / weight(item).max(f64::MIN_POSITIVE);
        first.order = self.order;
        self.order += 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_to_one_is_exact_and_spread() {
        let weight = |item: u32| if item == 0 { 3.0 } else { 1.0 };
        let mut edf = Edf::new(0..2, weight, 0);
        let picks: Vec<_> = (0..8).filter_map(|_| edf.pick(weight)).collect();
        assert_eq!(picks.iter().filter(|item| **item == 0).count(), 6);
        assert!(!picks.windows(5).any(|run| run.iter().all(|item| *item == 0)), "{picks:?}");
    }

    #[test]
    fn zero_weight_never_has_a_turn() {
        let weight = |item: u32| f64::from(item);
        let mut edf = Edf::new(0..2, weight, 7);
        assert!((0..10).all(|_| edf.pick(weight) == Some(1)));
        assert_eq!(Edf::new(0..1, |_| 0.0, 3).pick(|_| 0.0), None);
    }

    proptest! {
        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1u32..50, 1..12), start: u64) {
            let weight = |item: u32| f64::from(weights[item as usize]);
            let mut edf = Edf::new(0..weights.len() as u32, weight, start);
            let rounds = 20;
            let total: u32 = weights.iter().sum();
            let mut picked = vec![0u32; weights.len()];
            for _ in 0..total * rounds {
                picked[edf.pick(weight).unwrap() as usize] += 1;
            }
            for (count, weight) in picked.iter().zip(&weights) {
                prop_assert!(count.abs_diff(weight * rounds) <= 1 + rounds / 10, "{picked:?} for {weights:?}");
            }
        }
    }
}
