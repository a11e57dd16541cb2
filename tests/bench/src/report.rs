//! Latencies and how they are told.

use serde_json::{Value, json};
use std::time::Duration;

/// Latencies of a run in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    /// Notes one.
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// How many were noted.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds another run's.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The run as JSON: requests, failures, rate and percentiles in microseconds.
    pub(crate) fn report(mut self, failed: usize, wall: Duration) -> Value {
        self.0.sort_unstable();
        let at = |per_mille: usize| {
            let last = self.0.len().checked_sub(1)?;
            self.0.get((self.0.len() * per_mille / 1000).min(last)).copied()
        };
        json!({
            "n": self.0.len(), "bad": failed, "rps": self.0.len() as f64 / wall.as_secs_f64(),
            "p50": at(500), "p90": at(900), "p99": at(990),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_list() {
        let mut latencies = Latencies::default();
        for micros in (1..=100).rev() {
            latencies.add(Duration::from_micros(micros));
        }
        let report = latencies.report(2, Duration::from_secs(10));
        assert_eq!(
            (report["n"].as_u64(), report["bad"].as_u64(), report["rps"].as_f64()),
            (Some(100), Some(2), Some(10.0))
        );
        assert_eq!((report["p50"].as_u64(), report["p99"].as_u64()), (Some(51), Some(100)));
        assert!(Latencies::default().report(0, Duration::from_secs(1))["p50"].is_null());
    }
}
