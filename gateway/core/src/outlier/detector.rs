//! Owns the decision to eject and to readmit, for the hosts of one cluster.
//!
//! Belongs to one thread. Never counts requests: it reads the counters that workers fill.

use super::{Cause, Rate};
use crate::balance::{HostId, HostState};
use crate::config::OutlierDetection;
use crate::time::{Millis, Random, millis};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ejects and readmits the hosts of one cluster.
#[derive(Debug)]
pub struct Detector {
    settings: Arc<OutlierDetection>,
    hosts: BTreeMap<HostId, Tracked>,
    next_sweep: Millis,
}

#[derive(Debug)]
struct Tracked {
    state: Arc<HostState>,
    ejected_until: Option<Millis>,
    /// How often in close succession it was ejected; grows the time, shrinks with each quiet sweep.
    severity: u64,
}

impl Detector {
    /// A detector without hosts.
    #[must_use]
    pub fn new(settings: Arc<OutlierDetection>, now: Millis) -> Self {
        let next_sweep = now.after(millis(settings.interval));
        Self { settings, hosts: BTreeMap::new(), next_sweep }
    }

    /// The settings that workers record by.
    #[must_use]
    pub fn settings(&self) -> &Arc<OutlierDetection> {
        &self.settings
    }

    /// Replaces the settings; ejected hosts serve their time.
    pub fn configure(&mut self, settings: Arc<OutlierDetection>) {
        self.settings = settings;
    }

    /// Takes the present hosts in place of the former. Hosts that stay keep their record.
    pub fn hosts<'a>(&mut self, present: impl Iterator<Item = &'a Arc<HostState>>) {
        let mut former = std::mem::take(&mut self.hosts);
        for state in present {
            let tracked = former.remove(&state.id()).unwrap_or_else(|| Tracked {
                state: state.clone(),
                ejected_until: None,
                severity: 0,
            });
            self.hosts.insert(state.id(), tracked);
        }
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn next_tick(&self) -> Millis {
        self.next_sweep
    }

    /// Number of hosts that are ejected now.
    #[must_use]
    pub fn ejected(&self) -> usize {
        self.hosts.values().filter(|host| host.ejected_until.is_some()).count()
    }

    /// A worker saw a limit reached. Returns whether the host was ejected, which asks for a new plan.
    pub fn suspect(&mut self, host: HostId, cause: Cause, now: Millis, random: u64) -> bool {
        let mut random = Random::new(random);
        let Some(tracked) = self.hosts.get(&host) else { return false };
        tracked.state.outliers().forget_run(cause);
        self.eject(host, cause, now, &mut random)
    }

    /// Readmits a host before its time (an active health check passed). Returns whether it had been ejected.
    pub fn readmit(&mut self, host: HostId) -> bool {
        match self.hosts.get_mut(&host) {
            Some(tracked) if self.settings.uneject_on_healthy_check => tracked.readmit(),
            _ => false,
        }
    }

    /// Does what is due. Returns whether a host was ejected or readmitted, which asks for a new plan.
    pub fn tick(&mut self, now: Millis, random: u64) -> bool {
        if now < self.next_sweep {
            return false;
        }
        self.next_sweep = now.after(millis(self.settings.interval));
        let mut changed = false;
        for host in self.hosts.values_mut() {
            match host.ejected_until {
                Some(until) if until <= now => changed |= host.readmit(),
                Some(_) => {}
                None => host.severity = host.severity.saturating_sub(1),
            }
        }
        let mut random = Random::new(random);
        changed |= self.judge(|state| state.outliers().external.sample(), Origin::External, now, &mut random);
        if self.settings.split_external_local_origin {
            changed |= self.judge(|state| state.outliers().local.sample(), Origin::Local, now, &mut random);
        }
        changed
    }

    fn judge(
        &mut self,
        sample: impl Fn(&HostState) -> Sample,
        origin: Origin,
        now: Millis,
        random: &mut Random,
    ) -> bool {
        // What an ejected host still did is taken from its counters, but says nothing about the others.
        let samples: Vec<(HostId, Sample)> = self
            .hosts
            .values()
            .map(|host| (host, sample(&host.state)))
            .filter(|(host, _)| host.ejected_until.is_none())
            .map(|(host, sample)| (host.state.id(), sample))
            .collect();
        let mut changed = false;
        for host in self.below_mean(&samples) {
            changed |= self.eject(host, origin.success_rate(), now, random);
        }
        for host in self.too_many_failures(&samples) {
            changed |= self.eject(host, origin.failure_percentage(), now, random);
        }
        changed
    }

    fn below_mean(&self, samples: &[(HostId, Sample)]) -> Vec<HostId> {
        let settings = &self.settings;
        let rates = enough(samples, settings.success_rate_request_volume);
        if rates.is_empty() || rates.len() < settings.success_rate_minimum_hosts as usize {
            return Vec::new();
        }
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
        let threshold = mean - f64::from(settings.success_rate_stdev_factor) / 1000.0 * variance.sqrt();
        rates.into_iter().filter(|(_, rate)| *rate < threshold).map(|(host, _)| host).collect()
    }

    fn too_many_failures(&self, samples: &[(HostId, Sample)]) -> Vec<HostId> {
        let settings = &self.settings;
        let rates = enough(samples, settings.failure_percentage_request_volume);
        if rates.is_empty() || rates.len() < settings.failure_percentage_minimum_hosts as usize {
            return Vec::new();
        }
        let threshold = f64::from(settings.failure_percentage_threshold);
        rates.into_iter().filter(|(_, rate)| 100.0 - rate >= threshold).map(|(host, _)| host).collect()
    }

    fn eject(&mut self, host: HostId, cause: Cause, now: Millis, random: &mut Random) -> bool {
        let already = self.ejected();
        let count = self.hosts.len();
        let Some(tracked) = self.hosts.get_mut(&host) else { return false };
        if tracked.ejected_until.is_some() || !may_eject(&self.settings, already, count) {
            return false;
        }
        if !random.percent(enforcing(&self.settings, cause)) {
            return false;
        }
        let base = millis(self.settings.base_ejection);
        let longest = millis(self.settings.max_ejection).max(base);
        // One step beyond what counts, as in Envoy: who was ejected for the longest time stays suspect a sweep longer.
        if tracked.severity.saturating_mul(base) < longest.saturating_add(base) {
            tracked.severity += 1;
        }
        let time = tracked.severity.saturating_mul(base).min(longest);
        let jitter = random.below(millis(self.settings.max_ejection_jitter).saturating_add(1));
        tracked.ejected_until = Some(now.after(time).after(jitter));
        tracked.state.set_ejected(true);
        true
    }
}

/// A share of the hosts never means none at all where `always_eject_one` is set: otherwise a small cluster with the usual
/// ten percent would have no protection.
fn may_eject(settings: &OutlierDetection, already: usize, hosts: usize) -> bool {
    let share = 100.0 * (already + 1) as f64 / hosts.max(1) as f64;
    (already == 0 && settings.always_eject_one) || share <= f64::from(settings.max_ejection_percent.min(100))
}

impl Tracked {
    fn readmit(&mut self) -> bool {
        if self.ejected_until.take().is_none() {
            return false;
        }
        self.state.outliers().forget_runs();
        self.state.set_ejected(false);
        true
    }
}

fn enforcing(settings: &OutlierDetection, cause: Cause) -> u32 {
    match cause {
        Cause::Consecutive5xx => settings.enforcing_consecutive_5xx,
        Cause::ConsecutiveGatewayFailure => settings.enforcing_consecutive_gateway_failure,
        Cause::ConsecutiveLocalOriginFailure => settings.enforcing_consecutive_local_origin_failure,
        Cause::SuccessRate => settings.enforcing_success_rate,
        Cause::LocalOriginSuccessRate => settings.enforcing_local_origin_success_rate,
        Cause::FailurePercentage => settings.enforcing_failure_percentage,
        Cause::LocalOriginFailurePercentage => settings.enforcing_failure_percentage_local_origin,
    }
}

#[derive(Clone, Copy)]
enum Origin {
    External,
    Local,
}

impl Origin {
    fn success_rate(self) -> Cause {
        match self {
            Origin::External => Cause::SuccessRate,
            Origin::Local => Cause::LocalOriginSuccessRate,
        }
    }

    fn failure_percentage(self) -> Cause {
        match self {
            Origin::External => Cause::FailurePercentage,
            Origin::Local => Cause::LocalOriginFailurePercentage,
        }
    }
}

/// Requests and successes of one host in one interval.
#[derive(Debug, Clone, Copy)]
struct Sample {
    total: u32,
    success: u32,
}

impl Rate {
    fn sample(&self) -> Sample {
        let (total, success) = self.take();
        Sample { total, success }
    }
}

/// Hosts with enough requests, each with its success rate in percent.
fn enough(samples: &[(HostId, Sample)], volume: u32) -> Vec<(HostId, f64)> {
    let busy = samples.iter().filter(|(_, sample)| sample.total >= volume.max(1));
    busy.map(|(host, sample)| (*host, 100.0 * f64::from(sample.success) / f64::from(sample.total))).collect()
}
