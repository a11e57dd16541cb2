//! One peer for as long as it is configured: from stream to stream.

use crate::{
    LocalSite, PeerEvent, PeerState, Settings,
    backoff::Backoff,
    dial::{DialError, dial},
    intake::Intake,
    session::{self, Around, Ended},
    state::Link,
    wire::Wire,
};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the owner wants of the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Go on.
    #[default]
    Run,
    /// End; what was read stays.
    Leave,
    /// End; what was read goes.
    Withdraw,
}

pub(crate) struct Exchange {
    pub(crate) settings: Settings,
    /// Larger than that of every earlier exchange with the same peer.
    pub(crate) epoch: u64,
    pub(crate) local: LocalSite,
    /// Streams that the peer dialed.
    pub(crate) incoming: mpsc::Receiver<Wire>,
    pub(crate) out: mpsc::Sender<PeerEvent>,
    pub(crate) state: watch::Sender<PeerState>,
    pub(crate) stop: watch::Receiver<Order>,
}

impl Exchange {
    pub(crate) async fn run(mut self) {
        let mut intake = Intake::new(self.settings.clone(), self.epoch);
        self.exchange(&mut intake).await;
        if *self.stop.borrow() == Order::Withdraw {
            intake.withdraw();
            while let Some(event) = intake.events.pop_front() {
                if self.out.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn exchange(&mut self, intake: &mut Intake) {
        let mut backoff = Backoff::default();
        let mut wait = Duration::ZERO;
        let mut next = None;
        loop {
            let wire = match next.take() {
                Some(wire) => wire,
                None => match self.obtain(intake, wait).await {
                    Ok(Some(wire)) => wire,
                    Ok(None) => return,
                    Err(error) => {
                        wait = backoff.next();
                        let refused = matches!(error, DialError::Refused(_));
                        self.note(intake, if refused { Link::Refused } else { Link::Connecting }, error.to_string());
                        continue;
                    }
                },
            };
            let around = Around {
                settings: &self.settings,
                local: &mut self.local,
                intake,
                incoming: &mut self.incoming,
                out: &self.out,
                state: &self.state,
                stop: &mut self.stop,
            };
            let (ended, greeted) = session::run(around, wire).await;
            if greeted {
                backoff.reset();
            }
            wait = backoff.next();
            match ended {
                Ended::Stopped => return,
                Ended::Lost(reason) => self.note(intake, Link::Connecting, reason),
                Ended::Refused(reason) => self.note(intake, Link::Refused, reason),
                Ended::Replaced(wire) => next = Some(*wire),
            }
        }
    }

    fn note(&self, intake: &mut Intake, link: Link, reason: String) {
        if intake.state.reason != reason {
            tracing::warn!(peer = %self.settings.name, "no stream: {reason}");
        }
        intake.state.link = link;
        intake.state.reason = reason;
        self.state.send_replace(intake.state.clone());
    }

    /// Waits for the peer to dial, and dials it where it has an address; meanwhile hands over what was read before.
    /// `None`: the task is to end.
    async fn obtain(&mut self, intake: &mut Intake, wait: Duration) -> Result<Option<Wire>, DialError> {
        let dialing = async {
            let Some(address) = &self.settings.dial else { return std::future::pending().await };
            tokio::time::sleep(wait).await;
            dial(address, &self.settings, &self.local).await
        };
        tokio::pin!(dialing);
        loop {
            tokio::select! {
                _ = self.stop.changed() => return Ok(None),
                room = self.out.reserve(), if !intake.events.is_empty() => match (room, intake.events.pop_front()) {
                    (Ok(room), Some(event)) => room.send(event),
                    (Ok(_), None) => {}
                    (Err(_), _) => return Ok(None),
                },
                wire = self.incoming.recv() => return Ok(wire),
                dialed = &mut dialing => return dialed.map(Some),
            }
        }
    }
}
