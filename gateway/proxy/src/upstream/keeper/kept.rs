//! State of one cluster that outlives configurations.
//!
//! Owns the rules by which endpoints come and go: what DNS said takes the place of names, and an endpoint that discovery
//! forgot stays for as long as its health checks are good. Has no task and asks nobody.

use super::{Upstream, checks};
use crate::upstream::dns::{self, Answers};
use std::{net::IpAddr, sync::Arc};
use tokio::task::AbortHandle;
use tombolo_federation_model::Locality;
use tombolo_gateway_core::{
    balance::{Chain, EndpointSet, Fleet, Host, HostId, Plan},
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

/// One cluster. Small, since there may be very many of which nothing else is to be said.
pub(super) struct Kept {
    pub(super) upstream: Arc<Upstream>,
    more: Option<Box<More>>,
}

/// What most clusters do not have.
#[derive(Default)]
struct More {
    dns: Option<(AbortHandle, Answers)>,
    detector: Option<Detector>,
    /// Of an aggregate: the plans by which its chain was made.
    members: Vec<Option<Arc<Plan>>>,
}

impl Kept {
    pub(super) fn new(sources: Sources, before: Option<Kept>, fleet: Option<&Fleet>, now: Millis) -> Self {
        let Sources { cluster, load, dns } = sources;
        let earlier = before.as_ref().map(|before| &*before.upstream);
        if dns.is_none() && fleet.is_none() && needs_nobody(&cluster) && earlier.is_none_or(|b| !b.is_planned()) {
            return Self { upstream: Arc::new(Upstream::idle(cluster, load, earlier)), more: None };
        }
        let planned = earlier.filter(|earlier| earlier.is_planned()).map(|earlier| &**earlier.plan().set());
        let set = set_of(&cluster, &load, dns.as_ref().map(|(_, a)| a), planned, now);
        let plan = Plan::within(&set, &cluster.lb, fleet, now);
        let settings = cluster.outlier.clone();
        let upstream = Arc::new(Upstream::planned(cluster, load, earlier, plan));
        let detector =
            detector(before.and_then(|b| b.more).and_then(|more| more.detector), settings.as_ref(), &set, now);
        let more = (dns.is_some() || detector.is_some()).then(|| Box::new(More { dns, detector, members: Vec::new() }));
        Self { upstream, more }
    }

    /// As configured.
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.upstream.cluster
    }

    /// As configured, names not resolved.
    pub(super) fn load(&self) -> &Arc<ClusterLoad> {
        &self.upstream.load
    }

    /// Its endpoints.
    pub(super) fn set(&self) -> &Arc<EndpointSet> {
        self.upstream.plan().set()
    }

    /// Who finds outliers among them.
    pub(super) fn detector(&self) -> Option<&Detector> {
        self.more.as_ref()?.detector.as_ref()
    }

    /// The same, to act.
    pub(super) fn detector_mut(&mut self) -> Option<&mut Detector> {
        self.more.as_mut()?.detector.as_mut()
    }

    /// Takes out what asks for its names, and what was answered.
    pub(super) fn take_dns(&mut self) -> Option<(AbortHandle, Answers)> {
        self.more.as_mut()?.dns.take()
    }

    /// Nobody said anything yet about some of its names.
    pub(super) fn is_unresolved(&self) -> bool {
        let dns = self.more.as_ref().and_then(|more| more.dns.as_ref());
        dns.is_some_and(|(_, answers)| dns::names(self.load()).iter().any(|name| !answers.contains_key(name)))
    }

    /// Nobody needs it any more.
    pub(super) fn stop(mut self) {
        if let Some((task, _)) = self.take_dns() {
            task.abort();
        }
    }

    /// Takes what DNS said of a name; `None`: it did not answer. False when it changes no endpoint.
    pub(super) fn answer(&mut self, name: Arc<str>, addresses: Option<Vec<IpAddr>>) -> bool {
        // An answer to what was asked before the last change is of no use.
        let asked = dns::names(self.load()).contains(&name);
        let logical = matches!(self.cluster().discovery, Discovery::LogicalDns(..));
        let dns = self.more.as_mut().and_then(|more| more.dns.as_mut());
        let Some((_, answers)) = dns.filter(|_| asked) else { return false };
        let Some(mut addresses) = addresses.filter(|addresses| !(logical && addresses.is_empty())) else {
            // A logical endpoint is one that is always there, and no answer takes nothing away.
            answers.entry(name).or_default();
            return false;
        };
        let known = answers.get(&name);
        if logical {
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
        let answers = self.more.as_ref().and_then(|more| more.dns.as_ref()).map(|(_, answers)| answers);
        let set = set_of(self.cluster(), self.load(), answers, Some(self.set()), now);
        if let Some(detector) = self.detector_mut() {
            detector.hosts(set.hosts().iter().map(|h| &h.state));
        }
        self.plan_for(&set, fleet, now);
    }

    /// Makes a plan from the health of the moment.
    pub(super) fn replan(&mut self, fleet: Option<&Fleet>, now: Millis) {
        let set = self.set().clone();
        self.plan_for(&set, fleet, now);
    }

    fn plan_for(&mut self, set: &Arc<EndpointSet>, fleet: Option<&Fleet>, now: Millis) {
        let plan = Arc::new(Plan::within(set, &self.cluster().lb, fleet, now));
        self.upstream = Arc::new(self.upstream.with(plan, self.upstream.chain.clone()));
    }

    /// Links the members of an aggregate. False when they are linked already.
    pub(super) fn link(&mut self, plans: Vec<Option<Arc<Plan>>>) -> bool {
        let same = |(a, b): (&Option<Arc<Plan>>, &Option<Arc<Plan>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let linked = self.upstream.chain.is_some();
        let more = self.more.get_or_insert_default();
        if linked && plans.len() == more.members.len() && plans.iter().zip(&more.members).all(same) {
            return false;
        }
        let panic = self.upstream.cluster.lb.panic_threshold;
        let chain = Chain::new(plans.iter().map(Option::as_ref), panic);
        self.upstream = Arc::new(self.upstream.with(self.upstream.plan().clone(), Some(Arc::new(chain))));
        more.members = plans;
        true
    }

    /// Whether zone-aware routing could say something about it.
    pub(super) fn has_zones(&self) -> bool {
        let load = if self.upstream.is_planned() { self.set().load() } else { self.load() };
        let several = load.priorities.first().is_some_and(|first| first.localities.len() > 1);
        several && self.cluster().lb.locality != LocalityMode::Weighted
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
        self.set().hosts().iter().find(|host| host.id() == id)
    }
}

/// Nothing happens to its endpoints but requests.
fn needs_nobody(cluster: &Cluster) -> bool {
    let plain = matches!(cluster.discovery, Discovery::Eds(_) | Discovery::Static(_));
    plain && checks(cluster).is_none() && cluster.outlier.is_none() && cluster.lb.slow_start.is_none()
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

/// What is known of a load's names before anybody is asked: what was answered before, and names that are addresses.
pub(super) fn known(load: &ClusterLoad, mut before: Answers) -> Answers {
    let of = |name: Arc<str>| {
        let known = before.remove(&name).or_else(|| Some(vec![name.parse().ok()?]))?;
        Some((name, known))
    };
    dns::names(load).into_iter().filter_map(of).collect()
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
