//! Owns the endpoints of one cluster as discovery told them, matched to the state of those that were there before.
//!
//! Shared and immutable. Never says who may be chosen: that is the plan.

use super::host::{Host, HostId, HostState};
use crate::config::{ClusterLoad, EndpointAddress};
use crate::time::Millis;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use tombolo_federation_model::Locality;

/// The endpoints of one cluster.
#[derive(Debug)]
pub struct EndpointSet {
    pub(super) hosts: Box<[Host]>,
    pub(super) priorities: Box<[PriorityRange]>,
    load: Arc<ClusterLoad>,
    next_id: u64,
    /// Made when somebody first asks.
    by_address: OnceLock<HashMap<SocketAddr, u32, ahash::RandomState>>,
}

/// Where the hosts of a priority and of its localities stand in the list of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PriorityRange {
    pub(super) hosts: Range<u32>,
    pub(super) localities: Box<[LocalityRange]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalityRange {
    pub(super) hosts: Range<u32>,
    pub(super) weight: u32,
}

impl EndpointSet {
    /// Takes what discovery told. A host whose address was part of `previous` keeps its identity and state, whatever else
    /// about it changed; `unchecked` says that new hosts wait for an active health check.
    #[must_use]
    pub fn new(load: &Arc<ClusterLoad>, previous: Option<&EndpointSet>, unchecked: bool, now: Millis) -> Self {
        let mut known = Known::new(previous, &load.name);
        let mut hosts = Vec::new();
        let mut priorities = Vec::with_capacity(load.priorities.len().max(1));
        for (priority, level) in load.priorities.iter().enumerate() {
            let start = hosts.len() as u32;
            let mut localities = Vec::with_capacity(level.localities.len());
            for (locality, group) in level.localities.iter().enumerate() {
                let first = hosts.len() as u32;
                hosts.extend(group.endpoints.iter().map(|endpoint| Host {
                    endpoint: endpoint.clone(),
                    state: known.state(&endpoint.address, unchecked && !endpoint.skip_health_check, now),
                    priority: priority as u32,
                    locality: locality as u32,
                }));
                localities.push(LocalityRange { hosts: first..hosts.len() as u32, weight: group.weight.unwrap_or(0) });
            }
            priorities.push(PriorityRange { hosts: start..hosts.len() as u32, localities: localities.into() });
        }
        if priorities.is_empty() {
            priorities.push(PriorityRange { hosts: 0..0, localities: Box::default() });
        }
        Self {
            hosts: hosts.into(),
            priorities: priorities.into(),
            load: load.clone(),
            next_id: known.next_id,
            by_address: OnceLock::new(),
        }
    }

    /// The endpoint at an address.
    pub(super) fn at(&self, address: &SocketAddr) -> Option<u32> {
        let index = || {
            let socket = |(index, host): (usize, &Host)| match host.endpoint.address {
                EndpointAddress::Socket(socket) => Some((socket, index as u32)),
                _ => None,
            };
            self.hosts.iter().enumerate().filter_map(socket).collect()
        };
        self.by_address.get_or_init(index).get(address).copied()
    }

    /// Where an endpoint is.
    #[must_use]
    pub fn locality(&self, host: &Host) -> Option<&Locality> {
        let level = self.load.priorities.get(host.priority as usize)?;
        level.localities.get(host.locality as usize).map(|group| &group.locality)
    }

    /// All endpoints, in the order of discovery.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// What discovery told.
    #[must_use]
    pub fn load(&self) -> &Arc<ClusterLoad> {
        &self.load
    }
}

/// States by address: those of the previous set, and those made meanwhile, so that an address named twice is one host.
struct Known<'a> {
    previous: HashMap<&'a EndpointAddress, &'a Arc<HostState>, ahash::RandomState>,
    made: HashMap<EndpointAddress, Arc<HostState>, ahash::RandomState>,
    next_id: u64,
}

impl<'a> Known<'a> {
    fn new(previous: Option<&'a EndpointSet>, cluster: &str) -> Self {
        let hosts = previous.map_or(&[][..], |set| &set.hosts);
        Self {
            previous: hosts.iter().map(|host| (&host.endpoint.address, &host.state)).collect(),
            made: HashMap::default(),
            next_id: previous.map_or_else(|| first_id(cluster), |set| set.next_id),
        }
    }

    fn state(&mut self, address: &EndpointAddress, unchecked: bool, now: Millis) -> Arc<HostState> {
        if let Some(state) = self.previous.get(address).copied().or_else(|| self.made.get(address)) {
            return state.clone();
        }
        let state = Arc::new(HostState::new(HostId(self.next_id), now));
        self.next_id += 1;
        if unchecked {
            state.set_unchecked();
        }
        self.made.insert(address.clone(), state.clone());
        state
    }
}

/// Where the numbers of a cluster's hosts begin: members of one aggregate must not share them.
fn first_id(cluster: &str) -> u64 {
    xxhash_rust::xxh64::xxh64(cluster.as_bytes(), 0) << 24
}
