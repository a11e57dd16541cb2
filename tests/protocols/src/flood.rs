//! How large floods are, and an honest client beside them.

use crate::world::Probe;
use anyhow::{Context as _, Result};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// By how much floods are larger than in everyday's run: `TOMBOLO_FLOOD`.
#[must_use]
pub fn scale() -> usize {
    std::env::var("TOMBOLO_FLOOD").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// A client that asks all the time, one request after the other.
#[derive(Debug)]
pub struct Honest {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Calm>>,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub struct Calm {
    /// Requests that were answered, which are all of them.
    pub answered: usize,
    /// The longest that one took.
    pub slowest: Duration,
}

impl Honest {
    /// Begins.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn start(at: SocketAddr) -> Result<Self> {
        let mut probe = Probe::open(at).await?;
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut calm = Calm { answered: 0, slowest: Duration::ZERO };
            loop {
                let begun = Instant::now();
                probe.ask().await?;
                calm.answered += 1;
                calm.slowest = calm.slowest.max(begun.elapsed());
                let over = tokio::time::timeout(Duration::from_millis(2), &mut stopped).await.is_ok();
                if over {
                    return Ok(calm);
                }
            }
        });
        Ok(Self { stop, task })
    }

    /// Ends.
    ///
    /// # Errors
    /// When a request was not answered as it should be.
    pub async fn end(self) -> Result<Calm> {
        let _ = self.stop.send(());
        self.task.await.context("it broke")?
    }
}
