//! Which policy and subsets a class of proxies uses towards a service.

use super::{View, covering, selects};
use crate::{
    intent::{Destination, Subset, TrafficPolicy},
    stage::ServiceHead,
};
use std::sync::Arc;
use tombolo_federation_model::{Namespace, ObjectRef, Visibility};

/// What applies, merged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EffectiveDestination {
    /// For the whole service.
    pub policy: TrafficPolicy,
    /// Unique by name.
    pub subsets: Vec<Subset>,
    /// Where it comes from, in merge order.
    pub objects: Vec<ObjectRef>,
}

/// The destination that applies: that of the client's namespace, else of the service's, else of the root namespace, and in
/// each the one with the most specific host. Those of one host are merged; those of different namespaces or hosts never
/// are, so that a client's own object hides that of the owner, subsets included.
#[must_use]
pub fn destination(view: View<'_, '_>, service: &ServiceHead) -> EffectiveDestination {
    let client = &view.audience.namespace;
    let root = &view.reader.mesh().root_namespace;
    let visible = |d: &Destination| d.workload_selector.is_none() && d.export_to.includes(client);
    // In the root namespace every object without an explicit scope is meant for the mesh, not for its own proxies.
    let own = |d: &Destination| {
        client != root || matches!(&d.export_to, Visibility::Only(list) if list.as_slice() == [client.clone()])
    };
    let selected = |d: &Destination| d.workload_selector.as_ref().is_none_or(|s| selects(s, &view.audience.labels));
    found(view, service, client, |d| own(d) && selected(d))
        .or_else(|| found(view, service, &service.key.namespace, visible))
        .or_else(|| found(view, service, root, visible))
        .unwrap_or_default()
}

fn found(
    view: View<'_, '_>,
    service: &ServiceHead,
    namespace: &Namespace,
    usable: impl Fn(&Destination) -> bool,
) -> Option<EffectiveDestination> {
    covering(&service.key.host).find_map(|pattern| {
        let fits = |d: &&Arc<Destination>| d.meta.namespace == *namespace && usable(d);
        let list: Vec<&Arc<Destination>> = view.reader.destinations(&pattern).filter(fits).collect();
        merge(&list)
    })
}

/// Objects that select the workload win over those that do not; then only objects with the same selector are merged.
fn merge(list: &[&Arc<Destination>]) -> Option<EffectiveDestination> {
    let first = list.iter().find(|d| d.workload_selector.is_some()).or_else(|| list.first())?;
    let mut merged = EffectiveDestination::default();
    for destination in list.iter().filter(|d| d.workload_selector == first.workload_selector) {
        if merged.policy == TrafficPolicy::default() {
            merged.policy = destination.policy.clone();
        }
        for subset in &destination.subsets {
            if merged.subset(&subset.name).is_none() {
                merged.subsets.push(subset.clone());
            }
        }
        merged.objects.push(destination.meta.object.clone());
    }
    Some(merged)
}

impl EffectiveDestination {
    /// A subset by name.
    #[must_use]
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// The policy for a port of the service or of a subset. What is written for a port replaces the level around it wholesale; what is
    /// written for a subset overrides the service's field by field.
    #[must_use]
    pub fn policy_for(&self, port: u16, subset: Option<&Subset>) -> TrafficPolicy {
        let base = at_port(&self.policy, port);
        let Some(subset) = subset else { return base };
        if subset.policy.ports.contains_key(&port) {
            return at_port(&subset.policy, port);
        }
        let own = &subset.policy;
        TrafficPolicy {
            load_balancer: own.load_balancer.clone().or(base.load_balancer),
            connection_pool: own.connection_pool.clone().or(base.connection_pool),
            outlier: own.outlier.clone().or(base.outlier),
            tls: own.tls.clone().or(base.tls),
            proxy_protocol: own.proxy_protocol.or(base.proxy_protocol),
            retry_budget: own.retry_budget.or(base.retry_budget),
            ports: base.ports,
        }
    }
}

fn at_port(policy: &TrafficPolicy, port: u16) -> TrafficPolicy {
    policy.ports.get(&port).unwrap_or(policy).clone()
}
