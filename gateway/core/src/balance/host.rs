//! Owns one endpoint as the balancer sees it, and the state that outlives its updates.
//!
//! `HostState` is shared by all workers and consists of atomics. Never decides anything.

use crate::config::{Endpoint, EndpointAddress, HealthStatus};
use crate::outlier::Counters;
use crate::time::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

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

const EJECTED: u8 = 1;
const CHECK_FAILED: u8 = 1 << 1;
const CHECK_DEGRADED: u8 = 1 << 2;
const CHECK_PENDING: u8 = 1 << 3;

/// What is known of an endpoint beside discovery. Shared by all workers, kept across updates.
#[derive(Debug)]
pub struct HostState {
    id: HostId,
    marks: AtomicU8,
    active: AtomicU32,
    since: AtomicU64,
    outliers: Counters,
}

impl HostState {
    /// A host that was just discovered.
    #[must_use]
    pub fn new(id: HostId, now: Millis) -> Self {
        Self {
            id,
            marks: AtomicU8::new(0),
            active: AtomicU32::new(0),
            since: AtomicU64::new(now.0),
            outliers: Counters::default(),
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

    /// Requests under way over all workers.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Whether outlier detection took it out.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.marks.load(Relaxed) & EJECTED != 0
    }

    /// Marks it; a new plan acts upon it.
    pub fn set_ejected(&self, ejected: bool) {
        self.mark(EJECTED, ejected);
    }

    /// Notes the result of active health checks; a new plan acts upon it. Becoming healthy starts slow start.
    pub fn set_checked(&self, health: Health, now: Millis) {
        let was_out = self.marks.load(Relaxed) & (CHECK_FAILED | CHECK_PENDING) != 0;
        self.mark(CHECK_PENDING, false);
        self.mark(CHECK_FAILED, health == Health::Unhealthy);
        self.mark(CHECK_DEGRADED, health == Health::Degraded);
        if was_out && health != Health::Unhealthy {
            self.since.store(now.0, Relaxed);
        }
    }

    /// Says that no active health check has come back yet: it gets no requests until one does.
    pub fn set_unchecked(&self) {
        self.mark(CHECK_PENDING, true);
        self.mark(CHECK_FAILED, true);
    }

    /// Whether it waits for its first active health check.
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.marks.load(Relaxed) & CHECK_PENDING != 0
    }

    /// Since when it may get requests.
    #[must_use]
    pub fn since(&self) -> Millis {
        Millis(self.since.load(Relaxed))
    }

    fn mark(&self, mark: u8, on: bool) {
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
