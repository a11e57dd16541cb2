//! Owns how long an endpoint takes to answer: a peak that jumps up at once and comes down slowly.
//!
//! Two atomics, written by every worker. Two that write at the same time may lose one sample, never more: the next one
//! counts again.

use crate::config::PeakEwma;
use crate::time::{Millis, millis};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The latency of one endpoint.
#[derive(Debug, Default)]
pub struct Latency {
    /// Bits of microseconds; 0 when nothing is known.
    value: AtomicU64,
    at: AtomicU64,
}

impl Latency {
    /// Takes a sample.
    pub fn observe(&self, micros: u64, settings: &PeakEwma, now: Millis) {
        let sample = micros.max(1) as f64;
        let known = f64::from_bits(self.value.load(Relaxed));
        let value = if sample >= known {
            sample
        } else {
            let kept = self.kept(settings, now);
            known * kept + sample * (1.0 - kept)
        };
        self.value.store(value.to_bits(), Relaxed);
        self.at.store(now.0, Relaxed);
    }

    /// What the next answer is expected to take, in microseconds. What nobody measured for long fades, so that an
    /// endpoint that was slow once is tried again.
    pub(super) fn expected(&self, settings: &PeakEwma, now: Millis) -> f64 {
        let value = f64::from_bits(self.value.load(Relaxed));
        if value == 0.0 { settings.unknown.as_micros() as f64 } else { value * self.kept(settings, now) }
    }

    fn kept(&self, settings: &PeakEwma, now: Millis) -> f64 {
        let age = now.since(Millis(self.at.load(Relaxed))) as f64;
        (-age / millis(settings.decay).max(1) as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn peaks_count_at_once_and_fade() {
        let settings = PeakEwma { decay: Duration::from_secs(10), unknown: Duration::from_millis(30) };
        let latency = Latency::default();
        assert_eq!(latency.expected(&settings, Millis(0)), 30_000.0);
        latency.observe(1000, &settings, Millis(0));
        latency.observe(9000, &settings, Millis(0));
        assert_eq!(latency.expected(&settings, Millis(0)), 9000.0);
        assert!((latency.expected(&settings, Millis(10_000)) - 9000.0 / std::f64::consts::E).abs() < 1.0);
        latency.observe(1000, &settings, Millis(100_000));
        assert!(latency.expected(&settings, Millis(100_000)) < 1001.0);
    }
}
