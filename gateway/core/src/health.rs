//! Owns what the answers of active health checks mean: when an endpoint turns healthy or unhealthy, and when it is asked
//! again.
//!
//! One [`Checker`] for each endpoint that is checked, belonging to the task that asks. It writes the endpoint's marks;
//! whoever is told of a [`Turn::Changed`] makes a new plan. Never asks anybody itself and never reads a clock.

mod answer;

pub use answer::{Answer, grpc_answer, http_answer, received};

use crate::balance::{Health, HostState};
use crate::config::HealthCheck;
use crate::time::{Millis, Random, millis};
use std::time::Duration;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Good.
    Healthy,
    /// Good, but it wants to be taken after others.
    Degraded,
    /// It said that it is not good: that counts at once.
    Unhealthy,
    /// It said that it is not good right now: that counts when it goes on.
    Unready,
    /// It could not be asked.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
    /// It said in a response to an ordinary request that it wants to be left alone.
    ToldByItself,
}

impl Finding {
    /// For logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Finding::Healthy => "healthy",
            Finding::Degraded => "degraded",
            Finding::Unhealthy | Finding::Unready => "active",
            Finding::Unreachable => "network",
            Finding::TimedOut => "network_timeout",
            Finding::ToldByItself => "passive",
        }
    }
}

/// What a finding changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Same,
    /// Nothing yet: more of the same is needed.
    Pending,
    /// The endpoint's health.
    Changed,
}

/// What is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It turned unhealthy.
    Ejected,
    /// It turned healthy.
    Added,
    /// It turned degraded.
    Degraded,
    /// It is no longer degraded.
    NotDegraded,
    /// A check failed; only the first, or every one when that is asked for.
    Failed,
    /// A check was good, when that is asked for.
    Succeeded,
}

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What it changed.
    pub turn: Turn,
    /// Worth a line.
    pub event: Option<Event>,
    /// It was the first check of this endpoint.
    pub first: bool,
    /// When to ask again.
    pub wait: Duration,
}

/// The checks of one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Checker {
    first: bool,
    good: u32,
    bad: u32,
}

impl Default for Checker {
    fn default() -> Self {
        Self { first: true, good: 0, bad: 0 }
    }
}

impl Checker {
    /// How long to wait before the first check.
    #[must_use]
    pub fn begin(settings: &HealthCheck, random: u64) -> Duration {
        spread(Duration::ZERO, settings.initial_jitter, 0, random)
    }

    /// Takes what a check found. `used`: the cluster has had traffic.
    pub fn take(
        &mut self,
        settings: &HealthCheck,
        state: &HostState,
        finding: Finding,
        used: bool,
        now: Millis,
        random: u64,
    ) -> Step {
        let first = self.first;
        let (turn, event) = match finding {
            Finding::Healthy | Finding::Degraded => self.good(settings, state, finding == Finding::Degraded, now),
            Finding::Unhealthy
            | Finding::Unready
            | Finding::Unreachable
            | Finding::TimedOut
            | Finding::ToldByItself => self.bad(settings, state, finding, now),
        };
        self.first = false;
        let healthy = matches!(finding, Finding::Healthy | Finding::Degraded);
        let wait = interval(settings, healthy, turn == Turn::Pending, used);
        Step { turn, event, first, wait: spread(wait, settings.jitter, settings.jitter_percent, random) }
    }

    fn good(
        &mut self,
        settings: &HealthCheck,
        state: &HostState,
        degraded: bool,
        now: Millis,
    ) -> (Turn, Option<Event>) {
        self.bad = 0;
        let pending = state.is_unchecked();
        let was_degraded = state.is_degraded();
        if state.is_failed() {
            self.good += 1;
            // The first answer counts at once, so that a start does not take a threshold's time.
            if !self.first && self.good < settings.healthy_threshold {
                state.set_answered(degraded);
                return (if pending { Turn::Changed } else { Turn::Pending }, None);
            }
            self.good = 0;
            state.set_checked(if degraded { Health::Degraded } else { Health::Healthy }, now);
            return (Turn::Changed, Some(Event::Added));
        }
        state.set_answered(degraded);
        match (degraded, was_degraded) {
            (true, false) => (Turn::Changed, Some(Event::Degraded)),
            (false, true) => (Turn::Changed, Some(Event::NotDegraded)),
            _ if pending => (Turn::Changed, None),
            _ => (Turn::Same, settings.log_successes.then_some(Event::Succeeded)),
        }
    }

    fn bad(
        &mut self,
        settings: &HealthCheck,
        state: &HostState,
        finding: Finding,
        now: Millis,
    ) -> (Turn, Option<Event>) {
        self.good = 0;
        let pending = state.is_unchecked();
        if finding == Finding::ToldByItself {
            state.set_told_by_itself();
        } else {
            state.set_timed_out(finding == Finding::TimedOut);
        }
        let logged = (self.first || settings.log_failures).then_some(Event::Failed);
        if state.is_failed() {
            state.set_answered(state.is_degraded());
            return (if pending { Turn::Changed } else { Turn::Same }, logged);
        }
        self.bad += 1;
        let at_once = matches!(finding, Finding::Unhealthy | Finding::ToldByItself);
        if !at_once && self.bad < settings.unhealthy_threshold {
            return (Turn::Pending, logged);
        }
        self.bad = 0;
        state.set_checked(Health::Unhealthy, now);
        (Turn::Changed, Some(Event::Ejected))
    }
}

fn interval(settings: &HealthCheck, healthy: bool, pending: bool, used: bool) -> Duration {
    match (used, healthy, pending) {
        (false, true, false) => settings.no_traffic_healthy_interval,
        (false, _, _) => settings.no_traffic_interval,
        (true, true, false) => settings.interval,
        (true, true, true) => settings.healthy_edge_interval,
        (true, false, false) => settings.unhealthy_interval,
        (true, false, true) => settings.unhealthy_edge_interval,
    }
}

/// Adds what chance adds, so that a fleet does not ask in step.
fn spread(base: Duration, jitter: Duration, percent: u32, random: u64) -> Duration {
    let mut random = Random::new(random);
    let share = millis(base).saturating_mul(u64::from(percent)) / 100;
    let added = random.below(share) + random.below(millis(jitter));
    // Never without a pause: a check that fails at once would otherwise be a loop.
    if base.is_zero() { Duration::from_millis(added) } else { (base + Duration::from_millis(added)).max(MINIMUM) }
}

const MINIMUM: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::HostId;
    use crate::config::{HealthCheckKind, HealthStatus};

    fn settings() -> HealthCheck {
        let seconds = Duration::from_secs;
        HealthCheck {
            kind: HealthCheckKind::Tcp { send: None, receive: Box::default(), proxy: None },
            timeout: seconds(1),
            interval: seconds(10),
            no_traffic_interval: seconds(60),
            no_traffic_healthy_interval: seconds(70),
            unhealthy_interval: seconds(20),
            unhealthy_edge_interval: seconds(21),
            healthy_edge_interval: seconds(11),
            jitter: Duration::ZERO,
            jitter_percent: 0,
            initial_jitter: Duration::ZERO,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            reuse_connection: true,
            transport_criteria: None,
            alpn: Box::default(),
            log_failures: false,
            log_successes: false,
        }
    }

    struct Bench {
        checker: Checker,
        state: HostState,
    }

    impl Bench {
        fn new() -> Self {
            let state = HostState::new(HostId(1), Millis(0));
            state.set_unchecked();
            Self { checker: Checker::default(), state }
        }

        fn take(&mut self, finding: Finding) -> (Turn, Option<Event>, u64) {
            let step = self.checker.take(&settings(), &self.state, finding, true, Millis(5), 9);
            (step.turn, step.event, step.wait.as_secs())
        }

        fn health(&self) -> Health {
            self.state.health(HealthStatus::Unknown)
        }
    }

    #[test]
    fn the_first_answer_counts_at_once() {
        let mut bench = Bench::new();
        assert_eq!(bench.health(), Health::Unhealthy);
        assert_eq!(bench.take(Finding::Healthy), (Turn::Changed, Some(Event::Added), 10));
        assert_eq!(bench.health(), Health::Healthy);
        let mut bench = Bench::new();
        assert_eq!(bench.take(Finding::Unreachable), (Turn::Changed, Some(Event::Failed), 20));
        assert_eq!(bench.health(), Health::Unhealthy);
        assert_eq!(bench.take(Finding::Healthy), (Turn::Pending, None, 11));
        assert_eq!(bench.take(Finding::Healthy), (Turn::Changed, Some(Event::Added), 10));
    }

    #[test]
    fn what_cannot_be_asked_needs_a_run_and_what_says_no_does_not() {
        for finding in [Finding::Unreachable, Finding::TimedOut, Finding::Unready] {
            let mut bench = Bench::new();
            bench.take(Finding::Healthy);
            assert_eq!(bench.take(finding), (Turn::Pending, None, 21));
            assert_eq!(bench.take(Finding::Healthy), (Turn::Same, None, 10));
            assert_eq!(bench.take(finding), (Turn::Pending, None, 21));
            assert_eq!(bench.take(finding), (Turn::Pending, None, 21));
            assert_eq!(bench.take(finding), (Turn::Changed, Some(Event::Ejected), 20));
            assert_eq!(bench.take(finding), (Turn::Same, None, 20));
        }
        let mut bench = Bench::new();
        bench.take(Finding::Healthy);
        assert_eq!(bench.take(Finding::Unhealthy), (Turn::Changed, Some(Event::Ejected), 20));
        assert_eq!(bench.state.flags(HealthStatus::Unknown), "/failed_active_hc");
    }

    #[test]
    fn degraded_comes_and_goes() {
        let mut bench = Bench::new();
        assert_eq!(bench.take(Finding::Degraded), (Turn::Changed, Some(Event::Added), 10));
        assert_eq!(bench.health(), Health::Degraded);
        assert_eq!(bench.take(Finding::Degraded).0, Turn::Same);
        assert_eq!(bench.take(Finding::Healthy), (Turn::Changed, Some(Event::NotDegraded), 10));
        assert_eq!(bench.health(), Health::Healthy);
    }

    #[test]
    fn a_host_may_take_itself_out() {
        let mut bench = Bench::new();
        bench.take(Finding::Healthy);
        assert_eq!(bench.take(Finding::ToldByItself).0, Turn::Changed);
        assert!(bench.state.flags(HealthStatus::Unknown).contains("excluded_via_immediate_hc_fail"));
        bench.take(Finding::Healthy);
        bench.take(Finding::Healthy);
        assert_eq!(bench.state.flags(HealthStatus::Unknown), "healthy");
    }

    #[test]
    fn without_traffic_checks_are_rare() {
        let mut bench = Bench::new();
        let step = bench.checker.take(&settings(), &bench.state, Finding::Healthy, false, Millis(5), 9);
        assert_eq!(step.wait.as_secs(), 70);
        let step = bench.checker.take(&settings(), &bench.state, Finding::Unreachable, false, Millis(5), 9);
        assert_eq!(step.wait.as_secs(), 60);
        let jitter = HealthCheck { jitter_percent: 50, jitter: Duration::from_secs(1), ..settings() };
        let wait = bench.checker.take(&jitter, &bench.state, Finding::Healthy, true, Millis(5), 11).wait.as_secs_f64();
        assert!((10.0..16.0).contains(&wait), "{wait}");
    }
}
