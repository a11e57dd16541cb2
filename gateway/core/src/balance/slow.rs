//! Owns slow start: the weight of a fresh host grows until its window has passed.
//!
//! Arithmetic only.

use crate::config::SlowStart;
use crate::time::{Millis, millis};

/// The factor on the weight of a host that may get requests since `since`; 1 when it is not fresh.
pub(super) fn factor(settings: &SlowStart, since: Millis, now: Millis) -> f64 {
    let window = millis(settings.window);
    let age = now.since(since);
    if age >= window {
        return 1.0;
    }
    let grown = age.max(1) as f64 / window as f64;
    let grown = if settings.aggression == 1.0 { grown } else { grown.powf(1.0 / settings.aggression) };
    grown.max(settings.min_weight_percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn weight_grows_to_full() {
        let linear = SlowStart { window: Duration::from_secs(10), aggression: 1.0, min_weight_percent: 10.0 };
        let at = |settings: &SlowStart, ms: u64| factor(settings, Millis(1000), Millis(1000 + ms));
        assert_eq!(at(&linear, 0), 0.1);
        assert_eq!(at(&linear, 5000), 0.5);
        assert_eq!(at(&linear, 10_000), 1.0);
        let eager = SlowStart { aggression: 2.0, ..linear };
        assert!((at(&eager, 2500) - 0.5).abs() < 1e-9);
    }
}
