//! Virtual hosts of a table that come one by one (VHDS).
//!
//! Owns the places of hosts and the index of their domains. A copy shares what did not change, so that a change of one host among ten
//! thousand costs one host. Used by [`RouteTable`](crate::config::RouteTable) and `assemble`.

use super::hosts::HostIndex;
use crate::{config::Map, wire::DynamicHost};
use ahash::AHashMap;
use std::{collections::BTreeMap, sync::Arc};

/// Hosts that are copied together.
const PART: usize = 64;

/// The hosts as requests find them.
#[derive(Debug, Clone, Default)]
pub struct MoreHosts {
    parts: Vec<Arc<Vec<Option<Arc<DynamicHost>>>>>,
    /// Domains without a star, in lower case, to places.
    exact: Map<u32>,
    wild: Arc<HostIndex>,
}

impl PartialEq for MoreHosts {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts && self.wild == other.wild
    }
}

impl MoreHosts {
    /// The host at a place.
    #[must_use]
    pub fn get(&self, place: u32) -> Option<&DynamicHost> {
        let place = place as usize;
        self.parts.get(place / PART)?.get(place % PART)?.as_deref()
    }

    /// The place of an exact name in lower case.
    pub(crate) fn find_exact(&self, host: &str) -> Option<u32> {
        self.exact.get(host).map(|place| **place)
    }

    /// The place of the best wildcard, as [`HostIndex::find_wild`].
    pub(crate) fn find_wild(&self, host: &str) -> Option<((u8, usize), u32)> {
        self.wild.find_wild(host)
    }

    fn set(&mut self, place: u32, host: Option<Arc<DynamicHost>>) {
        let place = place as usize;
        if self.parts.len() <= place / PART {
            self.parts.resize_with(place / PART + 1, Arc::default);
        }
        let part = Arc::make_mut(&mut self.parts[place / PART]);
        if part.len() <= place % PART {
            part.resize(place % PART + 1, None);
        }
        part[place % PART] = host;
    }
}

/// The hosts as they come and go.
#[derive(Debug, Default)]
pub(crate) struct ComingHosts {
    /// Shared with the tables in use.
    pub(crate) hosts: Arc<MoreHosts>,
    places: AHashMap<Arc<str>, u32>,
    free: Vec<u32>,
    /// Domains with a star; usually few, so that their index is made anew.
    wild: BTreeMap<String, u32>,
}

impl ComingHosts {
    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Takes a host in. False when it is known as it is.
    pub(crate) fn put(&mut self, host: Arc<DynamicHost>) -> bool {
        let known = self.places.get(&host.name).copied();
        if known.and_then(|place| self.hosts.get(place)).is_some_and(|before| *before == *host) {
            return false;
        }
        let place = match known {
            Some(place) => {
                self.forget_domains(place);
                place
            }
            None => {
                let next = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
                let place = self.free.pop().unwrap_or(next);
                self.places.insert(Arc::clone(&host.name), place);
                place
            }
        };
        let hosts = Arc::make_mut(&mut self.hosts);
        let mut wild = false;
        for domain in &host.domains {
            let lower = lower(domain);
            // A domain that is taken already stays with who has it.
            if is_wild(&lower) {
                wild |= *self.wild.entry(lower.to_string()).or_insert(place) == place;
            } else if hosts.find_exact(&lower).is_none() {
                hosts.exact.insert(lower, Arc::new(place));
            }
        }
        hosts.set(place, Some(host));
        if wild {
            self.index_wild();
        }
        true
    }

    /// Forgets a host. False when there is none of the name.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let Some(place) = self.places.remove(name) else { return false };
        self.forget_domains(place);
        Arc::make_mut(&mut self.hosts).set(place, None);
        self.free.push(place);
        true
    }

    /// A domain of a host that another one has.
    pub(crate) fn clash(&self, host: &DynamicHost) -> Option<Arc<str>> {
        let own = self.places.get(&host.name).copied();
        let taken = |domain: &Arc<str>| {
            let lower = lower(domain);
            let place = if is_wild(&lower) { self.wild.get(&*lower).copied() } else { self.hosts.find_exact(&lower) };
            place.is_some_and(|place| Some(place) != own)
        };
        host.domains.iter().find(|domain| taken(domain)).cloned()
    }

    fn forget_domains(&mut self, place: u32) {
        let Some(domains) = self.hosts.get(place).map(|host| host.domains.clone()) else { return };
        let mut wild = false;
        let hosts = Arc::make_mut(&mut self.hosts);
        for lower in domains.iter().map(lower) {
            if is_wild(&lower) {
                if self.wild.get(&*lower) == Some(&place) {
                    self.wild.remove(&*lower);
                    wild = true;
                }
            } else if hosts.find_exact(&lower) == Some(place) {
                hosts.exact.remove(&lower);
            }
        }
        if wild {
            self.index_wild();
        }
    }

    fn index_wild(&mut self) {
        let mut index = HostIndex::default();
        for (domain, place) in &self.wild {
            // Each is here once.
            let _ = index.put(domain, *place);
        }
        Arc::make_mut(&mut self.hosts).wild = Arc::new(index);
    }
}

fn is_wild(domain: &str) -> bool {
    domain.starts_with('*') || domain.ends_with('*')
}

/// In lower case; the text itself where it is.
pub(crate) fn lower(domain: &Arc<str>) -> Arc<str> {
    if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        domain.to_ascii_lowercase().into()
    } else {
        Arc::clone(domain)
    }
}
