//! The checks of one endpoint: ask, judge, tell, wait.
//!
//! Owns the connection between two checks. Ends only by being aborted.

use super::{Around, Checked, connection::Probe};
use crate::{clock, upstream::keeper::Life};
use std::sync::Arc;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use tombolo_gateway_core::{
    balance::HostState,
    config::{Cluster, Endpoint, EndpointAddress, HealthCheck},
    health::{Checker, Event, Finding, Step, Turn},
};

/// One endpoint and how it is checked.
pub(super) struct Session {
    pub(super) around: Around,
    pub(super) cluster: Arc<Cluster>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) state: Arc<HostState>,
    pub(super) life: Arc<Life>,
    pub(super) nudge: Arc<Notify>,
    pub(super) tell: mpsc::Sender<Checked>,
}

impl Session {
    /// Checks until nobody wants it any more.
    pub(super) async fn run(self) {
        let Some(settings) = self.cluster.health_check.clone() else { return };
        let mut checker = Checker::default();
        let mut probe = Probe::new(&self.around, &self.cluster, &self.endpoint, &settings);
        sleep(Checker::begin(&settings, rand::random())).await;
        loop {
            let finding = match timeout(settings.timeout, probe.ask()).await {
                Ok(finding) => finding,
                Err(_) => {
                    probe.close();
                    Finding::TimedOut
                }
            };
            let step = self.judge(&mut checker, &settings, finding);
            if !self.report(finding, step).await {
                return;
            }
            let next = Instant::now() + step.wait;
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    () = self.nudge.notified() => {
                        let step = self.judge(&mut checker, &settings, Finding::ToldByItself);
                        if !self.report(Finding::ToldByItself, step).await {
                            return;
                        }
                    }
                }
            }
        }
    }

    fn judge(&self, checker: &mut Checker, settings: &HealthCheck, finding: Finding) -> Step {
        let used = self.life.is_used();
        let step = checker.take(settings, &self.state, finding, used, clock::now(), rand::random());
        if let Some(event) = step.event {
            self.log(event, finding, step.first);
        }
        step
    }

    fn log(&self, event: Event, finding: Finding, first: bool) {
        let (cluster, reason) = (&self.cluster.name, finding.word());
        let host = match &self.endpoint.address {
            EndpointAddress::Socket(address) => address.to_string(),
            other => format!("{other:?}"),
        };
        match event {
            Event::Ejected => tracing::info!(%cluster, host, reason, first, "endpoint failed its health checks"),
            Event::Added => tracing::info!(%cluster, host, first, "endpoint is healthy"),
            Event::Degraded => tracing::info!(%cluster, host, "endpoint is degraded"),
            Event::NotDegraded => tracing::info!(%cluster, host, "endpoint is no longer degraded"),
            Event::Failed => tracing::info!(%cluster, host, reason, first, "health check failed"),
            Event::Succeeded => tracing::info!(%cluster, host, "health check was good"),
        }
    }

    /// False when nobody listens any more.
    async fn report(&self, finding: Finding, step: Step) -> bool {
        let good = matches!(finding, Finding::Healthy | Finding::Degraded);
        let changed = step.turn == Turn::Changed;
        if !(changed || step.first || (good && self.state.is_ejected())) {
            return true;
        }
        let checked =
            Checked { cluster: self.cluster.name.clone(), host: self.state.id(), good, changed, first: step.first };
        self.tell.send(checked).await.is_ok()
    }
}
