//! Owns the time between tries.
//!
//! Arithmetic only.

use crate::config::BackOff;
use crate::time::{Random, millis};

/// Exponential growth with full jitter: any time from 0 up to a bound that doubles with each wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BackOffs {
    waits: u32,
}

impl BackOffs {
    /// The next wait in milliseconds.
    pub(super) fn next(&mut self, settings: &BackOff, random: &mut Random) -> u64 {
        let base = millis(settings.base).max(1);
        let doubled = base.saturating_mul(1u64.checked_shl(self.waits).unwrap_or(u64::MAX));
        self.waits += 1;
        random.below(doubled.min(millis(settings.max).max(base)))
    }
}

/// At least what the server asked for and up to half as much more, so that its clients do not all come back at once.
pub(super) fn rate_limited(at_least: u64, random: &mut Random) -> u64 {
    at_least.saturating_add(random.below(at_least / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waits_grow_up_to_the_maximum_and_use_their_whole_range() {
        let settings = BackOff { base: Duration::from_millis(25), max: Duration::from_millis(100) };
        let mut random = Random::new(3);
        let mut most = [0; 4];
        for _ in 0..2000 {
            let mut waits = BackOffs::default();
            most = most.map(|seen| waits.next(&settings, &mut random).max(seen));
        }
        assert_eq!(most, [24, 49, 99, 99]);
        assert_eq!(BackOffs { waits: 200 }.next(&BackOff { max: Duration::ZERO, ..settings }, &mut random) / 25, 0);
    }

    #[test]
    fn a_server_is_never_asked_too_early() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| (1000..1500).contains(&rate_limited(1000, &mut random))));
        assert_eq!(rate_limited(1, &mut random), 1);
    }
}
