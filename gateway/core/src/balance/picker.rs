//! Owns the turn-taking of one worker over a plan, and the pick itself.
//!
//! Belongs to one worker: plain cells, no atomics of its own. Allocates when a list is first used with unequal weights,
//! never per pick.

use super::edf::Edf;
use super::host::{Host, HostId};
use super::load::{self, Class, Counts};
use super::plan::{Group, Level, List, Plan, Shared, Table};
use super::subset::is_canary;
use crate::config::{HealthStatus, LbPolicy, LeastRequest, PeakEwma, Value};
use crate::time::{Millis, Random};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a pick depends on besides the plan.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// For placement by hash; `None`: anywhere.
    pub hash: Option<u64>,
    /// Subset criteria, sorted by key.
    pub subset: Option<&'a [(Arc<str>, Value)]>,
    /// Hosts to avoid, where another one turns up.
    pub exclude: &'a [HostId],
    /// Canary hosts are avoided in the same way.
    pub omit_canary: bool,
    /// How often another host is looked for when one is to be avoided.
    pub reselections: u32,
    /// Priorities to avoid, as bits from the lowest.
    pub skip_priorities: u32,
    /// The priority is decided already (by an aggregate).
    pub aim: Option<Aim>,
    /// Endpoints to take before any other, by address, the first that is there and healthy enough.
    pub preferred: &'a [SocketAddr],
    /// None but these.
    pub only_preferred: bool,
}

/// A priority and which of its hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    /// The priority.
    pub priority: u32,
    /// Degraded hosts instead of healthy ones.
    pub degraded: bool,
}

/// The turns of one worker.
#[derive(Debug)]
pub struct Picker {
    plan: Arc<Plan>,
    turns: Turns,
}

#[derive(Debug)]
struct Turns {
    by_list: Vec<Turn>,
    seed: u64,
}

#[derive(Debug, Default)]
struct Turn {
    next: usize,
    edf: Option<Box<Edf>>,
}

impl Picker {
    /// Starts with a plan. `seed` differs between workers, so that they do not all begin with the same host.
    #[must_use]
    pub fn new(plan: Arc<Plan>, seed: u64) -> Self {
        let turns = Turns { by_list: fresh(plan.turns, seed), seed };
        Self { plan, turns }
    }

    /// The plan in use.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Takes a new plan. Plain turns go on where they were as far as the lists are the same.
    pub fn update(&mut self, plan: Arc<Plan>) {
        let mut turns = fresh(plan.turns, self.turns.seed);
        if plan.turns == self.plan.turns {
            for (turn, former) in turns.iter_mut().zip(&self.turns.by_list) {
                turn.next = former.next;
            }
        }
        (self.plan, self.turns.by_list) = (plan, turns);
    }

    /// Chooses an endpoint; see [`Plan::host`]. `None`: nobody may be chosen.
    pub fn pick(&mut self, request: &Request<'_>, random: u64, now: Millis) -> Option<u32> {
        const WHOLE: u32 = 0;
        let Self { plan, turns } = self;
        if !request.preferred.is_empty() {
            let found = request.preferred.iter().find_map(|address| plan.preferred(address));
            if found.is_some() || request.only_preferred {
                return found;
            }
        }
        let Some(subsets) = &plan.subsets else {
            return turns.pick(plan, WHOLE, request, random, now);
        };
        let found = subsets.find(request.subset, WHOLE);
        let picked = found.and_then(|group| turns.pick(plan, group, request, random, now));
        picked.or_else(|| turns.pick(plan, subsets.last_resort(WHOLE)?, request, random, now))
    }
}

impl Turns {
    fn pick(&mut self, plan: &Plan, group: u32, request: &Request<'_>, random: u64, now: Millis) -> Option<u32> {
        let group = &plan.groups[group as usize];
        let mut random = Random::new(random);
        let tries = if request.exclude.is_empty() && !request.omit_canary { 1 } else { request.reselections + 1 };
        let mut picked = None;
        let hash = request.hash.unwrap_or_else(|| random.draw());
        for attempt in 0..tries {
            picked = match &plan.settings.policy {
                LbPolicy::RingHash(_) | LbPolicy::Maglev(_) => place(plan, group, request, hash, attempt),
                _ => self.take_turn(plan, group, request, &mut random, now),
            };
            let host = plan.host(picked?);
            if !request.avoids(host) {
                return picked;
            }
        }
        picked
    }

    fn take_turn(
        &mut self,
        plan: &Plan,
        group: &Group,
        request: &Request<'_>,
        random: &mut Random,
        now: Millis,
    ) -> Option<u32> {
        let (level, class, panic) = request.priority(plan, group, random.draw());
        if panic && plan.settings.fail_on_panic {
            return None;
        }
        let list = if panic { &level.all } else { self.list(level, class, random) };
        self.next_in(plan, list, random, now)
    }

    fn list<'p>(&mut self, level: &'p Level, class: Class, random: &mut Random) -> &'p List {
        let flat = match class {
            Class::Healthy => &level.healthy,
            Class::Degraded => &level.degraded,
        };
        if let Some(zones) = level.zones.as_ref().filter(|_| class == Class::Healthy)
            && (zones.enabled >= 100.0 || (random.below(10_000) as f64) < zones.enabled * 100.0)
        {
            let zone = &zones.lists[zones.route.choose(random) as usize];
            return if zone.hosts.is_empty() { flat } else { zone };
        }
        let Some(localities) = &level.localities else { return flat };
        let shared = match class {
            Class::Healthy => &localities.healthy,
            Class::Degraded => &localities.degraded,
        };
        self.locality(shared).map_or(flat, |locality| &shared.lists[locality as usize])
    }

    fn locality(&mut self, shared: &Shared) -> Option<u32> {
        let weight = |locality: u32| shared.weights[locality as usize];
        let seed = self.seed;
        let edf = self.by_list[shared.turn as usize]
            .edf
            .get_or_insert_with(|| Box::new(Edf::new(0..shared.weights.len() as u32, weight, seed)));
        edf.pick(weight)
    }

    fn next_in(&mut self, plan: &Plan, list: &List, random: &mut Random, now: Millis) -> Option<u32> {
        let hosts = &list.hosts;
        if hosts.len() <= 1 {
            return hosts.first().copied();
        }
        let unequal = list.weighted || now < plan.slow_until;
        match &plan.settings.policy {
            LbPolicy::Random => Some(hosts[random.below(hosts.len() as u64) as usize]),
            LbPolicy::PickFirst => hosts.first().copied(),
            LbPolicy::PeakEwma(settings) => Some(soonest(plan, hosts, settings, random, now)),
            LbPolicy::LeastRequest(settings) if !unequal => Some(least_busy(plan, hosts, settings, random)),
            LbPolicy::LeastRequest(settings) => {
                let bias = settings.active_request_bias;
                self.weighted(list, |host| {
                    let load = f64::from(plan.host(host).state.active()) + 1.0;
                    plan.weight(host, now) / if bias == 1.0 { load } else { load.powf(bias) }
                })
            }
            LbPolicy::RoundRobin | LbPolicy::ByDiscovery | LbPolicy::RingHash(_) | LbPolicy::Maglev(_) => {
                if unequal {
                    return self.weighted(list, |host| plan.weight(host, now));
                }
                let turn = &mut self.by_list[list.turn as usize];
                turn.next = turn.next.wrapping_add(1);
                Some(hosts[turn.next % hosts.len()])
            }
        }
    }

    fn weighted(&mut self, list: &List, weight: impl Fn(u32) -> f64) -> Option<u32> {
        let seed = self.seed;
        let turn = &mut self.by_list[list.turn as usize];
        let edf = turn.edf.get_or_insert_with(|| Box::new(Edf::new(list.hosts.iter().copied(), &weight, seed)));
        edf.pick(weight)
    }
}

fn fresh(turns: u32, seed: u64) -> Vec<Turn> {
    (0..turns).map(|_| Turn { next: (seed >> 1) as usize, edf: None }).collect()
}

impl Request<'_> {
    fn avoids(&self, host: &Host) -> bool {
        self.exclude.contains(&host.id()) || (self.omit_canary && is_canary(host))
    }

    /// The priority for a random number or hash, its class of hosts, and whether it is in panic.
    fn priority<'p>(&self, plan: &Plan, group: &'p Group, mark: u64) -> (&'p Level, Class, bool) {
        if let Some(aim) = self.aim
            && let Some(level) = group.levels.get(aim.priority as usize)
        {
            let class = if aim.degraded { Class::Degraded } else { Class::Healthy };
            return (level, class, group.shares[aim.priority as usize].panic);
        }
        if self.skip_priorities != 0 {
            let left = self.without_skipped(group);
            if left.iter().any(|counts| counts.healthy + counts.degraded > 0) {
                let overprovisioning = plan.set.load().overprovisioning;
                let shares = load::shares(&left, overprovisioning, plan.settings.panic_threshold);
                let (priority, class) = load::choose(&shares, mark);
                return (&group.levels[priority], class, shares[priority].panic);
            }
        }
        let (priority, class) = load::choose(&group.shares, mark);
        (&group.levels[priority], class, group.shares[priority].panic)
    }

    fn without_skipped(&self, group: &Group) -> Vec<Counts> {
        let keep = |(priority, counts): (usize, &Counts)| {
            let skipped = priority < 32 && self.skip_priorities & (1 << priority) != 0;
            if skipped { Counts::default() } else { *counts }
        };
        group.counts.iter().enumerate().map(keep).collect()
    }
}

fn place(plan: &Plan, group: &Group, request: &Request<'_>, hash: u64, attempt: u32) -> Option<u32> {
    let (level, _, panic) = request.priority(plan, group, hash);
    if panic && plan.settings.fail_on_panic {
        return None;
    }
    let table = level.table.as_ref()?;
    let first = table.places.pick(hash, attempt)?;
    match plan.settings.hash_balance_factor {
        Some(factor) => Some(bounded(plan, table, first, hash, factor)),
        None => Some(first),
    }
}

/// Consistent hashing with bounded load: a host above its share of the requests under way passes to another one, in an
/// order that depends on the hash, so that its overflow does not all land on one neighbour.
fn bounded(plan: &Plan, table: &Table, first: u32, hash: u64, factor: u32) -> u32 {
    let active = |host: u32| plan.host(host).state.active();
    let total: u64 = table.shares.iter().map(|(host, _)| u64::from(active(*host))).sum();
    let slots = ((total + 1) * u64::from(factor)).div_ceil(100);
    let overload = |host: u32, share: f64| f64::from(active(host)) / (slots as f64 * share).ceil().max(1.0);
    let share_of = |host: u32| table.shares.iter().find(|(other, _)| *other == host).map_or(0.0, |(_, share)| *share);
    let mut least = (overload(first, share_of(first)), first);
    if least.0 <= 1.0 {
        return first;
    }
    let start = Random::new(hash).below(table.shares.len() as u64) as usize;
    for step in 0..table.shares.len() {
        let (host, share) = table.shares[(start + step) % table.shares.len()];
        let load = overload(host, share);
        if load <= 1.0 {
            return host;
        }
        if load < least.0 {
            least = (load, host);
        }
    }
    least.1
}

impl Plan {
    /// An endpoint that a request names, if its health is one of those with which it may be named.
    fn preferred(&self, address: &SocketAddr) -> Option<u32> {
        // Unknown, healthy and degraded, unless said otherwise.
        const USUAL: u32 = 1 | 1 << 1 | 1 << 5;
        let index = self.set.at(address)?;
        let bit = match self.host(index).status() {
            HealthStatus::Unknown => 0,
            HealthStatus::Healthy => 1,
            HealthStatus::Unhealthy => 2,
            HealthStatus::Draining => 3,
            HealthStatus::Timeout => 4,
            HealthStatus::Degraded => 5,
        };
        let told = self.settings.override_host_statuses;
        let allowed = if told == 0 { USUAL } else { told };
        (allowed & (1 << bit) != 0).then_some(index)
    }
}

/// The better of two hosts by how long an answer is expected to take, requests that are under way included.
fn soonest(plan: &Plan, hosts: &[u32], settings: &PeakEwma, random: &mut Random, now: Millis) -> u32 {
    let cost = |host: u32| {
        let state = &plan.host(host).state;
        state.latency().expected(settings, now) * f64::from(state.active() + 1) / plan.weight(host, now)
    };
    let first = random.below(hosts.len() as u64) as usize;
    // Another one than the first, each as likely.
    let second = (first + 1 + random.below(hosts.len() as u64 - 1) as usize) % hosts.len();
    let (first, second) = (hosts[first], hosts[second]);
    if cost(second) < cost(first) { second } else { first }
}

fn least_busy(plan: &Plan, hosts: &[u32], settings: &LeastRequest, random: &mut Random) -> u32 {
    let active = |host: &u32| plan.host(*host).state.active();
    let size = hosts.len() as u64;
    if settings.full_scan {
        // Begins anywhere, so that ties do not all go to the first.
        let (before, after) = hosts.split_at(random.below(size) as usize);
        return after.iter().chain(before).copied().min_by_key(active).unwrap_or(hosts[0]);
    }
    let mut best = hosts[random.below(size) as usize];
    for _ in 1..settings.choices.max(1) {
        let other = hosts[random.below(size) as usize];
        if active(&other) < active(&best) {
            best = other;
        }
    }
    best
}
