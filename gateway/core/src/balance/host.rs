//! Owns one endpoint as the balancer sees it, and the state that outlives its updates.
//!
//! `HostState` is shared by all workers and consists of atomics. Never decides anything.

use super::ewma::Latency;
use crate::config::{Endpoint, EndpointAddress, HealthStatus};
use crate::outlier::Counters;
use crate::time::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Identity of an endpoint within its cluster: stays the same while its address is part of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u64);

/// Whether an endpoint gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// Yes.
    Healthy,
    /// When there are not enough healthy ones.
    Degraded,
    /// Only in panic.
    Unhealthy,
}

const EJECTED: u16 = 1;
const CHECK_FAILED: u16 = 1 << 1;
const CHECK_DEGRADED: u16 = 1 << 2;
const CHECK_PENDING: u16 = 1 << 3;
const CHECK_TIMEOUT: u16 = 1 << 4;
const TOLD_BY_ITSELF: u16 = 1 << 5;
const LEAVING: u16 = 1 << 6;
const ALL_CHECKS: u16 = CHECK_FAILED | CHECK_DEGRADED | CHECK_PENDING | CHECK_TIMEOUT | TOLD_BY_ITSELF;

/// What is known of an endpoint beside discovery. Shared by all workers, kept across updates.
#[derive(Debug)]
pub struct HostState {
    id: HostId,
    marks: AtomicU16,
    active: AtomicU32,
    connections: AtomicU32,
    since: AtomicU64,
    outliers: Counters,
    latency: Latency,
}

impl HostState {
    /// A host that was just discovered.
    #[must_use]
    pub fn new(id: HostId, now: Millis) -> Self {
        Self {
            id,
            marks: AtomicU16::new(0),
            active: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            since: AtomicU64::new(now.0),
            outliers: Counters::default(),
            latency: Latency::default(),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.id
    }

    /// What outlier detection counts.
    #[must_use]
    pub fn outliers(&self) -> &Counters {
        &self.outliers
    }

    /// How long it takes to answer.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Requests under way over all workers.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Connections open over all workers, as far as they are counted (see [`HostState::connect`]).
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Whether outlier detection took it out.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    /// Marks it; a new plan acts upon it.
    pub fn set_ejected(&self, ejected: bool) {
        self.mark(EJECTED, ejected);
    }

    /// Notes the result of active health checks; a new plan acts upon it. Becoming healthy starts slow start.
    pub fn set_checked(&self, health: Health, now: Millis) {
        let was_out = self.has(CHECK_FAILED | CHECK_PENDING);
        self.mark(CHECK_PENDING, false);
        self.mark(CHECK_FAILED, health == Health::Unhealthy);
        self.mark(CHECK_DEGRADED, health == Health::Degraded);
        if was_out && health != Health::Unhealthy {
            self.mark(CHECK_TIMEOUT | TOLD_BY_ITSELF, false);
            self.since.store(now.0, Relaxed);
        }
    }

    /// Says that no active health check has come back yet: it gets no requests until one does.
    pub fn set_unchecked(&self) {
        self.mark(CHECK_PENDING | CHECK_FAILED, true);
    }

    /// Whether it waits for its first active health check.
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.has(CHECK_PENDING)
    }

    /// Whether active health checks found it bad.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.has(CHECK_FAILED)
    }

    /// Whether active health checks found it degraded.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.has(CHECK_DEGRADED)
    }

    /// A check found out whether it waits, or is good but degraded.
    pub(crate) fn set_answered(&self, degraded: bool) {
        self.mark(CHECK_PENDING, false);
        self.mark(CHECK_DEGRADED, degraded);
    }

    /// Its last failure was one of time.
    pub(crate) fn set_timed_out(&self, timed_out: bool) {
        self.mark(CHECK_TIMEOUT, timed_out);
    }

    /// It asked in a response to be left alone: it does not count as one that ought to be healthy.
    pub(crate) fn set_told_by_itself(&self) {
        self.mark(TOLD_BY_ITSELF, true);
    }

    /// Whether it does not count when it is asked how many ought to be healthy.
    pub(super) fn is_excluded(&self, pending_too: bool) -> bool {
        self.has(TOLD_BY_ITSELF) || (pending_too && self.is_unchecked())
    }

    /// Nobody checks it any more: what checks had found does not count.
    pub fn forget_checks(&self) {
        self.mark(ALL_CHECKS, false);
    }

    /// Whether discovery does not name it any more and only its health keeps it.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.has(LEAVING)
    }

    /// Notes whether discovery names it.
    pub fn set_leaving(&self, leaving: bool) {
        self.mark(LEAVING, leaving);
    }

    /// Since when it may get requests.
    #[must_use]
    pub fn since(&self) -> Millis {
        Millis(self.since.load(Relaxed))
    }

    fn has(&self, marks: u16) -> bool {
        self.marks.load(Relaxed) & marks != 0
    }

    fn mark(&self, mark: u16, on: bool) {
        if on {
            self.marks.fetch_or(mark, Relaxed);
        } else {
            self.marks.fetch_and(!mark, Relaxed);
        }
    }

    /// Health from everything that is known, `told` by discovery included.
    #[must_use]
    pub fn health(&self, told: HealthStatus) -> Health {
        let marks = self.marks.load(Relaxed);
        let told_bad = matches!(told, HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout);
        if told_bad || marks & (EJECTED | CHECK_FAILED) != 0 {
            Health::Unhealthy
        } else if told == HealthStatus::Degraded || marks & CHECK_DEGRADED != 0 {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    /// All marks by the names that Envoy's administration interface has for them; `healthy` when there is none.
    #[must_use]
    pub fn flags(&self, told: HealthStatus) -> String {
        let marks = [
            (CHECK_FAILED, "/failed_active_hc"),
            (EJECTED, "/failed_outlier_check"),
            (CHECK_DEGRADED, "/degraded_active_hc"),
            (LEAVING, "/pending_dynamic_removal"),
            (CHECK_PENDING, "/pending_active_hc"),
            (TOLD_BY_ITSELF, "/excluded_via_immediate_hc_fail"),
            (CHECK_TIMEOUT, "/active_hc_timeout"),
        ];
        let mut text: String = marks.iter().filter(|(mark, _)| self.has(*mark)).map(|(_, name)| *name).collect();
        text.push_str(match told {
            HealthStatus::Unhealthy | HealthStatus::Timeout => "/failed_eds_health",
            HealthStatus::Draining => "/eds_status_draining",
            HealthStatus::Degraded => "/degraded_eds_health",
            HealthStatus::Unknown | HealthStatus::Healthy => "",
        });
        if text.is_empty() { "healthy".to_owned() } else { text }
    }

    /// Counts one connection until the guard is dropped; `None` when there are `most` already.
    #[must_use]
    pub fn connect(self: &Arc<Self>, most: u32) -> Option<Connected> {
        // Counting first and looking after keeps the limit exact when workers race; the loser gives back.
        let connected = Connected { state: self.clone() };
        (self.connections.fetch_add(1, Relaxed) < most).then_some(connected)
    }

    /// Counts one request until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.active.fetch_add(1, Relaxed);
        InFlight { state: self.clone() }
    }
}

/// One request under way at a host.
#[derive(Debug)]
pub struct InFlight {
    state: Arc<HostState>,
}

impl InFlight {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &Arc<HostState> {
        &self.state
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.active.fetch_sub(1, Relaxed);
    }
}

/// One connection to a host.
#[derive(Debug)]
pub struct Connected {
    state: Arc<HostState>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.state.connections.fetch_sub(1, Relaxed);
    }
}

/// One endpoint of a set.
#[derive(Debug, Clone)]
pub struct Host {
    /// As discovery told it.
    pub endpoint: Arc<Endpoint>,
    /// What else is known.
    pub state: Arc<HostState>,
    /// Its priority.
    pub priority: u32,
    /// Index of its locality within the priority.
    pub locality: u32,
}

impl Host {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.state.id
    }

    /// Whether it gets requests.
    #[must_use]
    pub fn health(&self) -> Health {
        self.state.health(self.endpoint.health)
    }

    /// Health as one word, from what checks found first and from what discovery told after.
    pub(super) fn status(&self) -> HealthStatus {
        match self.endpoint.health {
            _ if self.state.has(EJECTED | CHECK_FAILED) => HealthStatus::Unhealthy,
            told @ (HealthStatus::Unknown | HealthStatus::Healthy) => {
                if self.state.is_degraded() {
                    HealthStatus::Degraded
                } else {
                    told
                }
            }
            told => told,
        }
    }

    /// What rings and tables hash: the configured key, the host name when asked for, else the address.
    #[must_use]
    pub fn hash_key(&self, by_hostname: bool) -> String {
        let key = self.endpoint.metadata.get("envoy.lb", "hash_key").and_then(|key| key.as_str());
        match key {
            Some(key) if !key.is_empty() => key.to_owned(),
            _ if by_hostname && !self.endpoint.hostname.is_empty() => self.endpoint.hostname.to_string(),
            _ => address_text(&self.endpoint.address),
        }
    }
}

/// An address the way Envoy writes it.
pub(super) fn address_text(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Name(name, port) => format!("{name}:{port}"),
        EndpointAddress::Pipe(path) => path.to_string(),
        EndpointAddress::Internal(listener, id) => format!("envoy://{listener}/{id}"),
    }
}
