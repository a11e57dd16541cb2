//! Owns outlier detection: which hosts behave so badly that they get no requests for a while.
//!
//! Two halves. `Counters` belong to a host, are shared by all workers and only count: `record` is on the request path and
//! costs a few relaxed atomics. `Detector` belongs to one control thread: it is told of suspects, is asked to `tick`, and
//! alone ejects and readmits. Never takes a host out of a list itself: it sets the host's mark, and `balance` makes a new
//! plan without it. Never reads a clock.

mod detector;
#[cfg(test)]
mod tests;

pub use detector::Detector;

use crate::config::OutlierDetection;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What became of one try, as far as the host is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered with this status.
    Status(u16),
    /// The host could not be reached.
    ConnectFailed,
    /// The host was reached (TCP: the session began).
    Connected,
    /// The host was reached and did not answer in time.
    TimedOut,
    /// The connection or stream broke before there was an answer.
    Reset,
}

/// Why a host is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// 5xx in a row.
    Consecutive5xx,
    /// Gateway failures in a row.
    ConsecutiveGatewayFailure,
    /// Local origin failures in a row.
    ConsecutiveLocalOriginFailure,
    /// Far fewer successes than others.
    SuccessRate,
    /// The same by local origin.
    LocalOriginSuccessRate,
    /// Too large a share of failures.
    FailurePercentage,
    /// The same by local origin.
    LocalOriginFailurePercentage,
}

/// What one host is measured by. Shared between workers.
#[derive(Debug, Default)]
pub struct Counters {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    external: Rate,
    local: Rate,
}

#[derive(Debug, Default)]
struct Rate {
    total: AtomicU32,
    success: AtomicU32,
}

impl Rate {
    fn count(&self, success: bool) {
        self.total.fetch_add(1, Relaxed);
        if success {
            self.success.fetch_add(1, Relaxed);
        }
    }

    /// The counts of the interval that ends now.
    fn take(&self) -> (u32, u32) {
        (self.total.swap(0, Relaxed), self.success.swap(0, Relaxed))
    }
}

impl Counters {
    /// Counts one outcome. `Some` means that a limit was reached just now: tell the detector, once.
    #[inline]
    pub fn record(&self, settings: &OutlierDetection, outcome: Outcome) -> Option<Cause> {
        match outcome {
            Outcome::Status(status) => {
                if settings.split_external_local_origin {
                    self.local_success();
                }
                self.status(settings, status)
            }
            Outcome::Connected if settings.split_external_local_origin => {
                self.local_success();
                None
            }
            // All there is to say of a TCP session: as good as an answer.
            Outcome::Connected => self.status(settings, 200),
            _ if settings.split_external_local_origin => self.local_failure(settings),
            Outcome::ConnectFailed | Outcome::Reset => self.status(settings, 503),
            Outcome::TimedOut => self.status(settings, 504),
        }
    }

    fn status(&self, settings: &OutlierDetection, status: u16) -> Option<Cause> {
        let failed = status >= 500;
        self.external.count(!failed);
        if !failed {
            reset(&self.consecutive_5xx);
            reset(&self.consecutive_gateway);
            return None;
        }
        let mut cause = None;
        if matches!(status, 502..=504) {
            if bump(&self.consecutive_gateway) == settings.consecutive_gateway_failure {
                cause = Some(Cause::ConsecutiveGatewayFailure);
            }
        } else {
            reset(&self.consecutive_gateway);
        }
        if bump(&self.consecutive_5xx) == settings.consecutive_5xx {
            // The commoner finding wins where both are reached at once and the other is not acted upon.
            let gateway_acts = cause.is_some() && settings.enforcing_consecutive_gateway_failure > 0;
            cause = if gateway_acts { cause } else { Some(Cause::Consecutive5xx) };
        }
        cause
    }

    fn local_success(&self) {
        self.local.count(true);
        reset(&self.consecutive_local);
    }

    fn local_failure(&self, settings: &OutlierDetection) -> Option<Cause> {
        self.local.count(false);
        (bump(&self.consecutive_local) == settings.consecutive_local_origin_failure)
            .then_some(Cause::ConsecutiveLocalOriginFailure)
    }

    fn forget_runs(&self) {
        reset(&self.consecutive_5xx);
        reset(&self.consecutive_gateway);
        reset(&self.consecutive_local);
    }

    fn forget_run(&self, cause: Cause) {
        match cause {
            Cause::Consecutive5xx => reset(&self.consecutive_5xx),
            Cause::ConsecutiveGatewayFailure => reset(&self.consecutive_gateway),
            Cause::ConsecutiveLocalOriginFailure => reset(&self.consecutive_local),
            Cause::SuccessRate
            | Cause::LocalOriginSuccessRate
            | Cause::FailurePercentage
            | Cause::LocalOriginFailurePercentage => {}
        }
    }
}

fn bump(cell: &AtomicU32) -> u32 {
    cell.fetch_add(1, Relaxed).saturating_add(1)
}

/// Writes only when there is something to forget: the common success leaves the cache line shared between cores.
fn reset(cell: &AtomicU32) {
    if cell.load(Relaxed) != 0 {
        cell.store(0, Relaxed);
    }
}
