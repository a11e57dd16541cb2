//! A bucket of tokens that all workers share without a lock.

use crate::time::Millis;
use std::sync::atomic::{AtomicU64, Ordering};

/// Filled by intervals, emptied by requests. It is part of the settings it belongs to so that it lives exactly as long as they do:
/// settings that did not change keep their bucket when a new configuration is put into use.
#[derive(Debug)]
pub struct TokenBucket {
    max: u32,
    fill: u32,
    interval: u64,
    /// Upper half: the last interval that was filled for, plus one (0: never used). Lower half: tokens.
    state: AtomicU64,
}

// Two buckets are alike when their settings are: what is in them does not make settings differ.
impl PartialEq for TokenBucket {
    fn eq(&self, other: &Self) -> bool {
        (self.max, self.fill, self.interval) == (other.max, other.fill, other.interval)
    }
}

impl TokenBucket {
    /// A full bucket; `interval` in milliseconds.
    #[must_use]
    pub fn new(max: u32, fill: u32, interval: u64) -> Self {
        Self { max, fill, interval: interval.max(1), state: AtomicU64::new(u64::from(max)) }
    }

    /// Takes a token; `false` when there is none.
    pub fn take(&self, now: Millis) -> bool {
        let interval = (now.0 / self.interval).saturating_add(1) & 0xffff_ffff;
        let take = |state: u64| {
            let (last, tokens) = (state >> 32, state & 0xffff_ffff);
            let passed = if last == 0 { 0 } else { interval.saturating_sub(last) };
            let tokens = tokens.saturating_add(passed.saturating_mul(u64::from(self.fill))).min(u64::from(self.max));
            let left = tokens.checked_sub(1)?;
            Some((interval.max(last) << 32) | left)
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }
}
