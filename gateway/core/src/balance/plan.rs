//! Owns who may be chosen now: shares of priorities, lists by health and locality, subsets, rings and tables.
//!
//! Immutable and shared by all workers; made anew when a set or the health of a host changes. Never takes turns: what
//! moves with each pick is in the picker, which keeps one state for each list here.

use super::host::{Health, Host};
use super::load::{Counts, Share, shares};
use super::maglev::Maglev;
use super::ring::{Ring, Weighted};
use super::set::{EndpointSet, LocalityRange, PriorityRange};
use super::slow;
use super::subset::{self, Subsets};
use super::zone::{self, Fleet, Route, Side};
use crate::config::{LbPolicy, LbSettings, LocalityMode, MetadataMatch};
use crate::time::{Millis, millis};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Who may be chosen.
#[derive(Debug)]
pub struct Plan {
    pub(super) set: Arc<EndpointSet>,
    pub(super) settings: Arc<LbSettings>,
    /// The first is the whole cluster; the others are subsets.
    pub(super) groups: Box<[Group]>,
    pub(super) subsets: Option<Subsets>,
    /// Number of lists, each of which has a turn of its own in a picker.
    pub(super) turns: u32,
    /// Until then some host is in slow start, which makes weights unequal.
    pub(super) slow_until: Millis,
}

/// The whole cluster, or one subset.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) counts: Box<[Counts]>,
    pub(super) shares: Box<[Share]>,
    pub(super) levels: Box<[Level]>,
}

/// One priority of a group.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) all: List,
    pub(super) healthy: List,
    pub(super) degraded: List,
    pub(super) localities: Option<Box<Localities>>,
    pub(super) table: Option<Table>,
    pub(super) zones: Option<Box<Zones>>,
}

/// Zones of the first priority, the own one in front of the others as far as it goes.
#[derive(Debug)]
pub(super) struct Zones {
    /// Percent of requests that are routed so.
    pub(super) enabled: f64,
    pub(super) route: Route,
    pub(super) lists: Box<[List]>,
}

/// Hosts among which turns are taken.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) turn: u32,
    pub(super) weighted: bool,
    pub(super) hosts: Arc<[u32]>,
}

/// Localities that share by weight.
#[derive(Debug)]
pub(super) struct Localities {
    pub(super) healthy: Shared,
    pub(super) degraded: Shared,
}

/// Lists by locality with the weights that they have left.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) turn: u32,
    pub(super) weights: Box<[f64]>,
    pub(super) lists: Box<[List]>,
}

/// Placement by hash.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) places: Places,
    /// For bounded load: each host with its share of all weight.
    pub(super) shares: Box<[(u32, f64)]>,
}

#[derive(Debug)]
pub(super) enum Places {
    Ring(Ring),
    Maglev(Maglev),
}

impl Places {
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<u32> {
        match self {
            Places::Ring(ring) => ring.pick(hash, attempt),
            Places::Maglev(table) => table.pick(hash, attempt),
        }
    }
}

impl Plan {
    /// Makes a plan from what is known now.
    #[must_use]
    pub fn new(set: &Arc<EndpointSet>, settings: &Arc<LbSettings>, now: Millis) -> Self {
        Self::within(set, settings, None, now)
    }

    /// The same for a gateway that knows its fleet: requests stay in their zone as far as the policy says so.
    #[must_use]
    pub fn within(set: &Arc<EndpointSet>, settings: &Arc<LbSettings>, fleet: Option<&Fleet>, now: Millis) -> Self {
        let health: Vec<Health> = set.hosts.iter().map(Host::health).collect();
        let mut builder = Builder { set, settings, fleet, health, turns: 0 };
        let mut groups = vec![builder.group(None, true)];
        let subsets = settings.subsets.as_ref().map(|subsets| {
            let aware = subsets.locality_weight_aware;
            let mut index: HashMap<MetadataMatch, u32, ahash::RandomState> = HashMap::default();
            for (criteria, members) in subset::members(subsets, &set.hosts) {
                index.insert(criteria.into_iter().map(|(key, value)| (key, value.0)).collect(), groups.len() as u32);
                groups.push(builder.group(Some(&members), aware));
            }
            let chosen = (0..set.hosts.len() as u32).filter(|host| {
                subset::matches(&subsets.default_subset, &set.hosts[*host as usize], subsets.list_as_any)
            });
            let members: Vec<u32> = chosen.collect();
            let default = (!subsets.default_subset.is_empty()).then(|| {
                groups.push(builder.group(Some(&members), aware));
                groups.len() as u32 - 1
            });
            Subsets::new(subsets, index, default)
        });
        let turns = builder.turns;
        let slow_until = slow_until(set, settings, now);
        Self { set: set.clone(), settings: settings.clone(), groups: groups.into(), subsets, turns, slow_until }
    }

    /// The endpoint that a pick names.
    #[must_use]
    pub fn host(&self, index: u32) -> &Host {
        &self.set.hosts[index as usize]
    }

    /// The endpoints that this plan is about.
    #[must_use]
    pub fn set(&self) -> &Arc<EndpointSet> {
        &self.set
    }

    /// Whether any priority of the whole cluster is in panic (for metrics).
    #[must_use]
    pub fn in_panic(&self) -> bool {
        self.groups[0].shares.iter().any(|share| share.panic)
    }

    /// How many hosts of the whole cluster are healthy.
    #[must_use]
    pub fn healthy(&self) -> u32 {
        self.groups[0].counts.iter().map(|counts| counts.healthy).sum()
    }

    /// How many hosts of the whole cluster are degraded.
    #[must_use]
    pub fn degraded(&self) -> u32 {
        self.groups[0].counts.iter().map(|counts| counts.degraded).sum()
    }

    /// How many hosts of the whole cluster do not count, because they wait for their first check or asked for it.
    #[must_use]
    pub fn excluded(&self) -> u32 {
        self.groups[0].counts.iter().map(|counts| counts.excluded).sum()
    }

    /// The weight of a host at this moment.
    pub(super) fn weight(&self, index: u32, now: Millis) -> f64 {
        let host = self.host(index);
        let weight = f64::from(host.endpoint.weight.max(1));
        match &self.settings.slow_start {
            Some(slow) if now < self.slow_until => weight * slow::factor(slow, host.state.since(), now),
            _ => weight,
        }
    }
}

fn slow_until(set: &EndpointSet, settings: &LbSettings, now: Millis) -> Millis {
    let Some(slow) = &settings.slow_start else { return Millis::default() };
    let latest = set.hosts.iter().map(|host| host.state.since().after(millis(slow.window))).max();
    latest.filter(|until| *until > now).unwrap_or_default()
}

struct Builder<'a> {
    set: &'a EndpointSet,
    settings: &'a LbSettings,
    fleet: Option<&'a Fleet>,
    health: Vec<Health>,
    turns: u32,
}

impl Builder<'_> {
    /// A group of these hosts, ascending; `None`: all.
    fn group(&mut self, members: Option<&[u32]>, locality_aware: bool) -> Group {
        let weighted =
            locality_aware && (self.settings.locality == LocalityMode::Weighted || self.set.load().weighted_localities);
        let counts: Box<[Counts]> = self.set.priorities.iter().map(|range| self.count(members, &range.hosts)).collect();
        let shares = shares(&counts, self.set.load().overprovisioning, self.settings.panic_threshold);
        let ranges: Vec<&PriorityRange> = self.set.priorities.iter().collect();
        let levels = ranges.into_iter().zip(&shares).map(|(range, share)| self.level(members, range, share, weighted));
        let levels: Box<[Level]> = levels.collect();
        Group { counts, shares, levels }
    }

    fn within<'m>(members: Option<&'m [u32]>, range: &Range<u32>) -> impl Iterator<Item = u32> + use<'m> {
        let (chosen, plain) = match members {
            None => (&[][..], range.clone()),
            Some(members) => {
                let from = members.partition_point(|host| *host < range.start);
                let to = members.partition_point(|host| *host < range.end);
                (&members[from..to], 0..0)
            }
        };
        chosen.iter().copied().chain(plain)
    }

    fn count(&self, members: Option<&[u32]>, range: &Range<u32>) -> Counts {
        let mut counts = Counts::default();
        for host in Self::within(members, range) {
            counts.all += 1;
            match self.health[host as usize] {
                Health::Healthy => counts.healthy += 1,
                Health::Degraded => counts.degraded += 1,
                Health::Unhealthy => {
                    let pending_too = self.settings.ignore_new_until_checked;
                    counts.excluded += u32::from(self.set.hosts[host as usize].state.is_excluded(pending_too));
                }
            }
        }
        counts
    }

    fn level(&mut self, members: Option<&[u32]>, range: &PriorityRange, share: &Share, weighted: bool) -> Level {
        let all = self.list(Self::within(members, &range.hosts).collect());
        let healthy = self.healthy(members, &range.hosts, Health::Healthy, Some(&all));
        let degraded = self.healthy(members, &range.hosts, Health::Degraded, None);
        let table = self.table(members, range, share.panic, weighted);
        let localities = (weighted && table.is_none()).then(|| {
            Box::new(Localities {
                healthy: self.shared(members, range, Health::Healthy),
                degraded: self.shared(members, range, Health::Degraded),
            })
        });
        let first = self.set.priorities.first().is_some_and(|first| std::ptr::eq(first, range));
        let zones = if first && localities.is_none() && table.is_none() { self.zones(members, range) } else { None };
        Level { all, healthy, degraded, localities, table, zones: zones.map(Box::new) }
    }

    /// Zone-aware routing is what Envoy does wherever it knows its own fleet, unless another way was chosen.
    fn zones(&mut self, members: Option<&[u32]>, range: &PriorityRange) -> Option<Zones> {
        let fleet = self.fleet.filter(|fleet| !fleet.is_empty() && !fleet.in_panic())?;
        let (enabled, least, force, by_weight) = match self.settings.locality {
            LocalityMode::Weighted => return None,
            LocalityMode::Flat => (100.0, 6, None, false),
            LocalityMode::ZoneAware { routing_enabled, min_cluster_size, force_local, by_weight, .. } => {
                (routing_enabled, min_cluster_size, force_local, by_weight)
            }
        };
        let places = &self.set.load().priorities.first()?.localities;
        if range.localities.len() < 2 || enabled <= 0.0 {
            return None;
        }
        let lists: Box<[List]> =
            range.localities.iter().map(|l| self.healthy(members, &l.hosts, Health::Healthy, None)).collect();
        let healthy: usize = lists.iter().map(|list| list.hosts.len()).sum();
        if (healthy as u64) < least {
            return None;
        }
        let weight = |host: &u32| u64::from(self.set.hosts[*host as usize].endpoint.weight.max(1));
        let sides: Vec<Side<'_>> = places
            .iter()
            .zip(&lists)
            .map(|(place, list)| Side {
                locality: &place.locality,
                hosts: list.hosts.len() as u64,
                weight: list.hosts.iter().map(weight).sum(),
            })
            .collect();
        Some(Zones { enabled, route: zone::route(fleet, &sides, force, by_weight), lists })
    }

    fn list(&mut self, hosts: Arc<[u32]>) -> List {
        let weight = |host: &u32| self.set.hosts[*host as usize].endpoint.weight.max(1);
        let first = hosts.first().map(weight);
        let weighted = hosts.iter().any(|host| Some(weight(host)) != first);
        self.turns += 1;
        List { turn: self.turns - 1, weighted, hosts }
    }

    fn healthy(&mut self, members: Option<&[u32]>, range: &Range<u32>, health: Health, all: Option<&List>) -> List {
        let hosts: Vec<u32> =
            Self::within(members, range).filter(|host| self.health[*host as usize] == health).collect();
        match all {
            // The usual case, everybody healthy, needs no second copy.
            Some(all) if all.hosts.len() == hosts.len() => List { turn: self.next_turn(), ..all.clone() },
            _ => self.list(hosts.into()),
        }
    }

    fn next_turn(&mut self) -> u32 {
        self.turns += 1;
        self.turns - 1
    }

    fn shared(&mut self, members: Option<&[u32]>, range: &PriorityRange, health: Health) -> Shared {
        let overprovisioning = f64::from(self.set.load().overprovisioning) / 100.0;
        let mut weights = Vec::with_capacity(range.localities.len());
        let mut lists = Vec::with_capacity(range.localities.len());
        for locality in &range.localities {
            let counts = self.count(members, &locality.hosts);
            let list = self.healthy(members, &locality.hosts, health, None);
            let total = (counts.all - counts.excluded).max(1);
            let left = (overprovisioning * list.hosts.len() as f64 / f64::from(total)).min(1.0);
            weights.push(self.locality_weight(members, locality, counts.all) * left);
            lists.push(list);
        }
        Shared { turn: self.next_turn(), weights: weights.into(), lists: lists.into() }
    }

    /// A subset may have a locality's weight only as far as it has its endpoints.
    fn locality_weight(&self, members: Option<&[u32]>, locality: &LocalityRange, present: u32) -> f64 {
        let scaled = self.settings.subsets.as_ref().is_some_and(|subsets| subsets.scale_locality_weight);
        let all = locality.hosts.len();
        if !scaled || members.is_none() || all == 0 || locality.weight == 0 {
            return f64::from(locality.weight);
        }
        (f64::from(locality.weight) * f64::from(present) / all as f64).round().max(1.0)
    }

    fn table(&self, members: Option<&[u32]>, range: &PriorityRange, panic: bool, weighted: bool) -> Option<Table> {
        if !matches!(self.settings.policy, LbPolicy::RingHash(_) | LbPolicy::Maglev(_)) {
            return None;
        }
        let hosts = if weighted && !range.localities.is_empty() {
            let total: u64 = range.localities.iter().map(|locality| u64::from(locality.weight)).sum();
            let with_weight = range.localities.iter().filter(|locality| locality.weight > 0);
            with_weight
                .flat_map(|locality| {
                    let share = f64::from(locality.weight) / total as f64;
                    self.weigh(members, &locality.hosts, panic, share)
                })
                .collect()
        } else {
            self.weigh(members, &range.hosts, panic, 1.0)
        };
        let places = match &self.settings.policy {
            LbPolicy::RingHash(settings) => Places::Ring(Ring::new(&hosts, settings)),
            LbPolicy::Maglev(settings) => Places::Maglev(Maglev::new(&hosts, settings.table_size)),
            _ => return None,
        };
        let bounded = self.settings.hash_balance_factor.is_some();
        let shares = hosts.iter().filter(|_| bounded).map(|host| (host.host, host.share)).collect();
        Some(Table { places, shares })
    }

    fn weigh(&self, members: Option<&[u32]>, range: &Range<u32>, panic: bool, share: f64) -> Vec<Weighted> {
        let usable = |host: &u32| panic || self.health[*host as usize] == Health::Healthy;
        let chosen: Vec<u32> = Self::within(members, range).filter(usable).collect();
        let weight = |host: u32| self.set.hosts[host as usize].endpoint.weight.max(1);
        let total: u64 = chosen.iter().map(|host| u64::from(weight(*host))).sum();
        chosen
            .into_iter()
            .map(|host| Weighted {
                host,
                key: self.set.hosts[host as usize].hash_key(self.settings.hash_by_hostname),
                share: f64::from(weight(host)) * share / total as f64,
            })
            .collect()
    }
}
