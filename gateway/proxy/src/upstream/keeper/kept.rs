//! State of one cluster that outlives configurations.
//!
//! Owns the rules by which endpoints come and go: what DNS said takes the place of names, and an endpoint that discovery
//! forgot stays for as long as its health checks are good. Has no task and asks nobody.

use super::{Upstream, checks};
use crate::upstream::dns::{self, Answers};
use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::task::AbortHandle;
use tombolo_federation_model::Locality;
use tombolo_gateway_core::{
    balance::{Chain, EndpointSet, Fleet, Host, HostId, Plan},
    breaker::Breakers,
    config::{
        Cluster, ClusterLoad, Discovery, Endpoint, EndpointAddress, HealthStatus, LocalityEndpoints, LocalityMode,
        OutlierDetection, Priority,
    },
    outlier::Detector,
    time::Millis,
};

/// Where a cluster's endpoints come from.
pub(super) struct Sources {
    pub(super) cluster: Arc<Cluster>,
    /// As configured, names not resolved.
    pub(super) load: Arc<ClusterLoad>,
    pub(super) dns: Option<(AbortHandle, Answers)>,
}

/// One cluster.
pub(super) struct Kept {
    pub(super) cluster: Arc<Cluster>,
    pub(super) load: Arc<ClusterLoad>,
    pub(super) dns: Option<(AbortHandle, Answers)>,
    pub(super) set: Arc<EndpointSet>,
    pub(super) detector: Option<Detector>,
    pub(super) used: Arc<AtomicBool>,
    pub(super) upstream: Arc<Upstream>,
    breakers: [Arc<Breakers>; 2],
    /// Of an aggregate: the plans by which its chain was made.
    members: Vec<Option<Arc<Plan>>>,
}

impl Kept {
    pub(super) fn new(sources: Sources, before: Option<Kept>, fleet: Option<&Fleet>, now: Millis) -> Self {
        let Sources { cluster, load, dns } = sources;
        let set = set_of(&cluster, &load, dns.as_ref().map(|(_, a)| a), before.as_ref().map(|b| &*b.set), now);
        let breakers = match &before {
            Some(before) => before.breakers.clone(),
            None => [Breakers::new(&cluster.breakers.default), Breakers::new(&cluster.breakers.high)],
        };
        breakers[0].configure(&cluster.breakers.default);
        breakers[1].configure(&cluster.breakers.high);
        let used = before.as_ref().map(|b| b.used.clone()).unwrap_or_default();
        let detector = detector(before.and_then(|b| b.detector), cluster.outlier.as_ref(), &set, now);
        let plan = Arc::new(Plan::within(&set, &cluster.lb, fleet, now));
        let upstream = Arc::new(Upstream {
            cluster: cluster.clone(),
            plan,
            chain: None,
            breakers: breakers.clone(),
            used: used.clone(),
        });
        Self { cluster, load, dns, set, detector, used, upstream, breakers, members: Vec::new() }
    }

    /// Nobody needs it any more.
    pub(super) fn stop(self) {
        if let Some((task, _)) = self.dns {
            task.abort();
        }
    }

    /// Takes what DNS said of a name. False when it changes nothing.
    pub(super) fn answer(&mut self, name: Arc<str>, mut addresses: Vec<IpAddr>) -> bool {
        let logical = matches!(self.cluster.discovery, Discovery::LogicalDns(..));
        let Some((_, answers)) = &mut self.dns else { return false };
        let known = answers.get(&name);
        if logical {
            if addresses.is_empty() {
                // A logical endpoint is one that is always there.
                return false;
            }
            // Servers turn their answers round. The address in use stays the first as long as it is one of them, so that
            // connections to it stay of use.
            if let Some(at) = known.and_then(|k| k.first()).and_then(|f| addresses.iter().position(|a| a == f)) {
                addresses.swap(0, at);
            }
        }
        let same = |known: &Vec<IpAddr>| {
            known.len() == addresses.len()
                && known.iter().all(|a| addresses.contains(a))
                && (!logical || known.first() == addresses.first())
        };
        if known.is_some_and(same) {
            return false;
        }
        answers.insert(name, addresses);
        true
    }

    /// Makes the endpoints anew from what is known, and a plan for them.
    pub(super) fn renew(&mut self, fleet: Option<&Fleet>, now: Millis) {
        let answers = self.dns.as_ref().map(|(_, answers)| answers);
        self.set = set_of(&self.cluster, &self.load, answers, Some(&self.set), now);
        if let Some(detector) = &mut self.detector {
            detector.hosts(self.set.hosts().iter().map(|h| &h.state));
        }
        self.replan(fleet, now);
    }

    /// Makes a plan from the health of the moment.
    pub(super) fn replan(&mut self, fleet: Option<&Fleet>, now: Millis) {
        let plan = Arc::new(Plan::within(&self.set, &self.cluster.lb, fleet, now));
        self.publish(plan, self.upstream.chain.clone());
    }

    fn publish(&mut self, plan: Arc<Plan>, chain: Option<Arc<Chain>>) {
        self.upstream = Arc::new(Upstream {
            cluster: self.cluster.clone(),
            plan,
            chain,
            breakers: self.breakers.clone(),
            used: self.used.clone(),
        });
    }

    /// Links the members of an aggregate. False when they are linked already.
    pub(super) fn link(&mut self, plans: Vec<Option<Arc<Plan>>>) -> bool {
        let same = |(a, b): (&Option<Arc<Plan>>, &Option<Arc<Plan>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let linked = self.upstream.chain.is_some();
        if linked && plans.len() == self.members.len() && plans.iter().zip(&self.members).all(same) {
            return false;
        }
        let chain = Chain::new(plans.iter().map(Option::as_ref), self.cluster.lb.panic_threshold);
        self.publish(self.upstream.plan.clone(), Some(Arc::new(chain)));
        self.members = plans;
        true
    }

    /// Whether zone-aware routing could say something about it.
    pub(super) fn has_zones(&self) -> bool {
        let several = self.set.load().priorities.first().is_some_and(|first| first.localities.len() > 1);
        several && self.cluster.lb.locality != LocalityMode::Weighted
    }

    /// Whether only its health keeps an endpoint.
    pub(super) fn is_leaving(&self, host: HostId) -> bool {
        self.host(host).is_some_and(|host| host.state.is_leaving())
    }

    /// An endpoint's address, for the log.
    pub(super) fn name_of(&self, host: HostId) -> String {
        match self.host(host).map(|host| &host.endpoint.address) {
            Some(EndpointAddress::Socket(address)) => address.to_string(),
            Some(other) => format!("{other:?}"),
            None => String::new(),
        }
    }

    fn host(&self, id: HostId) -> Option<&Host> {
        self.set.hosts().iter().find(|host| host.id() == id)
    }
}

fn set_of(
    cluster: &Cluster,
    load: &Arc<ClusterLoad>,
    answers: Option<&Answers>,
    before: Option<&EndpointSet>,
    now: Millis,
) -> Arc<EndpointSet> {
    let mut load = match answers {
        Some(answers) => Arc::new(dns::apply(load, answers, matches!(cluster.discovery, Discovery::LogicalDns(..)))),
        None => load.clone(),
    };
    let staying = before.map(|before| staying(cluster, &load, before)).unwrap_or_default();
    if !staying.is_empty() {
        load = Arc::new(with(&load, &staying));
    }
    let set = Arc::new(EndpointSet::new(&load, before, checks(cluster).is_some(), now));
    for host in set.hosts() {
        let leaving = staying.iter().any(|stays| stays.endpoint.address == host.endpoint.address);
        if host.state.is_leaving() != leaving {
            host.state.set_leaving(leaving);
        }
    }
    set
}

/// An endpoint that discovery forgot although its checks are good.
struct Staying {
    priority: usize,
    locality: Locality,
    weight: Option<u32>,
    endpoint: Arc<Endpoint>,
}

/// Discovery may be wrong for a moment; checks that go on are better evidence. Not where endpoints are written down.
fn staying(cluster: &Cluster, load: &ClusterLoad, before: &EndpointSet) -> Vec<Staying> {
    let told = matches!(cluster.discovery, Discovery::Eds(_) | Discovery::StrictDns(..));
    if !told || checks(cluster).is_none() || cluster.ignore_health_on_removal {
        return Vec::new();
    }
    let present: ahash::AHashSet<&EndpointAddress> =
        load.priorities.iter().flat_map(|p| &p.localities).flat_map(|l| &l.endpoints).map(|e| &e.address).collect();
    let stays = |host: &&Host| {
        let told_bad =
            matches!(host.endpoint.health, HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout);
        let unknown = host.endpoint.skip_health_check || host.state.is_failed();
        !(told_bad || unknown || present.contains(&host.endpoint.address))
    };
    let entry = |host: &Host| {
        let level = before.load().priorities.get(host.priority as usize)?;
        let group = level.localities.get(host.locality as usize)?;
        Some(Staying {
            priority: host.priority as usize,
            locality: group.locality.clone(),
            weight: group.weight,
            endpoint: host.endpoint.clone(),
        })
    };
    before.hosts().iter().filter(stays).filter_map(entry).collect()
}

/// The load with those endpoints where they were.
fn with(load: &ClusterLoad, staying: &[Staying]) -> ClusterLoad {
    let mut levels: Vec<Vec<LocalityEndpoints>> =
        load.priorities.iter().map(|priority| priority.localities.to_vec()).collect();
    for stays in staying {
        if levels.len() <= stays.priority {
            levels.resize_with(stays.priority + 1, Vec::new);
        }
        let level = &mut levels[stays.priority];
        let at = level.iter().position(|group| group.locality == stays.locality).unwrap_or_else(|| {
            level.push(LocalityEndpoints {
                locality: stays.locality.clone(),
                weight: stays.weight,
                endpoints: Box::default(),
            });
            level.len() - 1
        });
        let group = &mut level[at];
        group.endpoints = group.endpoints.iter().cloned().chain([stays.endpoint.clone()]).collect();
    }
    let priorities = levels.into_iter().map(|localities| Priority { localities: localities.into() }).collect();
    ClusterLoad { priorities, ..load.clone() }
}

fn detector(
    before: Option<Detector>,
    settings: Option<&Arc<OutlierDetection>>,
    set: &EndpointSet,
    now: Millis,
) -> Option<Detector> {
    let Some(settings) = settings.cloned() else {
        // Nobody is left to end an ejection.
        set.hosts().iter().filter(|host| host.state.is_ejected()).for_each(|host| host.state.set_ejected(false));
        return None;
    };
    let mut detector = match before {
        Some(mut detector) => {
            detector.configure(settings);
            detector
        }
        None => Detector::new(settings, now),
    };
    detector.hosts(set.hosts().iter().map(|h| &h.state));
    Some(detector)
}

/// Names that are addresses need no question and count at once.
pub(super) fn literals(load: &ClusterLoad) -> Vec<(Arc<str>, Vec<IpAddr>)> {
    dns::names(load).into_iter().filter_map(|name| Some((name.clone(), vec![name.parse().ok()?]))).collect()
}

/// No endpoints.
pub(super) fn empty(name: &Arc<str>) -> Arc<ClusterLoad> {
    Arc::new(ClusterLoad {
        name: name.clone(),
        priorities: Box::default(),
        overprovisioning: 140,
        weighted_localities: false,
        drops: Box::default(),
    })
}
