//! The process' monotonic clock in the pure crates' unit.
//!
//! Owns the origin: every thread counts from the same one, so that marks made by one are understood by another.

use std::{sync::OnceLock, time::Instant};
use tombolo_gateway_core::time::Millis;

/// The moment from which all are counted.
pub(crate) fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Now.
pub(crate) fn now() -> Millis {
    at(Instant::now())
}

/// A given moment.
pub(crate) fn at(instant: Instant) -> Millis {
    Millis(u64::try_from(instant.saturating_duration_since(origin()).as_millis()).unwrap_or(u64::MAX))
}
