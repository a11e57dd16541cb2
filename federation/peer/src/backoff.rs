//! How long to wait before dialing again: full jitter, so that sites that lost the same peer do not come back at once.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// Waits that grow until something worked.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        wait(self.failures, RandomState::new().build_hasher().finish())
    }
}

/// Between the shortest wait and a ceiling that doubles with each failure.
fn wait(failures: u32, random: u64) -> Duration {
    let ceiling = SHORTEST.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST);
    let spread = u64::try_from((ceiling - SHORTEST).as_millis()).unwrap_or(0);
    SHORTEST + Duration::from_millis(random % (spread + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_between_the_bounds_and_grow() {
        for failures in 0..100 {
            for random in [0, 1, 12_345, u64::MAX] {
                let wait = wait(failures, random);
                assert!((SHORTEST..=LONGEST).contains(&wait), "{wait:?}");
            }
        }
        assert!(wait(1, 100_000_007) <= Duration::from_millis(400));
        assert!(wait(20, 4_799) > Duration::from_millis(4_900));
    }
}
