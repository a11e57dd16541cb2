//! Owns the Maglev table: each host fills slots by its own permutation, in turns by weight.
//!
//! Immutable and shared. Slot by slot the table that Envoy computes.

use super::ring::Weighted;
use xxhash_rust::xxh64::xxh64;

/// A table.
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Slots,
}

/// Hosts by slot: most clusters have few hosts, and a table has at least 65537 slots.
#[derive(Debug)]
enum Slots {
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

struct Turn {
    host: u32,
    offset: u64,
    skip: u64,
    next: u64,
    weight: f64,
    target: f64,
}

impl Turn {
    fn slot(&self, size: u64) -> usize {
        (u128::from(self.offset) + u128::from(self.skip) * u128::from(self.next)).rem_euclid(u128::from(size)) as usize
    }
}

impl Maglev {
    pub(super) fn new(hosts: &[Weighted], size: u64) -> Self {
        const EMPTY: u32 = u32::MAX;
        if hosts.is_empty() || size < 2 {
            return Self { slots: Slots::Narrow(Box::default()) };
        }
        let heaviest = hosts.iter().map(|host| host.share).fold(0.0, f64::max);
        let mut sorted: Vec<&Weighted> = hosts.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let mut turns: Vec<Turn> = sorted.into_iter().map(|host| turn(host, size)).collect();
        let mut slots = vec![EMPTY; size as usize];
        let mut filled = 0;
        let mut round = 0.0;
        while filled < size {
            round += 1.0;
            for turn in &mut turns {
                if filled == size {
                    break;
                }
                // A host of a third of the heaviest weight takes part in every third round.
                if round * turn.weight < turn.target {
                    continue;
                }
                turn.target += heaviest;
                while slots[turn.slot(size)] != EMPTY {
                    turn.next += 1;
                }
                slots[turn.slot(size)] = turn.host;
                turn.next += 1;
                filled += 1;
            }
        }
        let narrow: Option<Box<[u16]>> = slots.iter().map(|host| u16::try_from(*host).ok()).collect();
        Self { slots: narrow.map_or_else(|| Slots::Wide(slots.into()), Slots::Narrow) }
    }

    /// The host of `hash`; further attempts look elsewhere in the table.
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<u32> {
        // All high bits change with each attempt, so that retries of one host do not all land on one other.
        let hash = if attempt == 0 { hash } else { hash ^ (u64::MAX - u64::from(attempt) + 1) };
        match &self.slots {
            Slots::Narrow(slots) if slots.is_empty() => None,
            Slots::Narrow(slots) => Some(u32::from(slots[(hash % slots.len() as u64) as usize])),
            Slots::Wide(slots) => Some(slots[(hash % slots.len() as u64) as usize]),
        }
    }
}

fn turn(host: &Weighted, size: u64) -> Turn {
    let key = host.key.as_bytes();
    Turn {
        host: host.host,
        offset: xxh64(key, 0) % size,
        skip: xxh64(key, 1) % (size - 1) + 1,
        next: 0,
        weight: host.share,
        target: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(weights: &[f64]) -> Vec<Weighted> {
        let total: f64 = weights.iter().sum();
        let host = |(i, weight): (usize, &f64)| Weighted {
            host: i as u32,
            key: format!("10.0.0.{i}:80"),
            share: weight / total,
        };
        weights.iter().enumerate().map(host).collect()
    }

    fn count(table: &Maglev, size: u64, host: u32) -> usize {
        (0..size).filter(|slot| table.pick(*slot, 0) == Some(host)).count()
    }

    #[test]
    fn slots_follow_weights() {
        let table = Maglev::new(&hosts(&[1.0, 1.0, 2.0]), 251);
        let counts = [0, 1, 2].map(|host| count(&table, 251, host));
        assert_eq!(counts.iter().sum::<usize>(), 251);
        assert!(counts[2].abs_diff(counts[0] * 2) <= 2, "{counts:?}");
        assert_eq!(Maglev::new(&[], 251).pick(9, 0), None);
    }

    #[test]
    fn losing_a_host_moves_little_else() {
        let all = Maglev::new(&hosts(&[1.0; 5]), 251);
        let four = Maglev::new(&hosts(&[1.0; 5])[..4], 251);
        let moved = (0..251).filter(|s| all.pick(*s, 0) != Some(4) && all.pick(*s, 0) != four.pick(*s, 0)).count();
        assert!(moved < 60, "{moved} of 251 slots moved");
    }
}
