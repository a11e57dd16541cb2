//! One cluster as workers see it.
//!
//! Owns what is made only when somebody asks for it: a gateway may know ten thousand clusters and use ten. A cluster whose endpoints
//! nobody looks after has no endpoint states, no plan and no breakers before its first request.

use crate::clock;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};
use tombolo_gateway_core::{
    balance::{Chain, EndpointSet, Plan},
    breaker::Breakers,
    config::{CircuitBreakers, Cluster, ClusterLoad, RoutePriority},
};

/// One cluster as workers see it.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// As configured.
    pub(crate) cluster: Arc<Cluster>,
    /// As configured, names not resolved.
    pub(crate) load: Arc<ClusterLoad>,
    /// For aggregates: which member's priority a request takes.
    pub(crate) chain: Option<Arc<Chain>>,
    plan: OnceLock<Arc<Plan>>,
    life: Arc<Life>,
}

/// What outlives configurations.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// It has had traffic: checks are frequent from then on.
    used: AtomicBool,
    breakers: [OnceLock<Arc<Breakers>>; 2],
}

impl Life {
    /// Whether a request went there.
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    fn breakers(&self, priority: RoutePriority, limits: &CircuitBreakers) -> &Arc<Breakers> {
        let [default, high] = &self.breakers;
        match priority {
            RoutePriority::Default => default.get_or_init(|| Breakers::new(&limits.default)),
            RoutePriority::High => high.get_or_init(|| Breakers::new(&limits.high)),
        }
    }

    /// Takes new limits. Breakers are made here even if nobody needed them yet: who holds the configuration before could make them
    /// with its limits otherwise.
    fn configure(&self, limits: &CircuitBreakers) {
        self.breakers(RoutePriority::Default, limits).configure(&limits.default);
        self.breakers(RoutePriority::High, limits).configure(&limits.high);
    }
}

impl Upstream {
    /// A cluster whose plan is made when somebody asks for it.
    pub(crate) fn idle(cluster: Arc<Cluster>, load: Arc<ClusterLoad>, before: Option<&Self>) -> Self {
        let life = Self::life_after(before, &cluster);
        Self { cluster, load, chain: None, plan: OnceLock::new(), life }
    }

    /// A cluster with a plan.
    pub(super) fn planned(cluster: Arc<Cluster>, load: Arc<ClusterLoad>, before: Option<&Self>, plan: Plan) -> Self {
        let life = Self::life_after(before, &cluster);
        Self { cluster, load, chain: None, plan: Arc::new(plan).into(), life }
    }

    /// The same with another plan or chain.
    pub(super) fn with(&self, plan: Arc<Plan>, chain: Option<Arc<Chain>>) -> Self {
        let (cluster, load, life) = (self.cluster.clone(), self.load.clone(), self.life.clone());
        Self { cluster, load, chain, plan: plan.into(), life }
    }

    fn life_after(before: Option<&Self>, cluster: &Cluster) -> Arc<Life> {
        let Some(before) = before else { return Arc::default() };
        if before.cluster.breakers != cluster.breakers {
            before.life.configure(&cluster.breakers);
        }
        before.life.clone()
    }

    /// Who may be chosen.
    pub(crate) fn plan(&self) -> &Arc<Plan> {
        self.plan.get_or_init(|| Arc::new(self.first_plan()))
    }

    /// The plan for somebody who only looks: one that nobody needed yet is made, shown and forgotten.
    pub(crate) fn glance(&self) -> Arc<Plan> {
        self.plan.get().cloned().unwrap_or_else(|| Arc::new(self.first_plan()))
    }

    fn first_plan(&self) -> Plan {
        let now = clock::now();
        let set = Arc::new(EndpointSet::new(&self.load, None, false, now));
        Plan::new(&set, &self.cluster.lb, now)
    }

    /// Whether somebody asked for the plan, so that there are endpoints with a state.
    pub(super) fn is_planned(&self) -> bool {
        self.plan.get().is_some()
    }

    /// What outlives this configuration.
    pub(super) fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// The breakers of a priority.
    pub(crate) fn breakers(&self, priority: RoutePriority) -> &Arc<Breakers> {
        self.life.breakers(priority, &self.cluster.breakers)
    }

    /// The breakers for somebody who only looks.
    pub(crate) fn glance_at_breakers(&self, priority: RoutePriority) -> Arc<Breakers> {
        let limits = &self.cluster.breakers;
        let (made, limits) = match priority {
            RoutePriority::Default => (&self.life.breakers[0], &limits.default),
            RoutePriority::High => (&self.life.breakers[1], &limits.high),
        };
        made.get().cloned().unwrap_or_else(|| Breakers::new(limits))
    }

    /// A request goes to it.
    pub(crate) fn touch(&self) {
        // Written once: the cache line stays shared between cores.
        if !self.life.is_used() {
            self.life.used.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use tombolo_controlplane_api::xds::{
        envoy::config::cluster::v3::{self as pb, circuit_breakers::Thresholds},
        google::protobuf::UInt32Value,
    };
    use tombolo_gateway_core::{
        breaker::Resource,
        config::Discovery,
        wire::{self, Kind},
    };

    fn cluster(requests: u32) -> (Arc<Cluster>, Arc<ClusterLoad>) {
        let limit = Thresholds { max_requests: Some(UInt32Value { value: requests }), ..Default::default() };
        let breakers = pb::CircuitBreakers { thresholds: vec![limit], ..Default::default() };
        let message = pb::Cluster { name: "c".into(), circuit_breakers: Some(breakers), ..Default::default() };
        let decoded = wire::decode(Kind::Cluster, "c", &message.encode_to_vec()).unwrap();
        let wire::Resource::Cluster(cluster) = decoded else { panic!() };
        let Discovery::Static(load) = cluster.discovery.clone() else { panic!() };
        (cluster, load)
    }

    #[test]
    fn nothing_is_made_before_somebody_asks() {
        let (cluster, load) = cluster(7);
        let upstream = Upstream::idle(cluster, load, None);
        assert!(!upstream.is_planned() && upstream.life.breakers.iter().all(|cell| cell.get().is_none()));
        assert!(upstream.glance().set().hosts().is_empty());
        assert_eq!(upstream.glance_at_breakers(RoutePriority::Default).limit(Resource::Requests), 7);
        assert!(
            !upstream.is_planned() && upstream.life.breakers.iter().all(|cell| cell.get().is_none()),
            "only looked at"
        );
        assert!(upstream.plan().set().hosts().is_empty());
        assert!(upstream.is_planned());
        assert_eq!(upstream.breakers(RoutePriority::Default).limit(Resource::Requests), 7);
    }

    #[test]
    fn new_limits_count_for_whoever_holds_the_old_configuration_too() {
        let ((cluster, load), (newer, _)) = (cluster(7), cluster(9));
        let before = Upstream::idle(cluster, load.clone(), None);
        let after = Upstream::idle(newer, load, Some(&before));
        assert_eq!(before.breakers(RoutePriority::Default).limit(Resource::Requests), 9);
        assert!(Arc::ptr_eq(before.breakers(RoutePriority::High), after.breakers(RoutePriority::High)));
        before.touch();
        assert!(after.life().is_used());
    }
}
