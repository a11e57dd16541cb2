//! The endpoints of a proxy's clusters with whose turn it is, as one worker of the gateway keeps them.
//!
//! Owns sets, plans and pickers between picks. Never decides which cluster is meant.

use std::{collections::BTreeMap, sync::Arc};
use tombolo_gateway_core::{
    balance::{EndpointSet, Picker, Plan, Request},
    config::{Cluster, ClusterLoad, Config, Endpoint},
    time::Millis,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Upstreams {
    seed: u64,
    kept: BTreeMap<Arc<str>, Kept>,
}

#[derive(Debug)]
struct Kept {
    cluster: Arc<Cluster>,
    load: Arc<ClusterLoad>,
    set: Arc<EndpointSet>,
    picker: Picker,
}

impl Upstreams {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, kept: BTreeMap::new() }
    }

    /// Chooses an endpoint.
    pub(crate) fn pick(
        &mut self,
        config: &Config,
        cluster: &Arc<Cluster>,
        request: &Request<'_>,
        random: u64,
        now: Millis,
    ) -> Option<Arc<Endpoint>> {
        let load = config.loads.get(&cluster.name).cloned().unwrap_or_else(|| nothing(cluster));
        let seed = self.seed;
        let kept = self.kept.entry(cluster.name.clone()).or_insert_with(|| Kept::new(cluster, &load, seed, now));
        kept.follow(cluster, &load, now);
        let index = kept.picker.pick(request, random, now)?;
        Some(kept.picker.plan().host(index).endpoint.clone())
    }
}

fn nothing(cluster: &Cluster) -> Arc<ClusterLoad> {
    Arc::new(ClusterLoad {
        name: cluster.name.clone(),
        priorities: Box::default(),
        overprovisioning: 140,
        weighted_localities: false,
        drops: Box::default(),
    })
}

impl Kept {
    fn new(cluster: &Arc<Cluster>, load: &Arc<ClusterLoad>, seed: u64, now: Millis) -> Self {
        let set = Arc::new(EndpointSet::new(load, None, false, now));
        let plan = Arc::new(Plan::new(&set, &cluster.lb, now));
        Self { cluster: cluster.clone(), load: load.clone(), set, picker: Picker::new(plan, seed) }
    }

    fn follow(&mut self, cluster: &Arc<Cluster>, load: &Arc<ClusterLoad>, now: Millis) {
        if *self.cluster == **cluster && *self.load == **load {
            return;
        }
        if *self.load != **load {
            self.set = Arc::new(EndpointSet::new(load, Some(&self.set), false, now));
        }
        (self.cluster, self.load) = (cluster.clone(), load.clone());
        self.picker.update(Arc::new(Plan::new(&self.set, &cluster.lb, now)));
    }
}
