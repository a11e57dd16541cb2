//! Draining the process. Holding a guard is being alive.
//!
//! Owns the signal and the count, nothing else; listeners and connections are told by `listen`. Never cuts anything itself: whoever waits decides when patience ends.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// The signal and the count.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    /// Finish what you have, take nothing new.
    soft: CancellationToken,
    /// Time is up.
    hard: CancellationToken,
    alive: TaskTracker,
    /// Health checks are told that this gateway is not well.
    failing: Arc<AtomicBool>,
}

/// Held by whatever must be waited for.
#[derive(Debug)]
pub(crate) struct Guard(#[allow(dead_code, reason = "its drop is its use")] TaskTrackerToken);

impl Drain {
    /// The root.
    pub(crate) fn new() -> Self {
        let alive = TaskTracker::new();
        alive.close();
        Self { soft: CancellationToken::new(), hard: CancellationToken::new(), alive, failing: Arc::default() }
    }

    /// Keeps the process waiting.
    pub(crate) fn guard(&self) -> Guard {
        Guard(self.alive.token())
    }

    /// Asks everything below to finish.
    pub(crate) fn begin(&self) {
        self.soft.cancel();
    }

    /// Tells everything below that time is up.
    pub(crate) fn cut(&self) {
        self.hard.cancel();
    }

    /// Whether finishing was asked for.
    pub(crate) fn draining(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Whether health checks are to be told that this gateway is not well.
    pub(crate) fn failing(&self) -> bool {
        self.draining() || self.failing.load(Ordering::Relaxed)
    }

    /// Says what health checks are told.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// Resolves when finishing is asked for.
    pub(crate) fn begun(&self) -> impl Future<Output = ()> + use<> {
        self.soft.clone().cancelled_owned()
    }

    /// Resolves when time is up.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + use<> {
        self.hard.clone().cancelled_owned()
    }

    /// Resolves when nothing below is alive any more.
    pub(crate) async fn finished(&self) {
        self.alive.wait().await;
    }

    /// How many guards are held.
    pub(crate) fn alive(&self) -> usize {
        self.alive.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_for_guards() {
        let root = Drain::new();
        let guard = root.guard();
        root.begin();
        assert!(tokio::time::timeout(std::time::Duration::from_millis(5), root.finished()).await.is_err());
        drop(guard);
        root.finished().await;
    }
}
