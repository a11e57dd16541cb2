//! Owns circuit breakers: how much of each resource one upstream may use at one priority.
//!
//! Shared between workers (plain atomics, no lock); a permit gives back what it took when it is dropped. Never waits and
//! never says what a refused request becomes. Used by pools (connections, pending), by the request path (requests) and
//! by `attempt` (retries).

use crate::balance::{Connected, HostState};
use crate::config::Threshold;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A counted resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Resource {
    /// Open connections.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
    /// Connection pools.
    Pools,
}

const RESOURCES: usize = 5;

/// The breakers of one upstream at one priority. Outlives configuration changes: counts go on, limits are replaced.
#[derive(Debug, Default)]
pub struct Breakers {
    used: [AtomicU32; RESOURCES],
    limits: LimitCells,
    /// Those of one endpoint: everything is counted by these, connections by the endpoint as well, up to a bound.
    whole: Option<(Arc<Breakers>, Arc<HostState>, u32)>,
}

/// Limits as atomics, so that a configuration change does not need a second set of counters.
#[derive(Debug)]
struct LimitCells {
    max: [AtomicU32; RESOURCES],
    /// Thousandths of a percent; `u32::MAX` means no budget.
    budget: AtomicU32,
    budget_floor: AtomicU32,
}

const NO_BUDGET: u32 = u32::MAX;

impl Default for LimitCells {
    fn default() -> Self {
        let cells =
            Self { max: Default::default(), budget: AtomicU32::new(NO_BUDGET), budget_floor: AtomicU32::new(0) };
        cells.set(&Threshold::default());
        cells
    }
}

impl LimitCells {
    fn set(&self, limits: &Threshold) {
        let values = [limits.connections, limits.pending, limits.requests, limits.retries, limits.pools];
        for (cell, value) in self.max.iter().zip(values) {
            cell.store(value, Relaxed);
        }
        let budget = limits.retry_budget.map_or(NO_BUDGET, |(percent, _)| (percent.clamp(0.0, 100.0) * 1000.0) as u32);
        self.budget.store(budget, Relaxed);
        self.budget_floor.store(limits.retry_budget.map_or(0, |(_, floor)| floor), Relaxed);
    }
}

impl Breakers {
    /// Breakers with these limits and nothing used.
    #[must_use]
    pub fn new(limits: &Threshold) -> Arc<Self> {
        let breakers = Self::default();
        breakers.configure(limits);
        Arc::new(breakers)
    }

    /// The breakers as one endpoint has them, with at most so many connections to it.
    #[must_use]
    pub fn of_host(self: &Arc<Self>, host: &Arc<HostState>, connections: u32) -> Arc<Self> {
        Arc::new(Self { whole: Some((self.clone(), host.clone(), connections)), ..Self::default() })
    }

    /// Replaces the limits. What is in use stays, even above them.
    pub fn configure(&self, limits: &Threshold) {
        self.limits.set(limits);
    }

    /// How much is in use.
    #[must_use]
    pub fn used(&self, resource: Resource) -> u32 {
        if let Some((whole, _, _)) = &self.whole {
            return whole.used(resource);
        }
        self.used[resource as usize].load(Relaxed)
    }

    /// How much may be in use now.
    #[must_use]
    pub fn limit(&self, resource: Resource) -> u32 {
        if let Some((whole, _, _)) = &self.whole {
            return whole.limit(resource);
        }
        let budget = self.limits.budget.load(Relaxed);
        if resource != Resource::Retries || budget == NO_BUDGET {
            return self.limits.max[resource as usize].load(Relaxed);
        }
        let load = u64::from(self.used(Resource::Requests)) + u64::from(self.used(Resource::Pending));
        let share = load * u64::from(budget) / 100_000;
        u32::try_from(share).unwrap_or(u32::MAX).max(self.limits.budget_floor.load(Relaxed))
    }

    /// Whether nothing more can be had.
    #[must_use]
    pub fn is_open(&self, resource: Resource) -> bool {
        self.used(resource) >= self.limit(resource)
    }

    /// Takes one, or says no.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, resource: Resource) -> Option<Permit> {
        if let Some((whole, host, most)) = &self.whole {
            let connected = if resource == Resource::Connections { Some(host.connect(*most)?) } else { None };
            return whole.acquire(resource).map(|permit| Permit { connected, ..permit });
        }
        let cell = &self.used[resource as usize];
        // Counting first and looking after keeps the limit exact when workers race; the loser gives back.
        if cell.fetch_add(1, Relaxed) >= self.limit(resource) {
            cell.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Permit { count: Count { breakers: self.clone(), resource }, connected: None })
    }

    /// Takes one even above the limit: a connection without which nothing could be served.
    #[must_use]
    pub fn acquire_anyway(self: &Arc<Self>, resource: Resource) -> Permit {
        if let Some((whole, host, _)) = &self.whole {
            let connected = if resource == Resource::Connections { host.connect(u32::MAX) } else { None };
            return Permit { connected, ..whole.acquire_anyway(resource) };
        }
        self.used[resource as usize].fetch_add(1, Relaxed);
        Permit { count: Count { breakers: self.clone(), resource }, connected: None }
    }
}

/// One unit of a resource, given back on drop.
#[derive(Debug)]
pub struct Permit {
    #[expect(dead_code, reason = "counts until it is dropped")]
    count: Count,
    /// The endpoint's own count.
    #[expect(dead_code, reason = "counts until it is dropped")]
    connected: Option<Connected>,
}

#[derive(Debug)]
struct Count {
    breakers: Arc<Breakers>,
    resource: Resource,
}

impl Drop for Count {
    fn drop(&mut self) {
        self.breakers.used[self.resource as usize].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::HostId;
    use crate::time::Millis;

    #[test]
    fn an_endpoint_has_a_bound_of_its_own() {
        let whole = Breakers::new(&Threshold::default());
        let host = Arc::new(HostState::new(HostId(1), Millis(0)));
        let bounded = whole.of_host(&host, 1);
        let first = bounded.acquire(Resource::Connections).unwrap();
        assert!(bounded.acquire(Resource::Connections).is_none());
        assert_eq!((whole.used(Resource::Connections), host.connections()), (1, 1));
        let more = bounded.acquire_anyway(Resource::Connections);
        let request = bounded.acquire(Resource::Requests).unwrap();
        assert_eq!((whole.used(Resource::Connections), whole.used(Resource::Requests)), (2, 1));
        drop((first, more, request));
        assert_eq!((whole.used(Resource::Connections), host.connections()), (0, 0));
    }

    #[test]
    fn a_permit_is_given_back_on_drop() {
        let breakers = Breakers::new(&Threshold { requests: 1, ..Threshold::default() });
        let held = breakers.acquire(Resource::Requests);
        assert!(held.is_some() && breakers.acquire(Resource::Requests).is_none());
        assert!(breakers.is_open(Resource::Requests));
        drop(held);
        assert!(breakers.acquire(Resource::Requests).is_some());
        assert_eq!(breakers.used(Resource::Requests), 0);
    }

    #[test]
    fn a_limit_of_zero_refuses_everything_unless_forced() {
        let breakers = Breakers::new(&Threshold { connections: 0, ..Threshold::default() });
        assert!(breakers.acquire(Resource::Connections).is_none());
        let _forced = breakers.acquire_anyway(Resource::Connections);
        assert_eq!(breakers.used(Resource::Connections), 1);
    }

    #[test]
    fn a_retry_budget_follows_the_load() {
        let breakers = Breakers::new(&Threshold { retries: 0, retry_budget: Some((20.0, 1)), ..Threshold::default() });
        let first = breakers.acquire(Resource::Retries);
        assert!(first.is_some() && breakers.acquire(Resource::Retries).is_none());
        let _load: Vec<_> = (0..10).map(|_| breakers.acquire(Resource::Requests)).collect();
        assert_eq!(breakers.limit(Resource::Retries), 2);
        assert!(breakers.acquire(Resource::Retries).is_some());
    }

    #[test]
    fn the_limit_is_exact_when_threads_race() {
        let breakers = Breakers::new(&Threshold { requests: 5, ..Threshold::default() });
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let breakers = breakers.clone();
                std::thread::spawn(move || {
                    for _ in 0..1000 {
                        let held: Vec<_> = (0..4).filter_map(|_| breakers.acquire(Resource::Requests)).collect();
                        assert!(held.len() <= 5);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(breakers.used(Resource::Requests), 0);
    }
}
