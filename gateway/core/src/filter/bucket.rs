//! A bucket of tokens that all workers share without a lock.

use crate::time::Millis;
use std::sync::atomic::{AtomicU64, Ordering};

/// Later than any moment of a process: differences from it never go below zero.
const ORIGIN: u64 = 1 << 62;

/// Filled all the time, emptied by requests. It is part of the settings it belongs to so that it lives exactly as long as they do:
/// settings that did not change keep their bucket when a new configuration is put into use.
#[derive(Debug)]
pub struct TokenBucket {
    max: u32,
    /// Nanoseconds in which a token comes.
    each: u64,
    /// When the bucket was empty, as nanoseconds after the origin; 0: never used.
    empty: AtomicU64,
}

// Two buckets are alike when their settings are: what is in them does not make settings differ.
impl PartialEq for TokenBucket {
    fn eq(&self, other: &Self) -> bool {
        (self.max, self.each) == (other.max, other.each)
    }
}

impl TokenBucket {
    /// A full bucket that gets `fill` tokens evenly in each interval of so many milliseconds.
    #[must_use]
    pub fn new(max: u32, fill: u32, interval: u64) -> Self {
        let each = interval.max(1).saturating_mul(1_000_000) / u64::from(fill.max(1));
        Self { max, each: each.max(1), empty: AtomicU64::new(0) }
    }

    /// Another one of the same size that nobody took of.
    #[must_use]
    pub fn full_again(&self) -> Self {
        Self { max: self.max, each: self.each, empty: AtomicU64::new(0) }
    }

    /// Nanoseconds in which a token comes.
    pub(super) fn pace(&self) -> u64 {
        self.each
    }

    /// The most there can be.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Takes a token; `false` when there is none.
    pub fn take(&self, now: Millis) -> bool {
        let take = |empty: u64| {
            let base = self.base(empty, now);
            (Self::at(now) - base >= self.each && self.max > 0).then(|| base + self.each)
        };
        self.empty.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// How many there are.
    #[must_use]
    pub fn left(&self, now: Millis) -> u32 {
        let base = self.base(self.empty.load(Ordering::Acquire), now);
        u32::try_from((Self::at(now) - base) / self.each).unwrap_or(self.max).min(self.max)
    }

    /// Whole seconds until the next one comes; 0 when the bucket is full.
    #[must_use]
    pub fn wait(&self, now: Millis) -> u64 {
        if self.left(now) >= self.max {
            return 0;
        }
        let base = self.base(self.empty.load(Ordering::Acquire), now);
        let part = (Self::at(now) - base) % self.each;
        (self.each - part).div_ceil(1_000_000_000)
    }

    fn at(now: Millis) -> u64 {
        ORIGIN + now.0.saturating_mul(1_000_000).min(ORIGIN)
    }

    /// When the bucket was empty, seen from now: no earlier than what fills it.
    fn base(&self, empty: u64, now: Millis) -> u64 {
        let full = self.each.saturating_mul(u64::from(self.max)).min(ORIGIN);
        empty.max(Self::at(now) - full).min(Self::at(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_evenly() {
        let bucket = TokenBucket::new(4, 2, 1000);
        let now = Millis;
        assert_eq!((bucket.left(now(0)), bucket.wait(now(0))), (4, 0));
        for _ in 0..4 {
            assert!(bucket.take(now(0)));
        }
        assert_eq!((bucket.take(now(499)), bucket.wait(now(499))), (false, 1));
        assert!(bucket.take(now(500)) && !bucket.take(now(501)));
        assert_eq!(bucket.left(now(1600)), 2);
        assert_eq!(bucket.left(now(1_000_000)), 4);
        assert!(!TokenBucket::new(0, 1, 10).take(now(1000)), "an empty bucket stays empty");
    }
}
